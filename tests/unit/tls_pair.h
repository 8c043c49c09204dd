/* A server's connection and a client of wolfSSL's, with two buffers between them. */
#ifndef SLUICE_TESTS_TLS_PAIR_H
#define SLUICE_TESTS_TLS_PAIR_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include "engine/tls.h"

#define TLS_KEYS TEST_DIR "/vectors/tls/"

enum { PIPE_BYTES = 1 << 20, POOL_BYTES = 1 << 22 };

struct pipe {
    uint8_t bytes[PIPE_BYTES];
    size_t n, read; /* written and taken so far */
    size_t max;     /* for out: fails when more would wait; 0: never */
};

struct pair {
    struct tls_pool *pool;
    struct tls_server *server;
    struct tls *t;
    WOLFSSL_CTX *client_ctx;
    WOLFSSL *client;
    size_t cut;  /* how many bytes the server is fed at once; 0: all */
    size_t peak; /* of what t had of the pool */
    unsigned worked;
    enum tls_verdict verdict;
    int client_error;
    struct pipe to_server, to_client;
    uint8_t got[PIPE_BYTES]; /* plaintext */
    size_t got_n;
};

static int pipe_recv(WOLFSSL *ssl, char *to, int n, void *arg)
{
    struct pipe *p = arg;
    size_t take = min_sz((size_t)n, p->n - p->read);

    (void)ssl;
    if (take == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    memcpy(to, p->bytes + p->read, take);
    p->read += take;
    return (int)take;
}

static bool pipe_put(struct pipe *p, struct bytes b)
{
    if (p->read == p->n)
        p->read = p->n = 0;
    if (b.n > sizeof(p->bytes) - p->n || (p->max && p->n - p->read + b.n > p->max))
        return false;
    memcpy(p->bytes + p->n, b.p, b.n);
    p->n += b.n;
    return true;
}

static int pipe_send(WOLFSSL *ssl, char *from, int n, void *arg)
{
    (void)ssl;
    cr_assert(pipe_put(arg, bytes_of(from, (size_t)n)));
    return n;
}

static bool pipe_out(void *arg, struct bytes b)
{
    return pipe_put(arg, b);
}

static inline const char *key_path(const char *name, const char *end)
{
    static _Thread_local char path[16][512];
    static _Thread_local unsigned turn;
    char *at = path[turn++ % 16];

    snprintf(at, sizeof(path[0]), "%s%s%s", TLS_KEYS, name, end);
    return at;
}

static inline struct tls_server *server_of(const char *name, enum tls_mode mode)
{
    char why[256] = "";
    struct tls_server *s =
        tls_server_load(key_path(name, ".pem"), key_path(name, ".key"), mode, NULL, why, 256);

    cr_assert_not_null(s, "%s", why);
    return s;
}

/* version: 12 or 13. cert NULL: none. */
static inline struct pair *pair_new(struct tls_server *server, int version, const char *cert)
{
    struct pair *p = calloc(1, sizeof(*p));
    int err;

    tls_init();
    p->pool = tls_pool_new(POOL_BYTES, &err);
    cr_assert_not_null(p->pool);
    p->server = server;
    p->t = tls_new(server, p->pool, pipe_out, &p->to_client);
    cr_assert_not_null(p->t);
    p->client_ctx =
        wolfSSL_CTX_new(version == 12 ? wolfTLSv1_2_client_method() : wolfTLSv1_3_client_method());
    cr_assert_not_null(p->client_ctx);
    wolfSSL_CTX_set_verify(p->client_ctx, WOLFSSL_VERIFY_NONE, NULL);
    (void)wolfSSL_CTX_SetMinRsaKey_Sz(p->client_ctx, 1024);
    if (cert) {
        cr_assert_eq(wolfSSL_CTX_use_certificate_chain_file(p->client_ctx, key_path(cert, ".pem")),
                     WOLFSSL_SUCCESS);
        cr_assert_eq(wolfSSL_CTX_use_PrivateKey_file(p->client_ctx, key_path(cert, ".key"),
                                                     WOLFSSL_FILETYPE_PEM),
                     WOLFSSL_SUCCESS);
    }
    wolfSSL_CTX_SetIORecv(p->client_ctx, pipe_recv);
    wolfSSL_CTX_SetIOSend(p->client_ctx, pipe_send);
    p->client = wolfSSL_new(p->client_ctx);
    cr_assert_not_null(p->client);
    wolfSSL_SetIOReadCtx(p->client, &p->to_client);
    wolfSSL_SetIOWriteCtx(p->client, &p->to_server);
    return p;
}

/* The pool is empty when the last connection has gone, whatever became of it. */
static inline void pair_free(struct pair *p)
{
    wolfSSL_free(p->client);
    wolfSSL_CTX_free(p->client_ctx);
    tls_free(p->t);
    cr_assert_eq(tls_pool_used(p->pool), 0);
    if (!tls_pool_refused(p->pool)) /* nothing was left with what connections share */
        cr_assert_eq(tls_pool_swept(p->pool), 0);
    tls_pool_check(p->pool);
    tls_pool_free(p->pool);
    tls_server_drop(p->server);
    free(p);
}

static inline void pair_read(struct pair *p)
{
    size_t n;

    while ((n = tls_read(p->t, p->got + p->got_n, sizeof(p->got) - p->got_n)) != 0)
        p->got_n += n;
    p->verdict = tls_verdict(p->t);
}

/* All that the client has sent, in pieces. */
static inline void pair_feed(struct pair *p)
{
    struct pipe *in = &p->to_server;

    while (in->read < in->n) {
        size_t n = in->n - in->read;

        if (p->cut && p->cut < n)
            n = p->cut;
        uint8_t *copy = malloc(n); /* of exactly that size, and gone afterwards */

        memcpy(copy, in->bytes + in->read, n);
        in->read += n;
        p->verdict = tls_feed(p->t, bytes_of(copy, n));
        p->worked += tls_worked(p->t);
        pair_read(p);
        cr_assert_eq(tls_rest(p->t).n, 0);
        free(copy);
        if (tls_bytes_used(p->t) > p->peak)
            p->peak = tls_bytes_used(p->t);
    }
}

/* True: both sides are done. Else p->verdict and p->client_error say what became of it. */
static inline bool pair_shake(struct pair *p)
{
    bool done = false;

    for (int i = 0; i < 8; i++) {
        if (!done) {
            int r = wolfSSL_connect(p->client);

            done = r == WOLFSSL_SUCCESS;
            p->client_error = done ? 0 : wolfSSL_get_error(p->client, r);
        }
        pair_feed(p);
    }
    return done && p->verdict == TLS_READY && tls_established(p->t);
}

static inline void client_says(struct pair *p, const void *text, size_t n)
{
    cr_assert_eq(wolfSSL_write(p->client, text, (int)n), (int)n);
}

static inline size_t client_hears(struct pair *p, void *to, size_t cap)
{
    size_t n = 0;
    int r;

    while (n < cap && (r = wolfSSL_read(p->client, (char *)to + n, (int)(cap - n))) > 0)
        n += (size_t)r;
    return n;
}

/* The line of ids.txt, which openssl computed. */
static inline const char *id_of(const char *name)
{
    static _Thread_local char id[128];
    char line[256], who[128];
    FILE *f = fopen(TLS_KEYS "ids.txt", "r");
    bool found = false;

    cr_assert_not_null(f);
    while (!found && fgets(line, sizeof(line), f))
        found = sscanf(line, "%127s %127s", who, id) == 2 && strcmp(who, name) == 0;
    fclose(f);
    cr_assert(found, "%s", name);
    return id;
}

#endif
