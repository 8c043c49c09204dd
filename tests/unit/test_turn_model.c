/* The TURN machine beside a model that knows no tables: plain arrays, searched from end to end.
 * Seeded clients ask, send, wait and vanish; after each step both must agree, and all counts
 * balance. */
#include "tests/unit/turn_world.h"

enum { CLIENTS = 6, PEERS = 8, NUMBERS = 4, STEPS = 400, SEEDS = 60 };

static const char *const clients[CLIENTS] = { "192.0.2.1:1", "192.0.2.1:2",     "192.0.2.2:1",
                                              "192.0.2.3:1", "[2001:db8::1]:1", "192.0.2.4:1" };
static const char *const peers[PEERS] = { "198.51.100.1:1",  "198.51.100.1:2", "198.51.100.2:1",
                                          "198.51.100.3:9",  "198.51.100.4:1", "127.0.0.1:1",
                                          "[2001:db8::9]:1", "[2001:db8::a]:1" };

struct model_alloc {
    bool live, pending;
    bool bob; /* else alice */
    unsigned tid;
    uint64_t until[TURN_FAMILIES]; /* 0: no such half */
    uint64_t perm[PEERS];          /* by the first peer with that IP */
    struct {
        uint64_t until;
        int peer;
    } chan[NUMBERS];
};

static struct model_alloc model[CLIENTS];
static struct turn_out pending_out[CLIENTS];

static bool peer_is6(int p)
{
    return p >= 6;
}

static int ip_of(int p) /* 0 and 1 share one */
{
    return p == 1 ? 0 : p;
}

static unsigned model_perms(const struct model_alloc *a)
{
    unsigned n = 0;

    for (int p = 0; p < PEERS; p++)
        n += a->perm[p] > w.now.ms;
    return n;
}

static unsigned model_chans(const struct model_alloc *a)
{
    unsigned n = 0;

    for (int c = 0; c < NUMBERS; c++)
        n += a->chan[c].until > w.now.ms;
    return n;
}

static void totals(unsigned *allocs, unsigned *perms, unsigned *chans)
{
    *allocs = *perms = *chans = 0;
    for (int i = 0; i < CLIENTS; i++)
        if (model[i].live) {
            ++*allocs;
            *perms += model_perms(&model[i]);
            *chans += model_chans(&model[i]);
        }
}

/* What a peer is to an allocation: 0, 403 or 443. */
static int model_peer(const struct model_alloc *a, int p)
{
    if (a->until[peer_is6(p)] == 0)
        return 443;
    return p == 5 ? 403 : 0;
}

static struct who who_of(int i, bool as_bob)
{
    return (struct who){ clients[i], as_bob ? "bob" : "alice", as_bob ? "builder" : "wonder" };
}

/* 437 and 441 before anything else; 0 to go on. */
static int model_owner(const struct model_alloc *a, bool as_bob)
{
    if (!a->live || a->pending)
        return 437;
    return a->bob == as_bob ? 0 : 441;
}

static void step_allocate(struct seeded *s, int i, bool as_bob)
{
    struct model_alloc *a = &model[i];
    unsigned tid = 1 + (unsigned)seeded_below(s, 3), allocs, perms, chans;
    bool two = seeded_below(s, 3) == 0;
    struct making *k = allocate(tid);
    struct who who = who_of(i, as_bob);

    if (two)
        stun_put_u8(&k->b, STUN_ADDITIONAL_ADDRESS_FAMILY, 2);
    totals(&allocs, &perms, &chans);
    int got = ask(k, &who);

    if (a->live && (a->tid != tid || a->bob != as_bob)) {
        cr_assert(got == 437);
    } else if (a->live && a->pending) {
        cr_assert(got == -1 && w.out.drop == TURN_DROP_PENDING);
    } else if (a->live) {
        cr_assert(got == 0 && w.out.act == TURN_NOTHING);
    } else if (allocs == w.config.limits.allocs_max) {
        cr_assert(got == 508);
    } else {
        cr_assert(got == -1 && w.out.act == TURN_BIND);
        cr_assert(w.out.wish.family[TURN_V4] && w.out.wish.family[TURN_V6] == two);
        *a = (struct model_alloc){ .live = true, .pending = true, .bob = as_bob, .tid = tid };
        pending_out[i] = w.out;
    }
}

