/* engine/stream.h: one yamux stream of a connection and the service it speaks. Owned by the shard.
 */
#ifndef SLUICE_ENGINE_STREAM_H
#define SLUICE_ENGINE_STREAM_H

#include "engine/conn.h"
#include "engine/shared.h"

struct circuit;

enum stream_role {
    ST_NEGOTIATE, /* inbound, multistream-select */
    ST_HOP,       /* waiting for the HopMessage */
    ST_HOP_WAIT,  /* RESERVE asked of control */
    ST_CIRCUIT,   /* a leg: source's hop stream after CONNECT, or target's stop stream after OK */
    ST_STOP,      /* outbound: negotiating and waiting for STATUS */
    ST_PING,
    ST_PUSH,       /* inbound identify/push */
    ST_PUSH_OUT,   /* ours: negotiating, then one message */
    ST_RPC,        /* gathering a request (rpc.h) */
    ST_RPC_WAIT,   /* it is with whoever answers, or its answer is on its way */
    ST_GOSSIP_IN,  /* a peer's RPCs (svc_gossip.h) */
    ST_GOSSIP_OUT, /* ours to it */
    ST_LINGER,     /* we said all and FIN; waiting for theirs */
};

enum stream_count {
    COUNT_NONE,
    COUNT_HOP,
    COUNT_PING,
    COUNT_IDENT,
    COUNT_PUSH,
    COUNT_STOP,
    COUNT_RPC
};

/* Bytes that wait for credit or room, behind others of the same stream. */
struct saying {
    struct slab_head head;
    struct link link; /* in stream->out */
    struct shared *bytes;
    uint32_t off;
};

struct rpc;

struct stream {
    struct slab_head head;
    struct yamux_stream y;
    struct conn *conn;
    struct link link; /* in conn->streams */
    struct timer timer;
    uint8_t kind;
    uint8_t side;    /* of the circuit */
    uint8_t counted; /* enum stream_count: which per-connection count it holds */
    struct mss_listen mss;
    struct mss_dial dial;
    bool agreed;      /* outbound: the protocol's name is settled */
    struct chunkq in; /* an incomplete message */
    bool has_part;    /* of one: in the shard's list of those, oldest first */
    struct link part_link;
    uint32_t consumed; /* received, done with, not granted again yet */
    uint32_t push_bytes;
    struct circuit *circuit;
    struct rpc *rpc;
    struct list out; /* sayings, oldest first */
    size_t out_bytes;
    bool out_end; /* FIN behind them */
    bool talking; /* in the connection's list of that name */
    struct link talk_link;
};

struct stream *stream_new(struct conn *c, enum stream_role kind);
/* Takes one of the connection's places for such streams; false: all are taken. */
bool stream_count(struct stream *st, enum stream_count what, unsigned max);
void stream_uncount(struct stream *st); /* gives it back; stream_free does so too */
/* Detaches, uncounts and frees. Says nothing to the peer. */
void stream_free(struct stream *st);
void stream_reset(struct stream *st);  /* RST and free; a leg must be let go first */
void stream_finish(struct stream *st); /* FIN; frees if theirs came, else lingers */
void stream_on_data(struct stream *st, struct bytes data);
void stream_on_fin(struct stream *st);
void stream_on_rst(struct stream *st); /* already detached */
void stream_on_credit(struct stream *st);
void stream_on_timer(struct stream *st);
/* A small answer in one Data frame; RSTs the stream when its credit does not suffice. */
void stream_write(struct stream *st, struct bytes b, bool fin);
/* stream_tx.c: longer ones, which wait for credit and for room. Takes the caller's reference;
 * false: there is no place for it, nothing is changed, and the reference is still the caller's.
 * Bounding out_bytes is the caller's, too. */
MUST_USE bool stream_say(struct stream *st, struct shared *b);
void stream_say_end(struct stream *st); /* when all is said: FIN, and as stream_finish */
void stream_hush(struct stream *st);    /* forgets what has not been said */
void stream_talk_on(struct stream *st); /* there is credit again */
void stream_talk(struct conn *c);       /* a connection has room: a bounded share of its egress */
/* n bytes of what the peer sent need no memory of ours any more: reopen its window in steps. */
void stream_consumed(struct stream *st, size_t n);

/* svc_hop.c: the addresses that this connection's peer is told, with or without /p2p. `own` is room
 * for one; `out` for CONFIG_ANNOUNCE_MAX. */
size_t conn_addresses(const struct conn *c, bool p2p, struct maddr *own, struct bytes *out);

/* svc_*.c: fed with contiguous bytes; advance *in past what they used. false: st is gone. */
bool svc_hop_feed(struct stream *st, struct cur *in);
void svc_hop_answer(struct conn *c); /* control has answered: tell every waiting stream */
void svc_hop_status(struct stream *st, enum hop_status status);
bool svc_stop_feed(struct stream *st, struct cur *in);
void svc_ident_serve(struct stream *st);
bool svc_push_feed(struct stream *st, struct cur *in);
void svc_push_start(struct conn *c); /* tell the peer that hop is gone (drain) */
bool svc_push_out_feed(struct stream *st, struct cur *in);
bool svc_ping_feed(struct stream *st, struct cur *in);

enum svc_id {
    SVC_HOP = 1,
    SVC_IDENT,
    SVC_PUSH,
    SVC_PING,
    SVC_RDV, /* the next four: rpc.h */
    SVC_DIRECTORY,
    SVC_CREDENTIALS,
    SVC_GIF,
    SVC_GOSSIP,
};

#endif
