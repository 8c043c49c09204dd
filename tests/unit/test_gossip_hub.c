/* The hub of one shard: who gets what, and what floods cost (dusk.md §10.3, checks 44 to 49). */
#include "tests/unit/gossip_world.h"

TestSuite(gossip_hub, .init = setup, .fini = teardown);

Test(gossip_hub, pushes_at_once_to_all_subscribers_but_sender_and_author)
{
    for (unsigned i = 0; i < 6; i++)
        join(i, i != 4);
    subscribe(5, GOSSIP_DIRECTORY, true);
    subscribe(5, GOSSIP_SYNC, false);
    cr_assert(publish(0, 1, bytes_str("hello"))); /* 0 forwards what 1 wrote */
    cr_expect(zero(u32, drain(0, 10)), "the sender");
    cr_expect(zero(u32, drain(1, 10)), "the author");
    cr_expect(eq(u32, drain(2, 10), 1));
    cr_expect(eq(u32, drain(3, 70000), 1));
    cr_expect(zero(u32, drain(4, 10)), "no subscriber");
    cr_expect(zero(u32, drain(5, 10)), "of another topic");
    cr_expect(eq(u64, w->hub.counts.meant, 2));
}

Test(gossip_hub, forwards_the_same_data_once_in_a_minute)
{
    join(0, true);
    join(1, true);
    cr_expect(publish(0, 0, bytes_str("same")));
    w->now += GOSSIP_SEEN_MS - 1;
    cr_expect(not(publish(0, 0, bytes_str("same"))), "another seqno, the same id");
    cr_expect(not(bring(0, body_by(0, "dusk/directory", bytes_str("same")))));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_DUPLICATE], 2));
    w->now += 1;
    cr_expect(publish(0, 0, bytes_str("same")));
    cr_expect(eq(u32, drain(1, 10), 2));
}

Test(gossip_hub, drops_what_is_ours_foreign_or_malformed)
{
    struct bytes body;
    uint8_t seed[32] = { 0xff };

    join(0, true);
    join(1, true);
    cr_expect(not(bring(0, body_by(0, "dusk/other", bytes_str("x")))));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_STRANGE], 1));
    body = body_by(0, "dusk/sync", bytes_str("x"));
    cr_expect(not(bring(0, bytes_of(body.p, body.n - 1))));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_INVALID], 1));
    identity_from_seed(seed, &w->c[9].me);
    cr_expect(not(bring(0, body_by(9, "dusk/sync", bytes_str("x")))));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_OWN], 1));
    cr_expect(zero(u32, drain(1, 10)));
}

Test(gossip_hub, takes_a_graft_for_a_subscription_and_a_prune_for_nothing)
{
    struct gossip_item graft = { .kind = GOSSIP_ITEM_GRAFT, .topic = bytes_str("dusk/sync") };
    struct gossip_item prune = { .kind = GOSSIP_ITEM_PRUNE, .topic = bytes_str("dusk/sync") };

    join(0, true);
    join(1, false);
    gossip_hub_item(&w->hub, w->now, &w->c[1].peer, &graft);
    cr_expect(publish(0, 0, bytes_str("a")));
    gossip_hub_item(&w->hub, w->now, &w->c[1].peer, &prune);
    cr_expect(publish(0, 0, bytes_str("b")));
    cr_expect(eq(u32, drain(1, 10), 2));
    subscribe(1, GOSSIP_SYNC, false);
    cr_expect(publish(0, 0, bytes_str("c")));
    cr_expect(zero(u32, drain(1, 10)));
}

