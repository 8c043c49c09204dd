/* The reservation machine under any order of calls. The first bytes choose the limits, then each
 * step is a byte for the call and one or two for its operands; after each the counts are taken
 * afresh. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/hop.h"

#include <stdlib.h>

enum { SLOTS = 16, PEERS = 6, IPS = 6, STEPS_MAX = 4096 };

struct model {
    struct hop h;
    struct hop_slot slot[SLOTS];
    uint64_t now_ms;
    uint64_t started; /* new reservations since the first */
};

static struct peer_id peer(uint8_t i)
{
    return (struct peer_id){ .n = 34, .b = { 0x12, 0x20, (uint8_t)(i % PEERS) } };
}

/* Two hosts of one /24, one of another; two of one /64, and one beside it in the /56. */
static void ip_of(uint8_t i, uint8_t ip[16])
{
    static const uint8_t ips[IPS][16] = {
        { [10] = 0xff, 0xff, 10, 0, 0, 1 }, { [10] = 0xff, 0xff, 10, 0, 0, 2 },
        { [10] = 0xff, 0xff, 10, 0, 1, 1 }, { 0x20, 1, 0xd, 0xb8, [15] = 1 },
        { 0x20, 1, 0xd, 0xb8, [15] = 2 },   { 0x20, 1, 0xd, 0xb8, [7] = 1, [15] = 1 },
    };
    memcpy(ip, ips[i % IPS], 16);
}

static bool is4(const uint8_t ip[16])
{
    return ip[10] == 0xff;
}

static bool same_net(const uint8_t a[16], const uint8_t b[16], size_t bytes4, size_t bytes6)
{
    return is4(a) == is4(b) && memcmp(a, b, is4(a) ? bytes4 : bytes6) == 0;
}

struct counts {
    uint32_t total, peer, ip, subnet;
};

static struct counts count(const struct model *m, const struct peer_id *p, const uint8_t ip[16])
{
    struct counts n = { 0 };

    for (size_t i = 0; i < SLOTS; i++) {
        const struct hop_slot *s = &m->slot[i];

        if (!s->reserved)
            continue;
        n.total++;
        n.peer += peer_id_eq(&s->peer, p);
        n.ip += same_net(s->ip, ip, 16, 8);
        n.subnet += same_net(s->ip, ip, 15, 7);
    }
    return n;
}

static bool full(uint32_t n, uint32_t max)
{
    return max && n >= max;
}

static void on_reserve(struct model *m, struct hop_slot *s, uint8_t who, uint8_t where)
{
    const struct hop_limits *l = &m->h.limits;
    struct peer_id p = s->reserved ? s->peer : peer(who);
    uint8_t ip[16];
    bool before = s->reserved;

    ip_of(where, ip);
    struct counts n = count(m, &p, before ? s->ip : ip);
    enum hop_verdict v = hop_on_reserve(&m->h, m->now_ms, s, &p, ip);

    if (m->h.draining) {
        CHECK(v == HOP_DENIED_DRAINING);
    } else if (before) {
        CHECK(v == HOP_RENEWED);
    } else if (full(n.peer, l->per_peer_max)) {
        CHECK(v == HOP_DENIED_PEER);
    } else if (full(n.ip, l->per_ip_max)) {
        CHECK(v == HOP_DENIED_IP);
    } else if (full(n.subnet, l->per_subnet_max)) {
        CHECK(v == HOP_DENIED_SUBNET);
    } else if (n.total >= l->reservations_max) {
        CHECK(v == HOP_DENIED_FULL);
    } else if (!l->peer_burst && !l->ip_burst) {
        CHECK(v == HOP_ACCEPTED);
    } else {
        CHECK(v == HOP_ACCEPTED || v == HOP_DENIED_RATE);
    }
    bool granted = v == HOP_ACCEPTED || v == HOP_RENEWED;

    CHECK((hop_verdict_status(&m->h, v) == HOP_OK) == granted);
    CHECK(s->reserved == (before || granted));
    CHECK(!granted || s->expires_ms == m->now_ms + l->reservation_ms);
    m->started += v == HOP_ACCEPTED;
    if (l->peer_burst && l->peer_refill_ms) /* no more than bursts and refills of six peers */
        CHECK(m->started <= PEERS * (l->peer_burst + m->now_ms / l->peer_refill_ms + 1));
    CHECK(hop_verdict_reason(v)[0]);
}

