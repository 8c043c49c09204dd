/* STUN messages as a whole: headers, order and bounds of attributes. */
#include "proto/crypto.h"
#include "tests/unit/stun_vec.h"

TestSuite(stun_decode, .init = crypto_init);

/* ---- types --------------------------------------------------------------------------------- */

Test(stun_type, matches_the_table_of_turn_md_2)
{
    static const struct {
        unsigned method;
        enum stun_class c;
        uint16_t type;
    } all[] = {
        { STUN_BINDING, STUN_REQUEST, 0x0001 },
        { STUN_BINDING, STUN_INDICATION, 0x0011 },
        { STUN_BINDING, STUN_SUCCESS, 0x0101 },
        { STUN_BINDING, STUN_ERROR, 0x0111 },
        { STUN_ALLOCATE, STUN_REQUEST, 0x0003 },
        { STUN_ALLOCATE, STUN_SUCCESS, 0x0103 },
        { STUN_ALLOCATE, STUN_ERROR, 0x0113 },
        { STUN_REFRESH, STUN_REQUEST, 0x0004 },
        { STUN_REFRESH, STUN_SUCCESS, 0x0104 },
        { STUN_REFRESH, STUN_ERROR, 0x0114 },
        { STUN_SEND, STUN_INDICATION, 0x0016 },
        { STUN_DATA_METHOD, STUN_INDICATION, 0x0017 },
        { STUN_CREATE_PERMISSION, STUN_REQUEST, 8 },
        { STUN_CHANNEL_BIND, STUN_REQUEST, 9 },
        { STUN_CREATE_PERMISSION, STUN_SUCCESS, 0x0108 },
        { STUN_CHANNEL_BIND, STUN_ERROR, 0x0119 },
        { STUN_CONNECT, STUN_REQUEST, 0x000a },
        { STUN_CONNECT, STUN_SUCCESS, 0x010a },
        { STUN_CONNECTION_BIND, STUN_ERROR, 0x011b },
        { STUN_CONNECTION_ATTEMPT, STUN_INDICATION, 0x001c },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        cr_expect(stun_type(all[i].method, all[i].c) == all[i].type, "%04x", all[i].type);
}

Test(stun_type, has_one_spelling_for_each_method_and_class)
{
    for (unsigned type = 0; type < 0x4000; type++) {
        unsigned method = stun_method_of((uint16_t)type);

        cr_assert(method < 0x1000);
        cr_assert(stun_type(method, stun_class_of((uint16_t)type)) == type, "%04x", type);
    }
}

/* ---- published messages -------------------------------------------------------------------- */

Test(stun_decode, reads_rfc_5769_request)
{
    struct stun_msg m = decoded(V1);

    cr_expect(m.type == 0x0001 && !m.classic && m.broken == 0 && m.unknown_count == 0);
    cr_expect(bytes_eq(stun_value(&m, STUN_SOFTWARE), bytes_str("STUN test client")));
    cr_expect(stun_u32(&m, STUN_PRIORITY) == 0x6e0001ff);
    cr_expect(stun_value(&m, STUN_ICE_CONTROLLED).n == 8);
    cr_expect(bytes_eq(stun_value(&m, STUN_USERNAME), bytes_str("evtj:h6vY")));
    cr_expect(stun_mac_of(&m) == STUN_MAC_SHA1);
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA1, bytes_str(SHORT_PASSWORD), 32));
    cr_expect(not(stun_integrity_ok(&m, STUN_MAC_SHA1, bytes_str("VOkJxbRl1RmTxUk/WvJxBT"), 32)));
    cr_expect(not(stun_integrity_ok(&m, STUN_MAC_SHA256, bytes_str(SHORT_PASSWORD), 32)));
    cr_expect(not(stun_integrity_ok(&m, STUN_MAC_NONE, bytes_str(SHORT_PASSWORD), 32)));
}

