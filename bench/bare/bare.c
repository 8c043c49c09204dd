/* bench/bare/bare.c: the work that a relay of encrypted circuits cannot avoid, and nothing else:
 * receive, open, look at the yamux header, seal for the other side, send. One thread, epoll, the
 * record AEAD of proto/crypto.h; no handshake, no credit, no limits, no accounting. What the daemon
 * costs beyond this is its own. With the raw flag records are passed on unopened: a null relay, for
 * latencies.
 *
 * A client's first 76 bytes: "BARE", number of its pair, flags (1: source, 2: raw), the key that it
 * seals with, the key that it opens with (tools/load_p2p_conn.c). Trusts its clients.
 * With `flip` or `drop` behind the port it spoils one record in 300, so that one sees the
 * generator fail. */
#include "proto/crypto.h"
#include "proto/cur.h"
#include "proto/yamux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HELLO = 76,
    READ = 1 << 18,
    RECORD_MAX = 2 + 65535,
    OUT = READ + 2 * RECORD_MAX,
    PAIRS = 1 << 15,
    SPOIL_EVERY = 300,
    EVENTS = 256,
};

struct conn {
    int fd;
    bool up, raw, paused, polled_out, closed;
    struct conn *other, *next_dead;
    struct aead_key rx, tx;
    uint8_t *carry, *out; /* an incomplete record; what the socket did not take */
    size_t carry_n, out_at, out_n;
    uint32_t body_left; /* of the frame that goes on in the next record */
    uint32_t pair;
};

static struct {
    int epoll;
    struct aead *aead;
    bool flip, drop;
    unsigned records;
    struct conn *waiting[PAIRS];
    struct conn *dead;
    uint8_t in[RECORD_MAX + READ];
    uint8_t out[OUT];
} g;

static void poll_for(struct conn *c)
{
    struct epoll_event ev = { .events = (c->paused ? 0u : (uint32_t)EPOLLIN) |
                                        (c->out_n ? (uint32_t)EPOLLOUT : 0u),
                              .data.ptr = c };

    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0);
}

static void pause_reading(struct conn *c, bool on)
{
    if (c->paused == on || c->closed)
        return;
    c->paused = on;
    poll_for(c);
}

static void drop(struct conn *c)
{
    if (!c || c->closed)
        return;
    c->closed = true;
    close(c->fd);
    if (g.waiting[c->pair] == c)
        g.waiting[c->pair] = NULL;
    c->next_dead = g.dead; /* freed after this turn's events */
    g.dead = c;
}

/* Sends p[0..n) to c; what does not go is kept, and then the other side is not read. */
static void pass_on(struct conn *c, const uint8_t *p, size_t n)
{
    ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN) {
        drop(c->other);
        drop(c);
        return;
    }
    sent = sent < 0 ? 0 : sent;
    if ((size_t)sent == n)
        return;
    if (!c->out)
        ASSERT((c->out = malloc(OUT)) != NULL);
    c->out_at = 0;
    c->out_n = n - (size_t)sent;
    memcpy(c->out, p + sent, c->out_n);
    poll_for(c);
    pause_reading(c->other, true);
}

static void on_writable(struct conn *c)
{
    ssize_t sent = send(c->fd, c->out + c->out_at, c->out_n, MSG_NOSIGNAL);

    if (sent < 0)
        return;
    c->out_at += (size_t)sent;
    c->out_n -= (size_t)sent;
    if (c->out_n)
        return;
    poll_for(c);
    pause_reading(c->other, false);
}

/* Finds the headers in one record and rewrites their stream ids (to what they were: both sides
 * count alike here). */
static void rewrite(struct conn *c, uint8_t *p, size_t n)
{
    while (n) {
        size_t body = min_sz(n, c->body_left);

        p += body;
        n -= body;
        c->body_left -= (uint32_t)body;
        if (n == 0)
            return;
        struct cur h = cur_of(bytes_of(p, n));
        uint8_t version = cur_u8(&h), type = cur_u8(&h);
        uint16_t flags = cur_u16(&h);
        uint32_t id = cur_u32(&h), length = cur_u32(&h);

        ASSERT(!h.bad); /* our generator starts every frame in a record of its own */
        ASSERT(version == 0 && flags < 16);
        put_u32(p + 4, id);
        c->body_left = type == YAMUX_DATA ? length : 0;
        p += YAMUX_HEADER;
        n -= YAMUX_HEADER;
    }
}

/* true: this record is not passed on. */
static bool spoil(uint8_t *p, size_t n)
{
    if (!g.flip && !g.drop)
        return false;
    if (n < 256 || ++g.records % SPOIL_EVERY != 0)
        return false;
    p[n - 1] ^= g.flip;
    return g.drop;
}

