/* The registry, rule by rule (dig.md §6, §5.6, §14.2). */
#include "tests/unit/dig_world.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static struct dig_member *m, *other;

Test(dig_reg_add, counts_registrants_over_all_networks) /* §20 check 11 */
{
    reg_start(10);
    cr_expect(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    cr_expect(eq(int, add_text("b", "m", 2, &m), DIG_REG_ADDED));
    cr_expect(eq(u32, dig_reg_count(&reg), 2));
    cr_expect(eq(u32, dig_reg_networks_count(&reg), 2));
    cr_expect(dig_reg_find(&reg, bytes_str("b")) == m);
    cr_expect(m->network == dig_reg_network(&reg, bytes_str("m")));
    reg_stop();
}

Test(dig_reg_add, refuses_an_id_that_is_held_whatever_the_network) /* check 14 */
{
    reg_start(10);
    cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    cr_expect(eq(int, add_text("a", "n", 2, &other), DIG_REG_TAKEN));
    cr_expect(other == m);
    other = NULL;
    cr_expect(eq(int, add_text("a", "elsewhere", 2, &other), DIG_REG_TAKEN));
    cr_expect(other == m);
    cr_expect(dig_reg_find(&reg, bytes_str("a")) == m);
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    cr_expect(eq(u32, dig_reg_networks_count(&reg), 1));
    cr_expect(eq(int, add_text("A", "n", 2, &other), DIG_REG_ADDED)); /* byte-wise */
    reg_stop();
}

Test(dig_reg_add, takes_an_id_back_after_its_connection_is_gone) /* check 15 */
{
    reg_start(10);
    cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    cr_expect(eq(int, add_text("a", "n", 2, &m), DIG_REG_TAKEN));
    cr_expect(remove_slot(1));
    cr_expect(eq(int, add_text("a", "n", 2, &m), DIG_REG_ADDED));
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    reg_stop();
}

Test(dig_reg_remove, leaves_a_successor_alone) /* D1, check 37 */
{
    struct dig_home later = home_at(1);

    later.gen = 2;
    reg_start(10);
    cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    cr_assert(remove_slot(1));
    cr_assert(eq(int, add_text("a", "n", 2, &m), DIG_REG_ADDED));
    cr_expect(not(remove_slot(1)));
    cr_expect(not(dig_reg_remove(&reg, &later)));
    cr_expect(dig_reg_find(&reg, bytes_str("a")) == m);
    /* Slot and shard alone do not name a connection. */
    struct dig_claim c = claim_of(bytes_str("b"), "n", 1);

    c.home = later;
    cr_assert(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_ADDED));
    cr_expect(not(remove_slot(1)));
    cr_expect(dig_reg_of(&reg, &later) == other);
    later.shard++;
    cr_expect(not(dig_reg_remove(&reg, &later)));
    later.shard--;
    cr_expect(dig_reg_remove(&reg, &later));
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    reg_stop();
}

Test(dig_reg_add, lets_a_proven_newcomer_replace_the_incumbent)
{
    struct dig_claim c = claim_of(bytes_str("a"), "n", 2);

    reg_start(10);
    cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    c.verified = true;
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_EVICT));
    cr_expect(other == m);
    cr_expect(dig_reg_find(&reg, c.id) == m); /* nothing has changed yet */
    cr_expect(dig_reg_remove(&reg, &other->home));
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_ADDED));
    cr_expect(other->verified);
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    cr_expect(not(remove_slot(1)));
    /* The proof is the newcomer's: having one does not protect an incumbent from nobody's. */
    cr_expect(eq(int, add_text("a", "n", 3, &other), DIG_REG_TAKEN));
    reg_stop();
}

Test(dig_reg_add, refreshes_the_same_id_on_the_same_connection) /* D11 */
{
    struct dig_claim c = claim_of(bytes_str("a"), "n", 1);
    struct netaddr addrs[2] = { { .port = 9 }, { .port = 10 } };

    reg_start(1);
    reg.source_max = 1;
    cr_assert(eq(int, dig_reg_add(&reg, &c, &m), DIG_REG_ADDED));
    uint64_t events = m->network->events, serial = m->serial;

    c.connected_at_unix_s += 7;
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_REFRESHED)); /* full, yet accepted */
    cr_expect(other == m);
    cr_expect(eq(u64, m->network->events, events));
    c.protocol_version = 4294967295;
    c.addrs = addrs;
    c.addrs_n = 2;
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_REFRESHED));
    cr_expect(eq(u32, m->protocol_version, 4294967295));
    cr_expect(eq(u32, m->addrs_n, 2));
    cr_expect(eq(u32, m->addr[1].port, 10));
    cr_expect(ne(u64, m->network->events, events)); /* lists made before are stale */
    cr_expect(eq(u64, m->connected_at_unix_s, c.connected_at_unix_s - 7));
    cr_expect(eq(u64, m->serial, serial));
    cr_expect(eq(u32, dig_reg_source_count(&reg, &c.source), 1));
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    reg_stop();
}

