#include "engine/tls_int.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wolfssl/wolfcrypt/aes.h>
#include <wolfssl/wolfcrypt/chacha20_poly1305.h>
#include <wolfssl/wolfcrypt/hash.h>

#include "engine/tls_cert.h"
#include "proto/crypto.h"

/* wolfCrypt finds out what the processor can do when it is first asked for a cipher or a hash, and
 * notes it in plain globals: two threads at that together read half of the answer. */
static void ask_processor(void)
{
    static const uint8_t zero[64];
    uint8_t out[64], tag[16];
    Aes aes;
    bool done = wc_AesInit(&aes, NULL, INVALID_DEVID) == 0;

    done =
        done && wc_AesGcmSetKey(&aes, zero, 32) == 0 &&
        wc_AesGcmEncrypt(&aes, out, zero, sizeof(out), zero, 12, tag, sizeof(tag), NULL, 0) == 0 &&
        wc_AesGcmDecrypt(&aes, out, out, sizeof(out), zero, 12, tag, sizeof(tag), NULL, 0) == 0;
    wc_AesFree(&aes);
    done =
        done && wc_ChaCha20Poly1305_Encrypt(zero, zero, NULL, 0, zero, sizeof(out), out, tag) == 0;
    done = done && wc_Sha256Hash(zero, sizeof(zero), out) == 0 &&
           wc_Sha384Hash(zero, sizeof(zero), out) == 0 &&
           wc_Sha512Hash(zero, sizeof(zero), out) == 0;
    ASSERT(done);
}

static void init(void)
{
    tls_pool_install();
    crypto_init();
    ASSERT(wolfSSL_Init() == WOLFSSL_SUCCESS);
    ask_processor();
}

void tls_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    ASSERT(pthread_once(&once, init) == 0);
}

/* Forward secret and authenticated ones; what a client may ask for beyond these is slower (DHE) or
 * has a history (CBC). */
static const char CIPHERS[] =
    "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:TLS13-CHACHA20-POLY1305-SHA256:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
int tls_verify_mode(enum tls_mode mode)
{
    switch (mode) {
    case TLS_CLIENT_REQUIRED:
        return WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    case TLS_CLIENT_OPTIONAL:
        return WOLFSSL_VERIFY_PEER;
    default:
        return WOLFSSL_VERIFY_NONE;
    }
}

static struct bytes find(struct bytes in, const char *what)
{
    const uint8_t *at = in.n ? memmem(in.p, in.n, what, strlen(what)) : NULL;

    return at ? bytes_of(at, in.n - (size_t)(at - in.p)) : bytes_of(NULL, 0);
}

/* From the key's BEGIN line on: "openssl ecparam" writes parameters before it, and certificates may
 * be in the same file. */
static const char *key_find(struct bytes file, struct bytes *key)
{
    static const char *const labels[] = { "-----BEGIN PRIVATE KEY-----",
                                          "-----BEGIN RSA PRIVATE KEY-----",
                                          "-----BEGIN EC PRIVATE KEY-----" };

    for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
        *key = find(file, labels[i]);
        if (key->n == 0)
            continue;
        struct bytes end = find(*key, "-----END ");

        if (find(bytes_of(key->p, key->n - end.n), "ENCRYPTED").n)
            return "the key is encrypted";
        return end.n ? NULL : "the key has no END line";
    }
    return find(file, "-----BEGIN ENCRYPTED PRIVATE KEY-----").n
               ? "the key is encrypted"
               : "no private key in it (PEM; PKCS#8, PKCS#1 or SEC1)";
}

static const char *chain_use(struct tls_server *s, struct bytes chain)
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    struct bytes leaf = find(chain, begin);
    struct tls_cert cert;
    DerBuffer *der = NULL;
    unsigned count = 0;

    for (struct bytes at = leaf; at.n; at = find(bytes_of(at.p + 1, at.n - 1), begin))
        count++;
    if (count == 0)
        return "no certificate in it (PEM)";
    if (count > TLS_CHAIN_MAX)
        return "more than 8 certificates in it";
    if (wc_PemToDer(leaf.p, (long)leaf.n, CERT_TYPE, &der, NULL, NULL, NULL) != 0)
        return "the first certificate is no PEM";
    bool read = tls_cert_read(bytes_of(der->buffer, der->length), &cert);

    if (read) {
        tls_cert_id(&cert, s->id);
        s->expires_unix_s = cert.not_after_unix_s;
    }
    wc_FreeDer(&der);
    if (!read)
        return "the first certificate is no X.509 v3";
    if (wolfSSL_CTX_use_certificate_chain_buffer(s->ctx, leaf.p, (long)leaf.n) != WOLFSSL_SUCCESS)
        return "its certificates cannot be used";
    return NULL;
}

static const char *key_use(struct tls_server *s, struct bytes file)
{
    struct bytes key;
    const char *bad = key_find(file, &key);

    if (bad)
        return bad;
    if (wolfSSL_CTX_use_PrivateKey_buffer(s->ctx, key.p, (long)key.n, WOLFSSL_FILETYPE_PEM) !=
        WOLFSSL_SUCCESS)
        return "the key cannot be used";
    if (wolfSSL_CTX_check_private_key(s->ctx) != WOLFSSL_SUCCESS)
        return "the key is not that of the certificate";
    return NULL;
}

/* Which signatures are asked of a client is wolfSSL's list, whatever it is told: more than the
 * original's (dig.md §12), and without SHA-1. */
