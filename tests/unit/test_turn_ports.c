#include "engine/turn_ports.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/rng.h"

enum { REST = 120000 };

static struct turn_ports *ports_of(uint16_t lo, uint16_t hi, uint32_t rest_ms)
{
    struct turn_ports *p = turn_ports_new(lo, hi, rest_ms);

    cr_assert(p != NULL);
    return p;
}

Test(turn_ports, every_port_can_be_had_once)
{
    struct turn_ports *p = ports_of(50000, 50099, REST);
    bool seen[100] = { false };

    cr_assert_eq(turn_ports_count(p), 100);
    for (uint32_t i = 0; i < 100; i++) {
        uint16_t port = turn_ports_take(p, 1, TURN_PORT_ANY);

        cr_assert(port >= 50000 && port <= 50099);
        cr_assert(!seen[port - 50000], "%u was given twice", port);
        seen[port - 50000] = true;
        cr_assert_eq(turn_ports_used(p), i + 1);
    }
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_ANY), 0);
    cr_assert_eq(turn_ports_take(p, UINT64_MAX / 2, TURN_PORT_ANY), 0, "time frees nothing");
    turn_ports_free(p);
}

/* CVE-2025-69217: who can tell the next port from the last ones finds other people's. Chi-square
 * over which port is drawn, and over how far the next one is from the last, each with 255 degrees
 * of freedom: above 355 once in 25000 times; seeded, so never by bad luck. */
Test(turn_ports, draws_are_uniform_and_independent)
{
    enum { N = 256, DRAWS = N * 400 };

    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct turn_ports *p = ports_of(50000, 50000 + N - 1, 0);
        uint32_t drawn[N] = { 0 }, step[N] = { 0 };
        double chi[2] = { 0, 0 };
        uint16_t last = 0;

        rng_seed_fake(seed);
        for (int i = 0; i < DRAWS; i++) {
            uint16_t port = turn_ports_take(p, 1, TURN_PORT_ANY);

            cr_assert(port != 0);
            drawn[port - 50000]++;
            step[(uint16_t)(port - last) % N]++;
            last = port;
            turn_ports_give(p, 1, port);
        }
        for (int i = 0; i < N; i++) {
            double d = drawn[i] - 400.0, e = step[i] - 400.0;

            chi[0] += d * d / 400;
            chi[1] += e * e / 400;
        }
        cr_assert(chi[0] < 355 && chi[1] < 355, "seed %lu: %.0f %.0f", seed, chi[0], chi[1]);
        cr_assert(chi[0] > 170 && chi[1] > 170,
                  "seed %lu: too even is not random, either: %.0f "
                  "%.0f",
                  seed, chi[0], chi[1]);
        turn_ports_free(p);
    }
    rng_real();
}

Test(turn_ports, even_ports_are_even_and_run_out_alone)
{
    struct turn_ports *p = ports_of(50001, 50010, REST);

    for (int i = 0; i < 5; i++)
        cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_EVEN) % 2, 0);
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_EVEN), 0);
    cr_assert_eq(turn_ports_used(p), 5, "the odd ones stay free");
    for (int i = 0; i < 5; i++)
        cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_ANY) % 2, 1);
    turn_ports_free(p);
}

Test(turn_ports, a_pair_is_even_and_the_next_and_both_are_in_the_range)
{
    struct turn_ports *p = ports_of(50001, 50010, REST); /* 50002/3 ... 50008/9 */
    bool seen[16] = { false };

    for (int i = 0; i < 4; i++) {
        uint16_t port = turn_ports_take(p, 1, TURN_PORT_PAIR);

        cr_assert(port >= 50002 && port <= 50008 && port % 2 == 0 && !seen[port - 50000]);
        seen[port - 50000] = true;
    }
    cr_assert_eq(turn_ports_used(p), 8);
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_PAIR), 0);
    turn_ports_give(p, 1, 50003); /* one by one, each alone */
    cr_assert_eq(turn_ports_take(p, 1 + REST, TURN_PORT_PAIR), 0, "its even half is taken");
    turn_ports_give(p, 1 + REST, 50002);
    cr_assert_eq(turn_ports_take(p, 1 + 2 * REST, TURN_PORT_PAIR), 50002);
    turn_ports_free(p);
}

Test(turn_ports, a_pair_needs_a_range_that_holds_one)
{
    struct turn_ports *p = ports_of(50001, 50002, REST);

    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_PAIR), 0);
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_EVEN), 50002);
    turn_ports_free(p);
    p = ports_of(50001, 50001, REST);
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_EVEN), 0);
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_PAIR), 0);
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_ANY), 50001);
    turn_ports_free(p);
    p = ports_of(65534, 65535, REST); /* no arithmetic goes past the last port */
    cr_assert_eq(turn_ports_take(p, 1, TURN_PORT_PAIR), 65534);
    turn_ports_free(p);
    p = ports_of(1, 65535, REST);
    cr_assert_eq(turn_ports_count(p), 65535);
    turn_ports_free(p);
}

/* CVE-2026-73215: an EVEN-PORT without the reservation bit must not keep the odd port above. */
Test(turn_ports, twenty_thousand_even_allocations_lose_no_port)
{
    struct turn_ports *p = ports_of(50000, 50063, REST);
    uint64_t now = 1;

    for (int i = 0; i < 20000; i++) {
        uint16_t port = turn_ports_take(p, now, i % 3 == 0 ? TURN_PORT_PAIR : TURN_PORT_EVEN);

        cr_assert(port != 0, "at cycle %d", i);
        if (i % 3 == 0)
            turn_ports_give(p, now, port + 1);
        turn_ports_give(p, now, port);
        now += REST / 10;
    }
    cr_assert_eq(turn_ports_used(p), 0);
    for (int i = 0; i < 64; i++)
        cr_assert(turn_ports_take(p, now + REST, TURN_PORT_ANY) != 0, "port %d is lost", i);
    turn_ports_free(p);
}

