/* tests/unit/ws_trace.h: a stream of WebSocket frames, and what a ws_rx makes of it, as one line of
 * text: T<n>:payload a text message, B<n>: a binary one, P<n>: a ping, Q<n>: a pong, C<code>:reason
 * a close, !<code> a fault; a space after each. Long or unprintable payloads are shown as a sum. A
 * message that a fault ended is not shown. Every event is checked against those before it. */
#ifndef SLUICE_TESTS_UNIT_WS_TRACE_H
#define SLUICE_TESTS_UNIT_WS_TRACE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/ws.h"
#include "tests/unit/seeded.h"

enum { TEXT = 0x81, TEXT_PART = 0x01, BINARY = 0x82, REST = 0x80, REST_PART = 0x00 };
enum { CLOSE = 0x88, PING = 0x89, PONG = 0x8a };
enum { STREAM_MAX = 1 << 19, TRACE_MAX = 4096 };

struct stream {
    uint8_t *p; /* STREAM_MAX bytes */
    size_t n;
    bool unmasked; /* a server's frames */
    struct seeded keys;
};

static inline struct stream stream_new(void)
{
    struct stream s = { .p = malloc(STREAM_MAX), .keys = { 7 } };

    cr_assert(s.p != NULL);
    return s;
}

/* The frame as RFC 6455 §5.2 draws it, written without the code under test. `length` is what the
 * header says, in `width` bytes (0: as few as it needs); n is what follows. */
static inline void frame_raw(struct stream *s, uint8_t first, uint64_t length, int width,
                             const void *payload, size_t n)
{
    uint64_t key = seeded_u64(&s->keys);
    uint8_t bit = s->unmasked ? 0 : 0x80;

    cr_assert(n + 14 <= STREAM_MAX - s->n);
    if (width == 0)
        width = length < 126 ? 1 : length < 65536 ? 2 : 8;
    s->p[s->n++] = first;
    s->p[s->n++] = (uint8_t)(bit | (width == 1 ? length : width == 2 ? 126 : 127));
    for (int i = width == 1 ? 0 : width; i > 0; i--)
        s->p[s->n++] = (uint8_t)(length >> 8 * (i - 1));
    if (!s->unmasked)
        for (int i = 0; i < 4; i++)
            s->p[s->n++] = (uint8_t)(key >> 8 * i);
    for (size_t i = 0; i < n; i++)
        s->p[s->n++] =
            (uint8_t)(((const uint8_t *)payload)[i] ^ (s->unmasked ? 0 : key >> 8 * (i % 4)));
}

static inline void frame(struct stream *s, uint8_t first, const void *payload, size_t n)
{
    frame_raw(s, first, n, 0, payload, n);
}

static inline void frame_text(struct stream *s, uint8_t first, const char *text)
{
    frame(s, first, text, strlen(text));
}

struct trace {
    struct ws_rx rx;
    char text[TRACE_MAX];
    size_t n;
    uint8_t *message;
    size_t message_n, frame_at; /* bytes of it so far; where its current frame began */
    bool open, kind_text, over, final;
    size_t frame_n;
};

static inline void trace_init(struct trace *t, size_t max, bool client)
{
    *t = (struct trace){ .message = malloc(max + 1) };
    cr_assert(t->message != NULL);
    if (client)
        ws_rx_init_client(&t->rx, max);
    else
        ws_rx_init(&t->rx, max);
}

static inline void trace_say(struct trace *t, char kind, unsigned number, const uint8_t *p,
                             size_t n)
{
    bool plain = n <= 48;
    uint32_t sum = 2166136261u;
    int wrote;

    for (size_t i = 0; i < n; i++) {
        plain = plain && p[i] > ' ' && p[i] < 0x7f;
        sum = (sum ^ p[i]) * 16777619u;
    }
    if (kind == '!' || (kind == 'C' && number == 0))
        wrote = snprintf(t->text + t->n, TRACE_MAX - t->n, "%c%u ", kind, number);
    else if (plain)
        wrote = snprintf(t->text + t->n, TRACE_MAX - t->n, "%c%u:%.*s ", kind, number, (int)n,
                         (const char *)p);
    else
        wrote = snprintf(t->text + t->n, TRACE_MAX - t->n, "%c%u#%08x ", kind, number, sum);
    cr_assert(wrote > 0 && (size_t)wrote < TRACE_MAX - t->n, "too long a trace");
    t->n += (size_t)wrote;
}

