/* proto/stun.h: STUN messages (RFC 8489), with the attributes of TURN (RFC 8656), TURN-TCP (6062),
 * NAT behaviour discovery (5780) and mobility (8016), for both roles. Pure and reentrant. Shapes:
 * a decoded message borrows from its bytes and dies with them; a built one lies in the caller's
 *          buffer. Attributes are named by enum stun_attr, which is dense; the wire's numbers stay
 * in here. Units:   bytes; attribute lengths without padding. Addresses are struct netaddr, IPv4 as
 * ::ffff:a.b.c.d. Errors:  a verdict for what a peer sent; `bad` in a builder, asked once by
 * stun_end. Meaning: of an attribute that may stand once the first counts. Behind MESSAGE-INTEGRITY
 * only MESSAGE-INTEGRITY-SHA256 and FINGERPRINT are seen, behind the former only the latter (RFC
 * 8489 §14.5, §14.6); FINGERPRINT is verified by the decoder and must be last (§14.7). */
#ifndef SLUICE_PROTO_STUN_H
#define SLUICE_PROTO_STUN_H

#include "proto/cur.h"
#include "proto/maddr.h"

#define STUN_COOKIE 0x2112a442u /* also the xor of FINGERPRINT's sibling: addresses (§14.2) */

enum {
    STUN_HEADER = 20,
    STUN_TID = 12,
    STUN_ID = 16,            /* cookie and transaction id; all of it is the id in RFC 3489 */
    STUN_BODY_MAX = 65532,   /* the length field counts in fours */
    STUN_UNKNOWN_MAX = 16,   /* distinct types listed in a 420; more are only counted as more */
    STUN_USERNAME_MAX = 508, /* §14.3: fewer than 509 bytes */
    STUN_TEXT_MAX = 763,     /* REALM, NONCE, SOFTWARE: fewer than 128 characters (§14.9) */
    STUN_DATA_HEAD_MAX = 48, /* stun_data_head: header, XOR-PEER-ADDRESS, head of DATA */
};

enum stun_class { STUN_REQUEST = 0, STUN_INDICATION = 1, STUN_SUCCESS = 2, STUN_ERROR = 3 };
enum stun_method {
    STUN_BINDING = 0x001,
    STUN_ALLOCATE = 0x003,
    STUN_REFRESH = 0x004,
    STUN_SEND = 0x006,
    STUN_DATA_METHOD = 0x007,
    STUN_CREATE_PERMISSION = 0x008,
    STUN_CHANNEL_BIND = 0x009,
    STUN_CONNECT = 0x00a, /* RFC 6062, and the next two */
    STUN_CONNECTION_BIND = 0x00b,
    STUN_CONNECTION_ATTEMPT = 0x00c,
};

/* M11..M7 C1 M6..M4 C0 M3..M0 (§5). */
static inline uint16_t stun_type(unsigned method, enum stun_class c)
{
    return (uint16_t)((method & 0xf) | (method & 0x70) << 1 | (method & 0xf80) << 2 |
                      ((unsigned)c & 1) << 4 | ((unsigned)c & 2) << 7);
}

static inline enum stun_class stun_class_of(uint16_t type)
{
    return (enum stun_class)((type >> 4 & 1) | (type >> 7 & 2));
}

static inline uint16_t stun_method_of(uint16_t type)
{
    return (uint16_t)((type & 0xf) | (type >> 1 & 0x70) | (type >> 2 & 0xf80));
}

/* Every attribute that we have a name for. The order is that of the numbers on the wire. */
enum stun_attr {
    STUN_MAPPED_ADDRESS,
    STUN_CHANGE_REQUEST,
    STUN_USERNAME,
    STUN_PASSWORD, /* RFC 3489; old clients leave it in Binding: seen, never used */
    STUN_MESSAGE_INTEGRITY,
    STUN_ERROR_CODE,
    STUN_UNKNOWN_ATTRIBUTES,
    STUN_CHANNEL_NUMBER,
    STUN_LIFETIME,
    STUN_XOR_PEER_ADDRESS,
    STUN_DATA,
    STUN_REALM,
    STUN_NONCE,
    STUN_XOR_RELAYED_ADDRESS,
    STUN_REQUESTED_ADDRESS_FAMILY,
    STUN_EVEN_PORT,
    STUN_REQUESTED_TRANSPORT,
    STUN_DONT_FRAGMENT,
    STUN_ACCESS_TOKEN, /* RFC 7635: known, not supported; its content is never read */
    STUN_MESSAGE_INTEGRITY_SHA256,
    STUN_PASSWORD_ALGORITHM,
    STUN_USERHASH,
    STUN_XOR_MAPPED_ADDRESS,
    STUN_RESERVATION_TOKEN,
    STUN_PRIORITY, /* ICE checks carry it and the next, both of the range that must be understood */
    STUN_USE_CANDIDATE,
    STUN_PADDING,
    STUN_RESPONSE_PORT,
    STUN_CONNECTION_ID,
    STUN_ADDITIONAL_ADDRESS_FAMILY, /* 0x8000: the optional ones begin */
    STUN_ADDRESS_ERROR_CODE,
    STUN_PASSWORD_ALGORITHMS,
    STUN_ALTERNATE_DOMAIN,
    STUN_ICMP,
    STUN_SOFTWARE,
    STUN_ALTERNATE_SERVER,
    STUN_CACHE_TIMEOUT,
    STUN_FINGERPRINT,
    STUN_ICE_CONTROLLED,
    STUN_ICE_CONTROLLING,
    STUN_RESPONSE_ORIGIN,
    STUN_OTHER_ADDRESS,
    STUN_THIRD_PARTY_AUTHORIZATION,
    STUN_ORIGIN,
    STUN_MOBILITY_TICKET,
    STUN_ATTRS,
};
#define STUN_BIT(attr) (UINT64_C(1) << (attr))
static_assert(STUN_ATTRS <= 64, "sets of attributes are one word");

