/* proto/pex_int.h: between proto/pex.c (frames, time) and proto/pex_link.c (what a link was told
 * and has to be told). Nobody else includes it, but for tests that count what is left. */
#ifndef SLUICE_PROTO_PEX_INT_H
#define SLUICE_PROTO_PEX_INT_H

#include "proto/pex.h"

/* Joins and leaves of a network are numbered in one sequence, pex_net.seq. Age is the number of the
 * join: a registration keeps it, and nobody else ever has it. */
struct pex_told {
    uint64_t joined;
    bool advertised; /* the id is 64 lower-case hex digits */
    bool someone;    /* some link was told, so its leaving has to be recorded */
};

/* A departure, in the ring. Positions are counted from 1 and never come back; 0: none. */
struct pex_leave {
    uint64_t joined, left;
    uint64_t next; /* of the same network */
    uint32_t net;
    uint8_t id[PEX_ID_TEXT / 2];
};

struct pex_net {
    struct pex_ring waiting; /* links that are due and have nothing to say */
    struct dig_order by_age; /* advertised members, the youngest first */
    uint64_t seq;
    uint64_t oldest, newest; /* departures; none while no link is open */
    uint64_t lost;           /* `left` of the last one that was overwritten */
    uint32_t links;
    uint32_t next_awake;
    bool awake;
};

enum pex_state { PEX_CLOSED, PEX_OPEN, PEX_REFUSED };
struct pex_gap {
    uint64_t from, to;
};
/* Ages up to `to` were told when seq was the network's, and departures before were still unread. */
struct pex_pass {
    uint64_t to, seq;
};
struct pex_link {
    struct pex_ring ring; /* of waiting or of ready, or in none (NULL) */
    uint64_t seen;        /* told: who joined up to here, but for the gaps */
    uint64_t read;        /* the last departure that was looked at */
    uint64_t read_left;   /* its `left` */
    uint64_t due_ms, sent_ms;
    uint64_t heard_ms; /* the last snapshot or delta accepted */
    uint32_t own_s, remote_s;
    uint32_t jitter;  /* of 2^32, of PEX_JITTER_PCT of the interval */
    uint32_t heap_at; /* + 1 */
    uint8_t state, strikes;
    uint8_t gaps_n, passes_n;
    bool had_snapshot, doubled;
    struct pex_gap gap[PEX_GAPS_MAX]; /* the oldest first */
    uint64_t pass_from;               /* where pass[0] begins; each begins behind the one before */
    struct pex_pass pass[PEX_PASSES_MAX];
};

static inline void pex_ring_init(struct pex_ring *head)
{
    head->prev = head->next = head;
}
static inline bool pex_ring_empty(const struct pex_ring *head)
{
    return head->next == head || !head->next;
}
static inline void pex_ring_append(struct pex_ring *head, struct pex_ring *k)
{
    k->prev = head->prev;
    k->next = head;
    head->prev->next = k;
    head->prev = k;
}
static inline void pex_ring_remove(struct pex_ring *k)
{
    if (!k->next)
        return;
    k->prev->next = k->next;
    k->next->prev = k->prev;
    k->prev = k->next = NULL;
}

/* pex_link.c */
struct dig_order_by pex_by_age(const struct pex *p);
void pex_record_leave(struct pex *p, const struct dig_member *m);
/* Fills out->peer and sets what the link was told. */
void pex_pick_snapshot(struct pex *p, const struct dig_member *self, struct pex_out *out);
enum pex_say { PEX_SAYS, PEX_SILENT, PEX_READS_ON };
/* Fills out->peer and out->dropped; PEX_READS_ON: nothing so far, but not all was looked at. */
enum pex_say pex_pick_delta(struct pex *p, const struct dig_member *self, struct pex_out *out);

#endif
