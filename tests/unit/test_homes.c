#include "engine/homes.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "seeded.h"

static const uint8_t key[16] = "homes test key.";

static struct homes *homes_of(uint32_t peers_max)
{
    struct homes *h = homes_new(peers_max, key);

    cr_assert_not_null(h);
    return h;
}

/* A peer id of full length: two that differ only in the last byte are two peers. */
static struct peer_id peer_of(uint64_t n)
{
    struct peer_id p = { .n = 42 };

    memcpy(p.b + 34, &n, sizeof(n));
    return p;
}

static struct home home_of(uint32_t n)
{
    return (struct home){ .slot = n, .gen = n * 7 + 1, .shard = (uint8_t)(n % 3) };
}

static bool is_home(struct home at, uint32_t n)
{
    return at.slot == n && at.gen == n * 7 + 1 && at.shard == n % 3;
}

Test(homes, lists_a_peers_homes_newest_first)
{
    struct homes *h = homes_of(10);
    struct peer_id p = peer_of(1), q = peer_of(2);
    struct home out[HOMES_PER_PEER];

    cr_assert_eq(homes_find(h, &p, out), 0);
    for (uint32_t i = 1; i <= 3; i++)
        cr_assert(homes_add(h, &p, home_of(i)));
    cr_assert(homes_add(h, &q, home_of(9)));
    cr_assert_eq(homes_find(h, &p, out), 3);
    cr_assert(is_home(out[0], 3) && is_home(out[1], 2) && is_home(out[2], 1));
    cr_assert(homes_add(h, &p, home_of(1)), "a renewal makes it the newest");
    cr_assert_eq(homes_find(h, &p, out), 3);
    cr_assert(is_home(out[0], 1) && is_home(out[1], 3) && is_home(out[2], 2));
    cr_assert(homes_add(h, &p, home_of(1)));
    cr_assert_eq(homes_find(h, &p, out), 3);
    homes_remove(h, &p, home_of(3));
    cr_assert_eq(homes_find(h, &p, out), 2);
    cr_assert(is_home(out[0], 1) && is_home(out[1], 2));
    cr_assert_eq(homes_find(h, &q, out), 1);
    cr_assert(is_home(out[0], 9));
    cr_assert_eq(homes_peers(h), 2);
    homes_free(h);
}

Test(homes, tells_homes_apart_by_shard_slot_and_generation)
{
    struct homes *h = homes_of(1);
    struct peer_id p = peer_of(1);
    struct home out[HOMES_PER_PEER], a = { 5, 6, 1 };

    cr_assert(homes_add(h, &p, a));
    homes_remove(h, &p, (struct home){ 4, 6, 1 });
    homes_remove(h, &p, (struct home){ 5, 7, 1 });
    homes_remove(h, &p, (struct home){ 5, 6, 2 });
    cr_assert_eq(homes_find(h, &p, out), 1);
    homes_remove(h, &p, a);
    cr_assert_eq(homes_find(h, &p, out), 0);
    cr_assert_eq(homes_peers(h), 0);
    homes_remove(h, &p, a);
    cr_assert_eq(homes_peers(h), 0, "removal is idempotent");
    homes_free(h);
}

Test(homes, keeps_extreme_values_whole)
{
    struct homes *h = homes_of(1);
    struct peer_id p = peer_of(1);
    struct home out[HOMES_PER_PEER], a = { UINT32_MAX, UINT32_MAX, 255 }, b = { 0, 0, 0 };

    cr_assert(homes_add(h, &p, a));
    cr_assert(homes_add(h, &p, b));
    cr_assert_eq(homes_find(h, &p, out), 2);
    cr_assert(out[0].slot == 0 && out[0].gen == 0 && out[0].shard == 0);
    cr_assert(out[1].slot == UINT32_MAX && out[1].gen == UINT32_MAX && out[1].shard == 255);
    homes_free(h);
}

Test(homes, holds_eight_homes_of_one_peer_and_no_ninth)
{
    struct homes *h = homes_of(1);
    struct peer_id p = peer_of(1);
    struct home out[HOMES_PER_PEER];

    for (uint32_t i = 0; i < HOMES_PER_PEER; i++)
        cr_assert(homes_add(h, &p, home_of(i)));
    cr_assert(!homes_add(h, &p, home_of(8)));
    cr_assert(homes_add(h, &p, home_of(0)), "one of the eight may still be renewed");
    cr_assert_eq(homes_find(h, &p, out), 8);
    cr_assert(is_home(out[0], 0) && is_home(out[7], 1));
    homes_free(h);
}

