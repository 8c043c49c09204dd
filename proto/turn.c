/* The tables: who is where until when. */
#include "proto/turn.h"

#include "proto/crypto.h"
#include "proto/turn_int.h"

#define NOT_IN_HEAP UINT32_MAX

static uint32_t buckets_of(uint32_t max)
{
    uint32_t n = 1;

    while (n < max && n < UINT32_C(1) << 31)
        n <<= 1;
    return n;
}

/* The same sum twice: first without memory to learn its size, then to deal it out. */
static void *deal(uint8_t **memory, size_t *sum, size_t count, size_t each)
{
    size_t n = (count * each + 15) & ~(size_t)15;
    uint8_t *at = *memory;

    *sum += n;
    if (at)
        *memory = at + n;
    return at;
}

struct tables {
    struct turn_alloc *allocs;
    struct turn_perm *perms;
    struct turn_chan *chans;
    struct turn_conn *conns;
};

static size_t deal_all(struct turn *t, const struct turn_limits *l, uint8_t *memory,
                       struct tables *tables)
{
    size_t sum = 0;
    uint32_t allocs = buckets_of(l->allocs_max), perms = buckets_of(l->perms_max);
    uint32_t chans = buckets_of(l->chans_max), conns = buckets_of(l->conns_max);

    tables->allocs = deal(&memory, &sum, l->allocs_max, sizeof(struct turn_alloc));
    tables->perms = deal(&memory, &sum, l->perms_max, sizeof(struct turn_perm));
    tables->chans = deal(&memory, &sum, l->chans_max, sizeof(struct turn_chan));
    tables->conns = deal(&memory, &sum, l->conns_max, sizeof(struct turn_conn));
    t->heap = deal(&memory, &sum, l->allocs_max, sizeof(void *));
    t->seat_bucket = deal(&memory, &sum, allocs, sizeof(void *));
    t->perm_bucket = deal(&memory, &sum, perms, sizeof(void *));
    t->number_bucket = deal(&memory, &sum, chans, sizeof(void *));
    t->peer_bucket = deal(&memory, &sum, chans, sizeof(void *));
    t->conn_bucket = deal(&memory, &sum, conns, sizeof(void *));
    t->conn_mask = conns - 1;
    t->alloc_mask = allocs - 1;
    t->perm_mask = perms - 1;
    t->chan_mask = chans - 1;
    return sum;
}

size_t turn_memory_bytes(const struct turn_limits *l)
{
    struct turn t;
    struct tables tables;

    return deal_all(&t, l, NULL, &tables);
}

static void check_behaviour(const struct turn_behaviour *b, enum turn_family f)
{
    struct netaddr at[2] = { { .port = b->port[0] }, { .port = b->port[1] } };

    if (!b->on)
        return;
    for (int i = 0; i < 2; i++) {
        memcpy(at[i].ip, b->ip[i], sizeof(at[i].ip));
        ASSERT(turn_family_of(&at[i]) == f);
        ASSERT(at[i].port != 0);
    }
    ASSERT(at[0].port != at[1].port);
    ASSERT(memcmp(at[0].ip, at[1].ip, sizeof(at[0].ip)) != 0);
}

void turn_init(struct turn *t, const struct turn_config *config, void *memory,
               const uint8_t key[16])
{
    const struct turn_limits *l = &config->limits;
    struct tables tables;

    ASSERT(l->lifetime_max_ms >= TURN_LIFETIME_MS);
    ASSERT(l->alloc_perms_max > 0 && l->alloc_chans_max > 0);
    ASSERT(config->realm.name.n <= TURN_REALM_MAX);
    ASSERT(config->peer_ok);
    for (int f = 0; f < TURN_FAMILIES; f++)
        check_behaviour(&config->behaviour[f], (enum turn_family)f);
    memset(t, 0, sizeof(*t));
    t->config = *config;
    memcpy(t->key, key, sizeof(t->key));
    ASSERT(config->place.shards == 0 || config->place.shard < config->place.shards);
    deal_all(t, l, memory, &tables);
    t->slots = tables.allocs;
    t->perm_table = tables.perms;
    t->chan_table = tables.chans;
    turn_id_init(t);
    turn_conns_init(t, tables.conns);
}

