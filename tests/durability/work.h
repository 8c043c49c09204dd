/* tests/durability/work.h: a seeded workload on a store, and what a store holds, as one number. */
#ifndef SLUICE_TESTS_DURABILITY_WORK_H
#define SLUICE_TESTS_DURABILITY_WORK_H

#include "store/store.h"

enum { WORK_SECRET = 16 };

struct work_state {
    uint64_t digest; /* of every record, envelopes byte for byte */
    uint64_t records;
};

struct dice {
    uint64_t z;
};
uint32_t dice_any(struct dice *d, uint32_t n);

/* Runs txns transactions; gives the states after 0, 1, ... of them (txns + 1), state[i] is marked
 * in the trace once i commits are acknowledged. secret is the store's, acknowledged by mark 1. */
void work_run(const char *dir, uint64_t seed, uint32_t txns, struct work_state *state,
              uint8_t secret[WORK_SECRET]);
struct store *work_open(const char *dir, char *why, size_t cap);
/* False: something could not be read; said in why. */
bool work_look(struct store *s, struct work_state *state, char *why, size_t cap);
/* One more transaction, as the next client would ask for. */
bool work_one_more(struct store *s, char *why, size_t cap);

#endif
