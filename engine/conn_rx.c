/* Ingress. No receive buffer is held past its loop turn: whole records are opened straight from it
 * into the shard's scratch; an incomplete one is copied into chunks charged to the connection, at
 * most INPUT_MAX bytes (design.md path 2). */
#include "engine/conn.h"

#include "engine/shard.h"

/* Before the record layer input is small: kept bytes and new ones are joined to be contiguous. */
static bool ingest_handshake(struct conn *c, struct bytes *in)
{
    struct shard *s = c->shard;
    struct cur cur;

    if (c->in.bytes) {
        size_t kept = c->in.bytes;

        ASSERT(kept <= HANDSHAKE_INPUT_MAX && in->n <= JOIN_BYTES - kept);
        chunkq_copy(&c->in, s->join, kept);
        chunkq_consume(&c->in, &s->chunks, kept);
        memcpy(s->join + kept, in->p, in->n);
        *in = bytes_of(s->join, kept + in->n);
    }
    cur = cur_of(*in);
    bool records = conn_pre_feed(c, &cur);

    *in = bytes_of(cur.p, cur.n);
    if (!conn_alive(c) || records)
        return conn_alive(c);
    if (in->n > HANDSHAKE_INPUT_MAX || !chunkq_append(&c->in, &s->chunks, *in))
        conn_close(c, "handshake message too long");
    return false;
}

void conn_shake(struct shard *s)
{
    s->noise_n = 0;
    while (s->shaking.count && s->noise_n < TURN_NOISE_MAX) {
        struct conn *c = CONTAINER_OF(list_pop(&s->shaking), struct conn, shake_link);

        c->shaking = false;
        if (c->state == CONN_NOISE)
            conn_ingest(c, bytes_of(s->join, 0));
    }
}

static bool plain_feed(struct conn *c, uint8_t *plain, size_t n)
{
    struct cur cur = { plain, n, false };

    if (c->state == CONN_MSS_MUXER && !secure_muxer_feed(c, &cur))
        return conn_alive(c);
    if (c->state == CONN_MUX)
        mux_feed(c, &cur);
    return conn_alive(c);
}

/* Where a record of n bytes is opened. For another shard: into the chunk that will travel, if all
 * goes as with the record before (fwd_remote finds out). Else behind the run that is being
 * gathered, so that neighbouring small records leave as one without a copy; or at the start, once
 * the run is full. */
static uint8_t *record_room(struct conn *c, size_t n)
{
    struct shard *s = c->shard;

    if (c->across && n >= TRAVEL_MIN && n <= RECORD_PLAIN_MAX && !shard_pool_full(s)) {
        if (!s->travel)
            s->travel = chunk_new(&s->chunks, CHUNK_LARGE);
        if (s->travel) {
            s->travel->len = (uint32_t)n;
            return s->travel->data;
        }
    }
    if (s->run.sink && ((size_t)(s->run.end - s->run.start) + n > RECORD_PLAIN_MAX ||
                        n > (size_t)(s->scratch + SCRATCH_BYTES - s->run.end)))
        fwd_run_flush(s);
    uint8_t *room = s->run.sink ? s->run.end : s->scratch + SCRATCH_SLACK;

    ASSERT(n <= (size_t)(s->scratch + SCRATCH_BYTES - room));
    return room;
}

/* The next whole record of kept and new bytes, opened into scratch. */
enum record { RECORD_NONE, RECORD_OPENED, RECORD_BAD };

static enum record record_next(struct conn *c, struct bytes *in, uint8_t **plain, size_t *plain_n)
{
    struct shard *s = c->shard;
    struct bytes parts[RECORD_PARTS];
    size_t have = c->in.bytes + in->n, kept, from_in, n = 0;
    uint8_t head[NOISE_FRAME_HEAD];

    if (have < sizeof(head))
        return RECORD_NONE;
    kept = chunkq_copy(&c->in, head, sizeof(head));
    memcpy(head + kept, in->p, sizeof(head) - kept);
    size_t body = (size_t)(head[0] << 8 | head[1]);

