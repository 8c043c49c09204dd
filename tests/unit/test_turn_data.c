/* Permissions, channels and what they let through, by the numbered checks of turn.md §20. */
#include "tests/unit/turn_world.h"

#define PEER "192.0.2.50:4000"
#define PEER_OTHER_PORT "192.0.2.50:4001"
#define PEER2 "192.0.2.51:4000"
#define PEER6 "[2001:db8::50]:4000"

TestSuite(turn_permission, .init = world);
TestSuite(turn_channel, .init = world);
TestSuite(turn_relay, .init = world);

static int permit_all(const char *const *peers, size_t n)
{
    struct making *k = w_begin(STUN_CREATE_PERMISSION, 7);

    for (size_t i = 0; i < n; i++)
        put_peer(k, peers[i]);
    return ask(k, &alice);
}

/* ---- permissions --------------------------------------------------------------------------- */

Test(turn_permission, turn_61_one_bad_address_spoils_the_batch)
{
    static const char *const loop[] = { PEER, "127.0.0.1:80" }, *const six[] = { PEER, PEER6 };
    static const char *const fine[] = { PEER, PEER2, PEER };
    struct making *k;

    cr_expect(permit(&alice, PEER) == 437);
    allocated_by(&alice, 1);
    cr_expect(ask(w_begin(STUN_CREATE_PERMISSION, 7), &alice) == 400);
    cr_expect(permit_all(loop, 2) == 403 && w.t.perms == 0);
    cr_expect(permit_all(six, 2) == 443 && w.t.perms == 0);
    k = w_begin(STUN_CREATE_PERMISSION, 7);
    put_peer(k, PEER);
    stun_put(&k->b, STUN_XOR_PEER_ADDRESS, bytes_str("\x01\x01"));
    cr_expect(ask(k, &alice) == 400 && w.t.perms == 0);
    cr_expect(permit_all(fine, 3) == 0 && w.t.perms == 2);
}

Test(turn_permission, turn_62_cve_2026_27624_a_mapped_peer_never_passes)
{
    allocated_by(&alice, 1);
    cr_expect(permit(&alice, "[::ffff:127.0.0.1]:80") == 443, "no IPv6 here");
    turn_delete(&w.t, w.out.alloc);
    struct making *k = allocate(2);

    stun_put_u8(&k->b, STUN_ADDITIONAL_ADDRESS_FAMILY, 2);
    cr_assert(ask(k, &alice) == -1);
    cr_assert(grant_wish(0) == 0);
    cr_expect(permit(&alice, "[::ffff:127.0.0.1]:80") == 403);
    cr_expect(permit(&alice, "[::ffff:192.0.2.50]:80") == 403, "not even a harmless one");
    cr_expect(bind_channel(&alice, 0x4000, "[::ffff:192.0.2.50]:80") == 403);
    cr_expect(permit(&alice, "127.0.0.1:80") == 403 &&
              bind_channel(&alice, 0x4000, "127.0.0.1:80") == 403);
    cr_expect(permit(&alice, "[::1]:80") == 403);
    cr_assert(permit(&alice, PEER) == 0);
    cr_expect(send_to(CLIENT, "[::ffff:192.0.2.50]:4000", "x") == TURN_DROP_PEER);
}

Test(turn_permission, turn_64_lasts_300_s_and_traffic_does_not_extend_it)
{
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_expect(from_peer(a, PEER) == -1 && w.out.drop == TURN_DROP_PERMISSION);
    cr_assert(permit(&alice, PEER) == 0);
    pass_ms(299999);
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_NONE);
    cr_expect(from_peer(a, PEER_OTHER_PORT) == 0, "the port does not count");
    pass_ms(1);
    cr_expect(from_peer(a, PEER) == -1);
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_PERMISSION);
    cr_expect(w.t.perms == 0, "swept");
    cr_assert(permit(&alice, PEER) == 0);
    pass_ms(200000);
    cr_assert(permit(&alice, PEER) == 0 && w.t.perms == 1);
    pass_ms(299999);
    cr_expect(from_peer(a, PEER) == 0, "refreshed");
}