static bool ctx_prepare(struct tls_server *s)
{
    /* FFDHE and P-521 are slow and nobody needs them for an exchange. */
    int groups[] = { WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP256R1, WOLFSSL_ECC_SECP384R1 };
    WOLFSSL_CTX *c = wolfSSL_CTX_new(wolfSSLv23_server_method());

    s->ctx = c;
    if (!c || wolfSSL_CTX_SetMinVersion(c, WOLFSSL_TLSV1_2) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_cipher_list(c, CIPHERS) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_groups(c, groups, (int)ARRAY_LEN(groups)) != WOLFSSL_SUCCESS)
        return false;
    /* A resumed session would bring no certificate, and tickets would need keys that all relays of
     * a name share: whoever comes back shakes hands again. */
    if (wolfSSL_CTX_no_ticket_TLSv13(c) != 0 || wolfSSL_CTX_NoTicketTLSv12(c) != WOLFSSL_SUCCESS)
        return false;
    (void)wolfSSL_CTX_set_session_cache_mode(c, WOLFSSL_SESS_CACHE_OFF);
    wolfSSL_CTX_SetIORecv(c, tls_on_recv);
    wolfSSL_CTX_SetIOSend(c, tls_on_send);
    wolfSSL_CTX_set_verify(c, tls_verify_mode(s->mode),
                           s->mode == TLS_SERVER_ONLY ? NULL : tls_on_cert);
    if (s->mode != TLS_SERVER_ONLY) /* calls for certificates that are fine, too */
        wolfSSL_CertManagerSetVerify(wolfSSL_CTX_GetCertManager(c), tls_on_cert);
    return true;
}

static bool alpn_take(struct tls_server *s, const struct tls_alpn *alpn)
{
    if (!alpn)
        return true;
    if (alpn->count > TLS_ALPN_MAX)
        return false;
    for (unsigned i = 0; i < alpn->count; i++) {
        size_t n = strlen(alpn->name[i]);

        if (n == 0 || n >= TLS_ALPN_NAME_MAX || strchr(alpn->name[i], ','))
            return false;
        memcpy(s->alpn[i], alpn->name[i], n + 1);
    }
    s->alpn_count = alpn->count;
    return true;
}

/* The files' names are the caller's to say: *of_key tells which of the two is meant. */
static struct tls_server *server_make(struct bytes chain, struct bytes key, enum tls_mode mode,
                                      const struct tls_alpn *alpn, const char **bad, bool *of_key)
{
    struct tls_server *s = calloc(1, sizeof(*s));

    tls_init();
    *of_key = false;
    *bad = "not enough memory";
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->mode = mode;
    if (!alpn_take(s, alpn)) {
        *bad = "the ALPN names are not ones that can be offered";
    } else if (!ctx_prepare(s)) {
        *bad = "no TLS context";
    } else {
        *bad = chain_use(s, chain);
        if (!*bad) {
            *bad = key_use(s, key);
            *of_key = *bad != NULL;
        }
    }
    if (!*bad)
        return s;
    tls_server_drop(s);
    return NULL;
}

struct tls_server *tls_server_new(struct bytes chain, struct bytes key, enum tls_mode mode,
                                  const struct tls_alpn *alpn, char *why, size_t cap)
{
    const char *bad;
    bool of_key;
    struct tls_server *s = server_make(chain, key, mode, alpn, &bad, &of_key);

    if (!s)
        snprintf(why, cap, "TLS %s: %s", of_key ? "key" : "certificate", bad);
    return s;
}

/* A whole regular file. NULL with what is wrong; *out is to be wiped and freed. */
static const char *file_read(const char *path, struct bytes *out, uint8_t **owned)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    const char *bad = NULL;
    struct stat st;
    size_t n = 0;

    *owned = NULL;
    if (fd < 0)
        return strerror(errno);
    if (fstat(fd, &st) != 0) {
        bad = strerror(errno);
    } else if (!S_ISREG(st.st_mode)) {
        bad = "not a regular file";
    } else if (st.st_size > TLS_FILE_BYTES_MAX) {
        bad = "longer than 256 KiB";
    } else if (!(*owned = malloc((size_t)st.st_size + 1))) {
        bad = "not enough memory";
    }
    while (!bad && n < (size_t)st.st_size) {
        ssize_t got = read(fd, *owned + n, (size_t)st.st_size - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            bad = strerror(errno);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(fd);
    if (bad && *owned) {
        crypto_wipe(*owned, n);
        free(*owned);
        *owned = NULL;
    }
    *out = bytes_of(*owned, n);
    return bad;
}

struct tls_server *tls_server_load(const char *cert_path, const char *key_path, enum tls_mode mode,
                                   const struct tls_alpn *alpn, char *why, size_t cap)
{
    struct tls_server *s = NULL;
    uint8_t *chain_owned = NULL, *key_owned = NULL;
    struct bytes chain, key = { NULL, 0 };
    bool of_key = false;
    const char *bad = file_read(cert_path, &chain, &chain_owned);

    if (!bad) {
        bad = file_read(key_path, &key, &key_owned);
        of_key = bad != NULL;
    }
    if (!bad)
        s = server_make(chain, key, mode, alpn, &bad, &of_key);
    if (!s)
        snprintf(why, cap, "%s: %s", of_key ? key_path : cert_path, bad);
    if (key_owned)
        crypto_wipe(key_owned, key.n);
    free(key_owned);
    free(chain_owned);
    return s;
}

struct tls_server *tls_server_keep(struct tls_server *s)
{
    (void)atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void tls_server_drop(struct tls_server *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    wolfSSL_CTX_free(s->ctx);
    free(s);
}

enum tls_mode tls_server_mode(const struct tls_server *s)
{
    return s->mode;
}

void tls_server_id(const struct tls_server *s, char hex[TLS_PEER_ID + 1])
{
    tls_hex(s->id, hex);
}

int64_t tls_server_expires_unix_s(const struct tls_server *s)
{
    return s->expires_unix_s;
}
