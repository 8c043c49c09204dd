/* engine/datadir.h: where the data directory is when nobody says (presets.md "key and data paths",
 * dusk.md §12). Shared by the daemon and sluicectl, so that the two always look in the same place;
 * libc only. */
#ifndef SLUICE_ENGINE_DATADIR_H
#define SLUICE_ENGINE_DATADIR_H

#include <stdbool.h>
#include <stddef.h>

/* Looks a variable up; NULL when unset or empty. */
typedef const char *datadir_env(const void *ctx, const char *name);

/* `dir` always becomes something usable; false only when it does not fit in `cap`. *homeless: the
 * dusk layout found no home, and its key is ./relay_keypair. */
bool datadir_default(bool dusk, datadir_env *env, const void *ctx, char *dir, size_t cap,
                     bool *homeless);
/* Makes it, with parents, for its owner alone: it holds a private key. 0 or -errno. */
int datadir_make(const char *dir);
/* The socket's name in it. */
#define DATADIR_SOCKET "admin.sock"

#endif
