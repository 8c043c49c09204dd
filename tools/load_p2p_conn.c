/* tools/load_p2p_conn.c: connections and streams. */
#include "tools/load_p2p.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUCKETS = 1 << 16, EVENTS = 256, STREAMS_MAX = 1024 };

static const char noise_name[] = "/noise";
static const char yamux_name[] = "/yamux/1.0.0";
const struct lp_app *lp_app;
const char lp_done[] = "done";

static struct {
    int epoll;
    struct aead *aead;
    struct yamux_table table;
    struct yamux_stream *bucket[BUCKETS];
    uint8_t read[NOISE_FRAME_HEAD + NOISE_MSG_MAX + LP_READ];
    struct lp_conn *dirty;
    struct lp_conn *again;
    uint8_t *pool[1024]; /* free send buffers, the last returned first: it is in the cache */
    size_t pool_n;
    uint64_t ephemeral[4], raw_in;
} g;

/* ---- peers ------------------------------------------------------------------------------- */

void lp_peer_make(struct lp_peer *p, uint64_t n)
{
    uint64_t text[2] = { lp_opt.seed, n };
    uint8_t seed[32], sk[32];

    crypto_sha256(bytes_of(text, sizeof(text)), seed);
    identity_from_seed(seed, &p->me);
    crypto_sha256(bytes_of(seed, sizeof(seed)), sk);
    noise_ident_init(&p->noise, &p->me, sk);
}

/* ---- sending ----------------------------------------------------------------------------- */

static void mark_dirty(struct lp_conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = g.dirty;
    g.dirty = c;
}

size_t lp_room(const struct lp_conn *c)
{
    return LP_OUT_CAP - c->out_at - c->out_n;
}

static uint8_t *out_room(struct lp_conn *c, size_t n)
{
    if (!c->out) {
        c->out = g.pool_n ? g.pool[--g.pool_n] : malloc(LP_OUT_CAP);
        ASSERT(c->out != NULL);
        c->out_at = c->out_n = 0;
    }
    if (lp_room(c) < n && c->out_at) {
        memmove(c->out, c->out + c->out_at, c->out_n);
        c->out_at = 0;
    }
    if (lp_room(c) < n)
        return NULL;
    mark_dirty(c);
    return c->out + c->out_at + c->out_n;
}

static void out_free(struct lp_conn *c)
{
    if (!c->out)
        return;
    if (g.pool_n < ARRAY_LEN(g.pool))
        g.pool[g.pool_n++] = c->out;
    else
        free(c->out);
    c->out = NULL;
    c->out_at = c->out_n = 0;
}

void lp_put_raw(struct lp_conn *c, struct bytes b)
{
    uint8_t *at = out_room(c, b.n);

    if (!at) { /* a handshake always fits */
        c->stuck = true;
        return;
    }
    memcpy(at, b.p, b.n);
    c->out_n += b.n;
}

/* One record. A relay that does not even read our grants loses the connection, at the next flush:
 * callers up the stack still hold the stream. */
void lp_seal(struct lp_conn *c, const struct bytes *parts, size_t n, size_t sum)
{
    uint8_t *at =
        c->stuck || c->state == LP_CLOSED ? NULL : out_room(c, NOISE_FRAME_HEAD + sum + AEAD_TAG);

    if (!at) {
        c->stuck = true;
        return;
    }
    put_u16(at, (uint16_t)(sum + AEAD_TAG));
    aead_seal(g.aead, &c->tx, parts, n, at + NOISE_FRAME_HEAD);
    c->out_n += NOISE_FRAME_HEAD + sum + AEAD_TAG;
}

/* ---- layers ------------------------------------------------------------------------------ */

static void up(struct lp_conn *c)
{
    c->state = LP_UP;
    yamux_init(&c->y, &g.table, true, STREAMS_MAX);
    lp_app->on_up(c);
}

