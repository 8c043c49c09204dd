#include "engine/mem.h"

#include <errno.h>
#include <sys/mman.h>

void *mem_reserve(size_t count, size_t each, int *err)
{
    size_t bytes;

    *err = 0;
    if (__builtin_mul_overflow(count, each, &bytes)) {
        *err = -ENOMEM;
        return NULL;
    }
    if (bytes == 0)
        return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        *err = -errno;
        return NULL;
    }
    /* With huge pages set to "always" the first byte of every pool would cost 2
     * MiB. A kernel without them says EINVAL, which is just as well. */
    (void)madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

void mem_release(void *p, size_t count, size_t each)
{
    if (!p)
        return;
    mem_unpoison(p, count * each); /* somebody else may get these addresses */
    ASSERT(munmap(p, count * each) == 0);
}
