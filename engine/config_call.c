/* engine/config_call.c: values whose shape is their own, one function each. */
#include "engine/config_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/redial.h"

static bool number_call(struct draft *d, const char *value, uint16_t *out)
{
    char *end;
    unsigned long v = strtoul(value, &end, 10);

    if (value[0] < '0' || value[0] > '9' || *end || v > 65535) {
        snprintf(d->why, sizeof(d->why), "a whole number from 0 to 65535");
        return false;
    }
    *out = (uint16_t)v;
    return true;
}

bool call_preset(struct draft *d, const char *value)
{
    enum preset p; /* already chosen by config_load; a losing source must still be right */

    if (preset_parse(value, &p))
        return true;
    snprintf(d->why, sizeof(d->why), "one of dusk, dig, descord, turn, none");
    return false;
}

bool call_port(struct draft *d, const char *value)
{
    d->port_src = d->src;
    return number_call(d, value, &d->port);
}

bool call_monitoring_port(struct draft *d, const char *value)
{
    d->monitoring_src = d->src;
    return number_call(d, value, &d->monitoring_port);
}

bool call_interface(struct draft *d, const char *value)
{
    struct cidr c; /* a bare address is a prefix of full length */

    d->interface_src = d->src;
    if (!cidr_parse(bytes_str(value), &c) || strchr(value, '/')) {
        snprintf(d->why, sizeof(d->why), "an IP address, such as 0.0.0.0 or ::");
        return false;
    }
    memcpy(d->interface.ip, c.ip, sizeof(c.ip));
    return true;
}

bool call_acl(struct draft *d, const char *value)
{
    struct peer_id id;
    struct cidr c;

    if (peer_id_parse(bytes_str(value), &id) || cidr_parse(bytes_str(value), &c))
        return true;
    snprintf(d->why, sizeof(d->why), "a peer id, an address or a prefix such as 10.0.0.0/8");
    return false;
}

bool call_turn_user(struct draft *d, const char *value)
{
    const char *colon = strchr(value, ':');

    if (colon && colon != value && colon[1])
        return true;
    snprintf(d->why, sizeof(d->why), "NAME:PASSWORD");
    return false;
}

/* A name is resolved later, and again and again (errand.h); here it only has to look like one. */
bool call_turn_external(struct draft *d, const char *value)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    size_t n = strlen(value);
    struct cidr c;

    if (!strchr(value, '/') && cidr_parse(bytes_str(value), &c))
        return true;
    if (n > 0 && n <= 253 && value[0] != '.' && value[0] != '-' && strspn(value, letters) == n &&
        strspn(value, "0123456789.") != n)
        return true;
    snprintf(d->why, sizeof(d->why), "an IP address, or the name of a host");
    return false;
}

bool call_turn_relay_ip(struct draft *d, const char *value)
{
    struct netaddr a = { .port = 1 };
    struct cidr c;

    if (!strchr(value, '/') && cidr_parse(bytes_str(value), &c)) {
        memcpy(a.ip, c.ip, sizeof(a.ip));
        if (!netaddr_is_any(&a))
            return true;
    }
    snprintf(d->why, sizeof(d->why), "an IP address of this host, not 0.0.0.0 or ::");
    return false;
}

bool call_turn_ports(struct draft *d, const char *value)
{
    char *end;
    unsigned long lo = strtoul(value, &end, 10), hi = 0;
    bool ok = value[0] >= '0' && value[0] <= '9' && *end == '-' && end[1] >= '0' && end[1] <= '9';

    if (ok) {
        hi = strtoul(end + 1, &end, 10);
        ok = *end == '\0';
    }
    if (!ok || lo < 1024 || lo > hi || hi > 65535) {
        snprintf(d->why, sizeof(d->why), "A-B with 1024 <= A <= B <= 65535");
        return false;
    }
    d->c->turn_port_lo = (uint16_t)lo;
    d->c->turn_port_hi = (uint16_t)hi;
    return true;
}

/* Unlike what we announce, its /p2p is kept: only that peer will do there. */
bool call_peer_relay(struct draft *d, const char *value)
{
    struct config *c = d->c;
    struct dial_target to;
    struct maddr m;

    if (!maddr_parse(bytes_str(value), &m) || !dial_parse(maddr_bytes(&m), &to)) {
        snprintf(d->why, sizeof(d->why),
                 "a multiaddr of ip4, ip6, dns, dns4 or dns6 with tcp, such as "
                 "/dns4/relay.example.org/tcp/4001/p2p/12D3KooW...");
        return false;
    }
    if (c->peer_relays_n == CONFIG_PEER_RELAYS_MAX) {
        snprintf(d->why, sizeof(d->why), "at most %d addresses", CONFIG_PEER_RELAYS_MAX);
        return false;
    }
    c->peer_relay[c->peer_relays_n++] = m;
    return true;
}
