/* Path 2, transcrypt (design.md): open once, seal once per byte. A body that may go on at once is
 * sealed straight from the scratch it was opened into, its 12-byte header written over what
 * precedes it; consecutive frames to one connection make one record. What cannot go waits in the
 * leg's queue, bounded by the credit promised to its source. */
#include "engine/circuit.h"
#include "engine/shard.h"

/* ---- credit ------------------------------------------------------------------------------- */

void fwd_credit(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];
    uint64_t drained = atomic_load_explicit(&c->leg[1 - side].drained, memory_order_acquire);
    uint64_t n = drained - leg->granted;

    leg->granted = drained;
    if (n && leg->stream)
        stream_consumed(leg->stream, n);
}

void fwd_drained(struct circuit *c, unsigned side, size_t n)
{
    struct leg *leg = &c->leg[side];
    struct shard *s = c->shard[side];
    uint64_t drained = atomic_load_explicit(&leg->drained, memory_order_relaxed) + n;

    atomic_store_explicit(&leg->drained, drained, memory_order_release);
    if (side == 1)
        STAT_ADD(&s->stats, bytes_src_to_dst, n);
    else
        STAT_ADD(&s->stats, bytes_dst_to_src, n);
    if (c->shard[0] == c->shard[1]) {
        fwd_credit(c, 1 - side);
    } else if (drained - leg->told >= CREDIT_NEWS) {
        leg->told = drained;
        circuit_post(c, 1 - side, CE_CREDIT);
    }
}

/* ---- the run in scratch ------------------------------------------------------------------- */

void fwd_run_flush(struct shard *s)
{
    struct conn *sink = s->run.sink;

    if (!sink)
        return;
    struct bytes part = { s->run.start, (size_t)(s->run.end - s->run.start) };

    s->run.sink = NULL;
    /* Its credit is spent and its bytes are counted: they cannot be taken back. */
    if (!conn_seal(sink, &part, 1, part.n))
        conn_close(sink, "no buffer");
}

static bool in_scratch(const struct shard *s, const uint8_t *p)
{
    return p >= s->scratch + YAMUX_HEADER && p < s->scratch + SCRATCH_BYTES;
}

/* May this leg's next bytes be sealed right now? Not past others that wait for room: the room that
 * a send leaves would go to whoever is read next, and never to them (libp2p.md §20.4). */
static bool leg_direct(const struct leg *leg)
{
    return leg->ready && !leg->rst_due && !leg->q.bytes && leg->stream->y.send_credit &&
           leg->stream->conn->state == CONN_MUX && !leg->stream->conn->runnable.count &&
           conn_has_room(leg->stream->conn);
}

/* k bytes at p, behind a header written in place. false: the sink died of it. */
static bool run_add(struct shard *s, struct leg *leg, const uint8_t *p, size_t k)
{
    struct stream *st = leg->stream;
    struct conn *sink = st->conn;
    uint8_t *head = s->scratch + (p - s->scratch) - YAMUX_HEADER;

    if (s->run.sink &&
        (s->run.sink != sink || s->run.end != head ||
         (size_t)(s->run.end - s->run.start) + YAMUX_HEADER + k > RECORD_PLAIN_MAX)) {
        fwd_run_flush(s);
        if (leg->done)
            return false;
    }
    if (!s->run.sink) {
        if (sink->ctl.bytes) { /* HOP OK, ACK and the like go first */
            conn_seal_ctl(sink);
            if (leg->done)
                return false;
        }
        s->run.sink = sink;
        s->run.start = head;
    }
    yamux_put_data(&st->y, head, (uint32_t)k, 0);
    s->run.end = head + YAMUX_HEADER + k;
    return true;
}