Test(turn_ports, a_freed_port_rests)
{
    struct turn_ports *p = ports_of(50000, 50999, REST);
    uint16_t port = turn_ports_take(p, 1000, TURN_PORT_ANY);

    turn_ports_give(p, 1000, port);
    for (int i = 0; i < 999; i++)
        cr_assert(turn_ports_take(p, 1000 + REST - 1, TURN_PORT_ANY) != port);
    cr_assert_eq(turn_ports_take(p, 1000 + REST, TURN_PORT_ANY), port);
    turn_ports_free(p);
}

/* Where all that is free rests, the one that has rested longest will do, after a tenth. */
Test(turn_ports, a_small_range_does_not_refuse_everybody_for_two_minutes)
{
    struct turn_ports *p = ports_of(50000, 50003, REST);

    for (int i = 0; i < 4; i++)
        cr_assert(turn_ports_take(p, 1, TURN_PORT_ANY) != 0);
    turn_ports_give(p, 1000, 50002);
    turn_ports_give(p, 1001, 50001);
    turn_ports_give(p, 1002, 50003);
    cr_assert_eq(turn_ports_take(p, 1000 + REST / 10 - 1, TURN_PORT_ANY), 0, "not yet");
    cr_assert_eq(turn_ports_take(p, 1000 + REST / 10, TURN_PORT_ANY), 50002);
    cr_assert_eq(turn_ports_take(p, 1000 + REST / 10, TURN_PORT_ANY), 0);
    cr_assert_eq(turn_ports_take(p, 2000 + REST / 10, TURN_PORT_PAIR), 0, "50000 is taken");
    cr_assert_eq(turn_ports_take(p, 2000 + REST / 10, TURN_PORT_ANY), 50001);
    cr_assert_eq(turn_ports_take(p, 2000 + REST / 10, TURN_PORT_ANY), 50003);
    turn_ports_give(p, 5000 + REST, 50002);
    turn_ports_give(p, 6000 + REST, 50003);
    cr_assert_eq(turn_ports_take(p, 5000 + REST + REST / 10, TURN_PORT_PAIR), 0,
                 "the younger half of a pair counts");
    cr_assert_eq(turn_ports_take(p, 6000 + REST + REST / 10, TURN_PORT_PAIR), 50002);
    cr_assert_eq(turn_ports_used(p), 4);
    turn_ports_free(p);
}

Test(turn_ports, a_clock_that_is_behind_is_no_rest)
{
    struct turn_ports *p = ports_of(50000, 50000, REST);

    cr_assert_eq(turn_ports_take(p, 100, TURN_PORT_ANY), 50000);
    turn_ports_give(p, 100, 50000);
    cr_assert_eq(turn_ports_take(p, 50, TURN_PORT_ANY), 0);
    turn_ports_free(p);
}

/* Threads take and give; each port has one owner, whom its byte names. */
enum { THREADS = 4, OWN_MAX = 6, ROUNDS = 100000, RANGE = 8 };
static struct turn_ports *shared;
static _Atomic uint32_t owner[RANGE];
static _Atomic uint32_t refused, clashes;

static void own(uint16_t port, uint32_t from, uint32_t to)
{
    if (!atomic_compare_exchange_strong(&owner[port - 50000], &from, to))
        atomic_fetch_add(&clashes, 1);
}

static void *take_and_give(void *arg)
{
    uint32_t me = 1 + (uint32_t)(uintptr_t)arg, n = 0;
    uint16_t mine[OWN_MAX];

    for (int i = 0; i < ROUNDS; i++) {
        bool pair = i % 5 == 0;
        uint16_t port = 0;

        if (n + 2 <= OWN_MAX && rng_below(2)) {
            port = turn_ports_take(shared, 1, pair ? TURN_PORT_PAIR : TURN_PORT_ANY);
            if (port == 0)
                atomic_fetch_add(&refused, 1);
        } else if (n) {
            uint32_t k = (uint32_t)rng_below(n);

            own(mine[k], me, 0);
            turn_ports_give(shared, 1, mine[k]);
            mine[k] = mine[--n];
        }
        for (uint16_t more = 0; port && more < (pair ? 2 : 1); more++) {
            own((uint16_t)(port + more), 0, me);
            mine[n++] = (uint16_t)(port + more);
        }
    }
    while (n) {
        own(mine[--n], me, 0);
        turn_ports_give(shared, 1, mine[n]);
    }
    return NULL;
}

Test(turn_ports, no_port_has_two_owners_among_threads, .timeout = 60)
{
    pthread_t t[THREADS];

    rng_seed_fake(1); /* fast, so that they meet at the same port often */
    shared = ports_of(50000, 50000 + RANGE - 1, 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, take_and_give, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(t[i], NULL), 0);
    cr_assert_eq(atomic_load(&clashes), 0);
    cr_assert_eq(turn_ports_used(shared), 0);
    for (int i = 0; i < RANGE; i++)
        cr_assert(turn_ports_take(shared, 1, TURN_PORT_ANY) != 0);
    turn_ports_free(shared);
}
