/* A public key protobuf behind its length, then a signature: the hostile half of a handshake. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/peer.h"
#include "proto/varint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    struct bytes pb = cur_lp(&c);
    struct bytes sig = fuzz_rest(&c);
    struct pubkey key;
    struct peer_id id, back;

    crypto_init();
    if (!pubkey_decode(pb, &key))
        return 0;
    CHECK(key.data.p > pb.p);
    CHECK(key.data.p + key.data.n == pb.p + pb.n);
    peer_id_of_key(key.pb, &id);
    CHECK(peer_id_decode(peer_id_bytes(&id), &back));
    CHECK(peer_id_eq(&id, &back));
    if (pubkey_verify(&key, bytes_str("noise-libp2p-static-key:"), sig)) {
        CHECK(sig.n > 0);
        CHECK(!pubkey_verify(&key, bytes_str("another message"), sig));
    }
    return 0;
}
