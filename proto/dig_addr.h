/* proto/dig_addr.h: the addresses of the DIG relay's wire: the text form of dig.md §4.1 and §4.2,
 * which addresses of a registrant others may dial (§7), the key that limits are counted by (§14.1)
 * and which hole-punch addresses are forwarded (D10). Pure and reentrant.
 * Shapes: struct netaddr (proto/maddr.h) is how the engine holds an address, and it cannot tell
 *         1.2.3.4 from [::ffff:1.2.3.4]; struct dig_addr can, because what a peer gave is
 *         forwarded in the family in which it was written.
 * Errors: false means "not such an address"; nothing is written then. */
#ifndef SLUICE_PROTO_DIG_ADDR_H
#define SLUICE_PROTO_DIG_ADDR_H

#include "proto/cur.h"
#include "proto/maddr.h"

enum {
    DIG_DIALABLE_MAX = 8, /* dialable addresses of one registrant (dig.md §7) */
    DIG_ADDR_TEXT_MAX =
        64, /* [45 of ::ffff:a.b.c.d, written long]%4294967295]:65535, no terminator */
};

struct dig_addr {
    struct netaddr at; /* IPv4 as ::ffff:a.b.c.d */
    uint32_t scope;    /* the number behind %, 0: none */
    bool v6;           /* written in brackets; an IPv4-mapped address may be */
};

/* `a.b.c.d:port` or `[v6]:port`, `[v6%number]:port`; nothing around it, no names, decimals without
 * sign or leading zero (dig.md §4.1). */
MUST_USE bool dig_addr_parse(struct bytes text, struct dig_addr *out);
/* As dig.md §4.2 has it, without quotes; nothing in it needs escaping in JSON. */
void dig_addr_put(struct wcur *w, const struct dig_addr *a);
/* The same for an address that the engine saw: IPv4 always plain (D2). */
void dig_netaddr_put(struct wcur *w, const struct netaddr *a);

/* The dialable addresses of a registrant (dig.md §7), candidate by candidate: a routable address
 * that the observed one owns is kept, of every other only the port. Port 0 is dropped (D10),
 * IPv4-mapped becomes IPv4 (D2), a scope is dropped: it means something on one host only (RFC 4007
 * §6). */
struct dig_dial {
    struct netaddr observed;
    struct netaddr addr[DIG_DIALABLE_MAX];
    size_t n;
};
void dig_dial_init(struct dig_dial *d, const struct netaddr *observed);
void dig_dial_add(struct dig_dial *d, const struct dig_addr *candidate); /* full: does nothing */
/* Puts IPv6 before IPv4, otherwise in order of arrival, and gives how many there are. */
size_t dig_dial_done(const struct dig_dial *d, struct netaddr out[DIG_DIALABLE_MAX]);
/* All three at once. */
size_t dig_dialable(const struct dig_addr *listen, size_t n, const struct netaddr *observed,
                    struct netaddr out[DIG_DIALABLE_MAX]);

/* What limits and bans count by (dig.md §14.1): an IPv4 address whole (as ::ffff:a.b.c.d), of an
 * IPv6 address the first 64 bits, the rest zero. */
struct dig_source {
    uint8_t b[16];
};
struct dig_source dig_source_key(const uint8_t ip[16]);

/* May `external` of a hole_punch_request from a peer observed at `from` be sent to its target
 * (D10)? Port 0, multicast, broadcast and the unspecified address never; loopback only if the
 * peer itself is on loopback. `strict`: only the observed IPv4 address, or the observed /64;
 * whether it is a source that asked STUN lately is for the caller to find out. */
MUST_USE bool dig_punch_ok(const struct dig_addr *external, const struct netaddr *from,
                           bool strict);

#endif
