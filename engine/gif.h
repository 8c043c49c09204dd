/* engine/gif.h: the answers of /dusk/gif/1.0.0 (dusk.md §9): without a key always empty, with one
 * fetched by the errand thread and kept for a while. A client never sees an error: what goes wrong
 * is an empty reply and, once in a while, a line in the log.
 *
 * From a shard:
 *
 *     struct gif_ask *a = gif_ask(d->gif, &req, MAIL_GIF, &s->mbox, s->ring, cookie);
 *     if (!a)
 *         ... answer dusk_gif_put_results(&w, 0) now: no key, too long, or too many are asking
 *
 * and later, when the mailbox gives a node of kind MAIL_GIF:
 *
 *     struct gif_ask *a = gif_of(n);       after n->next was read
 *     ... find the stream by a->cookie (index and generation); if it is still there, answer
 *         gif_reply(a), which borrows from `a`
 *     gif_done(a);
 *
 * An ask keeps nothing of the stream or of the request, so that either may go before the answer
 * comes; it comes within GIF_DEADLINE_MS, unless the process ends. One shard's asks are answered in
 * any order. */
#ifndef SLUICE_ENGINE_GIF_H
#define SLUICE_ENGINE_GIF_H

#include "engine/config.h"
#include "engine/errand.h"
#include "engine/shared.h"
#include "proto/dusk.h"

enum {
    GIF_BURST = 96, /* questions of one connection, then one per */
    GIF_MS = 250,   /* so many ms; more are empty, and cost neither the key nor others' places */
    GIF_ASKS_MAX = 256,      /* of all shards at a time */
    GIF_QUERY_MAX = 1024,    /* longer ones are empty */
    GIF_DEADLINE_MS = 10000, /* below the stream's 15 s */
    GIF_FETCH_MAX = 1 << 20, /* bytes of an upstream answer */
    GIF_REPLY_MAX = 65536,   /* bytes of a reply: results past it are left out */
    GIF_TEXT_MAX = 4096,     /* of one field: a result with a longer url or preview is left out */
    GIF_CACHE_ENTRIES = 4096,
    GIF_CACHE_BYTES = 32 << 20,
    GIF_TRENDING_MS = 600000, /* kept: kind `trending`, then any other (§9) */
    GIF_SEARCH_MS = 1800000,
    GIF_SWEEP_MS = 300000,
    GIF_CALLS = 100, /* upstream, in GIF_CALLS_MS, with KLIPY_TEST_KEY */
    GIF_CALLS_MS = 60000,
    GIF_SAY_MS = 60000, /* between two lines of log about failures */
};

struct gif;

/* What is asked of the service. `trending` and whatever else is no search are the same call, kept
 * for different times (§9). */
enum gif_kind { GIF_SEARCH, GIF_TRENDING, GIF_OTHER };

struct gif_ask {
    struct errand_call call; /* call.node is what comes back */
    uint64_t cookie;         /* the asker's */
    struct gif *gif;
    struct mbox *to;
    struct ring *wake;
    struct shared *reply; /* NULL: empty results */
    struct gif_ask *next; /* of those that wait for one call */
    uint8_t kind_of_mail;
    enum gif_kind kind;
    uint16_t query_n;
    uint32_t limit;
    uint8_t query[GIF_QUERY_MAX]; /* as it came; of a search only */
};

/* Keeps cfg, e (NULL: no key is set) and log, which the errand thread writes to from now on. Says
 * once in the log when there is no key. 0 or -errno. */
MUST_USE int gif_new(const struct config *cfg, struct errand *e, struct logq *log,
                     struct gif **out);
void gif_free(struct gif *g); /* after errand_stop; NULL is fine */

/* Any thread, no lock, no allocation. NULL: answer with empty results at once. Else the ask is
 * taken care of: its node comes into `to` with `kind_of_mail`, and `wake` is woken. */
struct gif_ask *gif_ask(struct gif *g, const struct dusk_gif_req *r, uint8_t kind_of_mail,
                        struct mbox *to, struct ring *wake, uint64_t cookie);
static inline struct gif_ask *gif_of(struct mnode *n)
{
    return CONTAINER_OF(n, struct gif_ask, call.node);
}
/* The whole encoded reply, to be written and followed by FIN. */
struct bytes gif_reply(const struct gif_ask *a);
void gif_done(struct gif_ask *a);

#endif
