/* engine/dig_list.h: a shard's registrants of the DIG relay as rows for sluicectl. */
#ifndef SLUICE_ENGINE_DIG_LIST_H
#define SLUICE_ENGINE_DIG_LIST_H

#include "engine/snapshot.h"

struct dig_shard;

/* Fills up to SNAP_ROWS rows from the cursor on. true: there are no more. Who has not registered,
 * or is leaving, is no row. */
bool dig_list(struct dig_shard *ds, struct snap *snap);

#endif
