/* store/names.c: the table of profiles by peer, loading, and what changes a profile. */
#include "store/names_int.h"

#include "proto/crypto.h"

#include <errno.h>
#include <stdlib.h>

enum {
    PROFILES_MOST = 1 << 26, /* when profiles_max is 0 */
    STEP = 20000,
    DIGIT_BITS = 11, /* three passes over 32 bits of last_seen_s */
    DIGITS = 1 << DIGIT_BITS,
    PASSES = 3,
    OVERREAD = 17,   /* names_find reads so many bytes at a time */
    AHEAD = 8,       /* profiles fetched before they are placed */
    MALLOC_OWN = 16, /* a piece's header, and rounding up to 16 in the mean */
};

/* ---- the table: linear hashing -------------------------------------------------------------- */

static uint32_t hash_of(const struct names *n, struct bytes peer)
{
    return (uint32_t)crypto_siphash(n->seed, peer);
}

static struct profile **bucket(const struct names *n, uint32_t hash)
{
    uint32_t i = hash & (2 * n->base - 1);

    if (i >= n->buckets_n)
        i -= n->base;
    return &n->segment[i / SEGMENT][i % SEGMENT];
}

static struct bytes peer_of(const struct profile *p)
{
    return bytes_of(p->text + p->name_n, p->peer_n);
}

static struct profile *get(const struct names *n, struct bytes peer, uint32_t hash)
{
    struct profile *p = *bucket(n, hash);

    while (p && !bytes_eq(peer_of(p), peer))
        p = p->next;
    return p;
}

struct profile *names_get(const struct names *n, struct bytes peer)
{
    return get(n, peer, hash_of(n, peer));
}

/* Where the pointer to p is. */
static struct profile **link_of(const struct names *n, const struct profile *p)
{
    struct profile **at = bucket(n, hash_of(n, peer_of(p)));

    while (*at != p)
        at = &(*at)->next;
    return at;
}

static bool segment_add(struct names *n, uint32_t i)
{
    if (i >= n->segments_max)
        return false;
    if (!n->segment[i])
        n->segment[i] = calloc(SEGMENT, sizeof(struct profile *));
    return n->segment[i] != NULL;
}

/* One bucket more, for which one other is parted. Without memory the chains grow longer, no more.
 */
static void table_grow(struct names *n)
{
    uint32_t fresh = n->buckets_n;
    struct profile **from;
    struct profile *p;

    if (n->profiles_n <= n->buckets_n || !segment_add(n, fresh / SEGMENT))
        return;
    from = bucket(n, fresh - n->base); /* a bucket's own number is a hash that leads there */
    p = *from;
    *from = NULL;
    n->buckets_n++;
    while (p) {
        struct profile *next = p->next;
        struct profile **to = bucket(n, hash_of(n, peer_of(p)));

        p->next = *to;
        *to = p;
        p = next;
    }
    if (n->buckets_n == 2 * n->base)
        n->base *= 2;
}

static void table_add(struct names *n, struct profile *p, uint32_t hash)
{
    struct profile **at = bucket(n, hash);

    p->next = *at;
    *at = p;
    n->profiles_n++;
    table_grow(n);
}

/* ---- new and free --------------------------------------------------------------------------- */

static void rows_of_bytes(struct names *n)
{
    uint8_t row = 0;

    for (unsigned b = 0; b < 256; b++) {
        bool printable = b >= 0x20 && b < 0x7f && (b < 'A' || b > 'Z');

        n->row_of[b] = printable ? row++ : (uint8_t)(ROW_ASCII + (b >= 0x80));
    }
    ASSERT(row == ROW_ASCII);
}

int names_new(const uint8_t seed[16], uint32_t profiles_max, uint32_t expected, struct names **out)
{
    struct names *n = calloc(1, sizeof(*n));

    if (!n)
        return -ENOMEM;
    memcpy(n->seed, seed, sizeof(n->seed));
    n->k_letter = (uint32_t)crypto_siphash(seed, bytes_str("letter")) | 1;
    n->k_pair = (uint32_t)crypto_siphash(seed, bytes_str("pair")) | 1;
    n->k_triple = (uint32_t)crypto_siphash(seed, bytes_str("triple")) | 1;
    rows_of_bytes(n);
    n->profiles_max = profiles_max && profiles_max < PROFILES_MOST ? profiles_max : PROFILES_MOST;
    n->blocks_max = n->profiles_max / NAMES_BLOCK * 3 + 64;
    n->segments_max = n->profiles_max / SEGMENT + 1;
    n->order = calloc(n->blocks_max, sizeof(struct block *));
    n->segment = calloc(n->segments_max, sizeof(struct profile **));
    if (!n->order || !n->segment)
        goto fail;
    n->buckets_n = SEGMENT;
    if (expected > SEGMENT)
        n->buckets_n = expected < n->profiles_max ? expected : n->profiles_max;
    if (n->buckets_n < SEGMENT)
        n->buckets_n = SEGMENT;
    for (n->base = SEGMENT; n->base * 2 <= n->buckets_n;)
        n->base *= 2;
    for (uint32_t i = 0; i <= (n->buckets_n - 1) / SEGMENT; i++)
        if (!segment_add(n, i))
            goto fail;
    *out = n;
    return 0;

fail:
    names_free(n);
    return -ENOMEM;
}

