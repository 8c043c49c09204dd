/* One request head (RFC 9112), the wish for a WebSocket in it and the answer (RFC 6455 §4, dig.md
 * §2.7, §3.1). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/ws.h"
#include "tests/unit/seeded.h"

#define WISH                                                                                       \
    "Host: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                    \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

static enum http_head_verdict decode_n(const void *p, size_t n, bool dig, struct http_head *h)
{
    http_head_init(h, HTTP_HEAD_BYTES_MAX, dig);
    return http_head_decode(bytes_of(p, n), h);
}

static enum http_head_verdict decode(const char *text, struct http_head *h)
{
    return decode_n(text, strlen(text), true, h);
}

static bool says(struct bytes b, const char *text)
{
    return text ? b.p && bytes_eq(b, bytes_str(text)) : !b.p;
}

/* ---- the request --------------------------------------------------------------------------- */

Test(http_head_decode, tells_what_was_asked)
{
    static const struct {
        const char *head, *method, *target, *path, *query, *host;
        int minor;
    } rows[] = {
        { "GET / HTTP/1.1\r\n\r\n", "GET", "/", "/", NULL, NULL, 1 },
        { "GET /a?b=1 HTTP/1.1\r\nHost: ex.org:81\r\n\r\n", "GET", "/a?b=1", "/a", "b=1",
          "ex.org:81", 1 },
        { "POST /a? HTTP/1.0\r\nHOST:\t[::1]:9 \t\r\n\r\n", "POST", "/a?", "/a", "", "[::1]:9", 0 },
        { "get /?a?b HTTP/1.7\r\nhost:\r\n\r\n", "get", "/?a?b", "/", "a?b", "", 7 },
        { "GET http://h.example/p/q?x HTTP/1.1\r\n\r\n", "GET", "http://h.example/p/q?x", "/p/q",
          "x", NULL, 1 },
        { "GET HTTPS://h.example HTTP/1.1\r\n\r\n", "GET", "HTTPS://h.example", "/", NULL, NULL,
          1 },
        { "GET http://h.example?x HTTP/1.1\r\n\r\n", "GET", "http://h.example?x", "/", "x", NULL,
          1 },
        { "OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS", "*", "*", NULL, NULL, 1 },
        { "CONNECT h:1 HTTP/1.1\r\n\r\n", "CONNECT", "h:1", "h:1", NULL, NULL, 1 },
        { "GET /\xc3\xa9 HTTP/1.1\r\n\r\n", "GET", "/\xc3\xa9", "/\xc3\xa9", NULL, NULL, 1 },
        { "GET /\r\n\r\n", "GET", "/", "/", NULL, NULL, -1 },
        { "GET / HTTP/2.0\r\n\r\n", "GET", "/", "/", NULL, NULL, -1 },
        { "GET / HTTP/1.10\r\n\r\n", "GET", "/", "/", NULL, NULL, -1 },
        { "GET / http/1.1\r\n\r\n", "GET", "/", "/", NULL, NULL, -1 },
        { "GET / HTTP/1.1\nHost: a\n\n", "GET", "/", "/", NULL, "a", 1 }, /* RFC 9112 §2.2 */
    };
    struct http_head h;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_assert_eq(decode(rows[i].head, &h), HTTP_HEAD_READY, "%s", rows[i].head);
        cr_expect_eq(h.used, strlen(rows[i].head));
        cr_expect(says(h.method, rows[i].method) && says(h.target, rows[i].target));
        cr_expect(says(h.path, rows[i].path), "%s", rows[i].head);
        cr_expect(says(h.query, rows[i].query), "%s", rows[i].head);
        cr_expect(says(h.host, rows[i].host), "%s", rows[i].head);
        cr_expect_eq(h.minor, rows[i].minor, "%s", rows[i].head);
        cr_expect(!h.wants_ws);
    }
}

