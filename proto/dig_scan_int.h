/* proto/dig_scan_int.h: the two loops of dig_scan that touch every byte, by vectors of several
 * widths and without. Pure. Private to dig_scan, its tests and its bench. */
#ifndef SLUICE_PROTO_DIG_SCAN_INT_H
#define SLUICE_PROTO_DIG_SCAN_INT_H

#include "proto/dig_scan.h"

/* By how many bytes at once. */
enum dig_vec {
    DIG_VEC_NONE,
    DIG_VEC_16, /* SSE2: every x86-64 */
    DIG_VEC_32, /* AVX2 */
};
enum dig_vec dig_vec_best(void); /* of this machine; all below it work too */

/* dig_scan() with what the machine has or less. */
enum dig_scan_kind dig_scan_by(enum dig_vec vec, struct bytes text, struct dig_scan *out);

/* Inside a string: the first of `"`, `\` and the control characters at or behind p, `end` if there
 * is none. Sets *high if a byte on the way, or a little behind, is not ASCII. */
const uint8_t *dig_run_string(enum dig_vec vec, const uint8_t *p, const uint8_t *end, bool *high);

/* Inside an array of bytes: p[-1] is the comma behind an element, and two bytes before it exist.
 * Passes over numbers 0..255 and the commas between them, as many as are worth it, and rests on
 * the first byte behind such a comma; *count grows by the elements passed. NULL: what it passed
 * over is no such array. */
const uint8_t *dig_run_bytes(enum dig_vec vec, const uint8_t *p, const uint8_t *end, size_t *count);

#endif
