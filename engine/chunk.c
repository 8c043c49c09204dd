#include "engine/chunk.h"

#include "engine/mem.h"

static const uint32_t chunk_bytes_of[CHUNK_SIZES] = { CHUNK_SMALL_BYTES, CHUNK_LARGE_BYTES };

static_assert(CHUNK_SMALL_BYTES % alignof(struct chunk) == 0, "chunks lie side by side");
static_assert(CHUNK_LARGE_BYTES % alignof(struct chunk) == 0, "chunks lie side by side");

int chunk_pool_init(struct chunk_pool *p, uint32_t small_max, uint32_t large_max)
{
    int err;

    memset(p, 0, sizeof(*p));
    atomic_init(&p->returned, NULL);
    p->max[CHUNK_SMALL] = small_max;
    p->max[CHUNK_LARGE] = large_max;
    for (int size = 0; size < CHUNK_SIZES; size++) {
        p->base[size] = mem_reserve(p->max[size], chunk_bytes_of[size], &err);
        if (err) {
            chunk_pool_fini(p);
            return err;
        }
    }
    return 0;
}

void chunk_pool_fini(struct chunk_pool *p)
{
    for (int size = 0; size < CHUNK_SIZES; size++) {
        mem_release(p->base[size], p->max[size], chunk_bytes_of[size]);
        p->base[size] = NULL;
        p->max[size] = p->fresh[size] = p->used[size] = 0;
        p->free[size] = NULL;
    }
    atomic_store_explicit(&p->returned, NULL, memory_order_relaxed);
}

/* cap 0 marks a chunk that is free: freeing one twice ends here and not in
 * somebody's payload. */
static void chunk_mark_free(struct chunk *c)
{
    ASSERT(c->cap != 0);
    mem_poison(c->data, c->cap);
    c->cap = 0;
}

static void chunk_put(struct chunk_pool *p, struct chunk *c)
{
    ASSERT(c->home == p);
    ASSERT(p->used[c->size] > 0);
    p->used[c->size]--;
    c->next = p->free[c->size]; /* LIFO: the warmest memory goes out first */
    p->free[c->size] = c;
}

void chunk_drain(struct chunk_pool *p)
{
    /* A look first: the exchange takes the cache line away from whoever pushes.
     */
    if (!atomic_load_explicit(&p->returned, memory_order_relaxed))
        return;
    struct chunk *c = atomic_exchange_explicit(&p->returned, NULL, memory_order_acquire);

    while (c) {
        struct chunk *next = c->next;

        chunk_put(p, c);
        c = next;
    }
}

struct chunk *chunk_new(struct chunk_pool *p, enum chunk_size size)
{
    struct chunk *c;

    if (!p->free[size])
        chunk_drain(p); /* before fresh memory, or returns would wait while the pool
                           grows */
    if (p->free[size]) {
        c = p->free[size];
        p->free[size] = c->next;
    } else if (p->fresh[size] < p->max[size]) {
        c = (struct chunk *)(void *)(p->base[size] +
                                     (size_t)p->fresh[size]++ * chunk_bytes_of[size]);
        c->home = p;
        c->size = (uint8_t)size;
    } else {
        return NULL;
    }
    c->next = NULL;
    c->cap = chunk_bytes_of[size] - (uint32_t)offsetof(struct chunk, data);
    c->off = c->len = 0;
    mem_unpoison(c->data, c->cap);
    if (++p->used[size] > p->peak[size])
        p->peak[size] = p->used[size];
    return c;
}

/* Pushes first..last, linked by next, onto the home's return list. Only the
 * owner takes from it, and always everything, so the usual ABA trouble of such
 * a stack cannot arise. */
static void chunk_send_home(struct chunk_pool *home, struct chunk *first, struct chunk *last)
{
    struct chunk *top = atomic_load_explicit(&home->returned, memory_order_relaxed);

    do
        last->next = top;
    while (!atomic_compare_exchange_weak_explicit(&home->returned, &top, first,
                                                  memory_order_release, memory_order_relaxed));
}

void chunk_free(struct chunk_pool *mine, struct chunk *c)
{
    chunk_mark_free(c);
    if (c->home == mine)
        chunk_put(mine, c);
    else
        chunk_send_home(c->home, c, c);
}

