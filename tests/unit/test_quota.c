#include "engine/quota.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "seeded.h"

static const uint8_t key16[16] = "quota test key.";

static struct quota *quota_of(uint32_t keys_max, uint32_t rate_cells)
{
    struct quota *q = quota_new(keys_max, rate_cells, key16);

    cr_assert_not_null(q);
    return q;
}

static uint64_t key_of(const struct quota *q, enum quota_kind kind, uint64_t subject)
{
    return quota_key(q, kind, bytes_of(&subject, sizeof(subject)));
}

Test(quota, counts_up_to_the_limit_and_not_past_it)
{
    struct quota *q = quota_of(16, 16);
    uint64_t k = key_of(q, QUOTA_CONN_IP, 1), other = key_of(q, QUOTA_CONN_SUBNET, 1);

    cr_assert_neq(k, other);
    for (int i = 0; i < 3; i++)
        cr_assert(quota_take(q, k, 3));
    cr_assert(!quota_take(q, k, 3));
    cr_assert_eq(quota_count(q, k), 3);
    cr_assert_eq(quota_count(q, other), 0);
    cr_assert(quota_take(q, other, 1), "the same subject under another kind");
    cr_assert_eq(quota_live(q), 2);
    quota_drop(q, k);
    cr_assert(quota_take(q, k, 3));
    cr_assert(!quota_take(q, k, 3));
    cr_assert(!quota_take(q, k, 2), "a limit that was lowered");
    cr_assert(quota_take(q, k, 0), "0 is no limit, and counts");
    cr_assert_eq(quota_count(q, k), 4);
    for (int i = 0; i < 4; i++)
        quota_drop(q, k);
    quota_drop(q, other);
    cr_assert_eq(quota_live(q), 0);
    cr_assert_eq(quota_overflows(q), 0);
    quota_free(q);
}

Test(quota, stops_the_process_when_more_is_dropped_than_taken, .signal = SIGABRT)
{
    struct quota *q = quota_of(16, 16);
    uint64_t k = key_of(q, QUOTA_CONN_IP, 1);

    cr_assert(quota_take(q, k, 3));
    quota_drop(q, k);
    quota_drop(q, k);
}

Test(quota, keys_depend_on_every_byte_and_on_the_secret)
{
    struct quota *q = quota_of(1, 1), *p = quota_new(1, 1, (const uint8_t *)"another secret..");
    uint8_t subject[45] = { 0 };
    uint64_t k = quota_key(q, QUOTA_CONN_PEER, bytes_of(subject, sizeof(subject)));

    cr_assert_neq(quota_key(p, QUOTA_CONN_PEER, bytes_of(subject, sizeof(subject))), k);
    cr_assert_eq(quota_key(q, QUOTA_CONN_PEER, bytes_of(subject, sizeof(subject))), k);
    for (size_t i = 0; i < sizeof(subject); i++) {
        subject[i] = 1;
        cr_assert_neq(quota_key(q, QUOTA_CONN_PEER, bytes_of(subject, sizeof(subject))), k);
        subject[i] = 0;
    }
    cr_assert_neq(quota_key(q, QUOTA_CONN_TOTAL, bytes_of(NULL, 0)), 0);
    quota_free(q);
    quota_free(p);
}

Test(quota, has_room_for_as_many_keys_as_it_was_sized_for, .timeout = 60)
{
    static const uint32_t sizes[] = { 0, 1, 2, 5, 6, 8, 27, 100, 109, 1000, 1706, 20000, 54613 };

    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct quota *q = quota_of(sizes[s], 1);

            for (uint64_t i = 0; i < sizes[s]; i++)
                cr_assert(quota_take(q, key_of(q, QUOTA_CONN_IP, seed << 32 | i), 1), "%lu of %u",
                          i, sizes[s]);
            cr_assert_eq(quota_live(q), sizes[s]);
            for (uint64_t i = 0; i < sizes[s]; i++) {
                cr_assert_eq(quota_count(q, key_of(q, QUOTA_CONN_IP, seed << 32 | i)), 1);
                quota_drop(q, key_of(q, QUOTA_CONN_IP, seed << 32 | i));
            }
            cr_assert_eq(quota_live(q), 0);
            quota_free(q);
        }
    }
}

