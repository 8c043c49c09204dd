/* engine/ring.h: the narrow seam to the kernel: prepare, submit, next completion, provided buffers,
 * and the few plain system calls on sockets that the simulation must own too. Two bodies:
 * ring_uring.c over liburing, tests/sim/ring_sim.c seeded and in memory (design.md "One seam").
 *
 * One ring per thread, created on it. Nothing here blocks but ring_wait.
 * Ownership: buffers of a receive are *lent* to the kernel through the group and *leased* to the
 * caller from the CQE until ring_buf_return. Payload of a send is lent from ring_sendmsg to its
 * CQE; msghdr and iovec only until the next ring_wait. */
#ifndef SLUICE_ENGINE_RING_H
#define SLUICE_ENGINE_RING_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "engine/mbox.h"
#include "proto/base.h"
#include "proto/maddr.h"

/* user_data: operation, index and generation, never a pointer: a late CQE for a recycled slot is
 * recognised (io_uring.md §6). */
static inline uint64_t ud_make(uint8_t op, uint32_t gen24, uint32_t idx)
{
    return (uint64_t)op << 56 | (uint64_t)(gen24 & 0xffffff) << 32 | idx;
}
static inline uint8_t ud_op(uint64_t ud)
{
    return (uint8_t)(ud >> 56);
}
static inline uint32_t ud_gen(uint64_t ud)
{
    return (uint32_t)(ud >> 32) & 0xffffff;
}
static inline uint32_t ud_idx(uint64_t ud)
{
    return (uint32_t)ud;
}

struct ring_cqe {
    uint64_t ud;
    int32_t res;
    bool more;     /* IORING_CQE_F_MORE: the request lives on */
    bool nonempty; /* a receive left bytes in the socket: re-arm without empty_now */
    bool has_buf;  /* a provided buffer is leased: `buf`, to be returned whatever `res` says */
    uint16_t bid;
    uint8_t *buf;
};

struct ring; /* body's own */

struct ring_opts {
    unsigned sq_entries; /* power of two */
    unsigned cq_entries;
    unsigned bufs; /* of the stream receive group, a power of two; 0 = none */
    unsigned buf_bytes;
    /* Doorbells that this ring rings always go by eventfd: a start-up self-test of MSG_RING failed,
     * or a test wants that path. */
    bool no_msg_ring;
    /* The owner's mailbox, or NULL. With one, ring_wait does not sleep while it holds mail, and so
     * a doorbell to an owner that is awake is needless and not rung. */
    const struct mbox *mail;
};

/* On the thread that will own it. NULL with *err = -errno; *what names the step for the error line.
 * At "io_uring_setup", -EPERM means forbidden (seccomp or the sysctl kernel.io_uring_disabled),
 * -ENOSYS a kernel without it, -EINVAL one too old (io_uring.md §2). */
struct ring *ring_new(const struct ring_opts *o, int *err, const char **what);
/* By its owner, when no other thread can ring or wake it any more. Armed requests are cancelled
 * without completions; their files are the caller's to close. */
void ring_free(struct ring *r);

/* Preparing never fails: when the submission queue is full the body submits and goes on. */

/* Multishot; res = new fd. -EMFILE and -ENFILE end it: re-arm from a timer (§6). The kernel takes
 * RLIMIT_NOFILE as it is while arming. */
void ring_accept(struct ring *r, int fd, uint64_t ud);
/* Multishot, into buffers of the group. empty_now: POLL_FIRST. -ENOBUFS: the group is dry; re-arm
 * when a quarter is free (§7.2). Without `more` it is over whatever res says. */
void ring_recv(struct ring *r, int fd, uint64_t ud, bool empty_now);
/* MSG_NOSIGNAL. res may be short. One per stream at a time, or bytes interleave (§8). */
void ring_sendmsg(struct ring *r, int fd, const struct msghdr *msg, uint64_t ud);
void ring_poll_in(struct ring *r, int fd, uint64_t ud); /* multishot readability */
void ring_read(struct ring *r, int fd, void *p, unsigned n, uint64_t ud);
/* Never a socket: it would raise SIGPIPE; ring_sendmsg does not. */
void ring_write(struct ring *r, int fd, const void *p, unsigned n, uint64_t ud);
/* All requests of fd. Its own completion (res: how many; 0 or -ENOENT: none) may come before
 * theirs, and a cancelled receive may still complete with data (§6). */
