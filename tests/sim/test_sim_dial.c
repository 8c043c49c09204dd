/* Connections that the relay makes to its peer relays (engine/dial.h; dusk.md §10.4, §14). */
#include <errno.h>
#include <stdio.h>

#include "proto/ident.h"
#include "tests/sim/sim_script.h"

enum { FAR = 9, RELAYS_PORT = 4001 };

/* Where the n-th of them listens. */
static struct netaddr far_at(unsigned n)
{
    struct netaddr a = sim_host(200, 1 + n);

    a.port = RELAYS_PORT;
    return a;
}

/* The identity that sim_peer.c will give `ident` in a simulation of this seed. */
static void id_of(uint64_t seed, unsigned ident, struct peer_id *out)
{
    struct identity me;
    uint8_t key[32] = { 0 };

    put_u64(key, seed);
    put_u32(key + 8, ident + 1);
    identity_from_seed(key, &me);
    *out = me.id;
}

/* One that names far_at(n), and whom it expects there. */
static void name_relay(struct config *cfg, unsigned n, const struct peer_id *id)
{
    struct netaddr at = far_at(n);

    maddr_from_tcp(&at, &cfg->peer_relay[n]);
    if (id != NULL)
        cr_assert(maddr_append_p2p(&cfg->peer_relay[n], id));
    cfg->peer_relays_n = n + 1;
}

static struct config cfg;

static struct sim *with_relay(const struct peer_id *id)
{
    sim_config(&cfg, "dusk");
    name_relay(&cfg, 0, id);
    return calm(&cfg);
}

static uint64_t dials(const struct sim *s)
{
    return STAT_GET(&s->shard[0].stats, dials) + STAT_GET(&s->shard[1].stats, dials);
}

/* The next that the relay dials, an endpoint; fails when it does not come within ms. */
static int called(struct sim *s, int door, uint64_t ms)
{
    uint64_t end_ms = sim_now(s) + ms;
    struct netaddr from;
    int ep;

    while ((ep = sim_far_accept(s->net, door, &from)) < 0) {
        cr_assert(lt(u64, sim_now(s), end_ms), "seed %llu: nobody calls",
                  (unsigned long long)s->seed);
        sim_net_alarm(s->net, end_ms);
        sim_step(s);
        SIM_OK(s);
    }
    return ep;
}

static struct sim_conn *answered(struct sim *s, int door, unsigned ident, bool plain, uint64_t ms)
{
    return sim_answer(s, ident, called(s, door, ms), plain);
}

static void up(struct sim_conn *c)
{
    SIM_UNTIL(c->s, c->state >= SC_UP, 5000);
    cr_assert(eq(int, c->state, SC_UP), SIM_SEED(c->s));
}

/* It serves there like anywhere: ping, a reservation, a circuit to it. */
static void serves(struct sim_conn *c)
{
    struct sim *s = c->s;
    uint8_t block[PING_BYTES] = { 7 };
    struct sim_stream *ping = sim_open(c, PING_PROTOCOL, SS_PING, bytes_of(block, sizeof(block)));
    struct sim_stream *source;

    cr_assert(ping != NULL);
    cr_assert(eq(u32, ping->y.id % 2, 0), "the relay has the odd ids: it is the client");
    SIM_UNTIL(s, ping->pongs == PING_BYTES, 5000);
    reserved(c);
    struct sim_conn *other = client(s, OTHER, 1);

    cr_assert(eq(int, connect_status(other, c->ident_idx, &source), HOP_OK));
    struct sim_stream *stop = sim_newest(c, SS_STOP);

    cr_assert(stop != NULL);
    cr_assert(eq(u32, stop->y.id % 2, 1));
    sim_flow_start(source, 100000, 16384, true);
    sim_flow_start(stop, 100000, 16384, true);
    SIM_UNTIL(s, sim_flows_settled(s), 20000);
}

Test(sim_dial, a_named_relay_is_dialled_and_served, .timeout = 20)
{
    for (int plain = 0; plain < 2; plain++) { /* with early muxer negotiation, and without */
        struct sim *s = with_relay(NULL);
        struct netaddr at = far_at(0);
        struct sim_conn *c = answered(s, sim_far_listen(s->net, &at), FAR, plain, 1000);

        up(c);
        SIM_UNTIL(s, dial_connected(&s->dial) == 1, 1000);
        serves(c);
        cr_expect(eq(u64, dials(s), 1));
        ended(s);
    }
}

