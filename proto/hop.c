/* The reservation machine. Slots live equally long, so the order of refreshing is the order of
 * expiry: a list, where one might reach for a heap. What limits need to know hangs on three keys
 * per slot, its peer, its IP and its subnet, counted in one open-addressing table. */
#include "proto/hop.h"

#include "proto/crypto.h"

enum count_kind { KIND_PEER = 1, KIND_IP, KIND_SUBNET };
enum { KINDS = 3, IP6_HOST_BYTES = 8, IP6_SUBNET_BYTES = 7, IP4_SUBNET_BYTES = 15 };

struct count_key {
    uint8_t kind;
    uint8_t b[sizeof(struct peer_id)]; /* zero-padded */
};
static_assert(sizeof(struct count_key) == 46, "no padding: hashed and compared as bytes");

/* Nobody counted: count == 0, and the cell is free. The whole key is kept and compared, because two
 * keys of one hash must not share a limit; the hash is keyed so that a peer cannot choose where in
 * the table it lands. */
struct hop_count {
    uint32_t count;
    uint32_t hash;
    struct count_key key;
};

/* A token bucket as GCRA: the time at which it will be full again, in the past for a full one.
 * `mark` is the 64-bit keyed hash, for here a collision costs a token and not a limit. */
struct hop_rate {
    uint64_t mark;
    uint64_t full_ms;
};
enum { RATE_WAYS = 4, RATE_CELLS_MIN = 1024 };

struct keyed {
    struct count_key key;
    uint64_t hash;
};

/* ---- tables ------------------------------------------------------------------------------ */

static size_t pow2_at_least(size_t n)
{
    size_t p = 1;

    while (p < n)
        p *= 2;
    return p;
}

static size_t count_cells(uint32_t reservations_max)
{
    return pow2_at_least((size_t)reservations_max * KINDS * 2); /* at most half full, ever */
}

static size_t rate_cells(uint32_t reservations_max)
{
    size_t n = pow2_at_least((size_t)reservations_max * 4);

    return n < RATE_CELLS_MIN ? RATE_CELLS_MIN : n;
}

size_t hop_counts_bytes(uint32_t reservations_max)
{
    ASSERT(reservations_max > 0);
    ASSERT(reservations_max <= HOP_RESERVATIONS_MAX);
    return rate_cells(reservations_max) * sizeof(struct hop_rate) +
           count_cells(reservations_max) * sizeof(struct hop_count);
}

static struct keyed keyed_of(const struct hop *h, uint8_t kind, struct bytes b)
{
    struct keyed k = { .key = { .kind = kind } };

    memcpy(k.key.b, b.p, b.n);
    k.hash = crypto_siphash(h->key, bytes_of(&k.key, sizeof(k.key)));
    return k;
}

/* An IPv6 host owns a /64 and can speak from all of it, so that is what counts as one IP. */
static void keys_of(const struct hop *h, const struct peer_id *peer, const uint8_t ip[16],
                    struct keyed k[KINDS])
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    bool is4 = memcmp(ip, mapped, sizeof(mapped)) == 0;

    k[0] = keyed_of(h, KIND_PEER, bytes_of(peer, sizeof(*peer)));
    k[1] = keyed_of(h, KIND_IP, bytes_of(ip, is4 ? 16 : IP6_HOST_BYTES));
    k[2] = keyed_of(h, KIND_SUBNET, bytes_of(ip, is4 ? IP4_SUBNET_BYTES : IP6_SUBNET_BYTES));
}

/* The cell of this key, or the free one where it belongs. Ends: half of the table is free. */
static uint32_t count_at(const struct hop *h, const struct keyed *k)
{
    uint32_t i = (uint32_t)k->hash & h->counts_mask;

    while (h->counts[i].count && (h->counts[i].hash != (uint32_t)k->hash ||
                                  memcmp(&h->counts[i].key, &k->key, sizeof(k->key)) != 0))
        i = (i + 1) & h->counts_mask;
    return i;
}

static uint32_t count_of(const struct hop *h, const struct keyed *k)
{
    return h->counts[count_at(h, k)].count;
}

static uint32_t count_add(struct hop *h, const struct keyed *k)
{
    struct hop_count *c = &h->counts[count_at(h, k)];

    if (!c->count)
        *c = (struct hop_count){ .hash = (uint32_t)k->hash, .key = k->key };
    return ++c->count;
}

/* Takes back one; the last one frees the cell. What stood behind it because of it moves up, so that
 * no tombstone is ever left and a search stays as short as the table is empty. */
