/* TURN's TCP door: who may connect, and descriptors that run out. */
#include <errno.h>

#include "engine/acl.h"
#include "engine/turn_stream_int.h"

static void listener_arm(struct turn_shard *ts, struct turn_stream_listener *l)
{
    ring_accept(ts->s->ring, l->fd,
                ud_make(OP_TURN_ACCEPT, 0, (uint32_t)(l - ts->streams->listener)));
    l->armed = true;
}

void turn_stream_listen(struct turn_shard *ts, int fd, const struct netaddr *bound)
{
    struct turn_streams *t = ts->streams;
    struct turn_stream_listener *l = &t->listener[t->listeners_n];

    (void)bound; /* each connection tells its own: the listener may be a wildcard */
    ASSERT(t->listeners_n < TURN_DOORS_MAX);
    t->listeners_n++;
    l->fd = fd;
    l->timer.kind = TIMER_TURN_STREAM;
    listener_arm(ts, l);
}

/* Nothing may be in flight on a descriptor that is closed: the multishot ends first. */
static void listener_close(struct turn_shard *ts, struct turn_stream_listener *l)
{
    if (!l->closing && l->armed)
        ring_cancel_fd(ts->s->ring, l->fd, ud_make(OP_BELL, 0, 0));
    l->closing = true;
    wheel_cancel(&ts->s->wheel, &l->timer);
    if (l->armed || l->fd < 0)
        return;
    ring_close(ts->s->ring, l->fd);
    l->fd = -1;
}

void turn_stream_listeners_close(struct turn_shard *ts)
{
    for (unsigned i = 0; i < ts->streams->listeners_n; i++)
        listener_close(ts, &ts->streams->listener[i]);
}

void turn_stream_listener_retry(struct turn_shard *ts, struct turn_stream_listener *l)
{
    if (!l->armed)
        listener_arm(ts, l);
}

/* By where it comes from; what is taken is remembered, so that one release is certain. */
bool turn_stream_admit(struct turn_stream *st)
{
    struct shard *s = st->ts->s;
    struct quota *q = s->d->quota;
    struct netaddr one = conn_prefix(&st->tuple.client, false);

    if (!acl_allows(daemon_acl(s->d), ACL_CONN, NULL, st->tuple.client.ip)) {
        STAT_INC(&s->stats, conns_denied);
        return false;
    }
    /* The same count as libp2p's connections: it is one table of descriptors. */
    st->key_ip = quota_key(q, QUOTA_CONN_IP, bytes_of(one.ip, 16));
    if (!quota_take(q, st->key_ip, s->d->cfg->conns_per_ip_max)) {
        STAT_INC(&s->stats, conns_refused_ip);
        return false;
    }
    st->counted_ip = true;
    return true;
}

static void stream_accept(struct turn_shard *ts, int fd)
{
    struct shard *s = ts->s;
    struct turn_stream *st = turn_stream_new(ts, fd);

    if (!st) {
        STAT_INC(&s->stats, conns_refused_total);
        ring_close(s->ring, fd);
        return;
    }
    STAT_INC(&s->stats, turn_streams_accepted);
    st->tuple.transport = TURN_TCP;
    if (ring_peername(fd, &st->tuple.client) || ring_sockname(fd, &st->tuple.server) ||
        ring_tune_tcp(fd) || !turn_stream_admit(st)) {
        turn_stream_close(st);
        return;
    }
    turn_stream_enter(st);
    turn_stream_at(st, s->now_ms + TURN_STREAM_IDLE_MS);
    turn_stream_arm_recv(st, true);
}

/* Once a minute at most: it is tried ten times a second. */
static void accept_say(struct shard *s, struct turn_stream_listener *l, int err)
{
    if (l->said_ms && s->now_ms < l->said_ms + ACCEPT_SAY_MS)
        return;
    l->said_ms = s->now_ms;
    log_text(s->log, LOG_WARN, "shard %u cannot accept TURN connections, and goes on trying: %s%s",
             s->id, strerror(err),
             err == EMFILE ? ": raise LimitNOFILE (systemd) or ulimit -n" : "");
}

void turn_stream_on_accept(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    struct turn_stream_listener *l = &ts->streams->listener[ud_idx(cqe->ud)];
    struct shard *s = ts->s;

    ASSERT(ud_idx(cqe->ud) < ts->streams->listeners_n);
    if (!cqe->more)
        l->armed = false;
    if (l->closing) {
        if (cqe->res >= 0)
            ring_close(s->ring, cqe->res);
        if (!l->armed)
            listener_close(ts, l);
        return;
    }
    if (cqe->res >= 0) {
        stream_accept(ts, cqe->res);
    } else if (cqe->res != -ECANCELED) {
        STAT_INC(&s->stats, accept_errors);
        accept_say(s, l, -cqe->res);
    }
    if (l->armed)
        return;
    if (cqe->res >= 0) /* the multishot merely ended */
        listener_arm(ts, l);
    else /* EMFILE and its kin would come straight back */
        wheel_arm(&s->wheel, &l->timer, s->now_ms + ACCEPT_RETRY_MS);
}
