#include "proto/dig_scan_int.h"

static const uint8_t *run_string(const uint8_t *p, const uint8_t *end, bool *high)
{
    uint8_t all = 0;

    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20)
        all |= *p++;
    *high |= all >= 0x80;
    return p;
}

#if defined(__x86_64__)

#include <immintrin.h>

/* How many are set. The instruction for it came after x86-64. */
static inline size_t bits(uint32_t m)
{
    m -= m >> 1 & 0x55555555;
    m = (m & 0x33333333) + (m >> 2 & 0x33333333);
    return ((m + (m >> 4)) & 0x0f0f0f0f) * 0x01010101u >> 24;
}

#define VEC_BYTES 16 /* every x86-64 has these */
#define VEC_TARGET
#define VEC_NAME(x) x##_16
#define VEC_MASK(v) ((uint32_t)_mm_movemask_epi8((__m128i)(v)))
#include "proto/dig_scan_vec.h"
#undef VEC_BYTES
#undef VEC_TARGET
#undef VEC_NAME
#undef VEC_MASK

#define VEC_BYTES 32
#define VEC_TARGET __attribute__((target("avx2")))
#define VEC_NAME(x) x##_32
#define VEC_MASK(v) ((uint32_t)_mm256_movemask_epi8((__m256i)(v)))
#include "proto/dig_scan_vec.h"

/* Half the time of the other (bench/micro/dig_scan.c). What the machine has was found out when the
 * process began, by the compiler's library: here it is a load and a test. */
enum dig_vec dig_vec_best(void)
{
    return __builtin_cpu_supports("avx2") ? DIG_VEC_32 : DIG_VEC_16;
}

const uint8_t *dig_run_string(enum dig_vec vec, const uint8_t *p, const uint8_t *end, bool *high)
{
    if (vec == DIG_VEC_32)
        p = run_string_32(p, end, high);
    else if (vec == DIG_VEC_16)
        p = run_string_16(p, end, high);
    return run_string(p, end, high);
}

const uint8_t *dig_run_bytes(enum dig_vec vec, const uint8_t *p, const uint8_t *end, size_t *count)
{
    if (vec == DIG_VEC_32)
        p = run_bytes_32(p, end, count);
    if (p && vec != DIG_VEC_NONE) /* less than a wide one may be left */
        p = run_bytes_16(p, end, count);
    return p;
}

#else

enum dig_vec dig_vec_best(void)
{
    return DIG_VEC_NONE;
}

const uint8_t *dig_run_string(enum dig_vec vec, const uint8_t *p, const uint8_t *end, bool *high)
{
    (void)vec;
    return run_string(p, end, high);
}

const uint8_t *dig_run_bytes(enum dig_vec vec, const uint8_t *p, const uint8_t *end, size_t *count)
{
    (void)vec, (void)end, (void)count;
    return p;
}

#endif
