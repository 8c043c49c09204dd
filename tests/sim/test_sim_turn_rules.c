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
    if (ask.lifetime_s == 0 && ask.method != STUN_REFRESH) /* it does not say */
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

static bool lands(const struct sim *s, const struct sim_turn_client *c, int shard)
{
    return sim_udp_lands(s->net, &c->server, &c->at->at) == shard;
}

static uint32_t allocations(const struct sim *s, int shard)
{
    return s->turn_shard[shard].machine.allocs;
}

Test(sim_turn_rules, a_token_gives_the_next_port_to_the_same_user_on_whatever_shard, .timeout = 20)
{
    struct sim *s = calm();
    struct sim_turn_client *a = sim_turn_client(&t, 0, 0), *other, *b;
    struct sim_turn_ask by_token = { .method = STUN_ALLOCATE, .has_token = true };

    cr_assert(eq(
        int,
        answer(a, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .even = true, .reserve = true },
               NULL),
        TURN_OK));
    cr_assert(a->got_token);
    cr_assert(eq(uint, turn_ports_used(s->turn_host.ports[TURN_V4]), 2));
    memcpy(by_token.token, a->token, TURN_TOKEN);
    other = sim_turn_client(&t, 1, 1); /* whose it is not */
    cr_assert(eq(int, answer(other, by_token, NULL), 508));
    b = sim_turn_client(&t, 0, 1);
    cr_assert(lands(s, b, 1));
    cr_assert(eq(int, answer(b, by_token, NULL), TURN_OK));
    cr_assert(eq(uint, b->life->relayed[TURN_V4].port, a->life->relayed[TURN_V4].port + 1));
    cr_assert(eq(uint, allocations(s, 0), 2)); /* where the port was reserved */
    cr_assert(eq(int, answer(sim_turn_client(&t, 0, 0), by_token, NULL), 508));
    ended(s);
}

Test(sim_turn_rules, a_token_is_worth_nothing_after_thirty_seconds_and_its_port_is_back,
     .timeout = 20)
{
    struct sim *s = calm();
    struct sim_turn_client *a = sim_turn_client(&t, 0, 0);
    struct sim_turn_ask by_token = { .method = STUN_ALLOCATE, .has_token = true };

    answer(a, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .even = true, .reserve = true },
           NULL);
    memcpy(by_token.token, a->token, TURN_TOKEN);
    sim_run_ms(s, TURN_RESERVED_MS - 1000);
    cr_assert(eq(uint, turn_ports_used(s->turn_host.ports[TURN_V4]), 2), SIM_SEED(s));
    sim_run_ms(s, 1100);
    cr_assert(eq(uint, turn_ports_used(s->turn_host.ports[TURN_V4]), 1), SIM_SEED(s));
    cr_assert(eq(int, answer(sim_turn_client(&t, 0, 1), by_token, NULL), 508));
    ended(s);
}

static void moves_to(int shard)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = sim_turn_client(&t, 0, 0);
    struct sim_turn_ask move = { .method = STUN_REFRESH, .lifetime_s = -1, .resume = true };
    uint64_t got;

    t.peer[peer].echo_pct = 100;
    cr_assert(eq(int,
                 answer(c, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .mobile = true }, NULL),
                 TURN_OK));
    bound(c, peer, 0x4001);
    cr_assert(eq(int, answer(c, move, sim_turn_end(c, shard)), TURN_OK));
    cr_assert(lands(s, c, shard));
    cr_assert(eq(uint, allocations(s, 0), 1)); /* it stays where it was born */
    sim_turn_send(c, peer, BY_CHANNEL, 30, 500, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 30), SIM_SEED(s));
    got = c->channel_data;
    cr_assert(lt(u64, 29, got));
    cr_assert(eq(int, answer(c, move, sim_turn_end(c, 0)), TURN_OK)); /* and back */
    sim_turn_send(c, peer, BY_SEND, 10, 500, 500);
    sim_turn_peer_send(&t, peer, c->life, 10, 100, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 40), SIM_SEED(s));
    cr_assert(lt(u64, got + 19, c->channel_data));
    ended(s);
}

Test(sim_turn_rules, a_client_moves_on_its_shard_and_back, .timeout = 20)
{
    moves_to(0);
}

Test(sim_turn_rules, a_client_moves_to_another_shard_and_back, .timeout = 20)
{
    moves_to(1);
}

