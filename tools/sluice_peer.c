/* sluice-peer: a small libp2p peer that reserves a slot at a circuit relay or dials another peer
 * through one, and says what it saw. For demos and tests. */
#include "proto/stop.h"
#include "tools/p2p.h"
#include "tools/peer_opts.h"
#include "tools/peer_say.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RESERVE_SECS = 10, DIAL_SECS = 60 };
enum kind { KIND_STOP = 0, KIND_IDENT, KIND_RESERVE, KIND_CONNECT, KIND_CIRCUIT };

struct circuit {
    bool dialer;
    struct peer_id peer;
    struct p2p_queue back; /* echo: what waits for credit */
    crypto_hash_sha256_state in_sha, out_sha;
    uint64_t in_n, out_n;
    uint8_t first_in[32]; /* in hash mode this is all that the other side sends */
    uint64_t start_ms;
};

static struct peer_opts opt;
static struct {
    bool done;
    int status;
    uint64_t deadline_ms, renew_ms; /* 0: none */
    bool reserved;
    uint64_t circuits_ended;
    unsigned addresses_seen;
} run;

static struct p2p_env env;
static struct p2p conn;

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void finish(int status)
{
    if (!run.done)
        run.status = status;
    run.done = true;
}

PRINTF_LIKE(1, 2) static void failed(const char *fmt, ...)
{
    va_list ap;

    if (!run.done) {
        va_start(ap, fmt);
        fprintf(stderr, "sluice-peer: ");
        vfprintf(stderr, fmt, ap);
        fprintf(stderr, "\n");
        va_end(ap);
    }
    finish(1);
}

static void look(const char *where, struct bytes got)
{
    for (size_t i = 0; i < opt.forbid_n; i++) {
        if (tells_address(got, opt.forbid[i])) {
            run.addresses_seen++;
            failed("%s tells the address %s", where, opt.forbid[i]);
        }
    }
}

/* ---- circuits ---------------------------------------------------------------------------------
 */

static void hash_text(const crypto_hash_sha256_state *state, uint8_t digest[32], char text[65])
{
    crypto_hash_sha256_state copy = *state;

    crypto_hash_sha256_final(&copy, digest);
    sodium_bin2hex(text, 65, digest, 32);
}

static void circuit_start(struct p2p_stream *s, bool dialer, const struct peer_id *peer)
{
    struct circuit *k = calloc(1, sizeof(*k));

    ASSERT(k != NULL);
    k->dialer = dialer;
    k->peer = *peer;
    k->start_ms = now_ms();
    crypto_hash_sha256_init(&k->in_sha);
    crypto_hash_sha256_init(&k->out_sha);
    s->kind = KIND_CIRCUIT;
    s->arg = k;
}

/* b fits the credit: counted first, because a FIN may be the end of the stream and of k. */
static void circuit_send(struct p2p_stream *s, struct bytes b, bool fin)
{
    struct circuit *k = s->arg;

    ASSERT(b.n <= s->y.send_credit);
    crypto_hash_sha256_update(&k->out_sha, b.p, b.n);
    k->out_n += b.n;
    (void)p2p_send(s, b, fin);
}

/* Byte i of what a dialer sends hangs on the seed and i alone. */
static void make_bytes(uint64_t at, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t z = opt.data_seed + ((at + i) / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        if ((at + i) % 8 == 0 && n - i >= 8) { /* mostly eight at a time */
            memcpy(out + i, &z, 8);
            i += 7;
        } else {
            out[i] = (uint8_t)(z >> (8 * ((at + i) % 8)));
        }
    }
}

