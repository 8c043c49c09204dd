/* engine/config_flags.c: the table of every setting, and the command line by argp (glibc). */
#include "engine/config_int.h"

#include <argp.h>
#include <stdio.h>

enum group { G_START = 1, G_DOORS, G_ACCESS, G_CONN, G_RESERVE, G_CIRCUIT, G_LOG, G_TURN, G_DHT };

static const char *const group_titles[] = {
    [G_START] = "Starting:",
    [G_DOORS] = "Doors (ADDR is HOST:PORT; port 0 picks one; off closes the door):",
    [G_ACCESS] = "Who may come in:",
    [G_CONN] = "Limits on connections (0 = no limit where the range begins at 0):",
    [G_RESERVE] = "Limits on reservations:",
    [G_CIRCUIT] = "Limits on circuits:",
    [G_LOG] = "Logs and statistics:",
    [G_TURN] = "STUN and TURN:",
    [G_DHT] = "Being found:",
};

static const char *const level_words[] = { "error", "warn", "info", "debug", "trace", NULL };
static const char *const format_words[] = { "text", "json", NULL };
static const char *const count_words[] = { "per-direction", "sum", NULL };

const char *config_level_name(enum log_level level)
{
    return level_words[level];
}

#define OFF(f) offsetof(struct config, f)
#define U32(nm, field, from, to, times, txt)                                                       \
    .name = nm, .arg = "N", .kind = SET_U32, .off = OFF(field), .lo = from, .hi = to,              \
    .scale = times, .help = txt
#define U64(nm, field, from, to, times, txt)                                                       \
    .name = nm, .arg = "N", .kind = SET_U64, .off = OFF(field), .lo = from, .hi = to,              \
    .scale = times, .help = txt
#define RATE(nm, burst, refill, txt)                                                               \
    .name = nm, .arg = "N/SECS", .kind = SET_RATE, .off = OFF(burst), .off_n = OFF(refill),        \
    .cap = sizeof(((struct config *)0)->refill), .hi = 1000000, .help = txt
#define ADDR(nm, field, on, txt)                                                                   \
    .name = nm, .arg = "ADDR", .kind = SET_ADDR, .off = OFF(field), .off_n = OFF(on), .help = txt
#define LIST(nm, a, k, field, count, max, txt)                                                     \
    .name = nm, .arg = a, .kind = k, .off = OFF(field), .off_n = OFF(count), .cap = max,           \
    .width = sizeof(((struct config *)0)->field[0]), .help = txt
#define COUNT_MAX 1000000

