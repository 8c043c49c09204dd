#include "proto/peer.h"

#include "proto/baseenc.h"
#include "proto/crypto.h"
#include "proto/varint.h"

enum {
    HASH_IDENTITY = 0x00,
    HASH_SHA2_256 = 0x12,
    IDENTITY_MAX = 42, /* longer keys are hashed (libp2p specs: peer-ids) */
    CID_V1 = 1,
    CODEC_LIBP2P_KEY = 0x72,
    RSA_BITS_MIN =
        2048, /* go's floor and cap: below is forgeable, above is a way to burn our CPU */
    RSA_BITS_MAX = 8192,
    ECDSA_SPKI_MAX = 256, /* P-521 takes 158 */
};

static_assert(PEER_ID_MAX == 2 + IDENTITY_MAX, "an identity multihash: code, length, key");

bool peer_id_decode(struct bytes multihash, struct peer_id *id)
{
    struct cur c = cur_of(multihash);
    uint64_t code = cur_varint(&c);
    struct bytes digest = cur_lp(&c);

    if (c.bad || c.n != 0)
        return false;
    if (code == HASH_IDENTITY ? digest.n > IDENTITY_MAX : code != HASH_SHA2_256 || digest.n != 32)
        return false;
    memset(id, 0, sizeof(*id));
    id->n = (uint8_t)multihash.n;
    memcpy(id->b, multihash.p, multihash.n);
    return true;
}

void peer_id_of_key(struct bytes key_pb, struct peer_id *id)
{
    memset(id, 0, sizeof(*id));
    if (key_pb.n <= IDENTITY_MAX) {
        id->b[0] = HASH_IDENTITY;
        id->b[1] = (uint8_t)key_pb.n;
        if (key_pb.n)
            memcpy(id->b + 2, key_pb.p, key_pb.n);
        id->n = (uint8_t)(2 + key_pb.n);
        return;
    }
    id->b[0] = HASH_SHA2_256;
    id->b[1] = 32;
    crypto_sha256(key_pb, id->b + 2);
    id->n = 34;
}

void peer_id_text(const struct peer_id *id, char *text)
{
    struct wcur w = wcur_of(text, PEER_TEXT_MAX);

    base58_encode(&w, peer_id_bytes(id));
    wcur_u8(&w, 0);
    ASSERT(!w.bad);
}

void peer_id_text_cid(const struct peer_id *id, char *text)
{
    uint8_t cid[2 + PEER_ID_MAX] = { CID_V1, CODEC_LIBP2P_KEY };
    struct wcur w = wcur_of(text, PEER_TEXT_MAX);

    memcpy(cid + 2, id->b, id->n);
    wcur_u8(&w, 'b');
    base32_encode(&w, bytes_of(cid, 2 + (size_t)id->n));
    wcur_u8(&w, 0);
    ASSERT(!w.bad);
}

bool peer_id_parse(struct bytes text, struct peer_id *id)
{
    uint8_t raw[2 + PEER_ID_MAX];
    struct wcur w = wcur_of(raw, sizeof(raw));

    if (text.n == 0)
        return false;
    /* Form A has no multibase prefix: every multihash that we take begins 1 or Qm in base58. */
    if (text.p[0] == '1' || (text.n > 1 && text.p[0] == 'Q' && text.p[1] == 'm'))
        return base58_decode(&w, text) && peer_id_decode(bytes_of(raw, w.wrote), id);

    struct bytes digits = bytes_of(text.p + 1, text.n - 1);
    bool read = text.p[0] == 'b'   ? base32_decode(&w, digits)
                : text.p[0] == 'k' ? base36_decode(&w, digits)
                                   : false;

    return read && w.wrote > 2 && raw[0] == CID_V1 && raw[1] == CODEC_LIBP2P_KEY &&
           peer_id_decode(bytes_of(raw + 2, w.wrote - 2), id);
}

static bool data_fits(enum key_type type, struct bytes data)
{
    unsigned bits;

    switch (type) {
    case KEY_RSA:
        return crypto_rsa_bits(data, &bits) && bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
    case KEY_ED25519:
        return data.n == 32;
    case KEY_SECP256K1:
        return data.n == 33 && (data.p[0] == 2 || data.p[0] == 3);
    case KEY_ECDSA:
        return data.n > 0 && data.n <= ECDSA_SPKI_MAX;
    }
    return false;
}

bool pubkey_decode(struct bytes pb, struct pubkey *key)
{
    struct cur c = cur_of(pb);
    bool tags = cur_u8(&c) == 0x08; /* field 1, varint: Type */
    uint64_t type = cur_varint(&c);

    tags = cur_u8(&c) == 0x12 && tags; /* field 2, bytes: Data */
    struct bytes data = cur_lp(&c);

    if (c.bad || c.n != 0 || !tags || pb.n > KEY_PB_MAX || type > KEY_ECDSA)
        return false;
    if (!data_fits((enum key_type)type, data))
        return false;
    *key = (struct pubkey){ (enum key_type)type, pb, data };
    return true;
}

bool pubkey_verify(const struct pubkey *key, struct bytes message, struct bytes signature)
{
    switch (key->type) {
    case KEY_RSA:
        return crypto_rsa_verify(key->data, message, signature);
    case KEY_ED25519:
        return crypto_ed25519_verify(key->data.p, message, signature);
    case KEY_SECP256K1:
        return crypto_secp256k1_verify(key->data, message, signature);
    case KEY_ECDSA:
        return crypto_ecdsa_verify(key->data, message, signature);
    }
    return false;
}

void identity_from_seed(const uint8_t seed[32], struct identity *me)
{
    static const uint8_t head[4] = { 0x08, KEY_ED25519, 0x12, 32 };

    memcpy(me->key_pb, head, sizeof(head));
    crypto_ed25519_from_seed(seed, me->sk, me->key_pb + sizeof(head));
    peer_id_of_key(bytes_of(me->key_pb, sizeof(me->key_pb)), &me->id);
}

bool identity_decode(struct bytes file, struct identity *me)
{
    struct cur c = cur_of(file);
    bool head = cur_u8(&c) == 0x08;

    head = cur_u8(&c) == KEY_ED25519 && head;
    head = cur_u8(&c) == 0x12 && head;
    size_t data_n = cur_u8(&c); /* 64 and 96 are varints of one byte */
    struct bytes data = cur_take(&c, data_n);

    if (c.bad || c.n != 0 || !head || (data.n != 64 && data.n != 96))
        return false;
    identity_from_seed(data.p, me);

    /* The public half is written down, in old files twice. A half that is not this secret's means
     * that the file is damaged, and signing with a foreign half would even give the secret away. */
    for (size_t at = 32; at < data.n; at += 32) {
        if (!crypto_equal(data.p + at, me->sk + 32, 32)) {
            identity_wipe(me);
            return false;
        }
    }
    return true;
}

void identity_encode(const struct identity *me, uint8_t file[KEY_FILE_BYTES])
{
    static const uint8_t head[4] = { 0x08, KEY_ED25519, 0x12, 64 };

    static_assert(KEY_FILE_BYTES == sizeof(head) + sizeof(me->sk), "dusk.md §12");
    memcpy(file, head, sizeof(head));
    memcpy(file + sizeof(head), me->sk, sizeof(me->sk));
}

void identity_wipe(struct identity *me)
{
    crypto_wipe(me, sizeof(*me));
}
