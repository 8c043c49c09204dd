/* tests/sim/test_sim_gossip.c: the gossip hub on two shards, by hand and by seeds. */
#include <stdio.h>
#include <stdlib.h>

#include "proto/varint.h"
#include "tests/sim/sim_gossip.h"
#include "tests/sim/sim_script.h"

enum { SYNC_BIT = 1 << GOSSIP_SYNC, DIR_BIT = 1 << GOSSIP_DIRECTORY };

static struct sim_gossip world;

static struct sim *gossip_sim(uint64_t seed, struct sim_opts net)
{
    struct config cfg;

    sim_config(&cfg, "dusk");
    cfg.rendezvous_on = cfg.directory_on = cfg.usage_on = cfg.gif_on = false;
    struct sim *s = sim_new(seed, net, &cfg);

    sim_gossip_init(&world, s);
    return s;
}

static void over(struct sim *s)
{
    sim_end(s);
    SIM_OK(s);
    sim_free(s);
    sim_gossip_free(&world);
}

static bool step(struct sim *s)
{
    sim_gossip_look(&world);
    return sim_step(s);
}

#define UNTIL(s, cond, ms) SIM_UNTIL_BY(step, s, cond, ms)

static void run_ms(struct sim *s, uint64_t ms)
{
    uint64_t end_ms = sim_now(s) + ms;

    while (sim_now(s) < end_ms) {
        sim_net_alarm(s->net, end_ms);
        if (!step(s))
            break;
    }
    SIM_OK(s);
}

static uint64_t dropped(const struct sim *s, enum gossip_cause why)
{
    return s->shard[0].gossip->hub.counts.dropped[why] +
           s->shard[1].gossip->hub.counts.dropped[why];
}

Test(sim_gossip, a_message_reaches_subscribers_on_both_shards_once, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *c[6];

    for (unsigned i = 0; i < 6; i++)
        c[i] = sim_gossip_join(&world, i + 1, (int)(i % 2), i == 5 ? DIR_BIT : SYNC_BIT, true);
    UNTIL(s, sim_gossip_ready(&world), 5000);
    run_ms(s, 100);
    for (unsigned i = 0; i < 6; i++)
        sim_gossip_say(&world, c[i], i + 1, GOSSIP_SYNC, 100 + 9000 * i);
    sim_gossip_say(&world, c[0], 1, GOSSIP_DIRECTORY, 60000);
    sim_gossip_say(&world, c[0], 40, GOSSIP_SYNC, 60); /* brought by 1, written by another */
    UNTIL(s, sim_gossip_settled(&world), 1000);
    run_ms(s, 3000);
    cr_expect(eq(u64, world.heard, 4 * 5 + 5 + 1 + 4));
    cr_expect(
        eq(u64, s->shard[0].gossip->hub.counts.remote + s->shard[1].gossip->hub.counts.remote, 8),
        "posted once to the other shard");
    over(s);
}

/* More signatures than a turn's share, and nothing else on that shard that would wake it: nobody
 * there has subscribed. */
Test(sim_gossip, a_turn_verifies_its_share_and_goes_on, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *a = sim_gossip_join(&world, 1, 0, 0, true);
    struct gossiper *b = sim_gossip_join(&world, 2, 0, 0, true);
    struct gossiper *z = sim_gossip_join(&world, 3, 1, SYNC_BIT, true);

    UNTIL(s, sim_gossip_ready(&world), 5000);
    for (unsigned i = 0; i < 190; i++)
        sim_gossip_say(&world, i % 3 ? a : b, i % 3 ? 1 : 2, GOSSIP_SYNC, 40);
    bool waited = false;
    uint64_t from_ms = sim_now(s);

    for (unsigned i = 0; i < 400 && !sim_gossip_settled(&world); i++) {
        sim_net_alarm(s->net, sim_now(s) + 10);
        cr_assert(step(s), SIM_SEED(s));
        waited |= s->shard[0].gossip->held.count > 0;
    }
    UNTIL(s, sim_gossip_settled(&world), 1000);
    cr_expect(lt(u64, sim_now(s), from_ms + 500), "at once, and not by the heartbeat");
    cr_expect(waited);
    cr_expect(eq(u64, z->heard, 190));
    over(s);
}

