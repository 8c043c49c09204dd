/* tests/sim/sim_turn.h: TURN's clients and peers as a test moves them, over the datagrams of
 * sim_net.h. A client keeps to RFC 8656: it authenticates, retransmits, and knows for how long at
 * least, and at most, what it asked for is there; it asks one thing at a time.
 *
 * Whatever is carried proves itself: it names the life (one allocation, as its client sees it), the
 * peer, its place in the order, when it left and by which way, under a checksum. It must arrive at
 * that peer from that life's relayed address, or at that client as from that peer; only while there
 * may be a permission (and a channel, if it went by one); in order and once where the network does
 * neither reorder nor double; and at all where nothing is lost and the client was sure. */
#ifndef SLUICE_TESTS_SIM_TURN_H
#define SLUICE_TESTS_SIM_TURN_H

#include "proto/turn.h"
#include "tests/sim/sim.h"

enum {
    SIM_TURN_PEERS = 10,
    SIM_TURN_CLIENTS = 32,
    SIM_TURN_USERS = 3,
    SIM_TURN_ENDS = 8,         /* 5-tuples of one life */
    SIM_TURN_SLACK_MS = 1000,  /* for what was under way */
    SIM_TURN_PAYLOAD_MIN = 40, /* what a proof needs */
    SIM_TURN_RTO_MS = 250,
    SIM_TURN_TRIES = 6,
    SIM_TURN_TCP_MS = 15000, /* for an answer on a stream */
};

struct sim_turn;
struct sim_turn_client;

/* What a client asks for; what does not belong to the method is not looked at. */
struct sim_turn_ask {
    enum stun_method method;
    unsigned peer[3], peers_n;
    uint16_t number;    /* CHANNEL-NUMBER */
    int32_t lifetime_s; /* -1: no LIFETIME */
    uint8_t family;     /* 0: none asked for; 1, 2; 3: ADDITIONAL-ADDRESS-FAMILY */
    bool even, reserve;
    bool relays_tcp; /* REQUESTED-TRANSPORT 6 (RFC 6062) */
    uint32_t conn;   /* CONNECTION-ID */
    bool mobile;     /* an empty MOBILITY-TICKET */
    bool resume;     /* a Refresh with the ticket of the life */
    bool has_token;
    uint8_t token[TURN_TOKEN];
};

enum { TURN_ASKING = 0, TURN_OK = 200, TURN_TIMEOUT = 1 }; /* sim_turn_client.code; else an error */

struct sim_turn_end { /* a client's socket */
    int ep;
    struct netaddr at;
    struct sim_turn_client *client;
    bool open;
    struct sim_turn_wire *wire; /* of a stream; NULL: datagrams */
    bool raw;                   /* its ConnectionBind was answered: what comes is the peer's */
    void (*on_raw)(struct sim_turn_end *e, struct bytes in);
    void (*on_asked)(struct sim_turn_end *e); /* a ConnectionBind that must succeed has left */
    void *arg;
};

/* What a life has with a peer. */
struct sim_turn_link {
    uint64_t perm_tx_ms; /* when the last request that may have installed it left; 0: never */
    uint64_t perm_ok_ms; /* it is there at least until then */
    uint64_t chan_tx_ms, chan_ok_ms;
    uint16_t number;
    uint32_t out_seq, in_seq;           /* next to be sent, by the client and by the peer */
    uint32_t out_seen, in_seen;         /* the last that arrived, + 1 */
    uint32_t out_epoch, in_epoch;       /* in which that was */
    uint32_t out_sure, in_sure;         /* that must arrive, */
    uint32_t out_sure_got, in_sure_got; /* and have */
};

struct sim_turn_life {
    uint32_t id;
    struct sim_turn_client *client;
    bool has[TURN_FAMILIES], mobile, over, ending;
    struct netaddr relayed[TURN_FAMILIES];
    uint8_t tid[STUN_TID];
    uint8_t ticket[TURN_TICKET];
    uint64_t tx_ms; /* when the last request left that may have kept it */
    uint64_t ok_ms; /* it lives at least until then */
    uint64_t lifetime_max_ms;
    uint32_t epoch;     /* one for each 5-tuple that it had */
    uint64_t moving_ms; /* when it last asked to move, or was told that it has */
    const struct sim_turn_end *end[SIM_TURN_ENDS];
    unsigned ends_n;
    struct sim_turn_link link[SIM_TURN_PEERS];
};

