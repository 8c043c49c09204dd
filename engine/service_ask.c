/* Does a relay answer at this address (dig.md §17)? Plain blocking calls with limits: nothing else
 * runs in this process. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "engine/clock.h"
#include "engine/service_int.h"

static socklen_t to_sockaddr(const struct netaddr *a, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (void *)out;
    struct sockaddr_in6 *v6 = (void *)out;

    memset(out, 0, sizeof(*out));
    if (netaddr_is4(a)) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(a->port);
        memcpy(&v4->sin_addr, a->ip + 12, 4);
        return sizeof(*v4);
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(a->port);
    memcpy(&v6->sin6_addr, a->ip, 16);
    return sizeof(*v6);
}

/* -1: nobody there. */
static int reach(const struct netaddr *at, unsigned limit_ms)
{
    struct timeval limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };
    struct sockaddr_storage ss;
    socklen_t n = to_sockaddr(at, &ss);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    /* The first of them bounds connect, too. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 &&
        connect(fd, (struct sockaddr *)&ss, n) == 0)
        return fd;
    close(fd);
    return -1;
}

/* HTTP/1.x 2.. */
static bool is_success(const char *head, size_t n)
{
    return n >= 12 && memcmp(head, "HTTP/1.", 7) == 0 && head[8] == ' ' && head[9] == '2';
}

static bool answers(int fd, unsigned limit_ms)
{
    static const char ask[] = "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n";
    uint64_t end_ms = clock_mono_ms() + limit_ms; /* of all reads: a byte a second is no answer */
    char head[16];
    size_t n = 0;

    if (send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(ask) - 1)
        return false;
    while (n < sizeof(head) && clock_mono_ms() < end_ms) {
        ssize_t got = recv(fd, head + n, sizeof(head) - n, 0);

        if (got <= 0)
            break;
        n += (size_t)got;
    }
    return is_success(head, n);
}

bool service_serves(const struct netaddr *at, unsigned limit_ms)
{
    static const uint8_t loop4[16] = { [10] = 0xff, 0xff, 127, 0, 0, 1 }, loop6[16] = { [15] = 1 };
    bool any = netaddr_is_any(at);
    struct netaddr to = *at;
    int fd;
    bool yes;

    if (any)
        memcpy(to.ip, netaddr_is4(at) ? loop4 : loop6, sizeof(to.ip));
    fd = reach(&to, limit_ms);
    if (fd < 0 && any && !netaddr_is4(at)) { /* a host without IPv6 listens at 0.0.0.0 */
        memcpy(to.ip, loop4, sizeof(to.ip));
        fd = reach(&to, limit_ms);
    }
    if (fd < 0)
        return false;
    yes = answers(fd, limit_ms);
    close(fd);
    return yes;
}
