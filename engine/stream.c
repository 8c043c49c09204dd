#include "engine/stream.h"

#include "engine/rpc.h"
#include "engine/shard.h"
#include "engine/svc_gossip.h"

struct stream *stream_new(struct conn *c, enum stream_role kind)
{
    struct shard *s = c->shard;
    struct stream *st = slab_new(&s->streams);

    if (!st)
        return NULL;
    st->conn = c;
    st->kind = (uint8_t)kind;
    st->timer.kind = TIMER_STREAM;
    list_append(&c->streams, &st->link);
    wheel_arm(&s->wheel, &st->timer, s->now_ms + STREAM_NEGOTIATE_MS);
    return st;
}

static uint16_t *count16_of(struct conn *c, enum stream_count what)
{
    switch (what) {
    case COUNT_HOP:
        return &c->hop_streams;
    case COUNT_STOP:
        return &c->stop_streams;
    case COUNT_RPC:
        return &c->rpc_streams;
    default:
        return NULL;
    }
}

static uint8_t *count8_of(struct conn *c, enum stream_count what)
{
    switch (what) {
    case COUNT_PING:
        return &c->ping_streams;
    case COUNT_IDENT:
        return &c->ident_streams;
    case COUNT_PUSH:
        return &c->push_streams;
    default:
        return NULL;
    }
}

bool stream_count(struct stream *st, enum stream_count what, unsigned max)
{
    uint16_t *c16 = count16_of(st->conn, what);
    uint8_t *c8 = count8_of(st->conn, what);

    ASSERT(st->counted == COUNT_NONE);
    if ((c16 ? *c16 : *c8) >= max)
        return false;
    if (c16)
        ++*c16;
    else
        ++*c8;
    st->counted = (uint8_t)what;
    return true;
}

void stream_uncount(struct stream *st)
{
    uint16_t *c16 = count16_of(st->conn, st->counted);
    uint8_t *c8 = count8_of(st->conn, st->counted);

    if (c16) {
        ASSERT(*c16 > 0);
        --*c16;
    } else if (c8) {
        ASSERT(*c8 > 0);
        --*c8;
    }
    st->counted = COUNT_NONE;
}

static void part_forget(struct stream *st)
{
    if (st->has_part)
        list_remove(&st->conn->shard->parts, &st->part_link);
    st->has_part = false;
}

void stream_free(struct stream *st)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;

    if (c->gossip)
        svc_gossip_gone(st);
    yamux_detach(&st->y);
    stream_uncount(st);
    wheel_cancel(&s->wheel, &st->timer);
    part_forget(st);
    stream_hush(st);
    rpc_forget(st);
    chunkq_clear(&st->in, &s->chunks);
    list_remove(&c->streams, &st->link);
    if (c->streams.count <= c->ping_streams) /* see has_purpose */
        c->active_ms = s->now_ms;
    slab_free(&s->streams, st);
}

void stream_reset(struct stream *st)
{
    struct conn *c = st->conn;
    uint8_t frame[YAMUX_HEADER];
    uint32_t id = st->y.id;

    ASSERT(!st->circuit);
    bool say = yamux_attached(&st->y);

    stream_free(st);
    STAT_INC(&c->shard->stats, streams_reset);
    if (!say)
        return;
    yamux_put_rst(frame, id);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
}

/* A frame of its own: go-yamux takes a frame's flags before its body, and a reader that waits may
 * see the end of the stream before the bytes that came with it. */
static void put_fin(struct stream *st)
{
    uint8_t frame[YAMUX_HEADER];

    yamux_put_data(&st->y, frame, 0, YAMUX_FIN);
    conn_ctl(st->conn, bytes_of(frame, sizeof(frame)));
}

void stream_write(struct stream *st, struct bytes b, bool fin)
{
    uint8_t frame[YAMUX_HEADER];
    struct conn *c = st->conn;

    if (b.n > st->y.send_credit) { /* answers are far smaller than the initial credit */
        stream_reset(st);
        return;
    }
    if (b.n) {
        yamux_put_data(&st->y, frame, (uint32_t)b.n, 0);
        conn_ctl(c, bytes_of(frame, sizeof(frame)));
        if (conn_alive(c))
            conn_ctl(c, b);
    }
    if (!fin || !conn_alive(c))
        return;
    put_fin(st);
}

void stream_finish(struct stream *st)
{
    struct conn *c = st->conn;

    if (!st->y.tx_fin) {
        put_fin(st);
        if (!conn_alive(c))
            return;
    }
    stream_uncount(st);
    if (st->y.rx_fin) {
        stream_free(st);
        return;
    }
    st->kind = ST_LINGER;
    part_forget(st);
    chunkq_clear(&st->in, &c->shard->chunks);
    wheel_arm(&c->shard->wheel, &st->timer, c->shard->now_ms + STREAM_LINGER_MS);
}