static void fwd_local(struct circuit *c, unsigned to, struct bytes data)
{
    struct leg *leg = &c->leg[to];
    struct shard *s = c->shard[to];

    while (data.n && !leg->done) {
        if (!in_scratch(s, data.p) || !leg_direct(leg)) {
            if (!chunkq_append(&leg->q, &s->chunks, data)) {
                circuit_abort(c, 1 - to, END_NOMEM);
                return;
            }
            fwd_leg_wake(c, to);
            return;
        }
        size_t k = min_sz(min_sz(data.n, RECORD_BODY), leg->stream->y.send_credit);

        if (!run_add(s, leg, data.p, k))
            return;
        data.p += k;
        data.n -= k;
        fwd_drained(c, to, k);
    }
}

/* ---- across shards ------------------------------------------------------------------------ */

static void inbox_push(struct leg *to, struct chunk *k)
{
    struct chunk *head = atomic_load_explicit(&to->inbox, memory_order_relaxed);

    do {
        k->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&to->inbox, &head, k, memory_order_release,
                                                    memory_order_relaxed));
}

void fwd_stage_push(struct leg *from)
{
    struct circuit *c = from->circuit;

    if (!from->staged)
        return;
    list_remove(&c->shard[from->side]->staged, &from->stage_link);
    from->staged = false;
    if (from->stage)
        inbox_push(&c->leg[1 - from->side], from->stage);
    from->stage = NULL;
    circuit_post(c, 1 - from->side, CE_DATA);
}

void fwd_stage_flush(struct shard *s)
{
    while (s->staged.first)
        fwd_stage_push(CONTAINER_OF(s->staged.first, struct leg, stage_link));
}

/* A chunk for another shard holds as much as one record takes, behind room for its header: so the
 * other side can write that in front and seal from where the bytes lie. */
static size_t stage_room(const struct chunk *k)
{
    return min_sz(chunk_room(k), k->len < RECORD_BODY ? RECORD_BODY - k->len : 0);
}

static struct chunk *stage_new(struct shard *s, size_t n)
{
    bool small = n <= CHUNK_SMALL_BYTES - sizeof(struct chunk) - YAMUX_HEADER;
    struct chunk *k = chunk_new(&s->chunks, small ? CHUNK_SMALL : CHUNK_LARGE);

    if (k)
        k->off = YAMUX_HEADER;
    return k;
}

static void stage_send(struct leg *from)
{
    inbox_push(&from->circuit->leg[1 - from->side], from->stage);
    from->stage = NULL;
}

/* The bytes lie already in a chunk that may travel, and nothing else of their record does. */
static struct chunk *travel_take(struct shard *s, struct bytes data)
{
    struct chunk *k = s->travel;

    if (!k || data.p < k->data || data.p > k->data + YAMUX_HEADER ||
        data.p + data.n != k->data + k->len)
        return NULL;
    k->off = (uint32_t)(data.p - k->data);
    k->len = (uint32_t)data.n;
    s->travel = NULL;
    return k;
}

/* What one turn brings for the other shard gathers in a chunk, so that one-byte frames do not take
 * a chunk each; it is pushed when full and at the end of the turn's completions. */
static void fwd_remote(struct circuit *c, unsigned side, struct bytes data)
{
    struct leg *from = &c->leg[side];
    struct shard *s = c->shard[side];
    struct chunk *whole = travel_take(s, data);

    s->across_bytes += data.n;
    if (!from->staged) {
        from->staged = true;
        list_append(&s->staged, &from->stage_link);
    }
    if (whole) {
        if (from->stage)
            stage_send(from);
        from->stage = whole;
        return;
    }
    while (data.n) {
        if (!from->stage)
            from->stage = stage_new(s, data.n);
        if (!from->stage) {
            circuit_abort(c, side, END_NOMEM);
            return;
        }
        size_t k = min_sz(data.n, stage_room(from->stage));

        memcpy(chunk_tail(from->stage), data.p, k);
        from->stage->len += (uint32_t)k;
        data.p += k;
        data.n -= k;
        if (!stage_room(from->stage))
            stage_send(from);
    }
}