void names_free(struct names *n)
{
    if (!n)
        return;
    for (uint32_t i = n->load.at; i < n->load.n; i++)
        if (n->load.v[i].p->gone)
            free(n->load.v[i].p);
    for (uint32_t i = 0; n->segment && i < n->segments_max && n->segment[i]; i++) {
        for (uint32_t k = 0; k < SEGMENT; k++) {
            struct profile *p = n->segment[i][k];

            while (p) {
                struct profile *next = p->next;

                free(p);
                p = next;
            }
        }
        free(n->segment[i]);
    }
    for (uint32_t i = 0; i < n->blocks_n; i++)
        free(n->order[i]);
    free(n->load.v);
    free(n->load.w);
    free(n->segment);
    free(n->order);
    free(n);
}

/* ---- profiles ------------------------------------------------------------------------------ */

void names_fold(uint8_t *to, struct bytes from)
{
    for (size_t i = 0; i < from.n; i++)
        to[i] = from.p[i] >= 'A' && from.p[i] <= 'Z' ? (uint8_t)(from.p[i] | 0x20) : from.p[i];
}

static size_t profile_bytes(size_t name_n, size_t peer_n)
{
    size_t n = offsetof(struct profile, text) + name_n + (peer_n < OVERREAD ? OVERREAD : peer_n);

    return n < sizeof(struct profile) ? sizeof(struct profile) : n;
}

static struct profile *profile_new(struct names *n, struct bytes peer, struct bytes name)
{
    size_t bytes = profile_bytes(name.n, peer.n);
    struct profile *p = malloc(bytes);

    if (!p)
        return NULL;
    *p = (struct profile){ .name_n = (uint16_t)name.n, .peer_n = (uint8_t)peer.n };
    memset(p->text + name.n, 0, bytes - offsetof(struct profile, text) - name.n);
    names_fold(p->text, name);
    memcpy(p->text + name.n, peer.p, peer.n);
    n->text_bytes += bytes;
    return p;
}

static void profile_free(struct names *n, struct profile *p)
{
    n->text_bytes -= profile_bytes(p->name_n, p->peer_n);
    free(p);
}

static uint64_t key_of(struct names *n, uint64_t last_seen_s)
{
    return (last_seen_s < UINT32_MAX ? last_seen_s : UINT32_MAX) << 32 | n->seq++;
}

static bool shapes_ok(struct bytes peer, struct bytes name)
{
    return peer.n >= 1 && peer.n <= NAMES_PEER_MAX && name.n <= NAMES_BYTES_MAX;
}

/* p leaves the index, but for the table. */
static void retire(struct names *n, struct profile *p)
{
    if (p->block)
        names_lift(n, p);
    if (p->listed)
        p->gone = true;
    else
        profile_free(n, p);
}

static bool same_name(const struct profile *p, struct bytes name)
{
    uint8_t folded[NAMES_BYTES_MAX];

    names_fold(folded, name);
    return bytes_eq(bytes_of(p->text, p->name_n), bytes_of(folded, name.n));
}

static int move_to(struct names *n, struct profile *p, uint64_t last_seen_s)
{
    int err;

    if (p->block && p->key >> 32 == (last_seen_s < UINT32_MAX ? last_seen_s : UINT32_MAX))
        return 0;
    err = names_replace(n, p, key_of(n, last_seen_s));
    if (err == 0)
        names_together(n, MOVES);
    return err;
}

int names_put(struct names *n, struct bytes peer, struct bytes name, uint64_t last_seen_s)
{
    struct profile *old;
    struct profile *p;
    uint32_t hash;
    int err;

    if (!shapes_ok(peer, name))
        return -EINVAL;
    hash = hash_of(n, peer);
    old = get(n, peer, hash);
    if (old && same_name(old, name))
        return move_to(n, old, last_seen_s);
    if (!old && n->profiles_n >= n->profiles_max)
        return -ENOSPC;
    p = profile_new(n, peer, name);
    if (!p)
        return -ENOMEM;
    p->key = key_of(n, last_seen_s);
    err = names_place(n, p);
    if (err != 0) {
        profile_free(n, p);
        return err;
    }
    if (old) {
        struct profile **at = link_of(n, old);

        p->next = old->next;
        *at = p;
        retire(n, old);
    } else {
        table_add(n, p, hash);
    }
    names_together(n, MOVES);
    return 0;
}

int names_touch(struct names *n, struct bytes peer, uint64_t last_seen_s)
{
    struct profile *p = names_get(n, peer);

    return p ? move_to(n, p, last_seen_s) : -ENOENT;
}

bool names_remove(struct names *n, struct bytes peer)
{
    struct profile *p = names_get(n, peer);

    if (!p)
        return false;
    *link_of(n, p) = p->next;
    n->profiles_n--;
    retire(n, p);
    names_together(n, MOVES);
    return true;
}

/* ---- loading ------------------------------------------------------------------------------- */

