/* Cursors: the first step out of bounds sticks. */
#include "proto/cur.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static const uint8_t wire[] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09 };

Test(cur, reads_big_endian)
{
    struct cur c = cur_of(bytes_of(wire, sizeof(wire)));

    cr_expect(cur_u8(&c) == 0x01);
    cr_expect(cur_u16(&c) == 0x0203);
    cr_expect(cur_u32(&c) == 0x04050607);
    cr_expect(cur_u16(&c) == 0x0809);
    cr_expect(c.n == 0 && !c.bad);
    c = cur_of(bytes_of(wire, 8));
    cr_expect(cur_u64(&c) == UINT64_C(0x0102030405060708) && !c.bad);
}

Test(cur, empties_itself_at_the_first_step_out_of_bounds)
{
    for (size_t n = 0; n < 8; n++) {
        struct cur c = cur_of(bytes_of(wire, n));

        (void)cur_u64(&c);
        cr_expect(c.bad && c.n == 0, "%zu bytes", n);
    }
    struct cur c = cur_of(bytes_of(wire, 3));

    cr_expect(cur_take(&c, 4).n == 0 && c.bad);
    cr_expect(cur_u8(&c) == 0 && c.bad, "the three bytes are gone too");
    c = cur_of(bytes_of(wire, 3));
    cr_expect(cur_take(&c, SIZE_MAX).n == 0 && c.bad);
}

Test(cur, takes_everything_and_nothing)
{
    struct cur c = cur_of(bytes_of(wire, sizeof(wire)));

    cr_expect(cur_take(&c, 0).n == 0 && !c.bad && c.n == sizeof(wire));
    struct bytes all = cur_take(&c, sizeof(wire));

    cr_expect(bytes_eq(all, bytes_of(wire, sizeof(wire))) && c.n == 0 && !c.bad);
    c = cur_of((struct bytes){ 0 });
    cr_expect(cur_take(&c, 0).n == 0 && !c.bad);
    cr_expect(cur_u8(&c) == 0 && c.bad);
}

Test(wcur, writes_big_endian_and_counts)
{
    uint8_t out[8] = { 0 };
    struct wcur w = wcur_of(out, sizeof(out));

    wcur_u8(&w, 1);
    wcur_u16(&w, 0x0203);
    wcur_u32(&w, 0x04050607);
    cr_expect(w.wrote == 7 && w.n == 1 && !w.bad);
    cr_expect(memcmp(out, wire, 7) == 0 && out[7] == 0);
    put_u64(out, UINT64_C(0x0102030405060708));
    cr_expect(memcmp(out, wire, 8) == 0);
}

Test(wcur, writes_nothing_more_once_something_did_not_fit)
{
    uint8_t out[4] = { 0 };

    struct wcur w = wcur_of(out, 3);

    wcur_u32(&w, 0xffffffff);
    cr_expect(w.bad && w.n == 0 && w.wrote == 0);
    wcur_u8(&w, 0xff); /* would have fitted, but half a message helps nobody */
    wcur_u16(&w, 0xffff);
    wcur_put(&w, bytes_of(wire, 1));
    cr_expect(w.wrote == 0 && memcmp(out, "\0\0\0\0", 4) == 0);
    cr_expect(wcur_room(&w, 0) == NULL);
    w = wcur_of(out, 4);
    cr_expect(wcur_room(&w, SIZE_MAX) == NULL && w.bad);
}

Test(wcur, puts_exactly_as_much_as_there_is_room_for)
{
    uint8_t out[sizeof(wire)];
    struct wcur w = wcur_of(out, sizeof(out));

    wcur_put(&w, bytes_of(wire, sizeof(wire)));
    cr_expect(w.n == 0 && !w.bad && memcmp(out, wire, sizeof(wire)) == 0);
    wcur_put(&w, (struct bytes){ 0 });
    cr_expect(not(w.bad), "nothing fits into nothing");
    wcur_u8(&w, 1);
    cr_expect(w.bad);
}
