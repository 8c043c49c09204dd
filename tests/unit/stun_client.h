/* tests/unit/stun_client.h: requests as clients of user:realm:pass sign them, and the server's side
 * of it. */
#ifndef SLUICE_TESTS_UNIT_STUN_CLIENT_H
#define SLUICE_TESTS_UNIT_STUN_CLIENT_H

#include "proto/crypto.h"
#include "tests/unit/stun_vec.h"

enum { NOW = 1000000000, LIFETIME = 600000 };

static struct stun_nonce_keys keys;
static struct stun_realm realm;
static struct netaddr src;

static inline void start(void)
{
    crypto_init();
    for (size_t i = 0; i < sizeof(keys.current); i++) {
        keys.current[i] = (uint8_t)(i * 3 + 1);
        keys.previous[i] = (uint8_t)(i * 5 + 2);
    }
    keys.has_previous = false;
    realm = (struct stun_realm){ bytes_str("realm"), &keys, LIFETIME, true, true };
    src = at_addr("192.0.2.1:32853");
}

/* What a client puts into its request: a bit per thing. */
enum {
    USER = 1,
    HASH = 2,
    REALM = 4,
    NONCE = 8,
    LIST = 16,
    CHOICE_MD5 = 32,
    CHOICE_SHA256 = 64,
    OLD = USER | REALM | NONCE,
};

static inline struct stun_key user_key(enum stun_alg alg, const char *password)
{
    struct stun_key k;

    stun_key_make(alg, bytes_str("user"), bytes_str("realm"), bytes_str(password), &k);
    return k;
}

static inline struct making *request(unsigned what)
{
    struct making *k = making(STUN_ALLOCATE, STUN_REQUEST);

    stun_put_u8(&k->b, STUN_REQUESTED_TRANSPORT, 17);
    if (what & USER)
        stun_put(&k->b, STUN_USERNAME, bytes_str("user"));
    if (what & HASH)
        stun_put(&k->b, STUN_USERHASH, hex(USERHASH));
    if (what & REALM)
        stun_put(&k->b, STUN_REALM, bytes_str("realm"));
    if (what & NONCE) {
        uint8_t nonce[STUN_NONCE_MAX];
        uint32_t features = (realm.algorithms ? STUN_FEATURE_ALGORITHMS : 0u) |
                            (realm.anonymity ? STUN_FEATURE_ANONYMITY : 0u);
        size_t n = stun_nonce_make(&keys, features, NOW, &src, nonce);

        stun_put(&k->b, STUN_NONCE, bytes_of(nonce, n));
    }
    if (what & LIST)
        stun_put(&k->b, STUN_PASSWORD_ALGORITHMS,
                 bytes_of(stun_algorithms, sizeof(stun_algorithms)));
    if (what & (CHOICE_MD5 | CHOICE_SHA256))
        stun_put_u16(&k->b, STUN_PASSWORD_ALGORITHM,
                     what & CHOICE_MD5 ? STUN_ALG_MD5 : STUN_ALG_SHA256);
    return k;
}

static inline void sign(struct making *k, enum stun_mac mac, const struct stun_key *key)
{
    stun_put_integrity(&k->b, mac, stun_key_bytes(key), 32);
}

static inline unsigned begin(struct making *k, struct stun_msg *m, struct stun_auth *a)
{
    cr_assert(stun_decode(made(k), 0, m) == STUN_OK);
    return stun_auth_begin(&realm, m, NOW, &src, a);
}

#endif
