/* tests/sim/sim_file.c: files, descriptors, bytes in flight. What a stream socket does here is what
 * Linux does, as far as a relay can tell: ordered bytes, bounded buffers, FIN behind the data, RST
 * when unread data is thrown away or data meets a closed socket. */
#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <stdlib.h>

void sim_push(struct sim_file ***v, size_t *n, size_t *cap, struct sim_file *f)
{
    if (*n == *cap) {
        *cap = *cap ? *cap * 2 : 64;
        *v = sim_must(realloc(*v, *cap * sizeof(struct sim_file *)));
    }
    (*v)[(*n)++] = f;
}

/* Files and descriptors */

struct sim_file *sim_file_new(struct sim_net *net, enum sim_kind kind)
{
    struct sim_file *f = sim_must(calloc(1, sizeof(*f)));

    f->net = net;
    f->kind = kind;
    f->serial = ++net->serials;
    f->fd = -1;
    f->reset_ns = f->vanish_ns = SIM_NEVER;
    sim_push(&net->files, &net->files_n, &net->files_cap, f);
    return f;
}

struct sim_file *sim_fd_file(struct sim_net *net, int fd)
{
    int i = fd - SIM_FD_FIRST;

    return i >= 0 && (unsigned)i < net->fds_max ? net->fds[i] : NULL;
}

int sim_fd_open(struct sim_net *net, struct sim_file *f)
{
    unsigned i = 0;

    while (i < net->fds_max && net->fds[i] != NULL)
        i++;
    if (i == net->fds_max)
        return -EMFILE;
    net->fds[i] = f;
    net->fds_open++;
    f->fd = (int)i + SIM_FD_FIRST;
    return f->fd;
}

void sim_file_reset(struct sim_file *from)
{
    if (from->dead || from->vanished || from->peer == NULL)
        return;
    from->peer->reset_ns = min_u64(from->peer->reset_ns, sim_later_ns(from->net));
    from->net->counts.resets++;
}

/* The last reference is gone: what close(2) does to the stream. */
void sim_file_close(struct sim_file *f)
{
    if (f->closed)
        return;
    f->closed = true;
    if (f->kind == SIM_UDP) {
        sim_udp_close(f);
        return;
    }
    if (f->kind == SIM_LISTENER) {
        for (size_t i = 0; i < f->net->files_n; i++) {
            struct sim_file *waiting = f->net->files[i];

            if (waiting->listener != f)
                continue;
            waiting->listener = NULL;
            sim_file_reset(waiting);
            waiting->closed = true;
        }
        return;
    }
    if (f->in.len > 0)
        sim_file_reset(f); /* RFC 2525 §2.17: unread data is thrown away, and the peer is told */
    else
        sim_file_fin(f);
    free(f->in.buf);
    f->in = (struct sim_pipe){ 0 };
}

void sim_fd_close(struct sim_net *net, int fd)
{
    struct sim_file *f = sim_fd_file(net, fd);

    if (f == NULL) {
        sim_net_break(net, "close of descriptor %d, which is not open", fd);
        return;
    }
    if (f->refs > 0)
        sim_net_break(net, "descriptor %d closed under %u requests", fd, f->refs);
    net->fds[fd - SIM_FD_FIRST] = NULL;
    net->fds_open--;
    f->fd = -1;
    if (f->refs == 0)
        sim_file_close(f);
}

void sim_file_hold(struct sim_file *f)
{
    f->refs++;
}

void sim_file_drop(struct sim_file *f)
{
    ASSERT(f->refs > 0);
    if (--f->refs == 0 && f->fd < 0)
        sim_file_close(f);
}

static bool gone(const struct sim_file *f)
{
    return (f->closed || f->vanished) && f->refs == 0;
}

/* Pairs of which nobody holds an end any more, and listeners that are closed. */
static void reap(struct sim_net *net)
{
    size_t kept = 0;

    for (size_t i = 0; i < net->files_n; i++) {
        struct sim_file *f = net->files[i];

        if (!gone(f) || (f->peer != NULL && !gone(f->peer))) {
            net->files[kept++] = f;
            continue;
        }
        if (f->peer)
            f->peer->peer = NULL;
        for (size_t e = 0; f->far && e < net->eps_n; e++)
            if (net->eps[e] == f)
                net->eps[e] = NULL;
        free(f->in.buf);
        free(f->udp);
        free(f);
    }
    net->files_n = kept;
}

/* Bytes */

static void pipe_note(struct sim_pipe *p, uint64_t due_ns, size_t n, bool fin)
{
    struct sim_seg *last = NULL;

    if (p->seg_count > 0)
        last = &p->segs[(p->seg_first + p->seg_count - 1) % SIM_SEGS_MAX];
    if (last != NULL && due_ns < last->due_ns)
        due_ns = last->due_ns; /* nothing overtakes within a stream */
    if (p->seg_count == SIM_SEGS_MAX) {
        last->n += n;
        last->fin |= fin;
        last->due_ns = due_ns;
        return;
    }
    p->segs[(p->seg_first + p->seg_count++) % SIM_SEGS_MAX] = (struct sim_seg){ due_ns, n, fin };
}

