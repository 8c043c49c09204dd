/* The port that sends people to https (dig.md §15.4), on a real ring behind the other doors. */
#include "ops_cardboard.h"

#include "engine/redirect.h"

static struct netaddr there;

static void begin(void)
{
    cfg.dig_redirect_on = true;
    cfg.dig_redirect = (struct listen_at){ .addr = any4, .named = true };
    setup();
    cr_assert(opsdoor_redirect_bound(door, &there));
}

TestSuite(redirect, .init = begin, .fini = teardown, .timeout = 60);

static unsigned open_redirects(void)
{
    return redirect_open_slots(door->redirect);
}

static int dial_redirect(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_port = htons(there.port);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* What is answered to it, empty for silence. */
static const char *told(const char *request, size_t n)
{
    int fd = dial_redirect();

    cr_assert_eq(write(fd, request, n), (ssize_t)n);
    cr_expect(read_all(fd, 500), "closed in order");
    close(fd);
    turns(5);
    return got;
}

static const char *answer(const char *request)
{
    return told(request, strlen(request));
}

#define GO(where)                                                                                  \
    "HTTP/1.1 301 Moved Permanently\r\nLocation: https://" where                                   \
    "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Test(redirect, dig_55_any_request_is_sent_to_https)
{
    static const struct {
        const char *request, *answer;
    } rows[] = {
        { "GET /a?b=1 HTTP/1.1\r\nHost: ex.org:81\r\n\r\n", GO("ex.org:81/a?b=1") },
        { "GET /a HTTP/1.1\r\n\r\n", GO("relay.dig.net/a") },
        { "GET / HTTP/1.0\r\n\r\n", GO("relay.dig.net/") },
        { "POST /x HTTP/1.1\r\nhost: [2001:db8::1]:8080\r\nContent-Length: 2\r\n\r\nab",
          GO("[2001:db8::1]:8080/x") },
        { "HEAD /h? HTTP/1.1\r\nHost: ex.org\r\n\r\n", GO("ex.org/h?") },
        { "OPTIONS * HTTP/1.1\r\nHost: ex.org\r\n\r\n", GO("ex.org/") },
        { "CONNECT ex.org:443 HTTP/1.1\r\nHost: ex.org\r\n\r\n", GO("ex.org/") },
        { "GET http://other.org/p?q HTTP/1.1\r\nHost: ex.org\r\n\r\n", GO("ex.org/p?q") },
        { "GET /%0d%0aX:y HTTP/1.1\r\nHost: ex.org\r\n\r\n", GO("ex.org/%0d%0aX:y") },
        { "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nHost: ex.org\r\n\r\n",
          GO("ex.org/") },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        cr_expect_str_eq(answer(rows[i].request), rows[i].answer, "%s", rows[i].request);
    cr_expect_eq(open_redirects(), 0u, "every slot is home");
}

Test(redirect, what_is_no_request_is_met_with_silence)
{
    static const char *const bad[] = {
        "nonsense\r\n\r\n",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.org/?\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \xff\xfe\r\n\r\n",
    };
    char host[400];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_str_eq(answer(bad[i]), "", "%s", bad[i]);
    snprintf(host, sizeof(host), "GET / HTTP/1.1\r\nHost: %0257d\r\n\r\n", 7);
    cr_expect_str_eq(answer(host), "");
    snprintf(host, sizeof(host), "GET / HTTP/1.1\r\nHost: %0256d\r\n\r\n", 7);
    cr_expect(says(answer(host), " 301 "));
}

/* A head of 16384 bytes is the longest; all of its target comes back. */
Test(redirect, heads_are_bounded)
{
    static char head[HTTP_HEAD_BYTES_MAX + 2], want[REDIRECT_OUT_BYTES];
    static const char before[] = "GET /", behind[] = " HTTP/1.1\r\n\r\n";
    size_t n = sizeof(before) - 1, m = sizeof(behind) - 1;

    memset(head, 'a', sizeof(head));
    memcpy(head, before, n);
    memcpy(head + HTTP_HEAD_BYTES_MAX - m, behind, m);
    snprintf(want, sizeof(want), GO("relay.dig.net/%.*s"), (int)(HTTP_HEAD_BYTES_MAX - n - m),
             head + n);
    cr_expect_str_eq(told(head, HTTP_HEAD_BYTES_MAX), want);
    memset(head + n, 'a', sizeof(head) - n);
    memcpy(head + HTTP_HEAD_BYTES_MAX + 1 - m, behind, m);
    int fd = dial_redirect();

    cr_assert_eq(write(fd, head, HTTP_HEAD_BYTES_MAX + 1), HTTP_HEAD_BYTES_MAX + 1);
    (void)read_all(fd, 100); /* what is not read may reset it */
    cr_expect_str_eq(got, "");
    close(fd);
    turns(5);
    cr_expect_eq(open_redirects(), 0u);
}

Test(redirect, a_request_may_come_byte_by_byte)
{
    static const char request[] = "GET /a HTTP/1.1\r\nHost: x.org\r\n\r\n";
    int fd = dial_redirect();

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        cr_assert_eq(write(fd, request + i, 1), 1);
        turn();
    }
    cr_expect(read_all(fd, 500));
    cr_expect_str_eq(got, GO("x.org/a"));
    close(fd);
}

/* Closing with a body unread would reset the connection, and some clients forget the answer then.
 */
Test(redirect, a_body_that_nobody_wants_is_read_for_a_second)
{
    static char request[60000] = "POST /x HTTP/1.1\r\nHost: x.org\r\n\r\n";
    int fd = dial_redirect();

    memset(request + strlen(request), 'b', sizeof(request) - strlen(request));
    cr_assert_eq(write(fd, request, sizeof(request)), (ssize_t)sizeof(request));
    cr_expect(read_all(fd, 500));
    cr_expect_str_eq(got, GO("x.org/x"));
    turns(10);
    cr_expect_eq(open_redirects(), 1u, "until the client closes");
    skew_ms = REDIRECT_LINGER_MS + 100;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(open_redirects(), 0u, "or a second has passed");
    close(fd);
}

/* dig.md §21 D4: neither cap nor deadline there; both here. */
Test(redirect, silence_has_a_deadline_and_a_flood_a_cap)
{
    int fd[200], silent = dial_redirect();

    turns(5);
    cr_expect_eq(open_redirects(), 1u);
    opsdoor_tick(door, now_ms() + REDIRECT_MS - 1000);
    turns(5);
    cr_expect_eq(open_redirects(), 1u);
    skew_ms = REDIRECT_MS + 100;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(open_redirects(), 0u);
    cr_expect(read_all(silent, 50) && got_n == 0);
    close(silent);
    for (unsigned i = 0; i < 200; i++) {
        fd[i] = dial_redirect();
        if (i % 16 == 15)
            turns(4);
    }
    turns(20);
    cr_expect_leq(open_redirects(), (unsigned)REDIRECT_MAX);
    cr_expect(says(answer("GET / HTTP/1.1\r\n\r\n"), " 301 "), "the newest is served");
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "and its neighbour");
    for (unsigned i = 0; i < 200; i++)
        close(fd[i]);
    turns(20);
    cr_expect_eq(open_redirects(), 0u);
}

/* presets.md: a warning, and everything else serves. */
Test(redirect, dig_56_a_busy_port_is_only_a_warning)
{
    struct opsdoor *first = door;
    struct netaddr at;
    char why[512], path[64];
    int err;

    cfg.dig_redirect.addr.port = there.port;
    memcpy(path, cfg.admin_path, sizeof(path));
    snprintf(cfg.admin_path, sizeof(cfg.admin_path), "%s/second.sock", dir);
    door = opsdoor_new(ring, &ops, &cfg, NULL, &err, why, sizeof(why));
    cr_assert_not_null(door, "%s", why);
    cr_expect_not(opsdoor_redirect_bound(door, &at));
    cr_expect(opsdoor_http_bound(door, &at));
    opsdoor_free(door);
    door = first;
    memcpy(cfg.admin_path, path, sizeof(path));
}
