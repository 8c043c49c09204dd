/* What a decoder of Dusk's messages takes and what it does not (dusk.md §6; checks 37 and 38). */
#include "proto/dusk.h"
#include "tests/unit/relay_hex.h"

#define REGISTER "68 5265676973746572"
#define NAME "6c 646973706c61795f6e616d65"
#define ADDR "6a 72656c61795f61646472"
#define ALICE "65 616c696365"
#define QUERY "65 7175657279"
#define SEARCH "66 536561726368"
#define KIND "64 6b696e64 61 6b"
#define LIMIT "65 6c696d6974"

static uint8_t joined[8192];
static struct dusk_dir_req dir;
static struct dusk_gif_req gif;

/* In memory of its own size, with room for as many bytes as came, which the header calls enough. */
static bool takes_bytes(struct bytes all)
{
    uint8_t *copy;
    struct bytes in = tight(all, &copy);
    struct wcur room = wcur_of(joined, in.n);
    bool ok = dusk_dir_req_decode(in, &room, &dir);

    static uint8_t kept[8192];

    memcpy(kept, copy, in.n); /* what was borrowed outlives the copy */
    if (ok) {
        struct bytes *views[] = { &dir.display_name, &dir.relay_addr, &dir.query };

        for (size_t i = 0; i < ARRAY_LEN(views); i++)
            if (views[i]->p >= copy && views[i]->p < copy + in.n)
                views[i]->p = kept + (views[i]->p - copy);
    }
    free(copy);
    return ok;
}

static bool takes(const char *wire)
{
    struct hex h = unhex(wire);

    return takes_bytes(hex_bytes(&h));
}

static bool takes_gif(const char *wire)
{
    struct hex h = unhex(wire);
    struct wcur room = wcur_of(joined, sizeof(joined));

    return dusk_gif_req_decode(hex_bytes(&h), &room, &gif);
}

static void expect_alice(void)
{
    cr_expect(bytes_eq(dir.display_name, bytes_str("alice")));
    cr_expect(bytes_eq(dir.relay_addr, bytes_str("/x")));
}

Test(dusk_wire, keys_come_in_any_order)
{
    cr_assert(takes("a1" REGISTER "a2" ADDR "62 2f78" NAME ALICE));
    expect_alice();
}

/* One of each kind of value; unassigned simple values, too (RFC 8949 §3.3). */
static const char *const values[] = {
    "00",
    "17",
    "18 18",
    "19 0100",
    "1a 00010000",
    "1b 0000000100000000",
    "20",
    "38 ff",
    "39 ffff",
    "3a ffffffff",
    "3b ffffffffffffffff",
    "40",
    "43 010203",
    "5f 41 01 42 0203 ff",
    "60",
    "61 78",
    "7f 61 78 62 7979 ff",
    "7f ff",
    "5f ff",
    "80",
    "83 01 02 03",
    "9f ff",
    "9f 01 82 02 03 ff",
    "a0",
    "a1 01 02",
    "bf ff",
    "bf 61 61 01 61 62 9f ff ff",
    "c0 60",
    "d8 20 60",
    "c1 c2 41 01",
    "da 00000001 80",
    "f4",
    "f5",
    "f6",
    "f7",
    "f9 3c00",
    "fa 3f800000",
    "fb 3ff0000000000000",
    "e0",
    "f3",
    "f8 20",
    "f8 ff",
    "62 fffe", /* not UTF-8, in what nobody reads: the original skips it by length */
    "9a 00000002 f6 f6",
    "bb 0000000000000001 00 00",
    "a1 80 a1 f6 bf ff",
};

Test(dusk_wire, unknown_keys_are_skipped_whatever_stands_there)
{
    char wire[512];

    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        snprintf(wire, sizeof(wire), "a1" REGISTER "a3 63 787878 %s" NAME ALICE ADDR "62 2f78",
                 values[i]);
        cr_assert(takes(wire), "%s", values[i]);
        expect_alice();
        snprintf(wire, sizeof(wire), "a1" REGISTER "bf" NAME ALICE ADDR "62 2f78 63 787878 %s ff",
                 values[i]);
        cr_assert(takes(wire), "%s", values[i]);
        expect_alice();
    }
}

