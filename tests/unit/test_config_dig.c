/* dig-relay's own spelling, defaults, refusals and service of engine/config_dig.c (dig.md §16, §17;
 * presets.md column dig). */
#include "config_load.h"

TestSuite(config_dig, .fini = teardown);

#define DIG(...) load_env(no_env, "/usr/bin/dig-relay", __VA_ARGS__, NULL)

Test(config_dig, defaults_are_as_the_table_says)
{
    cr_assert_eq(load_env(no_env, "dig-relay", NULL), 0, "%s", said);
    cr_expect_eq(c.preset, PRESET_DIG);
    cr_expect_str_eq(addr(&c.dig), "[::]:9450");
    cr_expect_str_eq(addr(&c.http), "[::]:9451");
    cr_expect_str_eq(addr(&c.turn[0]), "[::]:3478");
    cr_expect_str_eq(addr(&c.dig_redirect), "[::]:8080");
    cr_expect(c.dig_on && c.http_on && c.turn_on && c.dig_redirect_on);
    cr_expect_eq(c.p2p_n, 0u);
    cr_expect_eq(c.dig_conns_max, 4096u);
    cr_expect_eq(c.dig_idle_timeout_ms, 120000u);
    cr_expect_eq(c.dig_register_timeout_ms, 10000u);
    cr_expect_eq(c.dig_queue_messages_max, 1024u);
    cr_expect_eq(c.dig_message_bytes_max, 262144u);
    cr_expect_eq(c.dig_sweep_interval_ms, 30000u);
    cr_expect_eq(c.dig_liveness_ms, 90000u);
    cr_expect_eq(c.dig_conns_per_ip_max, 64u);
    cr_expect_eq(c.dig_registers_per_ip, 10u);
    cr_expect_eq(c.dig_registrations_per_ip_max, 128u);
    cr_expect_eq(c.dig_messages_per_conn, 256u);
    cr_expect_eq(c.dig_bytes_per_conn, 1048576u);
    cr_expect_eq(c.dig_bytes_per_conn_max, 1073741824u);
    cr_expect_eq(c.dig_ban_threshold, 20u);
    cr_expect_eq(c.dig_ban_ms, 300000u);
    cr_expect_eq(c.dig_ban_window_ms, 60000u);
    cr_expect_eq(c.turn_replies_per_ip, 5u);
    cr_expect_eq(c.turn_replies_total, 1000u);
    cr_expect(c.turn_udp_only, "presets.md: 3478/udp");
    cr_expect(c.turn_binding_dig && !c.dig_tls_on && c.dig_tls_client == DIG_TLS_REQUIRED);
    cr_expect(!c.dig_hex_ids_only && !c.dig_foreign_lists && !c.dig_punch_strict);
    cr_expect_eq(c.proxy_from_n, 0u);
    cr_expect_str_eq(c.dig_geoip_path, "/opt/dig-relay/geoip/dbip-city-lite.mmdb");
    cr_expect_eq(c.verb, VERB_SERVE);
    cr_expect_eq(c.notes_n, 0u, "%s", c.note[0]);
}

/* dig.md §21 "Payload mismatch", "Life-time cap": elsewhere a 1 MiB payload passes. */
Test(config_dig, without_the_preset_nothing_that_is_legal_is_refused)
{
    cr_assert_eq(LOAD0(), 0, "%s", said);
    cr_expect_geq(c.dig_message_bytes_max, 4300000u);
    cr_expect_geq(c.dig_queue_bytes_max, c.dig_message_bytes_max);
    cr_expect_eq(c.dig_bytes_per_conn + c.dig_bytes_per_conn_max, 0u);
    cr_expect_eq(c.dig_conns_per_ip_max + c.dig_registrations_per_ip_max, 0u);
    cr_expect_eq(c.dig_registers_per_ip + c.dig_ban_threshold, 0u);
    cr_expect_eq(c.dig_tls_client, DIG_TLS_OPTIONAL);
    cr_expect(!c.turn_udp_only && !c.turn_binding_dig && !c.dig_redirect_on &&
              c.turn_replies_total == 0);
}

