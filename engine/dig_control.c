/* Control's part of the DIG door: who is registered, what others are told of it, PEX. */
#include "engine/dig_control.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/control.h"
#include "engine/mem.h"
#include "engine/printable.h"
#include "engine/rng.h"

enum {
    SAID_NAME_MAX = 64,
    DIG_OWED_MS = 100, /* between tries to find memory for what a PEX link is owed */
    PEX_DELTA_BYTES = PEX_OUT_MAX * (WS_HEAD_MAX + DIG_MESSAGE_MAX) +
                      DIG_PEX_DELTA_MAX * (DIG_PEX_ENTRY_TEXT_MAX + 1 + PEX_ID_TEXT + 3),
};

uint64_t dig_rng_u64(void *arg)
{
    uint64_t v;

    (void)arg;
    rng_bytes(&v, sizeof(v));
    return v;
}

static struct home home_of(const struct dig_home *h)
{
    return (struct home){ h->slot, h->gen, h->shard };
}

/* D3: the registrant's last message; its registration until there is one. */
uint64_t dig_last_seen(void *arg, const struct dig_member *m)
{
    const struct dig_control *dc = arg;
    const struct dig_gate *g = dig_gate_of(dc->host, home_of(&m->home));
    uint64_t seen = atomic_load_explicit(&g->seen_unix_s, memory_order_relaxed);

    return seen > m->connected_at_unix_s ? seen : m->connected_at_unix_s;
}

struct dig_peer dig_peer_of(const struct dig_control *dc, const struct dig_member *m)
{
    return (struct dig_peer){
        .peer_id = dig_member_id(m),
        .network_id = dig_network_name(m->network),
        .protocol_version = m->protocol_version,
        .connected_at = m->connected_at_unix_s,
        .last_seen = dig_last_seen((void *)(uintptr_t)dc, m),
        .addresses = m->addr,
        .addresses_n = m->addrs_n,
    };
}

static int dig_control_init(struct dig_control *dc, struct control *c, struct dig_host *h)
{
    uint32_t max = h->cfg->dig_conns_max;
    uint8_t key[16];
    int err = 0;

    dc->c = c;
    dc->host = h;
    dc->nets_max = max;
    dc->reg_bytes = dig_reg_bytes(max);
    dc->pex_bytes = pex_bytes(max);
    dc->reg_mem = mem_reserve(dc->reg_bytes, 1, &err);
    if (!err)
        dc->pex_mem = mem_reserve(dc->pex_bytes, 1, &err);
    if (!err)
        dc->net = mem_reserve(max, sizeof(*dc->net), &err);
    if (err)
        return err;
    dc->dht = dig_dht_new(max);
    dc->owed.text = malloc(PEX_DELTA_BYTES);
    dc->map = dig_map_new(max);
    if (!dc->dht || !dc->map || !dc->owed.text)
        return -ENOMEM;
    rng_bytes(key, sizeof(key));
    dig_reg_init(&dc->reg, dc->reg_mem, max, key);
    dc->reg.source_max = h->cfg->dig_registrations_per_ip_max;
    const struct pex_setup setup = {
        .reg = &dc->reg,
        .rng = { dig_rng_u64, NULL },
        .last_seen = dig_last_seen,
        .last_seen_arg = dc,
    };

    pex_init(&dc->pex, dc->pex_mem, max, &setup);
    return 0;
}

struct dig_control *dig_control_new(struct control *c, struct dig_host *h, int *err)
{
    struct dig_control *dc = calloc(1, sizeof(*dc));

    *err = dc ? dig_control_init(dc, c, h) : -ENOMEM;
    if (*err) {
        dig_control_free(dc);
        return NULL;
    }
    return dc;
}

void dig_control_free(struct dig_control *dc)
{
    if (!dc)
        return;
    for (uint32_t i = 0; dc->net && i < dc->nets_max; i++) {
        struct dig_net_state *ns = &dc->net[i];

        if (!ns->next_seq && !ns->list) /* untouched from here on: indexes go up one by one */
            break;
        shared_drop(ns->frames);
        shared_drop(ns->offs);
        shared_drop(ns->list);
    }
    dig_pages_free(dc);
    dig_dht_free(dc->dht);
    dig_map_free(dc->map);
    free(dc->list_room);
    free(dc->owed.text);
    mem_release(dc->net, dc->nets_max, sizeof(*dc->net));
    mem_release(dc->pex_mem, dc->pex_bytes, 1);
    mem_release(dc->reg_mem, dc->reg_bytes, 1);
    free(dc);
}

