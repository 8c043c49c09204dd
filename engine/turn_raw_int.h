/* engine/turn_raw_int.h: what the files of RFC 6062's data connections share, and nobody else.
 *
 *     turn_raw.c         a connection's life: connect or accept, wait, join, end
 *     turn_raw_move.c    its bytes: design.md path 1
 *     turn_raw_listen.c  relayed addresses that listen */
#ifndef SLUICE_ENGINE_TURN_RAW_INT_H
#define SLUICE_ENGINE_TURN_RAW_INT_H

#include "engine/turn_stream_int.h"

enum turn_raw_state {
    RAW_CONNECTING, /* to the peer */
    RAW_WAITING,    /* for ConnectionBind; what the peer sends stays in the kernel */
    RAW_JOINING,    /* the client's stream quiesces */
    RAW_RELAYING,
    RAW_CLOSED /* polls end, then the sockets are closed */
};

enum { RAW_CLIENT, RAW_PEER };

/* Each for just what is waited for: with one poll for everything a source that goes on sending
 * woke us for every segment while the sink was full, three times of four for nothing. */
enum raw_poll { RAW_IN, RAW_OUT, RAW_BROKEN, RAW_POLLS };

struct turn_raw_side {
    int fd; /* -1: not there yet */
    bool polled[RAW_POLLS];
    bool readable, writable; /* until a call says less than was asked for; a poll sets them again */
    bool broken;             /* POLLERR or POLLHUP was seen */
};

/* From one side to the other. */
struct turn_raw_way {
    uint16_t pipe;  /* + 1, while bytes are in it; 0: none */
    size_t in_pipe; /* -EAGAIN would not tell a full pipe from an empty socket */
    bool ended;     /* the source has sent its last */
    bool shut;      /* and the sink has been told */
    bool bulk;      /* it goes by splice */
    uint32_t reads; /* of this stretch, and their bytes: what decides about bulk */
    uint64_t bytes;
};

struct turn_raw {
    struct slab_head head;
    struct turn_shard *ts;
    struct turn_conn *conn; /* NULL: the machine knows it no more */
    uint8_t state, ops;
    bool ready, held, half;
    int error; /* of connecting, known at once; 0 */
    struct link ready_link, end_link, held_link, half_link;
    uint64_t half_ms; /* closed on one side, and nothing has come from the other since */
    size_t owed;      /* moved, and not charged to its client's bandwidth yet */
    struct turn_raw_side side[2];
    struct turn_raw_way way[2]; /* by where it comes from */
    struct chunkq late;         /* came behind the ConnectionBind: the peer gets it first */
    struct turn_stream *joining;
    uint64_t key_ip; /* of the client's quota; 0: none taken */
};

struct turn_raw_listener {
    struct slab_head head;
    struct turn_client *client;
    enum turn_family family;
    int fd;
    uint8_t ops;
    bool armed, closing, parked;
    struct turn_raw_listener *next_in_bucket; /* by fd */
    struct link parked_link;
};

struct turn_raws {
    struct slab slab, listeners;
    struct list ready, ended;
    struct list held;   /* by their clients' bandwidth */
    struct timer again; /* for those */
    struct list halves; /* by half_ms */
    struct timer linger;
    struct list parked; /* listeners that met the end of the descriptors */
    struct timer retry; /* for those */
    struct turn_raw_listener *bucket[TURN_LISTEN_BUCKETS];
    struct ring_pipe pipe[TURN_PIPES_MAX];
    uint16_t pipe_free[TURN_PIPES_MAX];
    unsigned pipes_free_n, pipes_n; /* made so far */
    bool no_pipes;                  /* the kernel refuses more: enough are never asked for again */
    uint8_t *scratch;               /* TURN_RAW_READ */
    size_t left;                    /* bytes that this pass may still move */
};

/* user_data of OP_TURN_RAW: what, beside the slot. */
enum {
    RAW_UD_POLL, /* six of them: side * RAW_POLLS + poll */
    RAW_UD_CANCEL = 2 * RAW_POLLS,
    RAW_UD_ACCEPT,
    RAW_UD_UNACCEPT,
    RAW_UD_BITS = 4,
};
static inline uint64_t raw_ud(const struct slab_head *h, unsigned what)
{
    return ud_make(OP_TURN_RAW, h->gen, h->idx << RAW_UD_BITS | what);
}

/* turn_raw.c */
struct turn_raw *turn_raw_new(struct turn_shard *ts, int fd); /* NULL: too many */
void turn_raw_wait(struct turn_raw *raw, struct turn_conn *conn);
void turn_raw_free(struct turn_raw *raw); /* one that was never armed; closes its socket */
void turn_raw_ready(struct turn_raw *raw);
void turn_raw_poll(struct turn_raw *raw, int side, enum raw_poll what);
void turn_raw_end(struct turn_raw *raw); /* by itself: the machine is told */

/* turn_raw_move.c: false: it has ended, well or badly. */
bool turn_raw_move(struct turn_raw *raw);
void turn_raw_again(struct turn_shard *ts); /* those that were held */
void turn_raw_linger(struct turn_shard *ts);
void turn_raw_pipes_drop(struct turn_raw *raw);
void turn_raw_pipes_fini(struct turn_raws *t);

/* turn_raw_listen.c */
void turn_raw_on_accept(struct turn_shard *ts, const struct ring_cqe *cqe);
void turn_raw_on_unaccept(struct turn_shard *ts, const struct ring_cqe *cqe);
void turn_raw_retry(struct turn_shard *ts);

#endif
