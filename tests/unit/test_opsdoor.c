/* The HTTP and admin doors on a real ring, with a daemon of cardboard behind them: what they
 * answer, and that slow, silent and hostile clients cost slots and nothing else. */
#include "ring_loop.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "engine/ops_int.h"

static struct config cfg;
static struct ring *ring;
static struct opsdoor *door;
static struct log *lg;
static uint64_t skew_ms; /* the doors' clock runs ahead of ours by this */
static bool draining;
static uint32_t drained;

/* Listings of the cardboard daemon: `pages_left` pages of `rows` rows. */
static struct {
    bool open, parked;
    enum snap_kind kind;
    uint32_t owner, cursor;
    unsigned pages_left, rows, handed, cancels;
    void (*page)(void *arg, uint32_t owner_id, const struct snap *s);
    void *arg;
} list;

static void fake_status(void *ctx, struct ops_status *out)
{
    (void)ctx;
    *out = (struct ops_status){
        .config = &cfg, .ready = true, .draining = draining, .peers_connected = 7, .uptime_ms = 5000
    };
}

static int fake_list(void *ctx, enum snap_kind kind, uint32_t owner,
                     void (*page)(void *, uint32_t, const struct snap *), void *arg)
{
    (void)ctx;
    if (list.open)
        return -EBUSY;
    list.open = list.parked = true;
    list.kind = kind;
    list.owner = owner;
    list.page = page;
    list.arg = arg;
    return 0;
}

static void fake_more(void *ctx, uint32_t owner)
{
    (void)ctx;
    cr_expect_eq(owner, list.owner);
    list.parked = true;
}

static void fake_cancel(void *ctx, uint32_t owner)
{
    (void)ctx;
    cr_expect_eq(owner, list.owner);
    list.open = false;
    list.cancels++;
}

static void hand_page(void)
{
    static struct snap s;

    s = (struct snap){ .kind = list.kind, .rows = (uint16_t)list.rows };
    for (unsigned i = 0; i < list.rows; i++) {
        if (list.kind == SNAP_CONNS)
            s.conn[i] =
                (struct snap_conn){ .slot = list.cursor++, .state = 5, .rx_bytes = UINT64_MAX };
        else
            s.circuit[i] = (struct snap_circuit){ .id = list.cursor++, .state = 1 };
    }
    list.parked = false;
    s.end = --list.pages_left == 0;
    list.open = !s.end;
    list.handed++;
    list.page(list.arg, list.owner, &s);
}

static void fake_drain(void *ctx, uint32_t seconds)
{
    (void)ctx;
    draining = true;
    drained = seconds;
}

static int fake_reload(void *ctx, char *why, size_t cap)
{
    (void)ctx;
    snprintf(why, cap, "x.yaml:3: \"no\"");
    return -EINVAL;
}

static struct ops ops = { .status = fake_status,
                          .list = fake_list,
                          .list_more = fake_more,
                          .list_cancel = fake_cancel,
                          .drain = fake_drain,
                          .reload = fake_reload };

static char dir[64];

static void setup(void)
{
    char why[512];
    int err;

    ring = ring_of(&small);
    snprintf(dir, sizeof(dir), "/tmp/sluice-ops-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(cfg.admin_path, sizeof(cfg.admin_path), "%s/admin.sock", dir);
    cfg.http_on = true;
    cfg.http = (struct listen_at){ .addr = any4, .named = true };
    cfg.log_level = LOG_INFO;
    cfg.drain_s = 8;
    lg = log_new(&cfg);
    ops.log = lg;
    list.pages_left = 1;
    door = opsdoor_new(ring, &ops, &cfg, log_attach(lg, "test"), &err, why, sizeof(why));
    cr_assert_not_null(door, "%s", why);
}

static void teardown(void)
{
    if (!ring)
        return;
    ring_free(ring);
    opsdoor_free(door);
    log_free(lg);
    cr_expect_eq(access(cfg.admin_path, F_OK), -1, "the socket goes with the door");
    rmdir(dir);
}

TestSuite(opsdoor, .init = setup, .fini = teardown, .timeout = 60);

/* One short turn of control's loop. */
static void turn(void)
{
    struct ring_cqe cqe;

    cr_assert_eq(ring_wait(ring, 2 * NS_PER_MS), 0);
    while (ring_next(ring, &cqe))
        opsdoor_on_cqe(door, &cqe, now_ms() + skew_ms);
    if (list.open && list.parked)
        hand_page();
}

static void turns(unsigned n)
{
    while (n--)
        turn();
}

static int dial_http(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct netaddr at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(opsdoor_http_bound(door, &at));
    a.sin_port = htons(at.port);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    cr_assert(strlen(path) < sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path) + 1);
    return a;
}

