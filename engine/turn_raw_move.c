/* The bytes of data connections (design.md path 1). A byte leaves the source's socket only once the
 * sink has it (peek, send, discard), so nothing is held here for a sink that is full, and there is
 * no memory to run out of. A flow that proves bulky goes by splice(2) through a pipe that it has
 * only while bytes are in it. */
#include <errno.h>
#include <sys/socket.h>

#include "engine/turn_raw_int.h"

/* ---- pipes -------------------------------------------------------------------------------------
 */

/* 0: none, stay on peek and send. */
static uint16_t pipe_get(struct turn_raws *t)
{
    struct ring_pipe *p = &t->pipe[t->pipes_n];

    if (t->pipes_free_n)
        return t->pipe_free[--t->pipes_free_n];
    if (t->no_pipes || t->pipes_n == TURN_PIPES_MAX || ring_pipe_new(p, TURN_PIPE_BYTES) < 0)
        return 0;
    if (p->cap < TURN_PIPE_LEAST) { /* the system gives no more */
        ring_pipe_free(p);
        t->no_pipes = true;
        return 0;
    }
    return (uint16_t)++t->pipes_n;
}

/* One that is not empty is another's bytes: it is made anew instead. */
static void pipe_put(struct turn_raws *t, uint16_t pipe, bool empty)
{
    struct ring_pipe *p = &t->pipe[pipe - 1];

    if (!empty) {
        ring_pipe_free(p);
        *p = (struct ring_pipe){ .in = -1, .out = -1 };
        if (ring_pipe_new(p, TURN_PIPE_BYTES) < 0) {
            *p = (struct ring_pipe){ .in = -1, .out = -1 };
            return; /* one less */
        }
    }
    t->pipe_free[t->pipes_free_n++] = pipe;
}

void turn_raw_pipes_drop(struct turn_raw *raw)
{
    for (int i = 0; i < 2; i++) {
        struct turn_raw_way *w = &raw->way[i];

        if (w->pipe)
            pipe_put(raw->ts->raws, w->pipe, w->in_pipe == 0);
        w->pipe = 0;
    }
}

void turn_raw_pipes_fini(struct turn_raws *t)
{
    for (unsigned i = 0; i < t->pipes_n; i++)
        if (t->pipe[i].in >= 0)
            ring_pipe_free(&t->pipe[i]);
}

/* ---- one way -----------------------------------------------------------------------------------
 */

/* What becomes of a call, for the loop. A call that does less than it was asked for is not followed
 * by one that says -EAGAIN: the poll tells at once if there is more. */
enum step {
    STEP_MOVED,
    STEP_WAIT, /* for a poll */
    STEP_BAD,  /* the pair ends */
};

static void half_stamp(struct turn_raw *raw)
{
    struct turn_shard *ts = raw->ts;

    if (raw->half)
        list_remove(&ts->raws->halves, &raw->half_link);
    raw->half = true;
    raw->half_ms = ts->s->now_ms;
    list_append(&ts->raws->halves, &raw->half_link);
    if (!timer_armed(&ts->raws->linger))
        wheel_arm(&ts->s->wheel, &ts->raws->linger, raw->half_ms + TURN_HALF_MS);
}

static bool half_has_more(const struct turn_raw *raw)
{
    for (int i = 0; i < 2; i++)
        if (!raw->way[i].shut && (raw->side[i].readable || raw->way[i].in_pipe))
            return true;
    return raw->late.bytes != 0;
}

/* A peer that has closed looks like one that has only said its last, until bytes sent to it come
 * back as a reset. So half a pair lives on while it moves, and not for ever. */
void turn_raw_linger(struct turn_shard *ts)
{
    struct list *halves = &ts->raws->halves;

    while (halves->first) {
        struct turn_raw *raw = CONTAINER_OF(halves->first, struct turn_raw, half_link);

        if (ts->s->now_ms < raw->half_ms + TURN_HALF_MS) {
            wheel_arm(&ts->s->wheel, &ts->raws->linger, raw->half_ms + TURN_HALF_MS);
            return;
        }
        if (half_has_more(raw)) /* it waits for a slow reader: TCP's own timeout is for that */
            half_stamp(raw);
        else
            turn_raw_end(raw);
    }
}

