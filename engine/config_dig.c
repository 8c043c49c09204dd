/* engine/config_dig.c: dig-relay as its operators know it: its flags and variables (dig.md §16),
 * the configurations that it refuses, its commands, and the environment of its service (§17). */
#include "engine/config_int.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* One list for flags, variables, help and units, so that none of them can forget one. */
const struct dig_name config_dig_names[] = {
    { "listen", "DIG_RELAY_LISTEN", "listen-dig", DIG_UNIT,
      "the relay, WebSocket and dashboard ([::]:9450)" },
    { "health-listen", "DIG_RELAY_HEALTH_LISTEN", "listen-http", DIG_UNIT,
      "GET /health ([::]:9451)" },
    { "stun-listen", "DIG_RELAY_STUN_LISTEN", "listen-turn", DIG_UNIT, "STUN ([::]:3478)" },
    { "dashboard-listen", "DIG_RELAY_DASHBOARD_LISTEN", "listen-redirect", DIG_UNIT,
      "redirect to https ([::]:8080)" },
    { "max-connections", "DIG_RELAY_MAX_CONNECTIONS", "dig-max-conns", DIG_UNIT,
      "open ones (4096)" },
    { "idle-timeout-secs", NULL, "dig-idle-timeout-secs", 0, "without a frame (120)" },
    { "register-timeout-secs", "DIG_RELAY_REGISTER_TIMEOUT_SECS", "dig-register-timeout-secs", 0,
      "from accept to registration (10)" },
    { "outbound-queue-capacity", "DIG_RELAY_OUTBOUND_QUEUE_CAPACITY", "dig-queue-messages", 0,
      "messages waiting for one connection (1024)" },
    { "max-message-bytes", "DIG_RELAY_MAX_MESSAGE_BYTES", "dig-max-message-bytes", 0,
      "of one message (262144)" },
    { "health-check-interval-secs", "DIG_RELAY_HEALTH_CHECK_INTERVAL_SECS", "dig-sweep-secs", 0,
      "between looks for who is silent (30)" },
    { "liveness-deadline-secs", "DIG_RELAY_LIVENESS_DEADLINE_SECS", "dig-liveness-secs", 0,
      "without a message, then it is removed (90)" },
    { "max-connections-per-ip", "DIG_RELAY_MAX_CONNECTIONS_PER_IP", "dig-max-conns-per-ip",
      DIG_UNIT, "open ones of one source (64)" },
    { "registrations-per-ip-per-sec", "DIG_RELAY_REGISTRATIONS_PER_IP_PER_SEC",
      "dig-registers-per-ip", DIG_UNIT, "attempts of one source (10)" },
    { "max-registrations-per-ip", "DIG_RELAY_MAX_REGISTRATIONS_PER_IP",
      "dig-max-registrations-per-ip", DIG_UNIT, "at a time, of one source (128)" },
    { "messages-per-conn-per-sec", "DIG_RELAY_MESSAGES_PER_CONN_PER_SEC", "dig-messages-per-conn",
      DIG_UNIT, "of one connection (256)" },
    { "bytes-per-conn-per-sec", "DIG_RELAY_BYTES_PER_CONN_PER_SEC", "dig-bytes-per-conn", DIG_UNIT,
      "of its messages (1048576)" },
    { "max-relayed-bytes-per-conn", "DIG_RELAY_MAX_RELAYED_BYTES_PER_CONN",
      "dig-max-bytes-per-conn", DIG_UNIT, "of its messages, as long as it lives (1073741824)" },
    { "ban-threshold", "DIG_RELAY_BAN_THRESHOLD", "dig-ban-strikes", DIG_UNIT,
      "breaches of limits, then the source is banned (20)" },
    { "ban-duration-secs", "DIG_RELAY_BAN_DURATION_SECS", "dig-ban-secs", DIG_UNIT,
      "a ban's (300)" },
    { "ban-strike-window-secs", "DIG_RELAY_BAN_STRIKE_WINDOW_SECS", "dig-ban-window-secs", DIG_UNIT,
      "breaches count for so long (60)" },
    { "stun-per-ip-rps", "DIG_RELAY_STUN_PER_IP_RPS", "turn-replies-per-ip", 0,
      "answers to one address, per second (5)" },
    { "stun-global-rps", "DIG_RELAY_STUN_GLOBAL_RPS", "turn-replies-total", 0,
      "answers per second (1000)" },
    { "tls-cert", "DIG_RELAY_TLS_CERT_PATH", "dig-tls-cert", DIG_UNIT,
      "PEM chain, leaf first; the relay's port is then TLS" },
    { "tls-key", "DIG_RELAY_TLS_KEY_PATH", "dig-tls-key", DIG_UNIT, "its key, PEM" },
    { NULL, "DIG_RELAY_TRUSTED_PROXY_CIDRS", "proxy-from", DIG_STRICT, NULL }, /* §13 */
    { NULL, "DIG_RELAY_GEOIP_DB", "dig-geoip-db", 0, NULL },
};
const size_t config_dig_names_n = ARRAY_LEN(config_dig_names);

