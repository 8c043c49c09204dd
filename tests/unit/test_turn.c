/* The TURN machine by the numbered checks of turn.md §20. */
#include "tests/unit/turn_world.h"

TestSuite(turn_binding, .init = world);
TestSuite(turn_auth, .init = world);
TestSuite(turn_allocate, .init = world);
TestSuite(turn_refresh, .init = world);

/* ---- Binding ------------------------------------------------------------------------------- */

Test(turn_binding, turn_01_turn_17_turn_18_answers_with_the_source)
{
    deliver("192.0.2.1:32853", hex(V8));
    cr_expect(is_hex(w.out.reply, V8_REPLY));
    deliver("[2001:db8::1]:3478", hex(V8));
    cr_expect(eq(sz, w.out.reply.n, 44));
    cr_expect(is_hex(stun_value(&w.reply, STUN_XOR_MAPPED_ADDRESS),
                     "00022c840113a9fa0102030405060708090a0b0d"));
    cr_expect(w.t.allocs == 0 && w.out.act == TURN_NOTHING);
}

Test(turn_binding, turn_02_to_turn_08_are_silent)
{
    static const struct {
        const char *wire;
        enum turn_drop why;
    } all[] = {
        { V8 "00", TURN_DROP_MALFORMED },
        { "00010004" COOKIE TID, TURN_DROP_MALFORMED },
        { "00010002" COOKIE TID, TURN_DROP_MALFORMED },
        { "40010000" COOKIE TID, TURN_DROP_ALLOCATION },
        { "00010000"
          "2112a443" TID,
          TURN_DROP_FOREIGN },
        { "01010000" COOKIE TID, TURN_DROP_CLASS },
        { "01110000" COOKIE TID, TURN_DROP_CLASS },
        { "00110000" COOKIE TID, TURN_DROP_NONE }, /* a keepalive is welcome */
        { "80010000" COOKIE TID, TURN_DROP_FOREIGN },
        { "16030100", TURN_DROP_FOREIGN },
        { "0002"
          "0000" COOKIE TID,
          TURN_DROP_METHOD },
        { "000a"
          "0000" COOKIE TID,
          TURN_DROP_METHOD },
        { "0013"
          "0000" COOKIE TID,
          TURN_DROP_METHOD }, /* an Allocate indication */
        { "00010008" COOKIE TID "8028000412345678", TURN_DROP_FINGERPRINT },
        { "00010004" COOKIE TID "8022ffff", TURN_DROP_MALFORMED },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        deliver(CLIENT, hex(all[i].wire));
        cr_expect(w.replied == false && w.out.drop == all[i].why, "%zu: %d", i, w.out.drop);
    }
    deliver(CLIENT, bytes_of(NULL, 0));
    cr_expect(w.replied == false && w.out.drop == TURN_DROP_FOREIGN);
}

Test(turn_binding, turn_09_turn_19_mirrors_fingerprint_and_adds_nothing)
{
    struct making *k = making(STUN_BINDING, STUN_REQUEST);

    stun_put_fingerprint(&k->b);
    deliver(CLIENT, made(k));
    cr_expect(w.reply.have == (STUN_BIT(STUN_XOR_MAPPED_ADDRESS) | STUN_BIT(STUN_FINGERPRINT)));
    deliver(CLIENT, hex(V8));
    cr_expect(w.reply.have == STUN_BIT(STUN_XOR_MAPPED_ADDRESS));
}

Test(turn_binding, turn_11_turn_14_turn_22_knows_what_to_refuse)
{
    static const struct {
        const char *attrs;
        uint16_t refused; /* 0: success */
    } all[] = {
        { "7fff0000", 0x7fff },
        { "ffff0000", 0 },
        { "002400046e0001ff00250000", 0 },
        { "802900080102030405060708", 0 },
        { "0003000400000002", 0x0003 },
        { "0003000400000000", 0 },
        { "0003000300000000", 0x0003 },
        { "00270004138800 00", 0x0027 },
        { "0026000400000000", 0x0026 },
        { "00070004 61626364", 0 },
        { "001b000461626364", 0x001b },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct making *k = making(STUN_BINDING, STUN_REQUEST);
        struct bytes attrs = hex(all[i].attrs);

        wcur_put(&k->b.w, attrs);
        deliver(CLIENT, made(k));
        cr_assert(w.replied);
        cr_expect(w.out.code == (all[i].refused ? 420 : 0), "%zu", i);
        if (all[i].refused)
            cr_expect(stun_u16(&w.reply, STUN_UNKNOWN_ATTRIBUTES) == all[i].refused, "%zu", i);
    }
}

