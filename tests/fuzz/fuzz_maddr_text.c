/* A multiaddr in text: what parses is valid, and its canonical text says the same. */
#include "tests/fuzz/fuzz.h"

#include "proto/maddr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct maddr m, back;
    char text[MADDR_TEXT_MAX], again[MADDR_TEXT_MAX];

    if (!maddr_parse(bytes_of(data, size), &m))
        return 0;
    CHECK(maddr_valid(maddr_bytes(&m)));
    if (!maddr_text(maddr_bytes(&m), text, sizeof(text)))
        return 0; /* escapes and hashes may grow past the room */
    CHECK(maddr_parse(bytes_str(text), &back));
    CHECK(bytes_eq(maddr_bytes(&m), maddr_bytes(&back)));
    CHECK(maddr_text(maddr_bytes(&back), again, sizeof(again)));
    CHECK(strcmp(text, again) == 0);
    return 0;
}
