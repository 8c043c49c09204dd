/* TURN clients on TCP: their table, their deadlines, how they end, and one pass over them. */
#include "engine/turn_stream.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/mem.h"
#include "engine/rng.h"
#include "engine/turn_stream_int.h"

static int streams_memory(struct turn_streams *t, uint32_t max)
{
    int err;

    t->buckets = 1024;
    while (t->buckets < max)
        t->buckets *= 2;
    if ((err = slab_init(&t->slab, "turn streams", sizeof(struct turn_stream), max)))
        return err;
    t->bucket = mem_reserve(t->buckets, sizeof(*t->bucket), &err);
    if (!err)
        t->big = mem_reserve(TURN_BIGS, FRAME_MAX, &err);
    if (!err)
        t->sends = mem_reserve(SENDS_PER_TURN, sizeof(*t->sends), &err);
    return err;
}

int turn_streams_init(struct turn_shard *ts)
{
    struct turn_streams *t = calloc(1, sizeof(*t));
    int err;

    if (!t)
        return -ENOMEM;
    ts->streams = t;
    if ((err = streams_memory(t, ts->s->d->cfg->conns_max))) {
        turn_streams_fini(ts);
        return err;
    }
    t->work_left = TURN_STREAM_WORK;
    rng_bytes(t->key, sizeof(t->key)); /* ports are the clients' to choose */
    for (uint32_t i = 0; i < TURN_BIGS; i++)
        t->big_free[t->big_n++] = TURN_BIGS - 1 - i;
    return 0;
}

