/* Presets and flags of engine/config*.c (presets.md, descord.md §4). */
#include "config_load.h"

TestSuite(config_presets, .fini = teardown);
TestSuite(config_flags, .fini = teardown);

Test(config_presets, default_is_as_presets_md_says)
{
    cr_assert_eq(LOAD0(), 0, "%s", said);
    cr_expect_str_eq(addr(&c.p2p[0]), "[::]:4001");
    cr_expect_eq(c.p2p_n, 1u);
    cr_expect_not(c.p2p[0].named, "a default door may fall back to IPv4");
    cr_expect_str_eq(addr(&c.dig), "[::]:9450");
    cr_expect_str_eq(addr(&c.turn[0]), "[::]:3478");
    cr_expect_str_eq(addr(&c.http), "127.0.0.1:9451");
    cr_expect(c.http_on && c.dig_on && c.turn_on);
    cr_expect_eq(c.hop.reservations_max, 16384u);
    cr_expect_eq(c.hop.per_peer_max, 8u);
    cr_expect_eq(c.circuits_max, 65536u);
    cr_expect_eq(c.circuits_per_peer_max, 64u);
    cr_expect_eq(c.circuits_full, FULL_REFUSE);
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
    cr_expect_eq(c.notes_n, 0u, "nothing to warn of: %s", c.note[0]);
}

