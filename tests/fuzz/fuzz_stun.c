/* STUN messages under any bytes. The first byte chooses: RFC 3489 too, a FINGERPRINT repaired so
 * that what stands before it is reached, or that the rest is a
 * program for the builder. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/stun.h"

enum { CLASSIC = 1, REPAIR = 2, BUILD = 4, MESSAGE_MAX = 2048 };

static const uint64_t repeated = STUN_BIT(STUN_XOR_PEER_ADDRESS) |
                                 STUN_BIT(STUN_XOR_RELAYED_ADDRESS) |
                                 STUN_BIT(STUN_ADDRESS_ERROR_CODE) | STUN_BIT(STUN_ORIGIN);

/* As if the sender had meant it: the length of the header, and the last attribute's checksum. */
static void repair(uint8_t *b, size_t n)
{
    if (n < STUN_HEADER || n > MESSAGE_MAX)
        return;
    put_u16(b + 2, (uint16_t)(n - STUN_HEADER));
    if (n >= STUN_HEADER + 8 && b[n - 8] == 0x80 && b[n - 7] == 0x28 && b[n - 6] == 0 &&
        b[n - 5] == 4)
        put_u32(b + n - 4, crypto_crc32(bytes_of(b, n - 8)) ^ 0x5354554eu);
}

static void check_index(const struct stun_msg *m, struct bytes in)
{
    size_t body = in.n - STUN_HEADER;
    uint16_t types[STUN_UNKNOWN_MAX];

    CHECK(m->raw.p == in.p && m->raw.n == in.n && body % 4 == 0 && m->meant <= body);
    CHECK((m->have & m->broken & ~repeated) == 0);
    CHECK((m->have | m->broken) >> STUN_ATTRS == 0);
    for (unsigned a = 0; a < STUN_ATTRS; a++) {
        struct bytes v = stun_value(m, (enum stun_attr)a);

        CHECK(stun_has(m, (enum stun_attr)a) || v.n == 0);
        if (!stun_has(m, (enum stun_attr)a))
            continue;
        CHECK(m->span[a].at >= 4 && (size_t)m->span[a].at + v.n <= body);
        enum stun_attr named;

        CHECK(stun_attr_of((uint16_t)(v.p[-4] << 8 | v.p[-3]), &named) && named == a);
        CHECK((size_t)(v.p[-2] << 8 | v.p[-1]) == v.n);
    }
    CHECK(m->unknown_count <= STUN_UNKNOWN_MAX);
    CHECK(!m->unknown_more || m->unknown_count == STUN_UNKNOWN_MAX);
    for (size_t n = stun_refused(m, 0, types), i = 0; i < n; i++) {
        CHECK(types[i] < 0x8000);
        for (size_t k = 0; k < i; k++)
            CHECK(types[i] != types[k]);
    }
    if (stun_has(m, STUN_FINGERPRINT) && !m->classic)
        CHECK(stun_value(m, STUN_FINGERPRINT).p + 4 == in.p + in.n);
}

/* Every attribute goes through the builder: the same message comes out, but for what lay in
 * padding. */
static void check_rebuilt(const struct stun_msg *m, struct bytes in)
{
    static uint8_t buf[MESSAGE_MAX];
    struct cur c = cur_of(bytes_of(in.p + STUN_HEADER, in.n - STUN_HEADER));
    struct stun_build b;
    struct stun_msg again;
    struct bytes out;

    memset(buf, 0xa5, sizeof(buf));
    stun_begin(&b, buf, sizeof(buf), m->type, stun_id(m));
    while (c.n) {
        uint16_t type = cur_u16(&c), n = cur_u16(&c);
        struct bytes v = cur_take(&c, n);

        cur_take(&c, -(size_t)n & 3);
        CHECK(!c.bad);
        if (type != 0x8028 || m->classic)
            stun_put_type(&b, type, v);
        else
            stun_put_fingerprint(&b);
    }
    CHECK(stun_end(&b, &out));
    CHECK(out.n == in.n);
    CHECK(stun_decode(out, m->classic ? STUN_CLASSIC : 0, &again) == STUN_OK);
    CHECK(again.have == m->have && again.broken == m->broken && again.meant == m->meant);
    CHECK(again.unknown_count == m->unknown_count && again.unknown_more == m->unknown_more);
    for (unsigned a = 0; a < STUN_ATTRS; a++)
        if (a != STUN_FINGERPRINT)
            CHECK(
                bytes_eq(stun_value(m, (enum stun_attr)a), stun_value(&again, (enum stun_attr)a)));
}

