#include "engine/slab.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/mem.h"
#include "seeded.h"

struct thing {
    struct slab_head head;
    uint64_t a;
    uint8_t b[40];
};

static struct slab slab_of(uint32_t max)
{
    struct slab s;

    cr_assert_eq(slab_init(&s, "things", sizeof(struct thing), max), 0);
    return s;
}

Test(slab, gives_zeroed_objects_until_it_is_full)
{
    struct slab s = slab_of(3);
    struct thing *t[3];

    for (uint32_t i = 0; i < 3; i++) {
        t[i] = slab_new(&s);
        cr_assert_not_null(t[i]);
        cr_assert_eq(t[i]->head.idx, i);
        cr_assert_eq(t[i]->a, 0);
        memset(&t[i]->a, 0xee, sizeof(*t[i]) - offsetof(struct thing, a));
    }
    cr_assert_null(slab_new(&s), "full is a state");
    slab_free(&s, t[1]);
    struct thing *again = slab_new(&s);
    cr_assert_eq(again, t[1]);
    for (size_t i = sizeof(struct slab_head); i < sizeof(*again); i++)
        cr_assert_eq(((uint8_t *)again)[i], 0, "byte %zu keeps a former life", i);
    cr_assert_eq(s.live, 3);
    cr_assert_eq(s.peak, 3);
    slab_fini(&s);
}

Test(slab, uses_the_memory_freed_last_first)
{
    struct slab s = slab_of(8);
    void *t[8];

    for (int i = 0; i < 8; i++)
        t[i] = slab_new(&s);
    slab_free(&s, t[2]);
    slab_free(&s, t[5]);
    cr_assert_eq(slab_new(&s), t[5]);
    cr_assert_eq(slab_new(&s), t[2]);
    slab_fini(&s);
}

Test(slab, tells_one_life_of_a_slot_from_the_next)
{
    struct slab s = slab_of(2);
    struct thing *t = slab_new(&s);
    uint32_t idx = t->head.idx, gen = t->head.gen;

    cr_assert_eq(gen & 1, 1);
    cr_assert_eq(slab_find(&s, idx, gen), t);
    cr_assert_eq(slab_find24(&s, idx, gen & 0xffffff), t);
    slab_free(&s, t);
    cr_assert_null(slab_find(&s, idx, gen));
    cr_assert_null(slab_find(&s, idx, gen + 1), "a free slot has no life to be found");
    cr_assert_null(slab_find24(&s, idx, gen + 1));
    cr_assert_eq(slab_new(&s), t);
    cr_assert_null(slab_find(&s, idx, gen));
    cr_assert_null(slab_find24(&s, idx, gen));
    cr_assert_eq(slab_find(&s, idx, t->head.gen), t);
    cr_assert_null(slab_find(&s, 1, 0), "never used");
    cr_assert_null(slab_find(&s, 1, 1), "never used");
    cr_assert_null(slab_find(&s, 2, 1), "out of bounds");
    cr_assert_null(slab_find24(&s, UINT32_MAX, 1), "out of bounds");
    slab_fini(&s);
}

Test(slab, finds_by_24_bits_when_the_generation_is_larger)
{
    struct slab s = slab_of(1);
    struct thing *t = slab_new(&s);

    t->head.gen = 0xab000001;
    cr_assert_eq(slab_find24(&s, 0, 1), t);
    cr_assert_eq(slab_find(&s, 0, 0xab000001), t);
    cr_assert_null(slab_find(&s, 0, 1));
    t->head.gen = UINT32_MAX; /* wraps to even, free */
    slab_free(&s, t);
    cr_assert_eq(slab_new(&s), t);
    cr_assert_eq(t->head.gen, 1);
    slab_fini(&s);
}

Test(slab, walks_over_live_objects_only)
{
    struct slab s = slab_of(10);
    void *t[10];
    uint32_t cursor = 0;

    cr_assert_null(slab_walk(&s, &cursor));
    for (int i = 0; i < 7; i++)
        t[i] = slab_new(&s);
    slab_free(&s, t[0]);
    slab_free(&s, t[3]);
    slab_free(&s, t[6]);
    cursor = 0;
    for (int i = 1; i < 6; i++)
        if (i != 3)
            cr_assert_eq(slab_walk(&s, &cursor), t[i]);
    cr_assert_null(slab_walk(&s, &cursor));
    cr_assert_null(slab_walk(&s, &cursor));
    slab_fini(&s);
}

