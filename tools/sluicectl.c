/* sluicectl: asks a running daemon through its admin socket, and reads its store (ctl_store.c). Of
 * the daemon it knows that socket: one request line, JSON lines back (engine/admin.c), shown as
 * tables or, with --json, as they come. Exit status: 0 done, 1 not reached or refused, 2 not
 * understood. */
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
#include "tools/ctl_json.h"
#include "tools/ctl_show.h"
#include "tools/ctl_store.h"
#include "tools/ctl_usage.h"

enum {
    PATH_BYTES = 1024,
    LINE_BYTES = 65536,   /* the longest line a daemon writes is a fraction of this */
    NAME_MAX_BYTES = 127, /* engine/ops.h */
    ANSWER_S = 10,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
};

static const struct {
    const char *name;
    bool takes_arg;
} commands[] = {
    { "status", false },
    { "conns", false },
    { "circuits", false },
    { "allocations", false },
    { "dig", false },
    { "drain", true },
    { "turn-credentials", true },
    { "reload", false },
    { "log-level", true },
    { "store", true },
    { "usage", true },
};

struct wanted {
    bool json;
    const char *data, *socket, *preset;
    const char *command, *arg, *dest, *ttl;
    bool takes_arg;
};

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
    char ok[CTL_VALUE], error[CTL_VALUE];
    bool end;

    ctl_get(j, "ok", ok);
    end = ok[0] != '\0';
    if (end)
        *status = strcmp(ok, "true") == 0 ? 0 : EXIT_FAILED;
    if (w->json) {
        puts(j);
        return end;
    }
    if (ctl_is_list(w->command) && !*head_shown && !(end && *status)) {
        ctl_show_head(w->command);
        *head_shown = true;
    }
    if (end && *status)
        fprintf(stderr, "sluicectl: %s\n", ctl_get(j, "error", error));
    else if (end)
        ctl_show_end(w->command, j);
    else
        ctl_show_row(w->command, j);
    return end;
}

/* What was typed, as the line that asks for it. Names are checked by the daemon; here they must
 * only stay one string of one line. */
static void request_text(const struct wanted *w, char *line, size_t cap)
{
    const char *name = w->arg ? w->arg : "", *ttl = w->ttl ? w->ttl : "";
    char quoted[2 * NAME_MAX_BYTES + 1];
    size_t n = 0;

    if (strcmp(w->command, "turn-credentials") != 0) {
        snprintf(line, cap, "%s%s%s\n", w->command, name[0] ? " " : "", name);
        return;
    }
    for (const char *p = name; *p && n + 2 < sizeof(quoted); p++) {
        if (*p == '"' || *p == '\\')
            quoted[n++] = '\\';
        quoted[n++] = *p;
    }
    quoted[n] = '\0';
    snprintf(line, cap, "{\"cmd\":\"turn-credentials\",\"name\":\"%s\"%s%s}\n", quoted,
             ttl[0] ? ",\"ttl\":" : "", ttl);
}

static int converse(const struct wanted *w, int fd)
{
    static char line[LINE_BYTES];
    size_t n = 0;
    int status = EXIT_FAILED;
    bool head = false, end = false;
    ssize_t got;

    request_text(w, line, sizeof(line));
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
    { "ttl", 't', "SECS", 0, "how long credentials are good for (86400)", 0 },
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
    "  allocations         every TURN allocation: whose, from where, what it carried\n"
    "  dig                 every DIG node: its network, from where, since when, what it waits for\n"
    "  turn-credentials [NAME]  username, password and uris for a TURN client, as JSON\n"
    "  drain [SECS]        refuse what is new, let what runs run on, then end\n"
    "  log-level [LEVEL]   show or set: error, warn, info, debug, trace\n"
    "  reload              read the configuration again\n"
    "  usage [DAYS]        what each peer had of this relay in so many days (31), today included\n"
    "  store check         reads the whole store and says whether it is sound\n"
    "  store dump          its records, a line each, without secrets\n"
    "  store backup FILE   a compact copy of it, taken at once, whole or not at all\n"
    "\n"
    "store and usage read the data directory itself, whether the daemon runs or not.\n"
    "Without --socket or --data the directory is looked for where the daemon puts it: "
    "$SLUICE_CONTROL, "
    "$SLUICE_DATA, $STATE_DIRECTORY, $XDG_DATA_HOME/sluice, ~/.local/share/sluice, ./var.\n"
    "Exit status: 0 done, 1 not reached or refused, 2 not understood.";

static bool known(struct wanted *w, const char *command)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, command) != 0)
            continue;
        w->command = command;
        w->takes_arg = commands[i].takes_arg;
        return true;
    }
    return false;
}

