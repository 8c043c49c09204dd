/* The primitives: RFC vectors, and the record AEAD in every split. */
#include "proto/crypto.h"

#include "tests/unit/vectors.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define BYTES(a) bytes_of((a), sizeof(a))

static struct bytes hex(const char *text)
{
    static uint8_t ring[8][1024]; /* the eight last results stay readable */
    static unsigned at;
    uint8_t *out = ring[at++ % 8];

    return bytes_of(out, hex_decode(text, out, sizeof(ring[0])));
}

static bool is(const void *got, const char *want)
{
    struct bytes w = hex(want);

    return memcmp(got, w.p, w.n) == 0;
}

Test(crypto_sha256, matches_fips_180_4)
{
    uint8_t out[32];

    crypto_sha256(bytes_str("abc"), out);
    cr_expect(is(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    crypto_sha256((struct bytes){ 0 }, out);
    cr_expect(is(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    crypto_sha256_2(bytes_str("a"), bytes_str("bc"), out);
    cr_expect(is(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    crypto_sha256_2((struct bytes){ 0 }, bytes_str("abc"), out);
    cr_expect(is(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

Test(crypto_hmac_sha256, matches_rfc_4231)
{
    uint8_t out[32], aa[131];
    static const char *const want[] = {
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", /* case 1 */
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", /* 2 */
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe", /* 3 */
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b", /* 4 */
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", /* 6 */
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2", /* 7 */
    };
    uint8_t key1[20], dd[50], cd[50];

    memset(aa, 0xaa, sizeof(aa));
    memset(key1, 0x0b, sizeof(key1));
    memset(dd, 0xdd, sizeof(dd));
    memset(cd, 0xcd, sizeof(cd));
    crypto_hmac_sha256(BYTES(key1), bytes_str("Hi There"), out);
    cr_expect(is(out, want[0]));
    crypto_hmac_sha256(bytes_str("Jefe"), bytes_str("what do ya want for nothing?"), out);
    cr_expect(is(out, want[1]));
    crypto_hmac_sha256(bytes_of(aa, 20), BYTES(dd), out);
    cr_expect(is(out, want[2]));
    crypto_hmac_sha256(hex("0102030405060708090a0b0c0d0e0f10111213141516171819"), BYTES(cd), out);
    cr_expect(is(out, want[3]));
    crypto_hmac_sha256(BYTES(aa),
                       bytes_str("Test Using Larger Than Block-Size Key - Hash Key First"), out);
    cr_expect(is(out, want[4]));
    crypto_hmac_sha256(
        BYTES(aa),
        bytes_str("This is a test using a larger than block-size key and a larger than "
                  "block-size data. The key needs to be hashed before being used by "
                  "the HMAC algorithm."),
        out);
    cr_expect(is(out, want[5]));
}

Test(crypto_hkdf2, chains_hmacs_as_noise_does)
{
    uint8_t ck[32], one[32], two[32], temp[32], block[33] = { 0 }, want[32];
    const uint8_t first = 1;

    memset(ck, 7, sizeof(ck));
    crypto_hkdf2(ck, bytes_str("input"), one, two);
    crypto_hmac_sha256(BYTES(ck), bytes_str("input"), temp);
    crypto_hmac_sha256(BYTES(temp), bytes_of(&first, 1), want);
    cr_expect(memcmp(one, want, 32) == 0);
    memcpy(block, want, 32);
    block[32] = 2;
    crypto_hmac_sha256(BYTES(temp), BYTES(block), want);
    cr_expect(memcmp(two, want, 32) == 0);
    crypto_hkdf2(ck, bytes_str("input"), ck, temp);
    cr_expect(memcmp(ck, one, 32) == 0 && memcmp(temp, two, 32) == 0, "in place");
    crypto_hkdf2(ck, (struct bytes){ 0 }, one, two); /* Split has no input */
    cr_expect(memcmp(one, two, 32) != 0);
}

Test(crypto_x25519, matches_rfc_7748_and_refuses_small_points)
{
    uint8_t out[32], pk[32];
    struct bytes a;

    /* RFC 7748 §5.2, first vector */
    cr_assert(crypto_x25519(
        hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4").p,
        hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c").p, out));
    cr_expect(is(out, "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"));
    /* §6.1: Bob's public key, and what he shares with Alice */
    a = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    crypto_x25519_public(a.p, pk);
    cr_expect(is(pk, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    cr_assert(crypto_x25519(
        a.p, hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a").p, out));
    cr_expect(is(out, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));

    static const char *const small[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    };

    for (size_t i = 0; i < ARRAY_LEN(small); i++)
        cr_expect(not(crypto_x25519(a.p, hex(small[i]).p, out)), "%s", small[i]);
}

struct ed25519_row {
    const char *seed, *pk, *message, *sig;
};

Test(crypto_ed25519, matches_rfc_8032)
{
    static const struct ed25519_row rows[] = {
        { "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
          "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
          "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
          "1cf9b46bd25bf5f0595bbe24655141438e7a100b" },
        { "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
          "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
          "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613"
          "d0f11d8c387b2eaeb4302aeeb00d291612bb0c00" },
        { "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
          "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
          "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760"
          "984dc6594a7c15e9716ed28dc027beceea1ec40a" },
    };
    uint8_t sk[64], pk[32], sig[64];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bytes message = hex(rows[i].message);

        crypto_ed25519_from_seed(hex(rows[i].seed).p, sk, pk);
        cr_expect(is(pk, rows[i].pk) && is(sk + 32, rows[i].pk) && is(sk, rows[i].seed));
        crypto_ed25519_sign(sk, message, sig);
        cr_expect(is(sig, rows[i].sig));
        cr_expect(crypto_ed25519_verify(pk, message, BYTES(sig)));
        cr_expect(not(crypto_ed25519_verify(pk, bytes_str("x"), BYTES(sig))));
        cr_expect(not(crypto_ed25519_verify(pk, message, bytes_of(sig, 63))));
        cr_expect(not(crypto_ed25519_verify(pk, message, (struct bytes){ 0 })));
        for (size_t bit = 0; bit < 512; bit += 7) {
            sig[bit / 8] ^= (uint8_t)(1 << bit % 8);
            cr_expect(not(crypto_ed25519_verify(pk, message, BYTES(sig))), "bit %zu", bit);
            sig[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

Test(crypto_ed25519, refuses_a_second_signature_by_adding_the_group_order)
{
    static const uint8_t order[32] = { 0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,       0xd6,
                                       0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, [31] = 0x10 };
    uint8_t seed[32] = { 1 }, sk[64], pk[32], sig[64];
    unsigned carry = 0;

    crypto_ed25519_from_seed(seed, sk, pk);
    crypto_ed25519_sign(sk, bytes_str("m"), sig);
    for (int i = 0; i < 32; i++) {
        carry += (unsigned)sig[32 + i] + order[i];
        sig[32 + i] = (uint8_t)carry;
        carry >>= 8;
    }
    cr_expect(not(crypto_ed25519_verify(pk, bytes_str("m"), BYTES(sig))));
}

Test(crypto_chapoly, opens_what_it_seals_and_nothing_else)
{
    uint8_t key[32] = { 9 }, text[40] = "the quick brown fox", box[56], back[40];
    struct bytes ad = bytes_str("ad");

    for (size_t n = 0; n <= sizeof(text); n++) {
        crypto_chapoly_seal(key, n, ad, bytes_of(text, n), box);
        cr_assert(crypto_chapoly_open(key, n, ad, bytes_of(box, n + 16), back));
        cr_expect(memcmp(back, text, n) == 0);
        cr_expect(not(crypto_chapoly_open(key, n + 1, ad, bytes_of(box, n + 16), back)));
        cr_expect(
            not(crypto_chapoly_open(key, n, (struct bytes){ 0 }, bytes_of(box, n + 16), back)));
        for (size_t i = 0; i < n + 16; i++) {
            cr_expect(not(crypto_chapoly_open(key, n, ad, bytes_of(box, i), back)), "cut to %zu",
                      i);
            box[i] ^= 0x40;
            cr_expect(not(crypto_chapoly_open(key, n, ad, bytes_of(box, n + 16), back)));
            box[i] ^= 0x40;
        }
    }
    memcpy(box, text, sizeof(text)); /* in place, both ways */
    crypto_chapoly_seal(key, 3, ad, bytes_of(box, sizeof(text)), box);
    cr_assert(crypto_chapoly_open(key, 3, ad, BYTES(box), box));
    cr_expect(memcmp(box, text, sizeof(text)) == 0);
}

Test(crypto_chapoly, matches_rfc_8439)
{
    /* §A.5 has a nonce of Noise's layout: four zeroes, then a counter in little-endian. §2.8.2 has
     * not. The tag covers all of the ciphertext. */
    static const char text[] =
        "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, "
        "replaced, or obsoleted by other documents at any time. It is inappropriate to use "
        "Internet-Drafts as reference material or to cite them other than as "
        "/\xe2\x80\x9cwork in progress./\xe2\x80\x9d";
    struct bytes key = hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
    uint8_t box[265 + AEAD_TAG];

    cr_assert(eq(sz, strlen(text), 265));
    crypto_chapoly_seal(key.p, UINT64_C(0x0807060504030201), hex("f33388860000000000004e91"),
                        bytes_str(text), box);
    cr_expect(is(box, "64a0861575861af460f062c79be643bd"));
    cr_expect(is(box + 265, "eead9d67890cbb22392336fea1851f38"));
}

Test(crypto_chapoly, seals_the_published_first_frame)
{
    uint8_t box[36]; /* libp2p.md §21: key i->r, counter 0, the multistream header */

    crypto_chapoly_seal(hex("530c3f6f9316268d31d426e3ead445b1a0d92fd664e2cd0d220bcb0e7ac62a80").p,
                        0, (struct bytes){ 0 }, hex("132f6d756c746973747265616d2f312e302e300a"),
                        box);
    cr_expect(is(box, "584846a21c31a4ea5ff4435233d10c31a4563e8a68dde7e0f61dac71bbb9badda968da0e"));
}

/* ---- the record AEAD ------------------------------------------------------------------------ */

enum { RECORD = 200 };

static void record_make(uint8_t *text, uint8_t *box, uint64_t counter, struct aead_key *k)
{
    *k = (struct aead_key){ .counter = counter };
    memset(k->key, 0x5a, sizeof(k->key));
    for (size_t i = 0; i < RECORD; i++)
        text[i] = (uint8_t)(i * 7);
    crypto_chapoly_seal(k->key, counter, (struct bytes){ 0 }, bytes_of(text, RECORD), box);
}

Test(aead, seals_the_same_in_any_split)
{
    uint8_t text[RECORD], want[RECORD + AEAD_TAG], got[RECORD + AEAD_TAG];
    struct aead *a = aead_new();
    struct aead_key k;

    for (size_t cut = 0; cut <= RECORD; cut++) {
        record_make(text, want, 5, &k);
        struct bytes parts[] = { { text, cut }, { NULL, 0 }, { text + cut, RECORD - cut } };

        aead_seal(a, &k, parts, 3, got);
        cr_expect(memcmp(got, want, sizeof(want)) == 0, "cut at %zu", cut);
        cr_expect(eq(u64, k.counter, 6));
    }
    aead_free(a);
}

Test(aead, opens_the_same_in_any_split_even_of_the_tag)
{
    uint8_t text[RECORD], box[RECORD + AEAD_TAG], got[RECORD];
    struct aead *a = aead_new();
    struct aead_key k;

    for (size_t cut = 0; cut <= sizeof(box); cut++) {
        for (size_t third = cut; third <= sizeof(box); third += 3) {
            record_make(text, box, UINT64_C(1) << 40, &k);
            struct bytes parts[] = { { box, cut },
                                     { box + cut, third - cut },
                                     { box + third, sizeof(box) - third } };

            cr_assert(aead_open(a, &k, parts, 3, got), "cut at %zu and %zu", cut, third);
            cr_expect(memcmp(got, text, RECORD) == 0);
            cr_expect(eq(u64, k.counter, (UINT64_C(1) << 40) + 1));
        }
    }
    aead_free(a);
}

Test(aead, takes_up_to_64_parts_of_one_byte)
{
    uint8_t box[AEAD_PARTS_MAX], text[AEAD_PARTS_MAX - AEAD_TAG], got[AEAD_PARTS_MAX];
    struct bytes parts[AEAD_PARTS_MAX];
    struct aead_key k = { 0 };
    struct aead *a = aead_new();

    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < sizeof(text); i++)
        parts[i] = bytes_of(text + i, 1);
    aead_seal(a, &k, parts, sizeof(text), box);
    k.counter = 0;
    for (size_t i = 0; i < sizeof(box); i++)
        parts[i] = bytes_of(box + i, 1);
    cr_assert(aead_open(a, &k, parts, AEAD_PARTS_MAX, got));
    cr_expect(memcmp(got, text, sizeof(text)) == 0);
    aead_free(a);
}

Test(aead, works_in_place_and_on_nothing)
{
    uint8_t text[RECORD], box[RECORD + AEAD_TAG];
    struct aead *a = aead_new();
    struct aead_key k;
    struct bytes whole = BYTES(box);

    record_make(text, box, 0, &k);
    cr_assert(aead_open(a, &k, &whole, 1, box));
    cr_expect(memcmp(box, text, RECORD) == 0);

    k.counter = 0; /* an empty record is a bare tag, and legal (libp2p.md §4) */
    uint8_t tag[AEAD_TAG], want[AEAD_TAG];

    aead_seal(a, &k, NULL, 0, tag);
    crypto_chapoly_seal(k.key, 0, (struct bytes){ 0 }, (struct bytes){ 0 }, want);
    cr_expect(memcmp(tag, want, sizeof(tag)) == 0);
    k.counter = 0;
    whole = BYTES(tag);
    cr_expect(aead_open(a, &k, &whole, 1, box));
    cr_expect(eq(u64, k.counter, 1));
    aead_free(a);
    aead_free(NULL);
}

Test(aead, refuses_every_flipped_bit_and_keeps_its_counter)
{
    uint8_t text[RECORD], box[RECORD + AEAD_TAG], got[RECORD];
    struct aead *a = aead_new();
    struct aead_key k;

    record_make(text, box, 9, &k);
    for (size_t bit = 0; bit < 8 * sizeof(box); bit += 5) {
        struct bytes parts[] = { { box, 77 }, { box + 77, sizeof(box) - 77 } };

        box[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect(not(aead_open(a, &k, parts, 2, got)), "bit %zu", bit);
        cr_expect(eq(u64, k.counter, 9));
        box[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    struct bytes whole = BYTES(box);

    k.counter = 10;
    cr_expect(not(aead_open(a, &k, &whole, 1, got)), "the next record's counter");
    k.counter = 9;
    cr_expect(aead_open(a, &k, &whole, 1, got), "a failure leaves nothing behind in the context");
    aead_free(a);
}

Test(aead, keeps_connections_apart_on_one_context)
{
    struct aead *a = aead_new();
    struct aead_key seal[4] = { 0 }, open[4];
    uint8_t box[64], got[64];

    for (int i = 0; i < 4; i++)
        seal[i].key[0] = (uint8_t)i;
    memcpy(open, seal, sizeof(open));
    for (unsigned round = 0; round < 40; round++) {
        unsigned who = round * 7 % 4;
        struct bytes text = bytes_of("0123456789abcdef0123456789abcdef", round % 33);
        struct bytes sealed = bytes_of(box, text.n + AEAD_TAG);

        aead_seal(a, &seal[who], &text, 1, box);
        cr_assert(aead_open(a, &open[who], &sealed, 1, got));
        cr_expect(text.n == 0 || memcmp(got, text.p, text.n) == 0);
        cr_expect(not(aead_open(a, &open[(who + 1) % 4], &sealed, 1, got)));
    }
    aead_free(a);
}

Test(crypto_siphash, matches_the_paper)
{
    uint8_t key[16], in[15];

    for (uint8_t i = 0; i < 16; i++)
        key[i] = i;
    for (uint8_t i = 0; i < 15; i++)
        in[i] = i;
    /* SipHash-2-4, appendix A of Aumasson and Bernstein. */
    cr_expect(eq(u64, crypto_siphash(key, BYTES(in)), UINT64_C(0xa129ca6149be45e5)));
}

Test(crypto_equal, compares_and_wipe_clears)
{
    uint8_t a[4] = { 1, 2, 3, 4 }, b[4] = { 1, 2, 3, 4 };

    cr_expect(crypto_equal(a, b, 4));
    b[3] = 5;
    cr_expect(not(crypto_equal(a, b, 4)));
    cr_expect(crypto_equal(a, b, 3));
    crypto_wipe(a, 4);
    cr_expect(memcmp(a, "\0\0\0\0", 4) == 0);
}
