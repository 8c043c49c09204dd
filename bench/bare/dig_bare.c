/* bench-dig: what no relay of the DIG wire can leave out, and nothing else: receive, unmask, find
 * the target in a fixed table, copy, send; one thread, epoll, 256 KiB receives, one send per target
 * and turn. No UTF-8, no JSON, no limits, no bounds but its own memory: for the generator alone,
 * whose messages have everything in the same place.
 *
 *     bench-dig bare|null HOST PORT [SPOIL]
 *
 * null: after registration, bytes go on to the other of a pair as they came, masked: two loopback
 * connections and a wake-up. SPOIL: one message in 50 is treated so (flip, drop, double, from,
 * late), to show that the generator notices. */
#include "proto/ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNS = 4096,
    IN_BYTES = 256 * 1024,
    OUT_BYTES = 4 << 20,
    EVENTS = 256,
    ID = 64,
    EVERY = 50,
    FRAME_MAX = 64 * 1024,
};

#define HEAD "{\"type\":\"relay_message\",\"from\":\""
#define TO "\",\"to\":"
/* Where `to` begins in what the generator sends: after from, which is "x". */
#define SENT_TO (sizeof(HEAD "x" TO) - 1)

struct conn {
    int fd;
    unsigned idx; /* by its id */
    bool upgraded, registered, dirty, waits_out;
    char id[ID];
    uint8_t *part; /* of a frame that was cut */
    size_t part_n;
    uint8_t *out;
    size_t out_at, out_n;
    struct conn *next_dirty;
    uint8_t late[FRAME_MAX];
    size_t late_n;
};

static struct conn *by_idx[CONNS], *dirty;
static bool null;
static const char *spoil = "";
static int ep;
static uint8_t in[2 * IN_BYTES];
static unsigned long messages;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct conn *c, bool out)
{
    struct epoll_event ev = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };

    if (c->waits_out != out && epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev) < 0)
        die("epoll_ctl");
    c->waits_out = out;
}

static void flush(struct conn *c)
{
    ssize_t n = send(c->fd, c->out + c->out_at, c->out_n - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n > 0)
        c->out_at += (size_t)n;
    if (c->out_at == c->out_n)
        c->out_at = c->out_n = 0;
    watch(c, c->out_n != 0);
}

static void put(struct conn *c, const void *p, size_t n)
{
    if (c->out_n + n > OUT_BYTES) {
        fprintf(stderr, "bench-dig: more than %d bytes wait\n", OUT_BYTES);
        exit(1);
    }
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = dirty;
    dirty = c;
}

static void say(struct conn *c, const char *text)
{
    uint8_t head[WS_HEAD_MAX];

    put(c, head, ws_head_encode(head, WS_OP_TEXT, strlen(text)));
    put(c, text, strlen(text));
}

static unsigned idx_of(const uint8_t *id)
{
    char text[9] = { 0 };

    memcpy(text, id + ID - 8, 8);
    return (unsigned)strtoul(text, NULL, 16) % CONNS;
}

static void on_register(struct conn *c, const uint8_t *p, size_t n)
{
    static const char mark[] = "\"peer_id\":\"";
    static const char ack[] = "{\"type\":\"register_ack\",\"success\":true,\"message\":"
                              "\"registered\",\"connected_peers\":1}";
    const uint8_t *at = memmem(p, n, mark, sizeof(mark) - 1);

    if (!at) {
        fprintf(stderr, "bench-dig: for load-dig alone\n");
        exit(1);
    }
    memcpy(c->id, at + sizeof(mark) - 1, ID);
    c->idx = idx_of((const uint8_t *)c->id);
    by_idx[c->idx] = c;
    c->registered = true;
    if (null) { /* as a client would have said it */
        uint8_t frame[WS_CLIENT_HEAD_MAX];
        static const uint8_t key[4];

        put(c, frame, ws_client_head_encode(frame, WS_OP_TEXT, true, sizeof(ack) - 1, key));
        put(c, ack, sizeof(ack) - 1);
    } else {
        say(c, ack);
    }
}

static void forward(struct conn *c, struct conn *to, const uint8_t *rest, size_t n)
{
    uint8_t head[WS_HEAD_MAX];

    put(to, head, ws_head_encode(head, WS_OP_TEXT, sizeof(HEAD) - 1 + ID + n));
    put(to, HEAD, sizeof(HEAD) - 1);
    put(to, c->id, ID);
    put(to, rest, n);
}

static void on_spoilt(struct conn *c, struct conn *to, uint8_t *rest, size_t n)
{
    if (strcmp(spoil, "drop") == 0)
        return;
    if (strcmp(spoil, "late") == 0 && n <= FRAME_MAX) {
        memcpy(c->late, rest, n);
        c->late_n = n;
        return;
    }
    if (strcmp(spoil, "flip") == 0)
        rest[n / 2] ^= 1;
    if (strcmp(spoil, "from") == 0)
        c->id[0] ^= 1;
    forward(c, to, rest, n);
    if (strcmp(spoil, "from") == 0)
        c->id[0] ^= 1;
    if (strcmp(spoil, "double") == 0)
        forward(c, to, rest, n);
}

