/* A stream of frames, whole and cut: what ws_rx tells is what a plain reader of the whole stream
 * finds, and the fast ways of masking are the plain one.
 * Input: u8 bit 0 we are the client, u8 the limit in units of 16 bytes, u8 and u8 choose the cuts,
 * then the stream. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "proto/ws.h"

/* Everything that was told, as a sum and a count; of messages only whole ones. */
struct told {
    uint64_t sum;
    unsigned count;
    uint64_t message; /* sum of the open one */
    size_t message_n;
};

static uint64_t add(uint64_t sum, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ p[i]) * UINT64_C(1099511628211);
    return sum;
}

static void tell(struct told *t, uint8_t what, unsigned code, uint64_t sum, size_t n)
{
    uint64_t all[] = { what, code, sum, n };

    t->sum = add(t->sum, (const uint8_t *)all, sizeof(all));
    t->count++;
}

/* ---- the plain reader ---------------------------------------------------------------------- */

struct plain {
    struct cur in;
    bool client;
    size_t max;
    uint8_t message; /* opcode; 0: none */
    struct utf8 utf8;
    struct told told;
    uint8_t payload[1 << 16];
};

enum { GO_ON = 0, ENOUGH = 1 }; /* of `frame`; else the code of a fault */

static unsigned control(struct plain *r, uint8_t op, struct bytes in)
{
    unsigned code = 0;

    if (op == WS_OP_CLOSE) {
        struct utf8 u = { 0 };

        if (in.n == 1)
            return WS_CODE_PROTOCOL;
        if (in.n >= 2) {
            code = (unsigned)(in.p[0] << 8 | in.p[1]);
            if (!utf8_feed_scalar(&u, in.p + 2, in.n - 2) || u.need)
                return WS_CODE_DATA;
        }
    }
    tell(&r->told, op, code, add(0, in.p, in.n), in.n);
    return op == WS_OP_CLOSE ? ENOUGH : GO_ON;
}

static unsigned data(struct plain *r, bool fin, struct bytes in, bool whole)
{
    if (r->message == WS_OP_TEXT && !utf8_feed_scalar(&r->utf8, in.p, in.n))
        return WS_CODE_DATA;
    if (!whole)
        return ENOUGH;
    r->told.message = add(r->told.message, in.p, in.n);
    if (!fin)
        return GO_ON;
    if (r->message == WS_OP_TEXT && r->utf8.need)
        return WS_CODE_DATA;
    tell(&r->told, r->message, 0, r->told.message, r->told.message_n);
    r->message = 0;
    r->told.message = 0;
    r->told.message_n = 0;
    return GO_ON;
}

static unsigned frame(struct plain *r)
{
    uint8_t first = cur_u8(&r->in), second = cur_u8(&r->in), op = first & 15;
    bool fin = first >> 7;
    uint64_t length = second & 127;
    struct bytes key = { NULL, 0 }, payload;

    if (r->in.bad)
        return ENOUGH;
    if ((first & 0x70) || (second >> 7) == r->client || (op > 2 && op < 8) || op > 10 ||
        (op >= 8 && (!fin || length > 125)) || (op == 0 && !r->message) ||
        (op > 0 && op < 3 && r->message))
        return WS_CODE_PROTOCOL;
    if (length == 126)
        length = cur_u16(&r->in);
    else if (length == 127)
        length = cur_u64(&r->in);
    if (!r->client)
        key = cur_take(&r->in, 4);
    if (r->in.bad)
        return ENOUGH;
    if (length > INT64_MAX)
        return WS_CODE_PROTOCOL;
    if (op < 8 && length > r->max - r->told.message_n)
        return WS_CODE_TOO_BIG;
    payload = cur_take(&r->in, min_sz((size_t)length, r->in.n));
    CHECK(payload.n <= sizeof(r->payload));
    for (size_t i = 0; i < payload.n; i++)
        r->payload[i] = payload.p[i] ^ (r->client ? 0 : key.p[i % 4]);
    payload.p = r->payload;
    if (op >= 8)
        return payload.n == length ? control(r, op, payload) : ENOUGH;
    if (op) {
        r->message = op;
        r->utf8 = (struct utf8){ 0 };
    }
    r->told.message_n += (size_t)length;
    return data(r, fin, payload, payload.n == length);
}

static struct told read_plainly(struct bytes in, size_t max, bool client)
{
    static struct plain r;
    unsigned end;

    r = (struct plain){ .in = cur_of(in), .client = client, .max = max };
    while ((end = frame(&r)) == GO_ON)
        ;
    if (end != ENOUGH)
        tell(&r.told, 255, end, 0, 0);
    return r.told;
}

/* ---- the machine --------------------------------------------------------------------------- */

