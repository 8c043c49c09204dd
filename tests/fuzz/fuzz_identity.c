/* The key file: what loads is written back as it should have been. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    struct identity me, back;
    uint8_t file[KEY_FILE_BYTES];

    crypto_init();
    if (!identity_decode(in, &me))
        return 0;
    identity_encode(&me, file);
    CHECK(identity_decode(bytes_of(file, sizeof(file)), &back));
    CHECK(memcmp(&me, &back, sizeof(me)) == 0);
    CHECK(in.n != KEY_FILE_BYTES || memcmp(file, in.p, in.n) == 0);
    return 0;
}
