/* Flags, and why. MDB_NOSUBDIR: one file whose name we choose. MDB_NOTLS: the read transaction is
 * an object, not the thread's. Never MDB_NOSYNC, MDB_NOMETASYNC or MDB_MAPASYNC: a commit that
 * returns is on the disk. Never MDB_WRITEMAP: writing into a mapping of a full disk ends the
 * process by SIGBUS, pwrite says ENOSPC. Never MDB_NOMEMINIT: what malloc left over would go to the
 * disk. */
#include "store/env.h"

#include "store/page.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    ENV_FLAGS = MDB_NOSUBDIR | MDB_NOTLS,
    ENV_MODE = 0600,
    READERS_MAX = 16,   /* the daemon, and a few of sluicectl */
    BACKOFF_TXNS = 8,   /* after ENOSPC, so many transactions only delete */
    VERIFY_TRIES = 100, /* beside a daemon that commits */
    MAP_STEP = 2,       /* what the kernel will not map is tried by halves */
};
#define MAP_LEAST ((uint64_t)64 << 20) /* below, no smaller one is tried */
/* Additions leave so much of map and disk to deletions, which need pages too: a B-tree is copied
 * where it changes. */
#define RESERVE_MAX ((uint64_t)64 << 20)
#define SWEEP_SHARE 2
#define RESERVE_SHARE 8 /* of a small map or disk */
/* Nearer to the end than this, free pages within the file are counted: a walk, so not always. */
#define NEAR_PAGES (uint64_t)(STORE_TXN_OPS_MAX * OP_PAGES)

const char *const tree_names[TREES] = {
    [T_META] = "meta", [T_REG] = "reg",         [T_OWN] = "own",       [T_NS] = "ns",
    [T_END] = "end",   [T_PROFILE] = "profile", [T_SECRET] = "secret", [T_TURN] = "turn",
    [T_BAN] = "ban",   [T_USAGE] = "usage",
};

static int to_errno(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_MAP_FULL:
    case EDQUOT:
    case EFBIG: /* a bound on the size of files, by the file system or by ulimit -f */
        return -ENOSPC;
    case MDB_MAP_RESIZED:
        return -EAGAIN;
    default:
        return rc > 0 ? -rc : -EIO; /* the rest of LMDB's own say that the file is not sound */
    }
}

static MDB_val val_of(struct bytes b)
{
    return (MDB_val){ b.n, (void *)(uintptr_t)b.p };
}

static struct bytes of_val(MDB_val v)
{
    return bytes_of(v.mv_data, v.mv_size);
}

/* ---- environment --------------------------------------------------------------------------- */

#define WAY_OUT                                                                                    \
    "sluicectl store check says more; move it away to begin anew, or put a backup (sluicectl "     \
    "store backup) in its place"

static void say(char *why, size_t cap, const char *path, int rc)
{
    if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC)
        snprintf(why, cap, "%s is damaged: " WAY_OUT, path);
    else if (rc == MDB_VERSION_MISMATCH)
        snprintf(why, cap, "%s was written by another version of LMDB; this is %s", path,
                 MDB_VERSION_STRING);
    else
        snprintf(why, cap, "%s: %s", path, mdb_strerror(rc));
}

/* What LMDB finds while it runs: it would say "Assertion failed" and nothing of the file. */
static void on_assert(MDB_env *env, const char *what)
{
    const char *path = NULL;

    (void)mdb_env_get_path(env, &path);
    fprintf(stderr, "%s is damaged (%s): " WAY_OUT "\n", path ? path : STORE_FILE, what);
    abort();
}

/* Our own locks and readers are per open, so that each try is a new environment. */
static int open_sized(const char *path, uint64_t map, bool read_only, MDB_env **env)
{
    int rc = mdb_env_create(env);

    if (rc)
        return rc;
    rc = mdb_env_set_maxdbs(*env, TREES);
    if (!rc)
        rc = mdb_env_set_maxreaders(*env, READERS_MAX);
    if (!rc)
        rc = mdb_env_set_mapsize(*env, map);
    if (!rc)
        rc = mdb_env_set_assert(*env, on_assert);
    if (!rc)
        rc = mdb_env_open(*env, path, ENV_FLAGS | (read_only ? MDB_RDONLY : 0), ENV_MODE);
    if (rc) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return rc;
}

/* Address space may be short: ulimit -v, a sanitizer's own map of it. */
static int open_largest(struct store *s, uint64_t map)
{
    int rc = open_sized(s->path, map, s->read_only, &s->env);

    while ((rc == ENOMEM || rc == EINVAL || rc == EOVERFLOW) && map / MAP_STEP >= MAP_LEAST) {
        map /= MAP_STEP;
        rc = open_sized(s->path, map, s->read_only, &s->env);
    }
    if (!rc) {
        MDB_envinfo info;
        MDB_stat st;

        (void)mdb_env_info(s->env, &info);
        (void)mdb_env_stat(s->env, &st);
        s->map_bytes = info.me_mapsize;
        s->page_bytes = st.ms_psize;
    }
    return rc;
}

