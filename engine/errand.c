#include "engine/errand.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "engine/clock.h"
#include "engine/fetch.h"
#include "engine/resolve.h"
#include "engine/rng.h"

struct job {
    struct errand *e;
    char name[CONFIG_TEXT_MAX];
    bool failing, has[TURN_FAMILIES];
    struct netaddr ip[TURN_FAMILIES];
};

struct errand {
    struct turn_host *host;
    struct logq *log;
    struct errand_opts opts;
    struct mbox mbox; /* of struct errand_call */
    struct resolve *resolve;
    struct fetch *fetch;
    struct job job[TURN_PER_FAMILY];
    unsigned jobs, unanswered;   /* of this round of names */
    uint64_t round_ms;           /* when the next one begins */
    bool literal[TURN_FAMILIES]; /* that family's address was given as such */
    pthread_t thread;
    pthread_mutex_t lock; /* for what follows; whoever is told to stop touches no host any more */
    pthread_cond_t news;
    bool stopping, ended, abandoned;
    bool asked; /* each name once */
};

const struct errand_opts errand_defaults = { .interval_ms = ERRAND_INTERVAL_MS };

/* ---- answers ----------------------------------------------------------------------------------
 */

static bool is_loopback(const struct netaddr *a)
{
    static const uint8_t one[16] = { [15] = 1 };

    return netaddr_is4(a) ? a->ip[12] == 127 : memcmp(a->ip, one, sizeof(one)) == 0;
}

/* Of the host's own name Debian's hosts file says 127.0.1.1, which no client may be told, unless
 * everything is on loopback. */
static bool is_useful(const struct errand *e, enum turn_family f, const struct netaddr *a)
{
    return (netaddr_is4(a) ? TURN_V4 : TURN_V6) == f && !netaddr_is_any(a) &&
           (!is_loopback(a) || is_loopback(&e->host->relay_ip[f]));
}

static void take_family(struct errand *e, struct job *j, enum turn_family f,
                        const struct errand_answer *a)
{
    const struct netaddr *found = NULL;
    char now[NETADDR_TEXT_MAX], was[NETADDR_TEXT_MAX];

    for (size_t i = 0; i < a->n; i++) {
        if (!is_useful(e, f, &a->addr[i]))
            continue;
        if (j->has[f] && memcmp(a->addr[i].ip, j->ip[f].ip, sizeof(j->ip[f].ip)) == 0)
            return;
        if (!found)
            found = &a->addr[i];
    }
    if (!found)
        return;
    netaddr_ip_text(found, now);
    if (j->has[f])
        netaddr_ip_text(&j->ip[f], was);
    log_text(e->log, LOG_INFO, "--turn-external-ip %s is %s%s%s", j->name, now,
             j->has[f] ? ", no longer " : "", j->has[f] ? was : "");
    if (!netaddr_is_public(found))
        log_text(e->log, LOG_WARN,
                 "--turn-external-ip %s: %s is private: peers elsewhere cannot reach it", j->name,
                 now);
    j->has[f] = true;
    j->ip[f] = *found;
}

/* The first name that has an address of a family gives it. */
static void tell_host(struct errand *e)
{
    for (int f = 0; f < TURN_FAMILIES; f++) {
        struct netaddr is;
        const struct job *j = e->job, *end = e->job + e->jobs;

        while (j < end && !j->has[f])
            j++;
        if (j == end || e->literal[f])
            continue;
        if (!turn_host_has_external(e->host, (enum turn_family)f, &is) ||
            memcmp(is.ip, j->ip[f].ip, sizeof(is.ip)) != 0)
            turn_host_set_external(e->host, (enum turn_family)f, j->ip[f].ip);
    }
}

static const char *words_of(int err)
{
    return err == 0            ? "no address that they could use"
           : err == -ENOENT    ? "there is no such name"
           : err == -ETIMEDOUT ? "the resolver does not answer"
                               : "the resolver fails";
}

