/* The life of a joined circuit: half-closes, resets, limits, and the two-step close. */
#include "engine/circuit.h"

#include "engine/shard.h"
#include "engine/usage.h"

static const char *const end_texts[] = {
    [END_NONE] = "none",
    [END_NORMAL] = "normal",
    [END_RESET] = "reset",
    [END_CONN_LOST] = "connection lost",
    [END_LIMIT_BYTES] = "byte limit",
    [END_LIMIT_TIME] = "duration limit",
    [END_LINGER] = "half-closed and silent",
    [END_DRAIN] = "drain",
    [END_NOMEM] = "buffer memory",
    [END_REFUSED] = "refused",
    [END_CANCELLED] = "cancelled by the source",
    [END_SHED] = "made room for another",
};

const char *circuit_end_text(enum circuit_end e)
{
    return end_texts[e];
}

void circuit_end_once(struct circuit *c, enum circuit_end why)
{
    uint8_t none = END_NONE;

    atomic_compare_exchange_strong_explicit(&c->end, &none, (uint8_t)why, memory_order_relaxed,
                                            memory_order_relaxed);
}

void circuit_post(struct circuit *c, unsigned to_side, uint32_t bits)
{
    struct shard *to = c->shard[to_side], *from = c->shard[1 - to_side];

    if (mwork_post(&c->leg[to_side].work, &to->mbox, bits))
        shard_bell(from, to);
}

static void uncount_peer(struct daemon *d, uint64_t key)
{
    if (quota_drop(d->quota, key) == 0)
        atomic_fetch_sub_explicit(&d->peers_in_circuits, 1, memory_order_relaxed);
}

/* Exactly one release, whichever way the circuit ends. */
static void circuit_uncount(struct circuit *c)
{
    struct daemon *d = c->shard[0]->d;

    if (!c->counted)
        return;
    c->counted = false;
    uncount_peer(d, c->key_source);
    uncount_peer(d, c->key_target);
    quota_drop(d->quota, d->key_circuits);
}

static void count_end(struct stats *st, enum circuit_end e)
{
    switch (e) {
    case END_NORMAL:
        STAT_INC(st, circuits_closed_normal);
        break;
    case END_LIMIT_BYTES:
        STAT_INC(st, circuits_closed_limit_bytes);
        break;
    case END_LIMIT_TIME:
        STAT_INC(st, circuits_closed_limit_time);
        break;
    case END_DRAIN:
        STAT_INC(st, circuits_closed_drain);
        break;
    case END_NOMEM:
        STAT_INC(st, circuits_closed_nomem);
        break;
    default: /* go closes relayed connections by RST: not an error (Q25) */
        STAT_INC(st, circuits_closed_reset);
    }
}

static void count_usage(const struct circuit *c, uint64_t forth, uint64_t back)
{
    const struct store_usage source = {
        .peer = c->source, .in_bytes = forth, .out_bytes = back, .circuits = 1
    };
    const struct store_usage target = {
        .peer = c->target, .in_bytes = back, .out_bytes = forth, .circuits = 1
    };

    usage_add(c->shard[0]->usage, &source);
    usage_add(c->shard[0]->usage, &target);
}

static void circuit_free(struct circuit *c)
{
    struct shard *s = c->shard[0];
    enum circuit_end end = atomic_load_explicit(&c->end, memory_order_relaxed);
    struct chunk *rest = atomic_exchange_explicit(&c->leg[0].inbox, NULL, memory_order_acquire);

    chunk_free_list(&s->chunks, rest);
    ASSERT(c->leg[0].done && c->leg[1].done);
    ASSERT(!atomic_load_explicit(&c->leg[1].inbox, memory_order_relaxed));
    if (c->opened) {
        struct event_rec e = {
            .kind = EV_CIRCUIT_CLOSED,
            .level = LOG_INFO,
            .peer = c->source,
            .peer2 = c->target,
            .a = c->id,
            .b = atomic_load_explicit(&c->leg[1].drained, memory_order_relaxed),
            .c = atomic_load_explicit(&c->leg[0].drained, memory_order_relaxed),
            .d = s->now_ms - c->opened_ms,
            .reason = circuit_end_text(end),
        };

        log_event(s->log, &e);
        count_end(&s->stats, end);
        count_usage(c, e.b, e.c);
        STAT_ADD(&s->stats, circuit_ms_total, e.d);
        STAT_DEC(&s->stats, circuits);
    }
    chunkq_clear(&c->early, &s->chunks);
    wheel_cancel(&s->wheel, &c->timer);
    slab_free(&s->circuits, c);
}

