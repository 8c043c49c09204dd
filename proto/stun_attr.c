/* The attributes: their numbers, the shapes that they may have, and what stands in them. */
#include "proto/stun.h"

#include "proto/stun_int.h"

enum shape {
    SHAPE_BYTES, /* min..max bytes */
    SHAPE_FOURS, /* the same, in fours */
    SHAPE_TWOS,  /* the same, in twos */
    SHAPE_ADDR,  /* family and address agree with the length */
    SHAPE_ERROR, /* class 3..6, number 0..99 */
    SHAPE_ALG,   /* algorithm, length of parameters, parameters */
};

struct rule {
    uint16_t type;
    uint8_t shape;
    uint16_t min, max;
};

enum { ANY = UINT16_MAX };

/* Lengths are as turn.md §3 has them. Where a server uses nothing of the content, any will do. */
static const struct rule rules[STUN_ATTRS] = {
    [STUN_MAPPED_ADDRESS] = { 0x0001, SHAPE_ADDR, 8, 20 },
    [STUN_CHANGE_REQUEST] = { 0x0003, SHAPE_BYTES, 4, 4 },
    [STUN_USERNAME] = { 0x0006, SHAPE_BYTES, 0, STUN_USERNAME_MAX },
    [STUN_PASSWORD] = { 0x0007, SHAPE_BYTES, 0, ANY },
    [STUN_MESSAGE_INTEGRITY] = { 0x0008, SHAPE_BYTES, STUN_SHA1_TAG, STUN_SHA1_TAG },
    [STUN_ERROR_CODE] = { 0x0009, SHAPE_ERROR, 4, 4 + STUN_TEXT_MAX },
    [STUN_UNKNOWN_ATTRIBUTES] = { 0x000a, SHAPE_TWOS, 0, ANY },
    [STUN_CHANNEL_NUMBER] = { 0x000c, SHAPE_BYTES, 4, 4 },
    [STUN_LIFETIME] = { 0x000d, SHAPE_BYTES, 4, 4 },
    [STUN_XOR_PEER_ADDRESS] = { 0x0012, SHAPE_ADDR, 8, 20 },
    [STUN_DATA] = { 0x0013, SHAPE_BYTES, 0, ANY },
    [STUN_REALM] = { 0x0014, SHAPE_BYTES, 0, STUN_TEXT_MAX },
    [STUN_NONCE] = { 0x0015, SHAPE_BYTES, 0, STUN_TEXT_MAX },
    [STUN_XOR_RELAYED_ADDRESS] = { 0x0016, SHAPE_ADDR, 8, 20 },
    [STUN_REQUESTED_ADDRESS_FAMILY] = { 0x0017, SHAPE_BYTES, 4, 4 },
    [STUN_EVEN_PORT] = { 0x0018, SHAPE_BYTES, 1, 1 },
    [STUN_REQUESTED_TRANSPORT] = { 0x0019, SHAPE_BYTES, 4, 4 },
    [STUN_DONT_FRAGMENT] = { 0x001a, SHAPE_BYTES, 0, 0 },
    [STUN_ACCESS_TOKEN] = { 0x001b, SHAPE_BYTES, 0, ANY },
    [STUN_MESSAGE_INTEGRITY_SHA256] = { 0x001c, SHAPE_FOURS, STUN_SHA256_TAG_MIN, STUN_SHA256_TAG },
    [STUN_PASSWORD_ALGORITHM] = { 0x001d, SHAPE_ALG, 4, ANY },
    [STUN_USERHASH] = { 0x001e, SHAPE_BYTES, 32, 32 },
    [STUN_XOR_MAPPED_ADDRESS] = { 0x0020, SHAPE_ADDR, 8, 20 },
    [STUN_RESERVATION_TOKEN] = { 0x0022, SHAPE_BYTES, 8, 8 },
    [STUN_PRIORITY] = { 0x0024, SHAPE_BYTES, 0, ANY },
    [STUN_USE_CANDIDATE] = { 0x0025, SHAPE_BYTES, 0, ANY },
    [STUN_PADDING] = { 0x0026, SHAPE_BYTES, 0, ANY },
    [STUN_RESPONSE_PORT] = { 0x0027, SHAPE_BYTES, 2,
                             4 }, /* both lengths are about (RFC 5780 §7.5) */
    [STUN_CONNECTION_ID] = { 0x002a, SHAPE_BYTES, 4, 4 },
    [STUN_ADDITIONAL_ADDRESS_FAMILY] = { 0x8000, SHAPE_BYTES, 4, 4 },
    [STUN_ADDRESS_ERROR_CODE] = { 0x8001, SHAPE_ERROR, 4, 4 + STUN_TEXT_MAX },
    [STUN_PASSWORD_ALGORITHMS] = { 0x8002, SHAPE_FOURS, 4, ANY },
    [STUN_ALTERNATE_DOMAIN] = { 0x8003, SHAPE_BYTES, 0, 255 },
    [STUN_ICMP] = { 0x8004, SHAPE_BYTES, 8, 8 },
    [STUN_SOFTWARE] = { 0x8022, SHAPE_BYTES, 0, STUN_TEXT_MAX },
    [STUN_ALTERNATE_SERVER] = { 0x8023, SHAPE_ADDR, 8, 20 },
    [STUN_CACHE_TIMEOUT] = { 0x8027, SHAPE_BYTES, 4, 4 },
    [STUN_FINGERPRINT] = { 0x8028, SHAPE_BYTES, 4, 4 },
    [STUN_ICE_CONTROLLED] = { 0x8029, SHAPE_BYTES, 0, ANY },
    [STUN_ICE_CONTROLLING] = { 0x802a, SHAPE_BYTES, 0, ANY },
    [STUN_RESPONSE_ORIGIN] = { 0x802b, SHAPE_ADDR, 8, 20 },
    [STUN_OTHER_ADDRESS] = { 0x802c, SHAPE_ADDR, 8, 20 },
    [STUN_THIRD_PARTY_AUTHORIZATION] = { 0x802e, SHAPE_BYTES, 0, STUN_TEXT_MAX },
    [STUN_ORIGIN] = { 0x802f, SHAPE_BYTES, 0, STUN_TEXT_MAX },
    [STUN_MOBILITY_TICKET] = { 0x8030, SHAPE_BYTES, 0, ANY },
};

