#include "engine/turn_cred.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/json.h"
#include "proto/dusk.h"

/* What a name may hold: it travels in USERNAME, in a URI of some clients' configuration, in logs.
 */
static bool name_ok(const char *name)
{
    const uint8_t *p = (const uint8_t *)name, *end = p + strlen(name);

    if (end - p >= OPS_CRED_NAME_MAX)
        return false;
    while (p < end) {
        size_t n = json_utf8_len(p, (size_t)(end - p));

        if (n == 0 || *p <= ' ' || *p == 0x7f)
            return false;
        p += n;
    }
    return true;
}

static void add_uri(struct ops_cred *out, const char *scheme, const char *host, uint16_t port,
                    const char *tail)
{
    char *uri = out->uris[out->uris_n];

    if (out->uris_n == OPS_CRED_URIS)
        return;
    snprintf(uri, sizeof(out->uris[0]), "%s:%s:%u%s", scheme, host, port, tail);
    for (unsigned i = 0; i < out->uris_n; i++)
        if (strcmp(out->uris[i], uri) == 0)
            return;
    out->uris_n++;
}

/* --turn-external-ip, the relay's own for a wildcard, else the one bound. */
static struct netaddr outside_of(const struct turn_host *h, const struct netaddr *bound)
{
    enum turn_family f = netaddr_is4(bound) ? TURN_V4 : TURN_V6;
    struct netaddr inside = *bound, outside;

    if (netaddr_is_any(bound) && !h->has[f] && f == TURN_V6)
        f = TURN_V4; /* [::] takes IPv4 too */
    if (netaddr_is_any(bound) && h->has[f])
        inside = h->relay_ip[f];
    turn_host_external(h, &inside, &outside);
    return outside;
}

/* The name that the operator gave, or the address from outside. */
static void host_text(const struct turn_host *h, const struct netaddr *bound,
                      char out[CONFIG_TEXT_MAX])
{
    struct netaddr outside;
    char ip[NETADDR_TEXT_MAX];

    if (h->cfg->turn_public_host[0]) {
        snprintf(out, CONFIG_TEXT_MAX, "%s", h->cfg->turn_public_host);
        return;
    }
    outside = outside_of(h, bound);
    netaddr_ip_text(&outside, ip);
    snprintf(out, CONFIG_TEXT_MAX, netaddr_is4(&outside) ? "%s" : "[%s]", ip);
}

/* Behind a wildcard that nobody has said anything of, an interface's address is a guess: a good one
 * if the world can reach it, and none at all in a container (dusk.md §8: no usable host). */
static bool is_reachable(const struct turn_host *h, const struct netaddr *bound)
{
    struct netaddr outside;

    if (h->cfg->turn_public_host[0] || h->cfg->turn_external_n || !netaddr_is_any(bound))
        return true;
    outside = outside_of(h, bound);
    return netaddr_is_public(&outside);
}

bool turn_cred_host(const struct turn_host *h, const struct netaddr *bound, unsigned n,
                    char out[CONFIG_TEXT_MAX])
{
    const struct config *cfg = h->cfg;
    struct netaddr literal;

    for (unsigned i = 0; i < cfg->turn_external_n && !cfg->turn_public_host[0]; i++)
        if (!netaddr_parse(bytes_str(cfg->turn_external[i]), &literal)) { /* a name stays one */
            snprintf(out, CONFIG_TEXT_MAX, "%s", cfg->turn_external[i]);
            return dusk_cred_host_ok(bytes_str(out));
        }
    for (unsigned i = 0; i < n; i++) {
        host_text(h, &bound[i], out);
        if (is_reachable(h, &bound[i]) && strcmp(out, "0.0.0.0") != 0 && strcmp(out, "[::]") != 0)
            return dusk_cred_host_ok(bytes_str(out));
    }
    return false;
}

static void put_uris(const struct turn_cred_place *at, struct ops_cred *out)
{
    char host[CONFIG_TEXT_MAX];

    for (unsigned i = 0; i < at->n; i++) {
        host_text(at->host, &at->udp[i], host);
        add_uri(out, "turn", host, at->udp[i].port, "?transport=udp");
        add_uri(out, "turn", host, at->tcp[i].port, "?transport=tcp");
    }
    for (unsigned i = 0; i < at->n; i++) {
        host_text(at->host, &at->udp[i], host);
        add_uri(out, "stun", host, at->udp[i].port, "");
    }
}

static int refuse(char *why, size_t cap, int err, const char *text)
{
    snprintf(why, cap, "turn-credentials: %s", text);
    return err;
}

int turn_cred_make(const struct turn_cred_place *at, const char *name, uint32_t ttl_s,
                   struct ops_cred *out, char *why, size_t cap)
{
    struct stun_secrets now = { .count = 0 }, *s = &now;
    size_t n;

    if (!at->host || !at->host->on)
        return refuse(why, cap, -ENOTSUP, "the TURN door is closed (--listen-turn)");
    now = turn_host_secrets(at->host);
    if (s->count == 0)
        return refuse(why, cap, -ENOKEY,
                      "there is no secret to make them from (--turn-secret, --turn-secret-file)");
    if (!name_ok(name))
        return refuse(why, cap, -EINVAL,
                      "a name has at most 127 bytes of UTF-8, and no spaces or control characters");
    if (ttl_s == 0 || ttl_s > OPS_CRED_TTL_MAX || (s->ahead_max_s != 0 && ttl_s > s->ahead_max_s)) {
        snprintf(why, cap, "turn-credentials: accepted are 1 to %" PRIu64 " seconds",
                 s->ahead_max_s ? min_u64(s->ahead_max_s, OPS_CRED_TTL_MAX)
                                : (uint64_t)OPS_CRED_TTL_MAX);
        return -EINVAL;
    }
    memset(out, 0, sizeof(*out));
    out->ttl_s = ttl_s;
    if (name[0])
        snprintf(out->username, sizeof(out->username), "%" PRIu64 "%c%s", at->unix_s + ttl_s,
                 s->separator, name);
    else
        snprintf(out->username, sizeof(out->username), "%" PRIu64, at->unix_s + ttl_s);
    n = stun_ephemeral_password(STUN_MAC_SHA1, s->secret[0], bytes_str(out->username),
                                (uint8_t *)out->password);
    ASSERT(n < sizeof(out->password));
    out->password[n] = '\0';
    put_uris(at, out);
    return 0;
}
