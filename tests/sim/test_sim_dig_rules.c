/* tests/sim/test_sim_dig_rules.c: DIG by hand, on two shards: whose name it is, who is told what,
 * who waits for whom and for how long, and what happens when it is over. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "engine/dig_int.h"
#include "tests/sim/sim_dig.h"

static struct sim_dig d;

static struct sim *begin(struct sim_opts net, const struct config *cfg)
{
    struct sim *s = sim_new(1, net, cfg);

    s->full_every = 1;
    sim_dig_init(&d, s);
    return s;
}

/* A fair network whose far ends are missed after minutes only, and little room in sockets. */
static struct sim *calm(void)
{
    static struct config cfg;

    sim_dig_config(&cfg);
    return begin((struct sim_opts){ .vanish_ms = 600000, .socket_bytes = 8192 }, &cfg);
}

static void ended(struct sim *s)
{
    cr_assert(sim_end(s), SIM_SEED(s));
    sim_dig_fini(&d);
    sim_free(s);
}

/* Comes to that shard and registers. */
static struct sim_dig_link *come(struct sim_dig_client *c, unsigned id, unsigned net,
                                 unsigned shard)
{
    struct sim_dig_link *l = sim_dig_connect(c, (int)shard);

    sim_dig_register(l, id, net);
    SIM_UNTIL(d.s, l->acked || l->refused != 0, 1000);
    return l;
}

static struct sim_dig_link *node(unsigned id, unsigned net, unsigned shard)
{
    struct sim_dig_link *l = come(sim_dig_client(&d, id, net), id, net, shard);

    cr_assert(l->acked, "refused: %u", l->refused);
    return l;
}

static void settle(struct sim *s, uint64_t lost_max)
{
    d.still = true;
    sim_run_ms(s, 1000);
    d.still = false;
    sim_dig_check_said(&d, lost_max);
    SIM_OK(s);
}

static uint64_t stat(size_t at)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < SIM_SHARDS; i++)
        n += *(const uint64_t *)(const void *)((const char *)&d.s->shard[i].stats + at);
    return n;
}
#define STAT(name) stat(offsetof(struct stats, name))

static size_t registered(void)
{
    return atomic_load(&d.s->dig_host.registered);
}

/* ---- names ------------------------------------------------------------------------------------
 */

Test(sim_dig_rules, a_name_is_free_soon_after_its_holder_fell_silent, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *dead = node(0, 0, 0), *watcher = node(1, 0, 1), *l;
    struct sim_dig_client *again = sim_dig_client(&d, 0, 0);
    uint64_t from_ms;

    sim_dig_get_peers(watcher, SIM_DIG_NETS);
    sim_dig_bye(dead, BYE_SILENCE);
    from_ms = sim_now(s);
    l = come(again, 0, 0, 1);
    cr_assert(eq(u32, l->refused, DIG_CODE_ID_TAKEN));
    SIM_UNTIL(s, again->at == NULL, 5000);
    sim_run_ms(s, DIG_PROBE_MS - 200 - (sim_now(s) - from_ms));
    l = come(again, 0, 0, 1);
    cr_assert(eq(u32, l->refused, DIG_CODE_ID_TAKEN), "nobody waited for a sign of life");
    SIM_UNTIL(s, again->at == NULL, 5000);
    sim_run_ms(s, 700);
    l = come(again, 0, 0, 1);
    cr_assert(l->acked, "%llu ms later it is still taken",
              (unsigned long long)(sim_now(s) - from_ms));
    sim_run_ms(s, 100);
    sim_dig_check_quiet(&d, false);
    ended(s);
}

Test(sim_dig_rules, who_shows_life_keeps_its_name, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *l, *holder = node(0, 0, 0);
    struct sim_dig_client *thief = sim_dig_client(&d, 0, 1);

    for (int i = 0; i < 6; i++) { /* on whichever network: names are of the whole relay */
        l = come(thief, 0, (unsigned)i % 2, (unsigned)i % 2);
        cr_assert(eq(u32, l->refused, DIG_CODE_ID_TAKEN));
        SIM_UNTIL(s, thief->at == NULL, 5000);
        sim_run_ms(s, 2000);
    }
    cr_assert(sim_dig_stays(holder));
    cr_assert(eq(sz, registered(), 1));
    ended(s);
}

