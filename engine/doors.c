#include "engine/doors.h"

#include <errno.h>
#include <stdio.h>

#include "engine/guard.h"
#include "engine/hostinfo.h"
#include "engine/ring.h"

static void doors_close(struct doors *d, unsigned shards)
{
    for (unsigned s = 0; s < shards; s++)
        for (unsigned i = 0; i < LISTENERS_MAX; i++)
            if (d->fd[s][i] >= 0)
                ring_close(NULL, d->fd[s][i]);
}

static bool is_any(const struct netaddr *a)
{
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
    static const uint8_t any6[16];

    return memcmp(a->ip, any4, 16) == 0 || memcmp(a->ip, any6, 16) == 0;
}

static int open_group(struct doors *d, unsigned i, struct netaddr at, bool v6only, unsigned shards)
{
    for (unsigned s = 0; s < shards; s++) {
        int fd = ring_listen_tcp(&at, v6only, true, LISTEN_BACKLOG, &d->bound[i]);

        if (fd < 0)
            return fd;
        d->fd[s][i] = fd;
        at.port = d->bound[i].port; /* port 0 picks one; the others join it */
    }
    return 0;
}

static bool no_ipv6(int err)
{
    return err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL;
}

int doors_open(struct doors *d, const struct config *cfg, unsigned shards, char *why, size_t cap)
{
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
    char text[NETADDR_TEXT_MAX];

    d->n = 0;
    for (unsigned s = 0; s < shards; s++)
        for (unsigned i = 0; i < LISTENERS_MAX; i++)
            d->fd[s][i] = -1;
    for (unsigned i = 0; i < cfg->p2p_n; i++) {
        struct netaddr at = cfg->p2p[i].addr;
        bool v6only = config_v6only(cfg, i);
        int err = guard_probe(&at, v6only, "--listen-p2p", why, cap);

        if (no_ipv6(err) && !cfg->p2p[i].named) { /* the user named nothing: IPv4 alone will do */
            memcpy(at.ip, any4, sizeof(at.ip));
            err = guard_probe(&at, v6only, "--listen-p2p", why, cap);
        }
        if (!err && (err = open_group(d, i, at, v6only, shards))) {
            netaddr_text(&at, text);
            snprintf(why, cap, "--listen-p2p: cannot listen on %s (TCP): %s", text, strerror(-err));
        }
        if (err) {
            doors_close(d, shards);
            return err;
        }
        d->n++;
    }
    return 0;
}

size_t doors_reachable(const struct netaddr *at, struct netaddr *out, size_t max)
{
    struct netaddr all[HOST_ADDRS_MAX];
    size_t n = 0, found;

    if (!is_any(at)) {
        out[0] = *at;
        return 1;
    }
    found = hostinfo_addrs(all, HOST_ADDRS_MAX);
    for (size_t i = 0; i < found && n < max; i++) {
        if (netaddr_is4(at) && !netaddr_is4(&all[i]))
            continue;
        all[i].port = at->port;
        out[n++] = all[i];
    }
    return n;
}