void chunk_free_list(struct chunk_pool *mine, struct chunk *first)
{
    while (first) {
        struct chunk_pool *home = first->home;
        struct chunk *c = first, *last = first;

        if (home == mine) {
            first = c->next;
            chunk_free(mine, c);
            continue;
        }
        /* A run with one home goes back by one exchange. */
        chunk_mark_free(last);
        while (last->next && last->next->home == home) {
            last = last->next;
            chunk_mark_free(last);
        }
        first = last->next;
        chunk_send_home(home, c, last);
    }
}

size_t chunk_bytes_used(const struct chunk_pool *p)
{
    size_t sum = 0;

    for (int size = 0; size < CHUNK_SIZES; size++)
        sum += (size_t)p->used[size] * chunk_bytes_of[size];
    return sum;
}

size_t chunk_bytes_max(const struct chunk_pool *p)
{
    size_t sum = 0;

    for (int size = 0; size < CHUNK_SIZES; size++)
        sum += (size_t)p->max[size] * chunk_bytes_of[size];
    return sum;
}

void chunkq_push(struct chunkq *q, struct chunk *c)
{
    c->next = NULL;
    if (q->last)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
    q->bytes += c->len;
}

static size_t chunk_fill(struct chunk *c, struct bytes in)
{
    size_t n = min_sz(chunk_room(c), in.n);

    if (n)
        memcpy(chunk_tail(c), in.p, n);
    c->len += (uint32_t)n;
    return n;
}

/* A chunk for `left` bytes: the fitting size, or the other one when that is
 * dry. */
static struct chunk *chunk_for(struct chunk_pool *p, size_t left)
{
    bool large = left > CHUNK_SMALL_BYTES - offsetof(struct chunk, data);
    struct chunk *c = chunk_new(p, large ? CHUNK_LARGE : CHUNK_SMALL);

    return c ? c : chunk_new(p, large ? CHUNK_SMALL : CHUNK_LARGE);
}

bool chunkq_append(struct chunkq *q, struct chunk_pool *p, struct bytes in)
{
    struct chunkq fresh = { 0 };
    /* The tail takes its part only once there is room for all the rest. Another
     * shard's chunk may be filled as well: it is leased to whoever holds the
     * queue. */
    size_t tail = q->last ? min_sz(chunk_room(q->last), in.n) : 0;
    struct bytes rest = { in.p ? in.p + tail : NULL, in.n - tail };

    while (rest.n) {
        struct chunk *c = chunk_for(p, rest.n);

        if (!c) {
            chunkq_clear(&fresh, p);
            return false;
        }
        size_t n = chunk_fill(c, rest);

        chunkq_push(&fresh, c);
        rest = bytes_of(rest.p + n, rest.n - n);
    }
    if (tail)
        q->bytes += chunk_fill(q->last, bytes_of(in.p, tail));
    if (fresh.first) {
        if (q->last)
            q->last->next = fresh.first;
        else
            q->first = fresh.first;
        q->last = fresh.last;
        q->bytes += fresh.bytes;
    }
    return true;
}

void chunkq_consume(struct chunkq *q, struct chunk_pool *mine, size_t n)
{
    ASSERT(n <= q->bytes);
    q->bytes -= n;
    while (q->first) {
        struct chunk *c = q->first;
        size_t part = min_sz(n, c->len);

        c->off += (uint32_t)part;
        c->len -= (uint32_t)part;
        n -= part;
        if (c->len)
            break;
        q->first = c->next;
        if (!q->first)
            q->last = NULL;
        chunk_free(mine, c);
    }
    ASSERT(n == 0);
}

size_t chunkq_views(const struct chunkq *q, size_t limit, struct bytes *views, size_t max)
{
    size_t count = 0;

    limit = min_sz(limit, q->bytes);
    for (const struct chunk *c = q->first; c && limit && count < max; c = c->next) {
        size_t n = min_sz(limit, c->len);

        if (n == 0)
            continue; /* an empty chunk that somebody pushed */
        views[count++] = bytes_of(c->data + c->off, n);
        limit -= n;
    }
    return count;
}

size_t chunkq_copy(const struct chunkq *q, uint8_t *to, size_t n)
{
    size_t copied = 0;

    for (const struct chunk *c = q->first; c && copied < n; c = c->next) {
        size_t part = min_sz(n - copied, c->len);

        if (part)
            memcpy(to + copied, c->data + c->off, part);
        copied += part;
    }
    return copied;
}

void chunkq_clear(struct chunkq *q, struct chunk_pool *mine)
{
    chunk_free_list(mine, q->first);
    *q = (struct chunkq){ 0 };
}
