/* proto/noise.h: Noise_XX_25519_ChaChaPoly_SHA256 as libp2p uses it, both roles, with the
 * stream_muxers extension (libp2p.md §4, §21; libp2p specs: noise). Pure: the ephemeral key is
 * handed in. Messages here are without the 2-byte length frame.
 * Errors: NOISE_FAILED for anything wrong; the caller closes the socket silently. */
#ifndef SLUICE_PROTO_NOISE_H
#define SLUICE_PROTO_NOISE_H

#include "proto/crypto.h"
#include "proto/cur.h"
#include "proto/peer.h"

enum {
    NOISE_FRAME_HEAD = 2,
    NOISE_MSG_MAX = 65535,
    NOISE_PLAIN_MAX = 65519,
    NOISE_HANDSHAKE_MAX =
        4096, /* longest handshake message we accept: RSA-8192 key and signature fit */
    NOISE_PAYLOAD_MAX = 256, /* ours, Ed25519 */
    NOISE_MUXER_MAX = 64,
};

/* Once per process, const afterwards: the static X25519 key and the payload that carries its
 * signature, so that a handshake costs no signature of ours. `keeps` nothing. */
struct noise_ident {
    uint8_t sk[32], pk[32];
    uint8_t
        payload[NOISE_PAYLOAD_MAX]; /* NoiseHandshakePayload with stream_muxers [/yamux/1.0.0] */
    size_t payload_n;
};
void noise_ident_init(struct noise_ident *ni, const struct identity *me,
                      const uint8_t static_sk[32]);

enum noise_role { NOISE_INITIATOR, NOISE_RESPONDER };

struct noise {
    const struct noise_ident *ident; /* keeps */
    enum noise_role role;
    uint8_t step; /* messages seen so far in both directions: 0..3 */
    bool has_key;
    uint64_t n;
    uint8_t h[32], ck[32], k[32];
    uint8_t e_sk[32], e_pk[32], re[32], rs[32];
};

/* What the remote proved, valid after NOISE_DONE. */
struct noise_remote {
    struct peer_id id;
    enum key_type key_type;
    bool muxers_present; /* its payload carried a non-empty stream_muxers list */
    bool muxer_yamux;    /* ... with /yamux/1.0.0 in it: the muxer is settled without mss */
};

enum noise_res {
    NOISE_WRITE, /* our turn: call noise_write */
    NOISE_READ,  /* their turn */
    NOISE_DONE,  /* noise_split may be called; *remote is set */
    NOISE_FAILED,
};

void noise_init(struct noise *n, const struct noise_ident *ident, enum noise_role role,
                const uint8_t ephemeral_sk[32]);
/* Consumes one whole incoming message, at most NOISE_HANDSHAKE_MAX bytes; a payload in message 1 is
 * ignored. Calling out of turn is a fault of ours (ASSERT). After FAILED the state is wiped and
 * every call gives FAILED. remote is written when the message that carries the remote's
 * payload verifies (message 2 for the initiator, 3 for the responder). */
MUST_USE enum noise_res noise_read(struct noise *n, struct bytes msg, struct noise_remote *remote);
/* Writes our next message; w->bad when it does not fit (NOISE_PAYLOAD_MAX + 128 suffices). */
MUST_USE enum noise_res noise_write(struct noise *n, struct wcur *w);
/* After NOISE_DONE: record keys, counters at 0; wipes the handshake state. */
void noise_split(struct noise *n, struct aead_key *tx, struct aead_key *rx);

#endif
