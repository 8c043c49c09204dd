/* The small kinds: generated secrets, TURN users, bans. */
#include "store/records.h"

#include <errno.h>

#include "proto/crypto.h"

/* ---- secrets ------------------------------------------------------------------------------- */

static int secret_get(struct store *s, const char *name, uint8_t *out, size_t n)
{
    struct bytes v, secret;
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = db_get(s, s->r, T_SECRET, bytes_str(name), &v);
    if (!rc && !open_secret(bytes_str(name), v, &secret)) {
        s->corrupt++;
        rc = -EIO;
    } else if (!rc && secret.n != n) {
        rc = -EINVAL;
    } else if (!rc) {
        memcpy(out, secret.p, n);
    }
    read_end(s);
    return rc;
}

static int secret_make(struct store *s, const char *name, size_t n)
{
    uint8_t fresh[STORE_SECRET_MAX];
    int rc = store_begin(s);

    if (rc)
        return rc;
    s->rng(fresh, n);
    s->ops++;
    rc = db_put(s, T_SECRET, bytes_str(name),
                val_secret(s->value, bytes_str(name), bytes_of(fresh, n)));
    if (rc)
        (void)op_fail(s, rc);
    crypto_wipe(fresh, sizeof(fresh));
    crypto_wipe(s->value, CRC_BYTES + n);
    return store_commit(s);
}

int store_secret(struct store *s, const char *name, uint8_t *out, size_t n)
{
    size_t name_n = strlen(name);
    int rc;

    if (!name_n || name_n > STORE_SECRET_NAME_MAX || !n || n > STORE_SECRET_MAX)
        return -EINVAL;
    if (s->w)
        return -EBUSY;
    rc = secret_get(s, name, out, n);
    if (rc != -ENOENT || s->read_only)
        return rc;
    rc = secret_make(s, name, n);
    return rc ? rc : secret_get(s, name, out, n);
}

/* ---- TURN users ---------------------------------------------------------------------------- */

static bool turn_sound(struct bytes name, struct bytes realm)
{
    return name.n && name.n <= STORE_TURN_TEXT_MAX && realm.n <= STORE_TURN_TEXT_MAX;
}

/* A record that is not there yet, in a tree that has its bound. */
static enum store_verdict put_new(struct store *s, enum tree tree, struct bytes key,
                                  struct bytes value, uint32_t max)
{
    struct bytes old;
    int rc = db_get(s, s->w, tree, key, &old);

    if (rc == -ENOENT && max && db_count(s, s->w, tree) >= max)
        return STORE_FULL_TOTAL;
    if (!rc || rc == -ENOENT)
        rc = db_put(s, tree, key, value);
    return rc ? op_fail(s, rc) : STORE_OK;
}

enum store_verdict store_turn_user_put(struct store *s, const struct store_turn_user *u)
{
    enum store_verdict v;
    struct key k;

    if (!turn_sound(u->name, u->realm))
        return STORE_BAD;
    v = op_begin(s, true, 0);
    if (v)
        return v;
    key_turn(&k, u->name, u->realm);
    v = put_new(s, T_TURN, key_bytes(&k), val_turn(s->value, key_bytes(&k), u),
                s->limits.turn_users);
    crypto_wipe(s->value, CRC_BYTES + sizeof(u->key_md5) + sizeof(u->key_sha256));
    return v;
}

enum store_verdict store_turn_user_del(struct store *s, struct bytes name, struct bytes realm)
{
    enum store_verdict v;
    struct key k;
    int rc;

    if (!turn_sound(name, realm))
        return STORE_BAD;
    v = op_begin(s, false, 0);
    if (v)
        return v;
    key_turn(&k, name, realm);
    rc = db_del(s, T_TURN, key_bytes(&k));
    if (rc == -ENOENT)
        return STORE_ABSENT;
    return rc ? op_fail(s, rc) : STORE_OK;
}

