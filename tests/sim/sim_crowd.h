/* tests/sim/sim_crowd.h: a seeded crowd of clients who do what clients do: come, reserve, call each
 * other, send, hang up in the middle; and some of whom are rude or hostile. */
#ifndef SLUICE_TESTS_SIM_CROWD_H
#define SLUICE_TESTS_SIM_CROWD_H

#include "tests/sim/sim.h"

enum { CROWD_LATER_MAX = 64 };

enum later_kind { LATER_NONE, LATER_ANSWER, LATER_RST, LATER_HEAR };

struct later {
    enum later_kind kind;
    uint64_t at_ms;
    struct sim_stream *st;
    struct sim_conn *conn;
};

struct crowd {
    struct sim *s;
    unsigned idents;    /* 1..idents; ident 0 never reserves */
    unsigned conns_max; /* at a time */
    unsigned acts;      /* left to do */
    unsigned drain_at;  /* acts left when SIGTERM comes; 0: at the end */
    unsigned gap_ms;    /* between two acts, at most */
    uint64_t bytes_max; /* of a flow */
    bool hostile;       /* bytes that no client sends */
    bool no_promises;   /* limits or memory may end any circuit: nothing has to arrive */
    bool slow;          /* time passes: circuits that wait are closed by the relay */
    uint64_t next_ms;
    struct later later[CROWD_LATER_MAX];
    uint32_t list_id; /* of the listing under way */
    bool list_done;
    uint64_t circuits, joined; /* tried, opened */
};

/* Takes the simulation's hooks. The plan above next_ms is the caller's to fill in before. */
void crowd_init(struct crowd *c, struct sim *s);
/* All acts, then fair weather until everything that has to arrive has. What is wrong then is told
 * by sim_why. */
void crowd_run(struct crowd *c);

#endif