static void count(struct turn_raw *raw, int from, size_t n)
{
    struct stats *stats = &raw->ts->s->stats;

    if (from == RAW_CLIENT) /* by where they go */
        STAT_ADD(stats, turn_tcp_peer_bytes, n);
    else
        STAT_ADD(stats, turn_tcp_client_bytes, n);
    raw->owed += n;
    if (raw->half)
        half_stamp(raw);
    if (raw->conn && raw->conn->alloc)
        turn_client_of(raw->conn->alloc)->bytes[from] += n;
    raw->ts->raws->left -= min_sz(n, raw->ts->raws->left);
}

/* A stretch of reads tells which way is cheaper: below some 4 KiB a read, recv and send are. */
static void judge_bulk(struct turn_raw *raw, struct turn_raw_way *w, size_t n)
{
    w->reads++;
    w->bytes += n;
    if (w->bytes < TURN_BULK_BYTES && w->reads < TURN_BULK_READS)
        return;
    bool bulk = w->bytes / w->reads >= (w->bulk ? TURN_BULK_READ / 2 : TURN_BULK_READ);

    if (bulk && !w->bulk)
        STAT_INC(&raw->ts->s->stats, turn_tcp_bulk);
    w->bulk = bulk;
    w->reads = 0;
    w->bytes = 0;
}

static enum step sink_error(struct turn_raw_side *sink, int err)
{
    if (err != -EAGAIN && err != -EINTR)
        return STEP_BAD;
    sink->writable = false;
    return STEP_WAIT;
}

static enum step source_error(struct turn_raw_side *source, int err)
{
    if (err != -EAGAIN && err != -EINTR)
        return STEP_BAD;
    source->readable = false;
    return STEP_WAIT;
}

static enum step send_late(struct turn_raw *raw)
{
    struct bytes views[SEND_IOV];
    struct iovec iov[SEND_IOV];
    size_t n = chunkq_views(&raw->late, raw->late.bytes, views, SEND_IOV);
    int sent;

    for (size_t i = 0; i < n; i++)
        iov[i] = (struct iovec){ (void *)(uintptr_t)views[i].p, views[i].n };
    sent =
        ring_send_now(raw->side[RAW_PEER].fd, &(struct msghdr){ .msg_iov = iov, .msg_iovlen = n });
    if (sent < 0)
        return sink_error(&raw->side[RAW_PEER], sent);
    raw->side[RAW_PEER].writable = (size_t)sent == raw->late.bytes || n == SEND_IOV;
    chunkq_consume(&raw->late, &raw->ts->s->chunks, (size_t)sent);
    count(raw, RAW_CLIENT, (size_t)sent);
    return STEP_MOVED;
}

static enum step pipe_out(struct turn_raw *raw, int from)
{
    struct turn_raw_way *w = &raw->way[from];
    struct turn_raw_side *sink = &raw->side[!from];
    int n = ring_splice_out(&raw->ts->raws->pipe[w->pipe - 1], sink->fd, w->in_pipe);

    if (n < 0)
        return sink_error(sink, n);
    if (n == 0)
        return STEP_BAD; /* it says that it took none, of bytes that are there */
    w->in_pipe -= (size_t)n;
    sink->writable = w->in_pipe == 0;
    count(raw, from, (size_t)n);
    return STEP_MOVED;
}

/* Into an empty pipe only: then -EAGAIN means the socket. */
static enum step pipe_in(struct turn_raw *raw, int from)
{
    struct turn_raw_way *w = &raw->way[from];
    struct turn_raw_side *source = &raw->side[from];
    struct ring_pipe *p = &raw->ts->raws->pipe[w->pipe - 1];
    int n = ring_splice_in(p, source->fd, p->cap);

    if (n < 0)
        return source_error(source, n);
    w->in_pipe = (size_t)n;
    w->ended = n == 0;
    source->readable = (size_t)n == p->cap; /* less: that was all, or its poll is done at once */
    if (n > 0)
        judge_bulk(raw, w, (size_t)n);
    return STEP_MOVED;
}

static enum step copy(struct turn_raw *raw, int from)
{
    struct turn_raw_way *w = &raw->way[from];
    struct turn_raw_side *source = &raw->side[from], *sink = &raw->side[!from];
    uint8_t *scratch = raw->ts->raws->scratch;
    int n = ring_peek(source->fd, scratch, TURN_RAW_READ), sent;

