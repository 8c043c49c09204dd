#include "tests/sim/sim.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/clock.h"
#include "engine/rng.h"
#include "engine/svc_gossip.h"
#include "tests/sim/sim_dig.h"
#include "tests/sim/sim_peer.h"
#include "tests/sim/sim_turn.h"

enum {
    UNIX_START_S = 1700000000,
    LATE_PCT = 10,      /* an owner misses a step */
    END_MS_MAX = 30000, /* from hanging up to the last turn; control gives shards 4 s */
};

/* A crash says whose it was: the daemon's ASSERTs and the sanitizers end the process. */

static struct sim *current;

static void say_seed(void)
{
    char line[96];
    int n = snprintf(line, sizeof(line), "\nsimulation: seed %llu, step %llu, %llu ms\n",
                     current ? (unsigned long long)current->seed : 0,
                     current ? (unsigned long long)current->steps : 0,
                     current ? (unsigned long long)sim_now(current) : 0);

    if (current != NULL && write(2, line, (size_t)n) < 0)
        return;
}

void __asan_on_error(void); /* called by the sanitizer's run-time, if it is there */
void __asan_on_error(void)
{
    say_seed();
}

static void on_abort(int sig)
{
    say_seed();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* What is wrong */

void sim_break(struct sim *s, const char *fmt, ...)
{
    va_list args;
    size_t n;

    if (s->broken[0] != '\0')
        return; /* the first is the one to look at */
    va_start(args, fmt);
    vsnprintf(s->broken, sizeof(s->broken) - 40, fmt, args);
    va_end(args);
    n = strlen(s->broken);
    snprintf(s->broken + n, sizeof(s->broken) - n, " (step %llu)", (unsigned long long)s->steps);
}

const char *sim_why(struct sim *s)
{
    if (s->broken[0] == '\0' && s->net != NULL && sim_net_broken(s->net) != NULL)
        sim_break(s, "%s", sim_net_broken(s->net));
    return s->broken[0] != '\0' ? s->broken : NULL;
}

/* Building */

void sim_config(struct config *c, const char *preset)
{
    char *argv[] = { "sluice",
                     "--data",
                     "/nonexistent",
                     "--listen-p2p",
                     "10.0.0.1:4001",
                     "--shards",
                     "2",
                     "--log-level",
                     "error",
                     "--preset",
                     (char *)(uintptr_t)preset,
                     NULL };
    char *envp[] = { NULL };
    int argc = preset != NULL ? 11 : 9;

    argv[argc] = NULL;
    ASSERT(config_load(c, argc, argv, envp) == 0);
    c->http_on = c->dig_on = c->turn_on = false;
    c->turn_n = 0;
    c->admin_path[0] = '\0'; /* no socket of the kernel's in a simulation */
    c->stats_interval_s = 0;
    c->buffer_bytes_max = 64 << 20;
}

static void on_time(void *arg, uint64_t now_ms)
{
    (void)arg;
    clock_set_fake(now_ms, UNIX_START_S + now_ms / 1000);
}

static struct ring *ring_of(uint64_t seed, bool control, const struct mbox *mail)
{
    static const unsigned buf_bytes[] = { 16384, 4096, RECV_BUF_BYTES };
    struct ring_opts o = { .sq_entries = control || seed % 2 ? 8 : 64,
                           .cq_entries = 1024,
                           .bufs = control ? 0 : DRY_RESUME_FREE,
                           .buf_bytes = buf_bytes[seed % ARRAY_LEN(buf_bytes)],
                           .mail = mail };
    const char *what;
    int err;

    return ring_new(&o, &err, &what);
}

static void turn_new(struct sim *s)
{
    char why[256];

    ASSERT(turn_host_init(&s->turn_host, &s->cfg, s->d.quota, SIM_SHARDS, why, sizeof(why)) == 0);
    for (unsigned i = 0; i < s->cfg.turn_n; i++)
        turn_host_add_own_port(&s->turn_host, s->cfg.turn[i].addr.port);
    turn_host_add_own_port(&s->turn_host, s->cfg.p2p[0].addr.port);
    s->d.turn = &s->turn_host;
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        ASSERT(turn_shard_init(&s->turn_shard[i], &s->shard[i], &s->turn_host) == 0);
        s->shard[i].turn = &s->turn_shard[i];
    }
}

