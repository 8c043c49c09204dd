/* engine/turn_shard.h: the TURN server's part of one shard. An allocation, its client's 5-tuple,
 * its relay sockets and its streams live on the shard where it was born (design.md path 3).
 *
 *     turn_shard.c   start, stop, one pass per loop turn, timers
 *     turn_udp.c     datagrams in: trains from clients and peers
 *     turn_train.c   datagrams out: what one loop turn sends to one destination, by UDP_SEGMENT
 *     turn_act.c     carries out what proto/turn.h decides
 *     turn_mail.c    between shards
 *     turn_stream.c  clients on TCP; turn_raw.c: data connections of RFC 6062 (path 1) */
#ifndef SLUICE_ENGINE_TURN_SHARD_H
#define SLUICE_ENGINE_TURN_SHARD_H

#include "engine/chunk.h"
#include "engine/ring.h"
#include "engine/slab.h"
#include "engine/turn_host.h"
#include "engine/turn_train.h"
#include "engine/wheel.h"
#include "proto/turn.h"

struct shard;
struct turn_shard;
struct turn_stream; /* turn_stream.h */

/* A UDP socket: one of the door, or the relayed address of half an allocation. */
struct turn_sock {
    struct slab_head head;
    struct link ready; /* there may be more to read: turn_shard.ready */
    struct turn_shard *ts;
    struct turn_client *client; /* whose relayed address; NULL: the door's, or reserved */
    struct turn_egress out;
    struct netaddr local;
    bool wildcard; /* of the door: replies leave from where the request arrived */
    bool polled, closing, is_ready;
    bool errors_due;         /* the poll says that its error queue holds something */
    uint8_t burst;           /* receives asked for at once */
    uint16_t port;           /* taken from the host's ports; 0: none */
    enum turn_family family; /* of that */
    uint64_t icmp_ms;        /* when its client was last told of an ICMP error */
};

/* Where a 5-tuple's client is reached: one of the two. */
struct turn_path {
    struct turn_sock *sock;
    struct turn_stream *stream;
    bool fleeting; /* the bytes of the unit die with the call: what goes on is copied */
};

/* What the engine keeps of an allocation (turn_alloc.user). */
struct turn_client {
    struct slab_head head;
    struct turn_alloc *alloc;
    struct turn_sock *sock[TURN_FAMILIES]; /* NULL: none, or a TCP allocation's */
    int listen_fd[TURN_FAMILIES];          /* of a TCP allocation; -1 */
    bool listen_armed[TURN_FAMILIES];
    uint16_t port[TURN_FAMILIES]; /* of those: taken from the host's; 0 */
    struct turn_tuple at;         /* what `path` was looked up for */
    struct turn_path path;
    struct turn_charge charge;
    uint64_t born_ms;
    uint64_t carried_ms, carried;    /* of --turn-bps-per-allocation: this second's bytes */
    uint64_t datagrams[2], bytes[2]; /* 0: from the client, 1: to it; payload */
    uint64_t replied_ms;             /* of TURN_REPLIES_MAX: this second's */
    uint8_t replied;
    char user[48]; /* whose, printable and cut: for listings and log lines */
};

