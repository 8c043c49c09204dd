/* The other kinds of records: profiles and their search, secrets, TURN users, bans, usage. */
#include "tests/unit/store_dir.h"

#include <errno.h>

TestSuite(store_kinds, .init = sd_open, .fini = sd_close, .timeout = 60);

/* ---- directory ----------------------------------------------------------------------------- */

struct people {
    unsigned n, stop_at;
    char name[32][64];
    char addr[32][64];
    uint64_t seen[32], since[32];
};

static bool person(void *ctx, const struct store_profile *p)
{
    struct people *all = ctx;

    if (all->n < 32) {
        snprintf(all->name[all->n], 64, "%.*s", (int)p->display_name.n,
                 (const char *)p->display_name.p);
        snprintf(all->addr[all->n], 64, "%.*s", (int)p->relay_addr.n,
                 (const char *)p->relay_addr.p);
        all->seen[all->n] = p->last_seen_unix_s;
        all->since[all->n] = p->registered_unix_s;
    }
    all->n++;
    return all->n != all->stop_at;
}

static enum store_verdict name(unsigned peer, const char *text, uint64_t now)
{
    struct peer_id p = sd_peer(peer);
    enum store_verdict v;

    sd_begin();
    v = store_profile_put(sd, &p, bytes_str(text), bytes_str("/x"), now);
    sd_commit();
    return v;
}

static unsigned search(const char *query, struct people *p)
{
    memset(p, 0, sizeof(*p));
    cr_assert(eq(int, store_profile_search(sd, bytes_str(query), 20, person, p), 0));
    return p->n;
}

Test(store_kinds, a_profile_keeps_since_when_and_renews_the_rest)
{
    struct people g = { 0 };
    struct peer_id p = sd_peer(1);

    cr_assert(eq(int, name(1, "alice", NOW), STORE_OK));
    cr_assert(eq(int, name(1, "Alicia", NOW + 120), STORE_OK));
    cr_assert(eq(int, store_profile_get(sd, &p, person, &g), 0));
    cr_assert(eq(str, g.name[0], "Alicia"));
    cr_assert(eq(str, g.addr[0], "/x"));
    cr_assert(eq(u64, g.since[0], NOW));
    cr_assert(eq(u64, g.seen[0], NOW + 120));
    p = sd_peer(2);
    cr_assert(eq(int, store_profile_get(sd, &p, person, &g), -ENOENT));
}

Test(store_kinds, profiles_are_found_by_part_of_the_name_newest_first)
{
    struct people g;

    name(1, "Alice", NOW);
    name(2, "malice", NOW + 2);
    name(3, "bob", NOW + 3);
    name(4, "ALICIA", NOW + 1);
    cr_assert(eq(u32, search("ali", &g), 3));
    cr_assert(eq(str, g.name[0], "malice"));
    cr_assert(eq(str, g.name[1], "ALICIA"));
    cr_assert(eq(str, g.name[2], "Alice"));
    cr_assert(eq(u32, search("%", &g), 0));
    cr_assert(eq(u32, search("zzz", &g), 0));
    name(1, "Alice", NOW + 9); /* seen again */
    search("ali", &g);
    cr_assert(eq(str, g.name[0], "Alice"));
    name(2, "renamed", NOW + 10);
    cr_assert(eq(u32, search("mali", &g), 0));
    cr_assert(eq(u32, search("rename", &g), 1));
}

Test(store_kinds, profiles_are_found_by_the_exact_peer_id)
{
    struct people g;
    struct peer_id p = sd_peer(7);
    char text[PEER_TEXT_MAX];

    name(7, "seven", NOW);
    name(8, "eight", NOW);
    peer_id_text(&p, text);
    cr_assert(eq(u32, search(text, &g), 1));
    cr_assert(eq(str, g.name[0], "seven"));
    text[strlen(text) - 1] = '\0';
    cr_assert(eq(u32, search(text, &g), 0));
}

Test(store_kinds, at_most_as_many_profiles_as_asked_for)
{
    struct people g = { .stop_at = 2 };
    char text[32];

    for (unsigned i = 0; i < 30; i++) {
        snprintf(text, sizeof(text), "user %u", i);
        name(i, text, NOW + i);
    }
    cr_assert(eq(int, store_profile_search(sd, bytes_str("user"), 20, person, &g), 0));
    cr_assert(eq(u32, g.n, 2));
    cr_assert(eq(u32, search("user", &g), 20));
    cr_assert(eq(str, g.name[0], "user 29"));
}

