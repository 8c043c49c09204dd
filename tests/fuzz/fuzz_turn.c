/* The TURN machine under any order of calls. The input is a program: each step chooses who speaks
 * and what: raw bytes, a signed request with any attributes, data, time, the answer of a socket, a
 * ticket or a number that was given before, a peer's stream, a lost one.
 * Only who signs changes anything, only what was permitted passes, and all counts balance after
 * each step. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/turn_int.h"

enum {
    CLIENTS = 4, /* two with datagrams, two on streams */
    ALLOCS = 3,
    PERMS = 6,
    CHANS = 4,
    CONNS = 3,
    STEPS_MAX = 300,
    MEMORY = 1 << 14
};

static const struct stun_nonce_keys keys = { .current = { 1 } };

struct run {
    struct turn t;
    struct turn_now now;
    struct turn_alloc *pending[CLIENTS];
    struct turn_wish wish[CLIENTS];
    uint8_t ticket[TURN_TICKET]; /* of the last answers that had them */
    uint32_t id;
    uint8_t buf[TURN_REPLY_MAX];
    struct turn_out out;
};

static bool find_user(void *arg, const struct stun_auth *a, struct stun_key *key)
{
    (void)arg;
    if (a->username.n != 1 || a->username.p[0] > 'v' || a->username.p[0] < 'u')
        return false;
    stun_key_make(a->alg, a->username, bytes_str("realm"), bytes_str("pass"), key);
    return true;
}

static bool peer_ok(void *arg, const struct netaddr *peer)
{
    (void)arg;
    return !netaddr_is4(peer) || peer->ip[12] != 127;
}

static struct turn_tuple tuple_of(unsigned client)
{
    struct turn_tuple t = { .client = { .ip = { [10] = 0xff, [11] = 0xff, [12] = 10 }, .port = 1 },
                            .server = { .ip = { [10] = 0xff, [11] = 0xff, [12] = 9 },
                                        .port = 3478 },
                            .transport = client & 2 ? TURN_TCP : TURN_UDP };

    t.client.ip[15] = (uint8_t)client;
    return t;
}

static void begin(struct run *r)
{
    static uint64_t memory[MEMORY / 8];
    static const uint8_t key[16] = { 3 };
    struct turn_config c = {
        .limits = { .allocs_max = ALLOCS,
                    .perms_max = PERMS,
                    .chans_max = CHANS,
                    .conns_max = CONNS,
                    .alloc_perms_max = 4,
                    .alloc_chans_max = 3,
                    .alloc_conns_max = 2,
                    .lifetime_max_ms = 3600000,
                    .family = { true, true },
                    .dont_fragment = true,
                    .mobility = true },
        .behaviour = { { .on = true,
                         .ip = { { [10] = 0xff, [11] = 0xff, [12] = 9 },
                                 { [10] = 0xff, [11] = 0xff, [12] = 9, [15] = 1 } },
                         .port = { 3478, 3479 } } },
        .place = { .shard = 1, .shards = 3, .key = { 5 } },
        .realm = { bytes_str("realm"), &keys, 600000, true, true },
        .find_user = find_user,
        .peer_ok = peer_ok,
    };

    CHECK(turn_memory_bytes(&c.limits) <= sizeof(memory));
    memset(memory, 0, sizeof(memory));
    memset(r, 0, sizeof(*r));
    turn_init(&r->t, &c, memory, key);
    r->now = (struct turn_now){ 1000000, 1000 };
}

static void check(struct run *r)
{
    const struct turn *t = &r->t;
    uint32_t pending = 0;

    for (unsigned i = 0; i < CLIENTS; i++)
        pending += r->pending[i] != NULL;
    CHECK(t->allocs + t->free_allocs.count == t->fresh_allocs);
    CHECK(t->perms + t->free_perms.count == t->fresh_perms && t->perms == t->perms_by_expiry.count);
    CHECK(t->chans + t->free_chans.count == t->fresh_chans && t->chans == t->chans_by_expiry.count);
    CHECK(t->heap_count + pending == t->allocs);
    CHECK(t->conns + t->free_conns.count == CONNS);
    CHECK(t->conns_ended.count + t->conns_by_expiry.count <= t->conns);
    CHECK(t->moving.count <= t->allocs);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct turn_tuple tuple = tuple_of(i);
        const struct turn_alloc *a = turn_find(&r->t, &tuple);

        CHECK(!a || a->pending || a->half[0].live || a->half[1].live);
        CHECK(!a || a->seat[0].alloc == a);
        CHECK(!a || !a->tcp || (!a->mobile && tuple.transport == TURN_TCP && a->chans.count == 0));
    }
    if (r->out.act == TURN_RELAY) {
        CHECK(r->out.alloc && !r->out.alloc->pending && r->out.reply.n == 0);
        CHECK(!r->out.alloc->tcp);
        CHECK(peer_ok(NULL, &r->out.peer) && r->out.drop == TURN_DROP_NONE);
        CHECK(r->out.alloc->perms.count > 0);
    }
    CHECK(r->out.drop == TURN_DROP_NONE || r->out.reply.n == 0);
}

