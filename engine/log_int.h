/* engine/log_int.h: inside log*.c: a line being written, cut at its end and never past it. */
#ifndef SLUICE_ENGINE_LOG_INT_H
#define SLUICE_ENGINE_LOG_INT_H

#include "engine/log.h"

struct line {
    char *p;
    size_t n, cap; /* p[n] is always the terminator */
};
void line_put(struct line *l, const char *text);
void line_putf(struct line *l, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Control characters become \xNN: a peer's text cannot start a line or colour a terminal. */
void line_safe(struct line *l, const char *text);
void line_time(struct line *l, uint64_t unix_ms, bool with_ms); /* 2024-01-15T10:30:00Z, UTC */

/* What an event is called and what its fields mean; log_text.c. */
struct event_shape {
    const char *code;         /* JSON and key=value */
    const char *peer, *peer2; /* names of the two ids, NULL: not shown */
    const char *a, *b, *c, *d, *e, *f;
    const char *kind; /* request_denied: what was asked for */
    const char *text; /* what e->text is */
    const char *addr; /* NULL: "addr" */
    bool prefix;      /* addr is a network of e->a bits */
};
extern const struct event_shape event_shapes[EV_COUNT];
/* Addresses are for debugging and for operators who did not ask for masks (log.h). */
bool event_shows_addr(const struct config *c, const struct event_rec *e);
enum { EVENT_ADDR_MAX = NETADDR_TEXT_MAX + 8 };
void event_addr_text(const struct event_rec *e, char out[EVENT_ADDR_MAX]); /* or a network */
bool event_is_turn(const struct event_rec *e);

/* log_shapes.c: the wording that two presets' operators already know. */
void shape_descord(const struct config *c, const struct event_rec *e, struct line *l);
void shape_dusk(const struct config *c, const struct event_rec *e, struct line *l);

#endif