/* ---- frames ----------------------------------------------------------------------------------
 */

struct wcur dig_frames_text(const struct wcur *w)
{
    if (w->bad || w->n < WS_HEAD_MAX)
        return (struct wcur){ .bad = true };
    return wcur_of(w->p + WS_HEAD_MAX, w->n - WS_HEAD_MAX);
}

void dig_frames_done(struct wcur *w, const struct wcur *text)
{
    uint8_t head[WS_HEAD_MAX];
    size_t n = text->wrote, head_n = ws_head_encode(head, WS_OP_TEXT, n);

    if (text->bad || w->bad) {
        w->bad = true;
        return;
    }
    ASSERT(text->p - n == w->p + WS_HEAD_MAX); /* it lies behind room for the longest header */
    memcpy(w->p, head, head_n);
    memmove(w->p + head_n, text->p - n, n);
    (void)wcur_room(w, head_n + n);
}

/* ---- news ------------------------------------------------------------------------------------
 */

void dig_news_post(struct dig_control *dc, struct dig_news *n)
{
    struct daemon *d = dc->c->d;

    for (unsigned i = 0; i < d->shards_n; i++)
        control_to_shard(dc->c, i, mbox_push(&d->shard[i]->mbox, &n->post[i].node));
}

bool dig_tell(struct dig_control *dc, const struct dig_member *m, enum dig_news_kind kind,
              struct shared *frames)
{
    struct daemon *d = dc->c->d;
    struct dig_news *n = dig_news_new(dc->host, 1, 0, 0);
    unsigned shard = m->home.shard;

    if (!n) {
        shared_drop(frames);
        return false;
    }
    n->kind = kind;
    n->one = home_of(&m->home);
    n->frames = frames;
    control_to_shard(dc->c, shard, mbox_push(&d->shard[shard]->mbox, &n->post[0].node));
    return true;
}

/* ---- registration ------------------------------------------------------------------------------
 */

static struct peer_id member_key(const struct dig_control *dc, const struct dig_member *m)
{
    uint64_t net[2];

    dig_hash_network(dc->host, dig_network_name(m->network), net);
    return dig_home_key(dc->host, net, dig_member_id(m));
}

static void count_publish(struct dig_control *dc)
{
    atomic_store_explicit(&dc->host->registered, dig_reg_count(&dc->reg), memory_order_relaxed);
    atomic_store_explicit(&dc->host->networks, dig_reg_networks_count(&dc->reg),
                          memory_order_relaxed);
}

static void say(struct dig_control *dc, const struct dig_member *m, const char *what, uint32_t now,
                const char *why)
{
    char id[SAID_NAME_MAX + 4], net[SAID_NAME_MAX + 4];

    if (log_level_of(dc->c->d->log) < LOG_INFO)
        return;
    printable(dig_member_id(m), id, sizeof(id));
    printable(dig_network_name(m->network), net, sizeof(net));
    log_text(dc->c->log, LOG_INFO, "dig peer %s peer=%s network=%s registered=%u%s%s", what, id,
             net, now, why ? " reason=" : "", why ? why : "");
}

/* Out of everything; its own connection is told by who calls. */
static void member_remove(struct dig_control *dc, struct dig_member *m, const char *why)
{
    struct peer_id key = member_key(dc, m);

    homes_remove(dc->host->homes, &key, home_of(&m->home));
    pex_on_leave(&dc->pex, dc->c->now_ms, m);
    dig_presence_left(dc, m);
    dig_map_left(dc->map, m);
    say(dc, m, "left", dig_reg_count(&dc->reg) - 1, why);
    if (!dig_reg_remove(&dc->reg, &m->home))
        ASSERT(false && "a member without an entry");
    count_publish(dc);
}

static bool member_add(struct dig_control *dc, struct dig_member *m)
{
    struct peer_id key = member_key(dc, m);
    struct dig_gate *g = dig_gate_of(dc->host, home_of(&m->home));

    if (!homes_add(dc->host->homes, &key, home_of(&m->home))) {
        (void)dig_reg_remove(&dc->reg, &m->home);
        return false;
    }
    atomic_store_explicit(&g->seen_unix_s, dc->c->now_unix_s, memory_order_relaxed);
    count_publish(dc);
    return true;
}