static inline void trace_piece(struct trace *t, const struct ws_event *ev)
{
    cr_assert_eq(ev->first, !t->open);
    cr_assert(ev->message_n <= t->rx.max && ev->frame_n <= ev->message_n);
    cr_assert(ev->n > 0 || ev->frame_n == 0);
    if (ev->first) {
        t->message_n = t->frame_at = 0;
        t->kind_text = ev->text;
        t->open = true;
    }
    cr_assert_eq(t->kind_text, ev->text);
    cr_assert_eq(ev->message_n, t->frame_at + ev->frame_n);
    if (ev->n)
        memcpy(t->message + t->message_n, ev->p, ev->n);
    t->message_n += ev->n;
    cr_assert_leq(t->message_n, ev->message_n);
    if (t->message_n == ev->message_n) /* the frame is whole */
        t->frame_at = t->message_n;
    cr_assert_eq(ev->last, ev->final && t->message_n == ev->message_n);
    if (ev->last) {
        trace_say(t, ev->text ? 'T' : 'B', (unsigned)t->message_n, t->message, t->message_n);
        t->open = false;
    }
}

static inline void trace_feed(struct trace *t, const uint8_t *p, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1), *at = copy; /* of that size, so that a sanitizer sees */
    struct ws_event ev;
    enum ws_step step;

    cr_assert(copy != NULL);
    memcpy(copy, p, n);
    while ((step = ws_next(&t->rx, &at, &n, &ev)) != WS_NEED_MORE) {
        if (t->over) { /* it has been said, and it is said again */
            cr_assert(step == WS_BAD);
            break;
        }
        if (step == WS_PIECE)
            trace_piece(t, &ev);
        else if (step == WS_CLOSE)
            trace_say(t, 'C', ev.code, ev.n ? ev.p + 2 : ev.p, ev.n ? ev.n - 2 : 0);
        else if (step == WS_BAD)
            trace_say(t, '!', ev.code, NULL, 0);
        else
            trace_say(t, step == WS_PING ? 'P' : 'Q', (unsigned)ev.n, ev.p, ev.n);
        t->over = step == WS_BAD;
        if (t->over)
            break;
    }
    if (step == WS_NEED_MORE)
        cr_assert_eq(n, 0u, "input was left");
    free(copy);
}

/* The trace of a stream cut at `a`, and then into parts of `part` bytes (0: none). */
static inline const char *trace_of(const struct stream *s, size_t max, size_t a, size_t part)
{
    static char text[TRACE_MAX];
    struct trace t;

    trace_init(&t, max, s->unmasked);
    trace_feed(&t, s->p, a);
    for (size_t at = a; at < s->n;) {
        size_t n = part && part < s->n - at ? part : s->n - at;

        trace_feed(&t, s->p + at, n);
        at += n;
    }
    memcpy(text, t.text, sizeof(text));
    free(t.message);
    return text;
}

/* Whole, in every split in two (of long streams: every one near a frame's head and some others), in
 * parts of one byte and of a few: always the same. */
static inline void expect_trace_max(const struct stream *s, size_t max, const char *want)
{
    static const size_t parts[] = { 1, 2, 3, 5, 64, 997 };
    size_t step = s->n > 2000 ? s->n / 97 : 1;

    cr_expect_str_eq(trace_of(s, max, s->n, 0), want);
    for (size_t a = 0; a < s->n; a += a < 32 || s->n - a < 32 ? 1 : step)
        cr_assert_str_eq(trace_of(s, max, a, 0), want, "cut at %zu", a);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        cr_assert_str_eq(trace_of(s, max, 0, parts[i]), want, "in parts of %zu", parts[i]);
}

/* Ends the stream. */
static inline void expect_trace(struct stream *s, const char *want)
{
    expect_trace_max(s, 262144, want);
    free(s->p);
    s->p = NULL;
}

#endif
