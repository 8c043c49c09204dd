/* What a TLS client sends. First a byte that chooses what is asked of it (low two bits) and whether
 * the rest comes in one piece or in pieces (a quarter of the byte is their size; 0: one). The
 * random numbers are the same in each run, so a recorded client gets through to its end.
 *
 * The corpus was recorded. Again, if it must be (random numbers asked for otherwise, another key):
 *     cc -DTLS_RECORD … fuzz_tls.c with libengine, libproto and what they need, and run it with the
 *     directory of the corpus as its argument. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "engine/tls.h"

enum { OUT_BEFORE_MAX = 4096, POOL_BYTES = 1 << 20, CLIENT_SPEAKS = 1 };

/* An Ed25519 key: its signatures take no random numbers. Nobody's but this test's. */
static const char CHAIN[] = "-----BEGIN CERTIFICATE-----\n"
                            "MIIBOjCB7aADAgECAhQ8iZjbiMFGS9CuWXSAzv9Jj1R11DAFBgMrZXAwEjEQMA4G\n"
                            "A1UEAwwHZWQyNTUxOTAgFw0yNjExMjAxNjQzMDBaGA8yMTI2MTAyNzE2NDMwMFow\n"
                            "EjEQMA4GA1UEAwwHZWQyNTUxOTAqMAUGAytlcAMhAHXukY/hk7IVNx6ddpGh7Bq5\n"
                            "kgvB3RsdGFHK9ya3bOZQo1MwUTAdBgNVHQ4EFgQU2W6+I8AMbW+x6zKMrT8wsZBM\n"
                            "e3wwHwYDVR0jBBgwFoAU2W6+I8AMbW+x6zKMrT8wsZBMe3wwDwYDVR0TAQH/BAUw\n"
                            "AwEB/zAFBgMrZXADQQBmaAzSJn9/1jvCy9IUHY1f2iY8qWERlIvqm7HTbpa9R9GV\n"
                            "gtDr5dTeN9bmu8r81TDPm3HUjjfc6RAowLn39GAG\n"
                            "-----END CERTIFICATE-----\n";
static const char KEY[] = "-----BEGIN PRIVATE KEY-----\n"
                          "MC4CAQAwBQYDK2VwBCIEIJP/xecVXys75IPywrAI+XvyucOMuy7QqF59njaXs4v7\n"
                          "-----END PRIVATE KEY-----\n";

static uint64_t stream[2];
static unsigned who;

/* In place of the C library's: a stream for the server, one for a recorded client. */
ssize_t getrandom(void *to, size_t n, unsigned flags)
{
    uint8_t *at = to;

    (void)flags;
    for (size_t i = 0; i < n; i++) {
        stream[who] = stream[who] * 6364136223846793005U + 1442695040888963407U;
        at[i] = (uint8_t)(stream[who] >> 56);
    }
    return (ssize_t)n;
}

struct run {
    struct tls *t;
    size_t out;
    uint8_t *to;
    size_t to_n;
};

static bool take(void *arg, struct bytes b)
{
    struct run *r = arg;

    r->out += b.n;
    CHECK(tls_established(r->t) || r->out <= OUT_BEFORE_MAX);
    if (r->to) {
        memcpy(r->to + r->to_n, b.p, b.n);
        r->to_n += b.n;
    }
    return true;
}

static struct tls_pool *pool;
static struct tls_server *server[3];

static void once(void)
{
    char why[256];
    int err;

    if (pool)
        return;
    tls_init();
    pool = tls_pool_new(POOL_BYTES, &err);
    CHECK(pool);
    for (unsigned mode = 0; mode < ARRAY_LEN(server); mode++) {
        server[mode] = tls_server_new(bytes_str(CHAIN), bytes_str(KEY), (enum tls_mode)mode, NULL,
                                      why, sizeof(why));
        CHECK(server[mode]);
    }
}

