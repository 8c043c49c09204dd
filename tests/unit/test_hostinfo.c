#include "engine/hostinfo.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned cpu_max(const char *text)
{
    return hostinfo_cpu_max(bytes_str(text));
}

Test(hostinfo, reads_the_quota_of_cgroup_v2)
{
    cr_assert_eq(cpu_max("max 100000\n"), 0);
    cr_assert_eq(cpu_max("200000 100000\n"), 2);
    cr_assert_eq(cpu_max("100000 100000"), 1);
    cr_assert_eq(cpu_max("50000 100000\n"), 1);
    cr_assert_eq(cpu_max("1000 100000\n"), 1, "never below one");
    cr_assert_eq(cpu_max("140000 100000\n"), 1);
    cr_assert_eq(cpu_max("150000 100000\n"), 2);
    cr_assert_eq(cpu_max("210000 100000\n"), 2);
    cr_assert_eq(cpu_max("6400000 100000\n"), 64);
    cr_assert_eq(cpu_max("999999999999999999 1"), HOST_CPUS_MAX);
}

Test(hostinfo, takes_what_it_does_not_understand_for_no_limit)
{
    static const char *const odd[] = { "",
                                       "\n",
                                       "max",
                                       "100000",
                                       "100000 \n",
                                       "0 100000",
                                       "100000 0",
                                       "-1 100",
                                       "10000x 2000",
                                       "x",
                                       "9999999999999999999 1",
                                       "1 9999999999999999999" };

    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        cr_assert_eq(cpu_max(odd[i]), 0, "%s", odd[i]);
}

Test(hostinfo, reads_the_quota_of_cgroup_v1)
{
    cr_assert_eq(hostinfo_cpu_cfs(bytes_str("-1\n"), bytes_str("100000\n")), 0);
    cr_assert_eq(hostinfo_cpu_cfs(bytes_str("300000\n"), bytes_str("100000\n")), 3);
    cr_assert_eq(hostinfo_cpu_cfs(bytes_str(""), bytes_str("")), 0);
    cr_assert_eq(hostinfo_cpu_cfs(bytes_str("300000\n"), bytes_str("0")), 0);
}

static const char v1_text[] =
    "12:cpuset:/x\n5:cpuacct,cpu:/docker/abc\n1:name=systemd:/y\n0::/z/w\n";

Test(hostinfo, finds_our_cgroup)
{
    char path[32];

    cr_assert(hostinfo_cgroup_path(bytes_str("0::/a/b\n"), true, path, sizeof(path)));
    cr_assert_str_eq(path, "/a/b");
    cr_assert(!hostinfo_cgroup_path(bytes_str("0::/a/b\n"), false, path, sizeof(path)));
    cr_assert(hostinfo_cgroup_path(bytes_str(v1_text), false, path, sizeof(path)));
    cr_assert_str_eq(path, "/docker/abc");
    cr_assert(hostinfo_cgroup_path(bytes_str(v1_text), true, path, sizeof(path)));
    cr_assert_str_eq(path, "/z/w");
    cr_assert(hostinfo_cgroup_path(bytes_str("0::/a:b"), true, path, sizeof(path)));
    cr_assert_str_eq(path, "/a:b");
    cr_assert(!hostinfo_cgroup_path(bytes_str("0::/a/b\n"), true, path, 4), "no room for \"/a/b\"");
    cr_assert(hostinfo_cgroup_path(bytes_str("0::/a/b\n"), true, path, 5));
    static const char *const odd[] = { "", "\n", ":", "::", "0::", "0:cpu:/a", "10::/a", "0::a" };
    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        cr_assert(!hostinfo_cgroup_path(bytes_str(odd[i]), true, path, sizeof(path)), "%s", odd[i]);
}

static char root[64];

