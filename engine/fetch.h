/* engine/fetch.h: HTTPS GET by libcurl, on the errand thread alone. A host's addresses come from
 * resolve.h and are judged before anybody connects, and judged again as the socket is made: an
 * address that is private, local or reserved (peer_policy.h) is not connected to, whatever a name
 * says by then. No redirect is followed, no proxy used, no cookie kept; the certificate must be
 * good for the host; an answer has a bound and a deadline. */
#ifndef SLUICE_ENGINE_FETCH_H
#define SLUICE_ENGINE_FETCH_H

#include "engine/resolve.h"
#include "proto/list.h"

enum {
    FETCH_URL_MAX = 6144,
    FETCH_ACTIVE_MAX = 16, /* at a time; others wait for their turn, within their deadline */
    FETCH_WAITING_MAX = 256,
    FETCH_HOST_MS = 60000, /* a host's addresses are believed */
    FETCH_CONNECT_MS = 5000,
    FETCH_HEAD_MAX = 65536, /* bytes of the answer's header */
};

struct fetch;

struct fetch_job {
    /* The asker's; all of it stays until `done`. */
    char url[FETCH_URL_MAX]; /* https://… */
    const char *ca_file;     /* NULL: the system's */
    bool allow_private;
    size_t bytes_max;
    uint64_t deadline_ms; /* monotonic */
    /* Called once, by the deadline or a moment after it, perhaps before fetch_get returns; the job
     * may be freed in it. err: 0: `status` and `body`, which dies with the call; else -errno, and
     * `why` says it in words that hold neither URL nor key. */
    void (*done)(struct fetch_job *j, int err, long status, struct bytes body, const char *why);
    /* fetch's own */
    struct fetch *f;
    struct link link;
    void *easy;                 /* CURL */
    void *pinned;               /* struct curl_slist: the host's addresses */
    char host[ERRAND_NAME_MAX]; /* without brackets */
    char port[8];
    uint8_t *body;
    size_t n, cap, head_n;
    bool refused, too_long;
};

MUST_USE int fetch_new(struct resolve *r, struct fetch **out);
/* Open jobs end without a call. */
void fetch_free(struct fetch *f);
void fetch_get(struct fetch *f, struct fetch_job *j, uint64_t now_ms);
/* Does what can be done now. */
void fetch_turn(struct fetch *f, uint64_t now_ms);
uint64_t fetch_deadline_ms(const struct fetch *f); /* of who waits for a turn */
/* Waits for these, for its own, for fetch_wake, and no longer than until a time; fills revents. */
void fetch_wait(struct fetch *f, struct pollfd *fds, unsigned n, int timeout_ms);
void fetch_wake(struct fetch *f); /* any thread */

#endif
