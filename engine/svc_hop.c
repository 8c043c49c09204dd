/* The hop service: RESERVE goes to control and comes back; CONNECT becomes a circuit; and the stop
 * stream that we open towards a target (libp2p.md §11). */
#include "engine/circuit.h"
#include "engine/control.h"
#include "engine/shard.h"
#include "engine/stream.h"
#include "proto/envelope.h"
#include "proto/stop.h"
#include "proto/varint.h"

static void count_reserve(struct stats *st, enum hop_status status)
{
    switch (status) {
    case HOP_OK:
        STAT_INC(st, reserve_ok);
        break;
    case HOP_RESOURCE_LIMIT_EXCEEDED:
        STAT_INC(st, reserve_status_201);
        break;
    case HOP_PERMISSION_DENIED:
        STAT_INC(st, reserve_status_202);
        break;
    case HOP_MALFORMED_MESSAGE:
        STAT_INC(st, reserve_status_400);
        break;
    default:
        STAT_INC(st, reserve_status_200);
    }
}

/* A status and our FIN: the end of a hop exchange that made no circuit. */
void svc_hop_status(struct stream *st, enum hop_status status)
{
    uint8_t msg[64];
    struct wcur w = wcur_of(msg, sizeof(msg));
    struct shard *s = st->conn->shard;
    uint32_t idx = st->head.idx, gen = st->head.gen;

    ASSERT(!st->circuit);
    hop_put_status(&w, status, NULL);
    ASSERT(!w.bad);
    stream_write(st, bytes_of(msg, w.wrote), true);
    if (slab_find(&s->streams, idx, gen))
        stream_finish(st);
}

/* Where clients are told to find us: what is announced, else the very address they reached
 * (libp2p.md Q1: a reservation without an address is none). On a connection that we made that is a
 * port of no use to anybody: there it is our door's. */
size_t conn_addresses(const struct conn *c, bool p2p, struct maddr *own, struct bytes *out)
{
    const struct daemon *d = c->shard->d;

    for (unsigned i = 0; i < d->announce_n; i++)
        out[i] = maddr_bytes(p2p ? &d->announce_p2p[i] : &d->announce[i]);
    if (d->announce_n)
        return d->announce_n;
    struct netaddr at = c->local;

    if (c->dial && d->bound_n)
        at.port = d->bound[0].port;
    maddr_from_tcp(&at, own);
    if (p2p && !maddr_append_p2p(own, &d->me.id))
        return 0;
    out[0] = maddr_bytes(own);
    return 1;
}

static void reservation_write(struct stream *st)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    const struct config *cfg = s->d->cfg;
    uint8_t voucher[VOUCHER_ENVELOPE_MAX], msg[HOP_MSG_MAX];
    struct wcur v = wcur_of(voucher, sizeof(voucher)), w = wcur_of(msg, sizeof(msg));
    struct bytes addrs[CONFIG_ANNOUNCE_MAX + 1];
    struct maddr own;
    uint32_t idx = st->head.idx, gen = st->head.gen;
    size_t n = conn_addresses(c, true, &own, addrs);

    voucher_seal(&v, &s->d->me, &c->peer, c->resv.expire_unix_s);
    hop_put_reservation(&w, c->resv.expire_unix_s, addrs, n,
                        v.bad ? bytes_of(NULL, 0) : bytes_of(voucher, v.wrote),
                        &cfg->circuit_limit);
    ASSERT(!w.bad); /* CONFIG_ANNOUNCE_MAX addresses are checked to fit at start */
    stream_write(st, bytes_of(msg, w.wrote), true);
    if (slab_find(&s->streams, idx, gen))
        stream_finish(st);
}

static void reserve_denied(struct conn *c, enum hop_status status, const char *reason)
{
    struct event_rec e = { .kind = EV_RESERVATION_DENIED,
                           .level = LOG_INFO,
                           .peer = c->peer,
                           .status = (uint16_t)status,
                           .reason = reason };

    log_event(c->shard->log, &e);
}

void svc_hop_answer(struct conn *c)
{
    struct shard *s = c->shard;
    struct link *k = c->streams.first;
    enum hop_status status = c->resv.status;

    if (status == HOP_OK && c->resv.verdict == HOP_RENEWED)
        STAT_INC(&s->stats, reserve_renewed);
    while (k && conn_alive(c)) {
        struct stream *st = CONTAINER_OF(k, struct stream, link);

        k = k->next; /* answering may free st */
        if (st->kind != ST_HOP_WAIT)
            continue;
        count_reserve(&s->stats, status);
        if (status == HOP_OK)
            reservation_write(st);
        else
            svc_hop_status(st, status);
    }
    if (status == HOP_OK)
        c->close_refused = false; /* it asked again, and in time */
    if (status != HOP_OK && conn_alive(c) && !c->resv.held && s->d->cfg->preset == PRESET_DUSK) {
        c->close_refused = true; /* presets.md: or that client never asks again (dusk.md §1.1) */
        wheel_arm(&s->wheel, &c->timer, s->now_ms + REFUSED_CLOSE_MS);
    }
}

