#include "tests/sim/sim_gossip.h"

#include <stdlib.h>

#include "proto/varint.h"

static uint8_t scratch[GOSSIP_SIGN_MAX];

static void *must(void *p)
{
    ASSERT(p != NULL);
    return p;
}

/* ---- hearing ----------------------------------------------------------------------------------
 */

static void heard(struct sim_gossip *g, struct gossiper *c, struct bytes body)
{
    struct gossip_msg m;
    struct peer_id author;
    const struct gossip_said *said;
    struct cur data;
    uint64_t i;

    if (!gossip_msg_decode(body, &m, &author)) {
        sim_break(g->s, "the relay passed on what is not valid");
        return;
    }
    data = cur_of(m.data);
    i = cur_u64(&data);
    if (data.bad || i >= g->said_n || !bytes_eq(g->said[i].body, body)) {
        sim_break(g->s, "a message that nobody said so");
        return;
    }
    said = &g->said[i];
    if (said->author == c->ident)
        sim_break(g->s, "message %llu went back to its author", (unsigned long long)i);
    if (said->alone && said->by == c)
        sim_break(g->s, "message %llu went back to who brought it", (unsigned long long)i);
    if (!(g->ever[c->ident] >> said->topic & 1))
        sim_break(g->s, "message %llu to who never subscribed", (unsigned long long)i);
    if (sim_gossip_got(c, (size_t)i))
        sim_break(g->s, "message %llu twice", (unsigned long long)i);
    c->got[i / 8] |= (uint8_t)(1u << i % 8);
    c->heard++;
    g->heard++;
}

static const struct gossip_said *said_of(const struct sim_gossip *g, uint64_t id)
{
    for (size_t i = 0; i < g->said_n; i++)
        if (g->said[i].id == id)
            return &g->said[i];
    return NULL;
}

static void told_ihave(struct sim_gossip *g, struct gossiper *c, struct cur ids)
{
    uint64_t id, want[GOSSIP_SKIPPED_MAX];
    size_t n = 0;
    bool known;

    c->ihaves++;
    while (gossip_id_next(&ids, 2, &id, &known)) {
        const struct gossip_said *m = known ? said_of(g, id) : NULL;

        if (m == NULL)
            sim_break(g->s, "IHAVE of what nobody said");
        else if (!sim_gossip_got(c, (size_t)(m - g->said)) && n < GOSSIP_SKIPPED_MAX)
            want[n++] = id;
    }
    if (n > 0 && c->asks) {
        uint8_t buf[GOSSIP_CONTROL_MAX];
        struct wcur w = wcur_of(buf, sizeof(buf));

        gossip_put_iwant(&w, want, n);
        sim_queue_put(&c->tx, bytes_of(buf, w.wrote));
        c->asked += n;
    }
}

static void heard_rpc(struct sim_gossip *g, struct gossiper *c, struct bytes rpc)
{
    struct gossip_walk w;
    struct gossip_item item;
    uint32_t n;

    if (!gossip_rpc_valid(rpc, &n)) {
        sim_break(g->s, "the relay's RPC is not valid");
        return;
    }
    gossip_walk_start(&w, rpc);
    while (gossip_walk_next(&w, &item)) {
        switch (item.kind) {
        case GOSSIP_ITEM_SUBSCRIBE:
            c->told++;
            break;
        case GOSSIP_ITEM_PUBLISH:
            heard(g, c, item.body);
            break;
        case GOSSIP_ITEM_IHAVE:
            told_ihave(g, c, cur_of(item.body));
            break;
        case GOSSIP_ITEM_IWANT:
            break;
        default:
            sim_break(g->s, "the relay grafts or prunes");
        }
    }
}

static struct gossiper *client_of(struct sim_gossip *g, const struct sim_conn *conn)
{
    for (size_t i = g->clients_n; i-- > 0;)
        if (g->client[i]->conn == conn)
            return g->client[i];
    return NULL;
}

static void on_gossip(struct sim_stream *st, struct bytes data)
{
    struct sim_gossip *g = st->conn->s->arg;
    struct gossiper *c = client_of(g, st->conn);

    if (c == NULL)
        return;
    if (c->hears != st) { /* a new one begins a new sequence of RPCs */
        if (c->hears != NULL)
            g->again++;
        sim_queue_drop(&c->rx, c->rx.n);
        c->hears = st;
    }
    sim_queue_put(&c->rx, data);
    for (;;) {
        struct bytes have = sim_queue_front(&c->rx);
        uint64_t n;
        size_t used;

        if (varint_peek(have, &n, &used) != VARINT_OK)
            return;
        if (n > GOSSIP_RPC_MAX)
            sim_break(g->s, "an RPC of %llu bytes", (unsigned long long)n);
        if (have.n - used < n)
            return;
        heard_rpc(g, c, bytes_of(have.p + used, (size_t)n));
        sim_queue_drop(&c->rx, used + (size_t)n);
    }
}

/* ---- saying -----------------------------------------------------------------------------------
 */

void sim_gossip_raw(struct gossiper *c, struct bytes b)
{
    sim_queue_put(&c->tx, b);
}

void sim_gossip_subscribe(struct sim_gossip *g, struct gossiper *c, enum gossip_topic t, bool on)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    gossip_put_subscribe(&w, bytes_str(gossip_topic_name[t]), on);
    sim_gossip_raw(c, bytes_of(buf, w.wrote));
    if (on)
        g->ever[c->ident] |= (uint8_t)(1u << t);
}

