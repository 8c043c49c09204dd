#include "tests/sim/sim_peer.h"

#include <errno.h>
#include <stdlib.h>

enum {
    READ_BYTES = 65536,
    READS_PER_LOOK = 4,
    OUT_HIGH = 65536, /* sealed bytes that wait for the socket */
};

static const char yamux_name[] = "/yamux/1.0.0";
static const struct mss_proto noise_only[] = { { "/noise", 1 }, { NULL, 0 } };
static const struct mss_proto yamux_only[] = { { yamux_name, 1 }, { NULL, 0 } };
/* Of an Ed25519 key's payload: key and signature, without the extensions behind them. */
enum { PLAIN_PAYLOAD = 104 };

static void *must(void *p)
{
    ASSERT(p != NULL);
    return p;
}

/* Queues */

uint8_t *sim_queue_room(struct sim_queue *q, size_t n)
{
    if (q->at > 0 && q->at + q->n + n > q->cap) {
        memmove(q->p, q->p + q->at, q->n);
        q->at = 0;
    }
    if (q->n + n > q->cap) {
        q->cap = (q->n + n) * 2;
        q->p = must(realloc(q->p, q->cap));
    }
    return q->p + q->at + q->n;
}

void sim_queue_put(struct sim_queue *q, struct bytes b)
{
    if (b.n == 0)
        return;
    memcpy(sim_queue_room(q, b.n), b.p, b.n);
    q->n += b.n;
}

struct bytes sim_queue_front(const struct sim_queue *q)
{
    return q->n > 0 ? bytes_of(q->p + q->at, q->n) : bytes_of(NULL, 0);
}

void sim_queue_drop(struct sim_queue *q, size_t n)
{
    ASSERT(n <= q->n);
    q->at += n;
    q->n -= n;
    if (q->n == 0)
        q->at = 0;
}

/* Out */

void sim_put_raw(struct sim_conn *c, struct bytes b)
{
    sim_queue_put(&c->out, b);
}

void sim_put_plain(struct sim_conn *c, struct bytes b)
{
    sim_queue_put(&c->plain, b);
}

/* Records are cut where the sender likes: a frame may span several, a record hold many. */
static void seal(struct sim_conn *c)
{
    while (c->plain.n > 0 && c->out.n < OUT_HIGH) {
        struct bytes front = sim_queue_front(&c->plain);
        struct bytes part = bytes_of(front.p, min_sz(front.n, c->record_max));
        uint8_t *at = sim_queue_room(&c->out, NOISE_FRAME_HEAD + part.n + AEAD_TAG);

        put_u16(at, (uint16_t)(part.n + AEAD_TAG));
        aead_seal(c->s->aead, &c->tx, &part, 1, at + NOISE_FRAME_HEAD);
        c->out.n += NOISE_FRAME_HEAD + part.n + AEAD_TAG;
        sim_queue_drop(&c->plain, part.n);
    }
}

static void closed(struct sim_conn *c, const char *why)
{
    if (c->state == SC_CLOSED)
        return;
    if (c->state != SC_UP)
        c->excused = true; /* limits end connections that are not up yet */
    c->state = SC_CLOSED;
    c->why = why;
    c->closed_ms = sim_now(c->s);
    for (size_t i = 0; i < c->streams_n; i++) {
        struct sim_stream *st = c->streams[i];

        if (!st->live)
            continue;
        st->live = false;
        st->ended_ms = c->closed_ms;
        yamux_detach(&st->y);
        if (st->joined && !c->excused)
            sim_flow_on_rst(st);
    }
}

static void flush(struct sim_conn *c)
{
    if (c->state >= SC_MUXER)
        seal(c);
    while (c->out.n > 0) {
        struct bytes front = sim_queue_front(&c->out);
        long n = sim_send(c->s->net, c->ep, front.p, front.n);

        if (n == 0)
            return;
        if (n < 0) {
            sim_queue_drop(&c->out, c->out.n); /* what it said before may still be read */
            return;
        }
        sim_queue_drop(&c->out, (size_t)n);
        if (c->state >= SC_MUXER)
            seal(c);
    }
}

