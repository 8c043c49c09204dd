#include "proto/noise.h"

#include "proto/pb/noise.pb.h"
#include "proto/wire.h"

/* libp2p specs: noise. Exactly 32 bytes, so it is the first h and ck without hashing. */
static const char protocol_name[] = "Noise_XX_25519_ChaChaPoly_SHA256";
static_assert(sizeof(protocol_name) - 1 == 32, "h = ck = name (Noise §5.2)");

static const char static_key_prefix[] = "noise-libp2p-static-key:";
static const char yamux_name[] = "/yamux/1.0.0";

enum {
    SIGNED_BYTES = sizeof(static_key_prefix) - 1 + 32,
    STEP_FAILED = 0xff,
};
static_assert(sizeof(yamux_name) <= NOISE_MUXER_MAX, "our own name is an ordinary one");

/* ---- the payload: who holds the static key ------------------------------------------------- */

static struct bytes signed_bytes(const uint8_t static_pk[32], uint8_t out[SIGNED_BYTES])
{
    memcpy(out, static_key_prefix, SIGNED_BYTES - 32);
    memcpy(out + SIGNED_BYTES - 32, static_pk, 32);
    return bytes_of(out, SIGNED_BYTES);
}

void noise_ident_init(struct noise_ident *ni, const struct identity *me,
                      const uint8_t static_sk[32])
{
    static const char *const muxers[] = { yamux_name, NULL };
    uint8_t text[SIGNED_BYTES];
    uint8_t sig[64];
    wire_NoiseHandshakePayload pb = { 0 };
    struct wcur w = wcur_of(ni->payload, sizeof(ni->payload));

    memcpy(ni->sk, static_sk, 32);
    crypto_x25519_public(static_sk, ni->pk);
    crypto_ed25519_sign(me->sk, signed_bytes(ni->pk, text), sig);
    pb.identity_key = bytes_of(me->key_pb, sizeof(me->key_pb));
    pb.identity_sig = bytes_of(sig, sizeof(sig));
    pb.has_extensions = true; /* js throws at a list without overlap: always yamux (libp2p.md §4) */
    pb.extensions.stream_muxers.names = muxers;
    wire_put(&w, wire_NoiseHandshakePayload_fields, &pb);
    ASSERT(!w.bad);
    ni->payload_n = w.wrote;
}

static bool on_muxer(void *arg, struct bytes name)
{
    struct noise_remote *r = arg;

    r->muxers_present = true;
    r->muxer_yamux = r->muxer_yamux || bytes_eq(name, bytes_str(yamux_name));
    return true;
}

/* The signature must be over this handshake's static key: else it is somebody else's, replayed. */
static bool verify_payload(struct bytes payload, const uint8_t rs[32], struct noise_remote *remote)
{
    struct noise_remote found = { 0 };
    uint8_t text[SIGNED_BYTES];
    struct pubkey key;
    wire_NoiseHandshakePayload pb = { 0 };

    pb.extensions.stream_muxers.each = on_muxer;
    pb.extensions.stream_muxers.arg = &found;
    if (!wire_decode(payload, wire_NoiseHandshakePayload_fields, &pb) ||
        pb.identity_key.n > KEY_PB_MAX || !pubkey_decode(pb.identity_key, &key) ||
        !pubkey_verify(&key, signed_bytes(rs, text), pb.identity_sig))
        return false;
    found.key_type = key.type;
    peer_id_of_key(key.pb, &found.id);
    *remote = found;
    return true;
}

/* ---- symmetric state (Noise §5.2) ----------------------------------------------------------- */

static void mix_hash(struct noise *n, struct bytes data)
{
    uint8_t h[32];

    crypto_sha256_2(bytes_of(n->h, 32), data, h);
    memcpy(n->h, h, 32);
}

static bool mix_key(struct noise *n, const uint8_t sk[32], const uint8_t pk[32])
{
    uint8_t dh[32], ck[32];
    bool ok = crypto_x25519(sk, pk, dh); /* all-zero results are refused: libp2p.md §4 */

    if (ok) {
        crypto_hkdf2(n->ck, bytes_of(dh, 32), ck, n->k);
        memcpy(n->ck, ck, 32);
        n->has_key = true;
        n->n = 0;
    }
    crypto_wipe(dh, sizeof(dh));
    crypto_wipe(ck, sizeof(ck));
    return ok;
}

static void encrypt_and_hash(struct noise *n, struct bytes plain, struct wcur *w)
{
    uint8_t *at = wcur_room(w, n->has_key ? plain.n + AEAD_TAG : plain.n);

    if (!at)
        return;
    if (!n->has_key) { /* only message 1, whose payload is empty */
        if (plain.n)
            memcpy(at, plain.p, plain.n);
        mix_hash(n, plain);
        return;
    }
    crypto_chapoly_seal(n->k, n->n++, bytes_of(n->h, 32), plain, at);
    mix_hash(n, bytes_of(at, plain.n + AEAD_TAG));
}

/* `out` has room for the ciphertext's length. Sets c->bad when it is forged or short. */
static struct bytes decrypt_and_hash(struct noise *n, struct cur *c, size_t len, uint8_t *out)
{
    struct bytes cipher = cur_take(c, len);

    if (c->bad || cipher.n < AEAD_TAG ||
        !crypto_chapoly_open(n->k, n->n, bytes_of(n->h, 32), cipher, out)) {
        c->bad = true;
        return bytes_of(out, 0);
    }
    n->n++;
    mix_hash(n, cipher);
    return bytes_of(out, cipher.n - AEAD_TAG);
}

/* ---- handshake (pattern XX) ------------------------------------------------------------------ */

