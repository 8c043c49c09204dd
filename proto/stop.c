#include "proto/stop.h"

#include "proto/pb/relay.pb.h"
#include "proto/wire.h"

static_assert((int)STOP_CONNECT == (int)wire_StopMessage_Type_CONNECT, "StopMessage.Type");
static_assert((int)STOP_STATUS == (int)wire_StopMessage_Type_STATUS, "StopMessage.Type");

bool stop_decode(struct bytes in, struct stop_msg *m)
{
    wire_StopMessage pb = { 0 };

    if (in.n > HOP_MSG_MAX || !wire_decode(in, wire_StopMessage_fields, &pb))
        return false;
    *m = (struct stop_msg){
        .type = (enum stop_type)pb.type,
        .has_type = pb.has_type,
        .has_status = pb.has_status,
        .status = (enum hop_status)pb.status,
        .limit = { pb.has_limit, pb.limit.duration, pb.limit.data },
    };
    m->has_peer = pb.has_peer && peer_id_decode(pb.peer.id, &m->peer);
    return true;
}

void stop_put_connect(struct wcur *w, const struct peer_id *source, const struct hop_limit *limit)
{
    wire_StopMessage pb = { 0 };

    pb.has_type = pb.has_peer = true;
    pb.type = wire_StopMessage_Type_CONNECT;
    pb.peer.id = peer_id_bytes(source);
    if (limit && limit->present) {
        pb.has_limit = true;
        pb.limit = (wire_Limit){ true, limit->duration_s, true, limit->data_bytes };
    }
    wire_put_delimited(w, wire_StopMessage_fields, &pb);
}

void stop_put_status(struct wcur *w, enum hop_status status)
{
    wire_StopMessage pb = { 0 };

    pb.has_type = pb.has_status = true;
    pb.type = wire_StopMessage_Type_STATUS;
    pb.status = (wire_Status)status;
    wire_put_delimited(w, wire_StopMessage_fields, &pb);
}

enum hop_status stop_to_hop_status(const struct stop_msg *m)
{
    if (!m->has_type || m->type != STOP_STATUS || !m->has_status)
        return HOP_CONNECTION_FAILED;
    switch (m->status) {
    case HOP_OK:
    case HOP_RESOURCE_LIMIT_EXCEEDED:
    case HOP_PERMISSION_DENIED:
        return m->status;
    default: /* 204 too: rust says so when it lost its state (libp2p.md §18 Q5) */
        return HOP_CONNECTION_FAILED;
    }
}