Test(stun_decode, reads_rfc_5769_responses)
{
    struct stun_msg m4 = decoded(V2), m6 = decoded(V3);
    struct stun_addr a;

    cr_expect(m4.type == 0x0101 && stun_class_of(m4.type) == STUN_SUCCESS);
    cr_expect(stun_addr(&m4, STUN_XOR_MAPPED_ADDRESS, &a) && !a.v6);
    cr_expect(same_addr(&a.addr, "192.0.2.1:32853"));
    cr_expect(stun_integrity_ok(&m4, STUN_MAC_SHA1, bytes_str(SHORT_PASSWORD), 32));
    cr_expect(stun_addr(&m6, STUN_XOR_MAPPED_ADDRESS, &a) && a.v6);
    cr_expect(same_addr(&a.addr, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"));
    cr_expect(stun_integrity_ok(&m6, STUN_MAC_SHA1, bytes_str(SHORT_PASSWORD), 32));
}

Test(stun_decode, reads_rfc_5769_long_term_request)
{
    struct stun_msg m = decoded(V4);
    struct stun_key key;

    cr_expect(bytes_eq(stun_value(&m, STUN_USERNAME), bytes_str(MATRIX)));
    stun_key_make(STUN_ALG_MD5, stun_value(&m, STUN_USERNAME), stun_value(&m, STUN_REALM),
                  bytes_str("TheMatrIX"), &key);
    cr_expect(is_hex(stun_key_bytes(&key), KEY_V4));
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA1, stun_key_bytes(&key), 32));
}

Test(stun_decode, reads_rfc_8489_b_1_with_its_erratum)
{
    struct stun_msg m = decoded(V5);
    struct stun_key key;
    uint8_t hash[STUN_USERHASH_BYTES];
    uint8_t printed[164];

    stun_userhash(bytes_str(MATRIX), bytes_str("example.org"), hash);
    cr_expect(bytes_eq(stun_value(&m, STUN_USERHASH), bytes_of(hash, sizeof(hash))));
    stun_key_make(STUN_ALG_SHA256, bytes_str(MATRIX), bytes_str("example.org"),
                  bytes_str("TheMatrIX"), &key);
    cr_expect(is_hex(stun_key_bytes(&key), KEY_V5));
    cr_expect(stun_mac_of(&m) == STUN_MAC_SHA256);
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA256, stun_key_bytes(&key), 32));
    cr_expect(bytes_eq(stun_value(&m, STUN_NONCE),
                       bytes_str("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA")));
    cr_expect(stun_u16(&m, STUN_PASSWORD_ALGORITHM) == STUN_ALG_SHA256);

    memcpy(printed, hex(V5).p, sizeof(printed)); /* the length of the RFC's text */
    printed[3] = 0x9c;
    cr_expect(stun_decode(bytes_of(printed, sizeof(printed)), 0, &m) == STUN_BAD_LENGTH);
}

Test(stun_decode, reads_signed_allocates_in_both_styles)
{
    struct stun_msg m = decoded(V11);

    cr_expect(stun_integrity_ok(&m, stun_mac_of(&m), hex(KEY_MD5), 32));
    cr_expect(stun_u8(&m, STUN_REQUESTED_TRANSPORT) == 17);
    m = decoded(V12);
    cr_expect(stun_mac_of(&m) == STUN_MAC_SHA256);
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA256, hex(KEY_SHA256), 32));
    cr_expect(is_hex(stun_value(&m, STUN_USERHASH), USERHASH));
}

Test(stun_decode, rejects_every_truncation_and_every_tail)
{
    for (size_t v = 0; v < ARRAY_LEN(all_vectors); v++) {
        struct bytes whole = hex(all_vectors[v]);
        uint8_t longer[256] = { 0 };
        struct stun_msg m;

        for (size_t n = 0; n < whole.n; n++) {
            uint8_t *copy;
            struct bytes in = tight(bytes_of(whole.p, n), &copy);

            cr_assert(stun_decode(in, 0, &m) != STUN_OK, "vector %zu, %zu bytes", v, n);
            cr_assert(stun_decode(in, STUN_CLASSIC, &m) != STUN_OK, "vector %zu, %zu", v, n);
            free(copy);
        }
        memcpy(longer, whole.p, whole.n);
        for (size_t n = whole.n + 1; n < whole.n + 9; n++)
            cr_assert(stun_decode(bytes_of(longer, n), 0, &m) == STUN_BAD_LENGTH);
    }
    cr_expect(stun_decode(bytes_of(NULL, 0), 0, &(struct stun_msg){ 0 }) == STUN_FOREIGN);
}

