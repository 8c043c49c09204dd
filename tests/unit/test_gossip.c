/* dusk.md §10.2: what gossipsub's peers say, byte for byte, and what is believed of it. */
#include "proto/crypto.h"
#include "proto/gossip.h"
#include "proto/varint.h"
#include "tests/unit/relay_hex.h"

#define TEST_PB "0801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
#define SYNC "6475736b2f73796e63"
#define HELLO_UNSIGNED "0a26 0024" TEST_PB "12 05 68656c6c6f 1a 08 0000000000000001 22 09" SYNC
#define HELLO_SIG                                                                                  \
    "e41af93b7cc65848b43f8d3d70740678a28ef16c1b6abe78e07e0e136369ddbd"                             \
    "4e225b411a9a81e8ef636e8ebba78025267cd308dd8a8045d4391a3db6c74a0e"
#define HELLO HELLO_UNSIGNED "2a40" HELLO_SIG
#define SYNC_TOPIC bytes_str("dusk/sync")

static uint8_t scratch[GOSSIP_SIGN_MAX];
static uint8_t wire[GOSSIP_WIRE_MAX + 64];

static struct identity test_identity(void)
{
    uint8_t seed[32];
    struct identity me;

    for (unsigned i = 0; i < 32; i++)
        seed[i] = (uint8_t)i;
    crypto_init();
    identity_from_seed(seed, &me);
    return me;
}

static bool judge(struct bytes body)
{
    struct gossip_msg m;
    struct peer_id author;

    crypto_init();
    return gossip_msg_decode(body, &m, &author) && gossip_msg_verify(&m, scratch);
}

static bool judge_hex(const char *text)
{
    struct hex h = unhex(text);
    uint8_t *copy;
    bool ok = judge(tight(hex_bytes(&h), &copy));

    free(copy);
    return ok;
}

Test(gossip_put, writes_the_pages_messages)
{
    static const uint64_t id[] = { 1126394796234966141u };
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    gossip_put_subscribe(&w, SYNC_TOPIC, true);
    expect_wrote(&w, buf, "0f 0a 0d 08 01 12 09" SYNC);
    w = wcur_of(buf, sizeof(buf));
    gossip_put_subscribe(&w, SYNC_TOPIC, false);
    expect_wrote(&w, buf, "0f 0a 0d 08 00 12 09" SYNC);
    w = wcur_of(buf, sizeof(buf));
    gossip_put_graft(&w, SYNC_TOPIC);
    expect_wrote(&w, buf, "0f 1a 0d 1a 0b 0a 09" SYNC);
    w = wcur_of(buf, sizeof(buf));
    gossip_put_prune(&w, SYNC_TOPIC, 60);
    expect_wrote(&w, buf, "11 1a 0f 22 0d 0a 09" SYNC "18 3c");
    w = wcur_of(buf, sizeof(buf));
    gossip_put_ihave(&w, SYNC_TOPIC, id, 1);
    expect_wrote(&w, buf,
                 "24 1a 22 0a 20 0a 09" SYNC "12 13 31313236333934373936323334393636313431");
    w = wcur_of(buf, sizeof(buf));
    gossip_put_iwant(&w, id, 1);
    expect_wrote(&w, buf, "19 1a 17 12 15 0a 13 31313236333934373936323334393636313431");
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(26, cut, gossip_put_iwant(&cut, id, 1));
}

Test(gossip_put_own, writes_and_signs_the_pages_example)
{
    struct identity me = test_identity();
    struct wcur w = wcur_of(wire, sizeof(wire));

    gossip_put_own(&w, &me, SYNC_TOPIC, 1, bytes_str("hello"), scratch);
    expect_wrote(&w, wire, "8901 12 8601" HELLO);
    cr_expect(judge(bytes_of(wire + 5, w.wrote - 5)));
}

Test(gossip_put_publish, passes_on_what_came_byte_for_byte)
{
    struct hex h = unhex(HELLO);
    struct gossip_msg m;
    struct peer_id author;
    struct wcur w = wcur_of(wire, sizeof(wire));

    cr_assert(gossip_msg_decode(hex_bytes(&h), &m, &author));
    gossip_put_publish(&w, &m);
    expect_wrote(&w, wire, "8901 12 8601" HELLO);
    cr_expect(eq(sz, gossip_publish_bytes(&m), w.wrote));
}

