/* Messages of ours, and the index against a model. */
#include "proto/crypto.h"
#include "tests/unit/stun_vec.h"

TestSuite(stun_build, .init = crypto_init);
TestSuite(stun_model, .init = crypto_init);

/* ---- building ------------------------------------------------------------------------------ */

static void build_v11(struct stun_build *b)
{
    stun_put_u8(b, STUN_REQUESTED_TRANSPORT, 17);
    stun_put(b, STUN_USERNAME, bytes_str("user"));
    stun_put(b, STUN_REALM, bytes_str("realm"));
    stun_put(b, STUN_NONCE, bytes_str("nonce123"));
    stun_put_integrity(b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
    stun_put_fingerprint(b);
}

static void build_v12(struct stun_build *b)
{
    stun_put_u8(b, STUN_REQUESTED_TRANSPORT, 17);
    stun_put(b, STUN_USERHASH, hex(USERHASH));
    stun_put(b, STUN_REALM, bytes_str("realm"));
    stun_put(b, STUN_NONCE, bytes_str("obMatJos2wAAAabcdefgh"));
    stun_put(b, STUN_PASSWORD_ALGORITHMS, bytes_of(stun_algorithms, sizeof(stun_algorithms)));
    stun_put_u16(b, STUN_PASSWORD_ALGORITHM, STUN_ALG_SHA256);
    stun_put_integrity(b, STUN_MAC_SHA256, hex(KEY_SHA256), STUN_SHA256_TAG);
    stun_put_fingerprint(b);
}

Test(stun_build, writes_the_published_requests)
{
    struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
    struct stun_addr peer = { at_addr("192.0.2.15:49162"), false };

    stun_put_u8(&k->b, STUN_REQUESTED_TRANSPORT, 17);
    expect_made(k, V10);
    k = making(STUN_ALLOCATE, STUN_REQUEST);
    build_v11(&k->b);
    expect_made(k, V11);
    k = making(STUN_ALLOCATE, STUN_REQUEST);
    build_v12(&k->b);
    expect_made(k, V12);
    k = making(STUN_CHANNEL_BIND, STUN_REQUEST);
    stun_put_u16(&k->b, STUN_CHANNEL_NUMBER, 0x4000);
    stun_put_addr(&k->b, STUN_XOR_PEER_ADDRESS, &peer);
    expect_made(k, V13);
    k = making(STUN_SEND, STUN_INDICATION);
    stun_put_addr(&k->b, STUN_XOR_PEER_ADDRESS, &peer);
    stun_put(&k->b, STUN_DATA, bytes_str("hello"));
    expect_made(k, V14);
}

/* dusk_51: the answers of dusk.md §11.2, byte for byte, and the integrity of §11.3. */
Test(stun_build, writes_the_answers_of_dusk)
{
    struct bytes software = bytes_str("Dusk TURN Server 0.1");
    struct stun_addr relayed = { at_addr("192.0.2.1:50000"), false },
                     mapped = { at_addr("192.0.2.7:12345"), false };
    struct making *k = making(STUN_BINDING, STUN_SUCCESS);

    stun_put_addr(&k->b, STUN_XOR_MAPPED_ADDRESS, &mapped);
    stun_put(&k->b, STUN_SOFTWARE, software);
    stun_put_fingerprint(&k->b);
    expect_made(k, "0101002c" COOKIE TID "00200008"
                   "0001112be112a645"
                   "80220014"
                   "4475736b205455524e2053657276657220302e31"
                   "802800046df09151");
    k = making(STUN_ALLOCATE, STUN_SUCCESS);
    stun_put_addr(&k->b, STUN_XOR_RELAYED_ADDRESS, &relayed);
    stun_put_u32(&k->b, STUN_LIFETIME, 600);
    stun_put_addr(&k->b, STUN_XOR_MAPPED_ADDRESS, &mapped);
    stun_put(&k->b, STUN_SOFTWARE, software);
    stun_put_integrity(&k->b, STUN_MAC_SHA1, hex("9ab67e9a4a1d0a801b6473714a219236"), 0);
    stun_put_fingerprint(&k->b);
    expect_made(k, "01030058" COOKIE TID "00160008"
                   "0001e242e112a643"
                   "000d000400000258"
                   "00200008"
                   "0001112be112a645"
                   "80220014"
                   "4475736b205455524e2053657276657220302e31"
                   "00080014"
                   "6cbb06cc52d9ea3705d2759d2158114d5fab1e5c"
                   "80280004f26ae2ee");
    k = making(STUN_ALLOCATE, STUN_ERROR);
    stun_put_error(&k->b, 401, bytes_str("Unauthorized"));
    stun_put(&k->b, STUN_REALM, bytes_str("duskchat.app"));
    stun_put(&k->b, STUN_NONCE, bytes_str("000000006955b900-a5fed7a1fb703c37"));
    stun_put(&k->b, STUN_SOFTWARE, software);
    stun_put_fingerprint(&k->b);
    struct bytes got = made(k);

    cr_expect(is_hex(bytes_of(got.p, 8), "0113006c" COOKIE));
    cr_expect(is_hex(bytes_of(got.p + got.n - 8, 8), "802800045dea07b3"));
}

Test(stun_build, is_bad_in_every_smaller_room)
{
    static const struct {
        const char *wire;
        void (*put)(struct stun_build *b);
    } all[] = { { V11, build_v11 }, { V12, build_v12 } };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        size_t full = hex(all[i].wire).n;

        for (size_t room = 0; room <= full; room++) {
            uint8_t *buf = malloc(room ? room : 1), id[STUN_ID];
            struct stun_build b;
            struct bytes out;

            stun_id_of(hex(TID).p, id);
            stun_begin(&b, buf, room, 0x0003, id);
            all[i].put(&b);
            cr_expect(stun_end(&b, &out) == (room == full), "%zu of %zu", room, full);
            free(buf);
        }
    }
}

