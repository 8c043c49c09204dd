/* TCP allocations (RFC 6062, turn.md §12 and checks 78 to 80). */
#include "proto/peer_policy.h"
#include "tests/unit/turn_world.h"

#define PEER "192.0.2.50:4000"
#define PEER2 "192.0.2.51:4000"
#define PEER_OTHER_PORT "192.0.2.50:4001"
#define PEER6 "[2001:db8::50]:4000"

enum { CONNS = 6, EACH = 3 };

static const struct who data = { "192.0.2.7:20001", "alice", "wonder" };
static const struct who data2 = { "192.0.2.7:20002", "alice", "wonder" };
static const struct who data_bob = { "192.0.2.7:20003", "bob", "builder" };

static void tcp(void)
{
    world();
    w.config.limits.conns_max = CONNS;
    w.config.limits.alloc_conns_max = EACH;
    w.config.limits.mobility = true;
    w.config.place = (struct turn_place){ .shard = 5, .shards = 8, .key = { 1, 2, 3 } };
    w.transport = TURN_TCP;
    world_begin();
}

TestSuite(turn_tcp, .init = tcp);

static struct making *tcp_wish(unsigned tid)
{
    struct making *k = w_begin(STUN_ALLOCATE, tid);

    stun_put_u8(&k->b, STUN_REQUESTED_TRANSPORT, 6);
    return k;
}

static struct turn_alloc *tcp_by(const struct who *who)
{
    struct turn_tuple tuple = tuple_of(who->client);

    cr_assert(ask(tcp_wish(1), who) == -1 && w.out.wish.tcp);
    cr_assert(grant_wish(0) == 0);
    return turn_find(&w.t, &tuple);
}

static int connect_to(const struct who *who, unsigned tid, const char *peer)
{
    struct making *k = w_begin(STUN_CONNECT, tid);

    put_peer(k, peer);
    return ask(k, who);
}