struct gossiper *sim_gossip_join(struct sim_gossip *g, unsigned ident, int shard, uint8_t subs,
                                 bool steady)
{
    struct netaddr at = sim_host(ident % 200 + 1, ident);
    struct sim_conn *conn = g->clients_n < GOSSIPERS_MAX ? sim_dial(g->s, ident, &at, shard) : NULL;
    struct gossiper *c;

    if (conn == NULL)
        return NULL;
    c = must(calloc(1, sizeof(*c)));
    c->conn = conn;
    c->ident = ident;
    c->steady = steady;
    g->client[g->clients_n++] = c;
    c->subs = subs;
    for (unsigned t = 0; t < GOSSIP_TOPICS; t++)
        if (subs >> t & 1)
            sim_gossip_subscribe(g, c, (enum gossip_topic)t, true);
    return c;
}

struct gossip_said *sim_gossip_say(struct sim_gossip *g, struct gossiper *by, unsigned author,
                                   enum gossip_topic topic, size_t bytes)
{
    static uint8_t data[GOSSIP_RPC_MAX], wire[GOSSIP_WIRE_MAX];
    struct gossip_said *m = &g->said[g->said_n];
    struct wcur w = wcur_of(wire, sizeof(wire));
    struct gossip_walk walk;
    struct gossip_item item;
    struct gossip_msg msg;
    struct peer_id id;
    uint8_t *copy;

    ASSERT(g->said_n < GOSSIP_SAID_MAX && bytes >= 8);
    (void)sim_peer_id(g->s, author); /* makes it */
    put_u64(data, g->said_n);
    for (size_t i = 8; i < bytes; i++)
        data[i] = (uint8_t)(g->said_n * 31 + i);
    gossip_put_own(&w, &g->s->ident[author]->me, bytes_str(gossip_topic_name[topic]), g->said_n + 1,
                   bytes_of(data, bytes), scratch);
    ASSERT(!w.bad);
    struct cur c = cur_of(bytes_of(wire, w.wrote));

    gossip_walk_start(&walk, cur_lp(&c));
    ASSERT(gossip_walk_next(&walk, &item));
    copy = must(malloc(item.body.n));
    memcpy(copy, item.body.p, item.body.n);
    *m = (struct gossip_said){ .author = author,
                               .by = by,
                               .topic = topic,
                               .body = bytes_of(copy, item.body.n),
                               .must = by != NULL && by->steady,
                               .alone = true };
    ASSERT(gossip_msg_decode(m->body, &msg, &id));
    m->id = gossip_msg_id(&msg, &id);
    g->said_n++;
    if (by != NULL)
        sim_gossip_raw(by, bytes_of(wire, w.wrote));
    return m;
}

void sim_gossip_bring(struct sim_gossip *g, struct gossiper *by, const struct gossip_said *m)
{
    static uint8_t wire[GOSSIP_WIRE_MAX];
    struct wcur w = wcur_of(wire, sizeof(wire));
    struct gossip_msg msg;
    struct peer_id id;

    ASSERT(gossip_msg_decode(m->body, &msg, &id));
    g->said[m - g->said].alone = false;
    gossip_put_publish(&w, &msg);
    sim_gossip_raw(by, bytes_of(wire, w.wrote));
}

static void pump(struct gossiper *c)
{
    struct bytes front = sim_queue_front(&c->tx);
    size_t n;

    if (c->says == NULL || !c->says->live || c->says->name != NULL)
        return;
    n = min_sz(front.n, c->says->y.send_credit);
    sim_stream_put(c->says, bytes_of(front.p, n), false);
    sim_queue_drop(&c->tx, n);
}

void sim_gossip_look(struct sim_gossip *g)
{
    for (size_t i = 0; i < g->clients_n; i++) {
        struct gossiper *c = g->client[i];

        if (c->conn->state != SC_UP)
            continue;
        if (!c->opened) {
            c->opened = true;
            c->says = sim_open(c->conn, GOSSIP_PROTOCOL, SS_OTHER, bytes_of(NULL, 0));
        }
        if (c->steady && c->says != NULL && !c->says->live)
            sim_break(g->s, "a client that did nothing wrong lost its stream");
        pump(c);
    }
}

bool sim_gossip_ready(const struct sim_gossip *g)
{
    for (size_t i = 0; i < g->clients_n; i++) {
        const struct gossiper *c = g->client[i];

        if (c->steady && (c->told < 3 || c->tx.n > 0 || c->conn->out.n > 0 ||
                          c->conn->plain.n > 0 || c->says == NULL || c->says->name != NULL))
            return false;
    }
    return true;
}

bool sim_gossip_settled(const struct sim_gossip *g)
{
    for (size_t i = 0; i < g->clients_n; i++) {
        const struct gossiper *c = g->client[i];

        for (size_t k = 0; c->steady && k < g->said_n; k++)
            if (g->said[k].must && g->said[k].by != c && g->said[k].author != c->ident &&
                c->subs >> g->said[k].topic & 1 && !sim_gossip_got(c, k))
                return false;
    }
    return true;
}

void sim_gossip_init(struct sim_gossip *g, struct sim *s)
{
    memset(g, 0, sizeof(*g));
    g->s = s;
    s->on_gossip = on_gossip;
    s->arg = g;
}

void sim_gossip_free(struct sim_gossip *g)
{
    for (size_t i = 0; i < g->clients_n; i++) {
        free(g->client[i]->tx.p);
        free(g->client[i]->rx.p);
        free(g->client[i]);
    }
    for (size_t i = 0; i < g->said_n; i++)
        free((void *)(uintptr_t)g->said[i].body.p);
}
