/* engine/textbuf.h: text that is put together in the caller's buffer; what does not fit makes it
 * bad, and no half of it is shown. */
#ifndef SLUICE_ENGINE_TEXTBUF_H
#define SLUICE_ENGINE_TEXTBUF_H

#include <stdarg.h>
#include <stdio.h>

#include "proto/base.h"

struct textbuf {
    char *p;
    size_t n, cap;
    bool bad;
};

static inline void textbuf_put(struct textbuf *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void textbuf_put(struct textbuf *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (t->bad)
        return;
    va_start(ap, fmt);
    n = vsnprintf(t->p + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= t->cap - t->n)
        t->bad = true;
    else
        t->n += (size_t)n;
}

#endif
