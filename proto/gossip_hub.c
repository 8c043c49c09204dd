#include "proto/crypto.h"
#include "proto/gossip_int.h"

/* What one client does at its worst is publish all documents of a community again, 64 KiB each
 * (dusk.md §10.3): bursts are for that. A sender brings what others wrote, so it may bring more. */
const struct gossip_limits gossip_limits_default = {
    .sender = { { 200, 400 }, { 8 << 20, 16 << 20 } },
    .author = { { 50, 200 }, { 512 << 10, 2 << 20 } },
    .topic = { { 1000, 4000 }, { 16 << 20, 64 << 20 } },
    .receiver = { { 500, 1000 }, { 2 << 20, 8 << 20 } },
    .out_bytes = { 128 << 20, 256 << 20 },
    .queue_messages = 256,
    .queue_bytes = 1 << 20,
    .cache_bytes = 16 << 20,
};

static bool power_of_two(uint32_t n)
{
    return n && !(n & (n - 1));
}

void gossip_hub_init(struct gossip_hub *h, const struct gossip_limits *limits,
                     const struct gossip_tables *t, const struct peer_id *me, const uint8_t key[16],
                     const struct gossip_calls *calls, void *arg)
{
    ASSERT(power_of_two(t->seen_n) && power_of_two(t->kept_n) && power_of_two(t->authors_n));
    ASSERT(power_of_two(t->cells_n) && power_of_two(t->peers_n));
    ASSERT(t->authors_n >= GOSSIP_WAYS && t->cells_n >= GOSSIP_WAYS && t->nodes_n);
    ASSERT(limits->queue_bytes >= GOSSIP_WIRE_MAX && limits->queue_messages);
    memset(h, 0, sizeof(*h));
    h->limits = limits;
    h->calls = calls;
    h->arg = arg;
    h->t = *t;
    h->me = *me;
    memcpy(h->key, key, sizeof(h->key));
}

void gossip_hub_clear(struct gossip_hub *h)
{
    ASSERT(h->peers.count == 0);
    gossip_kept_expire(h, UINT64_MAX - GOSSIP_CACHE_MS);
}

/* ---- who is here ----------------------------------------------------------------------------- */

static struct gossip_peer **chain_of(const struct gossip_hub *h, const struct peer_id *id)
{
    uint8_t key[16];

    memcpy(key, h->key, sizeof(key));
    return &h->t.peers[crypto_siphash(key, bytes_of(id, sizeof(*id))) & (h->t.peers_n - 1)];
}

/* A connection of this peer to which the topic goes, or with topic < 0 any other than `not`. */
static struct gossip_peer *find_of(const struct gossip_hub *h, const struct peer_id *id, int topic,
                                   const struct gossip_peer * not )
{
    for (struct gossip_peer *p = *chain_of(h, id); p; p = p->next_of_id)
        if (p != not &&peer_id_eq(&p->id, id) && (topic < 0 || p->subs >> topic & 1))
            return p;
    return NULL;
}

static void sub_add(struct gossip_hub *h, struct gossip_peer *p, unsigned topic)
{
    if (p->subs >> topic & 1)
        return;
    p->subs |= (uint8_t)(1u << topic);
    list_append(&h->subs[topic], &p->sub_link[topic]);
}

static void sub_drop(struct gossip_hub *h, struct gossip_peer *p, unsigned topic)
{
    if (!(p->subs >> topic & 1))
        return;
    p->subs &= (uint8_t) ~(1u << topic);
    list_remove(&h->subs[topic], &p->sub_link[topic]);
}

static void say(struct gossip_hub *h, struct gossip_peer *p, uint8_t topics)
{
    p->say |= topics & (uint8_t)~p->said;
    if (p->say && !p->deaf)
        h->calls->ready(h->arg, p);
}

void gossip_hub_join(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                     const struct peer_id *id, bool trusted)
{
    struct gossip_peer **chain = chain_of(h, id), *other = find_of(h, id, -1, NULL);

    ASSERT(!p->joined);
    p->id = *id;
    p->purse = other ? other->purse : &p->own;
    p->joined = true;
    p->trusted = trusted;
    p->serial = ++h->serials;
    p->moved_ms = now_ms;
    p->next_of_id = *chain;
    *chain = p;
    list_append(&h->peers, &p->link);
    p->say = (uint8_t)((1u << (trusted ? GOSSIP_TOPICS : GOSSIP_TOPICS_OLD)) - 1);
}

