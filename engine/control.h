/* engine/control.h: the thread that decides what is global and rare: who may reserve, where each
 * peer lives, listings, drain, statistics; the HTTP and admin doors run on its ring. It never
 * blocks: no file, no resolver, no lock. */
#ifndef SLUICE_ENGINE_CONTROL_H
#define SLUICE_ENGINE_CONTROL_H

#include "engine/daemon.h"
#include "engine/mbox.h"
#include "engine/ops.h"
#include "engine/ring.h"
#include "proto/hop.h"

enum control_mail { CONTROL_MAIL_RESV = 1, CONTROL_MAIL_SNAP, CONTROL_MAIL_DIG };

struct reload;

struct listing {
    bool used, cancelled, out; /* out: the page is with a shard */
    bool parked;               /* a page was handed over; the reader has not asked for more */
    uint32_t owner_id;
    enum snap_kind kind;
    unsigned shard;
    void (*page)(void *arg, uint32_t owner_id, const struct snap *s);
    void *arg;
    struct snap *snap;
};

struct control {
    struct daemon *d;
    struct ring *ring;
    struct mbox mbox;
    struct logq *log;
    uint64_t now_ms, now_unix_s, start_ms;
    struct hop hop;
    void *counts;
    size_t counts_bytes;
    struct listing listing[OPS_LISTINGS_MAX];
    struct ops ops;
    struct opsdoor *door;
    uint64_t stats_at_ms, tick_at_ms;
    bool draining, stopping;
    uint64_t drain_from_ms, drain_end_ms, stop_end_ms;
    _Atomic unsigned shards_done;  /* shard threads that have ended */
    _Atomic unsigned terms, hangs; /* signals so far: set by handlers */
    unsigned terms_seen, hangs_seen;
    struct reload *reload;   /* NULL: nothing to reload (the simulation) */
    struct dig_control *dig; /* NULL: that door is closed */
};

MUST_USE int control_init(struct control *c, struct daemon *d);
void control_fini(struct control *c);
/* On control's thread. The doors open here; `why` says which could not. */
MUST_USE int control_start(struct control *c, struct ring *ring, char *why, size_t cap);
/* One loop turn. -ECANCELED: everything has ended. */
MUST_USE int control_turn(struct control *c, bool wait);
void control_drain(struct control *c, uint32_t seconds);
struct ring *control_ring(const struct control *c);
/* From a shard: event bits for an object whose node control takes. */
void control_post(struct shard *from, struct mwork *w, uint32_t bits);

/* control_reserve.c */
void control_on_resv(struct control *c, struct mnode *n);
void control_expire(struct control *c);
/* control_ops.c: what the doors may ask */
void control_ops_init(struct control *c);
void control_on_snap(struct control *c, struct mnode *n);
void control_status(void *ctx, struct ops_status *out);
uint64_t control_allocations(const struct control *c); /* of TURN, on all shards */
void control_to_shard(struct control *c, unsigned shard, bool was_empty);

#endif
