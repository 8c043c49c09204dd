/* tools/load_p2p_churn.c: setup, churn and handshake: slots that each live one short life after the
 * other, as fast as the relay goes. */
#include "tools/load_p2p.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    LIVES = 8, /* identities of a slot, in turn: the relay may not have seen the last one leave */
    LIFE_MS = 10000,
};

struct slot {
    struct lp_peer from[LIVES], to[LIVES];
    struct lp_conn *source, *target;
    struct lp_circuit *circuit;
    unsigned life;
    uint64_t began_ns;
};

static struct {
    struct slot *slot;
    bool stopping;
    unsigned live; /* slots under way; at setup, connections coming up */
    uint64_t done, failed;
} g;

static void begin(struct slot *s);

static void forget(struct slot *s, struct lp_conn *c)
{
    if (s->source == c)
        s->source = NULL;
    if (s->target == c)
        s->target = NULL;
}

static void leave(struct lp_conn *c)
{
    if (c)
        lp_conn_close(c, lp_done);
}

static void life_over(struct slot *s, bool ok)
{
    g.live--;
    if (lp_measuring) {
        g.done += ok;
        g.failed += !ok;
        if (ok)
            load_hist_add(&lp_latency, load_now_ns() - s->began_ns);
    }
    if (lp_opt.mode != LP_SETUP) {
        leave(s->source);
        leave(s->target);
        s->life++;
    }
    if (!g.stopping)
        begin(s);
}

static struct lp_conn *dial(struct slot *s, bool source)
{
    unsigned n = s->life % LIVES;
    unsigned at = (unsigned)(s - g.slot) * 2 + source;
    struct lp_conn *c = lp_conn_new(source ? &s->from[n] : &s->to[n], at, 0, true);

    c->arg = s;
    return c;
}

static void connect_circuit(struct slot *s)
{
    struct lp_circuit *k = s->circuit;

    lp_circuit_clear(k);
    k->from = s->source;
    k->to = s->target;
    k->src = lp_connect(s->source, &s->target->peer->me.id, k);
    if (!k->src)
        lp_die("no stream for a circuit");
}

static void begin(struct slot *s)
{
    g.live++;
    s->began_ns = load_now_ns();
    if (lp_opt.mode == LP_SETUP)
        connect_circuit(s);
    else
        s->target = dial(s, false);
}

/* ---- callbacks ---------------------------------------------------------------------------- */

static void on_up(struct lp_conn *c)
{
    struct slot *s = c->arg;

    if (c == s->target)
        lp_reserve(c);
    else if (lp_opt.mode == LP_SETUP)
        g.live--;
    else
        connect_circuit(s);
}

static void on_reserved(struct lp_conn *c, enum hop_status status)
{
    struct slot *s = c->arg;

    if (status != HOP_OK)
        lp_die("a reservation was refused: status %u", (unsigned)status);
    if (lp_opt.mode == LP_SETUP)
        g.live--;
    else if (lp_opt.mode == LP_HANDSHAKE)
        life_over(s, true);
    else
        s->source = dial(s, true);
}

static void on_connected(struct lp_stream *st, enum hop_status status)
{
    struct lp_circuit *k = st->circuit;

    if (status != HOP_OK)
        lp_die("a circuit was refused: status %u", (unsigned)status);
    lp_circuit_start(k);
    if (lp_opt.mode == LP_CHURN)
        lp_circuit_bytes(k, LP_MSG);
    lp_circuit_finish(k);
}

/* Everything went both ways, so the life is complete. */
static void on_over(struct lp_circuit *k)
{
    struct slot *s = k->arg;

    if (!s->source || !s->target)
        return; /* its connections ended first; counted there */
    if (k->sent[0] != k->received[0])
        lp_totals.mismatches++;
    life_over(s, true);
}

static void on_closed(struct lp_conn *c, const char *why)
{
    struct slot *s = c->arg;

    forget(s, c);
    if (why == lp_done)
        return;
    lp_progress("a connection ended: %s", why);
    if (lp_opt.mode == LP_SETUP)
        lp_die("a connection ended: %s", why);
    life_over(s, false);
}

static const struct lp_app app = { on_up, on_reserved, on_connected, on_closed };

/* ---- the run ------------------------------------------------------------------------------ */

static void run_until(uint64_t end_ns)
{
    while (load_now_ns() < end_ns) {
        (void)lp_poll(10000000);
        lp_flow_reap(on_over);
        lp_progress("%s: %" PRIu64 " done, %u under way", lp_mode_name(), g.done, g.live);
    }
}

static void bring_up(void)
{
    uint64_t deadline = load_now_ns() + (uint64_t)LIFE_MS * 1000000;

    for (unsigned i = 0; i < lp_opt.slots; i++) {
        g.slot[i].target = dial(&g.slot[i], false);
        g.slot[i].source = dial(&g.slot[i], true);
        g.live += 2;
        while (g.live >= LP_IN_FLIGHT && load_now_ns() < deadline)
            (void)lp_poll(10000000);
    }
    while (g.live && load_now_ns() < deadline)
        (void)lp_poll(10000000);
    if (g.live)
        lp_die("%u connections did not come up", g.live);
}

int lp_run_churn(void)
{
    struct lp_circuit *circuits = lp_circuits_new(lp_opt.slots);
    struct lp_report r = { 0 };
    uint64_t until;

    lp_app = &app;
    g.slot = calloc(lp_opt.slots, sizeof(*g.slot));
    ASSERT(g.slot != NULL);
    for (unsigned i = 0; i < lp_opt.slots; i++) {
        g.slot[i].circuit = &circuits[i];
        circuits[i].arg = &g.slot[i];
        for (unsigned n = 0; n < LIVES; n++) {
            lp_peer_make(&g.slot[i].from[n], (uint64_t)i * 2 * LIVES + n);
            lp_peer_make(&g.slot[i].to[n], (uint64_t)i * 2 * LIVES + LIVES + n);
        }
    }
    if (lp_opt.mode == LP_SETUP)
        bring_up();
    for (unsigned i = 0; i < lp_opt.slots; i++)
        begin(&g.slot[i]);
    run_until(load_now_ns() + (uint64_t)(lp_opt.warm_s * 1e9));
    lp_measuring = true;
    lp_report_begin(&r);
    run_until(r.at.wall_ns + (uint64_t)(lp_opt.duration_s * 1e9));
    lp_report_end(&r);
    lp_measuring = false;
    r.lives = g.done;
    r.failed = g.failed;
    g.stopping = true;
    until = load_now_ns() + (uint64_t)LIFE_MS * 1000000;
    while (g.live && load_now_ns() < until) {
        (void)lp_poll(10000000);
        lp_flow_reap(on_over);
    }
    r.stuck = g.live;
    return lp_report_print(&r);
}
