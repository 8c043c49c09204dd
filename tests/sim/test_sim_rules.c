/* tests/sim/test_sim_rules.c: the simulated kernel by hand: what it does with one connection, and
 * which broken rules it tells of. */
#include "engine/ring.h"
#include "tests/sim/sim_net.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <signal.h>

enum { OP_ACCEPT = 1, OP_RECV, OP_SEND, OP_CANCEL, OP_BELL, OP_READ, OP_POLL };
enum { NS_PER_MS = 1000000 };

static const struct netaddr here = { .ip = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
                                     .port = 4001 };
static const struct netaddr there = { .ip = { [10] = 0xff, [11] = 0xff, 10, 9, 9, 9 }, .port = 7 };

/* One connection by hand. */

struct hand {
    struct sim_net *net;
    struct ring *r;
    int listener, ep, fd;
};

static struct ring_cqe take(struct hand *h)
{
    struct ring_cqe cqe = { 0 };

    for (int i = 0; i < 1000; i++) {
        cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
        if (ring_next(h->r, &cqe))
            return cqe;
        cr_assert(sim_net_step(h->net), "nothing will ever happen");
    }
    cr_fatal("no completion came");
}

/* Nothing completes although all time passes. */
static void expect_silence(struct hand *h)
{
    struct ring_cqe cqe;

    do {
        cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
        cr_assert(not(ring_next(h->r, &cqe)), "op %u res %d", ud_op(cqe.ud), cqe.res);
    } while (sim_net_step(h->net));
}

static struct hand hand_of(uint64_t seed, struct sim_opts o)
{
    static const struct ring_opts ro = { 16, 64, 4, 100, false, NULL };
    struct hand h = { .net = sim_net_new(seed, o) };
    const char *what;
    struct ring_cqe cqe;
    int err;

    h.r = ring_new(&ro, &err, &what);
    h.listener = ring_listen_tcp(&here, true, false, 16, NULL);
    h.ep = sim_connect(h.net, &here, &there);
    ring_accept(h.r, h.listener, ud_make(OP_ACCEPT, 0, 0));
    cqe = take(&h);
    cr_assert(le(int, 0, cqe.res));
    cr_assert(cqe.more);
    h.fd = cqe.res;
    return h;
}

static void hand_recv(struct hand *h)
{
    ring_recv(h->r, h->fd, ud_make(OP_RECV, 1, 2), true);
}

static void hand_send(struct hand *h, const void *p, size_t n)
{
    struct iovec iov = { (void *)(uintptr_t)p, n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    ring_sendmsg(h->r, h->fd, &msg, ud_make(OP_SEND, 1, 2));
    cr_assert(eq(int, ring_wait(h->r, UINT64_MAX), 0));
}

static void expect_broken(struct hand *h, const char *words)
{
    const char *why = sim_net_check(h->net);

    cr_assert(why != NULL && strstr(why, words) != NULL, "said: %s", why ? why : "nothing");
}

Test(sim_rules, takes_a_fin_behind_the_data_and_gives_one, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .net_delay_ms_max = 50 });
    struct ring_cqe cqe;
    char c;

    cr_assert(sim_accepted(h.net, h.ep));
    hand_recv(&h);
    cr_assert(eq(long, sim_send(h.net, h.ep, "abc", 3), 3));
    sim_shut(h.net, h.ep);
    cqe = take(&h);
    cr_assert(eq(int, cqe.res, 3));
    cr_assert(eq(int, memcmp(cqe.buf, "abc", 3), 0));
    ring_buf_return(h.r, cqe.bid);
    cqe = take(&h);
    cr_assert(eq(int, cqe.res, 0));
    cr_assert(not(cqe.more));
    hand_send(&h, "de", 2); /* half closed: our direction is still open */
    cr_assert(eq(int, take(&h).res, 2));
    ring_close(h.r, h.fd);
    for (int i = 0; i < 10 && sim_net_step(h.net); i++)
        cr_assert(eq(int, ring_wait(h.r, UINT64_MAX), 0));
    char two[3];

    cr_assert(eq(long, sim_recv(h.net, h.ep, two, 3), 2));
    cr_assert(eq(long, sim_recv(h.net, h.ep, &c, 1), 0));
    cr_assert(eq(uint, sim_net_fds_open(h.net), 1)); /* the listener */
}

Test(sim_rules, a_close_with_unread_data_resets, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });
    char c;

    cr_assert(eq(long, sim_send(h.net, h.ep, "abc", 3), 3));
    ring_close(h.r, h.fd);
    cr_assert(eq(long, sim_recv(h.net, h.ep, &c, 1), -ECONNRESET));
    cr_assert(eq(long, sim_send(h.net, h.ep, "x", 1), -ECONNRESET));
}

