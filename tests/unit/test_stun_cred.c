/* OpaqueString, and credentials that end by themselves. */
#include "tests/unit/stun_client.h"

TestSuite(stun_opaque, .init = start);
TestSuite(stun_ephemeral, .init = start);

/* ---- OpaqueString -------------------------------------------------------------------------- */

static bool prepares(const char *in, const char *want)
{
    uint8_t out[64];
    struct wcur w = wcur_of(out, sizeof(out));

    return stun_opaque(bytes_str(in), &w) && bytes_eq(bytes_of(out, w.wrote), bytes_str(want));
}

static bool refuses(const char *in)
{
    uint8_t out[64];
    struct wcur w = wcur_of(out, sizeof(out));

    return !stun_opaque(bytes_str(in), &w);
}

Test(stun_opaque, ascii_stands_for_itself)
{
    cr_expect(prepares("TheMatrIX", "TheMatrIX"));
    cr_expect(prepares(" ~!%s'\"\\", " ~!%s'\"\\"));
    cr_expect(refuses(""));
    for (char c = 1; c > 0 && c < 127; c++) {
        char text[] = { 'a', c, 'b', 0 };

        cr_expect(c < 0x20 ? refuses(text) : prepares(text, text), "%d", c);
    }
    cr_expect(refuses("a\x7f"));
}

Test(stun_opaque, keeps_letters_and_widens_no_space)
{
    cr_expect(prepares(MATRIX, MATRIX));
    cr_expect(prepares("stra\xc3\x9f"
                       "e",
                       "stra\xc3\x9f"
                       "e"));
    cr_expect(prepares("a\xc2\xa0"
                       "b",
                       "a b"));               /* U+00A0 */
    cr_expect(prepares("\xe3\x80\x80", " ")); /* U+3000 */
    cr_expect(prepares("\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"));
    cr_expect(prepares("\xef\xbc\xa1", "\xef\xbc\xa1")); /* full width: SASLprep would narrow it */
}

Test(stun_opaque, refuses_what_it_cannot_prepare)
{
    static const char *const bad[] = {
        "The\xc2\xadM", /* soft hyphen */
        "e\xcc\x81",    /* a combining accent: NFC would compose it */
        "\xe2\x84\xa6", /* Ohm: NFC makes it Omega */
        "\xe2\x84\xab", /* Angstrom */
        "\xc2\xb7",     /* contextual */
        "\xe2\x80\x8d", /* joiner */
        "\xe2\x80\xae", /* right-to-left override */
        "\xc2\x80",     /* C1 */
        "\xee\x80\x80", /* private use */
        "\xef\xbf\xbf", /* not a character */
        "\xe1\x84\x80", /* a Jamo */
        "\xe3\x82\x99", /* a voicing mark */
        "\xed\xa0\x80", /* surrogate */
        "\xc0\xaf",     /* a longer spelling of '/' */
        "\xe0\x80\xaf",
        "\xf0\x80\x80\xaf",
        "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80",
        "\x80",
        "\xbf",
        "\xc3",
        "\xe3\x83",
        "\xf0\x9f\x98",
        "\xc3(",
        "\xff",
    };
    uint8_t out[3];
    struct wcur w = wcur_of(out, sizeof(out));

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(refuses(bad[i]), "%zu", i);
    cr_expect(not(stun_opaque(bytes_str("four"), &w)), "and what has no room");
}

/* ---- ephemeral credentials ----------------------------------------------------------------- */

static const struct bytes secrets[] = { { (const uint8_t *)"north", 5 },
                                        { (const uint8_t *)"south", 5 } };

static struct stun_secrets two(void)
{
    return (struct stun_secrets){ .secret = secrets, .count = 2, .separator = ':' };
}

Test(stun_ephemeral, turn_md_v7_matches_the_published_passwords)
{
    uint8_t out[STUN_PASSWORD_MAX];
    struct bytes user = bytes_str("1700000000:alice");
    struct stun_key key;
    size_t n = stun_ephemeral_password(STUN_MAC_SHA1, secrets[0], user, out);

    cr_expect(bytes_eq(bytes_of(out, n), bytes_str("Cd/49soE35ICqcJF/bCTn8Z4OyE=")));
    stun_key_make(STUN_ALG_MD5, user, bytes_str("example.org"), bytes_of(out, n), &key);
    cr_expect(is_hex(stun_key_bytes(&key), "d9a6a3d964467baeffd2fce41704a913"));
    n = stun_ephemeral_password(STUN_MAC_SHA256, secrets[0], user, out);
    cr_expect(
        bytes_eq(bytes_of(out, n), bytes_str("EuME0Xh0HllnbpbObfs8aBsd78Vr1EMwxArqbyCrGl8=")));
}

