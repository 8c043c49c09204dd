#include "engine/clock.h"
#include "engine/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "seeded.h"

Test(clock, goes_forward_and_agrees_with_the_kernels)
{
    uint64_t a = clock_mono_ns(), ms = clock_mono_ms(), b = clock_mono_ns();

    cr_assert_leq(a, b);
    cr_assert(ms >= a / 1000000 && ms <= b / 1000000);
    cr_assert_leq(test_real_ms() - ms, 1000);
    cr_assert_geq(clock_unix_s(), 1700000000);
    cr_assert_leq(clock_unix_ms() / 1000 - clock_unix_s(), 1);
}

Test(clock, can_be_told_the_time)
{
    clock_set_fake(5, 1234567890);
    cr_assert_eq(clock_mono_ms(), 5);
    cr_assert_eq(clock_mono_ns(), 5000000);
    cr_assert_eq(clock_unix_s(), 1234567890);
    cr_assert_eq(clock_unix_ms(), 1234567890000);
    clock_set_fake(6, 0);
    cr_assert_eq(clock_mono_ms(), 6);
    cr_assert_eq(clock_unix_s(), 0);
    clock_set_real();
    cr_assert_geq(clock_unix_s(), 1700000000);
}

Test(rng, fills_every_byte_and_none_behind)
{
    for (size_t n = 0; n <= 70; n++) {
        uint8_t seen[72] = { 0 };

        for (int round = 0; round < 64; round++) {
            uint8_t b[72];

            memset(b, 0, sizeof(b));
            rng_bytes(b, n);
            for (size_t i = 0; i < sizeof(b); i++)
                seen[i] |= b[i];
        }
        for (size_t i = 0; i < sizeof(seen); i++)
            cr_assert_eq(seen[i] != 0, i < n, "byte %zu of %zu", i, n);
    }
}

Test(rng, gives_large_requests_whole)
{
    uint8_t *b = calloc(1, 1 << 20);
    size_t zeroes = 0;

    rng_bytes(b, 1 << 20);
    for (size_t i = 0; i < 1 << 20; i++)
        zeroes += b[i] == 0;
    cr_assert(zeroes > 3000 && zeroes < 5500, "%zu of about 4096", zeroes);
    free(b);
}

Test(rng, repeats_itself_for_one_seed_only)
{
    uint64_t a[8], b[8], c[8];

    rng_seed_fake(1);
    rng_bytes(a, sizeof(a));
    rng_seed_fake(1);
    rng_bytes(b, sizeof(b));
    rng_seed_fake(2);
    rng_bytes(c, sizeof(c));
    cr_assert_eq(memcmp(a, b, sizeof(a)), 0);
    cr_assert_neq(memcmp(a, c, sizeof(a)), 0);
    cr_assert_neq(a[0], a[1]);
    rng_real();
    cr_assert_neq(rng_u64(), rng_u64());
}

Test(rng, stays_below_a_bound_and_reaches_all_of_it)
{
    unsigned seen[7] = { 0 };

    for (int i = 0; i < 7000; i++)
        seen[rng_below(7)]++;
    for (int i = 0; i < 7; i++)
        cr_assert(seen[i] > 700 && seen[i] < 1300, "%d: %u", i, seen[i]);
    cr_assert_eq(rng_below(1), 0);
    /* Without the rejection, three quarters of all values would fall into the lower half. */
    unsigned low = 0;
    for (int i = 0; i < 4000; i++)
        low += rng_below(UINT64_C(3) << 62) < UINT64_C(3) << 61;
    cr_assert(low > 1800 && low < 2200, "%u of 4000", low);
}
