/* engine/config_yaml.c: the configuration file, read by libcyaml. Its schema is made from the table
 * of settings: a value is a text, a list is a sequence of texts, and both then go the way of a
 * flag's value, with the same ranges and the same words.
 *
 * Lines. libcyaml names line and column when the schema is not met. It cannot know that
 * max-circuits ends at a million, so a value that we refuse is given back to it: the file is read
 * once more with a schema that cannot be met at just that place, and libcyaml says where it was. */
#include "engine/config_int.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { YAML_BYTES_MAX = 1 << 20, YAML_LIST_MAX = 1024 };

struct confvalue {
    char *text;   /* a scalar */
    char **texts; /* a sequence */
    uint32_t texts_n;
};

struct confdoc {
    struct confvalue value[SETTINGS_MAX];
};

/* What libcyaml told its log: the first complaint and the innermost place of its backtrace. */
struct confwords {
    char what[256];
    unsigned line;
    bool in_backtrace;
};

struct conffile {
    char path[CONFIG_PATH_MAX];
    uint8_t *bytes;
    size_t n;
    struct confdoc *doc;
    cyaml_schema_field_t fields[SETTINGS_MAX + 1];
    cyaml_schema_value_t top;
};

static const cyaml_schema_value_t list_entry = { CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0,
                                                                    CONFIG_PATH_MAX) };

static bool is_list(const struct setting *s)
{
    return s->kind >= SET_TEXTS && s->kind <= SET_ADDRS;
}

static void on_words(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    struct confwords *w = ctx;
    char text[256];
    const char *at;

    if (level < CYAML_LOG_ERROR)
        return;
    vsnprintf(text, sizeof(text), fmt, args);
    text[strcspn(text, "\n")] = '\0';
    at = strstr(text, "(line: ");
    if (at && !w->line)
        w->line = (unsigned)strtoul(at + 7, NULL, 10);
    if (strstr(text, "Backtrace"))
        w->in_backtrace = true;
    if (!w->in_backtrace && !w->what[0])
        snprintf(w->what, sizeof(w->what), "%s", strncmp(text, "Load: ", 6) == 0 ? text + 6 : text);
}

static cyaml_err_t load(const struct conffile *f, struct confwords *w, struct confdoc **doc)
{
    const cyaml_config_t config = {
        .log_fn = on_words,
        .log_ctx = w,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS, /* a list is written out; nothing expands */
    };

    return cyaml_load_data(f->bytes, f->n, &config, &f->top, (cyaml_data_t **)doc, NULL);
}

static void build_schema(struct conffile *f)
{
    size_t n = 0;

    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];
        cyaml_schema_field_t *field = &f->fields[n];
        size_t at = offsetof(struct confdoc, value) + i * sizeof(struct confvalue);

        if (strcmp(s->name, "config") == 0) /* a file does not name another */
            continue;
        field->key = s->name;
        if (is_list(s)) {
            field->data_offset = (uint32_t)(at + offsetof(struct confvalue, texts));
            field->count_offset = (uint32_t)(at + offsetof(struct confvalue, texts_n));
            field->count_size = sizeof(uint32_t);
            field->value = (cyaml_schema_value_t){ CYAML_VALUE_SEQUENCE(
                CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, char *, &list_entry, 0, YAML_LIST_MAX) };
        } else {
            field->data_offset = (uint32_t)(at + offsetof(struct confvalue, text));
            field->value = (cyaml_schema_value_t){ CYAML_VALUE_STRING(
                CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, char *, 0, CONFIG_PATH_MAX) };
        }
        n++;
    }
    f->fields[n] = (cyaml_schema_field_t)CYAML_FIELD_END;
    f->top = (cyaml_schema_value_t){ CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct confdoc,
                                                         f->fields) };
}

/* The whole file, regular and of a sane size: 0 or -errno. */
static int slurp(struct conffile *f)
{
    struct stat st;
    int err = 0, fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        err = -errno;
    else if (!S_ISREG(st.st_mode))
        err = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    else if (st.st_size > YAML_BYTES_MAX)
        err = -EFBIG;
    f->bytes = err ? NULL : malloc((size_t)st.st_size + 1);
    if (!err && !f->bytes)
        err = -ENOMEM;
    while (!err && f->n < (size_t)st.st_size) {
        ssize_t got = read(fd, f->bytes + f->n, (size_t)st.st_size - f->n);

        if (got < 0)
            err = -errno;
        if (got <= 0)
            break;
        f->n += (size_t)got;
    }
    close(fd);
    return err;
}

/* A file of comments and blanks says nothing, which libcyaml would call an error. */
static bool says_nothing(const struct conffile *f)
{
    bool comment = false;

    for (size_t i = 0; i < f->n; i++) {
        uint8_t b = f->bytes[i];

        comment = b == '#' || (comment && b != '\n');
        if (!comment && b != ' ' && b != '\t' && b != '\r' && b != '\n')
            return false;
    }
    return true;
}

/* Where a key stands for the nth time. libcyaml blames the start of the whole mapping for a key
 * that it does not know or has seen before. 0: not at the beginning of a line. */