/* The length field shortened with the message: attributes end where they must, or nothing is read.
 */
Test(stun_decode, rejects_every_cut_inside_an_attribute)
{
    struct bytes whole = hex(V1);
    static const size_t ends[] = { 0, 20, 28, 40, 56, 80, 88 };
    size_t fine = 0;

    for (size_t body = 0; body <= whole.n - STUN_HEADER; body += 4) {
        uint8_t *copy;
        struct stun_msg m;
        bool boundary = false;

        tight(bytes_of(whole.p, STUN_HEADER + body), &copy);
        put_u16(copy + 2, (uint16_t)body);
        for (size_t i = 0; i < ARRAY_LEN(ends); i++)
            boundary = boundary || ends[i] == body;
        enum stun_verdict v = stun_decode(bytes_of(copy, STUN_HEADER + body), 0, &m);

        cr_expect(v == (boundary ? STUN_OK : STUN_BAD_ATTRIBUTE), "%zu: %d", body, v);
        fine += v == STUN_OK;
        free(copy);
    }
    cr_expect(eq(sz, fine, ARRAY_LEN(ends)));
}

/* ---- numbered checks of turn.md §20 --------------------------------------------------------- */

Test(stun_decode, turn_01_binding_is_answered_in_the_published_shape)
{
    struct stun_msg m = decoded(V8);
    struct netaddr src = at_addr("192.0.2.1:32853");
    struct stun_addr a = stun_addr_of(&src);
    uint8_t buf[64];
    struct stun_build b;
    struct bytes out;

    stun_begin(&b, buf, sizeof(buf), stun_type(STUN_BINDING, STUN_SUCCESS), stun_id(&m));
    stun_put_addr(&b, STUN_XOR_MAPPED_ADDRESS, &a);
    cr_assert(stun_end(&b, &out));
    cr_expect(is_hex(out, V8_REPLY));
    cr_expect(eq(sz, out.n, 32));
}

Test(stun_decode, turn_02_a_trailing_byte_is_silence)
{
    cr_expect(verdict_of(V8 "00") == STUN_BAD_LENGTH);
}

Test(stun_decode, turn_03_a_length_without_body_is_silence)
{
    cr_expect(verdict_of("00010004" COOKIE TID) == STUN_BAD_LENGTH);
}

Test(stun_decode, turn_04_a_length_that_is_no_multiple_of_four_is_silence)
{
    cr_expect(verdict_of("00010002" COOKIE TID) == STUN_BAD_LENGTH);
    cr_expect(verdict_of("00010002" COOKIE TID "0000") == STUN_BAD_LENGTH);
    cr_expect(verdict_of("00010001" COOKIE TID "00") == STUN_BAD_LENGTH);
}

Test(stun_decode, turn_05_the_first_two_bits_are_zero)
{
    cr_expect(verdict_of("40010000" COOKIE TID) == STUN_FOREIGN);
    cr_expect(verdict_of("80010000" COOKIE TID) == STUN_FOREIGN);
    cr_expect(verdict_of("c0010000" COOKIE TID) == STUN_FOREIGN);
}

Test(stun_decode, turn_06_another_cookie_is_silence)
{
    cr_expect(verdict_of("00010000"
                         "2112a443" TID) == STUN_FOREIGN);
}

Test(stun_decode, turn_07_responses_decode_and_are_told_by_their_class)
{
    cr_expect(stun_class_of(decoded("01010000" COOKIE TID).type) == STUN_SUCCESS);
    cr_expect(stun_class_of(decoded("01110000" COOKIE TID).type) == STUN_ERROR);
}

