#include "proto/http_head.h"

#include "proto/utf8.h"

void http_head_init(struct http_head *h, size_t max, bool dig_rules)
{
    ASSERT(max >= 16 && max <= HTTP_HEAD_BYTES_MAX);
    *h = (struct http_head){ .max = (uint32_t)max, .dig_rules = dig_rules, .minor = -1 };
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool http_text_is(struct bytes text, const char *want)
{
    if (strlen(want) != text.n)
        return false;
    for (size_t i = 0; i < text.n; i++)
        if (lower(text.p[i]) != (uint8_t)want[i])
            return false;
    return true;
}

static bool is_token(uint8_t c) /* RFC 9110 §5.6.2 */
{
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static struct bytes from(struct bytes b, size_t n)
{
    return bytes_of(b.p + n, b.n - n);
}

/* Up to `end`, or all; what is behind `end` stays. */
static struct bytes take_until(struct bytes *b, char end)
{
    const uint8_t *at = b->n ? memchr(b->p, end, b->n) : NULL;
    struct bytes part = { b->p, at ? (size_t)(at - b->p) : b->n };

    *b = from(*b, part.n + (at != NULL));
    return part;
}

static struct bytes trim(struct bytes b) /* OWS, RFC 9110 §5.6.3 */
{
    while (b.n && (b.p[0] == ' ' || b.p[0] == '\t'))
        b = from(b, 1);
    while (b.n && (b.p[b.n - 1] == ' ' || b.p[b.n - 1] == '\t'))
        b.n--;
    return b;
}

/* ---- lines --------------------------------------------------------------------------------- */

static bool has_control(struct bytes b)
{
    for (size_t i = 0; i < b.n; i++)
        if ((b.p[i] < ' ' && b.p[i] != '\t') || b.p[i] == 0x7f)
            return true;
    return false;
}

/* RFC 9112 §3, one space each. Any words will do for a target and a version, but a control
 * character in them would be one in whatever they are written into. */
static bool start_split(struct bytes line, struct http_head *h)
{
    if (has_control(line) || (line.n && memchr(line.p, '\t', line.n)))
        return false;
    h->method = take_until(&line, ' ');
    h->target = take_until(&line, ' ');
    h->version = line;
    for (size_t i = 0; i < h->method.n; i++)
        if (!is_token(h->method.p[i]))
            return false;
    return h->method.n && h->target.n;
}

/* A name, a colon, a value: no folding, no space before the colon (RFC 9112 §5.1, §5.2), no control
 * characters (RFC 9110 §5.5). */
static bool field_split(struct bytes line, struct bytes *name, struct bytes *value)
{
    size_t n = 0;

    while (n < line.n && is_token(line.p[n]))
        n++;
    if (n == 0 || n == line.n || line.p[n] != ':')
        return false;
    *name = bytes_of(line.p, n);
    *value = trim(from(line, n + 1));
    return !has_control(*value);
}

/* The next line's bounds in `in`, from where the last call stopped; a bare LF ends one too (RFC
 * 9112 §2.2). false: there is no whole line within the bound. */
static bool next_line(struct bytes in, struct http_head *h, struct bytes *line)
{
    size_t n = min_sz(in.n, h->max);
    const uint8_t *lf = n > h->seen_n ? memchr(in.p + h->seen_n, '\n', n - h->seen_n) : NULL;
    size_t end;

    if (!lf) {
        h->seen_n = (uint32_t)n;
        return false;
    }
    end = (size_t)(lf - in.p);
    *line = bytes_of(in.p + h->line_at, end - h->line_at);
    if (line->n && line->p[line->n - 1] == '\r')
        line->n--;
    h->line_at = h->seen_n = (uint32_t)(end + 1);
    return true;
}

/* ---- what it says -------------------------------------------------------------------------- */

static void read_version(struct http_head *h)
{
    struct bytes v = h->version;

    h->minor = v.n == 8 && memcmp(v.p, "HTTP/1.", 7) == 0 && v.p[7] >= '0' && v.p[7] <= '9'
                   ? v.p[7] - '0'
                   : -1;
}

/* A proxy may send the absolute form (RFC 9112 §3.2.2); it says the path as well as any other. */
static void read_target(struct http_head *h)
{
    static const char *const schemes[] = { "http://", "https://" };
    struct bytes t = h->target;
    bool absolute = false;

    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        size_t n = strlen(schemes[i]), end = n;

        if (t.n < n || !http_text_is(bytes_of(t.p, n), schemes[i]))
            continue;
        while (end < t.n && t.p[end] != '/' && t.p[end] != '?')
            end++;
        t = from(t, end);
        absolute = true;
        break;
    }
    h->path = take_until(&t, '?');
    if (t.p > h->path.p + h->path.n) /* there was one */
        h->query = t;
    if (absolute && h->path.n == 0)
        h->path = bytes_of("/", 1);
}

static bool has_upgrade(struct bytes list)
{
    while (list.n)
        if (http_text_is(trim(take_until(&list, ',')), "upgrade"))
            return true;
    return false;
}

struct wish {
    bool connection, upgrade;
};

static bool read_field(struct http_head *h, struct bytes name, struct bytes value, struct wish *ws)
{
    if (http_text_is(name, "host")) {
        if (h->host.p) /* RFC 9112 §3.2: MUST be refused */
            return false;
        h->host = value;
    } else if (http_text_is(name, "connection")) {
        ws->connection = has_upgrade(value); /* the last one counts (dig.md §3.1) */
    } else if (http_text_is(name, "upgrade")) {
        ws->upgrade = http_text_is(value, "websocket");
    } else if (http_text_is(name, "sec-websocket-key")) {
        h->ws_twice |= h->ws_key.p != NULL;
        h->ws_key = value;
    } else if (http_text_is(name, "sec-websocket-version")) {
        h->ws_twice |= h->ws_version.p != NULL;
        h->ws_version = value;
    }
    return true;
}

/* All lines once more, now that they lie where they will stay. They were found well-formed. */
static bool read_all(struct bytes in, struct http_head *h)
{
    struct http_head again;
    struct wish ws = { false, false };
    struct bytes line, name, value;
    struct utf8 u = { 0 };

    if (h->dig_rules && !utf8_feed(&u, in.p, in.n)) /* its last byte is a line feed */
        return false;
    http_head_init(&again, h->max, h->dig_rules);
    do
        ASSERT(next_line(in, &again, &line));
    while (line.n == 0);
    ASSERT(start_split(line, h));
    read_version(h);
    read_target(h);
    while (next_line(in, &again, &line) && line.n) {
        ASSERT(field_split(line, &name, &value));
        if (!read_field(h, name, value, &ws))
            return false;
    }
    h->wants_ws = ws.connection && ws.upgrade;
    return true;
}

enum http_head_verdict http_head_decode(struct bytes in, struct http_head *h)
{
    struct http_head shape = *h; /* its request fields are scratch */
    struct bytes line, name, value;

    ASSERT(in.n >= h->seen_n);
    while (next_line(in, &shape, &line)) {
        if (line.n == 0 && shape.started) {
            h->used = shape.seen_n;
            return read_all(bytes_of(in.p, h->used), h) ? HTTP_HEAD_READY : HTTP_HEAD_BAD;
        }
        if (line.n == 0 && !shape.dig_rules)
            continue; /* before the request */
        if (shape.started ? !field_split(line, &name, &value) : !start_split(line, &shape))
            return HTTP_HEAD_BAD;
        shape.started = true;
    }
    /* Who speaks another language, TLS say, need not end a line to be found out. */
    if (in.n && !shape.started && !is_token(in.p[0]) && in.p[0] != '\r' && in.p[0] != '\n')
        return HTTP_HEAD_BAD;
    h->line_at = shape.line_at;
    h->seen_n = shape.seen_n;
    h->started = shape.started;
    return in.n >= h->max ? HTTP_HEAD_LARGE : HTTP_HEAD_MORE;
}