/* One message is more than a turn's share of writing when so many are to have it. */
Test(sim_gossip, a_turn_writes_its_share_and_goes_on, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *c[40];
    bool waited = false;

    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        c[i] = sim_gossip_join(&world, i + 1, 0, SYNC_BIT, true);
    UNTIL(s, sim_gossip_ready(&world), 5000);
    run_ms(s, 100);
    uint64_t from_ms = sim_now(s);

    sim_gossip_say(&world, c[0], 1, GOSSIP_SYNC, 60000);
    for (unsigned i = 0; i < 400 && !sim_gossip_settled(&world); i++) {
        sim_net_alarm(s->net, sim_now(s) + 10);
        cr_assert(step(s), SIM_SEED(s));
        waited |= s->shard[0].gossip->ready.count > 0;
    }
    UNTIL(s, sim_gossip_settled(&world), 1000);
    cr_expect(lt(u64, sim_now(s), from_ms + 500), "at once, and not by the heartbeat");
    cr_expect(waited);
    over(s);
}

/* For want of a buffer it is not seen, and its author has not paid: it comes again, and passes. */
Test(sim_gossip, what_had_no_buffer_may_come_again, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *a = sim_gossip_join(&world, 1, 0, SYNC_BIT, true);
    struct gossiper *b = sim_gossip_join(&world, 2, 0, SYNC_BIT, true);
    size_t max = s->d.gossip->pool.max;

    UNTIL(s, sim_gossip_ready(&world), 5000);
    run_ms(s, 100);
    s->d.gossip->pool.max = 0;
    struct gossip_said *m = sim_gossip_say(&world, a, 1, GOSSIP_SYNC, 500);

    UNTIL(s, dropped(s, GOSSIP_MEMORY) == 1, 1000);
    s->d.gossip->pool.max = max;
    sim_gossip_bring(&world, a, m);
    UNTIL(s, b->heard == 1, 1000);
    over(s);
}

/* Byte by byte, each in its own frame: it is copied once, when it is whole, and not with each. */
Test(sim_gossip, a_long_rpc_in_frames_of_a_byte_is_put_together_once, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *a = sim_gossip_join(&world, 1, 0, SYNC_BIT, true);
    struct gossiper *b = sim_gossip_join(&world, 2, 0, SYNC_BIT, true);
    static uint8_t rpc[GOSSIP_WIRE_MAX];

    UNTIL(s, sim_gossip_ready(&world) && a->says->name == NULL, 5000);
    sim_gossip_say(&world, a, 1, GOSSIP_SYNC, 60000);
    struct bytes whole = sim_queue_front(&a->tx);
    size_t n = whole.n;

    memcpy(rpc, whole.p, n);
    sim_queue_drop(&a->tx, n);
    for (size_t i = 0; i < n; i++) {
        sim_stream_put(a->says, bytes_of(rpc + i, 1), false);
        if (i % 500 == 0)
            run_ms(s, 1);
    }
    UNTIL(s, sim_gossip_settled(&world), 2000);
    cr_expect(eq(u64, b->heard, 1));
    cr_expect(le(u64, s->shard[0].gossip->joined, n), "%llu bytes copied for one of %zu",
              (unsigned long long)s->shard[0].gossip->joined, n);
    over(s);
}

/* Many small messages to many: queueing them is work too. */
Test(sim_gossip, a_turn_queues_its_share_and_goes_on, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossip_shard *gs = s->shard[0].gossip;
    struct gossiper *c[40];
    uint64_t most = 0;

    gs->fanout = 4; /* so one costs eleven, and the fourth waits */
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        c[i] = sim_gossip_join(&world, i + 1, 0, SYNC_BIT, true);
    UNTIL(s, sim_gossip_ready(&world), 5000);
    run_ms(s, 100);
    uint64_t from_ms = sim_now(s);

    for (unsigned i = 0; i < 100; i++)
        sim_gossip_say(&world, c[0], 1, GOSSIP_SYNC, 40);
    for (unsigned i = 0; i < 2000 && !sim_gossip_settled(&world); i++) {
        uint64_t before = gs->hub.counts.meant;

        sim_net_alarm(s->net, sim_now(s) + 10);
        cr_assert(step(s), SIM_SEED(s));
        if (most < gs->hub.counts.meant - before)
            most = gs->hub.counts.meant - before;
    }
    UNTIL(s, sim_gossip_settled(&world), 1000);
    cr_expect(lt(u64, sim_now(s), from_ms + 500), "at once, and not by the heartbeat");
    cr_expect(le(u64, most, 2 * 3 * 39), "%llu in a step of two turns at most",
              (unsigned long long)most);
    over(s);
}