void ring_cancel_fd(struct ring *r, int fd, uint64_t ud);
/* Wakes `target`'s owner with a CQE of user_data `ud`, not 0 (MSG_RING; eventfd inside the body
 * when that is refused). No completion at home. Doorbells with the same ud may merge into one;
 * should the body run out of room for a refused one, a completion of RING_WAKE_OP comes instead, so
 * the owner answers either by looking into all its mailboxes. Sent with the next ring_wait. */
void ring_doorbell(struct ring *r, struct ring *target, uint64_t ud);
/* Small work for an owner that sleeps costs more in wake-ups than in work: another owner may do it
 * on its own thread. From true on until ring_give_back the borrower is the owner, but for waiting
 * and for taking completions; an owner that wakes up meanwhile waits, so be short, and prepare at
 * most RING_BORROW_MAX requests. false: it is awake, or lent already. */
MUST_USE bool ring_borrow(struct ring *target);
/* true: requests were prepared, which only the owner can submit: ring its doorbell. */
MUST_USE bool ring_give_back(struct ring *target);
enum { RING_BORROW_MAX = 64 };
/* From a thread that owns no ring (signal handling, log): async-signal-safe eventfd write. */
void ring_wake(struct ring *target);
enum {
    RING_WAKE_OP = 0xff,     /* ud_op of a ring_wake completion */
    RING_INTERNAL_OP = 0xfe, /* the body's own: reserved, never seen by the owner */
};

/* Submits everything and waits (see ring_opts.mail, too) until at least one completion, or until
 * timeout_ns passed (0: do not wait; UINT64_MAX: no timeout). 0, or -errno that the owner cannot
 * ignore. */
MUST_USE int ring_wait(struct ring *r, uint64_t timeout_ns);
bool ring_next(struct ring *r, struct ring_cqe *cqe); /* false: none left for now */

struct ring_counts {
    uint64_t cq_overflows;      /* turns that found the completion queue overflown (§4): stays 0 */
    uint64_t doorbells_refused; /* went by eventfd instead */
};
void ring_counts(const struct ring *r, struct ring_counts *out);

void ring_buf_return(struct ring *r,
                     uint16_t bid);            /* given back by the next ring_wait, in one go */
unsigned ring_bufs_free(const struct ring *r); /* not leased */
unsigned ring_buf_bytes(const struct ring *r);

/* Plain socket calls, synchronous, never blocking. All return 0 or a value, or -errno. Sockets are
 * not O_NONBLOCK: on those io_uring answers -EAGAIN instead of waiting. */

/* The listening fd. A v4-mapped `at` gives an AF_INET socket; [::] without v6only is dual stack.
 * `bound` (NULL: not wanted) tells the port really bound. */
MUST_USE int ring_listen_tcp(const struct netaddr *at, bool v6only, bool reuseport, int backlog,
                             struct netaddr *bound);
/* r may be NULL for a listener that was never armed. Nothing of fd may be in flight: an armed
 * receive keeps the socket open, without FIN and without a completion (§6). */
void ring_close(struct ring *r, int fd);
int ring_shutdown(int fd, int how);
/* What the socket takes now, at once: for a borrower. No send may be in flight. */
int ring_send_now(int fd, const struct msghdr *msg);
int ring_peername(int fd, struct netaddr *out);
int ring_sockname(int fd, struct netaddr *out);
enum { RING_TCP_NOTSENT_LOWAT_BYTES = 128 * 1024 }; /* io_uring.md §8: 64-256 KiB */
/* TCP_NODELAY, keepalive and TCP_USER_TIMEOUT as limits.h says (libp2p.md §2, presets.md "vanished
 * peer"), and NOTSENT_LOWAT. */
int ring_tune_tcp(int fd);

/* Datagrams, synchronous too: a receive into a shared buffer and a send cost the kernel 3 us
 * however they are asked for (io_uring.md §10.3), a buffer is lent to nobody, an empty datagram
 * ends no multishot, and an idle socket holds a poll (0.26 KiB) instead of a receive (1.8 KiB).
 * Readiness is told by ring_poll_in, by edges: read until fewer came than were asked for. */

enum ring_udp_flags {
    RING_UDP_V6ONLY = 1,
    RING_UDP_REUSEPORT = 2,
    RING_UDP_PKTINFO = 4, /* tell the local address of what comes: a wildcard socket's need */
    RING_UDP_ERRORS = 8,  /* IP_RECVERR: ring_udp_error says what ICMP said */
};
/* The bound fd, receiving trains (UDP_GRO) where the kernel can; rcvbuf 0: the system's default.
 * A v4-mapped `at` gives an AF_INET socket. */
MUST_USE int ring_bind_udp(const struct netaddr *at, unsigned flags, int rcvbuf_bytes,
                           struct netaddr *bound);

