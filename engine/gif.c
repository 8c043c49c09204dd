#include "engine/gif.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <yyjson.h>

#include "engine/clock.h"
#include "engine/fetch.h"
#include "engine/rng.h"
#include "proto/crypto.h"
#include "proto/list.h"

enum {
    KEY_MAX = 32 + GIF_QUERY_MAX,
    BUCKETS = 1024, /* a power of two */
    BITS = 64,
    JSON_POOL_BYTES = 14 * GIF_FETCH_MAX, /* yyjson wants 12 times its input, at most */
    REPLY_HEAD_MAX = 16,
};

struct entry {
    struct link age;    /* oldest first */
    struct entry *next; /* of its bucket */
    struct shared *reply;
    uint64_t made_ms, hash;
    uint32_t live_ms;
    uint16_t key_n;
    uint8_t key[];
};

/* One call upstream, and who waits for it. */
struct flight {
    struct fetch_job job; /* first */
    struct gif *gif;
    struct gif_ask *asks;
    struct flight *next;
    uint32_t live_ms, limit;
    uint16_t key_n;
    uint8_t key[KEY_MAX];
};

struct gif {
    const struct config *cfg;
    struct errand *errand;
    struct logq *log;
    _Atomic uint64_t used[GIF_ASKS_MAX / BITS]; /* of asks */
    struct gif_ask *ask;                        /* GIF_ASKS_MAX; NULL: there is no key */
    struct shared_pool replies;
    /* The errand thread's from here on. */
    struct flight *flights;
    struct entry *bucket[BUCKETS];
    struct list by_age;
    uint8_t hash_key[16];
    uint64_t swept_ms, said_ms;
    unsigned unsaid; /* failures since the last line */
    uint64_t call_ms[GIF_CALLS];
    unsigned call_next; /* the oldest of them */
    uint8_t *json_pool, *encoded;
};

/* ---- asks ------------------------------------------------------------------------------------ */

static struct gif_ask *ask_claim(struct gif *g)
{
    for (unsigned w = 0; w < ARRAY_LEN(g->used); w++) {
        uint64_t was = atomic_load_explicit(&g->used[w], memory_order_relaxed);

        while (was != UINT64_MAX) {
            unsigned bit = (unsigned)__builtin_ctzll(~was);

            /* Acquire: with the release of gif_done, whoever had it before is through with it. */
            if (atomic_compare_exchange_weak_explicit(&g->used[w], &was, was | 1ull << bit,
                                                      memory_order_acquire, memory_order_relaxed))
                return &g->ask[w * BITS + bit];
        }
    }
    return NULL;
}

void gif_done(struct gif_ask *a)
{
    struct gif *g = a->gif;
    size_t i = (size_t)(a - g->ask);

    shared_drop(a->reply);
    atomic_fetch_and_explicit(&g->used[i / BITS], ~(1ull << i % BITS), memory_order_release);
}

struct bytes gif_reply(const struct gif_ask *a)
{
    static const uint8_t empty[] = { 0xa1, 0x67, 'r', 'e', 's', 'u', 'l', 't', 's', 0x80 };

    static_assert(sizeof(empty) == DUSK_GIF_EMPTY_PUT, "dusk.md §9");
    return a->reply ? shared_bytes(a->reply) : bytes_of(empty, sizeof(empty));
}

/* From here on the ask is its asker's, who may be done with it before this returns. */
static void answer(struct gif_ask *a, struct shared *reply)
{
    struct ring *wake = a->wake;

    a->reply = reply ? shared_keep(reply) : NULL;
    a->call.node.kind = a->kind_of_mail;
    if (mbox_push(a->to, &a->call.node) && wake)
        ring_wake(wake);
}

/* ---- the cache ------------------------------------------------------------------------------- */

static uint64_t hash_of(const struct gif *g, struct bytes key)
{
    return crypto_siphash(g->hash_key, key);
}

