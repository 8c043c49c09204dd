/* engine/proxy2.h: the PROXY protocol, version 2, binary (haproxy: doc/proxy-protocol.txt §2.2;
 * dig.md §13). Read only from peers that the operator named as proxies. Pure.
 * Shapes:  `in` is everything received on the connection so far; nothing is kept between calls.
 * Errors:  BAD as early as it can be known; `absent` tells "no such header" (the bytes are payload)
 *          from a header that we refuse. */
#ifndef SLUICE_ENGINE_PROXY2_H
#define SLUICE_ENGINE_PROXY2_H

#include "proto/maddr.h"

enum {
    PROXY2_HEAD = 16,
    PROXY2_BODY_MAX = 1024, /* addresses and TLVs; dig.md §13 */
    PROXY2_MAX = PROXY2_HEAD + PROXY2_BODY_MAX,
};

enum proxy2_verdict { PROXY2_MORE, PROXY2_OK, PROXY2_BAD };

struct proxy2 {
    size_t used;  /* OK: bytes of the header, TLVs included; the rest of `in` is payload */
    size_t want;  /* MORE: bytes of `in` without which the next call cannot get further */
    bool absent;  /* BAD: the signature is not there */
    bool has_src; /* OK: TCP over IPv4 or IPv6. Else (LOCAL, UNSPEC, UDP, UNIX, a block too short
                     for its family) the socket's own address counts */
    struct netaddr src, dst;
};

enum proxy2_verdict proxy2_parse(struct bytes in, struct proxy2 *out);

#endif
