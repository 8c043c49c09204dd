#include "proto/envelope.h"
#include "proto/hop.h"
#include "tests/unit/relay_hex.h"

#define LIMIT "2208 08901c 1080808032" /* {3600 s, 104857600 bytes} */
#define K_ADDR "04cb007107062328 a50326" K_ID
#define VOUCHER                                                                                    \
    "0a24" K_PB "12020302 1a56 0a26" K_ID "1226" A_ID "1880a4a7da06 2a40"                          \
    "bc1b0fb8eb644e3455541bcfa90246b3283fd4686af988fe67551489f81ab398"                             \
    "51b606384b34f0ecb9d7350d831d84c4fd1c3edd9bd99df71e59f6c14c3fdd05"
#define RESERVE_OK "9102 0802 1a8002 0880a4a7da06 1231" K_ADDR "1ac401" VOUCHER LIMIT "2864"

static const struct hop_limit descord = { true, 3600, 104857600 };
static const struct hop_limit dusk = { true, 120, 131072 };

static bool decodes(const char *wire, struct hop_msg *m)
{
    struct hex h = unhex(wire);
    uint8_t *copy;
    struct bytes in = tight(hex_bytes(&h), &copy);
    bool ok = hop_decode(in, m);

    free(copy); /* voucher dangles: only its length is looked at below */
    return ok;
}

Test(hop_put_status, writes_the_published_refusals)
{
    static const struct {
        enum hop_status status;
        const char *wire;
    } all[] = {
        { HOP_RESERVATION_REFUSED, "05080228c801" },
        { HOP_RESOURCE_LIMIT_EXCEEDED, "05080228c901" },
        { HOP_PERMISSION_DENIED, "05080228ca01" },
        { HOP_CONNECTION_FAILED, "05080228cb01" },
        { HOP_NO_RESERVATION, "05080228cc01" },
        { HOP_MALFORMED_MESSAGE, "050802289003" },
        { HOP_UNEXPECTED_MESSAGE, "050802289103" },
        { HOP_OK, "0408022864" },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        uint8_t buf[64];
        struct wcur w = wcur_of(buf, sizeof(buf));
        struct hop_msg m;

        hop_put_status(&w, all[i].status, NULL);
        expect_wrote(&w, buf, all[i].wire);
        cr_assert(hop_decode(bytes_of(buf + 1, w.wrote - 1), &m));
        cr_expect(m.has_type && m.type == HOP_STATUS && m.has_status && m.status == all[i].status);
        cr_expect(not(m.limit.present));
    }
}

Test(hop_put_status, writes_the_limit_of_a_circuit_only_where_there_is_one)
{
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_status(&w, HOP_OK, &descord);
    expect_wrote(&w, buf, "0e 0802" LIMIT "2864");

    w = wcur_of(buf, sizeof(buf));
    hop_put_status(&w, HOP_OK, &dusk); /* dusk.md §4.2 */
    expect_wrote(&w, buf, "0c 0802 2206 0878 10808008 2864");

    w = wcur_of(buf, sizeof(buf));
    hop_put_status(&w, HOP_OK, &(struct hop_limit){ .present = false, .duration_s = 7 });
    expect_wrote(&w, buf, "04 0802 2864");

    w = wcur_of(buf, sizeof(buf)); /* present and zero is not absent (libp2p.md §11.4) */
    hop_put_status(&w, HOP_OK, &(struct hop_limit){ .present = true });
    expect_wrote(&w, buf, "0a 0802 2204 0800 1000 2864");
}

Test(hop_put_reservation, writes_the_published_answer)
{
    struct identity k = identity_k();
    struct peer_id a = id_of(A_ID);
    struct hex addr = unhex(K_ADDR);
    struct bytes addrs[] = { hex_bytes(&addr) };
    uint8_t voucher[VOUCHER_ENVELOPE_MAX], buf[512];
    struct wcur v = wcur_of(voucher, sizeof(voucher)), w = wcur_of(buf, sizeof(buf));

    voucher_seal(&v, &k, &a, 1800000000);
    hop_put_reservation(&w, 1800000000, addrs, 1, bytes_of(voucher, v.wrote), &descord);
    expect_wrote(&w, buf, RESERVE_OK);
    cr_expect(eq(sz, w.wrote, 275));
}

Test(hop_put_reservation, writes_the_answer_of_dusk)
{
    struct hex addr = unhex("04c0000201060fa1 a50326" K_ID);
    struct bytes addrs[] = { hex_bytes(&addr) };
    uint8_t buf[256];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_reservation(&w, 1767229200, addrs, 1, bytes_of(NULL, 0), &dusk);
    expect_wrote(&w, buf,
                 "47 0802 1a39 08908ed7ca06 1231 04c0000201060fa1 a50326" K_ID
                 "2206 0878 10808008 2864");
}

Test(hop_put_reservation, omits_the_limit_when_unlimited)
{
    struct hex addr = unhex("04c0000201060fa1");
    struct bytes addrs[] = { hex_bytes(&addr), hex_bytes(&addr) };
    uint8_t buf[256];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_reservation(&w, 1, addrs, 2, bytes_of(NULL, 0),
                        &(struct hop_limit){ .present = false });
    expect_wrote(&w, buf, "1c 0802 1a16 0801 1208 04c0000201060fa1 1208 04c0000201060fa1 2864");
}

