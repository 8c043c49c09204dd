/* engine/turn_train.h: datagrams on their way out. What one pass sends from one socket to one
 * destination is gathered and leaves as one UDP_SEGMENT send: equal lengths, the last one may be
 * shorter (io_uring.md §10.3). Order per destination is kept; payload is borrowed until the flush.
 */
#ifndef SLUICE_ENGINE_TURN_TRAIN_H
#define SLUICE_ENGINE_TURN_TRAIN_H

#include "engine/ring.h"

enum {
    TRAINS_MAX = 256,           /* open at once; one more flushes all */
    TRAIN_SEGMENTS_MAX = 128,   /* UDP_MAX_SEGMENTS, since Linux 6.9 */
    TRAIN_SEGMENTS_OLD = 64,    /* before */
    TRAIN_BYTES_MAX = 65000,    /* IPv4: 65507, IPv6: 65487 less extension headers */
    TRAIN_PIECES_MAX = 4096,    /* runs of like datagrams of all open trains */
    TRAIN_HEADS_BYTES = 262144, /* of what is copied: headers, replies, what streams bring */
    TRAIN_COPIED_MAX = 16384,   /* longer data is not copied: the caller flushes */
    TRAIN_COPY_MAX = 256,       /* short ones are cheaper copied together than gathered */
    TRAIN_FLAT_BYTES = TRAIN_SEGMENTS_MAX * TRAIN_COPY_MAX,
    TRAIN_NARROWS = 256,       /* addresses whose path took no train, a power of two */
    TRAIN_NARROW_USES = 32768, /* datagrams that go alone before such a path is asked again */
    TRAIN_PLAIN_AFTER = 16,    /* refusals, and never a train that went: this host cannot */
};

/* A socket's way out. */
struct turn_egress {
    int fd;
    bool v6, df;
    struct netaddr too_big; /* the last destination of one that the way out was too narrow for: the
                               kernel's own error does not tell its port */
};

/* One datagram. */
struct turn_piece {
    struct bytes head; /* copied; may be empty */
    struct bytes data; /* borrowed until trains_flush, unless `copy` */
    uint8_t pad;       /* zeroes behind it, 0..3 */
    bool copy, df;
};

/* By the other end's IP, not by the socket: on the door's all clients would go singly for one whose
 * path is narrow, and he can make it so by ICMP. A cache: a forgotten one costs a refused call. */
struct train_narrow {
    uint8_t ip[16];
    uint16_t segment_max; /* longer segments go alone */
    uint16_t uses;        /* left; 0: free */
};

struct train; /* turn_train.c */
struct train_piece;
struct turn_trains {
    struct train *train;
    struct train_piece *piece;
    uint8_t *heads, *flat;
    size_t heads_used;
    unsigned trains_n, pieces_n;
    uint16_t index[512]; /* hash of egress and destination: its newest train + 1 */
    struct train_narrow narrow[TRAIN_NARROWS];
    bool any_narrow, worked; /* worked: a train has gone */
    bool long_worked;        /* one of more than TRAIN_SEGMENTS_OLD */
    unsigned refusals;       /* before that */
    unsigned segments_max;   /* of this kernel, as far as is known */
    struct stats *stats;
};

MUST_USE int trains_init(struct turn_trains *t, struct stats *stats);
void trains_fini(struct turn_trains *t);
/* `count` datagrams like `in`, the data of each `stride` behind that of the one before. local: the
 * address to send from, or NULL. */
void trains_add_run(struct turn_trains *t, struct turn_egress *e, const struct netaddr *to,
                    const uint8_t *local, const struct turn_piece *in, size_t stride,
                    unsigned count);
static inline void trains_add(struct turn_trains *t, struct turn_egress *e,
                              const struct netaddr *to, const uint8_t *local,
                              const struct turn_piece *in)
{
    trains_add_run(t, e, to, local, in, 0, 1);
}
/* Sends everything. The egresses must be alive: call it before a socket is closed. */
void trains_flush(struct turn_trains *t);

#endif
