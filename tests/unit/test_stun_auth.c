/* Keys, nonces, the order of refusals. */
#include "tests/unit/stun_client.h"

TestSuite(stun_key, .init = start);
TestSuite(stun_nonce, .init = start);
TestSuite(stun_auth, .init = start);

/* ---- keys ---------------------------------------------------------------------------------- */

Test(stun_key, matches_the_published_keys)
{
    struct bytes user = bytes_str("user"), r = bytes_str("realm"), pass = bytes_str("pass");
    uint8_t hash[STUN_USERHASH_BYTES];
    struct stun_key k;

    stun_key_make(STUN_ALG_MD5, user, r, pass, &k);
    cr_expect(is_hex(stun_key_bytes(&k), KEY_MD5));
    stun_key_make(STUN_ALG_SHA256, user, r, pass, &k);
    cr_expect(is_hex(stun_key_bytes(&k), KEY_SHA256));
    stun_userhash(user, r, hash);
    cr_expect(is_hex(bytes_of(hash, sizeof(hash)), USERHASH));
}

/* ---- the nonce ----------------------------------------------------------------------------- */

static struct bytes nonce_at(uint64_t now_ms, const struct netaddr *from)
{
    static uint8_t ring[8][STUN_NONCE_MAX];
    static unsigned at;
    uint8_t *out = ring[at++ % 8];

    return bytes_of(out, stun_nonce_make(&keys, STUN_FEATURE_ALGORITHMS, now_ms, from, out));
}

static bool nonce_ok(uint64_t now_ms, const struct netaddr *from, struct bytes nonce)
{
    return stun_nonce_ok(&keys, STUN_FEATURE_ALGORITHMS, now_ms, LIFETIME, from, nonce);
}

Test(stun_nonce, turn_27_begins_with_the_cookie_and_its_features)
{
    static const struct {
        uint32_t features;
        const char *begin;
        size_t n;
    } all[] = {
        { STUN_FEATURE_ALGORITHMS | STUN_FEATURE_ANONYMITY, "obMatJos2wAAD", 33 },
        { STUN_FEATURE_ALGORITHMS, "obMatJos2gAAB", 33 },
        { 0, "", 20 },
    };
    uint8_t out[STUN_NONCE_MAX];

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        size_t n = stun_nonce_make(&keys, all[i].features, NOW, &src, out);

        cr_expect(eq(sz, n, all[i].n));
        cr_expect(memcmp(out, all[i].begin, strlen(all[i].begin)) == 0);
        for (size_t k = 0; k < ARRAY_LEN(all); k++)
            cr_expect(stun_nonce_ok(&keys, all[k].features, NOW, LIFETIME, &src,
                                    bytes_of(out, n)) == (i == k));
    }
}

Test(stun_nonce, turn_28_cve_2025_69217_no_two_are_alike)
{
    static uint8_t seen[200][STUN_NONCE_MAX];
    static const size_t stamp = 13, tag = stamp + 8; /* the 5 bytes of time end within the 7th */

    for (size_t i = 0; i < 200; i++) {
        struct netaddr from = src;

        from.port = (uint16_t)(1000 + i / 2); /* two moments of a hundred sources */
        memcpy(seen[i], nonce_at(NOW + i % 2, &from).p, STUN_NONCE_MAX);
        for (size_t k = 0; k < i; k++) {
            size_t same = 0;

            for (size_t c = tag; c < STUN_NONCE_MAX; c++)
                same += seen[i][c] == seen[k][c];
            cr_expect(same < 6, "%zu and %zu share %zu characters", i, k, same);
        }
    }
    memset(keys.current, 0, 32); /* another key, another nonce at the same moment */
    cr_expect(memcmp(nonce_at(NOW, &src).p + tag, seen[0] + tag, STUN_NONCE_MAX - tag) != 0);
}

Test(stun_nonce, turn_33_is_bound_to_its_source)
{
    struct bytes nonce = nonce_at(NOW, &src);

    cr_expect(nonce_ok(NOW, &src, nonce));
    for (size_t i = 0; i < 18; i++) {
        struct netaddr other = src;

        if (i < 16)
            other.ip[i] ^= 1;
        else
            other.port ^= (uint16_t)(1 << (i - 16) * 8);
        cr_expect(not(nonce_ok(NOW, &other, nonce)), "%zu", i);
    }
}

