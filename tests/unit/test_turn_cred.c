/* Credentials for a limited time: they verify as the server verifies them, and say where to go
 * (turn.md §8.3, V7). */
#include <criterion/criterion.h>
#include <stdio.h>

#include "engine/turn_cred.h"
#include "proto/crypto.h"

static struct config cfg;
static struct turn_host host;
static struct netaddr udp[2], tcp[2];
static struct turn_cred_place at;
static struct ops_cred cred;
static char why[256];

static struct netaddr addr(const char *text)
{
    struct netaddr a;

    cr_assert(netaddr_parse(bytes_str(text), &a));
    return a;
}

static void setup(void)
{
    static const struct bytes secrets[] = { { (const uint8_t *)"north", 5 },
                                            { (const uint8_t *)"south", 5 } };

    crypto_init();
    host = (struct turn_host){ .cfg = &cfg, .on = true, .relays = true };
    host.machine.secrets = (struct stun_secrets){ .secret = secrets, .count = 2, .separator = ':' };
    udp[0] = tcp[0] = addr("192.0.2.1:3478");
    at = (struct turn_cred_place){
        .host = &host, .udp = udp, .tcp = tcp, .n = 1, .unix_s = 1699999000
    };
}

TestSuite(turn_cred, .init = setup);

static int make(const char *name, uint32_t ttl_s)
{
    return turn_cred_make(&at, name, ttl_s, &cred, why, sizeof(why));
}

Test(turn_cred, v7_is_what_the_first_secret_gives)
{
    cr_assert_eq(make("alice", 1000), 0);
    cr_expect_str_eq(cred.username, "1700000000:alice");
    cr_expect_str_eq(cred.password, "Cd/49soE35ICqcJF/bCTn8Z4OyE=");
    cr_expect_eq(cred.ttl_s, 1000u);
    cr_assert_eq(make("", 1000), 0);
    cr_expect_str_eq(cred.username, "1700000000");
}

Test(turn_cred, uris_lead_to_where_it_listens)
{
    cr_assert_eq(make("a", 1), 0);
    cr_assert_eq(cred.uris_n, 3u);
    cr_expect_str_eq(cred.uris[0], "turn:192.0.2.1:3478?transport=udp");
    cr_expect_str_eq(cred.uris[1], "turn:192.0.2.1:3478?transport=tcp");
    cr_expect_str_eq(cred.uris[2], "stun:192.0.2.1:3478");
    udp[1] = addr("[2001:db8::1]:3478");
    tcp[1] = addr("[2001:db8::1]:443");
    at.n = 2;
    cr_assert_eq(make("a", 1), 0);
    cr_assert_eq(cred.uris_n, 6u);
    cr_expect_str_eq(cred.uris[2], "turn:[2001:db8::1]:3478?transport=udp");
    cr_expect_str_eq(cred.uris[3], "turn:[2001:db8::1]:443?transport=tcp");
    cr_expect_str_eq(cred.uris[5], "stun:[2001:db8::1]:3478");
}

Test(turn_cred, the_hosts_name_is_the_operators_then_from_outside_then_its_own)
{
    struct netaddr out = addr("203.0.113.5:0");

    udp[0] = tcp[0] = addr("0.0.0.0:3478");
    host.has[TURN_V4] = true;
    host.relay_ip[TURN_V4] = addr("192.0.2.9:0");
    cr_assert_eq(make("a", 1), 0);
    cr_expect_str_eq(cred.uris[0], "turn:192.0.2.9:3478?transport=udp", "a wildcard is nowhere");
    udp[0] = tcp[0] = addr("[::]:3478");
    cr_assert_eq(make("a", 1), 0);
    cr_expect_str_eq(cred.uris[0], "turn:192.0.2.9:3478?transport=udp", "[::] takes IPv4 too");
    turn_host_set_external(&host, TURN_V4, out.ip);
    cr_assert_eq(make("a", 1), 0);
    cr_expect_str_eq(cred.uris[2], "stun:203.0.113.5:3478");
    snprintf(cfg.turn_public_host, sizeof(cfg.turn_public_host), "turn.example.org");
    udp[1] = tcp[1] = addr("0.0.0.0:3478");
    at.n = 2;
    cr_assert_eq(make("a", 1), 0);
    cr_assert_eq(cred.uris_n, 3u, "each is said once");
    cr_expect_str_eq(cred.uris[0], "turn:turn.example.org:3478?transport=udp");
    cr_expect_str_eq(cred.uris[2], "stun:turn.example.org:3478");
    cfg.turn_public_host[0] = '\0';
}

Test(turn_cred, refusals_say_what_is_missing)
{
    static char longest[OPS_CRED_NAME_MAX], longer[OPS_CRED_NAME_MAX + 1];
    static const char *const bad[] = { "a b", "a\nb", "\x1b[2J", "a\x7f", "\xff", "\xe3\x83" };

    memset(longest, 'x', sizeof(longest) - 1);
    memset(longer, 'x', sizeof(longer) - 1);
    cr_expect_eq(make(longest, 1), 0);
    cr_expect_eq(strlen(cred.username), 11 + strlen(longest));
    cr_expect_neq(make(longer, 1), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_neq(make(bad[i], 1), 0, "row %zu", i);
    cr_expect_eq(make("\xe3\x83\x9e:1\"\\", 1), 0, "all else may be in it");
    cr_expect_neq(make("a", 0), 0);
    cr_expect_eq(make("a", OPS_CRED_TTL_MAX), 0);
    cr_expect_neq(make("a", OPS_CRED_TTL_MAX + 1u), 0);
    host.machine.secrets.ahead_max_s = 600;
    cr_expect_eq(make("a", 600), 0);
    cr_expect_neq(make("a", 601), 0);
    cr_expect(strstr(why, "1 to 600 seconds"), "%s", why);
    host.machine.secrets.count = 0;
    cr_expect_neq(make("a", 1), 0);
    cr_expect(strstr(why, "--turn-secret"), "%s", why);
    host.on = false;
    cr_expect_neq(make("a", 1), 0);
    cr_expect(strstr(why, "closed"), "%s", why);
    at.host = NULL;
    cr_expect_neq(make("a", 1), 0);
}