Test(gossip_hub, says_three_subscriptions_and_the_fourth_to_relays_only)
{
    struct gossip_item item;

    join(0, false);
    for (unsigned t = 0; t < 3; t++) {
        cr_assert(told(0, &item));
        cr_expect(item.kind == GOSSIP_ITEM_SUBSCRIBE && item.on);
        cr_expect(bytes_eq(item.topic, bytes_str(gossip_topic_name[t])));
    }
    cr_expect(not(told(0, &item)));
    subscribe(0, GOSSIP_RECORDS, true); /* anybody may ask */
    cr_expect(not(told(0, &item)));
    gossip_hub_join(&w->hub, w->now, &w->c[1].peer, &w->c[1].me.id, true);
    subscribe(1, GOSSIP_RECORDS, true);
    gossip_hub_join(&w->hub, w->now, &w->c[2].peer, &w->c[2].me.id, true);
    join(3, false);
    cr_expect(not(bring(3, body_by(3, gossip_topic_name[GOSSIP_RECORDS], bytes_str("mine")))));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_STRANGE], 1), "nobody else may say there");
    cr_expect(zero(u64, w->hub.topic[GOSSIP_RECORDS].messages_ns), "nor use its budget up");
    cr_expect(bring(2, body_by(2, gossip_topic_name[GOSSIP_RECORDS], bytes_str("signed"))));
    cr_expect(zero(u32, w->c[0].peer.queue.count));
    cr_expect(eq(u32, w->c[1].peer.queue.count, 1));
    for (unsigned t = 0; t < 4; t++)
        cr_expect(told(1, &item));
    gossip_hub_deaf(&w->hub, &w->c[0].peer);
    cr_expect(not(told(0, &item)));
    gossip_hub_hears(&w->hub, &w->c[0].peer);
    cr_expect(told(0, &item), "a new stream is told anew");
}

Test(gossip_hub, answers_iwant_three_times_and_only_what_it_keeps)
{
    uint64_t id, ids[2];

    join(0, true);
    join(1, false);
    cr_assert(publish(0, 0, bytes_str("hello")));
    id = last_id;
    for (unsigned i = 0; i < 5; i++)
        item_ids(1, GOSSIP_ITEM_IWANT, &id, 1);
    cr_expect(eq(u32, drain(1, 100), GOSSIP_REPLIES_MAX));
    join(2, false); /* counted for each */
    ids[0] = id;
    ids[1] = id + 1;
    item_ids(2, GOSSIP_ITEM_IWANT, ids, 2);
    cr_expect(eq(u32, drain(2, 100), 1));
    w->now += GOSSIP_CACHE_MS;
    join(3, false);
    item_ids(3, GOSSIP_ITEM_IWANT, &id, 1);
    cr_expect(zero(u32, drain(3, 100)), "nothing is kept past its windows");
    gossip_hub_tick(&w->hub, w->now);
    cr_expect(zero(u32, w->live), "nor stored");
}

Test(gossip_hub, bounds_the_ids_of_iwant_in_a_heartbeat)
{
    static uint64_t ids[2000];

    join(0, false);
    for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = i;
    for (unsigned i = 0; i < 4; i++)
        item_ids(0, GOSSIP_ITEM_IWANT, ids, ARRAY_LEN(ids));
    cr_expect(eq(u64, w->hub.counts.asked_for, GOSSIP_IDS_MAX));
    w->now += GOSSIP_HEARTBEAT_MS;
    gossip_hub_tick(&w->hub, w->now);
    item_ids(0, GOSSIP_ITEM_IWANT, ids, ARRAY_LEN(ids));
    cr_expect(eq(u64, w->hub.counts.asked_for, GOSSIP_IDS_MAX + ARRAY_LEN(ids)));
}

Test(gossip_hub, loses_the_oldest_of_a_full_queue_and_tells_of_it_once_there_is_room)
{
    uint64_t ids[GOSSIP_SKIPPED_MAX], first;
    struct gossip_item item;

    w->limits.queue_messages = 4;
    join(0, true);
    join(1, true);
    for (unsigned i = 0; i < 3; i++)
        told(1, &item);
    cr_assert(publish(0, 0, number(0, 100)));
    first = last_id;
    for (unsigned i = 1; i < 7; i++)
        cr_assert(publish(0, 0, number(i, 100)));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_QUEUE], 3));
    gossip_hub_tick(&w->hub, w->now += GOSSIP_HEARTBEAT_MS);
    cr_expect(not(told(1, &item)), "it has no room yet");
    cr_expect(eq(u32, drain(1, 64), 4));
    cr_expect(eq(u64, w->c[1].last_id, last_id), "the newest are kept");
    gossip_hub_tick(&w->hub, w->now += GOSSIP_HEARTBEAT_MS);
    cr_assert(told(1, &item));
    cr_expect(item.kind == GOSSIP_ITEM_IHAVE);
    cr_assert(eq(sz, ids_of(&item, ids, GOSSIP_SKIPPED_MAX), 3));
    cr_expect(eq(u64, ids[0], first));
    cr_expect(not(told(1, &item)), "told once");
    item_ids(1, GOSSIP_ITEM_IWANT, ids, 3);
    cr_expect(eq(u32, drain(1, 64), 3));
}

