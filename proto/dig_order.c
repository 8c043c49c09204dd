/* proto/dig_order.c: a skip list of chunks. A binary tree of single items would cost a cache miss
 * per item on every walk; chunks make a walk sequential and let the upper levels stay in the cache.
 */
#include "proto/dig_order.h"

enum { HALF = DIG_ORDER_CHUNK / 2 };

uint64_t dig_order_prefix(struct bytes whole)
{
    uint64_t v = 0;

    for (size_t i = 0; i < sizeof(v); i++)
        v = v << 8 | (i < whole.n ? whole.p[i] : 0);
    return v;
}

void dig_order_pool_init(struct dig_order_pool *p, void *mem, uint32_t chunks, uint64_t dice)
{
    *p = (struct dig_order_pool){ .chunk = mem, .max = chunks, .dice = dice };
}

/* One level more with a chance of a quarter, from splitmix64. */
static uint32_t roll_height(struct dig_order_pool *p)
{
    uint64_t z = p->dice += UINT64_C(0x9e3779b97f4a7c15);
    uint32_t height = 1;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    for (z ^= z >> 31; height < DIG_ORDER_LEVELS && (z & 3) == 0; z >>= 2)
        height++;
    return height;
}

static struct dig_order_chunk *chunk_of(const struct dig_order_pool *p, uint32_t c)
{
    return &p->chunk[c - 1];
}

static uint32_t chunk_take(struct dig_order_pool *p)
{
    uint32_t c = p->free;

    if (c) {
        p->free = chunk_of(p, c)->prev;
    } else {
        ASSERT(p->fresh < p->max);
        c = ++p->fresh; /* pages that nobody needed yet stay untouched */
    }
    *chunk_of(p, c) = (struct dig_order_chunk){ .height = roll_height(p) };
    p->used++;
    return c;
}

static void chunk_release(struct dig_order_pool *p, uint32_t c)
{
    chunk_of(p, c)->prev = p->free;
    p->free = c;
    p->used--;
}

static int compare_whole(struct bytes a, struct bytes b)
{
    size_t n = min_sz(a.n, b.n);
    int d = n ? memcmp(a.p, b.p, n) : 0;

    return d ? d : (a.n > b.n) - (a.n < b.n);
}

/* Is the item below the key? */
static bool item_below(const struct dig_order_by *by, uint32_t item, uint64_t prefix,
                       const struct dig_order_key *key)
{
    if (prefix != key->prefix)
        return prefix < key->prefix;
    return by->whole && compare_whole(by->whole(by->arg, item), key->whole) < 0;
}

static uint32_t *next_of(struct dig_order_pool *p, struct dig_order *o, uint32_t c, size_t level)
{
    return c ? &chunk_of(p, c)->next[level] : &o->next[level];
}

/* path[l]: the last chunk of level l whose first item is below the key; 0: the head. */
static void find_path(const struct dig_order_pool *p, const struct dig_order *o,
                      const struct dig_order_by *by, const struct dig_order_key *key,
                      uint32_t path[DIG_ORDER_LEVELS])
{
    uint32_t at = 0;

    for (size_t level = DIG_ORDER_LEVELS; level-- > 0;) {
        for (;;) {
            uint32_t next = at ? chunk_of(p, at)->next[level] : o->next[level];

            if (!next || !item_below(by, chunk_of(p, next)->item[0], chunk_of(p, next)->low, key))
                break;
            at = next;
        }
        path[level] = at;
    }
}

