/* tools/load_turn_opts.c: options. */
#include "tools/load_turn.h"

#include <argp.h>
#include <stdlib.h>

struct lt_opts lt_opt = {
    .mode = LT_FLOW,
    .way = LT_UP,
    .realm = "",
    .allocations = 1,
    .train = 1,
    .size = 1200,
    .users = 1,
    .slots = 64,
    .gro = true,
    .duration_s = 3,
    .warm_s = 0.3,
    .settle_s = 1,
    .seed = 1,
};

enum {
    KEY_TO = 256,
    KEY_USER,
    KEY_PASSWORD,
    KEY_REALM,
    KEY_SECRET,
    KEY_USERS,
    KEY_SHA256,
    KEY_ALLOCATIONS,
    KEY_PEERS,
    KEY_TRANSPORT,
    KEY_TRAIN,
    KEY_SIZE,
    KEY_MODE,
    KEY_ECHO,
    KEY_C2C,
    KEY_DIRECTION,
    KEY_SINK,
    KEY_PLAIN,
    KEY_WINDOW,
    KEY_BATCH,
    KEY_RATE,
    KEY_BIND,
    KEY_ALLOC_RATE,
    KEY_SLOTS,
    KEY_FRESH,
    KEY_LIVES,
    KEY_IDLE,
    KEY_STEPS,
    KEY_SETTLE,
    KEY_TCP_RELAY,
    KEY_BARE,
    KEY_LOSSLESS,
    KEY_DURATION,
    KEY_WARM,
    KEY_SEED,
    KEY_FOE,
    KEY_BURST,
    KEY_COUNTERS,
    KEY_SLEEP,
    KEY_PID,
    KEY_KERNEL,
    KEY_JSON,
    KEY_QUIET,
};

