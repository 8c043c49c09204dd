/* engine/log.h: event and text lines. A thread of ours never formats or writes: it copies a fixed
 * record into its own single-producer ring, and the log thread formats (text, JSON lines, or a
 * preset's own wording: presets.md "event lines", descord.md §6, dusk.md §12) and writes to stderr.
 * A full ring drops and counts (the count is printed later); a closed or stuck terminal never stops
 * or spins anybody. Never a payload, never a key; addresses only where the event's purpose needs
 * the operator to see them, and masked when asked. At info level no line of a circuit carries the
 * address of its source. A TURN allocation's line does carry its client's, unless masked: a relay
 * to anywhere must be able to say on whose behalf it sent. */
#ifndef SLUICE_ENGINE_LOG_H
#define SLUICE_ENGINE_LOG_H

#include "engine/config.h"
#include "proto/maddr.h"
#include "proto/peer.h"

enum event {
    EV_TEXT,                 /* free text, level given */
    EV_CONN_INCOMING,        /* debug: addr, a = shard */
    EV_CONN_ESTABLISHED,     /* info (peer; addr only at debug), a = connections of ours in total */
    EV_CONN_CLOSED,          /* info: last connection of a peer gone: peer, reason, a = total */
    EV_HANDSHAKE_FAILED,     /* debug: addr, reason */
    EV_RESERVATION_ACCEPTED, /* peer, a = total reservations, b = expires in s */
    EV_RESERVATION_RENEWED,
    EV_RESERVATION_TIMEOUT,
    EV_RESERVATION_CLOSED, /* its connection went away */
    EV_RESERVATION_DENIED, /* peer, status, reason */
    EV_CIRCUIT_ACCEPTED,   /* peer = source, peer2 = target, a = circuit id, b = active circuits */
    EV_CIRCUIT_CLOSED,     /* ... b = bytes src to dst, c = bytes dst to src, d = ms, reason */
    EV_CIRCUIT_DENIED,     /* peer, peer2, status, reason */
    EV_LIMIT_HIT,          /* warn: reason, rate-limited by the caller */
    EV_TURN_OPENED,        /* text = user, addr = client, relayed, a = lifetime in s */
    EV_TURN_CLOSED,   /* ... a = datagrams and b = bytes from the client, c and d to it, e = ms,
                         reason */
    EV_TURN_LIMITED,  /* warn: addr = the source's prefix, a = its length in bits */
    EV_DRAIN_STARTED, /* a = seconds, b = circuits, c = TURN allocations */
    EV_DRAIN_DONE,
    EV_STATS,      /* a = uptime s, b = peers connected, c = with a reservation, d = in circuits,
                      e = active circuits, f = bytes relayed; status = line of a block */
    EV_TURN_STATS, /* a = allocations, b = made so far, c = datagrams and d = bytes from clients,
                      e and f to them */
    EV_DIG_STATS,  /* a = connections, b = registered, c = networks, d = messages, e = relayed, f =
                      their bytes */
    EV_RDV_REGISTERED, /* peer, text = namespace, a = ttl in s */
    EV_RDV_SERVED,     /* peer, a = records */
    EV_DIRECTORY,      /* peer, reason = register, search or remove */
    EV_CREDENTIALS,    /* peer */
    EV_COUNT,
};

struct event_rec {
    uint8_t kind;  /* enum event */
    uint8_t level; /* enum log_level */
    uint16_t status;
    bool has_addr;
    struct peer_id peer, peer2; /* n == 0: absent */
    struct netaddr addr;
    struct netaddr relayed[2];
    uint8_t relayed_n;
    uint64_t unix_ms; /* filled by log_event */
    uint64_t a, b, c, d, e, f;
    const char *reason; /* static storage only */
    char text[160];     /* EV_TEXT, EV_TURN_...: zero-terminated, cut */
};

struct log;  /* the process's log: formatter thread and sinks */
struct logq; /* one thread's ring; single producer */

struct log *log_new(const struct config *c);
/* Starts the thread (or not at all in tests, which drain by log_drain_to). */
MUST_USE int log_start(struct log *l);
void log_stop(struct log *l); /* writes what is left, bounded in time, and joins */
void log_free(struct log *l);
struct logq *log_attach(struct log *l, const char *thread_name); /* start-up only */
void log_set_level(struct log *l, enum log_level level); /* any thread; RUST_LOG words too */
enum log_level log_level_of(const struct log *l);

/* Cheap when the level is off. Fills unix_ms. Never blocks. */
void log_event(struct logq *q, const struct event_rec *e);
void log_text(struct logq *q, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The statistics block or line (descord.md §5), through the queue like any event. */
struct ops_status;
void log_stats(struct logq *q, const struct ops_status *st);

/* What a preset's operators look for when it has started: the words, the configuration (descord; at
 * level debug elsewhere), peer id and the addresses really bound. */
void log_started(struct logq *q, const struct config *c, const struct peer_id *id,
                 const struct netaddr *bound, unsigned n);

/* Tests and simulation: formats everything queued into `sink`, in order. */
void log_drain_to(struct log *l, void (*sink)(void *arg, const char *line), void *arg);
/* Pure formatter, one line without newline; returns its length (cut at cap). */
size_t log_format(const struct config *c, const struct event_rec *e, char *out, size_t cap);
/* Lines lost so far: a full ring, or a terminal that is closed or stuck. */
uint64_t log_lost(const struct log *l);
/* Where log_start writes; 2 unless a test says otherwise before it. */
void log_set_fd(struct log *l, int fd);
/* descord's block of statistics has this many lines; every other shape has one (status 0). */
enum { LOG_STATS_LINES = 7 };
unsigned log_stats_lines(const struct config *c);

#endif
