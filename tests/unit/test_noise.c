#include "proto/noise.h"
#include "tests/unit/relay_hex.h"

#include <stdlib.h>

/* The transcript of libp2p.md §21: initiator A, responder K. */
#define MSG1 "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"
#define MSG2                                                                                       \
    "7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14"                             \
    "c397174f4837000ddcbb12813288249a5b12d88516876da181ce0fc959b99e517ea8998c13dc2b6f0c0dd1008f6a" \
    "2fb91abebf4319bfbc549c45ee16ed444c4c35de1259a1c51b1c3541d26610c69059f392ff243d7c88c7b37d0446" \
    "0172ed03794db6170b2c0185d23ee28734dc66a74d3bd5101586f23fc0d9cc9819978a433880330fc1029d9832f0" \
    "db367ea40b4c7ddf49cc6209c012101ce3ff36cc602f1671f019382af1b64a4a68cf816ddacf204a5e2cd7437bd9"
#define MSG3                                                                                       \
    "cb841bb9a3d8fff17ed00e6c7a898c0a701ffe7a08e25ff252fc2e7deecd3122330012a02d8f2166f0001be4c91e" \
    "cec06466462950394c4f675f88ea41594ac2b53769caab3fc9f179970a298a1d4803bde30b327803595eae3ab1c6" \
    "e116c93c7a49eaab8675bda2abc872a3e4b6130ac3ea9b36420a24120fac6682bf7bed98b1831a1c99c852bdec8c" \
    "5d00655b0a79d88cd47f9a2d73881e86195b98bfbe5d389b98f0e8ccdea8903daddcedfb5f7fc7b954b7c3868736"
#define PAYLOAD2                                                                                   \
    "0a24" K_PB                                                                                    \
    "1240 50a05933e3f04f2d03af274d28055e86da84f2956df79c91ee5e6613c713d645f89e9fe4d6c2ccbc16bda83" \
    "bdb8c101c719641668eccde68c6da1a9bf8681d0f 220e120c2f79616d75782f312e302e30"
#define MSS_FRAME "584846a21c31a4ea5ff4435233d10c31a4563e8a68dde7e0f61dac71bbb9badda968da0e"
#define PING_FRAME "a2e128faf0c85c241c9808b432ad10cd6ee355db56ef67c2de06f4ec"

enum { PAYLOAD_NO_MUXERS = 104 }; /* ours without its last field: what rust sends */

static struct noise_ident ident_a, ident_k;

static void start(struct noise *i, struct noise *r)
{
    struct identity a, k = identity_k();
    uint8_t seed[32], s_i[32], s_r[32], e_i[32], e_r[32];

    crypto_init();
    memset(seed, 0x01, 32);
    memset(e_i, 0x11, 32);
    memset(s_i, 0x22, 32);
    memset(e_r, 0x33, 32);
    memset(s_r, 0x44, 32);
    identity_from_seed(seed, &a);
    noise_ident_init(&ident_a, &a, s_i);
    noise_ident_init(&ident_k, &k, s_r);
    noise_init(i, &ident_a, NOISE_INITIATOR, e_i);
    noise_init(r, &ident_k, NOISE_RESPONDER, e_r);
}

struct msg {
    uint8_t b[NOISE_HANDSHAKE_MAX + 16];
    size_t n;
};

static struct bytes msg_bytes(const struct msg *m)
{
    return bytes_of(m->b, m->n);
}

static enum noise_res write_msg(struct noise *n, struct msg *m)
{
    struct wcur w = wcur_of(m->b, sizeof(m->b));
    enum noise_res res = noise_write(n, &w);

    m->n = w.wrote;
    return res;
}

static struct msg msg_of(const char *wire)
{
    struct hex h = unhex(wire);
    struct msg m = { .n = h.n };

    cr_assert(le(sz, h.n, sizeof(m.b)));
    memcpy(m.b, h.b, h.n);
    return m;
}

static void expect_hex(const void *got, const char *wire)
{
    struct hex want = unhex(wire);

    cr_expect(zero(int, memcmp(got, want.b, want.n)), "want %s", wire);
}