void sim_hang_up(struct sim_conn *c, enum sim_hangup how)
{
    c->excused = true;
    if (c->state == SC_CLOSED && how != HANG_FIN)
        return;
    if (how == HANG_VANISH)
        sim_vanish(c->s->net, c->ep);
    else if (how == HANG_RST)
        sim_reset(c->s->net, c->ep);
    else
        sim_close(c->s->net, c->ep);
    closed(c, "hung up");
}

/* Layers */

static void mux_open(struct sim_conn *c)
{
    struct sim_stream *st = sim_stream_new(c, SS_INBOUND);
    uint8_t head[YAMUX_HEADER];

    yamux_attach(&c->y, &st->y);
    yamux_put_ack(&st->y, head);
    sim_put_plain(c, bytes_of(head, sizeof(head)));
}

static void mux_event(struct sim_conn *c, const struct yamux_ev *ev)
{
    struct sim_stream *st = ev->stream ? CONTAINER_OF(ev->stream, struct sim_stream, y) : NULL;
    uint8_t head[YAMUX_HEADER];

    switch (ev->kind) {
    case YAMUX_EV_OPEN:
        mux_open(c);
        break;
    case YAMUX_EV_DATA:
        sim_stream_data(st, ev->data);
        sim_stream_consumed(st, ev->data.n);
        break;
    case YAMUX_EV_FIN:
        sim_stream_fin(st);
        break;
    case YAMUX_EV_RST:
        st->rst_seen = true;
        sim_stream_end(st);
        if (st->joined)
            sim_flow_on_rst(st);
        break;
    case YAMUX_EV_PING:
        yamux_put_pong(head, ev->value);
        sim_put_plain(c, bytes_of(head, sizeof(head)));
        break;
    case YAMUX_EV_GO_AWAY:
        c->go_away = true;
        if (ev->value != YAMUX_NORMAL && !c->excused)
            sim_break(c->s, "GoAway %u for a client that did nothing wrong", ev->value);
        break;
    case YAMUX_EV_FAIL:
        sim_break(c->s, "the relay broke the yamux protocol");
        closed(c, "muxer");
        break;
    case YAMUX_EV_REFUSED:
        sim_break(c->s, "the relay opened too many streams");
        break;
    case YAMUX_EV_PONG:
        c->pongs++;
        c->pong = ev->value;
        break;
    case YAMUX_EV_NONE:
    case YAMUX_EV_CREDIT:
        break;
    }
}

static void up(struct sim_conn *c)
{
    c->state = SC_UP;
    yamux_init(&c->y, &c->s->table, !c->answers, UINT16_MAX);
}

static enum mss_res listen_feed(struct sim_conn *c, const struct mss_proto *protos, struct cur *in,
                                void (*put)(struct sim_conn *c, struct bytes b))
{
    uint8_t reply[MSS_REPLY_MAX];
    struct wcur w = wcur_of(reply, sizeof(reply));
    int id;
    enum mss_res res = mss_listen_feed(&c->listen, protos, in, &w, &id);

    put(c, bytes_of(reply, w.wrote));
    return res;
}

static void on_plain(struct sim_conn *c, struct bytes plain)
{
    struct yamux_ev ev = { .kind = YAMUX_EV_PONG };
    struct cur in;

    if (c->state == SC_MUXER) {
        enum mss_res res;

        sim_queue_put(&c->plain_in, plain);
        in = cur_of(sim_queue_front(&c->plain_in));
        if (c->answers)
            res = listen_feed(c, yamux_only, &in, sim_put_plain);
        else
            res = mss_dial_feed(&c->mss, yamux_name, &in);
        sim_queue_drop(&c->plain_in, c->plain_in.n - in.n);
        if (res == MSS_FAILED)
            closed(c, "muxer refused");
        if (res != MSS_AGREED)
            return;
        up(c);
        plain = sim_queue_front(&c->plain_in);
    }
    in = cur_of(plain);
    while (c->state == SC_UP && ev.kind != YAMUX_EV_NONE) {
        yamux_feed(&c->y, &in, &ev);
        mux_event(c, &ev);
    }
}