static void step_bound(struct seeded *s, int i)
{
    struct model_alloc *a = &model[i];
    unsigned error = seeded_below(s, 4) == 0 ? 508 : 0;

    if (!a->pending)
        return;
    w.out = pending_out[i];
    bool two = w.out.wish.family[TURN_V6];

    cr_assert(grant_wish(error) == (int)error);
    a->pending = false;
    if (error) {
        cr_assert(w.out.gone);
        a->live = false;
        return;
    }
    a->until[TURN_V4] = w.now.ms + TURN_LIFETIME_MS;
    a->until[TURN_V6] = two ? w.now.ms + TURN_LIFETIME_MS : 0;
}

static void step_refresh(struct seeded *s, int i, bool as_bob)
{
    static const unsigned lifetimes[] = { 0, 1, 600, 900, 5000 };
    struct model_alloc *a = &model[i];
    unsigned asked = lifetimes[seeded_below(s, 5)], family = (unsigned)seeded_below(s, 3);
    unsigned granted = asked == 0 ? 0 : asked < 600 ? 600 : asked > 3600 ? 3600 : asked;
    struct making *k = w_begin(STUN_REFRESH, 9);
    struct who who = who_of(i, as_bob);
    int want = model_owner(a, as_bob);

    stun_put_u32(&k->b, STUN_LIFETIME, asked);
    if (family)
        stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, (uint8_t)family);
    int got = ask(k, &who);

    if (!want && family && a->until[family - 1] == 0)
        want = 443;
    cr_assert(got == want);
    if (want)
        return;
    cr_assert(stun_u32(&w.reply, STUN_LIFETIME) == granted);
    for (unsigned f = 0; f < TURN_FAMILIES; f++)
        if (a->until[f] && (family == 0 || family == f + 1)) {
            a->until[f] = granted ? w.now.ms + granted * UINT64_C(1000) : 0;
            cr_assert(w.out.released[f] == !granted);
        }
    a->live = a->until[0] || a->until[1];
    cr_assert(w.out.gone == !a->live);
}

static void step_permit(struct seeded *s, int i, bool as_bob)
{
    struct model_alloc *a = &model[i];
    struct making *k = w_begin(STUN_CREATE_PERMISSION, 7);
    unsigned n = 1 + (unsigned)seeded_below(s, 3), fresh = 0, allocs, perms, chans;
    struct who who = who_of(i, as_bob);
    int chosen[3], want = model_owner(a, as_bob);

    for (unsigned c = 0; c < n; c++) {
        bool named = false;

        chosen[c] = (int)seeded_below(s, PEERS);
        put_peer(k, peers[chosen[c]]);
        if (!want)
            want = model_peer(a, chosen[c]);
        for (unsigned before = 0; before < c; before++)
            named = named || ip_of(chosen[before]) == ip_of(chosen[c]);
        fresh += !named && a->perm[ip_of(chosen[c])] <= w.now.ms;
    }
    totals(&allocs, &perms, &chans);
    if (!want && (model_perms(a) + fresh > w.config.limits.alloc_perms_max ||
                  perms + fresh > w.config.limits.perms_max))
        want = 508;
    cr_assert(ask(k, &who) == want);
    for (unsigned c = 0; !want && c < n; c++)
        a->perm[ip_of(chosen[c])] = w.now.ms + TURN_PERMISSION_MS;
}

static void step_bind(struct seeded *s, int i, bool as_bob)
{
    struct model_alloc *a = &model[i];
    int p = (int)seeded_below(s, PEERS), number = (int)seeded_below(s, NUMBERS);
    bool mine = a->chan[number].until > w.now.ms && a->chan[number].peer == p, taken = false;
    bool fresh = a->perm[ip_of(p)] <= w.now.ms;
    struct who who = who_of(i, as_bob);
    unsigned allocs, perms, chans;
    int want = model_owner(a, as_bob);

    for (int c = 0; c < NUMBERS; c++)
        if (a->chan[c].until > w.now.ms)
            taken = taken || (c == number) != (a->chan[c].peer == p);
    totals(&allocs, &perms, &chans);
    if (!want)
        want = model_peer(a, p);
    if (!want && taken)
        want = 400;
    if (!want && !mine &&
        (model_chans(a) == w.config.limits.alloc_chans_max || chans == w.config.limits.chans_max))
        want = 508;
    if (!want && fresh &&
        (model_perms(a) == w.config.limits.alloc_perms_max || perms == w.config.limits.perms_max))
        want = 508;
    cr_assert(bind_channel(&who, 0x4000 + (unsigned)number, peers[p]) == want);
    if (want)
        return;
    a->chan[number].until = w.now.ms + TURN_CHANNEL_MS;
    a->chan[number].peer = p;
    a->perm[ip_of(p)] = w.now.ms + TURN_PERMISSION_MS;
}

