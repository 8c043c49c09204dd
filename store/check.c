/* Every record against every index that leads to it, and back. */
#include "store/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { FINDINGS_MAX = 100, LINE = 2048 };

struct check {
    struct store *s;
    store_line_fn *fn;
    void *ctx;
    uint64_t bad;
    uint64_t records;
    uint64_t next_seq, namespaces; /* as T_META says */
};

PRINTF_LIKE(2, 3) static void found(struct check *c, const char *fmt, ...)
{
    char line[LINE];
    va_list ap;

    if (c->bad++ >= FINDINGS_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    c->fn(c->ctx, line);
}

/* One tree, record by record; `one` says what it finds. */
typedef void record_fn(struct check *c, struct bytes key, struct bytes value);
static int each(struct check *c, enum tree tree, record_fn *one)
{
    struct db_cur cur;
    int rc = cur_open(c->s, c->s->r, tree, &cur);

    if (rc)
        return rc;
    for (rc = cur_from(&cur, (struct bytes){ 0 }); !rc; rc = cur_next(&cur)) {
        c->records++;
        one(c, cur.key, cur.value);
    }
    cur_close(&cur);
    return rc == -ENOENT ? 0 : rc;
}

static bool there(struct check *c, enum tree tree, const struct key *k, struct bytes *v)
{
    return db_get(c->s, c->s->r, tree, key_bytes(k), v) == 0;
}

/* ---- registrations ------------------------------------------------------------------------- */

static void one_reg(struct check *c, struct bytes key, struct bytes value)
{
    char peer[PEER_TEXT_MAX];
    struct store_reg r;
    struct bytes v;
    struct key k;

    if (!open_reg(key, value, &r)) {
        found(c, "reg: a record of %zu bytes is not sound", value.n);
        return;
    }
    peer_id_text(&r.peer, peer);
    if (r.seq >= c->next_seq)
        found(c, "reg %" PRIu64 " of %s: the next is to be %" PRIu64, r.seq, peer, c->next_seq);

    uint64_t peer_hash = hash_of(c->s, peer_id_bytes(&r.peer)), ns_hash = hash_of(c->s, r.ns);

    key_own(&k, peer_hash, ns_hash);
    if (!there(c, T_OWN, &k, &v) || !bytes_eq(v, key))
        found(c, "reg %" PRIu64 " of %s: own does not lead to it", r.seq, peer);
    key_ns(&k, ns_hash, r.seq);
    if (!there(c, T_NS, &k, &v))
        found(c, "reg %" PRIu64 " of %s: ns does not lead to it", r.seq, peer);
    key_end_reg(&k, r.expires_unix_s, r.seq);
    if (!there(c, T_END, &k, &v))
        found(c, "reg %" PRIu64 " of %s: end does not lead to it", r.seq, peer);
}

/* The record under a seq, for an index that leads to it. */
static bool reg_at(struct check *c, uint64_t seq, struct store_reg *r)
{
    struct bytes v;
    struct key k;

    key_seq(&k, seq);
    return there(c, T_REG, &k, &v) && open_reg(key_bytes(&k), v, r);
}

static void one_own(struct check *c, struct bytes key, struct bytes value)
{
    struct cur v = cur_of(value);
    uint64_t seq = cur_u64(&v);
    struct store_reg r;
    struct key k;

    if (v.bad || v.n || !reg_at(c, seq, &r)) {
        found(c, "own: leads to %" PRIu64 ", which is not there", seq);
        return;
    }
    key_own(&k, hash_of(c->s, peer_id_bytes(&r.peer)), hash_of(c->s, r.ns));
    if (!bytes_eq(key_bytes(&k), key))
        found(c, "own: leads to %" PRIu64 ", which is another's", seq);
}

/* Heads come before what they count. */
static void ns_done(struct check *c, uint64_t ns, uint32_t head, uint64_t met)
{
    if (met != head && !(met == 1 && !head))
        found(c, "ns %016" PRIx64 ": counts %u, and has %" PRIu64, ns, head, met);
}

static int every_ns(struct check *c)
{
    uint64_t ns = 0, met = 0, namespaces = 0;
    uint32_t head = 0;
    struct db_cur cur;
    bool any = false;
    int rc = cur_open(c->s, c->s->r, T_NS, &cur);

    if (rc)
        return rc;
    for (rc = cur_from(&cur, (struct bytes){ 0 }); !rc; rc = cur_next(&cur)) {
        struct cur k = cur_of(cur.key), v = cur_of(cur.value);
        uint64_t of = cur_u64(&k), seq = cur_u64(&k);
        struct store_reg r;

        if (any && of != ns)
            ns_done(c, ns, head, met);
        if (!any || of != ns)
            head = 0, met = 0, namespaces++;
        any = true;
        ns = of;
        if (seq == 0) {
            head = cur_u32(&v);
            continue;
        }
        met++;
        c->records++;
        if (!reg_at(c, seq, &r) || hash_of(c->s, r.ns) != ns)
            found(c, "ns %016" PRIx64 ": leads to %" PRIu64 ", which is not there", ns, seq);
    }
    if (any)
        ns_done(c, ns, head, met);
    if (!rc || rc == -ENOENT) {
        if (namespaces != c->namespaces)
            found(c, "meta: counts %" PRIu64 " namespaces, and there are %" PRIu64, c->namespaces,
                  namespaces);
    }
    cur_close(&cur);
    return rc == -ENOENT ? 0 : rc;
}

static void one_end(struct check *c, struct bytes key, struct bytes value)
{
    struct cur cur = cur_of(key);
    uint64_t when = cur_u64(&cur);
    uint8_t kind = cur_u8(&cur);
    struct store_reg r;
    struct store_ban b;
    struct bytes v;
    struct key k;

    (void)value;
    if (kind == END_REG) {
        uint64_t seq = cur_u64(&cur);

        if (cur.bad || !reg_at(c, seq, &r) || r.expires_unix_s != when)
            found(c, "end: of reg %" PRIu64 ", which does not end then", seq);
        return;
    }
    uint8_t ban = cur_u8(&cur);

    key_ban(&k, ban, cur_take(&cur, cur.n));
    if (cur.bad || !there(c, T_BAN, &k, &v) || !open_ban(key_bytes(&k), v, &b) ||
        b.until_unix_s != when)
        found(c, "end: of a ban that does not end then");
}

/* ---- the others ---------------------------------------------------------------------------- */

static void one_ban(struct check *c, struct bytes key, struct bytes value)
{
    struct store_ban b;
    struct bytes v;
    struct key k;

    if (!open_ban(key, value, &b)) {
        found(c, "ban: a record of %zu bytes is not sound", value.n);
        return;
    }
    key_end_ban(&k, b.until_unix_s, b.kind, b.key);
    if (b.until_unix_s != STORE_FOREVER && !there(c, T_END, &k, &v))
        found(c, "ban of kind %u: end does not lead to it", b.kind);
}

static void one_profile(struct check *c, struct bytes key, struct bytes value)
{
    struct store_profile p;

    if (!open_profile(key, value, &p))
        found(c, "profile: a record of %zu bytes is not sound", value.n);
}

static void one_secret(struct check *c, struct bytes key, struct bytes value)
{
    struct bytes secret;

    if (!open_secret(key, value, &secret))
        found(c, "secret %.*s: is not sound", (int)min_sz(key.n, STORE_SECRET_NAME_MAX),
              (const char *)key.p);
}

static void one_turn(struct check *c, struct bytes key, struct bytes value)
{
    struct store_turn_user u;

    if (!open_turn(key, value, &u))
        found(c, "turn: a record of %zu bytes is not sound", value.n);
}

/* "others" comes first in its day, and counts the day's rows. */
static int every_usage(struct check *c)
{
    uint32_t day = 0, counted = 0, met = 0;
    struct db_cur cur;
    bool any = false;
    int rc = cur_open(c->s, c->s->r, T_USAGE, &cur);

    if (rc)
        return rc;
    for (rc = cur_from(&cur, (struct bytes){ 0 }); !rc; rc = cur_next(&cur)) {
        struct store_usage u;
        uint32_t of, rows;

        c->records++;
        if (!open_usage(cur.key, cur.value, &of, &u, &rows)) {
            found(c, "usage: a row of %zu bytes is not sound", cur.value.n);
            continue;
        }
        if (any && of != day && met != counted)
            found(c, "usage of day %u: counts %u rows, and has %u", day, counted, met);
        if (!any || of != day)
            met = 0, counted = rows;
        any = true;
        day = of;
        met += u.peer.n != 0;
    }
    if (any && met != counted)
        found(c, "usage of day %u: counts %u rows, and has %u", day, counted, met);
    cur_close(&cur);
    return rc == -ENOENT ? 0 : rc;
}

static int run(struct check *c)
{
    static const struct {
        enum tree tree;
        record_fn *one;
    } trees[] = {
        { T_REG, one_reg },   { T_OWN, one_own },         { T_END, one_end },
        { T_BAN, one_ban },   { T_PROFILE, one_profile }, { T_SECRET, one_secret },
        { T_TURN, one_turn },
    };
    int rc = schema_get_counts(c->s, &c->next_seq, &c->namespaces);

    for (size_t i = 0; !rc && i < ARRAY_LEN(trees); i++)
        rc = each(c, trees[i].tree, trees[i].one);
    if (!rc)
        rc = every_ns(c);
    return rc ? rc : every_usage(c);
}

int store_check(struct store *s, store_line_fn *fn, void *ctx, uint64_t *bad)
{
    struct check c = { .s = s, .fn = fn, .ctx = ctx };
    char line[LINE];
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = run(&c);
    if (rc) {
        found(&c, "stopped: %s", strerror(-rc));
        rc = 0; /* that is what it came to find */
    }
    snprintf(line, sizeof(line),
             "%s: schema %d, %" PRIu64 " registrations, %" PRIu64 " profiles, %" PRIu64
             " TURN users, %" PRIu64 " bans, %" PRIu64 " rows of usage, %" PRIu64
             " secrets: %" PRIu64 " records and index entries read, %" PRIu64 " not sound",
             s->path, STORE_SCHEMA, db_count(s, s->r, T_REG), db_count(s, s->r, T_PROFILE),
             db_count(s, s->r, T_TURN), db_count(s, s->r, T_BAN), db_count(s, s->r, T_USAGE),
             db_count(s, s->r, T_SECRET), c.records, c.bad);
    fn(ctx, line);
    *bad = c.bad;
    read_end(s);
    return rc;
}
