/* engine/guard.h: one daemon per data directory and per port. SO_REUSEPORT would let a second one
 * take every other connection without a word (design.md "Commands people type"). */
#ifndef SLUICE_ENGINE_GUARD_H
#define SLUICE_ENGINE_GUARD_H

#include "engine/config.h"

/* Makes the data directory and locks it until the process ends or guard_release. 0; else -errno and
 * one line in `why` that names the directory, the flag and who holds it. */
MUST_USE int guard_acquire(const char *data_dir, int *fd, char *why, size_t cap);
void guard_release(int fd);

/* Who listens at this TCP port: "sluice, process 123"; empty when that cannot be told (another
 * user's process). For the line that says why a door could not be opened. */
void guard_port_holder(uint16_t port, char *out, size_t cap);

/* Binds the address alone, without SO_REUSEPORT, and lets it go again. 0; else -errno and one line
 * naming port, flag and holder. A port of 0 is free by definition. */
MUST_USE int guard_probe(const struct netaddr *at, bool v6only, const char *flag, char *why,
                         size_t cap);

/* The same of a TURN address: its port for datagrams, and for streams, if there are any, that of
 * turn_tcp_port or, when that is 0, the same one. */
MUST_USE int guard_probe_turn(const struct config *c, const struct netaddr *at, bool v6only,
                              char *why, size_t cap);
/* Is this TCP address free, now and without a word? 0 or -errno. */
MUST_USE int guard_free(const struct netaddr *at, bool v6only);

/* The same for every door of the configuration that is built, before anything else is touched: a
 * second start with the same flags hears of the port, not of the data directory. -EADDRINUSE with
 * the line in `why`, else 0; other causes are the doors' to tell. Dusk's relay runs on without TURN
 * (presets.md), so that port is not looked at there. */
MUST_USE int guard_ports(const struct config *c, char *why, size_t cap);

#endif
