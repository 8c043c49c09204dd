/* load-rdv: what a relay's rendezvous bears: registrations under distinct namespaces as fast as
 * they are acknowledged, with so many present; then DISCOVER of one namespace with a hundred
 * records, one after the other and many at once. One thread, poll(2), on tools/p2p and proto/rdv.
 */
#include "proto/rdv.h"
#include "proto/varint.h"
#include "tools/load_stat.h"
#include "tools/p2p.h"

#include <argp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    CONNS_MAX = 1000,
    DEPTH_MAX = P2P_STREAMS / 2, /* streams linger until both FINs have passed */
    CROWD = 100,                 /* records of the namespace that is discovered */
    RECORD_ROOM = 512,
    GIVE_UP_S = 30, /* without any answer */
};

static struct {
    struct sockaddr_in at;
    unsigned conns, depth, rate;
    uint64_t fill, seed;
    double duration_s;
    int server_pid, shard;
    const char *admin; /* NULL: connections lie as they fall */
    bool json;
} opt = { .conns = 128, .depth = 8, .duration_s = 3, .seed = 1 };

enum phase { PH_CONNECT, PH_CROWD, PH_FILL, PH_REGISTER, PH_ONE, PH_MANY, PH_END };
static const char *const phase_names[] = { "connect",  "crowd",        "fill",
                                           "register", "discover one", "discover many" };

struct op {
    bool waiting;
    uint64_t began_ns;
};

struct client {
    struct p2p_env env;
    struct p2p conn;
    struct op op[P2P_STREAMS]; /* by the stream's slot */
    unsigned waiting;          /* of them */
    bool crowded;              /* its record of the crowd is registered, or asked for */
    uint8_t record[RECORD_ROOM];
    size_t record_n;
};

/* One phase's answers. */
struct tally {
    struct load_hist latency;
    struct load_usage used;
    uint64_t n, refused, lost, bytes, records;
};

static struct {
    struct client *all;
    enum phase phase;
    unsigned up;
    unsigned waiting; /* requests, of all */
    uint64_t begun;   /* requests of this phase */
    uint64_t ns;      /* the next namespace's number */
    uint64_t ends_ns, heard_ns, phase_ns;
    struct tally tally[PH_END];
} run;

_Noreturn PRINTF_LIKE(1, 2) static void die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "load-rdv: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

/* ---- requests ------------------------------------------------------------------------------ */

static bool may_ask(const struct client *c)
{
    bool open = run.phase == PH_FILL || run.ends_ns > load_now_ns();
    uint64_t due;

    switch (run.phase) {
    case PH_CROWD:
        return !c->crowded && c < run.all + CROWD;
    case PH_FILL:
        return c->waiting < opt.depth && run.begun < opt.fill;
    case PH_REGISTER:
        due = (uint64_t)((double)(load_now_ns() - run.phase_ns) * 1e-9 * opt.rate);
        return open && c->waiting < opt.depth && (!opt.rate || run.begun < due);
    case PH_ONE:
        /* In turns: the relay bears 1000 a second of one connection. */
        return open && !run.waiting && c == run.all + run.begun % opt.conns;
    case PH_MANY:
        return open && c->waiting < opt.depth;
    default:
        return false;
    }
}

static bool ask(struct client *c)
{
    bool crowd = run.phase == PH_CROWD, finds = run.phase > PH_REGISTER;
    uint8_t buf[RECORD_ROOM + 128];
    char ns[64];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct rdv_msg m = { .type = finds ? RDV_DISCOVER : RDV_REGISTER, .has_ns = true };

    if (crowd || finds)
        snprintf(ns, sizeof(ns), "crowd-%" PRIu64, opt.seed);
    else /* spread over the store as names of communities are */
        snprintf(ns, sizeof(ns), "%016" PRIx64 "-%" PRIu64, run.ns * UINT64_C(0x9e3779b97f4a7c15),
                 opt.seed);
    run.ns += !crowd && !finds;
    m.ns = bytes_str(ns);
    if (!finds)
        m.record = bytes_of(c->record, c->record_n);
    rdv_put_request(&w, &m);
    ASSERT(!w.bad);

    struct p2p_stream *s = p2p_open(&c->conn, RDV_PROTOCOL, 0, bytes_of(buf, w.wrote));

    if (!s)
        return false; /* all slots linger */
    c->op[s - c->conn.stream] = (struct op){ true, load_now_ns() };
    c->waiting++;
    run.waiting++;
    c->crowded |= crowd;
    run.begun++;
    return true;
}

/* ---- answers ------------------------------------------------------------------------------- */

