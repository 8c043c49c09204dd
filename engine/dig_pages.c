/* /stats.json, /dht.json and /map.json (dig.md §15.2): whole HTTP answers, made on control's thread
 * when somebody asks, a long one in pieces, and kept for a second, whoever asks. No address and no
 * whole id is in them unless it is asked for; what peers chose is escaped. */
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
    PAGE_OF = 64,          /* members taken from the registry at a time */
    PIECE_BYTES = 1 << 17, /* of /stats.json: what is written in one turn of control */
    PIECES_COPIED = 4,
    ENDS_MAX = 64, /* of its lists */
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

static void put_head(struct wcur *w, size_t body_bytes)
{
    put(w, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
           "x-content-type-options: nosniff\r\n");
    put_number(w, "content-length: ", body_bytes);
    put(w, "\r\nconnection: close\r\n\r\n");
    ASSERT(!w->bad);
}

static void answer_add(struct shared *sh, struct bytes more)
{
    ASSERT(more.n <= sh->cap - sh->n);
    memcpy(sh->data + sh->n, more.p, more.n);
    sh->n += (uint32_t)more.n;
}

/* An answer whose head is written, and room for its body. NULL: no memory. */
static struct shared *answer_new(struct dig_control *dc, size_t body_bytes)
{
    uint8_t text[HEAD_MAX];
    struct wcur head = wcur_of(text, sizeof(text));
    struct shared *sh;

    put_head(&head, body_bytes);
    sh = shared_new(&dc->host->shared, head.wrote + body_bytes);
    if (sh)
        answer_add(sh, bytes_of(text, head.wrote));
    return sh;
}

/* Of a page that is made at once. The head needs the length of the body, which so comes first. */
struct page {
    uint8_t *room;
    struct wcur body;
};

static bool page_begin(struct page *p, size_t body_max)
{
    p->room = malloc(body_max);
    if (p->room)
        p->body = wcur_of(p->room, body_max);
    return p->room != NULL;
}

static struct shared *page_end(struct dig_control *dc, struct page *p)
{
    struct shared *sh = p->body.bad ? NULL : answer_new(dc, p->body.wrote);

