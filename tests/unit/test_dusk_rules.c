/* Names, queries, addresses and hosts (dusk.md §7, §8; checks 36, 38, 39 and 42). */
#include "proto/dusk.h"
#include "tests/unit/relay_hex.h"

static struct bytes str(const char *s)
{
    return bytes_str(s);
}

/* ---- names ------------------------------------------------------------------------------------
 */

static bool name_is(const char *text, const char *kept)
{
    struct bytes name;

    return dusk_name_check(str(text), &name) && bytes_eq(name, str(kept));
}

static bool no_name(const char *text)
{
    struct bytes name;

    return !dusk_name_check(str(text), &name);
}

static char many[1024];

static const char *times(const char *what, size_t n)
{
    many[0] = '\0';
    for (size_t i = 0; i < n; i++)
        strcat(many, what);
    return many;
}

Test(dusk_name, has_1_to_64_characters)
{
    cr_expect(no_name(""));
    cr_expect(name_is("a", "a"));
    cr_expect(name_is(times("a", 64), many));
    cr_expect(no_name(times("a", 65)));
    cr_expect(no_name(times("a", 257)));
}

Test(dusk_name, is_counted_in_code_points)
{
    cr_expect(name_is(times("\u00e9", 64), many), "128 bytes");
    cr_expect(no_name(times("\u00e9", 65)));
    cr_expect(name_is(times("\u6f22", 64), many), "192 bytes");
    cr_expect(name_is(times("\U0001F986", 64), many), "256 bytes");
    cr_expect(no_name(times("\U0001F986", 65)));
}

/* Every character of Unicode's White_Space, and its neighbours. */
Test(dusk_name, is_trimmed_of_unicode_white_space)
{
    static const char *const space[] = { "\t",     "\n",       "\v",     "\f",     "\r",
                                         " ",      "\xc2\x85", "\u00a0", "\u1680", "\u2000",
                                         "\u2001", "\u2002",   "\u2003", "\u2004", "\u2005",
                                         "\u2006", "\u2007",   "\u2008", "\u2009", "\u200a",
                                         "\u2028", "\u2029",   "\u202f", "\u205f", "\u3000" };
    static const char *const letter[] = { "\u200b", "\u180e", "\u2060", "\ufeff", "\u1fff",
                                          "\u2027", "\u202a", "\u3001", "\u00a1" };
    char text[64];

    for (size_t i = 0; i < ARRAY_LEN(space); i++) {
        cr_expect(no_name(times(space[i], 3)), "only white space %zu", i);
        snprintf(text, sizeof(text), "%s%s\u00e9 x%s%s", space[i], space[i], space[i], space[i]);
        cr_expect(name_is(text, "\u00e9 x"), "%zu", i);
    }
    for (size_t i = 0; i < ARRAY_LEN(letter); i++) {
        snprintf(text, sizeof(text), "%sx%s", letter[i], letter[i]);
        cr_expect(name_is(text, text), "%zu is none", i);
    }
    cr_expect(name_is("  alice  ", "alice"));
    cr_expect(name_is("a\u3000b", "a\u3000b"), "inside it stays");
}

Test(dusk_name, is_counted_after_trimming)
{
    char text[128];

    snprintf(text, sizeof(text), "  %s \n", times("a", 64));
    cr_expect(name_is(text, many));
}

Test(dusk_name, may_have_much_but_not_endless_white_space_around_it)
{
    static char text[DUSK_PADDED_MAX + 1];
    struct bytes name;

    memset(text, ' ', sizeof(text));
    text[8000] = 'a';
    cr_assert(dusk_name_check(bytes_of(text, DUSK_PADDED_MAX), &name));
    cr_expect(bytes_eq(name, str("a")));
    cr_expect(dusk_query_check(bytes_of(text, DUSK_PADDED_MAX), &name));
    cr_expect(not(dusk_name_check(bytes_of(text, DUSK_PADDED_MAX + 1), &name)));
    cr_expect(not(dusk_query_check(bytes_of(text, DUSK_PADDED_MAX + 1), &name)));
}

Test(dusk_name, holds_no_control_characters)
{
    char text[16];

    for (int c = 1; c < 0x20; c++) {
        snprintf(text, sizeof(text), "a%cb", c);
        cr_expect(no_name(text), "%d", c);
    }
    struct bytes name;

    cr_expect(not(dusk_name_check(bytes_of("a\0b", 3), &name)));
    cr_expect(no_name("a\x7f"));
    cr_expect(no_name("\xc2\x80"));
    cr_expect(no_name("a\xc2\x85"
                      "b"),
              "a new line inside is no end");
    cr_expect(no_name("a\xc2\x9f"));
    cr_expect(name_is("a\u00a1", "a\u00a1"));
    cr_expect(name_is("~", "~"));
}

