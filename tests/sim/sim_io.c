/* tests/sim/sim_io.c: streams beside the ring (RFC 6062): connecting, looking at bytes, and far
 * ends that listen. There are no pipes here: who wants one takes recv and send instead. */
#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <stdlib.h>

static struct sim_file *io_file(int fd, const char *what)
{
    struct sim_file *f = sim_fd_file(sim_net_now(), fd);

    if (f != NULL && f->kind == SIM_SOCKET)
        return f;
    sim_net_break(sim_net_now(), "%s on descriptor %d, which is no stream", what, fd);
    return NULL;
}

static struct sim_file *far_listener(struct sim_net *net, const struct netaddr *at)
{
    for (size_t i = 0; i < net->files_n; i++) {
        struct sim_file *f = net->files[i];

        if (f->kind == SIM_LISTENER && f->far && !f->closed && f->local.port == at->port &&
            memcmp(f->local.ip, at->ip, 16) == 0)
            return f;
    }
    return NULL;
}

/* It gets there, to somebody or to nobody. */
void sim_io_connected(struct sim_file *f)
{
    struct sim_net *net = f->net;
    struct sim_file *l = far_listener(net, &f->remote), *far;

    f->connecting = false;
    f->arrivals++;
    if (l == NULL || sim_chance(net, net->o.refuse_pct)) {
        f->dead = true;
        f->err = l == NULL || sim_chance(net, 50) ? -ECONNREFUSED : -ETIMEDOUT;
        return;
    }
    far = sim_file_new(net, SIM_SOCKET);
    f->peer = far;
    far->peer = f;
    far->far = true;
    far->local = f->remote;
    far->remote = f->local;
    far->listener = l;
    net->news = true;
}

int ring_connect_tcp(const struct netaddr *from, const struct netaddr *to)
{
    struct sim_net *net = sim_net_now();
    struct sim_file *f;
    int fd;

    if (sim_chance(net, net->o.emfile_pct)) {
        net->counts.emfile++;
        return -EMFILE;
    }
    for (size_t i = 0; from != NULL && i < net->files_n; i++) {
        f = net->files[i];
        if (f->kind == SIM_SOCKET && !f->far && !f->closed && f->local.port == from->port &&
            f->remote.port == to->port && memcmp(f->local.ip, from->ip, 16) == 0 &&
            memcmp(f->remote.ip, to->ip, 16) == 0)
            return -EADDRNOTAVAIL; /* such a pair there is already */
    }
    f = sim_file_new(net, SIM_SOCKET);
    if (from != NULL)
        f->local = *from;
    else /* the engine's host: sim_net.h */
        f->local = (struct netaddr){ .ip = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
                                     .port = net->next_port++ };
    f->remote = *to;
    f->connecting = true;
    f->connect_ns = sim_later_ns(net);
    fd = sim_fd_open(net, f);
    if (fd < 0)
        f->closed = true;
    return fd;
}

int ring_connect_result(int fd)
{
    struct sim_file *f = io_file(fd, "a connect's result");
    int err;

    if (f == NULL)
        return -EBADF;
    if (f->connecting)
        return -EINPROGRESS;
    err = f->err;
    f->err = 0;
    return f->dead ? err ? err : -ECONNRESET : 0;
}

int ring_peek(int fd, void *p, size_t n)
{
    struct sim_file *f = io_file(fd, "a look");
    int res;

    if (f == NULL)
        return -EBADF;
    sim_net_deliver(f->net);
    if (sim_file_ended(f, &res))
        return res;
    n = min_sz(n, sim_file_ready(f));
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = f->in.buf[(f->in.head + i) % f->net->o.socket_bytes];
    return n > 0 ? (int)n : -EAGAIN;
}

int ring_discard(int fd, size_t n)
{
    static uint8_t nowhere[1 << 18];
    struct sim_file *f = io_file(fd, "a discard");

    if (f == NULL)
        return -EBADF;
    n = min_sz(min_sz(n, sim_file_ready(f)), sizeof(nowhere));
    return (int)sim_file_take(f, nowhere, n);
}

int ring_pipe_new(struct ring_pipe *p, size_t n)
{
    (void)p;
    (void)n;
    return -ENOSYS;
}

void ring_pipe_free(struct ring_pipe *p)
{
    (void)p;
    sim_net_break(sim_net_now(), "a pipe is freed, and there is none");
}

int ring_splice_in(struct ring_pipe *p, int fd, size_t n)
{
    (void)p;
    (void)fd;
    (void)n;
    sim_net_break(sim_net_now(), "a splice without a pipe");
    return -EBADF;
}

int ring_splice_out(struct ring_pipe *p, int fd, size_t n)
{
    return ring_splice_in(p, fd, n);
}

int ring_share_port(int fd)
{
    return sim_fd_file(sim_net_now(), fd) != NULL ? 0 : -EBADF;
}

int ring_blocking(int fd)
{
    return io_file(fd, "an option") != NULL ? 0 : -EBADF;
}

int ring_tune_raw(int fd)
{
    return io_file(fd, "an option") != NULL ? 0 : -EBADF;
}

/* ---- far ends ------------------------------------------------------------------------------- */

int sim_far_listen(struct sim_net *net, const struct netaddr *at)
{
    struct sim_file *l = sim_file_new(net, SIM_LISTENER);

    ASSERT(far_listener(net, at) == NULL);
    l->far = true;
    l->local = *at;
    sim_push(&net->eps, &net->eps_n, &net->eps_cap, l);
    return (int)net->eps_n - 1;
}

int sim_far_accept(struct sim_net *net, int ep, struct netaddr *from)
{
    const struct sim_file *l = net->eps[ep];
    struct sim_file *f = NULL;

    for (size_t i = 0; l != NULL && i < net->files_n && f == NULL; i++)
        if (net->files[i]->far && net->files[i]->listener == l)
            f = net->files[i];
    if (f == NULL)
        return -EAGAIN;
    f->listener = NULL;
    *from = f->remote;
    sim_push(&net->eps, &net->eps_n, &net->eps_cap, f);
    return (int)net->eps_n - 1;
}
