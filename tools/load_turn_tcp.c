/* tools/load_turn_tcp.c: streams through TCP allocations (RFC 6062), or through a bare splice loop.
 * Each allocation has one; both of its ends are here, and every byte is compared. */
#include "tools/load_turn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    SLICE = 65536, /* of a send: what lt_pool_at has at least */
    READ = 1 << 18,
    SENDS = 4, /* per turn and direction */
    WAIT_MS = 5000,
    DRAIN_NS = 500000000,
    NAP_NS = 50000,
    BACKLOG = 4096,
    BARE_HELLO = 24,
    ANSWER_MAX = 1024,
    BIND_TRIES = 3,
};

struct pipe {
    int fd[2];         /* the client's end, the peer's */
    uint64_t sent[2];  /* up, down */
    uint64_t taken[2]; /* and what has arrived */
    bool over;
};

static struct {
    struct pipe *pipes;
    int listener;
    bool flowing;
    uint8_t read[READ];
} g;

static void listen_here(void)
{
    struct netaddr at;

    lt_peers_open(); /* only to know where we are */
    at = lt_peers[0].addr;
    at.port = 0;
    union lt_sa s;
    socklen_t n = lt_sa_of(&at, &s);

    g.listener = socket(s.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (g.listener < 0 || bind(g.listener, &s.sa, n) < 0 || listen(g.listener, BACKLOG) < 0)
        lt_die("listen: %s", strerror(errno));
    at = lt_local(g.listener);
    lt_peers[0].addr = at;
}

static bool readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, WAIT_MS) == 1;
}

/* The peer's end; from: where it came from. */
static int accept_one(struct netaddr *from)
{
    union lt_sa s;
    socklen_t n = sizeof(s);
    int fd =
        readable(g.listener) ? accept4(g.listener, &s.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;

    if (fd < 0)
        lt_die("the server does not connect to the peer");
    *from = lt_sa_addr(&s);
    return fd;
}

static void all_of(int fd, const uint8_t *p, size_t n)
{
    struct pollfd out = { .fd = fd, .events = POLLOUT };

    while (n) {
        ssize_t sent = poll(&out, 1, WAIT_MS) == 1 ? send(fd, p, n, MSG_NOSIGNAL) : -1;

        if (sent < 0)
            lt_die("a data connection: %s", strerror(errno));
        p += sent;
        n -= (size_t)sent;
    }
}

/* Exactly the answer, for what follows it is the peer's. */
static unsigned read_answer(struct lt_alloc *a, int fd)
{
    uint8_t buf[ANSWER_MAX];
    size_t have = 0, want = STUN_HEADER;

    while (have < want) {
        ssize_t got = readable(fd) ? recv(fd, buf + have, want - have, 0) : 0;

        if (got <= 0)
            lt_die("no answer to ConnectionBind");
        have += (size_t)got;
        if (have == STUN_HEADER)
            want = STUN_HEADER + ((size_t)buf[2] << 8 | buf[3]);
        if (want > sizeof(buf))
            lt_die("the answer to ConnectionBind is %zu bytes long", want);
    }
    return lt_client_answer(a, bytes_of(buf, have));
}

/* The nonce may be good for the control connection only, and is then to be had here. */
static void connection_bind(struct lt_alloc *a, int fd)
{
    uint8_t buf[ANSWER_MAX];
    unsigned code = 0;

    for (int i = 0; i < BIND_TRIES; i++) {
        all_of(fd, buf, lt_client_connection_bind(a, a->connection_id, buf, sizeof(buf)));
        code = read_answer(a, fd);
        if (code != 401 && code != 438)
            break;
    }
    if (code)
        lt_die("ConnectionBind: %u", code);
}

static void on_state(struct lt_alloc *a, const char *why)
{
    if (why)
        lt_die("allocation %u: %s", a->id, why);
}

static void permit_one(struct lt_alloc *a)
{
    a->peer = lt_peers[0].addr;
    lt_client_permit(a);
}

static void turn_setup(void)
{
    lt_on_state = on_state;
    lt_each(0, lt_opt.allocations, lt_allocate_one, "allocating");
    lt_each(0, lt_opt.allocations, permit_one, "permitting");
    lt_each(0, lt_opt.allocations, lt_client_connect, "connecting");
    for (unsigned i = 0; i < lt_opt.allocations; i++) {
        struct netaddr from;
        int fd = accept_one(&from);
        unsigned of = 0;

        while (of < lt_opt.allocations && memcmp(&lt_allocs[of].relayed, &from, sizeof(from)) != 0)
            of++;
        if (of == lt_opt.allocations || g.pipes[of].fd[1] >= 0)
            lt_die("a peer was connected to from nobody's relayed address");
        g.pipes[of].fd[1] = fd;
    }
    for (unsigned i = 0; i < lt_opt.allocations; i++) {
        struct lt_alloc *a = &lt_allocs[i];
        struct netaddr from = a->local;

        from.port = 0;
        g.pipes[i].fd[0] = lt_tcp(&from, &lt_opt.at);
        connection_bind(a, g.pipes[i].fd[0]);
    }
}

/* The bare loop is told where to connect to. */
static void bare_setup(void)
{
    for (unsigned i = 0; i < lt_opt.allocations; i++) {
        uint8_t hello[BARE_HELLO] = "BARE";
        struct netaddr from;

        memcpy(hello + 4, lt_peers[0].addr.ip, 16);
        put_u16(hello + 20, lt_peers[0].addr.port);
        g.pipes[i].fd[0] = lt_tcp(NULL, &lt_opt.at);
        all_of(g.pipes[i].fd[0], hello, sizeof(hello));
        g.pipes[i].fd[1] = accept_one(&from);
    }
}

static bool pump(struct pipe *p, unsigned way)
{
    uint32_t phase = (uint32_t)(p - g.pipes) * 2 + way;
    bool some = false;

    for (int i = 0; i < SENDS; i++) {
        size_t n;
        const uint8_t *from = lt_pool_at(phase, p->sent[way], &n);
        ssize_t sent = send(p->fd[way], from, min_sz(n, SLICE), MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent <= 0) {
            if (sent < 0 && errno != EAGAIN)
                p->over = true;
            break;
        }
        p->sent[way] += (uint64_t)sent;
        lt_totals.sent += (uint64_t)sent;
        some = true;
    }
    return some;
}

static bool take(struct pipe *p, unsigned way)
{
    uint32_t phase = (uint32_t)(p - g.pipes) * 2 + way;
    ssize_t got = recv(p->fd[!way], g.read, sizeof(g.read), MSG_DONTWAIT);
    struct bytes in;

    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            p->over = true;
        return false;
    }
    lt_reads++;
    in = bytes_of(g.read, (size_t)got);
    while (in.n) {
        size_t n;
        const uint8_t *want = lt_pool_at(phase, p->taken[way], &n);

        n = min_sz(n, in.n);
        if (memcmp(want, in.p, n) != 0)
            lt_totals.mismatches++;
        p->taken[way] += n;
        lt_totals.bytes += n;
        in.p += n;
        in.n -= n;
    }
    if (p->taken[way] > p->sent[way])
        lt_totals.mismatches++;
    return true;
}

