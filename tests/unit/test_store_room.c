/* Full maps and disks, copies, and two processes at once. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/store_file.h"

TestSuite(store_room, .timeout = 90);

/* ---- room ---------------------------------------------------------------------------------- */

Test(store_room, a_full_map_refuses_what_adds_and_lets_go_what_ends)
{
    static uint8_t envelope[1000];
    struct store_opts o = sd_opts();
    enum store_verdict v = STORE_OK;
    struct peer_id p = sd_peer(0);
    struct store_stats st;
    unsigned n = 0;
    bool left = true;

    o.map_bytes = 8 << 20;
    sd_open_with(&o);
    for (unsigned in_txn = 1; in_txn;) { /* until not even one goes */
        sd_begin();
        v = STORE_OK;
        for (in_txn = 0; in_txn < 20 && v == STORE_OK; in_txn += v == STORE_OK) {
            struct store_reg r = sd_reg(n, "n", "");

            r.envelope = bytes_of(envelope, sizeof(envelope));
            r.expires_unix_s += n % 3; /* the first third leaves no page empty, and touches each */
            v = store_reg_put(sd, &r, NULL);
            n += v == STORE_OK;
        }
        sd_commit(); /* never the library's own "full" */
        cr_assert(lt(u32, n, 100000));
    }
    cr_assert(eq(int, v, STORE_NO_ROOM));
    cr_assert(lt(u32, 1000, n), "%u records in 8 MiB", n);
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(st.refuses);
    cr_assert(eq(u64, st.regs, n));
    sd_begin();
    cr_assert(
        eq(int, store_profile_put(sd, &p, bytes_str("n"), bytes_str(""), NOW), STORE_NO_ROOM));
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("n")), STORE_OK));
    sd_commit();
    for (unsigned i = 0; i < 3; i++) {
        for (left = true; left;) { /* as many as there is room to delete, whatever is asked for */
            sd_begin();
            cr_assert(eq(int, store_expire(sd, NOW + TTL + i, 100000, &left), STORE_OK));
            sd_commit();
        }
    }
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(eq(u64, st.regs, 0));
    sd_put(1, "n", "e");
    cr_assert(eq(int, store_stats(sd, &st), 0));
    cr_assert(not(st.refuses));
    cr_assert(lt(u64, 0, st.refused_room));
    sd_close();
}

Test(store_room, a_commit_that_the_disk_refuses_leaves_what_was_and_a_store_that_works)
{
    static uint8_t envelope[4000];
    struct rlimit lim = { 0 };
    struct sd_got g;
    struct stat st;
    struct store_stats stats;
    unsigned tries = 0;
    uint64_t first, kept;
    int rc = 0;

    signal(SIGXFSZ, SIG_IGN);
    sd_open();
    first = sd_put(1, "n", "e");
    cr_assert(eq(int, stat(sd_path(STORE_FILE), &st), 0));
    lim.rlim_cur = (rlim_t)st.st_size + 20 * PAGE;
    lim.rlim_max = RLIM_INFINITY;
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &lim), 0));
    kept = 1;
    for (unsigned n = 2; !rc && n < 100; n += 5) {
        sd_begin();
        for (unsigned i = n; i < n + 5; i++) {
            struct store_reg r = sd_reg(i, "n", "");
            char own[16];

            snprintf(own, sizeof(own), "own/%u", i);
            if (i == n) /* its namespace is new: what failed does not count it */
                r.ns = bytes_str(own);
            r.envelope = bytes_of(envelope, sizeof(envelope));
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        }
        rc = store_commit(sd);
        kept += rc ? 0 : 4;
    }
    cr_assert(eq(int, rc, -ENOSPC));
    cr_assert(not(store_in_txn(sd)));
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), kept));
    sd_discover("n", 0, 1, NOW, &g);
    cr_assert(eq(u64, g.seq[0], first));
    cr_assert(eq(u64, sd_findings(), 0));
    lim.rlim_cur = RLIM_INFINITY;
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &lim), 0));
    for (bool put = false; !put; tries++) { /* for a few transactions only what deletes is taken */
        struct store_reg r = sd_reg(500, "n", "e");

        cr_assert(lt(u32, tries, 20));
        sd_begin();
        put = store_reg_put(sd, &r, NULL) == STORE_OK;
        sd_commit();
    }
    cr_assert(lt(u32, 1, tries));
    cr_assert(eq(u64, store_reg_count_ns(sd, bytes_str("n")), kept + 1));
    cr_assert(eq(int, store_stats(sd, &stats), 0));
    cr_assert(eq(u64, stats.commits_failed, 1));
    cr_assert(eq(u64, stats.namespaces, 1 + (kept - 1) / 4));
    sd_close();
}

Test(store_room, one_transaction_takes_a_bounded_number_of_operations)
{
    struct peer_id p = sd_peer(1);

    sd_open();
    sd_begin();
    for (unsigned i = 0; i < STORE_TXN_OPS_MAX; i++)
        cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("n")), STORE_ABSENT));
    cr_assert(eq(sz, store_txn_ops(sd), STORE_TXN_OPS_MAX));
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("n")), STORE_NO_ROOM));
    sd_commit();
    cr_assert(eq(sz, store_txn_ops(sd), 0), "outside of a transaction there are none");
    sd_begin();
    cr_assert(eq(int, store_reg_del(sd, &p, bytes_str("n")), STORE_ABSENT));
    store_abort(sd);
    cr_assert(eq(sz, store_txn_ops(sd), 0));
    sd_close();
}

/* ---- copies and other processes ------------------------------------------------------------ */

