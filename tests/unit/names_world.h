/* tests/unit/names_world.h: memory that runs out, a model of the index of names, names and queries
 * to try it with, and what must hold inside it. For test_names.c. */
#ifndef SLUICE_TESTS_NAMES_WORLD_H
#define SLUICE_TESTS_NAMES_WORLD_H

#include "store/names_int.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const uint8_t seed[16] = "names under test";

/* ---- memory that runs out ------------------------------------------------------------------- */

static long allocations_left = -1; /* negative: without end */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

static bool granted(void)
{
    if (allocations_left < 0)
        return true;
    if (allocations_left == 0)
        return false;
    allocations_left--;
    return true;
}

void *__wrap_malloc(size_t n)
{
    return granted() ? __real_malloc(n) : NULL;
}

void *__wrap_calloc(size_t n, size_t size)
{
    return granted() ? __real_calloc(n, size) : NULL;
}

void *__wrap_realloc(void *p, size_t n)
{
    return granted() ? __real_realloc(p, n) : NULL;
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return granted() ? __real_aligned_alloc(align, n) : NULL;
}

/* ---- the model: a table that is scanned ------------------------------------------------------ */

enum { PEERS = 3000 };

struct known {
    bool there, findable;
    uint64_t seen, stamp;
    uint8_t name[NAMES_BYTES_MAX];
    size_t name_n;
};

static struct known model[PEERS];
static uint64_t stamp;
static uint64_t dice;

static uint32_t any(uint32_t n)
{
    uint64_t z = dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) % n);
}

static struct bytes peer_name(uint32_t i)
{
    static char text[4][48];
    static unsigned turn;
    char *t = text[turn++ % 4];

