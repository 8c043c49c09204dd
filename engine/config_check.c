/* engine/config_check.c: what no single value can know: doors that two flags name, paths, files,
 * lists that become tables, and what the operator should be told at start. */
#include "engine/config_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/acl.h"
#include "engine/datadir.h"
#include "engine/limits.h"

static enum source rank_of(const struct draft *d, const char *name)
{
    return d->ranks[setting_index(setting_find(name))];
}

/* --port and --interface change the door that a weaker source described; said by the same source,
 * they would contradict it. */
static bool finish_p2p(struct draft *d)
{
    struct config *c = d->c;
    enum source listen = rank_of(d, "listen-p2p");
    enum source strongest = d->port_src > d->interface_src ? d->port_src : d->interface_src;
    struct listen_at at = { 0 };

    if (strongest == SRC_DEFAULT)
        return true;
    if (strongest == listen) {
        config_refuse("--%s and --listen-p2p name the same door: use one of them",
                      d->port_src == listen ? "port" : "interface");
        return false;
    }
    if (strongest < listen)
        return true;
    if (c->p2p_n)
        at = c->p2p[0];
    else
        at.addr.port = c->preset == PRESET_DESCORD ? 9000 : 4001;
    if (d->port_src > listen)
        at.addr.port = d->port;
    if (d->interface_src > listen) {
        memcpy(at.addr.ip, d->interface.ip, sizeof(at.addr.ip));
        at.named = true;
    }
    c->p2p[0] = at;
    c->p2p_n = 1;
    return true;
}

static bool finish_http(struct draft *d)
{
    struct config *c = d->c;
    enum source listen = rank_of(d, "listen-http");

    if (d->monitoring_src == SRC_DEFAULT || d->monitoring_src < listen)
        return true;
    if (d->monitoring_src == listen) {
        config_refuse("--monitoring-port and --listen-http name the same door: use one of them");
        return false;
    }
    c->http_on = d->monitoring_port != 0;
    c->http.addr.port = d->monitoring_port;
    return true;
}

static const char *lookup(const void *ctx, const char *name)
{
    const struct draft *d = ctx;

    return env_get(d->envp, name);
}

static bool join(char *out, const char *dir, const char *name)
{
    int n = snprintf(out, CONFIG_PATH_MAX, "%s/%s", dir, name);

    if (n >= 0 && n < CONFIG_PATH_MAX)
        return true;
    config_refuse("--data=%s: accepted is a path of at most %d characters", dir,
                  CONFIG_PATH_MAX - 20);
    return false;
}

static bool finish_paths(struct draft *d)
{
    struct config *c = d->c;
    bool dusk = c->preset == PRESET_DUSK, homeless = false;

    if (!c->data_dir[0] &&
        !datadir_default(dusk, lookup, d, c->data_dir, sizeof(c->data_dir), &homeless)) {
        config_refuse("the default data directory's path is too long: use --data DIR");
        return false;
    }
    if (!c->identity_path[0] && !join(c->identity_path, c->data_dir,
                                      !dusk      ? "identity.key"
                                      : homeless ? "relay_keypair"
                                                 : "keypair"))
        return false;
    return c->admin_path[0] || join(c->admin_path, c->data_dir, DATADIR_SOCKET);
}

/* One value per line; blank lines and lines that begin with # are skipped. */
static bool read_list(struct draft *d, const char *flag, const char *path, const char *setting)
{
    const struct setting *s = setting_find(setting);
    enum source rank = d->ranks[setting_index(s)];
    char line[CONFIG_TEXT_MAX + 2], room[1024]; /* not the library's, which it frees unwiped */
    unsigned number = 0;
    bool ok = true;
    FILE *f;

    if (!path[0])
        return true;
    f = fopen(path, "re");
    if (!f) {
        config_refuse("--%s=%s: cannot be read: %s", flag, path, strerror(errno));
        return false;
    }
    setvbuf(f, room, _IOFBF, sizeof(room));
    d->src = rank; /* adds to what flags said: their values come first */
    while (ok && fgets(line, sizeof(line), f)) {
        number++;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        ok = draft_set(d, s, line);
        if (!ok)
            config_refuse("--%s=%s: line %u: accepted is %s", flag, path, number, d->why);
    }
    if (ok && ferror(f)) {
        config_refuse("--%s=%s: cannot be read: %s", flag, path, strerror(EIO));
        ok = false;
    }
    fclose(f);
    explicit_bzero(line, sizeof(line));
    explicit_bzero(room, sizeof(room));
    return ok;
}

/* 0: IPv4, 1: IPv6, -1: a name. */
static int family_of(const char *text)
{
    struct netaddr a = { .port = 0 };
    struct cidr ip;

    if (!cidr_parse(bytes_str(text), &ip))
        return -1;
    memcpy(a.ip, ip.ip, sizeof(a.ip));
    return netaddr_is4(&a) ? 0 : 1;
}

