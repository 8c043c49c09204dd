#include "engine/proxy2.h"

static const uint8_t signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                       0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

enum {
    VERSION = 2,
    COMMAND_PROXY = 1, /* 0 is LOCAL: the proxy's own connection, say a health check */
    TCP_OVER_IP4 = 0x11,
    TCP_OVER_IP6 = 0x21,
};

static void ip4_mapped(struct netaddr *a, struct bytes ip)
{
    memset(a->ip, 0, 10);
    a->ip[10] = a->ip[11] = 0xff;
    memcpy(a->ip + 12, ip.p, 4);
}

/* The addresses come first in the block, TLVs behind them; nothing there interests us, and their
 * extent is the block's. A block too short for its family gives no address (dig.md §13). */
static void read_addresses(struct cur *block, uint8_t family, struct proxy2 *out)
{
    size_t ip_bytes = family == TCP_OVER_IP4 ? 4 : 16;
    struct bytes src = cur_take(block, ip_bytes), dst = cur_take(block, ip_bytes);
    uint16_t src_port = cur_u16(block), dst_port = cur_u16(block);

    if (block->bad)
        return;
    if (family == TCP_OVER_IP4) {
        ip4_mapped(&out->src, src);
        ip4_mapped(&out->dst, dst);
    } else {
        memcpy(out->src.ip, src.p, sizeof(out->src.ip));
        memcpy(out->dst.ip, dst.p, sizeof(out->dst.ip));
    }
    out->src.port = src_port;
    out->dst.port = dst_port;
    out->has_src = true;
}

enum proxy2_verdict proxy2_parse(struct bytes in, struct proxy2 *out)
{
    size_t known = min_sz(in.n, sizeof(signature));

    *out = (struct proxy2){ .want = PROXY2_HEAD };
    if (known && memcmp(in.p, signature, known) != 0) {
        out->absent = true;
        return PROXY2_BAD;
    }
    /* Version and command refuse as soon as their byte is there: what follows is nothing that we
     * know the length of. */
    if (in.n > sizeof(signature)) {
        uint8_t byte = in.p[sizeof(signature)];

        if (byte >> 4 != VERSION || (byte & 0x0f) > COMMAND_PROXY)
            return PROXY2_BAD;
    }
    if (in.n < PROXY2_HEAD)
        return PROXY2_MORE;

    struct cur c = cur_of(in);
    cur_take(&c, sizeof(signature));
    uint8_t command = cur_u8(&c) & 0x0f;
    uint8_t family = cur_u8(&c);
    uint16_t length = cur_u16(&c);

    if (length > PROXY2_BODY_MAX)
        return PROXY2_BAD;
    out->want = PROXY2_HEAD + (size_t)length;
    if (c.n < length)
        return PROXY2_MORE;

    struct cur block = cur_of(cur_take(&c, length));
    if (command == COMMAND_PROXY && (family == TCP_OVER_IP4 || family == TCP_OVER_IP6))
        read_addresses(&block, family, out);
    out->used = out->want;
    return PROXY2_OK;
}
