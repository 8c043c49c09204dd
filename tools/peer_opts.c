#include "tools/peer_opts.h"

#include "tools/peer_say.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

PRINTF_LIKE(2, 3) _Noreturn static void leave(int status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "sluice-peer: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "%s\n", status == 2 ? "; see sluice-peer --help" : "");
    va_end(ap);
    exit(status);
}

static uint64_t number_arg(const char *flag, const char *text, uint64_t max)
{
    uint64_t v;

    if (!netaddr_parse_decimal(bytes_str(text), max, &v))
        leave(2, "--%s %s: a number from 0 to %llu", flag, text, (unsigned long long)max);
    return v;
}

static double secs_arg(const char *flag, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*text == 0 || *end || !(v > 0 && v < 1e9))
        leave(2, "--%s %s: seconds, more than 0", flag, text);
    return v;
}

static enum mode mode_arg(const char *flag, const char *text, bool any)
{
    static const char *const names[] = { "echo", "sink", "hash", "any" };

    for (size_t i = 0; i < ARRAY_LEN(names) - !any; i++)
        if (!strcmp(text, names[i]))
            return (enum mode)i;
    leave(2, "--%s %s: one of echo, sink, hash%s", flag, text, any ? ", any" : "");
}

static const char *ip_arg(const char *flag, const char *text)
{
    uint8_t ip[16];

    if (inet_pton(AF_INET, text, ip) != 1 && inet_pton(AF_INET6, text, ip) != 1)
        leave(2, "--%s %s: an IP address", flag, text);
    return text;
}

/* ---- the relay's address ------------------------------------------------------------------- */

static bool host_part(struct peer_opts *o, const struct maddr_part *part)
{
    switch (part->code) {
    case MADDR_IP4:
        return inet_ntop(AF_INET, part->value.p, o->host, sizeof(o->host)) != NULL;
    case MADDR_IP6:
        return inet_ntop(AF_INET6, part->value.p, o->host, sizeof(o->host)) != NULL;
    case MADDR_DNS:
    case MADDR_DNS4:
    case MADDR_DNS6:
        if (part->value.n >= sizeof(o->host))
            return false;
        memcpy(o->host, part->value.p, part->value.n);
        o->host[part->value.n] = 0;
        return true;
    default:
        return false;
    }
}

/* HOST/tcp/PORT[/p2p/RELAY], and for dial /p2p-circuit/p2p/TARGET behind it. */
static bool address_parts(struct peer_opts *o, const struct maddr *m)
{
    struct cur rest = cur_of(maddr_bytes(m));
    struct maddr_part part;
    size_t relay_n;
    bool more;

    if (!maddr_next(&rest, &part) || !host_part(o, &part) || !maddr_next(&rest, &part) ||
        part.code != MADDR_TCP)
        return false;
    snprintf(o->port, sizeof(o->port), "%u", part.value.p[0] << 8 | part.value.p[1]);
    relay_n = m->n - rest.n;
    if (!maddr_text(bytes_of(m->b, relay_n), o->relay_text, sizeof(o->relay_text)))
        return false;
    more = maddr_next(&rest, &part);
    if (more && part.code == MADDR_P2P) {
        o->has_relay_id = peer_id_decode(part.value, &o->relay_id);
        if (!o->has_relay_id)
            return false;
        more = maddr_next(&rest, &part);
    }
    if (o->reserve)
        return !more && !rest.bad;
    return more && part.code == MADDR_P2P_CIRCUIT && maddr_next(&rest, &part) &&
           part.code == MADDR_P2P && peer_id_decode(part.value, &o->target) && rest.n == 0;
}

static void address_arg(struct peer_opts *o, const char *text)
{
    struct maddr m;

    if (!maddr_parse(bytes_str(text), &m))
        leave(2, "%s: not a multiaddr", text);
    if (!address_parts(o, &m))
        leave(2, "%s: expected %s", text,
              o->reserve ? "/ip4/HOST/tcp/PORT with or without /p2p/RELAY"
                         : "/ip4/HOST/tcp/PORT[/p2p/RELAY]/p2p-circuit/p2p/TARGET");
}

/* ---- options -------------------------------------------------------------------------------- */

enum opt_id {
    OPT_MODE = 1,
    OPT_CIRCUITS,
    OPT_STAY,
    OPT_BYTES,
    OPT_DATA_SEED,
    OPT_EXPECT,
    OPT_SEED,
    OPT_KEY,
    OPT_BIND,
    OPT_FORBID,
    OPT_TIMEOUT,
    OPT_JSON,
    OPT_HELP
};