Test(gossip_hub, never_cuts_a_message_whose_beginning_is_written)
{
    struct bytes views[4];
    size_t total;
    uint64_t first;

    w->limits.queue_messages = 2;
    join(0, true);
    join(1, true);
    cr_assert(publish(0, 0, number(1, 500)));
    first = last_id;
    cr_assert(eq(sz, gossip_hub_views(&w->c[1].peer, 100, views, 4, &total), 1));
    gossip_hub_wrote(&w->hub, w->now, &w->c[1].peer, total);
    for (unsigned i = 2; i < 9; i++)
        cr_assert(publish(0, 0, number(i, 500)));
    cr_expect(eq(u64, w->c[1].peer.queue.first->id, first));
    cr_expect(eq(u32, w->c[1].peer.front_off, 100));
    uint64_t unseen = 77;
    struct gossip_item item;

    item_ids(1, GOSSIP_ITEM_IHAVE, &unseen, 1);
    cr_expect(not(told(1, &item)), "nothing is said in the middle of a message");
    cr_expect(eq(u32, drain(1, 5000), 2));
}

Test(gossip_hub, bounds_what_waits_for_one_by_bytes)
{
    w->limits.queue_bytes = 2 * GOSSIP_WIRE_MAX;
    join(0, true);
    join(1, true);
    for (unsigned i = 0; i < 8; i++)
        cr_assert(publish(0, 0, number(i, 60000)));
    cr_expect(eq(u32, w->c[1].peer.queue.count, 2));
    gossip_hub_check(&w->hub);
}

/* Check 49: whoever floods is throttled, and others get through. */
Test(gossip_hub, throttles_one_author_and_not_the_others)
{
    unsigned passed = 0, others = 0;

    for (unsigned i = 0; i < 4; i++)
        join(i, true);
    for (unsigned ms = 0; ms < 5000; ms++) {
        passed += publish(0, 0, number(ms, 60000));
        if (ms % 1000 == 999) {
            others += publish(1, 1, number(ms, 60000));
            others += publish(0, 2, number(ms, 60000)); /* through the flooder's own connection */
        }
        drain(3, 1 << 20);
        w->now++;
    }
    cr_expect(lt(u32, passed, 2 * 1048576 / 60000 + 5 * 524288 / 60000 + 3), "%u passed", passed);
    cr_expect(lt(u32, 60, passed));
    cr_expect(le(u32, 5, others), "%u of 10 by others", others);
}

Test(gossip_hub, makes_who_forges_pay_and_not_whose_name_it_takes)
{
    struct gossip_msg m;
    struct gossip_take t;
    unsigned tried = 0;

    join(0, true);
    join(1, true);
    for (unsigned i = 0; i < 2000; i++)
        tried += gossip_hub_offer(&w->hub, w->now, &w->c[0].peer,
                                  body_by(1, "dusk/sync", number(i, 50)), &m, &t);
    cr_expect(eq(u32, tried, w->limits.sender.messages.burst), "verified before it is too much");
    w->hub.counts.dropped[GOSSIP_INVALID] += tried; /* as the engine says of each */
    for (unsigned i = 0; i < 100; i++)
        cr_expect(publish(1, 1, number(i, 50)), "its own messages pass");
}