Test(turn_permission, holds_its_bounds_and_refuses_with_508)
{
    char peers[9][24];
    const char *all[9];

    allocated_by(&alice, 1);
    for (unsigned i = 0; i < 9; i++) {
        snprintf(peers[i], sizeof(peers[i]), "192.0.2.%u:1", 100 + i);
        all[i] = peers[i];
    }
    cr_expect(permit_all(all, 9) == 508 && w.t.perms == 0, "none of them");
    cr_expect(permit_all(all, 8) == 0 && w.t.perms == 8);
    cr_expect(permit(&alice, peers[8]) == 508);
    cr_expect(bind_channel(&alice, 0x4000, peers[8]) == 508 && w.t.chans == 0);
    cr_expect(permit_all(all, 8) == 0, "refreshing needs no room");
    cr_expect(bind_channel(&alice, 0x4000, peers[0]) == 0);
    for (unsigned i = 0; i < 2; i++) { /* 24 in all */
        char client[32];

        snprintf(client, sizeof(client), "192.0.2.9:%u", 1 + i);
        struct who who = { client, "alice", "wonder" };

        allocated_by(&who, 2);
        for (unsigned p = 0; p < 8; p++)
            cr_assert(permit(&who, peers[p]) == 0);
    }
    cr_assert(w.t.perms == 24);
    allocated_by(&alice2, 3);
    cr_expect(permit(&alice2, peers[0]) == 508);
    pass_ms(300000);
    cr_expect(permit(&alice2, peers[0]) == 0);
}

Test(turn_permission, an_address_named_twice_counts_once)
{
    static const char *const twice[] = { PEER, PEER_OTHER_PORT, PEER, PEER2 };

    w.config.limits.alloc_perms_max = 2;
    world_begin();
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_expect(permit_all(twice, 4) == 0 && w.t.perms == 2);
    pass_ms(299999);
    cr_expect(from_peer(a, PEER) == 0 && from_peer(a, PEER2) == 0);
    cr_expect(permit_all(twice, 4) == 0, "refreshing");
}

/* Those that would have fitted go with the one that does not, and what was there keeps its time. */
Test(turn_permission, a_batch_that_does_not_fit_leaves_nothing)
{
    static const char *const three[] = { PEER, PEER2, "192.0.2.77:1" };

    w.config.limits.alloc_perms_max = 2;
    world_begin();
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_assert(permit(&alice, PEER) == 0);
    pass_ms(100000);
    cr_expect(permit_all(three, 3) == 508 && w.t.perms == 1);
    cr_expect(from_peer(a, PEER) == 0 && from_peer(a, PEER2) == -1);
    pass_ms(200000);
    cr_expect(from_peer(a, PEER) == -1, "not refreshed by what was refused");
    cr_expect(permit_all(three, 2) == 0);
}

/* One that has ended and was not swept yet is a new one: it goes with the rest. */
Test(turn_permission, a_batch_that_does_not_fit_revives_nothing)
{
    enum { MANY = TURN_SWEEP_MAX + 10 };
    static char text[2 * MANY][24];
    const char *all[2 * MANY], *batch[MANY];

    w.config.limits.perms_max = MANY;
    w.config.limits.alloc_perms_max = MANY;
    world_begin();
    struct turn_alloc *a = allocated_by(&alice, 1);

    for (unsigned i = 0; i < 2 * MANY; i++) {
        snprintf(text[i], sizeof(text[i]), "192.0.2.%u:1", 100 + i);
        all[i] = text[i];
    }
    cr_assert(permit_all(all, MANY) == 0);
    pass_ms(TURN_PERMISSION_MS); /* the next call sweeps all but ten */
    batch[0] = all[TURN_SWEEP_MAX];
    for (unsigned i = 0; i <= TURN_SWEEP_MAX; i++)
        batch[1 + i] = all[MANY + i];
    cr_expect(permit_all(batch, TURN_SWEEP_MAX + 2) == 508);
    for (unsigned i = 0; i < 2 * MANY; i++)
        cr_expect(from_peer(a, all[i]) == -1, "%s", all[i]);
    cr_expect(permit_all(batch, TURN_SWEEP_MAX) == 0 && w.t.perms == TURN_SWEEP_MAX);
}

/* ---- channels ------------------------------------------------------------------------------ */

