/* tools/load_p2p.h: what the parts of load-p2p share: libp2p clients by the thousand on one thread
 * and one epoll, on proto/'s initiator roles. Connections are small (about 700 bytes without their
 * buffers, which go back to a pool when empty), sends are gathered, nothing is copied that need not
 * be: the generator shall not be what limits the relay.
 *
 *   load_p2p_conn.c    connections and streams
 *   load_p2p_stream.c  negotiation, messages
 *   load_p2p_flow.c    circuits and their bytes
 *   load_p2p_place.c   which shard has which connection
 *   load_p2p_run.c     bulk, message, idle
 *   load_p2p_churn.c   setup, churn, handshake
 *   load_p2p_attack.c  peers that break the rules
 *   load_p2p_soak.c    peers that come and go for long, load_p2p_soak_flow.c their circuits
 *   load_p2p_stat.c    what others may read and write meanwhile
 *   load_p2p_report.c  the answer
 *   load_p2p_opts.c    options
 */
#ifndef SLUICE_TOOLS_LOAD_P2P_H
#define SLUICE_TOOLS_LOAD_P2P_H

#include "proto/hop.h"
#include "proto/ident.h"
#include "proto/mss.h"
#include "proto/noise.h"
#include "proto/yamux.h"
#include "tools/load_stat.h"

#include <netinet/in.h>

enum lp_mode { LP_BULK, LP_MESSAGE, LP_SETUP, LP_CHURN, LP_HANDSHAKE, LP_IDLE, LP_ATTACK, LP_SOAK };
enum lp_relay { LP_LIBP2P, LP_BARE, LP_RAW }; /* bench/bare speaks the last two */
enum lp_place { LP_ANYWHERE, LP_SAME, LP_CROSS };

enum {
    LP_STEPS_MAX = 16,
    LP_FRAMES_MAX = 4,
    LP_IN_FLIGHT = 64,    /* handshakes, reservations, dials: what a busy relay sees at once */
    LP_OUT_CAP = 1 << 19, /* a send buffer */
    LP_BURST = 1 << 18,   /* one circuit's turn */
    LP_READ = 1 << 18,
    LP_GRANT = YAMUX_WINDOW / 2,
    LP_MSG = 256,     /* message mode */
    LP_HEAD = 8,      /* in front of a circuit's bytes: magic and number */
    LP_POOL = 131071, /* prime: no block size is a period of the payload */
};

/* How a client of the wild cuts its bytes: bodies in turn, and records of at most record_max. */
struct lp_framing {
    const char *name;
    unsigned n;
    uint32_t body[LP_FRAMES_MAX];
    bool whole; /* waits for the credit of a whole body */
};

struct lp_opts {
    enum lp_mode mode;
    enum lp_relay relay;
    enum lp_place place;
    struct sockaddr_in at;
    const struct lp_framing *framing;
    unsigned circuits, pairs; /* pairs: 0 = one per circuit */
    unsigned idle_circuits;   /* beside the busy ones */
    unsigned idle_every_ms;
    unsigned sources; /* 127.NET.0.2 and following */
    unsigned net;
    unsigned slots; /* of churn and handshake: so many at once */
    unsigned step[LP_STEPS_MAX], steps;
    unsigned interval_us;
    unsigned peers, churn, dials; /* soak: seats; leaves and dials per second */
    double duration_s, warm_s, settle_s;
    bool json, both, quiet, spin, even;
    uint64_t seed, rate; /* rate: bytes per second over all circuits; 0: as fast as it goes */
    int server_pid;
    const char *admin;    /* admin socket */
    unsigned attack;      /* which, of lp_attack_names */
    unsigned ops;         /* attack: per second over all; 0: as fast as it goes */
    unsigned again_ms;    /* attack: a connection that ended comes back after this */
    unsigned burst_ms;    /* attack: ops come in bursts, so often */
    const char *counters; /* file */
};
extern struct lp_opts lp_opt;
void lp_parse(int argc, char **argv);

/* ---- connections ------------------------------------------------------------------------- */

struct lp_peer {
    struct identity me;
    struct noise_ident noise;
};
void lp_peer_make(struct lp_peer *p, uint64_t n);

enum lp_kind {
    LP_NEGOTIATING,
    LP_IDENT,
    LP_PING,
    LP_DISCARD,
    LP_STOP,
    LP_RESERVE,
    LP_CONNECT,
    LP_SOURCE, /* a circuit's end that dialled */
    LP_SINK,   /* the other */
};

