#include "proto/stop.h"
#include "tests/unit/relay_hex.h"

#define LIMIT "1a08 08901c 1080808032" /* {3600 s, 104857600 bytes} */
#define CONNECT_A "0800 1228 0a26" A_ID

static const struct hop_limit descord = { true, 3600, 104857600 };

static bool decodes(const char *wire, struct stop_msg *m)
{
    struct hex h = unhex(wire);
    uint8_t *copy;
    struct bytes in = tight(hex_bytes(&h), &copy);
    bool ok = stop_decode(in, m);

    free(copy);
    return ok;
}

Test(stop_put, writes_the_published_messages)
{
    struct peer_id a = id_of(A_ID);
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));

    stop_put_connect(&w, &a, &descord);
    expect_wrote(&w, buf, "36" CONNECT_A LIMIT);
    w = wcur_of(buf, sizeof(buf)); /* dusk.md §4.2 */
    stop_put_connect(&w, &a, &(struct hop_limit){ true, 120, 131072 });
    expect_wrote(&w, buf, "34" CONNECT_A "1a06 0878 10808008");
    w = wcur_of(buf, sizeof(buf));
    stop_put_status(&w, HOP_OK);
    expect_wrote(&w, buf, "04 0801 2064");
}

Test(stop_put_connect, omits_the_limit_when_unlimited)
{
    struct peer_id a = id_of(A_ID);
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));

    stop_put_connect(&w, &a, NULL);
    expect_wrote(&w, buf, "2c" CONNECT_A);
    w = wcur_of(buf, sizeof(buf));
    stop_put_connect(&w, &a, &(struct hop_limit){ .data_bytes = 1 });
    expect_wrote(&w, buf, "2c" CONNECT_A);
    w = wcur_of(buf, sizeof(buf));
    stop_put_connect(&w, &a, &(struct hop_limit){ .present = true });
    expect_wrote(&w, buf, "32" CONNECT_A "1a04 0800 1000");
}

Test(stop_put, sets_bad_where_the_message_does_not_fit)
{
    struct peer_id a = id_of(A_ID);

    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(55, w, stop_put_connect(&w, &a, &descord));
    EXPECT_BAD_IN_EVERY_SMALLER_ROOM(5, w, stop_put_status(&w, HOP_OK));
}

Test(stop_decode, reads_what_is_written)
{
    struct stop_msg m;
    struct peer_id a = id_of(A_ID);

    cr_assert(decodes(CONNECT_A LIMIT, &m));
    cr_expect(m.has_type && m.type == STOP_CONNECT && m.has_peer && !m.has_status);
    cr_expect(peer_id_eq(&m.peer, &a));
    cr_expect(m.limit.present && m.limit.duration_s == 3600 && m.limit.data_bytes == 104857600);

    cr_assert(decodes("0801 2064", &m));
    cr_expect(m.has_type && m.type == STOP_STATUS && m.has_status && m.status == HOP_OK);
    cr_expect(not(m.has_peer || m.limit.present));
}

Test(stop_decode, skips_unknown_fields_and_takes_the_last)
{
    struct stop_msg m;
    struct peer_id b = id_of(B_ID);

    cr_assert(decodes("78ff01 0801 0800 791122334455667788 1228 0a26" A_ID "1228 0a26" B_ID
                      "7a03616263 7d01020304 2064 20c901",
                      &m));
    cr_expect(m.has_type && m.type == STOP_CONNECT && m.status == HOP_RESOURCE_LIMIT_EXCEEDED);
    cr_expect(m.has_peer && peer_id_eq(&m.peer, &b));
    cr_assert(decodes("0800 1202 0a00", &m));
    cr_expect(not(m.has_peer));
}

Test(stop_decode, refuses_truncations_within_a_field)
{
    struct hex wire = unhex(CONNECT_A LIMIT "2064");

    for (size_t n = 0; n <= wire.n; n++) {
        bool field_ends = n == 0 || n == 2 || n == 44 || n == 54 || n == 56;
        uint8_t *copy;
        struct bytes in = tight(bytes_of(wire.b, n), &copy);
        struct stop_msg m;

        cr_expect(eq(int, stop_decode(in, &m), field_ends), "%zu bytes", n);
        free(copy);
    }
}

Test(stop_decode, refuses_malformed_messages)
{
    static const char *const bad[] = {
        "0a00",           /* type as bytes */
        "1204 0801 0801", /* id as a number */
        "0801 03",        /* a group */
        "0801 00",        /* tag 0 */
        "2400",           /* the end of a group */
        "1a0708ffffffffff 01",
    };
    struct stop_msg m;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(decodes(bad[i], &m)), "accepted %s", bad[i]);
}

Test(stop_decode, accepts_the_longest_message_and_not_one_byte_more)
{
    static uint8_t in[HOP_MSG_MAX + 1] = { 0x08, 0x01, 0x7a, 0xfb, 0x1f };
    struct stop_msg m;

    cr_expect(stop_decode(bytes_of(in, HOP_MSG_MAX), &m));
    in[3] = 0xfc;
    cr_expect(not(stop_decode(bytes_of(in, HOP_MSG_MAX + 1), &m)));
}

Test(stop_to_hop_status, passes_201_and_202_and_makes_203_of_all_else)
{
    static const struct {
        const char *wire;
        enum hop_status status;
    } all[] = {
        { "0801 2064", HOP_OK },
        { "0801 20c801", HOP_CONNECTION_FAILED }, /* 200 */
        { "0801 20c901", HOP_RESOURCE_LIMIT_EXCEEDED },
        { "0801 20ca01", HOP_PERMISSION_DENIED },
        { "0801 20cb01", HOP_CONNECTION_FAILED },
        { "0801 20cc01", HOP_CONNECTION_FAILED }, /* rust lost its state: Q5 */
        { "0801 209003", HOP_CONNECTION_FAILED },
        { "0801 209103", HOP_CONNECTION_FAILED },
        { "0801 2000", HOP_CONNECTION_FAILED },
        { "0801 20e707", HOP_CONNECTION_FAILED }, /* a status of tomorrow */
        { "0801", HOP_CONNECTION_FAILED },        /* none */
        { "2064", HOP_CONNECTION_FAILED },        /* no type: reads as CONNECT (dusk.md §4) */
        { "0800 2064", HOP_CONNECTION_FAILED },
        { "0802 2064", HOP_CONNECTION_FAILED },
    };
    struct stop_msg m;

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        cr_assert(decodes(all[i].wire, &m));
        cr_expect(eq(int, stop_to_hop_status(&m), all[i].status), "%s", all[i].wire);
    }
}