/* The peer's answer to a connection under way: the code of ours. */
static int connected(struct turn_conn *c, bool ok)
{
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_connected(&w.t, w.now.ms, c, ok, &w.out);
    cr_assert(w.out.reply.n && stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
    cr_assert(stun_method_of(w.reply.type) == STUN_CONNECT);
    cr_assert(stun_mac_of(&w.reply) == STUN_MAC_SHA1);
    return w.out.code;
}

/* A connection that waits to be bound. */
static struct turn_conn *waiting(const struct who *who, const char *peer)
{
    cr_assert(connect_to(who, 3, peer) == -1 && w.out.act == TURN_CONNECT);
    struct turn_conn *c = w.out.conn;

    cr_assert(connected(c, true) == 0);
    cr_assert(stun_u32(&w.reply, STUN_CONNECTION_ID) == c->id);
    return c;
}

static int bind_to(const struct who *who, uint32_t id)
{
    struct making *k = w_begin(STUN_CONNECTION_BIND, 4);

    stun_put_u32(&k->b, STUN_CONNECTION_ID, id);
    return ask(k, who);
}

/* Signed with a nonce of `nonce`'s, sent from `from`. */
static int bind_with(const struct who *nonce, const char *from, uint32_t id)
{
    struct making *k = w_begin(STUN_CONNECTION_BIND, 4);

    stun_put_u32(&k->b, STUN_CONNECTION_ID, id);
    w_sign(k, nonce);
    deliver(from, made(k));
    return w.replied ? w.out.code : -1;
}

static struct turn_conn *incoming(struct turn_alloc *a, const char *peer)
{
    static const uint8_t tid[STUN_TID] = "twelve bytes";
    struct netaddr p = at_addr(peer);

    w.out = turn_out_of(w.buf, sizeof(w.buf));
    turn_on_incoming(&w.t, w.now.ms, a, &p, tid, &w.out);
    cr_assert(w.out.conn ? w.out.drop == TURN_DROP_NONE : w.out.drop != TURN_DROP_NONE);
    cr_assert(w.out.conn ? w.out.reply.n != 0 : w.out.reply.n == 0);
    if (w.out.conn) {
        cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
        cr_assert(memcmp(stun_id(&w.reply) + 4, tid, STUN_TID) == 0);
    }
    return w.out.conn;
}

static bool expires(void)
{
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    return turn_expire(&w.t, w.now.ms, &w.out);
}

static bool closes(const struct turn_conn *c)
{
    return expires() && w.out.act == TURN_CLOSE && w.out.conn == c;
}

static void check_none_left(void)
{
    cr_expect(w.t.conns == 0 && w.t.free_conns.count == CONNS);
    cr_expect(w.t.conns_by_expiry.count == 0 && w.t.conns_ended.count == 0);
}

/* ---- allocate ------------------------------------------------------------------------------ */

Test(turn_tcp, turn_78_a_bind_may_bring_the_control_connections_nonce)
{
    static const struct who mallory = { CLIENT, "alice", "guess" };

    tcp_by(&alice);
    struct turn_conn *c = waiting(&alice, PEER);

    cr_expect(bind_with(&alice2, data.client, c->id) == 438, "a third connection's");
    cr_expect(bind_with(&alice, data.client, c->id + 8) == 438, "nobody knows whose");
    cr_expect(bind_with(&mallory, data.client, c->id) == 401);
    cr_expect(bind_with(&bob, data.client, c->id) == 400, "of another user");
    cr_expect(bind_with(&alice, data.client, c->id) == 0 && w.out.act == TURN_JOIN);
    c = waiting(&alice, PEER2);
    w.t.config.place.shard = 6; /* the nonce is judged where the connection is */
    cr_expect(bind_with(&alice, data2.client, c->id) == -1);
    cr_expect(w.out.act == TURN_ELSEWHERE && w.out.shard == 5);
    w.t.config.place.shard = 5;
    w.transport = TURN_UDP;
    cr_expect(bind_with(&alice, data2.client, c->id) == 438, "on no stream");
}

Test(turn_tcp, turn_46_streams_are_for_who_comes_on_one)
{
    struct making *k;

    for (int t = TURN_UDP; t <= TURN_DTLS; t++) {
        w.transport = (enum turn_transport)t;
        bool stream = t == TURN_TCP || t == TURN_TLS;

        cr_expect(ask(tcp_wish(1), &alice) == (stream ? -1 : 400), "%d", t);
        cr_expect(w.out.wish.tcp == stream && w.out.act == (stream ? TURN_BIND : TURN_NOTHING));
        if (stream)
            turn_delete(&w.t, w.out.alloc);
    }
    w.transport = TURN_TCP;
    k = tcp_wish(1);
    stun_put_even_port(&k->b, false);
    cr_expect(ask(k, &alice) == 400);
    k = tcp_wish(1);
    stun_put(&k->b, STUN_DONT_FRAGMENT, bytes_of(NULL, 0));
    cr_expect(ask(k, &alice) == 400);
    k = tcp_wish(1);
    stun_put(&k->b, STUN_RESERVATION_TOKEN, bytes_str("abcdefgh"));
    cr_expect(ask(k, &alice) == 400);
    k = tcp_wish(1);
    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(NULL, 0));
    cr_expect(ask(k, &alice) == 405);
    cr_expect(ask(allocate(1), &alice) == -1 && !w.out.wish.tcp, "datagrams as well");
    w.t.config.limits.conns_max = 0;
    cr_expect(ask(tcp_wish(1), &alice2) == 442);
    cr_expect(connect_to(&alice2, 1, PEER) == -1 && w.out.drop == TURN_DROP_METHOD);
    cr_expect(bind_to(&alice2, 1) == -1 && w.out.drop == TURN_DROP_METHOD);
}