void fwd_inbox_take(struct circuit *c, unsigned side)
{
    enum { MERGE_MAX = 1024 }; /* copying less than this is cheaper than holding a chunk for it */
    /* And a chunk that is not half full is merged too, or small pieces to a sink that does not read
     * would hold many times the memory that their credit stands for. */
    struct leg *leg = &c->leg[side];
    struct chunk_pool *mine = &c->shard[side]->chunks;
    struct chunk *k = atomic_exchange_explicit(&leg->inbox, NULL, memory_order_acquire);
    struct chunk *oldest = NULL;

    while (k) { /* newest first: turn it round */
        struct chunk *next = k->next;

        k->next = oldest;
        oldest = k;
        k = next;
    }
    while (oldest) {
        struct chunk *next = oldest->next, *tail = leg->q.last;

        oldest->next = NULL;
        if (leg->done) {
            chunk_free(mine, oldest);
        } else if (tail && (oldest->len <= MERGE_MAX || oldest->len < oldest->cap / 2) &&
                   chunk_room(tail) >= oldest->len) {
            memcpy(chunk_tail(tail), oldest->data + oldest->off, oldest->len);
            tail->len += oldest->len;
            leg->q.bytes += oldest->len;
            chunk_free(mine, oldest);
        } else {
            chunkq_push(&leg->q, oldest);
        }
        oldest = next;
    }
}

void fwd_early_push(struct circuit *c)
{
    struct leg *to = &c->leg[1];
    bool any = c->early.first != NULL;
    struct chunk *k;

    while ((k = c->early.first)) {
        c->early.first = k->next;
        inbox_push(to, k);
    }
    c->early = (struct chunkq){ 0 };
    if (c->shard[0] == c->shard[1]) {
        /* At once: what comes next on this shard is not staged and would overtake mail. */
        fwd_inbox_take(c, 1);
        fwd_leg_wake(c, 1);
    } else if (any) {
        circuit_post(c, 1, CE_DATA);
    }
    if (c->early_fin)
        circuit_leg_fin(c, 0);
}

/* ---- in ------------------------------------------------------------------------------------ */

/* How much of n bytes from `side` the byte limit lets pass: exactly up to N (libp2p.md §11.4). */
static size_t limit_allows(struct circuit *c, unsigned side, size_t n)
{
    uint64_t max = c->limit.data_bytes, before;

    if (!c->limit.present || !max)
        return n;
    before = c->leg[side].taken;
    if (c->shard[side]->d->cfg->byte_count == COUNT_SUM)
        before = atomic_fetch_add_explicit(&c->taken_sum, n, memory_order_relaxed);
    return before >= max ? 0 : (size_t)min_u64(n, max - before);
}

/* Both legs take nothing more in, tell each other behind the last byte, deliver what is queued,
 * exactly N bytes in all, and then reset. */
void fwd_limit_reached(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];

    if (leg->deaf)
        return;
    leg->deaf = true;
    fwd_stage_push(leg);
    circuit_post(c, 1 - side, CE_LIMIT);
}

/* The pool is full, and a good part of a window lies here: it is this circuit that goes, and not
 * one that merely passes a few bytes on at the wrong moment. */
static bool hoards(const struct circuit *c, unsigned side)
{
    return shard_pool_full(c->shard[side]) &&
           c->leg[side].taken -
                   atomic_load_explicit(&c->leg[1 - side].drained, memory_order_relaxed) >
               CREDIT_NEWS;
}

void fwd_data(struct circuit *c, unsigned side, struct bytes data)
{
    struct leg *leg = &c->leg[side];
    struct shard *s = c->shard[side];
    size_t n;
    bool over;

    if (leg->deaf)
        return;
    n = limit_allows(c, side, data.n);
    over = n < data.n;
    data.n = n;
    leg->taken += n;
    if (hoards(c, side)) {
        circuit_abort(c, side, END_NOMEM);
        return;
    }
    if (side == 0 && c->state == CIRCUIT_OPENING) {
        if (over || !chunkq_append(&c->early, &s->chunks, data))
            circuit_abort(c, 0, over ? END_LIMIT_BYTES : END_NOMEM);
        return;
    }
    leg->stream->conn->across = c->shard[0] != c->shard[1];
    if (c->shard[0] == c->shard[1])
        fwd_local(c, 1 - side, data);
    else
        fwd_remote(c, side, data);
    if (!over || leg->done)
        return;
    circuit_end_once(c, END_LIMIT_BYTES);
    fwd_limit_reached(c, side);
}

