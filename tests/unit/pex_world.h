/* tests/unit/pex_world.h: a registry with the PEX machine beside it, on one clock. */
#ifndef SLUICE_TESTS_UNIT_PEX_WORLD_H
#define SLUICE_TESTS_UNIT_PEX_WORLD_H

#include "proto/pex_int.h"
#include "tests/unit/dig_world.h"

static struct pex pex;
static void *pex_mem;
static struct pex_out out;
static uint64_t now_ms;
static uint64_t seen_at[1 << 12]; /* by member->index: what last_seen says */

static inline uint64_t world_last_seen(void *arg, const struct dig_member *m)
{
    (void)arg;
    return seen_at[m->index % ARRAY_LEN(seen_at)];
}

static inline void pex_start(uint32_t max, struct seeded *dice)
{
    reg_start(max);
    pex_mem = calloc(1, pex_bytes(max));
    ASSERT(pex_mem);
    now_ms = 12345;
    pex_init(&pex, pex_mem, max,
             &(struct pex_setup){
                 .reg = &reg, .rng = { world_u64, dice }, .last_seen = world_last_seen });
}

static inline void pex_stop(void)
{
    free(pex_mem);
    reg_stop();
}

/* As control does it. */
static inline struct dig_member *join(struct bytes id, const char *network, uint32_t slot)
{
    struct dig_claim c = claim_of(id, network, slot);
    struct dig_member *m = NULL;

    if (dig_reg_add(&reg, &c, &m) != DIG_REG_ADDED)
        return NULL;
    seen_at[m->index % ARRAY_LEN(seen_at)] = 1795150343 + now_ms / 1000;
    pex_on_join(&pex, now_ms, m);
    return m;
}

static inline struct dig_member *join_hex(uint32_t i, const char *network, uint32_t slot)
{
    char id[65];

    return join(hex_id(id, i), network, slot);
}

static inline void leave(struct dig_member *m)
{
    struct dig_home home = m->home;

    pex_on_leave(&pex, now_ms, m);
    ASSERT(dig_reg_remove(&reg, &home));
}

static inline void send_frame(struct dig_member *m, struct pex_frame f)
{
    pex_on_frame(&pex, now_ms, m, &f, &out);
}

static inline void handshake(struct dig_member *m, uint32_t interval_s)
{
    send_frame(m, (struct pex_frame){ .kind = DIG_PEX_HANDSHAKE,
                                      .version = 1,
                                      .network_matches = true,
                                      .interval_s = interval_s });
}

#endif
