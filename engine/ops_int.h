/* engine/ops_int.h: inside the HTTP and admin doors: one table of connections on control's ring.
 * opsconn.c moves bytes, opsdoor.c says what HTTP answers, admin.c what sluicectl is told. */
#ifndef SLUICE_ENGINE_OPS_INT_H
#define SLUICE_ENGINE_OPS_INT_H

#include "engine/http.h"
#include "engine/json.h"
#include "engine/ops.h"
#include "engine/redirect.h"

enum {
    OPS_HTTP_MAX = 64,   /* open exchanges; the oldest idle one makes room for the next */
    OPS_HTTP_SLOTS = 80, /* with those that are on their way out */
    OPS_WAITING = 256,   /* accepted in a burst, waiting for those to be gone */
    OPS_ADMIN_MAX = 8,
    OPS_SLOTS = OPS_HTTP_SLOTS + OPS_ADMIN_MAX,
    OPS_IN_BYTES = HTTP_HEAD_MAX,
    OPS_REQUEST_MAX = 1024, /* of the admin socket, one line */
    OPS_HTTP_OUT_BYTES = 65536,
    OPS_ROW_MAX = 832,                                    /* of a listing, as JSON */
    OPS_ADMIN_OUT_BYTES = SNAP_ROWS * OPS_ROW_MAX + 8192, /* a page and the last line */
    OPS_EXCHANGE_MS = 5000, /* request read and answer sent; a listing: per page */
    OPS_LINGER_MS = 1000,   /* for the client to close after our end */
};

enum opsconn_state {
    OC_FREE,
    OC_READING,
    OC_SENDING,
    OC_LISTING, /* waits for a page */
    OC_LINGER,  /* our end is closed: reads and forgets until the client closes */
    OC_CLOSING, /* waits for what is in flight */
};

struct opsconn {
    enum opsconn_state state;
    bool admin;
    bool last;    /* what is being sent is the end */
    bool listing; /* control holds a listing of ours */
    int fd;
    uint32_t idx, gen; /* gen is 24 bits, as in user_data */
    unsigned inflight;
    uint64_t serial, deadline_ms; /* serial: who came first */
    uint64_t rows;                /* listed so far */
    struct iovec iov;
    struct msghdr msg;
    size_t in_n, out_n, out_sent, out_cap;
    char *out;
    uint8_t in[OPS_IN_BYTES];
};

struct opsdoor {
    struct ring *ring;
    const struct ops *ops;
    const struct config *cfg;
    struct logq *log;
    int http_fd, admin_fd; /* -1: closed */
    bool http_armed, admin_armed;
    struct netaddr http_at, redirect_at;
    struct redirect *redirect; /* NULL: closed, or its port was taken */
    uint64_t now_ms;
    char *outs; /* all out buffers */
    struct opsconn conn[OPS_SLOTS];
    int waiting[OPS_WAITING]; /* HTTP connections without a slot, a queue */
    unsigned waiting_from, waiting_n;
    uint64_t serial;
};

/* What control calls a listing of ours by. */
static inline uint32_t opsconn_owner(const struct opsconn *c)
{
    return (c->gen & 0xffffff) << 8 | c->idx;
}
static_assert(OPS_SLOTS <= 256, "idx is the low byte of an owner's id");

/* opsconn.c */
/* Sends out[0..out_n); `last` ends the exchange after it. */
void opsconn_send(struct opsdoor *d, struct opsconn *c, bool last);
void opsconn_close(struct opsdoor *d, struct opsconn *c);
/* opsdoor.c: the request in c->in has grown; answers when it is whole. `eof`: no more will come. */
void http_on_input(struct opsdoor *d, struct opsconn *c, bool eof);
/* admin.c */
void admin_on_input(struct opsdoor *d, struct opsconn *c, bool eof);
void admin_on_sent(struct opsdoor *d, struct opsconn *c); /* of a page: the next one may come */
/* The listening socket, 0600. -errno and `why`. */
int admin_listen(const char *path, char *why, size_t cap);

#endif