static void on_plain(struct lp_conn *c, struct bytes plain)
{
    struct cur in = cur_of(plain);
    struct yamux_ev ev = { .kind = YAMUX_EV_PONG };

    if (c->state == LP_MUXER) { /* the answers to our two names come whole or in two records */
        enum mss_res res = mss_dial_feed(&c->mss, yamux_name, &in);

        if (res == MSS_FAILED || (res == MSS_MORE && in.n))
            lp_conn_close(c, "the relay refused /yamux/1.0.0");
        if (res != MSS_AGREED)
            return;
        up(c);
    }
    while (c->state == LP_UP && ev.kind != YAMUX_EV_NONE) {
        yamux_feed(&c->y, &in, &ev);
        lp_mux_event(c, &ev);
    }
}

static void noise_step(struct lp_conn *c, enum noise_res res, const struct noise_remote *remote)
{
    uint8_t msg[NOISE_FRAME_HEAD + NOISE_PAYLOAD_MAX + 128];
    struct wcur w = wcur_of(msg + NOISE_FRAME_HEAD, sizeof(msg) - NOISE_FRAME_HEAD);

    if (res == NOISE_WRITE) {
        res = noise_write(c->noise, &w);
        put_u16(msg, (uint16_t)w.wrote);
        lp_put_raw(c, bytes_of(msg, NOISE_FRAME_HEAD + w.wrote));
    }
    if (res == NOISE_FAILED)
        lp_conn_close(c, "the Noise handshake failed");
    if (res != NOISE_DONE)
        return;
    noise_split(c->noise, &c->tx, &c->rx);
    free(c->noise);
    c->noise = NULL;
    if (remote->muxer_yamux) {
        up(c);
        return;
    }
    c->state = LP_MUXER;
    c->mss = (struct mss_dial){ 0 };
    w = wcur_of(msg, sizeof(msg));
    mss_dial_hello(&w, yamux_name);
    struct bytes part = bytes_of(msg, w.wrote);

    lp_seal(c, &part, 1, part.n);
}

static void on_record(struct lp_conn *c, uint8_t *p, size_t n)
{
    struct bytes record = bytes_of(p, n);
    struct noise_remote remote = { 0 };

    if (c->state == LP_NOISE)
        noise_step(c, noise_read(c->noise, record, &remote), &remote);
    else if (n < AEAD_TAG || !aead_open(g.aead, &c->rx, &record, 1, p))
        lp_conn_close(c, "a record of the relay does not decrypt");
    else if (n > AEAD_TAG)
        on_plain(c, bytes_of(p, n - AEAD_TAG));
}

/* Records out of p[0..n); returns how many bytes are used up. */
static size_t on_raw(struct lp_conn *c, uint8_t *p, size_t n)
{
    size_t at = 0;

    if (c->state == LP_SECURITY) {
        struct cur in = cur_of(bytes_of(p, n));
        enum mss_res res = mss_dial_feed(&c->mss, noise_name, &in);

        at = n - in.n;
        if (res == MSS_FAILED)
            lp_conn_close(c, "no libp2p relay, or one without /noise");
        if (res != MSS_AGREED)
            return at;
        c->state = LP_NOISE;
    }
    while (c->state != LP_CLOSED && n - at >= NOISE_FRAME_HEAD) {
        size_t len = (size_t)p[at] << 8 | p[at + 1];

        if (n - at - NOISE_FRAME_HEAD < len)
            break;
        on_record(c, p + at + NOISE_FRAME_HEAD, len);
        at += NOISE_FRAME_HEAD + len;
    }
    return at;
}

/* ---- sockets ----------------------------------------------------------------------------- */

void lp_conn_init(void)
{
    crypto_init();
    g.epoll = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(g.epoll >= 0);
    g.aead = aead_new();
    g.table.bucket = g.bucket;
    g.table.mask = BUCKETS - 1;
}

/* Keys without a handshake: bench/bare is told them in the first 76 bytes. LP_RAW: both ends of a
 * pair have the same, mirrored, because nobody opens what lies between. */
