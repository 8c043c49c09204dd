/* The store's thread (keeper.h) without its thread: what is answered when, and what an asker hears
 * of a commit that fails. */
#include "engine/keeper.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/daemon.h"
#include "engine/shard.h"

/* Its globals have short names. */
#include "config_load.h"

enum { ASKS = 64, MAIL = 7 };

struct ask {
    struct keep_ask keep;
    struct peer_id peer;
    bool writes, ran, failed, refused, lies;
    uint64_t seen; /* commits when it ran */
};

static char dir[64];
static struct daemon d;
static struct shard *to;
static struct keeper *k;
static struct ask ask[ASKS];

static struct ring *ring_made(void)
{
    const struct ring_opts small = { .sq_entries = 64, .cq_entries = 256 };
    const char *what;
    int err;
    struct ring *r = ring_new(&small, &err, &what);

    if (!r && (err == -EPERM || err == -ENOSYS))
        cr_skip_test("%s: %s", what, strerror(-err));
    cr_assert(r != NULL, "%s: %s", what, strerror(-err));
    return r;
}

static void start(void)
{
    static char flag[96];
    char why[STORE_WHY_MAX] = "";

    snprintf(dir, sizeof(dir), "/tmp/keeper-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(flag, sizeof(flag), "--data=%s", dir);
    cr_assert_eq(LOAD(flag), 0, "%s", said);
    to = calloc(1, sizeof(*to));
    k = calloc(1, sizeof(*k));
    d.cfg = &c;
    d.log = log_new(&c);
    d.keeper = k;
    to->d = &d;
    cr_assert_eq(keeper_init(k, &d, why, sizeof(why)), 0, "%s", why);
    k->ring = ring_made();
    to->ring = ring_made();
}

static void finish(void)
{
    char cmd[96];

    keeper_fini(k);
    ring_free(k->ring);
    ring_free(to->ring);
    config_free(&c);
    free(k);
    free(to);
    snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
    cr_assert_eq(system(cmd), 0);
}

static unsigned slow_us;
static const struct ask *disk_dies; /* while this one writes */
static struct rlimit file_limit;

static void set_file_limit(rlim_t bytes)
{
    struct rlimit now = file_limit;

    if (bytes)
        now.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &now), 0);
}

static bool run(struct keep_ask *a, struct keeper *keeper)
{
    struct ask *x = CONTAINER_OF(a, struct ask, keep);
    struct store_stats st;
    enum store_verdict v;

    cr_assert_eq(store_stats(keeper->store, &st), 0);
    x->ran = true;
    if (slow_us)
        usleep(slow_us);
    if (x->lies) /* as who could not begin and takes that for a broken transaction */
        return true;
    x->seen = st.commits;
    if (!x->writes)
        return false;
    if (!keeper_begin(keeper)) {
        x->refused = true;
        return false;
    }
    v = store_profile_put(keeper->store, &x->peer, bytes_str("name"), bytes_str(""), 1);
    x->refused = v != STORE_OK;
    if (x == disk_dies)
        set_file_limit(
            4096); /* within the file: what the commit writes past its first page fails */
    return v == STORE_OK || v == STORE_FAILED;
}

static void failed(struct keep_ask *a, struct keeper *keeper)
{
    (void)keeper;
    CONTAINER_OF(a, struct ask, keep)->failed = true;
}

static void post(unsigned i, bool writes)
{
    ask[i] = (struct ask){ .writes = writes };
    ask[i].peer.n = 38;
    memset(ask[i].peer.b, (int)i + 1, 38);
    ask[i].keep = (struct keep_ask){ .node.kind = MAIL, .shard = to, .run = run, .failed = failed };
    keeper_ask(to, &ask[i].keep);
}

static void turn(void)
{
    cr_assert_eq(keeper_turn(k, false), 0);
}

/* Who came back since the last look, in this order: indexes into ask. */
static size_t back(unsigned *out)
{
    size_t n = 0;

    for (struct mnode *m = mbox_take(&to->mbox); m; m = m->next) {
        cr_assert_eq(m->kind, MAIL);
        out[n++] = (unsigned)(CONTAINER_OF(m, struct ask, keep.node) - ask);
    }
    return n;
}

