/* store/records.h: inside the library: what expiry asks of bans. */
#ifndef SLUICE_STORE_RECORDS_H
#define SLUICE_STORE_RECORDS_H

#include "store/schema.h"

/* Deletes it, if that is when it ends; else sees that it has its own end. The caller deletes the
 * index's entry that led here; key is its copy. */
MUST_USE int ban_expire(struct store *s, uint64_t when_unix_s, uint8_t kind, struct bytes key);

#endif
