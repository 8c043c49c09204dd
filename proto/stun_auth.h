/* proto/stun_auth.h: long-term credentials of STUN and TURN (RFC 8489 §9.2): keys, the stateless
 * nonce, the order of refusals, and credentials that a service derives from a secret it shares with
 * us ("REST", turn.md §8.3). Pure and reentrant; an unauthenticated request leaves nothing behind.
 * Shapes:  usernames, realms and the like borrow from the message; keys are owned values: wipe
 * them. Units:   nonces are judged in ms of a clock that all holders of the nonce key share;
 * expiries in Unix seconds. Errors:  the number of the error response that RFC 8489 §9.2.4 has for
 * it, 0 for none. */
#ifndef SLUICE_PROTO_STUN_AUTH_H
#define SLUICE_PROTO_STUN_AUTH_H

#include "proto/stun.h"

/* ---- keys ---------------------------------------------------------------------------------- */

enum stun_alg { STUN_ALG_MD5 = 1, STUN_ALG_SHA256 = 2 }; /* as in PASSWORD-ALGORITHM */
enum { STUN_USERHASH_BYTES = 32 };

struct stun_key {
    uint8_t n; /* 16 or 32; 0: none, of a user whom nobody knows */
    uint8_t b[32];
};
static inline struct bytes stun_key_bytes(const struct stun_key *k)
{
    return bytes_of(k->b, k->n);
}
/* What to store of a user instead of the password: one key per algorithm (§9.2.2). Username, realm
 * and password have been prepared by stun_opaque. */
void stun_key_make(enum stun_alg alg, struct bytes username, struct bytes realm,
                   struct bytes password, struct stun_key *out);
void stun_userhash(struct bytes username, struct bytes realm, uint8_t out[STUN_USERHASH_BYTES]);

/* OpaqueString (RFC 8265 §4.2), for what an operator types. ASCII from space to tilde stands for
 * itself, and so do the letters and signs of the scripts listed in stun_prep.c, none of which NFC
 * would change; spaces beyond ASCII become U+0020. false: empty, not UTF-8, control characters, or
 * something that we cannot prepare (combining marks, other scripts); *w then holds no whole result.
 * Nothing grows. What SASLprep did otherwise (RFC 5389) is done nowhere: it differs beyond ASCII
 * only. */
bool stun_opaque(struct bytes in, struct wcur *w);

/* ---- the nonce (turn.md §6) ---------------------------------------------------------------- */

/* "obMatJos2", four characters of feature bits, then 20 of base64url over 5 bytes of time and 10 of
 * HMAC-SHA256(key, time, client's address and port). Without features only the 20. So it
 * is bound to its source, verified without state, and as long as it must be: each 401 carries it.
 */
enum {
    STUN_NONCE_MAX = 33,
    STUN_NONCE_LIFETIME_MAX_MS = 3600000,
    STUN_NONCE_AHEAD_MS = 1000, /* who judges one may have read the clock before who issued it */
};
/* IANA counts bits from the left, the example of RFC 8489 and a deployed client from the right:
 * both. */
enum { STUN_FEATURE_ALGORITHMS = 0x800001, STUN_FEATURE_ANONYMITY = 0x400002 };

struct stun_nonce_keys {
    uint8_t current[32];  /* random, from the system's generator (CVE-2025-69217) */
    uint8_t previous[32]; /* verifies too, while keys are rotated */
    bool has_previous;
};
size_t stun_nonce_make(const struct stun_nonce_keys *keys, uint32_t features, uint64_t now_ms,
                       const struct netaddr *src, uint8_t out[STUN_NONCE_MAX]);
/* false: not ours, another client's, or older than `lifetime_ms`. `features` are what it must
 * carry. */
bool stun_nonce_ok(const struct stun_nonce_keys *keys, uint32_t features, uint64_t now_ms,
                   uint64_t lifetime_ms, const struct netaddr *src, struct bytes nonce);

/* ---- a request ----------------------------------------------------------------------------- */

