#include "engine/homes.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/mem.h"
#include "proto/crypto.h"

/* An index of buckets, one cache line of words each, and entries, two cache lines each. A peer may
 * be in either of two buckets, in the emptier one when it came, and never moves while it is
 * present: nothing has to be probed further and removal leaves no tombstone.
 *
 * Entries are never changed while a word names them. A change writes a fresh entry and then swaps
 * the word; the old entry waits behind at least HOMES_SPARE others until it is written again. So a
 * reader does not wait for a writer that was preempted in the middle, as it would on a sequence
 * lock in place: it finds an unfinished entry only if the word has moved on, and then follows the
 * word. The sequence number of the entry, part of which is in the word, tells it so.
 *
 * All shared fields are atomics with acquire loads and release stores instead of fences: on x86
 * they cost nothing, and the thread sanitizer understands them. */
enum {
    BUCKET_WORDS = 8,
    HOMES_SPARE = 64, /* entries beyond peers_max: how far a reader may lag behind the writer */
    HOMES_TRIES = 64, /* of one word; each one means that the writer went once round the spares */
    PEER_WORDS = 6,
    HOMES_PEERS_MAX = 1 << 24,
};

struct bucket {
    alignas(64) _Atomic uint64_t word[BUCKET_WORDS]; /* 0 = free */
};

struct entry {
    alignas(128) _Atomic uint32_t seq; /* odd: being written */
    _Atomic uint32_t count;
    _Atomic uint64_t peer[PEER_WORDS];
    _Atomic uint64_t at[HOMES_PER_PEER]; /* slot << 32 | gen */
    _Atomic uint64_t shards;             /* a byte each */
};
static_assert(sizeof(struct bucket) == 64, "one cache line");
static_assert(sizeof(struct entry) == 128, "two cache lines");
static_assert(PEER_WORDS * 8 >= sizeof(struct peer_id), "a whole id");

struct homes {
    struct bucket *buckets;
    struct entry *entries;
    uint32_t buckets_count, entries_count, peers_max;
    uint8_t key[16];
    _Atomic uint32_t peers;
    /* The writer's own: entries that no word names, oldest first. */
    uint32_t *idle;
    uint32_t idle_first, idle_count, fresh;
};

struct peer_hash {
    uint32_t bucket[2];
    uint16_t tag;
    uint64_t peer[PEER_WORDS];
};

struct homes *homes_new(uint32_t peers_max, const uint8_t key[16])
{
    int err;

    if (peers_max > HOMES_PEERS_MAX)
        return NULL;
    struct homes *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    /* At most half full: then two full buckets at once do not happen (test_homes.c fills it). */
    h->buckets_count = 1;
    while ((uint64_t)h->buckets_count * BUCKET_WORDS < (uint64_t)peers_max * 2)
        h->buckets_count *= 2;
    h->peers_max = peers_max;
    h->entries_count = peers_max + HOMES_SPARE;
    memcpy(h->key, key, sizeof(h->key));
    h->buckets = mem_reserve(h->buckets_count, sizeof(*h->buckets), &err);
    if (h->buckets)
        h->entries = mem_reserve(h->entries_count, sizeof(*h->entries), &err);
    if (h->entries)
        h->idle = mem_reserve(h->entries_count, sizeof(*h->idle), &err);
    if (!h->idle) {
        homes_free(h);
        return NULL;
    }
    return h;
}

void homes_free(struct homes *h)
{
    if (!h)
        return;
    mem_release(h->buckets, h->buckets_count, sizeof(*h->buckets));
    mem_release(h->entries, h->entries_count, sizeof(*h->entries));
    mem_release(h->idle, h->entries_count, sizeof(*h->idle));
    free(h);
}

static struct peer_hash hash_of(const struct homes *h, const struct peer_id *peer)
{
    struct peer_hash k = { 0 };
    uint64_t hash = crypto_siphash(h->key, bytes_of(peer, sizeof(*peer)));
    uint32_t mask = h->buckets_count - 1;

    k.bucket[0] = (uint32_t)hash & mask;
    k.bucket[1] = (uint32_t)(hash >> 24) & mask;
    k.tag = (uint16_t)(hash >> 48);
    memcpy(k.peer, peer, sizeof(*peer));
    return k;
}

