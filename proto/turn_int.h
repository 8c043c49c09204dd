/* proto/turn_int.h: what the files of the TURN machine share, and nobody else. */
#ifndef SLUICE_PROTO_TURN_INT_H
#define SLUICE_PROTO_TURN_INT_H

#include "proto/turn.h"

struct turn_perm { /* by IP; the port does not count (RFC 8656 §9) */
    struct link by_expiry, of_alloc;
    struct turn_perm *next_in_bucket;
    struct turn_alloc *alloc;
    uint64_t expires_ms;
    uint8_t ip[16];
};

struct turn_chan {
    struct link by_expiry, of_alloc;
    struct turn_chan *next_by_number, *next_by_peer;
    struct turn_alloc *alloc;
    uint64_t expires_ms;
    struct netaddr peer;
    uint16_t number;
};

struct turn_seal {
    enum stun_mac mac;
    struct stun_key key;
    bool fingerprint;
};

/* What a MOBILITY-TICKET of ours says. */
struct turn_ticket {
    bool ours; /* by its MAC: of this machine or of one that shares its key */
    uint16_t shard;
    struct turn_alloc *alloc; /* here and alive, or NULL */
    uint32_t serial;
};

/* One authenticated request on its way through. */
struct turn_req {
    struct turn *t;
    struct turn_now now;
    const struct turn_tuple *tuple;
    const struct stun_msg *m;
    struct turn_out *out;
    struct stun_auth auth;
    struct turn_seal seal;
    uint8_t owner[TURN_OWNER];
    struct turn_alloc *alloc; /* of the 5-tuple, or NULL */
    struct bytes quota;
    bool resuming; /* a Refresh by ticket */
    bool again;    /* and one that was answered before */
    struct turn_ticket ticket;
    struct turn_conn *conn; /* of a ConnectionBind, or NULL */
    const struct turn_alloc
        *keyed; /* whose key may be tried before anybody is looked up; or NULL */
};

static inline bool turn_is_there(const struct stun_msg *m, enum stun_attr a) /* broken or not */
{
    return stun_has(m, a) || stun_is_broken(m, a);
}

enum turn_family turn_family_of(const struct netaddr *a);

/* Tables. A find gives live entries only: what expired is nobody's, swept or not. */
struct turn_alloc *turn_alloc_new(struct turn *t, const struct turn_tuple *tuple); /* NULL: full */
void turn_alloc_free(struct turn *t, struct turn_alloc *a);
void turn_seat_take(struct turn *t, struct turn_seat *s, struct turn_alloc *a,
                    const struct turn_tuple *tuple);
void turn_seat_leave(struct turn *t, struct turn_seat *s); /* nothing for a free one */
void turn_heap_set(struct turn *t, struct turn_alloc *a);  /* after a half's expiry changed */
struct turn_perm *turn_perm_find(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                 const uint8_t ip[16]);
bool turn_perm_room(const struct turn *t, const struct turn_alloc *a, size_t more);
void turn_perm_put(struct turn *t, uint64_t now_ms, struct turn_alloc *a, const uint8_t ip[16]);
void turn_perm_undo(struct turn *t, struct turn_alloc *a, size_t n); /* the n newest of them */
struct turn_chan *turn_chan_by_number(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                      uint16_t number);
struct turn_chan *turn_chan_by_peer(struct turn *t, uint64_t now_ms, const struct turn_alloc *a,
                                    const struct netaddr *peer);
bool turn_chan_room(const struct turn *t, const struct turn_alloc *a);
void turn_chan_put(struct turn *t, uint64_t now_ms, struct turn_alloc *a, uint16_t number,
                   const struct netaddr *peer);
void turn_sweep(struct turn *t, uint64_t now_ms); /* permissions and channels */
void turn_half_end(struct turn *t, struct turn_alloc *a, enum turn_family f, struct turn_out *out);

/* turn_req.c: an authenticated method of TURN. */
void turn_on_request(struct turn *t, struct turn_now now, const struct turn_tuple *tuple,
                     const struct stun_msg *m, struct turn_out *out);

/* turn_mobile.c: RFC 8016. */
void turn_ticket_read(struct turn *t, struct bytes value, struct turn_ticket *out);
void turn_ticket_put(const struct turn *t, const struct turn_alloc *a, struct stun_build *b);
unsigned turn_resume_judge(struct turn_req *r); /* 405, 437, 441, or 0: r->alloc is the ticket's */
void turn_resume(struct turn_req *r);           /* the ticket is spent, and the client here */
/* Heard from an authenticated client, or with data that passes: if that was on its new path, then
 * the old one ends. */
void turn_heard(struct turn *t, const struct turn_tuple *tuple, struct turn_alloc *a,
                struct turn_out *out);
void turn_move_end(struct turn *t, struct turn_alloc *a, struct turn_out *out);

/* turn_id.c. Any number has a shard. */
enum { TURN_ID_COUNT_BITS = 24 };
void turn_id_init(struct turn *t);
uint32_t turn_id_make(struct turn *t);
uint16_t turn_id_shard(const struct turn *t, uint32_t id);
uint16_t turn_token_shard(const struct turn *t, struct bytes token);

/* turn_tcp.c: RFC 6062. */
void turn_conns_init(struct turn *t, struct turn_conn *conns);
void turn_conns_end(struct turn *t, struct turn_alloc *a, bool v4, bool v6);
bool turn_conns_expire(struct turn *t, uint64_t now_ms, struct turn_out *out);
struct turn_conn *turn_conn_find(struct turn *t, uint32_t id); /* NULL: nobody's, or ended */
void turn_on_connect(struct turn_req *r);
void turn_on_connection_bind(struct turn_req *r);
/* 443, 403 or 0. */
unsigned turn_judge_peer(const struct turn_req *r, const struct stun_addr *peer);

/* turn_binding.c */
void turn_on_binding(const struct turn *t, const struct turn_tuple *tuple, const struct stun_msg *m,
                     struct turn_out *out);
/* By the header alone (dig.md §11). false: it is for turn_on_binding, or for nobody. */
bool turn_on_binding_dig(const struct turn_tuple *tuple, struct bytes in, struct turn_out *out);

void turn_reply_begin(struct turn_out *out, struct stun_build *b, uint16_t type,
                      const uint8_t id[STUN_ID]);
void turn_reply_end(struct turn_out *out, struct stun_build *b, const struct turn_seal *seal);
void turn_reply_unknown(struct turn_out *out, const struct stun_msg *m, const uint16_t *types,
                        size_t n, const struct turn_seal *seal);
uint64_t turn_supported(const struct turn *t); /* a set of STUN_BIT */
void turn_reply_error(struct turn_out *out, const struct stun_msg *m, unsigned code,
                      const struct turn_seal *seal);

#endif
