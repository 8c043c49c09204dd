/* Messages of ours. Every byte of the buffer up to the end is written: what lay there before never
 * leaves (CVE-2020-4067). */
#include "proto/stun.h"

#include "proto/stun_int.h"

void stun_id_of(const uint8_t tid[STUN_TID], uint8_t id[STUN_ID])
{
    put_u32(id, STUN_COOKIE);
    memcpy(id + 4, tid, STUN_TID);
}

void stun_begin(struct stun_build *b, void *buf, size_t cap, uint16_t type,
                const uint8_t id[STUN_ID])
{
    *b = (struct stun_build){ wcur_of(buf, cap), buf };
    wcur_u16(&b->w, type);
    wcur_u16(&b->w, 0); /* by whoever ends it */
    wcur_put(&b->w, bytes_of(id, STUN_ID));
}

uint8_t *stun_room(struct stun_build *b, uint16_t type, size_t n)
{
    size_t padded = stun_round4(n), most = STUN_HEADER + STUN_BODY_MAX;

    /* The one place where a message grows: here, before anything narrows, no length can wrap. */
    if (n > most || b->w.wrote + 4 + padded > most)
        b->w.bad = true;
    wcur_u16(&b->w, type);
    wcur_u16(&b->w, (uint16_t)n);
    uint8_t *at = wcur_room(&b->w, padded);

    if (at)
        memset(at + n, 0, padded - n);
    return at;
}

void stun_put_type(struct stun_build *b, uint16_t type, struct bytes value)
{
    uint8_t *at = stun_room(b, type, value.n);

    if (at && value.n)
        memcpy(at, value.p, value.n);
}

void stun_put(struct stun_build *b, enum stun_attr a, struct bytes value)
{
    stun_put_type(b, stun_attr_type(a), value);
}

void stun_put_u32(struct stun_build *b, enum stun_attr a, uint32_t v)
{
    uint8_t *at = stun_room(b, stun_attr_type(a), 4);

    if (at)
        put_u32(at, v);
}

void stun_put_u16(struct stun_build *b, enum stun_attr a, uint16_t v)
{
    stun_put_u32(b, a, (uint32_t)v << 16);
}

void stun_put_u8(struct stun_build *b, enum stun_attr a, uint8_t v)
{
    stun_put_u32(b, a, (uint32_t)v << 24);
}

void stun_put_padding(struct stun_build *b, size_t n)
{
    uint8_t *at = stun_room(b, stun_attr_type(STUN_PADDING), n);

    if (at)
        memset(at, 0, n);
}

void stun_put_even_port(struct stun_build *b, bool reserve)
{
    const uint8_t r = reserve ? 0x80 : 0; /* RFC 8656 §18.6 */

    stun_put(b, STUN_EVEN_PORT, bytes_of(&r, 1));
}

static size_t addr_write(uint8_t out[20], bool xored, const uint8_t id[STUN_ID],
                         const struct stun_addr *addr)
{
    size_t n = addr->v6 ? 16 : 4;
    const uint8_t *ip = addr->addr.ip + sizeof(addr->addr.ip) - n;
    unsigned port = addr->addr.port;

    out[0] = 0;
    out[1] = addr->v6 ? STUN_FAMILY6 : STUN_FAMILY4;
    put_u16(out + 2, (uint16_t)(xored ? port ^ STUN_COOKIE >> 16 : port));
    for (size_t i = 0; i < n; i++)
        out[4 + i] = xored ? ip[i] ^ id[i] : ip[i];
    return 4 + n;
}

void stun_put_addr(struct stun_build *b, enum stun_attr a, const struct stun_addr *addr)
{
    uint8_t v[20];

    if (b->w.bad) /* then the id need not be there */
        return;
    stun_put(b, a, bytes_of(v, addr_write(v, stun_attr_xored(a), b->base + 4, addr)));
}

static void put_error(struct stun_build *b, enum stun_attr a, uint8_t family, unsigned code,
                      struct bytes phrase)
{
    uint8_t *at = stun_room(b, stun_attr_type(a), 4 + phrase.n);

    ASSERT(code >= 300 && code <= 699);
    ASSERT(phrase.n <= STUN_TEXT_MAX);
    if (!at)
        return;
    at[0] = family;
    at[1] = 0;
    at[2] = (uint8_t)(code / 100);
    at[3] = (uint8_t)(code % 100);
    if (phrase.n)
        memcpy(at + 4, phrase.p, phrase.n);
}

void stun_put_error(struct stun_build *b, unsigned code, struct bytes phrase)
{
    put_error(b, STUN_ERROR_CODE, 0, code, phrase);
}

void stun_put_address_error(struct stun_build *b, bool v6, unsigned code, struct bytes phrase)
{
    put_error(b, STUN_ADDRESS_ERROR_CODE, v6 ? STUN_FAMILY6 : STUN_FAMILY4, code, phrase);
}

void stun_put_unknown(struct stun_build *b, const uint16_t *types, size_t n)
{
    uint8_t *at = stun_room(b, stun_attr_type(STUN_UNKNOWN_ATTRIBUTES), 2 * n);

    for (size_t i = 0; at && i < n; i++)
        put_u16(at + 2 * i, types[i]);
}

void stun_put_icmp(struct stun_build *b, const struct stun_icmp *icmp)
{
    uint8_t v[8] = { 0 };

    ASSERT(icmp->type < 128);
    ASSERT(icmp->code < 512);
    put_u16(v + 2, (uint16_t)(icmp->type << 9 | icmp->code));
    put_u32(v + 4, icmp->data);
    stun_put(b, STUN_ICMP, bytes_of(v, sizeof(v)));
}

bool stun_end(struct stun_build *b, struct bytes *out)
{
    if (b->w.bad)
        return false;
    put_u16(b->base + 2, (uint16_t)(b->w.wrote - STUN_HEADER));
    *out = bytes_of(b->base, b->w.wrote);
    return true;
}

size_t stun_data_head(uint8_t out[STUN_DATA_HEAD_MAX], enum stun_method method,
                      const uint8_t tid[STUN_TID], const struct stun_addr *peer, uint16_t n,
                      size_t *pad)
{
    struct stun_build b;
    uint8_t id[STUN_ID];

    stun_id_of(tid, id);
    stun_begin(&b, out, STUN_DATA_HEAD_MAX, stun_type(method, STUN_INDICATION), id);
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, peer);
    wcur_u16(&b.w, stun_attr_type(STUN_DATA));
    wcur_u16(&b.w, n);
    ASSERT(!b.w.bad);
    size_t body = b.w.wrote - STUN_HEADER + stun_round4(n);

    ASSERT(body <= STUN_BODY_MAX); /* a datagram's payload is shorter than 65508 bytes */
    put_u16(out + 2, (uint16_t)body);
    *pad = stun_round4(n) - n;
    return b.w.wrote;
}
