/* engine/config.c: the sources in their order, and how one value becomes a field. */
#include "engine/config_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/acl.h"

void config_refuse(const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++) /* one line, whatever was typed */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "sluice: %s\n", line);
}

void draft_note(struct draft *d, const char *fmt, ...)
{
    struct config *c = d->c;
    va_list ap;

    if (c->notes_n == CONFIG_NOTES_MAX) /* more of them would not be read either */
        return;
    va_start(ap, fmt);
    vsnprintf(c->note[c->notes_n++], CONFIG_NOTE_MAX, fmt, ap);
    va_end(ap);
}

static bool expect(struct draft *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool expect(struct draft *d, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(d->why, sizeof(d->why), fmt, ap);
    va_end(ap);
    return false;
}

const struct setting *setting_find(const char *name)
{
    for (size_t i = 0; i < config_settings_n; i++)
        if (strcmp(config_settings[i].name, name) == 0)
            return &config_settings[i];
    return NULL;
}

size_t setting_index(const struct setting *s)
{
    return (size_t)(s - config_settings);
}

/* Digits and nothing else: strtoull alone would take " -1", "0x10" and "12abc". */
static bool whole_number(const char *text, size_t n, uint64_t *out)
{
    uint64_t v = 0;

    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned digit = (unsigned)(unsigned char)text[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

static bool set_number(struct draft *d, const struct setting *s, void *at, const char *value)
{
    uint64_t v;

    if (!whole_number(value, strlen(value), &v) || v < s->lo || v > s->hi)
        return expect(d, "a whole number from %" PRIu64 " to %" PRIu64, s->lo, s->hi);
    v *= s->scale;
    if (s->kind == SET_U32) {
        uint32_t narrow = (uint32_t)v; /* hi * scale fits: a test checks the table */

        memcpy(at, &narrow, sizeof(narrow));
    } else {
        memcpy(at, &v, sizeof(v));
    }
    return true;
}

static bool set_rate(struct draft *d, const struct setting *s, char *base, const char *value)
{
    const char *slash = strchr(value, '/');
    size_t n = slash ? (size_t)(slash - value) : strlen(value);
    uint64_t burst, secs = 0;

    if (!whole_number(value, n, &burst) || burst > s->hi ||
        (slash &&
         (!whole_number(slash + 1, strlen(slash + 1), &secs) || secs < 1 || secs > 86400)) ||
        (!slash && burst != 0))
        return expect(d,
                      "N/SECS: N from 1 to %" PRIu64 " at once, then one per SECS from 1 to 86400; "
                      "0 for no limit",
                      s->hi);
    uint32_t narrow = (uint32_t)burst;

    memcpy(base + s->off, &narrow, sizeof(narrow));
    if (secs && s->cap == sizeof(uint32_t)) {
        uint32_t ms = (uint32_t)secs * 1000;

        memcpy(base + s->off_n, &ms, sizeof(ms));
    } else if (secs) {
        uint64_t ms = secs * 1000;

        memcpy(base + s->off_n, &ms, sizeof(ms));
    }
    return true;
}

static bool set_bool(struct draft *d, bool *at, const char *value)
{
    static const char *const words[][2] = {
        { "false", "true" }, { "0", "1" }, { "no", "yes" }, { "off", "on" }
    };

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        for (size_t k = 0; k < 2; k++) {
            if (strcmp(value, words[i][k]) == 0) {
                *at = k == 1;
                return true;
            }
        }
    }
    return expect(d, "true or false");
}

static bool set_word(struct draft *d, const struct setting *s, int *at, const char *value)
{
    size_t used;

    for (int i = 0; s->words[i]; i++) {
        if (strcmp(s->words[i], value) == 0) {
            *at = i;
            return true;
        }
    }
    used = (size_t)snprintf(d->why, sizeof(d->why), "one of");
    for (int i = 0; s->words[i] && used < sizeof(d->why); i++)
        used += (size_t)snprintf(d->why + used, sizeof(d->why) - used, "%s %s", i ? "," : "",
                                 s->words[i]);
    return false;
}

static bool set_text(struct draft *d, char *at, size_t width, const char *value)
{
    size_t n = strlen(value);

    if (n == 0 || n >= width)
        return expect(d, "1 to %zu characters", width - 1);
    memcpy(at, value, n + 1);
    return true;
}

static const char ADDR_FORMS[] =
    "HOST:PORT with an IP address (127.0.0.1:4001, [::]:4001), port 0 to "
    "65535, or off";

/* The host is an address, not a name: nothing is resolved before the doors are open. */
static bool parse_listen(struct draft *d, const char *value, struct listen_at *out)
{
    struct netaddr a;
    char local[64];

    if (strncmp(value, "localhost:", 10) == 0) {
        snprintf(local, sizeof(local), "127.0.0.1:%s", value + 10);
        value = local;
    }
    if (!netaddr_parse(bytes_str(value), &a))
        return expect(d, "%s", ADDR_FORMS);
    *out = (struct listen_at){ .addr = a, .named = true };
    return true;
}

/* A multiaddr of a transport that is not built is accepted, and said once (design.md). */
static bool p2p_later(struct bytes binary)
{
    struct cur rest = cur_of(binary);
    struct maddr_part part;

    return maddr_next(&rest, &part) && (part.code == MADDR_IP4 || part.code == MADDR_IP6) &&
           (maddr_has(binary, MADDR_QUIC_V1) || maddr_has(binary, MADDR_WS) ||
            maddr_has(binary, MADDR_WSS) || maddr_has(binary, MADDR_TLS) ||
            maddr_has(binary, MADDR_WEBTRANSPORT) || maddr_has(binary, MADDR_WEBRTC_DIRECT));
}

static bool add_p2p(struct draft *d, const char *value)
{
    struct config *c = d->c;
    struct listen_at at = { .named = true };
    struct maddr m;

    if (value[0] == '/') {
        if (!maddr_parse(bytes_str(value), &m))
            return expect(d, "a multiaddr such as /ip4/0.0.0.0/tcp/4001, or %s", ADDR_FORMS);
        if (!maddr_to_tcp(maddr_bytes(&m), &at.addr, NULL)) {
            if (!p2p_later(maddr_bytes(&m)))
                return expect(d, "/ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT, or %s",
                              ADDR_FORMS);
            draft_note(d, "listen-p2p %s: this transport is not built yet; the door stays closed",
                       value);
            return true;
        }
    } else if (!parse_listen(d, value, &at)) {
        return false;
    }
    if (c->p2p_n == CONFIG_LISTEN_MAX)
        return expect(d, "at most %d addresses", CONFIG_LISTEN_MAX);
    c->p2p[c->p2p_n++] = at;
    return true;
}

static bool add_announce(struct draft *d, struct maddr *list, unsigned *n, const char *value)
{
    struct maddr m;
    struct cur rest;
    struct maddr_part part, last = { 0 };
    size_t before = 0, at = 0;

    if (!maddr_parse(bytes_str(value), &m) || m.n == 0 ||
        maddr_has(maddr_bytes(&m), MADDR_P2P_CIRCUIT))
        return expect(d, "a multiaddr others can dial, such as /dns4/relay.example.org/tcp/4001 or "
                         "/ip4/203.0.113.7/tcp/4001");
    /* With and without /p2p/ID mean the same (dusk.md check 16): the relay's own id is added later.
     */
    rest = cur_of(maddr_bytes(&m));
    while (maddr_next(&rest, &part)) {
        before = at;
        at = m.n - rest.n;
        last = part;
    }
    if (last.code == MADDR_P2P)
        m.n = (uint16_t)before;
    if (m.n == 0)
        return expect(d, "a multiaddr with an address and a port before /p2p");
    if (*n == CONFIG_ANNOUNCE_MAX)
        return expect(d, "at most %d addresses", CONFIG_ANNOUNCE_MAX);
    list[(*n)++] = m;
    return true;
}

static bool add_to_list(struct draft *d, const struct setting *s, char *base, const char *value)
{
    unsigned *n = (unsigned *)(void *)(base + s->off_n);

    if (s->kind == SET_ADDRS && strcmp(value, "off") == 0) {
        *n = 0;
        return true;
    }
    if (s->kind == SET_ADDRS && s->off == offsetof(struct config, p2p))
        return add_p2p(d, value);
    if (s->kind == SET_MADDRS && s->call)
        return s->call(d, value);
    if (s->kind == SET_MADDRS)
        return add_announce(d, (struct maddr *)(void *)(base + s->off), n, value);
    if (*n == s->cap)
        return expect(d, "at most %u of them", (unsigned)s->cap);
    if (s->kind == SET_ADDRS) {
        if (!parse_listen(d, value, (struct listen_at *)(void *)(base + s->off) + *n))
            return false;
        (*n)++;
        return true;
    }
    if (s->kind == SET_CIDRS) {
        struct cidr c;

        if (!cidr_parse(bytes_str(value), &c))
            return expect(d, "an address or a prefix, such as 192.0.2.7, 10.0.0.0/8 or fd00::/8");
        ((struct cidr *)(void *)(base + s->off))[(*n)++] = c;
        return true;
    }
    if (s->call && !s->call(d, value)) /* a list of texts may have a shape */
        return false;
    if (!set_text(d, base + s->off + (size_t)*n * s->width, s->width, value))
        return false;
    (*n)++;
    return true;
}

static bool set_addr(struct draft *d, const struct setting *s, char *base, const char *value)
{
    bool *on = (bool *)(void *)(base + s->off_n);

    if (strcmp(value, "off") == 0) {
        *on = false;
        return true;
    }
    if (!parse_listen(d, value, (struct listen_at *)(void *)(base + s->off)))
        return false;
    *on = true;
    return true;
}

static bool set_value(struct draft *d, const struct setting *s, char *base, const char *value)
{
    switch (s->kind) {
    case SET_FLAG:
    case SET_BOOL:
        return set_bool(d, (bool *)(void *)(base + s->off), value);
    case SET_U32:
    case SET_U64:
        return set_number(d, s, base + s->off, value);
    case SET_RATE:
        return set_rate(d, s, base, value);
    case SET_WORD:
        return set_word(d, s, (int *)(void *)(base + s->off), value);
    case SET_TEXT:
        return set_text(d, base + s->off, CONFIG_TEXT_MAX, value);
    case SET_PATH:
        return set_text(d, base + s->off, CONFIG_PATH_MAX, value);
    case SET_TEXTS:
    case SET_CIDRS:
    case SET_MADDRS:
    case SET_ADDRS:
        return add_to_list(d, s, base, value);
    case SET_ADDR:
        return set_addr(d, s, base, value);
    case SET_CALL:
        return s->call(d, value);
    }
    return false;
}

bool draft_set(struct draft *d, const struct setting *s, const char *value)
{
    char *base = (char *)d->c;
    bool list = s->kind >= SET_TEXTS && s->kind <= SET_ADDRS;
    enum source *rank = &d->ranks[setting_index(s)], before = *rank;
    unsigned n = 0;

    if (list)
        memcpy(&n, base + s->off_n, sizeof(n));
    /* The first value of a stronger source replaces a list, its next ones add to it. */
    if (list && *rank < d->src)
        memset(base + s->off_n, 0, sizeof(n));
    *rank = d->src;
    if (set_value(d, s, base, value))
        return true;
    *rank = before; /* some sources go on after a bad value, and what was there stands */
    if (list)
        memcpy(base + s->off_n, &n, sizeof(n));
    return false;
}

/* The preset is chosen before anything is applied, by the same precedence as everything else; being
 * called by a system's name is the weakest way to choose it. */
static enum preset choose_preset(const struct flags *f, const struct conffile *file, char **argv,
                                 char *const *envp)
{
    const char *flag = flags_last(f, "preset"), *env = env_get(envp, "SLUICE_PRESET");
    const char *name = flag ? flag : env ? env : file ? conffile_preset(file) : NULL;
    enum preset p = preset_of_program(argv[0]);

    if (name && !preset_parse(name, &p))
        p = PRESET_NONE; /* refused where the sources are applied, with the place it was said at */
    return p;
}

static bool apply_sources(struct draft *d, const struct flags *f, const struct conffile *file,
                          enum preset preset)
{
    preset_defaults(d->c);
    d->src = SRC_PRESET;
    preset_apply(d->c, preset);
    d->src = SRC_FILE;
    if (file && !conffile_apply(d, file))
        return false;
    d->src = SRC_PRESET_ENV;
    if (!env_apply_preset(d))
        return false;
    d->src = SRC_ENV;
    if (!env_apply(d))
        return false;
    d->src = SRC_FLAG;
    if (!flags_apply(d, f) || !config_finish(d))
        return false;
    for (size_t i = 0; i < config_settings_n; i++)
        d->c->said_by[i] = (uint8_t)d->ranks[i];
    return true;
}

static void say_version(void)
{
    char text[1024];

    config_version_text(text, sizeof(text));
    fputs(text, stdout);
}

int config_load(struct config *c, int argc, char **argv, char **envp)
{
    struct draft d = { .c = c, .envp = envp };
    struct conffile *file = NULL;
    const char *path;
    bool ok;
    struct flags *f = calloc(1, sizeof(*f));

    memset(c, 0, sizeof(*c));
    if (!f) {
        config_refuse("out of memory");
        return 2;
    }
    ok = flags_parse(f, argc, argv);
    bool dig = choose_preset(f, NULL, argv, envp) == PRESET_DIG;

    f->help |= dig && f->words_n && strcmp(f->word[0], "help") == 0;
    if (ok && (f->help || f->version)) {
        if (f->help)
            flags_help(argv[0], dig);
        else if (dig) /* dig.md §16: nothing else */
            printf("dig-relay %s\n", SLUICE_VERSION);
        else
            say_version();
        free(f);
        return -1;
    }
    path = flags_last(f, "config");
    path = path ? path : env_get(envp, "SLUICE_CONFIG");
    if (ok && path) {
        file = conffile_read(path);
        ok = file != NULL;
    }
    if (ok) {
        enum preset preset = choose_preset(f, file, argv, envp);

        ok = config_dig_command(c, f, preset == PRESET_DIG) && apply_sources(&d, f, file, preset);
    }
    conffile_free(file);
    free(f);
    config_wipe_stack();
    if (!ok) {
        config_free(c);
        return 2;
    }
    return 0;
}

__attribute__((noinline)) void config_wipe_stack(void)
{
    uint8_t below[32768];

    explicit_bzero(below, sizeof(below));
}

void config_wipe_users(struct config *c)
{
    for (unsigned i = 0; i < c->turn_user_n; i++) {
        char *colon = strchr(c->turn_user[i], ':');

        if (colon)
            explicit_bzero(colon + 1,
                           sizeof(c->turn_user[i]) - (size_t)(colon + 1 - c->turn_user[i]));
    }
    config_wipe_stack(); /* looking for the colon has left it there */
}

void config_free(struct config *c)
{
    acl_free(c->acl);
    memset(c, 0, sizeof(*c)); /* secrets go with it */
}
