/* engine/turn_stream_int.h: what the files of TURN's streams share, and nobody else.
 *
 *     turn_stream.c         the table, timers, closing, a pass
 *     turn_stream_accept.c  listeners; who may connect
 *     turn_stream_rx.c      bytes in, cut into units
 *     turn_stream_tx.c      units out
 *     turn_stream_leave.c   to another shard, or to a peer (ConnectionBind) */
#ifndef SLUICE_ENGINE_TURN_STREAM_INT_H
#define SLUICE_ENGINE_TURN_STREAM_INT_H

#include "engine/limits.h"
#include "engine/shard.h"
#include "engine/turn_stream.h"

enum turn_stream_state {
    STREAM_SNIFF, /* nothing has come yet */
    STREAM_OPEN,  /* STUN and ChannelData */
    STREAM_LEAVE, /* is no client any more: quiesces, then its socket goes elsewhere */
    STREAM_CLOSED /* waits for what is in flight */
};

/* The beginning of a unit, kept until it is whole. */
struct turn_part {
    uint8_t *p; /* NULL: none */
    size_t cap, n;
    struct chunk *chunk; /* p lies in it, or */
    uint32_t big;        /* in this long buffer, + 1 */
    uint64_t since_ms;
    struct link link; /* among those with a chunk, or with a long buffer: oldest first */
};

struct turn_stream {
    struct slab_head head;
    struct turn_shard *ts;
    int fd; /* -1: given away */
    uint8_t state, ops;
    bool recv_armed, send_armed, cancel_armed;
    bool cancel_due; /* closed, and its shutdown failed */
    bool counted_ip;
    bool dirty, dry, sending;
    bool paused; /* does not read: its client does not, either, or has sent much at once */
    bool hashed; /* is in the table: turn_on_gone hears when it is closed */
    bool slow;   /* to be closed: from within a send nobody expects that */
    struct link turn_link, dry_link, send_link, end_link, late_link, slow_link, gone_link;
    uint64_t send_ms, client_ms; /* since when the send is in flight; when it last had a client */
    struct timer timer;
    struct turn_tuple tuple;
    struct turn_stream *next_in_bucket;
    uint64_t key_ip;
    struct turn_part part;
    struct chunkq tx;
    struct chunkq late;   /* came, and waits: for its turn, or to leave with the socket */
    bool is_late;         /* in the list of those that wait for their turn */
    unsigned to;          /* leaving: for this shard, or */
    struct turn_raw *raw; /* for this data connection */
};

struct turn_streams {
    struct slab slab;
    struct turn_stream **bucket;
    uint32_t buckets; /* a power of two */
    uint8_t key[16];
    struct listener listener[TURN_DOORS_MAX];
    unsigned listeners_n;
    struct list dirty, dry, late, ended;
    struct list gone;     /* of those: turn_on_gone has not heard of it */
    struct list slow;     /* to be closed */
    struct list sending;  /* oldest first */
    struct list parts[2]; /* in chunks, in long buffers */
    uint8_t *big;         /* TURN_BIGS x FRAME_MAX */
    uint32_t big_free[TURN_BIGS], big_n;
    struct send_args *sends;
    unsigned sends_n;
    int work_left; /* of TURN_STREAM_WORK */
    bool stopping;
};

/* turn_stream.c */
struct turn_stream *turn_stream_new(struct turn_shard *ts, int fd); /* NULL: too many */
void turn_stream_enter(struct turn_stream *st);                     /* into the table */
void turn_stream_unhash(struct turn_stream *st);
void turn_stream_arm_recv(struct turn_stream *st, bool empty_now);
void turn_stream_pause(struct turn_stream *st); /* what has come already still comes */
void turn_stream_resume(struct turn_stream *st);
void turn_stream_at(struct turn_stream *st, uint64_t at_ms); /* look at it no later than then */
void turn_streams_tell_gone(struct turn_shard *ts);
void turn_stream_uncount(struct turn_stream *st);

/* turn_stream_accept.c */
void turn_stream_on_accept(struct turn_shard *ts, const struct ring_cqe *cqe);
void turn_stream_listeners_close(struct turn_shard *ts);
MUST_USE bool turn_stream_admit(struct turn_stream *st);

/* turn_stream_rx.c */
void turn_stream_on_recv(struct turn_stream *st, const struct ring_cqe *cqe);
void turn_stream_feed(struct turn_stream *st, struct bytes in);
void turn_stream_late_pass(struct turn_shard *ts);
void turn_stream_part_drop(struct turn_stream *st);

/* turn_stream_tx.c */
void turn_stream_on_send(struct turn_stream *st, int32_t res);
void turn_stream_flush_all(struct turn_shard *ts);
void turn_stream_relieve(struct turn_shard *ts);
void turn_stream_drop_tx(struct turn_stream *st);

/* turn_stream_leave.c */
void turn_stream_join(struct turn_stream *st, struct turn_raw *raw);
void turn_stream_leave_try(struct turn_stream *st);             /* goes, if nothing is in flight */
bool turn_stream_keep(struct turn_stream *st, struct bytes in); /* behind `late` */

/* turn_raw.c */
bool turn_raw_on_timer(struct turn_shard *ts, struct timer *t); /* false: not one of its */
/* The socket of a stream, and what came behind its ConnectionBind. Takes both. */
void turn_raw_take(struct turn_raw *raw, int fd, struct chunkq *late, uint64_t key_ip);
void turn_raw_lost(struct turn_raw *raw); /* the stream that was to join it */

#endif
