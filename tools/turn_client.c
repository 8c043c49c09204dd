#include "tools/turn_client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 1024,
    RTO_MS = 250,   /* doubles; half of RFC 8489's, for people who watch */
    ROUNDS_MAX = 4, /* a challenge, a stale nonce, and one to spare */
    PROTO_UDP = 17,
    FAMILY_V6 = 2,
};

uint64_t tc_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

PRINTF_LIKE(2, 3) static bool failed(struct tc *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->why, sizeof(c->why), fmt, ap);
    va_end(ap);
    return false;
}

/* ---- addresses ----------------------------------------------------------------------------- */

static socklen_t to_sockaddr(const struct netaddr *a, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (netaddr_is4(a)) {
        struct sockaddr_in *in = (void *)out;

        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->ip + 12, 4);
        return sizeof(*in);
    }
    struct sockaddr_in6 *in6 = (void *)out;

    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    memcpy(&in6->sin6_addr, a->ip, 16);
    return sizeof(*in6);
}

static void from_sockaddr(const struct sockaddr_storage *from, struct netaddr *out)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)from;

        memcpy(out->ip, mapped, 12);
        memcpy(out->ip + 12, &in->sin_addr, 4);
        out->port = ntohs(in->sin_port);
    } else {
        const struct sockaddr_in6 *in6 = (const void *)from;

        memcpy(out->ip, &in6->sin6_addr, 16);
        out->port = ntohs(in6->sin6_port);
    }
}

static bool local_of(int fd, struct netaddr *out)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof(a);

    if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return false;
    from_sockaddr(&a, out);
    return true;
}

bool tc_resolve(const char *text, struct netaddr *out)
{
    struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *found = NULL;
    const char *colon = strrchr(text, ':');
    char host[TC_TEXT];
    size_t n = colon ? (size_t)(colon - text) : 0;
    int err;

    if (netaddr_parse(bytes_str(text), out))
        return true;
    if (n == 0 || n >= sizeof(host)) {
        fprintf(stderr, "'%s' is not HOST:PORT\n", text);
        return false;
    }
    memcpy(host, text, n);
    host[n] = '\0';
    err = getaddrinfo(host, colon + 1, &hints, &found);
    if (err) {
        fprintf(stderr, "%s: %s\n", text, gai_strerror(err));
        return false;
    }
    struct sockaddr_storage a = { 0 };

    memcpy(&a, found->ai_addr, found->ai_addrlen);
    from_sockaddr(&a, out);
    freeaddrinfo(found);
    return true;
}

int tc_udp(const struct netaddr *at, struct netaddr *bound)
{
    struct sockaddr_storage a;
    socklen_t n = to_sockaddr(at, &a);
    int fd = socket(a.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 && local_of(fd, bound))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

bool tc_recv_from(int fd, uint8_t *buf, size_t cap, size_t *n, struct netaddr *from)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    ssize_t got = recvfrom(fd, buf, cap, MSG_DONTWAIT, (struct sockaddr *)&a, &len);

    if (got < 0)
        return false;
    from_sockaddr(&a, from);
    *n = (size_t)got;
    return true;
}

bool tc_send_to(int fd, struct bytes data, const struct netaddr *to)
{
    struct sockaddr_storage a;
    socklen_t len = to_sockaddr(to, &a);

    return sendto(fd, data.p, data.n, 0, (struct sockaddr *)&a, len) == (ssize_t)data.n;
}

/* ---- the socket ---------------------------------------------------------------------------- */

static bool wait_for(int fd, short events, uint64_t until_ms)
{
    uint64_t now = tc_now_ms();
    struct pollfd p = { .fd = fd, .events = events };

    return poll(&p, 1, until_ms > now ? (int)(until_ms - now) : 0) > 0;
}

bool tc_open(struct tc *c, const struct netaddr *server, bool stream, const struct netaddr *from,
             uint64_t deadline_ms)
{
    struct sockaddr_storage a;
    socklen_t n = to_sockaddr(server, &a);
    int err = 0;
    socklen_t err_n = sizeof(err);

    c->server = *server;
    c->stream = stream;
    c->deadline_ms = deadline_ms;
    c->in_n = c->in_used = 0;
    c->fd =
        socket(a.ss_family, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return failed(c, "socket: %s", strerror(errno));
    if (from) {
        struct sockaddr_storage me;
        socklen_t me_n = to_sockaddr(from, &me);

        if (bind(c->fd, (struct sockaddr *)&me, me_n) < 0)
            return failed(c, "bind: %s", strerror(errno));
    }
    if (connect(c->fd, (struct sockaddr *)&a, n) < 0 && errno != EINPROGRESS)
        return failed(c, "connect: %s", strerror(errno));
    if (stream) {
        if (!wait_for(c->fd, POLLOUT, deadline_ms))
            return failed(c, "no connection in time");
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &err_n);
        if (err)
            return failed(c, "connect: %s", strerror(err));
    }
    return local_of(c->fd, &c->local) || failed(c, "getsockname: %s", strerror(errno));
}

