/* engine/tls.h: TLS for a server's connections, by wolfSSL over memory, inside a shard's loop: no
 * socket, no clock, never waiting. DIG, and later TURN, libp2p and wss over TLS, stand on it.
 * TLS 1.3 and 1.2; no renegotiation, no resumption, no early data, no compression (RFC 8446, RFC
 * 5246, RFC 7525).
 *
 * A connection is driven so:
 *     verdict = tls_feed(t, received);          handshake, alerts; its answers leave by `out`
 *     while ((n = tls_read(t, buf, sizeof(buf))) != 0) ... plaintext
 *     rest = tls_rest(t);                       empty, unless the reading stopped before 0
 *     if (tls_verdict(t) >= TLS_CLOSED) ...
 * Shapes:  ciphertext that goes in borrows from tls_feed until the next tls_feed or tls_rest; what
 *          comes out borrows until `out` returns.
 * Errors:  a peer's mistake, a certificate that does not prove itself, a budget that is spent, a
 *          queue that is full: TLS_FAILED with a reason to be counted. The alert that tells the
 *          peer has left by `out` already; it never is a reason for more than closing that
 *          connection. Nothing is logged here, and keys are in no text.
 * Threads: a struct tls belongs to its pool's thread; a struct tls_server to nobody, and is const.
 */
#ifndef SLUICE_ENGINE_TLS_H
#define SLUICE_ENGINE_TLS_H

#include "engine/tls_pool.h"

enum {
    TLS_CONN_BYTES_MAX = 98304,      /* of memory, one connection, at any time */
    TLS_HANDSHAKE_BYTES_MAX = 32768, /* of ciphertext before it is established */
    TLS_EMPTY_RECORDS_MAX = 32,  /* one after another, that bring no plaintext (KeyUpdate ...) */
    TLS_FILE_BYTES_MAX = 262144, /* of a PEM file */
    TLS_CHAIN_MAX = 8,           /* our own certificates; and those that a peer may send */
    TLS_RSA_BITS_MIN = 2048,     /* of a client's key */
    TLS_RSA_BITS_MAX = 8192,
    TLS_RSA_EXPONENT_BITS_MAX = 33,
    TLS_ALPN_MAX = 4,
    TLS_PEER_ID = 64, /* hex digits */
};

enum tls_mode {
    TLS_SERVER_ONLY,     /* no certificate is asked for */
    TLS_CLIENT_OPTIONAL, /* asked for, with no CA named; none is fine (dig.md D14) */
    TLS_CLIENT_REQUIRED, /* likewise; none: the handshake fails (dig.md §12) */
};
/* Whoever sends a certificate is who holds its key, and that is all it means: any X.509 v3 leaf
 * with an RSA, P-256, P-384, P-521 or Ed25519 key will do, whatever its chain, names and dates. */

enum tls_verdict {
    TLS_MORE,   /* the handshake waits for more */
    TLS_READY,  /* established: there may be plaintext, and tls_write is allowed */
    TLS_CLOSED, /* the peer said close_notify; what it said before has been read */
    TLS_FAILED, /* tls_why says how */
};

/* For counters; the text is tls_why_text's. */
enum tls_why {
    TLS_WHY_NONE,
    TLS_WHY_PROTOCOL,  /* not TLS, malformed, a record too long, an unexpected message, a bad MAC */
    TLS_WHY_VERSION,   /* older than 1.2 */
    TLS_WHY_NO_COMMON, /* no cipher, group or signature scheme in common */
    TLS_WHY_NO_CERT,   /* required, and not given */
    TLS_WHY_BAD_CERT,  /* cannot be read, or a key of a kind or size that we do not verify */
    TLS_WHY_BAD_PROOF, /* the signature is not that key's, or Finished is not what it ought to be */
    TLS_WHY_PEER_ALERT,
    TLS_WHY_TOO_LONG,  /* TLS_HANDSHAKE_BYTES_MAX, TLS_EMPTY_RECORDS_MAX */
    TLS_WHY_NO_MEMORY, /* of this connection or of the pool */
    TLS_WHY_OUT,       /* `out` said no */
    TLS_WHYS,
};
const char *tls_why_text(enum tls_why why); /* short, lower case, for metrics and one log line */

void tls_init(void); /* before anything else of wolfSSL, once; idempotent */

/* A certificate chain, its key, and what is asked of clients. Immutable, counted with atomics. */
struct tls_server;
/* Our protocols: the first of the client's that is among them is taken. None is no reason to part.
 */
