/* engine/tls_int.h: between tls.c and tls_server.c. */
#ifndef SLUICE_ENGINE_TLS_INT_H
#define SLUICE_ENGINE_TLS_INT_H

#include <stdatomic.h>

#include "engine/tls.h"

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#if defined(SHOW_SECRETS) || defined(WOLFSSL_SSLKEYLOGFILE)
#error                                                                                             \
    "this wolfSSL writes the keys of every session into a file: run tools/deps, or build it without keylog-export"
#endif

enum { TLS_ALPN_NAME_MAX = 32 };

struct tls_server {
    atomic_uint refs;
    WOLFSSL_CTX *ctx;
    enum tls_mode mode;
    char alpn[TLS_ALPN_MAX][TLS_ALPN_NAME_MAX];
    unsigned alpn_count;
    uint8_t id[32];
    int64_t expires_unix_s;
};

int tls_verify_mode(enum tls_mode mode); /* in wolfSSL's words */

/* What the context calls back, for whichever connection this thread is at work with. */
int tls_on_recv(WOLFSSL *ssl, char *to, int n, void *arg);
int tls_on_send(WOLFSSL *ssl, char *from, int n, void *arg);
int tls_on_cert(int preverified, WOLFSSL_X509_STORE_CTX *store);

void tls_hex(const uint8_t id[32], char hex[TLS_PEER_ID + 1]);

#endif
