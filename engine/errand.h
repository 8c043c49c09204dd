/* engine/errand.h: the one thread that may wait for others: names by c-ares, HTTPS by libcurl
 * (engine/fetch.h), each with a deadline. Whoever wants something posts it here and hears of it in
 * a mailbox of its own; nobody waits.
 *
 * On its own account it asks for the names in --turn-external-ip, again each minute, and tells the
 * TURN host what it hears.
 * Of a family several addresses may come: the one in use stays as long as it is among them, so that
 * answers in turning order change nothing. A failure, or an answer without that family, leaves what
 * was there; so clients keep the last good address. Said once when it changes, once when it fails.
 */
#ifndef SLUICE_ENGINE_ERRAND_H
#define SLUICE_ENGINE_ERRAND_H

#include "engine/log.h"
#include "engine/mbox.h"
#include "engine/ring.h"
#include "engine/turn_host.h"

enum {
    ERRAND_INTERVAL_MS = 60000, /* and up to a tenth more, so that a fleet does not ask at once */
    ERRAND_START_MS = 5000,     /* how long a start waits for the first answers */
    ERRAND_STOP_MS = 300,
    ERRAND_ADDRS_MAX = 16, /* of one answer */
    ERRAND_NAME_MAX = 254, /* of a DNS name, with the terminator */
    ERRAND_JOBS_MAX = 64,  /* names being resolved; who comes later is refused */
    ERRAND_DEADLINE_MS = 10000,
};

struct errand_answer {
    struct netaddr addr[ERRAND_ADDRS_MAX];
    size_t n;
};

struct errand_opts {
    /* Instead of c-ares, for tests: 0, or -errno as in errand_name. May block. */
    int (*resolve)(void *arg, const char *name, struct errand_answer *out);
    void *arg;
    uint32_t interval_ms;
    bool always;         /* somebody will post something */
    const char *servers; /* of names, "IP:PORT,…"; NULL: as the host is configured */
};
extern const struct errand_opts errand_defaults; /* c-ares */

struct errand; /* errand.c */

/* A function that runs on the errand thread. The object around it is with that thread from
 * errand_post until `run` has been called. */
struct errand_call {
    struct mnode node;
    void (*run)(struct errand *e, struct errand_call *c, uint64_t now_ms);
};
/* Any thread but the errand thread too; no lock, no allocation. What was posted and has not run
 * when errand_stop comes, never runs. */
void errand_post(struct errand *e, struct errand_call *c);

/* A name to be resolved: the asker fills what is above the line, posts it, and leaves it alone
 * until its node comes into `to`. */
struct errand_name {
    struct errand_call call; /* call.node is what comes back, with kind_of_mail */
    uint8_t kind_of_mail;
    struct mbox *to;
    struct ring *wake;
    uint32_t deadline_ms;       /* from now; 0 or more than ERRAND_DEADLINE_MS: that */
    char name[ERRAND_NAME_MAX]; /* a DNS name, or an address as text */
    /* ---- */
    int err; /* 0: `answer` has at least one; else -ETIMEDOUT, -ENOENT (no such name, or it has no
                address), -EAGAIN (the resolver failed, or ERRAND_JOBS_MAX) */
    struct errand_answer answer; /* ports are 0; nothing is left out: the asker judges */
};
/* Any thread. It always comes back, by its deadline, unless errand_stop comes first. */
void errand_resolve(struct errand *e, struct errand_name *n);
static inline struct errand_name *errand_name_of(struct mnode *n)
{
    return CONTAINER_OF(n, struct errand_name, call.node);
}

/* For calls that run here: HTTPS (fetch.h). */
struct fetch *errand_fetch(struct errand *e);

/* Keeps h and log until errand_stop. h NULL: the TURN door is closed. *out is NULL if no name was
 * given there and o->always is not set: 0. Else -errno. */
MUST_USE int errand_start(struct turn_host *h, struct logq *log, const struct errand_opts *o,
                          struct errand **out);
/* Until each name has been asked for once, at most so long. false: some resolver still thinks. */
bool errand_wait(struct errand *e, uint32_t ms);
/* Waits ERRAND_STOP_MS at most. Neither h nor log is touched after it. NULL is fine. false: it is
 * left running, with all that was posted to it. */
bool errand_stop(struct errand *e);

#endif
