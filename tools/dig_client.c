#include "tools/dig_client.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <yyjson.h>

enum { HEAD_MAX = 4096, KEY_BYTES = 16, KEY_TEXT = 25 };

bool dc_failed(struct dc *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->why, sizeof(c->why), fmt, ap);
    va_end(ap);
    return false;
}

/* ---- bytes ------------------------------------------------------------------------------------
 */

static bool wait_for(int fd, short events, uint64_t until_ms)
{
    uint64_t now = tc_now_ms();
    struct pollfd p = { .fd = fd, .events = events };

    return poll(&p, 1, until_ms > now ? (int)(until_ms - now) : 0) > 0;
}

static bool put(struct dc *c, struct bytes b)
{
    while (b.n) {
        ssize_t n = send(c->tcp.fd, b.p, b.n, MSG_NOSIGNAL);

        if (n >= 0) {
            b.p += n;
            b.n -= (size_t)n;
        } else if (errno != EAGAIN && errno != EINTR) {
            return dc_failed(c, "send: %s", strerror(errno));
        } else if (!wait_for(c->tcp.fd, POLLOUT, c->tcp.deadline_ms)) {
            return dc_failed(c, "nothing can be sent in time");
        }
    }
    return true;
}

/* More of what the relay says, behind what is not looked at yet. false with c->why empty: nothing
 * in time. */
static bool fill(struct dc *c, uint64_t until_ms)
{
    ssize_t n;

    if (c->left)
        memmove(c->in, c->at, c->left);
    c->at = c->in;
    if (c->left == sizeof(c->in))
        return dc_failed(c, "its answer is too long");
    do {
        if (!wait_for(c->tcp.fd, POLLIN, until_ms))
            return false;
        n = recv(c->tcp.fd, c->in + c->left, sizeof(c->in) - c->left, 0);
    } while (n < 0 && (errno == EAGAIN || errno == EINTR));
    if (n <= 0)
        return dc_failed(c, n ? "receive: %s" : "the relay ended the connection%s",
                         n ? strerror(errno) : "");
    c->left += (size_t)n;
    return true;
}

static bool frame(struct dc *c, enum ws_opcode op, struct bytes payload)
{
    static uint8_t buf[DC_SAY_MAX + WS_CLIENT_HEAD_MAX];
    uint8_t key[4];
    size_t head;

    if (payload.n > DC_SAY_MAX)
        return dc_failed(c, "a message of %zu bytes is too long", payload.n);
    randombytes_buf(key, sizeof(key));
    head = ws_client_head_encode(buf, op, true, payload.n, key);
    if (payload.n)
        memcpy(buf + head, payload.p, payload.n);
    ws_mask(buf + head, payload.n, key, 0);
    return put(c, bytes_of(buf, head + payload.n));
}

bool dc_say(struct dc *c, struct bytes json)
{
    return frame(c, WS_OP_TEXT, json);
}

/* ---- the upgrade (RFC 6455 §4.1) --------------------------------------------------------------
 */

/* The value of Sec-WebSocket-Accept in an answer, or ours from the same writer as the relay's: what
 * is right is in ws_accept_encode's own test. */
static const char *accept_of(char *head)
{
    static const char name[] = "\r\nsec-websocket-accept:";
    char *at = strcasestr(head, name);

    if (!at)
        return "";
    at += sizeof(name) - 1;
    at += strspn(at, " \t");
    at[strcspn(at, " \t\r\n")] = '\0';
    return at;
}

static bool answer_is(struct dc *c, const char *request, size_t request_n, char *answer)
{
    char want[WS_ACCEPT_MAX + 1];
    struct http_head h;
    unsigned status = 0;

    http_head_init(&h, HTTP_HEAD_BYTES_MAX, false);
    if (http_head_decode(bytes_of(request, request_n), &h) != HTTP_HEAD_READY)
        ASSERT(false && "our own request");
    want[ws_accept_encode(&h, want)] = '\0';
    if (sscanf(answer, "HTTP/1.1 %3u ", &status) != 1)
        return dc_failed(c, "what is there does not speak HTTP");
    c->spoke = true;
    if (status != 101)
        return dc_failed(c, "the relay answers the upgrade with status %u", status);
    return strcmp(accept_of(answer), accept_of(want)) == 0 ||
           dc_failed(c, "the relay's Sec-WebSocket-Accept is another request's");
}

static bool upgrade(struct dc *c)
{
    uint8_t key[KEY_BYTES];
    char key_text[KEY_TEXT], request[512], answer[HEAD_MAX + 1], host[NETADDR_TEXT_MAX];
    char *end = NULL;

    randombytes_buf(key, sizeof(key));
    sodium_bin2base64(key_text, sizeof(key_text), key, sizeof(key), sodium_base64_VARIANT_ORIGINAL);
    netaddr_text(&c->tcp.server, host);
    int n = snprintf(request, sizeof(request),
                     "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
                     host, key_text);

    if (!put(c, bytes_of(request, (size_t)n)))
        return false;
    while (!end) {
        if (c->left > HEAD_MAX)
            return dc_failed(c, "what is there does not speak HTTP");
        if (!fill(c, c->tcp.deadline_ms))
            return c->why[0] ? false : dc_failed(c, "no answer to the upgrade in time");
        end = memmem(c->at, c->left, "\r\n\r\n", 4);
    }
    size_t head_n = (size_t)(end - (char *)c->at) + 4;

    if (head_n > HEAD_MAX)
        return dc_failed(c, "what is there does not speak HTTP");
    memcpy(answer, c->at, head_n);
    answer[head_n] = '\0';
    c->at += head_n;
    c->left -= head_n;
    return answer_is(c, request, (size_t)n, answer);
}