static void noise_step(struct sim_conn *c, enum noise_res res)
{
    uint8_t msg[NOISE_FRAME_HEAD + NOISE_PAYLOAD_MAX + 128];
    struct wcur w = wcur_of(msg + NOISE_FRAME_HEAD, sizeof(msg) - NOISE_FRAME_HEAD);

    if (res == NOISE_WRITE) {
        res = noise_write(&c->noise, &w);
        put_u16(msg, (uint16_t)w.wrote);
        sim_put_raw(c, bytes_of(msg, NOISE_FRAME_HEAD + w.wrote));
    }
    if (res == NOISE_FAILED)
        closed(c, "noise");
    if (res != NOISE_DONE)
        return;
    noise_split(&c->noise, &c->tx, &c->rx);
    if (!peer_id_eq(&c->remote.id, &c->s->me.id))
        sim_break(c->s, "the relay is somebody else");
    /* Only if both have named it: the relay does. */
    if (c->remote.muxer_yamux && !c->late_mux) {
        up(c);
        return;
    }
    c->state = SC_MUXER;
    c->listen = (struct mss_listen){ 0 };
    if (c->answers)
        return;
    w = wcur_of(msg, sizeof(msg));
    mss_dial_hello(&w, yamux_name);
    c->mss = (struct mss_dial){ 0 };
    sim_put_plain(c, bytes_of(msg, w.wrote));
}

static void on_record(struct sim_conn *c, struct bytes record)
{
    static uint8_t plain[NOISE_MSG_MAX];

    if (c->state == SC_NOISE) {
        noise_step(c, noise_read(&c->noise, record, &c->remote));
    } else if (record.n < AEAD_TAG || !aead_open(c->s->aead, &c->rx, &record, 1, plain)) {
        sim_break(c->s, "a record of the relay does not open");
        closed(c, "record");
    } else {
        on_plain(c, bytes_of(plain, record.n - AEAD_TAG));
    }
}

static void on_raw(struct sim_conn *c)
{
    if (c->state == SC_SECURITY) {
        struct cur in = cur_of(sim_queue_front(&c->in));
        enum mss_res res = c->answers ? listen_feed(c, noise_only, &in, sim_put_raw)
                                      : mss_dial_feed(&c->mss, "/noise", &in);

        sim_queue_drop(&c->in, c->in.n - in.n);
        if (res == MSS_FAILED)
            closed(c, "no /noise");
        if (res != MSS_AGREED)
            return;
        c->state = SC_NOISE;
    }
    while (c->state != SC_CLOSED && c->in.n >= NOISE_FRAME_HEAD) {
        struct bytes front = sim_queue_front(&c->in);
        size_t len = (size_t)front.p[0] << 8 | front.p[1];

        if (front.n - NOISE_FRAME_HEAD < len)
            return;
        on_record(c, bytes_of(front.p + NOISE_FRAME_HEAD, len));
        sim_queue_drop(&c->in, NOISE_FRAME_HEAD + len);
    }
}

static void read_some(struct sim_conn *c)
{
    for (int i = 0; i < READS_PER_LOOK && c->state != SC_CLOSED && !c->deaf; i++) {
        long n = sim_recv(c->s->net, c->ep, sim_queue_room(&c->in, READ_BYTES), READ_BYTES);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            if (n == 0)
                sim_close(c->s->net, c->ep);
            closed(c, n == 0 ? "closed by the relay" : "reset");
            return;
        }
        c->in.n += (size_t)n;
        on_raw(c);
    }
}

void sim_conn_look(struct sim_conn *c)
{
    if (c->state == SC_CLOSED || c->mute)
        return;
    read_some(c);
    for (size_t i = 0; i < c->streams_n && c->state == SC_UP; i++)
        if (c->streams[i]->tx != NULL)
            sim_flow_pump(c->streams[i]);
    if (c->state != SC_CLOSED)
        flush(c);
}

/* Connections */

static void random_bytes(struct sim *s, uint8_t *at, size_t n)
{
    while (n-- > 0)
        *at++ = (uint8_t)sim_below(s->net, 256);
}

