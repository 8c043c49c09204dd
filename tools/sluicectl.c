/* sluicectl: asks a running daemon through its admin socket. It knows that socket and nothing else:
 * one request line, JSON lines back (engine/admin.c), shown as tables or, with --json, as they
 * come. Exit status: 0 done, 1 not reached or refused, 2 not understood. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/datadir.h"

enum {
    PATH_BYTES = 1024,
    LINE_BYTES = 65536, /* the longest line a daemon writes is a fraction of this */
    VALUE_BYTES = 512,
    ANSWER_S = 10,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
};

static const char *const commands[] = { "status", "conns",     "circuits",
                                        "drain",  "log-level", "reload" };

struct wanted {
    bool json;
    const char *data, *socket, *preset;
    const char *command, *arg;
};

/* ---- one line of JSON ---------------------------------------------------------------------- */

static const char *skip_string(const char *p)
{
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p ? p + 1 : p;
}

/* Behind the value at p, nested ones included. */
static const char *skip_value(const char *p)
{
    unsigned depth = 0;

    for (; *p; p++) {
        if (*p == '"') {
            p = skip_string(p) - 1;
            if (!depth)
                return p + 1;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (!depth)
                return p;
            if (!--depth)
                return p + 1;
        } else if (*p == ',' && !depth) {
            return p;
        }
    }
    return p;
}

static unsigned hex4(const char *p)
{
    unsigned v = 0;

    for (int i = 0; i < 4; i++) {
        char c = p[i];

        if (c >= '0' && c <= '9')
            v = v << 4 | (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (unsigned)(c - 'a' + 10);
        else
            return 0;
    }
    return v;
}

/* A string without its quotes and escapes, anything else as it stands. What the terminal could take
 * for an order becomes '?'. */
static void copy_value(const char *p, const char *end, char *out, size_t cap)
{
    size_t n = 0;
    bool string = *p == '"';

    if (string) {
        p++;
        end--;
    }
    for (; p < end && n + 1 < cap; p++) {
        unsigned char c = (unsigned char)*p;

        if (string && c == '\\' && p + 1 < end) {
            c = (unsigned char)*++p;
            if (c == 'u' && end - p > 4) {
                unsigned v = hex4(p + 1);

                c = v < 0x80 ? (unsigned char)v : '?';
                p += 4;
            }
        }
        out[n++] = c < ' ' || c == 0x7f ? '?' : (char)c;
    }
    out[n] = '\0';
}

/* The value of a key of the object in `json`; "" when absent. `out` holds VALUE_BYTES. */
static const char *get(const char *json, const char *key, char *out)
{
    const char *p = strchr(json, '{');

    out[0] = '\0';
    while (p && (*p == '{' || *p == ',')) {
        const char *name = strchr(p, '"'), *end, *value;

        if (!name)
            break;
        end = skip_string(name);
        value = *end == ':' ? end + 1 : end;
        p = skip_value(value);
        if ((size_t)(end - name - 2) == strlen(key) && strncmp(name + 1, key, strlen(key)) == 0) {
            copy_value(value, p, out, VALUE_BYTES);
            break;
        }
    }
    return out;
}

static uint64_t number(const char *json, const char *key)
{
    char text[VALUE_BYTES];

    return strtoull(get(json, key, text), NULL, 10);
}

static bool is_true(const char *json, const char *key)
{
    char text[VALUE_BYTES];

    return strcmp(get(json, key, text), "true") == 0;
}

/* ---- for people ---------------------------------------------------------------------------- */

static const char *bytes_text(uint64_t v, char *out, size_t cap)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double d = (double)v;
    size_t u = 0;

    while (d >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
        d /= 1024;
        u++;
    }
    snprintf(out, cap, u ? "%.1f %s" : "%.0f %s", d, units[u]);
    return out;
}

