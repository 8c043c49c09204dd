/* Sorted sets of chunks beside a plain array. */
#include "proto/dig_order.h"
#include "tests/unit/seeded.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { ITEMS = 3000 };

static char names[ITEMS][12];
static struct dig_order_pool pool;

static struct bytes name_of(const void *arg, uint32_t item)
{
    (void)arg;
    return bytes_str(names[item]);
}

static uint64_t prefix_of(const void *arg, uint32_t item)
{
    return dig_order_prefix(name_of(arg, item));
}

static const struct dig_order_by by_name = { prefix_of, name_of, NULL };

static int by_strcmp(const void *a, const void *b)
{
    return strcmp(names[*(const uint32_t *)a], names[*(const uint32_t *)b]);
}

/* The set is `want`, in both directions, and its chunks are as full as the header promises. */
static void check(const struct dig_order *o, uint32_t *want, uint32_t n, const char *why)
{
    struct dig_order_at at = dig_order_first(o);
    uint32_t chunks = 0, before = DIG_ORDER_CHUNK;

    qsort(want, n, sizeof(*want), by_strcmp);
    cr_assert(eq(u32, o->count, n), "%s", why);
    for (uint32_t i = 0; i < n; i++, at = dig_order_next(&pool, at)) {
        cr_assert(dig_order_some(at), "%s", why);
        cr_assert(eq(u32, dig_order_item(&pool, at), want[i]), "%s", why);
    }
    cr_assert(not(dig_order_some(at)), "%s", why);
    at = dig_order_last(&pool, o);
    for (uint32_t i = n; i-- > 0; at = dig_order_prev(&pool, at))
        cr_assert(eq(u32, dig_order_item(&pool, at), want[i]), "%s", why);
    cr_assert(not(dig_order_some(at)), "%s", why);
    for (uint32_t c = o->next[0]; c; c = pool.chunk[c - 1].next[0]) {
        cr_assert(lt(u32, DIG_ORDER_CHUNK / 2, before + pool.chunk[c - 1].n), "%s", why);
        before = pool.chunk[c - 1].n;
        chunks++;
    }
    cr_assert(eq(u32, chunks, pool.used), "%s", why);
    cr_assert(le(u32, chunks, 1 + 4 * n / DIG_ORDER_CHUNK), "%s", why);
}

static void pool_start(uint32_t chunks)
{
    void *mem = malloc(dig_order_pool_bytes(chunks));

    cr_assert(mem != NULL);
    memset(mem, 0xa5, dig_order_pool_bytes(chunks)); /* need not be zeroed */
    dig_order_pool_init(&pool, mem, chunks, 7);
}

Test(dig_order, a_prefix_is_the_first_eight_bytes)
{
    cr_expect(eq(u64, dig_order_prefix(bytes_str("")), 0));
    cr_expect(eq(u64, dig_order_prefix(bytes_str("ab")), UINT64_C(0x6162) << 48));
    cr_expect(eq(u64, dig_order_prefix(bytes_str("ABCDEFGHI")), UINT64_C(0x4142434445464748)));
}

Test(dig_order, items_that_share_a_prefix_are_told_apart_by_all_their_bytes)
{
    static const char *const sorted[] = { "",          "a",         "aa", "aaaaaaaa",
                                          "aaaaaaaaa", "aaaaaaaab", "ab", "b" };
    struct dig_order o = { 0 };
    uint32_t want[8];

    pool_start(ITEMS);
    for (uint32_t i = 0; i < 8; i++) {
        strcpy(names[i], sorted[i]);
        want[i] = i;
    }
    for (uint32_t i = 0; i < 8; i++)
        dig_order_insert(&pool, &o, &by_name, (i * 5) % 8);
    check(&o, want, 8, "eight");
    for (uint32_t i = 0; i < 8; i++) {
        struct bytes key = bytes_str(sorted[i]);
        struct dig_order_at at = dig_order_seek(
            &pool, &o, &by_name, (struct dig_order_key){ dig_order_prefix(key), key });
        cr_expect(eq(u32, dig_order_item(&pool, at), i));
    }
    free(pool.chunk);
}

Test(dig_order, a_full_chunk_splits_and_halves_join)
{
    struct dig_order o = { 0 };
    uint32_t n;

    pool_start(ITEMS);
    for (n = 0; n < DIG_ORDER_CHUNK; n++) {
        snprintf(names[n], sizeof(names[n]), "%06u", n);
        dig_order_insert(&pool, &o, &by_name, n);
        cr_assert(eq(u32, pool.used, 1));
    }
    snprintf(names[n], sizeof(names[n]), "%06u", n);
    dig_order_insert(&pool, &o, &by_name, n);
    cr_assert(eq(u32, pool.used, 2));
    while (o.count > DIG_ORDER_CHUNK / 2 + 1) {
        dig_order_remove(&pool, &o, &by_name, n--);
        cr_assert(lt(u32, 0, pool.used));
    }
    dig_order_remove(&pool, &o, &by_name, n--);
    cr_assert(eq(u32, pool.used, 1));
    while (o.count > 0)
        dig_order_remove(&pool, &o, &by_name, n--);
    cr_assert(eq(u32, pool.used, 0));
    cr_assert(not(dig_order_some(dig_order_first(&o))));
    cr_assert(not(dig_order_some(dig_order_last(&pool, &o))));
    free(pool.chunk);
}

Test(dig_order, any_order_of_inserts_and_removes_leaves_what_an_array_has, .timeout = 30)
{
    static uint32_t in[ITEMS], out[ITEMS];
    uint32_t chunks = 1 + 4 * ITEMS / DIG_ORDER_CHUNK;

    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct seeded s = { seed };
        struct dig_order o = { 0 };
        uint32_t n_in = 0, n_out = ITEMS;
        char why[32];

        snprintf(why, sizeof(why), "seed %d", (int)seed);
        pool_start(chunks);
        for (uint32_t i = 0; i < ITEMS; i++) {
            /* Half of the seeds: names that differ behind their eighth byte only. */
            snprintf(names[i], sizeof(names[i]), seed % 2 ? "%07u" : "samepf%05u", i);
            out[i] = i;
        }
        for (uint32_t op = 0; op < 4 * ITEMS; op++) {
            /* Waves: up to full, down to empty. */
            bool up =
                op / (ITEMS / 2) % 4 < 2 ? seeded_below(&s, 10) < 9 : seeded_below(&s, 10) < 1;

            if (up && n_out) {
                uint32_t k = (uint32_t)seeded_below(&s, n_out), item = out[k];
                out[k] = out[--n_out];
                in[n_in++] = item;
                dig_order_insert(&pool, &o, &by_name, item);
            } else if (n_in) {
                uint32_t k = (uint32_t)seeded_below(&s, n_in), item = in[k];
                in[k] = in[--n_in];
                out[n_out++] = item;
                dig_order_remove(&pool, &o, &by_name, item);
            }
            if (op % 997 == 0)
                check(&o, in, n_in, why);
        }
        check(&o, in, n_in, why);
        for (uint32_t i = 0; i < n_in; i++) /* sorted now: each is found, and what is behind it */
        {
            struct bytes key = bytes_str(names[in[i]]);
            struct dig_order_at at = dig_order_seek(
                &pool, &o, &by_name, (struct dig_order_key){ dig_order_prefix(key), key });
            cr_assert(eq(u32, dig_order_item(&pool, at), in[i]), "%s", why);
        }
        while (n_in)
            dig_order_remove(&pool, &o, &by_name, in[--n_in]);
        check(&o, in, 0, why);
        free(pool.chunk);
    }
}
