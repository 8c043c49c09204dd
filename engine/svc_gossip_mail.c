/* Gossip between shards, and what a shard and the process have for it. */
#include <errno.h>
#include <stdlib.h>

#include "engine/clock.h"
#include "engine/dial.h"
#include "engine/mem.h"
#include "engine/rng.h"
#include "engine/svc_gossip_int.h"

/* ---- letters --------------------------------------------------------------------------------- */

struct shared *gossip_letter_new(struct gossip_shard *gs, size_t n, uint8_t **wire)
{
    unsigned shards = gs->s->d->shards_n;
    size_t head = sizeof(struct gossip_letter) + shards * sizeof(struct gossip_post);
    struct shared *mem = shared_new(&gs->host->pool, head + n);

    if (!mem)
        return NULL;
    memset(mem->data, 0, head);
    mem->n = mem->cap;
    struct gossip_letter *l = gossip_letter_of(mem);

    l->wire_off = (uint32_t)head;
    l->wire_n = (uint32_t)n;
    *wire = mem->data + head;
    return mem;
}

void gossip_post_all(struct gossip_shard *gs, struct shared *mem)
{
    struct gossip_letter *l = gossip_letter_of(mem);
    struct daemon *d = gs->s->d;

    for (unsigned i = 0; i < d->shards_n; i++) {
        if (i == gs->s->id)
            continue;
        l->post[i] = (struct gossip_post){ .node.kind = MAIL_GOSSIP, .mem = shared_keep(mem) };
        if (mbox_push(&d->shard[i]->mbox, &l->post[i].node))
            shard_bell(gs->s, d->shard[i]);
    }
}

/* A peer with another connection, perhaps on another shard, is still subscribed. */
void gossip_hand_down(struct gossip_shard *gs, const struct peer_id *heir, uint8_t subs)
{
    struct daemon *d = gs->s->d;
    struct shared *mem;
    uint8_t *wire;

    if (d->shards_n < 2 || gs->s->stopping)
        return;
    if (quota_count(d->quota, quota_key(d->quota, QUOTA_CONN_PEER, bytes_of(heir, sizeof(*heir)))) <
        2)
        return; /* this one is still counted */
    mem = gossip_letter_new(gs, 0, &wire);
    if (!mem)
        return;
    gossip_letter_of(mem)->heir = *heir;
    gossip_letter_of(mem)->subs = subs;
    gossip_post_all(gs, mem);
    shared_drop(mem);
}

void gossip_beat(struct gossip_shard *gs)
{
    if (!timer_armed(&gs->timer) && (gs->hub.peers.count || gs->hub.kept_count))
        wheel_arm(&gs->s->wheel, &gs->timer, gs->s->now_ms + GOSSIP_HEARTBEAT_MS);
}