/* D1: the connection that had a name before is not its holder's. */
Test(sim_dig_rules, a_stale_connection_takes_nobody_along, .timeout = 20)
{
    for (int how = BYE_UNREGISTER; how <= BYE_RST; how++) {
        struct sim *s = calm();
        struct sim_dig_link *first = node(0, 0, 0), *other = node(2, 0, 1), *next;

        sim_dig_register(first, 1, 0);
        SIM_UNTIL(s, !first->asks_in, 1000);
        next = node(0, 0, 1);
        sim_dig_bye(first, (enum sim_dig_bye)how);
        sim_run_ms(s, 3000);
        cr_assert(sim_dig_stays(next));
        cr_assert(eq(sz, registered(), 2));
        sim_dig_relay(other, 0, 20);
        sim_dig_get_peers(next, SIM_DIG_NETS);
        settle(s, 0);
        cr_assert(eq(u64, d.did.heard, 1), SIM_SEED(s));
        sim_dig_check_quiet(&d, false);
        ended(s);
    }
}

/* D11 */
Test(sim_dig_rules, registering_again_is_a_refresh_or_a_move, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *l = node(0, 0, 0), *sees = node(1, 0, 1), *elsewhere = node(2, 1, 1);

    sim_dig_get_peers(sees, SIM_DIG_NETS);
    sim_dig_get_peers(elsewhere, SIM_DIG_NETS);
    sim_dig_pex(l);
    sim_run_ms(s, 200);
    d.did.pushes = 0;
    sim_dig_register(l, 0, 0);
    sim_run_ms(s, 200);
    cr_assert(eq(u64, d.did.pushes, 0), "a refresh is no event");
    cr_assert(eq(u64, d.did.refreshed, 1));
    sim_dig_register(l, 4, 0);
    sim_run_ms(s, 200);
    cr_assert(eq(u64, d.did.pushes, 2), "one left, one came");
    sim_dig_relay(sees, 0, 10);
    sim_dig_relay(sees, 4, 10);
    settle(s, 0);
    cr_assert(eq(u64, d.did.no_target, 1));
    sim_dig_register(l, 4, 1);
    sim_run_ms(s, 200);
    sim_dig_relay(sees, 4, 10);
    sim_dig_relay(elsewhere, 4, 10);
    settle(s, 0);
    cr_assert(eq(u64, d.did.no_target, 2));
    sim_dig_check_quiet(&d, false);
    ended(s);
}

/* ---- half-open --------------------------------------------------------------------------------
 */

Test(sim_dig_rules, the_silent_are_swept_and_everybody_hears_it, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *dead = node(0, 0, 0), *l = node(1, 0, 1);
    uint64_t late_ms = s->cfg.dig_liveness_ms + s->cfg.dig_sweep_interval_ms + 2000;

    sim_dig_get_peers(l, SIM_DIG_NETS);
    sim_dig_pex(l);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, l->view, 3));
    sim_dig_bye(dead, BYE_SILENCE);
    sim_run_ms(s, s->cfg.dig_liveness_ms - 2000);
    cr_assert(eq(sz, registered(), 2));
    SIM_UNTIL(s, registered() == 1, late_ms);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, l->view, 2));
    cr_assert(eq(u64, STAT(dig_swept) + STAT(dig_timeouts), 1));
    sim_run_ms(s, 70000);
    cr_assert(eq(u64, l->book, 0));
    ended(s);
}

/* ---- who does not read ------------------------------------------------------------------------
 */

enum { SAID = 40, LONG = 500 };

static struct sim *narrow(void)
{
    static struct config cfg;

    sim_dig_config(&cfg);
    cfg.dig_queue_bytes_max = 8192;
    return begin((struct sim_opts){ .vanish_ms = 600000, .socket_bytes = 8192 }, &cfg);
}

Test(sim_dig_rules, a_sender_waits_for_who_reads_on_and_loses_nothing, .timeout = 20)
{
    for (unsigned shard = 0; shard < SIM_SHARDS; shard++) {
        struct sim *s = narrow();
        struct sim_dig_link *a = node(0, 0, 0), *b = node(1, 0, shard);

        b->deaf_ms = sim_now(s) + 1500;
        for (int i = 0; i < SAID; i++)
            sim_dig_relay(a, 1, LONG);
        sim_dig_ping(a);
        sim_run_ms(s, 1400);
        cr_assert(eq(u64, d.did.pongs, 0), "it was heard although it has to wait");
        cr_assert(lt(u64, 0, STAT(dig_held)));
        settle(s, 0);
        cr_assert(eq(u64, d.did.heard, SAID));
        cr_assert(eq(u64, d.did.pongs, 1));
        cr_assert(eq(u64, STAT(dig_lost), 0));
        ended(s);
    }
}

