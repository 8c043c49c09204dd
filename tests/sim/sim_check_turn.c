/* tests/sim/sim_check_turn.c: what must hold of the TURN server between any two turns, counted from
 * outside: allocations, what they are charged for, their ports and sockets, their permissions and
 * channels; and that nothing waits for somebody who does not come. */
#include "engine/turn_shard.h"
#include "tests/sim/sim_turn.h"

enum { DUE_MS = 500, KEYS_MAX = 256 };

/* Of all shards. */
struct turn_census {
    struct sim *s;
    uint32_t clients, socks, ports[TURN_FAMILIES];
    uint64_t key[KEYS_MAX];
    uint32_t count[KEYS_MAX], keys_n;
};

static void charged(struct turn_census *x, uint64_t key)
{
    uint32_t i = 0;

    if (key == 0)
        return;
    while (i < x->keys_n && x->key[i] != key)
        i++;
    ASSERT(i < KEYS_MAX);
    if (i == x->keys_n) {
        x->key[x->keys_n++] = key;
        x->count[i] = 0;
    }
    x->count[i]++;
}

static bool is_reserved(const struct turn_shard *ts, const struct turn_sock *k)
{
    for (unsigned i = 0; i < TURN_RESERVED_MAX; i++)
        if (ts->reserved[i].used && ts->reserved[i].sock == k)
            return true;
    return false;
}

static bool is_door(const struct turn_shard *ts, const struct turn_sock *k)
{
    for (unsigned i = 0; i < ts->doors_n; i++)
        if (ts->door[i] == k)
            return true;
    return false;
}

static void check_socks(struct turn_census *x, const struct turn_shard *ts)
{
    const struct turn_sock *k;
    uint32_t at = 0, ready = 0, idle = 0;

    while ((k = slab_walk(&ts->socks, &at)) != NULL) {
        x->socks++;
        ready += k->is_ready;
        if (k->port != 0)
            x->ports[k->family]++;
        if (k->closing)
            continue;
        idle += !k->polled;
        if (k->client != NULL ? k->client->sock[k->family] != k
                              : is_reserved(ts, k) == is_door(ts, k))
            sim_break(x->s, "a socket at port %u that is nobody's", k->local.port);
    }
    if (ready != ts->ready.count || idle != 0)
        sim_break(x->s, "shard %u: %u sockets to read, %zu in the list; %u nobody asks for",
                  ts->s->id, ready, ts->ready.count, idle);
}

static void check_client(struct turn_census *x, const struct turn_shard *ts,
                         const struct turn_client *c)
{
    const struct turn_alloc *a = c->alloc;

    x->clients++;
    charged(x, c->charge.user);
    charged(x, c->charge.ip);
    if (a->user != c || a->pending)
        sim_break(x->s, "an allocation %s",
                  a->pending ? "still waits for its sockets" : "of somebody else");
    for (int f = 0; f < TURN_FAMILIES; f++) {
        const struct turn_sock *k = c->sock[f];

        x->ports[f] += c->port[f] != 0;
        if (a->half[f].live != (k != NULL || c->listen_fd[f] >= 0))
            sim_break(x->s, "half an allocation, %s its socket", k ? "over, with" : "without");
        if (k != NULL && (k->closing || k->client != c || k->ts != ts))
            sim_break(x->s, "an allocation with a socket that is not its own");
    }
}

static void check_machine(struct turn_census *x, const struct turn_shard *ts)
{
    const struct turn *t = &ts->machine;
    const struct turn_client *c;
    uint32_t at = 0, perms = 0, chans = 0, reserved = 0;
    uint64_t deadline = turn_deadline_ms(t);

    while ((c = slab_walk(&ts->clients, &at)) != NULL) {
        check_client(x, ts, c);
        perms += (uint32_t)c->alloc->perms.count;
        chans += (uint32_t)c->alloc->chans.count;
        if (c->alloc->perms.count > t->config.limits.alloc_perms_max ||
            c->alloc->chans.count > t->config.limits.alloc_chans_max)
            sim_break(x->s, "an allocation with %zu permissions and %zu channels",
                      c->alloc->perms.count, c->alloc->chans.count);
    }
    for (unsigned i = 0; i < TURN_RESERVED_MAX; i++)
        reserved += ts->reserved[i].used;
    if (ts->clients.live != t->allocs || perms != t->perms || chans != t->chans ||
        reserved != ts->reserved_n)
        sim_break(x->s,
                  "shard %u: %u allocations of %u, %u permissions of %u, %u channels of %u, %u "
                  "reserved of %u",
                  ts->s->id, t->allocs, ts->clients.live, t->perms, perms, t->chans, chans,
                  ts->reserved_n, reserved);
    if (deadline != UINT64_MAX && !timer_armed(&ts->timer) && !ts->s->stopping)
        sim_break(x->s, "shard %u has a deadline and no timer", ts->s->id);
    if (sim_now(x->s) > DUE_MS && deadline < sim_now(x->s) - DUE_MS && !ts->s->stopping)
        sim_break(x->s, "shard %u: something is due for %llu ms", ts->s->id,
                  (unsigned long long)(sim_now(x->s) - deadline));
    if (ts->trains.trains_n != 0 || ts->trains.pieces_n != 0)
        sim_break(x->s, "shard %u ends a turn with a train in its hands", ts->s->id);
}

static void check_sums(struct turn_census *x, const struct turn_host *h)
{
    int fd = sim_udp_unread(x->s->net);

    for (int f = 0; f < TURN_FAMILIES; f++)
        if (h->ports[f] != NULL && turn_ports_used(h->ports[f]) != x->ports[f])
            sim_break(x->s, "%u ports of family %d are taken, %u have a socket",
                      turn_ports_used(h->ports[f]), f, x->ports[f]);
    if (quota_count(h->quota, h->key_total) != x->clients)
        sim_break(x->s, "%u allocations are charged, there are %u",
                  quota_count(h->quota, h->key_total), x->clients);
    for (uint32_t i = 0; i < x->keys_n; i++)
        if (quota_count(h->quota, x->key[i]) != x->count[i])
            sim_break(x->s, "a user or an address is charged for %u allocations and has %u",
                      quota_count(h->quota, x->key[i]), x->count[i]);
    if (x->clients > x->s->cfg.turn_max_allocations)
        sim_break(x->s, "%u allocations", x->clients);
    if (sim_udp_fds(x->s->net) != x->socks)
        sim_break(x->s, "%u datagram sockets are open, %u are known", sim_udp_fds(x->s->net),
                  x->socks);
    if (fd >= 0)
        sim_break(x->s, "descriptor %d has datagrams that nobody reads", fd);
}

void sim_check_turn(struct sim *s)
{
    static struct turn_census x;

    x = (struct turn_census){ .s = s };
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        check_socks(&x, s->shard[i].turn);
        check_machine(&x, s->shard[i].turn);
    }
    check_sums(&x, s->d.turn);
    s->turn_keys = x.keys_n + (x.clients > 0);
}

void sim_check_turn_ended(struct sim *s)
{
    sim_check_turn(s);
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        if (s->shard[i].turn->clients.live != 0 || s->shard[i].turn->socks.live != 0)
            sim_break(s, "shard %u ended with %u allocations and %u sockets", i,
                      s->shard[i].turn->clients.live, s->shard[i].turn->socks.live);
    for (int f = 0; f < TURN_FAMILIES; f++)
        if (s->d.turn->ports[f] != NULL && turn_ports_used(s->d.turn->ports[f]) != 0)
            sim_break(s, "%u ports are left", turn_ports_used(s->d.turn->ports[f]));
}
