/* store/records.h: inside the library: what expiry asks of bans. */
#ifndef SLUICE_STORE_RECORDS_H
#define SLUICE_STORE_RECORDS_H

#include "store/schema.h"

/* Deletes it, if that is still when it ends, and in any case the index's entry. key is the caller's
 * copy. */
MUST_USE int ban_expire(struct store *s, uint64_t when_unix_s, uint8_t kind, struct bytes key);

#endif
