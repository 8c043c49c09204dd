/* The attributes: shapes and values. */
#include "proto/crypto.h"
#include "tests/unit/stun_vec.h"

TestSuite(stun_attr, .init = crypto_init);

Test(stun_attr, numbers_lead_to_names_and_back)
{
    size_t known = 0;

    for (unsigned a = 0; a < STUN_ATTRS; a++) {
        enum stun_attr back;

        cr_assert(stun_attr_of(stun_attr_type((enum stun_attr)a), &back));
        cr_expect(back == a, "%u", a);
        if (a)
            cr_expect(stun_attr_type((enum stun_attr)(a - 1)) < stun_attr_type((enum stun_attr)a));
    }
    for (unsigned type = 0; type <= UINT16_MAX; type++) {
        enum stun_attr a;

        if (!stun_attr_of((uint16_t)type, &a))
            continue;
        known++;
        if (type == 0x8032) /* the number of RFC 8656's drafts */
            cr_assert(a == STUN_ADDITIONAL_ADDRESS_FAMILY);
        else
            cr_assert(stun_attr_type(a) == type, "%04x", type);
    }
    cr_expect(eq(sz, known, STUN_ATTRS + 1));
    cr_expect(stun_attr_type(STUN_CONNECTION_ID) < 0x8000);
    cr_expect(stun_attr_type(STUN_ADDITIONAL_ADDRESS_FAMILY) == 0x8000);
}

/* Each attribute at each length around its limits: present, or broken, and nothing between. */
Test(stun_attr, lengths_are_those_of_turn_md_3)
{
    static const struct {
        enum stun_attr a;
        size_t min, max;
    } all[] = {
        { STUN_CHANGE_REQUEST, 4, 4 },
        { STUN_USERNAME, 0, 508 },
        { STUN_CHANNEL_NUMBER, 4, 4 },
        { STUN_LIFETIME, 4, 4 },
        { STUN_REALM, 0, 763 },
        { STUN_NONCE, 0, 763 },
        { STUN_REQUESTED_ADDRESS_FAMILY, 4, 4 },
        { STUN_EVEN_PORT, 1, 1 },
        { STUN_REQUESTED_TRANSPORT, 4, 4 },
        { STUN_DONT_FRAGMENT, 0, 0 },
        { STUN_USERHASH, 32, 32 },
        { STUN_RESERVATION_TOKEN, 8, 8 },
        { STUN_RESPONSE_PORT, 2, 4 },
        { STUN_CONNECTION_ID, 4, 4 },
        { STUN_ADDITIONAL_ADDRESS_FAMILY, 4, 4 },
        { STUN_ICMP, 8, 8 },
        { STUN_SOFTWARE, 0, 763 },
        { STUN_CACHE_TIMEOUT, 4, 4 },
        { STUN_ALTERNATE_DOMAIN, 0, 255 },
        { STUN_ORIGIN, 0, 763 },
        { STUN_DATA, 0, 1500 },
        { STUN_MOBILITY_TICKET, 0, 1500 },
        { STUN_PADDING, 0, 1500 },
    };
    static const uint8_t zero[1600];

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t n = 0; n < 1500; n += n < 40 || n > 760 || n > 504 ? 1 : 3) {
            struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
            struct stun_msg m;
            bool fits = n >= all[i].min && n <= all[i].max;

            stun_put(&k->b, all[i].a, bytes_of(zero, n));
            cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
            cr_expect(m.have == (fits ? STUN_BIT(all[i].a) : 0), "%zu: %zu", i, n);
            cr_expect(m.broken == (fits ? 0 : STUN_BIT(all[i].a)), "%zu: %zu", i, n);
            cr_expect(stun_value(&m, all[i].a).n == (fits ? n : 0));
            if (n > 800)
                n += 100;
        }
}

