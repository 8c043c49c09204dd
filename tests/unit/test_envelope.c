#include "proto/crypto.h"
#include "proto/envelope.h"
#include "proto/varint.h"
#include "tests/unit/relay_hex.h"

#define VOUCHER_PAYLOAD "0a26" K_ID "1226" A_ID "1880a4a7da06"
#define VOUCHER_SIG                                                                                \
    "bc1b0fb8eb644e3455541bcfa90246b3283fd4686af988fe67551489f81ab398"                             \
    "51b606384b34f0ecb9d7350d831d84c4fd1c3edd9bd99df71e59f6c14c3fdd05"
#define VOUCHER "0a24" K_PB "12020302 1a56" VOUCHER_PAYLOAD "2a40" VOUCHER_SIG

#define RECORD_PAYLOAD "0a26" K_ID "1001 1a0a 0a08 04cb007107062328"
#define RECORD_SIG                                                                                 \
    "b5d6f4451e633f4dd5c0d0a62079959134992c79320a8930bbfb689d30eabd12"                             \
    "56d41be2b4d6e76a4bd8ef88622e5bb68802c422b81a77992c4c0b7d87c92102"
#define RECORD "0a24" K_PB "12020301 1a36" RECORD_PAYLOAD "2a40" RECORD_SIG
#define LEGACY_TYPE "2f6c69627032702f726f7574696e672d73746174652d7265636f7264"
#define LEGACY_SIG                                                                                 \
    "de7e7a1bc0f53e38727ad026bb3aab56ac1e98d17def0257912b7194e20ea04e"                             \
    "b94ed824a35aeaa3c6f843553e920380ee654e725f6f048164216860a073ce08"
#define LEGACY_RECORD "0a24" K_PB "121c" LEGACY_TYPE "1a36" RECORD_PAYLOAD "2a40" LEGACY_SIG

static bool voucher_opens(const char *wire, struct voucher *v)
{
    struct hex h = unhex(wire);
    uint8_t *copy;
    struct bytes in = tight(hex_bytes(&h), &copy);
    bool ok = voucher_open(in, v);

    free(copy);
    return ok;
}

/* An envelope of K's around any payload. */
static struct hex sealed_by_k(const char *domain, const char *type, const char *payload)
{
    struct identity k = identity_k();
    struct hex t = unhex(type), p = unhex(payload), out;
    struct wcur w = wcur_of(out.b, sizeof(out.b));

    envelope_seal(&w, &k, bytes_str(domain), hex_bytes(&t), hex_bytes(&p));
    cr_assert(not(w.bad));
    out.n = w.wrote;
    return out;
}

Test(voucher_seal, writes_the_published_voucher)
{
    struct identity k = identity_k();
    struct peer_id a = id_of(A_ID);
    uint8_t buf[VOUCHER_ENVELOPE_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));

    voucher_seal(&w, &k, &a, 1800000000);
    expect_wrote(&w, buf, VOUCHER);
    cr_expect(eq(sz, w.wrote, 196));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(196, cut, voucher_seal(&cut, &k, &a, 1800000000));
}

