/* proto/rdv.h: rendezvous, messages and rules (libp2p.md §13, dusk.md §5; libp2p specs:
 * rendezvous). Pure and reentrant. Protobuf by nanopb; messages are decoded whole, without their
 * length prefix, and every encoder writes the prefix. What is kept of a registration, and where, is
 * the store's. Shapes: views borrow from the decoded buffer. Units: ttl in seconds. Errors: an enum
 * rdv_status; RDV_SILENT is none of the wire's: the stream ends without an answer. */
#ifndef SLUICE_PROTO_RDV_H
#define SLUICE_PROTO_RDV_H

#include "proto/cur.h"
#include "proto/envelope.h"
#include "proto/peer.h"

#define RDV_PROTOCOL "/rendezvous/1.0.0"

enum {
    RDV_REQUEST_MAX = 64 * 1024, /* a request without its prefix; a longer one is not read */
    RDV_REPLY_MAX = 1024 * 1024, /* what rust reads; rdv_rules.reply_max stays below */
    RDV_NS_MAX = 255,
    RDV_COOKIE_ID = 8, /* 48 bits of sequence number, 16 of tag */
    RDV_COOKIE_MAX = RDV_COOKIE_ID + RDV_NS_MAX,
    RDV_RECORD_MAX = ENVELOPE_MAX,
    RDV_TEXT_MAX = 64, /* longest status text that we send */
};
#define RDV_SEQ_MAX ((UINT64_C(1) << 48) - 1) /* of registrations, as cookies carry it */

enum rdv_type {
    RDV_REGISTER = 0,
    RDV_REGISTER_REPLY = 1,
    RDV_UNREGISTER = 2,
    RDV_DISCOVER = 3,
    RDV_DISCOVER_REPLY = 4,
};

enum rdv_status {
    RDV_OK = 0,
    RDV_INVALID_NAMESPACE = 100,
    RDV_INVALID_RECORD = 101,
    RDV_INVALID_TTL = 102,
    RDV_INVALID_COOKIE = 103,
    RDV_NOT_AUTHORIZED = 200,
    RDV_INTERNAL_ERROR = 300,
    RDV_UNAVAILABLE = 400,
    RDV_SILENT = -1, /* no answer: the stream ends */
};

/* ---- rules ---------------------------------------------------------------------------------
 * Where dusk.md and libp2p.md disagree, and the bounds. Copied and adjusted by configuration. */
struct rdv_rules {
    uint32_t ttl_min_s, ttl_max_s, ttl_default_s;
    uint32_t per_peer_max; /* registrations of one peer; 0 = no limit, also below. Over: 400 */
    uint32_t per_ns_max;
    uint32_t total_max;
    uint32_t results_max; /* records in one DISCOVER reply */
    uint32_t reply_max;   /* bytes of one, prefix included; fewer records go out rather than more */
    bool zero_ttl_default;   /* an explicit ttl of 0 asks for the default (else 102) */
    bool empty_ns;           /* "" is a namespace like others (else 100) */
    bool discover_all;       /* DISCOVER without namespace lists them all (else 100) */
    bool remaining_ttl;      /* DISCOVER tells what is left of a ttl (else what was granted) */
    bool lower_seq_refused;  /* a record older than the one it replaces (else not compared) */
    bool rust_records;       /* only what rdv_rust_reads (else both domains, keys of every kind, and
                              * a bad address fails by itself, libp2p.md §1.3, §1.4) */
    bool unknown_cookie_103; /* (else such a cookie is a fresh start) */
    bool short_cookie_silent; /* below 8 bytes: undecodable (else 103, and an empty one is none) */
    bool own_peer_ns; /* dusk/peer/ID is for that peer (else anybody's; dusk.md §14). Over: 200 */
    bool status_text; /* refusals say a word of why */
};
extern const struct rdv_rules rdv_rules_default; /* libp2p.md §13 */
extern const struct rdv_rules rdv_rules_dusk;    /* dusk.md §5 */

/* ---- requests ------------------------------------------------------------------------------ */
struct rdv_msg {
    enum rdv_type type; /* REGISTER, UNREGISTER or DISCOVER */
    bool has_ns, has_ttl, has_limit, has_cookie;
    struct bytes ns;     /* not judged yet: any length, any bytes */
    struct bytes record; /* REGISTER: the signed envelope; n == 0: absent or empty */
    uint64_t ttl_s;
    uint64_t limit;
    struct bytes cookie;
};
/* false: longer than RDV_REQUEST_MAX, not protobuf, not a request, or without the part that its
 * type speaks of; *m is left alone. Such a request gets no answer (libp2p.md §13). */
bool rdv_request_decode(struct bytes in, struct rdv_msg *m);
void rdv_put_request(struct wcur *w, const struct rdv_msg *m); /* client role */

/* What a REGISTER that passed may store. */
struct rdv_register {
    struct bytes ns;
    struct bytes record; /* the envelope, verbatim: what DISCOVER hands out */
    uint32_t ttl_s;      /* granted */
    uint64_t seq;        /* of the peer record */
};
/* Will rust-libp2p 0.54 read it? One record that it does not makes its client drop the whole reply
 * and with it everybody else in that namespace; so any peer could empty a namespace for all. */
struct peer_record; /* proto/envelope.h */
bool rdv_rust_reads(const struct peer_record *record);
/* Judges in this order: namespace (100), record (101), whose it is (200), ttl (102). A signature is
 * verified, so this is the expensive call: about a handshake's share. */
enum rdv_status rdv_check_register(const struct rdv_rules *r, const struct rdv_msg *m,
                                   const struct peer_id *remote, struct rdv_register *out);