/* ---- out: legs of one connection, round robin ---------------------------------------------- */

void fwd_leg_wake(struct circuit *c, unsigned side)
{
    struct leg *leg = &c->leg[side];

    if (leg->done || leg->runnable || !leg->ready || !leg->q.bytes || !leg->stream->y.send_credit)
        return;
    leg->runnable = true;
    list_append(&leg->stream->conn->runnable, &leg->run_link);
    conn_mark_dirty(leg->stream->conn);
}

struct served {
    struct leg *leg;
    size_t n;
};

enum { SERVE_LEGS = 16 };

struct batch {
    uint8_t head[SERVE_LEGS][YAMUX_HEADER];
    struct served served[SERVE_LEGS];
    struct bytes parts[RECORD_PARTS];
    size_t legs, parts_n, total;
};

/* A record that holds this much is full enough: what lies in one piece is sealed from there, and a
 * few bytes more would cost a copy of it all. */
enum { RECORD_ENOUGH = RECORD_BODY / 4 * 3 };

/* One leg's share of the record: up to what is left of it, which is also the quantum. */
static void batch_add(struct batch *b, struct leg *leg)
{
    size_t room = RECORD_PLAIN_MAX - b->total - YAMUX_HEADER;
    size_t k = min_sz(min_sz(leg->q.bytes, leg->stream->y.send_credit), min_sz(room, RECORD_BODY));
    struct chunk *first = leg->q.first;
    struct bytes *part = &b->parts[b->parts_n];
    bool in_front =
        first->len && first->off >= YAMUX_HEADER; /* then header and body are one part */

    if (in_front && first->len >= RECORD_ENOUGH)
        k = min_sz(k, first->len);
    size_t views = chunkq_views(&leg->q, k, part + !in_front, RECORD_PARTS - 1 - b->parts_n);

    k = 0;
    for (size_t i = 0; i < views; i++)
        k += part[!in_front + i].n;
    uint8_t *head = in_front ? chunk_head(first) - YAMUX_HEADER : b->head[b->legs];

    yamux_put_data(&leg->stream->y, head, (uint32_t)k, 0);
    *part = bytes_of(head, YAMUX_HEADER + (in_front ? part->n : 0));
    b->parts_n += views + !in_front;
    b->served[b->legs++] = (struct served){ leg, k };
    b->total += YAMUX_HEADER + k;
}

static bool batch_full(const struct batch *b)
{
    return b->legs == SERVE_LEGS || b->parts_n + 8 > RECORD_PARTS || b->total >= RECORD_ENOUGH;
}

void fwd_serve(struct conn *conn)
{
    while (conn->runnable.count && conn->state == CONN_MUX && conn_has_room(conn)) {
        struct batch b;

        b.legs = b.parts_n = b.total = 0;
        while (conn->runnable.count && !batch_full(&b)) {
            struct leg *leg = CONTAINER_OF(list_pop(&conn->runnable), struct leg, run_link);

            leg->runnable = false;
            batch_add(&b, leg);
        }
        if (!conn_seal(conn, b.parts, b.parts_n, b.total)) {
            conn_close(conn, "no buffer");
            return;
        }
        for (size_t i = 0; i < b.legs; i++) {
            struct leg *leg = b.served[i].leg;
            struct circuit *c = leg->circuit;

            if (leg->done) /* what was said on behalf of one before it closed this connection */
                continue;
            chunkq_consume(&leg->q, &conn->shard->chunks, b.served[i].n);
            fwd_drained(c, leg->side, b.served[i].n);
            fwd_leg_wake(c, leg->side);
            circuit_leg_settle(c, leg->side);
        }
    }
}