struct stun_realm {
    struct bytes name; /* borrows for the life of this */
    const struct stun_nonce_keys *nonce;
    uint64_t nonce_ms; /* 600 000; at most STUN_NONCE_LIFETIME_MAX_MS */
    bool algorithms;   /* offer SHA-256 before MD5, in the nonce and by PASSWORD-ALGORITHMS */
    bool anonymity;    /* offer USERHASH: only where users can be found by it */
};

struct stun_auth {
    enum stun_mac mac;       /* that the request carries */
    enum stun_mac reply_mac; /* for every response but 401 and 438 (§9.2.4) */
    enum stun_alg alg;       /* whose key */
    struct bytes username;   /* n == 0 with a userhash; as it came: any bytes, STUN_USERNAME_MAX */
    struct bytes userhash;   /* n == 0, or STUN_USERHASH_BYTES */
    bool realm_ok;           /* stun_auth_verify looks */
};

/* What can be said before anybody looks for the user: 401 without credentials; 400 where a part of
 * them is missing or malformed, or PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS are not both what we
 * offered, which is what a man in the middle would bid down; 438 by the nonce. 0: find the key of
 * a->username or a->userhash for a->alg, then stun_auth_verify. The nonce comes before the user,
 * unlike §9.2.4: it costs less, and only who received our 401 gets past it. */
unsigned stun_auth_begin(const struct stun_realm *r, const struct stun_msg *m, uint64_t now_ms,
                         const struct netaddr *src, struct stun_auth *a);
/* 0 or 401. `key` may be NULL, for a user whom nobody knows: that takes the same time. */
unsigned stun_auth_verify(const struct stun_msg *m, const struct stun_auth *a,
                          const struct stun_key *key);
/* What a 401 or 438 carries besides its number: REALM, NONCE, and PASSWORD-ALGORITHMS if offered.
 */
void stun_put_challenge(struct stun_build *b, const struct stun_realm *r, uint64_t now_ms,
                        const struct netaddr *src);
/* Client's side: the list of PASSWORD-ALGORITHMS that servers of ours send. */
extern const uint8_t stun_algorithms[8];

/* ---- ephemeral credentials (turn.md §8.3) -------------------------------------------------- */

enum {
    STUN_SECRETS_MAX = 8,
    STUN_PASSWORD_MAX = 44, /* base64 of 32 bytes */
};
struct stun_secrets {
    const struct bytes *secret; /* the first signs, all verify */
    size_t count;               /* at most STUN_SECRETS_MAX */
    uint8_t separator;          /* ':' where nobody says otherwise */
    bool id_first;              /* "alice:1700000000" too */
    bool sha256;                /* passwords by HMAC-SHA256 too */
    uint64_t ahead_max_s;       /* refuse later expiries, as a leaked credential has; 0: no bound */
};
struct stun_ephemeral {
    uint64_t expires_unix_s;
    struct bytes id; /* quotas are by this; n == 0 for a bare timestamp */
};
/* Is it a timestamp with or without an id? false: some other username. */
bool stun_ephemeral_read(const struct stun_secrets *s, struct bytes username,
                         struct stun_ephemeral *out);
bool stun_ephemeral_alive(const struct stun_secrets *s, const struct stun_ephemeral *e,
                          uint64_t now_unix_s); /* through its last second */
/* base64(HMAC(secret, username)), padded: 28 or 44 characters. */
size_t stun_ephemeral_password(enum stun_mac mac, struct bytes secret, struct bytes username,
                               uint8_t out[STUN_PASSWORD_MAX]);
/* Tries every secret, and gives the key that the allocation keeps. Expiry is the caller's question,
 * after this one: an old name with a wrong password must look like any wrong password. 0 or 401. */
unsigned stun_ephemeral_verify(const struct stun_secrets *s, const struct stun_realm *r,
                               const struct stun_msg *m, const struct stun_auth *a,
                               struct stun_key *key);

#endif
