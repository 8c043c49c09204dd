/* tests/sim/sim_dig.h: clients of the DIG relay as a test moves them: JSON over WebSocket over the
 * streams of sim_net.h. A link is one connection of a client.
 *
 * Whatever is said between clients proves itself: it names the link that said it and its place in
 * the order, and sim_dig_said remembers to whom it was said, on which network, how long it was. It
 * must arrive there and nowhere else, unchanged, once, and behind all that the same link said to
 * the same listener before. Who was there all the time must hear it; what is missing may not be
 * more than what the relay says that it has lost (sim_dig_check_said).
 *
 * Everything that is asked (register, get_peers, ping, a Ping of WebSocket, a PEX handshake,
 * garbage) is a want: answers come in the order of wants, each exactly once. */
#ifndef SLUICE_TESTS_SIM_DIG_H
#define SLUICE_TESTS_SIM_DIG_H

#include "proto/dig.h"
#include "proto/ws.h"
#include "tests/sim/sim.h"

enum {
    SIM_DIG_CLIENTS = 32,
    SIM_DIG_IDS = 64, /* a set of them is a word */
    SIM_DIG_NETS = 3,
    SIM_DIG_WANTS = 1024,
    SIM_DIG_PING_MS = 20000, /* a registered client says something that often */
    SIM_DIG_OUT_MAX = 1 << 20,
};

struct sim_dig;
struct sim_dig_client;

enum sim_dig_want_kind {
    WANT_ACK,
    WANT_PONG,    /* value: the timestamp */
    WANT_WS_PONG, /* value: the payload */
    WANT_PEERS,   /* value: the network asked for; SIM_DIG_NETS: one's own */
    WANT_PEX,     /* handshake, and then: */
    WANT_SNAPSHOT,
    WANT_INVALID, /* code 2 */
    WANT_REFUSAL, /* value: nothing; behind a failed ack, code 4, 5, 6 or 7 */
    WANT_MAYBE,   /* value: so many messages, for each of which code 3 may come */
};
struct sim_dig_want {
    enum sim_dig_want_kind kind;
    uint64_t value;
};

/* What a link has said to others. */
struct sim_dig_said {
    bool broadcast;
    uint8_t id, net; /* the speaker's, then */
    uint8_t to;      /* an id */
    uint32_t payload_n;
    uint64_t exclude; /* ids */
    uint32_t sure;    /* clients that must hear it */
    uint32_t heard;   /* how many did */
};

struct sim_dig_link {
    struct sim_dig_client *client;
    unsigned serial;
    int ep;
    bool open;     /* bytes may still go both ways */
    bool upgraded; /* the 101 is there */
    bool acked;    /* it is registered, as far as it knows */
    bool asks_in;  /* a register is on its way */
    bool leaving;  /* it has said goodbye: whatever comes is good */
    bool excused;  /* the relay may end it */
    bool vanished; /* and nobody has been told */
    bool got_close;
    uint16_t close_code;
    unsigned refused;       /* the code with which it was */
    unsigned id, net;       /* of the registration; while acked */
    unsigned id_in, net_in; /* of the register that is on its way */
    struct ws_rx ws;
    uint8_t *in; /* of a message that is not whole, or of the answer to the upgrade */
    size_t in_n, in_cap;
    uint8_t *out; /* what still has to go */
    size_t out_from, out_to, out_cap;
    struct sim_dig_want want[SIM_DIG_WANTS];
    unsigned want_first, want_n;
    uint64_t ping_ms; /* it says something then */
    uint64_t deaf_ms; /* it reads nothing until then */
    size_t sip;       /* and then so much at a time; 0: all */
    /* What it believes of its network: ids. */
    bool has_view, has_book, asked_pex;
    uint64_t view, book;
    struct sim_dig_said *said;
    size_t said_n, said_cap;
    uint32_t *last; /* by serial: what it heard last of that link, + 1 */
    unsigned last_n;
};

struct sim_dig_client {
    struct sim_dig *d;
    unsigned idx;
    unsigned id, net;        /* that it will have next */
    struct sim_dig_link *at; /* NULL: none */
    uint64_t again_ms;       /* not before then */
};

