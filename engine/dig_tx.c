/* What goes to DIG clients: a queue of chunks and of parts of shared buffers, one send in flight
 * (io_uring.md §8); over TLS plaintext waits in that queue and is sealed as the socket takes it. */
#include <errno.h>

#include "engine/dig_int.h"

enum {
    SMALL_ROOM = CHUNK_SMALL_BYTES - sizeof(struct chunk),
    SEAL_PARTS = 16,
};

static void mark_dirty(struct dig_conn *c)
{
    if (c->dirty || c->state == DIG_CLOSED)
        return;
    c->dirty = true;
    list_append(&c->ds->dirty, &c->turn_link);
}

/* ---- the queue ---------------------------------------------------------------------------------
 */

static void queue_push(struct dig_queue *q, struct dig_out *o)
{
    if (q->last)
        q->last->next = o;
    else
        q->first = o;
    q->last = o;
}

static struct dig_out *out_new(struct dig_conn *c)
{
    struct dig_out *o = slab_new(&c->ds->outs);

    if (!o)
        STAT_INC(&c->ds->s->stats, chunks_dry);
    return o;
}

static void gate_return(struct dig_conn *c, struct dig_out *o)
{
    struct dig_gate *g = dig_gate_of(c->ds->host, dig_home_of(c));

    if (o->gated)
        atomic_fetch_sub_explicit(&g->bytes, o->gated, memory_order_relaxed);
    if (o->gated_messages)
        atomic_fetch_sub_explicit(&g->messages, o->gated_messages, memory_order_relaxed);
    if (o->gated && atomic_load_explicit(&g->stalled, memory_order_relaxed))
        atomic_store_explicit(&g->stalled, false, memory_order_relaxed);
}

static void out_free(struct dig_conn *c, struct dig_out *o)
{
    gate_return(c, o);
    if (o->chunk)
        chunk_free(&c->ds->s->chunks, o->chunk);
    shared_drop(o->shared);
    slab_free(&c->ds->outs, o);
}

static struct bytes out_bytes(const struct dig_out *o)
{
    return o->chunk ? chunk_bytes(o->chunk) : bytes_of(o->shared->data + o->off, o->n);
}

static void queue_consume(struct dig_conn *c, size_t n)
{
    struct dig_queue *q = &c->tx;

    ASSERT(n <= q->bytes);
    q->bytes -= n;
    STAT_ADD(&c->ds->s->stats, tx_queued, -(int64_t)n);
    while (q->first) {
        struct dig_out *o = q->first;
        size_t part = min_sz(n, out_bytes(o).n);

        if (o->chunk) {
            o->chunk->off += (uint32_t)part;
            o->chunk->len -= (uint32_t)part;
        } else {
            o->off += (uint32_t)part;
            o->n -= (uint32_t)part;
        }
        n -= part;
        if (out_bytes(o).n)
            break;
        q->first = o->next;
        if (!q->first)
            q->last = NULL;
        out_free(c, o);
    }
    ASSERT(n == 0);
}

void dig_tx_drop(struct dig_conn *c)
{
    while (c->tx.first) {
        struct dig_out *o = c->tx.first;

        c->tx.first = o->next;
        out_free(c, o);
    }
    c->tx.last = NULL;
    STAT_ADD(&c->ds->s->stats, tx_queued, -(int64_t)c->tx.bytes);
    c->tx.bytes = 0;
    chunkq_clear(&c->wire, &c->ds->s->chunks);
}

static void queued(struct dig_conn *c, size_t n)
{
    c->tx.bytes += n;
    STAT_ADD(&c->ds->s->stats, tx_queued, n);
    mark_dirty(c);
}

static void gate_note(struct dig_out *o, uint32_t gated)
{
    o->gated += gated;
    o->gated_messages += gated != 0;
}

static void chunk_put(struct chunk *k, const struct bytes *parts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ASSERT(parts[i].n <= chunk_room(k));
        if (parts[i].n)
            memcpy(chunk_tail(k), parts[i].p, parts[i].n);
        k->len += (uint32_t)parts[i].n;
    }
}

/* All of it in one chunk: the last one, if there is room, else a new one: small for little, large
 * for much or behind a backlog. */
