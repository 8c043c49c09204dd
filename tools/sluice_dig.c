/* sluice-dig: a node of a DIG relay: registers, asks who is there, sends bytes to another node or
 * waits for what others send, and says what came of it: one line each, as NAME=VALUE. For demos,
 * tests and doubts at night. */
#include <argp.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <yyjson.h>

#include "tools/dig_client.h"

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_NOBODY = 3,
    MESSAGES_MAX = 100000,
    SECONDS_MAX = 86400,
    ID_BYTES = 32,
};

enum mode { MODE_NONE, MODE_REGISTER, MODE_SEND, MODE_LISTEN, MODE_PEERS };

static struct {
    enum mode mode;
    const char *server, *id, *net, *to;
    struct netaddr bind;
    bool has_bind, echo, list;
    unsigned messages, bytes, timeout_s;
} opt = { .net = "sluice-dig", .messages = 32, .bytes = 1000, .timeout_s = 10 };

static const struct argp_option options[] = {
    { "id", 'i', "TEXT", 0, "the peer_id (64 random hexadecimal digits)", 0 },
    { "network", 'w', "TEXT", 0, "the network_id (sluice-dig)", 0 },
    { "to", 'o', "TEXT", 0, "send: whom", 0 },
    { "messages", 'n', "N", 0, "send: how many; listen: end behind so many (32)", 0 },
    { "bytes", 's', "N", 0, "send: in each (1000)", 0 },
    { "echo", 'e', NULL, 0,
      "listen: send every message back; send: wait for each to be back, and compare", 0 },
    { "list", 'l', NULL, 0, "listen: ask who is there whenever a node has come", 0 },
    { "bind", 'b', "IP", 0, "the local address", 0 },
    { "timeout", 'T', "SECS", 0, "give up after this (10)", 0 },
    { 0 },
};
static const char doc[] =
    "A node of a DIG relay, over WebSocket without TLS."
    "\v"
    "  register HOST:PORT   registers, and leaves\n"
    "  peers HOST:PORT      registers, and says who is on its network\n"
    "  send HOST:PORT       registers, and sends bytes to the node --to\n"
    "  listen HOST:PORT     registers, says who comes and goes and what is sent to it, and ends "
    "when "
    "it has had --messages and their sender has left\n"
    "Exit status: 0 as it should be, 1 not, 2 not understood, 3 there is no DIG relay.";

/* ---- the command line ------------------------------------------------------------------------
 */

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

static enum mode mode_of(const char *word)
{
    static const char *const words[] = { [MODE_REGISTER] = "register",
                                         [MODE_SEND] = "send",
                                         [MODE_LISTEN] = "listen",
                                         [MODE_PEERS] = "peers" };

    for (unsigned i = MODE_REGISTER; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i], word) == 0)
            return (enum mode)i;
    return MODE_NONE;
}

static const char *name_of(char *arg, struct argp_state *state)
{
    if (!dig_name_ok(bytes_str(arg)))
        argp_error(state, "a name is 1 to %d bytes without control characters", DIG_NAME_MAX);
    return arg;
}

static void on_end(struct argp_state *state)
{
    if (!opt.server)
        argp_error(state, "what and whom: register, peers, send or listen, then HOST:PORT");
    if ((opt.mode == MODE_SEND) != (opt.to != NULL))
        argp_error(state, "--to goes with send, and send with --to");
}