Test(slab, stops_the_process_when_freed_twice, .signal = SIGABRT)
{
    struct slab s = slab_of(2);
    void *t = slab_new(&s), *other = slab_new(&s);

    cr_assert_not_null(other); /* so that it is not the count of live objects which tells */
    slab_free(&s, t);
    slab_free(&s, t);
}

Test(slab, stops_the_process_when_something_else_is_freed, .signal = SIGABRT)
{
    struct slab s = slab_of(2);
    struct thing copy = *(struct thing *)slab_new(&s);

    slab_free(&s, &copy);
}

Test(slab, holds_nothing_when_its_maximum_is_zero)
{
    struct slab s = slab_of(0);

    cr_assert_null(slab_new(&s));
    slab_fini(&s);
}

Test(slab, refuses_a_size_that_no_memory_has)
{
    struct slab s;

    cr_assert_lt(slab_init(&s, "huge", SIZE_MAX / 2, UINT32_MAX), 0);
    slab_fini(&s);
}

Test(slab, costs_no_memory_before_it_is_used)
{
    enum { PAGE = 4096, MAX = 1000000, USED = 1200 };
    static unsigned char present[MAX];
    size_t pages = 0;
    struct slab s;

    cr_assert_eq(slab_init(&s, "large", PAGE, MAX), 0);
    for (int i = 0; i < USED; i++)
        cr_assert_not_null(slab_new(&s));
    cr_assert_eq(mincore(s.base, (size_t)MAX * PAGE, present), 0);
    for (size_t i = 0; i < MAX; i++)
        pages += present[i] & 1;
    cr_assert_eq(pages, USED, "%zu: a huge page costs 2 MiB at once", pages);
    slab_fini(&s);
}

#ifdef MEM_ASAN
Test(slab, lets_the_address_sanitizer_see_a_use_after_free)
{
    struct slab s = slab_of(1);
    struct thing *t = slab_new(&s);

    cr_assert(!__asan_address_is_poisoned(t->b));
    slab_free(&s, t);
    cr_assert(__asan_address_is_poisoned(t->b));
    cr_assert(!__asan_address_is_poisoned(&t->head), "slab_find looks at it");
    cr_assert_eq(slab_new(&s), t);
    cr_assert(!__asan_address_is_poisoned(t->b) && !__asan_address_is_poisoned(&t->a));
    slab_fini(&s);
}
#endif

Test(slab, agrees_with_a_naive_model_for_many_seeds)
{
    enum { MAX = 37, STEPS = 2000 };

    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct seeded r = { seed };
        struct slab s = slab_of(MAX);
        struct thing *live[MAX];
        uint32_t gens[MAX];
        size_t n = 0;

        for (int step = 0; step < STEPS; step++) {
            if (seeded_below(&r, 2)) {
                struct thing *t = slab_new(&s);

                cr_assert_eq(t != NULL, n < MAX, "seed %lu", seed);
                if (!t)
                    continue;
                cr_assert_eq(t->a, 0);
                t->a = seeded_u64(&r) | 1;
                memset(t->b, (int)t->a, sizeof(t->b));
                gens[n] = t->head.gen;
                live[n++] = t;
            } else if (n) {
                size_t i = seeded_below(&r, n);

                cr_assert_eq(slab_find(&s, live[i]->head.idx, gens[i]), live[i], "seed %lu", seed);
                slab_free(&s, live[i]);
                cr_assert_null(slab_find(&s, live[i]->head.idx, gens[i]), "seed %lu", seed);
                live[i] = live[--n];
                gens[i] = gens[n];
            }
            cr_assert_eq(s.live, n, "seed %lu", seed);
            for (size_t i = 0; i < n; i++)
                cr_assert(live[i]->b[0] == (uint8_t)live[i]->a && live[i]->head.gen == gens[i],
                          "seed %lu: objects overlap", seed);
        }
        slab_fini(&s);
    }
}
