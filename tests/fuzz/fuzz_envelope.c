/* Signed envelopes. No fuzzer forges a signature, so the first byte chooses: an envelope as it
 * comes, or one that K signs over the rest, as a voucher or as a record in either domain. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/envelope.h"

static const struct {
    const char *domain;
    struct bytes type;
} kinds[] = {
    { "libp2p-relay-rsvp", { (const uint8_t *)"\3\2", 2 } },
    { "libp2p-peer-record", { (const uint8_t *)"\3\1", 2 } },
    { "libp2p-routing-state", { (const uint8_t *)"/libp2p/routing-state-record", 28 } },
};

/* The key K of libp2p.md §1.2, whose id the corpus knows. */
static struct identity signer(void)
{
    static const uint8_t seed[32] = { 0x7e, 0x08, 0x30, 0x61, 0x7c, 0x4a, 0x7d, 0xe8,
                                      0x39, 0x25, 0xdf, 0xb2, 0x69, 0x45, 0x56, 0xb1,
                                      0x29, 0x36, 0xc4, 0x77, 0xa0, 0xe1, 0xfe, 0xb2,
                                      0xe1, 0x48, 0xec, 0x9d, 0xa6, 0x0f, 0xee, 0x7d };
    struct identity k;

    identity_from_seed(seed, &k);
    return k;
}

static void check_voucher(const struct identity *k, struct bytes envelope, bool signed_by_k)
{
    uint8_t buf[VOUCHER_ENVELOPE_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct voucher v, again;

    if (!voucher_open(envelope, &v))
        return;
    CHECK(!signed_by_k || peer_id_eq(&v.relay, &k->id));
    voucher_seal(&w, k, &v.peer, v.expire_unix_s);
    CHECK(!w.bad);
    CHECK(voucher_open(bytes_of(buf, w.wrote), &again));
    CHECK(peer_id_eq(&again.peer, &v.peer));
    CHECK(again.expire_unix_s == v.expire_unix_s);
}

static void check_record(const struct identity *k, struct bytes envelope, bool signed_by_k)
{
    static uint8_t buf[ENVELOPE_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct bytes addrs[64], addr;
    struct peer_record r, again;
    size_t n = 0;

    if (!peer_record_open(envelope, &r))
        return;
    CHECK(!signed_by_k || peer_id_eq(&r.id, &k->id));
    struct cur rest = cur_of(r.addresses);

    while (peer_record_next(&rest, &addr)) {
        CHECK(!addr.n || (addr.p > r.addresses.p && addr.p + addr.n <= rest.p));
        if (n < ARRAY_LEN(addrs))
            addrs[n++] = addr;
    }
    CHECK(!rest.bad);
    CHECK(rest.n == 0);
    peer_record_seal(&w, k, r.seq, addrs, n);
    if (w.bad)
        return; /* ours is framed shorter or as long, but the type may be longer */
    CHECK(peer_record_open(bytes_of(buf, w.wrote), &again));
    CHECK(again.seq == r.seq);
    rest = cur_of(again.addresses);
    for (size_t i = 0; i < n; i++) {
        CHECK(peer_record_next(&rest, &addr));
        CHECK(bytes_eq(addr, addrs[i]));
    }
    CHECK(!peer_record_next(&rest, &addr));
}

static void check_envelope(struct bytes in)
{
    struct envelope e;

    if (!envelope_decode(in, &e))
        return;
    CHECK(in.n <= ENVELOPE_MAX);
    CHECK(e.signature.n > 0);
    CHECK(e.key.pb.p > in.p && e.key.pb.p + e.key.pb.n <= in.p + in.n);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (envelope_verify(&e, bytes_str(kinds[i].domain)))
            CHECK(!envelope_verify(&e, bytes_str("another domain")));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[ENVELOPE_MAX];
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t kind = fuzz_u8(&c);
    struct bytes in = fuzz_rest(&c);
    struct wcur w = wcur_of(buf, sizeof(buf));

    crypto_init();
    struct identity k = signer();

    if (kind < ARRAY_LEN(kinds)) {
        envelope_seal(&w, &k, bytes_str(kinds[kind].domain), kinds[kind].type, in);
        if (w.bad)
            return 0;
        in = bytes_of(buf, w.wrote);
    }
    check_envelope(in);
    check_voucher(&k, in, kind < ARRAY_LEN(kinds));
    check_record(&k, in, kind < ARRAY_LEN(kinds));
    return 0;
}
