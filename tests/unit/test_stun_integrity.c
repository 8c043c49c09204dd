/* FINGERPRINT, MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256. */
#include "proto/crypto.h"
#include "tests/unit/stun_vec.h"

TestSuite(stun_fingerprint, .init = crypto_init);
TestSuite(stun_integrity, .init = crypto_init);

/* ---- FINGERPRINT --------------------------------------------------------------------------- */

Test(stun_fingerprint, turn_09_is_written_and_verified)
{
    struct making *k = making(STUN_BINDING, STUN_REQUEST);
    struct stun_msg m;

    stun_put_fingerprint(&k->b);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(stun_has(&m, STUN_FINGERPRINT) && m.meant == 0);
}

Test(stun_fingerprint, turn_10_falls_with_any_bit)
{
    static const char *const with[] = { V1, V2, V3, V11, V12 };

    for (size_t v = 0; v < ARRAY_LEN(with); v++) {
        struct bytes whole = hex(with[v]);
        uint8_t copy[256];
        struct stun_msg m;

        for (size_t bit = 0; bit < whole.n * 8; bit++) {
            memcpy(copy, whole.p, whole.n);
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
            enum stun_verdict got = stun_decode(bytes_of(copy, whole.n), 0, &m);

            /* A flip in a type or a length can hide it; what is left has none, and says so. */
            cr_assert(got != STUN_OK || !stun_has(&m, STUN_FINGERPRINT), "vector %zu, bit %zu", v,
                      bit);
        }
    }
}

Test(stun_fingerprint, must_be_last_and_whole)
{
    struct making *k = making(STUN_BINDING, STUN_REQUEST);
    struct stun_msg m;

    stun_put_fingerprint(&k->b);
    stun_put_fingerprint(&k->b);
    cr_expect(stun_decode(made(k), 0, &m) == STUN_BAD_ATTRIBUTE);
    k = making(STUN_BINDING, STUN_REQUEST);
    stun_put_fingerprint(&k->b);
    stun_put(&k->b, STUN_SOFTWARE, bytes_str("x"));
    cr_expect(stun_decode(made(k), 0, &m) == STUN_BAD_ATTRIBUTE);
    cr_expect(verdict_of("00010008" COOKIE TID "8028000300000000") == STUN_BAD_FINGERPRINT);
    cr_expect(verdict_of("00010004" COOKIE TID "80280000") == STUN_BAD_FINGERPRINT);
}

/* ---- integrity ----------------------------------------------------------------------------- */

static const struct {
    const char *wire, *key;
} signed_vectors[] = { { V1, SHORT_PASSWORD }, { V2, SHORT_PASSWORD }, { V3, SHORT_PASSWORD },
                       { V4, KEY_V4 },         { V5, KEY_V5 },         { V11, KEY_MD5 },
                       { V12, KEY_SHA256 } };

/* The vector without its FINGERPRINT, which would catch the flip first. */
static size_t unfingered(const char *wire, uint8_t out[256])
{
    struct bytes whole = hex(wire);
    struct stun_msg m = decoded(wire);
    size_t n = stun_has(&m, STUN_FINGERPRINT) ? whole.n - 8 : whole.n;

    memcpy(out, whole.p, n);
    put_u16(out + 2, (uint16_t)(n - STUN_HEADER));
    return n;
}

Test(stun_integrity, falls_with_any_bit_of_the_message)
{
    for (size_t v = 0; v < ARRAY_LEN(signed_vectors); v++) {
        uint8_t wire[256], copy[256];
        size_t n = unfingered(signed_vectors[v].wire, wire);
        struct bytes key = key_of(signed_vectors[v].key);
        struct stun_msg m;

        cr_assert(stun_decode(bytes_of(wire, n), 0, &m) == STUN_OK);
        cr_assert(stun_integrity_ok(&m, stun_mac_of(&m), key, 32), "vector %zu", v);
        for (size_t bit = 0; bit < n * 8; bit++) {
            memcpy(copy, wire, n);
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (stun_decode(bytes_of(copy, n), 0, &m) == STUN_OK)
                cr_assert(not(stun_integrity_ok(&m, stun_mac_of(&m), key, 32)), "%zu, bit %zu", v,
                          bit);
        }
    }
}

Test(stun_integrity, falls_with_any_bit_of_the_key)
{
    for (size_t v = 0; v < ARRAY_LEN(signed_vectors); v++) {
        struct stun_msg m = decoded(signed_vectors[v].wire);
        struct bytes key = key_of(signed_vectors[v].key);
        uint8_t other[64];

        for (size_t bit = 0; bit < key.n * 8; bit++) {
            memcpy(other, key.p, key.n);
            other[bit / 8] ^= (uint8_t)(1 << bit % 8);
            cr_assert(not(stun_integrity_ok(&m, stun_mac_of(&m), bytes_of(other, key.n), 32)));
        }
        cr_expect(not(stun_integrity_ok(&m, stun_mac_of(&m), bytes_of(key.p, key.n - 1), 32)));
        cr_expect(not(stun_integrity_ok(&m, stun_mac_of(&m), bytes_of(NULL, 0), 32)));
    }
}

Test(stun_integrity, turn_37_takes_a_truncated_sha256_only_where_the_usage_does)
{
    for (size_t tag = 16; tag <= 32; tag += 4) {
        struct making *k = making(STUN_BINDING, STUN_REQUEST);
        struct stun_msg m;

        stun_put(&k->b, STUN_USERNAME, bytes_str("user"));
        stun_put_integrity(&k->b, STUN_MAC_SHA256, hex(KEY_SHA256), tag);
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        for (size_t min = 16; min <= 32; min++)
            cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA256, hex(KEY_SHA256), min) == (tag >= min),
                      "%zu of %zu", tag, min);
    }
}

Test(stun_integrity, is_wrong_at_every_other_length)
{
    for (size_t n = 0; n <= 40; n++) {
        struct making *k = making(STUN_BINDING, STUN_REQUEST);
        uint8_t tag[40] = { 0 };
        struct stun_msg m;

        stun_put(&k->b, STUN_MESSAGE_INTEGRITY, bytes_of(tag, n));
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(stun_mac_of(&m) == STUN_MAC_SHA1);
        cr_expect(stun_is_broken(&m, STUN_MESSAGE_INTEGRITY) == (n != 20), "%zu", n);
        cr_expect(not(stun_integrity_ok(&m, STUN_MAC_SHA1, hex(KEY_MD5), 32)));
        k = making(STUN_BINDING, STUN_REQUEST);
        stun_put(&k->b, STUN_MESSAGE_INTEGRITY_SHA256, bytes_of(tag, n));
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(stun_mac_of(&m) == STUN_MAC_SHA256);
        cr_expect(stun_is_broken(&m, STUN_MESSAGE_INTEGRITY_SHA256) ==
                      (n < 16 || n > 32 || n % 4 != 0),
                  "%zu", n);
        cr_expect(not(stun_integrity_ok(&m, STUN_MAC_SHA256, hex(KEY_MD5), 16)));
    }
}
