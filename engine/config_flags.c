/* engine/config_flags.c: the command line by argp (glibc), read from the table of settings. */
#include "engine/config_int.h"

#include <argp.h>
#include <stdio.h>

enum {
    KEY_FIRST = 0x1000,
    KEY_DIG = 0x2000,
    KEY_JSON = 0x3000,
    KEY_SCOPE,
    KEY_HELP = 'h',
    KEY_VERSION = 'V'
};

static void refuse_flag(const struct argp_state *state)
{
    const char *what =
        state->next > 0 && state->next <= state->argc ? state->argv[state->next - 1] : "";
    const struct setting *s = NULL;
    const struct dig_name *n = NULL;

    if (strncmp(what, "--", 2) == 0) {
        s = setting_find(what + 2);
        n = s ? NULL : config_dig_name_of(what + 2);
        s = n ? setting_find(n->setting) : s;
    }
    if (s && s->arg)
        config_refuse("%s needs a value: %s", what, s->arg);
    else
        config_refuse("unknown or ambiguous flag %s: see --help", what);
}

static error_t on_word(struct flags *f, const char *word)
{
    if (f->words_n == WORDS_MAX) {
        f->refused = true;
        config_refuse("unexpected argument '%s'; see --help", word);
        return EINVAL;
    }
    f->word[f->words_n++] = word;
    return 0;
}

static error_t on_setting(struct flags *f, int key, const char *arg)
{
    const struct setting *s = NULL;
    const struct dig_name *n = NULL;

    if (key >= KEY_DIG && key < KEY_DIG + (int)config_dig_names_n) {
        n = &config_dig_names[key - KEY_DIG];
        if (!f->dig_only)
            f->dig_only = n->flag;
    }
    for (size_t i = 0; i < config_settings_n && !n && !s; i++)
        if (key == KEY_FIRST + (int)i ||
            (config_settings[i].letter && key == config_settings[i].letter))
            s = &config_settings[i];
    if (!s && !n)
        return ARGP_ERR_UNKNOWN;
    if (f->given_n == GIVEN_MAX) {
        f->refused = true;
        config_refuse("more than %d flags: use --config FILE", GIVEN_MAX);
        return E2BIG;
    }
    f->given[f->given_n++] =
        (struct given){ s, n ? n : config_dig_name_of(s->name), arg ? arg : "true" };
    return 0;
}

static error_t on_flag(int key, char *arg, struct argp_state *state)
{
    struct flags *f = state->input;

    switch (key) {
    case KEY_HELP:
        f->help = true;
        return 0;
    case KEY_VERSION:
        f->version = true;
        return 0;
    case KEY_JSON:
        f->json = true;
        f->dig_only = f->dig_only ? f->dig_only : "json";
        return 0;
    case KEY_SCOPE:
        f->scope = arg;
        f->dig_only = f->dig_only ? f->dig_only : "scope";
        return 0;
    case ARGP_KEY_ERROR:
        if (!f->refused)
            refuse_flag(state);
        return 0;
    case ARGP_KEY_ARG:
        return on_word(f, arg);
    default:
        return on_setting(f, key, arg);
    }
}

enum { DIG_OPTIONS_MAX = 40, OPTIONS_MAX = SETTINGS_MAX + GROUPS_MAX + DIG_OPTIONS_MAX + 5 };

/* dig-relay's own names: said by its help, understood by every parse, because the preset is known
 * only when all has been read. */
static size_t dig_options(struct argp_option *o, bool parsing)
{
    int hidden = parsing ? OPTION_HIDDEN : 0;
    size_t n = 0;

    for (size_t i = 0; i < config_dig_names_n; i++) {
        const struct dig_name *name = &config_dig_names[i];
        const struct setting *s = setting_find(name->setting);

        if (!name->flag || (parsing && setting_find(name->flag))) /* argp wants a name once */
            continue;
        ASSERT(n < DIG_OPTIONS_MAX);
        o[n++] =
            (struct argp_option){ name->flag, KEY_DIG + (int)i, s->arg, hidden, name->help, 0 };
    }
    o[n++] = (struct argp_option){ "json", KEY_JSON, NULL, hidden, "commands answer in JSON", 0 };
    o[n++] = (struct argp_option){ "scope",
                                   KEY_SCOPE,
                                   "auto|system|user",
                                   hidden,
                                   "whose service; auto: root's is the system's",
                                   0 };
    return n;
}

