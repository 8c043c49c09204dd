/* HOST:PORT and CIDR as people type them. */
#include "tests/fuzz/fuzz.h"

#include "proto/maddr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_of(data, size);
    struct netaddr a, b;
    struct cidr net, same;
    char text[NETADDR_TEXT_MAX];

    if (netaddr_parse(in, &a)) {
        netaddr_text(&a, text);
        CHECK(netaddr_parse(bytes_str(text), &b));
        CHECK(memcmp(a.ip, b.ip, sizeof(a.ip)) == 0);
        CHECK(a.port == b.port);
        (void)netaddr_is_public(&a);
        netaddr_ip_text(&a, text);
        CHECK(cidr_parse(bytes_str(text), &net));
        CHECK(net.bits == 128);
        CHECK(cidr_match(&net, a.ip));
    }
    if (cidr_parse(in, &net)) {
        CHECK(net.bits <= 128);
        CHECK(cidr_match(&net, net.ip));
        same = net;
        if (net.bits) { /* the last bit that counts, turned, is outside */
            same.ip[(net.bits - 1) / 8] ^= (uint8_t)(0x80 >> (net.bits - 1) % 8);
            CHECK(!cidr_match(&net, same.ip));
        }
    }
    return 0;
}
