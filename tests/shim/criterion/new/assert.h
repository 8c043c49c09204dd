/* tests/shim/criterion/new/assert.h: the tagged conditions of Criterion that the simulation uses. A
 * tag there is the type that both sides are read as. */
#ifndef SLUICE_TESTS_SHIM_CRITERION_NEW_ASSERT_H
#define SLUICE_TESTS_SHIM_CRITERION_NEW_ASSERT_H

#include <stddef.h>
#include <stdint.h>

typedef int shim_int;
typedef unsigned shim_uint;
typedef long shim_long;
typedef size_t shim_sz;
typedef uint8_t shim_u8;
typedef uint32_t shim_u32;
typedef uint64_t shim_u64;
typedef const void *shim_ptr;

#define eq(tag, a, b) ((shim_##tag)(a) == (shim_##tag)(b))
#define ne(tag, a, b) ((shim_##tag)(a) != (shim_##tag)(b))
#define lt(tag, a, b) ((shim_##tag)(a) < (shim_##tag)(b))
#define le(tag, a, b) ((shim_##tag)(a) <= (shim_##tag)(b))
#define ge(tag, a, b) ((shim_##tag)(a) >= (shim_##tag)(b))
#define not(cond) (!(cond))

#endif