Test(store_kinds, a_removed_profile_is_gone_from_record_and_search_after_the_commit)
{
    struct people g;
    struct peer_id p = sd_peer(1);

    name(1, "alice", NOW);
    sd_begin();
    cr_assert(eq(int, store_profile_del(sd, &p), STORE_OK));
    cr_assert(eq(int, store_profile_del(sd, &p), STORE_ABSENT));
    cr_assert(eq(u32, search("alice", &g), 1), "found what is committed");
    sd_commit();
    cr_assert(eq(u32, search("alice", &g), 0));
    sd_begin();
    cr_assert(eq(int, store_profile_put(sd, &p, bytes_str("back"), bytes_str(""), NOW), STORE_OK));
    store_abort(sd);
    cr_assert(eq(u32, search("back", &g), 0), "an aborted one is found");
}

Test(store_kinds, profiles_survive_a_restart_and_are_found)
{
    struct people g;
    char text[32];

    for (unsigned i = 0; i < 500; i++) {
        snprintf(text, sizeof(text), "user %u", i);
        name(i, text, NOW + i);
    }
    sd_reopen();
    cr_assert(eq(u32, search("user 499", &g), 1));
    cr_assert(eq(u64, g.since[0], NOW + 499));
    struct store_opts o = sd_opts();
    bool done = false;
    unsigned steps = 0;

    store_close(sd);
    cr_assert(eq(int, sd_try(&o), 0), "%s", sd_why);
    for (; !done; steps++) { /* by the smallest steps it comes to an end, too */
        cr_assert(eq(int, store_load(sd, 1, &done), 0));
        cr_assert(lt(u32, steps, 2000));
    }
    cr_assert(le(u32, 500, steps));
    cr_assert(eq(u32, search("USER 12", &g), 11));
}

Test(store_kinds, profiles_written_before_the_loading_is_done_stay_the_newer_ones)
{
    struct store_opts o = sd_opts();
    struct people g;
    bool done = false;
    struct peer_id p = sd_peer(3);

    name(1, "one", NOW);
    name(2, "two", NOW);
    name(3, "three", NOW);
    store_close(sd);
    cr_assert(eq(int, sd_try(&o), 0), "%s", sd_why);
    cr_assert(eq(int, store_load(sd, 1, &done), 0));
    cr_assert(not(done));
    name(2, "deux", NOW + 1);
    name(4, "four", NOW + 1);
    sd_begin();
    cr_assert(eq(int, store_profile_del(sd, &p), STORE_OK));
    sd_commit();
    sd_load();
    cr_assert(eq(u32, search("two", &g), 0));
    cr_assert(eq(u32, search("deux", &g), 1));
    cr_assert(eq(u32, search("four", &g), 1));
    cr_assert(eq(u32, search("three", &g), 0));
    cr_assert(eq(u32, search("one", &g), 1));
}

Test(store_kinds, profiles_have_bounds)
{
    static char text[STORE_ADDR_MAX + 2];
    struct store_opts o = sd_opts();
    struct peer_id p = sd_peer(1);

    memset(text, 'x', sizeof(text));
    sd_begin();
    cr_assert(eq(int,
                 store_profile_put(sd, &p, bytes_of(text, STORE_NAME_MAX),
                                   bytes_of(text, STORE_ADDR_MAX), NOW),
                 STORE_OK));
    cr_assert(eq(int,
                 store_profile_put(sd, &p, bytes_of(text, STORE_NAME_MAX + 1), bytes_str(""), NOW),
                 STORE_BAD));
    cr_assert(eq(int, store_profile_put(sd, &p, bytes_str(""), bytes_str(""), NOW), STORE_BAD));
    cr_assert(eq(int,
                 store_profile_put(sd, &p, bytes_str("n"), bytes_of(text, STORE_ADDR_MAX + 1), NOW),
                 STORE_BAD));
    sd_commit();
    store_close(sd);
    o.limits.profiles = 2;
    sd_open_with(&o);
    cr_assert(eq(int, name(2, "two", NOW), STORE_OK));
    cr_assert(eq(int, name(3, "three", NOW), STORE_FULL_TOTAL));
    cr_assert(eq(int, name(2, "zwei", NOW), STORE_OK));
    sd_begin();
    cr_assert(eq(int, store_profile_del(sd, &p), STORE_OK));
    sd_commit();
    cr_assert(eq(int, name(3, "three", NOW), STORE_OK));
}

