/* What PEX links are told, and when (dig.md §10.3, §10.5; §20 checks 43 to 45). */
#include "tests/unit/pex_world.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static struct seeded dice = { 1 };
static struct dig_member *a, *b, *c;

static void start(uint32_t max)
{
    pex_start(max, &dice);
    a = join_hex(1, "n", 1);
}

/* Ticks once a second until something is said, for that many seconds at most. */
static bool says_within(uint32_t seconds)
{
    for (uint32_t s = 0; s <= seconds; s++) {
        do {
            pex_tick(&pex, now_ms, &out);
            if (out.n) {
                cr_assert(eq(u32, out.n, 1));
                cr_assert(eq(int, out.ev[0].type, PEX_SEND_DELTA));
                return true;
            }
        } while (pex_deadline_ms(&pex) <= now_ms);
        now_ms += 1000;
    }
    return false;
}

static bool drops(uint32_t id)
{
    char text[65];

    hex_id(text, id);
    for (uint32_t i = 0; i < out.dropped_n; i++) {
        if (memcmp(out.dropped[i], text, 64) == 0)
            return true;
    }
    return false;
}

static bool adds(const struct dig_member *m)
{
    for (uint32_t i = 0; i < out.peers; i++) {
        if (out.peer[i].member == m)
            return true;
    }
    return false;
}

Test(pex_delta, comes_once_60_to_66_s_after_the_snapshot) /* check 43 */
{
    start(10);
    b = join_hex(2, "n", 2);
    handshake(a, 30);
    uint64_t sent_ms = now_ms;

    now_ms += 10000;
    c = join_hex(3, "n", 3);
    leave(b);
    cr_assert(says_within(100));
    cr_expect(out.to == a);
    cr_expect(le(u64, sent_ms + 60000, now_ms));
    cr_expect(le(u64, now_ms, sent_ms + 67000));
    cr_expect(eq(u32, out.peers, 1));
    cr_expect(adds(c));
    cr_expect(eq(u32, out.dropped_n, 1));
    cr_expect(drops(2));
    cr_expect(not(says_within(10000)));
    pex_stop();
}

Test(pex_delta, is_not_sent_without_a_change) /* check 44 */
{
    start(10);
    b = join_hex(2, "n", 2);
    handshake(a, 30);
    cr_expect(not(says_within(1000)));
    cr_expect(eq(u64, pex_deadline_ms(&pex), UINT64_MAX)); /* and costs nothing */
    seen_at[b->index] += 1000;                             /* no change (§10.5) */
    cr_expect(not(says_within(1000)));
    /* Somebody who comes and goes between two deltas was never there. */
    leave(join_hex(3, "n", 3));
    cr_expect(eq(u64, pex.leaves, 0)); /* and needs no record */
    cr_expect(not(says_within(1000)));
    /* The link is still due: a change is told when the second is over. */
    c = join_hex(4, "n", 4);
    uint64_t joined_ms = now_ms;

    cr_expect(not(pex_deadline_ms(&pex) <= now_ms));
    cr_assert(says_within(10));
    cr_expect(adds(c));
    cr_expect(le(u64, now_ms, joined_ms + 1000));
    pex_stop();
}

Test(pex_delta, keeps_to_the_longer_interval_with_a_tenth_of_jitter)
{
    static const struct {
        uint32_t declared_s, e_s;
    } is[] = { { 0, 60 }, { 59, 60 }, { 61, 61 }, { 3600, 3600 }, { 100000, 3600 } };
    uint64_t low = 0, high = 0, last = 0;

    for (size_t i = 0; i < ARRAY_LEN(is); i++) {
        for (uint32_t k = 0; k < 200; k++) {
            start(10);
            handshake(a, is[i].declared_s);
            uint64_t in_ms = pex_deadline_ms(&pex) - now_ms;

            cr_assert(le(u64, is[i].e_s * 1000, in_ms));
            cr_assert(le(u64, in_ms, is[i].e_s * 1100));
            low += in_ms < is[i].e_s * 1025;
            high += in_ms > is[i].e_s * 1075;
            pex_stop();
        }
    }
    cr_expect(lt(u64, 150, low)); /* a quarter of a thousand each */
    cr_expect(lt(u64, low, 350));
    cr_expect(lt(u64, 150, high));
    cr_expect(lt(u64, high, 350));
    start(100); /* drawn anew for each */
    handshake(a, 30);
    for (uint32_t i = 2; i < 20; i++) {
        uint64_t sent_ms = now_ms;

        (void)join_hex(i, "n", i);
        now_ms = pex_deadline_ms(&pex);
        cr_assert(ne(u64, now_ms - sent_ms, last));
        last = now_ms - sent_ms;
        pex_tick(&pex, now_ms, &out);
        cr_assert(eq(u32, out.n, 1));
    }
    pex_stop();
}

