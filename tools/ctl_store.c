#include "tools/ctl_store.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

const char *ctl_store_complaint(const char *verb, const char *dest)
{
    if (!verb ||
        (strcmp(verb, "check") != 0 && strcmp(verb, "dump") != 0 && strcmp(verb, "backup") != 0))
        return "store wants one of check, dump, backup FILE";
    if (strcmp(verb, "backup") == 0 && (!dest || !dest[0]))
        return "store backup wants the name of a file";
    if (strcmp(verb, "backup") != 0 && dest)
        return "only store backup wants a file";
    return NULL;
}

/* While it is read, pages that the daemon frees are not used again: a disk that hangs may not hold
 * them for ever. */
enum { BACKUP_S = 600 };
static char part[1024]; /* what is there of it when a signal ends us */

static void give_up(int sig)
{
    static const char late[] = "sluicectl: store backup: given up after ten minutes\n";

    (void)unlink(part);
    if (sig == SIGALRM) {
        (void)!write(STDERR_FILENO, late, sizeof(late) - 1);
        _exit(1);
    }
    (void)raise(sig); /* its own handler is gone by now */
}

static void backup_bounded(const char *dest)
{
    static const int signals[] = { SIGALRM, SIGTERM, SIGINT, SIGHUP };
    struct sigaction act = { .sa_handler = give_up, .sa_flags = (int)SA_RESETHAND }, was;

    if (snprintf(part, sizeof(part), STORE_BACKUP_PART, dest, (long)getpid()) >= (int)sizeof(part))
        part[0] = '\0';                               /* store_backup refuses it */
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) { /* nohup's are left alone */
        bool ignored = sigaction(signals[i], NULL, &was) == 0 && was.sa_handler == SIG_IGN;

        if (signals[i] == SIGALRM || !ignored)
            (void)sigaction(signals[i], &act, NULL);
    }
    (void)alarm(BACKUP_S);
}

static void print(void *ctx, const char *line)
{
    (void)ctx;
    puts(line);
}

int ctl_store(const char *dir, const char *verb, const char *dest)
{
    /* Every page is read first: on a damaged file LMDB would end us by a signal. */
    struct store_opts o = { .dir = dir, .read_only = true, .verify = true };
    char why[STORE_WHY_MAX] = "";
    uint64_t bad = 0;
    struct store *s;
    int rc;

    if (strcmp(verb, "backup") == 0)
        backup_bounded(dest);
    rc = store_open(&o, &s, why, sizeof(why));

    if (rc) {
        fprintf(stderr, "sluicectl: %s\n", why);
        return 1;
    }
    if (strcmp(verb, "backup") == 0) {
        rc = store_backup(s, dest, why, sizeof(why));
        (void)alarm(0);
        if (!rc)
            printf("backup: %s\n", dest);
        else
            fprintf(stderr, "sluicectl: %s\n", why);
    } else if (strcmp(verb, "dump") == 0) {
        rc = store_dump(s, print, NULL);
        if (rc)
            fprintf(stderr, "sluicectl: %s\n", strerror(-rc));
    } else {
        rc = store_check(s, print, NULL, &bad);
        if (rc)
            fprintf(stderr, "sluicectl: %s\n", strerror(-rc));
        else if (bad)
            fprintf(stderr, "sluicectl: the store is damaged: what is named above is passed over "
                            "by the daemon; a backup in its place brings it back\n");
    }
    store_close(s);
    if (fflush(stdout) || ferror(stdout))
        return 1;
    return rc || bad ? 1 : 0;
}
