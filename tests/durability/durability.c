/* durability: whether what the store acknowledged is on the disk, and nothing by halves.
 *     durability [--all] [--seed N]
 *
 * A seeded workload runs through store/ while trace.c records every write and sync of the store's
 * file, with the acknowledgements between them. Then power fails after every step of the trace:
 * what was written before the last sync is there; of what was written since, all is, or nothing, or
 * a seeded choice of the writes, some of them torn at sectors of 512 bytes (a disk may reorder as
 * it likes what no sync parts; a sector itself is whole, which LMDB's meta page counts on). From
 * each such disk the file is rebuilt, opened, checked and read: it must hold the last acknowledged
 * state or the one whose commit was under way, to the byte, and take another transaction.
 *
 * Until the first acknowledgement (the store's secrets) the file may also be refused, by name and
 * with the way out: nothing can be in it.
 *
 * The same with MDB_NOSYNC, by a hook of the test, must lose something: else this test sees
 * nothing. Exit status 0: both as they should be. */
#include "tests/durability/trace.h"
#include "tests/durability/work.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    DISK_MAX = 32 << 20,
    FAILURES_KEPT = 5,
    RED_ENOUGH = 20, /* bad ends, one of them without a trace of damage, convict MDB_NOSYNC */
};

struct plan {
    uint64_t seed;
    uint32_t txns;
    uint32_t choices; /* of the writes not yet synced, besides all and none */
};

/* Between the process that checks, which a bad file may end, and the one that counts. */
struct tally {
    size_t next;  /* the case to begin with */
    size_t at;    /* the trace's step of the case under way */
    size_t cases; /* begun */
    size_t failures;
    size_t lost;   /* of them: opened well, and an acknowledged state was not there */
    size_t unborn; /* no failures: refused, when nothing was promised yet, and the way out named */
    char first[FAILURES_KEPT][300];
};

struct disk {
    uint8_t *p;
    size_t n;
};

static char dir[64];
static char file[96];
static struct work_state *state;
static uint8_t secret[WORK_SECRET];
static struct tally *tally;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- a disk --------------------------------------------------------------------------------- */

static void put_bytes(struct disk *d, uint64_t at, const uint8_t *p, size_t n)
{
    if (at + n > DISK_MAX) {
        fprintf(stderr, "the workload's file is larger than this test is made for\n");
        exit(1);
    }
    memcpy(d->p + at, p, n);
    if (at + n > d->n)
        d->n = at + n;
}

static void apply(struct disk *d, const struct trace_step *s)
{
    if (s->kind == TRACE_RESIZE) {
        if (s->at < d->n)
            memset(d->p + s->at, 0, d->n - s->at);
        d->n = s->at;
    } else {
        put_bytes(d, s->at, s->data, s->n);
    }
}

/* Some sectors of a write. */
static void apply_torn(struct disk *d, const struct trace_step *s, struct dice *dice)
{
    for (size_t from = 0; from < s->n;) {
        size_t n = SECTOR - (s->at + from) % SECTOR;

        n = n < s->n - from ? n : s->n - from;
        if (dice_any(dice, 2))
            put_bytes(d, s->at + from, s->data + from, n);
        from += n;
    }
}

/* choice 0: all of what waits; 1: nothing; else some. */
static void power_fails(struct disk *d, size_t const *waiting, size_t waiting_n, uint32_t choice,
                        struct dice *dice)
{
    static const uint32_t eighths[] = { 4, 7, 1 };
    uint32_t chance = eighths[dice_any(dice, 3)];

    for (size_t i = 0; i < waiting_n && choice != 1; i++) {
        const struct trace_step *s = &trace[waiting[i]];

        if (choice == 0)
            apply(d, s);
        else if (dice_any(dice, 8) >= chance)
            continue;
        else if (s->kind == TRACE_WRITE && dice_any(dice, 3) == 0)
            apply_torn(d, s, dice);
        else
            apply(d, s);
    }
}

