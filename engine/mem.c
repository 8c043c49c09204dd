#include "engine/mem.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* With a page behind it that nobody may touch: a length that was wrong ends the process, and does
 * not write into what happens to lie next. */
static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static bool rounded_up(size_t bytes, size_t *out)
{
    size_t page = guard_bytes();

    if (__builtin_add_overflow(bytes, page - 1, out))
        return false;
    *out -= *out % page;
    return *out <= SIZE_MAX - page;
}

void *mem_reserve(size_t count, size_t each, int *err)
{
    size_t bytes, whole;

    *err = 0;
    if (__builtin_mul_overflow(count, each, &bytes) || !rounded_up(bytes, &whole)) {
        *err = -ENOMEM;
        return NULL;
    }
    if (bytes == 0)
        return NULL;
    uint8_t *p = mmap(NULL, whole + guard_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        *err = -errno;
        return NULL;
    }
    ASSERT(mprotect(p + whole, guard_bytes(), PROT_NONE) == 0);
    mem_poison(p + bytes, whole - bytes);
    /* With huge pages set to "always" the first byte of every pool would cost 2
     * MiB. A kernel without them says EINVAL, which is just as well. */
    (void)madvise(p, whole, MADV_NOHUGEPAGE);
    return p;
}

void mem_release(void *p, size_t count, size_t each)
{
    size_t whole = 0;

    if (!p)
        return;
    ASSERT(rounded_up(count * each, &whole));
    mem_unpoison(p, whole); /* somebody else may get these addresses */
    ASSERT(munmap(p, whole + guard_bytes()) == 0);
}
