/* tools/ctl_usage.h: sluicectl's `usage` command: what each peer had, out of the store's file, as
 * `store` reads it. */
#ifndef SLUICE_TOOLS_CTL_USAGE_H
#define SLUICE_TOOLS_CTL_USAGE_H

#include <stdbool.h>

/* days: 1 to 31 as text, or NULL: all of them. NULL, or what is wrong with it. */
const char *ctl_usage_complaint(const char *days);
/* A row per peer, those with most bytes first; or one JSON object a line, by peer id. Exit status.
 */
int ctl_usage(const char *dir, const char *days, bool json);

#endif
