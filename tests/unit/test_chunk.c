#include "engine/chunk.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "seeded.h"

enum {
    SMALL_DATA = CHUNK_SMALL_BYTES - offsetof(struct chunk, data),
    LARGE_DATA = CHUNK_LARGE_BYTES - offsetof(struct chunk, data)
};

Test(chunk, comes_from_a_bounded_pool)
{
    struct chunk_pool p;
    struct chunk *c[3];

    cr_assert_eq(chunk_pool_init(&p, 2, 1), 0);
    cr_assert_eq(chunk_bytes_max(&p), 2 * CHUNK_SMALL_BYTES + CHUNK_LARGE_BYTES);
    c[0] = chunk_new(&p, CHUNK_SMALL);
    c[1] = chunk_new(&p, CHUNK_SMALL);
    c[2] = chunk_new(&p, CHUNK_LARGE);
    cr_assert(c[0] && c[1] && c[2]);
    cr_assert_eq(chunk_room(c[0]), SMALL_DATA);
    cr_assert_eq(chunk_room(c[2]), LARGE_DATA);
    cr_assert_null(chunk_new(&p, CHUNK_SMALL));
    cr_assert_null(chunk_new(&p, CHUNK_LARGE));
    cr_assert_eq(chunk_bytes_used(&p), chunk_bytes_max(&p));
    memset(c[0]->data, 1, c[0]->cap);
    memset(c[1]->data, 2, c[1]->cap);
    memset(c[2]->data, 3, c[2]->cap);
    cr_assert(c[0]->data[SMALL_DATA - 1] == 1 && c[1]->data[SMALL_DATA - 1] == 2);
    c[1]->off = 5;
    c[1]->len = 6;
    chunk_free(&p, c[0]);
    chunk_free(&p, c[1]);
    cr_assert_eq(chunk_new(&p, CHUNK_SMALL), c[1], "the one freed last is the warmest");
    cr_assert_eq(c[1]->off + c[1]->len, 0);
    chunk_free(&p, c[1]);
    chunk_free(&p, c[2]);
    cr_assert_eq(chunk_bytes_used(&p), 0);
    cr_assert_eq(p.peak[CHUNK_SMALL], 2);
    chunk_pool_fini(&p);
}

Test(chunk, goes_back_to_its_home_pool_only)
{
    struct chunk_pool a, b;

    cr_assert_eq(chunk_pool_init(&a, 1, 1), 0);
    cr_assert_eq(chunk_pool_init(&b, 1, 1), 0);
    struct chunk *c = chunk_new(&a, CHUNK_SMALL);

    chunk_free(&b, c);
    cr_assert_eq(a.used[CHUNK_SMALL], 1, "still leased until the home looks");
    cr_assert_eq(b.used[CHUNK_SMALL], 0);
    struct chunk *of_b = chunk_new(&b, CHUNK_SMALL);
    cr_assert_neq(of_b, c);
    cr_assert_eq(chunk_new(&a, CHUNK_SMALL), c, "a dry pool drains its return list");
    chunk_free(&b, c);
    chunk_drain(&a);
    cr_assert_eq(chunk_bytes_used(&a), 0);
    chunk_free(&b, of_b);
    chunk_pool_fini(&a);
    chunk_pool_fini(&b);
}

Test(chunk, takes_returns_in_before_it_touches_new_memory)
{
    struct chunk_pool a, b;

    cr_assert_eq(chunk_pool_init(&a, 1000, 0), 0);
    cr_assert_eq(chunk_pool_init(&b, 1, 0), 0);
    for (int i = 0; i < 1000; i++)
        chunk_free(&b, chunk_new(&a, CHUNK_SMALL));
    cr_assert_eq(a.fresh[CHUNK_SMALL], 1);
    chunk_pool_fini(&a);
    chunk_pool_fini(&b);
}

Test(chunk, lists_of_mixed_homes_find_their_way)
{
    struct chunk_pool a, b;
    struct chunk *first = NULL;

    cr_assert_eq(chunk_pool_init(&a, 20, 20), 0);
    cr_assert_eq(chunk_pool_init(&b, 20, 20), 0);
    for (uint32_t i = 0; i < 40; i++) {
        struct chunk *c = chunk_new(i % 7 < 3 ? &a : &b, i % 2 ? CHUNK_LARGE : CHUNK_SMALL);

        cr_assert_not_null(c);
        c->next = first;
        first = c;
    }
    size_t of_b = chunk_bytes_used(&b);
    chunk_free_list(&a, first);
    cr_assert_eq(chunk_bytes_used(&a), 0);
    cr_assert_eq(chunk_bytes_used(&b), of_b);
    chunk_drain(&b);
    cr_assert_eq(chunk_bytes_used(&b), 0);
    chunk_free_list(&a, NULL);
    chunk_pool_fini(&a);
    chunk_pool_fini(&b);
}

