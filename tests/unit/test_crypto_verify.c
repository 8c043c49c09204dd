/* Signatures by peers' keys: each kind, and the forgeries of tests/vectors/make_keys.py. */
#include "proto/crypto.h"

#include "tests/unit/vectors.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static const struct vectors *keys(void)
{
    crypto_init();
    return vectors_of("keys.txt");
}

Test(crypto_rsa, verifies_each_size_and_no_other_message)
{
    static const char *const size[] = { "1024", "2048", "4096", "8192" };
    const struct vectors *v = keys();
    struct bytes message = vector(v, "message");

    for (size_t i = 0; i < ARRAY_LEN(size); i++) {
        char name[32];
        unsigned bits = 0;

        snprintf(name, sizeof(name), "rsa%s_spki", size[i]);
        struct bytes spki = vector(v, name);

        snprintf(name, sizeof(name), "rsa%s_sig", size[i]);
        struct bytes sig = vector(v, name);

        cr_expect(crypto_rsa_bits(spki, &bits) && bits == (unsigned)atoi(size[i]), "%s", name);
        cr_expect(crypto_rsa_verify(spki, message, sig), "%s", name);
        cr_expect(not(crypto_rsa_verify(spki, bytes_str("another"), sig)), "%s", name);
    }
}

Test(crypto_rsa, counts_bits_exactly_and_verifies_none_past_8192)
{
    const struct vectors *v = keys();
    static uint8_t sig[2048] = { 1 };
    unsigned bits;

    cr_expect(crypto_rsa_bits(vector(v, "rsa2047_spki"), &bits) && bits == 2047);
    cr_expect(crypto_rsa_bits(vector(v, "rsa8193_spki"), &bits) && bits == 8193);
    cr_expect(crypto_rsa_bits(vector(v, "rsa16384_spki"), &bits) && bits == 16384);
    cr_expect(not(
        crypto_rsa_verify(vector(v, "rsa8193_spki"), vector(v, "message"), bytes_of(sig, 1025))));
    cr_expect(not(
        crypto_rsa_verify(vector(v, "rsa16384_spki"), vector(v, "message"), bytes_of(sig, 2048))));
}

static void expect_none(const char *prefix, struct bytes key,
                        bool (*verify)(struct bytes, struct bytes, struct bytes))
{
    const struct vectors *v = keys();
    size_t seen = 0;

    for (size_t i = 0; i < v->n; i++) {
        if (strncmp(v->name[i], prefix, strlen(prefix)) != 0)
            continue;
        seen++;
        cr_expect(not(verify(key, vector(v, "message"), v->value[i])), "%s", v->name[i]);
    }
    cr_expect(lt(sz, (size_t)10, seen));
}

Test(crypto_rsa, refuses_forgeries)
{
    expect_none("rsa_bad_", vector(keys(), "rsa2048_spki"), crypto_rsa_verify);
}

Test(crypto_rsa, refuses_keys_that_are_not_plain_der)
{
    const struct vectors *v = keys();
    struct bytes sig = vector(v, "rsa2048_sig");
    unsigned bits;

    for (size_t i = 0; i < v->n; i++) {
        if (strncmp(v->name[i], "rsa_key_", 8) != 0 || !strstr(v->name[i], "_spki"))
            continue;
        cr_expect(not(crypto_rsa_bits(v->value[i], &bits)), "%s", v->name[i]);
        cr_expect(not(crypto_rsa_verify(v->value[i], vector(v, "message"), sig)), "%s", v->name[i]);
    }
    cr_expect(not(crypto_rsa_verify(vector(v, "rsa_key_e1_spki"), vector(v, "message"),
                                    vector(v, "rsa_key_e1_sig"))));
    cr_expect(not(crypto_rsa_bits(vector(v, "p256_spki"), &bits)));
}

Test(crypto_rsa, refuses_every_truncation_and_every_changed_byte_of_the_head)
{
    const struct vectors *v = keys();
    struct bytes spki = vector(v, "rsa2048_spki");
    uint8_t copy[512];
    unsigned bits;

    for (size_t n = 0; n < spki.n; n++)
        cr_expect(not(crypto_rsa_bits(bytes_of(spki.p, n), &bits)), "%zu", n);
    cr_assert(le(sz, spki.n, sizeof(copy)));
    for (size_t i = 0; i < 33; i++) { /* up to the modulus' first byte */
        memcpy(copy, spki.p, spki.n);
        copy[i] ^= 0x01;
        cr_expect(not(crypto_rsa_verify(bytes_of(copy, spki.n), vector(v, "message"),
                                        vector(v, "rsa2048_sig"))),
                  "byte %zu", i);
    }
}

