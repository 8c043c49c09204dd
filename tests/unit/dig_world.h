/* tests/unit/dig_world.h: a registry on the heap, and claims by number. */
#ifndef SLUICE_TESTS_UNIT_DIG_WORLD_H
#define SLUICE_TESTS_UNIT_DIG_WORLD_H

#include "proto/crypto.h"
#include "proto/dig_reg.h"
#include "tests/unit/seeded.h"

#include <stdio.h>
#include <stdlib.h>

static struct dig_reg reg;
static void *reg_mem;

static inline uint64_t world_u64(void *arg)
{
    return seeded_u64(arg);
}

static inline void reg_start(uint32_t max)
{
    static const uint8_t key[16] = { 2, 7, 1, 8 };

    crypto_init();
    reg_mem = calloc(1, dig_reg_bytes(max));
    ASSERT(reg_mem);
    dig_reg_init(&reg, reg_mem, max, key);
}

static inline void reg_stop(void)
{
    free(reg_mem);
    reg_mem = NULL;
}

static inline struct dig_home home_at(uint32_t slot)
{
    return (struct dig_home){ .slot = slot, .gen = 1, .shard = (uint8_t)(slot % 3) };
}

/* By number: 64 hex digits, of which the first eight differ (like those of real ids). */
static inline struct bytes hex_id(char text[65], uint32_t i)
{
    snprintf(text, 65, "%08x%056x", i * UINT32_C(2654435761), i);
    return bytes_of(text, 64);
}

static inline struct dig_claim claim_of(struct bytes id, const char *network, uint32_t slot)
{
    struct dig_claim c = { .id = id,
                           .network = bytes_str(network),
                           .protocol_version = 1,
                           .connected_at_unix_s = 1795150343,
                           .home = home_at(slot) };

    c.observed = (struct netaddr){ .ip = { [10] = 0xff, 0xff, 203, 0, 113 },
                                   .port = (uint16_t)(1024 + slot) };
    c.observed.ip[15] = (uint8_t)slot;
    c.source.b[0] = (uint8_t)slot;
    c.source.b[1] = (uint8_t)(slot >> 8);
    c.source.b[2] = (uint8_t)(slot >> 16);
    return c;
}

static inline enum dig_reg_verdict add_text(const char *id, const char *network, uint32_t slot,
                                            struct dig_member **m)
{
    struct dig_claim c = claim_of(bytes_str(id), network, slot);

    return dig_reg_add(&reg, &c, m);
}

static inline bool remove_slot(uint32_t slot)
{
    struct dig_home home = home_at(slot);

    return dig_reg_remove(&reg, &home);
}

#endif
