#include "engine/conn.h"

#include <errno.h>
#include <sys/socket.h>

#include "engine/control.h"
#include "engine/dial.h"
#include "engine/proxy2.h"
#include "engine/rng.h"
#include "engine/shard.h"
#include "engine/svc_gossip.h"
#include "engine/usage.h"

struct netaddr conn_prefix(const struct netaddr *a, bool subnet)
{
    struct netaddr out = { .port = 0 };

    if (netaddr_is4(a))
        memcpy(out.ip, a->ip, subnet ? 15 : 16);
    else
        memcpy(out.ip, a->ip, subnet ? 7 : 8);
    return out;
}

/* Limits by where it comes from. Each take is remembered, so that one release is certain. */
static const char *conn_admit_address(struct conn *c)
{
    struct shard *s = c->shard;
    const struct config *cfg = s->d->cfg;
    struct quota *q = s->d->quota;
    struct netaddr one = conn_prefix(&c->remote, false), subnet = conn_prefix(&c->remote, true);

    c->key_ip = quota_key(q, QUOTA_CONN_IP, bytes_of(one.ip, 16));
    c->key_subnet = quota_key(q, QUOTA_CONN_SUBNET, bytes_of(subnet.ip, 16));
    if (!acl_allows(daemon_acl(s->d), ACL_CONN, NULL, c->remote.ip)) {
        STAT_INC(&s->stats, conns_denied);
        return "denied by address";
    }
    if (!rate_allow(q, quota_key(q, RATE_HANDSHAKE_IP, bytes_of(one.ip, 16)), s->now_ms,
                    cfg->handshakes_per_ip_max, cfg->handshake_refill_ms)) {
        STAT_INC(&s->stats, conns_refused_ip);
        return "connection rate of its address";
    }
    if (!quota_take(q, c->key_ip, cfg->conns_per_ip_max)) {
        STAT_INC(&s->stats, conns_refused_ip);
        return "connections per address";
    }
    if (!quota_take(q, c->key_subnet, cfg->conns_per_subnet_max)) {
        quota_drop(q, c->key_ip);
        STAT_INC(&s->stats, conns_refused_subnet);
        return "connections per subnet";
    }
    c->counted_ip = true;
    return NULL;
}

void conn_arm_recv(struct conn *c, bool empty_now)
{
    ASSERT(!c->recv_armed);
    c->recv_armed = true;
    c->ops++;
    ring_recv(c->shard->ring, c->fd, ud_make(OP_RECV, c->head.gen, c->head.idx), empty_now);
}

static bool from_proxy(const struct config *cfg, const struct netaddr *a)
{
    for (unsigned i = 0; i < cfg->proxy_from_n; i++)
        if (cidr_match(&cfg->proxy_from[i], a->ip))
            return true;
    return false;
}

static void conn_log(const struct conn *c, enum event kind, enum log_level level, const char *why)
{
    struct daemon *d = c->shard->d;
    struct event_rec e = {
        .kind = (uint8_t)kind,
        .level = (uint8_t)level,
        .peer = c->peer,
        .has_addr = level >= LOG_DEBUG, /* info lines never carry a peer's address */
        .addr = c->remote,
        .a = kind == EV_CONN_INCOMING
                 ? c->shard->id
                 : atomic_load_explicit(&d->peers_connected, memory_order_relaxed),
        .reason = why,
    };

    log_event(c->shard->log, &e);
}

/* Once a minute, however many come (dusk.md §12: "capacity reached"). */
static struct conn *conn_refused(struct shard *s)
{
    const struct event_rec e = { .kind = EV_LIMIT_HIT,
                                 .level = LOG_WARN,
                                 .reason = "connections in total" };

    STAT_INC(&s->stats, conns_refused_total);
    if (gcra_step(&s->full_tat_ms, s->now_ms, 1, ACCEPT_SAY_MS))
        log_event(s->log, &e);
    return NULL;
}

static struct conn *conn_new(struct shard *s, int fd)
{
    struct conn *c;

