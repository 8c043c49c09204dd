/* A certificate as a client sends it. What is read lies within it, and one byte less is none. */
#include "tests/fuzz/fuzz.h"

#include "engine/tls_cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_cert c, again;

    if (!tls_cert_read(bytes_of(data, size), &c))
        return 0;
    CHECK(c.spki.n >= 2 && c.spki.p >= data && c.spki.n <= size);
    CHECK((size_t)(c.spki.p - data) <= size - c.spki.n);
    CHECK(c.spki.p[0] == 0x30);
    CHECK(c.key == TLS_KEY_RSA || c.key == TLS_KEY_OTHER || c.rsa_bits == 0);
    CHECK(!tls_cert_read(bytes_of(data, size - 1), &again));
    return 0;
}