Test(turn_binding, speaks_rfc_3489_only_when_told_to)
{
    struct bytes in = hex("00010000"
                          "00112233" TID);

    deliver(CLIENT, in);
    cr_expect(w.replied == false && w.out.drop == TURN_DROP_FOREIGN);
    w.t.config.limits.classic = true;
    w.out = turn_out_of(w.buf, sizeof(w.buf));
    struct turn_tuple tuple = tuple_of(CLIENT);

    turn_on_message(&w.t, w.now, &tuple, in, &w.out);
    cr_expect(is_hex(w.out.reply, "0101000c"
                                  "00112233" TID "0001000800013039c0000207"));
    in = hex("00030008"
             "00112233" TID "0019000411000000");
    turn_on_message(&w.t, w.now, &tuple, in, &w.out);
    cr_expect(w.out.reply.n == 0 && w.out.drop == TURN_DROP_METHOD);
}

/* ---- credentials --------------------------------------------------------------------------- */

Test(turn_auth, turn_25_turn_26_turn_45_a_stranger_gets_401_and_leaves_nothing)
{
    deliver(CLIENT, hex(V10));
    cr_expect(w.out.code == 401 && w.out.reply.n <= 100);
    cr_expect(w.reply.have == (STUN_BIT(STUN_ERROR_CODE) | STUN_BIT(STUN_REALM) |
                               STUN_BIT(STUN_NONCE) | STUN_BIT(STUN_PASSWORD_ALGORITHMS)));
    deliver(CLIENT, hex("00030000" COOKIE TID));
    cr_expect(w.out.code == 401 && w.out.reply.n <= 100);
    for (unsigned i = 0; i < 1000; i++) {
        char client[32];

        snprintf(client, sizeof(client), "192.0.2.9:%u", 1000 + i);
        deliver(client, hex(V10));
    }
    cr_expect(w.t.allocs == 0 && w.t.perms == 0 && w.t.chans == 0 && w.t.heap_count == 0);
    cr_expect(turn_deadline_ms(&w.t) == UINT64_MAX && w.lookups == 0);
}

Test(turn_auth, turn_30_every_wrong_credential_answers_alike)
{
    static const struct who wrong[] = { { CLIENT, "alice", "blunder" },
                                        { CLIENT, "nobody", "wonder" },
                                        { CLIENT, "1:expired", "x" },
                                        { CLIENT, "9999999999:x", "x" } };
    size_t length = 0;

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        cr_expect(ask(allocate(1), &wrong[i]) == 401);
        cr_expect(length == 0 || w.out.reply.n == length);
        cr_expect(stun_mac_of(&w.reply) == STUN_MAC_NONE);
        length = w.out.reply.n;
    }
    cr_expect(w.t.allocs == 0);
}

Test(turn_auth, turn_32_a_stale_nonce_is_438_and_the_retry_succeeds)
{
    struct making *k = allocate(1);
    static uint8_t late[512];
    size_t n;

    w_sign(k, &alice);
    n = made(k).n;
    memcpy(late, k->buf, n);
    pass_ms(LIFETIME + 1);
    deliver(CLIENT, bytes_of(late, n));
    cr_expect(w.out.code == 438 && stun_has(&w.reply, STUN_NONCE) &&
              stun_has(&w.reply, STUN_REALM));
    cr_expect(allocated_by(&alice, 1) != NULL);
}

Test(turn_auth, turn_34_turn_84_an_old_nonce_does_not_end_an_allocation)
{
    struct making *k;
    static uint8_t late[512];
    size_t n;

    allocated_by(&alice, 1);
    cr_assert(refresh(&alice, 3600) == 0);
    k = w_begin(STUN_REFRESH, 5);
    w_sign(k, &alice);
    n = made(k).n;
    memcpy(late, k->buf, n);
    pass_ms(LIFETIME + 1);
    deliver(CLIENT, bytes_of(late, n));
    cr_expect(w.out.code == 438 && w.t.allocs == 1);
    cr_expect(refresh(&alice, 600) == 0);
    turn_delete(&w.t, w.out.alloc);
    cr_expect(refresh(&alice, 600) == 437, "after a restart of ours");
}