/* idx << 32 | tag << 16 | low bits of seq, which is even, with bit 0 set to say "in use". */
static uint64_t word_of(uint32_t idx, uint16_t tag, uint32_t seq)
{
    return (uint64_t)idx << 32 | (uint64_t)tag << 16 | (seq & 0xfffe) | 1;
}

static bool word_matches(uint64_t word, uint16_t tag)
{
    return (word & 1) && (uint16_t)(word >> 16) == tag;
}

static bool word_names(uint64_t word, uint32_t seq)
{
    return !(seq & 1) && ((seq ^ (uint32_t)word) & 0xfffe) == 0;
}

enum entry_read { ENTRY_HIT, ENTRY_OTHER, ENTRY_CHANGED };

static enum entry_read entry_read(const struct homes *h, uint64_t word, const uint64_t *peer,
                                  struct home out[HOMES_PER_PEER], size_t *count)
{
    const struct entry *e = &h->entries[word >> 32];
    uint32_t seq = atomic_load_explicit(&e->seq, memory_order_acquire);
    bool hit = true;

    if (!word_names(word, seq))
        return ENTRY_CHANGED;
    for (int i = 0; i < PEER_WORDS; i++)
        hit = hit && atomic_load_explicit(&e->peer[i], memory_order_acquire) == peer[i];
    if (hit) {
        uint64_t shards = atomic_load_explicit(&e->shards, memory_order_acquire);

        *count = atomic_load_explicit(&e->count, memory_order_acquire);
        for (size_t i = 0; i < *count && i < HOMES_PER_PEER; i++) {
            uint64_t at = atomic_load_explicit(&e->at[i], memory_order_acquire);

            out[i] =
                (struct home){ (uint32_t)(at >> 32), (uint32_t)at, (uint8_t)(shards >> 8 * i) };
        }
    }
    /* Acquire loads stay before this one: what was read was there while seq was `seq`. */
    if (atomic_load_explicit(&e->seq, memory_order_relaxed) != seq)
        return ENTRY_CHANGED;
    return hit ? ENTRY_HIT : ENTRY_OTHER;
}

size_t homes_find(const struct homes *h, const struct peer_id *peer,
                  struct home out[HOMES_PER_PEER])
{
    struct peer_hash k = hash_of(h, peer);

    for (int i = 0; i < 2 * BUCKET_WORDS; i++) {
        const _Atomic uint64_t *at = &h->buckets[k.bucket[i / BUCKET_WORDS]].word[i % BUCKET_WORDS];

        for (int tries = 0; tries < HOMES_TRIES; tries++) {
            uint64_t word = atomic_load_explicit(at, memory_order_acquire);
            size_t count = 0;

            if (!word_matches(word, k.tag))
                break;
            enum entry_read r = entry_read(h, word, k.peer, out, &count);

            if (r == ENTRY_HIT)
                return count;
            if (r == ENTRY_OTHER)
                break; /* the same tag by chance */
        }
    }
    return 0;
}

uint32_t homes_peers(const struct homes *h)
{
    return atomic_load_explicit(&h->peers, memory_order_relaxed);
}

/* The writer: where the peer is, with its homes; NULL if nowhere. */
static _Atomic uint64_t *word_find(struct homes *h, const struct peer_hash *k,
                                   struct home homes[HOMES_PER_PEER], size_t *count)
{
    for (int i = 0; i < 2 * BUCKET_WORDS; i++) {
        _Atomic uint64_t *at = &h->buckets[k->bucket[i / BUCKET_WORDS]].word[i % BUCKET_WORDS];
        uint64_t word = atomic_load_explicit(at, memory_order_relaxed);

        if (word_matches(word, k->tag) && entry_read(h, word, k->peer, homes, count) == ENTRY_HIT)
            return at;
    }
    return NULL;
}

/* A free word in the emptier of the peer's buckets; NULL when both are full. */
static _Atomic uint64_t *word_free(struct homes *h, const struct peer_hash *k)
{
    _Atomic uint64_t *best = NULL;
    int best_free = 0;

    for (int b = 0; b < 2; b++) {
        _Atomic uint64_t *last = NULL;
        int count = 0;

        for (int i = 0; i < BUCKET_WORDS; i++) {
            _Atomic uint64_t *at = &h->buckets[k->bucket[b]].word[i];

            if (atomic_load_explicit(at, memory_order_relaxed) == 0) {
                last = at;
                count++;
            }
        }
        if (count > best_free) {
            best_free = count;
            best = last;
        }
    }
    return best;
}

