/* tools/load_p2p_foe.h: what the two parts of an attack share: load_p2p_attack.c has the
 * connections, load_p2p_foe.c what is said on them. */
#ifndef SLUICE_TOOLS_LOAD_P2P_FOE_H
#define SLUICE_TOOLS_LOAD_P2P_FOE_H

#include "tools/load_p2p.h"

enum foe_kind { RANDOM, OVERSIZE, WINDOW, SYN, PING, RST, TINY, RESERVE, CONNECT, HALFOPEN };

enum { OWN_IDS = 1 << 24 }; /* foes name streams themselves, far above those of proto/yamux */

/* Where random or oversized bytes are said. RAW ones speak before Noise. */
enum stage {
    ST_RAW_FIRST, /* instead of /multistream/1.0.0 */
    ST_RAW_MSS,
    ST_RAW_NOISE,
    ST_RAW_END,
    ST_MUXER = ST_RAW_END, /* in the channel, while the relay waits for /yamux/1.0.0 */
    ST_RECORD,             /* instead of a record */
    ST_YAMUX,
    ST_HOP,
    ST_STOP, /* as the answer to the relay's own stream */
    ST_IDENT,
    ST_PUSH,
    ST_PING,
    ST_END,
};

struct foe {
    struct lp_peer me;
    struct lp_conn *c;
    bool up, reserved;
    int fd; /* of a raw one; -1: none */
    uint8_t stage;
    bool said; /* a raw one has nothing more to say */
    bool spoke;
    uint32_t life, ops; /* ops of this life */
    uint32_t next_id, circuit_id;
    uint64_t again_ns, until_ns;
    size_t payload_n; /* of me.noise, whole */
};

/* foe is an array; the neighbour of an even one is the odd one behind it. */
struct attack {
    enum foe_kind kind;
    struct foe *foe;
    unsigned n;
    uint64_t bytes; /* said */
};
extern struct attack attack;

void foe_init(void);
void foe_op(struct foe *f); /* what the kind of attack is: into the record of the turn, mostly */
bool foe_record_full(void);
void foe_say(struct foe *f); /* that record leaves */
uint64_t foe_any(void);
void foe_any_bytes(uint8_t *p, size_t n);

#endif
