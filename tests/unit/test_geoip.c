/* Places of addresses: a database of the test's own making, whole, cut short, broken, and replaced
 * while it is read (dig.md §15.2). */
#include "engine/geoip.h"

#include <fcntl.h>
#include <math.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <time.h>

#include "config_load.h"
#include "mmdb_write.h"

static struct mmdb_write w;
static struct log *log_of_test;
static struct geoip *g;
static sem_t woken;
static char path[128], lines[32768];

static void on_wake(void *arg)
{
    sem_post(arg);
}

static void collect(void *arg, const char *line)
{
    (void)arg;
    strncat(lines, line, sizeof(lines) - strlen(lines) - 2);
    strcat(lines, "\n");
}

static const char *log_now(void)
{
    log_drain_to(log_of_test, collect, NULL);
    return lines;
}

static void write_file(const uint8_t *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600); /* over the old one, not beside it */

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, p, n), (ssize_t)n);
    close(fd);
}

static const uint8_t v4_of_doc[16] = { [12] = 9, 9, 9 }, v6_here[16] = { 0x26, 0x06 };

/* 9.9.9.0/24 and 2606::/16 in two places, 9.9.8.0/24 nowhere. */
static uint8_t *usual(size_t *n, double lat, double lon)
{
    static const uint8_t none[16] = { [12] = 9, 9, 8 };
    uint32_t nowhere;

    memset(&w, 0, sizeof(w));
    nowhere = (uint32_t)w.n;
    mw_ctrl(&w, MMDB_MAP, 1);
    mw_str(&w, "country");
    mw_str(&w, "XX");
    mw_net(&w, none, 120, nowhere);
    mw_net(&w, v4_of_doc, 120, mw_city(&w, MMDB_DBL, lat, lon));
    mw_net(&w, v6_here, 16, mw_city(&w, MMDB_FLT, -33.8, 151.2));
    return mw_file(&w, 6, n);
}

