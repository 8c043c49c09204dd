#include "engine/shard.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/clock.h"
#include "engine/control.h"
#include "engine/dial.h"
#include "engine/dig.h"
#include "engine/keeper.h"
#include "engine/mem.h"
#include "engine/rng.h"
#include "engine/rpc.h"
#include "engine/svc_federation.h"
#include "engine/svc_gossip.h"
#include "engine/turn_shard.h"
#include "engine/turn_stream.h"
#include "engine/usage.h"

static int shard_memory(struct shard *s)
{
    const struct config *cfg = s->d->cfg;
    uint32_t conns = cfg->conns_max;
    uint32_t streams = cfg->conns_max * 4 < 65536 ? 65536 : cfg->conns_max * 4;
    uint32_t buckets = 1024;
    size_t pool = cfg->buffer_bytes_max / s->d->shards_n;
    int err;

    while (buckets < streams / 2)
        buckets *= 2;
    if ((err = slab_init(&s->conns, "connections", sizeof(struct conn), conns)) ||
        (err = slab_init(&s->streams, "streams", sizeof(struct stream), streams)) ||
        (err = slab_init(&s->circuits, "circuits", sizeof(struct circuit), cfg->circuits_max)) ||
        (err = slab_init(&s->sayings, "sayings", sizeof(struct saying), SAYINGS_MAX)) ||
        (err = slab_init(&s->rpcs, "requests", sizeof(struct rpc), RPC_MAX)) ||
        (err = slab_init(&s->handshakes, "handshakes", sizeof(struct handshake), conns)) ||
        (err = chunk_pool_init(&s->chunks, (uint32_t)(pool / 4 / CHUNK_SMALL_BYTES),
                               (uint32_t)(pool / 4 * 3 / CHUNK_LARGE_BYTES))))
        return err;
    s->table.bucket = mem_reserve(buckets, sizeof(*s->table.bucket), &err);
    s->table.mask = buckets - 1;
    rng_bytes(s->table.key, sizeof(s->table.key)); /* stream ids are the peer's to choose */
    s->scratch = mem_reserve(SCRATCH_BYTES, 1, &err);
    s->join = mem_reserve(JOIN_BYTES, 1, &err);
    s->stream_join = mem_reserve(STREAM_JOIN_BYTES, 1, &err);
    s->sends = mem_reserve(SENDS_PER_TURN, sizeof(*s->sends), &err);
    s->aead = aead_new();
    return s->table.bucket && s->scratch && s->join && s->stream_join && s->sends && s->aead
               ? 0
               : -ENOMEM;
}

int shard_init(struct shard *s, struct daemon *d, unsigned id)
{
    memset(s, 0, sizeof(*s));
    s->d = d;
    s->id = id;
    s->order.node.kind = MAIL_ORDER;
    s->now_ms = clock_mono_ms();
    s->now_unix_s = clock_unix_s();
    wheel_init(&s->wheel, s->now_ms);
    int err = shard_memory(s);

    if (!err && d->gossip)
        err = gossip_shard_new(s);
    if (err)
        shard_fini(s);
    return err;
}

void shard_fini(struct shard *s)
{
    const uint32_t buckets = s->table.mask + 1;

    gossip_shard_free(s);
    slab_fini(&s->conns);
    slab_fini(&s->streams);
    slab_fini(&s->circuits);
    slab_fini(&s->handshakes);
    slab_fini(&s->sayings);
    slab_fini(&s->rpcs);
    usage_free(s->usage);
    chunk_pool_fini(&s->chunks);
    mem_release(s->table.bucket, buckets, sizeof(*s->table.bucket));
    mem_release(s->scratch, SCRATCH_BYTES, 1);
    mem_release(s->join, JOIN_BYTES, 1);
    mem_release(s->stream_join, STREAM_JOIN_BYTES, 1);
    mem_release(s->sends, SENDS_PER_TURN, sizeof(*s->sends));
    if (s->aead)
        aead_free(s->aead);
    s->table.bucket = NULL;
    s->scratch = s->join = s->stream_join = NULL;
    s->sends = NULL;
    s->aead = NULL;
}

void shard_start(struct shard *s, struct ring *ring, const int *fds, unsigned n)
{
    ASSERT(n <= LISTENERS_MAX);
    if (s->ring != ring) /* where others ring it already, it was told before they began */
        s->ring = ring;
    s->listeners_n = n;
    for (unsigned i = 0; i < n; i++)
        listener_start(s, &s->listener[i], fds[i], ud_make(OP_ACCEPT, 0, i), TIMER_ACCEPT,
                       "connections");
    dial_start(s);
}

static void shard_on_accept(struct shard *s, const struct ring_cqe *cqe)
{
    int fd = listener_on_cqe(s, &s->listener[ud_idx(cqe->ud)], cqe);

    if (fd >= 0)
        conn_accept(s, fd);
}

