/* The requests of TURN: credentials first, then the order of decisions of turn.md §9. */
#include "proto/turn.h"

#include "proto/crypto.h"
#include "proto/turn_int.h"

/* ---- answers ------------------------------------------------------------------------------- */

static void refuse(struct turn_req *r, unsigned code)
{
    turn_reply_error(r->out, r->m, code, &r->seal);
}

static void begin_success(struct turn_req *r, struct stun_build *b)
{
    turn_reply_begin(r->out, b, stun_type(stun_method_of(r->m->type), STUN_SUCCESS), stun_id(r->m));
}

static void plain_success(struct turn_req *r)
{
    struct stun_build b;

    begin_success(r, &b);
    turn_reply_end(r->out, &b, &r->seal);
}

/* 401 and 438: what the client needs to come again, and no integrity (RFC 8489 §9.2.4). */
static void challenge(struct turn_req *r, unsigned code)
{
    struct turn_seal seal = { .mac = STUN_MAC_NONE, .fingerprint = r->seal.fingerprint };
    struct stun_build b;

    turn_reply_begin(r->out, &b, stun_type(stun_method_of(r->m->type), STUN_ERROR), stun_id(r->m));
    stun_put_error(&b, code, bytes_of(NULL, 0));
    stun_put_challenge(&b, &r->t->config.realm, r->now.ms, &r->tuple->client);
    turn_reply_end(r->out, &b, &seal);
    r->out->code = (uint16_t)code;
}

/* ---- credentials --------------------------------------------------------------------------- */

/* Static users first: their names cannot be ephemeral by accident. The key of a live allocation is
 * the one that it began with (turn.md §8.2), so that refreshing needs no lookup and survives a
 * reload. */
static unsigned find_key(struct turn_req *r)
{
    const struct turn_config *c = &r->t->config;
    const struct turn_alloc *a = r->keyed;
    struct stun_key *key = &r->seal.key;
    struct stun_ephemeral e;

    if (a && r->auth.alg == a->alg && crypto_equal(r->owner, a->owner, TURN_OWNER)) {
        *key = a->key;
        return stun_auth_verify(r->m, &r->auth, key);
    }
    if (c->find_user && c->find_user(c->arg, &r->auth, key))
        return stun_auth_verify(r->m, &r->auth, key);
    if (r->auth.username.n == 0 || c->secrets.count == 0 ||
        !stun_ephemeral_read(&c->secrets, r->auth.username, &e))
        return stun_auth_verify(r->m, &r->auth, NULL);
    return stun_ephemeral_verify(&c->secrets, &c->realm, r->m, &r->auth, key);
}

/* An ephemeral name must not begin anything after its time; what it began goes on (long calls),
 * unless the operator is strict (turn.md §8.3). A static user's name may look like one. */
static bool name_alive(struct turn_req *r)
{
    const struct turn_config *c = &r->t->config;
    struct stun_ephemeral e;
    struct stun_key key;

    r->quota = r->auth.username.n ? r->auth.username : r->auth.userhash;
    if (c->secrets.count == 0 || !stun_ephemeral_read(&c->secrets, r->auth.username, &e))
        return true;
    if (c->find_user && c->find_user(c->arg, &r->auth, &key))
        return true;
    if (e.id.n)
        r->quota = e.id;
    if (stun_method_of(r->m->type) != STUN_ALLOCATE && !c->limits.strict_expiry)
        return true;
    return stun_ephemeral_alive(&c->secrets, &e, r->now.unix_s);
}

/* What a client has carried here from another 5-tuple. true: it is another shard's, who will ask
 * for the credentials himself. The nonce has told already that the client hears us. */
