/* engine/turn_ports.h: the ports of relayed transport addresses of one family, shared by all shards
 * (turn.md §9.4). One atomic word per port, so that every port can be had by every shard and none
 * by two. Drawn uniformly by the system's generator (CVE-2025-69217); a freed one rests, so that
 * late datagrams of the last owner's peers do not reach the next one. */
#ifndef SLUICE_ENGINE_TURN_PORTS_H
#define SLUICE_ENGINE_TURN_PORTS_H

#include "proto/base.h"

enum { TURN_PORT_REST_MS = 120000, TURN_PORT_DRAWS_MAX = 32 };

struct turn_ports;                                                             /* turn_ports.c */
struct turn_ports *turn_ports_new(uint16_t lo, uint16_t hi, uint32_t rest_ms); /* NULL: no memory */
void turn_ports_free(struct turn_ports *p);

/* A free port: any; an even one; or an even one together with the odd one above it, which is then
 * taken too. 0: none. Any thread. At most TURN_PORT_DRAWS_MAX draws, then one pass over the range
 * from a random place; a pool where all free ports rest gives the one that has rested longest only
 * if it has rested a tenth of its time (a small range must not refuse everybody for two minutes).
 */
enum turn_port_wish { TURN_PORT_ANY, TURN_PORT_EVEN, TURN_PORT_PAIR };
uint16_t turn_ports_take(struct turn_ports *p, uint64_t now_ms, enum turn_port_wish wish);
/* Exactly once for each port taken; a pair is given back one by one. One that could not be bound
 * rests as any other: somebody else has it. */
void turn_ports_give(struct turn_ports *p, uint64_t now_ms, uint16_t port);
bool turn_ports_is_taken(const struct turn_ports *p, uint16_t port); /* false outside the range */
uint32_t turn_ports_used(const struct turn_ports *p);
uint32_t turn_ports_count(const struct turn_ports *p); /* in the range */

#endif
