/* proto/gossip_fed.h: what relays tell each other of registrations (dusk.md §10.4). Pure; JSON read
 * by yyjson on the caller's memory.
 * On dusk/relay/federation the text is the original's, byte for byte:
 *   {"peer_id":"<base58>","namespace":"<ns>","ttl":7200,"source_relay":"<base58 self>"}
 * It carries no signed record, so nobody can be told of it. On our own topic there is one member
 * more, "record":"<the envelope in hex>": a relay that was told to trust source_relay verifies
 * it as it would a REGISTER's and serves it. That topic goes to named relays only. */
#ifndef SLUICE_PROTO_GOSSIP_FED_H
#define SLUICE_PROTO_GOSSIP_FED_H

#include "proto/cur.h"
#include "proto/envelope.h"
#include "proto/peer.h"

enum {
    GOSSIP_FED_NS_MAX = 255,
    GOSSIP_FED_TTL_MAX_S = 259200, /* the longest that is granted (dusk.md §5) */
    GOSSIP_FED_TEXT_MAX = 4096,    /* what is written and read without a record */
    GOSSIP_FED_MAX = GOSSIP_FED_TEXT_MAX + 2 * ENVELOPE_MAX, /* and with one */
    GOSSIP_FED_POOL = 32768 + 12 * GOSSIP_FED_MAX,           /* what reading takes */
};

struct gossip_fed {
    struct peer_id peer, source;
    struct bytes ns; /* borrows */
    uint64_t ttl_s;
    struct bytes record; /* the envelope's bytes; n == 0: none */
};

/* r->record.n == 0: without that member. Sets w->bad when it does not fit. */
void gossip_fed_put(struct wcur *w, const struct gossip_fed *r);
/* false: none of ours, or out of bounds. `pool` holds GOSSIP_FED_POOL bytes; what *r points to is
 * in it. */
bool gossip_fed_parse(struct bytes text, void *pool, struct gossip_fed *r);
/* Is the record the peer's own signed one, as REGISTER asks it (dusk.md §5)? */
bool gossip_fed_verify(const struct gossip_fed *r);

#endif