static error_t on_option(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case 'i':
        opt.id = name_of(arg, state);
        return 0;
    case 'w':
        opt.net = name_of(arg, state);
        return 0;
    case 'o':
        opt.to = name_of(arg, state);
        return 0;
    case 'n':
        if (!number_of(arg, MESSAGES_MAX, &opt.messages))
            argp_error(state, "--messages is 1 to %d", MESSAGES_MAX);
        return 0;
    case 's':
        if (!number_of(arg, DC_BYTES_MAX, &opt.bytes))
            argp_error(state, "--bytes is 1 to %d", DC_BYTES_MAX);
        return 0;
    case 'e':
        opt.echo = true;
        return 0;
    case 'l':
        opt.list = true;
        return 0;
    case 'b':
        opt.has_bind = ip_of(arg, &opt.bind);
        if (!opt.has_bind)
            argp_error(state, "--bind: '%s' is no IP address", arg);
        return 0;
    case 'T':
        if (!number_of(arg, SECONDS_MAX, &opt.timeout_s))
            argp_error(state, "--timeout is 1 to %d", SECONDS_MAX);
        return 0;
    case ARGP_KEY_ARG:
        if (opt.mode == MODE_NONE && mode_of(arg) != MODE_NONE)
            opt.mode = mode_of(arg);
        else if (opt.mode != MODE_NONE && !opt.server)
            opt.server = arg;
        else
            argp_error(state, "unexpected: %s", arg);
        return 0;
    case ARGP_KEY_END:
        on_end(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- messages --------------------------------------------------------------------------------
 */

/* What others chose: one word, for terminals and for whoever reads NAME=VALUE. */
static void put_word(const char *text)
{
    for (; text && *text; text++)
        putchar(*text > ' ' && *text < 0x7f && *text != ',' && *text != '=' ? *text : '?');
}

static int failed(const struct dc *c, const char *what)
{
    fprintf(stderr, "sluice-dig: %s: %s\n", what, c->why[0] ? c->why : "nothing in time");
    return EXIT_FAILED;
}

struct said {
    yyjson_doc *doc;
    yyjson_val *root;
    const char *type;
};

/* The next message, parsed; freed with the next one. */
static bool hear(struct dc *c, struct said *s)
{
    struct bytes text;

    yyjson_doc_free(s->doc);
    s->doc = NULL;
    if (!dc_next(c, c->tcp.deadline_ms, &text))
        return false;
    s->doc = yyjson_read((const char *)text.p, text.n, 0);
    s->root = yyjson_doc_get_root(s->doc);
    s->type = yyjson_get_str(yyjson_obj_get(s->root, "type"));
    return s->type || dc_failed(c, "what the relay says is no message");
}

static const char *text_of(const struct said *s, const char *key)
{
    const char *text = yyjson_get_str(yyjson_obj_get(s->root, key));

    return text ? text : "";
}

static bool is(const struct said *s, const char *type)
{
    return strcmp(s->type, type) == 0;
}

/* The payload of a relay_message; false: it is none, or too long. */
static bool payload_of(const struct said *s, uint8_t out[DC_BYTES_MAX], size_t *n)
{
    yyjson_val *list = yyjson_obj_get(s->root, "payload"), *one;
    size_t i, max;

    *n = 0;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) > DC_BYTES_MAX)
        return false;
    yyjson_arr_foreach(list, i, max, one)
    {
        if (!yyjson_is_uint(one) || yyjson_get_uint(one) > UINT8_MAX)
            return false;
        out[(*n)++] = (uint8_t)yyjson_get_uint(one);
    }
    return true;
}

static void print_peers(const struct said *s)
{
    yyjson_val *list = yyjson_obj_get(s->root, "peers"), *one;
    size_t i, max;

    printf("peers count=%zu ids=", yyjson_arr_size(list));
    yyjson_arr_foreach(list, i, max, one)
    {
        if (i)
            putchar(',');
        put_word(yyjson_get_str(yyjson_obj_get(one, "peer_id")));
    }
    putchar('\n');
}

static bool ask_peers(struct dc *c)
{
    return dc_say(c, bytes_str("{\"type\":\"get_peers\"}"));
}

/* Presence goes by; an error is the end. */
static bool hear_until(struct dc *c, struct said *s, const char *type)
{
    while (hear(c, s)) {
        if (is(s, type))
            return true;
        if (is(s, "error"))
            return dc_failed(c, "the relay says code %" PRIu64,
                             yyjson_get_uint(yyjson_obj_get(s->root, "code")));
    }
    return false;
}

/* ---- what it does ----------------------------------------------------------------------------
 */

struct sums {
    crypto_hash_sha256_state out, in;
    unsigned messages;
    size_t bytes;
};

static void sums_init(struct sums *s)
{
    *s = (struct sums){ 0 };
    crypto_hash_sha256_init(&s->out);
    crypto_hash_sha256_init(&s->in);
}

static void sum_text(crypto_hash_sha256_state *of, char text[65])
{
    uint8_t digest[32];

    crypto_hash_sha256_final(of, digest);
    sodium_bin2hex(text, 65, digest, sizeof(digest));
}

static int do_peers(struct dc *c)
{
    struct said s = { 0 };
    bool ok = ask_peers(c) && hear_until(c, &s, "peers");

    if (ok)
        print_peers(&s);
    yyjson_doc_free(s.doc);
    return ok ? 0 : failed(c, "peers");
}

/* Byte by byte a function of the message's number. */
static void fill(uint8_t *data, size_t n, uint32_t number)
{
    uint8_t seed[randombytes_SEEDBYTES] = { 0 };

    put_u32(seed, number);
    randombytes_buf_deterministic(data, n, seed);
}

static bool send_one(struct dc *c, struct said *s, uint32_t number, struct sums *sums)
{
    static uint8_t data[DC_BYTES_MAX], back[DC_BYTES_MAX];
    size_t n;

    fill(data, opt.bytes, number);
    if (!dc_relay(c, bytes_str(opt.to), bytes_of(data, opt.bytes), number))
        return false;
    crypto_hash_sha256_update(&sums->out, data, opt.bytes);
    sums->messages++;
    sums->bytes += opt.bytes;
    if (!opt.echo)
        return true;
    do
        if (!hear_until(c, s, "relay_message"))
            return false;
    while (strcmp(text_of(s, "from"), opt.to) != 0);
    if (!payload_of(s, back, &n))
        return dc_failed(c, "what came back is no payload of ours");
    crypto_hash_sha256_update(&sums->in, back, n);
    return true;
}

