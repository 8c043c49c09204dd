/* Flags, environment, presets and paths of engine/config*.c (presets.md, descord.md §4, dusk.md
 * §12). */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/acl.h"
#include "engine/config_int.h"

static struct config c;
static char said[32768]; /* what went to stderr */

/* Loads with stderr and stdout caught. `env` and the arguments end with NULL. */
static int load_env(char **env, const char *first, ...)
{
    char *argv[64] = { (char *)(first ? first : "sluice") };
    int argc = 1;
    FILE *err = stderr, *out = stdout;
    char *text = NULL, *printed = NULL;
    size_t n = 0, m = 0;
    va_list ap;

    config_free(&c); /* of the call before; nothing at first */
    va_start(ap, first);
    while ((argv[argc] = va_arg(ap, char *)))
        argc++;
    va_end(ap);
    stderr = open_memstream(&text, &n);
    stdout = open_memstream(&printed, &m);
    int r = config_load(&c, argc, argv, env);

    fclose(stderr);
    fclose(stdout);
    stderr = err;
    stdout = out;
    snprintf(said, sizeof(said), "%s%s", text, printed);
    free(text);
    free(printed);
    return r;
}

static void teardown(void)
{
    config_free(&c);
}

TestSuite(config_presets, .fini = teardown);
TestSuite(config_flags, .fini = teardown);
TestSuite(config_env, .fini = teardown);
TestSuite(config_paths, .fini = teardown);
TestSuite(config_dump, .fini = teardown);
TestSuite(config_files, .fini = teardown);

static char *no_env[] = { "HOME=/", NULL };
#define LOAD(...) load_env(no_env, "sluice", __VA_ARGS__, NULL)
#define LOAD0() load_env(no_env, "sluice", NULL)
#define ENV(...) ((char *[]){ "HOME=/", __VA_ARGS__, NULL })

static const char *addr(const struct listen_at *at)
{
    static char text[NETADDR_TEXT_MAX];

    netaddr_text(&at->addr, text);
    return text;
}

static const char *announced(unsigned i)
{
    static char text[MADDR_TEXT_MAX];

    cr_assert(maddr_text(maddr_bytes(&c.announce[i]), text, sizeof(text)));
    return text;
}

static bool noted(const char *part)
{
    for (unsigned i = 0; i < c.notes_n; i++)
        if (strstr(c.note[i], part))
            return true;
    return false;
}

Test(config_presets, default_is_as_presets_md_says)
{
    cr_assert_eq(LOAD0(), 0, "%s", said);
    cr_expect_str_eq(addr(&c.p2p[0]), "[::]:4001");
    cr_expect_eq(c.p2p_n, 1u);
    cr_expect_not(c.p2p[0].named, "a default door may fall back to IPv4");
    cr_expect_str_eq(addr(&c.dig), "[::]:9450");
    cr_expect_str_eq(addr(&c.turn), "[::]:3478");
    cr_expect_str_eq(addr(&c.http), "127.0.0.1:9451");
    cr_expect(c.http_on && c.dig_on && c.turn_on);
    cr_expect_eq(c.hop.reservations_max, 16384u);
    cr_expect_eq(c.hop.per_peer_max, 8u);
    cr_expect_eq(c.circuits_max, 65536u);
    cr_expect_eq(c.circuits_per_peer_max, 64u);
    cr_expect_not(c.circuit_limit.present, "limit is omitted on the wire");
    cr_expect_eq(c.hop.full_status, HOP_RESERVATION_REFUSED);
    cr_expect_eq(c.hop.reservation_ms, 3600000u);
    cr_expect_eq(c.stop_timeout_ms, 10000u);
    cr_expect_eq(c.idle_timeout_ms, 120000u);
    cr_expect_eq(c.handshake_timeout_ms, 10000u);
    cr_expect_eq(c.drain_s, 8u);
    cr_expect_eq(c.stats_interval_s, 60u);
    cr_expect_eq(c.byte_count, COUNT_PER_DIRECTION);
    cr_expect_str_eq(c.ident_protocol_version, "ipfs/0.1.0");
    cr_expect_str_eq(c.ident_agent, "sluice/" SLUICE_VERSION);
    cr_expect_eq(c.hop.peer_burst + c.hop.ip_burst + c.connect_peer_burst + c.connect_ip_burst, 0u);
    cr_expect_eq(c.turn_max_allocations, 0u);
    cr_expect(noted("--listen-dig") && noted("--listen-turn"), "doors not built are said");
}