Test(sim_turn_rules, permissions_and_channels_and_allocations_end_to_the_second, .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0);
    uint64_t t0, got;

    bound(c, peer, 0x4001);
    t0 = sim_now(s);
    sim_run_ms(s, t0 + TURN_PERMISSION_MS - 1500 - sim_now(s));
    sim_turn_send(c, peer, BY_CHANNEL, 1, 100, 100);
    sim_turn_peer_send(&t, peer, c->life, 1, 100, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 1), SIM_SEED(s));
    cr_assert(eq(u64, c->channel_data, 1));
    sim_run_ms(s, 2500);
    sim_turn_send(c, peer, BY_CHANNEL, 1, 100, 100); /* the channel is there, nothing may pass */
    sim_turn_peer_send(&t, peer, c->life, 1, 100, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 1), SIM_SEED(s));
    cr_assert(eq(u64, c->channel_data, 1));
    cr_assert(eq(uint, s->turn_shard[0].machine.chans, 1));
    permitted(c, peer);
    sim_turn_send(c, peer, BY_CHANNEL, 1, 100, 100); /* again, until the channel ends */
    sim_run_ms(s, 100);
    got = t.peer[peer].got;
    cr_assert(eq(u64, got, 2), SIM_SEED(s));
    cr_assert(eq(int,
                 answer(c, (struct sim_turn_ask){ .method = STUN_REFRESH, .lifetime_s = -1 }, NULL),
                 TURN_OK));
    sim_run_ms(s, t0 + TURN_CHANNEL_MS + 1000 - sim_now(s));
    cr_assert(eq(uint, s->turn_shard[0].machine.chans, 0), SIM_SEED(s));
    cr_assert(eq(uint, allocations(s, 0), 1));
    sim_run_ms(s, TURN_LIFETIME_MS);
    cr_assert(eq(uint, allocations(s, 0), 0), SIM_SEED(s));
    cr_assert(eq(uint, turn_ports_used(s->turn_host.ports[TURN_V4]), 0));
    ended(s);
}

Test(sim_turn_rules, a_train_of_several_channels_is_cut_where_the_peer_changes, .timeout = 20)
{
    struct sim *s = calm();
    unsigned one = sim_turn_peer(&t, 1, 7000, false), two = sim_turn_peer(&t, 2, 7000, false);
    struct sim_turn_client *c = allocated(1, 0);

    bound(c, one, 0x4001);
    bound(c, two, 0x4002);
    for (unsigned i = 0; i < 40; i++)
        sim_turn_send(c, i % 3 == 0 ? one : two, BY_CHANNEL, 1, 200, 200);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[one].got, 14), SIM_SEED(s));
    cr_assert(eq(u64, t.peer[two].got, 26), SIM_SEED(s));
    ended(s);
}

Test(sim_turn_rules, one_client_is_told_that_its_peer_is_gone_and_hears_of_no_other, .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0), *other = allocated(0, 1);

    permitted(c, peer);
    permitted(other, peer);
    sim_turn_peer_open(&t, peer, false);
    sim_run_ms(s, 1000);
    sim_turn_send(c, peer, BY_SEND, 5, 100, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, c->icmp, 1), SIM_SEED(s)); /* at a limited rate */
    cr_assert(eq(u64, other->icmp, 0));
    sim_turn_check_sure(&t);
    for (unsigned i = 0; i < t.lives_n; i++)
        t.lives[i]->link[peer].out_sure = 0; /* nobody was there */
    s->broken[0] = '\0';
    sim_turn_peer_open(&t, peer, true);
    ended(s);
}

Test(sim_turn_rules, quotas_are_exact_across_shards, .timeout = 20)
{
    struct sim_turn_client *c[4];
    struct sim *s;

    sim_turn_config(&cfg, 64);
    cfg.turn_max_per_user = 3;
    s = calm();
    for (int i = 0; i < 4; i++)
        c[i] = sim_turn_client(&t, 0, i % 2);
    for (int i = 0; i < 4; i++)
        cr_assert(eq(int, answer(c[i], (struct sim_turn_ask){ .method = STUN_ALLOCATE }, NULL),
                     i < 3 ? TURN_OK : 486));
    cr_assert(
        eq(int, answer(c[0], (struct sim_turn_ask){ .method = STUN_REFRESH }, NULL), TURN_OK));
    cr_assert(c[0]->life == NULL);
    cr_assert(
        eq(int, answer(c[3], (struct sim_turn_ask){ .method = STUN_ALLOCATE }, NULL), TURN_OK));
    ended(s);
}

