/* TCP allocations (RFC 6062, turn.md §12): who connects to whom, and which stream belongs to which.
 * The bytes are not ours. */
#include "proto/crypto.h"
#include "proto/turn.h"
#include "proto/turn_int.h"

/* ---- the table ----------------------------------------------------------------------------- */

static uint32_t new_id(struct turn *t)
{
    uint32_t id;

    do { /* fewer are alive than there are numbers */
        id = turn_id_make(t);
    } while (turn_conn_find(t, id));
    return id;
}

void turn_conns_init(struct turn *t, struct turn_conn *conns)
{
    const struct turn_limits *l = &t->config.limits;

    ASSERT(l->conns_max < UINT32_C(1) << TURN_ID_COUNT_BITS);
    ASSERT(l->conns_max == 0 || l->alloc_conns_max > 0);
    for (uint32_t i = 0; i < l->conns_max; i++)
        list_append(&t->free_conns, &conns[i].by_expiry);
}

struct turn_conn *turn_conn_find(struct turn *t, uint32_t id)
{
    struct turn_conn *c = t->conn_bucket[id & t->conn_mask];

    while (c && c->id != id)
        c = c->next_in_bucket;
    return c;
}

/* Out of everything that leads to it, but not free yet. */
static void conn_detach(struct turn *t, struct turn_conn *c)
{
    struct turn_conn **head = &t->conn_bucket[c->id & t->conn_mask];

    if (c->state == TURN_CONN_ENDED) {
        list_remove(&t->conns_ended, &c->by_expiry);
        return;
    }
    while (*head != c) {
        ASSERT(*head);
        head = &(*head)->next_in_bucket;
    }
    *head = c->next_in_bucket;
    list_remove(&c->alloc->conns, &c->of_alloc);
    if (c->state != TURN_CONN_BOUND)
        list_remove(&t->conns_by_expiry, &c->by_expiry);
}

void turn_conn_end(struct turn *t, struct turn_conn *c)
{
    conn_detach(t, c);
    crypto_wipe(&c->key, sizeof(c->key));
    c->state = TURN_CONN_ENDED;
    list_append(&t->free_conns, &c->by_expiry);
    t->conns--;
}

/* NULL: full. The caller has looked whether the allocation may have another. */
static struct turn_conn *conn_new(struct turn *t, uint64_t now_ms, struct turn_alloc *a,
                                  const struct netaddr *peer)
{
    struct link *k = list_pop(&t->free_conns);

    if (!k)
        return NULL;
    struct turn_conn *c = CONTAINER_OF(k, struct turn_conn, by_expiry);
    uint32_t generation = c->generation + 1, id = new_id(t);
    struct turn_conn **head = &t->conn_bucket[id & t->conn_mask];

    *c = (struct turn_conn){ .next_in_bucket = *head,
                             .alloc = a,
                             .id = id,
                             .generation = generation,
                             .expires_ms = now_ms + TURN_CONN_MS,
                             .peer = *peer };
    *head = c;
    list_append(&a->conns, &c->of_alloc);
    list_append(&t->conns_by_expiry, &c->by_expiry);
    t->conns++;
    return c;
}

/* At most alloc_conns_max of them. */
static bool has_conn(const struct turn_alloc *a, const struct netaddr *peer)
{
    for (const struct link *k = a->conns.first; k; k = k->next)
        if (turn_same_addr(&CONTAINER_OF(k, struct turn_conn, of_alloc)->peer, peer))
            return true;
    return false;
}

void turn_conns_end(struct turn *t, struct turn_alloc *a, bool v4, bool v6)
{
    struct link *next;

    for (struct link *k = a->conns.first; k; k = next) {
        struct turn_conn *c = CONTAINER_OF(k, struct turn_conn, of_alloc);

        next = k->next;
        if (turn_family_of(&c->peer) == TURN_V4 ? !v4 : !v6)
            continue;
        conn_detach(t, c);
        c->state = TURN_CONN_ENDED;
        c->alloc = NULL;
        list_append(&t->conns_ended, &c->by_expiry);
    }
}

/* ---- answers ------------------------------------------------------------------------------- */

static void answer_connect(const struct turn_conn *c, unsigned code, struct turn_out *out)
{
    const struct turn_seal seal = { c->reply_mac, c->key, c->fingerprint };
    uint8_t id[STUN_ID];
    struct stun_build b;

    ASSERT(out->cap >= TURN_REPLY_MAX);
    stun_id_of(c->tid, id);
    turn_reply_begin(out, &b, stun_type(STUN_CONNECT, code ? STUN_ERROR : STUN_SUCCESS), id);
    if (code)
        stun_put_error(&b, code, bytes_of(NULL, 0));
    else
        stun_put_u32(&b, STUN_CONNECTION_ID, c->id);
    turn_reply_end(out, &b, &seal);
    out->code = (uint16_t)code;
}

bool turn_conns_expire(struct turn *t, uint64_t now_ms, struct turn_out *out)
{
    struct link *k = t->conns_ended.first ? t->conns_ended.first : t->conns_by_expiry.first;

    if (!k)
        return false;
    struct turn_conn *c = CONTAINER_OF(k, struct turn_conn, by_expiry);

    if (c->state != TURN_CONN_ENDED && c->expires_ms > now_ms)
        return false;
    out->act = TURN_CLOSE;
    out->conn = c;
    out->alloc = c->alloc;
    if (c->state == TURN_CONN_CONNECTING)
        answer_connect(c, 447, out);
    turn_conn_end(t, c);
    return true;
}