static void make_root(void)
{
    snprintf(root, sizeof(root), "/tmp/sluice-hostinfo-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
    strcat(root, "/fs");
    cr_assert_eq(mkdir(root, 0700), 0);
}

static void remove_root(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -r '%.*s'", (int)strlen(root) - 3, root);
    cr_assert_eq(system(command), 0);
}

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s%s", root, dir);
    mkdir(path, 0700);
    if (!name)
        return;
    snprintf(path, sizeof(path), "%s%s/%s", root, dir, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static unsigned cgroup_cpus(const char *proc_cgroup)
{
    return hostinfo_cgroup_cpus(root, bytes_str(proc_cgroup));
}

Test(hostinfo, takes_the_tightest_quota_up_to_the_root, .init = make_root, .fini = remove_root)
{
    cr_assert_eq(cgroup_cpus("0::/a/b\n"), 0, "no files, no limit");
    put_file("/a", "cpu.max", "300000 100000\n");
    put_file("/a/b", "cpu.max", "max 100000\n");
    cr_assert_eq(cgroup_cpus("0::/a/b\n"), 3);
    cr_assert_eq(cgroup_cpus("0::/\n"), 0);
    put_file("/a/b", "cpu.max", "800000 100000\n");
    cr_assert_eq(cgroup_cpus("0::/a/b\n"), 3);
    put_file("/a/b", "cpu.max", "200000 100000\n");
    cr_assert_eq(cgroup_cpus("0::/a/b\n"), 2);
    cr_assert_eq(cgroup_cpus("0::/a\n"), 3);
    put_file("", "cpu.max", "100000 100000\n"); /* a container's own root */
    cr_assert_eq(cgroup_cpus("0::/\n"), 1);
    cr_assert_eq(cgroup_cpus("0::/gone/away\n"), 1, "the host's path, not to be seen from inside");
    put_file("", "cpu.max", "300000 100000\n");
    put_file("/..", "cpu.max", "100000 100000\n"); /* no business of ours */
    cr_assert_eq(cgroup_cpus("0::/..\n"), 3, "outside of our namespace: its root counts");
    cr_assert_eq(cgroup_cpus("0::/../x\n"), 3);
}

Test(hostinfo, reads_the_old_hierarchy_too, .init = make_root, .fini = remove_root)
{
    put_file("/cpu,cpuacct", NULL, NULL);
    put_file("/cpu,cpuacct/docker", "cpu.cfs_quota_us", "400000\n");
    put_file("/cpu,cpuacct/docker", "cpu.cfs_period_us", "100000\n");
    cr_assert_eq(cgroup_cpus("4:cpu,cpuacct:/docker\n0::/\n"), 4);
    put_file("/cpu", "cpu.cfs_quota_us", "200000\n");
    put_file("/cpu", "cpu.cfs_period_us", "100000\n");
    cr_assert_eq(cgroup_cpus("4:cpu,cpuacct:/docker\n0::/\n"), 2);
    put_file("/cpu", "cpu.cfs_quota_us", "-1\n");
    cr_assert_eq(cgroup_cpus("4:cpu:/docker\n"), 4);
}

Test(hostinfo, lists_processors_and_pins_to_one)
{
    struct host_cpus cpus, one;

    hostinfo_cpus(&cpus);
    cr_assert_geq(cpus.count, 1);
    for (unsigned i = 1; i < cpus.count; i++)
        cr_assert_lt(cpus.cpu[i - 1], cpus.cpu[i]);
    unsigned shards = hostinfo_shards();
    cr_assert(shards >= 1 && shards <= cpus.count && shards <= HOST_SHARDS_MAX);
    unsigned last = cpus.cpu[cpus.count - 1];
    cr_assert_eq(hostinfo_pin(last), 0);
    hostinfo_cpus(&one);
    cr_assert_eq(one.count, 1);
    cr_assert_eq(one.cpu[0], last);
    cr_assert_eq(hostinfo_shards(), 1, "affinity counts");
    cr_assert_lt(hostinfo_pin(100000), 0);
}

static long fd_table_size(void)
{
    char line[128];
    long n = 0;
    FILE *f = fopen("/proc/self/status", "r");

    cr_assert_not_null(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "FDSize: %ld", &n) == 1)
            break;
    fclose(f);
    return n;
}

Test(hostinfo, raises_the_descriptor_limit_and_grows_the_table_once)
{
    struct rlimit r;
    uint64_t limit = 0;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &r), 0);
    if (r.rlim_max > 4096)
        r.rlim_max = 4096;
    r.rlim_cur = 100;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &r), 0);
    cr_assert_eq(hostinfo_grow_fds(4000), 0);
    cr_assert_lt(fd_table_size(), 1000, "not above the limit");
    cr_assert_eq(hostinfo_raise_nofile(&limit), 0);
    cr_assert_eq(limit, r.rlim_max);
    int before = dup(0);
    cr_assert_eq(hostinfo_grow_fds(1000), 0);
    cr_assert_geq(fd_table_size(), 1000);
    cr_assert_eq(fcntl(999, F_GETFD), -1, "nothing stays open");
    int after = dup(0);
    cr_assert_eq(after, before + 1);
    cr_assert_eq(hostinfo_grow_fds(0), 0);
    cr_assert_eq(hostinfo_grow_fds(1), 0);
    close(before);
    close(after);
}

