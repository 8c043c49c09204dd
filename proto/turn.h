/* proto/turn.h: the server of TURN (RFC 8656) and of STUN Binding: allocations, permissions,
 * channels, their lifetimes, and the answers; RFC 6062, 8016 and 5780 where limits and config ask
 * for them. Told the time, given its tables at init; it knows no socket. What only a socket can do
 * leaves as a decision in struct turn_out, at most one per call, and comes back by a call.
 *
 * Ownership: the machine keeps the memory given to turn_init. Allocations and peers' streams are
 * named by pointer while they live; what outlives a call to the kernel compares `generation`.
 * Units: monotonic ms, but for expiries inside usernames (Unix seconds).
 * Errors: a peer's message ends in an answer, or in silence with a cause to count.
 *
 * Left to the caller: relay sockets and their ports, reservations (turn.md §9.4), quotas, rate
 * limits, the bytes of streams, and handing over what is another shard's. */
#ifndef SLUICE_PROTO_TURN_H
#define SLUICE_PROTO_TURN_H

#include "proto/chandata.h"
#include "proto/list.h"
#include "proto/stun_auth.h"

enum {
    TURN_LIFETIME_MS = 600000,   /* the shortest that is granted too (RFC 8656 §7.2) */
    TURN_PERMISSION_MS = 300000, /* §9: fixed */
    TURN_CHANNEL_MS = 600000,    /* §12: fixed */
    TURN_REPLY_MAX = 512, /* room that every answer fits into, for realms up to TURN_REALM_MAX */
    TURN_REALM_MAX = 255,
    TURN_MTU = 1500,     /* a reply with PADDING fills what room there is beyond TURN_REPLY_MAX */
    TURN_SWEEP_MAX = 64, /* permissions, and channels, that a call forgets at most */
    TURN_OWNER = STUN_USERHASH_BYTES,
    TURN_TOKEN = 8,
    TURN_TICKET = 32,
    TURN_CONN_MS = 30000, /* RFC 6062 §5.2, §5.3 */
    TURN_SHARDS_MAX = 256,
    TURN_MOVE_MS = 30000, /* a client that has moved is heard on the old path for so long */
};

enum turn_transport { TURN_UDP, TURN_TCP, TURN_TLS, TURN_DTLS };
struct turn_tuple { /* the 5-tuple (turn.md §9.1) */
    struct netaddr client, server;
    enum turn_transport transport;
};

static inline bool turn_same_addr(const struct netaddr *a, const struct netaddr *b)
{
    return a->port == b->port && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}
static inline bool turn_same_tuple(const struct turn_tuple *a, const struct turn_tuple *b)
{
    return a->transport == b->transport && turn_same_addr(&a->client, &b->client) &&
           turn_same_addr(&a->server, &b->server);
}

enum turn_family { TURN_V4, TURN_V6, TURN_FAMILIES };

/* Half an allocation: its relayed transport address of one family. */
struct turn_half {
    bool live;
    uint16_t error; /* of a dual request: why this one is missing; 0 */
    struct netaddr relayed;
    uint64_t expires_ms;
};

/* A 5-tuple in the table. */
struct turn_seat {
    struct turn_seat *next_in_bucket;
    struct turn_alloc *alloc; /* NULL: free */
    struct turn_tuple tuple;
};

struct turn_alloc {
    struct link link;         /* free, or nowhere */
    struct turn_tuple tuple;  /* where data and late answers go */
    struct turn_seat seat[2]; /* of `tuple`, free while its stream is gone; and where it moves to */
    struct link by_move;      /* while it moves */
    uint64_t move_ms;         /* when it has moved, heard or not */
    bool mobile;              /* asked for by an empty MOBILITY-TICKET (RFC 8016) */
    uint32_t serial;          /* of its one valid ticket */
    uint8_t resume_tid[STUN_TID]; /* of the Refresh that spent the one before */
    uint32_t generation;          /* of this slot; another one is another allocation */
    uint32_t heap_at;
    bool pending;     /* waits for turn_on_bound */
    bool tcp;         /* relays streams (RFC 6062) */
    bool fingerprint; /* the client wants it (turn.md §5) */
    bool has_token;
    bool had[TURN_FAMILIES]; /* families that it began with: their answers to a repeated Allocate */
    uint8_t tid[STUN_TID];   /* of the Allocate, for its retransmissions (§9.8) */
    enum stun_mac reply_mac;
    enum stun_alg alg;
    struct stun_key key;
    uint8_t owner[TURN_OWNER]; /* hash of the username (§8.2) */
    uint8_t token[TURN_TOKEN];
    uint32_t lifetime_ms; /* as granted, while it is pending */
    struct turn_half half[TURN_FAMILIES];
    struct list perms, chans, conns;
    void *user; /* the caller's */
};

