/* engine/turn_login.h: who may log in to TURN: the secrets and users of one configuration. A reload
 * makes another and publishes it; a shard takes it over at the start of a loop turn, so that nobody
 * looks at a retired one once a turn has passed. Allocations keep the key that they began with
 * (turn.md §8.2), so a secret can be changed under calls. */
#ifndef SLUICE_ENGINE_TURN_LOGIN_H
#define SLUICE_ENGINE_TURN_LOGIN_H

#include "engine/config.h"
#include "proto/stun_auth.h"

struct turn_users;

struct turn_login {
    struct bytes secret[STUN_SECRETS_MAX]; /* borrow from the configuration */
    size_t secrets_n;
    struct turn_users *users; /* NULL: none */
    bool anonymity;           /* USERHASH is offered: all names can be found by it (turn.md §6) */
};

/* Borrows from cfg, whose passwords are keys then, and wiped. 0; or -EINVAL with a line in `why`,
 * or -ENOMEM. realm: as prepared by stun_opaque. */
MUST_USE int turn_login_init(struct turn_login *l, struct config *cfg, struct bytes realm,
                             char *why, size_t cap);
void turn_login_fini(struct turn_login *l);

#endif
