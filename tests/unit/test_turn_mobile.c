/* Mobility (RFC 8016, turn.md §13): an allocation follows its owner, and nobody else. */
#include "tests/unit/turn_world.h"

#define PEER "192.0.2.50:4000"

static const struct who alice3 = { "192.0.2.9:5", "alice", "wonder" };
static const struct who bob2 = { "192.0.2.8:999", "bob", "builder" };

struct ticket {
    uint8_t b[64];
    size_t n;
};

static void mobile(void)
{
    world();
    w.config.limits.mobility = true;
    w.config.place = (struct turn_place){ .shard = 2, .shards = 4, .key = { 7, 8, 9 } };
    world_begin();
}

TestSuite(turn_mobile, .init = mobile);

static struct ticket ticket_of_reply(void)
{
    struct bytes v = stun_value(&w.reply, STUN_MOBILITY_TICKET);
    struct ticket k = { .n = v.n };

    cr_assert(v.n == TURN_TICKET, "%zu", v.n);
    memcpy(k.b, v.p, v.n);
    return k;
}

static struct making *mobile_wish(unsigned tid)
{
    struct making *k = allocate(tid);

    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(NULL, 0));
    return k;
}

/* A mobile allocation with a permission, and its first ticket. */
static struct turn_alloc *mobile_by(const struct who *who, struct ticket *ticket)
{
    struct turn_tuple tuple = tuple_of(who->client);

    cr_assert(ask(mobile_wish(1), who) == -1);
    cr_assert(grant_wish(0) == 0);
    *ticket = ticket_of_reply();
    cr_assert(permit(who, PEER) == 0);
    return turn_find(&w.t, &tuple);
}

static int resume_with(const struct who *who, unsigned tid, const struct ticket *ticket,
                       int lifetime)
{
    struct making *k = w_begin(STUN_REFRESH, tid);

    if (lifetime >= 0)
        stun_put_u32(&k->b, STUN_LIFETIME, (uint32_t)lifetime);
    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(ticket->b, ticket->n));
    return ask(k, who);
}

static int resume(const struct who *who, unsigned tid, const struct ticket *ticket)
{
    return resume_with(who, tid, ticket, -1);
}

static bool leads_to(const struct who *who, const struct turn_alloc *a)
{
    struct turn_tuple tuple = tuple_of(who->client);

    return turn_find(&w.t, &tuple) == a;
}

static bool left(const struct who *who)
{
    return w.out.left && same_addr(&w.out.was.client, who->client);
}

static bool is_at(const struct turn_alloc *a, const struct who *who)
{
    return same_addr(&a->tuple.client, who->client);
}

static bool lose(struct turn_alloc *a, const struct who *who)
{
    struct turn_tuple tuple = tuple_of(who->client);

    w.out = turn_out_of(w.buf, sizeof(w.buf));
    return turn_lost(&w.t, a, &tuple, &w.out);
}

/* ---- tickets ------------------------------------------------------------------------------- */

Test(turn_mobile, turn_81_an_allocate_gets_a_ticket_for_an_empty_one)
{
    struct making *k = allocate(1);
    struct ticket first, again;

    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_str("x"));
    cr_expect(ask(k, &alice) == 400 && w.t.allocs == 0);
    struct turn_alloc *a = mobile_by(&alice, &first);

    cr_expect(a->mobile);
    cr_expect(ask(mobile_wish(1), &alice) == 0);
    again = ticket_of_reply();
    cr_expect(memcmp(first.b, again.b, TURN_TICKET) == 0, "its answer was lost");
    cr_expect(refresh(&alice, 600) == 0 && !stun_has(&w.reply, STUN_MOBILITY_TICKET));
    allocated_by(&alice2, 1);
    cr_expect(ask(allocate(1), &alice2) == 0 && !stun_has(&w.reply, STUN_MOBILITY_TICKET));
    w.t.config.limits.mobility = false;
    cr_expect(resume(&alice3, 9, &first) == 405);
    cr_expect(ask(mobile_wish(2), &alice3) == 405);
}

Test(turn_mobile, turn_81_forged_tickets_are_437)
{
    struct ticket good, bad;

    mobile_by(&alice, &good);
    for (unsigned bit = 0; bit < 8 * TURN_TICKET; bit++) {
        bad = good;
        bad.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_expect(resume(&alice2, 9, &bad) == 437, "bit %u", bit);
        cr_assert(w.out.act == TURN_NOTHING && !w.out.joined);
    }
    for (size_t n = 0; n <= sizeof(bad.b); n++) {
        bad = good;
        bad.n = n;
        if (n != TURN_TICKET)
            cr_expect(resume(&alice2, 9, &bad) == 437, "%zu bytes", n);
    }
    cr_expect(resume(&alice2, 9, &good) == 0);
}