static struct who ephemeral(const char *name)
{
    static char password[4][STUN_PASSWORD_MAX + 1];
    static unsigned at;
    char *p = password[at++ % 4];

    p[stun_ephemeral_password(STUN_MAC_SHA1, world_secret, bytes_str(name), (uint8_t *)p)] = 0;
    return (struct who){ CLIENT, name, p };
}

Test(turn_auth, turn_41_turn_42_ephemeral_names_begin_nothing_after_their_time)
{
    struct who now = ephemeral("1700000100:carol"), past = ephemeral("1699999999:carol");

    cr_expect(ask(allocate(1), &past) == 401);
    cr_assert(ask(allocate(1), &now) == -1);
    cr_expect(bytes_eq(w.out.wish.quota, bytes_str("carol")));
    cr_assert(grant_wish(0) == 0);
    pass_ms(200000);
    cr_expect(refresh(&now, 600) == 0, "a long call goes on");
    cr_expect(permit(&now, "192.0.2.50:1") == 0);
    w.t.config.limits.strict_expiry = true;
    cr_expect(refresh(&now, 600) == 401);
    cr_expect(w.t.allocs == 1);
}

Test(turn_auth, turn_58_another_user_is_441)
{
    struct who carol = ephemeral("1700000100:carol");

    allocated_by(&alice, 1);
    cr_expect(refresh(&bob, 600) == 441);
    cr_expect(refresh(&carol, 0) == 441);
    cr_expect(permit(&bob, "192.0.2.50:1") == 441);
    cr_expect(bind_channel(&bob, 0x4000, "192.0.2.50:1") == 441);
    cr_expect(w.t.allocs == 1 && w.t.perms == 0);
    cr_expect(refresh(&alice, 600) == 0);
}

Test(turn_auth, the_key_of_an_allocation_needs_no_second_lookup)
{
    allocated_by(&alice, 1);
    unsigned before = w.lookups;

    w.t.config.find_user = NULL; /* nor even a user who still exists (turn.md §8.2) */
    cr_expect(refresh(&alice, 600) == 0 && w.lookups == before);
    cr_expect(refresh(&(struct who){ CLIENT, "alice", "blunder" }, 600) == 401);
    cr_expect(ask(allocate(2), &alice2) == 401);
}

Test(turn_auth, turn_35_sha256_is_answered_with_sha256)
{
    struct making *k = allocate(1);
    struct stun_key key;
    uint8_t nonce[STUN_NONCE_MAX], hash[STUN_USERHASH_BYTES];
    struct netaddr from = at_addr(CLIENT);
    size_t n = stun_nonce_make(&keys, STUN_FEATURE_ALGORITHMS | STUN_FEATURE_ANONYMITY, w.now.ms,
                               &from, nonce);

    stun_userhash(bytes_str("bob"), bytes_str("realm"), hash);
    stun_key_make(STUN_ALG_SHA256, bytes_str("bob"), bytes_str("realm"), bytes_str("builder"),
                  &key);
    stun_put(&k->b, STUN_USERHASH, bytes_of(hash, sizeof(hash)));
    stun_put(&k->b, STUN_REALM, bytes_str("realm"));
    stun_put(&k->b, STUN_NONCE, bytes_of(nonce, n));
    stun_put(&k->b, STUN_PASSWORD_ALGORITHMS, bytes_of(stun_algorithms, sizeof(stun_algorithms)));
    stun_put_u16(&k->b, STUN_PASSWORD_ALGORITHM, STUN_ALG_SHA256);
    stun_put_integrity(&k->b, STUN_MAC_SHA256, stun_key_bytes(&key), 32);
    deliver(CLIENT, made(k));
    cr_assert(w.out.act == TURN_BIND && w.out.wish.quota.n == STUN_USERHASH_BYTES);
    cr_assert(grant_wish(0) == 0);
    cr_expect(stun_integrity_ok(&w.reply, STUN_MAC_SHA256, stun_key_bytes(&key), 32));
    cr_expect(stun_value(&w.reply, STUN_MESSAGE_INTEGRITY_SHA256).n == 32);
    cr_expect(refresh(&bob, 600) == 0, "the same user by name and by MD5");
}

