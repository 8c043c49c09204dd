/* Unsigned varints: libp2p.md §1.1. */
#include "proto/varint.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define BYTES(a) bytes_of((a), sizeof(a))

Test(varint, round_trips_at_every_length)
{
    for (unsigned bits = 0; bits <= 63; bits++) {
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t v = (UINT64_C(1) << bits) + (uint64_t)(int64_t)delta;
            uint8_t at[VARINT_MAX_BYTES + 1];
            uint64_t got = 0;
            size_t used = 0;

            if (v >= UINT64_C(1) << 63)
                continue;
            size_t n = varint_put(at, v);

            cr_assert(eq(sz, n, varint_len(v)));
            cr_assert(le(sz, n, (size_t)VARINT_MAX_BYTES));
            for (size_t cut = 0; cut < n; cut++)
                cr_expect(varint_peek(bytes_of(at, cut), &got, &used) == VARINT_MORE);
            at[n] = 0x55; /* what follows is not looked at */
            cr_assert(varint_peek(bytes_of(at, n + 1), &got, &used) == VARINT_OK);
            cr_expect(got == v && used == n);
        }
    }
}

Test(varint, is_the_published_encoding)
{
    static const uint8_t quic_v1[] = { 0xcd, 0x03 }, memory[] = { 0x89, 0x06 };
    uint8_t at[VARINT_MAX_BYTES];

    cr_expect(varint_put(at, 461) == 2 && memcmp(at, quic_v1, 2) == 0);
    cr_expect(varint_put(at, 777) == 2 && memcmp(at, memory, 2) == 0);
    cr_expect(varint_put(at, 0) == 1 && at[0] == 0);
    cr_expect(varint_len(UINT64_MAX >> 1) == 9);
}

Test(varint_peek, refuses_over_long_and_too_large_values)
{
    static const uint8_t zero[] = { 0x80, 0x00 }, one[] = { 0x81, 0x80, 0x00 };
    static const uint8_t ten[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01 };
    static const uint8_t nine[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f };
    uint64_t v = 77;
    size_t used = 77;

    cr_expect(varint_peek(BYTES(zero), &v, &used) == VARINT_BAD);
    cr_expect(varint_peek(BYTES(one), &v, &used) == VARINT_BAD);
    cr_expect(varint_peek(BYTES(ten), &v, &used) == VARINT_BAD);
    cr_expect(varint_peek(bytes_of(ten, 9), &v, &used) == VARINT_BAD, "no tenth byte can mend it");
    cr_expect(varint_peek(bytes_of(ten, 8), &v, &used) == VARINT_MORE);
    cr_expect(v == 77 && used == 77, "results only on success");
    cr_expect(varint_peek(BYTES(nine), &v, &used) == VARINT_OK && v == UINT64_MAX >> 1);
    cr_expect(varint_peek((struct bytes){ 0 }, &v, &used) == VARINT_MORE);
}

Test(cur_varint, sets_bad_for_more_and_bad_alike)
{
    static const uint8_t cut[] = { 0x80 }, over[] = { 0x80, 0x00, 7 }, fine[] = { 0xac, 0x02, 7 };
    struct cur c = cur_of(BYTES(cut));

    cr_expect(cur_varint(&c) == 0 && c.bad && c.n == 0);
    c = cur_of(BYTES(over));
    cr_expect(cur_varint(&c) == 0 && c.bad && c.n == 0);
    cr_expect(cur_varint(&c) == 0 && c.bad, "and it sticks");
    c = cur_of(BYTES(fine));
    cr_expect(cur_varint(&c) == 300 && !c.bad && c.n == 1);
}

Test(cur_lp, takes_exactly_what_the_prefix_says)
{
    static const uint8_t two[] = { 2, 'a', 'b', 'c' }, empty[] = { 0 }, much[] = { 3, 'a', 'b' };
    static const uint8_t huge[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 'a' };
    struct cur c = cur_of(BYTES(two));
    struct bytes b = cur_lp(&c);

    cr_expect(b.n == 2 && b.p == two + 1 && c.n == 1 && !c.bad);
    c = cur_of(BYTES(empty));
    b = cur_lp(&c);
    cr_expect(b.n == 0 && c.n == 0 && !c.bad);
    c = cur_of(BYTES(much));
    b = cur_lp(&c);
    cr_expect(b.n == 0 && c.n == 0 && c.bad);
    c = cur_of(BYTES(huge));
    b = cur_lp(&c);
    cr_expect(b.n == 0 && c.n == 0 && c.bad, "2^63 - 1 bytes");
}

Test(wcur_lp, writes_prefix_and_bytes_or_says_bad)
{
    uint8_t out[200], body[130];

    memset(body, 'x', sizeof(body));
    for (size_t room = 0; room <= 132; room++) {
        struct wcur w = wcur_of(out, room);

        wcur_lp(&w, BYTES(body));
        cr_expect(w.bad == (room < 132), "room %zu", room);
    }
    cr_expect(out[0] == 0x82 && out[1] == 0x01 && out[131] == 'x');
}
