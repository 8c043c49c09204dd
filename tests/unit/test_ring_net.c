/* tests/unit/test_ring_net.c: engine/ring_uring.c against the kernel: TCP over loopback. */
#include "tests/unit/ring_loop.h"

#include <netinet/tcp.h>
#include <sys/resource.h>

Test(ring_net, accepts_receives_and_sends_with_generations_in_user_data, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    struct ring_cqe cqe;
    char got[8] = "";

    ring_recv(r, p.server, ud_make(OP_RECV, 0xabcdef, 0xdeadbeef), true);
    cr_assert(eq(int, (int)write(p.client, "hello", 5), 5));
    cqe = next(r);
    cr_assert(eq(u64, cqe.ud, ud_make(OP_RECV, 0xabcdef, 0xdeadbeef)));
    cr_assert(eq(u32, ud_gen(cqe.ud), 0xabcdef));
    cr_assert(eq(u32, ud_idx(cqe.ud), 0xdeadbeef));
    cr_assert(eq(int, cqe.res, 5));
    cr_assert(cqe.more);
    cr_assert(cqe.has_buf);
    cr_assert(eq(int, memcmp(cqe.buf, "hello", 5), 0));
    cr_assert(eq(uint, ring_bufs_free(r), 15));
    ring_buf_return(r, cqe.bid);
    cr_assert(eq(uint, ring_bufs_free(r), 16));

    send_str(r, p.server, "world!", ud_make(OP_SEND, 1, 1));
    cqe = next(r);
    cr_assert(eq(int, ud_op(cqe.ud), OP_SEND));
    cr_assert(eq(int, cqe.res, 6));
    cr_assert(not(cqe.more));
    cr_assert(eq(int, (int)read(p.client, got, sizeof(got)), 6));
    cr_assert(eq(str, got, "world!"));

    close(p.client);
    cqe = next(r);
    cr_assert(eq(int, cqe.res, 0)); /* end of stream ends the multishot */
    cr_assert(not(cqe.more));
    cr_assert(not(cqe.has_buf));
    cr_assert(eq(uint, ring_bufs_free(r), 16));
    p.client = -1;
    pair_close(r, &p);
}

Test(ring_net, starved_receive_ends_with_enobufs_and_loses_nothing, .timeout = 20)
{
    enum { BYTES = 40 * 1024 };
    struct ring *r = ring_of(&small); /* 16 KiB of buffers */
    struct pair p = pair_of(r);
    static uint8_t out[BYTES], in[BYTES];
    uint16_t held[16];
    size_t got = 0, held_n = 0;
    unsigned starved = 0;

    for (size_t i = 0; i < BYTES; i++)
        out[i] = (uint8_t)(i * 7 + i / 251);
    cr_assert(eq(int, (int)write(p.client, out, BYTES), BYTES));
    ring_recv(r, p.server, ud_make(OP_RECV, 1, 0), false);
    while (got < BYTES) {
        struct ring_cqe cqe = next(r);

        if (cqe.has_buf) {
            cr_assert(le(sz, got + (size_t)cqe.res, BYTES));
            memcpy(in + got, cqe.buf, (size_t)cqe.res);
            got += (size_t)cqe.res;
            held[held_n++] = cqe.bid;
        }
        if (cqe.more)
            continue;
        cr_assert(eq(int, cqe.res, -ENOBUFS));
        cr_assert(eq(uint, ring_bufs_free(r), 0));
        starved++;
        while (held_n > 0)
            ring_buf_return(r, held[--held_n]);
        ring_recv(r, p.server, ud_make(OP_RECV, 1, 0), false);
    }
    cr_assert(eq(uint, starved, 2));
    cr_assert(eq(int, memcmp(in, out, BYTES), 0));
    pair_close(r, &p);
}

