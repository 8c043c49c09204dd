/* Bytes of TURN's streams: cut into units in place; the beginning of one that is not whole is kept
 * (turn.md §10 "Stream framing"). */
#include <errno.h>

#include "engine/turn_stream_int.h"

enum { PARTS_SMALL, PARTS_BIG };

/* ---- what is not whole yet ---------------------------------------------------------------------
 */

static void room_free(struct turn_shard *ts, struct chunk *chunk, uint32_t big)
{
    if (chunk)
        chunk_free(&ts->s->chunks, chunk);
    if (big)
        ts->streams->big_free[ts->streams->big_n++] = big - 1;
}

void turn_stream_part_drop(struct turn_stream *st)
{
    struct turn_part *p = &st->part;

    if (!p->p)
        return;
    list_remove(&st->ts->streams->parts[p->big ? PARTS_BIG : PARTS_SMALL], &p->link);
    room_free(st->ts, p->chunk, p->big);
    *p = (struct turn_part){ 0 };
}

/* Who began first and is not done goes: an honest unit is whole within moments. */
static bool oldest_goes(struct turn_stream *st, int kind)
{
    struct link *k = st->ts->streams->parts[kind].first;
    struct turn_stream *old;

    if (!k)
        return false;
    old = CONTAINER_OF(k, struct turn_stream, part.link);
    STAT_INC(&st->ts->s->stats, turn_stream_hoard);
    turn_stream_close(old);
    return st->state != STREAM_CLOSED; /* it was the oldest itself */
}

/* What a peer can begin and leave lying has its part of the pool (engine/README.md). */
static struct chunk *part_chunk(struct turn_stream *st)
{
    struct chunk_pool *pool = &st->ts->s->chunks;

    if (st->ts->streams->parts[PARTS_SMALL].count >= pool->max[CHUNK_SMALL] / HALF_MESSAGE_PART &&
        !oldest_goes(st, PARTS_SMALL))
        return NULL;
    return chunk_new(pool, CHUNK_SMALL);
}

static void stream_bad(struct turn_stream *st)
{
    STAT_INC(&st->ts->s->stats, turn_stream_bad);
    turn_stream_close(st);
}

/* Long buffers are few. A stranger's longest message is a request with its credentials, which a
 * chunk holds; what is longer is data, or many peers, of who has an allocation. */
static uint32_t part_big(struct turn_stream *st)
{
    struct turn_streams *t = st->ts->streams;

    if (!turn_find(&st->ts->machine, &st->tuple)) {
        stream_bad(st);
        return 0;
    }
    if (t->big_n == 0 && !oldest_goes(st, PARTS_BIG))
        return 0;
    return t->big_free[--t->big_n] + 1;
}

/* Room for n bytes, those that are there already first. false: closed. */
static bool part_room(struct turn_stream *st, size_t n)
{
    struct turn_streams *t = st->ts->streams;
    struct turn_part *p = &st->part, was = *p;
    struct chunk *chunk = NULL;
    uint32_t big = 0;

    if (n <= p->cap)
        return true;
    if (!p->p && n <= CHUNK_SMALL_BYTES - sizeof(struct chunk)) {
        chunk = part_chunk(st);
    } else {
        ASSERT(n <= FRAME_MAX && !p->big);
        big = part_big(st);
    }
    if (st->state == STREAM_CLOSED)
        return false;
    if (!chunk && !big) {
        STAT_INC(&st->ts->s->stats, chunks_dry);
        turn_stream_close(st);
        return false;
    }
    p->p = chunk ? chunk->data : t->big + (size_t)(big - 1) * FRAME_MAX;
    p->cap = chunk ? chunk->cap : FRAME_MAX;
    p->chunk = chunk;
    p->big = big;
    if (was.n)
        memcpy(p->p, was.p, was.n);
    if (was.p) {
        list_remove(&t->parts[PARTS_SMALL], &p->link);
        room_free(st->ts, was.chunk, was.big);
    } else {
        p->since_ms = st->ts->s->now_ms;
        turn_stream_at(st, p->since_ms + TURN_PART_MS);
    }
    list_append(&t->parts[big ? PARTS_BIG : PARTS_SMALL], &p->link);
    return true;
}