struct lp_conn;
struct lp_circuit;
struct lp_stream {
    struct yamux_stream y;
    struct lp_conn *conn;
    struct lp_stream *next, **at; /* of the connection's */
    enum lp_kind kind;
    bool dialing; /* mss of ours is not answered yet */
    struct mss_listen listen;
    struct mss_dial dial;
    uint32_t consumed;
    struct lp_circuit *circuit;
    uint8_t *buf; /* a message that is not whole */
    size_t buf_n;
    uint8_t head[LP_HEAD]; /* of a circuit, at its sink */
    uint8_t head_n;
};

enum lp_state { LP_CONNECTING, LP_SECURITY, LP_NOISE, LP_MUXER, LP_UP, LP_CLOSED };
struct lp_conn {
    int fd;
    enum lp_state state;
    bool polled_out, dirty, queued, reserved;
    bool stuck;    /* closes at the next flush */
    bool deaf;     /* does not read its socket */
    bool more;     /* a source stopped at its turn's end with credit left */
    uint16_t port; /* ours, host order */
    int shard;     /* -1: unknown */
    const struct lp_peer *peer;
    struct lp_peer *owned; /* churn: a peer of its own */
    struct noise *noise;   /* during the handshake */
    struct mss_dial mss;
    struct aead_key tx, rx;
    struct yamux y;
    struct lp_stream *streams;
    uint8_t *carry; /* received, not yet a whole record */
    size_t carry_n;
    uint8_t *out; /* LP_OUT_CAP bytes while something waits */
    size_t out_at, out_n;
    struct lp_conn *next_dirty, *next_again;
    void *arg; /* the mode's */
    uint64_t began_ns;
};

/* What a mode is told. */
struct lp_app {
    void (*on_up)(struct lp_conn *c);
    void (*on_reserved)(struct lp_conn *c, enum hop_status status);
    void (*on_connected)(struct lp_stream *s, enum hop_status status);
    /* The memory of c goes soon after this; why == lp_done: our own wish. */
    void (*on_closed)(struct lp_conn *c, const char *why);
};
extern const struct lp_app *lp_app; /* none of these frees a stream */
extern const char lp_done[];

void lp_conn_init(void); /* once */
int lp_dial(unsigned n); /* a socket from the n-th source, connecting; -1 with errno */
struct lp_conn *lp_conn_new(const struct lp_peer *peer, unsigned n, uint32_t bare_pair,
                            bool source);
void lp_conn_close(struct lp_conn *c, const char *why); /* safe within callbacks: freed later */
void lp_conn_deaf(struct lp_conn *c, bool on);          /* its socket is not read */
void lp_reserve(struct lp_conn *c);
struct lp_stream *lp_connect(struct lp_conn *c, const struct peer_id *target,
                             struct lp_circuit *circuit);
struct lp_stream *lp_bare_open(struct lp_conn *c, struct lp_circuit *circuit);
/* Sends what credit and the buffer allow; parts of a record leave in records of their own. */
size_t lp_send(struct lp_stream *s, struct bytes body, bool fin);
/* Whole body, credit is there. YAMUX_HEADER bytes in front of it are lent for the header: one part
 * costs a third less to seal than header and body apart. */
void lp_send_whole(struct lp_stream *s, uint8_t *body, size_t n);
void lp_consumed(struct lp_stream *s, size_t n);
void lp_reset(struct lp_stream *s);
void lp_stream_free(struct lp_stream *s, bool reset);
void lp_mux_event(struct lp_conn *c, const struct yamux_ev *ev);
void lp_put_raw(struct lp_conn *c, struct bytes b); /* as it is: during the handshake, or to harm */
/* One record of the concatenated parts. */
void lp_seal(struct lp_conn *c, const struct bytes *parts, size_t n, size_t sum);
size_t lp_room(const struct lp_conn *c); /* for sealed bytes */
bool lp_poll(int64_t wait_ns);           /* one turn; true: something happened */
uint64_t lp_received_bytes(void);        /* raw */

/* ---- circuits ---------------------------------------------------------------------------- */

struct lp_circuit {
    uint32_t id;
    bool idle; /* sends a message now and then */
    bool closing;
    bool over;                 /* both ends are gone; lp_flow_reap tells the mode */
    struct lp_conn *from, *to; /* soak: to is NULL, and whom says who may take it */
    const struct lp_peer *whom;
    bool hold[2]; /* the receiver of this direction grants nothing now */
    struct lp_stream *src, *dst;
    struct lp_circuit *next_over;
    void *arg; /* the mode's */
    uint64_t began_ns;
    uint64_t sent[2], received[2]; /* payload behind the head; [1]: the way back */
    uint32_t phase;                /* where in the pool its bytes begin */
    uint32_t turn[2];              /* of the framing */
    uint8_t gather[LP_MSG];        /* a message that is not whole */
    uint32_t gather_n, seq, seq_in;
};

