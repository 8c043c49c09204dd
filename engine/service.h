/* engine/service.h: dig-relay install, uninstall, start, stop and status (dig.md §17): the relay as
 * a unit of systemd. Short-lived: runs instead of the daemon, and may wait, but never for ever. */
#ifndef SLUICE_ENGINE_SERVICE_H
#define SLUICE_ENGINE_SERVICE_H

#include <stdio.h>

#include "engine/config.h"

#define SERVICE_LABEL "net.dignetwork.dig-relay"
#define SERVICE_UNIT "dignetwork-dig-relay.service"

enum { SERVICE_TEXT_MAX = 512 };

/* Where services live. The process's own by service_main; tests make others. */
struct service_host {
    const char *dir[2];  /* of units: the system's, the user's; "" where there is none */
    const char *program; /* its path from the root */
    bool root;
    char *const *envp;    /* PATH finds systemctl */
    unsigned quick_ms;    /* systemctl's time to answer */
    unsigned slow_ms;     /* and to start or stop a service */
    unsigned ask_ms;      /* status: to connect, to write, to read */
    FILE *out, *complain; /* borrowed */
};

/* c->verb by this host's rules; the exit status: 0 done, 1 not. */
MUST_USE int service_run(const struct config *c, const struct service_host *h);
/* The same on this machine. */
MUST_USE int service_main(const struct config *c, char **envp);

#endif
