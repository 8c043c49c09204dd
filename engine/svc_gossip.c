/* Gossip that comes in: RPCs are cut out of the stream, whole ones straight from where they were
 * decrypted, and their messages verified, so many in a turn. What waits for the next turn waits in
 * the stream's own queue, and its window stays shut: 256 KiB bound what a peer can make us keep. */
#include "engine/svc_gossip.h"

#include "engine/svc_gossip_int.h"
#include "proto/varint.h"

/* ---- one message ----------------------------------------------------------------------------- */

static void on_publish(struct gossip_shard *gs, struct gossip_conn *gc, struct bytes body)
{
    struct shard *s = gs->s;
    struct gossip_msg m;
    struct gossip_take t;

    if (!gossip_hub_offer(&gs->hub, s->now_ms, &gc->peer, body, &m, &t))
        return;
    gs->verified += gossip_msg_cost(&m);
    if (!gossip_msg_verify(&m, gs->sign)) {
        gossip_hub_refuse(&gs->hub, GOSSIP_INVALID);
        return;
    }
    size_t n = gossip_publish_bytes(&m);

    t.trusted = gossip_is_relay(gs->host, &t.author);
    uint8_t *wire;
    struct shared *mem = gossip_letter_new(gs, n, &wire);

    if (!mem) { /* not seen, and nobody pays: it may come again */
        gossip_hub_refuse(&gs->hub, GOSSIP_MEMORY);
        return;
    }
    if (!gossip_hub_admit(&gs->hub, s->now_ms, &t, n)) {
        shared_drop(mem);
        return;
    }
    struct wcur w = wcur_of(wire, n);

    gossip_put_publish(&w, &m);
    ASSERT(!w.bad && w.n == 0);
    gossip_letter_of(mem)->take = t;
    gossip_hub_push(&gs->hub, s->now_ms, &gc->peer, &t, mem, bytes_of(wire, n));
    gs->verified += (unsigned)(gs->hub.subs[t.topic].count / gs->fanout);
    gossip_post_all(gs, mem);
    shared_drop(mem);
    gossip_fed_heard(gs, &t, &m);
}

/* ---- one RPC --------------------------------------------------------------------------------- */

enum { GOSSIP_PREFIX = 3 }; /* bytes of the longest: GOSSIP_RPC_MAX has no more */
enum rpc_res { RPC_DONE, RPC_WAITS, RPC_BAD };

/* Goes on where the last turn's share ended. */
static enum rpc_res rpc_take(struct gossip_shard *gs, struct gossip_conn *gc, struct bytes rpc)
{
    struct gossip_walk w;
    struct gossip_item item;
    uint32_t n = 0, items;

    if (gc->item == 0 && !gossip_rpc_valid(rpc, &items))
        return RPC_BAD;
    gossip_walk_start(&w, rpc);
    while (gossip_walk_next(&w, &item)) {
        if (n++ < gc->item)
            continue;
        if (item.kind != GOSSIP_ITEM_PUBLISH) {
            gossip_hub_item(&gs->hub, gs->s->now_ms, &gc->peer, &item);
        } else if (gs->verified >= GOSSIP_TURN_VERIFIES) {
            gc->item = n - 1;
            return RPC_WAITS;
        } else {
            on_publish(gs, gc, item.body);
        }
    }
    gc->item = 0;
    return RPC_DONE;
}

/* What begins with these bytes, of which there are `have`: RPC_DONE and *n its length with the
 * prefix once it is whole, RPC_WAITS while more of it is to come. */
static enum rpc_res rpc_front(struct bytes begin, size_t have, size_t *head, size_t *n)
{
    uint64_t body;

    switch (varint_peek(begin, &body, head)) {
    case VARINT_MORE:
        return begin.n < GOSSIP_PREFIX ? RPC_WAITS : RPC_BAD;
    case VARINT_BAD:
        return RPC_BAD;
    case VARINT_OK:
        break;
    }
    if (body > GOSSIP_RPC_MAX)
        return RPC_BAD;
    *n = *head + (size_t)body;
    return have < *n ? RPC_WAITS : RPC_DONE;
}

