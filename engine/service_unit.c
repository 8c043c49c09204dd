/* The unit file: its text, and its place on the disk. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/service_int.h"
#include "engine/textbuf.h"

enum { STOP_SLACK_S = 7 }; /* past --drain-secs, before systemd kills */

/* In double quotes, as systemd reads them: % is a specifier everywhere, $ a variable in commands.
 */
static void put_quoted(struct textbuf *t, const char *words, bool command)
{
    for (; *words; words++) {
        if (*words == '"' || *words == '\\')
            textbuf_put(t, "\\%c", *words);
        else if (*words == '%' || (command && *words == '$'))
            textbuf_put(t, "%c%c", *words, *words);
        else
            textbuf_put(t, "%c", *words);
    }
}

static void put_variable(void *arg, const char *name, const char *value)
{
    struct textbuf *t = arg;

    textbuf_put(t, "Environment=\"%s=", name);
    put_quoted(t, value, false);
    textbuf_put(t, "\"\n");
}

int service_unit_text(const struct config *c, const struct service_host *h, enum place p, char *out,
                      size_t cap, char why[SERVICE_TEXT_MAX])
{
    struct textbuf t = { .p = out, .cap = cap };
    int err;

    for (const char *at = h->program; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            snprintf(why, SERVICE_TEXT_MAX, "this program's path has a control character in it");
            return -EINVAL;
        }
    }
    textbuf_put(&t, "# Written by dig-relay install, which writes it anew.\n"
                    "[Unit]\n"
                    "Description=DIG relay\n"
                    "Wants=network-online.target\n"
                    "After=network-online.target\n"
                    "\n"
                    "[Service]\n"
                    "Type=exec\n"
                    "ExecStart=\"");
    put_quoted(&t, h->program, true);
    textbuf_put(&t, "\" serve\n");
    err = config_dig_service(c, put_variable, &t, why, SERVICE_TEXT_MAX);
    if (err)
        return err;
    textbuf_put(&t,
                "Restart=on-failure\n"
                "RestartSec=1\n"
                "TimeoutStopSec=%u\n"
                "NoNewPrivileges=yes\n",
                c->drain_s + STOP_SLACK_S);
    if (p == PLACE_SYSTEM)
        textbuf_put(
            &t, "ProtectSystem=full\n"
                "CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH\n"
                "StateDirectory=sluice\n"
                "LimitNOFILE=1048576\n");
    textbuf_put(&t, "\n[Install]\nWantedBy=%s.target\n",
                p == PLACE_SYSTEM ? "multi-user" : "default");
    if (t.bad)
        snprintf(why, SERVICE_TEXT_MAX, "the unit is longer than %zu bytes", cap);
    return t.bad ? -ENOSPC : 0;
}

static bool unit_path(const struct service_host *h, enum place p, const char *tail, char *out,
                      size_t cap)
{
    int n = snprintf(out, cap, "%s/%s%s", h->dir[p], SERVICE_UNIT, tail);

    return h->dir[p][0] && n > 0 && (size_t)n < cap;
}

bool service_unit_is_there(const struct service_host *h, enum place p)
{
    char path[CONFIG_PATH_MAX + 64];
    struct stat st;

    return unit_path(h, p, "", path, sizeof(path)) && lstat(path, &st) == 0;
}

static int make_dirs(const char *dir)
{
    char path[CONFIG_PATH_MAX];
    size_t n = strlen(dir);

    if (n >= sizeof(path))
        return -ENAMETOOLONG;
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        path[i] = '\0';
        if (mkdir(path, 0755) && errno != EEXIST)
            return -errno;
        path[i] = i < n ? '/' : '\0';
    }
    return 0;
}

static int write_all(int fd, const char *text)
{
    size_t n = strlen(text);

    while (n) {
        ssize_t put = write(fd, text, n);

        if (put < 0 && errno != EINTR)
            return -errno;
        text += put > 0 ? put : 0;
        n -= put > 0 ? (size_t)put : 0;
    }
    return fsync(fd) ? -errno : 0;
}

/* Beside it first: systemd must never read half of one. */
int service_unit_write(const struct service_host *h, enum place p, const char *text,
                       char why[SERVICE_TEXT_MAX])
{
    char path[CONFIG_PATH_MAX + 64], beside[CONFIG_PATH_MAX + 64];
    int err = -ENOENT, fd;

    if (!unit_path(h, p, "", path, sizeof(path)) ||
        !unit_path(h, p, ".new", beside, sizeof(beside))) {
        snprintf(why, SERVICE_TEXT_MAX, "no directory for units is known: HOME is not set");
        return err;
    }
    err = make_dirs(h->dir[p]);
    if (!err) {
        (void)unlink(beside);
        fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        err = fd < 0 ? -errno : write_all(fd, text);
        if (fd >= 0)
            close(fd);
    }
    if (!err && rename(beside, path))
        err = -errno;
    if (err) {
        (void)unlink(beside);
        snprintf(why, SERVICE_TEXT_MAX, "%.400s cannot be written: %s", path, strerror(-err));
    }
    return err;
}

int service_unit_remove(const struct service_host *h, enum place p, char why[SERVICE_TEXT_MAX])
{
    char path[CONFIG_PATH_MAX + 64];
    int err = -ENOENT;

    if (!unit_path(h, p, "", path, sizeof(path)))
        snprintf(path, sizeof(path), "%s", SERVICE_UNIT);
    else
        err = unlink(path) ? -errno : 0;
    if (err)
        snprintf(why, SERVICE_TEXT_MAX, "%.400s cannot be removed: %s", path, strerror(-err));
    return err;
}
