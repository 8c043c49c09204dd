/* The directory's index of names against a naive scan. Built with blocks of 64 profiles, so that
 * few profiles make many blocks; bench/micro/names.c times the real size. */
#include "tests/unit/names_world.h"

static void run_model(uint64_t s, enum pace pace, uint32_t ops)
{
    struct names *n;
    uint64_t now = 100000;

    dice = s;
    forget_all();
    cr_assert(eq(int, names_new(seed, PEERS, 0, &n), 0));
    for (uint32_t i = 0; i < ops; i++) {
        one_op(n, &now, pace);
        if (i % 1000 == 0)
            check_inside(n);
    }
    check_inside(n);
    names_free(n);
}

Test(names, finds_what_a_scan_finds, .timeout = 60)
{
    for (uint64_t s = 1; s <= 3; s++)
        run_model(s, FORWARD, 20000);
}

Test(names, finds_what_a_scan_finds_within_one_second, .timeout = 60)
{
    run_model(4, STANDING, 20000);
}

Test(names, finds_what_a_scan_finds_when_the_clock_is_set, .timeout = 60)
{
    run_model(5, JUMPING, 20000);
}

/* ---- loading -------------------------------------------------------------------------------- */

static void load_all(struct names *n, uint64_t s)
{
    uint8_t text[NAMES_BYTES_MAX];

    for (uint32_t i = 0; i < PEERS; i++) {
        size_t text_n = make_name(text);
        uint64_t seen = 1000 + any(500) * (s % 2 ? 1 : 4000);
        int err = names_load(n, peer_name(i), bytes_of(text, text_n), seen);

        cr_assert(eq(int, err, model[i].there ? -EEXIST : 0));
        if (!err) {
            set(i, text, text_n, seen);
            model[i].findable = false;
        }
        if (any(20) == 0) { /* others do not wait */
            uint64_t now = 2000000 + i;

            for (int k = 0; k < 3; k++)
                one_op(n, &now, FORWARD);
        }
    }
}

Test(names, loads_in_any_order_while_others_come_and_go, .timeout = 60)
{
    for (uint64_t s = 1; s <= 6; s++) {
        struct names *n;
        uint64_t now = 3000000;
        bool more = true;

        dice = s;
        forget_all();
        cr_assert(eq(int, names_new(seed, 0, s % 3 ? PEERS : 0, &n), 0));
        load_all(n, s);
        while (more) {
            cr_assert(eq(int, names_settle(n, 100, &more), 0));
            /* What is placed may be found by now, so nobody searches but for what is not loaded. */
            for (int k = 0; k < 10 && more; k++) {
                uint32_t i = any(PEERS);

                now++;
                if (any(2)) {
                    cr_assert(eq(int, names_remove(n, peer_name(i)), model[i].there));
                    model[i].there = false;
                } else {
                    uint8_t text[NAMES_BYTES_MAX];
                    size_t text_n = make_name(text);

                    cr_assert(eq(int, names_put(n, peer_name(i), bytes_of(text, text_n), now), 0));
                    set(i, text, text_n, now);
                }
            }
        }
        for (uint32_t i = 0; i < PEERS; i++)
            model[i].findable = true;
        cr_assert(eq(int, names_settle(n, 0, &more), 0));
        cr_assert(not(more));
        check_inside(n);
        for (int k = 0; k < 2000; k++)
            one_op(n, &now, FORWARD);
        check_inside(n);
        names_free(n);
    }
}

Test(names, frees_what_was_loaded_at_any_moment)
{
    for (int steps = 0; steps < 8; steps++) {
        struct names *n;
        bool more;

        dice = 9;
        forget_all();
        cr_assert(eq(int, names_new(seed, 0, 0, &n), 0));
        for (uint32_t i = 0; i < PEERS; i++)
            cr_assert(eq(int, names_load(n, peer_name(i), bytes_str("somebody"), any(1000)), 0));
        for (int k = 0; k < steps; k++)
            cr_assert(eq(int, names_settle(n, PEERS / 4, &more), 0));
        for (uint32_t i = 0; i < PEERS; i += 2) {
            if (i % 4)
                cr_assert(eq(int, names_touch(n, peer_name(i), 5000), 0));
            cr_assert(names_remove(n, peer_name(i)));
        }
        names_free(n); /* the address sanitizer sees the rest */
    }
}

/* ---- memory --------------------------------------------------------------------------------- */

static bool model_agrees(struct names *n)
{
    for (int k = 0; k < 30; k++) {
        uint8_t text[NAMES_BYTES_MAX];
        size_t text_n = make_query(text);

        check_find(n, bytes_of(text, text_n), any(PEERS), NAMES_FIND_MAX);
    }
    return true;
}

