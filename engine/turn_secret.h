/* engine/turn_secret.h: the TURN secret that nobody gave (presets.md, dusk: the relay and the
 * service that hands out credentials share it), kept in a file beside the identity, so that
 * credentials outlive a restart. */
#ifndef SLUICE_ENGINE_TURN_SECRET_H
#define SLUICE_ENGINE_TURN_SECRET_H

#include "engine/turn_host.h"

/* Takes the secret out of DIR/turn.secret, or keeps the one given there, for this user alone. 0; or
 * -errno with one line in `why`: a file that is there and holds anything else is left as it is. */
MUST_USE int turn_secret_keep(const char *dir, char secret[2 * TURN_SECRET_BYTES + 1], char *why,
                              size_t cap);

#endif
