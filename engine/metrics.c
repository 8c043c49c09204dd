/* engine/metrics.c: one table says where each counter of stats.h is shown. A counter that it does
 * not name is shown by its own name, so that a new one cannot be forgotten. */
#include "engine/metrics.h"

#include <inttypes.h>
#include <stdio.h>

#include "engine/textbuf.h"

/* One sample. Rows of one metric stand together; the first has its help and type. */
struct sample {
    const char *metric, *type, *help;
    const char *label; /* NAME="VALUE", or NULL */
    size_t off;        /* in struct stats */
};

#define IN(field) offsetof(struct stats, field)
#define MORE(lb, field)                                                                            \
    {                                                                                              \
        NULL, NULL, NULL, lb, IN(field)                                                            \
    }

/* Status words as go-libp2p's dashboard knows them: ok, rejected, error (libp2p.md §11.8). */
static const struct sample samples[] = {
    { "libp2p_relaysvc_reservation_request_response_status_total", "counter",
      "Answers to RESERVE by status.", "status=\"ok\",code=\"100\"", IN(reserve_ok) },
    MORE("status=\"rejected\",code=\"200\"", reserve_status_200),
    MORE("status=\"rejected\",code=\"201\"", reserve_status_201),
    MORE("status=\"rejected\",code=\"202\"", reserve_status_202),
    MORE("status=\"rejected\",code=\"400\"", reserve_status_400),
    { "libp2p_relaysvc_reservation_rejections_total", "counter", "Refused reservations by reason.",
      "reason=\"reservation refused\"", IN(reserve_status_200) },
    MORE("reason=\"resource limit exceeded\"", reserve_status_201),
    MORE("reason=\"permission denied\"", reserve_status_202),
    MORE("reason=\"malformed message\"", reserve_status_400),
    { "libp2p_relaysvc_connection_request_response_status_total", "counter",
      "Answers to CONNECT by status.", "status=\"ok\",code=\"100\"", IN(connect_ok) },
    MORE("status=\"rejected\",code=\"201\"", connect_status_201),
    MORE("status=\"rejected\",code=\"202\"", connect_status_202),
    MORE("status=\"error\",code=\"203\"", connect_status_203),
    MORE("status=\"rejected\",code=\"204\"", connect_status_204),
    MORE("status=\"rejected\",code=\"400\"", connect_status_400),
    MORE("status=\"error\",code=\"401\"", connect_status_401),
    { "libp2p_relaysvc_connection_rejections_total", "counter", "Refused circuits by reason.",
      "reason=\"resource limit exceeded\"", IN(connect_status_201) },
    MORE("reason=\"permission denied\"", connect_status_202),
    MORE("reason=\"connection failed\"", connect_status_203),
    MORE("reason=\"no reservation\"", connect_status_204),
    MORE("reason=\"malformed message\"", connect_status_400),
    MORE("reason=\"unexpected message\"", connect_status_401),
    { "sluice_circuit_requests_cancelled_total", "counter",
      "CONNECT whose source left before the target answered.", NULL, IN(connect_cancelled) },

    { "sluice_dials_total", "counter", "Attempts to reach a peer relay.", NULL, IN(dials) },
    { "sluice_dials_failed_total", "counter", "Those that came to nothing.", NULL,
      IN(dials_failed) },

    { "sluice_reservations", "gauge", "Reservations that are held now.", NULL, IN(reservations) },
    { "sluice_reservations_renewed_total", "counter", "Reservations refreshed on their connection.",
      NULL, IN(reserve_renewed) },
    { "sluice_reservations_ended_total", "counter", "Reservations that ended, by cause.",
      "cause=\"expired\"", IN(reserve_expired) },
    MORE("cause=\"closed\"", reserve_closed),
    { "sluice_circuits_opened_total", "counter", "Circuits opened.", NULL, IN(circuits_opened) },
    { "sluice_circuits_closed_total", "counter", "Circuits closed, by reason.", "reason=\"normal\"",
      IN(circuits_closed_normal) },
    MORE("reason=\"reset\"", circuits_closed_reset),
    MORE("reason=\"limit_bytes\"", circuits_closed_limit_bytes),
    MORE("reason=\"limit_time\"", circuits_closed_limit_time),
    MORE("reason=\"drain\"", circuits_closed_drain),
    MORE("reason=\"memory\"", circuits_closed_nomem),
    { "sluice_circuit_bytes_total", "counter", "Payload bytes relayed in circuits, by direction.",
      "direction=\"src_to_dst\"", IN(bytes_src_to_dst) },
    MORE("direction=\"dst_to_src\"", bytes_dst_to_src),

    { "sluice_connections", "gauge", "Open connections.", "transport=\"tcp\"", IN(conns) },
    { "sluice_connections_secured", "gauge", "Connections whose peer is known.", NULL,
      IN(conns_secured) },
    { "sluice_connections_accepted_total", "counter", "Connections accepted.", "transport=\"tcp\"",
      IN(conns_accepted) },
    { "sluice_connections_closed_total", "counter", "Connections closed.", "transport=\"tcp\"",
      IN(conns_closed) },
    { "sluice_connections_refused_total", "counter", "Connections refused, by the limit met.",
      "limit=\"total\"", IN(conns_refused_total) },
    MORE("limit=\"ip\"", conns_refused_ip),
    MORE("limit=\"subnet\"", conns_refused_subnet),
    MORE("limit=\"peer\"", conns_refused_peer),
    MORE("limit=\"denied\"", conns_denied),
    { "sluice_connections_ended_total", "counter", "Connections that we ended, by cause.",
      "cause=\"idle\"", IN(conns_idle_closed) },
    MORE("cause=\"slow\"", slow_closed),
    MORE("cause=\"yamux\"", yamux_errors),
    MORE("cause=\"record\"", record_errors),
    MORE("cause=\"ping_flood\"", ping_floods),
    { "sluice_accept_errors_total", "counter",
      "accept that failed, for want of descriptors mostly.", NULL, IN(accept_errors) },
    { "sluice_handshakes_total", "counter", "Handshakes completed.", NULL, IN(handshakes_ok) },
    { "sluice_handshake_failures_total", "counter", "Handshakes that failed, by stage.",
      "stage=\"sniff\"", IN(sniff_rejects) },
    MORE("stage=\"proxy\"", proxy_rejects),
    MORE("stage=\"multistream\"", handshake_fail_mss),
    MORE("stage=\"noise\"", handshake_fail_noise),
    MORE("stage=\"muxer\"", handshake_fail_mux),
    MORE("stage=\"timeout\"", handshake_timeouts),
    { "sluice_streams", "gauge", "Open streams.", NULL, IN(streams) },
    { "sluice_queue_bytes", "gauge", "Bytes that wait to be sent.", NULL, IN(tx_queued) },
    { "sluice_buffer_bytes", "gauge", "Memory of slow peers' payload in use.", NULL,
      IN(chunk_bytes) },
    { "sluice_network_bytes_total", "counter", "Bytes on sockets, with all overhead.",
      "direction=\"in\"", IN(rx_bytes) },
    MORE("direction=\"out\"", tx_bytes),
    { "sluice_records_total", "counter", "Encrypted records.", "direction=\"in\"", IN(rx_records) },
    MORE("direction=\"out\"", tx_records),

    { "sluice_requests_total", "counter", "Request-response exchanges begun.", NULL,
      IN(rpc_requests) },
    { "sluice_requests_failed_total", "counter", "Those that ended without an answer, by cause.",
      "cause=\"limit\"", IN(rpc_refused) },
    MORE("cause=\"malformed\"", rpc_malformed),
    { "sluice_rendezvous_total", "counter", "Rendezvous requests, by what was done.",
      "event=\"registered\"", IN(rdv_registered) },
    MORE("event=\"unregistered\"", rdv_unregistered),
    MORE("event=\"discovered\"", rdv_discovers),
    MORE("event=\"refused\"", rdv_refused),
    { "sluice_rendezvous_records_total", "counter", "Registrations handed out.", NULL,
      IN(rdv_records) },
    { "sluice_directory_total", "counter", "Directory requests, by kind.", "event=\"registered\"",
      IN(directory_registered) },
    MORE("event=\"removed\"", directory_removed),
    MORE("event=\"searched\"", directory_searches),
    { "sluice_turn_credentials_issued_total", "counter", "TURN credentials given to peers.", NULL,
      IN(credentials_issued) },
    { "sluice_gif_requests_total", "counter", "Gif searches.", NULL, IN(gif_requests) },

    { "sluice_turn_allocations", "gauge", "TURN allocations held now.", NULL,
      IN(turn_allocations) },
    { "sluice_turn_permissions", "gauge", "Permissions of all allocations.", NULL,
      IN(turn_permissions) },
    { "sluice_turn_channels", "gauge", "Channels bound in all allocations.", NULL,
      IN(turn_channels) },
    { "sluice_turn_peer_connections", "gauge", "TCP connections with peers (RFC 6062).", NULL,
      IN(turn_tcp_conns) },
    { "sluice_turn_streams", "gauge", "TCP connections of clients.", NULL, IN(turn_streams) },
    { "sluice_turn_streams_accepted_total", "counter", "TCP connections of clients accepted.", NULL,
      IN(turn_streams_accepted) },
    { "sluice_turn_streams_closed_total", "counter", "TCP connections of clients closed.", NULL,
      IN(turn_streams_closed) },
    { "sluice_turn_streams_ended_total", "counter",
      "TCP connections of clients that we ended, by cause.", "cause=\"timeout\"",
      IN(turn_stream_timeouts) },
    MORE("cause=\"framing\"", turn_stream_bad),
    MORE("cause=\"tls\"", turn_stream_tls),
    MORE("cause=\"stranger\"", turn_stream_strange),
    MORE("cause=\"hoard\"", turn_stream_hoard),
    { "sluice_turn_peer_connections_total", "counter",
      "TCP connections with peers, by what happened.", "event=\"connected\"",
      IN(turn_tcp_connected) },
    MORE("event=\"accepted\"", turn_tcp_incoming),
    MORE("event=\"refused\"", turn_tcp_refused),
    MORE("event=\"joined\"", turn_tcp_joined),
    MORE("event=\"spliced\"", turn_tcp_bulk),
    { "sluice_turn_bindings_total", "counter", "STUN Binding requests answered.", NULL,
      IN(turn_bindings) },
    { "sluice_turn_allocations_opened_total", "counter", "Allocations granted.", NULL,
      IN(turn_allocated) },
    { "sluice_turn_allocations_closed_total", "counter", "Allocations ended, by cause.",
      "cause=\"expired\"", IN(turn_alloc_expired) },
    MORE("cause=\"released\"", turn_alloc_released),
    MORE("cause=\"lost\"", turn_alloc_lost),
    { "sluice_turn_allocations_failed_total", "counter",
      "Allocations that could not be made for want of a port, a socket or a quota.", NULL,
      IN(turn_alloc_failed) },
    { "sluice_turn_datagrams_total", "counter",
      "Datagrams of allocations, by who is at the other end.", "side=\"client\",direction=\"in\"",
      IN(turn_client_rx) },
    MORE("side=\"client\",direction=\"out\"", turn_client_tx),
    MORE("side=\"peer\",direction=\"in\"", turn_peer_rx),
    MORE("side=\"peer\",direction=\"out\"", turn_peer_tx),
    { "sluice_turn_bytes_total", "counter",
      "Payload bytes in datagrams of allocations, by who is at the other end.",
      "side=\"client\",direction=\"in\"", IN(turn_client_rx_bytes) },
    MORE("side=\"client\",direction=\"out\"", turn_client_tx_bytes),
    MORE("side=\"peer\",direction=\"in\"", turn_peer_rx_bytes),
    MORE("side=\"peer\",direction=\"out\"", turn_peer_tx_bytes),
    { "sluice_turn_stream_bytes_total", "counter",
      "Bytes of data connections (RFC 6062), by where they went.", "to=\"peer\"",
      IN(turn_tcp_peer_bytes) },
    MORE("to=\"client\"", turn_tcp_client_bytes),
    { "sluice_turn_icmp_reports_total", "counter", "ICMP errors told to clients.", NULL,
      IN(turn_icmp_told) },
    { "sluice_turn_errors_total", "counter", "Error responses, by code.", "code=\"300\"",
      IN(turn_error_300) },
    MORE("code=\"400\"", turn_error_400),
    MORE("code=\"401\"", turn_error_401),
    MORE("code=\"403\"", turn_error_403),
    MORE("code=\"420\"", turn_error_420),
    MORE("code=\"437\"", turn_error_437),
    MORE("code=\"438\"", turn_error_438),
    MORE("code=\"440\"", turn_error_440),
    MORE("code=\"441\"", turn_error_441),
    MORE("code=\"442\"", turn_error_442),
    MORE("code=\"443\"", turn_error_443),
    MORE("code=\"446\"", turn_error_446),
    MORE("code=\"447\"", turn_error_447),
    MORE("code=\"486\"", turn_error_486),
    MORE("code=\"508\"", turn_error_508),
    MORE("code=\"other\"", turn_error_other),
    { "sluice_turn_dropped_total", "counter", "What was neither answered nor carried, by cause.",
      "cause=\"foreign\"", IN(turn_drop_foreign) },
    MORE("cause=\"malformed\"", turn_drop_malformed),
    MORE("cause=\"fingerprint\"", turn_drop_fingerprint),
    MORE("cause=\"class\"", turn_drop_class),
    MORE("cause=\"method\"", turn_drop_method),
    MORE("cause=\"unknown_attribute\"", turn_drop_unknown),
    MORE("cause=\"no_allocation\"", turn_drop_allocation),
    MORE("cause=\"no_permission\"", turn_drop_permission),
    MORE("cause=\"no_channel\"", turn_drop_channel),
    MORE("cause=\"peer_refused\"", turn_drop_peer),
    MORE("cause=\"pending\"", turn_drop_pending),
    MORE("cause=\"client_away\"", turn_drop_lost),
    MORE("cause=\"for_streams\"", turn_drop_stream),
    MORE("cause=\"no_room\"", turn_drop_room),
    MORE("cause=\"reply_rate\"", turn_drop_reply_rate),
    MORE("cause=\"bandwidth\"", turn_drop_bandwidth),
    MORE("cause=\"send_failed\"", turn_drop_send),
    MORE("cause=\"slow_client\"", turn_drop_slow),
    MORE("cause=\"mailbox\"", turn_drop_mail),
    MORE("cause=\"truncated\"", turn_drop_truncated),
    { "sluice_turn_trains_received_total", "counter", "Trains of datagrams taken by one receive.",
      NULL, IN(turn_train_in) },
    { "sluice_turn_offload_refusals_total", "counter",
      "Trains that the kernel would not segment; they went singly.", NULL, IN(turn_gso_refused) },
    { "sluice_turn_mailed_total", "counter", "Messages handed to the shard of their allocation.",
      NULL, IN(turn_mailed) },

    { "sluice_dig_connections", "gauge", "Connections of the DIG door now.", NULL, IN(dig_conns) },
    { "sluice_dig_connections_accepted_total", "counter", "Connections accepted.", NULL,
      IN(dig_accepted) },
    { "sluice_dig_connections_closed_total", "counter", "Connections closed.", NULL,
      IN(dig_closed) },
    { "sluice_dig_connections_ended_total", "counter",
      "Connections that the relay ended, by cause.", "cause=\"timeout\"", IN(dig_timeouts) },
    MORE("cause=\"silent\"", dig_swept),
    MORE("cause=\"flood\"", dig_floods),
    MORE("cause=\"hoard\"", dig_hoard),
    MORE("cause=\"request_head\"", dig_bad_heads),
    MORE("cause=\"websocket\"", dig_bad_frames),
    MORE("cause=\"tls\"", dig_tls_failed),
    MORE("cause=\"registration\"", dig_refused),
    { "sluice_dig_tls_handshakes_total", "counter", "TLS handshakes that succeeded.", NULL,
      IN(dig_tls_ok) },
    { "sluice_dig_http_requests_total", "counter", "Requests that were no upgrade.", NULL,
      IN(dig_http) },
    { "sluice_dig_messages_total", "counter", "Data messages received.", NULL, IN(dig_messages) },
    { "sluice_dig_errors_total", "counter", "Error replies.", NULL, IN(dig_errors) },
    { "sluice_dig_relayed_total", "counter", "relay_message delivered or queued.", NULL,
      IN(dig_relayed) },
    { "sluice_dig_relayed_bytes_total", "counter",
      "Payload bytes of relay_message and broadcast, once each.", NULL, IN(dig_relayed_bytes) },
    { "sluice_dig_broadcasts_total", "counter", "Broadcasts delivered or queued.", NULL,
      IN(dig_broadcasts) },
    { "sluice_dig_held_total", "counter", "Messages that waited for room in a queue.", NULL,
      IN(dig_held) },
    { "sluice_dig_lost_total", "counter", "What was dropped because nobody read it, by kind.",
      "kind=\"message\"", IN(dig_lost) },
    MORE("kind=\"presence\"", dig_presence_lost),
    { "sluice_dig_mailed_total", "counter", "Messages handed to the shard of their target.", NULL,
      IN(dig_mailed) },
    { "sluice_dig_hole_punch_total", "counter", "Hole punching, by what was asked or reported.",
      "event=\"request\"", IN(dig_punch_requests) },
    MORE("event=\"success\"", dig_punch_successes),
    MORE("event=\"failure\"", dig_punch_failures),
    MORE("event=\"dropped\"", dig_punch_dropped),
};