Test(chunk, stops_the_process_when_freed_twice, .signal = SIGABRT)
{
    struct chunk_pool p;

    cr_assert_eq(chunk_pool_init(&p, 2, 2), 0);
    struct chunk *c = chunk_new(&p, CHUNK_SMALL);
    chunk_free(&p, c);
    chunk_free(&p, c);
}

Test(chunkq, appends_all_or_nothing)
{
    static uint8_t data[LARGE_DATA + 2 * SMALL_DATA];
    struct chunk_pool p;
    struct chunkq q = { 0 };

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    cr_assert_eq(chunk_pool_init(&p, 2, 1), 0);
    cr_assert(chunkq_append(&q, &p, bytes_of(NULL, 0)));
    cr_assert_null(q.first, "nothing needs no chunk");
    cr_assert(chunkq_append(&q, &p, bytes_of(data, 10)));
    cr_assert_eq(p.used[CHUNK_SMALL], 1);
    /* One more byte than the pool has left. */
    cr_assert(!chunkq_append(&q, &p, bytes_of(data, sizeof(data) - 10 + 1)));
    cr_assert_eq(q.bytes, 10);
    cr_assert_eq(q.first, q.last);
    cr_assert_eq(q.first->len, 10);
    cr_assert_eq(chunk_bytes_used(&p), CHUNK_SMALL_BYTES, "what was taken for it went back");
    cr_assert(chunkq_append(&q, &p, bytes_of(data + 10, sizeof(data) - 10)));
    cr_assert_eq(q.bytes, sizeof(data));
    static uint8_t back[sizeof(data)];
    cr_assert_eq(chunkq_copy(&q, back, sizeof(back)), sizeof(back));
    cr_assert_eq(memcmp(back, data, sizeof(data)), 0);
    chunkq_clear(&q, &p);
    cr_assert_eq(chunk_bytes_used(&p), 0);
    cr_assert(!q.first && !q.last && !q.bytes);
    chunk_pool_fini(&p);
}

Test(chunkq, makes_do_with_the_other_size_when_one_is_dry)
{
    static const uint8_t data[2 * SMALL_DATA];
    struct chunk_pool p;
    struct chunkq q = { 0 }, r = { 0 };

    cr_assert_eq(chunk_pool_init(&p, 2, 1), 0);
    cr_assert(chunkq_append(&q, &p, bytes_of(data, 2 * SMALL_DATA)));
    cr_assert_eq(p.used[CHUNK_LARGE], 1, "one large one rather than two small ones");
    cr_assert(chunkq_append(&r, &p, bytes_of(data, 2 * SMALL_DATA)));
    cr_assert_eq(p.used[CHUNK_SMALL], 2);
    chunkq_clear(&q, &p);
    cr_assert(chunkq_append(&q, &p, bytes_of(data, 1)), "a large one when no small one is left");
    chunkq_clear(&q, &p);
    chunkq_clear(&r, &p);
    cr_assert_eq(chunk_bytes_used(&p), 0);
    chunk_pool_fini(&p);
}

Test(chunkq, shows_the_first_bytes_as_views)
{
    struct chunk_pool p;
    struct chunkq q = { 0 };
    struct bytes v[4];

    cr_assert_eq(chunk_pool_init(&p, 8, 0), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct chunk *c = chunk_new(&p, CHUNK_SMALL);

        memset(c->data, 'a' + (int)i, 10);
        c->off = 2;
        c->len = i == 1 ? 0 : 8;
        chunkq_push(&q, c);
    }
    cr_assert_eq(q.bytes, 16);
    cr_assert_eq(chunkq_views(&q, 100, v, 4), 2, "an empty chunk is no view");
    cr_assert(v[0].n == 8 && v[0].p[0] == 'a' && v[1].n == 8 && v[1].p[7] == 'c');
    cr_assert_eq(chunkq_views(&q, 9, v, 4), 2);
    cr_assert_eq(v[1].n, 1);
    cr_assert_eq(chunkq_views(&q, 8, v, 4), 1);
    cr_assert_eq(chunkq_views(&q, 100, v, 1), 1);
    cr_assert_eq(chunkq_views(&q, 0, v, 4), 0);
    chunkq_consume(&q, &p, 8);
    cr_assert_eq(p.used[CHUNK_SMALL], 1, "the empty one went along");
    chunkq_consume(&q, &p, 8);
    cr_assert_eq(chunk_bytes_used(&p), 0);
    chunk_pool_fini(&p);
}

Test(chunkq, stops_the_process_when_more_is_consumed_than_there_is, .signal = SIGABRT)
{
    struct chunk_pool p;
    struct chunkq q = { 0 };

    cr_assert_eq(chunk_pool_init(&p, 2, 2), 0);
    cr_assert(chunkq_append(&q, &p, bytes_of("abc", 3)));
    chunkq_consume(&q, &p, 4);
}

