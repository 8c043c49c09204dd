#include "engine/proxy2.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "seeded.h"

#define SIGNATURE 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a

/* PROXY, TCP over IPv4, 192.0.2.1:56324 -> 198.51.100.2:4001, one TLV of 3 bytes; then payload. */
static const uint8_t tcp4[] = { SIGNATURE, 0x21, 0x11, 0x00, 0x12, 192,  0,    2,    1,
                                198,       51,   100,  2,    0xdc, 0x04, 0x0f, 0xa1, 0x04,
                                0x00,      0x03, 0xaa, 0xbb, 0xcc, 'p',  'a',  'y' };
enum { TCP4_USED = 16 + 18 };

static const uint8_t tcp6[] = { SIGNATURE, 0x21, 0x21, 0x00, 0x24, 0x20, 0x01, 0x0d, 0xb8, 0, 0,
                                0,         0,    0,    0,    0,    0,    0,    0,    0,    1, 0xfd,
                                0,         0,    0,    0,    0,    0,    0,    0,    0,    0, 0,
                                0,         0,    0,    2,    0xff, 0xff, 0x00, 0x50 };

Test(proxy2, reads_the_addresses_of_tcp_over_ipv4)
{
    struct proxy2 p;
    char text[NETADDR_TEXT_MAX];

    cr_assert_eq(proxy2_parse(bytes_of(tcp4, sizeof(tcp4)), &p), PROXY2_OK);
    cr_assert_eq(p.used, TCP4_USED);
    cr_assert(p.has_src);
    netaddr_text(&p.src, text);
    cr_assert_str_eq(text, "192.0.2.1:56324");
    netaddr_text(&p.dst, text);
    cr_assert_str_eq(text, "198.51.100.2:4001");
}

Test(proxy2, reads_the_addresses_of_tcp_over_ipv6)
{
    struct proxy2 p;
    char text[NETADDR_TEXT_MAX];

    cr_assert_eq(proxy2_parse(bytes_of(tcp6, sizeof(tcp6)), &p), PROXY2_OK);
    cr_assert_eq(p.used, sizeof(tcp6));
    cr_assert(p.has_src);
    netaddr_text(&p.src, text);
    cr_assert_str_eq(text, "[2001:db8::1]:65535");
    netaddr_text(&p.dst, text);
    cr_assert_str_eq(text, "[fd00::2]:80");
}

Test(proxy2, asks_for_more_at_every_truncation)
{
    struct proxy2 p;

    for (size_t n = 0; n < TCP4_USED; n++) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read behind the end */

        memcpy(exact, tcp4, n);
        cr_assert_eq(proxy2_parse(bytes_of(exact, n), &p), PROXY2_MORE, "%zu bytes", n);
        cr_assert_eq(p.want, n < PROXY2_HEAD ? PROXY2_HEAD : TCP4_USED);
        cr_assert(!p.has_src && !p.absent && p.used == 0);
        free(exact);
    }
    cr_assert_eq(proxy2_parse(bytes_of(NULL, 0), &p), PROXY2_MORE);
}

