#include "proto/dig_scan_int.h"

const uint8_t *dig_run_string_scalar(const uint8_t *p, const uint8_t *end, bool *high)
{
    uint8_t all = 0;

    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20)
        all |= *p++;
    *high |= all >= 0x80;
    return p;
}

#if defined(__SSE2__)

#include <emmintrin.h>

/* Vectors of signed bytes, written with the operators that gcc and clang give them; what is not
 * ASCII is then below everything that is. Only the way back to an ordinary register is an
 * intrinsic. 16 bytes are what every x86-64 has; README.md says what 32 would bring. */
enum { LANES = 16, ALL = 0xffff };
typedef signed char vec __attribute__((vector_size(LANES)));

static inline vec load(const uint8_t *p)
{
    vec v;

    memcpy(&v, p, LANES);
    return v;
}

static inline unsigned mask(vec v)
{
    return (unsigned)_mm_movemask_epi8((__m128i)v);
}

const uint8_t *dig_run_string(const uint8_t *p, const uint8_t *end, bool *high)
{
    while (end - p >= LANES) {
        vec x = load(p);
        unsigned over = mask(x);
        unsigned stop = mask((x == '"') | (x == '\\') | (x < 0x20)) & ~over;

        *high |= over != 0;
        if (stop)
            return p + __builtin_ctz(stop);
        p += LANES;
    }
    return dig_run_string_scalar(p, end, high);
}

struct judged {
    vec comma; /* is a comma */
    vec odd;   /* is neither that nor a digit */
    vec bad;   /* ends something wrong */
};

/* Each byte beside the three before it, which loads at lower addresses fetch for nothing: so
 * nothing is carried from one vector to the next. Where it is a digit or a comma, as were all
 * others since the first comma, these are the ways to go wrong (dig.md §4.1):
 *   - a comma behind a comma;
 *   - a fourth digit: none of the four is a comma;
 *   - a digit behind a zero with which its number begins, for a comma stands before that;
 *   - a third digit that makes more than 255: the first is above 2; or it is 2 and the second
 *     above 5; or that is 5 and the third above 5. A comma is above none of them. */
static inline struct judged judge(const uint8_t *p)
{
    vec x0 = load(p), x1 = load(p - 1), x2 = load(p - 2), x3 = load(p - 3);
    vec c0 = x0 == ',', c1 = x1 == ',', c2 = x2 == ',', c3 = x3 == ',';
    vec digit = (x0 > '/') & (x0 < ':');
    vec above = (x2 > '2') & ~c1;
    vec two = (x2 == '2') & ((x1 > '5') | ((x1 == '5') & (x0 > '5')));
    vec zero = (x1 == '0') & c2;
    vec short_of_four = c0 | c1 | c2 | c3;

    return (struct judged){
        .comma = c0,
        .odd = ~(c0 | digit),
        .bad = (c0 & c1) | ~short_of_four | (~c0 & (above | two | zero)),
    };
}

/* How many lanes are set, over up to 255 vectors that were subtracted from zero. */
static inline size_t lanes(vec sum)
{
    __m128i halves = _mm_sad_epu8((__m128i)sum, _mm_setzero_si128());

    return (size_t)(_mm_cvtsi128_si32(halves) + _mm_extract_epi16(halves, 4));
}

static inline size_t bits(unsigned m)
{
    size_t n = 0;

    for (; m; m &= m - 1)
        n++;
    return n;
}

const uint8_t *dig_run_bytes(const uint8_t *p, const uint8_t *end, size_t *count)
{
    unsigned stop = 0;

    while (end - p >= 4 * LANES) {
        struct judged a = judge(p), b = judge(p + LANES);
        struct judged c = judge(p + 2 * LANES), d = judge(p + 3 * LANES);

        if (mask(a.odd | a.bad | b.odd | b.bad | c.odd | c.bad | d.odd | d.bad))
            break; /* below, where it is found out which comes first */
        *count += lanes(-a.comma - b.comma - c.comma - d.comma);
        p += 4 * LANES;
    }
    while (!stop && end - p >= LANES) {
        struct judged j = judge(p);
        unsigned before = ALL;

        stop = mask(j.odd);
        if (stop)
            before = (stop & -stop) - 1;
        if (mask(j.bad) & before)
            return NULL;
        *count += bits(mask(j.comma) & before);
        p += stop ? __builtin_ctz(stop) : LANES;
    }
    while (p[-1] != ',') /* back to the front of a number that was cut: three digits at most */
        p--;
    return p;
}

#else

const uint8_t *dig_run_string(const uint8_t *p, const uint8_t *end, bool *high)
{
    return dig_run_string_scalar(p, end, high);
}

const uint8_t *dig_run_bytes(const uint8_t *p, const uint8_t *end, size_t *count)
{
    (void)end, (void)count;
    return p;
}

#endif
