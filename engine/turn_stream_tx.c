/* Units to TURN's clients on streams: queued, gathered, one send in flight (io_uring.md §8). */
#include <errno.h>

#include "engine/turn_stream_int.h"

enum {
    SMALL_ROOM = CHUNK_SMALL_BYTES - sizeof(struct chunk),
    LARGE_ROOM = CHUNK_LARGE_BYTES - sizeof(struct chunk)
};

static void mark_dirty(struct turn_stream *st)
{
    if (st->dirty || st->state == STREAM_CLOSED)
        return;
    st->dirty = true;
    list_append(&st->ts->streams->dirty, &st->turn_link);
}

/* All or nothing, or the stream's units would be out of step for ever. */
static bool queue_long(struct chunkq *q, struct chunk_pool *pool, const struct bytes part[3])
{
    struct chunkq fresh = { 0 };

    for (int i = 0; i < 3; i++) {
        if (!chunkq_append(&fresh, pool, part[i])) {
            chunkq_clear(&fresh, pool);
            return false;
        }
    }
    while (fresh.first) {
        struct chunk *c = fresh.first;

        fresh.first = c->next;
        chunkq_push(q, c);
    }
    return true;
}

static bool queue_unit(struct turn_stream *st, const struct bytes part[3], size_t total)
{
    struct chunk_pool *pool = &st->ts->s->chunks;
    struct chunkq *q = &st->tx;

    if (total > LARGE_ROOM)
        return queue_long(q, pool, part);
    if (!q->last || chunk_room(q->last) < total) {
        struct chunk *c = NULL;

        if (total <= SMALL_ROOM && q->bytes == 0) /* a backlog is worth a large one */
            c = chunk_new(pool, CHUNK_SMALL);
        if (!c)
            c = chunk_new(pool, CHUNK_LARGE);
        if (!c && total <= SMALL_ROOM)
            c = chunk_new(pool, CHUNK_SMALL);
        if (!c)
            return false;
        chunkq_push(q, c);
    }
    for (int i = 0; i < 3; i++) /* there is room for it all in the tail */
        if (!chunkq_append(q, pool, part[i]))
            ASSERT(false && "a chunk with room took no bytes");
    return true;
}

static void too_slow(struct turn_stream *st)
{
    if (st->slow)
        return;
    st->slow = true;
    list_append(&st->ts->streams->slow, &st->slow_link);
    STAT_INC(&st->ts->s->stats, slow_closed);
}

bool turn_stream_send(struct turn_stream *st, struct bytes head, struct bytes data, bool is_data)
{
    static const uint8_t zero[3];
    struct shard *s = st->ts->s;
    size_t n = head.n + data.n, total = n + chandata_padding(n);
    const struct bytes part[3] = { head, data, bytes_of(zero, total - n) };
    size_t high = shard_pool_high(s) ? TURN_STREAM_SHORT : TURN_STREAM_HIGH;

    if (st->state > STREAM_OPEN || st->slow)
        return false;
    if (is_data && st->tx.bytes + total > high && st->tx.bytes) {
        STAT_INC(&s->stats, turn_drop_slow);
        return false;
    }
    /* Replies are small, so who has so many of them unread asks without reading. */
    if (!is_data && st->tx.bytes + total > TURN_STREAM_HIGH + TURN_STREAM_REPLIES) {
        too_slow(st);
        return false;
    }
    if (!queue_unit(st, part, total)) {
        STAT_INC(&s->stats, chunks_dry);
        if (is_data)
            STAT_INC(&s->stats, turn_drop_slow);
        else
            too_slow(st); /* it would wait for that answer for ever */
        return false;
    }
    STAT_ADD(&s->stats, tx_queued, total);
    mark_dirty(st);
    if (st->tx.bytes > TURN_STREAM_HIGH)
        turn_stream_pause(st);
    return true;
}

void turn_stream_drop_tx(struct turn_stream *st)
{
    struct shard *s = st->ts->s;

    STAT_ADD(&s->stats, tx_queued, -(int64_t)st->tx.bytes);
    chunkq_clear(&st->tx, &s->chunks);
}

static void stream_send(struct turn_stream *st)
{
    struct turn_streams *t = st->ts->streams;
    struct shard *s = st->ts->s;
    struct bytes views[SEND_IOV];
    struct send_args *a;

    if (st->send_armed || !st->tx.bytes)
        return;
    ASSERT(t->sends_n < SENDS_PER_TURN);
    a = &t->sends[t->sends_n++];
    size_t n = chunkq_views(&st->tx, st->tx.bytes, views, SEND_IOV);

    for (size_t i = 0; i < n; i++)
        a->iov[i] = (struct iovec){ (void *)(uintptr_t)views[i].p, views[i].n };
    a->msg = (struct msghdr){ .msg_iov = a->iov, .msg_iovlen = n };
    st->send_armed = true;
    st->send_ms = s->now_ms;
    list_append(&t->sending, &st->send_link);
    st->ops++;
    ring_sendmsg(s->ring, st->fd, &a->msg, ud_make(OP_TURN_SEND, st->head.gen, st->head.idx));
}

void turn_stream_flush_all(struct turn_shard *ts)
{
    struct turn_streams *t = ts->streams;

    while (t->dirty.count && t->sends_n < SENDS_PER_TURN) {
        struct turn_stream *st = CONTAINER_OF(list_pop(&t->dirty), struct turn_stream, turn_link);

        st->dirty = false;
        stream_send(st);
    }
}

void turn_stream_on_send(struct turn_stream *st, int32_t res)
{
    struct shard *s = st->ts->s;

    ASSERT(st->send_armed);
    st->send_armed = false;
    list_remove(&st->ts->streams->sending, &st->send_link);
    st->ops--;
    if (st->state == STREAM_CLOSED)
        return;
    if (res < 0 && res != -EINTR && res != -EAGAIN && res != -ECANCELED) {
        turn_stream_close(st);
        return;
    }
    if (res > 0) {
        ASSERT((size_t)res <= st->tx.bytes);
        chunkq_consume(&st->tx, &s->chunks, (size_t)res);
        STAT_ADD(&s->stats, tx_bytes, res);
        STAT_ADD(&s->stats, tx_queued, -(int64_t)res);
    }
    if (st->tx.bytes)
        mark_dirty(st);
    turn_stream_resume(st);
    turn_stream_leave_try(st);
}

/* A send that made no progress for so long: who does not read holds what others need to write. */
void turn_stream_relieve(struct turn_shard *ts)
{
    struct link *next = ts->streams->sending.first;

    for (int i = 0; i < RELIEF_MAX && next; i++) {
        struct turn_stream *st = CONTAINER_OF(next, struct turn_stream, send_link);

        if (ts->s->now_ms < st->send_ms + STALLED_SEND_MS)
            return;
        next = next->next; /* closing takes nobody off this list: completions do */
        if (st->state == STREAM_CLOSED)
            continue;
        STAT_INC(&ts->s->stats, slow_closed);
        turn_stream_close(st);
    }
}
