/* tests/sim/ring_sim.h: what the parts of the simulation know of each other: sim_net.c (chance,
 * time, far ends), sim_file.c (descriptors, bytes), sim_udp.c and sim_udp_far.c (datagrams),
 * sim_io.c (streams beside the ring), ring_sim.c (the body of ring.h) and sim_kernel.c (what
 * becomes of its requests). Tests include sim_net.h. */
#ifndef SLUICE_TESTS_RING_SIM_H
#define SLUICE_TESTS_RING_SIM_H

#include "engine/ring.h"
#include "tests/sim/sim_net.h"

#ifdef __has_feature /* clang's way to say it */
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum {
    SIM_FD_FIRST = 1000, /* no real descriptor, should one slip into a system call */
    SIM_FDS_MAX = 65536,
    SIM_SEGS_MAX = 256, /* pieces under way per direction; more travel with the last one */
    SIM_NS_PER_MS = 1000000,
    SIM_ICMP_MAX = 32,      /* errors that a datagram socket keeps */
    SIM_UDP_BUCKETS = 1024, /* by port */
    SIM_UDP_FLOWS = 4096,   /* whose order stays: two in one cell wait for each other */
};

static const uint64_t SIM_NEVER = UINT64_MAX;

/* One direction: bytes under way and bytes that have arrived, in one circular buffer. */
struct sim_pipe {
    uint8_t *buf;
    size_t head, len; /* len: all bytes */
    size_t ready;     /* the first of them, which have arrived */
    struct sim_seg {
        uint64_t due_ns;
        size_t n;
        bool fin;
    } segs[SIM_SEGS_MAX];
    unsigned seg_first, seg_count;
    bool fin_ready;
};

/* A datagram, or an ICMP error about one, under way or unread. */
struct sim_dgram {
    struct sim_dgram *next;
    uint64_t due_ns, serial;
    struct netaddr from, to;
    bool icmp;
    struct ring_icmp error;
    size_t n;
    uint8_t data[];
};

struct sim_udp {
    struct sim_file *next_in_bucket;
    unsigned flags;
    bool df;
    struct sim_dgram *first, *last;
    unsigned queued;
    struct ring_icmp errors[SIM_ICMP_MAX];
    unsigned errors_n;
    int err; /* -errno that the next call tells */
};

enum sim_kind { SIM_LISTENER, SIM_SOCKET, SIM_UDP };

struct sim_file {
    struct sim_net *net;
    enum sim_kind kind;
    uint64_t serial;
    int fd;        /* -1: not open in the engine */
    unsigned refs; /* requests in flight */
    bool closed;   /* nobody can reach it any more: its close has happened */
    struct netaddr local, remote;

    /* a listener */
    bool v6only, reuseport;
    unsigned backlog;

    /* a socket; a far end has fd -1 */
    struct sim_file *peer;
    struct sim_file *listener; /* whose accept queue holds it; NULL: accepted */
    uint64_t connect_ns;       /* when it gets there */
    struct sim_pipe in;
    bool far, vanished, shut_rd, shut_wr;
    bool connecting;              /* from here; until connect_ns */
    bool no_space;                /* a send took less than all: room is news */
    uint64_t reset_ns, vanish_ns; /* when news of that arrives */
    bool dead;                    /* reset or timed out */
    int err;                      /* told once, then end of stream and -EPIPE */
    uint64_t arrivals;            /* for edges of a poll */
    unsigned recvs, sends;        /* armed requests, to see that there is one at most */
    struct sim_udp *udp;          /* of a SIM_UDP */
};

struct sim_net {
    struct sim_opts o;
    struct sim_counts counts;
    uint64_t rng, now_ns, alarm_ns, serials;
    bool news; /* a far end can read or write more than before */
    void (*on_time)(void *arg, uint64_t now_ms);
    void *on_time_arg;
    char broken[256];
    char verdict[256];

    struct sim_file **files; /* alive, oldest first */
    size_t files_n, files_cap;
    struct sim_file **eps;
    size_t eps_n, eps_cap;
    struct sim_file **fds;
    unsigned fds_max, fds_open;
    uint16_t next_port;
    int place_next;     /* -1: by the seed */
    struct ring *rings; /* every one there is */

    struct sim_dgram **air; /* datagrams under way: a heap by due_ns and serial */
    size_t air_n, air_cap;
    uint64_t air_serials;
    struct sim_file *udp_bucket[SIM_UDP_BUCKETS];
    uint64_t flow_due_ns[SIM_UDP_FLOWS];
};

static inline void *sim_must(void *p)
{
    ASSERT(p != NULL);
    return p;
}

/* sim_net.c */
struct sim_net *sim_net_now(void); /* the one there is */
void sim_net_break(struct sim_net *net, const char *fmt, ...) PRINTF_LIKE(2, 3);
uint64_t sim_delay_ns(struct sim_net *net, unsigned ms_max); /* 0 half of the time */
uint64_t sim_later_ns(struct sim_net *net);                  /* when what leaves now gets there */

/* sim_file.c */
void sim_push(struct sim_file ***v, size_t *n, size_t *cap, struct sim_file *f);
void sim_net_deliver(struct sim_net *net); /* what is due by now arrives */
struct sim_file *sim_file_new(struct sim_net *net, enum sim_kind kind);
struct sim_file *sim_fd_file(struct sim_net *net, int fd); /* NULL: not open */
int sim_fd_open(struct sim_net *net, struct sim_file *f);  /* the lowest free one, or -EMFILE */
void sim_fd_close(struct sim_net *net, int fd);
void sim_file_hold(struct sim_file *f);
void sim_file_close(struct sim_file *f); /* what close(2) does to the stream */
void sim_file_reset(struct sim_file *f); /* RST to the other end */
void sim_file_drop(struct sim_file *f);  /* the last drop of a closed fd is when FIN leaves */

