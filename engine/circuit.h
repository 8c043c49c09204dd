/* engine/circuit.h: a relayed circuit: two legs, each owned by the shard of its connection, which
 * may be the same. Side 0 is the source (it sent CONNECT) and manages the object: quotas, timers,
 * freeing. Side 1 is the target.
 *
 * The sides talk only through leg[].work (event bits, posted at most once until taken), leg[].inbox
 * (chunks, pushed by the other side) and the fields marked so. Nothing of a side is touched by the
 * other shard. While the circuit opens, side 0 posts only CE_OPEN and CE_RST: so when a stop stream
 * came to nothing, no event of the old attempt is in any mailbox and side 1 may move to another
 * shard. Closing: side 1 reports CE_LEG_DONE when its leg is over; side 0, when both are, posts
 * CE_CLOSE as the last thing it ever posts, and side 1 answers CE_PEER_DONE as its last. Then
 * nothing is in any mailbox and side 0 frees.
 *
 * Memory: the bytes that wait are bounded by the credit promised to the sending leg, YAMUX_WINDOW
 * per direction; the window reopens only as the other leg drains (libp2p.md §20.3). */
#ifndef SLUICE_ENGINE_CIRCUIT_H
#define SLUICE_ENGINE_CIRCUIT_H

#include "engine/chunk.h"
#include "engine/homes.h"
#include "engine/mbox.h"
#include "engine/slab.h"
#include "engine/wheel.h"
#include "proto/hop.h"

struct conn;
struct shard;
struct stream;

enum circuit_state { CIRCUIT_OPENING, CIRCUIT_OPEN, CIRCUIT_CLOSING };

enum circuit_event {
    CE_OPEN = 1,        /* to 1: open the stop stream at c->home */
    CE_STOP_DONE = 2,   /* to 0: c->stop_status (and c->stop_retry) is set */
    CE_DATA = 4,        /* inbox has chunks */
    CE_FIN = 8,         /* the other leg's peer half-closed, after all its data */
    CE_RST = 16,        /* the other leg is gone: reset at once */
    CE_LIMIT = 32,      /* the byte limit was reached: deliver what is queued, then reset */
    CE_CREDIT = 64,     /* the other leg drained: c->leg[other].drained has grown */
    CE_LEG_DONE = 128,  /* to 0: leg 1 is over */
    CE_CLOSE = 256,     /* to 1, last */
    CE_PEER_DONE = 512, /* to 0, last */
};

enum circuit_end { /* why it ended; the first one said counts */
                   END_NONE,
                   END_NORMAL,
                   END_RESET,
                   END_CONN_LOST,
                   END_LIMIT_BYTES,
                   END_LIMIT_TIME,
                   END_LINGER,
                   END_DRAIN,
                   END_NOMEM,
                   END_REFUSED,   /* never opened: status says why */
                   END_CANCELLED, /* the source went away while STOP was pending */
                   END_SHED,      /* it made room for another (circuit_shed.c) */
};

struct leg {
    struct circuit *circuit; /* keeps */
    uint8_t side;
    struct mwork work;             /* told to this side's shard */
    _Atomic(struct chunk *) inbox; /* newest first: bytes to send on this leg */
    _Atomic uint64_t drained;      /* bytes of inbox and q handed to this leg's egress, in all */
    /* this side's own */
    struct stream *stream;
    struct chunkq q;      /* bytes to send on this leg */
    struct link run_link; /* in the connection's runnable list */
    uint64_t taken;       /* bytes accepted from this leg's peer: what limits count */
    uint64_t granted;     /* of the other leg's `drained`, returned to this leg's peer so far */
    uint64_t told;        /* value of `drained` at the last CE_CREDIT to the other side */
    /* circuit_shed: bytes of both directions at its last look, when that was, and what it found */
    uint64_t shed_mark, shed_at_ms, shed_busy;
    struct chunk *stage; /* what this leg's peer sent this turn, not pushed to the other side yet */
    struct link stage_link;
    bool staged, runnable;
    bool ready; /* data may leave on this leg: HOP OK is out, or STOP OK came */
    bool rx_fin, fin_due, tx_fin, rst_due, done;
    bool deaf; /* the byte limit was reached: what still comes in is dropped */
};

