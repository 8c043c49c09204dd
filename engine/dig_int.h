/* engine/dig_int.h: what the files of the DIG door share, and nobody else.
 *
 *     dig_host.c     what all shards share; hashes of registrants
 *     dig_ban.c      strikes and bans by source (dig.md §14)
 *     dig_shard.c    a shard's part: memory, completions, mail, a pass
 *     dig_conn.c     a connection's life: accept, deadlines, closing
 *     dig_rx.c       bytes in: PROXY, TLS, HTTP head, WebSocket, whole messages
 *     dig_msg.c      what a message means on its shard
 *     dig_route.c    to another client: here, or by mail
 *     dig_tx.c       queues and sends
 *     dig_http.c     requests that are no upgrade
 *     dig_control.c  registry, presence, lists (control's thread)
 *     dig_map.c      where registrants are (control's thread)
 *     dig_pages.c    statistics and pages (control's thread)
 *     dig_list.c     rows for sluicectl */
#ifndef SLUICE_ENGINE_DIG_INT_H
#define SLUICE_ENGINE_DIG_INT_H

#include "engine/config.h"
#include "engine/control.h"
#include "engine/dig.h"
#include "engine/shard.h"
#include "engine/tls.h"
#include "proto/dig.h"
#include "proto/dig_reg.h"
#include "proto/dig_scan.h"
#include "proto/pex.h"
#include "proto/ws.h"

enum {
    DIG_PROXY_MS = 5000,  /* for a PROXY v2 header (dig.md §13) */
    DIG_LINGER_MS = 2000, /* between our Close and close(2): else a reset takes it along */
    DIG_FLUSH_MS = 30000, /* for who has ended to read what is queued, however slowly it goes on */
    DIG_PUNCH_BURST = 16, /* coordinates, by requester and by target (D10); then one per */
    DIG_PUNCH_MS = 500,
    DIG_HOLD_MS = 2000,   /* a sender waits for room in its target's queue, then loses a message */
    DIG_PROBE_MS = 5000,  /* for an incumbent to show life (dig.md §21 "Reconnect lock-out") */
    DIG_LATE_MAX = 65536, /* unread input while the connection waits; then its receive pauses */
    DIG_MESSAGES_MAX = 256,     /* of one connection, before others have their turn */
    DIG_WORK = 4096,            /* of all of a shard's in one pass */
    DIG_TOLD_WORK = 8,          /* who are told by a broadcast, or left out, for one of DIG_WORK */
    DIG_CONTROL_ROOM = 65536,   /* of replies beyond the queue's bound; then it does not read */
    DIG_PRESENCE_MAX = 1 << 20, /* unsent before presence is left out for a slow reader */
    DIG_PART_PART = 4,          /* of the pool that messages being received may fill */
    DIG_OUTS = 1 << 20,         /* queue entries of a shard: address space until used */
    DIG_TLS_READ = 16384,
    DIG_SHAKES = 8,        /* steps of handshakes with public key work, 0.4 ms each, in one pass */
    DIG_WIRE_HIGH = 65536, /* ciphertext that waits; plaintext behind it stays plain */
    DIG_WIRE_MAX = 4 * DIG_WIRE_HIGH, /* more than sealing makes */
};
#define DIG_NET_ALL UINT32_MAX /* news for every registrant; no enumerator: those are ints */

/* Beside a slot, not in it: other shards add to it while the slot's owner comes and goes. */
struct dig_gate {
    _Atomic uint32_t bytes; /* of messages queued, or on their way by mail */
    _Atomic uint32_t messages;
    _Atomic bool stalled;         /* somebody waited in vain; until something is sent again */
    _Atomic uint64_t seen_unix_s; /* last data message of its registrant */
};

/* One entry of a send queue: a chunk of bytes, or part of a shared buffer. */
struct dig_out {
    struct slab_head head;
    struct dig_out *next;
    struct chunk *chunk;
    struct shared *shared;          /* or this */
    uint32_t off, n;                /* of `shared`; a chunk says its own */
    uint32_t gated, gated_messages; /* of the slot's gate, given back when it is sent */
};

struct dig_queue {
    struct dig_out *first, *last;
    size_t bytes;
};

/* For whom a message is: a connection, under the name that it was found by. It may have another
 * name, on another network, by the time that a letter or a message held back gets there. */
struct dig_to {
    struct home at;
    uint64_t name; /* a hash of network and id */
};

