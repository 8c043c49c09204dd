/* proto/dig_scan.h: the one strict pass over a relay_message or a broadcast, dig.md §4.1, §5.4 and
 * §5.5: it validates the whole JSON text and finds what forwarding needs, so that the payload's
 * text goes from frame to frame as it came. Pure and reentrant.
 * Shapes: spans borrow from the text and are as written there; nothing is unescaped or copied.
 * Errors: DIG_SCAN_OTHER is every text that is not a correct message of these two types, be it
 *         another message or no JSON: dig_decode() then decides. The two agree: a text scans as
 *         relay_message or broadcast exactly when dig_decode() gives that type (tests/fuzz,
 *         fuzz_dig_scan.c). */
#ifndef SLUICE_PROTO_DIG_SCAN_H
#define SLUICE_PROTO_DIG_SCAN_H

#include "proto/base.h"

enum { DIG_DEPTH_MAX = 128 }; /* levels of nesting, the message's own object being the first */

enum dig_scan_kind {
    DIG_SCAN_OTHER,
    DIG_SCAN_RELAY,     /* to, payload, seq are set */
    DIG_SCAN_BROADCAST, /* payload, exclude are set */
};

struct dig_scan {
    struct bytes to;      /* with its quotes */
    bool to_escaped;      /* contains a backslash: go through dig_unescape() and write it anew */
    struct bytes payload; /* with its brackets; blanks inside stay */
    size_t payload_count; /* bytes that the payload stands for */
    struct bytes seq;     /* the digits of a u64 */
    struct bytes exclude; /* with its brackets */
    size_t exclude_count;
    /* When the message is written as clients write it (to, payload, seq last and in this order, no
     * blanks between members, no escapes in `to`): the text from the opening quote of `to` to the
     * closing brace, which is the end of the outgoing message too. Else empty. */
    struct bytes tail;
};

/* Writes *out only when the kind is not DIG_SCAN_OTHER. */
enum dig_scan_kind dig_scan(struct bytes text, struct dig_scan *out);
/* The same without vector instructions, on every machine: what the tests compare dig_scan() with.
 */
enum dig_scan_kind dig_scan_scalar(struct bytes text, struct dig_scan *out);

/* Takes the next string, with its quotes, off the front of *list, which began as `exclude` of a
 * scan. false at the end. */
bool dig_exclude_next(struct bytes *list, struct bytes *string);

/* A string that was found well-formed, with its quotes, into at most `cap` bytes without them.
 * false when it does not fit: with cap = DIG_NAME_MAX it then names no registrant (D9). */
MUST_USE bool dig_unescape(struct bytes string, uint8_t *buf, size_t cap, size_t *n);

#endif