Test(turn_tcp, turn_80_it_relays_no_datagrams)
{
    tcp_by(&alice);
    cr_expect(permit(&alice, PEER) == 0);
    cr_expect(bind_channel(&alice, 0x4000, PEER) == 403);
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_STREAM);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_STREAM);
    allocated_by(&alice2, 1);
    cr_expect(connect_to(&alice2, 3, PEER) == 403, "nor does the other kind connect");
}

/* ---- connect ------------------------------------------------------------------------------- */

Test(turn_tcp, turn_78_connects_and_tells_the_number)
{
    cr_expect(connect_to(&alice, 3, PEER) == 437);
    struct turn_alloc *a = tcp_by(&alice);

    cr_expect(connect_to(&alice, 3, PEER) == -1 && w.out.act == TURN_CONNECT);
    cr_expect(w.out.alloc == a && same_addr(&w.out.peer, PEER) && w.out.drop == TURN_DROP_NONE);
    struct turn_conn *c = w.out.conn;

    cr_expect(c->alloc == a && c->state == TURN_CONN_CONNECTING && w.t.conns == 1);
    cr_expect(permit(&alice, PEER2) == 0, "others are answered meanwhile");
    cr_expect(connected(c, true) == 0 && w.out.alloc == a && w.out.conn == c);
    cr_expect(stun_u32(&w.reply, STUN_CONNECTION_ID) == c->id);
    cr_expect(stun_id(&w.reply)[7] == 3, "the answer to that request");
    cr_expect(c->state == TURN_CONN_WAITING);
}

Test(turn_tcp, turn_62_turn_78_cve_2026_73212_refuses_what_it_must)
{
    struct making *k;

    cr_expect(connect_to(&bob, 3, PEER) == 437);
    tcp_by(&alice);
    cr_expect(ask(w_begin(STUN_CONNECT, 3), &alice) == 400);
    cr_expect(connect_to(&alice, 3, "192.0.2.50:0") == 400);
    k = w_begin(STUN_CONNECT, 3);
    stun_put(&k->b, STUN_XOR_PEER_ADDRESS, bytes_str("\x01\x01"));
    cr_expect(ask(k, &alice) == 400);
    cr_expect(connect_to(&alice, 3, PEER6) == 443);
    cr_expect(connect_to(&alice, 3, "[::ffff:127.0.0.1]:80") == 443);
    cr_expect(connect_to(&alice, 3, "127.0.0.1:80") == 403, "the same judge as for datagrams");
    cr_expect(connect_to(&bob, 3, PEER) == 441);
    struct who wrong = { CLIENT, "alice", "guess" };

    cr_expect(connect_to(&wrong, 3, PEER) == 401, "pion let anybody");
    cr_expect(w.t.conns == 0);
    cr_expect(connect_to(&alice, 3, PEER) == -1);
    struct turn_conn *c = w.out.conn;

    cr_expect(connect_to(&alice, 3, PEER) == 446, "already connecting");
    cr_expect(connected(c, true) == 0);
    cr_expect(connect_to(&alice, 3, PEER) == 446, "connected");
    cr_expect(bind_to(&data, c->id) == 0);
    cr_expect(connect_to(&alice, 3, PEER) == 446, "bound");
    cr_expect(connect_to(&alice, 3, PEER_OTHER_PORT) == -1, "another port is another peer");
    turn_conn_end(&w.t, c);
    cr_expect(connect_to(&alice, 3, PEER) == -1);
}

static bool by_policy(void *arg, const struct netaddr *peer)
{
    return (peer->port ? peer_judge(arg, peer) : peer_judge_ip(arg, peer->ip)) == PEER_OK;
}

