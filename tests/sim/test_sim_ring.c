/* tests/sim/test_sim_ring.c: the simulated kernel itself. An echo server that keeps all the rules
 * of io_uring.md §6-§8 must survive every fault; one that breaks a rule must be told. */
#include "engine/ring.h"
#include "tests/sim/sim_net.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdlib.h>

#define SIM_SEED "seed %llu", (unsigned long long)seed

enum { OP_ACCEPT = 1, OP_RECV, OP_SEND, OP_CANCEL, OP_BELL };
enum { NS_PER_MS = 1000000, STEPS_MAX = 300000 };

static const struct netaddr here = { .ip = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
                                     .port = 4001 };
static const struct netaddr there = { .ip = { [10] = 0xff, [11] = 0xff, 10, 9, 9, 9 }, .port = 7 };

/* An echo server on one ring. */

enum { CONNS = 24, BYTES_MAX = 32768, BUFS = 8, HELD = 3, RETRY_MS = 100 };

struct echo_conn {
    bool used, recv_armed, sending, ended, closing, dry;
    uint32_t gen;
    int fd;
    unsigned ops;
    size_t in, out; /* bytes of data: received, sent back */
    uint8_t *data;
    struct iovec iov[2];
    struct msghdr msg;
};

struct echo {
    struct sim_net *net;
    struct ring *r, *other;
    int listener;
    bool listening, accept_armed;
    uint64_t accept_at_ms;
    struct echo_conn conn[CONNS];
    uint16_t held[HELD]; /* leased a little longer, so that the group runs dry */
    unsigned held_n, bells, closes_pct;
    uint64_t trace; /* of everything the ring told */
};

static void echo_init(struct echo *e, struct sim_net *net, unsigned closes_pct)
{
    struct ring_opts o = { 16, 256, BUFS, 512, false, NULL };
    const char *what;
    int err;

    *e = (struct echo){ .net = net, .closes_pct = closes_pct };
    e->r = ring_new(&o, &err, &what);
    e->listener = ring_listen_tcp(&here, true, true, 128, NULL);
    cr_assert(le(int, 0, e->listener));
    e->listening = e->accept_armed = true;
    ring_accept(e->r, e->listener, ud_make(OP_ACCEPT, 0, 0));
}

static uint64_t echo_ud(struct echo *e, struct echo_conn *c, uint8_t op)
{
    c->ops++;
    return ud_make(op, c->gen, (uint32_t)(c - e->conn));
}

static void echo_recv(struct echo *e, struct echo_conn *c)
{
    c->recv_armed = true;
    ring_recv(e->r, c->fd, echo_ud(e, c, OP_RECV), false);
}

static void echo_send(struct echo *e, struct echo_conn *c)
{
    size_t n = c->in - c->out;

    if (c->sending || c->closing || n == 0)
        return;
    c->iov[0] = (struct iovec){ c->data + c->out, n / 2 };
    c->iov[1] = (struct iovec){ c->data + c->out + n / 2, n - n / 2 };
    c->msg = (struct msghdr){ .msg_iov = c->iov, .msg_iovlen = 2 };
    c->sending = true;
    ring_sendmsg(e->r, c->fd, &c->msg, echo_ud(e, c, OP_SEND));
}

static void echo_close(struct echo *e, struct echo_conn *c)
{
    if (c->closing)
        return;
    c->closing = true;
    ring_shutdown(c->fd, SHUT_RDWR);
    ring_cancel_fd(e->r, c->fd, echo_ud(e, c, OP_CANCEL));
}

static void echo_accepted(struct echo *e, int fd)
{
    struct echo_conn *c = e->conn;
    struct netaddr peer;

    while (c < e->conn + CONNS && c->used)
        c++;
    if (c == e->conn + CONNS || ring_peername(fd, &peer) != 0) {
        ring_close(e->r, fd);
        return;
    }
    cr_assert(eq(int, memcmp(peer.ip, there.ip, 16), 0));
    *c = (struct echo_conn){ .used = true, .gen = c->gen + 1, .fd = fd };
    c->data = malloc(BYTES_MAX); /* its own, so that a use after free shows */
    echo_recv(e, c);
    ring_doorbell(e->r, e->other, ud_make(OP_BELL, 0, 0));
}

