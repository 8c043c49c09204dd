#include "proto/dusk_int.h"

#include <cbor.h>

#include "proto/utf8.h"

/* ---- one item --------------------------------------------------------------------------------
 */

enum kind {
    ITEM_NONE,
    ITEM_UINT,
    ITEM_TEXT,
    ITEM_BYTES,
    ITEM_PIECES_TEXT, /* of indefinite length, from here to a break */
    ITEM_PIECES_BYTES,
    ITEM_ARRAY, /* v elements, or until a break */
    ITEM_MAP,
    ITEM_TAG,
    ITEM_BREAK,
    ITEM_OTHER, /* negative integers, floats, simple values: nobody here wants one */
};

struct item {
    enum kind kind;
    bool open; /* a container of indefinite length */
    uint64_t v;
    struct bytes s;
};

static void on_uint8(void *ctx, uint8_t v)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_UINT, .v = v };
}

static void on_uint16(void *ctx, uint16_t v)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_UINT, .v = v };
}

static void on_uint32(void *ctx, uint32_t v)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_UINT, .v = v };
}

static void on_uint64(void *ctx, uint64_t v)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_UINT, .v = v };
}

static void on_text(void *ctx, cbor_data p, size_t n)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_TEXT, .s = bytes_of(p, n) };
}

static void on_bytes(void *ctx, cbor_data p, size_t n)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_BYTES, .s = bytes_of(p, n) };
}

static void on_text_start(void *ctx)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_PIECES_TEXT };
}

static void on_bytes_start(void *ctx)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_PIECES_BYTES };
}

static void on_array(void *ctx, size_t n)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_ARRAY, .v = n };
}

static void on_open_array(void *ctx)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_ARRAY, .open = true };
}

static void on_map(void *ctx, size_t n)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_MAP, .v = n };
}

static void on_open_map(void *ctx)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_MAP, .open = true };
}

static void on_tag(void *ctx, uint64_t v)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_TAG, .v = v };
}

static void on_break(void *ctx)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_BREAK };
}

static void other(void *ctx)
{
    *(struct item *)ctx = (struct item){ .kind = ITEM_OTHER };
}

static void on_nint8(void *ctx, uint8_t v)
{
    (void)v;
    other(ctx);
}

static void on_nint16(void *ctx, uint16_t v)
{
    (void)v;
    other(ctx);
}

static void on_nint32(void *ctx, uint32_t v)
{
    (void)v;
    other(ctx);
}

static void on_nint64(void *ctx, uint64_t v)
{
    (void)v;
    other(ctx);
}

static void on_float(void *ctx, float v)
{
    (void)v;
    other(ctx);
}

static void on_double(void *ctx, double v)
{
    (void)v;
    other(ctx);
}

static void on_bool(void *ctx, bool v)
{
    (void)v;
    other(ctx);
}

static const struct cbor_callbacks on_item = {
    .uint8 = on_uint8,
    .uint16 = on_uint16,
    .uint32 = on_uint32,
    .uint64 = on_uint64,
    .negint8 = on_nint8,
    .negint16 = on_nint16,
    .negint32 = on_nint32,
    .negint64 = on_nint64,
    .byte_string_start = on_bytes_start,
    .byte_string = on_bytes,
    .string = on_text,
    .string_start = on_text_start,
    .indef_array_start = on_open_array,
    .array_start = on_array,
    .indef_map_start = on_open_map,
    .map_start = on_map,
    .tag = on_tag,
    .float2 = on_float,
    .float4 = on_float,
    .float8 = on_double,
    .undefined = other,
    .null = other,
    .boolean = on_bool,
    .indef_break = on_break,
};

/* Simple values that have no meaning yet are values all the same (RFC 8949 §3.3); the library calls
 * them errors. */
static size_t simple_bytes(const struct cur *c)
{
    if (c->p[0] >= 0xe0 && c->p[0] <= 0xf3)
        return 1;
    return c->p[0] == 0xf8 && c->n > 1 && c->p[1] >= 32 ? 2 : 0;
}