enum dig_state {
    DIG_PROXY, /* a balancer's header first */
    DIG_SHAKE, /* TLS handshake */
    DIG_HEAD,  /* request head */
    DIG_WS,    /* messages */
    DIG_PAGE,  /* a request for a page is being answered */
    DIG_FLUSH, /* says no more than what is queued, hears nothing */
    DIG_LINGER,
    DIG_CLOSED, /* waits for what is in flight */
};

enum dig_ask_kind {
    DIG_ASK_REGISTER,
    DIG_ASK_LEAVE,
    DIG_ASK_PEERS,
    DIG_ASK_PEX,
    DIG_ASK_DHT,
    DIG_ASK_PAGE,
};

/* A question to control, and its answer. The node travels there and back; meanwhile control may
 * read the connection's identity, which the shard leaves alone. */
struct dig_ask {
    struct mnode node;
    uint8_t kind;         /* enum dig_ask_kind */
    uint8_t code;         /* the answer to REGISTER: 0, or why not (dig.md §5.10); else not 0:
                           * there was no memory for the answer */
    const char *why;      /* of LEAVE, for the log */
    struct shared *reply; /* frames, or a page; given to the shard; may be NULL */
    union {
        struct {
            uint32_t version;
            uint8_t addrs_n, id_n, net_n;
            char id[DIG_NAME_MAX], net[DIG_NAME_MAX];
            struct netaddr addrs[DIG_DIALABLE_MAX];
            struct dig_source source;
            uint32_t net_index; /* answers */
            uint64_t join_seq, connected_unix_s;
        } reg;
        struct {
            bool named;
            uint8_t n; /* UINT8_MAX: longer than any network's */
            char name[DIG_NAME_MAX];
        } peers;
        struct pex_frame pex;
        struct {
            struct chunkq records; /* struct dig_record, cut anywhere */
            bool truncated;
        } dht;
        struct {
            uint8_t page; /* enum dig_page */
            bool full;    /* whole ids */
        } page;
    } u;
};

struct dig_conn {
    struct slab_head head;
    struct dig_shard *ds;
    int fd;
    uint8_t state, ops;
    bool recv_armed, send_armed, cancel_armed, cancel_due;
    bool counted_ip;
    bool dirty, dry, paused, is_late, is_shaking, is_held, in_net;
    bool asking;     /* `ask` is with control */
    bool registered; /* control knows it: must be told when it goes */
    bool verified;   /* by certificate: `id` is its peer_id */
    bool trusted;    /* came through a balancer: its source is not to blame */
    bool probing;
    bool in_parts;
    bool goodbye; /* TLS was told that it is over */
    bool drain_due;
    bool leave_due; /* when the answer is there, control hears that it left */
    struct link turn_link, dry_link, send_link, end_link, late_link, hold_link, net_link, part_link;
    struct timer timer;
    struct netaddr remote, observed; /* of the socket; of the client */
    uint64_t key_ip;                 /* quota key, and who it is to bans */
    uint64_t born_ms, any_ms, data_ms, send_ms, hold_ms, probe_ms, drain_ms, end_ms;
    uint64_t connected_unix_s;
    uint64_t messages_tat_ns, bytes_tat_ns, control_tat_ns, life_bytes;
    union {
        struct http_head http; /* DIG_HEAD */
        struct ws_rx ws;
    };
    struct chunkq part; /* of a message, or a head, that is not whole */
    struct chunkq late; /* plaintext that came while it waited; as it came while is_shaking */
    struct dig_queue tx;
    struct tls *tls;
    struct chunkq wire; /* ciphertext */
    /* Who it is. */
    uint8_t id_n, net_n;
    char id[DIG_NAME_MAX], net[DIG_NAME_MAX];
    char cert[TLS_PEER_ID + 1];
    const char *why;     /* it left */
    uint64_t id_hash;    /* of the id alone, for `exclude` */
    uint64_t name;       /* of both, as in struct dig_to */
    uint64_t net_key[2]; /* hash of the network, mixed into those of targets */
    uint32_t net_index, version;
    uint64_t join_seq;
    struct dig_ask ask;
    /* A message that waits for room: whole frame, and for whom. */
    struct chunkq held;
    struct dig_to held_for;
};

