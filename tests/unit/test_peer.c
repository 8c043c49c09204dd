/* Keys, peer ids, the key file and the text alphabets: libp2p.md §1.2, checks 1-3 of §19;
 * dusk.md §12. */
#include "proto/peer.h"

#include "proto/baseenc.h"
#include "proto/crypto.h"
#include "proto/varint.h"
#include "tests/unit/vectors.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define BYTES(a) bytes_of((a), sizeof(a))
#define K_SEED "7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
#define K_PB "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
#define K_TEXT "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
#define K_CID "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6"

static struct identity identity_of(const char *seed_hex)
{
    struct identity me;
    uint8_t seed[32];

    crypto_init();
    cr_assert(hex_decode(seed_hex, seed, sizeof(seed)) == 32);
    identity_from_seed(seed, &me);
    return me;
}

static struct identity identity_filled(uint8_t byte)
{
    struct identity me;
    uint8_t seed[32];

    crypto_init();
    memset(seed, byte, sizeof(seed));
    identity_from_seed(seed, &me);
    return me;
}

Test(identity, reproduces_the_published_key)
{
    struct identity me = identity_of(K_SEED);
    uint8_t pb[KEY_ED25519_PB], raw[38];
    char text[PEER_TEXT_MAX];

    cr_assert(hex_decode(K_PB, pb, sizeof(pb)) == 36);
    cr_expect(memcmp(me.key_pb, pb, 36) == 0);
    cr_assert(hex_decode("0024" K_PB, raw, sizeof(raw)) == 38);
    cr_expect(bytes_eq(peer_id_bytes(&me.id), BYTES(raw)));
    peer_id_text(&me.id, text);
    cr_expect(eq(str, text, K_TEXT));
    peer_id_text_cid(&me.id, text);
    cr_expect(eq(str, text, K_CID));
}

Test(identity, reproduces_the_test_peers)
{
    struct identity a = identity_filled(1), b = identity_filled(2);
    char text[PEER_TEXT_MAX];

    peer_id_text(&a.id, text);
    cr_expect(eq(str, text, "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"));
    peer_id_text(&b.id, text);
    cr_expect(eq(str, text, "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"));
    cr_expect(not(peer_id_eq(&a.id, &b.id)));
}

Test(peer_id_parse, maps_every_text_form_to_the_same_bytes) /* check 2 */
{
    struct identity me = identity_of(K_SEED);
    static const char *const forms[] = {
        K_TEXT, K_CID, "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe"
    };
    struct peer_id id;

    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        cr_assert(peer_id_parse(bytes_str(forms[i]), &id), "%s", forms[i]);
        cr_expect(peer_id_eq(&id, &me.id));
    }
}

Test(peer_id_parse, reads_base36_and_hashed_ids)
{
    /* A hashed id in all three spellings. */
    static const char *const same[] = {
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
        "k2k4r8ncs1yoluq95unsd7x2vfhgve0ncjoggwqx9vyh3vl8warrcp15",
    };
    struct peer_id first, id;
    char text[PEER_TEXT_MAX];

    cr_assert(peer_id_parse(bytes_str(same[0]), &first));
    cr_expect(first.n == 34 && first.b[0] == 0x12 && first.b[1] == 0x20);
    for (size_t i = 1; i < ARRAY_LEN(same); i++) {
        cr_assert(peer_id_parse(bytes_str(same[i]), &id), "%s", same[i]);
        cr_expect(peer_id_eq(&id, &first), "%s", same[i]);
    }
    peer_id_text(&id, text);
    cr_expect(eq(str, text, (char *)same[0]));
    peer_id_text_cid(&id, text);
    cr_expect(eq(str, text, (char *)same[1]));
}