    if (body < AEAD_TAG)
        return RECORD_BAD;
    if (have < sizeof(head) + body)
        return RECORD_NONE;
    /* Drop the head from wherever it lies, then gather the body. */
    kept = min_sz(c->in.bytes, sizeof(head));
    chunkq_consume(&c->in, &s->chunks, kept);
    in->p += sizeof(head) - kept;
    in->n -= sizeof(head) - kept;
    kept = min_sz(c->in.bytes, body);
    from_in = body - kept;
    n = chunkq_views(&c->in, kept, parts, RECORD_PARTS - 1);
    parts[n++] = bytes_of(in->p, from_in);
    *plain = record_room(c, body - AEAD_TAG);
    if (!aead_open(s->aead, &c->rx_key, parts, n, *plain))
        return RECORD_BAD;
    chunkq_consume(&c->in, &s->chunks, kept);
    in->p += from_in;
    in->n -= from_in;
    *plain_n = body - AEAD_TAG;
    STAT_INC(&s->stats, rx_records);
    return RECORD_OPENED;
}

static void half_uncount(struct conn *c)
{
    for (int size = 0; size < CHUNK_SIZES; size++) {
        c->shard->half_chunks[size] -= c->half_chunks[size];
        c->half_chunks[size] = 0;
    }
}

void conn_half_forget(struct conn *c)
{
    if (!c->half)
        return;
    list_remove(&c->shard->halves, &c->half_link);
    half_uncount(c);
    c->half = false;
}

/* By chunks, not bytes: two bytes of a record take a small one, two thousand a large one. */
static void half_count(struct conn *c)
{
    half_uncount(c);
    for (const struct chunk *k = c->in.first; k; k = k->next) { /* INPUT_MAX bounds them */
        c->half_chunks[k->size]++;
        c->shard->half_chunks[k->size]++;
    }
}

/* Asked well below the high mark, or they could hold the pool just there. */
static bool halves_hoard(const struct shard *s)
{
    if (!chunk_past(&s->chunks, POOL_HALVES))
        return false;
    for (int size = 0; size < CHUNK_SIZES; size++)
        if (s->half_chunks[size] > s->chunks.max[size] / HALF_RECORD_PART)
            return true;
    return false;
}

/* The rest of what came: a record that is not whole yet. For it the pool's reserve may be used too,
 * or who sends honestly would be closed for what others hoard; instead those go who have waited
 * longest. */
static void half_keep(struct conn *c, struct bytes in)
{
    struct shard *s = c->shard;

    if (!c->in.bytes)
        conn_half_forget(c);
    if (!in.n)
        return;
    if (!chunkq_append(&c->in, &s->chunks, in)) {
        STAT_INC(&s->stats, chunks_dry);
        conn_close(c, "no buffer for half a record");
        return;
    }
    if (!c->half) {
        list_append(&s->halves, &c->half_link);
        c->half_ms = s->now_ms;
    }
    c->half = true;
    half_count(c);
    for (int i = 0; i < RELIEF_MAX && s->halves.first != &c->half_link && halves_hoard(s); i++)
        conn_relieve_one(s);
}

static void ingest_records(struct conn *c, struct bytes in)
{
    struct shard *s = c->shard;
    uint8_t *plain;
    size_t plain_n;

    for (;;) {
        switch (record_next(c, &in, &plain, &plain_n)) {
        case RECORD_BAD: /* a flipped bit or a forged tag: nothing can be said (libp2p.md §4) */
            STAT_INC(&s->stats, record_errors);
            conn_close(c, "record does not open");
            return;
        case RECORD_NONE:
            half_keep(c, in);
            return;
        case RECORD_OPENED:
            if (!plain_feed(c, plain, plain_n))
                return;
        }
    }
}

void conn_ingest(struct conn *c, struct bytes in)
{
    struct shard *s = c->shard;

    if (c->state < CONN_MSS_MUXER && !ingest_handshake(c, &in))
        return;
    ingest_records(c, in);
    fwd_run_flush(s); /* nothing waits for more to come (libp2p.md §12) */
    if (s->travel)
        chunk_free(&s->chunks, s->travel);
    s->travel = NULL;
}
