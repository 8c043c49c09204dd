/* bench-store: what the store costs (store/store.h), on the disk that DIR is on.
 *     bench-store DIR [RECORDS]      default: a million
 * Fills a store in DIR (which must not have one; it is removed at the end) with registrations of
 * 300 bytes, then prints: the disk's own fdatasync rate with nothing else, and with as many pages
 * at random as a group has; registrations per second through commits of several sizes, wall and
 * CPU, with the time of a commit at the median and the 99th percentile, for four kinds of traffic;
 * DISCOVER of 100; opening with all that is inside. */
#include "store/store.h"
#include "proto/crypto.h"
#include "proto/cur.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    ENVELOPE = 300,
    FILL_GROUP = 20000,
    ROUNDS = 40, /* commits per size and kind, at most */
    PUTS = 20000,
    DISCOVERS = 2000,
    PAGE = 4096,
};

static uint64_t dice = 1;
static uint64_t now_s = 1700000000;

static uint64_t next_u64(void)
{
    uint64_t z = dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void fake_rng(void *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)to)[i] = (uint8_t)next_u64();
}

static double wall(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench-store: %s\n", what);
    exit(1);
}

/* ---- records ------------------------------------------------------------------------------- */

static struct peer_id peer_of(uint64_t i)
{
    struct peer_id p = { .n = 38 };
    uint8_t key[8];

    put_u64(key, i * UINT64_C(0x9e3779b97f4a7c15));
    memcpy(p.b, "\x00\x24\x08\x01\x12\x20", 6);
    crypto_sha256(bytes_of(key, sizeof(key)), p.b + 6);
    return p;
}

/* version: another one is another envelope. */
static void put(struct store *s, uint64_t i, bool own_ns, uint32_t version)
{
    uint8_t envelope[ENVELOPE] = { 0 };
    char ns[64] = "dusk/peers";
    struct peer_id p = peer_of(i);

    if (own_ns)
        snprintf(ns, sizeof(ns), "dusk/peer/%016" PRIx64, i);
    put_u64(envelope, i);
    put_u32(envelope + 8, version);

    struct store_reg r = { .peer = p,
                           .ns = bytes_str(ns),
                           .envelope = bytes_of(envelope, sizeof(envelope)),
                           .record_seq = version,
                           .ttl_s = 259200,
                           .expires_unix_s = now_s + 259200 };

    if (store_reg_put(s, &r, NULL) != STORE_OK)
        die("a registration was refused");
}

static void begin(struct store *s)
{
    if (store_begin(s))
        die("begin");
}

static void commit(struct store *s)
{
    int rc = store_commit(s);

    if (rc)
        die(strerror(-rc));
}

/* ---- measurements -------------------------------------------------------------------------- */

static void disk(const char *dir, unsigned pages)
{
    static uint8_t page[PAGE];
    enum { SPAN = 300 << 20 };
    char path[1024];
    double t, took[ROUNDS];
    int fd;

    snprintf(path, sizeof(path), "%s/bench-disk", dir);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path);
    for (off_t at = 0; at < SPAN; at += PAGE)
        if (pwrite(fd, page, PAGE, at) != PAGE)
            die("the disk is full");
    fdatasync(fd);
    for (int i = 0; i < ROUNDS; i++) {
        t = wall();
        for (unsigned k = 0; k < pages; k++) {
            page[0]++;
            if (pwrite(fd, page, PAGE, (off_t)(next_u64() % (SPAN / PAGE)) * PAGE) != PAGE)
                die("write");
        }
        fdatasync(fd);
        took[i] = wall() - t;
    }
    close(fd);
    unlink(path);
    qsort(took, ROUNDS, sizeof(took[0]), by_size);
    printf("disk: %5u pages at random and fdatasync: median %6.2f ms, worst %6.2f ms (%.0f/s)\n",
           pages, took[ROUNDS / 2] * 1e3, took[ROUNDS - 1] * 1e3, 1 / took[ROUNDS / 2]);
}

enum kind { NEW_ONE_NS, NEW_OWN_NS, IN_TURN, RENEWED, REFRESHED, KINDS };
static const char *const kind_names[KINDS] = {
    "new, one namespace", "new, a namespace each",  "renewed, in turn",
    "renewed, any",       "renewed, same envelope",
};

static void puts_rate(struct store *s, enum kind kind, unsigned group, uint64_t records)
{
    static uint64_t fresh = UINT64_C(1) << 40;
    static uint32_t version = 2;
    static uint64_t turn; /* as clients renew that do it every so often: the oldest first */
    unsigned rounds = PUTS / group > ROUNDS ? ROUNDS : PUTS / group;
    double took[ROUNDS], w = wall(), c = cpu();

    now_s += 10;
    for (unsigned i = 0; i < rounds; i++) {
        begin(s);
        for (unsigned k = 0; k < group; k++) {
            /* the half that has one namespace; those of the fill, so that an envelope is known */
            uint64_t any = next_u64() % records & ~UINT64_C(1);

            if (kind == IN_TURN)
                put(s, 2 * turn++ % records, false, version++);
            else if (kind == RENEWED)
                put(s, any, false, version++);
            else if (kind == REFRESHED)
                put(s, any, false, 1);
            else
                put(s, fresh++, kind == NEW_OWN_NS, 1);
        }
        took[i] = wall();
        commit(s);
        took[i] = wall() - took[i];
    }
    w = wall() - w;
    c = cpu() - c;
    qsort(took, rounds, sizeof(took[0]), by_size);
    printf("puts: %-24s groups of %5u: %7.0f/s, %5.1f us CPU each; commit median %6.2f ms, "
           "worst of %u %6.2f ms\n",
           kind_names[kind], group, rounds * group / w, c * 1e6 / (rounds * group),
           took[rounds / 2] * 1e3, rounds, took[rounds - 1] * 1e3);
}

