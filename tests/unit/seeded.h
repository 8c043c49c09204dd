/* tests/unit/seeded.h: reproducible choices for property tests: one seed, one run. */
#ifndef SLUICE_TESTS_UNIT_SEEDED_H
#define SLUICE_TESTS_UNIT_SEEDED_H

#include <stdint.h>
#include <time.h>

struct seeded {
    uint64_t state;
};

static inline uint64_t seeded_u64(struct seeded *s)
{
    uint64_t z = s->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t seeded_below(struct seeded *s, uint64_t bound)
{
    return seeded_u64(s) % bound;
}

/* Real time, only to bound the stress tests. */
static inline uint64_t test_real_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#endif
