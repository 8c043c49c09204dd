/* T_META: which schema a file has, the key of its hashes, the next sequence number; and the way
 * from older schemas to ours: step by step, in one transaction, so that a crash or a full disk
 * leaves the file as it was. */
#include <errno.h>
#include <stdio.h>

#include "proto/crypto.h"
#include "store/schema.h"

/* The latter two as val_secret makes them: with a checksum. */
static const struct bytes key_schema = { (const uint8_t *)"schema", 6 };
static const struct bytes key_hash = { (const uint8_t *)"hash", 4 };
static const struct bytes key_counts = { (const uint8_t *)"counts", 6 };

int schema_put_counts(struct store *s)
{
    uint8_t v[16];

    put_u64(v, s->next_seq);
    put_u64(v + 8, s->namespaces);
    return db_put(s, T_META, key_counts, val_secret(s->value, key_counts, bytes_of(v, sizeof(v))));
}

int schema_get_counts(struct store *s, uint64_t *next_seq, uint64_t *namespaces)
{
    struct bytes v;
    struct cur c;
    int rc = db_get(s, s->r, T_META, key_counts, &v);

    if (rc)
        return rc;
    if (!open_secret(key_counts, v, &v))
        return -EIO;
    c = cur_of(v);
    *next_seq = cur_u64(&c);
    *namespaces = cur_u64(&c);
    return c.bad || c.n || !*next_seq ? -EIO : 0;
}

static int put_schema(struct store *s)
{
    uint8_t v[8]; /* schema 0 had no checksum; a flipped bit may not lead back there */

    put_u32(v, STORE_SCHEMA);
    put_u32(v + 4, crypto_crc32(bytes_of(v, 4)));
    return db_put(s, T_META, key_schema, bytes_of(v, sizeof(v)));
}

/* ---- steps --------------------------------------------------------------------------------- */

/* Schema 0, of the first days: profiles only, as registered u64, last_seen u64, name; without
 * relay_addr (as upstream's own first table, dusk.md §7) and without checksums. */
static int from_0(struct store *s)
{
    struct db_cur c;
    int rc = cur_open(s, s->w, T_PROFILE, &c);

    if (rc)
        return rc;
    for (rc = cur_from(&c, (struct bytes){ 0 }); !rc; rc = cur_next(&c)) {
        struct cur v = cur_of(c.value);
        struct store_profile p = { 0 };
        uint8_t name[STORE_NAME_MAX];

        p.registered_unix_s = cur_u64(&v);
        p.last_seen_unix_s = cur_u64(&v);
        p.display_name = cur_take(&v, v.n);
        if (v.bad || p.display_name.n > sizeof(name)) {
            rc = -EIO;
            break;
        }
        if (p.display_name.n) /* what is borrowed moves when the page is written */
            memcpy(name, p.display_name.p, p.display_name.n);
        p.display_name.p = name;
        rc = cur_put(&c, val_profile(s->value, c.key, &p));
        if (rc)
            break;
    }
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

static int (*const steps[STORE_SCHEMA])(struct store *s) = { from_0 };

static int migrate(struct store *s, uint32_t from)
{
    int rc = env_begin(s);

    if (rc)
        return rc;
    for (uint32_t v = from; !rc && v < STORE_SCHEMA; v++)
        rc = steps[v](s);
    if (!rc)
        rc = put_schema(s);
    if (rc) {
        env_abort(s);
        return rc;
    }
    return env_commit(s);
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Gives a file, new or from before there was one, its hash key and its first sequence number. */
static int complete(struct store *s, bool fresh)
{
    int rc = env_begin(s);

    if (rc)
        return rc;
    s->rng(s->hash_key, sizeof(s->hash_key));
    rc = db_put(s, T_META, key_hash,
                val_secret(s->value, key_hash, bytes_of(s->hash_key, sizeof(s->hash_key))));
    if (!rc)
        rc = schema_put_counts(s);
    if (!rc && fresh)
        rc = put_schema(s);
    if (rc) {
        env_abort(s);
        return rc;
    }
    return env_commit(s);
}

enum meta { META_OK, META_NONE, META_PART, META_NOT_OURS };

static int meta_read(struct store *s, enum meta *m, uint32_t *schema)
{
    struct bytes v;
    struct cur c;
    int rc = read_begin(s);

    if (rc)
        return rc;
    *m = META_OK;
    *schema = 0;
    rc = db_get(s, s->r, T_META, key_schema, &v);
    if (rc == -ENOENT) {
        *m = db_count(s, s->r, T_META) || db_count(s, s->r, T_REG) || db_count(s, s->r, T_PROFILE)
                 ? META_NOT_OURS
                 : META_NONE;
        rc = 0;
        goto done;
    }
    if (rc)
        goto done;
    c = cur_of(v);
    *schema = cur_u32(&c);
    if (c.bad || (c.n == 0) != (*schema == 0) ||
        (c.n && (cur_u32(&c) != crypto_crc32(bytes_of(v.p, 4)) || c.n))) {
        *m = META_NOT_OURS;
        goto done;
    }
    rc = db_get(s, s->r, T_META, key_hash, &v);
    if (!rc && (!open_secret(key_hash, v, &v) || v.n != sizeof(s->hash_key))) {
        rc = -EIO;
    } else if (!rc) {
        memcpy(s->hash_key, v.p, v.n);
        rc = schema_get_counts(s, &s->next_seq, &s->namespaces);
    }
    if (rc == -ENOENT) {
        *m = META_PART;
        rc = 0;
    } else if (rc == -EIO) {
        *m = META_NOT_OURS;
        rc = 0;
    }
done:
    read_end(s);
    return rc;
}

int schema_open(struct store *s, char *why, size_t cap)
{
    uint32_t schema;
    enum meta m;
    int rc = meta_read(s, &m, &schema);

    if (!rc && (m == META_NOT_OURS || (m == META_PART && schema > 0))) {
        snprintf(why, cap,
                 "%s is not a store of ours, or damaged: move it away to begin anew, or put a "
                 "backup in its place",
                 s->path);
        return -EIO;
    }
    if (!rc && schema > STORE_SCHEMA) {
        snprintf(why, cap,
                 "%s has schema %u, and this version knows %d: run the newer version again, or "
                 "move the file away to begin anew",
                 s->path, schema, STORE_SCHEMA);
        return -EPROTO;
    }
    if (!rc && s->read_only && (m != META_OK || schema < STORE_SCHEMA)) {
        snprintf(why, cap, "%s has an older schema: the daemon migrates it when it starts",
                 s->path);
        return -EPROTO;
    }
    if (!rc && m != META_OK)
        rc = complete(s, m == META_NONE);
    if (!rc && m != META_NONE && schema < STORE_SCHEMA)
        rc = migrate(s, schema);
    if (rc)
        snprintf(why, cap, "%s: cannot be brought to schema %d: %s", s->path, STORE_SCHEMA,
                 strerror(-rc));
    return rc;
}