struct lp_totals {
    uint64_t received, messages, mismatches, resets, late;
};
extern struct lp_totals lp_totals;
extern bool lp_flowing;   /* sources produce */
extern bool lp_measuring; /* latencies count */

void lp_flow_init(void);
struct lp_circuit *lp_circuits_new(unsigned n); /* array of all; ids are their indices */
void lp_circuit_clear(struct lp_circuit *k);    /* for another life */
void lp_circuit_start(struct lp_circuit *k);    /* src is set: sends the head */
void lp_circuit_pump(struct lp_stream *s);      /* bulk: as much as it may */
bool lp_circuit_message(struct lp_circuit *k);  /* one message; false: no credit */
void lp_circuit_bytes(struct lp_circuit *k,
                      size_t n);              /* so many payload bytes, no more than that */
void lp_circuit_finish(struct lp_circuit *k); /* FIN */
struct bytes lp_circuit_payload(const struct lp_circuit *k, bool back, size_t n); /* comes next */
/* Every circuit that ended since the last call. */
void lp_flow_reap(void (*over)(struct lp_circuit *k));
void lp_rate_refill(uint64_t now_ns); /* --rate: call often */

/* From the streams. */
void lp_circuit_data(struct lp_stream *s, struct bytes data);
void lp_circuit_fin(struct lp_stream *s);
void lp_circuit_gone(struct lp_stream *s, bool reset);

/* ---- placement, statistics --------------------------------------------------------------- */

/* Asks the relay's admin socket which shard each of these connections is on. */
bool lp_place_ask(struct lp_conn *const *conns, size_t n);

extern struct load_hist lp_latency;

/* ---- runs and reports --------------------------------------------------------------------- */

struct lp_memory {
    unsigned peers;
    long rss_kib, anon_kib;
};
struct lp_report {
    struct load_usage at, used; /* begin; what the window took */
    uint64_t received, messages;
    uint64_t lives, failed; /* setup, churn, handshake */
    unsigned stuck;
    struct lp_memory memory[LP_STEPS_MAX + 1];
    unsigned memories;
};
void lp_report_begin(struct lp_report *r);
void lp_report_end(struct lp_report *r);
void lp_report_memory(struct lp_report *r, unsigned peers);
int lp_report_print(const struct lp_report *r); /* the exit status */
const char *lp_mode_name(void);
const char *lp_place_name(void);

_Noreturn void lp_die(const char *fmt, ...) PRINTF_LIKE(1, 2);
void lp_progress(const char *fmt, ...) PRINTF_LIKE(1, 2); /* at most one a second */

/* A page that others may read and, at LP_CT_PAUSE, _STOP and _RATE, write while this runs
 * (--counters): windows of one run are measured without starting another. */
enum {
    LP_CT_PAUSE, /* not 0: nothing new is sent (bulk: with --rate only) */
    LP_CT_RECEIVED,
    LP_CT_MISMATCHES,
    LP_CT_RESETS,
    LP_CT_FLOWING,
    LP_CT_OPS,
    LP_CT_OPENED, /* connections of an attack; those that the relay ended; those there are */
    LP_CT_ENDED,
    LP_CT_LIVE,
    LP_CT_BYTES,
    LP_CT_STOP, /* not 0: the duration is over (bulk, message, attack) */
    LP_CT_RATE, /* not 0: another --rate (bulk) */
    LP_CT_N = 64,
};
extern uint64_t *lp_counters;
void lp_counters_init(void);
void lp_counters_publish(void);
bool lp_paused(void);
bool lp_stopped(void);

int lp_run(void);
int lp_run_churn(void);
int lp_run_soak(void);
int lp_run_attack(void);
const char *const *lp_attack_names(void);        /* ends with NULL */
size_t lp_attack_stop(uint8_t *buf, size_t cap); /* what answers a STOP; 0: as it should be */

/* The circuits of soak have plans: what happens to them is told to load_p2p_soak_flow.c. */
void lp_soak_pump(struct lp_stream *s);
void lp_soak_attached(struct lp_circuit *k); /* dst is set */
void lp_soak_data(struct lp_circuit *k);     /* something more was received */
void lp_soak_fin(struct lp_stream *s);

#endif
