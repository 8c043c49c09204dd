/* engine/log_shapes.c: events in the wording of two other relays, so that what their operators grep
 * for is still there (presets.md "event lines"). */
#include "engine/log_int.h"

#include <inttypes.h>
#include <stdio.h>

static void put_peer(struct line *l, const struct peer_id *id)
{
    char text[PEER_TEXT_MAX] = "unknown";

    if (id->n)
        peer_id_text(id, text);
    line_put(l, text);
}

static void put_addr(const struct config *c, const struct event_rec *e, struct line *l)
{
    const char *name = event_shapes[e->kind].addr;
    char text[EVENT_ADDR_MAX];

    if (!event_shows_addr(c, e))
        return;
    event_addr_text(e, text);
    line_putf(l, " %s=%s", name ? name : "addr", text);
    for (unsigned i = 0; i < e->relayed_n; i++) {
        netaddr_text(&e->relayed[i], text);
        line_putf(l, "%s%s", i ? "," : " relayed=", text);
    }
}

static void put_reason(const struct event_rec *e, struct line *l)
{
    if (e->reason) {
        line_put(l, " reason=");
        line_safe(l, e->reason);
    }
}

/* ---- descord.md §6 ------------------------------------------------------------------------- */

static const char *const descord_heads[EV_COUNT] = {
    [EV_CONN_INCOMING] = "📥 Incoming connection",
    [EV_CONN_ESTABLISHED] = "🔗 Connection established",
    [EV_CONN_CLOSED] = "❌ Connection closed",
    [EV_HANDSHAKE_FAILED] = "❌ Handshake failed",
    [EV_RESERVATION_ACCEPTED] = "✅ Reservation Accepted",
    [EV_RESERVATION_RENEWED] = "🔄 Reservation Renewed",
    [EV_RESERVATION_TIMEOUT] = "⏰ Reservation Timeout",
    [EV_RESERVATION_CLOSED] = "🔒 Reservation closed",
    [EV_RESERVATION_DENIED] = "⛔ Request Denied",
    [EV_CIRCUIT_ACCEPTED] = "🔀 Circuit Accepted",
    [EV_CIRCUIT_CLOSED] = "🔌 Circuit Closed",
    [EV_CIRCUIT_DENIED] = "⛔ Request Denied",
    [EV_LIMIT_HIT] = "⚠ Limit hit",
    [EV_TURN_OPENED] = "📡 Allocation Opened",
    [EV_TURN_CLOSED] = "📡 Allocation Closed",
    [EV_TURN_LIMITED] = "⚠ Replies limited",
    [EV_TURN_STATS] = "📡 TURN",
    [EV_DIG_STATS] = "📡 DIG",
    [EV_RDV_REGISTERED] = "📇 Rendezvous Registration",
    [EV_RDV_SERVED] = "📇 Discover Served",
    [EV_DIRECTORY] = "📇 Directory",
    [EV_CREDENTIALS] = "📇 Credentials Issued",
    [EV_DRAIN_STARTED] = "🛑 Graceful shutdown",
    [EV_DRAIN_DONE] = "🛑 Drained",
};

/* descord.md §5: upstream printed connected peers under the name of those with reservations; both
 * are told. */
static void descord_stats(const struct event_rec *e, struct line *l)
{
    uint64_t tenths = e->f / (1048576 / 10);

    switch (e->status) {
    case 0:
        line_put(l, "📊 Relay Statistics:");
        break;
    case 1:
        line_putf(l, "   Uptime: %" PRIu64 "h %" PRIu64 "m %" PRIu64 "s", e->a / 3600,
                  e->a / 60 % 60, e->a % 60);
        break;
    case 2:
        line_putf(l, "   Connected peers: %" PRIu64, e->b);
        break;
    case 3:
        line_putf(l, "   Peers with reservations: %" PRIu64, e->c);
        break;
    case 4:
        line_putf(l, "   Peers with circuits: %" PRIu64, e->d);
        break;
    case 5:
        line_putf(l, "   Active circuits: %" PRIu64, e->e);
        break;
    default:
        line_putf(l, "   Total bandwidth: %" PRIu64 ".%" PRIu64 " MB", tenths / 10, tenths % 10);
        break;
    }
}