    if (!quota_take(s->d->quota, s->d->key_conns, s->d->cfg->conns_max))
        return conn_refused(s);
    c = slab_new(&s->conns);
    if (!c) {
        quota_drop(s->d->quota, s->d->key_conns);
        return conn_refused(s);
    }
    c->shard = s;
    c->fd = fd;
    c->counted_conn = true;
    c->timer.kind = TIMER_CONN;
    c->resv.to_control.node.kind = CONTROL_MAIL_RESV;
    c->resv.to_shard.node.kind = MAIL_RESV;
    c->born_ms = c->active_ms = s->now_ms;
    return c;
}

void conn_accept(struct shard *s, int fd)
{
    struct conn *c = s->draining ? NULL : conn_new(s, fd);
    const char *why;

    if (!c) {
        ring_close(s->ring, fd);
        return;
    }
    STAT_INC(&s->stats, conns_accepted);
    if (ring_peername(fd, &c->remote) || ring_sockname(fd, &c->local) || ring_tune_tcp(fd)) {
        conn_close(c, "gone at accept");
        return;
    }
    c->state = from_proxy(s->d->cfg, &c->remote) ? CONN_PROXY : CONN_SNIFF;
    if (c->state == CONN_SNIFF && (why = conn_admit_address(c))) {
        conn_close(c, why);
        return;
    }
    conn_log(c, EV_CONN_INCOMING, LOG_DEBUG, NULL);
    wheel_arm(&s->wheel, &c->timer, s->now_ms + s->d->cfg->handshake_timeout_ms);
    conn_arm_recv(c, true);
}

void conn_dialed(struct shard *s, int fd, struct dial *dl, uint64_t until_ms)
{
    struct conn *c = conn_new(s, fd); /* counted in the total like any (dusk.md §2) */

    if (!c) {
        ring_close(s->ring, fd);
        dial_closed(dl, "too many connections here");
        return;
    }
    c->dial = dl;
    dl->conn = c;
    if (ring_peername(fd, &c->remote) || ring_sockname(fd, &c->local) || ring_tune_tcp(fd) ||
        ring_blocking(fd)) {
        conn_close(c, "gone at once");
        return;
    }
    c->state = CONN_MSS_SECURITY;
    wheel_arm(&s->wheel, &c->timer, until_ms);
    conn_arm_recv(c, true);
    secure_dial(c);
}

/* The header of a trusted balancer names the real client (presets: --proxy-from). */
static bool conn_proxy_feed(struct conn *c, struct cur *in)
{
    struct proxy2 p;
    const char *why;

    switch (proxy2_parse(bytes_of(in->p, in->n), &p)) {
    case PROXY2_MORE:
        return false;
    case PROXY2_BAD:
        STAT_INC(&c->shard->stats, proxy_rejects);
        conn_close(c, "no PROXY v2 header from a --proxy-from address");
        return false;
    case PROXY2_OK:
        break;
    }
    cur_take(in, p.used);
    if (p.has_src) { /* also what the client reached: without --announce it is told that address */
        c->remote = p.src;
        c->local = p.dst;
    }
    c->state = CONN_SNIFF;
    if ((why = conn_admit_address(c))) {
        conn_close(c, why);
        return false;
    }
    return true;
}

bool conn_pre_feed(struct conn *c, struct cur *in)
{
    if (c->state == CONN_PROXY && !conn_proxy_feed(c, in))
        return false;
    return secure_feed(c, in);
}

void conn_on_recv(struct conn *c, const struct ring_cqe *cqe)
{
    struct shard *s = c->shard;

    if (!cqe->more) {
        c->recv_armed = false;
        c->ops--;
    }
    if (cqe->has_buf) {
        if (cqe->res > 0) {
            STAT_ADD(&s->stats, rx_bytes, cqe->res);
            c->rx_bytes += (uint64_t)cqe->res;
            if (conn_alive(c))
                conn_ingest(c, bytes_of(cqe->buf, (size_t)cqe->res));
        }
        ring_buf_return(s->ring, cqe->bid);
    }
    if (c->state == CONN_CLOSED)
        return;
    if (cqe->res == 0) { /* a half-close of the socket means nothing in libp2p (Q41): all is over */
        conn_close(c, "closed by peer");
    } else if (cqe->res == -ENOBUFS) {
        STAT_INC(&s->stats, rx_nobufs);
        if (!c->recv_armed && !c->dry) {
            c->dry = true;
            list_append(&s->dry, &c->dry_link);
        }
    } else if (cqe->res < 0 && cqe->res != -ECANCELED && cqe->res != -EINTR &&
               cqe->res != -EAGAIN) {
        conn_close(c, "connection lost");
    } else if (!c->recv_armed) {
        conn_arm_recv(c, false);
    }
}

