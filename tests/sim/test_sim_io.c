/* tests/sim/test_sim_io.c: streams beside the ring in the simulated kernel, by hand. */
#include "engine/ring.h"
#include "tests/sim/sim_net.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <poll.h>

enum { OP_POLL = 1, OP_CANCEL };

static const struct netaddr here = { .ip = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
                                     .port = 50000 };
static const struct netaddr there = { .ip = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 7 }, .port = 7 };

struct hand {
    struct sim_net *net;
    struct ring *r;
    int fd, listener, ep;
    bool polled;
};

static struct hand hand_of(uint64_t seed, struct sim_opts o, bool listens)
{
    static const struct ring_opts ro = { 16, 64, 0, 0, false, NULL };
    struct hand h = { .net = sim_net_new(seed, o), .ep = -1 };
    const char *what;
    int err;

    h.r = ring_new(&ro, &err, &what);
    if (listens)
        h.listener = sim_far_listen(h.net, &there);
    h.fd = ring_connect_tcp(&here, &there);
    cr_assert(le(int, 0, h.fd));
    return h;
}

/* What a poll tells, the one that waits or another; -1: nothing although all time passes. */
static int told(struct hand *h, int mask)
{
    struct ring_cqe cqe;

    if (!h->polled)
        ring_poll_once(h->r, h->fd, mask, ud_make(OP_POLL, 1, 2));
    h->polled = true;
    do {
        cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
        if (ring_next(h->r, &cqe)) {
            cr_assert(not(cqe.more));
            h->polled = false;
            return cqe.res;
        }
    } while (sim_net_step(h->net));
    return -1;
}

static void joined(struct hand *h)
{
    struct netaddr from;

    cr_assert(eq(int, told(h, POLLOUT), POLLOUT));
    cr_assert(eq(int, ring_connect_result(h->fd), 0));
    h->ep = sim_far_accept(h->net, h->listener, &from);
    cr_assert(le(int, 0, h->ep));
    cr_assert(eq(int, memcmp(&from, &here, sizeof(from)), 0));
}

static int send_all(struct hand *h, const void *p, size_t n)
{
    struct iovec iov = { (void *)(uintptr_t)p, n };

    return ring_send_now(h->fd, &(struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 });
}

static void ended(struct hand *h)
{
    struct ring_cqe cqe;
    int seen = 0;

    if (!h->polled)
        ring_poll_once(h->r, h->fd, 0, ud_make(OP_POLL, 1, 2)); /* one to cancel */
    ring_cancel_ud(h->r, ud_make(OP_POLL, 1, 2), ud_make(OP_CANCEL, 0, 0));
    ring_cancel_ud(h->r, ud_make(OP_POLL, 9, 9), ud_make(OP_CANCEL, 1, 0));
    do {
        cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
        while (ring_next(h->r, &cqe)) {
            if (ud_op(cqe.ud) == OP_CANCEL)
                cr_assert(eq(int, cqe.res, ud_gen(cqe.ud) ? -ENOENT : 0));
            else
                cr_assert(eq(int, cqe.res, -ECANCELED));
            seen++;
        }
    } while (seen < 3 && sim_net_step(h->net));
    ring_close(h->r, h->fd);
    cr_assert(sim_net_check(h->net) == NULL, "%s", sim_net_check(h->net));
    ring_free(h->r);
    sim_net_free(h->net);
}

Test(sim_io, connects_to_a_far_end_that_listens, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .net_delay_ms_max = 20 }, true);
    struct netaddr from;

    cr_assert(eq(int, sim_far_accept(h.net, h.listener, &from), -EAGAIN));
    cr_assert(eq(int, ring_connect_tcp(&here, &there), -EADDRNOTAVAIL));
    joined(&h);
    ended(&h);
}

Test(sim_io, is_refused_where_nobody_listens, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, false);
    int mask = told(&h, POLLOUT);

    cr_assert(eq(int, mask, POLLOUT | POLLERR | POLLHUP));
    cr_assert(lt(int, ring_connect_result(h.fd), 0));
    ended(&h);
}

Test(sim_io, looks_at_bytes_and_takes_them_later, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, true);
    char text[8];

    joined(&h);
    cr_assert(eq(int, ring_peek(h.fd, text, 8), -EAGAIN));
    sim_send(h.net, h.ep, "abcdef", 6);
    cr_assert(eq(int, told(&h, POLLIN), POLLIN));
    cr_assert(eq(int, ring_peek(h.fd, text, 8), 6));
    cr_assert(eq(int, ring_discard(h.fd, 4), 4));
    cr_assert(eq(int, ring_peek(h.fd, text, 8), 2));
    cr_assert(eq(int, memcmp(text, "ef", 2), 0));
    ring_discard(h.fd, 8);
    sim_shut(h.net, h.ep);
    cr_assert(eq(int, told(&h, POLLIN), POLLIN));
    cr_assert(eq(int, ring_peek(h.fd, text, 8), 0));
    cr_assert(eq(int, told(&h, POLLIN), POLLIN), "it is still so");
    ended(&h);
}

Test(sim_io, tells_when_there_is_room_again, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .socket_bytes = 4096 }, true);
    static char big[5000];

    joined(&h);
    cr_assert(eq(int, send_all(&h, big, sizeof(big)), 4096));
    cr_assert(eq(int, send_all(&h, big, 1), -EAGAIN));
    cr_assert(eq(int, told(&h, POLLOUT), -1));
    cr_assert(eq(long, sim_recv(h.net, h.ep, big, 100), 100));
    cr_assert(eq(int, told(&h, POLLOUT), POLLOUT));
    cr_assert(eq(int, told(&h, 0), -1), "nothing is broken");
    ended(&h);
}