static uint32_t count_sub(struct hop *h, const struct keyed *k)
{
    uint32_t mask = h->counts_mask, hole = count_at(h, k);

    ASSERT(h->counts[hole].count > 0);
    if (--h->counts[hole].count)
        return h->counts[hole].count;
    for (uint32_t i = (hole + 1) & mask; h->counts[i].count; i = (i + 1) & mask) {
        uint32_t from_home = (i - h->counts[i].hash) & mask;

        if (from_home >= ((i - hole) & mask)) {
            h->counts[hole] = h->counts[i];
            hole = i;
        }
    }
    h->counts[hole] = (struct hop_count){ 0 };
    return 0;
}

/* ---- rates ------------------------------------------------------------------------------- */

/* The bucket of this key or, where it has none, the one in its set to give up: full ones first,
 * then what will be full soonest. A peer that drained its bucket cannot wash it out with fresh ids.
 */
static struct hop_rate *rate_at(const struct hop *h, uint64_t hash)
{
    struct hop_rate *set = &h->rates[(hash >> 32 & h->rates_mask) & ~(uint64_t)(RATE_WAYS - 1)];
    struct hop_rate *soonest = set;

    for (size_t i = 0; i < RATE_WAYS; i++) {
        if (set[i].mark == hash)
            return &set[i];
        if (set[i].full_ms < soonest->full_ms)
            soonest = &set[i];
    }
    return soonest;
}

static bool rate_allows(const struct hop *h, const struct keyed *k, uint64_t now_ms, uint32_t burst,
                        uint64_t refill_ms)
{
    const struct hop_rate *r = rate_at(h, k->hash);

    if (!burst || r->mark != k->hash || r->full_ms <= now_ms)
        return true;
    return r->full_ms - now_ms <= (burst - 1) * refill_ms;
}

static void rate_charge(struct hop *h, const struct keyed *k, uint64_t now_ms, uint32_t burst,
                        uint64_t refill_ms)
{
    struct hop_rate *r = rate_at(h, k->hash);

    if (!burst)
        return;
    if (r->mark != k->hash || r->full_ms < now_ms)
        *r = (struct hop_rate){ k->hash, now_ms };
    r->full_ms += refill_ms;
}

/* ---- the machine ------------------------------------------------------------------------- */

void hop_init(struct hop *h, const struct hop_limits *limits, void *counts, const uint8_t key[16])
{
    ASSERT(limits->reservations_max > 0);
    ASSERT(limits->reservations_max <= HOP_RESERVATIONS_MAX);
    ASSERT(limits->reservation_ms > 0);
    ASSERT(limits->peer_refill_ms <= UINT32_MAX); /* times a burst of 32 bits: no overflow */
    ASSERT(limits->ip_refill_ms <= UINT32_MAX);
    ASSERT((uintptr_t)counts % _Alignof(struct hop_rate) == 0);

    size_t rates = rate_cells(limits->reservations_max);

    *h = (struct hop){
        .limits = *limits,
        .rates = counts,
        .counts = (struct hop_count *)(void *)((struct hop_rate *)counts + rates),
        .rates_mask = (uint32_t)(rates - 1),
        .counts_mask = (uint32_t)(count_cells(limits->reservations_max) - 1),
    };
    memcpy(h->key, key, sizeof(h->key));
}

static bool at_max(const struct hop *h, const struct keyed *k, uint32_t max)
{
    return max && count_of(h, k) >= max;
}

/* libp2p.md §11.2, behind what only the caller can know (relayed connections, access lists). Rates
 * come last, so that they are charged for what is granted only, and both or neither. */
static enum hop_verdict judge(struct hop *h, uint64_t now_ms, const struct keyed k[KINDS])
{
    const struct hop_limits *l = &h->limits;

    if (at_max(h, &k[0], l->per_peer_max))
        return HOP_DENIED_PEER;
    if (at_max(h, &k[1], l->per_ip_max))
        return HOP_DENIED_IP;
    if (at_max(h, &k[2], l->per_subnet_max))
        return HOP_DENIED_SUBNET;
    if (h->by_expiry.count >= l->reservations_max)
        return HOP_DENIED_FULL;
    if (!rate_allows(h, &k[0], now_ms, l->peer_burst, l->peer_refill_ms) ||
        !rate_allows(h, &k[1], now_ms, l->ip_burst, l->ip_refill_ms))
        return HOP_DENIED_RATE;
    rate_charge(h, &k[0], now_ms, l->peer_burst, l->peer_refill_ms);
    rate_charge(h, &k[1], now_ms, l->ip_burst, l->ip_refill_ms);
    return HOP_ACCEPTED;
}

