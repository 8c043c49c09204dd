#include "engine/rng.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>

static _Atomic bool fake;
static _Atomic uint64_t fake_state;

/* SplitMix64, a counter and a mix: threads may draw from it without a lock. */
static uint64_t fake_u64(void)
{
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = atomic_fetch_add_explicit(&fake_state, step, memory_order_relaxed) + step;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void fake_bytes(uint8_t *at, size_t n)
{
    while (n) {
        uint64_t r = fake_u64();
        size_t part = min_sz(n, sizeof(r));

        memcpy(at, &r, part);
        at += part;
        n -= part;
    }
}

void rng_bytes(void *to, size_t n)
{
    uint8_t *at = to;

    if (atomic_load_explicit(&fake, memory_order_relaxed)) {
        fake_bytes(at, n);
        return;
    }
    while (n) {
        ssize_t got = getrandom(at, n, 0);

        if (got < 0) {
            ASSERT(errno == EINTR);
            continue;
        }
        at += got;
        n -= (size_t)got;
    }
}

uint64_t rng_u64(void)
{
    uint64_t r;

    rng_bytes(&r, sizeof(r));
    return r;
}

uint64_t rng_below(uint64_t bound)
{
    uint64_t r;

    ASSERT(bound > 0);
    /* The values below 2^64 mod bound would make the first remainders likelier. */
    uint64_t skip = -bound % bound;

    do
        r = rng_u64();
    while (r < skip);
    return r % bound;
}

void rng_seed_fake(uint64_t seed)
{
    atomic_store_explicit(&fake_state, seed, memory_order_relaxed);
    atomic_store_explicit(&fake, true, memory_order_relaxed);
}

void rng_real(void)
{
    atomic_store_explicit(&fake, false, memory_order_relaxed);
}
