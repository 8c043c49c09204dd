/* A message as a whole: header, one pass over the attributes, FINGERPRINT, integrity. */
#include "proto/stun.h"

#include "proto/crypto.h"
#include "proto/stun_int.h"

bool stun_head_decode(struct bytes in, struct stun_head *h)
{
    struct cur c = cur_of(in);
    struct stun_head got;

    got.type = cur_u16(&c);
    got.length = cur_u16(&c);
    got.cookie = cur_u32(&c) == STUN_COOKIE;
    cur_take(&c, STUN_TID);
    if (c.bad || got.type >> 14 != 0)
        return false;
    *h = got;
    return true;
}

static void note_unknown(struct stun_msg *m, uint16_t type)
{
    for (size_t i = 0; i < m->unknown_count; i++)
        if (m->unknown[i] == type)
            return;
    if (m->unknown_count == STUN_UNKNOWN_MAX)
        m->unknown_more = true;
    else
        m->unknown[m->unknown_count++] = type;
}

static bool repeats(enum stun_attr a)
{
    return a == STUN_XOR_PEER_ADDRESS || a == STUN_XOR_RELAYED_ADDRESS ||
           a == STUN_ADDRESS_ERROR_CODE || a == STUN_ORIGIN;
}

/* `at` is where the value begins, from the end of the header. */
static void note(struct stun_msg *m, enum stun_attr a, struct bytes v, size_t at)
{
    uint64_t bit = STUN_BIT(a);

    if ((m->have | m->broken) & bit && !repeats(a)) /* the first one counts (§14) */
        return;
    if (!stun_attr_fits(a, v)) {
        m->broken |= bit;
    } else if (!(m->have & bit)) {
        m->have |= bit;
        m->span[a] = (struct stun_span){ (uint16_t)at, (uint16_t)v.n };
    }
}

/* A MAC covers only what stands before it: how much of the rest still has a meaning. */
enum still { STILL_ALL, STILL_SEALS, STILL_NOTHING };

static bool is_meant(enum still still, enum stun_attr a)
{
    /* A second MESSAGE-INTEGRITY-SHA256 passes here and is dropped as any second one. */
    return still == STILL_ALL || a == STUN_FINGERPRINT || a == STUN_MESSAGE_INTEGRITY_SHA256;
}

static enum still still_behind(enum still still, enum stun_attr a)
{
    if (a == STUN_MESSAGE_INTEGRITY || a == STUN_MESSAGE_INTEGRITY_SHA256)
        return STILL_SEALS;
    return a == STUN_FINGERPRINT ? STILL_NOTHING : still;
}

static bool read_body(struct stun_msg *m, struct bytes body)
{
    struct cur c = cur_of(body);
    enum still still = STILL_ALL;

    m->meant = (uint16_t)body.n;
    while (c.n) { /* each time four bytes fewer, at least */
        size_t head = body.n - c.n;
        uint16_t type = cur_u16(&c);
        struct bytes v = stun_take_value(&c);
        enum stun_attr a = STUN_ATTRS;
        bool known = stun_attr_of(type, &a);

        if (c.bad || still == STILL_NOTHING)
            return false;
        if (!is_meant(still, a))
            continue;
        if (still == STILL_ALL && still_behind(still, a) != STILL_ALL)
            m->meant = (uint16_t)head;
        still = still_behind(still, a);
        if (known)
            note(m, a, v, head + 4);
        else if (type < 0x8000)
            note_unknown(m, type);
    }
    return true;
}

/* Over all that stands before it, with the length field as it came: that includes these 8 bytes,
 * because they are the last (§14.7). */
static bool fingerprint_ok(const struct stun_msg *m)
{
    struct bytes before = bytes_of(m->raw.p, m->raw.n - 8);

    if (m->classic || !((m->have | m->broken) & STUN_BIT(STUN_FINGERPRINT)))
        return true;
    return stun_has(m, STUN_FINGERPRINT) &&
           stun_u32(m, STUN_FINGERPRINT) == (crypto_crc32(before) ^ STUN_FINGERPRINT_XOR);
}

enum stun_verdict stun_decode(struct bytes in, unsigned flags, struct stun_msg *m)
{
    struct stun_head h;

