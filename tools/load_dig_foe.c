/* tools/load_dig_foe.c: who breaks the rules, or keeps them and is a burden, at the rate that was
 * asked for. An op is a frame, or a connection where that is all that a foe does with it. What they
 * are answered is read and thrown away, but by those who read nothing. What a relay owes them, and
 * others beside them, is said where it is checked (tests/e2e/test_dig_cost.py). */
#include "tools/load_dig.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum way {
    JOINED,   /* registered, then its frames */
    UPGRADED, /* never registered */
    FRESH,    /* a connection, what it begins with, and when its turn comes again it is gone */
};

enum {
    FRAME_MAX = 2048,
    BIG_MAX = 262144, /* what a message may be unasked (dig.md §3.2) */
    OUT_MAX = BIG_MAX + FRAME_MAX,
    BATCH = 16, /* frames of a foe before the next one's turn */
    READ_NS = 4000000,
    READS = 4,
    READ_BYTES = 65536,
    STUCK_NS = 100000000, /* who cannot send because his friend does not read comes back */
    RETRY_NS = 50000000,
    NAP_NS = 400000, /* per ms between bursts */
    WAIT_S = 5,
    SMALL = 4096,
    PAYLOAD = 200, /* numbers of three digits: 800 bytes */
    TEXT_MAX = FRAME_MAX - WS_CLIENT_HEAD_MAX,
    SOURCES = 200,
};

struct foe {
    unsigned id;
    int fd, deaf;   /* -1: none */
    uint64_t n;     /* frames, or connections, that it has made */
    unsigned piece; /* of a message in pieces */
    uint8_t *out;
    size_t out_n, out_at;
    uint64_t under_way; /* frames in out */
    uint64_t moved_ns, retry_ns;
};

struct kind {
    const char *name;
    enum way way;
    bool deaf, big; /* with a friend who does not read; with frames up to BIG_MAX */
    size_t (*make)(struct foe *f, uint8_t *to);
};

static const uint8_t key[4] = { 0x3c, 0x91, 0x5f, 0xe6 };
static const char upgrade[] = "GET / HTTP/1.1\r\nHost: foe\r\nConnection: Upgrade\r\n"
                              "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const struct kind *kind;
static struct {
    struct foe *foes;
    unsigned next;
    struct ld_due due;
    uint64_t ops, opened, ended, refused, heard, random, read_ns;
    bool ready; /* from here on who is refused tries again */
} g;