/* ---- requests ------------------------------------------------------------------------------ */

static unsigned judge_connect(const struct turn_req *r, struct stun_addr *peer)
{
    const struct turn_alloc *a = r->alloc;

    if (!a->tcp)
        return 403;
    if (!stun_addr(r->m, STUN_XOR_PEER_ADDRESS, peer) || peer->addr.port == 0)
        return 400;
    unsigned code = turn_judge_peer(r, peer);

    if (code)
        return code;
    if (has_conn(a, &peer->addr))
        return 446;
    if (a->conns.count >= r->t->config.limits.alloc_conns_max)
        return 486;
    return r->t->free_conns.count ? 0 : 508;
}

/* The answer comes with the peer's (RFC 6062 §5.2). */
void turn_on_connect(struct turn_req *r)
{
    struct stun_addr peer;
    unsigned code = judge_connect(r, &peer);

    if (code) {
        turn_reply_error(r->out, r->m, code, &r->seal);
        return;
    }
    struct turn_conn *c = conn_new(r->t, r->now.ms, r->alloc, &peer.addr);

    ASSERT(c);
    c->state = TURN_CONN_CONNECTING;
    memcpy(c->tid, stun_id(r->m) + 4, STUN_TID);
    c->reply_mac = r->seal.mac;
    c->key = r->seal.key;
    c->fingerprint = r->seal.fingerprint;
    r->out->act = TURN_CONNECT;
    r->out->conn = c;
    r->out->peer = peer.addr;
}

void turn_on_connected(struct turn *t, uint64_t now_ms, struct turn_conn *c, bool ok,
                       struct turn_out *out)
{
    *out = turn_out_of(out->buf, out->cap);
    out->conn = c;
    if (c->state == TURN_CONN_ENDED) {
        out->drop = TURN_DROP_ALLOCATION;
        return;
    }
    ASSERT(c->state == TURN_CONN_CONNECTING);
    out->alloc = c->alloc;
    answer_connect(c, ok ? 0 : 447, out);
    if (!ok) {
        turn_conn_end(t, c);
        return;
    }
    c->state = TURN_CONN_WAITING;
    c->expires_ms = now_ms + TURN_CONN_MS;
    list_remove(&t->conns_by_expiry, &c->by_expiry);
    list_append(&t->conns_by_expiry, &c->by_expiry);
}

void turn_on_incoming(struct turn *t, uint64_t now_ms, struct turn_alloc *a,
                      const struct netaddr *peer, const uint8_t tid[STUN_TID], struct turn_out *out)
{
    const struct turn_config *config = &t->config;
    const struct turn_seal seal = { .mac = STUN_MAC_NONE, .fingerprint = a->fingerprint };
    struct stun_addr address = stun_addr_of(peer);
    struct turn_conn *c = NULL;
    uint8_t id[STUN_ID];
    struct stun_build b;

    ASSERT(out->cap >= TURN_REPLY_MAX);
    ASSERT(a->tcp);
    *out = turn_out_of(out->buf, out->cap);
    out->alloc = a;
    if (!turn_perm_find(t, now_ms, a, peer->ip))
        out->drop = TURN_DROP_PERMISSION;
    else if (!a->half[turn_family_of(peer)].live || peer->port == 0 ||
             !config->peer_ok(config->arg, peer))
        out->drop = TURN_DROP_PEER;
    else if (has_conn(a, peer) || a->conns.count >= config->limits.alloc_conns_max ||
             !(c = conn_new(t, now_ms, a, peer)))
        out->drop = TURN_DROP_ROOM;
    if (!c)
        return;
    c->state = TURN_CONN_WAITING;
    out->conn = c;
    stun_id_of(tid, id);
    turn_reply_begin(out, &b, stun_type(STUN_CONNECTION_ATTEMPT, STUN_INDICATION), id);
    stun_put_u32(&b, STUN_CONNECTION_ID, c->id);
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &address);
    turn_reply_end(out, &b, &seal);
}

/* On a stream of its own, by who owns the allocation (RFC 6062 §5.4). */
void turn_on_connection_bind(struct turn_req *r)
{
    struct turn_conn *c = r->conn; /* only looked for on streams */
    struct stun_build b;

    if (r->alloc || !c || c->state != TURN_CONN_WAITING || c->expires_ms <= r->now.ms ||
        !crypto_equal(r->owner, c->alloc->owner, TURN_OWNER)) {
        turn_reply_error(r->out, r->m, 400, &r->seal);
        return;
    }
    list_remove(&r->t->conns_by_expiry, &c->by_expiry);
    c->state = TURN_CONN_BOUND;
    r->out->act = TURN_JOIN;
    r->out->alloc = c->alloc;
    r->out->conn = c;
    turn_reply_begin(r->out, &b, stun_type(STUN_CONNECTION_BIND, STUN_SUCCESS), stun_id(r->m));
    turn_reply_end(r->out, &b, &r->seal);
}
