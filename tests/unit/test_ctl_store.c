/* sluicectl store: against a store that no daemon has open. */
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

    snprintf(command, sizeof(command), "%s store %s --data %s 2>&1", SLUICECTL, words, sd_dir);
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