/* Both directions, by both ways, for one pair. */
static unsigned check_paths(struct seeded *s, int i)
{
    struct model_alloc *a = &model[i];
    int p = (int)seeded_below(s, PEERS), number = (int)seeded_below(s, NUMBERS), channel = 0;
    bool half = a->live && !a->pending && a->until[peer_is6(p)] != 0;
    bool allowed = a->live && a->perm[ip_of(p)] > w.now.ms;
    enum turn_drop sent = send_to(clients[i], peers[p], "data");

    cr_assert(eq(int, sent == TURN_DROP_NONE, half && allowed && p != 5));
    if (!a->live)
        return 0;
    for (int c = 0; c < NUMBERS; c++)
        if (a->chan[c].until > w.now.ms && a->chan[c].peer == p)
            channel = 0x4000 + c;
    struct turn_tuple tuple = tuple_of(clients[i]);
    int came = from_peer(turn_find(&w.t, &tuple), peers[p]);

    cr_assert(came == (allowed ? channel : -1));
    enum turn_drop by_channel = channel_send(clients[i], 0x4000 + (unsigned)number, "data");
    int to = a->chan[number].until > w.now.ms ? a->chan[number].peer : -1;

    if (to < 0) {
        cr_assert(by_channel == TURN_DROP_CHANNEL);
        return came >= 0;
    }
    bool open = a->until[peer_is6(to)] != 0 && a->perm[ip_of(to)] > w.now.ms;

    cr_assert(eq(int, by_channel == TURN_DROP_NONE, open));
    if (open)
        cr_assert(same_addr(&w.out.peer, peers[to]));
    return came >= 0 || open;
}

static void step_time(struct seeded *s)
{
    static const uint64_t leaps[] = { 1,     1,      1000,   1000,   60000,
                                      60000, 299999, 300000, 600000, 1800000 };
    uint64_t due;

    pass_ms(leaps[seeded_below(s, ARRAY_LEN(leaps))]);
    while (turn_expire(&w.t, w.now.ms, &w.out)) {
        bool known = false;

        cr_assert(w.out.act == TURN_RELEASE);
        for (int i = 0; i < CLIENTS; i++) {
            struct turn_tuple tuple = tuple_of(clients[i]);

            if (!same_addr(&w.out.alloc->tuple.client, clients[i]))
                continue;
            known = true;
            cr_assert(model[i].live);
            for (int f = 0; f < TURN_FAMILIES; f++) {
                bool over = model[i].until[f] && model[i].until[f] <= w.now.ms;

                cr_assert(w.out.released[f] == over);
                if (over)
                    model[i].until[f] = 0;
            }
            model[i].live = model[i].until[0] || model[i].until[1];
            cr_assert(w.out.gone == !model[i].live);
            cr_assert(eq(int, turn_find(&w.t, &tuple) == NULL, w.out.gone));
        }
        cr_assert(known);
    }
    due = turn_deadline_ms(&w.t);
    cr_assert(due == UINT64_MAX || due > w.now.ms, "expired, and still due");
}

