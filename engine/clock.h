/* engine/clock.h: the only callers of clock_gettime. Time inside the daemon is monotonic ms; unix
 * seconds only where a spec sends them (expiry of a reservation) or a log line shows them.
 * Any thread. The simulation and the tests put their own time in with clock_set_fake; a machine is
 * told the time and never asks. */
#ifndef SLUICE_ENGINE_CLOCK_H
#define SLUICE_ENGINE_CLOCK_H

#include "proto/base.h"

uint64_t clock_mono_ms(void);
uint64_t clock_mono_ns(void);
uint64_t clock_unix_s(void);
uint64_t clock_unix_ms(void); /* for log lines */

/* From now on every reading above is these values, moved only by the next call. */
void clock_set_fake(uint64_t mono_ms, uint64_t unix_s);
void clock_set_real(void);

#endif
