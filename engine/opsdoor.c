/* engine/opsdoor.c: what the HTTP door answers (descord.md §5; dig.md §15.1 for its health port).
 */
#include <stdio.h>

#include "engine/metrics.h"
#include "engine/ops_int.h"

static const char JSON_TYPE[] = "application/json", TEXT_TYPE[] = "text/plain; charset=utf-8";

static bool path_is(const struct http_req *req, const char *path)
{
    return bytes_eq(req->path, bytes_str(path));
}

static struct http_reply reply_text(int status, const char *type, const char *body)
{
    return (struct http_reply){ .status = status, .type = type, .body = bytes_str(body) };
}

/* dig.md §15.1: exactly four keys; balancers of that network read them. */
static void dig_health(const struct ops_status *s, char *body, size_t cap)
{
    struct jw j = jw_of(body, cap);

    jw_open(&j, '{');
    jw_kstr(&j, "status", "ok");
    jw_ku64(&j, "connected_peers", s->dig_registered);
    jw_ku64(&j, "uptime_secs", s->uptime_ms / 1000);
    jw_kstr(&j, "version", SLUICE_VERSION);
    jw_close(&j, '}');
}

/* `body` is scratch that the reply may borrow. */
static struct http_reply route(const struct opsdoor *d, const struct http_req *req, char *body,
                               size_t cap)
{
    bool only_health = d->cfg->http_health_only;
    struct ops_status s;

    if (only_health && !path_is(req, "/health")) /* before the method (dig.md §15.1) */
        return (struct http_reply){ .status = 404 };
    if (!req->get && !req->head)
        return (struct http_reply){ .status = 405,
                                    .allow = only_health ? "GET,HEAD" : "GET, HEAD" };
    d->ops->status(d->ops->ctx, &s);
    if (path_is(req, "/health")) {
        if (only_health)
            dig_health(&s, body, cap);
        else
            snprintf(body, cap, "{\"status\":\"ok\"}");
        return reply_text(200, JSON_TYPE, body);
    }
    if (path_is(req, "/ready"))
        return s.ready && !s.draining ? reply_text(200, JSON_TYPE, "{\"status\":\"ready\"}")
                                      : reply_text(503, JSON_TYPE, "{\"status\":\"draining\"}");
    if (path_is(req, "/metrics")) {
        size_t n = metrics_text(&s, body, cap);

        return (struct http_reply){ n ? 200 : 500, METRICS_TYPE, NULL, bytes_of(body, n) };
    }
    if (path_is(req, "/stats.json")) {
        struct jw j = jw_of(body, cap);

        jw_open(&j, '{');
        metrics_json(&s, &j);
        jw_close(&j, '}');
        return (struct http_reply){ j.bad ? 500 : 200, JSON_TYPE, NULL,
                                    bytes_of(body, j.bad ? 0 : j.n) };
    }
    return reply_text(404, TEXT_TYPE, "Not Found");
}

void http_on_input(struct opsdoor *d, struct opsconn *c, bool eof)
{
    static char body[OPS_HTTP_OUT_BYTES - HTTP_REPLY_HEAD_MAX]; /* one thread, one turn */
    struct http_req req = { 0 };
    struct http_reply r = { 0 };

    switch (http_decode(bytes_of(c->in, c->in_n), &req)) {
    case HTTP_MORE:
        (void)eof; /* the caller closes */
        return;
    case HTTP_READY:
        r = route(d, &req, body, sizeof(body));
        break;
    case HTTP_BAD:
        r = reply_text(400, TEXT_TYPE, "Bad Request");
        break;
    case HTTP_LARGE:
        r = reply_text(431, TEXT_TYPE, "Request Header Fields Too Large");
        break;
    case HTTP_VERSION_UNKNOWN:
        r = reply_text(505, TEXT_TYPE, "HTTP Version Not Supported");
        break;
    }
    c->out_n = http_encode(&r, req.head, c->out, c->out_cap);
    ASSERT(c->out_n > 0); /* body and head are sized for the buffer */
    opsconn_send(d, c, true);
}
