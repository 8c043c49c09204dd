#include "proto/utf8.h"

/* One byte more; the bounds are of RFC 3629 §4, table "UTF8-octets". */
static bool step(struct utf8 *u, uint8_t b)
{
    if (u->need) {
        bool fits = b >= u->lo && b <= u->hi;

        *u = (struct utf8){ (uint8_t)(u->need - 1), 0x80, 0xbf };
        return fits;
    }
    if (b < 0x80)
        return true;
    if (b < 0xc2 || b > 0xf4) /* a continuation, two bytes for ASCII, beyond U+10FFFF */
        return false;
    if (b < 0xe0)
        *u = (struct utf8){ 1, 0x80, 0xbf };
    else if (b < 0xf0)
        *u = (struct utf8){ 2, b == 0xe0 ? 0xa0 : 0x80, b == 0xed ? 0x9f : 0xbf };
    else
        *u = (struct utf8){ 3, b == 0xf0 ? 0x90 : 0x80, b == 0xf4 ? 0x8f : 0xbf };
    return true;
}

bool utf8_feed_scalar(struct utf8 *u, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!step(u, p[i]))
            return false;
    return true;
}

typedef uint64_t lane2 __attribute__((vector_size(16))); /* SSE2, NEON, or two words */
enum { BLOCK = 64 };
#define TOPS 0x8080808080808080u

static bool block_is_ascii(const uint8_t *p)
{
    lane2 a, b, c, d;

    memcpy(&a, p, 16);
    memcpy(&b, p + 16, 16);
    memcpy(&c, p + 32, 16);
    memcpy(&d, p + 48, 16);
    a = (a | b) | (c | d);
    return ((a[0] | a[1]) & TOPS) == 0;
}

static bool word_is_ascii(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return (v & TOPS) == 0;
}

/* How many of the first bytes are ASCII, give or take seven. */
static size_t ascii_run(const uint8_t *p, size_t n)
{
    size_t i = 0;

    while (n - i >= BLOCK && block_is_ascii(p + i))
        i += BLOCK;
    while (n - i >= 8 && word_is_ascii(p + i))
        i += 8;
    return i;
}

bool utf8_feed(struct utf8 *u, const uint8_t *p, size_t n)
{
    size_t i = 0;

    while (i < n) {
        if (u->need == 0 && p[i] < 0x80) {
            size_t run = ascii_run(p + i, n - i);

            if (run) {
                i += run;
                continue;
            }
        }
        /* Eight bytes with something else among them, or the last few. */
        for (size_t end = i + min_sz(8, n - i); i < end; i++)
            if (!step(u, p[i]))
                return false;
    }
    return true;
}