Test(turn_mobile, turn_81_a_ticket_serves_once_and_its_owner_only)
{
    struct ticket first, second, again;
    struct turn_alloc *a = mobile_by(&alice, &first);

    cr_expect(resume(&bob2, 9, &first) == 441, "coturn 4.15 let him");
    cr_expect(resume(&bob, 9, &first) == 441);
    struct who wrong = { alice2.client, "alice", "guess" };

    cr_expect(resume(&wrong, 9, &first) == 401);
    cr_expect(w.t.allocs == 1 && leads_to(&alice, a) && !turn_is_moving(a));
    cr_expect(resume(&alice2, 9, &first) == 0 && w.out.joined && w.out.alloc == a);
    second = ticket_of_reply();
    cr_expect(memcmp(first.b, second.b, TURN_TICKET) != 0);
    cr_expect(resume(&alice2, 10, &first) == 437, "spent");
    cr_expect(resume(&alice3, 9, &first) == 437);
    cr_expect(resume(&bob2, 9, &first) == 441, "nor does he learn that it is spent");
    pass_ms(20000);
    cr_expect(resume(&alice2, 9, &first) == 0 && !w.out.joined, "a retransmission");
    again = ticket_of_reply();
    cr_expect(memcmp(second.b, again.b, TURN_TICKET) == 0);
    cr_expect(stun_u32(&w.reply, STUN_LIFETIME) == 580);
    cr_expect(turn_is_moving(a) && !w.out.left, "which tells nothing of the new path");
}

Test(turn_mobile, a_ticket_dies_with_its_allocation)
{
    struct ticket ticket, other;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    turn_delete(&w.t, a);
    cr_expect(resume(&alice2, 9, &ticket) == 437);
    for (unsigned i = 0; i < w.config.limits.allocs_max; i++) { /* all slots, again */
        char client[32];

        snprintf(client, sizeof(client), "192.0.2.77:%u", 1 + i);
        struct who who = { client, "alice", "wonder" };

        mobile_by(&who, &other);
    }
    cr_expect(w.t.allocs == w.config.limits.allocs_max);
    cr_expect(resume(&alice2, 9, &ticket) == 437, "the slot is another's");
    cr_expect(resume(&alice2, 9, &other) == 0);
}

Test(turn_mobile, an_immobile_allocation_has_no_ticket_and_a_taken_path_no_room)
{
    struct ticket ticket;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    allocated_by(&alice2, 1);
    cr_expect(resume(&alice2, 9, &ticket) == 437, "that 5-tuple has another one");
    cr_expect(leads_to(&alice, a) && !turn_is_moving(a));
    a->mobile = false;
    cr_expect(resume(&alice3, 9, &ticket) == 437);
}

Test(turn_mobile, the_key_is_the_one_that_it_began_with)
{
    struct ticket ticket;

    mobile_by(&alice, &ticket);
    w.t.config.find_user = NULL; /* alice is known no more */
    cr_expect(resume(&alice2, 9, &ticket) == 0);
    cr_expect(refresh(&alice2, 600) == 0);
    cr_expect(ask(allocate(1), &alice3) == 401);
}

/* ---- the move ------------------------------------------------------------------------------ */

Test(turn_mobile, turn_81_the_old_path_serves_until_the_new_one_is_heard)
{
    struct ticket ticket;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    cr_assert(bind_channel(&alice, 0x4000, PEER) == 0);
    cr_assert(resume(&alice2, 9, &ticket) == 0);
    cr_expect(leads_to(&alice, a) && leads_to(&alice2, a) && is_at(a, &alice));
    cr_expect(from_peer(a, PEER) == 0x4000, "data goes on");
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_NONE && !w.out.left);
    cr_expect(channel_send(CLIENT, 0x4000, "x") == TURN_DROP_NONE && !w.out.left);
    cr_expect(permit(&alice, PEER) == 0 && !w.out.left);
    cr_expect(send_to(alice2.client, "192.0.2.66:1", "x") == TURN_DROP_PERMISSION && !w.out.left);
    cr_expect(channel_send(alice2.client, 0x4000, "x") == TURN_DROP_NONE && left(&alice));
    cr_expect(is_at(a, &alice2) && !turn_is_moving(a));
    cr_expect(send_to(CLIENT, PEER, "x") == TURN_DROP_ALLOCATION && refresh(&alice, 600) == 437);
    cr_expect(channel_send(alice2.client, 0x4000, "x") == TURN_DROP_NONE && !w.out.left);
    cr_expect(from_peer(a, PEER) == 0x4000 && refresh(&alice2, 600) == 0);
    cr_expect(w.t.allocs == 1 && w.t.moving.count == 0);
}

