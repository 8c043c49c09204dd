/* Signatures of keys that are not ours: whatever a peer may bring besides Ed25519 (libp2p.md §1.2).
 * The shells around the numbers are read here, strictly and within bounds, so that no general ASN.1
 * parser meets a peer's bytes; the arithmetic is the library's. wolfCrypt's RSA-2048 and P-256 take
 * 11 and 72 us where libcrypto takes 107 and 134; secp256k1 is libcrypto's, which needs 283 us to
 * wolfCrypt's 485 and reads compressed points in every build. */
#include "proto/crypto.h"
#include "proto/cur.h"

#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/rsa.h>

#include <openssl/err.h>
#include <openssl/evp.h>

enum {
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_SEQUENCE = 0x30,
    RSA_BYTES_MAX = 1024,
    RSA_EXPONENT_MAX = 4, /* bytes: go's cap; a longer one only burns our CPU */
    ECDSA_SIG_MAX = 141,  /* P-521: two integers of 67 bytes, and their heads */
};

static_assert(SP_INT_BITS >= 8 * RSA_BYTES_MAX, "wolfSSL was built for shorter RSA keys");

/* One DER value with that tag: definite, minimal lengths only, as X.690 §10.1 has it. */
static struct bytes der_take(struct cur *c, uint8_t tag)
{
    bool fine = cur_u8(c) == tag;
    size_t n = cur_u8(c);

    if (n == 0x81) {
        n = cur_u8(c);
        fine = fine && n >= 0x80;
    } else if (n == 0x82) {
        n = cur_u16(c);
        fine = fine && n >= 0x100;
    } else {
        fine = fine && n < 0x80;
    }
    if (!fine) {
        c->bad = true;
        c->n = 0;
    }
    return cur_take(c, n);
}

/* A positive integer without its sign byte; minimal, so that a number has one spelling. */
static struct bytes der_unsigned(struct cur *c)
{
    struct bytes v = der_take(c, DER_INTEGER);

    if (v.n > 1 && v.p[0] == 0 && v.p[1] >= 0x80)
        return bytes_of(v.p + 1, v.n - 1);
    if (v.n == 0 || v.p[0] == 0 || v.p[0] >= 0x80)
        c->bad = true;
    return v;
}

/* SubjectPublicKeyInfo (RFC 5280 §4.1.2.7): the algorithm's body and the key's bits. */
static bool spki_read(struct bytes der, struct bytes *algorithm, struct bytes *key)
{
    struct cur c = cur_of(der);
    struct cur spki = cur_of(der_take(&c, DER_SEQUENCE));

    *algorithm = der_take(&spki, DER_SEQUENCE);
    *key = der_take(&spki, DER_BIT_STRING);
    if (c.bad || c.n != 0 || spki.bad || spki.n != 0 || key->n < 1 || key->p[0] != 0)
        return false; /* the first byte counts unused bits */
    *key = bytes_of(key->p + 1, key->n - 1);
    return true;
}

static bool rsa_read(struct bytes der, struct bytes *modulus, struct bytes *exponent)
{
    /* rsaEncryption with its NULL (RFC 8017 §A.1); go insists on the NULL too. */
    static const uint8_t rsa[] = { 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7,
                                   0x0d, 0x01, 0x01, 0x01, 0x05, 0x00 };
    struct bytes algorithm, key;

    if (!spki_read(der, &algorithm, &key) || !bytes_eq(algorithm, bytes_of(rsa, sizeof(rsa))))
        return false;
    struct cur c = cur_of(key);
    struct cur pair = cur_of(der_take(&c, DER_SEQUENCE));

    *modulus = der_unsigned(&pair);
    *exponent = der_unsigned(&pair);
    if (c.bad || c.n != 0 || pair.bad || pair.n != 0)
        return false;
    /* Both odd, and the exponent at least 3: with 1 every signature would be its own message. */
    return modulus->p[modulus->n - 1] & 1 && exponent->p[exponent->n - 1] & 1 &&
           exponent->n <= RSA_EXPONENT_MAX && (exponent->n > 1 || exponent->p[0] >= 3);
}

bool crypto_rsa_bits(struct bytes spki_der, unsigned *bits)
{
    struct bytes modulus, exponent;

    /* 4 GiB of modulus is not a key; the caller's range check wants an unsigned. */
    if (!rsa_read(spki_der, &modulus, &exponent) || modulus.n > UINT16_MAX)
        return false;
    unsigned top = modulus.p[0];

    *bits = (unsigned)(modulus.n - 1) * 8;
    for (; top; top >>= 1)
        ++*bits;
    return true;
}

