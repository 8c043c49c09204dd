#include "engine/identity_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/datadir.h"
#include "engine/rng.h"

enum { FILE_BYTES_MAX = 256, PATH_BYTES_MAX = 1024 }; /* no form of the key is longer */

static int refuse(char *why, size_t cap, const char *path, int err, const char *what)
{
    snprintf(why, cap, "identity file %s: %s", path, what ? what : strerror(-err));
    return err;
}

/* Loose modes are tightened. Where that cannot be (a read-only mount, somebody else's file) the key
 * still serves: secrets of orchestrators look like this. */
static void tighten(int fd, const struct stat *st, const char *path, char *why, size_t cap)
{
    if ((st->st_mode & 077) == 0)
        return;
    if (fchmod(fd, 0600) < 0)
        snprintf(
            why, cap,
            "identity file %s can be read by others (mode %04o) and that cannot be changed: %s",
            path, st->st_mode & 07777, strerror(errno));
}

static int load(const char *path, struct identity *me, char *why, size_t cap)
{
    uint8_t bytes[FILE_BYTES_MAX];
    struct stat st;
    size_t n = 0;
    ssize_t got = 0;
    int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return errno == ENOENT ? -ENOENT : refuse(why, cap, path, -errno, NULL);
    if (fstat(fd, &st) < 0)
        err = refuse(why, cap, path, -errno, NULL);
    else if (!S_ISREG(st.st_mode))
        err = refuse(why, cap, path, -EINVAL, "is not a regular file");
    while (!err && n < sizeof(bytes) && (got = read(fd, bytes + n, sizeof(bytes) - n)) != 0) {
        if (got < 0 && errno != EINTR)
            err = refuse(why, cap, path, -errno, NULL);
        else if (got > 0)
            n += (size_t)got;
    }
    if (!err && !identity_decode(bytes_of(bytes, n), me))
        err = refuse(
            why, cap, path, -EINVAL,
            "holds no valid Ed25519 key; it is left as it is. Restore it from a backup, or move "
            "it away to get a new identity");
    if (!err)
        tighten(fd, &st, path, why, cap);
    explicit_bzero(bytes, sizeof(bytes));
    close(fd);
    return err;
}

static int write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t wrote = write(fd, p, n);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return -errno;
        p += wrote;
        n -= (size_t)wrote;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int sync_dir(const char *path)
{
    char dir[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');
    int fd, err;

    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    /* EINVAL: a file system that has no order to keep between names. */
    err = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
    close(fd);
    return err;
}

/* Gives the finished file its name, unless the name is taken. */
static int name_it(const char *temporary, const char *path)
{
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (link(temporary, path) < 0) /* the older way not to replace */
        return -errno;
    unlink(temporary);
    return 0;
}

/* A crash leaves either no file of this name or the whole one: the bytes reach the disk under
 * another name first, then the name does. */
static int create(const char *path, const struct identity *me)
{
    char temporary[PATH_BYTES_MAX + 32];
    uint8_t bytes[KEY_FILE_BYTES];
    int fd, err;

    snprintf(temporary, sizeof(temporary), "%s.%016" PRIx64, path, rng_u64());
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    identity_encode(me, bytes);
    err = fchmod(fd, 0600) < 0 ? -errno
                               : write_all(fd, bytes, sizeof(bytes)); /* a umask may take more */
    explicit_bzero(bytes, sizeof(bytes));
    if (close(fd) < 0 && !err)
        err = -errno;
    if (!err)
        err = name_it(temporary, path);
    if (err) {
        unlink(temporary);
        return err;
    }
    return sync_dir(path);
}

static int make_parent(const char *path)
{
    char dir[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');

    if (!slash || slash == path)
        return 0;
    snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
    return datadir_make(dir);
}

int identity_file_open(const char *path, struct identity *me, bool *created, char *why, size_t cap)
{
    uint8_t seed[32];
    struct stat st;
    int err;

    ASSERT(cap > 0);
    why[0] = '\0';
    *created = false;
    if (strlen(path) >= PATH_BYTES_MAX)
        return refuse(why, cap, path, -ENAMETOOLONG, NULL);
    err = load(path, me, why, cap);
    if (err != -ENOENT)
        return err;
    if (lstat(path, &st) == 0)
        return refuse(why, cap, path, -ENOENT, "is a symbolic link to a file that does not exist");
    err = make_parent(path);
    if (err)
        return refuse(why, cap, path, err, NULL);
    rng_bytes(seed, sizeof(seed));
    identity_from_seed(seed, me);
    explicit_bzero(seed, sizeof(seed));
    err = create(path, me);
    if (err == -EEXIST) { /* somebody else was first: that one is who we are */
        identity_wipe(me);
        return load(path, me, why, cap);
    }
    if (err) {
        identity_wipe(me);
        return refuse(why, cap, path, err, NULL);
    }
    *created = true;
    return 0;
}
