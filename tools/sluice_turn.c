/* sluice-turn: asks a STUN server where one is, or has a TURN server carry bytes there and back,
 * and says what came of it: one line each, as NAME=VALUE. For demos, tests and doubts at night. */
#include <argp.h>
#include <inttypes.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/ctl_json.h"
#include "tools/turn_client.h"

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    DATAGRAM_BYTES = 1000,
    DATAGRAMS_MAX = 100000,
    TRIES_MAX = 8, /* of one datagram: they may get lost */
    TRY_MS = 250,
    CHANNEL = 0x4001,
    CREDENTIALS_BYTES = 8192,
};

static struct {
    const char *mode, *server, *credentials, *user, *password;
    bool tcp, through_relay, has_bind;
    struct netaddr bind;
    unsigned datagrams, timeout_s;
} opt = { .datagrams = 32, .timeout_s = 5 };

static const struct argp_option options[] = {
    { "tcp", 't', NULL, 0, "reach the server over TCP", 0 },
    { "user", 'u', "NAME", 0, "the username", 0 },
    { "password", 'p', "TEXT", 0, "the password; who lists processes sees it", 0 },
    { "credentials", 'c', "FILE", 0,
      "both, as `sluicectl turn-credentials` writes them; - is stdin", 0 },
    { "datagrams", 'n', "N", 0, "how many of 1000 bytes (32)", 0 },
    { "bind", 'b', "IP", 0,
      "the local address, also of the peer: a server refuses peers at its own", 0 },
    { "through-relay", 'r', NULL, 0,
      "the peer is a second allocation instead of a socket here, which the server may not reach",
      0 },
    { "timeout", 'T', "SECS", 0, "give up after this (5)", 0 },
    { 0 },
};
static const char doc[] = "Tries a STUN or TURN server."
                          "\v"
                          "  stun HOST:PORT   asks where we are\n"
                          "  echo HOST:PORT   allocates, binds a channel to a peer that sends all "
                          "back, and compares\n"
                          "Exit status: 0 as it should be, 1 not, 2 not understood.";

/* ---- the command line ---------------------------------------------------------------------- */

static bool number_of(const char *text, unsigned max, unsigned *out)
{
    uint64_t v;

    if (!netaddr_parse_decimal(bytes_str(text), max, &v) || v == 0)
        return false;
    *out = (unsigned)v;
    return true;
}

static bool ip_of(const char *text, struct netaddr *out)
{
    char with_port[64];

    snprintf(with_port, sizeof(with_port), strchr(text, ':') ? "[%.45s]:0" : "%.45s:0", text);
    return netaddr_parse(bytes_str(with_port), out);
}

