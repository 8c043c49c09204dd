/* engine/ring_udp.c: the datagram calls of ring.h (io_uring.md §10). */
#include <errno.h>
#include <time.h>

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdalign.h>
#include <unistd.h>

#include "engine/ring.h"
#include "engine/ring_addr.h"

#ifndef UDP_SEGMENT /* glibc 2.36 names both in <netinet/udp.h>; older headers do not */
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

static int udp_options(int fd, bool v6, unsigned flags, int rcvbuf_bytes)
{
    int err = 0;

    if (flags & RING_UDP_REUSEPORT)
        err = ring_set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!err && v6)
        err = ring_set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !!(flags & RING_UDP_V6ONLY));
    if (!err && (flags & RING_UDP_PKTINFO))
        err = v6 ? ring_set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                 : ring_set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
    if (!err && (flags & RING_UDP_ERRORS))
        err = v6 ? ring_set_int(fd, IPPROTO_IPV6, IPV6_RECVERR, 1)
                 : ring_set_int(fd, IPPROTO_IP, IP_RECVERR, 1);
    if (!err && (flags & RING_UDP_ERRORS))
        err = ring_udp_dont_fragment(fd, v6, false);
    /* Both are for speed: a kernel or a user without them relays all the same. */
    (void)ring_set_int(fd, IPPROTO_UDP, UDP_GRO, 1);
    if (rcvbuf_bytes > 0 && ring_set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, rcvbuf_bytes))
        (void)ring_set_int(fd, SOL_SOCKET, SO_RCVBUF, rcvbuf_bytes);
    return err;
}

int ring_bind_udp(const struct netaddr *at, unsigned flags, int rcvbuf_bytes, struct netaddr *bound)
{
    struct sockaddr_storage ss;
    socklen_t n = sockaddr_of(at, &ss);
    int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int err;

    if (fd < 0)
        return -errno;
    err = udp_options(fd, ss.ss_family == AF_INET6, flags, rcvbuf_bytes);
    if (!err && bind(fd, (const struct sockaddr *)&ss, n) < 0)
        err = -errno;
    if (!err && bound)
        err = ring_sockname(fd, bound);
    if (!err)
        return fd;
    close(fd);
    return err;
}

/* ---- receiving --------------------------------------------------------------------------------
 */

struct udp_control {
    alignas(
        struct cmsghdr) char room[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo)) +
                                  CMSG_SPACE(sizeof(struct in_pktinfo))];
};

static void local_from4(struct ring_dgram *d, const struct cmsghdr *c)
{
    struct in_pktinfo info;

    memcpy(&info, CMSG_DATA(c), sizeof(info));
    memset(d->local, 0, 10);
    d->local[10] = d->local[11] = 0xff;
    memcpy(d->local + 12, &info.ipi_addr, 4);
    d->has_local = true;
    d->to_many = info.ipi_spec_dst.s_addr != 0 &&                  /* not known */
                 info.ipi_spec_dst.s_addr != info.ipi_addr.s_addr; /* ip(7) */
}

static void local_from6(struct ring_dgram *d, const struct cmsghdr *c)
{
    struct in6_pktinfo info;

    memcpy(&info, CMSG_DATA(c), sizeof(info));
    memcpy(d->local, &info.ipi6_addr, 16);
    d->has_local = true;
    /* A dual-stack socket does not tell a network's own broadcast address from a host's. */
    d->to_many =
        d->local[0] == 0xff || (IN6_IS_ADDR_V4MAPPED(&info.ipi6_addr) && d->local[12] >= 224);
}

static void dgram_finish(struct ring_dgram *d, struct msghdr *m, size_t n,
                         const struct sockaddr_storage *from)
{
    d->n = n;
    d->segment = 0;
    d->has_local = false;
    d->truncated = m->msg_flags & MSG_TRUNC;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        int segment;

        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            memcpy(&segment, CMSG_DATA(c), sizeof(segment));
            /* One that fills a whole datagram is no train. */
            if (segment > 0 && segment <= UINT16_MAX && (size_t)segment < n)
                d->segment = (uint16_t)segment;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            local_from4(d, c);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            local_from6(d, c);
        }
    }
    if (netaddr_of(from, &d->from)) /* no such socket is made here */
        memset(&d->from, 0, sizeof(d->from));
}