void turn_streams_fini(struct turn_shard *ts)
{
    struct turn_streams *t = ts->streams;

    if (!t)
        return;
    mem_release(t->sends, SENDS_PER_TURN, sizeof(*t->sends));
    mem_release(t->big, TURN_BIGS, FRAME_MAX);
    mem_release(t->bucket, t->buckets, sizeof(*t->bucket));
    slab_fini(&t->slab);
    free(t);
    ts->streams = NULL;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static struct turn_stream **bucket_of(struct turn_streams *t, const struct turn_tuple *tuple)
{
    uint8_t text[2 * (16 + 2) + 1];
    struct wcur w = wcur_of(text, sizeof(text));

    wcur_put(&w, bytes_of(tuple->client.ip, 16));
    wcur_u16(&w, tuple->client.port);
    wcur_put(&w, bytes_of(tuple->server.ip, 16));
    wcur_u16(&w, tuple->server.port);
    wcur_u8(&w, (uint8_t)tuple->transport);
    return &t->bucket[crypto_siphash(t->key, bytes_of(text, w.wrote)) & (t->buckets - 1)];
}

struct turn_stream *turn_stream_find(struct turn_shard *ts, const struct turn_tuple *tuple)
{
    if (tuple->transport != TURN_TCP && tuple->transport != TURN_TLS)
        return NULL;
    for (struct turn_stream *st = *bucket_of(ts->streams, tuple); st; st = st->next_in_bucket)
        if (turn_same_tuple(&st->tuple, tuple))
            return st;
    return NULL;
}

bool turn_stream_alive(struct turn_shard *ts, const struct turn_tuple *tuple)
{
    return turn_stream_find(ts, tuple) != NULL;
}

void turn_stream_enter(struct turn_stream *st)
{
    struct turn_streams *t = st->ts->streams;
    struct turn_stream **head, *old = turn_stream_find(st->ts, &st->tuple);

    if (old) /* the kernel gave its 5-tuple to a new connection: it is over, heard of or not */
        turn_stream_close(old);
    turn_streams_tell_gone(st->ts); /* or the new one's allocation would go for it */
    head = bucket_of(t, &st->tuple);
    st->next_in_bucket = *head;
    *head = st;
    st->hashed = true;
}

void turn_stream_unhash(struct turn_stream *st)
{
    struct turn_stream **head = bucket_of(st->ts->streams, &st->tuple);

    ASSERT(st->hashed);
    st->hashed = false;
    while (*head != st) {
        ASSERT(*head);
        head = &(*head)->next_in_bucket;
    }
    *head = st->next_in_bucket;
}

struct turn_stream *turn_stream_new(struct turn_shard *ts, int fd)
{
    struct shard *s = ts->s;
    struct turn_stream *st;

    if (!quota_take(s->d->quota, s->d->key_conns, s->d->cfg->conns_max))
        return NULL;
    st = slab_new(&ts->streams->slab);
    if (!st) {
        quota_drop(s->d->quota, s->d->key_conns);
        return NULL;
    }
    st->ts = ts;
    st->fd = fd;
    st->timer.kind = TIMER_TURN_STREAM;
    st->client_ms = s->now_ms;
    STAT_INC(&s->stats, turn_streams);
    return st;
}

/* ---- reading, and not ------------------------------------------------------------------------
 */

void turn_stream_arm_recv(struct turn_stream *st, bool empty_now)
{
    ASSERT(!st->recv_armed);
    st->recv_armed = true;
    st->ops++;
    ring_recv(st->ts->s->ring, st->fd, ud_make(OP_TURN_RECV, st->head.gen, st->head.idx),
              empty_now);
}

void turn_stream_pause(struct turn_stream *st)
{
    st->paused = true;
    if (!st->recv_armed || st->cancel_armed)
        return;
    st->cancel_armed = true;
    st->ops++;
    ring_cancel_ud(st->ts->s->ring, ud_make(OP_TURN_RECV, st->head.gen, st->head.idx),
                   ud_make(OP_TURN_CANCEL, st->head.gen, st->head.idx));
}

void turn_stream_resume(struct turn_stream *st)
{
    if (!st->paused || st->state > STREAM_OPEN || st->late.bytes ||
        st->tx.bytes > TURN_STREAM_HIGH / 2)
        return;
    st->paused = false;
    if (!st->recv_armed && !st->dry) /* else its end, under way, arms it again */
        turn_stream_arm_recv(st, false);
}

/* Of its receive, or of all that it has; each counts as one. */
static void on_cancel(struct turn_stream *st)
{
    ASSERT(st->ops);
    st->cancel_armed = false;
    st->ops--;
    turn_stream_leave_try(st);
}

/* ---- deadlines -------------------------------------------------------------------------------
 */

void turn_stream_at(struct turn_stream *st, uint64_t at_ms)
{
    if (!timer_armed(&st->timer) || at_ms < st->timer.at_ms)
        wheel_arm(&st->ts->s->wheel, &st->timer, at_ms);
}

static void stream_on_due(struct turn_stream *st)
{
    struct turn_shard *ts = st->ts;
    uint64_t now_ms = ts->s->now_ms;

    if (st->state == STREAM_LEAVE || (st->part.p && now_ms >= st->part.since_ms + TURN_PART_MS)) {
        STAT_INC(&ts->s->stats, turn_stream_timeouts);
        turn_stream_close(st);
        return;
    }
    if (turn_find(&ts->machine, &st->tuple)) {
        st->client_ms = now_ms;
    } else if (now_ms >= st->client_ms + TURN_STREAM_IDLE_MS) {
        STAT_INC(&ts->s->stats, turn_stream_timeouts);
        turn_stream_close(st);
        return;
    }
    turn_stream_at(st, st->client_ms + TURN_STREAM_IDLE_MS);
    if (st->part.p)
        turn_stream_at(st, st->part.since_ms + TURN_PART_MS);
}

void turn_stream_on_timer(struct turn_shard *ts, struct timer *t)
{
    struct turn_streams *streams = ts->streams;

    for (unsigned i = 0; i < streams->listeners_n; i++) {
        if (t == &streams->listener[i].timer) {
            listener_retry(ts->s, &streams->listener[i]);
            return;
        }
    }
    if (turn_raw_on_timer(ts, t))
        return;
    stream_on_due(CONTAINER_OF(t, struct turn_stream, timer));
}

/* ---- the end ---------------------------------------------------------------------------------
 */

void turn_stream_uncount(struct turn_stream *st)
{
    struct quota *q = st->ts->s->d->quota;

    if (st->counted_ip)
        quota_drop(q, st->key_ip);
    st->counted_ip = false;
}

static void leave_lists(struct turn_stream *st)
{
    struct turn_streams *t = st->ts->streams;

    if (st->dirty)
        list_remove(&t->dirty, &st->turn_link);
    if (st->dry)
        list_remove(&t->dry, &st->dry_link);
    if (st->is_late)
        list_remove(&t->late, &st->late_link);
    if (st->slow)
        list_remove(&t->slow, &st->slow_link);
    st->dirty = st->dry = st->is_late = st->slow = false;
}

/* Out of sight at once; what is allocated to its client goes with the next look (tell_gone), for
 * the caller may be at work with just that. */
void turn_stream_close(struct turn_stream *st)
{
    struct turn_shard *ts = st->ts;
    struct turn_raw *raw = st->raw;

    if (st->state == STREAM_CLOSED)
        return;
    if (st->hashed) {
        turn_stream_unhash(st);
        list_append(&ts->streams->gone, &st->gone_link);
    }
    st->state = STREAM_CLOSED;
    st->raw = NULL;
    if (st->fd >= 0) /* else it lives on elsewhere */
        STAT_INC(&ts->s->stats, turn_streams_closed);
    turn_stream_uncount(st);
    leave_lists(st);
    wheel_cancel(&ts->s->wheel, &st->timer);
    turn_stream_part_drop(st);
    chunkq_clear(&st->late, &ts->s->chunks);
    if (!st->send_armed)
        turn_stream_drop_tx(st);
    /* close(2) would end neither an armed receive nor the connection (io_uring.md §6); a shutdown
     * completes both directions, and where it fails, a cancellation at the end of the pass. */
    if (st->ops && ring_shutdown(st->fd, SHUT_RDWR) < 0)
        st->cancel_due = true;
    list_append(&ts->streams->ended, &st->end_link);
    if (raw)
        turn_raw_lost(raw);
}

void turn_streams_tell_gone(struct turn_shard *ts)
{
    struct link *k;

    while ((k = list_pop(&ts->streams->gone))) { /* each may close more */
        struct turn_stream *st = CONTAINER_OF(k, struct turn_stream, gone_link);

        turn_on_gone(ts, &st->tuple);
    }
}

static void stream_end(struct turn_stream *st)
{
    struct shard *s = st->ts->s;

    turn_stream_drop_tx(st);
    if (st->fd >= 0) {
        ring_close(s->ring, st->fd);
        quota_drop(s->d->quota, s->d->key_conns);
    }
    STAT_DEC(&s->stats, turn_streams);
    slab_free(&st->ts->streams->slab, st);
}

static void reap(struct turn_shard *ts)
{
    struct turn_streams *t = ts->streams;

    for (struct link *k = t->ended.first, *next; k; k = next) {
        struct turn_stream *st = CONTAINER_OF(k, struct turn_stream, end_link);

        next = k->next;
        if (st->cancel_due && st->ops) { /* counts too: later, it might hit the next with its fd */
            st->cancel_due = false;
            st->ops++;
            ring_cancel_fd(ts->s->ring, st->fd,
                           ud_make(OP_TURN_CANCEL, st->head.gen, st->head.idx));
        }
        if (st->ops)
            continue;
        list_remove(&t->ended, k);
        stream_end(st);
    }
}

/* ---- the shard's side ------------------------------------------------------------------------
 */

void turn_stream_on_cqe(struct turn_shard *ts, const struct ring_cqe *cqe)
{
    struct turn_stream *st;

    if (ud_op(cqe->ud) == OP_TURN_ACCEPT) {
        turn_stream_on_accept(ts, cqe);
        return;
    }
    st = slab_find24(&ts->streams->slab, ud_idx(cqe->ud), ud_gen(cqe->ud));
    ASSERT(st != NULL && "a completion of a stream that is gone");
    if (ud_op(cqe->ud) == OP_TURN_RECV)
        turn_stream_on_recv(st, cqe);
    else if (ud_op(cqe->ud) == OP_TURN_SEND)
        turn_stream_on_send(st, cqe->res);
    else
        on_cancel(st);
}

static void dry_resume(struct turn_shard *ts)
{
    struct turn_streams *t = ts->streams;

    if (!t->dry.count || ring_bufs_free(ts->s->ring) < DRY_RESUME_FREE)
        return;
    while (t->dry.count) {
        struct turn_stream *st = CONTAINER_OF(list_pop(&t->dry), struct turn_stream, dry_link);

        st->dry = false;
        if (st->state <= STREAM_OPEN && !st->paused)
            turn_stream_arm_recv(st, false);
    }
}

void turn_streams_pass(struct turn_shard *ts)
{
    struct turn_streams *t = ts->streams;

    t->sends_n = 0; /* their msghdrs were read at submission */
    turn_stream_late_pass(ts);
    while (t->slow.count)
        turn_stream_close(CONTAINER_OF(t->slow.first, struct turn_stream, slow_link));
    turn_streams_tell_gone(ts);
    turn_stream_flush_all(ts);
    if (shard_pool_high(ts->s))
        turn_stream_relieve(ts);
    turn_streams_tell_gone(ts);
    reap(ts);
    dry_resume(ts);
}

void turn_streams_stop(struct turn_shard *ts)
{
    uint32_t cursor = 0;
    struct turn_stream *st;

    ts->streams->stopping = true;
    turn_stream_listeners_close(ts);
    while ((st = slab_walk(&ts->streams->slab, &cursor)))
        turn_stream_close(st);
}

bool turn_streams_ended(const struct turn_shard *ts)
{
    for (unsigned i = 0; i < ts->streams->listeners_n; i++)
        if (ts->streams->listener[i].fd >= 0)
            return false;
    return ts->streams->slab.live == 0;
}

bool turn_streams_busy(const struct turn_shard *ts)
{
    const struct turn_streams *t = ts->streams;

    return t->late.count || t->dirty.count || t->slow.count;
}