static void forget(struct gif *g, struct entry *e)
{
    struct entry **at = &g->bucket[e->hash % BUCKETS];

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    list_remove(&g->by_age, &e->age);
    shared_drop(e->reply);
    free(e);
}

static struct entry *oldest(const struct gif *g)
{
    return g->by_age.first ? CONTAINER_OF(g->by_age.first, struct entry, age) : NULL;
}

static void sweep(struct gif *g, uint64_t now_ms)
{
    struct entry *e;

    if (now_ms - g->swept_ms < GIF_SWEEP_MS)
        return;
    g->swept_ms = now_ms;
    while ((e = oldest(g)) && now_ms - e->made_ms >= GIF_SEARCH_MS)
        forget(g, e);
}

static struct shared *cached(struct gif *g, struct bytes key, uint64_t now_ms)
{
    uint64_t hash = hash_of(g, key);
    struct entry *e = g->bucket[hash % BUCKETS];

    while (e && (e->hash != hash || !bytes_eq(bytes_of(e->key, e->key_n), key)))
        e = e->next;
    if (e && now_ms - e->made_ms >= e->live_ms) {
        forget(g, e);
        e = NULL;
    }
    return e ? e->reply : NULL;
}

/* A key is in flight once, so that it is not there yet. */
static void keep(struct gif *g, const struct flight *f, struct shared *reply, uint64_t now_ms)
{
    struct entry *e = malloc(sizeof(*e) + f->key_n);

    if (!e)
        return;
    *e = (struct entry){ .reply = shared_keep(reply),
                         .made_ms = now_ms,
                         .hash = hash_of(g, bytes_of(f->key, f->key_n)),
                         .live_ms = f->live_ms,
                         .key_n = f->key_n };
    memcpy(e->key, f->key, f->key_n);
    e->next = g->bucket[e->hash % BUCKETS];
    g->bucket[e->hash % BUCKETS] = e;
    list_append(&g->by_age, &e->age);
    while (g->by_age.count > 0 &&
           (g->by_age.count > GIF_CACHE_ENTRIES || shared_past(&g->replies, 12)))
        forget(g, oldest(g));
}

/* ---- what the service says ------------------------------------------------------------------- */

static struct bytes text_of(yyjson_val *v)
{
    return yyjson_is_str(v) ? bytes_of(yyjson_get_str(v), yyjson_get_len(v)) : bytes_of(NULL, 0);
}

static bool is_text(yyjson_val *v)
{
    return yyjson_is_str(v) && yyjson_get_len(v) <= GIF_TEXT_MAX;
}

static bool dim(yyjson_val *v, uint32_t *out)
{
    if (!yyjson_is_uint(v) || yyjson_get_uint(v) > UINT32_MAX)
        return false;
    *out = (uint32_t)yyjson_get_uint(v);
    return true;
}

/* One of results[] as dusk.md §9 maps it. false: it lacks what a client shows, or is too long. */
static bool read_one(yyjson_val *v, struct dusk_gif *out)
{
    yyjson_val *formats = yyjson_obj_get(v, "media_formats"),
               *tiny = yyjson_obj_get(formats, "tinygif"),
               *url = yyjson_obj_get(yyjson_obj_get(formats, "gif"), "url"),
               *preview = yyjson_obj_get(tiny, "url"), *dims = yyjson_obj_get(tiny, "dims"),
               *title = yyjson_obj_get(v, "content_description");

    if (!is_text(url) || !is_text(preview))
        return false;
    if (!is_text(title))
        title = yyjson_obj_get(v, "title");
    *out = (struct dusk_gif){ .url = text_of(url), .preview = text_of(preview) };
    if (is_text(yyjson_obj_get(v, "id")))
        out->id = text_of(yyjson_obj_get(v, "id"));
    if (is_text(title))
        out->title = text_of(title);
    if (yyjson_arr_size(dims) != 2 || !dim(yyjson_arr_get(dims, 0), &out->dims[0]) ||
        !dim(yyjson_arr_get(dims, 1), &out->dims[1])) {
        out->dims[0] = 220;
        out->dims[1] = 165;
    }
    return true;
}

