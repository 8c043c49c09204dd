/* The store's file: who may read it, older and newer schemas, damage of every kind. */
#include <errno.h>
#include <sys/resource.h>

#include "proto/crypto.h"
#include "proto/cur.h"
#include "tests/unit/store_raw.h"

TestSuite(store_file, .timeout = 90);

enum { FLIPS = 600, LARGE_PAGE = 16384 };
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* ---- opening ------------------------------------------------------------------------------- */

Test(store_file, is_its_owners_alone)
{
    struct stat st;

    umask(0);
    sd_open();
    cr_assert(eq(int, stat(sd_path(STORE_FILE), &st), 0));
    cr_assert(eq(u32, st.st_mode & 0777, 0600));
    cr_assert(eq(int, stat(sd_path(STORE_FILE "-lock"), &st), 0));
    cr_assert(eq(u32, st.st_mode & 0777, 0600));
    sd_close();
}

Test(store_file, read_only_makes_nothing_and_writes_nothing)
{
    struct store_opts o = sd_opts();

    sd_make_dir();
    o.dir = sd_dir;
    o.read_only = true;
    cr_assert(eq(int, sd_try(&o), -ENOENT));
    cr_assert(not(access(sd_path(STORE_FILE), F_OK) == 0));
    sd_open();
    store_close(sd);
    o.dir = sd_dir;
    cr_assert(eq(int, sd_try(&o), 0), "%s", sd_why);
    cr_assert(eq(int, store_begin(sd), -EROFS));
    sd_close();
}

Test(store_file, takes_less_address_space_where_there_is_less)
{
    struct rlimit as = { (rlim_t)3 << 30, (rlim_t)3 << 30 };
    struct store_opts o = sd_opts();

    if (SANITIZED) /* reserves more itself */
        return;
    sd_make_dir();
    o.dir = sd_dir;
    o.map_bytes = 0;
    cr_assert(eq(int, setrlimit(RLIMIT_AS, &as), 0));
    cr_assert(eq(int, sd_try(&o), 0), "%s", sd_why);
    cr_assert(lt(sz, store_map_bytes(sd), (size_t)3 << 30));
    cr_assert(le(sz, (size_t)64 << 20, store_map_bytes(sd)));
    sd_close();
}

Test(store_file, reserves_a_tebibyte_of_address_space_and_no_disk)
{
    struct store_opts o = sd_opts();
    struct stat st;

    o.map_bytes = 0;
    sd_open_with(&o);
    cr_assert(le(sz, (size_t)64 << 20, store_map_bytes(sd)));
    if (!SANITIZED)
        cr_assert(eq(sz, store_map_bytes(sd), (size_t)1 << 40));
    cr_assert(eq(int, stat(sd_path(STORE_FILE), &st), 0));
    cr_assert(lt(u64, (uint64_t)st.st_size, 1 << 20));
    sd_close();
}

/* ---- schemas ------------------------------------------------------------------------------- */

/* A file as schema 0 had it: profiles as registered, last_seen and name. */
static void make_schema_0(unsigned profiles)
{
    raw_open();
    raw_put("meta", "schema", 6, "\0\0\0\0", 4);
    for (unsigned i = 0; i < profiles; i++) {
        struct peer_id p = sd_peer(i);
        uint8_t v[16 + 32] = { 0 };
        int n = snprintf((char *)v + 16, 32, "old friend %u of many letters", i);

        v[7] = 10;
        v[15] = (uint8_t)(i % 200 + 11);
        raw_put("profile", p.b, p.n, v, 16 + (size_t)n);
    }
    raw_close();
}

struct migrated {
    unsigned n;
    bool right;
};

static bool is_old_friend(void *ctx, const struct store_profile *p)
{
    struct migrated *g = ctx;
    unsigned i = (unsigned)p->peer.b[8] << 8 | p->peer.b[9];
    char name[64];

    snprintf(name, sizeof(name), "old friend %u of many letters", i);
    g->n++;
    g->right = bytes_eq(p->display_name, bytes_str(name)) && p->relay_addr.n == 0 &&
               p->registered_unix_s == 10 && p->last_seen_unix_s == i % 200 + 11;
    return true;
}

