/* The whole input is what came on a connection; every prefix of it is what had come before. */
#include "tests/fuzz/fuzz.h"

#include "engine/proxy2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy2 whole, part;
    enum proxy2_verdict v = proxy2_parse(bytes_of(data, size), &whole);

    if (v == PROXY2_OK) {
        CHECK(whole.used >= PROXY2_HEAD && whole.used <= PROXY2_MAX && whole.used <= size);
        CHECK(!whole.absent);
    } else {
        CHECK(!whole.has_src && whole.used == 0);
        CHECK(v == PROXY2_BAD || (whole.want > size && whole.want <= PROXY2_MAX));
    }
    if (whole.has_src) /* only this command and these two families carry an address */
        CHECK(data[12] == 0x21 && (data[13] == 0x11 || data[13] == 0x21));

    /* The first prefix that is answered is answered as the whole is. */
    for (size_t n = 0; n < size && n <= PROXY2_MAX; n++) {
        enum proxy2_verdict w = proxy2_parse(bytes_of(data, n), &part);

        if (w == PROXY2_MORE) {
            CHECK(part.want > n);
            continue;
        }
        CHECK(w == v);
        CHECK(memcmp(&part.src, &whole.src, sizeof(part.src)) == 0);
        CHECK(part.used == whole.used && part.absent == whole.absent);
        break;
    }
    return 0;
}
