/* engine/errand.h: the one thread that may wait for others. It asks a resolver for the names in
 * --turn-external-ip, again each minute, and tells the TURN host what it hears. A resolver may
 * take half a minute to give up, or hang: nothing but this thread notices, and a stop leaves such
 * a thread behind.
 *
 * Of a family several addresses may come: the one in use stays as long as it is among them, so that
 * answers in turning order change nothing. A failure, or an answer without that family, leaves what
 * was there; so clients keep the last good address. Said once when it changes, once when it fails.
 */
#ifndef SLUICE_ENGINE_ERRAND_H
#define SLUICE_ENGINE_ERRAND_H

#include "engine/log.h"
#include "engine/turn_host.h"

enum {
    ERRAND_INTERVAL_MS = 60000, /* and up to a tenth more, so that a fleet does not ask at once */
    ERRAND_START_MS = 5000,     /* how long a start waits for the first answers */
    ERRAND_STOP_MS = 300,
    ERRAND_ADDRS_MAX = 16, /* of one answer */
};

struct errand_answer {
    struct netaddr addr[ERRAND_ADDRS_MAX];
    size_t n;
};

struct errand_opts {
    /* 0, or an EAI_ number. May block. */
    int (*resolve)(void *arg, const char *name, struct errand_answer *out);
    void *arg;
    uint32_t interval_ms;
};
extern const struct errand_opts errand_defaults; /* getaddrinfo */

struct errand; /* errand.c */

/* Keeps h and log until errand_stop. *out is NULL if no name was given: 0. Else -errno. */
MUST_USE int errand_start(struct turn_host *h, struct logq *log, const struct errand_opts *o,
                          struct errand **out);
/* Until each name has been asked for once, at most so long. false: some resolver still thinks. */
bool errand_wait(struct errand *e, uint32_t ms);
/* Waits ERRAND_STOP_MS at most. Neither h nor log is touched after it. NULL is fine. */
void errand_stop(struct errand *e);

#endif
