#include "proto/ws.h"

#include "proto/cur.h"

enum state {
    AT_HEAD,
    IN_DATA,
    IN_CONTROL,
    CLOSED, /* the peer said Close: nothing after it counts (RFC 6455 §1.4) */
    FAILED,
};

enum { FIN = 0x80, RSV = 0x70, OPCODE = 0x0f, CONTROL = 0x08, MASKED = 0x80, LENGTH = 0x7f };

/* ---- masks --------------------------------------------------------------------------------- */

typedef uint64_t lane2 __attribute__((vector_size(16))); /* SSE2, NEON, or two words */
enum { BLOCK = 64 };

static void turn(uint8_t out[4], const uint8_t key[4], size_t at)
{
    for (size_t i = 0; i < 4; i++)
        out[i] = key[(at + i) & 3];
}

void ws_mask_scalar(uint8_t *p, size_t n, const uint8_t key[4], size_t at)
{
    for (size_t i = 0; i < n; i++)
        p[i] ^= key[(at + i) & 3];
}

void ws_mask(uint8_t *p, size_t n, const uint8_t key[4], size_t at)
{
    uint8_t pattern[16];
    uint64_t word;
    lane2 k;

    for (size_t i = 0; i < sizeof(pattern); i += 4)
        turn(pattern + i, key, at);
    memcpy(&k, pattern, sizeof(k));
    memcpy(&word, pattern, sizeof(word));
    for (; n >= BLOCK; p += BLOCK, n -= BLOCK) {
        lane2 a, b, c, d; /* an array of them lives in memory with gcc, at three times the cost */

        memcpy(&a, p, 16);
        memcpy(&b, p + 16, 16);
        memcpy(&c, p + 32, 16);
        memcpy(&d, p + 48, 16);
        a ^= k;
        b ^= k;
        c ^= k;
        d ^= k;
        memcpy(p, &a, 16);
        memcpy(p + 16, &b, 16);
        memcpy(p + 32, &c, 16);
        memcpy(p + 48, &d, 16);
    }
    for (; n >= sizeof(word); p += sizeof(word), n -= sizeof(word)) {
        uint64_t w;

        memcpy(&w, p, sizeof(w));
        w ^= word;
        memcpy(p, &w, sizeof(w));
    }
    ws_mask_scalar(p, n, pattern, 0); /* whole words before it leave the phase as it was */
}

/* ---- receiving ----------------------------------------------------------------------------- */

static void init(struct ws_rx *w, size_t max, bool client)
{
    ASSERT(max <= WS_MESSAGE_MAX);
    *w = (struct ws_rx){ .max = (uint32_t)max, .client = client };
}

void ws_rx_init(struct ws_rx *w, size_t max_message_bytes)
{
    init(w, max_message_bytes, false);
}

void ws_rx_init_client(struct ws_rx *w, size_t max_message_bytes)
{
    init(w, max_message_bytes, true);
}

static enum ws_step fail(struct ws_rx *w, uint16_t code, struct ws_event *ev)
{
    w->state = FAILED;
    w->code = code;
    *ev = (struct ws_event){ .code = code };
    return WS_BAD;
}

static uint8_t *take(uint8_t **p, size_t *n, size_t want)
{
    uint8_t *at = *p;

    if (want) /* NULL + 0 is undefined */
        *p += want;
    *n -= want;
    return at;
}

/* Of the first two bytes (RFC 6455 §5.2, §5.4, §5.5, §5.1). */
static bool start_ok(const struct ws_rx *w)
{
    uint8_t op = w->kept[0] & OPCODE, length = w->kept[1] & LENGTH;
    bool masked = w->kept[1] & MASKED;

    if (w->kept[0] & RSV || masked == w->client)
        return false;
    switch (op) {
    case WS_OP_CONTINUATION:
        return w->message != 0;
    case WS_OP_TEXT:
    case WS_OP_BINARY:
        return w->message == 0;
    case WS_OP_CLOSE:
    case WS_OP_PING:
    case WS_OP_PONG:
        return w->kept[0] & FIN && length <= WS_CONTROL_MAX;
    default:
        return false;
    }
}

