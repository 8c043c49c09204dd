#include "engine/reload.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/dig.h"
#include "engine/tls.h"
#include "engine/turn_host.h"
#include "engine/turn_login.h"

enum { RELOAD_IDLE, RELOAD_READING, RELOAD_READ, RELOAD_REFUSED };
enum { RELOAD_PAUSE_MS = 1000 }; /* far longer than a turn: nobody looks at a retired list then */

struct reload {
    struct control *control;
    const struct config *running;
    int argc;
    char **argv, **envp;
    _Atomic int state;
    bool thread_started;
    pthread_t thread;
    uint64_t applied_ms;
    struct config *next, *current, *retired;  /* current: whose acl is in use; NULL: running's */
    struct turn_login *login, *retired_login; /* of current and retired; NULL: none of ours */
    struct tls_server *dig_tls;               /* read, and not yet in force */
};

struct reload *reload_new(struct control *c, const struct config *running, int argc, char **argv,
                          char **envp)
{
    struct reload *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->control = c;
    r->running = running;
    r->argc = argc;
    r->argv = argv;
    r->envp = envp;
    return r;
}

static void config_drop(struct config *c)
{
    if (c)
        config_free(c);
    free(c);
}

static void login_drop(struct turn_login *l)
{
    if (l)
        turn_login_fini(l);
    free(l);
}

void reload_free(struct reload *r)
{
    if (!r)
        return;
    if (r->thread_started)
        pthread_join(r->thread, NULL);
    config_drop(r->next);
    tls_server_drop(r->dig_tls);
    login_drop(r->login);
    login_drop(r->retired_login);
    config_drop(r->current);
    config_drop(r->retired);
    free(r);
}

static void *reload_main(void *arg)
{
    struct reload *r = arg;
    int refused = config_load(r->next, r->argc, r->argv, r->envp); /* its line is on stderr */
    char why[512];

    if (!refused && r->control->d->dig && r->next->dig_tls_on && r->running->dig_tls_on) {
        r->dig_tls = dig_tls_load(r->next, why, sizeof(why));
        if (!r->dig_tls) {
            fprintf(stderr, "sluice: %s\n", why);
            config_free(r->next);
            refused = 1;
        }
    }

    atomic_store_explicit(&r->state, refused ? RELOAD_REFUSED : RELOAD_READ, memory_order_release);
    ring_wake(r->control->ring);
    return NULL;
}

int reload_start(struct reload *r, char *why, size_t cap)
{
    if (atomic_load_explicit(&r->state, memory_order_acquire) != RELOAD_IDLE ||
        r->control->now_ms < r->applied_ms + RELOAD_PAUSE_MS) {
        snprintf(why, cap, "a reload is under way, or one ended a moment ago");
        return -EBUSY;
    }
    login_drop(r->retired_login);
    r->retired_login = NULL;
    config_drop(r->retired);
    r->retired = NULL;
    r->next = calloc(1, sizeof(*r->next));
    if (!r->next) {
        snprintf(why, cap, "not enough memory");
        return -ENOMEM;
    }
    atomic_store_explicit(&r->state, RELOAD_READING, memory_order_relaxed);
    int err = pthread_create(&r->thread, NULL, reload_main, r);

    if (err) {
        free(r->next);
        r->next = NULL;
        atomic_store_explicit(&r->state, RELOAD_IDLE, memory_order_relaxed);
        snprintf(why, cap, "no thread: %s", strerror(err));
        return -err;
    }
    r->thread_started = true;
    return 0;
}

struct dump {
    char *text;
    size_t n, cap;
};

static void dump_line(void *arg, const char *text)
{
    struct dump *d = arg;
    size_t n = strlen(text);

    if (d->n + n + 1 >= d->cap)
        return;
    memcpy(d->text + d->n, text, n);
    d->n += n;
    d->text[d->n++] = '\n';
    d->text[d->n] = 0;
}

/* Secrets and users of TURN: with overlap, for the new configuration names the old secret too until
 * the last credential made from it has expired. Without any at the start there are no relayed
 * addresses to hand out, and that waits for a restart. */
