/* tools/load_p2p_place.c: which shard has which connection, as the relay's admin socket says. */
#include "tools/load_p2p.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct lp_conn *by_port[65536]; /* ports alone are unique enough: asked, not assumed */

static int dial_admin(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(lp_opt.admin) >= sizeof(a.sun_path))
        lp_die("--admin: the path is too long");
    memcpy(a.sun_path, lp_opt.admin, strlen(lp_opt.admin));
    if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)) < 0)
        lp_die("admin socket %s: %s", lp_opt.admin, strerror(errno));
    return fd;
}

/* One row: {"peer":"…","remote":"127.0.0.2:40000","shard":1,…}. */
static void row(const char *line)
{
    const char *remote = strstr(line, "\"remote\":\""), *shard = strstr(line, "\"shard\":");
    const char *colon, *end;
    struct lp_conn *c;

    if (!remote || !shard)
        return;
    end = strchr(remote + 10, '"');
    for (colon = end; colon && colon > remote && *colon != ':'; colon--)
        ;
    if (!colon || colon <= remote + 10)
        return;
    c = by_port[strtoul(colon + 1, NULL, 10) & 0xffff];
    if (c)
        c->shard = atoi(shard + 8);
}

bool lp_place_ask(struct lp_conn *const *conns, size_t n)
{
    int fd = dial_admin();
    FILE *f = fdopen(fd, "r+e");
    char line[2048];
    bool ok = true;

    ASSERT(f != NULL);
    memset(by_port, 0, sizeof(by_port));
    for (size_t i = 0; i < n; i++) {
        conns[i]->shard = -1;
        if (by_port[conns[i]->port]) /* two sources with one port: not told apart */
            ok = false;
        by_port[conns[i]->port] = conns[i];
    }
    fputs("conns\n", f);
    fflush(f);
    while (fgets(line, sizeof(line), f))
        row(line);
    fclose(f);
    for (size_t i = 0; i < n; i++)
        ok = ok && conns[i]->shard >= 0;
    return ok;
}
