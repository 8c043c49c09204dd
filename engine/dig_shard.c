/* A shard's part of the DIG door: its memory, what the kernel and other threads bring, a pass. */
#include <errno.h>
#include <stdlib.h>

#include "engine/dig_int.h"
#include "engine/mem.h"
#include "engine/rng.h"

enum {
    TLS_BYTES_PER_CONN = 24576, /* on average; handshakes take more for a moment */
    TLS_BYTES_MIN = 4 << 20,
    JSON_TEXT_MAX_BYTES = 262144, /* longer messages carry payloads, which nobody parses */
};

static int shard_memory(struct dig_shard *ds)
{
    const struct config *cfg = ds->host->cfg;
    uint32_t conns = cfg->dig_conns_max;
    int err;

    ds->nets_max = conns;
    ds->join_bytes = cfg->dig_message_bytes_max > HTTP_HEAD_BYTES_MAX + RECV_BUF_BYTES
                         ? cfg->dig_message_bytes_max
                         : HTTP_HEAD_BYTES_MAX + RECV_BUF_BYTES;
    ds->json_bytes = dig_pool_bytes(min_sz(cfg->dig_message_bytes_max, JSON_TEXT_MAX_BYTES));
    if ((err = slab_init(&ds->slab, "dig connections", sizeof(struct dig_conn), conns)) ||
        (err = slab_init(&ds->outs, "dig queue entries", sizeof(struct dig_out), DIG_OUTS)))
        return err;
    ds->net = mem_reserve(ds->nets_max, sizeof(*ds->net), &err);
    if (!err)
        ds->join = mem_reserve(ds->join_bytes, 1, &err);
    if (!err)
        ds->plain = mem_reserve(DIG_TLS_READ, 1, &err);
    if (!err)
        ds->json = mem_reserve(ds->json_bytes, 1, &err);
    if (!err)
        ds->sends = mem_reserve(SENDS_PER_TURN, sizeof(*ds->sends), &err);
    if (!err && cfg->dig_tls_on)
        ds->tls_pool = tls_pool_new((size_t)conns * TLS_BYTES_PER_CONN + TLS_BYTES_MIN, &err);
    return err;
}

int dig_shard_new(struct shard *s, struct dig_host *h)
{
    struct dig_shard *ds = calloc(1, sizeof(*ds));
    int err;

    if (!ds)
        return -ENOMEM;
    ds->s = s;
    ds->host = h;
    ds->work_left = DIG_WORK;
    ds->shakes_left = DIG_SHAKES;
    ds->held_timer.kind = TIMER_DIG_HELD;
    s->dig = ds;
    err = shard_memory(ds);
    if (err)
        dig_shard_free(s);
    return err;
}

void dig_shard_free(struct shard *s)
{
    struct dig_shard *ds = s->dig;

    if (!ds)
        return;
    tls_pool_free(ds->tls_pool);
    tls_server_drop(ds->tls);
    mem_release(ds->sends, SENDS_PER_TURN, sizeof(*ds->sends));
    mem_release(ds->json, ds->json_bytes, 1);
    mem_release(ds->plain, DIG_TLS_READ, 1);
    mem_release(ds->join, ds->join_bytes, 1);
    mem_release(ds->net, ds->nets_max, sizeof(*ds->net));
    slab_fini(&ds->outs);
    slab_fini(&ds->slab);
    free(ds);
    s->dig = NULL;
}

void dig_shard_start(struct dig_shard *ds, const int *fds, unsigned n)
{
    ASSERT(n <= LISTENERS_MAX);
    ds->listeners_n = n;
    for (unsigned i = 0; i < n; i++)
        listener_start(ds->s, &ds->listener[i], fds[i], ud_make(OP_DIG_ACCEPT, 0, i),
                       TIMER_DIG_ACCEPT, "DIG connections");
}

/* ---- what is brought -------------------------------------------------------------------------
 */

void dig_on_cqe(struct dig_shard *ds, const struct ring_cqe *cqe)
{
    struct dig_conn *c;

    if (ud_op(cqe->ud) == OP_DIG_ACCEPT) {
        ASSERT(ud_idx(cqe->ud) < ds->listeners_n);
        int fd = listener_on_cqe(ds->s, &ds->listener[ud_idx(cqe->ud)], cqe);

        if (fd >= 0)
            dig_accept(ds, fd);
        return;
    }
    c = slab_find24(&ds->slab, ud_idx(cqe->ud), ud_gen(cqe->ud));
    ASSERT(c != NULL && "a completion of a connection that is gone");
    if (ud_op(cqe->ud) == OP_DIG_RECV) {
        dig_on_recv(c, cqe);
    } else if (ud_op(cqe->ud) == OP_DIG_SEND) {
        dig_on_send(c, cqe->res);
    } else {
        ASSERT(c->ops);
        c->cancel_armed = false;
        c->ops--;
    }
}