static void check(const struct model *m)
{
    uint64_t first = UINT64_MAX, last = 0;
    uint32_t total = 0, peers = 0;

    for (size_t i = 0; i < SLOTS; i++) {
        if (m->slot[i].reserved) {
            total++;
            first = min_u64(first, m->slot[i].expires_ms);
        }
    }
    CHECK(m->h.by_expiry.count == total);
    CHECK(total <= m->h.limits.reservations_max);
    CHECK(hop_deadline_ms(&m->h) == first);
    for (const struct link *k = m->h.by_expiry.first; k; k = k->next) {
        const struct hop_slot *s = CONTAINER_OF(k, const struct hop_slot, by_expiry);

        CHECK(s->expires_ms >= last);
        last = s->expires_ms;
    }
    for (uint8_t i = 0; i < PEERS; i++) {
        struct peer_id p = peer(i);
        uint32_t n = hop_peer_reservations(&m->h, &p);

        CHECK(n == count(m, &p, m->slot[0].ip).peer);
        peers += n > 0;
    }
    CHECK(m->h.peers == peers);
}

static void step(struct model *m, struct cur *c)
{
    uint8_t op = fuzz_u8(c);
    struct hop_slot *s = &m->slot[op >> 4], *expired;

    switch (op & 7) {
    case 0:
    case 1:
    case 2:
        on_reserve(m, s, fuzz_u8(c), op & 8 ? fuzz_u8(c) : (uint8_t)(op >> 4));
        break;
    case 3:
        hop_on_close(&m->h, s);
        CHECK(!s->reserved);
        break;
    case 4:
        m->now_ms += fuzz_u8(c);
        break;
    case 5:
        expired = hop_expire(&m->h, m->now_ms);
        CHECK(!expired || !expired->reserved);
        CHECK(!expired || expired->expires_ms <= m->now_ms);
        CHECK(expired || hop_deadline_ms(&m->h) > m->now_ms);
        break;
    case 6:
        m->h.draining = op & 8;
        break;
    default:
        m->now_ms += 1000;
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[16] = { 3, 1, 4, 1, 5, 9 };
    struct model m = { .now_ms = 0 };
    struct cur c = cur_of(bytes_of(data, size));
    struct hop_limits l = {
        .reservations_max = 1 + fuzz_u8(&c) % SLOTS,
        .per_peer_max = fuzz_u8(&c) % 8,
        .per_ip_max = fuzz_u8(&c) % 8,
        .per_subnet_max = fuzz_u8(&c) % 8,
        .reservation_ms = 1 + (uint64_t)fuzz_u8(&c) * 8,
        .peer_burst = fuzz_u8(&c) % 8,
        .ip_burst = fuzz_u8(&c) % 8,
        .peer_refill_ms = fuzz_u8(&c),
        .ip_refill_ms = fuzz_u8(&c),
        .full_status = fuzz_u8(&c) & 1 ? HOP_RESOURCE_LIMIT_EXCEEDED : HOP_UNUSED,
    };
    void *tables = calloc(1, hop_counts_bytes(l.reservations_max));

    CHECK(tables);
    crypto_init();
    hop_init(&m.h, &l, tables, key);
    for (size_t i = 0; i < STEPS_MAX && !c.bad && c.n; i++) {
        step(&m, &c);
        check(&m);
    }
    for (size_t i = 0; i < SLOTS; i++)
        hop_on_close(&m.h, &m.slot[i]);
    check(&m);
    free(tables);
    return 0;
}