void gossip_on_letter(struct shard *s, struct mnode *node)
{
    struct gossip_shard *gs = s->gossip;
    struct shared *mem = CONTAINER_OF(node, struct gossip_post, node)->mem;
    const struct gossip_letter *l = gossip_letter_of(mem);

    const struct bytes wire = bytes_of(mem->data + l->wire_off, l->wire_n);

    if (l->heir.n)
        gossip_hub_inherit(&gs->hub, &l->heir, l->subs);
    else if (gossip_hub_remote(&gs->hub, s->now_ms, &l->take, mem, wire))
        gossip_fed_mailed(gs, &l->take, wire);
    gossip_beat(gs);
    shared_drop(mem);
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void tell_subs(struct gossip_shard *gs)
{
    for (int t = 0; t < GOSSIP_TOPICS; t++) {
        uint32_t now = (uint32_t)gs->hub.subs[t].count;

        if (now == gs->told_subs[t])
            continue;
        atomic_fetch_add_explicit(&gs->host->subs[t], now - gs->told_subs[t], memory_order_relaxed);
        gs->told_subs[t] = now;
    }
}

static void tell_stats(struct gossip_shard *gs)
{
    const struct gossip_counts *c = &gs->hub.counts;
    struct gossip_counts *was = &gs->seen;
    struct stats *st = &gs->s->stats;
    uint64_t fresh = c->offered - was->offered, lost[GOSSIP_CAUSES];

    if (!fresh && c->sent == was->sent && c->meant == was->meant)
        return;
    for (int i = 0; i < GOSSIP_CAUSES; i++)
        lost[i] = c->dropped[i] - was->dropped[i];
    STAT_ADD(st, gossip_offered, fresh);
    STAT_ADD(st, gossip_accepted, c->accepted - was->accepted);
    STAT_ADD(st, gossip_sent, c->sent - was->sent);
    STAT_ADD(st, gossip_invalid, lost[GOSSIP_INVALID] + lost[GOSSIP_OWN]);
    STAT_ADD(st, gossip_strange, lost[GOSSIP_STRANGE]);
    STAT_ADD(st, gossip_duplicate, lost[GOSSIP_DUPLICATE]);
    STAT_ADD(st, gossip_over_sender, lost[GOSSIP_SENDER]);
    STAT_ADD(st, gossip_over_author, lost[GOSSIP_AUTHOR]);
    STAT_ADD(st, gossip_over_topic, lost[GOSSIP_TOPIC]);
    STAT_ADD(st, gossip_over_receiver, lost[GOSSIP_RECEIVER] + lost[GOSSIP_TOTAL]);
    STAT_ADD(st, gossip_no_memory, lost[GOSSIP_MEMORY] + lost[GOSSIP_NODES]);
    STAT_ADD(st, gossip_unread, lost[GOSSIP_QUEUE] + lost[GOSSIP_STALE] + lost[GOSSIP_LEFT]);
    *was = *c;
}

void gossip_pass(struct shard *s)
{
    struct gossip_shard *gs = s->gossip;

    if (!gs)
        return;
    gossip_in_pass(gs);
    gossip_write_pass(gs);
    tell_subs(gs);
    tell_stats(gs);
}

bool gossip_busy(const struct shard *s)
{
    return s->gossip && (s->gossip->ready.count || s->gossip->held.count);
}

void gossip_on_timer(struct shard *s)
{
    struct gossip_shard *gs = s->gossip;
    size_t n = min_sz(gs->hub.waiting.count, GOSSIP_TICK_MAX);

    gossip_hub_tick(&gs->hub, s->now_ms);
    /* Those for whom the pool had no room: nobody else wakes them. */
    for (struct link *k = gs->hub.waiting.first; k && n--; k = k->next)
        gossip_list(
            CONTAINER_OF(CONTAINER_OF(k, struct gossip_peer, wait_link), struct gossip_conn, peer));
    for (n = gs->again.count; n-- && gs->again.count;) {
        struct gossip_conn *gc = CONTAINER_OF(list_pop(&gs->again), struct gossip_conn, again_link);

        gc->again = false;
        if (gc->conn->state == CONN_MUX && !gc->out && !s->draining)
            gossip_open(gc);
    }
    gossip_beat(gs);
}

/* ---- made and unmade ------------------------------------------------------------------------- */

int gossip_host_new(struct daemon *d)
{
    struct gossip_host *h = calloc(1, sizeof(*h));

    if (!h)
        return -ENOMEM;
    h->d = d;
    h->limits = gossip_limits_default;
    h->pool.max = (size_t)min_u64(d->cfg->buffer_bytes_max / GOSSIP_POOL_PART, GOSSIP_POOL_MAX);
    if (h->limits.cache_bytes > h->pool.max / 4)
        h->limits.cache_bytes = (uint32_t)(h->pool.max / 4);
    /* Unix nanoseconds, +1 each (dusk.md §10.2), so that a restart does not go back. */
    atomic_init(&h->seqno, clock_unix_ms() * 1000000);
    for (unsigned i = 0; i < d->cfg->peer_relays_n; i++) {
        struct dial_target to;

        if (dial_parse(maddr_bytes(&d->cfg->peer_relay[i]), &to) && to.want.n &&
            h->relays_n < GOSSIP_RELAYS_MAX)
            h->relay[h->relays_n++] = to.want;
    }
    d->gossip = h;
    daemon_offer(d, GOSSIP_PROTOCOL, SVC_GOSSIP);
    daemon_offer(d, GOSSIP_PROTOCOL_10, SVC_GOSSIP);
    return 0;
}

void gossip_host_free(struct daemon *d)
{
    if (d->gossip)
        ASSERT(atomic_load(&d->gossip->pool.used) == 0);
    free(d->gossip);
    d->gossip = NULL;
}

void gossip_on_foreign(struct daemon *d, gossip_foreign_fn *take)
{
    if (d->gossip)
        d->gossip->foreign = take;
}

void gossip_add_relay(struct daemon *d, const struct peer_id *relay)
{
    if (d->gossip && !gossip_is_relay(d->gossip, relay) && d->gossip->relays_n < GOSSIP_RELAYS_MAX)
        d->gossip->relay[d->gossip->relays_n++] = *relay;
}

static uint32_t buckets_for(uint32_t conns)
{
    uint32_t n = 64;

    while (n < conns)
        n *= 2;
    return n;
}

static int tables_new(struct gossip_tables *t, uint32_t conns)
{
    int err = 0;

    *t = (struct gossip_tables){ .seen_n = GOSSIP_SEEN_N,
                                 .kept_n = GOSSIP_KEPT_N,
                                 .authors_n = GOSSIP_AUTHORS_N,
                                 .cells_n = GOSSIP_CELLS_N,
                                 .nodes_n = GOSSIP_NODES_N,
                                 .peers_n = buckets_for(conns) };
    t->seen = mem_reserve(t->seen_n, sizeof(*t->seen), &err);
    t->seen_index = mem_reserve(t->seen_n, sizeof(*t->seen_index), &err);
    t->kept = mem_reserve(t->kept_n, sizeof(*t->kept), &err);
    t->kept_index = mem_reserve(t->kept_n, sizeof(*t->kept_index), &err);
    t->authors = mem_reserve(t->authors_n, sizeof(*t->authors), &err);
    t->replies = mem_reserve(t->cells_n, sizeof(*t->replies), &err);
    t->asked = mem_reserve(t->cells_n, sizeof(*t->asked), &err);
    t->nodes = mem_reserve(t->nodes_n, sizeof(*t->nodes), &err);
    t->peers = mem_reserve(t->peers_n, sizeof(struct gossip_peer *), &err);
    return t->seen && t->seen_index && t->kept && t->kept_index && t->authors && t->replies &&
                   t->asked && t->nodes && t->peers
               ? 0
               : -ENOMEM;
}

static void tables_free(struct gossip_tables *t)
{
    mem_release(t->seen, t->seen_n, sizeof(*t->seen));
    mem_release(t->seen_index, t->seen_n, sizeof(*t->seen_index));
    mem_release(t->kept, t->kept_n, sizeof(*t->kept));
    mem_release(t->kept_index, t->kept_n, sizeof(*t->kept_index));
    mem_release(t->authors, t->authors_n, sizeof(*t->authors));
    mem_release(t->replies, t->cells_n, sizeof(*t->replies));
    mem_release(t->asked, t->cells_n, sizeof(*t->asked));
    mem_release(t->nodes, t->nodes_n, sizeof(*t->nodes));
    mem_release(t->peers, t->peers_n, sizeof(struct gossip_peer *));
}

static void shard_release(struct gossip_shard *gs)
{
    tables_free(&gs->hub.t);
    mem_release(gs->join, GOSSIP_WIRE_MAX, 1);
    mem_release(gs->sign, GOSSIP_SIGN_MAX, 1);
    mem_release(gs->wire, GOSSIP_WIRE_MAX, 1);
    mem_release(gs->fed_pool, GOSSIP_FED_POOL, 1);
    slab_fini(&gs->conns);
    free(gs);
}

int gossip_shard_new(struct shard *s)
{
    struct gossip_shard *gs = calloc(1, sizeof(*gs));
    struct gossip_host *h = s->d->gossip;
    struct gossip_tables t;
    uint8_t key[16];
    int err;

    if (!gs)
        return -ENOMEM;
    gs->s = s;
    gs->host = h;
    gs->timer.kind = TIMER_GOSSIP;
    gs->fanout = GOSSIP_TURN_FANOUT;
    gs->in_max = chunk_bytes_max(&s->chunks) / GOSSIP_IN_PART;
    err = tables_new(&t, s->d->cfg->conns_max);
    gs->hub.t = t;
    gs->join = mem_reserve(GOSSIP_WIRE_MAX, 1, &err);
    gs->sign = mem_reserve(GOSSIP_SIGN_MAX, 1, &err);
    gs->wire = mem_reserve(GOSSIP_WIRE_MAX, 1, &err);
    gs->fed_pool = mem_reserve(GOSSIP_FED_POOL, 1, &err);
    if (err || !gs->join || !gs->sign || !gs->wire || !gs->fed_pool ||
        (err = slab_init(&gs->conns, "gossip connections", sizeof(struct gossip_conn),
                         s->d->cfg->conns_max))) {
        shard_release(gs);
        return err ? err : -ENOMEM;
    }
    rng_bytes(key, sizeof(key));
    gossip_hub_init(&gs->hub, &h->limits, &t, &s->d->me.id, key, &gossip_hub_calls, gs);
    s->gossip = gs;
    return 0;
}

/* All threads have ended, and letters may lie where nobody reads any more. */
void gossip_shard_free(struct shard *s)
{
    struct gossip_shard *gs = s->gossip;
    struct gossip_conn *gc;
    uint32_t at = 0;
    struct mnode *n;

    if (!gs)
        return;
    while ((gc = slab_walk(&gs->conns, &at))) /* a start that failed, or a stop in the middle */
        gossip_hub_leave(&gs->hub, &gc->peer);
    n = mbox_take(&s->mbox);
    while (n) {
        struct mnode *next = n->next;

        if (n->kind == MAIL_GOSSIP)
            shared_drop(CONTAINER_OF(n, struct gossip_post, node)->mem);
        n = next;
    }
    gossip_hub_clear(&gs->hub);
    wheel_cancel(&s->wheel, &gs->timer);
    shard_release(gs);
    s->gossip = NULL;
}

void gossip_assert_empty(const struct shard *s)
{
    const struct gossip_shard *gs = s->gossip;

    if (!gs)
        return;
    ASSERT(gs->conns.live == 0 && gs->hub.peers.count == 0 && gs->hub.nodes_live == 0);
    ASSERT(gs->ready.count == 0 && gs->held.count == 0 && gs->parts.count == 0);
    ASSERT(gs->again.count == 0 && gs->in_cost == 0);
    gossip_hub_check(&gs->hub);
}