Test(config_presets, dusk_is_as_presets_md_says)
{
    cr_assert_eq(LOAD("--preset", "dusk"), 0, "%s", said);
    cr_expect_str_eq(addr(&c.p2p[0]), "0.0.0.0:4001");
    cr_expect_str_eq(addr(&c.turn[0]), "0.0.0.0:3478");
    cr_expect(c.turn_on && !c.dig_on && !c.http_on);
    cr_expect_eq(c.conns_max, 10000u);
    cr_expect_eq(c.hop.reservations_max, 10000u);
    cr_expect_eq(c.hop.per_peer_max, 8u);
    cr_expect_eq(c.circuits_max, 65536u);
    cr_expect_not(c.circuit_limit.present);
    cr_expect_eq(c.hop.full_status, HOP_RESOURCE_LIMIT_EXCEEDED, "201, then close");
    cr_expect_eq(c.circuits_full, FULL_SHED, "its clients dial each other for ever (dusk.md §14)");
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

/* What must be said too, so that an end can be reached at all (dig.md §16: sweep <= liveness <
 * idle timeout). */
static const char *const *beside(const char *name)
{
    static const char *const none[] = { "", "--log-level=info", "--log-level=info" };
    static const char *const rows[][3] = {
        { "dig-sweep-secs", "--dig-liveness-secs=3999999", "--dig-idle-timeout-secs=4000000" },
        { "dig-liveness-secs", "--dig-sweep-secs=1", "--dig-idle-timeout-secs=4000000" },
        { "dig-idle-timeout-secs", "--dig-sweep-secs=1", "--dig-liveness-secs=1" },
        { "dig-max-conns-per-ip", "--dig-max-conns=1000000", "--log-level=info" },
        { "dig-queue-bytes", "--dig-max-message-bytes=1", "--log-level=info" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(name, rows[i][0]) == 0)
            return rows[i];
    return none;
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
            cr_assert_eq(LOAD(beside(s->name)[1], beside(s->name)[2], flag, value), 0, "%s %s: %s",
                         flag, value, said);
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
        { "--turn-ports=2000-1999", "A <= B" },
        { "--turn-ports=1023-2000", "1024 <= A" },
        { "--turn-ports=1024-65536", "65535" },
        { "--listen-turn=turn.example.org:3478", "HOST:PORT with an IP address" },
        { "--turn-external-ip=203.0.113.0/24", "name of a host" },
        { "--turn-external-ip=203.0.113", "name of a host" },
        { "--turn-external-ip=a b", "name of a host" },
        { "--turn-external-ip=203.0.113.7,203.0.113.8", "name of a host" },
        { "--turn-relay-ip=0.0.0.0", "an IP address of this host" },
        { "--turn-relay-ip=::", "an IP address of this host" },
        { "--turn-relay-ip=eth0", "an IP address of this host" },
        { "--turn-alternate=192.0.2.1", "HOST:PORT" },
        { "--turn-alternate=192.0.2.1:3479", "for which --listen-turn names an address" },
        { "--turn-tcp-relay=maybe", "true or false" },
        { "--turn-mobility=yes", "--turn-mobility" },
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
    static const char *const users[][2] = {
        { "--turn-user=nocolonhunter2", "--check-config" },
        { "--turn-user=bob:hunter2\t", "--check-config" },
        { "--turn-user=b\xff:hunter2", "--check-config" },
        { "--turn-user=bob:hunter2", "--turn-user=bob:other" },
        { "--turn-user=bob:hunter2", "--turn-user=bobby" },
    };

    for (size_t i = 0; i < ARRAY_LEN(users); i++) {
        cr_expect_eq(LOAD(users[i][0], users[i][1]), 2, "%s", users[i][0]);
        cr_expect(strstr(said, "--turn-user") && !strstr(said, "hunter2"), "%s", said);
        cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
    }
    cr_expect_eq(LOAD("--turn-user=bob:x", "--turn-user=bobby:y"), 0, "%s", said);
    cr_expect_eq(LOAD("--turn-realm=a\tb"), 2);
    cr_expect(strstr(said, "--turn-realm"), "%s", said);
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
    cr_expect_str_eq(addr(&c.turn[0]), "127.0.0.1:5");
    config_free(&c);
    cr_assert_eq(LOAD("--listen-p2p=/ip4/0.0.0.0/udp/4001/quic-v1"), 0, "%s", said);
    cr_expect_eq(c.p2p_n, 0u);
    cr_expect(noted("quic-v1"), "a transport that is not built is said");
}

static void expect_doors(const char *const *wanted, unsigned n)
{
    struct listen_at at[CONFIG_LISTEN_MAX];

    cr_assert_eq(config_turn_doors(&c, at), n);
    for (unsigned i = 0; i < n; i++)
        cr_expect_str_eq(addr(&at[i]), wanted[i]);
}

Test(config_flags, turn_listens_at_several_addresses)
{
    static const char *const said_twice[] = { "127.0.0.1:0", "[::1]:3478" };

    cr_assert_eq(LOAD("--listen-turn=127.0.0.1:0", "--listen-turn=[::1]:3478"), 0, "%s", said);
    cr_expect_eq(c.turn_n, 2u, "the default is replaced, not added to");
    cr_expect(c.turn_on && c.turn[1].named);
    expect_doors(said_twice, 2);
    cr_assert_eq(LOAD("--listen-turn=off"), 0, "%s", said);
    cr_expect_not(c.turn_on);
    cr_assert_eq(load_env(ENV("SLUICE_LISTEN_TURN=127.0.0.1:1, 127.0.0.1:2"), "sluice", NULL), 0);
    cr_expect_eq(c.turn_n, 2u);
    cr_assert_eq(load_env(ENV("DIG_RELAY_STUN_LISTEN=127.0.0.1:7"), "dig-relay", NULL), 0);
    cr_expect_eq(c.turn_n, 1u);
    cr_expect_str_eq(addr(&c.turn[0]), "127.0.0.1:7");
}

Test(config_flags, a_redirect_names_somebody_else)
{
    cr_assert_eq(LOAD("--turn-redirect=192.0.2.9:3478", "--turn-redirect=[2001:db8::9]:3478"), 0,
                 "%s", said);
    cr_expect_eq(c.turn_redirect_n, 2);
    cr_expect_eq(LOAD("--turn-redirect=192.0.2.9:0"), 2);
    cr_expect(strstr(said, "--turn-redirect=192.0.2.9:0: accepted is IP:PORT"), "%s", said);
    cr_expect_eq(LOAD("--listen-turn=192.0.2.9:7", "--turn-redirect=192.0.2.9:7"), 2);
}

/* RFC 5780 §3: every pair of the two addresses and the two ports. */
Test(config_flags, an_alternate_opens_all_four_pairs)
{
    static const char *const four[] = { "192.0.2.1:3478", "192.0.2.2:3478", "192.0.2.1:3479",
                                        "192.0.2.2:3479" };
    static const char *const eight[] = { "192.0.2.1:1",     "[2001:db8::1]:3", "192.0.2.2:1",
                                         "192.0.2.1:2",     "192.0.2.2:2",     "[2001:db8::2]:3",
                                         "[2001:db8::1]:4", "[2001:db8::2]:4" };

    cr_assert_eq(LOAD("--listen-turn=192.0.2.1:3478", "--turn-alternate=192.0.2.2:3479"), 0, "%s",
                 said);
    expect_doors(four, 4);
    cr_assert_eq(LOAD("--listen-turn=192.0.2.1:3478", "--listen-turn=192.0.2.2:3479",
                      "--turn-alternate=192.0.2.2:3479"),
                 0, "%s", said);
    cr_assert_eq(LOAD("--listen-turn=192.0.2.1:1", "--listen-turn=[2001:db8::1]:3",
                      "--turn-alternate=192.0.2.2:2", "--turn-alternate=[2001:db8::2]:4"),
                 0, "%s", said);
    expect_doors(eight, 8);
}

Test(config_flags, an_alternate_that_cannot_be_is_refused)
{
    static const char *const bad[][2] = {
        { "--listen-turn=[::]:3478", "--turn-alternate=192.0.2.2:3479" },
        { "--listen-turn=0.0.0.0:3478", "--turn-alternate=192.0.2.2:3479" },
        { "--listen-turn=[2001:db8::1]:3478", "--turn-alternate=192.0.2.2:3479" },
        { "--listen-turn=192.0.2.1:3478", "--turn-alternate=192.0.2.2:3478" },
        { "--listen-turn=192.0.2.1:3478", "--turn-alternate=192.0.2.1:3479" },
        { "--listen-turn=192.0.2.1:3478", "--turn-alternate=0.0.0.0:3479" },
        { "--listen-turn=192.0.2.1:0", "--turn-alternate=192.0.2.2:3479" },
        { "--listen-turn=192.0.2.1:3478", "--turn-alternate=192.0.2.2:0" },
        { "--listen-turn=off", "--turn-alternate=192.0.2.2:3479" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_expect_eq(LOAD(bad[i][0], bad[i][1]), 2, "%s %s", bad[i][0], bad[i][1]);
        cr_expect(strstr(said, "--turn-alternate"), "%s", said);
    }
    cr_expect_eq(LOAD("--listen-turn=192.0.2.1:1", "--turn-alternate=192.0.2.2:2",
                      "--turn-alternate=192.0.2.3:3"),
                 2);
    cr_expect(strstr(said, "one per family"), "%s", said);
}

Test(config_flags, turn_settings_have_their_defaults_and_take_values)
{
    cr_assert_eq(LOAD0(), 0, "%s", said);
    cr_expect_eq(c.turn_lifetime_secs, 3600u);
    cr_expect_eq(c.turn_nonce_secs, 600u);
    cr_expect_eq(c.turn_replies_per_ip, 50u);
    cr_expect(c.turn_tcp_relay);
    cr_expect_not(c.turn_mobility || c.turn_strict_expiry || c.turn_compat_channels ||
                  c.turn_classic);
    cr_expect_eq(c.turn_max_per_ip + c.turn_bps_per_allocation + c.turn_bps_per_user, 0u);
    cr_assert_eq(LOAD("--turn-mobility", "--turn-strict-expiry", "--turn-compat-channels",
                      "--turn-classic", "--turn-tcp-relay=off", "--turn-external-ip=203.0.113.7",
                      "--turn-external-ip=turn.example.org", "--turn-relay-ip=10.0.0.2",
                      "--turn-relay-ip=fd00::2"),
                 0, "%s", said);
    cr_expect(c.turn_mobility && c.turn_strict_expiry && c.turn_compat_channels && c.turn_classic);
    cr_expect_not(c.turn_tcp_relay);
    cr_expect_eq(c.turn_relay_ip_n, 2u);
    cr_expect_str_eq(c.turn_external[1], "turn.example.org");
    cr_expect_eq(LOAD("--turn-external-ip=203.0.113.7", "--turn-external-ip=203.0.113.8"), 2);
    cr_expect(strstr(said, "one of each"), "%s", said);
    cr_expect_eq(LOAD("--turn-relay-ip=fd00::7", "--turn-relay-ip=fd00::8"), 2);
}

Test(config_flags, passwords_are_wiped_and_names_stay)
{
    cr_assert_eq(LOAD("--turn-user=alice:hunter2:x", "--turn-user=bob:b"), 0, "%s", said);
    config_wipe_users(&c);
    cr_expect_str_eq(c.turn_user[0], "alice:");
    for (size_t i = 6; i < sizeof(c.turn_user[0]); i++)
        cr_expect_eq(c.turn_user[0][i], 0);
    cr_expect_str_eq(c.turn_user[1], "bob:");
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