static uint8_t head_size(const struct ws_rx *w)
{
    uint8_t length = w->kept[1] & LENGTH;
    int more = length == 126 ? 2 : length == 127 ? 8 : 0;

    return (uint8_t)(2 + more + (w->client ? 0 : 4));
}

/* Keeps up to `want` bytes; false while there are fewer. */
static bool keep(struct ws_rx *w, uint8_t **p, size_t *n, size_t want)
{
    size_t more = min_sz(want - w->kept_n, *n);

    if (more)
        memcpy(w->kept + w->kept_n, take(p, n, more), more);
    w->kept_n = (uint8_t)(w->kept_n + more);
    return w->kept_n == want;
}

/* The whole header lies in kept. A length in more bytes than it needs is taken, as the relay that
 * we stand in for takes it; one with the top bit set is none (RFC 6455 §5.2). */
static uint16_t open_frame(struct ws_rx *w)
{
    struct cur c = cur_of(bytes_of(w->kept, w->kept_n));
    uint64_t length;
    struct bytes key;
    uint8_t op;

    w->first = cur_u8(&c);
    op = w->first & OPCODE;
    length = cur_u8(&c) & LENGTH;
    if (length == 126)
        length = cur_u16(&c);
    else if (length == 127)
        length = cur_u64(&c);
    if (length >> 63)
        return WS_CODE_PROTOCOL;
    if (!w->client) {
        key = cur_take(&c, 4);
        memcpy(w->mask, key.p, 4);
    }
    ASSERT(!c.bad && c.n == 0);
    if (!(op & CONTROL)) {
        if (length > w->max - w->message_n) /* before a byte of it is kept (dig.md §3.2) */
            return WS_CODE_TOO_BIG;
        if (op != WS_OP_CONTINUATION) {
            w->message = op;
            w->begun = false;
        }
        w->message_n += (uint32_t)length;
    }
    w->left = w->frame_n = (uint32_t)length;
    w->state = op & CONTROL ? IN_CONTROL : IN_DATA;
    w->kept_n = 0;
    return 0;
}

static enum ws_step data_piece(struct ws_rx *w, uint8_t **p, size_t *n, struct ws_event *ev)
{
    size_t part = min_sz(w->left, *n);
    uint8_t *at = take(p, n, part);

    w->left -= (uint32_t)part;
    *ev = (struct ws_event){ .p = at,
                             .n = part,
                             .text = w->message == WS_OP_TEXT,
                             .first = !w->begun,
                             .last = w->first & FIN && w->left == 0,
                             .final = w->first & FIN,
                             .frame_n = w->frame_n,
                             .message_n = w->message_n };
    if (!w->client) {
        ws_mask(at, part, w->mask, 0);
        turn(w->mask, (const uint8_t[4]){ w->mask[0], w->mask[1], w->mask[2], w->mask[3] }, part);
    }
    if (ev->text && (!utf8_feed(&w->utf8, at, part) || (ev->last && !utf8_whole(&w->utf8))))
        return fail(w, WS_CODE_DATA, ev); /* at once, not at the end (RFC 6455 §8.1) */
    w->begun = true;
    if (w->left == 0)
        w->state = AT_HEAD;
    if (ev->last) {
        w->message = 0;
        w->message_n = 0;
    }
    return WS_PIECE;
}

static enum ws_step closed(struct ws_rx *w, struct ws_event *ev)
{
    struct utf8 u = { 0 };

    if (ev->n == 1) /* half a code (RFC 6455 §5.5.1) */
        return fail(w, WS_CODE_PROTOCOL, ev);
    if (ev->n) {
        if (!utf8_feed(&u, ev->p + 2, ev->n - 2) || !utf8_whole(&u))
            return fail(w, WS_CODE_DATA, ev);
        ev->code = (uint16_t)(ev->p[0] << 8 | ev->p[1]);
    }
    w->state = CLOSED;
    return WS_CLOSE;
}

