/* tools/load_p2p_soak_flow.c: soak: circuits, each with a plan: bursts or messages, both ways, to
 * the end or cut on purpose. */
#include "tools/load_p2p_soak.h"

#include <stdlib.h>

enum {
    MS = 1000000,
    DIAL_LATE_MS = 90000, /* the relay may try several connections of a target */
    CUT_LATE_MS = 60000,
    RUN_LATE_MS = 120000,
    TALK_MS = 15000,  /* messages go on so long, at most */
    SPACING_MS = 400, /* between two */
    MESSAGE_MAX = 2000,
    HOLD_MS = 1500,        /* a receiver grants nothing so long, at most */
    PAUSE_MS = 400,        /* and does not even read */
    STALE_NS = 1000000000, /* so much earlier than a dial the target may have changed */
    SMALL_MAX = 5000,      /* with bodies of a few bytes: a record each */
    BURST_BITS_MIN = 12,
    BURST_BITS_MAX = 22,
};

static struct {
    struct plot *plot;
    struct lp_circuit *k;
    struct plot **free;
    unsigned n, free_n;
} g;

void plots_init(unsigned n)
{
    g.n = n;
    g.k = lp_circuits_new(n);
    g.plot = calloc(n ? n : 1, sizeof(*g.plot));
    g.free = calloc(n ? n : 1, sizeof(*g.free));
    ASSERT(g.plot && g.free);
    for (unsigned i = 0; i < n; i++) {
        g.plot[i].k = &g.k[i];
        g.k[i].arg = &g.plot[i];
        g.free[g.free_n++] = &g.plot[i];
    }
}

unsigned plots_open(void)
{
    return g.n - g.free_n;
}

static void plot_at(const struct plot *p, uint64_t in_ms, enum event what)
{
    soak_at(load_now_ns() + in_ms * MS, what, (uint32_t)(p - g.plot), p->life);
}

static void plot_free(struct plot *p)
{
    p->used = false;
    p->life++;
    p->k->id += g.n; /* what of this life still arrives is late */
    g.free[g.free_n++] = p;
}

/* ---- a plan ------------------------------------------------------------------------------- */

static uint64_t burst(void)
{
    uint64_t bits = BURST_BITS_MIN + soak_random(BURST_BITS_MAX - BURST_BITS_MIN);

    return (UINT64_C(1) << bits) + soak_random(UINT64_C(1) << bits);
}

static void plan(struct plot *p)
{
    static const uint32_t bodies[] = { 1, 100, 1024, 4096, 16384, 65524 };

    p->plan = soak_chance(35) ? PLAN_BULK : PLAN_MESSAGES;
    p->body = bodies[soak_random(ARRAY_LEN(bodies))];
    if (p->plan == PLAN_BULK) {
        p->want[0] = burst();
        p->want[1] = soak_chance(40) ? burst() : 0;
        if (p->body < 1024) /* a record each: not the whole of the soak's CPU */
            p->want[0] %= SMALL_MAX, p->want[1] %= SMALL_MAX;
        p->closing = true;
    }
    if (soak_chance(30)) {
        p->cut_as = (uint8_t)(1 + soak_random(CUTS - 1));
        p->cut_at = p->plan == PLAN_BULK ? soak_random(p->want[0] + p->want[1])
                                         : soak_random((uint64_t)MESSAGE_MAX * 20);
    }
    p->k->hold[0] = p->plan == PLAN_BULK && soak_chance(soak_surge ? 50 : 20);
    p->k->hold[1] = p->plan == PLAN_BULK && soak_chance(soak_surge ? 25 : 10);
}

/* A cut happens between turns, a moment later or at once: the callers still hold the stream. */
static void cut_soon(struct plot *p)
{
    p->cut_due = true;
    plot_at(p, soak_chance(50) ? 0 : soak_random(20), EV_CUT);
}

/* Somebody who leaves, comes or is away, if there is one. */
static struct seat *soak_absent(void)
{
    struct seat *s = NULL;

    for (int i = 0; i < 64; i++) {
        s = soak_any();
        if (s->state != SEAT_STANDING)
            break;
    }
    return s;
}

void plots_begin(void)
{
    struct seat *from = soak_standing(), *to = soak_chance(95) ? soak_standing() : soak_absent();
    struct plot *p;

    if (!g.free_n || !from || !to || from->who == to->who)
        return;
    p = g.free[--g.free_n];
    *p = (struct plot){ .k = p->k, .life = p->life + 1, .used = true, .dialing = true };
    lp_circuit_clear(p->k);
    p->k->phase = (uint32_t)soak_random(LP_POOL);
    p->k->from = from->conn;
    p->k->whom = &to->who->peer;
    p->target = to->who;
    p->from = from;
    p->to = to;
    p->blind = to->state != SEAT_STANDING || to->lapsed;
    p->began_ns = load_now_ns();
    plan(p);
    soak.dials++;
    p->k->src = lp_connect(from->conn, &to->who->peer.me.id, p->k);
    if (!p->k->src) {
        soak_fail("no stream for a circuit");
        plot_free(p);
        return;
    }
    plot_at(p, DIAL_LATE_MS, EV_PLOT_LATE);
    if (soak_chance(3)) { /* cut while the target is asked */
        p->cut_as = (uint8_t)(1 + soak_random(CUTS - 1));
        cut_soon(p);
    }
}