static void shard_on_cqe(struct shard *s, const struct ring_cqe *cqe)
{
    struct conn *c;

    switch (ud_op(cqe->ud)) {
    case OP_ACCEPT:
        shard_on_accept(s, cqe);
        return;
    case OP_RECV:
    case OP_SEND:
    case OP_CANCEL:
        c = slab_find24(&s->conns, ud_idx(cqe->ud), ud_gen(cqe->ud));
        if (!c) { /* a slot is freed only when nothing is in flight */
            STAT_INC(&s->stats, stale_cqes);
            ASSERT(c != NULL && "a completion of a connection that is gone");
            return;
        }
        if (ud_op(cqe->ud) == OP_RECV)
            conn_on_recv(c, cqe);
        else if (ud_op(cqe->ud) == OP_SEND)
            conn_on_send(c, cqe->res);
        else
            conn_on_cancel(c);
        return;
    case OP_TURN_POLL:
        turn_on_poll(s->turn, cqe);
        return;
    case OP_TURN_ACCEPT:
    case OP_TURN_RECV:
    case OP_TURN_SEND:
    case OP_TURN_CANCEL:
        turn_stream_on_cqe(s->turn, cqe);
        return;
    case OP_TURN_RAW:
        turn_raw_on_cqe(s->turn, cqe);
        return;
    case OP_DIG_ACCEPT:
    case OP_DIG_RECV:
    case OP_DIG_SEND:
    case OP_DIG_CANCEL:
        dig_on_cqe(s->dig, cqe);
        return;
    case OP_DIAL:
        dial_on_cqe(s, cqe);
        return;
    default: /* a bell: the mail is read every turn anyway */
        return;
    }
}

static void shard_on_timer(struct shard *s, struct timer *t)
{
    switch (t->kind) {
    case TIMER_CONN:
        conn_on_timer(CONTAINER_OF(t, struct conn, timer));
        break;
    case TIMER_STREAM:
        stream_on_timer(CONTAINER_OF(t, struct stream, timer));
        break;
    case TIMER_CIRCUIT:
        circuit_on_timer(CONTAINER_OF(t, struct circuit, timer));
        break;
    case TIMER_ACCEPT:
        listener_retry(s, CONTAINER_OF(t, struct listener, timer));
        break;
    case TIMER_TURN:
        turn_on_timer(s->turn);
        break;
    case TIMER_TURN_STREAM:
        turn_stream_on_timer(s->turn, t);
        break;
    case TIMER_DIG:
    case TIMER_DIG_ACCEPT:
    case TIMER_DIG_HELD:
        dig_on_timer(s->dig, t);
        break;
    case TIMER_GOSSIP:
        gossip_on_timer(s);
        break;
    case TIMER_DIAL:
        dial_on_timer(CONTAINER_OF(t, struct dial, timer));
        break;
    case TIMER_USAGE:
        usage_on_timer(s->usage);
        break;
    default:
        ASSERT(false); /* a timer of no kind */
    }
}

/* Every connection hears of the drain once; the listeners close, so that a successor can bind. */
static void shard_drain(struct shard *s)
{
    uint32_t cursor = 0;
    struct conn *c;

    if (s->draining)
        return;
    s->draining = true;
    dial_drain(s);
    if (s->turn)
        turn_drain(s->turn);
    if (s->dig)
        dig_drain(s->dig);
    for (unsigned i = 0; i < s->listeners_n; i++)
        listener_close(s, &s->listener[i]);
    while ((c = slab_walk(&s->conns, &cursor)))
        if (c->state == CONN_MUX)
            svc_push_start(c);
}

static void shard_stop(struct shard *s)
{
    uint32_t cursor = 0;
    struct conn *c;

    shard_drain(s);
    s->stopping = true;
    if (s->turn)
        turn_stop(s->turn);
    if (s->dig)
        dig_stop(s->dig);
    while ((c = slab_walk(&s->conns, &cursor)))
        if (conn_alive(c))
            conn_farewell(c, YAMUX_NORMAL, "shutdown");
}

static void shard_on_order(struct shard *s)
{
    uint32_t bits = mwork_take(&s->order);

    if (bits & ORDER_DRAIN)
        shard_drain(s);
    if (bits & ORDER_STOP)
        shard_stop(s);
}