static void circuit_pump(struct p2p_stream *s)
{
    static uint8_t buf[P2P_BODY_MAX];
    struct circuit *k = s->arg;

    while (k->dialer && p2p_may_send(s) && k->out_n < opt.bytes) {
        size_t n = min_sz(min_sz(sizeof(buf), s->y.send_credit), (size_t)(opt.bytes - k->out_n));

        make_bytes(k->out_n, buf, n);
        circuit_send(s, bytes_of(buf, n), k->out_n + n == opt.bytes);
        if (s->y.tx_fin)
            return;
    }
    while (k->back.n && p2p_may_send(s)) {
        struct bytes front = p2p_queue_front(&k->back);
        size_t n = min_sz(front.n, s->y.send_credit);

        circuit_send(s, bytes_of(front.p, n), false);
        p2p_queue_drop(&k->back, n);
        p2p_consumed(s, n); /* only now: the window shuts when the way back does */
    }
    if (!k->dialer && s->y.rx_fin && s->fin_seen && k->back.n == 0 && !s->y.tx_fin) {
        uint8_t digest[32];
        char text[65];
        bool hash = opt.mode == MODE_HASH;

        hash_text(&k->in_sha, digest, text);
        if (!hash || s->y.send_credit >= sizeof(digest))
            circuit_send(s, bytes_of(digest, hash ? sizeof(digest) : 0), true);
    }
}

static void circuit_data(struct p2p_stream *s, struct bytes data)
{
    struct circuit *k = s->arg;

    if (!data.n)
        return;
    if (k->in_n < sizeof(k->first_in))
        memcpy(k->first_in + k->in_n, data.p, min_sz(data.n, sizeof(k->first_in) - k->in_n));
    crypto_hash_sha256_update(&k->in_sha, data.p, data.n);
    k->in_n += data.n;
    if (k->dialer || opt.mode != MODE_ECHO) {
        p2p_consumed(s, data.n);
        return;
    }
    p2p_queue_put(&k->back, data); /* bounded by the window that we do not reopen */
    circuit_pump(s);
}

static void dial_ended(const struct circuit *k, bool reset, const uint8_t in[32],
                       const uint8_t out[32])
{
    bool echo = k->in_n == k->out_n && !memcmp(in, out, 32);
    bool hash = k->in_n == 32 && !memcmp(k->first_in, out, 32);

    if (reset)
        failed("the circuit was reset after %" PRIu64 " bytes out and %" PRIu64 " in", k->out_n,
               k->in_n);
    else if (opt.expect == MODE_ANY ? !echo && !hash && k->in_n
                                    : !(opt.expect == MODE_ECHO   ? echo
                                        : opt.expect == MODE_HASH ? hash
                                                                  : k->in_n == 0))
        failed("what came back does not match what was sent");
    finish(0);
}

static const char *match_text(const struct circuit *k, const uint8_t in[32], const uint8_t out[32])
{
    if (k->in_n == k->out_n && !memcmp(in, out, 32))
        return "yes";
    if (k->in_n == 0 || k->out_n == 0)
        return "one-way";
    /* One side received the digest of what it had sent. */
    return k->in_n == 32 && !memcmp(k->first_in, out, 32) ? "digest" : "no";
}

static void circuit_end(struct p2p_stream *s, bool reset)
{
    struct circuit *k = s->arg;
    uint8_t in[32], out[32];
    char in_text[65], out_text[65], seconds[32], peer[PEER_TEXT_MAX];
    char a[NUMBER_TEXT], b[NUMBER_TEXT], c[NUMBER_TEXT];

    hash_text(&k->in_sha, in, in_text);
    hash_text(&k->out_sha, out, out_text);
    peer_id_text(&k->peer, peer);
    snprintf(seconds, sizeof(seconds), "%.3f", (double)(now_ms() - k->start_ms) / 1000);
    say(reset ? "circuit-reset" : "circuit-closed", "peer", peer, "sent", number(a, k->out_n),
        "sent-sha256", out_text, "received", number(b, k->in_n), "received-sha256", in_text,
        "match", match_text(k, in, out), "seconds", seconds, "addresses-seen",
        number(c, run.addresses_seen), NULL);
    if (k->dialer)
        dial_ended(k, reset, in, out);
    else if (++run.circuits_ended == opt.circuits_max)
        finish(0);
    free(k->back.p);
    free(k);
    s->arg = NULL;
}

/* ---- messages -----------------------------------------------------------------------------------
 */

