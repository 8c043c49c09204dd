/* engine/log_text.c: a record as text: key=value, or one JSON object per line. */
#include "engine/log_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "engine/json.h"
#include "engine/ops.h"

const struct event_shape event_shapes[EV_COUNT] = {
    [EV_TEXT] = { .code = "text" },
    [EV_CONN_INCOMING] = { .code = "connection_incoming", .a = "shard" },
    [EV_CONN_ESTABLISHED] = { .code = "connection_established",
                              .peer = "peer",
                              .a = "connections" },
    [EV_CONN_CLOSED] = { .code = "connection_closed", .peer = "peer", .a = "connections" },
    [EV_HANDSHAKE_FAILED] = { .code = "handshake_failed" },
    [EV_RESERVATION_ACCEPTED] = { .code = "reservation_accepted",
                                  .peer = "peer",
                                  .a = "reservations",
                                  .b = "expires_s" },
    [EV_RESERVATION_RENEWED] = { .code = "reservation_renewed",
                                 .peer = "peer",
                                 .a = "reservations",
                                 .b = "expires_s" },
    [EV_RESERVATION_TIMEOUT] = { .code = "reservation_timeout",
                                 .peer = "peer",
                                 .a = "reservations" },
    [EV_RESERVATION_CLOSED] = { .code = "reservation_closed", .peer = "peer", .a = "reservations" },
    [EV_RESERVATION_DENIED] = { .code = "request_denied", .peer = "peer", .kind = "reservation" },
    [EV_CIRCUIT_ACCEPTED] = { .code = "circuit_accepted",
                              .peer = "src",
                              .peer2 = "dst",
                              .a = "circuit",
                              .b = "circuits" },
    [EV_CIRCUIT_CLOSED] = { .code = "circuit_closed",
                            .peer = "src",
                            .peer2 = "dst",
                            .a = "circuit",
                            .b = "bytes_src_to_dst",
                            .c = "bytes_dst_to_src",
                            .d = "duration_ms" },
    [EV_CIRCUIT_DENIED] = { .code = "request_denied",
                            .peer = "src",
                            .peer2 = "dst",
                            .kind = "circuit" },
    [EV_LIMIT_HIT] = { .code = "limit_hit", .peer = "peer" },
    [EV_TURN_OPENED] = { .code = "allocation_opened",
                         .text = "user",
                         .addr = "client",
                         .a = "lifetime_s" },
    [EV_TURN_CLOSED] = { .code = "allocation_closed",
                         .text = "user",
                         .addr = "client",
                         .a = "datagrams_from_client",
                         .b = "bytes_from_client",
                         .c = "datagrams_to_client",
                         .d = "bytes_to_client",
                         .e = "duration_ms" },
    [EV_TURN_LIMITED] = { .code = "replies_limited", .addr = "source", .prefix = true },
    [EV_DRAIN_STARTED] = { .code = "drain_started",
                           .a = "seconds",
                           .b = "circuits",
                           .c = "allocations" },
    [EV_DRAIN_DONE] = { .code = "drain_done" },
    [EV_STATS] = { .code = "statistics",
                   .a = "uptime_s",
                   .b = "peers_connected",
                   .c = "peers_reserved",
                   .d = "peers_in_circuits",
                   .e = "circuits",
                   .f = "bandwidth_bytes" },
    [EV_TURN_STATS] = { .code = "turn_statistics",
                        .a = "allocations",
                        .b = "allocated",
                        .c = "datagrams_from_clients",
                        .d = "bytes_from_clients",
                        .e = "datagrams_to_clients",
                        .f = "bytes_to_clients" },
    [EV_DIG_STATS] = { .code = "dig_statistics",
                       .a = "connections",
                       .b = "registered",
                       .c = "networks",
                       .d = "messages",
                       .e = "relayed",
                       .f = "relayed_bytes" },
    [EV_RDV_REGISTERED] = { .code = "rendezvous_registered",
                            .peer = "peer",
                            .text = "namespace",
                            .a = "ttl_s" },
    [EV_RDV_SERVED] = { .code = "rendezvous_served", .peer = "peer", .a = "records" },
    [EV_DIRECTORY] = { .code = "directory", .peer = "peer" },
    [EV_CREDENTIALS] = { .code = "credentials_issued", .peer = "peer" },
};

void line_put(struct line *l, const char *text)
{
    size_t n = min_sz(strlen(text), l->cap - 1 - l->n);

    memcpy(l->p + l->n, text, n);
    l->n += n;
    l->p[l->n] = '\0';
}

void line_putf(struct line *l, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(l->p + l->n, l->cap - l->n, fmt, ap);
    va_end(ap);
    if (n > 0)
        l->n = min_sz(l->n + (size_t)n, l->cap - 1);
}