static uint8_t refusal(struct dig_control *dc, enum dig_reg_verdict v, const struct dig_member *m)
{
    switch (v) {
    case DIG_REG_SOURCE_FULL:
        return DIG_CODE_SOURCE_LIMIT;
    case DIG_REG_TAKEN: /* if it is dead, the next try succeeds (dig.md §21) */
        (void)dig_tell(dc, m, DIG_NEWS_PROBE, NULL); /* the next one, too */
        return DIG_CODE_ID_TAKEN;
    default:
        return DIG_CODE_FULL;
    }
}

static void on_register(struct dig_control *dc, struct dig_conn *c)
{
    struct dig_ask *a = &c->ask;
    const struct home at = dig_home_of(c);
    const struct dig_claim claim = {
        .id = bytes_of(a->u.reg.id, a->u.reg.id_n),
        .network = bytes_of(a->u.reg.net, a->u.reg.net_n),
        .protocol_version = a->u.reg.version,
        .addrs_n = a->u.reg.addrs_n,
        .addrs = a->u.reg.addrs,
        .observed = c->observed,
        .source = a->u.reg.source,
        .connected_at_unix_s = dc->c->now_unix_s,
        .home = { at.slot, at.gen, at.shard },
        .verified = c->verified,
    };
    struct dig_member *m = NULL;
    enum dig_reg_verdict v = dig_reg_add(&dc->reg, &claim, &m);

    for (int i = 0; v == DIG_REG_EVICT && i < 2; i++) {
        /* Out of the registry and not told, it would go on as who it is no more (D1). */
        if (!dig_home_eq(&m->home, &claim.home) && !dig_tell(dc, m, DIG_NEWS_EVICT, NULL)) {
            v = DIG_REG_FULL;
            break;
        }
        member_remove(dc, m, "replaced");
        v = dig_reg_add(&dc->reg, &claim, &m);
    }
    if (v == DIG_REG_ADDED && !member_add(dc, m))
        v = DIG_REG_FULL;
    if (v != DIG_REG_ADDED && v != DIG_REG_REFRESHED) {
        a->code = refusal(dc, v, m);
        return;
    }
    a->u.reg.net_index = m->network->index;
    a->u.reg.connected_unix_s = m->connected_at_unix_s;
    if (v == DIG_REG_REFRESHED) {
        a->u.reg.join_seq = c->join_seq;
        dig_map_moved(dc->map, m);
        return;
    }
    a->u.reg.join_seq = dc->net[m->network->index].next_seq;
    dig_presence_joined(dc, m);
    dig_map_joined(dc->map, m);
    pex_on_join(&dc->pex, dc->c->now_ms, m);
    say(dc, m, "registered", dig_reg_count(&dc->reg), NULL);
}

static struct dig_member *member_of(struct dig_control *dc, const struct dig_conn *c)
{
    const struct home at = dig_home_of(c);
    const struct dig_home home = { at.slot, at.gen, at.shard };

    return dig_reg_of(&dc->reg, &home);
}

/* ---- lists -----------------------------------------------------------------------------------
 */

static size_t list_bytes(size_t n)
{
    return WS_HEAD_MAX + 64 + n * (DIG_PEER_TEXT_MAX + 1);
}

static struct shared *list_make(struct dig_control *dc, const struct dig_network *net,
                                const struct dig_member *self)
{
    const struct dig_rng rng = { dig_rng_u64, NULL };
    size_t n = net ? dig_reg_list(&dc->reg, net, self, &rng, dc->picked, DIG_REG_LIST_MAX) : 0;
    struct wcur w, text;

    if (!dc->list_room)
        dc->list_room = malloc(list_bytes(DIG_REG_LIST_MAX));
    if (!dc->list_room)
        return NULL;
    w = wcur_of(dc->list_room, list_bytes(n));
    text = dig_frames_text(&w);
    dig_put_peers_head(&text);
    for (size_t i = 0; i < n; i++) {
        const struct dig_peer p = dig_peer_of(dc, dc->picked[i]);

        if (i)
            dig_put_comma(&text);
        dig_put_peer(&text, &p);
    }
    dig_put_peers_tail(&text);
    dig_frames_done(&w, &text);
    ASSERT(!w.bad);
    return shared_of(&dc->host->shared, bytes_of(dc->list_room, w.wrote));
}

static void list_forget(struct dig_control *dc, struct dig_net_state *ns)
{
    if (!ns->list)
        return;
    list_remove(&dc->listed, &ns->listed);
    shared_drop(ns->list);
    ns->list = NULL;
}

/* Up to DIG_REG_LIST_MAX members everybody is told the same, and so from the same bytes; above it
 * each has a sample of its own. */