/* Both sides up to message 3, which the caller makes. */
static void start_at_3(struct noise *i, struct noise *r)
{
    struct noise_remote remote;
    struct msg m;

    start(i, r);
    cr_assert(eq(int, write_msg(i, &m), NOISE_READ));
    cr_assert(eq(int, noise_read(r, msg_bytes(&m), NULL), NOISE_WRITE));
    cr_assert(eq(int, write_msg(r, &m), NOISE_READ));
    cr_assert(eq(int, noise_read(i, msg_bytes(&m), &remote), NOISE_WRITE));
}

/* ---- vectors ------------------------------------------------------------------------------- */

Test(noise, reproduces_the_transcript_as_initiator) /* check 16 */
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg m;

    start(&i, &r);
    expect_hex(i.h, "f3d15e6108ed9556171207baa58f97d29a13c6be40595166066e2e0958dc002d");
    expect_hex(ident_a.pk, "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20");
    cr_assert(eq(int, write_msg(&i, &m), NOISE_READ));
    cr_assert(eq(sz, m.n, 32));
    expect_hex(m.b, MSG1);
    m = msg_of(MSG2);
    cr_assert(eq(sz, m.n, 0xd8));
    cr_assert(eq(int, noise_read(&i, msg_bytes(&m), &remote), NOISE_WRITE));
    struct peer_id k = id_of(K_ID);
    cr_assert(peer_id_eq(&remote.id, &k));
    cr_assert(eq(int, remote.key_type, KEY_ED25519));
    cr_assert(remote.muxers_present && remote.muxer_yamux);
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(sz, m.n, 0xb8));
    expect_hex(m.b, MSG3);
    expect_hex(i.h, "6a2a16aa9e2bcbd1c8bb62f82759e99e354e3c4020bb20858c3b2432fd73fb4f");
}

Test(noise, reproduces_the_transcript_as_responder) /* check 16 */
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg m = msg_of(MSG1);

    start(&i, &r);
    cr_assert(eq(sz, ident_k.payload_n, 120));
    expect_hex(ident_k.payload, PAYLOAD2);
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_WRITE));
    cr_assert(eq(int, write_msg(&r, &m), NOISE_READ));
    cr_assert(eq(sz, m.n, 0xd8));
    expect_hex(m.b, MSG2);
    m = msg_of(MSG3);
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_DONE));
    struct peer_id a = id_of(A_ID);
    cr_assert(peer_id_eq(&remote.id, &a));
    cr_assert(remote.muxers_present && remote.muxer_yamux);
    expect_hex(r.h, "6a2a16aa9e2bcbd1c8bb62f82759e99e354e3c4020bb20858c3b2432fd73fb4f");
}

Test(noise_split, gives_both_sides_the_published_keys_and_frames)
{
    static const uint8_t ping[12] = { 0, 2, 0, 1 };
    struct noise i, r;
    struct noise_remote remote;
    struct aead_key i_tx, i_rx, r_tx, r_rx;
    struct aead *a = aead_new();
    uint8_t out[64];
    struct msg m;

    start_at_3(&i, &r);
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_DONE));
    noise_split(&i, &i_tx, &i_rx);
    noise_split(&r, &r_tx, &r_rx);
    expect_hex(i_tx.key, "530c3f6f9316268d31d426e3ead445b1a0d92fd664e2cd0d220bcb0e7ac62a80");
    expect_hex(i_rx.key, "fff2cd9dff44357d67d942ed1df3c04ba58108d53009471d81b084e49e9ebaf2");
    cr_assert(zero(int, memcmp(&i_tx, &r_rx, sizeof(i_tx))));
    cr_assert(zero(int, memcmp(&i_rx, &r_tx, sizeof(i_tx))));
    cr_assert(zero(u64, i_tx.counter));
    for (size_t k = 0; k < sizeof(i); k++) /* nothing of the handshake is left */
        cr_assert(zero(u8, ((const uint8_t *)&i)[k]));

    struct hex mss = unhex("132f6d756c746973747265616d2f312e302e300a");
    struct bytes part = hex_bytes(&mss);
    aead_seal(a, &i_tx, &part, 1, out);
    expect_hex(out, MSS_FRAME);
    part = bytes_of(ping, sizeof(ping));
    aead_seal(a, &r_tx, &part, 1, out);
    expect_hex(out, PING_FRAME);
    part = bytes_of(out, 28);
    cr_assert(aead_open(a, &i_rx, &part, 1, out + 32));
    cr_assert(zero(int, memcmp(out + 32, ping, sizeof(ping))));
    aead_free(a);
}

