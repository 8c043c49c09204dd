/* proto/crypto.h: the one door to libsodium, wolfCrypt and libcrypto. Reentrant after crypto_init.
 * Libraries by job: libsodium for identity keys, handshakes and hashes, wolfCrypt for RSA and ECDSA
 * verification, libcrypto for secp256k1 (proto/crypto_verify.c says why) and the bulk record AEAD.
 * Verification goes through the libraries' own allocation; it happens once per handshake. */
#ifndef SLUICE_PROTO_CRYPTO_H
#define SLUICE_PROTO_CRYPTO_H

#include "proto/base.h"

void crypto_init(void); /* idempotent; ASSERTs that the libraries start */
void crypto_wipe(void *p, size_t n);
bool crypto_equal(const void *a, const void *b, size_t n); /* constant time */

void crypto_sha256(struct bytes in, uint8_t out[32]);
void crypto_sha256_2(struct bytes a, struct bytes b, uint8_t out[32]); /* of a || b */
void crypto_hmac_sha256(struct bytes key, struct bytes in, uint8_t out[32]);
/* What STUN asks for, over n pieces as if they were one (proto/crypto_hmac.c). */
void crypto_hmac_sha1_n(struct bytes key, const struct bytes *parts, size_t n, uint8_t out[20]);
void crypto_hmac_sha256_n(struct bytes key, const struct bytes *parts, size_t n, uint8_t out[32]);
void crypto_md5_n(const struct bytes *parts, size_t n, uint8_t out[16]);
void crypto_sha256_n(const struct bytes *parts, size_t n, uint8_t out[32]);
void crypto_sha1_n(const struct bytes *parts, size_t n, uint8_t out[20]); /* no signature's */
uint32_t crypto_crc32(struct bytes in); /* ISO-HDLC, as FINGERPRINT wants it; no secret */
/* HKDF as Noise defines it (two outputs); ikm may be empty. */
void crypto_hkdf2(const uint8_t ck[32], struct bytes ikm, uint8_t out1[32], uint8_t out2[32]);

void crypto_x25519_public(const uint8_t sk[32], uint8_t pk[32]);
MUST_USE bool crypto_x25519(const uint8_t sk[32], const uint8_t pk[32],
                            uint8_t out[32]); /* false: all zero */

void crypto_ed25519_from_seed(const uint8_t seed[32], uint8_t sk[64], uint8_t pk[32]);
void crypto_ed25519_sign(const uint8_t sk[64], struct bytes message, uint8_t sig[64]);
MUST_USE bool crypto_ed25519_verify(const uint8_t pk[32], struct bytes message, struct bytes sig);
/* Signatures are over SHA-256(message); keys as libp2p.md §1.2 lists them: DER, strictly; RSA up to
 * 8192 bits (the floor is the caller's); ECDSA on P-256, P-384 and P-521, uncompressed points. */
MUST_USE bool crypto_rsa_verify(struct bytes spki_der, struct bytes message, struct bytes sig);
MUST_USE bool crypto_rsa_bits(struct bytes spki_der, unsigned *bits);
MUST_USE bool crypto_ecdsa_verify(struct bytes spki_der, struct bytes message,
                                  struct bytes sig_der);
MUST_USE bool crypto_secp256k1_verify(struct bytes pk33, struct bytes message,
                                      struct bytes sig_der);

/* One-shot ChaCha20-Poly1305 with a 12-byte nonce and associated data, for handshakes. seal writes
 * n + 16 bytes, open n - 16; in place is allowed. */
void crypto_chapoly_seal(const uint8_t key[32], uint64_t nonce, struct bytes ad, struct bytes in,
                         uint8_t *out);
MUST_USE bool crypto_chapoly_open(const uint8_t key[32], uint64_t nonce, struct bytes ad,
                                  struct bytes in, uint8_t *out);

/* The record AEAD of the forwarding path: ChaCha20-Poly1305, empty AD, nonce = 4 zero bytes and the
 * counter in little-endian (libp2p.md §4). A connection stores 40 bytes per direction; one EVP
 * context pair per shard is re-keyed per record (about 80 ns). */
struct aead_key {
    uint8_t key[32];
    uint64_t counter; /* of the next record; each successful call advances it by one */
};
enum { AEAD_TAG = 16, AEAD_PARTS_MAX = 64 };
struct aead; /* one per thread; new allocates at start-up only */
struct aead *aead_new(void);
void aead_free(struct aead *a);
/* Opens ciphertext || tag scattered over `parts` (n of them, at least 16 bytes in all) into `out`,
 * contiguous. false: forged; `out` must not be read, and k->counter stays, but there is nothing to
 * try again: Noise has no lost records, so the connection is over. `out` may be where a single part
 * begins; otherwise they must not overlap. At most AEAD_PARTS_MAX parts, here and in aead_seal. */
MUST_USE bool aead_open(struct aead *a, struct aead_key *k, const struct bytes *parts, size_t n,
                        uint8_t *out);
/* Seals the concatenation of `parts` to out (sum + 16 bytes). Several parts are
 * gathered in `out` first: one EVP update a record. */
void aead_seal(struct aead *a, struct aead_key *k, const struct bytes *parts, size_t n,
               uint8_t *out);

/* SipHash-2-4 keyed per process: for tables whose keys a peer chooses. */
uint64_t crypto_siphash(const uint8_t key[16], struct bytes in);

#endif