const struct dig_name *config_dig_name_of(const char *flag)
{
    for (size_t i = 0; i < config_dig_names_n; i++)
        if (config_dig_names[i].flag && strcmp(config_dig_names[i].flag, flag) == 0)
            return &config_dig_names[i];
    return NULL;
}

/* How the operator would say it. */
static const char *flag_of(const struct config *c, const char *setting)
{
    for (size_t i = 0; c->preset == PRESET_DIG && i < config_dig_names_n; i++)
        if (config_dig_names[i].flag && strcmp(config_dig_names[i].setting, setting) == 0)
            return config_dig_names[i].flag;
    return setting;
}

/* Beyond 64 bits it is no number there either. */
static bool is_number(const char *value, uint64_t *out)
{
    uint64_t v = 0;

    if (!*value)
        return false;
    for (; isdigit((unsigned char)*value); value++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*value - '0'), &v))
            return false;
    *out = v;
    return *value == '\0';
}

/* A variable that says what is the default anyway, as in units and images, pins down nothing: a
 * host without IPv6 still gets 0.0.0.0. */
static void unname(struct listen_at *at, uint16_t port)
{
    static const uint8_t any[16];

    if (memcmp(at->addr.ip, any, sizeof(any)) == 0 && at->addr.port == port)
        at->named = false;
}

bool config_dig_set(struct draft *d, const struct dig_name *n, const char *value)
{
    const struct setting *s = setting_find(n->setting);
    struct config *c = d->c;
    char most[24];
    uint64_t v;

    if ((s->kind == SET_U32 || s->kind == SET_U64) && is_number(value, &v) && v > s->hi) {
        snprintf(most, sizeof(most), "%" PRIu64, s->hi);
        draft_note(d, "%s=%s: the most here is %s, and used", n->flag, value, most);
        value = most;
    }
    if (!(s->split ? draft_set_each(d, s, value) : draft_set(d, s, value)))
        return false;
    if (d->src != SRC_FLAG) {
        unname(&c->dig, 9450);
        unname(&c->http, 9451);
        unname(&c->dig_redirect, 8080);
        if (c->turn_n == 1)
            unname(&c->turn[0], 3478);
    }
    return true;
}

/* An IPv4-mapped base matches nobody there, because addresses are unmapped first (dig.md §13); with
 * us it would be the IPv4 prefix, and trust is nothing to be generous with. */
static void drop_mapped(struct draft *d, const char *list)
{
    struct config *c = d->c;
    unsigned kept = 0, i = 0;

    for (; *list && i < c->proxy_from_n; list += strcspn(list, ","), list += *list == ',') {
        size_t n = strcspn(list, ",");

        if (strspn(list, " \t\r\n\v\f") >= n) /* blanks were skipped */
            continue;
        if (memchr(list, ':', n) && cidr_is4(&c->proxy_from[i]))
            draft_note(d, "DIG_RELAY_TRUSTED_PROXY_CIDRS: %.*s matches nobody: say it as IPv4",
                       (int)min_sz(n, 64), list);
        else
            c->proxy_from[kept++] = c->proxy_from[i];
        i++;
    }
    c->proxy_from_n = kept;
}

bool config_dig_env_apply(struct draft *d)
{
    for (size_t i = 0; i < config_dig_names_n; i++) {
        const struct dig_name *n = &config_dig_names[i];
        const char *value = n->env ? env_own(d, n->env) : NULL;
        uint64_t v;

        if (value && config_dig_set(d, n, value)) {
            if (n->how == DIG_STRICT)
                drop_mapped(d, value);
            continue;
        }
        if (!value)
            continue;
        if (n->how == DIG_STRICT ||
            (is_number(value, &v) && v < setting_find(n->setting)->lo)) { /* understood, refused */
            config_refuse("%s=%s: accepted is %s", n->env, value, d->why);
            return false;
        }
        draft_note(d, "%s=%s is ignored: accepted is %s", n->env, value, d->why); /* §16 */
    }
    return true;
}