static const char *age_text(uint64_t s, char *out, size_t cap)
{
    if (s >= 86400)
        snprintf(out, cap, "%" PRIu64 "d%02uh", s / 86400, (unsigned)(s / 3600 % 24));
    else if (s >= 3600)
        snprintf(out, cap, "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
    else if (s >= 60)
        snprintf(out, cap, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
    else
        snprintf(out, cap, "%us", (unsigned)s);
    return out;
}

static void row_of(const char *name, uint64_t used, uint64_t max)
{
    if (max)
        printf("%-14s %" PRIu64 " of %" PRIu64 "\n", name, used, max);
    else
        printf("%-14s %" PRIu64 "\n", name, used);
}

static void show_status(const char *j)
{
    char a[VALUE_BYTES], b[VALUE_BYTES], size[32], limit[32];
    const char *limits = strstr(j, "\"limits\":");

    limits = limits ? limits : "{}";
    printf("%-14s %s\n", "peer id", get(j, "peer_id", a));
    printf("%-14s %s (preset %s)\n", "version", get(j, "version", a), get(j, "preset", b));
    printf("%-14s %s\n", "up", age_text(number(j, "uptime_seconds"), size, sizeof(size)));
    if (is_true(j, "draining"))
        printf("%-14s draining, %" PRIu64 " s left\n", "state", number(j, "drain_left_seconds"));
    else
        printf("%-14s %s\n", "state", is_true(j, "ready") ? "ready" : "not ready");
    get(j, "addresses", a); /* a list as it stands: ["...","..."] */
    for (char *save = NULL, *one = strtok_r(a, "[]\",", &save); one;
         one = strtok_r(NULL, "[]\",", &save))
        printf("%-14s %s\n", "announced", one);
    printf("%-14s %" PRIu64 "\n", "shards", number(j, "shards"));
    printf("%-14s %" PRIu64 " connected, %" PRIu64 " with a reservation, %" PRIu64 " in circuits\n",
           "peers", number(j, "peers"), number(j, "peers_with_reservations"),
           number(j, "peers_with_circuits"));
    row_of("connections", number(j, "connections"), number(limits, "max_conns"));
    row_of("reservations", number(j, "reservations"), number(limits, "max_reservations"));
    row_of("circuits", number(j, "circuits"), number(limits, "max_circuits"));
    printf("%-14s %s\n", "relayed", bytes_text(number(j, "bandwidth_bytes"), size, sizeof(size)));
    printf("%-14s %s of %s\n", "buffers", bytes_text(number(j, "buffer_bytes"), size, sizeof(size)),
           bytes_text(number(j, "buffer_bytes_max"), limit, sizeof(limit)));
    printf("%-14s %s, %" PRIu64 " lines lost\n", "log", get(j, "log_level", a),
           number(j, "log_lines_lost"));
}

#define CONN_ROW "%-52s %-28s %5s %-8s %-8s %7s %7s %10s %10s %10s\n"
#define CIRCUIT_ROW "%8s %-7s %-52s %-52s %6s %7s %10s %10s\n"

static void show_head(const char *command)
{
    if (strcmp(command, "conns") == 0)
        printf(CONN_ROW, "PEER", "REMOTE", "SHARD", "STATE", "RESERVED", "STREAMS", "AGE", "IN",
               "OUT", "QUEUED");
    else
        printf(CIRCUIT_ROW, "ID", "STATE", "SOURCE", "TARGET", "SHARDS", "AGE", "FORTH", "BACK");
}

static void show_conn(const char *j)
{
    char peer[VALUE_BYTES], remote[VALUE_BYTES], shard[VALUE_BYTES], state[VALUE_BYTES],
        streams[VALUE_BYTES];
    char age[32], in[32], out[32], queued[32];

    get(j, "peer", peer);
    printf(CONN_ROW, peer[0] ? peer : "-", get(j, "remote", remote), get(j, "shard", shard),
           get(j, "state", state), is_true(j, "reserved") ? "yes" : "-", get(j, "streams", streams),
           age_text(number(j, "age_seconds"), age, sizeof(age)),
           bytes_text(number(j, "rx_bytes"), in, sizeof(in)),
           bytes_text(number(j, "tx_bytes"), out, sizeof(out)),
           bytes_text(number(j, "queued_bytes"), queued, sizeof(queued)));
}

static void show_circuit(const char *j)
{
    char id[VALUE_BYTES], state[VALUE_BYTES], src[VALUE_BYTES], dst[VALUE_BYTES], shards[32];
    char age[32], forth[32], back[32];

    snprintf(shards, sizeof(shards), "%" PRIu64 "-%" PRIu64, number(j, "src_shard"),
             number(j, "dst_shard"));
    printf(CIRCUIT_ROW, get(j, "id", id), get(j, "state", state), get(j, "src", src),
           get(j, "dst", dst), shards, age_text(number(j, "age_seconds"), age, sizeof(age)),
           bytes_text(number(j, "bytes_src_to_dst"), forth, sizeof(forth)),
           bytes_text(number(j, "bytes_dst_to_src"), back, sizeof(back)));
}

/* The line that says ok or not, for people. */
static void show_end(const struct wanted *w, const char *j)
{
    char text[VALUE_BYTES];

    if (strcmp(w->command, "status") == 0)
        show_status(j);
    else if (strcmp(w->command, "conns") == 0)
        printf("%" PRIu64 " connections\n", number(j, "rows"));
    else if (strcmp(w->command, "circuits") == 0)
        printf("%" PRIu64 " circuits\n", number(j, "rows"));
    else if (strcmp(w->command, "drain") == 0)
        printf("draining: no new reservations; circuits may run on for %" PRIu64
               " s, then the daemon ends\n",
               number(j, "drain_seconds"));
    else if (strcmp(w->command, "log-level") == 0)
        printf("log level: %s\n", get(j, "log_level", text));
    else
        printf("reloaded\n");
}

/* ---- the exchange -------------------------------------------------------------------------- */

/* A path longer than sun_path is reached through a descriptor of its directory. */
static int dial(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct timeval wait = { .tv_sec = ANSWER_S };
    const char *slash = strrchr(path, '/');
    char parent[PATH_BYTES];
    int dir = -1, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (strlen(path) < sizeof(a.sun_path)) {
        memcpy(a.sun_path, path, strlen(path) + 1);
    } else {
        snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - path) : 1,
                 slash ? path : ".");
        dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d%.60s", dir,
                 slash ? slash : path);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    if (connect(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)) < 0) {
        int err = -errno;

        close(fd);
        fd = err;
    }
    if (dir >= 0)
        close(dir);
    return fd;
}