Test(gossip_put_publish, leaves_out_what_nobody_has_judged)
{
    struct hex h = unhex(HELLO "7a03 414243 c00c 01 2206 646973636f21 2209" SYNC);
    struct gossip_msg m;
    struct peer_id author;
    struct wcur w = wcur_of(wire, sizeof(wire));

    cr_assert(gossip_msg_decode(hex_bytes(&h), &m, &author));
    gossip_put_publish(&w, &m);
    expect_wrote(&w, wire, "8901 12 8601" HELLO);
}

/* Check 46, and each rule of strict validation with its counterexample. */
Test(gossip_msg, is_refused_for_each_thing_that_is_wrong)
{
#define FROM "0a26 0024" TEST_PB
#define DATA "12 05 68656c6c6f"
#define TOPIC "22 09" SYNC
#define SIG "2a40" HELLO_SIG
    cr_expect(judge_hex(HELLO));
    cr_expect(judge_hex(SIG TOPIC DATA FROM "1a080000000000000001"), "any order of fields");
    cr_expect(not(judge_hex(FROM DATA TOPIC SIG)), "no seqno");
    cr_expect(not(judge_hex(FROM DATA "1a00" TOPIC SIG)), "an empty seqno");
    cr_expect(not(judge_hex(FROM DATA "1a0700000000000001" TOPIC SIG)), "seven bytes");
    cr_expect(not(judge_hex(FROM DATA "1a09000000000000000001" TOPIC SIG)), "nine");
    cr_expect(not(judge_hex(FROM DATA "1a080000000000000002" TOPIC SIG)), "another seqno");
    cr_expect(not(judge_hex(FROM "12 05 68656c6c70"
                                 "1a080000000000000001" TOPIC SIG)));
    cr_expect(not(judge_hex(FROM DATA "1a080000000000000001 22 09 6475736b2f73796e64" SIG)));
    cr_expect(not(judge_hex(FROM DATA "1a080000000000000001" TOPIC)), "no signature");
    cr_expect(not(judge_hex(FROM DATA "1a080000000000000001" TOPIC "2a00")));
    cr_expect(not(judge_hex(FROM DATA "1a080000000000000001" SIG)), "no topic");
    cr_expect(not(judge_hex(DATA "1a080000000000000001" TOPIC SIG)), "no from");
    cr_expect(not(judge_hex("0a26" K_ID DATA "1a080000000000000001" TOPIC SIG)), "forged from");
    cr_expect(not(judge_hex("0a02 0000" DATA "1a080000000000000001" TOPIC SIG)), "no peer id");
}

/* Signed as it stands, by whom you like. */
static bool judge_signed(const struct identity *signer, struct bytes from, struct bytes seqno,
                         struct bytes key)
{
    uint8_t unsigned_part[256], body[512], sig[64];
    struct wcur w = wcur_of(unsigned_part, sizeof(unsigned_part));
    struct bytes fields[] = { from, bytes_str("hello"), seqno, SYNC_TOPIC };

    wcur_put(&w, bytes_str("libp2p-pubsub:"));
    for (unsigned i = 0; i < 4; i++) {
        if (!fields[i].p)
            continue;
        wcur_u8(&w, (uint8_t)((i + 1) << 3 | 2));
        wcur_lp(&w, fields[i]);
    }
    crypto_ed25519_sign(signer->sk, bytes_of(unsigned_part, w.wrote), sig);
    struct wcur out = wcur_of(body, sizeof(body));

    wcur_put(&out, bytes_of(unsigned_part + 14, w.wrote - 14));
    wcur_u8(&out, 0x2a);
    wcur_lp(&out, bytes_of(sig, sizeof(sig)));
    if (key.p) {
        wcur_u8(&out, 0x32);
        wcur_lp(&out, key);
    }
    cr_assert(not(w.bad || out.bad));
    return judge(bytes_of(body, out.wrote));
}