int sim_listen(struct sim_net *net, const struct netaddr *at, bool v6only, bool reuseport,
               unsigned backlog, struct netaddr *bound);
struct sim_file *sim_file_pending(struct sim_file *listener); /* the next to accept, or NULL */
size_t sim_file_ready(const struct sim_file *f);
size_t sim_file_take(struct sim_file *f, uint8_t *to, size_t n);
size_t sim_file_room(const struct sim_file *f);                       /* for what f sends */
void sim_file_put(struct sim_file *f, const uint8_t *from, size_t n); /* n ≤ room */
void sim_file_fin(struct sim_file *f);
/* How receiving ends: false while there is or may be more; *res 0 or -errno. */
bool sim_file_ended(struct sim_file *f, int *res);
/* Why sending is impossible; 0 when it is not. */
int sim_file_send_error(struct sim_file *f);

/* sim_udp.c */
void sim_udp_deliver(struct sim_net *net);
uint64_t sim_udp_next_ns(const struct sim_net *net);
bool sim_udp_ready(const struct sim_file *f);
void sim_udp_close(struct sim_file *f); /* nobody finds it any more, what it holds is gone */
void sim_udp_free(struct sim_net *net); /* what is under way */
struct sim_file *sim_udp_new(struct sim_net *net, const struct netaddr *at, unsigned flags);
bool sim_udp_taken(struct sim_net *net, const struct netaddr *at, unsigned flags);
/* Who receives there; *idx: the how manyth of those that are bound alike. NULL: nobody. */
struct sim_file *sim_udp_lookup(struct sim_net *net, const struct netaddr *to,
                                const struct netaddr *from, int *idx);
void sim_udp_launch(struct sim_net *net, const struct netaddr *from, const struct netaddr *to,
                    const uint8_t *p, size_t n);
void sim_udp_unqueue(struct sim_file *f); /* the first unread one */

/* sim_io.c */
void sim_io_connected(struct sim_file *f);

enum sim_op {
    SIM_ACCEPT,
    SIM_RECV,
    SIM_SEND,
    SIM_POLL,
    SIM_READ,
    SIM_CANCEL,
    SIM_BELL,
    SIM_POLL_ONCE,
    SIM_CANCEL_UD,
};

struct sim_sqe {
    enum sim_op op;
    int fd;
    uint64_t serial; /* of the file that fd meant when this was prepared; 0: none */
    uint64_t ud;
    uint64_t target_ud;       /* of SIM_CANCEL_UD */
    int mask;                 /* of SIM_POLL_ONCE */
    const struct msghdr *msg; /* read at submission, as the kernel does */
    struct iovec one;
    struct ring *target;
};

struct sim_request {
    struct sim_request *next;
    enum sim_op op;
    struct sim_file *file;
    uint64_t ud;
    struct iovec *iov;
    size_t iov_n, total;
    uint64_t start_ns;
    bool waited;
    uint64_t seen;               /* arrivals that a poll has told */
    int mask;                    /* of SIM_POLL_ONCE */
    uint64_t last_due, last_key; /* of its completions */
};

/* A completion on its way to the owner. */
struct sim_event {
    struct ring_cqe cqe;
    enum sim_op op;
    uint64_t due_ns, key; /* key orders those that are due together */
    struct iovec *iov;    /* a send's payload, still lent */
    size_t iov_n;
    uint64_t sum;
};

struct sim_events {
    struct sim_event *v;
    size_t n, cap;
};

struct ring {
    struct sim_net *net;
    struct ring *next;
    struct ring_opts o;
    struct ring_counts counts;
    struct sim_sqe *sq;
    unsigned sq_n;
    struct sim_request *requests;
    struct sim_events coming, here; /* here: the owner may take them, from `taken` on */
    size_t taken;
    uint64_t deadline_ns; /* until which the owner would sleep */
    bool busy;            /* its last wait brought something */
    bool lent;            /* another owner works on it */
    unsigned aside_n;     /* of sq: prepared by such a one */
    bool again;           /* it was the first one at its time: see ring_wait */
    uint64_t waited_ns;

    uint8_t *bufs;
    uint16_t *idle; /* free buffers in the order of their return */
    unsigned idle_first, idle_n;
    uint16_t *back; /* returned, but the kernel learns of it at the next wait */
    unsigned back_n;
    unsigned leased_n;
    bool *leased;
};

/* sim_kernel.c */
extern const char *const sim_op_names[];
void sim_request_free(struct sim_request *q);
void sim_events_push(struct sim_events *e, struct sim_event ev);
/* A completion, late or not; q's own stay in order. */
struct sim_event *sim_post(struct ring *r, struct sim_request *q, enum sim_op op,
                           struct ring_cqe cqe);
uint64_t sim_payload_sum(const struct iovec *iov, size_t iov_n, size_t bytes);
void sim_pump(struct ring *r); /* every request gets on as far as it can */
void sim_cancel(struct ring *r, struct sim_sqe *s, const struct sim_file *f); /* NULL: by ud */
void sim_bell(struct ring *r, struct sim_sqe *s);

/* ring_sim.c */
bool sim_rings_runnable(struct sim_net *net); /* someone has something to do now */
uint64_t sim_rings_next_ns(struct sim_net *net);
const char *sim_rings_check(struct sim_net *net);

#endif
