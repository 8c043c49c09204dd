/* tests/sim/test_sim_seeds.c: the real engine under a seeded crowd and a faulty kernel. SIM_SEEDS
 * in the environment is how many seeds each of these tries, SIM_FIRST the first one. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_crowd.h"
#include "tests/sim/sim_peer.h"

enum { SEEDS = 50, FULL_EVERY = 8 };

static struct sim_opts faults_of(uint64_t seed)
{
    static const unsigned socket_bytes[] = { 4096, 16384, 65536, 200000 };

    return (struct sim_opts){
        .short_send_pct = (unsigned)(seed * 7 % 40),
        .late_send_pct = (unsigned)(seed * 3 % 30),
        .short_recv_pct = (unsigned)(seed * 5 % 40),
        .enobufs_pct = (unsigned)(seed % 3 * 6),
        .lost_more_pct = (unsigned)(seed * 11 % 25),
        .emfile_pct = (unsigned)(seed % 4 * 10),
        .cancel_data_pct = 50,
        .late_cqe_pct = (unsigned)(seed * 13 % 40),
        .cqe_delay_ms_max = 1 + (unsigned)(seed % 4),
        .bell_delay_ms_max = (unsigned)(seed % 5),
        .lend_pct = (unsigned)(seed % 3 * 50),
        .net_delay_ms_max = (unsigned)(seed % 7 * 5),
        .vanish_ms = 3000,
        .socket_bytes = socket_bytes[seed % ARRAY_LEN(socket_bytes)],
    };
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
    const char *preset;
    struct config cfg;
    struct crowd crowd;
};

static void one(uint64_t seed, void (*setup)(uint64_t seed, struct plan *p), struct happened *h)
{
    struct plan p = { .crowd = { .idents = 5, .conns_max = 14, .acts = 400, .gap_ms = 20 } };
    struct ops_status st;
    size_t lines = 0;
    struct sim *s;

    p.crowd.bytes_max = 150000;
    setup(seed, &p);
    if (seed % 8 == 0)
        p.cfg.log_level = LOG_TRACE;
    s = sim_new(seed, faults_of(seed), &p.cfg);
    s->full_every = FULL_EVERY;
    crowd_init(&p.crowd, s);
    crowd_run(&p.crowd);
    if (sim_why(s) == NULL)
        sim_end(s);
    if (getenv("SIM_VERBOSE"))
        fprintf(stderr, "seed %llu: %llu steps, %llu ms, %llu of %llu circuits, %zu flows: %s\n",
                (unsigned long long)seed, (unsigned long long)s->steps,
                (unsigned long long)sim_now(s) - 1000000, (unsigned long long)p.crowd.joined,
                (unsigned long long)p.crowd.circuits, s->flows_n, sim_why(s) ? sim_why(s) : "ok");
    SIM_OK(s);
    control_status(&s->control, &st);
    add_up(&h->events, &st.sum, sizeof(st.sum));
    add_up(&h->faults, sim_net_counts(s->net), sizeof(h->faults));
    log_drain_to(s->log, ignore, &lines);
    sim_free(s);
}

#define HAPPENED(what) cr_expect(what > 0, "never: " #what)

static bool many(void (*setup)(uint64_t seed, struct plan *p), struct happened *h)
{
    uint64_t first = env_u64("SIM_FIRST", 1), n = env_u64("SIM_SEEDS", SEEDS);
    const struct sim_counts *f = &h->faults;

    memset(h, 0, sizeof(*h));
    for (uint64_t seed = first; seed < first + n; seed++)
        one(seed, setup, h);
    if (n < SEEDS)
        return false; /* a few seeds need not have it all */
    HAPPENED(f->short_sends);
    HAPPENED(f->waiting_sends);
    HAPPENED(f->late_sends);
    HAPPENED(f->short_recvs);
    HAPPENED(f->enobufs_fault);
    HAPPENED(f->lost_more);
    HAPPENED(f->emfile);
    HAPPENED(f->cancelled);
    HAPPENED(f->cancel_first);
    HAPPENED(f->late_cqes);
    HAPPENED(f->bells);
    HAPPENED(f->bells_merged);
    HAPPENED(f->bells_spared);
    HAPPENED(f->lent);
    HAPPENED(f->wakes);
    HAPPENED(f->fins);
    HAPPENED(f->resets);
    return true;
}

