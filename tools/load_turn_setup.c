/* tools/load_turn_setup.c: everybody's sockets, allocations made and given up. */
#include "tools/load_turn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS = 256, TICK_MS = 20, LEAVE_MS = 3000 };

static int epoll_fd = -1;

_Noreturn void lt_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "load-turn: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

void lt_progress(const char *fmt, ...)
{
    static uint64_t last;
    uint64_t now = load_now_ns();
    va_list ap;

    if (lt_opt.quiet || now - last < 1000000000)
        return;
    last = now;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
}

uint64_t lt_now_ms(void)
{
    return load_now_ns() / 1000000;
}

/* ---- what comes ---------------------------------------------------------------------------- */

static void on_indication(struct lt_alloc *a, struct bytes dg)
{
    struct stun_msg m;
    struct stun_addr peer;

    if (stun_decode(dg, 0, &m) != STUN_OK || !stun_addr(&m, STUN_XOR_PEER_ADDRESS, &peer) ||
        memcmp(&peer.addr, &a->peer, sizeof(peer.addr)) != 0) {
        lt_totals.mismatches++;
        return;
    }
    if (stun_has(&m, STUN_DATA)) /* else it tells of an ICMP error */
        lt_payload_in(a, NULL, stun_value(&m, STUN_DATA));
}

static void on_unit(void *arg, enum frame f, struct bytes unit)
{
    struct lt_alloc *a = arg;
    struct chandata c;

    if (f == FRAME_CHANNEL) {
        if (chandata_decode(unit, &c) && c.channel == a->channel)
            lt_payload_in(a, NULL, c.data);
        else
            lt_totals.mismatches++;
        return;
    }
    if (unit.n > 2 && unit.p[0] == 0 && unit.p[1] == stun_type(STUN_DATA_METHOD, STUN_INDICATION))
        on_indication(a, unit);
    else
        lt_client_message(a, unit);
}

static void on_client(void *arg, const union lt_sa *from, struct bytes dg)
{
    (void)from; /* the socket is connected */
    if (dg.n && first_byte(dg.p[0], false) == FIRST_CHANNEL)
        on_unit(arg, FRAME_CHANNEL, dg);
    else
        on_unit(arg, FRAME_STUN, dg);
}

/* What a peer sends back, gathered as it came: bodies lie in the receive's buffers. */
static struct {
    struct lt_train t;
    union lt_sa to;
    int fd;
} echo;

static void echo_flush(void)
{
    socklen_t n = echo.to.sa.sa_family == AF_INET ? sizeof(echo.to.v4) : sizeof(echo.to.v6);

    for (int tries = 0; echo.t.n && tries < 100; tries++)
        if (lt_send_train(echo.fd, &echo.to, n, &echo.t))
            break;
    echo.t.n = 0;
}

static void on_peer(void *arg, const union lt_sa *from, struct bytes dg)
{
    struct lt_peer *p = arg;

    lt_payload_in(NULL, from, dg);
    if (!lt_opt.echo)
        return;
    if (echo.t.n && (echo.t.n == lt_opt.train || echo.fd != p->fd || echo.t.segment != dg.n ||
                     memcmp(&echo.to, from, sizeof(*from)) != 0))
        echo_flush();
    echo.to = *from;
    echo.fd = p->fd;
    echo.t.segment = dg.n;
    echo.t.dg[echo.t.n].head_n = 0;
    echo.t.dg[echo.t.n].pad = 0;
    echo.t.dg[echo.t.n++].body = dg;
}

bool lt_read_peer(struct lt_peer *p)
{
    unsigned n = lt_receive(p->fd, lt_opt.gro, on_peer, p);

    echo_flush();
    return n > 0;
}

bool lt_read_client(struct lt_alloc *a)
{
    uint64_t before = lt_reads;

    if (!a->stream)
        return lt_receive(a->fd, lt_opt.gro, on_client, a) > 0;
    (void)lt_stream_flush(a->fd, a->stream);
    if (!a->stream->over && !lt_stream_read(a->fd, a->stream, on_unit, a)) {
        a->stream->over = true;
        lt_poll_forget(a->fd);
        if (a->state != LT_GONE)
            lt_on_state(a, "the server has closed the connection");
    }
    return lt_reads != before;
}

