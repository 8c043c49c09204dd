/* tests/sim/test_sim_udp.c: datagrams of the simulated kernel and network, by hand. */
#include "engine/ring.h"
#include "tests/sim/sim_net.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>

enum { OP_POLL = 1, OP_CANCEL, BUF = 66 * 1024 };

#define V4(a, b, c, d, p)                                                                          \
    {                                                                                              \
        .ip = { [10] = 0xff, [11] = 0xff, a, b, c, d }, .port = p                                  \
    }
static const struct netaddr here = V4(10, 0, 0, 1, 3478);
static const struct netaddr there = V4(192, 0, 2, 7, 5000);
static const struct netaddr other = V4(192, 0, 2, 8, 5000);
static const struct netaddr nobody = V4(192, 0, 2, 9, 9);
static const struct netaddr all4 = V4(0, 0, 0, 0, 3478);
static const struct netaddr all6 = { .port = 3478 };
static const struct netaddr here6 = { .ip = { 0x20, 1, 0x0d, 0xb8, [15] = 1 }, .port = 3478 };

static uint8_t bufs[RING_DGRAMS_MAX][BUF];
static struct ring_dgram got[RING_DGRAMS_MAX];

struct hand {
    struct sim_net *net;
    struct ring *r;
    int fd, ep;
};

static struct hand hand_of(uint64_t seed, struct sim_opts o, unsigned flags)
{
    static const struct ring_opts ro = { 16, 64, 0, 0, false, NULL };
    struct hand h = { .net = sim_net_new(seed, o) };
    const char *what;
    int err;

    h.r = ring_new(&ro, &err, &what);
    h.fd = ring_bind_udp(&here, flags, 0, NULL);
    cr_assert(le(int, 0, h.fd));
    h.ep = sim_udp_open(h.net, &there);
    return h;
}

static void ended(struct hand *h)
{
    ring_close(h->r, h->fd);
    cr_assert(sim_net_check(h->net) == NULL, "%s", sim_net_check(h->net));
    ring_free(h->r);
    sim_net_free(h->net);
}

static void emit(struct hand *h, const char *text)
{
    sim_udp_emit(h->net, h->ep, &here, text, strlen(text));
}

static int receive_upto(int fd, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        got[i] = (struct ring_dgram){ .buf = bufs[i], .cap = BUF };
    return ring_udp_recv(fd, got, count);
}

static int receive(struct hand *h)
{
    return receive_upto(h->fd, RING_DGRAMS_MAX);
}

static bool is(const struct ring_dgram *d, const char *text)
{
    return d->n == strlen(text) && memcmp(d->buf, text, d->n) == 0;
}

static int send_to(struct hand *h, const struct netaddr *to, const char *text, uint16_t segment)
{
    struct iovec iov[2] = { { (void *)(uintptr_t)text, 1 },
                            { (void *)(uintptr_t)(text + 1), strlen(text) - 1 } };

    return ring_udp_send(
        h->fd, &(struct ring_udp_out){ .to = to, .iov = iov, .iov_n = 2, .segment = segment });
}

/* What the far end reads, in order and with bars between. */
static const char *arrived(struct hand *h)
{
    static char line[512];
    struct netaddr from;
    size_t at = 0;
    long n;

    while ((n = sim_udp_take(h->net, h->ep, &from, line + at, sizeof(line) - at - 2)) >= 0) {
        cr_assert(eq(int, memcmp(&from, &here, sizeof(from)), 0));
        at += (size_t)n;
        line[at++] = '|';
    }
    line[at] = '\0';
    return line;
}

/* The ring's owner sleeps, time moves. false: nothing will happen any more. */
static bool step(struct hand *h)
{
    cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
    return sim_net_step(h->net);
}

/* The next edge that the poll tells; -1: none although all time passes. */
static int edge(struct hand *h)
{
    struct ring_cqe cqe;

    do {
        cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
        if (ring_next(h->r, &cqe)) {
            if (!cqe.more && cqe.res >= 0) /* a multishot that has ended with a good word */
                ring_poll_in(h->r, h->fd, cqe.ud);
            return cqe.res;
        }
    } while (sim_net_step(h->net));
    return -1;
}

