/* engine/slab.h: fixed-size objects of one shard, addressed by index and generation. Memory is
 * reserved once (mmap, no reserve) and touched as it is first used, so a large maximum costs
 * nothing until it is needed; the loop never allocates. One owner thread, except slab_at on a slot
 * that the caller knows to be live. */
#ifndef SLUICE_ENGINE_SLAB_H
#define SLUICE_ENGINE_SLAB_H

#include "proto/base.h"

/* First member of every slabbed object. gen changes at each free, so that (idx, gen) names one
 * life; it is odd while live. */
struct slab_head {
    uint32_t idx;
    uint32_t gen;
};

struct slab {
    uint8_t *base;
    size_t stride;
    uint32_t max, fresh; /* fresh: never used so far */
    uint32_t free_head;  /* index + 1 of the most recently freed; 0 = none */
    uint32_t live, peak;
    const char *name;
};

MUST_USE int slab_init(struct slab *s, const char *name, size_t object_bytes, uint32_t max);
void slab_fini(struct slab *s);
/* Zeroed behind the head; NULL when full. LIFO, so that hot memory is used again. */
void *slab_new(struct slab *s);
void slab_free(struct slab *s, void *object);
static inline void *slab_at(const struct slab *s, uint32_t idx) /* idx < max */
{
    return s->base + s->stride * idx;
}
/* NULL when that life is over. 24 bits of the generation suffice (user_data). */
void *slab_find(const struct slab *s, uint32_t idx, uint32_t gen);
void *slab_find24(const struct slab *s, uint32_t idx, uint32_t gen24);
/* Next live object at or after *cursor, advancing it; NULL at the end. For listings. */
void *slab_walk(const struct slab *s, uint32_t *cursor);

#endif
