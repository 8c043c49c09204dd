/* Socket addresses and CIDRs: libp2p.md §1.3 (go's public test), RFC 4291 §2.2, RFC 5952. */
#include "proto/maddr.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

static struct netaddr addr(const char *ip)
{
    struct netaddr a;
    char text[80];

    snprintf(text, sizeof(text), strchr(ip, ':') ? "[%s]:1" : "%s:1", ip);
    cr_assert(netaddr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

Test(netaddr_text, is_what_rfc_5952_recommends)
{
    static const char *const pairs[][2] = {
        { "0:0:0:0:0:0:0:0", "::" },
        { "0:0:0:0:0:0:0:1", "::1" },
        { "1:0:0:0:0:0:0:0", "1::" },
        { "2001:DB8::1", "2001:db8::1" },                   /* §4.3 */
        { "2001:0db8::0001", "2001:db8::1" },               /* §4.1 */
        { "2001:db8:0:0:0:0:2:1", "2001:db8::2:1" },        /* §4.2.1 */
        { "2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1" }, /* §4.2.2 */
        { "2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1" },
        { "2001:0:0:1:0:0:0:1", "2001:0:0:1::1" },       /* §4.2.3: the longest */
        { "2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1" }, /* the first of equals */
        { "0:0:1:0:0:0:0:1", "0:0:1::1" },
        { "1:2:3:4:5:6:0:0", "1:2:3:4:5:6::" },
        { "::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8" },
        { "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0" },
        { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
        { "64:ff9b::192.0.2.33", "64:ff9b::c000:221" },
        { "::ffff:192.0.2.1", "192.0.2.1" }, /* dual-stack sockets report IPv4 so */
        { "::ffff:c000:201", "192.0.2.1" },
        { "0:0:0:0:0:ffff:255.255.255.255", "255.255.255.255" },
        { "192.0.2.1", "192.0.2.1" },
    };

    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct netaddr a = addr(pairs[i][0]);
        char ip[NETADDR_TEXT_MAX], both[NETADDR_TEXT_MAX], want[NETADDR_TEXT_MAX + 8];

        netaddr_ip_text(&a, ip);
        cr_expect(eq(str, ip, (char *)pairs[i][1]));
        a.port = 65535;
        netaddr_text(&a, both);
        snprintf(want, sizeof(want), netaddr_is4(&a) ? "%s:65535" : "[%s]:65535", pairs[i][1]);
        cr_expect(eq(str, both, want));
    }
}

Test(netaddr_put_ip6, writes_mapped_addresses_in_mixed_notation)
{
    static const uint8_t mapped[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 1 };
    char text[64];
    struct wcur w = wcur_of(text, sizeof(text));

    netaddr_put_ip6(&w, mapped);
    cr_expect(bytes_eq(bytes_of(text, w.wrote), bytes_str("::ffff:192.0.2.1")));
}

Test(netaddr_parse, reads_back_every_text_it_writes)
{
    uint64_t seed = 1;

    for (int i = 0; i < 20000; i++) {
        struct netaddr a = { 0 }, b;
        char text[NETADDR_TEXT_MAX];

        for (int k = 0; k < 16; k += 2) { /* zeros often, so that runs come up */
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            if (seed >> 62)
                put_u16(a.ip + k, (uint16_t)(seed >> 40 & (seed >> 61 & 1 ? 0xffff : 0xf)));
        }
        a.port = (uint16_t)(seed >> 20);
        netaddr_text(&a, text);
        cr_assert(netaddr_parse(bytes_str(text), &b), "%s", text);
        cr_assert(memcmp(a.ip, b.ip, 16) == 0 && a.port == b.port, "%s", text);
    }
}

Test(netaddr_parse, refuses_other_shapes)
{
    static const char *const bad[] = {
        "",
        ":",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:+1",
        "1.2.3.4: 1",
        "1.2.3.4:01",
        "1.2.3.4:1 ",
        "1.2.3:1",
        "1.2.3.4.5:1",
        "256.2.3.4:1",
        "1..3.4:1",
        "a.b.c.d:1",
        "01.2.3.4:1",
        "[",
        "[]",
        "[]:1",
        "[::1]",
        "[::1]:",
        "[::1]1",
        "[::1]:x",
        "[1.2.3.4]:1",
        "::1:1",
        "[:::]:1",
        "[::1::]:1",
        "[1:2:3:4:5:6:7]:1",
        "[1:2:3:4:5:6:7:8:9]:1",
        "[1:2:3:4:5:6:7:8::]:1",
        "[fffff::]:1",
        "[g::]:1",
        "[1:]:1",
        "[:1]:1",
        "[fe80::1%1]:1",
        "[::1.2.3]:1",
        "[1.2.3.4::]:1",
        "[::1.2.3.4:5]:1",
        "[1:2:3:4:5:6:7:1.2.3.4]:1",
        "localhost:1",
        "1.2.3.4:18446744073709551617",
    };
    struct netaddr a = { .port = 7 };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(netaddr_parse(bytes_str(bad[i]), &a)), "%s", bad[i]);
    cr_expect(a.port == 7, "results only on success");
}

Test(netaddr_parse_decimal, is_bounded_on_both_sides)
{
    uint64_t v;

    cr_expect(netaddr_parse_decimal(bytes_str("0"), 0, &v) && v == 0);
    cr_expect(not(netaddr_parse_decimal(bytes_str("1"), 0, &v)));
    cr_expect(netaddr_parse_decimal(bytes_str("18446744073709551615"), UINT64_MAX, &v) &&
              v == UINT64_MAX);
    cr_expect(not(netaddr_parse_decimal(bytes_str("18446744073709551616"), UINT64_MAX, &v)));
    cr_expect(not(netaddr_parse_decimal(bytes_str("99999999999999999999"), UINT64_MAX, &v)));
    cr_expect(not(netaddr_parse_decimal(bytes_str("00"), 9, &v)));
    cr_expect(not(netaddr_parse_decimal(bytes_str(""), 9, &v)));
    cr_expect(not(netaddr_parse_decimal(bytes_str("1/"), 99, &v)));
    cr_expect(not(netaddr_parse_decimal(bytes_str("1:"), 99, &v)));
}

Test(netaddr_is_public, agrees_with_go_at_both_ends_of_every_range)
{
    static const char *const no[] = {
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.255",
        "192.0.2.0",
        "192.0.2.255",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.0",
        "198.51.100.255",
        "203.0.113.0",
        "203.0.113.255",
        "224.0.0.0",
        "239.255.255.255",
        "240.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "64:ff9b::1",
        "1fff:ffff::",
        "4000::",
        "2001:db8::",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff::1",
        "3fff:fff::1",
        "::ffff:10.0.0.1",
    };
    static const char *const yes[] = {
        "1.0.0.0",         "8.8.8.8",         "9.255.255.255",   "11.0.0.0",
        "100.63.255.255",  "100.128.0.0",     "126.255.255.255", "128.0.0.0",
        "169.253.255.255", "169.255.0.0",     "172.15.255.255",  "172.32.0.0",
        "191.255.255.255", "192.0.1.0",       "192.0.3.0",       "192.88.98.255",
        "192.88.100.0",    "192.167.255.255", "192.169.0.0",     "198.17.255.255",
        "198.20.0.0",      "198.51.99.255",   "198.51.101.0",    "203.0.112.255",
        "203.0.114.0",     "223.255.255.255", "2000::",          "2001:db7:ffff::",
        "2001:db9::",      "3ffe::1",         "3fff:1000::",     "2606:4700::1111",
        "::ffff:8.8.8.8",
    };

    for (size_t i = 0; i < ARRAY_LEN(no); i++) {
        struct netaddr a = addr(no[i]);

        cr_expect(not(netaddr_is_public(&a)), "%s", no[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        struct netaddr a = addr(yes[i]);

        cr_expect(netaddr_is_public(&a), "%s", yes[i]);
    }
}

static bool matches(const char *cidr, const char *ip)
{
    struct netaddr a = addr(ip);
    struct cidr c;

    cr_assert(cidr_parse(bytes_str(cidr), &c), "%s", cidr);
    return cidr_match(&c, a.ip);
}

Test(cidr, matches_its_range_and_nothing_beside_it)
{
    cr_expect(matches("10.0.0.0/8", "10.255.255.255") && !matches("10.0.0.0/8", "11.0.0.0"));
    cr_expect(matches("10.1.2.3/8", "10.0.0.1"), "host bits do not count");
    cr_expect(matches("192.0.2.128/25", "192.0.2.128") &&
              !matches("192.0.2.128/25", "192.0.2.127"));
    cr_expect(matches("192.0.2.1", "192.0.2.1") && !matches("192.0.2.1", "192.0.2.0"));
    cr_expect(matches("192.0.2.1/32", "::ffff:192.0.2.1"));
    cr_expect(matches("0.0.0.0/0", "255.1.2.3") && !matches("0.0.0.0/0", "2001:db8::1"));
    cr_expect(matches("::/0", "1.2.3.4") && matches("::/0", "2001:db8::1"));
    cr_expect(matches("fd00::/8", "fdff::") && !matches("fd00::/8", "fc00::"));
    cr_expect(matches("2001:db8::/127", "2001:db8::1") &&
              !matches("2001:db8::/127", "2001:db8::2"));
    cr_expect(matches("2001:db8::5", "2001:db8::5") && !matches("2001:db8::5", "2001:db8::4"));
    cr_expect(matches("::ffff:10.0.0.0/104", "10.9.9.9"), "an IPv4 range in its long spelling");
    for (int bits = 0; bits <= 32; bits++) {
        char text[32], other[32];
        uint32_t flip = bits ? UINT32_C(1) << (32 - bits) : 0; /* the last bit that counts */

        snprintf(text, sizeof(text), "255.255.255.255/%d", bits);
        flip = UINT32_MAX ^ flip;
        snprintf(other, sizeof(other), "%u.%u.%u.%u", flip >> 24, flip >> 16 & 255, flip >> 8 & 255,
                 flip & 255);
        cr_expect(matches(text, other) == (bits == 0), "%s %s", text, other);
        cr_expect(matches(text, "255.255.255.255"));
    }
}

Test(cidr, refuses_other_shapes)
{
    static const char *const bad[] = { "",        "/",          "10.0.0.0/33", "10.0.0.0/",
                                       "::/129",  "10.0.0/8",   "10.0.0.0/-1", "10.0.0.0/08",
                                       "fd00::/", "x/8",        "/8",          "10.0.0.0/8/8",
                                       "[::]/0",  "10.0.0.0 /8" };
    struct cidr c;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(cidr_parse(bytes_str(bad[i]), &c)), "%s", bad[i]);
}