Test(sim_dial, it_stays_without_a_stream_and_comes_again_when_it_is_lost, .timeout = 20)
{
    struct sim *s = with_relay(NULL);
    struct netaddr at = far_at(0);
    int door = sim_far_listen(s->net, &at);
    struct sim_conn *c = answered(s, door, FAR, false, 1000);

    up(c);
    sim_run_ms(s, 3600000); /* ten times the time after which an idle client goes */
    SIM_OK(s);
    cr_assert(eq(int, c->state, SC_UP));
    uint64_t lost_ms = sim_now(s);

    sim_hang_up(c, HANG_RST);
    c = answered(s, door, FAR, false, REDIAL_FIRST_MS + 500);
    cr_expect(le(u64, lost_ms + REDIAL_FIRST_MS * 3 / 4, sim_now(s)));
    up(c);
    cr_expect(eq(u64, dials(s), 2));
    ended(s);
}

Test(sim_dial, who_refuses_is_dialled_more_and_more_rarely, .timeout = 20)
{
    struct sim *s = with_relay(NULL); /* nobody listens */

    sim_run_ms(s, 3600000);
    SIM_OK(s);
    /* 2 + 4 + ... + 64 s: seven; then each 90 to 120 s. */
    cr_expect(ge(u64, dials(s), 7 + 29));
    cr_expect(le(u64, dials(s), 7 + 41));
    cr_expect(eq(u32, dial_connected(&s->dial), 0));
    ended(s);
}

Test(sim_dial, who_accepts_and_hangs_up_is_not_dialled_every_two_seconds, .timeout = 20)
{
    struct sim *s = with_relay(NULL);
    struct netaddr at = far_at(0);
    int door = sim_far_listen(s->net, &at);
    uint64_t end_ms = sim_now(s) + 600000;

    while (sim_now(s) < end_ms) {
        struct sim_conn *c = answered(s, door, FAR, false, REDIAL_MAX_MS + 1000);

        up(c);
        sim_hang_up(c, HANG_FIN);
    }
    cr_expect(le(u64, dials(s), 14), "%llu dials in ten minutes", (unsigned long long)dials(s));
    ended(s);
}

Test(sim_dial, who_says_nothing_is_given_up_after_10_s, .timeout = 20)
{
    struct sim *s = with_relay(NULL);
    struct netaddr at = far_at(0);
    int door = sim_far_listen(s->net, &at);
    struct sim_conn *c = answered(s, door, FAR, false, 1000);
    uint64_t from_ms = sim_now(s);

    c->mute = true;
    SIM_UNTIL(s, s->shard[0].conns.live == 0, REDIAL_DEADLINE_MS + 1000);
    cr_expect(le(u64, from_ms + REDIAL_DEADLINE_MS - 100, sim_now(s)));
    sim_hang_up(c, HANG_FIN);
    up(answered(s, door, FAR, false, REDIAL_FIRST_MS + 500));
    ended(s);
}

Test(sim_dial, ourselves_are_not_dialled_twice, .timeout = 20)
{
    struct sim *s = with_relay(NULL);
    struct netaddr at = far_at(0);
    struct sim_conn *c = answered(s, sim_far_listen(s->net, &at), SIM_RELAY, false, 1000);

    SIM_UNTIL(s, c->state == SC_CLOSED, 5000);
    sim_run_ms(s, 3600000);
    SIM_OK(s);
    cr_expect(eq(u64, dials(s), 1));
    cr_expect(eq(u32, dial_connected(&s->dial), 0));
    ended(s);
}

Test(sim_dial, our_own_id_is_never_dialled, .timeout = 20)
{
    struct identity me;
    uint8_t seed[32] = { 0 };

    put_u64(seed, 1);
    identity_from_seed(seed, &me);
    struct sim *s = with_relay(&me.id);

    sim_run_ms(s, 600000);
    SIM_OK(s);
    cr_expect(eq(u64, dials(s), 0));
    ended(s);
}

