#include "engine/tls_pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/memory.h>

#include "engine/mem.h"

/* Sizes and places are counted in units of 16 bytes from the region's start, so that 32 bits are
 * enough. A block is a head of one unit and its payload. Each is in a list: a free one in that of
 * its size, a used one in that of its account, so that what wolfSSL forgets to free when it fails
 * comes back with the connection. Lists hold a place + 1, for 0 ends them. */
enum {
    UNIT = 16,
    SECOND_BITS = 4, /* each power of two in 16 classes: at most 6 % of a block are lost to them */
    SECONDS = 1 << SECOND_BITS,
    FIRSTS = 32 - SECOND_BITS,
};
static const uint32_t USED = UINT32_C(1) << 31;

struct head {
    uint32_t units; /* of the whole block, with USED when it is */
    uint32_t prev_units;
    uint32_t next, prev;
};
static_assert(sizeof(struct head) == UNIT, "a head is one unit");

struct tls_pool {
    uint8_t *base;
    size_t bytes;
    uint32_t units; /* of all blocks; behind them the end mark */
    uint32_t first_map, second_map[FIRSTS];
    uint32_t list[FIRSTS][SECONDS];
    size_t used, peak;
    uint64_t refused, swept;
    uint8_t scratch[TLS_SCRATCH_BYTES];
};

static _Thread_local struct {
    struct tls_pool *pool;
    struct tls_account *account;
} now;

static struct head *head_at(const struct tls_pool *p, uint32_t at)
{
    return (struct head *)(void *)(p->base + (size_t)at * UNIT);
}

static uint32_t at_of(const struct tls_pool *p, const void *payload)
{
    size_t off = (size_t)((const uint8_t *)payload - p->base);

    ASSERT(off % UNIT == 0 && off >= UNIT && off / UNIT < p->units);
    return (uint32_t)(off / UNIT) - 1;
}

static uint32_t units_of(const struct head *h)
{
    return h->units & ~USED;
}

/* The class whose blocks have at least the size of its lower end. */
static void class_of(uint32_t units, uint32_t *first, uint32_t *second)
{
    if (units < SECONDS) {
        *first = 0;
        *second = units;
        return;
    }
    uint32_t log = 31 - (uint32_t)__builtin_clz(units);

    *first = log - SECOND_BITS + 1;
    *second = (units >> (log - SECOND_BITS)) & (SECONDS - 1);
}

static void push(struct tls_pool *p, uint32_t *list, uint32_t at)
{
    struct head *h = head_at(p, at);

    h->next = *list;
    h->prev = 0;
    if (*list)
        head_at(p, *list - 1)->prev = at + 1;
    *list = at + 1;
}

static void cut(struct tls_pool *p, uint32_t *list, uint32_t at)
{
    const struct head *h = head_at(p, at);

    if (h->next)
        head_at(p, h->next - 1)->prev = h->prev;
    if (h->prev) {
        head_at(p, h->prev - 1)->next = h->next;
    } else {
        ASSERT(*list == at + 1);
        *list = h->next;
    }
}

static void free_push(struct tls_pool *p, uint32_t at)
{
    uint32_t f, s;

    class_of(units_of(head_at(p, at)), &f, &s);
    push(p, &p->list[f][s], at);
    p->first_map |= UINT32_C(1) << f;
    p->second_map[f] |= UINT32_C(1) << s;
}

static void free_cut(struct tls_pool *p, uint32_t at)
{
    uint32_t f, s;

    class_of(units_of(head_at(p, at)), &f, &s);
    cut(p, &p->list[f][s], at);
    if (!p->list[f][s])
        p->second_map[f] &= ~(UINT32_C(1) << s);
    if (!p->second_map[f])
        p->first_map &= ~(UINT32_C(1) << f);
}

