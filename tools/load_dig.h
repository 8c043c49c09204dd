/* tools/load_dig.h: what the parts of load-dig share: DIG clients by the thousand on one thread,
 * with proto/'s WebSocket codec and epoll. A message leaves as parts that lie ready and masked (its
 * payload from one pool, its number written beside), and what arrives is compared byte for byte
 * with what the relay has to write (dig.md §4.2): the generator shall not be what limits the relay.
 *
 *   load_dig_conn.c    connections: handshakes, bytes in and out, registration
 *   load_dig_flow.c    messages that are numbered: what leaves, what has to arrive
 *   load_dig_run.c     flows for a while, with a window or by a rate
 *   load_dig_join.c    everybody arrives; and stays
 *   load_dig_foe.c     who breaks the rules
 *   load_dig_page.c    counters that others may read, and what is due by a rate
 *   load_dig_report.c  the answer
 *   load_dig_opts.c    options
 */
#ifndef SLUICE_TOOLS_LOAD_DIG_H
#define SLUICE_TOOLS_LOAD_DIG_H

#include "proto/maddr.h"
#include "proto/ws.h"
#include "tools/load_stat.h"

#include <stdio.h>

enum ld_mode { LD_RELAY, LD_BROADCAST, LD_PING, LD_PEERS, LD_JOIN, LD_IDLE };

enum {
    LD_CONNS_MAX = 20000,
    LD_STEPS_MAX = 16,
    LD_SIZE_MAX = 1 << 20, /* bytes of a payload */
    LD_WINDOW_MAX = 4096,
    LD_RATE_WINDOW = 256, /* by a rate: what is late waits here, not in the relay */
    LD_IN_FLIGHT = 64,    /* connections at once that are being set up */
    LD_ID = 64,           /* characters of a peer_id */
    LD_HEAD_MAX = 320,
    LD_TAIL_MAX = 40,
    LD_POOL = 16, /* payloads */
    LD_DIGITS = 16,
    LD_PART_MAX = 16 << 20, /* bytes of a message that came in pieces */
    LD_LIST_MAX = 1024,     /* above so many peers a list is a sample (dig.md §21) */
};
#define LD_BASE 1000000000000000ull /* of numbers: they all have LD_DIGITS digits */

struct ld_opts {
    enum ld_mode mode;
    struct netaddr at;
    unsigned conns, per_network, size, window, requesters, burst_ms;
    bool foe; /* ld_foe_set has said which */
    const char *counters;
    bool null; /* bench-dig null is there: what arrives is what was sent, masked */
    bool tls, json, quiet, sleep;
    uint64_t rate, seed;
    double duration_s, warm_s, settle_s, join_s, patience_s;
    unsigned step[LD_STEPS_MAX], steps;
    pid_t server_pid;
};
extern struct ld_opts ld_opt;
void ld_parse(int argc, char **argv);
const char *ld_mode_name(void);

enum ld_state { LD_CLOSED, LD_CONNECTING, LD_SHAKING, LD_UPGRADING, LD_REGISTERING, LD_READY };

struct ld_conn {
    unsigned id;
    int fd;
    uint8_t state;
    bool dirty, waits_out;
    struct ws_rx ws;
    uint8_t *part; /* of a message that came in pieces, or of a response head */
    size_t part_n, part_max;
    char *say; /* to be sent before all else */
    size_t say_n, say_at;
    struct ld_conn *next_dirty;
    void *ssl;
    /* What it sends: numbers below `allowed` may go, those below `sent` are gone, and of `sent`
     * itself the first `off` bytes. */
    uint64_t allowed, sent;
    size_t off;
    uint64_t *due_ns;          /* [window] by number */
    uint8_t head[LD_HEAD_MAX]; /* frame header, then text up to the payload, masked */
    size_t head_n, ws_head_n;
    char want[LD_HEAD_MAX]; /* how its messages begin when the relay has written them */
    size_t want_n;
    uint64_t expect;    /* number that comes next to it, or was answered last */
    uint64_t seen_news; /* peer_connected */
    uint8_t *seen;      /* bitmap of who */
};
extern struct ld_conn *ld_conns;

struct ld_totals {
    uint64_t sent, received, relayed, bytes, mismatches, doubles, gaps, errors, news, failed;
};
extern struct ld_totals ld_totals;
extern struct load_hist ld_latency;
extern bool ld_measuring;
extern unsigned ld_ready, ld_opening;

_Noreturn void ld_die(const char *fmt, ...) PRINTF_LIKE(1, 2);
void ld_progress(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* load_dig_conn.c */
void ld_conns_init(void);
void ld_open(struct ld_conn *c);
void ld_say(struct ld_conn *c, enum ws_opcode op, const char *text, size_t n);
void ld_dirty(struct ld_conn *c); /* it has something to send */
void ld_poll(int wait_ms);
void ld_setup(unsigned upto); /* the first so many are registered; or it dies */
unsigned ld_network(const struct ld_conn *c);
unsigned ld_members(unsigned network, unsigned conns); /* of the first so many connections */
void ld_id(unsigned id, char out[LD_ID]);
bool ld_id_of(const char *text, unsigned *id); /* LD_ID characters: one of ours */

/* load_dig_flow.c */
void ld_flow_init(void);
void ld_flow_of(struct ld_conn *c);
size_t ld_flow_write(struct ld_conn *c); /* bytes that the kernel took; 0: no more now */
void ld_allow(struct ld_conn *c, uint64_t due_ns);
void ld_on_message(struct ld_conn *c, struct bytes text);
unsigned ld_senders(void);
extern bool ld_stopping; /* nothing more is allowed */

/* The kernel's, or TLS's; -1: not now. */
struct iovec;
ssize_t ld_writev(struct ld_conn *c, struct iovec *iov, size_t n);

struct ld_memory {
    unsigned conns;
    long rss_kib, anon_kib;
};
struct ld_report {
    struct load_usage at, used;
    struct ld_totals then, in;
    uint64_t user_ticks, ticks;
    uint64_t server_waited_ns, self_waited_ns; /* for a core, while runnable */
    double join_s, spread_s;
    struct ld_memory memory[LD_STEPS_MAX + 1];
    unsigned memories;
};
void ld_report_begin(struct ld_report *r);
void ld_report_end(struct ld_report *r);
void ld_report_memory(struct ld_report *r, unsigned conns);
int ld_report_print(const struct ld_report *r);

/* A page that others may read and, at LD_CT_PAUSE, _STOP and _RATE, write while this runs
 * (bench/macro/hostile-dig.py). */
enum {
    LD_CT_PAUSE,    /* not 0: nothing new is sent */
    LD_CT_RECEIVED, /* messages */
    LD_CT_OPS = 5,
    LD_CT_OPENED, /* connections of a foe; those that the relay ended */
    LD_CT_ENDED,
    LD_CT_STOP = 10, /* not 0: the duration is over */
    LD_CT_RATE,      /* not 0: another --rate */
    LD_CT_N = 64,
};
extern volatile uint64_t *ld_counters;
void ld_counters_init(void);

struct ld_due {
    double n;
    uint64_t at_ns;
};
uint64_t ld_rate(void);
uint64_t ld_due(struct ld_due *d, uint64_t now_ns); /* ops; the caller takes what it did off n */

bool ld_foe_set(const char *name);
const char *ld_foe_names(void);
int ld_run_foe(void);

void ld_settle(void);
uint64_t ld_owed(void); /* messages that were allowed */
int ld_run_flow(void);
int ld_run_join(void);
int ld_run_idle(void);

#endif
