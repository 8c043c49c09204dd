#include "engine/datadir.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool put(char *dir, size_t cap, const char *base, const char *tail)
{
    int n = snprintf(dir, cap, "%s%s", base, tail);

    return n >= 0 && (size_t)n < cap;
}

/* $HOME, or the password file when it is unset. A home that is no directory (system users have
 * /nonexistent) is none: making it would only fail later and less clearly. */
static const char *home_of(datadir_env *env, const void *ctx)
{
    const char *home = env(ctx, "HOME");

    if (!home) {
        const struct passwd *pw = getpwuid(getuid()); /* at start, before there are threads */

        home = pw ? pw->pw_dir : NULL;
    }
    return home && home[0] == '/' && is_dir(home) ? home : NULL;
}

bool datadir_default(bool dusk, datadir_env *env, const void *ctx, char *dir, size_t cap,
                     bool *homeless)
{
    const char *state = env(ctx, "STATE_DIRECTORY"), *xdg = env(ctx, "XDG_DATA_HOME");
    const char *home;

    *homeless = false;
    if (state && !dusk) { /* systemd: a list with colons; the first is ours */
        size_t n = strcspn(state, ":");

        if (n && n < cap) {
            memcpy(dir, state, n);
            dir[n] = '\0';
            return true;
        }
    }
    if (xdg &&
        xdg[0] == '/') /* a relative one is to be ignored (XDG base directory specification) */
        return put(dir, cap, xdg, dusk ? "/dusk-relay" : "/sluice");
    home = home_of(env, ctx);
    if (home)
        return put(dir, cap, home, dusk ? "/.local/share/dusk-relay" : "/.local/share/sluice");
    *homeless = true;
    return put(dir, cap, dusk ? "." : "./var", "");
}

int datadir_make(const char *dir)
{
    char path[1024];
    size_t n = strlen(dir);

    if (n == 0 || n >= sizeof(path))
        return -ENAMETOOLONG;
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        path[i] = '\0';
        /* Parents as others make them; only the last one is private. */
        if (mkdir(path, i == n ? 0700 : 0755) < 0 && errno != EEXIST && !is_dir(path))
            return -errno;
        path[i] = i == n ? '\0' : '/';
    }
    return is_dir(dir) ? 0 : -ENOTDIR;
}