static uint64_t any(void)
{
    uint64_t z = (g.random += 0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static size_t any_bytes(uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)any();
    return n;
}

/* ---- what they say -----------------------------------------------------------------------------
 */

static size_t frame(uint8_t *to, enum ws_opcode op, bool fin, const void *p, size_t n)
{
    size_t head = ws_client_head_encode(to, op, fin, n, key);

    memcpy(to + head, p, n);
    ws_mask(to + head, n, key, 0);
    return head + n;
}

static size_t say(uint8_t *to, const char *fmt, ...) PRINTF_LIKE(2, 3);
static size_t say(uint8_t *to, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    ASSERT(n >= 0 && (size_t)n < sizeof(text));
    return frame(to, WS_OP_TEXT, true, text, (size_t)n);
}

static const char *payload(void)
{
    static char text[4 * PAYLOAD + 2];

    if (!text[0]) {
        for (unsigned i = 0; i < PAYLOAD; i++)
            memcpy(text + 4 * i, ",200", 4);
        text[0] = '[';
        memcpy(text + sizeof(text) - 2, "]", 2);
    }
    return text;
}

static size_t say_register(uint8_t *to, const char *role, unsigned id, uint64_t n, unsigned network)
{
    return say(to,
               "{\"type\":\"register\",\"peer_id\":\"f0e%.4s%041u%016" PRIx64
               "\",\"network_id\":\"foes-%u\",\"protocol_version\":1}",
               role, id, n, network);
}

/* Every fourth sends to one who reads nothing, until it has to wait with him; the others tell
 * everybody, and come and go. */
static size_t make_not_reading(struct foe *f, uint8_t *to)
{
    if (f->id % 4 == 0)
        return say(to,
                   "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"f0edeaf%041u%016d\","
                   "\"payload\":%s,\"seq\":1}",
                   f->id, 0, payload());
    if (f->n % 2)
        return say_register(to, "0000", f->id, f->n, f->id);
    return say(to, "{\"type\":\"broadcast\",\"from\":\"x\",\"payload\":%s,\"exclude\":[]}",
               payload());
}

/* As many as there is room for, of whom every other foe is one. */
static size_t make_excludes(struct foe *f, uint8_t *to)
{
    static const char head[] = "{\"type\":\"broadcast\",\"from\":\"x\",\"payload\":[1],"
                               "\"exclude\":[";
    static char *text;
    static size_t n;

    (void)f;
    if (!text) {
        unsigned i;

        ASSERT((text = malloc(BIG_MAX + 1)) != NULL);
        n = (size_t)sprintf(text, "%s", head);
        for (i = 0; n + 80 < BIG_MAX; i++)
            n += (size_t)sprintf(text + n, "%s\"f0e0000%041u%016d\"", i ? "," : "",
                                 i < ld_opt.conns / 2 ? 2 * i : 1000000 + i, 0);
        n += (size_t)sprintf(text + n, "]}");
    }
    return frame(to, WS_OP_TEXT, true, text, n);
}

static size_t make_networks(struct foe *f, uint8_t *to)
{
    switch (f->n % 4) {
    case 0:
        return say(to,
                   "{\"type\":\"pex_handshake\",\"version\":1,\"network_id\":\"made-up-%u-%" PRIu64
                   "\",\"interval\":60}",
                   f->id, f->n - 1);
    case 1:
        return say(to, "{\"type\":\"get_peers\",\"network_id\":\"no-such-%u-%" PRIu64 "\"}", f->id,
                   f->n);
    case 2: /* an end of the connection; what is said behind it is lost, as it is */
        if (f->n % 256 == 254)
            return say(to, "{\"type\":\"unregister\",\"peer_id\":\"f0e\"}");
        break;
    }
    return say(to,
               "{\"type\":\"register\",\"peer_id\":\"f0e0000%041u%016d\",\"network_id\":"
               "\"made-up-%u-%" PRIu64 "\",\"protocol_version\":1}",
               f->id, 0, f->id, f->n);
}

static size_t make_half_open(struct foe *f, uint8_t *to)
{
    size_t n = sizeof(upgrade) - 1;

    switch ((f->id + f->n) % 6) {
    case 0:
        return 0;
    case 1: /* half a head */
        memcpy(to, upgrade, n);
        return 1 + any() % (n - 1);
    case 2: /* and no more */
        memcpy(to, upgrade, n);
        return n;
    case 3: /* half a frame */
        memcpy(to, upgrade, n);
        return n + ws_client_head_encode(to + n, WS_OP_BINARY, true, 2000, key) +
               any_bytes(to + n + 8, 1000);
    case 4: /* a handshake of TLS, where there is none */
        memcpy(to, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
        return 11 + any_bytes(to + 11, 300);
    default:
        return any_bytes(to, 1 + any() % 1000);
    }
}

static size_t make_junk(struct foe *f, uint8_t *to)
{
    uint8_t junk[200];

    switch (f->n % 6) {
    case 0:
        return say(to, "junk");
    case 1:
        return frame(to, WS_OP_PING, true, "x", 1);
    case 2:
        return say(to, "{\"type\":\"ping\",\"timestamp\":1}");
    case 3:
        return say(to, "{\"type\":\"pex_handshake\"}");
    case 4:
        return say(to, "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"x\",\"payload\":%s}",
                   payload());
    default:
        return frame(to, WS_OP_BINARY, true, junk, any_bytes(junk, sizeof(junk)));
    }
}

static size_t make_pings(struct foe *f, uint8_t *to)
{
    uint8_t said[WS_CONTROL_MAX];

    return frame(to, f->n % 8 == 7 ? WS_OP_PONG : WS_OP_PING, true, said,
                 any_bytes(said, f->n % sizeof(said)));
}

static size_t make_bad_json(struct foe *f, uint8_t *to)
{
    static const char *const bad[] = {
        "",
        "{",
        "null",
        "[]",
        "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"y\",\"payload\":[1,2,",
        "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"y\",\"payload\":[256]}",
        "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"y\",\"payload\":[-1,1e3,\"a\"]}",
        "{\"type\":\"relay_message\",\"to\":\"\\ud800\",\"payload\":[]}",
        "{\"type\":\"no_such_thing\",\"a\":{\"b\":[{\"c\":[[[[[[[[[[[[]]]]]]]]]]]]}]}}",
        "{\"type\":7}",
        "{\"type\":\"ping\",\"type\":\"ping\",\"timestamp\":1}",
        "{\"type\":\"ping\",\"timestamp\":-1}",
        "{\"type\":\"ping\",\"timestamp\":1}trailing",
        "{\"type\":\"broadcast\",\"payload\":[1],\"exclude\":[1,2,3]}",
        "{'type':'ping'}",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    };

    return say(to, "%s", bad[f->n % ARRAY_LEN(bad)]);
}

/* A message that is a ping, a byte at a time with nothing in between, and at last it is whole. */
static size_t make_fragments(struct foe *f, uint8_t *to)
{
    static const char text[] = "{\"type\":\"ping\",\"timestamp\":1}";
    const unsigned last = 2 * (sizeof(text) - 1) - 1;
    unsigned at = f->piece;

    f->piece = at == last ? 0 : at + 1;
    return frame(to, at ? WS_OP_CONTINUATION : WS_OP_TEXT, at == last, text + at / 2, at % 2);
}

static size_t make_unknown_target(struct foe *f, uint8_t *to)
{
    return say(to,
               "{\"type\":\"relay_message\",\"from\":\"x\",\"to\":\"%016" PRIx64
               "nobody\",\"payload\":%s,\"seq\":%" PRIu64 "}",
               any(), payload(), f->n);
}

static const struct kind kinds[] = {
    { "not-reading", JOINED, true, false, make_not_reading },
    { "excludes", JOINED, false, true, make_excludes },
    { "networks", JOINED, false, false, make_networks },
    { "half-open", FRESH, false, false, make_half_open },
    { "junk", UPGRADED, false, false, make_junk },
    { "pings", JOINED, false, false, make_pings },
    { "bad-json", JOINED, false, false, make_bad_json },
    { "fragments", JOINED, false, false, make_fragments },
    { "unknown-target", JOINED, false, false, make_unknown_target },
};

bool ld_foe_set(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            kind = &kinds[i];
    return kind != NULL;
}

const char *ld_foe_names(void)
{
    static char all[256];
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", i ? ", " : "", kinds[i].name);
    return all;
}

/* ---- connections -------------------------------------------------------------------------------
 */

static void hang_up(struct foe *f, bool by_relay)
{
    static const struct linger now = { .l_onoff = 1 };
    int *fds[] = { &f->fd, &f->deaf };

    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        if (*fds[i] < 0)
            continue;
        /* No place of this host shall be kept by what has ended; but most do say goodbye. */
        if (by_relay || any() % 4 == 0)
            (void)setsockopt(*fds[i], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(*fds[i]);
        *fds[i] = -1;
    }
    f->out_n = f->out_at = 0;
    f->under_way = 0;
    f->piece = 0;
    g.ended += by_relay;
}

static int dial(bool deaf, bool wait)
{
    const struct timeval patience = { .tv_sec = WAIT_S };
    const int one = 1, small = SMALL;
    bool v4 = netaddr_is4(&ld_opt.at);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(ld_opt.at.port) };
    struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(ld_opt.at.port) };
    struct sockaddr_in from = { .sin_family = AF_INET,
                                .sin_addr.s_addr =
                                    htonl(0x7f420001 + (uint32_t)(g.opened % SOURCES)) };
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

    if (fd < 0)
        ld_die("socket: %s", strerror(errno));
    memcpy(&to.sin_addr, ld_opt.at.ip + 12, 4);
    memcpy(&to6.sin6_addr, ld_opt.at.ip, 16);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (deaf || kind->deaf) /* what waits shall wait in the relay */
        (void)setsockopt(fd, SOL_SOCKET, deaf ? SO_RCVBUF : SO_SNDBUF, &small, sizeof(small));
    if (v4 && ld_opt.at.ip[12] == 127) { /* ports of one address would not last for a flood */
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        (void)bind(fd, (struct sockaddr *)&from, sizeof(from));
    }
    if (!wait && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        ld_die("fcntl: %s", strerror(errno));
    g.opened++;
    rc = v4 ? connect(fd, (struct sockaddr *)&to, sizeof(to))
            : connect(fd, (struct sockaddr *)&to6, sizeof(to6));
    if (rc == 0 || (!wait && errno == EINPROGRESS))
        return fd;
    close(fd);
    return -1;
}

/* Says it, and reads until the answer has all of that in it. */
static bool ask(int fd, const void *p, size_t n, const char *answer)
{
    char text[4096];
    size_t have = 0;

    if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
        return false;
    while (have < sizeof(text)) {
        ssize_t rc = recv(fd, text + have, sizeof(text) - have, 0);

        if (rc <= 0)
            return false;
        have += (size_t)rc;
        if (memmem(text, have, answer, strlen(answer)))
            return true;
    }
    return false;
}

static int join(const struct foe *f, bool deaf)
{
    static const char joined[] = "{\"type\":\"register_ack\",\"success\":true,";
    unsigned network = kind->deaf ? f->id : 0;
    int fd = dial(deaf, true);
    uint8_t text[FRAME_MAX];
    size_t n;

    if (fd < 0)
        return -1;
    n = say_register(text, deaf ? "deaf" : "0000", f->id, 0, network);
    if (ask(fd, upgrade, sizeof(upgrade) - 1, "\r\n\r\n") &&
        (kind->way == UPGRADED || ask(fd, text, n, joined)))
        return fd;
    close(fd);
    return -1;
}

/* Connected as its kind is; or not now. */
static bool come(struct foe *f, uint64_t now_ns)
{
    if (f->fd >= 0)
        return true;
    if (now_ns < f->retry_ns)
        return false;
    f->fd = join(f, false);
    if (f->fd >= 0 && kind->deaf)
        f->deaf = join(f, true);
    f->moved_ns = now_ns;
    if (f->fd >= 0 && (f->deaf >= 0 || !kind->deaf))
        return true;
    if (!g.ready)
        ld_die("foe %u: not let in", f->id);
    hang_up(f, false);
    g.refused++;
    f->retry_ns = now_ns + RETRY_NS;
    return false;
}

static void listen_to(struct foe *f)
{
    static uint8_t scratch[READ_BYTES];

    for (unsigned i = 0; i < READS && f->fd >= 0; i++) {
        ssize_t rc = recv(f->fd, scratch, sizeof(scratch), MSG_DONTWAIT);

        if (rc < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTCONN))
            return;
        if (rc <= 0)
            hang_up(f, true);
        else
            g.heard += (uint64_t)rc;
    }
}