Test(store_room, a_backup_is_a_store_of_the_same_records)
{
    char dest[256], why[STORE_WHY_MAX];
    struct stat st;
    uint64_t sum;
    size_t n;
    uint8_t *all;

    sd_open();
    furnish(100);
    sum = dumped();
    snprintf(dest, sizeof(dest), "%s", sd_path("backup"));
    umask(0);
    cr_assert(eq(int, store_backup(sd, dest, why, sizeof(why)), 0), "%s", why);
    cr_assert(eq(int, stat(dest, &st), 0));
    cr_assert(eq(u32, st.st_mode & 0777, 0600));
    cr_assert(eq(int, store_backup(sd, dest, why, sizeof(why)), -EEXIST));
    cr_assert_not_null(strstr(why, dest));
    cr_assert(not(store_backup(sd, "/nonexistent/backup", why, sizeof(why)) == 0));
    sd_put(1000, "later", "e");
    store_close(sd);
    all = slurp(dest, &n);
    spill(sd_path(STORE_FILE), all, n);
    free(all);
    unlink(dest);
    sd_open();
    cr_assert(eq(u64, dumped(), sum));
    sd_close();
}

static void in_child(void (*run)(void))
{
    pid_t pid = fork();
    int status = -1;

    cr_assert(le(int, 0, pid));
    if (pid == 0) {
        run();
        _exit(0);
    }
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_assert(eq(int, status, 0));
}

static void read_beside(void)
{
    struct store_opts o = sd_opts();
    uint64_t bad = 1;
    char why[STORE_WHY_MAX];
    struct store *s;

    o.read_only = o.verify = true;
    for (int i = 0; i < 20; i++) {
        if (store_open(&o, &s, why, sizeof(why)))
            _exit(1);
        if (store_check(s, sd_no_finding, NULL, &bad) || bad)
            _exit(2);
        store_close(s);
    }
}

Test(store_room, is_read_and_checked_beside_a_process_that_writes)
{
    pid_t pid;
    int status = -1;
    unsigned i = 0;

    sd_open();
    furnish(50);
    store_close(sd);
    pid = fork(); /* before anything is open here: LMDB's handles do not survive a fork */
    if (pid == 0) {
        read_beside();
        _exit(0);
    }
    sd_open();
    while (waitpid(pid, &status, WNOHANG) == 0)
        i++, sd_put(i % 500, "busy", i % 3 ? "e" : "f");
    cr_assert(eq(int, status, 0));
    sd_close();
}

static void stop_in_read(void *ctx, const char *line)
{
    (void)line;
    if (write(*(int *)ctx, "r", 1) != 1)
        _exit(2);
    for (;;)
        pause();
}

/* Opens when it is told to, and stays within its read. */
static void read_until_killed(int told, int tell)
{
    struct store_opts o = sd_opts();
    char why[STORE_WHY_MAX], go;
    struct store *s;

    o.read_only = true;
    if (read(told, &go, 1) != 1 || store_open(&o, &s, why, sizeof(why)))
        _exit(1);
    (void)!store_dump(s, stop_in_read, &tell);
}

static uint64_t used_after(unsigned commits)
{
    static uint8_t envelope[2000];
    struct store_stats st;

    for (unsigned n = 0; n < commits; n++) {
        sd_begin();
        for (unsigned i = 0; i < 10; i++) {
            struct store_reg r = sd_reg(i, "busy", "");

            sd_rng(envelope, 8);
            r.envelope = bytes_of(envelope, sizeof(envelope));
            cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
        }
        sd_commit();
        if (n % 20 == 19) /* as the daemon asks, once a second */
            cr_assert(eq(int, store_stats(sd, &st), 0));
    }
    return st.used_bytes;
}

Test(store_room, a_reader_that_was_killed_does_not_hold_freed_pages)
{
    int go[2], reads[2], status = 0;
    uint64_t before;
    pid_t pid;
    char c;

    sd_open();
    furnish(20);
    store_close(sd);
    cr_assert(eq(int, pipe(go), 0));
    cr_assert(eq(int, pipe(reads), 0));
    pid = fork();
    if (pid == 0) {
        read_until_killed(go[0], reads[1]);
        _exit(3);
    }
    close(reads[1]);
    sd_open(); /* first: who opens alone begins with an empty table of readers */
    cr_assert(eq(sz, (size_t)write(go[1], "g", 1), 1));
    cr_assert(eq(sz, (size_t)read(reads[0], &c, 1), 1));
    kill(pid, SIGKILL);
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_assert(eq(int, WIFSIGNALED(status) != 0, 1));
    before = used_after(60);
    cr_assert(lt(u64, used_after(300), 2 * before));
    sd_close();
}

static void write_too(void)
{
    struct store_opts o = sd_opts();
    struct store_reg r = sd_reg(7, "from the child", "e");
    char why[STORE_WHY_MAX];
    struct store *s;

    if (store_open(&o, &s, why, sizeof(why)))
        _exit(1);
    if (store_begin(s) || store_reg_put(s, &r, NULL) || store_commit(s))
        _exit(2);
    store_close(s);
}

Test(store_room, two_writers_take_turns)
{
    struct sd_got g;

    /* The daemon's lock on its directory keeps a second one away; without it nothing breaks. */
    sd_open();
    sd_put(1, "n", "e");
    in_child(write_too);
    cr_assert(eq(u32, sd_discover(NULL, 0, 9, NOW, &g).taken, 2));
    store_close(sd);
    sd_open();
    cr_assert(eq(u64, sd_findings(), 0));
    sd_close();
}
