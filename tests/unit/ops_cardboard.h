/* tests/unit/ops_cardboard.h: the HTTP and admin doors on a real ring, with a daemon of cardboard
 * behind them. */
#ifndef SLUICE_TESTS_UNIT_OPS_CARDBOARD_H
#define SLUICE_TESTS_UNIT_OPS_CARDBOARD_H

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

static inline void fake_status(void *ctx, struct ops_status *out)
{
    (void)ctx;
    *out = (struct ops_status){ .config = &cfg,
                                .ready = true,
                                .draining = draining,
                                .peers_connected = 7,
                                .dig_registered = 9,
                                .uptime_ms = 5000 };
}

static inline int fake_list(void *ctx, enum snap_kind kind, uint32_t owner,
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

static inline void fake_more(void *ctx, uint32_t owner)
{
    (void)ctx;
    cr_expect_eq(owner, list.owner);
    list.parked = true;
}

static inline void fake_cancel(void *ctx, uint32_t owner)
{
    (void)ctx;
    cr_expect_eq(owner, list.owner);
    list.open = false;
    list.cancels++;
}

/* As many characters as a row of allocations can have. */
static inline struct snap_alloc longest_alloc(void)
{
    struct snap_alloc r;

    memset(&r, 0xff, sizeof(r));
    for (size_t i = 0; i < 16; i++) /* nothing that RFC 5952 could shorten */
        r.client.ip[i] = r.relayed[0].ip[i] = r.relayed[1].ip[i] = 0xf1;
    memset(r.user, '"', sizeof(r.user));
    r.user[sizeof(r.user) - 1] = '\0';
    r.transport = 3;
    r.left_ms = UINT64_MAX - 999;
    r.tcp = r.away = false;
    r.relayed_n = 2;
    return r;
}

/* And one of DIG nodes. */
static inline struct snap_dig longest_node(void)
{
    struct snap_dig r;

    memset(&r, 0xff, sizeof(r));
    for (size_t i = 0; i < 16; i++)
        r.observed.ip[i] = 0xf1;
    memset(r.id, '"', sizeof(r.id));
    memset(r.net, '"', sizeof(r.net));
    r.id[sizeof(r.id) - 1] = r.net[sizeof(r.net) - 1] = '\0';
    r.tls = r.verified = r.masked = false;
    return r;
}

static inline void hand_page(void)
{
    static struct snap s;

    s = (struct snap){ .kind = list.kind, .rows = (uint16_t)list.rows };
    for (unsigned i = 0; i < list.rows; i++) {
        if (list.kind == SNAP_CONNS)
            s.conn[i] =
                (struct snap_conn){ .slot = list.cursor++, .state = 5, .rx_bytes = UINT64_MAX };
        else if (list.kind == SNAP_CIRCUITS)
            s.circuit[i] = (struct snap_circuit){ .id = list.cursor++, .state = 1 };
        else if (list.kind == SNAP_DIG)
            s.dig[i] = longest_node();
        else
            s.alloc[i] = longest_alloc();
    }
    list.parked = false;
    s.end = --list.pages_left == 0;
    list.open = !s.end;
    list.handed++;
    list.page(list.arg, list.owner, &s);
}

static inline void fake_drain(void *ctx, uint32_t seconds)
{
    (void)ctx;
    draining = true;
    drained = seconds;
}

static inline int fake_reload(void *ctx, char *why, size_t cap)
{
    (void)ctx;
    snprintf(why, cap, "x.yaml:3: \"no\"");
    return -EINVAL;
}

static char asked_name[JSON_TEXT_MAX];
static uint32_t asked_ttl;

static inline int fake_credentials(void *ctx, const char *name, uint32_t ttl_s,
                                   struct ops_cred *out, char *why, size_t cap)
{
    (void)ctx;
    snprintf(asked_name, sizeof(asked_name), "%s", name);
    asked_ttl = ttl_s;
    *out = (struct ops_cred){ .username = "1:a",
                              .password = "p",
                              .ttl_s = ttl_s,
                              .uris = { "turn:h:1?transport=udp", "stun:h:1" },
                              .uris_n = 2 };
    snprintf(why, cap, "no secret");
    return strcmp(name, "nobody") == 0 ? -ENOKEY : 0;
}

static struct ops ops = { .status = fake_status,
                          .list = fake_list,
                          .list_more = fake_more,
                          .list_cancel = fake_cancel,
                          .drain = fake_drain,
                          .reload = fake_reload,
                          .turn_credentials = fake_credentials };

static char dir[64];

static inline void setup(void)
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

static inline void teardown(void)
{
    if (!ring)
        return;
    ring_free(ring);
    opsdoor_free(door);
    log_free(lg);
    cr_expect_eq(access(cfg.admin_path, F_OK), -1, "the socket goes with the door");
    rmdir(dir);
}

/* One short turn of control's loop. */
static inline void turn(void)
{
    struct ring_cqe cqe;

    cr_assert_eq(ring_wait(ring, 2 * NS_PER_MS), 0);
    while (ring_next(ring, &cqe))
        opsdoor_on_cqe(door, &cqe, now_ms() + skew_ms);
    if (list.open && list.parked)
        hand_page();
}

static inline void turns(unsigned n)
{
    while (n--)
        turn();
}

static inline int dial_http(void)
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

static inline struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    cr_assert(strlen(path) < sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path) + 1);
    return a;
}

static inline int dial_admin(void)
{
    struct sockaddr_un a = address_of(cfg.admin_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* The new assertions of Criterion take a pointer for a string to print, not for a truth. */
static inline bool says(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static char got[1 << 22];
static size_t got_n;

/* Reads until the door closes; false: it has not within `n` turns. */
static inline bool read_all(int fd, unsigned n)
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

static inline const char *ask(const char *request)
{
    int fd = dial_http();

    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    cr_assert(read_all(fd, 500), "no answer to %s", request);
    close(fd);
    turns(3);
    return got;
}

static inline const char *tell(const char *request)
{
    int fd = dial_admin();

    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    cr_assert(read_all(fd, 5000), "no answer to %s", request);
    close(fd);
    turns(3);
    return got;
}

static inline unsigned open_slots(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < OPS_SLOTS; i++)
        n += door->conn[i].state != OC_FREE;
    return n;
}

#endif