void dig_on_timer(struct dig_shard *ds, struct timer *t)
{
    if (t->kind == TIMER_DIG)
        dig_on_due(CONTAINER_OF(t, struct dig_conn, timer));
    else if (t->kind == TIMER_DIG_ACCEPT)
        listener_retry(ds->s, CONTAINER_OF(t, struct listener, timer));
    /* TIMER_DIG_HELD only wakes: the pass looks at who waits. */
}

void dig_on_mail(struct dig_shard *ds, struct mnode *n)
{
    if (n->kind == MAIL_DIG_ANSWER)
        dig_on_answer(CONTAINER_OF(n, struct dig_conn, ask.node));
    else if (n->kind == MAIL_DIG_LETTER)
        dig_on_letter(ds, n);
    else
        dig_on_news(ds, n);
}

/* ---- a pass ----------------------------------------------------------------------------------
 */

static void dry_resume(struct dig_shard *ds)
{
    if (!ds->dry.count || ring_bufs_free(ds->s->ring) < DRY_RESUME_FREE)
        return;
    while (ds->dry.count) {
        struct dig_conn *c = CONTAINER_OF(list_pop(&ds->dry), struct dig_conn, dry_link);

        c->dry = false;
        if (c->state != DIG_CLOSED && !c->paused)
            dig_arm_recv(c, false);
    }
}

void dig_pass(struct dig_shard *ds)
{
    ds->sends_n = 0; /* their msghdrs were read at submission */
    if (ds->held.count)
        dig_held_pass(ds);
    dig_shake_pass(ds);
    dig_late_pass(ds);
    dig_flush_all(ds);
    if (shard_pool_high(ds->s) || dig_shared_high(ds))
        dig_relieve(ds);
    dig_reap(ds);
    dry_resume(ds);
    STAT_SET(&ds->s->stats, dig_conns, ds->slab.live);
}

bool dig_busy(const struct dig_shard *ds)
{
    return ds->late.count || ds->dirty.count || ds->shaking.count;
}

/* ---- the end ---------------------------------------------------------------------------------
 */

static void listeners_close(struct dig_shard *ds)
{
    for (unsigned i = 0; i < ds->listeners_n; i++)
        listener_close(ds->s, &ds->listener[i]);
}

/* Nobody new; who is there is told 1001 at a moment of its own within the drain, so that they do
 * not all come to another relay at once (D15). */
void dig_drain(struct dig_shard *ds)
{
    uint32_t cursor = 0;
    uint64_t spread_ms = (uint64_t)ds->host->cfg->drain_s * 1000;
    struct dig_conn *c;

    if (ds->draining)
        return;
    ds->draining = true;
    listeners_close(ds);
    spread_ms -= min_u64(spread_ms, 500); /* the last of them, too, is to hear it */
    while ((c = slab_walk(&ds->slab, &cursor))) {
        uint32_t r;

        if (!dig_alive(c))
            continue;
        rng_bytes(&r, sizeof(r));
        c->drain_due = true;
        c->drain_ms = ds->s->now_ms + r * spread_ms / UINT32_MAX;
        dig_deadlines(c);
    }
}

void dig_stop(struct dig_shard *ds)
{
    uint32_t cursor = 0;
    struct dig_conn *c;

    dig_drain(ds);
    while ((c = slab_walk(&ds->slab, &cursor))) {
        if (dig_alive(c))
            dig_end(c, WS_CODE_AWAY, "shutdown");
        if (c->state == DIG_FLUSH && !dig_unsent(c))
            dig_close(c, NULL);
    }
}

bool dig_ended(const struct dig_shard *ds)
{
    for (unsigned i = 0; i < ds->listeners_n; i++)
        if (ds->listener[i].fd >= 0)
            return false;
    return ds->slab.live == 0;
}

void dig_assert_empty(const struct dig_shard *ds)
{
    ASSERT(ds->slab.live == 0);
    ASSERT(ds->outs.live == 0);
    ASSERT(ds->part_bytes == 0);
    ASSERT(!ds->dirty.count && !ds->dry.count && !ds->late.count && !ds->held.count);
    ASSERT(!ds->sending.count && !ds->parts.count && !ds->ended.count && !ds->shaking.count);
    if (ds->tls_pool)
        ASSERT(tls_pool_used(ds->tls_pool) == 0);
    /* What was let in was given back, once: also what went to a slot that another had by then. */
    for (uint32_t i = 0; i < ds->slab.fresh; i++) {
        const struct dig_gate *g = &ds->host->gate[ds->s->id][i];

        ASSERT(atomic_load_explicit(&g->bytes, memory_order_relaxed) == 0);
        ASSERT(atomic_load_explicit(&g->messages, memory_order_relaxed) == 0);
    }
}
