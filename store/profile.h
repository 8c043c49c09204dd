/* store/profile.h: inside the library: the names index follows what was committed. */
#ifndef SLUICE_STORE_PROFILE_H
#define SLUICE_STORE_PROFILE_H

#include "store/schema.h"

void profile_committed(struct store *s); /* s->changes are durable */

#endif
