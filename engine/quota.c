#include "engine/quota.h"

#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/mem.h"
#include "proto/crypto.h"

/* Counts: sets of one cache line. A key is in one of two sets, in the emptier one when it came,
 * until its count is 0 again; whoever works on it holds both sets' guards, the lower one first.
 * Sets are at most a third full at keys_max, so that two full ones at once do not happen
 * (test_quota.c fills them). The full keyed 64-bit hash is the key. */
enum {
    SET_WAYS = 5,
    RATE_WAYS = 4,
    SPINS_MAX = 64, /* then yield: the holder may be waiting for our processor */
    METER_WAYS = 4,
    RATE_TRIES = 64, /* compare-and-swaps lost in a row before we just allow it */
    SUBJECT_MAX = 64,
    TAT_BITS = 40, /* of ms: 34 years */
};
#define TAT_MASK ((UINT64_C(1) << TAT_BITS) - 1)

struct set {
    alignas(64) _Atomic uint32_t guard;
    uint32_t count[SET_WAYS];
    uint64_t key[SET_WAYS]; /* 0 = free */
};
static_assert(sizeof(struct set) == 64, "one cache line");

/* A cell is a tag of 24 bits and the theoretical arrival time. Two keys of one set with one tag
 * share their rate: once in 4 million lookups. */
struct cells {
    _Atomic uint64_t word[RATE_WAYS];
};

struct meter {
    _Atomic uint64_t key, tat_ns;
};
struct meters {
    alignas(64) struct meter way[METER_WAYS];
};
static_assert(sizeof(struct meters) == 64, "one cache line");

struct quota {
    struct set *sets;
    struct cells *cells;
    struct meters *meters;
    uint32_t sets_count, cells_count, meters_count; /* powers of two */
    uint8_t key[16];
    _Atomic uint64_t overflows;
    _Atomic size_t live;
};

static uint32_t power_of_two(uint64_t at_least)
{
    uint32_t n = 1;

    while (n < at_least && n < UINT32_C(1) << 31)
        n *= 2;
    return n;
}

struct quota *quota_new(uint32_t keys_max, uint32_t rate_cells, const uint8_t key[16])
{
    struct quota *q = calloc(1, sizeof(*q));
    int err;

    if (!q)
        return NULL;
    q->sets_count = power_of_two(((uint64_t)keys_max * 3 + SET_WAYS - 1) / SET_WAYS);
    q->cells_count = power_of_two(((uint64_t)rate_cells + RATE_WAYS - 1) / RATE_WAYS);
    memcpy(q->key, key, sizeof(q->key));
    q->sets = mem_reserve(q->sets_count, sizeof(*q->sets), &err);
    if (q->sets)
        q->cells = mem_reserve(q->cells_count, sizeof(*q->cells), &err);
    if (!q->cells) {
        quota_free(q);
        return NULL;
    }
    return q;
}

void quota_free(struct quota *q)
{
    if (!q)
        return;
    mem_release(q->sets, q->sets_count, sizeof(*q->sets));
    mem_release(q->cells, q->cells_count, sizeof(*q->cells));
    mem_release(q->meters, q->meters_count, sizeof(*q->meters));
    free(q);
}

uint64_t quota_key(const struct quota *q, enum quota_kind kind, struct bytes subject)
{
    uint8_t text[1 + SUBJECT_MAX] = { (uint8_t)kind };

    ASSERT(subject.n <= SUBJECT_MAX);
    if (subject.n)
        memcpy(text + 1, subject.p, subject.n);
    uint64_t h = crypto_siphash(q->key, bytes_of(text, 1 + subject.n));

    return h ? h : 1;
}

static void guard_lock(_Atomic uint32_t *guard)
{
    unsigned spins = 0;

    while (atomic_exchange_explicit(guard, 1, memory_order_acquire)) {
        while (atomic_load_explicit(guard, memory_order_relaxed)) {
            if (++spins % SPINS_MAX == 0)
                sched_yield();
        }
    }
}

static void guard_unlock(_Atomic uint32_t *guard)
{
    atomic_store_explicit(guard, 0, memory_order_release);
}

