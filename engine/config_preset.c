/* engine/config_preset.c: defaults, and what each preset changes (presets.md, one row each). */
#include "engine/config_int.h"

#include <stdio.h>
#include <strings.h>

#include "store/store.h"

static const char *const preset_names[] = { "none", "dusk", "dig", "descord", "turn" };

const char *config_preset_name(enum preset p)
{
    return preset_names[p];
}

bool preset_parse(const char *name, enum preset *out)
{
    for (size_t i = 0; i < ARRAY_LEN(preset_names); i++) {
        if (strcmp(name, preset_names[i]) == 0) {
            *out = (enum preset)i;
            return true;
        }
    }
    return false;
}

/* An operator swaps a binary and nothing else: the name it is called by is the preset. */
enum preset preset_of_program(const char *argv0)
{
    const char *base = argv0 ? strrchr(argv0, '/') : NULL;

    base = base ? base + 1 : argv0 ? argv0 : "";
    if (strcmp(base, "dusk-relay") == 0)
        return PRESET_DUSK;
    if (strcmp(base, "dig-relay") == 0)
        return PRESET_DIG;
    if (strcmp(base, "descord-relay") == 0)
        return PRESET_DESCORD;
    return PRESET_NONE;
}

static struct listen_at at4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    return (struct listen_at){ .addr = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d },
                                         port } };
}

/* [::], which answers IPv4 too; not named, so a host without IPv6 gets 0.0.0.0. */
static struct listen_at at_all(uint16_t port)
{
    return (struct listen_at){ .addr = { .port = port } };
}

/* Where the original's limits would cost honest nodes their reservation (dig.md §21 "Payload
 * mismatch", "Life-time cap"), these are wider: a payload of 1 MiB is up to 4.3 MB of JSON, and
 * back-pressure, not a budget, is what slows who sends more than others read. */
static void dig_defaults(struct config *c)
{
    c->dig_conns_max = 65536;
    c->dig_message_bytes_max = 4608 * 1024;
    c->dig_messages_per_conn = 16384;
    c->dig_queue_messages_max = 1024;
    c->dig_queue_bytes_max = (uint64_t)8 << 20;
    c->dig_register_timeout_ms = 10000;
    c->dig_idle_timeout_ms = 120000;
    c->dig_sweep_interval_ms = 30000;
    c->dig_liveness_ms = 90000;
    c->dig_ban_ms = 300000;
    c->dig_ban_window_ms = 60000;
    c->dig_tls_client = DIG_TLS_OPTIONAL;
    snprintf(c->dig_geoip_path, sizeof(c->dig_geoip_path),
             "/opt/dig-relay/geoip/dbip-city-lite.mmdb");
}

void preset_defaults(struct config *c)
{
    c->p2p[0] = at_all(4001);
    c->p2p_n = 1;
    c->dig = at_all(9450);
    c->turn[0] = at_all(3478);
    c->turn_n = 1;
    c->http = at4(127, 0, 0, 1, 9451);
    c->dig_on = c->http_on = true;

    c->log_level = LOG_INFO;
    c->drain_s = 8;
    c->stats_interval_s = 60;

    /* Limits per address are off until asked for. Behind a load balancer without PROXY protocol, a
     * rootless container or a carrier's NAT a whole city has one address; a limit that nobody asked
     * for would look like an outage there. The total and the limits per peer always hold. */
    c->conns_max = 65536;
    c->conns_per_peer_max = 64;
    c->handshake_timeout_ms = 10000;
    c->idle_timeout_ms = 120000;
    c->streams_per_conn_max = 512;

    c->hop = (struct hop_limits){
        .reservations_max = 16384,
        .per_peer_max = 8,
        .reservation_ms = 3600u * 1000,
        .peer_refill_ms = 120000,
        .ip_refill_ms = 60000,
        .full_status = HOP_RESERVATION_REFUSED,
    };
    c->circuits_max = 65536;
    c->circuits_per_peer_max = 64;
    c->connect_peer_refill_ms = 120000;
    c->connect_ip_refill_ms = 60000;
    c->handshake_refill_ms = 1000;
    c->stop_timeout_ms = 10000;
    c->linger_ms = 60000;
    c->buffer_bytes_max = (uint64_t)512 << 20;

    c->rendezvous_on = c->directory_on = c->usage_on = true;
    c->store_bytes_max = STORE_MAP_DEFAULT;
    c->rdv = rdv_rules_default;
    c->directory_max = 1 << 20;
    snprintf(c->gif_url, sizeof(c->gif_url), "https://api.klipy.com");

    c->ident_protocol_version = "ipfs/0.1.0";
    snprintf(c->ident_agent, sizeof(c->ident_agent), "sluice/%s", SLUICE_VERSION);
    c->advertise_on_dht = false;
    c->advertise_interval_s = 300;

    snprintf(c->turn_realm, sizeof(c->turn_realm), "sluice");
    c->turn_port_lo = 49152;
    c->turn_port_hi = 65535;
    c->turn_lifetime_secs = 3600; /* turn.md §9.3 */
    c->turn_nonce_secs = 600;
    /* Room for a house behind one address that calls all at once, and for its ICE; a source that is
     * forged gets 50 x 100 bytes a second out of us. */
    c->turn_replies_per_ip = 50;
    c->turn_tcp_relay = true;
    dig_defaults(c);
}

