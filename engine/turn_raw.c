/* Data connections of RFC 6062 (turn.md §12): the life of one. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "engine/mem.h"
#include "engine/turn_raw_int.h"

int turn_raws_init(struct turn_shard *ts)
{
    uint32_t conns = ts->host->machine.limits.conns_max;
    uint32_t allocs = ts->host->machine.limits.allocs_max;
    struct turn_raws *t = calloc(1, sizeof(*t));
    int err;

    if (!t)
        return -ENOMEM;
    ts->raws = t;
    t->retry.kind = t->again.kind = t->linger.kind = TIMER_TURN_STREAM;
    /* Twice: those that end wait for their polls, and new ones need not wait for that. */
    if (!(err = slab_init(&t->slab, "turn connections", sizeof(struct turn_raw), conns * 2)) &&
        !(err = slab_init(&t->listeners, "turn listeners", sizeof(struct turn_raw_listener),
                          allocs * 2 * TURN_FAMILIES)))
        t->scratch = mem_reserve(TURN_RAW_READ, 1, &err);
    if (err)
        turn_raws_fini(ts);
    return err;
}

void turn_raws_fini(struct turn_shard *ts)
{
    struct turn_raws *t = ts->raws;

    if (!t)
        return;
    turn_raw_pipes_fini(t);
    mem_release(t->scratch, TURN_RAW_READ, 1);
    slab_fini(&t->listeners);
    slab_fini(&t->slab);
    free(t);
    ts->raws = NULL;
}

struct turn_raw *turn_raw_new(struct turn_shard *ts, int fd)
{
    struct turn_raw *raw = slab_new(&ts->raws->slab);

    if (!raw)
        return NULL;
    raw->ts = ts;
    for (int i = 0; i < 2; i++)
        raw->side[i] = (struct turn_raw_side){ .fd = -1, .readable = true, .writable = true };
    raw->side[RAW_PEER].fd = fd;
    return raw;
}

void turn_raw_free(struct turn_raw *raw)
{
    struct shard *s = raw->ts->s;

    ASSERT(raw->ops == 0);
    turn_raw_pipes_drop(raw);
    chunkq_clear(&raw->late, &s->chunks);
    if (raw->side[RAW_PEER].fd >= 0)
        ring_close(s->ring, raw->side[RAW_PEER].fd);
    if (raw->side[RAW_CLIENT].fd >= 0) {
        ring_close(s->ring, raw->side[RAW_CLIENT].fd);
        quota_drop(s->d->quota, s->d->key_conns);
    }
    if (raw->key_ip)
        quota_drop(s->d->quota, raw->key_ip);
    slab_free(&raw->ts->raws->slab, raw);
}

static uint64_t poll_ud(const struct turn_raw *raw, int side, int what)
{
    return raw_ud(&raw->head, (unsigned)(RAW_UD_POLL + side * RAW_POLLS + what));
}

void turn_raw_poll(struct turn_raw *raw, int side, enum raw_poll what)
{
    static const int mask[RAW_POLLS] = { [RAW_IN] = POLLIN, [RAW_OUT] = POLLOUT };
    struct turn_raw_side *s = &raw->side[side];

    if (s->polled[what])
        return;
    s->polled[what] = true;
    raw->ops++;
    ring_poll_once(raw->ts->s->ring, s->fd, mask[what], poll_ud(raw, side, (int)what));
}

void turn_raw_ready(struct turn_raw *raw)
{
    if (raw->ready || raw->held || raw->state == RAW_CLOSED)
        return;
    raw->ready = true;
    list_append(&raw->ts->raws->ready, &raw->ready_link);
}

/* ---- the end ---------------------------------------------------------------------------------
 */

/* Nothing may be in flight on a socket that is closed: its poll ends first. */
static void raw_close(struct turn_raw *raw)
{
    struct turn_shard *ts = raw->ts;
    struct turn_stream *st = raw->joining;

    if (raw->state == RAW_CLOSED)
        return;
    raw->state = RAW_CLOSED;
    raw->joining = NULL;
    if (raw->conn)
        raw->conn->user = NULL;
    raw->conn = NULL;
    if (raw->ready)
        list_remove(&ts->raws->ready, &raw->ready_link);
    if (raw->held)
        list_remove(&ts->raws->held, &raw->held_link);
    if (raw->half)
        list_remove(&ts->raws->halves, &raw->half_link);
    raw->ready = raw->held = raw->half = false;
    for (int i = 0; i < 2 * RAW_POLLS; i++) {
        if (!raw->side[i / RAW_POLLS].polled[i % RAW_POLLS])
            continue;
        raw->ops++;
        ring_cancel_ud(ts->s->ring, poll_ud(raw, i / RAW_POLLS, i % RAW_POLLS),
                       raw_ud(&raw->head, RAW_UD_CANCEL));
    }
    list_append(&ts->raws->ended, &raw->end_link);
    if (st) {
        st->raw = NULL;
        turn_stream_close(st);
    }
}

