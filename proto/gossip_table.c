/* What the hub remembers: ids, messages that may be asked for, what authors have spent. Everything
 * bounded; the oldest goes. */
#include "proto/crypto.h"
#include "proto/gossip_int.h"

/* Ids are computed with a key that all know (dusk.md §10.2), so whoever likes can aim at a bucket:
 * they are mixed with ours. Never 0. */
uint64_t gossip_mix(const struct gossip_hub *h, uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ h->key[0]) * 0x9e3779b97f4a7c15;

    x ^= x >> 32;
    x = (x ^ b ^ h->key[1]) * 0xd6e8feb86659fd93;
    x ^= x >> 29;
    x *= h->key[0] | 1;
    return (x ^ x >> 32) | 1;
}

static uint32_t bucket_of(const struct gossip_hub *h, uint64_t id, uint32_t n)
{
    return (uint32_t)(gossip_mix(h, id, 0) >> 20) & (n - 1);
}

/* ---- meters --------------------------------------------------------------------------------- */

static uint64_t cost_ns(const struct gossip_rate *r, uint64_t n)
{
    return n * 1000000000 / r->per_s;
}

static bool bucket_fits(uint64_t until_ns, uint64_t now_ns, const struct gossip_rate *r, uint64_t n)
{
    uint64_t from = until_ns > now_ns ? until_ns : now_ns;

    return from + cost_ns(r, n) <= now_ns + cost_ns(r, r->burst);
}

static void bucket_spend(uint64_t *until_ns, uint64_t now_ns, const struct gossip_rate *r,
                         uint64_t n)
{
    if (*until_ns < now_ns)
        *until_ns = now_ns;
    *until_ns += cost_ns(r, n);
}

bool gossip_meter_fits(const struct gossip_meter *m, uint64_t now_ms, const struct gossip_budget *b,
                       uint64_t messages, uint64_t bytes)
{
    uint64_t now_ns = now_ms * 1000000;

    return bucket_fits(m->messages_ns, now_ns, &b->messages, messages) &&
           bucket_fits(m->bytes_ns, now_ns, &b->bytes, bytes);
}

bool gossip_meter_half(const struct gossip_meter *m, uint64_t now_ms, const struct gossip_budget *b)
{
    return gossip_meter_fits(m, now_ms, b, b->messages.burst / 2, b->bytes.burst / 2);
}

void gossip_meter_spend(struct gossip_meter *m, uint64_t now_ms, const struct gossip_budget *b,
                        uint64_t messages, uint64_t bytes)
{
    uint64_t now_ns = now_ms * 1000000;

    bucket_spend(&m->messages_ns, now_ns, &b->messages, messages);
    bucket_spend(&m->bytes_ns, now_ns, &b->bytes, bytes);
}

/* ---- ids seen -------------------------------------------------------------------------------- */

bool gossip_seen_has(const struct gossip_hub *h, uint64_t now_ms, uint64_t id)
{
    for (uint32_t i = h->t.seen_index[bucket_of(h, id, h->t.seen_n)]; i; i = h->t.seen[i - 1].next)
        if (h->t.seen[i - 1].id == id)
            return now_ms < h->t.seen[i - 1].at_ms + GOSSIP_SEEN_MS;
    return false;
}

static void seen_pop(struct gossip_hub *h)
{
    struct gossip_seen *s = &h->t.seen[h->seen_first];
    uint32_t *at = &h->t.seen_index[bucket_of(h, s->id, h->t.seen_n)];

    while (*at != h->seen_first + 1)
        at = &h->t.seen[*at - 1].next;
    *at = s->next;
    h->seen_first = (h->seen_first + 1) & (h->t.seen_n - 1);
    h->seen_count--;
}

void gossip_seen_expire(struct gossip_hub *h, uint64_t now_ms)
{
    while (h->seen_count && h->t.seen[h->seen_first].at_ms + GOSSIP_SEEN_MS <= now_ms)
        seen_pop(h);
}

void gossip_seen_add(struct gossip_hub *h, uint64_t now_ms, uint64_t id)
{
    gossip_seen_expire(h, now_ms); /* an older entry of this very id goes with it */
    if (h->seen_count == h->t.seen_n)
        seen_pop(h);
    uint32_t i = (h->seen_first + h->seen_count++) & (h->t.seen_n - 1);
    uint32_t *head = &h->t.seen_index[bucket_of(h, id, h->t.seen_n)];

    h->t.seen[i] = (struct gossip_seen){ .id = id, .at_ms = now_ms, .next = *head };
    *head = i + 1;
}

/* ---- messages kept --------------------------------------------------------------------------- */

