/* Start, stop, and what every loop turn of the shard does for TURN. */
#include "engine/turn_shard.h"

#include <errno.h>

#include "engine/mem.h"
#include "engine/rng.h"
#include "engine/shard.h"
#include "engine/turn_login.h"
#include "engine/turn_stream.h"

static int turn_memory(struct turn_shard *ts)
{
    const struct turn_limits *l = &ts->host->machine.limits;
    uint32_t socks = l->allocs_max * TURN_FAMILIES + TURN_RESERVED_MAX + TURN_DOORS_MAX;
    int err = 0;

    ts->memory_bytes = turn_memory_bytes(l);
    if ((err = slab_init(&ts->socks, "turn sockets", sizeof(struct turn_sock), socks)) ||
        (err =
             slab_init(&ts->clients, "turn clients", sizeof(struct turn_client), l->allocs_max)) ||
        (err = trains_init(&ts->trains, &ts->s->stats)) || (err = turn_away_init(ts)))
        return err;
    ts->memory = mem_reserve(ts->memory_bytes, 1, &err);
    ts->slots = mem_reserve(TURN_SLOTS, TURN_SLOT_BYTES, &err);
    return ts->memory && ts->slots ? 0 : -ENOMEM;
}

int turn_shard_init(struct turn_shard *ts, struct shard *s, struct turn_host *host)
{
    struct turn_config config = host->machine;
    uint8_t key[16];
    int err;

    memset(ts, 0, sizeof(*ts));
    ts->s = s;
    ts->host = host;
    ts->timer.kind = TIMER_TURN;
    config.place.shard = (uint16_t)s->id;
    if ((err = turn_memory(ts)) || (err = turn_streams_init(ts)) || (err = turn_raws_init(ts))) {
        turn_shard_fini(ts);
        return err;
    }
    rng_bytes(key, sizeof(key));
    turn_init(&ts->machine, &config, ts->memory, key);
    return 0;
}

void turn_shard_fini(struct turn_shard *ts)
{
    turn_raws_fini(ts);
    turn_streams_fini(ts);
    slab_fini(&ts->socks);
    slab_fini(&ts->clients);
    trains_fini(&ts->trains);
    turn_away_fini(ts);
    mem_release(ts->memory, ts->memory_bytes, 1);
    mem_release(ts->slots, TURN_SLOTS, TURN_SLOT_BYTES);
    ts->memory = NULL;
    ts->slots = NULL;
}

void turn_shard_start(struct turn_shard *ts, const int *udp, const int *tcp, unsigned n)
{
    ASSERT(n <= TURN_DOORS_MAX);
    for (unsigned i = 0; i < n; i++) {
        struct netaddr at;

        ASSERT(ring_sockname(udp[i], &at) == 0);
        struct turn_sock *k = turn_sock_new(ts, udp[i], &at);

        ASSERT(k);
        k->wildcard = netaddr_is_any(&at);
        ts->door[ts->doors_n++] = k;
        if (tcp[i] >= 0)
            turn_stream_listen(ts, tcp[i], &at);
    }
    ts->on = true;
}

/* ---- every turn -------------------------------------------------------------------------------
 */

void turn_begin(struct turn_shard *ts)
{
    const struct turn_login *l = atomic_load_explicit(&ts->host->login, memory_order_acquire);

    if (!l) /* that of the start */
        return;
    ts->machine.config.secrets.secret = l->secret;
    ts->machine.config.secrets.count = l->secrets_n;
    ts->machine.config.realm.anonymity = l->anonymity;
}

static void arm_timer(struct turn_shard *ts)
{
    uint64_t at = min_u64(turn_deadline_ms(&ts->machine), turn_reserved_next_ms(ts));

    if (at == ts->armed_ms && (at == UINT64_MAX || timer_armed(&ts->timer)))
        return;
    ts->armed_ms = at;
    if (at == UINT64_MAX)
        wheel_cancel(&ts->s->wheel, &ts->timer);
    else
        wheel_arm(&ts->s->wheel, &ts->timer, at);
}

void turn_pass(struct turn_shard *ts)
{
    struct stats *st = &ts->s->stats;

    ts->slots_used = 0;
    ts->work_left = TURN_PASS_WORK;
    for (size_t n = ts->ready.count; n && ts->ready.count && ts->work_left > 0; n--) {
        struct turn_sock *k = CONTAINER_OF(list_pop(&ts->ready), struct turn_sock, ready);

        k->is_ready = false;
        turn_udp_read(k);
    }
    turn_raws_pass(ts);
    turn_streams_pass(ts);
    trains_flush(&ts->trains);
    arm_timer(ts);
    STAT_SET(st, turn_allocations, ts->machine.allocs);
    STAT_SET(st, turn_permissions, ts->machine.perms);
    STAT_SET(st, turn_channels, ts->machine.chans);
    STAT_SET(st, turn_tcp_conns, ts->machine.conns);
}

bool turn_busy(const struct turn_shard *ts)
{
    return ts->ready.count || turn_streams_busy(ts) || turn_raws_busy(ts);
}

void turn_on_timer(struct turn_shard *ts)
{
    turn_act_due(ts);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

void turn_drain(struct turn_shard *ts)
{
    if (ts->draining)
        return;
    ts->draining = true;
    /* With other servers to name, who comes is told of one instead of being refused. */
    ts->machine.draining = ts->s->d->cfg->turn_redirect_n == 0;
}

void turn_stop(struct turn_shard *ts)
{
    uint32_t cursor = 0;
    struct turn_client *c;

    if (ts->stopping)
        return;
    turn_drain(ts);
    ts->stopping = true;
    while ((c = slab_walk(&ts->clients, &cursor))) {
        struct turn_alloc *a = c->alloc;

        turn_client_end(ts, c, "the relay stops");
        turn_delete(&ts->machine, a);
    }
    turn_act_due(ts);
    turn_reserved_expire(ts, UINT64_MAX);
    turn_streams_stop(ts);
    for (unsigned i = 0; i < ts->doors_n; i++)
        turn_sock_close(ts->door[i]);
    ts->doors_n = 0;
}

bool turn_ended(const struct turn_shard *ts)
{
    return ts->stopping && !ts->socks.live && !ts->clients.live && turn_streams_ended(ts) &&
           turn_raws_ended(ts);
}

void turn_assert_empty(const struct turn_shard *ts)
{
    ASSERT(ts->socks.live == 0);
    ASSERT(ts->clients.live == 0);
    ASSERT(ts->machine.allocs == 0 && ts->machine.perms == 0 && ts->machine.chans == 0);
    ASSERT(ts->machine.conns == 0);
    ASSERT(ts->reserved_n == 0);
    ASSERT(ts->ready.count == 0);
    ASSERT(ts->trains.trains_n == 0 && ts->trains.pieces_n == 0);
    ASSERT(turn_streams_ended(ts) && turn_raws_ended(ts));
}