uint16_t stun_attr_type(enum stun_attr a);
bool stun_attr_of(uint16_t type, enum stun_attr *a); /* false: a stranger */

/* ---- decoding ------------------------------------------------------------------------------ */

struct stun_span {
    uint16_t at; /* of the value, from the end of the header */
    uint16_t n;
};

struct stun_msg {
    struct bytes raw; /* the whole message */
    uint16_t type;
    bool classic;    /* RFC 3489: no cookie; answer with MAPPED-ADDRESS and the same 16 bytes */
    uint16_t meant;  /* bytes of the body that have a meaning besides integrity and FINGERPRINT */
    uint64_t have;   /* attributes present and well formed */
    uint64_t broken; /* present, of a length or shape that they cannot have; 400 for who needs them.
                        Of the repeated ones: if any is. */
    struct stun_span span[STUN_ATTRS];  /* of those in have */
    uint16_t unknown[STUN_UNKNOWN_MAX]; /* types below 0x8000 that nobody here knows */
    uint8_t unknown_count;
    bool unknown_more; /* there were others */
};

enum stun_verdict {
    STUN_OK,
    STUN_FOREIGN,    /* not 20 bytes, or the first two bits or the cookie are another protocol's */
    STUN_BAD_LENGTH, /* the length field is no multiple of four, or not what is there */
    STUN_BAD_ATTRIBUTE,   /* one ends behind the message, or stands behind FINGERPRINT */
    STUN_BAD_FINGERPRINT, /* "not STUN" (§6.3): discard */
    STUN_VERDICTS,
};

enum { STUN_CLASSIC = 1 }; /* flag: RFC 3489 messages too */

/* One pass over exactly one message: a datagram, or what frame_next gave. *m is written on STUN_OK.
 */
enum stun_verdict stun_decode(struct bytes in, unsigned flags, struct stun_msg *m);

/* The header alone, for a door that answers whatever else is in the message (dig.md §11). false:
 * fewer than 20 bytes or other first bits. */
struct stun_head {
    uint16_t type, length;
    bool cookie;
};
bool stun_head_decode(struct bytes in, struct stun_head *h);

static inline bool stun_has(const struct stun_msg *m, enum stun_attr a)
{
    return (m->have & STUN_BIT(a)) != 0;
}

static inline bool stun_is_broken(const struct stun_msg *m, enum stun_attr a)
{
    return (m->broken & STUN_BIT(a)) != 0;
}

static inline const uint8_t *stun_id(const struct stun_msg *m) /* STUN_ID bytes */
{
    return m->raw.p + 4;
}

/* What stands in an attribute, by its shape; nothing and 0 where it is not in m->have. */
struct bytes stun_value(const struct stun_msg *m, enum stun_attr a);
uint8_t stun_u8(const struct stun_msg *m, enum stun_attr a);   /* the value's first byte */
uint16_t stun_u16(const struct stun_msg *m, enum stun_attr a); /* its first two */
uint32_t stun_u32(const struct stun_msg *m, enum stun_attr a);
/* An IPv4-mapped address of family 2 is IPv4 for whoever asks the policy (netaddr_is4), and IPv6
 * for whoever compares families; v6 keeps the family of the wire. */
struct stun_addr {
    struct netaddr addr;
    bool v6;
};
static inline struct stun_addr stun_addr_of(const struct netaddr *a)
{
    return (struct stun_addr){ *a, !netaddr_is4(a) };
}
bool stun_addr(const struct stun_msg *m, enum stun_attr a, struct stun_addr *out);
/* Those that may stand several times: XOR-PEER-ADDRESS, XOR-RELAYED-ADDRESS, ADDRESS-ERROR-CODE and
 * ORIGIN. *pos is 0 at first; false after the last. Broken ones are passed over (m->broken tells).
 */