Test(hop_put_reservation, leaves_out_addresses_past_the_longest_message)
{
    static uint8_t blob[HOP_MSG_MAX];
    struct bytes addrs[200];
    uint8_t buf[2 * HOP_MSG_MAX];
    struct hop_msg m;

    for (size_t len = 1; len <= 400; len++) {
        struct bytes voucher = bytes_of(blob, len % 2 ? 196 : 0); /* a short message without */
        struct wcur w = wcur_of(buf, sizeof(buf));

        for (size_t i = 0; i < ARRAY_LEN(addrs); i++)
            addrs[i] = bytes_of(blob, len);
        hop_put_reservation(&w, UINT64_MAX, addrs, ARRAY_LEN(addrs), voucher, &descord);
        cr_assert(not(w.bad));
        cr_assert(le(sz, w.wrote, HOP_MSG_MAX + 2), "length %zu", len);
        cr_assert(hop_decode(bytes_of(buf + 2, w.wrote - 2), &m));
        size_t each = 1 + (len < 128 ? 1 : 2) + len;

        if (m.addrs < ARRAY_LEN(addrs)) /* and not one more than must be */
            cr_expect(lt(sz, HOP_MSG_MAX - each - 2, w.wrote - 2), "length %zu", len);
        else
            cr_expect(le(sz, len, 18));
    }
}

Test(hop_put, writes_the_requests_of_a_client)
{
    struct peer_id b = id_of(B_ID);
    uint8_t buf[64];
    struct wcur w = wcur_of(buf, sizeof(buf));

    hop_put_reserve(&w);
    expect_wrote(&w, buf, "02 0800");
    w = wcur_of(buf, sizeof(buf));
    hop_put_connect(&w, &b);
    expect_wrote(&w, buf, "2c 0801 1228 0a26" B_ID);
}

Test(hop_put, sets_bad_where_the_message_does_not_fit)
{
    struct peer_id b = id_of(B_ID);
    struct hex addr = unhex(K_ADDR);
    struct bytes addrs[] = { hex_bytes(&addr) };

    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(3, w, hop_put_reserve(&w));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(45, w, hop_put_connect(&w, &b));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(15, w, hop_put_status(&w, HOP_OK, &descord));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(
        74, w, hop_put_reservation(&w, 1800000000, addrs, 1, bytes_of(NULL, 0), &descord));
}

Test(hop_put, stays_bad_once_bad)
{
    uint8_t buf[64] = { 0 };
    struct wcur w = wcur_of(buf, sizeof(buf));

    w.bad = true;
    hop_put_reserve(&w);
    cr_expect(w.bad && w.wrote == 0 && buf[0] == 0);
}

Test(hop_decode, reads_requests)
{
    struct hop_msg m;
    struct peer_id b = id_of(B_ID);

    cr_assert(decodes("0800", &m));
    cr_expect(m.has_type && m.type == HOP_RESERVE && !m.has_peer && !m.peer_bad && !m.has_status);
    cr_assert(decodes("0801 1228 0a26" B_ID, &m));
    cr_expect(m.has_type && m.type == HOP_CONNECT && m.has_peer && !m.peer_bad);
    cr_expect(peer_id_eq(&m.peer, &b));
}

Test(hop_decode, reads_the_published_reservation)
{
    struct hop_msg m;
    struct hex wire = unhex(RESERVE_OK), voucher = unhex(VOUCHER);

    cr_assert(hop_decode(bytes_of(wire.b + 2, wire.n - 2), &m));
    cr_expect(m.has_type && m.type == HOP_STATUS && m.has_status && m.status == HOP_OK);
    cr_expect(eq(u64, m.expire_unix_s, 1800000000));
    cr_expect(eq(u16, m.addrs, 1));
    cr_expect(m.limit.present && m.limit.duration_s == 3600 && m.limit.data_bytes == 104857600);
    cr_expect(bytes_eq(m.voucher, hex_bytes(&voucher)));
}

Test(hop_decode, tells_a_bad_peer_from_none)
{
    static const char *const bad[] = {
        "0801 1200",               /* no id at all */
        "0801 1202 0a00",          /* an empty one */
        "0801 1205 0a03 000201",   /* an identity hash that is cut */
        "0801 1206 0a04 1202 0102" /* SHA-256 of two bytes */
    };
    struct hop_msg m;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_assert(decodes(bad[i], &m), "%s", bad[i]);
        cr_expect(m.peer_bad && !m.has_peer, "%s", bad[i]);
        cr_expect(zero(u8, m.peer.n));
    }
    cr_assert(decodes("0801", &m));
    cr_expect(not(m.peer_bad || m.has_peer));
    cr_assert(decodes("", &m)); /* no type: the answer is the caller's affair */
    cr_expect(not(m.has_type));
}