Test(peer_id_parse, refuses_other_bases_codecs_and_hashes) /* check 2 */
{
    static const char *const bad[] = {
        "",
        "1",
        "Q",
        "Qm",
        "b",
        "k",
        "z",
        "x",
        "z" K_TEXT, /* base58btc as multibase */
        "B" K_CID,
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p", /* one shorter */
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq1",
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p0", /* not in the alphabet */
        K_TEXT " ",
        K_CID "a",
        "bafybeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", /* codec dag-pb, 0x70 */
        "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxf", /* stray tail bits */
        "bAFZAAJAIAEJCAHWR5D5OFRFBIS4L5D6UWR57HU5TJODRYPFM6YAQ6DSC2R2PZYT6",
    };
    char longer[400];
    struct peer_id id;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(not(peer_id_parse(bytes_str(bad[i]), &id)), "%s", bad[i]);
    memset(longer, '1', sizeof(longer));
    for (size_t n = 0; n <= sizeof(longer); n++) /* the identity of nothing is `11` */
        cr_expect(peer_id_parse(bytes_of(longer, n), &id) == (n == 2), "%zu", n);
    memset(longer, 'a', sizeof(longer));
    longer[0] = 'b';
    for (size_t n = 0; n <= sizeof(longer); n++)
        cr_expect(not(peer_id_parse(bytes_of(longer, n), &id)));
    longer[0] = 'k';
    for (size_t n = 0; n <= sizeof(longer); n++)
        cr_expect(not(peer_id_parse(bytes_of(longer, n), &id)));
}

Test(peer_id_parse, takes_no_base58_text_that_it_would_not_write)
{
    char text[200], back[PEER_TEXT_MAX];
    struct peer_id id;

    memset(text, 'z', sizeof(text));
    text[0] = '1';
    for (size_t n = 1; n < sizeof(text); n++) {
        if (!peer_id_parse(bytes_of(text, n), &id))
            continue;
        peer_id_text(&id, back);
        cr_expect(bytes_eq(bytes_str(back), bytes_of(text, n)), "%zu", n);
    }
}

Test(peer_id_decode, takes_identity_up_to_42_and_sha256_only)
{
    uint8_t raw[64] = { 0 };
    struct peer_id id;

    for (size_t n = 0; n <= 43; n++) {
        raw[1] = (uint8_t)n;
        cr_expect(peer_id_decode(bytes_of(raw, 2 + n), &id) == (n <= 42), "%zu", n);
        if (n <= 42)
            cr_expect(id.n == 2 + n && id.b[1] == n);
        cr_expect(not(peer_id_decode(bytes_of(raw, 3 + n), &id)), "a tail");
        if (n)
            cr_expect(not(peer_id_decode(bytes_of(raw, 1 + n), &id)), "cut");
    }
    raw[0] = 0x12;
    for (size_t n = 0; n <= 42; n++) {
        raw[1] = (uint8_t)n;
        cr_expect(peer_id_decode(bytes_of(raw, 2 + n), &id) == (n == 32), "%zu", n);
    }
    raw[1] = 32;
    for (unsigned code = 1; code < 0x80; code++) {
        raw[0] = (uint8_t)code;
        cr_expect(peer_id_decode(bytes_of(raw, 34), &id) == (code == 0x12));
    }
    static const uint8_t over_long[] = { 0x80, 0x00, 0x01, 'x' },
                         length[] = { 0x00, 0x81, 0x00, 'x' };

    cr_expect(not(peer_id_decode(BYTES(over_long), &id)));
    cr_expect(not(peer_id_decode(BYTES(length), &id)));
    cr_expect(not(peer_id_decode((struct bytes){ 0 }, &id)));
}

Test(peer_id_decode, pads_with_zeroes_so_that_ids_compare_as_bytes)
{
    struct peer_id a, b;
    static const uint8_t raw[] = { 0x00, 0x02, 0x61, 0x62 };

    memset(&a, 0xff, sizeof(a));
    memset(&b, 0x00, sizeof(b));
    cr_assert(peer_id_decode(BYTES(raw), &a));
    cr_assert(peer_id_decode(BYTES(raw), &b));
    cr_expect(peer_id_eq(&a, &b));
    memset(&a, 0xff, sizeof(a));
    peer_id_of_key(bytes_str("ab"), &a);
    cr_expect(peer_id_eq(&a, &b));
}

Test(peer_id_of_key, hashes_from_43_bytes_on)
{
    uint8_t key[43] = { 1 }, hash[32];
    struct peer_id id;

    peer_id_of_key(bytes_of(key, 42), &id);
    cr_expect(id.n == 44 && id.b[0] == 0 && id.b[1] == 42);
    peer_id_of_key(BYTES(key), &id);
    crypto_sha256(BYTES(key), hash);
    cr_expect(id.n == 34 && id.b[0] == 0x12 && id.b[1] == 32 && memcmp(id.b + 2, hash, 32) == 0);
}

