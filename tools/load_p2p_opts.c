/* tools/load_p2p_opts.c: options. */
#include "tools/load_p2p.h"

#include <argp.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

struct lp_opts lp_opt = {
    .mode = LP_BULK,
    .circuits = 16,
    .idle_every_ms = 10000,
    .sources = 8,
    .again_ms = 100,
    .burst_ms = 1,
    .slots = 32,
    .peers = 5000,
    .churn = 50,
    .dials = 50,
    .interval_us = 200,
    .duration_s = 3,
    .warm_s = 0.3,
    .settle_s = 1,
    .seed = 1,
    .spin = true,
};

/* 16k and 1k: what the relays are compared with. The others are what these libraries put on the
 * wire when an application copies a file through a circuit, inner Noise and yamux included. rust
 * (yamux 0.13, noise 0.47): frames of at most 16 KiB, each flushed as a record; an inner record of
 * 16 KiB is 30 bytes longer. go (go-yamux 5): frames of at most 64 KiB - 12; 64 KiB written give
 * inner records of 65537 and 35 bytes, and Noise cuts what exceeds 65519. */
static const struct lp_framing framings[] = {
    { "16k", 1, { 16384 }, true },
    { "1k", 1, { 1024 }, true },
    { "rust", 2, { 16384, 30 }, false },
    { "go", 3, { 65524, 13, 35 }, false },
};
static const char *const mode_names[] = { "bulk",      "message", "setup",  "churn",
                                          "handshake", "idle",    "attack", "soak" };
static const char *const relay_names[] = { "libp2p", "bare", "raw" };
static const char *const place_names[] = { "any", "same", "cross" };

enum {
    KEY_MODE = 256,
    KEY_KIND,
    KEY_PLACE,
    KEY_FRAMING,
    KEY_CIRCUITS,
    KEY_PAIRS,
    KEY_IDLE,
    KEY_IDLE_EVERY,
    KEY_SOURCES,
    KEY_SLOTS,
    KEY_STEPS,
    KEY_INTERVAL,
    KEY_DURATION,
    KEY_WARM,
    KEY_SETTLE,
    KEY_JSON,
    KEY_BOTH,
    KEY_QUIET,
    KEY_SLEEP,
    KEY_SEED,
    KEY_RATE,
    KEY_EVEN,
    KEY_PID,
    KEY_ADMIN,
    KEY_ATTACK,
    KEY_OPS,
    KEY_AGAIN,
    KEY_BURST,
    KEY_NET,
    KEY_COUNTERS,
    KEY_PEERS,
    KEY_CHURN,
    KEY_DIALS,
};

static const struct argp_option options[] = {
    { "mode", KEY_MODE, "MODE", 0,
      "bulk: data as fast as it goes; message: 256 bytes now and then; "
      "setup: circuits opened and closed over standing connections; churn: connect, reserve, dial, "
      "leave; handshake: connect, reserve, leave; idle: reserved peers, and the relay's memory; "
      "attack: --slots peers that break the rules; "
      "soak: --peers that stay, of which some leave in every way and come back, with circuits",
      0 },
    { "circuits", KEY_CIRCUITS, "N", 0, "bulk, message: busy circuits (16)", 0 },
    { "pairs", KEY_PAIRS, "N", 0, "pairs of peers that share the circuits (one per circuit)", 0 },
    { "idle-circuits", KEY_IDLE, "N", 0, "mostly idle ones beside them, 50 to a pair (0)", 0 },
    { "idle-every-ms", KEY_IDLE_EVERY, "MS", 0, "each sends 256 bytes so often (10000)", 0 },
    { "framing", KEY_FRAMING, "16k|1k|rust|go", 0, "bodies of the Data frames (16k)", 0 },
    { "both", KEY_BOTH, NULL, 0, "bulk: data in both directions", 0 },
    { "rate", KEY_RATE, "BYTES", 0, "bulk: so many bytes per second over all circuits", 0 },
    { "even", KEY_EVEN, NULL, 0, "with --rate: body by body at even distances, spinning", 0 },
    { "interval-us", KEY_INTERVAL, "US", 0, "message: per circuit (200)", 0 },
    { "sleep", KEY_SLEEP, NULL, 0, "message: sleep between messages instead of spinning", 0 },
    { "slots", KEY_SLOTS, "N", 0, "setup, churn, handshake, attack: so many at once (32)", 0 },
    { "attack", KEY_ATTACK, "KIND", 0,
      "random, oversize, window, syn, ping, rst, tiny (records of nothing), reserve, connect, "
      "halfopen",
      0 },
    { "ops", KEY_OPS, "N", 0,
      "attack: frames or requests per second over all, of random, oversize and halfopen "
      "connections; "
      "0: as fast as it goes (0)",
      0 },
    { "again-ms", KEY_AGAIN, "MS", 0, "attack: a connection that ended comes back after (100)", 0 },
    { "steps", KEY_STEPS, "N,N,...", 0, "idle: measure at so many peers (1000)", 0 },
    { "peers", KEY_PEERS, "N", 0, "soak: so many at once (5000)", 0 },
    { "churn", KEY_CHURN, "N", 0, "soak: so many leave and come back per second (50)", 0 },
    { "dials", KEY_DIALS, "N", 0, "soak: circuits begun per second, --circuits at most (50)", 0 },
    { "settle", KEY_SETTLE, "S", 0, "idle: wait before a measurement (1)", 0 },
    { "sources", KEY_SOURCES, "N", 0, "source addresses 127.NET.0.2 and following (8)", 0 },
    { "burst-ms", KEY_BURST, "MS", 0, "attack: the ops of so many milliseconds at once (1)", 0 },
    { "net", KEY_NET, "N", 0, "their second number (0)", 0 },
    { "placement", KEY_PLACE, "any|same|cross", 0,
      "both connections of a pair on the same shard, or on two; needs --admin", 0 },
    { "admin", KEY_ADMIN, "SOCKET", 0, "the relay's admin socket", 0 },
    { "server-pid", KEY_PID, "PID", 0, "account this process's CPU and memory", 0 },
    { "relay", KEY_KIND, "libp2p|bare|raw", 0, "what listens there (libp2p)", 0 },
    { "duration", KEY_DURATION, "S", 0, "of the measurement (3)", 0 },
    { "warm", KEY_WARM, "S", 0, "before it (0.3)", 0 },
    { "seed", KEY_SEED, "N", 0, "peers, payload (1)", 0 },
    { "counters", KEY_COUNTERS, "FILE", 0,
      "running counts, and a word that pauses, for others to map", 0 },
    { "json", KEY_JSON, NULL, 0, "one JSON object on stdout", 0 },
    { "quiet", KEY_QUIET, NULL, 0, "no progress on stderr", 0 },
    { 0 },
};