static void on_reserved(const struct hop_msg *m)
{
    char me[PEER_TEXT_MAX], relay[PEER_TEXT_MAX], address[MADDR_TEXT_MAX + 256];
    char expires[NUMBER_TEXT], addrs[NUMBER_TEXT], secs[NUMBER_TEXT], data[NUMBER_TEXT];
    uint64_t now_s = (uint64_t)time(NULL);
    uint64_t ttl_s = m->expire_unix_s > now_s ? m->expire_unix_s - now_s : 0;

    peer_id_text(&env.me.id, me);
    peer_id_text(&conn.remote.id, relay);
    snprintf(address, sizeof(address), "%s/p2p/%s/p2p-circuit/p2p/%s", opt.relay_text, relay, me);
    say(run.reserved ? "renewed" : "reserved", "address", address, "expires",
        number(expires, m->expire_unix_s), "addresses", number(addrs, m->addrs), "voucher",
        m->voucher.n ? "yes" : "no", "limit-seconds",
        m->limit.present ? number(secs, m->limit.duration_s) : "none", "limit-bytes",
        m->limit.present ? number(data, m->limit.data_bytes) : "none", NULL);
    if (!run.reserved)
        run.deadline_ms = opt.stay_s > 0 ? now_ms() + (uint64_t)(opt.stay_s * 1000) : 0;
    run.reserved = true;
    run.renew_ms = now_ms() + (ttl_s ? ttl_s * 750 : 1000); /* at three quarters, as rust does */
}

static void on_hop(struct p2p_stream *s, struct bytes msg, struct bytes rest)
{
    bool reserve = s->kind == KIND_RESERVE;
    struct hop_msg m;

    look("HOP", msg);
    if (!hop_decode(msg, &m) || m.type != HOP_STATUS || !m.has_status) {
        failed("the relay answered with something that is no status");
    } else if (m.status != HOP_OK) {
        char code[NUMBER_TEXT];

        say("refused", "status", status_text(m.status), "code", number(code, m.status), NULL);
        failed("the relay refused to %s: %u %s", reserve ? "reserve" : "connect", m.status,
               status_text(m.status));
    } else if (reserve) {
        on_reserved(&m);
        (void)p2p_send(s, bytes_of("", 0), true);
    } else {
        circuit_start(s, true, &opt.target);
        circuit_data(s, rest);
        if (opt.bytes)
            circuit_pump(s);
        else
            circuit_send(s, bytes_of("", 0), true);
    }
}

static void on_stop(struct p2p_stream *s, struct bytes msg, struct bytes rest)
{
    uint8_t buf[32];
    struct wcur w = wcur_of(buf, sizeof(buf));
    char peer[PEER_TEXT_MAX], seen[NUMBER_TEXT];
    struct stop_msg m;

    look("STOP", msg);
    if (!stop_decode(msg, &m) || !m.has_type || m.type != STOP_CONNECT || !m.has_peer) {
        stop_put_status(&w, HOP_MALFORMED_MESSAGE);
        (void)p2p_send(s, bytes_of(buf, w.wrote), true);
        return;
    }
    run.addresses_seen += stop_addresses(msg);
    peer_id_text(&m.peer, peer);
    say("circuit-opened", "peer", peer, "addresses-seen", number(seen, run.addresses_seen), NULL);
    stop_put_status(&w, HOP_OK);
    (void)p2p_send(s, bytes_of(buf, w.wrote), false);
    circuit_start(s, false, &m.peer);
    circuit_data(s, rest);
}

static void on_ident(struct p2p_stream *s, struct bytes msg)
{
    struct ident_remote r;
    char relay[PEER_TEXT_MAX], agent[128] = "", seen[MADDR_TEXT_MAX];

    look("identify", msg);
    (void)p2p_send(s, bytes_of("", 0), true);
    if (!ident_decode(msg, &r)) {
        failed("the relay's identify does not decode");
        return;
    }
    for (size_t i = 0; i < r.agent_version.n && i + 1 < sizeof(agent); i++)
        agent[i] = r.agent_version.p[i] > 0x20 && r.agent_version.p[i] < 0x7f
                       ? (char)r.agent_version.p[i]
                       : '_';
    peer_id_text(&conn.remote.id, relay);
    say("identified", "relay", relay, "agent", agent, "hop", r.speaks_hop ? "yes" : "no",
        "observed-address", maddr_text(r.observed_addr, seen, sizeof(seen)) ? seen : "none", NULL);
}

