/* Multiaddrs: libp2p.md §1.3, check 4 of §19. */
#include "proto/maddr.h"

#include "proto/baseenc.h"
#include "proto/varint.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#define K_TEXT "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
#define K_HEX "0024080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
#define B_TEXT "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"
#define B_HEX "0024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
#define DIGITS32 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define CERT "EiAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw"

struct row {
    const char *text, *hex;
};

/* The published ones first, then each protocol of the table at least once. */
static const struct row rows[] = {
    { "/ip4/203.0.113.7/tcp/9000", "04cb007107062328" },
    { "/ip4/203.0.113.7/udp/9000/quic-v1", "04cb00710791022328cd03" },
    { "/ip6/2001:db8::7/udp/9000/quic-v1", "2920010db800000000000000000000000791022328cd03" },
    { "/dns4/relay.example.org/tcp/443/tls/ws",
      "361172656c61792e6578616d706c652e6f72670601bbc003dd03" },
    { "/dns4/relay.example.org/tcp/443/wss", "361172656c61792e6578616d706c652e6f72670601bbde03" },
    { "/ip4/203.0.113.7/tcp/443/tls/sni/relay.example.org/ws",
      "04cb0071070601bbc003c1031172656c61792e6578616d706c652e6f7267dd03" },
    { "/ip4/203.0.113.7/tcp/9000/p2p/" K_TEXT, "04cb007107062328a50326" K_HEX },
    { "/ip4/203.0.113.7/tcp/9000/p2p/" K_TEXT "/p2p-circuit/p2p/" B_TEXT,
      "04cb007107062328a50326" K_HEX "a202a50326" B_HEX },
    { "/ip6zone/eth0/ip6/fe80::1/tcp/0", "2a046574683029fe80000000000000000000000000000106"
                                         "0000" },
    { "/ip4/10.0.0.0/ipcidr/8", "040a0000002b08" },
    { "/ip6/::/ipcidr/128", "29000000000000000000000000000000002b80" },
    { "/dns/a", "350161" },
    { "/dns6/b\xc3\xa9.example", "370b62c3a92e6578616d706c65" },
    { "/dnsaddr/c.example", "3809632e6578616d706c65" },
    { "/ip4/1.2.3.4/udp/65535/webrtc-direct", "0401020304910 2ffff9802" },
    { "/ip4/1.2.3.4/udp/1/quic-v1/webtransport/certhash/u" CERT "/certhash/u" CERT,
      "0401020304910 20001cd03d103d203221220" DIGITS32 "d203221220" DIGITS32 },
    { "/p2p-circuit/webrtc", "a2029902" },
    { "/unix/run/sluice.sock", "9003 10 2f72756e2f736c756963652e736f636b" },
    { "/ip4/1.2.3.4/tcp/80/http/http-path/foo%2Fbar%20~baz",
      "04010203040600 50e003e1030c666f6f2f626172207e62617a" },
    { "/ip4/1.2.3.4/tcp/443/https", "04010203040601bbbb03" },
    { "/ip4/1.2.3.4/udp/443/quic", "0401020304910201bbcc03" },
    { "/ip4/1.2.3.4/tcp/1/noise", "0401020304060001c603" },
    { "/memory/18446744073709551615", "8906ffffffffffffffff" },
    { "/memory/0", "89060000000000000000" },
    { "/onion3/aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypsaijc:1234/tcp/1",
      "bd03" DIGITS32 "20212204d2060001" },
    { "/garlic32/aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq", "bf0320" DIGITS32 },
};

static size_t unhex(const char *hex, uint8_t *out, size_t cap)
{
    size_t n = 0;
    unsigned v;

    for (; *hex; hex += 2) {
        while (*hex == ' ')
            hex++;
        char pair[3] = { hex[0], 0, 0 };

        if (hex[1] == ' ') { /* a blank inside a byte, to keep a row on its line */
            pair[1] = hex[2];
            hex++;
        } else {
            pair[1] = hex[1];
        }
        cr_assert(n < cap && sscanf(pair, "%2x", &v) == 1);
        out[n++] = (uint8_t)v;
    }
    return n;
}

static struct bytes wire_of(const struct row *r)
{
    static uint8_t wire[MADDR_MAX];

    return bytes_of(wire, unhex(r->hex, wire, sizeof(wire)));
}