Test(dusk_wire, an_unknown_key_may_come_twice)
{
    cr_assert(takes("a1" REGISTER "a4 61 78 01 61 78 02" NAME ALICE ADDR "62 2f78"));
    expect_alice();
}

Test(dusk_wire, malformed_values_are_refused_even_where_nobody_reads_them)
{
    static const char *const bad[] = {
        "1c",
        "1f",
        "3f",
        "5c",
        "7e",
        "9d",
        "bc",
        "df",
        "fc",
        "ff",
        "f8 00",
        "f8 1f",
        "81 ff",
        "a1 01 ff",
        "bf 01 ff",
        "5f 61 78 ff",
        "7f 41 78 ff",
        "7f 7f ff ff",
        "c1 ff",
        "9f 01",
        "5f 5f ff ff",
        "bb 8000000000000000",
        "bb ffffffffffffffff 00 00",
        "9b ffffffffffffffff 00",
        "5b ffffffffffffffff 00",
        "7b 7fffffffffffffff 00",
        "7f 80 ff",
        "5f f6 ff",
    };
    char wire[512];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(wire, sizeof(wire), "a1" REGISTER "a3 " NAME ALICE ADDR "62 2f78 63 787878 %s",
                 bad[i]);
        cr_expect(not(takes(wire)), "%s", bad[i]);
    }
}

Test(dusk_wire, lengths_may_be_open_and_texts_in_pieces)
{
    cr_assert(takes("a1" REGISTER "bf" NAME "7f 62 616c 60 63 696365 ff" ADDR "7f 62 2f78 ff ff"));
    expect_alice();
    cr_assert(
        takes("a1" REGISTER "bf 7f 66 646973706c61 66 795f6e616d65 ff" ALICE ADDR "62 2f78 ff"));
    expect_alice();
    cr_assert(takes("a1 7f 63 526567 65 6973746572 ff a2" NAME ALICE ADDR "62 2f78"));
    expect_alice();
    cr_assert(takes("7f 63 52656d 63 6f7665 ff"));
    cr_expect(eq(int, dir.call, DUSK_DIR_REMOVE));
    cr_assert(takes("a1" SEARCH "a1" QUERY "7f ff"));
    cr_expect(zero(sz, dir.query.n));
}

Test(dusk_wire, joined_texts_need_the_room_that_they_fill)
{
    struct hex h = unhex("a1" SEARCH "a1" QUERY "7f 63 616263 63 646566 ff");

    for (size_t n = 0; n <= 6; n++) {
        struct wcur room = wcur_of(joined, n);

        cr_expect(eq(int, dusk_dir_req_decode(hex_bytes(&h), &room, &dir), n == 6), "%zu", n);
    }
    cr_expect(bytes_eq(dir.query, bytes_str("abcdef")));
}

Test(dusk_wire, integers_and_lengths_may_be_wider_than_they_need)
{
    static const char *const twenty[] = { "14", "18 14", "19 0014", "1a 00000014",
                                          "1b 0000000000000014" };
    char wire[512];

    for (size_t i = 0; i < ARRAY_LEN(twenty); i++) {
        snprintf(wire, sizeof(wire), "a3" KIND QUERY "60" LIMIT "%s", twenty[i]);
        cr_assert(takes_gif(wire), "%s", twenty[i]);
        cr_expect(eq(u32, gif.limit, 20));
    }
    cr_assert(takes("a1 78 08 5265676973746572 b8 02 79 000c 646973706c61795f6e616d65"
                    "7a 00000005 616c696365 7b 000000000000000a 72656c61795f61646472 78 02 2f78"));
    expect_alice();
    cr_assert(takes_gif("b9 0003" KIND QUERY "60" LIMIT "1a ffffffff"));
    cr_expect(eq(u32, gif.limit, UINT32_MAX));
    cr_expect(not(takes_gif("a3" KIND QUERY "60" LIMIT "1b 0000000100000000")), "u32");
}

Test(dusk_wire, a_missing_field_is_refused)
{
    cr_expect(not(takes("a1" REGISTER "a0")));
    cr_expect(not(takes("a1" REGISTER "a1" ADDR "62 2f78")), "display_name has no default");
    cr_expect(not(takes("a1" REGISTER "bf ff")));
    cr_expect(not(takes("a1" SEARCH "a1 61 78 01")));
    cr_expect(not(takes_gif("a2" KIND QUERY "60")));
    cr_expect(not(takes("68 5265676973746572")), "a variant with fields, as a text");
    cr_expect(not(takes("66 536561726368")));
}