const struct setting config_settings[] = {
    { .group = G_START,
      .name = "config",
      .arg = "FILE",
      .kind = SET_PATH,
      .off = OFF(config_path),
      .help = "YAML file; its keys are these flags without dashes in front" },
    { .group = G_START,
      .name = "preset",
      .arg = "NAME",
      .kind = SET_CALL,
      .call = call_preset,
      .help = "be dusk, dig, descord or turn: ports, limits, names, environment. Being called "
              "dusk-relay, dig-relay or descord-relay does the same" },
    { .group = G_START,
      .name = "data",
      .arg = "DIR",
      .kind = SET_PATH,
      .off = OFF(data_dir),
      .help = "where key, state and admin socket live; default $STATE_DIRECTORY, "
              "$XDG_DATA_HOME/sluice, ~/.local/share/sluice, ./var, in this order" },
    { .group = G_START,
      .name = "identity",
      .arg = "FILE",
      .kind = SET_PATH,
      .off = OFF(identity_path),
      .help = "private key; made at the first start; default in the data "
              "directory" },
    { .group = G_START,
      .name = "control",
      .arg = "SOCKET",
      .kind = SET_PATH,
      .off = OFF(admin_path),
      .help = "socket for sluicectl; default admin.sock in the data directory" },
    { .group = G_START,
      U32("shards", shards, 0, 64, 1, "threads that serve; 0: one per usable core") },
    { .group = G_START,
      U32("drain-secs", drain_s, 0, 86400, 1, "after SIGTERM circuits run on for so long (8)") },
    { .group = G_START,
      .name = "check-config",
      .kind = SET_FLAG,
      .off = OFF(check_only),
      .help = "print the effective configuration and leave" },

    { .group = G_DOORS,
      LIST("listen-p2p", "ADDR", SET_ADDRS, p2p, p2p_n, CONFIG_LISTEN_MAX,
           "libp2p circuit relay ([::]:4001); repeatable; also a multiaddr"),
      .split = true },
    { .group = G_DOORS, ADDR("listen-dig", dig, dig_on, "JSON relay over WebSocket ([::]:9450)") },
    { .group = G_DOORS,
      LIST("listen-turn", "ADDR", SET_ADDRS, turn, turn_n, CONFIG_LISTEN_MAX,
           "STUN and TURN, UDP and TCP ([::]:3478); repeatable"),
      .split = true },
    { .group = G_DOORS, ADDR("listen-http", http, http_on, "health and metrics (127.0.0.1:9451)") },
    { .group = G_DOORS,
      .name = "port",
      .letter = 'p',
      .arg = "PORT",
      .kind = SET_CALL,
      .call = call_port,
      .help = "port of the libp2p door" },
    { .group = G_DOORS,
      .name = "interface",
      .letter = 'i',
      .arg = "IP",
      .kind = SET_CALL,
      .call = call_interface,
      .help = "address of the libp2p door" },
    { .group = G_DOORS,
      .name = "monitoring-port",
      .arg = "PORT",
      .kind = SET_CALL,
      .call = call_monitoring_port,
      .help = "port of the HTTP door; 0 closes it" },
    { .group = G_DOORS,
      LIST("announce", "MULTIADDR", SET_MADDRS, announce, announce_n, CONFIG_ANNOUNCE_MAX,
           "how others reach this relay; repeatable"),
      .split = true },

    { .group = G_ACCESS,
      LIST("allow", "PEER|CIDR", SET_TEXTS, allow, allow_n, CONFIG_ACL_MAX,
           "only these peers and networks; repeatable"),
      .call = call_acl,
      .split = true },
    { .group = G_ACCESS,
      LIST("deny", "PEER|CIDR", SET_TEXTS, deny, deny_n, CONFIG_ACL_MAX, "never these; repeatable"),
      .call = call_acl,
      .split = true },
    { .group = G_ACCESS,
      LIST("proxy-from", "CIDR", SET_CIDRS, proxy_from, proxy_from_n, CONFIG_CIDR_MAX,
           "load balancers that send PROXY protocol v2; repeatable"),
      .split = true },

    { .group = G_CONN,
      U32("max-conns", conns_max, 1, COUNT_MAX, 1, "connections in total (65536)") },
    { .group = G_CONN,
      U32("max-conns-per-peer", conns_per_peer_max, 0, COUNT_MAX, 1,
          "connections of one peer (64)") },
    { .group = G_CONN,
      U32("max-conns-per-ip", conns_per_ip_max, 0, COUNT_MAX, 1,
          "connections from one address (0)") },
    { .group = G_CONN,
      U32("max-conns-per-subnet", conns_per_subnet_max, 0, COUNT_MAX, 1,
          "connections from one IPv4 /24 or IPv6 /56 (0)") },
    { .group = G_CONN,
      RATE("handshake-rate-per-ip", handshakes_per_ip_max, handshake_refill_ms,
           "new connections from one address (0)") },
    { .group = G_CONN,
      U32("idle-timeout-secs", idle_timeout_ms, 1, 1000000, 1000,
          "close without reservation, circuit or stream (120)") },
    { .group = G_CONN,
      U32("handshake-timeout-secs", handshake_timeout_ms, 1, 3600, 1000,
          "to be through Noise and yamux (10)") },
    { .group = G_CONN,
      U32("max-streams-per-conn", streams_per_conn_max, 4, 65536, 1,
          "streams a peer may have open (512)") },
    { .group = G_CONN,
      U64("max-buffer-mb", buffer_bytes_max, 8, 1048576, 1 << 20,
          "payload held for slow readers, in total (512)") },

    { .group = G_RESERVE,
      U32("max-reservations", hop.reservations_max, 1, COUNT_MAX, 1, "in total (16384)") },
    { .group = G_RESERVE,
      U32("max-reservations-per-peer", hop.per_peer_max, 0, COUNT_MAX, 1,
          "of one peer, each over a connection of its own (8)") },
    { .group = G_RESERVE,
      U32("max-reservations-per-ip", hop.per_ip_max, 0, COUNT_MAX, 1, "from one address (0)") },
    { .group = G_RESERVE,
      U32("max-reservations-per-subnet", hop.per_subnet_max, 0, COUNT_MAX, 1,
          "from one IPv4 /24 or IPv6 /56 (0)") },
    { .group = G_RESERVE,
      U64("reservation-secs", hop.reservation_ms, 1, 31536000, 1000,
          "lifetime (3600); clients renew badly below 180") },
    { .group = G_RESERVE,
      RATE("reservation-rate-per-peer", hop.peer_burst, hop.peer_refill_ms,
           "new reservations of one peer (0); renewals are free") },
    { .group = G_RESERVE,
      RATE("reservation-rate-per-ip", hop.ip_burst, hop.ip_refill_ms,
           "new reservations from one address (0)") },

    { .group = G_CIRCUIT, U32("max-circuits", circuits_max, 1, COUNT_MAX, 1, "in total (65536)") },
    { .group = G_CIRCUIT,
      U32("max-circuits-per-peer", circuits_per_peer_max, 0, COUNT_MAX, 1,
          "of one peer, as source and target together (64)") },
    { .group = G_CIRCUIT,
      RATE("circuit-rate-per-peer", connect_peer_burst, connect_peer_refill_ms,
           "new circuits of one source (0)") },
    { .group = G_CIRCUIT,
      RATE("circuit-rate-per-ip", connect_ip_burst, connect_ip_refill_ms,
           "new circuits from one address (0)") },
    { .group = G_CIRCUIT,
      U32("circuit-duration-secs", circuit_limit.duration_s, 0, UINT32_MAX, 1,
          "a circuit ends after so long (0)") },
    { .group = G_CIRCUIT,
      U64("circuit-bandwidth-mb", circuit_limit.data_bytes, 0, 1u << 30, 1 << 20,
          "a circuit ends after so many MiB (0)") },
    { .group = G_CIRCUIT,
      .name = "byte-count",
      .arg = "HOW",
      .kind = SET_WORD,
      .off = OFF(byte_count),
      .words = count_words,
      .help = "the MiB are counted per-direction (as go does) or as the sum "
              "(as rust does)" },
    { .group = G_CIRCUIT,
      U32("stop-timeout-secs", stop_timeout_ms, 1, 60, 1000, "the target's time to answer (10)") },
    { .group = G_CIRCUIT,
      U32("linger-secs", linger_ms, 1, 86400, 1000,
          "a circuit closed on one side and silent ends after (60)") },

    { .group = G_LOG,
      .name = "log-level",
      .arg = "LEVEL",
      .kind = SET_WORD,
      .off = OFF(log_level),
      .words = level_words,
      .help = "error, warn, info, debug or trace (info); RUST_LOG works too" },
    { .group = G_LOG,
      .name = "log-format",
      .arg = "FORMAT",
      .kind = SET_WORD,
      .off = OFF(log_format),
      .words = format_words,
      .help = "text or json" },
    { .group = G_LOG,
      .name = "log-mask-addresses",
      .kind = SET_FLAG,
      .off = OFF(log_mask_addresses),
      .help = "no addresses of peers in the log, at any level" },
    { .group = G_LOG,
      U32("stats-interval-secs", stats_interval_s, 0, 86400, 1,
          "statistics in the log; 0: never (60)") },

    { .group = G_TURN,
      .name = "turn-realm",
      .arg = "R",
      .kind = SET_TEXT,
      .off = OFF(turn_realm),
      .help = "realm of the credentials" },
    { .group = G_TURN,
      LIST("turn-secret", "S", SET_TEXTS, turn_secret, turn_secret_n, CONFIG_TURN_SECRETS_MAX,
           "shared secret; repeatable: the first signs"),
      .secret = true },
    { .group = G_TURN,
      .name = "turn-secret-file",
      .arg = "FILE",
      .kind = SET_PATH,
      .off = OFF(turn_secret_file),
      .help = "secrets, one per line" },
    { .group = G_TURN,
      LIST("turn-user", "NAME:PASSWORD", SET_TEXTS, turn_user, turn_user_n, CONFIG_TURN_USERS_MAX,
           "long-term user; repeatable"),
      .call = call_turn_user,
      .secret = true },
    { .group = G_TURN,
      .name = "turn-users-file",
      .arg = "FILE",
      .kind = SET_PATH,
      .off = OFF(turn_users_file),
      .help = "NAME:PASSWORD, one per line" },
    { .group = G_TURN,
      .name = "turn-ports",
      .arg = "A-B",
      .kind = SET_CALL,
      .call = call_turn_ports,
      .help = "ports of allocations (49152-65535)" },
    { .group = G_TURN,
      LIST("turn-external-ip", "IP|NAME", SET_TEXTS, turn_external, turn_external_n,
           TURN_PER_FAMILY,
           "address seen from outside, one per family; a name is asked for "
           "again each minute"),
      .call = call_turn_external,
      .split = true },
    { .group = G_TURN,
      LIST("turn-relay-ip", "IP", SET_TEXTS, turn_relay_ip, turn_relay_ip_n, TURN_PER_FAMILY,
           "where allocations are bound, one per family; default what --listen-turn says, else "
           "the host's first address of that family"),
      .call = call_turn_relay_ip,
      .split = true },
    { .group = G_TURN,
      LIST("turn-alternate", "IP:PORT", SET_ADDRS, turn_alternate, turn_alternate_n,
           TURN_PER_FAMILY,
           "another address and port, so that clients can tell their NAT's behaviour (RFC 5780); "
           "one per family, for which --listen-turn names an address"),
      .split = true },
    { .group = G_TURN,
      LIST("turn-redirect", "IP:PORT", SET_ADDRS, turn_redirect, turn_redirect_n,
           CONFIG_TURN_REDIRECTS_MAX,
           "another TURN server, for new clients while this one drains or has no port left (300, "
           "ALTERNATE-SERVER); repeatable, one of them is drawn"),
      .split = true },
    { .group = G_TURN,
      LIST("turn-allow-peer", "CIDR", SET_CIDRS, turn_allow_peer, turn_allow_peer_n,
           CONFIG_CIDR_MAX, "allocations may reach these; repeatable"),
      .split = true },
    { .group = G_TURN,
      LIST("turn-deny-peer", "CIDR", SET_CIDRS, turn_deny_peer, turn_deny_peer_n, CONFIG_CIDR_MAX,
           "and never these; repeatable"),
      .split = true },
    { .group = G_TURN,
      U32("turn-max-allocations", turn_max_allocations, 0, 65535, 1,
          "in total; 0: as many as ports") },
    { .group = G_TURN,
      U32("turn-max-per-user", turn_max_per_user, 0, 65535, 1, "of one user (0)") },
    { .group = G_TURN,
      U32("turn-max-per-ip", turn_max_per_ip, 0, 65535, 1, "from one address (0)") },
    { .group = G_TURN,
      U32("turn-lifetime-secs", turn_lifetime_secs, 600, 86400, 1,
          "an allocation's at most, until it is refreshed (3600)") },
    { .group = G_TURN,
      U64("turn-bps-per-allocation", turn_bps_per_allocation, 0, UINT64_C(1) << 40, 1,
          "bytes per second of one allocation; 0: no cap (0)") },
    { .group = G_TURN,
      U64("turn-bps-per-user", turn_bps_per_user, 0, UINT64_C(1) << 40, 1,
          "bytes per second of all allocations of a user; 0: no cap (0)") },
    { .group = G_TURN,
      U32("turn-replies-per-ip", turn_replies_per_ip, 0, COUNT_MAX, 1,
          "per second, to who has not shown a credential, over UDP, Binding included; ten times "
          "that for a /24 or /48; 0: no limit (50)") },
    { .group = G_TURN,
      U32("turn-nonce-secs", turn_nonce_secs, 10, 3600, 1, "a nonce counts for so long (600)") },
    { .group = G_TURN,
      .name = "turn-tcp-relay",
      .arg = "on|off",
      .kind = SET_BOOL,
      .off = OFF(turn_tcp_relay),
      .help = "allocations that relay TCP (RFC 6062) (on)" },
    { .group = G_TURN,
      .name = "turn-mobility",
      .kind = SET_FLAG,
      .off = OFF(turn_mobility),
      .help = "a client may move to another address (RFC 8016)" },
    { .group = G_TURN,
      .name = "turn-strict-expiry",
      .kind = SET_FLAG,
      .off = OFF(turn_strict_expiry),
      .help = "a name that has expired ends its allocations too" },
    { .group = G_TURN,
      .name = "turn-compat-channels",
      .kind = SET_FLAG,
      .off = OFF(turn_compat_channels),
      .help = "channels 0x5000 to 0x7fff, for clients of RFC 5766" },
    { .group = G_TURN,
      .name = "turn-classic",
      .kind = SET_FLAG,
      .off = OFF(turn_classic),
      .help = "answer Binding of RFC 3489 too" },

    { .group = G_DHT,
      .name = "advertise-on-dht",
      .arg = "BOOL",
      .kind = SET_BOOL,
      .off = OFF(advertise_on_dht),
      .help = "put a record where clients look for relays" },
    { .group = G_DHT,
      U32("advertise-interval-secs", advertise_interval_s, 1, 86400, 1, "and refresh it (300)") },
};
const size_t config_settings_n = ARRAY_LEN(config_settings);
static_assert(ARRAY_LEN(config_settings) <= SETTINGS_MAX, "draft.ranks has a place for each");