int ring_udp_recv(int fd, struct ring_dgram *d, unsigned count)
{
    struct mmsghdr m[RING_DGRAMS_MAX];
    struct iovec iov[RING_DGRAMS_MAX];
    struct sockaddr_storage from[RING_DGRAMS_MAX];
    struct udp_control control[RING_DGRAMS_MAX];

    ASSERT(count <= RING_DGRAMS_MAX);
    for (unsigned i = 0; i < count; i++) {
        iov[i] = (struct iovec){ d[i].buf, d[i].cap };
        m[i].msg_hdr = (struct msghdr){ .msg_name = &from[i],
                                        .msg_namelen = sizeof(from[i]),
                                        .msg_iov = &iov[i],
                                        .msg_iovlen = 1,
                                        .msg_control = &control[i],
                                        .msg_controllen = sizeof(control[i]) };
    }
    int n = recvmmsg(fd, m, count, MSG_DONTWAIT, NULL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++)
        dgram_finish(&d[i], &m[i].msg_hdr, m[i].msg_len, &from[i]);
    return n;
}

/* ---- sending ----------------------------------------------------------------------------------
 */

static void put_segment(struct msghdr *m, struct cmsghdr *c, uint16_t segment)
{
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof(segment));
    memcpy(CMSG_DATA(c), &segment, sizeof(segment));
    m->msg_controllen += CMSG_SPACE(sizeof(segment));
}

static void put_local(struct msghdr *m, struct cmsghdr *c, const uint8_t ip[16])
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    if (memcmp(ip, mapped, sizeof(mapped)) == 0) {
        struct in_pktinfo info = { 0 };

        memcpy(&info.ipi_spec_dst, ip + 12, 4);
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof(info));
        memcpy(CMSG_DATA(c), &info, sizeof(info));
        m->msg_controllen += CMSG_SPACE(sizeof(info));
        return;
    }
    struct in6_pktinfo info = { 0 };

    memcpy(&info.ipi6_addr, ip, 16);
    c->cmsg_level = IPPROTO_IPV6;
    c->cmsg_type = IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof(info));
    memcpy(CMSG_DATA(c), &info, sizeof(info));
    m->msg_controllen += CMSG_SPACE(sizeof(info));
}

int ring_udp_send(int fd, const struct ring_udp_out *o)
{
    struct sockaddr_storage ss;
    struct udp_control control;
    struct msghdr m = { .msg_name = &ss, .msg_iov = o->iov, .msg_iovlen = o->iov_n };

    m.msg_namelen = o->v6 ? sockaddr6_of(o->to, &ss) : sockaddr_of(o->to, &ss);
    if (o->segment || o->local) {
        struct cmsghdr *c = (void *)control.room;

        m.msg_control = &control;
        if (o->segment) {
            put_segment(&m, c, o->segment);
            c = (void *)(control.room + m.msg_controllen);
        }
        if (o->local)
            put_local(&m, c, o->local);
    }
    ssize_t n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

    return n < 0 ? -errno : (int)n;
}

/* Off is not the kernel's default, which sets the bit to find the path's MTU by losing what is too
 * large: who did not ask for it (RFC 8656 §14.9) is to have it cut up on the way. */
int ring_udp_dont_fragment(int fd, bool v6, bool on)
{
    return v6 ? ring_set_int(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER,
                             on ? IPV6_PMTUDISC_DO : IPV6_PMTUDISC_WANT)
              : ring_set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER,
                             on ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT);
}

/* ---- ICMP -------------------------------------------------------------------------------------
 */

enum { ICMP4_UNREACHABLE = 3, ICMP4_TOO_BIG = 4, ICMP6_TOO_BIG = 2 };

static bool icmp_of(const struct sock_extended_err *e, struct ring_icmp *out)
{
    bool too_big = e->ee_errno == EMSGSIZE;

    out->mtu = too_big ? e->ee_info : 0;
    switch (e->ee_origin) {
    case SO_EE_ORIGIN_ICMP:
    case SO_EE_ORIGIN_ICMP6:
        out->v6 = e->ee_origin == SO_EE_ORIGIN_ICMP6;
        out->type = e->ee_type;
        out->code = e->ee_code;
        return true;
    case SO_EE_ORIGIN_LOCAL: /* this host's own route was too narrow: as the first router says it */
        out->v6 = !netaddr_is4(&out->peer);
        out->type = out->v6 ? ICMP6_TOO_BIG : ICMP4_UNREACHABLE;
        out->code = out->v6 ? 0 : ICMP4_TOO_BIG;
        return too_big;
    default:
        return false;
    }
}

bool ring_udp_error(int fd, struct ring_icmp *out)
{
    for (int tries = 0; tries < 16; tries++) {
        struct sockaddr_storage to;
        alignas(struct cmsghdr) char control[512];
        char payload[1];
        struct iovec iov = { payload, sizeof(payload) };
        struct msghdr m = { .msg_name = &to,
                            .msg_namelen = sizeof(to),
                            .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof(control) };

        if (recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return false;
        if (netaddr_of(&to, &out->peer))
            continue;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
            struct sock_extended_err e;

            if (!(c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) &&
                !(c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR))
                continue;
            memcpy(&e, CMSG_DATA(c), sizeof(e));
            if (icmp_of(&e, out))
                return true;
        }
    }
    return false;
}