Test(turn_auth, unknown_attributes_are_420_before_any_effect)
{
    struct making *k = allocate(1);
    uint16_t want[] = { 0x7777, 0x0003 };

    stun_put_type(&k->b, 0x7777, bytes_of(NULL, 0));
    stun_put_u32(&k->b, STUN_CHANGE_REQUEST, 0);
    cr_expect(ask(k, &alice) == 420 && w.t.allocs == 0);
    struct bytes list = stun_value(&w.reply, STUN_UNKNOWN_ATTRIBUTES);

    cr_assert(eq(sz, list.n, 4));
    for (size_t i = 0; i < 2; i++)
        cr_expect(want[i] == (list.p[2 * i] << 8 | list.p[2 * i + 1]));
    w.t.config.limits.dont_fragment = false;
    k = allocate(1);
    stun_put(&k->b, STUN_DONT_FRAGMENT, bytes_of(NULL, 0));
    cr_expect(ask(k, &alice) == 420 && stun_u16(&w.reply, STUN_UNKNOWN_ATTRIBUTES) == 0x001a);
}

/* ---- Allocate ------------------------------------------------------------------------------ */

Test(turn_allocate, turn_29_gives_what_the_socket_got)
{
    struct turn_alloc *a = allocated_by(&alice, 1);
    struct stun_addr relayed, mapped;

    cr_assert(a != NULL);
    cr_expect(stun_addr(&w.reply, STUN_XOR_RELAYED_ADDRESS, &relayed));
    cr_expect(memcmp(&relayed.addr, &a->half[TURN_V4].relayed, sizeof(relayed.addr)) == 0);
    cr_expect(stun_addr(&w.reply, STUN_XOR_MAPPED_ADDRESS, &mapped));
    cr_expect(same_addr(&mapped.addr, CLIENT));
    cr_expect(stun_u32(&w.reply, STUN_LIFETIME) == 600);
    cr_expect(not(stun_has(&w.reply, STUN_RESERVATION_TOKEN)));
    cr_expect(a->half[TURN_V4].live && !a->half[TURN_V6].live && !a->pending);
}

Test(turn_allocate, turn_47_turn_48_a_retransmission_gets_the_same_and_another_437)
{
    struct turn_alloc *a;
    struct stun_addr first, again;

    cr_assert(ask(allocate(1), &alice) == -1);
    struct turn_out bind = w.out;

    cr_expect(ask(allocate(1), &alice) == -1 && w.out.drop == TURN_DROP_PENDING);
    cr_expect(w.out.act == TURN_NOTHING);
    cr_expect(ask(allocate(2), &alice) == 437);
    w.out = bind;
    cr_assert(grant_wish(0) == 0);
    a = w.out.alloc;
    stun_addr(&w.reply, STUN_XOR_RELAYED_ADDRESS, &first);
    pass_ms(100000);
    cr_expect(ask(allocate(1), &alice) == 0 && w.out.act == TURN_NOTHING && w.out.alloc == a);
    stun_addr(&w.reply, STUN_XOR_RELAYED_ADDRESS, &again);
    cr_expect(memcmp(&first.addr, &again.addr, sizeof(first.addr)) == 0);
    cr_expect(stun_u32(&w.reply, STUN_LIFETIME) == 500, "what is left");
    cr_expect(ask(allocate(2), &alice) == 437);
    cr_expect(ask(allocate(1), &bob) == 437);
    cr_expect(w.t.allocs == 1);
}

Test(turn_allocate, turn_46_asks_for_udp)
{
    struct making *k = w_begin(STUN_ALLOCATE, 1);

    cr_expect(ask(k, &alice) == 400);
    for (unsigned proto = 0; proto < 256; proto++) {
        if (proto == 17)
            continue;
        k = w_begin(STUN_ALLOCATE, 1);
        stun_put_u8(&k->b, STUN_REQUESTED_TRANSPORT, (uint8_t)proto);
        cr_expect(ask(k, &alice) == 442, "%u", proto);
    }
    k = w_begin(STUN_ALLOCATE, 1);
    stun_put(&k->b, STUN_REQUESTED_TRANSPORT, bytes_str("\x11"));
    cr_expect(ask(k, &alice) == 400);
    cr_expect(w.t.allocs == 0);
}