Test(stun_decode, turn_08_an_indication_is_told_by_its_class)
{
    cr_expect(stun_class_of(decoded("00110000" COOKIE TID).type) == STUN_INDICATION);
}

Test(stun_decode, turn_11_turn_12_turn_13_unknown_attributes_are_listed_if_required)
{
    const uint64_t all = ~UINT64_C(0);
    struct stun_msg m = decoded("00010004" COOKIE TID "7fff0000");
    uint16_t types[STUN_UNKNOWN_MAX];

    cr_assert(eq(sz, stun_refused(&m, all, types), 1));
    cr_expect(types[0] == 0x7fff);
    struct making *k = making(STUN_BINDING, STUN_ERROR);

    stun_put_error(&k->b, 420, bytes_of(NULL, 0));
    stun_put_unknown(&k->b, types, 1);
    expect_made(k, "01110010" COOKIE TID "0009000400000414"
                   "000a00027fff0000");

    m = decoded("00010008" COOKIE TID "7ffe0000"
                "7ffd0000");
    cr_assert(eq(sz, stun_refused(&m, all, types), 2));
    cr_expect(types[0] == 0x7ffe && types[1] == 0x7ffd);
    m = decoded("00010004" COOKIE TID "ffff0000");
    cr_expect(zero(sz, stun_refused(&m, all, types)));
}

Test(stun_decode, turn_14_attributes_of_ice_are_known)
{
    struct stun_msg m = decoded("00010018" COOKIE TID "002400046e0001ff"
                                "00250000"
                                "802900080102030405060708");
    uint16_t types[STUN_UNKNOWN_MAX];

    cr_expect(m.unknown_count == 0 && stun_has(&m, STUN_USE_CANDIDATE));
    cr_expect(
        zero(sz, stun_refused(&m, STUN_BIT(STUN_PRIORITY) | STUN_BIT(STUN_USE_CANDIDATE), types)));
    cr_assert(eq(sz, stun_refused(&m, 0, types), 2));
    cr_expect(types[0] == 0x0024 && types[1] == 0x0025);
}

Test(stun_decode, turn_15_a_length_beyond_the_message_is_malformed)
{
    cr_expect(verdict_of("00010004" COOKIE TID "8022ffff") == STUN_BAD_ATTRIBUTE);
    cr_expect(verdict_of("00010004" COOKIE TID "80220001") == STUN_BAD_ATTRIBUTE);
    cr_expect(verdict_of("00010008" COOKIE TID "8022000500000000") == STUN_BAD_ATTRIBUTE);
    cr_expect(verdict_of("00010008" COOKIE TID "8022fffd00000000") == STUN_BAD_ATTRIBUTE);
    cr_expect(verdict_of("00010008" COOKIE TID "8022000400000000") == STUN_OK);
}

Test(stun_decode, turn_16_cve_2026_40613_reads_at_any_alignment)
{
    static const char *const odd[] = { "ffff000141000000", "ffff000241420000", "ffff000341424300" };
    uint8_t room[256];

    for (size_t shift = 0; shift < 8; shift++)
        for (size_t i = 0; i < ARRAY_LEN(odd); i++)
            for (unsigned before = 0; before < 2; before++) {
                struct bytes o = hex(odd[i]), v = hex("000d0004000004d2");
                struct stun_msg m;
                uint8_t *at = room + shift;

                memcpy(at, hex("00010010" COOKIE TID).p, STUN_HEADER);
                memcpy(at + STUN_HEADER, before ? o.p : v.p, 8);
                memcpy(at + STUN_HEADER + 8, before ? v.p : o.p, 8);
                cr_assert(stun_decode(bytes_of(at, STUN_HEADER + 16), 0, &m) == STUN_OK);
                cr_expect(stun_u32(&m, STUN_LIFETIME) == 1234);
            }
}

