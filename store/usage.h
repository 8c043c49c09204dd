/* store/usage.h: inside the library: what expiry asks of usage. */
#ifndef SLUICE_STORE_USAGE_H
#define SLUICE_STORE_USAGE_H

#include "store/schema.h"

/* Deletes rows older than STORE_USAGE_DAYS until *n, which counts on, is max; then *left. */
MUST_USE int usage_expire(struct store *s, uint64_t now_unix_s, size_t max, size_t *n, bool *left);

#endif
