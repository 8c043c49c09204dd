/* A certificate's outline: the key as it is encoded, its kind, the end of its time. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include "engine/tls.h"
#include "engine/tls_cert.h"

enum { DER_MAX = 8192 };

static size_t der_of(const char *name, uint8_t *der)
{
    static char pem[16384];
    char path[512];
    DerBuffer *d = NULL;

    snprintf(path, sizeof(path), TEST_DIR "/vectors/tls/%s.pem", name);
    FILE *f = fopen(path, "r");

    cr_assert_not_null(f, "%s", path);
    size_t n = fread(pem, 1, sizeof(pem), f);

    fclose(f);
    tls_init();
    cr_assert_eq(wc_PemToDer((const unsigned char *)pem, (long)n, CERT_TYPE, &d, NULL, NULL, NULL),
                 0);
    n = d->length;
    cr_assert_leq(n, DER_MAX);
    memcpy(der, d->buffer, n);
    wc_FreeDer(&d);
    return n;
}

Test(tls_cert, reads_the_key_as_openssl_does)
{
    static const struct {
        const char *name;
        enum tls_key key;
        unsigned rsa_bits;
    } all[] = {
        { "p256", TLS_KEY_P256, 0 },      { "p384", TLS_KEY_P384, 0 },
        { "p521", TLS_KEY_P521, 0 },      { "ed25519", TLS_KEY_ED25519, 0 },
        { "rsa2048", TLS_KEY_RSA, 2048 }, { "rsa4096", TLS_KEY_RSA, 4096 },
        { "rsa8192", TLS_KEY_RSA, 8192 }, { "rsa1024", TLS_KEY_OTHER, 1024 },
        { "exponent", TLS_KEY_OTHER, 0 }, { "k256", TLS_KEY_OTHER, 0 },
        { "usage", TLS_KEY_P256, 0 },     { "past", TLS_KEY_P256, 0 },
        { "chain", TLS_KEY_P256, 0 },
    };
    char line[256], want[128], who[128], got[65];
    uint8_t der[DER_MAX], id[32];

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct tls_cert c;
        FILE *f = fopen(TEST_DIR "/vectors/tls/ids.txt", "r");

        do
            cr_assert_not_null(fgets(line, sizeof(line), f));
        while (sscanf(line, "%127s %127s", who, want) != 2 || strcmp(who, all[i].name) != 0);
        fclose(f);
        cr_assert(tls_cert_read(bytes_of(der, der_of(all[i].name, der)), &c), "%s", all[i].name);
        cr_expect_eq(c.key, all[i].key, "%s", all[i].name);
        cr_expect_eq(c.rsa_bits, all[i].rsa_bits, "%s", all[i].name);
        tls_cert_id(&c, id);
        for (int b = 0; b < 32; b++)
            snprintf(got + 2 * b, 3, "%02x", id[b]);
        cr_expect_str_eq(got, want, "%s", all[i].name);
    }
}

Test(tls_cert, knows_when_it_ends)
{
    uint8_t der[DER_MAX];
    size_t n = der_of("past", der);
    struct tls_cert c;
    static const struct {
        const char *text;
        int64_t unix_s;
    } cases[] = {
        { "700101000000Z", 0 },          { "700101000001Z", 1 },
        { "991231235959Z", 946684799 },  { "000229120000Z", 951825600 },
        { "491231235959Z", 2524607999 }, { "500101000000Z", -631152000 },
        { "261301000000Z", 0 },          { "26010100000Z ", 0 },
        { "2601010000000", 0 },          { "260101250000Z", 0 },
        { "2601x1000000Z", 0 },
    };
    uint8_t *at = NULL;

    cr_assert(tls_cert_read(bytes_of(der, n), &c));
    for (size_t i = 0; i + 15 < n && !at; i++) /* the second UTCTime */
        if (der[i] == 0x17 && der[i + 1] == 13 && der[i + 15] == 0x17)
            at = der + i + 17;
    cr_assert_not_null(at);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memcpy(at, cases[i].text, 13);
        cr_assert(tls_cert_read(bytes_of(der, n), &c));
        cr_expect_eq(c.not_after_unix_s, cases[i].unix_s, "%s: %lld", cases[i].text,
                     (long long)c.not_after_unix_s);
    }
}

Test(tls_cert, refuses_every_truncation_and_what_is_no_version_3)
{
    uint8_t der[DER_MAX + 2];
    size_t n = der_of("p256", der);
    struct tls_cert c;

    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);

        memcpy(copy, der, cut);
        cr_assert_not(tls_cert_read(bytes_of(copy, cut), &c), "%zu", cut);
        free(copy);
    }
    der[n] = 0;
    cr_assert_not(tls_cert_read(bytes_of(der, n + 1), &c));
    cr_assert_not(tls_cert_read(bytes_of(NULL, 0), &c));
    n = der_of("v1", der);
    cr_assert_not(tls_cert_read(bytes_of(der, n), &c));

    n = der_of("p256", der); /* 30 82 n n, 30 82 n n, a0 03 02 01 02 */
    cr_assert_eq(der[12], 2);
    der[12] = 1;
    cr_assert_not(tls_cert_read(bytes_of(der, n), &c));
    der[12] = 2;
    cr_assert(tls_cert_read(bytes_of(der, n), &c));
    der[3] = (uint8_t)(der[3] + 2); /* a NULL behind the signature, within the certificate */
    cr_assert_geq(der[3], 2);
    der[n] = 5;
    der[n + 1] = 0;
    cr_assert_not(tls_cert_read(bytes_of(der, n + 2), &c));
}

/* One byte wrong: it may still be a certificate, and what is read lies within it. */
Test(tls_cert, keeps_within_bounds_whatever_a_byte_says)
{
    uint8_t der[DER_MAX];
    size_t n = der_of("rsa2048", der);
    struct tls_cert c;

    for (size_t i = 0; i < n; i++) {
        for (unsigned v = 0; v < 256; v += 5) {
            uint8_t old = der[i];

            der[i] = (uint8_t)v;
            if (tls_cert_read(bytes_of(der, n), &c)) {
                cr_assert_geq(c.spki.p, der);
                cr_assert_leq(c.spki.n, n);
                cr_assert_leq((size_t)(c.spki.p - der), n - c.spki.n);
            }
            der[i] = old;
        }
    }
}
