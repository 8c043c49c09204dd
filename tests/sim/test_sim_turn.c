/* tests/sim/test_sim_turn.c: the engine's TURN server on two shards under a seeded crowd and a
 * faulty network. SIM_SEEDS in the environment is how many seeds each of these tries, SIM_FIRST the
 * first one. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_turn_crowd.h"

enum { SEEDS = 50, FULL_EVERY = 4 };

/* What the kernel does anyway. */
static struct sim_opts kernel_of(uint64_t seed)
{
    return (struct sim_opts){
        .lost_more_pct = (unsigned)(seed * 11 % 25),
        .late_cqe_pct = (unsigned)(seed * 13 % 40),
        .cqe_delay_ms_max = 1 + (unsigned)(seed % 4),
        .bell_delay_ms_max = (unsigned)(seed % 5),
        .lend_pct = (unsigned)(seed % 3 * 50),
        .net_delay_ms_max = (unsigned)(seed % 7 * 5),
        .short_send_pct = (unsigned)(seed * 7 % 40),
        .late_send_pct = (unsigned)(seed * 3 % 30),
        .short_recv_pct = (unsigned)(seed * 5 % 40),
        .udp_split_pct = (unsigned)(seed % 5 * 3),
        .udp_segments = seed % 3 ? 128 : 0,
        .udp_eio_pct = (unsigned)(seed % 4 * 5),
        .udp_mtu = seed % 2 ? 1500 : 0,
    };
}

static struct sim_opts faults_of(uint64_t seed)
{
    struct sim_opts o = kernel_of(seed);

    o.udp_loss_pct = (unsigned)(seed * 7 % 20);
    o.udp_dup_pct = (unsigned)(seed * 3 % 15);
    o.udp_late_pct = (unsigned)(seed % 3 * 5);
    o.udp_again_pct = (unsigned)(seed % 4 * 2);
    o.udp_truncate_pct = (unsigned)(seed % 5);
    o.udp_in_use_pct = (unsigned)(seed % 6 * 8);
    o.udp_emfile_pct = (unsigned)(seed % 5 * 6);
    o.udp_queue = seed % 4 == 0 ? 20 : 0;
    o.emfile_pct = (unsigned)(seed % 4 * 5);
    o.enobufs_pct = (unsigned)(seed % 3 * 6);
    o.cancel_data_pct = 50;
    o.vanish_ms = 3000;
    return o;
}

