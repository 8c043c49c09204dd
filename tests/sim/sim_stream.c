/* tests/sim/sim_stream.c: streams of the simulated clients: negotiation, RESERVE, CONNECT, STOP. */
#include <stdlib.h>

#include "proto/gossip.h"
#include "proto/ident.h"
#include "proto/varint.h"
#include "tests/sim/sim_peer.h"

enum { GRANT_AT = YAMUX_WINDOW / 2 };

enum { IN_STOP = 1, IN_PUSH, IN_IDENT, IN_GOSSIP };
static const struct mss_proto inbound[] = {
    { STOP_PROTOCOL, IN_STOP },
    { IDENT_PUSH_PROTOCOL, IN_PUSH },
    { IDENT_PROTOCOL, IN_IDENT },
    { NULL, 0 },
};
static const struct mss_proto gossip_too[] = {
    { STOP_PROTOCOL, IN_STOP },
    { IDENT_PUSH_PROTOCOL, IN_PUSH },
    { IDENT_PROTOCOL, IN_IDENT },
    { GOSSIP_PROTOCOL, IN_GOSSIP },
    { NULL, 0 },
};

struct sim_stream *sim_stream_new(struct sim_conn *c, enum sim_stream_kind kind)
{
    struct sim_stream *st = calloc(1, sizeof(*st));

    ASSERT(st != NULL);
    st->conn = c;
    st->kind = kind;
    st->live = true;
    st->opened_ms = sim_now(c->s);
    if (c->streams_n == c->streams_cap) {
        c->streams_cap = c->streams_cap ? c->streams_cap * 2 : 16;
        c->streams = realloc(c->streams, c->streams_cap * sizeof(*c->streams));
        ASSERT(c->streams != NULL);
    }
    c->streams[c->streams_n++] = st;
    return st;
}

void sim_stream_end(struct sim_stream *st)
{
    st->live = false;
    st->ended_ms = sim_now(st->conn->s);
    yamux_detach(&st->y);
}

void sim_stream_put(struct sim_stream *st, struct bytes b, bool fin)
{
    uint8_t head[YAMUX_HEADER];

    if (!st->live || st->y.tx_fin)
        return;
    b.n = min_sz(b.n, st->y.send_credit);
    if (b.n == 0 && !fin)
        return;
    yamux_put_data(&st->y, head, (uint32_t)b.n, fin ? YAMUX_FIN : 0);
    sim_put_plain(st->conn, bytes_of(head, sizeof(head)));
    sim_put_plain(st->conn, b);
    if (st->y.rx_fin && st->y.tx_fin)
        sim_stream_end(st);
}

void sim_stream_rst(struct sim_stream *st)
{
    uint8_t head[YAMUX_HEADER];

    st->excused = true;
    if (!st->live)
        return;
    yamux_put_rst(head, st->y.id);
    sim_put_plain(st->conn, bytes_of(head, sizeof(head)));
    sim_stream_end(st);
}

void sim_grant(struct sim_stream *st, uint32_t delta)
{
    uint8_t head[YAMUX_HEADER];

    if (!st->live || st->y.rx_fin)
        return;
    yamux_put_grant(&st->y, head, delta);
    sim_put_plain(st->conn, bytes_of(head, sizeof(head)));
}

void sim_stream_consumed(struct sim_stream *st, size_t n)
{
    st->consumed += (uint32_t)n;
    if (st->greedy || st->consumed < (st->stingy ? 1 : GRANT_AT))
        return;
    sim_grant(st, st->consumed);
    st->consumed = 0;
}

struct sim_stream *sim_open(struct sim_conn *c, const char *name, enum sim_stream_kind kind,
                            struct bytes first)
{
    uint8_t buf[MSS_FRAME_MAX + HOP_MSG_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct sim_stream *st;

    if (c->state != SC_UP)
        return NULL;
    st = sim_stream_new(c, kind);
    if (!yamux_open(&c->y, &st->y)) {
        st->live = false;
        return NULL;
    }
    st->name = name;
    mss_dial_hello(&w, name);
    wcur_put(&w, first);
    ASSERT(!w.bad);
    sim_stream_put(st, bytes_of(buf, w.wrote), false);
    return st;
}

struct sim_stream *sim_reserve(struct sim_conn *c)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_reserve(&w);
    return sim_open(c, HOP_PROTOCOL, SS_RESERVE, bytes_of(buf, w.wrote));
}

struct sim_stream *sim_connect_to(struct sim_conn *c, const struct peer_id *target)
{
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct sim_stream *st;

    hop_put_connect(&w, target);
    st = sim_open(c, HOP_PROTOCOL, SS_CONNECT, bytes_of(buf, w.wrote));
    if (st != NULL)
        st->other = *target;
    return st;
}

struct sim_stream *sim_newest(struct sim_conn *c, enum sim_stream_kind kind)
{
    for (size_t i = c->streams_n; i-- > 0;)
        if (c->streams[i]->live && c->streams[i]->kind == kind)
            return c->streams[i];
    return NULL;
}

static void joined(struct sim_stream *st)
{
    st->joined = true;
    if (st->conn->s->on_joined != NULL)
        st->conn->s->on_joined(st);
}

void sim_stop_answer(struct sim_stream *st, enum hop_status status)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    if (!st->live || !st->asked)
        return;
    st->asked = false;
    stop_put_status(&w, status);
    sim_stream_put(st, bytes_of(buf, w.wrote), status != HOP_OK);
    st->status = status;
    if (status == HOP_OK)
        joined(st);
}