static bool next(struct dusk_in *in, struct item *it)
{
    size_t n;

    *it = (struct item){ .kind = ITEM_NONE };
    if (in->c.n == 0 || in->items == DUSK_ITEMS_MAX)
        return false;
    in->items++;
    n = simple_bytes(&in->c);
    if (n) {
        it->kind = ITEM_OTHER;
    } else {
        struct cbor_decoder_result r = cbor_stream_decode(in->c.p, in->c.n, &on_item, it);

        if (r.status != CBOR_DECODER_FINISHED || it->kind == ITEM_NONE)
            return false;
        n = r.read;
    }
    cur_take(&in->c, n);
    return !in->c.bad;
}

/* Is a break what comes next? Then it is taken. */
static bool at_break(struct dusk_in *in)
{
    if (in->c.n == 0 || in->c.p[0] != 0xff)
        return false;
    cur_take(&in->c, 1);
    return true;
}

/* ---- texts and integers ----------------------------------------------------------------------
 */

static bool is_utf8(struct bytes s)
{
    struct utf8 u = { .need = 0 };

    return utf8_feed(&u, s.p, s.n) && utf8_whole(&u);
}

static bool join(struct dusk_in *in, struct bytes *out)
{
    uint8_t *start = in->room->p;
    size_t before = in->room->wrote;
    struct item piece;

    while (!at_break(in)) {
        if (!next(in, &piece) || piece.kind != ITEM_TEXT)
            return false;
        wcur_put(in->room, piece.s);
    }
    *out = bytes_of(start, in->room->wrote - before);
    return !in->room->bad;
}

/* A character may be cut by the end of a piece, which RFC 8949 §3.2.3 forbids: it is the whole that
 * is a text here. */
bool dusk_read_text(struct dusk_in *in, void *to)
{
    struct item it;
    struct bytes s;

    if (!next(in, &it))
        return false;
    s = it.s;
    if (it.kind == ITEM_PIECES_TEXT ? !join(in, &s) : it.kind != ITEM_TEXT)
        return false;
    if (!is_utf8(s))
        return false;
    *(struct bytes *)to = s;
    return true;
}

bool dusk_read_u64(struct dusk_in *in, void *to)
{
    struct item it;

    if (!next(in, &it) || it.kind != ITEM_UINT)
        return false;
    *(uint64_t *)to = it.v;
    return true;
}

bool dusk_read_u32(struct dusk_in *in, void *to)
{
    uint64_t v;

    if (!dusk_read_u64(in, &v) || v > UINT32_MAX)
        return false;
    *(uint32_t *)to = (uint32_t)v;
    return true;
}

/* ---- containers ------------------------------------------------------------------------------
 */

/* Is there another element in a container that `it` opened and of which `seen` were read? */
static bool more(struct dusk_in *in, const struct item *it, uint64_t seen)
{
    return it->open ? !at_break(in) : seen < it->v;
}

static bool read_field(struct dusk_in *in, const struct dusk_field *fields, size_t n, uint32_t *had)
{
    struct bytes key;

    if (!dusk_read_text(in, &key))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!bytes_eq(key, bytes_str(fields[i].name)))
            continue;
        if (*had & 1u << i)
            return false;
        *had |= 1u << i;
        return fields[i].read(in, fields[i].to);
    }
    return dusk_skip(in);
}

bool dusk_read_struct(struct dusk_in *in, const struct dusk_field *fields, size_t n)
{
    struct item map;
    uint32_t had = 0;

    ASSERT(n <= DUSK_FIELDS_MAX);
    if (!next(in, &map) || map.kind != ITEM_MAP)
        return false;
    /* A count that lies ends with the input: each round reads a byte at least. */
    for (uint64_t i = 0; more(in, &map, i); i++)
        if (!read_field(in, fields, n, &had))
            return false;
    for (size_t i = 0; i < n; i++)
        if (!(had & 1u << i) && !fields[i].optional)
            return false;
    return true;
}

bool dusk_read_array(struct dusk_in *in, bool (*each)(struct dusk_in *in, size_t i, void *to),
                     void *to, size_t max, size_t *n)
{
    struct item array;
    size_t i;

    if (!next(in, &array) || array.kind != ITEM_ARRAY)
        return false;
    for (i = 0; more(in, &array, i); i++)
        if (i == max || !each(in, i, to))
            return false;
    *n = i;
    return true;
}