static void bare_start(struct lp_conn *c, uint32_t pair, bool source)
{
    uint8_t hello[12 + 64];

    memcpy(hello, "BARE", 4);
    put_u32(hello + 4, pair);
    put_u32(hello + 8, (source ? 1 : 0) | (lp_opt.relay == LP_RAW ? 2 : 0));
    memset(c->tx.key, 0, sizeof(c->tx.key));
    put_u32(c->tx.key, pair);
    c->rx = c->tx;
    c->tx.key[8] = source || lp_opt.relay == LP_BARE;
    c->rx.key[8] = !c->tx.key[8];
    c->tx.key[9] = c->rx.key[9] = lp_opt.relay == LP_BARE && source;
    memcpy(hello + 12, c->tx.key, 32);
    memcpy(hello + 44, c->rx.key, 32);
    lp_put_raw(c, bytes_of(hello, sizeof(hello)));
    c->state = LP_UP;
    yamux_init(&c->y, &g.table, source, STREAMS_MAX);
}

static void noise_start(struct lp_conn *c)
{
    uint8_t buf[64], e[32];
    struct wcur w = wcur_of(buf, sizeof(buf));

    mss_dial_hello(&w, noise_name);
    lp_put_raw(c, bytes_of(buf, w.wrote));
    g.ephemeral[0] = lp_opt.seed;
    g.ephemeral[1]++;
    g.ephemeral[2] = load_now_ns();
    crypto_sha256(bytes_of(g.ephemeral, sizeof(g.ephemeral)), e);
    c->noise = malloc(sizeof(*c->noise));
    ASSERT(c->noise != NULL);
    noise_init(c->noise, &c->peer->noise, NOISE_INITIATOR, e);
    c->state = LP_SECURITY;
    noise_step(c, NOISE_WRITE, NULL); /* message 1 does not wait for the names to be agreed */
}

int lp_dial(unsigned n)
{
    struct sockaddr_in from = { .sin_family = AF_INET };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    if (lp_opt.mode == LP_CHURN || lp_opt.mode == LP_HANDSHAKE ||
        lp_opt.mode == LP_ATTACK) { /* else TIME_WAIT eats the ports */
        struct linger hard = { .l_onoff = 1, .l_linger = 0 };
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (lp_opt.net << 16) + 1 + n % lp_opt.sources);
    if ((ntohl(lp_opt.at.sin_addr.s_addr) >> 24 == 127 &&
         bind(fd, (const struct sockaddr *)(const void *)&from, sizeof(from)) < 0) ||
        (connect(fd, (const struct sockaddr *)(const void *)&lp_opt.at, sizeof(lp_opt.at)) < 0 &&
         errno != EINPROGRESS)) {
        err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

struct lp_conn *lp_conn_new(const struct lp_peer *peer, unsigned n, uint32_t bare_pair, bool source)
{
    struct sockaddr_in me = { 0 };
    struct lp_conn *c = calloc(1, sizeof(*c));
    socklen_t len = sizeof(me);

    ASSERT(c != NULL);
    c->peer = peer;
    c->shard = -1;
    c->began_ns = load_now_ns();
    c->fd = lp_dial(n);
    if (c->fd < 0)
        lp_die("no connection from source %u: %s", n % lp_opt.sources, strerror(errno));
    if (getsockname(c->fd, (struct sockaddr *)(void *)&me, &len) == 0)
        c->port = ntohs(me.sin_port);
    if (lp_opt.relay == LP_LIBP2P)
        noise_start(c);
    else
        bare_start(c, bare_pair, source);

    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_ADD, c->fd, &ev) == 0);
    return c;
}

void lp_conn_close(struct lp_conn *c, const char *why)
{
    if (c->state == LP_CLOSED)
        return;
    c->state = LP_CLOSED;
    while (c->streams)
        lp_stream_free(c->streams, true);
    close(c->fd);
    lp_app->on_closed(c, why);
    mark_dirty(c); /* freed once nobody up the stack holds it */
}

static void conn_free(struct lp_conn *c)
{
    out_free(c);
    free(c->carry);
    free(c->noise);
    free(c->owned);
    free(c);
}