Test(config_presets, dusk_is_as_presets_md_says)
{
    cr_assert_eq(LOAD("--preset", "dusk"), 0, "%s", said);
    cr_expect_str_eq(addr(&c.p2p[0]), "0.0.0.0:4001");
    cr_expect_str_eq(addr(&c.turn), "0.0.0.0:3478");
    cr_expect(c.turn_on && !c.dig_on && !c.http_on);
    cr_expect_eq(c.conns_max, 10000u);
    cr_expect_eq(c.hop.reservations_max, 10000u);
    cr_expect_eq(c.hop.per_peer_max, 8u);
    cr_expect_eq(c.circuits_max, 65536u);
    cr_expect_not(c.circuit_limit.present);
    cr_expect_eq(c.hop.full_status, HOP_RESOURCE_LIMIT_EXCEEDED, "201, then close");
    cr_expect_eq(c.idle_timeout_ms, 300000u);
    cr_expect_str_eq(c.ident_protocol_version, "/dusk/relay/1.0.0");
    cr_expect_eq(c.turn_max_allocations, 1000u);
    cr_expect_eq(c.turn_max_per_user, 10u);
    cr_expect_str_eq(c.turn_realm, "duskchat.app");
    cr_expect_eq(c.turn_port_lo, 49152u);
    cr_expect_eq(c.turn_port_hi, 65535u);
}

Test(config_presets, descord_is_as_presets_md_says)
{
    cr_assert_eq(LOAD("--preset=descord"), 0, "%s", said);
    cr_expect_str_eq(addr(&c.p2p[0]), "0.0.0.0:9000");
    cr_expect_str_eq(addr(&c.http), "0.0.0.0:9001");
    cr_expect(c.http_on && !c.dig_on && !c.turn_on);
    cr_expect_eq(c.hop.reservations_max, 1024u);
    cr_expect_eq(c.hop.per_peer_max, 3u);
    cr_expect_eq(c.circuits_max, 512u);
    cr_expect_eq(c.circuits_per_peer_max, 5u);
    cr_expect(c.circuit_limit.present);
    cr_expect_eq(c.circuit_limit.duration_s, 3600u);
    cr_expect_eq(c.circuit_limit.data_bytes, 104857600u);
    cr_expect_eq(c.hop.reservation_ms, 3600000u);
    cr_expect_eq(c.hop.full_status, HOP_RESERVATION_REFUSED);
    cr_expect_eq(c.hop.peer_burst, 30u);
    cr_expect_eq(c.hop.peer_refill_ms, 120000u);
    cr_expect_eq(c.hop.ip_burst, 0u, "1024 peers behind one address reserve (descord.md check 8)");
    cr_expect_eq(c.advertise_interval_s, 300u);
    cr_expect_eq(c.notes_n, 0u, "nothing to warn of: %s", c.note[0]);
}

Test(config_presets, dig_and_turn_are_as_presets_md_says)
{
    cr_assert_eq(LOAD("--preset", "dig"), 0, "%s", said);
    cr_expect_eq(c.p2p_n, 0u);
    cr_expect_str_eq(addr(&c.dig), "[::]:9450");
    cr_expect_str_eq(addr(&c.http), "[::]:9451");
    cr_expect(c.http_health_only && c.dig_on && c.turn_on && c.http_on);
    config_free(&c);
    cr_assert_eq(LOAD("--preset", "turn"), 0, "%s", said);
    cr_expect_eq(c.p2p_n, 0u);
    cr_expect(c.turn_on && c.http_on && !c.dig_on);
    cr_expect_str_eq(addr(&c.http), "127.0.0.1:9451");
}

Test(config_presets, program_name_is_the_weakest_choice)
{
    cr_assert_eq(load_env(no_env, "/usr/local/bin/dusk-relay", NULL), 0);
    cr_expect_eq(c.preset, PRESET_DUSK);
    cr_assert_eq(load_env(no_env, "descord-relay", NULL), 0);
    cr_expect_eq(c.preset, PRESET_DESCORD);
    cr_assert_eq(load_env(no_env, "./dig-relay", NULL), 0);
    cr_expect_eq(c.preset, PRESET_DIG);
    cr_assert_eq(load_env(ENV("SLUICE_PRESET=turn"), "dig-relay", NULL), 0);
    cr_expect_eq(c.preset, PRESET_TURN);
    cr_assert_eq(load_env(ENV("SLUICE_PRESET=turn"), "dig-relay", "--preset", "none", NULL), 0);
    cr_expect_eq(c.preset, PRESET_NONE);
    cr_assert_eq(load_env(ENV("SLUICE_PRESET=x"), "sluice", NULL), 2);
    cr_expect(strstr(said, "SLUICE_PRESET=x") && strstr(said, "descord"), "%s", said);
}

