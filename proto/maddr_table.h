/* proto/maddr_table.h: what maddr.c and maddr_text.c share: the protocols of libp2p.md §1.3. Pure.
 */
#ifndef SLUICE_PROTO_MADDR_TABLE_H
#define SLUICE_PROTO_MADDR_TABLE_H

#include "proto/maddr.h"

/* How a value is spelled, which also says what it may be. */
enum maddr_kind {
    MADDR_KIND_NONE,
    MADDR_KIND_IP4,
    MADDR_KIND_IP6,
    MADDR_KIND_PORT,
    MADDR_KIND_CIDR,
    MADDR_KIND_NAME, /* one segment of UTF-8 */
    MADDR_KIND_PATH, /* UTF-8 to the end of the text, slashes included */
    MADDR_KIND_PEER,
    MADDR_KIND_ONION3,
    MADDR_KIND_GARLIC64,
    MADDR_KIND_GARLIC32,
    MADDR_KIND_CERTHASH,
    MADDR_KIND_PERCENT, /* one segment, %-encoded */
    MADDR_KIND_U64,
};

struct maddr_proto {
    uint32_t code;
    enum maddr_kind kind;
    const char *name;
};

const struct maddr_proto *maddr_proto_by_code(uint64_t code);     /* may be NULL */
const struct maddr_proto *maddr_proto_by_name(struct bytes name); /* may be NULL; knows aliases */
bool maddr_value_valid(const struct maddr_proto *p, struct bytes value); /* fixed sizes too */
size_t maddr_value_size(enum maddr_kind kind); /* MADDR_SIZE_LP: behind a length prefix */
enum { MADDR_SIZE_LP = 0xffff };

#endif
