/* proto/peer_policy.h: may this address be a peer (turn.md §15.1)? One answer for every method that
 * names one: CreatePermission, ChannelBind, Send, Connect, and for peers who connect to us. Pure
 * and reentrant; an answer is a pass over the tables.
 *
 * Shapes: addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; the lists are the caller's.
 *
 * Of all entries that hold an address the most specific decides; among equally specific ones the
 * operator's deny goes before his allow, and his allow before our table. So an allow of 10.0.0.0/8
 * opens it, one of 0.0.0.0/0 opens nothing, and one of 169.254.0.0/16 leaves the metadata service
 * closed. An IPv6 address that carries an IPv4 address must pass as what it is and by what it
 * carries; those of tunnels (6to4, Teredo) never pass (RFC 6156 §9.1). */
#ifndef SLUICE_PROTO_PEER_POLICY_H
#define SLUICE_PROTO_PEER_POLICY_H

#include "proto/maddr.h"

enum {
    PEER_RULES_MAX = 1024, /* of each list */
    PEER_SELVES_MAX = 64,
};

/* How an IPv6 address carries an IPv4 address. */
enum peer_form {
    PEER_PLAIN,       /* it carries none, or is IPv4 itself */
    PEER_COMPATIBLE,  /* ::a.b.c.d (RFC 4291 §2.5.5.1) */
    PEER_TRANSLATED,  /* ::ffff:0:a.b.c.d (RFC 2765 §2.1) */
    PEER_NAT64,       /* 64:ff9b::a.b.c.d (RFC 6052 §2.1) */
    PEER_NAT64_LOCAL, /* 64:ff9b:1::/48 (RFC 8215) */
    PEER_6TO4,        /* 2002:aabb:ccdd::/48 (RFC 3056) */
    PEER_TEREDO,      /* 2001::/32, the client's inverted at the end (RFC 4380 §4) */
    PEER_ISATAP,      /* interface identifier ::5efe:a.b.c.d (RFC 5214 §6.1) */
    PEER_FORMS,
};
/* Gives what is carried, as mapped; *in itself for PEER_PLAIN. */
enum peer_form peer_reduce(const uint8_t in[16], uint8_t out[16]);

enum peer_verdict {
    PEER_OK,
    PEER_PORT,    /* 0, one below 1024 where those are closed, or one of ours that is no relay's */
    PEER_TUNNEL,  /* 6to4 or Teredo */
    PEER_SPECIAL, /* in the table of ours: private, local, reserved, documentation, multicast */
    PEER_SELF,    /* this host */
    PEER_DENIED,  /* by the operator */
    PEER_VERDICTS,
};

/* An address of this host, or one under which the world knows it. As specific as can be: only an
 * entry of the operator's with all its bits says otherwise. */
struct peer_self {
    uint8_t ip[16];
    bool relay; /* allocations live here: ports of the relay range may be peers, and no others */
};

struct peer_policy {
    const struct cidr *allow, *deny;
    size_t allow_count, deny_count; /* PEER_RULES_MAX at most */
    const struct peer_self *self;
    size_t self_count; /* PEER_SELVES_MAX at most */
    uint16_t relay_port_min, relay_port_max;
    bool low_ports_closed; /* below 1024 */
};

enum peer_verdict peer_judge(const struct peer_policy *p, const struct netaddr *peer);
/* For a permission, which is given to an IP (RFC 8656 §9): rules about ports do not count, and what
 * is sent to one is judged again. */
enum peer_verdict peer_judge_ip(const struct peer_policy *p, const uint8_t ip[16]);

#endif
