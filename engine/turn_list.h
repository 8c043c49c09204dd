/* engine/turn_list.h: a shard's allocations as rows for sluicectl. */
#ifndef SLUICE_ENGINE_TURN_LIST_H
#define SLUICE_ENGINE_TURN_LIST_H

#include "engine/snapshot.h"

struct turn_shard;

/* Fills up to SNAP_ROWS rows from the cursor on. true: there are no more. What is still being made,
 * or has ended and waits for the kernel, is no row. */
bool turn_list(struct turn_shard *ts, struct snap *snap);

#endif
