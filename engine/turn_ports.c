#include "engine/turn_ports.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "engine/rng.h"

/* A word: 0: free, and never taken; TAKEN; else free since so many ms less one. */
#define TAKEN UINT64_MAX

struct turn_ports {
    uint16_t lo, hi;
    uint32_t rest_ms;
    _Atomic uint32_t used;
    _Atomic uint64_t word[]; /* of port lo + i */
};

enum { PASSES_MAX = 4 }; /* each one lost to another thread that took the same port */

struct turn_ports *turn_ports_new(uint16_t lo, uint16_t hi, uint32_t rest_ms)
{
    struct turn_ports *p;
    size_t n = (size_t)hi - lo + 1;

    ASSERT(lo > 0);
    ASSERT(lo <= hi);
    p = calloc(1, sizeof(*p) + n * sizeof(p->word[0]));
    if (!p)
        return NULL;
    p->lo = lo;
    p->hi = hi;
    p->rest_ms = rest_ms;
    return p;
}

void turn_ports_free(struct turn_ports *p)
{
    free(p);
}

static _Atomic uint64_t *word_at(struct turn_ports *p, uint32_t port)
{
    return &p->word[port - p->lo];
}

/* For how long a port has been free: UINT64_MAX: since ever; false: it is taken. */
static bool free_for(struct turn_ports *p, uint32_t port, uint64_t now_ms, uint64_t *ms)
{
    uint64_t w = atomic_load_explicit(word_at(p, port), memory_order_relaxed);

    if (w == TAKEN)
        return false;
    if (w == 0)
        *ms = UINT64_MAX;
    else
        *ms = now_ms > w - 1 ? now_ms - (w - 1) : 0; /* another shard's clock may be ahead */
    return true;
}

/* Takes one port that is free for need_ms; *was is what to put back. */
static bool claim(struct turn_ports *p, uint32_t port, uint64_t now_ms, uint64_t need_ms,
                  uint64_t *was)
{
    uint64_t w = atomic_load_explicit(word_at(p, port), memory_order_relaxed);

    if (w == TAKEN || (w != 0 && (now_ms < w - 1 || now_ms - (w - 1) < need_ms)))
        return false;
    *was = w;
    return atomic_compare_exchange_strong_explicit(word_at(p, port), &w, TAKEN,
                                                   memory_order_acquire, memory_order_relaxed);
}

static bool claim_wish(struct turn_ports *p, uint32_t port, enum turn_port_wish wish,
                       uint64_t now_ms, uint64_t need_ms)
{
    uint64_t was, unused;

    if (!claim(p, port, now_ms, need_ms, &was))
        return false;
    if (wish == TURN_PORT_PAIR && !claim(p, port + 1, now_ms, need_ms, &unused)) {
        atomic_store_explicit(word_at(p, port), was, memory_order_release); /* ours until now */
        return false;
    }
    atomic_fetch_add_explicit(&p->used, wish == TURN_PORT_PAIR ? 2 : 1, memory_order_relaxed);
    return true;
}

/* The ports that a wish may get: first, first + step, ... of which there are `count`. */
struct choice {
    uint32_t first, step, count;
};

static struct choice choice_of(const struct turn_ports *p, enum turn_port_wish wish)
{
    uint32_t first = p->lo, last = p->hi;

    if (wish == TURN_PORT_ANY)
        return (struct choice){ first, 1, last - first + 1 };
    first += first & 1;
    if (wish == TURN_PORT_PAIR)
        last -= 1; /* the odd one above is in the range, too */
    return (struct choice){ first, 2, first > last ? 0 : (last - first) / 2 + 1 };
}

/* One pass from a random place: the first that has rested, else the one that has rested longest. */
static uint16_t pass(struct turn_ports *p, const struct choice *c, enum turn_port_wish wish,
                     uint64_t now_ms, bool *lost)
{
    uint32_t start = (uint32_t)rng_below(c->count), best = 0;
    uint64_t longest = 0, need = p->rest_ms / 10;

    for (uint32_t i = 0; i < c->count; i++) {
        uint32_t port = c->first + (start + i) % c->count * c->step;
        uint64_t ms, other;

        if (!free_for(p, port, now_ms, &ms))
            continue;
        if (wish == TURN_PORT_PAIR) {
            if (!free_for(p, port + 1, now_ms, &other))
                continue;
            ms = min_u64(ms, other);
        }
        if (ms >= p->rest_ms && claim_wish(p, port, wish, now_ms, p->rest_ms))
            return (uint16_t)port;
        if (ms >= need && (best == 0 || ms > longest)) {
            best = port;
            longest = ms;
        }
    }
    *lost = best != 0;
    return best && claim_wish(p, best, wish, now_ms, need) ? (uint16_t)best : 0;
}

uint16_t turn_ports_take(struct turn_ports *p, uint64_t now_ms, enum turn_port_wish wish)
{
    struct choice c = choice_of(p, wish);
    bool lost = true;

    if (c.count == 0 || turn_ports_used(p) == turn_ports_count(p))
        return 0;
    for (int i = 0; i < TURN_PORT_DRAWS_MAX; i++) {
        uint32_t port = c.first + (uint32_t)rng_below(c.count) * c.step;

        if (claim_wish(p, port, wish, now_ms, p->rest_ms))
            return (uint16_t)port;
    }
    for (int i = 0; i < PASSES_MAX && lost; i++) {
        uint16_t port = pass(p, &c, wish, now_ms, &lost);

        if (port)
            return port;
    }
    return 0;
}

void turn_ports_give(struct turn_ports *p, uint64_t now_ms, uint16_t port)
{
    uint64_t was;

    ASSERT(port >= p->lo);
    ASSERT(port <= p->hi);
    was = atomic_exchange_explicit(word_at(p, port), now_ms + 1, memory_order_release);
    ASSERT(was == TAKEN);
    atomic_fetch_sub_explicit(&p->used, 1, memory_order_relaxed);
}

bool turn_ports_is_taken(const struct turn_ports *p, uint16_t port)
{
    return port >= p->lo && port <= p->hi &&
           atomic_load_explicit(&p->word[port - p->lo], memory_order_relaxed) == TAKEN;
}

uint32_t turn_ports_used(const struct turn_ports *p)
{
    return atomic_load_explicit(&p->used, memory_order_relaxed);
}

uint32_t turn_ports_count(const struct turn_ports *p)
{
    return (uint32_t)p->hi - p->lo + 1;
}
