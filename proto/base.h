/* proto/base.h: what every file starts from. Pure. */
#ifndef SLUICE_PROTO_BASE_H
#define SLUICE_PROTO_BASE_H

#include <assert.h> /* static_assert only; ASSERT below is ours */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* A broken invariant of ours ends the process with file and line, in every build (conventions.md,
 * "Errors"). Never for a peer's input. */
_Noreturn void assert_failed(const char *file, int line, const char *what);
#define ASSERT(cond)                                                                               \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            assert_failed(__FILE__, __LINE__, #cond);                                              \
    } while (0)

/* A borrowed view: dies with what it points into. */
struct bytes {
    const uint8_t *p;
    size_t n;
};

static inline struct bytes bytes_of(const void *p, size_t n)
{
    return (struct bytes){ (const uint8_t *)p, n };
}

static inline struct bytes bytes_str(const char *s)
{
    return bytes_of(s, strlen(s));
}

static inline bool bytes_eq(struct bytes a, struct bytes b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline size_t min_sz(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

#endif