Test(store_file, schema_0_is_migrated_forward_with_all_that_is_in_it)
{
    struct migrated g = { 0 };
    struct store_opts o = sd_opts();

    sd_make_dir();
    make_schema_0(2000);
    o.read_only = true;
    o.dir = sd_dir;
    cr_assert(not(sd_try(&o) == 0), "who only reads migrates nothing");
    sd_open();
    for (unsigned i = 0; i < 2000; i++) {
        struct peer_id p = sd_peer(i);

        g = (struct migrated){ 0 };
        cr_assert(eq(int, store_profile_get(sd, &p, is_old_friend, &g), 0));
        cr_assert(g.right, "profile %u", i);
    }
    g.n = 0;
    cr_assert(
        eq(int, store_profile_search(sd, bytes_str("FRIEND 1999 "), 20, is_old_friend, &g), 0));
    cr_assert(eq(u32, g.n, 1));
    cr_assert(eq(u64, sd_put(1, "n", "e"), 1));
    sd_reopen(); /* once is enough */
    cr_assert(eq(u64, sd_put(2, "n", "e"), 2));
    sd_close();
}

Test(store_file, a_migration_that_fails_leaves_the_file_as_it_was)
{
    uint8_t *before, *after;
    struct store_opts o = sd_opts();
    size_t n, m;

    sd_make_dir();
    make_schema_0(100);
    raw_open();
    raw_put("profile", "short", 5, "x", 1);
    raw_close();
    o.dir = sd_dir;
    before = slurp(sd_path(STORE_FILE), &n);
    cr_assert(not(sd_try(&o) == 0));
    cr_assert_not_null(strstr(sd_why, STORE_FILE));
    raw_open(); /* its own schema still, and every record as it was */
    MDB_val key = { 6, (void *)(uintptr_t) "schema" }, value;

    cr_assert(eq(int, mdb_get(raw_txn, raw_tree("meta"), &key, &value), 0));
    cr_assert(eq(int, memcmp(value.mv_data, "\0\0\0\0", 4), 0));
    struct peer_id p = sd_peer(7);

    key = (MDB_val){ p.n, p.b };
    cr_assert(eq(int, mdb_get(raw_txn, raw_tree("profile"), &key, &value), 0));
    cr_assert(eq(int, memcmp((uint8_t *)value.mv_data + 16, "old friend 7", 12), 0));
    mdb_txn_abort(raw_txn);
    mdb_env_close(raw_env);
    after = slurp(sd_path(STORE_FILE), &m);
    free(before);
    free(after);
    clean();
}

Test(store_file, a_newer_schema_is_refused_by_name_and_untouched)
{
    struct store_opts o = sd_opts();
    uint8_t *before, *after, schema[8];
    size_t n, m;

    sd_open();
    furnish(10);
    store_close(sd);
    raw_open();
    put_u32(schema, 2);
    put_u32(schema + 4, crypto_crc32(bytes_of(schema, 4)));
    raw_put("meta", "schema", 6, schema, 8);
    raw_close();
    before = slurp(sd_path(STORE_FILE), &n);
    cr_assert(eq(int, sd_try(&o), -EPROTO));
    cr_assert_not_null(strstr(sd_why, sd_path(STORE_FILE)));
    cr_assert_not_null(strstr(sd_why, "schema 2"));
    after = slurp(sd_path(STORE_FILE), &m);
    cr_assert(eq(sz, n, m));
    cr_assert(eq(int, memcmp(before, after, n), 0));
    free(before);
    free(after);
    clean();
}

Test(store_file, somebody_elses_file_is_not_taken_over)
{
    struct store_opts o = sd_opts();

    sd_make_dir();
    raw_open();
    raw_put("meta", "version", 7, "1", 1);
    raw_close();
    o.dir = sd_dir;
    cr_assert(not(sd_try(&o) == 0));
    cr_assert_not_null(strstr(sd_why, "not a store of ours"));
    spill(sd_path(STORE_FILE), (const uint8_t *)"SQLite format 3, by the way", 27);
    cr_assert(not(sd_try(&o) == 0));
    cr_assert_not_null(strstr(sd_why, sd_path(STORE_FILE)));
    cr_assert_not_null(strstr(sd_why, "move it away"));
    clean();
}

