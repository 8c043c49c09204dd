/* tools/load_dig_flow.c: numbered messages: relay_message to the other of a pair, broadcast to a
 * network, ping and get_peers to the relay. Payloads are permutations of the same bytes, so that
 * all frames are equally long and only their numbers are written while the load runs. */
#include "tools/load_dig.h"

#include <stdlib.h>
#include <sys/uio.h>

enum { BATCH = 64 };

static const uint8_t key[4] = { 0xa7, 0x1d, 0x4e, 0xb2 };
static struct {
    char *plain; /* as JSON */
    uint8_t *masked;
} pool[LD_POOL];
static size_t payload_n; /* of the JSON; 0: the message has none */
static char tail_text[LD_TAIL_MAX];
static size_t tail_n, digits_at; /* in the tail; SIZE_MAX: no number in it */
static uint16_t *delivered;      /* of a broadcast, [senders][window] */

struct load_hist ld_latency;
bool ld_measuring, ld_stopping;

static uint64_t random_next(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static size_t pool_text(char *out, const uint8_t *byte)
{
    size_t n = 0;

    out[n++] = '[';
    for (unsigned i = 0; i < ld_opt.size; i++)
        n += (size_t)sprintf(out + n, "%s%u", i ? "," : "", byte[i]);
    out[n++] = ']';
    return n;
}

static void pool_init(void)
{
    uint64_t s = ld_opt.seed;
    uint8_t *byte = malloc(ld_opt.size + 1u);

    ASSERT(byte);
    for (unsigned i = 0; i < ld_opt.size; i++)
        byte[i] = (uint8_t)random_next(&s);
    for (unsigned k = 0; k < LD_POOL; k++) {
        for (unsigned i = ld_opt.size; i > 1; i--) {
            unsigned j = (unsigned)(random_next(&s) % i);
            uint8_t t = byte[i - 1];

            byte[i - 1] = byte[j];
            byte[j] = t;
        }
        pool[k].plain = malloc(4u * ld_opt.size + 3u);
        pool[k].masked = malloc(4u * ld_opt.size + 3u);
        ASSERT(pool[k].plain && pool[k].masked);
        payload_n = pool_text(pool[k].plain, byte);
        memcpy(pool[k].masked, pool[k].plain, payload_n);
    }
    free(byte);
}

static const char *payload_of(const struct ld_conn *from, uint64_t number)
{
    return pool[(number + from->id) % LD_POOL].plain;
}

void ld_flow_init(void)
{
    bool bodies = ld_opt.mode == LD_RELAY || ld_opt.mode == LD_BROADCAST;
    static const char *const tail[] = { [LD_RELAY] = ",\"seq\":@}",
                                        [LD_BROADCAST] = ",\"exclude\":[]}",
                                        [LD_PING] = "@}",
                                        [LD_PEERS] = "" };
    const char *at = strchr(tail[ld_opt.mode], '@');

    if (bodies)
        pool_init();
    digits_at = at ? (size_t)(at - tail[ld_opt.mode]) : SIZE_MAX;
    tail_n = (size_t)sprintf(tail_text, at ? "%.*s0000000000000000}" : "%.*s",
                             at ? (int)digits_at : LD_TAIL_MAX - 1, tail[ld_opt.mode]);
    if (ld_opt.mode == LD_BROADCAST) {
        delivered = calloc((size_t)ld_senders() * ld_opt.window, sizeof(*delivered));
        ASSERT(delivered);
    }
}

/* What a connection sends, and how the relay begins it for others. */
void ld_flow_of(struct ld_conn *c)
{
    char me[LD_ID], to[LD_ID], text[LD_HEAD_MAX];
    uint8_t ws[WS_CLIENT_HEAD_MAX];
    int n = 0;

    ld_id(c->id, me);
    ld_id(c->id ^ 1, to);
    switch (ld_opt.mode) {
    case LD_RELAY: /* `from` is the relay's business (dig.md §5.4) */
        n = sprintf(text,
                    "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"%.64s\",\"payload\":", to);
        c->want_n = (size_t)sprintf(
            c->want, "{\"type\":\"relay_message\",\"from\":\"%.*s\",\"to\":\"%.64s\",\"payload\":",
            ld_opt.null ? 1 : LD_ID, ld_opt.null ? "x" : me, to);
        break;
    case LD_BROADCAST:
        n = sprintf(text, "{\"type\":\"broadcast\",\"from\":\"x\",\"payload\":");
        c->want_n =
            (size_t)sprintf(c->want, "{\"type\":\"broadcast\",\"from\":\"%.64s\",\"payload\":", me);
        break;
    case LD_PING:
        n = sprintf(text, "{\"type\":\"ping\",\"timestamp\":");
        c->want_n = (size_t)sprintf(c->want, "{\"type\":\"pong\",\"timestamp\":");
        break;
    default:
        n = sprintf(text, "{\"type\":\"get_peers\"}");
        c->want_n = (size_t)sprintf(c->want, "{\"type\":\"peers\",\"peers\":[");
        break;
    }
    c->ws_head_n = ws_client_head_encode(ws, WS_OP_TEXT, true, (size_t)n + payload_n + tail_n, key);
    ASSERT(c->ws_head_n + (size_t)n <= sizeof(c->head));
    memcpy(c->head, ws, c->ws_head_n);
    memcpy(c->head + c->ws_head_n, text, (size_t)n);
    c->head_n = c->ws_head_n + (size_t)n;
    ws_mask(c->head + c->ws_head_n, (size_t)n, key, 0);
    if (payload_n && c->id == 0) /* where payloads lie in the mask is the same for all */
        for (unsigned k = 0; k < LD_POOL; k++)
            ws_mask(pool[k].masked, payload_n, key, (size_t)n);
    c->due_ns = calloc(ld_opt.window, sizeof(*c->due_ns));
    ASSERT(c->due_ns);
}

static void put_digits(uint8_t *at, uint64_t v)
{
    for (int i = LD_DIGITS - 1; i >= 0; i--, v /= 10)
        at[i] = (uint8_t)('0' + v % 10);
}

static void tail_write(const struct ld_conn *c, uint8_t *out, uint64_t number)
{
    memcpy(out, tail_text, tail_n);
    if (digits_at != SIZE_MAX)
        put_digits(out + digits_at, LD_BASE + number);
    ws_mask(out, tail_n, key, c->head_n - c->ws_head_n + payload_n);
}

size_t ld_flow_write(struct ld_conn *c)
{
    static uint8_t tails[BATCH][LD_TAIL_MAX];
    struct iovec iov[3 * BATCH];
    size_t n = 0, k = 0, skip = c->off, frame = c->head_n + payload_n + tail_n;

    for (uint64_t number = c->sent; number < c->allowed && k < BATCH; number++, k++) {
        struct iovec part[3] = { { c->head, c->head_n },
                                 { pool[(number + c->id) % LD_POOL].masked, payload_n },
                                 { tails[k], tail_n } };

        tail_write(c, tails[k], number);
        for (size_t i = 0; i < 3; i++) {
            size_t gone = min_sz(skip, part[i].iov_len);

            skip -= gone;
            if (part[i].iov_len == gone)
                continue;
            iov[n++] = (struct iovec){ (uint8_t *)part[i].iov_base + gone, part[i].iov_len - gone };
        }
    }
    ssize_t rc = ld_writev(c, iov, n);

    if (rc <= 0)
        return 0;
    c->off += (size_t)rc;
    ld_totals.sent += c->off / frame;
    c->sent += c->off / frame;
    c->off %= frame;
    return (size_t)rc;
}

unsigned ld_senders(void)
{
    switch (ld_opt.mode) {
    case LD_PEERS:
        return ld_opt.requesters;
    case LD_BROADCAST:
        return 1;
    default:
        return ld_opt.conns;
    }
}

void ld_allow(struct ld_conn *c, uint64_t due_ns)
{
    c->due_ns[c->allowed++ % ld_opt.window] = due_ns;
    ld_dirty(c);
}

/* ---- what arrives ------------------------------------------------------------------------------
 */

static bool digits_of(const uint8_t *p, uint64_t *number)
{
    uint64_t v = 0;

    for (int i = 0; i < LD_DIGITS; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    *number = v - LD_BASE;
    return v >= LD_BASE;
}

static void arrived(struct ld_conn *from, uint64_t number, size_t bytes)
{
    ld_totals.received++;
    ld_totals.bytes += bytes;
    if (ld_measuring)
        load_hist_add(&ld_latency, load_now_ns() - from->due_ns[number % ld_opt.window]);
    if (!ld_opt.rate && !ld_stopping)
        ld_allow(from, load_now_ns());
}

/* To `to`, in order: what was left out is counted, and what comes a second time. */
static bool in_order(struct ld_conn *to, uint64_t number)
{
    if (number < to->expect) {
        ld_totals.doubles++;
        return false;
    }
    ld_totals.gaps += number - to->expect;
    to->expect = number + 1;
    return true;
}

static bool is_payload(const struct ld_conn *from, const uint8_t *p, uint64_t number)
{
    return memcmp(p, payload_of(from, number), payload_n) == 0;
}

static void on_relayed(struct ld_conn *c, struct bytes text)
{
    struct ld_conn *from = &ld_conns[c->id ^ 1];
    const uint8_t *p = text.p + from->want_n, *tail = p + payload_n;
    uint64_t number;

    if (text.n != from->want_n + payload_n + tail_n ||
        memcmp(text.p, from->want, from->want_n) != 0 || !digits_of(tail + digits_at, &number) ||
        memcmp(tail, tail_text, digits_at) != 0 || tail[tail_n - 1] != '}' ||
        number >= from->allowed || !is_payload(from, p, number)) {
        ld_totals.mismatches++;
        return;
    }
    if (in_order(c, number))
        arrived(from, number, ld_opt.size);
}

static void on_broadcast(struct ld_conn *c, struct bytes text)
{
    struct ld_conn *from = &ld_conns[0];
    uint64_t number = c->expect;

    if (text.n != from->want_n + payload_n + tail_n || c == from || number >= from->allowed ||
        memcmp(text.p, from->want, from->want_n) != 0 ||
        !is_payload(from, text.p + from->want_n, number) ||
        memcmp(text.p + from->want_n + payload_n, tail_text, tail_n) != 0) {
        ld_totals.mismatches++;
        return;
    }
    uint16_t *count = &delivered[number % ld_opt.window];

    c->expect++;
    ld_totals.relayed++;
    if (++*count == ld_members(0, ld_opt.conns) - 1) {
        *count = 0;
        arrived(from, number, ld_opt.size);
    }
}

static void on_pong(struct ld_conn *c, struct bytes text)
{
    uint64_t number;

    if (text.n != c->want_n + tail_n || memcmp(text.p, c->want, c->want_n) != 0 ||
        !digits_of(text.p + c->want_n, &number) || number >= c->allowed)
        ld_totals.mismatches++;
    else if (in_order(c, number))
        arrived(c, number, 0);
}

/* The whole network, or as many of it as a list may have, in order of their ids. */
static void on_peers(struct ld_conn *c, struct bytes text)
{
    static const char mark[] = "{\"peer_id\":\"";
    unsigned members = ld_members(ld_network(c), ld_opt.conns), id, last = 0, n = 0;
    const uint8_t *p = text.p, *end = text.p + text.n;
    bool ok = text.n > c->want_n && memcmp(p, c->want, c->want_n) == 0;

    while (ok && (p = memmem(p, (size_t)(end - p), mark, sizeof(mark) - 1))) {
        p += sizeof(mark) - 1;
        ok = (size_t)(end - p) > LD_ID && ld_id_of((const char *)p, &id) && (!n || id > last);
        last = id;
        n++;
    }
    if (!ok || n != min_sz(members, LD_LIST_MAX) || c->expect >= c->allowed) {
        ld_totals.mismatches++;
        return;
    }
    arrived(c, c->expect++, text.n);
}

/* Who has come: each once. */
static void on_news(struct ld_conn *c, struct bytes text)
{
    static const char mark[] = "{\"type\":\"peer_connected\",\"peer\":{\"peer_id\":\"";
    unsigned id;

    if (text.n < sizeof(mark) + LD_ID || !ld_id_of((const char *)text.p + sizeof(mark) - 1, &id) ||
        id == c->id || ld_network(&ld_conns[id]) != ld_network(c)) {
        ld_totals.mismatches++;
        return;
    }
    if (!c->seen) {
        c->seen = calloc(1, ld_opt.per_network / 8 + 1u);
        ASSERT(c->seen);
    }
    unsigned bit = id % ld_opt.per_network;

    if (c->seen[bit / 8] & (1u << bit % 8))
        ld_totals.doubles++;
    c->seen[bit / 8] |= (uint8_t)(1u << bit % 8);
    c->seen_news++;
    ld_totals.news++;
}

static bool is(struct bytes text, const char *type)
{
    size_t n = strlen(type);

    return text.n > 9 + n && memcmp(text.p, "{\"type\":\"", 9) == 0 &&
           memcmp(text.p + 9, type, n) == 0 && text.p[9 + n] == '"';
}

void ld_on_message(struct ld_conn *c, struct bytes text)
{
    if (is(text, "relay_message") && ld_opt.mode == LD_RELAY)
        on_relayed(c, text);
    else if (is(text, "broadcast") && ld_opt.mode == LD_BROADCAST)
        on_broadcast(c, text);
    else if (is(text, "pong") && ld_opt.mode == LD_PING)
        on_pong(c, text);
    else if (is(text, "peers") && ld_opt.mode == LD_PEERS)
        on_peers(c, text);
    else if (is(text, "peer_connected"))
        on_news(c, text);
    else if (is(text, "error"))
        ld_totals.errors++;
    else if (!is(text, "get_dht_records") && !is(text, "peer_disconnected"))
        ld_totals.mismatches++;
}
