#include "proto/stun_auth.h"

#include "proto/baseenc.h"
#include "proto/crypto.h"

enum { TIME_BYTES = 5, TAG_BYTES = 10, COOKIE_CHARS = 9, FEATURE_CHARS = 4, STAMP_CHARS = 20 };
static_assert(COOKIE_CHARS + FEATURE_CHARS + STAMP_CHARS == STUN_NONCE_MAX, "the longer nonce");
static_assert((TIME_BYTES + TAG_BYTES) * 4 == STAMP_CHARS * 3, "base64 without slack");

static const char cookie[] = "obMatJos2"; /* RFC 8489 §9.2 */
static const struct bytes colon = { (const uint8_t *)":", 1 };

/* SHA-256 first: clients take the first that they know (§9.2.1). */
const uint8_t stun_algorithms[8] = { 0, STUN_ALG_SHA256, 0, 0, 0, STUN_ALG_MD5, 0, 0 };

void stun_key_make(enum stun_alg alg, struct bytes username, struct bytes realm,
                   struct bytes password, struct stun_key *out)
{
    const struct bytes parts[] = { username, colon, realm, colon, password };

    *out = (struct stun_key){ .n = alg == STUN_ALG_MD5 ? 16 : 32 };
    if (alg == STUN_ALG_MD5)
        crypto_md5_n(parts, ARRAY_LEN(parts), out->b);
    else
        crypto_sha256_n(parts, ARRAY_LEN(parts), out->b);
}

void stun_userhash(struct bytes username, struct bytes realm, uint8_t out[STUN_USERHASH_BYTES])
{
    const struct bytes parts[] = { username, colon, realm };

    crypto_sha256_n(parts, ARRAY_LEN(parts), out);
}

/* ---- the nonce ----------------------------------------------------------------------------- */

static void nonce_tag(const uint8_t key[32], const uint8_t time[TIME_BYTES],
                      const struct netaddr *src, uint8_t out[TAG_BYTES])
{
    const uint8_t port[2] = { (uint8_t)(src->port >> 8), (uint8_t)src->port };
    const struct bytes parts[] = { bytes_str("sluice stun nonce"), bytes_of(time, TIME_BYTES),
                                   bytes_of(src->ip, sizeof(src->ip)),
                                   bytes_of(port, sizeof(port)) };
    uint8_t full[32];

    crypto_hmac_sha256_n(bytes_of(key, 32), parts, ARRAY_LEN(parts), full);
    memcpy(out, full, TAG_BYTES);
    crypto_wipe(full, sizeof(full));
}

size_t stun_nonce_make(const struct stun_nonce_keys *keys, uint32_t features, uint64_t now_ms,
                       const struct netaddr *src, uint8_t out[STUN_NONCE_MAX])
{
    uint8_t stamp[TIME_BYTES + TAG_BYTES];
    struct wcur w = wcur_of(out, STUN_NONCE_MAX);

    if (features) {
        const uint8_t bits[3] = { (uint8_t)(features >> 16), (uint8_t)(features >> 8),
                                  (uint8_t)features };

        wcur_put(&w, bytes_str(cookie));
        base64url_encode(&w, bytes_of(bits, sizeof(bits)));
    }
    for (int i = 0; i < TIME_BYTES; i++)
        stamp[i] = (uint8_t)(now_ms >> (8 * (TIME_BYTES - 1 - i)));
    nonce_tag(keys->current, stamp, src, stamp + TIME_BYTES);
    base64url_encode(&w, bytes_of(stamp, sizeof(stamp)));
    ASSERT(!w.bad);
    return w.wrote;
}

bool stun_nonce_ok(const struct stun_nonce_keys *keys, uint32_t features, uint64_t now_ms,
                   uint64_t lifetime_ms, const struct netaddr *src, struct bytes nonce)
{
    uint8_t stamp[TIME_BYTES + TAG_BYTES], bits[3] = { 0 }, want[TAG_BYTES];
    struct wcur ws = wcur_of(stamp, sizeof(stamp)), wb = wcur_of(bits, sizeof(bits));
    struct cur c = cur_of(nonce);
    uint64_t issued = 0, mask = (UINT64_C(1) << (8 * TIME_BYTES)) - 1;

    ASSERT(lifetime_ms <= STUN_NONCE_LIFETIME_MAX_MS);
    if (features) {
        if (!bytes_eq(cur_take(&c, COOKIE_CHARS), bytes_str(cookie)) ||
            !base64url_decode(&wb, cur_take(&c, FEATURE_CHARS)))
            return false;
    }
    if (c.n != STAMP_CHARS || !base64url_decode(&ws, cur_take(&c, STAMP_CHARS)))
        return false;
    /* Other bits than we offer: somebody bids down (§9.2.1). */
    if (((uint32_t)bits[0] << 16 | (uint32_t)bits[1] << 8 | bits[2]) != features)
        return false;
    for (int i = 0; i < TIME_BYTES; i++)
        issued = issued << 8 | stamp[i];
    /* A time to come is a great age, but for what clocks that are read once a turn may differ by.
     */
    if (((now_ms + STUN_NONCE_AHEAD_MS - issued) & mask) > lifetime_ms + STUN_NONCE_AHEAD_MS)
        return false;
    nonce_tag(keys->current, stamp, src, want);
    if (crypto_equal(want, stamp + TIME_BYTES, TAG_BYTES))
        return true;
    if (!keys->has_previous)
        return false;
    nonce_tag(keys->previous, stamp, src, want);
    return crypto_equal(want, stamp + TIME_BYTES, TAG_BYTES);
}