Test(sim_dial, somebody_else_at_that_address_will_not_do, .timeout = 20)
{
    struct peer_id wanted;

    id_of(1, FAR, &wanted);
    struct sim *s = with_relay(&wanted);
    struct netaddr at = far_at(0);
    int door = sim_far_listen(s->net, &at);
    struct sim_conn *c = answered(s, door, FAR + 1, false, 1000);

    SIM_UNTIL(s, c->state == SC_CLOSED, 5000);
    cr_expect(eq(u32, dial_connected(&s->dial), 0));
    up(answered(s, door, FAR, false, REDIAL_FIRST_MS + 500));
    SIM_UNTIL(s, dial_connected(&s->dial) == 1, 1000);
    ended(s);
}

Test(sim_dial, who_has_come_by_itself_counts_as_present, .timeout = 20)
{
    struct peer_id wanted;

    id_of(1, FAR, &wanted);
    struct sim *s = with_relay(&wanted);
    struct netaddr at = far_at(0);
    struct sim_conn *c = client(s, FAR, 1); /* before anybody listens there */
    int door = sim_far_listen(s->net, &at);
    uint64_t before;

    SIM_UNTIL(s, dial_connected(&s->dial) == 1, REDIAL_MAX_MS);
    before = dials(s);
    sim_run_ms(s, 3600000); /* without a stream, too: it is named */
    SIM_OK(s);
    cr_assert(eq(int, c->state, SC_UP));
    cr_expect(eq(u64, dials(s), before));
    sim_hang_up(c, HANG_FIN);
    c = answered(s, door, FAR, false, REDIAL_LOOK_MS + REDIAL_FIRST_MS * 2 + 500);
    up(c);
    cr_expect(eq(u32, dial_connected(&s->dial), 1));
    ended(s);
}

Test(sim_dial, who_comes_while_we_call_is_enough, .timeout = 20)
{
    struct sim *s = with_relay(NULL);
    struct netaddr at = far_at(0);
    struct sim_conn *ours = answered(s, sim_far_listen(s->net, &at), FAR, false, 1000);

    ours->mute = true; /* until theirs is up */
    struct sim_conn *theirs = client(s, FAR, 1);

    ours->mute = false;
    SIM_UNTIL(s, ours->state == SC_CLOSED, 2000);
    sim_run_ms(s, 60000);
    SIM_OK(s);
    cr_expect(eq(int, theirs->state, SC_UP));
    cr_expect(eq(u32, dial_connected(&s->dial), 1));
    cr_expect(eq(u64, dials(s), 1));
    ended(s);
}

/* The network takes up to 40 s for anything: attempts end in the middle of a connect. */
Test(sim_dial, a_connect_that_takes_too_long_is_given_up, .timeout = 20)
{
    static const struct sim_opts far_away = { .net_delay_ms_max = 40000,
                                              .late_cqe_pct = 30,
                                              .cqe_delay_ms_max = 100 };
    unsigned up_n = 0;

    for (uint64_t seed = 1; seed <= 10; seed++) {
        sim_config(&cfg, "dusk");
        name_relay(&cfg, 0, NULL);
        struct sim *s = sim_new(seed, far_away, &cfg);
        struct netaddr at = far_at(0), from;
        int door = sim_far_listen(s->net, &at), ep;
        uint64_t end_ms = sim_now(s) + 1800000;

        while (sim_now(s) < end_ms && dial_connected(&s->dial) == 0) {
            sim_net_alarm(s->net, end_ms);
            sim_step(s);
            SIM_OK(s);
            if ((ep = sim_far_accept(s->net, door, &from)) >= 0)
                sim_answer(s, FAR, ep, false);
        }
        up_n += dial_connected(&s->dial);
        cr_expect(lt(u64, 1, dials(s)), "seed %llu", (unsigned long long)seed);
        ended(s);
    }
    cr_expect(lt(u32, 0, up_n), "now and then it is quick");
}

/* Both dial at once. Which one goes is decided by the ids, so it is tried with one of either kind.
 */
