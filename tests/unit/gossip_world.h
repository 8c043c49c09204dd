/* tests/unit/gossip_world.h: a hub with clients of cardboard and payloads that count who holds
 * them, for test_gossip_hub.c. */
#ifndef SLUICE_TESTS_UNIT_GOSSIP_WORLD_H
#define SLUICE_TESTS_UNIT_GOSSIP_WORLD_H

#include "proto/crypto.h"
#include "proto/gossip_hub.h"
#include "proto/varint.h"
#include "tests/unit/relay_hex.h"
#include "tests/unit/seeded.h"

enum { PEERS = 24, SEEN = 256, KEPT = 64, NODES = 1024, PAYLOADS = 4096 };

struct payload {
    int refs;
    size_t n;
    uint8_t *b;
};

struct client {
    struct gossip_peer peer;
    struct identity me;
    unsigned got, stalls, readies;
    uint64_t last_id;
};

struct world {
    struct gossip_hub hub;
    struct gossip_limits limits;
    uint64_t now;
    struct client c[PEERS];
    struct payload payload[PAYLOADS];
    unsigned payloads, live;
    uint64_t seqno;
};

static struct world *w;
static uint8_t scratch[GOSSIP_SIGN_MAX], wire[GOSSIP_WIRE_MAX];

static void on_ready(void *arg, struct gossip_peer *p)
{
    (void)arg;
    CONTAINER_OF(p, struct client, peer)->readies++;
}

static void on_stalled(void *arg, struct gossip_peer *p)
{
    struct world *x = arg;

    CONTAINER_OF(p, struct client, peer)->stalls++;
    gossip_hub_deaf(&x->hub, p);
}

static void keep(void *payload)
{
    ((struct payload *)payload)->refs++;
}

static void drop(void *payload)
{
    struct payload *p = payload;

    ASSERT(p->refs > 0);
    if (--p->refs == 0) {
        free(p->b);
        p->b = NULL;
        w->live--;
    }
}

static const struct gossip_calls calls = { on_ready, on_stalled, keep, drop };

static void tables_free(struct gossip_tables *t)
{
    free(t->seen);
    free(t->seen_index);
    free(t->kept);
    free(t->kept_index);
    free(t->authors);
    free(t->replies);
    free(t->asked);
    free(t->nodes);
    free(t->peers);
}

static void setup(void)
{
    const uint8_t key[16] = { 7 };
    struct identity relay;

    crypto_init();
    w = calloc(1, sizeof(*w));
    w->now = 1000000;
    w->limits = gossip_limits_default;
    struct gossip_tables t = { .seen = calloc(SEEN, sizeof(*t.seen)),
                               .seen_index = calloc(SEEN, 4),
                               .seen_n = SEEN,
                               .kept = calloc(KEPT, sizeof(*t.kept)),
                               .kept_index = calloc(KEPT, 4),
                               .kept_n = KEPT,
                               .authors = calloc(64, sizeof(*t.authors)),
                               .authors_n = 64,
                               .replies = calloc(64, sizeof(*t.replies)),
                               .asked = calloc(64, sizeof(*t.asked)),
                               .cells_n = 64,
                               .nodes = calloc(NODES, sizeof(*t.nodes)),
                               .nodes_n = NODES,
                               .peers = calloc(16, sizeof(struct gossip_peer *)),
                               .peers_n = 16 };
    uint8_t seed[32] = { 0xff };

    identity_from_seed(seed, &relay);
    for (unsigned i = 0; i < PEERS; i++) {
        seed[0] = (uint8_t)i;
        identity_from_seed(seed, &w->c[i].me);
    }
    gossip_hub_init(&w->hub, &w->limits, &t, &relay.id, key, &calls, w);
}

static void teardown(void)
{
    for (unsigned i = 0; i < PEERS; i++)
        if (w->c[i].peer.joined)
            gossip_hub_leave(&w->hub, &w->c[i].peer);
    gossip_hub_check(&w->hub);
    gossip_hub_clear(&w->hub);
    cr_expect(zero(u32, w->hub.nodes_live));
    cr_expect(zero(u32, w->live), "every payload is let go");
    tables_free(&w->hub.t);
    free(w);
}

static void subscribe(unsigned i, enum gossip_topic topic, bool on)
{
    struct gossip_item item = { .kind = GOSSIP_ITEM_SUBSCRIBE,
                                .on = on,
                                .topic = bytes_str(gossip_topic_name[topic]) };

    gossip_hub_item(&w->hub, w->now, &w->c[i].peer, &item);
}

static void join(unsigned i, bool subscribed)
{
    memset(&w->c[i].peer, 0, sizeof(w->c[i].peer));
    gossip_hub_join(&w->hub, w->now, &w->c[i].peer, &w->c[i].me.id, false);
    if (subscribed)
        subscribe(i, GOSSIP_SYNC, true);
}

