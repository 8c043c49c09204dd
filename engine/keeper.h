/* engine/keeper.h: the store's thread, the only one that touches LMDB while the relay runs
 * (design.md "Store"). A commit may sync and a read may fault, so nobody who forwards or decides
 * does either: they ask by mail and are answered by mail. While one group commits the next gathers;
 * no timer adds delay. What was written is answered after its commit, what was only read at once.
 *
 * Bounds: askers own their asks, and each has so many. A transaction takes KEEP_BATCH asks.
 * Ownership: an ask is *taken* from keeper_ask until it comes back to its shard's mailbox; `run`
 * and `failed` are called on the keeper's thread. */
#ifndef SLUICE_ENGINE_KEEPER_H
#define SLUICE_ENGINE_KEEPER_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/mbox.h"
#include "engine/ring.h"
#include "store/store.h"

struct daemon;
struct keeper;
struct logq;
struct shard;

enum {
    KEEP_BATCH = 8192,        /* asks of one transaction */
    KEEP_GROUP_NS = 40000000, /* and no more is begun: an acknowledgement waits for its commit */
    KEEP_EXPIRE = 1024,       /* records swept in one */
    KEEP_LOAD = 16384,        /* profiles brought into the index between looks at the mail */
    KEEP_STATS_MS = 1000,     /* how old what others see of the store may be */
};

struct keep_ask {
    struct mnode node; /* kind: of the shard's mail */
    struct shard *shard;
    /* true: it wrote, and its answer waits for the commit. */
    bool (*run)(struct keep_ask *a, struct keeper *k);
    void (*failed)(struct keep_ask *a, struct keeper *k); /* what it wrote is not kept */
};

/* What all threads may read of it. */
struct keeper_seen {
    _Atomic uint64_t regs, namespaces, profiles, used_bytes, map_bytes;
    _Atomic uint64_t commits, commits_failed, asks, refused_room;
    _Atomic uint64_t commit_ns; /* sum */
    _Atomic bool refuses;
};

struct keeper {
    struct store *store;
    struct logq *log;
    struct ring *ring; /* made on its thread */
    struct mbox mbox;
    struct mnode *left;              /* taken from the mailbox, for the next transaction */
    struct mnode *done, **done_tail; /* written, for after the commit */
    uint64_t now_ms, now_unix_s;
    uint64_t stats_at_ms, said_ms; /* said: that a commit failed */
    bool loaded, sweep;            /* sweep: more is over than one transaction swept */
    uint8_t *scratch;              /* KEEP_SCRATCH: an answer that is being written */
    uint8_t cookie_key[16];
    struct keeper_seen seen;
    _Atomic bool stop;
    pthread_t thread;
    bool started;
};
enum { KEEP_SCRATCH = 1 << 20 };

/* Opens the store in cfg->data_dir and reads its secrets; before the threads start. 0, or -errno
 * with a line in `why`. */
MUST_USE int keeper_init(struct keeper *k, struct daemon *d, char *why, size_t cap);
void keeper_fini(struct keeper *k); /* its thread has ended */
/* On its thread, with its ring. One loop turn; -ECANCELED: told to stop, and nothing is left. */
MUST_USE int keeper_turn(struct keeper *k, bool wait);
void keeper_stop(struct keeper *k); /* from control: no more asks come; it ends soon */
/* From a shard, on its thread. */
void keeper_ask(struct shard *from, struct keep_ask *a);
/* For `run`, before its first write. false: nothing can be written now. */
MUST_USE bool keeper_begin(struct keeper *k);

#endif
