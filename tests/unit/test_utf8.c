/* UTF-8 in pieces: against an encoder, exhaustively, and the fast path against its plain twin. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "proto/utf8.h"
#include "tests/unit/seeded.h"

static size_t encode(uint32_t point, uint8_t out[4])
{
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (uint8_t)(0xc0 | point >> 6);
        out[1] = (uint8_t)(0x80 | (point & 63));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (uint8_t)(0xe0 | point >> 12);
        out[1] = (uint8_t)(0x80 | (point >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (point & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | point >> 18);
    out[1] = (uint8_t)(0x80 | (point >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (point >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (point & 63));
    return 4;
}

static bool whole(const uint8_t *p, size_t n)
{
    struct utf8 u = { 0 };

    return utf8_feed(&u, p, n) && utf8_whole(&u);
}

static bool whole_scalar(const uint8_t *p, size_t n)
{
    struct utf8 u = { 0 };

    return utf8_feed_scalar(&u, p, n) && utf8_whole(&u);
}

Test(utf8_feed, takes_every_character_that_there_is)
{
    uint8_t b[4];

    for (uint32_t point = 0; point < 0x110000; point++) {
        size_t n = encode(point, b);
        bool surrogate = point >= 0xd800 && point < 0xe000;

        cr_assert_eq(whole(b, n), !surrogate, "U+%04X", point);
    }
}

/* The characters of each length are as many as there are; so no other bytes are one. */
Test(utf8_feed, takes_nothing_else, .timeout = 60)
{
    unsigned count[5] = { 0 };

    for (uint32_t v = 0; v < 1u << 24; v++) {
        uint8_t b[3] = { (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };

        if (v < 1 << 8)
            count[1] += whole_scalar(b + 2, 1);
        if (v < 1 << 16 && b[1] >= 0x80)
            count[2] += whole_scalar(b + 1, 2);
        if (b[0] >= 0x80 && b[1] >= 0x80 && b[2] >= 0x80)
            count[3] += whole_scalar(b, 3);
    }
    for (uint32_t lead = 0xe0; lead < 0x100; lead++)
        for (uint32_t v = 0; v < 1u << 16; v++) {
            uint8_t b[4] = { (uint8_t)lead, (uint8_t)(v >> 8), (uint8_t)v, 0x80 };

            count[4] += b[1] >= 0x80 && b[2] >= 0x80 && whole_scalar(b, 4);
            for (unsigned last = 0x7f; lead >= 0xf0 && last <= 0xc0; last += 0x41) {
                b[3] = (uint8_t)last; /* around what the last byte may be */
                cr_assert(!whole_scalar(b, 4));
            }
        }
    cr_expect_eq(count[1], 0x80u);
    cr_expect_eq(count[2], 0x800u - 0x80);
    cr_expect_eq(count[3], 0x10000u - 0x800 - 0x800);
    cr_expect_eq(count[4], (0x110000u - 0x10000) / 64);
}

Test(utf8_feed, is_its_plain_twin_at_every_place_and_in_every_split)
{
    static const char *const parts[] = {
        "\xc2\x80", "\xed\xa0\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\x80",
        "\xe2\x82", "\xff",         "\xc3\xa9x\xc3\xa9"
    };
    static const size_t tails[] = { 0, 8, 19, 64 }; /* what it skips, what it does not */
    uint8_t text[256];

    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        for (size_t at = 0; at <= 150; at++)
            for (size_t t = 0; t < ARRAY_LEN(tails); t++) {
                size_t k = strlen(parts[i]), n = at + k + tails[t];
                uint8_t *copy = malloc(n ? n : 1);

                memset(text, 'a', sizeof(text));
                memcpy(text + at, parts[i], k);
                memcpy(copy, text, n);
                for (size_t cut = 0; cut <= n; cut++) {
                    struct utf8 u = { 0 }, v = { 0 };
                    bool a = utf8_feed(&u, copy, cut) && utf8_feed(&u, copy + cut, n - cut);
                    bool b = utf8_feed_scalar(&v, copy, n);

                    cr_assert_eq(a, b, "part %zu at %zu cut at %zu", i, at, cut);
                    cr_assert(!a || memcmp(&u, &v, sizeof(u)) == 0);
                }
                free(copy);
            }
}

Test(utf8_feed, is_its_plain_twin_over_random_text)
{
    struct seeded r = { 3 };
    uint8_t text[400];
    unsigned good = 0;

    for (int run = 0; run < 20000; run++) {
        size_t n = 0;

        while (n < sizeof(text) - 4 && seeded_below(&r, 200))
            if (seeded_below(&r, 6))
                text[n++] = (uint8_t)(' ' + seeded_below(&r, 90));
            else
                n +=
                    encode((uint32_t)(seeded_u64(&r) % 0x110000 >> seeded_below(&r, 14)), text + n);
        if (n && seeded_below(&r, 2))
            text[seeded_below(&r, n)] ^= (uint8_t)(1 << seeded_below(&r, 8));
        cr_assert_eq(whole(text, n), whole_scalar(text, n));
        good += whole(text, n);
    }
    cr_expect(good > 2000 && good < 18000, "%u", good);
}