Test(proxy2, knows_other_bytes_at_the_first_that_differs)
{
    struct proxy2 p;

    for (size_t at = 0; at < 12; at++) {
        uint8_t b[12];

        memcpy(b, tcp4, sizeof(b));
        b[at] ^= 0x20;
        cr_assert_eq(proxy2_parse(bytes_of(b, at), &p), PROXY2_MORE);
        cr_assert_eq(proxy2_parse(bytes_of(b, at + 1), &p), PROXY2_BAD);
        cr_assert(p.absent);
    }
    cr_assert_eq(proxy2_parse(bytes_str("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), &p), PROXY2_BAD);
    cr_assert(p.absent, "version 1 is not spoken");
}

Test(proxy2, refuses_other_versions_and_commands)
{
    uint8_t b[sizeof(tcp4)];
    struct proxy2 p;

    memcpy(b, tcp4, sizeof(b));
    for (unsigned v = 0; v < 256; v++) {
        b[12] = (uint8_t)v;
        enum proxy2_verdict want = v == 0x20 || v == 0x21 ? PROXY2_OK : PROXY2_BAD;

        cr_assert_eq(proxy2_parse(bytes_of(b, sizeof(b)), &p), want, "%02x", v);
        cr_assert(!p.absent);
        cr_assert_eq(proxy2_parse(bytes_of(b, 13), &p), want == PROXY2_OK ? PROXY2_MORE : want);
    }
}

Test(proxy2, leaves_the_sockets_address_for_everything_but_proxied_tcp)
{
    uint8_t b[sizeof(tcp4)];
    struct proxy2 p;

    for (unsigned family = 0; family < 256; family++) {
        memcpy(b, tcp4, sizeof(b));
        b[13] = (uint8_t)family; /* 0x21: 18 bytes are too few for IPv6 */
        cr_assert_eq(proxy2_parse(bytes_of(b, sizeof(b)), &p), PROXY2_OK);
        cr_assert_eq(p.has_src, family == 0x11, "%02x", family);
        cr_assert_eq(p.used, TCP4_USED, "the block is skipped whatever is in it");
    }
    memcpy(b, tcp4, sizeof(b));
    b[12] = 0x20; /* LOCAL */
    cr_assert_eq(proxy2_parse(bytes_of(b, sizeof(b)), &p), PROXY2_OK);
    cr_assert(!p.has_src && p.used == TCP4_USED);
}

Test(proxy2, needs_a_block_long_enough_for_its_family)
{
    struct proxy2 p;

    for (uint8_t length = 0; length <= 12; length++) {
        uint8_t b[16 + 12];

        memcpy(b, tcp4, sizeof(b));
        b[15] = length;
        cr_assert_eq(proxy2_parse(bytes_of(b, 16 + (size_t)length), &p), PROXY2_OK);
        cr_assert_eq(p.has_src, length == 12, "%u", length);
        cr_assert_eq(p.used, 16 + (size_t)length);
    }
    for (uint8_t length = 35; length <= 36; length++) {
        uint8_t b[sizeof(tcp6)];

        memcpy(b, tcp6, sizeof(b));
        b[15] = length;
        cr_assert_eq(proxy2_parse(bytes_of(b, sizeof(b)), &p), PROXY2_OK);
        cr_assert_eq(p.has_src, length == 36);
    }
}

Test(proxy2, bounds_the_block)
{
    uint8_t b[PROXY2_MAX + 1] = { 0 };
    struct proxy2 p;

    memcpy(b, tcp4, 16);
    b[14] = PROXY2_BODY_MAX >> 8;
    b[15] = PROXY2_BODY_MAX & 0xff;
    cr_assert_eq(proxy2_parse(bytes_of(b, PROXY2_MAX - 1), &p), PROXY2_MORE);
    cr_assert_eq(proxy2_parse(bytes_of(b, sizeof(b)), &p), PROXY2_OK);
    cr_assert_eq(p.used, PROXY2_MAX);
    b[15]++;
    cr_assert_eq(proxy2_parse(bytes_of(b, 16), &p), PROXY2_BAD, "one past it, known at once");
    b[14] = b[15] = 0xff;
    cr_assert_eq(proxy2_parse(bytes_of(b, 16), &p), PROXY2_BAD);
}

/* Whatever comes: the answer for a prefix never contradicts the answer for the whole. */
Test(proxy2, answers_the_same_however_it_is_split)
{
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct seeded r = { seed };
        uint8_t b[64];
        struct proxy2 whole, part;

        memcpy(b, seeded_below(&r, 2) ? tcp4 : tcp6, sizeof(tcp4));
        for (size_t i = sizeof(tcp4); i < sizeof(b); i++)
            b[i] = (uint8_t)seeded_u64(&r);
        b[14] = seeded_below(&r, 4) ? 0 : b[14];
        b[15] = (uint8_t)seeded_below(&r, 60);
        if (seeded_below(&r, 2))
            b[seeded_below(&r, 16)] = (uint8_t)seeded_u64(&r);
        enum proxy2_verdict v = proxy2_parse(bytes_of(b, sizeof(b)), &whole);

        for (size_t n = 0; n <= sizeof(b); n++) {
            enum proxy2_verdict w = proxy2_parse(bytes_of(b, n), &part);

            if (w != PROXY2_MORE) {
                cr_assert_eq(w, v, "seed %lu at %zu", seed, n);
                cr_assert(v == PROXY2_BAD || memcmp(&part, &whole, sizeof(part)) == 0);
                break;
            }
            cr_assert_gt(part.want, n, "seed %lu: asks for what it has", seed);
        }
    }
}