static void refresh(struct hop *h, uint64_t now_ms, struct hop_slot *slot)
{
    slot->expires_ms = now_ms + h->limits.reservation_ms;
    list_append(&h->by_expiry, &slot->by_expiry);
}

enum hop_verdict hop_on_reserve(struct hop *h, uint64_t now_ms, struct hop_slot *slot,
                                const struct peer_id *peer, const uint8_t ip[16])
{
    struct keyed k[KINDS];

    if (h->draining)
        return HOP_DENIED_DRAINING; /* renewals too: the client shall look elsewhere (§11.7) */
    if (slot->reserved) {
        ASSERT(peer_id_eq(&slot->peer, peer));
        list_remove(&h->by_expiry, &slot->by_expiry);
        refresh(h, now_ms, slot); /* whatever the limits say by now (§11.2) */
        return HOP_RENEWED;
    }
    keys_of(h, peer, ip, k);

    enum hop_verdict v = judge(h, now_ms, k);

    if (v != HOP_ACCEPTED)
        return v;
    slot->reserved = true;
    slot->peer = *peer;
    memcpy(slot->ip, ip, sizeof(slot->ip));
    if (count_add(h, &k[0]) == 1)
        h->peers++;
    (void)count_add(h, &k[1]);
    (void)count_add(h, &k[2]);
    refresh(h, now_ms, slot);
    return HOP_ACCEPTED;
}

static void release(struct hop *h, struct hop_slot *slot)
{
    struct keyed k[KINDS];

    keys_of(h, &slot->peer, slot->ip, k);
    if (count_sub(h, &k[0]) == 0)
        h->peers--;
    (void)count_sub(h, &k[1]);
    (void)count_sub(h, &k[2]);
    list_remove(&h->by_expiry, &slot->by_expiry);
    slot->reserved = false;
}

void hop_on_close(struct hop *h, struct hop_slot *slot)
{
    if (slot->reserved)
        release(h, slot);
}

static struct hop_slot *first(const struct hop *h)
{
    struct link *k = h->by_expiry.first;

    return k ? CONTAINER_OF(k, struct hop_slot, by_expiry) : NULL;
}

struct hop_slot *hop_expire(struct hop *h, uint64_t now_ms)
{
    struct hop_slot *slot = first(h);

    if (!slot || slot->expires_ms > now_ms)
        return NULL;
    release(h, slot);
    return slot;
}

uint64_t hop_deadline_ms(const struct hop *h)
{
    const struct hop_slot *slot = first(h);

    return slot ? slot->expires_ms : UINT64_MAX;
}

uint32_t hop_peer_reservations(const struct hop *h, const struct peer_id *peer)
{
    struct keyed k = keyed_of(h, KIND_PEER, bytes_of(peer, sizeof(*peer)));

    return count_of(h, &k);
}

enum hop_status hop_verdict_status(const struct hop *h, enum hop_verdict v)
{
    switch (v) {
    case HOP_ACCEPTED:
    case HOP_RENEWED:
        return HOP_OK;
    case HOP_DENIED_PEER: /* 200 for "no slot", 201 for rates and a peer's own count (§11.2) */
    case HOP_DENIED_RATE:
        return HOP_RESOURCE_LIMIT_EXCEEDED;
    case HOP_DENIED_FULL:
        return h->limits.full_status ? h->limits.full_status : HOP_RESERVATION_REFUSED;
    case HOP_DENIED_DRAINING:
    case HOP_DENIED_IP:
    case HOP_DENIED_SUBNET:
        break;
    }
    return HOP_RESERVATION_REFUSED;
}

const char *hop_verdict_reason(enum hop_verdict v)
{
    switch (v) {
    case HOP_ACCEPTED:
        return "accepted";
    case HOP_RENEWED:
        return "renewed";
    case HOP_DENIED_DRAINING:
        return "draining";
    case HOP_DENIED_PEER:
        return "per-peer limit";
    case HOP_DENIED_IP:
        return "per-IP limit";
    case HOP_DENIED_SUBNET:
        return "per-subnet limit";
    case HOP_DENIED_FULL:
        return "no free slot";
    case HOP_DENIED_RATE:
        return "rate limit";
    }
    return "unknown";
}