static bool parses(const char *text)
{
    struct maddr m;

    return maddr_parse(bytes_str(text), &m);
}

static const char *text_of(struct bytes wire)
{
    static char text[MADDR_TEXT_MAX];

    return maddr_text(wire, text, sizeof(text)) ? text : "(refused)";
}

Test(maddr_text, writes_every_row_of_the_table)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        cr_expect(eq(str, (char *)text_of(wire_of(&rows[i])), (char *)rows[i].text));
}

Test(maddr_parse, reads_every_row_of_the_table)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bytes wire = wire_of(&rows[i]);
        struct maddr m;

        cr_assert(maddr_parse(bytes_str(rows[i].text), &m), "%s", rows[i].text);
        cr_expect(bytes_eq(maddr_bytes(&m), wire), "%s", rows[i].text);
    }
}

Test(maddr_parse, takes_garlic64_with_its_own_alphabet)
{
    uint8_t wire[400] = { 0xbe, 0x03, 0x82, 0x03 }; /* lp of 386 bytes */
    char text[MADDR_TEXT_MAX];
    struct maddr m;

    memset(wire + 4, 0xff, 386);
    cr_assert(maddr_text(bytes_of(wire, 390), text, sizeof(text)));
    cr_expect(strncmp(text, "/garlic64/~~~~", 14) == 0 && text[strlen(text) - 1] == '=', "%s",
              text);
    cr_assert(maddr_parse(bytes_str(text), &m));
    cr_expect(bytes_eq(maddr_bytes(&m), bytes_of(wire, 390)));
    wire[2] = 0x81;
    cr_expect(not(maddr_valid(bytes_of(wire, 389))), "385 bytes are no destination");
}

Test(maddr_parse, reads_second_spellings_and_writes_the_first)
{
    static const struct row same[] = {
        { "/ipfs/" K_TEXT, "/p2p/" K_TEXT },
        { "/p2p/bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6",
          "/p2p/" K_TEXT },
        { "/ip6/2001:DB8:0:0:0::7", "/ip6/2001:db8::7" },
        { "/ip6/::1.2.3.4", "/ip6/::102:304" },
        { "/http-path/%61%7e%2f", "/http-path/a~%2F" },
    };

    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        struct maddr m;

        cr_assert(maddr_parse(bytes_str(same[i].text), &m), "%s", same[i].text);
        cr_expect(eq(str, (char *)text_of(maddr_bytes(&m)), (char *)same[i].hex));
    }
}

Test(maddr_parse, reads_certhash_in_three_multibases)
{
    uint8_t hash[34] = { 0x12, 0x20 };
    char text[200];
    struct maddr m, first;

    for (size_t i = 0; i < 32; i++)
        hash[2 + i] = (uint8_t)i;
    cr_assert(maddr_parse(bytes_str("/certhash/u" CERT), &first));
    cr_expect(first.n == 3 + 34 && memcmp(first.b + 3, hash, 34) == 0);
    for (int base = 0; base < 2; base++) {
        struct wcur w = wcur_of(text, sizeof(text));

        wcur_put(&w, bytes_str(base ? "/certhash/b" : "/certhash/z"));
        (base ? base32_encode : base58_encode)(&w, bytes_of(hash, 34));
        cr_assert(maddr_parse(bytes_of(text, w.wrote), &m));
        cr_expect(bytes_eq(maddr_bytes(&m), maddr_bytes(&first)));
    }
}

Test(maddr_valid, rejects_every_truncation)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bytes wire = wire_of(&rows[i]);
        bool edge[MADDR_MAX + 1] = { true };
        struct cur c = cur_of(wire);
        struct maddr_part part;

        while (maddr_next(&c, &part)) /* a whole number of components is an address */
            edge[wire.n - c.n] = true;
        cr_assert(not(c.bad));
        for (size_t n = 0; n < wire.n; n++)
            cr_expect(maddr_valid(bytes_of(wire.p, n)) == (edge[n] && n > 0), "%s cut to %zu",
                      rows[i].text, n);
        cr_expect(maddr_valid(wire));
    }
}