Test(stun_ephemeral, names_are_a_time_and_perhaps_an_id)
{
    static const struct {
        const char *name, *id; /* id NULL: not ephemeral */
        uint64_t expires;
        bool id_first;
    } all[] = {
        { "1700000000:alice", "alice", 1700000000, false },
        { "1700000000", "", 1700000000, false },
        { "1700000000:", "", 1700000000, false },
        { "1700000000:a:b", "a:b", 1700000000, false },
        { "0:x", "x", 0, false },
        { "1700000000:1800000000", "1800000000", 1700000000, true },
        { "alice:1700000000", "alice", 1700000000, true },
        { "a:b:1700000000", "a:b", 1700000000, true },
        { ":1700000000", "", 1700000000, true },
        { "alice:1700000000", NULL, 0, false },
        { "alice", NULL, 0, true },
        { "", NULL, 0, true },
        { ":", NULL, 0, true },
        { "-5:alice", NULL, 0, false },
        { "+5:alice", NULL, 0, false },
        { " 5:alice", NULL, 0, false },
        { "05:alice", NULL, 0, false },
        { "1e9:alice", NULL, 0, false },
        { "9223372036854775807:x", "x", INT64_MAX, false },
        { "9223372036854775808:x", NULL, 0, false },
        { "99999999999999999999999:x", NULL, 0, true },
        { "1700000000;alice", NULL, 0, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct stun_secrets s = two();
        struct stun_ephemeral e;

        s.id_first = all[i].id_first;
        cr_assert(stun_ephemeral_read(&s, bytes_str(all[i].name), &e) == (all[i].id != NULL), "%s",
                  all[i].name);
        if (all[i].id)
            cr_expect(bytes_eq(e.id, bytes_str(all[i].id)) && e.expires_unix_s == all[i].expires);
    }
    struct stun_secrets s = two();
    struct stun_ephemeral e;

    s.separator = ';';
    cr_expect(stun_ephemeral_read(&s, bytes_str("5;x"), &e) &&
              !stun_ephemeral_read(&s, bytes_str("5:x"), &e));
}

Test(stun_ephemeral, turn_41_ends_after_its_last_second)
{
    struct stun_secrets s = two();
    struct stun_ephemeral e = { .expires_unix_s = 1700000000 };

    cr_expect(stun_ephemeral_alive(&s, &e, 0) && stun_ephemeral_alive(&s, &e, 1700000000));
    cr_expect(not(stun_ephemeral_alive(&s, &e, 1700000001)));
    s.ahead_max_s = 86400;
    cr_expect(stun_ephemeral_alive(&s, &e, 1700000000 - 86400));
    cr_expect(not(stun_ephemeral_alive(&s, &e, 1700000000 - 86401)));
}

static unsigned tried(const struct stun_secrets *s, enum stun_mac by, struct bytes secret,
                      enum stun_alg alg, const char *name, struct stun_key *key)
{
    uint8_t password[STUN_PASSWORD_MAX];
    size_t n = stun_ephemeral_password(by, secret, bytes_str(name), password);
    struct making *k = request(REALM | NONCE | (alg == STUN_ALG_SHA256 ? LIST | CHOICE_SHA256 : 0));
    struct stun_key mine;
    struct stun_msg m;
    struct stun_auth a;

    stun_put(&k->b, STUN_USERNAME, bytes_str(name));
    stun_key_make(alg, bytes_str(name), bytes_str("realm"), bytes_of(password, n), &mine);
    sign(k, STUN_MAC_SHA1, &mine);
    cr_assert(begin(k, &m, &a) == 0);
    unsigned got = stun_ephemeral_verify(s, &realm, &m, &a, key);

    if (got == 0)
        cr_expect(bytes_eq(stun_key_bytes(key), stun_key_bytes(&mine)));
    return got;
}

Test(stun_ephemeral, turn_41_every_secret_verifies_and_no_other)
{
    struct stun_secrets s = two();
    struct stun_key key = { .n = 0 };

    for (int alg = STUN_ALG_MD5; alg <= STUN_ALG_SHA256; alg++) {
        cr_expect(tried(&s, STUN_MAC_SHA1, secrets[0], (enum stun_alg)alg, "5:x", &key) == 0);
        cr_expect(tried(&s, STUN_MAC_SHA1, secrets[1], (enum stun_alg)alg, "5:x", &key) == 0);
        s.sha256 = true;
        cr_expect(tried(&s, STUN_MAC_SHA256, secrets[1], (enum stun_alg)alg, "5:x", &key) == 0);
        s.sha256 = false;
        cr_expect(tried(&s, STUN_MAC_SHA256, secrets[1], (enum stun_alg)alg, "5:x", &key) == 401);
    }
    key.n = 99;
    cr_expect(tried(&s, STUN_MAC_SHA1, bytes_str("west"), STUN_ALG_MD5, "5:x", &key) == 401);
    cr_expect(key.n == 99, "written although refused");
    s.count = 1;
    cr_expect(tried(&s, STUN_MAC_SHA1, secrets[1], STUN_ALG_MD5, "5:x", &key) == 401);
    s.count = 0;
    cr_expect(tried(&s, STUN_MAC_SHA1, secrets[0], STUN_ALG_MD5, "5:x", &key) == 401);
    s.count = 2;
    realm.name = bytes_str("realm2");
    cr_expect(tried(&s, STUN_MAC_SHA1, secrets[0], STUN_ALG_MD5, "5:x", &key) == 401);
}

Test(stun_ephemeral, a_hash_of_a_name_cannot_be_ephemeral)
{
    struct stun_secrets s = two();
    struct making *k = request(HASH | REALM | NONCE);
    struct stun_key key = { .n = 99 }, mine;
    uint8_t password[STUN_PASSWORD_MAX];
    struct stun_msg m;
    struct stun_auth a;
    size_t n = stun_ephemeral_password(STUN_MAC_SHA1, secrets[0], bytes_of(NULL, 0), password);

    /* Signed as the empty name, which is what a careless server would try. */
    stun_key_make(STUN_ALG_MD5, bytes_of(NULL, 0), bytes_str("realm"), bytes_of(password, n),
                  &mine);
    sign(k, STUN_MAC_SHA1, &mine);
    cr_assert(begin(k, &m, &a) == 0);
    cr_expect(stun_ephemeral_verify(&s, &realm, &m, &a, &key) == 401 && key.n == 99);
}