void shape_descord(const struct config *c, const struct event_rec *e, struct line *l)
{
    static const char *const levels[] = { "ERROR", " WARN", " INFO", "DEBUG", "TRACE" };
    const struct event_shape *s = &event_shapes[e->kind];

    line_time(l, e->unix_ms, true);
    line_putf(l, " %s ", levels[e->level]);
    if (e->kind == EV_TEXT) {
        line_safe(l, e->text);
        return;
    }
    if (e->kind == EV_STATS) {
        descord_stats(e, l);
        return;
    }
    line_putf(l, "%s:", descord_heads[e->kind]);
    if (s->kind)
        line_putf(l, " %s", s->kind);
    if (s->peer && (e->peer.n || s->peer2)) {
        line_put(l, " ");
        put_peer(l, &e->peer);
    }
    if (s->peer2) {
        line_put(l, " → ");
        put_peer(l, &e->peer2);
    }
    if (s->text) {
        line_putf(l, " %s ", s->text);
        line_safe(l, e->text);
    }
    put_addr(c, e, l);
    if (s->kind)
        line_putf(l, " status=%u", e->status);
    if (s->a)
        line_putf(l, " %s=%" PRIu64, s->a, e->a);
    if (s->b)
        line_putf(l, " %s=%" PRIu64, s->b, e->b);
    if (s->c)
        line_putf(l, " %s=%" PRIu64, s->c, e->c);
    if (s->d)
        line_putf(l, " %s=%" PRIu64, s->d, e->d);
    if (s->e)
        line_putf(l, " %s=%" PRIu64, s->e, e->e);
    if (s->f)
        line_putf(l, " %s=%" PRIu64, s->f, e->f);
    put_reason(e, l);
}

/* ---- dusk.md §12 --------------------------------------------------------------------------- */

static void dusk_one_peer(const struct event_rec *e, const char *what, struct line *l)
{
    line_putf(l, "%s ", what);
    put_peer(l, &e->peer);
    line_putf(l, " (total: %" PRIu64 ")", e->a);
}

static void dusk_pair(const struct event_rec *e, const char *what, struct line *l)
{
    line_putf(l, "%s: ", what);
    put_peer(l, &e->peer);
    line_put(l, " -> ");
    put_peer(l, &e->peer2);
}

/* dusk.md §12: "TURN allocation made/deleted" at info; the words between are ours. */
static void dusk_turn(const struct event_rec *e, struct line *l)
{
    if (e->kind == EV_TURN_LIMITED) {
        line_put(l, "TURN replies limited");
        return;
    }
    line_putf(l, "TURN allocation %s for user ", e->kind == EV_TURN_OPENED ? "made" : "deleted");
    line_safe(l, e->text);
    if (e->kind == EV_TURN_OPENED)
        line_putf(l, " (%" PRIu64 " s)", e->a);
    else
        line_putf(l,
                  " (%" PRIu64 " + %" PRIu64 " datagrams, %" PRIu64 " + %" PRIu64 " bytes, %" PRIu64
                  " ms)",
                  e->a, e->c, e->b, e->d, e->e);
}

/* What is asked of its services; namespaces are text of peers. */
static void dusk_service(const struct event_rec *e, struct line *l)
{
    switch ((enum event)e->kind) {
    case EV_RDV_REGISTERED:
        line_put(l, "rendezvous registration: peer ");
        put_peer(l, &e->peer);
        line_put(l, " in namespace ");
        line_safe(l, e->text);
        line_putf(l, " (ttl %" PRIu64 " s)", e->a);
        return;
    case EV_RDV_SERVED:
        line_putf(l, "discover served: %" PRIu64 " registrations to ", e->a);
        break;
    case EV_DIRECTORY:
        line_putf(l, "directory %s: ", e->reason ? e->reason : "request");
        break;
    default:
        line_put(l, "turn credentials issued: ");
        break;
    }
    put_peer(l, &e->peer);
}