static uint64_t profiles(void)
{
    struct store_stats st;

    cr_assert_eq(store_stats(k->store, &st), 0);
    return st.profiles;
}

Test(keeper, a_group_is_one_commit_and_readers_do_not_wait_for_it, .timeout = 30)
{
    unsigned who[ASKS];
    struct store_stats st;

    start();
    turn();
    cr_assert_eq(store_stats(k->store, &st), 0);
    post(0, true);
    post(1, false);
    post(2, true);
    post(3, false);
    cr_assert(to->bell_keeper);
    turn();
    cr_assert(eq(sz, back(who), 4));
    cr_assert_eq(who[0], 1, "a reader is answered first");
    cr_assert_eq(who[1], 3);
    cr_assert_eq(who[2], 0, "writers in their order");
    cr_assert_eq(who[3], 2);
    cr_assert_eq(ask[0].seen, st.commits);
    cr_assert_eq(ask[3].seen, st.commits, "one transaction for all");
    cr_assert_not(ask[0].failed || ask[2].failed);
    cr_assert(eq(u64, profiles(), 2));
    finish();
}

/* The disk takes no more: who wrote hears that nothing of it is kept, before anybody is told
 * otherwise, and the next group goes on. */
Test(keeper, a_commit_that_fails_is_told_to_who_wrote, .timeout = 30)
{
    unsigned who[ASKS];

    start();
    post(0, true);
    turn();
    cr_assert(eq(sz, back(who), 1));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &file_limit);
    disk_dies = &ask[ASKS - 1];
    for (unsigned i = 1; i < ASKS; i++)
        post(i, i % 2 == 1);
    turn();
    set_file_limit(0);
    disk_dies = NULL;
    cr_assert(eq(sz, back(who), ASKS - 1));
    for (unsigned i = 1; i < ASKS; i++) {
        cr_assert(ask[i].ran);
        cr_assert_eq(ask[i].failed, ask[i].writes, "ask %u", i);
    }
    cr_assert(eq(u64, profiles(), 1));
    ask[1].refused = true; /* after a full disk some transactions only delete (store/env.c) */
    for (int tries = 0; tries < 32 && ask[1].refused; tries++) {
        post(1, true);
        turn();
        cr_assert(eq(sz, back(who), 1));
        cr_assert_not(ask[1].failed);
    }
    cr_assert(eq(u64, profiles(), 2));
    finish();
}

Test(keeper, what_could_not_begin_is_told_too, .timeout = 30)
{
    unsigned who[ASKS];

    start();
    turn();
    post(0, true);
    ask[0].lies = true;
    turn();
    cr_assert(eq(sz, back(who), 1), "else nobody ever answers it, and its shard never ends");
    cr_assert(ask[0].failed);
    finish();
}

/* Others' asks hold a commit back for so long and no longer. */
Test(keeper, a_group_has_an_end, .timeout = 30)
{
    unsigned who[ASKS];
    size_t n = 0, first;

    start();
    turn();
    slow_us = KEEP_GROUP_NS / 1000 / 12;
    post(0, true);
    for (unsigned i = 1; i < ASKS; i++)
        post(i, false);
    turn();
    first = back(who);
    cr_assert_lt(first, ASKS);
    cr_assert_eq(who[first - 1], 0, "the writer's commit did not wait for the rest");
    for (int turns = 0; turns < ASKS && n < ASKS - first; turns++) {
        turn();
        n += back(who);
    }
    cr_assert(eq(sz, n, ASKS - first));
    finish();
}

Test(keeper, it_ends_when_all_is_answered, .timeout = 30)
{
    unsigned who[ASKS];

    start();
    post(0, true);
    keeper_stop(k);
    cr_assert_eq(keeper_turn(k, false), -ECANCELED);
    cr_assert(eq(sz, back(who), 1));
    cr_assert(eq(u64, profiles(), 1));
    finish();
}
