/* tools/load_p2p_stream.c: streams: negotiation, the relay's messages, identify and ping. */
#include "tools/load_p2p.h"

#include "proto/stop.h"
#include "proto/varint.h"

#include <stdlib.h>

enum { STREAM_BUF = HOP_MSG_MAX + 64 };
enum { ID_IDENT = 1, ID_PING, ID_PUSH, ID_STOP };

static const struct mss_proto protos[] = { { IDENT_PROTOCOL, ID_IDENT },
                                           { PING_PROTOCOL, ID_PING },
                                           { IDENT_PUSH_PROTOCOL, ID_PUSH },
                                           { STOP_PROTOCOL, ID_STOP },
                                           { NULL, 0 } };
static const char *const names[] = { IDENT_PROTOCOL, PING_PROTOCOL, STOP_PROTOCOL, NULL };

static void send_header(struct lp_conn *c, const uint8_t *head)
{
    struct bytes part = bytes_of(head, YAMUX_HEADER);

    lp_seal(c, &part, 1, YAMUX_HEADER);
}

/* A frame whose header and body exceed a record is cut as go's Noise cuts it: at the limit. */
size_t lp_send(struct lp_stream *s, struct bytes body, bool fin)
{
    struct lp_conn *c = s->conn;
    uint8_t head[YAMUX_HEADER];
    size_t n = min_sz(body.n, s->y.send_credit);
    bool last = fin && n == body.n;

    if (!yamux_attached(&s->y) || s->y.tx_fin || (n == 0 && !last))
        return 0;
    yamux_put_data(&s->y, head, (uint32_t)n, last ? YAMUX_FIN : 0);
    struct bytes parts[2] = { { head, sizeof(head) }, { body.p, n } };

    if (sizeof(head) + n <= NOISE_PLAIN_MAX) {
        lp_seal(c, parts, n ? 2 : 1, sizeof(head) + n);
        return n;
    }
    parts[1].n = NOISE_PLAIN_MAX - sizeof(head);
    lp_seal(c, parts, 2, NOISE_PLAIN_MAX);
    struct bytes rest = bytes_of(body.p + parts[1].n, n - parts[1].n);

    lp_seal(c, &rest, 1, rest.n);
    return n;
}

void lp_send_whole(struct lp_stream *s, uint8_t *body, size_t n)
{
    uint8_t *head = body - YAMUX_HEADER, kept[YAMUX_HEADER];
    size_t sum = YAMUX_HEADER + n, first = min_sz(sum, NOISE_PLAIN_MAX);
    struct bytes part = bytes_of(head, first), rest = bytes_of(head + first, sum - first);

    memcpy(kept, head, sizeof(kept));
    yamux_put_data(&s->y, head, (uint32_t)n, 0);
    lp_seal(s->conn, &part, 1, part.n);
    if (rest.n)
        lp_seal(s->conn, &rest, 1, rest.n);
    memcpy(head, kept, sizeof(kept));
}

void lp_consumed(struct lp_stream *s, size_t n)
{
    uint8_t head[YAMUX_HEADER];

    s->consumed += (uint32_t)n;
    if (lp_opt.mode == LP_ATTACK) /* takes what it gets and returns nothing */
        return;
    if (s->consumed < LP_GRANT || !yamux_attached(&s->y) || s->y.rx_fin)
        return;
    yamux_put_grant(&s->y, head, s->consumed);
    s->consumed = 0;
    send_header(s->conn, head);
}

/* ---- streams ----------------------------------------------------------------------------- */

static struct lp_stream *stream_new(struct lp_conn *c, enum lp_kind kind)
{
    struct lp_stream *s = calloc(1, sizeof(*s));

    ASSERT(s != NULL);
    s->conn = c;
    s->kind = kind;
    s->next = c->streams;
    s->at = &c->streams;
    if (s->next)
        s->next->at = &s->next;
    c->streams = s;
    return s;
}

void lp_stream_free(struct lp_stream *s, bool reset)
{
    if (s->kind == LP_SOURCE || s->kind == LP_SINK || s->kind == LP_CONNECT)
        lp_circuit_gone(s, reset);
    yamux_detach(&s->y);
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
    free(s->buf);
    free(s);
}

void lp_reset(struct lp_stream *s)
{
    uint8_t head[YAMUX_HEADER];

    yamux_put_rst(head, s->y.id);
    send_header(s->conn, head);
    lp_stream_free(s, true);
}

static struct lp_stream *open_hop(struct lp_conn *c, enum lp_kind kind, struct bytes message)
{
    uint8_t buf[256];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct lp_stream *s = stream_new(c, kind);

