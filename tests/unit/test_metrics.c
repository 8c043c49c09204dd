/* /metrics and /stats.json: the names that dashboards know, every counter, and what promtool's lint
 * asks for (descord.md §5, libp2p.md §11.8). */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/metrics.h"

static struct config cfg;
static struct ops_status st;
static char text[65536], json[65536];
static const char *const field_names[] = {
#define NAME(n) #n,
    STATS_COUNTERS(NAME) STATS_GAUGES(NAME)
};

/* Every field has a value of its own: 1000001, 1000002 ... */
static void setup(void)
{
    _Atomic uint64_t *v = (void *)&st.sum;

    cfg = (struct config){ .circuits_max = 512, .circuits_per_peer_max = 5 };
    cfg.hop.reservations_max = 1024;
    cfg.hop.per_peer_max = 3;
    cfg.hop.reservation_ms = 3600000;
    cfg.circuit_limit = (struct hop_limit){ true, 3600, 104857600 };
    st.config = &cfg;
    st.uptime_ms = 77123;
    st.peers_connected = 41;
    st.peers_reserved = 42;
    st.peers_in_circuits = 43;
    st.shards = 2;
    st.ready = true;
    cr_assert(peer_id_parse(bytes_str("12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"),
                            &st.relay));
    for (size_t i = 0; i < ARRAY_LEN(field_names); i++)
        atomic_store(&v[i], 1000001 + i);
    size_t n = metrics_text(&st, text, sizeof(text));

    cr_assert(n > 0 && n == strlen(text));
}

TestSuite(metrics, .init = setup);

static bool has(const char *line)
{
    for (const char *at = text; (at = strstr(at, line)); at++)
        if (at == text || at[-1] == '\n')
            return true;
    return false;
}

Test(metrics, has_the_five_names_of_descord_live)
{
    char line[96];

    cr_expect(has("relay_uptime_seconds 77\n"));
    cr_expect(has("relay_connected_peers 41\n"));
    cr_expect(has("relay_peers_with_circuits 43\n"));
    cr_expect(has("# TYPE relay_active_circuits gauge\n"));
    snprintf(line, sizeof(line), "relay_active_circuits %llu\n",
             (unsigned long long)STAT_GET(&st.sum, circuits));
    cr_expect(has(line));
    cr_expect(has("# TYPE relay_bandwidth_bytes_total counter\n"));
    snprintf(line, sizeof(line), "relay_bandwidth_bytes_total %llu\n",
             (unsigned long long)(STAT_GET(&st.sum, bytes_src_to_dst) +
                                  STAT_GET(&st.sum, bytes_dst_to_src)));
    cr_expect(has(line));
}

