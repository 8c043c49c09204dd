/* tests/sim/sim_gossip.h: clients who gossip, on sim_peer.h's connections, and what must be so.
 *
 * Each message names its place in the order of all, and its bytes are known. Heard it may be by who
 * (its peer, by any connection) has ever subscribed to its topic; never by its author, never by the
 * one who alone brought it, never twice by one connection. Steady clients, who read and stay, must
 * hear all that steady ones say. */
#ifndef SLUICE_TESTS_SIM_GOSSIP_H
#define SLUICE_TESTS_SIM_GOSSIP_H

#include "engine/svc_gossip_int.h"
#include "tests/sim/sim_peer.h"

enum { GOSSIPERS_MAX = 512, GOSSIP_SAID_MAX = 2048 };

struct gossiper {
    struct sim_conn *conn;
    unsigned ident;
    uint8_t subs; /* that it says */
    bool steady;
    bool opened;
    bool quits; /* it has hung up */
    struct sim_stream *says, *hears;
    struct sim_queue tx, rx;
    unsigned told; /* SUBSCRIBEs of the relay */
    uint8_t got[GOSSIP_SAID_MAX / 8];
    uint64_t heard, ihaves, asked;
    bool asks; /* for what IHAVE tells */
};

struct gossip_said {
    unsigned author; /* ident */
    struct gossiper *by;
    enum gossip_topic topic;
    struct bytes body; /* of the message */
    bool must;
    bool alone; /* nobody else brings it */
    uint64_t id;
};

struct sim_gossip {
    struct sim *s;
    struct gossiper *client[GOSSIPERS_MAX];
    size_t clients_n;
    struct gossip_said said[GOSSIP_SAID_MAX];
    size_t said_n;
    uint8_t ever[SIM_IDENTS_MAX]; /* topics, of an identity */
    uint64_t heard, again;
};

/* Takes the simulation's hook and arg. */
void sim_gossip_init(struct sim_gossip *g, struct sim *s);
void sim_gossip_free(struct sim_gossip *g);
/* NULL: the connection was refused. */
struct gossiper *sim_gossip_join(struct sim_gossip *g, unsigned ident, int shard, uint8_t subs,
                                 bool steady);
/* by brings a message of an author; by == NULL: nobody yet (sim_gossip_bring). */
struct gossip_said *sim_gossip_say(struct sim_gossip *g, struct gossiper *by, unsigned author,
                                   enum gossip_topic topic, size_t bytes);
void sim_gossip_bring(struct sim_gossip *g, struct gossiper *by, const struct gossip_said *m);
void sim_gossip_subscribe(struct sim_gossip *g, struct gossiper *c, enum gossip_topic t, bool on);
void sim_gossip_raw(struct gossiper *c, struct bytes b); /* by its stream, whatever it is */
static inline bool sim_gossip_got(const struct gossiper *c, size_t i)
{
    return c->got[i / 8] >> i % 8 & 1;
}
/* Opens streams, sends as far as credit goes. Once per step. */
void sim_gossip_look(struct sim_gossip *g);
/* Have all steady clients all that they must? */
bool sim_gossip_settled(const struct sim_gossip *g);
/* Is every steady client's subscription known to the relay? */
bool sim_gossip_ready(const struct sim_gossip *g);

/* sim_check_gossip.c */
void sim_check_gossip(struct sim *s);
void sim_check_gossip_in(struct sim *s, const struct stream *st);

#endif
