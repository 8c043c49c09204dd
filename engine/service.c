/* What each command does, in which scope, and how it says so (dig.md §17). */
#include "engine/service.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/json.h"
#include "engine/service_int.h"

enum { UNIT_BYTES = 131072, ANSWER_BYTES = 8192 };

static const char *const scope_names[] = { "system", "user" };

struct deed {
    const struct config *c;
    const struct service_host *h;
    char why[SERVICE_TEXT_MAX];                    /* of a failure */
    char answer[ANSWER_BYTES];                     /* the object `result`, as JSON */
    char told[CONFIG_PATH_MAX + SERVICE_TEXT_MAX]; /* the same for people */
};

/* What became of one scope. */
struct outcome {
    enum place place;
    bool looked; /* else there is nothing to tell */
    bool found, removed, indeterminate;
    char error[SERVICE_TEXT_MAX];
};

static int fail(struct deed *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int fail(struct deed *d, const char *fmt, ...)
{
    char words[sizeof(d->why)];
    va_list ap;

    va_start(ap, fmt); /* d->why may be among the arguments */
    vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    memcpy(d->why, words, sizeof(words));
    return 1;
}

static enum place resolved(const struct deed *d)
{
    if (d->c->service_scope == SCOPE_AUTO)
        return d->h->root ? PLACE_SYSTEM : PLACE_USER;
    return d->c->service_scope == SCOPE_SYSTEM ? PLACE_SYSTEM : PLACE_USER;
}

static enum place other_than(enum place p)
{
    return p == PLACE_SYSTEM ? PLACE_USER : PLACE_SYSTEM;
}

/* ---- taking away --------------------------------------------------------------------------- */

/* In the order in which a failure leaves the least behind: what cannot be stopped stays. Units that
 * were changed on the disk are read anew first, for what is not loaded cannot be stopped either. */
static void take_away(const struct service_host *h, struct outcome *o)
{
    char words[SERVICE_TEXT_MAX];

    if (service_ctl(h, o->place, "daemon-reload", false, h->quick_ms, words) < 0 ||
        service_ctl(h, o->place, "stop", true, h->slow_ms, o->error) ||
        service_ctl(h, o->place, "disable", true, h->quick_ms, o->error)) {
        if (!o->error[0])
            snprintf(o->error, sizeof(o->error), "systemctl refuses: %.400s", words);
        return;
    }
    o->error[0] = '\0'; /* warnings */
    if (service_unit_remove(h, o->place, o->error))
        return;
    o->removed = true;
    if (service_ctl(h, o->place, "daemon-reload", false, h->quick_ms, words)) {
        /* The unit has gone from the disk: systemd forgets it at the latest when it starts anew. */
    }
}

/* unconditionally: a unit on the disk goes even if systemd cannot be asked about it. */
static void look_and_take(const struct service_host *h, struct outcome *o, bool unconditionally)
{
    enum detected seen = service_detect(h, o->place, o->error);
    bool file = unconditionally && service_unit_is_there(h, o->place);

    o->looked = true;
    o->found = seen == DETECT_PRESENT || file;
    o->indeterminate = seen == DETECT_UNKNOWN;
    if (seen != DETECT_UNKNOWN)
        o->error[0] = '\0';
    if (o->found && o->place == PLACE_SYSTEM && !h->root)
        snprintf(o->error, sizeof(o->error), "the system's services are root's");
    else if (o->found && !o->indeterminate)
        take_away(h, o);
    else if (o->found && service_unit_remove(h, o->place, o->error) == 0)
        o->removed = true;
}

static void put_outcome(struct jw *j, const struct outcome *o)
{
    jw_open(j, '{');
    jw_kstr(j, "scope", scope_names[o->place]);
    jw_kbool(j, "found", o->found);
    jw_kbool(j, "removed", o->removed);
    jw_kbool(j, "indeterminate", o->indeterminate);
    jw_kstr(j, "error", o->error[0] ? o->error : NULL);
    jw_close(j, '}');
}

static int uninstall(struct deed *d)
{
    struct outcome o[2] = { { .place = resolved(d) }, { .place = other_than(resolved(d)) } };
    struct jw j = jw_of(d->answer, sizeof(d->answer));
    const struct outcome *wrong = NULL;
    bool any = false;

    look_and_take(d->h, &o[0], true);
    if (d->c->service_scope == SCOPE_AUTO)
        look_and_take(d->h, &o[1], false);
    for (int i = 0; i < 2; i++) {
        any |= o[i].removed;
        if (!wrong && (o[i].indeterminate || (o[i].found && !o[i].removed)))
            wrong = &o[i];
    }
    if (wrong)
        return fail(d, "%s%s scope: %s: %s", any ? "removed, but not all of it; " : "",
                    scope_names[wrong->place],
                    wrong->indeterminate ? "whether it is installed cannot be told"
                                         : "it could not be removed",
                    wrong->error[0] ? wrong->error : "no reason given");
    if (!any)
        return fail(d, "%s is not installed", SERVICE_LABEL);
    jw_open(&j, '{');
    jw_kbool(&j, "installed", false);
    jw_kbool(&j, "registered", false);
    jw_kstr(&j, "label", SERVICE_LABEL);
    jw_key(&j, "removed_scopes");
    jw_open(&j, '[');
    for (int i = 0; i < 2; i++)
        if (o[i].removed)
            jw_str(&j, scope_names[o[i].place]);
    jw_close(&j, ']');
    jw_key(&j, "scopes");
    jw_open(&j, '[');
    for (int i = 0; i < 2; i++)
        if (o[i].looked && (i == 0 || o[i].found))
            put_outcome(&j, &o[i]);
    jw_close(&j, ']');
    jw_close(&j, '}');
    snprintf(d->told, sizeof(d->told), "%s is uninstalled", SERVICE_LABEL);
    return 0;
}

/* ---- installing ---------------------------------------------------------------------------- */

static int make_known(struct deed *d, enum place p)
{
    const struct service_host *h = d->h;
    char words[SERVICE_TEXT_MAX];

    if (service_ctl(h, p, "daemon-reload", false, h->quick_ms, d->why) == 0 &&
        service_ctl(h, p, "enable", true, h->quick_ms, d->why) == 0)
        return 0;
    if (service_unit_remove(h, p, words)) {
        /* then it lies there, and nothing starts it */
    }
    return fail(d, "the unit could not be enabled: %s",
                d->why[0] ? d->why : "systemctl refuses without a word");
}

static int install(struct deed *d)
{
    static char unit[UNIT_BYTES];
    const struct service_host *h = d->h;
    enum place p = resolved(d);
    struct outcome other = { .place = other_than(p) };
    struct jw j = jw_of(d->answer, sizeof(d->answer));
    char at[NETADDR_TEXT_MAX];

    if (p == PLACE_SYSTEM && !h->root)
        return fail(d, "permission denied: only root installs for the system; say --scope user, or "
                       "run it as root");
    if (service_unit_text(d->c, h, p, unit, sizeof(unit), d->why))
        return 1;
    look_and_take(h, &other, false);
    if (service_unit_write(h, p, unit, d->why) || make_known(d, p))
        return 1;
    jw_open(&j, '{');
    jw_kbool(&j, "installed", true);
    jw_kbool(&j, "registered", true);
    jw_kbool(&j, "started", false);
    jw_kstr(&j, "label", SERVICE_LABEL);
    jw_kstr(&j, "scope", scope_names[p]);
    jw_kstr(&j, "program", h->program);
    netaddr_text(&d->c->dig.addr, at);
    jw_kstr(&j, "listen", d->c->dig_on ? at : NULL);
    netaddr_text(&d->c->http.addr, at);
    jw_kstr(&j, "health_listen", d->c->http_on ? at : NULL);
    if (other.found) {
        jw_key(&j, "migration");
        put_outcome(&j, &other);
    } else {
        jw_kstr(&j, "migration", NULL);
    }
    jw_close(&j, '}');
    snprintf(d->told, sizeof(d->told), "%s is installed as %s/%s; `start` starts it%s%s",
             SERVICE_LABEL, h->dir[p], SERVICE_UNIT,
             other.found && !other.removed ? "; the other scope's could not be removed: " : "",
             other.found && !other.removed ? other.error : "");
    return 0;
}

/* ---- the rest ------------------------------------------------------------------------------ */

static int start_or_stop(struct deed *d, bool start)
{
    enum place p = resolved(d);
    struct jw j = jw_of(d->answer, sizeof(d->answer));

    if (service_ctl(d->h, p, start ? "start" : "stop", true, d->h->slow_ms, d->why))
        return fail(d, "the service could not be %s: %s", start ? "started" : "stopped",
                    d->why[0] ? d->why : "systemctl refuses without a word");
    jw_open(&j, '{');
    jw_kbool(&j, start ? "started" : "stopped", true);
    jw_kstr(&j, "label", SERVICE_LABEL);
    jw_kstr(&j, "scope", scope_names[p]);
    jw_close(&j, '}');
    snprintf(d->told, sizeof(d->told), "%s is %s", SERVICE_LABEL, start ? "started" : "stopped");
    return 0;
}

static int status(struct deed *d)
{
    const struct config *c = d->c;
    struct jw j = jw_of(d->answer, sizeof(d->answer));
    bool serving = c->http_on && service_serves(&c->http.addr, d->h->ask_ms);
    char at[NETADDR_TEXT_MAX], url[NETADDR_TEXT_MAX + 16];

    netaddr_text(&c->http.addr, at);
    snprintf(url, sizeof(url), "http://%s/health", at);
    jw_open(&j, '{');
    jw_kstr(&j, "health_url", c->http_on ? url : NULL);
    jw_kbool(&j, "serving", serving);
    jw_close(&j, '}');
    snprintf(d->told, sizeof(d->told), "%s: %s", c->http_on ? url : "no health port is configured",
             serving ? "serving" : "not serving");
    return serving ? 0 : 1;
}

static int act(struct deed *d)
{
    switch (d->c->verb) {
    case VERB_INSTALL:
        return install(d);
    case VERB_UNINSTALL:
        return uninstall(d);
    case VERB_START:
    case VERB_STOP:
        return start_or_stop(d, d->c->verb == VERB_START);
    case VERB_STATUS:
        return status(d);
    case VERB_SERVE:
        break;
    }
    return fail(d, "not a command for a service");
}

static void one_line(char *words)
{
    for (char *p = words; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = p[1] ? ' ' : '\0';
}

int service_run(const struct config *c, const struct service_host *h)
{
    struct deed d = { .c = c, .h = h };
    char error[2 * SERVICE_TEXT_MAX];
    int exit_status = act(&d);
    struct jw j = jw_of(error, sizeof(error));

    one_line(d.why);
    if (c->service_json && d.answer[0]) {
        fprintf(h->out, "{\"ok\":true,\"result\":%s}\n", d.answer);
    } else if (c->service_json) {
        jw_open(&j, '{');
        jw_kstr(&j, "message", d.why);
        jw_close(&j, '}');
        fprintf(h->out, "{\"ok\":false,\"error\":%s}\n", error);
    } else if (d.answer[0]) {
        fprintf(h->out, "%s\n", d.told);
    } else {
        fprintf(h->complain, "dig-relay: %s\n", d.why);
    }
    fflush(h->out);
    return exit_status;
}

static const char *env_or(char *const *envp, const char *name)
{
    size_t n = strlen(name);

    for (; envp && *envp; envp++)
        if (strncmp(*envp, name, n) == 0 && (*envp)[n] == '=')
            return *envp + n + 1;
    return "";
}

/* As systemd's own: $XDG_CONFIG_HOME/systemd/user, else ~/.config/systemd/user. */
static void user_dir(char *const *envp, char *out, size_t cap)
{
    const char *home = env_or(envp, "HOME"), *config = env_or(envp, "XDG_CONFIG_HOME");
    int n = 0;

    if (config[0] == '/')
        n = snprintf(out, cap, "%s/systemd/user", config);
    else if (home[0] == '/')
        n = snprintf(out, cap, "%s/.config/systemd/user", home);
    if (n <= 0 || (size_t)n >= cap)
        out[0] = '\0';
}

int service_main(const struct config *c, char **envp)
{
    static char program[CONFIG_PATH_MAX], dir[CONFIG_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    const struct service_host h = {
        .dir = { "/etc/systemd/system", dir },
        .program = program,
        .root = geteuid() == 0,
        .envp = envp,
        .quick_ms = 30000,
        .slow_ms = 120000,
        .ask_ms = 2000,
        .out = stdout,
        .complain = stderr,
    };

    if (n <= 0) {
        fprintf(stderr, "dig-relay: this program's own path cannot be read: %s\n", strerror(errno));
        return 1;
    }
    user_dir(envp, dir, sizeof(dir));
    return service_run(c, &h);
}
