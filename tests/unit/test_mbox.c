#include "engine/mbox.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "seeded.h"

Test(mbox, gives_everything_oldest_first)
{
    struct mbox m = { 0 };
    struct mnode n[4] = { 0 };

    cr_assert_null(mbox_take(&m));
    cr_assert(mbox_push(&m, &n[0]), "the box was empty: ring the doorbell");
    cr_assert(!mbox_push(&m, &n[1]));
    cr_assert(!mbox_push(&m, &n[2]));
    struct mnode *at = mbox_take(&m);
    for (int i = 0; i < 3; i++, at = at->next)
        cr_assert_eq(at, &n[i]);
    cr_assert_null(at);
    cr_assert_null(mbox_take(&m));
    cr_assert(mbox_push(&m, &n[0]));
    at = mbox_take(&m);
    cr_assert(at == &n[0] && !at->next);
}

Test(mwork, travels_once_until_it_is_consumed)
{
    struct mbox m = { 0 };
    struct mwork w = { 0 };

    cr_assert(mwork_post(&w, &m, 1));
    cr_assert(!mwork_post(&w, &m, 4), "on its way already");
    cr_assert_eq(mbox_take(&m), &w.node);
    cr_assert_null(w.node.next);
    cr_assert(!mwork_post(&w, &m, 8), "taken out of the box, yet its bits are still to be read");
    cr_assert_null(mbox_take(&m));
    cr_assert_eq(mwork_take(&w), 13);
    cr_assert(mwork_post(&w, &m, 2));
    cr_assert_eq(mbox_take(&m), &w.node);
    cr_assert_eq(mwork_take(&w), 2);
    cr_assert_eq(mwork_take(&w), 0);
}

/* Producers own nodes with numbers that rise; the consumer must see each producer's in order, each
 * once, and everything written before the push. */
enum { PRODUCERS = 3, NODES = 256, STRESS_MS = 400 };

struct item {
    struct mnode node;
    uint64_t number;
    _Atomic bool free;
};

struct producer {
    struct item item[NODES];
    pthread_t thread;
    uint64_t sent, rang;
};

/* A busy machine may hardly let a thread run: the work that a test needs comes before its time. */
enum { WORK_MIN = 2000 };

static struct producer producers[PRODUCERS];
static struct mbox box;
static _Atomic unsigned done; /* threads that post no more */

static void *produce(void *arg)
{
    struct producer *p = arg;
    uint64_t end = test_real_ms() + STRESS_MS;

    while (test_real_ms() < end || p->sent < WORK_MIN) {
        for (size_t i = 0; i < NODES; i++) {
            struct item *it = &p->item[i];

            if (!atomic_load_explicit(&it->free, memory_order_acquire))
                continue;
            atomic_store_explicit(&it->free, false, memory_order_relaxed);
            it->number = ++p->sent;
            it->node.kind = (uint8_t)(p - producers);
            p->rang += mbox_push(&box, &it->node);
        }
    }
    atomic_fetch_add_explicit(&done, 1, memory_order_release);
    return NULL;
}

