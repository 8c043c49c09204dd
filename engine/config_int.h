/* engine/config_int.h: inside config*.c. One table names every setting; command line, environment,
 * YAML, dump and help are all read from it, so that none of them can forget one. */
#ifndef SLUICE_ENGINE_CONFIG_INT_H
#define SLUICE_ENGINE_CONFIG_INT_H

#include "engine/config.h"

/* Ascending precedence (design.md "Commands people type"). */
enum source { SRC_DEFAULT, SRC_PRESET, SRC_FILE, SRC_PRESET_ENV, SRC_ENV, SRC_FLAG };

enum setting_kind {
    SET_FLAG, /* no value on the command line; true or false elsewhere */
    SET_BOOL, /* true or false */
    SET_U32,  /* lo..hi, stored times scale */
    SET_U64,
    SET_RATE,  /* N/SECS: N deep, one back per SECS; 0 = no limit */
    SET_WORD,  /* one of words, stored as an int-sized enum */
    SET_TEXT,  /* CONFIG_TEXT_MAX */
    SET_PATH,  /* CONFIG_PATH_MAX */
    SET_TEXTS, /* lists from here on */
    SET_CIDRS,
    SET_MADDRS,
    SET_ADDRS, /* listening addresses or off */
    SET_ADDR,  /* one listening address or off */
    SET_CALL,  /* parsed by `call`, dumped by nobody: it changes another setting */
};

struct draft;

struct setting {
    const char *name; /* flag without dashes, YAML key, SLUICE_ name in capitals */
    const char *arg;  /* what help calls the value */
    const char *help;
    uint8_t group;
    char letter;
    enum setting_kind kind;
    size_t off;     /* of the value in struct config */
    size_t off_n;   /* lists: of the count; SET_RATE: of the refill; SET_ADDR: of the switch */
    uint32_t cap;   /* lists: elements; SET_RATE: bytes of the refill field */
    uint32_t width; /* SET_TEXTS: bytes per element */
    uint64_t lo, hi, scale;
    const char *const *words; /* NULL-terminated */
    bool (*call)(struct draft *d, const char *value);
    bool secret; /* never echoed, never dumped */
    bool split;  /* a list that may be comma-separated in the environment */
};

enum {
    SETTINGS_MAX = CONFIG_SETTINGS_MAX,
    GROUPS_MAX = 12,
    DIG_SECS_MAX = 4000000, /* 46 days; in ms it fits 32 bits */
};
extern const struct setting config_settings[];
extern const size_t config_settings_n;
const char *config_group_title(uint8_t group);

/* The configuration while its sources speak. */
struct draft {
    struct config *c;
    enum source src;                 /* who speaks now */
    enum source ranks[SETTINGS_MAX]; /* who spoke last, per setting */
    char why[CONFIG_NOTE_MAX];       /* what would have been accepted */
    /* descord's --port, --interface and --monitoring-port change another setting's value and are
     * applied when all sources have spoken. */
    uint16_t port, monitoring_port;
    enum source port_src, interface_src, monitoring_src;
    struct netaddr interface;
    char *const *envp;
    char *const *dotenv; /* weaker than envp, for dusk's own names; NULL: none */
};

