/* The primitives of STUN: published vectors, and every cut into pieces. */
#include "proto/crypto.h"
#include "tests/unit/relay_hex.h"
#include "tests/unit/seeded.h"

TestSuite(crypto_hmac, .init = crypto_init);

static bool is(const uint8_t *got, size_t n, const char *want)
{
    struct hex h = unhex(want);

    return bytes_eq(bytes_of(got, n), hex_bytes(&h));
}

Test(crypto_hmac, sha1_matches_rfc_2202)
{
    uint8_t out[20], a[80];
    struct bytes hi = bytes_str("Hi There"), what = bytes_str("what do ya want for nothing?");
    struct bytes larger = bytes_str("Test Using Larger Than Block-Size Key - Hash Key First");

    memset(a, 0x0b, 20);
    crypto_hmac_sha1_n(bytes_of(a, 20), &hi, 1, out);
    cr_expect(is(out, 20, "b617318655057264e28bc0b6fb378c8ef146be00"));
    crypto_hmac_sha1_n(bytes_str("Jefe"), &what, 1, out);
    cr_expect(is(out, 20, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"));
    memset(a, 0xaa, 80);
    crypto_hmac_sha1_n(bytes_of(a, 80), &larger, 1, out);
    cr_expect(is(out, 20, "aa4ae5e15272d00e95705637ce8a3b55ed402112"));
    crypto_hmac_sha1_n(bytes_of(NULL, 0), NULL, 0, out); /* nothing under no key */
    cr_expect(is(out, 20, "fbdb1d1b18aa6c08324b7d64b71fb76370690e1d"));
}

Test(crypto_hmac, sha256_matches_the_other_library)
{
    struct seeded s = { 7 };
    uint8_t data[300], want[32], got[32];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)seeded_u64(&s);
    for (size_t n = 0; n < sizeof(data); n += 7) {
        size_t cut = seeded_below(&s, n + 1), key = seeded_below(&s, 150);
        struct bytes parts[] = { { data, cut }, { NULL, 0 }, { data + cut, n - cut } };

        crypto_hmac_sha256(bytes_of(data, key), bytes_of(data, n), want);
        crypto_hmac_sha256_n(bytes_of(data, key), parts, 3, got);
        cr_assert(memcmp(want, got, 32) == 0, "%zu", n);
        crypto_sha256(bytes_of(data, n), want);
        crypto_sha256_n(parts, 3, got);
        cr_assert(memcmp(want, got, 32) == 0, "%zu", n);
    }
}

Test(crypto_hmac, md5_matches_rfc_1321)
{
    struct bytes abc[] = { bytes_str("mess"), bytes_of(NULL, 0), bytes_str("age digest") };
    uint8_t out[16];

    crypto_md5_n(NULL, 0, out);
    cr_expect(is(out, 16, "d41d8cd98f00b204e9800998ecf8427e"));
    crypto_md5_n(abc, 3, out);
    cr_expect(is(out, 16, "f96b697d7cb7938d525a2f31aaf161d0"));
}

Test(crypto_hmac, plain_sha1_matches_rfc_3174)
{
    static const char text[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    uint8_t out[20];

    for (size_t cut = 0; cut < sizeof(text); cut++) {
        struct bytes parts[] = { bytes_of(text, cut),
                                 bytes_of(text + cut, sizeof(text) - 1 - cut) };

        crypto_sha1_n(parts, 2, out);
        cr_expect(is(out, 20, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"), "cut at %zu", cut);
    }
    crypto_sha1_n(NULL, 0, out);
    cr_expect(is(out, 20, "da39a3ee5e6b4b0d3255bfef95601890afd80709"));
}

Test(crypto_crc32, matches_its_check_value_and_the_bitwise_definition)
{
    struct seeded s = { 11 };
    uint8_t data[100];

    cr_expect(crypto_crc32(bytes_str("123456789")) == 0xcbf43926);
    cr_expect(crypto_crc32(bytes_of(NULL, 0)) == 0);
    for (int round = 0; round < 200; round++) {
        size_t n = seeded_below(&s, sizeof(data));
        uint32_t crc = 0xffffffff;

        for (size_t i = 0; i < n; i++) {
            data[i] = (uint8_t)seeded_u64(&s);
            crc ^= data[i];
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
        cr_assert(crypto_crc32(bytes_of(data, n)) == ~crc, "%zu bytes", n);
    }
}