/* What is left of an RPC goes with its stream, and the next one begins at its own beginning. */
Test(sim_gossip, a_stream_replaced_in_the_middle_of_an_rpc_is_forgotten, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *a = sim_gossip_join(&world, 1, 0, SYNC_BIT, false);
    struct gossiper *b = sim_gossip_join(&world, 2, 0, SYNC_BIT, true);
    static uint8_t rpc[GOSSIP_WIRE_MAX];
    struct wcur w = wcur_of(rpc, sizeof(rpc));
    size_t bytes = 0;

    UNTIL(s, sim_gossip_ready(&world) && a->told == 3 && a->says->name == NULL, 5000);
    run_ms(s, 100);
    for (unsigned i = 0; i < 150; i++)
        sim_gossip_say(&world, NULL, 1, GOSSIP_SYNC, 8);
    for (size_t i = 0; i < 150; i++)
        bytes += 1 + varint_len(world.said[i].body.n) + world.said[i].body.n;
    wcur_varint(&w, bytes);
    for (size_t i = 0; i < 150; i++) {
        wcur_u8(&w, 0x12);
        wcur_lp(&w, world.said[i].body);
    }
    cr_assert(not(w.bad));
    sim_gossip_raw(a, bytes_of(rpc, w.wrote));
    for (unsigned i = 0; i < 100 && !s->shard[0].gossip->held.count; i++) {
        sim_net_alarm(s->net, sim_now(s) + 10);
        cr_assert(step(s), SIM_SEED(s));
    }
    cr_assert(eq(sz, s->shard[0].gossip->held.count, 1));
    a->says = sim_open(a->conn, GOSSIP_PROTOCOL, SS_OTHER, bytes_of(NULL, 0));
    for (unsigned i = 0; i < 3; i++)
        sim_gossip_say(&world, a, 1, GOSSIP_SYNC, 8);
    UNTIL(s, sim_gossip_got(b, 150) && sim_gossip_got(b, 151) && sim_gossip_got(b, 152), 300);
    cr_expect(lt(u64, b->heard, 153), "some of the first went with it");
    over(s);
}

Test(sim_gossip, who_does_not_read_holds_nobody_and_hears_of_it_later, .timeout = 60)
{
    for (int how = 0; how < 2; how++) {
        struct sim *s = gossip_sim(1, fair);
        struct gossiper *a = sim_gossip_join(&world, 1, 0, SYNC_BIT, true);
        struct gossiper *b = sim_gossip_join(&world, 2, 1, SYNC_BIT, true);
        struct gossiper *deaf = sim_gossip_join(&world, 3, 1, SYNC_BIT, false);

        deaf->asks = true;
        UNTIL(s, sim_gossip_ready(&world) && deaf->told == 3, 5000);
        run_ms(s, 100);
        sim_grant(deaf->hears, how == 0 ? 4 << 20 : 0);
        run_ms(s, 10);
        if (how == 0)
            deaf->conn->deaf = true; /* its socket, or its window only */
        else
            deaf->hears->greedy = true;
        for (unsigned i = 0; i < 64; i++) {
            sim_gossip_say(&world, a, 10 + i % 8, GOSSIP_SYNC, 50000);
            run_ms(s, 100);
        }
        UNTIL(s, sim_gossip_settled(&world), 2000);
        cr_expect(eq(u64, b->heard, 64));
        cr_expect(lt(u64, 0, dropped(s, GOSSIP_QUEUE)));
        cr_expect(le(u32, s->shard[1].gossip->hub.nodes_live, 64 + 30));
        deaf->conn->deaf = deaf->hears->greedy = false;
        if (how == 1)
            sim_grant(deaf->hears, deaf->hears->consumed);
        deaf->hears->consumed = how == 1 ? 0 : deaf->hears->consumed;
        UNTIL(s, deaf->ihaves > 0, 5000);
        UNTIL(s, deaf->heard >= 40, 20000);
        cr_expect(lt(u64, 0, deaf->asked));
        cr_expect(deaf->conn->state == SC_UP);
        over(s);
    }
}

