/* tests/sim/sim_script.h: words of which tests by hand are made: a client that is up, a
 * reservation, a circuit on one shard or across two. They fail the test when it does not come
 * about. */
#ifndef SLUICE_TESTS_SIM_SCRIPT_H
#define SLUICE_TESTS_SIM_SCRIPT_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/sim/sim_peer.h"

enum { SOURCE = 1, TARGET = 2, OTHER = 3, TOLERANCE_MS = 20 };
/* Where a target is: with its source (on shard 0), on another shard, or on another shard whose work
 * is done by whoever is awake, whenever that is possible. */
enum { LENT = 2, CROSS = 3 };

static const struct sim_opts fair;

static inline struct sim *calm(const struct config *cfg)
{
    return sim_new(1, fair, cfg);
}

static inline void ended(struct sim *s)
{
    sim_end(s);
    SIM_OK(s);
    sim_free(s);
}

/* A connection that is up, and a reservation of it. */
static inline struct sim_conn *client(struct sim *s, unsigned ident, int shard)
{
    struct netaddr at = sim_host(ident, ident);
    struct sim_conn *c = sim_dial(s, ident, &at, shard == LENT ? 1 : shard);

    if (shard == LENT)
        sim_lend_pct(s->net, 100);

    cr_assert(c != NULL);
    SIM_UNTIL(s, c->state >= SC_UP, 5000);
    return c;
}

static inline struct sim_stream *reserved(struct sim_conn *c)
{
    struct sim_stream *st = sim_reserve(c);

    cr_assert(st != NULL);
    SIM_UNTIL(c->s, st->status != 0, 5000);
    cr_assert(eq(int, st->status, HOP_OK), SIM_SEED(c->s));
    return st;
}

static inline enum hop_status connect_status(struct sim_conn *c, unsigned target,
                                             struct sim_stream **out)
{
    struct sim_stream *st = sim_connect_to(c, sim_peer_id(c->s, target));

    cr_assert(st != NULL);
    SIM_UNTIL(c->s, st->status != 0 || !st->live, 20000);
    if (out != NULL)
        *out = st;
    return st->status;
}

static inline void wait_with_it(struct sim_stream *st)
{
    (void)st; /* the test answers */
}

static inline uint32_t circuits_of(const struct sim *s)
{
    return s->shard[0].circuits.live + s->shard[1].circuits.live;
}

static inline uint32_t reservations_of(const struct sim *s)
{
    return (uint32_t)s->control.hop.by_expiry.count;
}

/* A circuit on one shard, or across two. */
struct pair {
    struct sim_conn *from, *to;
    struct sim_stream *source, *target;
};

static inline struct pair join(struct sim *s, int cross)
{
    struct pair p = { .from = client(s, SOURCE, 0) };

    p.to = client(s, TARGET, cross);
    reserved(p.to);
    cr_assert(eq(int, connect_status(p.from, TARGET, &p.source), HOP_OK));
    p.target = sim_newest(p.to, SS_STOP);
    cr_assert(p.target != NULL);
    cr_assert(p.target->joined);
    return p;
}

#endif
