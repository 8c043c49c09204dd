/* engine/tls_cert.h: what we read of an X.509 certificate ourselves (RFC 5280 §4.1): whose key it
 * holds, of what kind, and when it ends. Strictly DER, so that a key has one spelling and with it
 * one SHA-256. Nothing is verified here; a TLS library does that. Pure and reentrant.
 * Shapes:  spki borrows from the certificate.
 * Errors:  false: not an X.509 v3 certificate, or none whose outline we can read. */
#ifndef SLUICE_ENGINE_TLS_CERT_H
#define SLUICE_ENGINE_TLS_CERT_H

#include "proto/base.h"

enum tls_key {
    TLS_KEY_OTHER, /* or RSA of a size or an exponent that we do not compute with */
    TLS_KEY_RSA,
    TLS_KEY_P256,
    TLS_KEY_P384,
    TLS_KEY_P521,
    TLS_KEY_ED25519,
};

struct tls_cert {
    struct bytes spki; /* SubjectPublicKeyInfo: the complete SEQUENCE, as encoded */
    enum tls_key key;
    unsigned rsa_bits;
    int64_t not_after_unix_s; /* 0: cannot be read */
};

MUST_USE bool tls_cert_read(struct bytes der, struct tls_cert *out);
void tls_cert_id(const struct tls_cert *c, uint8_t sha256[32]);

#endif
