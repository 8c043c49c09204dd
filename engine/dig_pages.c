/* /stats.json, /dht.json and /map.json (dig.md §15.2): whole HTTP answers, made on control's thread
 * when somebody asks and kept for a second, whoever asks. No address and no whole id is in them
 * unless it is asked for; what peers chose is escaped. */
#include <stdlib.h>

#include "engine/control.h"
#include "engine/dig_control.h"
#include "engine/geoip.h"
#include "engine/shard.h"

enum {
    HEAD_MAX = 256, /* of the answer */
    FIXED_MAX = 1024,
    PEER_MAX = 2 * DIG_NAME_TEXT_MAX + 256,
    NETWORK_MAX = DIG_NAME_TEXT_MAX + 64,
    KEY_MAX = 160,
    SHOWN_CHARS = 12,
    CELL_MAX = 64,
    PAGE_OF = 64, /* members taken from the registry at a time */
};

/* ---- writing -----------------------------------------------------------------------------------
 */

static void put(struct wcur *w, const char *text)
{
    wcur_put(w, bytes_str(text));
}

static void put_decimal(struct wcur *w, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    wcur_put(w, bytes_of(digits + at, sizeof(digits) - at));
}

static void put_number(struct wcur *w, const char *key, uint64_t v)
{
    put(w, key);
    put_decimal(w, v);
}

/* The head needs the length of what follows it: the body is written first, behind room for it. */
struct page {
    uint8_t *room;
    struct wcur body;
};

static bool page_begin(struct page *p, size_t body_max)
{
    p->room = malloc(HEAD_MAX + body_max);
    if (p->room)
        p->body = wcur_of(p->room + HEAD_MAX, body_max);
    return p->room != NULL;
}

static struct shared *page_end(struct dig_control *dc, struct page *p)
{
    uint8_t text[HEAD_MAX];
    struct wcur head = wcur_of(text, sizeof(text));
    struct shared *sh = NULL;

    put(&head, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
               "x-content-type-options: nosniff\r\n");
    put_number(&head, "content-length: ", p->body.wrote);
    put(&head, "\r\nconnection: close\r\n\r\n");
    ASSERT(!head.bad);
    if (!p->body.bad)
        sh = shared_new(&dc->host->shared, head.wrote + p->body.wrote);
    if (sh) {
        memcpy(sh->data, text, head.wrote);
        memcpy(sh->data + head.wrote, p->room + HEAD_MAX, p->body.wrote);
        sh->n = sh->cap;
    }
    free(p->room);
    return sh;
}

/* ---- /stats.json -------------------------------------------------------------------------------
 */

/* The first characters of an id, never part of one (D6). */
static void put_id(struct wcur *w, struct bytes id, bool full)
{
    uint8_t text[SHOWN_CHARS * 4 + 3];
    size_t n = 0, chars = 0;

    if (full || id.n <= SHOWN_CHARS) {
        dig_put_string(w, id);
        return;
    }
    while (n < id.n && chars < SHOWN_CHARS) { /* it is valid UTF-8 */
        text[n] = id.p[n];
        for (n++; n < id.n && (id.p[n] & 0xc0) == 0x80; n++)
            text[n] = id.p[n];
        chars++;
    }
    if (n < id.n) {
        memcpy(text + n, "\xe2\x80\xa6", 3); /* U+2026 */
        n += 3;
    }
    dig_put_string(w, bytes_of(text, n));
}

static const char *family_of(const struct dig_member *m)
{
    return !m->addrs_n ? "none" : netaddr_is4(&m->addr[0]) ? "v4" : "v6";
}

static void put_peer(struct dig_control *dc, struct wcur *w, const struct dig_member *m, bool full)
{
    uint64_t now = dc->c->now_unix_s;

    put(w, "{\"peer_id\":");
    put_id(w, dig_member_id(m), full);
    put(w, ",\"network_id\":");
    dig_put_string(w, dig_network_name(m->network));
    put(w, m->addrs_n ? ",\"via\":\"direct\"" : ",\"via\":\"relay\"");
    put(w, ",\"address_family\":\"");
    put(w, family_of(m));
    put_number(w, "\",\"protocol_version\":", m->protocol_version);
    put_number(w, ",\"connected_at\":", m->connected_at_unix_s);
    put_number(
        w, ",\"connected_secs\":", now > m->connected_at_unix_s ? now - m->connected_at_unix_s : 0);
    put(w, "}");
}