static void unpoll(struct hand *h)
{
    struct ring_cqe cqe;

    ring_cancel_fd(h->r, h->fd, ud_make(OP_CANCEL, 0, 0));
    for (int seen = 0; seen < 2;) {
        cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
        while (ring_next(h->r, &cqe))
            seen++;
        if (seen < 2)
            cr_assert(sim_net_step(h->net));
    }
}

Test(sim_udp, carries_datagrams_with_their_addresses_and_empty_ones_too, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, RING_UDP_PKTINFO);

    emit(&h, "abc");
    sim_udp_emit(h.net, h.ep, &here, NULL, 0);
    cr_assert(eq(int, receive(&h), 2));
    cr_assert(is(&got[0], "abc"));
    cr_assert(eq(int, memcmp(&got[0].from, &there, sizeof(there)), 0));
    cr_assert(got[0].has_local);
    cr_assert(eq(int, memcmp(got[0].local, here.ip, 16), 0));
    cr_assert(eq(sz, got[1].n, 0));
    cr_assert(eq(int, receive(&h), 0));
    cr_assert(eq(int, send_to(&h, &there, "hello", 0), 5));
    cr_assert(strcmp(arrived(&h), "hello|") == 0);
    ended(&h);
}

Test(sim_udp, receives_equal_lengths_of_one_source_as_a_train, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, 0);
    int more = sim_udp_open(h.net, &other);

    emit(&h, "aaa");
    emit(&h, "bbb");
    emit(&h, "c"); /* shorter: the last one */
    emit(&h, "d");
    emit(&h, "eee"); /* longer: another train */
    sim_udp_emit(h.net, more, &here, "fff", 3);
    sim_udp_emit(h.net, more, &here, NULL, 0); /* never part of one */
    cr_assert(eq(int, receive(&h), 5));
    cr_assert(is(&got[0], "aaabbbc"));
    cr_assert(eq(uint, got[0].segment, 3));
    cr_assert(not(got[0].has_local));
    cr_assert(is(&got[1], "d"));
    cr_assert(eq(uint, got[1].segment, 0));
    cr_assert(is(&got[2], "eee"));
    cr_assert(is(&got[3], "fff"));
    cr_assert(eq(sz, got[4].n, 0));
    for (int i = 0; i < 65; i++)
        emit(&h, "x");
    cr_assert(eq(int, receive(&h), 2));
    cr_assert(eq(sz, got[0].n, 64));
    ended(&h);
}

Test(sim_udp, sends_a_train_cut_into_segments, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .net_delay_ms_max = 30 }, 0);
    char got_back[64] = "";

    cr_assert(eq(int, send_to(&h, &there, "aabbc", 2), 5));
    cr_assert(eq(int, send_to(&h, &there, "dd", 2), 2));
    do
        strcat(got_back, arrived(&h));
    while (step(&h));
    cr_assert(strcmp(got_back, "aa|bb|c|dd|") == 0); /* and in order, however long each takes */
    cr_assert(eq(u64, sim_net_counts(h.net)->udp_trains_out, 1));
    ended(&h);
}

Test(sim_udp, a_poll_tells_of_every_arrival_and_merges_but_never_loses_one, .timeout = 10)
{
    struct hand h = hand_of(3, (struct sim_opts){ 0 }, 0);

    emit(&h, "early");
    ring_poll_in(h.r, h.fd, ud_make(OP_POLL, 1, 2));
    cr_assert(eq(int, edge(&h), POLLIN));
    cr_assert(eq(int, edge(&h), -1)); /* nothing new, although it is unread */
    for (int i = 0; i < 50; i++) {
        emit(&h, "a");
        emit(&h, "b");
        cr_assert(eq(int, edge(&h), POLLIN));
        cr_assert(eq(int, edge(&h), -1));
        if (i % 2) {
            while (receive_upto(h.fd, 1) == 1)
                ;
            cr_assert(eq(int, edge(&h), -1));
        }
    }
    emit(&h, "read before the poll looks");
    cr_assert(lt(int, 0, receive(&h)));
    cr_assert(eq(int, edge(&h), -1));
    unpoll(&h);
    ended(&h);
}