static void on_answer(struct errand *e, struct job *j, int err, const struct errand_answer *a)
{
    bool useful = false;

    for (int f = 0; f < TURN_FAMILIES && !err; f++) {
        for (size_t i = 0; i < a->n; i++)
            useful |= is_useful(e, (enum turn_family)f, &a->addr[i]);
        take_family(e, j, (enum turn_family)f, a);
    }
    if (useful && j->failing)
        log_text(e->log, LOG_INFO, "--turn-external-ip %s resolves again", j->name);
    if (!useful && !j->failing)
        log_text(e->log, LOG_WARN,
                 "--turn-external-ip %s does not resolve: %s; clients are told %s", j->name,
                 words_of(err),
                 j->has[TURN_V4] || j->has[TURN_V6] ? "the last address that it had"
                                                    : "the bound address");
    j->failing = !useful;
    tell_host(e);
}

/* ---- names of others -------------------------------------------------------------------------
 */

/* By whoever resolves: c-ares, or a test. */
static void ask(struct errand *e, const char *name, uint64_t now_ms, uint64_t deadline_ms,
                void (*done)(void *arg, int err, const struct errand_answer *a), void *arg)
{
    struct errand_answer a = { .n = 0 };

    if (!e->opts.resolve) {
        resolve_ask(e->resolve, name, now_ms, deadline_ms, done, arg);
        return;
    }
    int err = e->opts.resolve(e->opts.arg, name, &a);

    done(arg, err, &a);
}

static void on_name(void *arg, int err, const struct errand_answer *a)
{
    struct errand_name *n = arg;
    struct ring *wake = n->wake;

    n->err = err;
    n->answer = *a;
    n->call.node.kind = n->kind_of_mail;
    if (mbox_push(n->to, &n->call.node) && wake) /* from here on it is the asker's */
        ring_wake(wake);
}

static void ask_name(struct errand *e, struct errand_call *c, uint64_t now_ms)
{
    struct errand_name *n = CONTAINER_OF(c, struct errand_name, call);
    uint32_t ms = n->deadline_ms;

    if (ms == 0 || ms > ERRAND_DEADLINE_MS)
        ms = ERRAND_DEADLINE_MS;
    n->name[sizeof(n->name) - 1] = '\0';
    ask(e, n->name, now_ms, now_ms + ms, on_name, n);
}

void errand_post(struct errand *e, struct errand_call *c)
{
    if (mbox_push(&e->mbox, &c->node))
        fetch_wake(e->fetch);
}

void errand_resolve(struct errand *e, struct errand_name *n)
{
    n->call.run = ask_name;
    errand_post(e, &n->call);
}

struct fetch *errand_fetch(struct errand *e)
{
    return e->fetch;
}

/* ---- the thread -------------------------------------------------------------------------------
 */

static void errand_free(struct errand *e)
{
    fetch_free(e->fetch);
    resolve_free(e->resolve);
    pthread_cond_destroy(&e->news);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static struct timespec after_ms(uint64_t ms)
{
    uint64_t ns = clock_mono_ns() + ms * 1000000;

    return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
                              .tv_nsec = (long)(ns % 1000000000) };
}

static void on_own_name(void *arg, int err, const struct errand_answer *a)
{
    struct job *j = arg;
    struct errand *e = j->e;

    pthread_mutex_lock(&e->lock);
    if (!e->stopping)
        on_answer(e, j, err, a);
    if (--e->unanswered == 0) {
        e->asked = true;
        pthread_cond_broadcast(&e->news);
    }
    pthread_mutex_unlock(&e->lock);
}

/* The next round begins when this one is answered: c-ares has a deadline for each. */
static void ask_own(struct errand *e, uint64_t now_ms)
{
    if (e->jobs == 0 || e->unanswered > 0 || now_ms < e->round_ms)
        return;
    e->round_ms = now_ms + e->opts.interval_ms + rng_below(e->opts.interval_ms / 10 + 1);
    e->unanswered = e->jobs;
    for (unsigned i = 0; i < e->jobs; i++)
        ask(e, e->job[i].name, now_ms, now_ms + ERRAND_DEADLINE_MS, on_own_name, &e->job[i]);
}

static bool must_stop(struct errand *e)
{
    bool stopping;

    pthread_mutex_lock(&e->lock);
    stopping = e->stopping;
    pthread_mutex_unlock(&e->lock);
    return stopping;
}

