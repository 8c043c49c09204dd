/* engine/config.h: everything an operator can say, parsed and checked once, const afterwards
 * (design.md "Commands people type"; presets.md; descord.md §4; dusk.md §12).
 * Precedence: flag, environment (SLUICE_..., then the preset's own names; RUST_LOG and
 * DUSK_RELAY_PORT always), YAML file, preset, default.
 * Errors: one line naming flag, value and accepted range on stderr, exit 2, nothing bound. */
#ifndef SLUICE_ENGINE_CONFIG_H
#define SLUICE_ENGINE_CONFIG_H

#include "engine/acl.h"
#include "proto/hop.h"
#include "proto/maddr.h"
#include "proto/rdv.h"
#include "proto/stun_auth.h"

enum preset { PRESET_NONE, PRESET_DUSK, PRESET_DIG, PRESET_DESCORD, PRESET_TURN };
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };
enum log_format { LOG_TEXT, LOG_JSON };
enum circuits_full { FULL_REFUSE, FULL_SHED };      /* a peer has all the circuits that it may */
enum byte_count { COUNT_PER_DIRECTION, COUNT_SUM }; /* libp2p.md §11.4 */
/* Who comes by TLS shows a certificate: always (dig.md §12), if it has one, or is not asked (D14).
 */
enum dig_tls_client { DIG_TLS_REQUIRED, DIG_TLS_OPTIONAL, DIG_TLS_OFF };
/* dig-relay COMMAND (dig.md §17); every other preset serves. */
enum service_verb { VERB_SERVE, VERB_INSTALL, VERB_UNINSTALL, VERB_START, VERB_STOP, VERB_STATUS };
enum service_scope { SCOPE_AUTO, SCOPE_SYSTEM, SCOPE_USER };

enum {
    CONFIG_LISTEN_MAX = 8,
    CONFIG_ANNOUNCE_MAX = 16,
    CONFIG_PEER_RELAYS_MAX = 16,
    CONFIG_CIDR_MAX = 64,
    CONFIG_PATH_MAX = 1024,
    CONFIG_TURN_SECRETS_MAX = STUN_SECRETS_MAX,
    CONFIG_TURN_USERS_MAX = 256,
    CONFIG_TEXT_MAX = 256,
    CONFIG_ACL_MAX = 256,      /* entries of --allow, and of --deny */
    CONFIG_ACL_TEXT_MAX = 128, /* a peer id in either text form, or a CIDR */
    TURN_PER_FAMILY = 2,       /* what is said once per family */
    CONFIG_TURN_REDIRECTS_MAX = 8,
    CONFIG_NOTES_MAX = 24,
    CONFIG_NOTE_MAX = 256,
    CONFIG_SETTINGS_MAX = 160,
    CONFIG_DIG_MESSAGE_MAX = 16 << 20, /* the highest dig_message_bytes_max */
};

/* 0.0.0.0 or ::. */
static inline bool netaddr_is_any(const struct netaddr *a)
{
    static const uint8_t v4[16] = { [10] = 0xff, [11] = 0xff }, v6[16];

    return memcmp(a->ip, v4, 16) == 0 || memcmp(a->ip, v6, 16) == 0;
}

/* A prefix of IPv4. ::/0 is none, though it holds the mapped addresses. */
static inline bool cidr_is4(const struct cidr *c)
{
    const struct netaddr a = { .ip = { c->ip[0], c->ip[1], c->ip[2], c->ip[3], c->ip[4], c->ip[5],
                                       c->ip[6], c->ip[7], c->ip[8], c->ip[9], c->ip[10],
                                       c->ip[11] } };

    return c->bits >= 96 && netaddr_is4(&a);
}

/* One address to listen at. named: the user said it, so it never falls back to IPv4 only. */
struct listen_at {
    struct netaddr addr;
    bool named;
};

struct config {
    enum preset preset;
    /* doors; n == 0: closed */
    struct listen_at p2p[CONFIG_LISTEN_MAX];
    unsigned p2p_n;
    struct listen_at http;
    bool http_on;
    bool http_health_only; /* preset dig: 9451 answers /health and nothing else (presets.md) */
    struct listen_at dig;
    bool dig_on;
    struct listen_at dig_redirect; /* answers 301 to https (dig.md §15.4); busy: a warning */
    bool dig_redirect_on;
    struct listen_at turn[CONFIG_LISTEN_MAX];
    unsigned turn_n;
    bool turn_on; /* turn_n > 0 */

    char data_dir[CONFIG_PATH_MAX];
    char identity_path[CONFIG_PATH_MAX]; /* resolved */
    char admin_path[CONFIG_PATH_MAX];    /* Unix socket, in the data directory */
    char config_path[CONFIG_PATH_MAX];   /* empty: none */

    struct maddr announce[CONFIG_ANNOUNCE_MAX]; /* as given, without /p2p */
    unsigned announce_n;
    struct maddr peer_relay[CONFIG_PEER_RELAYS_MAX]; /* that we dial (dial.h); /p2p may be there */
    unsigned peer_relays_n;