/* ---- secrets ------------------------------------------------------------------------------- */

Test(store_kinds, a_secret_is_made_once_and_the_same_ever_after)
{
    uint8_t a[32], b[32], c[16], zero[32] = { 0 };
    struct store_opts o = sd_opts();

    cr_assert(eq(int, store_secret(sd, STORE_SECRET_TURN, a, sizeof(a)), 0));
    cr_assert(ne(int, memcmp(a, zero, sizeof(a)), 0));
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_COOKIE, c, sizeof(c)), 0));
    cr_assert(ne(int, memcmp(a, c, sizeof(c)), 0));
    sd_reopen();
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_TURN, b, sizeof(b)), 0));
    cr_assert(eq(int, memcmp(a, b, sizeof(a)), 0));
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_TURN, b, 16), -EINVAL));
    cr_assert(eq(int, store_secret(sd, "", b, 16), -EINVAL));
    cr_assert(eq(int, store_secret(sd, "x", b, STORE_SECRET_MAX + 1), -EINVAL));
    sd_begin();
    cr_assert(eq(int, store_secret(sd, "other", b, 16), -EBUSY));
    store_abort(sd);
    store_close(sd);
    o.read_only = true;
    sd_open_with(&o);
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_TURN, b, sizeof(b)), 0));
    cr_assert(eq(int, store_secret(sd, "other", b, 16), -ENOENT));
}

/* ---- TURN users ---------------------------------------------------------------------------- */

static unsigned users;
static bool user(void *ctx, const struct store_turn_user *u)
{
    const struct store_turn_user *want = ctx;

    users++;
    if (bytes_eq(u->name, want->name) && bytes_eq(u->realm, want->realm))
        cr_expect(not(memcmp(u->key_md5, want->key_md5, 16) ||
                      memcmp(u->key_sha256, want->key_sha256, 32)));
    return true;
}

Test(store_kinds, turn_users_are_put_listed_and_deleted)
{
    struct store_opts o = sd_opts();
    struct store_turn_user u = { .name = bytes_str("ann"), .realm = bytes_str("r") }, v = u;

    store_close(sd);
    o.limits.turn_users = 2;
    sd_open_with(&o);
    sd_rng(u.key_md5, 48);
    sd_begin();
    cr_assert(eq(int, store_turn_user_put(sd, &u), STORE_OK));
    v.realm = bytes_str("other");
    cr_assert(eq(int, store_turn_user_put(sd, &v), STORE_OK));
    v.name = bytes_str("bob");
    cr_assert(eq(int, store_turn_user_put(sd, &v), STORE_FULL_TOTAL));
    sd_rng(u.key_md5, 48);
    cr_assert(eq(int, store_turn_user_put(sd, &u), STORE_OK));
    sd_commit();
    sd_reopen();
    cr_assert(eq(int, store_turn_users(sd, user, &u), 0));
    cr_assert(eq(u32, users, 2));
    sd_begin();
    cr_assert(eq(int, store_turn_user_del(sd, u.name, u.realm), STORE_OK));
    cr_assert(eq(int, store_turn_user_del(sd, u.name, u.realm), STORE_ABSENT));
    /* a name that goes on where a realm begins is another user */
    cr_assert(eq(int, store_turn_user_del(sd, bytes_str("anno"), bytes_str("ther")), STORE_ABSENT));
    u.name.n = 0;
    cr_assert(eq(int, store_turn_user_put(sd, &u), STORE_BAD));
    sd_commit();
    users = 0;
    cr_assert(eq(int, store_turn_users(sd, user, &u), 0));
    cr_assert(eq(u32, users, 1));
}

/* ---- bans ---------------------------------------------------------------------------------- */

