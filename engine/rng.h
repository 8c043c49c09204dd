/* engine/rng.h: the only caller of getrandom. Any thread.
 * Errors: a kernel that cannot give random bytes is one we cannot run on, so failure is an ASSERT.
 * rng_seed_fake makes the stream a function of the seed, for the simulation and tests only: main.c
 * never calls it. */
#ifndef SLUICE_ENGINE_RNG_H
#define SLUICE_ENGINE_RNG_H

#include "proto/base.h"

void rng_bytes(void *to, size_t n);
uint64_t rng_u64(void);
uint64_t rng_below(uint64_t bound); /* uniform in 0..bound-1; bound > 0 */

void rng_seed_fake(uint64_t seed);
void rng_real(void);

#endif
