/* tools/load_turn.h: what the parts of load-turn share: TURN clients by the thousand, with their
 * peers, on one thread and proto/'s stun and chandata. Datagrams leave in trains (UDP_SEGMENT) and
 * arrive in trains (UDP_GRO) if so wanted, bodies are sent from one pool and compared with it: the
 * generator shall not be what limits the relay. Peers are sockets of the generator.
 *
 *   load_turn_client.c  allocations: requests, answers, credentials
 *   load_turn_sock.c    sockets, trains out and in, streams
 *   load_turn_setup.c   everybody's sockets, allocations made and given up
 *   load_turn_flow.c    payload, its order and its latency
 *   load_turn_run.c     flows, idle allocations
 *   load_turn_rate.c    allocations per second
 *   load_turn_tcp.c     RFC 6062
 *   load_turn_foe.c     what breaks the rules: messages that a server must refuse or drop
 *   load_turn_flood.c   and how they get there, as often as is asked for
 *   load_turn_page.c    counts that others may read while this runs
 *   load_turn_report.c  the answer
 *   load_turn_opts.c    options
 */
#ifndef SLUICE_TOOLS_LOAD_TURN_H
#define SLUICE_TOOLS_LOAD_TURN_H

#include "proto/chandata.h"
#include "proto/stun_auth.h"
#include "tools/load_stat.h"

#include <netinet/in.h>

enum lt_mode { LT_FLOW, LT_ALLOC_RATE, LT_IDLE, LT_TCP_RELAY, LT_FOE };
enum lt_way { LT_UP = 1, LT_DOWN = 2, LT_BOTH = 3 };

enum {
    LT_BINDS_MAX = 64,
    LT_STEPS_MAX = 16,
    LT_KERNEL_MAX = 8,
    LT_ALLOCS_MAX = 10000,
    LT_PEERS_MAX = 64,
    LT_TRAIN_MAX = 64,
    LT_STAMP = 20, /* in front of a payload: magic, flow, number, time */
    LT_SIZE_MAX = 65000,
    LT_TRAIN_BYTES = 65200, /* what one UDP_SEGMENT send takes, with room for headers below */
    LT_HOT_MAX = 16,        /* so many sockets are asked directly, more by epoll */
    LT_IN_FLIGHT = 64,      /* transactions at once while setting up */
    LT_NONCE_MAX = 256,
    LT_POOL = 131071, /* prime: no payload size is a period of it */
    LT_RTO_MS = 500,
    LT_TRIES = 7, /* RFC 8489 §6.2.1 */
};

#define LT_HELLO "BARESINK" /* with its zero: to bench-turn, and back */

struct lt_opts {
    enum lt_mode mode;
    enum lt_way way;
    struct netaddr at;
    const char *user, *password, *realm, *secret;
    unsigned allocations, train, size, peers, users, slots, batch, window;
    bool bare; /* bench/bare/turn_bare.c is there instead of a TURN server */
    bool tcp, send_mode, echo, c2c, gro, plain, sha256, fresh, lossless, json, quiet, sleep;
    uint64_t rate, seed, lives;
    double duration_s, warm_s, settle_s;
    struct netaddr bind[LT_BINDS_MAX];
    unsigned binds;
    unsigned step[LT_STEPS_MAX], steps;
    const struct lt_foe *foe;
    unsigned burst_ms; /* what is due leaves so often; 0: at once */
    const char *counters;
    pid_t server_pid, kernel_pid[LT_KERNEL_MAX];
    unsigned kernel_pids;
};
extern struct lt_opts lt_opt;
void lt_parse(int argc, char **argv);

/* ---- sockets ------------------------------------------------------------------------------- */

union lt_sa {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};
socklen_t lt_sa_of(const struct netaddr *a, union lt_sa *out); /* IPv4-mapped becomes AF_INET */
struct netaddr lt_sa_addr(const union lt_sa *s);
struct netaddr lt_local(int fd);
int lt_udp(const struct netaddr *bind, const struct netaddr *to,
           bool gro);                                             /* to: NULL, or connect */
int lt_tcp(const struct netaddr *bind, const struct netaddr *to); /* connecting */

void lt_sock_init(void);
/* Datagrams of one length in one call, or as many sends as there are if plain. head and body of
 * each are borrowed. */
struct lt_train {
    unsigned n;
    size_t segment; /* each one's length, with everything */
    struct {
        uint8_t head[STUN_DATA_HEAD_MAX + LT_STAMP];
        size_t head_n;
        struct bytes body;
        size_t pad;
    } dg[LT_TRAIN_MAX];
};
/* false: the socket is full, nothing was sent. */
bool lt_send_train(int fd, const union lt_sa *to, socklen_t to_n, const struct lt_train *t);
typedef void lt_on_datagram(void *arg, const union lt_sa *from, struct bytes dg);
/* What lies in the socket, one batch; gives the number of datagrams. Counts trains too. */
unsigned lt_receive(int fd, bool gro, lt_on_datagram *on, void *arg);
extern uint64_t lt_reads, lt_refused; /* receives that brought something; ICMP errors */
extern uint64_t lt_received_ns;       /* when the last one did */

