/* engine/service_int.h: inside service*.c. */
#ifndef SLUICE_ENGINE_SERVICE_INT_H
#define SLUICE_ENGINE_SERVICE_INT_H

#include "engine/service.h"

enum place { PLACE_SYSTEM, PLACE_USER }; /* indexes service_host.dir */

/* Is the unit known there (§17)? Unknown: nobody could be asked. */
enum detected { DETECT_ABSENT, DETECT_PRESENT, DETECT_UNKNOWN };

/* service_ctl.c: systemctl [--user] VERB [UNIT], found by PATH, never by a shell. 0: it said yes;
 * -errno: it could not be asked, or not in time; 1: it said no. `why` has its words, or ours. */
MUST_USE int service_ctl(const struct service_host *h, enum place p, const char *verb, bool unit,
                         unsigned limit_ms, char why[SERVICE_TEXT_MAX]);
enum detected service_detect(const struct service_host *h, enum place p,
                             char why[SERVICE_TEXT_MAX]);

/* service_unit.c. The unit's text into `out`. 0, or -errno and `why`. */
MUST_USE int service_unit_text(const struct config *c, const struct service_host *h, enum place p,
                               char *out, size_t cap, char why[SERVICE_TEXT_MAX]);
bool service_unit_is_there(const struct service_host *h, enum place p);
MUST_USE int service_unit_write(const struct service_host *h, enum place p, const char *text,
                                char why[SERVICE_TEXT_MAX]);
MUST_USE int service_unit_remove(const struct service_host *h, enum place p,
                                 char why[SERVICE_TEXT_MAX]);

/* service_ask.c: does GET /health answer 2xx there? */
bool service_serves(const struct netaddr *at, unsigned limit_ms);

#endif
