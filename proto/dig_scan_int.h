/* proto/dig_scan_int.h: the two loops of dig_scan that touch every byte, with vector instructions
 * and without. Pure. Private to dig_scan. */
#ifndef SLUICE_PROTO_DIG_SCAN_INT_H
#define SLUICE_PROTO_DIG_SCAN_INT_H

#include "proto/base.h"

/* Inside a string: the first of `"`, `\` and the control characters at or behind p, `end` if there
 * is none. Sets *high if a byte on the way, or a little behind, is not ASCII. */
const uint8_t *dig_run_string(const uint8_t *p, const uint8_t *end, bool *high);
const uint8_t *dig_run_string_scalar(const uint8_t *p, const uint8_t *end, bool *high);

/* Inside an array of bytes: p[-1] is the comma behind an element, and two bytes before it exist.
 * Passes over numbers 0..255 and the commas between them, as many as are worth it, and rests on
 * the first byte behind such a comma; *count grows by the elements passed. NULL: what it passed
 * over is no such array. */
const uint8_t *dig_run_bytes(const uint8_t *p, const uint8_t *end, size_t *count);

#endif