/* ---- damage -------------------------------------------------------------------------------- */

Test(store_file, a_cut_file_is_refused_by_name_with_the_way_out)
{
    static char envelope[STORE_ENVELOPE_MAX + 1];
    struct store_opts o = sd_opts();
    uint8_t *all;
    size_t n;

    sd_open();
    furnish(200);
    for (unsigned i = 0; i < 10; i++) /* pages for the trees' own are free by now */
        sd_put(i, "n", i % 2 ? "e" : "f");
    memset(envelope, 'x', STORE_ENVELOPE_MAX);
    sd_put(11, "n", envelope);
    store_close(sd);
    all = slurp(sd_path(STORE_FILE), &n);
    spill(sd_path(STORE_FILE), all, n - PAGE); /* no tree lacks a page, one record does */
    cr_assert(not(sd_try(&o) == 0));
    for (size_t cut = PAGE / 2; cut < n; cut += 3 * PAGE + 512) {
        spill(sd_path(STORE_FILE), all, cut);
        cr_assert(not(sd_try(&o) == 0), "cut at %zu of %zu", cut, n);
        cr_assert_not_null(strstr(sd_why, sd_path(STORE_FILE)), "%s", sd_why);
        cr_assert_not_null(strstr(sd_why, "backup"), "%s", sd_why);
    }
    unsigned refused = 0;

    for (size_t cut = n - PAGE; cut > n - 30 * PAGE;
         cut -= PAGE) { /* it ends in data's own pages */
        spill(sd_path(STORE_FILE), all, cut);
        if (sd_try(&o)) {
            refused++;
            continue;
        }
        cr_assert(eq(u64, sd_findings(), 0), "cut at %zu of %zu", cut, n);
        store_close(sd);
    }
    cr_assert(lt(u32, 20, refused));
    spill(sd_path(STORE_FILE), all, n);
    cr_assert(eq(int, sd_try(&o), 0), "%s", sd_why);
    free(all);
    sd_close();
}

Test(store_file, a_file_that_only_lacks_free_pages_is_opened)
{
    struct store_opts o = sd_opts();
    unsigned opened = 0;
    uint8_t *all;
    size_t n;
    bool left;

    sd_open();
    furnish(300);
    for (int i = 0; i < 3; i++) { /* so that the roots move to the front */
        sd_begin();
        cr_assert(eq(int, store_expire(sd, NOW + TTL, 100000, &left), STORE_OK));
        sd_commit();
        sd_put(1, "n", i % 2 ? "e" : "f");
    }
    store_close(sd);
    all = slurp(sd_path(STORE_FILE), &n);
    for (size_t cut = n - PAGE; cut > n / 2; cut -= PAGE) {
        spill(sd_path(STORE_FILE), all, cut);
        if (sd_try(&o))
            break;
        cr_assert(eq(u64, sd_findings(), 0));
        sd_put(2, "n", "e");
        cr_assert(eq(u64, sd_findings(), 0));
        store_close(sd);
        opened++;
    }
    cr_assert(lt(u32, 0, opened), "no free page at the end: this test tests nothing");
    free(all);
    clean();
}

