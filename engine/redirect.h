/* engine/redirect.h: the port that sends people from http to https (dig.md §15.4): any request is
 * answered 301, and that was all. On control's ring, as the other doors of ops.h, with a table of
 * its own: whoever floods it keeps nobody from health and statistics. */
#ifndef SLUICE_ENGINE_REDIRECT_H
#define SLUICE_ENGINE_REDIRECT_H

#include "engine/ops.h"
#include "proto/http_head.h"

enum {
    REDIRECT_MAX = 64,   /* open exchanges; the oldest makes room for the next */
    REDIRECT_SLOTS = 96, /* with those that are on their way out */
    REDIRECT_MS = 5000,  /* request read, answer sent (dig.md §21 D4) */
    REDIRECT_LINGER_MS = 1000,
    REDIRECT_HOST_MAX = 256,
    REDIRECT_OUT_BYTES = HTTP_HEAD_BYTES_MAX + 512,
    REDIRECT_OP_FIRST = 0x98, /* to OPS_OP_LAST: opsdoor hands them over */
};

/* The answer to a whole head into `out`; its length, or 0: there is none, and the connection is
 * closed silently. Pure. */
size_t redirect_answer(const struct http_head *h, char *out, size_t cap);

struct redirect;
/* Takes fd, a listener. NULL: no memory, and fd is the caller's still. */
struct redirect *redirect_new(struct ring *r, int fd);
void redirect_free(struct redirect *d); /* when the ring completes nothing any more */
void redirect_on_cqe(struct redirect *d, const struct ring_cqe *cqe, uint64_t now_ms);
void redirect_tick(struct redirect *d, uint64_t now_ms); /* deadlines; at least each second */
unsigned redirect_open_slots(const struct redirect *d);  /* for tests */

#endif