Test(turn_allocate, turn_49_lifetimes_are_granted_within_bounds)
{
    static const struct {
        unsigned asked, granted;
    } all[] = { { 0, 600 },     { 1, 600 },      { 600, 600 },        { 601, 601 },
                { 3600, 3600 }, { 99999, 3600 }, { UINT32_MAX, 3600 } };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct making *k = allocate(1);

        stun_put_u32(&k->b, STUN_LIFETIME, all[i].asked);
        cr_assert(ask(k, &alice) == -1);
        cr_assert(grant_wish(0) == 0);
        cr_expect(stun_u32(&w.reply, STUN_LIFETIME) == all[i].granted, "%u", all[i].asked);
        cr_expect(eq(u64, turn_deadline_ms(&w.t), w.now.ms + all[i].granted * UINT64_C(1000)));
        turn_delete(&w.t, w.out.alloc);
    }
}

/* What is put into an Allocate, and what comes of it. */
enum {
    ONE4 = 1,
    ONE6 = 2,
    ONE3 = 4,
    TWO6 = 8,
    TWO4 = 16,
    EVEN = 32,
    RESERVE = 64,
    TOKEN = 128,
    TICKET = 256
};

static int wanted(unsigned what)
{
    struct making *k = allocate(1);

    if (what & (ONE4 | ONE6 | ONE3))
        stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, what & ONE4 ? 1 : what & ONE6 ? 2 : 3);
    if (what & (TWO4 | TWO6))
        stun_put_u8(&k->b, STUN_ADDITIONAL_ADDRESS_FAMILY, what & TWO4 ? 1 : 2);
    if (what & (EVEN | RESERVE))
        stun_put_even_port(&k->b, what & RESERVE);
    if (what & TOKEN)
        stun_put(&k->b, STUN_RESERVATION_TOKEN, bytes_str("abcdefgh"));
    if (what & TICKET)
        stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(NULL, 0));
    return ask(k, &alice);
}

Test(turn_allocate, turn_50_turn_51_turn_54_turn_81_illegal_wishes_are_refused)
{
    static const struct {
        unsigned what;
        int code;
    } all[] = {
        { ONE3, 440 },         { ONE4 | TWO6, 400 },
        { ONE6 | TWO6, 400 },  { TWO4, 400 },
        { EVEN | TOKEN, 400 }, { ONE4 | TOKEN, 400 },
        { TWO6 | TOKEN, 400 }, { RESERVE | TWO6, 400 },
        { TICKET, 405 },       { RESERVE | TOKEN, 400 },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        cr_expect(wanted(all[i].what) == all[i].code, "%zu", i);
    w.t.config.limits.family[TURN_V6] = false;
    cr_expect(wanted(ONE6) == 440);
    w.t.config.limits.family[TURN_V6] = true;
    w.t.config.limits.family[TURN_V4] = false;
    cr_expect(wanted(0) == 440 && wanted(ONE4) == 440);
    w.t.config.limits.family[TURN_V6] = false;
    cr_expect(wanted(TWO6) == 440);
    cr_expect(w.t.allocs == 0);
}

Test(turn_allocate, turn_52_turn_54_wishes_are_passed_on)
{
    cr_assert(wanted(EVEN) == -1);
    cr_expect(w.out.wish.even && !w.out.wish.reserve && w.out.wish.family[TURN_V4]);
    cr_assert(grant_wish(508) == 508);
    cr_expect(w.out.gone && w.t.allocs == 0);
    cr_assert(wanted(RESERVE) == -1);
    cr_expect(w.out.wish.even && w.out.wish.reserve);
    cr_assert(grant_wish(0) == 0);
    cr_expect(bytes_eq(stun_value(&w.reply, STUN_RESERVATION_TOKEN), bytes_str("tokentok")));
    cr_assert(wanted(RESERVE) == 0, "a retransmission");
    cr_expect(bytes_eq(stun_value(&w.reply, STUN_RESERVATION_TOKEN), bytes_str("tokentok")));
    turn_delete(&w.t, w.out.alloc);
    cr_assert(wanted(TOKEN) == -1);
    cr_expect(w.out.wish.has_token && memcmp(w.out.wish.token, "abcdefgh", 8) == 0);
    cr_expect(bytes_eq(w.out.wish.quota, bytes_str("alice")));
    cr_assert(grant_wish(508) == 508, "not his, or gone");
    cr_assert(wanted(0) == -1);
    cr_expect(grant_wish(486) == 486, "turn_56: the quota is the caller's");
    cr_assert(wanted(ONE6) == -1);
    cr_expect(w.out.wish.family[TURN_V6] && !w.out.wish.family[TURN_V4]);
    cr_assert(grant_wish(0) == 0);
}

Test(turn_allocate, turn_51_dual_gets_both_or_one_and_a_reason)
{
    struct stun_addr got;
    struct bytes v;
    uint16_t pos = 0, code;
    bool v6;

    cr_assert(wanted(TWO6) == -1);
    cr_expect(w.out.wish.family[TURN_V4] && w.out.wish.family[TURN_V6]);
    cr_assert(grant_wish(0) == 0);
    cr_assert(stun_next_addr(&w.reply, STUN_XOR_RELAYED_ADDRESS, &pos, &got) && !got.v6);
    cr_assert(stun_next_addr(&w.reply, STUN_XOR_RELAYED_ADDRESS, &pos, &got) && got.v6);
    turn_delete(&w.t, w.out.alloc);

    cr_assert(wanted(TWO6) == -1); /* the socket of one family cannot be had */
    struct turn_grant g = { .has = { true, false }, .family_error = { 0, 508 } };

    g.relayed[TURN_V4] = at_addr("203.0.113.9:50002");
    turn_on_bound(&w.t, w.now, w.out.alloc, &g, &w.out);
    cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK && w.out.code == 0);
    pos = 0;
    cr_assert(stun_next(&w.reply, STUN_ADDRESS_ERROR_CODE, &pos, &v));
    cr_expect(stun_address_error(v, &v6, &code) && v6 && code == 508);
    turn_delete(&w.t, w.out.alloc);

    w.t.config.limits.family[TURN_V6] = false; /* or is not there at all */
    cr_assert(wanted(TWO6) == -1);
    cr_expect(w.out.wish.family[TURN_V4] && !w.out.wish.family[TURN_V6]);
    cr_assert(grant_wish(0) == 0);
    pos = 0;
    cr_assert(stun_next(&w.reply, STUN_ADDRESS_ERROR_CODE, &pos, &v));
    cr_expect(stun_address_error(v, &v6, &code) && v6 && code == 440);
    turn_delete(&w.t, w.out.alloc);

    w.t.config.limits.family[TURN_V6] = true;
    cr_assert(wanted(TWO6) == -1); /* both fail: an error, and nothing stays */
    g = (struct turn_grant){ .family_error = { 0, 440 } };
    turn_on_bound(&w.t, w.now, w.out.alloc, &g, &w.out);
    cr_expect(w.out.code == 508 && w.out.gone && w.t.allocs == 0);
}

