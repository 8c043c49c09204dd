/* tests/shim/criterion/criterion.h: as much of Criterion as the threaded unit tests use, in one
 * process per run. Criterion starts each test in a process whose memory it maps at addresses that
 * the thread sanitizer reserves for itself, so under -Db_sanitize=thread this stands in for it:
 * each test in a child of its own, one after the other. */
#ifndef SLUICE_TESTS_SHIM_CRITERION_H
#define SLUICE_TESTS_SHIM_CRITERION_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct shim_options {
    int unnamed; /* so that an empty list of options is a valid initializer */
    double timeout;
    int signal;
    void (*init)(void), (*fini)(void);
};

struct shim_test {
    const char *suite, *name;
    void (*run)(void);
    struct shim_options options;
};

enum { SHIM_TESTS_MAX = 256 };
static struct shim_test shim_tests[SHIM_TESTS_MAX];
static int shim_count;

#define Test(suite_, name_, ...)                                                                   \
    static void suite_##_##name_##_run(void);                                                      \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)                          \
    {                                                                                              \
        shim_tests[shim_count++] = (struct shim_test){                                             \
            #suite_, #name_, suite_##_##name_##_run, { .unnamed = 0, __VA_ARGS__ }                 \
        };                                                                                         \
    }                                                                                              \
    static void suite_##_##name_##_run(void)

__attribute__((format(printf, 4, 5))) static inline void
shim_fail(const char *what, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s:%d: not so: %s: ", file, line, what);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

#define cr_assert(cond, ...)                                                                       \
    do {                                                                                           \
        if (!(cond))                                                                               \
            shim_fail(#cond, __FILE__, __LINE__, " " __VA_ARGS__);                                 \
    } while (0)
#define cr_expect(cond, ...) cr_assert(cond, __VA_ARGS__)
#define cr_skip_test(...) shim_fail("cannot run here", __FILE__, __LINE__, " " __VA_ARGS__)
#define cr_fatal(...) shim_fail("reached", __FILE__, __LINE__, " " __VA_ARGS__)
#define cr_assert_not(cond, ...) cr_assert(!(cond), __VA_ARGS__)
#define cr_assert_eq(a, b, ...) cr_assert((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...) cr_assert((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...) cr_assert((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...) cr_assert((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...) cr_assert((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...) cr_assert((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...) cr_assert((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...) cr_assert((a) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) cr_assert(strcmp((a), (b)) == 0, __VA_ARGS__)
#define cr_expect_not(cond, ...) cr_assert_not(cond, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) cr_assert_eq(a, b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) cr_assert_neq(a, b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) cr_assert_lt(a, b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) cr_assert_leq(a, b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) cr_assert_gt(a, b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) cr_assert_geq(a, b, __VA_ARGS__)
#define cr_expect_null(a, ...) cr_assert_null(a, __VA_ARGS__)
#define cr_expect_not_null(a, ...) cr_assert_not_null(a, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) cr_assert_str_eq(a, b, __VA_ARGS__)

static inline void shim_run(const struct shim_test *t)
{
    if (t->options.init)
        t->options.init();
    t->run();
    if (t->options.fini)
        t->options.fini();
}

/* In a child: what one test leaves behind is not the next one's. */
static inline void shim_run_alone(const struct shim_test *t)
{
    int status = 0;
    pid_t pid = fork();

    cr_assert(pid >= 0);
    if (pid == 0) {
        shim_run(t);
        exit(0);
    }
    cr_assert(waitpid(pid, &status, 0) == pid);
    if (t->options.signal)
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == t->options.signal, "%s", t->name);
    else
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %d", t->name, status);
}

int main(void)
{
    double seconds = 0;

    for (int i = 0; i < shim_count; i++)
        seconds += shim_tests[i].options.timeout;
    alarm((unsigned)(seconds + 60));
    for (int i = 0; i < shim_count; i++)
        shim_run_alone(&shim_tests[i]);
    printf("%d tests passed\n", shim_count);
    return 0;
}

#endif
