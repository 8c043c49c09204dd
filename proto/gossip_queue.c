/* What waits for one receiver. Whoever has no room loses the oldest, for documents are sent again
 * whole: the newest is worth most (dusk.md §10.3). What it lost it will be told by IHAVE. */
#include "proto/gossip_int.h"

static struct gossip_node *node_new(struct gossip_hub *h)
{
    struct gossip_node *n = h->free_nodes;

    if (n)
        h->free_nodes = n->next;
    else if (h->nodes_fresh < h->t.nodes_n)
        n = &h->t.nodes[h->nodes_fresh++];
    else
        return NULL;
    h->nodes_live++;
    return n;
}

void gossip_node_free(struct gossip_hub *h, struct gossip_node *n)
{
    if (n->payload)
        h->calls->drop(n->payload);
    n->payload = NULL;
    n->next = h->free_nodes;
    h->free_nodes = n;
    h->nodes_live--;
}

static void fifo_append(struct gossip_fifo *f, struct gossip_node *n)
{
    n->next = NULL;
    if (f->last)
        f->last->next = n;
    else
        f->first = n;
    f->last = n;
    f->count++;
}

struct gossip_node *gossip_fifo_pop(struct gossip_fifo *f)
{
    struct gossip_node *n = f->first;

    if (!n)
        return NULL;
    f->first = n->next;
    if (!f->first)
        f->last = NULL;
    f->count--;
    return n;
}

void gossip_fifo_clear(struct gossip_hub *h, struct gossip_fifo *f)
{
    struct gossip_node *n;

    while ((n = gossip_fifo_pop(f)))
        gossip_node_free(h, n);
}

bool gossip_fifo_add_id(struct gossip_hub *h, struct gossip_fifo *f, uint64_t now_ms, uint64_t id,
                        uint8_t topic)
{
    struct gossip_node *n = node_new(h);

    if (!n)
        return false;
    *n = (struct gossip_node){ .id = id, .at_ms = now_ms, .topic = topic };
    fifo_append(f, n);
    return true;
}

/* It will hear by IHAVE that there was one. */
static void skip(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, uint64_t id,
                 uint8_t topic, enum gossip_cause why)
{
    h->counts.dropped[why]++;
    if (p->skipped.count >= GOSSIP_SKIPPED_MAX)
        gossip_node_free(h, gossip_fifo_pop(&p->skipped));
    gossip_fifo_add_id(h, &p->skipped, now_ms, id, topic);
    if (!link_in_list(&h->waiting, &p->wait_link)) /* the tick looks there */
        list_append(&h->waiting, &p->wait_link);
}

/* The oldest, but never one whose beginning is on its way. */
static bool drop_oldest(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p,
                        enum gossip_cause why)
{
    struct gossip_fifo *q = &p->queue;
    struct gossip_node *n = q->first, *second;

    if (p->front_off) {
        second = n->next;
        if (!second)
            return false;
        n->next = second->next;
        if (!n->next)
            q->last = n;
        q->count--;
        n = second;
    } else if (!(n = gossip_fifo_pop(q))) {
        return false;
    }
    p->queue_bytes -= (uint32_t)n->wire.n;
    skip(h, now_ms, p, n->id, n->topic, why);
    gossip_node_free(h, n);
    return true;
}

void gossip_deliver(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, uint64_t id,
                    uint8_t topic, void *payload, struct bytes wire)
{
    const struct gossip_limits *l = h->limits;
    const struct gossip_budget all = { { 1000000000, 1000000000 }, l->out_bytes };
    struct gossip_node *n;

    h->counts.meant++;
    if (!gossip_meter_fits(&p->purse->got, now_ms, &l->receiver, 1, wire.n)) {
        skip(h, now_ms, p, id, topic, GOSSIP_RECEIVER);
        return;
    }
    if (!gossip_meter_fits(&h->out, now_ms, &all, 0, wire.n)) {
        skip(h, now_ms, p, id, topic, GOSSIP_TOTAL);
        return;
    }
    while (p->queue.count >= l->queue_messages || p->queue_bytes + wire.n > l->queue_bytes)
        if (!drop_oldest(h, now_ms, p, GOSSIP_QUEUE))
            break; /* one half written is left, and it is shorter than the bound */
    n = node_new(h);
    if (!n) {
        skip(h, now_ms, p, id, topic, GOSSIP_NODES);
        return;
    }
    gossip_meter_spend(&p->purse->got, now_ms, &l->receiver, 1, wire.n);
    gossip_meter_spend(&h->out, now_ms, &all, 0, wire.n);
    h->calls->keep(payload);
    *n = (struct gossip_node){
        .payload = payload, .wire = wire, .id = id, .at_ms = now_ms, .topic = topic
    };
    if (!p->queue.count)
        p->moved_ms = now_ms;
    fifo_append(&p->queue, n);
    p->queue_bytes += (uint32_t)wire.n;
    h->counts.queued++;
    if (!link_in_list(&h->waiting, &p->wait_link))
        list_append(&h->waiting, &p->wait_link);
    h->calls->ready(h->arg, p);
}