enum {
    TURN_SLOTS = 128, /* received datagrams or trains that one pass holds */
    TURN_SLOT_BYTES = 66 * 1024,
    TURN_READS_MAX = 32, /* receives per socket and pass: the next one is not kept waiting */
    TURN_SHARE = 1024,   /* datagrams of trains, likewise */
    /* Of all sockets in one pass, a millisecond or two: the shard has other doors. In datagrams of
     * a train; a receive of its own, and a message for the machine, cost as much as eight, and to
     * look for a port and have it, where few are left, as much as a quarter of a thousand. */
    TURN_PASS_WORK = 4096,
    TURN_WORK_READ = 8,
    TURN_WORK_UNIT = 8,
    TURN_WORK_BIND = 256,
    TURN_RESERVED_MAX = 256, /* ports kept under a RESERVATION-TOKEN */
    TURN_RESERVED_MS = 30000,
    TURN_DOORS_MAX = 8,      /* UDP sockets of the door, per shard */
    TURN_ICMP_MS = 1000,     /* ICMP errors told per relay socket: one in so many ms */
    TURN_AWAY_MAX = 4096,    /* 5-tuples that arrive here and live on another shard */
    TURN_AWAY_NEW_MAX = 64,  /* of those, not confirmed yet: the oldest goes first */
    TURN_LETTERS_MAX = 1024, /* to other shards, unread */
    TURN_DUE_MAX = 128,      /* expired things handled at a time, a millisecond or two of them */
    TURN_BIND_TRIES = 8,     /* ports that somebody else has */
    TURN_RELAY_RCVBUF = 262144,
    TURN_REPLIES_MAX = 16, /* to an allocation's client, in a second, that anybody could ask for */
    TURN_ERRORS_MAX = 16,  /* of a relay socket's error queue, per pass */
    TURN_ROOM = TURN_MTU + TURN_REPLY_MAX,
};

struct turn_reserved {
    bool used;
    uint8_t token[TURN_TOKEN];
    uint8_t owner[TURN_OWNER];
    struct turn_sock *sock;
    enum turn_family family;
    uint64_t until_ms;
};

struct turn_shard {
    struct shard *s;
    struct turn_host *host;
    struct turn machine;
    void *memory;
    size_t memory_bytes;
    bool on, draining, stopping;
    struct turn_sock *door[TURN_DOORS_MAX];
    unsigned doors_n;
    struct slab socks, clients;
    struct list ready;
    uint8_t *slots; /* TURN_SLOTS x TURN_SLOT_BYTES */
    unsigned slots_used;
    int work_left; /* of TURN_PASS_WORK */
    struct turn_trains trains;
    struct timer timer; /* the machine's next deadline */
    uint64_t armed_ms;  /* for which `timer` is set */
    struct turn_reserved reserved[TURN_RESERVED_MAX];
    unsigned reserved_n;
    struct turn_away *away;       /* turn_mail.c */
    struct turn_streams *streams; /* turn_stream.c */
    struct turn_raws *raws;       /* turn_raw.c */
};

/* ---- the shard's side (shard.c) ----------------------------------------------------------------
 */

MUST_USE int turn_shard_init(struct turn_shard *ts, struct shard *s, struct turn_host *host);
void turn_shard_fini(struct turn_shard *ts);
/* On the shard's thread, the ring is there: takes the door's sockets and arms them. */
void turn_shard_start(struct turn_shard *ts, const int *udp, const int *tcp, unsigned n);
/* At the start of each loop turn, before anything of TURN's: takes over a reload. */
void turn_begin(struct turn_shard *ts);
void turn_on_poll(struct turn_shard *ts, const struct ring_cqe *cqe); /* OP_TURN_POLL */
/* Once per loop turn, after completions and mail: reads what is ready, sends what that made. */
void turn_pass(struct turn_shard *ts);
bool turn_busy(const struct turn_shard *ts); /* do not sleep: sockets are not read to their end */
void turn_on_timer(struct turn_shard *ts);   /* TIMER_TURN */
void turn_drain(struct turn_shard *ts);      /* no new allocations */
void turn_stop(struct turn_shard *ts);       /* everything goes */
bool turn_ended(const struct turn_shard *ts);
void turn_assert_empty(const struct turn_shard *ts);

/* ---- between the parts -------------------------------------------------------------------------
 */

static inline struct turn_client *turn_client_of(const struct turn_alloc *a)
{
    return a->user;
}
struct turn_now turn_now(const struct turn_shard *ts);

/* turn_act.c: one message (a datagram, or one unit of a stream) from `tuple`, which `path` reaches.
 * A stream may be closed, or belong to another shard, when it returns: ask turn_stream_alive. */
void turn_on_unit(struct turn_shard *ts, const struct turn_tuple *tuple,
                  const struct turn_path *path, struct bytes unit);