static bool queue_short(struct dig_conn *c, const struct bytes *parts, size_t n, size_t total,
                        uint32_t gated)
{
    struct chunk_pool *pool = &c->ds->s->chunks;
    struct dig_out *o = c->tx.last;

    if (!o || !o->chunk || chunk_room(o->chunk) < total) {
        bool small = total <= SMALL_ROOM;
        struct chunk *k = small && !c->tx.bytes ? chunk_new(pool, CHUNK_SMALL) : NULL;

        k = k ? k : chunk_new(pool, CHUNK_LARGE);
        if (!k && small)
            k = chunk_new(pool, CHUNK_SMALL);
        o = k ? out_new(c) : NULL;
        if (!o) {
            if (k)
                chunk_free(pool, k);
            return false;
        }
        o->chunk = k;
        queue_push(&c->tx, o);
    }
    chunk_put(o->chunk, parts, n);
    gate_note(o, gated);
    queued(c, total);
    return true;
}

/* Takes a list of chunks, an entry each, all or nothing: half a frame would put the stream out of
 * step for ever. The first entry bears the gate's charge until it is sent. */
static bool queue_list(struct dig_conn *c, struct chunk *first, uint32_t gated)
{
    struct dig_out *fresh = NULL, **tail = &fresh;
    size_t total = 0;

    for (struct chunk *k = first; k; k = k->next) {
        struct dig_out *o = out_new(c);

        if (!o) {
            while ((o = fresh)) {
                fresh = o->next;
                slab_free(&c->ds->outs, o);
            }
            chunk_free_list(&c->ds->s->chunks, first);
            return false;
        }
        o->chunk = k;
        *tail = o;
        tail = &o->next;
        total += k->len;
    }
    while (fresh) {
        struct dig_out *o = fresh;

        fresh = o->next;
        o->next = NULL;
        o->chunk->next = NULL;
        queue_push(&c->tx, o);
        if (!fresh) /* given back with the last of it */
            gate_note(o, gated);
    }
    queued(c, total);
    return true;
}

bool dig_queue_bytes(struct dig_conn *c, const struct bytes *parts, size_t n, size_t total,
                     uint32_t gated)
{
    struct chunk_pool *pool = &c->ds->s->chunks;
    struct chunkq fresh = { 0 };

    if (total <= CHUNK_LARGE_BYTES - sizeof(struct chunk))
        return queue_short(c, parts, n, total, gated);
    for (size_t i = 0; i < n; i++) {
        if (!chunkq_append(&fresh, pool, parts[i])) {
            chunkq_clear(&fresh, pool);
            STAT_INC(&c->ds->s->stats, chunks_dry);
            return false;
        }
    }
    return queue_list(c, fresh.first, gated);
}

bool dig_queue_chunks(struct dig_conn *c, struct chunk *first, uint32_t gated)
{
    return queue_list(c, first, gated);
}

/* ---- replies -----------------------------------------------------------------------------------
 */

bool dig_send(struct dig_conn *c, const struct bytes *parts, size_t n)
{
    size_t total = 0;

    if (c->state >= DIG_FLUSH)
        return false;
    for (size_t i = 0; i < n; i++)
        total += parts[i].n;
    if (!dig_queue_bytes(c, parts, n, total, 0)) {
        dig_close(c, "no memory for its replies");
        return false;
    }
    if (dig_owed(c) > DIG_CONTROL_ROOM) /* asks and does not read: heard again when it has */
        dig_pause(c);
    return true;
}

bool dig_send_text(struct dig_conn *c, struct bytes json)
{
    uint8_t head[WS_HEAD_MAX];
    const struct bytes parts[2] = { bytes_of(head, ws_head_encode(head, WS_OP_TEXT, json.n)),
                                    json };

    return dig_send(c, parts, 2);
}

bool dig_send_shared(struct dig_conn *c, struct shared *sh, uint32_t off, uint32_t n,
                     uint32_t gated)
{
    struct dig_out *o = n && c->state < DIG_FLUSH ? out_new(c) : NULL;

    if (!o)
        return false;
    o->shared = shared_keep(sh);
    o->off = off;
    o->n = n;
    gate_note(o, gated);
    queue_push(&c->tx, o);
    queued(c, n);
    return true;
}

/* ---- TLS ---------------------------------------------------------------------------------------
 */

bool dig_tls_out(void *arg, struct bytes ciphertext)
{
    struct dig_conn *c = arg;

    if (!chunkq_append(&c->wire, &c->ds->s->chunks, ciphertext))
        return false;
    mark_dirty(c);
    return true;
}