static const struct argp_option options[] = {
    { "to", KEY_TO, "HOST:PORT", 0, "the server; an IPv4 address, or an IPv6 one in brackets", 0 },
    { "user", KEY_USER, "NAME", 0, "with --password: long-term credentials", 0 },
    { "password", KEY_PASSWORD, "PASSWORD", 0, "", 0 },
    { "realm", KEY_REALM, "REALM", 0, "insist on this realm", 0 },
    { "secret", KEY_SECRET, "SECRET", 0, "ephemeral credentials instead, made from this", 0 },
    { "users", KEY_USERS, "N", 0, "with --secret: so many users share the allocations (1)", 0 },
    { "sha256", KEY_SHA256, NULL, 0, "SHA-256 where the server offers it", 0 },
    { "allocations", KEY_ALLOCATIONS, "N", 0, "1 to 10000 (1)", 0 },
    { "peers", KEY_PEERS, "N", 0, "their peers' sockets (one each, 8 at most)", 0 },
    { "transport", KEY_TRANSPORT, "udp|tcp", 0, "to the server (udp)", 0 },
    { "train", KEY_TRAIN, "N", 0, "datagrams that leave in one UDP_SEGMENT send, 1 to 64 (1)", 0 },
    { "size", KEY_SIZE, "BYTES", 0, "of a payload, 20 to 65000 (1200)", 0 },
    { "mode", KEY_MODE, "channel|send", 0, "ChannelData, or Send and Data indications (channel)",
      0 },
    { "direction", KEY_DIRECTION, "up|down|both", 0, "up is from the clients to the peers (up)",
      0 },
    { "echo", KEY_ECHO, NULL, 0, "peers send back what comes; latency is then both ways", 0 },
    { "client-to-client", KEY_C2C, NULL, 0, "allocations in pairs, each the other's peer", 0 },
    { "sink", KEY_SINK, "gro|plain", 0, "receivers take trains (UDP_GRO), or datagrams (gro)", 0 },
    { "plain-senders", KEY_PLAIN, NULL, 0, "a train leaves as single datagrams", 0 },
    { "window", KEY_WINDOW, "N", 0, "datagrams under way at most, without --rate (4 trains, 64)",
      0 },
    { "batch", KEY_BATCH, "N", 0, "trains of one allocation per turn (16 / train)", 0 },
    { "rate", KEY_RATE, "N", 0, "datagrams per second over all; else as fast as they arrive", 0 },
    { "bind", KEY_BIND, "IP,...", 0, "source addresses of clients; the first is the peers' too",
      0 },
    { "alloc-rate", KEY_ALLOC_RATE, NULL, 0,
      "allocate and release, --slots at once, on the same sockets with the same nonces", 0 },
    { "slots", KEY_SLOTS, "N", 0, "--alloc-rate: so many at once (64)", 0 },
    { "fresh", KEY_FRESH, NULL, 0, "--alloc-rate: each time a new socket without a nonce", 0 },
    { "lives", KEY_LIVES, "N", 0,
      "--alloc-rate: measure so many, unless --duration is over before (0: no matter)", 0 },
    { "idle", KEY_IDLE, NULL, 0, "hold allocations, and read the server's memory", 0 },
    { "steps", KEY_STEPS, "N,N,...", 0, "--idle: at so many (--allocations)", 0 },
    { "settle", KEY_SETTLE, "S", 0, "--idle: before reading (1)", 0 },
    { "tcp-relay", KEY_TCP_RELAY, NULL, 0,
      "RFC 6062: Connect to listening peers, ConnectionBind, streams", 0 },
    { "foe", KEY_FOE, "KIND", 0,
      "--slots clients that break the rules, --rate times a second over all; 'list' names kinds",
      0 },
    { "burst-ms", KEY_BURST, "N", 0, "with --rate: what is due leaves so often (0: at once)", 0 },
    { "counters", KEY_COUNTERS, "FILE", 0, "counts and orders are there while this runs", 0 },
    { "bare", KEY_BARE, NULL, 0, "bench-turn listens there: no TURN", 0 },
    { "lossless", KEY_LOSSLESS, NULL, 0, "a lost datagram is a failure", 0 },
    { "duration", KEY_DURATION, "S", 0, "of the measurement (3)", 0 },
    { "warm", KEY_WARM, "S", 0, "before it (0.3)", 0 },
    { "seed", KEY_SEED, "N", 0, "payload, transaction ids (1)", 0 },
    { "sleep", KEY_SLEEP, NULL, 0, "sleep a little where there is nothing to do, not spin", 0 },
    { "server-pid", KEY_PID, "PID", 0, "account this process's CPU and memory", 0 },
    { "kernel-pid", KEY_KERNEL, "PID", 0, "and this kernel thread's CPU (napi/...); repeatable",
      0 },
    { "json", KEY_JSON, NULL, 0, "one JSON object on stdout", 0 },
    { "quiet", KEY_QUIET, NULL, 0, "no progress on stderr", 0 },
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

/* Which of the words, counted from 0. */
static unsigned word(struct argp_state *st, const char *what, const char *text, const char *a,
                     const char *b, const char *c)
{
    if (strcmp(text, a) == 0)
        return 0;
    if (strcmp(text, b) == 0)
        return 1;
    if (!c || strcmp(text, c) != 0)
        argp_error(st, "--%s %s: accepted is %s, %s%s%s", what, text, a, b, c ? ", " : "",
                   c ? c : "");
    return 2;
}

static void set_steps(struct argp_state *st, char *text)
{
    char *save = NULL;

    lt_opt.steps = 0;
    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        unsigned before = lt_opt.steps ? lt_opt.step[lt_opt.steps - 1] + 1 : 1;

        if (lt_opt.steps == LT_STEPS_MAX)
            argp_error(st, "--steps: at most %d", LT_STEPS_MAX);
        lt_opt.step[lt_opt.steps++] = (unsigned)number(st, "steps", w, before, LT_ALLOCS_MAX);
    }
}

static void set_binds(struct argp_state *st, char *text)
{
    char *save = NULL;

    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        struct netaddr *a = &lt_opt.bind[lt_opt.binds];

        if (lt_opt.binds == LT_BINDS_MAX)
            argp_error(st, "--bind: at most %d", LT_BINDS_MAX);
        *a = (struct netaddr){ .ip = { [10] = 0xff, [11] = 0xff } };
        if (!netaddr_parse_ip4(bytes_str(w), a->ip + 12) && !netaddr_parse_ip6(bytes_str(w), a->ip))
            argp_error(st, "--bind %s: accepted is an IPv4 or IPv6 address", w);
        lt_opt.binds++;
    }
}