Test(metrics, has_the_names_of_gos_relay_service)
{
    static const char *const names[] = {
        "libp2p_relaysvc_status 1",
        "libp2p_relaysvc_reservations_total{type=\"opened\"}",
        "libp2p_relaysvc_reservations_total{type=\"renewed\"}",
        "libp2p_relaysvc_reservations_total{type=\"closed\"}",
        "libp2p_relaysvc_reservation_request_response_status_total{status=\"ok\"",
        "libp2p_relaysvc_reservation_rejections_total{reason=\"resource limit exceeded\"}",
        "libp2p_relaysvc_connections_total{type=\"opened\"}",
        "libp2p_relaysvc_connections_total{type=\"closed\"}",
        "libp2p_relaysvc_connection_request_response_status_total{status=\"error\",code=\"203\"}",
        "libp2p_relaysvc_connection_rejections_total{reason=\"no reservation\"}",
        "libp2p_relaysvc_connection_duration_seconds_sum",
        "libp2p_relaysvc_connection_duration_seconds_count",
        "libp2p_relaysvc_data_transferred_bytes_total",
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        cr_expect(has(names[i]), "%s", names[i]);
    st.draining = true;
    cr_assert_gt(metrics_text(&st, text, sizeof(text)), 0u);
    cr_expect(has("libp2p_relaysvc_status 0\n"));
}

Test(metrics, reservations_opened_are_those_and_not_answers)
{
    STAT_SET(&st.sum, reserve_ok, 5);
    STAT_SET(&st.sum, reserve_renewed, 1);
    STAT_SET(&st.sum, reserve_opened, 3); /* two RESERVE at once share one */
    STAT_SET(&st.sum, reserve_expired, 1);
    STAT_SET(&st.sum, reserve_closed, 2);
    cr_assert_gt(metrics_text(&st, text, sizeof(text)), 0u);
    cr_expect(has("libp2p_relaysvc_reservations_total{type=\"opened\"} 3\n"));
    cr_expect(has("libp2p_relaysvc_reservations_total{type=\"closed\"} 3\n"));
}

static bool in_train_histogram(const char *name)
{
    return strncmp(name, "turn_train_", 11) == 0 && strcmp(name, "turn_train_in") != 0;
}

Test(metrics, trains_are_a_histogram)
{
    STAT_SET(&st.sum, turn_train_1, 10);
    STAT_SET(&st.sum, turn_train_4, 5);
    STAT_SET(&st.sum, turn_train_16, 2);
    STAT_SET(&st.sum, turn_train_64, 1);
    STAT_SET(&st.sum, turn_train_128, 3);
    STAT_SET(&st.sum, turn_train_datagrams, 99);
    cr_assert_gt(metrics_text(&st, text, sizeof(text)), 0u);
    cr_expect(strstr(text, "# TYPE sluice_turn_train_length histogram\n"
                           "sluice_turn_train_length_bucket{le=\"1\"} 10\n"
                           "sluice_turn_train_length_bucket{le=\"4\"} 15\n"
                           "sluice_turn_train_length_bucket{le=\"16\"} 17\n"
                           "sluice_turn_train_length_bucket{le=\"64\"} 18\n"
                           "sluice_turn_train_length_bucket{le=\"128\"} 21\n"
                           "sluice_turn_train_length_bucket{le=\"+Inf\"} 21\n"
                           "sluice_turn_train_length_sum 99\n"
                           "sluice_turn_train_length_count 21\n"));
}

/* Every field of TURN has a row of its own: none is left to be shown by its internal name. */
Test(metrics, turn_has_names_for_operators)
{
    for (size_t i = 0; i < ARRAY_LEN(field_names); i++) {
        char line[128];

        if (strncmp(field_names[i], "turn_", 5) != 0)
            continue;
        snprintf(line, sizeof(line), "Internal: %s.", field_names[i]);
        cr_expect_null(strstr(text, line), "%s", field_names[i]);
    }
}

/* A counter added to stats.h appears by itself. circuit_ms_total is the sum of durations, and
 * circuits the descord gauge. */
Test(metrics, shows_every_counter_and_gauge)
{
    struct jw j = jw_of(json, sizeof(json));

    jw_open(&j, '{');
    metrics_json(&st, &j);
    jw_close(&j, '}');
    cr_assert_not(j.bad);
    for (size_t i = 0; i < ARRAY_LEN(field_names); i++) {
        char value[32];

        snprintf(value, sizeof(value), " %zu\n", 1000001 + i);
        if (in_train_histogram(field_names[i]))
            continue; /* cumulative: trains_are_a_histogram */
        if (strcmp(field_names[i], "circuit_ms_total") == 0)
            snprintf(value, sizeof(value), "seconds_sum %zu.%03zu\n", (1000001 + i) / 1000,
                     (1000001 + i) % 1000);
        cr_expect(strstr(text, value), "%s is not in /metrics", field_names[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(field_names); i++) {
        char key[96];

        if (strcmp(field_names[i], "conns") == 0)
            break; /* gauges have names of their own */
        snprintf(key, sizeof(key), "\"%s\":%zu", field_names[i], 1000001 + i);
        cr_expect(strstr(json, key), "%s is not in /stats.json", field_names[i]);
    }
}

Test(metrics, labels_name_what_they_count)
{
#define ROW(line, field)                                                                           \
    {                                                                                              \
        line, offsetof(struct stats, field)                                                        \
    }
    static const struct {
        const char *line;
        size_t off;
    } rows[] = {
        ROW("sluice_connections_refused_total{limit=\"total\"}", conns_refused_total),
        ROW("sluice_connections_refused_total{limit=\"ip\"}", conns_refused_ip),
        ROW("sluice_connections_refused_total{limit=\"subnet\"}", conns_refused_subnet),
        ROW("sluice_connections_refused_total{limit=\"peer\"}", conns_refused_peer),
        ROW("sluice_connections_refused_total{limit=\"denied\"}", conns_denied),
        ROW("sluice_handshake_failures_total{stage=\"sniff\"}", sniff_rejects),
        ROW("sluice_handshake_failures_total{stage=\"noise\"}", handshake_fail_noise),
        ROW("sluice_handshake_failures_total{stage=\"muxer\"}", handshake_fail_mux),
        ROW("sluice_handshake_failures_total{stage=\"timeout\"}", handshake_timeouts),
        ROW("sluice_circuits_closed_total{reason=\"limit_bytes\"}", circuits_closed_limit_bytes),
        ROW("sluice_circuits_closed_total{reason=\"limit_time\"}", circuits_closed_limit_time),
        ROW("sluice_circuits_closed_total{reason=\"reset\"}", circuits_closed_reset),
        ROW("sluice_circuit_bytes_total{direction=\"src_to_dst\"}", bytes_src_to_dst),
        ROW("sluice_circuit_bytes_total{direction=\"dst_to_src\"}", bytes_dst_to_src),
        ROW("sluice_reservations_ended_total{cause=\"expired\"}", reserve_expired),
        ROW("sluice_turn_allocations", turn_allocations),
        ROW("sluice_turn_permissions", turn_permissions),
        ROW("sluice_turn_channels", turn_channels),
        ROW("sluice_turn_datagrams_total{side=\"client\",direction=\"in\"}", turn_client_rx),
        ROW("sluice_turn_datagrams_total{side=\"client\",direction=\"out\"}", turn_client_tx),
        ROW("sluice_turn_datagrams_total{side=\"peer\",direction=\"in\"}", turn_peer_rx),
        ROW("sluice_turn_datagrams_total{side=\"peer\",direction=\"out\"}", turn_peer_tx),
        ROW("sluice_turn_bytes_total{side=\"client\",direction=\"in\"}", turn_client_rx_bytes),
        ROW("sluice_turn_bytes_total{side=\"peer\",direction=\"out\"}", turn_peer_tx_bytes),
        ROW("sluice_turn_stream_bytes_total{to=\"peer\"}", turn_tcp_peer_bytes),
        ROW("sluice_turn_errors_total{code=\"401\"}", turn_error_401),
        ROW("sluice_turn_errors_total{code=\"508\"}", turn_error_508),
        ROW("sluice_turn_errors_total{code=\"other\"}", turn_error_other),
        ROW("sluice_turn_dropped_total{cause=\"no_permission\"}", turn_drop_permission),
        ROW("sluice_turn_dropped_total{cause=\"reply_rate\"}", turn_drop_reply_rate),
        ROW("sluice_turn_allocations_closed_total{cause=\"lost\"}", turn_alloc_lost),
        ROW("libp2p_relaysvc_reservation_rejections_total{reason=\"reservation refused\"}",
            reserve_status_200),
        ROW("libp2p_relaysvc_connection_rejections_total{reason=\"no reservation\"}",
            connect_status_204),
        ROW("libp2p_relaysvc_connection_request_response_status_total{status=\"error\",code="
            "\"203\"}",
            connect_status_203),
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char line[256];

        snprintf(line, sizeof(line), "%s %zu\n", rows[i].line,
                 1000001 + rows[i].off / sizeof(uint64_t));
        cr_expect(has(line), "%s", line);
    }
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);

    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* The rules of promtool's lint that a text of ours could break. */
static void lint_name(const char *name, const char *type)
{
    static const char *const units[] = { "s",  "ms", "us", "ns", "sec", "b",
                                         "kb", "mb", "gb", "m",  "h",   "d" };
    char copy[128], *save = NULL;

    cr_expect_eq(strcmp(type, "counter") == 0, ends_with(name, "_total"), "%s is a %s", name, type);
    cr_expect_not(ends_with(name, "_count") || ends_with(name, "_sum") ||
                      ends_with(name, "_bucket"),
                  "%s", name);
    snprintf(copy, sizeof(copy), "%s", name);
    for (char *part = strtok_r(copy, "_", &save); part; part = strtok_r(NULL, "_", &save)) {
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
            cr_expect(strcmp(part, units[i]) != 0, "%s abbreviates a unit", name);
        cr_expect(strcmp(part, "counter") && strcmp(part, "gauge") && strcmp(part, "summary") &&
                      strcmp(part, "histogram"),
                  "%s", name);
    }
    for (const char *p = name; *p; p++)
        cr_expect(islower(*p) || isdigit(*p) || *p == '_', "%s", name);
}

Test(metrics, is_clean_in_promtools_eyes)
{
    static char seen[256][128], samples[512][256];
    unsigned seen_n = 0, samples_n = 0;
    char metric[128] = "", type[16] = "", *save = NULL;
    bool helped = false;

    cr_expect_eq(text[strlen(text) - 1], '\n');
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char name[128], base[128];

        if (strncmp(line, "# HELP ", 7) == 0) {
            cr_assert_eq(sscanf(line, "# HELP %127s", metric), 1);
            cr_expect(strlen(line) > strlen(metric) + 8, "help says nothing: %s", line);
            for (unsigned i = 0; i < seen_n; i++)
                cr_expect(strcmp(seen[i], metric) != 0, "%s comes twice", metric);
            snprintf(seen[seen_n++], sizeof(seen[0]), "%s", metric);
            helped = true;
            continue;
        }
        if (strncmp(line, "# TYPE ", 7) == 0) {
            cr_assert_eq(sscanf(line, "# TYPE %127s %15s", name, type), 2);
            cr_expect_str_eq(name, metric, "type follows help");
            cr_expect(helped);
            lint_name(metric, type);
            continue;
        }
        cr_assert_eq(sscanf(line, "%127[a-z0-9_]", name), 1, "%s", line);
        snprintf(base, sizeof(base), "%s", name);
        if (strcmp(type, "summary") == 0 || strcmp(type, "histogram") == 0)
            *strrchr(base, '_') = '\0';
        cr_expect_str_eq(base, metric, "a sample under its metric: %s", line);
        char *space = strrchr(line, ' ');

        cr_assert_not_null(space);
        for (const char *p = space + 1; *p; p++)
            cr_expect(isdigit(*p) || *p == '.', "%s", line);
        *space = '\0';
        for (unsigned i = 0; i < samples_n; i++)
            cr_expect(strcmp(samples[i], line) != 0, "%s comes twice", line);
        snprintf(samples[samples_n++], sizeof(samples[0]), "%s", line);
    }
    cr_expect_gt(samples_n, ARRAY_LEN(field_names));
}

Test(metrics, knows_when_it_does_not_fit)
{
    size_t whole = strlen(text);

    for (size_t cap = 1; cap <= whole; cap += cap < 64 ? 1 : 97) {
        char *small = malloc(cap);

        cr_expect_eq(metrics_text(&st, small, cap), 0u, "cap %zu of %zu", cap, whole);
        free(small);
    }
    cr_expect_eq(metrics_text(&st, text, whole + 1), whole);
}

/* descord.md check 4: the limits read back. */
Test(metrics, stats_json_has_descords_keys)
{
    struct jw j = jw_of(json, sizeof(json));

    jw_open(&j, '{');
    metrics_json(&st, &j);
    jw_close(&j, '}');
    cr_expect(strstr(json, "\"uptime_seconds\":77,"));
    cr_expect(strstr(json, "\"peers\":41,"));
    cr_expect(strstr(json, "\"bandwidth_bytes\":"));
    cr_expect(strstr(json, "\"turn\":{\"on\":false,\"allocations\":"));
    cr_expect(strstr(json, "\"limits\":{\"max_conns\":0,\"max_reservations\":1024,"
                           "\"max_reservations_per_peer\":3,\"max_circuits\":512,"
                           "\"max_circuits_per_peer\":5,\"circuit_duration_secs\":3600,"
                           "\"circuit_bandwidth_bytes\":104857600,"),
              "%s", json);
}