/* Encodes what is there into g->encoded. How many; *n is their bytes. */
static unsigned encode(struct gif *g, yyjson_val *results, uint32_t limit, size_t *n)
{
    struct wcur w = wcur_of(g->encoded, GIF_REPLY_MAX - REPLY_HEAD_MAX);
    unsigned count = 0;
    size_t i, max;
    yyjson_val *v;

    *n = 0;
    if (!yyjson_is_arr(results))
        return 0;
    yyjson_arr_foreach(results, i, max, v)
    {
        struct dusk_gif one;

        if (count == limit)
            break;
        if (!read_one(v, &one))
            continue;
        dusk_gif_put(&w, &one);
        if (w.bad)
            break;
        count++;
        *n = w.wrote;
    }
    return count;
}

/* NULL: it is not what §9 describes (*ok is false), or holds nothing. One reference, the caller's.
 */
static struct shared *read_answer(struct gif *g, struct bytes body, uint32_t limit, bool *ok)
{
    yyjson_alc alc;
    yyjson_read_err err;
    struct shared *reply;
    unsigned count;
    size_t n;

    if (body.n == 0 || !yyjson_alc_pool_init(&alc, g->json_pool, JSON_POOL_BYTES))
        return NULL;
    /* Without YYJSON_READ_INSITU the text is copied, and not written to. */
    yyjson_doc *doc =
        yyjson_read_opts((char *)(uintptr_t)body.p, body.n, YYJSON_READ_NOFLAG, &alc, &err);

    if (!doc)
        return NULL;
    yyjson_val *results = yyjson_obj_get(yyjson_doc_get_root(doc), "results");

    *ok = yyjson_is_arr(results);
    count = encode(g, results, limit, &n);
    yyjson_doc_free(doc);
    reply = count ? shared_new(&g->replies, REPLY_HEAD_MAX + n) : NULL;
    if (!reply)
        return NULL;
    struct wcur w = wcur_of(reply->data, reply->cap);

    dusk_gif_put_results(&w, count);
    wcur_put(&w, bytes_of(g->encoded, n));
    ASSERT(!w.bad);
    reply->n = (uint32_t)w.wrote;
    return reply;
}

/* ---- asking it ------------------------------------------------------------------------------- */

static void say_failure(struct gif *g, uint64_t now_ms, const char *why)
{
    g->unsaid++;
    if (g->said_ms && now_ms - g->said_ms < GIF_SAY_MS)
        return;
    log_text(g->log, LOG_WARN, "gif: the service fails: %s (%u time%s)", why, g->unsaid,
             g->unsaid == 1 ? "" : "s");
    g->said_ms = now_ms;
    g->unsaid = 0;
}

static void on_fetched(struct fetch_job *j, int err, long status, struct bytes body,
                       const char *why)
{
    struct flight *f = CONTAINER_OF(j, struct flight, job), **at;
    struct gif *g = f->gif;
    struct shared *reply = NULL;
    uint64_t now_ms = clock_mono_ms();
    char text[64];
    bool ok = false;

    if (err) {
        say_failure(g, now_ms, why);
    } else if (status < 200 || status > 299) {
        snprintf(text, sizeof(text), "it answers %ld", status);
        say_failure(g, now_ms, text);
    } else {
        reply = read_answer(g, body, f->limit, &ok);
        if (!ok)
            say_failure(g, now_ms, "it answers something else than its JSON");
    }
    for (at = &g->flights; *at != f; at = &(*at)->next)
        ;
    *at = f->next;
    if (reply)
        keep(g, f, reply, now_ms);
    for (struct gif_ask *a = f->asks, *next; a; a = next) {
        next = a->next;
        answer(a, reply);
    }
    shared_drop(reply);
    crypto_wipe(j->url, sizeof(j->url));
    free(f);
}

