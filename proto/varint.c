#include "proto/varint.h"

enum varint_res varint_peek(struct bytes in, uint64_t *value, size_t *used)
{
    uint64_t v = 0;

    for (size_t i = 0; i < in.n; i++) {
        if (i == VARINT_MAX_BYTES)
            return VARINT_BAD; /* a tenth byte: past 63 bits (multiformats unsigned-varint) */
        v |= (uint64_t)(in.p[i] & 0x7f) << (7 * i);
        if (in.p[i] & 0x80)
            continue;
        if (i > 0 && in.p[i] == 0)
            return VARINT_BAD; /* a zero group on top: the shorter form is the only one */
        *value = v;
        *used = i + 1;
        return VARINT_OK;
    }
    return in.n < VARINT_MAX_BYTES ? VARINT_MORE : VARINT_BAD;
}

size_t varint_len(uint64_t v)
{
    size_t n = 1;

    ASSERT(v < UINT64_C(1) << 63);
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

size_t varint_put(uint8_t *at, uint64_t v)
{
    size_t n = 0;

    ASSERT(v < UINT64_C(1) << 63);
    while (v >= 0x80) {
        at[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    at[n++] = (uint8_t)v;
    return n;
}

uint64_t cur_varint(struct cur *c)
{
    uint64_t v = 0;
    size_t used = 0;

    if (c->bad || varint_peek(bytes_of(c->p, c->n), &v, &used) != VARINT_OK) {
        c->bad = true;
        c->n = 0;
        return 0;
    }
    (void)cur_take(c, used);
    return v;
}

void wcur_varint(struct wcur *w, uint64_t v)
{
    uint8_t *at = wcur_room(w, varint_len(v));

    if (at)
        varint_put(at, v);
}

struct bytes cur_lp(struct cur *c)
{
    uint64_t n = cur_varint(c);

    if (n > c->n) { /* asked before narrowing to size_t */
        c->bad = true;
        c->n = 0;
        return bytes_of(c->p, 0);
    }
    return cur_take(c, (size_t)n);
}

void wcur_lp(struct wcur *w, struct bytes b)
{
    wcur_varint(w, b.n);
    wcur_put(w, b);
}
