/* RPCs of gossipsub: what is valid is walked in bounds; a message that is passed on reads the same
 * and is no longer; with our key it verifies. A first byte picks what the rest is. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/gossip.h"
#include "proto/gossip_fed.h"
#include "proto/varint.h"

static uint8_t wire[GOSSIP_WIRE_MAX], again[GOSSIP_WIRE_MAX], scratch[GOSSIP_SIGN_MAX];
static uint8_t pool[GOSSIP_FED_POOL], pool2[GOSSIP_FED_POOL];

static void check_message(struct bytes body)
{
    struct gossip_msg m, copy;
    struct peer_id author, same;

    if (!gossip_msg_decode(body, &m, &author))
        return;
    struct wcur w = wcur_of(wire, sizeof(wire));

    gossip_put_publish(&w, &m);
    CHECK(!w.bad && w.wrote == gossip_publish_bytes(&m));
    CHECK(w.wrote <= GOSSIP_WIRE_MAX);

    struct cur c = cur_of(bytes_of(wire, w.wrote));
    struct gossip_walk walk;
    struct gossip_item item;
    struct bytes rpc = cur_lp(&c);
    uint32_t n;

    CHECK(!c.bad && c.n == 0 && gossip_rpc_valid(rpc, &n) && n == 1);
    gossip_walk_start(&walk, rpc);
    CHECK(gossip_walk_next(&walk, &item) && item.kind == GOSSIP_ITEM_PUBLISH);
    CHECK(item.body.n <= body.n);
    CHECK(gossip_msg_decode(item.body, &copy, &same) && peer_id_eq(&author, &same));
    CHECK(gossip_msg_id(&m, &author) == gossip_msg_id(&copy, &same));
    CHECK(gossip_msg_verify(&m, scratch) == gossip_msg_verify(&copy, scratch));

    struct wcur w2 = wcur_of(again, sizeof(again));

    gossip_put_publish(&w2, &copy);
    CHECK(bytes_eq(bytes_of(wire, w.wrote), bytes_of(again, w2.wrote)));
    CHECK(!gossip_walk_next(&walk, &item));
}

static void check_rpc(struct bytes rpc)
{
    struct gossip_walk walk;
    struct gossip_item item;
    uint32_t n, seen = 0;
    uint64_t id;
    bool known;

    if (!gossip_rpc_valid(rpc, &n))
        return;
    CHECK(n <= GOSSIP_ITEMS_MAX);
    gossip_walk_start(&walk, rpc);
    while (gossip_walk_next(&walk, &item)) {
        struct cur ids = cur_of(item.body);

        seen++;
        if (item.kind == GOSSIP_ITEM_PUBLISH)
            check_message(item.body);
        else if (item.kind == GOSSIP_ITEM_IHAVE || item.kind == GOSSIP_ITEM_IWANT)
            while (gossip_id_next(&ids, item.kind == GOSSIP_ITEM_IHAVE ? 2 : 1, &id, &known))
                ;
        CHECK(!ids.bad); /* valid means so */
    }
    CHECK(seen == n);
}

static void check_fed(struct bytes text)
{
    struct gossip_fed r, back;

    if (!gossip_fed_parse(text, pool, &r))
        return;
    CHECK(r.ns.n <= GOSSIP_FED_NS_MAX && r.record.n <= ENVELOPE_MAX);
    struct wcur w = wcur_of(wire, sizeof(wire));

    gossip_fed_put(&w, &r);
    CHECK(!w.bad);
    CHECK(gossip_fed_parse(bytes_of(wire, w.wrote), pool2, &back));
    CHECK(peer_id_eq(&r.peer, &back.peer) && peer_id_eq(&r.source, &back.source));
    CHECK(bytes_eq(r.ns, back.ns) && r.ttl_s == back.ttl_s && bytes_eq(r.record, back.record));
}

static void check_own(struct bytes data)
{
    struct identity me;
    const uint8_t seed[32] = { 1 };
    struct wcur w = wcur_of(wire, sizeof(wire));
    struct gossip_msg m;
    struct peer_id author;

    crypto_init();
    identity_from_seed(seed, &me);
    gossip_put_own(&w, &me, bytes_str("dusk/sync"), 7, data, scratch);
    if (w.bad)
        return;
    struct cur c = cur_of(bytes_of(wire, w.wrote));
    struct bytes rpc = cur_lp(&c);
    struct gossip_walk walk;
    struct gossip_item item;

    gossip_walk_start(&walk, rpc);
    CHECK(gossip_walk_next(&walk, &item) && gossip_msg_decode(item.body, &m, &author));
    CHECK(gossip_msg_verify(&m, scratch) && bytes_eq(m.data, data));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t what = fuzz_u8(&c);
    struct bytes rest = fuzz_rest(&c);

    crypto_init();
    if (what == 'm')
        check_message(rest);
    else if (what == 'f')
        check_fed(rest);
    else if (what == 'o')
        check_own(rest);
    else
        check_rpc(rest);
    return 0;
}
