/* tools/load_turn_sock.c: sockets, trains out and in, streams. */
#include "tools/load_turn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT /* glibc's header is younger than the kernel's */
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

enum {
    SOCK_BUF = 8 << 20,
    SLOTS_GRO = 8,
    SLOTS_PLAIN = 64,
    SLOT_GRO = 1 << 16,
    OUT_CAP = 1 << 18,
    READ = 1 << 18,
    CONTROL = 64, /* room for one cmsg */
};

uint64_t lt_reads, lt_refused, lt_received_ns;

static struct {
    uint8_t *gro, *plain;
    size_t plain_slot;
    uint8_t read[READ];
} g;

socklen_t lt_sa_of(const struct netaddr *a, union lt_sa *out)
{
    memset(out, 0, sizeof(*out));
    if (netaddr_is4(a)) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(a->port);
        memcpy(&out->v4.sin_addr, a->ip + 12, 4);
        return sizeof(out->v4);
    }
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(a->port);
    memcpy(&out->v6.sin6_addr, a->ip, 16);
    return sizeof(out->v6);
}

struct netaddr lt_sa_addr(const union lt_sa *s)
{
    struct netaddr a = { .ip = { [10] = 0xff, [11] = 0xff } };

    if (s->sa.sa_family == AF_INET) {
        memcpy(a.ip + 12, &s->v4.sin_addr, 4);
        a.port = ntohs(s->v4.sin_port);
    } else {
        memcpy(a.ip, &s->v6.sin6_addr, 16);
        a.port = ntohs(s->v6.sin6_port);
    }
    return a;
}

struct netaddr lt_local(int fd)
{
    union lt_sa s;
    socklen_t n = sizeof(s);

    if (getsockname(fd, &s.sa, &n) < 0)
        lt_die("getsockname: %s", strerror(errno));
    return lt_sa_addr(&s);
}

/* Large enough that what is lost is lost at the server. Without the privilege as large as allowed.
 */
static void large_buffers(int fd)
{
    int size = SOCK_BUF;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static int open_socket(int type, const struct netaddr *bind_to, const struct netaddr *to)
{
    union lt_sa local, remote;
    const struct netaddr *any = bind_to ? bind_to : to;
    int family = netaddr_is4(any) ? AF_INET : AF_INET6, one = 1;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        lt_die("socket: %s (limit of descriptors?)", strerror(errno));
    if (type == SOCK_STREAM)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (bind_to && bind(fd, &local.sa, lt_sa_of(bind_to, &local)) < 0)
        lt_die("bind: %s", strerror(errno));
    if (to && connect(fd, &remote.sa, lt_sa_of(to, &remote)) < 0 && errno != EINPROGRESS)
        lt_die("connect: %s", strerror(errno));
    return fd;
}

int lt_udp(const struct netaddr *bind_to, const struct netaddr *to, bool gro)
{
    int fd = open_socket(SOCK_DGRAM, bind_to, to), one = 1;

    large_buffers(fd);
    if (gro && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) < 0)
        lt_die("UDP_GRO: %s", strerror(errno));
    return fd;
}

int lt_tcp(const struct netaddr *bind_to, const struct netaddr *to)
{
    return open_socket(SOCK_STREAM, bind_to, to);
}

void lt_sock_init(void)
{
    /* A slot a little off the powers of two, so that slots do not share their cache sets. */
    g.plain_slot = ((size_t)lt_opt.size + STUN_DATA_HEAD_MAX + 1024) / 64 * 64 + 64;
    g.gro = calloc(SLOTS_GRO, SLOT_GRO + 64);
    g.plain = calloc(SLOTS_PLAIN, g.plain_slot);
    ASSERT(g.gro && g.plain);
}

/* ---- trains -------------------------------------------------------------------------------- */

static size_t iov_of(const struct lt_train *t, unsigned i, struct iovec iov[3])
{
    static uint8_t zeroes[4];
    size_t n = 0;

    iov[n++] = (struct iovec){ (void *)(uintptr_t)t->dg[i].head, t->dg[i].head_n };
    if (t->dg[i].body.n)
        iov[n++] = (struct iovec){ (void *)(uintptr_t)t->dg[i].body.p, t->dg[i].body.n };
    if (t->dg[i].pad)
        iov[n++] = (struct iovec){ zeroes, t->dg[i].pad };
    return n;
}

static bool send_plain(int fd, const union lt_sa *to, socklen_t to_n, const struct lt_train *t)
{
    struct mmsghdr m[LT_TRAIN_MAX] = { 0 };
    struct iovec iov[LT_TRAIN_MAX][3];
    unsigned at = 0;

    for (unsigned i = 0; i < t->n; i++)
        m[i].msg_hdr = (struct msghdr){ .msg_name = (void *)(uintptr_t)to,
                                        .msg_namelen = to_n,
                                        .msg_iov = iov[i],
                                        .msg_iovlen = iov_of(t, i, iov[i]) };
    while (at < t->n) {
        int sent = sendmmsg(fd, m + at, t->n - at, MSG_DONTWAIT);

        if (sent > 0)
            at += (unsigned)sent;
        else if (errno == ECONNREFUSED)
            lt_refused++;
        else if (errno != EAGAIN && errno != ENOBUFS)
            lt_die("sendmmsg: %s", strerror(errno));
        else if (at == 0)
            return false;
    }
    return true;
}

