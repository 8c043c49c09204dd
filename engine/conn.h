/* engine/conn.h: one TCP connection of one shard and its layers: sniff, multistream-select, Noise,
 * yamux. Owned by its shard; control sees only `resv`, and peer and remote, which do not change
 * once resv has been posted. Freed when nothing of it is in flight: no kernel operation, no answer
 * from control. */
#ifndef SLUICE_ENGINE_CONN_H
#define SLUICE_ENGINE_CONN_H

#include "engine/limits.h"
#include "engine/mbox.h"
#include "engine/ring.h"
#include "engine/slab.h"
#include "engine/stats.h"
#include "engine/wheel.h"
#include "proto/hop.h"
#include "proto/mss.h"
#include "proto/noise.h"
#include "proto/yamux.h"

struct dial;
struct gossip_conn;
struct shard;
struct stream;

enum conn_state {
    CONN_PROXY, /* waiting for the PROXY header of a trusted balancer */
    CONN_SNIFF, /* first three bytes (libp2p.md §2) */
    CONN_MSS_SECURITY,
    CONN_NOISE,
    CONN_MSS_MUXER, /* inside the secure channel */
    CONN_MUX,
    CONN_FLUSH,  /* answers nothing more; last words on their way out */
    CONN_CLOSED, /* waiting for what is in flight */
};

/* Of a handshake only; back to its slab when the muxer starts. */
struct handshake {
    struct slab_head head;
    struct noise noise;
    uint16_t plain_n;
    uint8_t plain[MSS_FRAME_MAX + 4]; /* half a frame of the muxer's negotiation */
};

/* Reservation of this connection, shared with control through two work cells. Bits below. */
struct resv {
    struct mwork to_control, to_shard;
    /* control's */
    struct hop_slot slot;
    /* control writes before it posts RESV_ANSWER; the shard reads after it took it */
    enum hop_verdict verdict;
    enum hop_status status;
    uint64_t expire_unix_s;
    /* the shard's */
    bool used;      /* control knows this connection */
    bool asked;     /* an answer is due */
    bool held;      /* as of the last answer */
    bool gone_sent; /* RESV_GONE is posted; RESV_REMOVED ends it */
};
enum { RESV_ASK = 1, RESV_GONE = 2, RESV_DROP = 4 };          /* to control */
enum { RESV_ANSWER = 1, RESV_EXPIRED = 2, RESV_REMOVED = 4 }; /* to the shard */

struct conn {
    struct slab_head head;
    struct shard *shard;
    int fd;
    uint8_t state;
    uint8_t ops; /* kernel operations in flight */
    bool recv_armed, send_armed, cancel_armed;
    bool cancel_due; /* closed, and its shutdown failed: at the end of its owner's turn */
    bool dirty, dry; /* which of the shard's lists holds `turn_link`, `dry_link` */
    bool counted_conn, counted_ip, counted_peer; /* which quotas were taken */
    bool shut_sent;                              /* SHUT_WR done in CONN_FLUSH */
    bool across;        /* its last data went to another shard, so the next probably will */
    bool close_refused; /* presets.md, dusk: close a second after a refused RESERVE */
    bool push_sent;
    uint8_t ping_streams, ident_streams, push_streams;
    uint16_t hop_streams, stop_streams, rpc_streams;
    uint32_t rpc_bytes; /* room for requests of this connection (rpc.h) */
    uint32_t rpc_due;   /* room for answers that are being fetched */
    size_t said_bytes;  /* of answers that wait to leave (stream_tx.c) */
    struct list held;   /* requests that wait until less of both is */
    bool shaking;       /* in the shard's list of that name */
    struct link turn_link, dry_link, shake_link;
    struct link send_link; /* in the shard's list of those with a send in flight */
    uint64_t send_ms;      /* since when it is */
    struct timer timer;
    uint64_t born_ms, active_ms;
    uint64_t half_ms;                 /* since when half a record waits in `in` */
    struct link half_link;            /* in the shard's list of such connections, oldest first */
    bool half;                        /* is in that list */
    uint8_t half_chunks[CHUNK_SIZES]; /* that hold it */
    uint64_t ping_tat_ms, syn_tat_ms, refused_tat_ms, reserve_tat_ms, rpc_tat_ms, gif_tat_ms;
    uint64_t key_ip, key_subnet, key_peer; /* quota keys */
    struct netaddr remote, local;
    struct peer_id peer;
    const char *why; /* of the close, static */

