/* engine/metrics.h: the daemon's numbers as Prometheus text and as JSON, live at the call. Labels
 * are ours and few: nothing that a peer chooses becomes one. Pure. */
#ifndef SLUICE_ENGINE_METRICS_H
#define SLUICE_ENGINE_METRICS_H

#include "engine/json.h"
#include "engine/ops.h"

#define METRICS_TYPE "text/plain; version=0.0.4"

/* Length without terminator; 0 if it does not fit in cap. */
size_t metrics_text(const struct ops_status *s, char *out, size_t cap);
/* The members of one object, between braces that are the caller's (descord.md §5). */
void metrics_json(const struct ops_status *s, struct jw *j);

/* For metrics_json. */
void metrics_counters(const struct ops_status *s, struct jw *j);
uint64_t metrics_relayed(const struct ops_status *s); /* payload bytes, both directions */

#endif