/* Whose purse all of its connections have: another one's, if it goes. */
static void purse_leave(struct gossip_hub *h, struct gossip_peer *p)
{
    struct gossip_peer *heir = p->purse == &p->own ? find_of(h, &p->id, -1, NULL) : NULL;

    if (!heir)
        return;
    heir->own = p->own;
    for (struct gossip_peer *q = *chain_of(h, &p->id); q; q = q->next_of_id)
        if (q->purse == &p->own)
            q->purse = &heir->own;
}

uint8_t gossip_hub_leave(struct gossip_hub *h, struct gossip_peer *p)
{
    struct gossip_peer **at = chain_of(h, &p->id);
    uint8_t subs = p->subs;

    ASSERT(p->joined);
    gossip_queue_clear(h, p, GOSSIP_LEFT);
    while (*at != p)
        at = &(*at)->next_of_id;
    *at = p->next_of_id;
    purse_leave(h, p);
    list_remove(&h->peers, &p->link);
    for (unsigned topic = 0; topic < GOSSIP_TOPICS; topic++)
        sub_drop(h, p, topic);
    p->joined = false;
    if (!subs || !find_of(h, &p->id, -1, p))
        return subs;
    gossip_hub_inherit(h, &p->id, subs);
    return 0;
}

void gossip_hub_inherit(struct gossip_hub *h, const struct peer_id *id, uint8_t subs)
{
    struct gossip_peer *heir = find_of(h, id, -1, NULL);

    for (unsigned topic = 0; heir && topic < GOSSIP_TOPICS; topic++)
        if (subs >> topic & 1 && !find_of(h, id, (int)topic, NULL))
            sub_add(h, heir, topic);
}

void gossip_hub_deaf(struct gossip_hub *h, struct gossip_peer *p)
{
    p->deaf = true;
    p->say = p->said = 0;
    gossip_queue_clear(h, p, GOSSIP_LEFT);
}

void gossip_hub_hears(struct gossip_hub *h, struct gossip_peer *p)
{
    p->deaf = false;
    say(h, p, (uint8_t)((1u << (p->trusted ? GOSSIP_TOPICS : GOSSIP_TOPICS_OLD)) - 1));
}

/* ---- what it says ---------------------------------------------------------------------------- */

/* One connection of a peer gets each topic, however many say that they want it: nobody gets
 * anything twice. */
static void on_subscribe(struct gossip_hub *h, struct gossip_peer *p, unsigned topic, bool on)
{
    struct gossip_peer *has = find_of(h, &p->id, (int)topic, NULL);

    if (topic >= GOSSIP_TOPICS_OLD && !p->trusted)
        return; /* signed records with their addresses are for named relays */
    if (on && !has)
        sub_add(h, p, topic);
    else if (!on && has)
        sub_drop(h, has, topic);
}

static void new_beat(struct gossip_hub *h, struct gossip_peer *p)
{
    if (p->beat == h->beat)
        return;
    p->beat = h->beat;
    p->ihaves = p->ihave_ids = p->iwant_ids = 0;
}

static void on_ihave(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, struct cur body,
                     unsigned topic)
{
    uint64_t id;
    bool known;

    if (p->ihaves >= GOSSIP_IHAVES_MAX || p->deaf)
        return;
    p->ihaves++;
    while (p->ihave_ids < GOSSIP_IDS_MAX && p->wanted.count < GOSSIP_WANTED_MAX &&
           gossip_id_next(&body, 2, &id, &known)) {
        p->ihave_ids++;
        if (!known || gossip_seen_has(h, now_ms, id))
            continue;
        struct gossip_cell *c = gossip_cell(h, h->t.asked, now_ms, GOSSIP_ASKED_MS, id, 0);

        if (c->count++ || !gossip_fifo_add_id(h, &p->wanted, now_ms, id, (uint8_t)topic))
            continue;
    }
    if (p->wanted.count)
        h->calls->ready(h->arg, p);
}