    struct dial *dial; /* we made it: Noise initiator, yamux client; NULL: it came to us */
    struct handshake *hs;
    struct mss_listen mss;
    struct mss_dial asks; /* the same of a connection that we made */
    struct chunkq in;  /* ciphertext of an incomplete record, or an incomplete handshake message */
    struct chunkq ctl; /* plaintext of control frames and small answers, sealed ahead of data */
    struct chunkq tx;  /* what goes to the socket; its front may be lent to the kernel */
    struct aead_key rx_key, tx_key;
    struct yamux mux;
    struct list streams;
    struct list talking;  /* streams with something to say, and credit: served in turn */
    struct list runnable; /* legs with data, credit and no room yet: served round robin */
    uint64_t rx_bytes, tx_bytes;
    struct resv resv;
    struct gossip_conn *gossip; /* NULL: it has no part in it (svc_gossip.h) */
};

/* conn.c */
/* Whom limits take for one: an IPv4 address or /24, an IPv6 /64 or /56 (libp2p.md §16.1). */
struct netaddr conn_prefix(const struct netaddr *a, bool subnet);
void conn_accept(struct shard *s, int fd);
/* A socket that has connected for `dl`, which hears of all that becomes of it; by until_ms its
 * muxer runs. */
void conn_dialed(struct shard *s, int fd, struct dial *dl, uint64_t until_ms);
void conn_close(struct conn *c, const char *why); /* at once; the object may outlive the call */
/* Before the muxer: what was answered so far still leaves (`na` says more than a close). */
void conn_give_up(struct conn *c, const char *why);
/* Says GoAway(code) if there is a muxer, flushes, then closes. */
void conn_farewell(struct conn *c, uint32_t code, const char *why);
/* While memory is short: those that have held half a record, or what they do not read, for too long
 * are closed. */
void conn_relieve(struct shard *s);
void conn_relieve_one(struct shard *s); /* the one that has held it longest */
/* End of turn: frees the closed ones of which nothing is in flight. */
void conn_reap(struct shard *s);
void conn_on_timer(struct conn *c);
void conn_arm_recv(struct conn *c, bool empty_now);
void conn_on_recv(struct conn *c, const struct ring_cqe *cqe);
void conn_on_send(struct conn *c, int32_t res);
void conn_on_cancel(struct conn *c);
void conn_on_resv(struct conn *c);
void conn_secured(struct conn *c, const struct noise_remote *remote); /* false inside: it closed */
static inline bool conn_alive(const struct conn *c)
{
    return c->state < CONN_FLUSH;
}

/* conn_rx.c: bytes off the socket, decrypted and handed up. */
void conn_ingest(struct conn *c, struct bytes in);
void conn_half_forget(struct conn *c); /* its half record is whole, or dropped */
void conn_shake(struct shard *s);      /* start of a turn: handshakes that waited for its budget */

/* conn.c: PROXY header, then secure_feed. */
bool conn_pre_feed(struct conn *c, struct cur *in);

/* secure.c: everything before the record layer. Advances *in; false: closed, or more is needed. */
bool secure_feed(struct conn *c, struct cur *in);
bool secure_muxer_feed(struct conn *c, struct cur *plain);
void secure_dial(struct conn *c);    /* the first words of a connection that we made */
void handshake_free(struct conn *c); /* wipes it; c->hs was set */

/* conn_tx.c */
MUST_USE bool conn_write_raw(struct conn *c, struct bytes b); /* before the record layer */
/* One record of the concatenated parts into tx. false: the pool is dry. */
MUST_USE bool conn_seal(struct conn *c, const struct bytes *parts, size_t n, size_t total);
/* Appends to ctl; closes the connection when it stops reading its own answers. */
void conn_ctl(struct conn *c, struct bytes b);
void conn_mark_dirty(struct conn *c);
void conn_seal_ctl(struct conn *c);
void conn_flush(struct conn *c); /* end of turn: seal, serve, send */
static inline bool conn_unsent(const struct conn *c)
{
    return c->tx.bytes || c->ctl.bytes || c->runnable.count || c->talking.count ||
           c->state == CONN_FLUSH;
}
static inline bool conn_has_room(const struct conn *c)
{
    return c->tx.bytes < TX_HIGH;
}

/* mux.c */
/* The peer had something refused by RST. false: once too often, the connection closes. */
bool mux_forgive(struct conn *c);
void mux_feed(struct conn *c, struct cur *plain);
void mux_start(struct conn *c);

#endif