/* A message for another shard's client, in a chunk of the sender's. */
struct dig_letter {
    struct mnode node;
    struct chunk *chunk; /* this one; more may hang on its `next` */
    struct dig_to to;
    uint32_t n;
};

/* From control, or a broadcaster, to all shards: frames for a network, or for one connection. */
enum dig_news_kind { DIG_NEWS_NET, DIG_NEWS_ONE, DIG_NEWS_PROBE, DIG_NEWS_EVICT };
struct dig_post {
    struct mnode node;
    struct dig_news *news;
};
struct dig_news {
    enum dig_news_kind kind;
    uint32_t net;    /* or DIG_NET_ALL */
    struct home one; /* for whom; of a broadcast: who said it and does not hear it */
    bool except_one;
    bool data;             /* a broadcast: charged to queues like messages */
    struct shared *frames; /* dropped with the news */
    /* Presence: frame i of n begins at off[i] and tells of event base + i. Who joined with event e
     * hears what came after it. n == 0: all of it for everybody. */
    uint64_t base;
    uint32_t n;
    uint32_t *off;
    /* A broadcast's exclude list: hashes of ids, open addressing, 0 = free. */
    uint64_t *exclude;
    uint32_t exclude_mask;
    struct shared *mem;    /* holds this object */
    _Atomic uint32_t left; /* shards that have not read it */
    struct dig_post post[];
};

struct dig_shard {
    struct shard *s;
    struct dig_host *host;
    struct slab slab, outs;
    struct listener listener[LISTENERS_MAX];
    unsigned listeners_n;
    struct list dirty, dry, late, held, ended, sending, parts;
    struct list shaking; /* by late_link: their handshakes go on in turn */
    size_t part_bytes;
    struct timer held_timer; /* who waits for clients of other shards */
    struct list *net;        /* members by the network's index; conns_max of them */
    uint32_t nets_max, nets_used;
    uint8_t *join; /* a message, or a request head, in one piece */
    size_t join_bytes;
    uint8_t *plain; /* DIG_TLS_READ */
    void *json;     /* the pool of JSON that is parsed */
    size_t json_bytes;
    struct tls_pool *tls_pool;
    struct tls_server *tls; /* NULL until the first handshake */
    struct send_args *sends;
    unsigned sends_n;
    int work_left, shakes_left;
    bool draining;
};

/* dig_host.c */
void dig_hash_network(const struct dig_host *h, struct bytes network, uint64_t out[2]);
struct peer_id dig_home_key(const struct dig_host *h, const uint64_t network[2], struct bytes id);
uint64_t dig_hash_id(const struct dig_host *h, struct bytes id); /* never 0 */
static inline uint64_t dig_name_of(const struct peer_id *home_key)
{
    uint64_t name;

    memcpy(&name, home_key->b, sizeof(name));
    return name;
}
static inline struct dig_gate *dig_gate_of(const struct dig_host *h, struct home at)
{
    return &h->gate[at.shard][at.slot];
}

/* dig_ban.c */
struct dig_ban *dig_ban_new(uint32_t threshold, uint64_t window_ms, uint64_t ban_ms);
void dig_ban_free(struct dig_ban *b);
void dig_strike(struct dig_ban *b, uint64_t source, uint64_t now_ms); /* any thread */
bool dig_banned(struct dig_ban *b, uint64_t source, uint64_t now_ms);

/* Most queue entries, or most of the memory of what goes to many, lie with who does not read: the
 * rest is for answers. */
static inline bool dig_shared_high(const struct dig_shard *ds)
{
    return ds->outs.live > DIG_OUTS / 16 * POOL_HIGH || shared_past(&ds->host->shared, POOL_HIGH);
}

/* dig_conn.c */
void dig_accept(struct dig_shard *ds, int fd);
MUST_USE bool dig_admit(struct dig_conn *c); /* by where it comes from */
void dig_arm_recv(struct dig_conn *c, bool empty_now);
void dig_pause(struct dig_conn *c);
void dig_resume(struct dig_conn *c);
void dig_deadlines(struct dig_conn *c);
void dig_end(struct dig_conn *c, uint16_t code, const char *why); /* Close, flush, linger */
void dig_finish_after(struct dig_conn *c, const char *why); /* flush, linger, without a Close */
void dig_finish(struct dig_conn *c);                        /* all is sent */
void dig_close(struct dig_conn *c, const char *why);        /* at once */
/* n turns, or bytes, at per_s: a second's worth deep. false: too much, and nothing was taken. */
bool dig_spend(uint64_t *tat_ns, uint64_t now_ms, uint64_t n, uint64_t per_s);
void dig_blame(struct dig_conn *c); /* a strike for its source */
void dig_on_due(struct dig_conn *c);
void dig_reap(struct dig_shard *ds);
static inline bool dig_alive(const struct dig_conn *c)
{
    return c->state < DIG_FLUSH;
}
static inline struct home dig_home_of(const struct dig_conn *c)
{
    return (struct home){ c->head.idx, c->head.gen, (uint8_t)c->ds->s->id };
}

