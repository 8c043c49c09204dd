/* engine/reload.h: SIGHUP and `sluicectl reload`: the configuration is read again, on a thread of
 * its own because files may block, and checked whole; then control takes over what may change while
 * running: the log level, the access lists, and who may log in to TURN. Anything else that differs
 * is named and waits for a restart. A configuration that is refused changes nothing. */
#ifndef SLUICE_ENGINE_RELOAD_H
#define SLUICE_ENGINE_RELOAD_H

#include "engine/control.h"

struct reload;
/* Keeps everything it is given. NULL: no memory. */
struct reload *reload_new(struct control *c, const struct config *running, int argc, char **argv,
                          char **envp);
void reload_free(struct reload *r); /* waits for a reading under way */
/* Starts reading. 0, or -EBUSY with a line: one is under way, or the last was a moment ago. */
MUST_USE int reload_start(struct reload *r, char *why, size_t cap);
/* Control, each turn: takes over what has been read. Cheap when there is nothing. */
void reload_apply(struct reload *r);

#endif
