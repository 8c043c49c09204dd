#include "tools/p2p.h"

#include "proto/varint.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_MAX = 1 << 18, GRANT_STEP = YAMUX_WINDOW / 2, RECORD_MAX = NOISE_MSG_MAX };

static const char noise_name[] = "/noise";
static const char yamux_name[] = "/yamux/1.0.0";

/* ---- queue ------------------------------------------------------------------------------- */

static uint8_t *queue_room(struct p2p_queue *q, size_t n)
{
    if (q->at && q->at + q->n + n > q->cap) {
        memmove(q->p, q->p + q->at, q->n);
        q->at = 0;
    }
    if (q->n + n > q->cap) {
        q->cap = (q->n + n) * 2;
        q->p = realloc(q->p, q->cap);
        ASSERT(q->p != NULL);
    }
    return q->p + q->at + q->n;
}

void p2p_queue_put(struct p2p_queue *q, struct bytes b)
{
    if (!b.n)
        return;
    memcpy(queue_room(q, b.n), b.p, b.n);
    q->n += b.n;
}

struct bytes p2p_queue_front(const struct p2p_queue *q)
{
    return q->n ? bytes_of(q->p + q->at, q->n) : bytes_of(NULL, 0);
}

void p2p_queue_drop(struct p2p_queue *q, size_t n)
{
    ASSERT(n <= q->n);
    q->at += n;
    q->n -= n;
    if (q->n == 0)
        q->at = 0;
}

static void queue_free(struct p2p_queue *q)
{
    free(q->p);
    *q = (struct p2p_queue){ 0 };
}

/* ---- sending ------------------------------------------------------------------------------- */

static void put_frame_len(struct p2p *c, size_t n)
{
    uint8_t head[NOISE_FRAME_HEAD];

    put_u16(head, (uint16_t)n);
    p2p_queue_put(&c->out, bytes_of(head, sizeof(head)));
}

static void seal(struct p2p *c, const struct bytes *parts, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += parts[i].n;
    ASSERT(sum <= NOISE_PLAIN_MAX);
    put_frame_len(c, sum + AEAD_TAG);
    aead_seal(c->env->aead, &c->tx, parts, n, queue_room(&c->out, sum + AEAD_TAG));
    c->out.n += sum + AEAD_TAG;
}

static void send_header(struct p2p *c, const uint8_t *head)
{
    struct bytes part = bytes_of(head, YAMUX_HEADER);

    seal(c, &part, 1);
}

static void gone(struct p2p_stream *s, bool reset)
{
    s->live = false;
    if (s->conn->app->on_gone)
        s->conn->app->on_gone(s, reset);
    s->in.n = s->in.at = 0;
}

static void finish_if_done(struct p2p_stream *s)
{
    if (s->live && s->y.rx_fin && s->y.tx_fin && s->fin_seen) {
        yamux_detach(&s->y);
        gone(s, false);
    }
}

size_t p2p_send(struct p2p_stream *s, struct bytes b, bool fin)
{
    size_t sent = 0;

    if (!s->live || s->y.tx_fin)
        return 0;
    do {
        uint8_t head[YAMUX_HEADER];
        size_t n = min_sz(min_sz(b.n - sent, P2P_BODY_MAX), s->y.send_credit);
        bool last = sent + n == b.n;
        struct bytes parts[2] = { { head, sizeof(head) }, { n ? b.p + sent : NULL, n } };

        if (n == 0 && !(last && fin))
            break;
        yamux_put_data(&s->y, head, (uint32_t)n, last && fin ? YAMUX_FIN : 0);
        seal(s->conn, parts, n ? 2 : 1);
        sent += n;
    } while (sent < b.n);
    finish_if_done(s);
    return sent;
}

bool p2p_may_send(const struct p2p_stream *s)
{
    return s->live && !s->y.tx_fin && s->y.send_credit > 0 && s->conn->out.n < P2P_OUT_HIGH;
}

void p2p_reset(struct p2p_stream *s)
{
    uint8_t head[YAMUX_HEADER];

    if (!s->live)
        return;
    yamux_put_rst(head, s->y.id);
    yamux_detach(&s->y);
    send_header(s->conn, head);
    gone(s, true);
}

void p2p_consumed(struct p2p_stream *s, size_t n)
{
    uint8_t head[YAMUX_HEADER];

    s->consumed += (uint32_t)n;
    if (!s->live || s->y.rx_fin || s->consumed < GRANT_STEP)
        return;
    yamux_put_grant(&s->y, head, s->consumed);
    s->consumed = 0;
    send_header(s->conn, head);
}

/* ---- streams ------------------------------------------------------------------------------- */

