/* The pool of TLS connections: two bounds, and everything comes back. */
#include <criterion/criterion.h>
#include <signal.h>

#include "engine/tls_pool.h"

static uint32_t rolls = 1;

static uint32_t roll(uint32_t below)
{
    rolls = rolls * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)rolls * below >> 32);
}

/* Sizes as wolfSSL asks for them: many small ones, some of a record's size. */
static size_t some_size(void)
{
    switch (roll(8)) {
    case 0:
        return roll(20000);
    case 1:
        return roll(3000);
    case 2:
        return roll(2);
    default:
        return roll(600);
    }
}

Test(tls_pool, agrees_with_its_books_after_every_step)
{
    enum { BYTES = 1 << 18, SLOTS = 200 };
    struct {
        uint8_t *p;
        size_t n;
        uint8_t fill;
        unsigned owner;
    } slot[SLOTS] = { 0 };
    struct tls_account account[3] = { { .max = 1 << 17 }, { .max = 1 << 17 }, { .max = 1 << 17 } };
    int err;
    struct tls_pool *pool = tls_pool_new(BYTES, &err);

    cr_assert_not_null(pool);
    for (int step = 0; step < 30000; step++) {
        unsigned i = roll(SLOTS), owner = slot[i].p ? slot[i].owner : roll(3);

        tls_pool_enter(pool, &account[owner]);
        if (slot[i].p) {
            for (size_t at = 0; at < slot[i].n; at++)
                cr_assert_eq(slot[i].p[at], slot[i].fill);
            tls_pool_return(slot[i].p);
            slot[i].p = NULL;
        } else {
            slot[i].n = some_size();
            slot[i].p = tls_pool_alloc(slot[i].n);
            slot[i].fill = (uint8_t)step;
            slot[i].owner = owner;
            cr_assert_eq((uintptr_t)slot[i].p % 16, 0);
            if (slot[i].p)
                memset(slot[i].p, slot[i].fill, slot[i].n);
        }
        tls_pool_leave();
        if (step % 64 == 0)
            tls_pool_check(pool);
        cr_assert_eq(tls_pool_used(pool), account[0].used + account[1].used + account[2].used);
        for (int a = 0; a < 3; a++)
            cr_assert_leq(account[a].used, account[a].max);
        cr_assert_leq(tls_pool_used(pool), tls_pool_max(pool));
    }
    cr_assert_gt(tls_pool_refused(pool), 0); /* both bounds were met on the way */
    for (unsigned owner = 0; owner < 3; owner++) {
        tls_pool_enter(pool, &account[owner]);
        tls_pool_sweep();
        tls_pool_leave();
        cr_assert_eq(account[owner].used, 0);
        tls_pool_check(pool);
    }
    cr_assert_eq(tls_pool_used(pool), 0);
    cr_assert_gt(tls_pool_swept(pool), 0);
    cr_assert_leq(tls_pool_peak(pool), (size_t)BYTES);
    struct tls_account whole = { .max = BYTES };

    tls_pool_enter(pool, &whole); /* it is in one piece again */
    void *most = tls_pool_alloc(BYTES - 20000);

    cr_assert_not_null(most);
    tls_pool_return(most);
    tls_pool_leave();
    tls_pool_free(pool);
}

Test(tls_pool, holds_an_account_to_its_bound)
{
    int err;
    struct tls_pool *pool = tls_pool_new(1 << 20, &err);
    struct tls_account a = { .max = 4096 }, b = { .max = 4096 };

    tls_pool_enter(pool, &a);
    cr_assert_null(tls_pool_alloc(4096)); /* the head counts */
    cr_assert(a.refused);
    void *p = tls_pool_alloc(4096 - 16);

    cr_assert_not_null(p);
    cr_assert_eq(a.used, 4096);
    cr_assert_null(tls_pool_alloc(1));
    cr_assert_null(tls_pool_alloc(SIZE_MAX));
    cr_assert_null(tls_pool_alloc(SIZE_MAX - 15));
    tls_pool_leave();
    tls_pool_enter(pool, &b);
    void *q = tls_pool_alloc(100);

    cr_assert_not_null(q);
    cr_assert_not(b.refused);
    tls_pool_return(q);
    tls_pool_leave();
    tls_pool_enter(pool, &a);
    tls_pool_return(p);
    tls_pool_return(NULL);
    tls_pool_leave();
    cr_assert_eq(a.used, 0);
    cr_assert_eq(a.peak, 4096);
    cr_assert_eq(tls_pool_used(pool), 0);
    tls_pool_free(pool);
}

Test(tls_pool, gives_all_that_it_has_and_no_more)
{
    int err;
    struct tls_pool *pool = tls_pool_new(65536, &err);
    struct tls_account a = { .max = 1 << 20 };
    unsigned n = 0;

    tls_pool_enter(pool, &a);
    while (tls_pool_alloc(240))
        n++;
    cr_assert_eq(n, (65536 - 16) / 256);
    tls_pool_check(pool);
    tls_pool_sweep();
    tls_pool_leave();
    tls_pool_check(pool);
    tls_pool_free(pool);
    cr_assert_null(tls_pool_new(16, &err));
    cr_assert_neq(err, 0);
    tls_pool_free(NULL);
}

Test(tls_pool, is_not_given_up_with_blocks_in_it, .signal = SIGABRT)
{
    int err;
    struct tls_pool *pool = tls_pool_new(65536, &err);
    struct tls_account a = { .max = 1 << 20 };

    tls_pool_enter(pool, &a);
    cr_assert_not_null(tls_pool_alloc(1));
    tls_pool_leave();
    tls_pool_free(pool);
}

Test(tls_pool, notices_a_block_that_comes_back_twice, .signal = SIGABRT)
{
    int err;
    struct tls_pool *pool = tls_pool_new(65536, &err);
    struct tls_account a = { .max = 1 << 20 };

    tls_pool_enter(pool, &a);
    void *p = tls_pool_alloc(100);

    tls_pool_return(p);
    tls_pool_return(p);
}
