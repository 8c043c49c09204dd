/* CONNECT to joined streams: the checks, the target's home, the stop stream, the answer
 * (libp2p.md §11.3). */
#include "engine/circuit.h"
#include "engine/shard.h"
#include "proto/stop.h"

static void count_status(struct stats *st, enum hop_status status)
{
    switch (status) {
    case HOP_RESOURCE_LIMIT_EXCEEDED:
        STAT_INC(st, connect_status_201);
        break;
    case HOP_PERMISSION_DENIED:
        STAT_INC(st, connect_status_202);
        break;
    case HOP_NO_RESERVATION:
        STAT_INC(st, connect_status_204);
        break;
    case HOP_MALFORMED_MESSAGE:
        STAT_INC(st, connect_status_400);
        break;
    default:
        STAT_INC(st, connect_status_203);
    }
}

static void denied(struct shard *s, const struct peer_id *source, const struct peer_id *target,
                   enum hop_status status, const char *reason)
{
    struct event_rec e = { .kind = EV_CIRCUIT_DENIED,
                           .level = LOG_INFO,
                           .peer = *source,
                           .peer2 = *target,
                           .status = (uint16_t)status,
                           .reason = reason };

    count_status(&s->stats, status);
    log_event(s->log, &e);
}

/* What the target's reservation does not depend on comes first; 204 before 201 (presets.md). */
static enum hop_status connect_check(struct stream *st, const struct peer_id *target,
                                     struct home homes[HOMES_PER_PEER], size_t *homes_n,
                                     const char **reason)
{
    struct conn *c = st->conn;
    struct shard *s = c->shard;
    const struct config *cfg = s->d->cfg;
    struct quota *q = s->d->quota;
    struct netaddr from = conn_prefix(&c->remote, false);
    struct bytes who = bytes_of(&c->peer, sizeof(c->peer)), ip = bytes_of(from.ip, 16);

    *reason = "access list";
    if (!acl_allows(daemon_acl(s->d), ACL_CONNECT_SRC, &c->peer, c->remote.ip) ||
        !acl_allows(daemon_acl(s->d), ACL_CONNECT_DST, target, NULL))
        return HOP_PERMISSION_DENIED;
    *reason = "target is the relay";
    if (peer_id_eq(target, &s->d->me.id))
        return HOP_MALFORMED_MESSAGE;
    *reason = "no reservation";
    *homes_n = homes_find(s->d->homes, target, homes);
    if (!*homes_n || peer_id_eq(target, &c->peer))
        return HOP_NO_RESERVATION;
    *reason = "rate limit";
    if (!rate_allow(q, quota_key(q, RATE_CONNECT_PEER, who), s->now_ms, cfg->connect_peer_burst,
                    cfg->connect_peer_refill_ms) ||
        !rate_allow(q, quota_key(q, RATE_CONNECT_IP, ip), s->now_ms, cfg->connect_ip_burst,
                    cfg->connect_ip_refill_ms))
        return HOP_RESOURCE_LIMIT_EXCEEDED;
    *reason = "buffer memory";
    return shard_pool_high(s) ? HOP_RESOURCE_LIMIT_EXCEEDED : HOP_OK;
}

/* All three counts or none. Where old circuits make room, those that are on their way out may still
 * be counted, so twice as many are allowed for that moment; *crowded: the source has too many. */
static bool connect_count(struct circuit *c, bool *crowded, const char **reason)
{
    struct daemon *d = c->shard[0]->d;
    uint32_t fair = d->cfg->circuits_per_peer_max, now[2];
    bool shed = d->cfg->circuits_full == FULL_SHED && fair;
    uint32_t per_peer = shed ? 2 * fair : fair;

    c->key_source =
        quota_key(d->quota, QUOTA_CIRCUIT_PEER, bytes_of(&c->source, sizeof(c->source)));
    c->key_target =
        quota_key(d->quota, QUOTA_CIRCUIT_PEER, bytes_of(&c->target, sizeof(c->target)));
    *reason = "circuits in total";
    if (!quota_take(d->quota, d->key_circuits, d->cfg->circuits_max))
        return false;
    *reason = "circuits of the source";
    if (!quota_take_n(d->quota, c->key_source, per_peer, &now[0]))
        goto undo_total;
    *reason = "circuits of the target";
    if (!quota_take_n(d->quota, c->key_target, per_peer, &now[1]))
        goto undo_source;
    atomic_fetch_add_explicit(&d->peers_in_circuits, (now[0] == 1) + (now[1] == 1),
                              memory_order_relaxed);
    c->counted = true;
    *crowded = shed && now[0] > fair;
    c->crowded = shed && now[1] > fair;
    return true;

undo_source:
    quota_drop(d->quota, c->key_source);
undo_total:
    quota_drop(d->quota, d->key_circuits);
    return false;
}