static struct p2p_stream *stream_slot(struct p2p *c)
{
    for (size_t i = 0; i < P2P_STREAMS; i++) {
        struct p2p_stream *s = &c->stream[i];

        if (!s->live) {
            struct p2p_queue in = s->in;

            *s = (struct p2p_stream){ .conn = c, .live = true, .in = in };
            return s;
        }
    }
    return NULL;
}

struct p2p_stream *p2p_open(struct p2p *c, const char *name, int kind, struct bytes first)
{
    uint8_t buf[MSS_FRAME_MAX + HOP_MSG_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct p2p_stream *s = c->state == P2P_UP ? stream_slot(c) : NULL;

    if (!s)
        return NULL;
    if (!yamux_open(&c->y, &s->y)) {
        s->live = false;
        return NULL;
    }
    s->dialed = name;
    s->kind = kind;
    s->proto = P2P_APP;
    mss_dial_hello(&w, name);
    wcur_put(&w, first);
    ASSERT(!w.bad);
    (void)p2p_send(s, bytes_of(buf, w.wrote), false);
    return s;
}

static void answer_identify(struct p2p_stream *s)
{
    struct p2p *c = s->conn;
    uint8_t buf[IDENT_OURS_MAX + 2];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct ident id = { .key_pb = bytes_of(c->env->me.key_pb, KEY_ED25519_PB),
                        .protocols = c->app->names,
                        .protocol_version = "ipfs/0.1.0",
                        .agent_version = c->env->agent };

    ident_put(&w, &id); /* no addresses: nobody shall learn ours from us */
    ASSERT(!w.bad);
    (void)p2p_send(s, bytes_of(buf, w.wrote), true);
}

static void answer_ping(struct p2p_stream *s)
{
    while (s->live && s->in.n >= PING_BYTES) {
        uint8_t echo[PING_BYTES];

        memcpy(echo, p2p_queue_front(&s->in).p, sizeof(echo));
        p2p_queue_drop(&s->in, sizeof(echo));
        if (p2p_send(s, bytes_of(echo, sizeof(echo)), false) != sizeof(echo))
            p2p_reset(s); /* it does not read what it asks for */
        p2p_consumed(s, sizeof(echo));
    }
}

/* Bytes of a stream whose protocol is settled. */
static void stream_bytes(struct p2p_stream *s, struct bytes data)
{
    if (!s->live || !data.n)
        return;
    switch (s->proto) {
    case P2P_IDENT:
        p2p_consumed(s, data.n);
        break;
    case P2P_PING:
        p2p_queue_put(&s->in, data);
        answer_ping(s);
        break;
    default:
        s->conn->app->on_data(s, data);
        break;
    }
}

static void stream_agreed(struct p2p_stream *s)
{
    if (s->proto == P2P_IDENT)
        answer_identify(s);
    else if (s->proto >= P2P_APP && s->conn->app->on_open)
        s->conn->app->on_open(s);
}

/* Negotiates on what has gathered; the rest is the protocol's. */
static void stream_negotiate(struct p2p_stream *s)
{
    struct cur c = cur_of(p2p_queue_front(&s->in));
    size_t before = c.n;
    uint8_t out[MSS_REPLY_MAX];
    struct wcur w = wcur_of(out, sizeof(out));
    bool inbound = s->dialed == NULL;
    enum mss_res res = inbound
                           ? mss_listen_feed(&s->listen, s->conn->app->protos, &c, &w, &s->proto)
                           : mss_dial_feed(&s->dial, s->dialed, &c);

    p2p_queue_drop(&s->in, before - c.n);
    p2p_consumed(s, before - c.n);
    if (w.wrote)
        (void)p2p_send(s, bytes_of(out, w.wrote), false);
    if (res == MSS_FAILED)
        p2p_reset(s);
    if (res != MSS_AGREED)
        return;
    s->dialed = NULL;
    if (inbound)
        stream_agreed(s);

    struct p2p_queue rest = s->in;

    s->in = (struct p2p_queue){ 0 };
    stream_bytes(s, p2p_queue_front(&rest));
    queue_free(&rest);
}

static void stream_data(struct p2p_stream *s, struct bytes data)
{
    if (!s->dialed && s->proto != P2P_NONE) {
        stream_bytes(s, data);
        return;
    }
    p2p_queue_put(&s->in, data); /* mss is bounded: 1 KiB frames, 12 tries */
    stream_negotiate(s);
}

static void stream_fin(struct p2p_stream *s)
{
    struct p2p *c = s->conn;

    s->fin_seen = true;
    if (s->dialed || s->proto < P2P_APP) /* negotiating, or a service of ours: it has had enough */
        (void)p2p_send(s, bytes_of("", 0), true);
    else if (c->app->on_fin)
        c->app->on_fin(s);
    finish_if_done(s);
}

enum p2p_msg p2p_message(struct p2p_stream *s, struct bytes *data, size_t max, struct bytes *msg)
{
    uint64_t len;
    size_t head;