void tc_close(struct tc *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static bool put(struct tc *c, struct bytes b)
{
    while (b.n) {
        ssize_t n = send(c->fd, b.p, b.n, MSG_NOSIGNAL);

        if (n > 0)
            b = bytes_of(b.p + n, b.n - (size_t)n);
        else if (errno != EAGAIN || !wait_for(c->fd, POLLOUT, c->deadline_ms))
            return failed(c, "send: %s", strerror(errno));
    }
    return true;
}

/* The next unit, valid until the next call. */
static bool next_unit(struct tc *c, uint64_t until_ms, struct bytes *unit)
{
    for (;;) {
        struct cur left = cur_of(bytes_of(c->in + c->in_used, c->in_n - c->in_used));
        size_t need;

        if (c->stream) {
            enum frame f = frame_take(&left, sizeof(c->in), unit, &need);

            if (f == FRAME_BAD || f == FRAME_TOO_LONG)
                return failed(c, "the server sent neither STUN nor ChannelData");
            if (f != FRAME_MORE) {
                c->in_used = c->in_n - left.n;
                return true;
            }
        }
        memmove(c->in, c->in + c->in_used, c->in_n - c->in_used);
        c->in_n = c->stream ? c->in_n - c->in_used : 0;
        c->in_used = 0;
        if (!wait_for(c->fd, POLLIN, until_ms))
            return failed(c, "no answer in time");
        ssize_t n = recv(c->fd, c->in + c->in_n, sizeof(c->in) - c->in_n, 0);

        if (n < 0 && errno == EAGAIN)
            continue;
        if (n < 0 || (n == 0 && c->stream))
            return failed(c, "%s", n ? strerror(errno) : "the server closed the connection");
        c->in_n += (size_t)n;
        if (!c->stream) {
            c->in_used = c->in_n;
            *unit = bytes_of(c->in, c->in_n);
            return true;
        }
    }
}

/* ---- transactions -------------------------------------------------------------------------- */

static void put_credentials(struct tc *c, struct stun_build *b)
{
    stun_put(b, STUN_USERNAME, bytes_str(c->user));
    stun_put(b, STUN_REALM, bytes_of(c->realm, c->realm_n));
    stun_put(b, STUN_NONCE, bytes_of(c->nonce, c->nonce_n));
    stun_put_integrity(b, STUN_MAC_SHA1, stun_key_bytes(&c->key), STUN_SHA1_TAG);
}

/* Sends until something with this id answers: one message of `method`, not a request. */
static bool exchange(struct tc *c, enum stun_method method, struct bytes request,
                     const uint8_t *tid, struct stun_msg *m)
{
    uint64_t wait_ms = RTO_MS;

    for (;;) {
        uint64_t until_ms;
        struct bytes unit;

        if (!put(c, request))
            return false;
        until_ms = c->stream ? c->deadline_ms : min_u64(tc_now_ms() + wait_ms, c->deadline_ms);
        while (next_unit(c, until_ms, &unit))
            if (stun_decode(unit, 0, m) == STUN_OK && memcmp(stun_id(m) + 4, tid, STUN_TID) == 0 &&
                stun_method_of(m->type) == method && stun_class_of(m->type) >= STUN_SUCCESS)
                return true;
        if (c->stream || tc_now_ms() >= c->deadline_ms)
            return false;
        wait_ms *= 2;
    }
}

static bool challenged(struct tc *c, const struct stun_msg *m)
{
    struct bytes realm = stun_value(m, STUN_REALM), nonce = stun_value(m, STUN_NONCE);

    if (!c->user || !c->password || realm.n == 0 || nonce.n == 0 || realm.n > sizeof(c->realm) ||
        nonce.n > sizeof(c->nonce))
        return false;
    memcpy(c->realm, realm.p, c->realm_n = realm.n);
    memcpy(c->nonce, nonce.p, c->nonce_n = nonce.n);
    stun_key_make(STUN_ALG_MD5, bytes_str(c->user), realm, bytes_str(c->password), &c->key);
    return true;
}

/* What a request carries besides who sends it. */
struct wish {
    enum stun_method method;
    bool v6, has_lifetime;
    uint16_t channel;
    const struct netaddr *peer;
};

static bool build(struct tc *c, const struct wish *w, uint8_t *buf, const uint8_t *tid,
                  struct bytes *out)
{
    struct stun_build b;
    uint8_t id[STUN_ID];

    stun_id_of(tid, id);
    stun_begin(&b, buf, REQUEST_MAX, stun_type(w->method, STUN_REQUEST), id);
    if (w->method == STUN_ALLOCATE)
        stun_put_u8(&b, STUN_REQUESTED_TRANSPORT, PROTO_UDP);
    if (w->v6)
        stun_put_u8(&b, STUN_REQUESTED_ADDRESS_FAMILY, FAMILY_V6);
    if (w->has_lifetime)
        stun_put_u32(&b, STUN_LIFETIME, 0);
    if (w->channel)
        stun_put_u16(&b, STUN_CHANNEL_NUMBER, w->channel);
    if (w->peer) {
        struct stun_addr a = stun_addr_of(w->peer);

        stun_put_addr(&b, STUN_XOR_PEER_ADDRESS, &a);
    }
    if (c->key.n)
        put_credentials(c, &b);
    stun_put_fingerprint(&b);
    return stun_end(&b, out) || failed(c, "the request is too long");
}

static bool transact(struct tc *c, const struct wish *w, struct stun_msg *m)
{
    uint8_t buf[REQUEST_MAX], tid[STUN_TID];
    struct bytes request, phrase;
    uint16_t code = 0;

    for (int round = 0; round < ROUNDS_MAX; round++) {
        if (getrandom(tid, sizeof(tid), 0) != sizeof(tid))
            return failed(c, "getrandom: %s", strerror(errno));
        if (!build(c, w, buf, tid, &request) || !exchange(c, w->method, request, tid, m))
            return false;
        if (stun_class_of(m->type) == STUN_SUCCESS) {
            if (c->key.n &&
                !stun_integrity_ok(m, STUN_MAC_SHA1, stun_key_bytes(&c->key), STUN_SHA256_TAG_MIN))
                return failed(c, "the answer is not signed by who knows the password");
            return true;
        }
        if (!stun_error(m, &code, &phrase))
            return failed(c, "an error without a code");
        if (!(code == 401 && !c->key.n) && code != 438)
            break;
        if (!challenged(c, m))
            break;
    }
    return failed(c, "the server says %u", code);
}

bool tc_binding(struct tc *c, struct netaddr *mapped)
{
    struct wish w = { .method = STUN_BINDING };
    struct stun_addr a;
    struct stun_msg m;

    if (!transact(c, &w, &m))
        return false;
    if (!stun_addr(&m, STUN_XOR_MAPPED_ADDRESS, &a))
        return failed(c, "an answer without an address");
    *mapped = a.addr;
    return true;
}

bool tc_allocate(struct tc *c)
{
    struct wish w = { .method = STUN_ALLOCATE, .v6 = !netaddr_is4(&c->server) };
    struct stun_addr a;
    struct stun_msg m;

    if (!transact(c, &w, &m))
        return false;
    if (!stun_addr(&m, STUN_XOR_RELAYED_ADDRESS, &a))
        return failed(c, "an answer without a relayed address");
    c->relayed = a.addr;
    c->lifetime_s = stun_u32(&m, STUN_LIFETIME);
    return true;
}

bool tc_channel(struct tc *c, uint16_t channel, const struct netaddr *peer)
{
    struct wish w = { .method = STUN_CHANNEL_BIND, .channel = channel, .peer = peer };
    struct stun_msg m;

    return transact(c, &w, &m);
}

bool tc_release(struct tc *c)
{
    struct wish w = { .method = STUN_REFRESH, .has_lifetime = true };
    struct stun_msg m;

    if (!transact(c, &w, &m))
        return false;
    return stun_u32(&m, STUN_LIFETIME) == 0 || failed(c, "it lives on");
}

bool tc_send(struct tc *c, uint16_t channel, struct bytes data)
{
    uint8_t buf[TC_IN_BYTES];
    struct wcur w = wcur_of(buf, sizeof(buf));

    chandata_put(&w, &(struct chandata){ channel, data }, c->stream);
    if (w.bad)
        return failed(c, "too much for one datagram");
    return put(c, bytes_of(buf, w.wrote));
}

bool tc_next(struct tc *c, uint64_t until_ms, struct chandata *out)
{
    struct bytes unit;

    while (next_unit(c, until_ms, &unit))
        if (chandata_decode(unit, out))
            return true;
    return false;
}
