/* proto/ident.h: identify, identify/push and ping (libp2p.md §9, §10). Pure. */
#ifndef SLUICE_PROTO_IDENT_H
#define SLUICE_PROTO_IDENT_H

#include "proto/cur.h"
#include "proto/maddr.h"
#include "proto/peer.h"

#define IDENT_PROTOCOL "/ipfs/id/1.0.0"
#define IDENT_PUSH_PROTOCOL "/ipfs/id/push/1.0.0"
#define PING_PROTOCOL "/ipfs/ping/1.0.0"

enum {
    IDENT_OURS_MAX = 2048, /* what we send (libp2p.md §9) */
    IDENT_PUSH_MAX = 8192, /* what we accept */
    PING_BYTES = 32,
};

/* What we say of ourselves; everything borrows. */
struct ident {
    struct bytes key_pb;
    const struct bytes *listen_addrs;
    size_t listen_addrs_n;
    const char *const *protocols; /* NULL-terminated */
    struct bytes observed_addr;   /* n == 0: omitted */
    const char *protocol_version;
    const char *agent_version;
};
/* With its uv length prefix. Listen addresses that would carry the message past IDENT_OURS_MAX are
 * left out, the last ones first; the rest always fits (ASSERT: protocols and versions are ours). */
void ident_put(struct wcur *w, const struct ident *id);

/* What a peer says of itself; borrows. Absent fields have p == NULL: in a push they mean
 * "unchanged". Of the lists only what we ask of them is kept. */
struct ident_remote {
    struct bytes key_pb;
    struct bytes agent_version; /* escaped by whoever prints it */
    struct bytes protocol_version;
    struct bytes observed_addr;
    struct bytes signed_peer_record; /* an envelope, unverified */
    bool speaks_hop, speaks_stop;
};
/* false: malformed or longer than IDENT_PUSH_MAX. */
bool ident_decode(struct bytes in, struct ident_remote *r);

#endif
