/* tests/sim/sim_net.c: chance, time, connecting, and the far ends. */
#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct sim_net *current;

/* Numbers and time */

static uint64_t next_u64(struct sim_net *net) /* splitmix64 */
{
    uint64_t z = net->rng += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t sim_below(struct sim_net *net, uint64_t n)
{
    ASSERT(n > 0);
    return next_u64(net) % n;
}

bool sim_chance(struct sim_net *net, unsigned pct)
{
    return pct > 0 && sim_below(net, 100) < pct;
}

uint64_t sim_delay_ns(struct sim_net *net, unsigned ms_max)
{
    if (ms_max == 0 || sim_chance(net, 50))
        return 0;
    return sim_below(net, (uint64_t)ms_max * SIM_NS_PER_MS);
}

uint64_t sim_later_ns(struct sim_net *net)
{
    return net->now_ns + sim_delay_ns(net, net->o.net_delay_ms_max);
}

struct sim_net *sim_net_new(uint64_t seed, struct sim_opts o)
{
    struct sim_net *net = sim_must(calloc(1, sizeof(*net)));

    ASSERT(current == NULL);
    current = net;
    net->rng = seed;
    net->fds_max = o.fds_max ? o.fds_max : 4096;
    ASSERT(net->fds_max <= SIM_FDS_MAX);
    net->fds = sim_must(calloc(net->fds_max, sizeof(struct sim_file *)));
    net->now_ns = (o.start_ms ? o.start_ms : 1000000) * SIM_NS_PER_MS;
    net->alarm_ns = SIM_NEVER;
    net->next_port = 40000;
    net->place_next = -1;
    sim_net_set_opts(net, o);
    return net;
}

void sim_net_set_opts(struct sim_net *net, struct sim_opts o)
{
    unsigned bytes = net->o.socket_bytes; /* buffers do not change their size */

    net->o = o;
    net->o.socket_bytes = bytes ? bytes : o.socket_bytes ? o.socket_bytes : 65536;
    if (o.vanish_ms == 0)
        net->o.vanish_ms = 75000;
    if (o.udp_queue == 0)
        net->o.udp_queue = 4096;
}

void sim_lend_pct(struct sim_net *net, unsigned pct)
{
    net->o.lend_pct = pct;
}

void sim_net_free(struct sim_net *net)
{
    ASSERT(net->rings == NULL);
    for (size_t i = 0; i < net->files_n; i++) {
        if (net->files[i]->udp != NULL)
            sim_udp_close(net->files[i]);
        free(net->files[i]->udp);
        free(net->files[i]->in.buf);
        free(net->files[i]);
    }
    sim_udp_free(net);
    free(net->files);
    free(net->eps);
    free(net->fds);
    free(net);
    current = NULL;
}

struct sim_net *sim_net_now(void)
{
    ASSERT(current != NULL);
    return current;
}

uint64_t sim_net_now_ms(const struct sim_net *net)
{
    return net->now_ns / SIM_NS_PER_MS;
}

void sim_net_on_time(struct sim_net *net, void (*fn)(void *arg, uint64_t now_ms), void *arg)
{
    net->on_time = fn;
    net->on_time_arg = arg;
    fn(arg, sim_net_now_ms(net));
}

void sim_net_alarm(struct sim_net *net, uint64_t at_ms)
{
    net->alarm_ns = min_u64(net->alarm_ns, at_ms * SIM_NS_PER_MS);
}

const struct sim_counts *sim_net_counts(const struct sim_net *net)
{
    return &net->counts;
}

static uint64_t files_next_ns(struct sim_net *net)
{
    uint64_t next = sim_udp_next_ns(net);

    for (size_t i = 0; i < net->files_n; i++) {
        const struct sim_file *f = net->files[i];

        if (f->kind != SIM_SOCKET || f->closed || f->dead)
            continue;
        next = min_u64(next, min_u64(f->reset_ns, f->vanish_ns));
        if ((f->listener != NULL || f->connecting) && f->connect_ns > net->now_ns)
            next = min_u64(next, f->connect_ns);
        if (f->in.seg_count > 0 && !f->vanished)
            next = min_u64(next, f->in.segs[f->in.seg_first].due_ns);
    }
    return next;
}

bool sim_net_step(struct sim_net *net)
{
    uint64_t next;

    sim_net_deliver(net);
    if (sim_rings_runnable(net) || net->news) {
        net->news = false;
        return true;
    }
    next = min_u64(min_u64(files_next_ns(net), sim_rings_next_ns(net)), net->alarm_ns);
    if (next == SIM_NEVER)
        return false;
    if (next > net->now_ns) {
        net->now_ns = next;
        if (net->on_time != NULL)
            net->on_time(net->on_time_arg, sim_net_now_ms(net));
    }
    if (net->alarm_ns <= net->now_ns)
        net->alarm_ns = SIM_NEVER;
    sim_net_deliver(net);
    net->news = false;
    return true;
}

/* Listening and connecting */

static bool is_v4(const struct netaddr *a)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    return memcmp(a->ip, mapped, sizeof(mapped)) == 0;
}