static struct shared *list_get(struct dig_control *dc, const struct dig_network *net,
                               const struct dig_member *self)
{
    struct dig_net_state *ns = net ? &dc->net[net->index] : NULL;

    if (!net || dig_network_members(net) > DIG_REG_LIST_MAX)
        return list_make(dc, net, self);
    if (ns->list && ns->list_events == net->events && dc->c->now_ms < ns->list_ms + DIG_LIST_MS)
        return shared_keep(ns->list);
    list_forget(dc, ns);
    ns->list = list_make(dc, net, self);
    if (!ns->list)
        return NULL;
    ns->list_events = net->events;
    ns->list_ms = dc->c->now_ms;
    list_append(&dc->listed, &ns->listed); /* oldest first */
    return shared_keep(ns->list);
}

static void lists_age(struct dig_control *dc)
{
    while (dc->listed.count) {
        struct dig_net_state *ns = CONTAINER_OF(dc->listed.first, struct dig_net_state, listed);

        if (dc->c->now_ms < ns->list_ms + DIG_LIST_MS)
            return;
        list_forget(dc, ns);
    }
}

/* dig.md §5.6, D8: another network's list is empty unless the operator says otherwise. */
static void on_peers(struct dig_control *dc, struct dig_conn *c)
{
    const struct dig_member *m = member_of(dc, c);
    struct bytes name = bytes_of(c->ask.u.peers.name, c->ask.u.peers.n);
    const struct dig_network *net = m ? m->network : NULL;

    if (c->ask.u.peers.named && c->ask.u.peers.n == UINT8_MAX)
        net = NULL;
    else if (m && c->ask.u.peers.named && !bytes_eq(name, dig_network_name(m->network)))
        net = dc->host->cfg->dig_foreign_lists ? dig_reg_network(&dc->reg, name) : NULL;
    c->ask.reply = list_get(dc, net, m && net == m->network ? m : NULL);
    c->ask.code = !c->ask.reply;
}

/* ---- PEX -------------------------------------------------------------------------------------
 */

static void pex_entry(const struct pex_peer *p, struct wcur *w)
{
    const struct dig_pex_entry e = {
        .peer_id = dig_member_id(p->member),
        .network_id = dig_network_name(p->member->network),
        .observed = p->member->observed,
        .last_seen = p->last_seen_unix_s,
    };

    dig_put_pex_entry(w, &e);
}

static void pex_put(const struct pex_out *o, const struct pex_event *ev, struct wcur *w)
{
    struct wcur text = dig_frames_text(w);

    switch (ev->type) {
    case PEX_SEND_HANDSHAKE:
        dig_put_pex_handshake(&text, dig_network_name(o->to->network), ev->interval_s);
        break;
    case PEX_SEND_ERROR:
        dig_put_pex_error(&text, ev->code);
        break;
    case PEX_SEND_SNAPSHOT:
    case PEX_SEND_DELTA:
        if (ev->type == PEX_SEND_SNAPSHOT)
            dig_put_pex_snapshot_head(&text);
        else
            dig_put_pex_delta_head(&text);
        for (uint32_t i = 0; i < o->peers; i++) {
            if (i)
                dig_put_comma(&text);
            pex_entry(&o->peer[i], &text);
        }
        if (ev->type == PEX_SEND_SNAPSHOT) {
            dig_put_pex_snapshot_tail(&text);
            break;
        }
        dig_put_pex_delta_dropped(&text);
        for (uint32_t i = 0; i < o->dropped_n; i++) {
            if (i)
                dig_put_comma(&text);
            dig_put_string(&text, bytes_of(o->dropped[i], PEX_ID_TEXT));
        }
        dig_put_pex_delta_tail(&text);
        break;
    }
    dig_frames_done(w, &text);
}

static size_t pex_bytes_max(const struct pex_out *o)
{
    return PEX_OUT_MAX * (WS_HEAD_MAX + DIG_MESSAGE_MAX) +
           o->peers * (size_t)(DIG_PEX_ENTRY_TEXT_MAX + 1) +
           o->dropped_n * (size_t)(PEX_ID_TEXT + 3);
}

/* All events of one order, frame behind frame. */
static size_t pex_write(const struct pex_out *o, uint8_t *to, size_t cap)
{
    struct wcur w = wcur_of(to, cap);

    for (uint32_t i = 0; i < o->n; i++)
        pex_put(o, &o->ev[i], &w);
    ASSERT(!w.bad);
    return w.wrote;
}