static void begin(bool named)
{
    struct geoip_opts o = { .path = path, .named = named, .wake = on_wake, .arg = &woken };

    snprintf(path, sizeof(path), "%s/sluice-geoip-%d.mmdb",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", getpid());
    cr_assert_eq(LOAD("--listen-dig=127.0.0.1:0"), 0, "%s", said);
    log_of_test = log_new(&c);
    sem_init(&woken, 0, 0);
    o.log = log_attach(log_of_test, "geoip");
    cr_assert_eq(geoip_start(&o, &g), 0);
}

static void end(void)
{
    geoip_stop(g);
    config_free(&c);
    unlink(path);
}

static void start_with(const uint8_t *p, size_t n)
{
    snprintf(path, sizeof(path), "%s/sluice-geoip-%d.mmdb",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", getpid());
    write_file(p, n);
    begin(true);
    while (sem_wait(&woken))
        ;
}

static void await(void)
{
    while (sem_wait(&woken))
        ;
}

/* The cell of whoever has these addresses. */
static uint16_t cell_of(const char *one, const char *two)
{
    struct geoip_batch *b = geoip_batch(g);

    cr_assert(b != NULL);
    b->n = 1;
    b->one[0].addrs_n = 0;
    cr_assert(netaddr_parse(bytes_str(one), &b->one[0].addr[b->one[0].addrs_n++]));
    if (two)
        cr_assert(netaddr_parse(bytes_str(two), &b->one[0].addr[b->one[0].addrs_n++]));
    geoip_ask(g);
    do
        await();
    while (!geoip_batch(g));
    return b->edition ? b->one[0].cell : GEOIP_NOWHERE - 1;
}

static uint16_t cell(int row, int col)
{
    return (uint16_t)(row * GEOIP_COLS + col);
}

Test(geoip_cell, goes_down_to_the_next_multiple_of_five)
{
    cr_expect_eq(geoip_cell(0, 0), cell(18, 36));
    cr_expect_eq(geoip_cell(-0.001, -0.001), cell(17, 35));
    cr_expect_eq(geoip_cell(-5, -5), cell(17, 35));
    cr_expect_eq(geoip_cell(-5.001, 4.999), cell(16, 36));
    cr_expect_eq(geoip_cell(51.5, -0.1), cell(28, 35));
    cr_expect_eq(geoip_cell(-90, -180), 0);
    cr_expect_eq(geoip_cell(90, 180), GEOIP_CELLS - 1);
    cr_expect_eq(geoip_cell(89.999, 179.999), cell(35, 71));
}

Test(geoip_cell, what_is_no_coordinate_is_nowhere)
{
    cr_expect_eq(geoip_cell(90.1, 0), GEOIP_NOWHERE);
    cr_expect_eq(geoip_cell(-90.1, 0), GEOIP_NOWHERE);
    cr_expect_eq(geoip_cell(0, 180.1), GEOIP_NOWHERE);
    cr_expect_eq(geoip_cell(0, -180.1), GEOIP_NOWHERE);
    cr_expect_eq(geoip_cell(1e300, 0), GEOIP_NOWHERE);
    cr_expect_eq(geoip_cell(NAN, 0), GEOIP_NOWHERE);
    cr_expect_eq(geoip_cell(0, -INFINITY), GEOIP_NOWHERE);
}

Test(geoip, finds_both_families_and_the_first_that_is_there, .timeout = 20)
{
    size_t n;
    uint8_t *file = usual(&n, 51.5, -0.1);

    start_with(file, n);
    cr_expect_eq(geoip_edition(g), 1);
    cr_expect_eq(cell_of("9.9.9.200:1", NULL), cell(28, 35));
    cr_expect_eq(cell_of("[2606::77]:1", NULL), cell(11, 66));
    cr_expect_eq(cell_of("9.9.8.1:1", NULL), GEOIP_NOWHERE, "a record without a place");
    cr_expect_eq(cell_of("9.9.7.1:1", NULL), GEOIP_NOWHERE, "no record");
    cr_expect_eq(cell_of("9.9.8.1:1", "[2606::77]:1"), cell(11, 66));
    cr_expect_eq(cell_of("9.9.9.1:1", "[2606::77]:1"), cell(28, 35));
    cr_expect(strstr(log_now(), "Test-City"), "%s", lines);
    end();
    free(file);
}

/* In the database they have a place, and are not asked for (dig.md §15.2). */
Test(geoip, private_addresses_are_nowhere, .timeout = 20)
{
    static const char *const private[] = {
        "10.1.2.3:1",    "172.16.0.1:1",      "172.31.255.1:1", "192.168.1.1:1",  "127.0.0.1:1",
        "169.254.1.1:1", "0.0.0.0:1",         "192.0.2.1:1",    "198.51.100.1:1", "203.0.113.1:1",
        "[::]:1",        "[::1]:1",           "[fe80::1]:1",    "[febf::1]:1",    "[fc00::1]:1",
        "[fdff::1]:1",   "255.255.255.255:1",
    };
    static const char *const public[] = { "11.1.2.3:1",  "172.15.0.1:1",      "172.32.0.1:1",
                                          "9.255.0.1:1", "255.255.255.254:1", "0.0.0.1:1",
                                          "[fec0::1]:1", "[2001:db8::1]:1" };
    uint8_t zero[16] = { 0 }, high[16] = { 0x80 };
    uint32_t at;
    uint8_t *file;
    size_t n;

    memset(&w, 0, sizeof(w));
    at = mw_city(&w, MMDB_DBL, 1, 1);
    mw_net(&w, zero, 1, at);
    mw_net(&w, high, 1, at);
    file = mw_file(&w, 6, &n);
    start_with(file, n);
    for (size_t i = 0; i < ARRAY_LEN(private); i++)
        cr_expect_eq(cell_of(private[i], NULL), GEOIP_NOWHERE, "%s", private[i]);
    for (size_t i = 0; i < ARRAY_LEN(public); i++)
        cr_expect_eq(cell_of(public[i], NULL), cell(18, 36), "%s", public[i]);
    end();
    free(file);
}

Test(geoip, an_ipv4_database_knows_no_ipv6, .timeout = 20)
{
    static const uint8_t nine[4] = { 9 };
    uint8_t *file;
    size_t n;

    memset(&w, 0, sizeof(w));
    mw_net(&w, nine, 8, mw_city(&w, MMDB_DBL, 1, 1));
    file = mw_file(&w, 4, &n);
    start_with(file, n);
    cr_expect_eq(cell_of("[2606::77]:1", "9.1.1.1:1"), cell(18, 36));
    cr_expect_eq(cell_of("[2606::77]:1", NULL), GEOIP_NOWHERE);
    end();
    free(file);
}

Test(geoip, no_file_is_said_if_it_was_named, .timeout = 20)
{
    begin(true);
    await();
    cr_expect_eq(geoip_edition(g), 0);
    cr_expect(strstr(log_now(), "no database: No such file"), "%s", lines);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), GEOIP_NOWHERE - 1, "no answer");
    end();
    lines[0] = 0;
    begin(false);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), GEOIP_NOWHERE - 1, "no answer");
    cr_expect_eq(strlen(log_now()), 0, "%s", lines);
    end();
}

Test(geoip, a_reload_takes_the_new_file_or_keeps_the_old, .timeout = 20)
{
    size_t n, m;
    uint8_t *one = usual(&n, 51.5, -0.1);
    uint8_t *two = usual(&m, 1, 1);

    start_with(one, n);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), cell(28, 35));
    unlink(path);
    geoip_reopen(g, path);
    await();
    cr_expect(strstr(log_now(), "stays the one before: No such file"), "%s", lines);
    cr_expect_eq(geoip_edition(g), 1);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), cell(28, 35), "the one before");
    write_file(two, m);
    geoip_reopen(g, path);
    await();
    cr_expect_eq(geoip_edition(g), 2);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), cell(18, 36));
    cr_expect_eq(geoip_batch(g)->edition, 2);
    end();
    free(one);
    free(two);
}

