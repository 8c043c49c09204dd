/* proto/dig_reg.c: four hash tables with chains through the entries (by id, by connection, networks
 * by name, counts by source), and three kinds of sorted sets. Hashes are keyed: peers choose ids
 * and networks. */
#include "proto/dig_reg.h"

#include "proto/crypto.h"

struct dig_source_count {
    struct dig_source source;
    uint32_t count, next;
};

enum { ALIGN = 64 };

static uint32_t buckets(uint32_t seats)
{
    uint32_t n = 16;

    while (n < seats)
        n *= 2;
    return n;
}

/* Each network's set needs a chunk at least, so as many as there can be networks; the two sets of
 * everybody need few (dig_order.h, "Bounds"). */
static uint32_t chunks(uint32_t seats)
{
    return seats + 2 * (1 + 4 * seats / DIG_ORDER_CHUNK);
}

static size_t carve(uint8_t **mem, size_t bytes)
{
    size_t n = (bytes + ALIGN - 1) / ALIGN * ALIGN;

    if (*mem)
        *mem += n;
    return n;
}

/* Counts the memory if r->member is NULL and mem too, else hands it out. */
static size_t lay_out(struct dig_reg *r, uint8_t *mem, uint32_t seats)
{
    size_t table = buckets(seats) * sizeof(uint32_t), n = ALIGN;

    if (mem)
        mem += (ALIGN - (uintptr_t)mem % ALIGN) % ALIGN;
    r->member = (void *)mem;
    n += carve(&mem, seats * sizeof(*r->member));
    r->network = (void *)mem;
    n += carve(&mem, seats * sizeof(*r->network));
    r->source = (void *)mem;
    n += carve(&mem, seats * sizeof(*r->source));
    r->by_id = (void *)mem;
    n += carve(&mem, table);
    r->by_home = (void *)mem;
    n += carve(&mem, table);
    r->by_name = (void *)mem;
    n += carve(&mem, table);
    r->by_source = (void *)mem;
    n += carve(&mem, table);
    r->sampled = (void *)mem;
    n += carve(&mem, (seats / 64 + 2) * sizeof(uint64_t));
    r->pool.chunk = (void *)mem;
    return n + carve(&mem, dig_order_pool_bytes(chunks(seats)));
}

size_t dig_reg_bytes(uint32_t registrants_max)
{
    struct dig_reg r = { 0 };

    return lay_out(&r, NULL, registrants_max);
}

void dig_reg_init(struct dig_reg *r, void *mem, uint32_t registrants_max, const uint8_t key[16])
{
    ASSERT(registrants_max > 0);
    ASSERT(registrants_max <= DIG_REG_SEATS_MAX);
    *r = (struct dig_reg){ .registrants_max = registrants_max, .seats = registrants_max };
    lay_out(r, mem, registrants_max);
    memcpy(r->key, key, sizeof(r->key));
    r->buckets_mask = buckets(registrants_max) - 1;
    dig_order_pool_init(&r->pool, r->pool.chunk, chunks(registrants_max),
                        crypto_siphash(key, bytes_str("heights")));
}

/* ---- how the sorted sets compare ---- */

static uint64_t member_prefix(const void *arg, uint32_t item)
{
    return ((const struct dig_reg *)arg)->member[item].id_prefix;
}

static struct bytes member_whole(const void *arg, uint32_t item)
{
    return dig_member_id(&((const struct dig_reg *)arg)->member[item]);
}

static uint64_t network_prefix(const void *arg, uint32_t item)
{
    return dig_order_prefix(dig_network_name(&((const struct dig_reg *)arg)->network[item]));
}

static struct bytes network_whole(const void *arg, uint32_t item)
{
    return dig_network_name(&((const struct dig_reg *)arg)->network[item]);
}

static struct dig_order_by members_by_id(const struct dig_reg *r)
{
    return (struct dig_order_by){ member_prefix, member_whole, r };
}

static struct dig_order_by networks_by_name(const struct dig_reg *r)
{
    return (struct dig_order_by){ network_prefix, network_whole, r };
}

/* ---- chains: heads and links are index + 1 ---- */

static uint32_t hash_of(const struct dig_reg *r, struct bytes in)
{
    return (uint32_t)crypto_siphash(r->key, in);
}

static uint32_t home_hash(const struct dig_reg *r, const struct dig_home *home)
{
    uint8_t text[9];

    put_u32(text, home->slot);
    put_u32(text + 4, home->gen);
    text[8] = home->shard;
    return hash_of(r, bytes_of(text, sizeof(text)));
}

static uint32_t *head(const struct dig_reg *r, uint32_t *table, uint32_t hash)
{
    return &table[hash & r->buckets_mask];
}

