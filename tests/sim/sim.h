/* tests/sim/sim.h: the daemon itself, two shards and control, in one thread on rings of sim_net.h,
 * and the checks that must hold after every step. sim_peer.h has the clients.
 *
 * A step: the network moves, each owner of a ring that is awake takes a turn in seeded order (now
 * and then one is late), each client looks at its bytes, the balances are checked. Owners really
 * wait: they tell the simulation their deadline, and time jumps to the earliest; a wake-up that is
 * forgotten shows as something that never happens.
 *
 * Whatever is wrong, sim_why tells it, the first thing first; a crash prints the seed too. */
#ifndef SLUICE_TESTS_SIM_H
#define SLUICE_TESTS_SIM_H

#include "engine/control.h"
#include "engine/dial.h"
#include "engine/dig.h"
#include "engine/shard.h"
#include "engine/turn_shard.h"
#include "tests/sim/sim_net.h"

enum { SIM_SHARDS = 2, SIM_BUCKETS = 256, SIM_IDENTS_MAX = 64 };

struct sim_conn;
struct sim_stream;
struct sim_flow;
struct sim_ident;
struct sim_turn;
struct sim_dig;

struct sim {
    uint64_t seed, steps;
    unsigned full_every; /* steps from one full check to the next */
    struct sim_net *net;
    struct config cfg;
    struct identity me;
    struct log *log;
    struct daemon d;
    struct shard shard[SIM_SHARDS];
    struct control control;
    struct ring *ring[SIM_SHARDS + 1]; /* the last one is control's */
    bool ended[SIM_SHARDS + 1];
    struct netaddr at;
    char broken[320];

    /* clients: sim_peer.c */
    struct aead *aead;
    struct yamux_table table;
    struct yamux_stream *bucket[SIM_BUCKETS];
    struct sim_ident *ident[SIM_IDENTS_MAX];
    struct sim_conn **conns;
    struct sim_flow **flows;
    size_t conns_n, conns_cap, flows_n, flows_cap;
    /* A stop stream asks for an answer, a circuit is open: by default the answer is OK and nothing
     * is sent. */
    void (*on_stop)(struct sim_stream *st);
    void (*on_joined)(struct sim_stream *st);
    void (*on_gossip)(struct sim_stream *st, struct bytes data); /* NULL: nobody speaks it */
    void *arg;                                                   /* of those */

    /* The TURN door, when cfg.turn_on: d.turn and shard.turn are these. */
    struct turn_host turn_host;
    struct turn_shard turn_shard[SIM_SHARDS];
    uint32_t turn_keys;    /* that TURN holds in the quota table */
    struct sim_turn *turn; /* its clients: sim_turn.h; NULL: none */

    /* The DIG door, when cfg.dig_on: d.dig is this, and shard.dig its parts. */
    struct dig_host dig_host;
    struct dial_host dial; /* of cfg.peer_relay */
    struct sim_dig *dig;   /* its clients: sim_dig.h; NULL: none */
};

/* Defaults as sluice has them (preset NULL: none), doors other than libp2p closed. */
void sim_config(struct config *c, const char *preset);
struct sim *sim_new(uint64_t seed, struct sim_opts net, const struct config *cfg);
/* One step and its checks. false: something is broken. */
bool sim_step(struct sim *s);
/* Until `ms` later, or until something is broken. */
void sim_run_ms(struct sim *s, uint64_t ms);
/* Clients hang up, the daemon drains and stops, everything must be back. false: it was not. */
bool sim_end(struct sim *s);
void sim_free(struct sim *s);

static inline uint64_t sim_now(const struct sim *s)
{
    return sim_net_now_ms(s->net);
}
/* The first thing that went wrong; NULL: nothing did. */
const char *sim_why(struct sim *s);
void sim_break(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* sim_check.c */
void sim_check_cheap(struct sim *s);
void sim_check_full(struct sim *s);
void sim_check_ended(struct sim *s); /* after the last turn, before anything is freed */

/* Failure messages name the seed, which then stays as a test. */
#define SIM_SEED(s) "seed %llu: %s", (unsigned long long)(s)->seed, sim_why(s) ? sim_why(s) : ""
#define SIM_OK(s)                                                                                  \
    do {                                                                                           \
        if (sim_why(s) != NULL)                                                                    \
            cr_fatal(SIM_SEED(s));                                                                 \
    } while (0)
/* Steps until cond holds; fails when it does not within ms. */
#define SIM_UNTIL(s, cond, ms) SIM_UNTIL_BY(sim_step, s, cond, ms)
/* The same by steps of the test's own. */
#define SIM_UNTIL_BY(by, s, cond, ms)                                                              \
    do {                                                                                           \
        uint64_t sim_end_ms = sim_now(s) + (ms);                                                   \
        while (!(cond) && sim_now(s) < sim_end_ms) {                                               \
            sim_net_alarm((s)->net, sim_end_ms);                                                   \
            if (!by(s))                                                                            \
                break;                                                                             \
        }                                                                                          \
        SIM_OK(s);                                                                                 \
        if (!(cond))                                                                               \
            cr_fatal("seed %llu: never: %s", (unsigned long long)(s)->seed, #cond);                \
    } while (0)

#endif
