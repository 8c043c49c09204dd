/* proto/dusk.h: the CBOR messages of /dusk/directory/1.0.0, /dusk/turn-credentials/1.0.0 and
 * /dusk/gif/1.0.0, and the rules about what stands in them (dusk.md §6 to §9). One bare CBOR value
 * each way and no length before it: an end of stream is the end of the message. Pure and reentrant.
 *
 * Shapes:  texts borrow from what was decoded; those that came in pieces (indefinite length) are
 *          joined in `room`, which the caller gives and which must live as long. A text in pieces
 *          is longer on the wire than joined, so room for as many bytes as came is always enough;
 *          with less, a message whose joined texts do not fit is refused. All texts are UTF-8.
 * Units:   bytes; unix seconds.
 * Errors:  false means that the stream ends without an answer (§6). Taken are keys in any order,
 *          unknown keys with any value, indefinite lengths, integers of any width, bytes behind the
 *          message. Not taken: a field missing, twice, or of another type; text that is not UTF-8;
 *          an unknown variant; nesting or items beyond the bounds below.
 *          What a decoder of replies leaves behind then is of no use.
 *          Encoders (put) set w->bad when the room is too small. */
#ifndef SLUICE_PROTO_DUSK_H
#define SLUICE_PROTO_DUSK_H

#include "proto/cur.h"
#include "proto/maddr.h"
#include "proto/peer.h"

#define DUSK_DIRECTORY_PROTOCOL "/dusk/directory/1.0.0"
#define DUSK_CREDENTIALS_PROTOCOL "/dusk/turn-credentials/1.0.0"
#define DUSK_GIF_PROTOCOL "/dusk/gif/1.0.0"

enum {
    DUSK_REQUEST_MAX = 1 << 20, /* of one exchange, either protocol (§6) */
    DUSK_REPLY_MAX = 10 << 20,  /* what a client reads */
    DUSK_EXCHANGE_MS = 15000,   /* read, answer and write */
    DUSK_EXCHANGES_MAX = 100,   /* at a time on one connection */
    DUSK_DEPTH_MAX = 256,       /* nesting of a value that is skipped */
    DUSK_ITEMS_MAX = 16384,     /* CBOR items in one message: work, not size, is what costs */
    DUSK_NAME_CHARS_MAX = 64,
    DUSK_NAME_MAX = 4 * DUSK_NAME_CHARS_MAX,
    DUSK_PADDED_MAX = 16384, /* a name or query with white space around it: no more is looked at */
    DUSK_ADDR_MAX = MADDR_TEXT_MAX - 1, /* relay_addr that is kept */
    DUSK_RESULTS_MAX = 20,              /* profiles in a reply (§7) */
    DUSK_CRED_TTL_S = 86400,
    DUSK_URIS_MAX = 8, /* in a reply that is read; we write two */
    DUSK_URI_HOST_MAX = 253,
    DUSK_CRED_ROOM = 1024, /* enough for dusk_cred_make */
    DUSK_GIFS_MAX = 50,    /* in a reply (§9) */
};

/* ---- directory (§7) ------------------------------------------------------------------------- */

enum dusk_dir_call { DUSK_DIR_REGISTER, DUSK_DIR_SEARCH, DUSK_DIR_REMOVE };

struct dusk_dir_req {
    enum dusk_dir_call call;
    struct bytes display_name; /* Register: as it came, see dusk_name_check */
    struct bytes relay_addr;   /* Register: as it came ("" if absent), see dusk_relay_addr_ok */
    struct bytes query;        /* Search: as it came, see dusk_query_check */
};
MUST_USE bool dusk_dir_req_decode(struct bytes in, struct wcur *room, struct dusk_dir_req *r);
void dusk_dir_req_put(struct wcur *w, const struct dusk_dir_req *r);

struct dusk_profile {
    struct bytes peer_id; /* text, base58 */
    struct bytes display_name;
    uint64_t last_seen_unix_s;
    struct bytes relay_addr;
};
enum {
    /* The longest Results of names and addresses that were checked: heads, keys and values. */
    DUSK_PROFILE_PUT_MAX = 1 + (8 + 2 + PEER_TEXT_MAX) + (13 + 3 + DUSK_NAME_MAX) + (10 + 9) +
                           (11 + 3 + DUSK_ADDR_MAX),
    DUSK_RESULTS_PUT_MAX = 16 + DUSK_RESULTS_MAX * DUSK_PROFILE_PUT_MAX,
};
void dusk_dir_put_ok(struct wcur *w);
void dusk_dir_put_error(struct wcur *w, struct bytes text);
/* Results([…]): the head, then n profiles by dusk_dir_put_profile. */
void dusk_dir_put_results(struct wcur *w, size_t n);
void dusk_dir_put_profile(struct wcur *w, const struct dusk_profile *p);