/* NULL: none, or no memory. */
static struct shared *pex_frames(struct dig_control *dc, const struct pex_out *o)
{
    struct shared *sh = o->n ? shared_new(&dc->host->shared, pex_bytes_max(o)) : NULL;

    if (sh)
        sh->n = (uint32_t)pex_write(o, sh->data, sh->cap);
    return sh;
}

static void on_pex(struct dig_control *dc, struct dig_conn *c)
{
    struct dig_member *m = member_of(dc, c);

    if (!m)
        return;
    dc->pex_out.n = 0;
    pex_on_frame(&dc->pex, dc->c->now_ms, m, &c->ask.u.pex, &dc->pex_out);
    c->ask.reply = pex_frames(dc, &dc->pex_out);
    c->ask.code = dc->pex_out.n && !c->ask.reply;
}

/* false: there is still no memory for it. */
static bool pex_pay(struct dig_control *dc)
{
    const struct dig_member *m = dig_reg_of(&dc->reg, &dc->owed.home);
    struct shared *sh;

    if (m && m->serial == dc->owed.serial) { /* else its link has gone with it */
        sh = shared_of(&dc->host->shared, bytes_of(dc->owed.text, dc->owed.n));
        if (!sh || !dig_tell(dc, m, DIG_NEWS_ONE, sh)) {
            dc->owed.again_ms = dc->c->now_ms + DIG_OWED_MS;
            return false;
        }
    }
    dc->owed.n = 0;
    return true;
}

/* pex_tick() takes it for granted that what it gives is told: a delta that was lost would leave the
 * link's book wrong for ever. So it is written where there is always room, and owed until it has
 * been posted. */
static void pex_due(struct dig_control *dc)
{
    if (dc->owed.n && (dc->c->now_ms < dc->owed.again_ms || !pex_pay(dc)))
        return;
    for (int i = 0; i < PEX_LINKS_PER_TICK && pex_deadline_ms(&dc->pex) <= dc->c->now_ms; i++) {
        dc->pex_out.n = 0;
        pex_tick(&dc->pex, dc->c->now_ms, &dc->pex_out);
        if (!dc->pex_out.n)
            continue;
        ASSERT(pex_bytes_max(&dc->pex_out) <= PEX_DELTA_BYTES);
        dc->owed.n = pex_write(&dc->pex_out, dc->owed.text, PEX_DELTA_BYTES);
        dc->owed.home = dc->pex_out.to->home;
        dc->owed.serial = dc->pex_out.to->serial;
        if (!pex_pay(dc))
            return;
    }
}

/* ---- mail and time -----------------------------------------------------------------------------
 */

void dig_answer(struct dig_control *dc, struct dig_conn *c)
{
    unsigned shard = c->ds->s->id;

    c->ask.node.kind = MAIL_DIG_ANSWER;
    control_to_shard(dc->c, shard, mbox_push(&dc->c->d->shard[shard]->mbox, &c->ask.node));
}

void dig_control_on_mail(struct dig_control *dc, struct mnode *n)
{
    struct dig_conn *c = CONTAINER_OF(n, struct dig_conn, ask.node);
    struct dig_ask *a = &c->ask;
    struct dig_member *m;

    a->reply = NULL;
    switch (a->kind) {
    case DIG_ASK_REGISTER:
        on_register(dc, c);
        break;
    case DIG_ASK_LEAVE:
        if ((m = member_of(dc, c)))
            member_remove(dc, m, c->why);
        break;
    case DIG_ASK_PEERS:
        on_peers(dc, c);
        break;
    case DIG_ASK_PEX:
        on_pex(dc, c);
        break;
    case DIG_ASK_DHT:
        if ((m = member_of(dc, c)))
            dig_dht_answer(dc, m, &a->u.dht.records, a->u.dht.truncated);
        break;
    case DIG_ASK_PAGE:
        dig_page_ask(dc, c);
        return;
    }
    dig_answer(dc, c);
}

void dig_control_tick(struct dig_control *dc)
{
    dig_presence_flush(dc);
    pex_due(dc);
    dig_dht_tick(dc);
    dig_map_tick(dc->map);
    dig_pages_tick(dc);
    lists_age(dc);
}

uint64_t dig_control_deadline_ms(const struct dig_control *dc)
{
    uint64_t at = min_u64(dig_presence_due_ms(dc), dig_dht_due_ms(dc));

    at = min_u64(at, dig_pages_due_ms(dc));
    return min_u64(at, dc->owed.n ? dc->owed.again_ms : pex_deadline_ms(&dc->pex));
}