static unsigned banned;
static bool ban(void *ctx, const struct store_ban *b)
{
    (void)ctx;
    banned++;
    return b->key.n > 0;
}

static unsigned bans(uint64_t now)
{
    banned = 0;
    cr_assert(eq(int, store_bans(sd, now, ban, NULL), 0));
    return banned;
}

Test(store_kinds, bans_are_put_replaced_deleted_and_expire)
{
    struct store_ban a = { 1, bytes_str("peer"), NOW + 10 },
                     b = { 2, bytes_str("peer"), STORE_FOREVER };
    static char key[STORE_BAN_KEY_MAX + 1];
    struct store_ban c = { 3, bytes_of(key, STORE_BAN_KEY_MAX), NOW + 20 };
    bool left;

    sd_begin();
    cr_assert(eq(int, store_ban_put(sd, &a), STORE_OK));
    cr_assert(eq(int, store_ban_put(sd, &b), STORE_OK));
    cr_assert(eq(int, store_ban_put(sd, &c), STORE_OK));
    c.key.n++;
    cr_assert(eq(int, store_ban_put(sd, &c), STORE_BAD));
    sd_commit();
    sd_reopen();
    cr_assert(eq(u32, bans(NOW), 3));
    cr_assert(eq(u32, bans(NOW + 10), 2));
    cr_assert(eq(u64, store_deadline_unix_s(sd), NOW + 10));
    a.until_unix_s = NOW + 30; /* longer: the earlier end counts no more */
    sd_begin();
    cr_assert(eq(int, store_ban_put(sd, &a), STORE_OK));
    cr_assert(eq(int, store_expire(sd, NOW + 20, 100, &left), STORE_OK));
    sd_commit();
    cr_assert(eq(u32, bans(NOW), 2));
    cr_assert(eq(u64, sd_findings(), 0));
    sd_begin();
    cr_assert(eq(int, store_ban_del(sd, 2, b.key), STORE_OK));
    cr_assert(eq(int, store_ban_del(sd, 2, b.key), STORE_ABSENT));
    a.until_unix_s = STORE_FOREVER;
    cr_assert(eq(int, store_ban_put(sd, &a), STORE_OK));
    cr_assert(eq(int, store_expire(sd, NOW + 1000, 100, &left), STORE_OK));
    sd_commit();
    cr_assert(eq(u32, bans(NOW + 1000), 1));
    cr_assert(eq(u64, store_deadline_unix_s(sd), STORE_FOREVER));
}

/* ---- usage --------------------------------------------------------------------------------- */

enum { DAY = 86400 };

static void carry(unsigned peer, uint64_t now, uint64_t in)
{
    struct store_usage u = { sd_peer(peer), in, 2 * in, 1, 60 };

    cr_assert(eq(int, store_usage_add(sd, now, &u), STORE_OK));
}

struct rows {
    unsigned n;
    uint64_t in, others;
    struct peer_id last;
    bool ordered;
};

static bool row(void *ctx, const struct store_usage *u)
{
    struct rows *r = ctx;

    if (r->n && memcmp(r->last.b, u->peer.b, PEER_ID_MAX) >= 0)
        r->ordered = false;
    r->n++;
    r->in += u->in_bytes;
    if (!u->peer.n)
        r->others = u->in_bytes;
    r->last = u->peer;
    return true;
}

static struct rows list(uint64_t now, unsigned days, const struct peer_id *after, size_t limit)
{
    struct rows r = { .ordered = true };

    cr_assert(eq(int, store_usage_list(sd, now, days, after, limit, row, &r), 0));
    return r;
}

