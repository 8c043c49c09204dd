/* proto/gossip_hub.h: the gossip hub of one shard (dusk.md §10): who subscribed to what, what was
 * seen, what may still be asked for, what waits for whom. Pure: it is told the time, its tables are
 * the caller's, and payloads are handles that it keeps and drops by the caller's calls.
 *
 * A new valid message goes at once to every subscriber of its topic but its sender and its author
 * (§10.3 "DIV"); we are in nobody's mesh and graft nobody, because the Dusk client takes its relay
 * for an explicit peer and answers a GRAFT with PRUNE. Who has no room loses the oldest, and is
 * told by IHAVE what it lost.
 *
 * Budgets, each by messages and bytes (§10.3 "Load warning"): of who brings a message, before it is
 * hashed and before it is verified, so that a forged `from` costs its author nothing; of its author
 * and its topic, once it is verified (who brings old messages of others again pays for that too);
 * of each receiver, and of all. The last half of a topic's budget is for authors who have used less
 * than half of their own. Units: ms; bytes on the wire with their prefix. */
#ifndef SLUICE_PROTO_GOSSIP_HUB_H
#define SLUICE_PROTO_GOSSIP_HUB_H

#include "proto/gossip.h"
#include "proto/list.h"

enum {
    GOSSIP_HEARTBEAT_MS = 1000, /* as the client's; the original's ten seconds are its delay */
    GOSSIP_SEEN_MS = 60000,
    GOSSIP_CACHE_MS = 50000, /* five windows of the original's: what IWANT gets */
    GOSSIP_IHAVE_MS = 30000, /* three: what IHAVE tells */
    GOSSIP_WAIT_MS = 30000,  /* what nobody reads for so long is dropped, and stops its stream */
    GOSSIP_FRONT_MS = 4 * GOSSIP_WAIT_MS, /* from a message's first byte to its last: likewise */
    GOSSIP_ASKED_MS = 3000,    /* an id is asked of one peer; of another one after that */
    GOSSIP_REPLIES_MAX = 3,    /* of IWANT, per id and peer */
    GOSSIP_IDS_MAX = 5000,     /* per peer and heartbeat, of IHAVE and of IWANT */
    GOSSIP_IHAVES_MAX = 10,    /* per peer and heartbeat */
    GOSSIP_SKIPPED_MAX = 64,   /* ids of one peer that it will be told of */
    GOSSIP_WANTED_MAX = 64,    /* ids that we ask one peer for */
    GOSSIP_CONTROL_MAX = 2048, /* one RPC of gossip_hub_control() */
    GOSSIP_TICK_MAX = 1024,    /* peers looked at in one tick */
    GOSSIP_WAYS = 4,
};

struct gossip_rate { /* tokens per second, and at most so many at once */
    uint32_t per_s, burst;
};
struct gossip_budget {
    struct gossip_rate messages, bytes;
};
struct gossip_limits {
    struct gossip_budget sender; /* messages: verifications, by gossip_msg_cost() */
    struct gossip_budget author, topic, receiver;
    struct gossip_rate out_bytes;         /* to all receivers together */
    uint32_t queue_messages, queue_bytes; /* waiting for one; bytes >= GOSSIP_WIRE_MAX */
    uint32_t cache_bytes;
};
extern const struct gossip_limits gossip_limits_default;

struct gossip_meter { /* when each bucket will be full again, in ns */
    uint64_t messages_ns, bytes_ns;
};

/* Why a message went nowhere, or not to somebody. */
enum gossip_cause {
    GOSSIP_INVALID,   /* structure or signature */
    GOSSIP_OWN,       /* says that it is ours */
    GOSSIP_STRANGE,   /* a topic of somebody else */
    GOSSIP_DUPLICATE, /* seen within a minute */
    GOSSIP_SENDER,    /* over the budget of who brought it */
    GOSSIP_AUTHOR,
    GOSSIP_TOPIC,
    GOSSIP_MEMORY,   /* no buffer for it */
    GOSSIP_RECEIVER, /* from here on: to one receiver. Over its budget, */
    GOSSIP_TOTAL,    /* or that of all */
    GOSSIP_NODES,    /* no node to queue it */
    GOSSIP_QUEUE,    /* was the oldest of a full queue */
    GOSSIP_STALE,    /* waited too long */
    GOSSIP_LEFT,     /* waited for somebody who left, or takes none */
    GOSSIP_CAUSES,
};