/* One line of the answer. true: it was the last one, *status is set. */
static bool on_line(const struct wanted *w, const char *j, bool *head_shown, int *status)
{
    char ok[VALUE_BYTES], error[VALUE_BYTES];
    bool end, list = strcmp(w->command, "conns") == 0 || strcmp(w->command, "circuits") == 0;

    get(j, "ok", ok);
    end = ok[0] != '\0';
    if (end)
        *status = strcmp(ok, "true") == 0 ? 0 : EXIT_FAILED;
    if (w->json) {
        puts(j);
        return end;
    }
    if (list && !*head_shown && !(end && *status)) {
        show_head(w->command);
        *head_shown = true;
    }
    if (end && *status)
        fprintf(stderr, "sluicectl: %s\n", get(j, "error", error));
    else if (end)
        show_end(w, j);
    else if (strcmp(w->command, "conns") == 0)
        show_conn(j);
    else
        show_circuit(j);
    return end;
}

static int converse(const struct wanted *w, int fd)
{
    static char line[LINE_BYTES];
    size_t n = 0;
    int status = EXIT_FAILED;
    bool head = false, end = false;
    ssize_t got;

    snprintf(line, sizeof(line), "%s%s%s\n", w->command, w->arg ? " " : "", w->arg ? w->arg : "");
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
        fprintf(stderr, "sluicectl: the daemon hung up\n");
        return EXIT_FAILED;
    }
    while (!end && (got = read(fd, line + n, sizeof(line) - 1 - n)) > 0) {
        char *from = line, *lf;

        n += (size_t)got;
        line[n] = '\0';
        while (!end && (lf = strchr(from, '\n'))) {
            *lf = '\0';
            end = on_line(w, from, &head, &status);
            from = lf + 1;
        }
        n -= (size_t)(from - line);
        memmove(line, from, n);
        if (n == sizeof(line) - 1)
            break;
    }
    if (!end)
        fprintf(stderr, "sluicectl: the answer was cut short\n");
    if (fflush(stdout) || ferror(stdout))
        return EXIT_FAILED;
    return status;
}

/* ---- the command line ---------------------------------------------------------------------- */