/* Datagrams and streams, both with both families. */
Test(turn_tcp, turn_62_cve_2026_73212_one_policy_stands_before_every_method)
{
    static const char *const closed[] = {
        "127.0.0.1:80",
        "0.0.0.0:80",
        "10.0.0.1:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[::1]:80",
        "[::]:80",
        "[fe80::1]:80",
        "[fd00::1]:80",
        "[ff02::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:8.8.8.8]:80",
        "[::127.0.0.1]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:7f00:1::]:80",
        "[2001:0:1::1]:80",
        "[2a00::5efe:7f00:1]:80",
        "[::ffff:0:7f00:1]:80",
        "[::8.8.8.8]:80",
        "[2002:808:808::]:80",
    };
    const struct who *both[] = { &alice2, &alice };
    struct peer_policy policy = { .low_ports_closed = false };

    w.t.config.peer_ok = by_policy;
    w.t.config.arg = &policy;
    for (int i = 0; i < 2; i++) {
        struct making *k = i ? tcp_wish(1) : allocate(1);

        stun_put_u8(&k->b, STUN_ADDITIONAL_ADDRESS_FAMILY, 2);
        cr_assert(ask(k, both[i]) == -1);
        cr_assert(grant_wish(0) == 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(closed); i++) {
        cr_expect(permit(&alice2, closed[i]) == 403, "%s", closed[i]);
        cr_expect(permit(&alice, closed[i]) == 403, "%s", closed[i]);
        cr_expect(bind_channel(&alice2, 0x4000, closed[i]) == 403, "%s", closed[i]);
        cr_expect(connect_to(&alice, 3, closed[i]) == 403, "%s", closed[i]);
    }
    cr_expect(w.t.perms == 0 && w.t.chans == 0 && w.t.conns == 0);
    cr_expect(permit(&alice2, "8.8.8.8:0") == 0, "a permission has no port");
    cr_expect(bind_channel(&alice2, 0x4000, "[2a00::1]:80") == 0);
    cr_expect(connect_to(&alice, 3, "8.8.8.8:80") == -1 && w.out.act == TURN_CONNECT);
    policy.low_ports_closed = true;
    cr_expect(permit(&alice2, "8.8.4.4:80") == 0 && send_to(alice2.client, "8.8.4.4:80", "x"));
    cr_expect(connect_to(&alice, 3, "8.8.4.4:80") == 403);
}

Test(turn_tcp, turn_78_a_closed_port_or_30_s_is_447)
{
    tcp_by(&alice);
    cr_expect(connect_to(&alice, 3, PEER) == -1);
    struct turn_conn *c = w.out.conn;

    cr_expect(connected(c, false) == 447 && w.out.conn == c);
    check_none_left();
    cr_expect(connect_to(&alice, 6, PEER) == -1);
    c = w.out.conn;
    cr_expect(turn_deadline_ms(&w.t) == w.now.ms + TURN_CONN_MS);
    pass_ms(TURN_CONN_MS - 1);
    cr_expect(not(expires()));
    pass_ms(1);
    cr_expect(closes(c) && w.out.code == 447 && w.out.alloc == c->alloc);
    cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
    cr_expect(stun_method_of(w.reply.type) == STUN_CONNECT && stun_id(&w.reply)[7] == 6);
    check_none_left();
}

Test(turn_tcp, connections_have_bounds)
{
    char peer[32];

    for (unsigned i = 0; i < CONNS; i++) {
        char client[32];

        snprintf(client, sizeof(client), "192.0.2.7:%u", 30000 + i / EACH);
        struct who who = { client, "alice", "wonder" };

        if (i % EACH == 0)
            tcp_by(&who);
        snprintf(peer, sizeof(peer), "192.0.2.50:%u", 1 + i);
        cr_assert(connect_to(&who, 3, peer) == -1 && w.out.act == TURN_CONNECT);
        if (i % EACH == EACH - 1)
            cr_expect(connect_to(&who, 3, PEER) == 486, "of one allocation");
    }
    cr_assert(w.t.free_conns.count == 0);
    struct turn_alloc *a = tcp_by(&alice);

    cr_expect(connect_to(&alice, 3, PEER) == 508, "of all");
    cr_assert(permit(&alice, PEER) == 0);
    cr_expect(incoming(a, PEER) == NULL && w.out.drop == TURN_DROP_ROOM);
    pass_ms(TURN_CONN_MS);
    while (expires())
        ;
    cr_expect(connect_to(&alice, 3, PEER) == -1);
}

/* ---- from peers ---------------------------------------------------------------------------- */

Test(turn_tcp, turn_79_a_peer_needs_a_permission)
{
    struct stun_addr peer;
    struct turn_alloc *a = tcp_by(&alice);

    cr_expect(incoming(a, PEER) == NULL && w.out.drop == TURN_DROP_PERMISSION);
    cr_assert(permit(&alice, PEER) == 0);
    struct turn_conn *c = incoming(a, PEER_OTHER_PORT);

    cr_assert(c != NULL);
    cr_expect(w.out.alloc == a && c->state == TURN_CONN_WAITING);
    cr_expect(w.reply.type == stun_type(STUN_CONNECTION_ATTEMPT, STUN_INDICATION));
    cr_expect(w.reply.have == (STUN_BIT(STUN_CONNECTION_ID) | STUN_BIT(STUN_XOR_PEER_ADDRESS)));
    cr_expect(stun_u32(&w.reply, STUN_CONNECTION_ID) == c->id);
    cr_expect(stun_addr(&w.reply, STUN_XOR_PEER_ADDRESS, &peer) &&
              same_addr(&peer.addr, PEER_OTHER_PORT));
    cr_expect(incoming(a, PEER_OTHER_PORT) == NULL && w.out.drop == TURN_DROP_ROOM);
    cr_expect(connect_to(&alice, 3, PEER_OTHER_PORT) == 446);
    cr_expect(incoming(a, PEER2) == NULL && w.out.drop == TURN_DROP_PERMISSION);
    cr_expect(bind_to(&data, c->id) == 0 && w.out.act == TURN_JOIN && w.out.conn == c);
    struct netaddr forbidden = at_addr(PEER);

    w.t.config.arg = &forbidden; /* the policy has changed since */
    cr_expect(incoming(a, PEER) == NULL && w.out.drop == TURN_DROP_PEER);
    w.t.config.arg = NULL;
    pass_ms(TURN_PERMISSION_MS);
    cr_expect(incoming(a, PEER) == NULL && w.out.drop == TURN_DROP_PERMISSION);
}

Test(turn_tcp, turn_78_nobody_binds_for_30_s_and_the_peer_sees_a_close)
{
    struct turn_alloc *a = tcp_by(&alice);

    cr_assert(connect_to(&alice, 3, PEER) == -1);
    struct turn_conn *c = w.out.conn;

    pass_ms(20000);
    cr_assert(connected(c, true) == 0);
    cr_assert(permit(&alice, PEER2) == 0);
    pass_ms(5000);
    struct turn_conn *in = incoming(a, PEER2);

    pass_ms(24999);
    cr_expect(not(expires()));
    pass_ms(1);
    cr_expect(closes(c) && w.out.reply.n == 0 && w.out.alloc == a);
    cr_expect(not(expires()));
    cr_expect(bind_to(&data, c->id) == 400);
    pass_ms(4999);
    cr_expect(bind_to(&data, in->id) == 0);
    pass_ms(1);
    cr_expect(not(expires()));
    pass_ms(300000);
    cr_expect(not(expires()), "bound ones last");
    cr_expect(w.t.conns == 1);
}

/* ---- ConnectionBind ------------------------------------------------------------------------ */

Test(turn_tcp, turn_78_turn_80_one_stream_binds_one_connection)
{
    struct turn_alloc *a = tcp_by(&alice);
    struct turn_conn *c = waiting(&alice, PEER);
    struct making *k;

    cr_expect(ask(w_begin(STUN_CONNECTION_BIND, 4), &data) == 400, "no number");
    k = w_begin(STUN_CONNECTION_BIND, 4);
    stun_put(&k->b, STUN_CONNECTION_ID, bytes_str("abc"));
    cr_expect(ask(k, &data) == 400);
    cr_expect(bind_to(&data_bob, c->id) == 400, "another user");
    cr_expect(bind_to(&alice, c->id) == 400, "the control connection");
    w.transport = TURN_UDP;
    cr_expect(bind_to(&data, c->id) == 400);
    w.transport = TURN_DTLS;
    cr_expect(bind_to(&data, c->id) == 400);
    w.transport = TURN_TCP;
    struct who wrong = { data.client, "alice", "guess" };

    cr_expect(bind_to(&wrong, c->id) == 401);
    cr_expect(c->state == TURN_CONN_WAITING);
    w.t.config.find_user = NULL; /* the key is the allocation's */
    cr_expect(bind_to(&data, c->id) == 0);
    cr_expect(w.out.act == TURN_JOIN && w.out.conn == c && w.out.alloc == a);
    cr_expect(c->state == TURN_CONN_BOUND && w.t.conns_by_expiry.count == 0);
    cr_expect(bind_to(&data2, c->id) == 400, "once");
    turn_conn_end(&w.t, c);
    cr_expect(bind_to(&data2, c->id) == 401, "nobody's, and then not even the user is known");
    check_none_left();
}

Test(turn_tcp, connecting_is_not_waiting)
{
    tcp_by(&alice);
    cr_assert(connect_to(&alice, 3, PEER) == -1);
    cr_expect(bind_to(&data, w.out.conn->id) == 400);
}

/* By whichever end: all its connections are told of, each once. */
Test(turn_tcp, turn_80_connections_end_with_their_allocation)
{
    for (int how = 0; how < 3; how++) {
        struct turn_alloc *a = tcp_by(&alice);
        struct turn_conn *all[3];

        cr_assert(connect_to(&alice, 3, PEER) == -1);
        all[0] = w.out.conn;
        all[1] = waiting(&alice, PEER2);
        all[2] = waiting(&alice, PEER_OTHER_PORT);
        cr_assert(bind_to(&data, all[2]->id) == 0);
        if (how == 0) {
            cr_expect(refresh(&alice, 0) == 0 && w.out.gone);
        } else if (how == 1) {
            turn_delete(&w.t, a);
        } else {
            turn_conn_end(&w.t, all[0]);
            turn_conn_end(&w.t, all[1]);
            pass_ms(TURN_LIFETIME_MS);
            cr_expect(expires() && w.out.act == TURN_RELEASE && w.out.gone);
        }
        cr_expect(turn_deadline_ms(&w.t) <= w.now.ms, "the rest is due at once");
        cr_expect(bind_to(&data2, all[1]->id) == 400, "a number dies with it");
        for (int i = how == 2 ? 2 : 0; i < 3; i++) {
            if (i == 0) { /* the peer answers too late */
                w.out = turn_out_of(w.buf, sizeof(w.buf));
                turn_on_connected(&w.t, w.now.ms, all[0], true, &w.out);
                cr_expect(w.out.drop == TURN_DROP_ALLOCATION && w.out.reply.n == 0);
            }
            cr_expect(closes(all[i]) && w.out.reply.n == 0, "%d of %d", i, how);
        }
        cr_expect(not(expires()));
        check_none_left();
        cr_expect(turn_deadline_ms(&w.t) == UINT64_MAX);
    }
}

Test(turn_tcp, who_ends_a_connection_first_is_not_told_again)
{
    struct turn_alloc *a = tcp_by(&alice);
    struct turn_conn *c = waiting(&alice, PEER);

    turn_delete(&w.t, a);
    turn_conn_end(&w.t, c);
    cr_expect(not(expires()));
    check_none_left();
}

Test(turn_tcp, a_half_takes_its_connections_along)
{
    struct making *k = tcp_wish(1);

    stun_put_u8(&k->b, STUN_ADDITIONAL_ADDRESS_FAMILY, 2);
    cr_assert(ask(k, &alice) == -1);
    cr_assert(grant_wish(0) == 0);
    struct turn_conn *four = waiting(&alice, PEER), *six = waiting(&alice, PEER6);

    k = w_begin(STUN_REFRESH, 9);
    stun_put_u32(&k->b, STUN_LIFETIME, 0);
    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 2);
    cr_assert(ask(k, &alice) == 0 && !w.out.gone);
    cr_expect(closes(six));
    cr_expect(not(expires()));
    cr_expect(bind_to(&data, four->id) == 0);
}

