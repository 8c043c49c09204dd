/* proto/yamux.h: yamux /yamux/1.0.0, both roles (libp2p.md §6, §18; hashicorp yamux spec).
 * Pure: parses frames out of decrypted bytes in place, keeps stream ids and credit, writes headers.
 * It stores no payload and allocates nothing: streams are the caller's, found through a table that
 * one shard shares between its sessions.
 *
 * Shapes:  event data borrows from the fed buffer. Body bytes of one frame may come in several
 *          events, as the input was cut; the caller never sees frame boundaries as message ends.
 * Units:   bytes of Data body; credit never counts headers.
 * Errors:  YAMUX_EV_FAIL names the GoAway code to send before closing (libp2p.md §6.1.3). */
#ifndef SLUICE_PROTO_YAMUX_H
#define SLUICE_PROTO_YAMUX_H

#include "proto/cur.h"

enum {
    YAMUX_HEADER = 12,
    YAMUX_WINDOW = 262144, /* initial credit each way: a protocol constant */
    YAMUX_GRANT_MIN = 4096,
};
enum yamux_type { YAMUX_DATA = 0, YAMUX_WINDOW_UPDATE = 1, YAMUX_PING = 2, YAMUX_GO_AWAY = 3 };
enum yamux_flag { YAMUX_SYN = 1, YAMUX_ACK = 2, YAMUX_FIN = 4, YAMUX_RST = 8 };
enum yamux_code { YAMUX_NORMAL = 0, YAMUX_PROTOCOL_ERROR = 1, YAMUX_INTERNAL_ERROR = 2 };

struct yamux;

/* Embedded in the caller's stream. */
struct yamux_stream {
    struct yamux_stream *next_in_bucket;
    struct yamux *session; /* keeps; NULL = not in a session */
    uint32_t id;
    uint32_t send_credit; /* what the peer still lets us send; saturates at 2^32-1 */
    uint32_t recv_credit; /* what the peer may still send */
    bool ack_due;         /* inbound stream whose ACK has not gone out yet */
    bool syn_due;         /* outbound stream whose SYN has not gone out yet */
    bool rx_fin, tx_fin;  /* half-closes seen and sent */
};

/* Streams of all sessions of one shard, by (session, id). The bucket array is the caller's, a power
 * of two, zeroed. Peers choose their ids, so the hash is keyed: set `key` from random bytes once
 * (all zero works, but then a peer can aim at one bucket). */
struct yamux_table {
    struct yamux_stream **bucket;
    uint32_t mask;
    uint64_t key[4];
};

struct yamux {
    struct yamux_table *table; /* keeps */
    bool dialer;               /* we use odd ids */
    bool remote_gone;          /* GoAway seen: no new streams from us */
    bool failed;
    uint16_t streams;     /* live, both directions */
    uint16_t streams_max; /* of inbound ones; one more SYN is refused by RST (check 32) */
    uint16_t inbound;
    uint32_t next_id; /* of our next stream; 0 when ids are used up */
    /* The frame being read. */
    uint8_t head[YAMUX_HEADER];
    uint8_t head_n;
    uint8_t cur_type;
    uint16_t cur_flags;
    uint32_t cur_id;
    uint8_t cur_phase;               /* how far the frame is processed; yamux.c */
    uint32_t body_left;              /* of the current Data frame */
    uint32_t cur_delta;              /* of the current WindowUpdate */
    struct yamux_stream *cur_stream; /* NULL: its body is drained */
};

enum yamux_ev_kind {
    YAMUX_EV_NONE, /* input used up, nothing happened */
    YAMUX_EV_OPEN, /* the peer opened `id`: answer at once with yamux_attach or yamux_refuse, before
                      the next yamux_feed */
    YAMUX_EV_DATA, /* `data` for `stream`; recv_credit already charged */
    YAMUX_EV_CREDIT, /* `stream` may send more (send_credit already raised by `value`) */
    YAMUX_EV_FIN,    /* `stream`: the peer sends no more; comes after the last DATA */
    YAMUX_EV_RST,    /* `stream` is gone: already detached from the session */
    YAMUX_EV_PING,   /* answer with yamux_put_pong(value), exactly once, ahead of data */
    YAMUX_EV_PONG,
    YAMUX_EV_GO_AWAY, /* value = code */
    YAMUX_EV_FAIL,    /* protocol error: send GoAway(value) and close */
    YAMUX_EV_REFUSED, /* the peer opened `id` beyond streams_max: answer with yamux_put_rst(id); no
                         stream exists and its body is drained (check 32) */
};

struct yamux_ev {
    enum yamux_ev_kind kind;
    struct yamux_stream *stream;
    struct bytes data;
    uint32_t id;
    uint32_t value;
    bool body_end; /* with DATA: the frame's body is complete */
};

void yamux_init(struct yamux *y, struct yamux_table *table, bool dialer, uint16_t streams_max);
/* Reads until one event is ready or the input is used up; advances *in. Call until YAMUX_EV_NONE:
 * one frame can give several events (OPEN, then DATA, CREDIT, FIN, RST in that order), the later
 * ones with no input left. Between calls the caller may detach any stream, also the one whose body
 * is being read: the rest is drained. After FAIL every call gives FAIL. */
void yamux_feed(struct yamux *y, struct cur *in, struct yamux_ev *ev);

/* Inbound: accept the stream of the last OPEN event with the caller's memory (keeps s until the
 * stream is detached), or refuse it: the body is drained and yamux_put_rst(id) is the answer. */
void yamux_attach(struct yamux *y, struct yamux_stream *s);
void yamux_refuse(struct yamux *y);
/* Outbound: takes the next id; false after GoAway or when ids are used up. */
MUST_USE bool yamux_open(struct yamux *y, struct yamux_stream *s);
/* Removes a stream from its session (after FIN both ways, or when we reset it). Late frames for its
 * id are drained silently. Idempotent. The session keeps no list: before its own memory goes, the
 * caller detaches every stream of it. */
void yamux_detach(struct yamux_stream *s);
static inline bool yamux_attached(const struct yamux_stream *s)
{
    return s->session != NULL;
}

/* Headers. Each writes YAMUX_HEADER bytes at `at`. data charges send_credit (ASSERT: it suffices)
 * and takes along a due SYN or ACK; flags may add YAMUX_FIN, which sets tx_fin. Nothing may follow
 * a FIN but grants (ASSERT). The stream must be attached; put_rst goes by id for those that are
 * not. */
void yamux_put_data(struct yamux_stream *s, uint8_t *at, uint32_t len, uint16_t flags);
/* A bare ACK or SYN (WindowUpdate, delta 0), for streams that answer later. */
void yamux_put_ack(struct yamux_stream *s, uint8_t *at);
void yamux_put_grant(struct yamux_stream *s, uint8_t *at, uint32_t delta); /* raises recv_credit */
void yamux_put_rst(uint8_t *at, uint32_t id);
void yamux_put_ping(uint8_t *at, uint32_t value);
void yamux_put_pong(uint8_t *at, uint32_t value);
void yamux_put_go_away(uint8_t *at, uint32_t code);

#endif
