/* engine/shard.h: one pinned thread with one ring: its connections, streams, circuits, timers,
 * pools (design.md "A shard"). It takes no lock and calls no allocator while it forwards. */
#ifndef SLUICE_ENGINE_SHARD_H
#define SLUICE_ENGINE_SHARD_H

#include <sys/uio.h>

#include "engine/circuit.h"
#include "engine/conn.h"
#include "engine/daemon.h"
#include "engine/listener.h"
#include "engine/ring.h"
#include "engine/snapshot.h"
#include "engine/stream.h"

/* user_data operations of a shard. */
enum shard_op {
    OP_ACCEPT = 1,
    OP_RECV,
    OP_SEND,
    OP_CANCEL,
    OP_BELL,
    OP_TURN_POLL,   /* turn_udp.c */
    OP_TURN_ACCEPT, /* turn_stream.c, four */
    OP_TURN_RECV,
    OP_TURN_SEND,
    OP_TURN_CANCEL,
    OP_TURN_RAW,   /* turn_raw.c */
    OP_DIG_ACCEPT, /* dig_shard.c, four */
    OP_DIG_RECV,
    OP_DIG_SEND,
    OP_DIG_CANCEL,
    OP_DIAL, /* dial.c */
};
/* Kinds of mailbox nodes a shard takes. */
enum shard_mail {
    MAIL_RESV = 1,
    MAIL_LEG0,
    MAIL_LEG1,
    MAIL_SNAP,
    MAIL_ORDER,
    MAIL_TURN,
    MAIL_DIG_ANSWER, /* dig_shard.c, three */
    MAIL_DIG_LETTER,
    MAIL_DIG_NEWS,
    MAIL_DIAL,   /* dial.c */
    MAIL_GOSSIP, /* svc_gossip_mail.c */
    MAIL_RPC,    /* rpc.c; svc_dusk.c */
    MAIL_USAGE,
    MAIL_FOREIGN, /* svc_federation.c */
    MAIL_GIF,     /* svc_dusk.c */
};
/* Kinds of timers of a shard. */
enum shard_timer {
    TIMER_CONN = 1,
    TIMER_STREAM,
    TIMER_CIRCUIT,
    TIMER_ACCEPT,
    TIMER_TURN,
    TIMER_TURN_STREAM,
    TIMER_DIG, /* dig_shard.c, three */
    TIMER_DIG_ACCEPT,
    TIMER_DIG_HELD,
    TIMER_DIAL, /* dial.c */
    TIMER_GOSSIP,
    TIMER_USAGE,
};
/* Orders from control (shard->order.bits). */
enum shard_order { ORDER_DRAIN = 1, ORDER_STOP = 2 };

struct send_args {
    struct msghdr msg;
    struct iovec iov[SEND_IOV];
};

/* Consecutive frames in scratch that go to one connection: sealed at once. */
struct fwd_run {
    struct conn *sink;
    uint8_t *start, *end;
};

struct shard {
    struct daemon *d;
    unsigned id;
    struct ring *ring; /* created on the shard's thread */
    struct mbox mbox;
    struct mnode *kept;      /* mail that a borrower of this shard left for it */
    bool lent;               /* another shard does this one's work right now (shard_lend) */
    uint64_t slept_until_ms; /* the first deadline when it went to sleep */
    size_t across_bytes;     /* of this turn, for other shards */
    struct mwork order;
    struct stats stats;
    struct logq *log;
    uint64_t now_ms, now_unix_s;
    struct slab conns, streams, circuits, handshakes, sayings, rpcs;
    struct chunk_pool chunks;
    struct wheel wheel;
    struct aead *aead;
    struct yamux_table table;
    uint8_t *scratch;     /* SCRATCH_BYTES: a run of frames and one record, in the clear */
    uint8_t *join;        /* JOIN_BYTES: a kept head and its continuation, contiguous: handshakes */
    uint8_t *stream_join; /* STREAM_JOIN_BYTES: the same of a stream, in the clear */
    struct list dirty, dry, staged;
    struct list shaking; /* connections whose handshake waits for the next turn's budget */
    unsigned noise_n;    /* handshake messages of this turn */
    struct list closed;  /* connections waiting for what is in flight */
    struct fwd_run run;
    struct chunk *travel; /* the record being read was opened into this, not into scratch */
    struct listener listener[LISTENERS_MAX];
    unsigned listeners_n;
    struct send_args *sends;
    unsigned sends_n;
    bool sent;            /* by another door, in this turn */
    uint64_t full_tat_ms; /* of the line that says that there are too many connections */
    uint64_t bells;       /* bitmap of shards to wake at the end of the turn */
    bool bell_control, bell_keeper;
    bool draining, stopping;
    bool empty;          /* stopping, and nothing is left: counted in the daemon's shards_empty */
    struct list sending; /* connections with a send in flight, oldest first */
    struct list halves;  /* connections with half a record, oldest first */
    uint32_t half_chunks[CHUNK_SIZES]; /* of all those */
    uint32_t foreign_out;              /* registrations of other relays, with the keeper */
    struct list rpc_ready;             /* requests that are whole, oldest first */
    struct list parts;                 /* streams with part of a message, oldest first */
    struct turn_shard *turn;           /* NULL: the TURN door is closed */
    struct dig_shard *dig;             /* NULL: the DIG door is closed */
    struct gossip_shard *gossip;       /* NULL: no gossip here */
    struct usage *usage;               /* NULL: nobody counts */
};

MUST_USE int shard_init(struct shard *s, struct daemon *d, unsigned id);
void shard_fini(struct shard *s);
/* On the shard's thread: takes the ring and the listening sockets, arms everything. */
void shard_start(struct shard *s, struct ring *ring, const int *fds, unsigned n);
/* One loop turn: completions, mail, timers, egress, doorbells; then waits at most until the next
 * deadline (wait == false: does not wait; the simulation's way). 0, -ECANCELED when stopped and
 * empty, or the ring's -errno. */
MUST_USE int shard_turn(struct shard *s, bool wait);
/* Posts to another thread's mailbox and remembers its doorbell. */
void shard_bell(struct shard *from, struct shard *to);
void shard_bell_control(struct shard *from);
void shard_on_mail(struct shard *s, struct mnode *n);
/* shard_lend.c: each shard that has mail of ours and sleeps has its turn taken here, if that is
 * little; who must be woken for it keeps its bell. */
void shard_lend_all(struct shard *s);
/* Above it windows stay shut (libp2p.md §20.3). */
static inline bool shard_pool_high(const struct shard *s)
{
    return chunk_past(&s->chunks, POOL_HIGH);
}
/* Above it no payload is kept: the rest is for records on their way out. */
static inline bool shard_pool_full(const struct shard *s)
{
    return chunk_past(&s->chunks, POOL_FULL);
}
/* After a run every count must be back: asserts it. For tests and orderly stops. */
void shard_assert_empty(const struct shard *s);
void shard_snapshot(struct shard *s, struct snap *snap); /* snapshot.c */

#endif