/* Nothing may look at it any more. */
static void leave(unsigned i)
{
    gossip_hub_leave(&w->hub, &w->c[i].peer);
    memset(&w->c[i].peer, 0, sizeof(w->c[i].peer));
    gossip_hub_check(&w->hub);
}

static struct bytes body_by(unsigned author, const char *topic, struct bytes data)
{
    struct wcur out = wcur_of(wire, sizeof(wire));
    struct gossip_walk walk;
    struct gossip_item item;

    gossip_put_own(&out, &w->c[author].me, bytes_str(topic), ++w->seqno, data, scratch);
    cr_assert(not(out.bad));
    struct cur c = cur_of(bytes_of(wire, out.wrote));

    gossip_walk_start(&walk, cur_lp(&c));
    cr_assert(gossip_walk_next(&walk, &item));
    return item.body;
}

/* A copy, for what body_by() gives lasts until its next call. */
static struct bytes copy_of(struct bytes body)
{
    static uint8_t room[512][256];
    static unsigned n;
    uint8_t *to = room[n++ % ARRAY_LEN(room)];

    cr_assert(le(sz, body.n, sizeof(room[0])));
    memcpy(to, body.p, body.n);
    return bytes_of(to, body.n);
}

static uint64_t last_id;

/* As the engine does it, but for the signature. Was it passed on? */
static bool bring(unsigned from, struct bytes body)
{
    struct gossip_msg m;
    struct gossip_take t;

    if (!gossip_hub_offer(&w->hub, w->now, &w->c[from].peer, body, &m, &t))
        return false;
    size_t n = gossip_publish_bytes(&m);

    last_id = t.id;
    if (!gossip_hub_admit(&w->hub, w->now, &t, n))
        return false;
    struct payload *p = &w->payload[w->payloads++ % PAYLOADS];

    ASSERT(p->refs == 0);
    *p = (struct payload){ .refs = 1, .n = n, .b = malloc(n) };
    w->live++;
    struct wcur out = wcur_of(p->b, n);

    gossip_put_publish(&out, &m);
    gossip_hub_push(&w->hub, w->now, &w->c[from].peer, &t, p, bytes_of(p->b, n));
    drop(p);
    return true;
}

static bool publish(unsigned from, unsigned author, struct bytes data)
{
    return bring(from, body_by(author, "dusk/sync", data));
}

static struct bytes number(uint64_t n, size_t bytes)
{
    static uint8_t data[GOSSIP_RPC_MAX];

    put_u64(data, n);
    return bytes_of(data, bytes);
}

/* All that waits for it, whole messages counted. */
static unsigned drain(unsigned i, size_t step)
{
    struct client *c = &w->c[i];
    unsigned before = (unsigned)w->hub.counts.sent;
    struct bytes views[8];
    size_t total;

    while (gossip_hub_views(&c->peer, step, views, 8, &total)) {
        if (c->peer.queue.first)
            c->last_id = c->peer.queue.first->id;
        gossip_hub_wrote(&w->hub, w->now, &c->peer, total);
    }
    gossip_hub_check(&w->hub);
    c->got += (unsigned)w->hub.counts.sent - before;
    return (unsigned)w->hub.counts.sent - before;
}

static void item_ids(unsigned i, enum gossip_item_kind kind, const uint64_t *ids, size_t n)
{
    static uint8_t rpc[GOSSIP_WIRE_MAX];
    struct wcur out = wcur_of(rpc, sizeof(rpc));
    struct gossip_walk walk;
    struct gossip_item item;

    if (kind == GOSSIP_ITEM_IWANT)
        gossip_put_iwant(&out, ids, n);
    else
        gossip_put_ihave(&out, bytes_str("dusk/sync"), ids, n);
    cr_assert(not(out.bad));
    struct cur c = cur_of(bytes_of(rpc, out.wrote));

    gossip_walk_start(&walk, cur_lp(&c));
    cr_assert(gossip_walk_next(&walk, &item));
    gossip_hub_item(&w->hub, w->now, &w->c[i].peer, &item);
}

/* What it is told next; false: nothing. */
static bool told(unsigned i, struct gossip_item *item)
{
    static uint8_t rpc[GOSSIP_CONTROL_MAX];
    struct wcur out = wcur_of(rpc, sizeof(rpc));
    struct gossip_walk walk;

    if (!gossip_hub_control(&w->hub, w->now, &w->c[i].peer, &out))
        return false;
    cr_assert(not(out.bad));
    struct cur c = cur_of(bytes_of(rpc, out.wrote));

    gossip_walk_start(&walk, cur_lp(&c));
    return gossip_walk_next(&walk, item);
}

static size_t ids_of(const struct gossip_item *item, uint64_t *ids, size_t max)
{
    struct cur c = cur_of(item->body);
    bool known;
    size_t n = 0;

    while (n < max && gossip_id_next(&c, item->kind == GOSSIP_ITEM_IHAVE ? 2 : 1, &ids[n], &known))
        n++;
    return n;
}

#endif