struct ring_dgram {
    uint8_t *buf; /* the caller's */
    size_t cap;
    size_t n;         /* may be 0 */
    uint16_t segment; /* != 0: a train: datagrams of so many bytes, the last one may be shorter */
    bool truncated;   /* cap was too small */
    bool has_local;
    uint8_t local[16]; /* where it arrived, if asked for */
    bool to_many;      /* and that is a group's address, or everybody's; the caller's false */
    struct netaddr from;
};
enum { RING_DGRAMS_MAX = 16 };
/* Up to count (RING_DGRAMS_MAX) receives. How many came: fewer than asked for: there is no more
 * now. 0: none; else -errno: an error that ICMP brought (-ECONNREFUSED and its kin) is taken by
 * being told, and the next call goes on. */
int ring_udp_recv(int fd, struct ring_dgram *d, unsigned count);

struct ring_udp_out {
    const struct netaddr *to;
    const uint8_t *local; /* the address to send from; NULL: as the socket is bound */
    bool v6;              /* of the socket: a dual-stack one takes IPv4 as mapped */
    struct iovec *iov;
    size_t iov_n;
    uint16_t segment; /* != 0: cut into datagrams of so many bytes (UDP_SEGMENT) */
};
/* Bytes, or -errno: -EAGAIN and -ENOBUFS: drop it; -EINVAL, -EMSGSIZE: a segment longer than the
 * path takes; -EIO: this way out cannot segment. */
int ring_udp_send(int fd, const struct ring_udp_out *o);
int ring_udp_dont_fragment(int fd, bool v6, bool on); /* of all it sends from now on */

/* One ICMP error about something that was sent, from the error queue. false: none left. */
struct ring_icmp {
    struct netaddr peer; /* where that was sent to */
    bool v6;
    uint8_t type, code;
    uint32_t mtu; /* of packet too big / fragmentation needed; else 0 */
};
bool ring_udp_error(int fd, struct ring_icmp *out);

/* Streams beside the ring (RFC 6062), non-blocking, on the shard's thread (io_uring.md §9). */

/* One CQE, once one of `mask` is so or the socket is broken (POLLERR, POLLHUP); at once if it is so
 * already, so nothing is missed between a look and this. mask 0: only broken. */
void ring_poll_once(struct ring *r, int fd, int mask, uint64_t ud);
/* Ends the one request that was prepared with the user_data `target`, found by that and not by a
 * look at them all. Its own completion bears `ud`, and may come before the other's. */
void ring_cancel_ud(struct ring *r, uint64_t target, uint64_t ud);
/* Starts to connect from `from`, which a listener may hold too (NULL: as the system likes);
 * -EINPROGRESS is no error: POLLOUT comes when it is decided, and ring_connect_result says how. The
 * fd, or -errno. */
MUST_USE int ring_connect_tcp(const struct netaddr *from, const struct netaddr *to);
int ring_connect_result(int fd); /* 0, -errno, or -EINPROGRESS */
/* One that has connected becomes like those that were accepted: from now on requests wait. */
int ring_blocking(int fd);
/* Of a listener that has its port alone: from now on ring_connect_tcp may start from there. To have
 * listened with SO_REUSEPORT would have let it in beside anybody's listener who shares, ours too.
 */
MUST_USE int ring_share_port(int fd);

/* Bytes that have come, left where they are: their count, 0 at the end of the stream, or -errno. */
int ring_peek(int fd, void *p, size_t n);
/* Takes up to n bytes that were peeked at, unread. */
int ring_discard(int fd, size_t n);

/* A pipe that carries bytes from socket to socket unread. */
struct ring_pipe {
    int in, out; /* written to, read from */
    size_t cap;
};
/* 0, or -errno: -ENOSYS: this body has none. cap is what the kernel granted, at most n. */
MUST_USE int ring_pipe_new(struct ring_pipe *p, size_t n);
void ring_pipe_free(struct ring_pipe *p);
/* Bytes moved; of _in 0 at the end of the stream; or -errno. -EAGAIN of _in means an empty socket
 * only while the pipe is empty. The socket must have been through ring_tune_raw: the kernel's flag
 * for one call covers the pipe alone. */
int ring_splice_in(struct ring_pipe *p, int fd, size_t n);
int ring_splice_out(struct ring_pipe *p, int fd, size_t n);
/* As ring_tune_tcp, but non-blocking, so that nothing but polls may be in flight on it, and without
 * NOTSENT_LOWAT: nothing queues in user space here, and a sender that is woken at 128 KiB moves too
 * little at a time. */
int ring_tune_raw(int fd);

#endif