Test(sim_turn_rules, where_trains_are_refused_everything_goes_alone, .timeout = 20)
{
    static const struct sim_opts no_trains = { .udp_eio_pct = 100 };
    unsigned peer;
    struct sim_turn_client *c;
    struct sim *s;

    sim_turn_config(&cfg, 64);
    s = sim_new(1, no_trains, &cfg);
    sim_turn_init(&t, s, &no_trains);
    peer = sim_turn_peer(&t, 1, 7000, false);
    t.peer[peer].echo_pct = 100;
    c = allocated(0, 0);
    bound(c, peer, 0x4001);
    for (int i = 0; i < 20; i++) {
        sim_turn_send(c, peer, BY_CHANNEL, 30, 600, 600);
        sim_run_ms(s, 20);
    }
    cr_assert(eq(u64, t.peer[peer].got, 600), SIM_SEED(s));
    cr_assert(eq(u64, sim_net_counts(s->net)->udp_trains_out, 0));
    cr_assert(lt(u64, sim_net_counts(s->net)->udp_eio, 20)); /* it has learned */
    ended(s);
}

Test(sim_turn_rules, draining_refuses_who_is_new_and_serves_who_is_there, .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0);

    permitted(c, peer);
    s->cfg.drain_s = 60;
    atomic_fetch_add(&s->control.terms, 1);
    ring_wake(s->ring[SIM_SHARDS]);
    sim_run_ms(s, 1000);
    cr_assert(eq(
        int,
        answer(sim_turn_client(&t, 0, 1), (struct sim_turn_ask){ .method = STUN_ALLOCATE }, NULL),
        403));
    sim_turn_send(c, peer, BY_SEND, 3, 100, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 3), SIM_SEED(s));
    cr_assert(eq(int,
                 answer(c, (struct sim_turn_ask){ .method = STUN_REFRESH, .lifetime_s = -1 }, NULL),
                 TURN_OK));
    ended(s);
}

/* An Allocate with a token, from 5-tuples of shard 1: it is handed to the shard that the token
 * names, whoever asks. */
Test(sim_turn_rules, who_brings_a_token_that_he_has_seen_pushes_out_nobody_who_has_moved,
     .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *a = sim_turn_client(&t, 0, 0), *moved = sim_turn_client(&t, 0, 0),
                           *thief = sim_turn_client(&t, 1, 1);
    struct sim_turn_ask move = { .method = STUN_REFRESH, .lifetime_s = -1, .resume = true };
    struct sim_turn_ask by_token = { .method = STUN_ALLOCATE, .has_token = true };

    answer(moved, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .mobile = true }, NULL);
    bound(moved, peer, 0x4001);
    cr_assert(eq(int, answer(moved, move, sim_turn_end(moved, 1)), TURN_OK));
    answer(a, (struct sim_turn_ask){ .method = STUN_ALLOCATE, .even = true, .reserve = true },
           NULL);
    memcpy(by_token.token, a->token, TURN_TOKEN);
    for (unsigned i = 0; i < 2 * TURN_AWAY_NEW_MAX; i++)
        cr_assert(eq(int, answer(thief, by_token, sim_turn_end(thief, 1)), 508));
    sim_turn_send(moved, peer, BY_CHANNEL, 10, 100, 100);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, t.peer[peer].got, 10), SIM_SEED(s));
    ended(s);
}

Test(sim_turn_rules, what_stands_behind_the_end_in_one_train_is_not_carried, .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0);
    struct sim_turn_ask end = { .method = STUN_REFRESH, .lifetime_s = 1 };
    size_t same;

    bound(c, peer, 0x4001);
    cr_assert(eq(int, answer(c, end, NULL), TURN_OK));
    same = c->request_n - CHAN_HEADER; /* so that it is all one train */
    end.lifetime_s = 0;
    sim_turn_send(c, peer, BY_CHANNEL, 3, same, same);
    sim_turn_do(c, &end, NULL);
    sim_turn_send(c, peer, BY_CHANNEL, 3, same, same);
    sim_run_ms(s, 100);
    cr_assert(eq(int, c->code, TURN_OK));
    cr_assert(eq(u64, t.peer[peer].got, 3), SIM_SEED(s));
    cr_assert(eq(u64, STAT_GET(&s->shard[0].stats, turn_train_in), 1));
    ended(s);
}

