/* store/reg.h: inside the library: what expiry asks of registrations. */
#ifndef SLUICE_STORE_REG_H
#define SLUICE_STORE_REG_H

#include "store/schema.h"

MUST_USE int reg_expire(struct store *s, uint64_t seq); /* deletes that one; 0 or -errno */

#endif
