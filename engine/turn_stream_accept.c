/* TURN's TCP door: who may connect. */
#include "engine/acl.h"
#include "engine/turn_stream_int.h"

void turn_stream_listen(struct turn_shard *ts, int fd, const struct netaddr *bound)
{
    struct turn_streams *t = ts->streams;
    unsigned i = t->listeners_n++;

    (void)bound; /* each connection tells its own: the listener may be a wildcard */
    ASSERT(i < TURN_DOORS_MAX);
    listener_start(ts->s, &t->listener[i], fd, ud_make(OP_TURN_ACCEPT, 0, i), TIMER_TURN_STREAM,
                   "TURN connections");
}

void turn_stream_listeners_close(struct turn_shard *ts)
{
    for (unsigned i = 0; i < ts->streams->listeners_n; i++)
        listener_close(ts->s, &ts->streams->listener[i]);
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

void turn_stream_on_accept(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    ASSERT(ud_idx(cqe->ud) < ts->streams->listeners_n);
    int fd = listener_on_cqe(ts->s, &ts->streams->listener[ud_idx(cqe->ud)], cqe);

    if (fd >= 0)
        stream_accept(ts, fd);
}
