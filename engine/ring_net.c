/* engine/ring_net.c: the plain socket calls of ring.h. Only what would block, or has to be told
 * apart by its completion, goes through the ring. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "engine/limits.h"
#include "engine/ring.h"
#include "engine/ring_addr.h"

static const uint8_t v4_mapped[12] = { [10] = 0xff, [11] = 0xff };

socklen_t sockaddr6_of(const struct netaddr *a, struct sockaddr_storage *ss)
{
    struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };

    memcpy(&sin6.sin6_addr, a->ip, sizeof(a->ip));
    memcpy(ss, &sin6, sizeof(sin6));
    return sizeof(sin6);
}

socklen_t sockaddr_of(const struct netaddr *a, struct sockaddr_storage *ss)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(a->port) };

    if (memcmp(a->ip, v4_mapped, sizeof(v4_mapped)) != 0)
        return sockaddr6_of(a, ss);
    memcpy(&sin.sin_addr, a->ip + sizeof(v4_mapped), 4);
    memcpy(ss, &sin, sizeof(sin));
    return sizeof(sin);
}

int netaddr_of(const struct sockaddr_storage *ss, struct netaddr *out)
{
    if (ss->ss_family == AF_INET) {
        struct sockaddr_in sin;

        memcpy(&sin, ss, sizeof(sin));
        memcpy(out->ip, v4_mapped, sizeof(v4_mapped));
        memcpy(out->ip + sizeof(v4_mapped), &sin.sin_addr, 4);
        out->port = ntohs(sin.sin_port);
        return 0;
    }
    if (ss->ss_family == AF_INET6) {
        struct sockaddr_in6 sin6;

        memcpy(&sin6, ss, sizeof(sin6));
        memcpy(out->ip, &sin6.sin6_addr, sizeof(out->ip));
        out->port = ntohs(sin6.sin6_port);
        return 0;
    }
    return -EAFNOSUPPORT;
}

int ring_set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

int ring_listen_tcp(const struct netaddr *at, bool v6only, bool reuseport, int backlog,
                    struct netaddr *bound)
{
    struct sockaddr_storage ss;
    socklen_t n = sockaddr_of(at, &ss);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    if (fd < 0)
        return -errno;
    err = ring_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (err == 0 && reuseport)
        err = ring_set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (err == 0 && ss.ss_family == AF_INET6)
        err = ring_set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
    if (err == 0 && bind(fd, (const struct sockaddr *)&ss, n) < 0)
        err = -errno;
    if (err == 0 && listen(fd, backlog) < 0)
        err = -errno;
    if (err == 0 && bound != NULL)
        err = ring_sockname(fd, bound);
    if (err == 0)
        return fd;
    close(fd);
    return err;
}

void ring_close(struct ring *r, int fd)
{
    (void)r;
    close(fd);
}

int ring_shutdown(int fd, int how)
{
    /* Not IORING_OP_SHUTDOWN, which always goes to a worker thread (§6). */
    return shutdown(fd, how) < 0 ? -errno : 0;
}

int ring_send_now(int fd, const struct msghdr *msg)
{
    ssize_t n = sendmsg(fd, msg, MSG_NOSIGNAL | MSG_DONTWAIT);

    return n < 0 ? -errno : (int)n;
}

int ring_peername(int fd, struct netaddr *out)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);

    return getpeername(fd, (struct sockaddr *)&ss, &n) < 0 ? -errno : netaddr_of(&ss, out);
}

int ring_sockname(int fd, struct netaddr *out)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);

    return getsockname(fd, (struct sockaddr *)&ss, &n) < 0 ? -errno : netaddr_of(&ss, out);
}

int ring_tune_tcp(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
        { IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
        { IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT },
        { IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS },
        { IPPROTO_TCP, TCP_NOTSENT_LOWAT, RING_TCP_NOTSENT_LOWAT_BYTES },
    };

    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        int err = ring_set_int(fd, options[i].level, options[i].name, options[i].value);

        if (err < 0)
            return err;
    }
    return 0;
}
