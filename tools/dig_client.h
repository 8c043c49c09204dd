/* tools/dig_client.h: one node of a DIG relay over plain WebSocket, one message at a time, blocking
 * up to a deadline. */
#ifndef SLUICE_TOOLS_DIG_CLIENT_H
#define SLUICE_TOOLS_DIG_CLIENT_H

#include "proto/dig.h"
#include "proto/ws.h"
#include "tools/turn_client.h"

enum {
    DC_TEXT_MAX = 1 << 21,  /* of a message that comes: a long list */
    DC_SAY_MAX = 1 << 17,   /* of one that goes */
    DC_BYTES_MAX = 1 << 14, /* of a payload: four characters each at most */
    DC_IN_BYTES = 1 << 16,
};

struct dc {
    struct tc tcp; /* the connection; its deadline holds for everything */
    const char *id, *net;
    bool spoke; /* it answered as a WebSocket server does */
    struct ws_rx ws;
    uint8_t in[DC_IN_BYTES];
    uint8_t *at; /* of `in`: not looked at yet */
    size_t left;
    uint8_t *text; /* the message that is gathered; DC_TEXT_MAX */
    size_t text_n;
    char why[TC_WHY]; /* after a failure: one line */
};

/* Connects and upgrades. false: c->why; c->spoke tells a refusal from silence. */
bool dc_open(struct dc *c, const struct netaddr *server, const struct netaddr *from,
             uint64_t deadline_ms);
/* By a Close that is answered, unless the deadline comes first. */
bool dc_close(struct dc *c);

bool dc_say(struct dc *c, struct bytes json);
/* Registers c->id in c->net; *connected: how many the relay has. */
bool dc_register(struct dc *c, uint64_t *connected);
bool dc_relay(struct dc *c, struct bytes to, struct bytes payload, uint64_t seq);
/* The next message, until `until_ms`: *text borrows from c until the next call. false with c->why
 * empty: none came. */
bool dc_next(struct dc *c, uint64_t until_ms, struct bytes *text);

PRINTF_LIKE(2, 3) bool dc_failed(struct dc *c, const char *fmt, ...);

#endif