Test(stun_decode, turn_39_turn_40_nothing_has_a_meaning_behind_the_integrity)
{
    struct making *k = making(STUN_CREATE_PERMISSION, STUN_REQUEST);
    static const uint8_t long_name[STUN_USERNAME_MAX + 1];
    struct netaddr peer = at_addr("192.0.2.15:49162");
    struct stun_addr a = stun_addr_of(&peer), got;
    struct stun_msg m;
    uint16_t pos = 0;

    stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
    stun_put_u32(&k->b, STUN_LIFETIME, 77);
    stun_put_addr(&k->b, STUN_XOR_PEER_ADDRESS, &a);
    stun_put_type(&k->b, 0x7fff, bytes_of(NULL, 0));
    stun_put(&k->b, STUN_USERNAME, bytes_of(long_name, sizeof(long_name))); /* not even judged */
    stun_put_fingerprint(&k->b);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(m.have == (STUN_BIT(STUN_MESSAGE_INTEGRITY) | STUN_BIT(STUN_FINGERPRINT)));
    cr_expect(m.broken == 0 && m.unknown_count == 0 && m.meant == 0);
    cr_expect(not(stun_next_addr(&m, STUN_XOR_PEER_ADDRESS, &pos, &got)));
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA1, hex(KEY_MD5), 32));
}

/* ---- order and repetition ------------------------------------------------------------------ */

Test(stun_decode, sees_the_sha256_behind_the_sha1_and_checks_that_one)
{
    struct making *k = making(STUN_REFRESH, STUN_REQUEST);
    struct stun_msg m;

    stun_put_u32(&k->b, STUN_LIFETIME, 600);
    stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
    stun_put_u32(&k->b, STUN_LIFETIME, 1);
    stun_put_integrity(&k->b, STUN_MAC_SHA256, hex(KEY_MD5), 32);
    stun_put_integrity(&k->b, STUN_MAC_SHA256, hex(KEY_SHA256), 32); /* a second is ignored */
    stun_put_fingerprint(&k->b);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(stun_mac_of(&m) == STUN_MAC_SHA256);
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA256, hex(KEY_MD5), 32));
    cr_expect(not(stun_integrity_ok(&m, STUN_MAC_SHA256, hex(KEY_SHA256), 32)));
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA1, hex(KEY_MD5), 32));
    cr_expect(stun_u32(&m, STUN_LIFETIME) == 600);
}

Test(stun_decode, turn_38_a_wrong_sha256_is_not_saved_by_a_right_sha1)
{
    struct making *k = making(STUN_REFRESH, STUN_REQUEST);
    struct stun_msg m;

    stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
    stun_put_integrity(&k->b, STUN_MAC_SHA256, hex(KEY_SHA256), 32);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(stun_mac_of(&m) == STUN_MAC_SHA256);
    cr_expect(not(stun_integrity_ok(&m, stun_mac_of(&m), hex(KEY_MD5), 32)));
}

Test(stun_decode, ignores_a_sha1_behind_the_sha256)
{
    struct making *k = making(STUN_REFRESH, STUN_REQUEST);
    struct stun_msg m;

    stun_put_integrity(&k->b, STUN_MAC_SHA256, hex(KEY_MD5), 32);
    stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(m.have == STUN_BIT(STUN_MESSAGE_INTEGRITY_SHA256));
}

Test(stun_decode, takes_the_first_of_an_attribute_even_when_it_is_broken)
{
    struct stun_msg m = decoded("00040018" COOKIE TID "000d000400000001"
                                "000d000400000002"
                                "000d000400000003");

    cr_expect(stun_u32(&m, STUN_LIFETIME) == 1);
    m = decoded("00040010" COOKIE TID "000d000300000000"
                "000d000400000002");
    cr_expect(stun_is_broken(&m, STUN_LIFETIME) && !stun_has(&m, STUN_LIFETIME));
    cr_expect(stun_u32(&m, STUN_LIFETIME) == 0 && stun_value(&m, STUN_LIFETIME).n == 0);
    m = decoded("00040010" COOKIE TID "000d000400000002"
                "000d000300000000");
    cr_expect(stun_u32(&m, STUN_LIFETIME) == 2 && m.broken == 0);
}