/* ---- what a peer may and may not do ------------------------------------------------------------
 */

Test(noise_read, tells_whether_the_remote_listed_muxers) /* check 21 */
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg m;

    start_at_3(&i, &r);
    ident_a.payload_n = PAYLOAD_NO_MUXERS;
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(sz, m.n, 0xa8)); /* libp2p.md §22.1 */
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_DONE));
    cr_assert(not(remote.muxers_present));
    cr_assert(not(remote.muxer_yamux));
}

Test(noise_read, tolerates_a_payload_in_message_1) /* check 18 */
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg m;
    uint8_t h[32];

    start(&i, &r);
    memcpy(h, i.h, 32); /* the sender hashes what it sends instead of nothing */
    cr_assert(eq(int, write_msg(&i, &m), NOISE_READ));
    memcpy(m.b + 32, "early", 5);
    crypto_sha256_2(bytes_of(h, 32), bytes_of(m.b, 32), h);
    crypto_sha256_2(bytes_of(h, 32), bytes_of(m.b + 32, 5), i.h);
    cr_assert(eq(int, noise_read(&r, bytes_of(m.b, 37), &remote), NOISE_WRITE));
    cr_assert(eq(int, write_msg(&r, &m), NOISE_READ));
    cr_assert(eq(int, noise_read(&i, msg_bytes(&m), &remote), NOISE_WRITE));
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_DONE));
}

Test(noise_read, rejects_every_truncation_and_stays_failed)
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg m1 = msg_of(MSG1), m2 = msg_of(MSG2), m3 = msg_of(MSG3), out;

    for (size_t n = 0; n < m1.n; n++) {
        start(&i, &r);
        cr_expect(eq(int, noise_read(&r, bytes_of(m1.b, n), &remote), NOISE_FAILED), "%zu", n);
        cr_expect(eq(int, noise_read(&r, msg_bytes(&m1), &remote), NOISE_FAILED));
        cr_expect(eq(int, write_msg(&r, &out), NOISE_FAILED));
    }
    for (size_t n = 0; n < m2.n; n++) {
        start(&i, &r);
        cr_assert(eq(int, write_msg(&i, &out), NOISE_READ));
        cr_expect(eq(int, noise_read(&i, bytes_of(m2.b, n), &remote), NOISE_FAILED), "%zu", n);
    }
    for (size_t n = 0; n < m3.n; n++) {
        start_at_3(&i, &r);
        cr_expect(eq(int, noise_read(&r, bytes_of(m3.b, n), &remote), NOISE_FAILED), "%zu", n);
    }
}

Test(noise_read, rejects_every_flipped_byte) /* check 20 */
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg out;

    for (size_t n = 0; n < 0xd8; n++) {
        struct msg m2 = msg_of(MSG2);

        start(&i, &r);
        cr_assert(eq(int, write_msg(&i, &out), NOISE_READ));
        m2.b[n] ^= 0x10;
        cr_expect(eq(int, noise_read(&i, msg_bytes(&m2), &remote), NOISE_FAILED), "%zu", n);
    }
    for (size_t n = 0; n < 0xb8; n++) {
        struct msg m3 = msg_of(MSG3);

        start_at_3(&i, &r);
        m3.b[n] ^= 0x10;
        cr_expect(eq(int, noise_read(&r, msg_bytes(&m3), &remote), NOISE_FAILED), "%zu", n);
    }
}

