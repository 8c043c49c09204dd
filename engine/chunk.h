/* engine/chunk.h: payload that cannot go on at once, in two sizes, from one pool per shard. A chunk
 * is freed only into its home pool: another shard gives it back through a lock-free return list
 * that the home drains when it looks (design.md "Between shards"). Bounded per shard; full is a
 * state. */
#ifndef SLUICE_ENGINE_CHUNK_H
#define SLUICE_ENGINE_CHUNK_H

#include <stdalign.h>
#include <stdatomic.h>

#include "proto/base.h"

enum chunk_size { CHUNK_SMALL, CHUNK_LARGE, CHUNK_SIZES };
enum {
    CHUNK_SMALL_BYTES = 2048,        /* whole chunk, header included */
    CHUNK_LARGE_BYTES = 16384 + 256, /* a full record: 2 + 12 + 16384 + 16, and the header */
};

struct chunk_pool;

struct chunk {
    struct chunk *next;
    struct chunk_pool *home; /* keeps */
    uint32_t cap;            /* of data[] */
    uint32_t off, len;       /* the filled part: data + off, len bytes */
    uint8_t size;            /* enum chunk_size */
    uint8_t data[];
};

struct chunk_pool {
    uint8_t *base[CHUNK_SIZES];
    uint32_t max[CHUNK_SIZES], fresh[CHUNK_SIZES];
    struct chunk *free[CHUNK_SIZES];
    uint32_t used[CHUNK_SIZES],
        peak[CHUNK_SIZES];            /* leased out, returns not yet drained included */
    _Atomic(struct chunk *) returned; /* pushed by other shards */
};

MUST_USE int chunk_pool_init(struct chunk_pool *p, uint32_t small_max, uint32_t large_max);
void chunk_pool_fini(struct chunk_pool *p);
/* Owner thread only. NULL when the pool is dry (after draining the return list). off = len = 0. */
struct chunk *chunk_new(struct chunk_pool *p, enum chunk_size size);
/* From any shard's thread: `mine` is the caller's pool; a foreign chunk goes onto its home's list.
 */
void chunk_free(struct chunk_pool *mine, struct chunk *c);
void chunk_free_list(struct chunk_pool *mine, struct chunk *first);
void chunk_drain(struct chunk_pool *p); /* owner: take the return list in */
/* Bytes leased out, for the high mark and metrics. */
size_t chunk_bytes_used(const struct chunk_pool *p);
size_t chunk_bytes_max(const struct chunk_pool *p);

/* Is more than so many sixteenths of either size leased out? A pool whose large chunks have gone
 * seals no record, however many small ones are left. */
static inline bool chunk_past(const struct chunk_pool *p, unsigned sixteenths)
{
    for (int size = 0; size < CHUNK_SIZES; size++)
        if ((uint64_t)p->used[size] * 16 > (uint64_t)p->max[size] * sixteenths)
            return true;
    return false;
}

static inline size_t chunk_room(const struct chunk *c)
{
    return c->cap - c->off - c->len;
}
static inline uint8_t *chunk_tail(struct chunk *c)
{
    return c->data + c->off + c->len;
}
static inline uint8_t *chunk_head(struct chunk *c)
{
    return c->data + c->off;
}
static inline struct bytes chunk_bytes(const struct chunk *c)
{
    return bytes_of(c->data + c->off, c->len);
}

/* A FIFO of bytes made of chunks. */
struct chunkq {
    struct chunk *first, *last;
    size_t bytes;
};
/* Copies `in` behind the tail, taking chunks from `p` as needed (large ones when more than a small
 * one's worth is left). false: the pool is dry, and nothing was appended. */
MUST_USE bool chunkq_append(struct chunkq *q, struct chunk_pool *p, struct bytes in);
void chunkq_push(struct chunkq *q, struct chunk *c);                      /* takes c */
void chunkq_consume(struct chunkq *q, struct chunk_pool *mine, size_t n); /* frees what is empty */
/* Up to `max` views of the first `limit` bytes; returns how many views. */
size_t chunkq_views(const struct chunkq *q, size_t limit, struct bytes *views, size_t max);
size_t chunkq_copy(const struct chunkq *q, uint8_t *to,
                   size_t n); /* a peek; returns bytes copied */
void chunkq_clear(struct chunkq *q, struct chunk_pool *mine);

#endif