static void try_home(struct circuit *c)
{
    c->home = c->homes[c->homes_next++];
    c->shard[1] = c->shard[0]->d->shard[c->home.shard];
    c->leg[1].done = false; /* not engaged: nobody else looks */
    circuit_post(c, 1, CE_OPEN);
}

static struct circuit *circuit_new(struct stream *st, const struct peer_id *target)
{
    struct shard *s = st->conn->shard;
    struct circuit *c = slab_new(&s->circuits);

    if (!c)
        return NULL;
    c->shard[0] = c->shard[1] = s;
    for (unsigned i = 0; i < 2; i++) {
        c->leg[i].circuit = c;
        c->leg[i].side = (uint8_t)i;
        c->leg[i].work.node.kind = (uint8_t)(MAIL_LEG0 + i);
    }
    c->source = st->conn->peer;
    c->target = *target;
    c->limit = s->d->cfg->circuit_limit;
    c->timer.kind = TIMER_CIRCUIT;
    c->born_ms = s->now_ms;
    c->ends_ms = UINT64_MAX;
    return c;
}

void circuit_connect(struct stream *st, const struct peer_id *target)
{
    struct conn *conn = st->conn;
    struct shard *s = conn->shard;
    struct home homes[HOMES_PER_PEER];
    size_t homes_n = 0;
    const char *reason;
    enum hop_status status = connect_check(st, target, homes, &homes_n, &reason);
    struct circuit *c = NULL;
    bool crowded = false;

    if (status == HOP_OK) {
        c = circuit_new(st, target);
        reason = "circuits on this shard";
        if (!c || !connect_count(c, &crowded, &reason)) {
            if (c)
                slab_free(&s->circuits, c);
            status = HOP_RESOURCE_LIMIT_EXCEEDED;
        }
    }
    if (status != HOP_OK) { /* no circuit slot was used */
        denied(s, &conn->peer, target, status, reason);
        svc_hop_status(st, status);
        return;
    }
    c->id = 1 + atomic_fetch_add_explicit(&s->d->circuit_ids, 1, memory_order_relaxed);
    c->leg[0].stream = st;
    st->circuit = c;
    st->side = 0;
    st->kind = ST_CIRCUIT;
    wheel_cancel(&s->wheel, &st->timer);
    memcpy(c->homes, homes, sizeof(homes));
    c->homes_n = (uint8_t)homes_n;
    wheel_arm(&s->wheel, &c->timer, s->now_ms + s->d->cfg->stop_timeout_ms);
    try_home(c);
    if (crowded)
        circuit_shed(conn); /* last: it may close the connection */
}

/* ---- side 1 ------------------------------------------------------------------------------- */

/* NULL with the status that it means, should no other home do better. */
static struct stream *stop_stream(struct circuit *c, enum hop_status *status)
{
    struct shard *s = c->shard[1];
    struct conn *conn = slab_find(&s->conns, c->home.slot, c->home.gen);
    struct stream *st;

    *status = HOP_NO_RESERVATION; /* it went with its connection; only the table lags behind */
    if (!conn || conn->state != CONN_MUX || !peer_id_eq(&conn->peer, &c->target))
        return NULL;
    *status = HOP_CONNECTION_FAILED;
    st = stream_new(conn, ST_STOP);
    if (!st)
        return NULL;
    if (!stream_count(st, COUNT_STOP, STOP_STREAMS_MAX) || !yamux_open(&conn->mux, &st->y)) {
        stream_free(st);
        return NULL;
    }
    return st;
}

