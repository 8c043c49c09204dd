/* engine/printable.h: a name that a peer chose, for log lines and listings: what is valid UTF-8 and
 * neither controls a terminal nor the direction of writing, '?' for all else, cut between
 * characters. Pure. */
#ifndef SLUICE_ENGINE_PRINTABLE_H
#define SLUICE_ENGINE_PRINTABLE_H

#include "proto/base.h"

void printable(struct bytes name, char *out, size_t cap); /* terminated; cap > 0 */

#endif
