#include "engine/http.h"

#include <stdio.h>

#include "proto/http_head.h"

/* What the door adds to a head of the right shape: a version that it speaks, a path that it could
 * have. A missing Host is let pass: people ask with nc. */
static enum http_verdict judge(const struct http_head *h, struct http_req *req)
{
    struct bytes v = h->version;
    bool asterisk = bytes_eq(h->path, bytes_str("*"));
    struct http_req r = { .get = bytes_eq(h->method, bytes_str("GET")),
                          .head = bytes_eq(h->method, bytes_str("HEAD")) };

    if (h->method.n > 32 || v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || v.p[5] < '0' ||
        v.p[5] > '9' || v.p[6] != '.' || v.p[7] < '0' || v.p[7] > '9')
        return HTTP_BAD;
    if (asterisk ? r.get || r.head : h->path.n == 0 || h->path.p[0] != '/')
        return HTTP_BAD; /* OPTIONS * is a request, and a 405 */
    if (h->minor < 0)
        return HTTP_VERSION_UNKNOWN;
    if (!asterisk)
        r.path = h->path;
    *req = r;
    return HTTP_READY;
}

enum http_verdict http_decode(struct bytes in, struct http_req *req)
{
    struct http_head h;

    http_head_init(&h, HTTP_HEAD_MAX, false);
    switch (http_head_decode(in, &h)) {
    case HTTP_HEAD_MORE:
        return HTTP_MORE;
    case HTTP_HEAD_LARGE:
        return HTTP_LARGE;
    case HTTP_HEAD_BAD:
        return HTTP_BAD;
    case HTTP_HEAD_READY:
        break;
    }
    return judge(&h, req);
}

const char *http_reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Internal Server Error";
    }
}

size_t http_encode(const struct http_reply *r, bool head_only, char *out, size_t cap)
{
    int n =
        snprintf(out, cap,
                 "HTTP/1.1 %d %s\r\n%s%s%s%s%s%sContent-Length: %zu\r\nCache-Control: no-store\r\n"
                 "Connection: close\r\n\r\n",
                 r->status, http_reason(r->status), r->type ? "Content-Type: " : "",
                 r->type ? r->type : "", r->type ? "\r\n" : "", r->allow ? "Allow: " : "",
                 r->allow ? r->allow : "", r->allow ? "\r\n" : "", r->body.n);

    if (n < 0 || (size_t)n >= cap)
        return 0;
    if (head_only)
        return (size_t)n;
    if (r->body.n > cap - (size_t)n)
        return 0;
    if (r->body.n)
        memcpy(out + n, r->body.p, r->body.n);
    return (size_t)n + r->body.n;
}
