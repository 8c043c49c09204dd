/* engine/hostinfo.h: what the machine grants us: processors, descriptors, buffers, addresses. Asked
 * once at start, before threads exist. Parsing is apart from reading, so that it can be tested. */
#ifndef SLUICE_ENGINE_HOSTINFO_H
#define SLUICE_ENGINE_HOSTINFO_H

#include "proto/maddr.h"

enum {
    HOST_CPUS_MAX = 1024,
    HOST_ADDRS_MAX = 64,
    HOST_SHARDS_MAX = 64, /* most that hostinfo_shards answers */
};

/* The processors we may run on, ascending; shard i is pinned to cpu[i % count]. */
struct host_cpus {
    unsigned count; /* at least 1 */
    uint16_t cpu[HOST_CPUS_MAX];
};
void hostinfo_cpus(struct host_cpus *out);
/* Pins the calling thread. 0 or -errno. */
MUST_USE int hostinfo_pin(unsigned cpu);
/* The calling thread comes after the others (SCHED_BATCH, nice), if that is allowed. */
void hostinfo_background(int nice);

/* A quota in whole processors, rounded to the nearest, at least 1; 0 = no limit or not understood.
 * Text of cgroup v2 cpu.max ("150000 100000", "max 100000"), or quota and period of v1. Pure. */
unsigned hostinfo_cpu_max(struct bytes cpu_max);
unsigned hostinfo_cpu_cfs(struct bytes quota_us, struct bytes period_us);
/* Our cgroup in the text of /proc/self/cgroup: v2 ("0::/a/b") or the v1 cpu controller's. `path`
 * has room for `cap`. false: not there. Pure. */
bool hostinfo_cgroup_path(struct bytes proc_cgroup, bool v2, char *path, size_t cap);
/* The tightest quota from our cgroup up to the root below `fs_root` ("/sys/fs/cgroup"); 0 = none.
 */
unsigned hostinfo_cgroup_cpus(const char *fs_root, struct bytes proc_cgroup);
/* How many shards: affinity met with the cgroup's quota, 1..HOST_SHARDS_MAX. */
unsigned hostinfo_shards(void);

/* Raises RLIMIT_NOFILE's soft limit to its hard limit. 0 and *limit = what holds now, else -errno
 * with *limit = what held before. */
MUST_USE int hostinfo_raise_nofile(uint64_t *limit);
/* Makes the descriptor table large enough for descriptors below `count` in one go: growing it
 * later, with threads running, stalls whoever triggers it (io_uring.md §6). 0 or -errno; a count
 * above the limit counts as the limit. */
MUST_USE int hostinfo_grow_fds(uint64_t count);

uint64_t hostinfo_rmem_max(void); /* net.core.rmem_max; 0 = cannot be read */

/* Addresses of interfaces that are up, for announcing what a wildcard listener is reachable at: no
 * link-local ones (they mean nothing without a zone), loopback only when there is nothing else.
 * Port is 0. At most HOST_ADDRS_MAX; returns how many. */
size_t hostinfo_addrs(struct netaddr *out, size_t max);
/* Every address of this host, of whatever scope, up or not: nobody else's. *cut: there are more. */
size_t hostinfo_own_addrs(struct netaddr *out, size_t max, bool *cut);

#endif