Test(crypto_ecdsa, verifies_three_curves_and_both_halves_of_s)
{
    const struct vectors *v = keys();
    struct bytes message = vector(v, "message");

    cr_expect(crypto_ecdsa_verify(vector(v, "p256_spki"), message, vector(v, "p256_sig")));
    cr_expect(crypto_ecdsa_verify(vector(v, "p256_spki"), message, vector(v, "p256_ok_low_s")));
    cr_expect(crypto_ecdsa_verify(vector(v, "p256_spki"), message, vector(v, "p256_ok_high_s")));
    cr_expect(crypto_ecdsa_verify(vector(v, "p384_spki"), message, vector(v, "p384_sig")));
    cr_expect(crypto_ecdsa_verify(vector(v, "p521_spki"), message, vector(v, "p521_sig")));
    cr_expect(
        not(crypto_ecdsa_verify(vector(v, "p256_spki"), bytes_str("x"), vector(v, "p256_sig"))));
    cr_expect(not(crypto_ecdsa_verify(vector(v, "p224_spki"), message, vector(v, "p224_sig"))));
    cr_expect(not(crypto_ecdsa_verify(vector(v, "k256_spki"), message, vector(v, "k256_sig"))),
              "secp256k1 has a key type of its own");
    cr_expect(
        not(crypto_ecdsa_verify(vector(v, "rsa2048_spki"), message, vector(v, "rsa2048_sig"))));
}

Test(crypto_ecdsa, refuses_forgeries)
{
    expect_none("p256_bad_", vector(keys(), "p256_spki"), crypto_ecdsa_verify);
}

Test(crypto_ecdsa, refuses_points_that_are_not_on_the_curve)
{
    const struct vectors *v = keys();

    for (size_t i = 0; i < v->n; i++)
        if (strncmp(v->name[i], "p256_key_", 9) == 0 && strstr(v->name[i], "_spki"))
            cr_expect(not(crypto_ecdsa_verify(v->value[i], vector(v, "message"),
                                              vector(v, "p256_key_other_sig"))),
                      "%s", v->name[i]);
}

Test(crypto_ecdsa, refuses_every_truncation)
{
    const struct vectors *v = keys();
    struct bytes spki = vector(v, "p256_spki"), sig = vector(v, "p256_sig");

    for (size_t n = 0; n < spki.n; n++)
        cr_expect(not(crypto_ecdsa_verify(bytes_of(spki.p, n), vector(v, "message"), sig)));
    for (size_t n = 0; n < sig.n; n++)
        cr_expect(not(crypto_ecdsa_verify(spki, vector(v, "message"), bytes_of(sig.p, n))), "%zu",
                  n);
}

Test(crypto_secp256k1, verifies_compressed_keys)
{
    const struct vectors *v = keys();
    struct bytes message = vector(v, "message"), key = vector(v, "k256_key");

    cr_expect(crypto_secp256k1_verify(key, message, vector(v, "k256_sig")));
    cr_expect(crypto_secp256k1_verify(key, message, vector(v, "k256_ok_low_s")));
    cr_expect(crypto_secp256k1_verify(key, message, vector(v, "k256_ok_high_s")));
    cr_expect(not(crypto_secp256k1_verify(key, bytes_str("x"), vector(v, "k256_sig"))));
    expect_none("k256_bad_", key, crypto_secp256k1_verify);
}

Test(crypto_secp256k1, refuses_keys_of_other_shapes_and_off_the_curve)
{
    const struct vectors *v = keys();
    struct bytes sig = vector(v, "k256_sig"), message = vector(v, "message");
    uint8_t key[34] = { 0 };

    memcpy(key, vector(v, "k256_key").p, 33);
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 32), message, sig)));
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 34), message, sig)));
    key[0] ^= 1;
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 33), message, sig)), "the other root");
    key[0] = 4;
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 33), message, sig)));
    key[0] = 0;
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 33), message, sig)));
    memset(key, 0, sizeof(key));
    key[0] = 2;
    key[32] = 5; /* x = 5 has no y */
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 33), message, sig)));
    memset(key + 1, 0xff, 32); /* past the field */
    cr_expect(not(crypto_secp256k1_verify(bytes_of(key, 33), message, sig)));
}

Test(crypto_rsa, refuses_signatures_longer_than_any_modulus)
{
    static uint8_t sig[4096] = { 1 };
    const struct vectors *v = keys();

    for (size_t n = 1020; n <= sizeof(sig); n += 4)
        cr_expect(not(
            crypto_rsa_verify(vector(v, "rsa2048_spki"), vector(v, "message"), bytes_of(sig, n))));
}

Test(crypto_ecdsa, refuses_lengths_that_are_longer_than_needed)
{
    const struct vectors *v = keys();
    struct bytes spki = vector(v, "p256_spki");
    static const uint8_t heads[][4] = { { 0x30, 0x81, 0x59 }, { 0x30, 0x82, 0x00, 0x59 } };
    uint8_t longer[128];

    cr_assert(spki.n == 2 + 0x59 && spki.p[1] == 0x59);
    for (size_t i = 0; i < 2; i++) { /* X.690 §10.1 */
        memcpy(longer, heads[i], 3 + i);
        memcpy(longer + 3 + i, spki.p + 2, 0x59);
        cr_expect(not(crypto_ecdsa_verify(bytes_of(longer, 3 + i + 0x59), vector(v, "message"),
                                          vector(v, "p256_sig"))));
    }
    memcpy(longer, "\x30\x80", 2); /* the indefinite form */
    memcpy(longer + 2, spki.p + 2, 0x59);
    memset(longer + 2 + 0x59, 0, 2);
    cr_expect(not(crypto_ecdsa_verify(bytes_of(longer, 4 + 0x59), vector(v, "message"),
                                      vector(v, "p256_sig"))));
}