static void on_iwant(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, struct cur body)
{
    uint64_t id;
    bool known;

    while (!p->deaf && p->iwant_ids < GOSSIP_IDS_MAX && gossip_id_next(&body, 1, &id, &known)) {
        struct gossip_kept *k = known ? gossip_kept_find(h, now_ms, id) : NULL;

        p->iwant_ids++;
        h->counts.asked_for++;
        if (!k)
            continue;
        struct gossip_cell *c =
            gossip_cell(h, h->t.replies, now_ms, GOSSIP_CACHE_MS, p->serial, id);

        if (c->count >= GOSSIP_REPLIES_MAX)
            continue;
        c->count++;
        h->counts.answered++;
        gossip_deliver(h, now_ms, p, id, k->topic, k->payload, k->wire);
    }
}

void gossip_hub_item(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                     const struct gossip_item *item)
{
    enum gossip_topic topic = GOSSIP_TOPICS;

    new_beat(h, p);
    if (item->kind == GOSSIP_ITEM_IWANT) {
        on_iwant(h, now_ms, p, cur_of(item->body));
        return;
    }
    if (!gossip_topic_find(item->topic, &topic))
        return;
    switch (item->kind) {
    case GOSSIP_ITEM_SUBSCRIBE:
        on_subscribe(h, p, topic, item->on);
        return;
    case GOSSIP_ITEM_GRAFT: /* who wants us in its mesh is subscribed (libp2p specs) */
        on_subscribe(h, p, topic, true);
        return;
    case GOSSIP_ITEM_IHAVE:
        on_ihave(h, now_ms, p, cur_of(item->body), topic);
        return;
    default: /* PRUNE: out of its mesh, and still subscribed */
        return;
    }
}

/* ---- messages -------------------------------------------------------------------------------- */

void gossip_hub_refuse(struct gossip_hub *h, enum gossip_cause why)
{
    h->counts.dropped[why]++;
}

static bool refused(struct gossip_hub *h, enum gossip_cause why)
{
    gossip_hub_refuse(h, why);
    return false;
}

static uint64_t seqno_of(const struct gossip_msg *m)
{
    struct cur c = cur_of(m->seqno);

    return cur_u64(&c);
}

/* Signed messages can be brought again by anybody once a minute has passed. Their author did not
 * ask for that, so it is not he who pays: only for what he brings himself, and for what is newer
 * than all that is known of him. That refuses nobody's first message, whatever his seqnos are like
 * (dusk.md §10.2: the client's count up; others' may be random): it comes out of another purse,
 * which is the bringer's. */
static bool pays_for_old(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *from,
                         struct gossip_take *t, size_t n)
{
    const struct gossip_author *a = gossip_author_find(h, &t->author);
    const struct gossip_budget *b = &h->limits->author;

    t->old = a && t->seqno <= a->newest && !peer_id_eq(&from->id, &t->author);
    if (!t->old || from->trusted)
        return true;
    if (!gossip_meter_fits(&from->purse->old, now_ms, b, 1, n))
        return false;
    gossip_meter_spend(&from->purse->old, now_ms, b, 1, n);
    return true;
}

bool gossip_hub_offer(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *from,
                      struct bytes body, struct gossip_msg *m, struct gossip_take *t)
{
    const struct gossip_budget *b = &h->limits->sender;

    h->counts.offered++;
    t->trusted = t->old = false;
    if (!gossip_meter_fits(&from->purse->brought, now_ms, b, 0, body.n))
        return refused(h, GOSSIP_SENDER); /* unread */
    gossip_meter_spend(&from->purse->brought, now_ms, b, 0, body.n);
    if (!gossip_msg_decode(body, m, &t->author))
        return refused(h, GOSSIP_INVALID);
    if (peer_id_eq(&t->author, &h->me))
        return refused(h, GOSSIP_OWN); /* dusk.md §10.2 */
    if (!gossip_topic_find(m->topic, &t->topic) ||
        (t->topic >= GOSSIP_TOPICS_OLD && !from->trusted)) /* the relays' own, and its budget */
        return refused(h, GOSSIP_STRANGE);
    t->id = gossip_msg_id(m, &t->author);
    if (gossip_seen_has(h, now_ms, t->id))
        return refused(h, GOSSIP_DUPLICATE);
    unsigned cost = gossip_msg_cost(m);

    t->seqno = seqno_of(m);
    if (!from->trusted && !gossip_meter_fits(&from->purse->brought, now_ms, b, cost, 0))
        return refused(h, GOSSIP_SENDER);
    if (!pays_for_old(h, now_ms, from, t, body.n))
        return refused(h, GOSSIP_SENDER);
    if (from->trusted)
        return true;
    gossip_meter_spend(&from->purse->brought, now_ms, b, cost, 0);
    return true;
}