Test(pex_delta, adds_the_newest_50_and_leaves_the_rest_for_later)
{
    static struct dig_member *m[121];

    start(200);
    handshake(a, 30);
    for (uint32_t i = 0; i < 121; i++)
        m[i] = join_hex(10 + i, "n", 10 + i);
    uint32_t newest = 121;

    for (uint32_t want = 50; newest > 0; want = (uint32_t)min_sz(50, newest)) {
        uint64_t before_ms = now_ms;

        cr_assert(says_within(100));
        cr_expect(le(u64, before_ms + 59000, now_ms));
        cr_assert(eq(u32, out.peers, want));
        for (uint32_t i = 0; i < want; i++)
            cr_assert(adds(m[--newest]));
    }
    cr_expect(not(says_within(500)));
    pex_stop();
}

Test(pex_delta, drops_50_and_the_rest_later)
{
    static struct dig_member *m[121];
    uint32_t said = 0;

    start(200);
    for (uint32_t i = 0; i < 121; i++)
        m[i] = join_hex(10 + i, "n", 10 + i);
    handshake(a, 30);
    cr_assert(eq(u32, out.peers, 121));
    for (uint32_t i = 0; i < 121; i++)
        leave(m[i]);
    b = join_hex(2, "n", 2); /* does not have to wait for them */
    for (uint32_t round = 0; round < 3; round++) {
        cr_assert(says_within(100));
        cr_assert(eq(u32, out.dropped_n, round < 2 ? 50 : 21));
        cr_assert(eq(u32, out.peers, round == 0));
        for (uint32_t i = 1; i < out.dropped_n; i++)
            cr_assert(lt(int, memcmp(out.dropped[i - 1], out.dropped[i], 64), 0));
        said += out.dropped_n;
    }
    cr_expect(eq(u32, said, 121));
    cr_expect(not(says_within(500)));
    pex_stop();
}

/* Somebody joins and leaves behind a pile of departures, and the link passes over his age before it
 * comes to read of his leaving: it was never told of him and does not take him back. */
Test(pex_delta, does_not_drop_who_came_and_went_behind_a_pile_of_departures)
{
    static struct dig_member *m[121];

    for (uint32_t pile = 99; pile <= 121; pile++) {
        bool dropped = false, added = false;

        start(200);
        for (uint32_t i = 0; i < pile; i++)
            m[i] = join_hex(10 + i, "n", 10 + i);
        handshake(a, 30);
        for (uint32_t i = 0; i < pile; i++)
            leave(m[i]);
        b = join_hex(2, "n", 2); /* so that there is news to pass on */
        c = join_hex(3, "n", 3);
        handshake(b, 30); /* b is told of c, and so his leaving is recorded */
        leave(c);
        for (uint32_t i = 0; i < 30; i++) {
            if (says_within(100) && out.to == a) {
                dropped |= drops(3);
                added |= adds(b);
            }
        }
        cr_expect(not(dropped), "%u", pile);
        cr_expect(added, "%u", pile);
        pex_stop();
    }
}