Test(peer_id_text, fits_for_every_id)
{
    char text[PEER_TEXT_MAX];
    struct peer_id id = { 44, { 0x00, 42 } }, back;

    memset(id.b + 2, 0xff, 42);
    peer_id_text(&id, text);
    cr_expect(peer_id_parse(bytes_str(text), &back) && peer_id_eq(&id, &back));
    peer_id_text_cid(&id, text);
    cr_expect(peer_id_parse(bytes_str(text), &back) && peer_id_eq(&id, &back));
    memset(id.b + 2, 0, 42); /* leading zeroes are a digit each */
    peer_id_text(&id, text);
    cr_expect(peer_id_parse(bytes_str(text), &back) && peer_id_eq(&id, &back));
}

Test(baseenc, refuses_tails_that_no_encoder_writes)
{
    uint8_t out[8];
    struct wcur w = wcur_of(out, sizeof(out));

    cr_expect(not(base32_decode(&w, bytes_str("a"))), "five bits are no byte");
    cr_expect(not(base32_decode(&w, bytes_str("aaa"))), "fifteen: one byte and a whole character");
    cr_expect(not(base32_decode(&w, bytes_str("ab"))), "stray bits");
    cr_expect(not(base64url_decode(&w, bytes_str("A"))));
    cr_expect(not(base64url_decode(&w, bytes_str("AB"))));
    cr_expect(not(base64url_decode(&w, bytes_str("AA=="))), "no padding");
    cr_expect(not(base64i2p_decode(&w, bytes_str("AA"))), "padding");
    cr_expect(not(base64i2p_decode(&w, bytes_str("A==="))));
    cr_expect(not(base58_decode(&w, bytes_str("0OIl"))));
    w = wcur_of(out, sizeof(out));
    cr_expect(base32_decode(&w, bytes_str("aa")) && w.wrote == 1);
    cr_expect(base64url_decode(&w, bytes_str("AA")) && w.wrote == 2);
    cr_expect(base64i2p_decode(&w, bytes_str("AA==")) && w.wrote == 3);
    cr_expect(base58_decode(&w, bytes_str("1")) && w.wrote == 4);
    cr_expect(base58_decode(&w, bytes_str("")) && w.wrote == 4);
}

Test(baseenc, bounds_what_costs_the_square_of_its_length)
{
    uint8_t out[BASE_TEXT_MAX], bytes[BASE_BYTES_MAX + 1];
    char text[BASE_TEXT_MAX + 1];
    struct wcur w = wcur_of(out, sizeof(out));

    memset(text, '1', sizeof(text));
    cr_expect(base58_decode(&w, bytes_of(text, BASE_BYTES_MAX)) && w.wrote == BASE_BYTES_MAX);
    w = wcur_of(out, sizeof(out));
    cr_expect(not(base58_decode(&w, bytes_of(text, BASE_BYTES_MAX + 1))));
    memset(text, 'z', sizeof(text));
    w = wcur_of(out, sizeof(out));
    cr_expect(not(base58_decode(&w, bytes_of(text, BASE_TEXT_MAX))), "more than 128 bytes");
    cr_expect(not(base36_decode(&w, bytes_of(text, BASE_TEXT_MAX + 1))));
    memset(bytes, 0xff, sizeof(bytes));
    w = wcur_of(text, sizeof(text));
    base58_encode(&w, bytes_of(bytes, BASE_BYTES_MAX));
    cr_assert(not(w.bad));
    struct wcur back = wcur_of(out, sizeof(out));

    cr_expect(base58_decode(&back, bytes_of(text, w.wrote)) && back.wrote == BASE_BYTES_MAX);
    base58_encode(&w, BYTES(bytes));
    cr_expect(w.bad);
}

/* ---- public keys ---------------------------------------------------------------------------- */

static struct bytes key_pb(uint8_t type, struct bytes data)
{
    static uint8_t pb[4096];
    struct wcur w = wcur_of(pb, sizeof(pb));