/* ---- units -----------------------------------------------------------------------------------
 */

/* Nothing that we would hear begins so: not worth the wait for its end. All of it tells by its
 * first bytes: the cookie (RFC 8489 §5), or the channel's number. */
static bool is_foreign(const struct turn_stream *st, struct bytes in)
{
    const struct turn_limits *l = &st->ts->machine.config.limits;
    struct cur c = cur_of(in);
    uint16_t first = cur_u16(&c);

    if (c.bad)
        return false;
    if (first >= CHAN_MIN)
        return first > (l->compat_channels ? CHAN_COMPAT_MAX : CHAN_MAX);
    cur_u16(&c);
    uint32_t cookie = cur_u32(&c);

    return !c.bad && cookie != STUN_COOKIE && !l->classic; /* RFC 3489 had none */
}

/* The next unit of what was kept and what came. false: none, or closed. */
static bool unit_next(struct turn_stream *st, struct cur *in, struct bytes *unit)
{
    struct turn_part *p = &st->part;
    size_t need = 0;

    if (!p->p) {
        switch (frame_take(in, FRAME_MAX, unit, &need)) {
        case FRAME_STUN:
        case FRAME_CHANNEL:
            return true;
        case FRAME_MORE:
            break;
        default:
            stream_bad(st);
            return false;
        }
    }
    for (int step = 0; step < 3; step++) { /* to the header, to the end */
        struct cur kept = cur_of(bytes_of(p->p, p->n));

        if (p->p) {
            switch (frame_take(&kept, FRAME_MAX, unit, &need)) {
            case FRAME_STUN:
            case FRAME_CHANNEL:
                return true;
            case FRAME_MORE:
                break;
            default:
                stream_bad(st);
                return false;
            }
        }
        if (in->n == 0 || !part_room(st, need))
            return false;
        struct bytes more = cur_take(in, min_sz(in->n, need - p->n));

        memcpy(p->p + p->n, more.p, more.n);
        p->n += more.n;
        if (is_foreign(st, bytes_of(p->p, p->n))) {
            stream_bad(st);
            return false;
        }
    }
    return false;
}

/* The first byte tells. TLS will hook in here: a handshake over the same bytes, and what it opens
 * goes to turn_stream_feed. */
static bool sniff(struct turn_stream *st, struct bytes in)
{
    struct stats *stats = &st->ts->s->stats;

    switch (stream_kind(in)) {
    case STREAM_MORE:
        return false;
    case STREAM_TURN:
        st->state = STREAM_OPEN;
        return true;
    case STREAM_TLS:
        STAT_INC(stats, turn_stream_tls);
        break;
    case STREAM_OTHER: /* HTTP, PROXY and all else (turn.md §11) */
        STAT_INC(stats, turn_stream_strange);
        break;
    }
    turn_stream_close(st);
    return false;
}

/* What cannot be looked at in this pass; no more is read until it has been. */
static void put_late(struct turn_stream *st, struct bytes in)
{
    if (!turn_stream_keep(st, in))
        return;
    if (!st->is_late) {
        st->is_late = true;
        list_append(&st->ts->streams->late, &st->late_link);
    }
    turn_stream_pause(st);
}

/* Units may be a few bytes long and still cost a datagram each, so that one receive of them could
 * keep everybody else waiting: TURN_UNITS_MAX, then it is the others' turn, and TURN_STREAM_WORK,
 * then that of the shard's other doors. */