static void author_said(struct gossip_hub *h, uint64_t now_ms, struct gossip_author *a,
                        const struct gossip_take *t)
{
    gossip_seen_add(h, now_ms, t->id);
    if (t->seqno > a->newest)
        a->newest = t->seqno;
}

/* Over its author's budget it counts as seen all the same, for it would only be verified again.
 * What others used up is not held against it: by then it may come again, from anybody. */
bool gossip_hub_admit(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t, size_t n)
{
    const struct gossip_limits *l = h->limits;
    struct gossip_author *a = gossip_author_of(h, &t->author);
    struct gossip_meter *author = &a->spent, *topic = &h->topic[t->topic];

    if (!t->trusted && !t->old && !gossip_meter_fits(author, now_ms, &l->author, 1, n)) {
        author_said(h, now_ms, a, t);
        return refused(h, GOSSIP_AUTHOR);
    }
    if (!gossip_meter_fits(topic, now_ms, &l->topic, 1, n) ||
        (!t->trusted && !gossip_meter_half(topic, now_ms, &l->topic) &&
         (t->old || !gossip_meter_half(author, now_ms, &l->author))))
        return refused(h, GOSSIP_TOPIC);
    author_said(h, now_ms, a, t);
    if (!t->old)
        gossip_meter_spend(author, now_ms, &l->author, 1, n);
    gossip_meter_spend(topic, now_ms, &l->topic, 1, n);
    return true;
}

void gossip_hub_push(struct gossip_hub *h, uint64_t now_ms, const struct gossip_peer *from,
                     const struct gossip_take *t, void *payload, struct bytes wire)
{
    struct list *to = &h->subs[t->topic];
    size_t n = to->count;

    h->counts.accepted++;
    gossip_kept_add(h, now_ms, t, payload, wire);
    for (struct link *k = to->first, *next; n--; k = next) {
        struct gossip_peer *p = CONTAINER_OF(k, struct gossip_peer, sub_link[t->topic]);

        next = k->next;
        if (p->deaf || peer_id_eq(&p->id, &t->author) || (from && peer_id_eq(&p->id, &from->id)))
            continue;
        gossip_deliver(h, now_ms, p, t->id, (uint8_t)t->topic, payload, wire);
    }
    if (to->first) /* where budgets end before the list does, it is not always the same ones */
        list_append(to, list_pop(to));
}

bool gossip_hub_remote(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t,
                       void *payload, struct bytes wire)
{
    h->counts.offered++;
    h->counts.remote++;
    if (gossip_seen_has(h, now_ms, t->id))
        return refused(h, GOSSIP_DUPLICATE);
    if (!gossip_hub_admit(h, now_ms, t, wire.n))
        return false;
    gossip_hub_push(h, now_ms, NULL, t, payload, wire);
    return true;
}

bool gossip_hub_own(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t, size_t n)
{
    const struct gossip_budget *b = &h->limits->topic;

    h->counts.offered++;
    h->counts.own++;
    if (gossip_seen_has(h, now_ms, t->id))
        return refused(h, GOSSIP_DUPLICATE);
    if (!gossip_meter_fits(&h->topic[t->topic], now_ms, b, 1, n))
        return refused(h, GOSSIP_TOPIC);
    gossip_meter_spend(&h->topic[t->topic], now_ms, b, 1, n);
    gossip_seen_add(h, now_ms, t->id);
    return true;
}

/* ---- control to a peer ------------------------------------------------------------------------
 */

static void put_wanted(struct gossip_hub *h, struct gossip_peer *p, struct wcur *w)
{
    uint64_t ids[GOSSIP_WANTED_MAX];
    size_t n = 0;
    struct gossip_node *k;

    while (n < GOSSIP_WANTED_MAX && (k = gossip_fifo_pop(&p->wanted))) {
        ids[n++] = k->id;
        gossip_node_free(h, k);
    }
    h->counts.asked += n;
    gossip_put_iwant(w, ids, n);
}