/* Behind the last message, so that a `code 3` for one of them is heard. */
static bool all_taken(struct dc *c, struct said *s)
{
    return opt.echo || (dc_say(c, bytes_str("{\"type\":\"ping\",\"timestamp\":1}")) &&
                        hear_until(c, s, "pong"));
}

static int do_send(struct dc *c)
{
    struct said s = { 0 };
    struct sums sums;
    char out[65], in[65];
    bool ok, same;

    sums_init(&sums);
    ok = ask_peers(c) && hear_until(c, &s, "peers");
    if (ok)
        print_peers(&s);
    for (uint32_t i = 0; ok && i < opt.messages; i++)
        ok = send_one(c, &s, i, &sums);
    ok = ok && all_taken(c, &s);
    yyjson_doc_free(s.doc);
    if (!ok)
        return failed(c, "send");
    sum_text(&sums.out, out);
    sum_text(&sums.in, in);
    same = !opt.echo || strcmp(out, in) == 0;
    printf("sent messages=%u bytes=%zu sent-sha256=%s", sums.messages, sums.bytes, out);
    if (opt.echo)
        printf(" received-sha256=%s match=%s", in, same ? "yes" : "no");
    putchar('\n');
    return same ? 0 : EXIT_FAILED;
}

static bool on_relayed(struct dc *c, const struct said *s, struct sums *sums)
{
    static uint8_t data[DC_BYTES_MAX];
    const char *from = text_of(s, "from");
    uint64_t seq = yyjson_get_uint(yyjson_obj_get(s->root, "seq"));
    size_t n;

    if (!payload_of(s, data, &n))
        return dc_failed(c, "a relay_message without a payload of ours");
    crypto_hash_sha256_update(&sums->in, data, n);
    sums->bytes += n;
    if (++sums->messages == opt.messages) {
        char in[65];

        sum_text(&sums->in, in);
        printf("received messages=%u bytes=%zu received-sha256=%s from=", sums->messages,
               sums->bytes, in);
        put_word(from);
        putchar('\n');
    }
    return !opt.echo || dc_relay(c, bytes_str(from), bytes_of(data, n), seq);
}

/* Who comes and goes. */
static bool on_presence(struct dc *c, const struct said *s)
{
    bool came = is(s, "peer_connected");
    const char *id = text_of(s, "peer_id");

    if (!came && !is(s, "peer_disconnected"))
        return true;
    if (came)
        id = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(s->root, "peer"), "peer_id"));
    printf("%s peer=", came ? "connected" : "disconnected");
    put_word(id);
    putchar('\n');
    return !came || !opt.list || ask_peers(c);
}

static int do_listen(struct dc *c)
{
    char last[DIG_NAME_MAX + 1] = "";
    struct said s = { 0 };
    struct sums sums;
    bool ok = true, done = false;

    sums_init(&sums);
    while (ok && !done && (ok = hear(c, &s))) {
        if (is(&s, "relay_message") && sums.messages < opt.messages) {
            snprintf(last, sizeof(last), "%s", text_of(&s, "from"));
            ok = on_relayed(c, &s, &sums);
        } else if (is(&s, "peers")) {
            print_peers(&s);
        } else {
            ok = on_presence(c, &s);
            done = sums.messages == opt.messages && is(&s, "peer_disconnected") &&
                   strcmp(text_of(&s, "peer_id"), last) == 0;
        }
    }
    yyjson_doc_free(s.doc);
    return ok ? 0 : failed(c, "listen");
}

static int run(struct dc *c)
{
    uint64_t connected;

    if (!dc_register(c, &connected))
        return failed(c, "register");
    printf("registered peer=");
    put_word(c->id);
    printf(" network=");
    put_word(c->net);
    printf(" connected=%" PRIu64 "\n", connected);
    switch (opt.mode) {
    case MODE_PEERS:
        return do_peers(c);
    case MODE_SEND:
        return do_send(c);
    case MODE_LISTEN:
        return do_listen(c);
    default:
        return 0;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = { options, on_option, "register|peers|send|listen HOST:PORT",
                                      doc,     NULL,      NULL,
                                      NULL };
    static struct dc c = { .tcp.fd = -1 };
    uint8_t random[ID_BYTES];
    char id[2 * ID_BYTES + 1];
    struct netaddr server;
    int status;

    argp_err_exit_status = EXIT_USAGE;
    if (sodium_init() < 0 || argp_parse(&argp, argc, argv, 0, NULL, NULL))
        return EXIT_USAGE;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!tc_resolve(opt.server, &server))
        return EXIT_USAGE;
    randombytes_buf(random, sizeof(random));
    sodium_bin2hex(id, sizeof(id), random, sizeof(random));
    c.id = opt.id ? opt.id : id;
    c.net = opt.net;
    if (!dc_open(&c, &server, opt.has_bind ? &opt.bind : NULL,
                 tc_now_ms() + (uint64_t)opt.timeout_s * 1000)) {
        (void)failed(&c, opt.server);
        status = c.spoke ? EXIT_FAILED : EXIT_NOBODY;
    } else {
        status = run(&c);
    }
    (void)dc_close(&c);
    return status;
}