/* Percent-encoded but for RFC 3986's unreserved characters. */
static void put_escaped(struct wcur *w, struct bytes text)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i], lower = c | 0x20;

        if ((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c))) {
            wcur_u8(w, c);
        } else {
            wcur_u8(w, '%');
            wcur_u8(w, (uint8_t)hex[c >> 4]);
            wcur_u8(w, (uint8_t)hex[c & 15]);
        }
    }
}

static bool write_url(const struct gif *g, const struct gif_ask *a, char *url)
{
    struct wcur w = wcur_of(url, FETCH_URL_MAX - 1);

    wcur_put(&w, bytes_str(g->cfg->gif_url));
    if (a->kind == GIF_SEARCH) {
        wcur_put(&w, bytes_str("/v2/search?q="));
        put_escaped(&w, bytes_of(a->query, a->query_n));
        wcur_put(&w, bytes_str("&key="));
    } else {
        wcur_put(&w, bytes_str("/v2/featured?key="));
    }
    put_escaped(&w, bytes_str(g->cfg->gif_key));
    wcur_put(&w, bytes_str("&limit="));
    netaddr_put_decimal(&w, a->limit);
    wcur_put(&w, bytes_str("&media_filter=tinygif,gif"));
    url[w.wrote] = '\0';
    return !w.bad;
}

/* `kind:query:limit` of §9, the query trimmed and in lower case. ASCII's alone: two spellings of
 * another letter are two calls, no more. What is no search does not depend on its query. */
static struct bytes key_of(const struct gif_ask *a, uint8_t key[KEY_MAX])
{
    static const char *const kinds[] = { "search:", "trending:", "other:" };
    struct wcur w = wcur_of(key, KEY_MAX);
    struct bytes query = dusk_trim(bytes_of(a->query, a->query_n));

    wcur_put(&w, bytes_str(kinds[a->kind]));
    for (size_t i = 0; i < query.n; i++)
        wcur_u8(&w, query.p[i] >= 'A' && query.p[i] <= 'Z' ? query.p[i] | 0x20 : query.p[i]);
    wcur_u8(&w, ':');
    netaddr_put_decimal(&w, a->limit);
    ASSERT(!w.bad);
    return bytes_of(key, w.wrote);
}

/* At most GIF_CALLS in any GIF_CALLS_MS, with a test key (§9). */
static bool may_call(struct gif *g, uint64_t now_ms)
{
    uint64_t *at = &g->call_ms[g->call_next];

    if (!g->cfg->gif_limited)
        return true;
    if (*at && now_ms - *at < GIF_CALLS_MS)
        return false;
    *at = now_ms;
    g->call_next = (g->call_next + 1) % GIF_CALLS;
    return true;
}

static void fly(struct gif *g, struct gif_ask *a, struct bytes key, uint64_t now_ms)
{
    struct flight *f = may_call(g, now_ms) ? malloc(sizeof(*f)) : NULL;

    if (!f || !write_url(g, a, f->job.url)) {
        free(f);
        answer(a, NULL);
        return;
    }
    f->job.ca_file = g->cfg->gif_ca[0] ? g->cfg->gif_ca : NULL;
    f->job.allow_private = g->cfg->gif_allow_private;
    f->job.bytes_max = GIF_FETCH_MAX;
    f->job.deadline_ms = now_ms + GIF_DEADLINE_MS;
    f->job.done = on_fetched;
    f->gif = g;
    f->asks = a;
    f->live_ms = a->kind == GIF_TRENDING ? GIF_TRENDING_MS : GIF_SEARCH_MS;
    f->limit = a->limit;
    f->key_n = (uint16_t)key.n;
    memcpy(f->key, key.p, key.n);
    f->next = g->flights;
    g->flights = f;
    fetch_get(errand_fetch(g->errand), &f->job, now_ms);
}