/* One topic in one RPC; the others wait for the next call. */
static bool put_skipped(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                        struct wcur *w)
{
    uint64_t ids[GOSSIP_SKIPPED_MAX];
    struct gossip_fifo rest = { 0 };
    struct gossip_node *k;
    size_t n = 0;
    uint8_t topic = 0;

    while ((k = gossip_fifo_pop(&p->skipped))) {
        bool here = gossip_kept_find(h, now_ms, k->id) != NULL && p->subs >> k->topic & 1;

        if (here && n && k->topic != topic) {
            k->next = NULL;
            if (rest.last)
                rest.last->next = k;
            else
                rest.first = k;
            rest.last = k;
            rest.count++;
            continue;
        }
        if (here) {
            topic = k->topic;
            ids[n++] = k->id;
        }
        gossip_node_free(h, k);
    }
    p->skipped = rest;
    p->tell = rest.count > 0;
    h->counts.told += n;
    if (n)
        gossip_put_ihave(w, bytes_str(gossip_topic_name[topic]), ids, n);
    return n > 0;
}

bool gossip_hub_control(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                        struct wcur *w)
{
    if (p->deaf || p->front_off)
        return false;
    if (p->say) {
        unsigned topic = (unsigned)__builtin_ctz(p->say);

        p->say &= (uint8_t)(p->say - 1);
        p->said |= (uint8_t)(1u << topic);
        gossip_put_subscribe(w, bytes_str(gossip_topic_name[topic]), true);
        return true;
    }
    if (p->wanted.count) {
        put_wanted(h, p, w);
        return true;
    }
    return p->tell && put_skipped(h, now_ms, p, w);
}

void gossip_hub_tick(struct gossip_hub *h, uint64_t now_ms)
{
    h->beat++;
    gossip_seen_expire(h, now_ms);
    gossip_kept_expire(h, now_ms);
    gossip_queue_tick(h, now_ms);
}

/* ---- for tests --------------------------------------------------------------------------------
 */

static size_t fifo_check(const struct gossip_fifo *f, bool payload, size_t *bytes)
{
    size_t n = 0;

    for (const struct gossip_node *k = f->first; k; k = k->next, n++) {
        ASSERT((k->payload != NULL) == payload);
        *bytes += k->wire.n;
        ASSERT(k->next || f->last == k);
    }
    ASSERT(n == f->count);
    return n;
}

void gossip_hub_check(const struct gossip_hub *h)
{
    const struct gossip_counts *c = &h->counts;
    size_t nodes = 0, subs[GOSSIP_TOPICS] = { 0 }, waiting = 0, queued = 0;
    uint64_t lost = 0;

    for (struct link *k = h->peers.first; k; k = k->next) {
        struct gossip_peer *p = CONTAINER_OF(k, struct gossip_peer, link);
        struct gossip_peer *same = find_of(h, &p->id, -1, NULL);
        size_t bytes = 0, none = 0, q = fifo_check(&p->queue, true, &bytes);

        ASSERT(bytes == p->queue_bytes && p->purse == same->purse);
        ASSERT(p->queue_bytes <= h->limits->queue_bytes + GOSSIP_WIRE_MAX);
        ASSERT(!p->front_off || p->front_off < p->queue.first->wire.n);
        nodes += q + fifo_check(&p->skipped, false, &none) + fifo_check(&p->wanted, false, &none);
        ASSERT(p->skipped.count <= GOSSIP_SKIPPED_MAX && p->wanted.count <= GOSSIP_WANTED_MAX);
        queued += q;
        waiting += link_in_list(&h->waiting, &p->wait_link);
        ASSERT(!q || link_in_list(&h->waiting, &p->wait_link));
        for (unsigned t = 0; t < GOSSIP_TOPICS; t++)
            subs[t] += p->subs >> t & 1;
    }
    ASSERT(nodes == h->nodes_live && waiting == h->waiting.count);
    for (unsigned t = 0; t < GOSSIP_TOPICS; t++)
        ASSERT(subs[t] == h->subs[t].count);
    for (int i = 0; i <= GOSSIP_MEMORY; i++)
        lost += c->dropped[i];
    ASSERT(c->offered == c->accepted + lost);
    ASSERT(c->meant == c->queued + c->dropped[GOSSIP_RECEIVER] + c->dropped[GOSSIP_TOTAL] +
                           c->dropped[GOSSIP_NODES]);
    ASSERT(c->queued == c->sent + queued + c->dropped[GOSSIP_QUEUE] + c->dropped[GOSSIP_STALE] +
                            c->dropped[GOSSIP_LEFT]);
    ASSERT(h->kept_bytes <= h->limits->cache_bytes && h->seen_count <= h->t.seen_n);
}
