/* engine/config_dotenv.c: the .env file of dusk's operators: in the working directory or the
 * nearest parent that has one, weaker than the real environment (dusk.md §12). Lines of NAME=VALUE,
 * with `export` in front, quotes around the value, # for comments, as dotenv files are written. */
#include "engine/config_int.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DOTENV_BYTES_MAX = 65536, DOTENV_LINES_MAX = 256 };

struct dotenv {
    char *line[DOTENV_LINES_MAX + 1]; /* NAME=VALUE, NULL-terminated, within text */
    unsigned n;
    char text[DOTENV_BYTES_MAX + 1];
};

static char *blanks(char *p)
{
    while (isblank((unsigned char)*p))
        p++;
    return p;
}

/* In place, for what comes out is never longer. NULL: says nothing. */
static char *clean(char *p)
{
    char *eq, *value, *end, quote;

    p = blanks(p);
    if (strncmp(p, "export ", 7) == 0)
        p = blanks(p + 7);
    eq = strchr(p, '=');
    if (*p == '#' || !eq || eq == p)
        return NULL;
    for (end = eq; end > p && isblank((unsigned char)end[-1]); end--)
        ;
    for (char *c = p; c < end; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            return NULL;
    value = blanks(eq + 1);
    quote = *value == '"' || *value == '\'' ? *value++ : '\0';
    *end++ = '=';
    while (*value && *value != quote) {
        if (!quote && *value == '#' && isblank((unsigned char)value[-1]))
            break;
        if (quote == '"' && *value == '\\' && value[1])
            value++;
        *end++ = *value++;
    }
    while (!quote && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return p;
}

static void split(struct dotenv *e)
{
    char *save = NULL;

    for (char *l = strtok_r(e->text, "\r\n", &save); l; l = strtok_r(NULL, "\r\n", &save)) {
        char *kept = clean(l);

        if (kept && e->n < DOTENV_LINES_MAX)
            e->line[e->n++] = kept;
    }
}

static bool slurp(struct dotenv *e, const char *path)
{
    struct stat st;
    ssize_t got = 0;
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        while (n < DOTENV_BYTES_MAX && (got = read(fd, e->text + n, DOTENV_BYTES_MAX - n)) > 0)
            n += (size_t)got;
    close(fd);
    e->text[strnlen(e->text, n)] = '\0';
    return true;
}

struct dotenv *dotenv_find(void)
{
    struct dotenv *e = calloc(1, sizeof(*e));
    char path[CONFIG_PATH_MAX];
    size_t n;

    if (!e || !getcwd(path, sizeof(path) - sizeof("/.env"))) {
        free(e);
        return NULL;
    }
    n = strlen(path);
    for (;;) {
        memcpy(path + n, "/.env", sizeof("/.env"));
        if (slurp(e, path)) {
            split(e);
            return e;
        }
        if (n == 0)
            break;
        while (n > 0 && path[n - 1] != '/')
            n--;
        n -= n > 0;
    }
    free(e);
    return NULL;
}

char *const *dotenv_lines(const struct dotenv *e)
{
    return e->line;
}

void dotenv_free(struct dotenv *e)
{
    if (e)
        explicit_bzero(e->text, sizeof(e->text)); /* secrets stand in it */
    free(e);
}