/* A message that waits for a peer, or an id that it shall be told or asked. */
struct gossip_node {
    struct gossip_node *next;
    void *payload; /* shares; NULL for an id alone */
    struct bytes wire;
    uint64_t id, at_ms;
    uint8_t topic;
};
struct gossip_fifo {
    struct gossip_node *first, *last;
    uint32_t count;
};
struct gossip_seen {
    uint64_t id, at_ms;
    uint32_t next; /* 1 + index in the same bucket; 0: none */
};
struct gossip_kept {
    void *payload; /* shares; NULL: free */
    struct bytes wire;
    uint64_t id, at_ms;
    uint32_t next;
    uint8_t topic;
};
struct gossip_author {
    uint64_t hash;   /* 0: free */
    uint64_t newest; /* seqno of what it signed */
    struct gossip_meter spent;
};
struct gossip_cell { /* how often something happened of late */
    uint64_t hash, at_ms;
    uint32_t count;
};

/* Sizes are powers of two, the memory zeroed. Indexes have as many entries as their tables. */
struct gossip_tables {
    struct gossip_seen *seen;
    uint32_t *seen_index;
    uint32_t seen_n;
    struct gossip_kept *kept;
    uint32_t *kept_index;
    uint32_t kept_n;
    struct gossip_author *authors; /* >= GOSSIP_WAYS of them, and of each below */
    uint32_t authors_n;
    struct gossip_cell *replies, *asked;
    uint32_t cells_n;
    struct gossip_node *nodes;
    uint32_t nodes_n;
    struct gossip_peer **peers; /* heads of chains by peer id */
    uint32_t peers_n;
};

struct gossip_purse {
    struct gossip_meter brought, got;
    struct gossip_meter old; /* of what it brought: others' messages that are not their newest */
};

/* One connection. Zeroed by the caller, then the hub's from join to leave. */
struct gossip_peer {
    struct peer_id id;
    bool joined;
    bool trusted; /* one of the operator's relays: it brings what many wrote */
    bool deaf;    /* takes nothing: no stream to it */
    uint8_t subs; /* topics that go to it by this connection, as bits */
    uint8_t say;  /* SUBSCRIBEs that it shall be sent */
    uint8_t said;
    bool tell; /* an IHAVE is due */
    uint64_t serial;
    struct gossip_peer *next_of_id;
    struct link link, sub_link[GOSSIP_TOPICS];
    struct link wait_link;           /* in hub->waiting while something is queued */
    struct gossip_purse own, *purse; /* one for all connections of a peer: the own of one of them */
    struct gossip_fifo queue, skipped, wanted;
    uint32_t queue_bytes, front_off;       /* front_off: written of the first one */
    uint64_t moved_ms;                     /* when something was last written, or began to wait */
    uint64_t begun_ms;                     /* front_off: when the first byte was */
    uint16_t ihaves, ihave_ids, iwant_ids; /* of this heartbeat */
    uint64_t beat;
};

struct gossip_calls {
    void (*ready)(void *arg, struct gossip_peer *p);   /* there is something to write to it */
    void (*stalled)(void *arg, struct gossip_peer *p); /* reads nothing: take its stream away. The
                                                          callee calls gossip_hub_deaf() */
    void (*keep)(void *payload);
    void (*drop)(void *payload);
};

struct gossip_counts {
    uint64_t offered; /* publishes that came; = accepted + dropped by the causes up to MEMORY */
    uint64_t accepted, remote, own; /* the latter two are of those offered */
    uint64_t dropped[GOSSIP_CAUSES];
    uint64_t meant;  /* pairs of message and receiver; = queued + RECEIVER + TOTAL + NODES */
    uint64_t queued; /* = sent + QUEUE + STALE + LEFT + what waits */
    uint64_t sent;
    uint64_t asked_for, answered; /* ids of IWANT that came; those of them that went out */
    uint64_t told, asked;         /* ids by our IHAVE and IWANT */
};