/* ---- the numbers --------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint32_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

Test(turn_tcp, numbers_differ_name_their_shard_and_follow_no_pattern)
{
    enum { MANY = 20000 };
    static uint32_t ids[MANY];
    struct turn_alloc *a = tcp_by(&alice);
    unsigned bits[32] = { 0 }, near = 0;

    cr_assert(permit(&alice, PEER) == 0);
    for (unsigned i = 0; i < MANY; i++) {
        if (i % 1000 == 0)
            cr_assert(permit(&alice, PEER) == 0);
        struct turn_conn *c = incoming(a, PEER);

        cr_assert(c != NULL);
        ids[i] = c->id;
        cr_assert(turn_id_shard(&w.t, c->id) == 5 && turn_conn_find(&w.t, c->id) == c);
        for (unsigned b = 0; b < 32; b++)
            bits[b] += c->id >> b & 1;
        if (i && (ids[i] - ids[i - 1] < 1000 || ids[i - 1] - ids[i] < 1000))
            near++;
        turn_conn_end(&w.t, c);
        cr_assert(turn_conn_find(&w.t, c->id) == NULL);
    }
    for (unsigned b = 0; b < 32; b++) /* ten standard deviations */
        cr_expect(bits[b] > MANY / 2 - 708 && bits[b] < MANY / 2 + 708, "bit %u: %u", b, bits[b]);
    cr_expect(near < 5, "%u follow each other closely", near);
    qsort(ids, MANY, sizeof(ids[0]), by_number);
    for (unsigned i = 1; i < MANY; i++)
        cr_assert(ids[i] != ids[i - 1]);
}