/* Any block of the class that begins at or above `units`: all of that class will do. */
static bool free_find(const struct tls_pool *p, uint32_t units, uint32_t *at)
{
    uint32_t f, s, map;

    if (units >= SECONDS)
        units += (UINT32_C(1) << (31 - (uint32_t)__builtin_clz(units) - SECOND_BITS)) - 1;
    class_of(units, &f, &s);
    map = p->second_map[f] & (~UINT32_C(0) << s);
    if (!map) {
        uint32_t firsts = f + 1 < FIRSTS ? p->first_map & (~UINT32_C(0) << (f + 1)) : 0;

        if (!firsts)
            return false;
        f = (uint32_t)__builtin_ctz(firsts);
        map = p->second_map[f];
    }
    *at = p->list[f][__builtin_ctz(map)] - 1;
    return true;
}

struct tls_pool *tls_pool_new(size_t bytes, int *err)
{
    struct tls_pool *p = calloc(1, sizeof(*p));

    *err = p ? 0 : -ENOMEM;
    if (!p)
        return NULL;
    bytes -= bytes % UNIT;
    if (bytes < 4 * (size_t)UNIT || bytes / UNIT >= USED >> 1)
        *err = -EINVAL;
    else
        p->base = mem_reserve(bytes, 1, err);
    if (!p->base) {
        free(p);
        return NULL;
    }
    p->bytes = bytes;
    p->units = (uint32_t)(bytes / UNIT) - 1;
    *head_at(p, 0) = (struct head){ p->units, 0, 0, 0 };
    *head_at(p, p->units) = (struct head){ USED, p->units, 0, 0 }; /* no neighbour to join */
    free_push(p, 0);
    return p;
}

void tls_pool_free(struct tls_pool *p)
{
    if (!p)
        return;
    ASSERT(p->used == 0);
    mem_unpoison(p->base, p->bytes);
    mem_release(p->base, p->bytes, 1);
    free(p);
}

size_t tls_pool_used(const struct tls_pool *p)
{
    return p->used;
}

size_t tls_pool_peak(const struct tls_pool *p)
{
    return p->peak;
}

size_t tls_pool_max(const struct tls_pool *p)
{
    return p->bytes;
}

uint64_t tls_pool_refused(const struct tls_pool *p)
{
    return p->refused;
}

uint64_t tls_pool_swept(const struct tls_pool *p)
{
    return p->swept;
}

uint8_t *tls_pool_scratch(struct tls_pool *p)
{
    return p->scratch;
}

void tls_pool_enter(struct tls_pool *p, struct tls_account *a)
{
    ASSERT(!now.pool);
    now.pool = p;
    now.account = a;
}

void tls_pool_leave(void)
{
    ASSERT(now.pool);
    now.pool = NULL;
    now.account = NULL;
}

static void book(struct tls_pool *p, struct tls_account *a, uint32_t units)
{
    size_t n = (size_t)units * UNIT;

    p->used += n;
    a->used += n;
    if (p->used > p->peak)
        p->peak = p->used;
    if (a->used > a->peak)
        a->peak = a->used;
}

static void unbook(struct tls_pool *p, struct tls_account *a, uint32_t units)
{
    size_t n = (size_t)units * UNIT;

    ASSERT(a->used >= n && p->used >= n);
    p->used -= n;
    a->used -= n;
}

/* What the block at `at` has beyond `units` becomes a free one. */
static void split(struct tls_pool *p, uint32_t at, uint32_t units)
{
    struct head *h = head_at(p, at);
    uint32_t more = units_of(h) - units;

    if (more == 0)
        return;
    h->units = units | (h->units & USED);
    mem_unpoison(head_at(p, at + units), UNIT);
    *head_at(p, at + units) = (struct head){ more, units, 0, 0 };
    head_at(p, at + units + more)->prev_units = more;
    free_push(p, at + units);
}

void *tls_pool_alloc(size_t n)
{
    struct tls_pool *p = now.pool;
    struct tls_account *a = now.account;
    uint32_t at;

    ASSERT(p);
    bool fits = n <= p->bytes && n <= a->max;
    uint32_t units = fits ? 1 + (uint32_t)((n + UNIT - 1) / UNIT) + (n == 0) : 0;

    if (!fits || a->used + (size_t)units * UNIT > a->max || !free_find(p, units, &at)) {
        p->refused++;
        a->refused = true;
        return NULL;
    }
    free_cut(p, at);
    split(p, at, units);
    head_at(p, at)->units |= USED;
    push(p, &a->first, at);
    book(p, a, units);
    void *payload = head_at(p, at) + 1;

    mem_unpoison(payload, n);
    mem_poison((uint8_t *)payload + n, (size_t)(units - 1) * UNIT - n);
    return payload;
}