Test(names, is_as_it_was_when_memory_runs_out, .timeout = 60)
{
    struct names *n;
    uint64_t now = 100000;
    uint32_t refused = 0;

    dice = 7;
    forget_all();
    cr_assert(eq(int, names_new(seed, 0, 0, &n), 0));
    for (uint32_t round = 0; round < 30000; round++) {
        uint8_t text[NAMES_BYTES_MAX];
        size_t text_n = make_name(text);
        uint32_t i = any(PEERS);
        int err;

        now = any(10) ? now + any(2) : 100000 + any(3000);
        allocations_left = any(3) ? 0 : any(3);
        if (any(3) == 0) {
            err = names_put(n, peer_name(i), bytes_of(text, text_n), now);
            allocations_left = -1;
            if (!err)
                set(i, text, text_n, now);
        } else {
            err = names_touch(n, peer_name(i), now);
            allocations_left = -1;
            if (!err && model[i].seen != now) {
                model[i].seen = now;
                model[i].stamp = ++stamp;
            }
        }
        if (err == -ENOENT)
            cr_assert(not(model[i].there));
        else if (err)
            cr_assert(eq(int, err, -ENOMEM));
        refused += err == -ENOMEM;
        if (any(7) == 0) {
            cr_assert(eq(int, names_remove(n, peer_name(i)), model[i].there));
            model[i].there = false;
        }
        if (round % 1000 == 0) {
            check_inside(n);
            cr_assert(model_agrees(n));
        }
    }
    cr_assert(lt(u32, 100, refused), "only %u refusals", refused);
    names_free(n);
}

Test(names, says_so_when_there_is_no_memory_to_begin_or_to_load)
{
    struct names *n = NULL;
    bool more = true;
    int err = -ENOMEM;

    for (long left = 0; err; left++) {
        allocations_left = left;
        err = names_new(seed, 100, 5000, &n);
        allocations_left = -1;
        cr_assert(eq(int, err, n ? 0 : -ENOMEM));
        cr_assert(lt(long, left, 20));
    }
    allocations_left = 0;
    cr_assert(eq(int, names_load(n, peer_name(0), bytes_str("a"), 1), -ENOMEM));
    allocations_left = -1;
    for (uint32_t i = 0; i < 100; i++)
        cr_assert(eq(int, names_load(n, peer_name(i), bytes_str("a"), 1000 - i), 0));
    cr_assert(eq(int, names_load(n, peer_name(100), bytes_str("a"), 1), -ENOSPC));
    for (long left = 0; more; left = left ? 0 : 1) {
        allocations_left = left;
        err = names_settle(n, 10, &more);
        allocations_left = -1;
        cr_assert(err == 0 || err == -ENOMEM);
    }
    check_inside(n);
    names_free(n);
}

static uint64_t most_memory(struct names *n, uint32_t ops)
{
    struct names_stats s;
    uint64_t most = 0;

    for (uint32_t i = 0; i < ops; i++) {
        cr_assert(eq(int, names_touch(n, peer_name(any(PEERS)), 10000 + i), 0));
        names_stats_get(n, &s);
        most = s.bytes > most ? s.bytes : most;
    }
    return most;
}

Test(names, holds_no_more_memory_than_it_says)
{
    struct names *n;
    struct names_stats s;

    dice = 8;
    cr_assert(eq(int, names_new(seed, PEERS, 0, &n), 0));
    for (uint32_t i = 0; i < PEERS; i++)
        cr_assert(eq(int, names_put(n, peer_name(i), bytes_str("somebody"), i), 0));
    names_stats_get(n, &s);
    cr_assert(eq(u64, s.profiles, PEERS));
    cr_assert(lt(u64, most_memory(n, 20 * PEERS), names_memory_max(PEERS) + PEERS * 8));
    names_stats_get(n, &s);
    cr_assert(lt(u64, s.moved, (uint64_t)4 * 20 * PEERS), "%lu moved", (unsigned long)s.moved);
    cr_assert(lt(u64, 0, s.moved));
    names_free(n);
}

/* ---- one by one ------------------------------------------------------------------------------ */

static struct names *with(const char *const *list, size_t count)
{
    struct names *n;

    cr_assert(eq(int, names_new(seed, 0, 0, &n), 0));
    for (uint32_t i = 0; i < count; i++)
        cr_assert(eq(int, names_put(n, peer_name(i), bytes_str(list[i]), 100 + i), 0));
    return n;
}

static size_t count(struct names *n, const char *query)
{
    struct names_hit hits[NAMES_FIND_MAX];

    return names_find(n, bytes_str(query), bytes_of(NULL, 0), NAMES_FIND_MAX, hits);
}

Test(names, takes_wildcards_and_unicode_as_they_are)
{
    static const char *const list[] = {
        "100%", "a_b", "axb", "ALICE", "Zo\xc3\xab", "ZO\xc3\x8b", "\xd0\x81\xd0\xb6", ""
    };
    struct names *n = with(list, ARRAY_LEN(list));

    cr_assert(eq(sz, count(n, "%"), 1));
    cr_assert(eq(sz, count(n, "_"), 1));
    cr_assert(eq(sz, count(n, "a_b"), 1));
    cr_assert(eq(sz, count(n, "a%"), 0));
    cr_assert(eq(sz, count(n, "aLiCe"), 1));
    cr_assert(eq(sz, count(n, "alicee"), 0));
    cr_assert(eq(sz, count(n, "zo\xc3\xab"), 1), "another letter is another letter");
    cr_assert(eq(sz, count(n, "zo\xc3"), 2), "bytes, not letters");
    cr_assert(eq(sz, count(n, "\xd0\x81"), 1));
    cr_assert(eq(sz, count(n, "\x81"), 1));
    cr_assert(eq(sz, count(n, "\xd1\x91"), 0));
    cr_assert(eq(sz, count(n, ""), ARRAY_LEN(list)));
    cr_assert(eq(int, names_put(n, bytes_str("tail"), bytes_str("adtail headta head"), 1), 0));
    cr_assert(eq(sz, count(n, "headtail"), 0), "the peer stands behind the name in memory");
    names_free(n);
}