/* Both ranges that have names are short: the low bits of a number find its row, plus one. */
enum { LOW_END = 0x40, HIGH = 0x8000 };
static const uint8_t low[LOW_END] = {
    [0x01] = STUN_MAPPED_ADDRESS + 1,
    [0x03] = STUN_CHANGE_REQUEST + 1,
    [0x06] = STUN_USERNAME + 1,
    [0x07] = STUN_PASSWORD + 1,
    [0x08] = STUN_MESSAGE_INTEGRITY + 1,
    [0x09] = STUN_ERROR_CODE + 1,
    [0x0a] = STUN_UNKNOWN_ATTRIBUTES + 1,
    [0x0c] = STUN_CHANNEL_NUMBER + 1,
    [0x0d] = STUN_LIFETIME + 1,
    [0x12] = STUN_XOR_PEER_ADDRESS + 1,
    [0x13] = STUN_DATA + 1,
    [0x14] = STUN_REALM + 1,
    [0x15] = STUN_NONCE + 1,
    [0x16] = STUN_XOR_RELAYED_ADDRESS + 1,
    [0x17] = STUN_REQUESTED_ADDRESS_FAMILY + 1,
    [0x18] = STUN_EVEN_PORT + 1,
    [0x19] = STUN_REQUESTED_TRANSPORT + 1,
    [0x1a] = STUN_DONT_FRAGMENT + 1,
    [0x1b] = STUN_ACCESS_TOKEN + 1,
    [0x1c] = STUN_MESSAGE_INTEGRITY_SHA256 + 1,
    [0x1d] = STUN_PASSWORD_ALGORITHM + 1,
    [0x1e] = STUN_USERHASH + 1,
    [0x20] = STUN_XOR_MAPPED_ADDRESS + 1,
    [0x22] = STUN_RESERVATION_TOKEN + 1,
    [0x24] = STUN_PRIORITY + 1,
    [0x25] = STUN_USE_CANDIDATE + 1,
    [0x26] = STUN_PADDING + 1,
    [0x27] = STUN_RESPONSE_PORT + 1,
    [0x2a] = STUN_CONNECTION_ID + 1,
};
static const uint8_t high[LOW_END] = {
    [0x00] = STUN_ADDITIONAL_ADDRESS_FAMILY + 1,
    [0x01] = STUN_ADDRESS_ERROR_CODE + 1,
    [0x02] = STUN_PASSWORD_ALGORITHMS + 1,
    [0x03] = STUN_ALTERNATE_DOMAIN + 1,
    [0x04] = STUN_ICMP + 1,
    [0x22] = STUN_SOFTWARE + 1,
    [0x23] = STUN_ALTERNATE_SERVER + 1,
    [0x27] = STUN_CACHE_TIMEOUT + 1,
    [0x28] = STUN_FINGERPRINT + 1,
    [0x29] = STUN_ICE_CONTROLLED + 1,
    [0x2a] = STUN_ICE_CONTROLLING + 1,
    [0x2b] = STUN_RESPONSE_ORIGIN + 1,
    [0x2c] = STUN_OTHER_ADDRESS + 1,
    [0x2e] = STUN_THIRD_PARTY_AUTHORIZATION + 1,
    [0x2f] = STUN_ORIGIN + 1,
    [0x30] = STUN_MOBILITY_TICKET + 1,
    [0x32] = STUN_ADDITIONAL_ADDRESS_FAMILY + 1, /* of its drafts: clients of coturn 4.6 */
};

