#include "engine/shared.h"

#include <stdlib.h>

struct shared *shared_new(struct shared_pool *p, size_t cap)
{
    size_t bytes = sizeof(struct shared) + cap;

    if (bytes <= p->max && cap <= UINT32_MAX) {
        size_t before = atomic_fetch_add_explicit(&p->used, bytes, memory_order_relaxed);
        struct shared *s = before + bytes <= p->max ? malloc(bytes) : NULL;

        if (s) {
            s->pool = p;
            atomic_init(&s->refs, 1);
            s->n = 0;
            s->cap = (uint32_t)cap;
            return s;
        }
        atomic_fetch_sub_explicit(&p->used, bytes, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&p->refused, 1, memory_order_relaxed);
    return NULL;
}

struct shared *shared_of(struct shared_pool *p, struct bytes in)
{
    struct shared *s = shared_new(p, in.n);

    if (s) {
        memcpy(s->data, in.p, in.n);
        s->n = s->cap;
    }
    return s;
}

struct shared *shared_keep(struct shared *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void shared_drop(struct shared *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    atomic_fetch_sub_explicit(&s->pool->used, sizeof(*s) + s->cap, memory_order_relaxed);
    free(s);
}