struct sim_turn_client {
    struct sim_turn *t;
    unsigned idx, user;
    bool sha256, fingerprint, tcp;
    struct netaddr server;
    struct sim_turn_end *at;    /* where it is */
    struct sim_turn_life *life; /* NULL: none */
    uint8_t nonce[STUN_NONCE_MAX];
    size_t nonce_n;
    bool keeps;   /* it refreshes by itself */
    bool garbled; /* it has sent damaged copies of its requests: their answers prove nothing */
    bool settled; /* for who asks: he has looked at what became of it */
    bool quiet;   /* it is about to move or to end, and sure of nothing */

    struct sim_turn_ask ask;
    struct sim_turn_end *ask_at; /* where that goes from */
    int code;                    /* of the last one */
    uint8_t tid[STUN_TID], request[1024];
    size_t request_n;
    unsigned tries, challenges;
    uint64_t first_ms, next_ms;
    bool got_token;
    uint8_t token[TURN_TOKEN];
    uint32_t conn, attempt; /* CONNECTION-IDs: of its last Connect, of the last ConnectionAttempt */
    struct netaddr attempt_peer;
    uint64_t answers, repeats, indications, channel_data, icmp; /* seen */
};

struct sim_turn_peer {
    int ep;
    struct netaddr at;
    bool open;
    unsigned echo_pct;
    uint64_t got, empty;
};

struct sim_turn {
    struct sim *s;
    bool exact; /* nothing is lost, doubled or late on the network */
    bool ordered, once;
    bool faithful; /* nobody gives the server a reason to close a stream */
    struct sim_turn_peer peer[SIM_TURN_PEERS];
    unsigned peers_n;
    struct sim_turn_client client[SIM_TURN_CLIENTS];
    unsigned clients_n;
    struct sim_turn_end **ends;
    size_t ends_n, ends_cap;
    struct sim_turn_life **lives;
    size_t lives_n, lives_cap;
    uint16_t next_port;
    void (*on_look)(struct sim_turn *t); /* at each step, too */
    void *arg;
    uint64_t carried_out, carried_in;
};

extern const char *const sim_turn_users[SIM_TURN_USERS][2]; /* name, password */
extern const struct netaddr sim_turn_server, sim_turn_server6;

/* The TURN door open, users and a few ports. */
void sim_turn_config(struct config *c, uint16_t ports);

/* Looks at every step of the simulation from now on. */
void sim_turn_init(struct sim_turn *t, struct sim *s, const struct sim_opts *net);
void sim_turn_fini(struct sim_turn *t);
/* Next to be done at: for alarms. */
void sim_turn_look(struct sim_turn *t);

/* A peer on 8.8.`host`.1, or on 2400::`host`. */
unsigned sim_turn_peer(struct sim_turn *t, unsigned host, uint16_t port, bool v6);
/* Gone, or there again: what is sent to it meanwhile is answered by ICMP. */
void sim_turn_peer_open(struct sim_turn *t, unsigned peer, bool open);
/* A socket, or a connection, that lands on that shard; -1: on any. */
struct sim_turn_end *sim_turn_end(struct sim_turn_client *c, int shard);
void sim_turn_end_close(struct sim_turn_end *e);
struct sim_turn_client *sim_turn_client(struct sim_turn *t, unsigned user, int shard);

static inline bool sim_turn_asking(const struct sim_turn_client *c)
{
    return c->code == TURN_ASKING;
}
/* From `at`, or from where it is (NULL). The answer: c->code. */
void sim_turn_do(struct sim_turn_client *c, const struct sim_turn_ask *ask,
                 struct sim_turn_end *at);
/* Any bytes, as one datagram or padded to four. */
void sim_turn_emit(struct sim_turn_end *e, const void *p, size_t n);
/* On a stream, as they are. How many were taken. */
size_t sim_turn_emit_raw(struct sim_turn_end *e, const void *p, size_t n);
void sim_turn_repeat(struct sim_turn_client *c); /* the same bytes once more */
/* It is of no more use to its client. */
void sim_turn_over(struct sim_turn_client *c);

enum { BY_SEND, BY_CHANNEL };
/* A train of n datagrams of so many bytes of payload; `last` of the last one. */
void sim_turn_send(struct sim_turn_client *c, unsigned peer, int by, unsigned n, size_t bytes,
                   size_t last);
/* From a peer to the relayed address of a life, whether it may or not. */
void sim_turn_peer_send(struct sim_turn *t, unsigned peer, struct sim_turn_life *l, unsigned n,
                        size_t bytes, size_t last);
/* Everything that had to arrive has: some time after the last of it left. */
void sim_turn_check_sure(struct sim_turn *t);

/* sim_check_turn.c: the balances of the engine's TURN server, at any time and at its end. */
void sim_check_turn(struct sim *s);
void sim_check_turn_ended(struct sim *s);

#endif