static void echo_on_recv(struct echo *e, struct echo_conn *c, const struct ring_cqe *cqe)
{
    if (cqe->has_buf) {
        cr_assert(le(sz, c->in + (size_t)cqe->res, BYTES_MAX));
        memcpy(c->data + c->in, cqe->buf, (size_t)cqe->res);
        c->in += (size_t)cqe->res;
        if (e->held_n < HELD && sim_chance(e->net, 30))
            e->held[e->held_n++] = cqe->bid;
        else
            ring_buf_return(e->r, cqe->bid);
    }
    if (cqe->more)
        return;
    c->recv_armed = false;
    if (cqe->res == -ENOBUFS)
        c->dry = true;
    else if (cqe->res > 0 && !c->closing)
        echo_recv(e, c);
    else if (cqe->res == 0)
        c->ended = true;
    else if (cqe->res < 0)
        echo_close(e, c);
}

static void echo_on_cqe(struct echo *e, const struct ring_cqe *cqe)
{
    struct echo_conn *c = &e->conn[ud_idx(cqe->ud) % CONNS];

    e->trace = (e->trace ^ cqe->ud ^ (uint64_t)(int64_t)cqe->res ^ cqe->more) * 1099511628211u;
    switch (ud_op(cqe->ud)) {
    case OP_ACCEPT:
        if (cqe->res >= 0)
            echo_accepted(e, cqe->res);
        if (!cqe->more) {
            e->accept_armed = false;
            e->accept_at_ms = sim_net_now_ms(e->net) + (cqe->res < 0 ? RETRY_MS : 0);
        }
        return;
    case OP_BELL:
        e->bells++;
        return;
    default:
        break;
    }
    if (ud_op(cqe->ud) == OP_CANCEL && ud_idx(cqe->ud) == CONNS) /* the listener's */
        return;
    cr_assert(c->used);
    cr_assert(eq(u32, ud_gen(cqe->ud), c->gen));
    c->ops -= !cqe->more;
    if (ud_op(cqe->ud) == OP_RECV) {
        echo_on_recv(e, c, cqe);
    } else if (ud_op(cqe->ud) == OP_SEND) {
        c->sending = false;
        if (cqe->res < 0)
            echo_close(e, c);
        else
            c->out += (size_t)cqe->res;
    }
}

static void echo_conn_turn(struct echo *e, struct echo_conn *c)
{
    if (c->dry && ring_bufs_free(e->r) >= BUFS / 4 && !c->closing) {
        c->dry = false;
        echo_recv(e, c);
    }
    echo_send(e, c);
    if ((c->ended && c->in == c->out) || sim_chance(e->net, e->closes_pct))
        echo_close(e, c);
    if (!c->closing || c->ops > 0)
        return;
    ring_close(e->r, c->fd);
    free(c->data);
    c->data = NULL;
    c->used = false;
}

static void echo_turn(struct echo *e)
{
    uint64_t now = sim_net_now_ms(e->net), wait = UINT64_MAX;
    struct ring_cqe cqe;

    if (e->listening && !e->accept_armed)
        wait = e->accept_at_ms <= now ? 0 : (e->accept_at_ms - now) * NS_PER_MS;
    if (e->held_n > 0)
        wait = 0;
    cr_assert(eq(int, ring_wait(e->r, wait), 0));
    for (int i = 0; i < 32 && ring_next(e->r, &cqe); i++)
        echo_on_cqe(e, &cqe);
    while (e->held_n > 0 && sim_chance(e->net, 60))
        ring_buf_return(e->r, e->held[--e->held_n]);
    for (struct echo_conn *c = e->conn; c < e->conn + CONNS; c++)
        if (c->used)
            echo_conn_turn(e, c);
    if (e->listening && !e->accept_armed && e->accept_at_ms <= sim_net_now_ms(e->net)) {
        e->accept_armed = true;
        ring_accept(e->r, e->listener, ud_make(OP_ACCEPT, 0, 0));
    }
}