void turn_raw_end(struct turn_raw *raw)
{
    struct turn_conn *conn = raw->conn;

    if (raw->state == RAW_CLOSED)
        return;
    raw_close(raw);
    if (conn)
        turn_conn_end(&raw->ts->machine, conn);
}

/* The machine has forgotten it already. */
void turn_raw_close(struct turn_shard *ts, struct turn_conn *conn)
{
    struct turn_raw *raw = conn->user;

    (void)ts;
    if (raw)
        raw_close(raw);
}

void turn_raw_lost(struct turn_raw *raw)
{
    raw->joining = NULL;
    turn_raw_end(raw);
}

/* ---- to the peer -----------------------------------------------------------------------------
 */

/* The client hears of it: its number for the connection, or 447. */
static void connect_told(struct turn_shard *ts, struct turn_conn *conn, bool ok)
{
    uint8_t reply[TURN_REPLY_MAX];
    struct turn_out out = turn_out_of(reply, sizeof(reply));

    if (!ok) {
        conn->user = NULL;
        STAT_INC(&ts->s->stats, turn_tcp_refused);
    }
    turn_on_connected(&ts->machine, ts->s->now_ms, conn, ok, &out);
    turn_act(ts, &out, out.alloc ? &out.alloc->tuple : NULL, NULL, bytes_of(NULL, 0));
}

void turn_raw_connect(struct turn_shard *ts, struct turn_conn *conn, const struct netaddr *from)
{
    struct netaddr to = conn->peer;
    struct turn_raw *raw = turn_raw_new(ts, -1);
    int fd;

    if (!raw) {
        connect_told(ts, conn, false);
        return;
    }
    conn->user = raw;
    raw->conn = conn;
    raw->state = RAW_CONNECTING;
    turn_host_internal(ts->host, &to);
    fd = ring_connect_tcp(from, &to);
    if (fd >= 0) {
        raw->side[RAW_PEER].fd = fd;
        turn_raw_poll(raw, RAW_PEER, RAW_OUT);
        return;
    }
    /* Not from within the request's own act: at the end of the pass. */
    raw->error = fd;
    turn_raw_ready(raw);
}

static void connect_decided(struct turn_raw *raw, int err)
{
    struct turn_shard *ts = raw->ts;
    struct turn_conn *conn = raw->conn;

    if (err == -EINPROGRESS) {
        turn_raw_poll(raw, RAW_PEER, RAW_OUT);
        return;
    }
    if (conn->state != TURN_CONN_CONNECTING) { /* its allocation has gone: TURN_CLOSE comes */
        turn_raw_end(raw);
        return;
    }
    if (err == 0)
        err = ring_tune_raw(raw->side[RAW_PEER].fd);
    if (err) {
        raw->conn = NULL; /* ended by what it is told */
        raw_close(raw);
        connect_told(ts, conn, false);
        return;
    }
    raw->state = RAW_WAITING;
    turn_raw_poll(raw, RAW_PEER, RAW_BROKEN);
    STAT_INC(&ts->s->stats, turn_tcp_connected);
    connect_told(ts, conn, true);
}

/* A connection that has come, and that the machine has taken. */
void turn_raw_wait(struct turn_raw *raw, struct turn_conn *conn)
{
    raw->conn = conn;
    conn->user = raw;
    raw->state = RAW_WAITING;
    turn_raw_poll(raw, RAW_PEER, RAW_BROKEN);
}

/* ---- the client's half -----------------------------------------------------------------------
 */

void turn_raw_join(struct turn_shard *ts, struct turn_conn *conn, struct turn_stream *st)
{
    struct turn_raw *raw = conn->user;

    ASSERT(raw != NULL && raw->ts == ts);
    ASSERT(raw->state == RAW_WAITING);
    if (st->state != STREAM_OPEN) { /* it went while it was being answered */
        turn_raw_end(raw);
        return;
    }
    raw->state = RAW_JOINING;
    raw->joining = st;
    turn_stream_join(st, raw);
}