    if (!yamux_open(&c->y, &s->y)) {
        lp_stream_free(s, true);
        return NULL;
    }
    s->dialing = true;
    mss_dial_hello(&w, HOP_PROTOCOL); /* the message does not wait for the answer */
    wcur_put(&w, message);
    ASSERT(!w.bad);
    (void)lp_send(s, bytes_of(buf, w.wrote), false);
    return s;
}

void lp_reserve(struct lp_conn *c)
{
    uint8_t buf[16];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_reserve(&w);
    if (!open_hop(c, LP_RESERVE, bytes_of(buf, w.wrote)))
        lp_conn_close(c, "no stream for RESERVE");
}

struct lp_stream *lp_connect(struct lp_conn *c, const struct peer_id *target,
                             struct lp_circuit *circuit)
{
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct lp_stream *s;

    hop_put_connect(&w, target);
    ASSERT(!w.bad);
    s = open_hop(c, LP_CONNECT, bytes_of(buf, w.wrote));
    if (s)
        s->circuit = circuit;
    return s;
}

struct lp_stream *lp_bare_open(struct lp_conn *c, struct lp_circuit *circuit)
{
    struct lp_stream *s = stream_new(c, LP_SOURCE);

    ASSERT(yamux_open(&c->y, &s->y));
    s->circuit = circuit;
    return s;
}

static void answer_identify(struct lp_stream *s)
{
    const struct identity *me = &s->conn->peer->me;
    uint8_t buf[IDENT_OURS_MAX + 2];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct ident id = { .key_pb = bytes_of(me->key_pb, KEY_ED25519_PB),
                        .protocols = names,
                        .protocol_version = "ipfs/0.1.0",
                        .agent_version = "load-p2p" };

    ident_put(&w, &id);
    ASSERT(!w.bad);
    (void)lp_send(s, bytes_of(buf, w.wrote), true);
}

static void on_status(struct lp_stream *s, struct bytes msg)
{
    struct hop_msg m;
    bool ok = hop_decode(msg, &m) && m.type == HOP_STATUS && m.has_status;
    enum hop_status status = ok ? m.status : HOP_MALFORMED_MESSAGE;
    struct lp_conn *c = s->conn;

    if (s->kind == LP_RESERVE) {
        s->kind = LP_DISCARD;
        c->reserved = status == HOP_OK;
        (void)lp_send(s, bytes_of(NULL, 0), true);
        lp_app->on_reserved(c, status);
        return;
    }
    s->kind = status == HOP_OK ? LP_SOURCE : LP_DISCARD;
    lp_app->on_connected(s, status);
    if (status != HOP_OK)
        s->circuit = NULL;
}

static void on_stop(struct lp_stream *s, struct bytes msg)
{
    uint8_t buf[32];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct stop_msg m;
    bool ok = stop_decode(msg, &m) && m.has_type && m.type == STOP_CONNECT && m.has_peer;

    w.wrote = lp_opt.mode == LP_ATTACK ? lp_attack_stop(buf, sizeof(buf)) : 0;
    if (!w.wrote)
        stop_put_status(&w, ok ? HOP_OK : HOP_MALFORMED_MESSAGE);
    (void)lp_send(s, bytes_of(buf, w.wrote), !ok);
    s->kind = ok ? LP_SINK : LP_DISCARD;
}

/* false: the stream is gone, or its bytes are used up. */
static bool negotiate(struct lp_stream *s, struct cur *in)
{
    uint8_t out[MSS_REPLY_MAX];
    struct wcur w = wcur_of(out, sizeof(out));
    int id = 0;
    enum mss_res res = s->dialing ? mss_dial_feed(&s->dial, HOP_PROTOCOL, in)
                                  : mss_listen_feed(&s->listen, protos, in, &w, &id);

    if (w.wrote)
        (void)lp_send(s, bytes_of(out, w.wrote), false);
    if (res == MSS_FAILED) {
        if (s->dialing) {
            lp_conn_close(s->conn, "the relay does not serve circuit relay v2");
            return false;
        }
        lp_reset(s);
        return false;
    }
    if (res == MSS_MORE)
        return false;
    if (s->dialing) {
        s->dialing = false;
        return true;
    }
    switch (id) {
    case ID_IDENT:
        s->kind = LP_DISCARD;
        answer_identify(s);
        break;
    case ID_PING:
        s->kind = LP_PING;
        break;
    case ID_STOP:
        s->kind = LP_STOP;
        break;
    default:
        s->kind = LP_DISCARD;
        break;
    }
    return true;
}