Test(quota, refuses_and_counts_when_it_is_full)
{
    struct quota *q = quota_of(50, 1);
    static bool taken[1000];
    size_t live = 0;

    for (uint64_t i = 0; i < 1000; i++) {
        taken[i] = quota_take(q, key_of(q, QUOTA_CONN_IP, i), 0);
        live += taken[i];
    }
    cr_assert_lt(live, 1000);
    cr_assert_geq(live, 50);
    cr_assert_eq(quota_overflows(q), 1000 - live);
    cr_assert_eq(quota_live(q), live);
    for (uint64_t i = 0; i < 1000; i++) {
        cr_assert_eq(quota_count(q, key_of(q, QUOTA_CONN_IP, i)), taken[i]);
        if (taken[i])
            quota_drop(q, key_of(q, QUOTA_CONN_IP, i));
    }
    cr_assert_eq(quota_live(q), 0);
    quota_free(q);
}

Test(quota, agrees_with_a_naive_model_for_many_seeds)
{
    enum { KEYS = 60 };

    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct seeded r = { seed };
        struct quota *q = quota_of(KEYS, 1);
        uint32_t count[KEYS] = { 0 };
        size_t live = 0;

        for (int step = 0; step < 5000; step++) {
            uint64_t i = seeded_below(&r, KEYS), k = key_of(q, QUOTA_CIRCUIT_PEER, i);
            uint32_t max = (uint32_t)seeded_below(&r, 5);

            if (seeded_below(&r, 2)) {
                bool room = max == 0 || count[i] < max;

                uint32_t now = 99;

                cr_assert_eq(quota_take_n(q, k, max, &now), room, "seed %lu", seed);
                live += room && count[i] == 0;
                count[i] += room;
                cr_assert(!room || now == count[i], "seed %lu: says the count with the take", seed);
            } else if (count[i]) {
                live -= --count[i] == 0;
                cr_assert_eq(quota_drop(q, k), count[i], "seed %lu", seed);
            }
            cr_assert_eq(quota_count(q, k), count[i], "seed %lu", seed);
            cr_assert_eq(quota_live(q), live, "seed %lu", seed);
        }
        quota_free(q);
    }
}

/* Threads take and drop a few keys of one small table. A shadow count beside it, raised after a
 * take and lowered before the drop, must never pass the limit. */
enum { THREADS = 4, HOT = 6, LIMIT = 5, STRESS_MS = 400, WORK_MIN = 200 };

static struct quota *shared;
static _Atomic uint32_t shadow[HOT];
static int only_cpu = -1;

struct worker {
    pthread_t thread;
    uint64_t taken, refused, firsts, lasts;
    bool exceeded;
};

static void *take_and_drop(void *arg)
{
    struct worker *w = arg;
    struct seeded r = { (uint64_t)(uintptr_t)arg };
    uint64_t end = test_real_ms() + STRESS_MS;
    uint32_t held[HOT] = { 0 };

    if (only_cpu >= 0) {
        cpu_set_t one;

        CPU_ZERO(&one);
        CPU_SET(only_cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
    }
    while (test_real_ms() < end || w->taken < WORK_MIN || w->refused < WORK_MIN) {
        for (int n = 0; n < 100; n++) {
            uint64_t i = seeded_below(&r, HOT), k = key_of(shared, QUOTA_CONN_IP, i);

            if (seeded_below(&r, 2)) {
                uint32_t now;

                if (!quota_take_n(shared, k, LIMIT, &now)) {
                    w->refused++;
                    continue;
                }
                w->firsts += now == 1;
                w->exceeded |= atomic_fetch_add(&shadow[i], 1) >= LIMIT;
                w->taken++;
                held[i]++;
            } else if (held[i]) {
                held[i]--;
                atomic_fetch_sub(&shadow[i], 1);
                w->lasts += quota_drop(shared, k) == 0;
            }
        }
    }
    for (uint64_t i = 0; i < HOT; i++)
        for (; held[i]; held[i]--) {
            atomic_fetch_sub(&shadow[i], 1);
            w->lasts += quota_drop(shared, key_of(shared, QUOTA_CONN_IP, i)) == 0;
        }
    return NULL;
}

static void run_workers(void)
{
    static struct worker w[THREADS];
    uint64_t firsts = 0, lasts = 0;

    memset(w, 0, sizeof(w));
    memset(shadow, 0, sizeof(shadow));
    shared = quota_of(HOT, 1);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&w[i].thread, NULL, take_and_drop, &w[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_join(w[i].thread, NULL), 0);
        cr_assert(!w[i].exceeded, "more were taken than the limit allows");
        firsts += w[i].firsts;
        lasts += w[i].lasts;
    }
    cr_assert_eq(firsts, lasts, "who is first and who is last is said once each");
    cr_assert_eq(quota_live(shared), 0);
    cr_assert_eq(quota_overflows(shared), 0);
    quota_free(shared);
}