Test(pex_snapshot, tells_the_200_that_came_last_and_deltas_the_rest)
{
    static struct dig_member *m[201];

    pex_start(600, &dice);
    for (uint32_t i = 0; i < 201; i++)
        m[i] = join_hex(10 + i, "n", 10 + i);
    a = join_hex(1, "n", 1);
    handshake(a, 30);
    cr_assert(eq(u32, out.peers, 200));
    cr_expect(not(adds(m[0])));
    cr_expect(adds(m[1]));
    cr_assert(says_within(100));
    cr_expect(eq(u32, out.peers, 1));
    cr_expect(adds(m[0]));
    cr_expect(not(says_within(500)));
    /* The receiver does not count among the 200, wherever it stands. */
    handshake(m[0], 30);
    cr_assert(eq(u32, out.peers, 200));
    cr_expect(not(adds(m[0])));
    cr_expect(adds(a));
    cr_expect(not(adds(m[1])));
    pex_stop();
}

Test(pex_delta, tells_an_id_that_registered_again_and_does_not_drop_it)
{
    start(200);
    b = join_hex(2, "n", 2);
    handshake(a, 30);
    leave(b);
    c = join_hex(2, "n", 3);
    cr_assert(says_within(100));
    cr_expect(adds(c));
    cr_expect(eq(u32, out.peers, 1));
    cr_expect(eq(u32, out.dropped_n, 0));
    /* With 50 newer ones it is dropped now and told when there is room: never both. */
    leave(c);
    c = join_hex(2, "n", 2);
    for (uint32_t i = 0; i < 50; i++)
        (void)join_hex(10 + i, "n", 10 + i);
    cr_assert(says_within(100));
    cr_expect(eq(u32, out.peers, 50));
    cr_expect(not(adds(c)));
    cr_expect(drops(2));
    cr_assert(says_within(100));
    cr_expect(eq(u32, out.peers, 1));
    cr_expect(adds(c));
    cr_expect(eq(u32, out.dropped_n, 0));
    pex_stop();
}

Test(pex_delta, keeps_networks_apart) /* check 44 */
{
    start(200);
    b = join_hex(2, "n", 2);
    c = join_hex(3, "m", 3);
    handshake(a, 30);
    cr_expect(eq(u32, out.peers, 1));
    handshake(c, 30);
    cr_expect(eq(u32, out.peers, 0));
    leave(b);
    b = join_hex(2, "m", 2); /* moves */
    cr_assert(says_within(100));
    struct dig_member *first = out.to;

    for (int i = 0; i < 2; i++) {
        if (out.to == a) {
            cr_expect(drops(2));
            cr_expect(eq(u32, out.peers, 0));
        } else {
            cr_expect(adds(b));
            cr_expect(eq(u32, out.dropped_n, 0));
        }
        cr_assert(eq(int, says_within(100), i == 0));
        cr_assert(i || out.to != first);
    }
    pex_stop();
}

Test(pex_delta, never_tells_ids_that_are_not_hex) /* D9 */
{
    static const char *const odd[] = {
        "",
        "peerA",
        "4F1D000000000000000000000000000000000000000000000000000000000000",
        "g000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000000000000000000000000000000000000000",
        "00000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000000000000000000000000000000000000000/",
        "00000000000000000000000000000000000000000000000000000000000000a:"
    };
    struct dig_member *m[ARRAY_LEN(odd)];

    start(50);
    handshake(a, 30);
    for (uint32_t i = 0; i < ARRAY_LEN(odd); i++) {
        m[i] = join(bytes_str(odd[i]), "n", 10 + i);
        handshake(m[i], 30); /* though it is served itself */
        cr_expect(eq(u32, out.peers, 1));
        cr_expect(adds(a));
    }
    cr_expect(not(says_within(200)));
    b = join_hex(2, "n", 2);
    for (uint32_t i = 0; i < 1 + ARRAY_LEN(odd); i++) {
        cr_assert(says_within(200));
        cr_expect(eq(u32, out.peers, 1));
    }
    for (uint32_t i = 0; i < ARRAY_LEN(odd); i++)
        leave(m[i]);
    cr_expect(not(says_within(200)));
    pex_stop();
}

Test(pex_delta, tells_of_a_silent_registrant_for_ever) /* check 45, D3 */
{
    start(10);
    b = join_hex(2, "n", 2);
    handshake(a, 30);
    now_ms += UINT64_C(1000) * 86400 * 3;
    cr_expect(not(says_within(100)));
    c = join_hex(3, "n", 3);
    handshake(c, 30);
    cr_expect(eq(u32, out.peers, 2));
    cr_expect(adds(b));
    pex_stop();
}

