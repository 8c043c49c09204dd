/* What all shards charge together: quotas of allocations, rates of replies and of bytes. */
#include "turn_host.h"

#include <pthread.h>
#include <sched.h>

/* ---- quotas -----------------------------------------------------------------------------------
 */

static uint16_t charge(const char *user, const char *client, struct turn_charge *out)
{
    struct netaddr a = at_of(client);

    return turn_host_charge(&h, bytes_str(user), &a, out);
}

Test(turn_host, quotas_are_all_or_nothing)
{
    struct turn_charge t[8], none;

    HOST("--turn-secret=x", "--turn-max-allocations=4", "--turn-max-per-user=2",
         "--turn-max-per-ip=3");
    cr_assert_eq(charge("alice", "192.0.2.1:1", &t[0]), 0);
    cr_assert_eq(charge("alice", "192.0.2.1:2", &t[1]), 0);
    cr_assert_eq(charge("alice", "192.0.2.2:1", &none), 486, "of one user");
    cr_assert_eq(none.user, 0);
    turn_host_release(&h, &none); /* nothing */
    cr_assert_eq(charge("bob", "192.0.2.1:3", &t[2]), 0);
    cr_assert_eq(charge("bob", "192.0.2.1:4", &none), 486, "of one address");
    cr_assert_eq(charge("bob", "192.0.2.2:4", &t[3]), 0, "what was refused costs nothing");
    cr_assert_eq(charge("carol", "192.0.2.3:4", &none), 486, "in all");
    turn_host_release(&h, &t[0]);
    turn_host_release(&h, &t[0]); /* once */
    cr_assert_eq(charge("alice", "192.0.2.9:1", &t[0]), 0);
    for (int i = 0; i < 4; i++)
        turn_host_release(&h, &t[i]);
    finish();
}

Test(turn_host, a_user_is_the_whole_name_and_an_ipv6_host_its_64)
{
    char one[300], two[300];
    struct turn_charge t[4], none;

    memset(one, 'x', sizeof(one));
    one[299] = '\0';
    memcpy(two, one, sizeof(two));
    two[298] = 'y';
    HOST("--turn-secret=x", "--turn-max-per-user=1", "--turn-max-per-ip=1");
    cr_assert_eq(charge(one, "[2001:db8:0:1::1]:1", &t[0]), 0);
    cr_assert_eq(charge(two, "[2001:db8:0:1:ffff::1]:1", &none), 486, "the same /64");
    cr_assert_eq(charge(two, "[2001:db8:0:2::1]:1", &t[1]), 0, "another name of 299 bytes");
    cr_assert_eq(charge(one, "[2001:db8:0:3::1]:1", &none), 486);
    turn_host_release(&h, &t[0]);
    turn_host_release(&h, &t[1]);
    finish();
}

enum { THREADS = 4, ROUNDS = 40000, PER_USER = 2, PER_IP = 2, TOTAL = 3 };
static _Atomic int held[3]; /* by alice, from the first address, in all */
static _Atomic int past, refused;

static void hold(int i, int max)
{
    if (atomic_fetch_add(&held[i], 1) >= max)
        atomic_fetch_add(&past, 1);
}

/* Each holds one at a time, so that four meet at two of this and three of that. */
static void *charge_and_release(void *arg)
{
    struct netaddr a = at_of("192.0.2.1:1");
    struct turn_charge t;

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        bool alice = i % 3 != 0, here = i % 4 != 0;

        a.ip[15] = here ? 1 : 2;
        if (turn_host_charge(&h, bytes_str(alice ? "alice" : "bob"), &a, &t)) {
            atomic_fetch_add(&refused, 1);
            continue;
        }
        if (alice)
            hold(0, PER_USER);
        if (here)
            hold(1, PER_IP);
        hold(2, TOTAL);
        if (i % 8 == 0)
            sched_yield();
        atomic_fetch_sub(&held[0], alice);
        atomic_fetch_sub(&held[1], here);
        atomic_fetch_sub(&held[2], 1);
        turn_host_release(&h, &t);
    }
    return NULL;
}

Test(turn_host, quotas_are_exact_among_threads, .timeout = 60)
{
    pthread_t t[THREADS];

    HOST("--turn-secret=x", "--turn-max-allocations=3", "--turn-max-per-user=2",
         "--turn-max-per-ip=2");
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, charge_and_release, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(t[i], NULL), 0);
    cr_assert_eq(atomic_load(&past), 0);
    cr_assert(atomic_load(&refused) > 0, "they have met");
    finish();
}

