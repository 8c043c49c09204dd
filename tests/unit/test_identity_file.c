/* The key on disk: made once, private from the first byte, never overwritten (dusk.md §12). */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/identity_file.h"

static char dir[64], path[128], why[512];
static struct identity me, again;
static bool created;

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/sluice-id-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/identity.key", dir);
}

static void teardown(void)
{
    char command[192];

    snprintf(command, sizeof(command), "chmod -R u+rwx %s; rm -rf %s", dir, dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(identity_file, .init = setup, .fini = teardown);

#define OPEN(m) identity_file_open(path, m, &created, why, sizeof(why))

static size_t slurp(uint8_t *out, size_t cap)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, out, cap);

    close(fd);
    cr_assert_geq(n, 0);
    return (size_t)n;
}

static void spill(const void *p, size_t n, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert_eq(write(fd, p, n), (ssize_t)n);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
}

static mode_t mode_of(const char *p)
{
    struct stat st;

    cr_assert_eq(stat(p, &st), 0);
    return st.st_mode & 07777;
}

Test(identity_file, is_made_once_and_then_loaded)
{
    uint8_t bytes[128];

    cr_assert_eq(OPEN(&me), 0, "%s", why);
    cr_expect(created);
    cr_expect_str_eq(why, "");
    cr_assert_eq(slurp(bytes, sizeof(bytes)), (size_t)KEY_FILE_BYTES);
    cr_expect_eq(memcmp(bytes, "\x08\x01\x12\x40", 4), 0, "protobuf head of dusk.md §12");
    cr_expect_eq(mode_of(path), (mode_t)0600);
    cr_assert_eq(OPEN(&again), 0, "%s", why);
    cr_expect_not(created);
    cr_expect(peer_id_eq(&me.id, &again.id), "the same identity after a restart");
    cr_expect_eq(memcmp(me.sk, again.sk, sizeof(me.sk)), 0);
}

Test(identity_file, makes_its_directory_private_and_leaves_nothing_else)
{
    unsigned entries = 0;
    char deep[160];

    snprintf(path, sizeof(path), "%s/a/b/identity.key", dir);
    cr_assert_eq(OPEN(&me), 0, "%s", why);
    snprintf(deep, sizeof(deep), "%s/a/b", dir);
    cr_expect_eq(mode_of(deep), (mode_t)0700);
    DIR *d = opendir(deep);

    while (readdir(d))
        entries++;
    closedir(d);
    cr_expect_eq(entries, 3u, ". and .. and the key; no temporary file");
}

Test(identity_file, is_private_whatever_the_umask)
{
    umask(0);
    cr_assert_eq(OPEN(&me), 0, "%s", why);
    cr_expect_eq(mode_of(path), (mode_t)0600);
    unlink(path);
    umask(0777);
    cr_assert_eq(OPEN(&me), 0, "%s", why);
    cr_expect_eq(mode_of(path), (mode_t)0600);
    umask(022);
}

Test(identity_file, reads_the_published_test_key)
{
    uint8_t seed[32], file[KEY_FILE_BYTES];
    char text[PEER_TEXT_MAX];

    for (unsigned i = 0; i < 32; i++)
        seed[i] = (uint8_t)i; /* dusk.md §0 */
    identity_from_seed(seed, &me);
    identity_encode(&me, file);
    spill(file, sizeof(file), 0600);
    cr_assert_eq(OPEN(&again), 0, "%s", why);
    peer_id_text(&again.id, text);
    cr_expect_str_eq(text, "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB");
}

Test(identity_file, tightens_a_loose_mode)
{
    uint8_t bytes[128];

    cr_assert_eq(OPEN(&me), 0);
    size_t n = slurp(bytes, sizeof(bytes));

    spill(bytes, n, 0644);
    cr_assert_eq(OPEN(&again), 0, "%s", why);
    cr_expect_eq(mode_of(path), (mode_t)0600);
    cr_expect(peer_id_eq(&me.id, &again.id));
}

