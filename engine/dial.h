/* engine/dial.h: connections that we make: to the relays that an operator named (--peer-relay,
 * DUSK_PEER_RELAYS; dusk.md §10.4). Each relay belongs to one shard, which dials it, is the Noise
 * initiator and the yamux client there, and from then on has one more connection like any other
 * (conn.h). redial.h says when; names are resolved by the errand thread, again for each attempt.
 *
 * Who turns out to be ourselves is never dialled again. A peer that has come by itself counts as
 * present; where both have dialled each other at once, the connection that the higher peer id made
 * goes, and both ends agree on that without a word.
 *
 * Ownership: a struct dial belongs to its shard but for what it says is atomic; a connection that
 * it made is in `conn` until dial_closed. */
#ifndef SLUICE_ENGINE_DIAL_H
#define SLUICE_ENGINE_DIAL_H

#include <stdatomic.h>

#include "engine/config.h"
#include "engine/errand.h"
#include "engine/redial.h"
#include "engine/wheel.h"

struct conn;
struct daemon;
struct shard;

enum { DIAL_CANCEL_UD = 0x100 }; /* in the index of user_data, beside the dial's */

struct dial {
    struct shard *shard;
    struct redial re;
    struct timer timer;
    struct dial_target to;
    struct peer_id peer; /* who it is: as wanted, or as learned */
    uint8_t idx;
    uint8_t ops;     /* in flight: the poll, its cancellation */
    bool cancelled;  /* so what is in flight is being ended */
    bool asking;     /* `ask` is with the errand thread */
    bool yields;     /* our connection goes, because the peer has another one */
    uint32_t gen;    /* of the attempt */
    uint32_t asked;  /* the attempt that `ask` is for */
    unsigned turns;  /* which of several addresses is next */
    int fd;          /* while it connects; -1 */
    const char *why; /* the last attempt failed, static */
    struct conn *conn;
    struct errand_name ask;
    _Atomic bool connected; /* ours or theirs is up */
};

/* Of the daemon. */
struct dial_host {
    struct dial dial[CONFIG_PEER_RELAYS_MAX];
    unsigned n;
    /* errand_resolve, or a test's; NULL: names are not resolved. Set before the shards start. */
    void (*resolve)(struct errand *e, struct errand_name *n);
    struct errand *errand;
};

/* Before the shards start. What names ourselves is left out, and said; and if there is nobody to
 * dial at all, the dusk preset says so as the original does (dusk.md §10.4). */
void dial_init(struct dial_host *h, struct daemon *d, struct logq *log);
unsigned dial_connected(const struct dial_host *h); /* any thread */
/* Is it one of those that were named with their id? Any thread. */
bool dial_names(const struct daemon *d, const struct peer_id *id);

/* On the shard. */
void dial_start(struct shard *s);
void dial_on_cqe(struct shard *s, const struct ring_cqe *cqe);
void dial_on_timer(struct dial *dl);
void dial_on_mail(struct mnode *n); /* the errand's answer */
void dial_drain(struct shard *s);   /* no more dials; what is up stays */
bool dial_ended(const struct shard *s);

/* Told by conn.c of a connection whose `dial` is set. */
/* NULL: it is who we want. Else why it is not, static. */
const char *dial_judge(struct dial *dl, const struct peer_id *who);
void dial_up(struct dial *dl); /* the muxer runs */
void dial_closed(struct dial *dl, const char *why);

#endif