void shard_on_mail(struct shard *s, struct mnode *n)
{
    struct circuit *c;

    switch (n->kind) {
    case MAIL_RESV:
        conn_on_resv(CONTAINER_OF(n, struct conn, resv.to_shard.node));
        break;
    case MAIL_LEG0:
        c = CONTAINER_OF(n, struct circuit, leg[0].work.node);
        circuit_on_work(c, 0, mwork_take(&c->leg[0].work));
        break;
    case MAIL_LEG1:
        c = CONTAINER_OF(n, struct circuit, leg[1].work.node);
        circuit_on_work(c, 1, mwork_take(&c->leg[1].work));
        break;
    case MAIL_SNAP:
        shard_snapshot(s, CONTAINER_OF(n, struct snap, node));
        break;
    case MAIL_ORDER:
        shard_on_order(s);
        break;
    case MAIL_TURN:
        turn_on_mail(s->turn, n);
        break;
    case MAIL_DIG_ANSWER:
    case MAIL_DIG_LETTER:
    case MAIL_DIG_NEWS:
        dig_on_mail(s->dig, n);
        break;
    case MAIL_GOSSIP:
        gossip_on_letter(s, n);
        break;
    case MAIL_DIAL:
        dial_on_mail(n);
        break;
    case MAIL_RPC:
        rpc_on_mail(s, n);
        break;
    case MAIL_GIF:
        svc_gif_on_mail(s, n);
        break;
    case MAIL_FOREIGN:
        federation_on_mail(s, n);
        break;
    case MAIL_USAGE:
        usage_on_mail(s->usage, n);
        break;
    default:
        ASSERT(false); /* mail of no kind */
    }
}

void shard_bell(struct shard *from, struct shard *to)
{
    if (from != to)
        from->bells |= 1ull << to->id;
    /* our own box is read again before this turn ends */
}

void shard_bell_control(struct shard *from)
{
    from->bell_control = true;
}

static void shard_ring_bells(struct shard *s)
{
    shard_lend_all(s);
    for (; s->bells; s->bells &= s->bells - 1) {
        unsigned id = (unsigned)__builtin_ctzll(s->bells);

        ring_doorbell(s->ring, s->d->shard[id]->ring, ud_make(OP_BELL, 0, 0));
        STAT_INC(&s->stats, doorbells);
    }
    if (s->bell_control) {
        ring_doorbell(s->ring, control_ring(s->d->control), ud_make(OP_BELL, 0, 0));
        STAT_INC(&s->stats, doorbells);
    }
    if (s->bell_keeper) {
        ring_doorbell(s->ring, s->d->keeper->ring, ud_make(OP_BELL, 0, 0));
        STAT_INC(&s->stats, doorbells);
    }
    s->bell_control = s->bell_keeper = false;
}

static void shard_take_mail(struct shard *s)
{
    /* Handling mail may post to our own box (a circuit whose legs are both here), so read until it
     * is empty; each round is bounded by the objects there are, and rounds by TURN_MAIL_MAX. */
    for (unsigned done = 0; done < TURN_MAIL_MAX;) {
        struct mnode *n = s->kept ? s->kept : mbox_take(&s->mbox);

        s->kept = NULL;
        if (!n)
            return;
        while (n) {
            struct mnode *next = n->next;

            shard_on_mail(s, n);
            n = next;
            done++;
        }
    }
    /* what is left is read at the next turn: see shard_wait_ns */
}

static void shard_flush(struct shard *s)
{
    size_t n = s->dirty.count;

    /* One pass over those that are dirty now. Serving one may close another, whose grants it no
     * longer reads: then the list is shorter than it was. */
    while (n-- && s->dirty.count && s->sends_n < SENDS_PER_TURN) {
        struct conn *c = CONTAINER_OF(list_pop(&s->dirty), struct conn, turn_link);

        c->dirty = false;
        conn_flush(c);
        if (c->dirty) { /* by its own records: what is left waits for the send just armed */
            c->dirty = false;
            list_remove(&s->dirty, &c->turn_link);
        }
    }
    if (s->dry.count && ring_bufs_free(s->ring) >= DRY_RESUME_FREE) {
        while (s->dry.count) {
            struct conn *c = CONTAINER_OF(list_pop(&s->dry), struct conn, dry_link);

            c->dry = false;
            if (c->state != CONN_CLOSED)
                conn_arm_recv(c, false);
        }
    }
}

static bool all_empty(const struct shard *s)
{
    return atomic_load_explicit(&s->d->shards_empty, memory_order_acquire) == s->d->shards_n;
}

static uint64_t shard_wait_ns(struct shard *s, bool wait)
{
    if (!wait || (s->turn && turn_busy(s->turn)) || (s->dig && dig_busy(s->dig)) ||
        s->dirty.count || s->shaking.count || s->kept || s->rpc_ready.count || gossip_busy(s) ||
        atomic_load_explicit(&s->mbox.head, memory_order_relaxed) || (s->empty && all_empty(s)))
        return 0;
    uint64_t at = wheel_next_ms(&s->wheel);

    s->slept_until_ms = at;
    if (at == UINT64_MAX)
        return UINT64_MAX;
    return at <= s->now_ms ? 0 : (at - s->now_ms) * 1000000;
}