static void answered(struct p2p_stream *s, struct bytes body, size_t whole)
{
    struct client *c = s->conn->arg;
    struct tally *t = &run.tally[run.phase];
    struct op *op = &c->op[s - s->conn->stream];
    struct rdv_reply reply;
    bool ok = rdv_reply_decode(body, &reply) && reply.has_status && reply.status == RDV_OK;

    if (!op->waiting)
        return;
    op->waiting = false;
    c->waiting--;
    run.waiting--;
    run.heard_ns = load_now_ns();
    load_hist_add(&t->latency, run.heard_ns - op->began_ns);
    t->n++;
    t->refused += !ok;
    t->bytes += whole;
    t->records += ok && reply.type == RDV_DISCOVER_REPLY ? reply.n : 0;
}

static void on_data(struct p2p_stream *s, struct bytes data)
{
    struct bytes have;
    uint64_t len;
    size_t head;

    p2p_queue_put(&s->in, data);
    p2p_consumed(s, data.n);
    have = p2p_queue_front(&s->in);
    if (varint_peek(have, &len, &head) == VARINT_OK && have.n - head >= len)
        answered(s, bytes_of(have.p + head, (size_t)len), head + (size_t)len);
}

static void on_fin(struct p2p_stream *s)
{
    (void)p2p_send(s, bytes_of("", 0), true);
}

static void on_gone(struct p2p_stream *s, bool reset)
{
    struct client *c = s->conn->arg;
    struct op *op = &c->op[s - s->conn->stream];

    (void)reset;
    if (op->waiting) { /* ended without an answer */
        run.tally[run.phase].lost++;
        op->waiting = false;
        c->waiting--;
        run.waiting--;
    }
}

static void on_up(struct p2p *c)
{
    (void)c;
    run.up++;
    run.heard_ns = load_now_ns();
}

static const struct mss_proto protos[] = { { IDENT_PROTOCOL, P2P_IDENT },
                                           { PING_PROTOCOL, P2P_PING },
                                           { NULL, 0 } };
static const char *const names[] = { IDENT_PROTOCOL, PING_PROTOCOL, NULL };
static const struct p2p_app app = {
    .protos = protos,
    .names = names,
    .on_up = on_up,
    .on_data = on_data,
    .on_fin = on_fin,
    .on_gone = on_gone,
};

/* ---- placement ----------------------------------------------------------------------------- */

/* The shard that the relay's admin socket says for each local port. */
static void ask_shards(int8_t by_port[65536])
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char line[2048];
    FILE *f;

    if (strlen(opt.admin) >= sizeof(a.sun_path))
        die("--admin: the path is too long");
    memcpy(a.sun_path, opt.admin, strlen(opt.admin));
    if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)) < 0 ||
        !(f = fdopen(fd, "r+e")))
        die("admin socket %s: %s", opt.admin, strerror(errno));
    memset(by_port, -1, 65536);
    fputs("conns\n", f);
    fflush(f);
    while (fgets(line, sizeof(line), f)) {
        const char *remote = strstr(line, "\"remote\":\""), *shard = strstr(line, "\"shard\":");
        const char *colon = remote ? strchr(remote + 10, ':') : NULL;

        if (colon && shard)
            by_port[strtoul(colon + 1, NULL, 10) & 0xffff] = (int8_t)atoi(shard + 8);
    }
    fclose(f);
}

static int dial(unsigned i);

/* All on the shard that was asked for: who is not dials again, from another port. */
static void dial_all(int *fds)
{
    static int8_t by_port[65536];

    for (unsigned i = 0; i < opt.conns; i++)
        fds[i] = dial(i);
    for (unsigned wrong = opt.conns, round = 0; opt.admin && wrong; round++) {
        if (round == 40)
            die("--shard: %u connections are still elsewhere; has the relay that shard?", wrong);
        usleep(50000); /* the last ones are being accepted */
        ask_shards(by_port);
        wrong = 0;
        for (unsigned i = 0; i < opt.conns; i++) {
            struct sockaddr_in at;
            socklen_t n = sizeof(at);

            if (getsockname(fds[i], (struct sockaddr *)&at, &n))
                die("getsockname: %s", strerror(errno));
            if (by_port[ntohs(at.sin_port)] == opt.shard)
                continue;
            wrong++;
            close(fds[i]);
            fds[i] = dial(i);
        }
    }
}

/* ---- the run ------------------------------------------------------------------------------- */

