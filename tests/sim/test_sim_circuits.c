/* tests/sim/test_sim_circuits.c: the real engine on the simulated kernel, by hand: what is hard to
 * do with real clients, because it needs an exact time, an exact byte or an exact shard. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/sim/sim_peer.h"

enum { SOURCE = 1, TARGET = 2, OTHER = 3, CROSS = 2 };

static const struct sim_opts fair;

static struct sim *calm(const struct config *cfg)
{
    return sim_new(1, fair, cfg);
}

static void ended(struct sim *s)
{
    sim_end(s);
    SIM_OK(s);
    sim_free(s);
}

/* A connection that is up, and a reservation of it. */
static struct sim_conn *client(struct sim *s, unsigned ident, int shard)
{
    struct netaddr at = sim_host(ident, ident);
    struct sim_conn *c = sim_dial(s, ident, &at, shard);

    cr_assert(c != NULL);
    SIM_UNTIL(s, c->state >= SC_UP, 5000);
    return c;
}

static struct sim_stream *reserved(struct sim_conn *c)
{
    struct sim_stream *st = sim_reserve(c);

    cr_assert(st != NULL);
    SIM_UNTIL(c->s, st->status != 0, 5000);
    cr_assert(eq(int, st->status, HOP_OK), SIM_SEED(c->s));
    return st;
}

static enum hop_status connect_status(struct sim_conn *c, unsigned target, struct sim_stream **out)
{
    struct sim_stream *st = sim_connect_to(c, sim_peer_id(c->s, target));

    cr_assert(st != NULL);
    SIM_UNTIL(c->s, st->status != 0 || !st->live, 20000);
    if (out != NULL)
        *out = st;
    return st->status;
}

/* A circuit on one shard, or across two. */
struct pair {
    struct sim_conn *from, *to;
    struct sim_stream *source, *target;
};

static struct pair join(struct sim *s, int cross)
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

Test(sim_circuit, carries_bytes_both_ways_and_ends_in_order, .timeout = 60)
{
    for (int cross = 0; cross < CROSS; cross++) {
        struct config cfg;

        sim_config(&cfg, NULL);
        struct sim *s = calm(&cfg);
        struct pair p = join(s, cross);

        sim_flow_start(p.source, 1000000, 16384, true);
        sim_flow_start(p.target, 600000, 262144, true);
        SIM_UNTIL(s, sim_flows_settled(s), 10000);
        SIM_UNTIL(s, !p.source->live && !p.target->live, 1000);
        cr_assert(not(p.source->rst_seen || p.target->rst_seen));
        ended(s);
    }
}
