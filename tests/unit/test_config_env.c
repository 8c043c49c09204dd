/* Environment, paths, dump and files of engine/config*.c (presets.md, dusk.md §12). */
#include "config_load.h"

TestSuite(config_env, .fini = teardown);
TestSuite(config_paths, .fini = teardown);
TestSuite(config_dump, .fini = teardown);
TestSuite(config_files, .fini = teardown);

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
    cr_expect_eq(c.turn[0].addr.port, 3500);
    cr_expect_eq(c.turn_tcp_port, 3501);
    cr_assert_eq(load_env(env, "dusk-relay", "--listen-turn=127.0.0.1:9", NULL), 0, "%s", said);
    cr_expect_eq(c.turn_tcp_port, 0, "who names the door names both its ports");
    cr_assert_eq(load_env(ENV("DUSK_TURN_UDP_PORT=3500"), "dusk-relay", NULL), 0, "%s", said);
    cr_expect_eq(c.turn_tcp_port, 3478, "each has its own variable and default");
    cr_assert_eq(load_env(env, "dusk-relay", NULL), 0, "%s", said);
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
    cr_assert_eq(load_env(ENV("DUSK_TURN_PUBLIC_IP=0.0.0.0"), "dusk-relay", NULL), 0);
    cr_expect(noted("DUSK_TURN_PUBLIC_IP=0.0.0.0") && c.turn_external_n == 0);
    cr_assert_eq(load_env(ENV("DUSK_TURN_ENABLED=0"), "dusk-relay", NULL), 0);
    cr_expect_not(c.turn_on);
    cr_expect_eq(load_env(ENV("DUSK_RELAY_EXTERNAL_ADDR=relay"), "dusk-relay", NULL), 2);
    cr_expect(strstr(said, "DUSK_RELAY_EXTERNAL_ADDR"), "%s", said);
    cr_expect_eq(load_env(ENV("DUSK_TURN_PORT_RANGE_START=60000", "DUSK_TURN_PORT_RANGE_END=50000"),
                          "dusk-relay", NULL),
                 2);
}

#define RELAY_ID "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"

static const char *peer_relay(unsigned i)
{
    static char text[MADDR_TEXT_MAX];

    if (!maddr_text(maddr_bytes(&c.peer_relay[i]), text, sizeof(text)))
        text[0] = '\0';
    return text;
}

/* dusk.md §10.4. */
Test(config_env, dusk_peer_relays_are_trimmed_and_bad_ones_ignored_aloud)
{
    char **env = ENV("DUSK_PEER_RELAYS= /ip4/192.0.2.7/tcp/4001/p2p/" RELAY_ID
                     " ,nonsense,, /ip4/192.0.2.8/udp/4001,\t/dns4/r.example/tcp/4002");

    cr_assert_eq(load_env(env, "dusk-relay", NULL), 0, "%s", said);
    cr_assert_eq(c.peer_relays_n, 2u);
    cr_expect_str_eq(peer_relay(0), "/ip4/192.0.2.7/tcp/4001/p2p/" RELAY_ID, "its id is kept");
    cr_expect_str_eq(peer_relay(1), "/dns4/r.example/tcp/4002");
    cr_expect(noted("nonsense is ignored") && noted("udp/4001 is ignored"));
    cr_assert_eq(load_env(env, "sluice", NULL), 0, "%s", said);
    cr_expect_eq(c.peer_relays_n, 0u, "a name of the preset's");
    cr_assert_eq(load_env(env, "dusk-relay", "--peer-relay=/ip6/2001:db8::1/tcp/1", NULL), 0);
    cr_assert_eq(c.peer_relays_n, 1u, "a flag is stronger");
    cr_expect_str_eq(peer_relay(0), "/ip6/2001:db8::1/tcp/1");
    cr_assert_eq(load_env(ENV("DUSK_PEER_RELAYS="), "dusk-relay", NULL), 0);
    cr_expect_eq(c.peer_relays_n + c.notes_n, 0u, "empty is unset");
}

