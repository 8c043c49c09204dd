/* From one client to another: in this shard's memory, or by mail to another shard (engine/README.md
 * "DIG"). What waits for a client is bounded by its gate, which every shard may add to: whoever
 * finds it full holds its own client back instead of dropping what may be part of a TLS stream
 * (dig.md §21 "Silent loss"), but not for ever. */
#include <stdlib.h>

#include "engine/dig_int.h"

enum { HELD_PASS_MAX = 256, HELD_RETRY_MS = 10 };

bool dig_find(struct dig_conn *c, struct bytes id, struct dig_to *to)
{
    struct home found[HOMES_PER_PEER];
    struct peer_id key;

    if (id.n > DIG_NAME_MAX)
        return false;
    key = dig_home_key(c->ds->host, c->net_key, id);
    if (homes_find(c->ds->host->homes, &key, found) == 0)
        return false;
    *to = (struct dig_to){ found[0], dig_name_of(&key) };
    return true;
}

/* Under that name, or about to hear under which: what was said to a registration that has been
 * replaced on the same connection (D11) is not for its successor, perhaps on another network. */
static bool is_for(const struct dig_conn *c, struct dig_to to)
{
    return c && c->state == DIG_WS &&
           (c->name == to.name || (c->asking && c->ask.kind == DIG_ASK_REGISTER));
}

/* ---- the gate ----------------------------------------------------------------------------------
 */

static bool gate_enter(const struct dig_host *h, struct dig_gate *g, uint32_t n)
{
    uint32_t bytes = atomic_fetch_add_explicit(&g->bytes, n, memory_order_relaxed);
    uint32_t messages = atomic_fetch_add_explicit(&g->messages, 1, memory_order_relaxed);

    /* A message longer than the bound goes to who has nothing else waiting. */
    if (messages == 0 || (messages < h->cfg->dig_queue_messages_max &&
                          (uint64_t)bytes + n <= h->cfg->dig_queue_bytes_max))
        return true;
    atomic_fetch_sub_explicit(&g->bytes, n, memory_order_relaxed);
    atomic_fetch_sub_explicit(&g->messages, 1, memory_order_relaxed);
    return false;
}

static void gate_leave(struct dig_gate *g, uint32_t n)
{
    atomic_fetch_sub_explicit(&g->bytes, n, memory_order_relaxed);
    atomic_fetch_sub_explicit(&g->messages, 1, memory_order_relaxed);
}

/* ---- letters -----------------------------------------------------------------------------------
 */

/* The letter stands at the front of the first chunk, the frame behind it and in those that follow:
 * they become the target's queue as they are, and go home to our pool when they are sent. */
static struct chunk *letter_write(struct dig_shard *ds, struct dig_to to, const struct bytes *parts,
                                  size_t n, uint32_t total)
{
    struct chunk_pool *pool = &ds->s->chunks;
    size_t need = sizeof(struct dig_letter) + alignof(struct dig_letter) + total;
    bool small = need <= CHUNK_SMALL_BYTES - sizeof(struct chunk);
    struct chunk *k = chunk_new(pool, small ? CHUNK_SMALL : CHUNK_LARGE);
    struct chunkq q = { 0 };
    struct dig_letter *l;

    if (!k)
        return NULL;
    uintptr_t at = ((uintptr_t)k->data + alignof(struct dig_letter) - 1) &
                   ~(uintptr_t)(alignof(struct dig_letter) - 1);

    l = (struct dig_letter *)at;
    *l = (struct dig_letter){ .node.kind = MAIL_DIG_LETTER, .chunk = k, .to = to, .n = total };
    k->off = (uint32_t)(at + sizeof(*l) - (uintptr_t)k->data);
    chunkq_push(&q, k);
    for (size_t i = 0; i < n; i++) {
        if (!chunkq_append(&q, pool, parts[i])) {
            chunkq_clear(&q, pool);
            return NULL;
        }
    }
    return k;
}

static struct dig_letter *letter_of(struct chunk *k)
{
    uintptr_t at = ((uintptr_t)k->data + alignof(struct dig_letter) - 1) &
                   ~(uintptr_t)(alignof(struct dig_letter) - 1);

    return (struct dig_letter *)at;
}

void dig_on_letter(struct dig_shard *ds, struct mnode *node)
{
    struct dig_letter *l = CONTAINER_OF(node, struct dig_letter, node);
    const struct dig_to to = l->to; /* it lies in a chunk that may go */
    struct dig_conn *c = slab_find(&ds->slab, to.at.slot, to.at.gen);
    uint32_t n = l->n;
    bool wanted = is_for(c, to);

    if (wanted && dig_queue_chunks(c, l->chunk, n))
        return;
    if (!wanted)
        chunk_free_list(&ds->s->chunks, l->chunk);
    gate_leave(dig_gate_of(ds->host, to.at), n);
    STAT_INC(&ds->s->stats, dig_lost);
}