static void on_text(struct conn *c, uint8_t *p, size_t n)
{
    if (!c->registered) {
        on_register(c, p, n);
        return;
    }
    /* From `","to":"` on it is what the target gets; the value of `to` begins after it and a quote.
     */
    uint8_t *rest = p + SENT_TO - (sizeof(TO) - 1);
    struct conn *to = n > SENT_TO + 1 + ID ? by_idx[idx_of(p + SENT_TO + 1)] : NULL;

    if (!to)
        return;
    n -= (size_t)(rest - p);
    if (*spoil && ++messages % EVERY == 0) {
        on_spoilt(c, to, rest, n);
        return;
    }
    forward(c, to, rest, n);
    if (c->late_n) {
        forward(c, to, c->late, c->late_n);
        c->late_n = 0;
    }
}

/* One frame off the front; false: it is not whole. */
static bool frame(struct conn *c, uint8_t **p, size_t *n)
{
    size_t len, head = 6;

    if (*n < 14)
        return false;
    len = (*p)[1] & 127;
    if (len == 126) {
        len = (size_t)(*p)[2] << 8 | (*p)[3];
        head = 8;
    } else if (len == 127) {
        len = (size_t)(*p)[6] << 24 | (size_t)(*p)[7] << 16 | (size_t)(*p)[8] << 8 | (*p)[9];
        head = 14;
    }
    if (*n < head + len)
        return false;
    ws_mask(*p + head, len, *p + head - 4, 0);
    on_text(c, *p + head, len);
    *p += head + len;
    *n -= head + len;
    return true;
}

static bool upgrade(struct conn *c, uint8_t **p, size_t *n)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n"
                                 "upgrade: websocket\r\n"
                                 "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    uint8_t *end = memmem(*p, *n, "\r\n\r\n", 4);

    if (!end)
        return false;
    put(c, answer, sizeof(answer) - 1);
    c->upgraded = true;
    *n -= (size_t)(end + 4 - *p);
    *p = end + 4;
    return true;
}

static void gone(struct conn *c)
{
    if (by_idx[c->idx] == c)
        by_idx[c->idx] = NULL;
    close(c->fd);
    c->fd = -1; /* and its memory stays: a run has few */
}

static void readable(struct conn *c)
{
    uint8_t *p = in;
    size_t n = c->part_n;
    ssize_t rc;

    if (n)
        memcpy(in, c->part, n);
    rc = recv(c->fd, in + n, IN_BYTES, MSG_DONTWAIT);
    if (rc <= 0) {
        if (rc == 0 || (errno != EAGAIN && errno != EINTR))
            gone(c);
        return;
    }
    n += (size_t)rc;
    c->part_n = 0;
    if (!c->upgraded && !upgrade(c, &p, &n))
        goto keep;
    if (null && c->registered) {
        struct conn *to = by_idx[c->idx ^ 1];

        if (to)
            put(to, p, n);
        return;
    }
    while (frame(c, &p, &n))
        ;
keep:
    if (n > IN_BYTES) {
        fprintf(stderr, "bench-dig: a frame of more than %d bytes\n", IN_BYTES);
        exit(1);
    }
    memcpy(c->part, p, n);
    c->part_n = n;
}

static void accept_all(int door)
{
    int fd, one = 1;

    while ((fd = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof(*c));
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

        if (!c || !(c->part = malloc(IN_BYTES)) || !(c->out = malloc(OUT_BYTES)))
            die("malloc");
        c->fd = fd;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
            die("epoll_ctl");
    }
}

static int listen_at(const char *host, const char *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    socklen_t n = sizeof(at);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (inet_pton(AF_INET, host, &at.sin_addr) != 1 || fd < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &n) < 0)
        die("listen");
    printf("dig address: %s:%d\n", host, ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 4 || (strcmp(argv[1], "bare") != 0 && strcmp(argv[1], "null") != 0)) {
        fprintf(stderr, "usage: bench-dig bare|null HOST PORT [flip|drop|double|from|late]\n");
        return 2;
    }
    null = strcmp(argv[1], "null") == 0;
    spoil = argc > 4 ? argv[4] : "";
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    int door = listen_at(argv[2], argv[3]);
    struct epoll_event ev[EVENTS] = { { .events = EPOLLIN, .data.ptr = NULL } };

    if (epoll_ctl(ep, EPOLL_CTL_ADD, door, ev) < 0)
        die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(ep, ev, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;

            if (!c)
                accept_all(door);
            else if (c->fd >= 0 && ev[i].events & ~(uint32_t)EPOLLOUT)
                readable(c);
            if (c && c->fd >= 0 && ev[i].events & EPOLLOUT)
                flush(c);
        }
        while (dirty) {
            struct conn *c = dirty;

            dirty = c->next_dirty;
            c->dirty = false;
            if (c->fd >= 0)
                flush(c);
        }
    }
}