void gossip_queue_clear(struct gossip_hub *h, struct gossip_peer *p, enum gossip_cause why)
{
    h->counts.dropped[why] += p->queue.count;
    gossip_fifo_clear(h, &p->queue);
    gossip_fifo_clear(h, &p->skipped);
    gossip_fifo_clear(h, &p->wanted);
    p->queue_bytes = p->front_off = 0;
    p->tell = false;
    if (link_in_list(&h->waiting, &p->wait_link))
        list_remove(&h->waiting, &p->wait_link);
}

size_t gossip_hub_views(const struct gossip_peer *p, size_t limit, struct bytes *views, size_t max,
                        size_t *total)
{
    size_t n = 0, off = p->front_off;

    *total = 0;
    for (const struct gossip_node *k = p->queue.first; k && n < max && *total < limit;
         k = k->next, off = 0) {
        size_t take = min_sz(k->wire.n - off, limit - *total);

        views[n++] = bytes_of(k->wire.p + off, take);
        *total += take;
    }
    return n;
}

void gossip_hub_wrote(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p, size_t n)
{
    if (n)
        p->moved_ms = now_ms;
    while (n) {
        ASSERT(p->queue.first);
        size_t left = p->queue.first->wire.n - p->front_off;

        if (n < left) {
            if (!p->front_off)
                p->begun_ms = now_ms;
            p->front_off += (uint32_t)n;
            return;
        }
        n -= left;
        p->front_off = 0;
        p->queue_bytes -= (uint32_t)p->queue.first->wire.n;
        gossip_node_free(h, gossip_fifo_pop(&p->queue));
        h->counts.sent++;
    }
    if (!p->queue.count && !p->skipped.count && link_in_list(&h->waiting, &p->wait_link))
        list_remove(&h->waiting, &p->wait_link);
}

/* What has waited too long goes. A message that stands half written for as long stops its stream,
 * and so does one that crawls: nothing can be said behind half of one, and its buffer is
 * everybody's. */
static void peer_tick(struct gossip_hub *h, uint64_t now_ms, struct gossip_peer *p)
{
    struct gossip_node *n = p->queue.first;

    if (p->front_off &&
        (p->moved_ms + GOSSIP_WAIT_MS <= now_ms || p->begun_ms + GOSSIP_FRONT_MS <= now_ms)) {
        h->calls->stalled(h->arg, p);
        return;
    }
    while ((n = p->front_off && p->queue.first ? p->queue.first->next : p->queue.first) &&
           n->at_ms + GOSSIP_WAIT_MS <= now_ms)
        drop_oldest(h, now_ms, p, GOSSIP_STALE);
    while (p->skipped.first && p->skipped.first->at_ms + GOSSIP_IHAVE_MS <= now_ms)
        gossip_node_free(h, gossip_fifo_pop(&p->skipped));
    /* Room again: it may ask for what it missed. */
    if (p->skipped.count && p->queue_bytes <= h->limits->queue_bytes / 2 &&
        p->queue.count <= h->limits->queue_messages / 2) {
        p->tell = true;
        h->calls->ready(h->arg, p);
    }
    if (!p->queue.count && !p->skipped.count && link_in_list(&h->waiting, &p->wait_link))
        list_remove(&h->waiting, &p->wait_link);
}

void gossip_queue_tick(struct gossip_hub *h, uint64_t now_ms)
{
    size_t n = min_sz(h->waiting.count, GOSSIP_TICK_MAX);

    while (n-- && h->waiting.first) { /* round robin: who was looked at goes to the end */
        struct link *k = list_pop(&h->waiting);

        list_append(&h->waiting, k);
        peer_tick(h, now_ms, CONTAINER_OF(k, struct gossip_peer, wait_link));
    }
}
