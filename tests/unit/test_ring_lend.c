/* tests/unit/test_ring_lend.c: a sleeping owner's ring in another's hands, and doorbells that are
 * rung for sleepers only: ring_borrow, ring_give_back, ring_opts.mail. Built with TSan too, where
 * the plain counters below are the check. */
#include "tests/unit/ring_loop.h"

#include <pthread.h>
#include <stdatomic.h>

/* An owner that does nothing but sleep until it is told to end. */
struct sleeper {
    struct ring_opts o;
    struct mbox box;
    struct ring *_Atomic ring;
    _Atomic uint64_t wakes, stop;
    uint64_t touched; /* plain: by whoever has the turn */
    struct ring_cqe last;
};

static void *sleeper_main(void *arg)
{
    struct sleeper *s = arg;

    s->o.mail = &s->box;
    struct ring *r = ring_of(&s->o);

    s->ring = r;
    while (!atomic_load(&s->stop)) {
        struct ring_cqe cqe;

        cr_assert(eq(int, ring_wait(r, UINT64_MAX), 0));
        s->touched++;
        while (ring_next(r, &cqe))
            if (ud_op(cqe.ud) < RING_INTERNAL_OP)
                s->last = cqe;
        mbox_take(&s->box);
        atomic_fetch_add(&s->wakes, 1);
    }
    return NULL;
}

static struct ring *sleeper_start(struct sleeper *s, pthread_t *t)
{
    s->o = small;
    pthread_create(t, NULL, sleeper_main, s);
    while (!s->ring)
        usleep(100);
    return s->ring;
}

static void borrow(struct ring *r)
{
    for (int i = 0; !ring_borrow(r); i++) {
        cr_assert(lt(int, i, 20000), "never asleep");
        usleep(100);
    }
}

static void stop_join(struct sleeper *s, pthread_t t)
{
    atomic_store(&s->stop, 1);
    ring_wake(s->ring);
    pthread_join(t, NULL);
    ring_free(s->ring);
}

Test(ring_lend, an_owner_that_is_awake_lends_nothing_and_hears_no_doorbell, .timeout = 20)
{
    struct mbox box = { 0 };
    struct ring_opts o = small;

    o.mail = &box;
    struct ring *r = ring_of(&o), *from = ring_of(&small);

    cr_assert(not(ring_borrow(r)));
    ring_doorbell(from, r, ud_make(OP_BELL, 0, 1));
    expect_quiet(from, 0);
    expect_quiet(r, 0);
    ring_free(from);
    ring_free(r);
}

Test(ring_lend, mail_keeps_an_owner_awake, .timeout = 20)
{
    struct mbox box = { 0 };
    struct ring_opts o = small;
    struct mnode n = { 0 };

    o.mail = &box;
    struct ring *r = ring_of(&o);

    cr_assert(mbox_push(&box, &n));
    for (int i = 0; i < 3; i++)
        expect_quiet(r, 4000000); /* more than an hour */
    cr_assert(mbox_take(&box) == &n);
    ring_free(r);
}

Test(ring_lend, an_owner_that_wakes_waits_until_its_turn_is_given_back, .timeout = 20)
{
    struct sleeper s = { 0 };
    pthread_t t;
    struct ring *r = sleeper_start(&s, &t);

    for (int i = 0; i < 20; i++) {
        borrow(r);
        uint64_t wakes = atomic_load(&s.wakes);

        cr_assert(not(ring_borrow(r))); /* once */
        ring_wake(r);
        s.touched++;
        usleep(2000);
        s.touched++;
        cr_assert(eq(u64, atomic_load(&s.wakes), wakes));
        cr_assert(not(ring_give_back(r)));
        while (atomic_load(&s.wakes) == wakes)
            usleep(100);
    }
    stop_join(&s, t);
    cr_assert(eq(u64, s.touched, s.wakes + 40));
}

