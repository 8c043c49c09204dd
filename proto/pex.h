/* proto/pex.h: the relay's side of peer exchange (RLY-008, dig.md §10): what each member that has
 * opened a link was told of its network, what it has to be told next and when, and what its own
 * frames are answered with. Owned by the thread that owns the registry. Pure.
 * Shapes: a link belongs to a member and is named by it. References to members in struct pex_out
 *         die with the next change of the registry: encode before anything else is called.
 * Units:  monotonic ms, never backwards; interval and last_seen in seconds.
 * Memory: given at init; a link costs a few hundred bytes however large its network is. What a link
 *         was told is kept by the age of registrations: everything up to `seen` but for a few
 *         intervals. Joins cost one insertion, a leave one record of 64 bytes in a ring, and a link
 *         with nothing to say nothing at all until its network changes (dig.md §21, "PEX tick").
 * Deviations: a registration is what is told, so an id that registers again is told again, also
 *         when it has the same address (§10.5 compares addresses). Of more than 50 or 200 that
 *         could be told, those are chosen that registered last, and then they are sorted by
 *         last_seen. While more than 50 departures wait to be said, an id that left, came back, was
 *         told and left again is dropped twice.
 */
#ifndef SLUICE_PROTO_PEX_H
#define SLUICE_PROTO_PEX_H

#include "proto/dig_reg.h"

enum {
    PEX_VERSION = 1,
    PEX_OWN_INTERVAL_S = 60, /* dig.md §10.4 */
    PEX_INTERVAL_MIN_S = 30,
    PEX_INTERVAL_MAX_S = 3600,
    PEX_RATE_SLACK_S = 5,
    PEX_JITTER_PCT = 10,
    PEX_CHECK_MS = 1000, /* §10.5: checked once per second */
    PEX_STRIKES_MAX = 3,
    PEX_ID_TEXT = 64,           /* only ids of 64 lower-case hex digits are told (D9) */
    PEX_GAPS_MAX = 16,          /* intervals of a link that were left for later */
    PEX_PASSES_MAX = 16,        /* deltas in a row with news while departures wait */
    PEX_LINKS_PER_TICK = 16,    /* links that one pex_tick looks at */
    PEX_LEAVES_PER_LINK = 1024, /* departures that it reads for one of them */
    PEX_OUT_MAX = 2,
};

/* A frame that arrived, as small as a mail: made on the shard that decoded it. */
struct pex_frame {
    enum dig_type kind;           /* DIG_PEX_HANDSHAKE to DIG_PEX_ERROR */
    bool undecodable;             /* DIG_PEX_BAD; kind means nothing then */
    bool network_matches;         /* handshake */
    bool same_id_in_both;         /* delta */
    uint16_t code;                /* error */
    uint32_t version, interval_s; /* handshake */
    uint32_t peers;               /* snapshot; delta: added */
    uint32_t dropped;             /* delta */
};
/* msg NULL: dig_decode() said DIG_PEX_BAD. network: the one that the sender is registered in. */
struct pex_frame pex_frame_of(const struct dig_msg *msg, struct bytes network);

enum pex_event_type {
    PEX_SEND_HANDSHAKE, /* interval_s, flags ["introducer"] */
    PEX_SEND_SNAPSHOT,  /* out->peer[] */
    PEX_SEND_DELTA,     /* out->peer[], out->dropped[]; not both empty */
    PEX_SEND_ERROR,     /* code */
};
struct pex_event {
    enum pex_event_type type;
    uint32_t interval_s;
    enum dig_pex_code code;
};
struct pex_peer {
    const struct dig_member *member;
    uint64_t last_seen_unix_s; /* as it was asked for when the order was made */
};
/* At most one member is spoken to per call, in the order of ev[], and at most one event of a call
 * has peers. */
struct pex_out {
    struct dig_member *to;
    uint32_t n; /* 0: nothing to send */
    struct pex_event ev[PEX_OUT_MAX];
    uint32_t peers, dropped_n;
    struct pex_peer peer[DIG_PEX_SNAPSHOT_MAX];   /* newest last_seen first, then by id */
    char dropped[DIG_PEX_DELTA_MAX][PEX_ID_TEXT]; /* ascending; not terminated */
};

struct pex_link; /* in pex_int.h, like those below */
struct pex_net;
struct pex_told;
struct pex_leave;
struct pex_ring {
    struct pex_ring *prev, *next;
};

struct pex {
    /* For metrics. */
    uint32_t links;     /* open ones */
    uint64_t forgotten; /* times that a link came too late for departures: the ring was full */
    /* Ours. */
    struct dig_reg *reg;
    struct dig_rng rng;
    uint64_t (*last_seen)(void *arg, const struct dig_member *m);
    void *last_seen_arg;
    struct pex_link *link; /* by member->index */
    struct pex_told *told; /* likewise */
    struct pex_net *net;   /* by network->index */
    struct pex_leave *leave;
    uint64_t leaves; /* written ever; the ring holds the last leaves_mask + 1 */
    uint32_t leaves_mask;
    struct dig_order_pool pool;
    uint32_t *heap; /* links by due_ms */
    uint32_t heap_n;
    uint32_t awake; /* network + 1, a list: something changed while links were waiting for it */
    uint64_t awake_ms;
    struct pex_ring ready;
};

struct pex_setup {
    struct dig_reg *reg; /* kept; initialised before */
    struct dig_rng rng;  /* kept */
    /* Unix seconds of the member's last message, or now (D3). What is older than half an hour is
     * not believed by receivers (§10.3), so do not let it be. Asked only inside calls. */
    uint64_t (*last_seen)(void *arg, const struct dig_member *m);
    void *last_seen_arg;
};
size_t pex_bytes(uint32_t registrants_max);
/* Keeps `mem`: pex_bytes(max) of zeroed memory, aligned as malloc does; max as the registry's. */
void pex_init(struct pex *p, void *mem, uint32_t registrants_max, const struct pex_setup *setup);

/* After dig_reg_add() gave DIG_REG_ADDED; before dig_reg_remove(). Once each. */
void pex_on_join(struct pex *p, uint64_t now_ms, const struct dig_member *m);
void pex_on_leave(struct pex *p, uint64_t now_ms, const struct dig_member *m);
/* A PEX frame of a registered member. Writes all of *out that is said to be set. */
void pex_on_frame(struct pex *p, uint64_t now_ms, struct dig_member *m, const struct pex_frame *f,
                  struct pex_out *out);
/* One delta, or none (out->n == 0). Work per call is bounded; while pex_deadline_ms() is not in the
 * future there is more to do. */
void pex_tick(struct pex *p, uint64_t now_ms, struct pex_out *out);
uint64_t pex_deadline_ms(const struct pex *p); /* UINT64_MAX: none */

#endif
