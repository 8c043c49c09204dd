/* tools/load_dig_conn.c: connections: TCP, TLS if so wanted, the upgrade, registration; whole
 * messages in, bytes out. */
#include "tools/load_dig.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

enum { RECV_BYTES = 256 * 1024, EVENTS = 256, SAY_MAX = 1024, TLS_PART = 16384 };

struct ld_conn *ld_conns;
struct ld_totals ld_totals;
unsigned ld_ready, ld_opening;

static int ep;
static uint8_t *scratch;
static struct ld_conn *dirty;
static WOLFSSL_CTX *tls_ctx;

void ld_die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "load-dig: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    exit(1);
}

void ld_progress(const char *fmt, ...)
{
    static uint64_t last;
    uint64_t now = load_now_ns();
    va_list ap;

    if (ld_opt.quiet || now - last < 1000000000)
        return;
    last = now;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
}

/* ---- names -------------------------------------------------------------------------------------
 */

/* 56 digits of the seed, then the connection's number: what the sorted order of a list is, too. */
void ld_id(unsigned id, char out[LD_ID])
{
    char text[LD_ID + 1];

    for (unsigned i = 0; i < 7; i++)
        snprintf(text + i * 8, 9, "%08x", (unsigned)((ld_opt.seed + i) * 2654435761u));
    snprintf(text + 56, 9, "%08x", id);
    memcpy(out, text, LD_ID);
}

bool ld_id_of(const char *text, unsigned *id)
{
    char want[LD_ID], number[9] = { 0 };

    memcpy(number, text + 56, 8);
    *id = (unsigned)strtoul(number, NULL, 16);
    ld_id(*id, want);
    return *id < ld_opt.conns && memcmp(want, text, LD_ID) == 0;
}

unsigned ld_network(const struct ld_conn *c)
{
    return c->id / ld_opt.per_network;
}

unsigned ld_members(unsigned network, unsigned conns)
{
    unsigned before = network * ld_opt.per_network;

    return before >= conns ? 0 : (unsigned)min_sz(conns - before, ld_opt.per_network);
}

/* ---- bytes out ---------------------------------------------------------------------------------
 */

void ld_dirty(struct ld_conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = dirty;
    dirty = c;
}

static void watch(struct ld_conn *c, bool out)
{
    struct epoll_event ev = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };

    if (c->waits_out != out && epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev) < 0)
        ld_die("epoll_ctl: %s", strerror(errno));
    c->waits_out = out;
}

static void lose(struct ld_conn *c, const char *why)
{
    if (c->state == LD_CLOSED)
        return;
    if (c->state != LD_READY)
        ld_opening--;
    else
        ld_ready--;
    ld_totals.failed++;
    if (!ld_opt.quiet || ld_totals.failed == 1)
        fprintf(stderr, "load-dig: connection %u: %s\n", c->id, why);
    c->state = LD_CLOSED;
    close(c->fd);
    c->fd = -1;
    if (c->ssl)
        wolfSSL_free(c->ssl);
    c->ssl = NULL;
}

static bool tls_again(struct ld_conn *c, int rc)
{
    int e = wolfSSL_get_error(c->ssl, rc);

    return e == WOLFSSL_ERROR_WANT_READ || e == WOLFSSL_ERROR_WANT_WRITE;
}

ssize_t ld_writev(struct ld_conn *c, struct iovec *iov, size_t n)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
    static uint8_t flat[TLS_PART];
    size_t total = 0;
    ssize_t rc;

    if (!c->ssl) {
        rc = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (rc < 0 && errno != EAGAIN && errno != EINTR)
            lose(c, strerror(errno));
        return rc;
    }
    for (size_t i = 0; i < n && total < sizeof(flat); i++) {
        size_t part = min_sz(iov[i].iov_len, sizeof(flat) - total);

        memcpy(flat + total, iov[i].iov_base, part);
        total += part;
    }
    rc = wolfSSL_write(c->ssl, flat, (int)total);
    if (rc <= 0 && !tls_again(c, (int)rc))
        lose(c, "TLS: nothing can be sent");
    return rc <= 0 ? -1 : rc;
}

static void flush(struct ld_conn *c)
{
    while (c->say_at < c->say_n) {
        struct iovec iov = { c->say + c->say_at, c->say_n - c->say_at };
        ssize_t rc = ld_writev(c, &iov, 1);

        if (c->state == LD_CLOSED)
            return;
        if (rc < 0) {
            watch(c, true);
            return;
        }
        c->say_at += (size_t)rc;
    }
    c->say_at = c->say_n = 0;
    while (c->state == LD_READY && c->sent < c->allowed)
        if (ld_flow_write(c) == 0)
            break;
    if (c->state != LD_CLOSED)
        watch(c, c->sent < c->allowed);
}

static void flush_all(void)
{
    while (dirty) {
        struct ld_conn *c = dirty;

        dirty = c->next_dirty;
        c->dirty = false;
        if (c->state > LD_SHAKING)
            flush(c);
    }
}