static void on_ask(struct errand *e, struct errand_call *c, uint64_t now_ms)
{
    struct gif_ask *a = CONTAINER_OF(c, struct gif_ask, call);
    struct gif *g = a->gif;
    uint8_t buf[KEY_MAX];
    struct bytes key = key_of(a, buf);
    struct shared *reply;
    struct flight *f;

    (void)e;
    sweep(g, now_ms);
    reply = cached(g, key, now_ms);
    if (reply) {
        answer(a, reply);
        return;
    }
    for (f = g->flights; f && !bytes_eq(bytes_of(f->key, f->key_n), key); f = f->next)
        ;
    if (f) {
        a->next = f->asks;
        f->asks = a;
        return;
    }
    fly(g, a, key, now_ms);
}

struct gif_ask *gif_ask(struct gif *g, const struct dusk_gif_req *r, uint8_t kind_of_mail,
                        struct mbox *to, struct ring *wake, uint64_t cookie)
{
    bool search = bytes_eq(r->kind, bytes_str("search"));
    struct gif_ask *a;

    if (!g || !g->ask || r->limit == 0 || (search && r->query.n > GIF_QUERY_MAX))
        return NULL;
    search = search && dusk_trim(r->query).n > 0; /* else it is as good as any other kind (§9) */
    a = ask_claim(g);
    if (!a)
        return NULL;
    *a = (struct gif_ask){
        .call.run = on_ask,
        .cookie = cookie,
        .gif = g,
        .to = to,
        .wake = wake,
        .kind_of_mail = kind_of_mail,
        .kind = search                                     ? GIF_SEARCH
                : bytes_eq(r->kind, bytes_str("trending")) ? GIF_TRENDING
                                                           : GIF_OTHER,
        .limit = r->limit > DUSK_GIFS_MAX ? DUSK_GIFS_MAX : r->limit,
    };
    if (search) {
        memcpy(a->query, r->query.p, r->query.n);
        a->query_n = (uint16_t)r->query.n;
    }
    errand_post(g->errand, &a->call);
    return a;
}

/* ---- start and end --------------------------------------------------------------------------- */

int gif_new(const struct config *cfg, struct errand *e, struct logq *log, struct gif **out)
{
    struct gif *g = calloc(1, sizeof(*g));

    if (!g)
        return -ENOMEM;
    g->cfg = cfg;
    g->errand = e;
    g->log = log;
    g->replies.max = GIF_CACHE_BYTES / 12 * 16; /* the rest is for answers on their way */
    if (!cfg->gif_key[0] || !e) {
        log_text(log, LOG_WARN,
                 "gif: no API key (KLIPY_API_KEY, --gif-key): every search comes back empty");
        *out = g;
        return 0;
    }
    rng_bytes(g->hash_key, sizeof(g->hash_key));
    g->ask = calloc(GIF_ASKS_MAX, sizeof(*g->ask));
    g->json_pool = malloc(JSON_POOL_BYTES);
    g->encoded = malloc(GIF_REPLY_MAX);
    if (!g->ask || !g->json_pool || !g->encoded) {
        gif_free(g);
        return -ENOMEM;
    }
    *out = g;
    return 0;
}

void gif_free(struct gif *g)
{
    if (!g)
        return;
    for (unsigned i = 0; g->ask && i < GIF_ASKS_MAX; i++) /* answered, and nobody read it */
        if (atomic_load_explicit(&g->used[i / BITS], memory_order_relaxed) >> i % BITS & 1)
            shared_drop(g->ask[i].reply);
    while (g->flights) { /* left by a stop: errand has freed what libcurl had of them */
        struct flight *f = g->flights;

        g->flights = f->next;
        crypto_wipe(f->job.url, sizeof(f->job.url));
        free(f);
    }
    while (oldest(g))
        forget(g, oldest(g));
    free(g->ask);
    free(g->json_pool);
    free(g->encoded);
    free(g);
}