bool config_dig_command(struct config *c, const struct flags *f, bool dig)
{
    static const struct {
        const char *word;
        enum service_verb verb;
    } verbs[] = {
        { "serve", VERB_SERVE },     { "run-service", VERB_SERVE }, /* only Windows has the second
                                                                     */
        { "install", VERB_INSTALL }, { "uninstall", VERB_UNINSTALL }, { "start", VERB_START },
        { "stop", VERB_STOP },       { "status", VERB_STATUS },
    };
    static const char *const scopes[] = { "auto", "system", "user" };
    bool found = f->words_n == 0;

    if (!dig && f->words_n) {
        config_refuse("unexpected argument '%s': everything is said by flags; see --help",
                      f->word[0]);
        return false;
    }
    if (!dig && f->dig_only) {
        config_refuse("unknown flag --%s: only dig-relay has it; see --help", f->dig_only);
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(verbs) && f->words_n == 1; i++) {
        if (strcmp(f->word[0], verbs[i].word) != 0)
            continue;
        c->verb = verbs[i].verb;
        found = true;
    }
    if (!found) {
        config_refuse("unexpected argument '%s': accepted is one of serve, install, uninstall, "
                      "start, stop, status, help",
                      f->word[f->words_n - 1]);
        return false;
    }
    found = !f->scope;
    for (size_t i = 0; i < ARRAY_LEN(scopes) && f->scope; i++) {
        if (strcmp(f->scope, scopes[i]) != 0)
            continue;
        c->service_scope = (enum service_scope)i;
        found = true;
    }
    if (!found)
        config_refuse("--scope=%s: accepted is one of auto, system, user", f->scope);
    c->service_json = f->json;
    return found;
}

/* ---- what no single value can know --------------------------------------------------------- */

static bool finish_bans(const struct config *c)
{
    const char *zero = !c->dig_ban_ms          ? "dig-ban-secs"
                       : !c->dig_ban_window_ms ? "dig-ban-window-secs"
                                               : NULL;

    if (!c->dig_ban_threshold || !zero)
        return true;
    config_refuse("--%s=0: accepted is a number above 0, or --%s 0", flag_of(c, zero),
                  flag_of(c, "dig-ban-strikes"));
    return false;
}

static bool finish_timers(const struct config *c)
{
    const char *live = flag_of(c, "dig-liveness-secs");
    unsigned secs = c->dig_liveness_ms / 1000;

    if (c->dig_liveness_ms < c->dig_sweep_interval_ms) {
        config_refuse("--%s=%u: accepted is at least --%s, which is %u", live, secs,
                      flag_of(c, "dig-sweep-secs"), c->dig_sweep_interval_ms / 1000);
        return false;
    }
    if (c->dig_liveness_ms >= c->dig_idle_timeout_ms) {
        config_refuse("--%s=%u: accepted is a number below --%s, which is %u", live, secs,
                      flag_of(c, "dig-idle-timeout-secs"), c->dig_idle_timeout_ms / 1000);
        return false;
    }
    return true;
}

/* A message that may come must be one that can be passed on. */
static bool finish_queue(struct draft *d)
{
    struct config *c = d->c;
    uint64_t least = c->dig_message_bytes_max;

    if (c->dig_queue_bytes_max >= least)
        return true;
    if (d->ranks[setting_index(setting_find("dig-queue-bytes"))] == SRC_DEFAULT) {
        c->dig_queue_bytes_max = least;
        return true;
    }
    config_refuse("--dig-queue-bytes=%" PRIu64 ": accepted is at least --%s, which is %" PRIu64,
                  c->dig_queue_bytes_max, flag_of(c, "dig-max-message-bytes"), least);
    return false;
}

