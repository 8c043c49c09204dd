#include "engine/turn_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/rng.h"
#include "proto/crypto.h"

enum { DIGITS = 2 * TURN_SECRET_BYTES };

static int read_secret(int fd, char secret[DIGITS + 1])
{
    char text[DIGITS + 2] = { 0 };
    ssize_t n = pread(fd, text, sizeof(text), 0);
    int err = n < 0 ? -errno : n < DIGITS ? -EINVAL : 0;

    if (!err &&
        (strspn(text, "0123456789abcdef") != DIGITS || (n > DIGITS && text[DIGITS] != '\n')))
        err = -EINVAL;
    if (!err)
        memcpy(secret, text, DIGITS);
    crypto_wipe(text, sizeof(text));
    return err;
}

/* Whole under another name first: a crash leaves no half of a secret. */
static int write_secret(const char *path, const char *secret)
{
    char temporary[CONFIG_PATH_MAX + 64], line[DIGITS + 2];
    int fd, err = 0;

    snprintf(temporary, sizeof(temporary), "%s.%016llx", path, (unsigned long long)rng_u64());
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    snprintf(line, sizeof(line), "%s\n", secret);
    ssize_t n = write(fd, line, DIGITS + 1);

    if (n != DIGITS + 1)
        err = n < 0 ? -errno : -ENOSPC;
    if (!err && fsync(fd) < 0)
        err = -errno;
    if (close(fd) < 0 && !err)
        err = -errno;
    if (!err && rename(temporary, path) < 0)
        err = -errno;
    if (err)
        unlink(temporary);
    crypto_wipe(line, sizeof(line));
    return err;
}

int turn_secret_keep(const char *dir, char secret[DIGITS + 1], char *why, size_t cap)
{
    char path[CONFIG_PATH_MAX + 16];
    int err, fd;

    snprintf(path, sizeof(path), "%s/turn.secret", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        err = read_secret(fd, secret);
        if (!err && fchmod(fd, 0600) < 0) { /* of another user: still the secret */
        }
        close(fd);
    } else {
        err = errno == ENOENT ? write_secret(path, secret) : -errno;
    }
    if (err == -EINVAL)
        snprintf(why, cap,
                 "%s: not a secret of ours (%d hexadecimal digits); it is left as it is: "
                 "give one by --turn-secret, or move the file away",
                 path, DIGITS);
    else if (err)
        snprintf(why, cap, "%s: cannot be kept: %s", path, strerror(-err));
    return err;
}
