/* tests/sim/sim_peer.h: libp2p clients on far ends of the simulated network: Noise initiator, yamux
 * dialer, hop and stop roles of circuit relay v2, and flows of bytes that prove themselves.
 *
 * A flow is one direction of one circuit: its first 8 bytes are a key that nobody else has, every
 * later byte is a function of key and position. So a byte that is lost, doubled, swapped or of
 * another circuit is seen where it arrives.
 *
 * Everything lives until sim_free: a test may keep pointers. */
#ifndef SLUICE_TESTS_SIM_PEER_H
#define SLUICE_TESTS_SIM_PEER_H

#include "proto/stop.h"
#include "tests/sim/sim.h"

struct sim_queue {
    uint8_t *p;
    size_t at, n, cap;
};

struct sim_ident {
    struct identity me;
    struct noise_ident noise;
};

enum sim_conn_state { SC_SECURITY, SC_NOISE, SC_MUXER, SC_UP, SC_CLOSED };

struct sim_conn {
    struct sim *s;
    struct sim_ident *ident;
    unsigned ident_idx;
    int ep;
    enum sim_conn_state state;
    const char *why; /* it closed */
    uint64_t closed_ms;
    bool excused;      /* whatever happens to it and its circuits is its own fault */
    bool deaf;         /* does not read its socket */
    bool no_stop;      /* answers STOP with na */
    size_t record_max; /* of plaintext, as it sends */
    bool go_away;      /* the relay said so */
    unsigned pongs;    /* of the muxer's pings */
    uint32_t pong;     /* the value of the last one */
    struct mss_dial mss;
    bool answers;  /* the relay has dialled it: Noise responder, yamux server */
    bool mute;     /* and never says a word */
    bool late_mux; /* and settles the muxer by multistream alone */
    struct noise_ident own;
    struct mss_listen listen;
    struct noise noise;
    struct noise_remote remote;
    struct aead_key tx, rx;
    struct yamux y;
    struct sim_queue in, plain_in, plain, out;
    struct sim_stream **streams;
    size_t streams_n, streams_cap;
};

enum sim_stream_kind {
    SS_INBOUND, /* negotiating */
    SS_RESERVE,
    SS_CONNECT,
    SS_STOP,
    SS_PING,
    SS_GOSSIP, /* the relay's, where somebody listens: s->on_gossip */
    SS_OTHER,  /* whatever comes is thrown away */
};

struct sim_stream {
    struct yamux_stream y;
    struct sim_conn *conn;
    bool live;
    enum sim_stream_kind kind;
    const char *name; /* asked for, as long as it is not agreed */
    struct mss_listen listen;
    struct mss_dial dial;
    struct sim_queue in;
    struct peer_id other; /* CONNECT: the target; STOP: the source */
    uint32_t consumed;
    bool greedy;  /* never reopens the window */
    bool stingy;  /* reopens it for every few bytes */
    bool excused; /* it ended, or did not go on, by our own will */
    bool joined;  /* a circuit */
    bool asked;   /* STOP: its CONNECT has come and has no answer yet */
    bool fin_seen, rst_seen, na_seen;
    enum hop_status status; /* 0: none yet */
    struct hop_msg reply;   /* its views are stale */
    uint64_t opened_ms, status_ms, ended_ms;
    struct sim_flow *tx, *rx;
    uint8_t rx_head[8];
    unsigned rx_head_n;
    uint64_t pongs; /* bytes of ping that came back */
};

struct sim_flow {
    uint64_t key;
    struct sim_stream *from, *to; /* to: NULL as long as nothing has arrived */
    uint64_t total, sent, got;    /* the 8 bytes of key included */
    size_t frame_max;
    bool fin; /* after the last byte */
    bool fin_sent, fin_got;
};

/* ident: 0..SIM_IDENTS_MAX-1, the same identity each time. shard -1: by the seed. NULL: refused. */
struct sim_conn *sim_dial(struct sim *s, unsigned ident, const struct netaddr *from, int shard);
/* Who answers where the relay has dialled: what sim_far_accept gave. ident SIM_RELAY: the relay's
 * own identity. plain: it knows no early muxer negotiation. */
enum { SIM_RELAY = SIM_IDENTS_MAX };
struct sim_conn *sim_answer(struct sim *s, unsigned ident, int ep, bool plain);
struct netaddr sim_host(unsigned subnet, unsigned host); /* 10.x.x.host, port chosen */
const struct peer_id *sim_peer_id(struct sim *s, unsigned ident);
void sim_conn_look(struct sim_conn *c); /* reads, answers, sends */
enum sim_hangup { HANG_FIN, HANG_RST, HANG_VANISH };
void sim_hang_up(struct sim_conn *c, enum sim_hangup how);
/* NULL: the connection cannot open streams. `first` goes out behind the name. */
struct sim_stream *sim_open(struct sim_conn *c, const char *name, enum sim_stream_kind kind,
                            struct bytes first);
struct sim_stream *sim_reserve(struct sim_conn *c);
struct sim_stream *sim_connect_to(struct sim_conn *c, const struct peer_id *target);
void sim_stop_answer(struct sim_stream *st, enum hop_status status);  /* OK joins */
void sim_stream_put(struct sim_stream *st, struct bytes b, bool fin); /* as far as credit goes */
void sim_stream_rst(struct sim_stream *st);
void sim_grant(struct sim_stream *st, uint32_t delta);
/* Bytes into the secure channel, or past it: whatever they are. */
void sim_put_plain(struct sim_conn *c, struct bytes b);
void sim_put_raw(struct sim_conn *c, struct bytes b);
/* The newest stream of this kind that lives; NULL. */
struct sim_stream *sim_newest(struct sim_conn *c, enum sim_stream_kind kind);

/* sim_stream.c, for sim_peer.c */
struct sim_stream *sim_stream_new(struct sim_conn *c, enum sim_stream_kind kind);
void sim_stream_end(struct sim_stream *st);
void sim_stream_consumed(struct sim_stream *st, size_t n);
void sim_stream_data(struct sim_stream *st, struct bytes data);
void sim_stream_fin(struct sim_stream *st);

/* sim_flow.c */
/* Starts sending `total` bytes (8 at least, or 0 for only a FIN) on a joined stream. */
struct sim_flow *sim_flow_start(struct sim_stream *st, uint64_t total, size_t frame_max, bool fin);
void sim_flow_pump(struct sim_stream *st);
void sim_flow_on_data(struct sim_stream *st, struct bytes data);
void sim_flow_on_fin(struct sim_stream *st);
void sim_flow_on_rst(struct sim_stream *st); /* by the relay */
/* Every flow whose two ends have no excuse has arrived whole. */
bool sim_flows_settled(struct sim *s);
void sim_flows_verdict(struct sim *s); /* breaks the simulation with the first that has not */

void sim_queue_put(struct sim_queue *q, struct bytes b);
uint8_t *sim_queue_room(struct sim_queue *q, size_t n); /* then q->n += what was written */
struct bytes sim_queue_front(const struct sim_queue *q);
void sim_queue_drop(struct sim_queue *q, size_t n);
void sim_peers_free(struct sim *s);

#endif
