/* store/names_find.c: a search: rows joined by AND, the newest block first, then names compared. */
#include "store/names_int.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    ROWS_ASKED = 16, /* rows joined at most: the rarest */
    AHEAD = 32,      /* profiles are fetched so long before they are compared */
    NAME_COST = 64,  /* of a comparison besides the name's length: what it waits for memory */
    MATCH_COST = 32, /* of looking at a place in a name where the query may be */
};

struct query {
    uint8_t text[NAMES_BYTES_MAX];
    uint32_t n;
    uint32_t pivot; /* where in text its rarest pair is: there the comparison begins */
    uint32_t row[ROWS_ASKED];
    uint32_t rows_n;
    bool exact; /* the row says it all */
    uint64_t work;
    bool cut;
};

struct found {
    struct profile *p[NAMES_FIND_MAX];
    size_t n, max;
    struct profile *ahead[AHEAD]; /* a ring: candidates in order */
    uint32_t put, got;
};

/* ---- the query's rows ----------------------------------------------------------------------- */

static void ask_row(const struct names *n, struct query *q, uint32_t row)
{
    uint32_t at = q->rows_n;

    for (uint32_t i = 0; i < q->rows_n; i++)
        if (q->row[i] == row)
            return;
    if (at == ROWS_ASKED) {
        at--;
        if (n->row_n[q->row[at]] <= n->row_n[row])
            return;
    } else {
        q->rows_n++;
    }
    while (at > 0 && n->row_n[q->row[at - 1]] > n->row_n[row]) {
        q->row[at] = q->row[at - 1];
        at--;
    }
    q->row[at] = row;
}

/* False: nobody has one of its bytes, pairs or triples. */
static bool query_make(const struct names *n, struct query *q, struct bytes text)
{
    uint32_t least = UINT32_MAX;

    memset(q, 0, sizeof(*q));
    q->n = (uint32_t)text.n;
    names_fold(q->text, text);
    for (uint32_t i = 0; i < q->n; i++) {
        ask_row(n, q, n->row_of[q->text[i]]);
        if (i + 1 < q->n) {
            uint32_t row = row_pair(n, q->text[i], q->text[i + 1]);

            if (n->row_n[row] < least) {
                least = n->row_n[row];
                q->pivot = i;
            }
            ask_row(n, q, row);
            if (row_leads(q->text[i])) {
                ask_row(n, q, row_letter(n, q->text[i], q->text[i + 1]));
                ask_row(n, q, row_letter_too(n, q->text[i], q->text[i + 1]));
            }
        }
        if (i + 2 < q->n)
            ask_row(n, q, row_triple(n, q->text[i], q->text[i + 1], q->text[i + 2]));
    }
    q->exact = q->n == 0 || (q->n == 1 && n->row_of[q->text[0]] < ROW_ASCII);
    return q->rows_n == 0 || n->row_n[q->row[0]] > 0;
}

/* ---- comparing ----------------------------------------------------------------------------- */

/* Whether the query is in t[0..len). Up to 17 bytes behind t + len are read (profile_new). */
static bool contains(struct query *q, const uint8_t *t, uint32_t len)
{
    uint32_t last;

    if (len < q->n)
        return false;
    if (q->n == 1)
        return memchr(t, q->text[0], len) != NULL;
    last = len - q->n; /* the last place where it could begin */
    t += q->pivot;
#ifdef __SSE2__
    const __m128i a = _mm_set1_epi8((char)q->text[q->pivot]);
    const __m128i b = _mm_set1_epi8((char)q->text[q->pivot + 1]);

    for (uint32_t i = 0; i <= last; i += 16) {
        const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(t + i));
        const __m128i y = _mm_loadu_si128((const __m128i *)(const void *)(t + i + 1));
        unsigned hits =
            (unsigned)_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(x, a), _mm_cmpeq_epi8(y, b)));

        for (; hits; hits &= hits - 1) {
            uint32_t at = i + (uint32_t)__builtin_ctz(hits);

            if (at > last)
                break;
            q->work += MATCH_COST;
            if (memcmp(t + at - q->pivot, q->text, q->n) == 0)
                return true;
        }
    }
#else
    for (uint32_t i = 0; i <= last; i++) {
        if (t[i] != q->text[q->pivot] || t[i + 1] != q->text[q->pivot + 1])
            continue;
        q->work += MATCH_COST;
        if (memcmp(t + i - q->pivot, q->text, q->n) == 0)
            return true;
    }