static void on_data(struct p2p_stream *s, struct bytes data)
{
    size_t max = s->kind == KIND_IDENT ? IDENT_PUSH_MAX : HOP_MSG_MAX;
    struct bytes msg;

    if (s->kind == KIND_CIRCUIT) {
        circuit_data(s, data);
        return;
    }
    switch (p2p_message(s, &data, max, &msg)) {
    case P2P_MSG_MORE:
        return;
    case P2P_MSG_BAD:
        failed("the relay sent a message beyond its bound");
        p2p_reset(s);
        return;
    case P2P_MSG_WHOLE:
        break;
    }
    if (s->kind == KIND_IDENT)
        on_ident(s, msg);
    else if (s->kind == KIND_STOP)
        on_stop(s, msg, data);
    else
        on_hop(s, msg, data);
}

static void on_credit(struct p2p_stream *s)
{
    if (s->kind == KIND_CIRCUIT)
        circuit_pump(s);
}

static void on_fin(struct p2p_stream *s)
{
    if (s->kind == KIND_CIRCUIT)
        circuit_pump(s);
    else
        (void)p2p_send(s, bytes_of("", 0), true);
}

static void on_gone(struct p2p_stream *s, bool reset)
{
    if (s->kind == KIND_CIRCUIT && s->arg)
        circuit_end(s, reset);
    else if (s->kind == KIND_CONNECT || (s->kind == KIND_RESERVE && !run.reserved))
        failed("the relay ended the hop stream without an answer");
}

static void open_hop(void)
{
    uint8_t buf[128];
    struct wcur w = wcur_of(buf, sizeof(buf));

    if (opt.reserve)
        hop_put_reserve(&w);
    else
        hop_put_connect(&w, &opt.target);
    if (!p2p_open(&conn, HOP_PROTOCOL, opt.reserve ? KIND_RESERVE : KIND_CONNECT,
                  bytes_of(buf, w.wrote)))
        failed("the relay allows no more streams");
}

static void on_up(struct p2p *c)
{
    char relay[PEER_TEXT_MAX], key[NUMBER_TEXT];

    peer_id_text(&c->remote.id, relay);
    if (opt.has_relay_id && !peer_id_eq(&opt.relay_id, &c->remote.id)) {
        failed("the relay is %s, not the one of the address", relay);
        return;
    }
    say("connected", "relay", relay, "key-type", number(key, c->remote.key_type), "muxer",
        c->early_muxer ? "early" : "negotiated", NULL);
    (void)p2p_open(c, IDENT_PROTOCOL, KIND_IDENT, bytes_of("", 0));
    open_hop();
}

static const struct mss_proto reserve_protos[] = {
    { IDENT_PROTOCOL, P2P_IDENT }, { PING_PROTOCOL, P2P_PING }, { STOP_PROTOCOL, P2P_APP }, { 0 }
};
static const struct mss_proto dial_protos[] = { { IDENT_PROTOCOL, P2P_IDENT },
                                                { PING_PROTOCOL, P2P_PING },
                                                { 0 } };
static const char *const reserve_names[] = { IDENT_PROTOCOL, PING_PROTOCOL, STOP_PROTOCOL, NULL };
static const char *const dial_names[] = { IDENT_PROTOCOL, PING_PROTOCOL, NULL };

/* ---- the loop
 * ------------------------------------------------------------------------------------ */

static void pump_all(void)
{
    for (size_t i = 0; i < P2P_STREAMS; i++)
        if (conn.stream[i].live && conn.stream[i].kind == KIND_CIRCUIT)
            circuit_pump(&conn.stream[i]);
}