Test(turn_channel, turn_66_numbers_and_peers_are_legal_or_400)
{
    struct making *k;

    cr_expect(bind_channel(&alice, 0x4000, PEER) == 437);
    allocated_by(&alice, 1);
    static const unsigned bad[] = { 0x0000, 0x3fff, 0x5000, 0x7fff, 0x8000, 0xffff };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(bind_channel(&alice, bad[i], PEER) == 400, "%04x", bad[i]);
    cr_expect(bind_channel(&alice, 0x4000, "192.0.2.50:0") == 400);
    k = w_begin(STUN_CHANNEL_BIND, 8);
    put_peer(k, PEER);
    cr_expect(ask(k, &alice) == 400);
    k = w_begin(STUN_CHANNEL_BIND, 8);
    stun_put_u16(&k->b, STUN_CHANNEL_NUMBER, 0x4000);
    cr_expect(ask(k, &alice) == 400);
    cr_expect(bind_channel(&alice, 0x4000, PEER6) == 443);
    cr_expect(w.t.chans == 0 && w.t.perms == 0);
    cr_expect(bind_channel(&alice, 0x4fff, PEER) == 0);
    w.t.config.limits.compat_channels = true;
    cr_expect(bind_channel(&alice, 0x7fff, PEER2) == 0 &&
              bind_channel(&alice, 0x8000, PEER2) == 400);
    cr_expect(channel_send(CLIENT, 0x7fff, "x") == TURN_DROP_NONE);
}

Test(turn_channel, turn_67_a_pair_belongs_together)
{
    allocated_by(&alice, 1);
    cr_expect(bind_channel(&alice, 0x4000, PEER) == 0);
    cr_expect(bind_channel(&alice, 0x4000, PEER2) == 400);
    cr_expect(bind_channel(&alice, 0x4001, PEER) == 400);
    cr_expect(bind_channel(&alice, 0x4000, PEER_OTHER_PORT) == 400, "the port counts here");
    cr_expect(bind_channel(&alice, 0x4001, PEER_OTHER_PORT) == 0);
    cr_expect(bind_channel(&alice, 0x4001, PEER) == 400, "both bound, not to each other");
    cr_expect(bind_channel(&alice, 0x4000, PEER) == 0 && w.t.chans == 2 && w.t.perms == 1);
    allocated_by(&alice2, 2); /* another allocation has numbers of its own */
    cr_expect(bind_channel(&alice2, 0x4000, PEER2) == 0);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_NONE && same_addr(&w.out.peer, PEER));
    cr_expect(channel_send(alice2.client, 0x4000, "x") == TURN_DROP_NONE &&
              same_addr(&w.out.peer, PEER2));
}

Test(turn_channel, turn_68_the_bound_pair_speaks_in_channel_data)
{
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_assert(bind_channel(&alice, 0x4001, PEER) == 0);
    cr_expect(from_peer(a, PEER) == 0x4001);
    cr_expect(from_peer(a, PEER_OTHER_PORT) == 0, "a Data indication");
    cr_expect(from_peer(a, PEER2) == -1);
    cr_expect(channel_send(CLIENT, 0x4001, "hello") == TURN_DROP_NONE);
    cr_expect(same_addr(&w.out.peer, PEER) && w.out.alloc == a && !w.out.dont_fragment);
}

Test(turn_channel, turn_69_lengths_and_strangers)
{
    allocated_by(&alice, 1);
    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0);
    deliver(CLIENT, hex("40000005 68656c6c"));
    cr_expect(w.out.drop == TURN_DROP_MALFORMED);
    deliver(CLIENT, hex("40000002 68656c6c6f"));
    cr_expect(w.out.act == TURN_RELAY && bytes_eq(w.out.data, bytes_str("he")));
    cr_expect(channel_send(CLIENT, 0x4000, "") == TURN_DROP_NONE && w.out.act == TURN_RELAY);
    cr_expect(channel_send(CLIENT, 0x4001, "x") == TURN_DROP_CHANNEL);
    cr_expect(channel_send("192.0.2.99:1", 0x4000, "x") == TURN_DROP_ALLOCATION);
    deliver(CLIENT, hex("50000000"));
    cr_expect(w.out.drop == TURN_DROP_FOREIGN, "a QUIC packet, when channels end at 4fff");
}