Test(turn_tcp, a_count_that_wraps_passes_over_the_living)
{
    struct turn_alloc *a = tcp_by(&alice);

    cr_assert(permit(&alice, PEER) == 0);
    struct turn_conn *c = incoming(a, PEER);

    w.t.next_id--;
    struct turn_conn *d = incoming(a, PEER_OTHER_PORT);

    cr_expect(d != NULL && d->id != c->id);
    w.t.next_id = (1u << 24) - 1;
    d = incoming(a, "192.0.2.50:4002");
    cr_expect(d != NULL && turn_id_shard(&w.t, d->id) == 5 && w.t.next_id == 0);
}

Test(turn_tcp, turn_80_a_number_of_another_shard_goes_there)
{
    tcp_by(&alice);
    struct turn_conn *c = waiting(&alice, PEER);
    uint32_t id = c->id;

    w.config.place.shard = 6;
    world_begin();
    cr_expect(bind_to(&data, id) == -1 && w.out.act == TURN_ELSEWHERE && w.out.shard == 5);
    struct making *k = w_begin(STUN_CONNECTION_BIND, 4);

    stun_put_u32(&k->b, STUN_CONNECTION_ID, id);
    deliver(data.client, made(k));
    cr_expect(w.out.code == 401 && w.out.act == TURN_NOTHING);
    w.transport = TURN_UDP;
    cr_expect(bind_to(&data, id) == 400);
    w.transport = TURN_TCP;
    w.t.config.place.shards = 5;
    cr_expect(bind_to(&data, id) == 400, "there is no such shard");
    w.config.place.shard = 5;
    w.config.place.key[0] ^= 1;
    world_begin();
    cr_expect(turn_id_shard(&w.t, id) != 5, "one of 256 keys would say so");
}
