#include "proto/hop.h"

#include "proto/pb/relay.pb.h"
#include "proto/varint.h"
#include "proto/wire.h"

/* The numbers of the wire are ours; the casts between the two enums below lean on it. */
static_assert((int)HOP_RESERVE == (int)wire_HopMessage_Type_RESERVE, "HopMessage.Type");
static_assert((int)HOP_CONNECT == (int)wire_HopMessage_Type_CONNECT, "HopMessage.Type");
static_assert((int)HOP_STATUS == (int)wire_HopMessage_Type_STATUS, "HopMessage.Type");
static_assert((int)HOP_OK == (int)wire_Status_OK, "Status");
static_assert((int)HOP_UNEXPECTED_MESSAGE == (int)wire_Status_UNEXPECTED_MESSAGE, "Status");

static wire_Limit limit_to_wire(const struct hop_limit *limit)
{
    /* Both fields even where zero: go reads their absence as missing (libp2p.md §1.1). */
    return (wire_Limit){ true, limit->duration_s, true, limit->data_bytes };
}

bool hop_decode(struct bytes in, struct hop_msg *m)
{
    wire_HopMessage pb = { 0 };

    if (in.n > HOP_MSG_MAX || !wire_decode(in, wire_HopMessage_fields, &pb))
        return false;
    *m = (struct hop_msg){
        .type = (enum hop_type)pb.type,
        .has_type = pb.has_type,
        .has_status = pb.has_status,
        .status = (enum hop_status)pb.status,
        .expire_unix_s = pb.reservation.expire,
        .limit = { pb.has_limit, pb.limit.duration, pb.limit.data },
        .voucher = pb.reservation.voucher,
        .addrs = (uint16_t)pb.reservation.addrs.n, /* two bytes each at least, of HOP_MSG_MAX */
    };
    m->has_peer = pb.has_peer && peer_id_decode(pb.peer.id, &m->peer);
    m->peer_bad = pb.has_peer && !m->has_peer;
    return true;
}

static void put_msg(struct wcur *w, const wire_HopMessage *pb)
{
    wire_put_delimited(w, wire_HopMessage_fields, pb);
}

static wire_HopMessage status_msg(enum hop_status status, const struct hop_limit *limit)
{
    wire_HopMessage pb = { 0 };

    pb.has_type = pb.has_status = true;
    pb.type = wire_HopMessage_Type_STATUS;
    pb.status = (wire_Status)status;
    if (limit && limit->present) {
        pb.has_limit = true;
        pb.limit = limit_to_wire(limit);
    }
    return pb;
}

void hop_put_status(struct wcur *w, enum hop_status status, const struct hop_limit *limit)
{
    wire_HopMessage pb = status_msg(status, limit);

    put_msg(w, &pb);
}

void hop_put_reservation(struct wcur *w, uint64_t expire_unix_s, const struct bytes *addrs,
                         size_t n, struct bytes voucher, const struct hop_limit *limit)
{
    wire_HopMessage pb = status_msg(HOP_OK, limit);

    pb.has_reservation = true;
    pb.reservation.has_expire = true;
    pb.reservation.expire = expire_unix_s;
    if (voucher.n)
        pb.reservation.voucher = voucher;

    /* A reader drops what is longer than HOP_MSG_MAX: fewer addresses serve it better. The
     * reservation's own length takes one byte more, at most, with the addresses than without. */
    size_t bare = wire_size(wire_HopMessage_fields, &pb) + 1;

    ASSERT(bare <= HOP_MSG_MAX);
    pb.reservation.addrs.items = addrs;
    pb.reservation.addrs.n = wire_list_fit(addrs, n, HOP_MSG_MAX - bare);
    put_msg(w, &pb);
}

void hop_put_reserve(struct wcur *w)
{
    wire_HopMessage pb = { 0 };

    pb.has_type = true;
    pb.type = wire_HopMessage_Type_RESERVE;
    put_msg(w, &pb);
}

void hop_put_connect(struct wcur *w, const struct peer_id *target)
{
    wire_HopMessage pb = { 0 };

    pb.has_type = pb.has_peer = true;
    pb.type = wire_HopMessage_Type_CONNECT;
    pb.peer.id = peer_id_bytes(target);
    put_msg(w, &pb);
}
