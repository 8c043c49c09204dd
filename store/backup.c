/* A copy that is whole or absent: written under another name, synced, and only then given its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/env.h"

static int sync_parent(const char *path)
{
    char copy[1024];
    int fd, err = 0;

    snprintf(copy, sizeof(copy), "%s", path);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fsync(fd) < 0 && errno != EINVAL)
        err = -errno;
    close(fd);
    return err;
}

/* What is there already is somebody's backup. */
static int give_name(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (link(from, to) < 0) /* file systems that know no such rename */
        return -errno;
    unlink(from);
    return 0;
}

int store_backup(struct store *s, const char *dest, char *why, size_t cap)
{
    char part[1024];
    int fd, rc = 0;

    if (snprintf(part, sizeof(part), STORE_BACKUP_PART, dest, (long)getpid()) >=
        (int)sizeof(part)) {
        snprintf(why, cap, "%s: the path is too long", dest);
        return -ENAMETOOLONG;
    }
    if (access(dest, F_OK) == 0) {
        snprintf(why, cap, "%s: is there already", dest);
        return -EEXIST;
    }
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = -errno;
        snprintf(why, cap, "%s: %s", part, strerror(-rc));
        return rc;
    }
    rc = env_copy_to(s, fd);
    if (!rc && fsync(fd) < 0)
        rc = -errno;
    if (close(fd) < 0 && !rc)
        rc = -errno;
    if (!rc)
        rc = give_name(part, dest);
    if (!rc)
        rc = sync_parent(dest);
    if (rc) {
        snprintf(why, cap, "%s: %s", dest, strerror(-rc));
        unlink(part);
    }
    return rc;
}
