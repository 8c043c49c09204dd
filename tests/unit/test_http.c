/* The one HTTP exchange of the monitoring door (RFC 9112). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/http.h"

static enum http_verdict decode(const char *text, struct http_req *r)
{
    *r = (struct http_req){ 0 };
    return http_decode(bytes_str(text), r);
}

Test(http_decode, takes_what_people_and_machines_send)
{
    static const struct {
        const char *head, *path;
        bool get;
    } rows[] = {
        { "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "/health", true },
        { "GET /metrics HTTP/1.0\n\n", "/metrics", true },
        { "HEAD / HTTP/1.1\r\nHost: [::1]:9451\r\nAccept: */*\r\nX:\r\n\r\n", "/", false },
        { "GET /stats.json?pretty=1&x=/ HTTP/1.1\r\nHost: x\r\n\r\n", "/stats.json", true },
        { "GET http://relay.example:9451/ready?q HTTP/1.1\r\nHost: x\r\n\r\n", "/ready", true },
        { "GET http://relay.example HTTP/1.1\r\nHost: x\r\n\r\n", "/", true },
        { "\r\n\r\nGET /a HTTP/1.1\r\n\r\ntrailing", "/a", true },
        { "GET /\xff%00 HTTP/1.1\r\nA: \xc3\xa9\t b\r\n\r\n", "/\xff%00", true },
    };
    struct http_req r;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_expect_eq(decode(rows[i].head, &r), HTTP_READY, "%s", rows[i].head);
        cr_expect(bytes_eq(r.path, bytes_str(rows[i].path)), "%s", rows[i].head);
        cr_expect_eq(r.get, rows[i].get);
        cr_expect_eq(r.head, !rows[i].get);
    }
    cr_expect_eq(decode("POST /health HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", &r), HTTP_READY);
    cr_expect(!r.get && !r.head, "405");
    cr_expect_eq(decode("OPTIONS * HTTP/1.1\r\n\r\n", &r), HTTP_READY);
    cr_expect(!r.get && !r.head);
    cr_expect_eq(decode("get / HTTP/1.1\r\n\r\n", &r), HTTP_READY, "methods are case-sensitive");
    cr_expect(!r.get);
}

Test(http_decode, refuses_the_rest)
{
    static const struct {
        const char *head;
        enum http_verdict v;
    } rows[] = {
        { "GET\r\n\r\n", HTTP_BAD },
        { "GET /\r\n\r\n", HTTP_BAD },
        { "GET  / HTTP/1.1\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/1.1 \r\n\r\n", HTTP_BAD },
        { "GET / HTTP/11\r\n\r\n", HTTP_BAD },
        { "GET / http/1.1\r\n\r\n", HTTP_BAD },
        { "GET / FTP/1.1\r\n\r\n", HTTP_BAD },
        { "GET health HTTP/1.1\r\n\r\n", HTTP_BAD },
        { "GET * HTTP/1.1\r\n\r\n", HTTP_BAD },
        { "GET /a\tb HTTP/1.1\r\n\r\n", HTTP_BAD },
        { "G\x01T / HTTP/1.1\r\n\r\n", HTTP_BAD },
        { "GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\n\r\n", HTTP_BAD },
        { " GET / HTTP/1.1\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/1.1\r\nno colon\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/1.1\r\n: x\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/1.1\r\nA : x\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/1.1\r\nA: x\x01\r\n\r\n", HTTP_BAD },
        { "GET / HTTP/2.0\r\n\r\n", HTTP_VERSION_UNKNOWN },
        { "GET / HTTP/0.9\r\n\r\n", HTTP_VERSION_UNKNOWN },
        { "\x16\x03\x01\x02\x01\x01\n", HTTP_BAD }, /* a TLS ClientHello knocks */
    };
    struct http_req r;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        cr_expect_eq(decode(rows[i].head, &r), rows[i].v, "row %zu: %s", i, rows[i].head);
}

Test(http_decode, waits_for_every_truncation)
{
    static const char whole[] = "GET /metrics HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    struct http_req r;

    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        uint8_t *cut = malloc(n ? n : 1);

        memcpy(cut, whole, n);
        cr_expect_eq(http_decode(bytes_of(cut, n), &r), HTTP_MORE, "%zu bytes", n);
        free(cut);
    }
    cr_expect_eq(decode(whole, &r), HTTP_READY);
}

Test(http_decode, is_bounded)
{
    static char big[HTTP_HEAD_MAX + 100];
    struct http_req r;
    int n = snprintf(big, sizeof(big), "GET / HTTP/1.1\r\n");

    memset(big + n, 'a', sizeof(big) - (size_t)n);
    big[n + 1] = ':';
    cr_expect_eq(http_decode(bytes_of(big, HTTP_HEAD_MAX - 1), &r), HTTP_MORE);
    cr_expect_eq(http_decode(bytes_of(big, HTTP_HEAD_MAX), &r), HTTP_LARGE);
    memcpy(big + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
    cr_expect_eq(http_decode(bytes_of(big, HTTP_HEAD_MAX), &r), HTTP_READY, "exactly 8 KiB");
    memset(big + HTTP_HEAD_MAX - 4, 'a', 4);
    memcpy(big + HTTP_HEAD_MAX - 3, "\r\n\r\n", 4);
    cr_expect_eq(http_decode(bytes_of(big, sizeof(big)), &r), HTTP_LARGE, "one byte more");
    memset(big, '\n', sizeof(big));
    cr_expect_eq(http_decode(bytes_of(big, sizeof(big)), &r), HTTP_LARGE,
                 "nothing but empty lines");
}

Test(http_encode, writes_one_closing_answer)
{
    struct http_reply r = { .status = 200, .type = "text/plain", .body = bytes_str("hello") };
    char out[512];
    size_t n = http_encode(&r, false, out, sizeof(out));

    out[n] = '\0';
    cr_expect_str_eq(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
                          "Cache-Control: no-store\r\nConnection: close\r\n\r\nhello");
    n = http_encode(&r, true, out, sizeof(out));
    out[n] = '\0';
    cr_expect(strstr(out, "Content-Length: 5\r\n") && !strstr(out, "hello"),
              "HEAD: the same head, no body");
    r = (struct http_reply){ .status = 405, .allow = "GET, HEAD" };
    n = http_encode(&r, false, out, sizeof(out));
    out[n] = '\0';
    cr_expect(strstr(out, "405 Method Not Allowed\r\nAllow: GET, HEAD\r\nContent-Length: 0\r\n"),
              "%s", out);
}

Test(http_encode, knows_when_it_does_not_fit)
{
    struct http_reply r = { .status = 200, .type = "text/plain", .body = bytes_str("hello") };
    char out[512];
    size_t whole = http_encode(&r, false, out, sizeof(out));

    for (size_t cap = 1; cap < whole; cap++) {
        char *small = malloc(cap);

        cr_expect_eq(http_encode(&r, false, small, cap), 0u, "cap %zu", cap);
        free(small);
    }
    cr_expect_eq(http_encode(&r, false, out, whole), whole);
}
