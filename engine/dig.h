/* engine/dig.h: the DIG door of a shard (dig.md): JSON over WebSocket, perhaps over TLS, perhaps
 * behind a balancer. What the rest of the engine calls; dig_int.h is for the files of the door.
 *
 *     clients ── dig_accept ── dig_conn ── dig_rx ── dig_msg ── dig_route ── dig_tx ── clients
 *                                            │          │           │
 *                                            tls     dig_ask      mailboxes of other shards
 *                                                       │
 *                                                  dig_control (registry, PEX, presence, pages)
 *
 * A message between two clients never leaves the shards: its target is found in a table that
 * control writes and everybody reads (homes.h), its payload's text is copied from frame to frame.
 * Whatever needs all clients is asked of control by mail, and the connection that asked reads on
 * when the answer is there, so that it hears things in the order in which it said them. */
#ifndef SLUICE_ENGINE_DIG_H
#define SLUICE_ENGINE_DIG_H

#include "engine/homes.h"
#include "engine/listener.h"
#include "engine/shared.h"
#include "engine/tls_next.h"

struct config;
struct control;
struct daemon;
struct dig_shard;
struct quota;

/* What the shards share: made before they start, const afterwards unless it says atomic. */
struct dig_host {
    const struct config *cfg; /* keeps */
    struct quota *quota;      /* keeps */
    struct homes *homes;      /* of registrants, by a hash of network and id */
    uint8_t key[2][16];       /* of that hash */
    struct shared_pool shared;
    struct dig_ban *bans;
    struct dig_gate *gate[64]; /* per shard and slot: dig_int.h */
    struct tls_next tls[64];   /* per shard: the certificate, and after a reload another */
    bool tls_on;
    uint64_t key_conns;
    uint64_t start_ms;
    /* For pages and checks. */
    _Atomic uint32_t registered, networks, open;
};

MUST_USE int dig_host_init(struct dig_host *h, const struct config *cfg, struct quota *q,
                           unsigned shards, char *why, size_t cap);
/* The certificate and key that cfg names; NULL with a line in `why`. Reads files: not on a thread
 * that serves. set takes it: a shard begins with it from its next handshake on. */
struct tls_server *dig_tls_load(const struct config *cfg, char *why, size_t cap);
void dig_host_set_tls(struct dig_host *h, struct tls_server *fresh); /* control, or the start */
void dig_host_fini(struct dig_host *h, unsigned shards);
/* turn_host.is_known: somebody is connected from there, or from that IPv6 /64. */
bool dig_host_knows(void *host, const struct netaddr *client);
size_t dig_host_left(const struct dig_host *h); /* clients, homes, messages: 0 when all have gone */

struct shard;
MUST_USE int dig_shard_new(struct shard *s, struct dig_host *h); /* sets s->dig */
void dig_shard_free(struct shard *s);
void dig_shard_start(struct dig_shard *ds, const int *fds, unsigned n);
void dig_on_cqe(struct dig_shard *ds, const struct ring_cqe *cqe);
void dig_on_timer(struct dig_shard *ds, struct timer *t);
void dig_on_mail(struct dig_shard *ds, struct mnode *n);
void dig_pass(struct dig_shard *ds);       /* end of turn: goes on, sends, reaps */
bool dig_busy(const struct dig_shard *ds); /* there is work that waits for nothing */
void dig_drain(struct dig_shard *ds);
void dig_stop(struct dig_shard *ds);
bool dig_ended(const struct dig_shard *ds);
void dig_assert_empty(const struct dig_shard *ds);

/* dig_control.c: on control's thread. */
struct dig_control;
struct dig_control *dig_control_new(struct control *c, struct dig_host *h, int *err);
void dig_control_free(struct dig_control *dc);
void dig_control_on_mail(struct dig_control *dc, struct mnode *n);
void dig_control_tick(struct dig_control *dc);
uint64_t dig_control_deadline_ms(const struct dig_control *dc);
/* dig_map.c: who knows where addresses are; keeps it. Before control's first turn; without it
 * nobody is placed. It is to wake control. */
struct geoip;
void dig_control_set_geoip(struct dig_control *dc, struct geoip *g);
void dig_control_reopen_geoip(struct dig_control *dc, const char *path);

#endif