Test(http_head_decode, refuses_what_is_no_request)
{
    static const char *const heads[] = {
        "\r\n\r\n",            /* an empty method (dig.md §2.7) */
        " / HTTP/1.1\r\n\r\n", /* and another */
        "GET\r\n\r\n",         /* an empty target */
        "GET  HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET /\t HTTP/1.1\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\n\r\n",
        "GET /\rX HTTP/1.1\r\n\r\n", /* it would be a line in a Location */
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nA : x\r\n\r\n",      /* RFC 9112 §5.1 */
        "GET / HTTP/1.1\r\nA: x\r\n y\r\n\r\n", /* §5.2 */
        "GET / HTTP/1.1\r\nA: x\ry\r\n\r\n",
        "GET / HTTP/1.1\r\nA: x\x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", /* §3.2 */
        "GET / HTTP/1.1\r\nA: \xff\r\n\r\n",            /* no UTF-8 */
        "GET /\xc3 HTTP/1.1\r\nA: \xa9\r\n\r\n",
        "GET / HTTP/1.1\r\nA: \xc3\r\n\r\n",
        "\x16\x03\x01\x02", /* TLS: at once, without a line */
        "{\"type\"",
    };
    static const char nul[] = "GET / HTTP/1.1\r\nA: x\0y\r\n\r\n";
    struct http_head h;

    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        cr_expect_eq(decode(heads[i], &h), HTTP_HEAD_BAD, "row %zu: %s", i, heads[i]);
    cr_expect_eq(decode_n(nul, sizeof(nul) - 1, true, &h), HTTP_HEAD_BAD);
}

Test(http_head_decode, is_as_lenient_as_the_rfc_where_dig_s_page_does_not_rule)
{
    static const char empty[] = "\r\n\n\r\nGET /\xff HTTP/1.1\r\nA: \xff\r\n\r\n";
    struct http_head h;

    cr_assert_eq(decode_n(empty, sizeof(empty) - 1, false, &h), HTTP_HEAD_READY);
    cr_expect(says(h.path, "/\xff"));
    cr_expect_eq(decode_n(empty, 5, false, &h), HTTP_HEAD_MORE);
}

Test(http_head_decode, waits_for_every_truncation_and_leaves_what_follows)
{
    static const char whole[] = "GET /x?y HTTP/1.1\r\n" WISH "\r\n\x81\x80";
    const size_t end = sizeof(whole) - 1 - 2;
    struct http_head h, bytewise;

    http_head_init(&bytewise, HTTP_HEAD_BYTES_MAX, true);
    for (size_t n = 0; n <= sizeof(whole) - 1; n++) {
        uint8_t *copy = malloc(n ? n : 1);

        memcpy(copy, whole, n);
        cr_expect_eq(decode_n(copy, n, true, &h), n < end ? HTTP_HEAD_MORE : HTTP_HEAD_READY);
        if (n <= end) /* at another address each time */
            cr_expect_eq(http_head_decode(bytes_of(copy, n), &bytewise),
                         n < end ? HTTP_HEAD_MORE : HTTP_HEAD_READY);
        if (n == end) {
            cr_expect(says(bytewise.path, "/x") && says(bytewise.query, "y"));
            cr_expect(ws_upgrade_ok(&bytewise));
        }
        if (n >= end) {
            cr_expect_eq(h.used, end);
            cr_expect(h.wants_ws && says(h.host, "server.example.com"));
        }
        free(copy);
    }
}

Test(http_head_decode, has_the_same_verdict_in_every_split)
{
    static const char *const heads[] = {
        "GET / HTTP/1.1\r\nA: b\r\n\r\n",       "GET / HTTP/1.1\nA: b\n\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",      "\r\n\r\n",
        "GET / HTTP/1.1\r\nA: \xff\r\n\r\n",    "GET\r\nA: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1", "GET / HTTP/1.1\n\r\nmore\r\n\r\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        for (size_t cut = 0; cut < strlen(heads[i]); cut++) {
            struct http_head whole, h;
            enum http_head_verdict want = decode(heads[i], &whole), got;

            got = decode_n(heads[i], cut, true, &h);
            if (got == HTTP_HEAD_MORE)
                got = http_head_decode(bytes_str(heads[i]), &h);
            cr_expect_eq(got, want, "row %zu cut at %zu", i, cut);
            if (want == HTTP_HEAD_READY)
                cr_expect(h.used == whole.used && bytes_eq(h.path, whole.path));
        }
}