static void put_padded(struct stun_build *b, size_t n)
{
    static const uint8_t ones[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    static const uint16_t types[8] = { 0x0101, 0x0102 };

    stun_put(b, STUN_SOFTWARE, bytes_of(ones, n));
    stun_put_error(b, 400, bytes_of(ones, n));
    stun_put_address_error(b, true, 440, bytes_of(ones, n));
    stun_put_unknown(b, types, n);
    stun_put_even_port(b, true);
}

Test(stun_build, turn_20_cve_2020_4067_padding_is_zero)
{
    for (size_t n = 0; n <= 8; n++) {
        struct making *k = making(STUN_BINDING, STUN_ERROR); /* poisoned with 0xa5 */
        struct bytes got;
        uint8_t other[256], id[STUN_ID];
        struct stun_build b;
        struct bytes again;

        put_padded(&k->b, n);
        got = made(k);
        memset(other, 0x5a, sizeof(other));
        stun_id_of(hex(TID).p, id);
        stun_begin(&b, other, sizeof(other), stun_type(STUN_BINDING, STUN_ERROR), id);
        put_padded(&b, n);
        cr_assert(stun_end(&b, &again));
        cr_assert(bytes_eq(got, again), "what lay in the buffer shows");
        for (size_t at = STUN_HEADER; at < got.n;) {
            size_t len = (size_t)got.p[at + 2] << 8 | got.p[at + 3];

            for (at += 4 + len; at % 4; at++)
                cr_expect(got.p[at] == 0, "byte %zu", at);
        }
    }
}

/* turn.md §15.6: coturn twice let a 16-bit length wrap. */
Test(stun_build, a_length_past_sixteen_bits_is_bad_and_never_wraps)
{
    static const uint8_t much[70000];
    static const struct {
        size_t n;
        bool fits;
    } all[] = { { 65528, true },  { 65529, false }, { 65532, false }, { 65535, false },
                { 65536, false }, { 65537, false }, { 69000, false } };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct making *k = making(STUN_SEND, STUN_INDICATION);
        struct bytes out;

        stun_put(&k->b, STUN_DATA, bytes_of(much, all[i].n));
        cr_expect(stun_end(&k->b, &out) == all[i].fits, "%zu", all[i].n);
    }
    for (int what = 0; what < 4; what++) { /* full, and then one more */
        struct making *k = making(STUN_SEND, STUN_INDICATION);
        struct bytes out;
        struct stun_msg m;

        stun_put(&k->b, STUN_DATA, bytes_of(much, 65528));
        cr_assert(stun_end(&k->b, &out) && out.n == STUN_HEADER + STUN_BODY_MAX);
        cr_assert(stun_decode(out, 0, &m) == STUN_OK && stun_value(&m, STUN_DATA).n == 65528);
        if (what == 0)
            stun_put(&k->b, STUN_DONT_FRAGMENT, bytes_of(NULL, 0));
        else if (what == 1)
            stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
        else if (what == 2)
            stun_put_integrity(&k->b, STUN_MAC_SHA256, hex(KEY_MD5), 32);
        else
            stun_put_fingerprint(&k->b);
        cr_expect(not(stun_end(&k->b, &out)), "%d", what);
    }
}