/* dig_rx.c */
void dig_on_recv(struct dig_conn *c, const struct ring_cqe *cqe);
void dig_greet(struct dig_conn *c);
void dig_late_pass(struct dig_shard *ds);
void dig_shake_pass(struct dig_shard *ds);
void dig_go_on(struct dig_conn *c); /* what it waited for is there */
void dig_part_drop(struct dig_conn *c);
static inline bool dig_waits(const struct dig_conn *c)
{
    return c->asking || c->is_held;
}

/* dig_msg.c: one whole message, mutable. */
void dig_on_message(struct dig_conn *c, struct bytes text);
void dig_on_answer(struct dig_conn *c);
void dig_error(struct dig_conn *c, unsigned code);
void dig_ask(struct dig_conn *c, enum dig_ask_kind kind);
void dig_leave(struct dig_conn *c, const char *why);

/* dig_http.c */
void dig_on_request(struct dig_conn *c, const struct http_head *h);
void dig_on_page(struct dig_conn *c);

/* dig_route.c */
bool dig_find(struct dig_conn *c, struct bytes id, struct dig_to *to);
/* Delivers the concatenated parts, one frame, or holds the sender until there is room. */
void dig_deliver(struct dig_conn *from, struct dig_to to, const struct bytes *parts, size_t n);
void dig_held_pass(struct dig_shard *ds);
void dig_unhold(struct dig_conn *c);
void dig_on_letter(struct dig_shard *ds, struct mnode *n);
void dig_on_news(struct dig_shard *ds, struct mnode *n);
struct dig_news *dig_news_new(struct dig_host *h, unsigned shards, uint32_t offs, uint32_t exclude);
void dig_news_drop(struct dig_news *n); /* by one of `left` */
void dig_broadcast(struct dig_conn *from, const struct dig_scan *m);

/* dig_tx.c */
/* A reply: false: closed, for want of memory or because it does not read. */
bool dig_send(struct dig_conn *c, const struct bytes *parts, size_t n);
bool dig_send_text(struct dig_conn *c, struct bytes json); /* one text frame */
bool dig_send_shared(struct dig_conn *c, struct shared *sh, uint32_t off, uint32_t n,
                     uint32_t gated); /* takes a reference of its own */
/* A message, its bytes charged to the gate already. false: the pool is dry. */
bool dig_queue_bytes(struct dig_conn *c, const struct bytes *parts, size_t n, size_t total,
                     uint32_t gated);
bool dig_queue_chunks(struct dig_conn *c, struct chunk *first, uint32_t gated); /* takes them */
void dig_tx_drop(struct dig_conn *c);
void dig_on_send(struct dig_conn *c, int32_t res);
void dig_flush_all(struct dig_shard *ds);
void dig_relieve(struct dig_shard *ds);
bool dig_tls_out(void *arg, struct bytes ciphertext);
static inline size_t dig_unsent(const struct dig_conn *c)
{
    return c->tx.bytes + c->wire.bytes;
}
/* What it was answered, and has not read: messages of others are not its doing, and it is heard
 * while they wait. TLS has answers of its own (KeyUpdate), which are behind no bound of ours. */
static inline size_t dig_owed(const struct dig_conn *c)
{
    const struct dig_gate *g = dig_gate_of(c->ds->host, dig_home_of(c));
    size_t gated = atomic_load_explicit(&g->bytes, memory_order_relaxed);
    size_t wire = c->wire.bytes > DIG_WIRE_MAX ? c->wire.bytes : 0;

    return (c->tx.bytes > gated ? c->tx.bytes - gated : 0) + wire;
}

/* dig_pages.c */
enum dig_page { DIG_PAGE_STATS, DIG_PAGE_DHT, DIG_PAGE_MAP, DIG_PAGES };

#endif