Test(turn_allocate, turn_82_draining_and_full_are_refused)
{
    char client[32];

    for (unsigned i = 0; i < 8; i++) {
        snprintf(client, sizeof(client), "192.0.2.30:%u", 1000 + i);
        allocated_by(&(struct who){ client, "alice", "wonder" }, i);
    }
    cr_expect(ask(allocate(99), &alice) == 508 && w.t.allocs == 8);
    w.t.draining = true;
    cr_expect(ask(allocate(99), &alice) == 403);
    cr_expect(refresh(&(struct who){ client, "alice", "wonder" }, 600) == 0);
    cr_expect(ask(allocate(7), &(struct who){ client, "alice", "wonder" }) == 0);
}

Test(turn_allocate, the_transport_and_the_server_are_of_the_five_tuple)
{
    struct turn_tuple tuple = tuple_of(CLIENT);

    w.config.limits.allocs_max = 1; /* one bucket: only the comparison tells them apart */
    world_begin();
    allocated_by(&alice, 1);
    cr_expect(turn_find(&w.t, &tuple) != NULL);
    tuple.transport = TURN_TCP;
    cr_expect(turn_find(&w.t, &tuple) == NULL);
    tuple = tuple_of(CLIENT);
    tuple.server.port++;
    cr_expect(turn_find(&w.t, &tuple) == NULL);
    tuple = tuple_of(CLIENT);
    tuple.client.ip[15]++;
    cr_expect(turn_find(&w.t, &tuple) == NULL);
}

Test(turn_allocate, cve_2026_73215_a_slot_never_stays_behind)
{
    uint32_t generation = 0;

    for (unsigned i = 0; i < 20000; i++) { /* turn_53, without the sockets */
        struct turn_alloc *a = allocated_by(&alice, i);

        cr_assert(a->generation >= generation);
        if (i % 3 == 0)
            cr_assert(refresh(&alice, 0) == 0 && w.out.gone);
        else if (i % 3 == 1)
            turn_delete(&w.t, a);
        else {
            pass_ms(600000);
            cr_assert(turn_expire(&w.t, w.now.ms, &w.out) && w.out.gone);
        }
        cr_assert(w.t.allocs == 0 && w.t.heap_count == 0);
    }
}