/* ---- bounds ---- */

Test(pex_bounds, a_flood_every_minute_is_told_completely_and_once)
{
    enum { MINUTES = 30, EACH = 70, MAX = 2200 };
    static uint32_t told[MAX];
    uint32_t full = 0, n = 0;

    start(MAX);
    handshake(a, 30);
    const struct pex_link *k = &pex.link[a->index];

    for (uint32_t minute = 0; minute < 60; minute++) {
        for (uint32_t i = 0; i < EACH && minute < MINUTES; i++, n++)
            (void)join_hex(100 + n, "n", 10 + n);
        if (!says_within(70))
            break;
        cr_assert(le(u32, out.peers, 50));
        cr_assert(le(u32, k->gaps_n, PEX_GAPS_MAX));
        full += k->gaps_n == PEX_GAPS_MAX;
        for (uint32_t i = 0; i < out.peers; i++)
            told[out.peer[i].member->index]++;
    }
    cr_expect(lt(u32, MINUTES - PEX_GAPS_MAX - 2, full));
    for (uint32_t i = 0; i < MAX; i++)
        cr_assert(eq(u32, told[i], i > 0 && i <= n ? 1 : 0));
    cr_expect(not(says_within(500)));
    pex_stop();
}

Test(pex_bounds, a_link_with_every_gap_taken_says_departures_rightly)
{
    enum { MINUTES = 24, EACH = 60, MAX = 2000 };
    static bool told[MAX];
    static struct dig_member *m[MAX];
    uint32_t n = 0;

    start(MAX);
    handshake(a, 30);
    const struct pex_link *k = &pex.link[a->index];

    /* b is told of everybody who joins, so every departure is recorded. */
    for (uint32_t minute = 0; minute < MINUTES + 40; minute++) {
        for (uint32_t i = 0; i < EACH && minute < MINUTES; i++, n++) {
            m[n] = join_hex(100 + n, "n", 10 + n);
            pex.told[m[n]->index].someone = true;
            if (i % 6 == 5) { /* one of those who came, old or new, goes */
                uint32_t gone = (uint32_t)seeded_below(&dice, n);

                if (m[gone])
                    leave(m[gone]);
                m[gone] = NULL;
            }
        }
        if (!says_within(70))
            break;
        for (uint32_t i = 0; i < out.peers; i++) {
            uint32_t at = out.peer[i].member->home.slot - 10;
            cr_assert(not(told[at]));
            told[at] = true;
        }
        for (uint32_t i = 0; i < n && out.dropped_n; i++) {
            if (drops(100 + i)) {
                cr_assert(told[i]);
                cr_assert(m[i] == NULL);
                told[i] = false;
            }
        }
    }
    cr_expect(eq(u32, k->gaps_n, 0));
    for (uint32_t i = 0; i < n; i++)
        cr_assert(eq(int, told[i], m[i] != NULL));
    pex_stop();
}

/* 1024 departures are kept: who reads them in time says them all, who has more to read does not say
 * the first and is counted, once. */
Test(pex_bounds, the_ring_of_departures_forgets_the_oldest)
{
    static const uint32_t extras[] = { 0, 1, 199, 200, 400 };
    enum { MAX = 1024 };

    for (size_t x = 0; x < ARRAY_LEN(extras); x++) {
        static struct dig_member *m[MAX];
        uint32_t said = 0, extra = extras[x];

        start(MAX);
        for (uint32_t i = 0; i < 200; i++)
            m[i] = join_hex(10 + i, "n", 10 + i);
        handshake(a, 30);
        cr_assert(eq(u32, out.peers, 200));
        for (uint32_t i = 0; i < 200; i++)
            leave(m[i]);
        for (uint32_t i = 0; i < 1024 - 200 + extra; i++) {
            b = join_hex(500 + i, "m", 3); /* elsewhere, where they are told too */
            pex.told[b->index].someone = true;
            if (i == 0) {
                c = join_hex(2, "m", 2);
                handshake(c, 3600);
            }
            leave(b);
        }
        while (says_within(200) && out.to == a)
            said += out.dropped_n;
        cr_expect(eq(u32, said, extra < 200 ? 200 - extra : 0));
        cr_expect(eq(u64, pex.forgotten, extra > 0));
        b = join_hex(3, "n", 3);
        cr_expect(says_within(200) && out.to == a && adds(b));
        cr_expect(eq(u64, pex.forgotten, extra > 0));
        pex_stop();
    }
}

