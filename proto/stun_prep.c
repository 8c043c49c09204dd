/* OpaqueString without the tables of Unicode: only what NFC leaves alone whatever stands beside it,
 * so that nothing has to be composed or reordered. The ranges were checked against Unicode 14:
 * assigned, of FreeformClass (RFC 8264 §4.3) without the contextual rules, no combining mark, their
 * own NFC form, and never the second half of a composition. That is stable: Unicode does not change
 * it for what it has assigned. */
#include "proto/stun_auth.h"

struct range {
    uint32_t from, to;
};

static const struct range plain[] = {
    { 0x20, 0x7e }, /* ASCII */
    { 0xa1, 0xac },       { 0xae, 0xb6 },     { 0xb8, 0x2ff },      { 0x370, 0x373 },
    { 0x376, 0x377 },     { 0x37a, 0x37d },   { 0x37f, 0x37f },     { 0x384, 0x386 },
    { 0x388, 0x38a },     { 0x38c, 0x38c },   { 0x38e, 0x3a1 },     { 0x3a3, 0x482 },
    { 0x48a, 0x52f },     { 0x531, 0x556 },   { 0x559, 0x58a },     { 0x5d0, 0x5ea },
    { 0x620, 0x63f },     { 0x641, 0x64a },   { 0x904, 0x939 },     { 0xe01, 0xe30 },
    { 0x1e00, 0x1eff },   { 0x2010, 0x2027 }, { 0x2030, 0x205e },   { 0x20a0, 0x20bf },
    { 0x2100, 0x2125 },   { 0x2127, 0x2129 }, { 0x212c, 0x218b },   { 0x2190, 0x2328 },
    { 0x232b, 0x23ff },   { 0x2460, 0x27bf }, { 0x3001, 0x3029 },   { 0x3030, 0x3030 },
    { 0x3036, 0x303a },   { 0x303c, 0x303e }, { 0x3041, 0x3096 },   { 0x309b, 0x30fa },
    { 0x30fc, 0x30ff },   { 0x3105, 0x312f }, { 0x3400, 0x4dbf },   { 0x4e00, 0x9ffc },
    { 0xac00, 0xd7a3 },   { 0xff01, 0xff5e }, { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6c5 },
    { 0x1f90c, 0x1f9ff },
};
static const struct range spaces[] = {
    /* Zs beyond ASCII (RFC 8265 §4.2.2) */
    { 0xa0, 0xa0 },     { 0x1680, 0x1680 }, { 0x2000, 0x200a },
    { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 },
};

static bool in_ranges(const struct range *r, size_t n, uint32_t point)
{
    for (size_t i = 0; i < n; i++)
        if (point >= r[i].from && point <= r[i].to)
            return true;
    return false;
}

/* UTF-8 in its shortest forms (RFC 3629); the ranges hold no surrogate and nothing above U+10FFFF.
 */
static bool utf8_take(struct cur *c, uint32_t *out)
{
    static const uint32_t least[5] = { [1] = 0, [2] = 0x80, [3] = 0x800, [4] = 0x10000 };
    uint8_t lead = cur_u8(c);
    int n = lead < 0x80   ? 1
            : lead < 0xc0 ? 0
            : lead < 0xe0 ? 2
            : lead < 0xf0 ? 3
            : lead < 0xf8 ? 4
                          : 0;

    if (n == 0)
        return false;
    uint32_t point = n == 1 ? lead : lead & (0x7fu >> n);

    for (int i = 1; i < n; i++) {
        uint8_t b = cur_u8(c);

        if (b >> 6 != 2)
            return false;
        point = point << 6 | (b & 0x3fu);
    }
    *out = point;
    return !c->bad && point >= least[n];
}

bool stun_opaque(struct bytes in, struct wcur *w)
{
    struct cur c = cur_of(in);

    while (c.n) {
        const uint8_t *at = c.p;
        uint32_t point;

        if (!utf8_take(&c, &point))
            return false;
        if (in_ranges(spaces, ARRAY_LEN(spaces), point))
            wcur_u8(w, ' ');
        else if (in_ranges(plain, ARRAY_LEN(plain), point))
            wcur_put(w, bytes_of(at, (size_t)(c.p - at)));
        else
            return false;
    }
    return in.n > 0 && !w->bad;
}