    while (data->n) { /* byte by byte: messages are short, and what follows them is not ours */
        struct bytes have;

        p2p_queue_put(&s->in, bytes_of(data->p, 1));
        data->p++;
        data->n--;
        have = p2p_queue_front(&s->in);
        switch (varint_peek(have, &len, &head)) {
        case VARINT_MORE:
            continue;
        case VARINT_BAD:
            return P2P_MSG_BAD;
        case VARINT_OK:
            break;
        }
        if (len > max)
            return P2P_MSG_BAD;
        if (have.n - head < len)
            continue;
        *msg = bytes_of(have.p + head, (size_t)len);
        p2p_consumed(s, have.n);
        s->in.n = s->in.at = 0; /* the bytes stay until something is put */
        return P2P_MSG_WHOLE;
    }
    return P2P_MSG_MORE;
}

/* ---- layers --------------------------------------------------------------------------------- */

void p2p_close(struct p2p *c, const char *why)
{
    if (c->state == P2P_CLOSED)
        return;
    c->state = P2P_CLOSED;
    c->why = why;
    for (size_t i = 0; i < P2P_STREAMS; i++) {
        struct p2p_stream *s = &c->stream[i];

        if (s->live) {
            yamux_detach(&s->y);
            gone(s, true);
        }
    }
}

static void up(struct p2p *c)
{
    c->state = P2P_UP;
    yamux_init(&c->y, &c->env->table, true, P2P_STREAMS);
    c->app->on_up(c);
}

static void mux_open(struct p2p *c, uint32_t id)
{
    struct p2p_stream *s = stream_slot(c);
    uint8_t head[YAMUX_HEADER];

    if (s) {
        yamux_attach(&c->y, &s->y);
        yamux_put_ack(&s->y, head);
    } else {
        yamux_refuse(&c->y);
        yamux_put_rst(head, id);
    }
    send_header(c, head);
}

static void mux_event(struct p2p *c, const struct yamux_ev *ev)
{
    struct p2p_stream *s = ev->stream ? CONTAINER_OF(ev->stream, struct p2p_stream, y) : NULL;
    uint8_t head[YAMUX_HEADER];

    switch (ev->kind) {
    case YAMUX_EV_OPEN:
        mux_open(c, ev->id);
        break;
    case YAMUX_EV_REFUSED:
        yamux_put_rst(head, ev->id);
        send_header(c, head);
        break;
    case YAMUX_EV_DATA:
        stream_data(s, ev->data);
        break;
    case YAMUX_EV_CREDIT:
        if (c->app->on_credit && !s->dialed && s->proto >= P2P_APP)
            c->app->on_credit(s);
        break;
    case YAMUX_EV_FIN:
        stream_fin(s);
        break;
    case YAMUX_EV_RST:
        gone(s, true);
        break;
    case YAMUX_EV_PING:
        yamux_put_pong(head, ev->value);
        send_header(c, head);
        break;
    case YAMUX_EV_FAIL:
        yamux_put_go_away(head, ev->value);
        send_header(c, head);
        p2p_close(c, "the relay broke the yamux protocol");
        break;
    case YAMUX_EV_NONE:
    case YAMUX_EV_PONG:
    case YAMUX_EV_GO_AWAY: /* what runs may finish; the socket's end tells the rest */
        break;
    }
}

static void on_plain(struct p2p *c, struct bytes plain)
{
    if (c->state == P2P_MUXER) {
        p2p_queue_put(&c->plain, plain);
        struct cur in = cur_of(p2p_queue_front(&c->plain));
        enum mss_res res = mss_dial_feed(&c->mss, yamux_name, &in);

        p2p_queue_drop(&c->plain, c->plain.n - in.n);
        if (res == MSS_FAILED)
            p2p_close(c, "the relay refused /yamux/1.0.0");
        if (res != MSS_AGREED)
            return;
        up(c);
        plain = p2p_queue_front(&c->plain);
    }
    struct cur in = cur_of(plain);
    struct yamux_ev ev = { .kind = YAMUX_EV_PONG };

    while (c->state == P2P_UP && ev.kind != YAMUX_EV_NONE) {
        yamux_feed(&c->y, &in, &ev);
        mux_event(c, &ev);
    }
}

/* Message 1 goes out with message 2 awaited, and message 3 is followed by the muxer's names when
 * Noise has not settled them (libp2p.md §4). */
static void noise_step(struct p2p *c, enum noise_res res)
{
    uint8_t msg[NOISE_PAYLOAD_MAX + 128];
    struct wcur w = wcur_of(msg, sizeof(msg));

    if (res == NOISE_WRITE) {
        res = noise_write(&c->noise, &w);
        put_frame_len(c, w.wrote);
        p2p_queue_put(&c->out, bytes_of(msg, w.wrote));
    }
    if (res == NOISE_FAILED)
        p2p_close(c, "the Noise handshake failed");
    if (res != NOISE_DONE)
        return;
    noise_split(&c->noise, &c->tx, &c->rx);
    c->early_muxer = c->remote.muxer_yamux;
    c->state = P2P_MUXER;
    if (c->early_muxer) {
        up(c);
        return;
    }
    w = wcur_of(msg, sizeof(msg));
    mss_dial_hello(&w, yamux_name);
    struct bytes part = bytes_of(msg, w.wrote);
    c->mss = (struct mss_dial){ 0 };
    seal(c, &part, 1);
}

static void on_record(struct p2p *c, struct bytes record)
{
    static uint8_t plain[RECORD_MAX];

    if (c->state == P2P_NOISE) {
        noise_step(c, noise_read(&c->noise, record, &c->remote));
    } else if (record.n < AEAD_TAG || !aead_open(c->env->aead, &c->rx, &record, 1, plain)) {
        p2p_close(c, "a record of the relay does not decrypt");
    } else if (record.n > AEAD_TAG) {
        on_plain(c, bytes_of(plain, record.n - AEAD_TAG));
    }
}

static void on_raw(struct p2p *c)
{
    if (c->state == P2P_SECURITY) {
        struct cur in = cur_of(p2p_queue_front(&c->in));
        size_t before = in.n;
        enum mss_res res = mss_dial_feed(&c->mss, noise_name, &in);

        p2p_queue_drop(&c->in, before - in.n);
        if (res == MSS_FAILED)
            p2p_close(c, "no libp2p relay, or one without /noise");
        if (res != MSS_AGREED)
            return;
        c->state = P2P_NOISE;
    }
    while (c->state != P2P_CLOSED && c->in.n >= NOISE_FRAME_HEAD) {
        struct bytes front = p2p_queue_front(&c->in);
        size_t len = (size_t)front.p[0] << 8 | front.p[1];

        if (front.n - NOISE_FRAME_HEAD < len)
            return;
        on_record(c, bytes_of(front.p + NOISE_FRAME_HEAD, len));
        p2p_queue_drop(&c->in, NOISE_FRAME_HEAD + len);
    }
}

/* ---- socket ---------------------------------------------------------------------------------- */

void p2p_env_init(struct p2p_env *env, const uint8_t seed[32], const char *agent)
{
    uint8_t sk[32];

    crypto_init();
    *env = (struct p2p_env){ .aead = aead_new(), .agent = agent };
    env->table.bucket = env->bucket;
    env->table.mask = P2P_BUCKETS - 1;
    identity_from_seed(seed, &env->me);
    ASSERT(getrandom(sk, sizeof(sk), 0) == sizeof(sk));
    noise_ident_init(&env->noise, &env->me, sk);
    crypto_wipe(sk, sizeof(sk));
}

void p2p_init(struct p2p *c, struct p2p_env *env, const struct p2p_app *app, int fd)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));
    uint8_t e[32];

    *c = (struct p2p){ .env = env, .app = app, .fd = fd };
    mss_dial_hello(&w, noise_name);
    p2p_queue_put(&c->out, bytes_of(buf, w.wrote));
    ASSERT(getrandom(e, sizeof(e), 0) == sizeof(e));
    noise_init(&c->noise, &env->noise, NOISE_INITIATOR, e);
    noise_step(c, NOISE_WRITE); /* message 1 does not wait for the names to be agreed */
}

