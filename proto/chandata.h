/* proto/chandata.h: TURN ChannelData (RFC 8656 §12), the first byte that tells protocols apart (RFC
 * 7983, RFC 9443), and the framing of STUN and ChannelData on a stream. Pure and reentrant. Shapes:
 * data borrows from the decoded buffer and dies with it. Units:   lengths in bytes, without header
 * or padding; channels in CHAN_MIN..CHAN_MAX, or up to CHAN_COMPAT_MAX for clients of RFC 5766.
 * Errors:  of chandata_decode: "not a whole ChannelData", which the caller drops silently. */
#ifndef SLUICE_PROTO_CHANDATA_H
#define SLUICE_PROTO_CHANDATA_H

#include "proto/cur.h"

enum {
    CHAN_HEADER = 4,
    CHAN_MIN = 0x4000,
    CHAN_MAX = 0x4fff,
    CHAN_COMPAT_MAX = 0x7fff,
    FRAME_MAX = 65552, /* the longest unit of a stream: STUN with 65532 bytes of body; ChannelData
                          with 65535 bytes, header and padding is 65540 */
};

struct chandata {
    uint16_t channel;
    struct bytes data;
};

/* A tail behind the length is padding, legal even in a datagram (RFC 8656 §12.5). */
bool chandata_decode(struct bytes in, struct chandata *m);
void chandata_head(uint8_t out[CHAN_HEADER], uint16_t channel, uint16_t n);

/* On a stream a ChannelData is padded to four; in datagrams we send none (§12.5). */
static inline size_t chandata_padding(size_t n)
{
    return -n & 3;
}
void chandata_put(struct wcur *w, const struct chandata *m, bool stream);

/* ---- the first byte (turn.md §1) ----------------------------------------------------------- */

enum first_byte {
    FIRST_STUN,    /* 0x00..0x03 */
    FIRST_ZRTP,    /* 0x10..0x13 */
    FIRST_DTLS,    /* 0x14..0x3f */
    FIRST_CHANNEL, /* 0x40..0x4f; up to 0x7f for clients of RFC 5766, if the caller wants them */
    FIRST_QUIC,    /* 0x50..0x7f (short header), 0xc0..0xff (long) */
    FIRST_RTP,     /* 0x80..0xbf */
    FIRST_NOTHING, /* 0x04..0x0f */
};
enum first_byte first_byte(uint8_t b, bool compat_channels);

/* A new TCP connection tells by its first bytes what it is; a header of the PROXY protocol is only
 * believed on listeners made for it, so it is a stranger here as any other. */
enum stream_kind {
    STREAM_MORE, /* nothing has come yet */
    STREAM_TURN, /* STUN or ChannelData */
    STREAM_TLS,  /* a record with a handshake, 0x16 */
    STREAM_OTHER /* HTTP, PROXY and all else: close */
};
enum stream_kind stream_kind(struct bytes in);

/* ---- framing of a stream (RFC 8656 §12.5; RFC 8489 §6.2.2) --------------------------------- */

enum frame {
    FRAME_MORE,     /* it needs more bytes */
    FRAME_STUN,     /* one whole message */
    FRAME_CHANNEL,  /* one whole ChannelData, its padding behind it */
    FRAME_BAD,      /* the first two bits are 10 or 11: close */
    FRAME_TOO_LONG, /* longer than the bound: close */
};
/* Takes one unit off the front of *in. FRAME_MORE takes nothing; *need is then the size of the
 * whole unit, or of its header as long as that is not there. `max` is at most FRAME_MAX. */
enum frame frame_take(struct cur *in, size_t max, struct bytes *unit, size_t *need);

/* The same over input that comes in pieces: what is incomplete is kept in the caller's `buf` of
 * `cap` bytes, which is the bound; all else is taken in place. */
struct frame_carry {
    uint8_t *buf; /* keeps */
    size_t cap, n;
    bool shown; /* what lies in buf was given by the last call */
};
void frame_init(struct frame_carry *f, uint8_t *buf, size_t cap);
/* Until FRAME_MORE, which has consumed *in. `unit` borrows from *in or from buf, until the next
 * call. After FRAME_BAD and FRAME_TOO_LONG there is no going on. */
enum frame frame_next(struct frame_carry *f, struct cur *in, struct bytes *unit);

#endif
