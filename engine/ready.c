#include "engine/ready.h"

#include <stdio.h>

static void say_addresses(const struct ready *r)
{
    char id[PEER_TEXT_MAX], text[MADDR_TEXT_MAX];
    struct netaddr reach[16];
    struct maddr m;

    peer_id_text(&r->me->id, id);
    for (unsigned i = 0; i < r->doors->n; i++) {
        size_t n = doors_reachable(&r->doors->bound[i], reach, ARRAY_LEN(reach));

        if (r->cfg->preset == PRESET_DUSK || n == 0) /* dusk.md §12: one line; or no network yet */
            reach[0] = r->doors->bound[i], n = 1;
        for (size_t k = 0; k < n; k++) {
            maddr_from_tcp(&reach[k], &m);
            if (maddr_text(maddr_bytes(&m), text, sizeof(text)))
                printf(r->cfg->preset == PRESET_DUSK ? "\n  relay address: %s/p2p/%s\n\n"
                                                     : "relay address: %s/p2p/%s\n",
                       text, id); /* dusk.md §12: indented, between blank lines */
        }
    }
}

static void say_turn(const struct ready *r)
{
    char text[NETADDR_TEXT_MAX];

    for (unsigned i = 0; i < r->doors->turn_n; i++) {
        netaddr_text(&r->doors->turn_udp_bound[i], text);
        printf("turn address: %s\n", text);
    }
}

/* The port of a door i, if none before it has the same (RFC 5780: two addresses, each with both).
 */
static uint16_t new_port(const struct netaddr *bound, unsigned i)
{
    for (unsigned k = 0; k < i; k++)
        if (bound[k].port == bound[i].port)
            return 0;
    return bound[i].port;
}

static void say_turn_firewall(const struct ready *r)
{
    for (unsigned i = 0; i < r->doors->turn_n; i++) {
        uint16_t udp = new_port(r->doors->turn_udp_bound, i);
        uint16_t tcp = new_port(r->doors->turn_tcp_bound, i);

        if (udp)
            printf("firewall: open UDP %u\n", udp);
        if (tcp)
            printf("firewall: open TCP %u\n", tcp);
    }
    if (!r->turn || !r->turn->relays)
        return;
    printf("firewall: open UDP %u-%u\n", r->cfg->turn_port_lo, r->cfg->turn_port_hi);
    if (r->cfg->turn_tcp_relay)
        printf("firewall: open TCP %u-%u\n", r->cfg->turn_port_lo, r->cfg->turn_port_hi);
}

/* Ready: what is open, where state lies, what to open in a firewall, what to try. */
static void say_doors(const struct ready *r)
{
    char text[NETADDR_TEXT_MAX];

    log_started(r->log, r->cfg, &r->me->id, r->doors->bound, r->doors->n);
    say_addresses(r);
    if (r->http) {
        netaddr_text(&r->http_at, text);
        printf("http address: %s\n", text);
    }
    if (r->redirect) {
        netaddr_text(&r->redirect_at, text);
        printf("redirect address: %s\n", text);
    }
    if (r->cfg->dig_on) {
        netaddr_text(&r->doors->dig_bound, text);
        printf("dig address: %s\n", text);
    }
    say_turn(r);
    printf("data directory: %s\n", r->cfg->data_dir);
    printf("identity: %s %s\n", r->created ? "created" : "loaded", r->cfg->identity_path);
    for (unsigned i = 0; i < r->doors->n; i++)
        printf("firewall: open TCP %u\n", (unsigned)r->doors->bound[i].port);
    if (r->cfg->dig_on)
        printf("firewall: open TCP %u\n", (unsigned)r->doors->dig_bound.port);
    say_turn_firewall(r);
    printf("try it: tools/demo\n");
    fflush(stdout);
}

static void warn_private(const struct ready *r)
{
    char text[MADDR_TEXT_MAX];
    struct netaddr reach[16];
    bool any_public = false;

    for (unsigned i = 0; i < r->cfg->announce_n; i++) {
        struct bytes m = maddr_bytes(&r->cfg->announce[i]);

        if (!maddr_is_public(m) && maddr_text(m, text, sizeof(text)))
            log_text(r->log, LOG_WARN,
                     "announced address %s is private: peers elsewhere cannot dial it", text);
    }
    if (r->cfg->announce_n)
        return;
    for (unsigned i = 0; i < r->doors->n; i++) {
        size_t n = doors_reachable(&r->doors->bound[i], reach, ARRAY_LEN(reach));

        for (size_t k = 0; k < n; k++)
            any_public |= netaddr_is_public(&reach[k]);
    }
    if (!any_public && r->doors->n)
        log_text(r->log, LOG_WARN,
                 "no public address: peers on other networks need --announce /ip4/ADDR/tcp/PORT");
}

static void warn_turn(const struct ready *r)
{
    const struct turn_host *h = r->turn;
    char text[NETADDR_TEXT_MAX];
    struct netaddr told;

    if (!h)
        return;
    if (!h->relays)
        log_text(r->log, LOG_INFO,
                 "STUN only: Allocate is %s until there is a --turn-secret or a --turn-user",
                 h->machine.limits.binding_only ? "not answered" : "answered 403");
    if (h->own_secret[0])
        log_text(r->log, LOG_INFO, "no TURN secret was given: the one in %s/turn.secret is used",
                 r->cfg->data_dir);
    if (h->relays && !h->has[TURN_V4] && !h->has[TURN_V6])
        log_text(r->log, LOG_WARN,
                 "no address to relay from was found: nobody can allocate without --turn-relay-ip");
    if (h->self_cut)
        log_text(r->log, LOG_WARN,
                 "this host has more than %d addresses: those beyond may be peers; close them by "
                 "--turn-deny-peer",
                 PEER_SELVES_MAX);
    for (int f = 0; f < TURN_FAMILIES; f++) {
        turn_host_external(h, &h->relay_ip[f], &told);
        netaddr_ip_text(&told, text);
        if (h->has[f] && !netaddr_is_public(&told))
            log_text(r->log, LOG_WARN,
                     "relayed address %s is private: peers elsewhere cannot reach it; say "
                     "--turn-external-ip",
                     text);
    }
}

void ready_say(const struct ready *r)
{
    say_doors(r);
    warn_private(r);
    warn_turn(r);
}
