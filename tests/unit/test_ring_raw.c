/* tests/unit/test_ring_raw.c: engine/ring_raw.c against the kernel: streams beside the ring. */
#include "tests/unit/ring_loop.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>

static int listen_shared(struct netaddr *at)
{
    int fd = ring_listen_tcp(at, true, false, 8, at);

    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, ring_share_port(fd), 0));
    return fd;
}

Test(ring_raw, shares_no_port_with_who_listens_already, .timeout = 20)
{
    struct netaddr at = any4, again;
    int sharer = ring_listen_tcp(&at, true, true, 8, &at), second;

    cr_assert(ge(int, sharer, 0));
    again = at;
    cr_assert(eq(int, ring_listen_tcp(&again, true, false, 8, NULL), -EADDRINUSE));
    second = ring_listen_tcp(&again, true, true, 8, NULL);
    cr_assert(ge(int, second, 0), "which is why a relayed address must not ask so");
    close(second);
    close(sharer);
}

Test(ring_raw, connects_from_an_address_that_a_listener_holds, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct netaddr here = any4, there = any4, seen;
    int mine = listen_shared(&here), theirs = listen_shared(&there);
    int fd = ring_connect_tcp(&here, &there), got;

    cr_assert(ge(int, fd, 0));
    ring_poll_once(r, fd, POLLOUT, ud_make(OP_POLL, 1, 2));
    struct ring_cqe cqe = next(r);

    cr_assert(eq(u64, cqe.ud, ud_make(OP_POLL, 1, 2)));
    cr_assert(eq(int, cqe.res &POLLOUT, POLLOUT));
    cr_assert(not(cqe.more));
    cr_assert(eq(int, ring_connect_result(fd), 0));
    got = accept(theirs, NULL, NULL);
    cr_assert(eq(int, ring_peername(got, &seen), 0));
    cr_assert(eq(int, memcmp(&seen, &here, sizeof(here)), 0), "from the listener's address");
    cr_assert(lt(int, ring_connect_tcp(&here, &there), 0), "there is one from there to there");
    close(got);
    close(fd);
    close(mine);
    close(theirs);
    ring_free(r);
}

Test(ring_raw, tells_what_became_of_connecting, .timeout = 20)
{
    struct netaddr here = any4, gone = any4;
    int fd, err, closed = listen_shared(&gone);
    uint64_t until = now_ms() + WAIT_MS_MAX;

    close(closed);
    fd = ring_connect_tcp(&here, &gone);
    cr_assert(ge(int, fd, 0));
    while ((err = ring_connect_result(fd)) == -EINPROGRESS)
        cr_assert(now_ms() < until);
    cr_assert(eq(int, err, -ECONNREFUSED));
    close(fd);
    cr_assert(eq(int, ring_connect_tcp(&here, &any6), -EAFNOSUPPORT));
}