/* Every number of the table: both ends are taken, one past each is refused with flag and range. */
Test(config_flags, every_number_has_exact_ends)
{
    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];
        char value[32], flag[64];

        if (s->kind != SET_U32 && s->kind != SET_U64)
            continue;
        if (s->kind == SET_U32)
            cr_expect(s->hi * s->scale <= UINT32_MAX, "--%s overflows its field", s->name);
        for (int end = 0; end < 2; end++) {
            snprintf(flag, sizeof(flag), "--%s", s->name);
            snprintf(value, sizeof(value), "%llu", (unsigned long long)(end ? s->hi : s->lo));
            cr_assert_eq(LOAD(flag, value), 0, "%s %s: %s", flag, value, said);
            char back[64];

            setting_text(&c, s, 0, back, sizeof(back));
            cr_expect_str_eq(back, value, "%s", flag);
            config_free(&c);
            if (!end && s->lo == 0)
                continue;
            snprintf(value, sizeof(value), "%llu",
                     (unsigned long long)(end ? s->hi + 1 : s->lo - 1));
            cr_assert_eq(LOAD(flag, value), 2, "%s %s was accepted", flag, value);
            snprintf(value, sizeof(value), "to %llu", (unsigned long long)s->hi);
            cr_expect(strstr(said, flag) && strstr(said, value), "%s", said);
            cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
        }
    }
}

Test(config_flags, numbers_are_whole_strings)
{
    static const char *const bad[] = { "abc",
                                       "",
                                       " 1",
                                       "1 ",
                                       "0x10",
                                       "-1",
                                       "+1",
                                       "1.5",
                                       "1e3",
                                       "18446744073709551616",
                                       "99999999999999999999999" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char flag[64];

        snprintf(flag, sizeof(flag), "--max-circuits=%s", bad[i]);
        cr_expect_eq(LOAD(flag), 2, "'%s' was accepted", bad[i]);
        cr_expect(strstr(said, "from 1 to 1000000"), "%s", said);
    }
}

