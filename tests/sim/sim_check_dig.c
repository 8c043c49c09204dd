/* tests/sim/sim_check_dig.c: what must hold of the DIG door between any two turns, counted from
 * outside: connections, what their gates are charged for, who is registered and where, shared
 * buffers and who holds them; and that nothing waits for somebody who does not come. */
#include "engine/dig_control.h"
#include "tests/sim/sim_dig.h"

enum { SLOTS_MAX = 256, SHARED_MAX = 4096, NEWS_MAX = 1024, PAGE = 64, HELD_LATE_MS = 500 };

/* Of all shards. */
struct dig_census {
    struct sim *s;
    const struct dig_control *dc;
    uint32_t conns, in_net;
    uint64_t bytes[SIM_SHARDS][SLOTS_MAX]; /* by gate */
    uint32_t messages[SIM_SHARDS][SLOTS_MAX];
    const struct shared *shared[SHARED_MAX]; /* a hash table */
    uint32_t refs[SHARED_MAX];
    const struct dig_news *news[NEWS_MAX];
    uint32_t posts[NEWS_MAX], news_n;
};

/* ---- shared buffers -------------------------------------------------------------------------- */

static void holds(struct dig_census *x, const struct shared *sh)
{
    size_t i = (uintptr_t)sh / 16 * 0x9e3779b97f4a7c15u >> 52;

    if (sh == NULL)
        return;
    while (x->shared[i] != NULL && x->shared[i] != sh)
        i = (i + 1) % SHARED_MAX;
    x->shared[i] = sh;
    x->refs[i]++;
}

static void control_holds(struct dig_census *x)
{
    const struct dig_control *dc = x->dc;

    for (uint32_t i = 0; i < dc->nets_max; i++) {
        holds(x, dc->net[i].frames);
        holds(x, dc->net[i].offs);
        holds(x, dc->net[i].list);
    }
    for (int p = 0; p < DIG_PAGES; p++)
        for (int full = 0; full < 2; full++)
            holds(x, dc->page[p][full].page);
}

static void check_shared(struct dig_census *x)
{
    size_t used = 0;

    for (uint32_t i = 0; i < x->news_n; i++) {
        holds(x, x->news[i]->mem);
        holds(x, x->news[i]->frames);
        if (atomic_load(&x->news[i]->left) != x->posts[i])
            sim_break(x->s, "news that %u shards have not read, and %u will",
                      atomic_load(&x->news[i]->left), x->posts[i]);
    }
    for (size_t i = 0; i < SHARED_MAX; i++) {
        if (x->shared[i] == NULL)
            continue;
        if (atomic_load(&x->shared[i]->refs) != x->refs[i])
            sim_break(x->s, "a shared buffer with %u references, %u can be found",
                      atomic_load(&x->shared[i]->refs), x->refs[i]);
        if (x->shared[i]->pool == &x->s->dig_host.shared)
            used += sizeof(struct shared) + x->shared[i]->cap;
    }
    if (used != atomic_load(&x->s->dig_host.shared.used))
        sim_break(x->s, "%zu bytes of shared buffers are in use, %zu can be found",
                  atomic_load(&x->s->dig_host.shared.used), used);
}

/* ---- mail ------------------------------------------------------------------------------------ */

static void on_post(struct dig_census *x, const struct dig_news *n)
{
    uint32_t i = 0;

    while (i < x->news_n && x->news[i] != n)
        i++;
    ASSERT(i < NEWS_MAX);
    if (i == x->news_n) {
        x->news[x->news_n++] = n;
        x->posts[i] = 0;
    }
    x->posts[i]++;
}

static void count_mail(struct dig_census *x, const struct mnode *n, unsigned shard)
{
    for (; n != NULL; n = n->next) {
        if (n->kind == MAIL_DIG_NEWS) {
            on_post(x, CONTAINER_OF(n, struct dig_post, node)->news);
        } else if (n->kind == MAIL_DIG_LETTER) {
            const struct dig_letter *l = CONTAINER_OF(n, struct dig_letter, node);

            if (l->to.at.shard != shard || l->to.at.slot >= SLOTS_MAX)
                sim_break(x->s, "a letter at shard %u for shard %u", shard, l->to.at.shard);
            x->bytes[shard][l->to.at.slot] += l->n;
            x->messages[shard][l->to.at.slot]++;
        }
    }
}

/* ---- connections ----------------------------------------------------------------------------- */