/* Joins are told beside a pile of departures, but the link remembers 16 deltas of it. */
Test(pex_bounds, a_long_pile_of_departures_holds_joins_up_after_16_deltas)
{
    enum { PILE = 1000, MAX = 1100 };
    static struct dig_member *m[PILE];
    uint32_t told, piled = 0, joined = 0;

    start(MAX);
    for (uint32_t i = 0; i < PILE; i++)
        m[i] = join_hex(100 + i, "n", 10 + i);
    handshake(a, 30);
    for (told = out.peers; told < PILE; told += out.peers)
        cr_assert(says_within(70));
    for (uint32_t i = 0; i < PILE; i++)
        leave(m[i]);
    for (uint32_t delta = 0; delta < PILE / 50; delta++) {
        (void)join_hex(2000 + delta, "n", 10 + delta);
        cr_assert(says_within(70));
        cr_assert(le(u32, pex.link[a->index].passes_n, PEX_PASSES_MAX));
        cr_assert(eq(u32, out.dropped_n, 50));
        piled += out.dropped_n;
        joined += out.peers;
        cr_expect(eq(u32, joined, delta < 16 ? delta + 1 : delta < 19 ? 16 : 20));
    }
    cr_expect(eq(u32, piled, PILE));
    cr_expect(not(says_within(500)));
    pex_stop();
}

Test(pex_bounds, a_link_goes_on_after_all_that_it_read_is_overwritten)
{
    static struct dig_member *m[30];

    start(1024);
    for (uint32_t i = 0; i < 30; i++)
        m[i] = join_hex(10 + i, "n", 10 + i);
    handshake(a, 30);
    c = join_hex(2, "m", 2);
    handshake(c, 3600);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 10; i++)
            leave(m[10 * round + i]);
        cr_assert(says_within(100));
        cr_expect(out.to == a);
        cr_expect(eq(u32, out.dropped_n, 10));
        for (uint32_t i = 0; i < 10; i++)
            cr_expect(drops(10 + 10 * round + i));
        for (uint32_t i = 0; i < 1030; i++) { /* elsewhere */
            b = join_hex(500 + i, "m", 3);
            pex.told[b->index].someone = true;
            leave(b);
        }
    }
    cr_expect(eq(u64, pex.forgotten, 0)); /* it had read them all */
    pex_stop();
}

Test(pex_bounds, one_tick_looks_at_16_links)
{
    enum { MAX = 1000 };
    uint32_t calls = 0;

    pex_start(MAX, &dice);
    for (uint32_t i = 0; i < MAX - 1; i++) {
        char id[16];

        snprintf(id, sizeof(id), "odd%u", i); /* none is told */
        handshake(join(bytes_str(id), "n", i), 30);
    }
    now_ms += 66000;
    do {
        uint32_t before = pex.heap_n;

        pex_tick(&pex, now_ms, &out);
        cr_assert(eq(u32, out.n, 0));
        cr_assert(le(u32, before - pex.heap_n, PEX_LINKS_PER_TICK));
        calls++;
    } while (pex_deadline_ms(&pex) <= now_ms);
    cr_expect(le(u32, MAX / PEX_LINKS_PER_TICK, calls));
    cr_expect(eq(u32, pex.heap_n, 0));
    cr_expect(eq(u64, pex_deadline_ms(&pex), UINT64_MAX));
    /* One change wakes them all, and each is told once. */
    a = join_hex(1, "n", MAX);
    calls = 0;
    cr_assert(says_within(2));
    do {
        cr_assert(eq(u32, out.peers, 1));
        calls++;
    } while (says_within(2));
    cr_expect(eq(u32, calls, MAX - 1));
    pex_stop();
}