bool dusk_read_variant(struct dusk_in *in, struct bytes *name, bool *has_value)
{
    *has_value = in->c.n > 0 && in->c.p[0] == 0xa1;
    if (*has_value)
        cur_take(&in->c, 1);
    return dusk_read_text(in, name);
}

/* ---- what nobody asked for -------------------------------------------------------------------
 */

struct level {
    struct item in;
    uint64_t seen;
};

/* May `it` stand in this container? Pieces of a string are strings of its kind and of known length.
 */
static bool fits(const struct level *l, const struct item *it)
{
    if (l->in.kind == ITEM_PIECES_TEXT)
        return it->kind == ITEM_TEXT;
    if (l->in.kind == ITEM_PIECES_BYTES)
        return it->kind == ITEM_BYTES;
    return it->kind != ITEM_BREAK;
}

static bool is_container(const struct item *it)
{
    return it->kind == ITEM_ARRAY || it->kind == ITEM_MAP || it->kind == ITEM_PIECES_TEXT ||
           it->kind == ITEM_PIECES_BYTES || it->kind == ITEM_TAG;
}

/* All kinds of containers in one shape: so many values, or values until a break. */
static bool open_level(struct level *l, const struct item *it)
{
    *l = (struct level){ .in = *it };
    l->in.open = it->open || it->kind == ITEM_PIECES_TEXT || it->kind == ITEM_PIECES_BYTES;
    if (it->kind == ITEM_TAG)
        l->in.v = 1;
    if (it->kind == ITEM_MAP && it->v > UINT64_MAX / 2)
        return false;
    if (it->kind == ITEM_MAP)
        l->in.v = 2 * it->v;
    return true;
}

bool dusk_skip(struct dusk_in *in)
{
    struct level at[DUSK_DEPTH_MAX + 1];
    size_t depth = 0;
    struct item it;

    at[0] = (struct level){ .in = { .kind = ITEM_ARRAY, .v = 1 } };
    for (;;) {
        struct level *l = &at[depth];

        if (!more(in, &l->in, l->seen)) {
            if (l->in.open && l->in.kind == ITEM_MAP && l->seen % 2 != 0)
                return false; /* a key without its value */
            if (depth == 0)
                return true;
            depth--;
            continue;
        }
        if (!next(in, &it) || !fits(l, &it))
            return false;
        l->seen++;
        if (!is_container(&it))
            continue;
        if (depth == DUSK_DEPTH_MAX || !open_level(&at[++depth], &it))
            return false;
    }
}

/* ---- writing ---------------------------------------------------------------------------------
 */

static void put_head(struct wcur *w, uint8_t major, uint64_t v)
{
    uint8_t first = (uint8_t)(major << 5);

    if (v < 24) {
        wcur_u8(w, (uint8_t)(first | v));
    } else if (v <= UINT8_MAX) {
        wcur_u8(w, first | 24);
        wcur_u8(w, (uint8_t)v);
    } else if (v <= UINT16_MAX) {
        wcur_u8(w, first | 25);
        wcur_u16(w, (uint16_t)v);
    } else if (v <= UINT32_MAX) {
        wcur_u8(w, first | 26);
        wcur_u32(w, (uint32_t)v);
    } else {
        wcur_u8(w, first | 27);
        wcur_u32(w, (uint32_t)(v >> 32));
        wcur_u32(w, (uint32_t)v);
    }
}

void dusk_put_uint(struct wcur *w, uint64_t v)
{
    put_head(w, 0, v);
}

void dusk_put_array(struct wcur *w, uint64_t n)
{
    put_head(w, 4, n);
}

void dusk_put_map(struct wcur *w, uint64_t pairs)
{
    put_head(w, 5, pairs);
}

void dusk_put_text(struct wcur *w, struct bytes text)
{
    put_head(w, 3, text.n);
    wcur_put(w, text);
}

void dusk_put_key(struct wcur *w, const char *key)
{
    dusk_put_text(w, bytes_str(key));
}
