#include "engine/json.h"

#include <inttypes.h>
#include <stdio.h>

struct jw jw_of(char *p, size_t cap)
{
    ASSERT(cap > 0);
    p[0] = '\0';
    return (struct jw){ .p = p, .cap = cap };
}

static void put(struct jw *j, const char *text, size_t n)
{
    if (j->bad || n >= j->cap - j->n) { /* one is for the terminator */
        j->bad = true;
        return;
    }
    memcpy(j->p + j->n, text, n);
    j->n += n;
    j->p[j->n] = '\0';
}

static void before_value(struct jw *j)
{
    if (j->comma)
        put(j, ",", 1);
    j->comma = true;
}

void jw_open(struct jw *j, char bracket)
{
    before_value(j);
    put(j, &bracket, 1);
    j->comma = false;
}

void jw_close(struct jw *j, char bracket)
{
    put(j, &bracket, 1);
    j->comma = true;
}

size_t json_utf8_len(const uint8_t *p, size_t n)
{
    uint8_t first = n ? p[0] : 0xff;
    size_t len = first < 0x80   ? 1
                 : first < 0xc2 ? 0
                 : first < 0xe0 ? 2
                 : first < 0xf0 ? 3
                 : first < 0xf5 ? 4
                                : 0;

    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && p[1] < 0xa0) || (first == 0xed && p[1] > 0x9f) ||
        (first == 0xf0 && p[1] < 0x90) || (first == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

static void put_text(struct jw *j, const char *text)
{
    const uint8_t *end = (const uint8_t *)text + strlen(text);

    put(j, "\"", 1);
    for (const uint8_t *p = (const uint8_t *)text; p < end;) {
        size_t n = json_utf8_len(p, (size_t)(end - p));
        char escape[8];

        if (*p == '"' || *p == '\\') {
            snprintf(escape, sizeof(escape), "\\%c", *p);
            put(j, escape, 2);
        } else if (*p < 0x20 || *p == 0x7f) {
            snprintf(escape, sizeof(escape), "\\u%04x", *p);
            put(j, escape, 6);
        } else if (n == 0) {
            put(j, "\xef\xbf\xbd", 3);
            n = 1;
        } else {
            put(j, (const char *)p, n);
        }
        p += n;
    }
    put(j, "\"", 1);
}

void jw_key(struct jw *j, const char *key)
{
    before_value(j);
    put_text(j, key);
    put(j, ":", 1);
    j->comma = false;
}

void jw_str(struct jw *j, const char *text)
{
    before_value(j);
    if (text)
        put_text(j, text);
    else
        put(j, "null", 4);
}

void jw_u64(struct jw *j, uint64_t v)
{
    char digits[24];
    int n = snprintf(digits, sizeof(digits), "%" PRIu64, v);

    before_value(j);
    put(j, digits, (size_t)n);
}

void jw_bool(struct jw *j, bool v)
{
    before_value(j);
    put(j, v ? "true" : "false", v ? 4 : 5);
}

void jw_kstr(struct jw *j, const char *key, const char *text)
{
    jw_key(j, key);
    jw_str(j, text);
}

void jw_ku64(struct jw *j, const char *key, uint64_t v)
{
    jw_key(j, key);
    jw_u64(j, v);
}

void jw_kbool(struct jw *j, const char *key, bool v)
{
    jw_key(j, key);
    jw_bool(j, v);
}

/* ---- reading ------------------------------------------------------------------------------- */

struct reader {
    const uint8_t *p;
    size_t n;
};

static void blanks(struct reader *r)
{
    while (r->n && (*r->p == ' ' || *r->p == '\t' || *r->p == '\r' || *r->p == '\n'))
        r->p++, r->n--;
}

static bool take(struct reader *r, char c)
{
    blanks(r);
    if (!r->n || *r->p != (uint8_t)c)
        return false;
    r->p++;
    r->n--;
    return true;
}

/* Simple escapes only: a request has no business with \u. */
static bool read_string(struct reader *r, char *out, size_t cap)
{
    size_t n = 0;

    if (!take(r, '"'))
        return false;
    while (r->n && *r->p != '"') {
        uint8_t c = *r->p;

        r->p++, r->n--;
        if (c < 0x20)
            return false;
        if (c == '\\') {
            static const char from[] = "\"\\/nt", to[] = "\"\\/\n\t";
            const char *at = r->n && *r->p ? strchr(from, *r->p) : NULL;

            if (!at)
                return false;
            c = (uint8_t)to[at - from];
            r->p++, r->n--;
        }
        if (n + 1 >= cap)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return take(r, '"');
}

static bool read_bare(struct reader *r, char *out, size_t cap)
{
    size_t n = 0;
    bool digits = true;

    blanks(r);
    while (r->n && ((*r->p >= '0' && *r->p <= '9') || (*r->p >= 'a' && *r->p <= 'z'))) {
        if (n + 1 >= cap)
            return false;
        digits = digits && *r->p <= '9';
        out[n++] = (char)*r->p;
        r->p++, r->n--;
    }
    out[n] = '\0';
    return n && (digits || strcmp(out, "true") == 0 || strcmp(out, "false") == 0);
}

bool json_flat_decode(struct bytes in, struct json_flat *out)
{
    struct reader r = { in.p, in.n };
    struct json_flat o = { .n = 0 };

    if (!take(&r, '{'))
        return false;
    while (!take(&r, '}')) {
        struct json_field *f = &o.field[o.n];

        if ((o.n && !take(&r, ',')) || o.n == JSON_FIELDS_MAX ||
            !read_string(&r, f->key, sizeof(f->key)) || !take(&r, ':'))
            return false;
        blanks(&r);
        if (r.n && *r.p == '"' ? !read_string(&r, f->text, sizeof(f->text))
                               : !read_bare(&r, f->text, sizeof(f->text)))
            return false;
        o.n++;
    }
    blanks(&r);
    if (r.n)
        return false;
    *out = o;
    return true;
}

const char *json_flat_get(const struct json_flat *o, const char *key)
{
    for (unsigned i = 0; i < o->n; i++)
        if (strcmp(o->field[i].key, key) == 0)
            return o->field[i].text;
    return NULL;
}
