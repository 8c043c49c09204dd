/* Addresses of the DIG relay's wire (dig.md §4.1, §4.2, §7, §14.1, D2, D10; checks 30, 33 and 34 of
 * dig.md §20). */
#include "proto/dig_addr.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

static struct dig_addr parsed(const char *text)
{
    struct dig_addr a;

    cr_assert(dig_addr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

static struct netaddr seen(const char *text)
{
    struct netaddr a;

    cr_assert(netaddr_parse(bytes_str(text), &a), "%s", text);
    return a;
}

static const char *printed(const struct dig_addr *a)
{
    static char text[DIG_ADDR_TEXT_MAX + 1];
    struct wcur w = wcur_of(text, DIG_ADDR_TEXT_MAX);

    dig_addr_put(&w, a);
    cr_assert(not(w.bad));
    text[w.wrote] = 0;
    return text;
}

Test(dig_addr, prints_what_it_read_in_one_form)
{
    static const struct {
        const char *text, *want;
    } list[] = {
        { "203.0.113.9:9444", "203.0.113.9:9444" },
        { "0.0.0.0:0", "0.0.0.0:0" },
        { "255.255.255.255:65535", "255.255.255.255:65535" },
        { "[::]:9444", "[::]:9444" },
        { "[2001:DB8:7::9]:9444", "[2001:db8:7::9]:9444" },
        { "[2001:db8:0:0:1:0:0:1]:1", "[2001:db8::1:0:0:1]:1" },
        { "[2001:db8:0:1:1:1:1:1]:1", "[2001:db8:0:1:1:1:1:1]:1" },
        { "[::FFFF:1.2.3.4]:9", "[::ffff:1.2.3.4]:9" }, /* check 30 */
        { "[0:0:0:0:0:ffff:0102:0304]:9", "[::ffff:1.2.3.4]:9" },
        { "[0:0:0:0:0:0:102:304]:9", "[::102:304]:9" }, /* check 30 */
        { "[::1.2.3.4]:9", "[::102:304]:9" },
        { "[::1]:1", "[::1]:1" },
        { "[fe80::1%7]:80", "[fe80::1%7]:80" },
        { "[fe80::1%0]:80", "[fe80::1]:80" },
        { "[fe80::1%4294967295]:80", "[fe80::1%4294967295]:80" },
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        struct dig_addr a = parsed(list[i].text);

        cr_expect_str_eq(printed(&a), list[i].want);
    }
}

Test(dig_addr, takes_nothing_else)
{
    static const char *const list[] = {
        "",
        ":",
        ":80",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:+1",
        "1.2.3.4:080",
        "1.2.3.4:80 ",
        " 1.2.3.4:80",
        "1.2.3:80",
        "1.2.3.4.5:80",
        "256.1.1.1:80",
        "01.2.3.4:80",
        "1.2.3.4:80:90",
        "host:1",
        "localhost:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1]:",
        "[::1:80",
        "::1]:80",
        "[]:80",
        "[1.2.3.4]:80",
        "[::1%]:80",
        "[::1%eth0]:80",
        "[::1%-1]:80",
        "[::1%01]:80",
        "[::1%4294967296]:80",
        "[::1%1%2]:80",
        "[%1]:80",
        "[::1]:65536",
        "[1::2::3]:80",
        "[1:2:3:4:5:6:7:8:9]:80",
        "[1:2:3:4:5:6:7]:80",
        "[::12345]:80",
        "[::g]:80",
        "[[::1]]:80",
        "1.2.3.4%5:80",
        "[::1] :80",
    };
    struct dig_addr a = { .scope = 77 };

    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        cr_expect(not(dig_addr_parse(bytes_str(list[i]), &a)), "%s", list[i]);
    cr_expect(eq(u32, a.scope, 77), "nothing is written on failure");
    cr_expect(not(dig_addr_parse((struct bytes){ NULL, 0 }, &a)));
}

Test(dig_addr, prints_observed_ipv4_plain) /* D2 */
{
    struct netaddr a = seen("1.2.3.4:5");
    char text[DIG_ADDR_TEXT_MAX];
    struct wcur w = wcur_of(text, sizeof(text));

    dig_netaddr_put(&w, &a);
    cr_expect(bytes_eq(bytes_of(text, w.wrote), bytes_str("1.2.3.4:5")));
    a = seen("[2001:db8::1]:5");
    w = wcur_of(text, sizeof(text));
    dig_netaddr_put(&w, &a);
    cr_expect(bytes_eq(bytes_of(text, w.wrote), bytes_str("[2001:db8::1]:5")));
}

/* ---- dialable addresses (dig.md §7) --------------------------------------------------------- */

/* Both lists are separated by blanks. */
static void expect_dialable(const char *observed, const char *listen, const char *want)
{
    struct dig_addr candidates[32];
    struct netaddr from = seen(observed), out[DIG_DIALABLE_MAX];
    char text[1024], got[1024] = "";
    size_t n = 0;

    snprintf(text, sizeof(text), "%s", listen);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        candidates[n++] = parsed(word);
    n = dig_dialable(candidates, n, &from, out);
    cr_assert(n <= DIG_DIALABLE_MAX);
    for (size_t i = 0; i < n; i++) {
        struct dig_addr a = { .at = out[i], .v6 = !netaddr_is4(&out[i]) };

        strcat(strcat(got, i ? " " : ""), printed(&a));
    }
    cr_expect(strcmp(got, want) == 0, "from %s, %s: %s instead of %s", observed, listen, got, want);
}

Test(dig_dialable, keeps_what_is_owned_and_of_the_rest_the_port)
{
    /* checks 33 and 34 */
    expect_dialable("127.0.0.1:55", "[::]:9444 192.168.1.5:9444 8.8.8.8:9446",
                    "127.0.0.1:9444 127.0.0.1:9446");
    expect_dialable("[::1]:9", "1.2.3.4:55", "[::1]:55");
    expect_dialable("203.0.113.9:1", "203.0.113.9:7", "203.0.113.9:7");
    expect_dialable("203.0.113.9:1", "[::ffff:203.0.113.9]:7", "203.0.113.9:7"); /* D2 */
    expect_dialable("203.0.113.9:1", "[::ffff:203.0.113.9]:7 203.0.113.9:7", "203.0.113.9:7");
    expect_dialable("203.0.113.9:1", "203.0.113.8:7", "203.0.113.9:7");
    expect_dialable("203.0.113.9:1", "[2001:db8::1]:7", "203.0.113.9:7"); /* families never mix */
    expect_dialable("203.0.113.9:1", "[::9]:7", "203.0.113.9:7"); /* nor do their first 64 bits */
    expect_dialable("[2001:db8:7::9]:1", "[2001:db8:7::1]:7",
                    "[2001:db8:7::1]:7"); /* the same /64 */
    expect_dialable("[2001:db8:7::9]:1", "[2001:db8:7:0:ffff::1]:7", "[2001:db8:7:0:ffff::1]:7");
    expect_dialable("[2001:db8:7::9]:1", "[2001:db8:7:1::1]:7", "[2001:db8:7::9]:7");
    expect_dialable("[2001:db8:7::9]:1", "[2001:db8:7::1%3]:7", "[2001:db8:7::1]:7");
    expect_dialable("203.0.113.9:1", "", "");
}

Test(dig_dialable, judges_what_does_not_route)
{
    static const char *const unroutable[] = {
        "0.0.0.0",    "127.0.0.1",      "127.255.255.255", "10.0.0.1",
        "172.16.0.1", "172.31.255.255", "192.168.0.1",     "169.254.1.1",
    };
    static const char *const routable[] = {
        "1.1.1.1",     "100.64.0.1",  "172.15.0.1", "172.32.0.1", "192.167.0.1", "192.169.0.1",
        "169.253.0.1", "169.255.0.1", "11.0.0.1",   "224.0.0.1",  "203.0.113.1", "0.0.0.1",
    };
    char text[64];

    /* Whether an IPv6 candidate routes is seen by a peer in the same /64: if not, it is replaced.
     * An IPv4 candidate that could be kept is the observed address itself. */
    expect_dialable("[fd00::1]:1", "[fd00::2]:7", "[fd00::1]:7");
    expect_dialable("[fcff::1]:1", "[fcff::2]:7", "[fcff::1]:7");
    expect_dialable("[fb00::1]:1", "[fb00::2]:7", "[fb00::2]:7");
    expect_dialable("[fe00::1]:1", "[fe00::2]:7", "[fe00::2]:7");
    expect_dialable("[fe80::1]:1", "[fe80::2]:7", "[fe80::1]:7");
    expect_dialable("[febf::1]:1", "[febf::2]:7", "[febf::1]:7");
    expect_dialable("[fec0::1]:1", "[fec0::2]:7", "[fec0::2]:7");
    expect_dialable("[::3]:1", "[::]:7 [::1]:8 [::2]:9", "[::3]:7 [::3]:8 [::2]:9");
    expect_dialable("[ff02::1]:1", "[ff02::2]:7", "[ff02::2]:7");
    for (size_t i = 0; i < ARRAY_LEN(unroutable); i++) {
        snprintf(text, sizeof(text), "%s:7", unroutable[i]);
        expect_dialable("203.0.113.9:1", text, "203.0.113.9:7");
    }
    for (size_t i = 0; i < ARRAY_LEN(routable); i++) {
        char from[64];

        snprintf(text, sizeof(text), "%s:7", routable[i]);
        snprintf(from, sizeof(from), "%s:1", routable[i]);
        expect_dialable(from, text, text);
    }
}

Test(dig_dialable, keeps_eight_distinct_and_sorts_ipv6_first)
{
    expect_dialable("9.9.9.9:1", "[::]:1 [::]:2 [::]:3 [::]:4 [::]:5 [::]:6 [::]:7 [::]:8 [::]:9",
                    "9.9.9.9:1 9.9.9.9:2 9.9.9.9:3 9.9.9.9:4 9.9.9.9:5 9.9.9.9:6 9.9.9.9:7 "
                    "9.9.9.9:8");
    /* Equal ones do not use up room, wherever they stand. */
    expect_dialable("9.9.9.9:1",
                    "1.1.1.1:1 1.1.1.2:1 1.1.1.3:1 1.1.1.4:1 1.1.1.5:1 1.1.1.6:1 1.1.1.7:1 "
                    "1.1.1.8:1 1.1.1.9:1 1.1.1.9:2",
                    "9.9.9.9:1 9.9.9.9:2");
    expect_dialable("[2001:db8::9]:1", "[2001:db8::2]:5 1.2.3.4:4 [2001:db8::1]:3",
                    "[2001:db8::2]:5 [2001:db8::9]:4 [2001:db8::1]:3");
    expect_dialable("9.9.9.9:1", "9.9.9.9:0 [::]:0 9.9.9.9:3", "9.9.9.9:3"); /* D10 */

    struct dig_dial d = { .n = 3 };
    struct netaddr out[DIG_DIALABLE_MAX];

    d.addr[0] = seen("9.9.9.9:1");
    d.addr[1] = seen("[2001:db8::1]:2");
    d.addr[2] = seen("[2001:db8::1]:1");
    cr_assert(eq(sz, dig_dial_done(&d, out), 3));
    cr_expect(out[0].port == 2 && out[1].port == 1 && netaddr_is4(&out[2]), "stable");
}

/* ---- source keys and hole punching --------------------------------------------------------- */

static bool same_source(const char *a, const char *b)
{
    struct netaddr x = seen(a), y = seen(b);
    struct dig_source p = dig_source_key(x.ip), q = dig_source_key(y.ip);

    return memcmp(&p, &q, sizeof(p)) == 0;
}

Test(dig_source, is_an_ipv4_address_or_a_64) /* dig.md §14.1 */
{
    cr_expect(same_source("1.2.3.4:5", "1.2.3.4:6"));
    cr_expect(same_source("1.2.3.4:5", "[::ffff:1.2.3.4]:5"));
    cr_expect(not(same_source("1.2.3.4:5", "1.2.3.5:5")));
    cr_expect(same_source("[2001:db8:1:2::3]:5", "[2001:db8:1:2:ffff::]:6"));
    cr_expect(not(same_source("[2001:db8:1:2::3]:5", "[2001:db8:1:3::3]:5")));
    cr_expect(not(same_source("1.2.3.4:5", "[::1]:5")), "::/64 is nobody's IPv4");
}

static bool may_punch(const char *external, const char *from, bool strict)
{
    struct dig_addr a = parsed(external);
    struct netaddr f = seen(from);

    return dig_punch_ok(&a, &f, strict);
}

Test(dig_punch, forwards_what_can_be_somebodys_address) /* D10 */
{
    static const char *const refused[] = {
        "1.2.3.4:0",
        "0.0.0.0:5",
        "[::]:5",
        "224.0.0.1:5",
        "239.255.255.255:5",
        "255.255.255.255:5",
        "[ff02::1]:5",
        "[::ffff:224.0.0.1]:5",
        "[::ffff:0.0.0.0]:5",
        "127.0.0.1:5",
        "127.9.9.9:5",
        "[::1]:5",
        "[::ffff:127.0.0.1]:5",
    };

    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        cr_expect(not(may_punch(refused[i], "9.9.9.9:1", false)), "%s", refused[i]);
    cr_expect(may_punch("203.0.113.9:40001", "127.0.0.1:1", false), "tests use made-up ones");
    cr_expect(may_punch("1.2.3.4:5", "[2001:db8::1]:1", false), "registered over IPv6");
    cr_expect(may_punch("223.255.255.255:5", "9.9.9.9:1", false));
    cr_expect(may_punch("192.168.1.1:5", "9.9.9.9:1", false));
    cr_expect(may_punch("127.0.0.1:5", "127.0.0.1:1", false));
    cr_expect(may_punch("[::1]:5", "127.0.0.1:1", false));
    cr_expect(may_punch("127.0.0.1:5", "[::1]:1", false));
    cr_expect(not(may_punch("0.0.0.0:5", "127.0.0.1:1", false)));
}

Test(dig_punch, strictly_forwards_the_observed_address_alone)
{
    cr_expect(may_punch("9.9.9.9:5", "9.9.9.9:1", true));
    cr_expect(may_punch("[::ffff:9.9.9.9]:5", "9.9.9.9:1", true));
    cr_expect(not(may_punch("9.9.9.8:5", "9.9.9.9:1", true)));
    cr_expect(may_punch("[2001:db8::5]:5", "[2001:db8::1]:1", true));
    cr_expect(not(may_punch("[2001:db8:0:1::5]:5", "[2001:db8::1]:1", true)));
    cr_expect(not(may_punch("9.9.9.9:5", "[2001:db8::1]:1", true)));
    cr_expect(not(may_punch("9.9.9.9:0", "9.9.9.9:1", true)));
}