/* ---- rates ------------------------------------------------------------------------------------
 */

static unsigned replies(const char *client, uint64_t from_ms, uint64_t to_ms, uint64_t step_ms)
{
    struct netaddr a = at_of(client);
    unsigned n = 0;

    for (uint64_t now = from_ms; now < to_ms; now += step_ms)
        n += turn_host_may_reply(&h, now, &a);
    return n;
}

/* turn.md check 44. */
Test(turn_host, replies_to_one_source_are_so_many_per_second)
{
    struct netaddr a = at_of("192.0.2.1:1");
    unsigned n = 0;

    HOST("--turn-secret=x", "--turn-replies-per-ip=10");
    for (int i = 0; i < 100; i++) {
        a.port++; /* from whatever port */
        n += turn_host_may_reply(&h, 5000, &a);
    }
    cr_assert_eq(n, 10, "%u at once", n);
    n = replies("192.0.2.1:1", 5001, 105001, 1);
    cr_assert(n >= 990 && n <= 1010, "%u in a hundred seconds", n);
    cr_assert(replies("192.0.2.2:1", 105001, 105002, 1) == 1, "its neighbour has its own");
    finish();
}

Test(turn_host, many_replies_per_second_are_no_fewer)
{
    HOST("--turn-secret=x", "--turn-replies-per-ip=1000000");
    struct netaddr a = at_of("192.0.2.1:1");
    uint64_t n = 0;

    for (uint64_t i = 0; i < 4000000; i++)
        n += turn_host_may_reply(&h, 1000 + i / 2000, &a); /* two million a second, two seconds */
    cr_assert(n >= 2900000 && n <= 3000001, "%lu", (unsigned long)n);
    finish();
}

Test(turn_host, replies_to_a_network_are_ten_times_that)
{
    unsigned n = 0;

    HOST("--turn-secret=x", "--turn-replies-per-ip=10");
    for (int i = 1; i < 255; i++) {
        char text[32];

        snprintf(text, sizeof(text), "192.0.2.%d:9", i);
        n += replies(text, 7000, 7020, 1);
    }
    cr_assert(n >= 100 && n <= 103, "%u for a /24", n);
    cr_assert_eq(replies("192.0.3.1:9", 7020, 7021, 1), 1, "another one");
    n = 0;
    for (int i = 0; i < 200; i++) {
        char text[64];

        snprintf(text, sizeof(text), "[2001:db8:0:%x::1]:9", i);
        n += replies(text, 7000, 7001, 1);
    }
    cr_assert_eq(n, 100, "%u for a /48", n);
    finish();
}

/* A flood in one address's name must not silence its neighbours. */
Test(turn_host, who_is_limited_takes_nothing_from_the_network)
{
    HOST("--turn-secret=x", "--turn-replies-per-ip=10");
    for (int i = 0; i < 100000; i++)
        (void)replies("192.0.2.1:1", 9000, 9001, 1);
    for (int i = 2; i < 11; i++) {
        char text[32];

        snprintf(text, sizeof(text), "192.0.2.%d:9", i);
        cr_assert_eq(replies(text, 9000, 9001, 1), 1, "%s", text);
    }
    finish();
}

Test(turn_host, replies_without_a_limit)
{
    HOST("--turn-secret=x", "--turn-replies-per-ip=0");
    cr_assert_eq(replies("192.0.2.1:1", 0, 10000, 1), 10000);
    finish();
}

static uint64_t user_key(const char *name)
{
    return quota_key(quota, QUOTA_TURN_USER, bytes_str(name));
}

Test(turn_host, a_user_carries_so_many_bytes_per_second)
{
    uint64_t carried = 0;
    static const size_t sizes[] = { 1, 65000, 1200, 54 * 1200, 172 };

    HOST("--turn-secret=x", "--turn-bps-per-user=1000000");
    for (uint64_t now = 1000; now < 101000; now++)
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
            if (turn_host_may_carry(&h, now, user_key("alice"), sizes[i]))
                carried += sizes[i];
    cr_assert(carried > 99900000 && carried < 100600000, "%lu", (unsigned long)carried);
    cr_assert(turn_host_may_carry(&h, 101000, user_key("bob"), 1000), "another user");
    cr_assert(turn_host_may_carry(&h, 101000, user_key("carol"), 60000000), "once, then he owes");
    cr_assert(!turn_host_may_carry(&h, 160000, user_key("carol"), 1));
    cr_assert(turn_host_may_carry(&h, 161001, user_key("carol"), 1));
    cr_assert(turn_host_may_carry(&h, 101000, 0, 1), "nobody's");
    finish();
    HOST("--turn-secret=x");
    cr_assert(turn_host_may_carry(&h, 1, user_key("alice"), SIZE_MAX) &&
                  turn_host_may_carry(&h, 1, user_key("alice"), SIZE_MAX),
              "no cap");
    finish();
}

