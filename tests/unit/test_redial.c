/* engine/redial.c: when a peer relay is dialled, and what its multiaddr says (dusk.md §10.4, §14).
 */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "engine/redial.h"
#include "tests/unit/seeded.h"

static struct redial r;

/* An attempt at `now` that fails at once; the pause behind it. */
static uint64_t fail_at(uint64_t now, uint64_t random)
{
    cr_assert(eq(int, redial_tick(&r, now, false, 0), REDIAL_DIAL));
    redial_down(&r, now, random);
    return r.at_ms - now;
}

Test(redial, the_first_dial_is_due_at_once)
{
    redial_init(&r, 1000);
    cr_expect(eq(int, redial_tick(&r, 999, false, 0), REDIAL_NOTHING));
    cr_expect(eq(int, redial_tick(&r, 1000, false, 0), REDIAL_DIAL));
    cr_expect(eq(u64, r.at_ms, 1000 + REDIAL_DEADLINE_MS));
    cr_expect(eq(int, redial_tick(&r, 1001, false, 0), REDIAL_NOTHING), "one attempt at a time");
}

Test(redial, pauses_double_from_2_s_to_120_s)
{
    static const uint64_t want[] = { 2000, 4000, 8000, 16000, 32000, 64000, 120000, 120000 };

    redial_init(&r, 0);
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        cr_expect(eq(u64, fail_at(r.at_ms, 0), want[i]), "failure %zu", i);
    r.failures = UINT16_MAX;
    cr_expect(eq(u64, fail_at(r.at_ms, 0), 120000));
}

Test(redial, chance_takes_up_to_a_quarter_off_and_adds_nothing)
{
    struct seeded rnd = { 7 };
    uint64_t least = UINT64_MAX, most = 0;

    redial_init(&r, 0);
    r.failures = 20;
    for (int i = 0; i < 2000; i++) {
        uint64_t ms = fail_at(r.at_ms, seeded_u64(&rnd));

        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    cr_expect(le(u64, most, 120000));
    cr_expect(ge(u64, least, 90000));
    cr_expect(lt(u64, least, 92000), "all of the quarter is used");
    cr_expect(lt(u64, 118000, most));
}

Test(redial, an_attempt_that_hangs_is_given_up)
{
    redial_init(&r, 0);
    cr_assert(eq(int, redial_tick(&r, 0, false, 0), REDIAL_DIAL));
    cr_expect(eq(int, redial_tick(&r, REDIAL_DEADLINE_MS - 1, false, 0), REDIAL_NOTHING));
    cr_expect(eq(int, redial_tick(&r, REDIAL_DEADLINE_MS, false, 0), REDIAL_EXPIRED));
    cr_expect(eq(int, redial_tick(&r, REDIAL_DEADLINE_MS * 2, false, 0), REDIAL_NOTHING), "once");
    redial_down(&r, REDIAL_DEADLINE_MS, 0);
    cr_expect(eq(u64, r.at_ms, REDIAL_DEADLINE_MS + REDIAL_FIRST_MS));
}

Test(redial, only_a_connection_that_lived_makes_failures_forgotten)
{
    redial_init(&r, 0);
    for (int i = 0; i < 4; i++)
        fail_at(r.at_ms, 0);
    cr_assert(eq(int, redial_tick(&r, r.at_ms, false, 0), REDIAL_DIAL));
    redial_up(&r, 100000);
    redial_down(&r, 100000 + REDIAL_LIVED_MS - 1, 0);
    cr_expect(eq(u64, r.at_ms, 100000 + REDIAL_LIVED_MS - 1 + 32000), "dropped too soon");
    cr_assert(eq(int, redial_tick(&r, r.at_ms, false, 0), REDIAL_DIAL));
    redial_up(&r, 300000);
    redial_down(&r, 300000 + REDIAL_LIVED_MS, 0);
    cr_expect(eq(u64, r.at_ms, 300000 + REDIAL_LIVED_MS + REDIAL_FIRST_MS));
}

Test(redial, who_has_come_by_itself_is_not_dialled)
{
    redial_init(&r, 0);
    cr_expect(eq(int, redial_tick(&r, 0, true, 0), REDIAL_HERE));
    for (uint64_t ms = REDIAL_LOOK_MS; ms < 600000; ms += REDIAL_LOOK_MS)
        cr_expect(eq(int, redial_tick(&r, ms, true, 0), REDIAL_NOTHING));
    cr_expect(eq(int, redial_tick(&r, 600000, false, 0), REDIAL_LOST));
    cr_expect(eq(int, redial_tick(&r, 600001, false, 0), REDIAL_NOTHING), "not at once");
    cr_expect(eq(int, redial_tick(&r, 600000 + REDIAL_FIRST_MS, false, 0), REDIAL_DIAL));
}

Test(redial, a_connection_that_gives_way_counts_as_present)
{
    redial_init(&r, 0);
    cr_assert(eq(int, redial_tick(&r, 0, false, 0), REDIAL_DIAL));
    redial_up(&r, 10);
    cr_expect(eq(int, redial_tick(&r, 10 + REDIAL_LOOK_MS, true, 0), REDIAL_LOOK));
    redial_yield(&r, 6000);
    cr_expect(eq(int, redial_tick(&r, 6000 + REDIAL_LOOK_MS, true, 0), REDIAL_NOTHING));
    cr_expect(eq(int, redial_tick(&r, 6000 + 2 * REDIAL_LOOK_MS, false, 0), REDIAL_LOST));
}

Test(redial, once_stopped_it_stays_so)
{
    redial_init(&r, 0);
    cr_assert(eq(int, redial_tick(&r, 0, false, 0), REDIAL_DIAL));
    redial_up(&r, 10);
    redial_stop(&r);
    redial_down(&r, 20, 0);
    redial_yield(&r, 30);
    cr_expect(eq(u64, r.at_ms, UINT64_MAX));
    cr_expect(eq(int, redial_tick(&r, UINT64_MAX - 1, false, 0), REDIAL_NOTHING));
}

/* Whatever happens: never two attempts at once, never more often than the pauses allow, always a
 * next deadline, and never longer away than the longest of them. */
Test(redial, seeded_lives_keep_the_rules)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct seeded rnd = { seed };
        uint64_t now = seed, up_ms = 0, ended_ms = 0;
        bool trying = false, up = false, pause = false;

        redial_init(&r, now);
        for (int step = 0; step < 400; step++) {
            bool present = seeded_below(&rnd, 8) == 0;
            uint64_t random = seeded_u64(&rnd);

            cr_assert(lt(u64, r.at_ms, UINT64_MAX), "seed %llu", (unsigned long long)seed);
            cr_assert(le(u64, r.at_ms, now + REDIAL_MAX_MS));
            if (seeded_below(&rnd, 2)) /* before anything is due */
                cr_assert(eq(int, redial_tick(&r, r.at_ms - 1, present, random), REDIAL_NOTHING));
            if ((trying || up) && seeded_below(&rnd, 2)) { /* something happens meanwhile */
                now += seeded_below(&rnd, r.at_ms - now + 1);
                if (trying && seeded_below(&rnd, 3)) {
                    redial_up(&r, now);
                    up_ms = now;
                    up = true;
                } else {
                    bool lived = up && now - up_ms >= REDIAL_LIVED_MS;

                    redial_down(&r, now, random);
                    ended_ms = now;
                    pause = true;
                    cr_assert(le(u64, r.at_ms - now, lived ? REDIAL_FIRST_MS : REDIAL_MAX_MS));
                    up = false;
                }
                trying = false;
                continue;
            }
            now = r.at_ms;
            switch (redial_tick(&r, now, present, random)) {
            case REDIAL_DIAL:
                cr_assert(not(trying || up || present), "seed %llu", (unsigned long long)seed);
                if (pause)
                    cr_assert(le(u64, ended_ms + REDIAL_FIRST_MS * 3 / 4, now));
                trying = true;
                break;
            case REDIAL_EXPIRED:
                cr_assert(trying);
                redial_down(&r, now, random);
                ended_ms = now;
                pause = true;
                trying = false;
                break;
            case REDIAL_LOST:
                ended_ms = now;
                pause = true;
                break;
            case REDIAL_LOOK:
                cr_assert(up);
                if (present) {
                    redial_yield(&r, now);
                    up = false;
                }
                break;
            case REDIAL_HERE:
                cr_assert(present);
                cr_assert(not(trying || up));
                break;
            case REDIAL_NOTHING:
                break;
            }
        }
    }
}