/* The two sets of a key, held. */
struct held {
    struct set *a, *b; /* b NULL: both are one */
};

static struct held sets_hold(const struct quota *q, uint64_t key)
{
    uint32_t mask = q->sets_count - 1;
    uint32_t i = (uint32_t)key & mask, k = (uint32_t)(key >> 32) & mask;
    struct held h = { &q->sets[i < k ? i : k], i == k ? NULL : &q->sets[i < k ? k : i] };

    guard_lock(&h.a->guard);
    if (h.b)
        guard_lock(&h.b->guard);
    return h;
}

static void sets_let_go(struct held h)
{
    if (h.b)
        guard_unlock(&h.b->guard);
    guard_unlock(&h.a->guard);
}

/* The way of `key` in a set; SET_WAYS = not there. Key 0 finds a free one. */
static unsigned way_find(const struct set *s, uint64_t key)
{
    unsigned i = 0;

    while (i < SET_WAYS && s->key[i] != key)
        i++;
    return i;
}

static uint32_t *count_find(struct held h, uint64_t key, uint64_t **key_at)
{
    struct set *sets[2] = { h.a, h.b };

    for (int s = 0; s < 2 && sets[s]; s++) {
        unsigned i = way_find(sets[s], key);

        if (i < SET_WAYS) {
            *key_at = &sets[s]->key[i];
            return &sets[s]->count[i];
        }
    }
    return NULL;
}

static unsigned ways_free(const struct set *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SET_WAYS; i++)
        n += s->key[i] == 0;
    return n;
}

static uint32_t *count_add(struct held h, uint64_t key)
{
    struct set *s = h.b && ways_free(h.b) > ways_free(h.a) ? h.b : h.a;
    unsigned i = way_find(s, 0);

    if (i == SET_WAYS)
        return NULL;
    s->key[i] = key;
    s->count[i] = 0;
    return &s->count[i];
}

bool quota_take_n(struct quota *q, uint64_t key, uint32_t max, uint32_t *now)
{
    uint64_t *key_at;
    bool taken = false;

    ASSERT(key != 0);
    struct held h = sets_hold(q, key);
    uint32_t *count = count_find(h, key, &key_at);

    if (!count) {
        count = count_add(h, key);
        if (count)
            atomic_fetch_add_explicit(&q->live, 1, memory_order_relaxed);
        else
            atomic_fetch_add_explicit(&q->overflows, 1, memory_order_relaxed);
    }
    if (count && (max == 0 || *count < max)) {
        ASSERT(*count < UINT32_MAX);
        *now = ++*count;
        taken = true;
    }
    sets_let_go(h);
    return taken;
}

bool quota_take(struct quota *q, uint64_t key, uint32_t max)
{
    uint32_t now;

    return quota_take_n(q, key, max, &now);
}

uint32_t quota_drop(struct quota *q, uint64_t key)
{
    uint64_t *key_at;
    uint32_t left;
    struct held h = sets_hold(q, key);
    uint32_t *count = count_find(h, key, &key_at);

    ASSERT(count != NULL);
    ASSERT(*count > 0);
    left = --*count;
    if (left == 0) {
        *key_at = 0;
        atomic_fetch_sub_explicit(&q->live, 1, memory_order_relaxed);
    }
    sets_let_go(h);
    return left;
}

uint32_t quota_count(const struct quota *q, uint64_t key)
{
    uint64_t *key_at;
    struct held h = sets_hold(q, key);
    const uint32_t *count = count_find(h, key, &key_at);
    uint32_t n = count ? *count : 0;

    sets_let_go(h);
    return n;
}

uint64_t quota_overflows(const struct quota *q)
{
    return atomic_load_explicit(&q->overflows, memory_order_relaxed);
}

size_t quota_live(const struct quota *q)
{
    return atomic_load_explicit(&q->live, memory_order_relaxed);
}

bool gcra_step(uint64_t *tat_ms, uint64_t now_ms, uint32_t burst, uint64_t refill_ms)
{
    uint64_t depth, next;
    uint64_t tat = *tat_ms > now_ms ? *tat_ms : now_ms;

    if (burst == 0 || refill_ms == 0)
        return true;
    if (__builtin_mul_overflow((uint64_t)burst - 1, refill_ms, &depth))
        depth = UINT64_MAX;
    if (tat - now_ms > depth)
        return false;
    *tat_ms = __builtin_add_overflow(tat, refill_ms, &next) ? UINT64_MAX : next;
    return true;
}