static uint32_t entry_take(struct homes *h)
{
    if (h->idle_count <= HOMES_SPARE && h->fresh < h->entries_count)
        return h->fresh++;
    ASSERT(h->idle_count > 0); /* at most peers_max of the entries are named */
    uint32_t idx = h->idle[h->idle_first];

    h->idle_first = (h->idle_first + 1) % h->entries_count;
    h->idle_count--;
    return idx;
}

static void entry_retire(struct homes *h, uint64_t word)
{
    ASSERT(h->idle_count < h->entries_count);
    h->idle[(h->idle_first + h->idle_count++) % h->entries_count] = (uint32_t)(word >> 32);
}

/* Makes *at name `homes`; the word it held before is retired. Visible to everybody on return, hence
 * the sequentially consistent store. */
static void publish(struct homes *h, _Atomic uint64_t *at, const struct peer_hash *k,
                    const struct home *homes, size_t count)
{
    uint64_t old = atomic_load_explicit(at, memory_order_relaxed);
    uint32_t idx = entry_take(h);
    struct entry *e = &h->entries[idx];
    uint32_t seq = atomic_load_explicit(&e->seq, memory_order_relaxed);
    uint64_t shards = 0;

    /* Release: who sees this sees that the word which named the entry has moved on; and who sees a
     * field below sees this. */
    atomic_store_explicit(&e->seq, seq + 1, memory_order_release);
    for (int i = 0; i < PEER_WORDS; i++)
        atomic_store_explicit(&e->peer[i], k->peer[i], memory_order_release);
    for (size_t i = 0; i < count; i++) {
        atomic_store_explicit(&e->at[i], (uint64_t)homes[i].slot << 32 | homes[i].gen,
                              memory_order_release);
        shards |= (uint64_t)homes[i].shard << 8 * i;
    }
    atomic_store_explicit(&e->shards, shards, memory_order_release);
    atomic_store_explicit(&e->count, (uint32_t)count, memory_order_release);
    atomic_store_explicit(&e->seq, seq + 2, memory_order_release);
    atomic_store_explicit(at, word_of(idx, k->tag, seq + 2), memory_order_seq_cst);
    if (old)
        entry_retire(h, old);
}

static bool home_eq(const struct home *a, const struct home *b)
{
    return a->shard == b->shard && a->slot == b->slot && a->gen == b->gen;
}

bool homes_add(struct homes *h, const struct peer_id *peer, struct home at)
{
    struct peer_hash k = hash_of(h, peer);
    struct home homes[HOMES_PER_PEER];
    size_t count = 0, i = 0;
    _Atomic uint64_t *word = word_find(h, &k, homes, &count);

    if (!word) {
        if (homes_peers(h) == h->peers_max || !(word = word_free(h, &k)))
            return false;
        publish(h, word, &k, &at, 1);
        atomic_fetch_add_explicit(&h->peers, 1, memory_order_relaxed);
        return true;
    }
    while (i < count && !home_eq(&homes[i], &at))
        i++;
    if (i == 0)
        return true; /* a renewal by the newest one: nothing changes */
    if (i == HOMES_PER_PEER)
        return false;
    memmove(&homes[1], &homes[0], i * sizeof(homes[0]));
    homes[0] = at;
    publish(h, word, &k, homes, i == count ? count + 1 : count);
    return true;
}

void homes_remove(struct homes *h, const struct peer_id *peer, struct home at)
{
    struct peer_hash k = hash_of(h, peer);
    struct home homes[HOMES_PER_PEER];
    size_t count = 0, i = 0;
    _Atomic uint64_t *word = word_find(h, &k, homes, &count);

    if (!word)
        return;
    while (i < count && !home_eq(&homes[i], &at))
        i++;
    if (i == count)
        return;
    memmove(&homes[i], &homes[i + 1], (count - i - 1) * sizeof(homes[0]));
    if (count > 1) {
        publish(h, word, &k, homes, count - 1);
        return;
    }
    entry_retire(h, atomic_load_explicit(word, memory_order_relaxed));
    atomic_store_explicit(word, 0, memory_order_seq_cst);
    atomic_fetch_sub_explicit(&h->peers, 1, memory_order_relaxed);
}