void line_safe(struct line *l, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            line_putf(l, "\\x%02x", *p);
        else
            line_put(l, (const char[]){ (char)*p, '\0' });
    }
}

void line_time(struct line *l, uint64_t unix_ms, bool with_ms)
{
    time_t s = (time_t)(unix_ms / 1000);
    struct tm tm;
    char text[64];

    if (!gmtime_r(&s, &tm))
        memset(&tm, 0, sizeof(tm));
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    line_put(l, text);
    if (with_ms)
        line_putf(l, ".%03u", (unsigned)(unix_ms % 1000));
    line_put(l, "Z");
}

bool event_is_turn(const struct event_rec *e)
{
    return e->kind == EV_TURN_OPENED || e->kind == EV_TURN_CLOSED || e->kind == EV_TURN_LIMITED;
}

bool event_shows_addr(const struct config *c, const struct event_rec *e)
{
    return e->has_addr && !c->log_mask_addresses && (c->log_level >= LOG_DEBUG || event_is_turn(e));
}

void event_addr_text(const struct event_rec *e, char out[EVENT_ADDR_MAX])
{
    if (!event_shapes[e->kind].prefix) {
        netaddr_text(&e->addr, out);
        return;
    }
    netaddr_ip_text(&e->addr, out);
    snprintf(out + strlen(out), EVENT_ADDR_MAX - strlen(out), "/%u", (unsigned)e->a);
}

/* The value of msg and reason: quoted when it holds more than a word. */
static void put_value(struct line *l, const char *text)
{
    if (text[0] && !strpbrk(text, " \"=\\\t\r\n")) {
        line_safe(l, text);
        return;
    }
    line_put(l, "\"");
    for (const char *p = text; *p; p++) {
        char one[2] = { *p, '\0' };

        if (*p == '"' || *p == '\\')
            line_put(l, "\\");
        line_safe(l, one);
    }
    line_put(l, "\"");
}

static void text_peer(struct line *l, const char *name, const struct peer_id *id)
{
    char text[PEER_TEXT_MAX];

    if (!name || !id->n)
        return;
    peer_id_text(id, text);
    line_putf(l, " %s=%s", name, text);
}

static void text_relayed(struct line *l, const struct event_rec *e)
{
    char text[NETADDR_TEXT_MAX];

    for (unsigned i = 0; i < e->relayed_n; i++) {
        netaddr_text(&e->relayed[i], text);
        line_putf(l, "%s%s", i ? "," : " relayed=", text);
    }
}

static void format_text(const struct config *c, const struct event_rec *e, struct line *l)
{
    const struct event_shape *s = &event_shapes[e->kind];
    const struct {
        const char *name;
        uint64_t v;
    } numbers[] = { { s->a, e->a }, { s->b, e->b }, { s->c, e->c },
                    { s->d, e->d }, { s->e, e->e }, { s->f, e->f } };
    char addr[EVENT_ADDR_MAX];

    line_put(l, "ts=");
    line_time(l, e->unix_ms, true);
    line_putf(l, " level=%s", config_level_name((enum log_level)e->level));
    if (e->kind == EV_TEXT) {
        line_put(l, " msg=");
        put_value(l, e->text);
        return;
    }
    line_putf(l, " event=%s", s->code);
    if (s->kind)
        line_putf(l, " kind=%s", s->kind);
    text_peer(l, s->peer, &e->peer);
    text_peer(l, s->peer2, &e->peer2);
    if (s->text) {
        line_putf(l, " %s=", s->text);
        put_value(l, e->text);
    }
    if (event_shows_addr(c, e)) {
        event_addr_text(e, addr);
        line_putf(l, " %s=%s", s->addr ? s->addr : "addr", addr);
        text_relayed(l, e);
    }
    if (s->kind)
        line_putf(l, " status=%u", e->status);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (numbers[i].name)
            line_putf(l, " %s=%" PRIu64, numbers[i].name, numbers[i].v);
    if (e->reason) {
        line_put(l, " reason=");
        put_value(l, e->reason);
    }
}

static void json_peer(struct jw *j, const char *name, const struct peer_id *id)
{
    char text[PEER_TEXT_MAX];

    if (!name || !id->n)
        return;
    peer_id_text(id, text);
    jw_kstr(j, name, text);
}

static void json_relayed(struct jw *j, const struct event_rec *e)
{
    char text[NETADDR_TEXT_MAX];

    if (!e->relayed_n)
        return;
    jw_key(j, "relayed");
    jw_open(j, '[');
    for (unsigned i = 0; i < e->relayed_n; i++) {
        netaddr_text(&e->relayed[i], text);
        jw_str(j, text);
    }
    jw_close(j, ']');
}

