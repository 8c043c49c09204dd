/* Who carried how much, per day. A row per (day, peer); "others" is the row of no peer, which also
 * counts the day's rows. A day holds limits.usage_peers of them: when one more comes, the quietest
 * eighth is added to "others" and goes, so that a crowd of passers-by costs no room and hides
 * nobody who carried much. */
#include "store/usage.h"

#include <errno.h>

enum {
    FOLD_SHARE = 8,
    CLASSES = 65, /* of traffic, by its highest bit; 0 for none */
};

static uint64_t add_u64(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void add(struct store_usage *to, const struct store_usage *u)
{
    to->in_bytes = add_u64(to->in_bytes, u->in_bytes);
    to->out_bytes = add_u64(to->out_bytes, u->out_bytes);
    to->circuits = add_u64(to->circuits, u->circuits);
    to->connected_s = add_u64(to->connected_s, u->connected_s);
}

static uint32_t day_of(uint64_t unix_s)
{
    return (uint32_t)min_u64(unix_s / DAY_S, UINT32_MAX - STORE_USAGE_DAYS);
}

/* Zeroes and -ENOENT if there is none; one that is not sound counts as zeroes. */
static int get_row(struct store *s, MDB_txn *t, uint32_t day, const struct peer_id *peer,
                   struct store_usage *u, uint32_t *rows)
{
    struct bytes v;
    struct key k;
    int rc;

    key_usage(&k, day, peer);
    rc = db_get(s, t, T_USAGE, key_bytes(&k), &v);
    if (!rc && open_usage(key_bytes(&k), v, &day, u, rows))
        return 0;
    if (!rc)
        s->corrupt++;
    *u = (struct store_usage){ .peer = *peer };
    *rows = 0;
    return rc;
}

static int put_row(struct store *s, uint32_t day, const struct store_usage *u, uint32_t rows)
{
    struct key k;

    key_usage(&k, day, &u->peer);
    return db_put(s, T_USAGE, key_bytes(&k), val_usage(s->value, key_bytes(&k), u, rows));
}

/* ---- folding ------------------------------------------------------------------------------- */

static unsigned class_of(const struct store_usage *u)
{
    uint64_t sum = add_u64(u->in_bytes, u->out_bytes);

    return sum ? 64 - (unsigned)__builtin_clzll(sum) : 0;
}

/* Walks the day's rows. With `most` == NULL it counts them by class; else it takes up to *want rows
 * of at most that class away and adds them to *others. */
static int fold_walk(struct store *s, uint32_t day, uint32_t count[CLASSES], const unsigned *most,
                     uint32_t *want, struct store_usage *others)
{
    uint8_t prefix[DAY_KEY];
    struct db_cur c;
    int rc = cur_open(s, s->w, T_USAGE, &c);

    if (rc)
        return rc;
    put_u32(prefix, day);
    for (rc = cur_from(&c, bytes_of(prefix, sizeof(prefix)));
         !rc && key_has(c.key, prefix, sizeof(prefix)) && (!most || *want); rc = cur_next(&c)) {
        struct store_usage u;
        uint32_t of, rows;

        if (c.key.n == DAY_KEY)
            continue;
        if (!open_usage(c.key, c.value, &of, &u, &rows)) {
            s->corrupt++;
            u = (struct store_usage){ 0 };
        }
        if (!most) {
            count[class_of(&u)]++;
        } else if (class_of(&u) <= *most) {
            add(others, &u);
            --*want;
            rc = cur_del(&c);
            if (rc)
                break;
        }
    }
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

static int fold(struct store *s, uint32_t day, struct store_usage *others, uint32_t *rows)
{
    uint32_t count[CLASSES] = { 0 }, goal = *rows / FOLD_SHARE, sum = 0, want;
    unsigned most = 0;
    int rc = fold_walk(s, day, count, NULL, NULL, NULL);

    if (rc)
        return rc;
    if (!goal)
        goal = 1;
    while (most + 1 < CLASSES && (sum += count[most]) < goal)
        most++;
    want = goal;
    rc = fold_walk(s, day, NULL, &most, &want, others);
    *rows -= goal - want;
    return rc;
}

/* ---- operations ---------------------------------------------------------------------------- */

enum store_verdict store_usage_add(struct store *s, uint64_t now_unix_s,
                                   const struct store_usage *u)
{
    uint32_t day = day_of(now_unix_s), rows, none, max = s->limits.usage_peers;
    struct store_usage row, others;
    struct peer_id nobody = { 0 };
    enum store_verdict v;
    int rc;

    if (u->peer.n > PEER_ID_MAX)
        return STORE_BAD;
    v = op_begin(s, true, 0);
    if (v)
        return v;
    rc = get_row(s, s->w, day, &u->peer, &row, &none);
    if (rc && rc != -ENOENT)
        return op_fail(s, rc);
    if (!rc && u->peer.n) {
        add(&row, u);
        rc = put_row(s, day, &row, 0);
        return rc ? op_fail(s, rc) : STORE_OK;
    }
    rc = get_row(s, s->w, day, &nobody, &others, &rows);
    if (rc && rc != -ENOENT)
        return op_fail(s, rc);
    rc = 0;
    if (!u->peer.n) {
        add(&others, u);
    } else {
        if (max && rows >= max)
            rc = fold(s, day, &others, &rows);
        if (!rc)
            rc = put_row(s, day, u, 0);
        rows++;
    }
    if (!rc)
        rc = put_row(s, day, &others, rows);
    return rc ? op_fail(s, rc) : STORE_OK;
}

int usage_expire(struct store *s, uint64_t now_unix_s, size_t max, size_t *n, bool *left)
{
    struct db_cur c;
    int rc = cur_open(s, s->w, T_USAGE, &c);

    if (rc)
        return rc;
    for (rc = cur_from(&c, (struct bytes){ 0 }); !rc; rc = cur_next(&c)) {
        struct cur k = cur_of(c.key);

        if ((uint64_t)cur_u32(&k) + STORE_USAGE_DAYS > day_of(now_unix_s))
            break;
        if (*n == max || (*n && !op_may_sweep(s))) {
            *left = true;
            break;
        }
        rc = cur_del(&c);
        if (rc)
            break;
        s->ops++;
        ++*n;
    }
    cur_close(&c);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- reading ------------------------------------------------------------------------------- */

static unsigned days_within(unsigned days)
{
    return days < 1 ? 1 : days > STORE_USAGE_DAYS ? STORE_USAGE_DAYS : days;
}

int store_usage_peer(struct store *s, const struct peer_id *peer, uint64_t now_unix_s,
                     unsigned days, struct store_usage *sum)
{
    uint32_t today = day_of(now_unix_s);
    int rc = read_begin(s);

    if (rc)
        return rc;
    *sum = (struct store_usage){ .peer = *peer };
    for (unsigned i = 0; i < days_within(days) && i <= today; i++) {
        struct store_usage u;
        uint32_t rows;

        rc = get_row(s, s->r, today - i, peer, &u, &rows);
        if (rc && rc != -ENOENT)
            break;
        add(sum, &u);
    }
    read_end(s);
    return rc == -ENOENT ? 0 : rc;
}

/* The days' rows, merged: each is in order of peer ids. */
struct merge {
    struct day {
        struct db_cur c;
        uint8_t prefix[DAY_KEY];
        bool on;
    } days[STORE_USAGE_DAYS];
    unsigned n;
};

static int day_step(struct day *d, int rc)
{
    d->on = !rc && key_has(d->c.key, d->prefix, DAY_KEY);
    return rc == -ENOENT ? 0 : rc;
}

static int compare(struct bytes a, struct bytes b)
{
    int rc = memcmp(a.p, b.p, min_sz(a.n, b.n)); /* never empty: the day is in both */

    return rc ? rc : a.n < b.n ? -1 : a.n > b.n;
}

static struct bytes peer_of(const struct day *d)
{
    return bytes_of(d->c.key.p + DAY_KEY, d->c.key.n - DAY_KEY);
}

static int merge_start(struct merge *m, struct store *s, uint32_t today, unsigned days,
                       const struct peer_id *after)
{
    struct key k;
    int rc = 0;

    for (m->n = 0; !rc && m->n < days && m->n <= today; m->n += !rc) {
        struct day *d = &m->days[m->n];

        rc = cur_open(s, s->r, T_USAGE, &d->c);
        if (rc)
            break;
        put_u32(d->prefix, today - m->n);
        key_usage(&k, today - m->n, after ? after : &(struct peer_id){ 0 });
        rc = day_step(d, cur_from(&d->c, key_bytes(&k)));
        if (!rc && d->on && after && bytes_eq(d->c.key, key_bytes(&k)))
            rc = day_step(d, cur_next(&d->c));
        if (rc)
            cur_close(&d->c);
    }
    return rc;
}

/* The smallest peer that a day stands at, in *first; false: all are through. */
static bool merge_first(const struct merge *m, uint8_t first[KEY_MAX], size_t *n)
{
    const struct day *least = NULL;

    for (unsigned i = 0; i < m->n; i++) {
        const struct day *d = &m->days[i];

        if (d->on && (!least || !peer_of(d).n ||
                      (peer_of(least).n && compare(peer_of(d), peer_of(least)) < 0)))
            least = d;
    }
    if (!least)
        return false;
    *n = peer_of(least).n;
    if (*n)
        memcpy(first, peer_of(least).p, *n);
    return true;
}

static int merge_take(struct merge *m, struct store *s, struct bytes peer, struct store_usage *sum)
{
    int rc = 0;

    *sum = (struct store_usage){ 0 };
    for (unsigned i = 0; !rc && i < m->n; i++) {
        struct day *d = &m->days[i];
        struct store_usage u;
        uint32_t day, rows;

        if (!d->on || !bytes_eq(peer_of(d), peer))
            continue;
        if (open_usage(d->c.key, d->c.value, &day, &u, &rows)) {
            add(sum, &u);
            sum->peer = u.peer;
        } else {
            s->corrupt++;
        }
        rc = day_step(d, cur_next(&d->c));
    }
    return rc;
}

int store_usage_list(struct store *s, uint64_t now_unix_s, unsigned days,
                     const struct peer_id *after, size_t limit, store_usage_fn *fn, void *ctx)
{
    struct merge m;
    uint8_t first[KEY_MAX];
    size_t n;
    int rc = read_begin(s);

    if (rc)
        return rc;
    rc = merge_start(&m, s, day_of(now_unix_s), days_within(days), after);
    for (size_t i = 0; !rc && i < limit && merge_first(&m, first, &n); i++) {
        struct store_usage sum;

        rc = merge_take(&m, s, bytes_of(first, n), &sum);
        if (!rc && !fn(ctx, &sum))
            break;
    }
    for (unsigned i = 0; i < m.n; i++)
        cur_close(&m.days[i].c);
    read_end(s);
    return rc;
}