static void say_raw(struct ld_conn *c, const void *p, size_t n)
{
    if (!c->say)
        c->say = malloc(SAY_MAX);
    ASSERT(c->say && c->say_n + n <= SAY_MAX);
    memcpy(c->say + c->say_n, p, n);
    c->say_n += n;
    ld_dirty(c);
}

void ld_say(struct ld_conn *c, enum ws_opcode op, const char *text, size_t n)
{
    static const uint8_t key[4] = { 0x5a, 0xc3, 0x96, 0x0f };
    uint8_t frame[SAY_MAX];
    size_t head = ws_client_head_encode(frame, op, true, n, key);

    ASSERT(head + n <= sizeof(frame));
    memcpy(frame + head, text, n);
    ws_mask(frame + head, n, key, 0);
    say_raw(c, frame, head + n);
}

/* ---- bytes in ----------------------------------------------------------------------------------
 */

static void ask_upgrade(struct ld_conn *c)
{
    /* RFC 6455 §1.3's own example, whose answer everybody can look up. */
    static const char ask[] = "GET / HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\n"
                              "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    c->state = LD_UPGRADING;
    say_raw(c, ask, sizeof(ask) - 1);
}

static void ask_register(struct ld_conn *c)
{
    char text[320], id[LD_ID];

    ld_id(c->id, id);
    c->state = LD_REGISTERING;
    ld_say(
        c, WS_OP_TEXT, text,
        (size_t)snprintf(text, sizeof(text),
                         "{\"type\":\"register\",\"peer_id\":\"%.64s\",\"network_id\":\"bench-%u\","
                         "\"protocol_version\":1,\"listen_addrs\":[\"[::]:9444\"]}",
                         id, ld_network(c)));
}

static void keep(struct ld_conn *c, struct bytes in)
{
    if (c->part_n + in.n > c->part_max) {
        size_t want = 2 * (c->part_n + in.n) + 256;

        if (c->part_n + in.n > LD_PART_MAX)
            ld_die("connection %u: a message of more than %d bytes", c->id, LD_PART_MAX);
        c->part = realloc(c->part, want);
        ASSERT(c->part);
        c->part_max = want;
    }
    memcpy(c->part + c->part_n, in.p, in.n);
    c->part_n += in.n;
}

/* The answer's head; what follows it is frames. */
static bool upgraded(struct ld_conn *c, uint8_t **p, size_t *n)
{
    static const char ok[] = "HTTP/1.1 101 ", accept[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    size_t before = c->part_n;
    uint8_t *end;

    keep(c, bytes_of(*p, *n));
    end = memmem(c->part, c->part_n, "\r\n\r\n", 4);
    if (!end) {
        *n = 0;
        return false;
    }
    size_t used = (size_t)(end - c->part) + 4 - before;

    if (memcmp(c->part, ok, sizeof(ok) - 1) != 0 ||
        !memmem(c->part, c->part_n, accept, sizeof(accept) - 1)) {
        lose(c, "not upgraded");
        return false;
    }
    *p += used;
    *n -= used;
    c->part_n = 0;
    if (ld_opt.null)
        ws_rx_init(&c->ws, LD_PART_MAX);
    else
        ws_rx_init_client(&c->ws, LD_PART_MAX);
    ask_register(c);
    return true;
}

static bool begins(struct bytes text, const char *with)
{
    size_t n = strlen(with);

    return text.n >= n && memcmp(text.p, with, n) == 0;
}

static void on_message(struct ld_conn *c, struct bytes text)
{
    if (c->state == LD_READY) {
        ld_on_message(c, text);
    } else if (begins(text, "{\"type\":\"register_ack\",\"success\":true,")) {
        c->state = LD_READY;
        ld_opening--;
        ld_ready++;
    } else if (begins(text, "{\"type\":\"register_ack\"")) {
        fprintf(stderr, "load-dig: %.*s\n", (int)min_sz(text.n, 160), (const char *)text.p);
        lose(c, "registration refused");
    }
}

static void feed(struct ld_conn *c, uint8_t *p, size_t n)
{
    struct ws_event ev;

    if (c->state == LD_UPGRADING && !upgraded(c, &p, &n))
        return;
    while (c->state != LD_CLOSED) {
        switch (ws_next(&c->ws, &p, &n, &ev)) {
        case WS_NEED_MORE:
            return;
        case WS_PIECE:
            if (ev.first && ev.last) {
                on_message(c, bytes_of(ev.p, ev.n));
                break;
            }
            keep(c, bytes_of(ev.p, ev.n));
            if (ev.last) {
                on_message(c, bytes_of(c->part, c->part_n));
                c->part_n = 0;
            }
            break;
        case WS_PING:
            ld_say(c, WS_OP_PONG, (const char *)ev.p, ev.n);
            break;
        case WS_PONG:
            break;
        case WS_CLOSE:
            lose(c, "closed by the relay");
            return;
        case WS_BAD:
            lose(c, "not WebSocket");
            return;
        }
    }
}

static void shake(struct ld_conn *c)
{
    int rc = wolfSSL_connect(c->ssl);

    if (rc == WOLFSSL_SUCCESS)
        ask_upgrade(c);
    else if (!tls_again(c, rc))
        lose(c, "no TLS handshake");
}

static void connected(struct ld_conn *c)
{
    int error = 0;
    socklen_t n = sizeof(error);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error) {
        lose(c, strerror(error));
        return;
    }
    watch(c, false);
    if (!tls_ctx) {
        ask_upgrade(c);
        return;
    }
    c->ssl = wolfSSL_new(tls_ctx);
    ASSERT(c->ssl && wolfSSL_set_fd(c->ssl, c->fd) == WOLFSSL_SUCCESS);
    c->state = LD_SHAKING;
    shake(c);
}

