#include "engine/hostinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CGROUP_PATH_MAX = 1024, SMALL_FILE_MAX = 4096, AFFINITY_BYTES = HOST_CPUS_MAX };

void hostinfo_cpus(struct host_cpus *out)
{
    /* Eight times as many processors as a cpu_set_t holds: the kernel refuses a mask that is
     * smaller than its own. */
    unsigned long mask[AFFINITY_BYTES / sizeof(unsigned long)] = { 0 };
    cpu_set_t *set = (cpu_set_t *)(void *)mask;

    out->count = 0;
    if (sched_getaffinity(0, sizeof(mask), set) == 0) {
        for (unsigned cpu = 0; cpu < sizeof(mask) * 8 && out->count < HOST_CPUS_MAX; cpu++)
            if (CPU_ISSET_S(cpu, sizeof(mask), set))
                out->cpu[out->count++] = (uint16_t)cpu;
    }
    if (out->count == 0) {
        int here = sched_getcpu();

        out->cpu[out->count++] = (uint16_t)(here > 0 ? here : 0);
    }
}

int hostinfo_pin(unsigned cpu)
{
    unsigned long mask[AFFINITY_BYTES / sizeof(unsigned long)] = { 0 };
    cpu_set_t *set = (cpu_set_t *)(void *)mask;

    if (cpu >= sizeof(mask) * 8)
        return -EINVAL;
    CPU_SET_S(cpu, sizeof(mask), set);
    return -pthread_setaffinity_np(pthread_self(), sizeof(mask), set);
}

void hostinfo_background(int nice)
{
    const struct sched_param none = { .sched_priority = 0 };

    if (pthread_setschedparam(pthread_self(), SCHED_BATCH, &none) ||
        setpriority(PRIO_PROCESS, (id_t)gettid(), nice)) {
        /* An optimisation: what is relayed may not wait, what is kept may a little. */
    }
}

/* One decimal number off the front, blanks before it skipped; false: none, or beyond 18 digits. */
static bool take_number(struct bytes *text, uint64_t *out)
{
    size_t digits = 0;

    while (text->n && (*text->p == ' ' || *text->p == '\t')) {
        text->p++;
        text->n--;
    }
    for (*out = 0; digits < text->n && text->p[digits] >= '0' && text->p[digits] <= '9'; digits++) {
        if (digits == 18)
            return false;
        *out = *out * 10 + (uint64_t)(text->p[digits] - '0');
    }
    if (digits == 0)
        return false;
    text->p += digits;
    text->n -= digits;
    return true;
}

/* To the nearest: a quota of 2.1 processors would only be throttled with three shards, and one of
 * 1.9 would leave one idle with one. */
static unsigned cpus_of(uint64_t quota_us, uint64_t period_us)
{
    if (quota_us == 0 || period_us == 0)
        return 0;
    uint64_t n = (quota_us + period_us / 2) / period_us;

    if (n > HOST_CPUS_MAX)
        return HOST_CPUS_MAX;
    return n ? (unsigned)n : 1;
}

unsigned hostinfo_cpu_max(struct bytes cpu_max)
{
    uint64_t quota, period;

    if (!take_number(&cpu_max, &quota)) /* "max" */
        return 0;
    if (!take_number(&cpu_max, &period))
        return 0;
    return cpus_of(quota, period);
}

unsigned hostinfo_cpu_cfs(struct bytes quota_us, struct bytes period_us)
{
    uint64_t quota, period;

    if (!take_number(&quota_us, &quota) || !take_number(&period_us, &period)) /* quota -1: none */
        return 0;
    return cpus_of(quota, period);
}

static struct bytes take_until(struct bytes *text, uint8_t stop)
{
    size_t n = 0;

    while (n < text->n && text->p[n] != stop)
        n++;
    struct bytes taken = bytes_of(text->p, n);
    size_t skip = n < text->n ? n + 1 : n;

    text->p += skip;
    text->n -= skip;
    return taken;
}

static bool controllers_have_cpu(struct bytes controllers)
{
    while (controllers.n)
        if (bytes_eq(take_until(&controllers, ','), bytes_str("cpu")))
            return true;
    return false;
}

bool hostinfo_cgroup_path(struct bytes proc_cgroup, bool v2, char *path, size_t cap)
{
    while (proc_cgroup.n) {
        struct bytes line = take_until(&proc_cgroup, '\n');
        struct bytes hierarchy = take_until(&line, ':'), controllers = take_until(&line, ':');
        bool ours = v2 ? controllers.n == 0 && bytes_eq(hierarchy, bytes_str("0"))
                       : controllers_have_cpu(controllers);

        if (!ours || line.n == 0 || line.p[0] != '/')
            continue;
        if (line.n >= cap)
            return false;
        memcpy(path, line.p, line.n);
        path[line.n] = '\0';
        return true;
    }
    return false;
}

