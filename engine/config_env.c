/* engine/config_env.c: the environment. Every flag is SLUICE_FLAG_NAME; below that the names that a
 * preset's operators already use. Empty means unset: container images preset variables to "". */
#include "engine/config_int.h"

#include <ctype.h>
#include <stdio.h>

const char *env_get(char *const *envp, const char *name)
{
    size_t n = strlen(name);

    for (; envp && *envp; envp++)
        if (strncmp(*envp, name, n) == 0 && (*envp)[n] == '=')
            return (*envp)[n + 1] ? *envp + n + 1 : NULL;
    return NULL;
}

/* A preset's own name. A variable that is set, even to nothing, hides the line of a .env file. */
const char *env_own(const struct draft *d, const char *name)
{
    size_t n = strlen(name);

    for (char *const *e = d->envp; e && *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return env_get(d->envp, name);
    return env_get(d->dotenv, name);
}

void env_name(const struct setting *s, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "SLUICE_%s", s->name);

    for (size_t i = 0; i < n && i < cap; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* The next of a list's values between commas, without the blanks around it; advances *value. false:
 * it is too long. */
static bool next_word(const char **value, char *one, size_t cap)
{
    const char *p = *value;
    size_t n = strcspn(p, ","), from = 0, to = n;

    *value += n + (p[n] == ',');
    while (from < to && isspace((unsigned char)p[from]))
        from++;
    while (to > from && isspace((unsigned char)p[to - 1]))
        to--;
    if (to - from >= cap)
        return false;
    memcpy(one, p + from, to - from);
    one[to - from] = '\0';
    return true;
}

bool draft_set_each(struct draft *d, const struct setting *s, const char *value)
{
    char one[CONFIG_PATH_MAX];

    while (*value) {
        if (!next_word(&value, one, sizeof(one))) {
            snprintf(d->why, sizeof(d->why), "at most %zu characters", sizeof(one) - 1);
            return false;
        }
        if (one[0] && !draft_set(d, s, one))
            return false;
    }
    return true;
}

bool env_apply(struct draft *d)
{
    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];
        const char *value;
        char name[64];

        env_name(s, name, sizeof(name));
        value = env_get(d->envp, name);
        if (!value || (s->split ? draft_set_each(d, s, value) : draft_set(d, s, value)))
            continue;
        config_refuse("%s=%s (--%s): accepted is %s", name, s->secret ? "***" : value, s->name,
                      d->why);
        return false;
    }
    return true;
}

/* env_logger's words: `level`, `target`, `target=level`, comma-separated, a regular expression
 * after a slash. Targets are module paths; ours are these. A target alone means every level. */
static bool our_target(const char *p, size_t n)
{
    static const char *const ours[] = { "sluice", "dusk_relay", "dig_relay", "descord_relay",
                                        "relay" };

    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (n == strlen(ours[i]) && strncmp(p, ours[i], n) == 0)
            return true;
    return false;
}