Test(store_file, no_flipped_bit_goes_unseen_or_ends_the_process)
{
    struct store_opts o = sd_opts();
    unsigned refused = 0, found = 0, unseen = 0;
    uint64_t right;
    uint8_t *all;
    size_t n;

    sd_open();
    furnish(150);
    right = dumped();
    store_close(sd);
    all = slurp(sd_path(STORE_FILE), &n);
    o.verify = o.read_only = true;
    for (unsigned i = 0; i < FLIPS; i++) {
        size_t at = (size_t)(sd_u64() % n);
        uint8_t bit = (uint8_t)(1u << sd_u64() % 8);

        if (i < FLIPS / 4) /* the meta pages' heads */
            at = (i % 2) * PAGE + i;
        all[at] ^= bit;
        spill(sd_path(STORE_FILE), all, n);
        all[at] ^= bit;
        if (sd_try(&o)) {
            refused++;
            continue;
        }
        uint64_t bad = sd_findings(), is = dumped();

        if (bad)
            found++;
        else
            cr_assert(eq(u64, is, right), "bit %u of byte %zu is unseen", bit, at);
        unseen += !bad;
        store_close(sd);
    }
    cr_log_info("refused %u, found %u, without effect %u\n", refused, found, unseen);
    cr_assert(lt(u32, FLIPS / 10, refused));
    cr_assert(lt(u32, FLIPS / 20, found));
    spill(sd_path(STORE_FILE), all, n);
    free(all);
    cr_assert(eq(int, sd_try(&o), 0), "%s", sd_why);
    sd_close();
}

Test(store_file, a_tree_of_another_kind_is_refused)
{
    struct store_opts o = sd_opts();
    MDB_dbi dbi;

    sd_make_dir();
    raw_open();
    cr_assert(eq(int, mdb_dbi_open(raw_txn, "own", MDB_CREATE | MDB_DUPSORT, &dbi), 0));
    raw_close();
    o.dir = sd_dir;
    cr_assert(eq(int, sd_try(&o), -EIO));
    cr_assert_not_null(strstr(sd_why, "tree own"), "%s", sd_why);
    clean();
}

/* The first key of a tree whose last eight bytes are zero, or the first of all. */
static MDB_val raw_key(const char *tree, bool head)
{
    static uint8_t copy[64];
    MDB_cursor *c;
    MDB_val k, v;

    cr_assert(eq(int, mdb_cursor_open(raw_txn, raw_tree(tree), &c), 0));
    do
        cr_assert(eq(int, mdb_cursor_get(c, &k, &v, MDB_NEXT), 0));
    while (head && memcmp((uint8_t *)k.mv_data + k.mv_size - 8, "\0\0\0\0\0\0\0", 8));
    mdb_cursor_close(c);
    memcpy(copy, k.mv_data, k.mv_size);
    return (MDB_val){ k.mv_size, copy };
}

Test(store_file, check_finds_whatever_does_not_fit_together)
{
    static const char *const trees[] = { "own", "ns", "end", "reg", "usage" };
    uint8_t *all;
    size_t n;

    sd_open();
    furnish(30);
    store_close(sd);
    all = slurp(sd_path(STORE_FILE), &n);
    for (size_t i = 0; i < ARRAY_LEN(trees); i++) { /* something is missing */
        raw_open();
        MDB_val k = raw_key(trees[i], false);

        cr_assert(eq(int, mdb_del(raw_txn, raw_tree(trees[i]), &k, NULL), 0));
        raw_close();
        sd_open();
        cr_assert(lt(u64, 0, sd_findings()), "without the first of %s", trees[i]);
        store_close(sd);
        spill(sd_path(STORE_FILE), all, n);
    }
    for (size_t i = 0; i < 3; i++) { /* something leads nowhere */
        raw_open();
        MDB_val k = raw_key(trees[i], false);

        ((uint8_t *)k.mv_data)[k.mv_size - 1] ^= 0x55;
        raw_put(trees[i], k.mv_data, k.mv_size, "\0\0\0\0\0\0\x7f\xff", 8);
        raw_close();
        sd_open();
        cr_assert(lt(u64, 0, sd_findings()), "one too many in %s", trees[i]);
        store_close(sd);
        spill(sd_path(STORE_FILE), all, n);
    }
    raw_open();
    MDB_val k = raw_key("ns", true);

    raw_put("ns", k.mv_data, k.mv_size, "\0\0\0\x9", 4);
    raw_close();
    sd_open();
    cr_assert(eq(u64, sd_findings(), 1), "a namespace counts wrongly");
    store_close(sd);
    spill(sd_path(STORE_FILE), all, n);
    free(all);
    sd_open();
    sd_close();
}