Test(store_kinds, usage_adds_up_by_peer_and_by_days)
{
    struct peer_id p = sd_peer(5);
    struct store_usage sum;
    struct rows r;

    sd_begin();
    for (unsigned day = 0; day < 31; day++)
        for (unsigned peer = 0; peer < 10; peer++)
            if ((day + peer) % 3)
                carry(peer, NOW - day * DAY, 1000);
    carry(5, NOW, 1);
    sd_commit();
    cr_assert(eq(int, store_usage_peer(sd, &p, NOW, 1, &sum), 0));
    cr_assert(eq(u64, sum.in_bytes, 1001));
    cr_assert(eq(u64, sum.out_bytes, 2002));
    cr_assert(eq(u64, sum.circuits, 2));
    cr_assert(eq(u64, sum.connected_s, 120));
    cr_assert(eq(int, store_usage_peer(sd, &p, NOW, 31, &sum), 0));
    cr_assert(eq(u64, sum.in_bytes, 21001));
    p = sd_peer(99);
    cr_assert(eq(int, store_usage_peer(sd, &p, NOW, 31, &sum), 0));
    cr_assert(eq(u64, sum.in_bytes, 0));
    r = list(NOW, 31, NULL, 100);
    cr_assert(eq(u32, r.n, 11)); /* "others" too */
    cr_assert(r.ordered);
    cr_assert(eq(u64, r.in, 1000 * 206 + 1));
    r = list(NOW, 1, NULL, 100);
    cr_assert(eq(u32, r.n, 7));
    /* page by page it is the same */
    r = list(NOW, 31, NULL, 4);
    cr_assert(eq(u32, r.n, 4));
    p = r.last;
    r = list(NOW, 31, &p, 4);
    cr_assert(eq(u32, r.n, 4));
    p = r.last;
    r = list(NOW, 31, &p, 4);
    cr_assert(eq(u32, r.n, 3));
    p = r.last;
    cr_assert(eq(u32, list(NOW, 31, &p, 4).n, 0));
}

Test(store_kinds, usage_goes_after_31_days)
{
    struct rows r;
    bool left;

    sd_begin();
    for (unsigned day = 0; day < 40; day++)
        carry(1, NOW - day * DAY, 1);
    sd_commit();
    cr_assert(le(u64, store_deadline_unix_s(sd), NOW));
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW, 5, &left), STORE_OK));
    cr_assert(left);
    cr_assert(eq(int, store_expire(sd, NOW, 100, &left), STORE_OK));
    cr_assert(not(left));
    sd_commit();
    r = list(NOW, 31, NULL, 9);
    cr_assert(eq(u64, r.in, 31));
    cr_assert(eq(u64, store_deadline_unix_s(sd), (NOW / DAY + 1) * (uint64_t)DAY));
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW + DAY, 100, &left), STORE_OK));
    sd_commit();
    r = list(NOW, 31, NULL, 9);
    cr_assert(eq(u64, r.in, 30), "today and the thirty before are kept, no more");
}

Test(store_kinds, a_full_day_folds_its_quietest_and_loses_no_byte)
{
    struct store_opts o = sd_opts();
    struct store_usage sum;
    struct store_stats st;
    struct peer_id loud = sd_peer(3);
    struct rows r;

    store_close(sd);
    o.limits.usage_peers = 16;
    sd_open_with(&o);
    sd_begin();
    carry(3, NOW, 1000000);
    for (unsigned peer = 100; peer < 400; peer++)
        carry(peer, NOW, peer);
    sd_commit();
    r = list(NOW, 1, NULL, 1000);
    cr_assert(le(u32, r.n, 17));
    cr_assert(eq(u64, r.in, 1000000 + (100 + 399) * 300 / 2));
    cr_assert(lt(u64, 0, r.others));
    cr_assert(eq(int, store_usage_peer(sd, &loud, NOW, 1, &sum), 0));
    cr_assert(eq(u64, sum.in_bytes, 1000000), "who carried much was folded");
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(le(u64, st.usage_rows, 17));
    cr_assert(eq(u64, sd_findings(), 0));
    /* a day of its own tomorrow */
    sd_begin();
    carry(1, NOW + DAY, 1);
    sd_commit();
    cr_assert(eq(u32, list(NOW + DAY, 1, NULL, 100).n, 2));
}

Test(store_kinds, usage_saturates)
{
    struct peer_id p = sd_peer(1);
    struct store_usage u = { p, UINT64_MAX - 1, 0, 0, 0 }, sum;

    sd_begin();
    cr_assert(eq(int, store_usage_add(sd, NOW, &u), STORE_OK));
    cr_assert(eq(int, store_usage_add(sd, NOW, &u), STORE_OK));
    sd_commit();
    cr_assert(eq(int, store_usage_peer(sd, &p, NOW, 31, &sum), 0));
    cr_assert(eq(u64, sum.in_bytes, UINT64_MAX));
}
