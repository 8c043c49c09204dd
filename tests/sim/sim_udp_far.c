/* tests/sim/sim_udp_far.c: far ends of datagrams, and what checks ask. */
#include "tests/sim/ring_sim.h"

#include <errno.h>

/* ---- far ends ------------------------------------------------------------------------------- */

static struct sim_file *far_file(struct sim_net *net, int ep)
{
    ASSERT(ep >= 0);
    ASSERT((size_t)ep < net->eps_n);
    return net->eps[ep];
}

int sim_udp_open(struct sim_net *net, const struct netaddr *at)
{
    struct sim_file *f;

    ASSERT(!sim_udp_taken(net, at, 0));
    f = sim_udp_new(net, at, 0);
    f->far = true;
    sim_push(&net->eps, &net->eps_n, &net->eps_cap, f);
    return (int)net->eps_n - 1;
}

void sim_udp_shut(struct sim_net *net, int ep)
{
    struct sim_file *f = far_file(net, ep);

    if (f != NULL)
        sim_file_close(f);
}

void sim_udp_emit(struct sim_net *net, int ep, const struct netaddr *to, const void *p, size_t n)
{
    struct sim_file *f = far_file(net, ep);

    if (f != NULL && !f->closed)
        sim_udp_launch(net, &f->local, to, p, n);
}

long sim_udp_take(struct sim_net *net, int ep, struct netaddr *from, void *p, size_t cap)
{
    struct sim_file *f;
    size_t n;

    sim_udp_deliver(net);
    f = far_file(net, ep);
    if (f == NULL || f->closed || f->udp->first == NULL)
        return -EAGAIN;
    n = f->udp->first->n;
    *from = f->udp->first->from;
    if (n > 0)
        memcpy(p, f->udp->first->data, min_sz(n, cap));
    sim_udp_unqueue(f);
    return (long)n;
}

int sim_udp_lands(struct sim_net *net, const struct netaddr *to, const struct netaddr *from)
{
    int idx = 0;

    return sim_udp_lookup(net, to, from, &idx) != NULL ? idx : -1;
}

/* ---- for checks ----------------------------------------------------------------------------- */

unsigned sim_udp_fds(const struct sim_net *net)
{
    unsigned n = 0;

    for (unsigned i = 0, left = net->fds_open; left > 0; i++)
        if (net->fds[i] != NULL) {
            n += net->fds[i]->kind == SIM_UDP;
            left--;
        }
    return n;
}

static bool news_of_polls(const struct sim_net *net)
{
    for (const struct ring *r = net->rings; r != NULL; r = r->next) {
        for (size_t i = 0; i < r->coming.n; i++)
            if (r->coming.v[i].op == SIM_POLL)
                return true;
    }
    return false;
}

int sim_udp_unread(struct sim_net *net)
{
    if (sim_rings_runnable(net) || news_of_polls(net))
        return -1;
    for (unsigned i = 0, left = net->fds_open; left > 0; i++)
        if (net->fds[i] != NULL) {
            if (net->fds[i]->kind == SIM_UDP && net->fds[i]->udp->queued > 0)
                return net->fds[i]->fd;
            left--;
        }
    return -1;
}