/* The stream of this 5-tuple is gone: its allocation goes, or waits if it is mobile. */
void turn_on_gone(struct turn_shard *ts, const struct turn_tuple *tuple);
/* Does what *out says: after each call of the machine. `path` reaches `tuple`, whose message `in`
 * was; all three are NULL (empty) when no message asked. */
void turn_act(struct turn_shard *ts, struct turn_out *out, const struct turn_tuple *tuple,
              const struct turn_path *path, struct bytes in);
void turn_act_due(struct turn_shard *ts); /* what has expired */
void turn_count_drop(struct turn_shard *ts, enum turn_drop drop, unsigned n);

/* turn_client.c: gets what alloc's `wish` says and tells the machine. */
void turn_client_bind(struct turn_shard *ts, struct turn_out *out);
void turn_client_release(struct turn_shard *ts, struct turn_client *c, enum turn_family f);
void turn_client_end(struct turn_shard *ts, struct turn_client *c, const char *why);
void turn_reserved_expire(struct turn_shard *ts, uint64_t now_ms);
uint64_t turn_reserved_next_ms(const struct turn_shard *ts);
/* Where alloc->tuple leads now; neither: nowhere. */
const struct turn_path *turn_client_path(struct turn_shard *ts, struct turn_client *c);
/* Sends to an allocation's client, wherever it is. */
void turn_to_client(struct turn_shard *ts, struct turn_client *c, const struct turn_piece *p,
                    bool is_data);
/* May this client carry so many bytes more (--turn-bps-…)? The second counts them, or the drop. */
bool turn_afford(struct turn_shard *ts, struct turn_client *c, size_t n);
bool turn_carry(struct turn_shard *ts, struct turn_client *c, int way, size_t n);
/* The same for `count` of n bytes each, at once; false: there are caps, ask for each. */
bool turn_carry_run(struct turn_shard *ts, struct turn_client *c, int way, size_t n,
                    unsigned count);
/* Data, `count` times, each `stride` behind the one before. */
void turn_to_client_run(struct turn_shard *ts, struct turn_client *c, const struct turn_piece *p,
                        size_t stride, unsigned count);

/* turn_udp.c */
struct turn_sock *turn_sock_new(struct turn_shard *ts, int fd, const struct netaddr *local);
void turn_sock_close(struct turn_sock *k); /* the slot is free once its poll has ended */
void turn_udp_read(struct turn_sock *k);
/* The door's socket that stands for the server's end of a 5-tuple, or NULL. */
struct turn_sock *turn_door_find(struct turn_shard *ts, const struct netaddr *server);
void turn_send_run(struct turn_shard *ts, struct turn_sock *door, const struct turn_tuple *tuple,
                   const struct turn_piece *p, size_t stride, unsigned count);
void turn_send_from(struct turn_shard *ts, struct turn_sock *door, const struct turn_tuple *tuple,
                    const struct turn_piece *p);

/* turn_mail.c: a datagram for another shard. false: memory is short, or it is too long. */
MUST_USE bool turn_mail_send(struct turn_shard *ts, unsigned to, const struct turn_tuple *tuple,
                             struct bytes in);
/* A stream, with what came on it and was not looked at. Takes both; false: memory is short, and
 * they are still the caller's. */
MUST_USE bool turn_mail_stream(struct turn_shard *ts, unsigned to, const struct turn_tuple *tuple,
                               int fd, struct chunkq *late);
void turn_on_mail(struct turn_shard *ts, struct mnode *n); /* MAIL_TURN */
/* Does this 5-tuple's allocation live elsewhere? -1: no. */
int turn_away_find(struct turn_shard *ts, const struct turn_tuple *tuple);
void turn_away_put(struct turn_shard *ts, const struct turn_tuple *tuple, unsigned shard);
MUST_USE int turn_away_init(struct turn_shard *ts);
void turn_away_fini(struct turn_shard *ts);

#endif
