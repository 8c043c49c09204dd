/* Text in two pieces: the fast path, its plain twin, and any cut have one verdict and one state. */
#include "tests/fuzz/fuzz.h"

#include "proto/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    size_t cut = fuzz_u8(&c);
    struct bytes text = fuzz_rest(&c);
    struct utf8 plain = { 0 }, whole = { 0 }, parts = { 0 };
    bool good = utf8_feed_scalar(&plain, text.p, text.n), halves;

    cut = min_sz(cut, text.n);
    CHECK(utf8_feed(&whole, text.p, text.n) == good);
    halves = utf8_feed(&parts, text.p, cut) && utf8_feed(&parts, text.p + cut, text.n - cut);
    CHECK(halves == good);
    if (good) {
        CHECK(memcmp(&plain, &whole, sizeof(plain)) == 0);
        CHECK(memcmp(&plain, &parts, sizeof(plain)) == 0);
        CHECK(plain.need <= 3 && plain.need <= text.n * 3);
    }
    return 0;
}