static uint64_t arrival_ns(struct sim_file *to)
{
    uint64_t due = sim_later_ns(to->net);

    if (to->vanished)
        return SIM_NEVER;
    return due < to->connect_ns ? to->connect_ns : due;
}

size_t sim_file_ready(const struct sim_file *f)
{
    return f->in.ready;
}

size_t sim_file_take(struct sim_file *f, uint8_t *to, size_t n)
{
    struct sim_pipe *p = &f->in;

    ASSERT(n <= p->ready);
    for (size_t i = 0; i < n; i++)
        to[i] = p->buf[(p->head + i) % f->net->o.socket_bytes];
    p->head = (p->head + n) % f->net->o.socket_bytes;
    p->ready -= n;
    p->len -= n;
    if (n > 0 && !f->far)
        f->net->news = true; /* the far end has room again */
    if (n > 0 && f->peer != NULL && f->peer->no_space) {
        f->peer->no_space = false;
        f->peer->arrivals++;
    }
    return n;
}

size_t sim_file_room(const struct sim_file *f)
{
    size_t used = f->peer != NULL && !f->peer->closed ? f->peer->in.len : 0;

    return f->net->o.socket_bytes > used ? f->net->o.socket_bytes - used : 0;
}

void sim_file_put(struct sim_file *f, const uint8_t *from, size_t n)
{
    struct sim_net *net = f->net;
    struct sim_file *to = f->peer;
    struct sim_pipe *p;

    ASSERT(n <= sim_file_room(f));
    if (n == 0 || f->dead)
        return;
    if (to == NULL || to->closed) { /* data meets a closed socket: RST comes back */
        f->reset_ns = min_u64(f->reset_ns, sim_later_ns(net));
        net->counts.resets++;
        return;
    }
    p = &to->in;
    if (p->buf == NULL)
        p->buf = sim_must(malloc(net->o.socket_bytes));
    for (size_t i = 0; i < n; i++)
        p->buf[(p->head + p->len + i) % net->o.socket_bytes] = from[i];
    p->len += n;
    pipe_note(p, arrival_ns(to), n, false);
}

void sim_file_fin(struct sim_file *f)
{
    if (f->shut_wr || f->dead || f->vanished)
        return;
    f->shut_wr = true;
    f->net->counts.fins++;
    if (f->peer != NULL && !f->peer->closed)
        pipe_note(&f->peer->in, arrival_ns(f->peer), 0, true);
}

bool sim_file_ended(struct sim_file *f, int *res)
{
    if (f->in.ready > 0)
        return false;
    if (f->dead) {
        *res = f->err;
        f->err = 0;
        return true;
    }
    *res = 0;
    return f->in.fin_ready || f->shut_rd;
}

int sim_file_send_error(struct sim_file *f)
{
    int err = f->err;

    if (f->connecting)
        return -EAGAIN;
    if (f->dead) {
        f->err = 0;
        return err ? err : -EPIPE;
    }
    return f->shut_wr ? -EPIPE : 0;
}

static void die(struct sim_file *f, int err)
{
    f->dead = true;
    f->err = err;
    f->reset_ns = f->vanish_ns = SIM_NEVER;
    f->arrivals++;
    f->in.seg_count = 0;
    f->in.len = f->in.ready; /* what was under way is lost */
    if (sim_chance(f->net, 50))
        f->in.len = f->in.ready = 0; /* and perhaps what was not read in time */
    f->net->news |= f->far;
}

static void deliver_pipe(struct sim_file *f)
{
    struct sim_pipe *p = &f->in;

    while (p->seg_count > 0 && p->segs[p->seg_first].due_ns <= f->net->now_ns) {
        struct sim_seg seg = p->segs[p->seg_first];

        p->seg_first = (p->seg_first + 1) % SIM_SEGS_MAX;
        p->seg_count--;
        p->ready += seg.n;
        p->fin_ready |= seg.fin;
        f->arrivals++;
        f->net->news |= f->far;
    }
}

void sim_net_deliver(struct sim_net *net)
{
    sim_udp_deliver(net);
    for (size_t i = 0; i < net->files_n; i++) {
        struct sim_file *f = net->files[i];

        if (f->kind != SIM_SOCKET || f->closed || f->dead)
            continue;
        if (f->connecting && f->connect_ns <= net->now_ns)
            sim_io_connected(f);
        if (!f->vanished)
            deliver_pipe(f);
        if (f->reset_ns <= net->now_ns)
            die(f, -ECONNRESET);
        else if (f->vanish_ns <= net->now_ns)
            die(f, -ETIMEDOUT);
    }
    reap(net);
}