/* Flag and variable of each row of dig.md §16 with a value of its own. */
static const struct row {
    const char *flag, *env, *setting, *value;
} rows[] = {
    { "listen", "DIG_RELAY_LISTEN", "listen-dig", "127.0.0.1:1" },
    { "health-listen", "DIG_RELAY_HEALTH_LISTEN", "listen-http", "127.0.0.1:2" },
    { "stun-listen", "DIG_RELAY_STUN_LISTEN", "listen-turn", "127.0.0.1:3" },
    { "dashboard-listen", "DIG_RELAY_DASHBOARD_LISTEN", "listen-redirect", "127.0.0.1:4" },
    { "max-connections", "DIG_RELAY_MAX_CONNECTIONS", "dig-max-conns", "4001" },
    { "idle-timeout-secs", NULL, "dig-idle-timeout-secs", "121" },
    { "register-timeout-secs", "DIG_RELAY_REGISTER_TIMEOUT_SECS", "dig-register-timeout-secs",
      "7" },
    { "outbound-queue-capacity", "DIG_RELAY_OUTBOUND_QUEUE_CAPACITY", "dig-queue-messages", "8" },
    { "max-message-bytes", "DIG_RELAY_MAX_MESSAGE_BYTES", "dig-max-message-bytes", "9" },
    { "health-check-interval-secs", "DIG_RELAY_HEALTH_CHECK_INTERVAL_SECS", "dig-sweep-secs",
      "10" },
    { "liveness-deadline-secs", "DIG_RELAY_LIVENESS_DEADLINE_SECS", "dig-liveness-secs", "31" },
    { "max-connections-per-ip", "DIG_RELAY_MAX_CONNECTIONS_PER_IP", "dig-max-conns-per-ip", "12" },
    { "registrations-per-ip-per-sec", "DIG_RELAY_REGISTRATIONS_PER_IP_PER_SEC",
      "dig-registers-per-ip", "13" },
    { "max-registrations-per-ip", "DIG_RELAY_MAX_REGISTRATIONS_PER_IP",
      "dig-max-registrations-per-ip", "14" },
    { "messages-per-conn-per-sec", "DIG_RELAY_MESSAGES_PER_CONN_PER_SEC", "dig-messages-per-conn",
      "15" },
    { "bytes-per-conn-per-sec", "DIG_RELAY_BYTES_PER_CONN_PER_SEC", "dig-bytes-per-conn", "16" },
    { "max-relayed-bytes-per-conn", "DIG_RELAY_MAX_RELAYED_BYTES_PER_CONN",
      "dig-max-bytes-per-conn", "17" },
    { "ban-threshold", "DIG_RELAY_BAN_THRESHOLD", "dig-ban-strikes", "18" },
    { "ban-duration-secs", "DIG_RELAY_BAN_DURATION_SECS", "dig-ban-secs", "19" },
    { "ban-strike-window-secs", "DIG_RELAY_BAN_STRIKE_WINDOW_SECS", "dig-ban-window-secs", "21" },
    { "stun-per-ip-rps", "DIG_RELAY_STUN_PER_IP_RPS", "turn-replies-per-ip", "22" },
    { "stun-global-rps", "DIG_RELAY_STUN_GLOBAL_RPS", "turn-replies-total", "23" },
    { NULL, "DIG_RELAY_TRUSTED_PROXY_CIDRS", "proxy-from", "10.0.0.0/8" },
    { NULL, "DIG_RELAY_GEOIP_DB", "dig-geoip-db", "/srv/geo.mmdb" },
};

