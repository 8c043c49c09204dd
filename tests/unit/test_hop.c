#include "proto/hop.h"

#include "tests/unit/hop_table.h"

/* Nothing is left in the tables of a machine whose slots are all gone and that has no rates. */
static void expect_clean(void)
{
    const uint8_t *p = tables;
    size_t n = hop_counts_bytes(h.limits.reservations_max), set = 0;

    for (size_t i = 0; i < n; i++)
        set += p[i] != 0;
    cr_expect(zero(sz, set));
    cr_expect(zero(u32, h.peers));
    cr_expect(zero(sz, h.by_expiry.count));
}

/* ---- reserve, renew, expire, close ------------------------------------------------------- */

Test(hop_on_reserve, accepts_and_names_the_deadline, .fini = stop)
{
    struct hop_slot slot = { 0 };

    start((struct hop_limits){ .reservations_max = 1, .reservation_ms = 1000 });
    cr_expect(eq(u64, hop_deadline_ms(&h), UINT64_MAX));
    cr_assert(eq(int, reserve(5, &slot, 1, ip4(1)), HOP_ACCEPTED));
    cr_expect(slot.reserved);
    cr_expect(eq(u64, slot.expires_ms, 1005));
    cr_expect(eq(u64, hop_deadline_ms(&h), 1005));
    cr_expect(eq(u32, count_of(1), 1));
    cr_expect(eq(u32, h.peers, 1));
    cr_expect(eq(ptr, (void *)hop_expire(&h, 1004), NULL));
    cr_expect(eq(ptr, (void *)hop_expire(&h, 1005), (void *)&slot));
    cr_expect(not(slot.reserved));
    cr_expect(eq(ptr, (void *)hop_expire(&h, 1005), NULL));
    cr_expect(eq(u64, hop_deadline_ms(&h), UINT64_MAX));
    expect_clean();
}

/* libp2p.md check 51, descord.md check 8. */
Test(hop_on_reserve, refuses_one_past_the_total_but_renews_at_a_full_table, .fini = stop)
{
    static struct hop_slot slots[1025];

    start((struct hop_limits){ .reservations_max = 1024, .per_peer_max = 3 });
    for (uint32_t i = 0; i < 1024; i++)
        cr_assert(eq(int, reserve(i, &slots[i], i, ip4(i)), HOP_ACCEPTED), "slot %u", i);
    cr_assert(eq(int, reserve(2000, &slots[1024], 5000, ip4(9)), HOP_DENIED_FULL));
    cr_expect(not(slots[1024].reserved));
    cr_expect(eq(u32, count_of(5000), 0));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_FULL), HOP_RESERVATION_REFUSED));
    for (uint32_t i = 0; i < 1024; i++)
        cr_assert(eq(int, reserve(3000, &slots[i], i, ip4(i)), HOP_RENEWED), "slot %u", i);
    cr_expect(eq(sz, h.by_expiry.count, 1024));
    hop_on_close(&h, &slots[700]);
    cr_expect(eq(int, reserve(3001, &slots[1024], 5000, ip4(9)), HOP_ACCEPTED));
    for (size_t i = 0; i < ARRAY_LEN(slots); i++)
        hop_on_close(&h, &slots[i]);
    expect_clean();
}

