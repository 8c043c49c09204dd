#include "engine/tls_cert.h"

#include "engine/tls.h"
#include "proto/crypto.h"
#include "proto/cur.h"

enum {
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_UTC_TIME = 0x17,
    DER_TIME = 0x18,
    DER_SEQUENCE = 0x30,
    DER_VERSION = 0xa0, /* [0] EXPLICIT */
    VERSION_3 = 2,
};

/* One value, whatever it is: definite and minimal lengths only (X.690 §10.1). *whole has its head
 * too. */
static struct bytes der_any(struct cur *c, uint8_t *tag, struct bytes *whole)
{
    const uint8_t *from = c->p;
    size_t before = c->n;
    bool fine;

    *tag = cur_u8(c);
    size_t n = cur_u8(c);

    fine =
        (*tag & 0x1f) != 0x1f; /* a tag of several bytes has no place in a certificate's outline */
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
    struct bytes body = cur_take(c, n);

    *whole = c->bad ? bytes_of(NULL, 0) : bytes_of(from, before - c->n);
    return body;
}

static struct bytes der_take(struct cur *c, uint8_t want)
{
    struct bytes whole;
    uint8_t tag;
    struct bytes body = der_any(c, &tag, &whole);

    if (tag != want) {
        c->bad = true;
        c->n = 0;
    }
    return body;
}

static void der_skip(struct cur *c, uint8_t want)
{
    (void)der_take(c, want);
}

static int digits(struct cur *c, size_t n)
{
    struct bytes b = cur_take(c, n);
    int v = 0;

    for (size_t i = 0; i < b.n; i++) {
        if (b.p[i] < '0' || b.p[i] > '9') {
            c->bad = true;
            return 0;
        }
        v = v * 10 + b.p[i] - '0';
    }
    return v;
}

/* Days since 1970-01-01 of the proleptic Gregorian calendar. March begins the year, so that the day
 * that comes and goes is its last. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t m = month <= 2 ? month + 9 : month - 3;

    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* UTCTime or GeneralizedTime, in Zulu and with seconds (RFC 5280 §4.1.2.5). */
static int64_t time_read(uint8_t tag, struct bytes text)
{
    struct cur c = cur_of(text);
    int year;

    if (tag == DER_UTC_TIME) {
        year = digits(&c, 2);
        year += year < 50 ? 2000 : 1900;
    } else {
        year = digits(&c, 4);
    }
    int month = digits(&c, 2), day = digits(&c, 2);
    int hour = digits(&c, 2), minute = digits(&c, 2), second = digits(&c, 2);

    if (cur_u8(&c) != 'Z' || c.bad || c.n != 0 || (tag != DER_UTC_TIME && tag != DER_TIME) ||
        month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
        return 0;
    return days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
}

/* Kinds that TLS signs with and that wolfSSL was built for. The algorithm is compared as bytes, so
 * named curves only: explicit parameters let a peer choose the arithmetic. */
static enum tls_key key_of(struct bytes spki, unsigned *rsa_bits)
{
    static const uint8_t p256[] = { 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07 };
    static const uint8_t p384[] = { 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
                                    0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22 };
    static const uint8_t p521[] = { 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
                                    0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23 };
    static const uint8_t ed25519[] = { 0x06, 0x03, 0x2b, 0x65, 0x70 };
    static const struct {
        struct bytes algorithm;
        size_t key_bytes; /* with the byte that counts unused bits */
        enum tls_key key;
    } known[] = {
        { { p256, sizeof(p256) }, 1 + 65, TLS_KEY_P256 },
        { { p384, sizeof(p384) }, 1 + 97, TLS_KEY_P384 },
        { { p521, sizeof(p521) }, 1 + 133, TLS_KEY_P521 },
        { { ed25519, sizeof(ed25519) }, 1 + 32, TLS_KEY_ED25519 },
    };
    struct cur c = cur_of(spki);
    struct cur in = cur_of(der_take(&c, DER_SEQUENCE));
    struct bytes algorithm = der_take(&in, DER_SEQUENCE);
    struct bytes bits = der_take(&in, DER_BIT_STRING);

    if (c.bad || in.bad || in.n != 0 || bits.n == 0 || bits.p[0] != 0)
        return TLS_KEY_OTHER;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (bytes_eq(algorithm, known[i].algorithm) && bits.n == known[i].key_bytes)
            return known[i].key;
    /* crypto_rsa_bits refuses exponents of more than 32 bits: with one as long as the modulus,
     * verifying costs as much as signing does. */
    if (crypto_rsa_bits(spki, rsa_bits) && *rsa_bits >= TLS_RSA_BITS_MIN &&
        *rsa_bits <= TLS_RSA_BITS_MAX)
        return TLS_KEY_RSA;
    return TLS_KEY_OTHER;
}

bool tls_cert_read(struct bytes der, struct tls_cert *out)
{
    struct cur file = cur_of(der);
    struct cur cert = cur_of(der_take(&file, DER_SEQUENCE));
    struct cur tbs = cur_of(der_take(&cert, DER_SEQUENCE));
    struct cur version = cur_of(der_take(&tbs, DER_VERSION));
    struct bytes v = der_take(&version, DER_INTEGER);
    struct bytes whole, time;
    uint8_t tag;

    der_skip(&tbs, DER_INTEGER);  /* serial number */
    der_skip(&tbs, DER_SEQUENCE); /* signature algorithm */
    der_skip(&tbs, DER_SEQUENCE); /* issuer */
    struct cur validity = cur_of(der_take(&tbs, DER_SEQUENCE));

    der_skip(&tbs, DER_SEQUENCE); /* subject */
    (void)der_any(&tbs, &tag, &whole);
    der_skip(&cert, DER_SEQUENCE);
    der_skip(&cert, DER_BIT_STRING);
    if (file.bad || file.n != 0 || cert.bad || cert.n != 0 || tbs.bad || version.bad ||
        version.n != 0 || v.n != 1 || v.p[0] != VERSION_3 || tag != DER_SEQUENCE)
        return false;
    *out = (struct tls_cert){ .spki = whole };
    out->key = key_of(whole, &out->rsa_bits);
    (void)der_any(&validity, &tag, &whole);
    time = der_any(&validity, &tag, &whole);
    if (!validity.bad && validity.n == 0)
        out->not_after_unix_s = time_read(tag, time);
    return true;
}

void tls_cert_id(const struct tls_cert *c, uint8_t sha256[32])
{
    crypto_sha256(c->spki, sha256);
}