Test(stun_build, turn_65_a_data_head_begins_the_same_indication)
{
    static const char *const peers[] = { "192.0.2.15:49162", "[2001:db8::1]:3478" };

    for (size_t i = 0; i < ARRAY_LEN(peers); i++)
        for (uint16_t n = 0; n < 20; n++) {
            struct stun_addr peer = { at_addr(peers[i]), i == 1 };
            struct making *k = making(STUN_DATA_METHOD, STUN_INDICATION);
            uint8_t data[20], split[STUN_DATA_HEAD_MAX + 24];
            size_t pad;

            memset(data, 'd', sizeof(data));
            stun_put_addr(&k->b, STUN_XOR_PEER_ADDRESS, &peer);
            stun_put(&k->b, STUN_DATA, bytes_of(data, n));
            size_t head = stun_data_head(split, STUN_DATA_METHOD, hex(TID).p, &peer, n, &pad);

            cr_assert(le(sz, head, STUN_DATA_HEAD_MAX));
            memcpy(split + head, data, n);
            memset(split + head + n, 0, pad);
            cr_expect(bytes_eq(made(k), bytes_of(split, head + n + pad)), "%zu, %u", i, n);
        }
}

/* ---- against a model ----------------------------------------------------------------------- */

/* What RFC 8489 §14 says of one attribute, said again without an index: the first value of that
 * type before any integrity, by a walk. */
static bool model_find(struct bytes msg, uint16_t type, struct bytes *value)
{
    size_t at = STUN_HEADER;

    while (at + 4 <= msg.n) {
        uint16_t t = (uint16_t)(msg.p[at] << 8 | msg.p[at + 1]);
        size_t n = (size_t)msg.p[at + 2] << 8 | msg.p[at + 3];

        if (t == type) {
            *value = bytes_of(msg.p + at + 4, n);
            return true;
        }
        if (t == 0x0008 || t == 0x001c || t == 0x8028)
            return false;
        at += 4 + (n + 3) / 4 * 4;
    }
    return false;
}

static void put_random(struct stun_build *b, struct seeded *s)
{
    static const uint16_t strange[] = { 0x0002, 0x7fff, 0x8fff, 0xffff, 0x0040, 0x8040 };
    uint8_t v[64];
    size_t n = seeded_below(s, sizeof(v));
    unsigned a = (unsigned)seeded_below(s, STUN_ATTRS);

    for (size_t i = 0; i < sizeof(v); i++)
        v[i] = (uint8_t)seeded_below(s, 4);
    if (a == STUN_FINGERPRINT || seeded_below(s, 8) == 0)
        stun_put_type(b, strange[seeded_below(s, ARRAY_LEN(strange))], bytes_of(v, n));
    else
        stun_put(b, (enum stun_attr)a, bytes_of(v, seeded_below(s, 2) ? n : n / 4 * 4 % 24));
}

#define REPEATED                                                                                   \
    (STUN_BIT(STUN_XOR_PEER_ADDRESS) | STUN_BIT(STUN_XOR_RELAYED_ADDRESS) |                        \
     STUN_BIT(STUN_ADDRESS_ERROR_CODE) | STUN_BIT(STUN_ORIGIN))

Test(stun_model, the_index_finds_what_a_walk_finds)
{
    size_t indexed = 0;

    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct seeded s = { seed };
        struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
        size_t count = seeded_below(&s, 12);
        struct stun_msg m;

        for (size_t i = 0; i < count; i++)
            put_random(&k->b, &s);
        if (seeded_below(&s, 2))
            stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
        if (seeded_below(&s, 2))
            stun_put_fingerprint(&k->b);
        struct bytes wire = made(k);

        cr_assert(stun_decode(wire, 0, &m) == STUN_OK, "seed %zu", (size_t)seed);
        cr_assert(zero(u64, m.have & m.broken & ~REPEATED));
        for (unsigned a = 0; a < STUN_ATTRS; a++) {
            struct bytes want = { 0 }, got = stun_value(&m, (enum stun_attr)a);
            bool there = (m.have | m.broken) & STUN_BIT(a);
            bool found = model_find(wire, stun_attr_type((enum stun_attr)a), &want);

            if (a == STUN_MESSAGE_INTEGRITY_SHA256 || a == STUN_FINGERPRINT)
                continue; /* may stand behind the integrity: tested by themselves */
            cr_assert(there == found, "seed %zu: %04x", (size_t)seed,
                      stun_attr_type((enum stun_attr)a));
            if (stun_has(&m, (enum stun_attr)a) && !stun_is_broken(&m, (enum stun_attr)a)) {
                cr_assert(got.p == want.p && got.n == want.n);
                indexed++;
            }
        }
    }
    cr_expect(indexed > 2000, "the model saw %zu values", indexed);
}