void noise_init(struct noise *n, const struct noise_ident *ident, enum noise_role role,
                const uint8_t ephemeral_sk[32])
{
    *n = (struct noise){ .ident = ident, .role = role };
    memcpy(n->h, protocol_name, 32);
    memcpy(n->ck, protocol_name, 32);
    memcpy(n->e_sk, ephemeral_sk, 32);
    crypto_x25519_public(ephemeral_sk, n->e_pk);
    mix_hash(n, bytes_of("", 0)); /* the empty prologue is hashed all the same */
}

static void read_static(struct noise *n, struct cur *c)
{
    uint8_t rs[32 + AEAD_TAG];

    if (decrypt_and_hash(n, c, sizeof(rs), rs).n == 32)
        memcpy(n->rs, rs, 32);
}

/* The rest of the message is the payload. */
static bool read_payload(struct noise *n, struct cur *c, struct noise_remote *remote)
{
    uint8_t plain[NOISE_HANDSHAKE_MAX];
    struct bytes payload = decrypt_and_hash(n, c, c->n, plain);

    return !c->bad && verify_payload(payload, n->rs, remote);
}

static bool read_ephemeral(struct noise *n, struct cur *c)
{
    struct bytes re = cur_take(c, 32);

    if (c->bad)
        return false;
    memcpy(n->re, re.p, 32);
    mix_hash(n, re);
    return true;
}

static bool read_1(struct noise *n, struct cur *c) /* -> e */
{
    if (!read_ephemeral(n, c))
        return false;
    /* The payload should be empty; one that is not is hashed and ignored (libp2p.md check 18). */
    mix_hash(n, cur_take(c, c->n));
    return true;
}

static bool read_2(struct noise *n, struct cur *c,
                   struct noise_remote *remote) /* <- e, ee, s, es */
{
    if (!read_ephemeral(n, c) || !mix_key(n, n->e_sk, n->re))
        return false;
    read_static(n, c);
    return !c->bad && mix_key(n, n->e_sk, n->rs) && read_payload(n, c, remote);
}

static bool read_3(struct noise *n, struct cur *c, struct noise_remote *remote) /* -> s, se */
{
    read_static(n, c);
    return !c->bad && mix_key(n, n->e_sk, n->rs) && read_payload(n, c, remote);
}

static enum noise_res after(struct noise *n, bool ok)
{
    if (!ok) {
        crypto_wipe(n, sizeof(*n));
        n->step = STEP_FAILED;
        return NOISE_FAILED;
    }
    n->step++;
    if (n->step == 3)
        return NOISE_DONE;
    return (n->step % 2 == 0) == (n->role == NOISE_INITIATOR) ? NOISE_WRITE : NOISE_READ;
}

enum noise_res noise_read(struct noise *n, struct bytes msg, struct noise_remote *remote)
{
    struct cur c = cur_of(msg);
    bool initiator = n->role == NOISE_INITIATOR;

    if (n->step == STEP_FAILED)
        return NOISE_FAILED;
    if (msg.n > NOISE_HANDSHAKE_MAX)
        return after(n, false);
    switch (n->step) {
    case 0:
        ASSERT(!initiator);
        return after(n, read_1(n, &c));
    case 1:
        ASSERT(initiator);
        return after(n, read_2(n, &c, remote));
    case 2:
        ASSERT(!initiator);
        return after(n, read_3(n, &c, remote));
    default:
        ASSERT(n->step < 3); /* the handshake is over: records are the caller's */
        return NOISE_FAILED;
    }
}

static bool write_2(struct noise *n, struct wcur *w)
{
    wcur_put(w, bytes_of(n->e_pk, 32));
    mix_hash(n, bytes_of(n->e_pk, 32));
    if (!mix_key(n, n->e_sk, n->re))
        return false;
    encrypt_and_hash(n, bytes_of(n->ident->pk, 32), w);
    if (!mix_key(n, n->ident->sk, n->re))
        return false;
    encrypt_and_hash(n, bytes_of(n->ident->payload, n->ident->payload_n), w);
    return true;
}

static bool write_3(struct noise *n, struct wcur *w)
{
    encrypt_and_hash(n, bytes_of(n->ident->pk, 32), w);
    if (!mix_key(n, n->ident->sk, n->re))
        return false;
    encrypt_and_hash(n, bytes_of(n->ident->payload, n->ident->payload_n), w);
    return true;
}

enum noise_res noise_write(struct noise *n, struct wcur *w)
{
    bool initiator = n->role == NOISE_INITIATOR;
    bool ok = true;

    switch (n->step) {
    case STEP_FAILED:
        return NOISE_FAILED;
    case 0:
        ASSERT(initiator);
        wcur_put(w, bytes_of(n->e_pk, 32));
        mix_hash(n, bytes_of(n->e_pk, 32));
        encrypt_and_hash(n, bytes_of("", 0), w); /* must be empty: rust refuses others (§4) */
        break;
    case 1:
        ASSERT(!initiator);
        ok = write_2(n, w);
        break;
    case 2:
        ASSERT(initiator);
        ok = write_3(n, w);
        break;
    default:
        ASSERT(n->step < 3);
    }
    return after(n, ok && !w->bad);
}

void noise_split(struct noise *n, struct aead_key *tx, struct aead_key *rx)
{
    bool initiator = n->role == NOISE_INITIATOR;

    ASSERT(n->step == 3);
    *tx = *rx = (struct aead_key){ .counter = 0 };
    /* The first key is the initiator's to send with. */
    crypto_hkdf2(n->ck, bytes_of("", 0), initiator ? tx->key : rx->key,
                 initiator ? rx->key : tx->key);
    crypto_wipe(n, sizeof(*n));
}