static void rebuild(const struct disk *d)
{
    char lock[128];
    size_t done = 0;
    int fd;

    snprintf(lock, sizeof(lock), "%s-lock", file);
    unlink(lock);
    unlink(file);
    fd = open(file, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        fail(file);
    while (done < d->n) {
        ssize_t n = write(fd, d->p + done, d->n - done);

        if (n <= 0)
            fail(file);
        done += (size_t)n;
    }
    close(fd);
}

/* ---- what must hold ------------------------------------------------------------------------- */

static void on_line(void *ctx, const char *line)
{
    char *first = ctx;

    if (!first[0])
        snprintf(first, 200, "%s", line);
}

/* mark < 0: nothing is acknowledged, not even that there is a store. */
static bool sound(struct store *s, int64_t mark, uint32_t txns, char *why, size_t cap)
{
    uint64_t least = mark < 0 ? 0 : (uint64_t)mark;
    uint8_t kept[WORK_SECRET];
    struct work_state now;
    char line[200] = "";
    uint64_t bad = 0;
    int rc = store_check(s, on_line, line, &bad);

    if (rc || bad) {
        snprintf(why, cap, "the check finds: %s (%d)", line, rc);
        return false;
    }
    if (!work_look(s, &now, why, cap))
        return false;
    if (now.digest != state[least].digest &&
        (mark < 0 || least == txns || now.digest != state[least + 1].digest)) {
        tally->lost++;
        snprintf(why, cap, "%llu records, acknowledged were %llu, and something differs",
                 (unsigned long long)now.records, (unsigned long long)state[least].records);
        return false;
    }
    if (mark >= 0 && (store_secret(s, STORE_SECRET_COOKIE, kept, sizeof(kept)) != 0 ||
                      memcmp(kept, secret, sizeof(kept)) != 0)) {
        snprintf(why, cap, "the secret is another one");
        return false;
    }
    return work_one_more(s, why, cap);
}

static void one_case(const struct disk *d, size_t at, int64_t mark, uint32_t choice,
                     const struct plan *plan)
{
    char why[STORE_WHY_MAX] = "";
    struct store *s;
    bool well;

    rebuild(d);
    s = work_open(dir, why, sizeof(why));
    well = s && sound(s, mark, plan->txns, why, sizeof(why));
    store_close(s);
    if (!s && mark < 0 && strstr(why, STORE_FILE) && strstr(why, "move it away")) {
        tally->unborn++; /* LMDB makes its first two pages without a sync */
        return;
    }
    if (well)
        return;
    if (tally->failures < FAILURES_KEPT)
        snprintf(tally->first[tally->failures], sizeof(tally->first[0]),
                 "power fails at step %zu of %zu, choice %u, %lld acknowledged: %.200s", at,
                 trace_n, choice, (long long)mark, why);
    tally->failures++;
}

/* Enough for a store that syncs nothing. */
static bool convicted(void)
{
    return tally->failures >= RED_ENOUGH && tally->lost > 0;
}

/* Every prefix of the trace, from case tally->next on. */
static void all_cases(const struct plan *plan, bool convict)
{
    struct disk synced = { calloc(1, DISK_MAX), 0 };
    struct disk d = { calloc(1, DISK_MAX), 0 };
    size_t *waiting = calloc(trace_n + 1, sizeof(*waiting));
    size_t waiting_n = 0, number = 0;
    int64_t mark = -1;

    if (!synced.p || !d.p || !waiting)
        fail("memory");
    for (size_t at = 0; at <= trace_n && !(convict && convicted()); at++) {
        uint32_t choices = waiting_n == 0 ? 1 : waiting_n == 1 ? 3 : 2 + plan->choices;

        for (uint32_t c = 0; c < choices; c++, number++) {
            struct dice dice = { plan->seed * 1000003 + number };

            if (number < tally->next)
                continue;
            tally->next = number + 1;
            tally->at = at;
            tally->cases++;
            memcpy(d.p, synced.p, synced.n);
            memset(d.p + synced.n, 0, d.n > synced.n ? d.n - synced.n : 0);
            d.n = synced.n;
            power_fails(&d, waiting, waiting_n, c, &dice);
            one_case(&d, at, mark, c, plan);
        }
        if (at == trace_n)
            break;
        if (trace[at].kind == TRACE_MARK) {
            mark = trace[at].mark;
        } else if (trace[at].kind == TRACE_SYNCED_WRITE) {
            apply(&synced, &trace[at]);
        } else if (trace[at].kind == TRACE_SYNC) {
            for (size_t i = 0; i < waiting_n; i++)
                apply(&synced, &trace[waiting[i]]);
            waiting_n = 0;
        } else {
            waiting[waiting_n++] = at;
        }
    }
    free(waiting);
    free(d.p);
    free(synced.p);
}

/* ---- a run ---------------------------------------------------------------------------------- */

static void forget(void)
{
    for (size_t i = 0; i < trace_n; i++)
        free(trace[i].data);
    trace_n = 0;
}

static size_t count_kind(enum trace_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < trace_n; i++)
        n += trace[i].kind == kind;
    return n;
}

