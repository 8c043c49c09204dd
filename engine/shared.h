/* engine/shared.h: immutable bytes that go to many (presence, lists, broadcasts, pages): written
 * once, then only read, until the last holder lets go. Counted by atomics, because whoever makes
 * one (control, or the shard of a broadcast) is seldom who sends it last; one copy per shard, as
 * conventions.md has it, would cost 200 KB each for a list that most shards never send. They come
 * from malloc, never on the path of a relayed message, and are bounded together. */
#ifndef SLUICE_ENGINE_SHARED_H
#define SLUICE_ENGINE_SHARED_H

#include <stdalign.h>
#include <stdatomic.h>

#include "proto/base.h"

struct shared_pool {
    _Atomic size_t used; /* bytes of all that live, their heads included */
    size_t max;
    _Atomic uint64_t refused;
};

struct shared {
    struct shared_pool *pool;
    _Atomic uint32_t refs;
    uint32_t n;                /* filled, <= cap */
    uint32_t cap;              /* of data[] */
    alignas(8) uint8_t data[]; /* anything may be laid out here */
};

/* One reference, the caller's. NULL: the pool is full (counted), or there is no memory. */
struct shared *shared_new(struct shared_pool *p, size_t cap);
struct shared *shared_of(struct shared_pool *p, struct bytes in); /* a copy, in the same way */
struct shared *shared_keep(struct shared *s);
void shared_drop(struct shared *s); /* NULL is fine */
/* Is more than so many sixteenths of it in use? */
static inline bool shared_past(const struct shared_pool *p, unsigned sixteenths)
{
    return atomic_load_explicit(&p->used, memory_order_relaxed) > p->max / 16 * sixteenths;
}
/* What one of many may take of it: a share of what is left, so that the more take, the less each
 * gets, and something is left for whoever comes next. */
static inline size_t shared_share(const struct shared_pool *p)
{
    size_t used = atomic_load_explicit(&p->used, memory_order_relaxed);

    return used < p->max ? (p->max - used) / 32 : 0;
}
static inline struct bytes shared_bytes(const struct shared *s)
{
    return bytes_of(s->data, s->n);
}

#endif
