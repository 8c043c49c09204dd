/* proto/envelope.h: signed envelopes and the relay voucher (libp2p.md §1.4; libp2p specs: RFC 0002,
 * circuit-v2). Pure. Signed bytes are canonical protobuf: ascending tags, minimal varints, each
 * field once. A received envelope is verified over the bytes as they came. */
#ifndef SLUICE_PROTO_ENVELOPE_H
#define SLUICE_PROTO_ENVELOPE_H

#include "proto/cur.h"
#include "proto/peer.h"

enum {
    ENVELOPE_MAX = 8192,        /* longest one we look at: the bound of an identify message */
    ENVELOPE_DOMAIN_MAX = 64,   /* the domain and the three length prefixes of the signed bytes */
    VOUCHER_MAX = 128,          /* payload: two peer ids and a varint */
    VOUCHER_ENVELOPE_MAX = 256, /* 196 with an Ed25519 key */
};

/* All borrow from the decoded buffer. */
struct envelope {
    struct pubkey key;
    struct bytes payload_type;
    struct bytes payload;
    struct bytes signature;
};

/* false: malformed, longer than ENVELOPE_MAX, without signature, or its key is none (peer.h). */
bool envelope_decode(struct bytes in, struct envelope *e);
/* The signature covers lp(domain) || lp(payload_type) || lp(payload). */
bool envelope_verify(const struct envelope *e, struct bytes domain);
/* Writes a whole envelope signed by `me`; sets w->bad when it does not fit or passes ENVELOPE_MAX.
 */
void envelope_seal(struct wcur *w, const struct identity *me, struct bytes domain,
                   struct bytes payload_type, struct bytes payload);

/* A voucher envelope: `me` says that `peer` holds a reservation until `expire_unix_s`. */
void voucher_seal(struct wcur *w, const struct identity *me, const struct peer_id *peer,
                  uint64_t expire_unix_s);
struct voucher {
    struct peer_id relay, peer;
    uint64_t expire_unix_s;
};
bool voucher_open(struct bytes envelope, struct voucher *v); /* verified, relay == signer */

/* Peer records, both domains of libp2p.md §1.4. Addresses borrow. */
struct peer_record {
    struct peer_id id;
    enum key_type key; /* the signer's */
    bool legacy;       /* in rust's domain, else in the standard one */
    uint64_t seq;
    struct bytes addresses; /* walk cur_of(addresses) with peer_record_next */
};
/* Verified, and its peer id is the signer's. The addresses are well framed; what they say is not
 * looked at. */
bool peer_record_open(struct bytes envelope, struct peer_record *r);
/* The next multiaddr, possibly empty; false at the end. */
bool peer_record_next(struct cur *rest, struct bytes *multiaddr);
/* In the standard domain. Sets w->bad when the record or its envelope does not fit. */
void peer_record_seal(struct wcur *w, const struct identity *me, uint64_t seq,
                      const struct bytes *multiaddrs, size_t n);

#endif
