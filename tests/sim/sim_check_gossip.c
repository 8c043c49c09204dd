/* tests/sim/sim_check_gossip.c: the balances of the gossip hubs: what the counters and lists claim
 * against what a walk finds. Each shared buffer has as many references as can be found, and they
 * are all that is in use. */
#include <stdlib.h>

#include "tests/sim/sim_gossip.h"

enum { MEMS_MAX = 1 << 16 };

struct found {
    struct sim *s;
    const struct shared *mem[MEMS_MAX];
    uint32_t refs[MEMS_MAX];
    size_t n;
};

/* Open addressing over the pointer. */
static void found_add(struct found *f, const struct shared *mem)
{
    size_t i = ((uintptr_t)mem >> 4) * 0x9e3779b1u % MEMS_MAX;

    while (f->mem[i] != NULL && f->mem[i] != mem)
        i = (i + 1) % MEMS_MAX;
    if (f->mem[i] == NULL) {
        f->mem[i] = mem;
        ASSERT(++f->n < MEMS_MAX / 2);
    }
    f->refs[i]++;
}

static void find_mail(struct found *f, const struct mnode *n)
{
    for (; n != NULL; n = n->next)
        if (n->kind == MAIL_GOSSIP)
            found_add(f, CONTAINER_OF(n, struct gossip_post, node)->mem);
}

static void find_queues(struct found *f, const struct gossip_hub *h)
{
    for (const struct link *k = h->peers.first; k != NULL; k = k->next)
        for (const struct gossip_node *n = CONTAINER_OF(k, struct gossip_peer, link)->queue.first;
             n != NULL; n = n->next)
            found_add(f, n->payload);
    for (uint32_t i = 0; i < h->kept_count; i++)
        found_add(f, h->t.kept[(h->kept_first + i) & (h->t.kept_n - 1)].payload);
}

static void check_buffers(struct sim *s)
{
    static struct found f;
    size_t used = 0;

    memset(&f, 0, sizeof(f));
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        find_queues(&f, &s->shard[i].gossip->hub);
        find_mail(&f, atomic_load(&s->shard[i].mbox.head));
        find_mail(&f, s->shard[i].kept);
    }
    for (size_t i = 0; i < MEMS_MAX; i++) {
        if (f.mem[i] == NULL)
            continue;
        used += sizeof(struct shared) + f.mem[i]->cap;
        if (atomic_load(&f.mem[i]->refs) != f.refs[i])
            sim_break(s, "a payload has %u references, %u can be found",
                      atomic_load(&f.mem[i]->refs), f.refs[i]);
    }
    if (used != atomic_load(&s->d.gossip->pool.used))
        sim_break(s, "payloads: %zu bytes are in use, %zu can be found",
                  atomic_load(&s->d.gossip->pool.used), used);
}

static void check_shard(struct sim *s, unsigned idx)
{
    const struct gossip_shard *gs = s->shard[idx].gossip;
    size_t ready = 0, held = 0, parts = 0, again = 0, cost = 0;
    const struct gossip_conn *gc;
    uint32_t at = 0;

    gossip_hub_check(&gs->hub);
    while ((gc = slab_walk(&gs->conns, &at)) != NULL) {
        ready += gc->listed;
        held += gc->held;
        parts += gc->parted;
        again += gc->again;
        cost += gc->in_cost;
        if (gc->conn->gossip != gc || !gc->peer.joined)
            sim_break(s, "a gossiper without its connection");
        if (gc->in != NULL && (gc->in->kind != ST_GOSSIP_IN || gc->in->conn != gc->conn))
            sim_break(s, "a gossiper's stream is another one");
        if ((gc->in != NULL && gc->in->in.bytes > 0) != gc->parted)
            sim_break(s, "input that waits, and is %sin the list", gc->parted ? "" : "not ");
        if (gc->out != NULL && gc->out->agreed && gossip_hub_wants(&gc->peer) && !gc->listed &&
            gc->out->y.send_credit >= GOSSIP_CONTROL_MAX && !gc->conn->tx.bytes &&
            gc->conn->state == CONN_MUX && !shard_pool_full(&s->shard[idx]))
            sim_break(s, "something to write, credit and room, and nobody does");
        if (gc->out != NULL && gc->peer.front_off > 0 && gc->conn->state == CONN_MUX &&
            gc->conn->tx.bytes > TX_HIGH)
            sim_break(s, "%zu bytes sealed for who does not read", gc->conn->tx.bytes);
        if (gc->held && gc->in == NULL)
            sim_break(s, "held, and no stream");
    }
    if (ready != gs->ready.count || held != gs->held.count || parts != gs->parts.count ||
        again != gs->again.count || cost != gs->in_cost)
        sim_break(s, "gossip: ready %zu of %zu, held %zu of %zu, parts %zu of %zu, cost %zu of %zu",
                  gs->ready.count, ready, gs->held.count, held, gs->parts.count, parts, gs->in_cost,
                  cost);
    if (cost > gs->in_max + YAMUX_WINDOW + CHUNK_SMALL_BYTES)
        sim_break(s, "%zu bytes of gossip that is not whole", cost);
    if ((gs->hub.peers.count > 0 || gs->hub.kept_count > 0) && !timer_armed(&gs->timer))
        sim_break(s, "a hub without a heartbeat");
}

void sim_check_gossip(struct sim *s)
{
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        check_shard(s, i);
    check_buffers(s);
}

/* What came and is not done with keeps its window shut. */
void sim_check_gossip_in(struct sim *s, const struct stream *st)
{
    uint64_t sum = st->y.recv_credit + (uint64_t)st->consumed + st->in.bytes;

    if (st->in.bytes > YAMUX_WINDOW)
        sim_break(s, "%zu bytes of gossip wait", st->in.bytes);
    if (sum != YAMUX_WINDOW)
        sim_break(s, "gossip's credit: %u open + %u due + %zu waiting is not the window",
                  st->y.recv_credit, st->consumed, st->in.bytes);
}