/* Messages of hop and stop streams. What lies behind them is the circuit's. */
static bool message(struct sim_stream *st, struct bytes *msg, size_t *whole)
{
    struct bytes have = sim_queue_front(&st->in);
    uint64_t len;
    size_t used;

    if (varint_peek(have, &len, &used) != VARINT_OK || have.n - used < len)
        return false;
    *msg = bytes_of(have.p + used, (size_t)len);
    *whole = used + (size_t)len;
    return true;
}

static void hop_answer(struct sim_stream *st)
{
    struct bytes msg;
    size_t whole;

    if (!message(st, &msg, &whole))
        return;
    if (!hop_decode(msg, &st->reply) || !st->reply.has_status || st->reply.type != HOP_STATUS) {
        sim_break(st->conn->s, "the answer on a hop stream is not a STATUS");
        return;
    }
    st->status = st->reply.status;
    if (st->status != HOP_OK && (st->status < 200 || st->status > 204) && st->status != 400 &&
        st->status != 401)
        sim_break(st->conn->s, "status %d", (int)st->status);
    st->status_ms = sim_now(st->conn->s);
    sim_queue_drop(&st->in, whole);
    if (st->kind == SS_CONNECT && st->status == HOP_OK)
        joined(st);
    else
        sim_stream_put(st, bytes_of(NULL, 0), true);
}

static void stop_asks(struct sim_stream *st)
{
    struct stop_msg m;
    struct bytes msg;
    size_t whole;

    if (!message(st, &msg, &whole))
        return;
    if (!stop_decode(msg, &m) || m.type != STOP_CONNECT || !m.has_peer) {
        sim_break(st->conn->s, "what opens a stop stream is not a CONNECT");
        return;
    }
    sim_queue_drop(&st->in, whole);
    if (st->in.n > 0)
        sim_break(st->conn->s, "bytes behind STOP CONNECT before its answer");
    st->other = m.peer;
    st->asked = true;
    if (st->conn->s->on_stop != NULL)
        st->conn->s->on_stop(st);
    else
        sim_stop_answer(st, HOP_OK);
}

/* Bytes of a stream whose protocol is agreed. */
static void stream_bytes(struct sim_stream *st, struct bytes data)
{
    if (st->joined) {
        sim_flow_on_data(st, data);
        return;
    }
    switch (st->kind) {
    case SS_RESERVE:
    case SS_CONNECT:
        sim_queue_put(&st->in, data);
        if (st->status == 0)
            hop_answer(st);
        break;
    case SS_STOP:
        sim_queue_put(&st->in, data);
        if (!st->asked && st->status == 0)
            stop_asks(st);
        break;
    case SS_GOSSIP:
        st->conn->s->on_gossip(st, data);
        return;
    case SS_PING:
        st->pongs += data.n;
        return;
    default:
        return;
    }
    if (st->joined && st->in.n > 0) {
        sim_flow_on_data(st, sim_queue_front(&st->in));
        sim_queue_drop(&st->in, st->in.n);
    }
}

static void inbound_agreed(struct sim_stream *st, int id)
{
    st->kind = id == IN_STOP ? SS_STOP : id == IN_GOSSIP ? SS_GOSSIP : SS_OTHER;
    if (id == IN_IDENT)
        sim_stream_put(st, bytes_of(NULL, 0), true);
}

void sim_stream_data(struct sim_stream *st, struct bytes data)
{
    uint8_t out[MSS_REPLY_MAX];
    struct wcur w = wcur_of(out, sizeof(out));
    bool dialed = st->name != NULL;
    const struct mss_proto *protos = st->conn->s->on_gossip != NULL ? gossip_too : inbound;
    struct cur in;
    enum mss_res res;
    size_t rest;
    int id = 0;

    if (!dialed && st->kind != SS_INBOUND) {
        stream_bytes(st, data);
        return;
    }
    sim_queue_put(&st->in, data);
    in = cur_of(sim_queue_front(&st->in));
    res = dialed ? mss_dial_feed(&st->dial, st->name, &in)
                 : mss_listen_feed(&st->listen, protos + (st->conn->no_stop ? 1 : 0), &in, &w, &id);
    sim_queue_drop(&st->in, st->in.n - in.n);
    sim_stream_put(st, bytes_of(out, w.wrote), false);
    if (res == MSS_FAILED) {
        st->na_seen = true;
        sim_stream_put(st, bytes_of(NULL, 0), true);
    }
    if (res != MSS_AGREED)
        return;
    st->name = NULL;
    if (!dialed)
        inbound_agreed(st, id);
    rest = st->in.n;
    if (rest > 0 && st->live) {
        uint8_t *copy = malloc(rest);

        ASSERT(copy != NULL);
        memcpy(copy, sim_queue_front(&st->in).p, rest);
        sim_queue_drop(&st->in, rest);
        stream_bytes(st, bytes_of(copy, rest));
        free(copy);
    }
}

void sim_stream_fin(struct sim_stream *st)
{
    st->fin_seen = true;
    if (st->joined)
        sim_flow_on_fin(st);
    else if (!st->y.tx_fin && !st->asked)
        sim_stream_put(st, bytes_of(NULL, 0), true);
    if (st->live && st->y.tx_fin)
        sim_stream_end(st);
}