Test(config_flags, errors_name_the_flag_and_exit_2)
{
    static const struct {
        const char *arg, *says;
    } rows[] = {
        { "--no-such", "--no-such" },
        { "-z", "-z" },
        { "word", "word" },
        { "--max-circuits", "--max-circuits needs a value" },
        { "--check-config=yes", "--check-config" },
        { "--log-level=loud", "error, warn, info, debug, trace" },
        { "--log-format=xml", "text, json" },
        { "--byte-count=both", "per-direction, sum" },
        { "--listen-p2p=relay.example.org:4001", "HOST:PORT with an IP address" },
        { "--listen-p2p=127.0.0.1", "HOST:PORT" },
        { "--listen-p2p=127.0.0.1:65536", "HOST:PORT" },
        { "--listen-p2p=/dns4/a.example/tcp/1", "/ip4/ADDRESS/tcp/PORT" },
        { "--listen-p2p=/ip4/1.2.3.4", "/ip4/ADDRESS/tcp/PORT" },
        { "--listen-http=9451", "HOST:PORT" },
        { "--announce=relay.example.org", "multiaddr" },
        { "--announce=/ip4/1.2.3.4/tcp/1/p2p/12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB/"
          "p2p-circuit",
          "multiaddr" },
        { "--allow=bob", "peer id" },
        { "--deny=10.0.0.0/33", "peer id" },
        { "--proxy-from=10.0.0.0/33", "prefix" },
        { "--port=65536", "0 to 65535" },
        { "--interface=eth0", "an IP address" },
        { "--interface=10.0.0.0/8", "an IP address" },
        { "--monitoring-port=-1", "0 to 65535" },
        { "--reservation-rate-per-peer=30", "N/SECS" },
        { "--reservation-rate-per-peer=30/0", "N/SECS" },
        { "--turn-ports=10-9", "A <= B" },
        { "--turn-ports=0-9", "1 <= A" },
        { "--turn-ports=1-65536", "65535" },
        { "--advertise-on-dht=maybe", "true or false" },
        { "--preset=go", "descord" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_expect_eq(LOAD(rows[i].arg), 2, "%s was accepted", rows[i].arg);
        cr_expect(strstr(said, rows[i].says), "%s: %s", rows[i].arg, said);
        cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
    }
}

Test(config_flags, a_bad_value_cannot_break_the_line_or_show_a_secret)
{
    cr_expect_eq(LOAD("--announce=a\nsluice: all is well\033[2J"), 2);
    cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
    cr_expect_null(strchr(said, '\033'));
    cr_expect_eq(LOAD("--turn-user=nocolonhunter2"), 2);
    cr_expect_null(strstr(said, "hunter2"), "%s", said);
}

Test(config_flags, listening_addresses_take_every_form)
{
    cr_assert_eq(LOAD("--listen-p2p", "127.0.0.1:0", "--listen-p2p", "[::1]:7", "--listen-p2p",
                      "/ip4/10.0.0.1/tcp/4001", "--listen-p2p=/ip6/::1/tcp/9", "--listen-http",
                      "off"),
                 0, "%s", said);
    cr_assert_eq(c.p2p_n, 4u, "the default is replaced, not added to");
    cr_expect_str_eq(addr(&c.p2p[0]), "127.0.0.1:0");
    cr_expect(c.p2p[0].named);
    cr_expect_str_eq(addr(&c.p2p[1]), "[::1]:7");
    cr_expect_str_eq(addr(&c.p2p[2]), "10.0.0.1:4001");
    cr_expect_str_eq(addr(&c.p2p[3]), "[::1]:9");
    cr_expect_not(c.http_on);
    config_free(&c);
    cr_assert_eq(LOAD("--listen-p2p=off", "--listen-turn=localhost:5"), 0, "%s", said);
    cr_expect_eq(c.p2p_n, 0u);
    cr_expect_str_eq(addr(&c.turn), "127.0.0.1:5");
    config_free(&c);
    cr_assert_eq(LOAD("--listen-p2p=/ip4/0.0.0.0/udp/4001/quic-v1"), 0, "%s", said);
    cr_expect_eq(c.p2p_n, 0u);
    cr_expect(noted("quic-v1"), "a transport that is not built is said");
}

Test(config_flags, at_most_eight_listeners)
{
    char *argv[32] = { "sluice" };
    int n = 1;

    for (; n <= CONFIG_LISTEN_MAX; n++)
        argv[n] = "--listen-p2p=127.0.0.1:0";
    cr_assert_eq(config_load(&c, n, argv, no_env), 0);
    cr_assert_eq(c.p2p_n, (unsigned)CONFIG_LISTEN_MAX);
    config_free(&c);
    argv[n++] = "--listen-p2p=127.0.0.1:0";
    cr_assert_eq(config_load(&c, n, argv, no_env), 2);
}

Test(config_flags, descord_spellings_work)
{
    cr_assert_eq(LOAD("--preset=descord", "-p", "0", "-i", "127.0.0.1", "--max-reservations", "10",
                      "--max-reservations-per-peer", "1", "--max-circuits", "9",
                      "--max-circuits-per-peer", "2", "--circuit-duration-secs", "2",
                      "--circuit-bandwidth-mb", "1", "--stats-interval-secs", "1", "--log-level",
                      "debug", "--advertise-on-dht", "true", "--advertise-interval-secs", "30",
                      "--monitoring-port", "0"),
                 0, "%s", said);
    cr_expect_str_eq(addr(&c.p2p[0]), "127.0.0.1:0");
    cr_expect(c.p2p[0].named);
    cr_expect_eq(c.hop.reservations_max, 10u);
    cr_expect_eq(c.hop.per_peer_max, 1u);
    cr_expect_eq(c.circuits_max, 9u);
    cr_expect_eq(c.circuits_per_peer_max, 2u);
    cr_expect_eq(c.circuit_limit.duration_s, 2u);
    cr_expect_eq(c.circuit_limit.data_bytes, 1048576u);
    cr_expect_eq(c.hop.reservation_ms, 3600000u,
                 "a short circuit is no reason for short reservations");
    cr_expect_eq(c.stats_interval_s, 1u);
    cr_expect_eq(c.log_level, LOG_DEBUG);
    cr_expect(c.advertise_on_dht && noted("DHT"));
    cr_expect_not(c.http_on);
    config_free(&c);
    cr_assert_eq(LOAD("--preset=descord", "--monitoring-port=9101", "--port=9100"), 0, "%s", said);
    cr_expect_str_eq(addr(&c.http), "0.0.0.0:9101");
    cr_expect_str_eq(addr(&c.p2p[0]), "0.0.0.0:9100");
    config_free(&c);
    cr_assert_eq(LOAD("--circuit-duration-secs=0", "--circuit-bandwidth-mb=0"), 0);
    cr_expect_not(c.circuit_limit.present);
}

Test(config_flags, one_door_is_not_named_twice_by_one_source)
{
    cr_expect_eq(LOAD("--port=1", "--listen-p2p=127.0.0.1:2"), 2);
    cr_expect(strstr(said, "--port and --listen-p2p"), "%s", said);
    cr_expect_eq(LOAD("--monitoring-port=1", "--listen-http=127.0.0.1:2"), 2);
    cr_assert_eq(load_env(ENV("SLUICE_LISTEN_P2P=127.0.0.1:2"), "sluice", "--port=1", NULL), 0);
    cr_expect_str_eq(addr(&c.p2p[0]), "127.0.0.1:1",
                     "the stronger source moves the weaker one's door");
    cr_assert_eq(load_env(ENV("SLUICE_PORT=1"), "sluice", "--listen-p2p=127.0.0.1:2", NULL), 0);
    cr_expect_str_eq(addr(&c.p2p[0]), "127.0.0.1:2");
}

Test(config_flags, announced_addresses_lose_p2p)
{
    cr_assert_eq(LOAD("--announce=/dns4/relay.example.org/tcp/4001/p2p/"
                      "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB",
                      "--announce", "/ip4/192.168.1.2/tcp/4001"),
                 0, "%s", said);
    cr_assert_eq(c.announce_n, 2u);
    cr_expect_str_eq(announced(0), "/dns4/relay.example.org/tcp/4001");
    cr_expect_str_eq(announced(1), "/ip4/192.168.1.2/tcp/4001");
}

Test(config_flags, allow_and_deny_become_rules)
{
    struct peer_id id;
    struct cidr net;

    cr_assert_eq(
        LOAD("--deny=12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB", "--deny=192.0.2.0/24"),
        0, "%s", said);
    cr_assert_not_null(c.acl);
    cr_assert(
        peer_id_parse(bytes_str("12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"), &id));
    cr_assert(cidr_parse(bytes_str("192.0.2.9"), &net));
    cr_expect_not(acl_allows(c.acl, ACL_RESERVE, &id, NULL));
    cr_expect_not(acl_allows(c.acl, ACL_CONNECT_DST, &id, NULL));
    cr_expect(acl_allows(c.acl, ACL_CONN, &id, NULL), "a denied peer hears 202, not a closed door");
    cr_expect_not(acl_allows(c.acl, ACL_CONN, NULL, net.ip));
    cr_assert(cidr_parse(bytes_str("198.51.100.1"), &net));
    cr_expect(acl_allows(c.acl, ACL_CONN, NULL, net.ip));
    config_free(&c);
    cr_expect_null(c.acl);
}

Test(config_flags, rates_are_n_per_secs)
{
    cr_assert_eq(LOAD("--reservation-rate-per-peer=5/7", "--circuit-rate-per-ip=6/8",
                      "--handshake-rate-per-ip=9/2"),
                 0, "%s", said);
    cr_expect_eq(c.hop.peer_burst, 5u);
    cr_expect_eq(c.hop.peer_refill_ms, 7000u);
    cr_expect_eq(c.connect_ip_burst, 6u);
    cr_expect_eq(c.connect_ip_refill_ms, 8000u);
    cr_expect_eq(c.handshakes_per_ip_max, 9u);
    cr_expect_eq(c.handshake_refill_ms, 2000u);
    config_free(&c);
    cr_assert_eq(LOAD("--preset=descord", "--reservation-rate-per-peer=0"), 0, "%s", said);
    cr_expect_eq(c.hop.peer_burst, 0u);
}

Test(config_flags, help_and_version_leave_with_0_and_teach)
{
    cr_expect_eq(LOAD("--help"), -1);
    cr_expect(strstr(said, "Doors") && strstr(said, "--max-circuits") && strstr(said, "Examples"),
              "%s", said);
    cr_expect_eq(LOAD("-h"), -1);
    cr_expect_eq(LOAD("-V"), -1);
    cr_expect_eq(LOAD("--version"), -1);
    cr_expect(strstr(said, "sluice " SLUICE_VERSION) && strstr(said, "libsodium"), "%s", said);
}

Test(config_env, every_flag_has_a_variable)
{
    char *env[] = { "HOME=/",
                    "SLUICE_MAX_CIRCUITS=12",
                    "SLUICE_LISTEN_P2P=127.0.0.1:1, [::1]:2",
                    "SLUICE_ANNOUNCE=",
                    "SLUICE_LOG_MASK_ADDRESSES=true",
                    "SLUICE_DENY=10.0.0.0/8",
                    "SLUICE_RESERVATION_SECS=600",
                    NULL };

    cr_assert_eq(load_env(env, "sluice", NULL), 0, "%s", said);
    cr_expect_eq(c.circuits_max, 12u);
    cr_assert_eq(c.p2p_n, 2u);
    cr_expect_str_eq(addr(&c.p2p[1]), "[::1]:2");
    cr_expect_eq(c.announce_n, 0u, "empty is unset");
    cr_expect(c.log_mask_addresses);
    cr_expect_eq(c.hop.reservation_ms, 600000u);
    config_free(&c);
    cr_assert_eq(load_env(env, "sluice", "--max-circuits=13", "--listen-p2p=127.0.0.1:3", NULL), 0);
    cr_expect_eq(c.circuits_max, 13u, "the flag wins");
    cr_expect_eq(c.p2p_n, 1u, "a stronger list replaces");
    config_free(&c);
    cr_assert_eq(load_env(ENV("SLUICE_MAX_CIRCUITS=many"), "sluice", NULL), 2);
    cr_expect(strstr(said, "SLUICE_MAX_CIRCUITS=many (--max-circuits)"), "%s", said);
}

Test(config_env, rust_log_and_dusk_port_are_always_heard)
{
    cr_assert_eq(load_env(ENV("RUST_LOG=libp2p=trace,dusk_relay=debug", "DUSK_RELAY_PORT=4100"),
                          "sluice", NULL),
                 0);
    cr_expect_eq(c.log_level, LOG_DEBUG);
    cr_expect_str_eq(addr(&c.p2p[0]), "[::]:4100");
    cr_expect_not(c.p2p[0].named);
    cr_assert_eq(load_env(ENV("DUSK_RELAY_PORT=4100"), "sluice", "--listen-p2p=127.0.0.1:1", NULL),
                 0);
    cr_expect_str_eq(addr(&c.p2p[0]), "127.0.0.1:1");
    cr_assert_eq(load_env(ENV("DUSK_RELAY_PORT=70000"), "dusk-relay", NULL), 0);
    cr_expect_str_eq(addr(&c.p2p[0]), "0.0.0.0:4001", "invalid is the default (dusk.md §12)");
    cr_expect(noted("DUSK_RELAY_PORT=70000"));
    cr_assert_eq(load_env(ENV("DUSK_RELAY_PORT=4100"), "dig-relay", NULL), 0);
    cr_expect_eq(c.p2p_n, 0u, "it moves a door, it does not open one");
    cr_assert_eq(load_env(ENV("RUST_LOG=debug"), "sluice", "--log-level=warn", NULL), 0);
    cr_expect_eq(c.log_level, LOG_WARN);
}

Test(config_env, rust_log_words)
{
    static const struct {
        const char *words;
        bool found;
        enum log_level level;
    } rows[] = {
        { "info", true, LOG_INFO },
        { "WARN", true, LOG_WARN },
        { "debug,hyper=warn", true, LOG_DEBUG },
        { "hyper=warn", false, LOG_INFO },
        { "dusk_relay", true, LOG_TRACE },
        { "warn,sluice=trace", true, LOG_TRACE },
        { "sluice=trace,warn", true, LOG_TRACE },
        { "descord_relay=error", true, LOG_ERROR },
        { "off", true, LOG_ERROR },
        { "info/peer.*", true, LOG_INFO },
        { "loud", false, LOG_INFO },
        { "", false, LOG_INFO },
        { ",,=,==,/", false, LOG_INFO },
        { " debug , x ", true, LOG_DEBUG },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum log_level level = LOG_INFO;

        cr_expect_eq(config_level_parse(rows[i].words, &level), rows[i].found, "%s", rows[i].words);
        cr_expect_eq(level, rows[i].level, "%s", rows[i].words);
    }
}

Test(config_env, dusk_variables_count_in_the_dusk_preset_only)
{
    char **env = ENV("DUSK_MAX_CONNECTIONS=2", "DUSK_TURN_SECRET=s3", "DUSK_TURN_REALM=r.example",
                     "DUSK_RELAY_EXTERNAL_ADDR=/dns4/r.example/tcp/4001", "DUSK_TURN_UDP_PORT=3500",
                     "DUSK_TURN_TCP_PORT=3501", "DUSK_TURN_PORT_RANGE_START=50000",
                     "DUSK_TURN_PORT_RANGE_END=50100", "DUSK_TURN_MAX_ALLOCATIONS=5",
                     "DUSK_TURN_MAX_PER_USER=2", "DUSK_TURN_PUBLIC_IP=203.0.113.7",
                     "DUSK_TURN_PUBLIC_HOST=turn.example");

    cr_assert_eq(load_env(env, "dusk-relay", NULL), 0, "%s", said);
    cr_expect_eq(c.conns_max, 2u);
    cr_expect_str_eq(c.turn_secret[0], "s3");
    cr_expect_str_eq(c.turn_realm, "r.example");
    cr_expect_str_eq(announced(0), "/dns4/r.example/tcp/4001");
    cr_expect_eq(c.turn.addr.port, 3500);
    cr_expect_eq(c.turn_tcp_port, 3501);
    cr_expect_eq(c.turn_port_lo, 50000);
    cr_expect_eq(c.turn_port_hi, 50100);
    cr_expect_eq(c.turn_max_allocations, 5u);
    cr_expect_eq(c.turn_max_per_user, 2u);
    cr_expect_str_eq(c.turn_external[0], "203.0.113.7");
    cr_expect_str_eq(c.turn_public_host, "turn.example");
    cr_assert_eq(load_env(env, "sluice", NULL), 0, "%s", said);
    cr_expect_eq(c.conns_max, 65536u);
    cr_expect_eq(c.turn_secret_n + c.announce_n, 0u);
}

Test(config_env, bad_dusk_variables_are_ignored_aloud_except_the_address)
{
    cr_assert_eq(
        load_env(ENV("DUSK_MAX_CONNECTIONS=x", "DUSK_TURN_ENABLED=False"), "dusk-relay", NULL), 0);
    cr_expect_eq(c.conns_max, 10000u);
    cr_expect(noted("DUSK_MAX_CONNECTIONS=x"));
    cr_expect(c.turn_on, "off only for exactly false or 0");
    cr_assert_eq(load_env(ENV("DUSK_TURN_ENABLED=0"), "dusk-relay", NULL), 0);
    cr_expect_not(c.turn_on);
    cr_expect_eq(load_env(ENV("DUSK_RELAY_EXTERNAL_ADDR=relay"), "dusk-relay", NULL), 2);
    cr_expect(strstr(said, "DUSK_RELAY_EXTERNAL_ADDR"), "%s", said);
    cr_expect_eq(load_env(ENV("DUSK_TURN_PORT_RANGE_START=60000", "DUSK_TURN_PORT_RANGE_END=50000"),
                          "dusk-relay", NULL),
                 2);
}

Test(config_env, dusk_reads_the_nearest_dotenv_under_the_real_environment)
{
    char dir[] = "/tmp/sluice-env-XXXXXX", path[64];
    FILE *f;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/.env", dir);
    f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs("# DUSK_MAX_CONNECTIONS=1\n"
          "DUSK_MAX_CONNECTIONS = 33 # of them\r\n"
          "export DUSK_TURN_REALM=\"a \\\"b\\\" #c\"\n"
          "DUSK_TURN_SECRET='s3=cret'\n"
          "DUSK_RELAY_PORT=4111\n"
          "RUST_LOG=trace\n"
          "SLUICE_MAX_CIRCUITS=5\n"
          "DUSK_TURN_MAX_PER_USER=\n"
          "=x\nno line\n\"",
          f);
    fclose(f);
    snprintf(path, sizeof(path), "%s/below", dir);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(chdir(path), 0);
    cr_assert_eq(load_env(no_env, "dusk-relay", NULL), 0, "%s", said);
    cr_expect_eq(c.conns_max, 33u);
    cr_expect_str_eq(c.turn_realm, "a \"b\" #c");
    cr_expect_str_eq(c.turn_secret[0], "s3=cret");
    cr_expect_eq(c.p2p[0].addr.port, 4111);
    cr_expect_eq(c.log_level, LOG_INFO, "it is read after the log has started");
    cr_expect_eq(c.circuits_max, 65536u);
    cr_expect_eq(c.turn_max_per_user, 10u, "empty is unset");
    cr_assert_eq(load_env(ENV("DUSK_MAX_CONNECTIONS=44", "DUSK_TURN_SECRET="), "dusk-relay", NULL),
                 0);
    cr_expect_eq(c.conns_max, 44u, "the real environment wins");
    cr_expect_eq(c.turn_secret_n, 0u, "even where it is empty");
    cr_assert_eq(load_env(no_env, "sluice", NULL), 0);
    cr_expect_eq(c.conns_max, 65536u, "no other preset reads it");
    cr_assert_eq(chdir("/"), 0);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/.env", dir);
    unlink(path);
    rmdir(dir);
}

Test(config_paths, data_directory_follows_presets_md)
{
    cr_assert_eq(load_env(ENV("STATE_DIRECTORY=/s:/t", "XDG_DATA_HOME=/x"), "sluice", NULL), 0);
    cr_expect_str_eq(c.data_dir, "/s");
    cr_expect_str_eq(c.identity_path, "/s/identity.key");
    cr_expect_str_eq(c.admin_path, "/s/admin.sock");
    cr_assert_eq(load_env(ENV("XDG_DATA_HOME=/x"), "sluice", NULL), 0);
    cr_expect_str_eq(c.data_dir, "/x/sluice");
    cr_assert_eq(load_env(ENV("XDG_DATA_HOME=x"), "sluice", NULL), 0);
    cr_expect_str_eq(c.data_dir, "//.local/share/sluice", "a relative one is ignored");
    cr_assert_eq(load_env(((char *[]){ "HOME=/no/such/home", NULL }), "sluice", NULL), 0);
    cr_expect_str_eq(c.data_dir, "./var");
    cr_assert_eq(load_env(ENV("XDG_DATA_HOME=/x"), "sluice", "--data=/d", "--identity=/k", NULL),
                 0);
    cr_expect_str_eq(c.data_dir, "/d");
    cr_expect_str_eq(c.identity_path, "/k");
}

Test(config_paths, dusk_keeps_its_own)
{
    cr_assert_eq(load_env(ENV("STATE_DIRECTORY=/s", "XDG_DATA_HOME=/data"), "dusk-relay", NULL), 0);
    cr_expect_str_eq(c.identity_path, "/data/dusk-relay/keypair");
    cr_assert_eq(load_env(((char *[]){ "HOME=/tmp", NULL }), "dusk-relay", NULL), 0);
    cr_expect_str_eq(c.identity_path, "/tmp/.local/share/dusk-relay/keypair");
    cr_assert_eq(load_env(((char *[]){ "HOME=/no/such/home", NULL }), "dusk-relay", NULL), 0);
    cr_expect_str_eq(c.identity_path, "./relay_keypair");
}

struct dumped {
    char *argv[512];
    int argc;
};

static void collect(void *arg, const char *line)
{
    struct dumped *d = arg;
    const char *eq = strstr(line, " = ");
    char flag[2048];

    cr_assert_not_null(eq, "%s", line);
    if (!eq[3] || strncmp(line, "check-config", 12) == 0 || strncmp(line, "log-mask", 8) == 0)
        return;
    cr_assert_lt(d->argc, 500);
    snprintf(flag, sizeof(flag), "--%.*s=%s", (int)(eq - line), line, eq + 3);
    d->argv[d->argc++] = strdup(flag);
}

static void append(void *arg, const char *line)
{
    strncat(arg, line, 16384 - strlen(arg) - 2);
    strcat(arg, "\n");
}

/* The dump is the configuration: as flags it gives the same dump again. */
Test(config_dump, reads_back_as_flags)
{
    static struct dumped d;
    static char first[16384], second[16384];

    for (int p = 0; p < 5; p++) {
        d = (struct dumped){ .argv = { "sluice" }, .argc = 1 };
        first[0] = second[0] = '\0';
        cr_assert_eq(LOAD("--preset", config_preset_name((enum preset)p), "--deny=10.0.0.0/8",
                          "--announce=/ip4/1.2.3.4/tcp/5", "--circuit-rate-per-ip=3/60",
                          "--proxy-from=fd00::/8", "--turn-ports=5-9"),
                     0, "%s", said);
        config_dump(&c, append, first);
        config_dump(&c, collect, &d);
        config_free(&c);
        cr_assert_eq(config_load(&c, d.argc, d.argv, no_env), 0);
        config_dump(&c, append, second);
        config_free(&c);
        cr_expect_str_eq(first, second);
        while (d.argc > 1)
            free(d.argv[--d.argc]);
    }
}

Test(config_dump, hides_secrets)
{
    static char text[16384];

    cr_assert_eq(LOAD("--turn-secret=hunter2", "--turn-user=bob:hunter2"), 0);
    config_dump(&c, append, text);
    cr_expect_null(strstr(text, "hunter2"));
    cr_expect_not_null(strstr(text, "turn-secret = ***"));
}

Test(config_files, secrets_and_users_come_from_files_too)
{
    char path[] = "/tmp/sluice-test-XXXXXX";
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    dprintf(fd, "# comment\n\nfrom-file\r\nsecond\n");
    close(fd);
    cr_expect_eq(LOAD("--turn-secret=flag", "--turn-secret-file", path), 0, "%s", said);
    cr_assert_eq(c.turn_secret_n, 3u);
    cr_expect_str_eq(c.turn_secret[0], "flag", "the first signs");
    cr_expect_str_eq(c.turn_secret[1], "from-file");
    cr_expect_eq(LOAD("--turn-users-file", path), 2);
    cr_expect(strstr(said, "line 3") && !strstr(said, "from-file"), "%s", said);
    unlink(path);
    cr_expect_eq(LOAD("--turn-secret-file", path), 2);
    cr_expect(strstr(said, "No such file"), "%s", said);
}

Test(config_files, v6only_where_two_families_share_a_port)
{
    cr_assert_eq(LOAD("--listen-p2p=0.0.0.0:1", "--listen-p2p=[::]:1", "--listen-p2p=[::]:2"), 0);
    cr_expect_not(config_v6only(&c, 0));
    cr_expect(config_v6only(&c, 1));
    cr_expect_not(config_v6only(&c, 2));
}