Test(dusk_trim, leaves_nothing_of_white_space_alone)
{
    cr_expect(zero(sz, dusk_trim(str("")).n));
    cr_expect(zero(sz, dusk_trim(str(" \t\u3000\n")).n));
    cr_expect(zero(sz, dusk_trim(bytes_of(NULL, 0)).n));
}

/* Whoever calls it with what is no UTF-8 reads nothing past the end. */
Test(dusk_trim, stays_inside)
{
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            uint8_t *copy;
            struct bytes in =
                             tight(bytes_of((uint8_t[]){ (uint8_t)a, (uint8_t)b, 0x80 }, 3), &copy),
                         out = dusk_trim(in), name;

            cr_assert(out.p >= in.p && out.p + out.n <= in.p + in.n);
            if (dusk_name_check(in, &name))
                cr_assert(name.p >= in.p && name.p + name.n <= in.p + in.n);
            free(copy);
        }
    }
}

/* ---- queries ----------------------------------------------------------------------------------
 */

Test(dusk_query, is_trimmed_and_not_empty)
{
    struct bytes q;

    cr_expect(not(dusk_query_check(str(""), &q)));
    cr_expect(not(dusk_query_check(str(" \u00a0 "), &q)));
    cr_assert(dusk_query_check(str(" Ali \n"), &q));
    cr_expect(bytes_eq(q, str("Ali")));
    cr_assert(dusk_query_check(str("%_"), &q));
    cr_expect(bytes_eq(q, str("%_")), "taken as they stand");
}

Test(dusk_query, is_no_longer_than_what_it_could_match)
{
    struct bytes q;

    cr_expect(dusk_query_check(str(times("\U0001F986", 64)), &q));
    cr_expect(not(dusk_query_check(str(times("a", 257)), &q)));
}

/* ---- addresses --------------------------------------------------------------------------------
 */

static struct peer_id k, a, b;
static char k_text[PEER_TEXT_MAX], a_text[PEER_TEXT_MAX], b_text[PEER_TEXT_MAX];

static void peers(void)
{
    k = id_of(K_ID);
    a = id_of(A_ID);
    b = id_of(B_ID);
    peer_id_text(&k, k_text);
    peer_id_text(&a, a_text);
    peer_id_text(&b, b_text);
}

/* %k, %a and %b of the format are the peers; the relay is k, the caller a. */
static bool address(const char *format)
{
    char text[2048] = "";

    for (; *format; format++) {
        size_t n = strlen(text);

        if (*format == '%') {
            format++;
            strcat(text, *format == 'k' ? k_text : *format == 'a' ? a_text : b_text);
        } else {
            text[n] = *format;
            text[n + 1] = '\0';
        }
    }
    return dusk_relay_addr_ok(str(text), &k, &a);
}

Test(dusk_relay_addr, names_this_relay_and_this_peer, .init = peers)
{
    cr_expect(address("/ip4/192.0.2.1/tcp/4001/p2p/%k/p2p-circuit/p2p/%a"));
    cr_expect(address("/dns4/relay.duskchat.app/tcp/4001/p2p/%k/p2p-circuit/p2p/%a"));
    cr_expect(address("/ip6/2001:db8::1/tcp/4001/p2p/%k/p2p-circuit/p2p/%a"));
    cr_expect(address("/p2p/%k/p2p-circuit/p2p/%a"));
    cr_expect(address("/ip4/192.0.2.1/tcp/4001/ipfs/%k/p2p-circuit/ipfs/%a"), "the old spelling");
}

Test(dusk_relay_addr, of_another_relay_or_peer_is_not_kept, .init = peers)
{
    cr_expect(not(address("")));
    cr_expect(not(address("/x")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001")), "it would be dialled directly");
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%a")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%k")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%b/p2p-circuit/p2p/%a")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%k/p2p-circuit/p2p/%b")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%a/p2p-circuit/p2p/%k")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%k/p2p-circuit")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p-circuit/p2p/%a")));
    cr_expect(not(address("/p2p-circuit/p2p/%a")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%k/p2p-circuit/p2p/%a/tcp/1")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%k/tcp/1/p2p-circuit/p2p/%a")));
    cr_expect(not(address("ip4/192.0.2.1/tcp/4001/p2p/%k/p2p-circuit/p2p/%a")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/4001/p2p/%k/p2p-circuit/p2p/%a ")));
    cr_expect(not(address("/ip4/192.0.2.256/tcp/4001/p2p/%k/p2p-circuit/p2p/%a")));
}

Test(dusk_relay_addr, goes_through_no_second_relay, .init = peers)
{
    cr_expect(not(address("/ip4/192.0.2.1/tcp/1/p2p/%b/p2p-circuit/p2p/%k/p2p-circuit/p2p/%a")));
    cr_expect(not(address("/ip4/192.0.2.1/tcp/1/p2p/%b/p2p/%k/p2p-circuit/p2p/%a")));
    cr_expect(not(address("/p2p-circuit/p2p/%k/p2p-circuit/p2p/%a")));
}

Test(dusk_relay_addr, is_bounded, .init = peers)
{
    static char text[4096];
    size_t n = (size_t)snprintf(text, sizeof(text), "/ip4/1.2.3.4");

    while (n < 1100)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "/tcp/1");
    snprintf(text + n, sizeof(text) - n, "/p2p/%s/p2p-circuit/p2p/%s", k_text, a_text);
    cr_expect(not(dusk_relay_addr_ok(str(text), &k, &a)));
}