static bool is_any(const struct netaddr *a)
{
    static const uint8_t zero[16];

    return memcmp(a->ip + (is_v4(a) ? 12 : 0), zero, is_v4(a) ? 4 : 16) == 0;
}

static bool listens_at(const struct sim_file *l, const struct netaddr *to)
{
    if (l->kind != SIM_LISTENER || l->fd < 0 || l->local.port != to->port)
        return false;
    if (!is_any(&l->local))
        return memcmp(l->local.ip, to->ip, 16) == 0;
    return is_v4(&l->local) == is_v4(to) || (!is_v4(&l->local) && !l->v6only);
}

int sim_listen(struct sim_net *net, const struct netaddr *at, bool v6only, bool reuseport,
               unsigned backlog, struct netaddr *bound)
{
    struct netaddr to = *at;
    struct sim_file *l;
    int fd;

    if (to.port == 0)
        to.port = net->next_port++;
    for (size_t i = 0; i < net->files_n; i++) {
        l = net->files[i];
        if (l->kind == SIM_LISTENER && l->fd >= 0 && !(reuseport && l->reuseport) &&
            (listens_at(l, &to) || (is_any(&to) && l->local.port == to.port &&
                                    (is_v4(&to) == is_v4(&l->local) || !v6only))))
            return -EADDRINUSE;
    }
    l = sim_file_new(net, SIM_LISTENER);
    l->local = to;
    l->v6only = v6only;
    l->reuseport = reuseport;
    l->backlog = backlog;
    fd = sim_fd_open(net, l);
    if (fd < 0)
        l->closed = true;
    else if (bound != NULL)
        *bound = to;
    return fd;
}

struct sim_file *sim_file_pending(struct sim_file *listener)
{
    struct sim_net *net = listener->net;

    for (size_t i = 0; i < net->files_n; i++)
        if (net->files[i]->listener == listener && net->files[i]->connect_ns <= net->now_ns)
            return net->files[i];
    return NULL;
}

void sim_place_next(struct sim_net *net, unsigned idx)
{
    net->place_next = (int)idx;
}

static struct sim_file *choose_listener(struct sim_net *net, const struct netaddr *to)
{
    unsigned n = 0, want;

    for (size_t i = 0; i < net->files_n; i++)
        n += listens_at(net->files[i], to);
    if (n == 0)
        return NULL;
    want = net->place_next < 0 ? (unsigned)sim_below(net, n) : (unsigned)net->place_next % n;
    net->place_next = -1;
    for (size_t i = 0;; i++)
        if (listens_at(net->files[i], to) && want-- == 0)
            return net->files[i];
}

int sim_connect(struct sim_net *net, const struct netaddr *to, const struct netaddr *from)
{
    struct sim_file *l = choose_listener(net, to);
    struct sim_file *near, *far;
    unsigned waiting = 0;

    for (size_t i = 0; l != NULL && i < net->files_n; i++)
        waiting += net->files[i]->listener == l;
    if (l == NULL || waiting >= l->backlog)
        return -ECONNREFUSED;
    near = sim_file_new(net, SIM_SOCKET);
    far = sim_file_new(net, SIM_SOCKET);
    near->peer = far;
    far->peer = near;
    far->far = true;
    near->local = far->remote = *to;
    near->remote = far->local = *from;
    near->listener = l;
    near->connect_ns = sim_later_ns(net);
    sim_push(&net->eps, &net->eps_n, &net->eps_cap, far);
    return (int)net->eps_n - 1;
}