static void readable(struct ld_conn *c)
{
    ssize_t n;

    if (!c->ssl) {
        n = recv(c->fd, scratch, RECV_BYTES, MSG_DONTWAIT);
        if (n == 0)
            lose(c, "closed");
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            lose(c, strerror(errno));
        else if (n > 0)
            feed(c, scratch, (size_t)n);
        return;
    }
    while (c->ssl && (n = wolfSSL_read(c->ssl, scratch, TLS_PART)) > 0)
        feed(c, scratch, (size_t)n);
    if (c->ssl && n <= 0 && !tls_again(c, (int)n))
        lose(c, "TLS: closed");
}

/* ---- connections -------------------------------------------------------------------------------
 */

void ld_open(struct ld_conn *c)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to = { 0 };
    bool v4 = netaddr_is4(&ld_opt.at);
    int one = 1;

    if (v4) {
        to.v4.sin_family = AF_INET;
        to.v4.sin_port = htons(ld_opt.at.port);
        memcpy(&to.v4.sin_addr, ld_opt.at.ip + 12, 4);
    } else {
        to.v6.sin6_family = AF_INET6;
        to.v6.sin6_port = htons(ld_opt.at.port);
        memcpy(&to.v6.sin6_addr, ld_opt.at.ip, 16);
    }
    c->fd = socket(to.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        ld_die("socket: %s", strerror(errno));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    ld_opening++;
    c->state = LD_CONNECTING;
    c->waits_out = true;
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c };

    if (connect(c->fd, &to.sa, v4 ? sizeof(to.v4) : sizeof(to.v6)) < 0 && errno != EINPROGRESS) {
        lose(c, strerror(errno));
        return;
    }
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        ld_die("epoll_ctl: %s", strerror(errno));
}

static void on_event(struct ld_conn *c, uint32_t events)
{
    switch (c->state) {
    case LD_CLOSED:
        return;
    case LD_CONNECTING:
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            connected(c);
        return;
    case LD_SHAKING:
        shake(c);
        return;
    default:
        if (events & EPOLLOUT)
            ld_dirty(c);
        if (events & ~(uint32_t)EPOLLOUT)
            readable(c);
    }
}

void ld_poll(int wait_ms)
{
    struct epoll_event ev[EVENTS];

    flush_all();
    int n = epoll_wait(ep, ev, EVENTS, ld_opt.sleep || ld_opening ? wait_ms : 0);

    if (n < 0 && errno != EINTR)
        ld_die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++)
        on_event(ev[i].data.ptr, ev[i].events);
    flush_all();
}

void ld_setup(unsigned upto)
{
    static unsigned opened;
    uint64_t deadline = load_now_ns() + 120000000000;

    while (ld_ready < upto) {
        while (opened < upto && ld_opening < LD_IN_FLIGHT)
            ld_open(&ld_conns[opened++]);
        ld_poll(10);
        if (ld_totals.failed)
            ld_die("not everybody could register");
        if (load_now_ns() > deadline)
            ld_die("%u of %u registered, and nobody more for long", ld_ready, upto);
        ld_progress("%u of %u registered", ld_ready, upto);
    }
}

void ld_conns_init(void)
{
    ep = epoll_create1(EPOLL_CLOEXEC);
    scratch = malloc(RECV_BYTES);
    ld_conns = calloc(ld_opt.conns, sizeof(*ld_conns));
    ASSERT(ep >= 0 && scratch && ld_conns);
    for (unsigned i = 0; i < ld_opt.conns; i++) {
        ld_conns[i].id = i;
        ld_conns[i].fd = -1;
    }
    if (!ld_opt.tls)
        return;
    ASSERT(wolfSSL_Init() == WOLFSSL_SUCCESS);
    tls_ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
    ASSERT(tls_ctx);
    wolfSSL_CTX_set_verify(tls_ctx, WOLFSSL_VERIFY_NONE, NULL); /* the relay is what is measured */
}
