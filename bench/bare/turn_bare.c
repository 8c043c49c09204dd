/* bench/bare/turn_bare.c: the work that a relay of TURN's data cannot avoid, and nothing else. One
 * thread, blocking calls, no allocation, no permission, no header to strip, no accounting. What the
 * daemon costs beyond this is its own.
 *
 *   bench-turn plain IPV4 PORT   recv and send, a datagram at a time
 *   bench-turn gro IPV4 PORT     recvmsg with UDP_GRO and sendmsg with UDP_SEGMENT, a train at a
 * time bench-turn splice IPV4 PORT  splice(2) both ways between two streams, through pipes of 1 MiB
 *
 * A datagram "BARESINK" says where all others are to go, and is sent back. A stream begins with
 * "BARE", address and port of where to connect to, 24 bytes in all (tools/load_turn_run.c,
 * load_turn_tcp.c). Trusts its clients. */
#include "proto/cur.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

enum {
    HELLO = 24,
    SINK_HELLO = 9, /* with its zero */
    SOCK_BUF = 8 << 20,
    PIPE = 1 << 20,
    DATAGRAM_MAX = 1 << 16,
    EVENTS = 64,
};

static uint8_t buf[DATAGRAM_MAX];

static int open_at(int type, const char *host, const char *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    socklen_t len = sizeof(a);
    int one = 1, size = SOCK_BUF, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (type == SOCK_DGRAM && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (fd < 0 || inet_pton(AF_INET, host, &a.sin_addr) != 1 ||
        bind(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)) < 0 ||
        getsockname(fd, (struct sockaddr *)(void *)&a, &len) < 0 ||
        (type == SOCK_STREAM && listen(fd, 4096) < 0)) {
        fprintf(stderr, "bench-turn: cannot listen at %s:%s\n", host, port);
        exit(1);
    }
    printf("bare address: %s:%u\n", host, ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

/* ---- datagrams ----------------------------------------------------------------------------- */

/* What comes goes out by another socket, as from a relayed address, connected to the sink. */
static bool is_hello(int in, int *out, size_t n, const struct sockaddr_in *from)
{
    struct sockaddr_in here;
    socklen_t len = sizeof(here);
    int size = SOCK_BUF;

    if (n != SINK_HELLO || memcmp(buf, "BARESINK", SINK_HELLO) != 0)
        return false;
    if (*out >= 0)
        close(*out);
    *out = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ASSERT(*out >= 0);
    ASSERT(getsockname(in, (struct sockaddr *)(void *)&here, &len) == 0);
    here.sin_port = 0;
    (void)setsockopt(*out, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    ASSERT(bind(*out, (const struct sockaddr *)(const void *)&here, sizeof(here)) == 0);
    ASSERT(connect(*out, (const struct sockaddr *)(const void *)from, sizeof(*from)) == 0);
    (void)send(*out, buf, n, 0);
    return true;
}

static void loop_plain(int in)
{
    int out = -1;

    for (;;) {
        struct sockaddr_in from;
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(in, buf, sizeof(buf), 0, (struct sockaddr *)(void *)&from, &len);

        if (n >= 0 && !is_hello(in, &out, (size_t)n, &from) && out >= 0)
            (void)send(out, buf, (size_t)n, 0);
    }
}

static void loop_gro(int in)
{
    int out = -1, one = 1;

    ASSERT(setsockopt(in, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) == 0);
    for (;;) {
        union {
            struct cmsghdr align;
            uint8_t room[CMSG_SPACE(sizeof(int))];
        } control, segment = { 0 };
        struct sockaddr_in from;
        struct iovec iov = { buf, sizeof(buf) };
        struct msghdr m = { .msg_name = &from,
                            .msg_namelen = sizeof(from),
                            .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.room,
                            .msg_controllen = sizeof(control.room) };
        ssize_t n = recvmsg(in, &m, 0);
        struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&m) : NULL;
        struct msghdr to = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n < 0 || is_hello(in, &out, (size_t)n, &from) || out < 0)
            continue;
        iov.iov_len = (size_t)n;
        if (c && c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            uint16_t size16;

            memcpy(&size, CMSG_DATA(c), sizeof(size));
            size16 = (uint16_t)size;
            to.msg_control = segment.room;
            to.msg_controllen = CMSG_SPACE(sizeof(size16));
            c = CMSG_FIRSTHDR(&to);
            c->cmsg_level = IPPROTO_UDP;
            c->cmsg_type = UDP_SEGMENT;
            c->cmsg_len = CMSG_LEN(sizeof(size16));
            memcpy(CMSG_DATA(c), &size16, sizeof(size16));
        }
        (void)sendmsg(out, &to, 0);
    }
}

/* ---- streams ------------------------------------------------------------------------------- */

struct half {
    int from, to, pipe[2];
    size_t held; /* in the pipe */
    bool eof;
};

struct pair {
    struct half half[2];
    bool dead;
};

static bool half_open(struct half *h, int from, int to)
{
    *h = (struct half){ .from = from, .to = to };
    return pipe2(h->pipe, O_NONBLOCK | O_CLOEXEC) == 0 &&
           fcntl(h->pipe[1], F_SETPIPE_SZ, PIPE) >= 0;
}

/* true: something moved. */
static bool half_move(struct half *h, bool *dead)
{
    bool some = false;
    ssize_t n;

    if (!h->eof && !h->held) {
        n = splice(h->from, NULL, h->pipe[1], NULL, PIPE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        h->eof = n == 0;
        *dead |= n < 0 && errno != EAGAIN;
        if (n > 0) {
            h->held += (size_t)n;
            some = true;
        }
    }
    if (h->held) {
        n = splice(h->pipe[0], NULL, h->to, NULL, h->held, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        *dead |= n < 0 && errno != EAGAIN;
        if (n > 0) {
            h->held -= (size_t)n;
            some = true;
        }
    }
    return some;
}

static void pair_close(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        close(p->half[i].from);
        close(p->half[i].pipe[0]);
        close(p->half[i].pipe[1]);
    }
    free(p);
}

/* Blocks while one client says where it wants to go: they are ours, and few. */
static void on_accept(int epoll, int listener)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    uint8_t hello[HELLO];
    int one = 1, a = accept4(listener, NULL, NULL, SOCK_CLOEXEC), b;
    struct pair *p = calloc(1, sizeof(*p));
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = p };

    ASSERT(p && a >= 0);
    if (recv(a, hello, HELLO, MSG_WAITALL) != HELLO || memcmp(hello, "BARE", 4) != 0) {
        close(a);
        free(p);
        return;
    }
    memcpy(&to.sin_addr, hello + 16, 4);
    to.sin_port = htons((uint16_t)(hello[20] << 8 | hello[21]));
    b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(b >= 0 && connect(b, (const struct sockaddr *)(const void *)&to, sizeof(to)) == 0);
    ASSERT(half_open(&p->half[0], a, b) && half_open(&p->half[1], b, a));
    for (int i = 0; i < 2; i++) {
        int fd = p->half[i].from;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        ASSERT(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
        ASSERT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == 0);
    }
}