Test(sim_turn_rules, two_clients_are_each_others_peers_through_their_relayed_addresses,
     .timeout = 20)
{
    struct sim *s = calm();
    struct sim_turn_client *a = allocated(0, 0), *b = allocated(1, 1);
    const struct netaddr at[2] = { a->life->relayed[TURN_V4], b->life->relayed[TURN_V4] };

    /* As peers they have no socket of their own: what one sends arrives at the other. */
    for (int i = 0; i < 2; i++)
        t.peer[t.peers_n++] = (struct sim_turn_peer){ .ep = -1, .at = at[i] };
    permitted(a, 1);
    bound(b, 0, 0x4001);
    sim_turn_send(a, 1, BY_SEND, 20, 300, 300);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, b->channel_data, 20), SIM_SEED(s));
    sim_turn_send(b, 0, BY_CHANNEL, 20, 300, 300);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, a->indications, 20), SIM_SEED(s));
    ended(s);
}

/* Datagrams that no train can take together: each longer than the one before. */
static void burst(unsigned peer, struct sim_turn_life *l, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        sim_turn_peer_send(&t, peer, l, 1, 0, 100 + i % 2 * 100 + i / 2);
}

Test(sim_turn_rules, more_than_one_pass_may_read_is_read_by_the_next, .timeout = 20)
{
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0);

    permitted(c, peer);
    burst(peer, c->life, 8 * TURN_READS_MAX);
    sim_run_ms(s, 100);
    cr_assert(eq(u64, c->indications, 8 * TURN_READS_MAX), SIM_SEED(s));
    ended(s);
}

Test(sim_turn_rules, more_sockets_than_there_are_slots_are_read_in_one_pass, .timeout = 20)
{
    enum { N = 8 };
    struct sim *s = calm();
    struct sim_turn_client *c[N];
    unsigned peer[N];

    for (unsigned i = 0; i < N; i++) {
        peer[i] = sim_turn_peer(&t, 1 + i, 7000, false);
        c[i] = allocated(0, i % SIM_TURN_USERS);
        bound(c[i], peer[i], 0x4001);
    }
    for (unsigned i = 0; i < N; i++)
        burst(peer[i], c[i]->life, 3 * TURN_READS_MAX);
    sim_run_ms(s, 100);
    for (unsigned i = 0; i < N; i++)
        cr_assert(eq(u64, c[i]->channel_data, 3 * TURN_READS_MAX), SIM_SEED(s));
    ended(s);
}

/* By receives alone the longer trains would have twice the share: of what a client sends and its
 * peer returns in shorter ones, half would be lost on its way back, when its way there is paid. */
Test(sim_turn_rules, long_trains_one_way_leave_short_ones_the_other_way_as_much, .timeout = 20)
{
    enum { LONG = 64, SHORT = 32, ALL = 4096 };
    struct sim *s = calm();
    unsigned peer = sim_turn_peer(&t, 1, 7000, false);
    struct sim_turn_client *c = allocated(0, 0);
    const struct stats *st = &s->shard[0].stats;
    uint64_t there, back = 0;

    bound(c, peer, 0x4001);
    for (unsigned i = 0; i < ALL / LONG; i++)
        sim_turn_send(c, peer, BY_CHANNEL, LONG, 100, 60);
    for (unsigned i = 0; i < ALL / SHORT; i++)
        sim_turn_peer_send(&t, peer, c->life, SHORT, 100, 60);
    while (back < ALL) {
        cr_assert(sim_step(s), SIM_SEED(s));
        there = STAT_GET(st, turn_peer_tx);
        back = STAT_GET(st, turn_client_tx);
        cr_assert(le(u64, there, back + TURN_SHARE + LONG), SIM_SEED(s));
        cr_assert(le(u64, back, there + TURN_SHARE + LONG), SIM_SEED(s));
    }
    cr_assert(lt(u64, 2 * ALL / LONG - 1, STAT_GET(st, turn_train_in)), SIM_SEED(s));
    ended(s);
}