static bool is_elsewhere(struct turn_req *r)
{
    const struct turn_place *here = &r->t->config.place;
    uint16_t method = stun_method_of(r->m->type), shard = here->shard;
    bool stream = r->tuple->transport == TURN_TCP || r->tuple->transport == TURN_TLS;

    if (method == STUN_REFRESH && r->t->config.limits.mobility) {
        turn_ticket_read(r->t, stun_value(r->m, STUN_MOBILITY_TICKET), &r->ticket);
        r->keyed = r->ticket.alloc;
        if (r->ticket.ours)
            shard = r->ticket.shard;
    } else if (method == STUN_CONNECTION_BIND && stream && stun_has(r->m, STUN_CONNECTION_ID)) {
        uint32_t id = stun_u32(r->m, STUN_CONNECTION_ID);

        r->conn = turn_conn_find(r->t, id);
        r->keyed = r->conn ? r->conn->alloc : NULL;
        shard = turn_id_shard(r->t, id);
    } else if (method == STUN_ALLOCATE && stun_has(r->m, STUN_RESERVATION_TOKEN)) {
        shard = turn_token_shard(r->t, stun_value(r->m, STUN_RESERVATION_TOKEN));
    }
    if (r->alloc) /* then it must be answered here, whatever it names */
        r->keyed = r->alloc;
    if (r->alloc || shard == here->shard || shard >= here->shards)
        return false;
    r->out->act = TURN_ELSEWHERE;
    r->out->shard = shard;
    return true;
}

/* The order of turn.md §8.1. false: answered, or not ours to answer. */
static bool authenticate(struct turn_req *r)
{
    const struct stun_realm *realm = &r->t->config.realm;
    unsigned code = stun_auth_begin(realm, r->m, r->now.ms, &r->tuple->client, &r->auth);
    bool bind = stun_method_of(r->m->type) == STUN_CONNECTION_BIND;

    if ((code == 0 || (code == 438 && bind)) && is_elsewhere(r))
        return false;
    if (code == 438 && r->conn) /* its control connection's nonce will do (RFC 6062 §5.4) */
        code = stun_auth_begin(realm, r->m, r->now.ms, &r->conn->alloc->tuple.client, &r->auth);
    if (code == 400) /* nobody knows yet under which key */
        refuse(r, 400);
    else if (code)
        challenge(r, code);
    if (code)
        return false;
    if (r->auth.userhash.n)
        memcpy(r->owner, r->auth.userhash.p, TURN_OWNER);
    else
        stun_userhash(r->auth.username, realm->name, r->owner);
    if (find_key(r) != 0 || !name_alive(r)) {
        challenge(r, 401);
        return false;
    }
    r->seal.mac = r->auth.reply_mac;
    return true;
}

/* ---- Allocate ------------------------------------------------------------------------------ */

static void put_lifetime(struct stun_build *b, uint64_t until_ms, uint64_t now_ms)
{
    uint64_t left = until_ms > now_ms ? until_ms - now_ms : 0;

    stun_put_u32(b, STUN_LIFETIME, (uint32_t)(left / 1000));
}

static uint64_t alloc_until_ms(const struct turn_alloc *a)
{
    uint64_t until = UINT64_MAX;

    for (int f = 0; f < TURN_FAMILIES; f++)
        if (a->half[f].live)
            until = min_u64(until, a->half[f].expires_ms);
    return until;
}

/* The same for the first time and for a retransmission, but for the lifetime that is left. */
static void allocated(const struct turn *t, struct turn_out *out, const struct turn_alloc *a,
                      uint64_t now_ms, const struct turn_seal *seal)
{
    struct stun_addr mapped = stun_addr_of(&a->tuple.client);
    uint8_t id[STUN_ID];
    struct stun_build b;

    stun_id_of(a->tid, id);
    turn_reply_begin(out, &b, stun_type(STUN_ALLOCATE, STUN_SUCCESS), id);
    for (int f = 0; f < TURN_FAMILIES; f++) {
        struct stun_addr relayed = stun_addr_of(&a->half[f].relayed);

        if (a->half[f].live)
            stun_put_addr(&b, STUN_XOR_RELAYED_ADDRESS, &relayed);
        else if (a->half[f].error)
            stun_put_address_error(&b, f == TURN_V6, a->half[f].error, bytes_of(NULL, 0));
    }
    put_lifetime(&b, alloc_until_ms(a), now_ms);
    stun_put_addr(&b, STUN_XOR_MAPPED_ADDRESS, &mapped);
    if (a->has_token)
        stun_put(&b, STUN_RESERVATION_TOKEN, bytes_of(a->token, TURN_TOKEN));
    if (a->mobile)
        turn_ticket_put(t, a, &b);
    turn_reply_end(out, &b, seal);
}

enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

/* Streams are relayed for who comes on a stream, and know neither even ports nor fragments (RFC
 * 6062 §5.1). Nor do they move: without their control connection they end. */
