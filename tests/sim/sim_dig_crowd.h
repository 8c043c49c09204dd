/* tests/sim/sim_dig_crowd.h: a seeded crowd of DIG's clients: they come, register, talk to each
 * other, ask, change their names and networks, stop reading, go in every way that there is, and
 * come back under the same name while the relay may still believe that they are there. */
#ifndef SLUICE_TESTS_SIM_DIG_CROWD_H
#define SLUICE_TESTS_SIM_DIG_CROWD_H

#include "tests/sim/sim_dig.h"

struct sim_dig_crowd {
    struct sim_dig d;
    unsigned clients, acts;
    unsigned gap_ms;       /* between acts, mostly */
    unsigned long_gap_pct; /* half a minute or more instead */
    unsigned rounds;       /* after each, all is quiet and everything is checked */
    bool rude;             /* goes without a word, stops reading */
    bool bursts;           /* fills queues */
    bool memory;           /* of which there is so little that connections are closed */
    struct sim_opts fair;  /* the network while all becomes quiet */
    uint64_t missing;      /* messages, in all rounds */
    uint64_t lost;         /* that the relay said so far */
};

void sim_dig_crowd_init(struct sim_dig_crowd *w, struct sim *s);
void sim_dig_crowd_run(struct sim_dig_crowd *w);
void sim_dig_crowd_fini(struct sim_dig_crowd *w);

#endif