/* All shards end together: one that has nothing left of its own still answers mail about the far
 * legs of the others' circuits. */
static bool shard_ended(struct shard *s)
{
    /* What the others posted before they were empty may have come since our mail was read. */
    if (s->empty)
        return all_empty(s) && !atomic_load_explicit(&s->mbox.head, memory_order_relaxed);
    for (unsigned i = 0; i < s->listeners_n; i++)
        if (s->listener[i].fd >= 0)
            return false;
    if (!s->stopping || s->conns.live || s->circuits.live || s->rpcs.live || s->foreign_out ||
        (s->turn && !turn_ended(s->turn)) || (s->dig && !dig_ended(s->dig)) || !dial_ended(s) ||
        !usage_ended(s->usage))
        return false;
    s->empty = true;
    atomic_fetch_add_explicit(&s->d->shards_empty, 1, memory_order_acq_rel);
    /* Not by a doorbell: it brings no mail, so one that is about to sleep would miss it. */
    if (all_empty(s))
        for (unsigned i = 0; i < s->d->shards_n; i++)
            ring_wake(s->d->shard[i]->ring);
    return false;
}

static void count_sojourn(struct stats *st, uint64_t ns)
{
    if (ns <= 10000)
        STAT_INC(st, sojourn_10us);
    else if (ns <= 25000)
        STAT_INC(st, sojourn_25us);
    else if (ns <= 50000)
        STAT_INC(st, sojourn_50us);
    else if (ns <= 100000)
        STAT_INC(st, sojourn_100us);
    else if (ns <= 250000)
        STAT_INC(st, sojourn_250us);
    else if (ns <= 1000000)
        STAT_INC(st, sojourn_1ms);
    else
        STAT_INC(st, sojourn_more);
}

int shard_turn(struct shard *s, bool wait)
{
    struct ring_cqe cqe;
    struct timer *t;
    int err = ring_wait(s->ring, shard_wait_ns(s, wait));

    if (err)
        return err;
    s->across_bytes = 0;
    s->sends_n = 0; /* their msghdrs were read at submission */
    s->sent = false;
    uint64_t seen_ns = clock_mono_ns();

    s->now_ms = seen_ns / 1000000;
    s->now_unix_s = clock_unix_s();
    if (s->turn)
        turn_begin(s->turn);
    conn_shake(s);
    for (unsigned n = 0; n < TURN_CQES_MAX && ring_next(s->ring, &cqe); n++)
        shard_on_cqe(s, &cqe);
    fwd_stage_flush(s);
    shard_lend_all(s); /* before our own mail is read: what they answer (credit) goes out too */
    shard_take_mail(s);
    while ((t = wheel_expire(&s->wheel, s->now_ms)))
        shard_on_timer(s, t);
    shard_take_mail(s); /* what timers and our own legs posted */
    rpc_pass(s);
    gossip_pass(s);
    if (s->turn)
        turn_pass(s->turn);
    if (s->dig)
        dig_pass(s->dig);
    shard_flush(s);
    fwd_stage_flush(s);
    if (shard_pool_high(s))
        conn_relieve(s);
    conn_reap(s);
    bool ended = shard_ended(s);

    shard_ring_bells(s);
    chunk_drain(&s->chunks);
    STAT_SET(&s->stats, chunk_bytes, chunk_bytes_used(&s->chunks));
    STAT_SET(&s->stats, conns, s->conns.live);
    STAT_SET(&s->stats, streams, s->streams.live);
    STAT_INC(&s->stats, loop_turns);
    if (s->sends_n || s->sent) /* they are issued by the wait that follows at once */
        count_sojourn(&s->stats, clock_mono_ns() - seen_ns);
    return ended ? -ECANCELED : 0;
}

void shard_assert_empty(const struct shard *s)
{
    ASSERT(s->conns.live == 0);
    ASSERT(s->streams.live == 0);
    ASSERT(s->circuits.live == 0);
    ASSERT(s->handshakes.live == 0);
    ASSERT(s->sayings.live == 0);
    ASSERT(s->rpcs.live == 0);
    ASSERT(s->dirty.count == 0);
    ASSERT(s->dry.count == 0);
    ASSERT(s->staged.count == 0);
    ASSERT(s->shaking.count == 0);
    ASSERT(s->halves.count == 0);
    ASSERT(s->parts.count == 0);
    ASSERT(s->sending.count == 0);
    ASSERT(STAT_GET(&s->stats, tx_queued) == 0);
    ASSERT(!s->run.sink);
    gossip_assert_empty(s);
    if (s->turn)
        turn_assert_empty(s->turn);
    if (s->dig)
        dig_assert_empty(s->dig);
    for (int i = 0; i < CHUNK_SIZES; i++)
        ASSERT(s->half_chunks[i] == 0 && s->chunks.used[i] == 0);
}