static void record(const struct plan *plan, bool nosync)
{
    forget();
    unlink(file);
    trace_nosync = nosync;
    trace_begin(file);
    work_run(dir, plan->seed, plan->txns, state, secret);
    trace_end();
    trace_nosync = false;
    printf("%s: %u transactions, %llu records at the end; %zu writes, %zu synced ones, %zu syncs, "
           "%zu new ends\n",
           nosync ? "with MDB_NOSYNC" : "as it is", plan->txns,
           (unsigned long long)state[plan->txns].records, count_kind(TRACE_WRITE),
           count_kind(TRACE_SYNCED_WRITE), count_kind(TRACE_SYNC), count_kind(TRACE_RESIZE));
}

/* A meta page's write must fit a sector, for nothing else makes it whole or absent. */
static bool meta_in_a_sector(void)
{
    for (size_t i = 0; i < trace_n; i++)
        if (trace[i].kind == TRACE_SYNCED_WRITE &&
            trace[i].at / SECTOR != (trace[i].at + trace[i].n - 1) / SECTOR)
            return false;
    return true;
}

static void check(const struct plan *plan, bool convict)
{
    int status;

    memset(tally, 0, sizeof(*tally));
    do {
        pid_t pid;

        fflush(stdout);
        pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid == 0) {
            int null = convict ? open("/dev/null", O_WRONLY) : -1;

            if (null >= 0)
                dup2(null, STDERR_FILENO);
            all_cases(plan, convict);
            _exit(0);
        }
        if (waitpid(pid, &status, 0) != pid)
            fail("waitpid");
        if (status != 0) { /* the file was so bad that reading it ended the process */
            if (tally->failures < FAILURES_KEPT)
                snprintf(tally->first[tally->failures], sizeof(tally->first[0]),
                         "power fails at step %zu: reading the file ends the process (%#x)",
                         tally->at, (unsigned)status);
            tally->failures++;
        }
    } while (status != 0 && !(convict && convicted()));
    for (size_t i = 0; i < FAILURES_KEPT && i < tally->failures; i++)
        printf("    %s\n", tally->first[i]);
}

int main(int argc, char **argv)
{
    struct plan plan = { .seed = 1, .txns = 70, .choices = 5 };
    struct timespec a, b;
    bool good;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0) {
            plan.txns = 150;
            plan.choices = 10;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            plan.seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "durability [--all] [--seed N]\n");
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(dir, sizeof(dir), "%s/sluice-durability-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir))
        fail(dir);
    snprintf(file, sizeof(file), "%s/" STORE_FILE, dir);
    state = calloc(plan.txns + 1, sizeof(*state));
    tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!state || tally == MAP_FAILED)
        fail("memory");

    clock_gettime(CLOCK_MONOTONIC, &a);
    record(&plan, false);
    good = meta_in_a_sector() && count_kind(TRACE_SYNCED_WRITE) >= plan.txns;
    if (!good)
        printf("FAILED: not every transaction ends with one sector written and synced\n");
    check(&plan, false);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("as it is: %zu failures of power, %zu bad ends, %zu refused before the first promise, "
           "%.1f s\n",
           tally->cases, tally->failures, tally->unborn,
           (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
    good = good && tally->failures == 0 && tally->cases > (size_t)plan.txns * 4;

    record(&plan, true);
    check(&plan, true);
    printf("with MDB_NOSYNC: %zu failures of power, %zu bad ends, %zu of them without a trace of "
           "damage\n",
           tally->cases, tally->failures, tally->lost);
    if (!convicted()) {
        printf("FAILED: a store that syncs nothing passes this test\n");
        good = false;
    }
    forget();
    free(trace);
    free(state);
    unlink(file);
    snprintf(file, sizeof(file), "%s/" STORE_FILE "-lock", dir);
    unlink(file);
    rmdir(dir);
    printf("%s (seed %llu)\n", good ? "ok" : "FAILED", (unsigned long long)plan.seed);
    return good ? 0 : 1;
}