enum { KEY_FIRST = 0x1000, KEY_HELP = 'h', KEY_VERSION = 'V' };

static void refuse_flag(const struct argp_state *state)
{
    const char *what =
        state->next > 0 && state->next <= state->argc ? state->argv[state->next - 1] : "";
    const struct setting *s = strncmp(what, "--", 2) == 0 ? setting_find(what + 2) : NULL;

    if (s && s->arg)
        config_refuse("%s needs a value: %s", what, s->arg);
    else
        config_refuse("unknown or ambiguous flag %s: see --help", what);
}

static error_t on_flag(int key, char *arg, struct argp_state *state)
{
    struct flags *f = state->input;
    const struct setting *s = NULL;

    if (key == KEY_HELP) {
        f->help = true;
        return 0;
    }
    if (key == KEY_VERSION) {
        f->version = true;
        return 0;
    }
    if (key == ARGP_KEY_ERROR) {
        if (!f->refused)
            refuse_flag(state);
        return 0;
    }
    if (key == ARGP_KEY_ARG) {
        f->refused = true;
        config_refuse("unexpected argument '%s': everything is said by flags; see --help", arg);
        return EINVAL;
    }
    for (size_t i = 0; i < config_settings_n && !s; i++)
        if (key == KEY_FIRST + (int)i ||
            (config_settings[i].letter && key == config_settings[i].letter))
            s = &config_settings[i];
    if (!s)
        return ARGP_ERR_UNKNOWN;
    if (f->given_n == GIVEN_MAX) {
        f->refused = true;
        config_refuse("more than %d flags: use --config FILE", GIVEN_MAX);
        return E2BIG;
    }
    f->given[f->given_n++] = (struct given){ s, arg ? arg : "true" };
    return 0;
}