Test(dig_reg_add, asks_for_the_old_id_of_a_connection_to_go_first) /* D11 */
{
    reg_start(10);
    cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    cr_expect(eq(int, add_text("b", "n", 1, &other), DIG_REG_EVICT));
    cr_expect(other == m);
    cr_expect(eq(int, add_text("a", "m", 1, &other), DIG_REG_EVICT)); /* the network too */
    cr_expect(eq(u32, dig_reg_count(&reg), 1));
    cr_expect(remove_slot(1));
    cr_expect(eq(int, add_text("b", "n", 1, &other), DIG_REG_ADDED));
    cr_expect(dig_reg_find(&reg, bytes_str("a")) == NULL);
    reg_stop();
}

Test(dig_reg_add, decides_in_the_order_of_6_1)
{
    struct dig_claim c = claim_of(bytes_str("c"), "n", 3);

    reg_start(2);
    reg.source_max = 1;
    cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
    cr_assert(eq(int, add_text("b", "n", 2, &m), DIG_REG_ADDED));
    c.source.b[0] = 1; /* as a's: step 2 before step 4 */
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_SOURCE_FULL));
    c.source.b[0] = 3;
    c.id = bytes_str("a"); /* step 4 before step 5 */
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_FULL));
    c.verified = true;
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_FULL));
    cr_assert(remove_slot(2));
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_EVICT));
    c.verified = false;
    cr_expect(eq(int, dig_reg_add(&reg, &c, &other), DIG_REG_TAKEN));
    reg_stop();
}

Test(dig_reg_add, bounds_the_table_and_may_be_told_a_lower_bound)
{
    char id[8];

    reg_start(100);
    for (uint32_t i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "%u", i);
        cr_assert(eq(int, add_text(id, "n", i, &m), DIG_REG_ADDED));
    }
    cr_expect(eq(int, add_text("more", "n", 100, &m), DIG_REG_FULL));
    cr_assert(remove_slot(50));
    cr_expect(eq(int, add_text("more", "n", 100, &m), DIG_REG_ADDED));
    reg.registrants_max = 99;
    cr_assert(remove_slot(51));
    cr_expect(eq(int, add_text("x", "n", 101, &m), DIG_REG_FULL));
    cr_assert(remove_slot(52));
    cr_expect(eq(int, add_text("x", "n", 101, &m), DIG_REG_ADDED));
    reg.registrants_max = 1000; /* memory is what it is */
    cr_expect(eq(int, add_text("y", "n", 102, &m), DIG_REG_ADDED));
    cr_expect(eq(int, add_text("z", "n", 103, &m), DIG_REG_FULL));
    reg_stop();
}

Test(dig_reg_add, bounds_the_registrations_of_a_source) /* §14.2: 128 by default */
{
    struct dig_claim c;
    char id[8];

    reg_start(300);
    reg.source_max = 128;
    for (uint32_t i = 0; i < 130; i++) {
        snprintf(id, sizeof(id), "%u", i);
        c = claim_of(bytes_str(id), "n", i);
        c.source = (struct dig_source){ { 1 } };
        cr_assert(
            eq(int, dig_reg_add(&reg, &c, &m), i < 128 ? DIG_REG_ADDED : DIG_REG_SOURCE_FULL));
    }
    cr_expect(eq(u32, dig_reg_source_count(&reg, &c.source), 128));
    struct dig_claim elsewhere = claim_of(bytes_str("e"), "n", 200);

    cr_expect(eq(int, dig_reg_add(&reg, &elsewhere, &m), DIG_REG_ADDED));
    cr_assert(remove_slot(3));
    cr_expect(eq(int, dig_reg_add(&reg, &c, &m), DIG_REG_ADDED));
    reg.source_max = 0; /* no limit */
    c.id = bytes_str("f");
    c.home = home_at(201);
    cr_expect(eq(int, dig_reg_add(&reg, &c, &m), DIG_REG_ADDED));
    reg_stop();
}

