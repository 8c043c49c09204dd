/* Egress of one connection: control frames and small answers gather in `ctl` and are sealed ahead
 * of data; sealed records gather in `tx`; one send at a time carries the front of `tx` (two would
 * interleave: io_uring.md §8). */
#include <errno.h>

#include "engine/conn.h"
#include "engine/shard.h"
#include "engine/svc_gossip.h"

void conn_mark_dirty(struct conn *c)
{
    if (c->dirty || c->state == CONN_CLOSED)
        return;
    c->dirty = true;
    list_append(&c->shard->dirty, &c->turn_link);
}

bool conn_write_raw(struct conn *c, struct bytes b)
{
    if (!chunkq_append(&c->tx, &c->shard->chunks, b))
        return false;
    STAT_ADD(&c->shard->stats, tx_queued, b.n);
    conn_mark_dirty(c);
    return true;
}

/* Room for `need` bytes behind what is queued: the tail chunk (bytes behind the part that is lent
 * to the kernel are ours), else a new one. A backlog, or a big record, is worth a large chunk. */
static struct chunk *tx_room(struct conn *c, size_t need)
{
    struct chunk *tail = c->tx.last;

    if (tail && chunk_room(tail) >= need)
        return tail;
    bool small = need <= CHUNK_SMALL_BYTES - sizeof(struct chunk) && c->tx.bytes == 0;

    tail = chunk_new(&c->shard->chunks, small ? CHUNK_SMALL : CHUNK_LARGE);
    if (tail)
        chunkq_push(&c->tx, tail);
    return tail;
}

bool conn_seal(struct conn *c, const struct bytes *parts, size_t n, size_t total)
{
    struct shard *s = c->shard;
    size_t sealed = NOISE_FRAME_HEAD + total + AEAD_TAG;

    ASSERT(total <= RECORD_PLAIN_MAX);
    struct chunk *k = tx_room(c, sealed);

    if (!k) {
        STAT_INC(&s->stats, chunks_dry);
        return false;
    }
    uint8_t *at = chunk_tail(k);

    put_u16(at, (uint16_t)(total + AEAD_TAG));
    aead_seal(s->aead, &c->tx_key, parts, n, at + NOISE_FRAME_HEAD);
    k->len += (uint32_t)sealed;
    c->tx.bytes += sealed;
    STAT_ADD(&s->stats, tx_queued, sealed);
    STAT_INC(&s->stats, tx_records);
    conn_mark_dirty(c);
    return true;
}

void conn_ctl(struct conn *c, struct bytes b)
{
    if (c->state >= CONN_FLUSH)
        return;
    if (c->ctl.bytes + b.n > CTL_MAX && conn_has_room(c)) { /* a burst within one turn */
        if (c->shard->run.sink == c)
            fwd_run_flush(c->shard);
        conn_seal_ctl(c);
        if (c->state == CONN_CLOSED)
            return;
    }
    if (c->ctl.bytes + b.n > CTL_MAX) {
        /* It asks faster than it reads the answers: all of this is small, so it is not our load. */
        STAT_INC(&c->shard->stats, slow_closed);
        conn_close(c, "does not read its answers");
        return;
    }
    if (!chunkq_append(&c->ctl, &c->shard->chunks, b)) {
        STAT_INC(&c->shard->stats, chunks_dry);
        conn_close(c, "no buffer");
        return;
    }
    conn_mark_dirty(c);
}

void conn_seal_ctl(struct conn *c)
{
    struct bytes parts[RECORD_PARTS];

    while (c->ctl.bytes) {
        size_t total = min_sz(c->ctl.bytes, RECORD_BODY);
        size_t n = chunkq_views(&c->ctl, total, parts, RECORD_PARTS);

        total = 0;
        for (size_t i = 0; i < n; i++)
            total += parts[i].n;
        if (!conn_seal(c, parts, n, total)) {
            conn_close(c, "no buffer");
            return;
        }
        chunkq_consume(&c->ctl, &c->shard->chunks, total);
    }
}

static void send_args_fill(struct send_args *a, const struct conn *c)
{
    struct bytes views[SEND_IOV];
    size_t n = chunkq_views(&c->tx, c->tx.bytes, views, SEND_IOV);

    for (size_t i = 0; i < n; i++)
        a->iov[i] = (struct iovec){ (void *)(uintptr_t)views[i].p, views[i].n };
    a->msg = (struct msghdr){ .msg_iov = a->iov, .msg_iovlen = n };
}

static void conn_sent(struct conn *c, int32_t res)
{
    struct shard *s = c->shard;

    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        conn_close(c, "connection lost");
        return;
    }
    if (res > 0) {
        ASSERT((size_t)res <= c->tx.bytes);
        chunkq_consume(&c->tx, &s->chunks, (size_t)res);
        STAT_ADD(&s->stats, tx_bytes, res);
        STAT_ADD(&s->stats, tx_queued, -(int64_t)res);
        c->tx_bytes += (uint64_t)res;
        svc_gossip_room(c);
    }
    if (conn_unsent(c))
        conn_mark_dirty(c);
}

static void conn_send(struct conn *c)
{
    struct shard *s = c->shard;
    struct send_args *a;

    if (c->send_armed || !c->tx.bytes)
        return;
    if (s->lent) { /* by another thread, which cannot submit: what does not fit waits for ours */
        struct send_args now;

        send_args_fill(&now, c);
        conn_sent(c, ring_send_now(c->fd, &now.msg));
        return;
    }
    ASSERT(s->sends_n < SENDS_PER_TURN);
    a = &s->sends[s->sends_n++];
    send_args_fill(a, c);
    c->send_armed = true;
    c->send_ms = s->now_ms;
    list_append(&s->sending, &c->send_link);
    c->ops++;
    ring_sendmsg(s->ring, c->fd, &a->msg, ud_make(OP_SEND, c->head.gen, c->head.idx));
}

void conn_flush(struct conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    /* Without room ctl waits too, or a peer that asks and never reads would make tx grow for ever.
     * It loses no turn by that: no data is sealed ahead of it meanwhile. */
    if (c->ctl.bytes && conn_has_room(c))
        conn_seal_ctl(c);
    if (c->state == CONN_MUX && c->talking.count) {
        stream_talk(c);
        if (c->ctl.bytes && conn_has_room(c))
            conn_seal_ctl(c);
    }
    if (c->state == CONN_MUX)
        fwd_serve(c);
    if (c->state == CONN_CLOSED)
        return;
    if (c->ctl.bytes && conn_has_room(c)) /* FINs behind what was just served */
        conn_seal_ctl(c);
    if (c->state == CONN_CLOSED)
        return;
    conn_send(c);
    if (c->state == CONN_FLUSH && !c->tx.bytes && !c->shut_sent) {
        /* Everything is in the kernel. End our half and read on until theirs ends: closing with
         * unread input would reset the connection under the last words. */
        c->shut_sent = true;
        ring_shutdown(c->fd, SHUT_WR);
    }
}

void conn_on_send(struct conn *c, int32_t res)
{
    ASSERT(c->send_armed);
    c->send_armed = false;
    list_remove(&c->shard->sending, &c->send_link);
    c->ops--;
    if (c->state != CONN_CLOSED)
        conn_sent(c, res);
}
