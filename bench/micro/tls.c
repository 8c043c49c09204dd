/* bench-tls: what TLS costs a server's thread (engine/tls.h): a handshake by the kinds of both
 * keys, a record in each direction beside copying it (memcpy), and the memory of connections that
 * are idle. bench-tls DIR [CONNECTIONS]     DIR: tests/vectors/tls, for its keys Prints us of CPU
 * time: the median of 31 handshakes, of 2001 records. Memory is what the pool counts and what of it
 * is resident, by connection. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include "engine/tls.h"

enum { SHAKES = 31, RECORDS = 2001, RECORD_MAX = 65536, PIPE = 1 << 18, POOL = 1 << 28 };

struct pipe {
    uint8_t bytes[PIPE];
    size_t n, read;
};

static struct pipe to_server, to_client;
static const char *dir;
static uint8_t data[RECORD_MAX], back[RECORD_MAX];

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_size);
    return v[n / 2];
}

static bool put(void *arg, struct bytes b)
{
    struct pipe *p = arg;

    if (p->read == p->n)
        p->read = p->n = 0;
    ASSERT(b.n <= PIPE - p->n);
    memcpy(p->bytes + p->n, b.p, b.n);
    p->n += b.n;
    return true;
}

static int client_send(WOLFSSL *ssl, char *from, int n, void *arg)
{
    (void)ssl;
    put(arg, bytes_of(from, (size_t)n));
    return n;
}

static int client_recv(WOLFSSL *ssl, char *to, int n, void *arg)
{
    struct pipe *p = arg;
    size_t m = min_sz((size_t)n, p->n - p->read);

    (void)ssl;
    memcpy(to, p->bytes + p->read, m);
    p->read += m;
    return m ? (int)m : WOLFSSL_CBIO_ERR_WANT_READ;
}

static const char *path(const char *name, const char *end)
{
    static char text[2][4096];
    static unsigned turn;
    char *at = text[turn++ % 2];

    snprintf(at, sizeof(text[0]), "%s/%s%s", dir, name, end);
    return at;
}

static struct tls_server *server_of(const char *key, bool asks)
{
    char why[512];
    struct tls_server *s =
        tls_server_load(path(key, ".pem"), path(key, ".key"),
                        asks ? TLS_CLIENT_REQUIRED : TLS_SERVER_ONLY, NULL, why, sizeof(why));

    if (!s) {
        fprintf(stderr, "bench-tls: %s\n", why);
        exit(1);
    }
    return s;
}

static WOLFSSL_CTX *clients_of(int version, const char *key)
{
    WOLFSSL_CTX *c =
        wolfSSL_CTX_new(version == 12 ? wolfTLSv1_2_client_method() : wolfTLSv1_3_client_method());

    ASSERT(c);
    wolfSSL_CTX_set_verify(c, WOLFSSL_VERIFY_NONE, NULL);
    wolfSSL_CTX_SetIORecv(c, client_recv);
    wolfSSL_CTX_SetIOSend(c, client_send);
    if (key) {
        ASSERT(wolfSSL_CTX_use_certificate_chain_file(c, path(key, ".pem")) == WOLFSSL_SUCCESS);
        ASSERT(wolfSSL_CTX_use_PrivateKey_file(c, path(key, ".key"), WOLFSSL_FILETYPE_PEM) ==
               WOLFSSL_SUCCESS);
    }
    return c;
}

/* What has come for the server: how long it took. *got: of plaintext. */
static double feed(struct tls *t, size_t *got)
{
    double began = now_us();
    size_t n;

    (void)tls_feed(t, bytes_of(to_server.bytes + to_server.read, to_server.n - to_server.read));
    *got = 0;
    while ((n = tls_read(t, back, sizeof(back))) != 0)
        *got += n;
    to_server.read = to_server.n;
    return now_us() - began;
}

static double shake(WOLFSSL_CTX *clients, struct tls *t, WOLFSSL **client)
{
    double us = 0;
    size_t got;

    to_server.n = to_server.read = to_client.n = to_client.read = 0;
    *client = wolfSSL_new(clients);
    ASSERT(*client);
    wolfSSL_SetIOReadCtx(*client, &to_client);
    wolfSSL_SetIOWriteCtx(*client, &to_server);
    for (int i = 0; i < 3; i++) {
        (void)wolfSSL_connect(*client);
        us += feed(t, &got);
    }
    ASSERT(tls_established(t));
    return us;
}