static bool all_digits(const char *text)
{
    return text[0] && strlen(text) <= 9 && text[strspn(text, "0123456789")] == '\0';
}

/* What argp cannot see: a bound, and options that belong to one command. */
static const char *complaint(const struct wanted *w)
{
    bool credentials = strcmp(w->command, "turn-credentials") == 0;

    if (strcmp(w->command, "store") == 0 && w->json)
        return "store has no --json";
    if (strcmp(w->command, "store") == 0 && ctl_store_complaint(w->arg, w->dest))
        return ctl_store_complaint(w->arg, w->dest);

    if (strcmp(w->command, "usage") == 0 && ctl_usage_complaint(w->arg))
        return ctl_usage_complaint(w->arg);
    if (w->ttl && !credentials)
        return "--ttl is for turn-credentials";
    if (w->ttl && !all_digits(w->ttl))
        return "--ttl is a whole number of seconds";
    if (credentials && w->arg && strlen(w->arg) > NAME_MAX_BYTES)
        return "a name has at most 127 bytes";
    return NULL;
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
    case 't':
        w->ttl = arg;
        return 0;
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case 'V':
        printf("sluicectl %s\n", SLUICE_VERSION);
        exit(0);
    case ARGP_KEY_ARG:
        if (!w->command && !known(w, arg))
            argp_error(state, "unknown command: %s", arg);
        else if (w->command != arg && w->takes_arg && !w->arg)
            w->arg = arg;
        else if (w->command != arg && strcmp(w->command, "store") == 0 && !w->dest)
            w->dest = arg;
        else if (w->command != arg)
            argp_error(state, "unexpected argument: %s", arg);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a command is missing");
        return 0;
    case ARGP_KEY_END:
        if (w->command && complaint(w))
            argp_error(state, "%s", complaint(w));
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

static bool data_path(const struct wanted *w, char *dir, size_t cap)
{
    const char *data = w->data ? w->data : env_get(NULL, "SLUICE_DATA");
    const char *preset = w->preset ? w->preset : env_get(NULL, "SLUICE_PRESET");
    bool homeless;
    int n;

    if (!data)
        return datadir_default(preset && strcmp(preset, "dusk") == 0, env_get, NULL, dir, cap,
                               &homeless);
    n = snprintf(dir, cap, "%s", data);
    return n >= 0 && (size_t)n < cap;
}

/* As the daemon decides it: the socket, then the directory, said by flag or environment. */
static bool socket_path(const struct wanted *w, char *path, size_t cap)
{
    const char *socket_env = env_get(NULL, "SLUICE_CONTROL");
    char dir[PATH_BYTES];
    int n;

    if (w->socket || (!w->data && socket_env)) {
        n = snprintf(path, cap, "%s", w->socket ? w->socket : socket_env);
        return n >= 0 && (size_t)n < cap;
    }
    if (!data_path(w, dir, sizeof(dir)))
        return false;
    n = snprintf(path, cap, "%s/%s", dir, DATADIR_SOCKET);
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
    if (strcmp(w.command, "store") == 0 || strcmp(w.command, "usage") == 0) {
        if (data_path(&w, path, sizeof(path)))
            return w.command[0] == 's' ? ctl_store(path, w.arg, w.dest)
                                       : ctl_usage(path, w.arg, w.json);
        fprintf(stderr, "sluicectl: the path of the data directory is too long\n");
        return EXIT_USAGE;
    }
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