struct circuit {
    struct slab_head head; /* of shard[0]'s slab */
    uint64_t id;
    struct shard *shard[2]; /* [1] is written by side 0 before it posts CE_OPEN */
    struct leg leg[2];
    struct peer_id source, target;
    struct hop_limit limit;
    uint64_t key_source, key_target;
    _Atomic uint64_t taken_sum; /* both directions, for COUNT_SUM */
    _Atomic uint8_t end;        /* enum circuit_end */
    /* side 0 writes before CE_OPEN, side 1 reads */
    struct home home;
    bool crowded; /* the target has more circuits than it should: one of them makes room */
    /* side 1 writes before CE_STOP_DONE, side 0 reads */
    enum hop_status stop_status;
    bool stop_retry; /* the target itself gave no answer there: try the next home */
    /* side 0's */
    uint8_t state;
    bool counted, opened, peer_over, close_posted;
    bool early_fin;      /* the source half-closed before the target answered */
    struct chunkq early; /* what the source sent before the target answered */
    struct home homes[HOMES_PER_PEER];
    uint8_t homes_n, homes_next;
    struct timer timer;
    uint64_t born_ms, opened_ms, ends_ms; /* ends_ms: duration limit, UINT64_MAX none */
    uint64_t linger_mark;                 /* bytes seen at the last linger check */
    uint64_t linger_drained;              /* of them taken by the peers */
    bool linger_hoards;                   /* then memory was short, and some lay here */
};

/* circuit_open.c */
/* A CONNECT on hop stream `st`: checks, then CE_OPEN to the target's shard; or the status at once.
 */
void circuit_connect(struct stream *st, const struct peer_id *target);
MUST_USE bool circuit_on_open(struct circuit *c); /* side 1; false: c is no more ours to touch */
void circuit_on_stop_done(struct circuit *c);     /* side 0 */
/* Side 1: the target answered, or its stream failed and is freed. retry: it did not answer, so
 * another connection of the target may; c is then no more ours to touch. */
void circuit_stop_result(struct circuit *c, enum hop_status status, bool retry);

/* circuit_shed.c */
/* Ends one circuit of this connection's peer, on either side of it: of those with the peer that it
 * has most with, a quiet and old one. That may close the connection. */
void circuit_shed(struct conn *conn);

/* circuit.c */
void circuit_on_work(struct circuit *c, unsigned side, uint32_t bits);
void circuit_on_timer(struct circuit *c);
void circuit_leg_fin(struct circuit *c, unsigned side); /* the peer half-closed */
/* The leg's stream is gone (RST received, connection lost): the caller has detached it. */
void circuit_leg_lost(struct circuit *c, unsigned side, enum circuit_end why);
void circuit_abort(struct circuit *c, unsigned side, enum circuit_end why); /* we reset both legs */
void circuit_leg_cut(struct circuit *c, unsigned side); /* we reset this leg only */
void circuit_post(struct circuit *c, unsigned to_side, uint32_t bits);
void circuit_leg_settle(struct circuit *c,
                        unsigned side); /* FIN or RST if due and drained; done? */
/* This side's leg is finished with; frees what it holds. The stream must be gone already. */
void circuit_leg_over(struct circuit *c, unsigned side);
/* Side 0: the source is told `status` instead of a circuit. */
void circuit_refuse(struct circuit *c, enum hop_status status, const char *reason);
void circuit_end_once(struct circuit *c, enum circuit_end why);
const char *circuit_end_text(enum circuit_end e);

/* fwd.c: path 2 */
/* Bytes from the peer of `side`. `data` may lie in the shard's scratch, where headers are written
 * over what precedes it. */
void fwd_data(struct circuit *c, unsigned side, struct bytes data);
void fwd_limit_reached(struct circuit *c, unsigned side);
void fwd_run_flush(struct shard *s);   /* seal the run gathered in scratch */
void fwd_stage_flush(struct shard *s); /* push staged chunks to other shards */
void fwd_stage_push(struct leg *from); /* of one leg, at once: a FIN follows it */
void fwd_inbox_take(struct circuit *c, unsigned side);
void fwd_early_push(struct circuit *c);              /* side 0: the target is there */
void fwd_leg_wake(struct circuit *c, unsigned side); /* it may have become runnable */
void fwd_serve(struct conn *conn); /* end of turn: legs of one connection, round robin */
void fwd_drained(struct circuit *c, unsigned side, size_t n);
void fwd_credit(struct circuit *c, unsigned side); /* grant what the other leg has drained */
/* Bytes from this side's peer that the other side is not known to have drained yet. Of the last
 * CREDIT_NEWS of them another shard tells nothing. */
static inline uint64_t fwd_waiting(const struct circuit *c, unsigned side)
{
    return c->leg[side].taken - c->leg[side].granted;
}

#endif