int names_load(struct names *n, struct bytes peer, struct bytes name, uint64_t last_seen_s)
{
    struct profile *p;
    uint32_t hash;

    ASSERT(n->load.pass == 0);
    if (!shapes_ok(peer, name))
        return -EINVAL;
    hash = hash_of(n, peer);
    if (get(n, peer, hash))
        return -EEXIST;
    if (n->profiles_n >= n->profiles_max)
        return -ENOSPC;
    if (n->load.n == n->load.cap) {
        uint32_t cap = n->load.cap ? n->load.cap * 2 : SEGMENT;
        struct ranked *v = realloc(n->load.v, cap * sizeof(*v));

        if (!v)
            return -ENOMEM;
        n->load.v = v;
        n->load.cap = cap;
    }
    p = profile_new(n, peer, name);
    if (!p)
        return -ENOMEM;
    p->key = key_of(n, last_seen_s);
    p->listed = true;
    n->load.v[n->load.n++] = (struct ranked){ p->key, p };
    table_add(n, p, hash);
    return 0;
}

/* One pass of a radix sort by last_seen_s; equals stay in the order of loading. */
static void radix_pass(struct names *n)
{
    uint32_t from[DIGITS] = { 0 };
    uint32_t shift = 32 + (n->load.pass - 1) * DIGIT_BITS;
    uint32_t sum = 0;
    struct ranked *v = n->load.v;

    for (uint32_t i = 0; i < n->load.n; i++)
        from[v[i].key >> shift & (DIGITS - 1)]++;
    for (uint32_t i = 0; i < DIGITS; i++) {
        uint32_t count = from[i];

        from[i] = sum;
        sum += count;
    }
    for (uint32_t i = 0; i < n->load.n; i++)
        n->load.w[from[v[i].key >> shift & (DIGITS - 1)]++] = v[i];
    n->load.v = n->load.w;
    n->load.w = v;
}

/* Those that were put, touched or removed meanwhile have their place, or need none. */
static int place_some(struct names *n, uint32_t step)
{
    for (; n->load.at < n->load.n && step > 0; n->load.at++, step--) {
        struct profile *p = n->load.v[n->load.at].p;
        int err;

        if (n->load.at + AHEAD < n->load.n)
            __builtin_prefetch(n->load.v[n->load.at + AHEAD].p);
        if (p->gone) {
            profile_free(n, p);
            continue;
        }
        if (!p->block) {
            err = names_place(n, p);
            if (err != 0)
                return err;
        }
        p->listed = false;
    }
    return 0;
}

int names_settle(struct names *n, uint32_t step, bool *more)
{
    int err;

    *more = n->load.n > 0;
    if (n->load.n == 0)
        return 0;
    if (n->load.pass == 0) {
        n->load.w = malloc(n->load.cap * sizeof(*n->load.w));
        if (!n->load.w)
            return -ENOMEM;
        n->load.pass = 1;
        n->load.at = 0;
    }
    if (n->load.pass <= PASSES) {
        radix_pass(n);
        n->load.pass++;
        return 0;
    }
    if (n->load.at == 0) {
        err = names_open_block(n, n->load.v[0].key);
        if (err != 0)
            return err;
    }
    err = place_some(n, step ? step : STEP);
    if (err != 0)
        return err;
    if (n->load.at == n->load.n) {
        free(n->load.v);
        free(n->load.w);
        memset(&n->load, 0, sizeof(n->load));
        *more = false;
    }
    return 0;
}

/* ---- figures ------------------------------------------------------------------------------- */

void names_stats_get(const struct names *n, struct names_stats *s)
{
    uint64_t pieces = n->profiles_n + n->buckets_n / SEGMENT + n->blocks_n + 4;

    *s = (struct names_stats){ .profiles = n->profiles_n,
                               .finds = n->finds,
                               .finds_cut = n->finds_cut,
                               .compared = n->compared,
                               .moved = n->moved };
    s->bytes = sizeof(*n) + n->text_bytes + pieces * MALLOC_OWN +
               (uint64_t)n->blocks_n * sizeof(struct block) +
               ((uint64_t)n->buckets_n + SEGMENT) * sizeof(struct profile *) +
               (uint64_t)n->blocks_max * sizeof(struct block *) +
               (uint64_t)n->segments_max * sizeof(struct profile **) +
               (uint64_t)n->load.cap * (n->load.w ? 2 : 1) * sizeof(struct ranked);
}

/* Columns are at most 4/3 of the profiles and SLACK blocks before moving together begins, and a few
 * in the hundred more until it has caught up. */
uint64_t names_memory_max(uint32_t profiles)
{
    uint64_t blocks = (uint64_t)profiles * 7 / 5 / NAMES_BLOCK + SLACK + 4;
    uint64_t each = sizeof(struct profile) + NAMES_PEER_MAX + MALLOC_OWN + sizeof(struct profile *);

    return sizeof(struct names) + blocks * (sizeof(struct block) + MALLOC_OWN) + profiles * each +
           (uint64_t)2 * SEGMENT * sizeof(struct profile *) +
           ((uint64_t)profiles / NAMES_BLOCK * 3 + 64 + profiles / SEGMENT + 1) * sizeof(void *);
}
