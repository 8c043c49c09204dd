/* engine/turn_say.h: the log lines of TURN: when an allocation opens and closes, and when a source
 * gets no more replies. Never a credential, key, nonce or password; what a client chose is made
 * printable first. */
#ifndef SLUICE_ENGINE_TURN_SAY_H
#define SLUICE_ENGINE_TURN_SAY_H

#include "proto/maddr.h"

struct turn_shard;
struct turn_client;

enum {
    TURN_USER_MAX = 48, /* as struct turn_client has room for */
    TURN_SAY_SOURCE_MS = 60000,
    TURN_SAY_BURST =
        32, /* lines about limits, of all sources and shards; then one per so many ms */
    TURN_SAY_REFILL_MS = 2000,
};

/* A username as listings and lines show it (printable.h). */
void turn_say_user(struct bytes name, char out[TURN_USER_MAX]);

/* It is granted; it has ended, and its alloc can still be read. why: static storage. */
void turn_say_opened(struct turn_shard *ts, const struct turn_client *c);
void turn_say_closed(struct turn_shard *ts, const struct turn_client *c, const char *why);
/* A reply to this source was kept back: said at most once a minute for its /24 or /48, exact across
 * shards, and within TURN_SAY_BURST for all sources together, because sources can be forged. */
void turn_say_limited(struct turn_shard *ts, const struct netaddr *source);

#endif