static void listen_to_all(uint64_t now_ns)
{
    if (now_ns - g.read_ns < READ_NS)
        return;
    g.read_ns = now_ns;
    for (unsigned i = 0; i < ld_opt.conns; i++)
        listen_to(&g.foes[i]);
}

/* ---- saying it --------------------------------------------------------------------------------
 */

/* One that was there goes, and another comes. */
static uint64_t say_hello(struct foe *f)
{
    size_t n;

    hang_up(f, false);
    f->fd = dial(false, false);
    if (f->fd < 0) {
        g.refused++;
        return 1;
    }
    n = kind->make(f, f->out);
    f->n++;
    if (n)
        (void)!send(f->fd, f->out, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return 1;
}

/* Sends what lies ready; as many frames as have gone with it when the last of them has. */
static uint64_t flush(struct foe *f, uint64_t now_ns)
{
    ssize_t rc = send(f->fd, f->out + f->out_at, f->out_n - f->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
    uint64_t done = 0;

    if (rc < 0 && errno != EAGAIN && errno != EINTR) {
        hang_up(f, true);
    } else if (rc > 0) {
        f->out_at += (size_t)rc;
        f->moved_ns = now_ns;
        if (f->out_at == f->out_n) {
            done = f->under_way;
            f->out_at = f->out_n = 0;
            f->under_way = 0;
        }
    } else if (kind->deaf && now_ns - f->moved_ns > STUCK_NS) {
        hang_up(f, false);
    }
    return done;
}

static uint64_t say_frames(struct foe *f, uint64_t due, uint64_t now_ns)
{
    size_t most = kind->big ? OUT_MAX : FRAME_MAX;

    if (!come(f, now_ns))
        return 0;
    while (f->out_at == 0 && f->under_way < min_u64(due, BATCH) && f->out_n + most <= OUT_MAX) {
        f->out_n += kind->make(f, f->out + f->out_n);
        f->under_way++;
        f->n++;
    }
    return f->out_n ? flush(f, now_ns) : 0;
}

static void publish(void)
{
    ld_counters[LD_CT_OPS] = g.ops;
    ld_counters[LD_CT_OPENED] = g.opened;
    ld_counters[LD_CT_ENDED] = g.ended;
}

static void run_for(double s)
{
    const struct timespec nap = { 0, NAP_NS * (ld_opt.burst_ms ? ld_opt.burst_ms : 1) };
    uint64_t now = load_now_ns(), until = now + (uint64_t)(s * 1e9);

    for (; now < until && !ld_counters[LD_CT_STOP]; now = load_now_ns()) {
        uint64_t due = ld_due(&g.due, now), before = g.ops;

        for (unsigned i = 0; due && i < ld_opt.conns; i++) {
            struct foe *f = &g.foes[g.next++ % ld_opt.conns];
            uint64_t n = kind->way == FRESH ? say_hello(f) : say_frames(f, due, now);

            n = min_u64(n, due);
            due -= n;
            g.due.n -= (double)n;
            g.ops += n;
        }
        listen_to_all(now);
        publish();
        ld_progress("%s: %" PRIu64 " ops", kind->name, g.ops);
        if (g.ops == before || !due)
            nanosleep(&nap, NULL);
    }
}

static void get_ready(void)
{
    g.random = ld_opt.seed;
    ASSERT((g.foes = calloc(ld_opt.conns, sizeof(*g.foes))) != NULL);
    for (unsigned i = 0; i < ld_opt.conns; i++) {
        struct foe *f = &g.foes[i];

        *f = (struct foe){ .id = i, .fd = -1, .deaf = -1 };
        ASSERT((f->out = malloc(kind->big || kind->way != FRESH ? OUT_MAX : FRAME_MAX)) != NULL);
        if (kind->way != FRESH)
            (void)come(f, load_now_ns());
    }
    g.ready = true;
}

int ld_run_foe(void)
{
    static struct ld_report r;
    uint64_t ops;

    get_ready();
    g.due.at_ns = load_now_ns();
    run_for(ld_opt.warm_s);
    ops = g.ops;
    ld_report_begin(&r);
    run_for(ld_opt.duration_s);
    ld_report_end(&r);
    ops = g.ops - ops;

    double s = (double)r.used.wall_ns / 1e9;
    double cpu = (double)(r.used.server_ns + r.used.softirq_ns);

    printf("{\"ok\":true,\"mode\":\"foe\",\"foe\":\"%s\",\"seconds\":%.3f,\"ops\":%" PRIu64
           ",\"total_ops\":%" PRIu64 ",\"ops_per_s\":%.0f,\"opened\":%" PRIu64 ",\"ended\":%" PRIu64
           ",\"refused\":%" PRIu64 ",\"heard\":%" PRIu64
           ",\"server_share\":%.4f,\"server_cpu_us_per_op\":%.3f,\"generator_cpu_s\":%.4f}\n",
           kind->name, s, ops, g.ops, (double)ops / s, g.opened, g.ended, g.refused, g.heard,
           cpu / 1e9 / s, ops ? cpu / 1e3 / (double)ops : 0, (double)r.used.self_ns / 1e9);
    for (unsigned i = 0; i < ld_opt.conns; i++)
        hang_up(&g.foes[i], false);
    return 0;
}
