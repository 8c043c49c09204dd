/* engine/turn_users.h: long-term users of TURN: their keys, by name and by USERHASH (turn.md §5,
 * §6). Passwords are not kept. Const once made; any thread. */
#ifndef SLUICE_ENGINE_TURN_USERS_H
#define SLUICE_ENGINE_TURN_USERS_H

#include "engine/config.h"

struct turn_users;

/* NULL with *err: -EINVAL and a line in `why`, or -ENOMEM. realm: as prepared by stun_opaque. */
struct turn_users *turn_users_new(const struct config *cfg, struct bytes realm, int *err, char *why,
                                  size_t cap);
void turn_users_free(struct turn_users *u); /* NULL is fine */
/* The key of a->username, or of a->userhash, for a->alg. */
bool turn_users_find(const struct turn_users *u, const struct stun_auth *a, struct stun_key *key);

#endif
