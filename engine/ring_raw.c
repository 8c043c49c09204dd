/* engine/ring_raw.c: ring.h's streams beside the ring (RFC 6062): connecting, looking at what has
 * come, and splice(2). Never IORING_OP_SPLICE: the kernel hands each of those to a worker thread
 * and back (io_uring.md §9). */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/ring.h"
#include "engine/ring_addr.h"

static const int on = 1;
enum { PIPE_LEAST = 65536 };

int ring_connect_tcp(const struct netaddr *from, const struct netaddr *to)
{
    struct sockaddr_storage local, remote;
    socklen_t local_n = from ? sockaddr_of(from, &local) : 0, remote_n = sockaddr_of(to, &remote);
    int fd, err;

    if (from && local.ss_family != remote.ss_family)
        return -EAFNOSUPPORT;
    fd = socket(remote.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* The allocation's listener has that address too, and its other connections (RFC 6062 §5.2). */
    if ((!from || (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
                   setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
                   bind(fd, (const struct sockaddr *)&local, local_n) == 0)) &&
        (connect(fd, (const struct sockaddr *)&remote, remote_n) == 0 || errno == EINPROGRESS))
        return fd;
    err = -errno;
    close(fd);
    return err;
}

int ring_share_port(int fd)
{
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ? -errno : 0;
}

int ring_connect_result(int fd)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof(int);
    int err = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
        return -errno;
    if (err)
        return -err;
    n = sizeof(ss);
    if (getpeername(fd, (struct sockaddr *)&ss, &n) == 0)
        return 0;
    return errno == ENOTCONN ? -EINPROGRESS : -errno;
}

int ring_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

int ring_peek(int fd, void *p, size_t n)
{
    ssize_t got = recv(fd, p, n, MSG_PEEK | MSG_DONTWAIT);

    return got < 0 ? -errno : (int)got;
}

int ring_discard(int fd, size_t n)
{
    /* Of TCP this flag takes the bytes without copying them (tcp(7)). Not by recv(): a thread
     * sanitizer believes that n bytes were written, and sees two shards race for address 0. */
    ssize_t got = syscall(SYS_recvfrom, fd, NULL, n, MSG_TRUNC | MSG_DONTWAIT, NULL, NULL);

    return got < 0 ? -errno : (int)got;
}

int ring_pipe_new(struct ring_pipe *p, size_t n)
{
    int fd[2], cap = -1;

    if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    /* fs.pipe-max-size may be less; and past fs.pipe-user-pages-soft the kernel refuses all sizes,
     * and has made it two pages long. */
    for (size_t size = n; cap < 0 && size >= PIPE_LEAST; size /= 2)
        cap = fcntl(fd[1], F_SETPIPE_SZ, (int)size);
    if (cap < 0)
        cap = fcntl(fd[1], F_GETPIPE_SZ);
    *p = (struct ring_pipe){ .in = fd[1], .out = fd[0], .cap = cap < 0 ? 0 : (size_t)cap };
    return 0;
}

void ring_pipe_free(struct ring_pipe *p)
{
    close(p->in);
    close(p->out);
}

int ring_splice_in(struct ring_pipe *p, int fd, size_t n)
{
    ssize_t got = splice(fd, NULL, p->in, NULL, n, SPLICE_F_NONBLOCK);

    return got < 0 ? -errno : (int)got;
}

int ring_splice_out(struct ring_pipe *p, int fd, size_t n)
{
    ssize_t sent = splice(p->out, NULL, fd, NULL, n, SPLICE_F_NONBLOCK);

    return sent < 0 ? -errno : (int)sent;
}

int ring_tune_raw(int fd)
{
    int err = ring_tune_tcp(fd), flags = fcntl(fd, F_GETFL), system_s = 0;

    if (err < 0)
        return err;
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &system_s, sizeof(system_s)) < 0)
        return -errno;
    return 0;
}
