#include "engine/clock.h"

#include <stdatomic.h>
#include <time.h>

/* The fake is read by every thread and set by a test between steps: each value stands for itself,
 * so relaxed is enough. */
static _Atomic bool fake;
static _Atomic uint64_t fake_mono_ms, fake_unix_s;

static bool is_fake(void)
{
    return __builtin_expect(atomic_load_explicit(&fake, memory_order_relaxed), 0);
}

static uint64_t ns_of(clockid_t id)
{
    struct timespec t;

    ASSERT(clock_gettime(id, &t) == 0); /* cannot fail for the two clocks asked here */
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
    if (is_fake())
        return atomic_load_explicit(&fake_mono_ms, memory_order_relaxed) * 1000000;
    return ns_of(CLOCK_MONOTONIC);
}

uint64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000;
}

uint64_t clock_unix_ms(void)
{
    if (is_fake())
        return atomic_load_explicit(&fake_unix_s, memory_order_relaxed) * 1000;
    return ns_of(CLOCK_REALTIME) / 1000000;
}

uint64_t clock_unix_s(void)
{
    return clock_unix_ms() / 1000;
}

void clock_set_fake(uint64_t mono_ms, uint64_t unix_s)
{
    atomic_store_explicit(&fake_mono_ms, mono_ms, memory_order_relaxed);
    atomic_store_explicit(&fake_unix_s, unix_s, memory_order_relaxed);
    atomic_store_explicit(&fake, true, memory_order_relaxed);
}

void clock_set_real(void)
{
    atomic_store_explicit(&fake, false, memory_order_relaxed);
}