Test(quota, is_exact_among_threads, .timeout = 60)
{
    run_workers();
}

Test(quota, does_not_live_lock_on_one_processor, .timeout = 60)
{
    only_cpu = sched_getcpu();
    run_workers();
    only_cpu = -1;
}

Test(gcra, allows_a_burst_and_then_the_rate)
{
    uint64_t tat = 0;

    for (int i = 0; i < 3; i++)
        cr_assert(gcra_step(&tat, 1000, 3, 100));
    cr_assert(!gcra_step(&tat, 1000, 3, 100));
    cr_assert(!gcra_step(&tat, 1099, 3, 100));
    cr_assert(gcra_step(&tat, 1100, 3, 100));
    cr_assert(!gcra_step(&tat, 1100, 3, 100));
    for (int i = 0; i < 3; i++)
        cr_assert(gcra_step(&tat, 5000, 3, 100), "idle time fills the burst and no more");
    cr_assert(!gcra_step(&tat, 5000, 3, 100));
    tat = 7;
    cr_assert(gcra_step(&tat, 0, 0, 100) && gcra_step(&tat, 0, 1, 0), "no limit");
    cr_assert_eq(tat, 7);
}

Test(gcra, survives_extreme_numbers)
{
    uint64_t tat = 0;

    cr_assert(gcra_step(&tat, 1, UINT32_MAX, UINT64_MAX));
    cr_assert_eq(tat, UINT64_MAX);
    tat = UINT64_MAX;
    cr_assert(!gcra_step(&tat, 0, 1, 1));
    cr_assert(gcra_step(&tat, UINT64_MAX, 1, 1));
    cr_assert_eq(tat, UINT64_MAX);
}

/* The same as a bucket of burst tokens that drips, in ms of credit. */
Test(gcra, agrees_with_a_token_bucket_for_many_seeds)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct seeded r = { seed };
        uint32_t burst = 1 + (uint32_t)seeded_below(&r, 10);
        uint64_t refill = 1 + seeded_below(&r, 500), now = seeded_below(&r, 100000), tat = 0;
        uint64_t credit = burst * refill;

        for (int step = 0; step < 2000; step++) {
            uint64_t dt = seeded_below(&r, refill + 2);

            now += dt;
            credit = min_u64(credit + dt, burst * refill);
            bool allowed = credit >= refill;

            credit -= allowed ? refill : 0;
            cr_assert_eq(gcra_step(&tat, now, burst, refill), allowed, "seed %lu", seed);
        }
    }
}

Test(rate, limits_each_key_by_itself)
{
    struct quota *q = quota_of(1, 4096);

    for (uint64_t i = 0; i < 100; i++) {
        uint64_t k = key_of(q, RATE_CONNECT_IP, i);

        cr_assert(rate_allow(q, k, 50, 2, 1000));
        cr_assert(rate_allow(q, k, 50, 2, 1000));
        cr_assert(!rate_allow(q, k, 50, 2, 1000));
        cr_assert(rate_allow(q, k, 50, 0, 1000), "no limit");
    }
    for (uint64_t i = 0; i < 100; i++) {
        cr_assert(rate_allow(q, key_of(q, RATE_CONNECT_IP, i), 1050, 2, 1000));
        cr_assert(!rate_allow(q, key_of(q, RATE_CONNECT_IP, i), 1050, 2, 1000));
    }
    quota_free(q);
}

/* More keys than cells: it may forget, and then allows more; it never refuses what is within, all
 * that it ever allowed counted. */