enum { OPTIONS_MAX = SETTINGS_MAX + ARRAY_LEN(group_titles) + 3 };

static void build_options(struct argp_option *o)
{
    size_t n = 0;
    uint8_t group = 0;

    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];

        if (s->group != group) {
            group = s->group;
            o[n++] = (struct argp_option){ .doc = group_titles[group], .group = group };
        }
        o[n++] = (struct argp_option){ s->name, s->letter ? s->letter : KEY_FIRST + (int)i,
                                       s->arg,  0,
                                       s->help, group };
    }
    o[n++] = (struct argp_option){ "help", KEY_HELP, NULL, 0, "this text", -1 };
    o[n++] = (struct argp_option){
        "version", KEY_VERSION, NULL, 0, "name and version, and of the libraries", -1
    };
    o[n] = (struct argp_option){ 0 };
}

static const char help_text[] =
    "Sluice: peers who cannot reach each other talk through it. Circuit relay v2 for js-, rust- "
    "and "
    "go-libp2p. Without flags it opens its doors on their usual ports."
    "\v"
    "Examples:\n"
    "  sluice --announce /dns4/relay.example.org/tcp/4001\n"
    "  sluice --preset descord --max-circuits 2048 --drain-secs 60\n"
    "  sluice --listen-p2p 127.0.0.1:0 --listen-http off --data /tmp/try\n"
    "  sluice --config /etc/sluice.yaml --check-config\n"
    "\n"
    "Every flag is also an environment variable (--max-circuits: SLUICE_MAX_CIRCUITS; commas "
    "between "
    "the values of a list; empty means unset) and a key of the YAML file (max-circuits: 2048; "
    "lists "
    "in [brackets] or with dashes). The flag wins over the environment, that over the file, that "
    "over "
    "the preset. Exit status: 0 stopped in order, 1 could not run, 2 not understood.";