/* libp2p.md check 52, descord.md check 7. */
Test(hop_on_reserve, refuses_the_fourth_connection_of_a_peer_and_a_close_frees_it_at_once,
     .fini = stop)
{
    struct hop_slot slots[5] = { 0 };

    start((struct hop_limits){ .reservations_max = 100, .per_peer_max = 3 });
    for (uint32_t i = 0; i < 3; i++)
        cr_assert(eq(int, reserve(0, &slots[i], 7, ip4(i)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &slots[3], 7, ip4(3)), HOP_DENIED_PEER));
    cr_expect(eq(int, reserve(0, &slots[4], 8, ip4(0)), HOP_ACCEPTED)); /* others may */
    cr_expect(eq(int, reserve(1, &slots[1], 7, ip4(1)), HOP_RENEWED));
    cr_expect(eq(u32, count_of(7), 3));
    cr_expect(eq(u32, h.peers, 2));
    hop_on_close(&h, &slots[0]);
    hop_on_close(&h, &slots[0]); /* idempotent */
    cr_expect(eq(u32, count_of(7), 2));
    cr_expect(eq(int, reserve(1, &slots[3], 7, ip4(3)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(1, &slots[0], 7, ip4(0)), HOP_DENIED_PEER));
    for (size_t i = 0; i < ARRAY_LEN(slots); i++)
        hop_on_close(&h, &slots[i]);
    expect_clean();
}

Test(hop_on_close, of_a_slot_that_never_reserved_does_nothing, .fini = stop)
{
    struct hop_slot slot = { 0 };

    start((struct hop_limits){ .reservations_max = 1 });
    hop_on_close(&h, &slot);
    expect_clean();
}

Test(hop_expire, follows_the_order_of_refreshing, .fini = stop)
{
    struct hop_slot a = { 0 }, b = { 0 }, c = { 0 };

    start((struct hop_limits){ .reservations_max = 3, .reservation_ms = 100 });
    reserve(0, &a, 1, ip4(1));
    reserve(10, &b, 2, ip4(1));
    reserve(20, &c, 3, ip4(1));
    cr_assert(eq(int, reserve(30, &a, 1, ip4(1)), HOP_RENEWED));
    cr_expect(eq(u64, hop_deadline_ms(&h), 110));
    cr_expect(eq(ptr, (void *)hop_expire(&h, 500), (void *)&b));
    cr_expect(eq(u64, hop_deadline_ms(&h), 120));
    hop_on_close(&h, &c);
    cr_expect(eq(u64, hop_deadline_ms(&h), 130));
    cr_expect(eq(ptr, (void *)hop_expire(&h, 500), (void *)&a));
    cr_expect(eq(ptr, (void *)hop_expire(&h, 500), NULL));
    expect_clean();
}

/* libp2p.md §11.7, check 67. */
Test(hop_on_reserve, refuses_new_and_renewed_reservations_while_draining, .fini = stop)
{
    struct hop_slot a = { 0 }, b = { 0 };

    start((struct hop_limits){ .reservations_max = 2, .reservation_ms = 100 });
    reserve(0, &a, 1, ip4(1));
    h.draining = true;
    cr_expect(eq(int, reserve(1, &b, 2, ip4(1)), HOP_DENIED_DRAINING));
    cr_expect(eq(int, reserve(1, &a, 1, ip4(1)), HOP_DENIED_DRAINING));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_DRAINING), HOP_RESERVATION_REFUSED));
    cr_expect(a.reserved && !b.reserved);
    cr_expect(eq(u64, hop_deadline_ms(&h), 100)); /* it runs out as it was promised */
    cr_expect(eq(ptr, (void *)hop_expire(&h, 100), (void *)&a));
    expect_clean();
}

Test(hop_verdict_status, answers_as_the_specification_says)
{
    start((struct hop_limits){ .reservations_max = 1 });
    cr_expect(eq(int, hop_verdict_status(&h, HOP_ACCEPTED), HOP_OK));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_RENEWED), HOP_OK));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_DRAINING), HOP_RESERVATION_REFUSED));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_PEER), HOP_RESOURCE_LIMIT_EXCEEDED));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_IP), HOP_RESERVATION_REFUSED));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_SUBNET), HOP_RESERVATION_REFUSED));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_FULL), HOP_RESERVATION_REFUSED));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_RATE), HOP_RESOURCE_LIMIT_EXCEEDED));
    h.limits.full_status = HOP_RESOURCE_LIMIT_EXCEEDED; /* presets.md, dusk */
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_FULL), HOP_RESOURCE_LIMIT_EXCEEDED));
    cr_expect(eq(int, hop_verdict_status(&h, HOP_DENIED_IP), HOP_RESERVATION_REFUSED));
    for (int v = HOP_ACCEPTED; v <= HOP_DENIED_RATE; v++)
        cr_expect(ne(str, (char *)hop_verdict_reason((enum hop_verdict)v), "unknown"));
    stop();
}