Test(turn_channel, turn_70_lives_600_s_but_its_permission_300)
{
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_assert(refresh(&alice, 3600) == 0);
    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0);
    pass_ms(300000);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_PERMISSION);
    cr_expect(from_peer(a, PEER) == -1);
    cr_assert(permit(&alice, PEER) == 0);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_NONE && from_peer(a, PEER) == 0x4000);
    pass_ms(299999);
    cr_expect(from_peer(a, PEER) == 0x4000);
    cr_expect(bind_channel(&alice, 0x4001, PEER) == 400);
    pass_ms(1);
    cr_assert(permit(&alice, PEER) == 0);
    cr_expect(from_peer(a, PEER) == 0 && channel_send(CLIENT, 0x4000, "x") == TURN_DROP_CHANNEL);
    cr_expect(bind_channel(&alice, 0x4001, PEER) == 0, "after its end the pair is free");
    pass_ms(599999);
    cr_assert(bind_channel(&alice, 0x4001, PEER) == 0);
    pass_ms(599999);
    cr_assert(permit(&alice, PEER) == 0);
    cr_expect(from_peer(a, PEER) == 0x4001, "refreshed");
}

/* Between two messages nothing is swept: who asks by channel number is told the truth all the same.
 */
Test(turn_channel, what_has_expired_is_nobodys_even_unswept)
{
    struct turn_alloc *a = allocated_by(&alice, 1);
    struct netaddr peer;

    cr_assert(refresh(&alice, 3600) == 0);
    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0);
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4000, &peer) == TURN_DROP_NONE);
    cr_expect(same_addr(&peer, PEER));
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4001, &peer) == TURN_DROP_CHANNEL);
    pass_ms(299999);
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4000, &peer) == TURN_DROP_NONE);
    pass_ms(1);
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4000, &peer) == TURN_DROP_PERMISSION);
    pass_ms(300000);
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4000, &peer) == TURN_DROP_CHANNEL);
    cr_expect(w.t.perms == 1 && w.t.chans == 1);
}

Test(turn_channel, holds_its_bounds)
{
    char peers[6][24];

    for (unsigned i = 0; i < 6; i++)
        snprintf(peers[i], sizeof(peers[i]), "192.0.2.60:%u", 1 + i);
    for (unsigned c = 0; c < 3; c++) {
        char client[32];

        snprintf(client, sizeof(client), "192.0.2.9:%u", 1 + c);
        struct who who = { client, "alice", "wonder" };

        allocated_by(&who, 2);
        for (unsigned i = 0; i < 5; i++)
            cr_expect(bind_channel(&who, 0x4000 + i, peers[i]) == (i < 4 ? 0 : 508));
    }
    allocated_by(&alice, 2); /* 12 in all */
    cr_expect(bind_channel(&alice, 0x4000, PEER) == 508 && w.t.perms == 3);
}

/* ---- relaying ------------------------------------------------------------------------------ */

Test(turn_relay, turn_65_send_is_relayed_or_silent)
{
    struct making *k;

    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_ALLOCATION);
    allocated_by(&alice, 1);
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_PERMISSION);
    cr_assert(permit(&alice, PEER) == 0);
    cr_expect(send_to(CLIENT, PEER, "hello") == TURN_DROP_NONE && !w.out.dont_fragment);
    cr_expect(send_to(CLIENT, PEER_OTHER_PORT, "hello") == TURN_DROP_NONE);
    cr_expect(send_to(CLIENT, PEER, "") == TURN_DROP_NONE && w.out.act == TURN_RELAY);
    cr_expect(send_to(CLIENT, "192.0.2.50:0", "x") == TURN_DROP_PEER);
    cr_expect(send_to(CLIENT, PEER6, "x") == TURN_DROP_PEER);
    for (int what = 0; what < 5; what++) {
        static const enum turn_drop want[] = { TURN_DROP_UNKNOWN, TURN_DROP_MALFORMED,
                                               TURN_DROP_MALFORMED, TURN_DROP_MALFORMED,
                                               TURN_DROP_NONE };

        k = making(STUN_SEND, STUN_INDICATION);
        if (what != 1)
            put_peer(k, PEER);
        if (what != 2 && what != 3)
            stun_put(&k->b, STUN_DATA, bytes_str("x"));
        if (what == 0)
            stun_put_type(&k->b, 0x7fff, bytes_of(NULL, 0));
        if (what == 3)
            stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0),
                stun_put(&k->b, STUN_DATA, bytes_str("x"));
        if (what == 4)
            stun_put(&k->b, STUN_DONT_FRAGMENT, bytes_of(NULL, 0));
        deliver(CLIENT, made(k));
        cr_expect(w.out.drop == want[what] && !w.replied, "%d", what);
        cr_expect(w.out.dont_fragment == (what == 4));
    }
}

