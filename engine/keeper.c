#include "engine/keeper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/clock.h"
#include "engine/daemon.h"
#include "engine/rng.h"
#include "engine/shard.h"

enum { SAY_MS = 60000 };

static struct store_opts opts_of(const struct config *cfg)
{
    struct store_opts o = {
        .dir = cfg->data_dir,
        .map_bytes = cfg->store_bytes_max,
        .rng = rng_bytes,
        .limits = store_limits_default,
    };

    /* 0 is no bound to both, and a bound on a peer is a walk over what it has. */
    o.limits.regs = cfg->rdv.total_max;
    o.limits.regs_per_peer = cfg->rdv.per_peer_max;
    o.limits.regs_per_ns = cfg->rdv.per_ns_max;
    o.limits.reg_seq_compared = cfg->rdv.lower_seq_refused;
    o.limits.profiles = cfg->directory_max;
    return o;
}

int keeper_init(struct keeper *k, struct daemon *d, char *why, size_t cap)
{
    struct store_opts o = opts_of(d->cfg);
    int err;

    memset(k, 0, sizeof(*k));
    k->log = log_attach(d->log, "keeper");
    k->done_tail = &k->done;
    k->scratch = malloc(KEEP_SCRATCH);
    if (!k->scratch) {
        snprintf(why, cap, "not enough memory for the store");
        return -ENOMEM;
    }
    err = store_open(&o, &k->store, why, cap);
    if (!err) {
        err = store_secret(k->store, STORE_SECRET_COOKIE, k->cookie_key, sizeof(k->cookie_key));
        if (err)
            snprintf(why, cap, "cannot write %s/%s: %s", d->cfg->data_dir, STORE_FILE,
                     strerror(-err));
    }
    if (err)
        keeper_fini(k);
    return err;
}

void keeper_fini(struct keeper *k)
{
    store_close(k->store);
    free(k->scratch);
    crypto_wipe(k->cookie_key, sizeof(k->cookie_key));
    k->store = NULL;
    k->scratch = NULL;
}

void keeper_ask(struct shard *from, struct keep_ask *a)
{
    if (mbox_push(&from->d->keeper->mbox, &a->node))
        from->bell_keeper = true;
}

void keeper_stop(struct keeper *k)
{
    atomic_store_explicit(&k->stop, true, memory_order_release);
    if (k->ring)
        ring_wake(k->ring);
}

/* ---- answers ---------------------------------------------------------------------------------
 */

static void answer(struct keeper *k, struct keep_ask *a)
{
    struct shard *s = a->shard;

    if (mbox_push(&s->mbox, &a->node))
        ring_doorbell(k->ring, s->ring, ud_make(OP_BELL, 0, 0));
}

static void answer_written(struct keeper *k, int err)
{
    struct mnode *n = k->done;

    k->done = NULL;
    k->done_tail = &k->done;
    while (n) {
        struct keep_ask *a = CONTAINER_OF(n, struct keep_ask, node);

        n = n->next;
        if (err)
            a->failed(a, k);
        answer(k, a);
    }
}

static void say_failed(struct keeper *k, int err)
{
    if (k->said_ms && k->now_ms < k->said_ms + SAY_MS)
        return;
    k->said_ms = k->now_ms;
    log_text(k->log, LOG_ERROR,
             "the store cannot commit: %s; what is to be kept is refused, everything else goes on",
             strerror(-err));
}

static void commit(struct keeper *k)
{
    uint64_t from_ns = clock_mono_ns();
    int err = store_commit(k->store);
    uint64_t ns = clock_mono_ns() - from_ns;

    if (err) {
        say_failed(k, err);
        k->sweep = false; /* again in a second, not at once */
    }
    atomic_fetch_add_explicit(&k->seen.commit_ns, ns, memory_order_relaxed);
    answer_written(k, err);
}

/* ---- the loop --------------------------------------------------------------------------------
 */

static struct mnode *take(struct keeper *k)
{
    struct mnode *n = k->left;

    if (!n)
        return mbox_take(&k->mbox);
    k->left = NULL;
    return n;
}