Test(gossip_msg, has_eight_bytes_of_seqno_even_if_its_signature_holds)
{
    struct identity me = test_identity();
    const struct bytes none = { NULL, 0 };
    uint8_t zeroes[16] = { 0 };

    cr_expect(not(judge_signed(&me, peer_id_bytes(&me.id), none, none)));
    for (size_t n = 0; n <= sizeof(zeroes); n++)
        cr_expect(
            eq(int, judge_signed(&me, peer_id_bytes(&me.id), bytes_of(zeroes, n), none), n == 8),
            "%zu", n);
}

Test(gossip_msg, is_not_believed_with_the_key_of_who_signed_it_for_another)
{
    struct identity me = test_identity(), k = identity_k();
    uint8_t seqno[8] = { 0 };
    const struct bytes number = bytes_of(seqno, 8), none = { NULL, 0 };

    cr_expect(judge_signed(&k, peer_id_bytes(&k.id), number, bytes_of(k.key_pb, KEY_ED25519_PB)));
    cr_expect(
        not(judge_signed(&k, peer_id_bytes(&me.id), number, bytes_of(k.key_pb, KEY_ED25519_PB))));
    cr_expect(not(judge_signed(&k, peer_id_bytes(&me.id), number, none)));
}

Test(gossip_msg, takes_a_key_that_hashes_to_from_and_no_other)
{
    cr_expect(judge_hex(HELLO "3224" TEST_PB));
    cr_expect(judge_hex(HELLO "3200"), "an empty one is none");
    cr_expect(not(judge_hex(HELLO "3224" K_PB)));
    cr_expect(not(judge_hex(HELLO "3203 080112")));
}