void turn_stream_feed(struct turn_stream *st, struct bytes in)
{
    struct turn_streams *t = st->ts->streams;
    struct turn_path path = { .stream = st, .fleeting = true };
    struct cur cur = cur_of(in);
    struct bytes unit;
    int units = 0;

    if (st->state == STREAM_SNIFF && !sniff(st, in))
        return;
    while (st->state == STREAM_OPEN && units++ < TURN_UNITS_MAX && t->work_left > 0 &&
           unit_next(st, &cur, &unit)) {
        /* It must not be taken for old while it is being handled: its memory would go. */
        bool kept = st->part.p != NULL;
        struct turn_part part = st->part;

        if (kept) {
            list_remove(&st->ts->streams->parts[part.big ? PARTS_BIG : PARTS_SMALL],
                        &st->part.link);
            st->part = (struct turn_part){ 0 };
        }
        t->work_left -= unit.p[0] >> 6 ? 1 : TURN_WORK_UNIT;
        turn_on_unit(st->ts, &st->tuple, &path, unit);
        if (kept)
            room_free(st->ts, part.chunk, part.big);
    }
    if (st->state == STREAM_LEAVE)
        (void)turn_stream_keep(st, bytes_of(cur.p, cur.n)); /* or it is closed */
    else if (st->state == STREAM_OPEN && cur.n)
        put_late(st, bytes_of(cur.p, cur.n));
}

void turn_streams_worked(struct turn_shard *ts, int work)
{
    ts->streams->work_left -= work;
}

void turn_stream_late_pass(struct turn_shard *ts)
{
    size_t n = ts->streams->late.count;

    ts->streams->work_left = TURN_STREAM_WORK; /* its own: new ones must not go before for ever */
    while (n-- && ts->streams->late.count && ts->streams->work_left > 0) {
        struct turn_stream *st =
            CONTAINER_OF(list_pop(&ts->streams->late), struct turn_stream, late_link);
        struct chunkq q = st->late;

        st->late = (struct chunkq){ 0 };
        st->is_late = false;
        while (q.first) {
            struct chunk *c = q.first;

            q.first = c->next;
            c->next = NULL;
            /* Behind the first that was not looked at to its end, order is all that matters. */
            if (st->state == STREAM_OPEN && !st->late.bytes)
                turn_stream_feed(st, chunk_bytes(c));
            else if (st->state != STREAM_CLOSED) {
                chunkq_push(&st->late, c);
                continue;
            }
            chunk_free(&ts->s->chunks, c);
        }
        turn_stream_resume(st);
        turn_stream_leave_try(st);
    }
    ts->streams->work_left = TURN_STREAM_WORK; /* of what the next turn receives */
}

/* ---- off the socket --------------------------------------------------------------------------
 */

static void stream_ingest(struct turn_stream *st, struct bytes in)
{
    struct stats *stats = &st->ts->s->stats;

    STAT_ADD(stats, rx_bytes, in.n);
    if (st->state == STREAM_LEAVE)
        (void)turn_stream_keep(st, in); /* or it is closed */
    else if (st->state == STREAM_OPEN && st->late.bytes)
        put_late(st, in);
    else if (st->state != STREAM_CLOSED)
        turn_stream_feed(st, in);
}

void turn_stream_on_recv(struct turn_stream *st, const struct ring_cqe *cqe)
{
    struct turn_shard *ts = st->ts;

    if (!cqe->more) {
        st->recv_armed = false;
        st->ops--;
    }
    if (cqe->has_buf) {
        if (cqe->res > 0)
            stream_ingest(st, bytes_of(cqe->buf, (size_t)cqe->res));
        ring_buf_return(ts->s->ring, cqe->bid);
    }
    if (st->state == STREAM_CLOSED)
        return;
    turn_stream_leave_try(st);
    if (st->state >= STREAM_LEAVE) /* an end of the stream, or an error, comes again there */
        return;
    if (cqe->res == 0) {
        turn_stream_close(st);
    } else if (cqe->res == -ENOBUFS) {
        STAT_INC(&ts->s->stats, rx_nobufs);
        if (!st->recv_armed && !st->dry) {
            st->dry = true;
            list_append(&ts->streams->dry, &st->dry_link);
        }
    } else if (cqe->res < 0 && cqe->res != -ECANCELED && cqe->res != -EINTR &&
               cqe->res != -EAGAIN) {
        turn_stream_close(st);
    } else if (!st->recv_armed && !st->paused) {
        turn_stream_arm_recv(st, false);
    }
}