/* Whether the file is whole, before LMDB follows where it leads. Only pages of the usual size can
 * be read so; 4096 with a bit flipped is no power of two. */
static int verify(struct store *s, bool deep, char *why, size_t cap)
{
    int rc = -EAGAIN, fd, err = mdb_env_get_fd(s->env, &fd);

    if (s->page_bytes > PAGE_KNOWN && !(s->page_bytes & (s->page_bytes - 1)))
        return 0;
    if (err)
        return to_errno(err);
    for (int i = 0; rc == -EAGAIN && i < VERIFY_TRIES; i++) {
        MDB_txn *t; /* held: the pages of its snapshot are not written again */
        char how[256] = "";

        err = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &t);
        if (err)
            return to_errno(err);
        rc = page_walk(fd, mdb_txn_id(t), deep, how, sizeof(how));
        mdb_txn_abort(t);
        if (rc == -EIO || rc == -EAGAIN)
            snprintf(why, cap, "%s is damaged: %s: " WAY_OUT, s->path, how);
        else if (rc)
            snprintf(why, cap, "%s: %s", s->path, strerror(-rc));
    }
    return rc == -EAGAIN ? -EIO : rc;
}

static int open_trees(struct store *s)
{
    MDB_txn *t;
    int rc = mdb_txn_begin(s->env, NULL, s->read_only ? MDB_RDONLY : 0, &t);

    if (rc)
        return rc;
    for (int i = 0; i < TREES && !rc; i++)
        rc = mdb_dbi_open(t, tree_names[i], s->read_only ? 0 : MDB_CREATE, &s->dbi[i]);
    if (rc) {
        mdb_txn_abort(t);
        return rc;
    }
    return mdb_txn_commit(t); /* read-only too: that keeps the handles */
}

/* A file that was just made is lost with its name if only the file is synced. */
static int sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = 0;

    if (fd < 0)
        return -errno;
    if (fsync(fd) < 0 && errno != EINVAL) /* some file systems have no such thing */
        err = -errno;
    close(fd);
    return err;
}

int env_open(struct store *s, const struct store_opts *o, char *why, size_t cap)
{
    uint64_t map = o->map_bytes ? o->map_bytes : STORE_MAP_DEFAULT;
    struct stat st;
    bool fresh = stat(s->path, &st) < 0;
    int rc;

    if (map < STORE_MAP_MIN)
        map = STORE_MAP_MIN;
    map -= map % (uint64_t)sysconf(_SC_PAGESIZE);
    if (fresh && s->read_only) {
        snprintf(why, cap, "%s: %s", s->path, strerror(ENOENT));
        return -ENOENT;
    }
    rc = open_largest(s, map);
    if (!rc) {
        int err = verify(s, o->verify, why, cap);

        if (err) {
            env_close(s);
            return err;
        }
        rc = open_trees(s);
    }
    if (!rc)
        rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->r);
    if (rc) {
        say(why, cap, s->path, rc);
        env_close(s);
        return to_errno(rc);
    }
    mdb_txn_reset(s->r);
    if (fresh && sync_dir(o->dir) < 0) {
        snprintf(why, cap, "%s: the directory does not sync", o->dir);
        env_close(s);
        return -EIO;
    }
    return 0;
}

void env_close(struct store *s)
{
    env_abort(s);
    if (s->r)
        mdb_txn_abort(s->r);
    s->r = NULL;
    if (s->env)
        mdb_env_close(s->env);
    s->env = NULL;
}

int env_copy_to(struct store *s, int fd)
{
    return to_errno(mdb_env_copyfd2(s->env, fd, MDB_CP_COMPACT));
}

/* ---- room ---------------------------------------------------------------------------------- */

/* Pages on LMDB's list of free ones: each record of tree 0 begins with their number. A transaction
 * that writes may not look there. */
static uint64_t free_pages(MDB_txn *t)
{
    MDB_cursor *c;
    MDB_val k, v;
    uint64_t sum = 0;
    size_t n;

    if (mdb_cursor_open(t, 0, &c))
        return 0;
    while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0) {
        memcpy(&n, v.mv_data, sizeof(n));
        sum += n;
    }
    mdb_cursor_close(c);
    return sum;
}

static uint64_t used_pages(struct store *s)
{
    MDB_envinfo info;

    (void)mdb_env_info(s->env, &info);
    return (uint64_t)info.me_last_pgno + 1;
}

