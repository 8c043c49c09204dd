#include "proto/baseenc.h"
#include "proto/maddr_table.h"
#include "proto/varint.h"

static const char hex[] = "0123456789ABCDEF";

/* ---- binary to text ------------------------------------------------------------------------ */

static void put_percent(struct wcur *w, struct bytes value)
{
    for (size_t i = 0; i < value.n; i++) {
        uint8_t ch = value.p[i];
        bool plain = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
                     (ch >= 'A' && ch <= 'Z') || (ch && memchr("-._~$&+=:@", ch, 10));

        if (plain) { /* what may stand in a path segment (RFC 3986 §3.3), as go picks it */
            wcur_u8(w, ch);
        } else {
            wcur_u8(w, '%');
            wcur_u8(w, (uint8_t)hex[ch >> 4]);
            wcur_u8(w, (uint8_t)hex[ch & 15]);
        }
    }
}

static uint64_t be(struct bytes value)
{
    uint64_t v = 0;

    for (size_t i = 0; i < value.n; i++)
        v = v << 8 | value.p[i];
    return v;
}

static void put_value(struct wcur *w, enum maddr_kind kind, struct bytes v)
{
    struct peer_id id;
    char text[PEER_TEXT_MAX];

    switch (kind) {
    case MADDR_KIND_NONE:
    case MADDR_KIND_PATH: /* its slash is there already */
        wcur_put(w, v);
        return;
    case MADDR_KIND_IP4:
        netaddr_put_ip4(w, v.p);
        return;
    case MADDR_KIND_IP6:
        netaddr_put_ip6(w, v.p);
        return;
    case MADDR_KIND_PORT:
    case MADDR_KIND_CIDR:
    case MADDR_KIND_U64:
        netaddr_put_decimal(w, be(v));
        return;
    case MADDR_KIND_NAME:
        wcur_put(w, v);
        return;
    case MADDR_KIND_PEER:
        ASSERT(peer_id_decode(v, &id)); /* maddr_next did */
        peer_id_text(&id, text);
        wcur_put(w, bytes_str(text));
        return;
    case MADDR_KIND_ONION3:
        base32_encode(w, bytes_of(v.p, 35));
        wcur_u8(w, ':');
        netaddr_put_decimal(w, be(bytes_of(v.p + 35, 2)));
        return;
    case MADDR_KIND_GARLIC64:
        base64i2p_encode(w, v);
        return;
    case MADDR_KIND_GARLIC32:
        base32_encode(w, v);
        return;
    case MADDR_KIND_CERTHASH: /* go and rust write base64url too */
        wcur_u8(w, 'u');
        base64url_encode(w, v);
        return;
    case MADDR_KIND_PERCENT:
        put_percent(w, v);
        return;
    }
}

bool maddr_text(struct bytes binary, char *text, size_t cap)
{
    struct cur c = cur_of(binary);
    struct wcur w = wcur_of(text, cap);
    struct maddr_part part;

    if (binary.n == 0 || binary.n > MADDR_MAX)
        c.bad = true;
    while (maddr_next(&c, &part)) {
        const struct maddr_proto *p = maddr_proto_by_code(part.code);

        wcur_u8(&w, '/');
        wcur_put(&w, bytes_str(p->name));
        if (p->kind != MADDR_KIND_NONE && p->kind != MADDR_KIND_PATH)
            wcur_u8(&w, '/');
        put_value(&w, p->kind, part.value);
    }
    wcur_u8(&w, 0);
    if (!c.bad && !w.bad)
        return true;
    if (cap) /* nobody prints half an address */
        text[0] = 0;
    return false;
}

/* ---- text to binary ------------------------------------------------------------------------ */

/* The next segment: a slash, then what stands before the next one. Sets bad at the end. */
static struct bytes segment(struct cur *text)
{
    if (cur_u8(text) != '/' || text->n == 0) {
        text->bad = true;
        text->n = 0;
        return (struct bytes){ 0 };
    }
    const uint8_t *end = memchr(text->p, '/', text->n);

    return cur_take(text, end ? (size_t)(end - text->p) : text->n);
}

static int hex_digit(uint8_t ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch |= 0x20;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

static bool parse_percent(struct wcur *w, struct bytes text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '%') {
            wcur_u8(w, text.p[i]);
            continue;
        }
        if (text.n - i < 3)
            return false;
        int high = hex_digit(text.p[i + 1]), low = hex_digit(text.p[i + 2]);

        if (high < 0 || low < 0)
            return false;
        wcur_u8(w, (uint8_t)(high << 4 | low));
        i += 2;
    }
    return true;
}