Test(dig_reg_add, takes_names_of_0_and_of_128_bytes)
{
    char longest[129];

    memset(longest, 'x', 128);
    longest[128] = 0;
    reg_start(10);
    cr_expect(eq(int, add_text("", "", 1, &m), DIG_REG_ADDED));
    cr_expect(eq(int, add_text(longest, longest, 2, &other), DIG_REG_ADDED));
    cr_expect(dig_reg_find(&reg, bytes_str("")) == m);
    cr_expect(dig_reg_network(&reg, bytes_str("")) == m->network);
    cr_expect(dig_reg_find(&reg, bytes_str(longest)) == other);
    longest[127] = 'y';
    cr_expect(dig_reg_find(&reg, bytes_str(longest)) == NULL);
    cr_expect(dig_reg_network(&reg, bytes_str(longest)) == NULL);
    cr_expect(remove_slot(1));
    cr_expect(dig_reg_find(&reg, bytes_str("")) == NULL);
    reg_stop();
}

Test(dig_reg_events, are_new_after_every_join_and_leave_and_never_come_back)
{
    uint64_t last = 0;

    reg_start(10);
    for (int round = 0; round < 3; round++) {
        cr_assert(eq(int, add_text("a", "n", 1, &m), DIG_REG_ADDED));
        cr_expect(lt(u64, last, m->network->events));
        last = m->network->events;
        cr_assert(eq(int, add_text("b", "n", 2, &m), DIG_REG_ADDED));
        cr_expect(lt(u64, last, m->network->events));
        last = m->network->events;
        cr_assert(eq(int, add_text("c", "other", 3, &other), DIG_REG_ADDED));
        cr_expect(eq(u64, m->network->events, last)); /* the other network's business */
        cr_assert(remove_slot(1));
        cr_expect(lt(u64, last, m->network->events));
        last = m->network->events;
        cr_assert(remove_slot(2)); /* the network is gone */
        cr_assert(remove_slot(3));
    }
    reg_stop();
}

/* ---- lists ---- */

static const struct dig_member *list[DIG_REG_LIST_MAX];

static void check_list(size_t n, const struct dig_member *self)
{
    bool has_self = !self;

    for (size_t i = 0; i < n; i++) {
        has_self |= list[i] == self;
        if (i)
            cr_assert(lt(int, memcmp(list[i - 1]->id, list[i]->id, 64), 0));
    }
    cr_assert(has_self);
}

static void crowd(uint32_t n)
{
    char id[65];

    for (uint32_t i = 0; i < n; i++) {
        struct dig_claim c = claim_of(hex_id(id, i), "n", i);
        cr_assert(eq(int, dig_reg_add(&reg, &c, &m), DIG_REG_ADDED));
    }
}

Test(dig_reg_list, is_whole_and_sorted_up_to_1024) /* checks 12 and 28 */
{
    struct dig_rng rng = { world_u64, &(struct seeded){ 1 } };
    uint32_t sizes[] = { 1, 2, 51, 52, 1000, 1023, 1024 };

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        reg_start(2000);
        crowd(sizes[i]);
        cr_assert(eq(int, add_text("stranger", "elsewhere", 1999, &other), DIG_REG_ADDED));
        cr_assert(
            eq(sz, dig_reg_list(&reg, m->network, m, &rng, list, DIG_REG_LIST_MAX), sizes[i]));
        check_list(sizes[i], m);
        reg_stop();
    }
}

Test(dig_reg_list, is_a_sample_with_the_caller_beyond_1024)
{
    struct dig_rng rng = { world_u64, &(struct seeded){ 1 } };
    const struct dig_member *first[DIG_REG_LIST_MAX];

    reg_start(3000);
    crowd(1025);
    cr_assert(eq(int, add_text("stranger", "elsewhere", 2999, &other), DIG_REG_ADDED));
    for (uint32_t i = 0; i < 1025; i++) {
        struct dig_member *self = dig_reg_of(&reg, &(struct dig_home){ i, 1, (uint8_t)(i % 3) });

        cr_assert(eq(sz, dig_reg_list(&reg, m->network, self, &rng, list, DIG_REG_LIST_MAX), 1024));
        check_list(1024, self);
    }
    memcpy(first, list, sizeof(first));
    cr_assert(eq(sz, dig_reg_list(&reg, m->network, m, &rng, list, DIG_REG_LIST_MAX), 1024));
    cr_expect(memcmp(first, list, sizeof(first)) != 0); /* drawn per request */
    /* Of nobody's, and of somebody's of another network, it holds nobody in particular. */
    cr_assert(eq(sz, dig_reg_list(&reg, m->network, NULL, &rng, list, DIG_REG_LIST_MAX), 1024));
    check_list(1024, NULL);
    cr_assert(eq(sz, dig_reg_list(&reg, m->network, other, &rng, list, DIG_REG_LIST_MAX), 1024));
    for (size_t i = 0; i < 1024; i++)
        cr_assert(list[i] != other);
    cr_assert(eq(sz, dig_reg_list(&reg, m->network, m, &rng, list, 1), 1));
    cr_expect(list[0] == m);
    reg_stop();
}