struct gossip_kept *gossip_kept_find(const struct gossip_hub *h, uint64_t now_ms, uint64_t id)
{
    for (uint32_t i = h->t.kept_index[bucket_of(h, id, h->t.kept_n)]; i; i = h->t.kept[i - 1].next)
        if (h->t.kept[i - 1].id == id)
            return now_ms < h->t.kept[i - 1].at_ms + GOSSIP_CACHE_MS ? &h->t.kept[i - 1] : NULL;
    return NULL;
}

static void kept_pop(struct gossip_hub *h)
{
    struct gossip_kept *k = &h->t.kept[h->kept_first];
    uint32_t *at = &h->t.kept_index[bucket_of(h, k->id, h->t.kept_n)];

    while (*at != h->kept_first + 1)
        at = &h->t.kept[*at - 1].next;
    *at = k->next;
    h->kept_bytes -= k->wire.n;
    h->calls->drop(k->payload);
    k->payload = NULL;
    h->kept_first = (h->kept_first + 1) & (h->t.kept_n - 1);
    h->kept_count--;
}

void gossip_kept_expire(struct gossip_hub *h, uint64_t now_ms)
{
    while (h->kept_count && h->t.kept[h->kept_first].at_ms + GOSSIP_CACHE_MS <= now_ms)
        kept_pop(h);
}

void gossip_kept_add(struct gossip_hub *h, uint64_t now_ms, const struct gossip_take *t,
                     void *payload, struct bytes wire)
{
    gossip_kept_expire(h, now_ms);
    while (h->kept_count &&
           (h->kept_count == h->t.kept_n || h->kept_bytes + wire.n > h->limits->cache_bytes))
        kept_pop(h);
    if (wire.n > h->limits->cache_bytes)
        return;
    uint32_t i = (h->kept_first + h->kept_count++) & (h->t.kept_n - 1);
    uint32_t *head = &h->t.kept_index[bucket_of(h, t->id, h->t.kept_n)];

    h->calls->keep(payload);
    h->t.kept[i] = (struct gossip_kept){ .payload = payload,
                                         .wire = wire,
                                         .id = t->id,
                                         .at_ms = now_ms,
                                         .next = *head,
                                         .topic = (uint8_t)t->topic };
    *head = i + 1;
    h->kept_bytes += wire.n;
}

/* ---- sets of cells --------------------------------------------------------------------------- */

static struct gossip_author *author_set(const struct gossip_hub *h, const struct peer_id *author,
                                        uint64_t *hash)
{
    uint8_t key[16];

    memcpy(key, h->key, sizeof(key));
    *hash = crypto_siphash(key, bytes_of(author, sizeof(*author))) | 1;
    return &h->t.authors[(*hash >> 20) % (h->t.authors_n / GOSSIP_WAYS) * GOSSIP_WAYS];
}

const struct gossip_author *gossip_author_find(const struct gossip_hub *h,
                                               const struct peer_id *author)
{
    uint64_t hash;
    const struct gossip_author *set = author_set(h, author, &hash);

    for (int i = 0; i < GOSSIP_WAYS; i++)
        if (set[i].hash == hash)
            return &set[i];
    return NULL;
}

/* Four ways; a stranger takes the place of who has spent least, so that a crowd of new names does
 * not give anybody a new budget. */
struct gossip_author *gossip_author_of(struct gossip_hub *h, const struct peer_id *author)
{
    uint64_t hash;
    struct gossip_author *set = author_set(h, author, &hash);
    struct gossip_author *least = set;

    for (int i = 0; i < GOSSIP_WAYS; i++) {
        if (set[i].hash == hash)
            return &set[i];
        if (set[i].spent.bytes_ns < least->spent.bytes_ns)
            least = &set[i];
    }
    *least = (struct gossip_author){ .hash = hash };
    return least;
}

struct gossip_cell *gossip_cell(const struct gossip_hub *h, struct gossip_cell *cells,
                                uint64_t now_ms, uint64_t age_ms, uint64_t a, uint64_t b)
{
    uint64_t hash = gossip_mix(h, a, b);
    struct gossip_cell *set = &cells[(hash >> 20) % (h->t.cells_n / GOSSIP_WAYS) * GOSSIP_WAYS];
    struct gossip_cell *oldest = set;

    for (int i = 0; i < GOSSIP_WAYS; i++) {
        if (set[i].hash == hash && now_ms < set[i].at_ms + age_ms)
            return &set[i];
        if (set[i].hash == hash) {
            oldest = &set[i];
            break;
        }
        if (set[i].at_ms < oldest->at_ms)
            oldest = &set[i];
    }
    *oldest = (struct gossip_cell){ .hash = hash, .at_ms = now_ms };
    return oldest;
}