static bool echo_idle(const struct echo *e)
{
    for (const struct echo_conn *c = e->conn; c < e->conn + CONNS; c++)
        if (c->used)
            return false;
    return !e->accept_armed && e->held_n == 0;
}

/* Scripted clients. */

enum fate { ENDS, RESETS, CLOSES_EARLY, VANISHES, FATES };

struct client {
    int ep;
    enum fate fate;
    size_t total, until, sent, got;
    bool shut, done, echoed;
};

static uint8_t pattern(int ep, size_t at)
{
    return (uint8_t)((unsigned)ep * 37 + at * 11 + at / 253);
}

static void client_turn(struct sim_net *net, struct client *c, uint64_t seed)
{
    uint8_t bytes[700];
    long n;

    if (c->done)
        return;
    if (c->fate != ENDS && c->sent >= c->until) {
        if (c->fate == RESETS)
            sim_reset(net, c->ep);
        else if (c->fate == CLOSES_EARLY)
            sim_close(net, c->ep);
        else
            sim_vanish(net, c->ep);
        c->done = true;
        return;
    }
    n = (long)min_sz(1 + sim_below(net, sizeof(bytes)), c->total - c->sent);
    for (long i = 0; i < n; i++)
        bytes[i] = pattern(c->ep, c->sent + (size_t)i);
    n = n ? sim_send(net, c->ep, bytes, (size_t)n) : 0;
    c->sent += n > 0 ? (size_t)n : 0;
    if (n >= 0 && c->sent == c->total && !c->shut) {
        sim_shut(net, c->ep);
        c->shut = true;
    }
    while ((n = sim_recv(net, c->ep, bytes, 1 + sim_below(net, sizeof(bytes)))) > 0)
        for (long i = 0; i < n; i++)
            cr_assert(eq(u8, bytes[i], pattern(c->ep, c->got++)), SIM_SEED);
    cr_assert(le(sz, c->got, c->sent), SIM_SEED);
    if (n == -EAGAIN)
        return;
    c->echoed = n == 0 && c->got == c->total;
    sim_close(net, c->ep);
    c->done = true;
}

enum { CLIENTS = 20 };

static void run(uint64_t seed, struct sim_opts o, unsigned closes_pct, struct sim_counts *sum,
                uint64_t *trace)
{
    struct sim_net *net = sim_net_new(seed, o);
    struct echo *e = calloc(2, sizeof(*e));
    struct client c[CLIENTS];
    unsigned done = 0, steps = 0;

    echo_init(&e[0], net, closes_pct);
    echo_init(&e[1], net, closes_pct);
    e[0].other = e[1].r;
    e[1].other = e[0].r;
    for (int i = 0; i < CLIENTS; i++) {
        size_t total = sim_below(net, BYTES_MAX);

        c[i] = (struct client){ .ep = sim_connect(net, &here, &there), .total = total };
        cr_assert(le(int, 0, c[i].ep), SIM_SEED);
        if (closes_pct > 0)
            c[i].fate = (enum fate)sim_below(net, FATES);
        c[i].until = sim_below(net, total + 1);
    }
    while ((done < CLIENTS || !echo_idle(&e[0]) || !echo_idle(&e[1])) && sim_net_step(net)) {
        cr_assert(lt(uint, steps++, STEPS_MAX), SIM_SEED);
        echo_turn(&e[sim_below(net, 2)]);
        echo_turn(&e[0]);
        echo_turn(&e[1]);
        done = 0;
        for (int i = 0; i < CLIENTS; i++) {
            client_turn(net, &c[i], seed);
            done += c[i].done;
        }
        cr_assert(sim_net_broken(net) == NULL, "%s, seed %llu", sim_net_broken(net),
                  (unsigned long long)seed);
        for (int i = 0; i < 2; i++)
            if (done == CLIENTS && e[i].listening) {
                e[i].listening = false;
                ring_cancel_fd(e[i].r, e[i].listener, ud_make(OP_CANCEL, 0, CONNS));
            }
    }
    for (int i = 0; i < 2; i++) {
        ring_close(e[i].r, e[i].listener);
        cr_assert(eq(uint, ring_bufs_free(e[i].r), BUFS), SIM_SEED);
    }
    for (int i = 0; i < CLIENTS; i++) {
        cr_assert(c[i].done, SIM_SEED);
        if (closes_pct == 0)
            cr_assert(c[i].echoed, "client %d got %zu of %zu, seed %llu", i, c[i].got, c[i].total,
                      (unsigned long long)seed);
    }
    cr_assert(sim_net_check(net) == NULL, "%s, seed %llu", sim_net_check(net),
              (unsigned long long)seed);
    if (sum != NULL) {
        const uint64_t *from = (const uint64_t *)sim_net_counts(net);

        for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
            ((uint64_t *)sum)[i] += from[i];
    }
    if (trace != NULL)
        *trace = e[0].trace ^ e[1].trace * 3 ^ sim_net_now_ms(net);
    ring_free(e[0].r);
    ring_free(e[1].r);
    cr_assert(sim_net_check(net) == NULL, "%s, seed %llu", sim_net_check(net),
              (unsigned long long)seed);
    sim_net_free(net);
    free(e);
}