int store_turn_users(struct store *s, store_turn_user_fn *fn, void *ctx)
{
    struct store_turn_user u;
    struct db_cur c;
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = cur_open(s, s->r, T_TURN, &c);
    if (!rc) {
        for (rc = cur_from(&c, (struct bytes){ 0 }); !rc; rc = cur_next(&c)) {
            if (!open_turn(c.key, c.value, &u))
                s->corrupt++;
            else if (!fn(ctx, &u))
                break;
        }
        cur_close(&c);
        crypto_wipe(&u, sizeof(u));
    }
    read_end(s);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- bans ---------------------------------------------------------------------------------- */

static bool ban_sound(struct bytes key)
{
    return key.n && key.n <= STORE_BAN_KEY_MAX;
}

static int ban_end(struct store *s, const struct store_ban *b, bool put)
{
    struct key k;
    int rc;

    if (b->until_unix_s == STORE_FOREVER)
        return 0;
    key_end_ban(&k, b->until_unix_s, b->kind, b->key);
    rc = put ? db_put(s, T_END, key_bytes(&k), (struct bytes){ 0 })
             : db_del(s, T_END, key_bytes(&k));
    if (rc == -ENOENT) { /* an index without its entry: what was wanted, but not sound */
        s->corrupt++;
        rc = 0;
    }
    return rc;
}

/* -ENOENT, or *old (its key borrows from ours). One that is not sound has no end that we know. */
static int ban_find(struct store *s, uint8_t kind, struct bytes key, struct store_ban *old)
{
    struct bytes v;
    struct key k;
    int rc;

    key_ban(&k, kind, key);
    rc = db_get(s, s->w, T_BAN, key_bytes(&k), &v);
    if (!rc && !open_ban(key_bytes(&k), v, old)) {
        s->corrupt++;
        old->until_unix_s = STORE_FOREVER;
    }
    old->kind = kind;
    old->key = key;
    return rc;
}

enum store_verdict store_ban_put(struct store *s, const struct store_ban *b)
{
    enum store_verdict v;
    struct store_ban old;
    struct key k;
    int rc;

    if (!ban_sound(b->key))
        return STORE_BAD;
    v = op_begin(s, true, 0);
    if (v)
        return v;
    rc = ban_find(s, b->kind, b->key, &old);
    if (!rc)
        rc = ban_end(s, &old, false);
    if (rc && rc != -ENOENT)
        return op_fail(s, rc);
    key_ban(&k, b->kind, b->key);
    v = put_new(s, T_BAN, key_bytes(&k), val_ban(s->value, key_bytes(&k), b->until_unix_s),
                s->limits.bans);
    if (v)
        return v;
    rc = ban_end(s, b, true);
    return rc ? op_fail(s, rc) : STORE_OK;
}

static int ban_drop(struct store *s, const struct store_ban *b)
{
    struct key k;
    int rc = ban_end(s, b, false);

    key_ban(&k, b->kind, b->key);
    return rc ? rc : db_del(s, T_BAN, key_bytes(&k));
}

enum store_verdict store_ban_del(struct store *s, uint8_t kind, struct bytes key)
{
    enum store_verdict v;
    struct store_ban old;
    int rc;

    if (!ban_sound(key))
        return STORE_BAD;
    v = op_begin(s, false, 0);
    if (v)
        return v;
    rc = ban_find(s, kind, key, &old);
    if (rc == -ENOENT)
        return STORE_ABSENT;
    if (!rc)
        rc = ban_drop(s, &old);
    return rc ? op_fail(s, rc) : STORE_OK;
}

int ban_expire(struct store *s, uint64_t when_unix_s, uint8_t kind, struct bytes key)
{
    struct store_ban old;
    int rc = ban_find(s, kind, key, &old);

    if (rc == -ENOENT || (!rc && old.until_unix_s != when_unix_s)) { /* an end of nothing */
        s->corrupt++;
        return rc ? 0 : ban_end(s, &old, true);
    }
    return rc ? rc : ban_drop(s, &old);
}

int store_bans(struct store *s, uint64_t now_unix_s, store_ban_fn *fn, void *ctx)
{
    struct store_ban b;
    struct db_cur c;
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = cur_open(s, s->r, T_BAN, &c);
    if (!rc) {
        for (rc = cur_from(&c, (struct bytes){ 0 }); !rc; rc = cur_next(&c)) {
            if (!open_ban(c.key, c.value, &b))
                s->corrupt++;
            else if (b.until_unix_s > now_unix_s && !fn(ctx, &b))
                break;
        }
        cur_close(&c);
    }
    read_end(s);
    return rc == -ENOENT ? 0 : rc;
}
