/* tests/sim/sim_turn_int.h: what sim_turn.c (asking), sim_turn_data.c (carrying) and
 * sim_turn_tcp.c (streams) share. */
#ifndef SLUICE_TESTS_SIM_TURN_INT_H
#define SLUICE_TESTS_SIM_TURN_INT_H

#include "tests/sim/sim_turn.h"

static inline void *sim_turn_must(void *p)
{
    ASSERT(p != NULL);
    return p;
}

void sim_turn_on_response(struct sim_turn_end *e, const struct stun_msg *m);
void sim_turn_end_look(struct sim_turn_end *e);
void sim_turn_on_unit(struct sim_turn_end *e, struct bytes in);

struct sim_turn_wire *sim_turn_wire_new(void);
void sim_turn_wire_look(struct sim_turn_end *e);
void sim_turn_wire_close(struct sim_turn_end *e);
void sim_turn_peer_look(struct sim_turn *t, unsigned peer);

#endif