uint16_t stun_attr_type(enum stun_attr a)
{
    ASSERT(a < STUN_ATTRS);
    return rules[a].type;
}

bool stun_attr_of(uint16_t type, enum stun_attr *a)
{
    unsigned row = 0;

    if (type < LOW_END)
        row = low[type];
    else if (type >= HIGH && type < HIGH + LOW_END)
        row = high[type - HIGH];
    if (row == 0)
        return false;
    *a = (enum stun_attr)(row - 1);
    return true;
}

/* Class 3..6 and number 0..99 (RFC 8489 §14.8); the bits before the class are reserved. */
static bool error_read(struct bytes value, uint16_t *code)
{
    struct cur c = cur_of(value);

    cur_u16(&c);
    unsigned class = cur_u8(&c) & 7u, number = cur_u8(&c);

    if (c.bad || class < 3 || class > 6 || number > 99)
        return false;
    *code = (uint16_t)(class * 100 + number);
    return true;
}

bool stun_attr_fits(enum stun_attr a, struct bytes v)
{
    const struct rule *r = &rules[a];
    struct cur c = cur_of(v);
    uint16_t code;

    if (v.n < r->min || v.n > r->max)
        return false;
    switch ((enum shape)r->shape) {
    case SHAPE_BYTES:
        return true;
    case SHAPE_FOURS:
        return v.n % 4 == 0;
    case SHAPE_TWOS:
        return v.n % 2 == 0;
    case SHAPE_ADDR:
        return v.n == 8 ? v.p[1] == STUN_FAMILY4 : v.n == 20 && v.p[1] == STUN_FAMILY6;
    case SHAPE_ERROR:
        return error_read(v, &code);
    case SHAPE_ALG:
        cur_u16(&c);
        return cur_u16(&c) == v.n - 4;
    }
    return false;
}

struct bytes stun_value(const struct stun_msg *m, enum stun_attr a)
{
    if (!stun_has(m, a))
        return bytes_of(NULL, 0);
    return bytes_of(m->raw.p + STUN_HEADER + m->span[a].at, m->span[a].n);
}

uint8_t stun_u8(const struct stun_msg *m, enum stun_attr a)
{
    struct cur c = cur_of(stun_value(m, a));

    return cur_u8(&c);
}

uint16_t stun_u16(const struct stun_msg *m, enum stun_attr a)
{
    struct cur c = cur_of(stun_value(m, a));

    return cur_u16(&c);
}

uint32_t stun_u32(const struct stun_msg *m, enum stun_attr a)
{
    struct cur c = cur_of(stun_value(m, a));

    return cur_u32(&c);
}

