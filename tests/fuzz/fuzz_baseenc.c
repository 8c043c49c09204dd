/* The first byte chooses the alphabet; the rest is read as text and as bytes. */
#include "tests/fuzz/fuzz.h"

#include "proto/baseenc.h"

typedef bool decode_fn(struct wcur *w, struct bytes text);
typedef void encode_fn(struct wcur *w, struct bytes in);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static decode_fn *const decode[] = { base58_decode, base32_decode, base64url_decode,
                                         base64i2p_decode, base36_decode };
    static encode_fn *const encode[] = { base58_encode, base32_encode, base64url_encode,
                                         base64i2p_encode, NULL };
    uint8_t one[4096], two[4096];
    struct cur c = cur_of(bytes_of(data, size));
    size_t which = fuzz_u8(&c) % ARRAY_LEN(decode);
    struct bytes in = fuzz_rest(&c);
    struct wcur w = wcur_of(one, sizeof(one));

    if (in.n > 1024)
        return 0;
    if (decode[which](&w, in) && encode[which]) { /* text that decodes is what we would write */
        struct wcur back = wcur_of(two, sizeof(two));

        encode[which](&back, bytes_of(one, w.wrote));
        CHECK(!back.bad);
        CHECK(bytes_eq(bytes_of(two, back.wrote), in));
    }
    if (encode[which]) {
        w = wcur_of(one, sizeof(one));
        encode[which](&w, in);
        if (!w.bad) {
            struct wcur back = wcur_of(two, sizeof(two));

            CHECK(decode[which](&back, bytes_of(one, w.wrote)));
            CHECK(bytes_eq(bytes_of(two, back.wrote), in));
        }
    }
    uint8_t tight[8]; /* and with next to no room */

    w = wcur_of(tight, sizeof(tight));
    (void)decode[which](&w, in);
    CHECK(w.wrote <= sizeof(tight));
    return 0;
}