Test(noise_read, refuses_points_that_make_the_secret_zero)
{
    static const uint8_t one[32] = { 1 };
    static const uint8_t zero_point[32] = { 0 };
    struct noise i, r;
    struct noise_remote remote;
    struct msg m;

    for (int k = 0; k < 2; k++) {
        start(&i, &r);
        cr_assert(
            eq(int, noise_read(&r, bytes_of(k ? one : zero_point, 32), &remote), NOISE_WRITE));
        cr_assert(eq(int, write_msg(&r, &m), NOISE_FAILED));
    }
}

Test(noise_read, refuses_an_identity_that_did_not_sign_this_static_key) /* check 17 */
{
    struct noise i, r;
    struct noise_remote remote;
    struct msg m;

    start_at_3(&i, &r); /* a wrong signature */
    ident_a.payload[45] ^= 1;
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_FAILED));

    start_at_3(&i, &r); /* somebody else's payload, genuine but over another key */
    memcpy(ident_a.payload, ident_k.payload, sizeof(ident_a.payload));
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_FAILED));

    start_at_3(&i, &r); /* nothing at all */
    ident_a.payload_n = 0;
    cr_assert(eq(int, write_msg(&i, &m), NOISE_DONE));
    cr_assert(eq(int, noise_read(&r, msg_bytes(&m), &remote), NOISE_FAILED));
}

Test(noise_write, fails_when_the_message_does_not_fit)
{
    struct noise i, r;
    struct msg m;

    for (size_t room = 0; room < 0xb8; room++) {
        struct wcur w = wcur_of(m.b, room);

        start_at_3(&i, &r);
        cr_assert(eq(int, noise_write(&i, &w), NOISE_FAILED), "%zu bytes sufficed", room);
    }
    for (size_t room = 0; room < 0xd8; room++) {
        struct msg m1 = msg_of(MSG1);
        struct wcur w = wcur_of(m.b, room);

        start(&i, &r);
        cr_assert(eq(int, noise_read(&r, msg_bytes(&m1), NULL), NOISE_WRITE));
        cr_assert(eq(int, noise_write(&r, &w), NOISE_FAILED), "%zu bytes sufficed", room);
    }
}

/* ---- payloads of other hands
 * --------------------------------------------------------------------- */

/* Message 3 with any payload, written out by hand: ours never exceed NOISE_PAYLOAD_MAX. */
static void seal_3(struct noise *n, struct bytes payload, struct msg *m)
{
    uint8_t dh[32], ck[32];

    crypto_chapoly_seal(n->k, n->n, bytes_of(n->h, 32), bytes_of(n->ident->pk, 32), m->b);
    crypto_sha256_2(bytes_of(n->h, 32), bytes_of(m->b, 48), n->h);
    cr_assert(crypto_x25519(n->ident->sk, n->re, dh));
    memcpy(ck, n->ck, 32);
    crypto_hkdf2(ck, bytes_of(dh, 32), n->ck, n->k);
    m->n = 48 + payload.n + AEAD_TAG;
    cr_assert(le(sz, m->n, sizeof(m->b)));
    crypto_chapoly_seal(n->k, 0, bytes_of(n->h, 32), payload, m->b + 48);
}

static enum noise_res read_payload(struct bytes payload, struct noise_remote *remote)
{
    struct noise i, r;
    struct msg m;

    start_at_3(&i, &r);
    seal_3(&i, payload, &m);
    return noise_read(&r, msg_bytes(&m), remote);
}

Test(noise_read, accepts_every_key_type_and_refuses_small_rsa) /* check 3 */
{
    static const struct {
        const char *name;
        enum key_type type;
        size_t id_n;
    } keys[] = { { "rsa2048", KEY_RSA, 34 },
                 { "rsa8192", KEY_RSA, 34 },
                 { "secp256k1", KEY_SECP256K1, 39 },
                 { "ecdsa", KEY_ECDSA, 34 } };
    FILE *f = fopen(TEST_DIR "/vectors/noise_payloads.txt", "r");
    static char line[8192], name[32], wire[8192];
    size_t seen = 0;

    cr_assert(ne(ptr, f, NULL));
    while (fgets(line, sizeof(line), f)) {
        struct noise_remote remote = { 0 };

        if (line[0] == '#' || sscanf(line, "%31s %8191s", name, wire) != 2)
            continue;
        struct hex h = unhex(wire);
        enum noise_res res = read_payload(hex_bytes(&h), &remote);

        if (!strcmp(name, "rsa1024"))
            cr_expect(eq(int, res, NOISE_FAILED));
        for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
            if (strcmp(name, keys[k].name))
                continue;
            cr_expect(eq(int, res, NOISE_DONE), "%s", name);
            cr_expect(eq(int, remote.key_type, keys[k].type));
            cr_expect(eq(sz, remote.id.n, keys[k].id_n));
            h.b[h.n - 1] ^= 1;
            cr_expect(eq(int, read_payload(hex_bytes(&h), &remote), NOISE_FAILED), "%s", name);
        }
        seen++;
    }
    fclose(f);
    cr_assert(eq(sz, seen, 5));
}

