#include "proto/envelope.h"

#include "proto/crypto.h"
#include "proto/pb/envelope.pb.h"
#include "proto/varint.h"
#include "proto/wire.h"

#define VOUCHER_DOMAIN "libp2p-relay-rsvp"
#define RECORD_DOMAIN "libp2p-peer-record"
#define RECORD_DOMAIN_LEGACY "libp2p-routing-state" /* rust's default (libp2p.md §18 Q8) */

/* Two plain bytes, not the varint of the multicodec 0x0302 (libp2p.md §1.4). */
static const uint8_t voucher_type[] = { 0x03, 0x02 };
static const uint8_t record_type[] = { 0x03, 0x01 };
static const char record_type_legacy[] = "/libp2p/routing-state-record";

bool envelope_decode(struct bytes in, struct envelope *e)
{
    wire_Envelope pb = { 0 };
    struct pubkey key;

    if (in.n > ENVELOPE_MAX || !wire_decode(in, wire_Envelope_fields, &pb))
        return false;
    if (!pb.signature.n || !pubkey_decode(pb.public_key, &key))
        return false;
    *e = (struct envelope){ key, pb.payload_type, pb.payload, pb.signature };
    return true;
}

static void put_signed(struct wcur *w, struct bytes domain, struct bytes payload_type,
                       struct bytes payload)
{
    wcur_lp(w, domain);
    wcur_lp(w, payload_type);
    wcur_lp(w, payload);
}

bool envelope_verify(const struct envelope *e, struct bytes domain)
{
    uint8_t message[ENVELOPE_MAX + ENVELOPE_DOMAIN_MAX];
    struct wcur w = wcur_of(message, sizeof(message));

    put_signed(&w, domain, e->payload_type, e->payload);
    return !w.bad && pubkey_verify(&e->key, bytes_of(message, w.wrote), e->signature);
}

void envelope_seal(struct wcur *w, const struct identity *me, struct bytes domain,
                   struct bytes payload_type, struct bytes payload)
{
    uint8_t message[ENVELOPE_MAX + ENVELOPE_DOMAIN_MAX];
    uint8_t sig[64] = { 0 };
    struct wcur m = wcur_of(message, sizeof(message));
    wire_Envelope pb = {
        .public_key = bytes_of(me->key_pb, sizeof(me->key_pb)),
        .payload_type = payload_type,
        .payload = payload,
        .signature = bytes_of(sig, sizeof(sig)),
    };

    put_signed(&m, domain, payload_type, payload);
    if (m.bad || wire_size(wire_Envelope_fields, &pb) > ENVELOPE_MAX) {
        (void)wcur_room(w, SIZE_MAX); /* nobody would read it */
        return;
    }
    crypto_ed25519_sign(me->sk, bytes_of(message, m.wrote), sig);
    wire_put(w, wire_Envelope_fields, &pb);
}

void voucher_seal(struct wcur *w, const struct identity *me, const struct peer_id *peer,
                  uint64_t expire_unix_s)
{
    uint8_t payload[VOUCHER_MAX];
    struct wcur p = wcur_of(payload, sizeof(payload));
    wire_Voucher pb = {
        .relay = peer_id_bytes(&me->id),
        .peer = peer_id_bytes(peer),
        .has_expiration = true,
        .expiration = expire_unix_s,
    };

    wire_put(&p, wire_Voucher_fields, &pb);
    ASSERT(!p.bad);
    envelope_seal(w, me, bytes_str(VOUCHER_DOMAIN), bytes_of(voucher_type, sizeof(voucher_type)),
                  bytes_of(payload, p.wrote));
}

static bool signed_by(const struct envelope *e, const struct peer_id *id)
{
    struct peer_id signer;

    peer_id_of_key(e->key.pb, &signer);
    return peer_id_eq(&signer, id);
}

bool voucher_open(struct bytes envelope, struct voucher *v)
{
    struct envelope e;
    wire_Voucher pb = { 0 };
    struct voucher got;

    if (!envelope_decode(envelope, &e) ||
        !bytes_eq(e.payload_type, bytes_of(voucher_type, sizeof(voucher_type))) ||
        !wire_decode(e.payload, wire_Voucher_fields, &pb))
        return false;
    if (!pb.has_expiration || !peer_id_decode(pb.relay, &got.relay) ||
        !peer_id_decode(pb.peer, &got.peer) || !signed_by(&e, &got.relay))
        return false;
    if (!envelope_verify(&e, bytes_str(VOUCHER_DOMAIN)))
        return false; /* last: it costs the most */
    got.expire_unix_s = pb.expiration;
    *v = got;
    return true;
}

static bool address_info(struct bytes in, struct bytes *multiaddr)
{
    wire_AddressInfo pb = { 0 };

    if (!wire_decode(in, wire_AddressInfo_fields, &pb))
        return false;
    *multiaddr = pb.multiaddr;
    return true;
}

static bool check_address(void *arg, struct bytes item)
{
    struct bytes multiaddr;

    (void)arg;
    return address_info(item, &multiaddr); /* what it says fails that address only (§1.3) */
}

bool peer_record_open(struct bytes envelope, struct peer_record *r)
{
    struct envelope e;
    wire_PeerRecord pb = { 0 };
    struct peer_id id;
    struct bytes domain = bytes_str(RECORD_DOMAIN);
    bool legacy;

    pb.addresses.each = check_address;
    if (!envelope_decode(envelope, &e))
        return false;
    legacy = bytes_eq(e.payload_type, bytes_str(record_type_legacy));
    if (legacy)
        domain = bytes_str(RECORD_DOMAIN_LEGACY);
    else if (!bytes_eq(e.payload_type, bytes_of(record_type, sizeof(record_type))))
        return false;
    if (!wire_decode(e.payload, wire_PeerRecord_fields, &pb) || !peer_id_decode(pb.peer_id, &id) ||
        !signed_by(&e, &id) || !envelope_verify(&e, domain))
        return false;
    *r = (struct peer_record){ id, e.key.type, legacy, pb.seq, e.payload };
    return true;
}

bool peer_record_next(struct cur *rest, struct bytes *multiaddr)
{
    struct bytes info;

    return wire_next(rest, wire_PeerRecord_addresses_tag, &info) && address_info(info, multiaddr);
}

void peer_record_seal(struct wcur *w, const struct identity *me, uint64_t seq,
                      const struct bytes *multiaddrs, size_t n)
{
    uint8_t payload[ENVELOPE_MAX];
    struct wcur p = wcur_of(payload, sizeof(payload));
    wire_PeerRecord pb = {
        .peer_id = peer_id_bytes(&me->id),
        .has_seq = true,
        .seq = seq,
    };

    wire_put(&p, wire_PeerRecord_fields, &pb);
    for (size_t i = 0; i < n; i++) { /* the last field, so behind the others it is in order */
        wcur_u8(&p, wire_PeerRecord_addresses_tag << 3 | 2);
        wcur_varint(&p, 1 + varint_len(multiaddrs[i].n) + multiaddrs[i].n);
        wcur_u8(&p, wire_AddressInfo_multiaddr_tag << 3 | 2);
        wcur_lp(&p, multiaddrs[i]);
    }
    if (p.bad) {
        (void)wcur_room(w, SIZE_MAX);
        return;
    }
    envelope_seal(w, me, bytes_str(RECORD_DOMAIN), bytes_of(record_type, sizeof(record_type)),
                  bytes_of(payload, p.wrote));
}