static bool has_ip4(void) /* a network namespace may have none */
{
    struct ifaddrs *all;
    bool found = false;

    cr_assert_eq(getifaddrs(&all), 0);
    for (const struct ifaddrs *i = all; i; i = i->ifa_next)
        found |= i->ifa_addr && i->ifa_addr->sa_family == AF_INET && (i->ifa_flags & IFF_UP);
    freeifaddrs(all);
    return found;
}

Test(hostinfo, names_addresses_worth_announcing)
{
    struct netaddr a[HOST_ADDRS_MAX];
    size_t n = hostinfo_addrs(a, HOST_ADDRS_MAX);

    cr_assert_leq(n, HOST_ADDRS_MAX);
    cr_assert_eq(n > 0, has_ip4(), "loopback is better than nothing");
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(a[i].port, 0);
        cr_assert(!(a[i].ip[0] == 0xfe && (a[i].ip[1] & 0xc0) == 0x80), "link-local");
        for (size_t k = 0; k < i; k++)
            cr_assert_neq(memcmp(&a[i], &a[k], sizeof(a[i])), 0, "twice");
    }
    cr_assert_leq(hostinfo_addrs(a, 1), 1);
    cr_assert_eq(hostinfo_addrs(a, 0), 0);
    cr_assert_gt(hostinfo_rmem_max(), 0);
}

/* What a TURN peer must not be: more than what is worth announcing. */
Test(hostinfo, names_every_address_of_its_own)
{
    struct netaddr own[HOST_ADDRS_MAX], shown[HOST_ADDRS_MAX];
    bool cut, loopback = false;
    size_t n = hostinfo_own_addrs(own, HOST_ADDRS_MAX, &cut);
    size_t m = hostinfo_addrs(shown, HOST_ADDRS_MAX);

    for (size_t k = 0; k < m; k++) {
        bool found = cut;

        for (size_t i = 0; i < n; i++)
            found |= memcmp(own[i].ip, shown[k].ip, 16) == 0;
        cr_assert(found, "%zu", k);
    }
    for (size_t i = 0; i < n; i++) {
        loopback |= own[i].ip[12] == 127;
        for (size_t k = 0; k < i; k++)
            cr_assert_neq(memcmp(&own[i], &own[k], sizeof(own[i])), 0, "twice");
    }
    cr_assert(loopback || !has_ip4());
    cr_assert(!cut);
    cr_assert_eq(hostinfo_own_addrs(own, n - 1, &cut), n - 1);
    cr_assert(cut, "there are more");
}