/* What somebody said long ago, and signed, others can say again. */
Test(gossip_hub, charges_old_messages_to_who_brings_them_again)
{
    const uint32_t burst = gossip_limits_default.author.messages.burst;
    struct bytes said[300];
    unsigned again = 0;

    for (unsigned i = 0; i < 4; i++)
        join(i, true);
    for (unsigned i = 0; i < ARRAY_LEN(said); i++) {
        said[i] = copy_of(body_by(1, "dusk/sync", number(i, 50)));
        cr_expect(bring(1, said[i]));
        w->now += 50;
    }
    w->now += GOSSIP_SEEN_MS;
    for (unsigned i = 0; i < ARRAY_LEN(said); i++)
        again += bring(0, said[i]);
    cr_expect(eq(u32, again, burst), "and not without bound");
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_SENDER], ARRAY_LEN(said) - burst));
    cr_expect(bring(2, said[burst]), "what was refused him, others may bring");
    for (unsigned i = 0; i < burst; i++)
        cr_expect(bring(i % 2 ? 1 : 2, copy_of(body_by(1, "dusk/sync", number(1000 + i, 50)))),
                  "its new ones pass by whoever: %u", i);
    cr_expect(not(publish(1, 1, number(5000, 50))), "and are counted");
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_AUTHOR], 1));
    w->now += GOSSIP_SEEN_MS;
    w->seqno = 7; /* its clock went back, or its seqnos are random */
    cr_expect(publish(1, 1, number(6000, 50)));
    cr_expect(publish(3, 1, number(6001, 50)));
    cr_expect(publish(0, 0, number(6002, 50)), "who brought the old ones has his own budget");
}

Test(gossip_hub, leaves_no_last_half_to_old_messages)
{
    struct bytes said[40];
    unsigned again = 0;

    for (unsigned i = 0; i < 3; i++)
        join(i, true);
    for (unsigned i = 0; i < ARRAY_LEN(said); i++) {
        said[i] = copy_of(body_by(1, "dusk/sync", number(i, 50)));
        cr_expect(bring(1, said[i]));
    }
    w->now += GOSSIP_SEEN_MS;
    w->limits.topic.messages = (struct gossip_rate){ 10, 20 };
    for (unsigned i = 0; i < ARRAY_LEN(said); i++)
        again += bring(0, said[i]);
    cr_expect(eq(u32, again, 11), "%u", again);
    cr_expect(publish(2, 2, number(1000, 50)));
}

Test(gossip_hub, leaves_the_last_half_of_a_topic_to_who_uses_little)
{
    w->limits.topic.messages = (struct gossip_rate){ 10, 100 };
    w->limits.author.messages = (struct gossip_rate){ 10, 60 };
    for (unsigned i = 0; i < 4; i++)
        join(i, true);
    unsigned a = 0, b = 0;

    for (unsigned i = 0; i < 60; i++)
        a += publish(0, 0, number(i, 50));
    cr_expect(eq(u32, a, 51), "%u", a); /* down to half, then with less than half of its own */
    for (unsigned i = 0; i < 60; i++)
        b += publish(1, 1, number(100 + i, 50));
    cr_expect(eq(u32, b, 30 + 1), "%u", b);
    cr_expect(publish(2, 2, number(1000, 50)));
}

Test(gossip_hub, takes_later_what_others_left_no_room_for)
{
    struct bytes body;

    w->limits.topic.messages = (struct gossip_rate){ 10, 20 };
    w->limits.author.messages = (struct gossip_rate){ 10, 200 };
    for (unsigned i = 0; i < 3; i++)
        join(i, true);
    for (unsigned i = 0; i < 20; i++)
        cr_expect(publish(0, 0, number(i, 50)));
    body = copy_of(body_by(1, "dusk/sync", number(99, 50)));
    cr_expect(not(bring(1, body)));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_TOPIC], 1));
    w->now += 1000;
    cr_expect(bring(2, body), "the very same");
    w->limits.author.messages = (struct gossip_rate){ 1, 1 };
    body = copy_of(body_by(1, "dusk/sync", number(100, 50)));
    cr_expect(not(bring(1, body)));
    cr_expect(not(bring(2, body)));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_AUTHOR], 1));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_DUPLICATE], 1), "its own: not verified twice");
}