static void dusk_words(const struct event_rec *e, struct line *l)
{
    const char *reason = e->reason ? e->reason : "closed";

    switch ((enum event)e->kind) {
    case EV_TEXT:
        line_safe(l, e->text);
        break;
    case EV_CONN_INCOMING:
        line_put(l, "incoming connection");
        break;
    case EV_CONN_ESTABLISHED:
    case EV_CONN_CLOSED:
        line_put(l, e->kind == EV_CONN_CLOSED ? "peer disconnected: " : "peer connected: ");
        put_peer(l, &e->peer);
        line_putf(l, " (total connections: %" PRIu64 ")", e->a);
        break;
    case EV_HANDSHAKE_FAILED:
        line_put(l, "handshake failed");
        break;
    case EV_RESERVATION_ACCEPTED:
        dusk_one_peer(e, "relay reservation accepted for peer", l);
        break;
    case EV_RESERVATION_RENEWED:
        dusk_one_peer(e, "relay reservation renewed for peer", l);
        break;
    case EV_RESERVATION_TIMEOUT:
        dusk_one_peer(e, "relay reservation expired for peer", l);
        break;
    case EV_RESERVATION_CLOSED:
        dusk_one_peer(e, "relay reservation closed for peer", l);
        break;
    case EV_RESERVATION_DENIED:
        line_put(l, "relay reservation denied for peer ");
        put_peer(l, &e->peer);
        line_putf(l, " (status %u)", e->status);
        break;
    case EV_CIRCUIT_ACCEPTED:
        dusk_pair(e, "circuit opened", l);
        line_put(l, " (through relay)");
        break;
    case EV_CIRCUIT_CLOSED:
        dusk_pair(e, "circuit closed", l);
        line_putf(l, " (%s, %" PRIu64 " + %" PRIu64 " bytes, %" PRIu64 " ms)", reason, e->b, e->c,
                  e->d);
        break;
    case EV_CIRCUIT_DENIED:
        dusk_pair(e, "circuit denied", l);
        line_putf(l, " (status %u)", e->status);
        break;
    case EV_LIMIT_HIT:
        line_put(l, "capacity reached");
        break;
    case EV_TURN_OPENED:
    case EV_TURN_CLOSED:
    case EV_TURN_LIMITED:
        dusk_turn(e, l);
        break;
    case EV_DRAIN_STARTED:
        line_putf(l, "draining for %" PRIu64 " s: %" PRIu64 " circuits", e->a, e->b);
        if (e->c)
            line_putf(l, ", %" PRIu64 " TURN allocations", e->c);
        break;
    case EV_DRAIN_DONE:
        line_put(l, "drained");
        break;
    case EV_STATS:
        line_putf(l,
                  "up %" PRIu64 " s, %" PRIu64 " peers connected, %" PRIu64
                  " with a reservation, %" PRIu64 " circuits, %" PRIu64 " bytes relayed",
                  e->a, e->b, e->c, e->e, e->f);
        break;
    case EV_TURN_STATS:
        line_putf(l,
                  "%" PRIu64 " TURN allocations, %" PRIu64 " made so far, %" PRIu64 " + %" PRIu64
                  " datagrams, %" PRIu64 " + %" PRIu64 " bytes",
                  e->a, e->b, e->c, e->e, e->d, e->f);
        break;
    case EV_DIG_STATS:
        line_putf(l,
                  "%" PRIu64 " DIG nodes in %" PRIu64 " networks, %" PRIu64 " connections, %" PRIu64
                  " messages, %" PRIu64 " relayed with %" PRIu64 " bytes",
                  e->b, e->c, e->a, e->d, e->e, e->f);
        break;
    case EV_RDV_REGISTERED:
    case EV_RDV_SERVED:
    case EV_DIRECTORY:
    case EV_CREDENTIALS:
        dusk_service(e, l);
        break;
    case EV_COUNT:
        break;
    }
}

/* env_logger's line. dusk.md §12 shows the level padded to five; presets.md settles on one space
 * after it. */
void shape_dusk(const struct config *c, const struct event_rec *e, struct line *l)
{
    static const char *const levels[] = { "ERROR", "WARN", "INFO", "DEBUG", "TRACE" };

    line_put(l, "[");
    line_time(l, e->unix_ms, false);
    line_putf(l, " %s dusk_relay] ", levels[e->level]);
    dusk_words(e, l);
    put_addr(c, e, l);
    if (e->kind != EV_CIRCUIT_CLOSED && e->kind != EV_DIRECTORY)
        put_reason(e, l);
}

/* ---- the start ----------------------------------------------------------------------------- */

struct starting {
    struct logq *q;
    enum log_level level;
};

static void say_setting(void *arg, const char *text)
{
    const struct starting *s = arg;

    log_text(s->q, s->level, "config: %s", text);
}

void log_started(struct logq *q, const struct config *c, const struct peer_id *id,
                 const struct netaddr *bound, unsigned n)
{
    struct starting s = { q, c->preset == PRESET_DESCORD ? LOG_INFO : LOG_DEBUG };
    bool descord = c->preset == PRESET_DESCORD;
    char text[PEER_TEXT_MAX], addr[MADDR_TEXT_MAX];
    struct maddr m;

    if (descord)
        log_text(q, LOG_INFO, "🚀 Relay server starting (sluice %s)", SLUICE_VERSION);
    else
        log_text(q, LOG_INFO, "%s starting",
                 c->preset == PRESET_DUSK ? "dusk relay server" : "sluice");
    config_dump(c, say_setting, &s);
    peer_id_text(id, text);
    log_text(q, LOG_INFO, "%s: %s", descord ? "🆔 Peer ID" : "peer id", text);
    for (unsigned i = 0; i < n; i++) {
        maddr_from_tcp(&bound[i], &m);
        if (maddr_text(maddr_bytes(&m), addr, sizeof(addr)))
            log_text(q, LOG_INFO, "%s %s", descord ? "🎧 Listening on" : "listening on", addr);
    }
}