static uint32_t features_of(const struct stun_realm *r)
{
    return (r->algorithms ? STUN_FEATURE_ALGORITHMS : 0u) |
           (r->anonymity ? STUN_FEATURE_ANONYMITY : 0u);
}

void stun_put_challenge(struct stun_build *b, const struct stun_realm *r, uint64_t now_ms,
                        const struct netaddr *src)
{
    uint8_t nonce[STUN_NONCE_MAX];
    size_t n = stun_nonce_make(r->nonce, features_of(r), now_ms, src, nonce);

    stun_put(b, STUN_REALM, r->name);
    stun_put(b, STUN_NONCE, bytes_of(nonce, n));
    if (r->algorithms)
        stun_put(b, STUN_PASSWORD_ALGORITHMS, bytes_of(stun_algorithms, sizeof(stun_algorithms)));
}

/* ---- a request ----------------------------------------------------------------------------- */

/* Both or neither (§9.2.4); the list must be the one that we sent, and the choice one of it. What
 * is absent or broken reads as nothing, which is neither. */
static bool algorithm_chosen(const struct stun_msg *m, struct stun_auth *a)
{
    const uint64_t both = STUN_BIT(STUN_PASSWORD_ALGORITHM) | STUN_BIT(STUN_PASSWORD_ALGORITHMS);

    if (((m->have | m->broken) & both) == 0) /* an old client */
        return true;
    if (!bytes_eq(stun_value(m, STUN_PASSWORD_ALGORITHMS),
                  bytes_of(stun_algorithms, sizeof(stun_algorithms))))
        return false;
    uint16_t alg = stun_u16(m, STUN_PASSWORD_ALGORITHM);

    if ((alg != STUN_ALG_MD5 && alg != STUN_ALG_SHA256) ||
        stun_value(m, STUN_PASSWORD_ALGORITHM).n != 4) /* neither has parameters */
        return false;
    a->alg = (enum stun_alg)alg;
    /* In kind: §9.2.4 would have SHA-256 always, but a client that chooses MD5 and signs by SHA-1
     * (turn-client-proto's default) reads no other answer; the others sign by SHA-256. */
    a->reply_mac = a->mac;
    return true;
}

unsigned stun_auth_begin(const struct stun_realm *r, const struct stun_msg *m, uint64_t now_ms,
                         const struct netaddr *src, struct stun_auth *a)
{
    *a = (struct stun_auth){ .mac = stun_mac_of(m),
                             .reply_mac = STUN_MAC_SHA1,
                             .alg = STUN_ALG_MD5 };
    if (a->mac == STUN_MAC_NONE)
        return 401;
    if (!stun_has(m, STUN_REALM) || !stun_has(m, STUN_NONCE) ||
        (m->broken & (STUN_BIT(STUN_USERNAME) | STUN_BIT(STUN_USERHASH))) ||
        (!stun_has(m, STUN_USERNAME) && !stun_has(m, STUN_USERHASH)))
        return 400;
    if (r->algorithms && !algorithm_chosen(m, a))
        return 400;
    a->username = stun_value(m, STUN_USERNAME);
    if (!stun_has(m, STUN_USERNAME)) /* a client sends one of them (§9.2.3); a name is plainer */
        a->userhash = stun_value(m, STUN_USERHASH);
    a->realm_ok = bytes_eq(stun_value(m, STUN_REALM), r->name);
    if (!stun_nonce_ok(r->nonce, features_of(r), now_ms, r->nonce_ms, src,
                       stun_value(m, STUN_NONCE)))
        return 438;
    return 0;
}

unsigned stun_auth_verify(const struct stun_msg *m, const struct stun_auth *a,
                          const struct stun_key *key)
{
    static const struct stun_key nobody = { .n = 32 };
    bool known = key && key->n;
    bool fits =
        stun_integrity_ok(m, a->mac, stun_key_bytes(known ? key : &nobody), STUN_SHA256_TAG);

    /* All three after the work: unknown user, other realm, wrong password answer alike. */
    return known && fits && a->realm_ok ? 0 : 401;
}
