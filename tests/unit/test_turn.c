/* Binding, and who is let in, by the numbered checks of turn.md §20. */
#include "tests/unit/turn_world.h"

TestSuite(turn_binding, .init = world);
TestSuite(turn_auth, .init = world);

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
    in = hex("00160000"
             "00112233" TID);
    turn_on_message(&w.t, w.now, &tuple, in, &w.out);
    cr_expect(w.out.drop == TURN_DROP_METHOD, "Binding alone was there");
    in = hex("00010008"
             "00112233" TID "8028000400000000"); /* of no meaning then */
    turn_on_message(&w.t, w.now, &tuple, in, &w.out);
    cr_expect(eq(sz, w.out.reply.n, 32));
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

Test(turn_auth, a_static_user_may_have_a_name_that_looks_like_an_end)
{
    cr_assert(ask(allocate(1), &(struct who){ CLIENT, "5:dave", "stays" }) == -1);
    cr_expect(bytes_eq(w.out.wish.quota, bytes_str("5:dave")));
}

Test(turn_auth, without_the_offer_a_password_algorithm_is_420)
{
    struct making *k = allocate(1);
    uint8_t nonce[STUN_NONCE_MAX];
    struct netaddr from = at_addr(CLIENT);
    struct stun_key key;

    w.t.config.realm.algorithms = w.t.config.realm.anonymity = false;
    stun_put_u16(&k->b, STUN_PASSWORD_ALGORITHM, STUN_ALG_SHA256);
    stun_put(&k->b, STUN_USERNAME, bytes_str("bob"));
    stun_put(&k->b, STUN_REALM, bytes_str("realm"));
    stun_put(&k->b, STUN_NONCE, bytes_of(nonce, stun_nonce_make(&keys, 0, w.now.ms, &from, nonce)));
    stun_key_make(STUN_ALG_MD5, bytes_str("bob"), bytes_str("realm"), bytes_str("builder"), &key);
    stun_put_integrity(&k->b, STUN_MAC_SHA1, stun_key_bytes(&key), 0);
    deliver(CLIENT, made(k));
    cr_expect(w.out.code == 420 && stun_u16(&w.reply, STUN_UNKNOWN_ATTRIBUTES) == 0x001d);
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