Test(chunkq, is_a_fifo_of_bytes_for_many_seeds)
{
    static uint8_t in[40000], out[40000];

    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct seeded r = { seed };
        struct chunk_pool p;
        struct chunkq q = { 0 };
        uint64_t wrote = 0, read = 0; /* byte k of the stream is (uint8_t)(k * 31 + k / 251) */

        cr_assert_eq(chunk_pool_init(&p, 20, 6), 0);
        for (int step = 0; step < 400; step++) {
            size_t n = seeded_below(&r, seeded_below(&r, 3) ? 3000 : sizeof(in));

            if (seeded_below(&r, 2)) {
                for (size_t i = 0; i < n; i++)
                    in[i] = (uint8_t)((wrote + i) * 31 + (wrote + i) / 251);
                if (chunkq_append(&q, &p, bytes_of(in, n)))
                    wrote += n;
            } else {
                struct bytes v[64];
                size_t views, seen = 0, copied = chunkq_copy(&q, out, n);

                cr_assert_eq(copied, min_sz(n, wrote - read), "seed %lu", seed);
                views = chunkq_views(&q, n, v, 64);
                for (size_t i = 0; i < views; seen += v[i++].n)
                    cr_assert_eq(memcmp(out + seen, v[i].p, v[i].n), 0, "seed %lu", seed);
                cr_assert_eq(seen, copied, "seed %lu", seed);
                for (size_t i = 0; i < copied; i++)
                    cr_assert_eq(out[i], (uint8_t)((read + i) * 31 + (read + i) / 251));
                chunkq_consume(&q, &p, copied);
                read += copied;
            }
            cr_assert_eq(q.bytes, wrote - read, "seed %lu", seed);
        }
        cr_assert_gt(read, 100000, "seed %lu: the test must move bytes", seed);
        chunkq_clear(&q, &p);
        cr_assert_eq(chunk_bytes_used(&p), 0, "seed %lu", seed);
        chunk_pool_fini(&p);
    }
}

/* Three shards lease from their own pool, pass what they leased to the next one and free what they
 * get: each chunk must come home, and none may be in two hands. */
enum { SHARDS = 3, POOL = 64, STRESS_MS = 400, PASSED_MIN = 200 };

struct shard {
    struct chunk_pool pool;
    _Atomic(struct chunk *) inbox; /* a stack of chunks for us to free */
    pthread_t thread;
    uint64_t passed;
    bool torn;
};

static struct shard shards[SHARDS];
static _Atomic unsigned shards_done; /* all go on until each has done its work */

static void shard_free_inbox(struct shard *s)
{
    struct chunk *c = atomic_exchange_explicit(&s->inbox, NULL, memory_order_acquire);

    for (struct chunk *k = c; k; k = k->next)
        for (uint32_t i = 0; i < k->len; i++)
            s->torn |= k->data[i] != (uint8_t)k->len;
    chunk_free_list(&s->pool, c);
}

static void *shard_run(void *arg)
{
    struct shard *s = arg, *to = &shards[(s - shards + 1) % SHARDS];
    struct seeded r = { (uint64_t)(s - shards) + 1 };
    uint64_t end = test_real_ms() + STRESS_MS;
    bool done = false;

    while (atomic_load_explicit(&shards_done, memory_order_relaxed) < SHARDS) {
        if (!done && test_real_ms() >= end && s->passed >= PASSED_MIN) {
            atomic_fetch_add_explicit(&shards_done, 1, memory_order_relaxed);
            done = true;
        }
        for (int i = 0; i < 64; i++) {
            struct chunk *c = chunk_new(&s->pool, seeded_below(&r, 8) ? CHUNK_SMALL : CHUNK_LARGE);

            if (!c)
                break;
            c->len = (uint32_t)seeded_below(&r, 250);
            memset(c->data, (int)c->len, c->len);
            if (seeded_below(&r, 4) == 0) {
                chunk_free(&s->pool, c);
                continue;
            }
            s->passed++;
            c->next = atomic_load_explicit(&to->inbox, memory_order_relaxed);
            while (!atomic_compare_exchange_weak_explicit(
                &to->inbox, &c->next, c, memory_order_release, memory_order_relaxed))
                ;
        }
        shard_free_inbox(s);
    }
    return NULL;
}

Test(chunk, survives_shards_that_free_each_others, .timeout = 60)
{
    for (int i = 0; i < SHARDS; i++)
        cr_assert_eq(chunk_pool_init(&shards[i].pool, POOL, POOL), 0);
    for (int i = 0; i < SHARDS; i++)
        cr_assert_eq(pthread_create(&shards[i].thread, NULL, shard_run, &shards[i]), 0);
    for (int i = 0; i < SHARDS; i++)
        cr_assert_eq(pthread_join(shards[i].thread, NULL), 0);
    for (int i = 0; i < SHARDS; i++)
        shard_free_inbox(&shards[i]);
    for (int i = 0; i < SHARDS; i++) {
        chunk_drain(&shards[i].pool);
        cr_assert_eq(chunk_bytes_used(&shards[i].pool), 0, "shard %d", i);
        cr_assert(!shards[i].torn, "shard %d: a chunk was in two hands", i);
        cr_assert_geq(shards[i].passed, PASSED_MIN);
        chunk_pool_fini(&shards[i].pool);
    }
}