/* Files of /proc and /sys that fit into `cap`; an empty view when they cannot be read. */
static struct bytes read_small(const char *path, char *to, size_t cap)
{
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return bytes_of(to, 0);
    while (n < cap) {
        ssize_t got = read(fd, to + n, cap - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(fd);
    return bytes_of(to, n);
}

static struct bytes read_at(const char *root, const char *sub, const char *dir, const char *name,
                            char *to, size_t cap)
{
    char path[2 * CGROUP_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s%s%s/%s", root, sub, dir, name);

    if (n < 0 || (size_t)n >= sizeof(path))
        return bytes_of(to, 0);
    return read_small(path, to, cap);
}

static unsigned tighter(unsigned a, unsigned b) /* 0 = none */
{
    if (a == 0 || b == 0)
        return a | b;
    return a < b ? a : b;
}

static unsigned quota_in(const char *root, const char *sub, const char *dir, bool v2)
{
    char a[64], b[64];

    if (v2)
        return hostinfo_cpu_max(read_at(root, sub, dir, "cpu.max", a, sizeof(a)));
    return hostinfo_cpu_cfs(read_at(root, sub, dir, "cpu.cfs_quota_us", a, sizeof(a)),
                            read_at(root, sub, dir, "cpu.cfs_period_us", b, sizeof(b)));
}

/* A quota may sit on any ancestor. In a container the path is often the host's and does not exist
 * below the root that we see; the walk then ends at that root, which is the container's own. */
static unsigned quota_up(const char *root, const char *sub, char *dir, bool v2)
{
    unsigned least = 0;

    if (strstr(dir, "/..")) /* outside of our cgroup namespace: only its root can be seen */
        dir[0] = '\0';
    for (size_t n = strlen(dir);; n--) {
        if (n == 0 || dir[n] == '/' || dir[n] == '\0') {
            dir[n] = '\0';
            if (n == 0 || dir[n - 1] != '/')
                least = tighter(least, quota_in(root, sub, dir, v2));
        }
        if (n == 0)
            return least;
    }
}

unsigned hostinfo_cgroup_cpus(const char *fs_root, struct bytes proc_cgroup)
{
    char dir[CGROUP_PATH_MAX];
    unsigned least = 0;

    if (hostinfo_cgroup_path(proc_cgroup, true, dir, sizeof(dir)))
        least = quota_up(fs_root, "", dir, true);
    for (int i = 0; i < 2; i++) {
        if (hostinfo_cgroup_path(proc_cgroup, false, dir, sizeof(dir)))
            least = tighter(least, quota_up(fs_root, i ? "/cpu,cpuacct" : "/cpu", dir, false));
    }
    return least;
}

unsigned hostinfo_shards(void)
{
    char text[SMALL_FILE_MAX];
    struct host_cpus cpus;

    hostinfo_cpus(&cpus);
    struct bytes cgroup = read_small("/proc/self/cgroup", text, sizeof(text));
    unsigned n = tighter(cpus.count, hostinfo_cgroup_cpus("/sys/fs/cgroup", cgroup));

    return n < HOST_SHARDS_MAX ? n : HOST_SHARDS_MAX;
}

int hostinfo_raise_nofile(uint64_t *limit)
{
    struct rlimit r;

    *limit = 0;
    if (getrlimit(RLIMIT_NOFILE, &r))
        return -errno;
    *limit = r.rlim_cur;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r))
        return -errno;
    *limit = r.rlim_cur;
    return 0;
}

int hostinfo_grow_fds(uint64_t count)
{
    struct rlimit r;
    int err = 0;

    if (getrlimit(RLIMIT_NOFILE, &r))
        return -errno;
    count = min_u64(min_u64(count, r.rlim_cur), INT32_MAX);
    if (count == 0)
        return 0;
    int fd = eventfd(0, EFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    int highest = fcntl(fd, F_DUPFD_CLOEXEC, (int)count - 1);

    if (highest < 0)
        err = -errno;
    else
        close(highest);
    close(fd);
    return err;
}

uint64_t hostinfo_rmem_max(void)
{
    char text[64];
    struct bytes b = read_small("/proc/sys/net/core/rmem_max", text, sizeof(text));
    uint64_t n;

    return take_number(&b, &n) ? n : 0;
}

/* false: of another family, or link-local. */
static bool address_of(const struct sockaddr *sa, struct netaddr *out)
{
    memset(out, 0, sizeof(*out));
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, sa, sizeof(in));
        out->ip[10] = out->ip[11] = 0xff;
        memcpy(out->ip + 12, &in.sin_addr, 4);
        return out->ip[12] != 169 || out->ip[13] != 254; /* link-local, RFC 3927 */
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, sa, sizeof(in6));
        memcpy(out->ip, &in6.sin6_addr, 16);
        return out->ip[0] != 0xfe || (out->ip[1] & 0xc0) != 0x80; /* link-local, RFC 4291 §2.5.6 */
    }
    return false;
}

static size_t add_address(struct netaddr *out, size_t count, size_t max, const struct netaddr *a)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(out[i].ip, a->ip, sizeof(a->ip)) == 0)
            return count;
    if (count < max)
        out[count++] = *a;
    return count;
}

size_t hostinfo_addrs(struct netaddr *out, size_t max)
{
    struct ifaddrs *all;
    size_t count = 0;

    if (getifaddrs(&all))
        return 0;
    /* Two rounds: loopback only when the first found nothing. */
    for (int loopback = 0; loopback < 2 && count == 0; loopback++) {
        for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
            struct netaddr a;

            if (i->ifa_addr && (i->ifa_flags & IFF_UP) &&
                !!(i->ifa_flags & IFF_LOOPBACK) == loopback && address_of(i->ifa_addr, &a))
                count = add_address(out, count, min_sz(max, HOST_ADDRS_MAX), &a);
        }
    }
    freeifaddrs(all);
    return count;
}

size_t hostinfo_own_addrs(struct netaddr *out, size_t max, bool *cut)
{
    struct ifaddrs *all;
    size_t count = 0;

    *cut = false;
    if (getifaddrs(&all))
        return 0;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        struct netaddr a;

        if (!i->ifa_addr ||
            (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        (void)address_of(i->ifa_addr, &a); /* link-local ones too */
        size_t was = count;

        count = add_address(out, count, max, &a);
        if (was == count && count == max)
            *cut = true; /* or one that is there already: said for nothing at worst */
    }
    freeifaddrs(all);
    return count;
}