Test(sim_rules, data_to_a_closed_far_end_brings_a_reset_back, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .net_delay_ms_max = 20 });
    struct netaddr peer;

    hand_recv(&h);
    sim_close(h.net, h.ep);
    cr_assert(eq(int, take(&h).res, 0));
    hand_send(&h, "x", 1);
    cr_assert(eq(int, take(&h).res, 1)); /* the kernel took it */
    expect_silence(&h);
    cr_assert(eq(int, ring_peername(h.fd, &peer), -ENOTCONN));
    hand_recv(&h);
    cr_assert(eq(int, take(&h).res, -ECONNRESET));
    hand_send(&h, "x", 1);
    cr_assert(eq(int, take(&h).res, -EPIPE));
}

Test(sim_rules, a_vanished_far_end_is_noticed_after_a_while_and_not_before, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .vanish_ms = 90000 });
    uint64_t began = sim_net_now_ms(h.net);

    hand_recv(&h);
    sim_vanish(h.net, h.ep);
    cr_assert(eq(int, take(&h).res, -ETIMEDOUT));
    cr_assert(eq(u64, sim_net_now_ms(h.net) - began, 90000));
}

Test(sim_rules, buffers_are_bounded_both_ways_and_a_send_waits_for_room, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .socket_bytes = 1000 });
    static uint8_t bytes[5000];

    cr_assert(eq(long, sim_send(h.net, h.ep, bytes, 5000), 1000));
    cr_assert(eq(long, sim_send(h.net, h.ep, bytes, 5000), 0));
    cr_assert(eq(sz, sim_room(h.net, h.ep), 0));
    hand_send(&h, bytes, 5000);
    cr_assert(eq(int, take(&h).res, 1000));
    hand_send(&h, bytes, 5000);
    expect_silence(&h);
    cr_assert(eq(long, sim_recv(h.net, h.ep, bytes, 300), 300));
    cr_assert(eq(int, take(&h).res, 300));
    cr_assert(eq(u64, sim_net_counts(h.net)->waiting_sends, 1));
}

Test(sim_rules, a_dry_group_ends_the_receive_until_buffers_are_back, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });
    static uint8_t bytes[500]; /* the group holds 400 */

    hand_recv(&h);
    cr_assert(eq(long, sim_send(h.net, h.ep, bytes, 500), 500));
    for (unsigned i = 0; i < 4; i++)
        cr_assert(eq(int, take(&h).res, 100));
    cr_assert(eq(uint, ring_bufs_free(h.r), 0));
    cr_assert(eq(int, take(&h).res, -ENOBUFS));
    hand_recv(&h);
    cr_assert(eq(int, take(&h).res, -ENOBUFS)); /* at once, and again */
    ring_buf_return(h.r, 0);
    hand_recv(&h);
    cr_assert(eq(int, take(&h).res, 100));
}

Test(sim_rules, time_jumps_to_deadlines_and_alarms, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .start_ms = 5000 });

    cr_assert(eq(u64, sim_net_now_ms(h.net), 5000));
    expect_silence(&h); /* the accept's completion has been taken */
    sim_net_alarm(h.net, 8000);
    cr_assert(eq(int, ring_wait(h.r, 4000ull * NS_PER_MS), 0));
    cr_assert(sim_net_step(h.net));
    cr_assert(eq(u64, sim_net_now_ms(h.net), 8000));
    cr_assert(sim_net_step(h.net));
    cr_assert(eq(u64, sim_net_now_ms(h.net), 9000));
    cr_assert(sim_net_step(h.net)); /* the deadline stands until the owner waits again */
    cr_assert(eq(u64, sim_net_now_ms(h.net), 9000));
    for (int i = 0; i < 2; i++) { /* the first wait at a time does not count as asleep */
        cr_assert(eq(int, sim_net_step(h.net), 1));
        cr_assert(eq(u64, sim_net_now_ms(h.net), 9000));
        cr_assert(eq(int, ring_wait(h.r, UINT64_MAX), 0));
    }
    cr_assert(not(sim_net_step(h.net)));
}