    wcur_u8(&w, 0x08);
    wcur_u8(&w, type);
    wcur_u8(&w, 0x12);
    wcur_lp(&w, data);
    cr_assert(not(w.bad));
    return bytes_of(pb, w.wrote);
}

Test(pubkey_verify, checks_all_four_kinds) /* check 3, below Noise */
{
    const struct vectors *v = vectors_of("keys.txt");
    struct bytes message = vector(v, "message");
    struct identity me = identity_filled(1);
    uint8_t sig[64];
    struct pubkey key;

    cr_assert(pubkey_decode(key_pb(KEY_RSA, vector(v, "rsa2048_spki")), &key));
    cr_expect(pubkey_verify(&key, message, vector(v, "rsa2048_sig")));
    cr_expect(not(pubkey_verify(&key, bytes_str("x"), vector(v, "rsa2048_sig"))));
    cr_assert(pubkey_decode(key_pb(KEY_RSA, vector(v, "rsa8192_spki")), &key));
    cr_expect(pubkey_verify(&key, message, vector(v, "rsa8192_sig")));
    cr_assert(pubkey_decode(key_pb(KEY_SECP256K1, vector(v, "k256_key")), &key));
    cr_expect(pubkey_verify(&key, message, vector(v, "k256_sig")));
    cr_expect(not(pubkey_verify(&key, bytes_str("x"), vector(v, "k256_sig"))));
    cr_assert(pubkey_decode(key_pb(KEY_ECDSA, vector(v, "p256_spki")), &key));
    cr_expect(pubkey_verify(&key, message, vector(v, "p256_sig")));
    cr_expect(not(pubkey_verify(&key, bytes_str("x"), vector(v, "p256_sig"))));
    cr_assert(pubkey_decode(BYTES(me.key_pb), &key));
    cr_expect(key.type == KEY_ED25519 && key.data.n == 32 && key.data.p == me.key_pb + 4);
    crypto_ed25519_sign(me.sk, message, sig);
    cr_expect(pubkey_verify(&key, message, BYTES(sig)));
    cr_expect(not(pubkey_verify(&key, bytes_str("x"), BYTES(sig))));
    key.type = (enum key_type)4;
    cr_expect(not(pubkey_verify(&key, message, BYTES(sig))));
}

Test(pubkey_decode, bounds_rsa_at_2048_and_8192_bits) /* check 3 */
{
    const struct vectors *v = vectors_of("keys.txt");
    static const struct {
        const char *name;
        bool good;
    } sizes[] = { { "rsa1024_spki", false }, { "rsa2047_spki", false }, { "rsa2048_spki", true },
                  { "rsa4096_spki", true },  { "rsa8192_spki", true },  { "rsa8193_spki", false },
                  { "rsa16384_spki", false } };
    struct pubkey key;

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        cr_expect(pubkey_decode(key_pb(KEY_RSA, vector(v, sizes[i].name)), &key) == sizes[i].good,
                  "%s", sizes[i].name);
}

Test(pubkey_decode, refuses_every_truncation)
{
    const struct vectors *v = vectors_of("keys.txt");
    struct identity me = identity_filled(1);
    struct pubkey key;

    for (size_t n = 0; n < sizeof(me.key_pb); n++)
        cr_expect(not(pubkey_decode(bytes_of(me.key_pb, n), &key)), "%zu", n);
    struct bytes pb = key_pb(KEY_RSA, vector(v, "rsa2048_spki"));

    for (size_t n = 0; n < pb.n; n++)
        cr_expect(not(pubkey_decode(bytes_of(pb.p, n), &key)), "%zu", n);
}