static void build_argp(struct argp *a, struct argp_option *options)
{
    build_options(options);
    *a = (struct argp){ .options = options, .parser = on_flag, .doc = help_text };
}

/* argp says nothing itself (ARGP_SILENT): its way is two lines, usage included, and status 64. */
bool flags_parse(struct flags *f, int argc, char **argv)
{
    struct argp_option options[OPTIONS_MAX];
    struct argp a;

    build_argp(&a, options);
    memset(f, 0, sizeof(*f));
    return argp_parse(&a, argc, argv, ARGP_SILENT | ARGP_IN_ORDER, NULL, f) == 0;
}

void flags_help(const char *program)
{
    struct argp_option options[OPTIONS_MAX];
    struct argp a;
    char name[64];

    build_argp(&a, options);
    snprintf(name, sizeof(name), "%s", program && *program ? program : "sluice");
    argp_help(&a, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
}

const char *flags_last(const struct flags *f, const char *name)
{
    for (unsigned i = f->given_n; i > 0; i--)
        if (strcmp(f->given[i - 1].setting->name, name) == 0)
            return f->given[i - 1].value;
    return NULL;
}

bool flags_apply(struct draft *d, const struct flags *f)
{
    for (unsigned i = 0; i < f->given_n; i++) {
        const struct given *g = &f->given[i];

        if (!draft_set(d, g->setting, g->value)) {
            config_refuse("--%s=%s: accepted is %s", g->setting->name,
                          g->setting->secret ? "***" : g->value, d->why);
            return false;
        }
    }
    return true;
}
