/* tests/unit/hop_table.h: one reservation machine with its tables, and names for peers and IPs. */
#ifndef SLUICE_TESTS_HOP_TABLE_H
#define SLUICE_TESTS_HOP_TABLE_H

#include "proto/hop.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

static const uint8_t hash_key[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static struct hop h;
static void *tables;

static inline void start(struct hop_limits limits)
{
    if (!limits.reservation_ms)
        limits.reservation_ms = 3600000;
    free(tables);
    tables = calloc(1, hop_counts_bytes(limits.reservations_max));
    hop_init(&h, &limits, tables, hash_key);
}

static inline void stop(void)
{
    free(tables);
    tables = NULL;
}

static inline struct peer_id peer(uint32_t i)
{
    struct peer_id id = { .n = 38, .b = { 0x00, 0x24, 0x08, 0x01, 0x12, 0x20 } };

    put_u32(id.b + 20, i);
    return id;
}

struct ip {
    uint8_t b[16];
};

static inline struct ip ip4(uint32_t addr)
{
    struct ip ip = { .b = { [10] = 0xff, [11] = 0xff } };

    put_u32(ip.b + 12, addr);
    return ip;
}

static inline struct ip ip6(uint64_t net, uint64_t host)
{
    struct ip ip;

    put_u64(ip.b, net);
    put_u64(ip.b + 8, host);
    return ip;
}

static inline enum hop_verdict reserve(uint64_t now_ms, struct hop_slot *slot, uint32_t who,
                                       struct ip ip)
{
    struct peer_id id = peer(who);

    return hop_on_reserve(&h, now_ms, slot, &id, ip.b);
}

static inline uint32_t count_of(uint32_t who)
{
    struct peer_id id = peer(who);

    return hop_peer_reservations(&h, &id);
}

#endif