static void feed(struct run *r, enum tls_mode mode, struct bytes in)
{
    enum tls_verdict before = tls_verdict(r->t);
    enum tls_verdict v = tls_feed(r->t, in);
    char hex[TLS_PEER_ID + 1];
    uint8_t plain[1000];
    size_t n;

    CHECK(before < TLS_CLOSED || v == before);
    while ((n = tls_read(r->t, plain, sizeof(plain))) != 0) {
        CHECK(n <= sizeof(plain) && tls_established(r->t));
        CHECK(tls_write(r->t, bytes_of(plain, n)) || tls_why(r->t) != TLS_WHY_NONE);
    }
    CHECK(tls_rest(r->t).n == 0);
    v = tls_verdict(r->t);
    CHECK((v == TLS_FAILED) == (tls_why(r->t) != TLS_WHY_NONE));
    CHECK(v != TLS_READY || tls_established(r->t));
    CHECK(tls_bytes_used(r->t) <= TLS_CONN_BYTES_MAX);
    if (tls_peer_id(r->t, hex))
        CHECK(mode != TLS_SERVER_ONLY && strlen(hex) == TLS_PEER_ID);
    else
        CHECK(!tls_established(r->t) || mode != TLS_CLIENT_REQUIRED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run r = { 0 };
    struct cur c = cur_of(bytes_of(data, size));
    uint8_t how = fuzz_u8(&c);
    enum tls_mode mode = (enum tls_mode)((how & 3) % 3);
    size_t cut = how >> 2;

    once();
    stream[0] = 0;
    who = 0;
    r.t = tls_new(server[mode], pool, take, &r);
    CHECK(r.t);
    while (c.n)
        feed(&r, mode, cur_take(&c, cut ? min_sz(cut, c.n) : c.n));
    tls_close_notify(r.t);
    tls_free(r.t);
    CHECK(tls_pool_used(pool) == 0);
    CHECK(tls_pool_refused(pool) || tls_pool_swept(pool) == 0);
    return 0;
}

#ifdef TLS_RECORD
#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

static uint8_t to_client[1 << 16], to_server[1 << 16];
static size_t client_read, server_n;

static int recv_(WOLFSSL *ssl, char *to, int n, void *arg)
{
    struct run *r = arg;
    size_t m = min_sz((size_t)n, r->to_n - client_read);

    (void)ssl;
    memcpy(to, to_client + client_read, m);
    client_read += m;
    return m ? (int)m : WOLFSSL_CBIO_ERR_WANT_READ;
}

static int send_(WOLFSSL *ssl, char *from, int n, void *arg)
{
    (void)ssl;
    (void)arg;
    memcpy(to_server + server_n, from, (size_t)n);
    server_n += (size_t)n;
    return n;
}

static void record(const char *dir, const char *name, WOLFSSL_METHOD *method, enum tls_mode mode,
                   bool cert, const char *ciphers, int key_updates)
{
    struct run r = { .to = to_client };
    WOLFSSL_CTX *ctx = wolfSSL_CTX_new(method);
    size_t fed = 0;
    char path[4096];
    bool done = false;

    client_read = server_n = 0;
    stream[0] = 0;
    who = 0;
    stream[1] = 1;
    wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_NONE, NULL);
    wolfSSL_CTX_SetIORecv(ctx, recv_);
    wolfSSL_CTX_SetIOSend(ctx, send_);
    if (cert) {
        CHECK(wolfSSL_CTX_use_certificate_chain_buffer(ctx, (const uint8_t *)CHAIN,
                                                       sizeof(CHAIN) - 1) == 1);
        CHECK(wolfSSL_CTX_use_PrivateKey_buffer(ctx, (const uint8_t *)KEY, sizeof(KEY) - 1,
                                                WOLFSSL_FILETYPE_PEM) == 1);
    }
    if (ciphers)
        CHECK(wolfSSL_CTX_set_cipher_list(ctx, ciphers) == 1);
    r.t = tls_new(server[mode], pool, take, &r);
    who = CLIENT_SPEAKS;
    WOLFSSL *ssl = wolfSSL_new(ctx);

    wolfSSL_SetIOReadCtx(ssl, &r);
    for (int i = 0; i < 6; i++) {
        who = CLIENT_SPEAKS;
        done = done || wolfSSL_connect(ssl) == WOLFSSL_SUCCESS;
        if (done && i < 4) {
            CHECK(wolfSSL_write(ssl, "some text", 9) == 9);
            for (int k = 0; k < key_updates; k++)
                CHECK(wolfSSL_update_keys(ssl) == WOLFSSL_SUCCESS);
        }
        if (i == 5)
            (void)wolfSSL_shutdown(ssl);
        who = 0;
        feed(&r, mode, bytes_of(to_server + fed, server_n - fed));
        fed = server_n;
    }
    printf("%s: %zu bytes, %s, %s\n", name, fed, done ? "done" : "not done",
           tls_why_text(tls_why(r.t)));
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");

    CHECK(f && fputc(mode, f) != EOF && fwrite(to_server, 1, fed, f) == fed && fclose(f) == 0);
    tls_free(r.t);
    wolfSSL_free(ssl);
    wolfSSL_CTX_free(ctx);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    once();
    record(argv[1], "tls13", wolfTLSv1_3_client_method(), TLS_SERVER_ONLY, false, NULL, 0);
    record(argv[1], "tls13-cert", wolfTLSv1_3_client_method(), TLS_CLIENT_REQUIRED, true, NULL, 0);
    record(argv[1], "tls13-none", wolfTLSv1_3_client_method(), TLS_CLIENT_REQUIRED, false, NULL, 0);
    record(argv[1], "tls13-maybe", wolfTLSv1_3_client_method(), TLS_CLIENT_OPTIONAL, false, NULL,
           0);
    record(argv[1], "tls13-update", wolfTLSv1_3_client_method(), TLS_SERVER_ONLY, false,
           "TLS13-CHACHA20-POLY1305-SHA256", 3);
    record(argv[1], "tls13-updates", wolfTLSv1_3_client_method(), TLS_SERVER_ONLY, false, NULL, 40);
    record(argv[1], "tls12", wolfTLSv1_2_client_method(), TLS_SERVER_ONLY, false, NULL, 0);
    record(argv[1], "tls12-cert", wolfTLSv1_2_client_method(), TLS_CLIENT_REQUIRED, true, NULL, 0);
    record(argv[1], "tls12-none", wolfTLSv1_2_client_method(), TLS_CLIENT_REQUIRED, false, NULL, 0);
    record(argv[1], "tls12-maybe", wolfTLSv1_2_client_method(), TLS_CLIENT_OPTIONAL, false, NULL,
           0);
    record(argv[1], "tls12-chacha", wolfTLSv1_2_client_method(), TLS_SERVER_ONLY, false,
           "ECDHE-ECDSA-CHACHA20-POLY1305", 0);
    record(argv[1], "tls12-dhe", wolfTLSv1_2_client_method(), TLS_SERVER_ONLY, false,
           "DHE-RSA-AES128-GCM-SHA256", 0);
    return 0;
}
#endif