enum turn_family turn_family_of(const struct netaddr *a)
{
    return netaddr_is4(a) ? TURN_V4 : TURN_V6;
}

/* ---- hashes -------------------------------------------------------------------------------- */

/* Clients choose their addresses, and peers': the hash is keyed. */
static uint32_t hash_of(const struct turn *t, const void *owner, const struct netaddr *a,
                        const struct netaddr *b, uint32_t number)
{
    uint8_t text[sizeof(uintptr_t) + 18 + 18 + 4] = { 0 };
    uintptr_t p = (uintptr_t)owner;
    struct wcur w = wcur_of(text, sizeof(text));

    wcur_put(&w, bytes_of(&p, sizeof(p)));
    wcur_u32(&w, number);
    if (a) {
        wcur_put(&w, bytes_of(a->ip, sizeof(a->ip)));
        wcur_u16(&w, a->port);
    }
    if (b) {
        wcur_put(&w, bytes_of(b->ip, sizeof(b->ip)));
        wcur_u16(&w, b->port);
    }
    ASSERT(!w.bad);
    return (uint32_t)crypto_siphash(t->key, bytes_of(text, w.wrote));
}

static struct turn_seat **seat_head(struct turn *t, const struct turn_tuple *k)
{
    return &t->seat_bucket[hash_of(t, NULL, &k->client, &k->server, k->transport) & t->alloc_mask];
}

static struct turn_perm **perm_head(struct turn *t, const struct turn_alloc *a,
                                    const uint8_t ip[16])
{
    struct netaddr key = { .port = 0 };

    memcpy(key.ip, ip, sizeof(key.ip));
    return &t->perm_bucket[hash_of(t, a, &key, NULL, 0) & t->perm_mask];
}

static struct turn_chan **number_head(struct turn *t, const struct turn_alloc *a, uint16_t number)
{
    return &t->number_bucket[hash_of(t, a, NULL, NULL, number) & t->chan_mask];
}

static struct turn_chan **peer_head(struct turn *t, const struct turn_alloc *a,
                                    const struct netaddr *peer)
{
    return &t->peer_bucket[hash_of(t, a, peer, NULL, 0) & t->chan_mask];
}

/* ---- the heap of halves -------------------------------------------------------------------- */

static uint64_t due_ms(const struct turn_alloc *a)
{
    uint64_t due = UINT64_MAX;

    for (int f = 0; f < TURN_FAMILIES; f++)
        if (a->half[f].live)
            due = min_u64(due, a->half[f].expires_ms);
    return due;
}

static void heap_place(struct turn *t, uint32_t at, struct turn_alloc *a)
{
    t->heap[at] = a;
    a->heap_at = at;
}

static void heap_up(struct turn *t, uint32_t at, struct turn_alloc *a)
{
    while (at && due_ms(t->heap[(at - 1) / 2]) > due_ms(a)) {
        heap_place(t, at, t->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_place(t, at, a);
}

static void heap_down(struct turn *t, uint32_t at, struct turn_alloc *a)
{
    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child + 1 < t->heap_count && due_ms(t->heap[child + 1]) < due_ms(t->heap[child]))
            child++;
        if (child >= t->heap_count || due_ms(t->heap[child]) >= due_ms(a))
            break;
        heap_place(t, at, t->heap[child]);
        at = child;
    }
    heap_up(t, at, a);
}

static void heap_remove(struct turn *t, struct turn_alloc *a)
{
    uint32_t at = a->heap_at;

    if (at == NOT_IN_HEAP)
        return;
    struct turn_alloc *last = t->heap[--t->heap_count];

    a->heap_at = NOT_IN_HEAP;
    if (last != a)
        heap_down(t, at, last);
}

void turn_heap_set(struct turn *t, struct turn_alloc *a)
{
    heap_remove(t, a);
    if (due_ms(a) != UINT64_MAX)
        heap_up(t, t->heap_count++, a);
}