/* ---- delivery ----------------------------------------------------------------------------------
 */

/* The gate has let it in. */
static bool hand_over(struct dig_shard *ds, struct dig_to to, const struct bytes *parts, size_t n,
                      uint32_t total)
{
    struct shard *s = ds->s, *other = s->d->shard[to.at.shard];

    if (other == s) {
        struct dig_conn *c = slab_find(&ds->slab, to.at.slot, to.at.gen);

        if (!is_for(c, to))
            return false;
        /* Above its last mark the pool is for answers: without them, who asks is closed. */
        if (!shard_pool_full(s))
            return dig_queue_bytes(c, parts, n, total, total);
        STAT_INC(&s->stats, chunks_dry);
        return false;
    }
    struct chunk *k = shard_pool_full(s) ? NULL : letter_write(ds, to, parts, n, total);

    if (!k) {
        STAT_INC(&s->stats, chunks_dry);
        return false;
    }
    if (mbox_push(&other->mbox, &letter_of(k)->node))
        shard_bell(s, other);
    STAT_INC(&s->stats, dig_mailed);
    return true;
}

static void hold(struct dig_conn *from, struct dig_to to, const struct bytes *parts, size_t n)
{
    struct dig_shard *ds = from->ds;

    for (size_t i = 0; i < n; i++) {
        if (shard_pool_high(ds->s) || !chunkq_append(&from->held, &ds->s->chunks, parts[i])) {
            chunkq_clear(&from->held, &ds->s->chunks);
            STAT_INC(&ds->s->stats, dig_lost);
            return;
        }
    }
    from->is_held = true;
    from->held_for = to;
    from->hold_ms = ds->s->now_ms;
    list_append(&ds->held, &from->hold_link);
    if (!timer_armed(&ds->held_timer))
        wheel_arm(&ds->s->wheel, &ds->held_timer, ds->s->now_ms + HELD_RETRY_MS);
    STAT_INC(&ds->s->stats, dig_held);
}

void dig_deliver(struct dig_conn *from, struct dig_to to, const struct bytes *parts, size_t n)
{
    struct dig_shard *ds = from->ds;
    struct dig_gate *g = dig_gate_of(ds->host, to.at);
    size_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += parts[i].n;
    ASSERT(total <= UINT32_MAX / 2);
    if (gate_enter(ds->host, g, (uint32_t)total)) {
        if (hand_over(ds, to, parts, n, (uint32_t)total))
            return;
        gate_leave(g, (uint32_t)total);
        STAT_INC(&ds->s->stats, dig_lost);
    } else if (atomic_load_explicit(&g->stalled, memory_order_relaxed)) {
        STAT_INC(&ds->s->stats, dig_lost); /* somebody has waited for it in vain */
    } else {
        hold(from, to, parts, n);
    }
}

void dig_unhold(struct dig_conn *c)
{
    if (!c->is_held)
        return;
    c->is_held = false;
    list_remove(&c->ds->held, &c->hold_link);
    chunkq_clear(&c->held, &c->ds->s->chunks);
}

/* false: it waits on. */
static bool held_try(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;
    struct dig_gate *g = dig_gate_of(ds->host, c->held_for.at);
    struct bytes views[SEND_IOV];
    uint32_t total = (uint32_t)c->held.bytes;

    if (!gate_enter(ds->host, g, total)) {
        if (ds->s->now_ms < c->hold_ms + DIG_HOLD_MS)
            return false;
        atomic_store_explicit(&g->stalled, true, memory_order_relaxed);
        STAT_INC(&ds->s->stats, dig_lost);
        return true;
    }
    size_t n = chunkq_views(&c->held, c->held.bytes, views, SEND_IOV), seen = 0;

    for (size_t i = 0; i < n; i++)
        seen += views[i].n;
    if (seen == total && hand_over(ds, c->held_for, views, n, total))
        return true;
    if (seen < total) { /* longer than so many pieces: in one */
        struct bytes all = bytes_of(ds->join, chunkq_copy(&c->held, ds->join, ds->join_bytes));

        if (all.n == total && hand_over(ds, c->held_for, &all, 1, total))
            return true;
    }
    gate_leave(g, total);
    STAT_INC(&ds->s->stats, dig_lost);
    return true;
}