Test(sim_rules, a_connection_goes_to_the_listener_it_is_placed_on, .timeout = 10)
{
    struct sim_net *net = sim_net_new(3, (struct sim_opts){ 0 });
    struct ring_opts o = { .sq_entries = 16, .cq_entries = 64 };
    struct ring *r[2];
    const char *what;
    int err, fd[2];

    for (int i = 0; i < 2; i++) {
        r[i] = ring_new(&o, &err, &what);
        fd[i] = ring_listen_tcp(&here, true, true, 16, NULL);
        ring_accept(r[i], fd[i], ud_make(OP_ACCEPT, 0, 0));
    }
    cr_assert(eq(int, ring_listen_tcp(&here, true, false, 16, NULL), -EADDRINUSE));
    for (unsigned i = 0; i < 20; i++) {
        unsigned want = i * 7 % 3 % 2;
        struct ring_cqe cqe;

        sim_place_next(net, want);
        cr_assert(le(int, 0, sim_connect(net, &here, &there)));
        for (unsigned k = 0; k < 2; k++) {
            cr_assert(eq(int, ring_wait(r[k], 0), 0));
            cr_assert(eq(int, ring_next(r[k], &cqe), k == want));
        }
    }
    cr_assert(eq(int, sim_connect(net, &there, &here), -ECONNREFUSED));
}

Test(sim_rules, close_under_an_armed_receive_is_told_and_sends_no_fin, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });
    struct ring_cqe cqe;
    char c;

    hand_recv(&h);
    expect_silence(&h);
    ring_close(h.r, h.fd);
    expect_silence(&h);
    cr_assert(eq(long, sim_recv(h.net, h.ep, &c, 1), -EAGAIN));
    cr_assert(eq(long, sim_send(h.net, h.ep, "x", 1), 1));
    cqe = take(&h);
    cr_assert(eq(int, cqe.res, 1)); /* io_uring.md §6 */
    ring_buf_return(h.r, cqe.bid);
    expect_broken(&h, "closed under 1 requests");
}

Test(sim_rules, tells_of_a_request_on_a_descriptor_that_changed_before_submission, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });

    ring_cancel_fd(h.r, h.fd, ud_make(OP_CANCEL, 1, 2));
    ring_close(h.r, h.fd); /* the cancel is not submitted yet */
    cr_assert(eq(int, take(&h).res, -EBADF));
    expect_broken(&h, "closed before it was submitted");
}

Test(sim_rules, tells_of_two_sends_in_flight_on_one_stream, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .socket_bytes = 10 });

    hand_send(&h, "0123456789", 10);
    take(&h);
    hand_send(&h, "abc", 3); /* waits */
    hand_send(&h, "def", 3);
    expect_broken(&h, "two sends");
}

Test(sim_rules, tells_of_two_receives_armed_on_one_stream, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });

    hand_recv(&h);
    hand_recv(&h);
    expect_silence(&h);
    expect_broken(&h, "two receives");
}

Test(sim_rules, tells_of_a_payload_that_changed_before_its_completion, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });
    char bytes[] = "abc";

    hand_send(&h, bytes, 3);
    bytes[1] = 'x'; /* sent, but its completion has not been seen */
    cr_assert(eq(int, take(&h).res, 3));
    expect_broken(&h, "payload");
}

Test(sim_rules, tells_of_descriptors_left_open_and_of_buffers_left_leased, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });
    struct ring_cqe cqe;

    ring_close(h.r, h.fd);
    expect_broken(&h, "1 descriptors left open, listener");
    h.ep = sim_connect(h.net, &here, &there);
    h.fd = take(&h).res;
    hand_recv(&h);
    sim_send(h.net, h.ep, "x", 1);
    cqe = take(&h);
    cr_assert(cqe.has_buf);
    expect_broken(&h, "leased");
    ring_free(h.r);
    expect_broken(&h, "ring freed with 1 buffers leased");
}

Test(sim_rules, returning_a_buffer_twice_stops_the_process, .signal = SIGABRT, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });

    ring_buf_return(h.r, 1);
}

Test(sim_rules, a_wake_and_a_doorbell_arrive_with_their_user_data, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ .bell_delay_ms_max = 30 });

    ring_wake(h.r);
    ring_wake(h.r);
    cr_assert(eq(int, ud_op(take(&h).ud), RING_WAKE_OP));
    ring_doorbell(h.r, h.r, ud_make(OP_BELL, 3, 4));
    cr_assert(eq(u64, take(&h).ud, ud_make(OP_BELL, 3, 4)));
    expect_silence(&h);
}

Test(sim_rules, polls_and_reads_one_shot, .timeout = 10)
{
    struct hand h = hand_of(1, (struct sim_opts){ 0 });
    char got[8];

    ring_poll_in(h.r, h.fd, ud_make(OP_POLL, 1, 2));
    expect_silence(&h);
    sim_send(h.net, h.ep, "abcd", 4);
    cr_assert(eq(int, ud_op(take(&h).ud), OP_POLL));
    ring_read(h.r, h.fd, got, 3, ud_make(OP_READ, 1, 2));
    cr_assert(eq(int, take(&h).res, 3));
    cr_assert(eq(int, memcmp(got, "abc", 3), 0));
    sim_reset(h.net, h.ep);
    cr_assert(take(&h).more);
}