    unsigned shards; /* 0: from CPU affinity and cgroup */
    enum log_level log_level;
    enum log_format log_format;
    bool log_mask_addresses;
    uint32_t drain_s;
    uint32_t stats_interval_s; /* 0 = off */
    bool check_only;
    enum service_verb verb;
    enum service_scope service_scope;
    bool service_json;

    /* connections */
    uint32_t conns_max;          /* in total */
    uint32_t conns_per_peer_max; /* 0 = no limit, also below */
    uint32_t conns_per_ip_max;
    uint32_t conns_per_subnet_max;
    uint32_t handshakes_per_ip_max; /* new connections per IP: GCRA burst, 0 = no limit */
    uint32_t handshake_refill_ms;
    uint32_t idle_timeout_ms; /* without reservation, circuit or stream */
    uint32_t handshake_timeout_ms;
    uint32_t streams_per_conn_max; /* inbound */

    /* reservations and circuits */
    struct hop_limits hop;
    uint32_t circuits_max;
    uint32_t circuits_per_peer_max; /* as source and as target, both counted */
    enum circuits_full circuits_full;
    uint32_t connect_peer_burst, connect_ip_burst;
    uint64_t connect_peer_refill_ms, connect_ip_refill_ms;
    struct hop_limit circuit_limit; /* present == false: unlimited, `limit` omitted on the wire */
    enum byte_count byte_count;
    uint32_t stop_timeout_ms;
    uint32_t linger_ms; /* a circuit closed on one side and silent */

    uint64_t buffer_bytes_max; /* payload held for slow peers, per process */

    /* --allow and --deny as written; config_load builds acl from them. */
    char allow[CONFIG_ACL_MAX][CONFIG_ACL_TEXT_MAX], deny[CONFIG_ACL_MAX][CONFIG_ACL_TEXT_MAX];
    unsigned allow_n, deny_n;
    struct acl *acl; /* NULL: everyone; allow and deny of peer ids and CIDRs */
    struct cidr proxy_from[CONFIG_CIDR_MAX]; /* who may send PROXY protocol v2 */
    unsigned proxy_from_n;

    /* What is kept for peers (store.h). */
    bool rendezvous_on, directory_on, gif_on;
    bool gossip_on;           /* the hub of dusk.md §10 (svc_gossip.h) */
    bool usage_on;            /* totals per peer and day */
    uint64_t store_bytes_max; /* of its map */
    struct rdv_rules rdv;
    uint32_t directory_max; /* profiles; 0 = no limit */

    /* The gif service (gif.h). Without a key every answer is empty. */
    char gif_key[CONFIG_TEXT_MAX], gif_url[CONFIG_TEXT_MAX]; /* url without a slash at its end */
    char gif_ca[CONFIG_PATH_MAX];                            /* "": the system's */
    bool gif_limited, gif_allow_private;

    const char *ident_protocol_version;
    char ident_agent[64];

    /* Checked now, used when the DHT is built (descord.md §8). */
    bool advertise_on_dht;
    uint32_t advertise_interval_s;

    /* TURN */
    char turn_realm[CONFIG_TEXT_MAX];
    char turn_secret[CONFIG_TURN_SECRETS_MAX][CONFIG_TEXT_MAX];
    unsigned turn_secret_n;
    char turn_user[CONFIG_TURN_USERS_MAX][CONFIG_TEXT_MAX]; /* NAME:PASSWORD */
    unsigned turn_user_n;
    uint16_t turn_port_lo, turn_port_hi;
    char turn_external[TURN_PER_FAMILY][CONFIG_TEXT_MAX]; /* an address or a name */
    unsigned turn_external_n;
    struct cidr turn_allow_peer[CONFIG_CIDR_MAX], turn_deny_peer[CONFIG_CIDR_MAX];
    unsigned turn_allow_peer_n, turn_deny_peer_n;
    struct listen_at turn_alternate[TURN_PER_FAMILY]; /* RFC 5780: the other address and port */
    unsigned turn_alternate_n;
    struct listen_at turn_redirect[CONFIG_TURN_REDIRECTS_MAX]; /* who takes clients instead of us */
    unsigned turn_redirect_n;
    char turn_relay_ip[TURN_PER_FAMILY][CONFIG_TEXT_MAX];
    unsigned turn_relay_ip_n;
    uint32_t turn_max_allocations, turn_max_per_user, turn_max_per_ip;
    uint32_t turn_lifetime_secs; /* the longest that is granted */
    uint32_t turn_nonce_secs;
    uint64_t turn_bps_per_allocation, turn_bps_per_user; /* bytes per second; 0 = no cap */
    uint32_t turn_replies_per_ip; /* unauthenticated ones, per second, over UDP; 0 = no limit */
    bool turn_mobility, turn_tcp_relay, turn_strict_expiry, turn_compat_channels, turn_classic;
    char turn_secret_file[CONFIG_PATH_MAX], turn_users_file[CONFIG_PATH_MAX];
    char turn_public_host[CONFIG_TEXT_MAX]; /* dusk.md §12: host in the uris of credentials */
    uint16_t turn_tcp_port;                 /* 0: the port of `turn` (dusk.md §12) */