static const char *value_of(const char *setting)
{
    static char text[CONFIG_PATH_MAX];
    const struct setting *s = setting_find(setting);

    cr_assert(s, "%s", setting);
    text[0] = '\0';
    if (setting_elements(&c, s))
        setting_text(&c, s, 0, text, sizeof(text));
    return text;
}

Test(config_dig, every_flag_and_variable_is_understood_and_the_flag_wins)
{
    cr_assert_eq(config_dig_names_n, ARRAY_LEN(rows) + 2, "and the two of TLS");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        char env[128] = "A=b", other[128] = "A=b", flag[128];
        bool number = r->value[0] >= '0' && r->value[0] <= '9' && !strpbrk(r->value, ".:");

        if (r->env) {
            snprintf(env, sizeof(env), "%s=%s", r->env, r->value);
            cr_assert_eq(load_env(ENV(env), "dig-relay", NULL), 0, "%s: %s", env, said);
            cr_expect_str_eq(value_of(r->setting), r->value, "%s", env);
            cr_assert_eq(load_env(ENV(env), "sluice", NULL), 0, "%s: %s", env, said);
            cr_expect_str_neq(value_of(r->setting), r->value, "no other preset reads it: %s", env);
        }
        if (!r->flag)
            continue;
        snprintf(other, sizeof(other), "%s=%s", r->env ? r->env : "A",
                 number ? "99" : "127.0.0.1:99");
        snprintf(flag, sizeof(flag), "--%s=%s", r->flag, r->value);
        cr_assert_eq(load_env(ENV(other), "sluice", "--preset", "dig", flag, NULL), 0, "%s: %s",
                     flag, said);
        cr_expect_str_eq(value_of(r->setting), r->value, "%s over %s", flag, other);
    }
}

/* dig.md check 59. */
Test(config_dig, a_bad_number_in_the_environment_is_ignored_and_on_the_command_line_refused)
{
    cr_assert_eq(load_env(ENV("DIG_RELAY_MAX_CONNECTIONS=lots", "DIG_RELAY_STUN_LISTEN=nowhere",
                              "DIG_RELAY_LISTEN=9450", "DIG_RELAY_BAN_THRESHOLD=-1",
                              "DIG_RELAY_MAX_MESSAGE_BYTES=99999999999999999999"),
                          "dig-relay", NULL),
                 0, "%s", said);
    cr_expect_eq(c.dig_conns_max, 4096u);
    cr_expect_eq(c.dig_ban_threshold, 20u);
    cr_expect_eq(c.dig_message_bytes_max, 262144u);
    cr_expect_str_eq(addr(&c.dig), "[::]:9450");
    cr_assert_eq(c.turn_n, 1u, "a bad address must not close the door");
    cr_expect_str_eq(addr(&c.turn[0]), "[::]:3478");
    cr_expect(noted("DIG_RELAY_MAX_CONNECTIONS=lots") && noted("DIG_RELAY_STUN_LISTEN=nowhere"));
    cr_expect_eq(c.notes_n, 5u);
    cr_expect_eq(DIG("--max-connections", "lots"), 2);
    cr_expect(strstr(said, "--max-connections=lots"), "%s", said);
    cr_expect_eq(DIG("--listen", "9450"), 2);
    cr_expect_eq(DIG("--listen"), 2);
    cr_expect(strstr(said, "--listen needs a value"), "%s", said);
    cr_expect_eq(DIG("--no-such"), 2);
}

Test(config_dig, numbers_beyond_ours_are_the_most_that_we_can)
{
    cr_assert_eq(load_env(ENV("DIG_RELAY_MAX_CONNECTIONS=18446744073709551615"), "dig-relay",
                          "--idle-timeout-secs=99999999999", NULL),
                 0, "%s", said);
    cr_expect_eq(c.dig_conns_max, 1000000u);
    cr_expect_eq(c.notes_n, 2u);
    cr_expect_eq(c.dig_idle_timeout_ms, 4000000000u);
    cr_expect(noted("max-connections") && noted("idle-timeout-secs"));
}

