#include "engine/http.h"

#include <stdio.h>

static bool is_token(uint8_t c) /* RFC 9110 §5.6.2 */
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* The next line without its end. A bare LF ends one too (RFC 9112 §2.2). false: no whole line. */
static bool take_line(struct bytes *in, struct bytes *line)
{
    const uint8_t *lf = in->n ? memchr(in->p, '\n', in->n) : NULL;
    size_t n;

    if (!lf)
        return false;
    n = (size_t)(lf - in->p);
    *line = bytes_of(in->p, n && in->p[n - 1] == '\r' ? n - 1 : n);
    in->p += n + 1;
    in->n -= n + 1;
    return true;
}

static struct bytes take_word(struct bytes *line)
{
    const uint8_t *sp = line->n ? memchr(line->p, ' ', line->n) : NULL;
    struct bytes word = { line->p, sp ? (size_t)(sp - line->p) : line->n };

    line->p += word.n + (sp != NULL);
    line->n -= word.n + (sp != NULL);
    return word;
}

/* A proxy may send the absolute form (RFC 9112 §3.2.2). */
static bool decode_target(struct bytes t, struct http_req *req)
{
    static const char scheme[] = "http://";
    const uint8_t *at;

    for (size_t i = 0; i < t.n; i++)
        if (t.p[i] <= ' ' || t.p[i] == 0x7f)
            return false;
    if (t.n >= sizeof(scheme) - 1 && memcmp(t.p, scheme, sizeof(scheme) - 1) == 0) {
        t = bytes_of(t.p + sizeof(scheme) - 1, t.n - (sizeof(scheme) - 1));
        at = t.n ? memchr(t.p, '/', t.n) : NULL;
        t = at ? bytes_of(at, t.n - (size_t)(at - t.p)) : bytes_of("/", 1);
    }
    if (t.n == 0 || t.p[0] != '/')
        return t.n == 1 && t.p[0] == '*' && !req->get && !req->head; /* OPTIONS *, which is a 405 */
    at = memchr(t.p, '?', t.n);
    req->path = bytes_of(t.p, at ? (size_t)(at - t.p) : t.n);
    return true;
}

static enum http_verdict decode_start(struct bytes line, struct http_req *req)
{
    struct bytes method = take_word(&line), target = take_word(&line);

    if (method.n == 0 || method.n > 32)
        return HTTP_BAD;
    for (size_t i = 0; i < method.n; i++)
        if (!is_token(method.p[i]))
            return HTTP_BAD;
    req->get = bytes_eq(method, bytes_str("GET"));
    req->head = bytes_eq(method, bytes_str("HEAD"));
    if (!decode_target(target, req) || line.n != 8 || memcmp(line.p, "HTTP/", 5) != 0 ||
        line.p[5] < '0' || line.p[5] > '9' || line.p[6] != '.' || line.p[7] < '0' ||
        line.p[7] > '9')
        return HTTP_BAD;
    return line.p[5] == '1' ? HTTP_READY : HTTP_VERSION_UNKNOWN;
}

/* Nothing of a field is used, so only its shape is checked: a name, a colon, no folding (RFC 9112
 * §5.2) and no control characters. A missing Host is let pass: people ask with nc. */
static bool field_ok(struct bytes line)
{
    size_t i = 0;

    while (i < line.n && is_token(line.p[i]))
        i++;
    if (i == 0 || i == line.n || line.p[i] != ':')
        return false;
    for (; i < line.n; i++)
        if ((line.p[i] < ' ' && line.p[i] != '\t') || line.p[i] == 0x7f)
            return false;
    return true;
}

enum http_verdict http_decode(struct bytes in, struct http_req *req)
{
    struct bytes rest = { in.p, min_sz(in.n, HTTP_HEAD_MAX) }, line;
    struct http_req r = { .path = { NULL, 0 } };
    enum http_verdict v;

    do { /* empty lines before the request are skipped (RFC 9112 §2.2) */
        if (!take_line(&rest, &line))
            return in.n >= HTTP_HEAD_MAX ? HTTP_LARGE : HTTP_MORE;
    } while (line.n == 0);
    v = decode_start(line, &r);
    if (v != HTTP_READY)
        return v;
    for (;;) {
        if (!take_line(&rest, &line))
            return in.n >= HTTP_HEAD_MAX ? HTTP_LARGE : HTTP_MORE;
        if (line.n == 0)
            break;
        if (!field_ok(line))
            return HTTP_BAD;
    }
    *req = r;
    return HTTP_READY;
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
