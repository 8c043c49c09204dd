#include "proto/gossip_fed.h"

#include <yyjson.h>

#include "proto/utf8.h"

static const char hex_digits[] = "0123456789abcdef";

/* As serde_json escapes: the original's payloads are compared as bytes (dusk.md §10.4). */
static void put_json(struct wcur *w, struct bytes text)
{
    static const char named[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'
    };

    wcur_u8(w, '"');
    for (size_t i = 0; i < text.n; i++) {
        uint8_t ch = text.p[i];

        if (ch >= 32 && ch != '"' && ch != '\\') {
            wcur_u8(w, ch);
            continue;
        }
        wcur_u8(w, '\\');
        if (ch >= 32) {
            wcur_u8(w, ch);
        } else if (named[ch]) {
            wcur_u8(w, (uint8_t)named[ch]);
        } else {
            wcur_put(w, bytes_str("u00"));
            wcur_u8(w, (uint8_t)hex_digits[ch >> 4]);
            wcur_u8(w, (uint8_t)hex_digits[ch & 15]);
        }
    }
    wcur_u8(w, '"');
}

static void put_peer(struct wcur *w, const struct peer_id *id)
{
    char text[PEER_TEXT_MAX];

    peer_id_text(id, text);
    put_json(w, bytes_str(text));
}

static void put_number(struct wcur *w, uint64_t v)
{
    uint8_t text[20];
    size_t at = sizeof(text);

    do {
        text[--at] = (uint8_t)('0' + v % 10);
    } while (v /= 10);
    wcur_put(w, bytes_of(text + at, sizeof(text) - at));
}

void gossip_fed_put(struct wcur *w, const struct gossip_fed *r)
{
    struct utf8 u = { 0 };

    if (!utf8_feed(&u, r->ns.p, r->ns.n) || !utf8_whole(&u)) {
        w->bad = true; /* no JSON can say it */
        return;
    }
    wcur_put(w, bytes_str("{\"peer_id\":"));
    put_peer(w, &r->peer);
    wcur_put(w, bytes_str(",\"namespace\":"));
    put_json(w, r->ns);
    wcur_put(w, bytes_str(",\"ttl\":"));
    put_number(w, r->ttl_s);
    wcur_put(w, bytes_str(",\"source_relay\":"));
    put_peer(w, &r->source);
    if (r->record.n) {
        wcur_put(w, bytes_str(",\"record\":\""));
        for (size_t i = 0; i < r->record.n; i++) {
            wcur_u8(w, (uint8_t)hex_digits[r->record.p[i] >> 4]);
            wcur_u8(w, (uint8_t)hex_digits[r->record.p[i] & 15]);
        }
        wcur_u8(w, '"');
    }
    wcur_u8(w, '}');
}

static struct bytes text_of(yyjson_val *v)
{
    return bytes_of(unsafe_yyjson_get_str(v), unsafe_yyjson_get_len(v));
}

static bool read_peer(yyjson_val *object, const char *name, struct peer_id *id)
{
    yyjson_val *v = yyjson_obj_get(object, name);

    return yyjson_is_str(v) && peer_id_parse(text_of(v), id);
}

static int nibble(uint8_t ch)
{
    return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Within its own text, which is in the pool: a byte takes the place of two. */
static bool unhex(struct bytes text, struct bytes *out)
{
    uint8_t *to = (uint8_t *)(uintptr_t)text.p;

    if (text.n % 2 || text.n > 2 * ENVELOPE_MAX)
        return false;
    for (size_t i = 0; i < text.n; i += 2) {
        int hi = nibble(text.p[i]), lo = nibble(text.p[i + 1]);

        if (hi < 0 || lo < 0)
            return false;
        to[i / 2] = (uint8_t)(hi << 4 | lo);
    }
    *out = bytes_of(to, text.n / 2);
    return true;
}

bool gossip_fed_parse(struct bytes text, void *pool, struct gossip_fed *r)
{
    yyjson_alc alc;
    struct gossip_fed got = { .ttl_s = 0 };

    if (!text.n || text.n > GOSSIP_FED_MAX || !yyjson_alc_pool_init(&alc, pool, GOSSIP_FED_POOL))
        return false;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text.p, text.n, 0, &alc, NULL);
    yyjson_val *top = yyjson_doc_get_root(doc); /* of NULL it is NULL */
    yyjson_val *ns = yyjson_obj_get(top, "namespace"), *ttl = yyjson_obj_get(top, "ttl");
    yyjson_val *record = yyjson_obj_get(top, "record");

    if (!read_peer(top, "peer_id", &got.peer) || !read_peer(top, "source_relay", &got.source) ||
        !yyjson_is_str(ns) || !yyjson_is_uint(ttl))
        return false;
    got.ns = text_of(ns);
    got.ttl_s = unsafe_yyjson_get_uint(ttl);
    if (got.ns.n > GOSSIP_FED_NS_MAX || !got.ttl_s || got.ttl_s > GOSSIP_FED_TTL_MAX_S)
        return false;
    if (record && (!yyjson_is_str(record) || !unhex(text_of(record), &got.record)))
        return false;
    *r = got;
    return true;
}

bool gossip_fed_verify(const struct gossip_fed *r)
{
    struct peer_record rec;

    return r->record.n && peer_record_open(r->record, &rec) && peer_id_eq(&rec.id, &r->peer);
}