Test(hop_decode, ignores_addresses_of_the_peer_and_unknown_fields)
{
    struct hop_msg m;
    struct peer_id b = id_of(B_ID);

    cr_assert(decodes("0801 1231 0a26" B_ID "1203 04c000 1202 ffff", &m));
    cr_expect(m.has_peer && peer_id_eq(&m.peer, &b));
    /* Fields 15 and 16 of the wire types 0, 1, 2 and 5, in front, within and behind. */
    cr_assert(decodes("78ff01 0801 791122334455667788 122d 7a03616263 0a26" B_ID
                      "820103646566 8d0101020304 7d01020304",
                      &m));
    cr_expect(m.has_type && m.type == HOP_CONNECT && m.has_peer && peer_id_eq(&m.peer, &b));
}

Test(hop_decode, takes_the_last_of_repeated_fields)
{
    struct hop_msg m;
    struct peer_id b = id_of(B_ID);

    cr_assert(decodes("0800 0801 28c801 2864 1228 0a26" A_ID "1228 0a26" B_ID, &m));
    cr_expect(m.type == HOP_CONNECT && m.status == HOP_OK && peer_id_eq(&m.peer, &b));
}

Test(hop_decode, tolerates_long_varints_and_any_order)
{
    struct hop_msg m;
    struct peer_id b = id_of(B_ID);

    cr_assert(decodes("1228 0a26" B_ID "8800 818000", &m)); /* tag 8800 is 08, 818000 is 1 */
    cr_expect(m.has_type && m.type == HOP_CONNECT && m.has_peer && peer_id_eq(&m.peer, &b));
    cr_assert(decodes("0807 28ff7f", &m)); /* numbers nobody has given yet */
    cr_expect(m.has_type && (unsigned)m.type == 7 && (unsigned)m.status == 16383);
}

Test(hop_decode, refuses_malformed_messages)
{
    static const char *const bad[] = {
        "08",                       /* a tag alone */
        "0a00",                     /* type as bytes */
        "1001",                     /* peer as a number */
        "1204 0801 0801",           /* id as a number: nothing of it may be borrowed */
        "1205 0d01020304",          /* id as fixed32 */
        "1209 090102030405060708",  /* id as fixed64 */
        "1203 0a26 00",             /* an id longer than its peer */
        "1a05 1001 1001 10",        /* addresses as numbers */
        "0800 03",                  /* a group */
        "0800 00",                  /* tag 0 */
        "0800 07",                  /* wire type 7 */
        "08ffffffffffffffffffff01", /* a varint of 11 bytes */
        "2208 08ffffffffff01 1000", /* a duration past 32 bits */
        "12ffffffff0f",             /* a length past the end */
        "12ffffffffffffffffff01",   /* a length past 32 bits */
    };
    struct hop_msg m;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(decodes(bad[i], &m)), "accepted %s", bad[i]);
}

Test(hop_decode, refuses_truncations_within_a_field)
{
    struct hex wire = unhex(RESERVE_OK);
    /* Where a field ends, what is left is a message again. */
    static const size_t whole[] = { 0, 2, 261, 271 };
    size_t next = 0;

    for (size_t n = 0; n < wire.n - 2; n++) {
        uint8_t *copy;
        struct bytes in = tight(bytes_of(wire.b + 2, n), &copy);
        struct hop_msg m;
        bool ok = hop_decode(in, &m);

        if (next < ARRAY_LEN(whole) && n == whole[next]) {
            cr_expect(ok, "refused %zu bytes", n);
            next++;
        } else {
            cr_expect(not(ok), "accepted %zu bytes", n);
        }
        free(copy);
    }
    cr_expect(eq(sz, next, ARRAY_LEN(whole)));
}

Test(hop_decode, accepts_the_longest_message_and_not_one_byte_more)
{
    static uint8_t in[HOP_MSG_MAX + 1];
    struct hop_msg m;

    memcpy(in, (const uint8_t[]){ 0x08, 0x00, 0x7a, 0xfb, 0x1f }, 5); /* field 15, 4091 bytes */
    cr_expect(hop_decode(bytes_of(in, HOP_MSG_MAX), &m));
    in[3] = 0xfc;
    cr_expect(not(hop_decode(bytes_of(in, HOP_MSG_MAX + 1), &m)));
}

Test(hop_decode, counts_as_many_addresses_as_fit)
{
    static uint8_t in[HOP_MSG_MAX];
    struct hop_msg m;

    memcpy(in, (const uint8_t[]){ 0x1a, 0xfc, 0x1f }, 3); /* a reservation of 4092 bytes */
    for (size_t i = 3; i + 1 < 3 + 4092; i += 2)
        in[i] = 0x12;
    cr_assert(hop_decode(bytes_of(in, 3 + 4092), &m));
    cr_expect(eq(u16, m.addrs, 2046));
}

Test(hop_decode, leaves_the_result_alone_when_it_refuses)
{
    struct hop_msg m, before;

    memset(&m, 0x5a, sizeof(m));
    before = m;
    cr_assert(not(hop_decode(bytes_of("\x08", 1), &m)));
    cr_expect(zero(int, memcmp(&m, &before, sizeof(m))));
}