static void end_options(struct argp_option *o)
{
    o[0] = (struct argp_option){ "help", KEY_HELP, NULL, 0, "this text", -1 };
    o[1] = (struct argp_option){
        "version", KEY_VERSION, NULL, 0, "name and version, and of the libraries", -1
    };
    o[2] = (struct argp_option){ 0 };
}

static void build_options(struct argp_option *o)
{
    size_t n = 0;
    uint8_t group = 0;

    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];

        if (s->group != group) {
            group = s->group;
            o[n++] = (struct argp_option){ .doc = config_group_title(group), .group = group };
        }
        o[n++] = (struct argp_option){ s->name, s->letter ? s->letter : KEY_FIRST + (int)i,
                                       s->arg,  0,
                                       s->help, group };
    }
    n += dig_options(o + n, true);
    end_options(o + n);
}

static const char help_text[] =
    "Sluice: peers who cannot reach each other talk through it. Circuit relay v2 for js-, rust- "
    "and "
    "go-libp2p. Without flags it opens its doors on their usual ports."
    "\v"
    "Examples:\n"
    "  sluice --announce /dns4/relay.example.org/tcp/4001\n"
    "  sluice --preset descord --max-circuits 2048 --drain-secs 60\n"
    "  sluice --listen-p2p 127.0.0.1:0 --listen-http off --data /tmp/try\n"
    "  sluice --config /etc/sluice.yaml --check-config\n"
    "\n"
    "Every flag is also an environment variable (--max-circuits: SLUICE_MAX_CIRCUITS; commas "
    "between "
    "the values of a list; empty means unset) and a key of the YAML file (max-circuits: 2048; "
    "lists "
    "in [brackets] or with dashes). The flag wins over the environment, that over the file, that "
    "over "
    "the preset. Exit status: 0 stopped in order, 1 could not run, 2 not understood.";

static const char dig_text[] =
    "DIG relay: JSON over WebSocket, STUN, health. Commands:\n"
    "  serve      run the relay; so does no command at all\n"
    "  install    register it as a service of systemd, with these options\n"
    "  uninstall  take it away again\n"
    "  start      start the service\n"
    "  stop       stop it\n"
    "  status     ask the health port of the relay whether it serves\n"
    "  help       this text"
    "\v"
    "Each option but idle-timeout-secs, json and scope is also an environment variable: "
    "--max-connections is DIG_RELAY_MAX_CONNECTIONS (of tls-cert and tls-key: ..._PATH). The "
    "option "
    "wins. DIG_RELAY_TRUSTED_PROXY_CIDRS lists who may send PROXY protocol v2. This is Sluice: "
    "every flag that `sluice --help` lists is understood too. Exit status: 0 done, 1 could not run "
    "or does not serve, 2 not understood.";

static void build_argp(struct argp *a, struct argp_option *options)
{
    build_options(options);
    *a = (struct argp){ .options = options, .parser = on_flag, .doc = help_text };
}

/* argp says nothing itself (ARGP_SILENT): its way is two lines, usage included, and status 64. */
bool flags_parse(struct flags *f, int argc, char **argv)
{
    struct argp_option options[OPTIONS_MAX];
    struct argp a;

    build_argp(&a, options);
    memset(f, 0, sizeof(*f));
    return argp_parse(&a, argc, argv, ARGP_SILENT | ARGP_IN_ORDER, NULL, f) == 0;
}

void flags_help(const char *program, bool dig)
{
    struct argp_option options[OPTIONS_MAX];
    struct argp a;
    char name[64];

    build_argp(&a, options);
    if (dig) {
        end_options(options + dig_options(options, false));
        a.args_doc = "[COMMAND]";
        a.doc = dig_text;
    }
    snprintf(name, sizeof(name), "%s", program && *program ? program : "sluice");
    argp_help(&a, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
}

const char *flags_last(const struct flags *f, const char *name)
{
    for (unsigned i = f->given_n; i > 0; i--)
        if (f->given[i - 1].setting && strcmp(f->given[i - 1].setting->name, name) == 0)
            return f->given[i - 1].value;
    return NULL;
}

bool flags_apply(struct draft *d, const struct flags *f)
{
    bool dig = d->c->preset == PRESET_DIG;

    for (unsigned i = 0; i < f->given_n; i++) {
        const struct given *g = &f->given[i];

        if (dig && g->dig ? config_dig_set(d, g->dig, g->value)
                          : draft_set(d, g->setting, g->value))
            continue;
        config_refuse("--%s=%s: accepted is %s", g->setting ? g->setting->name : g->dig->flag,
                      g->setting && g->setting->secret ? "***" : g->value, d->why);
        return false;
    }
    return true;
}