static unsigned key_line(const struct conffile *f, const char *key, unsigned nth)
{
    size_t n = strlen(key);
    unsigned line = 1;

    for (size_t at = 0; at < f->n; line++) {
        const uint8_t *end = memchr(f->bytes + at, '\n', f->n - at);
        size_t len = end ? (size_t)(end - f->bytes) - at : f->n - at;

        if (len > n && memcmp(f->bytes + at, key, n) == 0 && f->bytes[at + n] == ':' && --nth == 0)
            return line;
        at += len + 1;
    }
    return 0;
}

static void refuse_file(const struct conffile *f, struct confwords *w, cyaml_err_t err)
{
    static const char unknown[] = "Unexpected key: ", twice[] = "Mapping field already seen: ";
    const char *what = w->what[0] ? w->what : cyaml_strerror(err), *after = "";
    unsigned line = 0;

    if (strncmp(what, unknown, sizeof(unknown) - 1) == 0)
        line = key_line(f, what + sizeof(unknown) - 1, 1);
    else if (strncmp(what, twice, sizeof(twice) - 1) == 0)
        line = key_line(f, what + sizeof(twice) - 1, 2);
    else if (strncmp(what, "libyaml", 7) == 0) /* its own position is not handed on */
        after = " (on this line or the next)";
    line = line ? line : w->line;
    if (line)
        config_refuse("%s:%u: %s%s", f->path, line, what, after);
    else
        config_refuse("%s: %s", f->path, what);
}

static struct conffile *conffile_new(const char *path)
{
    struct conffile *f = calloc(1, sizeof(*f));

    if (f && (size_t)snprintf(f->path, sizeof(f->path), "%s", path) < sizeof(f->path))
        return f;
    config_refuse("--config: accepted is a path of at most %d characters", CONFIG_PATH_MAX - 1);
    free(f);
    return NULL;
}

static struct conffile *parse(struct conffile *f)
{
    struct confwords w = { 0 };
    cyaml_err_t err;

    build_schema(f);
    if (says_nothing(f))
        return f;
    err = load(f, &w, &f->doc);
    if (err == CYAML_OK)
        return f;
    refuse_file(f, &w, err);
    conffile_free(f);
    return NULL;
}

struct conffile *conffile_read(const char *path)
{
    struct conffile *f = conffile_new(path);
    int err = f ? slurp(f) : 0;

    if (!f)
        return NULL;
    if (!err)
        return parse(f);
    config_refuse("--config=%s: cannot be read: %s", path, strerror(-err));
    conffile_free(f);
    return NULL;
}

struct conffile *conffile_parse(const char *path, struct bytes text)
{
    struct conffile *f = conffile_new(path);

    if (!f)
        return NULL;
    f->bytes = malloc(text.n + 1);
    if (!f->bytes) {
        conffile_free(f);
        return NULL;
    }
    if (text.n)
        memcpy(f->bytes, text.p, text.n);
    f->n = text.n;
    return parse(f);
}

void conffile_free(struct conffile *f)
{
    const cyaml_config_t config = { .mem_fn = cyaml_mem };

    if (!f)
        return;
    if (f->doc)
        cyaml_free(&config, &f->top, f->doc, 0);
    if (f->bytes)
        explicit_bzero(f->bytes, f->n); /* secrets may stand in it */
    free(f->bytes);
    free(f);
}

const char *conffile_preset(const struct conffile *f)
{
    const struct setting *s = setting_find("preset");

    return f->doc ? f->doc->value[setting_index(s)].text : NULL;
}

/* See the top of the file. 0: libcyaml did not find it again. */
static unsigned line_of(const struct conffile *f, const struct setting *s, uint32_t element)
{
    struct conffile *again = malloc(sizeof(*again));
    struct confdoc *doc = NULL;
    struct confwords w = { 0 };
    unsigned line;

    if (!again)
        return 0;
    *again = *f;
    again->top.mapping.fields = again->fields;
    for (cyaml_schema_field_t *field = again->fields; field->key; field++) {
        if (strcmp(field->key, s->name) != 0)
            continue;
        if (is_list(s))
            field->value.sequence.max = element; /* this one is one too many */
        else
            field->value.string.min = field->value.string.max + 1;
    }
    if (load(again, &w, &doc) == CYAML_OK) {
        const cyaml_config_t config = { .mem_fn = cyaml_mem };

        cyaml_free(&config, &again->top, doc, 0);
    }
    line = w.line;
    free(again);
    return line;
}

static bool apply_one(struct draft *d, const struct conffile *f, const struct setting *s,
                      const char *text, uint32_t element)
{
    if (draft_set(d, s, text))
        return true;
    config_refuse("%s:%u: %s: %s: accepted is %s", f->path, line_of(f, s, element), s->name,
                  s->secret ? "***" : text, d->why);
    return false;
}

bool conffile_apply(struct draft *d, const struct conffile *f)
{
    if (!f->doc)
        return true;
    for (size_t i = 0; i < config_settings_n; i++) {
        const struct setting *s = &config_settings[i];
        const struct confvalue *v = &f->doc->value[i];

        if (v->text && !apply_one(d, f, s, v->text, 0))
            return false;
        for (uint32_t k = 0; k < v->texts_n; k++)
            if (!apply_one(d, f, s, v->texts[k], k))
                return false;
    }
    return true;
}