static void check_addresses(const struct stun_msg *m)
{
    static const enum stun_attr all[] = { STUN_MAPPED_ADDRESS,     STUN_XOR_PEER_ADDRESS,
                                          STUN_XOR_MAPPED_ADDRESS, STUN_ALTERNATE_SERVER,
                                          STUN_RESPONSE_ORIGIN,    STUN_OTHER_ADDRESS };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct stun_addr a;
        struct stun_build b;
        uint8_t buf[64];

        CHECK(stun_addr(m, all[i], &a) == stun_has(m, all[i]));
        if (!stun_has(m, all[i]))
            continue;
        CHECK(a.v6 || netaddr_is4(&a.addr));
        stun_begin(&b, buf, sizeof(buf), m->type, stun_id(m));
        stun_put_addr(&b, all[i], &a);
        struct bytes v = stun_value(m, all[i]); /* its first byte is reserved */

        CHECK(!b.w.bad && b.w.wrote == STUN_HEADER + 4 + v.n);
        CHECK(memcmp(buf + STUN_HEADER + 5, v.p + 1, v.n - 1) == 0);
    }
}

static void check_repeated(const struct stun_msg *m)
{
    struct stun_addr a;
    struct stun_icmp icmp;
    struct bytes v, phrase;
    uint16_t pos = 0, last = 0, code;
    bool v6;

    while (stun_next_addr(m, STUN_XOR_PEER_ADDRESS, &pos, &a)) {
        CHECK(stun_has(m, STUN_XOR_PEER_ADDRESS) && pos > last && pos <= m->meant);
        last = pos;
    }
    CHECK((last > 0) == stun_has(m, STUN_XOR_PEER_ADDRESS));
    for (pos = 0; stun_next(m, STUN_ADDRESS_ERROR_CODE, &pos, &v);)
        if (stun_address_error(v, &v6, &code))
            CHECK(code >= 300 && code < 700);
    CHECK(stun_error(m, &code, &phrase) == stun_has(m, STUN_ERROR_CODE));
    CHECK(stun_icmp(m, &icmp) == stun_has(m, STUN_ICMP));
    if (stun_has(m, STUN_ICMP))
        CHECK(icmp.type < 128 && icmp.code < 512);
}

/* What we sign verifies; what somebody else signed with a key that is not his does not. */
static void check_signed(const struct stun_msg *m, enum stun_mac mac)
{
    static uint8_t buf[MESSAGE_MAX + 64];
    static const uint8_t key[20] = { 1, 2, 3 };
    struct stun_build b;
    struct stun_msg again;
    struct bytes out;

    CHECK(!stun_integrity_ok(m, stun_mac_of(m), bytes_of(key, sizeof(key)), STUN_SHA256_TAG_MIN));
    stun_begin(&b, buf, sizeof(buf), m->type, stun_id(m));
    wcur_put(&b.w, bytes_of(m->raw.p + STUN_HEADER, m->meant));
    stun_put_integrity(&b, mac, bytes_of(key, sizeof(key)), STUN_SHA256_TAG);
    stun_put_fingerprint(&b);
    CHECK(stun_end(&b, &out));
    CHECK(stun_decode(out, 0, &again) == STUN_OK);
    CHECK(stun_mac_of(&again) == mac && again.meant == m->meant);
    CHECK(stun_integrity_ok(&again, mac, bytes_of(key, sizeof(key)), STUN_SHA256_TAG));
}

static void put_one(struct stun_build *b, struct cur *c)
{
    static const uint16_t strangers[] = { 0x7fff, 0x7ffe, 0xffff };
    enum stun_attr a = (enum stun_attr)(fuzz_u8(c) % STUN_ATTRS);
    uint8_t op = fuzz_u8(c);
    struct stun_addr addr = { .v6 = op & 16 };

    switch (op & 7) {
    case 0:
        stun_put_u8(b, a, op);
        break;
    case 1:
        stun_put_u16(b, a, op);
        break;
    case 2:
        stun_put_u32(b, a, op);
        break;
    case 3:
        if (op & 8)
            stun_put_even_port(b, op & 16);
        else
            stun_put_addr(b, a, &addr);
        break;
    case 4:
        if (op & 8)
            stun_put_address_error(b, op & 16, 300 + op, fuzz_bytes(c));
        else
            stun_put_error(b, 300 + op, fuzz_bytes(c));
        break;
    case 5:
        stun_put_unknown(b, strangers, op % 4);
        break;
    case 6:
        stun_put_icmp(b, &(struct stun_icmp){ op & 127, (uint16_t)(op * 2), op });
        break;
    default:
        stun_put(b, a, fuzz_bytes(c));
        break;
    }
}