Test(ring_raw, a_poll_is_done_once_and_at_once_if_it_is_so_already, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    struct ring_cqe cqe;

    cr_assert(eq(int, (int)write(p.client, "x", 1), 1));
    ring_poll_once(r, p.server, POLLIN, ud_make(OP_POLL, 1, 1));
    cqe = next(r);
    cr_assert(eq(int, cqe.res, POLLIN), "and not POLLOUT, which nobody asked for");
    cr_assert(not(cqe.more));
    cr_assert(eq(int, (int)write(p.client, "y", 1), 1));
    ring_poll_once(r, p.server, 0, ud_make(OP_POLL, 1, 2)); /* data is nothing to this one */
    cr_assert(eq(int, ring_wait(r, 20 * NS_PER_MS), 0));
    cr_assert(not(ring_next(r, &cqe)));

    struct linger hard = { 1, 0 };

    setsockopt(p.client, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(p.client);
    p.client = -1;
    cqe = next(r);
    cr_assert(eq(u64, cqe.ud, ud_make(OP_POLL, 1, 2)));
    cr_assert(eq(int, cqe.res &(POLLERR | POLLHUP), POLLERR | POLLHUP));
    pair_close(r, &p);
}

Test(ring_raw, cancels_the_one_that_was_named, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    int seen = 0;

    ring_poll_once(r, p.server, POLLIN, ud_make(OP_POLL, 1, 1));
    ring_poll_once(r, p.server, POLLIN, ud_make(OP_POLL, 1, 2));
    ring_recv(r, p.server, ud_make(OP_RECV, 1, 1), true);
    ring_cancel_ud(r, ud_make(OP_POLL, 1, 1), ud_make(OP_CANCEL, 1, 1));
    ring_cancel_ud(r, ud_make(OP_RECV, 1, 1), ud_make(OP_CANCEL, 1, 2));
    ring_cancel_ud(r, ud_make(OP_POLL, 9, 9), ud_make(OP_CANCEL, 1, 3)); /* there is none */
    for (int i = 0; i < 5; i++) {
        struct ring_cqe cqe = next(r);

        cr_assert(not(cqe.more));
        if (cqe.ud == ud_make(OP_POLL, 1, 1) || cqe.ud == ud_make(OP_RECV, 1, 1)) {
            cr_assert(eq(int, cqe.res, -ECANCELED));
            seen++;
        } else {
            cr_assert(eq(int, ud_op(cqe.ud), OP_CANCEL));
        }
    }
    cr_assert(eq(int, seen, 2));
    cr_assert(eq(int, (int)write(p.client, "x", 1), 1));
    cr_assert(eq(u64, next(r).ud, ud_make(OP_POLL, 1, 2)), "the other one lives");
    pair_close(r, &p);
}

Test(ring_raw, a_peek_leaves_bytes_until_they_are_discarded, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    char got[8] = "";

    cr_assert(eq(int, ring_peek(p.server, got, 8), -EAGAIN), "on a blocking socket, too");
    cr_assert(eq(int, (int)write(p.client, "hello!", 6), 6));
    ring_poll_once(r, p.server, POLLIN, ud_make(OP_POLL, 1, 1));
    next(r);
    for (int i = 0; i < 2; i++) {
        cr_assert(eq(int, ring_peek(p.server, got, 8), 6));
        cr_assert(eq(int, memcmp(got, "hello!", 6), 0));
    }
    cr_assert(eq(int, ring_discard(p.server, 4), 4));
    cr_assert(eq(int, ring_peek(p.server, got, 8), 2));
    cr_assert(eq(int, memcmp(got, "o!", 2), 0));
    cr_assert(eq(int, ring_discard(p.server, 8), 2));
    cr_assert(eq(int, ring_discard(p.server, 8), -EAGAIN));
    shutdown(p.client, SHUT_WR);
    ring_poll_once(r, p.server, POLLIN, ud_make(OP_POLL, 1, 2));
    next(r);
    cr_assert(eq(int, ring_peek(p.server, got, 8), 0));
    pair_close(r, &p);
}

Test(ring_raw, splices_through_a_pipe_without_waiting, .timeout = 20)
{
    enum { BYTES = 50000 };
    struct ring *r = ring_of(&small);
    struct pair from = pair_of(r);
    static uint8_t out[BYTES], in[BYTES];
    struct ring_pipe pipe;
    size_t moved = 0, got = 0;
    int fd[2];

    cr_assert(eq(int, socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0));
    for (size_t i = 0; i < BYTES; i++)
        out[i] = (uint8_t)(i * 7 + i / 251);
    cr_assert(eq(int, ring_pipe_new(&pipe, 1 << 17), 0));
    cr_assert(eq(sz, pipe.cap, 1 << 17));
    cr_assert(eq(int, ring_tune_raw(from.server), 0));
    cr_assert(eq(int, fcntl(from.server, F_GETFL) & O_NONBLOCK, O_NONBLOCK));
    cr_assert(eq(int, ring_splice_in(&pipe, from.server, BYTES), -EAGAIN));
    cr_assert(eq(int, (int)write(from.client, out, BYTES), BYTES));
    shutdown(from.client, SHUT_WR);
    for (;;) {
        int n = ring_splice_in(&pipe, from.server, BYTES);

        if (n == -EAGAIN)
            continue; /* under way */
        cr_assert(ge(int, n, 0));
        if (n == 0)
            break;
        moved += (size_t)n;
        cr_assert(eq(int, ring_splice_out(&pipe, fd[1], (size_t)n), n));
    }
    cr_assert(eq(sz, moved, BYTES));
    cr_assert(eq(int, ring_splice_out(&pipe, fd[1], 1), -EAGAIN), "the pipe is empty");
    while (got < BYTES)
        got += (size_t)read(fd[0], in + got, BYTES - got);
    cr_assert(eq(int, memcmp(in, out, BYTES), 0));
    ring_pipe_free(&pipe);
    close(fd[0]);
    close(fd[1]);
    pair_close(r, &from);
}