static bool level_word(const char *p, size_t n, enum log_level *out)
{
    static const char *const words[] = { "error", "warn", "info", "debug", "trace" };
    char lower[8];

    if (n == 0 || n >= sizeof(lower))
        return false;
    for (size_t i = 0; i < n; i++)
        lower[i] = (char)tolower((unsigned char)p[i]);
    lower[n] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(lower, words[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    if (strcmp(lower, "off") ==
        0) { /* errors are never silenced: they are the last line before an exit */
        *out = LOG_ERROR;
        return true;
    }
    return false;
}

bool config_level_parse(const char *words, enum log_level *out)
{
    enum log_level level, general = LOG_INFO, own = LOG_INFO;
    bool has_general = false, has_own = false;
    size_t end = strcspn(words, "/");

    for (size_t at = 0; at < end;) {
        size_t n = strcspn(words + at, ","), eq;
        const char *p = words + at;

        n = min_sz(n, end - at);
        at += n + 1;
        while (n && isspace((unsigned char)*p))
            p++, n--;
        while (n && isspace((unsigned char)p[n - 1]))
            n--;
        for (eq = 0; eq < n && p[eq] != '='; eq++)
            ;
        if (eq == n && level_word(p, n, &level)) {
            general = level;
            has_general = true;
        } else if (eq == n && our_target(p, n)) {
            own = LOG_TRACE;
            has_own = true;
        } else if (eq < n && our_target(p, eq) && level_word(p + eq + 1, n - eq - 1, &level)) {
            own = level;
            has_own = true;
        }
    }
    if (has_own || has_general)
        *out = has_own ? own : general;
    return has_own || has_general;
}

/* Names of other systems for our settings. Their originals ignore what they cannot parse; so do we,
 * but we say so. strict: the original stops at a bad value. */
static const struct alias {
    enum preset preset;
    const char *name, *setting;
    bool strict;
} aliases[] = {
    { PRESET_DUSK, "DUSK_TURN_SECRET", "turn-secret", false },
    { PRESET_DUSK, "DUSK_TURN_REALM", "turn-realm", false },
    { PRESET_DUSK, "DUSK_TURN_MAX_ALLOCATIONS", "turn-max-allocations", false },
    { PRESET_DUSK, "DUSK_TURN_MAX_PER_USER", "turn-max-per-user", false },
    { PRESET_DUSK, "DUSK_MAX_CONNECTIONS", "max-conns", false },
    { PRESET_DUSK, "DUSK_RELAY_EXTERNAL_ADDR", "announce", true },
};

static bool port_env(struct draft *d, const char *name, uint16_t *port, bool zero_ok)
{
    const char *value = env_own(d, name);
    uint32_t v = 0;
    const char *p = value;

    if (!value)
        return false;
    for (; *p >= '0' && *p <= '9' && v <= 65535; p++)
        v = v * 10 + (uint32_t)(*p - '0');
    if (*p || v > 65535 || (v == 0 && !zero_ok)) {
        draft_note(d, "%s=%s is not a port; using %u", name, value, *port);
        return false;
    }
    *port = (uint16_t)v;
    return true;
}

/* The original passes over what it cannot parse (dusk.md §10.4); so do we, but we say so. */
static void dusk_peer_relays(struct draft *d)
{
    const struct setting *s = setting_find("peer-relay");
    const char *value = env_own(d, "DUSK_PEER_RELAYS");
    char one[CONFIG_PATH_MAX];

    while (value && *value) {
        bool fits = next_word(&value, one, sizeof(one));

        if (!fits)
            draft_note(d, "DUSK_PEER_RELAYS: an address that is too long is ignored");
        else if (one[0] && !draft_set(d, s, one))
            draft_note(d, "DUSK_PEER_RELAYS: %.100s is ignored: accepted is %s", one, d->why);
    }
}

static void dusk_turn_env(struct draft *d)
{
    struct config *c = d->c;
    const char *enabled = env_own(d, "DUSK_TURN_ENABLED");
    const char *ip = env_own(d, "DUSK_TURN_PUBLIC_IP");
    const char *host = env_own(d, "DUSK_TURN_PUBLIC_HOST");
    uint16_t tcp = 3478;
    struct cidr cidr;
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };

    if (enabled && (strcmp(enabled, "false") == 0 || strcmp(enabled, "0") == 0)) /* exactly these */
        c->turn_n = 0;
    if (ip && !strchr(ip, '/') && cidr_parse(bytes_str(ip), &cidr) &&
        memcmp(cidr.ip, any4, sizeof(any4)) != 0) {
        bool kept = draft_set(d, setting_find("turn-external-ip"), ip);

        ASSERT(kept);
    } else if (ip) {
        draft_note(d, "DUSK_TURN_PUBLIC_IP=%s is not the address of a host, and ignored", ip);
    }
    if (host)
        snprintf(c->turn_public_host, sizeof(c->turn_public_host), "%s", host);
    if (port_env(d, "DUSK_TURN_TCP_PORT", &tcp, false))
        c->turn_tcp_port = tcp;
    if (c->turn_n && port_env(d, "DUSK_TURN_UDP_PORT", &c->turn[0].addr.port, false))
        c->turn_tcp_port = tcp;
    port_env(d, "DUSK_TURN_PORT_RANGE_START", &c->turn_port_lo, false);
    port_env(d, "DUSK_TURN_PORT_RANGE_END", &c->turn_port_hi, false);
}

static void dusk_gif_env(struct draft *d)
{
    const char *key = env_own(d, "KLIPY_API_KEY"), *test = env_own(d, "KLIPY_TEST_KEY");

    if (key && !draft_set(d, setting_find("gif-key"), key))
        draft_note(d, "KLIPY_API_KEY is ignored: accepted is %s", d->why);
    if (test && (strcmp(test, "true") == 0 || strcmp(test, "1") == 0)) { /* exactly these (§9) */
        bool kept = draft_set(d, setting_find("gif-limited"), "true");

        ASSERT(kept);
    }
}

static bool apply_preset(struct draft *d)
{
    const char *rust = env_get(d->envp, "RUST_LOG");
    uint16_t port = 4001;

    if (rust && config_level_parse(rust, &d->c->log_level))
        d->ranks[setting_index(setting_find("log-level"))] = d->src;
    /* Always honoured, because images set it whatever the binary is called; but it moves a door, it
     * does not open one that the preset keeps closed. An invalid one is the default (dusk.md §12).
     */
    if (d->c->p2p_n && port_env(d, "DUSK_RELAY_PORT", &port, true)) {
        d->port = port;
        d->port_src = d->src;
    }
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++) {
        const struct alias *a = &aliases[i];
        const char *value = a->preset == d->c->preset ? env_own(d, a->name) : NULL;
        const struct setting *s = setting_find(a->setting);

        if (!value || draft_set(d, s, value))
            continue;
        if (a->strict) {
            config_refuse("%s=%s (--%s): accepted is %s", a->name, value, a->setting, d->why);
            return false;
        }
        draft_note(d, "%s=%s is ignored: accepted is %s", a->name, s->secret ? "***" : value,
                   d->why);
    }
    if (d->c->preset == PRESET_DUSK) {
        dusk_turn_env(d);
        dusk_gif_env(d);
        dusk_peer_relays(d);
    }
    return d->c->preset != PRESET_DIG || config_dig_env_apply(d);
}

bool env_apply_preset(struct draft *d)
{
    struct dotenv *e = d->c->preset == PRESET_DUSK ? dotenv_find() : NULL;
    bool ok;

    d->dotenv = e ? dotenv_lines(e) : NULL;
    ok = apply_preset(d);
    d->dotenv = NULL;
    dotenv_free(e);
    return ok;
}
