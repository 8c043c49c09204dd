/* RPCs of gossipsub, and the hub under a program of calls (every balance after each): what is valid
 * is walked in bounds; a message that is passed on reads the same and is no longer; with our key it
 * verifies. A first byte picks what the rest is. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/gossip.h"
#include "proto/gossip_fed.h"
#include "proto/gossip_hub.h"
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

/* ---- the hub: the input is a program ---- */

enum { HUB_PEERS = 6, HUB_PAYLOADS = 512, HUB_WIRE = 512 };

struct hub_payload {
    int refs;
    uint8_t b[HUB_WIRE];
};

static struct {
    struct gossip_hub hub;
    struct gossip_peer peer[HUB_PEERS];
    struct identity me[HUB_PEERS];
    struct hub_payload payload[HUB_PAYLOADS];
    unsigned payloads, live;
    uint64_t now;
    struct gossip_seen seen[16];
    struct gossip_kept kept[8];
    uint32_t seen_index[16], kept_index[8];
    struct gossip_author authors[8];
    struct gossip_cell replies[8], asked[8];
    struct gossip_node nodes[32];
    struct gossip_peer *chains[4];
} x;

static void hub_ready(void *arg, struct gossip_peer *p)
{
    (void)arg;
    CHECK(p->joined);
}

static void hub_stalled(void *arg, struct gossip_peer *p)
{
    gossip_hub_deaf(arg, p);
}

static void hub_keep(void *payload)
{
    struct hub_payload *p = payload;

    x.live += p->refs++ == 0;
}

static void hub_drop(void *payload)
{
    struct hub_payload *p = payload;

    CHECK(p->refs > 0);
    x.live -= --p->refs == 0;
}

static void hub_start(void)
{
    static const struct gossip_calls calls = { hub_ready, hub_stalled, hub_keep, hub_drop };
    static struct gossip_limits limits;
    const struct gossip_tables t = { x.seen, x.seen_index, 16, x.kept,    x.kept_index,
                                     8,      x.authors,    8,  x.replies, x.asked,
                                     8,      x.nodes,      32, x.chains,  4 };
    const uint8_t key[16] = { 3 };

    memset(&x, 0, sizeof(x));
    limits = gossip_limits_default;
    limits.queue_messages = 4;
    limits.cache_bytes = 1000;
    limits.author.messages = (struct gossip_rate){ 2, 6 };
    limits.receiver.messages = (struct gossip_rate){ 4, 12 };
    x.now = 1000000;
    for (unsigned i = 0; i < HUB_PEERS; i++) {
        const uint8_t seed[32] = { (uint8_t)(i % 5) }; /* the last one is another connection */

        identity_from_seed(seed, &x.me[i]);
    }
    const uint8_t relay[32] = { 99 };
    struct identity me;

    identity_from_seed(relay, &me);
    gossip_hub_init(&x.hub, &limits, &t, &me.id, key, &calls, &x.hub);
}