Test(sim_dial, of_two_that_crossed_one_goes, .timeout = 20)
{
    unsigned kept = 0, gave_way = 0;

    for (unsigned ident = 10; ident < 20; ident++) {
        struct sim *s = with_relay(NULL);
        struct netaddr at = far_at(0);
        struct sim_conn *ours = answered(s, sim_far_listen(s->net, &at), ident, false, 1000);
        bool lower = memcmp(&s->me.id, sim_peer_id(s, ident), sizeof(struct peer_id)) < 0;

        up(ours);
        struct sim_conn *theirs = client(s, ident, 1);

        sim_run_ms(s, 3 * REDIAL_LOOK_MS);
        SIM_OK(s);
        cr_expect(eq(int, theirs->state, SC_UP), "that is theirs to end");
        cr_expect(eq(int, ours->state, lower ? SC_UP : SC_CLOSED));
        cr_expect(eq(u32, dial_connected(&s->dial), 1));
        cr_expect(eq(u64, dials(s), 1));
        kept += lower;
        gave_way += !lower;
        ended(s);
    }
    cr_expect(lt(u32, 0, kept));
    cr_expect(lt(u32, 0, gave_way));
}

Test(sim_dial, a_full_relay_dials_nobody, .timeout = 20)
{
    sim_config(&cfg, "dusk");
    name_relay(&cfg, 0, NULL);
    cfg.conns_max = 1; /* peer relays count like any (dusk.md §2) */
    struct sim *s = calm(&cfg);
    struct sim_conn *c = client(s, SOURCE, 0);
    struct netaddr at = far_at(0);
    int door;

    cr_assert(sim_reserve(c) != NULL);
    door = sim_far_listen(s->net, &at);
    int ep = called(s, door, REDIAL_MAX_MS);

    sim_run_ms(s, 1000);
    cr_expect(eq(u32, dial_connected(&s->dial), 0));
    sim_hang_up(c, HANG_FIN);
    up(answered(s, door, FAR, false, REDIAL_MAX_MS));
    sim_close(s->net, ep);
    ended(s);
}

/* ---- names ---------------------------------------------------------------------------------- */

static struct errand_name *asked;
static unsigned asks;

static void ask(struct errand *e, struct errand_name *n)
{
    (void)e;
    cr_assert(asked == NULL, "one question at a time");
    asked = n;
    asks++;
}

static void answer(int err, unsigned n, const struct netaddr *addrs)
{
    struct errand_name *q = asked;

    cr_assert(q != NULL);
    asked = NULL;
    q->err = err;
    q->answer.n = n;
    for (unsigned i = 0; i < n; i++) {
        q->answer.addr[i] = addrs[i];
        q->answer.addr[i].port = 0;
    }
    q->call.node.kind = q->kind_of_mail;
    mbox_push(q->to, &q->call.node);
    ring_wake(q->wake);
}

Test(sim_dial, a_name_is_resolved_for_each_attempt, .timeout = 20)
{
    struct netaddr at[3] = { sim_host(200, 77), far_at(0), { .ip = { 0x20, 1 } } };

    sim_config(&cfg, "dusk");
    cr_assert(maddr_parse(bytes_str("/dns4/relay.example/tcp/4001"), &cfg.peer_relay[0]));
    cfg.peer_relays_n = 1;
    asked = NULL;
    asks = 0;
    struct sim *s = calm(&cfg);
    int door = sim_far_listen(s->net, &at[1]), other;
    struct netaddr from;

    at[2].port = RELAYS_PORT;
    other = sim_far_listen(s->net, &at[2]);
    s->dial.resolve = ask;
    SIM_UNTIL(s, asked != NULL, 5000);
    cr_expect_str_eq(asked->name, "relay.example");
    answer(-ENOENT, 0, NULL);
    SIM_UNTIL(s, asked != NULL, 10000);
    answer(0, 1, &at[2]); /* of the other family only */
    SIM_UNTIL(s, asked != NULL, 20000);
    cr_expect(eq(int, sim_far_accept(s->net, other, &from), -EAGAIN), "dns4 is no IPv6");
    struct errand_name *late = asked;

    sim_run_ms(s, REDIAL_DEADLINE_MS + 1000); /* given up, and asked again when it has come */
    answer(-ETIMEDOUT, 0, NULL);
    SIM_UNTIL(s, asked != NULL, REDIAL_MAX_MS);
    cr_expect(eq(ptr, asked, late));
    answer(0, 2, at);
    unsigned before = asks;

    if (s->dial.dial[0].turns % 2 == 0) { /* the first of them is nobody's: next time the other */
        SIM_UNTIL(s, asked != NULL, REDIAL_MAX_MS);
        answer(0, 2, at);
        cr_expect(eq(u32, asks, before + 1));
    }
    up(answered(s, door, FAR, false, 5000));
    ended(s);
}

