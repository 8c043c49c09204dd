/* engine/identity_file.h: our private key on disk (dusk.md §12): 68 bytes, readable by its owner
 * alone from the first byte on. Who we are is in this file: it is made once and never overwritten,
 * and one that cannot be read stops the start. Blocking; at start only. */
#ifndef SLUICE_ENGINE_IDENTITY_FILE_H
#define SLUICE_ENGINE_IDENTITY_FILE_H

#include "proto/peer.h"

/* 0: *me is loaded, or made and safely on disk (*created); `why` is then empty, or a warning.
 * -errno: `why` names file and cause; the file is as it was. */
MUST_USE int identity_file_open(const char *path, struct identity *me, bool *created, char *why,
                                size_t cap);

#endif
