#include "engine/wheel.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "seeded.h"

static struct wheel w;

Test(wheel, fires_on_time_never_early)
{
    static const uint64_t delays[] = { 1,          9,        10,        11,        5110,
                                       5119,       5120,     5121,      5130,      10239,
                                       10240,      60000,    2621430,   2621440,   2621450,
                                       5242880,    86400000, 165150720, 167772160, 400000000,
                                       31536000000 };

    for (size_t i = 0; i < ARRAY_LEN(delays); i++) {
        for (uint64_t start = 0; start < 30; start += 7) {
            struct timer t = { 0 };
            uint64_t at = start + delays[i];

            wheel_init(&w, start);
            wheel_arm(&w, &t, at);
            cr_assert(timer_armed(&t));
            cr_assert_null(wheel_expire(&w, at - 1), "early: %lu", delays[i]);
            cr_assert_eq(wheel_expire(&w, at + WHEEL_TICK_MS), &t, "late: %lu", delays[i]);
            cr_assert(!timer_armed(&t));
            cr_assert_null(wheel_expire(&w, at + 100000));
            cr_assert_eq(w.armed, 0);
        }
    }
}

Test(wheel, says_until_when_the_owner_may_sleep)
{
    struct timer t = { 0 };

    wheel_init(&w, 1000);
    cr_assert_eq(wheel_next_ms(&w), UINT64_MAX);
    wheel_arm(&w, &t, 1234);
    cr_assert_leq(wheel_next_ms(&w), 1240);
    cr_assert_gt(wheel_next_ms(&w), 1000);
    cr_assert_null(wheel_expire(&w, 1230));
    cr_assert_eq(wheel_expire(&w, 1240), &t);
    cr_assert_null(wheel_expire(&w, 1240));
    cr_assert_eq(wheel_next_ms(&w), UINT64_MAX);
}

Test(wheel, fires_what_was_due_already_with_the_next_tick)
{
    struct timer t = { 0 };

    wheel_init(&w, 1000);
    wheel_arm(&w, &t, 3);
    cr_assert_null(wheel_expire(&w, 1000), "a handler that re-arms for now must not spin");
    cr_assert_leq(wheel_next_ms(&w), 1010);
    cr_assert_eq(wheel_expire(&w, 1010), &t);
}

Test(wheel, rearms_to_later_without_moving_and_to_earlier_at_once)
{
    struct timer t = { 0 };

    wheel_init(&w, 0);
    wheel_arm(&w, &t, 100);
    struct list *slot = t.slot;
    wheel_arm(&w, &t, 700);
    cr_assert_eq(t.slot, slot, "lazy");
    cr_assert_null(wheel_expire(&w, 699));
    cr_assert(timer_armed(&t));
    wheel_arm(&w, &t, 100000);
    wheel_arm(&w, &t, 750);
    cr_assert_eq(wheel_expire(&w, 750), &t);
    wheel_arm(&w, &t, 5000);
    wheel_arm(&w, &t, 900);
    cr_assert_eq(wheel_expire(&w, 900), &t);
    cr_assert_eq(w.armed, 0);
}

Test(wheel, cancels_idempotently)
{
    struct timer t = { 0 }, u = { 0 };

    wheel_init(&w, 0);
    wheel_cancel(&w, &t);
    wheel_arm(&w, &t, 50);
    wheel_arm(&w, &u, 50);
    wheel_cancel(&w, &t);
    wheel_cancel(&w, &t);
    cr_assert_eq(w.armed, 1);
    cr_assert_eq(wheel_expire(&w, 60), &u);
    cr_assert_null(wheel_expire(&w, 600));
}

Test(wheel, keeps_a_timer_that_is_never_due)
{
    struct timer t = { 0 };

    wheel_init(&w, UINT64_C(1) << 40);
    wheel_arm(&w, &t, UINT64_MAX);
    for (uint64_t day = 0; day < 400; day++)
        cr_assert_null(wheel_expire(&w, (UINT64_C(1) << 40) + day * 86400000));
    cr_assert(timer_armed(&t));
    wheel_cancel(&w, &t);
    cr_assert_eq(w.armed, 0);
}