void dig_held_pass(struct dig_shard *ds)
{
    struct link *k = ds->held.first, *next;

    for (int i = 0; k && i < HELD_PASS_MAX; k = next, i++) {
        struct dig_conn *c = CONTAINER_OF(k, struct dig_conn, hold_link);

        next = k->next;
        if (!held_try(c))
            continue;
        dig_unhold(c);
        dig_go_on(c);
    }
    if (ds->held.count && !timer_armed(&ds->held_timer))
        wheel_arm(&ds->s->wheel, &ds->held_timer, ds->s->now_ms + HELD_RETRY_MS);
}

/* ---- news ------------------------------------------------------------------------------------
 */

struct dig_news *dig_news_new(struct dig_host *h, unsigned shards, uint32_t offs, uint32_t exclude)
{
    size_t bytes = sizeof(struct dig_news) + shards * sizeof(struct dig_post);
    uint32_t slots = 0;

    bytes += (size_t)offs * sizeof(uint32_t) + sizeof(uint64_t);
    if (exclude)
        for (slots = 16; slots < 2 * exclude; slots *= 2)
            ;
    bytes += (size_t)slots * sizeof(uint64_t);
    struct shared *mem = shared_new(&h->shared, bytes); /* counted like what it carries */
    struct dig_news *n;

    if (!mem)
        return NULL;
    memset(mem->data, 0, bytes);
    n = (struct dig_news *)(void *)mem->data;
    n->mem = mem;
    n->exclude = slots ? (uint64_t *)(void *)&n->post[shards] : NULL;
    n->exclude_mask = slots ? slots - 1 : 0;
    n->off = (uint32_t *)(void *)((uint64_t *)(void *)&n->post[shards] + slots);
    atomic_init(&n->left, shards);
    for (unsigned i = 0; i < shards; i++) {
        n->post[i].node.kind = MAIL_DIG_NEWS;
        n->post[i].news = n;
    }
    return n;
}

void dig_news_drop(struct dig_news *n)
{
    if (atomic_fetch_sub_explicit(&n->left, 1, memory_order_acq_rel) != 1)
        return;
    shared_drop(n->frames);
    shared_drop(n->mem);
}

static bool excluded(const struct dig_news *n, uint64_t hash)
{
    if (!n->exclude)
        return false;
    for (uint32_t i = (uint32_t)hash & n->exclude_mask; n->exclude[i];
         i = (i + 1) & n->exclude_mask)
        if (n->exclude[i] == hash)
            return true;
    return false;
}

static void exclude_add(struct dig_news *n, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & n->exclude_mask;

    while (n->exclude[i] && n->exclude[i] != hash)
        i = (i + 1) & n->exclude_mask;
    n->exclude[i] = hash;
}

/* A slow reader loses a broadcast as it would have in the original: one sender cannot wait for
 * everybody. Presence it loses above its own mark; its next get_peers makes up for that. */
static void tell_member(struct dig_conn *c, const struct dig_news *n)
{
    struct dig_host *h = c->ds->host;
    uint32_t from = 0, total = n->frames->n;

    if (n->n && c->join_seq >= n->base) {
        if (c->join_seq - n->base >= n->n)
            return; /* all of it was before its time */
        from = n->off[c->join_seq - n->base + 1];
    }
    if (from >= total)
        return;
    bool room = c->ds->outs.live <= DIG_OUTS / 16 * POOL_HIGH; /* else it is left for answers */

    if (n->data) {
        struct dig_gate *g = dig_gate_of(h, dig_home_of(c));

        if (!room || !gate_enter(h, g, total)) {
            STAT_INC(&c->ds->s->stats, dig_lost);
        } else if (!dig_send_shared(c, n->frames, 0, total, total)) {
            gate_leave(g, total);
            STAT_INC(&c->ds->s->stats, dig_lost);
        }
    } else if (!room || dig_unsent(c) > DIG_PRESENCE_MAX ||
               !dig_send_shared(c, n->frames, from, total - from, 0)) {
        STAT_INC(&c->ds->s->stats, dig_presence_lost);
    }
}

static bool same_home(struct home a, struct home b)
{
    return a.shard == b.shard && a.slot == b.slot && a.gen == b.gen;
}

static void tell_list(const struct list *members, const struct dig_news *n)
{
    for (struct link *k = members->first; k; k = k->next) {
        struct dig_conn *c = CONTAINER_OF(k, struct dig_conn, net_link);

        if (n->except_one && same_home(n->one, dig_home_of(c)))
            continue;
        if (!excluded(n, c->id_hash))
            tell_member(c, n);
    }
}

