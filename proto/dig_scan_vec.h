/* proto/dig_scan_vec.h: the loops of dig_scan_run.c for one width of vector. Included once for
 * each, with VEC_BYTES, VEC_TARGET (the attribute that lets the compiler use such vectors),
 * VEC_NAME(x) (x with the width in it) and VEC_MASK(v) (a bit for each byte that is below zero).
 * Vectors are of signed bytes, written with the operators that gcc and clang give them: what is not
 * ASCII is below everything that is. */

typedef signed char VEC_NAME(vec) __attribute__((vector_size(VEC_BYTES)));
#define VEC VEC_NAME(vec)

VEC_TARGET static inline void VEC_NAME(load)(const uint8_t *p, VEC *v)
{
    memcpy(v, p, VEC_BYTES);
}

VEC_TARGET static const uint8_t *VEC_NAME(run_string)(const uint8_t *p, const uint8_t *end,
                                                      bool *high)
{
    while (end - p >= VEC_BYTES) {
        VEC x;

        VEC_NAME(load)(p, &x);
        uint32_t over = VEC_MASK(x);
        uint32_t stop = VEC_MASK((x == '"') | (x == '\\') | (x < 0x20)) & ~over;

        *high |= over != 0;
        if (stop)
            return p + __builtin_ctz(stop);
        p += VEC_BYTES;
    }
    return p;
}

struct VEC_NAME(judged) {
    VEC comma; /* is a comma */
    VEC odd;   /* is neither that nor a digit */
    VEC bad;   /* ends something wrong */
};

/* Each byte beside the three before it, which loads at lower addresses fetch for nothing: so
 * nothing is carried from one vector to the next. Where it is a digit or a comma, as were all
 * others since the first comma, these are the ways to go wrong (dig.md §4.1):
 *   - a comma behind a comma;
 *   - a fourth digit: none of the four is a comma;
 *   - a digit behind a zero with which its number begins, for a comma stands before that;
 *   - a third digit that makes more than 255: the first is above 2; or it is 2 and the second
 *     above 5; or that is 5 and the third above 5. A comma is above none of them. */
VEC_TARGET static inline void VEC_NAME(judge)(const uint8_t *p, struct VEC_NAME(judged) * j)
{
    VEC x0, x1, x2, x3;

    VEC_NAME(load)(p, &x0);
    VEC_NAME(load)(p - 1, &x1);
    VEC_NAME(load)(p - 2, &x2);
    VEC_NAME(load)(p - 3, &x3);
    VEC c0 = x0 == ',', c1 = x1 == ',', c2 = x2 == ',', c3 = x3 == ',';
    VEC digit = (x0 > '/') & (x0 < ':');
    VEC above = (x2 > '2') & ~c1;
    VEC two = (x2 == '2') & ((x1 > '5') | ((x1 == '5') & (x0 > '5')));
    VEC zero = (x1 == '0') & c2;

    j->comma = c0;
    j->odd = ~(c0 | digit);
    j->bad = (c0 & c1) | ~(c0 | c1 | c2 | c3) | (~c0 & (above | two | zero));
}

/* As dig_run_bytes() of dig_scan_int.h. */
VEC_TARGET static const uint8_t *VEC_NAME(run_bytes)(const uint8_t *p, const uint8_t *end,
                                                     size_t *count)
{
    struct VEC_NAME(judged) j, k;
    uint32_t stop = 0;

    while (end - p >= 2 * VEC_BYTES) {
        VEC_NAME(judge)(p, &j);
        VEC_NAME(judge)(p + VEC_BYTES, &k);
        if (VEC_MASK(j.odd | j.bad | k.odd | k.bad))
            break; /* below, where it is found out which comes first */
        *count += bits(VEC_MASK(j.comma)) + bits(VEC_MASK(k.comma));
        p += 2 * VEC_BYTES;
    }
    while (!stop && end - p >= VEC_BYTES) {
        VEC_NAME(judge)(p, &j);
        stop = VEC_MASK(j.odd);
        uint32_t before = stop ? (stop & -stop) - 1 : UINT32_MAX;

        if (VEC_MASK(j.bad) & before)
            return NULL;
        *count += bits(VEC_MASK(j.comma) & before);
        p += stop ? __builtin_ctz(stop) : VEC_BYTES;
    }
    while (p[-1] != ',') /* back to the front of a number that was cut: three digits at most */
        p--;
    return p;
}

#undef VEC
