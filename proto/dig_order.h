/* proto/dig_order.h: sorted sets of small numbers over one fixed pool: the members of a network by
 * id, the networks by name, the registrants of a network by age. A skip list of chunks, so that
 * finding a place touches few cache lines and walking the whole set is a walk over arrays: a list
 * of 1000 peers in the order of their ids must not cost a sort (dig.md §21, "Unbounded peers").
 * Pure.
 * Shapes: items are indices that the owner gives meaning to by struct dig_order_by; an item's key
 *         must not change while it is in a set. The pool keeps its memory and serves many sets; a
 *         zeroed struct dig_order is an empty one.
 * Bounds: no chunk is empty, and two neighbours hold more than half a chunk together, so n items in
 *         s sets need at most s + 4 * n / DIG_ORDER_CHUNK chunks, and never more than n. */
#ifndef SLUICE_PROTO_DIG_ORDER_H
#define SLUICE_PROTO_DIG_ORDER_H

#include "proto/base.h"

enum { DIG_ORDER_CHUNK = 51, DIG_ORDER_LEVELS = 8 };

/* How items compare: by prefix, then, if `whole` is given, by its bytes, the shorter first. Where
 * `whole` is given, prefix must agree with it: dig_order_prefix() of the same bytes. */
struct dig_order_by {
    uint64_t (*prefix)(const void *arg, uint32_t item);
    struct bytes (*whole)(const void *arg, uint32_t item); /* may be NULL: prefixes differ */
    const void *arg;
};
struct dig_order_key {
    uint64_t prefix;
    struct bytes whole;
};
uint64_t dig_order_prefix(struct bytes whole); /* the first 8 bytes, big-endian, zeroes behind */

struct dig_order_chunk {
    uint64_t low;  /* prefix of item[0] */
    uint32_t prev; /* chunk + 1; 0: none. Also the free list */
    uint32_t height, n;
    uint32_t next[DIG_ORDER_LEVELS]; /* chunk + 1 */
    uint32_t item[DIG_ORDER_CHUNK];
};
static_assert(sizeof(struct dig_order_chunk) == 256, "whole cache lines");
struct dig_order_pool {
    struct dig_order_chunk *chunk; /* keeps */
    uint32_t max, fresh, free, used;
    uint64_t dice; /* heights; no peer sees them */
};
struct dig_order {
    uint32_t next[DIG_ORDER_LEVELS];
    uint32_t last;
    uint32_t count;
};

/* For that many chunks. */
static inline size_t dig_order_pool_bytes(uint32_t chunks)
{
    return (size_t)chunks * sizeof(struct dig_order_chunk);
}
/* Keeps `mem`, dig_order_pool_bytes(chunks), aligned as malloc does; need not be zeroed. */
void dig_order_pool_init(struct dig_order_pool *p, void *mem, uint32_t chunks, uint64_t dice);

/* ASSERTs that the item is not there, that there is a chunk to be had; that it is there. */
void dig_order_insert(struct dig_order_pool *p, struct dig_order *o, const struct dig_order_by *by,
                      uint32_t item);
void dig_order_remove(struct dig_order_pool *p, struct dig_order *o, const struct dig_order_by *by,
                      uint32_t item);

/* A place in a set: dies with the next insert or remove. */
struct dig_order_at {
    uint32_t chunk; /* + 1; 0: past either end */
    uint32_t pos;
};
/* The first item whose key is not below `key`. */
struct dig_order_at dig_order_seek(const struct dig_order_pool *p, const struct dig_order *o,
                                   const struct dig_order_by *by, struct dig_order_key key);
struct dig_order_at dig_order_first(const struct dig_order *o);
struct dig_order_at dig_order_last(const struct dig_order_pool *p, const struct dig_order *o);
static inline bool dig_order_some(struct dig_order_at at)
{
    return at.chunk != 0;
}
static inline uint32_t dig_order_item(const struct dig_order_pool *p, struct dig_order_at at)
{
    return p->chunk[at.chunk - 1].item[at.pos];
}
struct dig_order_at dig_order_next(const struct dig_order_pool *p, struct dig_order_at at);
struct dig_order_at dig_order_prev(const struct dig_order_pool *p, struct dig_order_at at);

#endif
