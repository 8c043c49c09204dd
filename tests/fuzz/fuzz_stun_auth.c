/* Credentials: a request of any attributes, with what an honest client adds as the first bytes
 * choose. Who is let in has signed, with the right key, under our nonce. */
#include "tests/fuzz/fuzz.h"

#include "proto/crypto.h"
#include "proto/stun_auth.h"

enum {
    ADD_NAME = 1,
    ADD_REALM = 2,
    ADD_NONCE = 4,
    ADD_LIST = 8,
    ADD_CHOICE = 16,
    SIGN_SHA1 = 32,
    SIGN_SHA256 = 64,
    SIGN_EPHEMERAL = 128,
};
enum { NOW = 1000000, MESSAGE_MAX = 2048 };

static const struct stun_nonce_keys keys = { .current = { 1 },
                                             .previous = { 2 },
                                             .has_previous = true };
static const struct netaddr src = { .ip = { [10] = 0xff, [11] = 0xff, [12] = 192, [15] = 1 },
                                    .port = 7 };
static const struct bytes secret[] = { { (const uint8_t *)"north", 5 } };

static struct stun_realm realm_of(uint8_t how)
{
    return (struct stun_realm){ bytes_str("realm"), &keys, 600000, (how & 1) != 0, (how & 2) != 0 };
}

static void put_honest(struct stun_build *b, uint8_t add, const struct stun_realm *r,
                       struct bytes name)
{
    uint8_t nonce[STUN_NONCE_MAX];
    uint32_t features = (r->algorithms ? STUN_FEATURE_ALGORITHMS : 0u) |
                        (r->anonymity ? STUN_FEATURE_ANONYMITY : 0u);

    if (add & ADD_NAME)
        stun_put(b, STUN_USERNAME, name);
    if (add & ADD_REALM)
        stun_put(b, STUN_REALM, r->name);
    if (add & ADD_NONCE)
        stun_put(b, STUN_NONCE,
                 bytes_of(nonce, stun_nonce_make(&keys, features, NOW, &src, nonce)));
    if (add & ADD_LIST)
        stun_put(b, STUN_PASSWORD_ALGORITHMS, bytes_of(stun_algorithms, sizeof(stun_algorithms)));
    if (add & ADD_CHOICE)
        stun_put_u16(b, STUN_PASSWORD_ALGORITHM, STUN_ALG_SHA256);
}

static struct stun_key key_of(uint8_t add, enum stun_alg alg, struct bytes name)
{
    uint8_t password[STUN_PASSWORD_MAX] = "pass";
    size_t n = 4;
    struct stun_key k;

    if (add & SIGN_EPHEMERAL)
        n = stun_ephemeral_password(STUN_MAC_SHA1, secret[0], name, password);
    stun_key_make(alg, name, bytes_str("realm"), bytes_of(password, n), &k);
    return k;
}

static void check_name(struct bytes name)
{
    const struct stun_secrets s = { secret, 1, ':', name.n % 2 == 0, true, 0 };
    struct stun_ephemeral e;

    if (!stun_ephemeral_read(&s, name, &e))
        return;
    CHECK(e.id.n < name.n && e.expires_unix_s <= INT64_MAX);
    CHECK(stun_ephemeral_alive(&s, &e, e.expires_unix_s));
    CHECK(!stun_ephemeral_alive(&s, &e, e.expires_unix_s + 1));
}

/* Preparing twice is preparing once, and nothing grows. */
static void check_prepared(struct bytes text)
{
    uint8_t once[256], twice[256];
    struct wcur a = wcur_of(once, sizeof(once)), b = wcur_of(twice, sizeof(twice));

    if (!stun_opaque(text, &a))
        return;
    CHECK(a.wrote <= text.n && a.wrote > 0);
    CHECK(stun_opaque(bytes_of(once, a.wrote), &b));
    CHECK(bytes_eq(bytes_of(once, a.wrote), bytes_of(twice, b.wrote)));
}