/* Of control, about one connection. */
static void tell_one(struct dig_shard *ds, const struct dig_news *n)
{
    struct dig_conn *c =
        n->one.shard == ds->s->id ? slab_find(&ds->slab, n->one.slot, n->one.gen) : NULL;

    if (!c || c->state != DIG_WS)
        return;
    if (n->kind == DIG_NEWS_ONE) {
        /* Control has noted it as told, and it is rare: it is not presence, to be made up for. */
        if (!dig_send_shared(c, n->frames, 0, n->frames->n, 0))
            dig_close(c, "no memory for its replies");
    } else if (n->kind == DIG_NEWS_EVICT) {
        dig_end(c, WS_CODE_NONE, "replaced by its owner");
    } else if (!c->probing) {
        static const uint8_t ping[2] = { 0x80 | WS_OP_PING, 0 };
        struct bytes all = bytes_of(ping, sizeof(ping));

        c->probing = true;
        c->probe_ms = ds->s->now_ms;
        if (dig_send(c, &all, 1))
            dig_deadlines(c);
    }
}

void dig_on_news(struct dig_shard *ds, struct mnode *node)
{
    struct dig_news *n = CONTAINER_OF(node, struct dig_post, node)->news;

    if (n->kind != DIG_NEWS_NET)
        tell_one(ds, n);
    else if (n->net != DIG_NET_ALL)
        tell_list(&ds->net[n->net], n);
    else
        for (uint32_t i = 0; i < ds->nets_used; i++)
            tell_list(&ds->net[i], n);
    dig_news_drop(n);
}

/* ---- broadcast -------------------------------------------------------------------------------
 */

static struct shared *broadcast_frame(struct dig_conn *from, const struct dig_scan *m)
{
    uint8_t frame[WS_HEAD_MAX], head[DIG_MESSAGE_MAX];
    struct wcur w = wcur_of(head, sizeof(head));

    dig_put_broadcast_head(&w, bytes_of(from->id, from->id_n));
    const struct bytes end = bytes_str(DIG_BROADCAST_END);
    size_t total = w.wrote + m->payload.n + end.n;
    struct bytes ws = bytes_of(frame, ws_head_encode(frame, WS_OP_TEXT, total));
    struct shared *sh = shared_new(&from->ds->host->shared, ws.n + total);

    if (!sh)
        return NULL;
    struct wcur out = wcur_of(sh->data, sh->cap);

    wcur_put(&out, ws);
    wcur_put(&out, bytes_of(head, w.wrote));
    wcur_put(&out, m->payload);
    wcur_put(&out, end);
    ASSERT(!out.bad && out.n == 0);
    sh->n = sh->cap;
    return sh;
}

/* One frame for everybody; the exclude list becomes a set of hashes once, so that whoever is told
 * is looked up in it in constant time (dig.md §21 "One global lock"). */
void dig_broadcast(struct dig_conn *from, const struct dig_scan *m)
{
    struct dig_shard *ds = from->ds;
    struct shard *s = ds->s;
    /* The rest of that memory is for what is owed to somebody: lists, presence, evictions. */
    bool room = !shared_past(&ds->host->shared, POOL_HIGH);
    struct shared *frame = room ? broadcast_frame(from, m) : NULL;
    struct dig_news *n = NULL;
    struct bytes list = m->exclude, string;
    uint8_t id[DIG_NAME_MAX];
    size_t id_n;

    STAT_ADD(&s->stats, dig_relayed_bytes, m->payload_count);
    /* 60 bytes of it may be work for thousands, and others of the shard have their turn, too. */
    ds->work_left -= (int)((ds->net[from->net_index].count + m->exclude_count) / DIG_TOLD_WORK);
    if (frame)
        n = dig_news_new(ds->host, s->d->shards_n, 0, (uint32_t)m->exclude_count);
    if (!n) {
        shared_drop(frame);
        STAT_INC(&s->stats, dig_lost);
        return;
    }
    n->kind = DIG_NEWS_NET;
    n->net = from->net_index;
    n->one = dig_home_of(from);
    n->except_one = n->data = true;
    n->frames = frame;
    while (n->exclude && dig_exclude_next(&list, &string))
        if (dig_unescape(string, id, sizeof(id), &id_n))
            exclude_add(n, dig_hash_id(ds->host, bytes_of(id, id_n)));
    STAT_INC(&s->stats, dig_broadcasts);
    for (unsigned i = 0; i < s->d->shards_n; i++) {
        if (i == s->id)
            continue;
        if (mbox_push(&s->d->shard[i]->mbox, &n->post[i].node))
            shard_bell(s, s->d->shard[i]);
    }
    dig_on_news(ds, &n->post[s->id].node); /* in the order in which it was said */
}