Test(voucher_seal, fits_its_maximum_for_any_peer_and_time)
{
    struct identity k = identity_k();
    struct peer_id long_id = { .n = PEER_ID_MAX, .b = { 0x00, 42 } };
    uint8_t buf[VOUCHER_ENVELOPE_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct voucher v;

    voucher_seal(&w, &k, &long_id, UINT64_MAX);
    cr_assert(not(w.bad));
    cr_assert(voucher_open(bytes_of(buf, w.wrote), &v));
    cr_expect(peer_id_eq(&v.peer, &long_id));
    cr_expect(eq(u64, v.expire_unix_s, UINT64_MAX));
}

Test(voucher_open, reads_the_published_voucher)
{
    struct peer_id k = id_of(K_ID), a = id_of(A_ID);
    struct voucher v;

    cr_assert(voucher_opens(VOUCHER, &v));
    cr_expect(peer_id_eq(&v.relay, &k));
    cr_expect(peer_id_eq(&v.peer, &a));
    cr_expect(eq(u64, v.expire_unix_s, 1800000000));
}

Test(voucher_open, refuses_every_truncation_and_every_flipped_bit)
{
    struct hex h = unhex(VOUCHER);
    struct voucher v;

    for (size_t n = 0; n < h.n; n++) {
        uint8_t *copy;
        struct bytes in = tight(bytes_of(h.b, n), &copy);

        cr_expect(not(voucher_open(in, &v)), "accepted %zu bytes", n);
        free(copy);
    }
    for (size_t bit = 0; bit < 8 * h.n; bit++) {
        h.b[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect(not(voucher_open(hex_bytes(&h), &v)), "accepted with bit %zu flipped", bit);
        h.b[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    cr_expect(voucher_open(hex_bytes(&h), &v));
}

Test(voucher_open, wants_the_relay_to_be_the_signer)
{
    struct hex h = sealed_by_k("libp2p-relay-rsvp", "0302", "0a26" B_ID "1226" A_ID "1880a4a7da06");
    struct voucher v;

    cr_expect(not(voucher_open(hex_bytes(&h), &v)));
}

Test(voucher_open, wants_its_own_domain_and_type_and_every_field)
{
    static const struct {
        const char *domain, *type, *payload;
        bool ok;
    } all[] = {
        { "libp2p-relay-rsvp", "0302", VOUCHER_PAYLOAD, true },
        { "libp2p-relay-rsvq", "0302", VOUCHER_PAYLOAD, false },
        { "libp2p-peer-record", "0302", VOUCHER_PAYLOAD, false },
        { "libp2p-relay-rsvp", "0301", VOUCHER_PAYLOAD, false },
        { "libp2p-relay-rsvp", "8206", VOUCHER_PAYLOAD, false },
        { "libp2p-relay-rsvp", "0302", "0a26" K_ID "1226" A_ID, false },
        { "libp2p-relay-rsvp", "0302", "0a26" K_ID "1880a4a7da06", false },
        { "libp2p-relay-rsvp", "0302", "1226" A_ID "1880a4a7da06", false },
        { "libp2p-relay-rsvp", "0302", "0a26" K_ID "1201ff 1880a4a7da06", false },
        { "libp2p-relay-rsvp", "0302", "", false },
        { "libp2p-relay-rsvp", "0302", VOUCHER_PAYLOAD "220100", true }, /* an unknown field */
    };
    struct voucher v;

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct hex h = sealed_by_k(all[i].domain, all[i].type, all[i].payload);
        cr_expect(eq(int, voucher_open(hex_bytes(&h), &v), all[i].ok), "case %zu", i);
    }
}

Test(envelope_decode, reads_what_envelope_seal_writes)
{
    struct hex h = sealed_by_k("domain", "0102", "030405"), key = unhex(K_PB);
    struct envelope e;

    cr_assert(envelope_decode(hex_bytes(&h), &e));
    cr_expect(eq(int, e.key.type, KEY_ED25519));
    cr_expect(bytes_eq(e.key.pb, hex_bytes(&key)));
    cr_expect(bytes_eq(e.payload_type, bytes_of("\1\2", 2)));
    cr_expect(bytes_eq(e.payload, bytes_of("\3\4\5", 3)));
    cr_expect(eq(sz, e.signature.n, 64));
    cr_expect(envelope_verify(&e, bytes_str("domain")));
    cr_expect(not(envelope_verify(&e, bytes_str("domaim"))));
    cr_expect(not(envelope_verify(&e, bytes_str(""))));
}

Test(envelope_verify, keeps_the_three_parts_apart)
{
    struct hex h = sealed_by_k("ab", "6364", "6566");
    struct envelope e;

    cr_assert(envelope_decode(hex_bytes(&h), &e));
    cr_assert(envelope_verify(&e, bytes_str("ab")));
    e.payload_type = bytes_str("c"); /* the same bytes, cut elsewhere */
    e.payload = bytes_str("def");
    cr_expect(not(envelope_verify(&e, bytes_str("ab"))));
    e.payload_type = bytes_str("bcd");
    e.payload = bytes_str("ef");
    cr_expect(not(envelope_verify(&e, bytes_str("a"))));
}

Test(envelope_decode, tolerates_order_and_unknown_fields_but_no_missing_key)
{
    struct envelope e;
    struct hex h =
        unhex("2a40" VOUCHER_SIG "2205aabbccddee 1a56" VOUCHER_PAYLOAD "12020302 0a24" K_PB);

    cr_assert(envelope_decode(hex_bytes(&h), &e));
    cr_expect(envelope_verify(&e, bytes_str("libp2p-relay-rsvp")));
    h = unhex("12020302 1a56" VOUCHER_PAYLOAD "2a40" VOUCHER_SIG);
    cr_expect(not(envelope_decode(hex_bytes(&h), &e)));
    h = unhex("0a24" K_PB "12020302 1a56" VOUCHER_PAYLOAD);
    cr_expect(not(envelope_decode(hex_bytes(&h), &e)));
    h = unhex("0a24" K_PB "12020302 1a56" VOUCHER_PAYLOAD "2a00");
    cr_expect(not(envelope_decode(hex_bytes(&h), &e)));
    h = unhex("0a0508011201ff 2a0100"); /* an Ed25519 key of one byte */
    cr_expect(not(envelope_decode(hex_bytes(&h), &e)));
    h = unhex("0801 0a24" K_PB "2a0100"); /* a key as a number */
    cr_expect(not(envelope_decode(hex_bytes(&h), &e)));
}

Test(envelope_decode, accepts_the_longest_and_not_one_byte_more)
{
    static uint8_t in[ENVELOPE_MAX + 1];
    struct hex head = unhex("0a24" K_PB "2a0101 1a"); /* a payload to the end */
    struct envelope e;

    for (size_t total = ENVELOPE_MAX; total <= ENVELOPE_MAX + 1; total++) {
        struct wcur w = wcur_of(in, sizeof(in));

        wcur_put(&w, hex_bytes(&head));
        wcur_varint(&w, total - head.n - 2);
        cr_assert(eq(sz, total - w.wrote, total - head.n - 2));
        cr_expect(eq(int, envelope_decode(bytes_of(in, total), &e), total == ENVELOPE_MAX));
    }
    cr_assert(envelope_decode(bytes_of(in, 42), &e) == false);
}

Test(envelope_verify, takes_every_payload_that_decodes_and_refuses_a_domain_past_its_bound)
{
    static uint8_t payload[ENVELOPE_MAX], buf[ENVELOPE_MAX], large[2 * ENVELOPE_MAX];
    static char domain[ENVELOPE_DOMAIN_MAX + ENVELOPE_MAX + 1];
    struct identity k = identity_k();
    size_t most = ENVELOPE_MAX - 38 - 66 - 2 - 3; /* key, signature, empty type, payload's head */
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct envelope e;

    memset(domain, 'd', sizeof(domain) - 1);
    envelope_seal(&w, &k, bytes_of(domain, 58), bytes_of("", 0), bytes_of(payload, most));
    cr_assert(not(w.bad));
    cr_assert(eq(sz, w.wrote, ENVELOPE_MAX));
    cr_assert(envelope_decode(bytes_of(buf, w.wrote), &e));
    cr_expect(envelope_verify(&e, bytes_of(domain, 58)));
    cr_expect(not(envelope_verify(&e, bytes_of(domain, 59))));
    cr_expect(not(envelope_verify(&e, bytes_str(domain))));

    w = wcur_of(large, sizeof(large));
    envelope_seal(&w, &k, bytes_of(domain, 58), bytes_of("", 0), bytes_of(payload, most + 1));
    cr_expect(w.bad);
    w = wcur_of(buf, sizeof(buf));
    envelope_seal(&w, &k, bytes_str(domain), bytes_of("", 0), bytes_of(payload, 1));
    cr_expect(w.bad);
}

Test(peer_record_seal, writes_the_published_record)
{
    struct identity k = identity_k();
    struct hex addr = unhex("04cb007107062328");
    struct bytes addrs[] = { hex_bytes(&addr) };
    uint8_t buf[512];
    struct wcur w = wcur_of(buf, sizeof(buf));

    peer_record_seal(&w, &k, 1, addrs, 1);
    expect_wrote(&w, buf, RECORD);
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(164, cut, peer_record_seal(&cut, &k, 1, addrs, 1));
}

Test(peer_record_open, reads_both_published_domains)
{
    static const char *const wires[] = { RECORD, LEGACY_RECORD };
    struct peer_id k = id_of(K_ID);
    struct hex addr = unhex("04cb007107062328");

    for (size_t i = 0; i < ARRAY_LEN(wires); i++) {
        struct hex h = unhex(wires[i]);
        struct peer_record r;
        struct bytes a;

        cr_assert(peer_record_open(hex_bytes(&h), &r), "record %zu", i);
        cr_expect(peer_id_eq(&r.id, &k));
        cr_expect(eq(u64, r.seq, 1));
        struct cur rest = cur_of(r.addresses);

        cr_assert(peer_record_next(&rest, &a));
        cr_expect(bytes_eq(a, hex_bytes(&addr)));
        cr_expect(not(peer_record_next(&rest, &a)));
        cr_expect(not(rest.bad));
    }
}

Test(peer_record_open, refuses_every_truncation_and_every_flipped_bit)
{
    static const char *const wires[] = { RECORD, LEGACY_RECORD };
    struct peer_record r;

    for (size_t i = 0; i < ARRAY_LEN(wires); i++) {
        struct hex h = unhex(wires[i]);

        for (size_t n = 0; n < h.n; n++) {
            uint8_t *copy;
            struct bytes in = tight(bytes_of(h.b, n), &copy);

            cr_expect(not(peer_record_open(in, &r)), "accepted %zu bytes", n);
            free(copy);
        }
        for (size_t bit = 0; bit < 8 * h.n; bit++) {
            h.b[bit / 8] ^= (uint8_t)(1 << bit % 8);
            cr_expect(not(peer_record_open(hex_bytes(&h), &r)), "accepted with bit %zu", bit);
            h.b[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

Test(peer_record_open, wants_the_type_to_choose_the_domain_and_the_peer_to_sign)
{
    static const struct {
        const char *domain, *type, *payload;
        bool ok;
    } all[] = {
        { "libp2p-peer-record", "0301", RECORD_PAYLOAD, true },
        { "libp2p-routing-state", LEGACY_TYPE, RECORD_PAYLOAD, true },
        { "libp2p-peer-record", LEGACY_TYPE, RECORD_PAYLOAD, false },
        { "libp2p-routing-state", "0301", RECORD_PAYLOAD, false },
        { "libp2p-peer-record", "0302", RECORD_PAYLOAD, false },
        { "libp2p-peer-record", "", RECORD_PAYLOAD, false },
        { "libp2p-peer-record", "0301", "0a26" B_ID "1001", false },
        { "libp2p-peer-record", "0301", "1001", false },
        { "libp2p-peer-record", "0301", "0a26" K_ID, true }, /* seq 0, proto3 style */
        { "libp2p-peer-record", "0301", "0a26" K_ID "1a020801",
          false }, /* a multiaddr that is none */
        { "libp2p-peer-record", "0301", "0a26" K_ID "1801", false },
    };
    struct peer_record r;

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct hex h = sealed_by_k(all[i].domain, all[i].type, all[i].payload);
        cr_expect(eq(int, peer_record_open(hex_bytes(&h), &r), all[i].ok), "case %zu", i);
    }
}

Test(peer_record_next, walks_addresses_wherever_they_stand)
{
    /* Before the id and behind the sequence number; with an unknown field, empty, two in one, and
     * with every varint longer than need be. */
    struct hex h = sealed_by_k("libp2p-peer-record", "0301",
                               "1a03 0a0101 7a02ffff 0a26" K_ID "1a05 1005 0a0103 1a00"
                               "10ffffffffffffffffff01 1a06 0a0102 0a0104 9a008500 8a00810005");
    struct peer_record r;
    struct bytes a;

    cr_assert(peer_record_open(hex_bytes(&h), &r));
    cr_expect(eq(u64, r.seq, UINT64_MAX));
    struct cur rest = cur_of(r.addresses);
    static const int want[] = { 1, 3, -1, 4, 5 }; /* -1: empty; of two in one the last wins */

    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        cr_assert(peer_record_next(&rest, &a), "address %zu", i);
        cr_assert(eq(sz, a.n, want[i] < 0 ? 0 : 1), "address %zu", i);
        if (a.n)
            cr_expect(eq(int, a.p[0], want[i]), "address %zu", i);
    }
    cr_expect(not(peer_record_next(&rest, &a)));
    cr_expect(not(rest.bad));
}

Test(peer_record_next, tells_the_end_from_a_cut_record)
{
    struct hex h = unhex("1a03 0a0101 1a05 0a01");
    struct cur rest = cur_of(hex_bytes(&h));
    struct bytes a;

    cr_assert(peer_record_next(&rest, &a));
    cr_expect(not(peer_record_next(&rest, &a)));
    cr_expect(rest.bad);
    cr_expect(not(peer_record_next(&rest, &a)));
}

Test(peer_record_seal, round_trips_many_addresses_and_refuses_too_many)
{
    static uint8_t blob[200], buf[2 * ENVELOPE_MAX];
    struct identity k = identity_k();
    struct bytes addrs[64];
    struct peer_record r;
    struct bytes a;

    for (size_t n = 0; n <= ARRAY_LEN(addrs); n++) {
        struct wcur w = wcur_of(buf, sizeof(buf));
        size_t total = 0, seen = 0;

        for (size_t i = 0; i < n; i++) {
            addrs[i] = bytes_of(blob, 100 + i);
            total += addrs[i].n + (addrs[i].n < 126 ? 4 : addrs[i].n < 128 ? 5 : 6);
        }
        peer_record_seal(&w, &k, UINT64_MAX, addrs, n);
        if (w.bad) {
            cr_expect(lt(sz, ENVELOPE_MAX, total + 200));
            continue;
        }
        cr_assert(peer_record_open(bytes_of(buf, w.wrote), &r), "%zu addresses", n);
        for (struct cur rest = cur_of(r.addresses); peer_record_next(&rest, &a); seen++)
            cr_expect(eq(sz, a.n, 100 + seen));
        cr_expect(eq(sz, seen, n));
    }
}