Test(maddr_valid, rejects_over_long_varints_and_unknown_codes)
{
    static const char *const bad[] = {
        "8400cb007107",   /* ip4 as 84 00 */
        "06000184808000", /* an over-long code behind a good part */
        "3581006 1",      /* length 1 as 81 00 */
        "8002",           /* code 256 is nobody's */
        "a503022400",     /* a multihash with a foreign code */
        "a50300",         /* an empty peer id */
        "d203021200",     /* a certhash without a digest */
        "d20303122061",   /* one shorter than it says */
        "3500",           /* empty names */
        "c10300",
        "35022f61", /* a slash in a name */
        "35020a61", /* a control character, a blank, DEL */
        "35022061",
        "3502617f",
        "3502c3 28", /* not UTF-8, in all its ways */
        "3501c3",
        "3502c0af",
        "3503e08080",
        "3503eda080",
        "3504f0808080",
        "3504f4908080",
        "3501ff",
        "3503e1a0 28",
        "9003022f00",
        "9003012f",
        "90030161",       /* unix: control, the bare root, relative */
        "9003022f61c003", /* something behind a path */
        "e10300",         /* an empty path */
        "bf03022000",     /* garlic32 of 2 bytes */
        "bf0321000000000000000000000000000000000000000000000000000000000000000000", /* and 33 */
        "89060100",             /* memory needs 8 */
        "ffffffffffffffffff01", /* a varint of 10 bytes */
    };
    uint8_t wire[MADDR_MAX];
    char text[64] = "x";

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct bytes b = bytes_of(wire, unhex(bad[i], wire, sizeof(wire)));
        struct netaddr a;

        cr_expect(not(maddr_valid(b)), "%s", bad[i]);
        cr_expect(not(maddr_text(b, text, sizeof(text))), "%s", bad[i]);
        cr_expect(text[0] == 0);
        cr_expect(not(maddr_is_public(b)));
        cr_expect(not(maddr_to_tcp(b, &a, NULL)));
    }
}

Test(maddr_valid, an_unknown_code_fails_that_address_only)
{
    /* Two records side by side, as peer records carry them. */
    static const uint8_t good[] = { 4, 1, 2, 3, 4, 6, 0, 1 }, bad[] = { 4, 1, 2, 3, 4, 0x80, 2 };

    cr_expect(not(maddr_valid(bytes_of(bad, sizeof(bad)))));
    cr_expect(maddr_valid(bytes_of(good, sizeof(good))));
    cr_expect(maddr_has(bytes_of(bad, sizeof(bad)), MADDR_IP4), "the front of it is readable");
}

Test(maddr_parse, rejects_what_no_row_spells)
{
    static const char *const bad[] = {
        "",
        "/",
        "//",
        "ip4/1.2.3.4",
        "/ip4",
        "/ip4/",
        "/ip4//tcp/1",
        "/ip4/1.2.3.4/",
        "/ip4/1.2.3.4/tcp/65536", /* check 4 */
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3.4/tcp/01",
        "/ip4/1.2.3.4/tcp/",
        "/ip4/1.2.3.4/tcp/1x",
        "/ip4/1.2.3.256",
        "/ip4/1.2.3",
        "/ip4/1.2.3.4.5",
        "/ip4/1.2.3.04",
        "/ip4/::1",
        "/ip6/1.2.3.4",
        "/ip6/:1",
        "/ip6/1:",
        "/ip6/::1::",
        "/ip6/1:2:3:4:5:6:7",
        "/ip6/12345::",
        "/ip6/1:2:3:4:5:6:7:8:9",
        "/ip6/1:2:3:4:5:6:7:1.2.3.4",
        "/ip6/fe80::1%eth0",
        "/ip6/1:2:3:4:5:6:7::8:9",
        "/ip6/g::",
        "/ip6/1:2:3:4::5:6:7:8",
        "/ip4/1.2.3.4/ipcidr/256",
        "/nope/1",
        "/TCP/1",
        "/p2p/zzz",
        "/p2p/" K_TEXT "x",
        "/certhash/mAAAA",
        "/certhash/u",
        "/certhash/uA",
        "/certhash/u$$$$",
        "/certhash/bA",
        "/http-path/%2",
        "/http-path/%zz",
        "/http-path/%1g",
        "/http-path/",
        "/unix/",
        "/unix",
        "/memory/18446744073709551616",
        "/memory/-1",
        "/garlic32/aa",
        "/garlic64/AAAA",
        "/garlic64/AAA",
        "/onion3/aaaa:1",
        "/onion3/aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypsaijc:65536",
        "/onion3/aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypsaijc-1",
        "/onion3/aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypsaij0:1",
        "/dns4/a b",
        "/dns4/\x01",
        "/tls/",
        "/quic-v1/x",
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(parses(bad[i])), "%s", bad[i]);
}

