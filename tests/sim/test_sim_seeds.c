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

static void one(uint64_t seed, void (*setup)(struct config *cfg, struct crowd *crowd))
{
    struct config cfg;
    struct crowd crowd, plan = { .idents = 5, .conns_max = 14, .acts = 400, .gap_ms = 20 };
    struct sim *s;

    plan.bytes_max = 150000;
    sim_config(&cfg, NULL);
    setup(&cfg, &plan);
    s = sim_new(seed, faults_of(seed), &cfg);
    s->full_every = FULL_EVERY;
    crowd_init(&crowd, s);
    plan.s = s;
    crowd = plan;
    crowd_run(&crowd);
    if (sim_why(s) == NULL)
        sim_end(s);
    if (getenv("SIM_VERBOSE"))
        fprintf(stderr, "seed %llu: %llu steps, %llu ms, %llu of %llu circuits, %zu flows: %s\n",
                (unsigned long long)seed, (unsigned long long)s->steps,
                (unsigned long long)sim_now(s) - 1000000, (unsigned long long)crowd.joined,
                (unsigned long long)crowd.circuits, s->flows_n, sim_why(s) ? sim_why(s) : "ok");
    SIM_OK(s);
    sim_free(s);
}

static void many(void (*setup)(struct config *cfg, struct crowd *crowd))
{
    uint64_t first = env_u64("SIM_FIRST", 1), n = env_u64("SIM_SEEDS", SEEDS);

    for (uint64_t seed = first; seed < first + n; seed++)
        one(seed, setup);
}

static void friendly(struct config *cfg, struct crowd *crowd)
{
    (void)cfg;
    (void)crowd;
}

Test(sim_seeds, friendly_clients_lose_no_byte, .timeout = 600)
{
    many(friendly);
}

static void tight(struct config *cfg, struct crowd *crowd)
{
    cfg->conns_max = 10;
    cfg->conns_per_peer_max = 3;
    cfg->conns_per_ip_max = 4;
    cfg->conns_per_subnet_max = 6;
    cfg->hop.reservations_max = 4;
    cfg->hop.per_peer_max = 2;
    cfg->hop.per_ip_max = 2;
    cfg->hop.reservation_ms = 2000;
    cfg->circuits_max = 6;
    cfg->circuits_per_peer_max = 3;
    cfg->streams_per_conn_max = 12;
    crowd->hostile = true;
    crowd->conns_max = 20;
}

Test(sim_seeds, limits_hold_under_hostile_clients, .timeout = 600)
{
    many(tight);
}

static void limited(struct config *cfg, struct crowd *crowd)
{
    cfg->circuit_limit = (struct hop_limit){ true, 2, 30000 };
    cfg->byte_count = crowd->idents % 2 ? COUNT_SUM : COUNT_PER_DIRECTION;
    cfg->stop_timeout_ms = 1000;
    cfg->linger_ms = 3000;
    cfg->idle_timeout_ms = 5000;
    cfg->handshake_timeout_ms = 500;
    cfg->drain_s = 1;
    crowd->no_promises = crowd->slow = crowd->hostile = true;
    crowd->gap_ms = 150;
}

Test(sim_seeds, circuit_limits_and_deadlines_hold, .timeout = 600)
{
    many(limited);
}

static void poor(struct config *cfg, struct crowd *crowd)
{
    cfg->buffer_bytes_max = 768 << 10;
    crowd->no_promises = true;
    crowd->bytes_max = 400000;
}

Test(sim_seeds, a_dry_pool_closes_and_nothing_leaks, .timeout = 600)
{
    many(poor);
}