Test(turn_mobile, any_request_or_send_on_the_new_path_is_heard)
{
    for (int how = 0; how < 4; how++) {
        struct ticket ticket;
        struct turn_alloc *a = mobile_by(&alice, &ticket);

        cr_assert(resume(&alice2, 9, &ticket) == 0);
        cr_expect(refresh(&bob2, 600) == 441 && !w.out.left);
        if (how == 0)
            cr_expect(refresh(&alice2, 600) == 0);
        else if (how == 1)
            cr_expect(permit(&alice2, PEER) == 0);
        else if (how == 2)
            cr_expect(bind_channel(&alice2, 0x4000, PEER) == 0);
        else
            cr_expect(send_to(alice2.client, PEER, "x") == TURN_DROP_NONE);
        cr_expect(left(&alice) && is_at(a, &alice2), "%d", how);
        turn_delete(&w.t, a);
    }
}

Test(turn_mobile, the_old_path_ends_after_30_s_in_any_case)
{
    struct ticket ticket;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    cr_assert(resume(&alice2, 9, &ticket) == 0);
    cr_expect(turn_deadline_ms(&w.t) == w.now.ms + TURN_MOVE_MS);
    pass_ms(TURN_MOVE_MS - 1);
    cr_expect(not(turn_expire(&w.t, w.now.ms, &w.out)));
    cr_expect(leads_to(&alice, a));
    pass_ms(1);
    cr_assert(turn_expire(&w.t, w.now.ms, &w.out));
    cr_expect(left(&alice) && w.out.alloc == a && w.out.act == TURN_NOTHING && is_at(a, &alice2));
    cr_expect(not(turn_expire(&w.t, w.now.ms, &w.out)));
    cr_expect(leads_to(&alice, NULL) && leads_to(&alice2, a));
}

Test(turn_mobile, it_may_come_back_stay_or_go_on)
{
    struct ticket ticket;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    cr_expect(resume(&alice, 9, &ticket) == 0 && !w.out.joined && !w.out.left, "it stayed");
    ticket = ticket_of_reply();
    cr_assert(resume(&alice2, 10, &ticket) == 0 && w.out.joined);
    ticket = ticket_of_reply();
    cr_expect(resume(&alice, 11, &ticket) == 0 && left(&alice2) && !w.out.joined, "and came back");
    cr_expect(leads_to(&alice2, NULL) && is_at(a, &alice) && w.t.moving.count == 0);
    ticket = ticket_of_reply();
    cr_assert(resume(&alice2, 12, &ticket) == 0);
    ticket = ticket_of_reply();
    cr_expect(resume(&alice3, 13, &ticket) == 0 && left(&alice) && w.out.joined, "and on");
    cr_expect(is_at(a, &alice2) && turn_is_moving(a) && leads_to(&alice, NULL));
    ticket = ticket_of_reply();
    cr_expect(resume(&alice3, 14, &ticket) == 0 && left(&alice2) && !w.out.joined);
    cr_expect(is_at(a, &alice3) && !turn_is_moving(a) && leads_to(&alice2, NULL));
    ticket = ticket_of_reply();
    cr_expect(resume_with(&alice, 15, &ticket, 0) == 0 && w.out.gone && w.out.act == TURN_RELEASE);
    cr_expect(stun_u32(&w.reply, STUN_LIFETIME) == 0);
    cr_expect(not(stun_has(&w.reply, STUN_MOBILITY_TICKET)));
    cr_expect(w.t.allocs == 0 && leads_to(&alice, NULL) && leads_to(&alice3, NULL));
}

Test(turn_mobile, a_refused_resume_moves_nothing)
{
    struct ticket ticket;
    struct turn_alloc *a = mobile_by(&alice, &ticket);
    struct making *k = w_begin(STUN_REFRESH, 9);

    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 2);
    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(ticket.b, ticket.n));
    cr_expect(ask(k, &alice2) == 443);
    cr_expect(leads_to(&alice2, NULL) && !turn_is_moving(a));
    cr_expect(resume(&alice2, 9, &ticket) == 0, "and the ticket is still good");
}

