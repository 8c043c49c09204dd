/* What is longer than a small answer, or one of many: shared bytes behind each other, written as
 * the peer's credit and the connection's egress allow. */
#include "engine/rpc.h"
#include "engine/shard.h"
#include "engine/stream.h"

static void say_drop(struct stream *st, struct saying *y)
{
    struct shard *s = st->conn->shard;

    list_remove(&st->out, &y->link);
    st->out_bytes -= y->bytes->n - y->off;
    st->conn->said_bytes -= y->bytes->n - y->off;
    shared_drop(y->bytes);
    slab_free(&s->sayings, y);
    if (!st->out.count)
        rpc_go_on(st->conn);
}

void stream_hush(struct stream *st)
{
    while (st->out.count)
        say_drop(st, CONTAINER_OF(st->out.first, struct saying, link));
    if (st->talking)
        list_remove(&st->conn->talking, &st->talk_link);
    st->talking = false;
}

/* Has it something that may go? */
static bool can_talk(const struct stream *st)
{
    return st->out.count ? st->y.send_credit > 0 : st->out_end;
}

void stream_talk_on(struct stream *st)
{
    if (st->talking || !can_talk(st) || !yamux_attached(&st->y))
        return;
    st->talking = true;
    list_append(&st->conn->talking, &st->talk_link);
    conn_mark_dirty(st->conn);
}

bool stream_say(struct stream *st, struct shared *b)
{
    struct saying *y = slab_new(&st->conn->shard->sayings);

    ASSERT(!st->out_end && b->n > 0);
    if (!y)
        return false;
    y->bytes = b;
    list_append(&st->out, &y->link);
    st->out_bytes += b->n;
    st->conn->said_bytes += b->n;
    stream_talk_on(st);
    return true;
}

void stream_say_end(struct stream *st)
{
    st->out_end = true;
    stream_talk_on(st);
}

/* One Data frame of at most `room` bytes. The connection may be closed by it, and with it st. */
static void say_piece(struct stream *st, size_t room)
{
    struct saying *y = CONTAINER_OF(st->out.first, struct saying, link);
    struct conn *c = st->conn;
    uint8_t frame[YAMUX_HEADER];
    size_t n = min_sz(min_sz(y->bytes->n - y->off, st->y.send_credit), room);
    /* Ours even if the connection closes and st lets go of it. */
    struct shared *b = shared_keep(y->bytes);
    struct bytes piece = bytes_of(b->data + y->off, n);

    yamux_put_data(&st->y, frame, (uint32_t)n, 0);
    y->off += (uint32_t)n;
    st->out_bytes -= n;
    c->said_bytes -= n;
    if (y->off == b->n)
        say_drop(st, y);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
    if (conn_alive(c))
        conn_ctl(c, piece);
    shared_drop(b);
}

void stream_talk(struct conn *c)
{
    struct shard *s = c->shard;

    /* While memory is short a connection with nothing on its way, whom no send would wake again,
     * says one piece all the same. */
    for (size_t left = TALK_BYTES; left && c->talking.count && c->state == CONN_MUX &&
                                   conn_has_room(c) &&
                                   c->ctl.bytes + YAMUX_HEADER + TALK_PIECE <= CTL_MAX &&
                                   (!shard_pool_full(s) || !(c->tx.bytes || c->ctl.bytes));) {
        struct stream *st = CONTAINER_OF(list_pop(&c->talking), struct stream, talk_link);
        size_t before = st->out_bytes;
        uint32_t idx = st->head.idx, gen = st->head.gen;

        st->talking = false;
        if (st->out.count)
            say_piece(st, min_sz(left, TALK_PIECE));
        if (!conn_alive(c) || !slab_find(&s->streams, idx, gen))
            return;
        left -= before - st->out_bytes;
        if (!st->out.count && st->out_end) {
            st->out_end = false; /* said */
            stream_finish(st);
        } else {
            stream_talk_on(st);
        }
    }
}
