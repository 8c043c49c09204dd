/* Relayed addresses of TCP allocations listen (RFC 6062 §5.3). */
#include <errno.h>

#include "engine/rng.h"
#include "engine/turn_raw_int.h"

static struct turn_raw_listener **bucket_of(struct turn_raws *t, int fd)
{
    return &t->bucket[(unsigned)fd % TURN_LISTEN_BUCKETS];
}

static void listener_arm(struct turn_shard *ts, struct turn_raw_listener *l)
{
    l->armed = true;
    l->ops++;
    ring_accept(ts->s->ring, l->fd, raw_ud(&l->head, RAW_UD_ACCEPT));
}

static void listener_park(struct turn_shard *ts, struct turn_raw_listener *l)
{
    struct turn_raws *t = ts->raws;

    l->parked = true;
    list_append(&t->parked, &l->parked_link);
    if (!timer_armed(&t->retry))
        wheel_arm(&ts->s->wheel, &t->retry, ts->s->now_ms + ACCEPT_RETRY_MS);
}

void turn_raw_retry(struct turn_shard *ts)
{
    struct link *k;

    while ((k = list_pop(&ts->raws->parked))) {
        struct turn_raw_listener *l = CONTAINER_OF(k, struct turn_raw_listener, parked_link);

        l->parked = false;
        listener_arm(ts, l);
    }
}

void turn_raw_listen(struct turn_shard *ts, struct turn_client *c, enum turn_family f)
{
    struct turn_raws *t = ts->raws;
    struct turn_raw_listener *l = slab_new(&t->listeners), **head;

    ASSERT(c->listen_fd[f] >= 0);
    if (!l) /* the slab holds twice what there can be, so those that end are far behind */
        return;
    l->client = c;
    l->family = f;
    l->fd = c->listen_fd[f];
    head = bucket_of(t, l->fd);
    l->next_in_bucket = *head;
    *head = l;
    c->listen_armed[f] = true;
    listener_arm(ts, l);
}

static void listener_free(struct turn_shard *ts, struct turn_raw_listener *l)
{
    if (l->ops)
        return;
    ring_close(ts->s->ring, l->fd);
    slab_free(&ts->raws->listeners, l);
}

void turn_raw_unlisten(struct turn_shard *ts, struct turn_client *c, enum turn_family f)
{
    int fd = c->listen_fd[f];
    struct turn_raw_listener **head, *l;

    c->listen_fd[f] = -1;
    c->listen_armed[f] = false;
    if (fd < 0)
        return;
    head = bucket_of(ts->raws, fd);
    while (*head && (*head)->fd != fd)
        head = &(*head)->next_in_bucket;
    l = *head;
    if (!l) { /* it never listened */
        ring_close(ts->s->ring, fd);
        return;
    }
    *head = l->next_in_bucket; /* the descriptor is closed last, so nobody else has its number */
    l->closing = true;
    l->client = NULL;
    if (l->parked)
        list_remove(&ts->raws->parked, &l->parked_link);
    if (l->armed) {
        l->ops++;
        ring_cancel_ud(ts->s->ring, raw_ud(&l->head, RAW_UD_ACCEPT),
                       raw_ud(&l->head, RAW_UD_UNACCEPT));
    }
    listener_free(ts, l);
}

/* The peer must have a permission (RFC 6062 §5.3): else it is closed at once. */
static void incoming(struct turn_shard *ts, struct turn_raw_listener *l, int fd)
{
    uint8_t reply[TURN_REPLY_MAX], tid[STUN_TID];
    struct turn_out out = turn_out_of(reply, sizeof(reply));
    struct turn_alloc *a = l->client->alloc;
    struct netaddr from, peer;
    struct turn_raw *raw;

    if (ring_peername(fd, &from) || ring_tune_raw(fd) || !(raw = turn_raw_new(ts, fd))) {
        STAT_INC(&ts->s->stats, turn_tcp_refused);
        ring_close(ts->s->ring, fd);
        return;
    }
    if (memcmp(peer.ip, ts->host->relay_ip[l->family].ip, sizeof(peer.ip)) == 0)
        turn_host_external(ts->host, &peer, &peer); /* a neighbour (turn.md §18) */
    peer = from;
    if (memcmp(from.ip, ts->host->relay_ip[l->family].ip, sizeof(from.ip)) == 0) /* a neighbour */
        turn_host_external(ts->host, &from, &peer);
    rng_bytes(tid, sizeof(tid));
    turn_on_incoming(&ts->machine, ts->s->now_ms, a, &peer, tid, &out);
    if (out.conn) {
        STAT_INC(&ts->s->stats, turn_tcp_incoming);
        turn_raw_wait(raw, out.conn);
    } else {
        STAT_INC(&ts->s->stats, turn_tcp_refused);
        turn_raw_free(raw);
    }
    turn_act(ts, &out, &a->tuple, NULL, bytes_of(NULL, 0));
}

static struct turn_raw_listener *listener_of(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    struct turn_raw_listener *l =
        slab_find24(&ts->raws->listeners, ud_idx(cqe->ud) >> RAW_UD_BITS, ud_gen(cqe->ud));

    ASSERT(l != NULL && "a completion of a listener that is gone");
    return l;
}

void turn_raw_on_accept(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    struct turn_raw_listener *l = listener_of(ts, cqe);

    if (!cqe->more) {
        l->armed = false;
        l->ops--;
    }
    if (l->closing) {
        if (cqe->res >= 0)
            ring_close(ts->s->ring, cqe->res);
        listener_free(ts, l);
        return;
    }
    if (cqe->res < 0) {
        STAT_INC(&ts->s->stats, accept_errors);
        if (!l->armed)
            listener_park(ts, l);
        return;
    }
    if (!l->armed) /* before the peer is handled: that may end its allocation */
        listener_arm(ts, l);
    incoming(ts, l, cqe->res);
}

void turn_raw_on_unaccept(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    struct turn_raw_listener *l = listener_of(ts, cqe);

    l->ops--;
    listener_free(ts, l);
}