bool crypto_rsa_verify(struct bytes spki_der, struct bytes message, struct bytes sig)
{
    /* DigestInfo of SHA-256 (RFC 8017 §9.2, note 1). The whole of it is compared with what the
     * signature holds: parsing it instead is how forgeries with small exponents came about. */
    static const uint8_t head[] = { 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                    0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20 };
    uint8_t want[sizeof(head) + 32];
    uint8_t scratch[RSA_BYTES_MAX];
    struct bytes modulus, exponent;
    RsaKey key;
    byte *got = NULL;
    bool good = false;

    if (!rsa_read(spki_der, &modulus, &exponent) || modulus.n > RSA_BYTES_MAX || sig.n != modulus.n)
        return false;
    memcpy(want, head, sizeof(head));
    crypto_sha256(message, want + sizeof(head));
    memcpy(scratch, sig.p, sig.n);
    if (wc_InitRsaKey(&key, NULL) != 0)
        return false;
    if (wc_RsaPublicKeyDecodeRaw(modulus.p, (word32)modulus.n, exponent.p, (word32)exponent.n,
                                 &key) == 0) {
        int n = wc_RsaSSL_VerifyInline(scratch, (word32)sig.n, &got, &key);

        good = n == (int)sizeof(want) && memcmp(got, want, sizeof(want)) == 0;
    }
    wc_FreeRsaKey(&key);
    return good;
}

/* The uncompressed point and its curve. rust knows P-256 alone, js three, go also P-224, which
 * nobody uses. */
static bool ecdsa_read(struct bytes der, struct bytes *point, int *curve)
{
    static const uint8_t p256[] = { 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07 };
    static const uint8_t p384[] = { 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
                                    0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22 };
    static const uint8_t p521[] = { 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
                                    0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23 };
    static const struct {
        const uint8_t *algorithm;
        size_t n;
        size_t coordinate;
        int id;
    } known[] = {
        { p256, sizeof(p256), 32, ECC_SECP256R1 },
        { p384, sizeof(p384), 48, ECC_SECP384R1 },
        { p521, sizeof(p521), 66, ECC_SECP521R1 },
    };
    struct bytes algorithm;

    if (!spki_read(der, &algorithm, point))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (bytes_eq(algorithm, bytes_of(known[i].algorithm, known[i].n))) {
            *curve = known[i].id;
            return point->n == 1 + 2 * known[i].coordinate && point->p[0] == 0x04;
        }
    }
    return false;
}

bool crypto_ecdsa_verify(struct bytes spki_der, struct bytes message, struct bytes sig_der)
{
    struct bytes point;
    uint8_t hash[32];
    ecc_key key;
    int curve;
    int verdict = 0;

    if (sig_der.n > ECDSA_SIG_MAX || !ecdsa_read(spki_der, &point, &curve))
        return false;
    crypto_sha256(message, hash);
    if (wc_ecc_init(&key) != 0)
        return false;
    /* Importing does not ask whether the point is on its curve; check_key does. */
    bool done = wc_ecc_import_x963_ex(point.p, (word32)point.n, &key, curve) == 0 &&
                wc_ecc_check_key(&key) == 0 &&
                wc_ecc_verify_hash(sig_der.p, (word32)sig_der.n, hash, 32, &verdict, &key) == 0;

    wc_ecc_free(&key);
    return done && verdict == 1;
}

static EVP_PKEY *secp256k1_key(struct bytes pk33)
{
    char group[] = "secp256k1";
    uint8_t point[33]; /* OSSL_PARAM takes no const */
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);

    memcpy(point, pk33.p, sizeof(point));
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string("group", group, 0),
                            OSSL_PARAM_construct_octet_string("pub", point, sizeof(point)),
                            OSSL_PARAM_construct_end() };

    if (ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    return key;
}

bool crypto_secp256k1_verify(struct bytes pk33, struct bytes message, struct bytes sig_der)
{
    if (pk33.n != 33 || sig_der.n > ECDSA_SIG_MAX)
        return false;
    EVP_PKEY *key = secp256k1_key(pk33); /* NULL too when x is not on the curve */
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    /* High s is accepted, as go does: who signed is the question here, not which signature. */
    bool good = key && md && EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(md, sig_der.p, sig_der.n, message.p, message.n) == 1;

    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    if (!good)
        ERR_clear_error(); /* a peer's fault is not left in this thread's queue */
    return good;
}