static unsigned read_transport(const struct turn_req *r, struct turn_wish *w)
{
    const struct stun_msg *m = r->m;
    unsigned protocol = stun_u8(m, STUN_REQUESTED_TRANSPORT);

    if (!stun_has(m, STUN_REQUESTED_TRANSPORT))
        return 400;
    w->tcp = protocol == PROTOCOL_TCP && r->t->config.limits.conns_max > 0;
    if (!w->tcp)
        return protocol == PROTOCOL_UDP ? 0 : 442;
    if (r->tuple->transport == TURN_UDP || r->tuple->transport == TURN_DTLS ||
        turn_is_there(m, STUN_EVEN_PORT) || turn_is_there(m, STUN_DONT_FRAGMENT) ||
        turn_is_there(m, STUN_RESERVATION_TOKEN))
        return 400;
    return turn_is_there(m, STUN_MOBILITY_TICKET) ? 405 : 0;
}

/* What is asked for, or the error (turn.md §9.2, in its order). */
static unsigned read_wish(const struct turn_req *r, struct turn_wish *w)
{
    const struct stun_msg *m = r->m;
    const struct turn_limits *l = &r->t->config.limits;
    bool one = turn_is_there(m, STUN_REQUESTED_ADDRESS_FAMILY);
    bool two = turn_is_there(m, STUN_ADDITIONAL_ADDRESS_FAMILY);
    bool token = turn_is_there(m, STUN_RESERVATION_TOKEN);
    unsigned code = read_transport(r, w);

    if (code)
        return code;
    if (turn_is_there(m, STUN_MOBILITY_TICKET) && !l->mobility) /* RFC 8016 §3.1 */
        return 405;
    if (stun_value(m, STUN_MOBILITY_TICKET).n != 0) /* nobody has one before */
        return 400;
    if (stun_is_broken(m, STUN_EVEN_PORT) || stun_is_broken(m, STUN_RESERVATION_TOKEN) ||
        stun_is_broken(m, STUN_DONT_FRAGMENT))
        return 400;
    if (token && (one || two || stun_has(m, STUN_EVEN_PORT)))
        return 400;
    if (one && two)
        return 400;
    if (stun_is_broken(m, STUN_REQUESTED_ADDRESS_FAMILY))
        return 400;
    unsigned family = one ? stun_u8(m, STUN_REQUESTED_ADDRESS_FAMILY) : 1;

    if (family != 1 && family != 2)
        return 440;
    if (two && stun_u8(m, STUN_ADDITIONAL_ADDRESS_FAMILY) != 2) /* broken reads as 0 */
        return 400;
    w->even = stun_has(m, STUN_EVEN_PORT);
    w->reserve = (stun_u8(m, STUN_EVEN_PORT) & 0x80) != 0;
    if (two && w->reserve)
        return 400;
    w->has_token = token;
    if (token)
        memcpy(w->token, stun_value(m, STUN_RESERVATION_TOKEN).p, TURN_TOKEN);
    if (token) /* the family is that of its port */
        return 0;
    w->family[TURN_V4] = family == 1;
    w->family[TURN_V6] = family == 2 || two;
    if (!two && !l->family[family - 1])
        return 440;
    return !l->family[TURN_V4] && !l->family[TURN_V6] ? 440 : 0;
}

/* §7.2: never below the default, never above what the operator allows. */
static uint32_t granted_ms(const struct turn_req *r)
{
    uint64_t asked = (uint64_t)stun_u32(r->m, STUN_LIFETIME) * 1000;

    if (asked < TURN_LIFETIME_MS)
        return TURN_LIFETIME_MS;
    return (uint32_t)min_u64(asked, r->t->config.limits.lifetime_max_ms);
}

