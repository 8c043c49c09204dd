#include "engine/turn_users.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/rng.h"
#include "proto/crypto.h"

enum { BUCKETS = 4 * CONFIG_TURN_USERS_MAX }; /* a power of two */
static_assert((BUCKETS & (BUCKETS - 1)) == 0, "masks");

struct user {
    struct bytes name; /* borrows from `names` */
    uint8_t hash[STUN_USERHASH_BYTES];
    struct stun_key md5, sha256;
};

struct turn_users {
    unsigned n;
    uint8_t key[16];
    uint16_t by_name[BUCKETS], by_hash[BUCKETS]; /* index + 1; 0: free */
    struct user user[CONFIG_TURN_USERS_MAX];
    uint8_t names[CONFIG_TURN_USERS_MAX * CONFIG_TEXT_MAX];
    size_t names_n;
};

static struct bytes subject(const struct user *u, bool hashed)
{
    return hashed ? bytes_of(u->hash, sizeof(u->hash)) : u->name;
}

/* Where it is, or the free bucket where it would go: a quarter of them is used at most. */
static size_t bucket_of(const struct turn_users *u, bool hashed, struct bytes wanted)
{
    const uint16_t *table = hashed ? u->by_hash : u->by_name;
    size_t i = crypto_siphash(u->key, wanted) & (BUCKETS - 1);

    while (table[i] && !bytes_eq(subject(&u->user[table[i] - 1], hashed), wanted))
        i = (i + 1) & (BUCKETS - 1);
    return i;
}

/* One NAME:PASSWORD; both as stun_opaque prepares them. */
static bool add(struct turn_users *u, const char *text, struct bytes realm, const char **wrong)
{
    const char *colon = strchr(text, ':');
    uint8_t room[CONFIG_TEXT_MAX];
    struct wcur name = wcur_of(u->names + u->names_n, sizeof(u->names) - u->names_n);
    struct wcur word = wcur_of(room, sizeof(room));
    struct user *one = &u->user[u->n];
    size_t at = 0;
    bool ok;

    *wrong = "NAME:PASSWORD of printable text";
    ok = colon && stun_opaque(bytes_of((const uint8_t *)text, (size_t)(colon - text)), &name) &&
         stun_opaque(bytes_str(colon + 1), &word);
    if (ok) {
        one->name = bytes_of(u->names + u->names_n, name.wrote);
        *wrong = "one password per name";
        at = bucket_of(u, false, one->name);
        ok = u->by_name[at] == 0;
    }
    if (ok) {
        stun_userhash(one->name, realm, one->hash);
        stun_key_make(STUN_ALG_MD5, one->name, realm, bytes_of(room, word.wrote), &one->md5);
        stun_key_make(STUN_ALG_SHA256, one->name, realm, bytes_of(room, word.wrote), &one->sha256);
        u->names_n += name.wrote;
        u->n++;
        u->by_name[at] = (uint16_t)u->n;
        u->by_hash[bucket_of(u, true, subject(one, true))] = (uint16_t)u->n;
    }
    crypto_wipe(room, sizeof(room));
    return ok;
}

struct turn_users *turn_users_new(const struct config *cfg, struct bytes realm, int *err, char *why,
                                  size_t cap)
{
    struct turn_users *u = calloc(1, sizeof(*u));
    const char *wrong;

    *err = -ENOMEM;
    if (!u)
        return NULL;
    rng_bytes(u->key, sizeof(u->key));
    for (unsigned i = 0; i < cfg->turn_user_n; i++) {
        const char *text = cfg->turn_user[i];

        if (add(u, text, realm, &wrong))
            continue;
        config_wipe_stack(); /* hashing leaves its last block there */
        snprintf(why, cap, "--turn-user=%.*s:***: accepted is %s", (int)strcspn(text, ":"), text,
                 wrong);
        turn_users_free(u);
        *err = -EINVAL;
        return NULL;
    }
    config_wipe_stack();
    *err = 0;
    return u;
}

void turn_users_free(struct turn_users *u)
{
    if (u)
        crypto_wipe(u, sizeof(*u));
    free(u);
}

bool turn_users_find(const struct turn_users *u, const struct stun_auth *a, struct stun_key *key)
{
    bool hashed = a->username.n == 0;
    size_t i = bucket_of(u, hashed, hashed ? a->userhash : a->username);
    uint16_t at = hashed ? u->by_hash[i] : u->by_name[i];

    if (at == 0)
        return false;
    *key = a->alg == STUN_ALG_SHA256 ? u->user[at - 1].sha256 : u->user[at - 1].md5;
    return true;
}
