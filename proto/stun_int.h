/* proto/stun_int.h: what the files of the STUN codec share, and nobody else. */
#ifndef SLUICE_PROTO_STUN_INT_H
#define SLUICE_PROTO_STUN_INT_H

#include "proto/stun.h"

#define STUN_FINGERPRINT_XOR 0x5354554eu /* "STUN" (RFC 8489 §14.7) */

enum { STUN_FAMILY4 = 1, STUN_FAMILY6 = 2 };

static const uint8_t stun_mapped[12] = { [10] = 0xff, [11] = 0xff }; /* RFC 4291 §2.5.5.2 */

static inline size_t stun_round4(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

/* Behind the type of an attribute: length, value and padding, whose content nobody reads (§14). */
static inline struct bytes stun_take_value(struct cur *c)
{
    uint16_t n = cur_u16(c);
    struct bytes v = cur_take(c, stun_round4(n));

    return bytes_of(v.p, c->bad ? 0 : n);
}

static inline bool stun_attr_xored(enum stun_attr a)
{
    return a == STUN_XOR_MAPPED_ADDRESS || a == STUN_XOR_PEER_ADDRESS ||
           a == STUN_XOR_RELAYED_ADDRESS;
}

bool stun_attr_fits(enum stun_attr a, struct bytes value);
/* Room for a value of n bytes, its head and padding written; NULL when it does not fit. */
uint8_t *stun_room(struct stun_build *b, uint16_t type, size_t n);

#endif
