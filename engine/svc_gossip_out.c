/* Gossip that goes out: one stream per connection, what the hub queued for its peer written as its
 * credit and the connection's egress allow, straight from the buffer that all receivers share. A
 * turn writes so much and no more, round robin, a record at a time: one message to ten thousand
 * subscribers is half a second of sealing. */
#include "engine/svc_gossip_int.h"

void gossip_list(struct gossip_conn *gc)
{
    if (gc->listed || !gc->out || !gc->out->agreed)
        return;
    gc->listed = true;
    list_append(&gc->gs->ready, &gc->ready_link);
}

static void hub_ready(void *arg, struct gossip_peer *p)
{
    (void)arg;
    gossip_list(CONTAINER_OF(p, struct gossip_conn, peer));
}

static void hub_stalled(void *arg, struct gossip_peer *p)
{
    struct gossip_conn *gc = CONTAINER_OF(p, struct gossip_conn, peer);

    (void)arg;
    STAT_INC(&gc->gs->s->stats, gossip_stalled);
    stream_reset(gc->out); /* svc_gossip_gone does the rest */
}

static void payload_keep(void *payload)
{
    shared_keep(payload);
}

static void payload_drop(void *payload)
{
    shared_drop(payload);
}

const struct gossip_calls gossip_hub_calls = { hub_ready, hub_stalled, payload_keep, payload_drop };

/* ---- opening --------------------------------------------------------------------------------- */

static void open_say(struct gossip_conn *gc, const char *protocol, bool first)
{
    struct conn *c = gc->conn;
    uint8_t hello[128], frame[YAMUX_HEADER];
    struct wcur w = wcur_of(hello, sizeof(hello));

    if (first)
        mss_dial_hello(&w, protocol);
    else
        mss_put(&w, protocol);
    yamux_put_data(&gc->out->y, frame, (uint32_t)w.wrote, 0);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
    if (conn_alive(c))
        conn_ctl(c, bytes_of(hello, w.wrote));
}

void gossip_open(struct gossip_conn *gc)
{
    struct conn *c = gc->conn;
    struct stream *st = stream_new(c, ST_GOSSIP_OUT);

    gc->tries++;
    if (!st || !yamux_open(&c->mux, &st->y)) {
        if (st)
            stream_free(st);
        gossip_hub_deaf(&gc->gs->hub, &gc->peer);
        return;
    }
    gc->out = st;
    gossip_hub_hears(&gc->gs->hub, &gc->peer);
    open_say(gc, gc->older ? GOSSIP_PROTOCOL_10 : GOSSIP_PROTOCOL, true);
}

bool svc_gossip_out_feed(struct stream *st, struct cur *in)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    struct gossip_conn *gc = c->gossip;

    if (!gc || st->agreed) { /* its own words come by its own stream */
        cur_take(in, in->n);
        return false;
    }
    switch (mss_dial_feed(&st->dial, gc->older ? GOSSIP_PROTOCOL_10 : GOSSIP_PROTOCOL, in)) {
    case MSS_MORE:
        return false;
    case MSS_FAILED:
        if (!gc->older && st->dial.header_seen) {
            gc->older = true;
            open_say(gc, GOSSIP_PROTOCOL_10, false);
        } else { /* it speaks no gossip */
            gc->tries = GOSSIP_TRIES;
            gc->out = NULL;
            gossip_hub_deaf(&gc->gs->hub, &gc->peer);
            stream_finish(st);
        }
        return false;
    case MSS_AGREED:
        break;
    }
    st->agreed = true;
    wheel_cancel(&s->wheel, &st->timer);
    gossip_list(gc);
    return true;
}

void svc_gossip_credit(struct stream *st)
{
    struct gossip_conn *gc = st->conn->gossip;

    if (gc && gossip_hub_wants(&gc->peer))
        gossip_list(gc);
}

void svc_gossip_room(struct conn *c)
{
    if (c->gossip && gossip_hub_wants(&c->gossip->peer))
        gossip_list(c->gossip);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Sealed bytes that wait for the socket are chunks of the pool: a crowd that reads nothing shall
 * not fill it with gossip, which waits as well in the buffers that all share. Beside circuits it
 * has the room that they have, or they would leave it none. */
static bool may_seal(const struct shard *s, const struct conn *c)
{
    size_t room = c->runnable.count ? TX_HIGH : GOSSIP_TX_MAX;

    return c->state == CONN_MUX && c->tx.bytes < (shard_pool_high(s) ? 1 : room) &&
           !shard_pool_full(s);
}

/* One record at most. Returns its bytes; 0: nothing may go now, and who changes that lists it
 * again: credit, something sent, the heartbeat. The connection may be closed by it. */
static size_t write_some(struct gossip_conn *gc)
{
    struct gossip_shard *gs = gc->gs;
    struct shard *s = gs->s;
    struct conn *c = gc->conn;
    struct stream *st = gc->out;
    uint8_t frame[YAMUX_HEADER], control[GOSSIP_CONTROL_MAX];
    struct bytes parts[RECORD_PARTS] = { { frame, sizeof(frame) } };
    struct wcur w = wcur_of(control, sizeof(control));
    size_t n = 1, total;

    if (!st || !st->agreed || !may_seal(s, c))
        return 0;
    if (c->ctl.bytes) { /* our SYN may be in it */
        conn_seal_ctl(c);
        if (!conn_alive(c))
            return 0;
    }
    if (st->y.send_credit >= GOSSIP_CONTROL_MAX &&
        gossip_hub_control(&gs->hub, s->now_ms, &gc->peer, &w)) {
        ASSERT(!w.bad);
        parts[n++] = bytes_of(control, w.wrote);
        total = w.wrote;
    } else {
        n += gossip_hub_views(&gc->peer, min_sz(st->y.send_credit, RECORD_BODY), parts + 1,
                              RECORD_PARTS - 1, &total);
    }
    if (!total)
        return 0;
    yamux_put_data(&st->y, frame, (uint32_t)total, 0);
    if (!conn_seal(c, parts, n, total + sizeof(frame))) {
        conn_close(c, "no buffer");
        return 0;
    }
    if (!w.wrote)
        gossip_hub_wrote(&gs->hub, s->now_ms, &gc->peer, total);
    STAT_ADD(&s->stats, gossip_out_bytes, total);
    return total;
}

void gossip_write_pass(struct gossip_shard *gs)
{
    size_t left = GOSSIP_TURN_BYTES;

    while (gs->ready.count && left) {
        struct gossip_conn *gc = CONTAINER_OF(list_pop(&gs->ready), struct gossip_conn, ready_link);
        uint32_t idx = gc->head.idx, gen = gc->head.gen;

        gc->listed = false;
        size_t n = write_some(gc);

        left -= min_sz(left, n);
        if (n && slab_find(&gs->conns, idx, gen) && gossip_hub_wants(&gc->peer))
            gossip_list(gc);
    }
}
