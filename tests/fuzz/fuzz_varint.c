#include "tests/fuzz/fuzz.h"

#include "proto/varint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    uint64_t v = 0, same = 0;
    size_t used = 0, again = 0;
    uint8_t out[VARINT_MAX_BYTES];

    if (varint_peek(in, &v, &used) == VARINT_OK) {
        CHECK(used <= size);
        CHECK(varint_len(v) == used);
        CHECK(varint_put(out, v) == used);
        CHECK(memcmp(out, data, used) == 0); /* one spelling per value */
        for (size_t cut = 0; cut < used; cut++)
            CHECK(varint_peek(bytes_of(data, cut), &same, &again) == VARINT_MORE);
    }

    /* Length-prefixed records to the end: each lies inside the input. */
    struct cur c = cur_of(in);

    while (!c.bad && c.n) {
        const uint8_t *at = c.p;
        struct bytes b = cur_lp(&c);

        if (c.bad)
            break;
        CHECK(b.p > at);
        CHECK(b.n <= (size_t)(data + size - b.p));
        CHECK(b.p + b.n == c.p);
    }
    return 0;
}
