/* proto/peer.h: keys, peer ids and their two text forms (libp2p.md §1.2; libp2p specs: peer-ids).
 * Pure and reentrant. */
#ifndef SLUICE_PROTO_PEER_H
#define SLUICE_PROTO_PEER_H

#include "proto/base.h"

enum {
    PEER_ID_MAX = 44,    /* 42 bytes of identity-hashed key behind a 2-byte multihash head */
    PEER_TEXT_MAX = 80,  /* base58 or base32 text of it, with the terminator */
    KEY_PB_MAX = 1536,   /* encoded PublicKey: an RSA-8192 SubjectPublicKeyInfo and its head */
    KEY_ED25519_PB = 36, /* 08 01 12 20 and 32 bytes */
    KEY_FILE_BYTES = 68, /* private key protobuf on disk (dusk.md §12) */
};

/* A peer id in its one canonical binary form, the multihash. Zero-padded, so that a struct compare
 * and a hash over the whole struct are well defined; usable as a map key. */
struct peer_id {
    uint8_t n; /* 0 = none */
    uint8_t b[PEER_ID_MAX];
};
static_assert(sizeof(struct peer_id) == 45, "no padding: compared as bytes");

static inline bool peer_id_eq(const struct peer_id *a, const struct peer_id *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static inline struct bytes peer_id_bytes(const struct peer_id *id)
{
    return bytes_of(id->b, id->n);
}

/* false: not an identity multihash of <= 42 bytes nor sha2-256 of 32 (libp2p.md §1.2). */
bool peer_id_decode(struct bytes multihash, struct peer_id *id);
void peer_id_of_key(struct bytes key_pb, struct peer_id *id); /* key_pb = encoded PublicKey */
/* Form A (base58btc) out; forms A and B (CIDv1 libp2p-key in base32 or base36) in. `text` holds
 * PEER_TEXT_MAX. */
void peer_id_text(const struct peer_id *id, char *text);
void peer_id_text_cid(const struct peer_id *id, char *text);
bool peer_id_parse(struct bytes text, struct peer_id *id);

enum key_type { KEY_RSA = 0, KEY_ED25519 = 1, KEY_SECP256K1 = 2, KEY_ECDSA = 3 };

/* A peer's public key: `pb` borrows from the decoded bytes, `data` is within it. */
struct pubkey {
    enum key_type type;
    struct bytes pb;
    struct bytes data;
};

/* Takes the canonical encoding only (type, data, each once, shortest varints, nothing behind): the
 * others hash their own re-encoding of a key, so that another spelling would be known by an id that
 * nobody else computes. Refuses unknown types, wrong lengths, and RSA below 2048 or above 8192
 * bits. */
bool pubkey_decode(struct bytes pb, struct pubkey *key);
bool pubkey_verify(const struct pubkey *key, struct bytes message, struct bytes signature);

/* Our own identity, Ed25519 only. `sk` is libsodium's secret||public. Wipe with identity_wipe. */
struct identity {
    uint8_t sk[64];
    uint8_t key_pb[KEY_ED25519_PB];
    struct peer_id id;
};
void identity_from_seed(const uint8_t seed[32], struct identity *me);
/* Key file codec: the private key protobuf (dusk.md §12); also reads the old 96-byte form. */
bool identity_decode(struct bytes file, struct identity *me);
void identity_encode(const struct identity *me, uint8_t file[KEY_FILE_BYTES]);
void identity_wipe(struct identity *me);

#endif