static error_t parse_flag(int key, struct argp_state *st)
{
    (void)st;
    switch (key) {
    case KEY_SHA256:
        lt_opt.sha256 = true;
        break;
    case KEY_ECHO:
        lt_opt.echo = true;
        break;
    case KEY_C2C:
        lt_opt.c2c = true;
        break;
    case KEY_PLAIN:
        lt_opt.plain = true;
        break;
    case KEY_ALLOC_RATE:
        lt_opt.mode = LT_ALLOC_RATE;
        break;
    case KEY_FRESH:
        lt_opt.fresh = true;
        break;
    case KEY_IDLE:
        lt_opt.mode = LT_IDLE;
        break;
    case KEY_TCP_RELAY:
        lt_opt.mode = LT_TCP_RELAY;
        break;
    case KEY_BARE:
        lt_opt.bare = true;
        break;
    case KEY_LOSSLESS:
        lt_opt.lossless = true;
        break;
    case KEY_SLEEP:
        lt_opt.sleep = true;
        break;
    case KEY_JSON:
        lt_opt.json = true;
        break;
    case KEY_QUIET:
        lt_opt.quiet = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void set_foe(struct argp_state *st, const char *text)
{
    lt_opt.mode = LT_FOE;
    lt_opt.foe = lt_foe_named(text);
    if (!lt_opt.foe)
        argp_error(st, "--foe %s: accepted are %s", text, lt_foe_names());
}

static error_t parse_text(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case KEY_TO:
        if (!netaddr_parse(bytes_str(arg), &lt_opt.at))
            argp_error(st, "--to %s: accepted is IPV4:PORT or [IPV6]:PORT", arg);
        break;
    case KEY_USER:
        lt_opt.user = arg;
        break;
    case KEY_PASSWORD:
        lt_opt.password = arg;
        break;
    case KEY_REALM:
        lt_opt.realm = arg;
        break;
    case KEY_SECRET:
        lt_opt.secret = arg;
        break;
    case KEY_TRANSPORT:
        lt_opt.tcp = word(st, "transport", arg, "udp", "tcp", NULL) == 1;
        break;
    case KEY_MODE:
        lt_opt.send_mode = word(st, "mode", arg, "channel", "send", NULL) == 1;
        break;
    case KEY_DIRECTION:
        lt_opt.way = (enum lt_way)(1 + word(st, "direction", arg, "up", "down", "both"));
        break;
    case KEY_SINK:
        lt_opt.gro = word(st, "sink", arg, "gro", "plain", NULL) == 0;
        break;
    case KEY_BIND:
        set_binds(st, arg);
        break;
    case KEY_FOE:
        set_foe(st, arg);
        break;
    case KEY_COUNTERS:
        lt_opt.counters = arg;
        break;
    case KEY_STEPS:
        set_steps(st, arg);
        break;
    default:
        return parse_flag(key, st);
    }
    return 0;
}

static error_t parse_number(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case KEY_USERS:
        lt_opt.users = (unsigned)number(st, "users", arg, 1, LT_ALLOCS_MAX);
        break;
    case KEY_ALLOCATIONS:
        lt_opt.allocations = (unsigned)number(st, "allocations", arg, 1, LT_ALLOCS_MAX);
        break;
    case KEY_PEERS:
        lt_opt.peers = (unsigned)number(st, "peers", arg, 1, LT_PEERS_MAX);
        break;
    case KEY_TRAIN:
        lt_opt.train = (unsigned)number(st, "train", arg, 1, LT_TRAIN_MAX);
        break;
    case KEY_SIZE:
        lt_opt.size = (unsigned)number(st, "size", arg, LT_STAMP, LT_SIZE_MAX);
        break;
    case KEY_WINDOW:
        lt_opt.window = (unsigned)number(st, "window", arg, 1, 1000000);
        break;
    case KEY_BATCH:
        lt_opt.batch = (unsigned)number(st, "batch", arg, 1, 1000);
        break;
    case KEY_RATE:
        lt_opt.rate = number(st, "rate", arg, 1, 100000000);
        break;
    case KEY_SLOTS:
        lt_opt.slots = (unsigned)number(st, "slots", arg, 1, LT_ALLOCS_MAX);
        break;
    case KEY_LIVES:
        lt_opt.lives = number(st, "lives", arg, 0, UINT32_MAX);
        break;
    case KEY_BURST:
        lt_opt.burst_ms = (unsigned)number(st, "burst-ms", arg, 0, 1000);
        break;
    case KEY_SETTLE:
        lt_opt.settle_s = seconds(st, "settle", arg);
        break;
    case KEY_DURATION:
        lt_opt.duration_s = seconds(st, "duration", arg);
        break;
    case KEY_WARM:
        lt_opt.warm_s = seconds(st, "warm", arg);
        break;
    case KEY_SEED:
        lt_opt.seed = number(st, "seed", arg, 0, UINT64_MAX);
        break;
    case KEY_PID:
        lt_opt.server_pid = (pid_t)number(st, "server-pid", arg, 1, 1 << 30);
        break;
    case KEY_KERNEL:
        if (lt_opt.kernel_pids == LT_KERNEL_MAX)
            argp_error(st, "--kernel-pid: at most %d", LT_KERNEL_MAX);
        lt_opt.kernel_pid[lt_opt.kernel_pids++] = (pid_t)number(st, "kernel-pid", arg, 1, 1 << 30);
        break;
    default:
        return parse_text(key, arg, st);
    }
    return 0;
}