/* Our own challenge is one that our own client may answer. */
static void check_challenge(const struct stun_realm *r, uint8_t port)
{
    uint8_t buf[128], id[STUN_ID] = { 0x21, 0x12, 0xa4, 0x42 };
    struct netaddr from = src;
    struct stun_build b;
    struct stun_msg m;
    struct bytes out;

    from.port = port;
    stun_begin(&b, buf, sizeof(buf), stun_type(STUN_ALLOCATE, STUN_ERROR), id);
    stun_put_error(&b, 401, bytes_of(NULL, 0));
    stun_put_challenge(&b, r, NOW, &from);
    CHECK(stun_end(&b, &out) && out.n <= 100);
    CHECK(stun_decode(out, 0, &m) == STUN_OK);
    CHECK(bytes_eq(stun_value(&m, STUN_REALM), r->name));
    CHECK(stun_has(&m, STUN_PASSWORD_ALGORITHMS) == r->algorithms);
    CHECK(stun_value(&m, STUN_NONCE).n == (r->algorithms || r->anonymity ? STUN_NONCE_MAX : 20));
}

static void check_request(uint8_t add, uint8_t how, struct bytes name, struct bytes body)
{
    static uint8_t buf[MESSAGE_MAX];
    const struct stun_secrets s = { secret, 1, ':', false, true, 0 };
    struct stun_realm r = realm_of(how);
    enum stun_alg alg = r.algorithms && add & ADD_CHOICE ? STUN_ALG_SHA256 : STUN_ALG_MD5;
    struct stun_key key = key_of(add, alg, name), got = { .n = 0 };
    bool by_us = (add & (SIGN_SHA1 | SIGN_SHA256)) != 0;
    uint8_t id[STUN_ID] = { 0x21, 0x12, 0xa4, 0x42 };
    struct stun_build b;
    struct stun_auth a;
    struct stun_msg m;
    struct bytes out;

    stun_begin(&b, buf, sizeof(buf), stun_type(STUN_ALLOCATE, STUN_REQUEST), id);
    wcur_put(&b.w, bytes_of(body.p, body.n & ~(size_t)3));
    put_honest(&b, add, &r, name);
    if (add & SIGN_SHA1)
        stun_put_integrity(&b, STUN_MAC_SHA1, stun_key_bytes(&key), 0);
    if (add & SIGN_SHA256)
        stun_put_integrity(&b, STUN_MAC_SHA256, stun_key_bytes(&key), STUN_SHA256_TAG);
    if (!stun_end(&b, &out) || stun_decode(out, 0, &m) != STUN_OK)
        return;
    unsigned code = stun_auth_begin(&r, &m, NOW, &src, &a);

    CHECK(code == 0 || code == 400 || code == 401 || code == 438);
    CHECK((code == 401) == (stun_mac_of(&m) == STUN_MAC_NONE));
    if (code)
        return;
    CHECK(a.username.n <= STUN_USERNAME_MAX && (a.userhash.n == 0 || a.userhash.n == 32));
    CHECK(a.username.n == 0 || a.userhash.n == 0);
    CHECK(stun_auth_verify(&m, &a, NULL) == 401);
    bool let_in = stun_auth_verify(&m, &a, &key) == 0;

    CHECK(by_us || !let_in); /* nobody else has the key */
    if (body.n < 4 && by_us && (add & 7) == 7)
        CHECK(let_in && bytes_eq(a.username, name));
    unsigned eph = stun_ephemeral_verify(&s, &r, &m, &a, &got);

    CHECK(eph == 0 || eph == 401);
    CHECK((eph == 0) == (got.n != 0));
    if (eph == 0)
        CHECK(add & SIGN_EPHEMERAL && bytes_eq(stun_key_bytes(&got), stun_key_bytes(&key)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t add = fuzz_u8(&c), how = fuzz_u8(&c);
    struct bytes name = fuzz_bytes(&c), body = fuzz_rest(&c);

    crypto_init();
    check_name(name);
    check_prepared(name);
    /* Without the key nobody guesses a nonce; with it, none is made by chance either. */
    CHECK(!stun_nonce_ok(&keys, how & 1 ? STUN_FEATURE_ALGORITHMS : 0, NOW, 600000, &src, name));
    struct stun_realm r = realm_of(how);

    check_challenge(&r, add);
    check_request(add, how, name, body);
    return 0;
}