static void turn_open(struct sim *s, unsigned shard)
{
    int udp[CONFIG_LISTEN_MAX], tcp[CONFIG_LISTEN_MAX];

    for (unsigned k = 0; k < s->cfg.turn_n; k++) {
        const struct netaddr *at = &s->cfg.turn[k].addr;

        do /* faults are for later */
            udp[k] =
                ring_bind_udp(at, RING_UDP_REUSEPORT | RING_UDP_PKTINFO | RING_UDP_V6ONLY, 0, NULL);
        while (udp[k] < 0);
        tcp[k] = ring_listen_tcp(at, true, true, LISTEN_BACKLOG, NULL);
        ASSERT(tcp[k] >= 0);
    }
    turn_shard_start(s->shard[shard].turn, udp, tcp, s->cfg.turn_n);
}

static void dig_new(struct sim *s)
{
    char why[256];

    ASSERT(dig_host_init(&s->dig_host, &s->cfg, s->d.quota, SIM_SHARDS, why, sizeof(why)) == 0);
    s->d.dig = &s->dig_host;
    for (unsigned i = 0; i < SIM_SHARDS; i++)
        ASSERT(dig_shard_new(&s->shard[i], &s->dig_host) == 0);
}

static void dig_open(struct sim *s, unsigned shard)
{
    int fd = ring_listen_tcp(&s->cfg.dig.addr, false, true, LISTEN_BACKLOG, NULL);

    ASSERT(fd >= 0);
    dig_shard_start(s->shard[shard].dig, &fd, 1);
}

static void start(struct sim *s)
{
    const struct netaddr at = s->cfg.p2p[0].addr;
    char why[256];
    int fd;

    ASSERT(daemon_init(&s->d, &s->cfg, &s->me, s->log, SIM_SHARDS) == 0);
    if (s->cfg.gossip_on)
        ASSERT(gossip_host_new(&s->d) == 0);
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        ASSERT(shard_init(&s->shard[i], &s->d, i) == 0);
        s->shard[i].log = log_attach(s->log, "shard");
        s->d.shard[i] = &s->shard[i];
    }
    if (s->cfg.turn_on)
        turn_new(s);
    if (s->cfg.dig_on)
        dig_new(s);
    ASSERT(control_init(&s->control, &s->d) == 0);
    s->control.log = log_attach(s->log, "main");
    s->d.control = &s->control;
    for (unsigned i = 0; i <= SIM_SHARDS; i++)
        s->ring[i] = ring_of(s->seed, i == SIM_SHARDS,
                             i == SIM_SHARDS ? &s->control.mbox : &s->shard[i].mbox);
    s->control.now_ms = s->control.start_ms;
    dial_init(&s->dial, &s->d, s->control.log);
    ASSERT(control_start(&s->control, s->ring[SIM_SHARDS], why, sizeof(why)) == 0);
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        fd = ring_listen_tcp(&at, false, true, LISTEN_BACKLOG, &s->at);
        ASSERT(fd >= 0);
        shard_start(&s->shard[i], s->ring[i], &fd, 1);
        if (s->cfg.turn_on)
            turn_open(s, i);
        if (s->cfg.dig_on)
            dig_open(s, i);
    }
}

struct sim *sim_new(uint64_t seed, struct sim_opts net, const struct config *cfg)
{
    struct sim *s = calloc(1, sizeof(*s));
    uint8_t id_seed[32] = { 0 };

    ASSERT(s != NULL);
    ASSERT(current == NULL);
    signal(SIGABRT, on_abort);
    current = s;
    s->seed = seed;
    s->full_every = 1;
    s->cfg = *cfg;
    s->net = sim_net_new(seed, net);
    sim_net_on_time(s->net, on_time, s);
    rng_seed_fake(seed);
    crypto_init();
    put_u64(id_seed, seed);
    identity_from_seed(id_seed, &s->me);
    s->log = log_new(&s->cfg);
    ASSERT(s->log != NULL);
    start(s);
    s->aead = aead_new();
    s->table = (struct yamux_table){ .bucket = s->bucket, .mask = SIM_BUCKETS - 1 };
    return s;
}

void sim_free(struct sim *s)
{
    for (unsigned i = 0; i < SIM_SHARDS; i++) {
        if (s->shard[i].turn != NULL)
            turn_shard_fini(s->shard[i].turn);
        dig_shard_free(&s->shard[i]);
        shard_fini(&s->shard[i]);
    }
    if (s->d.turn != NULL)
        turn_host_fini(s->d.turn);
    control_fini(&s->control);
    if (s->d.dig != NULL)
        dig_host_fini(s->d.dig, SIM_SHARDS);
    daemon_fini(&s->d);
    for (unsigned i = 0; i <= SIM_SHARDS; i++)
        ring_free(s->ring[i]);
    log_free(s->log);
    sim_peers_free(s);
    aead_free(s->aead);
    sim_net_free(s->net);
    clock_set_real();
    rng_real();
    free(s);
    current = NULL;
}

