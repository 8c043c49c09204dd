#include "engine/tls.h"

#include "engine/tls_cert.h"
#include "engine/tls_int.h"
#include "proto/crypto.h"

enum {
    RECORD_HEAD = 5,
    RECORD_PLAIN_MAX = 16384,
    RECORD_COST_MAX = 32,  /* head, explicit nonce or inner type, tag */
    KEY_UPDATE_BYTES = 32, /* wolfSSL sends one when a key has been used often enough */
    WRITE_MAX = 1 << 30,
};
static_assert((int)RECORD_PLAIN_MAX == (int)TLS_SCRATCH_BYTES,
              "a record is gathered in the pool's scratch");

struct tls {
    WOLFSSL *ssl;
    struct tls_server *server;
    struct tls_pool *pool;
    struct tls_account account;
    tls_out *out;
    void *out_arg;
    struct bytes in;       /* not yet taken */
    uint32_t before_bytes; /* taken before it was established */
    uint16_t body_left;    /* of the record that comes in */
    uint8_t head_n, head[RECORD_HEAD];
    uint8_t idle_records; /* since the last plaintext */
    uint8_t alpn;         /* index + 1; 0: none */
    bool established, worked, has_peer, said_close;
    enum tls_verdict verdict;
    enum tls_why why;
    uint8_t peer[32];
};

/* wolfSSL's callbacks for certificates know the context and not always the connection. */
static _Thread_local struct tls *current;

static void enter(struct tls *t)
{
    ASSERT(!current);
    current = t;
    tls_pool_enter(t->pool, &t->account);
}

static void leave(void)
{
    current = NULL;
    tls_pool_leave();
}

static void refuse(struct tls *t, enum tls_why why)
{
    if (t->why == TLS_WHY_NONE) /* the first cause is the cause */
        t->why = why;
}

/* wolfSSL wants a list that it may write to, and does not write to it. */
static bool offer_alpn(struct tls *t)
{
    char list[TLS_ALPN_MAX * TLS_ALPN_NAME_MAX] = "";
    size_t n = 0;

    for (unsigned i = 0; i < t->server->alpn_count; i++) {
        size_t more = strlen(t->server->alpn[i]);

        if (n)
            list[n++] = ',';
        memcpy(list + n, t->server->alpn[i], more);
        n += more;
    }
    return n == 0 || wolfSSL_UseALPN(t->ssl, list, (unsigned)n,
                                     WOLFSSL_ALPN_CONTINUE_ON_MISMATCH) == WOLFSSL_SUCCESS;
}

struct tls *tls_new(struct tls_server *server, struct tls_pool *pool, tls_out *out, void *arg)
{
    struct tls_account account = { .max = TLS_CONN_BYTES_MAX };

    tls_pool_enter(pool, &account);
    struct tls *t = tls_pool_alloc(sizeof(*t));

    tls_pool_leave();
    if (!t)
        return NULL;
    *t = (struct tls){ .server = tls_server_keep(server),
                       .pool = pool,
                       .account = account,
                       .out = out,
                       .out_arg = arg };
    enter(t);
    t->ssl = wolfSSL_new(server->ctx);
    if (t->ssl && !offer_alpn(t)) {
        wolfSSL_free(t->ssl);
        t->ssl = NULL;
    }
    if (t->ssl) {
        wolfSSL_SetIOReadCtx(t->ssl, t);
        wolfSSL_SetIOWriteCtx(t->ssl, t);
    }
    leave();
    if (t->ssl)
        return t;
    tls_free(t);
    return NULL;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    struct tls_server *server = t->server;
    struct tls_pool *pool = t->pool;

    enter(t);
    wolfSSL_free(t->ssl);
    leave();
    struct tls_account account = t->account; /* t itself is among what it has */

    crypto_wipe(t, sizeof(*t));
    tls_pool_enter(pool, &account);
    tls_pool_return(t);
    tls_pool_sweep();
    tls_pool_leave();
    tls_server_drop(server);
}

/* Records are counted as they pass: a head of 5 bytes, then so many. What is wrong with one, its
 * length too, is for wolfSSL to say. */