Test(wheel, does_not_mind_time_standing_still_or_going_back)
{
    struct timer t = { 0 };

    wheel_init(&w, 5000);
    wheel_arm(&w, &t, 5100);
    cr_assert_null(wheel_expire(&w, 5050));
    cr_assert_null(wheel_expire(&w, 100));
    cr_assert_null(wheel_expire(&w, 5050));
    cr_assert_eq(wheel_expire(&w, 5100), &t);
}

/* A year passed in one call must cost slots in use, not ticks: 3 * 10^9 ticks would take seconds.
 */
Test(wheel, crosses_a_long_sleep_in_few_steps, .timeout = 2)
{
    for (int i = 0; i < 10; i++) {
        struct timer t = { 0 };

        wheel_init(&w, 0);
        wheel_arm(&w, &t, UINT64_C(31536000000) * 10);
        cr_assert_eq(wheel_expire(&w, UINT64_C(31536000000) * 11), &t);
    }
}

enum { TIMERS = 200 };

struct model {
    struct timer t[TIMERS];
    uint64_t fire_ms[TIMERS]; /* 0 = not armed */
};

static uint64_t some_delay(struct seeded *r)
{
    static const uint64_t scale[] = { 5, 50, 6000, 20000, 3000000, 200000000, 1000000000 };

    return seeded_below(r, scale[seeded_below(r, ARRAY_LEN(scale))]);
}

static void model_arm(struct model *m, struct seeded *r, uint64_t now)
{
    size_t i = seeded_below(r, TIMERS);
    uint64_t at = now + some_delay(r);

    if (seeded_below(r, 16) == 0)
        at = seeded_below(r, now + 1);
    wheel_arm(&w, &m->t[i], at);
    m->fire_ms[i] = at > now ? at : now;
}

static void model_expire(struct model *m, uint64_t now, uint64_t seed)
{
    struct timer *t;
    size_t armed = 0;

    while ((t = wheel_expire(&w, now))) {
        size_t i = (size_t)(t - m->t);

        cr_assert(m->fire_ms[i], "seed %lu: fired though not armed", seed);
        cr_assert_leq(m->fire_ms[i], now, "seed %lu: early", seed);
        cr_assert(!timer_armed(t));
        m->fire_ms[i] = 0;
    }
    for (size_t i = 0; i < TIMERS; i++) {
        if (!m->fire_ms[i])
            continue;
        armed++;
        cr_assert_gt(m->fire_ms[i] + WHEEL_TICK_MS, now, "seed %lu: late", seed);
        cr_assert_leq(wheel_next_ms(&w), m->fire_ms[i] + WHEEL_TICK_MS, "seed %lu: oversleeps",
                      seed);
    }
    cr_assert_eq(w.armed, armed, "seed %lu", seed);
    cr_assert_gt(wheel_next_ms(&w), now, "seed %lu: would not sleep", seed);
}

Test(wheel, agrees_with_a_naive_model_for_many_seeds, .timeout = 60)
{
    static struct model m;

    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct seeded r = { seed };
        uint64_t now = 1 + some_delay(&r);

        memset(&m, 0, sizeof(m));
        wheel_init(&w, now);
        for (int step = 0; step < 1000; step++) {
            for (uint64_t n = seeded_below(&r, 4); n; n--)
                model_arm(&m, &r, now);
            if (seeded_below(&r, 4) == 0) {
                size_t i = seeded_below(&r, TIMERS);

                wheel_cancel(&w, &m.t[i]);
                m.fire_ms[i] = 0;
            }
            /* Sleep as long as the wheel says, or less, or wake up late. */
            switch (seeded_below(&r, 3)) {
            case 0:
                if (wheel_next_ms(&w) != UINT64_MAX)
                    now = wheel_next_ms(&w) > now ? wheel_next_ms(&w) : now;
                break;
            case 1:
                now += seeded_below(&r, 40);
                break;
            default:
                now += seeded_below(&r, 3) ? 0 : some_delay(&r);
            }
            model_expire(&m, now, seed);
        }
        for (size_t i = 0; i < TIMERS; i++)
            wheel_cancel(&w, &m.t[i]);
        cr_assert_eq(w.armed, 0);
    }
}
