/* tools/load_dig_opts.c: options. */
#include "tools/load_dig.h"

#include <argp.h>
#include <stdlib.h>

struct ld_opts ld_opt = {
    .mode = LD_RELAY,
    .size = 1024,
    .requesters = 1,
    .duration_s = 3,
    .warm_s = 0.3,
    .settle_s = 1,
    .join_s = 1,
    .patience_s = 3,
    .seed = 1,
};

enum {
    KEY_TO = 256,
    KEY_MODE,
    KEY_CONNS,
    KEY_PER,
    KEY_SIZE,
    KEY_WINDOW,
    KEY_REQUESTERS,
    KEY_RATE,
    KEY_NULL,
    KEY_TLS,
    KEY_STEPS,
    KEY_SETTLE,
    KEY_JOIN,
    KEY_DURATION,
    KEY_WARM,
    KEY_PATIENCE,
    KEY_SEED,
    KEY_SLEEP,
    KEY_PID,
    KEY_JSON,
    KEY_QUIET,
    KEY_FOE,
    KEY_BURST,
    KEY_COUNTERS,
};

static const char *const modes[] = { "relay", "broadcast", "ping", "peers", "join", "idle" };

static const struct argp_option options[] = {
    { "to", KEY_TO, "HOST:PORT", 0, "the relay; an IPv4 address, or an IPv6 one in brackets", 0 },
    { "mode", KEY_MODE, "MODE", 0,
      "relay: messages within pairs (this is what it does unasked); broadcast: of one to its "
      "network; ping; peers: lists asked for; join: all arrive within --join-secs; idle: they "
      "stay, "
      "and the relay's memory is read",
      0 },
    { "connections", KEY_CONNS, "N", 0, "1 to 20000 (64; peers, join, idle: 1000)", 0 },
    { "per-network", KEY_PER, "N", 0, "of them on one network (all; idle: 16)", 0 },
    { "size", KEY_SIZE, "BYTES", 0, "of a payload (1024)", 0 },
    { "window", KEY_WINDOW, "N", 0, "messages of one sender under way (8; peers: 1; rate: 256)",
      0 },
    { "requesters", KEY_REQUESTERS, "N", 0, "peers: connections that ask (1)", 0 },
    { "rate", KEY_RATE, "N", 0, "messages per second over all; else as fast as they arrive", 0 },
    { "null", KEY_NULL, NULL, 0, "bench-dig null is there: bytes come as they were sent", 0 },
    { "tls", KEY_TLS, NULL, 0, "over TLS 1.3; any certificate will do", 0 },
    { "steps", KEY_STEPS, "N,N,...", 0, "idle: at so many (--connections)", 0 },
    { "settle", KEY_SETTLE, "S", 0, "idle: before reading (1)", 0 },
    { "join-secs", KEY_JOIN, "S", 0, "join: they begin spread over so long (1)", 0 },
    { "duration", KEY_DURATION, "S", 0, "of the measurement (3)", 0 },
    { "warm", KEY_WARM, "S", 0, "before it (0.3)", 0 },
    { "patience", KEY_PATIENCE, "S", 0, "at the end, for what is under way while nothing comes (3)",
      0 },
    { "seed", KEY_SEED, "N", 0, "payloads, ids (1)", 0 },
    { "sleep", KEY_SLEEP, NULL, 0, "sleep a little where there is nothing to do, not spin", 0 },
    { "server-pid", KEY_PID, "PID", 0, "account this process's CPU and memory", 0 },
    { "json", KEY_JSON, NULL, 0, "one JSON object on stdout", 0 },
    { "quiet", KEY_QUIET, NULL, 0, "no progress on stderr", 0 },
    { "foe", KEY_FOE, "KIND", 0,
      "instead: --connections (16) of them that are hostile, --rate (1000) frames or connections "
      "per "
      "second",
      0 },
    { "burst-ms", KEY_BURST, "N", 0, "by a rate: what is due goes every so many ms (0)", 0 },
    { "counters", KEY_COUNTERS, "FILE", 0, "a page of counts, kept while it runs", 0 },
    { 0 },
};

static uint64_t number(struct argp_state *st, const char *what, const char *text, uint64_t lo,
                       uint64_t hi)
{
    uint64_t v;

    if (!netaddr_parse_decimal(bytes_str(text), hi, &v) || v < lo)
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

static void set_mode(struct argp_state *st, const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        if (strcmp(modes[i], text) == 0) {
            ld_opt.mode = (enum ld_mode)i;
            return;
        }
    argp_error(st, "--mode %s: accepted is relay, broadcast, ping, peers, join or idle", text);
}

static void set_steps(struct argp_state *st, char *text)
{
    char *save = NULL;

    ld_opt.steps = 0;
    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        unsigned before = ld_opt.steps ? ld_opt.step[ld_opt.steps - 1] + 1 : 1;

        if (ld_opt.steps == LD_STEPS_MAX)
            argp_error(st, "--steps: at most %d", LD_STEPS_MAX);
        ld_opt.step[ld_opt.steps++] = (unsigned)number(st, "steps", w, before, LD_CONNS_MAX);
    }
}