/* May a record of `seq` take the place of one of `stored`? Equal may (a refreshed one); a refusal
 * is RDV_INVALID_RECORD. */
static inline bool rdv_may_replace(const struct rdv_rules *r, uint64_t stored, uint64_t seq)
{
    return !r->lower_seq_refused || seq >= stored;
}
/* UNREGISTER has no answer: false is "nothing can be registered there". *ns borrows. */
bool rdv_check_unregister(const struct rdv_rules *r, const struct rdv_msg *m, struct bytes *ns);

struct rdv_query {
    bool all; /* every namespace; ns is empty */
    struct bytes ns;
    uint64_t after; /* only registrations with a sequence number past this; 0 = from the start */
    uint32_t limit; /* records; <= results_max, may be 0 */
};
/* RDV_OK, 100, 103 or RDV_SILENT. A cookie's tag is 16 bits: whoever knows the highest sequence
 * number given so far takes an `after` past it for an unknown cookie (see rdv_unknown_cookie). */
enum rdv_status rdv_check_discover(const struct rdv_rules *r, const struct rdv_msg *m,
                                   const uint8_t key[16], struct rdv_query *q);
/* What an unknown cookie leads to: 103, or RDV_OK after q->after was set to 0. */
enum rdv_status rdv_unknown_cookie(const struct rdv_rules *r, struct rdv_query *q);

/* The ttl that DISCOVER tells of a registration. */
static inline uint64_t rdv_shown_ttl(const struct rdv_rules *r, uint64_t granted_s,
                                     uint64_t expires_unix_s, uint64_t now_unix_s)
{
    if (!r->remaining_ttl)
        return granted_s;
    return expires_unix_s > now_unix_s ? expires_unix_s - now_unix_s : 0;
}

/* ---- cookies -------------------------------------------------------------------------------
 * Stateless: 6 bytes of the last sequence number handed out, 2 of a tag over it and the namespace
 * under a key that survives restarts, then the namespace; nothing behind the tag for `all`. */
enum rdv_cookie {
    RDV_COOKIE_OK,
    RDV_COOKIE_SHORT,    /* below 8 bytes */
    RDV_COOKIE_OTHER_NS, /* names another namespace than the request */
    RDV_COOKIE_UNKNOWN,  /* not of ours, or under another key */
};
/* seq <= RDV_SEQ_MAX, ns.n <= RDV_NS_MAX; returns the length. */
size_t rdv_cookie_make(const uint8_t key[16], uint64_t seq, bool all, struct bytes ns,
                       uint8_t out[RDV_COOKIE_MAX]);
enum rdv_cookie rdv_cookie_parse(const uint8_t key[16], struct bytes cookie, bool all,
                                 struct bytes ns, uint64_t *seq);

/* ---- replies -------------------------------------------------------------------------------
 * Zero values are on the wire: rust refuses an OK without its status, ttl or cookie (dusk.md §5).
 */

/* A word for the status text, n == 0 where the rules want none. Static. */
struct bytes rdv_status_text(const struct rdv_rules *r, enum rdv_status status);
/* RDV_OK: with ttl and without text; otherwise the other way round. text.n <= RDV_TEXT_MAX. */
void rdv_put_register_reply(struct wcur *w, enum rdv_status status, uint32_t ttl_s,
                            struct bytes text);
void rdv_put_discover_refusal(struct wcur *w, enum rdv_status status, struct bytes text);

/* A DISCOVER reply whose length is known last. Records are added until one does not fit; the
 * message then begins somewhere in the first RDV_PAGE_HEAD bytes of the buffer. */
enum {
    RDV_PAGE_HEAD = 9,                              /* two lengths, a type and a tag */
    RDV_PAGE_TAIL = 1 + 2 + RDV_COOKIE_MAX + 1 + 1, /* cookie and status */
    RDV_PAGE_MIN = RDV_PAGE_HEAD + RDV_PAGE_TAIL,   /* a page without records */
};
struct rdv_page {
    uint8_t *buf; /* keeps, until rdv_page_end */
    struct wcur w;
    uint32_t n; /* records */
};
/* RDV_PAGE_MIN <= cap; what is past RDV_REPLY_MAX - 1 is not used. */
void rdv_page_begin(struct rdv_page *p, void *buf, size_t cap);
/* false: no room, nothing written. */
bool rdv_page_put(struct rdv_page *p, struct bytes ns, struct bytes record, uint64_t ttl_s);
/* The whole message, within the buffer; status OK. cookie.n <= RDV_COOKIE_MAX. */
struct bytes rdv_page_end(struct rdv_page *p, struct bytes cookie);
/* Bytes that rdv_page_put takes. */
size_t rdv_page_cost(struct bytes ns, struct bytes record, uint64_t ttl_s);

/* Client role. Fields that were not there are zero; has_* tells for those whose zero counts. */
struct rdv_reply {
    enum rdv_type type; /* REGISTER_REPLY or DISCOVER_REPLY */
    bool has_status, has_ttl, has_cookie;
    enum rdv_status status;
    struct bytes text;
    uint64_t ttl_s;
    struct bytes cookie;
    struct bytes records; /* walk cur_of(records) with rdv_reply_next */
    uint32_t n;           /* how many there are */
};
/* false: longer than RDV_REPLY_MAX, malformed, or no reply. */
bool rdv_reply_decode(struct bytes in, struct rdv_reply *reply);
struct rdv_record {
    bool has_ns, has_ttl;
    struct bytes ns, record;
    uint64_t ttl_s;
};
bool rdv_reply_next(struct cur *rest, struct rdv_record *one); /* false at the end */

#endif