void stream_consumed(struct stream *st, size_t n)
{
    struct conn *c = st->conn;
    uint8_t frame[YAMUX_HEADER];

    st->consumed += (uint32_t)n;
    if (!yamux_attached(&st->y) || st->y.rx_fin)
        return;
    /* Half a window at a time; a quarter when the peer would otherwise run dry (libp2p.md §6.2.4).
     * Never below YAMUX_GRANT_MIN: js does not wake for less than its header. */
    if (st->consumed < GRANT_STEP &&
        (st->y.recv_credit >= YAMUX_WINDOW / 4 || st->consumed < YAMUX_GRANT_MIN))
        return;
    if (st->circuit && shard_pool_high(c->shard) &&
        fwd_waiting(st->circuit, st->side) >= CREDIT_NEWS)
        return; /* memory is short: the window stays shut until its own bytes have drained */
    yamux_put_grant(&st->y, frame, st->consumed);
    st->consumed = 0;
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
}

static void stream_start(struct stream *st, int svc)
{
    struct shard *s = st->conn->shard;

    switch (svc) {
    case SVC_RDV:
    case SVC_DIRECTORY:
    case SVC_CREDENTIALS:
    case SVC_GIF:
        rpc_start(st, svc);
        return;
    case SVC_GOSSIP:
        svc_gossip_accept(st);
        return;
    case SVC_HOP:
        st->kind = ST_HOP;
        wheel_arm(&s->wheel, &st->timer, s->now_ms + HOP_MESSAGE_MS);
        if (!stream_count(st, COUNT_HOP, HOP_STREAMS_MAX))
            stream_reset(st);
        return;
    case SVC_PING:
        st->kind = ST_PING;
        wheel_cancel(&s->wheel, &st->timer); /* rust keeps one open for good */
        if (!stream_count(st, COUNT_PING, PING_STREAMS_MAX))
            stream_reset(st);
        return;
    case SVC_IDENT:
        if (!stream_count(st, COUNT_IDENT, IDENT_STREAMS_MAX))
            stream_reset(st);
        else
            svc_ident_serve(st);
        return;
    default:
        STAT_INC(&s->stats, push_received);
        st->kind = ST_PUSH;
        wheel_arm(&s->wheel, &st->timer, s->now_ms + PUSH_MS);
        if (!stream_count(st, COUNT_PUSH, PUSH_STREAMS_MAX))
            stream_reset(st);
        return;
    }
}

/* true: the stream lives and may have more to read. */
static bool stream_negotiate(struct stream *st, struct cur *in)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    uint32_t idx = st->head.idx, gen = st->head.gen;
    uint8_t reply[MSS_REPLY_MAX];
    struct wcur w = wcur_of(reply, sizeof(reply));
    int svc = 0;
    enum mss_res res = mss_listen_feed(&st->mss, s->d->protocols, in, &w, &svc);

    if (w.wrote)
        stream_write(st, bytes_of(reply, w.wrote), false);
    if (!slab_find(&s->streams, idx, gen)) /* the answer closed the connection */
        return false;
    if (res == MSS_FAILED) { /* behind an na: most likely what its dialer sent along (§3) */
        if (st->mss.tries)
            stream_finish(st);
        else
            stream_reset(st);
        return false;
    }
    if (res == MSS_MORE)
        return false;
    stream_start(st, svc);
    return slab_find(&s->streams, idx, gen) != NULL;
}

/* One step of whatever the stream is; false: wait for more, or st is gone. */
static bool stream_step(struct stream *st, struct cur *in)
{
    switch (st->kind) {
    case ST_NEGOTIATE:
        return stream_negotiate(st, in);
    case ST_HOP:
        return svc_hop_feed(st, in);
    case ST_STOP:
        return svc_stop_feed(st, in);
    case ST_PING:
        return svc_ping_feed(st, in);
    case ST_PUSH:
        return svc_push_feed(st, in);
    case ST_PUSH_OUT:
        return svc_push_out_feed(st, in);
    case ST_RPC:
        return rpc_feed(st, in);
    case ST_GOSSIP_OUT:
        return svc_gossip_out_feed(st, in);
    default: /* ST_HOP_WAIT, ST_RPC_WAIT, ST_LINGER: nothing more is expected; it is not kept */
        cur_take(in, in->n);
        return false;
    }
}

/* No room or no time for it any more. */
static void stream_give_up(struct stream *st)
{
    if (st->kind == ST_STOP) /* its circuit hears of it, and may try another home */
        svc_stop_feed(st, NULL);
    else
        stream_reset(st);
}

