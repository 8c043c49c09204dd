/* tools/load_p2p_run.c: bulk, message and idle: peers that stay, circuits between them, a window in
 * which everything is counted. */
#include "tools/load_p2p.h"

#include <inttypes.h>
#include <stdlib.h>

enum { IDLE_PER_PAIR = 50, PATIENCE_S = 120, PLACE_ROUNDS = 64 };

struct pair {
    struct lp_conn *from, *to;
};

static struct {
    struct lp_peer *peer; /* 2 per pair: source, target */
    struct pair *pair;
    unsigned pairs, busy_pairs;
    struct lp_circuit *circuit;
    unsigned circuits;
    unsigned flying; /* handshakes, reservations or dials under way */
    unsigned up, reserved, open, over;
    bool leaving;
} g;

/* ---- callbacks ---------------------------------------------------------------------------- */

static void on_up(struct lp_conn *c)
{
    (void)c;
    g.flying--;
    g.up++;
}

static void on_reserved(struct lp_conn *c, enum hop_status status)
{
    (void)c;
    if (status != HOP_OK)
        lp_die("a reservation was refused: status %u, after %u", (unsigned)status, g.reserved);
    g.flying--;
    g.reserved++;
}

static void on_connected(struct lp_stream *s, enum hop_status status)
{
    if (status != HOP_OK)
        lp_die("a circuit was refused: status %u, after %u", (unsigned)status, g.open);
    g.flying--;
    g.open++;
    lp_circuit_start(s->circuit);
}

static void on_closed(struct lp_conn *c, const char *why)
{
    (void)c;
    if (!g.leaving && why != lp_done)
        lp_die("a connection ended: %s (%u up, %u reserved, %u circuits)", why, g.up, g.reserved,
               g.open);
}

static void on_over(struct lp_circuit *k)
{
    (void)k;
    g.over++;
}

static const struct lp_app app = { on_up, on_reserved, on_connected, on_closed };

/* ---- bringing up -------------------------------------------------------------------------- */

static void turn(uint64_t deadline_ns, const char *what, unsigned done, unsigned all)
{
    (void)lp_poll(100000000);
    lp_progress("%s: %u of %u", what, done, all);
    if (load_now_ns() > deadline_ns)
        lp_die("%s: only %u of %u in %d s", what, done, all, PATIENCE_S);
}

static uint64_t patience(void)
{
    return load_now_ns() + (uint64_t)PATIENCE_S * 1000000000;
}

static void dial(unsigned pair, bool source)
{
    struct pair *p = &g.pair[pair];
    struct lp_conn *c = lp_conn_new(&g.peer[2 * pair + !source], 2 * pair + !source, pair, source);

    if (source)
        p->from = c;
    else
        p->to = c;
    if (lp_opt.relay == LP_LIBP2P)
        g.flying++;
    else
        g.up++;
}

static void bring_up(unsigned pairs)
{
    uint64_t deadline = patience();

    for (unsigned i = 0; i < 2 * pairs || g.flying;) {
        while (i < 2 * pairs && g.flying < LP_IN_FLIGHT) {
            dial(i / 2, i % 2 == 0);
            i++;
        }
        turn(deadline, "connections", g.up, 2 * pairs);
    }
}

static bool placed(const struct pair *p)
{
    return (p->from->shard == p->to->shard) == (lp_opt.place == LP_SAME);
}

/* The kernel spreads connections by their ports, so a new one has a new chance. */
static void place(unsigned pairs)
{
    struct lp_conn **all = calloc(2 * pairs, sizeof(*all));
    unsigned wrong = pairs;

    ASSERT(all != NULL);
    for (unsigned round = 0; wrong; round++) {
        uint64_t deadline = patience();

        if (round == PLACE_ROUNDS)
            lp_die("--placement: %u pairs are still wrong; has the relay two shards?", wrong);
        for (unsigned i = 0; i < pairs; i++) {
            all[2 * i] = g.pair[i].from;
            all[2 * i + 1] = g.pair[i].to;
        }
        if (!lp_place_ask(all, 2 * pairs))
            lp_die("the admin socket does not know all of our connections");
        wrong = 0;
        for (unsigned i = 0; i < pairs; i++) {
            if (placed(&g.pair[i]))
                continue;
            wrong++;
            lp_conn_close(g.pair[i].to, lp_done);
            dial(i, false);
            while (g.flying >= LP_IN_FLIGHT)
                turn(deadline, "placement", i, pairs);
        }
        while (g.flying)
            turn(deadline, "placement", pairs - wrong, pairs);
    }
    free(all);
}