Test(gossip_hub, bounds_what_one_receiver_gets)
{
    w->limits.receiver.messages = (struct gossip_rate){ 1, 5 };
    for (unsigned i = 0; i < 3; i++)
        join(i, true);
    for (unsigned i = 0; i < 10; i++)
        cr_expect(publish(0, 0, number(i, 50)));
    cr_expect(eq(u32, drain(1, 1000), 5));
    cr_expect(eq(u64, w->hub.counts.dropped[GOSSIP_RECEIVER], 10));
    w->now += 2000;
    for (unsigned i = 10; i < 20; i++)
        cr_expect(publish(0, 0, number(i, 50)));
    cr_expect(eq(u32, drain(1, 1000), 2));
}

Test(gossip_hub, bounds_what_all_together_get)
{
    w->limits.out_bytes = (struct gossip_rate){ 1000, 2000 };
    unsigned got[4] = { 0 };

    for (unsigned i = 0; i < 4; i++)
        join(i, true);
    for (unsigned k = 0; k < 40; k++) {
        cr_expect(publish(0, 0, number(k, 50)));
        for (unsigned i = 1; i < 4; i++)
            got[i] += drain(i, 1000);
        w->now += 100;
    }
    cr_expect(le(u64, w->hub.counts.sent, (2000 + 40 * 100) / 180));
    cr_expect(lt(u64, 0, w->hub.counts.dropped[GOSSIP_TOTAL]));
    for (unsigned i = 1; i < 4; i++) /* not always the same ones */
        cr_expect(lt(u32, w->hub.counts.sent / 6, got[i]), "%u of %lu", got[i],
                  (unsigned long)w->hub.counts.sent);
}

Test(gossip_hub, forgets_what_nobody_reads_and_stops_who_stands_still)
{
    struct bytes views[4];
    size_t total;

    join(0, true);
    join(1, true);
    join(2, true);
    cr_assert(publish(0, 0, number(1, 500)));
    gossip_hub_views(&w->c[2].peer, 100, views, 4, &total);
    gossip_hub_wrote(&w->hub, w->now, &w->c[2].peer, total);
    gossip_hub_tick(&w->hub, w->now += GOSSIP_WAIT_MS - 1);
    cr_expect(eq(u32, w->c[1].peer.queue.count, 1));
    cr_expect(zero(u32, w->c[2].stalls));
    gossip_hub_tick(&w->hub, w->now += 1);
    cr_expect(zero(u32, w->c[1].peer.queue.count));
    cr_expect(eq(u32, w->c[2].stalls, 1));
    gossip_hub_check(&w->hub);
    cr_assert(publish(0, 0, number(2, 500)));
    cr_expect(zero(u32, drain(2, 1000)), "no stream, no queue");
    w->now += GOSSIP_CACHE_MS;
    gossip_hub_tick(&w->hub, w->now);
    cr_expect(zero(u32, w->live));
}

Test(gossip_hub, stops_who_reads_a_byte_now_and_then)
{
    struct bytes views[4];
    size_t total;
    uint64_t begun;

    join(0, true);
    join(1, true);
    cr_assert(publish(0, 0, number(1, 60000)));
    begun = w->now += 20000; /* it counts from the first byte */
    while (!w->c[1].stalls && w->now < begun + 10 * GOSSIP_FRONT_MS) {
        gossip_hub_views(&w->c[1].peer, 1, views, 4, &total);
        gossip_hub_wrote(&w->hub, w->now, &w->c[1].peer, total);
        gossip_hub_tick(&w->hub, w->now += GOSSIP_HEARTBEAT_MS);
    }
    cr_expect(eq(u32, w->c[1].stalls, 1));
    cr_expect(eq(u64, w->now, begun + GOSSIP_FRONT_MS));
    cr_expect(zero(u32, w->live));
}

