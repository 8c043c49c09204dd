/* tests/sim/sim_net.h: one seeded network in memory, its clock and its faults, and the far ends of
 * connections as a test scripts them. The near ends are file descriptors of ring_sim.c, which is
 * the other body of engine/ring.h (design.md "One seam for simulation").
 *
 * One network at a time, one thread. Nothing sleeps: time stands still until sim_net_step finds
 * that nobody has anything to do now, and then jumps to the next event. The same seed and the same
 * calls give the same run.
 *
 *     struct sim_net *net = sim_net_new(seed, (struct sim_opts){ .short_send_pct = 30 });
 *     … rings with ring_new, listeners with ring_listen_tcp, endpoints with sim_connect …
 *     while (!done && sim_net_step(net))
 *         … each ring's owner takes one turn, each endpoint looks at its bytes …
 *     … free everything of the engine's …
 *     cr_assert(sim_net_check(net) == NULL, "%s", sim_net_check(net)); */
#ifndef SLUICE_TESTS_SIM_NET_H
#define SLUICE_TESTS_SIM_NET_H

#include "proto/maddr.h"

/* Chances are per event and in percent; 0 everywhere is a fair network that is merely instant. */
struct sim_opts {
    unsigned short_send_pct;  /* a send takes a part although all would fit */
    unsigned late_send_pct;   /* a send starts up to cqe_delay_ms_max later */
    unsigned short_recv_pct;  /* a receive brings a part of what is there */
    unsigned enobufs_pct;     /* a receive finds the group dry although it is not */
    unsigned lost_more_pct;   /* a multishot ends with a completion that is otherwise good */
    unsigned emfile_pct;      /* an accept fails with -EMFILE, which ends it */
    unsigned cancel_data_pct; /* a cancelled receive ends with data, if there is any */
    unsigned late_cqe_pct;    /* a completion is late; the order within one request stays */
    unsigned cqe_delay_ms_max;
    unsigned refuse_pct;        /* a far end that listens refuses */
    unsigned lend_pct;          /* an owner may work for one that sleeps */
    unsigned bell_delay_ms_max; /* a doorbell is late by up to this */
    unsigned net_delay_ms_max;  /* bytes, FIN, RST and connects on their way; order stays */
    unsigned vanish_ms;         /* until a vanished far end is noticed; 0: 75 000 */
    unsigned socket_bytes;      /* unread and under way, per direction; 0: 65 536 */
    unsigned fds_max;           /* 0: 4096 */
    uint64_t start_ms;          /* 0: 1 000 000 */

    /* Datagrams. Delays are net_delay_ms_max; the order of a flow stays but for what is late. */
    unsigned udp_loss_pct, udp_dup_pct;
    unsigned udp_late_pct;     /* a datagram lets others overtake it */
    unsigned udp_split_pct;    /* a train is received in two (each datagram may be the last one) */
    unsigned udp_again_pct;    /* a send fails with -EAGAIN or -ENOBUFS */
    unsigned udp_segments;     /* of a train that is sent; 0: 64, as before Linux 6.9 */
    unsigned udp_eio_pct;      /* a train is refused: this way out cannot segment */
    unsigned udp_truncate_pct; /* a receive finds the buffer too small */
    unsigned udp_in_use_pct;   /* somebody else has that port */
    unsigned udp_emfile_pct;   /* no descriptor for a new socket */
    unsigned udp_mtu;          /* of the path, IP header and all; 0: any length goes */
    unsigned udp_queue;        /* datagrams that a socket keeps unread; 0: 4096 */
};

/* What happened, so that a test can see that its faults did. */
struct sim_counts {
    uint64_t accepts, recvs, sends, bytes_in, bytes_out; /* the engine's */
    uint64_t short_sends, waiting_sends, late_sends, short_recvs;
    uint64_t enobufs_dry, enobufs_fault, lost_more, emfile;
    uint64_t cancelled, cancel_first, cancel_data, late_cqes;
    uint64_t bells, bells_merged, bells_spared, wakes, lent;
    uint64_t fins, resets;
    uint64_t udp_in, udp_out, udp_bytes_out, udp_lost, udp_dup, udp_late, udp_full;
    uint64_t udp_trains_in, udp_trains_out, udp_split, udp_truncated, udp_again, udp_eio,
        udp_einval;
    uint64_t udp_too_long, udp_icmp, udp_errors, udp_in_use, udp_emfile;
};

struct sim_net;

struct sim_net *sim_net_new(uint64_t seed, struct sim_opts o);
/* Frees everything, whatever its state; rings must be free already. */
void sim_net_free(struct sim_net *net);
void sim_lend_pct(struct sim_net *net, unsigned pct); /* from now on */

/* true: somebody may have something to do at sim_net_now_ms, which may be later than before. Give
 * every ring's owner one turn and every script a look. false: nothing will ever happen again. */