static void reserve(unsigned pairs)
{
    uint64_t deadline = patience();

    for (unsigned i = 0; i < pairs || g.flying;) {
        while (i < pairs && g.flying < LP_IN_FLIGHT) {
            g.flying++;
            lp_reserve(g.pair[i++].to);
        }
        turn(deadline, "reservations", g.reserved, pairs);
    }
}

static void connect_circuits(void)
{
    uint64_t deadline = patience();
    unsigned idle_pairs = g.pairs - g.busy_pairs;

    for (unsigned i = 0; i < g.circuits || g.flying;) {
        while (i < g.circuits && g.flying < LP_IN_FLIGHT) {
            struct lp_circuit *k = &g.circuit[i];
            unsigned n = i < lp_opt.circuits ? i % g.busy_pairs
                                             : g.busy_pairs + (i - lp_opt.circuits) % idle_pairs;

            k->idle = i >= lp_opt.circuits;
            k->from = g.pair[n].from;
            k->to = g.pair[n].to;
            i++;
            if (lp_opt.relay != LP_LIBP2P) {
                k->src = lp_bare_open(k->from, k);
                g.open++;
                lp_circuit_start(k);
                continue;
            }
            g.flying++;
            k->src = lp_connect(k->from, &k->to->peer->me.id, k);
            if (!k->src)
                lp_die("no stream for circuit %u", i);
        }
        turn(deadline, "circuits", g.open, g.circuits);
    }
}

/* ---- the window --------------------------------------------------------------------------- */

struct pace { /* who sends a message next */
    unsigned first, n, next;
    uint64_t due_ns, every_ns;
};

static struct pace pace_of(unsigned first, unsigned n, uint64_t interval_ns)
{
    return (struct pace){ .first = first,
                          .n = n,
                          .due_ns = load_now_ns(),
                          .every_ns = n ? interval_ns / n : UINT64_MAX / 2 };
}

static void pace_run(struct pace *p, uint64_t now)
{
    if (!p->n || now < p->due_ns)
        return;
    (void)lp_circuit_message(&g.circuit[p->first + p->next]);
    p->next = (p->next + 1) % p->n;
    p->due_ns += p->every_ns;
    if (p->due_ns + 10000000 < now) /* the machine took us away: no burst to make up for it */
        p->due_ns = now;
}

static void flow_until(uint64_t end_ns, struct pace *busy, struct pace *idle)
{
    bool spin = (lp_opt.spin && busy->n) || (lp_opt.even && lp_opt.rate);

    for (;;) {
        uint64_t now = load_now_ns(), until = end_ns;

        if (now >= end_ns || lp_stopped())
            return;
        pace_run(busy, now);
        pace_run(idle, now);
        lp_rate_refill(now);
        until = busy->n && busy->due_ns < until ? busy->due_ns : until;
        until = idle->n && idle->due_ns < until ? idle->due_ns : until;
        if (lp_opt.rate && until > now + 1000000)
            until = now + 1000000;
        (void)lp_poll(spin || until <= now ? 0 : (int64_t)(until - now));
        lp_flow_reap(on_over);
        if (g.over)
            lp_die("a circuit ended before its time");
        lp_progress("flowing: %" PRIu64 " MiB", lp_totals.received >> 20);
    }
}

static void finish(void)
{
    uint64_t deadline = patience();

    lp_flowing = false;
    for (unsigned i = 0; i < g.circuits; i++)
        lp_circuit_finish(&g.circuit[i]);
    while (g.over < g.circuits) {
        turn(deadline, "closing", g.over, g.circuits);
        lp_flow_reap(on_over);
    }
    g.leaving = true;
}

static void check_sums(void)
{
    for (unsigned i = 0; i < g.circuits; i++) {
        const struct lp_circuit *k = &g.circuit[i];

        if (k->sent[0] != k->received[0] || k->sent[1] != k->received[1])
            lp_totals.mismatches++;
    }
}

