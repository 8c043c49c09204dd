/* proto/stop.h: circuit relay v2, the STOP half that the relay opens towards the target
 * (libp2p.md §11.1, §11.3). Pure. */
#ifndef SLUICE_PROTO_STOP_H
#define SLUICE_PROTO_STOP_H

#include "proto/hop.h"

enum stop_type { STOP_CONNECT = 0, STOP_STATUS = 1 };

struct stop_msg {
    enum stop_type type;
    bool has_type;
    bool has_peer;
    struct peer_id peer; /* for targets: who calls */
    bool has_status;
    enum hop_status status;
    struct hop_limit limit;
};
bool stop_decode(struct bytes in, struct stop_msg *m);
/* Without addrs: the target never learns the source's address (descord.md §1). */
void stop_put_connect(struct wcur *w, const struct peer_id *source, const struct hop_limit *limit);
void stop_put_status(struct wcur *w, enum hop_status status); /* target role */
/* What the source is told when the target answers: 201 and 202 pass, all else is 203 (§11.3). */
enum hop_status stop_to_hop_status(const struct stop_msg *m);

#endif