static uint64_t number(struct argp_state *st, const char *what, const char *text, uint64_t lo,
                       uint64_t hi)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end || v < lo || v > hi)
        argp_error(st, "--%s %s: accepted is a whole number from %llu to %llu", what, text,
                   (unsigned long long)lo, (unsigned long long)hi);
    return v;
}

static double seconds(struct argp_state *st, const char *what, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*end || end == text || !(v >= 0) || v > 86400)
        argp_error(st, "--%s %s: accepted is a number of seconds up to 86400", what, text);
    return v;
}

static unsigned word(struct argp_state *st, const char *what, const char *text,
                     const char *const *words, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    argp_error(st, "--%s %s: unknown", what, text);
    return 0;
}

static void address(struct argp_state *st, const char *text)
{
    struct netaddr a;

    if (!netaddr_parse(bytes_str(text), &a) || !netaddr_is4(&a))
        argp_error(st, "%s: accepted is IPV4:PORT", text);
    lp_opt.at.sin_family = AF_INET;
    lp_opt.at.sin_port = htons(a.port);
    memcpy(&lp_opt.at.sin_addr, a.ip + 12, 4);
}

static void set_steps(struct argp_state *st, char *text)
{
    char *save = NULL;

    lp_opt.steps = 0;
    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        if (lp_opt.steps == LP_STEPS_MAX)
            argp_error(st, "--steps: at most %d", LP_STEPS_MAX);
        lp_opt.step[lp_opt.steps++] = (unsigned)number(st, "steps", w, 1, 60000);
    }
}

static void set_framing(struct argp_state *st, const char *text)
{
    lp_opt.framing = NULL;
    for (size_t i = 0; i < ARRAY_LEN(framings); i++)
        if (strcmp(text, framings[i].name) == 0)
            lp_opt.framing = &framings[i];
    if (!lp_opt.framing)
        argp_error(st, "--framing %s: accepted is one of 16k, 1k, rust, go", text);
}