static void handshakes(struct tls_pool *pool, int version, const char *server_key,
                       const char *client_key)
{
    struct tls_server *s = server_of(server_key, client_key != NULL);
    WOLFSSL_CTX *clients = clients_of(version, client_key);
    double us[SHAKES];

    for (int i = 0; i < SHAKES; i++) {
        double began = now_us();
        struct tls *t = tls_new(s, pool, put, &to_client);
        WOLFSSL *client;

        us[i] = now_us() - began;
        us[i] += shake(clients, t, &client);
        wolfSSL_free(client);
        began = now_us();
        tls_free(t);
        us[i] += now_us() - began;
    }
    printf("1.%d  server %-8s client %-8s %7.0f us\n", version % 10, server_key,
           client_key ? client_key : "none", median(us, SHAKES));
    wolfSSL_CTX_free(clients);
    tls_server_drop(s);
}

static void records(struct tls_pool *pool, int version, size_t n)
{
    static double seal[RECORDS], open[RECORDS], copy[RECORDS];
    struct tls_server *s = server_of("p256", false);
    WOLFSSL_CTX *clients = clients_of(version, NULL);
    struct tls *t = tls_new(s, pool, put, &to_client);
    struct bytes parts[] = { { data, 10 }, { data + 10, n - 10 } };
    WOLFSSL *client;

    (void)shake(clients, t, &client);
    for (int i = 0; i < RECORDS; i++) {
        size_t got = 0;
        double began = now_us();
        int m;

        ASSERT(tls_writev(t, parts, ARRAY_LEN(parts)));
        seal[i] = now_us() - began;
        while (got < n && (m = wolfSSL_read(client, back, (int)(n - got))) > 0)
            got += (size_t)m;
        ASSERT(got == n);
        ASSERT(wolfSSL_write(client, data, (int)n) == (int)n);
        open[i] = feed(t, &got);
        ASSERT(got == n);
        began = now_us();
        memcpy(back, data, n);
        __asm__ volatile("" : : "r"(back) : "memory");
        copy[i] = now_us() - began;
    }
    printf("1.%d  %6zu bytes: seal %7.2f us, open %7.2f us, memcpy %6.2f us\n", version % 10, n,
           median(seal, RECORDS), median(open, RECORDS), median(copy, RECORDS));
    wolfSSL_free(client);
    wolfSSL_CTX_free(clients);
    tls_free(t);
    tls_server_drop(s);
}

static double resident(void)
{
    long all, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    ASSERT(f && fscanf(f, "%ld %ld", &all, &pages) == 2);
    fclose(f);
    return (double)(pages * sysconf(_SC_PAGESIZE));
}

static void idle(int version, const char *client_key, size_t count)
{
    int err;
    struct tls_pool *pool = tls_pool_new(POOL, &err);
    struct tls_server *s = server_of("p256", client_key != NULL);
    WOLFSSL_CTX *clients = clients_of(version, client_key);
    struct tls **t = calloc(count, sizeof(struct tls *));
    double before = 0;
    WOLFSSL *client;

    ASSERT(pool && t && count > 10);
    for (size_t i = 0; i < count; i++) {
        if (i == 10) /* whatever is needed once is there */
            before = resident();
        t[i] = tls_new(s, pool, put, &to_client);
        (void)shake(clients, t[i], &client);
        wolfSSL_free(client);
    }
    printf("1.%d  client %-8s idle %6zu bytes, resident %6.0f\n", version % 10,
           client_key ? client_key : "none", tls_pool_used(pool) / count,
           (resident() - before) / (double)(count - 10));
    for (size_t i = 0; i < count; i++)
        tls_free(t[i]);
    free(t);
    wolfSSL_CTX_free(clients);
    tls_server_drop(s);
    tls_pool_free(pool);
}

int main(int argc, char **argv)
{
    static const char *const servers[] = { "p256", "ed25519", "rsa2048", "rsa4096" };
    static const char *const clients[] = {
        "p256", "p384", "p521", "ed25519", "rsa2048", "rsa8192"
    };
    static const size_t sizes[] = { 256, 3600, 16384, 65536 };
    size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
    int err;

    if (argc < 2 || count <= 10) {
        fprintf(stderr, "usage: bench-tls DIR [CONNECTIONS]\n");
        return 2;
    }
    dir = argv[1];
    tls_init();
    struct tls_pool *pool = tls_pool_new(POOL, &err);

    ASSERT(pool);
    for (int version = 12; version <= 13; version++) {
        for (size_t i = 0; i < ARRAY_LEN(servers); i++)
            handshakes(pool, version, servers[i], NULL);
        for (size_t i = 0; i < ARRAY_LEN(clients); i++)
            handshakes(pool, version, "p256", clients[i]);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
            records(pool, version, sizes[i]);
        idle(version, NULL, count);
        idle(version, "p256", count);
    }
    tls_pool_free(pool);
    return 0;
}