/* dig.md §13, check 59: who is trusted is not guessed. */
Test(config_dig, the_proxy_list_is_exact_or_nothing_starts)
{
    cr_assert_eq(load_env(ENV("DIG_RELAY_TRUSTED_PROXY_CIDRS= 10.0.0.0/8 ,, 192.0.2.7,fd00::/8 "),
                          "dig-relay", NULL),
                 0, "%s", said);
    cr_expect_eq(c.proxy_from_n, 3u);
    cr_assert_eq(load_env(ENV("DIG_RELAY_TRUSTED_PROXY_CIDRS=::/0, ,::ffff:10.0.0.0/104,192.0.2.7,"
                              "::ffff:1.2.3.4"),
                          "dig-relay", NULL),
                 0, "%s", said);
    cr_expect_eq(c.proxy_from_n, 2u, "a mapped base is nobody's");
    cr_expect(noted("::ffff:10.0.0.0/104 matches nobody") && noted("::ffff:1.2.3.4"));
    cr_expect(!cidr_is4(&c.proxy_from[0]) && cidr_is4(&c.proxy_from[1]));
    cr_expect_eq(
        load_env(ENV("DIG_RELAY_TRUSTED_PROXY_CIDRS=10.0.0.0/8,nobody"), "dig-relay", NULL), 2);
    cr_expect(strstr(said, "DIG_RELAY_TRUSTED_PROXY_CIDRS"), "%s", said);
    cr_expect_eq(load_env(ENV("DIG_RELAY_TRUSTED_PROXY_CIDRS=10.0.0.0/33"), "dig-relay", NULL), 2);
}

/* dig.md §16 "Rejected configurations", check 58. */
Test(config_dig, what_the_original_refuses_is_refused_with_2_and_a_line)
{
    static const struct {
        const char *arg[2], *says;
    } bad[] = {
        { { "--max-connections=0" }, "--max-connections" },
        { { "--idle-timeout-secs=0" }, "--idle-timeout-secs" },
        { { "--outbound-queue-capacity=0" }, "--outbound-queue-capacity" },
        { { "--max-message-bytes=0" }, "--max-message-bytes" },
        { { "--register-timeout-secs=0" }, "--register-timeout-secs" },
        { { "--health-check-interval-secs=0" }, "--health-check-interval-secs" },
        { { "--liveness-deadline-secs=0" }, "--liveness-deadline-secs" },
        { { "--liveness-deadline-secs=29" }, "--health-check-interval-secs" },
        { { "--liveness-deadline-secs=120" }, "--idle-timeout-secs" },
        { { "--idle-timeout-secs=90" }, "--idle-timeout-secs" },
        { { "--tls-cert=/c.pem" }, "--tls-key" },
        { { "--tls-key=/k.pem" }, "--tls-cert" },
        { { "--max-connections=10" }, "--max-connections-per-ip" },
        { { "--ban-duration-secs=0" }, "--ban-duration-secs" },
        { { "--ban-strike-window-secs=0" }, "--ban-strike-window-secs" },
        { { "--dig-queue-bytes=262143" }, "--max-message-bytes" },
    };
    static const char *const good[][2] = {
        { "--max-connections=10", "--max-connections-per-ip=10" },
        { "--max-connections=2", "--max-connections-per-ip=0" },
        { "--liveness-deadline-secs=30", "--idle-timeout-secs=31" },
        { "--ban-duration-secs=0", "--ban-threshold=0" },
        { "--ban-strike-window-secs=0", "--ban-threshold=0" },
        { "--tls-cert=/c.pem", "--tls-key=/k.pem" },
        { "--max-message-bytes=16777216", "--json" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_expect_eq(DIG(bad[i].arg[0]), 2, "%s was accepted", bad[i].arg[0]);
        cr_expect(strstr(said, bad[i].says), "%s: %s", bad[i].arg[0], said);
        cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
    }
    cr_expect_eq(load_env(ENV("DIG_RELAY_MAX_CONNECTIONS=0"), "dig-relay", NULL), 2,
                 "a 0 in the environment is understood, and refused: %s", said);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        cr_expect_eq(DIG(good[i][0], good[i][1]), 0, "%s %s: %s", good[i][0], good[i][1], said);
        cr_expect_geq(c.dig_queue_bytes_max, c.dig_message_bytes_max,
                      "what comes may be passed on");
    }
    cr_assert_eq(DIG("--tls-cert=/c.pem", "--tls-key=/k.pem"), 0, "%s", said);
    cr_expect(c.dig_tls_on);
}