/* What need not go to control; NULL: it decides. */
static const char *reserve_refusal(const struct conn *c)
{
    const struct shard *s = c->shard;

    if (!acl_allows(daemon_acl(s->d), ACL_RESERVE, &c->peer, c->remote.ip))
        return "access list";
    if (atomic_load_explicit(&s->d->draining, memory_order_relaxed))
        return "draining";
    return shard_pool_high(s) && !c->resv.held ? "buffer memory" : NULL; /* libp2p.md §23 */
}

static void hop_reserve(struct stream *st)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    const char *refusal;

    if (!gcra_step(&c->reserve_tat_ms, s->now_ms, RESERVE_BURST, RESERVE_MS)) {
        if (mux_forgive(c)) /* else st is gone with everything else */
            stream_reset(st);
        return;
    }
    refusal = reserve_refusal(c);
    if (refusal) { /* 200, not 202: rust takes 202 for a protocol violation (Q4) */
        STAT_INC(&s->stats, reserve_status_200);
        reserve_denied(c, HOP_RESERVATION_REFUSED, refusal);
        svc_hop_status(st, HOP_RESERVATION_REFUSED);
        return;
    }
    st->kind = ST_HOP_WAIT;
    if (c->resv.asked)
        return; /* one answer serves all who wait, and control writes none while we read one */
    c->resv.used = c->resv.asked = true;
    control_post(s, &c->resv.to_control, RESV_ASK);
}

/* One uv-prefixed message of at most `max` bytes off the front of *in; its bytes in *msg. */
enum message { MESSAGE_MORE, MESSAGE_WHOLE, MESSAGE_BAD };

static enum message message_take(struct cur *in, size_t max, struct bytes *msg)
{
    uint64_t len;
    size_t used;

    switch (varint_peek(bytes_of(in->p, in->n), &len, &used)) {
    case VARINT_MORE:
        return MESSAGE_MORE;
    case VARINT_BAD:
        return MESSAGE_BAD;
    case VARINT_OK:
        break;
    }
    if (len > max) /* on the prefix, before anything is kept (libp2p.md §1.1) */
        return MESSAGE_BAD;
    if (in->n - used < len)
        return MESSAGE_MORE;
    cur_take(in, used);
    *msg = cur_take(in, (size_t)len);
    return MESSAGE_WHOLE;
}

bool svc_hop_feed(struct stream *st, struct cur *in)
{
    struct shard *s = st->conn->shard;
    struct bytes body;
    struct hop_msg m;

    switch (message_take(in, HOP_MSG_MAX, &body)) {
    case MESSAGE_MORE:
        return false;
    case MESSAGE_BAD:
        goto malformed;
    case MESSAGE_WHOLE:
        break;
    }
    if (!hop_decode(body, &m) || !m.has_type)
        goto malformed;
    switch (m.type) {
    case HOP_RESERVE:
        hop_reserve(st);
        return false;
    case HOP_CONNECT:
        if (!m.has_peer)
            goto malformed_connect;
        uint32_t idx = st->head.idx, gen = st->head.gen;

        circuit_connect(st, &m.peer);
        return slab_find(&s->streams, idx, gen) && st->kind == ST_CIRCUIT;
    default:
        STAT_INC(&s->stats, connect_status_401);
        svc_hop_status(st, HOP_UNEXPECTED_MESSAGE);
        return false;
    }
malformed:
    STAT_INC(&s->stats, reserve_status_400);
    svc_hop_status(st, HOP_MALFORMED_MESSAGE);
    return false;
malformed_connect:
    STAT_INC(&s->stats, connect_status_400);
    svc_hop_status(st, HOP_MALFORMED_MESSAGE);
    return false;
}

/* The target's side: `in` NULL means that the stream failed or its time is up. */
bool svc_stop_feed(struct stream *st, struct cur *in)
{
    struct circuit *c = st->circuit;
    struct stop_msg m = { 0 };
    struct bytes body;
    enum hop_status status = HOP_CONNECTION_FAILED;
    bool answered = false; /* else another connection of the target may do (libp2p.md §11.3) */

    if (in && !st->agreed) {
        switch (mss_dial_feed(&st->dial, STOP_PROTOCOL, in)) {
        case MSS_MORE:
            return false;
        case MSS_AGREED:
            st->agreed = true;
            return true;
        case MSS_FAILED: /* na: its relay transport is off (Q27) */
            in = NULL;
        }
    }
    if (in) {
        switch (message_take(in, HOP_MSG_MAX, &body)) {
        case MESSAGE_MORE:
            return false;
        case MESSAGE_BAD:
            break;
        case MESSAGE_WHOLE:
            answered = stop_decode(body, &m) && m.has_status;
            if (answered)
                status = stop_to_hop_status(&m);
            if (answered && m.status == HOP_NO_RESERVATION && st->conn->resv.held)
                control_post(st->conn->shard, &st->conn->resv.to_control, RESV_DROP);
        }
    }
    if (status == HOP_OK) {
        st->kind = ST_CIRCUIT;
        wheel_cancel(&st->conn->shard->wheel, &st->timer);
        circuit_stop_result(c, HOP_OK, false);
        return true;
    }
    st->circuit = NULL;
    stream_reset(st);
    circuit_stop_result(c, status, !answered);
    return false;
}
