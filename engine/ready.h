/* engine/ready.h: what a start says when it has succeeded: on stdout one line per open door, where
 * state lies, what to open in a firewall; in the log what an operator should mend. */
#ifndef SLUICE_ENGINE_READY_H
#define SLUICE_ENGINE_READY_H

#include "engine/doors.h"
#include "engine/log.h"
#include "engine/turn_host.h"

struct ready {
    const struct config *cfg;
    const struct identity *me;
    bool created; /* the identity, by this start */
    const struct doors *doors;
    const struct turn_host *turn; /* NULL: that door is closed */
    bool http, redirect;
    struct netaddr http_at, redirect_at;
    struct logq *log;
};
void ready_say(const struct ready *r);

#endif