enum turn_conn_state {
    TURN_CONN_CONNECTING, /* waits for turn_on_connected, TURN_CONN_MS at most */
    TURN_CONN_WAITING,    /* for ConnectionBind, as long again */
    TURN_CONN_BOUND,      /* two streams, whose bytes are the caller's */
    TURN_CONN_ENDED,      /* its allocation is gone; a TURN_CLOSE will say so */
};

/* A peer's stream of a TCP allocation. Named by pointer until TURN_CLOSE or turn_conn_end; what
 * outlives a call to the kernel compares `generation`. */
struct turn_conn {
    struct link by_expiry, of_alloc; /* the first also while free or ended */
    struct turn_conn *next_in_bucket;
    struct turn_alloc *alloc; /* NULL once ended */
    enum turn_conn_state state;
    uint32_t id; /* CONNECTION-ID: nobody guesses it, and it names the shard for who has the key */
    uint32_t generation;
    uint64_t expires_ms;
    struct netaddr peer;
    uint8_t tid[STUN_TID]; /* of the Connect, and how its answer is sealed */
    enum stun_mac reply_mac;
    struct stun_key key;
    bool fingerprint;
    void *user; /* the caller's */
};

struct turn_perm; /* in turn_int.h */
struct turn_chan;

struct turn_limits {
    uint32_t allocs_max, perms_max, chans_max; /* in all; tables are sized by these */
    uint32_t conns_max;                        /* 0: no RFC 6062 */
    uint32_t alloc_perms_max, alloc_chans_max; /* of one allocation */
    uint32_t alloc_conns_max;
    uint32_t lifetime_max_ms;   /* at least TURN_LIFETIME_MS */
    bool family[TURN_FAMILIES]; /* what can be relayed */
    bool dont_fragment;         /* DONT-FRAGMENT can be honoured */
    bool compat_channels;       /* 0x5000..0x7fff, for clients of RFC 5766 */
    bool classic;               /* RFC 3489 Binding */
    bool binding_dig;           /* Binding in a datagram: dig.md §11, whatever comes with it */
    bool binding_only;          /* every other method is let lie, as if nobody were here */
    bool strict_expiry;         /* ephemeral names end mid-call too (§8.3) */
    bool mobility;              /* RFC 8016 */
};

/* The machines that share one address. What a client carries from one 5-tuple to another says whose
 * it is. */
struct turn_place {
    uint16_t shard, shards;
    uint8_t key[32]; /* random, one for all of them */
};

/* RFC 5780, for a family with two addresses. Datagrams are received on all four of ip × port. A
 * reply is then three times as long as its request, and RESPONSE-PORT sends it to another port of
 * the source: the caller's rate limit must hold for both. */
struct turn_behaviour {
    bool on;
    uint8_t ip[2][16];
    uint16_t port[2];
    uint16_t mtu; /* of the way out; 0: 1500 */
};

struct turn_config {
    struct turn_limits limits;
    struct turn_behaviour behaviour[TURN_FAMILIES];
    struct turn_place place;
    struct stun_realm realm;
    struct stun_secrets secrets; /* count 0: none */
    /* The key of a user for a->alg, or false. Borrows; called within turn_on_message. May be NULL.
     */
    bool (*find_user)(void *arg, const struct stun_auth *a, struct stun_key *key);
    /* May this be a peer? By the canonical address: IPv4 as mapped. Port 0: may any port of that
     * IP, for a permission; what is sent to one is asked about again. */
    bool (*peer_ok)(void *arg, const struct netaddr *peer);
    void *arg;
};