/* Whole records of p[0..n) to the other side; returns how many bytes they were. */
static size_t transcrypt(struct conn *c, uint8_t *p, size_t n)
{
    size_t at = 0, made = 0;

    while (n - at >= 2) {
        size_t len = (size_t)p[at] << 8 | p[at + 1];
        uint8_t *record = p + at + 2;
        struct bytes in = bytes_of(record, len);

        if (n - at - 2 < len)
            break;
        ASSERT(len >= AEAD_TAG);
        ASSERT(aead_open(g.aead, &c->rx, &in, 1, record));
        in.n -= AEAD_TAG;
        rewrite(c, record, in.n);
        if (spoil(record, in.n)) {
            at += 2 + len;
            continue;
        }
        put_u16(g.out + made, (uint16_t)len);
        aead_seal(g.aead, &c->other->tx, &in, 1, g.out + made + 2);
        made += 2 + len;
        at += 2 + len;
    }
    if (made)
        pass_on(c->other, g.out, made);
    return at;
}

static bool join(struct conn *c, const uint8_t *hello)
{
    struct cur in = cur_of(bytes_of(hello, HELLO));
    struct bytes magic = cur_take(&in, 4);
    uint32_t flags;

    c->pair = cur_u32(&in);
    flags = cur_u32(&in);
    if (memcmp(magic.p, "BARE", 4) != 0 || c->pair >= PAIRS)
        return false;
    memcpy(c->rx.key, cur_take(&in, 32).p, 32);
    memcpy(c->tx.key, cur_take(&in, 32).p, 32);
    c->raw = flags & 2;
    c->up = true;
    c->other = g.waiting[c->pair];
    if (!c->other) {
        g.waiting[c->pair] = c;
        pause_reading(c, true);
        return true;
    }
    g.waiting[c->pair] = NULL;
    c->other->other = c;
    pause_reading(c->other, false);
    return true;
}

static void on_readable(struct conn *c)
{
    uint8_t *p = g.in;
    size_t n = c->carry_n, used;
    ssize_t got;

    if (!c->up) { /* exactly the hello: what follows stays in the socket until the pair is whole */
        if (recv(c->fd, g.in, HELLO, MSG_PEEK) < HELLO)
            got = recv(c->fd, g.in, HELLO, MSG_PEEK) == 0 ? 0 : -1;
        else
            got = recv(c->fd, g.in, HELLO, 0);
        if (got == 0 || (got > 0 && !join(c, g.in)))
            drop(c);
        return;
    }
    if (n)
        memcpy(p, c->carry, n);
    got = recv(c->fd, p + n, READ, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(c->other);
        drop(c);
        return;
    }
    n += (size_t)got;
    if (c->raw) {
        pass_on(c->other, p, n);
        return;
    }
    used = transcrypt(c, p, n);
    c->carry_n = n - used;
    if (!c->carry && c->carry_n)
        ASSERT((c->carry = malloc(RECORD_MAX)) != NULL);
    if (c->carry_n)
        memcpy(c->carry, p + used, c->carry_n);
}

static void on_accept(int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

    if (!c)
        return;
    c->fd = fd;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static int listen_at(const char *host, const char *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    socklen_t len = sizeof(a);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || inet_pton(AF_INET, host, &a.sin_addr) != 1 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)) < 0 ||
        listen(fd, 4096) < 0 || getsockname(fd, (struct sockaddr *)(void *)&a, &len) < 0) {
        fprintf(stderr, "bench-bare: cannot listen at %s:%s\n", host, port);
        exit(1);
    }
    printf("bare address: %s:%u\n", host, ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static void turn(int listener)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(g.epoll, ev, EVENTS, -1);

    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;

        if (!c) {
            on_accept(listener);
            continue;
        }
        if (!c->closed && ev[i].events & EPOLLOUT)
            on_writable(c);
        if (!c->closed && !c->paused && ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
        else if (!c->closed && ev[i].events & (EPOLLHUP | EPOLLERR))
            drop(c->other), drop(c);
    }
    while (g.dead) {
        struct conn *c = g.dead;

        g.dead = c->next_dead;
        if (c->other && c->other->other == c)
            c->other->other = NULL;
        free(c->carry);
        free(c->out);
        free(c);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event ev = { .events = EPOLLIN };
    struct rlimit files;
    int listener;

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: bench-bare IPV4 PORT [flip|drop]\n");
        return 2;
    }
    g.flip = argc == 4 && strcmp(argv[3], "flip") == 0;
    g.drop = argc == 4 && strcmp(argv[3], "drop") == 0;
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    crypto_init();
    g.aead = aead_new();
    g.epoll = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(g.epoll >= 0);
    listener = listen_at(argv[1], argv[2]);
    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_ADD, listener, &ev) == 0);
    for (;;)
        turn(listener);
}
