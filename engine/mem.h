/* engine/mem.h: memory that is reserved once at start and touched as it is first used. A maximum
 * costs address space, not pages, until somebody needs it. */
#ifndef SLUICE_ENGINE_MEM_H
#define SLUICE_ENGINE_MEM_H

#include "proto/base.h"

#if defined(__SANITIZE_ADDRESS__)
#define MEM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_ASAN 1
#endif
#endif
#ifdef MEM_ASAN
#include <sanitizer/asan_interface.h>
#endif

/* count * each bytes of zeroes, page-aligned; NULL with *err = -errno when they cannot be had.
 * Nothing asked for gives NULL and *err = 0. */
void *mem_reserve(size_t count, size_t each, int *err);
void mem_release(void *p, size_t count, size_t each); /* NULL is fine */

/* What a pool holds back is out of bounds for everybody: the address sanitizer then sees a use
 * after free in our pools as it sees one in the heap. Nothing in other builds. */
static inline void mem_poison(const void *p, size_t n)
{
#ifdef MEM_ASAN
    ASAN_POISON_MEMORY_REGION(p, n);
#else
    (void)p;
    (void)n;
#endif
}

static inline void mem_unpoison(const void *p, size_t n)
{
#ifdef MEM_ASAN
    ASAN_UNPOISON_MEMORY_REGION(p, n);
#else
    (void)p;
    (void)n;
#endif
}

#endif