static bool watch(struct tls *t, struct bytes b)
{
    while (b.n) {
        size_t n;

        if (t->body_left) {
            n = min_sz(b.n, t->body_left);
            t->body_left = (uint16_t)(t->body_left - n);
        } else {
            n = min_sz(b.n, (size_t)(RECORD_HEAD - t->head_n));
            memcpy(t->head + t->head_n, b.p, n);
            t->head_n = (uint8_t)(t->head_n + n);
        }
        b.p += n;
        b.n -= n;
        if (t->head_n < RECORD_HEAD)
            continue;
        t->head_n = 0;
        t->body_left = (uint16_t)(t->head[3] << 8 | t->head[4]);
        if (t->established && ++t->idle_records > TLS_EMPTY_RECORDS_MAX) {
            refuse(t, TLS_WHY_TOO_LONG);
            return false;
        }
    }
    return true;
}

int tls_on_recv(WOLFSSL *ssl, char *to, int n, void *arg)
{
    struct tls *t = arg;
    struct bytes part = bytes_of(t->in.p, min_sz(t->in.n, n > 0 ? (size_t)n : 0));

    (void)ssl;
    if (part.n == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    if (!t->established) {
        t->before_bytes += (uint32_t)part.n;
        if (t->before_bytes > TLS_HANDSHAKE_BYTES_MAX) {
            refuse(t, TLS_WHY_TOO_LONG);
            return WOLFSSL_CBIO_ERR_GENERAL;
        }
    }
    if (!watch(t, part))
        return WOLFSSL_CBIO_ERR_GENERAL;
    memcpy(to, part.p, part.n);
    t->in.p += part.n;
    t->in.n -= part.n;
    return (int)part.n;
}

int tls_on_send(WOLFSSL *ssl, char *from, int n, void *arg)
{
    struct tls *t = arg;

    (void)ssl;
    ASSERT(n >= 0);
    t->worked = true;
    if (t->why == TLS_WHY_OUT || !t->out(t->out_arg, bytes_of(from, (size_t)n))) {
        refuse(t, TLS_WHY_OUT);
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    return n;
}

/* Is that a leaf whose key we let prove itself? Its name in our world is taken here too. */
static bool judge_leaf(struct tls *t, struct bytes der)
{
    struct tls_cert cert;

    if (!tls_cert_read(der, &cert) || cert.key == TLS_KEY_OTHER) {
        refuse(t, TLS_WHY_BAD_CERT);
        return false;
    }
    tls_cert_id(&cert, t->peer);
    t->has_peer = true;
    return true;
}

/* Called for each certificate of the client's chain, the leaf last, whatever wolfSSL found about
 * it; what it found (no signer, dates, usage) does not matter here (dig.md §12). Both wolfSSL's
 * callback of the certificate manager, which is called always, and that of the connection, which is
 * asked last and could overrule the other.
 *
 * A chain's certificates beyond the leaf are not ours to judge, but wolfSSL would: it computes
 * their signatures, and then files every CA among them with the context that all connections share,
 * because this callback said yes. So while it is at them it verifies nothing; before the leaf is
 * done verifying is on again, for a CertificateVerify to be insisted on. */
int tls_on_cert(int preverified, WOLFSSL_X509_STORE_CTX *store)
{
    struct tls *t = current;

    ASSERT(t);
    if (store->totalCerts > TLS_CHAIN_MAX) {
        refuse(t, TLS_WHY_BAD_CERT);
        return 0;
    }
    if (store->error_depth > 0) {
        wolfSSL_set_verify(t->ssl, WOLFSSL_VERIFY_NONE, tls_on_cert);
        return 1;
    }
    wolfSSL_set_verify(t->ssl, tls_verify_mode(t->server->mode), tls_on_cert);
    if (!store->certs || store->totalCerts < 1)
        return preverified; /* an empty list: whether that will do is wolfSSL's to know */
    return judge_leaf(t, bytes_of(store->certs[0].buffer, store->certs[0].length));
}

/* RFC 7301 §3.2. Nothing in common: none is chosen, as coturn does it; whoever minds will say so.
 */
static void take_alpn(struct tls *t)
{
    const struct tls_server *s = t->server;
    char *name = NULL;
    unsigned short n = 0;

    if (s->alpn_count == 0 || wolfSSL_ALPN_GetProtocol(t->ssl, &name, &n) != WOLFSSL_SUCCESS)
        return;
    for (unsigned i = 0; i < s->alpn_count; i++)
        if (bytes_eq(bytes_of(name, n), bytes_str(s->alpn[i])))
            t->alpn = (uint8_t)(i + 1);
}

static enum tls_why why_of(int error)
{
    switch (error) {
    case MEMORY_E:
    case MEMORY_ERROR:
        return TLS_WHY_NO_MEMORY;
    case VERSION_ERROR:
        return TLS_WHY_VERSION;
    case MATCH_SUITE_ERROR:
    case KEY_SHARE_ERROR:
    case BAD_KEY_SHARE_DATA: /* also: no group in common */
    case UNSUPPORTED_SUITE:
    case INVALID_PARAMETER:
    case ECC_CURVE_ERROR:
        return TLS_WHY_NO_COMMON;
    case NO_PEER_CERT:
        return TLS_WHY_NO_CERT;
    case VERIFY_CERT_ERROR:
    case PEER_KEY_ERROR:
    case ASN_PARSE_E:
    case MAX_CHAIN_ERROR:
    case UNSUPPORTED_CERTIFICATE:
        return TLS_WHY_BAD_CERT;
    case VERIFY_FINISHED_ERROR:
    case VERIFY_SIGN_ERROR:
    case SIG_VERIFY_E:
    case NO_PEER_VERIFY:
        return TLS_WHY_BAD_PROOF;
    case FATAL_ERROR:
        return TLS_WHY_PEER_ALERT;
    default:
        return TLS_WHY_PROTOCOL;
    }
}

static enum tls_verdict fail(struct tls *t, int error)
{
    refuse(t, t->account.refused ? TLS_WHY_NO_MEMORY : why_of(error));
    t->verdict = TLS_FAILED;
    return t->verdict;
}

static void handshake(struct tls *t)
{
    int done = wolfSSL_accept(t->ssl);
    int error = done == WOLFSSL_SUCCESS ? 0 : wolfSSL_get_error(t->ssl, done);

    if (error == WOLFSSL_ERROR_WANT_READ && t->why == TLS_WHY_NONE)
        return;
    if (error == WOLFSSL_ERROR_ZERO_RETURN) {
        t->verdict = TLS_CLOSED;
    } else if (done != WOLFSSL_SUCCESS || t->why != TLS_WHY_NONE) {
        (void)fail(t, error);
    } else if (t->server->mode == TLS_CLIENT_REQUIRED && !t->has_peer) {
        (void)fail(t, NO_PEER_CERT); /* wolfSSL has seen to it; what depends on it asks again */
    } else {
        t->established = t->worked = true;
        take_alpn(t);
        t->verdict = TLS_READY;
    }
}

enum tls_verdict tls_feed(struct tls *t, struct bytes in)
{
    t->worked = false;
    t->in = in;
    if (t->verdict >= TLS_CLOSED || t->established)
        return t->verdict;
    enter(t);
    handshake(t);
    leave();
    return t->verdict;
}

size_t tls_read(struct tls *t, uint8_t *out, size_t cap)
{
    if (t->verdict != TLS_READY || cap == 0)
        return 0;
    enter(t);
    int n = wolfSSL_read(t->ssl, out, (int)min_sz(cap, RECORD_PLAIN_MAX));
    int error = n > 0 ? 0 : wolfSSL_get_error(t->ssl, n);

    leave();
    if (n > 0) {
        t->idle_records = 0;
        return (size_t)n;
    }
    if (error == WOLFSSL_ERROR_ZERO_RETURN)
        t->verdict = TLS_CLOSED;
    else if (error != WOLFSSL_ERROR_WANT_READ || t->why != TLS_WHY_NONE)
        (void)fail(t, error);
    return 0;
}

struct bytes tls_rest(struct tls *t)
{
    struct bytes rest = t->verdict >= TLS_CLOSED ? bytes_of(NULL, 0) : t->in;

    t->in = bytes_of(NULL, 0);
    return rest;
}

enum tls_verdict tls_verdict(const struct tls *t)
{
    return t->verdict;
}

enum tls_why tls_why(const struct tls *t)
{
    return t->why;
}

bool tls_worked(const struct tls *t)
{
    return t->worked;
}

bool tls_established(const struct tls *t)
{
    return t->established;
}

static bool write_all(struct tls *t, struct bytes plain)
{
    while (plain.n) {
        size_t n = min_sz(plain.n, WRITE_MAX);
        int wrote = wolfSSL_write(t->ssl, plain.p, (int)n);

        if (wrote <= 0) {
            (void)fail(t, wolfSSL_get_error(t->ssl, wrote));
            return false;
        }
        plain.p += wrote;
        plain.n -= (size_t)wrote;
    }
    return true;
}

bool tls_write(struct tls *t, struct bytes plain)
{
    return tls_writev(t, &plain, 1);
}

bool tls_writev(struct tls *t, const struct bytes *parts, size_t n)
{
    uint8_t *record = tls_pool_scratch(t->pool);
    size_t filled = 0;
    bool good = t->established && t->verdict != TLS_FAILED && !t->said_close;

    if (!good)
        return false;
    enter(t);
    for (size_t i = 0; good && i < n; i++) {
        struct bytes part = parts[i];

        while (good && part.n) {
            size_t take = min_sz(part.n, RECORD_PLAIN_MAX - filled);
            bool straight = filled == 0 && (take == RECORD_PLAIN_MAX || i + 1 == n);

            if (!straight)
                memcpy(record + filled, part.p, take);
            if (straight) {
                good = write_all(t, bytes_of(part.p, take));
            } else if (filled + take == RECORD_PLAIN_MAX) {
                good = write_all(t, bytes_of(record, RECORD_PLAIN_MAX));
                filled = 0;
            } else {
                filled += take;
            }
            part.p += take;
            part.n -= take;
        }
    }
    good = good && write_all(t, bytes_of(record, filled));
    leave();
    return good;
}

size_t tls_sealed_bytes(size_t n)
{
    return n + (n / RECORD_PLAIN_MAX + 1) * RECORD_COST_MAX + KEY_UPDATE_BYTES;
}

void tls_close_notify(struct tls *t)
{
    if (!t->established || t->verdict == TLS_FAILED || t->said_close)
        return;
    t->said_close = true;
    enter(t);
    (void)wolfSSL_shutdown(t->ssl);
    leave();
}

void tls_hex(const uint8_t id[32], char hex[TLS_PEER_ID + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 32; i++) {
        hex[2 * i] = digits[id[i] >> 4];
        hex[2 * i + 1] = digits[id[i] & 15];
    }
    hex[TLS_PEER_ID] = 0;
}

bool tls_peer_id(const struct tls *t, char hex[TLS_PEER_ID + 1])
{
    if (!t->established || !t->has_peer)
        return false;
    tls_hex(t->peer, hex);
    return true;
}

const char *tls_alpn(const struct tls *t)
{
    return t->established && t->alpn ? t->server->alpn[t->alpn - 1] : NULL;
}

size_t tls_bytes_used(const struct tls *t)
{
    return t->account.used;
}

const char *tls_why_text(enum tls_why why)
{
    static const char *const text[TLS_WHYS] = {
        [TLS_WHY_NONE] = "none",
        [TLS_WHY_PROTOCOL] = "protocol",
        [TLS_WHY_VERSION] = "version",
        [TLS_WHY_NO_COMMON] = "nothing in common",
        [TLS_WHY_NO_CERT] = "no certificate",
        [TLS_WHY_BAD_CERT] = "bad certificate",
        [TLS_WHY_BAD_PROOF] = "bad proof",
        [TLS_WHY_PEER_ALERT] = "alert",
        [TLS_WHY_TOO_LONG] = "too long",
        [TLS_WHY_NO_MEMORY] = "no memory",
        [TLS_WHY_OUT] = "out",
    };

    return why < TLS_WHYS ? text[why] : "?";
}
