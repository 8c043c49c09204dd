/* store/names_block.c: blocks of profiles in the order of their keys, and moving them together. */
#include "store/names_int.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the order of blocks ------------------------------------------------------------------- */

static void renumber(struct names *n, uint32_t from)
{
    for (uint32_t i = from; i < n->blocks_n; i++)
        n->order[i]->at = i;
}

/* Whether a block at `at` is one of those that are being emptied. */
static bool in_window(const struct names *n, uint32_t at)
{
    return n->job.dest && at > n->job.dest->at && at <= n->job.dest->at + n->job.left;
}

static struct block *block_new(struct names *n, uint64_t lo)
{
    struct block *b;

    if (n->blocks_n >= n->blocks_max)
        return NULL;
    b = aligned_alloc(64, (sizeof(*b) + 63) / 64 * 64);
    if (!b)
        return NULL;
    memset(b, 0, sizeof(*b));
    b->lo = lo;
    return b;
}

static void order_insert(struct names *n, uint32_t at, struct block *b)
{
    ASSERT(n->blocks_n < n->blocks_max);
    ASSERT(at <= n->blocks_n);
    memmove(n->order + at + 1, n->order + at, (n->blocks_n - at) * sizeof(struct block *));
    n->order[at] = b;
    n->blocks_n++;
    if (in_window(n, at))
        n->job.left++;
    renumber(n, at);
}

static void order_remove(struct names *n, struct block *b)
{
    uint32_t at = b->at;

    ASSERT(n->order[at] == b);
    ASSERT(b != n->job.dest);
    if (in_window(n, at))
        n->job.left--;
    n->blocks_n--;
    memmove(n->order + at, n->order + at + 1, (n->blocks_n - at) * sizeof(struct block *));
    renumber(n, at);
    free(b);
}

