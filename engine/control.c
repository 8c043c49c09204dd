#include "engine/control.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/clock.h"
#include "engine/dig.h"
#include "engine/mem.h"
#include "engine/reload.h"
#include "engine/rng.h"
#include "engine/shard.h"

enum { TICK_MS = 1000, DRAIN_MIN_MS = 250, STOP_MAX_MS = 4000 };

int control_init(struct control *c, struct daemon *d)
{
    uint8_t key[16];
    int err;

    memset(c, 0, sizeof(*c));
    c->d = d;
    c->now_ms = c->start_ms = clock_mono_ms();
    c->counts_bytes = hop_counts_bytes(d->cfg->hop.reservations_max);
    c->counts = mem_reserve(c->counts_bytes, 1, &err);
    if (!c->counts)
        return err;
    rng_bytes(key, sizeof(key));
    hop_init(&c->hop, &d->cfg->hop, c->counts, key);
    control_ops_init(c);
    for (unsigned i = 0; i < OPS_LISTINGS_MAX; i++) {
        c->listing[i].snap = calloc(1, sizeof(struct snap));
        if (!c->listing[i].snap) {
            control_fini(c);
            return -ENOMEM;
        }
    }
    if (d->dig && !(c->dig = dig_control_new(c, d->dig, &err))) {
        control_fini(c);
        return err;
    }
    return 0;
}

void control_fini(struct control *c)
{
    for (unsigned i = 0; i < OPS_LISTINGS_MAX; i++)
        free(c->listing[i].snap);
    if (c->door)
        opsdoor_free(c->door);
    c->door = NULL;
    dig_control_free(c->dig);
    c->dig = NULL;
    mem_release(c->counts, c->counts_bytes, 1);
    c->counts = NULL;
}

int control_start(struct control *c, struct ring *ring, char *why, size_t cap)
{
    int err = 0;

    c->ring = ring;
    c->tick_at_ms = c->now_ms + TICK_MS;
    c->stats_at_ms = c->d->cfg->stats_interval_s
                         ? c->now_ms + (uint64_t)c->d->cfg->stats_interval_s * 1000
                         : UINT64_MAX;
    if (!c->d->cfg->http_on && !c->d->cfg->admin_path[0])
        return 0; /* nobody asks: c->door stays NULL */
    c->door = opsdoor_new(ring, &c->ops, c->d->cfg, c->log, &err, why, cap);
    return c->door ? 0 : err;
}

struct ring *control_ring(const struct control *c)
{
    return c->ring;
}

void control_post(struct shard *from, struct mwork *w, uint32_t bits)
{
    if (mwork_post(w, &from->d->control->mbox, bits))
        shard_bell_control(from);
}

void control_to_shard(struct control *c, unsigned shard, bool was_empty)
{
    if (was_empty)
        ring_doorbell(c->ring, c->d->shard[shard]->ring, ud_make(OP_BELL, 0, 0));
}

static void order_shards(struct control *c, uint32_t bits)
{
    for (unsigned i = 0; i < c->d->shards_n; i++) {
        struct shard *s = c->d->shard[i];

        control_to_shard(c, i, mwork_post(&s->order, &s->mbox, bits));
    }
}

static uint32_t circuits_now(const struct control *c)
{
    return quota_count(c->d->quota, c->d->key_circuits);
}

void control_drain(struct control *c, uint32_t seconds)
{
    struct event_rec e = {
        .kind = EV_DRAIN_STARTED,
        .level = LOG_INFO,
        .a = seconds,
        .b = circuits_now(c),
        .c = control_allocations(c),
    };

    if (c->draining)
        return;
    c->draining = true;
    c->hop.draining = true;
    c->drain_from_ms = c->now_ms;
    c->drain_end_ms = c->now_ms + (uint64_t)seconds * 1000;
    atomic_store_explicit(&c->d->draining, true, memory_order_relaxed);
    log_event(c->log, &e);
    order_shards(c, ORDER_DRAIN);
}

static void control_stop(struct control *c)
{
    struct event_rec e = { .kind = EV_DRAIN_DONE, .level = LOG_INFO, .b = circuits_now(c) };

    if (c->stopping)
        return;
    control_drain(c, 0);
    c->stopping = true;
    c->stop_end_ms = c->now_ms + STOP_MAX_MS;
    log_event(c->log, &e);
    order_shards(c, ORDER_STOP);
}

