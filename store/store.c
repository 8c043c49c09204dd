#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/crypto.h"
#include "store/profile.h"
#include "store/records.h"
#include "store/reg.h"
#include "store/usage.h"

const struct store_limits store_limits_default = {
    .regs_per_peer = 32, /* libp2p.md §13 */
    .regs_per_ns = 0,
    .regs = 10000,
    .profiles = 100000,
    .turn_users = 10000,
    .bans = 10000,
    .usage_peers = 10000,
    .reg_seq_compared = true,
};
enum { PROFILES_UNBOUND = 1 << 24 }; /* for the index, when limits.profiles is 0 */

const char *store_verdict_text(enum store_verdict v)
{
    switch (v) {
    case STORE_OK:
        return "ok";
    case STORE_ABSENT:
        return "absent";
    case STORE_OLD_SEQ:
        return "a newer record is kept";
    case STORE_FULL_PEER:
        return "too many of this peer";
    case STORE_FULL_NS:
        return "too many in this namespace";
    case STORE_FULL_TOTAL:
        return "too many";
    case STORE_NO_ROOM:
        return "the disk is full";
    case STORE_BAD:
        return "malformed";
    case STORE_FAILED:
        return "storage failed";
    }
    return "?";
}

/* ---- open and close ------------------------------------------------------------------------ */

static int names_open(struct store *s, char *why, size_t cap)
{
    uint8_t seed[16];
    uint64_t there = 0, max = s->limits.profiles ? s->limits.profiles : PROFILES_UNBOUND;
    int rc;

    if (s->read_only) { /* who reads beside the daemon walks; nobody searches */
        s->load_read = s->loaded = true;
        return 0;
    }
    rc = read_begin(s);
    if (!rc) {
        there = db_count(s, s->r, T_PROFILE);
        read_end(s);
        s->rng(seed, sizeof(seed));
        rc = names_new(seed, (uint32_t)(there > max ? there : max), (uint32_t)there, &s->names);
    }
    if (rc)
        snprintf(why, cap, "%s: no memory for the names of %llu profiles", s->path,
                 (unsigned long long)there);
    return rc;
}

int store_open(const struct store_opts *o, struct store **out, char *why, size_t cap)
{
    struct store *s;
    int rc;

    ASSERT(o->rng || o->read_only);
    crypto_init();
    s = calloc(1, sizeof(*s));
    if (!s) {
        snprintf(why, cap, "%s/" STORE_FILE ": no memory", o->dir);
        return -ENOMEM;
    }
    s->read_only = o->read_only;
    s->rng = o->rng;
    s->limits = o->limits;
    s->next_seq = 1;
    if (snprintf(s->path, sizeof(s->path), "%s/" STORE_FILE, o->dir) >= (int)sizeof(s->path)) {
        snprintf(why, cap, "%s: the path is too long", o->dir);
        rc = -ENAMETOOLONG;
        goto free;
    }
    rc = env_open(s, o, why, cap);
    if (rc)
        goto free;
    rc = schema_open(s, why, cap);
    if (!rc)
        rc = names_open(s, why, cap);
    if (!rc) {
        s->next_seq_kept = s->next_seq;
        *out = s;
        return 0;
    }
    env_close(s);
free:
    free(s);
    return rc;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    env_close(s);
    names_free(s->names);
    free(s->changes);
    crypto_wipe(s->hash_key, sizeof(s->hash_key));
    free(s);
}

size_t store_map_bytes(const struct store *s)
{
    return s->map_bytes;
}

/* ---- transactions -------------------------------------------------------------------------- */

int store_begin(struct store *s)
{
    s->counts_dirty = false;
    s->namespaces_before = s->namespaces;
    return env_begin(s);
}

int store_commit(struct store *s)
{
    int rc;

    ASSERT(s->w);
    if (s->counts_dirty && !s->broken) {
        rc = schema_put_counts(s);
        if (rc)
            (void)op_fail(s, rc);
    }
    rc = env_commit(s);
    if (!rc) {
        if (s->counts_dirty)
            s->next_seq_kept = s->next_seq;
        profile_committed(s);
    } else {
        s->namespaces = s->namespaces_before;
    }
    s->changes_n = 0;
    return rc;
}

void store_abort(struct store *s)
{
    if (s->w)
        s->namespaces = s->namespaces_before;
    env_abort(s);
    s->changes_n = 0;
}

bool store_in_txn(const struct store *s)
{
    return s->w;
}

size_t store_txn_ops(const struct store *s)
{
    return s->w ? s->ops : 0;
}

uint64_t store_next_seq(const struct store *s)
{
    return s->next_seq_kept;
}

/* ---- expiry -------------------------------------------------------------------------------- */

/* What ends first. The index has no checksums: a key may be of any shape, and may stand where its
 * order does not put it. It is kept as it was found: that one is deleted, and no other. */
struct ending {
    uint64_t when_unix_s, seq; /* when: 0 if misplaced, so that it is seen to at once */
    bool misplaced;
    uint8_t kind, ban_kind;
    struct bytes ban; /* within key */
    size_t key_n;
    uint8_t key[KEY_MAX];
};
enum { END_NONE = 255 }; /* a kind that we do not write, or not so */

