/* engine/svc_gossip_int.h: between the files of the gossip service. */
#ifndef SLUICE_ENGINE_SVC_GOSSIP_INT_H
#define SLUICE_ENGINE_SVC_GOSSIP_INT_H

#include <stdatomic.h>

#include "engine/shard.h"
#include "engine/shared.h"
#include "engine/svc_gossip.h"
#include "proto/gossip_hub.h"

enum {
    GOSSIP_RELAYS_MAX = 64,
    GOSSIP_POOL_MAX = 128 << 20, /* of payloads, or a quarter of what may be held for slow peers */
    GOSSIP_POOL_PART = 4,
    GOSSIP_TURN_VERIFIES = 32,       /* 2 ms of signatures; the rest waits for the next turn */
    GOSSIP_TURN_FANOUT = 512,        /* queued for so many costs a turn what a signature does */
    GOSSIP_TURN_BYTES = 1 << 20,     /* written to peers; the rest likewise */
    GOSSIP_TX_MAX = 2 * RECORD_BODY, /* sealed and unsent, before more of it is */
    GOSSIP_IN_PART = 8, /* of the pool's large chunks may hold RPCs that are not whole */
    GOSSIP_TRIES = 3,   /* to open a stream to a peer: a client takes four (§10.2) */
    GOSSIP_SEEN_N = 65536,
    GOSSIP_KEPT_N = 4096,
    GOSSIP_AUTHORS_N = 8192,
    GOSSIP_CELLS_N = 16384,
    GOSSIP_NODES_N = 131072,
    GOSSIP_SAY_BURST = 20, /* lines about federation: burst, then one per so many ms, and shard */
    GOSSIP_SAY_MS = 500,
    GOSSIP_FOREIGN_BURST = 2000, /* records taken over from relays: likewise */
    GOSSIP_FOREIGN_MS = 1,
};

struct gossip_host {
    struct daemon *d;
    struct shared_pool pool;
    struct gossip_limits limits;
    gossip_foreign_fn *foreign;
    struct peer_id relay[GOSSIP_RELAYS_MAX];
    unsigned relays_n;
    _Atomic uint32_t subs[GOSSIP_TOPICS]; /* connections that a topic goes to, of all shards */
    _Atomic uint64_t seqno;
};

/* One connection. */
struct gossip_conn {
    struct slab_head head;
    struct gossip_peer peer;
    struct gossip_shard *gs;
    struct conn *conn;
    struct stream *in, *out;
    uint32_t item; /* of the RPC in front: how many were done when the turn's share was used up */
    uint8_t tries;
    bool older;                       /* asked for 1.0.0, because it knows no 1.1.0 */
    bool listed, held, parted, again; /* in which of the shard's lists */
    struct link ready_link, held_link, part_link, again_link;
    size_t in_cost; /* what its part counts for */
};

struct gossip_shard {
    struct shard *s;
    struct gossip_host *host;
    struct gossip_hub hub;
    struct slab conns;
    struct list ready; /* something may be written */
    struct list held;  /* whole RPCs that wait for their turn to be verified */
    struct list parts; /* streams with input that is not done with, oldest first */
    struct list again; /* whose stream is to be opened anew */
    size_t in_cost, in_max;
    struct timer timer;
    unsigned verified; /* of this turn, in units of gossip_msg_cost() */
    unsigned fanout;   /* GOSSIP_TURN_FANOUT; tests have smaller crowds */
    uint32_t told_subs[GOSSIP_TOPICS];
    uint64_t say_tat_ms, foreign_tat_ms;
    uint64_t unsaid;
    uint64_t joined;             /* bytes ever copied to put RPCs together */
    uint8_t *join, *sign, *wire; /* GOSSIP_WIRE_MAX, _SIGN_MAX, _WIRE_MAX */
    uint8_t *fed_pool;
    struct gossip_counts seen; /* as of the last look, for the shard's statistics */
};

/* A message, or a notice, and the mail by which it goes to the other shards, in one shared buffer:
 * this struct, a post per shard, then the RPC. */
struct gossip_post {
    struct mnode node;
    struct shared *mem;
};
struct gossip_letter {
    struct gossip_take take;
    struct peer_id heir; /* n > 0: no message; this peer's other connections inherit `subs` */
    uint8_t subs;
    uint32_t wire_off, wire_n;
    struct gossip_post post[];
};

static inline struct gossip_letter *gossip_letter_of(const struct shared *mem)
{
    return (struct gossip_letter *)(void *)(uintptr_t)mem->data;
}

/* svc_gossip_mail.c */
/* Room for a message of n bytes, the caller's; NULL: the pool is full. */
struct shared *gossip_letter_new(struct gossip_shard *gs, size_t n, uint8_t **wire);
void gossip_post_all(struct gossip_shard *gs, struct shared *mem); /* to each other shard */
/* Whoever keeps something, or has a peer, has a heartbeat. */
void gossip_beat(struct gossip_shard *gs);
void gossip_hand_down(struct gossip_shard *gs, const struct peer_id *heir, uint8_t subs);

/* svc_gossip_out.c */
extern const struct gossip_calls gossip_hub_calls;
void gossip_open(struct gossip_conn *gc);
void gossip_write_pass(struct gossip_shard *gs);
void gossip_list(struct gossip_conn *gc);

/* svc_gossip.c */
void gossip_in_pass(struct gossip_shard *gs);

/* svc_gossip_fed.c */
enum { GOSSIP_FED_SHARD = 0 }; /* who hears for all: one message by two links counts once */
void gossip_fed_heard(struct gossip_shard *gs, const struct gossip_take *t,
                      const struct gossip_msg *m);
void gossip_fed_mailed(struct gossip_shard *gs, const struct gossip_take *t, struct bytes wire);
bool gossip_is_relay(const struct gossip_host *h, const struct peer_id *id);

#endif