Test(stun_decode, lists_distinct_strangers_up_to_its_bound)
{
    struct making *k = making(STUN_BINDING, STUN_REQUEST);
    uint16_t types[STUN_UNKNOWN_MAX];
    struct stun_msg m;

    for (unsigned i = 0; i < STUN_UNKNOWN_MAX; i++) {
        stun_put_type(&k->b, (uint16_t)(0x7000 + i), bytes_of(NULL, 0));
        stun_put_type(&k->b, 0x7000, bytes_of(NULL, 0));
    }
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(m.unknown_count == STUN_UNKNOWN_MAX && !m.unknown_more);
    stun_put_type(&k->b, 0x6fff, bytes_of(NULL, 0));
    stun_put_u8(&k->b, STUN_CHANGE_REQUEST, 0);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(m.unknown_count == STUN_UNKNOWN_MAX && m.unknown_more);
    cr_assert(eq(sz, stun_refused(&m, 0, types), STUN_UNKNOWN_MAX));
    for (unsigned i = 0; i < STUN_UNKNOWN_MAX; i++)
        cr_expect(types[i] == 0x7000 + i);
}

Test(stun_decode, turn_22_what_the_server_does_not_support_is_refused_by_name)
{
    struct stun_msg m = decoded("00010018" COOKIE TID "0003000400000002"
                                "001a0000"
                                "7abc0000"
                                "8027000400000001");
    uint16_t types[STUN_UNKNOWN_MAX];

    cr_assert(eq(sz, stun_refused(&m, 0, types), 3));
    cr_expect(types[0] == 0x7abc && types[1] == 0x0003 && types[2] == 0x001a);
    cr_assert(eq(sz, stun_refused(&m, STUN_BIT(STUN_CHANGE_REQUEST), types), 2));
    m = decoded("00010008" COOKIE TID "0003000200000000"); /* broken, and still not supported */
    cr_assert(eq(sz, stun_refused(&m, 0, types), 1));
    cr_expect(types[0] == 0x0003);
}

/* ---- RFC 3489 ------------------------------------------------------------------------------ */

Test(stun_decode, takes_rfc_3489_messages_only_when_asked_to)
{
    struct bytes in = hex("00010008"
                          "00112233" TID "0003000400000000");
    struct stun_msg m;
    struct netaddr src = at_addr("192.0.2.1:32853");
    struct stun_addr a = stun_addr_of(&src);
    uint8_t buf[64];
    struct stun_build b;
    struct bytes out;

    cr_expect(stun_decode(in, 0, &m) == STUN_FOREIGN);
    cr_assert(stun_decode(in, STUN_CLASSIC, &m) == STUN_OK);
    cr_expect(m.classic && stun_has(&m, STUN_CHANGE_REQUEST));
    stun_begin(&b, buf, sizeof(buf), 0x0101, stun_id(&m));
    stun_put_addr(&b, STUN_MAPPED_ADDRESS, &a);
    cr_assert(stun_end(&b, &out));
    cr_expect(is_hex(out, "0101000c"
                          "00112233" TID "0001000800018055c0000201"));

    cr_assert(stun_decode(hex(V8), STUN_CLASSIC, &m) == STUN_OK);
    cr_expect(not(m.classic));
    in = hex("00010008"
             "00112233" TID "8028000400000000"); /* FINGERPRINT had no meaning then */
    cr_expect(stun_decode(in, STUN_CLASSIC, &m) == STUN_OK);
}

Test(stun_head_decode, reads_what_a_door_without_attributes_needs)
{
    struct stun_head h;
    struct bytes in = hex("000100022112a442a1b2c3d4e5f60718293a4b5cffff00"); /* dig.md §11 */

    cr_assert(stun_head_decode(in, &h));
    cr_expect(h.type == 1 && h.length == 2 && h.cookie);
    for (size_t n = 0; n < STUN_HEADER; n++)
        cr_expect(not(stun_head_decode(bytes_of(in.p, n), &h)));
    cr_expect(stun_head_decode(hex("00010000"
                                   "2112a443" TID),
                               &h) &&
              !h.cookie);
    cr_expect(not(stun_head_decode(hex("40010000" COOKIE TID), &h)));
}