Test(names, keeps_to_its_shapes)
{
    static uint8_t long_text[NAMES_BYTES_MAX + 1];
    struct names_hit hits[NAMES_FIND_MAX];
    struct names *n;

    memset(long_text, 'x', sizeof(long_text));
    cr_assert(eq(int, names_new(seed, 2, 0, &n), 0));
    cr_assert(eq(int, names_put(n, bytes_of("", 0), bytes_str("a"), 1), -EINVAL));
    cr_assert(
        eq(int, names_put(n, bytes_of(long_text, NAMES_PEER_MAX + 1), bytes_str("a"), 1), -EINVAL));
    cr_assert(eq(int, names_put(n, bytes_str("p"), bytes_of(long_text, NAMES_BYTES_MAX + 1), 1),
                 -EINVAL));
    cr_assert(eq(int, names_touch(n, bytes_str("p"), 1), -ENOENT));
    cr_assert(eq(int, names_put(n, bytes_str("p"), bytes_of(long_text, NAMES_BYTES_MAX), 1), 0));
    cr_assert(eq(int, names_put(n, bytes_of(long_text, NAMES_PEER_MAX), bytes_str("a"), 2), 0));
    cr_assert(eq(int, names_put(n, bytes_str("third"), bytes_str("a"), 1), -ENOSPC));
    cr_assert(eq(int, names_put(n, bytes_str("p"), bytes_str("b"), UINT64_MAX), 0), "replaced");
    cr_assert(eq(sz, names_find(n, bytes_of(long_text, 257), bytes_of(NULL, 0), 20, hits), 0));
    cr_assert(eq(sz, names_find(n, bytes_of(NULL, 0), bytes_of(NULL, 0), 20, hits), 2));
    cr_assert(eq(u64, hits[0].last_seen_s, UINT32_MAX));
    cr_assert(eq(sz, names_find(n, bytes_of(NULL, 0), bytes_str("p"), 0, hits), 0));
    names_free(n);
}

Test(names, finds_an_exact_peer_among_twenty_newer_namesakes)
{
    struct names_hit hits[NAMES_FIND_MAX];
    struct names *n;

    cr_assert(eq(int, names_new(seed, 0, 0, &n), 0));
    for (uint32_t i = 0; i < 40; i++)
        cr_assert(eq(int, names_put(n, peer_name(i), bytes_str("him"), 100 + i), 0));
    cr_assert(eq(sz, names_find(n, bytes_str("him"), peer_name(3), 20, hits), 20));
    cr_assert(bytes_eq(hits[19].peer, peer_name(3)));
    cr_assert(bytes_eq(hits[18].peer, peer_name(21)));
    cr_assert(eq(sz, names_find(n, bytes_str("him"), peer_name(30), 20, hits), 20));
    cr_assert(bytes_eq(hits[9].peer, peer_name(30)), "once, and at its place");
    cr_assert(eq(sz, names_find(n, bytes_str("nobody"), peer_name(3), 20, hits), 1));
    names_free(n);
}

Test(names, stops_at_its_bound_of_work_and_counts_it, .timeout = 60)
{
    static char text[NAMES_BYTES_MAX];
    struct names_hit hits[NAMES_FIND_MAX];
    struct names_stats s;
    struct names *n;
    uint64_t looked;

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = "abcabcabcab abd "[i % 16];
    cr_assert(eq(int, names_new(seed, 0, 0, &n), 0));
    cr_assert(eq(int, names_put(n, bytes_str("oldest"), bytes_str("abcabcabcabd"), 1), 0));
    for (uint32_t i = 0; i < 50000; i++)
        cr_assert(eq(int, names_put(n, peer_name(i), bytes_of(text, sizeof(text)), 100), 0));
    cr_assert(eq(sz, names_find(n, bytes_str("abcabcabcabd"), bytes_of(NULL, 0), 20, hits), 0));
    names_stats_get(n, &s);
    cr_assert(eq(u64, s.finds_cut, 1));
    looked = s.compared;
    cr_assert(le(u64, looked, NAMES_FIND_WORK / (64 + NAMES_BYTES_MAX) + 1));
    cr_assert(eq(int, names_put(n, bytes_str("newest"), bytes_str("ABCABCABCABD!"), 101), 0));
    cr_assert(eq(sz, names_find(n, bytes_str("abcabcabcabd"), bytes_str("oldest"), 20, hits), 2));
    cr_assert(bytes_eq(hits[0].peer, bytes_str("newest")));
    cr_assert(bytes_eq(hits[1].peer, bytes_str("oldest")));
    names_free(n);
}
