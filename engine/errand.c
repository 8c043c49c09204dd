#include "engine/errand.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "engine/clock.h"
#include "engine/rng.h"

struct job {
    char name[CONFIG_TEXT_MAX];
    bool failing, has[TURN_FAMILIES];
    struct netaddr ip[TURN_FAMILIES];
};

struct errand {
    struct turn_host *host;
    struct logq *log;
    struct errand_opts opts;
    struct job job[TURN_PER_FAMILY];
    unsigned jobs;
    bool literal[TURN_FAMILIES]; /* that family's address was given as such */
    pthread_t thread;
    pthread_mutex_t lock; /* for what follows; whoever is told to stop touches no host any more */
    pthread_cond_t news;
    bool stopping, ended, abandoned;
    bool asked; /* each name once */
};

static int ask_getaddrinfo(void *arg, const char *name, struct errand_answer *out)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM };
    struct addrinfo *all = NULL;
    int err = getaddrinfo(name, NULL, &hints, &all);

    (void)arg;
    out->n = 0;
    for (const struct addrinfo *a = all; !err && a && out->n < ERRAND_ADDRS_MAX; a = a->ai_next) {
        struct netaddr *to = &out->addr[out->n];

        *to = (struct netaddr){ .port = 0 };
        if (a->ai_family == AF_INET) {
            struct sockaddr_in in;

            memcpy(&in, a->ai_addr, sizeof(in));
            to->ip[10] = to->ip[11] = 0xff;
            memcpy(to->ip + 12, &in.sin_addr, 4);
            out->n++;
        } else if (a->ai_family == AF_INET6) {
            struct sockaddr_in6 in6;

            memcpy(&in6, a->ai_addr, sizeof(in6));
            memcpy(to->ip, &in6.sin6_addr, sizeof(to->ip));
            out->n++;
        }
    }
    if (!err)
        freeaddrinfo(all);
    return err;
}

const struct errand_opts errand_defaults = { .resolve = ask_getaddrinfo,
                                             .interval_ms = ERRAND_INTERVAL_MS };

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
                 err ? gai_strerror(err) : "no address that they could use",
                 j->has[TURN_V4] || j->has[TURN_V6] ? "the last address that it had"
                                                    : "the bound address");
    j->failing = !useful;
    tell_host(e);
}

/* ---- the thread -------------------------------------------------------------------------------
 */

static void errand_free(struct errand *e)
{
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

/* Asks for each name. With the lock; without it while a resolver thinks. */
static void ask_all(struct errand *e)
{
    for (unsigned i = 0; i < e->jobs && !e->stopping; i++) {
        struct errand_answer a = { .n = 0 };
        int err;

        pthread_mutex_unlock(&e->lock);
        err = e->opts.resolve(e->opts.arg, e->job[i].name, &a);
        pthread_mutex_lock(&e->lock);
        if (!e->stopping)
            on_answer(e, &e->job[i], err, &a);
    }
    e->asked = true;
    pthread_cond_broadcast(&e->news);
}

static void *errand_main(void *arg)
{
    struct errand *e = arg;
    bool abandoned;

    prctl(PR_SET_NAME, "errand");
    pthread_mutex_lock(&e->lock);
    while (!e->stopping) {
        ask_all(e);
        struct timespec until =
            after_ms(e->opts.interval_ms + rng_below(e->opts.interval_ms / 10 + 1));

        while (!e->stopping && pthread_cond_timedwait(&e->news, &e->lock, &until) != ETIMEDOUT)
            ;
    }
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
            memcpy(e->job[e->jobs++].name, text, strlen(text) + 1);
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
    add_names(e, h->cfg);
    if (e->jobs == 0) {
        free(e);
        return 0;
    }
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->news, &attr);
    pthread_condattr_destroy(&attr);
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
    while (!e->asked && pthread_cond_timedwait(&e->news, &e->lock, &until) != ETIMEDOUT)
        ;
    asked = e->asked;
    pthread_mutex_unlock(&e->lock);
    return asked;
}

void errand_stop(struct errand *e)
{
    struct timespec until = after_ms(ERRAND_STOP_MS);
    bool ended;

    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    pthread_cond_broadcast(&e->news);
    while (!e->ended && pthread_cond_timedwait(&e->news, &e->lock, &until) != ETIMEDOUT)
        ;
    ended = e->ended;
    e->abandoned = !ended;
    if (!ended) /* before the lock goes: it frees itself as soon as its resolver comes back */
        pthread_detach(e->thread);
    pthread_mutex_unlock(&e->lock);
    if (!ended)
        return;
    pthread_join(e->thread, NULL);
    errand_free(e);
}