/* The block whose keys begin at or below key: the last such, or the first of all. */
static uint32_t find_block(const struct names *n, uint64_t key)
{
    uint32_t lo = 0;
    uint32_t hi = n->blocks_n;

    if (hi > 0 && n->order[hi - 1]->lo <= key)
        return hi - 1;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (n->order[mid]->lo <= key)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* ---- columns ------------------------------------------------------------------------------- */

/* Calls f for every row of a name, some of them more than once. */
static inline void each_row(const struct names *n, const struct profile *p,
                            void (*f)(void *ctx, uint32_t row), void *ctx)
{
    const uint8_t *t = p->text;

    for (uint32_t i = 0; i < p->name_n; i++) {
        f(ctx, n->row_of[t[i]]);
        if (i + 1U < p->name_n) {
            f(ctx, row_pair(n, t[i], t[i + 1]));
            if (row_leads(t[i])) {
                f(ctx, row_letter(n, t[i], t[i + 1]));
                f(ctx, row_letter_too(n, t[i], t[i + 1]));
            }
        }
        if (i + 2U < p->name_n)
            f(ctx, row_triple(n, t[i], t[i + 1], t[i + 2]));
    }
}

struct marking {
    uint64_t *word; /* of row 0 */
    uint64_t bit;
    uint32_t *row_n;
};

static inline void mark_row(void *ctx, uint32_t row)
{
    struct marking *m = ctx;

    m->word[row * WORDS] |= m->bit;
}

static inline void mark_and_count_row(void *ctx, uint32_t row)
{
    struct marking *m = ctx;

    m->word[row * WORDS] |= m->bit;
    m->row_n[row]++;
}

static inline void uncount_row(void *ctx, uint32_t row)
{
    struct names *n = ctx;

    n->row_n[row]--;
}

/* The next column of a block that has one; `first`: p's first ever, its rows are counted. */
static void take(struct names *n, struct block *b, struct profile *p, bool first)
{
    uint32_t col = b->used++;
    struct marking m = { &b->row[0][col / 64], UINT64_C(1) << (col & 63), n->row_n };

    ASSERT(col < NAMES_BLOCK);
    if (p->key < b->lo)
        b->lo = p->key;
    if (b->live_n > 0 && p->key < b->hi)
        b->mixed = true;
    if (p->key > b->hi)
        b->hi = p->key;
    if (first)
        each_row(n, p, mark_and_count_row, &m);
    else
        each_row(n, p, mark_row, &m);
    b->col[col] = p;
    b->live[col / 64] |= m.bit;
    b->live_n++;
    p->block = b;
    p->col = (uint16_t)col;
}

/* Without freeing the block. */
static void drop(struct profile *p)
{
    struct block *b = p->block;

    ASSERT(b->col[p->col] == p);
    b->col[p->col] = NULL;
    b->live[p->col / 64] &= ~(UINT64_C(1) << (p->col & 63));
    b->live_n--;
    p->block = NULL;
}

/* ---- a block anew, as one or as two --------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;

    return (x->key > y->key) - (x->key < y->key);
}

void names_sort(struct ranked *v, size_t count)
{
    if (count > 1)
        qsort(v, count, sizeof(*v), by_key);
}

/* Writes the block's profiles, in the order of keys, to blocks of their own: one, or two when it is
 * nearly full of living ones. */
static int block_anew(struct names *n, struct block *b)
{
    struct block *half[2] = { NULL, NULL };
    uint32_t left = n->job.left;
    uint32_t count = 0;
    uint32_t first;

    if (b->live_n == 0) { /* only the one that others are moved to may be empty */
        ASSERT(b == n->job.dest);
        memset(b->row, 0, sizeof(b->row));
        b->used = 0;
        b->hi = 0;
        b->mixed = false;
        return 0;
    }
    for (uint32_t c = 0; c < b->used; c++)
        if (b->col[c])
            n->scratch[count++] = (struct ranked){ b->col[c]->key, b->col[c] };
    ASSERT(count == b->live_n);
    if (b->mixed)
        names_sort(n->scratch, count);
    first = count > NAMES_BLOCK / 4 * 3 ? count / 2 : count;
    half[0] = block_new(n, b->lo);
    if (!half[0])
        return -ENOMEM;
    if (first < count && n->blocks_n + 2 <= n->blocks_max)
        half[1] = block_new(n, n->scratch[first].key);
    if (first < count && !half[1]) {
        free(half[0]);
        return -ENOMEM;
    }
    order_insert(n, b->at + 1, half[0]);
    if (half[1])
        order_insert(n, b->at + 2, half[1]);
    for (uint32_t i = 0; i < count; i++) {
        drop(n->scratch[i].p);
        take(n, half[i >= first], n->scratch[i].p, false);
    }
    if (n->job.dest == b) { /* it goes on behind what it has */
        n->job.dest = half[1] ? half[1] : half[0];
        n->job.left = left;
    }
    n->moved += count;
    order_remove(n, b);
    return 0;
}

/* ---- places -------------------------------------------------------------------------------- */

int names_open_block(struct names *n, uint64_t lo)
{
    struct block *b;

    if (n->blocks_n > 0 && n->order[0]->lo <= lo)
        return 0;
    b = block_new(n, lo);
    if (!b)
        return -ENOMEM;
    order_insert(n, 0, b);
    return 0;
}

/* A block with a free column for key. */
static struct block *room(struct names *n, uint64_t key)
{
    for (;;) {
        uint32_t at = n->blocks_n > 0 ? find_block(n, key) : 0;
        struct block *b = n->blocks_n > 0 ? n->order[at] : NULL;
        bool behind = b && key >= b->hi && key >= b->lo;

        if (b && b->used < NAMES_BLOCK)
            return b;
        if (!b || behind) { /* the ordinary case: everything comes newest of all */
            struct block *fresh = block_new(n, key);

            if (fresh)
                order_insert(n, b ? at + 1 : 0, fresh);
            return fresh;
        }
        if (block_anew(n, b) != 0)
            return NULL;
    }
}

int names_place(struct names *n, struct profile *p)
{
    struct block *b = room(n, p->key);

    ASSERT(!p->block);
    if (!b)
        return -ENOMEM;
    take(n, b, p, true);
    return 0;
}

static void free_if_empty(struct names *n, struct block *b)
{
    if (b->live_n == 0 && b != n->job.dest)
        order_remove(n, b);
}

void names_lift(struct names *n, struct profile *p)
{
    struct block *b = p->block;

    each_row(n, p, uncount_row, n);
    drop(p);
    free_if_empty(n, b);
}

int names_replace(struct names *n, struct profile *p, uint64_t key)
{
    struct block *b = room(n, key); /* may move p, but never lose it */
    struct block *old = p->block;

    if (!b)
        return -ENOMEM;
    if (old)
        drop(p);
    p->key = key;
    take(n, b, p, !old);
    if (old)
        free_if_empty(n, old);
    return 0;
}

/* ---- moving together ----------------------------------------------------------------------- */

/* Looks for the run of blocks of which the fewest live, and begins to empty it into a new one
 * before it. The newest block fills up by itself. */
static void job_begin(struct names *n)
{
    uint32_t width = n->blocks_n - 1 < WINDOW ? n->blocks_n - 1 : WINDOW;
    uint32_t best = 0;
    uint64_t sum = 0;
    uint64_t least = UINT64_MAX;
    struct block *b;

    for (uint32_t i = 0; i + 1 < n->blocks_n; i++) {
        sum += n->order[i]->live_n;
        if (i + 1 < width)
            continue;
        if (sum < least) {
            least = sum;
            best = i + 1 - width;
        }
        sum -= n->order[i + 1 - width]->live_n;
    }
    if (width == 0 || (least + NAMES_BLOCK - 1) / NAMES_BLOCK >= width) {
        n->job.rest = NAMES_BLOCK / 16;
        return;
    }
    b = block_new(n, n->order[best]->lo);
    if (!b) {
        n->job.rest = NAMES_BLOCK / 16;
        return;
    }
    order_insert(n, best, b);
    n->job.dest = b;
    n->job.left = width;
}

static void job_end(struct names *n)
{
    struct block *b = n->job.dest;

    n->job.dest = NULL;
    n->job.left = 0;
    if (b && b->live_n == 0)
        order_remove(n, b);
}

/* The oldest of the block after dest goes to dest's end: both are in order all the time. */
static bool job_move(struct names *n, struct block *from)
{
    struct block *dest = n->job.dest;
    struct profile *p = NULL;

    for (uint32_t w = 0; w < WORDS && !p; w++)
        if (from->live[w])
            p = from->col[w * 64 + (uint32_t)__builtin_ctzll(from->live[w])];
    ASSERT(p != NULL);
    if (dest->used == NAMES_BLOCK) {
        struct block *next = block_new(n, p->key);

        if (!next)
            return false;
        order_insert(n, dest->at + 1, next);
        n->job.left--; /* it is no source */
        n->job.dest = next;
        if (dest->live_n == 0)
            order_remove(n, dest);
        dest = next;
    }
    from->lo = p->key; /* what belongs before it, belongs to dest */
    drop(p);
    take(n, dest, p, false);
    n->moved++;
    if (from->live_n == 0)
        order_remove(n, from);
    return true;
}

void names_together(struct names *n, uint32_t moves)
{
    if (n->job.rest > 0) {
        n->job.rest--;
        return;
    }
    while (moves > 0) {
        struct block *from;

        if (!n->job.dest) {
            uint64_t columns = (uint64_t)n->blocks_n * NAMES_BLOCK;

            if (n->blocks_n <= SLACK + 1 ||
                (columns - (uint64_t)SLACK * NAMES_BLOCK) * 3 <= (uint64_t)n->profiles_n * 4)
                return;
            job_begin(n);
            if (!n->job.dest)
                return;
        }
        if (n->job.left == 0 || n->job.dest->at + 2 >= n->blocks_n) {
            job_end(n);
            continue;
        }
        from = n->order[n->job.dest->at + 1];
        if (from->mixed ? block_anew(n, from) != 0 : !job_move(n, from)) {
            job_end(n);
            n->job.rest = NAMES_BLOCK / 16;
            return;
        }
        moves--;
    }
}