Test(sim_dig_rules, a_dead_reader_holds_a_sender_once_and_nobody_else, .timeout = 20)
{
    for (unsigned shard = 0; shard < SIM_SHARDS; shard++) {
        struct sim *s = narrow();
        struct sim_dig_link *a = node(0, 0, 0), *b = node(1, 0, shard), *c = node(2, 0, 0);
        uint64_t from_ms = sim_now(s), held;

        b->deaf_ms = from_ms + 8000;
        for (int i = 0; i < SAID; i++)
            sim_dig_relay(a, 1, LONG);
        sim_dig_ping(a);
        SIM_UNTIL(s, d.did.pongs == 1, 3000);
        cr_assert(ge(u64, sim_now(s) - from_ms, DIG_HOLD_MS), SIM_SEED(s));
        cr_assert(le(u64, sim_now(s) - from_ms, DIG_HOLD_MS + 100), SIM_SEED(s));
        held = STAT(dig_held);
        sim_dig_relay(c, 1, LONG);
        sim_dig_ping(c);
        sim_run_ms(s, 50);
        cr_assert(eq(u64, d.did.pongs, 2), "another sender is held, too");
        cr_assert(eq(u64, STAT(dig_held), held));
        sim_run_ms(s, 6000);
        settle(s, STAT(dig_lost));
        held = STAT(dig_lost);
        sim_dig_relay(c, 1, LONG); /* it reads again */
        settle(s, 0);
        b->deaf_ms = sim_now(s) + 1000; /* and is waited for again */
        for (int i = 0; i < SAID; i++)
            sim_dig_relay(c, 1, LONG);
        sim_run_ms(s, 1000);
        settle(s, 0);
        cr_assert(eq(u64, STAT(dig_lost), held));
        ended(s);
    }
}

/* The relay does not read who is held back, and so does not see that it answers a probe. */
Test(sim_dig_rules, who_is_held_back_is_not_taken_for_dead, .timeout = 20)
{
    struct sim *s = narrow();
    struct sim_dig_link *a = node(0, 0, 0), *deaf;
    struct sim_dig_client *thief = sim_dig_client(&d, 0, 0);

    for (unsigned i = 1; i < 5; i++) {
        deaf = node(i, 0, i % 2);
        deaf->deaf_ms = sim_now(s) + 15000;
    }
    for (int k = 0; k < 2; k++) { /* as much as finds room: in their sockets, then in queues */
        for (unsigned i = 1; i < 13; i++)
            sim_dig_relay(a, 1 + i % 4, LONG);
        sim_run_ms(s, 50);
    }
    cr_assert(eq(u64, STAT(dig_held), 0));
    for (unsigned i = 1; i < 5; i++)
        sim_dig_relay(a, i, 4 * LONG);
    for (int k = 0; k < SAID; k++) /* more than is read while it waits */
        sim_dig_relay(a, 1, 2 * LONG);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, STAT(dig_held), 1));
    cr_assert(eq(u32, come(thief, 0, 0, 1)->refused, DIG_CODE_ID_TAKEN));
    sim_run_ms(s, 10000);
    cr_assert(ge(u64, STAT(dig_held), 4));
    cr_assert(sim_dig_stays(a), SIM_SEED(s));
    sim_run_ms(s, 6000);
    ended(s);
}

/* What waits for a name is not for the same connection's next one. */
Test(sim_dig_rules, what_is_held_for_a_name_is_lost_with_it, .timeout = 20)
{
    for (unsigned shard = 0; shard < SIM_SHARDS; shard++) {
        struct sim *s = narrow();
        struct sim_dig_link *a = node(0, 0, 0), *b = node(1, 0, shard);

        b->deaf_ms = sim_now(s) + 1000;
        for (int i = 0; i < SAID; i++)
            sim_dig_relay(a, 1, LONG);
        sim_run_ms(s, 500);
        cr_assert(lt(u64, 0, STAT(dig_held)));
        sim_dig_register(b, 4, 1);
        sim_run_ms(s, 3000);
        cr_assert(eq(u32, b->net, 1), SIM_SEED(s));
        cr_assert(eq(u64, STAT(dig_lost), 1));
        cr_assert(eq(u64, d.did.heard + d.did.no_target, SAID - 1), SIM_SEED(s));
        ended(s);
    }
}

Test(sim_dig_rules, a_letter_to_who_has_gone_is_counted_and_gives_its_room_back, .timeout = 60)
{
    uint64_t lost = 0, heard = 0;

    for (unsigned i = 0; i < 40; i++) {
        struct sim *s = calm();
        struct sim_dig_link *a = node(0, 0, 0), *b = node(1, 0, 1);

        for (unsigned k = 0; k < 5; k++)
            sim_dig_relay(a, 1, 30 + 900 * (i % 2));
        for (unsigned k = 0; k < i % 10; k++)
            sim_step(s);
        sim_dig_bye(b, i % 3 == 0 ? BYE_RST : i % 3 == 1 ? BYE_FIN : BYE_CLOSE);
        sim_dig_relay(a, 1, 30);
        settle(s, 0);
        lost += STAT(dig_lost);
        heard += d.did.heard;
        ended(s);
    }
    cr_assert(lt(u64, 0, lost));
    cr_assert(lt(u64, 0, heard));
}