    return bytes_of(t, (size_t)snprintf(t, 48, "12D3KooWpeer%u", i));
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

static bool has(const struct known *k, struct bytes q)
{
    for (size_t i = 0; i + q.n <= k->name_n; i++) {
        size_t same = 0;

        while (same < q.n && lower(k->name[i + same]) == lower(q.p[same]))
            same++;
        if (same == q.n)
            return true;
    }
    return false;
}

static bool newer(uint32_t a, uint32_t b)
{
    return model[a].seen != model[b].seen ? model[a].seen > model[b].seen
                                          : model[a].stamp > model[b].stamp;
}

static size_t model_find(struct bytes q, int64_t exact, size_t max, uint32_t *out)
{
    size_t n = 0;

    for (uint32_t i = 0; i < PEERS; i++) {
        size_t at;

        if (!model[i].there || !model[i].findable || !has(&model[i], q))
            continue;
        if (n == max && (n == 0 || newer(out[n - 1], i)))
            continue;
        for (at = n < max ? n++ : n - 1; at > 0 && newer(i, out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = i;
    }
    if (exact >= 0 && model[exact].there && max > 0) {
        size_t at;

        for (size_t i = 0; i < n; i++)
            if (out[i] == exact)
                return n;
        if (n == max)
            n--;
        for (at = n++; at > 0 && newer((uint32_t)exact, out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = (uint32_t)exact;
    }
    return n;
}

static void check_find(struct names *n, struct bytes q, int64_t exact, size_t max)
{
    struct names_hit hits[NAMES_FIND_MAX];
    uint32_t want[NAMES_FIND_MAX];
    size_t wanted = model_find(q, exact, max, want);
    size_t got =
        names_find(n, q, exact < 0 ? bytes_of(NULL, 0) : peer_name((uint32_t)exact), max, hits);

    cr_assert(eq(sz, got, wanted), "for '%.*s'", (int)q.n, (const char *)q.p);
    for (size_t i = 0; i < got; i++) {
        cr_assert(bytes_eq(hits[i].peer, peer_name(want[i])), "for '%.*s' at %zu: %.*s, not peer%u",
                  (int)q.n, (const char *)q.p, i, (int)hits[i].peer.n, (const char *)hits[i].peer.p,
                  want[i]);
        cr_assert(eq(u64, hits[i].last_seen_s, model[want[i]].seen));
    }
}

/* ---- what must hold inside ------------------------------------------------------------------- */

static void count_rows(const struct names *n, const struct profile *p, uint32_t rows[ROWS])
{
    const uint8_t *t = p->text;

    for (uint32_t i = 0; i < p->name_n; i++) {
        rows[n->row_of[t[i]]]++;
        if (i + 1 < p->name_n)
            rows[row_pair(n, t[i], t[i + 1])]++;
        if (i + 1 < p->name_n && t[i] >= 0xc0) {
            rows[row_letter(n, t[i], t[i + 1])]++;
            rows[row_letter_too(n, t[i], t[i + 1])]++;
        }
        if (i + 2 < p->name_n)
            rows[row_triple(n, t[i], t[i + 1], t[i + 2])]++;
    }
}

static void check_inside(const struct names *n)
{
    uint64_t before = 0;
    uint32_t rows[ROWS] = { 0 };
    uint32_t placed = 0;

    for (uint32_t i = 0; i < n->blocks_n; i++) {
        const struct block *b = n->order[i];
        uint64_t last = 0;
        uint32_t live = 0;

        cr_assert(eq(u32, b->at, i));
        cr_assert(le(u64, before, b->lo), "block %u begins too early", i);
        cr_assert(b->live_n > 0 || b == n->job.dest, "an empty block is kept");
        for (uint32_t c = 0; c < NAMES_BLOCK; c++) {
            const struct profile *p = b->col[c];

            cr_assert(eq(int, p != NULL, (int)(b->live[c / 64] >> (c & 63) & 1)));
            if (!p)
                continue;
            live++;
            cr_assert(p->block == b);
            cr_assert(eq(u32, p->col, c));
            cr_assert(le(u64, b->lo, p->key));
            cr_assert(le(u64, before, p->key), "block %u holds what belongs before it", i);
            cr_assert(b->mixed || last < p->key);
            last = p->key;
            count_rows(n, p, rows);
        }
        cr_assert(eq(u32, live, b->live_n));
        placed += live;
        for (uint32_t c = 0; c < NAMES_BLOCK; c++)
            if (b->col[c] && b->col[c]->key > before)
                before = b->col[c]->key;
    }
    cr_assert(le(u32, placed, n->profiles_n));
    for (uint32_t r = 0; r < ROWS; r++)
        cr_assert(eq(u32, n->row_n[r], rows[r]), "row %u", r);
}

/* ---- names and queries ---------------------------------------------------------------------- */

static size_t make_name(uint8_t *to)
{
    static const char *const parts[] = { "al",
                                         "ice",
                                         "bo",
                                         "b",
                                         "Ali",
                                         "-",
                                         "_",
                                         "%",
                                         "aaa",
                                         "a",
                                         "zz",
                                         "Zo\xc3\xab",
                                         "\xd0\x96\xd1\x83",
                                         "Q",
                                         "x9",
                                         " ",
                                         "\xf0\x9f\x90\xb3",
                                         "the",
                                         "THE",
                                         "q" };
    size_t n = 0;
    uint32_t count = any(20) == 0 ? 40 : 1 + any(5);

    for (uint32_t i = 0; i < count; i++) {
        const char *part = parts[any(ARRAY_LEN(parts))];

        if (n + strlen(part) > NAMES_BYTES_MAX)
            break;
        memcpy(to + n, part, strlen(part));
        n += strlen(part);
    }
    return n;
}

/* A piece of somebody's name, in another case, or of none. */
static size_t make_query(uint8_t *to)
{
    const struct known *k = &model[any(PEERS)];
    size_t n;

    if (k->name_n == 0 || any(4) == 0) {
        n = make_name(to);
        return n > 6 ? any(6) : n;
    }
    n = 1 + any(any(3) ? 4 : (uint32_t)k->name_n);
    if (n > k->name_n)
        n = k->name_n;
    memcpy(to, k->name + any((uint32_t)(k->name_n - n + 1)), n);
    for (size_t i = 0; i < n; i++)
        if (to[i] >= 'a' && to[i] <= 'z' && any(2))
            to[i] = (uint8_t)(to[i] - 32);
    if (any(10) == 0)
        to[any((uint32_t)n)] = '!';
    return n;
}

static void set(uint32_t i, const uint8_t *name, size_t name_n, uint64_t seen)
{
    struct known *k = &model[i];
    uint8_t folded[NAMES_BYTES_MAX];
    bool same = k->there && k->name_n == name_n && k->findable && k->seen == seen;

    for (size_t b = 0; b < name_n; b++)
        folded[b] = lower(name[b]);
    for (size_t b = 0; same && b < name_n; b++)
        same = lower(k->name[b]) == folded[b];
    if (same)
        return; /* nothing is new */
    *k = (struct known){
        .there = true, .findable = true, .seen = seen, .stamp = ++stamp, .name_n = name_n
    };
    memcpy(k->name, name, name_n);
}

static void forget_all(void)
{
    memset(model, 0, sizeof(model));
    stamp = 0;
}

enum pace { FORWARD, STANDING, JUMPING };

/* The clock as it mostly is, as it is within a second, and as it is when somebody sets it. */
static uint64_t next_seen(uint64_t now, enum pace pace)
{
    if (pace == FORWARD)
        return now + any(2);
    if (pace == STANDING)
        return now;
    return 1000 + any(5000);
}

static void one_op(struct names *n, uint64_t *now, enum pace pace)
{
    uint8_t text[NAMES_BYTES_MAX];
    uint32_t i = any(PEERS);
    uint32_t what = any(100);
    size_t text_n;
    int err;

    *now = next_seen(*now, pace);
    if (what < 40) {
        text_n = make_name(text);
        err = names_put(n, peer_name(i), bytes_of(text, text_n), *now);
        cr_assert(eq(int, err, 0));
        set(i, text, text_n, *now);
    } else if (what < 75) {
        err = names_touch(n, peer_name(i), *now);
        cr_assert(eq(int, err, model[i].there ? 0 : -ENOENT));
        if (model[i].there && (model[i].seen != *now || !model[i].findable)) {
            model[i].seen = *now;
            model[i].stamp = ++stamp;
            model[i].findable = true;
        }
    } else if (what < 80) {
        cr_assert(eq(int, names_remove(n, peer_name(i)), model[i].there));
        model[i].there = false;
    } else {
        text_n = make_query(text);
        check_find(n, bytes_of(text, text_n), any(8) ? -1 : (int64_t)any(PEERS),
                   any(3) ? NAMES_FIND_MAX : any(NAMES_FIND_MAX + 1));
    }
}

#endif