static bool apply_login(struct reload *r)
{
    struct turn_host *h = r->control->d->turn;
    struct turn_login *l;
    char why[256] = "not enough memory";

    if (!h || !h->relays)
        return true;
    l = calloc(1, sizeof(*l));
    if (!l || turn_login_init(l, r->next, h->machine.realm.name, why, sizeof(why))) {
        log_text(r->control->log, LOG_ERROR, "reload refused, nothing changed: %s", why);
        login_drop(l);
        return false;
    }
    if (!l->secrets_n && !l->users && h->own_secret[0]) /* dusk's own stays, as long as it runs */
        l->secret[l->secrets_n++] = bytes_str(h->own_secret);
    turn_host_set_login(h, l);
    r->retired_login = r->login;
    r->login = l;
    log_text(r->control->log, LOG_INFO, "reload: secrets and users of TURN are in force");
    return true;
}

/* Connections that are there go on with the certificate that they know. */
static void apply_dig_tls(struct reload *r)
{
    if (!r->dig_tls)
        return;
    dig_host_set_tls(r->control->d->dig, r->dig_tls);
    log_text(r->control->log, LOG_INFO, "reload: the certificate of the DIG door is in force");
}

/* Also if it has the name that it had: there is a new one each month. It says so itself. */
static void apply_dig_geoip(struct reload *r)
{
    if (r->control->dig)
        dig_control_reopen_geoip(r->control->dig, r->next->dig_geoip_path);
}

static bool applies_now(const struct reload *r, const char *line)
{
    static const char *const names[] = { "log-level ",   "allow ",     "deny ",
                                         "turn-secret ", "turn-user ", "dig-geoip-db " };

    if (strncmp(line, "dig-tls-cert ", 13) == 0 || strncmp(line, "dig-tls-key ", 12) == 0)
        return r->running->dig_tls_on && r->next->dig_tls_on;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(line, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Names each setting that differs and needs a restart: the two dumps, line by line. */
static void say_pending(struct reload *r)
{
    enum { DUMP_BYTES = 65536 };
    struct dump a = { malloc(DUMP_BYTES), 0, DUMP_BYTES },
                b = { malloc(DUMP_BYTES), 0, DUMP_BYTES };
    char *save = NULL;

    if (a.text && b.text) {
        a.text[0] = b.text[0] = 0;
        config_dump(r->running, dump_line, &a);
        config_dump(r->next, dump_line, &b);
        for (char *line = strtok_r(b.text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            const char *at = strstr(a.text, line);
            size_t n = strlen(line);

            if (!applies_now(r, line) && !(at && (at == a.text || at[-1] == '\n') && at[n] == '\n'))
                log_text(r->control->log, LOG_WARN, "reload: waits for a restart: %s", line);
        }
    }
    free(a.text);
    free(b.text);
}

void reload_apply(struct reload *r)
{
    int state = atomic_load_explicit(&r->state, memory_order_acquire);

    if (state != RELOAD_READ && state != RELOAD_REFUSED)
        return;
    pthread_join(r->thread, NULL); /* it has said its last word */
    r->thread_started = false;
    if (state == RELOAD_REFUSED) {
        free(r->next);
        log_text(r->control->log, LOG_ERROR, "reload refused, nothing changed");
    } else if (!apply_login(r)) {
        config_drop(r->next);
        tls_server_drop(r->dig_tls);
    } else {
        apply_dig_tls(r);
        apply_dig_geoip(r);
        say_pending(r);
        log_set_level(r->control->d->log, r->next->log_level);
        atomic_store_explicit(&r->control->d->acl, r->next->acl, memory_order_release);
        r->retired = r->current;
        r->current = r->next;
        log_text(r->control->log, LOG_INFO, "reload: log level and access lists are in force");
    }
    r->next = NULL;
    r->dig_tls = NULL;
    r->applied_ms = r->control->now_ms;
    atomic_store_explicit(&r->state, RELOAD_IDLE, memory_order_relaxed);
}