bool circuit_on_open(struct circuit *c)
{
    struct shard *s = c->shard[1];
    enum hop_status status;
    struct stream *st = stop_stream(c, &status);
    uint8_t msg[MSS_NAME_MAX * 2 + 256], frame[YAMUX_HEADER];
    struct wcur w = wcur_of(msg, sizeof(msg));

    if (!st) {
        circuit_stop_result(c, status, true);
        return false;
    }
    st->circuit = c;
    st->side = 1;
    c->leg[1].stream = st;
    wheel_arm(&s->wheel, &st->timer, s->now_ms + s->d->cfg->stop_timeout_ms + 1000);
    /* Header, name and CONNECT in one frame: safe with all three and a round trip less (§3). */
    mss_dial_hello(&w, STOP_PROTOCOL);
    stop_put_connect(&w, &c->source, &c->limit);
    ASSERT(!w.bad);
    yamux_put_data(&st->y, frame, (uint32_t)w.wrote, 0);
    struct conn *conn = st->conn;

    conn_ctl(conn, bytes_of(frame, sizeof(frame)));
    conn_ctl(conn, bytes_of(msg, w.wrote));
    if (c->crowded && conn_alive(conn))
        circuit_shed(conn);
    return conn_alive(conn); /* it was closed by that: the result is told already */
}

void circuit_stop_result(struct circuit *c, enum hop_status status, bool retry)
{
    struct leg *leg = &c->leg[1];

    if (leg->done) /* side 0 gave up first */
        return;
    c->stop_status = status;
    c->stop_retry = retry;
    if (status == HOP_OK) {
        leg->ready = true;
    } else {
        leg->stream = NULL;
        leg->done = true;
    }
    circuit_post(c, 0, CE_STOP_DONE);
}

/* ---- side 0 ------------------------------------------------------------------------------- */

void circuit_refuse(struct circuit *c, enum hop_status status, const char *reason)
{
    struct leg *leg = &c->leg[0];
    struct stream *st = leg->stream;

    denied(c->shard[0], &c->source, &c->target, status, reason);
    circuit_end_once(c, END_REFUSED);
    leg->stream = NULL;
    st->circuit = NULL;
    circuit_leg_over(c, 0);
    svc_hop_status(st, status);
}

static void circuit_opened(struct circuit *c)
{
    struct shard *s = c->shard[0];
    struct stream *st = c->leg[0].stream;
    uint8_t msg[64];
    struct wcur w = wcur_of(msg, sizeof(msg));
    uint64_t check_ms = s->now_ms + s->d->cfg->linger_ms / 2;

    stream_uncount(st); /* HOP_STREAMS_MAX is of handshakes (libp2p.md §23); circuits have limits */
    c->state = CIRCUIT_OPEN;
    c->opened = true;
    c->opened_ms = s->now_ms;
    if (c->limit.present && c->limit.duration_s)
        c->ends_ms = s->now_ms + (uint64_t)c->limit.duration_s * 1000;
    wheel_arm(&s->wheel, &c->timer, min_u64(check_ms, c->ends_ms));
    STAT_INC(&s->stats, connect_ok);
    STAT_INC(&s->stats, circuits_opened);
    STAT_INC(&s->stats, circuits);
    struct event_rec e = { .kind = EV_CIRCUIT_ACCEPTED,
                           .level = LOG_INFO,
                           .peer = c->source,
                           .peer2 = c->target,
                           .a = c->id,
                           .b = quota_count(s->d->quota, s->d->key_circuits) };

    log_event(s->log, &e);
    hop_put_status(&w, HOP_OK, &c->limit);
    stream_write(st, bytes_of(msg, w.wrote), false);
    if (c->leg[0].done) /* that write closed the connection */
        return;
    c->leg[0].ready = true;
    fwd_early_push(c);
    fwd_inbox_take(c, 0);
    fwd_leg_wake(c, 0);
}

void circuit_on_stop_done(struct circuit *c)
{
    if (c->stop_status != HOP_OK) {
        if (c->state == CIRCUIT_OPENING && !c->leg[0].done && c->stop_retry &&
            c->homes_next < c->homes_n) {
            try_home(c);
            return;
        }
        c->peer_over = true;
        if (!c->leg[0].done)
            circuit_refuse(c, c->stop_status, c->stop_retry ? "target gone" : "target refused");
        return;
    }
    if (!c->leg[0].done && c->state == CIRCUIT_OPENING)
        circuit_opened(c);
}