static void refused(const char *says)
{
    uint8_t before[1024], after[1024];
    size_t n = slurp(before, sizeof(before));

    cr_expect_lt(OPEN(&me), 0, "accepted");
    cr_expect(strstr(why, path) && strstr(why, says), "%s", why);
    cr_expect_null(strchr(why, '\n'));
    cr_expect_eq(slurp(after, sizeof(after)), n);
    cr_expect_eq(memcmp(before, after, n), 0, "the file was touched");
}

Test(identity_file, an_invalid_file_is_named_and_left_alone)
{
    uint8_t good[KEY_FILE_BYTES], bytes[1024] = { 0 };

    cr_assert_eq(OPEN(&me), 0);
    cr_assert_eq(slurp(good, sizeof(good)), sizeof(good));
    spill("", 0, 0600);
    refused("no valid Ed25519 key");
    spill("not a key\n", 10, 0600);
    refused("no valid Ed25519 key");
    spill(bytes, sizeof(bytes), 0600);
    refused("no valid Ed25519 key");
    for (size_t n = 1; n < sizeof(good); n++) {
        spill(good, n, 0600);
        refused("no valid Ed25519 key");
    }
    memcpy(bytes, good, sizeof(good));
    bytes[40] ^= 1; /* the public half no longer belongs to the private one */
    spill(bytes, sizeof(good), 0600);
    refused("no valid Ed25519 key");
}

Test(identity_file, what_is_no_file_is_refused_at_once)
{
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_expect_lt(OPEN(&me), 0);
    cr_expect(strstr(why, path), "%s", why);
    rmdir(path);
    cr_assert_eq(mkfifo(path, 0600), 0); /* would wait for a writer for ever */
    cr_expect_lt(OPEN(&me), 0);
    cr_expect(strstr(why, "regular"), "%s", why);
    unlink(path);
    cr_assert_eq(symlink("/no/such/key", path), 0);
    cr_expect_lt(OPEN(&me), 0);
    cr_expect(strstr(why, "symbolic link"), "%s", why);
    cr_expect_eq(access("/no/such/key", F_OK), -1);
}

/* Run without privileges where there are any: root reads and writes everything. */
static int unprivileged(void (*what)(void))
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(99);
        what();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void open_unreadable(void)
{
    int r = OPEN(&me);

    _exit(r == -EACCES && strstr(why, path) ? 42 : 1);
}

Test(identity_file, an_unreadable_file_stops_the_start)
{
    spill("secret", 6, 0000);
    cr_assert_eq(chmod(dir, 0755), 0);
    if (geteuid() != 0)
        cr_skip_test("needs root to hide a file from itself");
    cr_expect_eq(unprivileged(open_unreadable), 42);
    spill("secret", 6, 0600);
    cr_assert_eq(chmod(dir, 0555), 0);
    unlink(path);
    cr_expect_eq(unprivileged(open_unreadable), 42, "a directory without room for it");
}

Test(identity_file, two_that_start_together_agree)
{
    enum { RACERS = 8 };
    struct peer_id ids[RACERS];
    int p[2];

    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < RACERS; i++) {
        if (fork() == 0) {
            struct identity mine;
            bool made;
            int r = identity_file_open(path, &mine, &made, why, sizeof(why));
            ssize_t n = write(p[1], &mine.id, sizeof(mine.id));

            _exit(r || n != sizeof(mine.id));
        }
    }
    for (int i = 0; i < RACERS; i++) {
        int status;

        wait(&status);
        cr_expect_eq(status, 0);
    }
    for (int i = 0; i < RACERS; i++) {
        cr_assert_eq(read(p[0], &ids[i], sizeof(ids[i])), (ssize_t)sizeof(ids[i]));
        cr_expect(peer_id_eq(&ids[i], &ids[0]), "racer %d is somebody else", i);
    }
    cr_assert_eq(OPEN(&me), 0);
    cr_expect(peer_id_eq(&me.id, &ids[0]));
}