Test(stun_nonce, turn_34_ends_with_its_lifetime)
{
    static const uint64_t starts[] = { 0, NOW, 1763631234567, (UINT64_C(1) << 40) - 1 };

    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        uint64_t t = starts[i];
        struct bytes nonce = nonce_at(t, &src);

        cr_expect(nonce_ok(t, &src, nonce) && nonce_ok(t + LIFETIME, &src, nonce));
        cr_expect(not(nonce_ok(t + LIFETIME + 1, &src, nonce)));
        cr_expect(not(nonce_ok(t + (UINT64_C(1) << 39), &src, nonce)));
        if (t < STUN_NONCE_AHEAD_MS)
            continue;
        cr_expect(nonce_ok(t - STUN_NONCE_AHEAD_MS, &src, nonce), "another thread's clock");
        if (t > STUN_NONCE_AHEAD_MS) /* from a time to come */
            cr_expect(not(nonce_ok(t - STUN_NONCE_AHEAD_MS - 1, &src, nonce)));
    }
}

Test(stun_nonce, turn_32_falls_with_any_change)
{
    struct bytes nonce = nonce_at(NOW, &src);
    uint8_t copy[STUN_NONCE_MAX + 1];

    for (size_t i = 0; i < nonce.n; i++)
        for (unsigned c = 0; c < 256; c++) {
            memcpy(copy, nonce.p, nonce.n);
            if (copy[i] == c)
                continue;
            copy[i] = (uint8_t)c;
            cr_assert(not(nonce_ok(NOW, &src, bytes_of(copy, nonce.n))), "%zu, %02x", i, c);
        }
    memcpy(copy, nonce.p, nonce.n);
    copy[nonce.n] = 'A';
    cr_expect(not(nonce_ok(NOW, &src, bytes_of(copy, nonce.n + 1))));
    for (size_t n = 0; n < nonce.n; n++) {
        uint8_t *cut;

        cr_expect(not(nonce_ok(NOW, &src, tight(bytes_of(nonce.p, n), &cut))));
        free(cut);
    }
}

Test(stun_nonce, two_keys_are_known_while_they_are_rotated)
{
    struct bytes old = nonce_at(NOW, &src);

    memcpy(keys.previous, keys.current, 32);
    keys.current[0] ^= 1;
    cr_expect(not(nonce_ok(NOW, &src, old)));
    keys.has_previous = true;
    cr_expect(nonce_ok(NOW, &src, old) && nonce_ok(NOW, &src, nonce_at(NOW, &src)));
    cr_expect(not(nonce_ok(NOW + LIFETIME + 1, &src, old)));
}

/* ---- a request ----------------------------------------------------------------------------- */

static unsigned begun(unsigned what)
{
    struct making *k = request(what);
    struct stun_key key = user_key(STUN_ALG_MD5, "pass");
    struct stun_msg m;
    struct stun_auth a;

    sign(k, STUN_MAC_SHA1, &key);
    return begin(k, &m, &a);
}

Test(stun_auth, turn_25_turn_26_without_integrity_it_is_401_in_at_most_100_bytes)
{
    struct making *k = request(OLD);
    struct stun_msg m;
    struct stun_auth a;
    struct bytes out;

    cr_expect(begin(k, &m, &a) == 401);
    realm.name = bytes_str("example.org");
    k = making(STUN_ALLOCATE, STUN_ERROR);
    stun_put_error(&k->b, 401, bytes_of(NULL, 0));
    stun_put_challenge(&k->b, &realm, NOW, &src);
    out = made(k);
    cr_expect(le(sz, out.n, 100), "%zu bytes", out.n);
    cr_assert(stun_decode(out, 0, &m) == STUN_OK);
    cr_expect(bytes_eq(stun_value(&m, STUN_REALM), realm.name));
    cr_expect(is_hex(stun_value(&m, STUN_PASSWORD_ALGORITHMS), "0002000000010000"));
    cr_expect(memcmp(stun_value(&m, STUN_NONCE).p, "obMatJos2wAAD", 13) == 0);
    cr_expect(stun_mac_of(&m) == STUN_MAC_NONE);
    realm.algorithms = realm.anonymity = false;
    k = making(STUN_ALLOCATE, STUN_ERROR);
    stun_put_challenge(&k->b, &realm, NOW, &src);
    cr_assert(stun_decode(made(k), 0, &m) == STUN_OK);
    cr_expect(not(stun_has(&m, STUN_PASSWORD_ALGORITHMS)));
    cr_expect(eq(sz, stun_value(&m, STUN_NONCE).n, 20));
}