static struct dig_member *find_hashed(const struct dig_reg *r, struct bytes id, uint32_t hash)
{
    for (uint32_t at = *head(r, r->by_id, hash); at;) {
        struct dig_member *m = &r->member[at - 1];

        if (m->id_hash == hash && bytes_eq(dig_member_id(m), id))
            return m;
        at = m->next_by_id;
    }
    return NULL;
}

struct dig_member *dig_reg_find(const struct dig_reg *r, struct bytes id)
{
    return find_hashed(r, id, hash_of(r, id));
}

struct dig_member *dig_reg_of(const struct dig_reg *r, const struct dig_home *home)
{
    for (uint32_t at = *head(r, r->by_home, home_hash(r, home)); at;) {
        struct dig_member *m = &r->member[at - 1];

        if (dig_home_eq(&m->home, home))
            return m;
        at = m->next_by_home;
    }
    return NULL;
}

struct dig_network *dig_reg_network(const struct dig_reg *r, struct bytes name)
{
    for (uint32_t at = *head(r, r->by_name, hash_of(r, name)); at;) {
        struct dig_network *net = &r->network[at - 1];

        if (bytes_eq(dig_network_name(net), name))
            return net;
        at = net->next_in_bucket;
    }
    return NULL;
}

/* Where the link to the source's count stands, or would be put. */
static uint32_t *source_link(const struct dig_reg *r, const struct dig_source *source)
{
    uint32_t *at = head(r, r->by_source, hash_of(r, bytes_of(source->b, sizeof(source->b))));

    while (*at && memcmp(&r->source[*at - 1].source, source, sizeof(*source)) != 0)
        at = &r->source[*at - 1].next;
    return at;
}

uint32_t dig_reg_source_count(const struct dig_reg *r, const struct dig_source *source)
{
    uint32_t at = *source_link(r, source);

    return at ? r->source[at - 1].count : 0;
}

/* ---- coming and going ---- */

static uint32_t source_add(struct dig_reg *r, const struct dig_source *source)
{
    uint32_t *link = source_link(r, source);

    if (!*link) {
        uint32_t at = r->sources_free;

        if (at)
            r->sources_free = r->source[at - 1].next;
        else
            at = ++r->sources_fresh;
        ASSERT(at <= r->seats);
        r->source[at - 1] = (struct dig_source_count){ .source = *source };
        *link = at;
    }
    r->source[*link - 1].count++;
    return *link - 1;
}

static void source_remove(struct dig_reg *r, uint32_t index)
{
    struct dig_source_count *s = &r->source[index];

    ASSERT(s->count > 0);
    if (--s->count)
        return;
    *source_link(r, &s->source) = s->next;
    s->next = r->sources_free;
    r->sources_free = index + 1;
}

static struct dig_network *network_get(struct dig_reg *r, struct bytes name)
{
    struct dig_network *net = dig_reg_network(r, name);

    if (net)
        return net;
    uint32_t at = r->networks_free;

    if (at)
        r->networks_free = r->network[at - 1].next_in_bucket;
    else
        at = ++r->networks_fresh;
    ASSERT(at <= r->seats); /* each has a member */
    uint32_t *link = head(r, r->by_name, hash_of(r, name));

    net = &r->network[at - 1];
    *net =
        (struct dig_network){ .index = at - 1, .name_n = (uint8_t)name.n, .next_in_bucket = *link };
    if (name.n)
        memcpy(net->name, name.p, name.n);
    *link = at;
    struct dig_order_by by = networks_by_name(r);

    dig_order_insert(&r->pool, &r->networks, &by, net->index);
    return net;
}

static void network_drop(struct dig_reg *r, struct dig_network *net)
{
    uint32_t *at = head(r, r->by_name, hash_of(r, dig_network_name(net)));
    struct dig_order_by by = networks_by_name(r);

    dig_order_remove(&r->pool, &r->networks, &by, net->index);
    while (*at != net->index + 1) {
        ASSERT(*at);
        at = &r->network[*at - 1].next_in_bucket;
    }
    *at = net->next_in_bucket;
    net->next_in_bucket = r->networks_free;
    r->networks_free = net->index + 1;
}

static struct dig_member *member_new(struct dig_reg *r, const struct dig_claim *c)
{
    uint32_t at = r->members_free;

    if (at)
        r->members_free = r->member[at - 1].next_by_id;
    else
        at = ++r->members_fresh;
    ASSERT(at <= r->seats);
    struct dig_member *m = &r->member[at - 1];

    *m = (struct dig_member){
        .index = at - 1,
        .id_n = (uint8_t)c->id.n,
        .verified = c->verified,
        .home = c->home,
        .connected_at_unix_s = c->connected_at_unix_s,
        .serial = ++r->serials,
        .observed = c->observed,
        .source = c->source,
        .id_prefix = dig_order_prefix(c->id),
    };
    if (c->id.n)
        memcpy(m->id, c->id.p, c->id.n);
    return m;
}

