/* tests/sim/test_sim_turn_rules.c: the engine's TURN server and a few clients, by hand. */
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
    sim_turn_check_sure(&t);
    SIM_OK(s);
    sim_end(s);
    SIM_OK(s);
    sim_turn_fini(&t);
    sim_free(s);
}

static int answer(struct sim_turn_client *c, struct sim_turn_ask ask, struct sim_turn_end *at)
{
    if (ask.lifetime_s == 0 && ask.method != STUN_REFRESH)
        ask.lifetime_s = -1;
    sim_turn_do(c, &ask, at);
    SIM_UNTIL(c->t->s, !sim_turn_asking(c), 60000);
    return c->code;
}

static struct sim_turn_client *allocated(int shard, unsigned user)
{
    struct sim_turn_client *c = sim_turn_client(&t, user, shard);

    cr_assert(eq(int, answer(c, (struct sim_turn_ask){ .method = STUN_ALLOCATE }, NULL), TURN_OK));
    return c;
}

static void permitted(struct sim_turn_client *c, unsigned peer)
{
    cr_assert(eq(int,
                 answer(c,
                        (struct sim_turn_ask){
                            .method = STUN_CREATE_PERMISSION, .peer = { peer }, .peers_n = 1 },
                        NULL),
                 TURN_OK));
}

static void bound(struct sim_turn_client *c, unsigned peer, uint16_t number)
{
    cr_assert(eq(
        int,
        answer(c,
               (struct sim_turn_ask){
                   .method = STUN_CHANNEL_BIND, .peer = { peer }, .peers_n = 1, .number = number },
               NULL),
        TURN_OK));
}

Test(sim_turn_rules, trains_and_singles_go_both_ways_by_send_and_by_channel, .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0);

    t.peer[peer].echo_pct = 100;
    permitted(c, peer);
    sim_turn_send(c, peer, BY_SEND, 20, 100, 50);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 20), SIM_SEED(s));
    cr_assert(lt(u64, 19, c->indications));
    bound(c, peer, 0x4001);
    sim_turn_send(c, peer, BY_CHANNEL, 64, 1200, 40);
    sim_turn_send(c, peer, BY_CHANNEL, 1, 0, 0);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 85), SIM_SEED(s));
    cr_assert(eq(u64, t.peer[peer].empty, 1));
    cr_assert(lt(u64, 63, c->channel_data));
    cr_assert(lt(u64, 0, sim_net_counts(s->net)->udp_trains_out));
    ended(s);
}