static void poll_for(struct lp_conn *c)
{
    struct epoll_event ev = { .data.ptr = c };

    ev.events = (c->deaf ? 0 : EPOLLIN) | (c->polled_out ? EPOLLOUT : 0);
    ASSERT(epoll_ctl(g.epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0);
}

static void poll_out(struct lp_conn *c, bool on)
{
    if (c->polled_out == on)
        return;
    c->polled_out = on;
    poll_for(c);
}

void lp_conn_deaf(struct lp_conn *c, bool on)
{
    c->deaf = on;
    poll_for(c);
}

static void flush(struct lp_conn *c)
{
    if (c->stuck) {
        lp_conn_close(c, "the relay does not read");
        return;
    }
    while (c->out_n) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_n, MSG_NOSIGNAL);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            lp_conn_close(c, strerror(errno));
            return;
        }
        c->out_at += (size_t)n;
        c->out_n -= (size_t)n;
    }
    if (!c->out_n)
        out_free(c);
    poll_out(c, c->out_n > 0);
    if (!c->out_n && c->more && !c->queued) { /* credit is left: another turn, after the others */
        c->queued = true;
        c->next_again = g.again;
        g.again = c;
    }
}

/* Flushing makes nothing dirty but by closing, so this ends. */
static void flush_dirty(void)
{
    while (g.dirty) {
        struct lp_conn *c = g.dirty;

        g.dirty = c->next_dirty;
        c->dirty = false;
        if (c->state == LP_CLOSED && c->queued)
            continue; /* pump_again still has it */
        if (c->state == LP_CLOSED)
            conn_free(c);
        else
            flush(c);
    }
}

static void on_readable(struct lp_conn *c)
{
    size_t n = c->carry_n, used;
    ssize_t got;

    if (n)
        memcpy(g.read, c->carry, n);
    got = recv(c->fd, g.read + n, LP_READ, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        lp_conn_close(c, got ? strerror(errno) : "the relay closed the connection");
        return;
    }
    g.raw_in += (uint64_t)got;
    n += (size_t)got;
    used = on_raw(c, g.read, n);
    if (c->state == LP_CLOSED)
        return;
    c->carry_n = n - used;
    if (!c->carry_n) {
        free(c->carry);
        c->carry = NULL;
        return;
    }
    ASSERT(c->carry_n <= NOISE_FRAME_HEAD + NOISE_MSG_MAX);
    if (!c->carry)
        ASSERT((c->carry = malloc(NOISE_FRAME_HEAD + NOISE_MSG_MAX)) != NULL);
    memcpy(c->carry, g.read + used, c->carry_n);
}

static void pump_all(struct lp_conn *c)
{
    for (struct lp_stream *s = c->streams, *next; s; s = next) {
        next = s->next;
        if (s->kind == LP_SOURCE || s->kind == LP_SINK)
            lp_circuit_pump(s);
    }
}

static void pump_again(void)
{
    struct lp_conn *c = g.again;

    g.again = NULL;
    while (c) {
        struct lp_conn *next = c->next_again;

        c->queued = false;
        c->more = false;
        if (c->state == LP_UP)
            pump_all(c);
        else if (c->state == LP_CLOSED)
            mark_dirty(c); /* it waited for us to be freed */
        c = next;
    }
}

bool lp_poll(int64_t wait_ns)
{
    struct epoll_event ev[EVENTS];
    struct timespec t = { wait_ns / 1000000000, wait_ns % 1000000000 };
    int n;

    pump_again();
    flush_dirty();
    if (g.again)
        t = (struct timespec){ 0, 0 };
    n = epoll_pwait2(g.epoll, ev, EVENTS, &t, NULL);
    for (int i = 0; i < n; i++) {
        struct lp_conn *c = ev[i].data.ptr;

        if (c->state == LP_CLOSED) /* closed by an earlier event of this turn; freed below */
            continue;
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
        if (c->state != LP_CLOSED && ev[i].events & EPOLLOUT) {
            flush(c);
            if (c->state == LP_UP && !c->out_n)
                pump_all(c);
        }
        if (c->state != LP_CLOSED && c->out_n && !c->polled_out)
            flush(c); /* while the buffer is in the cache */
    }
    flush_dirty();
    lp_counters_publish();
    return n > 0;
}

uint64_t lp_received_bytes(void)
{
    return g.raw_in;
}