    if (n < 0)
        return source_error(source, n);
    if (n == 0) {
        w->ended = true;
        return STEP_MOVED;
    }
    struct iovec iov = { scratch, (size_t)n };

    sent = ring_send_now(sink->fd, &(struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 });
    if (sent < 0)
        return sink_error(sink, sent);
    if (ring_discard(source->fd, (size_t)sent) != sent)
        return STEP_BAD; /* nobody else reads it: the sink would get bytes twice */
    sink->writable = sent == n;
    source->readable = sent < n || n == TURN_RAW_READ;
    judge_bulk(raw, w, (size_t)n);
    count(raw, from, (size_t)sent);
    return STEP_MOVED;
}

static enum step way_step(struct turn_raw *raw, int from)
{
    struct turn_raw_way *w = &raw->way[from];
    struct turn_raw_side *source = &raw->side[from], *sink = &raw->side[!from];

    if (!sink->writable)
        return STEP_WAIT;
    if (from == RAW_CLIENT && raw->late.bytes)
        return send_late(raw);
    if (w->in_pipe)
        return pipe_out(raw, from);
    if (w->ended || !source->readable)
        return STEP_WAIT;
    if (w->bulk && !w->pipe)
        w->pipe = pipe_get(raw->ts->raws);
    return w->pipe ? pipe_in(raw, from) : copy(raw, from);
}

/* false: the pair ends. */
static bool way_move(struct turn_raw *raw, int from)
{
    struct turn_raws *t = raw->ts->raws;
    struct turn_raw_way *w = &raw->way[from];
    size_t stop = t->left > TURN_RAW_WAY ? t->left - TURN_RAW_WAY : 0;
    enum step step = STEP_MOVED;

    while (step == STEP_MOVED && t->left > stop)
        step = way_step(raw, from);
    if (w->pipe && !w->in_pipe) {
        pipe_put(t, w->pipe, true);
        w->pipe = 0;
    }
    if (step == STEP_BAD)
        return false;
    if (w->ended && !w->shut && !w->in_pipe && !(from == RAW_CLIENT && raw->late.bytes)) {
        w->shut = true; /* half-close goes on to the other side (turn.md §12) */
        if (ring_shutdown(raw->side[!from].fd, SHUT_WR) < 0)
            return false;
        half_stamp(raw);
    }
    if (w->shut)
        return true;
    if (step == STEP_MOVED)
        turn_raw_ready(raw); /* there is more, and others come first */
    else if (!raw->side[!from].writable)
        turn_raw_poll(raw, !from, RAW_OUT);
    else
        turn_raw_poll(raw, from, RAW_IN);
    return true;
}

/* ---- bandwidth ---------------------------------------------------------------------------------
 */

/* A stream loses nothing: it waits until what it has carried is paid for. false: it is held. */
static bool raw_pays(struct turn_raw *raw)
{
    struct turn_shard *ts = raw->ts;

    while (raw->owed && raw->conn && raw->conn->alloc) {
        size_t n = min_sz(raw->owed, TURN_PAY);

        if (!turn_afford(ts, turn_client_of(raw->conn->alloc), n)) {
            raw->held = true;
            list_append(&ts->raws->held, &raw->held_link);
            if (!timer_armed(&ts->raws->again))
                wheel_arm(&ts->s->wheel, &ts->raws->again, ts->s->now_ms + TURN_HOLD_MS);
            return false;
        }
        raw->owed -= n;
    }
    raw->owed = 0;
    return true;
}

void turn_raw_again(struct turn_shard *ts)
{
    struct link *k;

    while ((k = list_pop(&ts->raws->held))) {
        struct turn_raw *raw = CONTAINER_OF(k, struct turn_raw, held_link);

        raw->held = false;
        turn_raw_ready(raw);
    }
}

bool turn_raw_move(struct turn_raw *raw)
{
    const struct config *cfg = raw->ts->s->d->cfg;

    if (!cfg->turn_bps_per_allocation && !cfg->turn_bps_per_user)
        raw->owed = 0;
    else if (!raw_pays(raw))
        return true;
    for (int from = 0; from < 2; from++)
        if (!raw->way[from].shut && !way_move(raw, from))
            return false;
    return !(raw->way[0].shut && raw->way[1].shut);
}