static void errand_turn(struct errand *e)
{
    struct pollfd fds[RESOLVE_FDS_MAX];
    uint64_t now_ms = clock_mono_ms(), until_ms;
    unsigned n;

    for (struct mnode *m = mbox_take(&e->mbox), *next; m; m = next) {
        struct errand_call *c = CONTAINER_OF(m, struct errand_call, node);

        next = m->next;
        c->run(e, c, now_ms);
    }
    ask_own(e, now_ms);
    fetch_turn(e->fetch, now_ms);
    n = resolve_fds(e->resolve, fds);
    until_ms = min_u64(resolve_deadline_ms(e->resolve, now_ms), fetch_deadline_ms(e->fetch));
    if (e->jobs > 0 && e->unanswered == 0)
        until_ms = min_u64(until_ms, e->round_ms);
    until_ms = min_u64(until_ms, now_ms + ERRAND_INTERVAL_MS);
    fetch_wait(e->fetch, fds, n, until_ms > now_ms ? (int)(until_ms - now_ms) : 0);
    resolve_turn(e->resolve, clock_mono_ms(), fds, n);
}

static void *errand_main(void *arg)
{
    struct errand *e = arg;
    bool abandoned;

    prctl(PR_SET_NAME, "errand");
    while (!must_stop(e))
        errand_turn(e);
    pthread_mutex_lock(&e->lock);
    e->ended = true;
    abandoned = e->abandoned;
    pthread_cond_broadcast(&e->news);
    pthread_mutex_unlock(&e->lock);
    if (abandoned)
        errand_free(e);
    return NULL;
}

static int start_thread(struct errand *e)
{
    sigset_t all, was;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was); /* signals are for threads that do not wait for DNS */
    err = pthread_create(&e->thread, NULL, errand_main, e);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    return -err;
}

static void add_names(struct errand *e, const struct config *c)
{
    for (unsigned i = 0; i < c->turn_external_n; i++) {
        const char *text = c->turn_external[i];
        struct netaddr a = { .port = 0 };
        struct cidr ip;

        if (cidr_parse(bytes_str(text), &ip)) {
            memcpy(a.ip, ip.ip, sizeof(a.ip));
            e->literal[netaddr_is4(&a) ? TURN_V4 : TURN_V6] = true;
        } else {
            memcpy(e->job[e->jobs].name, text, strlen(text) + 1);
            e->job[e->jobs++].e = e;
        }
    }
}

int errand_start(struct turn_host *h, struct logq *log, const struct errand_opts *o,
                 struct errand **out)
{
    struct errand *e = calloc(1, sizeof(*e));
    pthread_condattr_t attr;
    int err;

    *out = NULL;
    if (!e)
        return -ENOMEM;
    e->host = h;
    e->log = log;
    e->opts = *o;
    if (h)
        add_names(e, h->cfg);
    if (e->jobs == 0 && !o->always) {
        free(e);
        return 0;
    }
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->news, &attr);
    pthread_condattr_destroy(&attr);
    err = resolve_new(o->servers, &e->resolve);
    if (!err)
        err = fetch_new(e->resolve, &e->fetch);
    if (!err)
        err = start_thread(e);
    if (err) {
        errand_free(e);
        return err;
    }
    *out = e;
    return 0;
}

bool errand_wait(struct errand *e, uint32_t ms)
{
    struct timespec until = after_ms(ms);
    bool asked;

    pthread_mutex_lock(&e->lock);
    while (e->jobs > 0 && !e->asked &&
           pthread_cond_timedwait(&e->news, &e->lock, &until) != ETIMEDOUT)
        ;
    asked = e->asked || e->jobs == 0;
    pthread_mutex_unlock(&e->lock);
    return asked;
}

bool errand_stop(struct errand *e)
{
    struct timespec until = after_ms(ERRAND_STOP_MS);
    bool ended;

    if (!e)
        return true;
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    fetch_wake(e->fetch);
    while (!e->ended && pthread_cond_timedwait(&e->news, &e->lock, &until) != ETIMEDOUT)
        ;
    ended = e->ended;
    e->abandoned = !ended;
    if (!ended) /* before the lock goes: it frees itself as soon as its resolver comes back */
        pthread_detach(e->thread);
    pthread_mutex_unlock(&e->lock);
    if (!ended)
        return false;
    pthread_join(e->thread, NULL);
    errand_free(e);
    return true;
}