static const char *conn_admit_peer(struct conn *c)
{
    struct shard *s = c->shard;
    struct quota *q = s->d->quota;
    uint32_t now;

    if (!acl_allows(daemon_acl(s->d), ACL_CONN, &c->peer, c->remote.ip)) {
        STAT_INC(&s->stats, conns_denied);
        return "denied by peer id";
    }
    c->key_peer = quota_key(q, QUOTA_CONN_PEER, bytes_of(&c->peer, sizeof(c->peer)));
    if (!quota_take_n(q, c->key_peer, s->d->cfg->conns_per_peer_max, &now)) {
        STAT_INC(&s->stats, conns_refused_peer);
        return "connections per peer";
    }
    c->counted_peer = true;
    if (now == 1)
        atomic_fetch_add_explicit(&s->d->peers_connected, 1, memory_order_relaxed);
    return NULL;
}

void conn_secured(struct conn *c, const struct noise_remote *remote)
{
    const char *why;

    if (c->dial && (why = dial_judge(c->dial, &remote->id))) {
        conn_close(c, why);
        return;
    }
    c->peer = remote->id;
    if ((why = conn_admit_peer(c))) {
        conn_close(c, why);
        return;
    }
    STAT_INC(&c->shard->stats, handshakes_ok);
    STAT_INC(&c->shard->stats, conns_secured);
    conn_log(c, EV_CONN_ESTABLISHED, LOG_INFO, NULL);
    conn_log(c, EV_CONN_ESTABLISHED, LOG_DEBUG, NULL);
}

static void conn_uncount(struct conn *c)
{
    struct shard *s = c->shard;
    struct quota *q = s->d->quota;

    if (c->counted_ip) {
        quota_drop(q, c->key_ip);
        quota_drop(q, c->key_subnet);
        c->counted_ip = false;
    }
    if (c->counted_peer) {
        const struct store_usage here = { .peer = c->peer,
                                          .connected_s = (s->now_ms - c->born_ms) / 1000 };

        usage_add(s->usage, &here);
        c->counted_peer = false;
        STAT_DEC(&s->stats, conns_secured);
        if (quota_drop(q, c->key_peer) == 0) {
            atomic_fetch_sub_explicit(&s->d->peers_connected, 1, memory_order_relaxed);
            conn_log(c, EV_CONN_CLOSED, LOG_INFO, c->why);
        }
    }
}

static void conn_drop_streams(struct conn *c)
{
    svc_gossip_end(c);
    while (c->streams.first) {
        struct stream *st = CONTAINER_OF(c->streams.first, struct stream, link);

        if (st->circuit && st->kind == ST_STOP) {
            struct circuit *x = st->circuit;

            stream_free(st);
            circuit_stop_result(x, HOP_CONNECTION_FAILED, true);
        } else if (st->circuit) {
            struct circuit *x = st->circuit;
            unsigned side = st->side;

            yamux_detach(&st->y);
            circuit_leg_lost(x, side, c->shard->stopping ? END_DRAIN : END_CONN_LOST);
        } else {
            stream_free(st);
        }
    }
    ASSERT(c->runnable.count == 0);
}

static void conn_drop_tx(struct conn *c)
{
    STAT_ADD(&c->shard->stats, tx_queued, -(int64_t)c->tx.bytes);
    chunkq_clear(&c->tx, &c->shard->chunks);
}