/* The value fits, or addresses would not be asked for it. */
static void addr_read(enum stun_attr a, const uint8_t id[STUN_ID], struct bytes v,
                      struct stun_addr *out)
{
    bool xored = stun_attr_xored(a);
    size_t n = v.n - 4;
    uint8_t *ip = out->addr.ip + sizeof(out->addr.ip) - n;
    unsigned port = (unsigned)v.p[2] << 8 | v.p[3];

    out->v6 = n == 16;
    memcpy(out->addr.ip, stun_mapped, sizeof(stun_mapped));
    memcpy(ip, v.p + 4, n);
    for (size_t i = 0; xored && i < n; i++) /* the cookie, and the transaction id (§14.2) */
        ip[i] ^= id[i];
    out->addr.port = (uint16_t)(xored ? port ^ STUN_COOKIE >> 16 : port);
}

bool stun_addr(const struct stun_msg *m, enum stun_attr a, struct stun_addr *out)
{
    if (!stun_has(m, a))
        return false;
    ASSERT(rules[a].shape == SHAPE_ADDR);
    addr_read(a, stun_id(m), stun_value(m, a), out);
    return true;
}

bool stun_next(const struct stun_msg *m, enum stun_attr a, uint16_t *pos, struct bytes *value)
{
    ASSERT(*pos <= m->meant);
    struct cur c = cur_of(bytes_of(m->raw.p + STUN_HEADER + *pos, (size_t)m->meant - *pos));

    while (stun_has(m, a) && c.n) { /* its bounds were checked once, by stun_decode */
        uint16_t type = cur_u16(&c);
        struct bytes v = stun_take_value(&c);

        ASSERT(!c.bad);
        if (type == rules[a].type && stun_attr_fits(a, v)) {
            *pos = (uint16_t)(m->meant - c.n);
            *value = v;
            return true;
        }
    }
    return false;
}

bool stun_next_addr(const struct stun_msg *m, enum stun_attr a, uint16_t *pos,
                    struct stun_addr *out)
{
    struct bytes v;

    ASSERT(rules[a].shape == SHAPE_ADDR);
    if (!stun_next(m, a, pos, &v))
        return false;
    addr_read(a, stun_id(m), v, out);
    return true;
}

bool stun_address_error(struct bytes value, bool *v6, uint16_t *code)
{
    uint16_t got;

    if (!error_read(value, &got) || (value.p[0] != STUN_FAMILY4 && value.p[0] != STUN_FAMILY6))
        return false;
    *v6 = value.p[0] == STUN_FAMILY6;
    *code = got;
    return true;
}

bool stun_error(const struct stun_msg *m, uint16_t *code, struct bytes *phrase)
{
    struct bytes v = stun_value(m, STUN_ERROR_CODE);

    if (!error_read(v, code))
        return false;
    *phrase = bytes_of(v.p + 4, v.n - 4);
    return true;
}

/* 16 bits reserved, 7 of type, 9 of code, 32 of data (RFC 8656 §18.13). */
bool stun_icmp(const struct stun_msg *m, struct stun_icmp *out)
{
    struct cur c = cur_of(stun_value(m, STUN_ICMP));

    cur_u16(&c);
    unsigned both = cur_u16(&c);
    uint32_t data = cur_u32(&c);

    if (c.bad)
        return false;
    *out = (struct stun_icmp){ (uint8_t)(both >> 9), (uint16_t)(both & 0x1ff), data };
    return true;
}

size_t stun_refused(const struct stun_msg *m, uint64_t supported, uint16_t types[STUN_UNKNOWN_MAX])
{
    const uint64_t required = STUN_BIT(STUN_ADDITIONAL_ADDRESS_FAMILY) - 1;
    uint64_t left = (m->have | m->broken) & required & ~supported;
    size_t n = m->unknown_count;

    memcpy(types, m->unknown, n * sizeof(types[0]));
    for (unsigned a = 0; left && n < STUN_UNKNOWN_MAX; a++, left >>= 1)
        if (left & 1)
            types[n++] = rules[a].type;
    return n;
}
