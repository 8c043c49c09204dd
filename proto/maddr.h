/* proto/maddr.h: multiaddr, text and binary (libp2p.md §1.3; multiformats multiaddr). Pure.
 * Shapes: a binary multiaddr is a struct bytes; components borrow from it.
 * Errors: false; an unknown code fails that address only. */
#ifndef SLUICE_PROTO_MADDR_H
#define SLUICE_PROTO_MADDR_H

#include "proto/base.h"
#include "proto/cur.h"
#include "proto/peer.h"

enum maddr_code {
    MADDR_IP4 = 4,
    MADDR_TCP = 6,
    MADDR_IP6 = 41,
    MADDR_IP6ZONE = 42,
    MADDR_IPCIDR = 43,
    MADDR_DNS = 53,
    MADDR_DNS4 = 54,
    MADDR_DNS6 = 55,
    MADDR_DNSADDR = 56,
    MADDR_UDP = 273,
    MADDR_WEBRTC_DIRECT = 280,
    MADDR_WEBRTC = 281,
    MADDR_P2P_CIRCUIT = 290,
    MADDR_UNIX = 400,
    MADDR_P2P = 421,
    MADDR_HTTPS = 443,
    MADDR_ONION3 = 445,
    MADDR_GARLIC64 = 446,
    MADDR_GARLIC32 = 447,
    MADDR_TLS = 448,
    MADDR_SNI = 449,
    MADDR_NOISE = 454,
    MADDR_QUIC = 460,
    MADDR_QUIC_V1 = 461,
    MADDR_WEBTRANSPORT = 465,
    MADDR_CERTHASH = 466,
    MADDR_WS = 477,
    MADDR_WSS = 478,
    MADDR_HTTP = 480,
    MADDR_HTTP_PATH = 481,
    MADDR_MEMORY = 777,
};

enum {
    MADDR_MAX = 512,       /* longest binary address we keep */
    MADDR_TEXT_MAX = 1024, /* its text with the terminator */
};

/* An owned binary address. */
struct maddr {
    uint16_t n;
    uint8_t b[MADDR_MAX];
};

struct maddr_part {
    uint32_t code;
    struct bytes value; /* without the length prefix */
};

static inline struct bytes maddr_bytes(const struct maddr *m)
{
    return bytes_of(m->b, m->n);
}

/* Takes the next component off the front of *rest. false at the end or on a malformed component;
 * rest->bad tells which. */
bool maddr_next(struct cur *rest, struct maddr_part *part);
bool maddr_valid(struct bytes binary);
bool maddr_has(struct bytes binary, uint32_t code);
/* Text is canonical (RFC 5952 for ip6). `text` has room for `cap`; false when malformed or too
 * long, and then it is the empty string. */
bool maddr_text(struct bytes binary, char *text, size_t cap);
bool maddr_parse(struct bytes text, struct maddr *out);

/* Socket addresses as the engine holds them: always 16 address bytes, IPv4 as ::ffff:a.b.c.d. */
struct netaddr {
    uint8_t ip[16];
    uint16_t port; /* host order */
};
bool netaddr_is4(const struct netaddr *a);
bool netaddr_parse(struct bytes text, struct netaddr *out); /* 1.2.3.4:5 or [::1]:5 */
enum { NETADDR_TEXT_MAX = 56 };
void netaddr_text(const struct netaddr *a, char *text);    /* HOST:PORT, v4-mapped printed as v4 */
void netaddr_ip_text(const struct netaddr *a, char *text); /* without the port */
/* Public in go's sense (libp2p.md §1.3): decides whether anybody will believe an announced address.
 */
bool netaddr_is_public(const struct netaddr *a);
/* /ip4/…/tcp/… or /ip6/…/tcp/…; v4-mapped is written as /ip4. */
void maddr_from_tcp(const struct netaddr *a, struct maddr *out);
/* ip4|ip6 + tcp only; trailing components are left to the caller (NULL: must be none). */
bool maddr_to_tcp(struct bytes binary, struct netaddr *out, struct bytes *rest);
/* Appends /p2p/<id> unless the last component is already p2p. false when it does not fit, or stands
 * behind a unix path, which nothing can follow. */
bool maddr_append_p2p(struct maddr *m, const struct peer_id *id);
bool maddr_p2p(struct bytes binary, struct peer_id *id); /* the last p2p component */
/* Is this address public: an ip4/ip6 by netaddr_is_public, or a dns name not ending in a local
 * suffix? */
bool maddr_is_public(struct bytes binary);

/* The pieces, for whoever writes or reads a text with an address in it. Decimals have no sign and
 * no leading zero; IPv4 has four of them; IPv6 is read in every form of RFC 4291 §2.2 and written
 * in the one of RFC 5952. No zone. */
bool netaddr_parse_decimal(struct bytes text, uint64_t max, uint64_t *out);
bool netaddr_parse_ip4(struct bytes text, uint8_t ip[4]);
bool netaddr_parse_ip6(struct bytes text, uint8_t ip[16]);
void netaddr_put_decimal(struct wcur *w, uint64_t v);
void netaddr_put_ip4(struct wcur *w, const uint8_t ip[4]);
void netaddr_put_ip6(struct wcur *w, const uint8_t ip[16]);

/* CIDR, for allow and deny lists. */
struct cidr {
    uint8_t ip[16];
    uint8_t bits; /* of the 128-bit form: an IPv4 /8 is 104 */
};
/* 10.0.0.0/8, fd00::/8, or a bare address; host bits are cleared. 0.0.0.0/0 is every IPv4 address,
 * ::/0 every address of both families. */
bool cidr_parse(struct bytes text, struct cidr *out);
bool cidr_match(const struct cidr *c, const uint8_t ip[16]);

#endif
