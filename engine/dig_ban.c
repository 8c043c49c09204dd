/* Strikes and bans by source (dig.md §14): so many strikes within a window, and it is shut out for
 * a while. One table for all shards: sets of a few sources behind a test-and-set word held for a
 * dozen instructions; the least recent of a set is forgotten, a ban last of all. Only refusals and
 * accepts come here, never a message. */
#include <stdlib.h>

#include "engine/dig_int.h"

enum { SETS = 16384, WAYS = 4 }; /* 65536 sources (dig.md §14.2) */

struct source {
    uint64_t key; /* 0: free */
    uint64_t since_ms, banned_ms;
    uint32_t strikes;
};

struct set {
    atomic_flag taken;
    struct source way[WAYS];
};

struct dig_ban {
    uint32_t threshold;
    uint64_t window_ms, ban_ms;
    struct set set[SETS];
};

struct dig_ban *dig_ban_new(uint32_t threshold, uint64_t window_ms, uint64_t ban_ms)
{
    struct dig_ban *b = calloc(1, sizeof(*b)); /* touched as sources come */

    if (!b)
        return NULL;
    b->threshold = threshold;
    b->window_ms = window_ms;
    b->ban_ms = ban_ms;
    return b;
}

void dig_ban_free(struct dig_ban *b)
{
    free(b);
}

static struct set *set_take(struct dig_ban *b, uint64_t key)
{
    struct set *s = &b->set[key % SETS];

    while (atomic_flag_test_and_set_explicit(&s->taken, memory_order_acquire))
        ;
    return s;
}

static void set_give(struct set *s)
{
    atomic_flag_clear_explicit(&s->taken, memory_order_release);
}

static struct source *source_find(struct set *s, uint64_t key)
{
    for (int i = 0; i < WAYS; i++)
        if (s->way[i].key == key)
            return &s->way[i];
    return NULL;
}

static uint64_t last_use_ms(const struct source *w)
{
    return w->banned_ms > w->since_ms ? w->banned_ms : w->since_ms;
}

static struct source *source_new(struct set *s, uint64_t key, uint64_t now_ms)
{
    struct source *worst = &s->way[0];

    for (int i = 1; i < WAYS && worst->key; i++)
        if (!s->way[i].key || last_use_ms(&s->way[i]) < last_use_ms(worst))
            worst = &s->way[i];
    *worst = (struct source){ .key = key, .since_ms = now_ms };
    return worst;
}

void dig_strike(struct dig_ban *b, uint64_t source, uint64_t now_ms)
{
    struct set *s;
    struct source *w;

    if (!b->threshold)
        return;
    s = set_take(b, source);
    w = source_find(s, source);
    w = w ? w : source_new(s, source, now_ms);
    if (now_ms >= w->since_ms + b->window_ms) {
        w->since_ms = now_ms;
        w->strikes = 0;
    }
    if (++w->strikes >= b->threshold) {
        w->strikes = 0;
        w->since_ms = now_ms;
        w->banned_ms = now_ms + b->ban_ms;
    }
    set_give(s);
}

bool dig_banned(struct dig_ban *b, uint64_t source, uint64_t now_ms)
{
    struct set *s;
    struct source *w;
    bool banned;

    if (!b->threshold)
        return false;
    s = set_take(b, source);
    w = source_find(s, source);
    banned = w && now_ms < w->banned_ms;
    set_give(s);
    return banned;
}
