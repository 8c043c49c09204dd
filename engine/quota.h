/* engine/quota.h: counts and rates across shards, without passing through control (design.md
 * "Limits across shards"). Both are fixed process-wide tables keyed by a keyed hash.
 *
 * Counts are exact: take succeeds at most `max` times without drops in between, on any thread, and
 * every take is matched by one drop. Set-up path only, so a set's cache line is guarded by a
 * test-and-set word held for a dozen instructions; forwarding never comes here.
 * Rates are GCRA in one atomic word per cell, four-way sets: approximate only in that an old idle
 * key may be forgotten, which errs towards allowing. */
#ifndef SLUICE_ENGINE_QUOTA_H
#define SLUICE_ENGINE_QUOTA_H

#include "proto/base.h"

struct quota; /* quota.c */
struct quota *quota_new(uint32_t keys_max, uint32_t rate_cells, const uint8_t key[16]);
void quota_free(struct quota *q);

enum quota_kind {
    QUOTA_CONN_IP = 1,
    QUOTA_CONN_SUBNET,
    QUOTA_CONN_PEER,
    QUOTA_CONN_TOTAL,
    QUOTA_CIRCUIT_PEER,
    QUOTA_CIRCUIT_TOTAL,
    QUOTA_CIRCUIT_IP,
    RATE_CONNECT_PEER,
    RATE_CONNECT_IP,
    RATE_HANDSHAKE_IP,
    RATE_PUSH_SUBNET,
    RATE_TURN_SAY, /* turn_say.c */
    RATE_TURN_SAY_ALL,
    QUOTA_TURN_TOTAL,
    QUOTA_TURN_USER, /* by it also what a user carries */
    QUOTA_TURN_IP,
    RATE_TURN_REPLY_IP,
    RATE_TURN_REPLY_NET,
    QUOTA_DIG_TOTAL,
    QUOTA_DIG_IP,
    RATE_DIG_REGISTER_IP,
    RATE_DIG_PUNCH_FROM,
    RATE_DIG_PUNCH_TO,
    RATE_TURN_REPLY_ALL,
};
/* Key of (kind, subject). Never 0. */
uint64_t quota_key(const struct quota *q, enum quota_kind kind, struct bytes subject);

/* max 0 = no limit (still counted). false: at the limit, or the table's set is full (counted in
 * quota_overflows); nothing was taken. */
MUST_USE bool quota_take(struct quota *q, uint64_t key, uint32_t max);
/* The same, and the count with it: who sees 1 is the first. */
MUST_USE bool quota_take_n(struct quota *q, uint64_t key, uint32_t max, uint32_t *now);
/* ASSERTs that something was taken; returns what is left: who sees 0 was the last. */
uint32_t quota_drop(struct quota *q, uint64_t key);
uint32_t quota_count(const struct quota *q, uint64_t key);
uint64_t quota_overflows(const struct quota *q);
size_t quota_live(const struct quota *q); /* keys with a count above 0, for the balance checks */

/* burst tokens deep, one back per refill_ms; burst 0 = no limit. */
MUST_USE bool rate_allow(struct quota *q, uint64_t key, uint64_t now_ms, uint32_t burst,
                         uint64_t refill_ms);
/* Rates of anything, in ns: each turn costs cost_ns of time, and may begin while at most depth_ns
 * are owed. So bytes are metered by n * 1e9 / bytes_per_s: exact in the long run, whatever a turn's
 * size, and one that is larger than the depth still passes. Keys are whole, and a cell is given to
 * another key when its debt is paid: then nothing is forgotten. true always until
 * quota_meters has made room. */
MUST_USE bool rate_spend(struct quota *q, uint64_t key, uint64_t now_ns, uint64_t cost_ns,
                         uint64_t depth_ns);
MUST_USE int quota_meters(struct quota *q, uint32_t meters); /* 0 or -errno; once, before threads */

/* Also a pure function, for tests: one GCRA step on a cell's theoretical arrival time. */
bool gcra_step(uint64_t *tat_ms, uint64_t now_ms, uint32_t burst, uint64_t refill_ms);

#endif
