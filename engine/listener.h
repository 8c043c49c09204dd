/* engine/listener.h: one listening socket of a shard: an armed multishot accept, the pause after
 * descriptors ran out, and an end that leaves nothing in flight. All TCP doors share it. */
#ifndef SLUICE_ENGINE_LISTENER_H
#define SLUICE_ENGINE_LISTENER_H

#include "engine/ring.h"
#include "engine/wheel.h"

struct shard;

struct listener {
    int fd; /* -1: closed */
    bool armed, closing;
    uint64_t ud;         /* of its accepts */
    const char *clients; /* who cannot be accepted, for the log line */
    struct timer timer;  /* re-arm after descriptor exhaustion */
    uint64_t said_ms;    /* when that was last logged; 0: never */
};

/* Takes fd and arms it. `timer_kind` is the owner's; its timer goes to listener_retry. */
void listener_start(struct shard *s, struct listener *l, int fd, uint64_t ud, uint8_t timer_kind,
                    const char *clients);
void listener_retry(struct shard *s, struct listener *l);
/* The descriptor that a completion brought, given to the caller; -1: none. */
int listener_on_cqe(struct shard *s, struct listener *l, const struct ring_cqe *cqe);
/* Nothing may be in flight on a descriptor that is closed: the multishot ends first. */
void listener_close(struct shard *s, struct listener *l);

#endif
