/* tests/unit/config_load.h: loads a configuration with what is said on stdout and stderr caught;
 * for the two files that test config*.c. */
#ifndef SLUICE_TESTS_CONFIG_LOAD_H
#define SLUICE_TESTS_CONFIG_LOAD_H

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/acl.h"
#include "engine/config_int.h"

static struct config c;
static char said[32768]; /* what went to stderr */

/* Loads with stderr and stdout caught. `env` and the arguments end with NULL. */
static inline int load_env(char **env, const char *first, ...)
{
    char *argv[64] = { (char *)(first ? first : "sluice") };
    int argc = 1;
    FILE *err = stderr, *out = stdout;
    char *text = NULL, *printed = NULL;
    size_t n = 0, m = 0;
    va_list ap;

    config_free(&c); /* of the call before; nothing at first */
    va_start(ap, first);
    while ((argv[argc] = va_arg(ap, char *)))
        argc++;
    va_end(ap);
    stderr = open_memstream(&text, &n);
    stdout = open_memstream(&printed, &m);
    int r = config_load(&c, argc, argv, env);

    fclose(stderr);
    fclose(stdout);
    stderr = err;
    stdout = out;
    snprintf(said, sizeof(said), "%s%s", text, printed);
    free(text);
    free(printed);
    return r;
}

static inline void teardown(void)
{
    config_free(&c);
}

static char *no_env[] = { "HOME=/", NULL };
#define LOAD(...) load_env(no_env, "sluice", __VA_ARGS__, NULL)
#define LOAD0() load_env(no_env, "sluice", NULL)
#define ENV(...) ((char *[]){ "HOME=/", __VA_ARGS__, NULL })

static inline const char *addr(const struct listen_at *at)
{
    static char text[NETADDR_TEXT_MAX];

    netaddr_text(&at->addr, text);
    return text;
}

static inline const char *announced(unsigned i)
{
    static char text[MADDR_TEXT_MAX];

    cr_assert(maddr_text(maddr_bytes(&c.announce[i]), text, sizeof(text)));
    return text;
}

static inline bool noted(const char *part)
{
    for (unsigned i = 0; i < c.notes_n; i++)
        if (strstr(c.note[i], part))
            return true;
    return false;
}

#endif