struct gossip_hub {
    const struct gossip_limits *limits; /* keeps, like the next two */
    const struct gossip_calls *calls;
    void *arg;
    struct gossip_tables t;
    struct peer_id me;
    uint64_t key[2]; /* of the tables: peers choose what is in them */
    uint64_t serials, beat, tick_ms;
    struct gossip_node *free_nodes;
    uint32_t nodes_fresh, nodes_live;
    uint32_t seen_first, seen_count; /* a ring, oldest first */
    uint32_t kept_first, kept_count;
    size_t kept_bytes;
    struct gossip_meter topic[GOSSIP_TOPICS], out;
    struct list peers, subs[GOSSIP_TOPICS], waiting;
    struct gossip_counts counts;
};

void gossip_hub_init(struct gossip_hub *h, const struct gossip_limits *limits,
                     const struct gossip_tables *t, const struct peer_id *me, const uint8_t key[16],
                     const struct gossip_calls *calls, void *arg);
void gossip_hub_clear(struct gossip_hub *h); /* everybody has left: the cache goes */

/* `trusted`: one of the operator's relays, to which alone the fourth topic goes. */
void gossip_hub_join(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                     const struct peer_id *id, bool trusted);
/* The topics that it took along: a peer says SUBSCRIBE on its first connection only, so another one
 * of the same peer inherits them; here, or by the caller on another shard (gossip_hub_inherit). */
uint8_t gossip_hub_leave(struct gossip_hub *h, struct gossip_peer *p);
void gossip_hub_inherit(struct gossip_hub *h, const struct peer_id *id, uint8_t subs);
void gossip_hub_deaf(struct gossip_hub *h, struct gossip_peer *p); /* no stream to write to */
void gossip_hub_hears(struct gossip_hub *h,
                      struct gossip_peer *p); /* a new one: all is said again */
/* All but publishes. PRUNE changes nothing, GRAFT says what SUBSCRIBE does, other topics are
 * ignored. */
void gossip_hub_item(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                     const struct gossip_item *item);

/* ---- a message: offered, verified by the caller, given a buffer, admitted, pushed ---- */
struct gossip_take {
    uint64_t id;
    enum gossip_topic topic;
    struct peer_id author;
    uint64_t seqno;
    bool old;     /* another one brought it, and newer ones of its author are known: paid for by who
                     brought it */
    bool trusted; /* the author is ourselves or one of the operator's relays: no budget of its own.
                     The caller sets it between offering and admitting */
};
/* true: worth verifying, and paid for by who brought it. false: counted. */
bool gossip_hub_offer(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *from,
                      struct bytes body, struct gossip_msg *m, struct gossip_take *t);
void gossip_hub_refuse(struct gossip_hub *h, enum gossip_cause why); /* offered, and then not */
/* It is what it says: now it counts as seen. false: over a budget, counted; seen only if it is its
 * author's own. n: of its wire. */
bool gossip_hub_admit(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t, size_t n);
/* `from` NULL: of another shard, or our own. `wire` lies in payload; shares it. */
void gossip_hub_push(struct gossip_hub *h, uint64_t now_ms, const struct gossip_peer *from,
                     const struct gossip_take *t, void *payload, struct bytes wire);
/* Posted by another shard, which has verified it, or signed by us: admitted and pushed, unless this
 * shard has seen it. true: it was new here. */
bool gossip_hub_remote(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t,
                       void *payload, struct bytes wire);
bool gossip_hub_own(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t, size_t n);

/* ---- what goes to a peer: control first, then the queue ---- */
static inline bool gossip_hub_wants(const struct gossip_peer *p)
{
    return p->say || p->wanted.count || p->tell || p->queue.count;
}
/* One control RPC, if any is due and no message is half written; GOSSIP_CONTROL_MAX of room. */
bool gossip_hub_control(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                        struct wcur *w);
/* Views of the next bytes of the queue, at most so many and so much; their sum in *total. */
size_t gossip_hub_views(const struct gossip_peer *p, size_t limit, struct bytes *views, size_t max,
                        size_t *total);
void gossip_hub_wrote(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, size_t n);

void gossip_hub_tick(struct gossip_hub *h, uint64_t now_ms); /* each GOSSIP_HEARTBEAT_MS */
/* Asserts what the counts promise and what lists and tables hold. For tests. */
void gossip_hub_check(const struct gossip_hub *h);

#endif