Test(stun_auth, turn_31_a_missing_part_is_400)
{
    cr_expect(begun(REALM | NONCE) == 400);
    cr_expect(begun(USER | NONCE) == 400);
    cr_expect(begun(USER | REALM) == 400);
    cr_expect(begun(0) == 400);
    cr_expect(begun(HASH | NONCE) == 400);
    cr_expect(begun(OLD) == 0);
    cr_expect(begun(HASH | REALM | NONCE) == 0);
    cr_expect(begun(OLD | HASH) == 0);
}

Test(stun_auth, a_name_is_taken_before_a_hash)
{
    struct making *k = request(OLD | HASH);
    struct stun_key key = user_key(STUN_ALG_MD5, "pass");
    struct stun_msg m;
    struct stun_auth a;

    sign(k, STUN_MAC_SHA1, &key);
    cr_assert(begin(k, &m, &a) == 0);
    cr_expect(bytes_eq(a.username, bytes_str("user")) && a.userhash.n == 0);
}

Test(stun_auth, turn_36_both_algorithm_attributes_or_neither)
{
    cr_expect(begun(OLD | LIST) == 400);
    cr_expect(begun(OLD | CHOICE_SHA256) == 400);
    cr_expect(begun(OLD | CHOICE_MD5) == 400);
    cr_expect(begun(OLD | LIST | CHOICE_SHA256) == 0);
    cr_expect(begun(OLD | LIST | CHOICE_MD5) == 0);
    realm.algorithms = realm.anonymity = false; /* then they mean nothing here: 420 says so */
    cr_expect(begun(OLD | CHOICE_SHA256) == 0);
}