static uint64_t env_u64(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

/* What happened in all seeds of one profile: a fault that never comes proves nothing. */
struct happened {
    struct sim_counts faults;
    struct stats events;
    struct sim_turn_counts did;
    uint64_t carried[2], icmp;
};

static void add_up(void *sum, const void *one, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
        ((uint64_t *)sum)[i] += ((const uint64_t *)one)[i];
}

static void ignore(void *arg, const char *line)
{
    (void)line;
    ++*(size_t *)arg;
}

struct plan {
    struct config cfg;
    struct sim_opts net;
    struct sim_turn_crowd crowd;
};

static void say_drops(const struct stats *st)
{
#define SAY(name)                                                                                  \
    if (strncmp(#name, "turn_", 5) == 0 && st->name > 0)                                           \
        fprintf(stderr, "  %s %llu\n", #name, (unsigned long long)st->name);
    STATS_COUNTERS(SAY)
#undef SAY
}

static void one(uint64_t seed, void (*setup)(uint64_t seed, struct plan *p), struct happened *h)
{
    static struct plan p;
    struct ops_status st;
    size_t lines = 0;
    struct sim *s;

    memset(&p, 0, sizeof(p));
    p.crowd.clients = 8;
    p.crowd.peers = 6;
    p.crowd.acts = 500;
    p.crowd.gap_ms = 20;
    p.crowd.long_gap_pct = 2;
    p.crowd.mobile = true;
    p.crowd.v6 = seed % 2;
    p.crowd.tcp_every = 4;
    sim_turn_config(&p.cfg, 64);
    setup(seed, &p);
    if (seed % 8 == 0)
        p.cfg.log_level = LOG_TRACE;
    s = sim_new(seed, p.net, &p.cfg);
    s->full_every = FULL_EVERY;
    sim_turn_crowd_init(&p.crowd, s, &p.net);
    sim_turn_crowd_run(&p.crowd);
    if (sim_why(s) == NULL)
        sim_end(s);
    if (getenv("SIM_VERBOSE"))
        fprintf(stderr, "seed %llu: %llu steps, %llu s, %zu lives, %llu out, %llu in: %s\n",
                (unsigned long long)seed, (unsigned long long)s->steps,
                (unsigned long long)sim_now(s) / 1000 - 1000, p.crowd.t.lives_n,
                (unsigned long long)p.crowd.t.carried_out, (unsigned long long)p.crowd.t.carried_in,
                sim_why(s) ? sim_why(s) : "ok");
    control_status(&s->control, &st);
    if (sim_why(s) != NULL && getenv("SIM_VERBOSE"))
        say_drops(&st.sum);
    SIM_OK(s);
    add_up(&h->events, &st.sum, sizeof(st.sum));
    add_up(&h->faults, sim_net_counts(s->net), sizeof(h->faults));
    add_up(&h->did, &p.crowd.did, sizeof(h->did));
    h->carried[0] += p.crowd.t.carried_out;
    h->carried[1] += p.crowd.t.carried_in;
    for (unsigned i = 0; i < p.crowd.t.clients_n; i++)
        h->icmp += p.crowd.t.client[i].icmp;
    log_drain_to(s->log, ignore, &lines);
    sim_turn_crowd_fini(&p.crowd);
    sim_free(s);
}

#define HAPPENED(what) cr_expect(what > 0, "never: " #what)

static bool many(void (*setup)(uint64_t seed, struct plan *p), struct happened *h)
{
    uint64_t first = env_u64("SIM_FIRST", 1), n = env_u64("SIM_SEEDS", SEEDS);

    memset(h, 0, sizeof(*h));
    for (uint64_t seed = first; seed < first + n; seed++)
        one(seed, setup, h);
    if (n < SEEDS)
        return false; /* a few seeds need not have it all */
    HAPPENED(h->carried[0]);
    HAPPENED(h->carried[1]);
    HAPPENED(h->did.allocated);
    HAPPENED(h->did.refused);
    HAPPENED(h->did.refreshed);
    HAPPENED(h->did.ended);
    HAPPENED(h->did.permitted);
    HAPPENED(h->did.bound);
    HAPPENED(h->did.moved);
    HAPPENED(h->did.moved_across);
    HAPPENED(h->did.reserved);
    HAPPENED(h->did.redeemed);
    HAPPENED(h->did.repeats);
    HAPPENED(h->faults.lost_more);
    HAPPENED(h->faults.late_cqes);
    HAPPENED(h->faults.bells);
    HAPPENED(h->faults.udp_trains_in);
    HAPPENED(h->faults.udp_trains_out);
    HAPPENED(h->faults.udp_split);
    HAPPENED(h->faults.udp_eio);
    HAPPENED(h->events.turn_mailed);
    HAPPENED(h->events.turn_streams_accepted);
    HAPPENED(h->events.turn_streams_closed);
    HAPPENED(h->faults.short_sends);
    HAPPENED(h->faults.short_recvs);
    return true;
}

/* The doors on all addresses: every answer has to say from which one it leaves. */
static void wildcards(struct config *c)
{
    memset(c->turn[0].addr.ip + 12, 0, 4);
    memset(c->turn[1].addr.ip, 0, 16);
    snprintf(c->turn_relay_ip[0], sizeof(c->turn_relay_ip[0]), "10.0.0.1");
    snprintf(c->turn_relay_ip[1], sizeof(c->turn_relay_ip[1]), "2001:db8::1");
    c->turn_relay_ip_n = 2;
}

static void exact(uint64_t seed, struct plan *p)
{
    p->net = kernel_of(seed);
    if (seed % 3 == 0)
        wildcards(&p->cfg);
}

Test(sim_turn, what_a_client_is_sure_of_arrives_in_order_and_once, .timeout = 3600)
{
    static struct happened h;

    if (!many(exact, &h))
        return;
}

static void faulty(uint64_t seed, struct plan *p)
{
    p->net = faults_of(seed);
    p->crowd.hostile = true;
    if (seed % 3 == 0)
        wildcards(&p->cfg);
}

Test(sim_turn, nothing_goes_astray_on_a_faulty_network_with_hostile_clients, .timeout = 3600)
{
    static struct happened h;

    if (!many(faulty, &h))
        return;
    HAPPENED(h.faults.udp_lost);
    HAPPENED(h.faults.udp_dup);
    HAPPENED(h.faults.udp_late);
    HAPPENED(h.faults.udp_again);
    HAPPENED(h.faults.udp_truncated);
    HAPPENED(h.faults.udp_in_use);
    HAPPENED(h.faults.udp_emfile);
    HAPPENED(h.faults.udp_full);
    HAPPENED(h.faults.udp_icmp);
    HAPPENED(h.faults.udp_errors);
    HAPPENED(h.icmp);
    HAPPENED(h.did.gone);
    HAPPENED(h.did.garbage);
    HAPPENED(h.did.timeouts);
    HAPPENED(h.events.turn_drop_permission);
    HAPPENED(h.events.turn_drop_channel);
    HAPPENED(h.events.turn_drop_malformed);
    HAPPENED(h.events.turn_drop_allocation);
    HAPPENED(h.events.turn_error_508);
}

static void expiring(uint64_t seed, struct plan *p)
{
    p->net = faults_of(seed);
    p->crowd.hostile = seed % 2;
    p->crowd.long_gap_pct = 25;
    p->cfg.turn_lifetime_secs = 900;
    p->cfg.turn_nonce_secs = 60;
}

Test(sim_turn, everything_expires_in_time_and_what_is_refreshed_stays, .timeout = 3600)
{
    static struct happened h;

    if (!many(expiring, &h))
        return;
    HAPPENED(h.did.expired);
    HAPPENED(h.events.turn_alloc_expired);
    HAPPENED(h.events.turn_error_438);
}

static void tight(uint64_t seed, struct plan *p)
{
    p->net = seed % 2 ? faults_of(seed) : kernel_of(seed);
    p->crowd.hostile = true;
    p->crowd.clients = 16;
    p->crowd.capped = true;
    p->crowd.long_gap_pct = 8;
    sim_turn_config(&p->cfg, 12);
    p->cfg.turn_max_allocations = 10;
    if (seed % 4 == 3)
        p->cfg.buffer_bytes_max = (uint64_t)(320 + seed % 5 * 100) << 10;
    p->cfg.turn_max_per_user = 4;
    p->cfg.turn_max_per_ip = 3;
    p->cfg.turn_bps_per_allocation = seed % 3 == 0 ? 20000 : 0;
    p->cfg.turn_bps_per_user = seed % 3 == 1 ? 40000 : 0;
    p->cfg.turn_replies_per_ip = seed % 5 == 0 ? 4 : 0;
}

Test(sim_turn, quotas_and_ports_hold_where_there_are_few, .timeout = 3600)
{
    static struct happened h;

    if (!many(tight, &h))
        return;
    HAPPENED(h.events.turn_error_486);
    HAPPENED(h.events.turn_error_508);
    HAPPENED(h.events.turn_drop_bandwidth);
    HAPPENED(h.events.turn_drop_reply_rate);
}