bool config_dig_finish(struct draft *d)
{
    struct config *c = d->c;
    bool cert = c->dig_tls_cert[0], key = c->dig_tls_key[0];

    if (!finish_bans(c) || !finish_timers(c) || !finish_queue(d))
        return false;
    if (cert != key) {
        config_refuse("--%s without --%s: accepted is both or neither",
                      flag_of(c, cert ? "dig-tls-cert" : "dig-tls-key"),
                      flag_of(c, cert ? "dig-tls-key" : "dig-tls-cert"));
        return false;
    }
    if (c->dig_conns_per_ip_max > c->dig_conns_max) {
        config_refuse("--%s=%u: accepted is at most --%s, which is %u",
                      flag_of(c, "dig-max-conns-per-ip"), c->dig_conns_per_ip_max,
                      flag_of(c, "dig-max-conns"), c->dig_conns_max);
        return false;
    }
    c->dig_tls_on = cert;
    c->dig_geoip_named = d->ranks[setting_index(setting_find("dig-geoip-db"))] > SRC_DEFAULT;
    return true;
}

/* ---- the environment of a service ---------------------------------------------------------- */

struct sink {
    void (*line)(void *arg, const char *name, const char *value);
    void *arg;
    char *why;
    size_t cap;
};

static int sink_put(const struct sink *out, const char *name, const char *value)
{
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            snprintf(out->why, out->cap, "%s has a control character in it", name);
            return -EINVAL;
        }
    }
    out->line(out->arg, name, value);
    return 0;
}

/* All elements between commas, paths from the root. */
static int value_text(const struct config *c, const struct setting *s, char *text, size_t cap)
{
    unsigned n = setting_elements(c, s);
    size_t used = 0;

    text[0] = '\0';
    if (s->kind == SET_ADDRS && n == 0)
        snprintf(text, cap, "off");
    for (unsigned i = 0; i < n; i++) {
        char one[CONFIG_PATH_MAX], here[CONFIG_PATH_MAX] = "";

        setting_text(c, s, i, one, sizeof(one));
        if (s->kind == SET_PATH && one[0] && one[0] != '/' && !getcwd(here, sizeof(here)))
            return -errno;
        int more = snprintf(text + used, cap - used, "%s%s%s%s", i ? "," : "", here,
                            here[0] ? "/" : "", one);

        if (more < 0 || (size_t)more >= cap - used)
            return -ENAMETOOLONG;
        used += (size_t)more;
    }
    return 0;
}

static const struct dig_name *unit_name(const struct config *c, const struct setting *s)
{
    for (size_t i = 0; i < config_dig_names_n; i++) {
        const struct dig_name *n = &config_dig_names[i];

        if (n->env && strcmp(n->setting, s->name) == 0)
            return s->off == offsetof(struct config, turn) && c->turn_n > 1 ? NULL : n;
    }
    return NULL;
}

static int put_setting(const struct config *c, const struct setting *s, const struct sink *out)
{
    enum source by = (enum source)c->said_by[setting_index(s)];
    const struct dig_name *n = unit_name(c, s);
    static char text[65536]; /* one thread: a command, not the relay */
    char name[64];
    int err;

    if (s->kind == SET_CALL || by == SRC_FILE || /* the unit names the file */
        (by == SRC_DEFAULT && !(n && n->how == DIG_UNIT)))
        return 0;
    if (s->secret) {
        snprintf(out->why, out->cap, "a unit file keeps no secret: say --%s-file instead of --%s",
                 strcmp(s->name, "turn-user") == 0 ? "turn-users" : s->name, s->name);
        return -EINVAL;
    }
    err = value_text(c, s, text, sizeof(text));
    if (err || !text[0]) {
        if (err)
            snprintf(out->why, out->cap, "--%s is too long for a unit file", s->name);
        return err;
    }
    env_name(s, name, sizeof(name));
    return sink_put(out, n ? n->env : name, text);
}

int config_dig_service(const struct config *c,
                       void (*line)(void *arg, const char *name, const char *value), void *arg,
                       char *why, size_t cap)
{
    const struct sink out = { line, arg, why, cap };
    char ports[16];
    int err;

    line(arg, "SLUICE_PRESET", "dig"); /* whatever the binary is called */
    for (size_t i = 0; i < config_settings_n; i++)
        if ((err = put_setting(c, &config_settings[i], &out)))
            return err;
    /* What the table calls for has no text there. */
    snprintf(ports, sizeof(ports), "%u-%u", c->turn_port_lo, c->turn_port_hi);
    if (c->said_by[setting_index(setting_find("turn-ports"))] > SRC_FILE)
        line(arg, "SLUICE_TURN_PORTS", ports);
    return 0;
}