static void on_allocate(struct turn_req *r)
{
    struct turn_wish wish = { .quota = r->quota };
    struct turn_alloc *a = r->alloc;

    if (a && (memcmp(a->tid, stun_id(r->m) + 4, STUN_TID) != 0 ||
              !crypto_equal(a->owner, r->owner, TURN_OWNER))) {
        refuse(r, 437);
        return;
    }
    if (a) { /* its answer was lost; that of a pending one is yet to come */
        if (a->pending)
            r->out->drop = TURN_DROP_PENDING;
        else
            allocated(r->t, r->out, a, r->now.ms, &r->seal);
        return;
    }
    unsigned code = read_wish(r, &wish);

    if (!code && r->t->draining)
        code = 403;
    if (!code && !(a = turn_alloc_new(r->t, r->tuple)))
        code = 508;
    if (code) {
        refuse(r, code);
        return;
    }
    a->pending = true;
    a->tcp = wish.tcp;
    a->mobile = stun_has(r->m, STUN_MOBILITY_TICKET);
    a->fingerprint = r->seal.fingerprint;
    memcpy(a->tid, stun_id(r->m) + 4, STUN_TID);
    memcpy(a->owner, r->owner, TURN_OWNER);
    a->reply_mac = r->auth.reply_mac;
    a->alg = r->auth.alg;
    a->key = r->seal.key;
    a->lifetime_ms = granted_ms(r);
    for (int f = 0; f < TURN_FAMILIES; f++) {
        a->had[f] = wish.family[f];
        if (wish.family[f] && !r->t->config.limits.family[f]) {
            a->half[f].error = 440; /* the other one is tried (turn.md §9.3) */
            wish.family[f] = false;
        }
    }
    r->out->act = TURN_BIND;
    r->out->alloc = a;
    r->out->wish = wish;
}

void turn_on_bound(struct turn *t, struct turn_now now, struct turn_alloc *a,
                   const struct turn_grant *grant, struct turn_out *out)
{
    struct turn_seal seal = { a->reply_mac, a->key, a->fingerprint };
    unsigned code = grant->error;
    bool any = false, by_token = !a->had[TURN_V4] && !a->had[TURN_V6];

    ASSERT(a->pending);
    ASSERT(out->cap >= TURN_REPLY_MAX);
    *out = turn_out_of(out->buf, out->cap);
    out->alloc = a;
    for (int f = 0; !code && f < TURN_FAMILIES; f++) {
        if (grant->has[f]) {
            ASSERT(a->had[f] || by_token);
            a->had[f] = true;
            a->half[f] = (struct turn_half){ .live = true,
                                             .relayed = grant->relayed[f],
                                             .expires_ms = now.ms + a->lifetime_ms };
            any = true;
        } else if (a->had[f] && !a->half[f].error) {
            a->half[f].error = grant->family_error[f] ? grant->family_error[f] : 508;
        }
    }
    for (int f = 0; !code && !any && f < TURN_FAMILIES; f++) /* both failed, or the only one */
        code = a->half[f].error ? a->half[f].error : f == TURN_V6 ? 508 : 0;
    if (code) {
        struct stun_addr alternate = stun_addr_of(&grant->alternate);
        uint8_t id[STUN_ID];
        struct stun_build b;

        stun_id_of(a->tid, id);
        turn_reply_begin(out, &b, stun_type(STUN_ALLOCATE, STUN_ERROR), id);
        stun_put_error(&b, code, bytes_of(NULL, 0));
        if (code == 300)
            stun_put_addr(&b, STUN_ALTERNATE_SERVER, &alternate);
        turn_reply_end(out, &b, &seal);
        out->code = (uint16_t)code;
        out->gone = true;
        turn_alloc_free(t, a);
        return;
    }
    a->pending = false;
    a->has_token = grant->has_token;
    memcpy(a->token, grant->token, TURN_TOKEN);
    turn_heap_set(t, a);
    allocated(t, out, a, now.ms, &seal);
}

/* ---- the requests on an allocation --------------------------------------------------------- */

static void on_refresh(struct turn_req *r)
{
    struct turn_alloc *a = r->alloc;
    bool which[TURN_FAMILIES] = { a->half[TURN_V4].live, a->half[TURN_V6].live };
    struct stun_build b;

    if (stun_is_broken(r->m, STUN_LIFETIME) ||
        stun_is_broken(r->m, STUN_REQUESTED_ADDRESS_FAMILY)) {
        refuse(r, 400);
        return;
    }
    if (stun_has(r->m, STUN_REQUESTED_ADDRESS_FAMILY)) {
        uint8_t family = stun_u8(r->m, STUN_REQUESTED_ADDRESS_FAMILY);

        which[TURN_V4] = which[TURN_V4] && family == 1;
        which[TURN_V6] = which[TURN_V6] && family == 2;
    }
    if (!which[TURN_V4] && !which[TURN_V6]) {
        refuse(r, 443);
        return;
    }
    bool end = stun_has(r->m, STUN_LIFETIME) && stun_u32(r->m, STUN_LIFETIME) == 0;
    uint32_t granted = end ? 0 : granted_ms(r);

    for (int f = 0; f < TURN_FAMILIES; f++) {
        if (which[f] && end)
            turn_half_end(r->t, a, (enum turn_family)f, r->out);
        else if (which[f])
            a->half[f].expires_ms = r->now.ms + granted;
    }
    turn_heap_set(r->t, a);
    if (r->resuming && !r->out->gone)
        turn_resume(r);
    begin_success(r, &b);
    stun_put_u32(&b, STUN_LIFETIME, granted / 1000);
    if (r->resuming && !r->out->gone)
        turn_ticket_put(r->t, a, &b);
    turn_reply_end(r->out, &b, &r->seal);
    if (r->out->gone)
        turn_alloc_free(r->t, a);
}

