/* engine/doors.h: the sockets of the libp2p, TURN and DIG doors: one SO_REUSEPORT group per
 * address, one member per shard. SO_REUSEPORT would let a second instance steal traffic silently,
 * so each address is bound once without it first. */
#ifndef SLUICE_ENGINE_DOORS_H
#define SLUICE_ENGINE_DOORS_H

#include "engine/config.h"
#include "engine/limits.h"

struct doors {
    int fd[SHARDS_MAX][LISTENERS_MAX];
    struct netaddr bound[LISTENERS_MAX]; /* with the port really bound */
    unsigned n;
    /* Of TURN each address twice: datagrams and streams, on one port unless dusk's environment
     * names two; without streams (turn_udp_only) -1 and no port. */
    int turn_udp[SHARDS_MAX][LISTENERS_MAX], turn_tcp[SHARDS_MAX][LISTENERS_MAX];
    struct netaddr turn_udp_bound[LISTENERS_MAX], turn_tcp_bound[LISTENERS_MAX];
    unsigned turn_n;
    int dig[SHARDS_MAX][LISTENERS_MAX]; /* the first of each */
    struct netaddr dig_bound;
};
enum { TURN_RCVBUF_BYTES = 4 << 20 };

/* 0, or -errno with one line in `why` that names address, flag and cause; nothing stays bound. */
MUST_USE int doors_open(struct doors *d, const struct config *cfg, unsigned shards, char *why,
                        size_t cap);
/* The same of the TURN door. */
MUST_USE int doors_open_turn(struct doors *d, const struct config *cfg, unsigned shards, char *why,
                             size_t cap);
/* The same of the DIG door, a dual-stack one unless its address is IPv4. */
MUST_USE int doors_open_dig(struct doors *d, const struct config *cfg, unsigned shards, char *why,
                            size_t cap);
/* What a peer may dial to reach `at`: for a wildcard, every address of an interface that is up. */
size_t doors_reachable(const struct netaddr *at, struct netaddr *out, size_t max);

#endif