/* Plaintext becomes ciphertext only as fast as the socket takes it: shared buffers stay shared. */
static bool seal(struct dig_conn *c)
{
    struct bytes parts[SEAL_PARTS];

    while (c->tx.bytes && c->wire.bytes < DIG_WIRE_HIGH) {
        size_t n = 0, total = 0;

        for (struct dig_out *o = c->tx.first; o && n < SEAL_PARTS && total < DIG_WIRE_HIGH;
             o = o->next) {
            parts[n] = out_bytes(o);
            parts[n].n = min_sz(parts[n].n, DIG_WIRE_HIGH - total);
            total += parts[n++].n;
        }
        if (!tls_writev(c->tls, parts, n)) {
            dig_close(c, "TLS: nothing can be sealed");
            return false;
        }
        queue_consume(c, total);
    }
    return true;
}

/* ---- onto the socket ---------------------------------------------------------------------------
 */

static size_t gather_plain(const struct dig_conn *c, struct iovec *iov)
{
    size_t n = 0;

    for (struct dig_out *o = c->tx.first; o && n < SEND_IOV; o = o->next) {
        struct bytes b = out_bytes(o);

        iov[n++] = (struct iovec){ (void *)(uintptr_t)b.p, b.n };
    }
    return n;
}

static size_t gather_wire(const struct dig_conn *c, struct iovec *iov)
{
    struct bytes views[SEND_IOV];
    size_t n = chunkq_views(&c->wire, c->wire.bytes, views, SEND_IOV);

    for (size_t i = 0; i < n; i++)
        iov[i] = (struct iovec){ (void *)(uintptr_t)views[i].p, views[i].n };
    return n;
}

static void conn_send(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;
    struct send_args *a;

    if (c->tls && tls_established(c->tls) && !seal(c))
        return;
    if (c->send_armed || !(c->tls ? c->wire.bytes : c->tx.bytes))
        return;
    ASSERT(ds->sends_n < SENDS_PER_TURN);
    a = &ds->sends[ds->sends_n++];
    size_t n = c->tls ? gather_wire(c, a->iov) : gather_plain(c, a->iov);

    a->msg = (struct msghdr){ .msg_iov = a->iov, .msg_iovlen = n };
    c->send_armed = true;
    c->send_ms = ds->s->now_ms;
    ds->s->sent = true;
    list_append(&ds->sending, &c->send_link);
    c->ops++;
    ring_sendmsg(ds->s->ring, c->fd, &a->msg, ud_make(OP_DIG_SEND, c->head.gen, c->head.idx));
}

void dig_flush_all(struct dig_shard *ds)
{
    size_t n = ds->dirty.count;

    while (n-- && ds->dirty.count && ds->sends_n < SENDS_PER_TURN) {
        struct dig_conn *c = CONTAINER_OF(list_pop(&ds->dirty), struct dig_conn, turn_link);

        c->dirty = false;
        conn_send(c);
        if (c->state == DIG_FLUSH && !dig_unsent(c))
            dig_finish(c);
    }
}

void dig_on_send(struct dig_conn *c, int32_t res)
{
    struct shard *s = c->ds->s;

    ASSERT(c->send_armed);
    c->send_armed = false;
    list_remove(&c->ds->sending, &c->send_link);
    c->ops--;
    if (c->state == DIG_CLOSED)
        return;
    if (res < 0 && res != -EINTR && res != -EAGAIN && res != -ECANCELED) {
        /* Reset: what it said before is heard to its end, which its receive tells. Of any other
         * error only the end makes sure that no frame follows half a frame. */
        if (c->state == DIG_WS && (res == -EPIPE || res == -ECONNRESET))
            dig_tx_drop(c);
        else
            dig_close(c, "closed by peer");
        dig_resume(c);
        return;
    }
    if (res > 0) {
        STAT_ADD(&s->stats, tx_bytes, res);
        if (c->tls)
            chunkq_consume(&c->wire, &s->chunks, (size_t)res);
        else
            queue_consume(c, (size_t)res);
    }
    if (dig_unsent(c) || c->state == DIG_FLUSH)
        mark_dirty(c);
    dig_resume(c);
}

/* A send that made no progress for so long: who does not read holds what others need. */
void dig_relieve(struct dig_shard *ds)
{
    struct link *next = ds->sending.first;

    for (int i = 0; i < RELIEF_MAX && next; i++) {
        struct dig_conn *c = CONTAINER_OF(next, struct dig_conn, send_link);

        if (ds->s->now_ms < c->send_ms + STALLED_SEND_MS)
            return;
        next = next->next; /* closing takes nobody off this list: completions do */
        if (c->state == DIG_CLOSED)
            continue;
        STAT_INC(&ds->s->stats, slow_closed);
        dig_close(c, "does not read, and memory is short");
    }
}