bool lt_send_train(int fd, const union lt_sa *to, socklen_t to_n, const struct lt_train *t)
{
    struct iovec iov[LT_TRAIN_MAX * 3];
    union {
        struct cmsghdr align;
        uint8_t room[CONTROL];
    } control = { 0 };
    struct msghdr m = { .msg_name = (void *)(uintptr_t)to, .msg_namelen = to_n, .msg_iov = iov };

    if (lt_opt.plain && t->n > 1)
        return send_plain(fd, to, to_n, t);
    for (unsigned i = 0; i < t->n; i++)
        m.msg_iovlen += iov_of(t, i, iov + m.msg_iovlen);
    if (t->n > 1) {
        uint16_t segment = (uint16_t)t->segment;

        m.msg_control = control.room;
        m.msg_controllen = CMSG_SPACE(sizeof(segment));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(segment));
        memcpy(CMSG_DATA(c), &segment, sizeof(segment));
    }
    for (;;) {
        if (sendmsg(fd, &m, MSG_DONTWAIT) >= 0)
            return true;
        if (errno == EAGAIN || errno == ENOBUFS)
            return false;
        if (errno != ECONNREFUSED)
            lt_die("sendmsg of %u times %zu bytes: %s", t->n, t->segment, strerror(errno));
        lt_refused++; /* an earlier datagram's fault: this one has not gone */
    }
}

static size_t segment_of(struct msghdr *m, size_t whole)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        int segment;

        if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
            continue;
        memcpy(&segment, CMSG_DATA(c), sizeof(segment));
        if (segment > 0)
            return (size_t)segment;
    }
    return whole;
}

unsigned lt_receive(int fd, bool gro, lt_on_datagram *on, void *arg)
{
    static struct mmsghdr m[SLOTS_PLAIN];
    static struct iovec iov[SLOTS_PLAIN];
    static union lt_sa from[SLOTS_PLAIN];
    static uint8_t control[SLOTS_PLAIN][CONTROL];
    unsigned slots = gro ? SLOTS_GRO : SLOTS_PLAIN, count = 0;
    size_t slot = gro ? SLOT_GRO + 64 : g.plain_slot;
    int got;

    for (unsigned i = 0; i < slots; i++) {
        iov[i] = (struct iovec){ (gro ? g.gro : g.plain) + i * slot, slot };
        m[i].msg_hdr = (struct msghdr){ .msg_name = &from[i],
                                        .msg_namelen = sizeof(from[i]),
                                        .msg_iov = &iov[i],
                                        .msg_iovlen = 1,
                                        .msg_control = gro ? control[i] : NULL,
                                        .msg_controllen = gro ? CONTROL : 0 };
    }
    got = recvmmsg(fd, m, slots, MSG_DONTWAIT, NULL);
    if (got < 0 && errno != EAGAIN)
        lt_refused++;
    if (got > 0)
        lt_received_ns = load_now_ns();
    for (int i = 0; i < got; i++) {
        struct bytes in = bytes_of(iov[i].iov_base, m[i].msg_len);
        size_t segment = gro ? segment_of(&m[i].msg_hdr, in.n) : in.n;

        lt_reads++;
        do {
            size_t n = min_sz(in.n, segment);

            on(arg, &from[i], bytes_of(in.p, n));
            in.p += n;
            in.n -= n;
            count++;
        } while (in.n);
    }
    return count;
}

/* ---- streams ------------------------------------------------------------------------------- */

struct lt_stream *lt_stream_new(void)
{
    struct lt_stream *s = calloc(1, sizeof(*s));
    size_t cap = lt_opt.size + 2048;

    ASSERT(s && (s->carry_buf = malloc(cap)) != NULL);
    frame_init(&s->carry, s->carry_buf, cap);
    return s;
}

void lt_stream_free(struct lt_stream *s)
{
    if (!s)
        return;
    free(s->out);
    free(s->carry_buf);
    free(s);
}

void lt_stream_put(struct lt_stream *s, struct bytes b)
{
    if (!s->out) {
        s->out_cap = OUT_CAP;
        ASSERT((s->out = malloc(OUT_CAP)) != NULL);
    }
    ASSERT(b.n <= s->out_cap - s->out_n); /* whoever puts data in asks first that it be empty */
    memcpy(s->out + s->out_n, b.p, b.n);
    s->out_n += b.n;
}

bool lt_stream_flush(int fd, struct lt_stream *s)
{
    while (s->out_at < s->out_n) {
        ssize_t sent =
            send(fd, s->out + s->out_at, s->out_n - s->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0) {
            /* ENOTCONN: it is still connecting. */
            s->over |= errno != EAGAIN && errno != ENOTCONN && errno != EINPROGRESS;
            return false;
        }
        s->out_at += (size_t)sent;
    }
    s->out_at = s->out_n = 0;
    return true;
}

bool lt_stream_read(int fd, struct lt_stream *s, void (*on)(void *, enum frame, struct bytes),
                    void *arg)
{
    ssize_t got = recv(fd, g.read, sizeof(g.read), MSG_DONTWAIT);
    struct cur in;

    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN))
        return true;
    if (got <= 0)
        return false;
    lt_reads++;
    lt_received_ns = load_now_ns();
    in = cur_of(bytes_of(g.read, (size_t)got));
    for (;;) {
        struct bytes unit;
        enum frame f = frame_next(&s->carry, &in, &unit);

        if (f == FRAME_MORE)
            return true;
        if (f == FRAME_BAD || f == FRAME_TOO_LONG)
            return false;
        on(arg, f, unit);
    }
}
