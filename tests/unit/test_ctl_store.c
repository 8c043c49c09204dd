/* sluicectl store: against a store that no daemon has open. */
#include <signal.h>
#include <sys/inotify.h>
#include <sys/wait.h>

#include "tests/unit/store_file.h"

TestSuite(ctl_store, .timeout = 60);

static char shown[65536];

static int run(const char *words)
{
    char command[512];
    size_t n;
    FILE *f;
    int status;

    snprintf(command, sizeof(command), "'%s' store %s --data %s 2>&1", SLUICECTL, words, sd_dir);
    f = popen(command, "r");
    cr_assert_not_null(f);
    n = fread(shown, 1, sizeof(shown) - 1, f);
    shown[n] = '\0';
    status = pclose(f);
    cr_assert_eq(WIFEXITED(status), 1, "%s", shown);
    return WEXITSTATUS(status);
}

static void stored(void)
{
    struct peer_id p = sd_peer(1);
    uint8_t secret[16];

    sd_open();
    furnish(20);
    sd_begin();
    cr_assert(eq(int, store_profile_put(sd, &p, bytes_str("a\x1b[31m\"b"), bytes_str(""), NOW),
                 STORE_OK));
    sd_commit();
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_COOKIE, secret, 16), 0));
    store_close(sd);
    sd = NULL;
}

Test(ctl_store, checks_a_sound_store)
{
    stored();
    cr_assert(eq(int, run("check"), 0), "%s", shown);
    cr_assert_not_null(strstr(shown, "20 registrations"), "%s", shown);
    cr_assert_not_null(strstr(shown, " 0 not sound"), "%s", shown);
    sd_open();
    sd_close();
}