/* What a refresh may change. */
static bool member_say(struct dig_member *m, const struct dig_claim *c)
{
    size_t n = c->addrs_n * sizeof(m->addr[0]);
    bool same = m->protocol_version == c->protocol_version && m->addrs_n == c->addrs_n &&
                (n == 0 || memcmp(m->addr, c->addrs, n) == 0);

    m->protocol_version = c->protocol_version;
    m->addrs_n = c->addrs_n;
    if (n)
        memcpy(m->addr, c->addrs, n);
    return !same;
}

static struct dig_member *member_add(struct dig_reg *r, const struct dig_claim *c, uint32_t hash)
{
    struct dig_member *m = member_new(r, c);
    struct dig_order_by by = members_by_id(r);
    uint32_t *id_link = head(r, r->by_id, hash), *home_link;

    (void)member_say(m, c);
    m->id_hash = hash;
    m->next_by_id = *id_link;
    *id_link = m->index + 1;
    m->home_hash = home_hash(r, &m->home);
    home_link = head(r, r->by_home, m->home_hash);
    m->next_by_home = *home_link;
    *home_link = m->index + 1;
    m->source_at = source_add(r, &m->source);
    m->network = network_get(r, c->network);
    m->network->events = ++r->events;
    dig_order_insert(&r->pool, &m->network->by_id, &by, m->index);
    dig_order_insert(&r->pool, &r->all, &by, m->index);
    return m;
}

enum dig_reg_verdict dig_reg_add(struct dig_reg *r, const struct dig_claim *claim,
                                 struct dig_member **member)
{
    ASSERT(claim->id.n <= DIG_NAME_MAX);
    ASSERT(claim->network.n <= DIG_NAME_MAX);
    ASSERT(claim->addrs_n <= DIG_DIALABLE_MAX);
    struct dig_member *own = dig_reg_of(r, &claim->home), *holder;
    uint32_t hash = hash_of(r, claim->id);

    if (own) {
        *member = own;
        if (!bytes_eq(dig_member_id(own), claim->id) ||
            !bytes_eq(dig_network_name(own->network), claim->network))
            return DIG_REG_EVICT;
        if (member_say(own, claim))
            own->network->events = ++r->events;
        return DIG_REG_REFRESHED;
    }
    if (r->source_max && dig_reg_source_count(r, &claim->source) >= r->source_max)
        return DIG_REG_SOURCE_FULL; /* dig.md §6.1: step 2 */
    if (r->all.count >= r->seats || r->all.count >= r->registrants_max)
        return DIG_REG_FULL; /* step 4 */
    holder = find_hashed(r, claim->id, hash);
    if (holder) { /* step 5: unique over all networks */
        *member = holder;
        return claim->verified ? DIG_REG_EVICT : DIG_REG_TAKEN;
    }
    *member = member_add(r, claim, hash);
    return DIG_REG_ADDED;
}

bool dig_reg_remove(struct dig_reg *r, const struct dig_home *home)
{
    struct dig_member *m = dig_reg_of(r, home);
    struct dig_order_by by = members_by_id(r);
    uint32_t *at;

    if (!m)
        return false;
    dig_order_remove(&r->pool, &r->all, &by, m->index);
    dig_order_remove(&r->pool, &m->network->by_id, &by, m->index);
    m->network->events = ++r->events;
    if (m->network->by_id.count == 0)
        network_drop(r, m->network); /* dig.md §21: no memory for made-up names */
    source_remove(r, m->source_at);
    for (at = head(r, r->by_id, m->id_hash); *at != m->index + 1;)
        at = &r->member[*at - 1].next_by_id;
    *at = m->next_by_id;
    for (at = head(r, r->by_home, m->home_hash); *at != m->index + 1;)
        at = &r->member[*at - 1].next_by_home;
    *at = m->next_by_home;
    m->network = NULL;
    m->next_by_id = r->members_free;
    r->members_free = m->index + 1;
    return true;
}

/* ---- lists ---- */

/* What draws the 1024: a seed of 64 bits from the caller's generator, then splitmix64; a call to
 * the kernel each would cost more than the list. */
static uint64_t draw_below(uint64_t *seed, uint64_t bound)
{
    uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return ((z >> 32) * bound) >> 32; /* bound is far below 2^32: the bias is too */
}

/* k of the ranks 0..n-1, each set of k as likely as another (Floyd's way: k draws, no repeats). */
static void sample_ranks(uint64_t *bits, uint32_t n, uint32_t k, uint64_t seed)
{
    for (uint32_t j = n - k; j < n; j++) {
        uint64_t t = draw_below(&seed, j + 1);

        if (bits[t / 64] >> t % 64 & 1)
            t = j;
        bits[t / 64] |= UINT64_C(1) << t % 64;
    }
}