void lt_poll_init(void)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(epoll_fd >= 0);
}

void lt_poll_add(int fd, void *who)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = who };

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        lt_die("epoll: %s", strerror(errno));
}

void lt_poll_forget(int fd)
{
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

bool lt_poll(int wait_ms)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(epoll_fd, ev, EVENTS, wait_ms);
    bool some = false;

    for (int i = 0; i < n; i++) {
        void *who = ev[i].data.ptr;

        if (who >= (void *)lt_peers && who < (void *)(lt_peers + LT_PEERS_MAX))
            some |= lt_read_peer(who);
        else if (((struct lt_alloc *)who)->fd >= 0)
            some |= lt_read_client(who);
    }
    return some;
}

void lt_tick_all(uint64_t now_ms)
{
    static uint64_t last;

    if (now_ms - last < TICK_MS)
        return;
    last = now_ms;
    for (unsigned i = 0; i < lt_opt.allocations; i++) {
        struct lt_alloc *a = &lt_allocs[i];

        if (a->stream && a->fd >= 0 && !a->stream->over && a->stream->out_n)
            (void)lt_stream_flush(a->fd, a->stream);
        if (a->fd >= 0)
            lt_client_tick(a, now_ms);
    }
}

/* ---- setting up ---------------------------------------------------------------------------- */

/* Where the way to the server begins, for who named no --bind. */
static struct netaddr own_address(void)
{
    struct netaddr a;
    int fd;

    if (lt_opt.binds)
        return lt_opt.bind[0];
    fd = lt_udp(NULL, &lt_opt.at, false);
    a = lt_local(fd);
    close(fd);
    a.port = 0;
    return a;
}

void lt_peers_open(void)
{
    struct netaddr at = own_address();

    for (unsigned i = 0; i < lt_opt.peers; i++) {
        lt_peers[i].fd = lt_udp(&at, NULL, lt_opt.gro);
        lt_peers[i].addr = lt_local(lt_peers[i].fd);
        lt_poll_add(lt_peers[i].fd, &lt_peers[i]);
    }
}

static void on_setup(struct lt_alloc *a, const char *why)
{
    if (why)
        lt_die("allocation %u: %s", a->id, why);
}

/* Every allocation through one step, LT_IN_FLIGHT at once. */
void lt_each(unsigned from, unsigned to, void (*step)(struct lt_alloc *a), const char *what)
{
    for (unsigned at = from; at < to || lt_waiting;) {
        while (at < to && lt_waiting < LT_IN_FLIGHT)
            step(&lt_allocs[at++]);
        lt_poll(10);
        lt_tick_all(lt_now_ms());
        lt_progress("%s: %u of %u", what, at, to);
    }
}

void lt_allocate_one(struct lt_alloc *a)
{
    lt_client_open(a);
    lt_client_allocate(a);
}

static void bind_one(struct lt_alloc *a)
{
    a->peer_idx = a->id % lt_opt.peers;
    a->peer = lt_opt.c2c ? lt_allocs[a->id ^ 1].relayed : lt_peers[a->peer_idx].addr;
    lt_client_bind(a);
}

void lt_setup(void)
{
    lt_on_state = on_setup;
    lt_each(0, lt_opt.allocations, lt_allocate_one, "allocating");
    lt_each(0, lt_opt.allocations, bind_one, "binding");
}

static void on_leave(struct lt_alloc *a, const char *why)
{
    (void)a;
    lt_totals.failed += why != NULL;
}

/* So that the next run finds the server as this one did. */
void lt_teardown(void)
{
    uint64_t until = lt_now_ms() + LEAVE_MS + lt_opt.allocations;
    unsigned at = 0;

    lt_on_state = on_leave;
    while (lt_now_ms() < until && (at < lt_opt.allocations || lt_waiting)) {
        while (at < lt_opt.allocations && lt_waiting < LT_IN_FLIGHT) {
            struct lt_alloc *a = &lt_allocs[at++];

            if (a->fd >= 0 && a->state != LT_GONE)
                lt_client_release(a);
        }
        lt_poll(10);
        lt_tick_all(lt_now_ms());
    }
}
