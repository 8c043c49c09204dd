/* tests/sim/test_sim_turn_hostile.c: the engine's TURN server under more than it can carry. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/sim/sim_turn.h"

static const struct sim_opts fair;
static struct sim_turn t;
static struct config cfg;

static struct sim *calm(void)
{
    struct sim *s;

    if (cfg.turn_n == 0)
        sim_turn_config(&cfg, 64);
    s = sim_new(1, fair, &cfg);
    sim_turn_init(&t, s, &fair);
    return s;
}

static void ended(struct sim *s)
{
    sim_run_ms(s, 2 * SIM_TURN_SLACK_MS);
    SIM_OK(s);
    sim_end(s);
    SIM_OK(s);
    sim_turn_fini(&t);
    sim_free(s);
}

static int answer(struct sim_turn_client *c, struct sim_turn_ask ask)
{
    if (ask.lifetime_s == 0 && ask.method != STUN_REFRESH)
        ask.lifetime_s = -1;
    sim_turn_do(c, &ask, NULL);
    SIM_UNTIL(c->t->s, !sim_turn_asking(c), 60000);
    return c->code;
}

static struct sim_turn_client *ready(int shard, unsigned peer)
{
    struct sim_turn_client *c = sim_turn_client(&t, 0, shard);

    cr_assert(eq(int, answer(c, (struct sim_turn_ask){ .method = STUN_ALLOCATE }), TURN_OK));
    cr_assert(eq(int,
                 answer(c, (struct sim_turn_ask){ .method = STUN_CREATE_PERMISSION,
                                                  .peer = { peer },
                                                  .peers_n = 1 }),
                 TURN_OK));
    return c;
}

static uint64_t received(const struct sim *s)
{
    const struct stats *st = &s->shard[0].stats;

    return STAT_GET(st, turn_peer_rx) + STAT_GET(st, turn_client_rx);
}

/* Else as many hot sockets as there are would keep the shard's other doors waiting. */
Test(sim_turn_hostile, one_pass_does_so_much_and_the_rest_comes_next, .timeout = 60)
{
    enum { HOT = 20, TRAINS = 16, SENT = HOT * TRAINS * 64 };
    const uint64_t most = TURN_PASS_WORK + RING_DGRAMS_MAX * TRAIN_SEGMENTS_MAX;
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c[HOT];
    uint64_t before, last, least = UINT64_MAX, begun;

    for (unsigned i = 0; i < HOT; i++)
        c[i] = ready(0, peer);
    begun = before = received(s);
    for (unsigned k = 0; k < TRAINS; k++)
        for (unsigned i = 0; i < HOT; i++)
            sim_turn_peer_send(&t, peer, c[i]->life, 64, 100, 100);
    for (unsigned steps = 0; received(s) - begun < SENT && steps < 1000; steps++) {
        sim_net_alarm(s->net, sim_now(s) + 1);
        cr_assert(sim_step(s), SIM_SEED(s));
        last = received(s) - before;
        before += last;
        cr_assert(le(u64, last, most), "a turn took %llu", (unsigned long long)last);
    }
    cr_expect(eq(u64, received(s) - begun, SENT), "all of it comes in the end");
    for (unsigned i = 0; i < HOT; i++)
        least = min_u64(least, c[i]->indications);
    cr_expect(lt(u64, 0, least));
    ended(s);
}

/* A client whose allocation lives on the other shard: what he sends too fast is dropped, before it
 * takes the memory of the shard where it arrives. */
Test(sim_turn_hostile, letters_take_their_part_of_the_pool, .timeout = 60)
{
    sim_turn_config(&cfg, 64);
    cfg.buffer_bytes_max = 8 << 20;

    struct sim *s = calm();
    const uint32_t part = s->shard[1].chunks.max[CHUNK_SMALL] / 8;
    uint32_t most = 0;
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = sim_turn_client(&t, 0, 0);
    struct sim_turn_ask resume = { .method = STUN_REFRESH, .resume = true, .lifetime_s = 600 };

    cr_assert(eq(int, answer(c, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .mobile = true }),
                 TURN_OK));
    sim_turn_do(c, &resume, sim_turn_end(c, 1));
    SIM_UNTIL(s, !sim_turn_asking(c), 60000);
    cr_assert(eq(int, c->code, TURN_OK));
    cr_assert(eq(int,
                 answer(c, (struct sim_turn_ask){ .method = STUN_CREATE_PERMISSION,
                                                  .peer = { peer },
                                                  .peers_n = 1 }),
                 TURN_OK));
    sim_turn_check_sure(&t);
    c->quiet = true; /* sure of nothing from now on */
    for (unsigned i = 0; i < 100; i++)
        sim_turn_send(c, peer, BY_SEND, 64, 100, 100);
    for (unsigned steps = 0; steps < 200; steps++) {
        sim_net_alarm(s->net, sim_now(s) + 1);
        cr_assert(sim_step(s), SIM_SEED(s));
        most = s->shard[1].chunks.used[CHUNK_SMALL] > most ? s->shard[1].chunks.used[CHUNK_SMALL]
                                                           : most;
    }
    cr_expect(le(u32, most, part));
    cr_expect(lt(u64, 0, STAT_GET(&s->shard[1].stats, turn_drop_mail)));
    cr_expect(lt(u64, part, t.peer[peer].got));
    ended(s);
}