static error_t parse_attack(int key, char *arg, struct argp_state *st)
{
    const char *const *names = lp_attack_names();
    unsigned n = 0;

    switch (key) {
    case KEY_ATTACK:
        while (names[n])
            n++;
        lp_opt.attack = word(st, "attack", arg, names, n);
        break;
    case KEY_OPS:
        lp_opt.ops = (unsigned)number(st, "ops", arg, 0, 100000000);
        break;
    case KEY_BURST:
        lp_opt.burst_ms = (unsigned)number(st, "burst-ms", arg, 1, 1000);
        break;
    case KEY_AGAIN:
        lp_opt.again_ms = (unsigned)number(st, "again-ms", arg, 0, 3600000);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static error_t parse_load(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case KEY_MODE:
        lp_opt.mode = word(st, "mode", arg, mode_names, ARRAY_LEN(mode_names));
        break;
    case KEY_KIND:
        lp_opt.relay = word(st, "relay", arg, relay_names, ARRAY_LEN(relay_names));
        break;
    case KEY_PLACE:
        lp_opt.place = word(st, "placement", arg, place_names, ARRAY_LEN(place_names));
        break;
    case KEY_FRAMING:
        set_framing(st, arg);
        break;
    case KEY_CIRCUITS:
        lp_opt.circuits = (unsigned)number(st, "circuits", arg, 0, 100000);
        break;
    case KEY_PAIRS:
        lp_opt.pairs = (unsigned)number(st, "pairs", arg, 1, 30000);
        break;
    case KEY_IDLE:
        lp_opt.idle_circuits = (unsigned)number(st, "idle-circuits", arg, 0, 200000);
        break;
    case KEY_IDLE_EVERY:
        lp_opt.idle_every_ms = (unsigned)number(st, "idle-every-ms", arg, 1, 3600000);
        break;
    case KEY_SLOTS:
        lp_opt.slots = (unsigned)number(st, "slots", arg, 1, 20000);
        break;
    case KEY_STEPS:
        set_steps(st, arg);
        break;
    case KEY_INTERVAL:
        lp_opt.interval_us = (unsigned)number(st, "interval-us", arg, 1, 10000000);
        break;
    case KEY_EVEN:
        lp_opt.even = true;
        break;
    case KEY_RATE:
        lp_opt.rate = number(st, "rate", arg, 1000000, UINT64_C(100000000000));
        break;
    default:
        return parse_attack(key, arg, st);
    }
    return 0;
}

static error_t parse_soak(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case KEY_PEERS:
        lp_opt.peers = (unsigned)number(st, "peers", arg, 4, 18000);
        break;
    case KEY_CHURN:
        lp_opt.churn = (unsigned)number(st, "churn", arg, 0, 2000);
        break;
    case KEY_DIALS:
        lp_opt.dials = (unsigned)number(st, "dials", arg, 0, 5000);
        break;
    default:
        return parse_load(key, arg, st);
    }
    return 0;
}

static error_t parse_opt(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case KEY_SOURCES:
        lp_opt.sources = (unsigned)number(st, "sources", arg, 1, 1000);
        break;
    case KEY_DURATION:
        lp_opt.duration_s = seconds(st, "duration", arg);
        break;
    case KEY_WARM:
        lp_opt.warm_s = seconds(st, "warm", arg);
        break;
    case KEY_SETTLE:
        lp_opt.settle_s = seconds(st, "settle", arg);
        break;
    case KEY_JSON:
        lp_opt.json = true;
        break;
    case KEY_BOTH:
        lp_opt.both = true;
        break;
    case KEY_QUIET:
        lp_opt.quiet = true;
        break;
    case KEY_SLEEP:
        lp_opt.spin = false;
        break;
    case KEY_SEED:
        lp_opt.seed = number(st, "seed", arg, 0, UINT64_MAX);
        break;
    case KEY_PID:
        lp_opt.server_pid = (int)number(st, "server-pid", arg, 1, 1 << 30);
        break;
    case KEY_ADMIN:
        lp_opt.admin = arg;
        break;
    case KEY_NET:
        lp_opt.net = (unsigned)number(st, "net", arg, 0, 255);
        break;
    case KEY_COUNTERS:
        lp_opt.counters = arg;
        break;
    case ARGP_KEY_ARG:
        address(st, arg);
        break;
    case ARGP_KEY_END:
        if (!lp_opt.at.sin_port)
            argp_error(st, "where is the relay? IPV4:PORT");
        if (lp_opt.place != LP_ANYWHERE && !lp_opt.admin)
            argp_error(st, "--placement needs --admin");
        if (lp_opt.relay != LP_LIBP2P && lp_opt.mode != LP_BULK && lp_opt.mode != LP_MESSAGE)
            argp_error(st, "the bare relay carries data and nothing else");
        break;
    default:
        return parse_soak(key, arg, st);
    }
    return 0;
}

void lp_parse(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_opt,
        "IPV4:PORT",
        "Load on a libp2p circuit relay: many peers on one thread. Exit status 0: every byte came "
        "as it was sent; 1: not so, or the relay failed; 2: bad usage.",
        NULL,
        NULL,
        NULL
    };

    argp_err_exit_status = 2;
    lp_opt.framing = &framings[0];
    lp_opt.step[0] = 1000;
    lp_opt.steps = 1;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    if (lp_opt.place != LP_ANYWHERE)
        lp_opt.sources = 1; /* so that a port names a connection */
    if (lp_opt.relay != LP_LIBP2P)
        lp_opt.pairs = lp_opt.circuits; /* one circuit per pair of connections */
    if (!lp_opt.pairs)
        lp_opt.pairs = lp_opt.circuits ? lp_opt.circuits : 1;
}

const char *lp_mode_name(void)
{
    return mode_names[lp_opt.mode];
}

const char *lp_place_name(void)
{
    return place_names[lp_opt.place];
}
