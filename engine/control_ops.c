/* What the HTTP and admin doors may ask: the daemon's numbers, listings by pages, drain, reload. */
#include <errno.h>
#include <stdio.h>

#include "engine/control.h"
#include "engine/dial.h"
#include "engine/dig.h"
#include "engine/keeper.h"
#include "engine/reload.h"
#include "engine/shard.h"
#include "engine/turn_cred.h"

static void sum_stats(struct stats *sum, const struct stats *one)
{
    const _Atomic uint64_t *from = (const void *)one;
    _Atomic uint64_t *to = (void *)sum;

    for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
        atomic_store_explicit(&to[i],
                              atomic_load_explicit(&to[i], memory_order_relaxed) +
                                  atomic_load_explicit(&from[i], memory_order_relaxed),
                              memory_order_relaxed);
}

static void status_address(struct ops_status *out, struct maddr m)
{
    if (out->addresses_n < ARRAY_LEN(out->addresses) &&
        maddr_text(maddr_bytes(&m), out->addresses[out->addresses_n], sizeof(out->addresses[0])))
        out->addresses_n++;
}

static void status_dig(const struct daemon *d, struct ops_status *out)
{
    if (!d->dig)
        return;
    out->dig_registered = atomic_load_explicit(&d->dig->registered, memory_order_relaxed);
    out->dig_networks = atomic_load_explicit(&d->dig->networks, memory_order_relaxed);
    netaddr_text(&d->dig_bound, out->dig_address);
}

static void status_store(const struct daemon *d, struct ops_store *out)
{
    const struct keeper_seen *seen;

    if (!d->keeper)
        return;
    seen = &d->keeper->seen;
    out->on = true;
    out->refuses = atomic_load_explicit(&seen->refuses, memory_order_relaxed);
    out->regs = atomic_load_explicit(&seen->regs, memory_order_relaxed);
    out->namespaces = atomic_load_explicit(&seen->namespaces, memory_order_relaxed);
    out->profiles = atomic_load_explicit(&seen->profiles, memory_order_relaxed);
    out->used_bytes = atomic_load_explicit(&seen->used_bytes, memory_order_relaxed);
    out->map_bytes = atomic_load_explicit(&seen->map_bytes, memory_order_relaxed);
    out->commits = atomic_load_explicit(&seen->commits, memory_order_relaxed);
    out->commits_failed = atomic_load_explicit(&seen->commits_failed, memory_order_relaxed);
    out->commit_ns = atomic_load_explicit(&seen->commit_ns, memory_order_relaxed);
    out->asks = atomic_load_explicit(&seen->asks, memory_order_relaxed);
    out->refused_room = atomic_load_explicit(&seen->refused_room, memory_order_relaxed);
}

void control_status(void *ctx, struct ops_status *out)
{
    struct control *c = ctx;
    struct daemon *d = c->d;

    memset(out, 0, sizeof(*out));
    out->uptime_ms = c->now_ms - c->start_ms;
    out->relay = d->me.id;
    out->shards = d->shards_n;
    out->draining = c->draining;
    out->ready = !c->draining;
    out->drain_left_ms =
        c->draining && c->drain_end_ms > c->now_ms ? c->drain_end_ms - c->now_ms : 0;
    out->peers_reserved = homes_peers(d->homes);
    out->peers_connected = atomic_load_explicit(&d->peers_connected, memory_order_relaxed);
    if (d->dial) {
        out->peer_relays = d->dial->n;
        out->peer_relays_connected = dial_connected(d->dial);
    }
    status_dig(d, out);
    status_store(d, &out->store);
    out->peers_in_circuits = atomic_load_explicit(&d->peers_in_circuits, memory_order_relaxed);
    out->config = d->cfg;
    for (unsigned i = 0; i < d->shards_n; i++) {
        sum_stats(&out->sum, &d->shard[i]->stats);
        out->chunk_bytes_max += chunk_bytes_max(&d->shard[i]->chunks);
    }
    STAT_SET(&out->sum, reservations, c->hop.by_expiry.count);
    for (unsigned i = 0; i < d->announce_n; i++)
        status_address(out, d->announce_p2p[i]);
    for (unsigned i = 0; i < d->bound_n; i++) {
        struct maddr m;

        maddr_from_tcp(&d->bound[i], &m);
        if (maddr_append_p2p(&m, &d->me.id))
            status_address(out, m);
    }
    out->turn_addresses_n = d->turn_n;
    for (unsigned i = 0; i < d->turn_n; i++)
        netaddr_text(&d->turn_udp[i], out->turn_addresses[i]);
}