Test(sim_udp, a_receive_that_brings_less_than_asked_for_is_followed_by_an_edge_if_there_is_more,
     .timeout = 10)
{
    struct hand h = hand_of(3, (struct sim_opts){ .udp_split_pct = 30 }, 0);
    unsigned bytes = 0, edges = 0;
    int n;

    ring_poll_in(h.r, h.fd, ud_make(OP_POLL, 1, 2));
    for (int i = 0; i < 200; i++)
        emit(&h, i % 2 ? "x" : "yy");
    while (edge(&h) == POLLIN) {
        edges++;
        do {
            n = receive(&h);
            for (int i = 0; i < n; i++)
                bytes += (unsigned)got[i].n;
        } while (n == RING_DGRAMS_MAX);
    }
    cr_assert(eq(uint, bytes, 300));
    cr_assert(lt(uint, 1, edges));
    unpoll(&h);
    ended(&h);
}

Test(sim_udp, keeps_the_order_of_a_flow_but_of_what_is_late, .timeout = 10)
{
    for (unsigned late = 0; late <= 20; late += 20) {
        struct hand h =
            hand_of(5, (struct sim_opts){ .net_delay_ms_max = 20, .udp_late_pct = late }, 0);
        char text[8], last[8] = "";
        unsigned n = 0, backwards = 0;

        for (int i = 0; i < 500; i++) {
            snprintf(text, sizeof(text), "%04d", i);
            emit(&h, text);
            if (i % 3 == 0)
                step(&h);
        }
        do
            while (receive_upto(h.fd, 1) == 1)
                for (size_t at = 0; at < got[0].n; at += 4, n++) {
                    backwards += memcmp(got[0].buf + at, last, 4) < 0;
                    memcpy(last, got[0].buf + at, 4);
                }
        while (step(&h));
        cr_assert(eq(uint, n, 500));
        cr_assert(eq(int, backwards > 10, late > 0), "%u backwards", backwards);
        ended(&h);
    }
}

Test(sim_udp, loses_and_doubles_as_often_as_it_is_told, .timeout = 10)
{
    struct hand h = hand_of(7, (struct sim_opts){ .udp_loss_pct = 10, .udp_dup_pct = 10 }, 0);
    const struct sim_counts *counts = sim_net_counts(h.net);
    unsigned n = 0;

    for (int i = 0; i < 1000; i++)
        emit(&h, "x");
    while (receive_upto(h.fd, 1) == 1)
        n += (unsigned)got[0].n;
    cr_assert(eq(u64, n + counts->udp_lost, 1000 + counts->udp_dup));
    cr_assert(lt(u64, 60, counts->udp_lost));
    cr_assert(lt(u64, counts->udp_lost, 140));
    cr_assert(lt(u64, 60, counts->udp_dup));
    ended(&h);
}

Test(sim_udp, drops_what_a_full_socket_has_no_room_for, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .udp_queue = 5 }, 0);

    for (int i = 0; i < 7; i++)
        emit(&h, "x");
    cr_assert(eq(int, receive(&h), 1));
    cr_assert(eq(sz, got[0].n, 5));
    cr_assert(eq(u64, sim_net_counts(h.net)->udp_full, 2));
    ended(&h);
}

Test(sim_udp, cuts_what_the_buffer_is_too_small_for_and_says_so, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, 0);

    emit(&h, "abcdef");
    got[0] = (struct ring_dgram){ .buf = bufs[0], .cap = 4 };
    cr_assert(eq(int, ring_udp_recv(h.fd, got, 1), 1));
    cr_assert(got[0].truncated);
    cr_assert(is(&got[0], "abcd"));
    sim_net_set_opts(h.net, (struct sim_opts){ .udp_truncate_pct = 100 });
    emit(&h, "abcdef");
    cr_assert(eq(int, receive(&h), 1));
    cr_assert(got[0].truncated);
    cr_assert(lt(sz, got[0].n, 6));
    ended(&h);
}