/* Options that do not go together, before anything is sent. */
static void check(struct argp_state *st)
{
    /* What a train of Send indications has around each payload is the most there is. */
    size_t most = lt_opt.size + 3u + (lt_opt.send_mode ? (unsigned)STUN_DATA_HEAD_MAX : 4u);

    if (!lt_opt.at.port)
        argp_error(st, "where is the server? --to HOST:PORT");
    if (!lt_opt.bare && !lt_opt.secret && !(lt_opt.user && lt_opt.password))
        argp_error(st, "credentials? --secret, or --user and --password");
    if (lt_opt.train * most > LT_TRAIN_BYTES + 3u)
        argp_error(st, "--train %u of --size %u: one send takes %zu at most", lt_opt.train,
                   lt_opt.size, LT_TRAIN_BYTES / most);
    if (lt_opt.mode == LT_FOE && (lt_opt.bare || !lt_opt.rate))
        argp_error(st, "--foe: needs a --rate, and a TURN server");
    if (lt_opt.c2c && (lt_opt.echo || lt_opt.way != LT_UP || lt_opt.allocations % 2))
        argp_error(st, "--client-to-client: an even number of allocations, no echo or direction");
    if (lt_opt.echo && lt_opt.way != LT_UP)
        argp_error(st, "--echo goes both ways by itself: no --direction");
    if (lt_opt.bare && lt_opt.mode != LT_TCP_RELAY &&
        (lt_opt.allocations != 1 || lt_opt.tcp || lt_opt.way != LT_UP || lt_opt.echo ||
         lt_opt.c2c || lt_opt.mode == LT_ALLOC_RATE || lt_opt.mode == LT_IDLE))
        argp_error(st, "--bare: one flow up, nothing else");
    for (unsigned i = 0; i < lt_opt.binds; i++)
        if (netaddr_is4(&lt_opt.bind[i]) != netaddr_is4(&lt_opt.at))
            argp_error(st, "--bind: addresses of the server's family");
}

static error_t parse_opt(int key, char *arg, struct argp_state *st)
{
    switch (key) {
    case ARGP_KEY_ARG:
        argp_error(st, "%s: unknown", arg);
        break;
    case ARGP_KEY_END:
        check(st);
        break;
    default:
        return parse_number(key, arg, st);
    }
    return 0;
}

void lt_parse(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_opt,
        "--to HOST:PORT",
        "Load on a TURN server: many clients and their peers on one thread. Exit status 0: all "
        "that "
        "arrived was as it was sent; 1: not so, or the server refused; 2: bad usage.",
        NULL,
        NULL,
        NULL
    };

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    if (!lt_opt.peers)
        lt_opt.peers = (unsigned)min_sz(lt_opt.allocations, 8);
    if (!lt_opt.batch)
        lt_opt.batch = lt_opt.train >= 16 ? 1 : 16 / lt_opt.train;
    if (!lt_opt.window)
        lt_opt.window = lt_opt.train * 4 > 64 ? lt_opt.train * 4 : 64;
    if (!lt_opt.steps) {
        lt_opt.step[0] = lt_opt.allocations;
        lt_opt.steps = 1;
    }
    if (lt_opt.mode == LT_IDLE)
        lt_opt.allocations = lt_opt.step[lt_opt.steps - 1];
    if (lt_opt.mode == LT_ALLOC_RATE || lt_opt.mode == LT_FOE)
        lt_opt.allocations = lt_opt.slots;
}

const char *lt_mode_name(void)
{
    static const char *const names[] = { "flow", "alloc-rate", "idle", "tcp-relay", "foe" };

    return names[lt_opt.mode];
}
