/* The daemon's numbers as JSON: /stats.json and `sluicectl status`. */
#include "engine/metrics.h"

static void json_limits(const struct config *c, struct jw *j)
{
    jw_key(j, "limits");
    jw_open(j, '{');
    jw_ku64(j, "max_conns", c->conns_max);
    jw_ku64(j, "max_reservations", c->hop.reservations_max);
    jw_ku64(j, "max_reservations_per_peer", c->hop.per_peer_max);
    jw_ku64(j, "max_circuits", c->circuits_max);
    jw_ku64(j, "max_circuits_per_peer", c->circuits_per_peer_max);
    jw_ku64(j, "circuit_duration_secs", c->circuit_limit.duration_s);
    jw_ku64(j, "circuit_bandwidth_bytes", c->circuit_limit.data_bytes);
    jw_kstr(j, "byte_count", c->byte_count == COUNT_SUM ? "sum" : "per-direction");
    jw_ku64(j, "reservation_secs", c->hop.reservation_ms / 1000);
    jw_ku64(j, "max_turn_allocations", c->turn_max_allocations);
    jw_ku64(j, "max_turn_allocations_per_user", c->turn_max_per_user);
    jw_ku64(j, "max_dig_connections", c->dig_conns_max);
    jw_ku64(j, "idle_timeout_secs", c->idle_timeout_ms / 1000);
    jw_close(j, '}');
}

static void json_turn(const struct ops_status *s, struct jw *j)
{
    const struct stats *st = &s->sum;

    jw_key(j, "turn");
    jw_open(j, '{');
    jw_kbool(j, "on", s->config->turn_on);
    jw_ku64(j, "allocations", STAT_GET(st, turn_allocations));
    jw_ku64(j, "permissions", STAT_GET(st, turn_permissions));
    jw_ku64(j, "channels", STAT_GET(st, turn_channels));
    jw_ku64(j, "peer_connections", STAT_GET(st, turn_tcp_conns));
    jw_ku64(j, "streams", STAT_GET(st, turn_streams));
    jw_ku64(j, "datagrams_from_clients", STAT_GET(st, turn_client_rx));
    jw_ku64(j, "datagrams_to_clients", STAT_GET(st, turn_client_tx));
    jw_ku64(j, "bytes_from_clients", STAT_GET(st, turn_client_rx_bytes));
    jw_ku64(j, "bytes_to_clients", STAT_GET(st, turn_client_tx_bytes));
    jw_key(j, "addresses");
    jw_open(j, '[');
    for (unsigned i = 0; i < s->turn_addresses_n; i++)
        jw_str(j, s->turn_addresses[i]);
    jw_close(j, ']');
    jw_close(j, '}');
}

static void json_dig(const struct ops_status *s, struct jw *j)
{
    const struct stats *st = &s->sum;

    jw_key(j, "dig");
    jw_open(j, '{');
    jw_kbool(j, "on", s->config->dig_on);
    jw_kbool(j, "tls", s->config->dig_tls_on);
    jw_kstr(j, "address", s->dig_address);
    jw_ku64(j, "connections", STAT_GET(st, dig_conns));
    jw_ku64(j, "registered", s->dig_registered);
    jw_ku64(j, "networks", s->dig_networks);
    jw_ku64(j, "messages", STAT_GET(st, dig_messages));
    jw_ku64(j, "relayed", STAT_GET(st, dig_relayed));
    jw_ku64(j, "broadcasts", STAT_GET(st, dig_broadcasts));
    jw_ku64(j, "relayed_bytes", STAT_GET(st, dig_relayed_bytes));
    jw_ku64(j, "lost", STAT_GET(st, dig_lost));
    jw_close(j, '}');
}

static void json_store(const struct ops_status *s, struct jw *j)
{
    const struct ops_store *st = &s->store;

    jw_key(j, "store");
    jw_open(j, '{');
    jw_kbool(j, "on", st->on);
    jw_kbool(j, "refuses", st->refuses);
    jw_ku64(j, "registrations", st->regs);
    jw_ku64(j, "namespaces", st->namespaces);
    jw_ku64(j, "profiles", st->profiles);
    jw_ku64(j, "used_bytes", st->used_bytes);
    jw_ku64(j, "map_bytes", st->map_bytes);
    jw_ku64(j, "commits", st->commits);
    jw_ku64(j, "commits_failed", st->commits_failed);
    jw_close(j, '}');
}

void metrics_json(const struct ops_status *s, struct jw *j)
{
    char id[PEER_TEXT_MAX];

    peer_id_text(&s->relay, id);
    jw_kstr(j, "version", SLUICE_VERSION);
    jw_kstr(j, "preset", config_preset_name(s->config->preset));
    jw_kstr(j, "peer_id", id);
    jw_key(j, "addresses");
    jw_open(j, '[');
    for (unsigned i = 0; i < s->addresses_n; i++)
        jw_str(j, s->addresses[i]);
    jw_close(j, ']');
    jw_ku64(j, "uptime_seconds", s->uptime_ms / 1000);
    jw_kbool(j, "ready", s->ready && !s->draining);
    jw_kbool(j, "draining", s->draining);
    jw_ku64(j, "drain_left_seconds", (s->drain_left_ms + 999) / 1000);
    jw_ku64(j, "shards", s->shards);
    jw_ku64(j, "peers", s->peers_connected);
    jw_ku64(j, "peers_with_reservations", s->peers_reserved);
    jw_ku64(j, "peers_with_circuits", s->peers_in_circuits);
    jw_ku64(j, "peer_relays", s->peer_relays);
    jw_ku64(j, "peer_relays_connected", s->peer_relays_connected);
    jw_ku64(j, "connections", STAT_GET(&s->sum, conns));
    jw_ku64(j, "reservations", STAT_GET(&s->sum, reservations));
    jw_ku64(j, "circuits", STAT_GET(&s->sum, circuits));
    jw_ku64(j, "bandwidth_bytes", metrics_relayed(s));
    jw_ku64(j, "buffer_bytes", STAT_GET(&s->sum, chunk_bytes));
    jw_ku64(j, "buffer_bytes_max", s->chunk_bytes_max);
    json_limits(s->config, j);
    json_turn(s, j);
    json_dig(s, j);
    json_store(s, j);
    jw_key(j, "counters");
    jw_open(j, '{');
    metrics_counters(s, j);
    jw_close(j, '}');
}