static bool parse_onion3(struct wcur *w, struct bytes text)
{
    enum { KEY_TEXT = 56 }; /* 35 bytes in base32 */
    uint64_t port;

    if (text.n < KEY_TEXT + 2 || text.p[KEY_TEXT] != ':' ||
        !base32_decode(w, bytes_of(text.p, KEY_TEXT)) ||
        !netaddr_parse_decimal(bytes_of(text.p + KEY_TEXT + 1, text.n - KEY_TEXT - 1), UINT16_MAX,
                               &port))
        return false;
    wcur_u16(w, (uint16_t)port);
    return true;
}

static bool parse_multibase(struct wcur *w, struct bytes text)
{
    struct bytes digits = bytes_of(text.p + 1, text.n - 1); /* a segment is never empty */

    switch (text.p[0]) {
    case 'u':
        return base64url_decode(w, digits);
    case 'z':
        return base58_decode(w, digits);
    case 'b':
        return base32_decode(w, digits);
    default:
        return false;
    }
}

/* Writes the value without its length prefix. What it may be is for maddr_value_valid. */
static bool parse_value(struct wcur *w, enum maddr_kind kind, struct bytes text)
{
    uint8_t ip[16];
    struct peer_id id;
    uint64_t v;

    switch (kind) {
    case MADDR_KIND_NONE:
        return true;
    case MADDR_KIND_IP4:
        if (!netaddr_parse_ip4(text, ip))
            return false;
        wcur_put(w, bytes_of(ip, 4));
        return true;
    case MADDR_KIND_IP6:
        if (!netaddr_parse_ip6(text, ip))
            return false;
        wcur_put(w, bytes_of(ip, 16));
        return true;
    case MADDR_KIND_PORT:
        if (!netaddr_parse_decimal(text, UINT16_MAX, &v))
            return false;
        wcur_u16(w, (uint16_t)v);
        return true;
    case MADDR_KIND_CIDR:
        if (!netaddr_parse_decimal(text, UINT8_MAX, &v))
            return false;
        wcur_u8(w, (uint8_t)v);
        return true;
    case MADDR_KIND_U64:
        if (!netaddr_parse_decimal(text, UINT64_MAX, &v))
            return false;
        wcur_u32(w, (uint32_t)(v >> 32));
        wcur_u32(w, (uint32_t)v);
        return true;
    case MADDR_KIND_NAME:
    case MADDR_KIND_PATH:
        wcur_put(w, text);
        return true;
    case MADDR_KIND_PEER:
        if (!peer_id_parse(text, &id))
            return false;
        wcur_put(w, peer_id_bytes(&id));
        return true;
    case MADDR_KIND_ONION3:
        return parse_onion3(w, text);
    case MADDR_KIND_GARLIC64:
        return base64i2p_decode(w, text);
    case MADDR_KIND_GARLIC32:
        return base32_decode(w, text);
    case MADDR_KIND_CERTHASH:
        return parse_multibase(w, text);
    case MADDR_KIND_PERCENT:
        return parse_percent(w, text);
    }
    return false;
}

static bool parse_part(struct cur *text, struct wcur *out)
{
    const struct maddr_proto *p = maddr_proto_by_name(segment(text));
    uint8_t raw[MADDR_MAX];
    struct wcur w = wcur_of(raw, sizeof(raw));
    struct bytes spelled = { 0 };

    if (text->bad || !p)
        return false;
    if (p->kind == MADDR_KIND_PATH)
        spelled = cur_take(text, text->n); /* to the very end, slashes and all */
    else if (p->kind != MADDR_KIND_NONE)
        spelled = segment(text);
    if (text->bad || (p->kind != MADDR_KIND_NONE && spelled.n == 0))
        return false;

    struct bytes value = { raw, 0 };

    if (!parse_value(&w, p->kind, spelled) || w.bad)
        return false;
    value.n = w.wrote;
    if (!maddr_value_valid(p, value))
        return false;
    wcur_varint(out, p->code);
    if (maddr_value_size(p->kind) == MADDR_SIZE_LP)
        wcur_lp(out, value);
    else
        wcur_put(out, value);
    return !out->bad;
}

bool maddr_parse(struct bytes text, struct maddr *out)
{
    struct cur c = cur_of(text);
    struct maddr m;
    struct wcur w = wcur_of(m.b, sizeof(m.b));

    if (text.n == 0 || text.n >= MADDR_TEXT_MAX)
        return false;
    while (c.n)
        if (!parse_part(&c, &w))
            return false;
    m.n = (uint16_t)w.wrote;
    memcpy(out->b, m.b, w.wrote);
    out->n = m.n;
    return true;
}