Test(gossip_msg, is_refused_at_every_truncation_and_every_flipped_bit_of_its_signature)
{
    struct hex h = unhex(HELLO);

    for (size_t n = 0; n < h.n; n++) {
        uint8_t *copy;
        struct bytes cut = tight(bytes_of(h.b, n), &copy);

        cr_expect(not(judge(cut)), "accepted %zu bytes", n);
        free(copy);
    }
    for (size_t bit = 0; bit < 512; bit += 7) {
        h.b[h.n - 64 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect(not(judge(hex_bytes(&h))), "bit %zu", bit);
        h.b[h.n - 64 + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* Published vectors of the reference implementation: zero key, and 00 01 .. 0f. */
Test(gossip_sip13, agrees_with_published_vectors_in_any_cut)
{
    static const uint64_t keyed[] = { 0xabac0158050fc4dc, 0xc9f49bf37d57ca93, 0x82cb9b024dc7d44d,
                                      0x8bf80ab8e7ddf7fb };
    uint8_t in[64];

    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)i;
    struct bytes none = bytes_of(in, 0), one = bytes_of(in, 1), word = bytes_str("siphash");

    cr_expect(eq(u64, gossip_sip13(0, 0, &none, 1), 0xd1fba762150c532c));
    cr_expect(eq(u64, gossip_sip13(0, 0, &one, 1), 0x68a914128e01e473));
    cr_expect(eq(u64, gossip_sip13(0, 0, &word, 1), 0x8264ceeccb16bcbe));
    for (unsigned n = 0; n < ARRAY_LEN(keyed); n++) {
        struct bytes part = bytes_of(in, n);

        cr_expect(
            eq(u64, gossip_sip13(0x0706050403020100, 0x0f0e0d0c0b0a0908, &part, 1), keyed[n]));
    }
    for (size_t n = 0; n <= sizeof(in); n++) {
        struct bytes whole = bytes_of(in, n);
        uint64_t want = gossip_sip13(1, 2, &whole, 1);

        for (size_t a = 0; a <= n; a++) {
            struct bytes parts[] = { bytes_of(in, a), bytes_of(in + a, 0),
                                     bytes_of(in + a, (n - a) / 2),
                                     bytes_of(in + a + (n - a) / 2, n - a - (n - a) / 2) };

            cr_expect(eq(u64, gossip_sip13(1, 2, parts, 4), want), "%zu cut at %zu", n, a);
        }
    }
}

Test(gossip_msg_id, reproduces_the_three_vectors)
{
    struct hex h = unhex(HELLO);
    uint8_t five[8] = { 5 };
    struct bytes alone[] = { bytes_of(five, 8), bytes_str("hello") };
    struct gossip_msg m;
    struct peer_id author;
    struct identity me = test_identity();

    cr_expect(eq(u64, gossip_sip13(0, 0, alone, 2), 9754003402134539932u));
    cr_assert(gossip_msg_decode(hex_bytes(&h), &m, &author));
    cr_expect(peer_id_eq(&author, &me.id));
    cr_expect(eq(u64, gossip_msg_id(&m, &author), 2522449370233741854u));
    author =
        id_of("0024 08011220 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    cr_expect(eq(u64, gossip_msg_id(&m, &author), 1126394796234966141u));
    m.topic = bytes_str("dusk/directory");
    m.seqno = bytes_of(five, 8);
    cr_expect(eq(u64, gossip_msg_id(&m, &author), 1126394796234966141u), "topic, seqno: no part");
}

static uint32_t walk(struct bytes rpc, struct gossip_item *items, size_t max)
{
    struct gossip_walk w;
    struct gossip_item item;
    uint32_t n = 0;

    gossip_walk_start(&w, rpc);
    while (gossip_walk_next(&w, &item)) {
        if (n < max)
            items[n] = item;
        n++;
    }
    return n;
}

Test(gossip_walk, shows_everything_in_the_order_of_the_wire)
{
    struct hex h = unhex("0a0d 0801 1209" SYNC /* subscribe */
                         "1a2d"                /* control of four */
                         "0a10 0a09" SYNC "1201 31 1200"
                         "1a0b 0a09" SYNC "2204 183c 2a00"
                         "1206 0a01 37 0a01 78"
                         "1203 0a0161" /* publish */
                         "fa0103 414141 0a02 0800 a801 ff ff ff ff ff ff ff ff ff 01");
    struct gossip_item i[8];
    struct cur ids;
    uint64_t id;
    bool known;
    uint32_t n;

    cr_assert(eq(u8, h.b[16], 18 + 13 + 6 + 8));
    cr_assert(gossip_rpc_valid(hex_bytes(&h), &n));
    cr_assert(eq(u32, n, 7));
    cr_assert(eq(u32, walk(hex_bytes(&h), i, 8), 7));
    cr_expect(i[0].kind == GOSSIP_ITEM_SUBSCRIBE && i[0].on && bytes_eq(i[0].topic, SYNC_TOPIC));
    cr_expect(i[1].kind == GOSSIP_ITEM_IHAVE && bytes_eq(i[1].topic, SYNC_TOPIC));
    ids = cur_of(i[1].body);
    cr_assert(gossip_id_next(&ids, 2, &id, &known));
    cr_expect(known && id == 1);
    cr_assert(gossip_id_next(&ids, 2, &id, &known));
    cr_expect(not(known), "an empty id");
    cr_expect(not(gossip_id_next(&ids, 2, &id, &known)));
    cr_expect(i[2].kind == GOSSIP_ITEM_GRAFT && bytes_eq(i[2].topic, SYNC_TOPIC));
    cr_expect(i[3].kind == GOSSIP_ITEM_PRUNE && !i[3].topic.p);
    cr_expect(i[4].kind == GOSSIP_ITEM_IWANT);
    ids = cur_of(i[4].body);
    cr_assert(gossip_id_next(&ids, 1, &id, &known));
    cr_expect(known && id == 7);
    cr_assert(gossip_id_next(&ids, 1, &id, &known));
    cr_expect(not(known));
    cr_expect(i[5].kind == GOSSIP_ITEM_PUBLISH && bytes_eq(i[5].body, bytes_of("\x0a\x01"
                                                                               "a",
                                                                               3)));
    cr_expect(i[6].kind == GOSSIP_ITEM_SUBSCRIBE && !i[6].on && !i[6].topic.p);
}

Test(gossip_rpc_valid, refuses_every_truncation_but_at_fields_ends)
{
    struct hex h = unhex("0a0d 0801 1209" SYNC "1a0d 1a0b 0a09" SYNC);
    uint32_t n;

    for (size_t k = 0; k <= h.n; k++) {
        uint8_t *copy;
        bool ok = gossip_rpc_valid(tight(bytes_of(h.b, k), &copy), &n);

        cr_expect(eq(int, ok, k == 0 || k == 15 || k == h.n), "%zu bytes", k);
        free(copy);
    }
}

Test(gossip_rpc_valid, refuses_what_is_no_protobuf_of_ours)
{
    static const char *const bad[] = { "0b",
                                       "00",
                                       "0801",
                                       "1201ff",
                                       "1202 0801",
                                       "1a02 0a01",
                                       "0a02 0a00",
                                       "0a02 1001",
                                       "1a04 0a02 0801",
                                       "1a05 2203 1a0141",
                                       "120b 0affffffffffffffffff01",
                                       "0affffffffffffffffffff01",
                                       "0c" };
    uint32_t n;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct hex h = unhex(bad[i]);

        cr_expect(not(gossip_rpc_valid(hex_bytes(&h), &n)), "%s", bad[i]);
    }
}

Test(gossip_rpc_valid, bounds_length_and_items)
{
    static uint8_t rpc[GOSSIP_RPC_MAX + 1];
    uint32_t n;
    size_t fits = GOSSIP_RPC_MAX - 4;

    /* one unknown field over all of it */
    rpc[0] = 0x7a;
    varint_put(rpc + 1, fits);
    cr_expect(gossip_rpc_valid(bytes_of(rpc, GOSSIP_RPC_MAX), &n));
    varint_put(rpc + 1, fits + 1);
    cr_expect(not(gossip_rpc_valid(bytes_of(rpc, GOSSIP_RPC_MAX + 1), &n)));
    for (size_t i = 0; i < GOSSIP_RPC_MAX; i += 2) {
        rpc[i] = 0x0a;
        rpc[i + 1] = 0;
    }
    cr_expect(gossip_rpc_valid(bytes_of(rpc, 2 * GOSSIP_ITEMS_MAX), &n));
    cr_expect(eq(u32, n, GOSSIP_ITEMS_MAX));
    cr_expect(not(gossip_rpc_valid(bytes_of(rpc, 2 * GOSSIP_ITEMS_MAX + 2), &n)));
}

static bool id_of_text(const char *text, uint64_t *id)
{
    uint8_t body[64] = { 0x0a, (uint8_t)strlen(text) };
    struct cur c = cur_of(bytes_of(body, 2 + strlen(text)));
    bool known = false;

    memcpy(body + 2, text, strlen(text));
    cr_assert(gossip_id_next(&c, 1, id, &known));
    return known;
}

Test(gossip_id_next, knows_the_one_spelling_of_a_u64)
{
    uint64_t id;

    cr_expect(id_of_text("0", &id) && id == 0);
    cr_expect(id_of_text("18446744073709551615", &id) && id == UINT64_MAX);
    cr_expect(not(id_of_text("18446744073709551616", &id)));
    cr_expect(not(id_of_text("99999999999999999999", &id)));
    cr_expect(not(id_of_text("184467440737095516150", &id)));
    cr_expect(not(id_of_text("01", &id)));
    cr_expect(not(id_of_text("-1", &id)));
    cr_expect(not(id_of_text("1 ", &id)));
}

Test(gossip_put_own, takes_the_longest_message_and_none_longer)
{
    static uint8_t data[GOSSIP_RPC_MAX];
    struct identity me = test_identity();
    struct wcur w = wcur_of(wire, sizeof(wire));
    uint32_t n;
    /* from, seqno, topic, signature; the heads of data, of the message and of the RPC's field */
    size_t fits = GOSSIP_RPC_MAX - 40 - 10 - 11 - 66 - 4 - 4;

    gossip_put_own(&w, &me, SYNC_TOPIC, 1, bytes_of(data, fits), scratch);
    cr_assert(not(w.bad));
    cr_expect(eq(sz, w.wrote, GOSSIP_WIRE_MAX));
    cr_expect(gossip_rpc_valid(bytes_of(wire + 3, w.wrote - 3), &n));
    cr_expect(judge(bytes_of(wire + 7, w.wrote - 7)));
}
