#include "engine/guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/datadir.h"

enum { INODES_MAX = 16, PIDS_MAX = 65536, FDS_MAX = 65536 };

/* "NAME, process PID" from /proc; the name is the kernel's, so it holds no surprises but is shown
 * without its control characters all the same. */
static void describe(long pid, char *out, size_t cap)
{
    char path[64], name[32] = "";
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
    f = fopen(path, "re");
    if (f) {
        if (!fgets(name, sizeof(name), f))
            name[0] = '\0';
        fclose(f);
    }
    name[strcspn(name, "\n")] = '\0';
    for (char *p = name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    snprintf(out, cap, "%s%sprocess %ld", name, name[0] ? ", " : "", pid);
}

static void lock_holder(int fd, char *out, size_t cap)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;

    if (pid > 0)
        describe(pid, out, cap);
    else
        snprintf(out, cap, "another process");
}

int guard_acquire(const char *data_dir, int *fd, char *why, size_t cap)
{
    char path[1100], text[128];
    int lock, n, err = datadir_make(data_dir);

    if (err) {
        snprintf(why, cap, "data directory %s (--data): cannot be made: %s", data_dir,
                 strerror(-err));
        return err;
    }
    snprintf(path, sizeof(path), "%s/lock", data_dir);
    lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0) {
        err = -errno;
        snprintf(why, cap, "data directory %s (--data): %s cannot be opened: %s", data_dir, path,
                 strerror(-err));
        return err;
    }
    if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
        err = -errno;
        if (err == -EWOULDBLOCK)
            lock_holder(lock, text, sizeof(text));
        else
            snprintf(text, sizeof(text), "%s", strerror(-err));
        snprintf(why, cap, "data directory %s (--data) is in use: %s", data_dir, text);
        close(lock);
        return err;
    }
    /* The number is for the next one's error line; the lock itself is the kernel's, and goes with
     * the process however it ends. */
    n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(lock, 0) < 0 || pwrite(lock, text, (size_t)n, 0) != n) {
        err = errno ? -errno : -EIO;
        snprintf(why, cap, "data directory %s (--data): %s cannot be written: %s", data_dir, path,
                 strerror(-err));
        close(lock);
        return err;
    }
    *fd = lock;
    return 0;
}

void guard_release(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Inodes of the sockets that listen at `port`, or that are bound to it for datagrams. */
static size_t listening(bool udp, uint16_t port, unsigned long *inodes, size_t max)
{
    static const char *const tables[2][2] = { { "/proc/net/tcp", "/proc/net/tcp6" },
                                              { "/proc/net/udp", "/proc/net/udp6" } };
    const unsigned wanted = udp ? 0x07 : 0x0a; /* TCP_CLOSE: not connected; TCP_LISTEN */
    size_t n = 0;

    for (size_t t = 0; t < 2; t++) {
        FILE *f = fopen(tables[udp][t], "re");
        char line[512];

        while (f && n < max && fgets(line, sizeof(line), f)) {
            unsigned local = 0, state = 0;
            unsigned long inode = 0;

            if (sscanf(line, " %*u: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*u %*u %lu",
                       &local, &state, &inode) == 3 &&
                state == wanted && local == port)
                inodes[n++] = inode;
        }
        if (f)
            fclose(f);
    }
    return n;
}

static bool holds_one(long pid, const unsigned long *inodes, size_t n)
{
    char path[64], link[64];
    struct dirent *e;
    bool found = false;
    unsigned seen = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
    dir = opendir(path);
    while (dir && !found && seen++ < FDS_MAX && (e = readdir(dir))) {
        ssize_t len = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);
        unsigned long inode;

        if (len <= 0)
            continue;
        link[len] = '\0';
        if (sscanf(link, "socket:[%lu]", &inode) != 1)
            continue;
        for (size_t i = 0; i < n; i++)
            found = found || inodes[i] == inode;
    }
    if (dir)
        closedir(dir);
    return found;
}

static void port_holder(bool udp, uint16_t port, char *out, size_t cap)
{
    unsigned long inodes[INODES_MAX];
    size_t n = listening(udp, port, inodes, INODES_MAX);
    struct dirent *e;
    unsigned seen = 0;
    DIR *proc;

    out[0] = '\0';
    proc = n ? opendir("/proc") : NULL;
    while (proc && seen++ < PIDS_MAX && (e = readdir(proc))) {
        char *end;
        long pid = strtol(e->d_name, &end, 10);

        if (pid <= 0 || *end || !holds_one(pid, inodes, n))
            continue;
        describe(pid, out, cap);
        break;
    }
    if (proc)
        closedir(proc);
}