/* false: it did not fit; a cut object would be no JSON. */
static bool format_json(const struct config *c, const struct event_rec *e, struct line *l)
{
    const struct event_shape *s = &event_shapes[e->kind];
    const struct {
        const char *name;
        uint64_t v;
    } numbers[] = { { s->a, e->a }, { s->b, e->b }, { s->c, e->c },
                    { s->d, e->d }, { s->e, e->e }, { s->f, e->f } };
    struct jw j = jw_of(l->p, l->cap);
    char stamp[64];
    struct line when = { stamp, 0, sizeof(stamp) };
    char addr[EVENT_ADDR_MAX];

    line_time(&when, e->unix_ms, true);
    jw_open(&j, '{');
    jw_kstr(&j, "ts", stamp);
    jw_kstr(&j, "level", config_level_name((enum log_level)e->level));
    jw_kstr(&j, "event", s->code);
    if (e->kind == EV_TEXT)
        jw_kstr(&j, "msg", e->text);
    if (s->kind)
        jw_kstr(&j, "kind", s->kind);
    json_peer(&j, s->peer, &e->peer);
    json_peer(&j, s->peer2, &e->peer2);
    if (s->text)
        jw_kstr(&j, s->text, e->text);
    if (event_shows_addr(c, e)) {
        event_addr_text(e, addr);
        jw_kstr(&j, s->addr ? s->addr : "addr", addr);
        json_relayed(&j, e);
    }
    if (s->kind)
        jw_ku64(&j, "status", e->status);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (numbers[i].name)
            jw_ku64(&j, numbers[i].name, numbers[i].v);
    if (e->reason)
        jw_kstr(&j, "reason", e->reason);
    jw_close(&j, '}');
    l->n = j.bad ? 0 : j.n;
    return !j.bad;
}

size_t log_format(const struct config *c, const struct event_rec *e, char *out, size_t cap)
{
    struct line l = { out, 0, cap };

    ASSERT(cap > 0);
    ASSERT(e->kind < EV_COUNT);
    out[0] = '\0';
    if (c->log_format == LOG_JSON) {
        if (!format_json(c, e, &l)) {
            out[0] = '\0';
            line_put(&l, "{}");
        }
    } else if (c->preset == PRESET_DESCORD) {
        shape_descord(c, e, &l);
    } else if (c->preset == PRESET_DUSK) {
        shape_dusk(c, e, &l);
    } else {
        format_text(c, e, &l);
    }
    return l.n;
}

unsigned log_stats_lines(const struct config *c)
{
    return c->log_format == LOG_TEXT && c->preset == PRESET_DESCORD ? LOG_STATS_LINES : 1;
}

/* Of a server that has relayed something; the others' lines stay as they are. */
static void log_turn_stats(struct logq *q, const struct stats *sum)
{
    struct event_rec e = {
        .kind = EV_TURN_STATS,
        .level = LOG_INFO,
        .a = STAT_GET(sum, turn_allocations),
        .b = STAT_GET(sum, turn_allocated),
        .c = STAT_GET(sum, turn_client_rx),
        .d = STAT_GET(sum, turn_client_rx_bytes) + STAT_GET(sum, turn_tcp_peer_bytes),
        .e = STAT_GET(sum, turn_client_tx),
        .f = STAT_GET(sum, turn_client_tx_bytes) + STAT_GET(sum, turn_tcp_client_bytes),
    };

    if (e.b)
        log_event(q, &e);
}

/* While that door is open: nobody registered is worth knowing, too. */
static void log_dig_stats(struct logq *q, const struct ops_status *st)
{
    struct event_rec e = {
        .kind = EV_DIG_STATS,
        .level = LOG_INFO,
        .a = STAT_GET(&st->sum, dig_conns),
        .b = st->dig_registered,
        .c = st->dig_networks,
        .d = STAT_GET(&st->sum, dig_messages),
        .e = STAT_GET(&st->sum, dig_relayed) + STAT_GET(&st->sum, dig_broadcasts),
        .f = STAT_GET(&st->sum, dig_relayed_bytes),
    };

    if (st->dig_address[0])
        log_event(q, &e);
}

/* Relayed are the payload bytes of circuits, both ways (descord.md §5). */
void log_stats(struct logq *q, const struct ops_status *st)
{
    struct event_rec e = {
        .kind = EV_STATS,
        .level = LOG_INFO,
        .a = st->uptime_ms / 1000,
        .b = st->peers_connected,
        .c = st->peers_reserved,
        .d = st->peers_in_circuits,
        .e = STAT_GET(&st->sum, circuits),
        .f = STAT_GET(&st->sum, bytes_src_to_dst) + STAT_GET(&st->sum, bytes_dst_to_src),
    };

    for (e.status = 0; e.status < log_stats_lines(st->config); e.status++)
        log_event(q, &e);
    log_turn_stats(q, &st->sum);
    log_dig_stats(q, st);
}