void conn_close(struct conn *c, const char *why)
{
    struct shard *s = c->shard;

    if (c->state == CONN_CLOSED)
        return;
    if (c->state < CONN_MUX)
        conn_log(c, EV_HANDSHAKE_FAILED, LOG_DEBUG, why);
    c->state = CONN_CLOSED;
    if (!c->why)
        c->why = why;
    STAT_INC(&s->stats, conns_closed);
    if (s->run.sink == c)
        s->run.sink = NULL;
    conn_drop_streams(c);
    conn_uncount(c);
    if (c->dial)
        dial_closed(c->dial, c->why);
    c->dial = NULL;
    wheel_cancel(&s->wheel, &c->timer);
    if (c->hs)
        handshake_free(c);
    conn_half_forget(c);
    chunkq_clear(&c->in, &s->chunks);
    chunkq_clear(&c->ctl, &s->chunks);
    if (!c->send_armed)
        conn_drop_tx(c);
    crypto_wipe(&c->rx_key, sizeof(c->rx_key));
    crypto_wipe(&c->tx_key, sizeof(c->tx_key));
    if (c->dirty)
        list_remove(&s->dirty, &c->turn_link);
    if (c->dry)
        list_remove(&s->dry, &c->dry_link);
    if (c->shaking)
        list_remove(&s->shaking, &c->shake_link);
    c->dirty = c->dry = c->shaking = false;
    if (c->resv.used) { /* published as gone before the slot can be used again */
        c->resv.gone_sent = true;
        control_post(s, &c->resv.to_control, RESV_GONE);
    }
    /* close(2) would end neither an armed receive nor the connection (io_uring.md §6); a shutdown
     * completes both directions. */
    if (c->ops && ring_shutdown(c->fd, SHUT_RDWR) < 0)
        c->cancel_due = true;
    list_append(&s->closed, &c->turn_link); /* freed at the end of a turn: callers still hold it */
}

void conn_on_cancel(struct conn *c)
{
    ASSERT(c->cancel_armed);
    c->cancel_armed = false;
    c->ops--;
}

static void conn_free(struct conn *c)
{
    struct shard *s = c->shard;

    conn_drop_tx(c);
    ring_close(s->ring, c->fd);
    if (c->counted_conn)
        quota_drop(s->d->quota, s->d->key_conns);
    slab_free(&s->conns, c);
}

void conn_relieve_one(struct shard *s)
{
    struct conn *c = CONTAINER_OF(s->halves.first, struct conn, half_link);

    STAT_INC(&s->stats, slow_closed);
    conn_close(c, "half a record while memory is short");
}

/* A send that made no progress for so long: who does not read holds what others need to write. */
static void relieve_stalled(struct shard *s)
{
    struct link *next = s->sending.first;

    for (int i = 0; i < RELIEF_MAX && next; i++) {
        struct conn *c = CONTAINER_OF(next, struct conn, send_link);

        if (s->now_ms < c->send_ms + STALLED_SEND_MS)
            return;
        next = next->next; /* closing takes nobody off this list: completions do */
        if (c->state == CONN_CLOSED)
            continue;
        STAT_INC(&s->stats, slow_closed);
        conn_close(c, "reads nothing while memory is short");
    }
}

void conn_relieve(struct shard *s)
{
    relieve_stalled(s);
    for (int i = 0; i < RELIEF_MAX && s->halves.first; i++) {
        struct conn *c = CONTAINER_OF(s->halves.first, struct conn, half_link);

        if (s->now_ms < c->half_ms + HALF_RECORD_MS)
            return;
        conn_relieve_one(s);
    }
}

/* A cancellation by descriptor looks at every request of the ring, so that ten thousand of them
 * would look at a hundred million: it is for a shutdown that fails, and prepared by the owner of
 * the ring alone, for one who borrows it may set few requests aside and close many connections. It
 * counts as in flight too: what it shall end may complete in this very turn, and submitted behind
 * the close it would hit whoever has the descriptor then. */
static void conn_cancel(struct conn *c)
{
    c->cancel_due = false;
    if (!c->ops)
        return;
    c->cancel_armed = true;
    c->ops++;
    ring_cancel_fd(c->shard->ring, c->fd, ud_make(OP_CANCEL, c->head.gen, c->head.idx));
}

void conn_reap(struct shard *s)
{
    for (struct link *k = s->closed.first, *next; k; k = next) {
        struct conn *c = CONTAINER_OF(k, struct conn, turn_link);

        next = k->next;
        if (c->cancel_due)
            conn_cancel(c);
        if (c->ops || c->resv.gone_sent)
            continue;
        list_remove(&s->closed, k);
        conn_free(c);
    }
}