static void put_peers(struct dig_control *dc, struct wcur *w, bool full)
{
    const struct dig_member *m[PAGE_OF];
    struct bytes after = { NULL, 0 };
    size_t n;
    bool more = false;

    do {
        n = dig_reg_page(&dc->reg, after, m, PAGE_OF);
        for (size_t i = 0; i < n; i++) {
            if (more)
                put(w, ",");
            more = true;
            put_peer(dc, w, m[i], full);
        }
        if (n)
            after = dig_member_id(m[n - 1]);
    } while (n == PAGE_OF);
}

static void put_networks(struct dig_control *dc, struct wcur *w)
{
    const struct dig_network *net[PAGE_OF];
    struct bytes after = { NULL, 0 };
    size_t n;
    bool more = false;

    do {
        n = dig_reg_networks_page(&dc->reg, after, net, PAGE_OF);
        for (size_t i = 0; i < n; i++) {
            put(w, more ? ",{\"network_id\":" : "{\"network_id\":");
            more = true;
            dig_put_string(w, dig_network_name(net[i]));
            put_number(w, ",\"peers\":", dig_network_members(net[i]));
            put(w, "}");
        }
        if (n)
            after = dig_network_name(net[n - 1]);
    } while (n == PAGE_OF);
}

#define SUM(dc, name) sum_of(dc, offsetof(struct stats, name))
static uint64_t sum_of(const struct dig_control *dc, size_t off)
{
    const struct daemon *d = dc->c->d;
    uint64_t sum = 0;

    for (unsigned i = 0; i < d->shards_n; i++) {
        const uint8_t *stats = (const uint8_t *)&d->shard[i]->stats;

        sum += atomic_load_explicit((const _Atomic uint64_t *)(const void *)(stats + off),
                                    memory_order_relaxed);
    }
    return sum;
}

static struct shared *stats_page(struct dig_control *dc, bool full)
{
    struct page p;
    struct wcur *w = &p.body;

    if (!page_begin(&p, FIXED_MAX + (size_t)dig_reg_count(&dc->reg) * PEER_MAX +
                            (size_t)dig_reg_networks_count(&dc->reg) * NETWORK_MAX))
        return NULL;
    put(w, "{\"schema_version\":1,\"status\":\"ok\",\"version\":\"" SLUICE_VERSION "\"");
    put_number(w, ",\"uptime_secs\":", (dc->c->now_ms - dc->host->start_ms) / 1000);
    put_number(w, ",\"active_reservations\":", dig_reg_count(&dc->reg));
    put_number(w, ",\"connected_peers\":", dig_reg_count(&dc->reg));
    put_number(
        w, ",\"open_connections\":", atomic_load_explicit(&dc->host->open, memory_order_relaxed));
    put_number(w, ",\"stun_requests\":", SUM(dc, turn_bindings));
    put_number(w, ",\"hole_punch_requests\":", SUM(dc, dig_punch_requests));
    put_number(w, ",\"hole_punch_successes\":", SUM(dc, dig_punch_successes));
    put_number(w, ",\"hole_punch_failures\":", SUM(dc, dig_punch_failures));
    put_number(w, ",\"bytes_relayed\":", SUM(dc, dig_relayed_bytes));
    put(w, ",\"networks\":[");
    put_networks(dc, w);
    put(w, "],\"peers\":[");
    put_peers(dc, w, full);
    put(w, "]}");
    return page_end(dc, &p);
}

/* ---- /dht.json ---------------------------------------------------------------------------------
 */

static void put_hex(struct wcur *w, const uint8_t *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        wcur_u8(w, (uint8_t)digits[p[i] >> 4]);
        wcur_u8(w, (uint8_t)digits[p[i] & 15]);
    }
}