static void friendly(uint64_t seed, struct plan *p)
{
    sim_config(&p->cfg, NULL);
    if (seed % 5 == 0) { /* SIGTERM in the middle: what runs, runs on */
        p->crowd.drain_at = 100;
        p->cfg.drain_s = 300;
    }
    p->crowd.bytes_max = 2 * YAMUX_WINDOW; /* beyond a window nothing arrives without grants */
}

Test(sim_seeds, friendly_clients_lose_no_byte, .timeout = 3600)
{
    static struct happened h;

    if (!many(friendly, &h))
        return;
    HAPPENED(h.events.reserve_ok);
    HAPPENED(h.events.reserve_renewed);
    HAPPENED(h.events.connect_ok);
    HAPPENED(h.events.connect_cancelled);
    HAPPENED(h.events.connect_status_203);
    HAPPENED(h.events.connect_status_204);
    HAPPENED(h.events.connect_status_400);
    HAPPENED(h.events.circuits_closed_normal);
    HAPPENED(h.events.circuits_closed_reset);
    HAPPENED(h.events.circuits_closed_drain);
    HAPPENED(h.events.push_sent);
}

static void tight(uint64_t seed, struct plan *p)
{
    struct config *cfg = &p->cfg;

    sim_config(cfg, seed % 3 == 0 ? "dusk" : NULL);
    p->crowd.no_promises = seed % 3 == 0; /* who is refused there is closed, with its circuits */
    cfg->conns_max = 10;
    cfg->conns_per_peer_max = 3;
    cfg->conns_per_ip_max = 4;
    cfg->conns_per_subnet_max = 6;
    cfg->hop.reservations_max = 4;
    cfg->hop.per_peer_max = 2;
    cfg->hop.per_ip_max = 2;
    cfg->hop.peer_burst = 6;
    cfg->hop.peer_refill_ms = 500;
    cfg->hop.reservation_ms = 2000;
    cfg->circuits_max = 6;
    cfg->circuits_per_peer_max = 3;
    cfg->connect_peer_burst = 30;
    cfg->connect_peer_refill_ms = 100;
    cfg->streams_per_conn_max = 12;
    p->crowd.hostile = true;
    p->crowd.conns_max = 20;
}

Test(sim_seeds, limits_hold_under_hostile_clients, .timeout = 3600)
{
    static struct happened h;

    if (!many(tight, &h))
        return;
    HAPPENED(h.events.conns_refused_total);
    HAPPENED(h.events.conns_refused_ip);
    HAPPENED(h.events.conns_refused_subnet);
    HAPPENED(h.events.conns_refused_peer);
    HAPPENED(h.events.reserve_status_200);
    HAPPENED(h.events.reserve_status_201);
    HAPPENED(h.events.reserve_expired);
    HAPPENED(h.events.connect_status_201);
    HAPPENED(h.events.streams_refused);
    HAPPENED(h.events.sniff_rejects);
    HAPPENED(h.events.record_errors);
    HAPPENED(h.events.yamux_errors);
    HAPPENED(h.events.slow_closed);
}

static void limited(uint64_t seed, struct plan *p)
{
    struct config *cfg = &p->cfg;

    sim_config(cfg, NULL);
    cfg->circuit_limit = (struct hop_limit){ true, 2, 30000 };
    cfg->byte_count = seed % 2 ? COUNT_SUM : COUNT_PER_DIRECTION;
    cfg->stop_timeout_ms = 1000;
    cfg->linger_ms = 3000;
    cfg->idle_timeout_ms = 5000;
    cfg->handshake_timeout_ms = 500;
    cfg->drain_s = 1;
    p->crowd.no_promises = p->crowd.slow = p->crowd.hostile = true;
    p->crowd.gap_ms = 150;
}

Test(sim_seeds, circuit_limits_and_deadlines_hold, .timeout = 3600)
{
    static struct happened h;

    if (!many(limited, &h))
        return;
    HAPPENED(h.events.circuits_closed_limit_bytes);
    HAPPENED(h.events.circuits_closed_limit_time);
    HAPPENED(h.events.conns_idle_closed);
    HAPPENED(h.events.handshake_timeouts);
}

static void poor(uint64_t seed, struct plan *p)
{
    sim_config(&p->cfg, NULL);
    p->cfg.buffer_bytes_max = (uint64_t)(640 + seed % 4 * 200) << 10;
    p->crowd.no_promises = true;
    p->crowd.bytes_max = 400000;
}

Test(sim_seeds, a_dry_pool_closes_and_nothing_leaks, .timeout = 3600)
{
    static struct happened h;

    if (!many(poor, &h))
        return;
    HAPPENED(h.events.chunks_dry);
    HAPPENED(h.events.circuits_closed_nomem);
}