static int run_flow(void)
{
    unsigned idle_pairs = (lp_opt.idle_circuits + IDLE_PER_PAIR - 1) / IDLE_PER_PAIR;
    struct lp_report r = { 0 };

    g.busy_pairs = lp_opt.circuits ? lp_opt.pairs : 0;
    g.pairs = g.busy_pairs + idle_pairs;
    g.circuits = lp_opt.circuits + lp_opt.idle_circuits;
    g.circuit = lp_circuits_new(g.circuits);
    g.peer = calloc(2 * (size_t)g.pairs, sizeof(*g.peer));
    g.pair = calloc(g.pairs, sizeof(*g.pair));
    ASSERT(g.peer && g.pair);
    for (unsigned i = 0; i < 2 * g.pairs && lp_opt.relay == LP_LIBP2P; i++)
        lp_peer_make(&g.peer[i], i);
    bring_up(g.pairs);
    if (lp_opt.place != LP_ANYWHERE)
        place(g.pairs);
    if (lp_opt.relay == LP_LIBP2P)
        reserve(g.pairs);
    connect_circuits();

    lp_flowing = true;
    for (unsigned i = 0; i < lp_opt.circuits; i++)
        lp_circuit_pump(g.circuit[i].src);

    struct pace busy = pace_of(0, lp_opt.mode == LP_MESSAGE ? lp_opt.circuits : 0,
                               (uint64_t)lp_opt.interval_us * 1000);
    struct pace idle =
        pace_of(lp_opt.circuits, lp_opt.idle_circuits, (uint64_t)lp_opt.idle_every_ms * 1000000);

    flow_until(load_now_ns() + (uint64_t)(lp_opt.warm_s * 1e9), &busy, &idle);
    lp_measuring = true;
    lp_report_begin(&r);
    flow_until(r.at.wall_ns + (uint64_t)(lp_opt.duration_s * 1e9), &busy, &idle);
    lp_report_end(&r);
    lp_measuring = false;
    finish();
    check_sums();
    return lp_report_print(&r);
}

static int run_idle(void)
{
    struct lp_report r = { 0 };
    unsigned most = 0, have = 0;

    for (unsigned i = 0; i < lp_opt.steps; i++)
        most = lp_opt.step[i] > most ? lp_opt.step[i] : most;
    g.peer = calloc(most, sizeof(*g.peer));
    g.pair = calloc(most, sizeof(*g.pair));
    ASSERT(g.peer && g.pair);
    lp_report_begin(&r);
    lp_report_memory(&r, 0);
    for (unsigned i = 0; i < lp_opt.steps; i++) {
        uint64_t deadline = patience(), until;
        unsigned want = lp_opt.step[i];

        while (have < want || g.flying) {
            while (have < want && g.flying < LP_IN_FLIGHT) {
                lp_peer_make(&g.peer[have], have);
                g.pair[have].from = lp_conn_new(&g.peer[have], have, 0, true);
                g.flying += 2; /* handshake, then reservation */
                have++;
            }
            turn(deadline, "reserved peers", g.reserved, want);
        }
        until = load_now_ns() + (uint64_t)(lp_opt.settle_s * 1e9);
        while (load_now_ns() < until)
            (void)lp_poll(10000000);
        lp_report_memory(&r, want);
    }
    /* Held: what do they cost while nothing happens? */
    lp_report_begin(&r);
    uint64_t until = r.at.wall_ns + (uint64_t)(lp_opt.duration_s * 1e9);

    while (load_now_ns() < until) {
        (void)lp_poll(100000000);
        lp_progress("holding %u peers", have);
    }
    lp_report_end(&r);
    g.leaving = true;
    return lp_report_print(&r);
}

static void idle_up(struct lp_conn *c)
{
    on_up(c);
    lp_reserve(c);
}

static const struct lp_app idle_app = { idle_up, on_reserved, on_connected, on_closed };

int lp_run(void)
{
    lp_app = lp_opt.mode == LP_IDLE ? &idle_app : &app;
    switch (lp_opt.mode) {
    case LP_BULK:
    case LP_MESSAGE:
        return run_flow();
    case LP_IDLE:
        return run_idle();
    case LP_SETUP:
    case LP_CHURN:
    case LP_HANDSHAKE:
        break;
    case LP_ATTACK:
        return lp_run_attack();
    case LP_SOAK:
        return lp_run_soak();
    }
    return lp_run_churn();
}