/* ---- hosts of URIs ----------------------------------------------------------------------------
 */

static bool host(const char *text)
{
    return dusk_cred_host_ok(str(text));
}

Test(dusk_cred_host, is_what_a_browser_takes)
{
    cr_expect(host("192.0.2.1"));
    cr_expect(host("relay.duskchat.app"));
    cr_expect(host("localhost"));
    cr_expect(host("turn-1.example_internal.org"));
    cr_expect(host("2001:db8::1"));
    cr_expect(host("[2001:db8::1]"));
    cr_expect(host("xn--bcher-kva.example"));
    cr_expect(host("3com.com"));
    cr_expect(host(times("a", 63)));
}

Test(dusk_cred_host, is_not_what_it_would_throw_at)
{
    static const char *const bad[] = {
        "",
        "0.0.0.0",
        "::",
        "[::]",
        "a b",
        "a..b",
        ".a",
        "a.",
        "a:3478",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "192.0.2.256",
        "1.2.3",
        "12345",
        "[192.0.2.1]",
        "[a]",
        "[2001:db8::1",
        "fe80::1%eth0",
        "a\nb",
        "b\u00fccher.example",
        "[]",
        "2001:db8::1]",
        "example.123",
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(host(bad[i])), "%s", bad[i]);
    cr_expect(not(host(times("a", 64))), "a label");
    cr_expect(not(host(times("a.", 127))), "254 bytes");
}

static const char *uris_of(const char *name, uint16_t udp, uint16_t tcp)
{
    static char out[1024];
    static uint8_t texts[DUSK_CRED_ROOM];
    struct wcur room = wcur_of(texts, sizeof(texts));
    struct dusk_cred c;
    struct dusk_cred_ask ask = { .secret = str("s"),
                                 .now_unix_s = 1,
                                 .peer = &k,
                                 .host = str(name),
                                 .udp_port = udp,
                                 .tcp_port = tcp };

    dusk_cred_make(&ask, &room, &c);
    cr_assert(eq(sz, c.uris_n, 2));
    snprintf(out, sizeof(out), "%.*s %.*s", (int)c.uris[0].n, (const char *)c.uris[0].p,
             (int)c.uris[1].n, (const char *)c.uris[1].p);
    return out;
}

Test(dusk_cred_make, brackets_ipv6_and_has_each_port, .init = peers)
{
    cr_expect_str_eq(uris_of("192.0.2.1", 3478, 3479),
                     "turn:192.0.2.1:3478 turn:192.0.2.1:3479?transport=tcp");
    cr_expect_str_eq(uris_of("2001:db8::1", 1, 2),
                     "turn:[2001:db8::1]:1 turn:[2001:db8::1]:2?transport=tcp");
    cr_expect_str_eq(uris_of("[2001:db8::1]", 65535, 443),
                     "turn:[2001:db8::1]:65535 turn:[2001:db8::1]:443?transport=tcp");
    cr_expect_str_eq(uris_of("relay.example", 3478, 3478),
                     "turn:relay.example:3478 turn:relay.example:3478?transport=tcp");
}

Test(dusk_cred_make, fits_its_room_with_the_longest_of_everything, .init = peers)
{
    char name[DUSK_URI_HOST_MAX + 1];
    uint8_t texts[DUSK_CRED_ROOM];
    struct wcur room = wcur_of(texts, sizeof(texts));
    struct dusk_cred c;
    struct dusk_cred_ask ask = { .secret = str("s"),
                                 .now_unix_s = UINT64_MAX - DUSK_CRED_TTL_S,
                                 .peer = &k,
                                 .udp_port = 65535,
                                 .tcp_port = 65535 };

    for (size_t i = 0; i < DUSK_URI_HOST_MAX; i++)
        name[i] = i % 64 == 63 ? '.' : 'a';
    name[DUSK_URI_HOST_MAX] = '\0';
    ask.host = str(name);
    cr_assert(dusk_cred_host_ok(ask.host));
    dusk_cred_make(&ask, &room, &c);
    cr_expect(not(room.bad));
}