static void hear(struct told *t, enum ws_step step, const struct ws_event *ev)
{
    uint8_t out[WS_CONTROL_MAX];

    switch (step) {
    case WS_PIECE:
        CHECK(ev->first == (t->message_n == SIZE_MAX));
        if (ev->first)
            t->message = t->message_n = 0;
        CHECK(ev->n || ev->frame_n == 0);
        t->message = add(t->message, ev->p, ev->n);
        t->message_n += ev->n;
        CHECK(t->message_n <= ev->message_n && ev->frame_n <= ev->message_n);
        CHECK(ev->last == (ev->final && t->message_n == ev->message_n));
        if (ev->last) {
            tell(t, ev->text ? WS_OP_TEXT : WS_OP_BINARY, 0, t->message, t->message_n);
            t->message_n = SIZE_MAX; /* none is open */
        }
        break;
    case WS_CLOSE:
        tell(t, WS_OP_CLOSE, ev->code, add(0, ev->p, ev->n), ev->n);
        CHECK(ws_close_reply(ev, out) == (ev->n && !ws_code_ok(ev->code) ? 2 : ev->n));
        break;
    case WS_BAD:
        tell(t, 255, ev->code, 0, 0);
        break;
    default:
        CHECK(ev->n <= WS_CONTROL_MAX);
        tell(t, step == WS_PING ? WS_OP_PING : WS_OP_PONG, 0, add(0, ev->p, ev->n), ev->n);
    }
}

/* Parts of a..b bytes. */
static struct told read_cut(struct bytes in, size_t max, bool client, size_t a, size_t b)
{
    struct told t = { .message_n = SIZE_MAX };
    enum ws_step step = WS_NEED_MORE;
    struct ws_event ev;
    struct ws_rx rx;
    size_t part = a;

    if (client)
        ws_rx_init_client(&rx, max);
    else
        ws_rx_init(&rx, max);
    while (in.n && step != WS_BAD) {
        size_t n = min_sz(part, in.n), left = n;
        uint8_t *copy = malloc(n), *p = copy;

        CHECK(copy != NULL);
        memcpy(copy, in.p, n);
        in = bytes_of(in.p + n, in.n - n);
        part = part == a ? b : a;
        while ((step = ws_next(&rx, &p, &left, &ev)) != WS_NEED_MORE) {
            CHECK(p == copy + n - left);
            hear(&t, step, &ev);
            if (step == WS_BAD)
                break;
        }
        CHECK(step != WS_BAD || ws_next(&rx, &p, &left, &ev) == WS_BAD); /* and so it stays */
        CHECK(step == WS_BAD || left == 0);
        free(copy);
    }
    return t;
}

static void masks(struct bytes in, size_t at)
{
    uint8_t a[600], b[600], key[4] = { 1, 0x80, 0xff, 0x55 };
    size_t n = min_sz(in.n, sizeof(a)), cut = min_sz(at, n);

    if (in.n >= 4)
        memcpy(key, in.p, 4);
    memcpy(a, in.p, n);
    memcpy(b, in.p, n);
    ws_mask(a, cut, key, at);
    ws_mask(a + cut, n - cut, key, at + cut);
    ws_mask_scalar(b, n, key, at);
    CHECK(memcmp(a, b, n) == 0);
}

/* What is sent is what is read. */
static void round_trip(struct bytes in, bool client, const uint8_t key[4])
{
    uint8_t *wire = malloc(WS_CLIENT_HEAD_MAX + in.n), *p = wire;
    uint8_t head[WS_HEAD_MAX];
    struct ws_event ev;
    struct ws_rx rx;
    size_t n;

    CHECK(wire != NULL);
    if (client) { /* then a server sends */
        n = ws_head_encode(wire, WS_OP_BINARY, in.n);
        ws_rx_init_client(&rx, in.n);
    } else {
        n = ws_client_head_encode(wire, WS_OP_BINARY, true, in.n, key);
        ws_rx_init(&rx, in.n);
    }
    memcpy(wire + n, in.p, in.n);
    if (!client)
        ws_mask(wire + n, in.n, key, 0);
    n += in.n;
    CHECK(ws_next(&rx, &p, &n, &ev) == WS_PIECE && ev.first && ev.last && n == 0);
    CHECK(bytes_eq(bytes_of(ev.p, ev.n), in));
    free(wire);
    CHECK(ws_head_encode(head, WS_OP_TEXT, in.n << 16) == sizeof(head));
    CHECK(head[4] == 0 && head[7] == (in.n & 255) && head[8] == 0 && head[9] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(bytes_of(data, size));
    bool client = fuzz_u8(&c) & 1;
    size_t max = (size_t)fuzz_u8(&c) * 16, a = fuzz_u8(&c) + 1u, b = fuzz_u8(&c) + 1u;
    struct bytes in = fuzz_rest(&c);
    const size_t cuts[][2] = { { SIZE_MAX, SIZE_MAX }, { 1, 1 }, { a, b }, { a, SIZE_MAX } };
    struct told want;

    if (c.bad || in.n == 0)
        return 0;
    want = read_plainly(in, max, client);
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        struct told got = read_cut(in, max, client, cuts[i][0], cuts[i][1]);

        CHECK(got.count == want.count && got.sum == want.sum);
    }
    masks(in, a);
    round_trip(in, client, data); /* the four bytes before the stream are a key as any other */
    return 0;
}
