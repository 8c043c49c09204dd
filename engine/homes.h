/* engine/homes.h: where each peer with a reservation lives: peer -> up to 8 homes (shard, slot,
 * generation), newest first (design.md "Homes"). Control is the one writer; shards read without
 * locks: buckets are cache lines with a sequence counter and relaxed atomic fields, readers retry
 * on change (TSan-clean). Fixed capacity, sized at start. */
#ifndef SLUICE_ENGINE_HOMES_H
#define SLUICE_ENGINE_HOMES_H

#include "proto/peer.h"

enum { HOMES_PER_PEER = 8 };

struct home {
    uint32_t slot;
    uint32_t gen;
    uint8_t shard;
};

struct homes; /* homes.c */
/* Room for `peers_max` peers; NULL when memory cannot be had. */
struct homes *homes_new(uint32_t peers_max, const uint8_t key[16]);
void homes_free(struct homes *h);

/* Writer. add puts `at` first (moving it there if it is known); false when the table is full or the
 * peer has 8 homes already. remove is idempotent; the change is visible when it returns. */
MUST_USE bool homes_add(struct homes *h, const struct peer_id *peer, struct home at);
void homes_remove(struct homes *h, const struct peer_id *peer, struct home at);

/* Any thread: a consistent snapshot, newest first; returns how many (0: nobody). */
size_t homes_find(const struct homes *h, const struct peer_id *peer,
                  struct home out[HOMES_PER_PEER]);
uint32_t homes_peers(const struct homes *h); /* peers present, for metrics */

#endif
