/* The reservation machine beside a model that counts by looking at every slot. */
#include "tests/unit/hop_table.h"

enum { SLOTS = 40, PEERS = 12, IPS = 14, OPS = 600 };

struct bucket {
    uint64_t level, at_ms; /* in ms of refill: a token is refill_ms of them */
};
struct model_slot {
    bool reserved;
    uint32_t who, where;
    uint64_t expires_ms, refreshed; /* refreshed: a serial number */
};
struct model {
    struct model_slot slots[SLOTS];
    struct bucket of_peer[PEERS], of_ip[IPS];
    uint64_t serial;
};

static uint64_t rng_state;
static uint32_t rnd(uint32_t n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 32) % n;
}

/* Fourteen addresses in seven IPv4 addresses of three /24 and five /64 of two /56. */
static struct ip model_ip(uint32_t i)
{
    static const uint64_t nets[] = { 0x20010db800000000, 0x20010db800000000, 0x20010db800000001,
                                     0x20010db8000000ff, 0x20010db800000100, 0x20010db800000101,
                                     0x20010db800000101 };
    static const uint32_t v4[] = { 0x0a000001, 0x0a000002, 0x0a0000ff, 0x0a000101,
                                   0x0a000102, 0x0b000001, 0x0a000001 };
    return i < 7 ? ip4(v4[i]) : ip6(nets[i - 7], i);
}

/* Told apart by text, so that the model shares no arithmetic with the machine. */
static bool same_net(uint32_t a, uint32_t b, bool subnet)
{
    static const char *const ips[IPS] = { "a", "b", "c", "d", "e", "f", "a",
                                          "g", "g", "h", "i", "j", "k", "k" };
    static const char *const nets[IPS] = { "A", "A", "A", "B", "B", "C", "A",
                                           "D", "D", "D", "D", "E", "E", "E" };
    return strcmp(subnet ? nets[a] : ips[a], subnet ? nets[b] : ips[b]) == 0;
}

static struct bucket *model_ip_bucket(struct model *m, uint32_t where)
{
    for (uint32_t i = 0; i < where; i++) {
        if (same_net(i, where, false))
            return &m->of_ip[i];
    }
    return &m->of_ip[where];
}

static bool bucket_has(struct bucket *b, uint64_t now_ms, uint32_t burst, uint64_t refill_ms)
{
    b->level = min_u64(burst * refill_ms, b->level + (now_ms - b->at_ms));
    b->at_ms = now_ms;
    return !burst || b->level >= refill_ms;
}

static enum hop_verdict model_reserve(struct model *m, uint64_t now_ms, uint32_t slot, uint32_t who,
                                      uint32_t where)
{
    const struct hop_limits *l = &h.limits;
    uint32_t total = 0, peers = 0, ips = 0, nets = 0;
    struct model_slot *s = &m->slots[slot];

    if (h.draining)
        return HOP_DENIED_DRAINING;
    for (size_t i = 0; i < SLOTS; i++) {
        const struct model_slot *o = &m->slots[i];

        total += o->reserved;
        peers += o->reserved && o->who == who;
        ips += o->reserved && same_net(o->where, where, false);
        nets += o->reserved && same_net(o->where, where, true);
    }
    if (!s->reserved) {
        struct bucket *bp = &m->of_peer[who], *bi = model_ip_bucket(m, where);
        bool has_p = bucket_has(bp, now_ms, l->peer_burst, l->peer_refill_ms);
        bool has_i = bucket_has(bi, now_ms, l->ip_burst, l->ip_refill_ms);

        if (l->per_peer_max && peers >= l->per_peer_max)
            return HOP_DENIED_PEER;
        if (l->per_ip_max && ips >= l->per_ip_max)
            return HOP_DENIED_IP;
        if (l->per_subnet_max && nets >= l->per_subnet_max)
            return HOP_DENIED_SUBNET;
        if (total >= l->reservations_max)
            return HOP_DENIED_FULL;
        if (!has_p || !has_i)
            return HOP_DENIED_RATE;
        bp->level -= l->peer_burst ? l->peer_refill_ms : 0;
        bi->level -= l->ip_burst ? l->ip_refill_ms : 0;
        *s = (struct model_slot){ .who = who, .where = where };
    }
    bool renewed = s->reserved;

    s->reserved = true;
    s->expires_ms = now_ms + l->reservation_ms;
    s->refreshed = ++m->serial;
    return renewed ? HOP_RENEWED : HOP_ACCEPTED;
}