static int dial_admin(void)
{
    struct sockaddr_un a = address_of(cfg.admin_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* The new assertions of Criterion take a pointer for a string to print, not for a truth. */
static bool says(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static char got[1 << 22];
static size_t got_n;

/* Reads until the door closes; false: it has not within `n` turns. */
static bool read_all(int fd, unsigned n)
{
    got_n = 0;
    got[0] = '\0';
    while (n--) {
        ssize_t r = read(fd, got + got_n, sizeof(got) - 1 - got_n);

        if (r > 0)
            got_n += (size_t)r;
        got[got_n] = '\0';
        if (r == 0 || (r < 0 && errno != EAGAIN))
            return r == 0;
        turn();
    }
    return false;
}

static const char *ask(const char *request)
{
    int fd = dial_http();

    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    cr_assert(read_all(fd, 500), "no answer to %s", request);
    close(fd);
    turns(3);
    return got;
}

static const char *tell(const char *request)
{
    int fd = dial_admin();

    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    cr_assert(read_all(fd, 5000), "no answer to %s", request);
    close(fd);
    turns(3);
    return got;
}

static unsigned open_slots(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < OPS_SLOTS; i++)
        n += door->conn[i].state != OC_FREE;
    return n;
}

Test(opsdoor, answers_its_pages)
{
    cr_expect(says(ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK\r\n"));
    cr_expect(says(got, "Content-Type: application/json\r\n") &&
              says(got, "\r\n\r\n{\"status\":\"ok\"}"));
    cr_expect(says(ask("GET /ready HTTP/1.1\r\n\r\n"), " 200 OK"));
    cr_expect(
        says(ask("GET /metrics HTTP/1.1\r\n\r\n"), "Content-Type: text/plain; version=0.0.4\r\n"));
    cr_expect(says(got, "\nrelay_connected_peers 7\n"));
    cr_expect(says(ask("GET /stats.json HTTP/1.1\r\n\r\n"), "\"peers\":7,"));
    cr_expect(says(ask("GET /nope HTTP/1.1\r\n\r\n"), " 404 Not Found\r\n") &&
              says(got, "\r\n\r\nNot Found"));
    cr_expect(says(ask("POST /health HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), " 405 "));
    cr_expect(says(ask("HEAD /health HTTP/1.1\r\n\r\n"), "Content-Length: 15\r\n") &&
              !says(got, "status"));
    cr_expect(says(ask("nonsense\r\n\r\n"), " 400 "));
    cr_expect(says(ask("GET / HTTP/3.0\r\n\r\n"), " 505 "));
    draining = true;
    cr_expect(says(ask("GET /ready HTTP/1.1\r\n\r\n"), " 503 ") && says(got, "draining"));
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "draining is healthy");
    cr_expect_eq(open_slots(), 0u, "every slot is home");
}

Test(opsdoor, dig_has_its_own_health_port)
{
    cfg.http_health_only = true;
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"),
                   "\r\n\r\n{\"status\":\"ok\",\"connected_peers\":7,\"uptime_secs\":5,"
                   "\"version\":\"" SLUICE_VERSION "\"}"));
    cr_expect(says(ask("GET /metrics HTTP/1.1\r\n\r\n"), " 404 ") &&
              says(got, "Content-Length: 0\r\n"));
    cr_expect(says(ask("POST /x HTTP/1.1\r\n\r\n"), " 405 ") && says(got, "Allow: GET,HEAD\r\n"));
}

Test(opsdoor, a_request_may_come_byte_by_byte)
{
    static const char request[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = dial_http();

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        cr_assert_eq(write(fd, request + i, 1), 1);
        turn();
    }
    cr_expect(read_all(fd, 500) && says(got, "{\"status\":\"ok\"}"));
    close(fd);
}

Test(opsdoor, a_head_without_end_is_refused_and_the_answer_arrives)
{
    static char junk[40000];
    int fd = dial_http();

    memset(junk, 'a', sizeof(junk));
    memcpy(junk, "GET / HTTP/1.1\r\nX: ", 19);
    cr_assert_gt(write(fd, junk, sizeof(junk)), 0);
    cr_expect(read_all(fd, 500), "closed in order: what we did not read does not reset it");
    cr_expect(says(got, " 431 "), "%s", got);
    close(fd);
    turns(20);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, silence_and_slow_readers_meet_a_deadline)
{
    int silent = dial_http(), slow = dial_http(), reader = dial_http();

    cr_assert_eq(write(slow, "GET /he", 7), 7);
    turns(5);
    cr_expect_eq(open_slots(), 3u);
    cr_assert_eq(write(reader, "GET /health HTTP/1.1\r\n\r\n", 24), 24);
    turns(10); /* answered; it never closes */
    cr_expect_eq(open_slots(), 3u);
    skew_ms = OPS_EXCHANGE_MS - 1500;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(open_slots(), 2u, "lingering is one second");
    skew_ms = OPS_EXCHANGE_MS + 100;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(open_slots(), 0u);
    cr_expect(read_all(silent, 50) && got_n == 0);
    close(silent);
    close(slow);
    close(reader);
}

Test(opsdoor, two_hundred_idle_scrapers_keep_nobody_out)
{
    int fd[200];

    for (unsigned i = 0; i < 200; i++) {
        fd[i] = dial_http();
        if (i % 16 == 15)
            turns(4);
    }
    turns(20);
    cr_expect_leq(open_slots(), (unsigned)OPS_HTTP_MAX);
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "the newest is served");
    cr_expect(read_all(fd[0], 50), "the oldest made room");
    for (unsigned i = 0; i < 200; i++)
        close(fd[i]);
    turns(20);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, a_burst_is_served_newest_included)
{
    int fd[190]; /* the listen backlog holds as many as the door does, plus those just accepted */
    unsigned n = 0;

    for (; n < 190; n++) {
        fd[n] = dial_http();
        if (n % 60 == 59)
            turn(); /* 60 completions at once */
    }
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "%s", got);
    cr_expect(open_slots() <= (unsigned)OPS_HTTP_MAX);
    while (n)
        close(fd[--n]);
    turns(50);
    cr_expect(open_slots() == 0);
    cr_expect(door->waiting_n == 0);
}

Test(opsdoor, clients_that_vanish_leave_nothing)
{
    for (unsigned round = 0; round < 50; round++) {
        struct linger now = { .l_onoff = 1 };
        int fd = dial_http();
        ssize_t n = write(fd, "GET /metrics HTTP/1.1\r\n\r\n", round % 26);

        (void)n;
        if (round % 3 == 0)
            turn();
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)); /* RST */
        close(fd);
        turn();
    }
    turns(20);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, the_admin_socket_is_private_and_answers)
{
    struct stat s;

    cr_assert_eq(stat(cfg.admin_path, &s), 0);
    cr_expect_eq(s.st_mode & 0777, (mode_t)0600);
    cr_expect(says(tell("status\n"), "\"ok\":true") && says(got, "\"peers\":7,"), "%s", got);
    cr_expect_eq(got[got_n - 1], '\n');
    cr_expect_str_eq(tell("log-level debug\n"), "{\"ok\":true,\"log_level\":\"debug\"}\n");
    cr_expect_eq(log_level_of(lg), LOG_DEBUG);
    cr_expect_str_eq(tell("{\"cmd\":\"log-level\",\"level\":\"warn\"}\n"),
                     "{\"ok\":true,\"log_level\":\"warn\"}\n");
    cr_expect_str_eq(tell("log-level\n"), "{\"ok\":true,\"log_level\":\"warn\"}\n");
    cr_expect(says(tell("log-level loud\n"), "\"ok\":false"));
    cr_expect_str_eq(tell("reload\n"), "{\"ok\":false,\"error\":\"x.yaml:3: \\\"no\\\"\"}\n");
    cr_expect(says(tell("drain 100000\n"), "\"ok\":false"));
    cr_expect(says(tell("drain -1\n"), "\"ok\":false"));
    cr_expect_not(draining);
    cr_expect_str_eq(tell("drain\n"), "{\"ok\":true,\"drain_seconds\":8}\n");
    cr_expect_eq(drained, 8u);
    cr_expect_str_eq(tell("{\"secs\":5,\"cmd\":\"drain\"}\n"),
                     "{\"ok\":true,\"drain_seconds\":5}\n");
    cr_expect_eq(drained, 5u);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, admin_requests_that_are_none_are_refused)
{
    static const char *const bad[] = { "\n",
                                       " \n",
                                       "bogus\n",
                                       "status now\n",
                                       "drain 1 2\n",
                                       "{}\n",
                                       "{\"cmd\":1\n",
                                       "{\"cmd\":\"status\",\"a\":1,\"b\":2}\n",
                                       "[]\n",
                                       "\x01\x02\n",
                                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" };
    static char big[3000];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(says(tell(bad[i]), "\"ok\":false"), "%s: %s", bad[i], got);
    memset(big, 'x', sizeof(big) - 1);
    cr_expect(says(tell(big), "\"ok\":false"));
    cr_expect_eq(open_slots(), 0u);
}

static unsigned lines(void)
{
    unsigned n = 0;

    for (size_t i = 0; i < got_n; i++)
        n += got[i] == '\n';
    return n;
}

Test(opsdoor, lists_come_whole_over_many_pages)
{
    list.pages_left = 20;
    list.rows = SNAP_ROWS;
    tell("conns\n");
    cr_expect_eq(lines(), 20u * SNAP_ROWS + 1);
    cr_expect(says(got, "{\"ok\":true,\"rows\":5120}\n"));
    cr_expect(says(got, "\"rx_bytes\":18446744073709551615"));
    list.pages_left = 3;
    list.rows = 0; /* shards without a row */
    tell("circuits\n");
    cr_expect_str_eq(got, "{\"ok\":true,\"rows\":0}\n");
    cr_expect_eq(open_slots(), 0u);
}

/* A reader that stops: at most one page is held for it, and its listing ends at the deadline. */
Test(opsdoor, a_slow_reader_of_a_list_holds_one_page)
{
    int fd = dial_admin();

    list.pages_left = 1000;
    list.rows = SNAP_ROWS;
    cr_assert_eq(write(fd, "conns\n", 6), 6);
    turns(200);
    cr_expect_lt(list.handed, 20u, "pages wait for the reader: %u", list.handed);
    cr_expect(list.open);
    skew_ms = OPS_EXCHANGE_MS + 100;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(list.cancels, 1u);
    cr_expect_eq(open_slots(), 0u);
    close(fd);
}

Test(opsdoor, without_list_more_a_list_that_is_not_read_is_cut_and_says_so)
{
    int fd;

    ops.list_more = NULL;
    list.pages_left = 1000;
    list.rows = SNAP_ROWS;
    fd = dial_admin();
    cr_assert_eq(write(fd, "conns\n", 6), 6);
    for (unsigned i = 0; i < 100; i++) {
        turn();
        list.parked = list.open; /* pages come as they may */
    }
    cr_expect_eq(list.cancels, 1u);
    cr_expect(read_all(fd, 5000));
    cr_expect(says(got, "\"ok\":false"), "...%s", got + (got_n > 200 ? got_n - 200 : 0));
    close(fd);
}

Test(opsdoor, busy_lists_and_full_slots_are_told)
{
    int fd[OPS_ADMIN_MAX + 1];

    list.open = true; /* somebody else's */
    cr_expect(says(tell("conns\n"), "too many lists"));
    list.open = false;
    for (unsigned i = 0; i < OPS_ADMIN_MAX; i++)
        fd[i] = dial_admin();
    turns(5);
    fd[OPS_ADMIN_MAX] = dial_admin();
    cr_expect(read_all(fd[OPS_ADMIN_MAX], 50), "one too many is closed at once");
    for (unsigned i = 0; i <= OPS_ADMIN_MAX; i++)
        close(fd[i]);
    turns(10);
    cr_expect(says(tell("status\n"), "\"ok\":true"));
}

Test(opsdoor, a_second_one_is_told_the_port_and_the_holder)
{
    struct config again = cfg;
    char why[512], wanted[64];
    int err;

    cr_assert(opsdoor_http_bound(door, &again.http.addr));
    cr_expect_null(opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why)));
    cr_expect_eq(err, -EADDRINUSE);
    snprintf(wanted, sizeof(wanted), "port %u (--listen-http", again.http.addr.port);
    cr_expect(says(why, wanted) && says(why, "process"), "%s", why);
    again.http_on = false;
    cr_expect_null(opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why)));
    cr_expect(says(why, "--control"), "a living admin socket is not taken over: %s", why);
}