bool stun_next(const struct stun_msg *m, enum stun_attr a, uint16_t *pos, struct bytes *value);
bool stun_next_addr(const struct stun_msg *m, enum stun_attr a, uint16_t *pos,
                    struct stun_addr *out);
/* The shapes that stun_next gives the bytes of. */
bool stun_address_error(struct bytes value, bool *v6, uint16_t *code);
bool stun_error(const struct stun_msg *m, uint16_t *code, struct bytes *phrase);
struct stun_icmp {
    uint8_t type;  /* 7 bits on the wire */
    uint16_t code; /* 9 bits */
    uint32_t data; /* the next hop's MTU, or 0 */
};
bool stun_icmp(const struct stun_msg *m, struct stun_icmp *out);
/* For a 420: the strangers, and those known ones of the range that must be understood which are not
 * in `supported`, a set of STUN_BIT. Gives how many it wrote to `types`, 0 if there is nothing to
 * refuse. */
size_t stun_refused(const struct stun_msg *m, uint64_t supported, uint16_t types[STUN_UNKNOWN_MAX]);

/* ---- integrity ----------------------------------------------------------------------------- */

enum stun_mac { STUN_MAC_NONE, STUN_MAC_SHA1, STUN_MAC_SHA256 };
enum { STUN_SHA1_TAG = 20, STUN_SHA256_TAG = 32, STUN_SHA256_TAG_MIN = 16 };

/* The one to verify: MESSAGE-INTEGRITY-SHA256 where both stand. A broken one counts as present. */
enum stun_mac stun_mac_of(const struct stun_msg *m);
/* In constant time over the tag. `tag_min` is the shortest SHA-256 tag that the usage takes: 32 in
 * TURN, 16 for RFC 8489's bare minimum. Wrong for a message without that attribute. */
bool stun_integrity_ok(const struct stun_msg *m, enum stun_mac mac, struct bytes key,
                       size_t tag_min);

/* ---- building ------------------------------------------------------------------------------ */

/* Writes into the caller's bytes, sets `bad` when they do not suffice, pads with zeroes. A value
 * may lie anywhere but in that buffer. */
struct stun_build {
    struct wcur w;
    uint8_t *base;
};

void stun_id_of(const uint8_t tid[STUN_TID], uint8_t id[STUN_ID]); /* puts the cookie before it */
void stun_begin(struct stun_build *b, void *buf, size_t cap, uint16_t type,
                const uint8_t id[STUN_ID]);
void stun_put(struct stun_build *b, enum stun_attr a, struct bytes value);
void stun_put_type(struct stun_build *b, uint16_t type, struct bytes value); /* any, for clients */
void stun_put_u8(struct stun_build *b, enum stun_attr a, uint8_t v);         /* and three zeroes */
void stun_put_u16(struct stun_build *b, enum stun_attr a, uint16_t v);       /* and two */
void stun_put_u32(struct stun_build *b, enum stun_attr a, uint32_t v);
void stun_put_padding(struct stun_build *b, size_t n); /* PADDING, of zeroes */
void stun_put_even_port(struct stun_build *b, bool reserve);
/* Xored for the XOR-… ones. The family is a->v6. */
void stun_put_addr(struct stun_build *b, enum stun_attr a, const struct stun_addr *addr);
void stun_put_error(struct stun_build *b, unsigned code, struct bytes phrase); /* 300..699 */
void stun_put_address_error(struct stun_build *b, bool v6, unsigned code, struct bytes phrase);
void stun_put_unknown(struct stun_build *b, const uint16_t *types, size_t n);
void stun_put_icmp(struct stun_build *b, const struct stun_icmp *icmp);
/* Both fix the length field for what they cover. `tag` is the length of a SHA-256 tag: 16..32 in
 * fours. */
void stun_put_integrity(struct stun_build *b, enum stun_mac mac, struct bytes key, size_t tag);
void stun_put_fingerprint(struct stun_build *b);
MUST_USE bool stun_end(struct stun_build *b, struct bytes *out); /* false: it did not fit */

/* A Data (or, for clients, Send) indication up to its payload, which the caller sends behind it
 * from where it lies, and then `pad` zeroes. `n` is the payload's length. Gives the bytes written.
 */
size_t stun_data_head(uint8_t out[STUN_DATA_HEAD_MAX], enum stun_method method,
                      const uint8_t tid[STUN_TID], const struct stun_addr *peer, uint16_t n,
                      size_t *pad);

#endif
