#include "proto/ident.h"

#include "proto/hop.h"
#include "proto/pb/identify.pb.h"
#include "proto/wire.h"

void ident_put(struct wcur *w, const struct ident *id)
{
    wire_Identify pb = { 0 };

    pb.publicKey = id->key_pb;
    pb.protocols.names = id->protocols;
    if (id->observed_addr.n)
        pb.observedAddr = id->observed_addr;
    pb.protocolVersion = bytes_str(id->protocol_version);
    pb.agentVersion = bytes_str(id->agent_version);

    /* rust reads 4096 bytes and no more; we stop at half of it, at the price of the last addresses
     * (libp2p.md §9). */
    size_t bare = wire_size(wire_Identify_fields, &pb);

    ASSERT(bare <= IDENT_OURS_MAX);
    pb.listenAddrs.items = id->listen_addrs;
    pb.listenAddrs.n = wire_list_fit(id->listen_addrs, id->listen_addrs_n, IDENT_OURS_MAX - bare);
    wire_put_delimited(w, wire_Identify_fields, &pb);
}

static bool on_protocol(void *arg, struct bytes name)
{
    struct ident_remote *r = arg;

    if (bytes_eq(name, bytes_str(HOP_PROTOCOL)))
        r->speaks_hop = true;
    else if (bytes_eq(name, bytes_str(STOP_PROTOCOL)))
        r->speaks_stop = true;
    return true;
}

bool ident_decode(struct bytes in, struct ident_remote *r)
{
    struct ident_remote found = { 0 };
    wire_Identify pb = { 0 };

    pb.protocols.each = on_protocol;
    pb.protocols.arg = &found;
    if (in.n > IDENT_PUSH_MAX || !wire_decode(in, wire_Identify_fields, &pb))
        return false;
    found.key_pb = pb.publicKey;
    found.agent_version = pb.agentVersion;
    found.protocol_version = pb.protocolVersion;
    found.observed_addr = pb.observedAddr;
    found.signed_peer_record = pb.signedPeerRecord;
    *r = found;
    return true;
}