struct sim_dig_counts {
    uint64_t links, refused, taken, acks, moved, renamed, refreshed, left, closed, fins, resets,
        vanished, swept, relayed, heard, no_target, broadcasts, broadcasts_heard, lists, pongs,
        snapshots, deltas, pushes, dht, garbage, deaf, slow, big, fragments, away;
};

struct sim_dig {
    struct sim *s;
    struct sim_dig_client client[SIM_DIG_CLIENTS];
    unsigned clients_n;
    struct sim_dig_link **links; /* by serial */
    unsigned links_n;
    bool ending; /* whoever is closed now has no reason to wonder */
    bool still;  /* nobody pings */
    bool memory; /* it may run short, and then the relay closes connections */
    uint64_t stamp;
    uint16_t next_port;
    char id[SIM_DIG_IDS][80], id_json[SIM_DIG_IDS][80];
    struct sim_dig_counts did;
};

#define SIM_DIG_LINKS_MAX 4096

/* The door at 10.0.0.1:9450, with little of everything. */
void sim_dig_config(struct config *c);
void sim_dig_init(struct sim_dig *d, struct sim *s);
void sim_dig_fini(struct sim_dig *d);
struct sim_dig_client *sim_dig_client(struct sim_dig *d, unsigned id, unsigned net);
void sim_dig_look(struct sim_dig *d);    /* after every step */
void sim_dig_hang_up(struct sim_dig *d); /* all of them, one way or another */

static inline bool sim_dig_is_hex(unsigned id)
{
    return id % 4 != 3; /* the others have a quote and an umlaut in them */
}
const char *sim_dig_net_name(unsigned net);
/* A link that is up and registered, and means to stay. */
static inline bool sim_dig_stays(const struct sim_dig_link *l)
{
    return l != NULL && l->open && l->acked && !l->asks_in && !l->leaving && !l->vanished;
}

/* shard: -1 for any. Upgrades at once; the bytes may lie in the socket together. */
struct sim_dig_link *sim_dig_connect(struct sim_dig_client *c, int shard);
void sim_dig_register(struct sim_dig_link *l, unsigned id, unsigned net);
/* n: length of the payload; >= 6. */
void sim_dig_relay(struct sim_dig_link *l, unsigned to, size_t n);
void sim_dig_broadcast(struct sim_dig_link *l, uint64_t exclude, size_t n);
void sim_dig_get_peers(struct sim_dig_link *l, unsigned net); /* SIM_DIG_NETS: one's own */
void sim_dig_ping(struct sim_dig_link *l);
void sim_dig_ws_ping(struct sim_dig_link *l);
void sim_dig_pex(struct sim_dig_link *l);
void sim_dig_garbage(struct sim_dig_link *l);
enum sim_dig_bye { BYE_UNREGISTER, BYE_CLOSE, BYE_FIN, BYE_RST, BYE_SILENCE };
void sim_dig_bye(struct sim_dig_link *l, enum sim_dig_bye how);

/* When all is quiet: wants have their answers, views and books are what is so; what is missing of
 * what was said is at most so many messages. */
void sim_dig_check_quiet(struct sim_dig *d, bool books);
unsigned sim_dig_check_said(struct sim_dig *d, uint64_t lost_max);
uint64_t sim_dig_lost(struct sim *s);

/* Among its files. */
void sim_dig_text(struct sim_dig_link *l, const char *text);
void sim_dig_emit(struct sim_dig_link *l, enum ws_opcode op, const void *p, size_t n);
void sim_dig_hear(struct sim_dig_link *l, struct bytes text);
void sim_dig_pong(struct sim_dig_link *l, const struct ws_event *ev);
bool sim_dig_wants(struct sim_dig_link *l, enum sim_dig_want_kind kind, uint64_t *value);
void sim_dig_want(struct sim_dig_link *l, enum sim_dig_want_kind kind, uint64_t value);
void sim_dig_unsure(struct sim_dig *d, const struct sim_dig_client *c); /* it may miss things */
uint8_t sim_dig_filler(unsigned serial, uint32_t seq, size_t i);

/* sim_check_dig.c */
void sim_check_dig(struct sim *s);
void sim_check_dig_ended(struct sim *s);

#endif
