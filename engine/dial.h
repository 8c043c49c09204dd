/* engine/dial.h: connections that we make: to the relays that an operator named (--peer-relay,
 * DUSK_PEER_RELAYS; dusk.md §10.4). Each relay belongs to one shard, which dials it, is the Noise
 * initiator and the yamux client there, and from then on has one more connection like any other
 * (conn.h). redial.h says when.
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
#include "engine/mbox.h"
#include "engine/redial.h"
#include "engine/ring.h"
#include "engine/wheel.h"

struct conn;
struct daemon;
struct shard;

struct dial {
    struct shard *shard;
    struct redial re;
    struct timer timer;
    struct dial_target to;
    struct peer_id peer; /* who it is: as wanted, or as learned */
    uint8_t idx;
    uint8_t ops;     /* in flight: the poll, its cancellation */
    bool cancelled;  /* so it is being ended */
    uint32_t gen;    /* of the attempt */
    int fd;          /* while it connects; -1 */
    unsigned turn;   /* which of several addresses is next */
    const char *why; /* the last attempt failed, static */
    struct conn *conn;
    _Atomic bool connected; /* for whoever counts: ours or theirs is up */
};

/* Of the daemon. */
struct dial_host {
    struct dial dial[CONFIG_PEER_RELAYS_MAX];
    unsigned n;
};

/* Before the shards start; after daemon_init. What names ourselves is left out, and said. */
void dial_init(struct dial_host *h, struct daemon *d, struct logq *log);
unsigned dial_connected(const struct dial_host *h); /* any thread */

/* On the shard. */
void dial_start(struct shard *s);
void dial_on_cqe(struct shard *s, const struct ring_cqe *cqe);
void dial_on_timer(struct dial *dl);
void dial_drain(struct shard *s); /* no more dials; what is up stays */
bool dial_ended(const struct shard *s);

/* Told by conn.c and secure.c of a connection whose `dial` is set. */
/* NULL: it is who we want. Else why it is not, static. */
const char *dial_judge(struct dial *dl, const struct peer_id *who);
void dial_up(struct dial *dl); /* the muxer runs */
void dial_closed(struct dial *dl, const char *why);

#endif