/* Flips a bit in the envelope of one record, where only its checksum can tell. */
static void damage(const char *envelope)
{
    size_t n, len = strlen(envelope);
    uint8_t *all = slurp(sd_path(STORE_FILE), &n), *at;

    at = memmem(all, n, envelope, len);
    cr_assert_not_null(at);
    for (; at; at = memmem(at, n - (size_t)(at - all), envelope, len))
        *at ^= 1;
    spill(sd_path(STORE_FILE), all, n);
    free(all);
}

Test(store_file, a_damaged_registration_is_passed_over_and_can_be_put_again)
{
    struct store_stats st;
    struct sd_got g;
    bool left;

    sd_open();
    sd_put(1, "n", "the first of them");
    sd_put(2, "n", "the second of them");
    sd_put(3, "n", "the third of them");
    store_close(sd);
    damage("the second of them");
    damage("the third of them");
    sd_open();
    cr_assert(eq(u64, sd_findings(), 8), "two records, and for each the three that lead to it");
    cr_assert(eq(u32, sd_discover("n", 0, 9, NOW, &g).taken, 1));
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(lt(u64, 0, st.corrupt));
    sd_put(2, "n", "the second of them");
    cr_assert(eq(u32, sd_discover("n", 0, 9, NOW, &g).taken, 2));
    /* Expiry gets past it, and the rest ends as it should. */
    sd_begin();
    cr_assert(eq(int, store_expire(sd, NOW + TTL, 100, &left), STORE_OK));
    sd_commit();
    cr_assert(eq(u32, sd_discover(NULL, 0, 9, NOW, &g).taken, 0));
    cr_assert(eq(u64, store_deadline_unix_s(sd), STORE_FOREVER));
    sd_put(3, "n", "the third of them");
    cr_assert(eq(u32, sd_discover("n", 0, 9, NOW, &g).taken, 1));
    clean();
}

/* ---- pages of another size ----------------------------------------------------------------- */

/* An empty file as LMDB makes it on a machine with pages of 16 KiB. */
static void make_large_pages(void)
{
    static uint8_t file[2 * LARGE_PAGE];
    const uint32_t psize = LARGE_PAGE, magic = 0xBEEFC0DE, version = 1;
    const uint16_t meta = 8, integers = 8;
    const uint64_t map = 16 << 20, none = UINT64_MAX, last = 1;

    sd_make_dir();
    for (uint64_t i = 0; i < 2; i++) {
        uint8_t *page = file + i * LARGE_PAGE, *m = page + 16;

        memcpy(page, &i, 8);
        memcpy(page + 10, &meta, 2);
        memcpy(m, &magic, 4);
        memcpy(m + 4, &version, 4);
        memcpy(m + 16, &map, 8);
        memcpy(m + 24, &psize, 4);
        memcpy(m + 28, &integers, 2);
        memcpy(m + 64, &none, 8);  /* the list of free pages has no root */
        memcpy(m + 112, &none, 8); /* nor has the main tree */
        memcpy(m + 120, &last, 8);
    }
    spill(sd_path(STORE_FILE), file, sizeof(file));
}

Test(store_file, pages_of_another_size_are_counted_as_what_they_are)
{
    static uint8_t envelope[1000];
    enum store_verdict v = STORE_OK;
    struct store_opts o = sd_opts();
    struct store_stats st;
    unsigned n = 0;

    make_large_pages();
    o.map_bytes = 8 << 20;
    sd_open_with(&o);
    while (v == STORE_OK && n < 100000) {
        sd_begin();
        for (unsigned i = 0; i < 5 && v == STORE_OK; i++) {
            struct store_reg r = sd_reg(n, "n", "");

            r.envelope = bytes_of(envelope, sizeof(envelope));
            v = store_reg_put(sd, &r, NULL);
            n += v == STORE_OK;
        }
        sd_commit(); /* never the library's own "full" */
    }
    cr_assert(eq(int, v, STORE_NO_ROOM));
    cr_assert(lt(u32, 500, n));
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(eq(u64, st.file_bytes, st.used_bytes));
    cr_assert(le(u64, st.used_bytes, st.map_bytes));
    store_close(sd);
    o.verify = true;
    sd_open_with(&o);
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), n));
    sd_close();
}