Test(turn_relay, a_peer_that_is_forbidden_later_gets_nothing_more)
{
    static struct netaddr forbidden;

    allocated_by(&alice, 1);
    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0);
    forbidden = at_addr(PEER);
    w.t.config.arg = &forbidden;
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_PEER);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_PEER);
}

Test(turn_relay, turn_60_nothing_is_left_of_a_deleted_allocation)
{
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0 && permit(&alice, PEER2) == 0);
    turn_delete(&w.t, a);
    cr_expect(w.t.allocs == 0 && w.t.perms == 0 && w.t.chans == 0);
    cr_expect(turn_deadline_ms(&w.t) == UINT64_MAX);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_ALLOCATION);
    a = allocated_by(&alice, 2); /* the same slot, or another: nothing was inherited */
    cr_expect(from_peer(a, PEER) == -1);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_CHANNEL);
}

Test(turn_relay, turn_43_hostile_names_end_in_an_answer)
{
    static const char *const names[] = { "", "%s%n", "a\nb", "\"';--", "\xff\xfe", ":", "1:" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        cr_expect(ask(allocate(1), &(struct who){ CLIENT, names[i], "x" }) == 401, "%zu", i);
}

/* ---- many at once -------------------------------------------------------------------------- */

/* A backlog of expired entries is swept a bounded number at a time; what is still there is
 * nobody's. */
Test(turn_sweep, a_million_ends_do_not_hold_up_a_datagram, .init = world)
{
    enum { MANY = 3 * TURN_SWEEP_MAX };
    char peer[32];

    w.config.limits.perms_max = w.config.limits.chans_max = 2 * MANY;
    w.config.limits.alloc_perms_max = w.config.limits.alloc_chans_max = MANY;
    world_begin();
    allocated_by(&alice, 1);
    allocated_by(&alice2, 2);
    cr_assert(refresh(&alice, 3600) == 0 && refresh(&alice2, 3600) == 0);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(peer, sizeof(peer), "192.0.3.%u:%u", i % 250, 1 + i / 250);
        cr_assert(bind_channel(&alice, 0x4000 + i, peer) == 0);
    }
    cr_assert(bind_channel(&alice2, 0x4000, PEER) == 0);
    pass_ms(TURN_CHANNEL_MS);
    cr_expect(turn_deadline_ms(&w.t) <= w.now.ms);
    cr_expect(bind_channel(&alice2, 0x4000, PEER2) == 0, "bound to another peer, and unswept");
    cr_expect(w.t.chans == 2 * TURN_SWEEP_MAX + 1 && w.t.perms == 2 * TURN_SWEEP_MAX + 2);
    cr_expect(channel_send(alice2.client, 0x4000, "x") == TURN_DROP_NONE);
    cr_expect(same_addr(&w.out.peer, PEER2));
    cr_expect(w.t.chans == TURN_SWEEP_MAX + 1);
    cr_expect(permit(&alice2, PEER) == 0 && w.t.perms == 2, "its old entry lives again");
    cr_expect(w.t.chans == 1 && turn_deadline_ms(&w.t) > w.now.ms);
    cr_expect(send_to(alice2.client, PEER, "x") == TURN_DROP_NONE);
    cr_expect(not(turn_expire(&w.t, w.now.ms, &w.out)));
}

Test(turn_sweep, an_expired_pair_may_be_crossed_before_it_is_swept, .init = world)
{
    allocated_by(&alice, 1);
    cr_assert(refresh(&alice, 3600) == 0);
    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0 && bind_channel(&alice, 0x4001, PEER2) == 0);
    pass_ms(TURN_CHANNEL_MS);
    struct netaddr peer = at_addr(PEER2), got;
    struct turn_tuple tuple = tuple_of(CLIENT);
    struct turn_alloc *a = turn_find(&w.t, &tuple);

    /* Straight to the table: a message would sweep first, with so few. */
    turn_chan_put(&w.t, w.now.ms, a, 0x4000, &peer);
    cr_expect(w.t.chans == 1 && a->chans.count == 1);
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4000, &got) == TURN_DROP_PERMISSION);
    cr_expect(same_addr(&got, PEER2));
    cr_expect(turn_on_channel(&w.t, w.now.ms, a, 0x4001, &got) == TURN_DROP_CHANNEL);
    cr_expect(turn_chan_by_peer(&w.t, w.now.ms, a, &peer)->number == 0x4000);
    turn_delete(&w.t, a);
    cr_expect(w.t.chans == 0 && w.t.perms == 0);
}