Test(sim_gossip, who_stands_still_for_long_loses_its_stream_and_gets_another, .timeout = 60)
{
    struct sim *s = gossip_sim(1, fair);
    struct gossiper *a = sim_gossip_join(&world, 1, 0, SYNC_BIT, true);
    struct gossiper *deaf = sim_gossip_join(&world, 3, 0, SYNC_BIT, false);

    UNTIL(s, sim_gossip_ready(&world) && deaf->told == 3, 5000);
    deaf->hears->greedy = true;
    for (unsigned i = 0; i < 8; i++)
        sim_gossip_say(&world, a, 1, GOSSIP_SYNC, 60000);
    struct sim_stream *first = deaf->hears;

    UNTIL(s, first->rst_seen, GOSSIP_WAIT_MS + 5000);
    UNTIL(s, deaf->hears != first && deaf->told >= 6, 5000);
    cr_expect(eq(u64, STAT_GET(&s->shard[0].stats, gossip_stalled), 1));
    sim_gossip_say(&world, a, 1, GOSSIP_SYNC, 1000);
    UNTIL(s, sim_gossip_got(deaf, world.said_n - 1), 2000);
    run_ms(s, GOSSIP_CACHE_MS + 2000);
    cr_expect(eq(sz, atomic_load(&s->d.gossip->pool.used), 0), "nothing is stored for longer");
    over(s);
}

/* Seeds. */

struct profile {
    const char *name;
    struct sim_opts net;
    unsigned steady, come, acts, gap_ms;
    size_t bytes_max;
    bool tight; /* budgets and queues of a handful: nothing has to arrive */
};

static const struct sim_opts faults = { .short_send_pct = 20,
                                        .late_send_pct = 10,
                                        .short_recv_pct = 20,
                                        .enobufs_pct = 5,
                                        .lost_more_pct = 5,
                                        .emfile_pct = 2,
                                        .cancel_data_pct = 30,
                                        .late_cqe_pct = 10,
                                        .cqe_delay_ms_max = 5,
                                        .lend_pct = 50,
                                        .bell_delay_ms_max = 3,
                                        .net_delay_ms_max = 20 };

static void widen(struct gossip_limits *l, bool tight)
{
    if (tight) {
        l->queue_messages = 3;
        l->queue_bytes = GOSSIP_WIRE_MAX;
        l->cache_bytes = 200000;
        l->author.messages = (struct gossip_rate){ 3, 10 };
        l->receiver.bytes = (struct gossip_rate){ 100000, 200000 };
        l->sender.messages = (struct gossip_rate){ 10, 20 };
        l->out_bytes = (struct gossip_rate){ 500000, 1000000 };
        return;
    }
    l->author = l->topic = l->receiver = l->sender =
        (struct gossip_budget){ { 100000, 100000 }, { 1 << 30, 1 << 30 } };
    l->queue_messages = 4096;
    l->queue_bytes = 64 << 20;
}

static void act_bytes(struct sim *s, struct gossiper *c)
{
    static const uint8_t bad[] = { 0xff, 0xff, 0xff, 0x7f };
    uint8_t junk[64];

    if (sim_below(s->net, 2)) {
        sim_gossip_raw(c, bytes_of(bad, sizeof(bad)));
        return;
    }
    for (size_t i = 0; i < sizeof(junk); i++)
        junk[i] = (uint8_t)sim_below(s->net, 256);
    sim_gossip_raw(c, bytes_of(junk, 1 + sim_below(s->net, sizeof(junk))));
}

/* One that comes and goes does something. */
static void act_unsteady(struct sim *s, const struct profile *p)
{
    struct gossiper *c = world.client[p->steady + sim_below(s->net, world.clients_n - p->steady)];

    if (c->conn->state == SC_CLOSED)
        return;
    switch (sim_below(s->net, 9)) {
    case 0:
    case 1:
        sim_hang_up(c->conn, sim_chance(s->net, 50) ? HANG_FIN : HANG_RST);
        break;
    case 2:
        c->conn->deaf = !c->conn->deaf;
        break;
    case 3:
        if (c->hears != NULL)
            c->hears->greedy = true;
        break;
    case 4:
        sim_gossip_subscribe(&world, c, (enum gossip_topic)sim_below(s->net, 3),
                             sim_chance(s->net, 60));
        break;
    case 5: /* another stream, with what was half said by the first */
        c->conn->excused = true;
        if (c->conn->state == SC_UP) {
            c->says = sim_open(c->conn, GOSSIP_PROTOCOL, SS_OTHER, bytes_of(NULL, 0));
            sim_queue_drop(&c->tx, c->tx.n);
        }
        break;
    case 6:
        c->conn->excused = true;
        act_bytes(s, c);
        break;
    default:
        if (world.said_n > 0 && sim_chance(s->net, 50))
            sim_gossip_bring(&world, c, &world.said[sim_below(s->net, world.said_n)]);
        else
            sim_gossip_say(&world, c, c->ident, (enum gossip_topic)sim_below(s->net, 2),
                           8 + sim_below(s->net, p->bytes_max));
    }
}