static const struct option options[] = {
    { "mode", required_argument, NULL, OPT_MODE },
    { "circuits", required_argument, NULL, OPT_CIRCUITS },
    { "stay", required_argument, NULL, OPT_STAY },
    { "bytes", required_argument, NULL, OPT_BYTES },
    { "data-seed", required_argument, NULL, OPT_DATA_SEED },
    { "expect", required_argument, NULL, OPT_EXPECT },
    { "seed", required_argument, NULL, OPT_SEED },
    { "key", required_argument, NULL, OPT_KEY },
    { "bind", required_argument, NULL, OPT_BIND },
    { "forbid", required_argument, NULL, OPT_FORBID },
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { "json", no_argument, NULL, OPT_JSON },
    { "help", no_argument, NULL, OPT_HELP },
    { 0 },
};

static void one_option(struct peer_opts *o, enum opt_id id, const char *flag, const char *arg)
{
    switch (id) {
    case OPT_MODE:
        o->mode = mode_arg(flag, arg, false);
        break;
    case OPT_CIRCUITS:
        o->circuits_max = number_arg(flag, arg, UINT32_MAX);
        break;
    case OPT_STAY:
        o->stay_s = secs_arg(flag, arg);
        break;
    case OPT_BYTES:
        o->bytes = number_arg(flag, arg, UINT64_C(1) << 50);
        break;
    case OPT_DATA_SEED:
        o->data_seed = number_arg(flag, arg, UINT32_MAX);
        break;
    case OPT_EXPECT:
        o->expect = mode_arg(flag, arg, true);
        break;
    case OPT_SEED:
        o->seed = (int)number_arg(flag, arg, 255);
        break;
    case OPT_KEY:
        o->key = arg;
        break;
    case OPT_BIND:
        o->bind = ip_arg(flag, arg);
        break;
    case OPT_FORBID:
        if (o->forbid_n == FORBID_MAX)
            leave(2, "--forbid: at most %d times", FORBID_MAX);
        o->forbid[o->forbid_n++] = ip_arg(flag, arg);
        break;
    case OPT_TIMEOUT:
        o->timeout_s = secs_arg(flag, arg);
        break;
    case OPT_JSON:
        peer_json = true;
        break;
    case OPT_HELP:
        fputs(peer_usage, stdout);
        exit(0);
    }
}

void peer_opts_parse(struct peer_opts *o, int argc, char **argv)
{
    int id, index = 0;

    *o = (struct peer_opts){ .expect = MODE_ANY, .bytes = 65536, .data_seed = 1, .seed = -1 };
    opterr = 0;
    while ((id = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (id == '?')
            leave(2, "%s: unknown option, or its value is missing", argv[optind - 1]);
        one_option(o, (enum opt_id)id, options[index].name, optarg);
    }
    if (argc - optind != 2)
        leave(2, "expected a command, reserve or dial, and one address");
    o->reserve = !strcmp(argv[optind], "reserve");
    if (!o->reserve && strcmp(argv[optind], "dial"))
        leave(2, "%s: neither reserve nor dial", argv[optind]);
    if (o->key && o->seed >= 0)
        leave(2, "--key and --seed are two identities");
    address_arg(o, argv[optind + 1]);
}

static void key_file(const char *path, uint8_t seed[32])
{
    uint8_t file[128];
    struct identity me;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        identity_from_seed(seed, &me);
        identity_encode(&me, file);
        if (fd < 0 || write(fd, file, KEY_FILE_BYTES) != KEY_FILE_BYTES || close(fd))
            leave(1, "--key %s: %s", path, strerror(errno));
        return;
    }
    ssize_t n = fd < 0 ? -1 : read(fd, file, sizeof(file));

    if (n < 0)
        leave(1, "--key %s: %s", path, strerror(errno));
    close(fd);
    if (!identity_decode(bytes_of(file, (size_t)n), &me))
        leave(1, "--key %s: not an Ed25519 private key", path);
    memcpy(seed, me.sk, 32); /* libsodium's secret key begins with its seed */
}

void peer_opts_seed(const struct peer_opts *o, uint8_t seed[32])
{
    if (o->seed >= 0)
        memset(seed, o->seed, 32);
    else if (getrandom(seed, 32, 0) != 32)
        leave(1, "getrandom: %s", strerror(errno));
    if (o->key)
        key_file(o->key, seed);
}