Test(pubkey_decode, takes_the_canonical_form_only)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    static const char *const shapes[] = {
        "0801 1220 %s 00",   /* a tail */
        "0801 1220 %s 1800", /* an unknown field */
        "1220 %s 0801",      /* the other order */
        "0801 0801 1220 %s", /* a field twice */
        "088100 1220 %s",    /* over-long numbers */
        "0801 12a000 %s",
        "1220 %s",      /* no type, which protobuf would read as RSA */
        "0804 1220 %s", /* unknown types */
        "08ffffffffffffffff7f 1220 %s",
        "0800 1220 %s", /* RSA and ECDSA that are none; the length of another type */
        "0802 1220 %s",
        "0801 1221 %s 00",
        "0801 121f %s",
        "0801 1200",
        "0803 1200",
        "0902 1220 %s", /* other wire types */
        "0801 1020 %s",
    };
    uint8_t pb[128];
    char text[256];
    struct pubkey key;

    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        snprintf(text, sizeof(text), shapes[i], zeros);
        cr_expect(not(pubkey_decode(bytes_of(pb, hex_decode(text, pb, sizeof(pb))), &key)), "%s",
                  shapes[i]);
    }
    snprintf(text, sizeof(text), "0801 1220 %s", zeros);
    cr_expect(pubkey_decode(bytes_of(pb, hex_decode(text, pb, sizeof(pb))), &key));
}

Test(pubkey_decode, asks_secp256k1_keys_for_a_compressed_point)
{
    uint8_t point[33] = { 0 };
    struct pubkey key;

    for (unsigned first = 0; first < 256; first++) {
        point[0] = (uint8_t)first;
        cr_expect(pubkey_decode(key_pb(KEY_SECP256K1, BYTES(point)), &key) ==
                  (first == 2 || first == 3));
    }
    point[0] = 2;
    cr_expect(not(pubkey_decode(key_pb(KEY_SECP256K1, bytes_of(point, 32)), &key)));
    static uint8_t big[257];

    cr_expect(pubkey_decode(key_pb(KEY_ECDSA, bytes_of(big, 256)), &key));
    cr_expect(not(pubkey_decode(key_pb(KEY_ECDSA, bytes_of(big, 257)), &key)));
}

/* ---- key file ------------------------------------------------------------------------------- */

Test(identity_decode, reads_back_what_it_writes) /* check 1, without the disk */
{
    struct identity me = identity_of(K_SEED), back;
    uint8_t file[KEY_FILE_BYTES], want[KEY_FILE_BYTES];

    identity_encode(&me, file);
    cr_assert(hex_decode("08011240" K_SEED
                         "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
                         want, sizeof(want)) == KEY_FILE_BYTES);
    cr_expect(memcmp(file, want, sizeof(want)) == 0);
    cr_assert(identity_decode(BYTES(file), &back));
    cr_expect(memcmp(&me, &back, sizeof(me)) == 0);
}

Test(identity_decode, reads_the_old_form_with_the_public_half_twice)
{
    struct identity me = identity_of(K_SEED), back;
    uint8_t file[101] = { 0x08, 0x01, 0x12, 0x60 };

    memcpy(file + 4, me.sk, 64);
    memcpy(file + 68, me.sk + 32, 32);
    cr_assert(identity_decode(bytes_of(file, 100), &back));
    cr_expect(memcmp(&me, &back, sizeof(me)) == 0);
    for (size_t n = 0; n <= 101; n++)
        cr_expect(identity_decode(bytes_of(file, n), &back) == (n == 100));
    file[99] ^= 1;
    cr_expect(not(identity_decode(bytes_of(file, 100), &back)), "the second copy differs");
}

Test(identity_decode, refuses_damage)
{
    struct identity me = identity_of(K_SEED), back;
    uint8_t file[KEY_FILE_BYTES + 1] = { 0 };

    identity_encode(&me, file);
    for (size_t n = 0; n <= sizeof(file); n++)
        cr_expect(identity_decode(bytes_of(file, n), &back) == (n == KEY_FILE_BYTES), "%zu", n);
    for (size_t bit = 0; bit < 8 * KEY_FILE_BYTES; bit++) {
        struct identity none = { 0 };

        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect(not(identity_decode(bytes_of(file, KEY_FILE_BYTES), &none)), "bit %zu", bit);
        for (size_t i = 0; i < sizeof(none); i++) /* no half-loaded secret is left behind */
            cr_assert(eq(u8, ((uint8_t *)&none)[i], 0));
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(identity_wipe, leaves_no_secret)
{
    struct identity me = identity_of(K_SEED);
    static const struct identity none;

    identity_wipe(&me);
    cr_expect(memcmp(&me, &none, sizeof(me)) == 0);
}