/* The first SIGTERM drains, the second stops now. */
static void control_signals(struct control *c)
{
    unsigned terms = atomic_load_explicit(&c->terms, memory_order_relaxed);
    unsigned hangs = atomic_load_explicit(&c->hangs, memory_order_relaxed);
    char why[256];

    if (terms != c->terms_seen) {
        if (c->terms_seen || terms > 1)
            control_stop(c);
        else
            control_drain(c, c->d->cfg->drain_s);
        c->terms_seen = terms;
    }
    if (hangs != c->hangs_seen) {
        c->hangs_seen = hangs;
        if (c->reload && reload_start(c->reload, why, sizeof(why)))
            log_text(c->log, LOG_WARN, "reload not started: %s", why);
    }
}

static uint32_t control_dig_conns(const struct control *c)
{
    return c->d->dig ? atomic_load_explicit(&c->d->dig->open, memory_order_relaxed) : 0;
}

/* Nobody is in the middle of anything; or the time is over. */
static bool control_drained(const struct control *c)
{
    if (c->now_ms >= c->drain_end_ms)
        return true;
    return circuits_now(c) == 0 && control_allocations(c) == 0 && control_dig_conns(c) == 0 &&
           c->now_ms >= c->drain_from_ms + DRAIN_MIN_MS;
}

static void control_due(struct control *c)
{
    if (c->draining && !c->stopping && control_drained(c))
        control_stop(c);
    if (c->now_ms >= c->tick_at_ms) {
        c->tick_at_ms = c->now_ms + TICK_MS;
        if (c->door)
            opsdoor_tick(c->door, c->now_ms);
    }
    if (c->now_ms >= c->stats_at_ms) {
        struct ops_status st;

        c->stats_at_ms += (uint64_t)c->d->cfg->stats_interval_s * 1000;
        control_status(c, &st);
        log_stats(c->log, &st);
    }
}

static uint64_t control_wait_ns(const struct control *c, bool wait)
{
    uint64_t at = min_u64(min_u64(c->tick_at_ms, c->stats_at_ms), hop_deadline_ms(&c->hop));

    if (!wait || atomic_load_explicit(&c->mbox.head, memory_order_relaxed))
        return 0;
    if (c->dig)
        at = min_u64(at, dig_control_deadline_ms(c->dig));
    if (c->draining && !c->stopping)
        at = min_u64(at, c->now_ms + 50);
    if (c->stopping)
        at = min_u64(at, c->now_ms + 10);
    return at <= c->now_ms ? 0 : (at - c->now_ms) * 1000000;
}

static void control_on_mail(struct control *c, struct mnode *n)
{
    if (n->kind == CONTROL_MAIL_RESV)
        control_on_resv(c, n);
    else if (n->kind == CONTROL_MAIL_DIG)
        dig_control_on_mail(c->dig, n);
    else
        control_on_snap(c, n);
}

int control_turn(struct control *c, bool wait)
{
    struct ring_cqe cqe;
    int err = ring_wait(c->ring, control_wait_ns(c, wait));

    if (err)
        return err;
    c->now_ms = clock_mono_ms();
    c->now_unix_s = clock_unix_s();
    for (unsigned n = 0; n < TURN_CQES_MAX && ring_next(c->ring, &cqe); n++)
        if (ud_op(cqe.ud) >= OPS_OP_FIRST && ud_op(cqe.ud) <= OPS_OP_LAST)
            opsdoor_on_cqe(c->door, &cqe, c->now_ms);
    control_expire(c); /* before anybody asks: hop.h */
    for (struct mnode *n = mbox_take(&c->mbox), *next; n; n = next) {
        next = n->next;
        control_on_mail(c, n);
    }
    if (c->dig)
        dig_control_tick(c->dig);
    control_signals(c);
    if (c->reload)
        reload_apply(c->reload);
    control_due(c);
    if (!c->stopping)
        return 0;
    bool all = atomic_load_explicit(&c->shards_done, memory_order_acquire) == c->d->shards_n;

    return all || c->now_ms >= c->stop_end_ms ? -ECANCELED : 0;
}
