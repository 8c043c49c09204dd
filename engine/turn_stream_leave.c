/* Streams that stop being a client's here: for another shard, which has their allocation, or for a
 * peer, after ConnectionBind. What came behind the last unit goes along, in order; nothing may be
 * in flight on the socket when it goes. */
#include "engine/turn_stream_int.h"

/* false: closed, it is too much. */
bool turn_stream_keep(struct turn_stream *st, struct bytes in)
{
    struct shard *s = st->ts->s;

    if (in.n == 0)
        return true;
    if (st->late.bytes + in.n <= TURN_LATE_MAX && !shard_pool_full(s) &&
        chunkq_append(&st->late, &s->chunks, in))
        return true;
    STAT_INC(&s->stats, turn_stream_hoard);
    turn_stream_close(st);
    return false;
}

static void stream_leave(struct turn_stream *st)
{
    struct turn_streams *t = st->ts->streams;

    ASSERT(st->state == STREAM_OPEN && !st->part.p);
    turn_stream_unhash(st);
    st->state = STREAM_LEAVE;
    if (st->is_late)
        list_remove(&t->late, &st->late_link);
    if (st->dry)
        list_remove(&t->dry, &st->dry_link);
    st->is_late = st->dry = false;
    turn_stream_pause(st);
    wheel_arm(&st->ts->s->wheel, &st->timer, st->ts->s->now_ms + TURN_PART_MS);
}

void turn_stream_join(struct turn_stream *st, struct turn_raw *raw)
{
    stream_leave(st);
    st->raw = raw;
}

void turn_stream_hand_over(struct turn_stream *st, unsigned shard, struct bytes unit)
{
    stream_leave(st);
    st->to = shard;
    (void)turn_stream_keep(st, unit); /* or it is closed */
}

/* Its slot goes at the end of the pass; its socket is not ours any more. */
static void stream_left(struct turn_stream *st)
{
    st->fd = -1;
    st->raw = NULL;
    st->late = (struct chunkq){ 0 };
    turn_stream_close(st);
}

static void leave_for_shard(struct turn_stream *st)
{
    struct turn_shard *ts = st->ts;
    struct shard *s = ts->s;
    struct chunkq late = st->late;
    int fd = st->fd;

    /* The other shard counts it again: a moment of one too few beats a leak of one too many. */
    quota_drop(s->d->quota, s->d->key_conns);
    stream_left(st);
    if (turn_mail_stream(ts, st->to, &st->tuple, fd, &late))
        return;
    STAT_INC(&s->stats, turn_drop_mail);
    chunkq_clear(&late, &s->chunks);
    ring_close(s->ring, fd);
}

void turn_stream_leave_try(struct turn_stream *st)
{
    struct turn_raw *raw = st->raw;

    if (st->state != STREAM_LEAVE || st->ops || st->tx.bytes)
        return;
    if (!raw) {
        leave_for_shard(st);
        return;
    }
    struct chunkq late = st->late;
    int fd = st->fd;
    uint64_t key_ip = st->counted_ip ? st->key_ip : 0;

    st->counted_ip = false; /* the data connection's from now on, as the descriptor is */
    stream_left(st);
    turn_raw_take(raw, fd, &late, key_ip);
}

void turn_stream_adopt(struct turn_shard *ts, int fd, const struct turn_tuple *tuple,
                       struct chunkq *late)
{
    struct shard *s = ts->s;
    struct turn_stream *st = ts->streams->stopping ? NULL : turn_stream_new(ts, fd);

    if (!st) {
        STAT_INC(&s->stats, conns_refused_total);
        chunkq_clear(late, &s->chunks);
        ring_close(s->ring, fd);
        return;
    }
    st->tuple = *tuple;
    st->state = STREAM_OPEN;
    st->late = *late;
    if (!turn_stream_admit(st)) {
        turn_stream_close(st);
        return;
    }
    turn_stream_enter(st);
    turn_stream_at(st, s->now_ms + TURN_STREAM_IDLE_MS);
    st->paused = true; /* until that has been looked at, in this pass still */
    st->is_late = true;
    list_append(&ts->streams->late, &st->late_link);
}