Test(ctl_store, dumps_a_line_per_record_and_no_secret)
{
    uint8_t secret[16];
    char hex[2 * 16 + 1];

    stored();
    cr_assert(eq(int, run("dump"), 0), "%s", shown);
    cr_assert_not_null(strstr(shown, "\nregistration "));
    cr_assert_not_null(strstr(shown, "\nturn-user \"ann\" realm \"r\"\n"));
    cr_assert_not_null(strstr(shown, "secret cookie 16 bytes"));
    cr_assert_not_null(strstr(shown, "a\\x1b[31m\\x22b"), "text of a peer went out raw");
    cr_assert_null(strchr(shown, '\x1b'));
    sd_open();
    cr_assert(eq(int, store_secret(sd, STORE_SECRET_COOKIE, secret, 16), 0));
    for (unsigned i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", secret[i]);
    cr_assert_null(strstr(shown, hex));
    cr_assert_null(memmem(shown, strlen(shown), secret, 8));
    sd_close();
}

Test(ctl_store, backs_up_into_a_new_file_only)
{
    char words[256];
    struct stat st;

    stored();
    snprintf(words, sizeof(words), "backup %s", sd_path("copy"));
    cr_assert(eq(int, run(words), 0), "%s", shown);
    cr_assert(eq(int, stat(sd_path("copy"), &st), 0));
    cr_assert(eq(u32, st.st_mode & 0777, 0600));
    cr_assert(eq(int, run(words), 1));
    cr_assert_not_null(strstr(shown, "already"), "%s", shown);
    unlink(sd_path("copy"));
    sd_open();
    sd_close();
}

enum { LARGE = 400, TRIES = 50 };

/* Large enough that its copy is still being written when it is seen to begin. */
static void stored_large(void)
{
    static uint8_t envelope[STORE_ENVELOPE_MAX];

    stored();
    sd_open();
    sd_begin();
    for (unsigned i = 0; i < LARGE; i++) {
        struct store_reg r = sd_reg(1000 + i, "large", "");

        r.envelope = bytes_of(envelope, sizeof(envelope));
        cr_assert(eq(int, store_reg_put(sd, &r, NULL), STORE_OK));
    }
    sd_commit();
    store_close(sd);
    sd = NULL;
}

/* A backup that was stopped after its file was made; 0: it was done sooner. */
static pid_t stopped_backup(char part[256])
{
    const char *dest = sd_path("copy");
    char event[4096];
    int status, fd = inotify_init1(IN_CLOEXEC);
    pid_t pid;

    unlink(dest);
    cr_assert(le(int, 0, inotify_add_watch(fd, sd_dir, IN_CREATE)));
    pid = fork();
    if (pid == 0) {
        signal(SIGINT, SIG_DFL); /* who runs this may have them ignored */
        signal(SIGHUP, SIG_DFL);
        execl(SLUICECTL, SLUICECTL, "store", "backup", dest, "--data", sd_dir, (char *)NULL);
        _exit(127);
    }
    snprintf(part, 256, "%s.part-%ld", dest, (long)pid);
    while (access(part, F_OK) && access(dest, F_OK))
        cr_assert(lt(i64, 0, (int64_t)read(fd, event, sizeof(event))));
    close(fd);
    kill(pid, SIGSTOP);
    cr_assert(eq(int, waitpid(pid, &status, WUNTRACED), pid));
    if (WIFSTOPPED(status) && access(part, F_OK) == 0)
        return pid;
    if (WIFSTOPPED(status)) {
        kill(pid, SIGCONT);
        waitpid(pid, &status, 0);
    }
    return 0;
}

Test(ctl_store, a_backup_that_is_ended_leaves_nothing_behind)
{
    static const int signals[] = { SIGALRM, SIGTERM, SIGINT, SIGHUP };

    stored_large();
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        char part[256];
        int status = 0;
        pid_t pid = 0;

        for (unsigned n = 0; !pid; n++) {
            cr_assert(lt(u32, n, TRIES));
            pid = stopped_backup(part);
        }
        kill(pid, signals[i]); /* SIGALRM: as its own deadline does */
        kill(pid, SIGCONT);
        cr_assert(eq(int, waitpid(pid, &status, 0), pid));
        if (signals[i] == SIGALRM)
            cr_assert(eq(int, WIFEXITED(status) ? WEXITSTATUS(status) : -1, 1));
        else
            cr_assert(eq(int, WIFSIGNALED(status) ? WTERMSIG(status) : -1, signals[i]));
        cr_assert(not(access(part, F_OK) == 0), "signal %d", signals[i]);
        cr_assert(not(access(sd_path("copy"), F_OK) == 0));
    }
    sd_open();
    sd_close();
}

Test(ctl_store, says_what_is_wrong_with_a_damaged_file)
{
    uint8_t *all;
    size_t n;

    stored();
    all = slurp(sd_path(STORE_FILE), &n);
    spill(sd_path(STORE_FILE), all, n / 2);
    cr_assert(eq(int, run("check"), 1));
    cr_assert_not_null(strstr(shown, sd_path(STORE_FILE)), "%s", shown);
    cr_assert_not_null(strstr(shown, "move it away"), "%s", shown);
    spill(sd_path(STORE_FILE), all, n);
    for (uint8_t *at = all; (at = memmem(at, n - (size_t)(at - all), "alice", 5)); at++)
        at[0] ^= 1;
    spill(sd_path(STORE_FILE), all, n);
    cr_assert(eq(int, run("check"), 1));
    cr_assert_not_null(strstr(shown, "profile: a record of"), "%s", shown);
    free(all);
    clean();
}

Test(ctl_store, knows_what_it_may_be_asked)
{
    sd_make_dir();
    cr_assert(eq(int, run("check"), 1));
    cr_assert_not_null(strstr(shown, "No such file"), "%s", shown);
    cr_assert(not(access(sd_path(STORE_FILE), F_OK) == 0));
    cr_assert(eq(int, run(""), 2));
    cr_assert(eq(int, run("destroy"), 2));
    cr_assert(eq(int, run("backup"), 2));
    cr_assert(eq(int, run("check it"), 2));
    cr_assert(eq(int, run("dump --json"), 2));
    clean();
}