static void preset_dusk(struct config *c)
{
    /* IPv4 as upstream: `relay address: /ip4/0.0.0.0/tcp/4001/...` is read by people's scripts. */
    c->p2p[0] = at4(0, 0, 0, 0, 4001);
    c->turn[0] = at4(0, 0, 0, 0, 3478);
    c->dig_on = c->http_on = false;
    c->drain_s = 3; /* so that all of an end takes less than 5 s (dusk.md §13, check 63) */
    c->conns_max = 10000;
    c->circuits_full = FULL_SHED; /* its clients pile them up, one a pair every two minutes */
    c->hop.reservations_max = 10000;
    c->hop.full_status = HOP_RESOURCE_LIMIT_EXCEEDED;
    c->idle_timeout_ms = 300000;
    c->ident_protocol_version = "/dusk/relay/1.0.0";
    c->turn_max_allocations = 1000;
    c->turn_max_per_user = 10;
    c->rdv = rdv_rules_dusk;
    c->gif_on = c->gossip_on = true;
    snprintf(c->turn_realm, sizeof(c->turn_realm), "duskchat.app");
}

static void preset_dig(struct config *c)
{
    c->p2p_n = 0;
    c->http = at_all(9451);
    c->http_health_only = true;
    c->conns_max = 4096; /* of STUN and TURN over TCP; there is no libp2p door */
    c->dig_redirect = at_all(8080);
    c->dig_redirect_on = true;
    c->turn_binding_dig = true;
    c->turn_replies_per_ip = 5;
    c->turn_replies_total = 1000;
    /* dig.md §14.2, §16 */
    c->dig_conns_max = 4096;
    c->dig_conns_per_ip_max = 64;
    c->dig_registers_per_ip = 10;
    c->dig_registrations_per_ip_max = 128;
    c->dig_messages_per_conn = 256;
    c->dig_bytes_per_conn = (uint64_t)1 << 20;
    c->dig_bytes_per_conn_max = (uint64_t)1 << 30;
    c->dig_message_bytes_max = 262144;
    c->dig_ban_threshold = 20;
    c->dig_tls_client = DIG_TLS_REQUIRED;
}

static void preset_descord(struct config *c)
{
    c->rendezvous_on = c->directory_on = false;
    c->p2p[0] = at4(0, 0, 0, 0, 9000);
    c->http = at4(0, 0, 0, 0, 9001);
    c->dig_on = false;
    c->turn_n = 0;
    c->hop.reservations_max = 1024;
    c->hop.per_peer_max = 3;
    c->circuits_max = 512;
    c->circuits_per_peer_max = 5;
    /* The reservation's lifetime stays one hour even when --circuit-duration-secs is shortened:
     * upstream ties the two, but a two-second circuit limit is no reason to make every client renew
     * each second and a half. */
    c->circuit_limit.duration_s = 3600;
    c->circuit_limit.data_bytes = (uint64_t)100 << 20;
    /* descord.md §3 [extended] has buckets of 30 per peer and 60 per IP. Those per peer are taken
     * over. Those per IP are not: 1024 peers behind one address (its own check 8, a school, a
     * container network) could then reserve only after 16 hours. --reservation-rate-per-ip 60/60
     * and --circuit-rate-per-ip 60/60 bring them back. Renewals are free either way. */
    c->hop.peer_burst = c->connect_peer_burst = 30;
    c->advertise_on_dht = true;
}

void preset_apply(struct config *c, enum preset p)
{
    c->preset = p;
    switch (p) {
    case PRESET_NONE:
        break;
    case PRESET_DUSK:
        preset_dusk(c);
        break;
    case PRESET_DIG:
        preset_dig(c);
        break;
    case PRESET_DESCORD:
        preset_descord(c);
        break;
    case PRESET_TURN:
        c->p2p_n = 0;
        c->dig_on = false;
        break;
    }
}
