/* proto/hop.h: circuit relay v2, the relay's side: HopMessage codec, and the reservation machine
 * that control runs (libp2p.md §11; libp2p specs: relay/circuit-v2). Pure and reentrant.
 * Protobuf by nanopb; messages are decoded whole, without their length prefix. */
#ifndef SLUICE_PROTO_HOP_H
#define SLUICE_PROTO_HOP_H

#include "proto/cur.h"
#include "proto/list.h"
#include "proto/maddr.h"
#include "proto/peer.h"

#define HOP_PROTOCOL "/libp2p/circuit/relay/0.2.0/hop"
#define STOP_PROTOCOL "/libp2p/circuit/relay/0.2.0/stop"

enum { HOP_MSG_MAX = 4096 };

enum hop_status {
    HOP_UNUSED = 0,
    HOP_OK = 100,
    HOP_RESERVATION_REFUSED = 200,
    HOP_RESOURCE_LIMIT_EXCEEDED = 201,
    HOP_PERMISSION_DENIED = 202,
    HOP_CONNECTION_FAILED = 203,
    HOP_NO_RESERVATION = 204,
    HOP_MALFORMED_MESSAGE = 400,
    HOP_UNEXPECTED_MESSAGE = 401,
};
enum hop_type { HOP_RESERVE = 0, HOP_CONNECT = 1, HOP_STATUS = 2 };

/* Absent (present == false) means unlimited; a present limit, even of zeros, marks the connection
 * limited in go (libp2p.md §11.4). */
struct hop_limit {
    bool present;
    uint32_t duration_s;
    uint64_t data_bytes;
};

/* What we need of a received message. Types and statuses that nobody has given a meaning yet come
 * through as their numbers; a message without type is told by has_type. */
struct hop_msg {
    enum hop_type type;
    bool has_type;
    bool has_peer; /* the peer field was there and its id decodes */
    bool peer_bad; /* it was there and does not decode */
    struct peer_id peer;
    bool has_status;
    enum hop_status status; /* for clients: the answer */
    uint64_t expire_unix_s; /* for clients, from the reservation */
    struct hop_limit limit; /* for clients */
    struct bytes voucher;   /* for clients; borrows */
    uint16_t addrs;         /* for clients: how many addresses the reservation carries */
};
/* false: longer than HOP_MSG_MAX or not protobuf; *m is left alone. */
bool hop_decode(struct bytes in, struct hop_msg *m);

/* Encoders write the uv length prefix too. A limit may be NULL: as if not present. */
void hop_put_status(struct wcur *w, enum hop_status status, const struct hop_limit *limit);
/* addrs are whole binary multiaddrs, each with its /p2p/<relay>; those that would carry the message
 * past HOP_MSG_MAX are left out, the last ones first. A voucher with n == 0 is omitted. */
void hop_put_reservation(struct wcur *w, uint64_t expire_unix_s, const struct bytes *addrs,
                         size_t n, struct bytes voucher, const struct hop_limit *limit);
void hop_put_reserve(struct wcur *w);                               /* client role */
void hop_put_connect(struct wcur *w, const struct peer_id *target); /* client role */

/* ---- reservations -------------------------------------------------------------------------
 * One slot per connection that asks; a peer may hold several. Counts per peer, IP and subnet are
 * kept by the machine in tables given to hop_init, exact because one thread owns it. Every call is
 * O(1), the tables never fail, and their size does not depend on who comes. */
enum { HOP_RESERVATIONS_MAX = 1 << 24 }; /* config checks; that many cost 8 GiB of tables */

/* May change while running, but for reservation_ms (slots expire in the order of their refreshing)
 * and for a reservations_max above that of hop_init. */
struct hop_limits {
    uint32_t reservations_max; /* in total; 0 never: config checks */
    uint32_t per_peer_max;     /* 0 = no limit, also below */
    uint32_t per_ip_max;       /* an IPv6 /64 is one IP (libp2p.md §16.1) */
    uint32_t per_subnet_max;   /* IPv4 /24, IPv6 /56 */
    uint64_t reservation_ms;   /* lifetime */
    /* Token buckets for new reservations (libp2p.md §16.1); burst 0 = no limit. Renewals are free.
     * Buckets are remembered in a bounded table, full ones are forgotten first. */
    uint32_t peer_burst, ip_burst;
    uint64_t peer_refill_ms, ip_refill_ms; /* one token back per; at most UINT32_MAX */
    enum hop_status full_status;           /* 200 (or 0); 201 in the dusk preset (presets.md) */
};

struct hop_slot {
    struct link by_expiry;
    bool reserved;
    struct peer_id peer;
    uint8_t ip[16];
    uint64_t expires_ms;
};

enum hop_verdict {
    HOP_ACCEPTED,
    HOP_RENEWED,
    HOP_DENIED_DRAINING,
    HOP_DENIED_PEER,
    HOP_DENIED_IP,
    HOP_DENIED_SUBNET,
    HOP_DENIED_FULL,
    HOP_DENIED_RATE,
};

struct hop_count; /* one counter cell, in hop.c */
struct hop_rate;  /* one token bucket, in hop.c */
struct hop {
    struct hop_limits limits;
    struct list by_expiry; /* its count: slots reserved */
    bool draining;         /* set by the caller: every RESERVE is refused, slots run out */
    uint8_t key[16];       /* for the tables' hash */
    uint32_t peers;        /* distinct, with at least one slot */
    struct hop_count *counts;
    struct hop_rate *rates;
    uint32_t counts_mask, rates_mask;
};
size_t hop_counts_bytes(uint32_t reservations_max);
/* Keeps `counts`: hop_counts_bytes(max) of zeroed memory, aligned as malloc does. key: random. */
void hop_init(struct hop *h, const struct hop_limits *limits, void *counts, const uint8_t key[16]);
/* The decision order of libp2p.md §11.2. On ACCEPTED and RENEWED slot->expires_ms is set. The slot
 * is the caller's, zeroed at first; the machine keeps it while reserved. A slot stays with one peer
 * and one IP while reserved. Time never runs backwards; what is due shall have been expired before.
 */
enum hop_verdict hop_on_reserve(struct hop *h, uint64_t now_ms, struct hop_slot *slot,
                                const struct peer_id *peer, const uint8_t ip[16]);
enum hop_status hop_verdict_status(const struct hop *h, enum hop_verdict v);
const char *hop_verdict_reason(enum hop_verdict v);      /* "per-peer limit", ... for events */
void hop_on_close(struct hop *h, struct hop_slot *slot); /* the connection went away; idempotent */
/* One expired slot at a time, NULL when none is due; the slot is no longer reserved. */
struct hop_slot *hop_expire(struct hop *h, uint64_t now_ms);
uint64_t hop_deadline_ms(const struct hop *h); /* UINT64_MAX: none */
uint32_t hop_peer_reservations(const struct hop *h, const struct peer_id *peer);

#endif