/* ---- Refresh ------------------------------------------------------------------------------- */

Test(turn_refresh, turn_57_zero_deletes_and_again_is_437)
{
    cr_expect(refresh(&alice, 600) == 437);
    allocated_by(&alice, 1);
    cr_expect(permit(&alice, "192.0.2.50:1") == 0);
    cr_expect(refresh(&alice, 0) == 0 && stun_u32(&w.reply, STUN_LIFETIME) == 0);
    cr_expect(w.out.act == TURN_RELEASE && w.out.gone && w.out.released[TURN_V4] &&
              !w.out.released[TURN_V6]);
    cr_expect(w.t.allocs == 0 && w.t.perms == 0);
    cr_expect(refresh(&alice, 0) == 437);
}

Test(turn_refresh, moves_the_end_and_nothing_else)
{
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_assert(bind_channel(&alice, 0x4000, "192.0.2.50:1") == 0);
    pass_ms(299000);
    cr_expect(refresh(&alice, 1200) == 0 && stun_u32(&w.reply, STUN_LIFETIME) == 1200);
    cr_expect(a->half[TURN_V4].expires_ms == w.now.ms + 1200000);
    pass_ms(1000); /* the permission of the channel ends all the same */
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_PERMISSION);
    cr_expect(refresh(&alice, 1) == 0 && stun_u32(&w.reply, STUN_LIFETIME) == 600);
    struct making *k = w_begin(STUN_REFRESH, 9);

    cr_expect(ask(k, &alice) == 0 && stun_u32(&w.reply, STUN_LIFETIME) == 600);
}

Test(turn_refresh, turn_59_a_family_selects_its_half)
{
    struct making *k;

    allocated_by(&alice, 1);
    k = w_begin(STUN_REFRESH, 9);
    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 2);
    cr_expect(ask(k, &alice) == 443);
    k = w_begin(STUN_REFRESH, 9);
    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 3);
    cr_expect(ask(k, &alice) == 443);
    turn_delete(&w.t, w.out.alloc);

    cr_assert(wanted(TWO6) == -1);
    cr_assert(grant_wish(0) == 0);
    k = w_begin(STUN_REFRESH, 9);
    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 1);
    stun_put_u32(&k->b, STUN_LIFETIME, 0);
    cr_expect(ask(k, &alice) == 0);
    cr_expect(w.out.act == TURN_RELEASE && !w.out.gone && w.out.released[TURN_V4]);
    cr_expect(permit(&alice, "192.0.2.50:1") == 443);
    cr_expect(permit(&alice, "[2001:db8::5]:1") == 0);
    cr_expect(refresh(&alice, 0) == 0 && w.out.gone && w.out.released[TURN_V6] &&
              !w.out.released[TURN_V4]);
}

Test(turn_refresh, halves_end_each_at_their_time)
{
    struct making *k;

    cr_assert(wanted(TWO6) == -1);
    cr_assert(grant_wish(0) == 0);
    k = w_begin(STUN_REFRESH, 9);
    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 2);
    stun_put_u32(&k->b, STUN_LIFETIME, 1800);
    cr_assert(ask(k, &alice) == 0);
    pass_ms(599999);
    cr_expect(not(turn_expire(&w.t, w.now.ms, &w.out)));
    pass_ms(1);
    cr_assert(turn_expire(&w.t, w.now.ms, &w.out));
    cr_expect(w.out.released[TURN_V4] && !w.out.released[TURN_V6] && !w.out.gone);
    cr_expect(not(turn_expire(&w.t, w.now.ms, &w.out)));
    pass_ms(1200000);
    cr_assert(turn_expire(&w.t, w.now.ms, &w.out));
    cr_expect(w.out.released[TURN_V6] && w.out.gone && w.t.allocs == 0);
}

Test(turn_refresh, turn_81_a_ticket_is_405)
{
    struct making *k;

    allocated_by(&alice, 1);
    k = w_begin(STUN_REFRESH, 9);
    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_str("x"));
    cr_expect(ask(k, &alice) == 405);
}
