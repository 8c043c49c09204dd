/* engine/resolve.h: names to addresses by c-ares, on the errand thread alone. Nothing here waits.
 *
 * Each question has a deadline of its own, and `done` is called once, by then at the latest,
 * perhaps before resolve_ask returns. c-ares may go on asking after that, for it cannot forget one
 * question of many; its slot is free when it has given up. The configuration of the host's resolver
 * is read again when none was asked for a while, so that a change of network needs no restart. */
#ifndef SLUICE_ENGINE_RESOLVE_H
#define SLUICE_ENGINE_RESOLVE_H

#include <poll.h>

#include "engine/errand.h"

enum {
    RESOLVE_FDS_MAX = 16,
    RESOLVE_TRY_MS = 2000, /* for a server, before the next one is asked */
    RESOLVE_TRIES = 3,
    RESOLVE_REREAD_MS = 30000,
};

struct resolve;

/* Keeps servers ("IP:PORT,…"; NULL: as the host is configured). */
MUST_USE int resolve_new(const char *servers, struct resolve **out);
void resolve_free(struct resolve *r); /* nothing is called any more */
/* err as in struct errand_name. */
void resolve_ask(struct resolve *r, const char *name, uint64_t now_ms, uint64_t deadline_ms,
                 void (*done)(void *arg, int err, const struct errand_answer *a), void *arg);
/* What to poll for, and when to come back at the latest. */
unsigned resolve_fds(struct resolve *r, struct pollfd fds[RESOLVE_FDS_MAX]);
uint64_t resolve_deadline_ms(struct resolve *r, uint64_t now_ms);
void resolve_turn(struct resolve *r, uint64_t now_ms, const struct pollfd *fds, unsigned n);

#endif