static void parse_end(struct ending *e)
{
    struct cur k = cur_of(bytes_of(e->key, e->key_n));

    e->when_unix_s = cur_u64(&k);
    e->kind = cur_u8(&k);
    if (e->kind == END_REG) {
        e->seq = cur_u64(&k);
    } else if (e->kind == END_BAN) {
        e->ban_kind = cur_u8(&k);
        e->ban = cur_take(&k, min_sz(k.n, STORE_BAN_KEY_MAX));
        k.bad = k.bad || !e->ban.n;
    } else {
        e->kind = END_NONE;
    }
    if (k.bad || k.n)
        e->kind = END_NONE;
}

static bool sorts_before(struct bytes a, struct bytes b)
{
    int rc = memcmp(a.p, b.p, min_sz(a.n, b.n));

    return rc < 0 || (rc == 0 && a.n < b.n);
}

/* -ENOENT: nothing ends. */
static int first_end(struct store *s, MDB_txn *t, struct ending *e)
{
    struct db_cur c;
    int rc = cur_open(s, t, T_END, &c);

    *e = (struct ending){ 0 };
    if (rc)
        return rc;
    rc = cur_from(&c, (struct bytes){ 0 });
    if (!rc) {
        e->key_n = min_sz(c.key.n, sizeof(e->key));
        memcpy(e->key, c.key.p, e->key_n);
        parse_end(e);
        /* A time that a flipped bit made later would hold up all behind it. */
        if (cur_next(&c) == 0 && sorts_before(c.key, bytes_of(e->key, e->key_n))) {
            e->misplaced = true;
            e->when_unix_s = 0;
        }
    }
    cur_close(&c);
    return rc;
}

/* By its place: a search may pass by one that is out of order. */
static int del_ending(struct store *s, const struct ending *e)
{
    struct bytes key = bytes_of(e->key, e->key_n);
    struct db_cur c;
    int rc = cur_open(s, s->w, T_END, &c);

    if (rc)
        return rc;
    rc = cur_from(&c, (struct bytes){ 0 });
    if (!rc)
        rc = bytes_eq(c.key, key) ? cur_del(&c) : db_del(s, T_END, key);
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

/* A misplaced one goes first, since its record may be given back the same, in its place. */
static int expire_one(struct store *s, const struct ending *e)
{
    int rc = e->misplaced ? del_ending(s, e) : 0;

    if (rc)
        return rc;
    if (e->kind == END_BAN)
        rc = ban_expire(s, e->when_unix_s, e->ban_kind, e->ban);
    else if (e->kind == END_REG)
        rc = reg_expire(s, e->seq, e->when_unix_s);
    else
        s->corrupt++;
    return rc || e->misplaced ? rc : del_ending(s, e);
}

enum store_verdict store_expire(struct store *s, uint64_t now_unix_s, size_t max_ops, bool *left)
{
    struct ending e;
    size_t n = 0;
    int rc = 0;

    *left = false;
    if (s->broken)
        return STORE_FAILED;
    while (!rc) {
        rc = first_end(s, s->w, &e);
        if (rc || e.when_unix_s > now_unix_s)
            break;
        if (n == max_ops ||
            (n && !op_may_sweep(s))) { /* one goes in any case: it comes to an end */
            *left = true;
            break;
        }
        rc = expire_one(s, &e);
        s->ops++;
        n++;
    }
    if (rc == -ENOENT)
        rc = 0;
    if (!rc && !*left)
        rc = usage_expire(s, now_unix_s, max_ops, &n, left);
    return rc ? op_fail(s, rc) : STORE_OK;
}

uint64_t store_deadline_unix_s(struct store *s)
{
    uint64_t at = STORE_FOREVER;
    struct ending e;
    struct db_cur c;

    if (read_begin(s))
        return at;
    if (first_end(s, s->r, &e) == 0)
        at = e.when_unix_s;
    if (cur_open(s, s->r, T_USAGE, &c) == 0) {
        if (cur_from(&c, (struct bytes){ 0 }) == 0) {
            struct cur k = cur_of(c.key);

            at = min_u64(at, ((uint64_t)cur_u32(&k) + STORE_USAGE_DAYS) * DAY_S);
        }
        cur_close(&c);
    }
    read_end(s);
    return at;
}

/* ---- statistics ---------------------------------------------------------------------------- */

int store_stats(struct store *s, struct store_stats *st)
{
    struct env_numbers n;
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = env_numbers(s, &n);
    if (!rc)
        *st = (struct store_stats){
            .map_bytes = s->map_bytes,
            .used_bytes = n.used_bytes,
            .free_bytes = n.free_bytes,
            .file_bytes = n.file_bytes,
            .regs = db_count(s, s->r, T_REG),
            .namespaces = s->namespaces,
            .profiles = db_count(s, s->r, T_PROFILE),
            .turn_users = db_count(s, s->r, T_TURN),
            .bans = db_count(s, s->r, T_BAN),
            .usage_rows = db_count(s, s->r, T_USAGE),
            .secrets = db_count(s, s->r, T_SECRET),
            .next_seq = s->next_seq,
            .commits = s->commits,
            .commits_failed = s->commits_failed,
            .ops = s->ops_total,
            .refused_room = s->refused_room,
            .corrupt = s->corrupt,
            .names_failed = s->names_failed,
            .loaded = s->loaded,
            .refuses = s->refuses,
        };
    read_end(s);
    return rc;
}