static void on_time(uint64_t now)
{
    if (run.deadline_ms && now >= run.deadline_ms) {
        if (run.reserved)
            finish(0);
        else
            failed("nothing came of it in time (--timeout)");
    }
    if (run.renew_ms && now >= run.renew_ms) {
        run.renew_ms = now + 10000; /* again, should no answer come */
        open_hop();
    }
}

static void loop(void)
{
    uint64_t last_ms = 0; /* once done: a moment for what is still to be sent */

    while (conn.state != P2P_CLOSED && !(run.done && (!conn.out.n || now_ms() > last_ms))) {
        struct pollfd p = { .fd = conn.fd, .events = p2p_events(&conn) };
        uint64_t now = now_ms();
        uint64_t next = now + 1000;

        next = run.deadline_ms ? min_u64(next, run.deadline_ms) : next;
        next = run.renew_ms ? min_u64(next, run.renew_ms) : next;
        if (poll(&p, 1, next > now ? (int)(next - now) : 0) < 0 && errno != EINTR) {
            failed("poll: %s", strerror(errno));
            return;
        }
        p2p_on_poll(&conn, p.revents);
        pump_all();
        if (!run.done) {
            on_time(now_ms());
            last_ms = now_ms() + 1000;
        }
    }
    if (conn.state == P2P_CLOSED)
        failed("%s", conn.why);
}

/* Connected to one address, or -1 with errno set. */
static int dial_one(const struct addrinfo *at, const struct addrinfo *from, int wait_ms)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    socklen_t n = sizeof(int);
    int one = 1, err = 0;

    if (fd >= 0 && !setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) &&
        !(from && bind(fd, from->ai_addr, from->ai_addrlen)) &&
        !(connect(fd, at->ai_addr, at->ai_addrlen) && errno != EINPROGRESS)) {
        if (poll(&p, 1, wait_ms) != 1)
            err = ETIMEDOUT;
        else if (!getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) && !err)
            return fd;
        errno = err;
    }
    err = errno;
    if (fd >= 0)
        close(fd);
    errno = err;
    return -1;
}

/* Tries what the name resolves to, one after the other, within the deadline. */
static int dial_socket(void)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *from = NULL;
    int err = 0, fd = -1;

    if (opt.bind) {
        hints.ai_flags = AI_NUMERICHOST;
        err = getaddrinfo(opt.bind, NULL, &hints, &from);
        hints.ai_family = err ? AF_UNSPEC : from->ai_family;
        hints.ai_flags = 0;
    }
    if (err || (err = getaddrinfo(opt.host, opt.port, &hints, &list))) {
        failed("%s: %s", opt.host, gai_strerror(err));
        return -1;
    }
    for (struct addrinfo *at = list; at && fd < 0 && now_ms() < run.deadline_ms; at = at->ai_next)
        fd = dial_one(at, from, (int)min_u64(run.deadline_ms - now_ms(), 5000));
    if (fd < 0)
        failed("cannot connect to %s port %s: %s", opt.host, opt.port, strerror(errno));
    if (from)
        freeaddrinfo(from);
    freeaddrinfo(list);
    return fd;
}

int main(int argc, char **argv)
{
    static const struct p2p_app reserve = { reserve_protos, reserve_names, on_up,  NULL,
                                            on_data,        on_credit,     on_fin, on_gone };
    static const struct p2p_app dial = { dial_protos, dial_names, on_up,  NULL,
                                         on_data,     on_credit,  on_fin, on_gone };
    uint8_t seed[32];
    double secs;
    int fd;

    peer_opts_parse(&opt, argc, argv);
    peer_opts_seed(&opt, seed);
    p2p_env_init(&env, seed, "sluice-peer/" SLUICE_VERSION);
    secs = opt.timeout_s > 0 ? opt.timeout_s : opt.reserve ? RESERVE_SECS : DIAL_SECS;
    run.deadline_ms = now_ms() + (uint64_t)(secs * 1000);
    fd = dial_socket();
    if (!run.done) {
        p2p_init(&conn, &env, opt.reserve ? &reserve : &dial, fd);
        loop();
        p2p_fini(&conn);
    }
    aead_free(env.aead);
    return run.status;
}