Test(stun_attr, only_four_may_stand_several_times)
{
    const uint64_t several = STUN_BIT(STUN_XOR_PEER_ADDRESS) | STUN_BIT(STUN_XOR_RELAYED_ADDRESS) |
                             STUN_BIT(STUN_ADDRESS_ERROR_CODE) | STUN_BIT(STUN_ORIGIN);
    static const uint8_t much[65000], address[8] = { 0, 1 }, error[4] = { 0, 0, 4, 0 };

    for (unsigned i = 0; i < STUN_ATTRS; i++) { /* a broken one, then a good one */
        enum stun_attr a = (enum stun_attr)i;
        struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
        struct stun_msg m;

        stun_put(&k->b, a, bytes_of(much, a == STUN_DONT_FRAGMENT ? 1 : 65000 - 1));
        stun_put(&k->b, a, bytes_of(address, 8));
        stun_put(&k->b, a, bytes_of(error, 4));
        stun_put(&k->b, a, bytes_of(much, 0));
        if (a == STUN_FINGERPRINT || stun_decode(made(k), 0, &m) != STUN_OK)
            continue; /* too long, or of those that must be last */
        if (several & STUN_BIT(a))
            cr_expect(stun_has(&m, a) && stun_is_broken(&m, a), "%u", i);
        else
            cr_expect(m.have == 0 || m.broken == 0, "%u", i);
        if (a == STUN_UNKNOWN_ATTRIBUTES || a == STUN_REALM || a == STUN_LIFETIME)
            cr_expect(stun_is_broken(&m, a) && !stun_has(&m, a), "%u", i);
    }
}

Test(stun_attr, a_list_of_types_has_an_even_length)
{
    for (size_t n = 0; n < 9; n++) {
        struct making *k = making(STUN_BINDING, STUN_ERROR);
        struct stun_msg m;

        stun_put(&k->b, STUN_UNKNOWN_ATTRIBUTES, bytes_of("\x7f\xff\x7f\xff\x7f\xff\x7f\xff", n));
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(stun_has(&m, STUN_UNKNOWN_ATTRIBUTES) == (n % 2 == 0), "%zu", n);
    }
}

static const enum stun_attr addresses[] = {
    STUN_MAPPED_ADDRESS,   STUN_XOR_PEER_ADDRESS, STUN_XOR_RELAYED_ADDRESS, STUN_XOR_MAPPED_ADDRESS,
    STUN_ALTERNATE_SERVER, STUN_RESPONSE_ORIGIN,  STUN_OTHER_ADDRESS,
};

Test(stun_attr, addresses_have_the_length_of_their_family)
{
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++)
        for (unsigned family = 0; family < 4; family++)
            for (size_t n = 0; n < 30; n++) {
                struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
                uint8_t v[30] = { 0xff, (uint8_t)family };
                struct stun_msg m;
                struct stun_addr a;
                bool fits = (n == 8 && family == 1) || (n == 20 && family == 2);

                stun_put(&k->b, addresses[i], bytes_of(v, n));
                cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
                cr_expect(stun_addr(&m, addresses[i], &a) == fits, "%zu: %u %zu", i, family, n);
                cr_expect(stun_is_broken(&m, addresses[i]) == !fits);
            }
}

