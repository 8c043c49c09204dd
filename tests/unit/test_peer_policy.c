/* Who may be a peer: each range of turn.md §15.1 by its first and last address and their
 * neighbours, each way to carry IPv4 in IPv6, and who wins where entries disagree. */
#include "proto/peer_policy.h"

#include "tests/unit/seeded.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

static struct peer_policy policy;

static struct netaddr addr(const char *ip, unsigned port)
{
    struct netaddr a;
    char text[80];

    snprintf(text, sizeof(text), strchr(ip, ':') ? "[%s]:%u" : "%s:%u", ip, port);
    cr_assert(netaddr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

static enum peer_verdict judged(const char *ip, unsigned port)
{
    struct netaddr a = addr(ip, port);

    return peer_judge(&policy, &a);
}

/* A list of the operator's, from a text with blanks between. */
static struct cidr *list(const char *text, size_t *count)
{
    static struct cidr pool[64];
    static size_t used;
    struct cidr *first = &pool[used];
    char copy[512];

    snprintf(copy, sizeof(copy), "%s", text);
    *count = 0;
    for (char *at = strtok(copy, " "); at; at = strtok(NULL, " ")) {
        cr_assert(used < ARRAY_LEN(pool) && cidr_parse(bytes_str(at), &pool[used]), "%s", at);
        used++;
        ++*count;
    }
    return first;
}

static void allow(const char *text)
{
    policy.allow = list(text, &policy.allow_count);
}

static void deny(const char *text)
{
    policy.deny = list(text, &policy.deny_count);
}

/* ---- the table ----------------------------------------------------------------------------- */

/* before and after: NULL where the neighbour is closed too, or there is none. */
static const struct {
    const char *before, *first, *last, *after;
} ranges[] = {
    { NULL, "0.0.0.0", "0.255.255.255", "1.0.0.0" },
    { "9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0" },
    { "100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0" },
    { "126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0" },
    { "169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0" },
    { "172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0" },
    { "191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0" },
    { "192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0" },
    { "192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0" },
    { "192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0" },
    { "198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0" },
    { "198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0" },
    { "203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0" },
    { "223.255.255.255", "224.0.0.0", "239.255.255.255", NULL },
    { NULL, "240.0.0.0", "255.255.255.254", NULL },
    { NULL, "255.255.255.255", "255.255.255.255", NULL },
    { NULL, "::", "::", NULL },
    { NULL, "::1", "::1", NULL },
    { NULL, "::2", "::ffff:ffff", "::1:0:0" },
    { "::fffe:ffff:ffff:ffff", "::ffff:0:0:0", "::ffff:0:ffff:ffff", "::ffff:1:0:0" },
    { "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
      "64:ff9b:2::" },
    { "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "100::", "100::ffff:ffff:ffff:ffff", "100:0:0:1::" },
    { "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
      "2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::" },
    { "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
      "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::" },
    { "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
      "3fff:1000::" },
    { "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
      "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5f01::" },
    { "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
      "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::" },
    { "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
      "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL },
    { NULL, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL },
    { NULL, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL },
};

Test(peer_judge, turn_62_cve_2026_73213_each_range_begins_and_ends_where_it_should)
{
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        cr_expect(judged(ranges[i].first, 9999) == PEER_SPECIAL, "%s", ranges[i].first);
        cr_expect(judged(ranges[i].last, 9999) == PEER_SPECIAL, "%s", ranges[i].last);
        if (ranges[i].before)
            cr_expect(judged(ranges[i].before, 9999) == PEER_OK, "%s", ranges[i].before);
        if (ranges[i].after)
            cr_expect(judged(ranges[i].after, 9999) == PEER_OK, "%s", ranges[i].after);
    }
}

/* An end that is the greater by its first part and the lesser by its last. */
Test(peer_judge, cve_2026_73213_parts_are_not_compared_one_by_one)
{
    deny("2a00:1450:4000::/37");
    cr_expect(judged("2a00:1450:4000:ffff::", 9) == PEER_DENIED);
    cr_expect(judged("2a00:1450:47ff:1:2:3:4:5", 9) == PEER_DENIED);
    cr_expect(judged("2a00:1450:4800::", 9) == PEER_OK);
    cr_expect(judged("2a00:144f:4000::", 9) == PEER_OK);
    cr_expect(judged("2a00:1451:4000::", 9) == PEER_OK);
}

Test(peer_judge, turn_62_cve_2018_4058_cve_2020_26262_cve_2021_21382_this_host_is_no_peer)
{
    static const char *const all[] = {
        "127.0.0.1",        "0.0.0.0",    "10.0.0.1",        "169.254.169.254",
        "224.0.0.1",        "::1",        "255.255.255.255", "::",
        "fe80::1",          "fd00::1",    "ff02::1",         "::127.0.0.1",
        "::ffff:127.0.0.1", "::ffff:0:0", "64:ff9b::7f00:1",
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        cr_expect(judged(all[i], 80) == PEER_SPECIAL, "%s", all[i]);
    cr_expect(judged("::8.8.8.8", 80) == PEER_SPECIAL, "whatever it carries");
    cr_expect(judged("::ffff:0:8.8.8.8", 80) == PEER_SPECIAL);
    cr_expect(judged("64:ff9b:1::8.8.8.8", 80) == PEER_SPECIAL);
    cr_expect(judged("64:ff9b::8.8.8.8", 80) == PEER_OK);
    cr_expect(judged("2002:7f00:1::", 80) == PEER_TUNNEL);
    cr_expect(judged("2001::1", 80) == PEER_TUNNEL);
    cr_expect(judged("8.8.8.8", 80) == PEER_OK && judged("2a00:1450::1", 80) == PEER_OK);
}

/* ---- IPv4 within IPv6 ---------------------------------------------------------------------- */

static const struct {
    const char *carrier;
    enum peer_form form;
    const char *carried;
} forms[] = {
    { "8.8.8.8", PEER_PLAIN, "8.8.8.8" },
    { "::ffff:10.0.0.1", PEER_PLAIN, "10.0.0.1" },
    { "2a00::1", PEER_PLAIN, "2a00::1" },
    { "::", PEER_PLAIN, "::" },
    { "::1", PEER_PLAIN, "::1" },
    { "::2", PEER_COMPATIBLE, "0.0.0.2" },
    { "::0.0.1.0", PEER_COMPATIBLE, "0.0.1.0" },
    { "::127.0.0.1", PEER_COMPATIBLE, "127.0.0.1" },
    { "::1:7f00:1", PEER_PLAIN, "::1:7f00:1" },
    { "::ffff:0:127.0.0.1", PEER_TRANSLATED, "127.0.0.1" },
    { "64:ff9b::127.0.0.1", PEER_NAT64, "127.0.0.1" },
    { "64:ff9b:0:0:0:1:7f00:1", PEER_PLAIN, "64:ff9b:0:0:0:1:7f00:1" },
    { "64:ff9b:1::127.0.0.1", PEER_NAT64_LOCAL, "127.0.0.1" },
    { "64:ff9b:1:ffff::8.8.8.8", PEER_NAT64_LOCAL, "8.8.8.8" },
    { "64:ff9b:2::127.0.0.1", PEER_PLAIN, "64:ff9b:2::7f00:1" },
    { "2002:7f00:1::", PEER_6TO4, "127.0.0.1" },
    { "2002:808:808:1:2:3:4:5", PEER_6TO4, "8.8.8.8" },
    { "2003:7f00:1::", PEER_PLAIN, "2003:7f00:1::" },
    { "2001:0:4136:e378:8000:63bf:80ff:fffe", PEER_TEREDO, "127.0.0.1" },
    { "2001:0:4136:e378:8000:63bf:3fff:fdd2", PEER_TEREDO, "192.0.2.45" }, /* RFC 4380 §4 */
    { "2001:1::80ff:fffe", PEER_PLAIN, "2001:1::80ff:fffe" },
    { "2a00::5efe:127.0.0.1", PEER_ISATAP, "127.0.0.1" },
    { "2a00::200:5efe:10.0.0.1", PEER_ISATAP, "10.0.0.1" },
    { "2a00::300:5efe:10.0.0.1", PEER_ISATAP, "10.0.0.1" },
    { "2a00::400:5efe:10.0.0.1", PEER_PLAIN, "2a00::400:5efe:a00:1" },
    { "2a00::5eff:10.0.0.1", PEER_PLAIN, "2a00::5eff:a00:1" },
    { "2a00::1:5efe:10.0.0.1", PEER_PLAIN, "2a00::1:5efe:a00:1" },
};

Test(peer_reduce, cve_2026_73212_finds_what_is_carried)
{
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct netaddr in = addr(forms[i].carrier, 1), want = addr(forms[i].carried, 1);
        uint8_t out[16];

        cr_expect(peer_reduce(in.ip, out) == forms[i].form, "%s", forms[i].carrier);
        cr_expect(memcmp(out, want.ip, 16) == 0, "%s", forms[i].carrier);
        cr_expect(peer_reduce(in.ip, in.ip) == forms[i].form, "in place");
        cr_expect(memcmp(in.ip, want.ip, 16) == 0, "%s in place", forms[i].carrier);
    }
}

/* Opened as IPv6, each is still judged by what it carries: for every IPv4 range, and for one open
 * address. */
Test(peer_judge, cve_2026_73212_cve_2026_27624_what_is_carried_decides_too)
{
    static const char *const carriers[] = { "::%s",          "::ffff:0:%s",
                                            "64:ff9b::%s",   "64:ff9b:1:2::%s",
                                            "2a00::5efe:%s", "2a00::200:5efe:%s" };
    char ip[80];

    allow("::/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2a00::/16");
    for (size_t c = 0; c < ARRAY_LEN(carriers); c++) {
        for (size_t i = 0; i < ARRAY_LEN(ranges) && !strchr(ranges[i].first, ':'); i++) {
            snprintf(ip, sizeof(ip), carriers[c], ranges[i].first);
            cr_expect(judged(ip, 9) == PEER_SPECIAL, "%s", ip);
            snprintf(ip, sizeof(ip), carriers[c], ranges[i].last);
            cr_expect(judged(ip, 9) == PEER_SPECIAL, "%s", ip);
        }
        snprintf(ip, sizeof(ip), carriers[c], "8.8.8.8");
        cr_expect(judged(ip, 9) == PEER_OK, "%s", ip);
    }
    deny("8.8.8.0/24");
    for (size_t c = 0; c < ARRAY_LEN(carriers); c++) {
        snprintf(ip, sizeof(ip), carriers[c], "8.8.8.8");
        cr_expect(judged(ip, 9) == PEER_DENIED, "%s", ip);
    }
}

Test(peer_judge, cve_2026_73212_a_site_may_have_split_its_nat64_prefix)
{
    allow("64:ff9b:1::/48");
    cr_expect(judged("64:ff9b:1:0:7f:0:100:0", 9) == PEER_SPECIAL, "127.0.0.1 of a /64");
    cr_expect(judged("64:ff9b:1:7:a:0:100:0", 9) == PEER_SPECIAL, "10.0.0.1 of a /64");
    cr_expect(judged("64:ff9b:1:7:8:808:800:0", 9) == PEER_OK, "8.8.8.8 of a /64");
    cr_expect(judged("64:ff9b:1:7f00:0:100::", 9) == PEER_SPECIAL, "of a /48");
    cr_expect(judged("64:ff9b:1:7f:0:1::", 9) == PEER_SPECIAL, "of a /56");
    cr_expect(judged("64:ff9b:1::8.8.8.8", 9) == PEER_OK);
    cr_expect(judged("64:ff9b:1:0:100:0:100:0", 9) == PEER_OK, "the middle octet is none of a /64");
}

Test(peer_judge, tunnels_pass_for_nobody)
{
    allow("2002::/16 2001::/32 2002:808:808::1 2001::f7f7:f7f7 8.8.8.8");
    cr_expect(judged("2002:808:808::1", 9) == PEER_TUNNEL);
    cr_expect(judged("2001::f7f7:f7f7", 9) == PEER_TUNNEL);
}

/* ---- who wins ------------------------------------------------------------------------------ */

Test(peer_judge, the_more_specific_entry_wins)
{
    static const struct {
        const char *allow, *deny, *ip;
        enum peer_verdict want;
    } all[] = {
        { "0.0.0.0/0 ::/0", "", "127.0.0.1", PEER_SPECIAL },
        { "0.0.0.0/0 ::/0", "", "::1", PEER_SPECIAL },
        { "10.0.0.0/8", "", "10.1.2.3", PEER_OK },
        { "10.1.0.0/16", "", "10.1.2.3", PEER_OK },
        { "10.1.0.0/16", "", "10.2.2.3", PEER_SPECIAL },
        { "10.0.0.0/7", "", "10.1.2.3", PEER_SPECIAL },
        { "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", PEER_DENIED },
        { "10.0.0.0/8", "10.1.0.0/16", "10.2.2.3", PEER_OK },
        { "10.1.2.0/24", "10.1.0.0/16", "10.1.2.3", PEER_OK },
        { "10.0.0.0/8", "10.0.0.0/8", "10.1.2.3", PEER_DENIED },
        { "", "8.8.8.0/24", "8.8.8.8", PEER_DENIED },
        { "8.8.8.8", "8.8.8.0/24", "8.8.8.8", PEER_OK },
        { "", "0.0.0.0/0", "8.8.8.8", PEER_DENIED },
        { "", "0.0.0.0/0", "2a00::1", PEER_OK },
        { "", "::/0", "2a00::1", PEER_DENIED },
        { "169.254.0.0/16", "", "169.254.1.1", PEER_OK },
        { "169.254.0.0/16", "", "169.254.169.254", PEER_SPECIAL },
        { "169.254.169.254", "", "169.254.169.254", PEER_OK },
        { "fc00::/7", "", "fd00:ec2::253", PEER_OK },
        { "fc00::/7", "", "fd00:ec2::254", PEER_SPECIAL },
        { "240.0.0.0/4", "", "255.255.255.255", PEER_SPECIAL },
        { "::/96", "", "::1", PEER_SPECIAL },
        { "::/96", "", "::", PEER_SPECIAL },
        { "127.0.0.1", "", "127.0.0.1", PEER_OK },
        { "127.0.0.1", "", "127.0.0.2", PEER_SPECIAL },
        { "10.0.0.0/8", "", "::10.0.0.1", PEER_SPECIAL },
        { "10.0.0.0/8", "", "64:ff9b::10.0.0.1", PEER_OK },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        allow(all[i].allow);
        deny(all[i].deny);
        cr_expect(judged(all[i].ip, 9) == all[i].want, "%zu: %s", i, all[i].ip);
    }
}

Test(peer_judge, the_order_of_a_list_does_not_matter)
{
    static struct cidr many[PEER_RULES_MAX];
    struct cidr wide, narrow;

    cr_assert(cidr_parse(bytes_str("9.0.0.0/8"), &wide));
    cr_assert(cidr_parse(bytes_str("8.8.8.8"), &narrow));
    for (size_t at = 0; at < PEER_RULES_MAX; at += PEER_RULES_MAX - 1) { /* first, and last */
        for (size_t i = 0; i < PEER_RULES_MAX; i++)
            many[i] = i == at ? narrow : wide;
        policy.deny = many;
        policy.deny_count = PEER_RULES_MAX;
        cr_expect(judged("8.8.8.8", 9) == PEER_DENIED && judged("8.8.8.9", 9) == PEER_OK);
    }
}

Test(peer_judge, turn_63_own_addresses_are_closed_but_for_relay_ports)
{
    struct peer_self self[] = { { .relay = false }, { .relay = true }, { .relay = true } };

    memcpy(self[0].ip, addr("9.9.9.9", 1).ip, 16);
    memcpy(self[1].ip, addr("9.9.9.10", 1).ip, 16);
    memcpy(self[2].ip, addr("10.0.0.5", 1).ip, 16); /* private: hairpins all the same */
    policy.self = self;
    policy.self_count = 3;
    policy.relay_port_min = 49152;
    policy.relay_port_max = 50000;
    cr_expect(judged("9.9.9.9", 3478) == PEER_SELF && judged("9.9.9.9", 49152) == PEER_SELF);
    for (int i = 1; i < 3; i++) {
        const char *ip = i == 1 ? "9.9.9.10" : "10.0.0.5";

        cr_expect(judged(ip, 49152) == PEER_OK && judged(ip, 50000) == PEER_OK);
        cr_expect(judged(ip, 49151) == PEER_PORT && judged(ip, 50001) == PEER_PORT);
        cr_expect(judged(ip, 3478) == PEER_PORT);
        cr_expect(peer_judge_ip(&policy, self[i].ip) == PEER_OK, "a permission has no port");
    }
    cr_expect(peer_judge_ip(&policy, self[0].ip) == PEER_SELF);
    cr_expect(judged("64:ff9b::9.9.9.9", 49152) == PEER_SELF, "by way of a translator");
    cr_expect(judged("9.9.9.11", 3478) == PEER_OK && judged("10.0.0.6", 50000) == PEER_SPECIAL);
    allow("0.0.0.0/0 9.9.9.8/31");
    cr_expect(judged("9.9.9.9", 3478) == PEER_SELF);
    allow("9.9.9.9 9.9.9.10");
    cr_expect(judged("9.9.9.9", 3478) == PEER_OK && judged("9.9.9.10", 3478) == PEER_OK);
    deny("10.0.0.0/8");
    cr_expect(judged("10.0.0.5", 50000) == PEER_OK, "an address is more specific");
    deny("10.0.0.5");
    cr_expect(judged("10.0.0.5", 50000) == PEER_DENIED);
}

Test(peer_judge, ports)
{
    cr_expect(judged("8.8.8.8", 0) == PEER_PORT && judged("8.8.8.8", 1) == PEER_OK);
    policy.low_ports_closed = true;
    cr_expect(judged("8.8.8.8", 1023) == PEER_PORT && judged("8.8.8.8", 1024) == PEER_OK);
    cr_expect(peer_judge_ip(&policy, addr("8.8.8.8", 1).ip) == PEER_OK);
    cr_expect(peer_judge_ip(&policy, addr("127.0.0.1", 1).ip) == PEER_SPECIAL);
    cr_expect(peer_judge_ip(&policy, addr("2002::1", 1).ip) == PEER_TUNNEL);
}

/* ---- beside a model ------------------------------------------------------------------------ */

static bool holds(const struct cidr *c, const uint8_t ip[16])
{
    for (unsigned i = 0; i < c->bits; i++)
        if ((c->ip[i / 8] ^ ip[i / 8]) & 0x80 >> i % 8)
            return false;
    return true;
}

static int longest(const struct cidr *l, size_t count, const uint8_t ip[16])
{
    int most = -1;

    for (size_t i = 0; i < count; i++)
        if (holds(&l[i], ip) && l[i].bits > most)
            most = l[i].bits;
    return most;
}

/* Random lists over few bits, so that they meet: public addresses are as the longest prefix says,
 * and closed ones open only for an entry that is as long as ours. */
Test(peer_judge, agrees_with_a_model_that_looks_at_bits)
{
    static const char *const bases[] = { "8.8.8.8", "10.8.8.8", "2a00:8::8", "fd00:8::8" };
    unsigned opened = 0, denied = 0;

    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct seeded s = { seed };
        struct cidr lists[2][6];
        unsigned base = (unsigned)seeded_below(&s, ARRAY_LEN(bases));
        struct netaddr a = addr(bases[base], 9);
        bool v6 = base >= 2, closed = base & 1;
        int of_ours = !closed ? -1 : v6 ? 7 : 104;

        for (int l = 0; l < 2; l++)
            for (int i = 0; i < 6; i++) {
                struct cidr *c = &lists[l][i];
                unsigned flip = (unsigned)seeded_below(&s, 160);
                char text[80];

                snprintf(text, sizeof(text), "%s/%u", bases[base],
                         (unsigned)seeded_below(&s, v6 ? 129 : 33));
                cr_assert(cidr_parse(bytes_str(text), c));
                if (flip < c->bits)
                    c->ip[flip / 8] ^= (uint8_t)(0x80 >> flip % 8);
            }
        policy.allow = lists[0];
        policy.deny = lists[1];
        policy.allow_count = policy.deny_count = 6;
        int allow_bits = longest(lists[0], 6, a.ip), deny_bits = longest(lists[1], 6, a.ip);
        enum peer_verdict want = of_ours >= 0 ? PEER_SPECIAL : PEER_OK;

        if (allow_bits >= of_ours)
            want = PEER_OK;
        if (deny_bits >= 0 && deny_bits >= allow_bits && deny_bits >= of_ours)
            want = PEER_DENIED;
        cr_assert(peer_judge(&policy, &a) == want, "seed %zu", (size_t)seed);
        opened += closed && want == PEER_OK;
        denied += want == PEER_DENIED;
    }
    cr_expect(opened > 1000 && denied > 1000, "%u opened, %u denied", opened, denied);
}