static void check_balance(void)
{
    unsigned allocs, perms, chans, heap = 0;
    uint64_t due = UINT64_MAX;

    totals(&allocs, &perms, &chans);
    turn_sweep(&w.t, w.now.ms);
    cr_assert(eq(u32, w.t.allocs, allocs));
    cr_assert(eq(u32, w.t.perms, perms));
    cr_assert(eq(u32, w.t.chans, chans));
    cr_assert(eq(sz, w.t.free_allocs.count, w.t.fresh_allocs - allocs));
    cr_assert(eq(sz, w.t.free_perms.count, w.t.fresh_perms - perms));
    cr_assert(eq(sz, w.t.free_chans.count, w.t.fresh_chans - chans));
    cr_assert(eq(sz, w.t.perms_by_expiry.count, perms));
    cr_assert(eq(sz, w.t.chans_by_expiry.count, chans));
    for (int i = 0; i < CLIENTS; i++)
        for (int f = 0; model[i].live && f < TURN_FAMILIES; f++)
            if (model[i].until[f])
                due = min_u64(due, model[i].until[f]);
    for (int i = 0; i < CLIENTS; i++)
        heap += model[i].live && !model[i].pending;
    cr_assert(eq(u32, w.t.heap_count, heap));
    for (uint32_t at = 0; at < w.t.heap_count; at++)
        cr_assert(w.t.heap[at]->heap_at == at);
    cr_assert(le(u64, turn_deadline_ms(&w.t), due));
}

Test(turn_model, the_machine_agrees_with_the_model, .init = world, .timeout = 60)
{
    unsigned relayed = 0, dual = 0;

    w.config.limits.allocs_max = 4; /* fewer than clients, and little room for the rest */
    w.config.limits.perms_max = 9;
    w.config.limits.chans_max = 5;
    w.config.limits.alloc_perms_max = 4;
    w.config.limits.alloc_chans_max = 3;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct seeded s = { seed };

        memset(model, 0, sizeof(model));
        world_begin();
        for (int step = 0; step < STEPS; step++) {
            int i = (int)seeded_below(&s, CLIENTS);
            bool as_bob = seeded_below(&s, 8) == 0;

            switch (seeded_below(&s, 11)) {
            case 0:
            case 1:
                step_allocate(&s, i, as_bob);
                break;
            case 2:
                step_bound(&s, i);
                break;
            case 3:
                step_refresh(&s, i, as_bob);
                break;
            case 4:
            case 5:
                step_permit(&s, i, as_bob);
                break;
            case 6:
            case 7:
                step_bind(&s, i, as_bob);
                break;
            case 8:
            case 9:
                relayed += check_paths(&s, i);
                break;
            default:
                step_time(&s);
                break;
            }
            dual += model[i].live && model[i].until[1] != 0;
            check_balance();
        }
    }
    cr_expect(relayed > 100, "only %u relayed", relayed);
    cr_expect(dual > 100, "only %u dual", dual);
}

/* Forty allocations of mixed lifetimes, some refreshed, some deleted: the next deadline is the
 * earliest. */
Test(turn_model, the_deadline_is_always_the_earliest, .init = world, .timeout = 60)
{
    enum { MANY = 40 };

    w.config.limits.allocs_max = MANY;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct seeded s = { seed };
        uint64_t until[MANY] = { 0 };

        world_begin();
        for (int step = 0; step < 300; step++) {
            unsigned i = (unsigned)seeded_below(&s, MANY);
            unsigned lifetime = 600 + (unsigned)seeded_below(&s, 3000);
            uint64_t earliest = UINT64_MAX;
            char client[32];

            snprintf(client, sizeof(client), "192.0.2.40:%u", i + 1);
            struct who who = { client, "alice", "wonder" };
            struct turn_tuple tuple = tuple_of(client);

            if (until[i] && seeded_below(&s, 3) == 0) {
                turn_delete(&w.t, turn_find(&w.t, &tuple));
                until[i] = 0;
            } else {
                if (until[i] == 0)
                    allocated_by(&who, 1);
                cr_assert(refresh(&who, lifetime) == 0);
                until[i] = w.now.ms + lifetime * UINT64_C(1000);
            }
            for (uint32_t at = 1; at < w.t.heap_count; at++)
                cr_assert(le(u64, w.t.heap[(at - 1) / 2]->half[TURN_V4].expires_ms,
                             w.t.heap[at]->half[TURN_V4].expires_ms));
            for (int k = 0; k < MANY; k++)
                if (until[k])
                    earliest = min_u64(earliest, until[k]);
            cr_assert(eq(u64, turn_deadline_ms(&w.t), earliest), "seed %zu, step %d", (size_t)seed,
                      step);
        }
    }
}
