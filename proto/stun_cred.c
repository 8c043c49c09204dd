/* Ephemeral credentials: the username says until when, the password proves that a holder of the
 * secret said so (draft-uberti-behave-turn-rest-00; turn.md §8.3). */
#include "proto/stun_auth.h"

#include "proto/baseenc.h"
#include "proto/crypto.h"

static bool timestamp(struct bytes text, uint64_t *out)
{
    return netaddr_parse_decimal(text, INT64_MAX, out);
}

bool stun_ephemeral_read(const struct stun_secrets *s, struct bytes username,
                         struct stun_ephemeral *out)
{
    struct stun_ephemeral e = { .id = bytes_of(NULL, 0) };
    size_t first = 0, last = username.n;

    while (first < username.n && username.p[first] != s->separator)
        first++;
    if (timestamp(bytes_of(username.p, first), &e.expires_unix_s)) {
        if (first < username.n) /* the id may hold separators of its own */
            e.id = bytes_of(username.p + first + 1, username.n - first - 1);
        *out = e;
        return true;
    }
    while (last > 0 && username.p[last - 1] != s->separator)
        last--;
    if (!s->id_first || last == 0 ||
        !timestamp(bytes_of(username.p + last, username.n - last), &e.expires_unix_s))
        return false;
    e.id = bytes_of(username.p, last - 1);
    *out = e;
    return true;
}

bool stun_ephemeral_alive(const struct stun_secrets *s, const struct stun_ephemeral *e,
                          uint64_t now_unix_s)
{
    if (now_unix_s > e->expires_unix_s)
        return false;
    return s->ahead_max_s == 0 || e->expires_unix_s - now_unix_s <= s->ahead_max_s;
}

size_t stun_ephemeral_password(enum stun_mac mac, struct bytes secret, struct bytes username,
                               uint8_t out[STUN_PASSWORD_MAX])
{
    uint8_t tag[STUN_SHA256_TAG];
    size_t n = mac == STUN_MAC_SHA1 ? STUN_SHA1_TAG : STUN_SHA256_TAG;
    struct wcur w = wcur_of(out, STUN_PASSWORD_MAX);

    if (mac == STUN_MAC_SHA1)
        crypto_hmac_sha1_n(secret, &username, 1, tag);
    else
        crypto_hmac_sha256_n(secret, &username, 1, tag);
    base64_encode(&w, bytes_of(tag, n));
    crypto_wipe(tag, sizeof(tag));
    ASSERT(!w.bad);
    return w.wrote;
}

static unsigned try_one(enum stun_mac mac, struct bytes secret, const struct stun_realm *r,
                        const struct stun_msg *m, const struct stun_auth *a, struct stun_key *key)
{
    uint8_t password[STUN_PASSWORD_MAX];
    size_t n = stun_ephemeral_password(mac, secret, a->username, password);

    stun_key_make(a->alg, a->username, r->name, bytes_of(password, n), key);
    crypto_wipe(password, sizeof(password));
    return stun_auth_verify(m, a, key);
}

unsigned stun_ephemeral_verify(const struct stun_secrets *s, const struct stun_realm *r,
                               const struct stun_msg *m, const struct stun_auth *a,
                               struct stun_key *key)
{
    struct stun_key k;
    unsigned refused = 401;

    ASSERT(s->count <= STUN_SECRETS_MAX);
    if (a->userhash.n || s->count == 0) /* a hash does not say which secret, nor until when */
        return stun_auth_verify(m, a, NULL);
    for (size_t i = 0; refused && i < s->count; i++) {
        refused = try_one(STUN_MAC_SHA1, s->secret[i], r, m, a, &k);
        if (refused && s->sha256)
            refused = try_one(STUN_MAC_SHA256, s->secret[i], r, m, a, &k);
    }
    if (!refused)
        *key = k;
    crypto_wipe(&k, sizeof(k));
    return refused;
}