Test(ring_net, close_under_an_armed_receive_sends_no_fin_and_completes_nothing, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    struct timeval soon = { .tv_usec = 50 * 1000 };
    struct ring_cqe cqe;
    char c;

    setsockopt(p.client, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
    ring_recv(r, p.server, ud_make(OP_RECV, 1, 0), true);
    expect_quiet(r, 0);
    ring_close(r, p.server);
    expect_quiet(r, 20);
    cr_assert(eq(int, (int)read(p.client, &c, 1), -1));
    cr_assert(eq(int, errno, EAGAIN)); /* the peer was told nothing */
    cr_assert(eq(int, (int)write(p.client, "x", 1), 1));
    cqe = next(r);
    cr_assert(eq(int, cqe.res, 1)); /* and what it sends still arrives */
    ring_buf_return(r, cqe.bid);
    close(p.client);
    cr_assert(eq(int, next(r).res, 0));
    ring_free(r);
    close(p.listener);
}

Test(ring_net, a_send_to_a_slow_reader_goes_on_in_pieces, .timeout = 20)
{
    enum { BYTES = 8 << 20, VIEWS = 4 };
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    static uint8_t out[BYTES], in[BYTES];
    size_t sent = 0, got = 0;
    unsigned sends = 0;
    bool flying = false;

    for (size_t i = 0; i < BYTES; i++)
        out[i] = (uint8_t)(i * 13 + i / 65521);
    while (got < BYTES) {
        struct ring_cqe cqe;
        ssize_t n;

        struct iovec iov[VIEWS];
        struct msghdr msg = { .msg_iov = iov, .msg_iovlen = VIEWS };

        if (!flying && sent < BYTES) {
            size_t left = BYTES - sent, each = left / VIEWS;

            for (size_t i = 0; i < VIEWS; i++)
                iov[i] = (struct iovec){ out + sent + each * i, each };
            iov[VIEWS - 1].iov_len = left - each * (VIEWS - 1);
            ring_sendmsg(r, p.server, &msg, ud_make(OP_SEND, 1, 0));
            flying = true;
            sends++;
        }
        cr_assert(eq(int, ring_wait(r, NS_PER_MS), 0));
        if (ring_next(r, &cqe)) {
            cr_assert(lt(int, 0, cqe.res));
            sent += (size_t)cqe.res;
            flying = false;
        }
        n = recv(p.client, in + got, 200 * 1000, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
    }
    cr_assert(lt(uint, 1, sends), "nothing was ever short");
    cr_assert(eq(int, memcmp(in, out, BYTES), 0));
    pair_close(r, &p);
}

Test(ring_net, a_send_to_a_reset_peer_is_an_error_and_no_signal, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);
    struct linger now = { 1, 0 };
    int res = 1;

    setsockopt(p.client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(p.client);
    for (int i = 0; i < 3 && res > 0; i++) { /* SIGPIPE would end the test here */
        send_str(r, p.server, "x", ud_make(OP_SEND, 1, 0));
        res = next(r).res;
    }
    cr_assert(eq(int, res == -ECONNRESET || res == -EPIPE, 1), "res %d", res);
    send_str(r, p.server, "x", ud_make(OP_SEND, 1, 0));
    cr_assert(eq(int, next(r).res, -EPIPE));
    p.client = -1;
    pair_close(r, &p);
}

Test(ring_net, a_thousand_connections_each_get_their_own_answer, .timeout = 60)
{
    enum { CONNS = 1000 };
    struct ring_opts o = { 256, 4096, 64, 1024, false, NULL };
    struct ring *r = ring_of(&o);
    static int client[CONNS], server[CONNS];
    static uint8_t text[CONNS][4];
    struct netaddr at;
    int listener = ring_listen_tcp(&any4, true, false, 128, &at);
    unsigned accepted = 0, answered = 0, ended = 0;

    ring_accept(r, listener, ud_make(OP_ACCEPT, 1, 0));
    for (unsigned i = 0; i < CONNS || accepted < CONNS;) {
        struct ring_cqe cqe;

        if (i < CONNS && i - accepted < 100)
            client[i++] = dial(&at);
        cr_assert(eq(int, ring_wait(r, i < CONNS ? 0 : NS_PER_MS), 0));
        while (ring_next(r, &cqe)) {
            cr_assert(le(int, 0, cqe.res));
            server[accepted] = cqe.res;
            ring_recv(r, cqe.res, ud_make(OP_RECV, 1, accepted++), true);
        }
    }
    for (unsigned i = 0; i < CONNS; i++)
        cr_assert(eq(int, (int)write(client[i], &i, sizeof(i)), (int)sizeof(i)));
    while (answered < CONNS) {
        struct ring_cqe cqe = next(r);
        uint32_t idx = ud_idx(cqe.ud);
        struct iovec iov = { text[idx], sizeof(text[idx]) };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (cqe.res == -ENOBUFS) { /* 64 buffers for all of them: dry, but only for this turn */
            ring_recv(r, server[idx], ud_make(OP_RECV, 1, idx), false);
            continue;
        }
        cr_assert(eq(int, cqe.res, 4));
        if (ud_op(cqe.ud) == OP_SEND) {
            answered++;
            continue;
        }
        memcpy(text[idx], cqe.buf, 4);
        ring_buf_return(r, cqe.bid);
        ring_sendmsg(r, server[idx], &msg, ud_make(OP_SEND, 1, idx));
        cr_assert(eq(int, ring_wait(r, 0), 0));
        if (!cqe.more)
            ring_recv(r, server[idx], ud_make(OP_RECV, 1, idx), true);
    }
    for (unsigned i = 0; i < CONNS; i++) {
        unsigned got;

        cr_assert(eq(int, (int)read(client[i], &got, sizeof(got)), (int)sizeof(got)));
        cr_assert(eq(uint, got, i));
        close(client[i]);
    }
    for (; ended < CONNS; ended++) {
        struct ring_cqe cqe = next(r);

        cr_assert(eq(int, cqe.res, 0));
        ring_close(r, server[ud_idx(cqe.ud)]);
    }
    cr_assert(eq(uint, ring_bufs_free(r), 64));
    ring_free(r);
    close(listener);
}

Test(ring_net, accept_without_descriptors_ends_with_emfile_and_can_be_armed_again, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct netaddr at;
    int listener = ring_listen_tcp(&any4, true, false, 16, &at);
    int client = dial(&at);
    struct rlimit was, none;
    struct ring_cqe cqe;

    getrlimit(RLIMIT_NOFILE, &was);
    none = (struct rlimit){ 3, was.rlim_max };
    setrlimit(RLIMIT_NOFILE, &none);
    ring_accept(r, listener, ud_make(OP_ACCEPT, 1, 0)); /* the limit counts as it is now */
    cqe = next(r);
    cr_assert(eq(int, cqe.res, -EMFILE));
    cr_assert(not(cqe.more));
    setrlimit(RLIMIT_NOFILE, &was);
    ring_accept(r, listener, ud_make(OP_ACCEPT, 2, 0));
    cqe = next(r);
    cr_assert(lt(int, 0, cqe.res)); /* it waited in the backlog */
    close(cqe.res);
    close(client);
    ring_free(r);
    close(listener);
}

Test(ring_net, names_are_told_in_one_form_for_both_families, .timeout = 20)
{
    static const struct {
        struct netaddr at;
        bool v6only;
        bool v4_client;
    } cases[] = {
        { LOOPBACK4, true, true },
        { LOOPBACK6, true, false },
        { { .port = 0 }, false, true }, /* [::], dual stack */
        { { .port = 0 }, false, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const uint8_t *want = cases[i].v4_client ? any4.ip : any6.ip;
        struct ring *r = ring_of(&small);
        struct netaddr bound, to = { 0 }, peer, here;
        int listener = ring_listen_tcp(&cases[i].at, cases[i].v6only, false, 16, &bound);
        int client, server;

        if (listener == -EADDRNOTAVAIL || listener == -EAFNOSUPPORT)
            cr_skip_test("no IPv6 on this machine");
        cr_assert(le(int, 0, listener));
        cr_assert(ne(int, bound.port, 0));
        cr_assert(eq(int, memcmp(bound.ip, cases[i].at.ip, 16), 0));
        ring_accept(r, listener, ud_make(OP_ACCEPT, 1, 0));
        memcpy(to.ip, want, 16);
        to.port = bound.port;
        client = dial(&to);
        server = next(r).res;
        cr_assert(eq(int, ring_peername(server, &peer), 0));
        cr_assert(eq(int, ring_sockname(server, &here), 0));
        cr_assert(eq(int, memcmp(peer.ip, want, 16), 0), "case %zu", i);
        cr_assert(eq(int, memcmp(here.ip, want, 16), 0), "case %zu", i);
        cr_assert(eq(int, here.port, bound.port));
        cr_assert(eq(int, ring_sockname(client, &here), 0));
        cr_assert(eq(int, here.port, peer.port));
        close(client);
        ring_close(r, server);
        ring_free(r);
        close(listener);
    }
}

Test(ring_net, a_port_is_shared_only_by_listeners_that_all_say_so)
{
    struct netaddr at;
    int a = ring_listen_tcp(&any4, true, true, 16, &at);
    int b = ring_listen_tcp(&at, true, true, 16, NULL);

    cr_assert(le(int, 0, a));
    cr_assert(le(int, 0, b));
    cr_assert(eq(int, ring_listen_tcp(&at, true, false, 16, NULL), -EADDRINUSE));
    close(a);
    close(b);
    int c = ring_listen_tcp(&at, true, false, 16, NULL);

    cr_assert(le(int, 0, c));
    cr_assert(eq(int, ring_listen_tcp(&at, true, true, 16, NULL), -EADDRINUSE));
    close(c);
}

Test(ring_net, a_freed_ring_no_longer_holds_the_port, .timeout = 20)
{
    struct ring *r = ring_of(&small);
    struct netaddr at;
    int a = ring_listen_tcp(&any4, true, false, 16, &at);

    ring_accept(r, a, ud_make(OP_ACCEPT, 1, 0));
    expect_quiet(r, 0);
    ring_free(r);
    close(a);
    a = ring_listen_tcp(&at, true, false, 16, NULL);
    cr_assert(le(int, 0, a));
    close(a);
}

Test(ring_net, tunes_a_stream_as_the_header_says, .timeout = 20)
{
    static const struct {
        int level, name, want;
    } options[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, 30 },
        { IPPROTO_TCP, TCP_KEEPINTVL, 10 },
        { IPPROTO_TCP, TCP_KEEPCNT, 3 },
        { IPPROTO_TCP, TCP_USER_TIMEOUT, 60000 },
        { IPPROTO_TCP, TCP_NOTSENT_LOWAT, 131072 },
    };
    struct ring *r = ring_of(&small);
    struct pair p = pair_of(r);

    cr_assert(eq(int, ring_tune_tcp(p.server), 0));
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        int value = 0;
        socklen_t n = sizeof(value);

        getsockopt(p.server, options[i].level, options[i].name, &value, &n);
        cr_expect(eq(int, value, options[i].want), "option %d", options[i].name);
    }
    cr_assert(eq(int, ring_tune_tcp(-1), -EBADF));
    cr_assert(eq(int, ring_shutdown(p.server, SHUT_WR), 0));
    char c;

    cr_assert(eq(int, (int)read(p.client, &c, 1), 0));
    pair_close(r, &p);
}
