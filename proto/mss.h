/* proto/mss.h: multistream-select 1.0, both roles (libp2p.md §3). Pure and reentrant.
 * Bytes may come in any split. The machine never reads past the negotiation: what follows the
 * agreed name stays with the caller.
 * Bounds: frames of MSS_FRAME_MAX bytes, MSS_TRIES_MAX refused names. The caller owns the clock. */
#ifndef SLUICE_PROTO_MSS_H
#define SLUICE_PROTO_MSS_H

#include "proto/cur.h"

enum {
    MSS_FRAME_MAX = 1024, /* text and newline, without the length prefix */
    MSS_TRIES_MAX = 12,
    MSS_NAME_MAX = 96, /* longest name that we serve or ask for */
};

#define MSS_HEADER "/multistream/1.0.0"

/* One offered protocol; id is the caller's. Names start with '/'. */
struct mss_proto {
    const char *name;
    int id;
};

enum mss_res {
    MSS_MORE,   /* all of the input that could be used was used; feed more */
    MSS_AGREED, /* *id is set; the rest of the input belongs to the protocol */
    MSS_FAILED, /* malformed, too long, too many tries, or (dialer) refused with na */
};

/* Listener: per-negotiation state only, small because every stream has one while it negotiates.
 * A frame that is not whole is NOT kept here: mss_listen consumes only whole frames, and the caller
 * presents the unconsumed tail again with more bytes behind it (at most MSS_FRAME_MAX + 2). */
struct mss_listen {
    bool header_seen;
    uint8_t tries;
};

/* Reads frames from the front of *in, advancing it past what was consumed; replies (header echo,
 * name echo, na, ls list) are appended to `out`, which needs MSS_REPLY_MAX bytes of room per call —
 * w->bad on overflow ends in MSS_FAILED. `protos` ends with a NULL name; all its names together fit
 * one frame (ASSERT, for ls). On MSS_FAILED `out` may hold answers to what came before the bad
 * frame, say the `na` for a name whose optimistic payload followed it: they are still worth
 * sending ahead of the close. Refused names and ls count alike towards MSS_TRIES_MAX. */
enum { MSS_REPLY_MAX = 2048 };
enum mss_res mss_listen_feed(struct mss_listen *m, const struct mss_proto *protos, struct cur *in,
                             struct wcur *out, int *id);

/* Dialer for one protocol: write mss_dial_hello (header and name in one go), then feed the answer.
 */
struct mss_dial {
    bool header_seen;
};
void mss_dial_hello(struct wcur *out, const char *name);
enum mss_res mss_dial_feed(struct mss_dial *m, const char *name, struct cur *in);

/* One frame: lp(text || '\n'). */
void mss_put(struct wcur *out, const char *text);

#endif