    if (sh)
        answer_add(sh, bytes_of(p->room, p->body.wrote));
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

/* With 65536 registrants it is 14 MB, and 30 ms of work: it is written in pieces, one a turn of
 * control, then put together. Who comes or goes meanwhile is listed or not. */
struct piece {
    struct piece *next;
    size_t n;
    uint8_t data[PIECE_BYTES];
};

struct dig_stats_job {
    bool full, peers, more, written, failed;
    bool begun; /* the list that is being written: behind this name */
    uint8_t after_n;
    uint8_t after[DIG_NAME_MAX];
    uint32_t left; /* to be listed at most: names that come behind it may be without end */
    struct piece *first, **end;
    size_t bytes;
    struct shared *out;
};

static void list_begin(struct dig_control *dc, struct dig_stats_job *j)
{
    j->begun = j->more = false;
    j->left = dc->nets_max;
}

static struct bytes list_after(const struct dig_stats_job *j)
{
    return j->begun ? bytes_of(j->after, j->after_n) : (struct bytes){ NULL, 0 };
}

/* false: an entry may not fit any more. Else it is the next one. */
static bool list_next(struct dig_stats_job *j, const struct wcur *w, size_t entry_max,
                      struct bytes name)
{
    if (w->n < entry_max + ENDS_MAX)
        return false;
    j->begun = true;
    j->after_n = (uint8_t)name.n;
    if (name.n)
        memcpy(j->after, name.p, name.n);
    j->left--;
    return true;
}

/* true: all. */
static bool put_peers(struct dig_control *dc, struct dig_stats_job *j, struct wcur *w)
{
    const struct dig_member *m[PAGE_OF];
    size_t n;

    do {
        n = dig_reg_page(&dc->reg, list_after(j), m, PAGE_OF);
        for (size_t i = 0; i < n && j->left; i++) {
            if (!list_next(j, w, PEER_MAX, dig_member_id(m[i])))
                return false;
            if (j->more)
                put(w, ",");
            j->more = true;
            put_peer(dc, w, m[i], j->full);
        }
    } while (n == PAGE_OF && j->left);
    return true;
}

static bool put_networks(struct dig_control *dc, struct dig_stats_job *j, struct wcur *w)
{
    const struct dig_network *net[PAGE_OF];
    size_t n;

    do {
        n = dig_reg_networks_page(&dc->reg, list_after(j), net, PAGE_OF);
        for (size_t i = 0; i < n && j->left; i++) {
            if (!list_next(j, w, NETWORK_MAX, dig_network_name(net[i])))
                return false;
            put(w, j->more ? ",{\"network_id\":" : "{\"network_id\":");
            j->more = true;
            dig_put_string(w, dig_network_name(net[i]));
            put_number(w, ",\"peers\":", dig_network_members(net[i]));
            put(w, "}");
        }
    } while (n == PAGE_OF && j->left);
    return true;
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

static void put_figures(struct dig_control *dc, struct wcur *w)
{
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
}

static void job_write(struct dig_control *dc, struct dig_stats_job *j)
{
    struct piece *k = malloc(sizeof(*k));
    struct wcur w;

    if (!k) {
        j->failed = true;
        return;
    }
    w = wcur_of(k->data, sizeof(k->data));
    if (!j->first) {
        put_figures(dc, &w);
        list_begin(dc, j);
        j->end = &j->first;
    }
    if (!j->peers && put_networks(dc, j, &w)) {
        put(&w, "],\"peers\":[");
        list_begin(dc, j);
        j->peers = true;
    }
    if (j->peers && put_peers(dc, j, &w)) {
        put(&w, "]}");
        j->written = true;
    }
    j->failed = w.bad;
    k->n = w.wrote;
    k->next = NULL;
    *j->end = k;
    j->end = &k->next;
    j->bytes += k->n;
}

static void job_copy(struct dig_control *dc, struct dig_stats_job *j)
{
    if (!j->out)
        j->out = answer_new(dc, j->bytes);
    j->failed = !j->out;
    for (int i = 0; i < PIECES_COPIED && j->out && j->first; i++) {
        struct piece *k = j->first;

        answer_add(j->out, bytes_of(k->data, k->n));
        j->first = k->next;
        free(k);
    }
}

/* One piece. true: it is done, or has failed. */
static bool job_step(struct dig_control *dc, struct dig_stats_job *j)
{
    if (j->written)
        job_copy(dc, j);
    else
        job_write(dc, j);
    return j->failed || (j->written && !j->first);
}

/* Its answer; NULL: it failed. */
static struct shared *job_free(struct dig_stats_job *j)
{
    struct shared *out = j->out;

    while (j->first) {
        struct piece *k = j->first;

        j->first = k->next;
        free(k);
    }
    free(j);
    return out;
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

/* ---- who asks ----------------------------------------------------------------------------------
 */

static void page_answer(struct dig_control *dc, struct dig_conn *c, struct shared *page)
{
    c->ask.reply = page ? shared_keep(page) : NULL;
    dig_answer(dc, c);
}

/* Keeps it for those who come, and gives it to those who waited. Takes it; NULL: no memory. */
static void page_made(struct dig_control *dc, enum dig_page page, bool full, struct shared *made)
{
    struct mnode *n = dc->page[page][full].asked, *next;

    shared_drop(dc->page[page][full].page);
    dc->page[page][full].page = made;
    dc->page[page][full].made_ms = dc->c->now_ms;
    dc->page[page][full].asked = NULL;
    for (; n; n = next) {
        next = n->next;
        page_answer(dc, CONTAINER_OF(n, struct dig_conn, ask.node), made);
    }
}

static void page_wait(struct dig_control *dc, enum dig_page page, bool full, struct mnode *n)
{
    n->next = NULL;
    if (dc->page[page][full].asked)
        *dc->page[page][full].asked_end = n;
    else
        dc->page[page][full].asked = n;
    dc->page[page][full].asked_end = &n->next;
}

/* Goes on with /stats.json. true: there is another turn's work. */
static bool job_go_on(struct dig_control *dc)
{
    struct dig_stats_job *j = dc->stats_job;
    bool full = j->full;

    if (!job_step(dc, j))
        return true;
    dc->stats_job = NULL;
    page_made(dc, DIG_PAGE_STATS, full, job_free(j));
    return false;
}

/* If anybody waits for it. What fits a piece is made at once. */
static void job_begin(struct dig_control *dc, bool full)
{
    if (dc->stats_job || !dc->page[DIG_PAGE_STATS][full].asked)
        return;
    dc->stats_job = calloc(1, sizeof(*dc->stats_job));
    if (!dc->stats_job) {
        page_made(dc, DIG_PAGE_STATS, full, NULL);
        return;
    }
    dc->stats_job->full = full;
    if (job_go_on(dc) && dc->stats_job->written)
        (void)job_go_on(dc);
}

void dig_page_ask(struct dig_control *dc, struct dig_conn *c)
{
    enum dig_page page = (enum dig_page)c->ask.u.page.page;
    bool full = c->ask.u.page.full;
    struct shared *kept = dc->page[page][full].page;

    if (kept && dc->c->now_ms < dc->page[page][full].made_ms + DIG_PAGE_MS) {
        page_answer(dc, c, kept);
        return;
    }
    page_wait(dc, page, full, &c->ask.node);
    if (page == DIG_PAGE_STATS)
        job_begin(dc, full);
    else
        page_made(dc, page, full, page == DIG_PAGE_DHT ? dht_page(dc) : map_page(dc));
}

void dig_pages_tick(struct dig_control *dc)
{
    if (dc->stats_job && job_go_on(dc))
        return;
    job_begin(dc, false);
    job_begin(dc, true);
}

uint64_t dig_pages_due_ms(const struct dig_control *dc)
{
    return dc->stats_job ? 0 : UINT64_MAX;
}

void dig_pages_free(struct dig_control *dc)
{
    for (int p = 0; p < DIG_PAGES; p++)
        for (int full = 0; full < 2; full++)
            shared_drop(dc->page[p][full].page);
    if (dc->stats_job)
        shared_drop(job_free(dc->stats_job));
}