/* Side 0: both legs over means that nothing more will be posted but the last word. */
static void circuit_advance(struct circuit *c)
{
    if (!c->leg[0].done || !c->peer_over || c->close_posted)
        return;
    c->close_posted = true;
    circuit_post(c, 1, CE_CLOSE);
}

/* It ended before it opened and nobody was told a status (libp2p.md §23: Denied(cancelled)). */
static void log_cancelled(const struct circuit *c)
{
    enum circuit_end end = atomic_load_explicit(&c->end, memory_order_relaxed);
    struct event_rec e = { .kind = EV_CIRCUIT_DENIED,
                           .level = LOG_INFO,
                           .peer = c->source,
                           .peer2 = c->target,
                           .status = HOP_CONNECTION_FAILED,
                           .reason = circuit_end_text(end) };

    if (end != END_REFUSED)
        log_event(c->shard[0]->log, &e);
}

void circuit_leg_over(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];
    struct shard *s = c->shard[side];

    ASSERT(!leg->stream && !leg->done);
    leg->done = true;
    ASSERT(!leg->runnable);
    if (leg->staged) {
        list_remove(&s->staged, &leg->stage_link);
        leg->staged = false;
    }
    if (leg->stage)
        chunk_free(&s->chunks, leg->stage);
    leg->stage = NULL;
    chunkq_clear(&leg->q, &s->chunks);
    if (side == 1) {
        circuit_post(c, 0, CE_LEG_DONE);
        return;
    }
    if (c->state == CIRCUIT_OPENING)
        log_cancelled(c);
    c->state = CIRCUIT_CLOSING;
    chunkq_clear(&c->early, &s->chunks);
    circuit_uncount(c);
    wheel_arm(&s->wheel, &c->timer, s->now_ms + s->d->cfg->linger_ms);
    circuit_advance(c);
}

/* Takes the stream away from the leg; it is the caller's to end. */
static struct stream *leg_unhook(struct leg *leg)
{
    struct stream *st = leg->stream;

    if (leg->runnable) {
        list_remove(&st->conn->runnable, &leg->run_link);
        leg->runnable = false;
    }
    leg->stream = NULL;
    st->circuit = NULL;
    return st;
}

void circuit_leg_cut(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];

    if (leg->done)
        return;
    struct stream *st = leg_unhook(leg);

    /* Bytes of it that still lie in the run go first: control frames are sealed after the run. */
    circuit_leg_over(c, side);
    stream_reset(st);
}

void circuit_leg_lost(struct circuit *c, unsigned side, enum circuit_end why)
{
    struct leg *leg = &c->leg[side];
    struct stream *st = leg_unhook(leg);

    circuit_end_once(c, side == 0 && c->state == CIRCUIT_OPENING ? END_CANCELLED : why);
    if (side == 0 && c->state == CIRCUIT_OPENING)
        STAT_INC(&c->shard[0]->stats, connect_cancelled);
    stream_free(st);
    circuit_post(c, 1 - side, CE_RST);
    circuit_leg_over(c, side);
}

void circuit_abort(struct circuit *c, unsigned side, enum circuit_end why)
{
    circuit_end_once(c, why);
    circuit_post(c, 1 - side, CE_RST);
    circuit_leg_cut(c, side);
}

void circuit_leg_fin(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];

    leg->rx_fin = true;
    if (side == 0 && c->state == CIRCUIT_OPENING) {
        c->early_fin = true;
        return;
    }
    fwd_stage_push(leg); /* FIN travels behind the last byte */
    circuit_post(c, 1 - side, CE_FIN);
    circuit_leg_settle(c, side);
}

void circuit_leg_settle(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];
    uint8_t frame[YAMUX_HEADER];

    if (leg->done || !leg->ready || leg->q.bytes)
        return;
    if (leg->rst_due) {
        circuit_leg_cut(c, side);
        return;
    }
    if (leg->fin_due && !leg->tx_fin) {
        struct conn *conn = leg->stream->conn;

        leg->tx_fin = true;
        yamux_put_data(&leg->stream->y, frame, 0, YAMUX_FIN);
        conn_ctl(conn, bytes_of(frame, sizeof(frame)));
    }
    if (!leg->done && leg->tx_fin && leg->rx_fin) {
        struct stream *st = leg_unhook(leg);

        circuit_end_once(c, END_NORMAL);
        stream_free(st);
        circuit_leg_over(c, side);
    }
}