bool dc_open(struct dc *c, const struct netaddr *server, const struct netaddr *from,
             uint64_t deadline_ms)
{
    c->spoke = false;
    c->text = malloc(DC_TEXT_MAX);
    if (!c->text)
        return dc_failed(c, "no memory");
    if (!tc_open(&c->tcp, server, true, from, deadline_ms))
        return dc_failed(c, "%s", c->tcp.why);
    c->at = c->in;
    c->left = 0;
    ws_rx_init_client(&c->ws, DC_TEXT_MAX);
    return upgrade(c);
}

/* ---- messages ---------------------------------------------------------------------------------
 */

static bool gathered(struct dc *c, const struct ws_event *ev)
{
    if (ev->first)
        c->text_n = 0;
    ASSERT(ev->n <= DC_TEXT_MAX - c->text_n); /* the codec's limit is the same */
    if (ev->n)
        memcpy(c->text + c->text_n, ev->p, ev->n);
    c->text_n += ev->n;
    return ev->last;
}

bool dc_next(struct dc *c, uint64_t until_ms, struct bytes *text)
{
    struct ws_event ev;

    c->why[0] = '\0';
    for (;;) {
        switch (ws_next(&c->ws, &c->at, &c->left, &ev)) {
        case WS_NEED_MORE:
            if (!fill(c, until_ms))
                return false;
            break;
        case WS_PIECE:
            if (!gathered(c, &ev))
                break;
            *text = bytes_of(c->text, c->text_n);
            return true;
        case WS_PING:
            if (!frame(c, WS_OP_PONG, bytes_of(ev.p, ev.n)))
                return false;
            break;
        case WS_PONG:
            break;
        case WS_CLOSE:
            return dc_failed(c, "the relay closed with code %u", ev.code);
        case WS_BAD:
            return dc_failed(c, "the relay breaks RFC 6455 (%u)", ev.code);
        }
    }
}

bool dc_register(struct dc *c, uint64_t *connected)
{
    char buf[DIG_MESSAGE_MAX + 2 * DIG_NAME_TEXT_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    struct bytes text;

    wcur_put(&w, bytes_str("{\"type\":\"register\",\"peer_id\":"));
    dig_put_string(&w, bytes_str(c->id));
    wcur_put(&w, bytes_str(",\"network_id\":"));
    dig_put_string(&w, bytes_str(c->net));
    wcur_put(&w, bytes_str(",\"protocol_version\":1,\"listen_addrs\":[]}"));
    if (w.bad)
        return dc_failed(c, "a name that is too long");
    if (!dc_say(c, bytes_of(buf, w.wrote)))
        return false;
    if (!dc_next(c, c->tcp.deadline_ms, &text))
        return c->why[0] ? false : dc_failed(c, "no answer to the registration in time");
    yyjson_doc *doc = yyjson_read((const char *)text.p, text.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    bool ok = yyjson_equals_str(yyjson_obj_get(root, "type"), "register_ack") &&
              yyjson_get_bool(yyjson_obj_get(root, "success"));

    if (ok)
        *connected = yyjson_get_uint(yyjson_obj_get(root, "connected_peers"));
    else
        dc_failed(c, "refused: %.160s",
                  yyjson_get_str(yyjson_obj_get(root, "message"))
                      ? yyjson_get_str(yyjson_obj_get(root, "message"))
                      : "without a word");
    yyjson_doc_free(doc);
    return ok;
}

bool dc_relay(struct dc *c, struct bytes to, struct bytes payload, uint64_t seq)
{
    static uint8_t buf[DC_SAY_MAX];
    struct wcur w = wcur_of(buf, sizeof(buf));
    char number[24];

    dig_put_relay_head(&w, bytes_str(c->id));
    dig_put_string(&w, to);
    wcur_put(&w, bytes_str(DIG_RELAY_PAYLOAD "["));
    for (size_t i = 0; i < payload.n; i++) {
        snprintf(number, sizeof(number), "%s%u", i ? "," : "", payload.p[i]);
        wcur_put(&w, bytes_str(number));
    }
    snprintf(number, sizeof(number), "%llu", (unsigned long long)seq);
    wcur_put(&w, bytes_str("]" DIG_RELAY_SEQ));
    wcur_put(&w, bytes_str(number));
    wcur_put(&w, bytes_str(DIG_RELAY_END));
    if (w.bad)
        return dc_failed(c, "a message that is too long");
    return dc_say(c, bytes_of(buf, w.wrote));
}

bool dc_close(struct dc *c)
{
    static const uint8_t normal[2] = { WS_CODE_NORMAL >> 8, WS_CODE_NORMAL & 0xff };
    struct bytes text;
    bool ok = c->tcp.fd < 0 || frame(c, WS_OP_CLOSE, bytes_of(normal, sizeof(normal)));

    while (ok && c->tcp.fd >= 0 && dc_next(c, c->tcp.deadline_ms, &text))
        ; /* until its Close */
    tc_close(&c->tcp);
    free(c->text);
    c->text = NULL;
    return ok;
}