    if (!stun_head_decode(in, &h) || (!h.cookie && !(flags & STUN_CLASSIC)))
        return STUN_FOREIGN;
    if (h.length % 4 != 0 || in.n - STUN_HEADER != h.length)
        return STUN_BAD_LENGTH;
    m->raw = in;
    m->type = h.type;
    m->classic = !h.cookie;
    m->have = m->broken = 0;
    m->unknown_count = 0;
    m->unknown_more = false;
    if (!read_body(m, bytes_of(in.p + STUN_HEADER, h.length)))
        return STUN_BAD_ATTRIBUTE;
    return fingerprint_ok(m) ? STUN_OK : STUN_BAD_FINGERPRINT;
}

/* ---- integrity ----------------------------------------------------------------------------- */

enum stun_mac stun_mac_of(const struct stun_msg *m)
{
    uint64_t there = m->have | m->broken;

    if (there & STUN_BIT(STUN_MESSAGE_INTEGRITY_SHA256))
        return STUN_MAC_SHA256;
    return there & STUN_BIT(STUN_MESSAGE_INTEGRITY) ? STUN_MAC_SHA1 : STUN_MAC_NONE;
}

/* The header's length field is computed as if the message ended with the tag (§14.5, §14.6). */
static void mac_of(enum stun_mac mac, struct bytes key, struct bytes before, size_t tag,
                   uint8_t out[STUN_SHA256_TAG])
{
    uint8_t head[4];
    struct bytes parts[2] = { { head, 4 }, { before.p + 4, before.n - 4 } };

    memcpy(head, before.p, 2);
    put_u16(head + 2, (uint16_t)(before.n + 4 + tag - STUN_HEADER));
    if (mac == STUN_MAC_SHA1)
        crypto_hmac_sha1_n(key, parts, 2, out);
    else
        crypto_hmac_sha256_n(key, parts, 2, out);
}

bool stun_integrity_ok(const struct stun_msg *m, enum stun_mac mac, struct bytes key,
                       size_t tag_min)
{
    enum stun_attr a =
        mac == STUN_MAC_SHA1 ? STUN_MESSAGE_INTEGRITY : STUN_MESSAGE_INTEGRITY_SHA256;
    uint8_t want[STUN_SHA256_TAG];

    ASSERT(tag_min >= STUN_SHA256_TAG_MIN);
    ASSERT(tag_min <= STUN_SHA256_TAG);
    if (mac == STUN_MAC_NONE || !stun_has(m, a))
        return false;
    struct bytes tag = stun_value(m, a);

    if (mac == STUN_MAC_SHA256 && tag.n < tag_min)
        return false;
    mac_of(mac, key, bytes_of(m->raw.p, STUN_HEADER + (size_t)m->span[a].at - 4), tag.n, want);
    bool same = crypto_equal(want, tag.p, tag.n);

    crypto_wipe(want, sizeof(want)); /* a forger must not find the right tag on our stack */
    return same;
}

void stun_put_integrity(struct stun_build *b, enum stun_mac mac, struct bytes key, size_t tag)
{
    enum stun_attr a =
        mac == STUN_MAC_SHA1 ? STUN_MESSAGE_INTEGRITY : STUN_MESSAGE_INTEGRITY_SHA256;
    uint8_t out[STUN_SHA256_TAG];

    size_t before = b->w.wrote;

    ASSERT(mac != STUN_MAC_NONE);
    if (mac == STUN_MAC_SHA1)
        tag = STUN_SHA1_TAG;
    ASSERT(tag % 4 == 0 && tag >= STUN_SHA256_TAG_MIN && tag <= STUN_SHA256_TAG);
    uint8_t *at = stun_room(b, stun_attr_type(a), tag);

    if (!at)
        return;
    mac_of(mac, key, bytes_of(b->base, before), tag, out);
    memcpy(at, out, tag);
}

void stun_put_fingerprint(struct stun_build *b)
{
    uint8_t *at = stun_room(b, stun_attr_type(STUN_FINGERPRINT), 4);

    if (!at)
        return;
    put_u16(b->base + 2, (uint16_t)(b->w.wrote - STUN_HEADER));
    put_u32(at, crypto_crc32(bytes_of(b->base, b->w.wrote - 8)) ^ STUN_FINGERPRINT_XOR);
}