/* A stream's buffers: what a send did not take, and what is not yet a whole unit. */
struct lt_stream {
    uint8_t *out;
    size_t out_at, out_n, out_cap;
    uint8_t *carry_buf;
    struct frame_carry carry;
    bool over;
};
struct lt_stream *lt_stream_new(void);
void lt_stream_free(struct lt_stream *s); /* NULL too */
void lt_stream_put(struct lt_stream *s, struct bytes b);
bool lt_stream_flush(int fd, struct lt_stream *s); /* true: nothing is left */
/* Calls on for each unit; false: the stream is over. */
bool lt_stream_read(int fd, struct lt_stream *s, void (*on)(void *, enum frame, struct bytes),
                    void *arg);

/* ---- allocations --------------------------------------------------------------------------- */

enum lt_state {
    LT_NEW,
    LT_ALLOCATING,
    LT_ALLOCATED,
    LT_PERMITTING,
    LT_BINDING,
    LT_READY,
    LT_REFRESHING, /* data goes on meanwhile */
    LT_RELEASING,
    LT_CONNECTING, /* RFC 6062 */
    LT_GONE,
};

/* One direction of one allocation's data. The receiver's half too: both ends are here. */
struct lt_count {
    uint32_t next; /* number of the next one sent */
    uint32_t seen; /* one past the highest that arrived */
    uint64_t mask; /* which of the 64 below it did */
    uint64_t received;
};

struct lt_alloc {
    uint32_t id;
    int fd;
    enum lt_state state;
    bool waits; /* for an answer */
    bool ready; /* data may flow */
    bool again; /* --alloc-rate: another life is due */
    struct netaddr local, relayed, peer;
    struct lt_stream *stream; /* --transport tcp, --tcp-relay */
    unsigned peer_idx;
    uint16_t channel;
    char user[64];
    struct stun_key key;
    enum stun_alg alg;
    uint8_t nonce[LT_NONCE_MAX], realm[128], algorithms[64];
    uint8_t nonce_n, realm_n, algorithms_n;
    uint8_t tid[STUN_TID];
    enum stun_method method;
    uint32_t asked_lifetime, connection_id;
    unsigned tries, moves;
    uint64_t asked_ms, began_ns, refresh_ms;
    struct lt_count flow[2]; /* up, down */
    void *arg;               /* the mode's */
};

struct lt_peer {
    int fd;
    struct netaddr addr;
};
extern struct lt_alloc *lt_allocs;
extern struct lt_peer lt_peers[LT_PEERS_MAX];

/* What a mode is told when a state is reached: LT_ALLOCATED, LT_READY, LT_GONE, or LT_CONNECTING
 * (connection_id is known). why: of a failure, else NULL. */
extern void (*lt_on_state)(struct lt_alloc *a, const char *why);
void lt_client_init(struct lt_alloc *a, uint32_t id);
void lt_client_open(struct lt_alloc *a);  /* a socket of its own */
void lt_client_close(struct lt_alloc *a); /* and away with it */
void lt_client_allocate(struct lt_alloc *a);
void lt_client_bind(struct lt_alloc *a); /* a->peer is set: permission, or channel */
void lt_client_permit(struct lt_alloc *a);
void lt_client_connect(struct lt_alloc *a); /* RFC 6062 */
void lt_client_release(struct lt_alloc *a);
void lt_client_message(struct lt_alloc *a, struct bytes stun);
void lt_client_tick(struct lt_alloc *a, uint64_t now_ms);
void lt_client_credentials(struct lt_alloc *a, struct stun_build *b); /* as of its last nonce */
uint64_t lt_random(void);
/* A ConnectionBind for `id` under a's credentials. Gives its length. */
size_t lt_client_connection_bind(struct lt_alloc *a, uint32_t id, uint8_t *buf, size_t cap);
/* What it was answered: 0, or an error code, of which 401 and 438 may be tried again with what a
 * has learnt; 1: no STUN response at all. */
unsigned lt_client_answer(struct lt_alloc *a, struct bytes stun);
extern unsigned lt_waiting; /* transactions in flight */

/* ---- payload ------------------------------------------------------------------------------- */

struct lt_totals {
    uint64_t sent, received; /* by the last receiver */
    uint64_t relayed;        /* hops through the relay; twice `received` for echoes and pairs */
    uint64_t bytes;          /* of payload, received */
    uint64_t mismatches, doubles, reordered, stalls;
    uint64_t reads, lives, failed;
    uint64_t moves; /* to another 5-tuple, after a 437 */
};
extern struct lt_totals lt_totals;
extern struct load_hist lt_latency;
extern bool lt_measuring; /* latencies count */