/* Any calls in any order in any room: never past it, and what comes out is read again. */
static void check_program(struct cur *c)
{
    static const uint8_t tid[STUN_TID];
    uint8_t room = fuzz_u8(c), id[STUN_ID], fence = 0x5c;
    uint8_t buf[UINT8_MAX + 1];
    struct stun_build b;
    struct stun_msg m;
    struct bytes out;
    bool fingerprint = room & 1;

    memset(buf, fence, sizeof(buf));
    stun_id_of(tid, id);
    stun_begin(&b, buf, room, fuzz_u8(c) & 0x3f, id);
    while (c->n)
        put_one(&b, c);
    if (room & 2)
        stun_put_integrity(&b, STUN_MAC_SHA256, bytes_of(id, sizeof(id)), 16 + (room & 12));
    if (fingerprint)
        stun_put_fingerprint(&b);
    for (size_t i = room; i < sizeof(buf); i++)
        CHECK(buf[i] == fence);
    if (!stun_end(&b, &out))
        return;
    CHECK(out.n <= room);
    enum stun_verdict v = stun_decode(out, 0, &m); /* it may have put a wrong FINGERPRINT by hand */

    CHECK(v == STUN_OK || v == STUN_BAD_ATTRIBUTE || v == STUN_BAD_FINGERPRINT);
    if (v != STUN_OK)
        return;
    CHECK(m.raw.n == out.n && (!fingerprint || stun_has(&m, STUN_FINGERPRINT)));
    if (room & 2 && m.meant == out.n - (fingerprint ? 8 : 0) - 4 - (size_t)(16 + (room & 12)))
        CHECK(stun_integrity_ok(&m, STUN_MAC_SHA256, bytes_of(id, sizeof(id)), 16));
}

/* The head that goes before a payload is what the builder would have written. */
static void check_head(struct bytes in)
{
    static uint8_t buf[MESSAGE_MAX + 64];
    static const uint8_t tid[STUN_TID] = { 9 };
    struct stun_addr peer = { .v6 = in.n & 1 };
    uint8_t head[STUN_DATA_HEAD_MAX], id[STUN_ID];
    struct stun_build b;
    struct bytes out;
    size_t pad, n;

    if (in.n > MESSAGE_MAX)
        return;
    n = stun_data_head(head, STUN_DATA_METHOD, tid, &peer, (uint16_t)in.n, &pad);
    stun_id_of(tid, id);
    stun_begin(&b, buf, sizeof(buf), stun_type(STUN_DATA_METHOD, STUN_INDICATION), id);
    stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &peer);
    stun_put(&b, STUN_DATA, in);
    CHECK(stun_end(&b, &out));
    CHECK(out.n == n + in.n + pad && memcmp(out.p, head, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t copy[MESSAGE_MAX];
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t how = fuzz_u8(&c);
    struct stun_head h;
    struct stun_msg m;

    crypto_init();
    if (how & BUILD) {
        check_program(&c);
        return 0;
    }
    struct bytes in = fuzz_rest(&c);

    check_head(in);
    if (how & REPAIR && in.n && in.n <= sizeof(copy)) {
        memcpy(copy, in.p, in.n);
        repair(copy, in.n);
        in.p = copy;
    }
    enum stun_verdict v = stun_decode(in, how & CLASSIC ? STUN_CLASSIC : 0, &m);

    CHECK(v < STUN_VERDICTS);
    if (v != STUN_FOREIGN)
        CHECK(stun_head_decode(in, &h) && h.type < 0x4000);
    if (v != STUN_OK)
        return 0;
    CHECK(stun_type(stun_method_of(m.type), stun_class_of(m.type)) == m.type);
    check_index(&m, in);
    check_addresses(&m);
    check_repeated(&m);
    if (in.n > MESSAGE_MAX)
        return 0;
    check_rebuilt(&m, in);
    if (!m.classic) {
        check_signed(&m, STUN_MAC_SHA1);
        check_signed(&m, STUN_MAC_SHA256);
    }
    return 0;
}