Test(maddr_parse, bounds_names_at_255_and_addresses_at_their_maximum)
{
    char text[MADDR_TEXT_MAX + 8] = "/dns4/";
    struct maddr m;

    memset(text + 6, 'a', 256);
    cr_expect(not(parses(text)), "a name of 256 bytes");
    text[6 + 255] = 0;
    cr_assert(maddr_parse(bytes_str(text), &m));
    cr_expect(m.n == 1 + 2 + 255);
    cr_expect(maddr_valid(maddr_bytes(&m)));

    uint8_t wire[1 + 2 + 256] = { MADDR_DNS4, 0x80, 0x02 };

    memset(wire + 3, 'a', 256);
    cr_expect(not(maddr_valid(bytes_of(wire, sizeof(wire)))), "256 in binary");

    /* 512 bytes are kept: 170 times /tcp, then tls; one more component is too much. */
    size_t at = 0;

    for (int i = 0; i < 170; i++)
        at += (size_t)sprintf(text + at, "/tcp/1");
    sprintf(text + at, "/tls");
    cr_assert(lt(sz, at + 4, sizeof(text)));
    cr_expect(not(parses(text)), "its text is past the bound");

    uint8_t many[MADDR_MAX + 2];

    for (size_t i = 0; i < sizeof(many); i += 2)
        memcpy(many + i, "\xc0\x03", 2);
    cr_expect(maddr_valid(bytes_of(many, MADDR_MAX)));
    cr_expect(not(maddr_valid(bytes_of(many, MADDR_MAX + 2))));
    cr_expect(maddr_text(bytes_of(many, 510), text, MADDR_TEXT_MAX), "255 times /tls and a zero");
    cr_expect(not(maddr_text(bytes_of(many, MADDR_MAX), text, MADDR_TEXT_MAX)));
    cr_expect(maddr_parse(bytes_of(text, 0), &m) == false);
}

Test(maddr_text, fits_or_says_so)
{
    struct bytes wire = wire_of(&rows[0]);
    char text[32];

    for (size_t cap = 0; cap < strlen(rows[0].text) + 1; cap++)
        cr_expect(not(maddr_text(wire, text, cap)));
    cr_expect(maddr_text(wire, text, strlen(rows[0].text) + 1));
    cr_expect(not(maddr_text((struct bytes){ 0 }, text, sizeof(text))));
}

Test(maddr_parse, leaves_its_result_alone_when_it_refuses)
{
    struct maddr m = { .n = 7 };

    cr_expect(not(maddr_parse(bytes_str("/ip4/1.2.3.4/tcp/x"), &m)));
    cr_expect(m.n == 7 && m.b[0] == 0);
}

Test(maddr_tcp, goes_both_ways_and_writes_mapped_addresses_as_ip4)
{
    struct netaddr a, back;
    struct maddr m;
    struct bytes rest;

    cr_assert(netaddr_parse(bytes_str("[::ffff:192.0.2.1]:4001"), &a));
    maddr_from_tcp(&a, &m);
    cr_expect(eq(str, (char *)text_of(maddr_bytes(&m)), "/ip4/192.0.2.1/tcp/4001"));
    cr_assert(maddr_to_tcp(maddr_bytes(&m), &back, NULL));
    cr_expect(memcmp(&a, &back, sizeof(a)) == 0);
    cr_assert(netaddr_parse(bytes_str("[2001:db8::1]:65535"), &a));
    maddr_from_tcp(&a, &m);
    cr_expect(eq(str, (char *)text_of(maddr_bytes(&m)), "/ip6/2001:db8::1/tcp/65535"));
    cr_assert(maddr_to_tcp(maddr_bytes(&m), &back, NULL));
    cr_expect(memcmp(a.ip, back.ip, 16) == 0 && a.port == back.port);

    cr_assert(maddr_parse(bytes_str("/ip4/1.2.3.4/tcp/5/ws"), &m));
    cr_expect(not(maddr_to_tcp(maddr_bytes(&m), &back, NULL)), "trailing parts");
    cr_assert(maddr_to_tcp(maddr_bytes(&m), &back, &rest));
    cr_expect(rest.n == 2 && rest.p[0] == 0xdd);
    cr_assert(maddr_parse(bytes_str("/ip4/1.2.3.4/udp/5"), &m));
    cr_expect(not(maddr_to_tcp(maddr_bytes(&m), &back, &rest)));
    cr_assert(maddr_parse(bytes_str("/dns4/a/tcp/5"), &m));
    cr_expect(not(maddr_to_tcp(maddr_bytes(&m), &back, &rest)));
    cr_assert(maddr_parse(bytes_str("/ip4/1.2.3.4"), &m));
    cr_expect(not(maddr_to_tcp(maddr_bytes(&m), &back, &rest)));
}

