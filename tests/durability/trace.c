#include "tests/durability/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct trace_step *trace;
size_t trace_n;
bool trace_nosync;

static size_t trace_cap;
static const char *traced; /* NULL: nothing is recorded */

/* Ours, seen from the other side of --wrap. */
ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __real_pwritev(int fd, const struct iovec *v, int count, off_t at);
ssize_t __real_writev(int fd, const struct iovec *v, int count);
ssize_t __real_write(int fd, const void *p, size_t n);
int __real_ftruncate(int fd, off_t size);
/* With large files (-D_FILE_OFFSET_BITS=64) the C library has second names for three of them. */
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *v, int count, off_t at);
int __wrap_ftruncate64(int fd, off_t size);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_msync(void *p, size_t n, int flags);
int __real_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);

ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *v, int count, off_t at);
ssize_t __wrap_writev(int fd, const struct iovec *v, int count);
ssize_t __wrap_write(int fd, const void *p, size_t n);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_msync(void *p, size_t n, int flags);
int __wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);

static void *checked(void *p)
{
    if (!p) {
        fprintf(stderr, "no memory for the trace\n");
        exit(1);
    }
    return p;
}

static struct trace_step *append(enum trace_kind kind)
{
    if (trace_n == trace_cap) {
        trace_cap = trace_cap ? 2 * trace_cap : 256;
        trace = checked(realloc(trace, trace_cap * sizeof(*trace)));
    }
    trace[trace_n] = (struct trace_step){ .kind = kind };
    return &trace[trace_n++];
}

static bool is_traced(int fd)
{
    struct stat a, b;

    return traced && fstat(fd, &a) == 0 && stat(traced, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

static void wrote(int fd, const void *p, size_t n, uint64_t at)
{
    bool synced = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
    struct trace_step *s = append(synced ? TRACE_SYNCED_WRITE : TRACE_WRITE);

    s->at = at;
    s->n = n;
    s->data = checked(malloc(n));
    memcpy(s->data, p, n);
}

static void wrote_v(int fd, const struct iovec *v, int count, size_t n, uint64_t at)
{
    for (int i = 0; i < count && n > 0; i++) { /* pieces may be torn apart from each other */
        size_t len = v[i].iov_len < n ? v[i].iov_len : n;

        wrote(fd, v[i].iov_base, len, at);
        at += len;
        n -= len;
    }
}

void trace_begin(const char *file)
{
    traced = file;
}

void trace_end(void)
{
    traced = NULL;
}

void trace_mark(uint32_t mark)
{
    append(TRACE_MARK)->mark = mark;
}

/* ---- the wrappers --------------------------------------------------------------------------- */

ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
    ssize_t done = __real_pwrite(fd, p, n, at);

    if (done > 0 && is_traced(fd))
        wrote(fd, p, (size_t)done, (uint64_t)at);
    return done;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *v, int count, off_t at)
{
    ssize_t done = __real_pwritev(fd, v, count, at);

    if (done > 0 && is_traced(fd))
        wrote_v(fd, v, count, (size_t)done, (uint64_t)at);
    return done;
}

ssize_t __wrap_writev(int fd, const struct iovec *v, int count)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = __real_writev(fd, v, count);

    if (done > 0 && is_traced(fd))
        wrote_v(fd, v, count, (size_t)done, (uint64_t)at);
    return done;
}

ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = __real_write(fd, p, n);

    if (done > 0 && is_traced(fd))
        wrote(fd, p, (size_t)done, (uint64_t)at);
    return done;
}

int __wrap_ftruncate(int fd, off_t size)
{
    int rc = __real_ftruncate(fd, size);

    if (rc == 0 && is_traced(fd))
        append(TRACE_RESIZE)->at = (uint64_t)size;
    return rc;
}

ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return __wrap_pwrite(fd, p, n, at);
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *v, int count, off_t at)
{
    return __wrap_pwritev(fd, v, count, at);
}

int __wrap_ftruncate64(int fd, off_t size)
{
    return __wrap_ftruncate(fd, size);
}

int __wrap_fdatasync(int fd)
{
    int rc = __real_fdatasync(fd);

    if (rc == 0 && is_traced(fd))
        append(TRACE_SYNC);
    return rc;
}

int __wrap_fsync(int fd)
{
    int rc = __real_fsync(fd);

    if (rc == 0 && is_traced(fd))
        append(TRACE_SYNC);
    return rc;
}

/* Only a writable map would be changed by stores, which no wrapper sees. */
int __wrap_msync(void *p, size_t n, int flags)
{
    fprintf(stderr, "msync: the file is written through a map, which this test cannot follow\n");
    abort();
    return __real_msync(p, n, flags);
}

int __wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode)
{
    if (flags & (MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC | MDB_MAPASYNC)) {
        fprintf(stderr, "the store asks LMDB for less than a durable commit (flags %#x)\n", flags);
        abort();
    }
    return __real_mdb_env_open(env, path, flags | (trace_nosync ? MDB_NOSYNC : 0), mode);
}