void lt_flow_init(void);
struct bytes lt_body(uint32_t flow, uint32_t number, size_t n);    /* from the pool */
const uint8_t *lt_pool_at(uint32_t phase, uint64_t at, size_t *n); /* endless, for streams */
/* The next train of a flow: 2 * id for up, and 1 more for down. */
void lt_train_make(struct lt_train *t, struct lt_alloc *a, bool down, unsigned n);
/* A payload that came to a peer (a: NULL) or to a client. */
void lt_payload_in(struct lt_alloc *a, const union lt_sa *from, struct bytes payload);

/* ---- runs and the report --------------------------------------------------------------------- */

struct lt_memory {
    unsigned allocations;
    long rss_kib, anon_kib;
};
struct lt_report {
    struct load_usage at, used;
    struct lt_totals then, in; /* of the measured window */
    struct lt_memory memory[LT_STEPS_MAX + 1];
    unsigned memories;
    double drained_s;
};
void lt_report_begin(struct lt_report *r);
void lt_report_end(struct lt_report *r);
void lt_report_memory(struct lt_report *r, unsigned allocations);
int lt_report_print(const struct lt_report *r); /* the exit status */
const char *lt_mode_name(void);

/* Everybody's sockets: data and answers. */
void lt_poll_init(void);
void lt_poll_add(int fd, void *who); /* an element of lt_allocs or lt_peers */
void lt_poll_forget(int fd);
bool lt_poll(int wait_ms); /* true: something came, as for the next two */
bool lt_read_peer(struct lt_peer *p);
bool lt_read_client(struct lt_alloc *a);
void lt_tick_all(uint64_t now_ms); /* retransmissions, renewals */
uint64_t lt_now_ms(void);

void lt_peers_open(void);
void lt_each(unsigned from, unsigned to, void (*step)(struct lt_alloc *a), const char *what);
void lt_allocate_one(struct lt_alloc *a);
void lt_setup(void); /* all allocations, and their channels or permissions; or dies */
void lt_teardown(void);
int lt_run_flow(void);
int lt_run_idle(void);
int lt_run_rate(void);
int lt_run_tcp(void);
int lt_run_foe(void);

/* ---- foes ------------------------------------------------------------------------------------ */

enum { LT_FOE_MAX = 1500 }; /* bytes of a malformed datagram; of the huge ones LT_SIZE_MAX */

struct lt_foe {
    const char *name;
    enum {
        LT_FOE_UDP,
        LT_FOE_OWNER, /* from the 5-tuple of an allocation of its own */
        LT_FOE_PEER,  /* from a peer, to its relayed address */
        LT_FOE_MIXED, /* any of the first two */
        LT_FOE_UNITS, /* on a stream that stays */
        LT_FOE_SLOW,  /* the same, a byte at a time */
        LT_FOE_STREAM /* a connection each */
    } way;
    /* One of its messages; variant: which of those that differ. Gives its length. */
    size_t (*make)(struct lt_alloc *a, unsigned variant, uint8_t *buf, size_t cap);
    bool huge;
};
const struct lt_foe *lt_foe_named(const char *name); /* NULL: there is no such one */
const char *lt_foe_names(void);
/* Of a mixed flood: the kind of this variant, for who has an allocation or has none. */
const struct lt_foe *lt_foe_mixed(unsigned variant, bool owner);

/* A page that others may read and, at LT_CT_PAUSE, _STOP and _RATE, write while this runs
 * (--counters): windows of one run are measured without starting another. The places are those of
 * tools/load_p2p.h. */
enum {
    LT_CT_PAUSE,    /* not 0: nothing new is sent */
    LT_CT_RECEIVED, /* datagrams */
    LT_CT_MISMATCHES,
    LT_CT_OPS = 5,
    LT_CT_OPENED, /* connections of a foe; those that the server ended */
    LT_CT_ENDED,
    LT_CT_STOP = 10, /* not 0: the duration is over */
    LT_CT_RATE,      /* not 0: another --rate */
    LT_CT_N = 64,
};
extern volatile uint64_t *lt_counters;
void lt_counters_init(void);

/* What is due by the rate, in bursts; at most what a tenth of a second brings. */
struct lt_due {
    uint64_t at_ns;
    double n;
};
uint64_t lt_due(struct lt_due *d, uint64_t now_ns);

_Noreturn void lt_die(const char *fmt, ...) PRINTF_LIKE(1, 2);
void lt_progress(const char *fmt, ...) PRINTF_LIKE(1, 2); /* at most one a second */

#endif