#define AS_COUNTER(name) { #name, offsetof(struct stats, name), true },
#define AS_GAUGE(name) { #name, offsetof(struct stats, name), false },
static const struct {
    const char *name;
    size_t off;
    bool counter;
} fields[] = { STATS_COUNTERS(AS_COUNTER) STATS_GAUGES(AS_GAUGE) };

static void put_head(struct textbuf *t, const char *metric, const char *type, const char *help)
{
    textbuf_put(t, "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
}

static void put_one(struct textbuf *t, const char *metric, const char *type, const char *help,
                    uint64_t v)
{
    put_head(t, metric, type, help);
    textbuf_put(t, "%s %" PRIu64 "\n", metric, v);
}

static uint64_t value_at(const struct stats *s, size_t off)
{
    const _Atomic uint64_t *at = (const void *)((const char *)s + off);

    return atomic_load_explicit(at, memory_order_relaxed);
}

uint64_t metrics_relayed(const struct ops_status *s)
{
    return STAT_GET(&s->sum, bytes_src_to_dst) + STAT_GET(&s->sum, bytes_dst_to_src);
}

/* descord.md §5. Uptime is a gauge: promtool accepts a counter only by the name of _total, and the
 * name is given. */
static void put_descord(const struct ops_status *s, struct textbuf *t)
{
    put_one(t, "relay_uptime_seconds", "gauge", "Seconds since the relay started.",
            s->uptime_ms / 1000);
    put_one(t, "relay_connected_peers", "gauge", "Distinct peers connected.", s->peers_connected);
    put_one(t, "relay_peers_with_reservations", "gauge", "Distinct peers with a reservation.",
            s->peers_reserved);
    put_one(t, "relay_peers_with_circuits", "gauge", "Distinct peers in a circuit.",
            s->peers_in_circuits);
    put_one(t, "relay_active_circuits", "gauge", "Circuits open now.", STAT_GET(&s->sum, circuits));
    put_one(t, "relay_bandwidth_bytes_total", "counter", "Payload bytes relayed, both directions.",
            metrics_relayed(s));
}

/* What go-libp2p's relay service counts in its own way (libp2p.md §11.8). An OK is not a
 * reservation opened: several may answer one, and a connection that ends takes its OK along. */
static void put_relaysvc(const struct ops_status *s, struct textbuf *t)
{
    const struct stats *st = &s->sum;
    uint64_t closed = STAT_GET(st, circuits_closed_normal) + STAT_GET(st, circuits_closed_reset) +
                      STAT_GET(st, circuits_closed_limit_bytes) +
                      STAT_GET(st, circuits_closed_limit_time) +
                      STAT_GET(st, circuits_closed_drain) + STAT_GET(st, circuits_closed_nomem);
    uint64_t ms = STAT_GET(st, circuit_ms_total);

    put_one(t, "libp2p_relaysvc_status", "gauge", "1 while reservations are given.",
            s->ready && !s->draining);
    put_head(t, "libp2p_relaysvc_reservations_total", "counter", "Reservations by what happened.");
    textbuf_put(t, "libp2p_relaysvc_reservations_total{type=\"opened\"} %" PRIu64 "\n",
                STAT_GET(st, reserve_opened));
    textbuf_put(t, "libp2p_relaysvc_reservations_total{type=\"renewed\"} %" PRIu64 "\n",
                STAT_GET(st, reserve_renewed));
    textbuf_put(t, "libp2p_relaysvc_reservations_total{type=\"closed\"} %" PRIu64 "\n",
                STAT_GET(st, reserve_expired) + STAT_GET(st, reserve_closed));
    put_head(t, "libp2p_relaysvc_connections_total", "counter", "Circuits by what happened.");
    textbuf_put(t, "libp2p_relaysvc_connections_total{type=\"opened\"} %" PRIu64 "\n",
                STAT_GET(st, circuits_opened));
    textbuf_put(t, "libp2p_relaysvc_connections_total{type=\"closed\"} %" PRIu64 "\n", closed);
    put_head(t, "libp2p_relaysvc_connection_duration_seconds", "summary",
             "How long circuits lasted.");
    textbuf_put(t, "libp2p_relaysvc_connection_duration_seconds_sum %" PRIu64 ".%03u\n", ms / 1000,
                (unsigned)(ms % 1000));
    textbuf_put(t, "libp2p_relaysvc_connection_duration_seconds_count %" PRIu64 "\n", closed);
    put_one(t, "libp2p_relaysvc_data_transferred_bytes_total", "counter",
            "Payload bytes relayed, both directions.", metrics_relayed(s));
}

/* Sends to clients and peers by how many datagrams each carried, as a histogram of our own buckets;
 * the sum is of datagrams, so that sum by count is the mean length. */
static const struct {
    const char *le;
    size_t off;
} trains[] = { { "1", IN(turn_train_1) },
               { "4", IN(turn_train_4) },
               { "16", IN(turn_train_16) },
               { "64", IN(turn_train_64) },
               { "128", IN(turn_train_128) } };

static void put_turn(const struct ops_status *s, struct textbuf *t)
{
    uint64_t sends = 0;

    put_head(t, "sluice_turn_train_length", "histogram", "Datagrams that one send carried.");
    for (size_t i = 0; i < ARRAY_LEN(trains); i++) {
        sends += value_at(&s->sum, trains[i].off);
        textbuf_put(t, "sluice_turn_train_length_bucket{le=\"%s\"} %" PRIu64 "\n", trains[i].le,
                    sends);
    }
    textbuf_put(t, "sluice_turn_train_length_bucket{le=\"+Inf\"} %" PRIu64 "\n", sends);
    textbuf_put(t, "sluice_turn_train_length_sum %" PRIu64 "\n",
                STAT_GET(&s->sum, turn_train_datagrams));
    textbuf_put(t, "sluice_turn_train_length_count %" PRIu64 "\n", sends);
    put_one(t, "sluice_turn_allocations_limit", "gauge", "TURN allocations at most; 0: no limit.",
            s->config->turn_max_allocations);
}

static void put_dig(const struct ops_status *s, struct textbuf *t)
{
    put_one(t, "sluice_dig_registered", "gauge", "Nodes registered with the DIG relay now.",
            s->dig_registered);
    put_one(t, "sluice_dig_networks", "gauge", "Networks that have a node registered.",
            s->dig_networks);
    put_one(t, "sluice_dig_connections_limit", "gauge", "Connections of the DIG door at most.",
            s->config->dig_conns_max);
}

static void put_store(const struct ops_status *s, struct textbuf *t)
{
    const struct ops_store *st = &s->store;

    if (!st->on)
        return;
    put_one(t, "sluice_store_registrations", "gauge", "Rendezvous registrations that are kept.",
            st->regs);
    put_one(t, "sluice_store_namespaces", "gauge", "Namespaces they are in.", st->namespaces);
    put_one(t, "sluice_store_profiles", "gauge", "Profiles in the directory.", st->profiles);
    put_one(t, "sluice_store_used_bytes", "gauge", "Bytes of the store's pages in use.",
            st->used_bytes);
    put_one(t, "sluice_store_limit_bytes", "gauge", "Bytes that the store may take.",
            st->map_bytes);
    put_one(t, "sluice_store_refuses", "gauge",
            "1 while the store is so full that only deletions are taken.", st->refuses);
    put_one(t, "sluice_store_commits_total", "counter", "Transactions committed.", st->commits);
    put_one(t, "sluice_store_commits_failed_total", "counter",
            "Transactions that could not be committed.", st->commits_failed);
    put_one(t, "sluice_store_refused_total", "counter", "Writes refused for want of room.",
            st->refused_room);
    put_one(t, "sluice_store_asks_total", "counter", "Requests to the store's thread.", st->asks);
    put_head(t, "sluice_store_commit_seconds", "summary", "How long commits took.");
    textbuf_put(t, "sluice_store_commit_seconds_sum %.6f\n", (double)st->commit_ns / 1e9);
    textbuf_put(t, "sluice_store_commit_seconds_count %" PRIu64 "\n",
                st->commits + st->commits_failed);
}

static bool shown_elsewhere(size_t off)
{
    if (off == IN(circuit_ms_total) || off == IN(circuits) || off == IN(reserve_opened) ||
        off == IN(turn_train_datagrams))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(trains); i++)
        if (trains[i].off == off)
            return true;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++)
        if (samples[i].off == off)
            return true;
    return false;
}