Test(sim_udp, tells_who_asked_that_nobody_is_there, .timeout = 10)
{
    for (unsigned asked = 0; asked < 2; asked++) {
        struct hand h = hand_of(1, (struct sim_opts){ 0 }, asked ? RING_UDP_ERRORS : 0);
        struct ring_icmp e;

        ring_poll_in(h.r, h.fd, ud_make(OP_POLL, 1, 2));
        cr_assert(eq(int, send_to(&h, &nobody, "anybody?", 0), 8));
        emit(&h, "data");
        cr_assert(eq(int, edge(&h), POLLIN | (asked ? POLLERR : 0)));
        if (asked)
            cr_assert(eq(int, receive(&h), -ECONNREFUSED)); /* before the data, and once */
        cr_assert(eq(int, receive(&h), 1));
        cr_assert(eq(int, ring_udp_error(h.fd, &e), asked));
        if (asked) {
            cr_assert(eq(int, memcmp(&e.peer, &nobody, sizeof(nobody)), 0));
            cr_assert(eq(uint, e.type, 3));
            cr_assert(eq(uint, e.code, 3));
            cr_assert(not(ring_udp_error(h.fd, &e)));
            send_to(&h, &nobody, "still?", 0);
            sim_udp_icmp(h.net, &here, &other, 3, 4, 1280);
            cr_assert(eq(int, edge(&h), POLLIN | POLLERR));
            cr_assert(ring_udp_error(h.fd, &e));
            cr_assert(eq(uint, e.mtu, 1280)); /* what they sent comes first, then what it brought */
            cr_assert(ring_udp_error(h.fd, &e));
            cr_assert(eq(int, receive(&h), 0)); /* read from the queue, it is not told again */
        }
        unpoll(&h);
        ended(&h);
    }
}

Test(sim_udp, gives_an_address_to_one_and_a_shared_one_by_the_hash_of_both_ends, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, RING_UDP_REUSEPORT);
    unsigned landed[2] = { 0 };
    int second, wild;

    cr_assert(eq(int, ring_bind_udp(&here, 0, 0, NULL), -EADDRINUSE));
    cr_assert(eq(int, ring_bind_udp(&all4, 0, 0, NULL), -EADDRINUSE));
    cr_assert(eq(int, ring_bind_udp(&all6, 0, 0, NULL), -EADDRINUSE));
    wild = ring_bind_udp(&all6, RING_UDP_V6ONLY | RING_UDP_PKTINFO, 0, NULL);
    cr_assert(le(int, 0, wild));
    sim_udp_emit(h.net, h.ep, &here6, "six", 3);
    cr_assert(eq(int, receive_upto(wild, 2), 1));
    cr_assert(eq(int, memcmp(got[0].local, here6.ip, 16), 0));
    ring_close(h.r, wild);
    second = ring_bind_udp(&here, RING_UDP_REUSEPORT, 0, NULL);
    cr_assert(le(int, 0, second));
    for (uint16_t port = 6000; port < 6100; port++) {
        struct netaddr at = other;
        int ep, idx;

        at.port = port;
        ep = sim_udp_open(h.net, &at);
        idx = sim_udp_lands(h.net, &here, &at);
        sim_udp_emit(h.net, ep, &here, "x", 1);
        cr_assert(eq(int, receive_upto(idx == 0 ? h.fd : second, 2), 1));
        landed[idx]++;
    }
    cr_assert(lt(uint, 20, landed[0]));
    cr_assert(lt(uint, 20, landed[1]));
    ring_close(h.r, second);
    cr_assert(eq(int, sim_udp_lands(h.net, &nobody, &there), -1));
    ended(&h);
}