Test(http_head_decode, ends_at_16384_bytes) /* dig.md §2.7, check 60 */
{
    static char big[HTTP_HEAD_BYTES_MAX + 100];
    const size_t max = HTTP_HEAD_BYTES_MAX;
    struct http_head h;
    int n = snprintf(big, sizeof(big), "GET / HTTP/1.1\r\nA:");

    memset(big + n, 'a', sizeof(big) - (size_t)n);
    cr_expect_eq(decode_n(big, max - 1, true, &h), HTTP_HEAD_MORE);
    cr_expect_eq(decode_n(big, max, true, &h), HTTP_HEAD_LARGE);
    memcpy(big + max - 4, "\r\n\r\n", 4);
    cr_expect_eq(decode_n(big, max, true, &h), HTTP_HEAD_READY, "exactly");
    cr_expect_eq(decode_n(big, sizeof(big), true, &h), HTTP_HEAD_READY);
    cr_expect_eq(h.used, max);
    big[max - 4] = 'a';
    memcpy(big + max - 3, "\r\n\r\n", 4);
    cr_expect_eq(decode_n(big, max + 1, true, &h), HTTP_HEAD_LARGE, "one byte more");
    http_head_init(&h, 64, true);
    cr_expect_eq(http_head_decode(bytes_of(big, 64), &h), HTTP_HEAD_LARGE, "a smaller bound");
    memset(big, '\n', sizeof(big));
    cr_expect_eq(decode_n(big, max - 1, false, &h), HTTP_HEAD_MORE);
    cr_expect_eq(decode_n(big, max, false, &h), HTTP_HEAD_LARGE, "nothing but empty lines");
}

/* One byte a call: each is searched once. Without the offset this takes 134 million steps per head
 * and a hundred heads take seconds. */
Test(http_head_decode, is_not_quadratic)
{
    static char big[HTTP_HEAD_BYTES_MAX];
    const uint64_t began = test_real_ms();
    uint64_t took;

    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = "A: b\r\n"[i % 6];
    memcpy(big, "GET / HTTP/1.1\nA:\n", 18);
    for (int run = 0; run < 100; run++) {
        struct http_head h;

        http_head_init(&h, HTTP_HEAD_BYTES_MAX, true);
        for (size_t n = 0; n < sizeof(big); n++) {
            cr_assert_eq(http_head_decode(bytes_of(big, n), &h), HTTP_HEAD_MORE);
            cr_assert_eq(h.seen_n, n);
        }
        cr_assert_eq(http_head_decode(bytes_of(big, sizeof(big)), &h), HTTP_HEAD_LARGE);
    }
    took = test_real_ms() - began;
    cr_expect_lt(took, 4000u, "%llu ms", (unsigned long long)took);
}

/* ---- the upgrade --------------------------------------------------------------------------- */

