/* proto/cur.h: bounded read and write cursors. The first step out of bounds sets `bad` and empties
 * the cursor; later reads give 0 and later writes do nothing, so a codec reads everything and asks
 * once. Pure.
 * Units: bytes. Integers are big-endian as in every wire we speak, unless the name says le. */
#ifndef SLUICE_PROTO_CUR_H
#define SLUICE_PROTO_CUR_H

#include "proto/base.h"

struct cur {
    const uint8_t *p;
    size_t n;
    bool bad;
};

static inline struct cur cur_of(struct bytes in)
{
    return (struct cur){ in.p, in.n, false };
}

static inline struct bytes cur_take(struct cur *c, size_t n)
{
    if (n > c->n) { /* lengths, never p + n > end: n came from the peer */
        c->bad = true;
        n = c->n = 0;
    }
    struct bytes taken = { c->p, n };

    if (n) /* NULL + 0 is undefined; an empty cursor may hold NULL */
        c->p += n;
    c->n -= n;
    return taken;
}

static inline uint8_t cur_u8(struct cur *c)
{
    struct bytes b = cur_take(c, 1);
    return b.n ? b.p[0] : 0;
}

static inline uint16_t cur_u16(struct cur *c)
{
    struct bytes b = cur_take(c, 2);
    uint32_t v = b.n ? (uint32_t)b.p[0] << 8 | b.p[1] : 0;

    return (uint16_t)v;
}

static inline uint32_t cur_u32(struct cur *c)
{
    struct bytes b = cur_take(c, 4);
    return b.n ? (uint32_t)b.p[0] << 24 | (uint32_t)b.p[1] << 16 | (uint32_t)b.p[2] << 8 | b.p[3]
               : 0;
}

static inline uint64_t cur_u64(struct cur *c)
{
    uint64_t hi = cur_u32(c);
    return hi << 32 | cur_u32(c);
}

struct wcur {
    uint8_t *p;   /* where the next byte goes */
    size_t n;     /* room left */
    size_t wrote; /* bytes written so far */
    bool bad;
};

static inline struct wcur wcur_of(void *p, size_t n)
{
    return (struct wcur){ (uint8_t *)p, n, 0, false };
}

static inline uint8_t *wcur_room(struct wcur *w, size_t n) /* NULL when it does not fit */
{
    if (w->bad || n > w->n) {
        w->bad = true;
        w->n = 0;
        return NULL;
    }
    uint8_t *at = w->p;

    w->p += n;
    w->n -= n;
    w->wrote += n;
    return at;
}

static inline void wcur_put(struct wcur *w, struct bytes b)
{
    uint8_t *at = wcur_room(w, b.n);
    if (at && b.n)
        memcpy(at, b.p, b.n);
}

static inline void wcur_u8(struct wcur *w, uint8_t v)
{
    uint8_t *at = wcur_room(w, 1);
    if (at)
        at[0] = v;
}

static inline void put_u16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static inline void put_u32(uint8_t *at, uint32_t v)
{
    at[0] = (uint8_t)(v >> 24);
    at[1] = (uint8_t)(v >> 16);
    at[2] = (uint8_t)(v >> 8);
    at[3] = (uint8_t)v;
}

static inline void put_u64(uint8_t *at, uint64_t v)
{
    put_u32(at, (uint32_t)(v >> 32));
    put_u32(at + 4, (uint32_t)v);
}

static inline void wcur_u16(struct wcur *w, uint16_t v)
{
    uint8_t *at = wcur_room(w, 2);
    if (at)
        put_u16(at, v);
}

static inline void wcur_u32(struct wcur *w, uint32_t v)
{
    uint8_t *at = wcur_room(w, 4);
    if (at)
        put_u32(at, v);
}

#endif
