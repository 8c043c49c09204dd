/* engine/rpc.h: one exchange of a request-response protocol on one stream of a shard: rendezvous
 * (a message with its length), directory, TURN credentials and gif (a bare CBOR value up to the end
 * of the stream, dusk.md §6). The request is gathered whole, someone answers, the answer leaves
 * under the stream's credit, and FIN behind it.
 *
 * Bounds: requests at a time and their bytes per connection, bytes of all of them in the daemon's
 * rpc_pool, exchanges per shard in a slab, 15 s for each, and so many are looked into per turn: a
 * signature costs as much as a handshake's.
 * Ownership: the shard's; while it is asked, the keeper (or the errand thread) alone touches
 * `out`, and reads the rest. A stream that goes meanwhile leaves it behind (stream == NULL). */
#ifndef SLUICE_ENGINE_RPC_H
#define SLUICE_ENGINE_RPC_H

#include <stdatomic.h>

#include "engine/keeper.h"
#include "engine/shared.h"
#include "engine/slab.h"
#include "proto/dusk.h"
#include "proto/list.h"
#include "proto/rdv.h"

struct conn;
struct stream;
struct shard;

enum {
    RPC_STREAMS_MAX = 256,        /* at a time on one connection */
    RPC_CONN_BYTES_MAX = 2 << 20, /* of their requests; less where the pool is short */
    RPC_ANSWERS_MAX = 2 << 20, /* of long answers: being fetched, or waiting to leave; the same */
    RPC_PAGE_MIN = 16 << 10,   /* of an answer that is cut because the pool is short */
    RPC_POOL_BYTES_MAX = 64 << 20, /* of all requests and answers of the process */
    RPC_MAX = 32768,               /* exchanges of one shard */
    RPC_PER_TURN = 16,
    RPC_TURN_NS = 50000,   /* no more are begun in a turn: circuits wait meanwhile */
    RPC_FIRST_BYTES = 512, /* room for a request of unknown length; doubled */
    RPC_BURST = 1024,      /* of one connection, then one per ms */
    RPC_MS = 1,
};

struct rpc {
    struct slab_head head;
    struct keep_ask ask; /* with the keeper, and back by MAIL_RPC */
    struct shard *shard;
    struct stream *stream; /* NULL: gone */
    struct link ready_link;
    uint8_t svc;       /* enum svc_id */
    bool ready;        /* in the shard's list of that name */
    bool held;         /* in the connection's */
    _Atomic bool gone; /* its stream is: the keeper need not read for it */
    bool asked;        /* not ours until it comes back */
    bool ended;        /* there was no memory for an answer: RST */
    uint32_t len;      /* of a message with a length: with its prefix; 0: not known yet */
    uint32_t charged;  /* bytes, to the connection */
    uint32_t due;      /* the same, of the answer */
    struct peer_id peer;
    struct shared *in, *room, *out; /* out NULL: nothing to say */
    void (*after)(struct rpc *r);   /* back on the shard, its stream gone or not; may be NULL */
    int status;                     /* the answer's, in the words of its protocol: 0 is good */
    uint32_t found;                 /* records in it */
    union {
        struct rdv_register reg; /* views into `in` */
        struct rdv_query query;
        struct bytes ns;
        struct dusk_dir_req dir; /* views into `in` and `room` */
        struct dusk_gif_req gif;
    };
};

enum rpc_next {
    RPC_ANSWERED, /* out is set, or there is none */
    RPC_ASKED,    /* comes back by rpc_on_mail */
    RPC_REFUSED,  /* RST */
    RPC_HELD,     /* rpc_reserve says no: it is served again */
};

/* stream.c hands over */
void rpc_start(struct stream *st, int svc);
bool rpc_feed(struct stream *st, struct cur *in);
void rpc_on_fin(struct stream *st);
void rpc_forget(struct stream *st); /* the stream goes */
/* Once per turn. */
void rpc_pass(struct shard *s);
static inline struct bytes rpc_request(const struct rpc *r)
{
    return shared_bytes(r->in);
}
/* To the keeper: run and failed of r->ask are set. */
void rpc_ask_keeper(struct rpc *r);
void rpc_on_mail(struct shard *s, struct mnode *n);
void rpc_answered(struct rpc *r); /* by anybody else that was asked */
/* Dusk's operators know these events from its log; elsewhere there are more of them than anybody
 * reads. */
uint8_t rpc_event_level(const struct rpc *r);
/* Before a long answer that can be cut is fetched: room for n bytes of it at most. false: so much
 * already waits for this peer, who may not read; return RPC_HELD. One answer at a time is always
 * fetched. */
MUST_USE bool rpc_reserve(struct rpc *r, size_t n);
/* What makes room has happened: the next that is held is looked at again. */
void rpc_go_on(struct conn *c);
/* Anybody's thread: how long an answer may be that can be cut. */
size_t rpc_page_room(const struct rpc *r, size_t max);
/* Anybody's thread: what is in w becomes the answer. false: no memory for it. */
bool rpc_say(struct rpc *r, struct bytes answer);

/* svc_rdv.c, svc_dusk.c: the request is whole. */
enum rpc_next svc_rdv_serve(struct rpc *r);
enum rpc_next svc_directory_serve(struct rpc *r);
enum rpc_next svc_credentials_serve(struct rpc *r);
enum rpc_next svc_gif_serve(struct rpc *r);
void svc_gif_on_mail(struct shard *s, struct mnode *n);

#endif