static struct sim_ident *ident_of(struct sim *s, unsigned idx)
{
    uint8_t seed[32] = { 0 };
    struct sim_ident *id = s->ident[idx];

    ASSERT(idx < SIM_IDENTS_MAX);
    if (id != NULL)
        return id;
    id = s->ident[idx] = must(calloc(1, sizeof(*id)));
    put_u64(seed, s->seed);
    put_u32(seed + 8, idx + 1);
    identity_from_seed(seed, &id->me);
    seed[31] = 1;
    noise_ident_init(&id->noise, &id->me, seed);
    return id;
}

const struct peer_id *sim_peer_id(struct sim *s, unsigned ident)
{
    return &ident_of(s, ident)->me.id;
}

struct netaddr sim_host(unsigned subnet, unsigned host)
{
    struct netaddr a = { .ip = { [10] = 0xff, [11] = 0xff, 10, 1 }, .port = 0 };

    a.ip[14] = (uint8_t)subnet;
    a.ip[15] = (uint8_t)host;
    return a;
}

static struct sim_conn *conn_add(struct sim *s, struct sim_conn *c)
{
    if (s->conns_n == s->conns_cap) {
        s->conns_cap = s->conns_cap ? s->conns_cap * 2 : 32;
        s->conns = must(realloc(s->conns, s->conns_cap * sizeof(*s->conns)));
    }
    return s->conns[s->conns_n++] = c;
}

struct sim_conn *sim_dial(struct sim *s, unsigned ident, const struct netaddr *from, int shard)
{
    struct sim_conn *c = must(calloc(1, sizeof(*c)));
    struct netaddr at = *from;
    uint8_t buf[64], e[32];
    struct wcur w = wcur_of(buf, sizeof(buf));

    if (at.port == 0)
        at.port = (uint16_t)(10000 + s->conns_n);
    if (shard >= 0)
        sim_place_next(s->net, (unsigned)shard);
    c->ep = sim_connect(s->net, &s->at, &at);
    if (c->ep < 0) {
        free(c);
        return NULL;
    }
    c->s = s;
    c->ident_idx = ident;
    c->ident = ident_of(s, ident);
    c->record_max = RECORD_PLAIN_MAX;
    mss_dial_hello(&w, "/noise");
    sim_put_raw(c, bytes_of(buf, w.wrote));
    random_bytes(s, e, sizeof(e));
    noise_init(&c->noise, &c->ident->noise, NOISE_INITIATOR, e);
    noise_step(c, NOISE_WRITE); /* message 1 does not wait for the names to be agreed */
    return conn_add(s, c);
}

struct sim_conn *sim_answer(struct sim *s, unsigned ident, int ep, bool plain)
{
    struct sim_conn *c = must(calloc(1, sizeof(*c)));
    uint8_t e[32], key[32] = { 9 };

    c->s = s;
    c->ep = ep;
    c->answers = true;
    c->late_mux = plain;
    c->ident_idx = ident;
    c->record_max = RECORD_PLAIN_MAX;
    if (ident == SIM_RELAY) {
        noise_ident_init(&c->own, &s->me, key);
    } else {
        c->ident = ident_of(s, ident);
        c->own = c->ident->noise;
    }
    if (plain)
        c->own.payload_n = PLAIN_PAYLOAD;
    random_bytes(s, e, sizeof(e));
    noise_init(&c->noise, &c->own, NOISE_RESPONDER, e);
    return conn_add(s, c);
}

static void conn_free(struct sim_conn *c)
{
    for (size_t i = 0; i < c->streams_n; i++) {
        free(c->streams[i]->in.p);
        free(c->streams[i]);
    }
    free(c->streams);
    free(c->in.p);
    free(c->plain_in.p);
    free(c->plain.p);
    free(c->out.p);
    free(c);
}

void sim_peers_free(struct sim *s)
{
    for (size_t i = 0; i < s->conns_n; i++)
        conn_free(s->conns[i]);
    for (size_t i = 0; i < s->flows_n; i++)
        free(s->flows[i]);
    for (size_t i = 0; i < SIM_IDENTS_MAX; i++)
        free(s->ident[i]);
    free(s->conns);
    free(s->flows);
}