static void loop_splice(int listener)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev[EVENTS] = { { .events = EPOLLIN } };

    ASSERT(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &ev[0]) == 0);
    for (;;) {
        int n = epoll_wait(epoll, ev, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            struct pair *p = ev[i].data.ptr;
            bool some = true;

            if (!p) {
                on_accept(epoll, listener);
                continue;
            }
            while (some && !p->dead) { /* until EAGAIN: edges are told once */
                some = half_move(&p->half[0], &p->dead);
                some |= half_move(&p->half[1], &p->dead);
            }
            if ((p->dead || (p->half[0].eof && p->half[1].eof))) {
                for (int j = i + 1; j < n; j++) /* both of its sockets may be in this batch */
                    if (ev[j].data.ptr == p)
                        ev[j--] = ev[--n];
                pair_close(p);
            }
        }
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && strcmp(argv[1], "plain") == 0)
        loop_plain(open_at(SOCK_DGRAM, argv[2], argv[3]));
    else if (argc == 4 && strcmp(argv[1], "gro") == 0)
        loop_gro(open_at(SOCK_DGRAM, argv[2], argv[3]));
    else if (argc == 4 && strcmp(argv[1], "splice") == 0)
        loop_splice(open_at(SOCK_STREAM, argv[2], argv[3]));
    fprintf(stderr, "usage: bench-turn plain|gro|splice IPV4 PORT\n");
    return 2;
}