/* Stepping */

/* Its thread is gone: what still comes to its ring is nobody's. */
static void after_end(struct sim *s, unsigned owner)
{
    struct ring_cqe cqe;

    if (ring_wait(s->ring[owner], UINT64_MAX) != 0)
        sim_break(s, "a ring without owner fails");
    while (ring_next(s->ring[owner], &cqe))
        if (ud_op(cqe.ud) >= OP_ACCEPT && ud_op(cqe.ud) <= OP_DIAL && owner < SIM_SHARDS)
            sim_break(s, "shard %u ended before its operation %u", owner, ud_op(cqe.ud));
}

static void turn(struct sim *s, unsigned owner)
{
    int err;

    if (!sim_ring_awake(s->ring[owner]))
        return;
    if (s->ended[owner]) {
        after_end(s, owner);
        return;
    }
    err =
        owner == SIM_SHARDS ? control_turn(&s->control, true) : shard_turn(&s->shard[owner], true);
    if (err == 0)
        return;
    s->ended[owner] = true;
    if (err != -ECANCELED)
        sim_break(s, "owner %u stops: %d", owner, err);
    else if (owner < SIM_SHARDS)
        atomic_fetch_add(&s->control.shards_done, 1);
    if (owner < SIM_SHARDS)
        ring_wake(s->ring[SIM_SHARDS]); /* as main.c does */
    else if (atomic_load(&s->control.shards_done) != SIM_SHARDS)
        sim_break(s, "control gave up waiting: only %u shards have ended",
                  atomic_load(&s->control.shards_done));
}

bool sim_step(struct sim *s)
{
    static const uint8_t orders[6][SIM_SHARDS + 1] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
                                                       { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
    const uint8_t *order = orders[sim_below(s->net, 6)];

    s->steps++;
    if (!sim_net_step(s->net))
        sim_break(s, "nothing will ever happen again");
    for (unsigned i = 0; i <= SIM_SHARDS; i++)
        if (!sim_chance(s->net, LATE_PCT))
            turn(s, order[i]);
    for (size_t i = 0; i < s->conns_n; i++)
        sim_conn_look(s->conns[i]);
    if (s->turn != NULL)
        sim_turn_look(s->turn);
    if (s->dig != NULL)
        sim_dig_look(s->dig);
    sim_check_cheap(s);
    if (s->full_every != 0 && s->steps % s->full_every == 0)
        sim_check_full(s);
    return sim_why(s) == NULL;
}

static bool all_ended(const struct sim *s)
{
    for (unsigned i = 0; i <= SIM_SHARDS; i++)
        if (!s->ended[i])
            return false;
    return true;
}

void sim_run_ms(struct sim *s, uint64_t ms)
{
    uint64_t end_ms = sim_now(s) + ms;

    while (sim_now(s) < end_ms && !all_ended(s)) {
        sim_net_alarm(s->net, end_ms);
        if (!sim_step(s))
            return;
    }
}

/* Ending */

static void hang_up_all(struct sim *s)
{
    for (size_t i = 0; i < s->conns_n; i++)
        sim_hang_up(s->conns[i], sim_chance(s->net, 70) ? HANG_FIN : HANG_RST);
    if (s->dig != NULL)
        sim_dig_hang_up(s->dig);
}

static void terminate(struct sim *s)
{
    atomic_fetch_add(&s->control.terms, 1);
    ring_wake(s->ring[SIM_SHARDS]);
}

bool sim_end(struct sim *s)
{
    bool first = sim_chance(s->net, 50); /* who says goodbye first */
    uint64_t end_ms = sim_now(s) + END_MS_MAX + (uint64_t)s->cfg.drain_s * 1000;

    for (size_t i = 0; i < s->conns_n; i++)
        s->conns[i]->excused = true;
    if (s->dig != NULL)
        s->dig->ending = true;
    if (sim_why(s) == NULL && first) {
        hang_up_all(s);
        sim_run_ms(s, sim_below(s->net, 100));
    }
    terminate(s);
    if (sim_chance(s->net, 30)) {
        sim_run_ms(s, sim_below(s->net, 300));
        terminate(s);
    }
    while (!all_ended(s) && sim_why(s) == NULL && sim_now(s) < end_ms) {
        sim_net_alarm(s->net, end_ms);
        sim_step(s);
    }
    hang_up_all(s);
    if (!all_ended(s))
        sim_break(s, "the daemon does not end");
    if (sim_why(s) == NULL)
        sim_check_ended(s);
    return sim_why(s) == NULL;
}