Test(opsdoor, what_a_crash_left_is_replaced_and_long_paths_work)
{
    struct config again = { .http_on = false };
    struct sockaddr_un a;
    char deep[256], why[512];
    int err, stale = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(deep, sizeof(deep), "%s/%0120d", dir, 0);
    cr_assert_eq(mkdir(deep, 0700), 0);
    snprintf(again.admin_path, sizeof(again.admin_path), "%s/stale.sock", dir);
    a = address_of(again.admin_path);
    cr_assert_eq(bind(stale, (struct sockaddr *)&a, sizeof(a)), 0);
    close(stale);
    struct opsdoor *d = opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why));

    cr_assert_not_null(d, "%s", why);
    opsdoor_free(d);
    snprintf(again.admin_path, sizeof(again.admin_path), "%s/admin.sock", deep);
    d = opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why));
    cr_assert_not_null(d, "%s", why);
    cr_expect_eq(access(again.admin_path, F_OK), 0);
    opsdoor_free(d);
    rmdir(deep);
    snprintf(again.admin_path, sizeof(again.admin_path), "%s/file", dir);
    close(open(again.admin_path, O_CREAT | O_WRONLY, 0600));
    cr_expect_null(opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why)));
    cr_expect_eq(access(again.admin_path, F_OK), 0, "a file is not ours to remove");
    unlink(again.admin_path);
}