Test(rate, errs_towards_allowing_only)
{
    enum { KEYS = 400 };

    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct seeded r = { seed };
        struct quota *q = quota_of(1, 128);
        static uint64_t tat[KEYS];
        uint64_t now = 0, refused = 0;

        memset(tat, 0, sizeof(tat));
        for (int step = 0; step < 20000; step++) {
            uint64_t i = seeded_below(&r, seeded_below(&r, 2) ? 10 : KEYS), exact = tat[i];

            now += seeded_below(&r, 3);
            bool within = gcra_step(&exact, now, 3, 100);
            bool allowed = rate_allow(q, key_of(q, RATE_CONNECT_PEER, seed << 16 | i), now, 3, 100);

            cr_assert(allowed || !within, "seed %lu step %d: refused what is within", seed, step);
            if (allowed)
                tat[i] = (tat[i] > now ? tat[i] : now) + 100;
            refused += !allowed;
        }
        cr_assert_gt(refused, 100, "seed %lu: busy keys are remembered", seed);
        quota_free(q);
    }
}

static _Atomic uint64_t allowed_among_threads;

static void *rate_run(void *arg)
{
    uint64_t k = key_of(shared, RATE_HANDSHAKE_IP, 5);

    (void)arg;
    for (int i = 0; i < 20000; i++)
        atomic_fetch_add(&allowed_among_threads, rate_allow(shared, k, 1000, 7777, 10));
    return NULL;
}

Test(rate, gives_out_each_token_once_among_threads, .timeout = 60)
{
    pthread_t t[THREADS];

    atomic_store(&allowed_among_threads, 0);
    shared = quota_of(1, 64);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, rate_run, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(t[i], NULL), 0);
    cr_assert_eq(atomic_load(&allowed_among_threads), 7777);
    quota_free(shared);
}

/* A meter goes to another key when its debt is paid, and not before while others are free of it. */
Test(meter, remembers_who_owes)
{
    struct quota *q = quota_of(1, 16);

    cr_assert(rate_spend(q, 1, 1, 1000, 0) && rate_spend(q, 1, 1, 1000, 0), "no meters, no limit");
    cr_assert_eq(quota_meters(q, 4), 0);
    for (uint64_t key = 1; key <= 4; key++) {
        cr_assert(rate_spend(q, key << 32, 5000, 1000 * key, 0));
        cr_assert(!rate_spend(q, key << 32, 5000, 1, 0));
    }
    cr_assert(rate_spend(q, 9ull << 32, 6000, 1, 0), "the first one has paid by now");
    for (uint64_t key = 2; key <= 4; key++)
        cr_assert(!rate_spend(q, key << 32, 6000, 1, 0), "%d still owes", (int)key);
    cr_assert(!rate_spend(q, 9ull << 32, 6000, 1, 0));
    quota_free(q);
}

/* More keys that owe than meters: who owes least is forgotten, and the flood that owes most not. */
Test(meter, forgets_the_smallest_debt_first)
{
    struct quota *q = quota_of(1, 16);
    uint64_t allowed = 0;

    cr_assert_eq(quota_meters(q, 4), 0);
    for (uint64_t i = 0; i < 1000; i++) {
        allowed += rate_spend(q, 1, 5000, 100, 10000); /* a hundred, then no more */
        cr_assert(rate_spend(q, 1000 + i, 5000, 1, 10000), "who is new is answered");
    }
    cr_assert(allowed >= 101 && allowed <= 110, "%d", (int)allowed);
    quota_free(q);
}

Test(meter, gives_nobody_another_ones_debt)
{
    struct quota *q = quota_of(1, 16);

    cr_assert_eq(quota_meters(q, 4), 0);
    for (uint64_t key = 1; key <= 4; key++)
        cr_assert(rate_spend(q, key << 32, 5000, 1000, 0));
    cr_assert(rate_spend(q, UINT64_C(5) << 32, 5000, 10, 0));
    cr_assert(rate_spend(q, UINT64_C(5) << 32, 5010, 10, 0));
    quota_free(q);
}

Test(meter, does_not_wrap)
{
    struct quota *q = quota_of(1, 16);

    cr_assert_eq(quota_meters(q, 4), 0);
    cr_assert(rate_spend(q, 1, 5000, UINT64_MAX, 0));
    cr_assert(!rate_spend(q, 1, UINT64_MAX - 1, 1, 0));
    quota_free(q);
}