static _Atomic uint64_t carried_by_all;
static _Atomic int running;

static void *carry(void *arg)
{
    uint64_t key = user_key("alice");

    (void)arg;
    atomic_fetch_add(&running, 1);
    while (atomic_load(&running) < 2) /* or one of them is through before the next one starts */
        sched_yield();
    for (int i = 0; i < 1000000; i++)
        if (turn_host_may_carry(&h, 5000, key, 1000))
            atomic_fetch_add(&carried_by_all, 1);
    return NULL;
}

Test(turn_host, threads_share_what_a_user_may_carry, .timeout = 60)
{
    pthread_t t[THREADS];

    HOST("--turn-secret=x", "--turn-bps-per-user=10000000000");
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, carry, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(t[i], NULL), 0);
    cr_assert_eq(atomic_load(&carried_by_all), 2500001, "a quarter of a second's, and one more");
    finish();
}

/* dig.md §11: a source that is refused uses up nothing of what all have. */
Test(turn_host, replies_to_all_are_so_many_per_second)
{
    unsigned n = 0;

    HOST("--turn-replies-per-ip=5", "--turn-replies-total=100");
    cr_expect_eq(replies("192.0.2.1:1", 1000, 1010, 1), 5u);
    for (unsigned i = 0; i < 40; i++) {
        char from[32];

        snprintf(from, sizeof(from), "198.51.100.%u:1", i);
        n += replies(from, 1010, 1020, 1);
    }
    cr_expect(n >= 94 && n <= 100, "%u of one network too", n);
    n = 0;
    for (unsigned s = 0; s < 10; s++)
        for (unsigned i = 0; i < 100; i++) {
            char from[32];

            snprintf(from, sizeof(from), "203.0.%u.%u:1", s, i);
            n += replies(from, 2000 + 1000 * s, 3000 + 1000 * s, 100);
        }
    cr_expect(n >= 950 && n <= 1100, "%u in ten seconds", n);
    finish();
}

static bool known_one(void *arg, const struct netaddr *client)
{
    (void)arg;
    return client->ip[15] == 99;
}

/* dig.md §21: made-up addresses do not silence STUN for those who are here. */
Test(turn_host, a_flood_leaves_replies_for_who_is_connected)
{
    unsigned flood = 0, known = 0, stranger = 0;

    HOST("--turn-replies-per-ip=5", "--turn-replies-total=1000");
    h.is_known = known_one;
    for (unsigned ms = 0; ms < 3000; ms++) {
        for (unsigned i = 0; i < 5; i++) {
            char from[32];

            snprintf(from, sizeof(from), "203.%u.%u.%u:1", ms >> 8, ms & 255, i);
            flood += replies(from, 1000 + ms, 1001 + ms, 1);
        }
        if (ms % 500 == 499) { /* after the flood had its turn */
            known += replies("192.0.2.99:1", 1000 + ms, 1001 + ms, 1);
            stranger += replies("192.0.2.98:1", 1000 + ms, 1001 + ms, 1);
        }
    }
    cr_expect_eq(known, 6u);
    cr_expect_leq(stranger, 2u, "the test floods well");
    cr_expect(flood > 3000 && flood < 4100, "%u", flood);
    finish();
}

Test(turn_host, zero_switches_either_limit_off)
{
    HOST("--turn-replies-per-ip=0", "--turn-replies-total=0");
    cr_expect_eq(replies("192.0.2.1:1", 1000, 11000, 1), 10000u);
    finish();
    HOST("--turn-replies-per-ip=0", "--turn-replies-total=10");
    cr_expect_eq(replies("192.0.2.1:1", 1000, 1005, 1), 5u);
    cr_expect_eq(replies("192.0.2.2:1", 1005, 1025, 1), 5u);
    finish();
}