Test(config_env, our_own_peer_relay_refuses_a_bad_value)
{
    char many[64 * 20] = "SLUICE_PEER_RELAY=";

    cr_expect_eq(LOAD("--peer-relay=relay.example.org"), 2);
    cr_expect(strstr(said, "--peer-relay"), "%s", said);
    cr_expect_eq(LOAD("--peer-relay=/ip4/192.0.2.7/tcp/0"), 2);
    cr_expect_eq(load_env(ENV("SLUICE_PEER_RELAY=/ip4/192.0.2.7/tcp/1,x"), "sluice", NULL), 2);
    for (int i = 0; i < CONFIG_PEER_RELAYS_MAX; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "/ip4/192.0.2.%d/tcp/1,", i);
    cr_assert_eq(load_env(ENV(many), "sluice", NULL), 0, "%s", said);
    cr_expect_eq(c.peer_relays_n, (unsigned)CONFIG_PEER_RELAYS_MAX);
    strcat(many, "/ip4/192.0.2.77/tcp/1");
    cr_expect_eq(load_env(ENV(many), "sluice", NULL), 2, "one too many");
}

Test(config_env, the_gif_key_is_dusks_and_a_secret)
{
    char text[CONFIG_TEXT_MAX];
    const struct setting *key = setting_find("gif-key");

    cr_assert_eq(load_env(ENV("KLIPY_API_KEY=k1", "KLIPY_TEST_KEY=1"), "dusk-relay", NULL), 0);
    cr_expect_str_eq(c.gif_key, "k1");
    cr_expect_str_eq(c.gif_url, "https://api.klipy.com");
    cr_expect(c.gif_on);
    cr_expect(c.gif_limited);
    setting_text(&c, key, 0, text, sizeof(text));
    cr_expect_str_eq(text, "***");
    cr_assert_eq(load_env(ENV("KLIPY_API_KEY=", "KLIPY_TEST_KEY=yes"), "dusk-relay", NULL), 0);
    cr_expect_str_eq(c.gif_key, "", "empty is unset");
    cr_expect_not(c.gif_limited, "true and 1 alone (dusk.md §9)");
    setting_text(&c, key, 0, text, sizeof(text));
    cr_expect_str_eq(text, "");
    cr_assert_eq(load_env(ENV("KLIPY_TEST_KEY=true"), "dusk-relay", NULL), 0);
    cr_expect(c.gif_limited);
    cr_assert_eq(load_env(ENV("KLIPY_API_KEY=k1"), "sluice", NULL), 0);
    cr_expect_str_eq(c.gif_key, "", "of that preset alone");
    cr_expect_not(c.gif_on);
    cr_assert_eq(load_env(ENV("KLIPY_API_KEY=k1"), "dusk-relay", "--gif-key=k2", NULL), 0);
    cr_expect_str_eq(c.gif_key, "k2", "the flag wins");
}

Test(config_env, the_gif_service_is_reached_by_https)
{
    static const char *const bad[] = { "http://a.example",    "https://",
                                       "a.example",           "https://a/",
                                       "https://u@a.example", "https://a.example?x" };
    char flag[64];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(flag, sizeof(flag), "--gif-url=%s", bad[i]);
        cr_expect_eq(LOAD(flag), 2, "%s", bad[i]);
        cr_expect(strstr(said, "--gif-url="), "%s", said);
    }
    cr_expect_eq(LOAD("--gif-url=https://127.0.0.1:8443/base"), 0, "%s", said);
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
    const struct setting *s;
    char flag[2048], name[64];

    cr_assert_not_null(eq, "%s", line);
    snprintf(name, sizeof(name), "%.*s", (int)(eq - line), line);
    s = setting_find(name);
    if (!eq[3] || (s && s->kind == SET_FLAG)) /* its value cannot be said as a flag */
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
                          "--proxy-from=fd00::/8", "--turn-ports=5000-5009"),
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
    cr_expect_not(config_v6only(c.p2p, c.p2p_n, 0));
    cr_expect(config_v6only(c.p2p, c.p2p_n, 1));
    cr_expect_not(config_v6only(c.p2p, c.p2p_n, 2));
}