static void count_queue(struct dig_census *x, const struct dig_conn *c)
{
    size_t bytes = 0;

    for (const struct dig_out *o = c->tx.first; o != NULL; o = o->next) {
        size_t n = o->chunk != NULL ? o->chunk->len : o->n;

        bytes += n;
        holds(x, o->shared);
        x->bytes[c->ds->s->id][c->head.idx] += o->gated;
        x->messages[c->ds->s->id][c->head.idx] += o->gated_messages;
        if (n == 0 || (o->chunk != NULL) == (o->shared != NULL))
            sim_break(x->s, "an entry of a queue that holds %zu bytes of nothing", n);
        if ((o->next == NULL) != (o == c->tx.last))
            sim_break(x->s, "a queue that does not know its last");
    }
    if (bytes != c->tx.bytes)
        sim_break(x->s, "a queue says %zu bytes and holds %zu", c->tx.bytes, bytes);
}

/* Whoever waits has somebody to wait for. */
static void check_waits(struct dig_census *x, const struct dig_conn *c)
{
    uint64_t now_ms = sim_now(x->s);

    if (c->state < DIG_FLUSH && c->state != DIG_PAGE && !c->recv_armed && !c->dry && !c->paused)
        sim_break(x->s, "a connection in state %u that nobody reads", c->state);
    if (c->state == DIG_WS && c->paused && !dig_waits(c) && c->late.bytes == 0 &&
        dig_owed(c) <= DIG_CONTROL_ROOM / 2)
        sim_break(x->s, "a connection that is not read and waits for nothing");
    if (c->late.bytes != 0 && !dig_waits(c) && !c->is_late)
        sim_break(x->s, "%zu bytes came late and nobody looks at them", c->late.bytes);
    if (c->state <= DIG_FLUSH && dig_unsent(c) != 0 && !c->send_armed && !c->dirty)
        sim_break(x->s, "bytes to send that nobody sends");
    if (c->state < DIG_CLOSED && !timer_armed(&c->timer))
        sim_break(x->s, "a connection in state %u without a deadline", c->state);
    if (c->state < DIG_CLOSED && c->ops != c->recv_armed + c->send_armed + c->cancel_armed)
        sim_break(x->s, "%u operations in flight, receive %d, send %d", c->ops, c->recv_armed,
                  c->send_armed);
    if (c->is_held != (c->held.bytes != 0) ||
        (c->is_held && now_ms > c->hold_ms + DIG_HOLD_MS + HELD_LATE_MS))
        sim_break(x->s, "a message of %zu bytes is held for %llu ms", c->held.bytes,
                  (unsigned long long)(now_ms - c->hold_ms));
    if (c->state == DIG_CLOSED && (c->dirty || c->dry || c->is_late || c->is_held || c->in_parts))
        sim_break(x->s, "a closed connection with work");
}

static void check_known(struct dig_census *x, const struct dig_conn *c)
{
    const struct dig_home at = { c->head.idx, c->head.gen, (uint8_t)c->ds->s->id };
    const struct dig_member *m = dig_reg_of(&x->dc->reg, &at);

    if (c->in_net && (!c->registered || c->state >= DIG_FLUSH))
        sim_break(x->s, "a connection in state %u hears its network", c->state);
    if (c->registered && !c->in_net && c->state < DIG_FLUSH)
        sim_break(x->s, "a registrant that does not hear its network");
    if (c->registered && c->state >= DIG_FLUSH && !c->asking)
        sim_break(x->s, "control does not hear that somebody has left");
    if (c->asking)
        return; /* the answer may be on its way */
    if (c->registered != (m != NULL))
        sim_break(x->s, c->registered ? "a registrant that control does not know" : "a ghost");
    if (m != NULL && (!bytes_eq(dig_member_id(m), bytes_of(c->id, c->id_n)) ||
                      !bytes_eq(dig_network_name(m->network), bytes_of(c->net, c->net_n)) ||
                      m->network->index != c->net_index))
        sim_break(x->s, "a registrant under another name");
}

static void check_shard(struct dig_census *x, const struct dig_shard *ds)
{
    const struct dig_conn *c;
    uint32_t at = 0, outs = 0, members = 0, in_net = 0;
    size_t dirty = 0, dry = 0, late = 0, held = 0, ended = 0, sending = 0, parts = 0, bytes = 0;

    while ((c = slab_walk(&ds->slab, &at)) != NULL) {
        ASSERT(c->head.idx < SLOTS_MAX);
        x->conns++;
        dirty += c->dirty;
        dry += c->dry;
        late += c->is_late;
        held += c->is_held;
        ended += c->state == DIG_CLOSED;
        sending += c->send_armed;
        parts += c->in_parts;
        bytes += c->part.bytes;
        in_net += c->in_net;
        for (const struct dig_out *o = c->tx.first; o != NULL; o = o->next)
            outs++;
        count_queue(x, c);
        if (c->asking && c->ask.node.kind == MAIL_DIG_ANSWER)
            holds(x, c->ask.reply);
        check_waits(x, c);
        check_known(x, c);
    }
    for (uint32_t i = 0; i < ds->nets_used; i++)
        for (const struct link *k = ds->net[i].first; k != NULL; k = k->next, members++)
            if (CONTAINER_OF(k, struct dig_conn, net_link)->net_index != i)
                sim_break(x->s, "somebody hears a network that is not his");
    x->in_net += in_net;
    if (dirty != ds->dirty.count || dry != ds->dry.count || late != ds->late.count ||
        held != ds->held.count || ended != ds->ended.count || sending != ds->sending.count ||
        parts != ds->parts.count || bytes != ds->part_bytes || members != in_net ||
        outs != ds->outs.live)
        sim_break(x->s,
                  "shard %u: dirty %zu, dry %zu, late %zu, held %zu, ended %zu, sending %zu, parts "
                  "%zu, %zu bytes, members %u of %u, outs %u of %u",
                  ds->s->id, dirty, dry, late, held, ended, sending, parts, bytes, members, in_net,
                  outs, ds->outs.live);
    if (ds->held.count != 0 && !timer_armed(&ds->held_timer))
        sim_break(x->s, "shard %u holds messages back and does not try again", ds->s->id);
    for (unsigned i = 0; i < ds->listeners_n; i++)
        if (!ds->draining && !ds->listener[i].armed && !timer_armed(&ds->listener[i].timer))
            sim_break(x->s, "shard %u accepts no DIG client any more", ds->s->id);
}