static enum ws_step control(struct ws_rx *w, uint8_t **p, size_t *n, struct ws_event *ev)
{
    uint8_t *at = w->kept;
    size_t size = w->frame_n;

    if (w->kept_n == 0 && *n >= size)
        at = take(p, n, size);
    else if (!keep(w, p, n, size))
        return WS_NEED_MORE;
    ws_mask(at, size, w->mask, 0); /* a server's frame has zeroes for one */
    *ev = (struct ws_event){ .p = at, .n = size };
    w->left = 0;
    w->kept_n = 0;
    w->state = AT_HEAD;
    switch (w->first & OPCODE) {
    case WS_OP_CLOSE:
        return closed(w, ev);
    case WS_OP_PING:
        return WS_PING;
    default:
        return WS_PONG;
    }
}

enum ws_step ws_next(struct ws_rx *w, uint8_t **p, size_t *n, struct ws_event *ev)
{
    uint16_t fault;

    if (w->state == AT_HEAD) {
        if (w->kept_n < 2 && !keep(w, p, n, 2))
            return WS_NEED_MORE;
        if (!start_ok(w))
            return fail(w, WS_CODE_PROTOCOL, ev);
        if (!keep(w, p, n, head_size(w)))
            return WS_NEED_MORE;
        fault = open_frame(w);
        if (fault)
            return fail(w, fault, ev);
    }
    switch (w->state) {
    case IN_DATA:
        return w->left && *n == 0 ? WS_NEED_MORE : data_piece(w, p, n, ev);
    case IN_CONTROL:
        return control(w, p, n, ev);
    case CLOSED:
        take(p, n, *n);
        return WS_NEED_MORE;
    default:
        take(p, n, *n);
        return fail(w, w->code, ev);
    }
}

/* ---- closing ------------------------------------------------------------------------------- */

/* 1004..1006 and 1015 are reserved, or never sent (RFC 6455 §7.4.1); 1012..1014 were registered
 * since; 3000..3999 are for libraries, 4000..4999 for private use (§7.4.2). */
bool ws_code_ok(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

size_t ws_close_reply(const struct ws_event *ev, uint8_t out[WS_CONTROL_MAX])
{
    ASSERT(ev->n <= WS_CONTROL_MAX);
    if (ev->n == 0)
        return 0;
    if (!ws_code_ok(ev->code)) {
        put_u16(out, WS_CODE_PROTOCOL);
        return 2;
    }
    memmove(out, ev->p, ev->n);
    return ev->n;
}

/* ---- sending ------------------------------------------------------------------------------- */

static size_t head(uint8_t *out, uint8_t first, uint8_t mask_bit, size_t n)
{
    out[0] = first;
    if (n < 126) {
        out[1] = (uint8_t)(mask_bit | n);
        return 2;
    }
    if (n <= UINT16_MAX) {
        out[1] = mask_bit | 126;
        put_u16(out + 2, (uint16_t)n);
        return 4;
    }
    out[1] = mask_bit | 127;
    put_u64(out + 2, n);
    return 10;
}

size_t ws_head_encode(uint8_t out[WS_HEAD_MAX], enum ws_opcode op, size_t payload_n)
{
    ASSERT(!(op & CONTROL) || payload_n <= WS_CONTROL_MAX);
    return head(out, (uint8_t)(FIN | op), 0, payload_n);
}

size_t ws_client_head_encode(uint8_t out[WS_CLIENT_HEAD_MAX], enum ws_opcode op, bool fin,
                             size_t payload_n, const uint8_t key[4])
{
    size_t n = head(out, (uint8_t)((fin ? FIN : 0) | op), MASKED, payload_n);

    memcpy(out + n, key, 4);
    return n + 4;
}