    /* Preset dig: Binding is answered as dig.md §11 says, whatever comes with it. */
    bool turn_binding_dig;
    bool turn_udp_only; /* and without credentials that is a matter of datagrams (presets.md) */
    uint32_t turn_replies_total; /* the same replies, of all sources; 0 = no limit */

    /* The DIG relay (dig.md §14, §16). 0 = no limit where nothing else is said. Who sends PROXY v2
     * is in proxy_from above; what is held for slow readers in total is buffer_bytes_max; closing
     * is spread over drain_s (D15). */
    uint32_t dig_conns_max;        /* open ones, registered or not; > 0 */
    uint32_t dig_conns_per_ip_max; /* per source key (§14.1), as all "per ip" here */
    uint32_t dig_registers_per_ip; /* attempts per second */
    uint32_t dig_registrations_per_ip_max;
    uint32_t dig_messages_per_conn;  /* data messages per second */
    uint64_t dig_bytes_per_conn;     /* their payload, per second */
    uint64_t dig_bytes_per_conn_max; /* over a connection's life; breached when exceeded */
    uint32_t dig_message_bytes_max;  /* > 0 */
    uint32_t dig_queue_messages_max; /* waiting for one connection; > 0 */
    uint64_t dig_queue_bytes_max;    /* the same in bytes; > 0 */
    uint32_t dig_register_timeout_ms, dig_idle_timeout_ms; /* > 0 */
    uint32_t dig_sweep_interval_ms, dig_liveness_ms; /* > 0; interval <= liveness < idle timeout */
    uint32_t dig_ban_threshold;                      /* strikes; 0 = nobody is banned */
    uint32_t dig_ban_ms, dig_ban_window_ms;          /* > 0 while there is a threshold */
    char dig_tls_cert[CONFIG_PATH_MAX], dig_tls_key[CONFIG_PATH_MAX]; /* PEM; both or neither */
    bool dig_tls_on;                                                  /* both are given */
    enum dig_tls_client dig_tls_client;
    bool dig_hex_ids_only;  /* D9: 64 lower-case hex digits, or code 2 */
    bool dig_foreign_lists; /* D8: get_peers may name another network */
    bool dig_punch_strict;  /* D10: external_addr must have the observed IP or its /64 */
    char dig_geoip_path[CONFIG_PATH_MAX]; /* MaxMind file (§15.2); may be absent */
    bool dig_geoip_named;                 /* by the operator, who wants to know if it is */

    /* What the operator should read once at start, at level warn: doors that are not built yet,
     * ignored values of a preset's environment. */
    char note[CONFIG_NOTES_MAX][CONFIG_NOTE_MAX];
    unsigned notes_n;
    uint8_t said_by[CONFIG_SETTINGS_MAX]; /* enum source, per setting: for config_dig_service */
};

/* Fills *c. 0; 2: refused, the line is on stderr. --help and --version print and return -1: exit 0.
 * May be called again with the same arguments (reload); each result is freed by config_free. */
MUST_USE int config_load(struct config *c, int argc, char **argv, char **envp);
void config_free(struct config *c);
/* The whole effective configuration, one `name = value` line each, secrets as `***`. */
void config_dump(const struct config *c, void (*line)(void *arg, const char *text), void *arg);

/* "dusk", ...; "none" without a preset. */
const char *config_preset_name(enum preset p);
const char *config_level_name(enum log_level level);
/* A level's name, or the words of RUST_LOG with its `target=level` lists, of which those count that
 * name no target or one of ours. false: nothing in it concerns us; *out is left alone. */
bool config_level_parse(const char *words, enum log_level *out);
/* Does listener i of n have to be IPv6 only, because another one names the same port over IPv4? */
bool config_v6only(const struct listen_at *at, unsigned n, unsigned i);
/* Where the TURN door listens: as said, and for RFC 5780 at every pair of its two addresses and two
 * ports. How many. */
unsigned config_turn_doors(const struct config *c, struct listen_at out[CONFIG_LISTEN_MAX]);
/* Passwords are keys by now (turn_users.c): nobody needs them as they were typed. */
void config_wipe_users(struct config *c);
/* What calls have left on the stack below the caller's frame: copies that nobody meant to make,
 * such as vector registers with a password in them. */
void config_wipe_stack(void);
/* For a unit file (dig.md §17): the environment under which this program without any flag is
 * configured as c is. 0; or -EINVAL with a line in `why`: a secret, which a unit cannot keep, or
 * text that it cannot hold. */
MUST_USE int config_dig_service(const struct config *c,
                                void (*line)(void *arg, const char *name, const char *value),
                                void *arg, char *why, size_t cap);
/* Name and version, then the libraries with version and patch level, a line each. */
void config_version_text(char *out, size_t cap);

#endif