Test(dig_reg_list, samples_each_of_the_others_alike)
{
    enum { N = 1500, MAX = 100, DRAWS = 6000 };
    struct dig_rng rng = { world_u64, &(struct seeded){ 5 } };
    static uint32_t seen[N];

    reg_start(N);
    crowd(N);
    for (int i = 0; i < DRAWS; i++) {
        size_t n = dig_reg_list(&reg, m->network, m, &rng, list, MAX);

        cr_assert(eq(sz, n, MAX));
        for (size_t k = 0; k < n; k++)
            seen[list[k]->index]++;
    }
    for (uint32_t i = 0; i < N; i++) {
        if (i == m->index) {
            cr_expect(eq(u32, seen[i], DRAWS));
            continue;
        }
        cr_expect(lt(u32, 396 - 6 * 20, seen[i]), "%u: %u", i, seen[i]); /* 6 deviations */
        cr_expect(lt(u32, seen[i], 396 + 6 * 20), "%u: %u", i, seen[i]);
    }
    for (size_t w = 0; w < N / 64 + 2; w++)
        cr_expect(eq(u64, reg.sampled[w], 0));
    reg_stop();
}

Test(dig_reg_page, walks_everybody_in_parts)
{
    struct bytes after = { NULL, 0 };
    const struct dig_network *nets[3];
    size_t seen = 0, n;

    reg_start(300);
    crowd(200);
    cr_assert(eq(int, add_text("", "z", 200, &m), DIG_REG_ADDED));
    cr_assert(eq(int, add_text("zz", "z", 201, &other), DIG_REG_ADDED));
    do {
        n = dig_reg_page(&reg, after, list, 7);
        for (size_t i = 0; i < n; i++) {
            cr_assert(after.p == NULL || memcmp(after.p, list[i]->id, 64) < 0 || after.n == 0);
            after = dig_member_id(list[i]);
        }
        seen += n;
    } while (n == 7);
    cr_expect(eq(sz, seen, 202));
    cr_expect(bytes_eq(after, bytes_str("zz")));
    /* From behind an id that has left, and of one network. */
    cr_expect(eq(sz, dig_reg_page(&reg, bytes_str("g"), list, 7), 1));
    cr_expect(list[0] == other);
    cr_expect(
        eq(sz, dig_reg_network_page(&reg, m->network, (struct bytes){ NULL, 0 }, list, 7), 2));
    cr_expect(list[0] == m);
    cr_expect(eq(sz, dig_reg_network_page(&reg, m->network, bytes_str(""), list, 7), 1));
    cr_expect(list[0] == other);
    cr_expect(eq(sz, dig_reg_networks_page(&reg, (struct bytes){ NULL, 0 }, nets, 1), 1));
    cr_expect(bytes_eq(dig_network_name(nets[0]), bytes_str("n")));
    cr_expect(eq(u32, dig_network_members(nets[0]), 200));
    cr_expect(eq(sz, dig_reg_networks_page(&reg, dig_network_name(nets[0]), nets, 3), 1));
    cr_expect(nets[0] == m->network);
    reg_stop();
}

/* ---- memory ---- */

Test(dig_reg_memory, made_up_networks_are_gone_with_their_members, .timeout = 30)
{
    enum { N = 100000 };
    char name[32];

    reg_start(N);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < N; i++) {
            snprintf(name, sizeof(name), "made-up %d %u", round, i);
            cr_assert(eq(int, add_text(name, name, i, &m), DIG_REG_ADDED));
        }
        cr_expect(eq(u32, dig_reg_networks_count(&reg), N));
        cr_expect(le(u32, reg.pool.used, reg.pool.max));
        for (uint32_t i = 0; i < N; i++)
            cr_assert(remove_slot(i));
        cr_expect(eq(u32, dig_reg_networks_count(&reg), 0));
        cr_expect(eq(u32, dig_reg_count(&reg), 0));
        cr_expect(eq(u32, reg.pool.used, 0));
        /* The second hundred thousand lives where the first did. */
        cr_expect(eq(u32, reg.networks_fresh, N));
        cr_expect(eq(u32, reg.members_fresh, N));
        cr_expect(eq(u32, reg.sources_fresh, N));
    }
    reg_stop();
}