static void keep(struct run *r, const struct stun_msg *m)
{
    if (stun_has(m, STUN_CONNECTION_ID))
        r->id = stun_u32(m, STUN_CONNECTION_ID);
    if (!stun_has(m, STUN_MOBILITY_TICKET))
        return;
    CHECK(stun_value(m, STUN_MOBILITY_TICKET).n == TURN_TICKET);
    memcpy(r->ticket, stun_value(m, STUN_MOBILITY_TICKET).p, TURN_TICKET);
}

static void kept(struct run *r)
{
    struct stun_msg m;

    if (r->out.reply.n == 0)
        return;
    CHECK(stun_decode(r->out.reply, 0, &m) == STUN_OK);
    keep(r, &m);
}

static void check_reply(struct run *r, size_t request, uint8_t user)
{
    struct stun_msg m;
    struct stun_key key;
    struct bytes name = { &user, 1 };

    if (r->out.reply.n == 0)
        return;
    CHECK(stun_decode(r->out.reply, 0, &m) == STUN_OK);
    CHECK((stun_class_of(m.type) == STUN_ERROR) == (r->out.code != 0));
    CHECK(!stun_has(&m, STUN_PADDING) || r->out.reply.n <= request);
    CHECK(!stun_has(&m, STUN_PADDING) || !r->out.detour || r->out.to.port == 1);
    keep(r, &m);
    if (r->out.code || stun_method_of(m.type) == STUN_BINDING)
        return;
    CHECK(user); /* a success is for who has signed, and only he can check it */
    for (int alg = STUN_ALG_MD5; alg <= STUN_ALG_SHA256; alg++) {
        stun_key_make((enum stun_alg)alg, name, bytes_str("realm"), bytes_str("pass"), &key);
        if (stun_integrity_ok(&m, stun_mac_of(&m), stun_key_bytes(&key), STUN_SHA256_TAG))
            return;
    }
    CHECK(false);
}

static void deliver(struct run *r, unsigned client, struct bytes in, uint8_t user)
{
    struct turn_tuple tuple = tuple_of(client);

    turn_sweep(&r->t, r->now.ms);
    uint32_t allocs = r->t.allocs, perms = r->t.perms, chans = r->t.chans, conns = r->t.conns;

    r->out = turn_out_of(r->buf, sizeof(r->buf));
    turn_on_message(&r->t, r->now, &tuple, in, &r->out);
    check_reply(r, in.n, user);
    if (!user) { /* a stranger leaves nothing behind */
        CHECK(r->t.allocs == allocs && r->t.perms == perms && r->t.chans == chans);
        CHECK(r->t.conns == conns && r->out.act != TURN_JOIN && r->out.act != TURN_CONNECT);
    }
    if (r->out.code) /* nor does a request that is refused */
        CHECK(r->t.allocs == allocs && r->t.perms == perms && r->t.chans == chans &&
              r->t.conns == conns);
    CHECK(r->out.act != TURN_CONNECT || (r->t.conns == conns + 1 && peer_ok(NULL, &r->out.peer)));
    if (r->out.joined || r->out.act == TURN_JOIN) { /* only its owner finds an allocation again */
        uint8_t owner[TURN_OWNER];

        stun_userhash(bytes_of(&user, 1), bytes_str("realm"), owner);
        CHECK(r->out.joined ? r->out.alloc->mobile : r->out.alloc->tcp);
        CHECK(memcmp(owner, r->out.alloc->owner, TURN_OWNER) == 0 && r->out.code == 0);
    }
    if (r->out.act == TURN_BIND) {
        CHECK(!r->pending[client] && r->out.alloc->pending && r->t.allocs == allocs + 1);
        r->pending[client] = r->out.alloc;
        r->wish[client] = r->out.wish;
    }
    if (r->out.act == TURN_RELEASE && r->out.gone)
        CHECK(r->t.allocs == allocs - 1);
}