#endif
    return false;
}

/* False: there are enough, or it was enough work. */
static bool compare(struct names *n, struct query *q, struct profile *p, struct found *f)
{
    if (!q->exact) {
        if (q->work >= NAMES_FIND_WORK) {
            q->cut = true;
            return false;
        }
        q->work += NAME_COST + p->name_n;
        n->compared++;
        if (!contains(q, p->text, p->name_n))
            return true;
    }
    f->p[f->n++] = p;
    return f->n < f->max;
}

static bool candidate(struct names *n, struct query *q, struct profile *p, struct found *f)
{
    __builtin_prefetch(p);
    __builtin_prefetch((const char *)p + 64);
    f->ahead[f->put++ % AHEAD] = p;
    return f->put - f->got < AHEAD || compare(n, q, f->ahead[f->got++ % AHEAD], f);
}

/* ---- blocks -------------------------------------------------------------------------------- */

static bool join_rows(const struct block *b, const struct query *q, uint64_t left[WORDS])
{
    memcpy(left, b->live, sizeof(b->live));
    for (uint32_t r = 0; r < q->rows_n; r++) {
        const uint64_t *row = b->row[q->row[r]];
        uint64_t any = 0;

        for (uint32_t w = 0; w < WORDS; w++) {
            left[w] &= row[w];
            any |= left[w];
        }
        if (any == 0)
            return false;
    }
    return true;
}

static bool block_in_order(struct names *n, const struct block *b, struct query *q,
                           uint64_t left[WORDS], struct found *f)
{
    for (uint32_t w = WORDS; w-- > 0;) {
        while (left[w]) {
            uint32_t bit = 63U - (uint32_t)__builtin_clzll(left[w]);

            left[w] ^= UINT64_C(1) << bit;
            if (!candidate(n, q, b->col[w * 64 + bit], f))
                return false;
        }
    }
    return true;
}

static bool block_mixed(struct names *n, const struct block *b, struct query *q,
                        const uint64_t left[WORDS], struct found *f)
{
    size_t count = 0;

    for (uint32_t w = 0; w < WORDS; w++)
        for (uint64_t bits = left[w]; bits; bits &= bits - 1) {
            struct profile *p = b->col[w * 64 + (uint32_t)__builtin_ctzll(bits)];

            n->scratch[count++] = (struct ranked){ p->key, p };
        }
    names_sort(n->scratch, count);
    while (count > 0)
        if (!candidate(n, q, n->scratch[--count].p, f))
            return false;
    return true;
}

static void search(struct names *n, struct query *q, struct found *f)
{
    uint64_t left[WORDS];

    for (uint32_t i = n->blocks_n; i-- > 0;) {
        const struct block *b = n->order[i];

        if (!join_rows(b, q, left))
            continue;
        if (b->mixed ? !block_mixed(n, b, q, left, f) : !block_in_order(n, b, q, left, f))
            return;
    }
    while (f->got < f->put && compare(n, q, f->ahead[f->got++ % AHEAD], f))
        ;
}

/* ---- all of it ----------------------------------------------------------------------------- */

/* At its place in the order; when there are enough without it, the oldest makes room. */
static void found_exact(struct found *f, struct profile *p)
{
    size_t at;

    for (size_t i = 0; i < f->n; i++)
        if (f->p[i] == p)
            return;
    if (f->n == f->max)
        f->n--;
    for (at = f->n; at > 0 && f->p[at - 1]->key < p->key; at--)
        f->p[at] = f->p[at - 1];
    f->p[at] = p;
    f->n++;
}

size_t names_find(struct names *n, struct bytes query, struct bytes exact, size_t max,
                  struct names_hit hits[NAMES_FIND_MAX])
{
    struct found f = { .max = max < NAMES_FIND_MAX ? max : NAMES_FIND_MAX };
    struct query q;
    struct profile *p;

    n->finds++;
    if (f.max == 0)
        return 0;
    if (query.n <= NAMES_BYTES_MAX && query_make(n, &q, query)) {
        search(n, &q, &f);
        n->finds_cut += q.cut;
    }
    p = exact.n > 0 ? names_get(n, exact) : NULL;
    if (p)
        found_exact(&f, p);
    for (size_t i = 0; i < f.n; i++) {
        p = f.p[i];
        hits[i].peer = bytes_of(p->text + p->name_n, p->peer_n);
        hits[i].last_seen_s = (uint32_t)(p->key >> 32);
    }
    return f.n;
}