Test(config_dig, zero_switches_the_optional_limits_off)
{
    cr_assert_eq(DIG("--max-connections-per-ip=0", "--registrations-per-ip-per-sec=0",
                     "--max-registrations-per-ip=0", "--messages-per-conn-per-sec=0",
                     "--bytes-per-conn-per-sec=0", "--max-relayed-bytes-per-conn=0",
                     "--ban-threshold=0", "--stun-per-ip-rps=0", "--stun-global-rps=0"),
                 0, "%s", said);
    cr_expect_eq(c.dig_conns_per_ip_max + c.dig_registers_per_ip + c.dig_registrations_per_ip_max +
                     c.dig_messages_per_conn + c.dig_ban_threshold + c.turn_replies_per_ip +
                     c.turn_replies_total,
                 0u);
    cr_expect_eq(c.dig_bytes_per_conn + c.dig_bytes_per_conn_max, 0u);
}

Test(config_dig, commands_and_options_come_in_any_order)
{
    static const struct {
        const char *word;
        enum service_verb verb;
    } verbs[] = { { "serve", VERB_SERVE },     { "run-service", VERB_SERVE },
                  { "install", VERB_INSTALL }, { "uninstall", VERB_UNINSTALL },
                  { "start", VERB_START },     { "stop", VERB_STOP },
                  { "status", VERB_STATUS } };

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        cr_assert_eq(DIG("--max-connections", "99", verbs[i].word, "--json", "--scope=user"), 0,
                     "%s", said);
        cr_expect_eq(c.verb, verbs[i].verb, "%s", verbs[i].word);
        cr_expect(c.service_json && c.service_scope == SCOPE_USER && c.dig_conns_max == 99);
        cr_assert_eq(DIG("--scope", "system", verbs[i].word), 0, "%s", said);
        cr_expect(!c.service_json && c.service_scope == SCOPE_SYSTEM);
    }
    cr_expect_eq(DIG("explode"), 2);
    cr_expect(strstr(said, "explode") && strstr(said, "uninstall"), "%s", said);
    cr_expect_not(strstr(said, "run-service"), "it is hidden");
    cr_expect_eq(DIG("serve", "serve"), 2);
    cr_expect_eq(DIG("serve", "status", "stop"), 2);
    cr_expect_eq(DIG("status", "--scope=all"), 2);
    cr_expect(strstr(said, "auto, system, user"), "%s", said);
}

Test(config_dig, its_names_are_nobody_elses)
{
    cr_expect_eq(LOAD("--max-connections", "99"), 2);
    cr_expect(strstr(said, "--max-connections"), "%s", said);
    cr_expect_eq(LOAD("--json"), 2);
    cr_expect_eq(LOAD("--scope", "user"), 2);
    cr_expect_eq(LOAD("status"), 2);
    cr_expect_eq(load_env(no_env, "descord-relay", "serve", NULL), 2);
    /* One name of both: whose it is, the preset says. */
    cr_assert_eq(LOAD("--idle-timeout-secs=200"), 0, "%s", said);
    cr_expect(c.idle_timeout_ms == 200000 && c.dig_idle_timeout_ms == 120000);
    cr_assert_eq(DIG("--idle-timeout-secs=200"), 0, "%s", said);
    cr_expect(c.idle_timeout_ms == 120000 && c.dig_idle_timeout_ms == 200000);
}