/* The answer was lost: the same again, though the ticket is spent (turn.md §13). */
static void resumed_again(struct turn_req *r)
{
    struct stun_build b;

    begin_success(r, &b);
    put_lifetime(&b, alloc_until_ms(r->alloc), r->now.ms);
    turn_ticket_put(r->t, r->alloc, &b);
    turn_reply_end(r->out, &b, &r->seal);
}

/* 443, 403 or 0. An IPv4-mapped address of family 2 has no place to go out from. */
unsigned turn_judge_peer(const struct turn_req *r, const struct stun_addr *peer)
{
    const struct turn_config *c = &r->t->config;

    if (!r->alloc->half[peer->v6 ? TURN_V6 : TURN_V4].live)
        return 443;
    if (peer->v6 && netaddr_is4(&peer->addr))
        return 403;
    return c->peer_ok(c->arg, &peer->addr) ? 0 : 403;
}

/* Takes those that are not there yet, or none: only what was taken tells how many differ, however
 * often a message names one, and without comparing each with each. */
static bool permit_new(struct turn_req *r)
{
    struct stun_addr peer;
    uint16_t pos = 0;
    size_t taken = 0;

    while (stun_next_addr(r->m, STUN_XOR_PEER_ADDRESS, &pos, &peer)) {
        if (turn_perm_find(r->t, r->now.ms, r->alloc, peer.addr.ip))
            continue;
        if (!turn_perm_room(r->t, r->alloc, 1)) {
            turn_perm_undo(r->t, r->alloc, taken);
            return false;
        }
        turn_perm_put(r->t, r->now.ms, r->alloc, peer.addr.ip);
        taken++;
    }
    return true;
}

/* All are looked at before any is installed: one that may come in must not bring others (turn.md
 * §9.6). */
static void on_create_permission(struct turn_req *r)
{
    struct stun_addr peer;
    uint16_t pos = 0;
    unsigned code = stun_has(r->m, STUN_XOR_PEER_ADDRESS) ? 0 : 400;

    if (stun_is_broken(r->m, STUN_XOR_PEER_ADDRESS))
        code = 400;
    while (!code && stun_next_addr(r->m, STUN_XOR_PEER_ADDRESS, &pos, &peer)) {
        peer.addr.port = 0; /* ignored (RFC 8656 §9.2) */
        code = turn_judge_peer(r, &peer);
    }
    if (!code && !permit_new(r))
        code = 508;
    if (code) {
        refuse(r, code);
        return;
    }
    for (pos = 0; stun_next_addr(r->m, STUN_XOR_PEER_ADDRESS, &pos, &peer);)
        turn_perm_put(r->t, r->now.ms, r->alloc, peer.addr.ip);
    plain_success(r);
}

static unsigned judge_channel(const struct turn_req *r, uint16_t number,
                              const struct stun_addr *peer)
{
    struct turn *t = r->t;
    uint16_t most = t->config.limits.compat_channels ? CHAN_COMPAT_MAX : CHAN_MAX;

    if (r->alloc->tcp) /* RFC 6062 §4.4 */
        return 403;
    if (number < CHAN_MIN || number > most || peer->addr.port == 0)
        return 400;
    unsigned code = turn_judge_peer(r, peer);

    if (code)
        return code;
    const struct turn_chan *by_number = turn_chan_by_number(t, r->now.ms, r->alloc, number);
    const struct turn_chan *by_peer = turn_chan_by_peer(t, r->now.ms, r->alloc, &peer->addr);

    if (by_number != by_peer) /* either is bound to something else (§12) */
        return 400;
    if (!by_number && !turn_chan_room(t, r->alloc))
        return 508;
    if (!turn_perm_find(t, r->now.ms, r->alloc, peer->addr.ip) && !turn_perm_room(t, r->alloc, 1))
        return 508;
    return 0;
}

