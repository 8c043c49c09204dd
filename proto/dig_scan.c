#include "proto/dig_scan_int.h"

#include "proto/maddr.h"
#include "proto/utf8.h"

/* One pass, one cursor. Each function below takes one thing of RFC 8259's grammar off the front and
 * says whether it was there. */
struct scan {
    const uint8_t *p, *end;
    enum dig_vec vec;
    bool high; /* something is not ASCII: the text is to be judged as UTF-8 too */
};

static inline bool at(const struct scan *s, char ch)
{
    return s->p < s->end && *s->p == (uint8_t)ch;
}

static inline bool take(struct scan *s, char ch)
{
    if (!at(s, ch))
        return false;
    s->p++;
    return true;
}

static inline void blanks(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static inline bool is_digit(uint8_t ch)
{
    return (unsigned)ch - '0' <= 9;
}

/* ---- strings ------------------------------------------------------------------------------- */

static bool hex4(struct scan *s, unsigned *out)
{
    unsigned v = 0;

    if (s->end - s->p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        uint8_t ch = *s->p++, low = ch | 0x20;

        if (is_digit(ch))
            v = v << 4 | (unsigned)(ch - '0');
        else if (low >= 'a' && low <= 'f')
            v = v << 4 | (unsigned)(low - 'a' + 10);
        else
            return false;
    }
    *out = v;
    return true;
}

/* Behind the backslash. A surrogate stands for something only as the first of a pair (RFC 8259
 * §7; dig.md §4.1). */
static bool escape(struct scan *s, uint32_t *out)
{
    static const char plain[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    uint8_t ch = s->p < s->end ? *s->p++ : 0;
    const char *found = ch ? strchr(plain, ch) : NULL;
    unsigned v, low;

    if (found) {
        *out = (uint8_t)means[found - plain];
        return true;
    }
    if (ch != 'u' || !hex4(s, &v))
        return false;
    if (v >> 10 == 0xdc00 >> 10)
        return false;
    if (v >> 10 == 0xd800 >> 10) {
        if (!take(s, '\\') || !take(s, 'u') || !hex4(s, &low) || low >> 10 != 0xdc00 >> 10)
            return false;
        v = 0x10000 + ((v & 0x3ff) << 10 | (low & 0x3ff));
    }
    *out = v;
    return true;
}

static bool string(struct scan *s, struct bytes *span, bool *escaped)
{
    const uint8_t *from = s->p;
    uint32_t ignored;

    if (!take(s, '"'))
        return false;
    *escaped = false;
    for (;;) {
        s->p = dig_run_string(s->vec, s->p, s->end, &s->high);
        if (take(s, '"'))
            break;
        if (!take(s, '\\') || !escape(s, &ignored))
            return false;
        *escaped = true;
    }
    *span = bytes_of(from, (size_t)(s->p - from));
    return true;
}

static size_t utf8_put(uint32_t ch, uint8_t out[4])
{
    size_t n = ch < 0x80 ? 1 : ch < 0x800 ? 2 : ch < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    for (size_t i = n; i-- > 1; ch >>= 6)
        out[i] = (uint8_t)(0x80 | (ch & 0x3f));
    out[0] = (uint8_t)(lead[n] | ch);
    return n;
}

bool dig_unescape(struct bytes text, uint8_t *buf, size_t cap, size_t *n)
{
    struct wcur w = wcur_of(buf, cap);
    struct scan s = { .p = text.p + 1, .end = text.p + text.n - 1 };
    uint8_t utf8[4];
    uint32_t ch;

    ASSERT(text.n >= 2);
    while (s.p < s.end && !w.bad) {
        if (take(&s, '\\'))
            wcur_put(&w, bytes_of(utf8, escape(&s, &ch) ? utf8_put(ch, utf8) : 0));
        else
            wcur_u8(&w, *s.p++);
    }
    if (w.bad)
        return false;
    *n = w.wrote;
    return true;
}

/* The string without its quotes, if it is short enough to be a word that is asked for; what is
 * longer comes back empty, and no such word is. */
enum { WORD_MAX = 16 };
static inline struct bytes word_of(struct bytes span, bool escaped, uint8_t plain[WORD_MAX])
{
    struct bytes is = bytes_of(span.p + 1, span.n - 2);

    if (escaped) {
        is.p = plain;
        if (!dig_unescape(span, plain, WORD_MAX, &is.n))
            is.n = 0;
    }
    return is;
}

#define IS(word, text)                                                                             \
    ((word).n == sizeof(text) - 1 && memcmp((word).p, text, sizeof(text) - 1) == 0)

/* ---- values that nobody asked for ---------------------------------------------------------- */

static bool digits(struct scan *s)
{
    const uint8_t *from = s->p;

    while (s->p < s->end && is_digit(*s->p))
        s->p++;
    return s->p > from;
}

/* RFC 8259 §6. How large it is or how fine does not matter here: it is not computed. */
static bool number(struct scan *s)
{
    (void)take(s, '-');
    if (!take(s, '0') && !digits(s))
        return false;
    if (take(s, '.') && !digits(s))
        return false;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+'))
            (void)take(s, '-');
        return digits(s);
    }
    return true;
}

static bool word(struct scan *s, const char *is)
{
    size_t n = strlen(is);

    if ((size_t)(s->end - s->p) < n || memcmp(s->p, is, n) != 0)
        return false;
    s->p += n;
    return true;
}

static bool scalar_value(struct scan *s)
{
    struct bytes span;
    bool escaped;

    switch (s->p < s->end ? *s->p : 0) {
    case '"':
        return string(s, &span, &escaped);
    case 't':
        return word(s, "true");
    case 'f':
        return word(s, "false");
    case 'n':
        return word(s, "null");
    default:
        return number(s);
    }
}

static bool key(struct scan *s, struct bytes *span, bool *escaped)
{
    if (!string(s, span, escaped))
        return false;
    blanks(s);
    if (!take(s, ':'))
        return false;
    blanks(s);
    return true;
}

/* What is open inside the message, one bit a level: object or array. The message itself is level 1.
 */
struct open {
    uint64_t object[DIG_DEPTH_MAX / 64];
    unsigned depth;
};

static bool open_push(struct open *o, bool object)
{
    uint64_t bit = 1ull << o->depth % 64;

    if (o->depth == DIG_DEPTH_MAX - 1)
        return false;
    if (object)
        o->object[o->depth / 64] |= bit;
    else
        o->object[o->depth / 64] &= ~bit;
    o->depth++;
    return true;
}

static bool in_object(const struct open *o)
{
    unsigned top = o->depth - 1;

    return o->object[top / 64] >> top % 64 & 1;
}

/* Behind a value: closes what ends here. *more: another value follows, and the cursor is on it. */
static bool behind_value(struct scan *s, struct open *o, bool *more)
{
    struct bytes span;
    bool escaped;

    *more = false;
    while (o->depth) {
        blanks(s);
        if (take(s, ',')) {
            blanks(s);
            *more = true;
            return !in_object(o) || key(s, &span, &escaped);
        }
        if (!take(s, in_object(o) ? '}' : ']'))
            return false;
        o->depth--;
    }
    return true;
}

/* Any value, without recursion: DIG_DEPTH_MAX bits are all that a peer can fill. */
static bool skip_value(struct scan *s)
{
    struct open o = { .depth = 0 };
    struct bytes span;
    bool escaped, more = true;

    while (more) {
        bool object = at(s, '{');

        if (object || at(s, '[')) {
            s->p++;
            if (!open_push(&o, object))
                return false;
            blanks(s);
            if (!at(s, object ? '}' : ']')) { /* its first value is the next to be read */
                if (object && !key(s, &span, &escaped))
                    return false;
                continue;
            }
        } else if (!scalar_value(s)) {
            return false;
        }
        if (!behind_value(s, &o, &more))
            return false;
    }
    return true;
}

/* ---- values that are forwarded ------------------------------------------------------------- */

/* 0..255 without a leading zero: what is behind it, NULL if it is none. Digit by digit, since a
 * loop of three turns takes twice as long. */
static inline const uint8_t *byte_element(const uint8_t *p, const uint8_t *end)
{
    unsigned v;

    if (p == end || !is_digit(*p))
        return NULL;
    v = *p++ - '0';
    if (p == end || !is_digit(*p))
        return p;
    if (v == 0)
        return NULL;
    v = v * 10 + *p++ - '0';
    if (p == end || !is_digit(*p))
        return p;
    v = v * 10 + *p++ - '0';
    return v <= 255 ? p : NULL; /* a fourth digit is no comma, nor a bracket */
}

/* Behind the first element: the others, up to the bracket. Vectors get one try: whoever puts blanks
 * between his elements puts them everywhere, and to start anew behind each would cost more than it
 * saves. */
static bool byte_elements(struct scan *s, size_t *count)
{
    if (at(s, ',')) {
        s->p = dig_run_bytes(s->vec, s->p + 1, s->end, count);
        if (!s->p)
            return false;
        s->p--; /* it stands behind a comma again */
    }
    while (take(s, ',')) {
        blanks(s);
        s->p = byte_element(s->p, s->end);
        if (!s->p)
            return false;
        ++*count;
        blanks(s);
    }
    return true;
}

static bool byte_array(struct scan *s, struct bytes *span, size_t *count)
{
    const uint8_t *from = s->p;

    *count = 0;
    if (!take(s, '['))
        return false;
    blanks(s);
    if (!at(s, ']')) {
        s->p = byte_element(s->p, s->end);
        if (!s->p)
            return false;
        ++*count;
        blanks(s);
        if (!byte_elements(s, count))
            return false;
    }
    if (!take(s, ']'))
        return false;
    *span = bytes_of(from, (size_t)(s->p - from));
    return true;
}

static bool string_array(struct scan *s, struct bytes *span, size_t *count)
{
    const uint8_t *from = s->p;
    struct bytes element;
    bool escaped;

    *count = 0;
    if (!take(s, '['))
        return false;
    blanks(s);
    if (take(s, ']')) {
        *span = bytes_of(from, (size_t)(s->p - from));
        return true;
    }
    do {
        blanks(s);
        if (!string(s, &element, &escaped))
            return false;
        ++*count;
        blanks(s);
    } while (take(s, ','));
    if (!take(s, ']'))
        return false;
    *span = bytes_of(from, (size_t)(s->p - from));
    return true;
}

static bool u64(struct scan *s, struct bytes *span)
{
    const uint8_t *from = s->p;
    uint64_t v;

    if (!number(s))
        return false;
    *span = bytes_of(from, (size_t)(s->p - from));
    return netaddr_parse_decimal(*span, UINT64_MAX, &v);
}

bool dig_exclude_next(struct bytes *list, struct bytes *out)
{
    const uint8_t *quote = list->n ? memchr(list->p, '"', list->n) : NULL;
    struct scan s = { .p = quote, .end = list->p + list->n, .vec = dig_vec_best() };
    bool escaped;

    if (!quote || !string(&s, out, &escaped))
        return false;
    *list = bytes_of(s.p, (size_t)(s.end - s.p));
    return true;
}

/* ---- the message --------------------------------------------------------------------------- */

enum member { M_TYPE, M_FROM, M_TO, M_PAYLOAD, M_SEQ, M_EXCLUDE, M_UNKNOWN, M_COUNT };

/* What was found so far. `to`, `seq` and `exclude` belong to one of the two types only, and `type`
 * may come last: in the other they are unknown, and then may be anything and come twice. */
struct found {
    enum dig_scan_kind kind;
    uint8_t times[M_COUNT]; /* 0, 1, 2: more */
    bool wrong[M_COUNT];    /* it is not what its name asks for */
    struct dig_scan is;
};

static enum member member_of(struct bytes name)
{
    switch (name.n) {
    case 2:
        return IS(name, "to") ? M_TO : M_UNKNOWN;
    case 3:
        return IS(name, "seq") ? M_SEQ : M_UNKNOWN;
    case 4:
        return IS(name, "type") ? M_TYPE : IS(name, "from") ? M_FROM : M_UNKNOWN;
    case 7:
        return IS(name, "payload") ? M_PAYLOAD : IS(name, "exclude") ? M_EXCLUDE : M_UNKNOWN;
    default:
        return M_UNKNOWN;
    }
}

static bool read_type(struct scan *s, struct found *f)
{
    uint8_t plain[WORD_MAX];
    struct bytes span;
    bool escaped;

    if (!string(s, &span, &escaped))
        return false;
    span = word_of(span, escaped, plain);
    if (IS(span, "relay_message"))
        f->kind = DIG_SCAN_RELAY;
    else if (IS(span, "broadcast"))
        f->kind = DIG_SCAN_BROADCAST;
    return f->kind != DIG_SCAN_OTHER;
}

static bool read_one_sided(struct scan *s, struct found *f, enum member m)
{
    struct scan back = *s;

    if (m == M_TO && string(s, &f->is.to, &f->is.to_escaped))
        return true;
    if (m == M_SEQ && u64(s, &f->is.seq))
        return true;
    if (m == M_EXCLUDE && string_array(s, &f->is.exclude, &f->is.exclude_count))
        return true;
    f->wrong[m] = true;
    *s = back; /* once for each member: still in proportion to the text */
    return skip_value(s);
}

static bool read_member(struct scan *s, struct found *f)
{
    uint8_t plain[WORD_MAX];
    struct bytes span;
    bool escaped;

    if (!key(s, &span, &escaped))
        return false;
    enum member m = member_of(word_of(span, escaped, plain));

    if (f->times[m] < 2)
        f->times[m]++;
    switch (m) {
    case M_TYPE:
        return f->times[m] == 1 && read_type(s, f);
    case M_FROM:
        return f->times[m] == 1 && string(s, &span, &escaped);
    case M_PAYLOAD:
        return f->times[m] == 1 && byte_array(s, &f->is.payload, &f->is.payload_count);
    case M_TO:
    case M_SEQ:
    case M_EXCLUDE:
        return read_one_sided(s, f, m);
    default:
        return skip_value(s);
    }
}

static bool follows(struct bytes a, const char *between, struct bytes b)
{
    size_t n = strlen(between);

    return b.p > a.p && (size_t)(b.p - a.p) == a.n + n && memcmp(a.p + a.n, between, n) == 0;
}

/* As serde writes it: what is behind `from` can then be copied in one piece. */
static struct bytes tail_of(const struct dig_scan *m, struct bytes text)
{
    struct bytes end = bytes_of(text.p + text.n, 0);

    if (m->to_escaped || !follows(m->to, ",\"payload\":", m->payload) ||
        !follows(m->payload, ",\"seq\":", m->seq) || !follows(m->seq, "}", end))
        return bytes_of(end.p, 0);
    return bytes_of(m->to.p, (size_t)(end.p - m->to.p));
}

static bool complete(const struct found *f)
{
    static const enum member relay[] = { M_TYPE, M_FROM, M_PAYLOAD, M_TO, M_SEQ };
    static const enum member broadcast[] = { M_TYPE, M_FROM, M_PAYLOAD, M_EXCLUDE };
    bool is_relay = f->kind == DIG_SCAN_RELAY;
    const enum member *want = is_relay ? relay : broadcast;
    size_t n = is_relay ? ARRAY_LEN(relay) : ARRAY_LEN(broadcast);

    for (size_t i = 0; i < n; i++)
        if (f->times[want[i]] != 1 || f->wrong[want[i]])
            return false;
    return true;
}

enum dig_scan_kind dig_scan_by(enum dig_vec vec, struct bytes text, struct dig_scan *out)
{
    struct scan s = { .p = text.p, .end = text.n ? text.p + text.n : text.p, .vec = vec };
    struct found f = { .kind = DIG_SCAN_OTHER };

    blanks(&s);
    if (!take(&s, '{'))
        return DIG_SCAN_OTHER;
    do {
        blanks(&s);
        if (!read_member(&s, &f))
            return DIG_SCAN_OTHER;
        blanks(&s);
    } while (take(&s, ','));
    if (!take(&s, '}'))
        return DIG_SCAN_OTHER;
    blanks(&s);
    if (s.p != s.end || !complete(&f))
        return DIG_SCAN_OTHER;
    if (s.high) {
        struct utf8 u = { 0 };

        if (!utf8_feed(&u, text.p, text.n)) /* its last character is whole: a brace, or blank */
            return DIG_SCAN_OTHER;
    }
    f.is.tail = bytes_of(text.p + text.n, 0);
    if (f.kind == DIG_SCAN_RELAY)
        f.is.tail = tail_of(&f.is, text);
    *out = f.is;
    return f.kind;
}

enum dig_scan_kind dig_scan(struct bytes text, struct dig_scan *out)
{
    return dig_scan_by(dig_vec_best(), text, out);
}

enum dig_scan_kind dig_scan_scalar(struct bytes text, struct dig_scan *out)
{
    return dig_scan_by(DIG_VEC_NONE, text, out);
}