static uint64_t tree_pages(struct store *s)
{
    uint64_t sum = 0;
    MDB_stat st;

    for (int i = 0; i < TREES; i++)
        if (mdb_stat(s->w, s->dbi[i], &st) == 0)
            sum += st.ms_branch_pages + st.ms_leaf_pages;
    return sum;
}

/* The most that w has taken by now, and one operation more of so many pages. Deletions count. */
static uint64_t taken(const struct store *s, uint64_t more)
{
    uint64_t n = s->ops + 1;

    return s->value_pages + more + min_u64(n * OP_PAGES, s->tree_pages + n * OP_GROWTH);
}

/* How many pages additions may take now: the smaller of what map and disk have left, less what is
 * kept for deletions. */
static uint64_t room_now(struct store *s)
{
    uint64_t map = s->map_bytes / s->page_bytes, used = used_pages(s);
    uint64_t whole = map, reserve;
    uint64_t left = map > used ? map - used : 0;
    struct statvfs fs;
    int fd;

    if (mdb_env_get_fd(s->env, &fd) == 0 && fstatvfs(fd, &fs) == 0) {
        left = min_u64(left, (uint64_t)fs.f_bavail * fs.f_frsize / s->page_bytes);
        whole = min_u64(whole, (uint64_t)fs.f_blocks * fs.f_frsize / s->page_bytes);
    }
    reserve = min_u64(RESERVE_MAX / s->page_bytes, whole / RESERVE_SHARE);
    s->reserve_pages = reserve;
    s->tree_pages = 0;
    if (left < NEAR_PAGES + reserve) {
        if (read_begin(s) == 0) {
            left += free_pages(s->r);
            read_end(s);
        }
        s->tree_pages = tree_pages(s);
    }
    if (left < reserve)
        s->reserve_pages = left;
    return left - s->reserve_pages;
}

int env_numbers(struct store *s, struct env_numbers *n)
{
    struct stat st;
    int fd, rc = mdb_env_get_fd(s->env, &fd);

    if (rc)
        return to_errno(rc);
    if (fstat(fd, &st) < 0)
        return -errno;
    /* A reader that was killed leaves its snapshot in the lock file's table, and LMDB by itself
     * never looks whether its process still lives: what is freed would not be used again, ever. */
    if (!s->read_only)
        (void)mdb_reader_check(s->env, NULL);
    n->file_bytes = (uint64_t)st.st_size;
    n->used_bytes = used_pages(s) * s->page_bytes;
    n->free_bytes = free_pages(s->r) * s->page_bytes;
    return 0;
}

/* ---- transactions -------------------------------------------------------------------------- */

/* A meta page that could not be written leaves the environment unusable (MDB_PANIC); another one
 * begins from what the disk has. */
static int reopen(struct store *s)
{
    mdb_txn_abort(s->r);
    s->r = NULL;
    mdb_env_close(s->env);
    s->env = NULL;

    int rc = open_largest(s, s->map_bytes);

    if (!rc)
        rc = open_trees(s);
    if (!rc)
        rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->r);
    if (!rc)
        mdb_txn_reset(s->r);
    return rc;
}

int env_begin(struct store *s)
{
    int rc;

    ASSERT(!s->w);
    if (s->read_only)
        return -EROFS;
    rc = s->env && s->r ? mdb_txn_begin(s->env, NULL, 0, &s->w) : MDB_PANIC;
    if (rc == MDB_PANIC) {
        rc = reopen(s);
        if (!rc)
            rc = mdb_txn_begin(s->env, NULL, 0, &s->w);
    }
    if (rc) {
        s->w = NULL;
        return to_errno(rc);
    }
    s->broken = 0;
    s->ops = 0;
    s->value_pages = 0;
    s->room_pages = room_now(s);
    if (s->backoff) {
        s->backoff--;
        s->room_pages = 0;
    }
    return 0;
}

/* Pages that a transaction both took and gave back are never written; if they were the last, the
 * file ends before what its meta page counts. That is harmless to LMDB, but a file that was cut
 * looks the same, so the end is put where it belongs. */
static void mend_end(struct store *s)
{
    uint64_t want = used_pages(s) * s->page_bytes;
    struct stat st;
    int fd;

    if (mdb_env_get_fd(s->env, &fd) == 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size < want &&
        ftruncate(fd, (off_t)want) < 0)
        return; /* the disk is full to the last page; check tells the two apart */
}

int env_commit(struct store *s)
{
    int rc;

    ASSERT(s->w);
    if (s->broken) {
        rc = s->broken;
        env_abort(s);
    } else {
        rc = to_errno(mdb_txn_commit(s->w));
        s->w = NULL;
    }
    if (rc == -ENOSPC)
        s->backoff = BACKOFF_TXNS;
    if (rc)
        s->commits_failed++;
    else {
        s->commits++;
        s->ops_total += s->ops;
        mend_end(s);
    }
    return rc;
}