/* dig.md check 58. */
Test(config_dig, help_lists_six_commands_and_version_is_one_line)
{
    static const char *const words[] = {
        "serve", "install", "uninstall", "start", "stop", "status"
    };

    for (int how = 0; how < 3; how++) {
        cr_assert_eq(how == 0   ? DIG("--help")
                     : how == 1 ? DIG("help")
                                : LOAD("--preset=dig", "help", "install"),
                     -1, "%s", said);
        for (size_t i = 0; i < ARRAY_LEN(words); i++) {
            char line[32];

            snprintf(line, sizeof(line), "\n  %s ", words[i]);
            cr_expect(strstr(said, line), "%s in %s", words[i], said);
        }
        cr_expect_not(strstr(said, "run-service"));
        for (size_t i = 0; i < config_dig_names_n; i++)
            cr_expect(!config_dig_names[i].flag || strstr(said, config_dig_names[i].flag), "%s",
                      config_dig_names[i].flag);
    }
    cr_assert_eq(DIG("--version"), -1);
    cr_expect_str_eq(said, "dig-relay " SLUICE_VERSION "\n");
    cr_assert_eq(LOAD("--help"), -1);
    cr_expect(strstr(said, "--dig-max-conns") && !strstr(said, "--max-connections "), "%s", said);
}

/* ---- the environment of a unit (§17) ------------------------------------------------------- */

static char unit[16384];

static void add_line(void *arg, const char *name, const char *value)
{
    size_t n = strlen(unit);

    (void)arg;
    snprintf(unit + n, sizeof(unit) - n, "%s=%s\n", name, value);
}

static int unit_of_c(char *why, size_t cap)
{
    unit[0] = why[0] = '\0';
    return config_dig_service(&c, add_line, NULL, why, cap);
}

Test(config_dig, a_unit_says_addresses_limits_and_whatever_was_said)
{
    static const char always[] = "SLUICE_PRESET=dig\n"
                                 "DIG_RELAY_LISTEN=[::]:9450\n"
                                 "DIG_RELAY_STUN_LISTEN=[::]:3478\n"
                                 "DIG_RELAY_HEALTH_LISTEN=[::]:9451\n"
                                 "DIG_RELAY_DASHBOARD_LISTEN=[::]:8080\n"
                                 "DIG_RELAY_MAX_CONNECTIONS=4096\n"
                                 "DIG_RELAY_MAX_CONNECTIONS_PER_IP=64\n"
                                 "DIG_RELAY_REGISTRATIONS_PER_IP_PER_SEC=10\n"
                                 "DIG_RELAY_MAX_REGISTRATIONS_PER_IP=128\n"
                                 "DIG_RELAY_MESSAGES_PER_CONN_PER_SEC=256\n"
                                 "DIG_RELAY_BYTES_PER_CONN_PER_SEC=1048576\n"
                                 "DIG_RELAY_MAX_RELAYED_BYTES_PER_CONN=1073741824\n"
                                 "DIG_RELAY_BAN_THRESHOLD=20\n"
                                 "DIG_RELAY_BAN_DURATION_SECS=300\n"
                                 "DIG_RELAY_BAN_STRIKE_WINDOW_SECS=60\n";
    char why[256], here[1024], path[1200];

    cr_assert_eq(DIG("install"), 0, "%s", said);
    cr_assert_eq(unit_of_c(why, sizeof(why)), 0, "%s", why);
    cr_expect_str_eq(unit, always);
    cr_assert_eq(load_env(ENV("DIG_RELAY_TRUSTED_PROXY_CIDRS=10.0.0.0/8,192.0.2.7",
                              "DIG_RELAY_STUN_GLOBAL_RPS=7", "RUST_LOG=debug"),
                          "dig-relay", "install", "--tls-cert=c.pem", "--tls-key=/k.pem",
                          "--idle-timeout-secs=300", "--max-message-bytes=5", "--dig-hex-ids",
                          "--turn-ports=5000-6000", NULL),
                 0, "%s", said);
    cr_assert_eq(unit_of_c(why, sizeof(why)), 0, "%s", why);
    cr_assert(getcwd(here, sizeof(here)));
    snprintf(path, sizeof(path), "\nDIG_RELAY_TLS_CERT_PATH=%s/c.pem\n", here);
    cr_expect(strstr(unit, path), "%s not in %s", path, unit);
    static const char *const lines[] = {
        "\nDIG_RELAY_TLS_KEY_PATH=/k.pem\n",
        "\nDIG_RELAY_TRUSTED_PROXY_CIDRS=10.0.0.0/8,192.0.2.7/32\n",
        "\nDIG_RELAY_STUN_GLOBAL_RPS=7\n",
        "\nSLUICE_LOG_LEVEL=debug\n",
        "\nSLUICE_DIG_IDLE_TIMEOUT_SECS=300\n",
        "\nDIG_RELAY_MAX_MESSAGE_BYTES=5\n",
        "\nSLUICE_DIG_HEX_IDS=true\n",
        "\nSLUICE_TURN_PORTS=5000-6000\n"
    };

    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        cr_expect(strstr(unit, lines[i]), "%s not in %s", lines[i], unit);
}