static void put_rest(const struct ops_status *s, struct textbuf *t)
{
    char name[96], help[96];

    put_head(t, "sluice_info", "gauge", "Version; always 1.");
    textbuf_put(t, "sluice_info{version=\"%s\",preset=\"%s\"} 1\n", SLUICE_VERSION,
                config_preset_name(s->config->preset));
    put_one(t, "sluice_shards", "gauge", "Threads that serve.", s->shards);
    put_one(t, "sluice_draining", "gauge", "1 after SIGTERM or drain.", s->draining);
    put_one(t, "sluice_peer_relays", "gauge", "Relays that this one keeps a connection to.",
            s->peer_relays);
    put_one(t, "sluice_peer_relays_connected", "gauge", "Those that are connected.",
            s->peer_relays_connected);
    put_one(t, "sluice_buffer_limit_bytes", "gauge", "Memory that slow peers' payload may use.",
            s->chunk_bytes_max);
    put_one(t, "sluice_reservations_limit", "gauge", "Reservations at most.",
            s->config->hop.reservations_max);
    put_one(t, "sluice_circuits_limit", "gauge", "Circuits at most.", s->config->circuits_max);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (shown_elsewhere(fields[i].off))
            continue;
        snprintf(name, sizeof(name), "sluice_%s%s", fields[i].name,
                 fields[i].counter ? "_total" : "");
        snprintf(help, sizeof(help), "Internal: %s.", fields[i].name);
        put_one(t, name, fields[i].counter ? "counter" : "gauge", help,
                value_at(&s->sum, fields[i].off));
    }
}

size_t metrics_text(const struct ops_status *s, char *out, size_t cap)
{
    struct textbuf t = { out, 0, cap, false };
    const char *metric = NULL;

    put_descord(s, &t);
    put_relaysvc(s, &t);
    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        const struct sample *m = &samples[i];
        uint64_t v = value_at(&s->sum, m->off);

        if (m->metric) {
            metric = m->metric;
            put_head(&t, metric, m->type, m->help);
        }
        if (m->label)
            textbuf_put(&t, "%s{%s} %" PRIu64 "\n", metric, m->label, v);
        else
            textbuf_put(&t, "%s %" PRIu64 "\n", metric, v);
    }
    put_turn(s, &t);
    put_dig(s, &t);
    put_store(s, &t);
    put_rest(s, &t);
    return t.bad ? 0 : t.n;
}

void metrics_counters(const struct ops_status *s, struct jw *j)
{
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (fields[i].counter)
            jw_ku64(j, fields[i].name, value_at(&s->sum, fields[i].off));
}
