#include "engine/turn_login.h"

#include "engine/turn_users.h"

int turn_login_init(struct turn_login *l, struct config *cfg, struct bytes realm, char *why,
                    size_t cap)
{
    int err = 0;

    static_assert((int)CONFIG_TURN_SECRETS_MAX <= (int)STUN_SECRETS_MAX,
                  "every secret has a place");
    *l = (struct turn_login){ .secrets_n = cfg->turn_secret_n,
                              .anonymity = cfg->turn_user_n > 0 && cfg->turn_secret_n == 0 };
    for (unsigned i = 0; i < cfg->turn_secret_n; i++)
        l->secret[i] = bytes_str(cfg->turn_secret[i]);
    if (cfg->turn_user_n == 0)
        return 0;
    l->users = turn_users_new(cfg, realm, &err, why, cap);
    config_wipe_users(cfg);
    return err;
}

void turn_login_fini(struct turn_login *l)
{
    turn_users_free(l->users);
    *l = (struct turn_login){ .secrets_n = 0 };
}