void tls_pool_return(void *payload)
{
    struct tls_pool *p = now.pool;

    if (!payload)
        return;
    ASSERT(p);
    uint32_t at = at_of(p, payload);
    struct head *h = head_at(p, at);

    ASSERT(h->units & USED);
    uint32_t units = units_of(h);

    ASSERT(units != 0);
    cut(p, &now.account->first, at);
    unbook(p, now.account, units);
    h->units = units;
    mem_poison(payload, (size_t)(units - 1) * UNIT);
    struct head *next = head_at(p, at + units);

    if (!(next->units & USED)) {
        free_cut(p, at + units);
        units += units_of(next);
    }
    if (at != 0 && !(head_at(p, at - h->prev_units)->units & USED)) {
        at -= h->prev_units;
        free_cut(p, at);
        units += units_of(head_at(p, at));
    }
    head_at(p, at)->units = units;
    head_at(p, at + units)->prev_units = units;
    free_push(p, at);
}

void tls_pool_sweep(void)
{
    struct tls_account *a = now.account;

    now.pool->swept += a->used;
    while (a->first)
        tls_pool_return(head_at(now.pool, a->first - 1) + 1);
    ASSERT(a->used == 0);
}

void tls_pool_check(const struct tls_pool *p)
{
    uint32_t at = 0, prev = 0, free_blocks = 0, listed = 0;
    size_t used = 0;
    bool free_before = false;

    while (at < p->units) {
        const struct head *h = head_at(p, at);
        uint32_t units = units_of(h);

        ASSERT(units != 0 && units <= p->units - at);
        ASSERT(h->prev_units == prev);
        if (h->units & USED) {
            used += (size_t)units * UNIT;
        } else {
            ASSERT(!free_before); /* neighbours are joined */
            free_blocks++;
        }
        free_before = !(h->units & USED);
        prev = units;
        at += units;
    }
    ASSERT(at == p->units && head_at(p, at)->units == USED && head_at(p, at)->prev_units == prev);
    ASSERT(used == p->used);
    for (uint32_t f = 0; f < FIRSTS; f++) {
        for (uint32_t s = 0; s < SECONDS; s++) {
            ASSERT(!p->list[f][s] == !(p->second_map[f] >> s & 1));
            for (uint32_t i = p->list[f][s]; i; i = head_at(p, i - 1)->next, listed++)
                ASSERT(!(head_at(p, i - 1)->units & USED));
        }
        ASSERT(!p->second_map[f] == !(p->first_map >> f & 1));
    }
    ASSERT(listed == free_blocks);
}

static bool is_ours(const void *q)
{
    const struct tls_pool *p = now.pool;

    return p && (uintptr_t)q - (uintptr_t)p->base < p->bytes;
}

static void *wolf_malloc(size_t n)
{
    return now.pool ? tls_pool_alloc(n) : malloc(n);
}

/* A context whose last connection ends goes within that connection's tls_free: it is not ours. */
static void wolf_free(void *q)
{
    if (is_ours(q))
        tls_pool_return(q);
    else
        free(q);
}

static void *wolf_realloc(void *q, size_t n)
{
    if (!q)
        return wolf_malloc(n);
    if (!is_ours(q))
        return realloc(q, n);
    void *bigger = tls_pool_alloc(n);

    if (bigger) {
        size_t had = (size_t)units_of(head_at(now.pool, at_of(now.pool, q))) * UNIT - UNIT;

        mem_unpoison(q, had);
        memcpy(bigger, q, min_sz(had, n));
        tls_pool_return(q);
    }
    return bigger;
}

static void install(void)
{
    ASSERT(wolfSSL_SetAllocators(wolf_malloc, wolf_free, wolf_realloc) == 0);
}

void tls_pool_install(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    ASSERT(pthread_once(&once, install) == 0);
}