struct tls_alpn {
    const char *name[TLS_ALPN_MAX];
    unsigned count;
};
/* PEM: chain with the leaf first; key in PKCS#8, PKCS#1 or SEC1, not encrypted. NULL with one line
 * in `why`. Allocates; any thread but a shard's. alpn NULL: none. The caller has one reference. */
struct tls_server *tls_server_new(struct bytes chain, struct bytes key, enum tls_mode mode,
                                  const struct tls_alpn *alpn, char *why, size_t cap);
/* Likewise of files; the line names the file and the cause. Reads files, so it may block. */
struct tls_server *tls_server_load(const char *cert_path, const char *key_path, enum tls_mode mode,
                                   const struct tls_alpn *alpn, char *why, size_t cap);
struct tls_server *tls_server_keep(struct tls_server *s); /* one more reference */
void tls_server_drop(struct tls_server *s); /* NULL is fine; any thread; the last frees */
enum tls_mode tls_server_mode(const struct tls_server *s);
/* SHA-256 of our leaf's SubjectPublicKeyInfo, as tls_peer_id gives it of a peer's; and when the
 * leaf ends, for a metric and a warning. */
void tls_server_id(const struct tls_server *s, char hex[TLS_PEER_ID + 1]);
int64_t tls_server_expires_unix_s(const struct tls_server *s);

struct tls;
/* Where ciphertext goes: appends it to the connection's queue. false: it cannot, and the connection
 * is over. Called from within tls_feed, tls_read, tls_write and tls_close_notify only, and calls
 * nothing of this header for any connection. */
typedef bool tls_out(void *arg, struct bytes ciphertext);

/* keeps pool and arg; has a reference of its own to the server until tls_free, so that a reload
 * leaves those alone who came before it. NULL: the pool is dry. Takes 14 KiB of it at once, so who
 * has not said anything yet is better left without. */
struct tls *tls_new(struct tls_server *server, struct tls_pool *pool, tls_out *out, void *arg);
void tls_free(struct tls *t); /* wipes; every byte is back in the pool; NULL is fine */

/* What has come from the net, in any cut. While the handshake lasts all of it is taken, in at most
 * one of our flights; a client cannot know what to say after it. When established nothing is
 * decrypted before tls_read asks. Sticky: after CLOSED or FAILED the rest is ignored. */
enum tls_verdict tls_feed(struct tls *t, struct bytes in);
/* Plaintext; 0: no more of it now, tls_verdict says whether for ever. Asks for at most one record's
 * 16 KiB at a time. */
size_t tls_read(struct tls *t, uint8_t *out, size_t cap);
/* What of the last tls_feed's input has not been taken: whoever stops reading before tls_read gives
 * 0 keeps it and feeds it first next time. Plaintext of a record that was read in part stays in `t`
 * and tls_read gives it without new input. Ends the borrowing. */
struct bytes tls_rest(struct tls *t);
enum tls_verdict tls_verdict(const struct tls *t);
enum tls_why tls_why(const struct tls *t);

/* Did the last tls_feed do public key work? 0.1 ms as a rule, 0.6 at worst by the choice of a
 * client; a key of ours of RSA adds 0.4 ms (2048 bits) or 3 (4096). A shard does so many in a turn.
 */
bool tls_worked(const struct tls *t);
bool tls_established(const struct tls *t);

/* All of it leaves by `out` before this returns, in records of up to 16 KiB; short ones in one
 * record each, so gather. Established only. false: TLS_FAILED. */
MUST_USE bool tls_write(struct tls *t, struct bytes plain);
/* The concatenation of n parts, gathered into full records: a frame's header, prefix and payload
 * make one record, not three. */
MUST_USE bool tls_writev(struct tls *t, const struct bytes *parts, size_t n);
/* Ciphertext that n bytes of plaintext make, at most: for a queue's bound before tls_write. */
size_t tls_sealed_bytes(size_t n);
/* Says close_notify, once; then only tls_free. Nothing on a connection that failed. */
void tls_close_notify(struct tls *t);

/* SHA-256 over the client leaf's SubjectPublicKeyInfo exactly as encoded, in lower-case hex: who it
 * is (dig.md §12). false: not established, or it gave none. */
MUST_USE bool tls_peer_id(const struct tls *t, char hex[TLS_PEER_ID + 1]);
/* The protocol that ALPN settled on; NULL: none. Lives as long as the server. */
const char *tls_alpn(const struct tls *t);
size_t tls_bytes_used(const struct tls *t); /* of the pool, by this connection */

#endif