/* Every length of a file that is whole: opened or not, nothing but an answer comes of it. */
Test(geoip, every_truncation_is_refused_or_answers, .timeout = 60)
{
    size_t n, opened = 0;
    uint8_t *file = usual(&n, 51.5, -0.1);

    start_with(file, n);
    for (size_t cut = 0; cut < n; cut++) {
        uint32_t was = geoip_edition(g);

        unlink(path); /* beside the old one: what is open stays whole */
        write_file(file, cut);
        geoip_reopen(g, path);
        await();
        opened += geoip_edition(g) != was;
        (void)cell_of("9.9.9.1:1", "[2606::77]:1");
        cr_assert(geoip_edition(g) != 0);
    }
    cr_expect(opened < 40, "%zu of %zu opened", opened, n);
    end();
    free(file);
}

/* Any byte changed, and no word lost: an answer or none. */
Test(geoip, every_byte_may_be_another, .timeout = 120)
{
    size_t n;
    uint8_t *file = usual(&n, 51.5, -0.1);

    start_with(file, n);
    for (size_t i = 0; i < n; i++)
        for (int how = 0; how < 3; how++) {
            uint8_t was = file[i];
            uint16_t at;

            file[i] = how == 0 ? (uint8_t)~was : how == 1 ? 0xff : (uint8_t)(was + 1);
            unlink(path);
            write_file(file, n);
            geoip_reopen(g, path);
            await();
            at = cell_of("9.9.9.1:1", "[2606::77]:1");
            cr_assert(at < GEOIP_CELLS || at >= GEOIP_NOWHERE - 1, "byte %zu", i);
            file[i] = was;
            if (!geoip_edition(g)) { /* it broke: the next one is not kept from coming */
                unlink(path);
                write_file(file, n);
                geoip_reopen(g, path);
                await();
                cr_assert(geoip_edition(g) != 0);
            }
        }
    end();
    free(file);
}

/* Who copies a new one over it takes pages away that are mapped: what that does must not be our
 * end. */
Test(geoip, a_file_cut_while_it_is_open_is_closed_and_said, .timeout = 20)
{
    size_t n;
    uint8_t *file = usual(&n, 51.5, -0.1);

    start_with(file, n);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), cell(28, 35));
    cr_assert_eq(truncate(path, 0), 0);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), GEOIP_NOWHERE - 1, "no answer");
    cr_expect_eq(geoip_edition(g), 0);
    cr_expect(strstr(log_now(), "no database any more"), "%s", lines);
    write_file(file, n);
    geoip_reopen(g, path);
    await();
    cr_expect_eq(geoip_edition(g), 2);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), cell(28, 35));
    end();
    free(file);
}

/* An array in an array in an array ...: the library follows it down the stack. */
Test(geoip, what_is_nested_without_end_is_closed_and_said, .timeout = 20)
{
    uint8_t *file;
    size_t n;

    memset(&w, 0, sizeof(w));
    mw_ctrl(&w, MMDB_MAP, 2);
    mw_str(&w, "city");
    for (int i = 0; i < 1000000; i++)
        mw_ctrl(&w, MMDB_ARR, 1);
    mw_str(&w, "x");
    mw_str(&w, "location");
    mw_ctrl(&w, MMDB_MAP, 2);
    mw_real(&w, "latitude", MMDB_DBL, 1);
    mw_real(&w, "longitude", MMDB_DBL, 1);
    mw_net(&w, v6_here, 16, 0);
    file = mw_file(&w, 6, &n);
    start_with(file, n);
    cr_expect_eq(cell_of("9.9.9.1:1", NULL), GEOIP_NOWHERE, "not in it");
    cr_expect_eq(cell_of("[2606::1]:1", NULL), GEOIP_NOWHERE - 1, "no answer");
    cr_expect_eq(geoip_edition(g), 0);
    cr_expect_eq(cell_of("[2606::1]:1", NULL), GEOIP_NOWHERE - 1, "and it lives on");
    end();
    free(file);
}

/* A disk that hangs: a pipe that nobody writes into. */
Test(geoip, a_stop_leaves_a_thread_that_hangs_behind, .timeout = 20)
{
    struct timespec from, to;

    snprintf(path, sizeof(path), "%s/sluice-geoip-%d.mmdb",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", getpid());
    cr_assert_eq(mkfifo(path, 0600), 0);
    begin(true);
    cr_assert(geoip_batch(g) != NULL);
    geoip_ask(g);
    usleep(50000);
    cr_expect(geoip_batch(g) == NULL, "it hangs");
    clock_gettime(CLOCK_MONOTONIC, &from);
    geoip_stop(g);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double ms =
        1e3 * (double)(to.tv_sec - from.tv_sec) + 1e-6 * (double)(to.tv_nsec - from.tv_nsec);

    cr_expect(ms > GEOIP_STOP_MS / 2, "%f", ms);
    int fd = open(path, O_WRONLY); /* and now it gets on, and tells nobody */

    cr_expect_geq(fd, 0);
    close(fd);
    usleep(200000);
    cr_expect_eq(strlen(log_now()), 0, "%s", lines);
    config_free(&c);
    unlink(path);
}