static error_t on_option(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case 't':
        opt.tcp = true;
        return 0;
    case 'u':
        opt.user = arg;
        return 0;
    case 'p':
        opt.password = arg;
        return 0;
    case 'c':
        opt.credentials = arg;
        return 0;
    case 'n':
        if (!number_of(arg, DATAGRAMS_MAX, &opt.datagrams))
            argp_error(state, "--datagrams is 1 to %d", DATAGRAMS_MAX);
        return 0;
    case 'b':
        opt.has_bind = ip_of(arg, &opt.bind);
        if (!opt.has_bind)
            argp_error(state, "--bind: '%s' is no IP address", arg);
        return 0;
    case 'r':
        opt.through_relay = true;
        return 0;
    case 'T':
        if (!number_of(arg, 3600, &opt.timeout_s))
            argp_error(state, "--timeout is 1 to 3600");
        return 0;
    case ARGP_KEY_ARG:
        if (!opt.mode && (strcmp(arg, "stun") == 0 || strcmp(arg, "echo") == 0))
            opt.mode = arg;
        else if (opt.mode && !opt.server)
            opt.server = arg;
        else
            argp_error(state, "unexpected: %s", arg);
        return 0;
    case ARGP_KEY_END:
        if (!opt.server)
            argp_error(state, "what and whom: stun or echo, then HOST:PORT");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* One line of JSON with username and password. */
static bool read_credentials(void)
{
    static char text[CREDENTIALS_BYTES], user[CTL_VALUE], password[CTL_VALUE];
    bool standard = strcmp(opt.credentials, "-") == 0;
    FILE *f = standard ? stdin : fopen(opt.credentials, "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    if (f && !standard)
        fclose(f);
    text[n] = '\0';
    opt.user = ctl_get(text, "username", user);
    opt.password = ctl_get(text, "password", password);
    if (opt.user[0] && opt.password[0])
        return true;
    fprintf(stderr, "sluice-turn: no username and password in %s\n", opt.credentials);
    return false;
}

/* ---- what it does -------------------------------------------------------------------------- */

static int say_failed(const char *what, const struct tc *c)
{
    fprintf(stderr, "sluice-turn: %s: %s\n", what, c->why);
    return EXIT_FAILED;
}

static int do_stun(struct tc *c)
{
    char mapped_text[NETADDR_TEXT_MAX], local_text[NETADDR_TEXT_MAX];
    struct netaddr mapped;

    if (!tc_binding(c, &mapped))
        return say_failed("binding", c);
    netaddr_text(&mapped, mapped_text);
    netaddr_text(&c->local, local_text);
    printf("binding mapped=%s local=%s same=%s\n", mapped_text, local_text,
           mapped.port == c->local.port && memcmp(mapped.ip, c->local.ip, 16) == 0 ? "yes" : "no");
    return 0;
}

/* Who sends everything back: a socket of ours, or a second client whose relayed address it is. */
struct peer {
    int fd; /* what is waited for */
    struct tc *client;
    struct netaddr at, relayed; /* where it is; from where it may hear */
    uint64_t strangers;
};

static void peer_echo(struct peer *p)
{
    uint8_t buf[TC_IN_BYTES];
    struct chandata m;
    struct netaddr from;
    size_t n;

    if (p->client) {
        while (tc_next(p->client, 0, &m))
            if (m.channel == CHANNEL)
                (void)tc_send(p->client, CHANNEL, m.data);
        return;
    }
    while (tc_recv_from(p->fd, buf, sizeof(buf), &n, &from)) {
        if (from.port != p->relayed.port)
            p->strangers++;
        else
            (void)tc_send_to(p->fd, bytes_of(buf, n), &from);
    }
}

/* Byte by byte a function of the datagram's number. */
static void fill(uint8_t data[DATAGRAM_BYTES], uint32_t number)
{
    uint8_t seed[randombytes_SEEDBYTES] = { 0 };

    put_u32(seed, number);
    randombytes_buf_deterministic(data, DATAGRAM_BYTES, seed);
}

/* Sends one and waits until it is back, whole; again if it is not. */
static bool there_and_back(struct tc *c, struct peer *p, const uint8_t *data, uint8_t *back)
{
    for (int i = 0; i < TRIES_MAX && tc_now_ms() < c->deadline_ms; i++) {
        uint64_t until_ms = min_u64(tc_now_ms() + TRY_MS, c->deadline_ms);

        if (!tc_send(c, CHANNEL, bytes_of(data, DATAGRAM_BYTES)))
            return false;
        while (tc_now_ms() < until_ms) {
            struct pollfd fds[] = { { .fd = c->fd, .events = POLLIN },
                                    { .fd = p->fd, .events = POLLIN } };
            struct chandata m;

            if (poll(fds, 2, (int)(until_ms - tc_now_ms()) + 1) <= 0)
                break;
            if (fds[1].revents)
                peer_echo(p);
            if (!fds[0].revents || !tc_next(c, 0, &m) || m.channel != CHANNEL ||
                m.data.n != DATAGRAM_BYTES)
                continue;
            memcpy(back, m.data.p, DATAGRAM_BYTES);
            if (memcmp(back, data, 4) == 0) /* not one that came twice */
                return true;
        }
    }
    snprintf(c->why, sizeof(c->why), "a datagram did not come back");
    return false;
}

static int carry(struct tc *c, struct peer *p)
{
    uint8_t data[DATAGRAM_BYTES], back[DATAGRAM_BYTES], digest[2][32];
    crypto_hash_sha256_state out, in;
    char text[2][65];
    bool same;

    crypto_hash_sha256_init(&out);
    crypto_hash_sha256_init(&in);
    for (uint32_t i = 0; i < opt.datagrams; i++) {
        fill(data, i);
        put_u32(data, i);
        if (!there_and_back(c, p, data, back))
            return say_failed("echo", c);
        crypto_hash_sha256_update(&out, data, sizeof(data));
        crypto_hash_sha256_update(&in, back, sizeof(back));
    }
    crypto_hash_sha256_final(&out, digest[0]);
    crypto_hash_sha256_final(&in, digest[1]);
    sodium_bin2hex(text[0], sizeof(text[0]), digest[0], 32);
    sodium_bin2hex(text[1], sizeof(text[1]), digest[1], 32);
    same = strcmp(text[0], text[1]) == 0 && p->strangers == 0;
    printf("echo datagrams=%u bytes=%u sent-sha256=%s received-sha256=%s match=%s\n", opt.datagrams,
           opt.datagrams * DATAGRAM_BYTES, text[0], text[1], same ? "yes" : "no");
    return same ? 0 : EXIT_FAILED;
}

static bool allocate(struct tc *c, const char *who)
{
    char relayed[NETADDR_TEXT_MAX];

    if (!tc_allocate(c))
        return false;
    netaddr_text(&c->relayed, relayed);
    printf("allocated %s relayed=%s lifetime=%" PRIu32 "\n", who, relayed, c->lifetime_s);
    return true;
}

static bool peer_open(struct tc *c, struct tc *second, struct peer *p)
{
    struct netaddr at = c->local;

    p->relayed = c->relayed;
    if (!opt.through_relay) {
        at.port = 0;
        p->fd = tc_udp(&at, &p->at);
        if (p->fd < 0)
            snprintf(c->why, sizeof(c->why), "no socket for the peer");
        return p->fd >= 0;
    }
    second->user = opt.user;
    second->password = opt.password;
    p->client = second;
    if (!tc_open(second, &c->server, opt.tcp, opt.has_bind ? &opt.bind : NULL, c->deadline_ms) ||
        !allocate(second, "peer") || !tc_channel(second, CHANNEL, &c->relayed)) {
        memcpy(c->why, second->why, sizeof(c->why));
        return false;
    }
    p->fd = second->fd;
    p->at = second->relayed;
    return true;
}

/* What was allocated is given back, whatever came of it. */
static int do_echo(struct tc *c)
{
    static struct tc second = { .fd = -1 };
    struct peer p = { .fd = -1 };
    int status;

    if (!opt.user || !opt.password) {
        fprintf(stderr, "sluice-turn: echo needs --credentials, or --user and --password\n");
        return EXIT_USAGE;
    }
    c->user = opt.user;
    c->password = opt.password;
    if (!allocate(c, "client"))
        return say_failed("allocate", c);
    if (!peer_open(c, &second, &p))
        status = say_failed("peer", c);
    else if (!tc_channel(c, CHANNEL, &p.at))
        status = say_failed("channel", c);
    else
        status = carry(c, &p);
    if (second.lifetime_s && !tc_release(&second))
        status = say_failed("release", &second);
    if (!tc_release(c))
        status = say_failed("release", c);
    return status;
}

int main(int argc, char **argv)
{
    static const struct argp argp = { options, on_option, "stun|echo HOST:PORT", doc, NULL,
                                      NULL,    NULL };
    static struct tc c = { .fd = -1 };
    struct netaddr server;
    uint64_t deadline_ms;
    int status;

    argp_err_exit_status = EXIT_USAGE;
    if (sodium_init() < 0 || argp_parse(&argp, argc, argv, 0, NULL, NULL))
        return EXIT_USAGE;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if ((opt.credentials && !read_credentials()) || !tc_resolve(opt.server, &server))
        return EXIT_USAGE;
    deadline_ms = tc_now_ms() + (uint64_t)opt.timeout_s * 1000;
    if (!tc_open(&c, &server, opt.tcp, opt.has_bind ? &opt.bind : NULL, deadline_ms))
        return say_failed(opt.server, &c);
    status = strcmp(opt.mode, "stun") == 0 ? do_stun(&c) : do_echo(&c);
    tc_close(&c);
    return status;
}