struct turn {
    struct turn_config config; /* limits other than the three sizes may change while running */
    bool draining;             /* new allocations are refused with 403 */
    uint8_t key[16];
    uint8_t id_key[16]; /* of CONNECTION-IDs and tokens */
    uint32_t next_id;
    uint64_t next_token;
    uint32_t allocs, perms, chans, conns; /* in use */
    struct list free_allocs, free_perms, free_chans, free_conns;
    /* The tables are touched as they are first used: a large maximum costs nothing until then. */
    struct turn_perm *perm_table;
    struct turn_chan *chan_table;
    uint32_t fresh_allocs, fresh_perms, fresh_chans; /* never used so far: from here on */
    struct list perms_by_expiry, chans_by_expiry, conns_by_expiry;
    struct list conns_ended;
    struct turn_conn **conn_bucket;
    struct list moving; /* by deadline: all take TURN_MOVE_MS */
    struct turn_alloc *slots;
    struct turn_seat **seat_bucket;
    struct turn_perm **perm_bucket;
    struct turn_chan **number_bucket, **peer_bucket;
    uint32_t alloc_mask, perm_mask, chan_mask, conn_mask;
    struct turn_alloc **heap; /* by the next half to expire */
    uint32_t heap_count;
};

size_t turn_memory_bytes(const struct turn_limits *l);
/* Keeps `memory`: that many zeroed bytes, aligned as malloc does. key: random, against aimed
 * hashing. */
void turn_init(struct turn *t, const struct turn_config *config, void *memory,
               const uint8_t key[16]);

/* Why there is no answer; for the counters. */
enum turn_drop {
    TURN_DROP_NONE,
    TURN_DROP_FOREIGN,
    TURN_DROP_MALFORMED,
    TURN_DROP_FINGERPRINT,
    TURN_DROP_CLASS, /* a response */
    TURN_DROP_METHOD,
    TURN_DROP_UNKNOWN,    /* an indication with an attribute that must be understood */
    TURN_DROP_ALLOCATION, /* none on this 5-tuple */
    TURN_DROP_PERMISSION,
    TURN_DROP_CHANNEL,
    TURN_DROP_PEER,    /* policy, family, or port 0 */
    TURN_DROP_PENDING, /* an Allocate again, while its socket is being made */
    TURN_DROP_LOST,    /* from a peer, while no path leads to the client */
    TURN_DROP_STREAM,  /* a datagram for an allocation that relays streams */
    TURN_DROP_ROOM,    /* a peer's stream: there are too many, or one from there already */
    TURN_DROPS,
};

enum turn_act {
    TURN_NOTHING,
    TURN_BIND,  /* get what `wish` says, then turn_on_bound; the allocation is pending until then */
    TURN_RELAY, /* send `data` from alloc's half of `peer`'s family */
    TURN_RELEASE, /* close the sockets of `released` halves; if `gone`, alloc has left the tables,
                     and can be read until the next call */
    TURN_CONNECT, /* from alloc's half of `peer`'s family to `peer`, then turn_on_connected */
    TURN_JOIN,    /* this stream and conn's, raw: all behind this request is for the peer, and all
                     behind the reply comes from it */
    TURN_CLOSE, /* conn's streams; it has left the tables, and can be read until the next call. The
                   reply, if there is one, goes to alloc->tuple */
    TURN_ELSEWHERE, /* another shard's: hand the message over to out->shard, and if it came on a
                       stream, the stream; one that was handed over before is closed instead */
};

struct turn_wish {
    bool family[TURN_FAMILIES]; /* none with a token: that of its port is granted */
    bool tcp;                   /* listen, and connect from the same port */
    bool
        even; /* EVEN-PORT; without `reserve` the odd port next to it stays free (CVE-2026-73215) */
    bool reserve;   /* and keep the next port for 30 s under a token */
    bool has_token; /* take the port of that token instead, of whichever family it is; 508 unless
                       it is the owner's */
    uint8_t token[TURN_TOKEN];
    struct bytes
        quota; /* whose: the id of an ephemeral name, else the name, else the hash; borrows */
};

struct turn_out {
    uint8_t *buf; /* the caller's, for the reply: TURN_REPLY_MAX at least */
    size_t cap;
    struct bytes reply; /* n == 0: none */
    uint16_t code;      /* of the error in it; 0 */
    bool detour;        /* RFC 5780: the reply goes so, not back where the request came from */
    struct netaddr from, to;
    enum turn_drop drop;
    enum turn_act act;
    struct turn_alloc *alloc; /* of the act, else of the 5-tuple if there is one */
    struct turn_conn *conn;
    struct turn_wish wish;
    struct netaddr peer;
    struct bytes data; /* borrows from the message; n may be 0: an empty datagram */
    bool dont_fragment;
    bool released[TURN_FAMILIES];
    bool gone;
    uint16_t shard;
    bool joined; /* beside any act: this message's 5-tuple leads to alloc from now on */
    bool left;   /* and `was` does no more; if it is a stream, close it */
    struct turn_tuple was;
};
static inline struct turn_out turn_out_of(void *buf, size_t cap)
{
    return (struct turn_out){ .buf = buf, .cap = cap };
}