static const struct sim_opts foul = {
    .short_send_pct = 30,
    .late_send_pct = 20,
    .short_recv_pct = 30,
    .enobufs_pct = 5,
    .lost_more_pct = 10,
    .emfile_pct = 10,
    .cancel_data_pct = 50,
    .late_cqe_pct = 30,
    .cqe_delay_ms_max = 40,
    .bell_delay_ms_max = 20,
    .net_delay_ms_max = 80,
    .socket_bytes = 3000,
};

Test(sim_ring, every_byte_is_echoed_in_fair_weather, .timeout = 60)
{
    for (uint64_t seed = 1; seed <= 30; seed++)
        run(seed, (struct sim_opts){ 0 }, 0, NULL, NULL);
}

Test(sim_ring, every_byte_is_echoed_whatever_the_kernel_does, .timeout = 120)
{
    struct sim_counts sum = { 0 };

    for (uint64_t seed = 1; seed <= 60; seed++)
        run(seed, foul, 0, &sum, NULL);
    cr_expect(lt(u64, 100, sum.short_sends));
    cr_expect(lt(u64, 100, sum.waiting_sends));
    cr_expect(lt(u64, 100, sum.late_sends));
    cr_expect(lt(u64, 100, sum.short_recvs));
    cr_expect(lt(u64, 100, sum.enobufs_dry));
    cr_expect(lt(u64, 100, sum.enobufs_fault));
    cr_expect(lt(u64, 100, sum.lost_more));
    cr_expect(lt(u64, 50, sum.emfile));
    cr_expect(lt(u64, 100, sum.late_cqes));
    cr_expect(lt(u64, 100, sum.bells));
    cr_expect(lt(u64, 10, sum.bells_merged));
}

Test(sim_ring, ends_clean_when_both_sides_close_at_any_moment, .timeout = 120)
{
    struct sim_counts sum = { 0 };

    for (uint64_t seed = 1; seed <= 150; seed++)
        run(seed, foul, 1, &sum, NULL);
    cr_expect(lt(u64, 100, sum.cancelled));
    cr_expect(lt(u64, 50, sum.cancel_first));
    cr_expect(lt(u64, 10, sum.cancel_data));
    cr_expect(lt(u64, 100, sum.resets));
    cr_expect(lt(u64, 100, sum.fins));
}

Test(sim_ring, the_same_seed_gives_the_same_run_and_another_does_not, .timeout = 60)
{
    uint64_t a, b, c;

    run(7, foul, 1, NULL, &a);
    run(7, foul, 1, NULL, &b);
    run(8, foul, 1, NULL, &c);
    cr_assert(eq(u64, a, b));
    cr_assert(ne(u64, a, c));
}