Test(gossip_hub, gives_a_peer_with_two_connections_each_message_once)
{
    for (unsigned i = 0; i < 3; i++)
        join(i, i != 2);
    w->c[5].me = w->c[1].me;
    join(5, true); /* 1 again */
    cr_assert(publish(0, 0, bytes_str("a")));
    cr_expect(eq(u32, drain(1, 100) + drain(5, 100), 1));
    cr_assert(publish(5, 7, bytes_str("brought by its other one")));
    cr_expect(zero(u32, drain(1, 100) + drain(5, 100)));
    drain(0, 100);
    cr_expect(zero(i8, gossip_hub_leave(&w->hub, &w->c[1].peer)), "the other one inherits");
    cr_assert(publish(0, 0, bytes_str("b")));
    cr_expect(eq(u32, drain(5, 100), 1));
    cr_assert(publish(5, 1, bytes_str("c")));
    cr_expect(eq(u32, drain(0, 100), 1));
    cr_expect(eq(u8, gossip_hub_leave(&w->hub, &w->c[5].peer), 1), "nobody here to inherit");
    join(1, false);
    gossip_hub_inherit(&w->hub, &w->c[1].me.id, 1); /* what another shard says */
    gossip_hub_inherit(&w->hub, &w->c[7].me.id, 1); /* nobody of that name */
    cr_assert(publish(0, 0, bytes_str("d")));
    cr_expect(eq(u32, drain(1, 100), 1));
}

Test(gossip_hub, gives_a_peer_with_many_connections_one_purse)
{
    const uint32_t burst = w->limits.author.messages.burst;
    struct bytes said[300];
    unsigned again = 0, tried = 0;

    join(0, true);
    for (unsigned i = 1; i < 9; i++) {
        w->c[i].me = w->c[1].me;
        join(i, i == 1);
    }
    for (unsigned i = 0; i < ARRAY_LEN(said); i++) {
        said[i] = copy_of(body_by(0, "dusk/sync", number(i, 50)));
        bring(0, said[i]);
        w->now += 20;
    }
    w->now += GOSSIP_SEEN_MS;
    for (unsigned i = 0; i < ARRAY_LEN(said); i++)
        again += bring(1 + i % 8, said[i]);
    cr_expect(eq(u32, again, burst));
    w->limits.author.messages.burst = 4000;
    for (unsigned i = 0; i < 2000; i++) {
        if (i % 300 == 299)
            leave(1 + i / 300); /* whosever it was, it stays */
        tried += publish(8, 9, number(5000 + i, 50));
    }
    cr_expect(le(u32, tried, w->limits.sender.messages.burst - burst), "%u", tried);
}

Test(gossip_hub, asks_for_what_it_has_not_seen_once_and_not_without_bound)
{
    uint64_t ids[GOSSIP_WANTED_MAX + 40], got[200];
    struct gossip_item item;

    join(0, true);
    join(1, true);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(told(0, &item) && told(1, &item));
    cr_assert(publish(1, 1, bytes_str("seen")));
    drain(0, 1000);
    for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = 5000 + i;
    ids[0] = last_id;
    item_ids(0, GOSSIP_ITEM_IHAVE, ids, 3);
    cr_assert(told(0, &item));
    cr_expect(item.kind == GOSSIP_ITEM_IWANT);
    cr_expect(eq(sz, ids_of(&item, got, 200), 2), "not what it has seen");
    item_ids(1, GOSSIP_ITEM_IHAVE, ids, 3);
    cr_expect(not(told(1, &item)), "asked of one, not of two");
    w->now += GOSSIP_ASKED_MS;
    item_ids(1, GOSSIP_ITEM_IHAVE, ids, 3);
    cr_expect(told(1, &item), "of another one later");
    item_ids(0, GOSSIP_ITEM_IHAVE, ids + 3, ARRAY_LEN(ids) - 3);
    cr_assert(told(0, &item));
    cr_expect(le(sz, ids_of(&item, got, 200), GOSSIP_WANTED_MAX));
    for (unsigned i = 0; i < 30; i++) {
        uint64_t id = 100000 + i;

        item_ids(1, GOSSIP_ITEM_IHAVE, &id, 1);
    }
    cr_assert(told(1, &item));
    cr_expect(le(sz, ids_of(&item, got, 200), GOSSIP_IHAVES_MAX));
}

