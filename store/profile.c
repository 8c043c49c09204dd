/* Directory profiles: a tree by peer id, and beside it an index over the names, in memory, which
 * learns of a change when its transaction is durable. */
#include "store/profile.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the index ----------------------------------------------------------------------------- */

/* A change that it has no memory for is a profile not found by its name until its client registers
 * again, 120 s later; the profile itself is kept. */
static void tell(struct store *s, const struct name_change *c)
{
    struct bytes peer = peer_id_bytes(&c->peer);

    if (c->gone)
        (void)names_remove(s->names, peer);
    else if (names_put(s->names, peer, bytes_of(c->name, c->name_n), c->last_seen_unix_s))
        s->names_failed++;
}

void profile_committed(struct store *s)
{
    for (size_t i = 0; i < s->changes_n; i++)
        tell(s, &s->changes[i]);
    s->changes_n = 0;
}

static struct name_change *change_of(struct store *s, const struct peer_id *peer)
{
    struct name_change *c;

    if (s->changes_n == s->changes_cap) {
        size_t cap = s->changes_cap ? 2 * s->changes_cap : 64;
        struct name_change *more = realloc(s->changes, cap * sizeof(*more));

        if (!more)
            return NULL;
        s->changes = more;
        s->changes_cap = cap;
    }
    c = &s->changes[s->changes_n++];
    *c = (struct name_change){ .peer = *peer };
    return c;
}

static int load_some(struct store *s, size_t max, bool *all)
{
    struct db_cur c;
    int rc = cur_open(s, s->r, T_PROFILE, &c);

    if (rc)
        return rc;
    rc = cur_from(&c, peer_id_bytes(&s->load_after));
    if (!rc && s->load_after.n && bytes_eq(c.key, peer_id_bytes(&s->load_after)))
        rc = cur_next(&c);
    for (size_t i = 0; !rc && i < max; i++) {
        struct store_profile p;
        int err;

        if (!open_profile(c.key, c.value, &p)) {
            s->corrupt++;
        } else {
            err = names_load(s->names, c.key, p.display_name, p.last_seen_unix_s);
            if (err == -ENOMEM)
                rc = err;
            else if (err && err != -EEXIST) /* there, and newer: put since we were opened */
                s->names_failed++;
            s->load_after = p.peer;
        }
        if (!rc)
            rc = cur_next(&c);
    }
    cur_close(&c);
    *all = rc == -ENOENT;
    return rc == -ENOENT ? 0 : rc;
}

int store_load(struct store *s, size_t max, bool *done)
{
    bool more = true;
    int rc;

    if (s->loaded) {
        *done = true;
        return 0;
    }
    if (!s->load_read) {
        rc = read_begin(s);
        if (!rc) {
            rc = load_some(s, max, &s->load_read);
            read_end(s);
        }
    } else {
        rc = names_settle(s->names, (uint32_t)min_sz(max, UINT32_MAX), &more);
    }
    if (!rc && !more)
        s->loaded = true;
    *done = s->loaded;
    return rc;
}

/* ---- operations ---------------------------------------------------------------------------- */

static bool sound(const struct peer_id *peer, struct bytes name, struct bytes addr)
{
    return peer->n && peer->n <= PEER_ID_MAX && name.n && name.n <= STORE_NAME_MAX &&
           addr.n <= STORE_ADDR_MAX;
}

enum store_verdict store_profile_put(struct store *s, const struct peer_id *peer,
                                     struct bytes display_name, struct bytes relay_addr,
                                     uint64_t now_unix_s)
{
    struct store_profile p;
    struct name_change *c;
    enum store_verdict verdict;
    struct bytes v;
    int rc;

    if (!sound(peer, display_name, relay_addr))
        return STORE_BAD;
    verdict = op_begin(s, true, 0);
    if (verdict)
        return verdict;
    rc = db_get(s, s->w, T_PROFILE, peer_id_bytes(peer), &v);
    if (rc && rc != -ENOENT)
        return op_fail(s, rc);
    if (rc && s->limits.profiles && db_count(s, s->w, T_PROFILE) >= s->limits.profiles)
        return STORE_FULL_TOTAL;
    if (rc || !open_profile(peer_id_bytes(peer), v, &p))
        p.registered_unix_s = now_unix_s;
    p.peer = *peer;
    p.display_name = display_name;
    p.relay_addr = relay_addr;
    p.last_seen_unix_s = now_unix_s;
    rc = db_put(s, T_PROFILE, peer_id_bytes(peer), val_profile(s->value, peer_id_bytes(peer), &p));
    c = rc ? NULL : change_of(s, peer);
    if (!c)
        return op_fail(s, rc ? rc : -ENOMEM);
    c->last_seen_unix_s = now_unix_s;
    c->name_n = (uint16_t)display_name.n;
    memcpy(c->name, display_name.p, display_name.n);
    return STORE_OK;
}

enum store_verdict store_profile_del(struct store *s, const struct peer_id *peer)
{
    enum store_verdict verdict;
    struct name_change *c;
    int rc;

    if (!peer->n || peer->n > PEER_ID_MAX)
        return STORE_BAD;
    verdict = op_begin(s, false, 0);
    if (verdict)
        return verdict;
    rc = db_del(s, T_PROFILE, peer_id_bytes(peer));
    if (rc == -ENOENT)
        return STORE_ABSENT;
    c = rc ? NULL : change_of(s, peer);
    if (!c)
        return op_fail(s, rc ? rc : -ENOMEM);
    c->gone = true;
    return STORE_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

int store_profile_get(struct store *s, const struct peer_id *peer, store_profile_fn *fn, void *ctx)
{
    struct store_profile p;
    struct bytes v;
    int rc;

    if (!peer->n || peer->n > PEER_ID_MAX)
        return -ENOENT;
    rc = read_begin(s);
    if (rc)
        return rc;
    rc = db_get(s, s->r, T_PROFILE, peer_id_bytes(peer), &v);
    if (!rc && !open_profile(peer_id_bytes(peer), v, &p)) {
        s->corrupt++;
        rc = -EIO;
    }
    if (!rc)
        (void)fn(ctx, &p);
    read_end(s);
    return rc;
}

int store_profile_search(struct store *s, struct bytes query, size_t limit, store_profile_fn *fn,
                         void *ctx)
{
    struct names_hit hits[NAMES_FIND_MAX];
    struct peer_id exact = { 0 };
    size_t n;
    int rc;

    if (query.n < PEER_TEXT_MAX && !peer_id_parse(query, &exact))
        exact.n = 0;
    n = names_find(s->names, query, peer_id_bytes(&exact), min_sz(limit, NAMES_FIND_MAX), hits);
    rc = read_begin(s);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        struct store_profile p;
        struct bytes v;

        if (db_get(s, s->r, T_PROFILE, hits[i].peer, &v) || !open_profile(hits[i].peer, v, &p))
            s->corrupt++; /* the index knows only what was committed */
        else if (!fn(ctx, &p))
            break;
    }
    read_end(s);
    return 0;
}