/* ---- networks ---------------------------------------------------------------------------- */

static void expect_shares_ip(struct ip a, struct ip b, bool shares)
{
    struct hop_slot one = { 0 }, two = { 0 };

    start((struct hop_limits){ .reservations_max = 2, .per_ip_max = 1 });
    cr_assert(eq(int, reserve(0, &one, 1, a), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &two, 2, b), shares ? HOP_DENIED_IP : HOP_ACCEPTED));
}

static void expect_shares_subnet(struct ip a, struct ip b, bool shares)
{
    struct hop_slot one = { 0 }, two = { 0 };

    start((struct hop_limits){ .reservations_max = 2, .per_subnet_max = 1 });
    cr_assert(eq(int, reserve(0, &one, 1, a), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &two, 2, b), shares ? HOP_DENIED_SUBNET : HOP_ACCEPTED));
}

Test(hop_on_reserve, counts_an_ip_as_a_whole_ipv4_address_or_an_ipv6_64, .fini = stop)
{
    expect_shares_ip(ip4(0x01020304), ip4(0x01020304), true);
    expect_shares_ip(ip4(0x01020304), ip4(0x01020305), false);
    expect_shares_ip(ip4(0x01020304), ip4(0x81020304), false);
    expect_shares_ip(ip6(0x20010db800000001, 0), ip6(0x20010db800000001, UINT64_MAX), true);
    expect_shares_ip(ip6(0x20010db800000001, 0), ip6(0x20010db800000000, 0), false);
    expect_shares_ip(ip6(0, 1), ip4(0x01020304), false); /* ::1 and a mapped address */
    expect_shares_ip(ip6(0, 1), ip6(0, 0xfffe01020304), true);
}

Test(hop_on_reserve, counts_a_subnet_as_an_ipv4_24_or_an_ipv6_56, .fini = stop)
{
    expect_shares_subnet(ip4(0x01020300), ip4(0x010203ff), true);
    expect_shares_subnet(ip4(0x01020300), ip4(0x01020400), false);
    expect_shares_subnet(ip4(0x01020300), ip4(0x010202ff), false);
    expect_shares_subnet(ip6(0x20010db800000100, 0), ip6(0x20010db8000001ff, 7), true);
    expect_shares_subnet(ip6(0x20010db800000100, 0), ip6(0x20010db800000200, 0), false);
    expect_shares_subnet(ip6(0, 1), ip4(0), false);
}

