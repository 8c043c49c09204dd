/* A DIG connection's life: who may come in, its deadlines, its end (dig.md §2, §3.3, §9). */
#include <errno.h>

#include "engine/acl.h"
#include "engine/dig_int.h"
#include "engine/rng.h"

/* ---- reading, and not ------------------------------------------------------------------------
 */

void dig_arm_recv(struct dig_conn *c, bool empty_now)
{
    ASSERT(!c->recv_armed);
    c->recv_armed = true;
    c->ops++;
    ring_recv(c->ds->s->ring, c->fd, ud_make(OP_DIG_RECV, c->head.gen, c->head.idx), empty_now);
}

void dig_pause(struct dig_conn *c)
{
    c->paused = true;
    if (!c->recv_armed || c->cancel_armed)
        return;
    c->cancel_armed = true;
    c->ops++;
    ring_cancel_ud(c->ds->s->ring, ud_make(OP_DIG_RECV, c->head.gen, c->head.idx),
                   ud_make(OP_DIG_CANCEL, c->head.gen, c->head.idx));
}

void dig_resume(struct dig_conn *c)
{
    if (!c->paused || c->state >= DIG_FLUSH || dig_waits(c) || c->late.bytes ||
        dig_owed(c) > DIG_CONTROL_ROOM / 2)
        return;
    c->paused = false;
    if (c->probing) /* it is heard again from now on */
        c->probe_ms = c->ds->s->now_ms;
    if (!c->recv_armed && !c->dry) /* else its end, under way, arms it again */
        dig_arm_recv(c, false);
}

bool dig_spend(uint64_t *tat_ns, uint64_t now_ms, uint64_t n, uint64_t per_s)
{
    const uint64_t second = 1000000000;
    uint64_t now = now_ms * 1000000, tat = *tat_ns > now ? *tat_ns : now;

    if (n > per_s || tat + n * second / per_s > now + second)
        return false;
    *tat_ns = tat + n * second / per_s;
    return true;
}

/* ---- coming in -------------------------------------------------------------------------------
 */

static bool from_proxy(const struct config *cfg, const struct netaddr *a)
{
    for (unsigned i = 0; i < cfg->proxy_from_n; i++) /* ::/0 trusts nobody of IPv4 (dig.md §13) */
        if (cidr_is4(&cfg->proxy_from[i]) == netaddr_is4(a) &&
            cidr_match(&cfg->proxy_from[i], a->ip))
            return true;
    return false;
}

static struct dig_conn *conn_new(struct dig_shard *ds, int fd)
{
    struct shard *s = ds->s;
    struct dig_conn *c;

    if (!quota_take(s->d->quota, ds->host->key_conns, ds->host->cfg->dig_conns_max))
        return NULL;
    c = slab_new(&ds->slab);
    if (!c) {
        quota_drop(s->d->quota, ds->host->key_conns);
        return NULL;
    }
    c->ds = ds;
    c->fd = fd;
    c->timer.kind = TIMER_DIG;
    c->born_ms = c->any_ms = c->data_ms = s->now_ms;
    atomic_fetch_add_explicit(&ds->host->open, 1, memory_order_relaxed);
    return c;
}

/* By where the client is (dig.md §2.4 to 2.6), before any handshake is paid for (D4). Nothing is
 * said to who is refused. */
bool dig_admit(struct dig_conn *c)
{
    struct shard *s = c->ds->s;
    struct dig_host *h = c->ds->host;
    struct dig_source source = dig_source_key(c->observed.ip);

    c->key_ip = quota_key(h->quota, QUOTA_DIG_IP, bytes_of(source.b, sizeof(source.b)));
    if (!acl_allows(daemon_acl(s->d), ACL_CONN, NULL, c->observed.ip) ||
        dig_banned(h->bans, c->key_ip, s->now_ms)) {
        STAT_INC(&s->stats, conns_denied);
        return false;
    }
    if (!quota_take(h->quota, c->key_ip, h->cfg->dig_conns_per_ip_max)) {
        STAT_INC(&s->stats, conns_refused_ip);
        dig_blame(c);
        return false;
    }
    c->counted_ip = true;
    return true;
}

void dig_blame(struct dig_conn *c)
{
    if (!c->trusted) /* a balancer that names nobody stands for many */
        dig_strike(c->ds->host->bans, c->key_ip, c->ds->s->now_ms);
}

static void dig_begin(struct dig_conn *c)
{
    struct dig_host *h = c->ds->host;

    if (from_proxy(h->cfg, &c->remote)) {
        c->state = DIG_PROXY;
        c->trusted = true;
    } else if (!dig_admit(c)) {
        dig_close(c, NULL);
        return;
    } else {
        dig_greet(c);
    }
    if (c->state == DIG_CLOSED)
        return;
    dig_deadlines(c);
    dig_arm_recv(c, true);
}