Test(stun_auth, turn_36_a_list_that_is_not_ours_is_400)
{
    static const struct {
        const char *list, *choice;
    } bad[] = {
        { "00010000", "00010000" },                 /* bid down */
        { "0001000000020000", "00020000" },         /* another order */
        { "000200000001000000030000", "00020000" }, /* more */
        { "00020000", "00020000" },                 /* less */
        { "0002000000010000", "00030000" },         /* a choice that was not offered */
        { "0002000000010000", "00000000" },
        { "0002000000010000", "0002000400000000" }, /* parameters that it does not have */
        { "0002000000010000", "0002" },             /* cut */
        { "0002000000010000", "00020001" },
        { "000200000001", "00020000" },
        { "000200000001", NULL }, /* broken ones are there all the same */
        { NULL, "0002" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct making *k = request(OLD);
        struct stun_key key = user_key(STUN_ALG_SHA256, "pass");
        struct stun_msg m;
        struct stun_auth a;

        if (bad[i].list)
            stun_put(&k->b, STUN_PASSWORD_ALGORITHMS, hex(bad[i].list));
        if (bad[i].choice)
            stun_put(&k->b, STUN_PASSWORD_ALGORITHM, hex(bad[i].choice));
        sign(k, STUN_MAC_SHA256, &key);
        cr_expect(begin(k, &m, &a) == 400, "%zu", i);
    }
}

Test(stun_auth, turn_32_a_foreign_nonce_is_438)
{
    struct making *k = request(USER | REALM);
    struct stun_key key = user_key(STUN_ALG_MD5, "pass");
    struct stun_msg m;
    struct stun_auth a;

    stun_put(&k->b, STUN_NONCE, bytes_str("nonce123"));
    sign(k, STUN_MAC_SHA1, &key);
    cr_expect(begin(k, &m, &a) == 438);
    k = request(OLD);
    sign(k, STUN_MAC_SHA1, &key);
    cr_expect(begin(k, &m, &a) == 0);
    cr_expect(stun_auth_begin(&realm, &m, NOW + LIFETIME + 1, &src, &a) == 438);
    src.port++;
    cr_expect(stun_auth_begin(&realm, &m, NOW, &src, &a) == 438);
}

Test(stun_auth, turn_29_turn_35_all_four_combinations_verify)
{
    for (int style = 0; style < 3; style++) /* no choice, MD5, SHA-256 */
        for (int mac = STUN_MAC_SHA1; mac <= STUN_MAC_SHA256; mac++)
            for (int named = 0; named < 2; named++) {
                struct making *k = request((named ? USER : HASH) | REALM | NONCE |
                                           (style == 0   ? 0
                                            : style == 1 ? LIST | CHOICE_MD5
                                                         : LIST | CHOICE_SHA256));
                enum stun_alg alg = style == 2 ? STUN_ALG_SHA256 : STUN_ALG_MD5;
                struct stun_key key = user_key(alg, "pass"), wrong = user_key(alg, "word");
                struct stun_key other =
                    user_key(style == 2 ? STUN_ALG_MD5 : STUN_ALG_SHA256, "pass");
                struct stun_msg m;
                struct stun_auth a;

                sign(k, (enum stun_mac)mac, &key);
                cr_assert(begin(k, &m, &a) == 0);
                cr_expect(a.alg == alg && (int)a.mac == mac);
                cr_expect(a.reply_mac == (style ? (enum stun_mac)mac : STUN_MAC_SHA1));
                cr_expect(a.username.n == (named ? 4 : 0) && a.userhash.n == (named ? 0 : 32));
                cr_expect(stun_auth_verify(&m, &a, &key) == 0);
                cr_expect(stun_auth_verify(&m, &a, &wrong) == 401);
                cr_expect(stun_auth_verify(&m, &a, &other) == 401);
            }
}

Test(stun_auth, turn_30_unknown_user_wrong_password_and_other_realm_answer_alike)
{
    struct making *k = request(OLD);
    struct stun_key key = user_key(STUN_ALG_MD5, "pass"), wrong = user_key(STUN_ALG_MD5, "word");
    struct stun_key none = { .n = 0 };
    struct stun_msg m;
    struct stun_auth a;

    sign(k, STUN_MAC_SHA1, &key);
    cr_assert(begin(k, &m, &a) == 0);
    cr_expect(stun_auth_verify(&m, &a, &key) == 0);
    cr_expect(stun_auth_verify(&m, &a, NULL) == 401);
    cr_expect(stun_auth_verify(&m, &a, &none) == 401);
    cr_expect(stun_auth_verify(&m, &a, &wrong) == 401);
    realm.name = bytes_str("realm2"); /* the key is right, the realm is not */
    cr_assert(stun_auth_begin(&realm, &m, NOW, &src, &a) == 0);
    cr_expect(stun_auth_verify(&m, &a, &key) == 401);
}

/* Nobody's key is 32 zeroes: who signs with them is nobody all the same. */
Test(stun_auth, the_key_of_nobody_opens_nothing)
{
    struct making *k = request(OLD);
    struct stun_key zero = { .n = 32 };
    struct stun_msg m;
    struct stun_auth a;

    sign(k, STUN_MAC_SHA1, &zero);
    cr_assert(begin(k, &m, &a) == 0);
    cr_expect(stun_integrity_ok(&m, STUN_MAC_SHA1, stun_key_bytes(&zero), 32));
    cr_expect(stun_auth_verify(&m, &a, NULL) == 401);
}

Test(stun_auth, turn_37_turn_43_broken_credentials_are_refused)
{
    static const uint8_t name[STUN_USERNAME_MAX + 1] = { '%', 's' };
    struct stun_key key = user_key(STUN_ALG_MD5, "pass");
    struct making *k = request(OLD);
    struct stun_msg m;
    struct stun_auth a;

    stun_put_integrity(&k->b, STUN_MAC_SHA256, stun_key_bytes(&key), 16);
    cr_assert(begin(k, &m, &a) == 0);
    cr_expect(stun_auth_verify(&m, &a, &key) == 401, "16 bytes of SHA-256");
    k = request(REALM | NONCE);
    stun_put(&k->b, STUN_USERNAME, bytes_of(name, sizeof(name)));
    sign(k, STUN_MAC_SHA1, &key);
    cr_expect(begin(k, &m, &a) == 400);
    k = request(REALM | NONCE | USER);
    stun_put(&k->b, STUN_USERHASH, bytes_of(name, 31));
    sign(k, STUN_MAC_SHA1, &key);
    cr_expect(begin(k, &m, &a) == 400);
    k = request(REALM | NONCE);
    stun_put(&k->b, STUN_USERNAME, bytes_str("%s%n\n\"'"));
    sign(k, STUN_MAC_SHA1, &key);
    cr_assert(begin(k, &m, &a) == 0);
    cr_expect(stun_auth_verify(&m, &a, NULL) == 401);
}
