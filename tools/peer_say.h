/* tools/peer_say.h: what sluice-peer tells people and programs. */
#ifndef SLUICE_TOOLS_PEER_SAY_H
#define SLUICE_TOOLS_PEER_SAY_H

#include "proto/hop.h"

extern const char peer_usage[];
extern bool peer_json; /* JSON lines instead of text */

/* One line: an event, its main value, then key, text pairs up to a NULL key. */
void say(const char *event, const char *name, const char *value, ...) __attribute__((sentinel));
enum { NUMBER_TEXT = 24 };
const char *number(char buf[NUMBER_TEXT], uint64_t v);
const char *status_text(enum hop_status s);

/* Is the IP address `forbidden` (text) in these bytes, as text or as a multiaddr spells it? */
bool tells_address(struct bytes got, const char *forbidden);
/* How many addresses of the caller a STOP message carries. */
unsigned stop_addresses(struct bytes msg);

#endif