void dig_accept(struct dig_shard *ds, int fd)
{
    struct shard *s = ds->s;
    struct dig_conn *c = ds->draining ? NULL : conn_new(ds, fd);

    if (!c) {
        STAT_INC(&s->stats, conns_refused_total);
        ring_close(s->ring, fd);
        return;
    }
    STAT_INC(&s->stats, dig_accepted);
    if (ring_peername(fd, &c->remote) || ring_tune_tcp(fd)) {
        dig_close(c, NULL);
        return;
    }
    c->observed = c->remote;
    dig_begin(c);
}

/* ---- deadlines -------------------------------------------------------------------------------
 */

/* It is looked at no later than then. */
static void due_at(struct dig_conn *c, uint64_t at_ms)
{
    if (!timer_armed(&c->timer) || at_ms < c->timer.at_ms)
        wheel_arm(&c->ds->s->wheel, &c->timer, at_ms);
}

/* The first sweep that finds more than so many whole seconds without a message (dig.md §9). */
static uint64_t silent_ms(const struct dig_conn *c)
{
    const struct dig_host *h = c->ds->host;
    uint64_t at = c->data_ms + h->cfg->dig_liveness_ms + 1000 - h->start_ms;
    uint64_t every = h->cfg->dig_sweep_interval_ms;

    return h->start_ms + (at + every - 1) / every * every;
}

static uint64_t early_ms(const struct dig_conn *c)
{
    if (c->state == DIG_PROXY)
        return c->born_ms + DIG_PROXY_MS;
    return c->born_ms + c->ds->host->cfg->dig_register_timeout_ms;
}

/* Of who has ended: a sip now and then is progress, but not for ever. */
static uint64_t over_ms(const struct dig_conn *c)
{
    return min_u64(c->send_ms + DIG_LINGER_MS, c->end_ms + DIG_FLUSH_MS);
}

/* Whichever comes first. Before it is registered nothing that it sends moves the deadline (D5). */
void dig_deadlines(struct dig_conn *c)
{
    const struct config *cfg = c->ds->host->cfg;
    uint64_t at;

    switch (c->state) {
    case DIG_FLUSH:
    case DIG_LINGER:
        at = over_ms(c);
        break;
    case DIG_CLOSED:
        return;
    default:
        if (!c->registered) {
            at = early_ms(c);
            break;
        }
        at = min_u64(c->any_ms + cfg->dig_idle_timeout_ms, silent_ms(c));
        if (c->probing)
            at = min_u64(at, c->probe_ms + DIG_PROBE_MS);
    }
    if (c->drain_due && dig_alive(c)) /* once it is over it would be due at every tick */
        at = min_u64(at, c->drain_ms);
    due_at(c, at);
}

void dig_on_due(struct dig_conn *c)
{
    const struct config *cfg = c->ds->host->cfg;
    struct stats *stats = &c->ds->s->stats;
    uint64_t now_ms = c->ds->s->now_ms;

    if (c->state == DIG_FLUSH || c->state == DIG_LINGER) {
        if (now_ms >= over_ms(c))
            dig_close(c, NULL);
    } else if (c->drain_due && now_ms >= c->drain_ms) {
        dig_end(c, WS_CODE_AWAY, "drain");
    } else if (!c->registered) {
        if (now_ms >= early_ms(c)) {
            STAT_INC(stats, dig_timeouts);
            dig_end(c, WS_CODE_NONE, "not registered in time");
        }
    } else if (now_ms >= c->any_ms + cfg->dig_idle_timeout_ms) {
        STAT_INC(stats, dig_timeouts);
        dig_end(c, WS_CODE_NONE, "idle");
    } else if (now_ms >= silent_ms(c)) {
        STAT_INC(stats, dig_swept);
        dig_end(c, WS_CODE_NONE, "silent");
    } else if (c->probing && now_ms >= c->probe_ms + DIG_PROBE_MS) {
        if (dig_waits(c) || c->late.bytes) {
            c->probe_ms = now_ms; /* its answer may lie unread: that is our doing */
        } else {
            STAT_INC(stats, dig_swept);
            dig_end(c, WS_CODE_NONE, "dead, and its id is wanted");
        }
    }
    dig_deadlines(c);
}

/* ---- the end ---------------------------------------------------------------------------------
 */

static void leave_lists(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;

    if (c->dirty)
        list_remove(&ds->dirty, &c->turn_link);
    if (c->dry)
        list_remove(&ds->dry, &c->dry_link);
    if (c->is_late || c->is_shaking)
        list_remove(c->is_late ? &ds->late : &ds->shaking, &c->late_link);
    c->dirty = c->dry = c->is_late = c->is_shaking = false;
    dig_unhold(c);
}