void p2p_fini(struct p2p *c)
{
    p2p_close(c, "done");
    close(c->fd);
    queue_free(&c->in);
    queue_free(&c->plain);
    queue_free(&c->out);
    for (size_t i = 0; i < P2P_STREAMS; i++)
        queue_free(&c->stream[i].in);
}

short p2p_events(const struct p2p *c)
{
    return (short)(POLLIN | (c->out.n ? POLLOUT : 0));
}

static void flush(struct p2p *c)
{
    while (c->out.n) {
        struct bytes front = p2p_queue_front(&c->out);
        ssize_t n = send(c->fd, front.p, front.n, MSG_NOSIGNAL);

        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                p2p_close(c, "the connection broke while sending");
            return;
        }
        p2p_queue_drop(&c->out, (size_t)n);
    }
}

void p2p_on_poll(struct p2p *c, short revents)
{
    if (revents & (POLLIN | POLLHUP | POLLERR)) {
        ssize_t n = recv(c->fd, queue_room(&c->in, READ_MAX), READ_MAX, 0);

        if (n > 0) {
            c->in.n += (size_t)n;
            on_raw(c);
        } else if (n == 0) {
            p2p_close(c, "the relay closed the connection");
        } else if (errno != EAGAIN && errno != EINTR) {
            p2p_close(c, strerror(errno));
        }
    }
    if (c->state < P2P_CLOSED)
        flush(c);
}