static void on_channel_bind(struct turn_req *r)
{
    uint16_t number = stun_u16(r->m, STUN_CHANNEL_NUMBER);
    struct stun_addr peer;
    unsigned code = 400;

    if (stun_has(r->m, STUN_CHANNEL_NUMBER) && stun_addr(r->m, STUN_XOR_PEER_ADDRESS, &peer))
        code = judge_channel(r, number, &peer);
    if (code) {
        refuse(r, code);
        return;
    }
    turn_chan_put(r->t, r->now.ms, r->alloc, number, &peer.addr);
    turn_perm_put(r->t, r->now.ms, r->alloc, peer.addr.ip);
    plain_success(r);
}

/* From the owner, about his allocation. */
static void on_owned(struct turn_req *r, uint16_t method)
{
    r->out->alloc = r->alloc;
    if (r->again) {
        resumed_again(r);
        return;
    }
    if (!r->resuming)
        turn_heard(r->t, r->tuple, r->alloc, r->out);
    if (method == STUN_REFRESH)
        on_refresh(r);
    else if (method == STUN_CREATE_PERMISSION)
        on_create_permission(r);
    else if (method == STUN_CONNECT)
        turn_on_connect(r);
    else
        on_channel_bind(r);
}

/* What must be understood and is: not what belongs to ICE, RFC 5780 and 7635. */
uint64_t turn_supported(const struct turn *t)
{
    uint64_t all =
        ~(STUN_BIT(STUN_CHANGE_REQUEST) | STUN_BIT(STUN_PASSWORD) | STUN_BIT(STUN_ACCESS_TOKEN) |
          STUN_BIT(STUN_PRIORITY) | STUN_BIT(STUN_USE_CANDIDATE) | STUN_BIT(STUN_PADDING) |
          STUN_BIT(STUN_RESPONSE_PORT) | STUN_BIT(STUN_CONNECTION_ID));

    if (t->config.limits.conns_max)
        all |= STUN_BIT(STUN_CONNECTION_ID);
    if (!t->config.limits.dont_fragment)
        all &= ~STUN_BIT(STUN_DONT_FRAGMENT);
    if (!t->config.realm.algorithms)
        all &= ~STUN_BIT(STUN_PASSWORD_ALGORITHM);
    return all;
}

void turn_on_request(struct turn *t, struct turn_now now, const struct turn_tuple *tuple,
                     const struct stun_msg *m, struct turn_out *out)
{
    struct turn_req r = {
        .t = t, .now = now, .tuple = tuple, .m = m, .out = out, .alloc = out->alloc
    };
    uint16_t method = stun_method_of(m->type);
    uint16_t types[STUN_UNKNOWN_MAX];

    r.seal.fingerprint = stun_has(m, STUN_FINGERPRINT);
    if (!authenticate(&r))
        goto wipe;
    size_t unknown = stun_refused(m, turn_supported(t), types);

    if (unknown) { /* before any effect (RFC 8489 §6.3.1) */
        turn_reply_unknown(out, m, types, unknown, &r.seal);
        goto wipe;
    }
    if (method == STUN_ALLOCATE) {
        on_allocate(&r);
        goto wipe;
    }
    if (method == STUN_CONNECTION_BIND) {
        turn_on_connection_bind(&r);
        goto wipe;
    }
    unsigned code = 0;

    r.resuming = method == STUN_REFRESH && turn_is_there(m, STUN_MOBILITY_TICKET);
    if (r.resuming)
        code = turn_resume_judge(&r);
    else if (!r.alloc || r.alloc->pending)
        code = 437;
    else if (!crypto_equal(r.owner, r.alloc->owner, TURN_OWNER))
        code = 441;
    if (code) {
        refuse(&r, code);
        goto wipe;
    }
    on_owned(&r, method);
wipe:
    crypto_wipe(&r.seal.key, sizeof(r.seal.key));
}