static struct model_slot *model_first(struct model *m)
{
    struct model_slot *first = NULL;

    for (size_t i = 0; i < SLOTS; i++) {
        if (m->slots[i].reserved && (!first || m->slots[i].refreshed < first->refreshed))
            first = &m->slots[i];
    }
    return first;
}

static void expect_agree(struct model *m, const struct hop_slot *slots, uint64_t seed)
{
    uint32_t of_peer[PEERS] = { 0 }, total = 0, peers = 0;
    const struct model_slot *first = model_first(m);

    for (size_t i = 0; i < SLOTS; i++) {
        cr_assert(eq(int, slots[i].reserved, m->slots[i].reserved), "seed %lu", seed);
        if (!m->slots[i].reserved)
            continue;
        cr_assert(eq(u64, slots[i].expires_ms, m->slots[i].expires_ms), "seed %lu", seed);
        total++;
        peers += of_peer[m->slots[i].who]++ == 0;
    }
    cr_assert(eq(sz, h.by_expiry.count, total), "seed %lu", seed);
    cr_assert(eq(u32, h.peers, peers), "seed %lu", seed);
    for (uint32_t i = 0; i < PEERS; i++)
        cr_assert(eq(u32, count_of(i), of_peer[i]), "seed %lu", seed);
    cr_assert(eq(u64, hop_deadline_ms(&h), first ? first->expires_ms : UINT64_MAX), "seed %lu",
              seed);
}

static struct hop_limits random_limits(void)
{
    return (struct hop_limits){
        .reservations_max = 1 + rnd(SLOTS),
        .per_peer_max = rnd(5),
        .per_ip_max = rnd(8),
        .per_subnet_max = rnd(14),
        .reservation_ms = 1 + rnd(5000),
        .peer_burst = rnd(10),
        .peer_refill_ms = rnd(400),
        .ip_burst = rnd(20),
        .ip_refill_ms = rnd(200),
    };
}

Test(hop, agrees_with_a_naive_model_under_random_operations, .fini = stop, .timeout = 120)
{
    uint32_t seen[HOP_DENIED_RATE + 1] = { 0 };

    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct hop_slot slots[SLOTS] = { 0 };
        struct model m = { 0 };
        uint64_t now_ms = 0;

        rng_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        start(random_limits());
        for (size_t i = 0; i < PEERS; i++)
            m.of_peer[i].level = h.limits.peer_burst * h.limits.peer_refill_ms;
        for (size_t i = 0; i < IPS; i++)
            m.of_ip[i].level = h.limits.ip_burst * h.limits.ip_refill_ms;
        for (size_t op = 0; op < OPS; op++) {
            uint32_t i = rnd(SLOTS), what = rnd(10);

            now_ms += rnd(3) ? 0 : rnd(300);
            h.draining = op > OPS - OPS / 10 && rnd(2);
            if (what < 6) {
                bool again = m.slots[i].reserved;
                uint32_t who = again ? m.slots[i].who : rnd(PEERS);
                uint32_t where = again ? m.slots[i].where : rnd(IPS);
                enum hop_verdict want = model_reserve(&m, now_ms, i, who, where);

                cr_assert(eq(int, reserve(now_ms, &slots[i], who, model_ip(where)), want),
                          "seed %lu op %zu", seed, op);
                seen[want]++;
            } else if (what < 8) {
                hop_on_close(&h, &slots[i]);
                m.slots[i].reserved = false;
            } else {
                struct model_slot *first = model_first(&m);
                struct hop_slot *got = hop_expire(&h, now_ms);

                if (first && first->expires_ms <= now_ms) {
                    cr_assert(eq(ptr, (void *)got, (void *)&slots[first - m.slots]), "seed %lu",
                              seed);
                    first->reserved = false;
                } else {
                    cr_assert(eq(ptr, (void *)got, NULL), "seed %lu", seed);
                }
            }
            expect_agree(&m, slots, seed);
        }
        while (hop_expire(&h, UINT64_MAX))
            ;
        cr_assert(zero(u32, h.peers));
    }
    for (size_t v = 0; v < ARRAY_LEN(seen); v++) /* the test is worth its name */
        cr_expect(lt(u32, 100, seen[v]), "verdict %zu came %u times", v, seen[v]);
}
