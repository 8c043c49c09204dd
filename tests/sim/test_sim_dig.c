/* tests/sim/test_sim_dig.c: the engine's DIG door on two shards under a seeded crowd and a faulty
 * network. SIM_SEEDS in the environment is how many seeds each of these tries, SIM_FIRST the first
 * one. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_dig_crowd.h"

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
    };
}

static struct sim_opts faults_of(uint64_t seed)
{
    struct sim_opts o = kernel_of(seed);

    o.emfile_pct = (unsigned)(seed % 4 * 5);
    o.enobufs_pct = (unsigned)(seed % 3 * 6);
    o.cancel_data_pct = 50;
    o.socket_bytes = seed % 2 ? 8192 : 0;
    o.vanish_ms = seed % 3 ? 3000 : 400000; /* else silence is found by the sweep, or a probe */
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
    struct sim_dig_counts did;
    uint64_t missing, shared_refused;
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
    struct sim_dig_crowd crowd;
    size_t shared_max;
};

static void say_all(const struct sim_dig_counts *did, const struct stats *st)
{
    fprintf(stderr,
            "  links %llu refused %llu taken %llu acks %llu moved %llu renamed %llu relayed %llu "
            "heard %llu none %llu broadcasts %llu heard %llu lists %llu deltas %llu pushes %llu\n",
            (unsigned long long)did->links, (unsigned long long)did->refused,
            (unsigned long long)did->taken, (unsigned long long)did->acks,
            (unsigned long long)did->moved, (unsigned long long)did->renamed,
            (unsigned long long)did->relayed, (unsigned long long)did->heard,
            (unsigned long long)did->no_target, (unsigned long long)did->broadcasts,
            (unsigned long long)did->broadcasts_heard, (unsigned long long)did->lists,
            (unsigned long long)did->deltas, (unsigned long long)did->pushes);
#define SAY(name)                                                                                  \
    if (strncmp(#name, "dig_", 4) == 0 && st->name > 0)                                            \
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
    p.crowd.clients = 12;
    p.crowd.acts = 400;
    p.crowd.gap_ms = 20;
    p.crowd.long_gap_pct = 1;
    p.crowd.rounds = 2;
    sim_dig_config(&p.cfg);
    setup(seed, &p);
    if (seed % 8 == 0)
        p.cfg.log_level = LOG_TRACE;
    p.crowd.fair = (struct sim_opts){ .net_delay_ms_max = 3, .vanish_ms = p.net.vanish_ms };
    s = sim_new(seed, p.net, &p.cfg);
    if (p.shared_max != 0)
        s->dig_host.shared.max = p.shared_max;
    s->full_every = FULL_EVERY;
    sim_dig_crowd_init(&p.crowd, s);
    sim_dig_crowd_run(&p.crowd);
    if (sim_why(s) == NULL)
        sim_end(s);
    control_status(&s->control, &st);
    if (getenv("SIM_VERBOSE")) {
        fprintf(stderr, "seed %llu: %llu steps, %llu s, %llu missing: %s\n",
                (unsigned long long)seed, (unsigned long long)s->steps,
                (unsigned long long)sim_now(s) / 1000 - 1000, (unsigned long long)p.crowd.missing,
                sim_why(s) ? sim_why(s) : "ok");
        say_all(&p.crowd.d.did, &st.sum);
    }
    SIM_OK(s);
    add_up(&h->events, &st.sum, sizeof(st.sum));
    add_up(&h->faults, sim_net_counts(s->net), sizeof(h->faults));
    add_up(&h->did, &p.crowd.d.did, sizeof(h->did));
    h->missing += p.crowd.missing;
    h->shared_refused += atomic_load(&s->dig_host.shared.refused);
    log_drain_to(s->log, ignore, &lines);
    sim_dig_crowd_fini(&p.crowd);
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
    HAPPENED(h->did.taken);
    HAPPENED(h->did.moved);
    HAPPENED(h->did.renamed);
    HAPPENED(h->did.refreshed);
    HAPPENED(h->did.left);
    HAPPENED(h->did.closed);
    HAPPENED(h->did.fins);
    HAPPENED(h->did.resets);
    HAPPENED(h->did.heard);
    HAPPENED(h->did.no_target);
    HAPPENED(h->did.broadcasts_heard);
    HAPPENED(h->did.lists);
    HAPPENED(h->did.pongs);
    HAPPENED(h->did.snapshots);
    HAPPENED(h->did.deltas);
    HAPPENED(h->did.pushes);
    HAPPENED(h->did.dht);
    HAPPENED(h->did.big);
    HAPPENED(h->did.fragments);
    HAPPENED(h->did.away);
    HAPPENED(h->faults.lost_more);
    HAPPENED(h->faults.late_cqes);
    HAPPENED(h->faults.bells);
    HAPPENED(h->faults.short_sends);
    HAPPENED(h->faults.short_recvs);
    HAPPENED(h->events.dig_mailed);
    return true;
}

static void exact(uint64_t seed, struct plan *p)
{
    p->net = kernel_of(seed);
}

Test(sim_dig, whoever_stays_misses_nothing, .timeout = 3600)
{
    static struct happened h;
    bool all = many(exact, &h);

    cr_assert(h.missing == 0, "%llu messages are missing", (unsigned long long)h.missing);
    if (!all)
        return;
    HAPPENED(h.faults.lent);
}

static void faulty(uint64_t seed, struct plan *p)
{
    p->net = faults_of(seed);
    p->crowd.rude = p->crowd.bursts = true;
    p->cfg.dig_queue_bytes_max = 4096 + seed % 5 * 8192;
    p->cfg.dig_queue_messages_max = seed % 3 ? 32 : 8;
}

Test(sim_dig, rude_clients_and_a_faulty_network_harm_nobody_else, .timeout = 3600)
{
    static struct happened h;

    if (!many(faulty, &h))
        return;
    HAPPENED(h.did.vanished);
    HAPPENED(h.did.deaf);
    HAPPENED(h.did.slow);
    HAPPENED(h.faults.emfile);
    HAPPENED(h.faults.enobufs_fault);
    HAPPENED(h.faults.waiting_sends);
    HAPPENED(h.faults.cancel_first);
    HAPPENED(h.events.dig_held);
    HAPPENED(h.events.dig_lost);
    HAPPENED(h.events.dig_swept);
}

static void lasting(uint64_t seed, struct plan *p)
{
    p->net = faults_of(seed);
    p->net.vanish_ms = 400000;
    p->crowd.rude = true;
    p->crowd.long_gap_pct = 15;
    p->crowd.acts = 300;
    p->crowd.clients = 16;
    p->crowd.rounds = 1;
}

Test(sim_dig, half_open_connections_are_swept_and_books_keep_up, .timeout = 3600)
{
    static struct happened h;

    if (!many(lasting, &h))
        return;
    HAPPENED(h.did.vanished);
    HAPPENED(h.events.dig_swept);
}

static void tight(uint64_t seed, struct plan *p)
{
    p->net = seed % 2 ? faults_of(seed) : kernel_of(seed);
    p->crowd.rude = p->crowd.bursts = true;
    p->crowd.memory = true;
    p->crowd.clients = 16;
    p->cfg.dig_conns_max = 14;
    p->cfg.dig_registrations_per_ip_max = seed % 2 ? 1 : 0;
    p->cfg.dig_conns_per_ip_max = seed % 3 ? 2 : 0;
    p->cfg.dig_queue_bytes_max = 16384;
    p->cfg.dig_queue_messages_max = 64;
    p->cfg.buffer_bytes_max = (uint64_t)(320 + seed % 5 * 100) << 10;
    p->shared_max = 4096 + seed % 4 * 2048;
}

Test(sim_dig, where_there_is_little_of_everything_it_is_kept, .timeout = 3600)
{
    static struct happened h;

    if (!many(tight, &h))
        return;
    HAPPENED(h.shared_refused);
    HAPPENED(h.events.conns_refused_ip);
    HAPPENED(h.events.conns_refused_total);
    HAPPENED(h.events.dig_refused);
    HAPPENED(h.events.chunks_dry);
}
