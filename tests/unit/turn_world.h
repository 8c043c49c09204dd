/* tests/unit/turn_world.h: one TURN machine, users and a policy; requests as its clients sign them.
 */
#ifndef SLUICE_TESTS_UNIT_TURN_WORLD_H
#define SLUICE_TESTS_UNIT_TURN_WORLD_H

#include "proto/turn_int.h"
#include "tests/unit/stun_client.h"

struct world {
    struct turn t;
    struct turn_config config;
    void *memory;
    struct turn_now now;
    uint8_t buf[TURN_REPLY_MAX];
    struct turn_out out;
    struct stun_msg reply; /* of the last message, if there was one */
    bool replied;
    unsigned lookups;
    enum turn_transport transport; /* of tuple_of */
};

static struct world w;
static const struct bytes world_secret = { (const uint8_t *)"north", 5 };

/* alice:wonder, bob:builder, and one whose name only looks as if it had ended. */
static inline bool world_user(void *arg, const struct stun_auth *a, struct stun_key *key)
{
    static const char *const users[][2] = { { "alice", "wonder" },
                                            { "bob", "builder" },
                                            { "5:dave", "stays" } };

    (void)arg;
    w.lookups++;
    for (size_t i = 0; i < ARRAY_LEN(users); i++) {
        uint8_t hash[STUN_USERHASH_BYTES];

        stun_userhash(bytes_str(users[i][0]), bytes_str("realm"), hash);
        if (!bytes_eq(a->username, bytes_str(users[i][0])) &&
            !bytes_eq(a->userhash, bytes_of(hash, sizeof(hash))))
            continue;
        stun_key_make(a->alg, bytes_str(users[i][0]), bytes_str("realm"), bytes_str(users[i][1]),
                      key);
        return true;
    }
    return false;
}

/* 127/8 and ::1 are forbidden, and whatever an arg points to. */
static inline bool world_peer(void *arg, const struct netaddr *peer)
{
    const struct netaddr *more = arg;

    if (more && memcmp(more->ip, peer->ip, 16) == 0)
        return false;
    if (netaddr_is4(peer))
        return peer->ip[12] != 127;
    return !(peer->ip[15] == 1 && peer->ip[0] == 0);
}

static inline void world_begin(void)
{
    static const uint8_t key[16] = { 4, 2 };

    free(w.memory);
    w.memory = calloc(1, turn_memory_bytes(&w.config.limits));
    cr_assert(w.memory != NULL);
    turn_init(&w.t, &w.config, w.memory, key);
}

static inline void world(void)
{
    start();
    w.config = (struct turn_config){
        .limits = { .allocs_max = 8,
                    .perms_max = 24,
                    .chans_max = 12,
                    .alloc_perms_max = 8,
                    .alloc_chans_max = 4,
                    .lifetime_max_ms = 3600000,
                    .family = { true, true },
                    .dont_fragment = true },
        .realm = realm,
        .secrets = { &world_secret, 1, ':', false, false, 0 },
        .find_user = world_user,
        .peer_ok = world_peer,
    };
    w.now = (struct turn_now){ NOW, 1700000000 };
    world_begin();
}

static inline struct turn_tuple tuple_of(const char *client)
{
    return (struct turn_tuple){ at_addr(client), at_addr("198.51.100.1:3478"), w.transport };
}

#define CLIENT "192.0.2.7:12345"

/* Gives the machine one message; the reply is decoded and its padding is not looked at. */
static inline void deliver(const char *client, struct bytes in)
{
    struct turn_tuple tuple = tuple_of(client);

    memset(w.buf, 0xa5, sizeof(w.buf));
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_message(&w.t, w.now, &tuple, in, &w.out);
    w.replied = w.out.reply.n != 0;
    if (w.replied)
        cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
}

/* A request under way: put attributes into w_req()->b, then ask(). */
static inline struct making *w_begin(unsigned method, unsigned tid)
{
    struct making *k = making(method, STUN_REQUEST);

    put_u32(k->buf + 8, tid);
    return k;
}

struct who {
    const char *client, *user, *password;
};
static const struct who alice = { CLIENT, "alice", "wonder" };
static const struct who alice2 = { "192.0.2.8:999", "alice", "wonder" };
static const struct who bob = { CLIENT, "bob", "builder" };

static inline void w_sign(struct making *k, const struct who *who)
{
    uint8_t nonce[STUN_NONCE_MAX];
    struct netaddr from = at_addr(who->client);
    size_t n = stun_nonce_make(&keys, STUN_FEATURE_ALGORITHMS | STUN_FEATURE_ANONYMITY, w.now.ms,
                               &from, nonce);
    struct stun_key key;

    stun_key_make(STUN_ALG_MD5, bytes_str(who->user), bytes_str("realm"), bytes_str(who->password),
                  &key);
    stun_put(&k->b, STUN_USERNAME, bytes_str(who->user));
    stun_put(&k->b, STUN_REALM, bytes_str("realm"));
    stun_put(&k->b, STUN_NONCE, bytes_of(nonce, n));
    stun_put_integrity(&k->b, STUN_MAC_SHA1, stun_key_bytes(&key), 0);
}

/* The code of the answer: 0 for success, -1 for none. Every success is signed with the client's
 * key. */