static void act(struct sim *s, const struct profile *p)
{
    struct gossiper *c = world.client[sim_below(s->net, p->steady)];
    unsigned k = (unsigned)sim_below(s->net, 10);

    if (world.said_n + 2 >= GOSSIP_SAID_MAX)
        return;
    if (k < 4)
        sim_gossip_say(&world, c, c->ident, (enum gossip_topic)sim_below(s->net, 2),
                       8 + sim_below(s->net, p->bytes_max));
    else if (k == 4) /* forwards what somebody who is not here wrote */
        sim_gossip_say(&world, c, 60, GOSSIP_SYNC, 8 + sim_below(s->net, p->bytes_max));
    else if (k < 7 && world.clients_n < p->steady + p->come)
        sim_gossip_join(&world, 30 + (unsigned)sim_below(s->net, 12), -1,
                        (uint8_t)sim_below(s->net, 4), false);
    else if (world.clients_n > p->steady)
        act_unsteady(s, p);
}

static void one_seed(uint64_t seed, const struct profile *p, uint64_t sums[4])
{
    struct sim *s = gossip_sim(seed, p->net);

    s->full_every = 4;
    widen(&s->d.gossip->limits, p->tight);
    for (unsigned i = 0; i < p->steady; i++)
        while (sim_gossip_join(&world, i + 1, -1, (uint8_t)(1 + sim_below(s->net, 3)), !p->tight) ==
               NULL)
            ;
    if (!p->tight)
        UNTIL(s, sim_gossip_ready(&world), 30000);
    run_ms(s, 1000);
    for (unsigned i = 0; i < p->acts; i++) {
        act(s, p);
        run_ms(s, sim_below(s->net, p->gap_ms));
    }
    sim_net_set_opts(s->net, fair);
    UNTIL(s, sim_gossip_settled(&world), 20000);
    sums[0] += world.heard;
    sums[1] += s->shard[0].gossip->hub.counts.remote + s->shard[1].gossip->hub.counts.remote;
    for (int i = GOSSIP_SENDER; i < GOSSIP_CAUSES; i++)
        sums[2] += dropped(s, (enum gossip_cause)i);
    sums[3] += STAT_GET(&s->shard[0].stats, turns_lent) + STAT_GET(&s->shard[1].stats, turns_lent);
    over(s);
}

static unsigned from_env(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? (unsigned)atoi(text) : otherwise;
}

static void seeds(const struct profile *p)
{
    unsigned first = from_env("SIM_FIRST", 1), n = from_env("SIM_SEEDS", 25);
    uint64_t sums[4] = { 0 };

    for (uint64_t seed = first; seed < first + n; seed++)
        one_seed(seed, p, sums);
    if (getenv("SIM_VERBOSE") != NULL)
        printf("%s: heard %llu, posted %llu, dropped %llu, lent %llu\n", p->name,
               (unsigned long long)sums[0], (unsigned long long)sums[1],
               (unsigned long long)sums[2], (unsigned long long)sums[3]);
    if (n < 25)
        return;
    cr_expect(lt(u64, 1000, sums[0]));
    cr_expect(lt(u64, 300, sums[1]));
    if (p->tight)
        cr_expect(lt(u64, 50, sums[2]));
}

Test(sim_gossip_seeds, friendly, .timeout = 300)
{
    const struct profile p = { "friendly", faults, 8, 0, 40, 150, 20000, false };

    seeds(&p);
}

Test(sim_gossip_seeds, among_those_who_come_and_go, .timeout = 300)
{
    const struct profile p = { "crowd", faults, 5, 30, 120, 200, 30000, false };

    seeds(&p);
}

Test(sim_gossip_seeds, with_budgets_of_a_handful, .timeout = 300)
{
    const struct profile p = { "tight", faults, 6, 20, 120, 60, 60000, true };

    seeds(&p);
}