enum dusk_dir_answer { DUSK_DIR_OK, DUSK_DIR_RESULTS, DUSK_DIR_ERROR };

struct dusk_dir_reply {
    enum dusk_dir_answer answer;
    struct bytes error; /* Error only */
    size_t results_n;   /* Results only; more than DUSK_RESULTS_MAX are refused */
    struct dusk_profile results[DUSK_RESULTS_MAX];
};
MUST_USE bool dusk_dir_reply_decode(struct bytes in, struct wcur *room, struct dusk_dir_reply *r);

/* What Error says of a name that is refused, and what stands before the cause when the store
 * refused one (R1's words). */
#define DUSK_NAME_REFUSED "display_name must be 1-64 characters"
#define DUSK_REGISTER_FAILED "registration failed: "

/* Without Unicode white space at both ends, as Rust's trim has it. `text` is UTF-8. */
struct bytes dusk_trim(struct bytes text);
/* Gives the name as it is kept: trimmed, a view into `text`. false: empty, longer than
 * DUSK_PADDED_MAX before or DUSK_NAME_CHARS_MAX code points after that (dusk.md §7 counts what the
 * message promises; the original counts bytes), or with a control character inside (U+0000..1F,
 * 7F..9F). */
MUST_USE bool dusk_name_check(struct bytes text, struct bytes *name);
/* Gives the trimmed query. false: nobody can match: it is empty (which the original answers with
 * the 20 newest, an invitation to list everybody) or longer than any name or peer id. */
MUST_USE bool dusk_query_check(struct bytes text, struct bytes *query);
/* Is relay_addr a multiaddr that ends in /p2p/<relay>/p2p-circuit/p2p/<caller>? Everybody who finds
 * the caller dials it (§7), so that any other is kept as "". */
MUST_USE bool dusk_relay_addr_ok(struct bytes text, const struct peer_id *relay,
                                 const struct peer_id *caller);

/* ---- TURN credentials (§8) ------------------------------------------------------------------ */

struct dusk_cred_req {
    struct bytes peer_id; /* as it came: anybody can write anybody's, so nothing is done with it */
};
MUST_USE bool dusk_cred_req_decode(struct bytes in, struct wcur *room, struct dusk_cred_req *r);
void dusk_cred_req_put(struct wcur *w, const struct dusk_cred_req *r);

struct dusk_cred {
    struct bytes username, password;
    uint64_t ttl_s;
    size_t uris_n; /* more than DUSK_URIS_MAX are refused */
    struct bytes uris[DUSK_URIS_MAX];
};
void dusk_cred_put(struct wcur *w, const struct dusk_cred *c);
MUST_USE bool dusk_cred_decode(struct bytes in, struct wcur *room, struct dusk_cred *c);

struct dusk_cred_ask {
    struct bytes secret; /* the one that the TURN server signs with */
    uint64_t now_unix_s;
    const struct peer_id *peer; /* the authenticated peer of the connection */
    struct bytes host;          /* a DNS name, IPv4, or IPv6 with or without brackets */
    uint16_t udp_port, tcp_port;
};
/* May `host` stand in a URI that a browser takes? If not, the protocol is not offered (§8): a list
 * that it cannot read makes its voice call fail, an `na` does not. */
MUST_USE bool dusk_cred_host_ok(struct bytes host);
/* Writes the texts of *out into room, of which DUSK_CRED_ROOM bytes are enough. The host is a good
 * one, the secret not empty, the ports not 0. The caller wipes room. */
void dusk_cred_make(const struct dusk_cred_ask *ask, struct wcur *room, struct dusk_cred *out);

/* ---- gif (§9) ------------------------------------------------------------------------------- */

struct dusk_gif_req {
    struct bytes kind, query; /* kind is "search", "trending", or whatever a peer wrote */
    uint32_t limit;
};
MUST_USE bool dusk_gif_req_decode(struct bytes in, struct wcur *room, struct dusk_gif_req *r);
void dusk_gif_req_put(struct wcur *w, const struct dusk_gif_req *r);

struct dusk_gif {
    struct bytes id, title, url, preview;
    uint32_t dims[2];
};
#define DUSK_GIF_EMPTY_PUT 10 /* bytes of a reply without results */
/* {results: […]}: the head, then n entries by dusk_gif_put. */
void dusk_gif_put_results(struct wcur *w, size_t n);
void dusk_gif_put(struct wcur *w, const struct dusk_gif *g);

struct dusk_gif_reply {
    size_t results_n; /* more than DUSK_GIFS_MAX are refused */
    struct dusk_gif results[DUSK_GIFS_MAX];
};
MUST_USE bool dusk_gif_reply_decode(struct bytes in, struct wcur *room, struct dusk_gif_reply *r);

#endif
