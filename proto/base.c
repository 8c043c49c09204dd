#include "proto/base.h"

#include <stdlib.h>
#include <unistd.h>

_Noreturn void assert_failed(const char *file, int line, const char *what)
{
    char text[512];
    size_t n = 0;
    char digits[12];
    int at = (int)sizeof(digits);

    /* No stdio: the process is broken and the purity allowlist is short. */
    do {
        digits[--at] = (char)('0' + line % 10);
        line /= 10;
    } while (line && at > 0);
#define PUT(s, len)                                                                                \
    do {                                                                                           \
        size_t take = min_sz((len), sizeof(text) - 1 - n);                                         \
        memcpy(text + n, (s), take);                                                               \
        n += take;                                                                                 \
    } while (0)
    PUT("sluice: assertion failed: ", strlen("sluice: assertion failed: "));
    PUT(what, strlen(what));
    PUT(" at ", (size_t)4);
    PUT(file, strlen(file));
    PUT(":", (size_t)1);
    PUT(digits + at, sizeof(digits) - (size_t)at);
#undef PUT
    text[n++] = '\n';
    ssize_t wrote = write(2, text, n);
    (void)wrote;
    abort();
}