/* Far ends */

static struct sim_file *ep_file(const struct sim_net *net, int ep)
{
    ASSERT(ep >= 0);
    ASSERT((size_t)ep < net->eps_n);
    return net->eps[ep]; /* NULL: both ends are gone */
}

size_t sim_room(struct sim_net *net, int ep)
{
    struct sim_file *f = ep_file(net, ep);

    return f == NULL || f->shut_wr || f->dead || f->vanished ? 0 : sim_file_room(f);
}

long sim_send(struct sim_net *net, int ep, const void *p, size_t n)
{
    struct sim_file *f = ep_file(net, ep);

    sim_net_deliver(net);
    if (f == NULL || f->dead)
        return -ECONNRESET;
    if (f->shut_wr || f->vanished)
        return -EPIPE;
    n = min_sz(n, sim_file_room(f));
    sim_file_put(f, p, n);
    return (long)n;
}

long sim_recv(struct sim_net *net, int ep, void *p, size_t n)
{
    struct sim_file *f = ep_file(net, ep);
    int res;

    sim_net_deliver(net);
    if (f == NULL || f->closed)
        return -ECONNRESET;
    if (f->in.ready > 0)
        return (long)sim_file_take(f, p, min_sz(n, f->in.ready));
    if (f->dead)
        return -ECONNRESET;
    return sim_file_ended(f, &res) ? res : -EAGAIN;
}

void sim_shut(struct sim_net *net, int ep)
{
    struct sim_file *f = ep_file(net, ep);

    if (f != NULL)
        sim_file_fin(f);
}

void sim_close(struct sim_net *net, int ep)
{
    struct sim_file *f = ep_file(net, ep);

    if (f != NULL)
        sim_file_close(f);
}

void sim_reset(struct sim_net *net, int ep)
{
    struct sim_file *f = ep_file(net, ep);

    if (f == NULL || f->closed)
        return;
    sim_file_reset(f);
    f->dead = true; /* so that closing adds no FIN */
    sim_file_close(f);
}

void sim_vanish(struct sim_net *net, int ep)
{
    struct sim_file *f = ep_file(net, ep);

    if (f == NULL || f->closed || f->vanished)
        return;
    f->vanished = true;
    if (f->peer != NULL)
        f->peer->vanish_ns = net->now_ns + (uint64_t)net->o.vanish_ms * SIM_NS_PER_MS;
}

bool sim_accepted(const struct sim_net *net, int ep)
{
    const struct sim_file *f = ep_file(net, ep);

    return f != NULL && f->peer != NULL && f->peer->listener == NULL && f->peer->fd >= 0;
}

/* Verdicts */

unsigned sim_net_fds_open(const struct sim_net *net)
{
    return net->fds_open;
}

void sim_net_break(struct sim_net *net, const char *fmt, ...)
{
    va_list args;

    if (net->broken[0] != '\0')
        return; /* the first is the one to look at */
    va_start(args, fmt);
    vsnprintf(net->broken, sizeof(net->broken), fmt, args);
    va_end(args);
}

const char *sim_net_broken(const struct sim_net *net)
{
    return net->broken[0] != '\0' ? net->broken : NULL;
}

const char *sim_net_check(struct sim_net *net)
{
    const char *why = sim_net_broken(net);

    if (why == NULL)
        why = sim_rings_check(net);
    if (why != NULL || net->fds_open == 0)
        return why;
    for (unsigned i = 0; i < net->fds_max; i++)
        if (net->fds[i] != NULL) {
            snprintf(net->verdict, sizeof(net->verdict), "%u descriptors left open, %s %u first",
                     net->fds_open,
                     net->fds[i]->kind == SIM_LISTENER ? "listener"
                     : net->fds[i]->kind == SIM_UDP    ? "datagram socket"
                                                       : "socket",
                     i + SIM_FD_FIRST);
            break;
        }
    return net->verdict;
}