static void check_gates(struct dig_census *x)
{
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        for (uint32_t k = 0; k < x->s->cfg.dig_conns_max; k++) {
            const struct dig_gate *g = &x->s->d.dig->gate[i][k];

            if (atomic_load(&g->bytes) != x->bytes[i][k] ||
                atomic_load(&g->messages) != x->messages[i][k])
                sim_break(x->s, "gate %u of shard %u: %u bytes of %u messages, there are %u of %u",
                          k, i, atomic_load(&g->bytes), atomic_load(&g->messages),
                          (unsigned)x->bytes[i][k], x->messages[i][k]);
        }
}

/* ---- the registry ---------------------------------------------------------------------------- */

static void check_member(struct dig_census *x, const struct dig_member *m)
{
    struct dig_host *h = x->s->d.dig;
    const struct dig_conn *c =
        slab_find(&x->s->shard[m->home.shard].dig->slab, m->home.slot, m->home.gen);
    struct home at[HOMES_PER_PEER];
    uint64_t net[2];

    dig_hash_network(h, dig_network_name(m->network), net);
    const struct peer_id key = dig_home_key(h, net, dig_member_id(m));

    if (c == NULL || (!c->registered && !c->asking))
        sim_break(x->s, "a ghost: registrant without a connection");
    if (homes_find(h->homes, &key, at) != 1 || at[0].slot != m->home.slot ||
        at[0].gen != m->home.gen || at[0].shard != m->home.shard)
        sim_break(x->s, "a registrant who is at home elsewhere");
}

static void check_registry(struct dig_census *x)
{
    const struct dig_host *h = x->s->d.dig;
    const struct dig_member *page[PAGE];
    struct bytes after = { NULL, 0 };
    uint32_t count = dig_reg_count(&x->dc->reg), walked = 0;
    size_t n;

    do {
        n = dig_reg_page(&x->dc->reg, after, page, PAGE);
        for (size_t i = 0; i < n; i++)
            check_member(x, page[i]);
        walked += (uint32_t)n;
        if (n != 0)
            after = dig_member_id(page[n - 1]);
    } while (n == PAGE);
    if (walked != count || atomic_load(&h->registered) != count || homes_peers(h->homes) != count)
        sim_break(x->s, "%u registered, %u listed, %u told, %u at home", count, walked,
                  atomic_load(&h->registered), homes_peers(h->homes));
    if (atomic_load(&h->open) != x->conns)
        sim_break(x->s, "%u connections are open, there are %u", atomic_load(&h->open), x->conns);
}

void sim_check_dig(struct sim *s)
{
    static struct dig_census x;

    memset(&x, 0, sizeof(x));
    x.s = s;
    x.dc = s->control.dig;
    ASSERT(s->cfg.dig_conns_max <= SLOTS_MAX);
    control_holds(&x);
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        count_mail(&x, atomic_load(&s->shard[i].mbox.head), i);
        count_mail(&x, s->shard[i].kept, i);
        check_shard(&x, s->shard[i].dig);
    }
    check_gates(&x);
    check_registry(&x);
    check_shared(&x);
}

void sim_check_dig_ended(struct sim *s)
{
    sim_check_dig(s);
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        if (s->shard[i].dig->slab.live != 0)
            sim_break(s, "shard %u ended with %u DIG clients", i, s->shard[i].dig->slab.live);
    if (dig_host_left(s->d.dig) != 0 || dig_reg_count(&s->control.dig->reg) != 0)
        sim_break(s, "%zu DIG clients are left", dig_host_left(s->d.dig));
    if (s->control.dig->pex.links != 0)
        sim_break(s, "%u PEX links are left", s->control.dig->pex.links);
}