static void quit_network(struct dig_conn *c)
{
    if (c->in_net)
        list_remove(&c->ds->net[c->net_index], &c->net_link);
    c->in_net = false;
}

/* What it was to say is over: nothing that it sent is read any more, control hears that it left,
 * what is queued still goes out. */
static void hush(struct dig_conn *c, const char *why)
{
    dig_part_drop(c);
    dig_unhold(c);
    chunkq_clear(&c->late, &c->ds->s->chunks);
    if (c->is_late || c->is_shaking)
        list_remove(c->is_late ? &c->ds->late : &c->ds->shaking, &c->late_link);
    c->is_late = c->is_shaking = false;
    quit_network(c);
    if (c->registered)
        dig_leave(c, why);
}

void dig_end(struct dig_conn *c, uint16_t code, const char *why)
{
    uint8_t frame[WS_HEAD_MAX + WS_CONTROL_MAX];
    uint8_t body[2] = { (uint8_t)(code >> 8), (uint8_t)code };
    size_t n = code == WS_CODE_NONE ? 0 : 2;

    if (!dig_alive(c))
        return;
    if (c->state != DIG_WS) {
        dig_close(c, why);
        return;
    }
    size_t head = ws_head_encode(frame, WS_OP_CLOSE, n);

    memcpy(frame + head, body, n);
    struct bytes all = bytes_of(frame, head + n);

    if (!dig_send(c, &all, 1))
        return;
    dig_finish_after(c, why);
}

/* All that is queued goes out, then our half of the connection ends, then it lingers. */
void dig_finish_after(struct dig_conn *c, const char *why)
{
    if (!dig_alive(c))
        return;
    hush(c, why);
    c->state = DIG_FLUSH;
    c->end_ms = c->send_ms = c->ds->s->now_ms;
    dig_deadlines(c);
    if (!dig_unsent(c))
        dig_finish(c);
}

void dig_finish(struct dig_conn *c)
{
    ASSERT(c->state == DIG_FLUSH);
    if (c->tls && !c->goodbye) {
        c->goodbye = true;
        tls_close_notify(c->tls); /* one more record, then this comes again */
        if (dig_unsent(c))
            return;
    }
    c->state = DIG_LINGER;
    c->send_ms = c->ds->s->now_ms;
    (void)ring_shutdown(c->fd, SHUT_WR);
    c->paused = false;
    if (!c->recv_armed && !c->dry) /* what it still sends is thrown away */
        dig_arm_recv(c, false);
    dig_deadlines(c);
}

void dig_close(struct dig_conn *c, const char *why)
{
    struct dig_shard *ds = c->ds;

    if (c->state == DIG_CLOSED)
        return;
    if (dig_alive(c))
        hush(c, why);
    c->state = DIG_CLOSED;
    STAT_INC(&ds->s->stats, dig_closed);
    if (c->counted_ip)
        quota_drop(ds->host->quota, c->key_ip);
    c->counted_ip = false;
    leave_lists(c);
    wheel_cancel(&ds->s->wheel, &c->timer);
    /* close(2) would end neither an armed receive nor the connection (io_uring.md §6); a shutdown
     * completes both directions, and where it fails, a cancellation at the end of the pass. */
    if (c->ops && ring_shutdown(c->fd, SHUT_RDWR) < 0)
        c->cancel_due = true;
    list_append(&ds->ended, &c->end_link);
}

static void conn_free(struct dig_conn *c)
{
    struct dig_shard *ds = c->ds;

    dig_tx_drop(c);
    tls_free(c->tls);
    shared_drop(c->ask.reply);
    ring_close(ds->s->ring, c->fd);
    quota_drop(ds->host->quota, ds->host->key_conns);
    atomic_fetch_sub_explicit(&ds->host->open, 1, memory_order_relaxed);
    slab_free(&ds->slab, c);
}

void dig_reap(struct dig_shard *ds)
{
    for (struct link *k = ds->ended.first, *next; k; k = next) {
        struct dig_conn *c = CONTAINER_OF(k, struct dig_conn, end_link);

        next = k->next;
        if (c->cancel_due && c->ops) { /* counts too: later, it might hit the next with its fd */
            c->cancel_due = false;
            c->ops++;
            ring_cancel_fd(ds->s->ring, c->fd, ud_make(OP_DIG_CANCEL, c->head.gen, c->head.idx));
        }
        if (c->ops || c->asking || c->registered) /* control still knows its slot */
            continue;
        list_remove(&ds->ended, k);
        conn_free(c);
    }
}