static void run_asks(struct keeper *k)
{
    uint64_t until_ns = clock_mono_ns() + KEEP_GROUP_NS;
    unsigned taken = 0;

    for (struct mnode *n = take(k); n; n = k->left ? NULL : take(k)) {
        while (n && taken < KEEP_BATCH && store_txn_ops(k->store) < STORE_TXN_OPS_MAX / 2 &&
               (taken % 16 || clock_mono_ns() < until_ns)) {
            struct keep_ask *a = CONTAINER_OF(n, struct keep_ask, node);

            n = n->next;
            taken++;
            if (!a->run(a, k)) {
                answer(k, a);
                continue;
            }
            a->node.next = NULL;
            *k->done_tail = &a->node;
            k->done_tail = &a->node.next;
        }
        k->left = n;
    }
    atomic_fetch_add_explicit(&k->seen.asks, taken, memory_order_relaxed);
}

bool keeper_begin(struct keeper *k)
{
    int err = store_in_txn(k->store) ? 0 : store_begin(k->store);

    if (err)
        say_failed(k, err);
    return !err;
}

static void sweep(struct keeper *k)
{
    uint64_t at = store_deadline_unix_s(k->store);

    k->sweep = false;
    if (at > k->now_unix_s || !keeper_begin(k))
        return;
    if (store_expire(k->store, k->now_unix_s, KEEP_EXPIRE, &k->sweep) == STORE_FAILED)
        k->sweep = false; /* the commit says why */
}

static void look(struct keeper *k)
{
    struct keeper_seen *seen = &k->seen;
    struct store_stats st;

    k->stats_at_ms = k->now_ms + KEEP_STATS_MS;
    if (store_stats(k->store, &st))
        return;
    atomic_store_explicit(&seen->regs, st.regs, memory_order_relaxed);
    atomic_store_explicit(&seen->namespaces, st.namespaces, memory_order_relaxed);
    atomic_store_explicit(&seen->profiles, st.profiles, memory_order_relaxed);
    atomic_store_explicit(&seen->used_bytes, st.used_bytes, memory_order_relaxed);
    atomic_store_explicit(&seen->map_bytes, st.map_bytes, memory_order_relaxed);
    atomic_store_explicit(&seen->commits, st.commits, memory_order_relaxed);
    atomic_store_explicit(&seen->commits_failed, st.commits_failed, memory_order_relaxed);
    atomic_store_explicit(&seen->refused_room, st.refused_room, memory_order_relaxed);
    atomic_store_explicit(&seen->refuses, st.refuses, memory_order_relaxed);
}

static void load(struct keeper *k)
{
    int err = store_load(k->store, KEEP_LOAD, &k->loaded);

    if (err) {
        log_text(k->log, LOG_ERROR,
                 "the directory's index is not loaded: %s; searches find only "
                 "who registers from now on",
                 strerror(-err));
        k->loaded = true;
    }
}

static uint64_t wait_ns(const struct keeper *k, bool wait)
{
    if (!wait || k->left || !k->loaded || k->sweep ||
        atomic_load_explicit(&k->stop, memory_order_acquire) ||
        atomic_load_explicit(&k->mbox.head, memory_order_relaxed))
        return 0;
    return (uint64_t)KEEP_STATS_MS * 1000000;
}

int keeper_turn(struct keeper *k, bool wait)
{
    struct ring_cqe cqe;
    int err = ring_wait(k->ring, wait_ns(k, wait));

    if (err)
        return err;
    while (ring_next(k->ring, &cqe)) { /* bells; the mail is read every turn */
    }
    bool stop = atomic_load_explicit(&k->stop, memory_order_acquire);

    k->now_ms = clock_mono_ms();
    k->now_unix_s = clock_unix_s();
    run_asks(k);
    sweep(k);
    if (store_in_txn(k->store)) {
        /* Who only read is rung now: a commit may take long. */
        err = ring_wait(k->ring, 0);
        commit(k);
    } else {
        answer_written(k, -EIO); /* nothing began, so nothing of it is kept */
    }
    if (err)
        return err;
    if (!k->loaded)
        load(k);
    if (k->now_ms >= k->stats_at_ms)
        look(k);
    return stop && !k->left && !atomic_load_explicit(&k->mbox.head, memory_order_relaxed)
               ? -ECANCELED
               : 0;
}