/* What a unit says is what the relay then is. */
Test(config_dig, a_unit_is_read_back_as_it_was_meant)
{
    char why[256], *env[64] = { "HOME=/" };
    unsigned n = 1;

    cr_assert_eq(DIG("install", "--stun-listen=off", "--idle-timeout-secs=300", "--listen=[::1]:7",
                     "--max-connections=77", "--stun-per-ip-rps=0", "--drain-secs=3",
                     "--dig-tls-client=off", "--announce=/ip4/192.0.2.1/tcp/1"),
                 0, "%s", said);
    cr_assert_eq(unit_of_c(why, sizeof(why)), 0, "%s", why);
    for (char *line = strtok(unit, "\n"); line; line = strtok(NULL, "\n"))
        env[n++] = line;
    cr_assert_eq(load_env(env, "any-name", NULL), 0, "%s", said);
    cr_expect_eq(c.preset, PRESET_DIG);
    cr_expect(!c.turn_on && c.dig_idle_timeout_ms == 300000 && c.dig_conns_max == 77);
    cr_expect_str_eq(addr(&c.dig), "[::1]:7");
    cr_expect(c.dig.named && !c.http.named, "a default that is written is still a default");
    cr_expect(c.turn_replies_per_ip == 0 && c.drain_s == 3 && c.dig_tls_client == DIG_TLS_OFF);
    cr_expect_eq(c.announce_n, 1u);
    cr_expect_eq(c.notes_n, 0u, "%s", c.note[0]);
}

Test(config_dig, a_unit_keeps_no_secrets_and_no_second_lines)
{
    char why[256];

    cr_assert_eq(DIG("install", "--turn-secret=hush"), 0, "%s", said);
    cr_expect_neq(unit_of_c(why, sizeof(why)), 0);
    cr_expect(strstr(why, "--turn-secret-file") && !strstr(why, "hush"), "%s", why);
    cr_assert_eq(DIG("install", "--turn-user=a:hush"), 0, "%s", said);
    cr_expect_neq(unit_of_c(why, sizeof(why)), 0);
    cr_expect(strstr(why, "--turn-users-file"), "%s", why);
    cr_assert_eq(DIG("install", "--dig-geoip-db=/a\nExecStartPre=/bin/x"), 0, "%s", said);
    cr_expect_neq(unit_of_c(why, sizeof(why)), 0);
    cr_expect_not(strstr(unit, "ExecStartPre"), "%s", unit);
}
