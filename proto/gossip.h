/* proto/gossip.h: what gossipsub's peers say to each other, as far as the Dusk client's relay needs
 * it (dusk.md §10.2; libp2p specs: pubsub, gossipsub 1.0 and 1.1). Pure and reentrant.
 * Shapes:  items and messages borrow from the RPC, fields as in wire.h: p == NULL is absent.
 * Units:   lengths in bytes; an RPC's length is that of its protobuf, without the uv prefix.
 * Errors:  false is the peer's fault. A malformed RPC ends the stream that it came on; a message
 *          that is not valid is dropped silently and the stream stays (§10.2). */
#ifndef SLUICE_PROTO_GOSSIP_H
#define SLUICE_PROTO_GOSSIP_H

#include "proto/cur.h"
#include "proto/peer.h"

#define GOSSIP_PROTOCOL "/meshsub/1.1.0"
#define GOSSIP_PROTOCOL_10 "/meshsub/1.0.0"

enum {
    GOSSIP_RPC_MAX = 65536,                /* longer: the receiver ends that stream */
    GOSSIP_WIRE_MAX = 3 + GOSSIP_RPC_MAX,  /* with its prefix */
    GOSSIP_ITEMS_MAX = 4096,               /* of one RPC: ours have one, rust's a few */
    GOSSIP_ID_TEXT_MAX = 20,               /* a message id is a u64 in decimal */
    GOSSIP_SIGN_MAX = 14 + GOSSIP_RPC_MAX, /* what is signed, with its domain */
    GOSSIP_SEQNO = 8,
};

enum gossip_topic {
    GOSSIP_SYNC,       /* dusk/sync: documents of communities, and requests for them */
    GOSSIP_DIRECTORY,  /* dusk/directory: signed profiles */
    GOSSIP_FEDERATION, /* dusk/relay/federation: who registered where (§10.4) */
    GOSSIP_RECORDS,    /* ours: the same with the signed record, between relays (gossip_fed.h) */
    GOSSIP_TOPICS,
    GOSSIP_TOPICS_OLD = GOSSIP_RECORDS, /* those that everybody is told of */
};
extern const char *const gossip_topic_name[GOSSIP_TOPICS];
bool gossip_topic_find(struct bytes name, enum gossip_topic *topic);

/* One thing of an RPC. */
enum gossip_item_kind {
    GOSSIP_ITEM_SUBSCRIBE, /* topic, on */
    GOSSIP_ITEM_PUBLISH,   /* body: gossip_msg_decode() */
    GOSSIP_ITEM_IHAVE,     /* topic; body: gossip_id_next(, 2, ) */
    GOSSIP_ITEM_IWANT,     /* body: gossip_id_next(, 1, ) */
    GOSSIP_ITEM_GRAFT,     /* topic */
    GOSSIP_ITEM_PRUNE,     /* topic */
};
struct gossip_item {
    enum gossip_item_kind kind;
    bool on;
    struct bytes topic; /* p == NULL: absent */
    struct bytes body;
};
struct gossip_walk {
    struct cur rpc, control;
};
/* Is it whole protobuf on the levels that the walk reads, and not too many items? */
bool gossip_rpc_valid(struct bytes rpc, uint32_t *items);
/* Over a valid RPC, in the order of the wire; false at the end. */
void gossip_walk_start(struct gossip_walk *w, struct bytes rpc);
bool gossip_walk_next(struct gossip_walk *w, struct gossip_item *item);
/* The next id of an IHAVE or IWANT; *known: it has the form of ours. false at the end. */
bool gossip_id_next(struct cur *body, uint32_t tag, uint64_t *id, bool *known);

struct gossip_msg {
    struct bytes from, data, seqno, topic, signature, key;
};
/* What strict validation asks for short of the signature (§10.2): `from` a peer id, eight bytes of
 * seqno, a topic, a signature; a key, if there is one, that hashes to `from`. *author is `from`. */
bool gossip_msg_decode(struct bytes body, struct gossip_msg *m, struct peer_id *author);
/* Of a message that decoded. `room` holds GOSSIP_SIGN_MAX bytes. Costs 60 us with an Ed25519 key
 * and a short message. */
bool gossip_msg_verify(const struct gossip_msg *m, uint8_t *room);
/* How many short Ed25519 verifications this one is worth, from its key and its length. */
unsigned gossip_msg_cost(const struct gossip_msg *m);
/* SipHash-1-3 over data and author (§10.2): what duplicates are known by. */
uint64_t gossip_msg_id(const struct gossip_msg *m, const struct peer_id *author);
/* For that, and for vectors: key in two little-endian words, over n pieces as if they were one. */
uint64_t gossip_sip13(uint64_t k0, uint64_t k1, const struct bytes *parts, size_t n);

/* RPCs, each with its uv prefix. w->bad when one does not fit. */
void gossip_put_subscribe(struct wcur *w, struct bytes topic, bool on);
void gossip_put_graft(struct wcur *w, struct bytes topic);
void gossip_put_prune(struct wcur *w, struct bytes topic, uint64_t backoff_s);
void gossip_put_ihave(struct wcur *w, struct bytes topic, const uint64_t *ids, size_t n);
void gossip_put_iwant(struct wcur *w, const uint64_t *ids, size_t n);
/* One message, its fields as they came and nothing else: what nobody has judged goes nowhere. Never
 * longer than the RPC that it came in. */
void gossip_put_publish(struct wcur *w, const struct gossip_msg *m);
size_t gossip_publish_bytes(const struct gossip_msg *m); /* of that */
/* A message of ours, signed: the whole RPC. `room` as above. */
void gossip_put_own(struct wcur *w, const struct identity *me, struct bytes topic, uint64_t seqno,
                    struct bytes data, uint8_t *room);

#endif