static enum noise_res with_tail(const char *tail, struct noise_remote *remote)
{
    struct noise i, r;
    struct hex h = unhex(tail);
    uint8_t payload[512];

    start(&i, &r); /* for ident_a's payload */
    memcpy(payload, ident_a.payload, PAYLOAD_NO_MUXERS);
    memcpy(payload + PAYLOAD_NO_MUXERS, h.b, h.n);
    return read_payload(bytes_of(payload, PAYLOAD_NO_MUXERS + h.n), remote);
}

Test(noise_read, reads_the_payload_as_protobuf_allows)
{
    static const struct {
        const char *tail;
        enum noise_res res;
        bool present, yamux;
    } rows[] = {
        { "2200", NOISE_DONE, false, false },              /* no extensions in it */
        { "2206 1204 2f616263", NOISE_DONE, true, false }, /* other muxers only */
        { "2206 1204 2f616263 220e 120c 2f79616d75782f312e302e30", NOISE_DONE, true, true },
        { "2214 120c 2f79616d75782f312e302e30 1204 2f616263", NOISE_DONE, true, true },
        { "220f 120d 2f79616d75782f312e302e3078", NOISE_DONE, true, false }, /* a longer name */
        { "2207 0a05 3132333435", NOISE_DONE, false, false }, /* certificate hashes */
        { "1a03 616263", NOISE_DONE, false, false },          /* early data of old drafts */
        { "3005 3900112233445566778d0100000000", NOISE_DONE, false, false }, /* unknown fields */
        { "33 34", NOISE_FAILED, false, false },                             /* a group */
        { "2205 1204 2f616263", NOISE_FAILED, false, false },                /* the list is cut */
        { "22", NOISE_FAILED, false, false },
        { "12ff", NOISE_FAILED, false, false },
        { "0a05 0801120100", NOISE_FAILED, false, false }, /* the last key wins, and is none */
    };

    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        struct noise_remote remote = { 0 };

        cr_expect(eq(int, with_tail(rows[k].tail, &remote), rows[k].res), "%s", rows[k].tail);
        cr_expect(eq(int, remote.muxers_present, rows[k].present), "%s", rows[k].tail);
        cr_expect(eq(int, remote.muxer_yamux, rows[k].yamux), "%s", rows[k].tail);
    }
}

Test(noise_read, bounds_the_handshake_message)
{
    struct noise i, r;
    static uint8_t payload[NOISE_HANDSHAKE_MAX];
    size_t fits = NOISE_HANDSHAKE_MAX - 48 - AEAD_TAG;

    for (size_t over = 0; over < 2; over++) {
        struct noise_remote remote;
        size_t pad = fits + over - PAYLOAD_NO_MUXERS - 3;

        start(&i, &r);
        memset(payload, 'x', sizeof(payload));
        memcpy(payload, ident_a.payload, PAYLOAD_NO_MUXERS);
        payload[PAYLOAD_NO_MUXERS] = 0x1a; /* an unknown field fills it */
        payload[PAYLOAD_NO_MUXERS + 1] = (uint8_t)(0x80 | (pad & 0x7f));
        payload[PAYLOAD_NO_MUXERS + 2] = (uint8_t)(pad >> 7);
        cr_assert(eq(int, read_payload(bytes_of(payload, fits + over), &remote),
                     over ? NOISE_FAILED : NOISE_DONE));
    }
}