static bool turn(void)
{
    bool some = false;

    for (unsigned i = 0; i < lt_opt.allocations; i++) {
        struct pipe *p = &g.pipes[i];

        if (p->over)
            continue;
        for (unsigned way = 0; way < 2; way++) {
            if (!(lt_opt.way & 1 << way))
                continue;
            if (g.flowing)
                some |= pump(p, way);
            some |= take(p, way);
        }
        if (p->over) {
            lt_progress("stream %u ended", i);
            lt_totals.failed++;
        }
    }
    if (!some && lt_opt.sleep) {
        struct timespec nap = { 0, NAP_NS };

        nanosleep(&nap, NULL);
    }
    return some;
}

static void run_for(double s)
{
    uint64_t until = load_now_ns() + (uint64_t)(s * 1e9), cold = 0, now;

    while ((now = load_now_ns()) < until) {
        turn();
        if (now - cold > 20000000) {
            cold = now;
            lt_poll(0);
            lt_tick_all(now / 1000000);
            lt_progress("%llu MiB", (unsigned long long)lt_totals.bytes >> 20);
        }
    }
}

int lt_run_tcp(void)
{
    static struct lt_report report;
    uint64_t quiet;

    ASSERT((g.pipes = calloc(lt_opt.allocations, sizeof(*g.pipes))) != NULL);
    for (unsigned i = 0; i < lt_opt.allocations; i++)
        g.pipes[i].fd[0] = g.pipes[i].fd[1] = -1;
    listen_here();
    if (lt_opt.bare)
        bare_setup();
    else
        turn_setup();
    g.flowing = true;
    run_for(lt_opt.warm_s);
    lt_report_begin(&report);
    run_for(lt_opt.duration_s);
    lt_report_end(&report);
    g.flowing = false;
    for (quiet = load_now_ns(); load_now_ns() - quiet < DRAIN_NS;)
        if (turn())
            quiet = load_now_ns();
    for (unsigned i = 0; i < lt_opt.allocations; i++)
        for (unsigned way = 0; way < 2; way++)
            lt_totals.failed += !g.pipes[i].over && g.pipes[i].taken[way] != g.pipes[i].sent[way];
    lt_totals.received = lt_totals.bytes;
    if (!lt_opt.bare)
        lt_teardown();
    return lt_report_print(&report);
}
