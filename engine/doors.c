#include "engine/doors.h"

#include <errno.h>
#include <stdio.h>

#include "engine/guard.h"
#include "engine/hostinfo.h"
#include "engine/ring.h"

enum { PORT_TRIES = 32 }; /* port 0: free for datagrams is not always free for streams */

static void fds_none(int (*fd)[LISTENERS_MAX], unsigned shards)
{
    for (unsigned s = 0; s < shards; s++)
        for (unsigned i = 0; i < LISTENERS_MAX; i++)
            fd[s][i] = -1;
}

static void fds_close(int (*fd)[LISTENERS_MAX], unsigned shards)
{
    for (unsigned s = 0; s < shards; s++) {
        for (unsigned i = 0; i < LISTENERS_MAX; i++) {
            if (fd[s][i] >= 0)
                ring_close(NULL, fd[s][i]);
            fd[s][i] = -1;
        }
    }
}

static int open_tcp(int (*fds)[LISTENERS_MAX], unsigned i, struct netaddr at, bool v6only,
                    unsigned shards, struct netaddr *bound)
{
    for (unsigned s = 0; s < shards; s++) {
        int fd = ring_listen_tcp(&at, v6only, true, LISTEN_BACKLOG, bound);

        if (fd < 0)
            return fd;
        fds[s][i] = fd;
        at.port = bound->port; /* port 0 picks one; the others join it */
    }
    return 0;
}

static int open_udp(int (*fds)[LISTENERS_MAX], unsigned i, struct netaddr at, bool v6only,
                    unsigned shards, struct netaddr *bound)
{
    unsigned flags = RING_UDP_REUSEPORT | RING_UDP_PKTINFO | (v6only ? RING_UDP_V6ONLY : 0);

    for (unsigned s = 0; s < shards; s++) {
        int fd = ring_bind_udp(&at, flags, TURN_RCVBUF_BYTES, bound);

        if (fd < 0)
            return fd;
        fds[s][i] = fd;
        at.port = bound->port;
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
    fds_none(d->fd, shards);
    for (unsigned i = 0; i < cfg->p2p_n; i++) {
        struct netaddr at = cfg->p2p[i].addr;
        bool v6only = config_v6only(cfg->p2p, cfg->p2p_n, i);
        int err = guard_probe(&at, v6only, "--listen-p2p", why, cap);

        if (no_ipv6(err) && !cfg->p2p[i].named) { /* the user named nothing: IPv4 alone will do */
            memcpy(at.ip, any4, sizeof(at.ip));
            err = guard_probe(&at, v6only, "--listen-p2p", why, cap);
        }
        if (!err && (err = open_tcp(d->fd, i, at, v6only, shards, &d->bound[i]))) {
            netaddr_text(&at, text);
            snprintf(why, cap, "--listen-p2p: cannot listen on %s (TCP): %s", text, strerror(-err));
        }
        if (err) {
            fds_close(d->fd, shards);
            return err;
        }
        d->n++;
    }
    return 0;
}

static void close_one(struct doors *d, unsigned i, unsigned shards)
{
    for (unsigned s = 0; s < shards; s++) {
        if (d->turn_udp[s][i] >= 0)
            ring_close(NULL, d->turn_udp[s][i]);
        if (d->turn_tcp[s][i] >= 0)
            ring_close(NULL, d->turn_tcp[s][i]);
        d->turn_udp[s][i] = d->turn_tcp[s][i] = -1;
    }
}

/* Datagrams and streams of one address. A port that was to be picked is one that both can have. */
static int open_turn_at(struct doors *d, const struct config *cfg, unsigned i, struct netaddr at,
                        bool v6only, unsigned shards)
{
    int err = 0;

    for (int tries = 0; tries < PORT_TRIES; tries++) {
        struct netaddr tcp = at;

        err = open_udp(d->turn_udp, i, at, v6only, shards, &d->turn_udp_bound[i]);
        if (err || cfg->turn_udp_only)
            return err;
        tcp.port = cfg->turn_tcp_port ? cfg->turn_tcp_port : d->turn_udp_bound[i].port;
        err = guard_free(&tcp, v6only);
        if (!err)
            err = open_tcp(d->turn_tcp, i, tcp, v6only, shards, &d->turn_tcp_bound[i]);
        if (err != -EADDRINUSE || at.port)
            return err;
        close_one(d, i, shards);
    }
    return err;
}

static int open_turn(struct doors *d, const struct config *cfg, unsigned i,
                     const struct listen_at *door, bool v6only, unsigned shards, char *why,
                     size_t cap)
{
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
    struct netaddr at = door->addr;
    char text[NETADDR_TEXT_MAX];
    int err = guard_probe_turn(cfg, &at, v6only, why, cap);

    if (no_ipv6(err) && !door->named) {
        memcpy(at.ip, any4, sizeof(at.ip));
        err = guard_probe_turn(cfg, &at, v6only, why, cap);
    }
    if (!err && (err = open_turn_at(d, cfg, i, at, v6only, shards))) {
        netaddr_text(&at, text);
        snprintf(why, cap, "--listen-turn: cannot listen on %s (UDP, TCP): %s", text,
                 strerror(-err));
    }
    return err;
}

int doors_open_turn(struct doors *d, const struct config *cfg, unsigned shards, char *why,
                    size_t cap)
{
    struct listen_at at[CONFIG_LISTEN_MAX];
    unsigned n = config_turn_doors(cfg, at);

    static_assert((int)CONFIG_LISTEN_MAX <= (int)LISTENERS_MAX, "one door each");
    d->turn_n = 0;
    fds_none(d->turn_udp, shards);
    fds_none(d->turn_tcp, shards);
    for (unsigned i = 0; i < n; i++) {
        int err = open_turn(d, cfg, i, &at[i], config_v6only(at, n, i), shards, why, cap);

        if (err) {
            fds_close(d->turn_udp, shards);
            fds_close(d->turn_tcp, shards);
            return err;
        }
        d->turn_n++;
    }
    return 0;
}

int doors_open_dig(struct doors *d, const struct config *cfg, unsigned shards, char *why,
                   size_t cap)
{
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
    struct netaddr at = cfg->dig.addr;
    char text[NETADDR_TEXT_MAX];
    int err = guard_probe(&at, false, "--listen-dig", why, cap);

    fds_none(d->dig, shards);
    if (no_ipv6(err) && !cfg->dig.named) {
        memcpy(at.ip, any4, sizeof(at.ip));
        err = guard_probe(&at, false, "--listen-dig", why, cap);
    }
    if (!err && (err = open_tcp(d->dig, 0, at, false, shards, &d->dig_bound))) {
        netaddr_text(&at, text);
        snprintf(why, cap, "--listen-dig: cannot listen on %s (TCP): %s", text, strerror(-err));
        fds_close(d->dig, shards);
    }
    return err;
}

size_t doors_reachable(const struct netaddr *at, struct netaddr *out, size_t max)
{
    struct netaddr all[HOST_ADDRS_MAX];
    size_t n = 0, found;

    if (!netaddr_is_any(at)) {
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