static inline int ask(struct making *k, const struct who *who)
{
    struct stun_key key;

    w_sign(k, who);
    deliver(who->client, made(k));
    if (!w.replied)
        return -1;
    if (w.out.code != 401 && w.out.code != 438 && w.out.code != 0 && w.out.code != 400) {
        cr_assert(stun_mac_of(&w.reply) != STUN_MAC_NONE, "%u without integrity", w.out.code);
    }
    if (w.out.code == 0) {
        stun_key_make(STUN_ALG_MD5, bytes_str(who->user), bytes_str("realm"),
                      bytes_str(who->password), &key);
        cr_assert(stun_integrity_ok(&w.reply, STUN_MAC_SHA1, stun_key_bytes(&key), 32));
        cr_assert(stun_class_of(w.reply.type) == STUN_SUCCESS);
    } else {
        uint16_t code;
        struct bytes phrase;

        cr_assert(stun_class_of(w.reply.type) == STUN_ERROR);
        cr_assert(stun_error(&w.reply, &code, &phrase) && code == w.out.code && phrase.n == 0);
    }
    return w.out.code;
}

/* Grants the wish of the last message: ports count up from 50000. */
static inline int grant_wish(unsigned error)
{
    static uint16_t port = 50000;
    struct turn_grant g = { .error = (uint16_t)error, .has_token = w.out.wish.reserve };

    cr_assert(w.out.act == TURN_BIND);
    memcpy(g.token, "tokentok", 8);
    for (int f = 0; f < TURN_FAMILIES; f++)
        if (w.out.wish.family[f]) {
            g.has[f] = true;
            g.relayed[f] = at_addr(f ? "[2001:db8::99]:1" : "203.0.113.9:1");
            g.relayed[f].port = port++;
        }
    turn_on_bound(&w.t, w.now, w.out.alloc, &g, &w.out);
    w.replied = w.out.reply.n != 0;
    cr_assert(w.replied);
    cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
    return w.out.code;
}

static inline struct making *allocate(unsigned tid)
{
    struct making *k = w_begin(STUN_ALLOCATE, tid);

    stun_put_u8(&k->b, STUN_REQUESTED_TRANSPORT, 17);
    return k;
}

/* A whole allocation in one. */
static inline struct turn_alloc *allocated_by(const struct who *who, unsigned tid)
{
    struct turn_tuple tuple = tuple_of(who->client);

    cr_assert(ask(allocate(tid), who) == -1);
    cr_assert(grant_wish(0) == 0);
    return turn_find(&w.t, &tuple);
}

static inline void put_peer(struct making *k, const char *peer)
{
    struct netaddr a = at_addr(peer);
    struct stun_addr s = stun_addr_of(&a);

    if (strncmp(peer, "[::ffff:", 8) == 0)
        s.v6 = true;
    stun_put_addr(&k->b, STUN_XOR_PEER_ADDRESS, &s);
}

static inline int permit(const struct who *who, const char *peer)
{
    struct making *k = w_begin(STUN_CREATE_PERMISSION, 7);

    put_peer(k, peer);
    return ask(k, who);
}

static inline int bind_channel(const struct who *who, unsigned number, const char *peer)
{
    struct making *k = w_begin(STUN_CHANNEL_BIND, 8);

    stun_put_u16(&k->b, STUN_CHANNEL_NUMBER, (uint16_t)number);
    put_peer(k, peer);
    return ask(k, who);
}

static inline int refresh(const struct who *who, unsigned lifetime_s)
{
    struct making *k = w_begin(STUN_REFRESH, 9);

    stun_put_u32(&k->b, STUN_LIFETIME, lifetime_s);
    return ask(k, who);
}

/* "": relayed; else the cause by which a Send indication, or ChannelData, fell. */
static inline enum turn_drop send_to(const char *client, const char *peer, const char *data)
{
    struct making *k = making(STUN_SEND, STUN_INDICATION);

    put_peer(k, peer);
    stun_put(&k->b, STUN_DATA, bytes_str(data));
    deliver(client, made(k));
    cr_assert(not(w.replied));
    if (w.out.act == TURN_RELAY) {
        cr_assert(same_addr(&w.out.peer, peer) && bytes_eq(w.out.data, bytes_str(data)));
        cr_assert(w.out.drop == TURN_DROP_NONE);
    }
    return w.out.drop;
}

static inline enum turn_drop channel_send(const char *client, unsigned number, const char *data)
{
    uint8_t buf[256];
    struct wcur c = wcur_of(buf, sizeof(buf));
    struct chandata m = { (uint16_t)number, bytes_str(data) };

    chandata_put(&c, &m, false);
    cr_assert(not(c.bad));
    deliver(client, bytes_of(buf, c.wrote));
    cr_assert(not(w.replied));
    if (w.out.act == TURN_RELAY)
        cr_assert(bytes_eq(w.out.data, bytes_str(data)));
    return w.out.drop;
}

/* -1: dropped; 0: a Data indication; else the channel. */
static inline int from_peer(struct turn_alloc *a, const char *peer)
{
    struct netaddr p = at_addr(peer);
    uint16_t channel = 0;

    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_peer(&w.t, w.now.ms, a, &p, &w.out, &channel);
    cr_assert(w.out.act == (w.out.drop == TURN_DROP_NONE ? TURN_RELAY : TURN_NOTHING));
    return w.out.act == TURN_RELAY ? channel : -1;
}

static inline void pass_ms(uint64_t ms)
{
    w.now.ms += ms;
    w.now.unix_s += ms / 1000;
}

#endif
