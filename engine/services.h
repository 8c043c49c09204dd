/* engine/services.h: what the libp2p door offers beside relaying: rendezvous, directory, TURN
 * credentials, gif; and the store that they need. Put together at start. */
#ifndef SLUICE_ENGINE_SERVICES_H
#define SLUICE_ENGINE_SERVICES_H

#include "engine/daemon.h"
#include "engine/keeper.h"

/* After the TURN door is known, before the shards are made. d->keeper is k if anything is kept. 0,
 * or -errno with a line in `why`. */
MUST_USE int services_init(struct daemon *d, struct keeper *k, char *why, size_t cap);

#endif