/* ---- addresses ------------------------------------------------------------------------------ */

#define ID "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"

static bool parse(const char *text, struct dial_target *t)
{
    struct maddr m;

    return maddr_parse(bytes_str(text), &m) && dial_parse(maddr_bytes(&m), t);
}

Test(dial_parse, takes_addresses_and_names_with_and_without_an_id)
{
    struct dial_target t;
    char text[NETADDR_TEXT_MAX], id[PEER_TEXT_MAX];

    cr_assert(parse("/ip4/192.0.2.7/tcp/4001", &t));
    netaddr_text(&t.at, text);
    cr_expect_str_eq(text, "192.0.2.7:4001");
    cr_expect(eq(u8, t.want.n, 0));
    cr_expect_str_empty(t.name);
    cr_assert(parse("/ip6/2001:db8::7/tcp/65535/p2p/" ID, &t));
    netaddr_text(&t.at, text);
    cr_expect_str_eq(text, "[2001:db8::7]:65535");
    peer_id_text(&t.want, id);
    cr_expect_str_eq(id, ID);
    cr_assert(parse("/dns4/relay.example.org/tcp/4001/p2p/" ID, &t));
    cr_expect_str_eq(t.name, "relay.example.org");
    cr_expect(eq(int, t.families, DIAL_IP4));
    cr_expect(eq(int, t.at.port, 4001));
    cr_assert(parse("/dns6/r.example/tcp/1", &t));
    cr_expect(eq(int, t.families, DIAL_IP6));
    cr_assert(parse("/dns/r.example/tcp/1", &t));
    cr_expect(eq(int, t.families, DIAL_IP4 | DIAL_IP6));
}

Test(dial_parse, refuses_what_cannot_be_dialled)
{
    static const char *const bad[] = {
        "/ip4/192.0.2.7",
        "/ip4/192.0.2.7/udp/4001",
        "/ip4/192.0.2.7/tcp/0",
        "/ip4/192.0.2.7/tcp/4001/ws",
        "/ip4/192.0.2.7/tcp/4001/p2p/" ID "/p2p-circuit",
        "/ip4/192.0.2.7/tcp/4001/p2p/" ID "/p2p/" ID,
        "/dnsaddr/relay.example.org/tcp/4001",
        "/tcp/4001",
        ("/p2p/" ID),
        "/unix/x",
    };
    struct dial_target t = { .families = 77 };
    struct maddr m;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(parse(bad[i], &t)), "%s", bad[i]);
    cr_assert(maddr_parse(bytes_str("/dns4/relay.example.org/tcp/4001/p2p/" ID), &m));
    for (size_t n = 0; n < m.n; n++) { /* 22: all up to the port */
        bool whole = n == 22;

        cr_expect(eq(int, dial_parse(bytes_of(m.b, n), &t), whole), "%zu bytes", n);
    }
}