uint64_t control_allocations(const struct control *c)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < c->d->shards_n; i++)
        n += STAT_GET(&c->d->shard[i]->stats, turn_allocations);
    return n;
}

static void listing_post(struct control *c, struct listing *l)
{
    struct shard *s = c->d->shard[l->shard];

    l->snap->kind = l->kind;
    l->snap->shard = (uint8_t)l->shard;
    l->snap->node.kind = MAIL_SNAP;
    l->out = true;
    control_to_shard(c, l->shard, mbox_push(&s->mbox, &l->snap->node));
}

static int control_list(void *ctx, enum snap_kind kind, uint32_t owner_id,
                        void (*page)(void *arg, uint32_t owner_id, const struct snap *s), void *arg)
{
    struct control *c = ctx;

    for (unsigned i = 0; i < OPS_LISTINGS_MAX; i++) {
        struct listing *l = &c->listing[i];
        struct snap *snap = l->snap;

        if (l->used)
            continue;
        *l = (struct listing){
            .used = true, .owner_id = owner_id, .kind = kind, .page = page, .arg = arg, .snap = snap
        };
        snap->cursor = 0;
        listing_post(c, l);
        return 0;
    }
    return -EBUSY;
}

static void control_list_cancel(void *ctx, uint32_t owner_id)
{
    struct control *c = ctx;

    for (unsigned i = 0; i < OPS_LISTINGS_MAX; i++) {
        struct listing *l = &c->listing[i];

        if (!l->used || l->owner_id != owner_id)
            continue;
        l->cancelled = true;
        if (!l->out)
            l->used = false;
    }
}

void control_on_snap(struct control *c, struct mnode *n)
{
    struct snap *snap = CONTAINER_OF(n, struct snap, node);
    struct listing *l = NULL;

    for (unsigned i = 0; i < OPS_LISTINGS_MAX; i++)
        if (c->listing[i].snap == snap)
            l = &c->listing[i];
    ASSERT(l && l->used && l->out);
    l->out = false;
    if (l->cancelled) {
        l->used = false;
        return;
    }
    if (snap->end && ++l->shard < c->d->shards_n) {
        snap->end = false;
        snap->cursor = 0;
    }
    l->parked = !snap->end;
    l->page(l->arg, l->owner_id, snap); /* may ask for more at once, or cancel */
    if (!l->out && (snap->end || l->cancelled))
        l->used = false;
}

static void control_list_more(void *ctx, uint32_t owner_id)
{
    struct control *c = ctx;

    for (unsigned i = 0; i < OPS_LISTINGS_MAX; i++) {
        struct listing *l = &c->listing[i];

        if (!l->used || !l->parked || l->cancelled || l->owner_id != owner_id)
            continue;
        l->parked = false;
        listing_post(c, l);
    }
}

static void ops_drain(void *ctx, uint32_t seconds)
{
    control_drain(ctx, seconds);
}

static int ops_reload(void *ctx, char *why, size_t cap)
{
    struct control *c = ctx;

    if (c->reload)
        return reload_start(c->reload, why, cap);
    snprintf(why, cap, "nothing to reload");
    return -ENOTSUP;
}

/* Of the door as configured: RFC 5780's other addresses, which stand behind, are for its tests. */
static int ops_turn_credentials(void *ctx, const char *name, uint32_t ttl_s, struct ops_cred *out,
                                char *why, size_t cap)
{
    struct control *c = ctx;
    struct turn_cred_place at = {
        .host = c->d->turn,
        .udp = c->d->turn_udp,
        .tcp = c->d->turn_tcp,
        .n = (unsigned)min_sz(c->d->turn_n, c->d->cfg->turn_n),
        .unix_s = c->now_unix_s,
    };

    return turn_cred_make(&at, name, ttl_s, out, why, cap);
}

void control_ops_init(struct control *c)
{
    c->ops = (struct ops){
        .ctx = c,
        .status = control_status,
        .list = control_list,
        .list_more = control_list_more,
        .list_cancel = control_list_cancel,
        .drain = ops_drain,
        .reload = ops_reload,
        .turn_credentials = ops_turn_credentials,
        .log = c->d->log,
    };
}