/* Did a connection of the target come or leave while it was dialled? Then the relay may say no. */
static bool target_moved(const struct plot *p)
{
    return p->blind || p->target->changed_ns + STALE_NS >= p->began_ns;
}

void plots_connected(struct lp_stream *s, enum hop_status status)
{
    struct lp_circuit *k = s->circuit;
    struct plot *p = k->arg;

    p->dialing = false;
    if (status != HOP_OK) {
        if (target_moved(p))
            soak.refused++;
        else
            soak_fail("a dial was refused: status %u", (unsigned)status);
        k->src = NULL;
        s->circuit = NULL;
        plot_free(p);
        return;
    }
    soak.heads++;
    lp_circuit_start(k);
    plot_at(p, RUN_LATE_MS, EV_PLOT_LATE);
    if (p->plan == PLAN_MESSAGES) {
        plot_at(p, soak_random(SPACING_MS), EV_MESSAGE);
        plot_at(p, 1 + soak_random(TALK_MS), EV_FINISH);
    }
    if (k->hold[0] || k->hold[1])
        plot_at(p, soak_random(HOLD_MS), EV_RELEASE);
    if (soak_ending)
        p->closing = true;
}

/* ---- bytes -------------------------------------------------------------------------------- */

static void cut_if_due(struct plot *p)
{
    if (p->cut_as == CUT_NOT || p->cut_due || p->k->received[0] + p->k->received[1] < p->cut_at)
        return;
    cut_soon(p);
}

void lp_soak_pump(struct lp_stream *s)
{
    struct lp_circuit *k = s->circuit;
    bool back = s->kind == LP_SINK;
    struct plot *p = k ? k->arg : NULL;

    if (!k || s->y.tx_fin || s->conn->state != LP_UP)
        return;
    while (k->sent[back] < p->want[back]) {
        size_t n = min_sz(min_sz(p->body, s->y.send_credit), p->want[back] - k->sent[back]);

        if (n == 0 || s->conn->polled_out)
            return;
        if (s->conn->out_n >= LP_BURST) {
            s->conn->more = true;
            return;
        }
        k->sent[back] += lp_send(s, lp_circuit_payload(k, back, n), false);
        if (s->conn->stuck)
            return;
    }
    if (p->closing)
        (void)lp_send(s, bytes_of(NULL, 0), true);
    if (p->closing && s->y.rx_fin)
        plot_at(p, 0, EV_FINISH); /* it is over on this side; freed there */
}

void lp_soak_attached(struct lp_circuit *k)
{
    struct plot *p = k->arg;
    const struct seat *s = k->dst->conn->arg;

    if (s->state != SEAT_STANDING)
        p->cut = true;
}

void lp_soak_data(struct lp_circuit *k)
{
    cut_if_due(k->arg);
}

/* The sender said that this is all. It is, even if the circuit is cut a moment later: a relay must
 * not make a whole of a half. */
void lp_soak_fin(struct lp_stream *s)
{
    struct lp_circuit *k = s->circuit;
    bool back = s->kind == LP_SOURCE;
    struct plot *p = k ? k->arg : NULL;

    if (!k) {
        lp_totals.mismatches++; /* the head was before it */
        if (!s->y.tx_fin)
            (void)lp_send(s, bytes_of(NULL, 0), true);
        return;
    }
    p->fin[back] = true;
    if (!p->closing || k->received[back] != k->sent[back] || k->sent[back] != p->want[back])
        lp_totals.mismatches++;
    lp_circuit_pump(s);
}

/* ---- ends --------------------------------------------------------------------------------- */

static void cut_stream(struct lp_stream *s)
{
    if (s)
        lp_reset(s);
}

static void cut_seat(struct seat *s)
{
    soak_leave(s, (enum way)soak_random(WAY_POLITE));
}

static void cut(struct plot *p)
{
    struct lp_circuit *k = p->k;
    struct seat *target = k->dst ? k->dst->conn->arg : p->to;
    unsigned as = p->cut_as;

    p->cut = true;
    soak.cut[as]++;
    plot_at(p, CUT_LATE_MS, EV_PLOT_LATE);
    if (as == CUT_SOURCE_RST || as == CUT_BOTH_RST)
        cut_stream(k->src);
    if (as == CUT_TARGET_RST || as == CUT_BOTH_RST)
        cut_stream(k->dst);
    if (as == CUT_SOURCE_LEAVES || as == CUT_BOTH_LEAVE)
        cut_seat(p->from);
    if (as == CUT_TARGET_LEAVES || as == CUT_BOTH_LEAVE)
        cut_seat(target);
}