/* ---- many -------------------------------------------------------------------------------------
 */

Test(sim_dig_rules, a_broadcast_reaches_whoever_stays_while_others_come_and_go, .timeout = 60)
{
    struct sim *s = calm();
    struct sim_dig_link *speaker = node(0, 0, 0);
    struct sim_dig_client *guest[6];

    for (unsigned i = 1; i < 5; i++)
        (void)node(i, 0, i % 2);
    (void)node(5, 1, 0);
    for (unsigned i = 0; i < 6; i++)
        guest[i] = sim_dig_client(&d, 10 + i, i % 3 == 2);
    for (unsigned i = 0; i < 300; i++) {
        struct sim_dig_client *c = guest[sim_below(s->net, 6)];

        sim_dig_broadcast(speaker, i % 3 ? UINT64_C(1) << i % 6 : 0, 6 + i);
        if (c->at == NULL)
            sim_dig_register(sim_dig_connect(c, -1), c->id, c->net);
        else if (sim_dig_stays(c->at))
            sim_dig_bye(c->at, (enum sim_dig_bye)sim_below(s->net, 4));
        sim_run_ms(s, sim_below(s->net, 8));
    }
    settle(s, 0);
    cr_assert(lt(u64, 800, d.did.broadcasts_heard));
    cr_assert(eq(u64, STAT(dig_broadcasts), 300));
    ended(s);
}

Test(sim_dig_rules, with_shared_memory_used_up_nobody_waits_for_an_answer, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *l[6];

    for (unsigned i = 0; i < 6; i++)
        l[i] = node(i, 0, i % 2);
    d.memory = true;
    s->dig_host.shared.max = 256;
    sim_dig_get_peers(l[0], SIM_DIG_NETS);
    sim_dig_pex(l[1]);
    sim_dig_broadcast(l[2], 0, 1000);
    sim_dig_relay(l[3], 4, 1000);
    sim_dig_ping(l[2]);
    sim_run_ms(s, 500);
    cr_assert(l[0]->open + l[1]->open == 0, "who waits is closed, and comes again");
    cr_assert(sim_dig_stays(l[2]) && sim_dig_stays(l[3]) && sim_dig_stays(l[4]));
    cr_assert(eq(u64, d.did.heard, 1));
    cr_assert(eq(u64, d.did.pongs, 1));
    cr_assert(eq(u64, STAT(dig_lost), 1));
    cr_assert(eq(sz, registered(), 4));
    s->dig_host.shared.max = 1 << 20;
    sim_dig_get_peers(come(sim_dig_client(&d, 0, 0), 0, 0, 0), SIM_DIG_NETS);
    sim_dig_get_peers(l[2], SIM_DIG_NETS);
    settle(s, 1);
    sim_dig_check_quiet(&d, false);
    ended(s);
}

/* A delta for which there is no memory when it is due is told when there is. */
Test(sim_dig_rules, a_book_is_not_left_wrong_for_want_of_memory, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *l = node(0, 0, 0), *leaves = node(1, 0, 1);

    sim_dig_pex(l);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, l->book, 2));
    (void)node(4, 0, 1);
    sim_dig_bye(leaves, BYE_UNREGISTER);
    sim_run_ms(s, 100);
    s->dig_host.shared.max = 64;
    sim_run_ms(s, 150000);
    cr_assert(eq(u64, l->book, 2));
    s->dig_host.shared.max = 1 << 20;
    sim_run_ms(s, 1000);
    cr_assert(eq(u64, l->book, 16), SIM_SEED(s));
    ended(s);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

Test(sim_dig_rules, draining_says_away_to_everybody_at_a_moment_of_its_own, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_dig_link *l[12];
    uint64_t from_ms, early = 0;

    for (unsigned i = 0; i < 12; i++)
        l[i] = node(i, i % SIM_DIG_NETS, i % 2);
    s->cfg.drain_s = 8;
    d.ending = true;
    from_ms = sim_now(s);
    atomic_fetch_add(&s->control.terms, 1);
    ring_wake(s->ring[SIM_SHARDS]);
    sim_run_ms(s, 4000);
    for (unsigned i = 0; i < 12; i++)
        early += l[i]->got_close;
    cr_assert(lt(u64, 0, early), "all at once, at the end");
    cr_assert(lt(u64, early, 12), "all at once, at the beginning");
    sim_run_ms(s, 8000 - (sim_now(s) - from_ms));
    for (unsigned i = 0; i < 12; i++)
        cr_assert(l[i]->got_close && l[i]->close_code == WS_CODE_AWAY, "client %u: Close %u", i,
                  l[i]->close_code);
    ended(s);
}