bool rate_allow(struct quota *q, uint64_t key, uint64_t now_ms, uint32_t burst, uint64_t refill_ms)
{
    struct cells *c = &q->cells[(uint32_t)key & (q->cells_count - 1)];
    uint64_t tag = key >> TAT_BITS;

    if (burst == 0 || refill_ms == 0)
        return true;
    for (int tries = 0; tries < RATE_TRIES; tries++) {
        unsigned at = 0;
        uint64_t word = 0, oldest = UINT64_MAX;

        for (unsigned i = 0; i < RATE_WAYS; i++) {
            uint64_t w = atomic_load_explicit(&c->word[i], memory_order_relaxed);

            if (w >> TAT_BITS == tag) {
                at = i;
                word = w;
                break;
            }
            /* Else the one that has been idle longest makes room; when its time is past, nothing is
             * forgotten by that. */
            if ((w & TAT_MASK) < oldest) {
                oldest = w & TAT_MASK;
                at = i;
                word = w;
            }
        }
        uint64_t tat = word >> TAT_BITS == tag ? word & TAT_MASK : 0;

        if (!gcra_step(&tat, now_ms, burst, refill_ms))
            return false;
        if (atomic_compare_exchange_strong_explicit(&c->word[at], &word,
                                                    tag << TAT_BITS | min_u64(tat, TAT_MASK),
                                                    memory_order_relaxed, memory_order_relaxed))
            return true;
    }
    return true;
}

int quota_meters(struct quota *q, uint32_t meters)
{
    int err;

    ASSERT(q->meters == NULL);
    q->meters_count = power_of_two(((uint64_t)meters + METER_WAYS - 1) / METER_WAYS);
    q->meters = mem_reserve(q->meters_count, sizeof(*q->meters), &err);
    return q->meters ? 0 : err;
}

/* The meter of a key; NULL: another thread has just taken the one that it was to have. Who comes
 * anew gets one whose debt is paid, else the one with the least. */
static struct meter *meter_find(struct quota *q, uint64_t key, uint64_t now_ns)
{
    struct meters *set = &q->meters[(uint32_t)key & (q->meters_count - 1)];
    struct meter *least = NULL;
    uint64_t least_ns = UINT64_MAX, was = 0;

    for (unsigned i = 0; i < METER_WAYS; i++) {
        struct meter *m = &set->way[i];
        uint64_t k = atomic_load_explicit(&m->key, memory_order_relaxed);
        uint64_t tat = atomic_load_explicit(&m->tat_ns, memory_order_relaxed);

        if (k == key)
            return m;
        if (!least || tat < least_ns) {
            least = m;
            least_ns = tat;
            was = k;
        }
    }
    if (!atomic_compare_exchange_strong_explicit(&least->key, &was, key, memory_order_relaxed,
                                                 memory_order_relaxed))
        return NULL;
    if (least_ns > now_ns) /* its last one's debt is not this one's */
        atomic_store_explicit(&least->tat_ns, now_ns, memory_order_relaxed);
    return least;
}

bool rate_spend(struct quota *q, uint64_t key, uint64_t now_ns, uint64_t cost_ns, uint64_t depth_ns)
{
    if (!q->meters)
        return true;
    for (int tries = 0; tries < RATE_TRIES; tries++) {
        struct meter *m = meter_find(q, key, now_ns);
        uint64_t tat = m ? atomic_load_explicit(&m->tat_ns, memory_order_relaxed) : 0, next;

        if (!m)
            continue;
        next = tat > now_ns ? tat : now_ns;
        if (next - now_ns > depth_ns)
            return false;
        if (__builtin_add_overflow(next, cost_ns, &next))
            next = UINT64_MAX;
        if (atomic_compare_exchange_strong_explicit(&m->tat_ns, &tat, next, memory_order_relaxed,
                                                    memory_order_relaxed))
            return true;
    }
    return true;
}
