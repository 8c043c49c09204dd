/* Peer ids: the input as a multihash, and as text. */
#include "tests/fuzz/fuzz.h"

#include "proto/peer.h"

static void check_texts(const struct peer_id *id)
{
    char text[PEER_TEXT_MAX];
    struct peer_id back;

    peer_id_text(id, text);
    CHECK(peer_id_parse(bytes_str(text), &back));
    CHECK(peer_id_eq(id, &back));
    peer_id_text_cid(id, text);
    CHECK(peer_id_parse(bytes_str(text), &back));
    CHECK(peer_id_eq(id, &back));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    struct peer_id id;

    if (peer_id_decode(in, &id)) {
        CHECK(bytes_eq(peer_id_bytes(&id), in));
        check_texts(&id);
    }
    if (peer_id_parse(in, &id)) {
        struct peer_id back;

        CHECK(peer_id_decode(peer_id_bytes(&id), &back));
        CHECK(peer_id_eq(&id, &back));
        check_texts(&id);
    }
    return 0;
}
