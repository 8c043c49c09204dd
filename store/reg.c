/* Rendezvous registrations. Four trees, so arranged that an insertion among a million touches
 * little: reg  seq -> the record. New ones come behind all others. own  (peer, namespace), hashed
 * -> seq. One peer's stand together, so that what a client renews at once lies on one page; the one
 * place where a crowd of peers lands all over a tree. ns   (namespace, hashed; seq) -> nothing:
 * DISCOVER walks it. Behind the others of its namespace. Its first key, with seq 0, counts them and
 * holds the text. end  (when, seq) -> nothing: expiry. With few different ttls nearly behind all
 * others, too. */
#include "store/reg.h"

#include <errno.h>

/* ---- one registration's traces in the four trees ------------------------------------------- */

static int ns_count(struct store *s, MDB_txn *t, uint64_t ns_hash, uint32_t *regs)
{
    struct db_cur c;
    struct key k;
    int rc = cur_open(s, t, T_NS, &c);

    *regs = 0;
    if (rc)
        return rc;
    key_ns(&k, ns_hash, 0);
    rc = cur_from(&c, key_bytes(&k));
    if (!rc && bytes_eq(c.key, key_bytes(&k))) {
        struct cur v = cur_of(c.value);

        *regs = cur_u32(&v);
    } else if (!rc && key_has(c.key, k.b, HASH_BYTES)) {
        *regs = 1;
    }
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

/* One alone needs no head: a client's own namespace is most often that, and a million of them are a
 * third as many pages. */
static int ns_set(struct store *s, uint64_t ns_hash, uint32_t was, uint32_t regs)
{
    uint8_t v[NS_HEAD];
    struct key k;

    s->namespaces += !was;
    s->namespaces -= !regs;
    s->counts_dirty = true;
    key_ns(&k, ns_hash, 0);
    put_u32(v, regs);
    if (regs > 1)
        return db_put(s, T_NS, key_bytes(&k), bytes_of(v, sizeof(v)));
    return was > 1 ? db_del(s, T_NS, key_bytes(&k)) : 0;
}

static int put_end(struct store *s, uint64_t when, uint64_t seq)
{
    struct key k;

    key_end_reg(&k, when, seq);
    return db_put(s, T_END, key_bytes(&k), (struct bytes){ 0 });
}

static int del_end(struct store *s, uint64_t when, uint64_t seq)
{
    struct key k;

    key_end_reg(&k, when, seq);
    return db_del(s, T_END, key_bytes(&k));
}

/* An index without its other half is damage: counted, mended by going on, and found by check. */
static int mend(struct store *s, int rc)
{
    if (rc != -ENOENT)
        return rc;
    s->corrupt++;
    return 0;
}

/* Under a seq of its own: record, namespace's entry and end; not own, nor the head. */
static int put_traces(struct store *s, const struct store_reg *r, uint64_t ns_hash, uint64_t seq)
{
    struct key k;
    int rc;

    key_seq(&k, seq);
    rc = db_append(s, T_REG, key_bytes(&k), val_reg(s->value, key_bytes(&k), r));
    if (rc)
        return rc;
    key_ns(&k, ns_hash, seq);
    rc = db_put(s, T_NS, key_bytes(&k), (struct bytes){ 0 });
    return rc ? rc : put_end(s, r->expires_unix_s, seq);
}

static int del_traces(struct store *s, uint64_t ns_hash, uint64_t seq, uint64_t when)
{
    struct key k;
    int rc;

    key_seq(&k, seq);
    rc = mend(s, db_del(s, T_REG, key_bytes(&k)));
    if (rc)
        return rc;
    key_ns(&k, ns_hash, seq);
    rc = mend(s, db_del(s, T_NS, key_bytes(&k)));
    return rc ? rc : mend(s, del_end(s, when, seq));
}

/* ---- what is there ------------------------------------------------------------------------- */

struct found {
    uint64_t peer_hash, ns_hash;
    struct key own;
    struct store_reg r; /* borrows: until the first write */
    bool damaged;       /* of r only seq is known */
};

/* -ENOENT; -EEXIST: another peer or namespace has the same 128 bits, which chance does not do. */
static int find(struct store *s, MDB_txn *t, const struct peer_id *peer, struct bytes ns,
                struct found *f)
{
    struct bytes v, key;
    struct key k;
    int rc;

    f->peer_hash = hash_of(s, peer_id_bytes(peer));
    f->ns_hash = hash_of(s, ns);
    key_own(&f->own, f->peer_hash, f->ns_hash);
    rc = db_get(s, t, T_OWN, key_bytes(&f->own), &v);
    if (rc)
        return rc;

    struct cur c = cur_of(v);
    uint64_t seq = cur_u64(&c);

    key_seq(&k, seq);
    key = key_bytes(&k);
    rc = db_get(s, t, T_REG, key, &v);
    if (rc && rc != -ENOENT)
        return rc;
    f->damaged = rc || !open_reg(key, v, &f->r);
    if (f->damaged) {
        s->corrupt++;
        f->r = (struct store_reg){ .seq = seq };
        return 0;
    }
    return peer_id_eq(&f->r.peer, peer) && bytes_eq(f->r.ns, ns) ? 0 : -EEXIST;
}

/* A peer's are counted by walking them: there are no more than it may have. */
static int count_peer(struct store *s, MDB_txn *t, uint64_t peer_hash, uint64_t max, uint64_t *n)
{
    uint8_t prefix[HASH_BYTES];
    struct db_cur c;
    int rc = cur_open(s, t, T_OWN, &c);

    *n = 0;
    if (rc)
        return rc;
    put_u64(prefix, peer_hash);
    for (rc = cur_from(&c, bytes_of(prefix, sizeof(prefix)));
         !rc && *n < max && key_has(c.key, prefix, sizeof(prefix)); rc = cur_next(&c))
        ++*n;
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- operations ---------------------------------------------------------------------------- */

static bool sound(const struct store_reg *r)
{
    return r->peer.n && r->peer.n <= PEER_ID_MAX && r->ns.n <= STORE_NS_MAX && r->envelope.n &&
           r->envelope.n <= STORE_ENVELOPE_MAX;
}

static enum store_verdict within_limits(struct store *s, const struct found *f, uint32_t in_ns)
{
    const struct store_limits *l = &s->limits;
    uint64_t of_peer;
    int rc;

    if (l->regs && db_count(s, s->w, T_REG) >= l->regs)
        return STORE_FULL_TOTAL;
    if (l->regs_per_ns && in_ns >= l->regs_per_ns)
        return STORE_FULL_NS;
    if (!l->regs_per_peer)
        return STORE_OK;
    rc = count_peer(s, s->w, f->peer_hash, l->regs_per_peer, &of_peer);
    if (rc)
        return op_fail(s, rc);
    return of_peer >= l->regs_per_peer ? STORE_FULL_PEER : STORE_OK;
}

/* The record under its old seq, with other times. */
static int refresh(struct store *s, const struct store_reg *r, uint64_t seq, uint64_t old_end)
{
    struct key k;
    int rc;

    key_seq(&k, seq);
    rc = db_put(s, T_REG, key_bytes(&k), val_reg(s->value, key_bytes(&k), r));
    if (rc || old_end == r->expires_unix_s)
        return rc;
    rc = mend(s, del_end(s, old_end, seq));
    return rc ? rc : put_end(s, r->expires_unix_s, seq);
}

static int insert(struct store *s, const struct store_reg *r, const struct found *f, uint64_t seq)
{
    uint8_t v[SEQ_KEY];
    int rc = put_traces(s, r, f->ns_hash, seq);

    put_u64(v, seq);
    return rc ? rc : db_put(s, T_OWN, key_bytes(&f->own), bytes_of(v, sizeof(v)));
}

enum store_verdict store_reg_put(struct store *s, const struct store_reg *r, uint64_t *seq)
{
    enum store_verdict v;
    struct found f;
    uint32_t in_ns;
    uint64_t now = r->expires_unix_s > r->ttl_s ? r->expires_unix_s - r->ttl_s : 0, mine;
    int rc;

    if (!sound(r))
        return STORE_BAD;
    v = op_begin(s, true, r->envelope.n);
    if (v)
        return v;
    rc = find(s, s->w, &r->peer, r->ns, &f);
    if (rc == -EEXIST)
        return STORE_BAD;
    if (rc && rc != -ENOENT)
        return op_fail(s, rc);
    /* One that is over, and not yet swept away, is none: whoever saw it has dropped it, so that a
     * cookie must let it through again. */
    bool there = !rc, over = there && (f.damaged || f.r.expires_unix_s <= now);

    /* What another relay passes on may be old by then, whatever the peer itself may do here. */
    bool compared = s->limits.reg_seq_compared || r->tag;

    if (there && !over && compared && r->record_seq < f.r.record_seq)
        return STORE_OLD_SEQ;
    if (there && !over && bytes_eq(f.r.envelope, r->envelope)) {
        mine = f.r.seq;
        rc = refresh(s, r, mine, f.r.expires_unix_s);
    } else {
        rc = there ? 0 : ns_count(s, s->w, f.ns_hash, &in_ns);
        v = there || rc ? STORE_OK : within_limits(s, &f, in_ns);
        if (v)
            return v;
        mine = s->next_seq++;
        s->counts_dirty = true;
        if (!rc)
            rc = there ? del_traces(s, f.ns_hash, f.r.seq, f.r.expires_unix_s)
                       : ns_set(s, f.ns_hash, in_ns, in_ns + 1);
        if (!rc)
            rc = insert(s, r, &f, mine);
    }
    if (rc)
        return op_fail(s, rc);
    if (seq)
        *seq = mine;
    return STORE_OK;
}

/* All of it, the head's count included. */
static int drop(struct store *s, const struct found *f)
{
    uint64_t seq = f->r.seq, when = f->r.expires_unix_s;
    uint32_t in_ns;
    int rc = ns_count(s, s->w, f->ns_hash, &in_ns);

    if (!rc)
        rc = in_ns ? ns_set(s, f->ns_hash, in_ns, in_ns - 1) : mend(s, -ENOENT);
    if (!rc)
        rc = del_traces(s, f->ns_hash, seq, when);
    return rc ? rc : db_del(s, T_OWN, key_bytes(&f->own));
}

enum store_verdict store_reg_del(struct store *s, const struct peer_id *peer, struct bytes ns)
{
    enum store_verdict v;
    struct found f;
    int rc;

    if (!peer->n || peer->n > PEER_ID_MAX || ns.n > STORE_NS_MAX)
        return STORE_BAD;
    v = op_begin(s, false, 0);
    if (v)
        return v;
    rc = find(s, s->w, peer, ns, &f);
    if (rc == -ENOENT || rc == -EEXIST)
        return STORE_ABSENT;
    if (!rc)
        rc = drop(s, &f);
    return rc ? op_fail(s, rc) : STORE_OK;
}

/* One that cannot be read goes without its index entries: check names those, and a put of the same
 * peer and namespace replaces them. */
int reg_expire(struct store *s, uint64_t seq, uint64_t when_unix_s)
{
    struct bytes v, key;
    struct store_reg r;
    struct found f;
    struct key k;
    int rc;

    key_seq(&k, seq);
    key = key_bytes(&k);
    rc = db_get(s, s->w, T_REG, key, &v);
    if (rc)
        return mend(s, rc);
    if (open_reg(key, v, &r)) {
        if (r.expires_unix_s !=
            when_unix_s) { /* an end of nothing; the record's may have been it */
            s->corrupt++;
            return put_end(s, r.expires_unix_s, seq);
        }
        rc = find(s, s->w, &r.peer, r.ns, &f);
        if (rc && rc != -ENOENT && rc != -EEXIST)
            return rc;
        if (!rc && f.r.seq == seq)
            return drop(s, &f);
    }
    s->corrupt++;
    return mend(s, db_del(s, T_REG, key));
}

/* ---- discover ------------------------------------------------------------------------------ */

struct walk {
    const struct store_discover *q;
    struct db_cur index, regs; /* index: T_NS, or T_REG itself for every namespace */
    uint8_t prefix[HASH_BYTES];
    struct store_discovered *d;
};

static int walk_start(struct walk *w, struct store *s)
{
    uint64_t ns_hash = hash_of(s, w->q->ns);
    struct key k;

    if (w->q->after == UINT64_MAX)
        return -ENOENT;
    put_u64(w->prefix, ns_hash);
    if (w->q->all)
        key_seq(&k, w->q->after + 1);
    else
        key_ns(&k, ns_hash, w->q->after + 1);
    return cur_from(&w->index, key_bytes(&k));
}

/* The record that the index stands at. false: it is not sound, or of a namespace with the same
 * hash. */
static bool walk_reg(struct walk *w, struct store *s, uint64_t *seq, struct store_reg *r)
{
    struct cur k = cur_of(w->index.key);

    if (!w->q->all)
        cur_take(&k, HASH_BYTES);
    *seq = cur_u64(&k);
    if (!w->q->all) {
        if (cur_exact(&w->regs, bytes_of(w->index.key.p + HASH_BYTES, SEQ_KEY))) {
            s->corrupt++;
            return false;
        }
    }

    const struct db_cur *at = w->q->all ? &w->index : &w->regs;

    if (!open_reg(at->key, at->value, r)) {
        s->corrupt++;
        return false;
    }
    return w->q->all || bytes_eq(r->ns, w->q->ns);
}

static int walk_run(struct walk *w, struct store *s, store_reg_fn *fn, void *ctx)
{
    struct store_discovered *d = w->d;
    uint32_t looked = 0;
    int rc = walk_start(w, s);

    for (; !rc; rc = cur_next(&w->index)) {
        struct store_reg r;
        uint64_t seq;

        if (!w->q->all && !key_has(w->index.key, w->prefix, HASH_BYTES))
            return 0;
        if (d->taken == w->q->limit || looked++ == STORE_WALK_MAX) {
            d->more = true;
            return 0;
        }
        if (walk_reg(w, s, &seq, &r) && r.expires_unix_s > w->q->now_unix_s) {
            enum store_take take = fn(ctx, &r);

            if (take == STORE_STOP) {
                d->more = true;
                return 0;
            }
            d->taken += take == STORE_TAKE;
        }
        d->last = seq;
    }
    return rc == -ENOENT ? 0 : rc;
}

int store_discover(struct store *s, const struct store_discover *q, store_reg_fn *fn, void *ctx,
                   struct store_discovered *d)
{
    struct walk w = { .q = q, .d = d };
    int rc;

    *d = (struct store_discovered){ .last = q->after };
    if (!q->all && q->ns.n > STORE_NS_MAX)
        return 0;
    rc = read_begin(s);
    if (rc)
        return rc;
    rc = cur_open(s, s->r, q->all ? T_REG : T_NS, &w.index);
    if (rc)
        goto unread;
    rc = cur_open(s, s->r, T_REG, &w.regs);
    if (rc)
        goto unindex;
    rc = walk_run(&w, s, fn, ctx);
    cur_close(&w.regs);
unindex:
    cur_close(&w.index);
unread:
    read_end(s);
    return rc;
}

uint64_t store_reg_count_peer(struct store *s, const struct peer_id *peer)
{
    uint64_t n = 0;

    if (read_begin(s) == 0) {
        if (count_peer(s, s->r, hash_of(s, peer_id_bytes(peer)), UINT64_MAX, &n))
            n = 0;
        read_end(s);
    }
    return n;
}

uint64_t store_reg_count_ns(struct store *s, struct bytes ns)
{
    uint32_t n = 0;

    if (ns.n <= STORE_NS_MAX && read_begin(s) == 0) {
        if (ns_count(s, s->r, hash_of(s, ns), &n))
            n = 0;
        read_end(s);
    }
    return n;
}
