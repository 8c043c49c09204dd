/* proto/varint.h: unsigned LEB128 as multiformats and protobuf length prefixes use it
 * (libp2p.md §1.1). Pure.
 * Errors: over-long encodings (`80 00`) and values past 63 bits are refused. */
#ifndef SLUICE_PROTO_VARINT_H
#define SLUICE_PROTO_VARINT_H

#include "proto/cur.h"

enum { VARINT_MAX_BYTES = 9 };

enum varint_res {
    VARINT_OK,   /* *value and *used are set */
    VARINT_MORE, /* a prefix of a varint: feed more bytes */
    VARINT_BAD,
};

/* Streams need three answers, so no cursor: looks at the front of `in`. */
enum varint_res varint_peek(struct bytes in, uint64_t *value, size_t *used);

size_t varint_len(uint64_t v);              /* 1..9 bytes; v < 2^63 */
size_t varint_put(uint8_t *at, uint64_t v); /* writes varint_len(v) bytes, returns how many */

uint64_t cur_varint(struct cur *c);           /* sets bad on MORE and BAD alike */
void wcur_varint(struct wcur *w, uint64_t v); /* v < 2^63 */
struct bytes cur_lp(struct cur *c);           /* uv(length) then that many bytes */
void wcur_lp(struct wcur *w, struct bytes b);

#endif
