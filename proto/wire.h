/* proto/wire.h: the seam to nanopb, for every protobuf message but the forwarded payload (libp2p.md
 * §1.1). Pure and reentrant.
 * Shapes:  a bytes or string field is a struct bytes: decoded it borrows from the decoded buffer,
 *          encoded it borrows from the caller; p == NULL is an absent field, n == 0 an empty one.
 *          A repeated field is a struct wire_list.
 * Errors:  false, also for a field of a foreign wire type and for groups. Unknown fields are
 * skipped, of a singular field the last one wins, repeated occurrences of a message merge. Bounds:
 * a pass over the buffer per nesting level, of which there are three; the callers name the length
 * that they accept. */
#ifndef SLUICE_PROTO_WIRE_H
#define SLUICE_PROTO_WIRE_H

#include "proto/cur.h"

#include <pb.h>

/* Encoding writes items[0..n), then the NUL-terminated names up to a NULL. Decoding counts into n
 * and shows each item to `each`, whose false ends the decoding with false. Both may be absent. */
struct wire_list {
    const struct bytes *items;
    size_t n;
    const char *const *names;
    bool (*each)(void *arg, struct bytes item);
    void *arg;
};

bool wire_decode(struct bytes in, const pb_msgdesc_t *desc, void *msg);
/* Sets w->bad when it does not fit. Fields go out in the order of their tags, varints minimal:
 * bytes that may be signed. */
void wire_put(struct wcur *w, const pb_msgdesc_t *desc, const void *msg);
void wire_put_delimited(struct wcur *w, const pb_msgdesc_t *desc,
                        const void *msg);                    /* uv(length) first */
size_t wire_size(const pb_msgdesc_t *desc, const void *msg); /* without prefix */
/* How many of the first items fit into `room` bytes as a repeated field with a tag below 16. */
size_t wire_list_fit(const struct bytes *items, size_t n, size_t room);
/* Takes fields off the front of a message until one with this tag and a length: its content. false
 * at the end or when malformed; rest->bad tells which. */
bool wire_next(struct cur *rest, uint32_t tag, struct bytes *content);

#endif
