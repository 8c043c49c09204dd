/* proto/utf8.h: is it UTF-8 (RFC 3629 §4: shortest forms, no surrogates, nothing above U+10FFFF),
 * for text that comes in pieces. Pure. */
#ifndef SLUICE_PROTO_UTF8_H
#define SLUICE_PROTO_UTF8_H

#include "proto/base.h"

/* Between two pieces: what the character that was begun still wants. All zero at the start. */
struct utf8 {
    uint8_t need;   /* continuation bytes to come, 0..3; 0 is a character's end */
    uint8_t lo, hi; /* what the next of them may be */
};

/* false: no text goes on like this; `u` is then spent. */
bool utf8_feed(struct utf8 *u, const uint8_t *p, size_t n);
bool utf8_feed_scalar(struct utf8 *u, const uint8_t *p, size_t n); /* its plain twin */
static inline bool utf8_whole(const struct utf8 *u)
{
    return u->need == 0;
}

#endif