Test(ring_lend, what_a_borrower_prepared_is_submitted_by_the_owner, .timeout = 20)
{
    struct sleeper s = { 0 };
    struct ring *from = ring_of(&small);
    char got[8] = { 0 };
    pthread_t t;
    struct ring *r = sleeper_start(&s, &t);
    int fd[2];

    cr_assert(eq(int, pipe(fd), 0));
    borrow(r);
    ring_read(r, fd[0], got, sizeof(got), ud_make(OP_READ, 1, 2));
    cr_assert(ring_give_back(r));
    ring_doorbell(from, r, ud_make(OP_BELL, 0, 1));
    expect_quiet(from, 0);
    cr_assert(eq(sz, (size_t)write(fd[1], "hello", 5), 5));
    for (int i = 0; i < 20000; i++) {
        borrow(r);
        bool read = s.last.ud == ud_make(OP_READ, 1, 2);

        if (ring_give_back(r) || !read) /* true until the owner has waited again */
            usleep(100);
        if (read)
            break;
    }
    stop_join(&s, t);
    cr_assert(eq(u64, s.last.ud, ud_make(OP_READ, 1, 2)));
    cr_assert(eq(int, s.last.res, 5));
    cr_assert(eq(int, memcmp(got, "hello", 5), 0));
    ring_free(from);
}

/* Two owners and a few nodes that go to and fro between their mailboxes, moved by either thread. A
 * wake-up that is missed stops everything, and both wait for ever. */
enum { NODES = 3, MOVES = 60000 };

struct side {
    struct mbox box;
    struct ring *_Atomic ring;
    struct side *other;
    uint64_t moved; /* plain */
    uint64_t lent, rung;
    unsigned seed;
    bool lends;
};

static _Atomic uint64_t moves;

/* Takes s's mail on the thread that has its turn: true, if the other side must hear of it. */
static bool side_work(struct side *s)
{
    struct mnode *n = mbox_take(&s->box), *next;
    bool tell = false;

    for (; n; n = next) {
        next = n->next;
        s->moved++;
        atomic_fetch_add(&moves, 1);
        tell |= mbox_push(&s->other->box, n);
    }
    return tell;
}

static void side_tell(struct side *s)
{
    s->seed = s->seed * 1103515245 + 12345;
    if (s->lends && s->seed >> 16 & 1 && ring_borrow(s->other->ring)) {
        side_work(s->other); /* what that pushes to us we see before we sleep */
        s->lent++;
        cr_assert(not(ring_give_back(s->other->ring)));
        return;
    }
    ring_doorbell(s->ring, s->other->ring, ud_make(OP_BELL, 0, 1));
    s->rung++;
}

static void *side_main(void *arg)
{
    struct side *s = arg;
    struct ring_opts o = small;
    struct ring_cqe cqe;

    o.mail = &s->box;
    s->ring = ring_of(&o);
    while (!s->other->ring)
        usleep(100);
    while (atomic_load(&moves) < MOVES) {
        cr_assert(eq(int, ring_wait(s->ring, UINT64_MAX), 0));
        while (ring_next(s->ring, &cqe))
            ;
        if (side_work(s))
            side_tell(s);
    }
    ring_wake(s->other->ring);
    return NULL;
}

static void to_and_fro(bool lends)
{
    static struct mnode nodes[NODES];
    struct side a = { .seed = 1, .lends = lends }, b = { .seed = 2, .lends = lends, .other = &a };
    pthread_t ta, tb;

    a.other = &b;
    atomic_store(&moves, 0);
    for (int i = 0; i < NODES; i++)
        (void)mbox_push(&a.box, &nodes[i]);
    pthread_create(&ta, NULL, side_main, &a);
    pthread_create(&tb, NULL, side_main, &b);
    pthread_join(ta, NULL);
    pthread_join(tb, NULL);
    cr_assert(eq(u64, a.moved + b.moved, atomic_load(&moves)));
    cr_assert(eq(int, a.lent + b.lent > 100, lends));
    cr_assert(lt(u64, 100, a.rung + b.rung));
    ring_free(a.ring);
    ring_free(b.ring);
}

Test(ring_lend, no_wake_up_is_missed_when_only_sleepers_are_rung, .timeout = 60)
{
    to_and_fro(false);
}

Test(ring_lend, no_wake_up_is_missed_while_both_lend, .timeout = 60)
{
    to_and_fro(true);
}
