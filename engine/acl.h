/* engine/acl.h: who may come in, reserve and connect (libp2p.md §11.6). Rules name a peer id or a
 * CIDR, say allow or deny, and hold for any of the scopes below. Within one scope:
 *   - a deny that matches refuses, whatever else is said;
 *   - if the scope has peer allows, the peer must be among them; if it has CIDR allows, the address
 *     must be in one: both lists must agree, as in go's relay daemon;
 *   - no rule: everybody.
 * Built at start or reload in one allocation (sorted arrays; O(log n) to ask), const afterwards and
 * then readable by every thread without locks. */
#ifndef SLUICE_ENGINE_ACL_H
#define SLUICE_ENGINE_ACL_H

#include "proto/maddr.h"

enum acl_scope {
    ACL_CONN,        /* an incoming connection: its address at accept, its peer id when known */
    ACL_RESERVE,     /* RESERVE, by the requester */
    ACL_CONNECT_SRC, /* CONNECT, by the requester */
    ACL_CONNECT_DST, /* CONNECT, by the target: its peer id (addresses are not asked) */
    ACL_SCOPES,
};
#define ACL_IN(scope) (1U << (scope))

enum { ACL_RULES_MAX = 65536 };

struct acl_rule {
    bool deny;
    bool by_peer;    /* peer is the subject; else net */
    unsigned scopes; /* ACL_IN(...) | ... */
    struct peer_id peer;
    struct cidr net;
};

struct acl; /* acl.c */
/* NULL when memory cannot be had or there are more than ACL_RULES_MAX rules. */
struct acl *acl_new(const struct acl_rule *rules, size_t count);
void acl_free(struct acl *a); /* NULL is fine */

/* The subject of a rule as an operator types it: a peer id in either text form, a CIDR or an
 * address. Fills by_peer and peer or net. */
MUST_USE bool acl_subject_parse(struct bytes text, struct acl_rule *rule);

/* `a` NULL allows everything. peer NULL: not known yet, peer rules are not asked; ip NULL: address
 * rules are not asked. ip is 16 bytes, IPv4 mapped, as in struct netaddr. */
MUST_USE bool acl_allows(const struct acl *a, enum acl_scope scope, const struct peer_id *peer,
                         const uint8_t *ip);

#endif