Test(dusk_wire, a_field_that_comes_twice_is_refused)
{
    cr_expect(not(takes("a1" REGISTER "a3" NAME ALICE NAME ALICE ADDR "62 2f78")));
    cr_expect(not(takes("a1" REGISTER "a3" NAME ALICE ADDR "60" ADDR "60")));
    cr_expect(not(takes("a1" SEARCH "bf" QUERY "60" QUERY "60 ff")));
}

Test(dusk_wire, a_value_of_another_type_is_refused)
{
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        char wire[512];
        bool text = strchr("67", values[i][0]) && strcmp(values[i], "62 fffe") != 0;

        snprintf(wire, sizeof(wire), "a1" SEARCH "a1" QUERY "%s", values[i]);
        cr_expect(eq(int, takes(wire), text), "%s", values[i]);
        snprintf(wire, sizeof(wire), "a1" SEARCH "%s", values[i]);
        cr_expect(not(takes(wire)), "%s in place of the map", values[i]);
        snprintf(wire, sizeof(wire), "a1" SEARCH "a2" QUERY "60 %s 00", values[i]);
        cr_expect(eq(int, takes(wire), text), "%s as a key", values[i]);
    }
    cr_expect(not(takes_gif("a3" KIND QUERY "60" LIMIT "20")), "a negative limit");
    cr_expect(not(takes_gif("a3" KIND QUERY "60" LIMIT "61 31")));
}

Test(dusk_wire, text_that_is_not_utf8_is_refused)
{
    static const char *const bad[] = { "61 ff",       "61 80",       "62 c080",
                                       "63 eda080",   "64 f4908080", "62 c3 28",
                                       "7f 61 ff ff", "7f 61 c3 ff", "61 c3" };
    char wire[256];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(wire, sizeof(wire), "a1" SEARCH "a1" QUERY "%s", bad[i]);
        cr_expect(not(takes(wire)), "%s", bad[i]);
        snprintf(wire, sizeof(wire), "a1" SEARCH "a2" QUERY "60 %s 00", bad[i]);
        cr_expect(not(takes(wire)), "%s as a key", bad[i]);
    }
    cr_expect(takes("a1" SEARCH "a1" QUERY "64 f09fa686"));
}

Test(dusk_wire, an_enum_is_a_text_or_exactly_a1)
{
    cr_expect(takes("a1 66 52656d6f7665 f6"), "a value where others write none");
    cr_expect(takes("a1 66 52656d6f7665 80"));
    cr_expect(not(takes("a1 66 52656d6f7665")), "cut");
    cr_expect(not(takes("bf" SEARCH "a1" QUERY "60 ff")));
    cr_expect(not(takes("b8 01" SEARCH "a1" QUERY "60")));
    cr_expect(not(takes("b9 0001" SEARCH "a1" QUERY "60")));
    cr_expect(not(takes("a2" SEARCH "a1" QUERY "60 66 52656d6f7665 f6")));
    cr_expect(not(takes("a0")));
    cr_expect(not(takes("81 66 52656d6f7665")));
    cr_expect(not(takes("c0 66 52656d6f7665")), "no tag was asked for");
    cr_expect(not(takes("46 52656d6f7665")));
}

Test(dusk_wire, an_unknown_variant_is_refused)
{
    cr_expect(not(takes("66 72656d6f7665")), "in lower case");
    cr_expect(not(takes("64 4c697374")));
    cr_expect(not(takes("60")));
    cr_expect(not(takes("a1 64 4c697374 a1" QUERY "60")));
    cr_expect(not(takes("a1 67 52656769737465 a0")));
}

/* Search with a key whose value is nested so deep by `opening`. */
static bool takes_nested(uint8_t opening, size_t depth, bool closed)
{
    static uint8_t wire[4096];
    struct hex head = unhex("a1" SEARCH "a2" QUERY "60 61 78");
    size_t n = head.n;

    memcpy(wire, head.b, n);
    memset(wire + n, opening, depth);
    n += depth;
    wire[n++] = 0x00;
    if (closed) {
        memset(wire + n, 0xff, depth);
        n += depth;
    }
    return takes_bytes(bytes_of(wire, n));
}