struct turn_now {
    uint64_t ms;
    uint64_t unix_s;
};

/* A datagram, or one unit of a stream: STUN or ChannelData. Each call resets all of *out but buf
 * and cap. */
void turn_on_message(struct turn *t, struct turn_now now, const struct turn_tuple *tuple,
                     struct bytes in, struct turn_out *out);

/* What became of a wish. error: 0, or what the client is told (486, 508, 403, 300). For a wish of
 * two families one may fail: its family_error (440, 508); both failing is an error. */
struct turn_grant {
    uint16_t error;
    struct netaddr alternate; /* with 300: of the client's family, and not us (turn.md §14) */
    bool has[TURN_FAMILIES];
    uint16_t family_error[TURN_FAMILIES];
    struct netaddr relayed[TURN_FAMILIES];
    bool has_token; /* iff `reserve` was granted */
    uint8_t token[TURN_TOKEN];
};
/* A new RESERVATION-TOKEN for a grant: nobody guesses it, and whoever has the key knows its shard,
 * which is handed the Allocate that comes with it. */
void turn_token_make(struct turn *t, uint8_t out[TURN_TOKEN]);
/* The reply goes to alloc->tuple. After an error out->gone is set, as after a release. */
void turn_on_bound(struct turn *t, struct turn_now now, struct turn_alloc *alloc,
                   const struct turn_grant *grant, struct turn_out *out);

/* What a relay socket received. TURN_NOTHING with a cause, or TURN_RELAY: to alloc->tuple.client as
 * ChannelData on *channel, or as a Data indication (stun_data_head) when that is 0. */
void turn_on_peer(struct turn *t, uint64_t now_ms, struct turn_alloc *alloc,
                  const struct netaddr *peer, struct turn_out *out, uint16_t *channel);

/* What became of a TURN_CONNECT. The reply goes to conn->alloc->tuple: the client's number for it,
 * or 447, and then it has left the tables. TURN_DROP_ALLOCATION: it has ended meanwhile. */
void turn_on_connected(struct turn *t, uint64_t now_ms, struct turn_conn *conn, bool ok,
                       struct turn_out *out);
/* A peer has connected to alloc's relayed address. out->conn is it, and the reply, a
 * ConnectionAttempt, goes to alloc->tuple; or a cause, and then it is to be closed. tid: random. */
void turn_on_incoming(struct turn *t, uint64_t now_ms, struct turn_alloc *alloc,
                      const struct netaddr *peer, const uint8_t tid[STUN_TID],
                      struct turn_out *out);
/* Both of its streams are closed, or its only one: in any state. */
void turn_conn_end(struct turn *t, struct turn_conn *conn);

/* Where ChannelData on a channel goes, for who looks once for a whole train. */
enum turn_drop turn_on_channel(struct turn *t, uint64_t now_ms, const struct turn_alloc *alloc,
                               uint16_t number, struct netaddr *peer);

struct turn_alloc *turn_find(struct turn *t, const struct turn_tuple *tuple);
/* The stream of this allocation is gone, or the operator wants it gone. The caller has the sockets.
 */
void turn_delete(struct turn *t, struct turn_alloc *alloc);
/* The stream that `tuple` stood for is gone. true: its allocation is mobile, waits for its client
 * until it expires, and stays charged (CVE-2026-73216); data from peers is dropped. false: delete
 * it. */
bool turn_lost(struct turn *t, struct turn_alloc *a, const struct turn_tuple *tuple,
               struct turn_out *out);
/* Two 5-tuples lead to it: whoever keeps a shortcut past turn_on_message does without meanwhile,
 * for the first that is heard on the new one ends the old one. */
static inline bool turn_is_moving(const struct turn_alloc *a)
{
    return a->seat[1].alloc != NULL;
}
/* One thing that is due: true, with act TURN_RELEASE or TURN_CLOSE, or with `left` and no act at
 * the end of a move; false when there is none left. The streams of an allocation that has gone are
 * due at once. Permissions and channels go without a word, a bounded number per call: the deadline
 * then lies in the past, so that the caller comes straight back. */
bool turn_expire(struct turn *t, uint64_t now_ms, struct turn_out *out);
uint64_t turn_deadline_ms(const struct turn *t); /* UINT64_MAX: none */

#endif