void guard_port_holder(uint16_t port, char *out, size_t cap)
{
    port_holder(false, port, out, cap);
}

static int bind_alone(bool udp, const struct netaddr *at, bool v6only)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(at->port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(at->port) };
    bool is4 = netaddr_is4(at);
    int one = 1, only = v6only, err = 0;
    int fd = socket(is4 ? AF_INET : AF_INET6, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    memcpy(&v4.sin_addr, at->ip + 12, 4);
    memcpy(&v6.sin6_addr, at->ip, 16);
    /* SO_REUSEADDR passes over TIME_WAIT but not over a listener, which is what is looked for;
     * hence listen as well: two sockets with SO_REUSEADDR may both bind. Of datagrams two with it
     * would share the port. */
    if ((!udp && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0) ||
        (!is4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) < 0) ||
        bind(fd,
             is4 ? (const struct sockaddr *)(const void *)&v4
                 : (const struct sockaddr *)(const void *)&v6,
             is4 ? sizeof(v4) : sizeof(v6)) < 0 ||
        (!udp && listen(fd, 1) < 0))
        err = -errno;
    close(fd);
    return err;
}

/* A listener with an armed accept outlives a killed process: the kernel takes its ring apart when
 * it finds the time. So a port that nobody can be seen to hold is asked for again, for a while. */
static int bind_patiently(bool udp, const struct netaddr *at, bool v6only, char *holder, size_t cap)
{
    enum { TRIES = 60, PAUSE_US = 50000 };
    int err = bind_alone(udp, at, v6only);

    for (int i = 0; err == -EADDRINUSE && i < TRIES; i++) {
        port_holder(udp, at->port, holder, cap);
        if (holder[0])
            break;
        usleep(PAUSE_US);
        err = bind_alone(udp, at, v6only);
    }
    return err;
}

static int probe(bool udp, const struct netaddr *at, bool v6only, const char *flag, char *why,
                 size_t cap)
{
    char text[NETADDR_TEXT_MAX], holder[96] = "";
    int err = at->port ? bind_patiently(udp, at, v6only, holder, sizeof(holder)) : 0;

    if (!err)
        return 0;
    netaddr_text(at, text);
    snprintf(why, cap, "port %u%s (%s %s): %s%s%s", (unsigned)at->port, udp ? "/udp" : "", flag,
             text, strerror(-err), holder[0] ? "; held by " : "", holder);
    return err;
}

int guard_probe(const struct netaddr *at, bool v6only, const char *flag, char *why, size_t cap)
{
    return probe(false, at, v6only, flag, why, cap);
}

int guard_probe_turn(const struct config *c, const struct netaddr *at, bool v6only, char *why,
                     size_t cap)
{
    struct netaddr tcp = *at;
    int err = probe(true, at, v6only, "--listen-turn", why, cap);

    tcp.port = c->turn_tcp_port ? c->turn_tcp_port : at->port;
    return err || c->turn_udp_only ? err : probe(false, &tcp, v6only, "--listen-turn", why, cap);
}

int guard_free(const struct netaddr *at, bool v6only)
{
    return bind_alone(false, at, v6only);
}

int guard_ports(const struct config *c, char *why, size_t cap)
{
    struct listen_at turn[CONFIG_LISTEN_MAX];
    unsigned n = c->preset == PRESET_DUSK ? 0 : config_turn_doors(c, turn);

    for (unsigned i = 0; i < c->p2p_n; i++)
        if (guard_probe(&c->p2p[i].addr, config_v6only(c->p2p, c->p2p_n, i), "--listen-p2p", why,
                        cap) == -EADDRINUSE)
            return -EADDRINUSE;
    if (c->dig_on && guard_probe(&c->dig.addr, false, "--listen-dig", why, cap) == -EADDRINUSE)
        return -EADDRINUSE;
    if (c->http_on && guard_probe(&c->http.addr, false, "--listen-http", why, cap) == -EADDRINUSE)
        return -EADDRINUSE;
    for (unsigned i = 0; i < n; i++)
        if (guard_probe_turn(c, &turn[i].addr, config_v6only(turn, n, i), why, cap) == -EADDRINUSE)
            return -EADDRINUSE;
    return 0;
}
