/* tools/p2p.h: a libp2p client connection for tools: TCP, multistream-select, Noise, yamux and
 * streams with negotiated protocols, on proto/ and poll(2). One thread, no locks; it never blocks.
 * Identify and ping of the other side are answered here, everything else is the tool's.
 *
 * Ownership: the tool gives the memory of struct p2p; streams live in its slots and are lent until
 * on_gone. Bytes shown to callbacks are borrowed. */
#ifndef SLUICE_TOOLS_P2P_H
#define SLUICE_TOOLS_P2P_H

#include "proto/hop.h"
#include "proto/ident.h"
#include "proto/mss.h"
#include "proto/noise.h"
#include "proto/yamux.h"

enum {
    P2P_STREAMS = 256,
    P2P_MSG_MAX = IDENT_PUSH_MAX + 2, /* the longest message that we read, with its prefix */
    P2P_BODY_MAX = 16384,             /* per Data frame and record */
    P2P_OUT_HIGH = 1 << 19,           /* above: the tool stops producing */
    P2P_BUCKETS = 256,
};

/* Once per process. */
struct p2p_env {
    struct identity me;
    struct noise_ident noise;
    struct aead *aead;
    struct yamux_table table;
    struct yamux_stream *bucket[P2P_BUCKETS];
    const char *agent;
};
void p2p_env_init(struct p2p_env *env, const uint8_t seed[32], const char *agent);

/* A queue of bytes, on the heap, growing as needed. */
struct p2p_queue {
    uint8_t *p;
    size_t at, n, cap;
};
void p2p_queue_put(struct p2p_queue *q, struct bytes b);
struct bytes p2p_queue_front(const struct p2p_queue *q);
void p2p_queue_drop(struct p2p_queue *q, size_t n);

enum { P2P_NONE, P2P_IDENT, P2P_PING, P2P_APP = 16 }; /* ids in mss tables; the tool's from APP */

struct p2p;
struct p2p_stream {
    struct yamux_stream y;
    struct p2p *conn;
    bool live;
    const char *dialed; /* outbound: the name that we asked for; NULL once agreed */
    int proto;          /* P2P_NONE while an inbound stream negotiates */
    struct mss_listen listen;
    struct mss_dial dial;
    bool fin_seen; /* on_fin was called */
    uint32_t consumed;
    struct p2p_queue in; /* while negotiating, and of p2p_message */
    int kind;            /* the tool's */
    void *arg;           /* the tool's */
};

struct p2p_app {
    const struct mss_proto *protos; /* what we accept, with P2P_IDENT and P2P_PING in it */
    const char *const *names;       /* the same for identify, NULL-terminated */
    void (*on_up)(struct p2p *c);
    void (*on_open)(struct p2p_stream *s); /* inbound, negotiated */
    void (*on_data)(struct p2p_stream *s, struct bytes data);
    void (*on_credit)(struct p2p_stream *s);
    void (*on_fin)(struct p2p_stream *s);
    void (*on_gone)(struct p2p_stream *s, bool reset); /* frees what the tool hung on it */
};

enum p2p_state { P2P_SECURITY, P2P_NOISE, P2P_MUXER, P2P_UP, P2P_CLOSED };

struct p2p {
    struct p2p_env *env;
    const struct p2p_app *app;
    void *arg; /* the tool's */
    int fd;
    enum p2p_state state;
    const char *why;  /* when CLOSED */
    bool early_muxer; /* settled within Noise */
    struct noise noise;
    struct noise_remote remote; /* from MUXER on */
    struct mss_dial mss;
    struct aead_key tx, rx;
    struct yamux y;
    struct p2p_queue in, plain, out;
    struct p2p_stream stream[P2P_STREAMS];
};

/* Takes a connected, non-blocking socket. */
void p2p_init(struct p2p *c, struct p2p_env *env, const struct p2p_app *app, int fd);
void p2p_fini(struct p2p *c);
short p2p_events(const struct p2p *c); /* for poll */
void p2p_on_poll(struct p2p *c, short revents);
void p2p_close(struct p2p *c, const char *why);

/* Opens a stream: header, name and `first` go out at once. NULL: no ids or no slots left. */
struct p2p_stream *p2p_open(struct p2p *c, const char *name, int kind, struct bytes first);
/* Sends as much as credit allows, with a FIN behind the whole; returns how much that was. */
size_t p2p_send(struct p2p_stream *s, struct bytes b, bool fin);
bool p2p_may_send(const struct p2p_stream *s); /* credit is there and the socket is not behind */
void p2p_reset(struct p2p_stream *s);
/* n received bytes are dealt with: the window reopens. */
void p2p_consumed(struct p2p_stream *s, size_t n);

enum p2p_msg { P2P_MSG_MORE, P2P_MSG_WHOLE, P2P_MSG_BAD };
/* Gathers one length-prefixed message of at most max bytes out of *data, advancing it past what was
 * used. *msg borrows from the stream until the next call. */
enum p2p_msg p2p_message(struct p2p_stream *s, struct bytes *data, size_t max, struct bytes *msg);

#endif