Test(maddr_p2p, is_appended_once_and_found_last)
{
    struct peer_id k, b, got;
    struct maddr m;

    cr_assert(peer_id_parse(bytes_str(K_TEXT), &k));
    cr_assert(peer_id_parse(bytes_str(B_TEXT), &b));
    cr_assert(maddr_parse(bytes_str("/ip4/203.0.113.7/tcp/9000"), &m));
    cr_expect(not(maddr_p2p(maddr_bytes(&m), &got)));
    cr_assert(maddr_append_p2p(&m, &k));
    cr_assert(maddr_append_p2p(&m, &b), "a second id is not put behind the first");
    cr_expect(eq(str, (char *)text_of(maddr_bytes(&m)), (char *)rows[6].text));
    cr_expect(eq(int, m.n, 49));
    cr_assert(maddr_p2p(maddr_bytes(&m), &got));
    cr_expect(peer_id_eq(&got, &k));
    cr_assert(maddr_parse(bytes_str(rows[7].text), &m));
    cr_assert(maddr_p2p(maddr_bytes(&m), &got));
    cr_expect(peer_id_eq(&got, &b));
    cr_expect(not(maddr_p2p(bytes_of(m.b, m.n - 1u), &got)), "malformed");

    /* 41 bytes are needed: 471 leave exactly that. */
    static_assert(MADDR_MAX - 41 == 157 * 3, "whole components of 3 bytes");
    struct maddr full = { .n = 471 }, over = { .n = 474 };

    for (size_t i = 0; i < over.n; i += 3) {
        memcpy(over.b + i, "\x06\x00\x01", 3);
        memcpy(full.b + i, "\x06\x00\x01", i < full.n ? 3 : 0);
    }
    cr_expect(maddr_append_p2p(&full, &k) && full.n == MADDR_MAX);
    cr_expect(not(maddr_append_p2p(&over, &k)));
    cr_expect(over.n == 474 && maddr_valid(maddr_bytes(&over)));
    over.n--;
    cr_expect(not(maddr_append_p2p(&over, &k)), "malformed");
}

Test(maddr_public, follows_the_first_component)
{
    static const char *const yes[] = { "/ip4/8.8.8.8/tcp/1",
                                       "/ip6/2606:4700::1111/tcp/1",
                                       "/dns4/relay.example.org/tcp/443/wss",
                                       "/dns/a.b.",
                                       "/dnsaddr/notlocal",
                                       "/dns6/xlocal",
                                       "/ip6/::ffff:8.8.8.8" /* mapped: the IPv4 that it is */ };
    static const char *const no[] = { "/ip4/203.0.113.7/tcp/9000",
                                      "/ip4/127.0.0.1/tcp/1",
                                      "/ip6/::1/tcp/1",
                                      "/ip6/::ffff:10.0.0.1",
                                      "/dns4/localhost/tcp/1",
                                      "/dns4/LOCALHOST.",
                                      "/dns/a.local",
                                      "/dns/nas.home.arpa",
                                      "/dns/x.internal",
                                      "/dns/x.TEST",
                                      "/dns/x.onion",
                                      "/dns/.",
                                      "/ip6zone/eth0/ip6/2606:4700::1111",
                                      "/memory/1",
                                      "/tcp/1" };
    struct maddr m;

    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        cr_assert(maddr_parse(bytes_str(yes[i]), &m), "%s", yes[i]);
        cr_expect(maddr_is_public(maddr_bytes(&m)), "%s", yes[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(no); i++) {
        cr_assert(maddr_parse(bytes_str(no[i]), &m), "%s", no[i]);
        cr_expect(not(maddr_is_public(maddr_bytes(&m))), "%s", no[i]);
    }
    cr_expect(not(maddr_is_public((struct bytes){ 0 })));
}