/* One step on gathered bytes; false: no more steps are possible now. */
static bool stream_step(struct lp_stream *s, struct cur *in)
{
    uint64_t len;
    size_t head;

    if (s->kind == LP_NEGOTIATING || s->dialing)
        return negotiate(s, in);
    if (s->kind == LP_PING) {
        struct bytes echo = cur_take(in, in->n - in->n % PING_BYTES);

        if (echo.n)
            (void)lp_send(s, echo, false);
        return false;
    }
    if (s->kind == LP_DISCARD) {
        (void)cur_take(in, in->n);
        return false;
    }
    if (s->kind == LP_SOURCE || s->kind == LP_SINK) {
        struct bytes data = cur_take(in, in->n);

        if (data.n)
            lp_circuit_data(s, data);
        return false;
    }
    if (varint_peek(bytes_of(in->p, in->n), &len, &head) != VARINT_OK || in->n - head < len)
        return false;
    (void)cur_take(in, head);
    struct bytes msg = cur_take(in, (size_t)len);
    struct lp_conn *c = s->conn;

    if (s->kind == LP_STOP)
        on_stop(s, msg);
    else
        on_status(s, msg);
    return c->state == LP_UP;
}

static void stream_data(struct lp_stream *s, struct bytes data)
{
    struct lp_conn *c = s->conn;
    uint32_t id = s->y.id;
    struct cur in;

    if (s->circuit && s->circuit->hold[s->kind == LP_SOURCE])
        s->consumed += (uint32_t)data.n;
    else
        lp_consumed(s, data.n);
    if ((s->kind == LP_SOURCE || s->kind == LP_SINK) && !s->buf_n && !s->dialing) {
        lp_circuit_data(s, data);
        return;
    }
    if (s->buf_n + data.n > STREAM_BUF && s->kind != LP_DISCARD) {
        lp_reset(s);
        return;
    }
    if (s->buf_n) {
        memcpy(s->buf + s->buf_n, data.p, data.n);
        s->buf_n += data.n;
        data = bytes_of(s->buf, s->buf_n);
    }
    in = cur_of(data);
    while (stream_step(s, &in))
        ;
    /* A step may have freed the stream; it is then no longer the connection's. */
    struct lp_stream *alive = c->streams;

    while (alive && !(alive == s && s->y.id == id))
        alive = alive->next;
    if (!alive || c->state == LP_CLOSED)
        return;
    if (in.n && !s->buf)
        ASSERT((s->buf = malloc(STREAM_BUF)) != NULL);
    if (in.n)
        memmove(s->buf, in.p, in.n);
    s->buf_n = in.n;
}

static void stream_fin(struct lp_stream *s)
{
    if (s->kind == LP_SOURCE || s->kind == LP_SINK)
        lp_circuit_fin(s);
    else if (!s->y.tx_fin)
        (void)lp_send(s, bytes_of(NULL, 0), true);
    if (s->y.rx_fin && s->y.tx_fin)
        lp_stream_free(s, false);
}

static void mux_open(struct lp_conn *c)
{
    struct lp_stream *s = stream_new(c, lp_opt.relay == LP_LIBP2P ? LP_NEGOTIATING : LP_SINK);
    uint8_t head[YAMUX_HEADER];

    yamux_attach(&c->y, &s->y);
    yamux_put_ack(&s->y, head);
    send_header(c, head);
}

void lp_mux_event(struct lp_conn *c, const struct yamux_ev *ev)
{
    struct lp_stream *s = ev->stream ? CONTAINER_OF(ev->stream, struct lp_stream, y) : NULL;
    uint8_t head[YAMUX_HEADER];

    switch (ev->kind) {
    case YAMUX_EV_OPEN:
        mux_open(c);
        break;
    case YAMUX_EV_REFUSED:
        yamux_put_rst(head, ev->id);
        send_header(c, head);
        break;
    case YAMUX_EV_DATA:
        stream_data(s, ev->data);
        break;
    case YAMUX_EV_CREDIT:
        if (s->kind == LP_SOURCE || s->kind == LP_SINK)
            lp_circuit_pump(s);
        break;
    case YAMUX_EV_FIN:
        stream_fin(s);
        break;
    case YAMUX_EV_RST:
        lp_stream_free(s, true);
        break;
    case YAMUX_EV_PING:
        yamux_put_pong(head, ev->value);
        send_header(c, head);
        break;
    case YAMUX_EV_FAIL:
        lp_conn_close(c, "the relay broke the yamux protocol");
        break;
    case YAMUX_EV_NONE:
    case YAMUX_EV_PONG:
    case YAMUX_EV_GO_AWAY:
        break;
    }
}