/* how: method, key, who, transaction. more: the other methods, and what was given before. */
static void request(struct run *r, unsigned client, uint8_t how, struct bytes attrs, bool more)
{
    static const uint16_t methods[2][4] = {
        { STUN_ALLOCATE, STUN_REFRESH, STUN_CREATE_PERMISSION, STUN_CHANNEL_BIND },
        { STUN_CONNECT, STUN_CONNECTION_BIND, STUN_REFRESH, STUN_ALLOCATE },
    };
    uint8_t nonce[STUN_NONCE_MAX], buf[600];
    uint8_t user = how & 64 ? 'v' : 'u', id[STUN_ID] = { 0x21, 0x12, 0xa4, 0x42, how & 48 };
    struct bytes name = { &user, 1 };
    struct turn_tuple tuple = tuple_of(client);
    struct stun_build b;
    struct stun_key key;
    struct bytes out;

    stun_begin(&b, buf, sizeof(buf), stun_type(methods[more][how & 3], STUN_REQUEST), id);
    wcur_put(&b.w, bytes_of(attrs.p, attrs.n & ~(size_t)3));
    if (more && (how & 3) == 1)
        stun_put_u32(&b, STUN_CONNECTION_ID, r->id);
    if (more && (how & 3) == 2)
        stun_put(&b, STUN_MOBILITY_TICKET, bytes_of(r->ticket, sizeof(r->ticket)));
    if (more && (how & 3) == 3) {
        stun_put_u8(&b, STUN_REQUESTED_TRANSPORT, how & 128 ? 6 : 17);
        if (!(how & 128))
            stun_put(&b, STUN_MOBILITY_TICKET, bytes_of(NULL, 0));
    }
    stun_put(&b, STUN_USERNAME, name);
    stun_put(&b, STUN_REALM, bytes_str("realm"));
    stun_put(
        &b, STUN_NONCE,
        bytes_of(nonce, stun_nonce_make(&keys, STUN_FEATURE_ALGORITHMS | STUN_FEATURE_ANONYMITY,
                                        r->now.ms, &tuple.client, nonce)));
    stun_key_make(STUN_ALG_MD5, name, bytes_str("realm"), bytes_str("pass"), &key);
    stun_put_integrity(&b, how & 4 ? STUN_MAC_SHA256 : STUN_MAC_SHA1, stun_key_bytes(&key),
                       STUN_SHA256_TAG);
    if (how & 8)
        stun_put_fingerprint(&b);
    if (stun_end(&b, &out))
        deliver(r, client, out, user);
}

/* The n-th stream of a peer, by any list that has it. */
static struct turn_conn *conn_at(struct run *r, unsigned client, unsigned n)
{
    struct turn_tuple tuple = tuple_of(client);
    const struct turn_alloc *a = turn_find(&r->t, &tuple);

    for (struct link *k = a ? a->conns.first : NULL; k; k = k->next)
        if (n-- == 0)
            return CONTAINER_OF(k, struct turn_conn, of_alloc);
    return r->t.conns_ended.first && n == 0
               ? CONTAINER_OF(r->t.conns_ended.first, struct turn_conn, by_expiry)
               : NULL;
}

static void stream(struct run *r, unsigned client, uint8_t how)
{
    static const uint8_t tid[STUN_TID];
    struct turn_tuple tuple = tuple_of(client);
    struct turn_alloc *a = turn_find(&r->t, &tuple);
    struct turn_conn *c = conn_at(r, client, how >> 2 & 3);
    struct netaddr peer = tuple_of(how >> 4).client;

    r->out = turn_out_of(r->buf, sizeof(r->buf));
    if ((how & 3) == 0) {
        if (c && (c->state == TURN_CONN_CONNECTING || c->state == TURN_CONN_ENDED))
            turn_on_connected(&r->t, r->now.ms, c, how & 16, &r->out);
    } else if ((how & 3) == 1) {
        if (a && a->tcp && !a->pending)
            turn_on_incoming(&r->t, r->now.ms, a, &peer, tid, &r->out);
        CHECK(!r->out.conn || (a->perms.count && peer_ok(NULL, &peer)));
    } else if ((how & 3) == 2) {
        if (c)
            turn_conn_end(&r->t, c);
    } else if (a && !turn_lost(&r->t, a, &tuple, &r->out)) {
        turn_delete(&r->t, a);
        r->pending[client] = NULL;
    }
    kept(r);
}

