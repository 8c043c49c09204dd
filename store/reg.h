/* store/reg.h: inside the library: what expiry asks of registrations. */
#ifndef SLUICE_STORE_REG_H
#define SLUICE_STORE_REG_H

#include "store/schema.h"

/* Deletes it, if that is when it ends; else sees that it has its own end. The caller deletes the
 * index's entry that led here. 0 or -errno. */
MUST_USE int reg_expire(struct store *s, uint64_t seq, uint64_t when_unix_s);

#endif