uint64_t turn_deadline_ms(const struct turn *t)
{
    uint64_t due = t->heap_count ? due_ms(t->heap[0]) : UINT64_MAX;
    const struct link *p = t->perms_by_expiry.first, *c = t->chans_by_expiry.first;

    if (p)
        due = min_u64(due, CONTAINER_OF(p, struct turn_perm, by_expiry)->expires_ms);
    if (c)
        due = min_u64(due, CONTAINER_OF(c, struct turn_chan, by_expiry)->expires_ms);
    if (t->conns_by_expiry.first)
        due = min_u64(
            due, CONTAINER_OF(t->conns_by_expiry.first, struct turn_conn, by_expiry)->expires_ms);
    if (t->conns_ended.first)
        due = 0;
    if (t->moving.first)
        due = min_u64(due, CONTAINER_OF(t->moving.first, struct turn_alloc, by_move)->move_ms);
    return due;
}

/* ---- permissions and channels -------------------------------------------------------------- */

/* Ours: a pointer in a chain that is not there is a broken table. */
#define UNCHAIN(head, entry, next)                                                                 \
    do {                                                                                           \
        while (*(head) != (entry)) {                                                               \
            ASSERT(*(head));                                                                       \
            (head) = &(*(head))->next;                                                             \
        }                                                                                          \
        *(head) = (entry)->next;                                                                   \
    } while (0)

static void perm_free(struct turn *t, struct turn_perm *p)
{
    struct turn_perm **head = perm_head(t, p->alloc, p->ip);

    UNCHAIN(head, p, next_in_bucket);
    list_remove(&p->alloc->perms, &p->of_alloc);
    list_remove(&t->perms_by_expiry, &p->by_expiry);
    list_append(&t->free_perms, &p->by_expiry);
    t->perms--;
}

static void chan_free(struct turn *t, struct turn_chan *c)
{
    struct turn_chan **by_number = number_head(t, c->alloc, c->number);
    struct turn_chan **by_peer = peer_head(t, c->alloc, &c->peer);

    UNCHAIN(by_number, c, next_by_number);
    UNCHAIN(by_peer, c, next_by_peer);
    list_remove(&c->alloc->chans, &c->of_alloc);
    list_remove(&t->chans_by_expiry, &c->by_expiry);
    list_append(&t->free_chans, &c->by_expiry);
    t->chans--;
}

/* All live equally long, so the order of refreshing is the order of expiry. A bounded number at a
 * time: a million that end together must not hold up the next datagram. */
void turn_sweep(struct turn *t, uint64_t now_ms)
{
    for (int n = 0; n < TURN_SWEEP_MAX && t->perms_by_expiry.first; n++) {
        struct turn_perm *p = CONTAINER_OF(t->perms_by_expiry.first, struct turn_perm, by_expiry);

        if (p->expires_ms > now_ms)
            break;
        perm_free(t, p);
    }
    for (int n = 0; n < TURN_SWEEP_MAX && t->chans_by_expiry.first; n++) {
        struct turn_chan *c = CONTAINER_OF(t->chans_by_expiry.first, struct turn_chan, by_expiry);

        if (c->expires_ms > now_ms)
            break;
        chan_free(t, c);
    }
}

/* Live, or expired and not swept yet. */
static struct turn_perm *any_perm(struct turn *t, const struct turn_alloc *a, const uint8_t ip[16])
{
    struct turn_perm *p = *perm_head(t, a, ip);

    while (p && (p->alloc != a || memcmp(p->ip, ip, sizeof(p->ip)) != 0))
        p = p->next_in_bucket;
    return p;
}

struct turn_perm *turn_perm_find(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                 const uint8_t ip[16])
{
    struct turn_perm *p = any_perm(t, a, ip);

    return p && p->expires_ms > now_ms ? p : NULL;
}

bool turn_perm_room(const struct turn *t, const struct turn_alloc *a, size_t more)
{
    const struct turn_limits *l = &t->config.limits;

    return more <= l->perms_max - t->perms && a->perms.count + more <= l->alloc_perms_max;
}