/* The bits of ranks from..from+n-1; n < 64. The table has a word behind its last. */
static uint64_t bits_from(const uint64_t *bits, uint32_t from, uint32_t n)
{
    uint64_t low = bits[from / 64] >> from % 64;
    uint64_t high = from % 64 ? bits[from / 64 + 1] << (64 - from % 64) : 0;

    return (low | high) & ((UINT64_C(1) << n) - 1);
}

/* The ranks count the others, so that the caller, who is on the list in any case, takes none. */
static size_t list_sample(struct dig_reg *r, const struct dig_network *net,
                          const struct dig_member *self, const struct dig_rng *rng,
                          const struct dig_member **out, uint32_t max)
{
    uint32_t others = net->by_id.count - (self != NULL), base = 0;
    struct dig_order_by by = members_by_id(r);
    struct dig_order_at me = { 0, 0 };
    size_t n = 0;

    if (self)
        me = dig_order_seek(&r->pool, &net->by_id, &by,
                            (struct dig_order_key){ self->id_prefix, dig_member_id(self) });
    sample_ranks(r->sampled, others, max - (self != NULL), rng->u64(rng->arg));
    for (uint32_t c = net->by_id.next[0]; c; c = r->pool.chunk[c - 1].next[0]) {
        const struct dig_order_chunk *chunk = &r->pool.chunk[c - 1];
        bool mine = c == me.chunk;
        uint32_t here = chunk->n - mine;
        uint64_t bits = bits_from(r->sampled, base, here);

        for (; bits; bits &= bits - 1) {
            uint32_t pos = (uint32_t)__builtin_ctzll(bits);

            if (mine && pos >= me.pos) {
                out[n++] = self;
                mine = false;
            }
            out[n++] = &r->member[chunk->item[pos + (c == me.chunk && pos >= me.pos)]];
        }
        if (mine)
            out[n++] = self;
        base += here;
    }
    memset(r->sampled, 0, (others / 64 + 1) * sizeof(r->sampled[0]));
    return n;
}

size_t dig_reg_list(struct dig_reg *r, const struct dig_network *net, const struct dig_member *self,
                    const struct dig_rng *rng, const struct dig_member **out, size_t max)
{
    size_t n = 0;

    ASSERT(max > 0);
    ASSERT(max <= DIG_REG_LIST_MAX);
    if (net->by_id.count > max)
        return list_sample(r, net, self && self->network == net ? self : NULL, rng, out,
                           (uint32_t)max);
    for (uint32_t c = net->by_id.next[0]; c; c = r->pool.chunk[c - 1].next[0]) {
        const struct dig_order_chunk *chunk = &r->pool.chunk[c - 1];

        for (uint32_t i = 0; i < chunk->n; i++)
            out[n++] = &r->member[chunk->item[i]];
    }
    return n;
}

/* The first place behind `after`. */
static struct dig_order_at behind(const struct dig_reg *r, const struct dig_order *o,
                                  const struct dig_order_by *by, struct bytes after)
{
    if (!after.p)
        return dig_order_first(o);
    struct dig_order_at at =
        dig_order_seek(&r->pool, o, by, (struct dig_order_key){ dig_order_prefix(after), after });

    if (dig_order_some(at) && bytes_eq(by->whole(r, dig_order_item(&r->pool, at)), after))
        at = dig_order_next(&r->pool, at);
    return at;
}

static size_t page(const struct dig_reg *r, const struct dig_order *o, struct bytes after,
                   const struct dig_member **out, size_t max)
{
    struct dig_order_by by = members_by_id(r);
    struct dig_order_at at = behind(r, o, &by, after);
    size_t n = 0;

    for (; n < max && dig_order_some(at); at = dig_order_next(&r->pool, at))
        out[n++] = &r->member[dig_order_item(&r->pool, at)];
    return n;
}

size_t dig_reg_page(const struct dig_reg *r, struct bytes after, const struct dig_member **out,
                    size_t max)
{
    return page(r, &r->all, after, out, max);
}

size_t dig_reg_network_page(const struct dig_reg *r, const struct dig_network *net,
                            struct bytes after, const struct dig_member **out, size_t max)
{
    return page(r, &net->by_id, after, out, max);
}

size_t dig_reg_networks_page(const struct dig_reg *r, struct bytes after,
                             const struct dig_network **out, size_t max)
{
    struct dig_order_by by = networks_by_name(r);
    struct dig_order_at at = behind(r, &r->networks, &by, after);
    size_t n = 0;

    for (; n < max && dig_order_some(at); at = dig_order_next(&r->pool, at))
        out[n++] = &r->network[dig_order_item(&r->pool, at)];
    return n;
}