static bool one_per_family(const char *flag, unsigned n, char (*texts)[CONFIG_TEXT_MAX])
{
    if (n < 2 || family_of(texts[0]) < 0 || family_of(texts[0]) != family_of(texts[1]))
        return true;
    config_refuse("--%s: %s and %s are of one family: accepted is one of each", flag, texts[0],
                  texts[1]);
    return false;
}

static bool same_ip(const struct netaddr *a, const struct netaddr *b)
{
    return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

/* The listener whose family an alternate is of, if it names an address; NULL. */
static const struct listen_at *alternated(const struct config *c, const struct listen_at *other)
{
    for (unsigned i = 0; i < c->turn_n; i++)
        if (netaddr_is4(&c->turn[i].addr) == netaddr_is4(&other->addr) &&
            !netaddr_is_any(&c->turn[i].addr))
            return &c->turn[i];
    return NULL;
}

unsigned config_turn_doors(const struct config *c, struct listen_at out[CONFIG_LISTEN_MAX])
{
    unsigned n = c->turn_n;

    memcpy(out, c->turn, n * sizeof(*out));
    for (unsigned i = 0; i < c->turn_alternate_n; i++) {
        const struct listen_at *b = &c->turn_alternate[i], *a = alternated(c, b);
        struct listen_at more[3];

        if (!a)
            continue;
        more[0] = more[1] = more[2] = *b;
        more[0].addr.port = a->addr.port;
        memcpy(more[1].addr.ip, a->addr.ip, sizeof(a->addr.ip));
        for (unsigned k = 0; k < ARRAY_LEN(more); k++) {
            bool there = false;

            for (unsigned at = 0; at < n; at++)
                there |=
                    same_ip(&out[at].addr, &more[k].addr) && out[at].addr.port == more[k].addr.port;
            if (!there && n < CONFIG_LISTEN_MAX)
                out[n++] = more[k];
        }
    }
    return n;
}

static bool finish_alternates(struct draft *d)
{
    struct config *c = d->c;
    char text[NETADDR_TEXT_MAX];
    const char *wrong = NULL;

    if (c->turn_alternate_n == 2 &&
        netaddr_is4(&c->turn_alternate[0].addr) == netaddr_is4(&c->turn_alternate[1].addr))
        wrong = "one per family";
    for (unsigned i = 0; i < c->turn_alternate_n && !wrong; i++) {
        const struct listen_at *b = &c->turn_alternate[i], *a = alternated(c, b);

        netaddr_text(&b->addr, text);
        if (!a)
            wrong = "IP:PORT of a family for which --listen-turn names an address";
        else if (a->addr.port == 0 || b->addr.port == 0)
            wrong = "IP:PORT beside a --listen-turn, both with ports above 0";
        else if (same_ip(&a->addr, &b->addr) || netaddr_is_any(&b->addr) ||
                 a->addr.port == b->addr.port)
            wrong = "IP:PORT whose address and port both differ from --listen-turn's";
        else if (c->turn_n + 3 * c->turn_alternate_n > CONFIG_LISTEN_MAX)
            wrong = "one that with --listen-turn needs at most 8 addresses: it adds three";
    }
    if (!wrong)
        return true;
    netaddr_text(&c->turn_alternate[0].addr, text);
    config_refuse("--turn-alternate=%s: accepted is %s", text, wrong);
    return false;
}

/* A client that is sent back to us would be sent on for ever (turn.md §14). */
static bool finish_redirects(struct draft *d)
{
    const struct config *c = d->c;
    char text[NETADDR_TEXT_MAX];

    for (unsigned i = 0; i < c->turn_redirect_n; i++) {
        const struct netaddr *to = &c->turn_redirect[i].addr;
        bool ours = to->port == 0 || netaddr_is_any(to);

        for (unsigned k = 0; k < c->turn_n; k++)
            ours |= to->port == c->turn[k].addr.port && same_ip(to, &c->turn[k].addr);
        if (!ours)
            continue;
        netaddr_text(to, text);
        config_refuse("--turn-redirect=%s: accepted is IP:PORT of another server", text);
        return false;
    }
    return true;
}

static bool prepares(const char *text, size_t n)
{
    uint8_t room[CONFIG_TEXT_MAX];
    struct wcur w = wcur_of(room, sizeof(room));
    bool ok = stun_opaque(bytes_of((const uint8_t *)text, n), &w);

    explicit_bzero(room, sizeof(room));
    return ok;
}

/* Of names and passwords clients and server must make the same bytes (RFC 8265 §4.2). */
static bool finish_users(const struct config *c)
{
    if (!prepares(c->turn_realm, strlen(c->turn_realm))) {
        config_refuse("--turn-realm=%s: accepted is printable text", c->turn_realm);
        return false;
    }
    for (unsigned i = 0; i < c->turn_user_n; i++) {
        const char *user = c->turn_user[i], *wrong = NULL;
        size_t n = strcspn(user, ":");

        if (!prepares(user, n) || !prepares(user + n + 1, strlen(user + n + 1)))
            wrong = "NAME:PASSWORD of printable text";
        for (unsigned k = 0; k < i && !wrong; k++)
            if (strncmp(c->turn_user[k], user, n + 1) == 0)
                wrong = "one password per name";
        if (!wrong)
            continue;
        config_refuse("--turn-user=%.*s:***: accepted is %s", (int)n, user, wrong);
        return false;
    }
    return true;
}

static bool finish_turn(struct draft *d)
{
    struct config *c = d->c;

    c->turn_on = c->turn_n > 0;
    if (rank_of(d, "listen-turn") > SRC_PRESET_ENV)
        c->turn_tcp_port = 0; /* who names the door names both its ports */
    if (!one_per_family("turn-external-ip", c->turn_external_n, c->turn_external) ||
        !one_per_family("turn-relay-ip", c->turn_relay_ip_n, c->turn_relay_ip) ||
        !finish_alternates(d) || !finish_redirects(d))
        return false;
    if (!read_list(d, "turn-secret-file", c->turn_secret_file, "turn-secret") ||
        !read_list(d, "turn-users-file", c->turn_users_file, "turn-user") || !finish_users(c))
        return false;
    c->turn_udp_only = c->turn_binding_dig && c->turn_secret_n + c->turn_user_n == 0;
    if (c->turn_port_lo < 1024 || c->turn_port_lo > c->turn_port_hi) { /* turn.md §9.4 */
        config_refuse("ports of allocations %u-%u: accepted is A-B with 1024 <= A <= B <= 65535",
                      c->turn_port_lo, c->turn_port_hi);
        return false;
    }
    return true;
}

static bool finish_gif(const struct config *c)
{
    size_t n = strlen(c->gif_url);

    if (strncmp(c->gif_url, "https://", 8) == 0 && n > 8 && !strpbrk(c->gif_url, " ?#@") &&
        c->gif_url[n - 1] != '/')
        return true;
    config_refuse("--gif-url=%s: accepted is https://HOST, with a port and a path if need be, "
                  "without a slash at the end",
                  c->gif_url);
    return false;
}

/* Networks are refused at the door, before a handshake costs anything. Peers are let in and told:
 * RESERVE and CONNECT answer 202, which their operator can see, and the connection idles out. */
static bool add_rules(struct acl_rule *rules, size_t *n, bool deny, unsigned count,
                      char (*texts)[CONFIG_ACL_TEXT_MAX])
{
    for (unsigned i = 0; i < count; i++) {
        struct acl_rule *r = &rules[*n];

        *r = (struct acl_rule){ .deny = deny };
        if (!acl_subject_parse(bytes_str(texts[i]), r))
            return false;
        r->scopes = ACL_IN(ACL_RESERVE) | ACL_IN(ACL_CONNECT_SRC);
        r->scopes |= r->by_peer ? ACL_IN(ACL_CONNECT_DST) : ACL_IN(ACL_CONN);
        (*n)++;
    }
    return true;
}

static bool finish_acl(struct draft *d)
{
    struct config *c = d->c;
    struct acl_rule *rules;
    size_t n = 0;

    if (c->allow_n + c->deny_n == 0)
        return true;
    rules = calloc(c->allow_n + c->deny_n, sizeof(*rules));
    if (rules && add_rules(rules, &n, false, c->allow_n, c->allow) &&
        add_rules(rules, &n, true, c->deny_n, c->deny))
        c->acl = acl_new(rules, n);
    free(rules);
    if (!c->acl)
        config_refuse("--allow and --deny: the lists could not be built");
    return c->acl != NULL;
}

static void finish_notes(struct draft *d)
{
    struct config *c = d->c;

    if (rank_of(d, "advertise-on-dht") > SRC_PRESET && c->advertise_on_dht)
        draft_note(d, "--advertise-on-dht: the DHT is not built yet");
}

/* Two listeners of one port: the IPv6 wildcard must then leave IPv4 to the other. */
bool config_v6only(const struct listen_at *at, unsigned n, unsigned i)
{
    if (netaddr_is4(&at[i].addr) || at[i].addr.port == 0) /* port 0: each gets its own */
        return false;
    for (unsigned k = 0; k < n; k++)
        if (k != i && netaddr_is4(&at[k].addr) && at[k].addr.port == at[i].addr.port)
            return true;
    return false;
}

bool config_finish(struct draft *d)
{
    struct config *c = d->c;

    static_assert(SHARDS_MAX == 64, "the range of --shards in config_flags.c");
    if (!finish_p2p(d) || !finish_http(d) || !finish_paths(d) || !finish_turn(d) ||
        !finish_acl(d) || !finish_gif(c) || !config_dig_finish(d))
        return false;
    c->circuit_limit.present = c->circuit_limit.duration_s || c->circuit_limit.data_bytes;
    finish_notes(d);
    return true;
}