/* ---- ends ----------------------------------------------------------------------------------- */

Test(sim_dial, a_stop_in_the_middle_of_anything_leaves_nothing, .timeout = 60)
{
    static const struct sim_opts slow = { .net_delay_ms_max = 400,
                                          .late_cqe_pct = 40,
                                          .cqe_delay_ms_max = 400 };

    for (uint64_t seed = 1; seed <= 100; seed++) {
        sim_config(&cfg, "dusk");
        for (unsigned n = 0; n < 4; n++)
            name_relay(&cfg, n, NULL);
        struct sim *s = sim_new(seed, slow, &cfg);
        struct netaddr at = far_at(0), mute = far_at(1), from;
        int door = sim_far_listen(s->net, &at), silent = sim_far_listen(s->net, &mute), ep;
        uint64_t end_ms = sim_now(s) + sim_below(s->net, 3000);

        while (sim_now(s) < end_ms && sim_why(s) == NULL) {
            sim_net_alarm(s->net, end_ms);
            sim_step(s);
            while ((ep = sim_far_accept(s->net, door, &from)) >= 0)
                sim_answer(s, FAR, ep, seed % 2);
            while ((ep = sim_far_accept(s->net, silent, &from)) >= 0)
                sim_answer(s, FAR + 1, ep, false)->mute = true;
        }
        SIM_OK(s);
        ended(s);
    }
}

/* Relays that refuse, hang up, fall silent or are somebody else, while descriptors run out and
 * completions come late. When that is over, all are there again within two of the longest pauses.
 */
Test(sim_dial, seeds_of_trouble_end_with_everybody_connected, .timeout = 120)
{
    enum { RELAYS = 3 };
    uint64_t lost = 0, refused = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_opts net = { .net_delay_ms_max = 100,
                                .late_cqe_pct = 10,
                                .cqe_delay_ms_max = 20,
                                .emfile_pct = 5,
                                .short_recv_pct = 20,
                                .short_send_pct = 20,
                                .lost_more_pct = 5,
                                .enobufs_pct = 5 };
        int door[RELAYS];

        sim_config(&cfg, "dusk");
        for (unsigned n = 0; n < RELAYS; n++)
            name_relay(&cfg, n, NULL);
        struct sim *s = sim_new(seed, net, &cfg);
        uint64_t trouble_ms = sim_now(s) + 300000;

        for (unsigned n = 0; n < RELAYS; n++) {
            struct netaddr at = far_at(n);

            door[n] = sim_far_listen(s->net, &at);
        }
        for (;;) {
            bool trouble = sim_now(s) < trouble_ms;
            struct netaddr from;
            int ep;

            if (!trouble && dial_connected(&s->dial) == RELAYS)
                break;
            cr_assert(lt(u64, sim_now(s), trouble_ms + 2 * REDIAL_MAX_MS), SIM_SEED(s));
            sim_net_alarm(s->net, sim_now(s) + 500);
            sim_step(s);
            SIM_OK(s);
            for (unsigned n = 0; n < RELAYS; n++) {
                if ((ep = sim_far_accept(s->net, door[n], &from)) < 0)
                    continue;
                if (trouble && sim_chance(s->net, 20)) {
                    sim_close(s->net, ep);
                    refused++;
                    continue;
                }
                sim_answer(s, 20 + n, ep, sim_chance(s->net, 50))->mute =
                    trouble && sim_chance(s->net, 20);
            }
            for (size_t i = 0; trouble && i < s->conns_n; i++) {
                if (s->conns[i]->state == SC_CLOSED || !sim_chance(s->net, 2))
                    continue;
                sim_hang_up(s->conns[i], sim_chance(s->net, 50) ? HANG_FIN : HANG_RST);
                lost++;
            }
        }
        for (size_t i = 0; i < s->conns_n; i++) /* who was mute to the end is still thought to be */
            s->conns[i]->mute = false;
        ended(s);
    }
    cr_expect(lt(u64, 100, lost));
    cr_expect(lt(u64, 20, refused));
}
