/* tools/ctl_json.h: one line of JSON from a daemon of ours, asked key by key. */
#ifndef SLUICE_TOOLS_CTL_JSON_H
#define SLUICE_TOOLS_CTL_JSON_H

#include <stdbool.h>
#include <stdint.h>

enum { CTL_VALUE = 512 };

/* The value of a key of the object in `json`, `out` itself; "" when absent. Strings come without
 * quotes and escapes, anything else as it stands; what a terminal could take for an order is '?'.
 */
const char *ctl_get(const char *json, const char *key, char out[CTL_VALUE]);
uint64_t ctl_number(const char *json, const char *key);
bool ctl_is(const char *json, const char *key); /* true */

#endif
