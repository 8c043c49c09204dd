#include "engine/slab.h"

#include "engine/mem.h"

/* Where a free slot keeps the way to the next one: behind the head, which must
 * survive. */
struct slab_slot {
    struct slab_head head;
    uint32_t next_free; /* index + 1; 0 = none */
};

enum { SLAB_ALIGN = 16 };
static_assert(sizeof(struct slab_slot) <= SLAB_ALIGN, "the rest of a free slot is poisoned");

static bool slot_live(const struct slab_head *h)
{
    return h->gen & 1;
}

int slab_init(struct slab *s, const char *name, size_t object_bytes, uint32_t max)
{
    int err;

    ASSERT(object_bytes >= sizeof(struct slab_head));
    if (object_bytes < sizeof(struct slab_slot))
        object_bytes = sizeof(struct slab_slot);
    /* A type that asks for more alignment has a size that is a multiple of it. */
    size_t stride = (object_bytes + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN;

    *s = (struct slab){ .stride = stride, .max = max, .name = name };
    s->base = mem_reserve(max, stride, &err);
    return err;
}

void slab_fini(struct slab *s)
{
    mem_release(s->base, s->max, s->stride);
    *s = (struct slab){ .name = s->name };
}

void *slab_new(struct slab *s)
{
    struct slab_slot *slot;

    if (s->free_head) {
        slot = slab_at(s, s->free_head - 1);
        s->free_head = slot->next_free;
        mem_unpoison(slot, s->stride);
        memset((uint8_t *)slot + sizeof(slot->head), 0, s->stride - sizeof(slot->head));
    } else if (s->fresh < s->max) {
        slot = slab_at(s, s->fresh); /* the kernel's zeroes */
        slot->head.idx = s->fresh++;
    } else {
        return NULL;
    }
    ASSERT(!slot_live(&slot->head));
    slot->head.gen++;
    if (++s->live > s->peak)
        s->peak = s->live;
    return slot;
}

void slab_free(struct slab *s, void *object)
{
    struct slab_slot *slot = object;

    ASSERT(slot->head.idx < s->fresh);
    ASSERT(slab_at(s, slot->head.idx) == object);
    ASSERT(slot_live(&slot->head));
    ASSERT(s->live > 0);
    slot->head.gen++;
    slot->next_free = s->free_head;
    s->free_head = slot->head.idx + 1;
    s->live--;
    mem_poison((uint8_t *)slot + SLAB_ALIGN, s->stride - SLAB_ALIGN);
}

void *slab_find(const struct slab *s, uint32_t idx, uint32_t gen)
{
    if (idx >= s->fresh)
        return NULL;
    struct slab_head *h = slab_at(s, idx);

    return slot_live(h) && h->gen == gen ? h : NULL;
}

void *slab_find24(const struct slab *s, uint32_t idx, uint32_t gen24)
{
    if (idx >= s->fresh)
        return NULL;
    struct slab_head *h = slab_at(s, idx);

    return slot_live(h) && (h->gen & 0xffffff) == gen24 ? h : NULL;
}

void *slab_walk(const struct slab *s, uint32_t *cursor)
{
    while (*cursor < s->fresh) {
        struct slab_head *h = slab_at(s, (*cursor)++);

        if (slot_live(h))
            return h;
    }
    return NULL;
}