static void both_ways_done(struct lp_stream *s)
{
    if (s && s->kind != LP_CONNECT && s->y.rx_fin && s->y.tx_fin)
        lp_stream_free(s, false);
}

static void finish(struct plot *p)
{
    p->closing = true;
    if (p->k->src && p->k->src->kind == LP_SOURCE)
        lp_circuit_pump(p->k->src);
    if (p->k->dst)
        lp_circuit_pump(p->k->dst);
    both_ways_done(p->k->src);
    both_ways_done(p->k->dst);
}

static void message(struct plot *p)
{
    if (p->closing)
        return;
    for (int back = 0; back < 2; back++)
        if (soak_chance(75))
            p->want[back] += 1 + soak_random(MESSAGE_MAX);
    if (p->k->src)
        lp_circuit_pump(p->k->src);
    if (p->k->dst)
        lp_circuit_pump(p->k->dst);
    plot_at(p, soak_random(SPACING_MS), EV_MESSAGE);
}

static void release(struct plot *p)
{
    for (int back = 0; back < 2; back++) {
        struct lp_stream *s = back ? p->k->src : p->k->dst;

        p->k->hold[back] = false;
        if (s && s->kind != LP_CONNECT)
            lp_consumed(s, 0);
    }
    if (p->k->dst && soak_chance(20)) /* the next lull is TCP's */
        soak_pause(p->k->dst->conn->arg, soak_random(PAUSE_MS) * MS);
}

static void late(const struct plot *p)
{
    const struct lp_circuit *k = p->k;

    soak_fail("circuit %u is not over: %s, %s%s; sent %llu+%llu of %llu+%llu, received %llu+%llu, "
              "%s source, %s target",
              k->id, p->dialing ? "dialing" : "open", p->plan == PLAN_BULK ? "bulk" : "messages",
              p->cut ? ", cut" : "", (unsigned long long)k->sent[0], (unsigned long long)k->sent[1],
              (unsigned long long)p->want[0], (unsigned long long)p->want[1],
              (unsigned long long)k->received[0], (unsigned long long)k->received[1],
              k->src ? "a" : "no", k->dst ? "a" : "no");
}

void plots_event(enum event what, uint32_t index, uint32_t life)
{
    struct plot *p = &g.plot[index];

    if (p->life != life || !p->used || p->k->over)
        return;
    switch (what) {
    case EV_MESSAGE:
        message(p);
        break;
    case EV_FINISH:
        finish(p);
        break;
    case EV_RELEASE:
        release(p);
        break;
    case EV_CUT:
        cut(p);
        break;
    case EV_PLOT_LATE:
        if (p->dialing || p->cut || p->closing)
            late(p);
        break;
    default:
        ASSERT(false);
    }
}

static void over(struct lp_circuit *k)
{
    struct plot *p = k->arg;
    bool clean = p->fin[0] && p->fin[1];

    if (clean) {
        soak.clean++;
        for (int back = 0; back < 2; back++) {
            soak.clean_bytes[back] += k->received[back];
            if (k->sent[back] != k->received[back])
                lp_totals.mismatches++;
        }
    } else {
        for (int back = 0; back < 2; back++) {
            soak.cut_sent[back] += k->sent[back];
            soak.cut_received[back] += k->received[back];
        }
        soak.cut_heads += !p->dialing;
        soak.cut_else += p->cut && !p->cut_due;
        if (p->dialing && (p->cut || target_moved(p)))
            soak.dial_cut++;
        else if (!p->cut && !target_moved(p))
            soak_fail("circuit %u ended by a reset that nobody wished, %s", k->id,
                      p->dialing ? "while dialing" : "open");
    }
    plot_free(p);
}

void plots_reap(void)
{
    lp_flow_reap(over);
}

/* ---- of a connection ---------------------------------------------------------------------- */

void plots_cut_of(struct lp_conn *c)
{
    for (struct lp_stream *s = c->streams; s; s = s->next) {
        if (!s->circuit)
            continue;
        struct plot *p = s->circuit->arg;

        if (!p->cut)
            plot_at(p, CUT_LATE_MS, EV_PLOT_LATE);
        p->cut = true;
    }
}

void plots_finish_of(struct lp_conn *c)
{
    for (struct lp_stream *s = c->streams; s; s = s->next) {
        struct plot *p = s->circuit ? s->circuit->arg : NULL;

        if (p && !p->closing)
            plot_at(p, 0, EV_FINISH);
    }
}

bool plots_carried(const struct lp_conn *c)
{
    for (const struct lp_stream *s = c->streams; s; s = s->next)
        if (s->circuit || s->kind == LP_STOP || s->kind == LP_SINK)
            return true;
    return false;
}

void plots_finish(void)
{
    for (unsigned i = 0; i < g.n; i++)
        if (g.plot[i].used)
            finish(&g.plot[i]);
}