void conn_farewell(struct conn *c, uint32_t code, const char *why)
{
    uint8_t frame[YAMUX_HEADER];

    if (!conn_alive(c))
        return;
    if (c->state != CONN_MUX) {
        conn_close(c, why);
        return;
    }
    c->why = why;
    yamux_put_go_away(frame, code);
    conn_ctl(c, bytes_of(frame, sizeof(frame)));
    if (!conn_alive(c)) /* it could not even take that */
        return;
    fwd_run_flush(c->shard);
    conn_seal_ctl(c);
    conn_drop_streams(c);
    if (!conn_alive(c))
        return;
    c->state = CONN_FLUSH;
    wheel_arm(&c->shard->wheel, &c->timer, c->shard->now_ms + CLOSE_LINGER_MS);
    conn_mark_dirty(c);
}

void conn_give_up(struct conn *c, const char *why)
{
    ASSERT(c->state < CONN_MUX);
    if (!c->tx.bytes) {
        conn_close(c, why);
        return;
    }
    conn_log(c, EV_HANDSHAKE_FAILED, LOG_DEBUG, why);
    c->why = why;
    c->state = CONN_FLUSH;
    wheel_arm(&c->shard->wheel, &c->timer, c->shard->now_ms + CLOSE_LINGER_MS);
    conn_mark_dirty(c);
}

/* What keeps a connection that is not in use. A ping alone does not, where the client has nothing
 * else open only when it is of no use (dusk.md §2 "Idle rule"); elsewhere any stream does. */
static bool has_purpose(const struct conn *c)
{
    bool dusk = c->shard->d->cfg->preset == PRESET_DUSK;

    return c->streams.count > (dusk ? c->ping_streams : 0u) || c->resv.held || c->resv.asked ||
           c->dial || dial_names(c->shard->d, &c->peer); /* whoever of the two dialled */
}

/* One timer serves the handshake's deadline, idleness, and the linger of a close. */
void conn_on_timer(struct conn *c)
{
    struct shard *s = c->shard;
    uint64_t idle_at = c->active_ms + s->d->cfg->idle_timeout_ms;

    if (c->state == CONN_FLUSH) {
        conn_close(c, "flushed");
    } else if (c->state < CONN_MUX) {
        STAT_INC(&s->stats, handshake_timeouts);
        conn_close(c, "handshake timeout");
    } else if (c->close_refused) {
        conn_farewell(c, YAMUX_NORMAL, "reservation refused");
    } else if (has_purpose(c)) {
        wheel_arm(&s->wheel, &c->timer, s->now_ms + s->d->cfg->idle_timeout_ms);
    } else if (idle_at <= s->now_ms) {
        STAT_INC(&s->stats, conns_idle_closed);
        conn_farewell(c, YAMUX_NORMAL, "idle");
    } else {
        wheel_arm(&s->wheel, &c->timer, idle_at);
    }
}

void conn_on_resv(struct conn *c)
{
    struct resv *r = &c->resv;
    uint32_t bits = mwork_take(&r->to_shard);
    struct shard *s = c->shard;

    if (bits & RESV_REMOVED) { /* control's last word */
        if (r->held) {
            STAT_DEC(&s->stats, reservations);
            STAT_INC(&s->stats, reserve_closed);
        }
        r->held = r->asked = r->used = r->gone_sent = false;
        return;
    }
    if (bits & RESV_EXPIRED && r->held) {
        r->held = false;
        c->active_ms = s->now_ms;
        STAT_DEC(&s->stats, reservations);
        STAT_INC(&s->stats, reserve_expired);
    }
    if (bits & RESV_ANSWER) {
        bool held = r->status == HOP_OK;

        r->asked = false;
        if (held && !r->held) {
            STAT_INC(&s->stats, reservations);
            STAT_INC(&s->stats, reserve_opened);
        }
        if (held)
            r->held = true; /* a refusal leaves an older reservation as it is */
        if (c->state == CONN_MUX)
            svc_hop_answer(c);
    }
}
