/* tools/ctl_store.h: sluicectl's `store` command. It asks no daemon: it reads the store's file in
 * the data directory, beside a running daemon or without one, and writes nothing in it. */
#ifndef SLUICE_TOOLS_CTL_STORE_H
#define SLUICE_TOOLS_CTL_STORE_H

#include <stdbool.h>

/* verb: check, dump or backup (which wants dest). NULL, or what is wrong with them. */
const char *ctl_store_complaint(const char *verb, const char *dest);
/* Exit status: 0 done, and sound; 1 not, and said. */
int ctl_store(const char *dir, const char *verb, const char *dest);

#endif