void turn_raw_take(struct turn_raw *raw, int fd, struct chunkq *late, uint64_t key_ip)
{
    ASSERT(raw->state == RAW_JOINING);
    raw->joining = NULL;
    raw->side[RAW_CLIENT].fd = fd;
    raw->late = *late;
    raw->key_ip = key_ip;
    raw->state = RAW_RELAYING;
    if (ring_tune_raw(fd) < 0) {
        turn_raw_end(raw);
        return;
    }
    STAT_INC(&raw->ts->s->stats, turn_tcp_joined);
    turn_raw_ready(raw);
}

/* ---- the shard's side ------------------------------------------------------------------------
 */

static void on_poll(struct turn_raw *raw, unsigned which, const struct ring_cqe *cqe)
{
    struct turn_raw_side *side = &raw->side[which / RAW_POLLS];

    ASSERT(side->polled[which % RAW_POLLS]);
    side->polled[which % RAW_POLLS] = false;
    raw->ops--;
    if (raw->state == RAW_CLOSED)
        return;
    if (cqe->res < 0 || cqe->res & (POLLERR | POLLHUP))
        side->broken = side->readable = side->writable = true;
    side->readable |= which % RAW_POLLS == RAW_IN;
    side->writable |= which % RAW_POLLS == RAW_OUT;
    turn_raw_ready(raw);
}

void turn_raw_on_cqe(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    unsigned what = ud_idx(cqe->ud) & ((1u << RAW_UD_BITS) - 1);
    struct turn_raw *raw;

    if (what == RAW_UD_ACCEPT || what == RAW_UD_UNACCEPT) {
        if (what == RAW_UD_ACCEPT)
            turn_raw_on_accept(ts, cqe);
        else
            turn_raw_on_unaccept(ts, cqe);
        return;
    }
    raw = slab_find24(&ts->raws->slab, ud_idx(cqe->ud) >> RAW_UD_BITS, ud_gen(cqe->ud));
    ASSERT(raw != NULL && "a completion of a data connection that is gone");
    if (what == RAW_UD_CANCEL)
        raw->ops--;
    else
        on_poll(raw, what - RAW_UD_POLL, cqe);
}

static void raw_turn(struct turn_raw *raw)
{
    switch ((enum turn_raw_state)raw->state) {
    case RAW_CONNECTING:
        connect_decided(raw, raw->error ? raw->error : ring_connect_result(raw->side[RAW_PEER].fd));
        break;
    case RAW_WAITING:
    case RAW_JOINING:
        /* An end of its stream may follow bytes that the client is to have; a reset takes them. */
        if (raw->side[RAW_PEER].broken)
            turn_raw_end(raw);
        break;
    case RAW_RELAYING:
        if (!turn_raw_move(raw))
            turn_raw_end(raw);
        break;
    case RAW_CLOSED:
        break;
    }
}

void turn_raws_pass(struct turn_shard *ts)
{
    struct turn_raws *t = ts->raws;
    struct link *next;

    t->left = TURN_RAW_PASS;
    for (size_t n = t->ready.count; n && t->ready.count && t->left; n--) {
        struct turn_raw *raw = CONTAINER_OF(list_pop(&t->ready), struct turn_raw, ready_link);

        raw->ready = false;
        raw_turn(raw);
    }
    for (struct link *k = t->ended.first; k; k = next) {
        struct turn_raw *raw = CONTAINER_OF(k, struct turn_raw, end_link);

        next = k->next;
        if (raw->ops)
            continue;
        list_remove(&t->ended, k);
        turn_raw_free(raw);
    }
}

bool turn_raw_on_timer(struct turn_shard *ts, struct timer *t)
{
    if (t == &ts->raws->retry)
        turn_raw_retry(ts);
    else if (t == &ts->raws->again)
        turn_raw_again(ts);
    else if (t == &ts->raws->linger)
        turn_raw_linger(ts);
    else
        return false;
    return true;
}

bool turn_raws_busy(const struct turn_shard *ts)
{
    return ts->raws->ready.count != 0;
}

bool turn_raws_ended(const struct turn_shard *ts)
{
    return ts->raws->slab.live == 0 && ts->raws->listeners.live == 0;
}