Test(dusk_wire, nesting_ends_at_its_bound)
{
    cr_expect(takes_nested(0x81, DUSK_DEPTH_MAX, false));
    cr_expect(not(takes_nested(0x81, DUSK_DEPTH_MAX + 1, false)));
    cr_expect(takes_nested(0x9f, DUSK_DEPTH_MAX, true));
    cr_expect(not(takes_nested(0x9f, DUSK_DEPTH_MAX + 1, true)));
    cr_expect(takes_nested(0xc1, DUSK_DEPTH_MAX, false), "tags are levels, too");
    cr_expect(not(takes_nested(0xc1, DUSK_DEPTH_MAX + 1, false)));
}

/* The heads before it are: Search's name, its map, the key, its text, the unknown key, the array.
 */
static bool takes_items(size_t elements)
{
    static uint8_t wire[2 * DUSK_ITEMS_MAX];
    struct hex head = unhex("a1" SEARCH "a2" QUERY "60 61 78 9f");
    struct wcur room = wcur_of(joined, sizeof(joined));

    memcpy(wire, head.b, head.n);
    memset(wire + head.n, 0xf6, elements);
    wire[head.n + elements] = 0xff;
    return dusk_dir_req_decode(bytes_of(wire, head.n + elements + 1), &room, &dir);
}

Test(dusk_wire, items_end_at_their_bound)
{
    cr_expect(takes_items(DUSK_ITEMS_MAX - 6));
    cr_expect(not(takes_items(DUSK_ITEMS_MAX - 5)));
}

Test(dusk_wire, announced_sizes_are_not_believed)
{
    cr_expect(not(takes("a1" SEARCH "bb ffffffffffffffff" QUERY "60")));
    cr_expect(not(takes("a1" SEARCH "a1" QUERY "7b ffffffffffffffff")));
    cr_expect(not(takes("a1" SEARCH "a1" QUERY "7b 00000003ffffffff 61")));
    cr_expect(not(takes("9b 00000003ffffffff")), "cbor_load asks for 16 GiB");
    cr_expect(not(takes("a1" SEARCH "a2" QUERY "60 61 78 9b 00000003ffffffff")));
}

Test(dusk_wire, a_result_of_failure_is_nothing)
{
    struct dusk_dir_req was;

    memset(&dir, 0xa5, sizeof(dir));
    was = dir;
    cr_expect(not(takes("a1" REGISTER "a3" NAME ALICE ADDR "62 2f78 63 787878")));
    cr_expect(zero(int, memcmp(&was, &dir, sizeof(dir))));
}

/* ---- what clients read ----------------------------------------------------------------------- */

#define RESULTS "67 726573756c7473"
#define GIF_HEAD "62 6964 61 31 65 7469746c65 61 74 63 75726c 61 75 67 70726576696577 61 70"

static bool reads_gifs(const char *wire)
{
    static struct dusk_gif_reply r;
    struct hex h = unhex(wire);
    struct wcur room = wcur_of(joined, sizeof(joined));

    return dusk_gif_reply_decode(hex_bytes(&h), &room, &r);
}

Test(dusk_wire, dims_are_two)
{
    cr_expect(reads_gifs("a1" RESULTS "81 a5" GIF_HEAD "64 64696d73 82 01 02"));
    cr_expect(reads_gifs("a1" RESULTS "9f bf" GIF_HEAD "64 64696d73 9f 01 02 ff ff ff"));
    cr_expect(not(reads_gifs("a1" RESULTS "81 a5" GIF_HEAD "64 64696d73 81 01")));
    cr_expect(not(reads_gifs("a1" RESULTS "81 a5" GIF_HEAD "64 64696d73 83 01 02 03")));
    cr_expect(not(reads_gifs("a1" RESULTS "81 a4" GIF_HEAD)));
}

Test(dusk_wire, a_reply_without_an_address_is_from_an_old_relay)
{
    static struct dusk_dir_reply r;
    struct hex h = unhex("a1 67 526573756c7473 81 a3 67 706565725f6964 61 50" NAME ALICE
                         "69 6c6173745f7365656e 1a 6955b900");
    struct wcur room = wcur_of(joined, sizeof(joined));

    cr_assert(dusk_dir_reply_decode(hex_bytes(&h), &room, &r));
    cr_expect(zero(sz, r.results[0].relay_addr.n));
}