Test(homes, compares_whole_peer_ids)
{
    struct homes *h = homes_of(300);
    struct home out[HOMES_PER_PEER];
    struct peer_id p = peer_of(0), shorter;

    for (size_t i = 0; i < PEER_ID_MAX; i++) {
        struct peer_id other = p;

        other.b[i] ^= 1;
        cr_assert(homes_add(h, &other, home_of((uint32_t)i)));
    }
    cr_assert_eq(homes_find(h, &p, out), 0);
    shorter = p;
    shorter.n = 34;
    cr_assert(homes_add(h, &shorter, home_of(77)));
    cr_assert_eq(homes_find(h, &p, out), 0);
    for (size_t i = 0; i < PEER_ID_MAX; i++) {
        struct peer_id other = p;

        other.b[i] ^= 1;
        cr_assert_eq(homes_find(h, &other, out), 1);
        cr_assert(is_home(out[0], (uint32_t)i));
    }
    homes_free(h);
}

Test(homes, has_room_for_as_many_peers_as_it_was_sized_for, .timeout = 60)
{
    static const uint32_t sizes[] = { 0, 1, 2, 7, 8, 9, 64, 100, 1000, 4096, 30000 };
    struct home out[HOMES_PER_PEER];

    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct homes *h = homes_of(sizes[s]);
            struct peer_id extra = peer_of(0);

            for (uint32_t i = 0; i < sizes[s]; i++) {
                struct peer_id p = peer_of(seed << 32 | (i + 1));

                cr_assert(homes_add(h, &p, home_of(i)), "%u of %u", i, sizes[s]);
            }
            cr_assert_eq(homes_peers(h), sizes[s]);
            cr_assert(!homes_add(h, &extra, home_of(1)), "one past the limit");
            for (uint32_t i = 0; i < sizes[s]; i++) {
                struct peer_id p = peer_of(seed << 32 | (i + 1));

                cr_assert_eq(homes_find(h, &p, out), 1);
                cr_assert(is_home(out[0], i));
            }
            homes_free(h);
        }
    }
}

Test(homes, builds_up_nothing_while_peers_come_and_go, .timeout = 60)
{
    enum { MAX = 512 };
    struct homes *h = homes_of(MAX);
    struct home out[HOMES_PER_PEER];
    static uint64_t present[MAX];
    struct seeded r = { 1 };

    for (uint32_t i = 0; i < MAX; i++) {
        struct peer_id p = peer_of(present[i] = i + 1);
        cr_assert(homes_add(h, &p, home_of(i)));
    }
    for (uint64_t n = MAX + 1; n < 300000; n++) {
        uint32_t i = (uint32_t)seeded_below(&r, MAX);
        struct peer_id old = peer_of(present[i]), new = peer_of(n);

        homes_remove(h, &old, home_of(i));
        cr_assert_eq(homes_find(h, &old, out), 0);
        cr_assert(homes_add(h, &new, home_of(i)), "after %lu", n);
        cr_assert_eq(homes_find(h, &new, out), 1);
        present[i] = n;
    }
    homes_free(h);
}

struct model {
    size_t count;
    struct home at[HOMES_PER_PEER + 1];
};

static void model_remove(struct model *m, struct home at)
{
    for (size_t i = 0; i < m->count; i++) {
        if (memcmp(&m->at[i], &at, sizeof(at)) == 0) {
            memmove(&m->at[i], &m->at[i + 1], (m->count - i - 1) * sizeof(at));
            m->count--;
            return;
        }
    }
}

Test(homes, agrees_with_a_naive_model_for_many_seeds, .timeout = 60)
{
    enum { PEERS = 40, MAX = 25, STEPS = 4000 };
    static struct model model[PEERS];

    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct seeded r = { seed };
        struct homes *h = homes_of(MAX);
        uint32_t present = 0;

        memset(model, 0, sizeof(model));
        for (int step = 0; step < STEPS; step++) {
            uint64_t who = seeded_below(&r, PEERS);
            struct peer_id p = peer_of(who);
            struct model *m = &model[who];
            struct home at, out[HOMES_PER_PEER];
            size_t before = m->count;

            memset(&at, 0, sizeof(at)); /* the padding too: the model compares bytes */
            at.slot = (uint32_t)seeded_below(&r, 6);
            at.gen = (uint32_t)seeded_below(&r, 2);
            if (seeded_below(&r, 2)) {
                model_remove(m, at);
                bool room = m->count < HOMES_PER_PEER && (before || present < MAX);

                cr_assert_eq(homes_add(h, &p, at), room, "seed %lu step %d", seed, step);
                if (room) {
                    memmove(&m->at[1], &m->at[0], m->count * sizeof(at));
                    m->at[0] = at;
                    m->count++;
                }
            } else {
                homes_remove(h, &p, at);
                model_remove(m, at);
            }
            present += (m->count > 0);
            present -= (before > 0);
            cr_assert_eq(homes_peers(h), present, "seed %lu step %d", seed, step);
            cr_assert_eq(homes_find(h, &p, out), m->count, "seed %lu step %d", seed, step);
            for (size_t i = 0; i < m->count; i++)
                cr_assert(out[i].slot == m->at[i].slot && out[i].gen == m->at[i].gen,
                          "seed %lu step %d", seed, step);
        }
        homes_free(h);
    }
}