Test(sim_udp, refuses_sockets_and_trains_and_sends_when_told_to, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .udp_mtu = 1500 }, RING_UDP_ERRORS);
    static char big[1600];
    struct netaddr any = here;

    memset(big, 'b', sizeof(big) - 1);
    any.port = 0;
    sim_net_set_opts(h.net, (struct sim_opts){ .udp_emfile_pct = 100 });
    cr_assert(eq(int, ring_bind_udp(&any, 0, 0, NULL), -EMFILE));
    sim_net_set_opts(h.net, (struct sim_opts){ .udp_in_use_pct = 100 });
    cr_assert(eq(int, ring_bind_udp(&any, 0, 0, NULL), -EADDRINUSE));
    sim_net_set_opts(h.net, (struct sim_opts){ .udp_eio_pct = 100, .udp_mtu = 1500 });
    cr_assert(eq(int, send_to(&h, &there, "aab", 2), -EIO));
    cr_assert(eq(int, send_to(&h, &there, "aa", 2), 2)); /* no train */
    cr_assert(eq(int, send_to(&h, &there, big, 1473), -EINVAL));
    cr_assert(eq(int, send_to(&h, &there, big, 1), -EINVAL)); /* too many segments */
    cr_assert(eq(int, send_to(&h, &there, big, 0), 1599));    /* in fragments */
    cr_assert(eq(int, ring_udp_dont_fragment(h.fd, false, true), 0));
    for (int i = 0, lost = 0; i < 20 || lost == 0; i++) {
        struct ring_icmp e;
        int n = send_to(&h, &there, big, 0);

        cr_assert(n == -EMSGSIZE || n == 1599);
        if (n < 0)
            continue;
        step(&h);
        cr_assert(ring_udp_error(h.fd, &e));
        cr_assert(eq(uint, e.code, 4));
        cr_assert(eq(uint, e.mtu, 1500));
        lost++;
    }
    sim_net_set_opts(h.net, (struct sim_opts){ .udp_again_pct = 100 });
    cr_assert(lt(int, send_to(&h, &there, "x", 0), 0));
    ended(&h);
}

Test(sim_udp, what_is_sent_from_one_socket_to_another_of_ours_gets_there, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, 0);
    struct netaddr at = here;
    int second;

    at.port = 50000;
    second = ring_bind_udp(&at, 0, 0, NULL);
    cr_assert(eq(int, send_to(&h, &at, "aabb", 2), 4));
    cr_assert(eq(int, receive_upto(second, 4), 1));
    cr_assert(is(&got[0], "aabb"));
    cr_assert(eq(uint, got[0].segment, 2));
    ring_close(h.r, second);
    ended(&h);
}

static void expect_broken(struct hand *h, const char *words)
{
    const char *why = sim_net_check(h->net);

    cr_assert(why != NULL && strstr(why, words) != NULL, "said: %s", why ? why : "nothing");
}

Test(sim_udp, notices_a_socket_that_is_closed_under_its_poll, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, 0);

    ring_poll_in(h.r, h.fd, ud_make(OP_POLL, 1, 2));
    cr_assert(eq(int, edge(&h), -1));
    ring_close(h.r, h.fd);
    expect_broken(&h, "closed under");
}

Test(sim_udp, notices_a_receive_on_the_ring_and_a_socket_left_open, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, 0);
    char c;

    expect_broken(&h, "datagram socket");
    ring_read(h.r, h.fd, &c, 1, ud_make(OP_POLL, 1, 2));
    cr_assert(eq(int, ring_wait(h.r, 0), 0));
    expect_broken(&h, "wrong kind");
}

Test(sim_udp, notices_a_send_that_says_the_wrong_address, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 }, 0);

    send_to(&h, &here6, "x", 0);
    expect_broken(&h, "IPv6 from an IPv4 socket");
}

static uint64_t run_of(uint64_t seed)
{
    struct hand h = hand_of(seed,
                            (struct sim_opts){ .net_delay_ms_max = 20,
                                               .udp_loss_pct = 10,
                                               .udp_dup_pct = 10,
                                               .udp_late_pct = 10,
                                               .udp_split_pct = 20 },
                            0);
    uint64_t sum = 0;

    for (int i = 0; i < 300; i++) {
        char text[8];

        snprintf(text, sizeof(text), "%d", i);
        emit(&h, text);
        step(&h);
        for (int k = receive(&h); k-- > 0;)
            for (size_t at = 0; at < got[k].n; at++)
                sum = sum * 31 + got[k].buf[at] + got[k].segment;
    }
    ended(&h);
    return sum;
}

Test(sim_udp, the_same_seed_gives_the_same_run, .timeout = 20)
{
    cr_assert(eq(u64, run_of(1), run_of(1)));
    cr_assert(ne(u64, run_of(1), run_of(2)));
}