Test(stun_attr, turn_17_addresses_match_the_published_values)
{
    static const struct {
        const char *addr, *value;
        bool v6;
    } all[] = {
        { "[2001:db8::1]:3478", "00022c840113a9fa0102030405060708090a0b0d", true },
        { "[::ffff:127.0.0.1]:80", "000221422112a442010203040506f8f7760a0b0d", true },
        { "192.0.2.1:32853", "0001a147e112a643", false },
        { "192.0.2.15:49162", "0001e118e112a64d", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct stun_addr in = { at_addr(all[i].addr), all[i].v6 }, out;
        struct making *k = making(STUN_BINDING, STUN_SUCCESS);
        struct stun_msg m;

        stun_put_addr(&k->b, STUN_XOR_MAPPED_ADDRESS, &in);
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(is_hex(stun_value(&m, STUN_XOR_MAPPED_ADDRESS), all[i].value), "%zu", i);
        cr_assert(stun_addr(&m, STUN_XOR_MAPPED_ADDRESS, &out));
        cr_expect(same_addr(&out.addr, all[i].addr) && out.v6 == all[i].v6);
    }
}

Test(stun_attr, turn_18_a_mapped_client_is_reported_as_ipv4)
{
    struct netaddr src = at_addr("[::ffff:198.51.100.23]:40001");
    struct stun_addr a = stun_addr_of(&src);

    cr_expect(not(a.v6));
    struct making *k = making(STUN_BINDING, STUN_SUCCESS);

    memcpy(k->buf + 8, hex("a1b2c3d4e5f60718293a4b5c").p, STUN_TID); /* dig.md §11 */
    stun_put_addr(&k->b, STUN_XOR_MAPPED_ADDRESS, &a);
    expect_made(k, "0101000c2112a442a1b2c3d4e5f60718293a4b5c002000080001bd53e721c055");
    src = at_addr("[2001:db8:7::9]:40001");
    a = stun_addr_of(&src);
    k = making(STUN_BINDING, STUN_SUCCESS);
    memcpy(k->buf + 8, hex("a1b2c3d4e5f60718293a4b5c").p, STUN_TID);
    stun_put_addr(&k->b, STUN_XOR_MAPPED_ADDRESS, &a);
    expect_made(k, "010100182112a442a1b2c3d4e5f60718293a4b5c"
                   "002000140002bd530113a9faa1b5c3d4e5f60718293a4b55");
}

Test(stun_attr, turn_62_cve_2026_27624_a_mapped_peer_is_ipv4_to_the_policy)
{
    struct stun_msg m = decoded("00080018" COOKIE TID "00120014"
                                "000221422112a442010203040506f8f7760a0b0d");
    struct stun_addr a;

    cr_assert(stun_addr(&m, STUN_XOR_PEER_ADDRESS, &a));
    cr_expect(netaddr_is4(&a.addr) && memcmp(a.addr.ip + 12, "\x7f\0\0\1", 4) == 0);
    cr_expect(a.v6, "and of another family than a relayed IPv4 address (443)");
}

Test(stun_attr, every_address_survives_the_wire)
{
    for (uint64_t seed = 1; seed <= 500; seed++) {
        struct seeded s = { seed };
        enum stun_attr which = addresses[seeded_below(&s, ARRAY_LEN(addresses))];
        struct stun_addr in = { .v6 = seeded_below(&s, 2) }, out;
        struct making *k = making(STUN_BINDING, STUN_SUCCESS);
        struct stun_msg m;

        for (size_t i = 0; i < 16; i++)
            in.addr.ip[i] = (uint8_t)seeded_u64(&s);
        if (!in.v6)
            memcpy(in.addr.ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
        in.addr.port = (uint16_t)seeded_u64(&s);
        stun_put_addr(&k->b, which, &in);
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_assert(stun_addr(&m, which, &out));
        cr_assert(memcmp(out.addr.ip, in.addr.ip, 16) == 0 && out.addr.port == in.addr.port &&
                      out.v6 == in.v6,
                  "seed %zu", (size_t)seed);
    }
}

Test(stun_attr, turn_61_peers_may_be_several_and_one_bad_one_shows)
{
    struct making *k = making(STUN_CREATE_PERMISSION, STUN_REQUEST);
    struct stun_addr got;
    struct stun_msg m;
    uint16_t pos = 0;

    for (unsigned i = 0; i < 5; i++) {
        struct stun_addr a = { at_addr("192.0.2.0:1000"), false };

        a.addr.ip[15] = (uint8_t)i;
        stun_put_addr(&k->b, STUN_XOR_PEER_ADDRESS, &a);
        stun_put(&k->b, STUN_SOFTWARE, bytes_of("abc", i % 4));
    }
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(m.broken == 0);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert(stun_next_addr(&m, STUN_XOR_PEER_ADDRESS, &pos, &got));
        cr_expect(got.addr.ip[15] == i && got.addr.port == 1000);
    }
    cr_expect(not(stun_next_addr(&m, STUN_XOR_PEER_ADDRESS, &pos, &got)));
    cr_expect(not(stun_next_addr(&m, STUN_XOR_PEER_ADDRESS, &pos, &got)), "and stays at the end");

    stun_put(&k->b, STUN_XOR_PEER_ADDRESS, bytes_str("\0\1"));
    stun_put_integrity(&k->b, STUN_MAC_SHA1, hex(KEY_MD5), 0);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(stun_has(&m, STUN_XOR_PEER_ADDRESS) && stun_is_broken(&m, STUN_XOR_PEER_ADDRESS));
    unsigned count = 0;

    for (pos = 0; stun_next_addr(&m, STUN_XOR_PEER_ADDRESS, &pos, &got);)
        count++;
    cr_expect(count == 5);
}

Test(stun_attr, errors_have_a_class_and_a_number)
{
    for (unsigned code = 300; code < 700; code++) {
        struct making *k = making(STUN_BINDING, STUN_ERROR);
        struct stun_msg m;
        struct bytes phrase;
        uint16_t got;

        stun_put_error(&k->b, code, bytes_str(code % 2 ? "why" : ""));
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_assert(stun_error(&m, &got, &phrase) && got == code);
        cr_expect(bytes_eq(phrase, bytes_str(code % 2 ? "why" : "")));
    }
    static const char *const bad[] = { "00000200", "00000700", "00000464", "0000047f", "000003" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct making *k = making(STUN_BINDING, STUN_ERROR);
        struct stun_msg m;
        struct bytes phrase;
        uint16_t got;

        stun_put(&k->b, STUN_ERROR_CODE, hex(bad[i]));
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(stun_is_broken(&m, STUN_ERROR_CODE) && !stun_error(&m, &got, &phrase));
    }
}

Test(stun_attr, turn_51_dual_answers_carry_two_addresses_or_an_error)
{
    struct making *k = making(STUN_ALLOCATE, STUN_SUCCESS);
    struct stun_addr v4 = { at_addr("192.0.2.1:50000"), false }, got;
    struct stun_addr v6 = { at_addr("[2001:db8::1]:50001"), true };
    struct stun_msg m;
    struct bytes v;
    uint16_t pos = 0, code;
    bool is6;

    stun_put_addr(&k->b, STUN_XOR_RELAYED_ADDRESS, &v4);
    stun_put_addr(&k->b, STUN_XOR_RELAYED_ADDRESS, &v6);
    stun_put_address_error(&k->b, true, 440, bytes_of(NULL, 0));
    stun_put_address_error(&k->b, false, 508, bytes_str("full"));
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_assert(stun_next_addr(&m, STUN_XOR_RELAYED_ADDRESS, &pos, &got) && !got.v6);
    cr_assert(stun_next_addr(&m, STUN_XOR_RELAYED_ADDRESS, &pos, &got) && got.v6);
    cr_expect(same_addr(&got.addr, "[2001:db8::1]:50001"));
    pos = 0;
    cr_assert(stun_next(&m, STUN_ADDRESS_ERROR_CODE, &pos, &v));
    cr_expect(is_hex(v, "02000428") && stun_address_error(v, &is6, &code) && is6 && code == 440);
    cr_assert(stun_next(&m, STUN_ADDRESS_ERROR_CODE, &pos, &v));
    cr_expect(stun_address_error(v, &is6, &code) && !is6 && code == 508);
    cr_expect(not(stun_address_error(hex("03000428"), &is6, &code)));
    cr_expect(not(stun_address_error(hex("020004"), &is6, &code)));
}

Test(stun_attr, turn_72_turn_73_icmp_is_seven_bits_of_type_and_nine_of_code)
{
    static const struct {
        struct stun_icmp icmp;
        const char *value;
    } all[] = {
        { { 3, 3, 0 }, "0000060300000000" },
        { { 3, 4, 1492 }, "00000604000005d4" },
        { { 127, 511, 0xffffffff }, "0000ffffffffffff" },
        { { 1, 256, 1 }, "0000030000000001" },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct making *k = making(STUN_DATA_METHOD, STUN_INDICATION);
        struct stun_icmp got;
        struct stun_msg m;

        stun_put_icmp(&k->b, &all[i].icmp);
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(is_hex(stun_value(&m, STUN_ICMP), all[i].value));
        cr_assert(stun_icmp(&m, &got));
        cr_expect(got.type == all[i].icmp.type && got.code == all[i].icmp.code &&
                  got.data == all[i].icmp.data);
        cr_expect(not(stun_has(&m, STUN_DATA)));
    }
    struct stun_msg none = decoded(V8);

    cr_expect(not(stun_icmp(&none, &(struct stun_icmp){ 0 })));
}

Test(stun_attr, small_values_are_read_as_they_were_written)
{
    struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
    struct stun_msg m;

    stun_put_u16(&k->b, STUN_CHANNEL_NUMBER, 0x4abc);
    stun_put_u8(&k->b, STUN_REQUESTED_ADDRESS_FAMILY, 2);
    stun_put_u8(&k->b, STUN_ADDITIONAL_ADDRESS_FAMILY, 2);
    stun_put_even_port(&k->b, true);
    stun_put_u32(&k->b, STUN_CONNECTION_ID, 0xdeadbeef);
    stun_put_u32(&k->b, STUN_CHANGE_REQUEST, 6);
    stun_put_u16(&k->b, STUN_RESPONSE_PORT, 5000);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(stun_u16(&m, STUN_CHANNEL_NUMBER) == 0x4abc);
    cr_expect(is_hex(stun_value(&m, STUN_CHANNEL_NUMBER), "4abc0000"));
    cr_expect(is_hex(stun_value(&m, STUN_REQUESTED_ADDRESS_FAMILY), "02000000"));
    cr_expect(stun_u8(&m, STUN_ADDITIONAL_ADDRESS_FAMILY) == 2);
    cr_expect(stun_u8(&m, STUN_EVEN_PORT) == 0x80 && stun_value(&m, STUN_EVEN_PORT).n == 1);
    cr_expect(stun_u32(&m, STUN_CONNECTION_ID) == 0xdeadbeef);
    cr_expect(stun_u32(&m, STUN_CHANGE_REQUEST) == 6);
    cr_expect(stun_u16(&m, STUN_RESPONSE_PORT) == 5000);
    cr_expect(stun_u32(&m, STUN_LIFETIME) == 0 && stun_u16(&m, STUN_NONCE) == 0 &&
              stun_u8(&m, STUN_DATA) == 0);
}

/* A token whose inner length lies is indexed and carried about, never looked into. */
Test(stun_attr, cve_2026_43994_an_access_token_is_only_named)
{
    struct stun_msg m = decoded("00030010" COOKIE TID "001b0005"
                                "ffff010203000000"
                                "001a0000");
    uint16_t types[STUN_UNKNOWN_MAX];

    cr_expect(eq(sz, stun_value(&m, STUN_ACCESS_TOKEN).n, 5));
    cr_assert(eq(sz, stun_refused(&m, STUN_BIT(STUN_DONT_FRAGMENT), types), 1));
    cr_expect(types[0] == 0x001b);
}

Test(stun_attr, turn_43_a_name_of_509_bytes_is_broken)
{
    static uint8_t name[600];

    memset(name, '%', sizeof(name));
    for (size_t n = 507; n <= 510; n++) {
        struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);
        struct stun_msg m;

        stun_put(&k->b, STUN_USERNAME, bytes_of(name, n));
        cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
        cr_expect(stun_is_broken(&m, STUN_USERNAME) == (n > 508), "%zu", n);
    }
}
