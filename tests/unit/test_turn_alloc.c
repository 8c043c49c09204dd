/* Allocate, Refresh and the ends of allocations, by the numbered checks of turn.md §20. */
#include "tests/unit/turn_world.h"

TestSuite(turn_allocate, .init = world);
TestSuite(turn_refresh, .init = world);

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
    } all[] = { { 0, 600 },     { 1, 600 },        { 600, 600 },    { 601, 601 },
                { 3600, 3600 }, { 4294968, 3600 }, { 99999, 3600 }, { UINT32_MAX, 3600 } };

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

Test(turn_allocate, malformed_wishes_are_400)
{
    static const enum stun_attr all[] = { STUN_EVEN_PORT, STUN_RESERVATION_TOKEN,
                                          STUN_DONT_FRAGMENT, STUN_REQUESTED_ADDRESS_FAMILY,
                                          STUN_ADDITIONAL_ADDRESS_FAMILY };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct making *k = allocate(1);

        stun_put(&k->b, all[i], bytes_str("\2\2\2"));
        cr_expect(ask(k, &alice) == 400, "%zu", i);
    }
    allocated_by(&alice, 1);
    for (size_t i = 0; i < 2; i++) {
        struct making *k = w_begin(STUN_REFRESH, 9);

        stun_put(&k->b, i ? STUN_LIFETIME : STUN_REQUESTED_ADDRESS_FAMILY, bytes_of("\1\0\0", 3));
        cr_expect(ask(k, &alice) == 400 && w.t.allocs == 1);
    }
}

Test(turn_allocate, turn_09_fingerprint_is_remembered_for_the_late_answer)
{
    for (int with = 0; with < 2; with++) {
        struct making *k = allocate((unsigned)with);

        w_sign(k, &alice);
        if (with)
            stun_put_fingerprint(&k->b);
        deliver(CLIENT, made(k));
        cr_assert(grant_wish(0) == 0);
        cr_expect(stun_has(&w.reply, STUN_FINGERPRINT) == with);
        cr_expect(w.out.alloc->fingerprint == with, "and for indications");
        turn_delete(&w.t, w.out.alloc);
    }
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
    cr_expect(not(w.out.wish.family[TURN_V4] || w.out.wish.family[TURN_V6]));
    cr_assert(grant_wish(508) == 508, "not his, or gone");
    cr_assert(wanted(TOKEN) == -1);
    cr_assert(grant_wish(0) == 508, "no port");
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
    cr_assert(wanted(ONE6) == -1);
    turn_on_bound(&w.t, w.now, w.out.alloc, &g, &w.out);
    cr_expect(w.out.code == 440 && w.out.gone, "the caller's reason");
}

