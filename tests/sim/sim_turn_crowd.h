/* tests/sim/sim_turn_crowd.h: a seeded crowd of TURN's clients and peers: they allocate, refresh,
 * permit, bind, send singles and trains, repeat themselves, reserve ports for each other, move to
 * other addresses and shards, forget to refresh, go away, and some send what they may not. */
#ifndef SLUICE_TESTS_SIM_TURN_CROWD_H
#define SLUICE_TESTS_SIM_TURN_CROWD_H

#include "tests/sim/sim_turn.h"

struct sim_turn_crowd {
    struct sim_turn t;
    unsigned clients, peers, acts;
    unsigned gap_ms;       /* between acts, mostly */
    unsigned long_gap_pct; /* a minute or more instead */
    bool hostile;          /* garbage, peers and channels without permission */
    bool v6, mobile;
    unsigned tcp_every; /* of so many clients one comes by TCP; 0: none */
    bool capped;        /* what is sent may be too much: nobody is sure of anything */
    unsigned drain_at;  /* SIGTERM in the middle: 0: not */
    struct { /* what a client will do when nothing that it was sure of is under way any more */
        bool end, move;
        uint64_t at_ms;
    } later[SIM_TURN_CLIENTS];
    /* a token that waits for somebody */
    bool has_token;
    uint8_t token[TURN_TOKEN];
    unsigned token_user;
    uint16_t token_port;
    uint64_t token_ms;
    struct sim_turn_counts {
        uint64_t allocated, refused, refreshed, ended, expired, permitted, bound, moved,
            moved_across, reserved, redeemed, redeemed_across, token_refused, timeouts, gone,
            garbage, repeats;
    } did;
};

void sim_turn_crowd_init(struct sim_turn_crowd *w, struct sim *s, const struct sim_opts *net);
void sim_turn_crowd_run(struct sim_turn_crowd *w);
void sim_turn_crowd_fini(struct sim_turn_crowd *w);

#endif