/* Whole RPCs off the front. */
static enum rpc_res rpcs_take(struct gossip_shard *gs, struct gossip_conn *gc, struct cur *in)
{
    while (in->n) {
        size_t head, n;
        enum rpc_res res = rpc_front(bytes_of(in->p, in->n), in->n, &head, &n);

        if (res != RPC_DONE)
            return res == RPC_BAD ? RPC_BAD : RPC_DONE;
        res = rpc_take(gs, gc, bytes_of(in->p + head, n - head));
        if (res != RPC_DONE)
            return res;
        cur_take(in, n);
    }
    return RPC_DONE;
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void part_forget(struct gossip_conn *gc)
{
    struct gossip_shard *gs = gc->gs;

    if (gc->parted)
        list_remove(&gs->parts, &gc->part_link);
    if (gc->held)
        list_remove(&gs->held, &gc->held_link);
    gc->parted = gc->held = false;
    gs->in_cost -= gc->in_cost;
    gc->in_cost = 0;
}

static void hold(struct gossip_conn *gc)
{
    if (!gc->held)
        list_append(&gc->gs->held, &gc->held_link);
    gc->held = true;
}

/* By what it takes of the pool: one byte has a whole chunk. So that no crowd of beginnings makes
 * memory short for all, the oldest goes. May free anybody's stream, ours too. */
static void part_count(struct gossip_conn *gc)
{
    struct gossip_shard *gs = gc->gs;
    size_t cost = gc->in->in.bytes + CHUNK_SMALL_BYTES;

    gs->in_cost += cost - gc->in_cost;
    gc->in_cost = cost;
    if (!gc->parted)
        list_append(&gs->parts, &gc->part_link);
    gc->parted = true;
    for (int i = 0; i < RELIEF_MAX && gs->in_cost > gs->in_max && gs->parts.count > 1; i++)
        stream_reset(CONTAINER_OF(gs->parts.first, struct gossip_conn, part_link)->in);
}

static void keep(struct gossip_conn *gc, struct bytes rest)
{
    struct stream *st = gc->in;
    struct shard *s = gc->gs->s;

    if (shard_pool_full(s) || !chunkq_append(&st->in, &s->chunks, rest))
        stream_reset(st);
    else
        part_count(gc);
}

/* The RPC in front of what is kept, joined only once it is whole: one that comes byte by byte
 * costs a look at its prefix each time. false: st is gone. */
static bool kept_take(struct gossip_conn *gc)
{
    struct gossip_shard *gs = gc->gs;
    struct stream *st = gc->in;
    uint32_t idx = st->head.idx, gen = st->head.gen;

    while (st->in.bytes) {
        uint8_t begin[GOSSIP_PREFIX];
        size_t head, n, got = chunkq_copy(&st->in, begin, sizeof(begin));
        enum rpc_res res = rpc_front(bytes_of(begin, got), st->in.bytes, &head, &n);

        if (res == RPC_WAITS)
            return true;
        if (res == RPC_DONE) {
            chunkq_copy(&st->in, gs->join, n);
            gs->joined += n;
            res = rpc_take(gs, gc, bytes_of(gs->join + head, n - head));
        }
        if (res == RPC_BAD) {
            stream_reset(st);
            return false;
        }
        if (res == RPC_WAITS) {
            hold(gc);
            return true;
        }
        chunkq_consume(&st->in, &gs->s->chunks, n);
        stream_consumed(st, n);
        if (!slab_find(&gs->s->streams, idx, gen))
            return false;
    }
    part_forget(gc);
    return true;
}

void svc_gossip_data(struct stream *st, struct bytes data)
{
    struct gossip_conn *gc = st->conn->gossip;
    struct gossip_shard *gs = gc->gs;
    uint32_t idx = st->head.idx, gen = st->head.gen;
    struct cur in = cur_of(data);
    enum rpc_res res = RPC_DONE;

    ASSERT(gc->in == st);
    if (st->in.bytes || gs->held.count) { /* behind who has waited longer */
        bool waits = gc->held || !st->in.bytes;

        keep(gc, data);
        if (!slab_find(&gs->s->streams, idx, gen))
            return;
        if (waits)
            hold(gc);
        else
            kept_take(gc);
        return;
    }
    res = rpcs_take(gs, gc, &in);
    if (res == RPC_BAD) { /* dusk.md §10.2: only that stream */
        stream_reset(st);
        return;
    }
    size_t done = data.n - in.n;

    if (in.n) {
        keep(gc, bytes_of(in.p, in.n));
        if (!slab_find(&gs->s->streams, idx, gen))
            return;
        if (res == RPC_WAITS)
            hold(gc);
    }
    if (done)
        stream_consumed(st, done);
}

void gossip_in_pass(struct gossip_shard *gs)
{
    for (size_t n = gs->held.count; n-- && gs->held.count && gs->verified < GOSSIP_TURN_VERIFIES;) {
        struct gossip_conn *gc = CONTAINER_OF(list_pop(&gs->held), struct gossip_conn, held_link);

        gc->held = false;
        kept_take(gc);
    }
    gs->verified = 0;
}

/* ---- streams come and go --------------------------------------------------------------------- */

bool svc_gossip_accept(struct stream *st)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    struct gossip_conn *gc = c->gossip;
    uint32_t idx = st->head.idx, gen = st->head.gen;