/* Items go out in the order of the array, but only those that are free; numbers rise anyway. */
Test(mbox, loses_and_reorders_nothing_among_threads, .timeout = 60)
{
    uint64_t got[PRODUCERS] = { 0 }, batches = 0, rang = 0;

    atomic_store(&done, 0);
    for (int i = 0; i < PRODUCERS; i++) {
        for (int k = 0; k < NODES; k++)
            atomic_init(&producers[i].item[k].free, true);
        cr_assert_eq(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    while (atomic_load_explicit(&done, memory_order_acquire) < PRODUCERS) {
        struct mnode *n = mbox_take(&box);

        batches += n != NULL;
        while (n) {
            struct item *it = CONTAINER_OF(n, struct item, node);

            n = n->next;
            cr_assert_eq(it->number, ++got[it->node.kind]);
            atomic_store_explicit(&it->free, true, memory_order_release);
        }
        sched_yield();
    }
    for (int i = 0; i < PRODUCERS; i++)
        cr_assert_eq(pthread_join(producers[i].thread, NULL), 0);
    struct mnode *rest = mbox_take(&box);
    batches += rest != NULL;
    for (; rest; rest = rest->next)
        got[rest->kind]++;
    for (int i = 0; i < PRODUCERS; i++) {
        cr_assert_eq(got[i], producers[i].sent, "producer %d", i);
        cr_assert_geq(got[i], WORK_MIN);
        rang += producers[i].rang;
    }
    cr_assert_eq(rang, batches, "one doorbell per batch");
}

/* Many post to a few objects; every event must be seen once: each poster adds to its own counter,
 * then posts its bit, and after the last post the consumer must have read the last value. */
enum { OBJECTS = 4 };

struct object {
    struct mwork work;
    _Atomic uint64_t count[PRODUCERS]; /* relaxed: mwork must order it */
    uint64_t plain[PRODUCERS];         /* written by the poster while its bit is not set */
    uint64_t seen[PRODUCERS];
};

static struct object objects[OBJECTS];

static void *post(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    struct seeded r = { me + 1 };
    uint64_t end = test_real_ms() + STRESS_MS, posts = 0;

    while (test_real_ms() < end || posts < WORK_MIN) {
        for (int i = 0; i < 32; i++, posts++) {
            struct object *o = &objects[seeded_below(&r, OBJECTS)];

            atomic_fetch_add_explicit(&o->count[me], 1, memory_order_relaxed);
            mwork_post(&o->work, &box, 1U << me);
        }
    }
    atomic_fetch_add_explicit(&done, 1, memory_order_release);
    return NULL;
}

static void serve(void)
{
    struct mnode *n = mbox_take(&box);

    while (n) {
        struct object *o = CONTAINER_OF(n, struct object, work.node);

        n = n->next; /* before mwork_take: afterwards a poster may push the node again */
        uint32_t bits = mwork_take(&o->work);

        cr_assert_neq(bits, 0, "the node travelled without an event");
        for (unsigned i = 0; i < PRODUCERS; i++)
            if (bits & 1U << i)
                o->seen[i] = atomic_load_explicit(&o->count[i], memory_order_relaxed);
    }
}

Test(mwork, misses_no_event_among_threads, .timeout = 60)
{
    pthread_t t[PRODUCERS];

    memset(objects, 0, sizeof(objects));
    atomic_store(&done, 0);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, post, (void *)i), 0);
    while (atomic_load_explicit(&done, memory_order_acquire) < PRODUCERS) {
        serve();
        sched_yield();
    }
    serve();
    for (int i = 0; i < PRODUCERS; i++)
        cr_assert_eq(pthread_join(t[i], NULL), 0);
    for (int k = 0; k < OBJECTS; k++) {
        for (int i = 0; i < PRODUCERS; i++) {
            cr_assert_eq(objects[k].seen[i], atomic_load(&objects[k].count[i]), "%d %d", k, i);
            cr_assert_gt(objects[k].seen[i], 100);
        }
    }
    cr_assert_null(mbox_take(&box));
}

/* One poster, plain data: what was written before a post is visible to the take, which only the
 * thread sanitizer can tell on a machine with strong ordering. */
static void *post_plain(void *arg)
{
    (void)arg;
    for (uint64_t n = 1; n <= 20000; n++) {
        struct object *o = &objects[0];

        while (atomic_load_explicit(&o->count[0], memory_order_acquire) != n - 1)
            sched_yield();
        o->plain[0] = n;
        mwork_post(&o->work, &box, 1);
    }
    return NULL;
}

Test(mwork, publishes_what_was_written_before_the_post, .timeout = 60)
{
    pthread_t t;
    uint64_t n = 0;

    memset(objects, 0, sizeof(objects));
    cr_assert_eq(pthread_create(&t, NULL, post_plain, NULL), 0);
    while (n < 20000) {
        struct mnode *node = mbox_take(&box);

        if (!node) {
            sched_yield();
            continue;
        }
        cr_assert_eq(mwork_take(&objects[0].work), 1);
        cr_assert_eq(objects[0].plain[0], ++n);
        atomic_store_explicit(&objects[0].count[0], n, memory_order_release);
    }
    cr_assert_eq(pthread_join(t, NULL), 0);
}