/* Side 1, CE_RST: also while the stop stream is still being negotiated. */
static void leg_told_rst(struct circuit *c, unsigned side)
{
    circuit_end_once(c, END_RESET);
    circuit_leg_cut(c, side);
}

static void on_work_common(struct circuit *c, unsigned side, uint32_t bits)
{
    struct leg *leg = &c->leg[side];

    if (bits & CE_DATA)
        fwd_inbox_take(c, side);
    if (bits & CE_CREDIT && !leg->done)
        fwd_credit(c, side);
    if (bits & CE_FIN)
        leg->fin_due = true;
    if (bits & CE_LIMIT && !leg->done) {
        leg->rst_due = true;
        fwd_limit_reached(c, side);
    }
    if (bits & CE_RST)
        leg_told_rst(c, side);
    if (leg->done)
        return;
    fwd_leg_wake(c, side);
    circuit_leg_settle(c, side);
}

void circuit_on_work(struct circuit *c, unsigned side, uint32_t bits)
{
    if (side == 1) {
        if (bits & CE_OPEN && bits & CE_RST) { /* taken back before it began */
            circuit_leg_over(c, 1);
            return;
        }
        /* Told that it failed, side 0 may have gone on to another home already. */
        if (bits & CE_OPEN && !circuit_on_open(c))
            return;
        on_work_common(c, 1, bits | (bits & CE_CLOSE ? CE_DATA : 0)); /* the inbox goes too */
        if (bits & CE_CLOSE)
            circuit_post(c, 0, CE_PEER_DONE);
        return;
    }
    if (bits & CE_STOP_DONE)
        circuit_on_stop_done(c);
    on_work_common(c, 0, bits);
    if (bits & CE_LEG_DONE)
        c->peer_over = true;
    if (bits & CE_PEER_DONE) {
        circuit_free(c);
        return;
    }
    circuit_advance(c);
}

/* Nothing moved since the last look and one direction is over, so that somebody forgot to hang up;
 * or memory is short and bytes lie here, at both looks, of which the peers took next to nothing in
 * between. A byte now and then is no reason to hold a window of others' memory. */
static enum circuit_end lingers(struct circuit *c)
{
    const struct leg *leg = &c->leg[0];
    uint64_t there = atomic_load_explicit(&c->leg[1].drained, memory_order_relaxed);
    uint64_t drained = there + atomic_load_explicit(&leg->drained, memory_order_relaxed);
    uint64_t mark = drained + leg->taken + 1, waiting = leg->q.bytes + (leg->taken - there);
    bool ending = leg->rx_fin || leg->fin_due || leg->rst_due || leg->done || c->peer_over;
    bool hoarding = shard_pool_high(c->shard[0]) && waiting;
    bool silent = ending && mark == c->linger_mark;
    bool hoards =
        hoarding && c->linger_hoards && drained - c->linger_drained <= waiting / HOARD_PART;

    c->linger_mark = ending || hoarding ? mark : 0; /* silence before that does not count */
    c->linger_hoards = hoarding;
    c->linger_drained = drained;
    return silent ? END_LINGER : hoards ? END_NOMEM : END_NONE;
}

void circuit_on_timer(struct circuit *c)
{
    struct shard *s = c->shard[0];
    uint64_t next_ms = s->now_ms + s->d->cfg->linger_ms / 2;

    if (c->state == CIRCUIT_OPENING) {
        circuit_end_once(c, END_REFUSED); /* before side 1 can say why its leg was reset */
        circuit_post(c, 1, CE_RST);
        circuit_refuse(c, HOP_CONNECTION_FAILED, "target did not answer in time");
        return;
    }
    enum circuit_end why = s->now_ms >= c->ends_ms ? END_LIMIT_TIME : lingers(c);

    if (why != END_NONE) {
        circuit_end_once(c, why);
        c->ends_ms = UINT64_MAX;
        if (!c->close_posted && !c->peer_over)
            circuit_post(c, 1, CE_RST);
        circuit_leg_cut(c, 0);
    }
    wheel_arm(&s->wheel, &c->timer, min_u64(next_ms, c->ends_ms));
}