/* One value from one source. false: d->why says what is accepted. */
MUST_USE bool draft_set(struct draft *d, const struct setting *s, const char *value);
const struct setting *setting_find(const char *name);
size_t setting_index(const struct setting *s);
void draft_note(struct draft *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The one error line. `where` is the flag, variable or file position as the operator wrote it. */
void config_refuse(const char *fmt, ...) PRINTF_LIKE(1, 2);
const char *env_get(char *const *envp, const char *name); /* NULL when unset or empty */
/* Prints a value as the table would accept it again. */
void setting_text(const struct config *c, const struct setting *s, unsigned element, char *out,
                  size_t cap);
unsigned setting_elements(const struct config *c, const struct setting *s);

/* config_call.c: what the table calls for a value of a shape of its own. */
bool call_preset(struct draft *d, const char *value);
bool call_port(struct draft *d, const char *value);
bool call_monitoring_port(struct draft *d, const char *value);
bool call_interface(struct draft *d, const char *value);
bool call_acl(struct draft *d, const char *value);
bool call_turn_user(struct draft *d, const char *value);
bool call_turn_external(struct draft *d, const char *value);
bool call_turn_relay_ip(struct draft *d, const char *value);
bool call_turn_ports(struct draft *d, const char *value);
bool call_peer_relay(struct draft *d, const char *value);

/* config_flags.c: what the command line says, before anything is applied. */
enum { GIVEN_MAX = 1024 };
struct dig_name;
struct given {
    const struct setting *setting; /* NULL: a name that only dig-relay has */
    const struct dig_name *dig;    /* NULL: a name that dig-relay has not */
    const char *value;             /* borrows from argv */
};
enum { WORDS_MAX = 2 };
struct flags {
    struct given given[GIVEN_MAX];
    unsigned given_n;
    bool help, version;
    bool refused; /* the line is on stderr */
    /* Of dig-relay alone (dig.md §16, §17): its command, what else it can be told. */
    const char *word[WORDS_MAX];
    unsigned words_n;
    const char *dig_only; /* the first flag given that no other preset knows */
    const char *scope;
    bool json;
};
MUST_USE bool flags_parse(struct flags *f, int argc, char **argv);
void flags_help(const char *program, bool dig);
const char *flags_last(const struct flags *f, const char *name); /* NULL: not given */
MUST_USE bool flags_apply(struct draft *d, const struct flags *f);

/* config_dig.c: dig-relay's own spelling (dig.md §16). A name may lack a flag or a variable. */
enum dig_how {
    DIG_UNIT = 1, /* a unit says it even when it is the default (§17) */
    DIG_STRICT,   /* the original does not start with a bad value */
};
struct dig_name {
    const char *flag, *env, *setting;
    int how;          /* 0: nothing special */
    const char *help; /* of the flag, with the original's default */
};
extern const struct dig_name config_dig_names[];
extern const size_t config_dig_names_n;
const struct dig_name *config_dig_name_of(const char *flag); /* NULL: none */
/* As draft_set; numbers beyond our ranges are the end of them, for theirs are wider. */
MUST_USE bool config_dig_set(struct draft *d, const struct dig_name *n, const char *value);
MUST_USE bool config_dig_env_apply(struct draft *d);
/* What the words of the command line ask for. Without preset dig there are none. */
MUST_USE bool config_dig_command(struct config *c, const struct flags *f, bool dig);
MUST_USE bool config_dig_finish(struct draft *d);

/* config_env.c */
const char *env_own(const struct draft *d, const char *name);  /* a preset's own name */
void env_name(const struct setting *s, char *out, size_t cap); /* SLUICE_... */
MUST_USE bool draft_set_each(struct draft *d, const struct setting *s, const char *value);
MUST_USE bool env_apply(struct draft *d);        /* SLUICE_... */
MUST_USE bool env_apply_preset(struct draft *d); /* RUST_LOG, DUSK_RELAY_PORT, the preset's own */

/* config_dotenv.c. NULL: there is none. */
struct dotenv;
struct dotenv *dotenv_find(void);
char *const *dotenv_lines(const struct dotenv *e); /* like envp */
void dotenv_free(struct dotenv *e);

/* config_yaml.c. Not named yaml_...: libyaml exports yaml_free, and would call ours. */
struct conffile;
/* NULL: the line is on stderr. */
struct conffile *conffile_read(const char *path);
/* The same from memory; `path` is for the error line. */
struct conffile *conffile_parse(const char *path, struct bytes text);
void conffile_free(struct conffile *f);
const char *conffile_preset(const struct conffile *f); /* NULL: says nothing of it */
MUST_USE bool conffile_apply(struct draft *d, const struct conffile *f);

/* config_preset.c */
bool preset_parse(const char *name, enum preset *out);
enum preset preset_of_program(const char *argv0);
void preset_defaults(struct config *c);
void preset_apply(struct config *c, enum preset p);

/* config_check.c: what no single value can know. */
MUST_USE bool config_finish(struct draft *d);

#endif
