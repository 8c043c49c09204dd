/* systemctl as a child: bounded in time and in what is kept of its words. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/clock.h"
#include "engine/service_int.h"

enum { ENV_MAX = 4096, WORDS = 5 };

static const char *env_of(char *const *envp, const char *name)
{
    size_t n = strlen(name);

    for (; envp && *envp; envp++)
        if (strncmp(*envp, name, n) == 0 && (*envp)[n] == '=')
            return *envp + n + 1;
    return NULL;
}

/* The first of PATH that may be run. By hand: what the library offers looks where this process's
 * own PATH says, and some of it hands a file without an interpreter to a shell. */
static bool find_program(const char *path, char *out, size_t cap)
{
    while (path && *path) {
        size_t n = strcspn(path, ":");
        int len = snprintf(out, cap, "%.*s/systemctl", (int)n, path);

        if (path[0] == '/' && len > 0 && (size_t)len < cap && access(out, X_OK) == 0)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

/* Its words are compared, so they must not be translated. */
static char **plain_env(char *const *envp)
{
    static char lc_all[] = "LC_ALL=C";
    char **out = calloc(ENV_MAX + 2, sizeof(*out));
    size_t n = 0;

    for (; out && envp && *envp && n < ENV_MAX; envp++)
        if (strncmp(*envp, "LC_ALL=", 7) != 0)
            out[n++] = *envp;
    if (out)
        out[n] = lc_all;
    return out;
}

/* The read end of the child's stderr in *from. 0 or -errno. */
static int spawn(const char *program, char *const argv[], char **env, pid_t *pid, int *from)
{
    posix_spawn_file_actions_t acts;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int pipes[2], err;

    if (pipe2(pipes, O_CLOEXEC))
        return -errno;
    posix_spawn_file_actions_init(&acts);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&acts, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&acts, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&acts, pipes[1], 2);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    err = -posix_spawn(pid, program, &acts, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&acts);
    close(pipes[1]);
    if (err)
        close(pipes[0]);
    else
        *from = pipes[0];
    return err;
}

/* Reads what there is; what does not fit is read and forgotten. false: no more will come. */
static bool take_words(int from, char *words, size_t *n)
{
    char more[512];
    ssize_t got = read(from, more, sizeof(more));

    if (got <= 0)
        return got < 0 && errno == EINTR;
    size_t keep = min_sz((size_t)got, SERVICE_TEXT_MAX - 1 - *n);

    memcpy(words + *n, more, keep);
    *n += keep;
    words[*n] = '\0';
    return true;
}

/* Until the child has ended: what it left behind may hold its stderr open for as long as it likes.
 * 0 or -errno. */
static int await(pid_t pid, int from, unsigned limit_ms, char *words)
{
    uint64_t end_ms = clock_mono_ms() + limit_ms, now_ms;
    int child = pidfd_open(pid, 0), err = 0;
    size_t n = 0;

    if (child < 0)
        return -errno;
    for (bool more = true;;) {
        struct pollfd fds[2] = { { .fd = child, .events = POLLIN },
                                 { .fd = more ? from : -1, .events = POLLIN } };

        now_ms = clock_mono_ms();
        if (now_ms >= end_ms) {
            err = -ETIMEDOUT;
            break;
        }
        if (poll(fds, 2, (int)(end_ms - now_ms)) < 0 && errno != EINTR) {
            err = -errno;
            break;
        }
        if (fds[1].revents)
            more = take_words(from, words, &n);
        else if (fds[0].revents)
            break;
    }
    close(child);
    return err;
}

/* One line of it: the last, which says what went wrong. */
static void last_line(char *words)
{
    char *line;
    size_t n = strlen(words);

    while (n && (words[n - 1] == '\n' || words[n - 1] == ' '))
        words[--n] = '\0';
    line = strrchr(words, '\n');
    if (line)
        memmove(words, line + 1, strlen(line));
}

static int run(const char *program, char *const argv[], char **env, unsigned limit_ms, char *words)
{
    int from = -1, status = 0, err;
    pid_t pid = 0;

    words[0] = '\0';
    err = spawn(program, argv, env, &pid, &from);
    if (err)
        return err;
    err = await(pid, from, limit_ms, words);
    close(from);
    if (err)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (err)
        return err;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

int service_ctl(const struct service_host *h, enum place p, const char *verb, bool unit,
                unsigned limit_ms, char why[SERVICE_TEXT_MAX])
{
    const char *words[WORDS] = { "systemctl" };
    char path[CONFIG_PATH_MAX], *argv[WORDS];
    char **env = plain_env(h->envp);
    size_t n = 1;
    int err = -ENOMEM;

    if (p == PLACE_USER)
        words[n++] = "--user";
    words[n++] = verb;
    if (unit)
        words[n++] = SERVICE_UNIT;
    words[n] = NULL;
    memcpy(argv, words, sizeof(argv)); /* posix_spawn writes to none of them */
    if (env)
        err = find_program(env_of(h->envp, "PATH"), path, sizeof(path))
                  ? run(path, argv, env, limit_ms, why)
                  : -ENOENT;
    free(env);
    if (err > 0 && strcmp(verb, "cat") != 0) /* of which every line counts */
        last_line(why);
    if (err < 0)
        snprintf(why, SERVICE_TEXT_MAX, "systemctl %s: %s", verb,
                 err == -ENOENT ? "there is no systemctl here" : strerror(-err));
    return err;
}

static bool says(const char *words, const char *part)
{
    return strcasestr(words, part) != NULL;
}

enum detected service_detect(const struct service_host *h, enum place p, char why[SERVICE_TEXT_MAX])
{
    int err = service_ctl(h, p, "cat", true, h->quick_ms, why);

    if (err == 0)
        return DETECT_PRESENT;
    if (err > 0 && (says(why, "no files found for") || says(why, "could not be found")))
        return DETECT_ABSENT;
    last_line(why);
    return DETECT_UNKNOWN;
}