/* The first place in the chunk whose item is not below the key; n if all are. */
static uint32_t find_pos(const struct dig_order_chunk *c, const struct dig_order_by *by,
                         const struct dig_order_key *key)
{
    uint32_t lo = 0, hi = c->n;

    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2, item = c->item[mid];

        if (item_below(by, item, by->prefix(by->arg, item), key))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct dig_order_key key_of(const struct dig_order_by *by, uint32_t item)
{
    return (struct dig_order_key){
        .prefix = by->prefix(by->arg, item),
        .whole = by->whole ? by->whole(by->arg, item) : (struct bytes){ NULL, 0 },
    };
}

/* Who is before the chunk that follows `c` on a level, c being reached by that path. */
static uint32_t before_next(const struct dig_order_pool *p, const uint32_t *path, uint32_t c,
                            size_t level)
{
    return c && level < chunk_of(p, c)->height ? c : path[level];
}

static void link_after(struct dig_order_pool *p, struct dig_order *o, const uint32_t *path,
                       uint32_t c, uint32_t fresh)
{
    struct dig_order_chunk *f = chunk_of(p, fresh);

    for (size_t level = 0; level < f->height; level++) {
        uint32_t *next = next_of(p, o, before_next(p, path, c, level), level);

        f->next[level] = *next;
        *next = fresh;
    }
    f->prev = c;
    if (f->next[0])
        chunk_of(p, f->next[0])->prev = fresh;
    else
        o->last = fresh;
}

static void unlink_next(struct dig_order_pool *p, struct dig_order *o, const uint32_t *path,
                        uint32_t c)
{
    uint32_t gone = *next_of(p, o, c, 0);
    const struct dig_order_chunk *g = chunk_of(p, gone);

    for (size_t level = 0; level < g->height; level++) {
        uint32_t *next = next_of(p, o, before_next(p, path, c, level), level);

        ASSERT(*next == gone);
        *next = g->next[level];
    }
    if (g->next[0])
        chunk_of(p, g->next[0])->prev = c;
    else
        o->last = c;
    chunk_release(p, gone);
}

/* The upper half of a full chunk goes to a new one behind it. */
static uint32_t split(struct dig_order_pool *p, struct dig_order *o, const struct dig_order_by *by,
                      const uint32_t *path, uint32_t c)
{
    uint32_t fresh = chunk_take(p);
    struct dig_order_chunk *from = chunk_of(p, c), *to = chunk_of(p, fresh);

    to->n = from->n - HALF;
    memcpy(to->item, from->item + HALF, to->n * sizeof(to->item[0]));
    to->low = by->prefix(by->arg, to->item[0]);
    from->n = HALF;
    link_after(p, o, path, c, fresh);
    return fresh;
}

void dig_order_insert(struct dig_order_pool *p, struct dig_order *o, const struct dig_order_by *by,
                      uint32_t item)
{
    struct dig_order_key key = key_of(by, item);
    uint32_t path[DIG_ORDER_LEVELS], c, pos;

    find_path(p, o, by, &key, path);
    c = path[0] ? path[0] : o->next[0];
    if (!c) {
        c = chunk_take(p);
        link_after(p, o, path, 0, c);
    }
    pos = find_pos(chunk_of(p, c), by, &key);
    ASSERT(pos == chunk_of(p, c)->n || chunk_of(p, c)->item[pos] != item);
    if (chunk_of(p, c)->n == DIG_ORDER_CHUNK) {
        uint32_t upper = split(p, o, by, path, c);

        if (pos > HALF) {
            c = upper;
            pos -= HALF;
        }
    }
    struct dig_order_chunk *to = chunk_of(p, c);

    memmove(to->item + pos + 1, to->item + pos, (to->n - pos) * sizeof(to->item[0]));
    to->item[pos] = item;
    to->n++;
    if (pos == 0)
        to->low = key.prefix;
    o->count++;
}

/* Joins the chunk behind `c` to it if both fit into half a chunk. */
static void join_next(struct dig_order_pool *p, struct dig_order *o, const uint32_t *path,
                      uint32_t c)
{
    struct dig_order_chunk *to = chunk_of(p, c);
    const struct dig_order_chunk *from = to->next[0] ? chunk_of(p, to->next[0]) : NULL;

    if (!from || to->n + from->n > HALF)
        return;
    memcpy(to->item + to->n, from->item, from->n * sizeof(to->item[0]));
    to->n += from->n;
    unlink_next(p, o, path, c);
}

void dig_order_remove(struct dig_order_pool *p, struct dig_order *o, const struct dig_order_by *by,
                      uint32_t item)
{
    struct dig_order_key key = key_of(by, item);
    uint32_t path[DIG_ORDER_LEVELS];

    find_path(p, o, by, &key, path);
    uint32_t c = *next_of(p, o, path[0], 0), pos = 0;

    if (!c || chunk_of(p, c)->item[0] != item) {
        c = path[0];
        ASSERT(c);
        pos = find_pos(chunk_of(p, c), by, &key);
    }
    struct dig_order_chunk *from = chunk_of(p, c);

    ASSERT(pos < from->n);
    ASSERT(from->item[pos] == item);
    from->n--;
    o->count--;
    memmove(from->item + pos, from->item + pos + 1, (from->n - pos) * sizeof(from->item[0]));
    if (from->n == 0) {
        unlink_next(p, o, path, path[0]); /* pos was 0: this is the path to it */
        return;
    }
    if (pos == 0)
        from->low = by->prefix(by->arg, from->item[0]);
    join_next(p, o, path, c);
    if (from->prev && chunk_of(p, from->prev)->n + from->n <= HALF) {
        key = key_of(by, chunk_of(p, from->prev)->item[0]);
        uint32_t prev = from->prev;

        find_path(p, o, by, &key, path);
        join_next(p, o, path, prev);
    }
}

struct dig_order_at dig_order_seek(const struct dig_order_pool *p, const struct dig_order *o,
                                   const struct dig_order_by *by, struct dig_order_key key)
{
    uint32_t path[DIG_ORDER_LEVELS];

    find_path(p, o, by, &key, path);
    if (!path[0])
        return dig_order_first(o);
    struct dig_order_at at = { path[0], find_pos(chunk_of(p, path[0]), by, &key) };

    if (at.pos == chunk_of(p, at.chunk)->n)
        at = (struct dig_order_at){ chunk_of(p, at.chunk)->next[0], 0 };
    return at;
}

struct dig_order_at dig_order_first(const struct dig_order *o)
{
    return (struct dig_order_at){ o->next[0], 0 };
}

struct dig_order_at dig_order_last(const struct dig_order_pool *p, const struct dig_order *o)
{
    return (struct dig_order_at){ o->last, o->last ? chunk_of(p, o->last)->n - 1 : 0 };
}

struct dig_order_at dig_order_next(const struct dig_order_pool *p, struct dig_order_at at)
{
    const struct dig_order_chunk *c = chunk_of(p, at.chunk);

    if (at.pos + 1 < c->n)
        return (struct dig_order_at){ at.chunk, at.pos + 1 };
    return (struct dig_order_at){ c->next[0], 0 };
}

struct dig_order_at dig_order_prev(const struct dig_order_pool *p, struct dig_order_at at)
{
    const struct dig_order_chunk *c = chunk_of(p, at.chunk);

    if (at.pos > 0)
        return (struct dig_order_at){ at.chunk, at.pos - 1 };
    return (struct dig_order_at){ c->prev, c->prev ? chunk_of(p, c->prev)->n - 1 : 0 };
}