static enum store_take count_one(void *ctx, const struct store_reg *r)
{
    *(uint64_t *)ctx += r->envelope.n;
    return STORE_TAKE;
}

static void discovers(struct store *s, bool all, uint64_t seqs)
{
    double took[DISCOVERS];
    uint64_t bytes = 0;

    for (int i = 0; i < DISCOVERS; i++) {
        struct store_discover q = { .ns = bytes_str("dusk/peers"),
                                    .all = all,
                                    .after = next_u64() % (seqs / 2),
                                    .now_unix_s = now_s,
                                    .limit = 100 };
        struct store_discovered d;
        double t = wall();

        if (store_discover(s, &q, count_one, &bytes, &d) || d.taken != 100)
            die("discover");
        took[i] = wall() - t;
    }
    qsort(took, DISCOVERS, sizeof(took[0]), by_size);
    printf("discover: 100 of %s from anywhere: median %.1f us, 99 %% %.1f us, worst %.1f us\n",
           all ? "every namespace" : "one namespace", took[DISCOVERS / 2] * 1e6,
           took[DISCOVERS * 99 / 100] * 1e6, took[DISCOVERS - 1] * 1e6);
}

static struct store *open_store(const char *dir)
{
    struct store_opts o = { .dir = dir, .rng = fake_rng };
    char why[STORE_WHY_MAX];
    struct store *s;

    if (store_open(&o, &s, why, sizeof(why)))
        die(why);
    return s;
}

static void opening(const char *dir, uint64_t records)
{
    double t = wall(), opened, step, longest = 0;
    struct store *s = open_store(dir);
    struct store_stats st;
    bool done = false;

    opened = wall() - t;
    while (!done) {
        step = wall();
        if (store_load(s, 10000, &done))
            die("load");
        step = wall() - step;
        longest = step > longest ? step : longest;
    }
    t = wall() - t;
    if (store_stats(s, &st))
        die("stats");
    printf("open: %.1f ms; and %" PRIu64 " profiles into the index: %.0f ms in all, the longest of "
           "its steps %.1f ms (%" PRIu64 " registrations, %.0f MiB used)\n",
           opened * 1e3, st.profiles, t * 1e3, longest * 1e3, st.regs,
           (double)st.used_bytes / (1 << 20));
    store_close(s);
    (void)records;
}

int main(int argc, char **argv)
{
    static const unsigned groups[] = { 100, 300, 600, 1000, 2000, 5000 };
    static const unsigned pages[] = { 1, 300, 1000, 3000 };
    uint64_t records = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    struct store_stats st;
    char path[1024];
    struct store *s;
    double t;

    if (argc < 2)
        die("usage: bench-store DIR [RECORDS]");
    snprintf(path, sizeof(path), "%s/" STORE_FILE, argv[1]);
    if (access(path, F_OK) == 0)
        die("DIR has a store already");
    for (size_t i = 0; i < ARRAY_LEN(pages); i++)
        disk(argv[1], pages[i]);
    s = open_store(argv[1]);
    t = wall();
    for (uint64_t i = 0; i < records; i += FILL_GROUP) {
        begin(s);
        for (uint64_t k = i; k < i + FILL_GROUP && k < records; k++) {
            char name[32];
            struct peer_id p = peer_of(k);

            now_s += k % 100 == 0;
            put(s, k, k % 2, 1);
            snprintf(name, sizeof(name), "user %06" PRIx64 " of dusk", next_u64() >> 40);
            if (store_profile_put(s, &p, bytes_str(name), (struct bytes){ 0 }, now_s) != STORE_OK)
                die("a profile was refused");
        }
        commit(s);
    }
    printf("fill: %" PRIu64 " registrations and profiles in %.1f s\n", records, wall() - t);
    store_close(s);
    opening(argv[1], records);
    s = open_store(argv[1]);
    if (store_stats(s, &st))
        die("stats");
    discovers(s, false, st.next_seq);
    discovers(s, true, st.next_seq);
    for (enum kind k = 0; k < KINDS; k++)
        for (size_t i = 0; i < ARRAY_LEN(groups); i++)
            puts_rate(s, k, groups[i], records);
    store_close(s);
    unlink(path);
    snprintf(path, sizeof(path), "%s/" STORE_FILE "-lock", argv[1]);
    unlink(path);
    return 0;
}