static struct shared *dht_page(struct dig_control *dc)
{
    const struct dig_dht_view *v = dig_dht_view(dc->dht);
    struct page p;
    struct wcur *w = &p.body;

    if (!page_begin(&p, FIXED_MAX + (size_t)v->n * KEY_MAX))
        return NULL;
    put_number(w, "{\"schema_version\":1,\"generated_at\":", dc->c->now_unix_s);
    put_number(w, ",\"reporting_peers\":", v->reporting);
    put_number(w, ",\"total_keys\":", v->total);
    put(w, v->truncated ? ",\"truncated\":true,\"keys\":[" : ",\"truncated\":false,\"keys\":[");
    for (uint32_t i = 0; i < v->n; i++) {
        put(w, i ? ",{\"content_key\":\"" : "{\"content_key\":\"");
        put_hex(w, v->key[i].key, sizeof(v->key[i].key));
        put_number(w, "\",\"providers\":", v->key[i].providers);
        put_number(w, ",\"reported_by\":", v->key[i].reported_by);
        put(w, "}");
    }
    put(w, "]}");
    return page_end(dc, &p);
}

/* ---- /map.json ---------------------------------------------------------------------------------
 */

/* The middle of cell number i of an axis that begins at -least. */
static void put_middle(struct wcur *w, const char *key, unsigned i, int least)
{
    int tenths = (int)i * GEOIP_CELL_DEG * 10 + GEOIP_CELL_DEG * 5 - least * 10;

    put(w, key);
    if (tenths < 0)
        put(w, "-");
    tenths = tenths < 0 ? -tenths : tenths;
    put_number(w, "", (uint64_t)tenths / 10);
    put_number(w, ".", (uint64_t)tenths % 10);
}

/* What a cell is shown as comes from its number: nothing finer is known here. Cells ascend by
 * latitude, then by longitude. */
static struct shared *map_page(struct dig_control *dc)
{
    struct page p;
    struct wcur *w = &p.body;
    uint32_t n = dig_reg_count(&dc->reg), located = dig_map_located(dc->map), cells = 0;
    bool more = false;

    for (unsigned i = 0; i < GEOIP_CELLS; i++)
        cells += dig_map_count(dc->map, i) != 0;
    if (!page_begin(&p, FIXED_MAX + (size_t)cells * CELL_MAX))
        return NULL;
    put_number(w, "{\"schema_version\":1,\"generated_at\":", dc->c->now_unix_s);
    put_number(w, ",\"cell_deg\":", GEOIP_CELL_DEG);
    put_number(w, ".0,\"total_peers\":", n);
    put_number(w, ",\"located_peers\":", located);
    put_number(w, ",\"unknown_peers\":", n - located);
    put(w, ",\"cells\":[");
    for (unsigned i = 0; i < GEOIP_CELLS; i++) {
        uint32_t count = dig_map_count(dc->map, i);

        if (!count)
            continue;
        put_middle(w, more ? ",{\"lat\":" : "{\"lat\":", i / GEOIP_COLS, 90);
        more = true;
        put_middle(w, ",\"lon\":", i % GEOIP_COLS, 180);
        put_number(w, ",\"count\":", count);
        put(w, "}");
    }
    put(w, "]}");
    return page_end(dc, &p);
}

struct shared *dig_page_get(struct dig_control *dc, enum dig_page page, bool full)
{
    struct shared **kept = &dc->page[page][full].page;
    uint64_t *made_ms = &dc->page[page][full].made_ms;

    if (*kept && dc->c->now_ms < *made_ms + DIG_PAGE_MS)
        return shared_keep(*kept);
    shared_drop(*kept);
    *kept = page == DIG_PAGE_STATS ? stats_page(dc, full)
            : page == DIG_PAGE_DHT ? dht_page(dc)
                                   : map_page(dc);
    *made_ms = dc->c->now_ms;
    return *kept ? shared_keep(*kept) : NULL;
}