Test(ws_accept_encode, writes_the_published_answer) /* RFC 6455 §1.3, dig.md §3.1 */
{
    struct http_head h;
    char out[WS_ACCEPT_MAX + 1];
    size_t n;

    cr_assert_eq(decode("GET /chat HTTP/1.1\r\n" WISH "\r\n", &h), HTTP_HEAD_READY);
    cr_assert(ws_upgrade_ok(&h));
    n = ws_accept_encode(&h, out);
    out[n] = '\0';
    cr_expect_str_eq(out, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n"
                          "upgrade: websocket\r\n"
                          "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
}

Test(ws_accept_encode, takes_any_key) /* dig.md §3.1: its content is not validated */
{
    static char head[HTTP_HEAD_BYTES_MAX];
    struct http_head h;
    char out[WS_ACCEPT_MAX + 1] = "";
    int n;

    cr_assert_eq(decode("GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                        "Sec-WebSocket-Key:\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        &h),
                 HTTP_HEAD_READY);
    cr_expect(ws_upgrade_ok(&h));
    cr_expect(ws_accept_encode(&h, out) == 129 && strstr(out, "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w="));
    n = snprintf(head, sizeof(head),
                 "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %016000d\r\n\r\n",
                 7);
    cr_assert_eq(decode_n(head, (size_t)n, true, &h), HTTP_HEAD_READY);
    cr_expect(ws_upgrade_ok(&h) && h.ws_key.n == 16000 && ws_accept_encode(&h, out) == 129);
}

static void wish(const char *text, bool wants, bool granted)
{
    struct http_head h;
    char head[1024];

    snprintf(head, sizeof(head), "%s\r\n", text);
    cr_assert_eq(decode(head, &h), HTTP_HEAD_READY, "%s", text);
    cr_expect_eq(h.wants_ws, wants, "%s", text);
    cr_expect_eq(ws_upgrade_ok(&h), granted, "%s", text);
}

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define V13 "Sec-WebSocket-Version: 13\r\n"
#define UP "Upgrade: websocket\r\n"
#define CONN "Connection: Upgrade\r\n"
#define GET "GET /any?x=1 HTTP/1.1\r\n"

Test(ws_upgrade_ok, grants_what_clients_send) /* checks 1 and 2 */
{
    wish(GET UP CONN KEY V13, true, true);
    wish(GET "UPGRADE:WebSocket\r\nCONNECTION: keep-alive, Upgrade\r\n" KEY V13, true, true);
    wish(GET "upgrade: websocket \r\nconnection: ,UPGRADE\t, x\r\n" KEY V13, true, true);
    wish(GET UP CONN KEY V13 "Sec-WebSocket-Protocol: dig\r\nOrigin: null\r\n"
                             "Sec-WebSocket-Extensions: permessage-deflate\r\n",
         true, true);
    wish(GET "Upgrade: h2c\r\nConnection: close\r\n" UP CONN KEY V13, true, true); /* the last */
}

Test(ws_upgrade_ok, wants_a_token_and_a_whole_value)
{
    wish(GET CONN KEY V13, false, false);
    wish(GET UP KEY V13, false, false);
    wish(GET UP CONN "Connection: close\r\n" KEY V13, false, false); /* the last one counts */
    wish(GET UP CONN "Upgrade: h2c\r\n" KEY V13, false, false);
    wish(GET "Upgrade: websocket, h2c\r\n" CONN KEY V13, false, false);
    wish(GET UP "Connection: upgrades\r\n" KEY V13, false, false);
    wish(GET UP "Connection: up grade\r\n" KEY V13, false, false);
    wish(GET UP "Connection:\r\n" KEY V13, false, false);
}

Test(ws_upgrade_ok, refuses_what_rfc_6455_does_not_let_be) /* §4.2.1, check 2 */
{
    wish("POST / HTTP/1.1\r\n" UP CONN KEY V13, true, false);
    wish("get / HTTP/1.1\r\n" UP CONN KEY V13, true, false);
    wish("GET / HTTP/1.0\r\n" UP CONN KEY V13, true, false);
    wish("GET / HTTP/1.2\r\n" UP CONN KEY V13, true, false);
    wish("GET / HTTP/2.0\r\n" UP CONN KEY V13, true, false);
    wish("GET /\r\n" UP CONN KEY V13, true, false);
    wish(GET UP CONN V13, true, false);
    wish(GET UP CONN KEY, true, false);
    wish(GET UP CONN KEY "Sec-WebSocket-Version: 8\r\n", true, false);
    wish(GET UP CONN KEY "Sec-WebSocket-Version: 13, 8\r\n", true, false);
    wish(GET UP CONN KEY KEY V13, true, false);
    wish(GET UP CONN KEY V13 V13, true, false);
}
