/* Requests on the relay port that are no upgrade (dig.md §15.2): one answer to whatever method,
 * then the end. Documents and /health are answered here; what needs everybody is asked of control,
 * which keeps it for a second, so that nobody's scraping costs a shard anything. */
#include <stdio.h>

#include "engine/dig_html.h"
#include "engine/dig_int.h"

enum { HEAD_BYTES = 640, HEALTH_BYTES = 256 };

struct answer {
    int status;
    const char *reason, *type, *cache;
    const char *more; /* headers */
};

/* A page runs our script only, and talks to nobody but us: what a peer calls itself cannot change
 * that, even where a browser were brought to take it for HTML (dig.md D13). */
static const char page_headers[] =
    "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'\r\n"
    "referrer-policy: no-referrer\r\n";

static void answer(struct dig_conn *c, const struct answer *a, struct bytes body)
{
    char head[HEAD_BYTES];
    int n =
        snprintf(head, sizeof(head),
                 "HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s%s%s%scontent-length: %zu\r\n"
                 "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
                 a->status, a->reason, a->type, a->cache ? "cache-control: " : "",
                 a->cache ? a->cache : "", a->cache ? "\r\n" : "", a->more ? a->more : "", body.n);

    ASSERT(n > 0 && n < HEAD_BYTES);
    const struct bytes parts[2] = { bytes_of(head, (size_t)n), body };

    if (dig_send(c, parts, 2))
        dig_finish_after(c, NULL);
}

static void health(struct dig_conn *c)
{
    const struct answer ok = { 200, "OK", "application/json", "no-store", NULL };
    struct dig_host *h = c->ds->host;
    char body[HEALTH_BYTES];
    int n = snprintf(body, sizeof(body),
                     "{\"status\":\"ok\",\"connected_peers\":%u,\"uptime_secs\":%llu,"
                     "\"version\":\"%s\"}",
                     atomic_load_explicit(&h->registered, memory_order_relaxed),
                     (unsigned long long)((c->ds->s->now_ms - h->start_ms) / 1000), SLUICE_VERSION);

    answer(c, &ok, bytes_of(body, (size_t)n));
}

static bool has(struct bytes text, const char *word)
{
    return text.n && memmem(text.p, text.n, word, strlen(word)) != NULL;
}

void dig_on_request(struct dig_conn *c, const struct http_head *h)
{
    static const struct {
        const char *path;
        enum dig_page page;
    } asked[] = { { "/stats.json", DIG_PAGE_STATS },
                  { "/dht.json", DIG_PAGE_DHT },
                  { "/map.json", DIG_PAGE_MAP } };
    const struct answer missing = { 404, "Not Found", "text/plain; charset=utf-8", NULL, NULL };
    const struct dig_doc *doc = dig_doc_find(h->path);

    STAT_INC(&c->ds->s->stats, dig_http);
    c->state = DIG_PAGE;
    if (bytes_eq(h->path, bytes_str("/health"))) {
        health(c);
        return;
    }
    if (doc) {
        const struct answer ok = { 200, "OK", doc->type, doc->cache, page_headers };

        answer(c, &ok, doc->body);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        if (!bytes_eq(h->path, bytes_str(asked[i].path)))
            continue;
        c->ask.u.page.page = (uint8_t)asked[i].page;
        c->ask.u.page.full =
            has(h->target, "full=1") || has(h->target, "full=true") || has(h->target, "full=yes");
        dig_ask(c, DIG_ASK_PAGE);
        return;
    }
    answer(c, &missing, bytes_str("not found\n"));
}

void dig_on_page(struct dig_conn *c)
{
    const struct answer busy = { 503, "Service Unavailable", "text/plain; charset=utf-8",
                                 "no-store", NULL };
    struct shared *page = c->ask.reply;

    c->ask.reply = NULL;
    if (c->state != DIG_PAGE) {
        shared_drop(page);
        return;
    }
    if (!page)
        answer(c, &busy, bytes_str("busy\n"));
    else if (dig_send_shared(c, page, 0, page->n, 0)) /* its head is in it */
        dig_finish_after(c, NULL);
    else
        dig_close(c, "no memory for its page");
    shared_drop(page);
}