bool sim_net_step(struct sim_net *net);
/* Whether this ring's owner has anything to do now. One that sleeps must not get a turn, or the
 * wake-ups that it does not get stay unseen. */
struct ring;
bool sim_ring_awake(struct ring *r);
uint64_t sim_net_now_ms(const struct sim_net *net);
/* Called with every new time, and at once: the place to move the engine's clock. */
void sim_net_on_time(struct sim_net *net, void (*fn)(void *arg, uint64_t now_ms), void *arg);
/* A script's own timer: no step jumps over `at_ms`. The earliest one stands; it is spent when
 * reached. */
void sim_net_alarm(struct sim_net *net, uint64_t at_ms);

/* NULL when all is well. To be asked after the engine has freed everything but its rings: nothing
 * in flight, no descriptor open, no buffer leased, and no rule broken on the way. Rules: one
 * receive and one send at a time per socket, no operation on a closed or changed descriptor, the
 * payload of a send unchanged until its completion, no socket closed under a request. */
const char *sim_net_check(struct sim_net *net);
/* The same, but only the rules: at any time. */
const char *sim_net_broken(const struct sim_net *net);
const struct sim_counts *sim_net_counts(const struct sim_net *net);
unsigned sim_net_fds_open(const struct sim_net *net);
/* Faults from now on, for a test that ends in fair weather. */
void sim_net_set_opts(struct sim_net *net, struct sim_opts o);

/* The network's own random numbers, for scripts. */
uint64_t sim_below(struct sim_net *net, uint64_t n); /* 0..n-1; n > 0 */
bool sim_chance(struct sim_net *net, unsigned pct);

/* Far ends */

/* An endpoint, or -ECONNREFUSED when nobody listens at `to`. Bytes may be sent at once. */
int sim_connect(struct sim_net *net, const struct netaddr *to, const struct netaddr *from);
/* The next connect goes to the idx-th open listener (in order of binding) of those that match; by
 * default the seed chooses. This places a connection on a shard. */
void sim_place_next(struct sim_net *net, unsigned idx);
/* How many bytes sim_send takes now. */
size_t sim_room(struct sim_net *net, int ep);
/* Bytes taken, possibly 0; -EPIPE after sim_shut, -ECONNRESET when the engine reset. */
long sim_send(struct sim_net *net, int ep, const void *p, size_t n);
/* Bytes read; 0 at the end of the stream; -EAGAIN when there is nothing now; -ECONNRESET. */
long sim_recv(struct sim_net *net, int ep, void *p, size_t n);
void sim_shut(struct sim_net *net, int ep);   /* FIN; still reads */
void sim_close(struct sim_net *net, int ep);  /* FIN; what still comes is answered with RST */
void sim_reset(struct sim_net *net, int ep);  /* RST */
void sim_vanish(struct sim_net *net, int ep); /* its host is gone: nothing moves any more */
bool sim_accepted(const struct sim_net *net, int ep);

/* A far end that listens for what the engine connects to; sim_close ends it. */
int sim_far_listen(struct sim_net *net, const struct netaddr *at);
/* The next that has connected, an endpoint as sim_connect gives; -EAGAIN: nobody has. */
int sim_far_accept(struct sim_net *net, int ep, struct netaddr *from);

/* Datagrams: sim_udp.c */

/* A socket of all addresses has 10.0.0.0/24 and 2001:db8::/64: the engine's host. */

/* A far end that is bound at `at`, which nobody else is. */
int sim_udp_open(struct sim_net *net, const struct netaddr *at);
void sim_udp_shut(struct sim_net *net, int ep); /* what comes now is answered by ICMP */
/* One datagram; several in one step may become a train where they arrive. */
void sim_udp_emit(struct sim_net *net, int ep, const struct netaddr *to, const void *p, size_t n);
/* Its length, which may be more than cap; -EAGAIN: none there. */
long sim_udp_take(struct sim_net *net, int ep, struct netaddr *from, void *p, size_t cap);
/* Which of the engine's sockets that are bound alike (in order of binding) gets what `from` sends
 * to `to`: a hash of the 4-tuple, so that a client that wants a certain shard tries ports. -1:
 * nobody is there. */
int sim_udp_lands(struct sim_net *net, const struct netaddr *to, const struct netaddr *from);
unsigned sim_udp_fds(const struct sim_net *net); /* datagram sockets that the engine has open */
/* One of them with something unread while everybody sleeps and no news of it is on its way; -1. */
int sim_udp_unread(struct sim_net *net);
/* ICMP says of what went from `from` to `to` that it did not get there. */
void sim_udp_icmp(struct sim_net *net, const struct netaddr *from, const struct netaddr *to,
                  uint8_t type, uint8_t code, uint32_t mtu);

#endif