static const struct argp_option options[] = {
    { "json", 'j', NULL, 0, "the daemon's own lines, one object each", 0 },
    { "data", 'd', "DIR", 0, "the daemon's data directory", 0 },
    { "socket", 's', "PATH", 0, "its admin socket (the daemon's --control)", 0 },
    { "preset", 'p', "NAME", 0, "its preset, which moves the data directory of dusk", 0 },
    { "help", 'h', NULL, 0, "this text", -1 },
    { "version", 'V', NULL, 0, "the version", -1 },
    { 0 },
};
static const char doc[] =
    "Asks a running sluice."
    "\v"
    "Commands:\n"
    "  status              what it is, how it is, how full it is\n"
    "  conns               every connection\n"
    "  circuits            every circuit\n"
    "  drain [SECS]        refuse new reservations, let circuits run on, then end\n"
    "  log-level [LEVEL]   show or set: error, warn, info, debug, trace\n"
    "  reload              read the configuration again\n"
    "\n"
    "Without --socket or --data the directory is looked for where the daemon puts it: "
    "$SLUICE_CONTROL, "
    "$SLUICE_DATA, $STATE_DIRECTORY, $XDG_DATA_HOME/sluice, ~/.local/share/sluice, ./var.\n"
    "Exit status: 0 done, 1 not reached or refused, 2 not understood.";

static bool known(const char *command)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i], command) == 0)
            return true;
    return false;
}

static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct wanted *w = state->input;

    switch (key) {
    case 'j':
        w->json = true;
        return 0;
    case 'd':
        w->data = arg;
        return 0;
    case 's':
        w->socket = arg;
        return 0;
    case 'p':
        w->preset = arg;
        return 0;
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case 'V':
        printf("sluicectl %s\n", SLUICE_VERSION);
        exit(0);
    case ARGP_KEY_ARG:
        if (!w->command && !known(arg))
            argp_error(state, "unknown command: %s", arg);
        else if (!w->command)
            w->command = arg;
        else if (!w->arg &&
                 (strcmp(w->command, "drain") == 0 || strcmp(w->command, "log-level") == 0))
            w->arg = arg;
        else
            argp_error(state, "unexpected argument: %s", arg);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a command is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const char *env_get(const void *ctx, const char *name)
{
    const char *value = getenv(name);

    (void)ctx;
    return value && *value ? value : NULL;
}

/* As the daemon decides it: the socket, then the directory, said by flag or environment. */
static bool socket_path(const struct wanted *w, char *path, size_t cap)
{
    const char *socket_env = env_get(NULL, "SLUICE_CONTROL");
    const char *data = w->data ? w->data : env_get(NULL, "SLUICE_DATA");
    const char *preset = w->preset ? w->preset : env_get(NULL, "SLUICE_PRESET");
    char dir[PATH_BYTES];
    bool homeless;
    int n;

    if (w->socket || (!w->data && socket_env)) {
        n = snprintf(path, cap, "%s", w->socket ? w->socket : socket_env);
        return n >= 0 && (size_t)n < cap;
    }
    if (!data && !datadir_default(preset && strcmp(preset, "dusk") == 0, env_get, NULL, dir,
                                  sizeof(dir), &homeless))
        return false;
    n = snprintf(path, cap, "%s/%s", data ? data : dir, DATADIR_SOCKET);
    return n >= 0 && (size_t)n < cap;
}

int main(int argc, char **argv)
{
    static const struct argp argp = { options, on_option, "COMMAND [ARGUMENT]", doc, NULL,
                                      NULL,    NULL };
    struct wanted w = { 0 };
    char path[PATH_BYTES];
    int fd, status;

    argp_err_exit_status = EXIT_USAGE;
    if (argp_parse(&argp, argc, argv, ARGP_NO_HELP, NULL, &w))
        return EXIT_USAGE;
    if (!socket_path(&w, path, sizeof(path))) {
        fprintf(stderr, "sluicectl: the path of the socket is too long\n");
        return EXIT_USAGE;
    }
    fd = dial(path);
    if (fd < 0) {
        fprintf(stderr, "sluicectl: no daemon answers at %s: %s%s\n", path, strerror(-fd),
                fd == -EACCES ? " (are you the user that runs it?)"
                              : " (is it running? --data DIR names its data directory)");
        return EXIT_FAILED;
    }
    status = converse(&w, fd);
    close(fd);
    return status;
}