/* A first byte takes a whole chunk. So that no crowd of those can make memory short for everybody,
 * who has waited longest for the rest of a message goes: honest ones are whole within moments. May
 * free st, and close its connection. */
static void part_keep(struct stream *st, struct bytes in)
{
    struct shard *s = st->conn->shard;

    if (in.n > STREAM_INPUT_MAX || shard_pool_full(s) || !chunkq_append(&st->in, &s->chunks, in)) {
        stream_give_up(st);
        return;
    }
    if (!st->has_part)
        list_append(&s->parts, &st->part_link);
    st->has_part = true;
    for (int i = 0;
         i < RELIEF_MAX && s->parts.count > s->chunks.max[CHUNK_LARGE] / HALF_MESSAGE_PART + 1; i++)
        stream_give_up(CONTAINER_OF(s->parts.first, struct stream, part_link));
}

void stream_on_data(struct stream *st, struct bytes data)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    uint32_t idx = st->head.idx, gen = st->head.gen;
    struct cur in = cur_of(data);

    if (st->kind == ST_CIRCUIT) { /* the forwarding path: credit returns as the other leg drains */
        fwd_data(st->circuit, st->side, data);
        return;
    }
    if (st->kind == ST_GOSSIP_IN) { /* it grants by itself, what it is done with */
        svc_gossip_data(st, data);
        return;
    }
    if (st->in.bytes) {
        size_t kept = st->in.bytes;

        ASSERT(kept <= STREAM_INPUT_MAX && data.n <= NOISE_PLAIN_MAX);
        chunkq_copy(&st->in, s->stream_join, kept);
        chunkq_consume(&st->in, &s->chunks, kept);
        memcpy(s->stream_join + kept, data.p, data.n);
        in = cur_of(bytes_of(s->stream_join, kept + data.n));
    }
    while (in.n && st->kind != ST_CIRCUIT && st->kind != ST_GOSSIP_IN)
        if (!stream_step(st, &in))
            break;
    if (!slab_find(&s->streams, idx, gen))
        return;
    if (st->kind == ST_LINGER || st->kind == ST_HOP_WAIT || st->kind == ST_RPC_WAIT)
        cur_take(&in, in.n); /* behind the end of what we answer: not kept */
    const bool theirs = st->kind == ST_CIRCUIT || st->kind == ST_GOSSIP_IN;

    stream_consumed(st, data.n - (theirs ? min_sz(in.n, data.n) : 0));
    if (!slab_find(&s->streams, idx, gen))
        return;
    if (!in.n || theirs)
        part_forget(st);
    if (!in.n)
        return;
    if (st->kind ==
        ST_CIRCUIT) /* behind CONNECT or STATUS: already the circuit's (libp2p.md §11.3) */
        fwd_data(st->circuit, st->side, bytes_of(in.p, in.n));
    else if (st->kind == ST_GOSSIP_IN)
        svc_gossip_data(st, bytes_of(in.p, in.n));
    else
        part_keep(st, bytes_of(in.p, in.n));
}

void stream_on_fin(struct stream *st)
{
    switch (st->kind) {
    case ST_CIRCUIT:
        circuit_leg_fin(st->circuit, st->side);
        return;
    case ST_HOP_WAIT: /* rust half-closes behind RESERVE: that is not a cancel (Q3) */
        return;
    case ST_RPC:
    case ST_RPC_WAIT:
        rpc_on_fin(st);
        return;
    case ST_STOP: /* the target hung up instead of answering */
        svc_stop_feed(st, NULL);
        return;
    default: /* an orderly end, also in the middle of a negotiation (libp2p.md §3) */
        stream_finish(st);
        return;
    }
}

void stream_on_rst(struct stream *st)
{
    struct circuit *c = st->circuit;
    unsigned side = st->side;

    if (!c) {
        stream_free(st);
    } else if (st->kind == ST_STOP) {
        stream_free(st);
        circuit_stop_result(c, HOP_CONNECTION_FAILED, true); /* busy here (libp2p.md §16.2) */
    } else {
        circuit_leg_lost(c, side, END_RESET);
    }
}

void stream_on_credit(struct stream *st)
{
    if (st->kind == ST_CIRCUIT)
        fwd_leg_wake(st->circuit, st->side);
    else
        stream_talk_on(st);
    if (st->kind == ST_GOSSIP_OUT)
        svc_gossip_credit(st);
}

void stream_on_timer(struct stream *st)
{
    ASSERT(st->kind != ST_CIRCUIT);
    stream_give_up(
        st); /* of ST_STOP: side 0's deadline comes first; this one is the stream's own */
}
