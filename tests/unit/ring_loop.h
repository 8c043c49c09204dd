/* tests/unit/ring_loop.h: rings and loopback sockets for the two files that test ring_uring.c. */
#ifndef SLUICE_TESTS_RING_LOOP_H
#define SLUICE_TESTS_RING_LOOP_H

#include "engine/ring.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

enum { OP_ACCEPT = 1, OP_RECV, OP_SEND, OP_CANCEL, OP_BELL, OP_READ, OP_WRITE, OP_POLL };
enum { NS_PER_MS = 1000000, WAIT_MS_MAX = 5000 };

static const struct ring_opts small = { 64, 256, 16, 1024, false, NULL };
#define LOOPBACK4                                                                                  \
    {                                                                                              \
        .ip = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 }                                   \
    }
#define LOOPBACK6                                                                                  \
    {                                                                                              \
        .ip = { [15] = 1 }                                                                         \
    }
static const struct netaddr any4 = LOOPBACK4, any6 = LOOPBACK6;

static inline struct ring *ring_of(const struct ring_opts *o)
{
    const char *what;
    int err;
    struct ring *r = ring_new(o, &err, &what);

    if (r == NULL && (err == -EPERM || err == -ENOSYS))
        cr_skip_test("%s: %s", what, strerror(-err));
    cr_assert(r != NULL, "%s: %s", what, strerror(-err));
    return r;
}

static inline uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

/* The next completion, whatever it is; fails the test when none comes. */
static inline struct ring_cqe next(struct ring *r)
{
    uint64_t until = now_ms() + WAIT_MS_MAX;
    struct ring_cqe cqe = { 0 };

    while (!ring_next(r, &cqe)) {
        cr_assert(now_ms() < until, "no completion came");
        cr_assert(eq(int, ring_wait(r, 100u * NS_PER_MS), 0));
    }
    return cqe;
}

static inline void expect_quiet(struct ring *r, unsigned ms)
{
    struct ring_cqe cqe;

    cr_assert(eq(int, ring_wait(r, (uint64_t)ms * NS_PER_MS), 0));
    cr_assert(not(ring_next(r, &cqe)), "op %u res %d", ud_op(cqe.ud), cqe.res);
}

static inline int dial(const struct netaddr *to)
{
    bool v4 = to->ip[10] == 0xff;
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(to->port) };
    struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(to->port) };
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    memcpy(&sin.sin_addr, to->ip + 12, 4);
    memcpy(&sin6.sin6_addr, to->ip, 16);
    err = v4 ? connect(fd, (struct sockaddr *)&sin, sizeof(sin))
             : connect(fd, (struct sockaddr *)&sin6, sizeof(sin6));
    cr_assert(eq(int, err, 0), "connect: %s", strerror(errno));
    return fd;
}

struct pair {
    int listener, client, server;
    struct netaddr at;
};

static inline struct pair pair_of(struct ring *r)
{
    struct pair p;
    struct ring_cqe cqe;

    p.listener = ring_listen_tcp(&any4, true, false, 16, &p.at);
    cr_assert(le(int, 0, p.listener));
    ring_accept(r, p.listener, ud_make(OP_ACCEPT, 1, 7));
    p.client = dial(&p.at);
    cqe = next(r);
    cr_assert(eq(int, ud_op(cqe.ud), OP_ACCEPT));
    cr_assert(cqe.more);
    p.server = cqe.res;
    cr_assert(le(int, 0, p.server));
    return p;
}

static inline void pair_close(struct ring *r, struct pair *p)
{
    close(p->client);
    ring_close(r, p->server);
    ring_free(r);
    close(p->listener);
}

static inline void send_str(struct ring *r, int fd, const char *s, uint64_t ud)
{
    struct iovec iov = { (void *)(uintptr_t)s, strlen(s) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    ring_sendmsg(r, fd, &msg, ud);
    cr_assert(eq(int, ring_wait(r, 0), 0)); /* msg lives only until here */
}

#endif