/* From addresses of a few /24, so that limits per address stay out of it. */
static int dial(unsigned i)
{
    struct sockaddr_in from = { .sin_family = AF_INET };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    from.sin_addr.s_addr = htonl(UINT32_C(0x7f400001) + ((i / 8) << 8) + i % 8);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
        die("socket: %s", strerror(errno));
    if (ntohl(opt.at.sin_addr.s_addr) >> 24 == 127 &&
        bind(fd, (const struct sockaddr *)&from, sizeof(from)))
        die("bind: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&opt.at, sizeof(opt.at)))
        die("connect: %s", strerror(errno));
    if (fcntl(fd, F_SETFL, O_NONBLOCK))
        die("fcntl: %s", strerror(errno));
    return fd;
}

static void client_start(struct client *c, unsigned i, int fd)
{
    static const uint8_t addr[] = { 4, 127, 0, 0, 1, 6, 0x0f, 0xa1 };
    uint64_t text[2] = { opt.seed, i };
    struct bytes multiaddr = bytes_of(addr, sizeof(addr));
    struct wcur w = wcur_of(c->record, sizeof(c->record));
    uint8_t seed[32];

    crypto_sha256(bytes_of(text, sizeof(text)), seed);
    p2p_env_init(&c->env, seed, "load-rdv");
    peer_record_seal(&w, &c->env.me, 1, &multiaddr, 1);
    ASSERT(!w.bad);
    c->record_n = w.wrote;
    p2p_init(&c->conn, &c->env, &app, fd);
    c->conn.arg = c;
}

static void turn(int wait_ms)
{
    static struct pollfd fds[CONNS_MAX];

    for (unsigned i = 0; i < opt.conns; i++)
        fds[i] = (struct pollfd){ run.all[i].conn.fd, p2p_events(&run.all[i].conn), 0 };
    if (poll(fds, opt.conns, wait_ms) < 0 && errno != EINTR)
        die("poll: %s", strerror(errno));
    for (unsigned i = 0; i < opt.conns; i++) {
        struct client *c = &run.all[i];

        if (fds[i].revents)
            p2p_on_poll(&c->conn, fds[i].revents);
        if (c->conn.state == P2P_CLOSED)
            die("%s: %s", phase_names[run.phase], c->conn.why);
        bool asked = false;

        while (c->conn.out.n < P2P_OUT_HIGH && may_ask(c) && ask(c))
            asked = true;
        if (asked)
            p2p_on_poll(&c->conn, 0);
    }
    if (load_now_ns() - run.heard_ns > GIVE_UP_S * UINT64_C(1000000000))
        die("%s: no answer for %d s", phase_names[run.phase], GIVE_UP_S);
}

static bool phase_over(void)
{
    switch (run.phase) {
    case PH_CONNECT:
        return run.up == opt.conns;
    case PH_CROWD:
        return run.begun == CROWD && !run.waiting;
    case PH_FILL:
        return run.begun == opt.fill && !run.waiting;
    default:
        return load_now_ns() >= run.ends_ns && !run.waiting;
    }
}

static void phase_run(enum phase phase)
{
    struct load_usage at, now;

    run.phase = phase;
    run.begun = 0;
    run.phase_ns = run.heard_ns = load_now_ns();
    run.ends_ns = run.phase_ns + (uint64_t)(opt.duration_s * 1e9);
    load_usage_now(opt.server_pid, NULL, 0, &at);
    while (!phase_over())
        turn(phase == PH_ONE ? 0 : opt.rate && phase == PH_REGISTER ? 1 : 100);
    load_usage_now(opt.server_pid, NULL, 0, &now);
    run.tally[phase].used = load_usage_since(&now, &at);
}

/* ---- options, report ----------------------------------------------------------------------- */

static bool report_one(enum phase phase, const char *sep)
{
    const struct tally *t = &run.tally[phase];
    double s = (double)t->used.wall_ns * 1e-9, n = t->n ? (double)t->n : 1;

    printf("%s\"%s\":{\"n\":%" PRIu64 ",\"seconds\":%.3f,\"per_s\":%.1f,\"refused\":%" PRIu64
           ",\"lost\":%" PRIu64 ",\"latency_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
           "\"max\":%.1f},\"server_cpu_us\":%.2f,\"softirq_us\":%.2f,\"generator_cpu_us\":%.2f,"
           "\"bytes_each\":%.0f,\"records_each\":%.2f}",
           sep, phase_names[phase], t->n, s, (double)t->n / s, t->refused, t->lost,
           load_hist_us(&t->latency, 0.5), load_hist_us(&t->latency, 0.9),
           load_hist_us(&t->latency, 0.99), (double)t->latency.max_ns * 1e-3,
           (double)t->used.server_ns * 1e-3 / n, (double)t->used.softirq_ns * 1e-3 / n,
           (double)t->used.self_ns * 1e-3 / n, (double)t->bytes / n, (double)t->records / n);
    return !t->refused && !t->lost && (phase < PH_ONE || t->records == t->n * CROWD);
}

static int report(void)
{
    bool ok = true;

    printf("{\"connections\":%u,\"depth\":%u,\"present\":%" PRIu64 ",", opt.conns, opt.depth,
           CROWD + run.tally[PH_FILL].n + run.tally[PH_REGISTER].n);
    for (enum phase ph = PH_CROWD; ph < PH_END; ph++)
        ok &= report_one(ph, ph > PH_CROWD ? "," : "");
    printf(",\"ok\":%s}\n", ok ? "true" : "false");
    return ok ? 0 : 1;
}

enum {
    KEY_CONNS = 256,
    KEY_DEPTH,
    KEY_FILL,
    KEY_DURATION,
    KEY_SEED,
    KEY_PID,
    KEY_RATE,
    KEY_ADMIN,
    KEY_SHARD
};
static const struct argp_option options[] = {
    { "conns", KEY_CONNS, "N", 0, "connections, a peer each (128; 100 at least)", 0 },
    { "depth", KEY_DEPTH, "N", 0, "requests that each waits for at a time (8)", 0 },
    { "fill", KEY_FILL, "N", 0, "registrations before anything is measured (0)", 0 },
    { "rate", KEY_RATE, "N", 0, "registrations per second (0: as they are acknowledged)", 0 },
    { "duration", KEY_DURATION, "S", 0, "of each measurement (3)", 0 },
    { "seed", KEY_SEED, "N", 0, "of peers and namespaces (1)", 0 },
    { "admin", KEY_ADMIN, "SOCKET", 0, "the relay's, for --shard", 0 },
    { "shard", KEY_SHARD, "N", 0, "all connections on this one; needs --admin", 0 },
    { "server-pid", KEY_PID, "PID", 0, "whose CPU is told", 0 },
    { 0 },
};

static double number(struct argp_state *st, const char *arg, double lo, double hi)
{
    char *end;
    double v = strtod(arg, &end);

    if (*end || end == arg || !(v >= lo && v <= hi))
        argp_error(st, "%s: from %.0f to %.0f", arg, lo, hi);
    return v;
}

static error_t parse_one(int key, char *arg, struct argp_state *st)
{
    char *port;

    switch (key) {
    case KEY_CONNS:
        opt.conns = (unsigned)number(st, arg, CROWD, CONNS_MAX);
        return 0;
    case KEY_DEPTH:
        opt.depth = (unsigned)number(st, arg, 1, DEPTH_MAX);
        return 0;
    case KEY_FILL:
        opt.fill = (uint64_t)number(st, arg, 0, 1e9);
        return 0;
    case KEY_RATE:
        opt.rate = (unsigned)number(st, arg, 0, 1e7);
        return 0;
    case KEY_DURATION:
        opt.duration_s = number(st, arg, 0.01, 3600);
        return 0;
    case KEY_SEED:
        opt.seed = (uint64_t)number(st, arg, 0, 1e15);
        return 0;
    case KEY_ADMIN:
        opt.admin = arg;
        return 0;
    case KEY_SHARD:
        opt.shard = (int)number(st, arg, 0, 63);
        return 0;
    case KEY_PID:
        opt.server_pid = (int)number(st, arg, 1, 1 << 22);
        return 0;
    case ARGP_KEY_ARG:
        port = strrchr(arg, ':');
        if (!port)
            argp_error(st, "%s: IP:PORT", arg);
        *port++ = 0;
        opt.at.sin_family = AF_INET;
        opt.at.sin_port = htons((uint16_t)number(st, port, 1, 65535));
        if (inet_pton(AF_INET, arg, &opt.at.sin_addr) != 1)
            argp_error(st, "%s: not an IPv4 address", arg);
        return 0;
    case ARGP_KEY_END:
        if (!opt.at.sin_port)
            argp_error(st, "where is the relay?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp parser = {
        options, parse_one, "IP:PORT", "load-rdv -- registrations and discoveries, measured; JSON",
        NULL,    NULL,      NULL
    };

    static int fds[CONNS_MAX];

    argp_parse(&parser, argc, argv, 0, NULL, NULL);
    crypto_init();
    run.all = calloc(opt.conns, sizeof(*run.all));
    ASSERT(run.all != NULL);
    dial_all(fds);
    for (unsigned i = 0; i < opt.conns; i++)
        client_start(&run.all[i], i, fds[i]);
    for (enum phase ph = PH_CONNECT; ph < PH_END; ph++)
        phase_run(ph);
    return report();
}