void turn_perm_put(struct turn *t, uint64_t now_ms, struct turn_alloc *a, const uint8_t ip[16])
{
    struct turn_perm *p = any_perm(t, a, ip);

    if (p && p->expires_ms <= now_ms) { /* then it is a new one, the last of a->perms */
        perm_free(t, p);
        p = NULL;
    }
    if (p) {
        list_remove(&t->perms_by_expiry, &p->by_expiry);
    } else {
        struct turn_perm **head = perm_head(t, a, ip);
        struct link *k = list_pop(&t->free_perms);

        ASSERT(k || t->fresh_perms < t->config.limits.perms_max);
        p = k ? CONTAINER_OF(k, struct turn_perm, by_expiry) : &t->perm_table[t->fresh_perms++];
        memcpy(p->ip, ip, sizeof(p->ip));
        p->alloc = a;
        p->next_in_bucket = *head;
        *head = p;
        list_append(&a->perms, &p->of_alloc);
        t->perms++;
    }
    p->expires_ms = now_ms + TURN_PERMISSION_MS;
    list_append(&t->perms_by_expiry, &p->by_expiry);
}

void turn_perm_undo(struct turn *t, struct turn_alloc *a, size_t n)
{
    for (; n; n--)
        perm_free(t, CONTAINER_OF(a->perms.last, struct turn_perm, of_alloc));
}

static struct turn_chan *any_number(struct turn *t, const struct turn_alloc *a, uint16_t number)
{
    struct turn_chan *c = *number_head(t, a, number);

    while (c && (c->alloc != a || c->number != number))
        c = c->next_by_number;
    return c;
}

static struct turn_chan *any_peer(struct turn *t, const struct turn_alloc *a,
                                  const struct netaddr *peer)
{
    struct turn_chan *c = *peer_head(t, a, peer);

    while (c && (c->alloc != a || !turn_same_addr(&c->peer, peer)))
        c = c->next_by_peer;
    return c;
}

static struct turn_chan *if_live(struct turn_chan *c, uint64_t now_ms)
{
    return c && c->expires_ms > now_ms ? c : NULL;
}

struct turn_chan *turn_chan_by_number(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                      uint16_t number)
{
    return if_live(any_number(t, a, number), now_ms);
}

struct turn_chan *turn_chan_by_peer(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                    const struct netaddr *peer)
{
    return if_live(any_peer(t, a, peer), now_ms);
}

bool turn_chan_room(const struct turn *t, const struct turn_alloc *a)
{
    return t->chans < t->config.limits.chans_max &&
           a->chans.count < t->config.limits.alloc_chans_max;
}

static void chan_insert(struct turn *t, struct turn_alloc *a, struct turn_chan *c)
{
    struct turn_chan **by_number = number_head(t, a, c->number);
    struct turn_chan **by_peer = peer_head(t, a, &c->peer);

    c->alloc = a;
    c->next_by_number = *by_number;
    *by_number = c;
    c->next_by_peer = *by_peer;
    *by_peer = c;
    list_append(&a->chans, &c->of_alloc);
    t->chans++;
}

void turn_chan_put(struct turn *t, uint64_t now_ms, struct turn_alloc *a, uint16_t number,
                   const struct netaddr *peer)
{
    struct turn_chan *c = any_number(t, a, number), *other = any_peer(t, a, peer);

    if (other && other != c) /* expired, or the caller would not bind its peer again */
        chan_free(t, other);
    if (c && c != other) { /* expired likewise */
        chan_free(t, c);
        c = NULL;
    }
    if (c) {
        list_remove(&t->chans_by_expiry, &c->by_expiry);
    } else {
        struct link *k = list_pop(&t->free_chans);

        ASSERT(k || t->fresh_chans < t->config.limits.chans_max);
        c = k ? CONTAINER_OF(k, struct turn_chan, by_expiry) : &t->chan_table[t->fresh_chans++];
        c->number = number;
        c->peer = *peer;
        chan_insert(t, a, c);
    }
    c->expires_ms = now_ms + TURN_CHANNEL_MS;
    list_append(&t->chans_by_expiry, &c->by_expiry);
}