static void settle_defaults(void)
{
    bool flow = ld_opt.mode <= LD_PING;

    if (ld_opt.foe && !ld_opt.conns)
        ld_opt.conns = 16;
    if (ld_opt.foe && !ld_opt.rate)
        ld_opt.rate = 1000;
    if (!ld_opt.conns)
        ld_opt.conns = flow ? 64 : 1000;
    if (ld_opt.mode == LD_IDLE && ld_opt.steps)
        ld_opt.conns = ld_opt.step[ld_opt.steps - 1];
    if (!ld_opt.steps)
        ld_opt.step[ld_opt.steps++] = ld_opt.conns;
    if (!ld_opt.per_network)
        ld_opt.per_network = ld_opt.mode == LD_IDLE ? 16 : ld_opt.conns;
    if (!ld_opt.window)
        ld_opt.window = ld_opt.rate ? LD_RATE_WINDOW : ld_opt.mode == LD_PEERS ? 1 : 8;
}

/* Options that do not go together, before anything is sent. */
static void check(struct argp_state *st)
{
    settle_defaults();
    if (!ld_opt.at.port)
        argp_error(st, "where is the relay? --to HOST:PORT");
    if (ld_opt.mode == LD_RELAY && !ld_opt.foe && (ld_opt.conns % 2 || ld_opt.per_network % 2))
        argp_error(st, "--mode relay: connections come in pairs, and a network has whole ones");
    if (ld_opt.mode == LD_BROADCAST && ld_opt.per_network < 2)
        argp_error(st, "--mode broadcast: to whom?");
    if (ld_opt.requesters > ld_opt.conns)
        argp_error(st, "--requesters: as many as there are connections, at most");
    if (ld_opt.foe && ld_opt.tls)
        argp_error(st, "--foe: without TLS");
    if (ld_opt.null && (ld_opt.mode != LD_RELAY || ld_opt.tls))
        argp_error(st, "--null: --mode relay without TLS, nothing else");
}

static error_t parse_opt(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case KEY_TO:
        if (!netaddr_parse(bytes_str(arg), &ld_opt.at))
            argp_error(st, "--to %s: accepted is IPV4:PORT or [IPV6]:PORT", arg);
        break;
    case KEY_MODE:
        set_mode(st, arg);
        break;
    case KEY_CONNS:
        ld_opt.conns = (unsigned)number(st, "connections", arg, 1, LD_CONNS_MAX);
        break;
    case KEY_PER:
        ld_opt.per_network = (unsigned)number(st, "per-network", arg, 1, LD_CONNS_MAX);
        break;
    case KEY_SIZE:
        ld_opt.size = (unsigned)number(st, "size", arg, 1, LD_SIZE_MAX);
        break;
    case KEY_WINDOW:
        ld_opt.window = (unsigned)number(st, "window", arg, 1, LD_WINDOW_MAX);
        break;
    case KEY_REQUESTERS:
        ld_opt.requesters = (unsigned)number(st, "requesters", arg, 1, LD_CONNS_MAX);
        break;
    case KEY_RATE:
        ld_opt.rate = number(st, "rate", arg, 1, 100000000);
        break;
    case KEY_NULL:
        ld_opt.null = true;
        break;
    case KEY_TLS:
        ld_opt.tls = true;
        break;
    case KEY_STEPS:
        set_steps(st, arg);
        break;
    case KEY_SETTLE:
        ld_opt.settle_s = seconds(st, "settle", arg);
        break;
    case KEY_JOIN:
        ld_opt.join_s = seconds(st, "join-secs", arg);
        break;
    case KEY_DURATION:
        ld_opt.duration_s = seconds(st, "duration", arg);
        break;
    case KEY_WARM:
        ld_opt.warm_s = seconds(st, "warm", arg);
        break;
    case KEY_PATIENCE:
        ld_opt.patience_s = seconds(st, "patience", arg);
        break;
    case KEY_SEED:
        ld_opt.seed = number(st, "seed", arg, 0, UINT64_MAX);
        break;
    case KEY_SLEEP:
        ld_opt.sleep = true;
        break;
    case KEY_PID:
        ld_opt.server_pid = (pid_t)number(st, "server-pid", arg, 1, 1 << 30);
        break;
    case KEY_JSON:
        ld_opt.json = true;
        break;
    case KEY_QUIET:
        ld_opt.quiet = true;
        break;
    case KEY_FOE:
        if (!ld_foe_set(arg))
            argp_error(st, "--foe %s: accepted is %s", arg, ld_foe_names());
        ld_opt.foe = true;
        break;
    case KEY_BURST:
        ld_opt.burst_ms = (unsigned)number(st, "burst-ms", arg, 0, 1000);
        break;
    case KEY_COUNTERS:
        ld_opt.counters = arg;
        break;
    case ARGP_KEY_ARG:
        argp_error(st, "%s: unknown", arg);
        break;
    case ARGP_KEY_END:
        check(st);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void ld_parse(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_opt,
        "--to HOST:PORT",
        "Load on a relay of the DIG network: many clients on one thread. Exit status 0: all that "
        "was "
        "sent arrived, as it has to; 1: not so, or the relay refused; 2: bad usage.",
        NULL,
        NULL,
        NULL
    };

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
}

const char *ld_mode_name(void)
{
    return modes[ld_opt.mode];
}