static void hub_bring(struct gossip_peer *from, unsigned author, uint8_t what, bool remote)
{
    const uint8_t zeroes[64] = { 0 };
    const uint8_t data[2] = { what, (uint8_t)(what >> 4) };
    const struct gossip_msg m = {
        .from = peer_id_bytes(&x.me[author].id),
        .data = bytes_of(data, 1 + what % 2),
        .seqno = bytes_of(zeroes, 8),
        .topic = bytes_str(what % 7 ? gossip_topic_name[what % GOSSIP_TOPICS] : "another"),
        .signature = bytes_of(zeroes, sizeof(zeroes)),
    };
    struct hub_payload *p = &x.payload[x.payloads++ % HUB_PAYLOADS];
    struct wcur w = wcur_of(wire, HUB_WIRE), own;
    struct gossip_msg back;
    struct gossip_take t = { .author = x.me[author].id };
    struct cur c;
    struct gossip_walk walk;
    struct gossip_item item;

    gossip_put_publish(&w, &m);
    CHECK(!w.bad && p->refs == 0);
    c = cur_of(bytes_of(wire, w.wrote));
    gossip_walk_start(&walk, cur_lp(&c));
    CHECK(gossip_walk_next(&walk, &item));
    own = wcur_of(p->b, sizeof(p->b));
    wcur_put(&own, bytes_of(wire, w.wrote));
    hub_keep(p);
    if (remote) {
        t.id = gossip_msg_id(&m, &t.author);
        t.topic = (enum gossip_topic)(what % GOSSIP_TOPICS);
        gossip_hub_remote(&x.hub, x.now, &t, p, bytes_of(p->b, own.wrote));
    } else if (gossip_hub_offer(&x.hub, x.now, from, item.body, &back, &t)) {
        if (what & 0x40)
            gossip_hub_refuse(&x.hub, GOSSIP_INVALID);
        else if (gossip_hub_admit(&x.hub, x.now, &t, own.wrote))
            gossip_hub_push(&x.hub, x.now, from, &t, p, bytes_of(p->b, own.wrote));
    }
    hub_drop(p);
}

static void hub_write(struct gossip_peer *p, uint8_t n)
{
    uint8_t control[GOSSIP_CONTROL_MAX];
    struct wcur w = wcur_of(control, sizeof(control));
    struct bytes views[3];
    size_t total;

    if (gossip_hub_control(&x.hub, x.now, p, &w)) {
        CHECK(!w.bad && w.wrote);
        return;
    }
    gossip_hub_views(p, 1 + (size_t)n * 3, views, 3, &total);
    CHECK(total <= 1 + (size_t)n * 3);
    gossip_hub_wrote(&x.hub, x.now, p, total);
}

static void hub_step(struct cur *c)
{
    uint8_t op = fuzz_u8(c), n = fuzz_u8(c);
    struct gossip_peer *p = &x.peer[n % HUB_PEERS];
    unsigned i = n % HUB_PEERS;

    if (!p->joined) {
        memset(p, 0, sizeof(*p));
        gossip_hub_join(&x.hub, x.now, p, &x.me[i].id, n & 0x80);
        return;
    }
    switch (op % 8) {
    case 0:
    case 1:
        hub_bring(p, fuzz_u8(c) % HUB_PEERS, fuzz_u8(c), op & 0x80);
        break;
    case 2:
        gossip_hub_leave(&x.hub, p);
        break;
    case 3:
        hub_write(p, fuzz_u8(c));
        break;
    case 4:
        x.now += (uint64_t)fuzz_u8(c) * 300;
        gossip_hub_tick(&x.hub, x.now);
        break;
    case 5:
        (p->deaf ? gossip_hub_hears : gossip_hub_deaf)(&x.hub, p);
        break;
    default: { /* whatever an RPC may say */
        struct bytes rpc = fuzz_bytes(c);
        struct gossip_walk walk;
        struct gossip_item item;
        uint32_t items;

        if (!gossip_rpc_valid(rpc, &items))
            return;
        gossip_walk_start(&walk, rpc);
        while (gossip_walk_next(&walk, &item))
            if (item.kind != GOSSIP_ITEM_PUBLISH)
                gossip_hub_item(&x.hub, x.now, p, &item);
    }
    }
}

static void check_hub(struct bytes program)
{
    struct cur c = cur_of(program);

    hub_start();
    for (unsigned steps = 0; !c.bad && steps < HUB_PAYLOADS; steps++) {
        hub_step(&c);
        gossip_hub_check(&x.hub);
    }
    for (unsigned i = 0; i < HUB_PEERS; i++)
        if (x.peer[i].joined)
            gossip_hub_leave(&x.hub, &x.peer[i]);
    gossip_hub_check(&x.hub);
    gossip_hub_clear(&x.hub);
    CHECK(x.live == 0 && x.hub.nodes_live == 0);
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
    else if (what == 'h')
        check_hub(rest);
    else if (what == 'o')
        check_own(rest);
    else
        check_rpc(rest);
    return 0;
}