Test(turn_mobile, an_allocation_that_moves_can_expire_or_be_deleted)
{
    for (int how = 0; how < 2; how++) {
        struct ticket ticket;
        struct turn_alloc *a = mobile_by(&alice, &ticket);

        pass_ms(590000);
        cr_assert(resume_with(&alice2, 9, &ticket, 600) == 0);
        cr_expect(turn_is_moving(a) && w.t.moving.count == 1);
        if (how == 0) {
            turn_delete(&w.t, a);
        } else {
            pass_ms(600000);
            while (turn_expire(&w.t, w.now.ms, &w.out))
                ;
        }
        cr_expect(w.t.allocs == 0 && w.t.moving.count == 0);
        cr_expect(leads_to(&alice, NULL) && leads_to(&alice2, NULL));
        cr_expect(turn_deadline_ms(&w.t) == UINT64_MAX);
    }
}

/* ---- streams ------------------------------------------------------------------------------- */

Test(turn_mobile, turn_81_cve_2026_73216_a_lost_stream_keeps_its_charge)
{
    struct ticket ticket;

    w.transport = TURN_TCP;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    for (unsigned i = 0; i < 100; i++) { /* comes and goes, and is one allocation all the time */
        const struct who *here = i % 2 ? &alice2 : &alice, *next = i % 2 ? &alice : &alice2;

        cr_assert(lose(a, here) && left(here));
        cr_assert(w.t.allocs == 1 && leads_to(here, NULL));
        cr_assert(from_peer(a, PEER) == -1 && w.out.drop == TURN_DROP_LOST);
        cr_assert(lose(a, here) && !w.out.left, "twice is once");
        cr_assert(resume(next, 20 + i, &ticket) == 0 && w.out.joined && !w.out.left);
        ticket = ticket_of_reply();
        cr_assert(is_at(a, next) && !turn_is_moving(a) && from_peer(a, PEER) == 0);
    }
    cr_assert(lose(a, &alice));
    pass_ms(600000);
    cr_assert(turn_expire(&w.t, w.now.ms, &w.out) && w.out.gone && w.out.alloc == a);
    cr_expect(w.t.allocs == 0);
}

Test(turn_mobile, either_stream_may_be_lost_during_a_move)
{
    struct ticket ticket;

    w.transport = TURN_TCP;
    struct turn_alloc *a = mobile_by(&alice, &ticket);

    cr_assert(resume(&alice2, 9, &ticket) == 0);
    ticket = ticket_of_reply();
    cr_expect(lose(a, &alice2) && left(&alice2) && is_at(a, &alice) && !turn_is_moving(a));
    cr_assert(resume(&alice2, 10, &ticket) == 0 && turn_is_moving(a));
    cr_expect(lose(a, &alice) && left(&alice) && is_at(a, &alice2) && !turn_is_moving(a));
    cr_expect(from_peer(a, PEER) == 0 && w.t.moving.count == 0);
}

Test(turn_mobile, turn_60_an_immobile_or_pending_one_goes_with_its_stream)
{
    w.transport = TURN_TCP;
    struct turn_alloc *a = allocated_by(&alice, 1);

    cr_expect(lose(a, &alice) == false);
    cr_assert(ask(mobile_wish(1), &alice2) == -1);
    cr_expect(lose(w.out.alloc, &alice2) == false);
}

/* ---- shards -------------------------------------------------------------------------------- */

/* The same secret, another shard: it knows whose the ticket is, and leaves the rest to that one. */
Test(turn_mobile, a_ticket_of_another_shard_goes_there)
{
    struct ticket ticket;

    mobile_by(&alice, &ticket);
    w.config.place.shard = 3;
    world_begin();
    cr_expect(resume(&alice2, 9, &ticket) == -1);
    cr_expect(w.out.act == TURN_ELSEWHERE && w.out.shard == 2 && w.t.allocs == 0);
    cr_expect(resume(&bob2, 9, &ticket) == -1 && w.out.act == TURN_ELSEWHERE, "who judges him");
    struct making *k = w_begin(STUN_REFRESH, 9);

    stun_put(&k->b, STUN_MOBILITY_TICKET, bytes_of(ticket.b, ticket.n));
    deliver(alice2.client, made(k));
    cr_expect(w.out.code == 401 && w.out.act == TURN_NOTHING, "but not for who has no nonce");
    ticket.b[31] ^= 1;
    cr_expect(resume(&alice2, 9, &ticket) == 437, "and not with a forged one");
    ticket.b[31] ^= 1;
    allocated_by(&alice2, 1);
    cr_expect(resume(&alice2, 9, &ticket) == 437, "this 5-tuple has one here");
    w.t.config.place.shards = 2;
    cr_expect(resume(&alice3, 9, &ticket) == 437, "there is no such shard any more");
    w.t.config.place.shards = 4;
    w.t.config.place.key[0] ^= 1;
    cr_expect(resume(&alice3, 9, &ticket) == 437, "nor one with such a key");
}
