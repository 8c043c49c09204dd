/* engine/mem.h: memory that is reserved once at start and touched as it is first used. A maximum
 * costs address space, not pages, until somebody needs it. */
#ifndef SLUICE_ENGINE_MEM_H
#define SLUICE_ENGINE_MEM_H

#include "proto/base.h"

/* count * each bytes of zeroes, page-aligned; NULL with *err = -errno when they cannot be had.
 * Nothing asked for gives NULL and *err = 0. */
void *mem_reserve(size_t count, size_t each, int *err);
void mem_release(void *p, size_t count, size_t each); /* NULL is fine */

#endif