void env_abort(struct store *s)
{
    if (s->w)
        mdb_txn_abort(s->w);
    s->w = NULL;
}

int read_begin(struct store *s)
{
    ASSERT(!s->reading);

    int rc = s->r ? mdb_txn_renew(s->r) : MDB_PANIC;

    if (rc == MDB_PANIC && !s->w) {
        rc = reopen(s);
        if (!rc)
            rc = mdb_txn_renew(s->r);
    }
    if (rc)
        return to_errno(rc);
    s->reading = true;
    return 0;
}

void read_end(struct store *s)
{
    ASSERT(s->reading);
    mdb_txn_reset(s->r); /* a snapshot that is held keeps freed pages from being used again */
    s->reading = false;
}

/* ---- records ------------------------------------------------------------------------------- */

int db_get(struct store *s, MDB_txn *t, enum tree tree, struct bytes key, struct bytes *value)
{
    MDB_val k = val_of(key), v;
    int rc = mdb_get(t, s->dbi[tree], &k, &v);

    if (!rc)
        *value = of_val(v);
    return to_errno(rc);
}

static int put(struct store *s, enum tree tree, struct bytes key, struct bytes value,
               unsigned flags)
{
    MDB_val k = val_of(key), v = val_of(value);

    return to_errno(mdb_put(s->w, s->dbi[tree], &k, &v, flags));
}

int db_put(struct store *s, enum tree tree, struct bytes key, struct bytes value)
{
    return put(s, tree, key, value, 0);
}

int db_append(struct store *s, enum tree tree, struct bytes key, struct bytes value)
{
    return put(s, tree, key, value, MDB_APPEND);
}

int db_del(struct store *s, enum tree tree, struct bytes key)
{
    MDB_val k = val_of(key);

    return to_errno(mdb_del(s->w, s->dbi[tree], &k, NULL));
}

uint64_t db_count(struct store *s, MDB_txn *t, enum tree tree)
{
    MDB_stat st;

    return mdb_stat(t, s->dbi[tree], &st) == 0 ? st.ms_entries : 0;
}

int cur_open(struct store *s, MDB_txn *t, enum tree tree, struct db_cur *c)
{
    return to_errno(mdb_cursor_open(t, s->dbi[tree], &c->c));
}

void cur_close(struct db_cur *c)
{
    mdb_cursor_close(c->c);
    c->c = NULL;
}

static int cur_go(struct db_cur *c, struct bytes key, MDB_cursor_op op)
{
    MDB_val k = val_of(key), v;
    int rc = mdb_cursor_get(c->c, &k, &v, op);

    if (!rc) {
        c->key = of_val(k);
        c->value = of_val(v);
    }
    return to_errno(rc);
}

int cur_from(struct db_cur *c, struct bytes key)
{
    return cur_go(c, key, key.n ? MDB_SET_RANGE : MDB_FIRST);
}

int cur_exact(struct db_cur *c, struct bytes key)
{
    return cur_go(c, key, MDB_SET_KEY);
}

int cur_next(struct db_cur *c)
{
    return cur_go(c, (struct bytes){ 0 }, MDB_NEXT);
}

int cur_put(struct db_cur *c, struct bytes value)
{
    uint8_t key[KEY_MAX]; /* the page that it is in is about to be written */
    MDB_val k = { c->key.n, key }, v = val_of(value);

    memcpy(key, c->key.p, c->key.n);
    return to_errno(mdb_cursor_put(c->c, &k, &v, MDB_CURRENT));
}

int cur_del(struct db_cur *c)
{
    return to_errno(mdb_cursor_del(c->c, 0));
}

/* ---- operations ---------------------------------------------------------------------------- */

enum store_verdict op_begin(struct store *s, bool adds, size_t value_bytes)
{
    uint64_t pages = value_bytes / s->page_bytes;

    ASSERT(s->w);
    if (s->broken)
        return STORE_FAILED;
    if (s->ops >= STORE_TXN_OPS_MAX || (adds && taken(s, pages) > s->room_pages)) {
        s->refused_room++;
        s->refuses = s->ops < STORE_TXN_OPS_MAX;
        return STORE_NO_ROOM;
    }
    s->ops++;
    s->value_pages += pages;
    s->refuses = s->refuses && !adds;
    return STORE_OK;
}

bool op_may_sweep(const struct store *s)
{
    return s->ops < STORE_TXN_OPS_MAX &&
           taken(s, 0) <= s->room_pages + s->reserve_pages / SWEEP_SHARE;
}

enum store_verdict op_fail(struct store *s, int err)
{
    if (!s->broken)
        s->broken = err ? err : -EIO;
    return STORE_FAILED;
}