static void bound(struct run *r, unsigned client, uint8_t how)
{
    struct turn_grant g = { .error = how & 1 ? 508 : 0, .has_token = how & 2 };

    if (!r->pending[client])
        return;
    for (int f = 0; f < TURN_FAMILIES; f++) {
        g.has[f] = r->wish[client].family[f] && !(how & (4 << f));
        g.family_error[f] = how & 16 ? 440 : 0;
        g.relayed[f] = tuple_of(200).client;
        if (f == TURN_V6)
            g.relayed[f].ip[0] = 0x20;
    }
    r->out = turn_out_of(r->buf, sizeof(r->buf));
    turn_on_bound(&r->t, r->now, r->pending[client], &g, &r->out);
    r->pending[client] = NULL;
    CHECK(r->out.reply.n && (r->out.code != 0) == r->out.gone);
    kept(r);
    CHECK(r->out.gone || r->out.alloc->half[0].live || r->out.alloc->half[1].live);
}

static void pass(struct run *r, uint64_t ms)
{
    unsigned released = 0;

    r->now.ms += ms;
    r->out = turn_out_of(r->buf, sizeof(r->buf));
    while (turn_expire(&r->t, r->now.ms, &r->out)) {
        CHECK(r->out.act == TURN_CLOSE || r->out.left ||
              (r->out.act == TURN_RELEASE && (r->out.released[0] || r->out.released[1])));
        CHECK(++released <= (TURN_FAMILIES + 1) * ALLOCS + CONNS);
    }
    CHECK(turn_deadline_ms(&r->t) > r->now.ms);
}

static void data(struct run *r, unsigned client, uint8_t what)
{
    struct turn_tuple tuple = tuple_of(client);
    struct turn_alloc *a = turn_find(&r->t, &tuple);
    struct netaddr peer = tuple_of(what & 7).client;
    uint8_t frame[8] = { 0x40, what & 7, 0, 4, 'd', 'a', 't', 'a' };
    uint16_t channel = 0;

    if (what & 8) {
        deliver(r, client, bytes_of(frame, sizeof(frame)), 0);
    } else if (a && !a->tcp) {
        r->out = turn_out_of(r->buf, sizeof(r->buf));
        turn_on_peer(&r->t, r->now.ms, a, &peer, &r->out, &channel);
        CHECK(channel == 0 || (channel >= CHAN_MIN && channel <= CHAN_MAX));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t size)
{
    static struct run r;
    struct cur c = cur_of(bytes_of(in, size));

    crypto_init();
    begin(&r);
    for (unsigned step = 0; c.n && step < STEPS_MAX; step++) {
        uint8_t op = fuzz_u8(&c), how;
        unsigned client = op >> 6;
        struct turn_tuple tuple = tuple_of(client);
        struct turn_alloc *a = turn_find(&r.t, &tuple);

        switch (op & 15) {
        case 0:
            pass(&r, (uint64_t)fuzz_u8(&c) * 10000 + 1);
            break;
        case 1:
            deliver(&r, client, fuzz_bytes(&c), 0);
            break;
        case 2:
        case 3:
        case 4:
            how = fuzz_u8(&c);
            request(&r, client, how, fuzz_bytes(&c), false);
            break;
        case 8:
        case 9:
        case 10:
            how = fuzz_u8(&c);
            request(&r, client, how, fuzz_bytes(&c), true);
            break;
        case 11:
        case 12:
            stream(&r, client, fuzz_u8(&c));
            break;
        case 5:
            bound(&r, client, fuzz_u8(&c));
            break;
        case 6:
            data(&r, client, fuzz_u8(&c));
            break;
        default:
            if (a) {
                turn_delete(&r.t, a);
                r.pending[client] = NULL;
            }
            r.out = turn_out_of(r.buf, sizeof(r.buf));
            break;
        }
        check(&r);
    }
    return 0;
}