Test(turn_allocate, turn_82_a_redirect_names_the_other_server)
{
    static const char *const others[] = { "203.0.113.77:3478", "[2001:db8::77]:5349" };

    for (int i = 0; i < 2; i++) {
        struct turn_grant g = { .error = 300, .alternate = at_addr(others[i]) };
        struct stun_addr got;

        cr_assert(ask(allocate(1), &alice) == -1 && w.out.act == TURN_BIND);
        turn_on_bound(&w.t, w.now, w.out.alloc, &g, &w.out);
        cr_expect(w.out.code == 300 && w.out.gone && w.t.allocs == 0);
        cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
        cr_assert(stun_addr(&w.reply, STUN_ALTERNATE_SERVER, &got));
        cr_expect(same_addr(&got.addr, others[i]) && got.v6 == (i == 1));
        cr_expect(stun_mac_of(&w.reply) == STUN_MAC_SHA1);
    }
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

    w.config.limits.allocs_max = 1;
    world_begin();
    for (unsigned i = 0; i < 20000; i++) { /* turn_53, without the sockets */
        struct turn_alloc *a = allocated_by(&alice, i);

        cr_assert(a->generation != generation, "another allocation by the same name");
        generation = a->generation;
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
    for (uint8_t family = 0; family < 5; family += 3) {
        k = w_begin(STUN_REFRESH, 9);
        stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, family);
        cr_expect(ask(k, &alice) == 443);
    }
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

/* ---- reservations across shards ------------------------------------------------------------ */

static int allocate_with(const struct who *who, const uint8_t token[TURN_TOKEN])
{
    struct making *k = allocate(1);

    stun_put(&k->b, STUN_RESERVATION_TOKEN, bytes_of(token, TURN_TOKEN));
    return ask(k, who);
}

Test(turn_allocate, turn_52_a_token_leads_to_its_shard)
{
    uint8_t token[TURN_TOKEN];

    w.config.place = (struct turn_place){ .shard = 3, .shards = 5, .key = { 9 } };
    world_begin();
    turn_token_make(&w.t, token);
    cr_expect(allocate_with(&alice, token) == -1 && w.out.act == TURN_BIND);
    cr_expect(w.out.wish.has_token && memcmp(w.out.wish.token, token, TURN_TOKEN) == 0);
    w.config.place.shard = 4;
    world_begin();
    cr_expect(allocate_with(&alice, token) == -1);
    cr_expect(w.out.act == TURN_ELSEWHERE && w.out.shard == 3 && w.t.allocs == 0);
    struct making *k = allocate(1);

    stun_put(&k->b, STUN_RESERVATION_TOKEN, bytes_of(token, TURN_TOKEN));
    deliver(CLIENT, made(k));
    cr_expect(w.out.code == 401 && w.out.act == TURN_NOTHING, "not for who has no nonce");
    allocated_by(&alice2, 1);
    cr_expect(allocate_with(&alice2, token) == 0, "a retransmission, whatever it names");
    w.t.config.place.shards = 3;
    cr_expect(allocate_with(&alice, token) == -1 && w.out.act == TURN_BIND,
              "no such shard: its owner is asked here, and knows none");
}

/* The port of a token may be of the family that an Allocate without attributes would not get. */
Test(turn_allocate, turn_52_a_token_brings_the_family_of_its_port)
{
    struct turn_grant g = { .has = { [TURN_V6] = true } };

    g.relayed[TURN_V6] = at_addr("[2001:db8::99]:50001");
    w.config.limits.family[TURN_V4] = false;
    world_begin();
    cr_assert(allocate_with(&alice, (const uint8_t *)"abcdefgh") == -1 && w.out.act == TURN_BIND);
    turn_on_bound(&w.t, w.now, w.out.alloc, &g, &w.out);
    cr_assert(w.out.code == 0 && w.out.alloc->half[TURN_V6].live);
    cr_expect(not(w.out.alloc->half[TURN_V4].live));
    cr_assert(stun_decode(w.out.reply, 0, &w.reply) == STUN_OK);
    cr_expect(not(stun_has(&w.reply, STUN_ADDRESS_ERROR_CODE)));
    cr_expect(allocate_with(&alice, (const uint8_t *)"abcdefgh") == 0, "a retransmission");
}

Test(turn_allocate, turn_52_tokens_differ_and_follow_no_pattern)
{
    enum { MANY = 20000 };
    static uint8_t tokens[MANY][TURN_TOKEN];
    unsigned bits[64] = { 0 };

    w.config.place = (struct turn_place){ .shard = 255, .shards = 256, .key = { 9 } };
    world_begin();
    for (unsigned i = 0; i < MANY; i++) {
        turn_token_make(&w.t, tokens[i]);
        cr_assert(turn_token_shard(&w.t, bytes_of(tokens[i], TURN_TOKEN)) == 255);
        for (unsigned b = 0; b < 64; b++)
            bits[b] += tokens[i][b / 8] >> b % 8 & 1;
        for (unsigned before = i < 100 ? 0 : i - 100; before < i; before++)
            cr_assert(memcmp(tokens[i], tokens[before], TURN_TOKEN / 2) != 0);
    }
    for (unsigned b = 0; b < 64; b++) /* ten standard deviations */
        cr_expect(bits[b] > MANY / 2 - 708 && bits[b] < MANY / 2 + 708, "bit %u: %u", b, bits[b]);
}