/* A receive brings thousands of units; a score of streams would have the shard for itself. */
Test(sim_turn_hostile, streams_have_their_part_of_a_turn_too, .timeout = 60)
{
    enum { STREAMS = 24, BYTES = 60000, UNITS = BYTES / STUN_HEADER };
    static uint8_t units[UNITS * STUN_HEADER];
    const uint64_t most = 2 * (1024 + 1);
    struct sim *s = calm();
    const struct stats *st = &s->shard[0].stats;
    struct sim_turn_client *c[STREAMS];
    uint64_t before = 0, last, all = 0;
    struct stun_build b;
    struct bytes m;

    for (unsigned i = 0; i < UNITS; i++) { /* Send, from who has no allocation */
        stun_begin(&b, units + i * STUN_HEADER, STUN_HEADER, stun_type(STUN_SEND, STUN_INDICATION),
                   (const uint8_t[STUN_ID]){ 0x21, 0x12, 0xa4, 0x42 });
        cr_assert(stun_end(&b, &m));
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        c[i] = sim_turn_client(&t, 0, -1);
        sim_turn_end_close(c[i]->at);
        c[i]->tcp = true;
        c[i]->at = sim_turn_end(c[i], 0);
    }
    sim_run_ms(s, 100);
    for (unsigned i = 0; i < STREAMS; i++)
        all += sim_turn_emit_raw(c[i]->at, units, sizeof(units)) / STUN_HEADER;
    cr_assert(lt(u64, 10 * most, all));
    for (unsigned steps = 0; before < all && steps < 2000; steps++) {
        sim_net_alarm(s->net, sim_now(s) + 1);
        cr_assert(sim_step(s), SIM_SEED(s));
        last = STAT_GET(st, turn_drop_allocation) - before;
        before += last;
        cr_assert(le(u64, last, most), "a turn took %llu", (unsigned long long)last);
    }
    cr_expect(eq(u64, before, all), "all of it comes in the end");
    ended(s);
}

Test(sim_turn_hostile, a_crowd_of_allocates_is_served_in_parts, .timeout = 60)
{
    struct sim *s = calm();
    const struct sim_turn_ask ask = { .method = STUN_ALLOCATE, .lifetime_s = -1 };
    struct sim_turn_client *c[SIM_TURN_CLIENTS];
    uint32_t before = 0, most = 0;

    for (unsigned i = 0; i < SIM_TURN_CLIENTS; i++) {
        c[i] = sim_turn_client(&t, i % SIM_TURN_USERS, 0);
        cr_assert(eq(int, answer(c[i], (struct sim_turn_ask){ .method = STUN_REFRESH }), 437),
                  "it has a nonce now");
    }
    for (unsigned i = 0; i < SIM_TURN_CLIENTS; i++)
        sim_turn_do(c[i], &ask, NULL);
    for (unsigned steps = 0; before < SIM_TURN_CLIENTS && steps < 100; steps++) {
        sim_net_alarm(s->net, sim_now(s) + 1);
        cr_assert(sim_step(s), SIM_SEED(s));
        uint32_t now = s->turn_shard[0].machine.allocs;

        most = now - before > most ? now - before : most;
        before = now;
    }
    cr_expect(eq(u32, before, SIM_TURN_CLIENTS));
    cr_expect(le(u32, most, TURN_PASS_WORK / 256 + RING_DGRAMS_MAX - 1));
    ended(s);
}

/* What is not confirmed may be pushed out by anybody who has a nonce. */
Test(sim_turn_hostile, a_move_is_confirmed_though_the_word_of_it_was_lost, .timeout = 60)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = sim_turn_client(&t, 0, 0);
    struct sim_turn_ask move = { .method = STUN_REFRESH, .resume = true, .lifetime_s = 600 };
    struct turn_tuple other = { .client = { .ip = { [10] = 0xff, [11] = 0xff, 9 } },
                                .server = c->server };
    struct chunk_pool *pool = &s->shard[0].chunks;
    uint32_t max = pool->max[CHUNK_SMALL];

    cr_assert(eq(int, answer(c, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .mobile = true }),
                 TURN_OK));
    pool->max[CHUNK_SMALL] = 0; /* no letter leaves the shard where it lives */
    sim_turn_do(c, &move, sim_turn_end(c, 1));
    SIM_UNTIL(s, !sim_turn_asking(c), 60000);
    cr_assert(eq(int, c->code, TURN_OK));
    pool->max[CHUNK_SMALL] = max;
    cr_assert(eq(int,
                 answer(c, (struct sim_turn_ask){ .method = STUN_CREATE_PERMISSION,
                                                  .peer = { peer },
                                                  .peers_n = 1 }),
                 TURN_OK));
    sim_run_ms(s, 100);
    for (unsigned i = 0; i < 2 * TURN_AWAY_NEW_MAX; i++) {
        other.client.port = (uint16_t)(1000 + i);
        turn_away_put(&s->turn_shard[1], &other, 0);
    }
    sim_turn_send(c, peer, BY_SEND, 4, 100, 100);
    sim_run_ms(s, 100);
    cr_expect(eq(u64, t.peer[peer].got, 4), SIM_SEED(s));
    ended(s);
}
