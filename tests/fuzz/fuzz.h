/* tests/fuzz/fuzz.h: what a fuzz target needs. A target is one file fuzz_NAME.c with one function,
 * LLVMFuzzerTestOneInput, that returns 0. It checks properties (decode, encode, decode again gives
 * the same) with CHECK, not only that nothing crashes. */
#ifndef SLUICE_TESTS_FUZZ_FUZZ_H
#define SLUICE_TESTS_FUZZ_FUZZ_H

#include "proto/cur.h"

#define CHECK(cond) ASSERT(cond)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input of a target that drives a machine is a program: these read its next operand. At the end
 * they give zeroes and an empty view, and c->bad stays to be asked: `while (!c.bad)`. */
static inline uint8_t fuzz_u8(struct cur *c)
{
    return cur_u8(c);
}

/* One byte says how many of the next bytes; cut short at the end of the input. */
static inline struct bytes fuzz_bytes(struct cur *c)
{
    size_t n = cur_u8(c);

    return cur_take(c, min_sz(n, c->n));
}

/* All that is left. */
static inline struct bytes fuzz_rest(struct cur *c)
{
    return cur_take(c, c->n);
}

#endif