/* One writer, readers beside it. Peer k's homes are always a run of consecutive versions, newest
 * first: the writer adds version v + 1, then removes the oldest. Before and after each step it says
 * how far it is, so a reader knows what it must see and what it must not see any more. Peers in
 * between come and go, so that entries are recycled. */
enum { STABLE = 8, PASSING = 24, READERS = 3, STRESS_MS = 500, FINDS_MIN = 200 };

struct promise {
    _Atomic uint32_t added, removed; /* versions that are certainly in, certainly out */
};

static struct homes *shared;
static struct promise promises[STABLE];
static _Atomic bool stop;
static _Atomic unsigned readers_done; /* have looked often enough; they go on */

static struct home version_of(uint32_t k, uint32_t v)
{
    return (struct home){ v, v * 31 + k, (uint8_t)(v * 5 + k) };
}

static const char *check_stable(uint32_t k)
{
    struct peer_id p = peer_of(k);
    struct home out[HOMES_PER_PEER];
    uint32_t removed = atomic_load_explicit(&promises[k].removed, memory_order_acquire);
    uint32_t added = atomic_load_explicit(&promises[k].added, memory_order_acquire);
    size_t n = homes_find(shared, &p, out);

    if (n == 0)
        return "a peer that is present was not found";
    if (out[0].slot < added)
        return "a home was not visible when add had returned";
    if (out[n - 1].slot <= removed)
        return "a home was visible after remove had returned";
    for (size_t i = 0; i < n; i++) {
        struct home want = version_of(k, out[0].slot - (uint32_t)i);

        if (out[i].slot != want.slot || out[i].gen != want.gen || out[i].shard != want.shard)
            return "a torn snapshot";
    }
    return NULL;
}

static void *read_homes(void *arg)
{
    struct seeded r = { (uint64_t)(uintptr_t)arg };
    const char *wrong = NULL;
    uint64_t finds = 0;

    while (!wrong && !atomic_load_explicit(&stop, memory_order_relaxed)) {
        wrong = check_stable((uint32_t)seeded_below(&r, STABLE));
        if (++finds == FINDS_MIN)
            atomic_fetch_add_explicit(&readers_done, 1, memory_order_relaxed);
        struct peer_id p = peer_of(1000 + seeded_below(&r, PASSING));
        struct home out[HOMES_PER_PEER];
        size_t n = homes_find(shared, &p, out);

        for (size_t i = 0; i < n; i++)
            if (out[i].gen != out[i].slot * 7 + 1)
                wrong = "a torn snapshot of a passing peer";
    }
    if (wrong) /* the writer need not wait for anybody */
        atomic_fetch_add_explicit(&readers_done, READERS, memory_order_relaxed);
    return (void *)(uintptr_t)wrong;
}

static void write_stable(uint32_t k)
{
    struct peer_id p = peer_of(k);
    uint32_t v = atomic_load(&promises[k].added) + 1;
    uint32_t oldest = atomic_load(&promises[k].removed) + 1;

    cr_assert(homes_add(shared, &p, version_of(k, v)));
    atomic_store_explicit(&promises[k].added, v, memory_order_release);
    if (v - oldest >= HOMES_PER_PEER - 1 - k % 7) { /* two to eight homes */
        homes_remove(shared, &p, version_of(k, oldest));
        atomic_store_explicit(&promises[k].removed, oldest, memory_order_release);
    }
}

Test(homes, gives_readers_whole_snapshots_beside_a_busy_writer, .timeout = 60)
{
    pthread_t t[READERS];
    struct seeded r = { 99 };
    uint64_t end = test_real_ms() + STRESS_MS;

    shared = homes_of(STABLE + PASSING);
    for (uint32_t k = 0; k < STABLE; k++)
        write_stable(k);
    for (uintptr_t i = 0; i < READERS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, read_homes, (void *)(i + 1)), 0);
    while (test_real_ms() < end ||
           atomic_load_explicit(&readers_done, memory_order_relaxed) < READERS) {
        for (int i = 0; i < 200; i++) {
            struct peer_id p = peer_of(1000 + seeded_below(&r, PASSING));
            struct home at = home_of((uint32_t)seeded_below(&r, 4));

            if (seeded_below(&r, 2))
                cr_assert(homes_add(shared, &p, at));
            else
                homes_remove(shared, &p, at);
            write_stable((uint32_t)seeded_below(&r, STABLE));
        }
    }
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) {
        void *wrong;

        cr_assert_eq(pthread_join(t[i], &wrong), 0);
        cr_assert_null(wrong, "%s", (char *)wrong);
    }
    homes_free(shared);
}