    st->kind = ST_GOSSIP_IN;
    wheel_cancel(&s->wheel, &st->timer);
    if (!gc) {
        stream_reset(st);
        return false;
    }
    if (gc->in) { /* the newer one counts, as with the original */
        stream_reset(gc->in);
        if (!slab_find(&s->streams, idx, gen))
            return false;
    }
    gc->in = st;
    return true;
}

void svc_gossip_gone(struct stream *st)
{
    struct gossip_conn *gc = st->conn->gossip;

    if (!gc)
        return;
    if (gc->in == st) {
        part_forget(gc);
        gc->in = NULL;
        gc->item = 0;
    } else if (gc->out == st) {
        gc->out = NULL;
        gossip_hub_deaf(&gc->gs->hub, &gc->peer);
        if (gc->tries < GOSSIP_TRIES && !gc->again) {
            gc->again = true;
            list_append(&gc->gs->again, &gc->again_link);
        }
    }
}

void svc_gossip_start(struct conn *c)
{
    struct shard *s = c->shard;
    struct gossip_shard *gs = s->gossip;
    struct gossip_conn *gc;

    if (!gs || s->draining || !(gc = slab_new(&gs->conns)))
        return;
    gc->gs = gs;
    gc->conn = c;
    c->gossip = gc;
    gossip_hub_join(&gs->hub, s->now_ms, &gc->peer, &c->peer,
                    c->dial != NULL || gossip_is_relay(gs->host, &c->peer));
    gossip_beat(gs);
    gossip_open(gc);
}

void svc_gossip_end(struct conn *c)
{
    struct gossip_conn *gc = c->gossip;
    struct gossip_shard *gs;
    uint8_t subs;

    if (!gc)
        return;
    gs = gc->gs;
    part_forget(gc);
    if (gc->listed)
        list_remove(&gs->ready, &gc->ready_link);
    if (gc->again)
        list_remove(&gs->again, &gc->again_link);
    c->gossip = NULL; /* its streams end by themselves */
    subs = gossip_hub_leave(&gs->hub, &gc->peer);
    if (subs)
        gossip_hand_down(gs, &c->peer, subs);
    slab_free(&gs->conns, gc);
}
