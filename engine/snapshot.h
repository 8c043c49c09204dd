/* engine/snapshot.h: how control looks into shards for sluicectl and /stats.json without stalling
 * them: it posts a request with a fixed page; the shard fills up to SNAP_ROWS rows from a cursor in
 * one loop turn and posts it back. Rows carry no payload and no keys. */
#ifndef SLUICE_ENGINE_SNAPSHOT_H
#define SLUICE_ENGINE_SNAPSHOT_H

#include "engine/mbox.h"
#include "proto/maddr.h"
#include "proto/peer.h"

enum { SNAP_ROWS = 256 };
enum snap_kind { SNAP_CONNS, SNAP_CIRCUITS, SNAP_ALLOCATIONS, SNAP_DIG };

struct snap_conn {
    uint32_t slot, gen;
    uint8_t shard;
    uint8_t state; /* enum conn_state */
    bool reserved;
    struct peer_id peer; /* n == 0: handshake not done */
    struct netaddr remote;
    uint16_t streams;
    uint64_t age_ms, rx_bytes, tx_bytes;
    uint64_t tx_queued;
};

struct snap_circuit {
    uint64_t id;
    uint8_t shard[2];
    uint8_t state;
    struct peer_id source, target;
    uint64_t bytes[2]; /* source to target, target to source */
    uint64_t age_ms;
};

/* A TURN allocation. */
struct snap_alloc {
    uint8_t shard;
    uint8_t transport; /* enum turn_transport, of the client */
    bool tcp;          /* relays streams (RFC 6062) */
    bool away;         /* mobile, and its client's stream is gone (RFC 8016) */
    char user[48];     /* printable */
    struct netaddr client, relayed[2];
    uint8_t relayed_n;
    uint64_t age_ms, left_ms;
    uint32_t permissions, channels, connections;
    uint64_t datagrams[2], bytes[2]; /* from the client, to it */
};

/* A registrant of the DIG relay. */
enum { SNAP_DIG_NAME = 129 };
struct snap_dig {
    uint8_t shard;
    bool tls, verified;                         /* by its certificate */
    bool masked;                                /* where it is, is not told */
    char id[SNAP_DIG_NAME], net[SNAP_DIG_NAME]; /* printable */
    struct netaddr observed;
    uint32_t version;
    uint64_t connected_unix_s, seen_unix_s;
    uint64_t rx_bytes, queued_bytes; /* messages from it; unsent to it */
};

struct snap {
    struct mnode node;
    enum snap_kind kind;
    uint8_t shard;
    uint32_t cursor; /* in and out */
    bool end;
    uint16_t rows;
    union {
        struct snap_conn conn[SNAP_ROWS];
        struct snap_circuit circuit[SNAP_ROWS];
        struct snap_alloc alloc[SNAP_ROWS];
        struct snap_dig dig[SNAP_ROWS];
    };
};

#endif