/* ---- allocations --------------------------------------------------------------------------- */

struct turn_alloc *turn_find(struct turn *t, const struct turn_tuple *tuple)
{
    struct turn_seat *s = *seat_head(t, tuple);

    while (s && !turn_same_tuple(&s->tuple, tuple))
        s = s->next_in_bucket;
    return s ? s->alloc : NULL;
}

void turn_seat_take(struct turn *t, struct turn_seat *s, struct turn_alloc *a,
                    const struct turn_tuple *tuple)
{
    struct turn_seat **head = seat_head(t, tuple);

    ASSERT(!s->alloc);
    *s = (struct turn_seat){ .next_in_bucket = *head, .alloc = a, .tuple = *tuple };
    *head = s;
}

void turn_seat_leave(struct turn *t, struct turn_seat *s)
{
    struct turn_seat **head = seat_head(t, &s->tuple);

    if (!s->alloc)
        return;
    UNCHAIN(head, s, next_in_bucket);
    s->alloc = NULL;
}

struct turn_alloc *turn_alloc_new(struct turn *t, const struct turn_tuple *tuple)
{
    struct link *k = list_pop(&t->free_allocs);

    if (!k && t->fresh_allocs == t->config.limits.allocs_max)
        return NULL;
    struct turn_alloc *a =
        k ? CONTAINER_OF(k, struct turn_alloc, link) : &t->slots[t->fresh_allocs++];
    uint32_t generation = a->generation + 1;

    *a = (struct turn_alloc){ .generation = generation, .tuple = *tuple, .heap_at = NOT_IN_HEAP };
    turn_seat_take(t, &a->seat[0], a, tuple);
    t->allocs++;
    return a;
}

void turn_alloc_free(struct turn *t, struct turn_alloc *a)
{
    while (a->perms.first)
        perm_free(t, CONTAINER_OF(a->perms.first, struct turn_perm, of_alloc));
    while (a->chans.first)
        chan_free(t, CONTAINER_OF(a->chans.first, struct turn_chan, of_alloc));
    turn_conns_end(t, a, true, true);
    heap_remove(t, a);
    if (turn_is_moving(a))
        list_remove(&t->moving, &a->by_move);
    turn_seat_leave(t, &a->seat[0]);
    turn_seat_leave(t, &a->seat[1]);
    a->mobile = false; /* no ticket leads to a free slot */
    crypto_wipe(&a->key, sizeof(a->key));
    list_append(&t->free_allocs, &a->link);
    t->allocs--;
}

void turn_delete(struct turn *t, struct turn_alloc *a)
{
    turn_alloc_free(t, a);
}

void turn_half_end(struct turn *t, struct turn_alloc *a, enum turn_family f, struct turn_out *out)
{
    ASSERT(a->half[f].live);
    a->half[f].live = false;
    out->act = TURN_RELEASE;
    out->alloc = a;
    out->released[f] = true;
    turn_conns_end(t, a, f == TURN_V4, f == TURN_V6);
    turn_heap_set(t, a);
    out->gone = !a->half[TURN_V4].live && !a->half[TURN_V6].live;
}

bool turn_expire(struct turn *t, uint64_t now_ms, struct turn_out *out)
{
    *out = turn_out_of(out->buf, out->cap);
    turn_sweep(t, now_ms);
    if (turn_conns_expire(t, now_ms, out))
        return true;
    if (t->moving.first) {
        struct turn_alloc *a = CONTAINER_OF(t->moving.first, struct turn_alloc, by_move);

        if (a->move_ms <= now_ms) {
            turn_move_end(t, a, out);
            return true;
        }
    }
    if (t->heap_count == 0 || due_ms(t->heap[0]) > now_ms)
        return false;
    struct turn_alloc *a = t->heap[0];

    for (int f = 0; f < TURN_FAMILIES; f++)
        if (a->half[f].live && a->half[f].expires_ms <= now_ms)
            turn_half_end(t, a, (enum turn_family)f, out);
    if (out->gone)
        turn_alloc_free(t, a);
    return true;
}