Test(gossip_hub, keeps_its_tables_within_their_bounds)
{
    w->limits.cache_bytes = 2 * GOSSIP_WIRE_MAX;
    w->limits.author.messages = w->limits.topic.messages = w->limits.sender.messages =
        (struct gossip_rate){ 1000000, 1000000 };
    join(0, true);
    for (unsigned i = 0; i < 2 * SEEN; i++) {
        cr_assert(publish(0, i % PEERS, number(i, i % 50 ? 40 : 20000)), "%u", i);
        gossip_hub_check(&w->hub);
        cr_assert(le(u32, w->hub.kept_count, KEPT));
    }
    cr_expect(eq(u32, w->hub.seen_count, SEEN));
    cr_expect(publish(0, 0, number(0, 20000)), "pushed out by newer ones");
}

Test(gossip_hub, takes_what_other_shards_post_once)
{
    struct gossip_msg m;
    struct gossip_take t;
    struct payload p = { .refs = 1, .b = malloc(10), .n = 10 };

    w->live++;
    join(0, true);
    join(1, true);
    cr_assert(gossip_hub_offer(&w->hub, w->now, &w->c[0].peer,
                               body_by(1, "dusk/sync", bytes_str("x")), &m, &t));
    gossip_hub_refuse(&w->hub, GOSSIP_INVALID);
    gossip_hub_remote(&w->hub, w->now, &t, &p, bytes_of(p.b, p.n));
    gossip_hub_remote(&w->hub, w->now, &t, &p, bytes_of(p.b, p.n));
    cr_expect(eq(u32, drain(0, 100), 1));
    cr_expect(zero(u32, drain(1, 100)), "its author");
    cr_expect(not(publish(0, 1, bytes_str("x"))), "seen");
    t.id++;
    t.trusted = true;
    cr_expect(gossip_hub_own(&w->hub, w->now, &t, 10));
    gossip_hub_push(&w->hub, w->now, NULL, &t, &p, bytes_of(p.b, p.n));
    cr_expect(not(gossip_hub_own(&w->hub, w->now, &t, 10)), "said within a minute");
    drain(0, 100);
    w->now += GOSSIP_CACHE_MS;
    gossip_hub_tick(&w->hub, w->now);
    cr_expect(eq(i32, p.refs, 1));
    drop(&p);
}

/* Anything in any order; every balance after every step. */
Test(gossip_hub, balances_whatever_happens, .timeout = 60)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct seeded s = { seed };

        if (seed > 1)
            setup();
        w->limits.queue_messages = 1 + (uint32_t)seeded_below(&s, 8);
        w->limits.cache_bytes = 20000;
        for (unsigned step = 0; step < 1500; step++) {
            unsigned i = (unsigned)seeded_below(&s, PEERS), k = (unsigned)seeded_below(&s, 12);
            struct client *c = &w->c[i];
            uint64_t id = seeded_below(&s, 2) ? last_id : seeded_u64(&s);
            struct bytes views[3];
            size_t total;

            if (!c->peer.joined) {
                join(i, k % 2);
            } else if (k < 4) {
                publish(i, (unsigned)seeded_below(&s, PEERS),
                        number(seeded_below(&s, 300), 8 + seeded_below(&s, 9000)));
            } else if (k == 4) {
                subscribe(i, (enum gossip_topic)seeded_below(&s, GOSSIP_TOPICS),
                          seeded_below(&s, 3));
            } else if (k == 5) {
                item_ids(i, GOSSIP_ITEM_IWANT, &id, 1);
            } else if (k == 6) {
                item_ids(i, GOSSIP_ITEM_IHAVE, &id, 1);
            } else if (k < 9) {
                struct gossip_item item;

                if (!told(i, &item)) {
                    gossip_hub_views(&c->peer, 1 + seeded_below(&s, 20000), views, 3, &total);
                    gossip_hub_wrote(&w->hub, w->now, &c->peer, total);
                }
            } else if (k == 9) {
                w->now += seeded_below(&s, 3000);
                gossip_hub_tick(&w->hub, w->now);
            } else if (seeded_below(&s, 4) == 0) {
                gossip_hub_leave(&w->hub, &c->peer);
            } else if (seeded_below(&s, 8) == 0) {
                if (c->peer.deaf)
                    gossip_hub_hears(&w->hub, &c->peer);
                else
                    gossip_hub_deaf(&w->hub, &c->peer);
            }
            gossip_hub_check(&w->hub);
        }
        if (seed < 12)
            teardown();
    }
}