Test(hop_on_reserve, holds_every_network_limit_exactly, .fini = stop)
{
    struct hop_slot slots[20] = { 0 };

    start((struct hop_limits){ .reservations_max = 20, .per_ip_max = 2, .per_subnet_max = 5 });
    cr_expect(eq(int, reserve(0, &slots[0], 0, ip4(0x0a000001)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &slots[1], 1, ip4(0x0a000001)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &slots[2], 2, ip4(0x0a000001)), HOP_DENIED_IP));
    cr_expect(eq(int, reserve(0, &slots[2], 2, ip4(0x0a000002)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &slots[3], 3, ip4(0x0a000002)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &slots[4], 4, ip4(0x0a000003)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(0, &slots[5], 5, ip4(0x0a000004)), HOP_DENIED_SUBNET));
    cr_expect(eq(int, reserve(0, &slots[5], 5, ip4(0x0a000104)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(9, &slots[0], 0, ip4(0x0a000001)), HOP_RENEWED));
    hop_on_close(&h, &slots[0]);
    cr_expect(eq(int, reserve(9, &slots[6], 6, ip4(0x0a000001)), HOP_ACCEPTED));
    cr_expect(eq(int, reserve(9, &slots[7], 7, ip4(0x0a000001)), HOP_DENIED_IP));
    for (size_t i = 0; i < ARRAY_LEN(slots); i++)
        hop_on_close(&h, &slots[i]);
    expect_clean();
}

/* ---- rates ------------------------------------------------------------------------------- */

static const struct hop_limits rust_rates = { .reservations_max = 100,
                                              .peer_burst = 30,
                                              .peer_refill_ms = 120000,
                                              .ip_burst = 60,
                                              .ip_refill_ms = 60000 };

static enum hop_verdict come_and_go(uint64_t now_ms, uint32_t who, struct ip ip)
{
    struct hop_slot slot = { 0 };
    enum hop_verdict v = reserve(now_ms, &slot, who, ip);

    hop_on_close(&h, &slot);
    return v;
}

/* libp2p.md check 65. */
Test(hop_on_reserve, refuses_the_31st_of_a_burst_with_201_and_gives_one_token_back_per_interval,
     .fini = stop)
{
    uint64_t t = 1000000;

    start(rust_rates);
    for (uint32_t i = 0; i < 30; i++)
        cr_assert(eq(int, come_and_go(t, 1, ip4(i)), HOP_ACCEPTED), "reservation %u", i);
    cr_expect(eq(int, come_and_go(t, 1, ip4(99)), HOP_DENIED_RATE));
    cr_expect(eq(int, come_and_go(t, 2, ip4(99)), HOP_ACCEPTED)); /* another peer may */
    cr_expect(eq(int, come_and_go(t + 119999, 1, ip4(99)), HOP_DENIED_RATE));
    cr_expect(eq(int, come_and_go(t + 120000, 1, ip4(99)), HOP_ACCEPTED));
    cr_expect(eq(int, come_and_go(t + 120000, 1, ip4(99)), HOP_DENIED_RATE));
    cr_expect(eq(int, come_and_go(t + 360000, 1, ip4(99)), HOP_ACCEPTED));
    cr_expect(eq(int, come_and_go(t + 360000, 1, ip4(98)), HOP_ACCEPTED));
    cr_expect(eq(int, come_and_go(t + 360000, 1, ip4(97)), HOP_DENIED_RATE));
    t += 360000 + 30 * 120000; /* full again, and not fuller */
    for (uint32_t i = 0; i < 30; i++)
        cr_assert(eq(int, come_and_go(t, 1, ip4(i)), HOP_ACCEPTED), "reservation %u", i);
    cr_expect(eq(int, come_and_go(t, 1, ip4(99)), HOP_DENIED_RATE));
}

Test(hop_on_reserve, refuses_the_61st_of_a_burst_from_one_ip, .fini = stop)
{
    start(rust_rates);
    for (uint32_t i = 0; i < 60; i++)
        cr_assert(eq(int, come_and_go(0, i, ip4(1)), HOP_ACCEPTED), "reservation %u", i);
    cr_expect(eq(int, come_and_go(0, 99, ip4(1)), HOP_DENIED_RATE));
    cr_expect(eq(int, come_and_go(0, 99, ip4(2)), HOP_ACCEPTED));
    cr_expect(eq(int, come_and_go(60000, 99, ip4(1)), HOP_ACCEPTED));
}

Test(hop_on_reserve, charges_neither_bucket_for_what_it_refuses, .fini = stop)
{
    struct hop_limits l = rust_rates;
    struct hop_slot kept = { 0 };

    l.per_peer_max = 1;
    l.ip_burst = 2;
    start(l);
    cr_assert(eq(int, reserve(0, &kept, 1, ip4(1)), HOP_ACCEPTED));
    for (int i = 0; i < 100; i++)
        cr_assert(eq(int, come_and_go(0, 1, ip4(2)), HOP_DENIED_PEER));
    cr_expect(eq(int, come_and_go(0, 2, ip4(2)), HOP_ACCEPTED)); /* its IP was not charged */
    cr_expect(eq(int, come_and_go(0, 3, ip4(2)), HOP_ACCEPTED));
    for (int i = 0; i < 100; i++)
        cr_assert(eq(int, come_and_go(0, 4, ip4(2)), HOP_DENIED_RATE));
    for (uint32_t i = 0; i < 30; i++) /* nor was peer 4 for its IP's emptiness */
        cr_assert(eq(int, come_and_go(0, 4, ip4(100 + i)), HOP_ACCEPTED), "reservation %u", i);
}

Test(hop_on_reserve, renews_for_free_when_the_bucket_is_empty, .fini = stop)
{
    struct hop_slot kept = { 0 };

    start(rust_rates);
    cr_assert(eq(int, reserve(0, &kept, 1, ip4(1)), HOP_ACCEPTED));
    for (uint32_t i = 0; i < 1000; i++)
        cr_assert(eq(int, reserve(i, &kept, 1, ip4(1)), HOP_RENEWED));
    for (uint32_t i = 0; i < 29; i++)
        cr_assert(eq(int, come_and_go(1000, 1, ip4(i)), HOP_ACCEPTED));
    cr_assert(eq(int, come_and_go(1000, 1, ip4(1)), HOP_DENIED_RATE));
    cr_expect(eq(int, reserve(1000, &kept, 1, ip4(1)), HOP_RENEWED));
}

Test(hop_on_reserve, remembers_an_empty_bucket_through_a_storm_of_strangers, .fini = stop,
     .timeout = 60)
{
    uint64_t t = 0;

    start(rust_rates);
    for (uint32_t i = 0; i < 30; i++)
        cr_assert(eq(int, come_and_go(t, 1, ip4(1)), HOP_ACCEPTED));
    for (uint32_t i = 0; i < 1000000; i++) { /* the tables are those of 100 reservations */
        if (i % 1000 == 0)
            t++;
        (void)come_and_go(t, 1000 + i, ip4(0x0a000000 + i / 10));
    }
    cr_expect(eq(int, come_and_go(t, 1, ip4(1)), HOP_DENIED_RATE));
}

/* ---- the table --------------------------------------------------------------------------- */

Test(hop_counts_bytes, grows_with_the_reservations_and_holds_twice_their_keys)
{
    for (uint32_t max = 1; max <= 1 << 20; max = max * 3 + 1) {
        size_t keys = (size_t)max * 3 * 2;
        cr_expect(le(sz, keys * 54, hop_counts_bytes(max)));
        cr_expect(lt(sz, hop_counts_bytes(max), 32768 + keys * 2 * 56 + (size_t)max * 8 * 16));
    }
}

/* A hundred thousand strangers, each with its own limits: among 300 000 keys some ten pairs share
 * 32 bits of hash, and whoever compared hashes alone would refuse one of them. */
Test(hop_on_reserve, never_mistakes_one_key_for_another, .fini = stop, .timeout = 120)
{
    enum { N = 100000 };
    struct hop_slot *slots = calloc(N, sizeof(*slots));
    size_t wrong = 0;

    start((struct hop_limits){
        .reservations_max = N, .per_peer_max = 1, .per_ip_max = 1, .per_subnet_max = 1 });
    for (uint32_t i = 0; i < N; i++)
        wrong += reserve(0, &slots[i], i, ip4(i << 8)) != HOP_ACCEPTED;
    cr_expect(zero(sz, wrong));
    cr_expect(eq(u32, h.peers, N));
    for (uint32_t i = 0; i < N; i++) /* every one is found again */
        wrong += count_of(i) != 1;
    cr_expect(zero(sz, wrong));
    for (uint32_t i = 0; i < N; i += 2)
        hop_on_close(&h, &slots[i]);
    for (uint32_t i = 0; i < N; i++) /* also behind the holes */
        wrong += count_of(i) != i % 2;
    cr_expect(zero(sz, wrong));
    while (hop_expire(&h, UINT64_MAX))
        ;
    expect_clean();
    free(slots);
}

/* A table of eight cells that is emptied and filled a million times: tombstones would fill it. */
Test(hop_on_close, leaves_no_tombstones, .fini = stop, .timeout = 60)
{
    struct hop_slot slot = { 0 };

    start((struct hop_limits){ .reservations_max = 1 });
    for (uint32_t i = 0; i < 1000000; i++) {
        cr_assert(eq(int, reserve(i, &slot, i, ip4(i * 2654435761u)), HOP_ACCEPTED));
        hop_on_close(&h, &slot);
    }
    expect_clean();
}
