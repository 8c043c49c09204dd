/* sluice: start and orderly stop. Everything is acquired top-down here and released bottom-up: the
 * machine's limits, the data directory, the identity, the sockets, then the threads. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "engine/control.h"
#include "engine/dial.h"
#include "engine/dig.h"
#include "engine/doors.h"
#include "engine/errand.h"
#include "engine/geoip.h"
#include "engine/gif.h"
#include "engine/guard.h"
#include "engine/hostinfo.h"
#include "engine/identity_file.h"
#include "engine/ready.h"
#include "engine/reload.h"
#include "engine/service.h"
#include "engine/services.h"
#include "engine/shard.h"
#include "engine/svc_gossip.h"
#include "engine/turn_secret.h"
#include "engine/turn_shard.h"
#include "engine/usage.h"
#include "proto/crypto.h"

enum {
    EXIT_FATAL = 1,
    EXIT_CONFIG = 2,
    RMEM_WANTED = 4 << 20,
    NOFILE_WANTED = 16384,
    KEEPER_NICE = 5
};

struct shard_thread {
    struct shard shard;
    struct turn_shard turn;
    pthread_t thread;
    struct process *p;
    unsigned cpu;
    bool started;
};

struct process {
    struct config cfg;
    struct identity me;
    struct log *log;
    struct logq *q;
    struct daemon daemon;
    struct control control;
    struct doors doors;
    struct turn_host turn;
    struct dig_host dig;
    struct dial_host dial;
    struct errand *errand;
    struct gif *gif;
    struct keeper keeper;
    struct logq *geoip_q;
    struct geoip *geoip;
    struct shard_thread *threads;
    unsigned shards_n;
    pthread_barrier_t rings_ready; /* nobody rings a doorbell that does not hang yet */
    _Atomic int ring_err;
    _Atomic bool failed; /* a shard has ended by an error */
    const char *_Atomic ring_what;
    int guard_fd;
    bool ended; /* all its threads: what they used may go */
};

static struct process *the_process; /* for the signal handlers alone */

static void on_signal(int sig)
{
    struct control *c = &the_process->control;

    if (sig == SIGHUP)
        atomic_fetch_add(&c->hangs, 1);
    else
        atomic_fetch_add(&c->terms, 1);
    if (c->ring)
        ring_wake(c->ring);
}

static void signals_install(void)
{
    struct sigaction act = { .sa_handler = on_signal };

    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
    act.sa_handler = SIG_IGN; /* a closed terminal is an EPIPE, not a death */
    sigaction(SIGPIPE, &act, NULL);
}

static void ring_refused(int err, const char *what)
{
    const char *cure = "see the README, \"io_uring refused\"";

    if (err == -EPERM)
        cure = "the container forbids it: run it with --security-opt "
               "seccomp=tools/deploy/seccomp.json, or set kernel.io_uring_disabled=0 on the host";
    else if (err == -ENOSYS)
        cure = "this kernel is built without io_uring: Sluice cannot run here";
    else if (err == -EINVAL)
        cure = "this kernel is older than 6.1: a newer one is needed";
    else if (err == -ENOMEM)
        cure = "out of memory, or RLIMIT_MEMLOCK is too small";
    fprintf(stderr, "sluice: io_uring refused (%s: %s): %s\n", what, strerror(-err), cure);
}

static struct ring *ring_open(struct process *p, bool control, const struct mbox *mail)
{
    const struct ring_opts opts = {
        .sq_entries = control ? 256 : RING_SQ,
        .cq_entries = control ? 2048 : RING_CQ,
        .bufs = control ? 0 : RECV_BUFS,
        .buf_bytes = RECV_BUF_BYTES,
        .mail = mail,
    };
    const char *what = "";
    int err = 0;
    struct ring *r = ring_new(&opts, &err, &what);

    if (!r) {
        atomic_store(&p->ring_what, what);
        atomic_store(&p->ring_err, err);
    }
    return r;
}

static void *shard_main(void *arg)
{
    struct shard_thread *t = arg;
    struct process *p = t->p;
    char name[16];
    int err = 0;

    snprintf(name, sizeof(name), "shard-%u", t->shard.id);
    prctl(PR_SET_NAME, name);
    if (hostinfo_pin(t->cpu)) {
        /* An optimisation: a cpuset that changed under us is no reason to stop. */
    }
    struct ring *ring = ring_open(p, false, &t->shard.mbox);

    t->shard.ring = ring;
    pthread_barrier_wait(&p->rings_ready); /* all rings exist, or ring_err is set */
    pthread_barrier_wait(&p->rings_ready); /* control has looked */
    if (!atomic_load(&p->ring_err)) {
        shard_start(&t->shard, ring, p->doors.fd[t->shard.id], p->doors.n);
        if (t->shard.turn)
            turn_shard_start(t->shard.turn, p->doors.turn_udp[t->shard.id],
                             p->doors.turn_tcp[t->shard.id], p->doors.turn_n);
        if (t->shard.dig)
            dig_shard_start(t->shard.dig, p->doors.dig[t->shard.id], 1);
        while (!(err = shard_turn(&t->shard, true)))
            ;
        if (err != -ECANCELED) { /* its listener would swallow its share of clients for ever */
            log_text(t->shard.log, LOG_ERROR, "shard %u fails, and the relay stops: %s",
                     t->shard.id, strerror(-err));
            atomic_store(&p->failed, true);
            atomic_fetch_add(&p->control.terms, 2); /* at once */
        }
    }
    atomic_fetch_add_explicit(&p->control.shards_done, 1, memory_order_release);
    if (p->control.ring && !atomic_load(&p->ring_err))
        ring_wake(p->control.ring);
    return NULL;
}

static void *keeper_main(void *arg)
{
    struct process *p = arg;
    struct keeper *k = &p->keeper;
    int err = 0;

    prctl(PR_SET_NAME, "keeper");
    hostinfo_background(KEEPER_NICE);
    k->ring = ring_open(p, true, &k->mbox);
    pthread_barrier_wait(&p->rings_ready);
    pthread_barrier_wait(&p->rings_ready);
    if (atomic_load(&p->ring_err))
        return NULL;
    while (!(err = keeper_turn(k, true)))
        ;
    if (err != -ECANCELED) { /* its askers would wait for ever */
        log_text(k->log, LOG_ERROR, "the store's thread fails, and the relay stops: %s",
                 strerror(-err));
        atomic_store(&p->failed, true);
        atomic_fetch_add(&p->control.terms, 2);
        ring_wake(p->control.ring);
    }
    return NULL;
}

static int identity_load(struct process *p, bool *created)
{
    char why[512];

    if (identity_file_open(p->cfg.identity_path, &p->me, created, why, sizeof(why))) {
        fprintf(stderr, "sluice: %s\n", why);
        return EXIT_FATAL;
    }
    if (why[0])
        fprintf(stderr, "sluice: %s\n", why);
    return 0;
}

static void host_prepare(struct process *p)
{
    uint64_t nofile = 0, rmem = hostinfo_rmem_max();

    for (unsigned i = 0; i < p->cfg.notes_n; i++)
        log_text(p->q, LOG_WARN, "%s", p->cfg.note[i]);

    if (hostinfo_raise_nofile(&nofile) || hostinfo_grow_fds(nofile < 1048576 ? nofile : 1048576))
        log_text(p->q, LOG_WARN, "cannot raise the limit of open files");
    log_text(p->q, LOG_INFO, "open files: at most %llu", (unsigned long long)nofile);
    if (nofile < NOFILE_WANTED)
        log_text(p->q, LOG_WARN,
                 "only %llu open files are allowed: raise LimitNOFILE (systemd) or ulimit -n",
                 (unsigned long long)nofile);
    if (rmem && rmem < RMEM_WANTED)
        log_text(p->q, LOG_WARN,
                 "net.core.rmem_max is %llu: raise it to %d so that bursts of datagrams fit",
                 (unsigned long long)rmem, RMEM_WANTED);
}

static int threads_start(struct process *p)
{
    struct host_cpus cpus;

    hostinfo_cpus(&cpus);
    if (pthread_barrier_init(&p->rings_ready, NULL, p->shards_n + 1 + (p->daemon.keeper != NULL)))
        return -ENOMEM;
    if (p->daemon.keeper) {
        int err = pthread_create(&p->keeper.thread, NULL, keeper_main, p);

        if (err) {
            fprintf(stderr, "sluice: cannot start the store's thread: %s\n", strerror(err));
            exit(EXIT_FATAL);
        }
        p->keeper.started = true;
    }
    for (unsigned i = 0; i < p->shards_n; i++) {
        struct shard_thread *t = &p->threads[i];

        t->p = p;
        t->cpu = cpus.cpu[i % cpus.count];
        int err = pthread_create(&t->thread, NULL, shard_main, t);

        if (err) {
            fprintf(stderr, "sluice: cannot start thread %u: %s\n", i, strerror(err));
            exit(EXIT_FATAL); /* the others wait at a barrier that will never fill */
        }
        t->started = true;
    }
    return 0;
}

static void threads_join(struct process *p)
{
    for (unsigned i = 0; i < p->shards_n; i++)
        if (p->threads[i].started)
            pthread_join(p->threads[i].thread, NULL);
    if (p->keeper.started) { /* nobody asks it any more */
        keeper_stop(&p->keeper);
        pthread_join(p->keeper.thread, NULL);
    }
    pthread_barrier_destroy(&p->rings_ready);
}

/* What all shards share of TURN. 0 or -errno with a line in `why`. */
static int turn_new(struct process *p, char *why, size_t cap)
{
    int err;

    if (!p->cfg.turn_on)
        return 0;
    err = turn_host_init(&p->turn, &p->cfg, p->daemon.quota, p->shards_n, why, cap);
    if (!err && p->turn.own_secret[0])
        err = turn_secret_keep(p->cfg.data_dir, p->turn.own_secret, why, cap);
    if (err)
        return err;
    config_wipe_users(&p->cfg);
    for (unsigned i = 0; i < p->doors.turn_n; i++) {
        turn_host_add_own_port(&p->turn, p->doors.turn_udp_bound[i].port);
        turn_host_add_own_port(&p->turn, p->doors.turn_tcp_bound[i].port);
    }
    for (unsigned i = 0; i < p->doors.n; i++)
        turn_host_add_own_port(&p->turn, p->doors.bound[i].port);
    turn_host_add_own_port(&p->turn, p->doors.dig_bound.port);
    p->daemon.turn = &p->turn;
    memcpy(p->daemon.turn_udp, p->doors.turn_udp_bound, sizeof(p->daemon.turn_udp));
    memcpy(p->daemon.turn_tcp, p->doors.turn_tcp_bound, sizeof(p->daemon.turn_tcp));
    p->daemon.turn_n = p->doors.turn_n;
    return 0;
}

static int no_memory(char *why, size_t cap)
{
    snprintf(why, cap,
             "not enough memory for the tables: lower --max-conns, --max-circuits, "
             "--max-buffer-mb or --turn-max-allocations");
    return -ENOMEM;
}

static int shards_new(struct process *p, char *why, size_t cap)
{
    int err;

    p->threads = calloc(p->shards_n, sizeof(*p->threads));
    if (!p->threads || daemon_init(&p->daemon, &p->cfg, &p->me, p->log, p->shards_n))
        return no_memory(why, cap);
    dial_init(&p->dial, &p->daemon, p->q);
    err = turn_new(p, why, cap);
    if (!err && p->cfg.dig_on) {
        err = dig_host_init(&p->dig, &p->cfg, p->daemon.quota, p->shards_n, why, cap);
        p->daemon.dig = &p->dig;
        p->daemon.dig_bound = p->doors.dig_bound;
        p->turn.is_known = dig_host_knows;
        p->turn.known_by = &p->dig;
    }
    if (!err)
        err = services_init(&p->daemon, &p->keeper, why, cap);
    if (err)
        return err;
    for (unsigned i = 0; i < p->shards_n; i++) {
        char name[16];
        struct shard *s = &p->threads[i].shard;

        if (shard_init(s, &p->daemon, i))
            return no_memory(why, cap);
        if (p->daemon.turn) {
            if (turn_shard_init(&p->threads[i].turn, s, &p->turn))
                return no_memory(why, cap);
            s->turn = &p->threads[i].turn;
        }
        if (p->daemon.dig && dig_shard_new(s, p->daemon.dig))
            return no_memory(why, cap);
        if (p->daemon.keeper && p->cfg.usage_on && !(s->usage = usage_new(s)))
            return no_memory(why, cap);
        snprintf(name, sizeof(name), "shard-%u", i);
        s->log = log_attach(p->log, name);
        p->daemon.shard[i] = s;
    }
    if (control_init(&p->control, &p->daemon))
        return no_memory(why, cap);
    p->control.log = p->q;
    p->daemon.control = &p->control;
    return 0;
}

/* All clients are gone in order, so everything is back where it came from. What is not is said, and
 * no more: the work is done, and this is no reason to fail it. */
static void check_empty(struct process *p)
{
    for (unsigned i = 0; i < p->shards_n && !atomic_load(&p->failed); i++) {
        struct shard *s = &p->threads[i].shard;

        gossip_shard_free(s); /* messages that it kept for whoever might have asked for them */
        chunk_drain(&s->chunks);
        if (s->conns.live || s->streams.live || s->circuits.live || s->handshakes.live ||
            s->chunks.used[CHUNK_SMALL] || s->chunks.used[CHUNK_LARGE])
            log_text(p->q, LOG_ERROR,
                     "left behind on shard %u: %u connections, %u streams, %u circuits, "
                     "%u handshakes, %u and %u chunks",
                     i, s->conns.live, s->streams.live, s->circuits.live, s->handshakes.live,
                     s->chunks.used[CHUNK_SMALL], s->chunks.used[CHUNK_LARGE]);
    }
    for (int f = 0; f < TURN_FAMILIES && p->daemon.turn; f++)
        if (p->turn.has[f] && turn_ports_used(p->turn.ports[f]))
            log_text(p->q, LOG_ERROR, "left behind: %u relayed ports",
                     turn_ports_used(p->turn.ports[f]));
    if (p->daemon.dig && dig_host_left(p->daemon.dig))
        log_text(p->q, LOG_ERROR, "left behind: %zu DIG connections and registrations",
                 dig_host_left(p->daemon.dig));
    if (quota_live(p->daemon.quota) || homes_peers(p->daemon.homes))
        log_text(p->q, LOG_ERROR, "left behind: %zu counts, %u homes", quota_live(p->daemon.quota),
                 homes_peers(p->daemon.homes));
}

static void wake_control(void *arg)
{
    ring_wake(((struct control *)arg)->ring);
}

/* For the map of the DIG door. Control's ring is there. */
static void geoip_begin(struct process *p)
{
    const struct geoip_opts o = {
        .path = p->cfg.dig_geoip_path,
        .named = p->cfg.dig_geoip_named,
        .log = p->geoip_q,
        .wake = wake_control,
        .arg = &p->control,
    };
    int err = p->geoip_q ? geoip_start(&o, &p->geoip) : 0;

    if (err)
        log_text(p->q, LOG_WARN, "map: nobody is placed: %s", strerror(-err));
    else if (p->geoip)
        dig_control_set_geoip(p->control.dig, p->geoip);
}

/* Runs until everything has ended; the exit status. */
static int serve(struct process *p, bool created)
{
    char why[512] = "";
    int err;
    struct ring *ring = ring_open(p, true, &p->control.mbox);

    if (threads_start(p))
        return EXIT_FATAL;
    pthread_barrier_wait(&p->rings_ready);
    if (!atomic_load(&p->ring_err)) {
        p->control.now_ms = p->control.start_ms;
        struct netaddr at;

        err = control_start(&p->control, ring, why, sizeof(why));
        if (err)
            atomic_store(&p->ring_err, err);
        else if (p->daemon.turn) { /* no shard serves yet */
            if (opsdoor_http_bound(p->control.door, &at))
                turn_host_add_own_port(&p->turn, at.port);
            if (opsdoor_redirect_bound(p->control.door, &at))
                turn_host_add_own_port(&p->turn, at.port);
        }
    }
    pthread_barrier_wait(&p->rings_ready);
    if ((err = atomic_load(&p->ring_err))) {
        threads_join(p);
        p->ended = true;
        if (why[0])
            fprintf(stderr, "sluice: %s\n", why);
        else
            ring_refused(err, atomic_load(&p->ring_what));
        return EXIT_FATAL;
    }
    signals_install();
    geoip_begin(p);
    struct ready ready = { .cfg = &p->cfg,
                           .me = &p->me,
                           .created = created,
                           .doors = &p->doors,
                           .turn = p->daemon.turn,
                           .log = p->q };

    ready.http = opsdoor_http_bound(p->control.door, &ready.http_at);
    ready.redirect = opsdoor_redirect_bound(p->control.door, &ready.redirect_at);
    ready_say(&ready);
    while (!(err = control_turn(&p->control, true)))
        ;
    p->ended = err == -ECANCELED && atomic_load(&p->control.shards_done) == p->shards_n;
    if (p->ended) {
        threads_join(p);
        check_empty(p);
    } /* else a shard is stuck past its deadline: the exit ends it */
    return err == -ECANCELED && !atomic_load(&p->failed) ? 0 : EXIT_FATAL;
}

/* 0, or the line is on stderr. Dusk's relay runs on without TURN (presets.md). */
static int open_doors(struct process *p)
{
    char why[512];
    int err =
        p->cfg.turn_on ? doors_open_turn(&p->doors, &p->cfg, p->shards_n, why, sizeof(why)) : 0;

    if (err && p->cfg.preset == PRESET_DUSK) {
        log_text(p->q, LOG_WARN, "TURN stays closed: %s", why);
        p->cfg.turn_on = false;
        err = 0;
    }
    if (!err)
        err = doors_open(&p->doors, &p->cfg, p->shards_n, why, sizeof(why));
    if (!err && p->cfg.dig_on)
        err = doors_open_dig(&p->doors, &p->cfg, p->shards_n, why, sizeof(why));
    if (err)
        fprintf(stderr, "sluice: %s\n", why);
    return err;
}

/* What may wait for others. Names of the outside address: a start waits for the first answer, but
 * not for long. */
static void errand_begin(struct process *p)
{
    struct errand_opts o = errand_defaults;
    bool gif = p->cfg.gif_on && p->cfg.p2p_n > 0;
    int err;

    o.always = (gif && p->cfg.gif_key[0]) || p->dial.n > 0;
    err = errand_start(p->daemon.turn, log_attach(p->log, "errand"), &o, &p->errand);
    if (err)
        log_text(p->q, LOG_WARN, "no names are resolved and no gifs fetched: %s", strerror(-err));
    p->dial.errand = p->errand;
    p->dial.resolve = p->errand ? errand_resolve : NULL;
    if (gif && gif_new(&p->cfg, p->errand, log_attach(p->log, "gif"), &p->gif) == 0)
        p->daemon.gif = p->gif;
    if (p->errand && !errand_wait(p->errand, ERRAND_START_MS))
        log_text(p->q, LOG_WARN,
                 "--turn-external-ip: no answer within %d s; clients are told the bound address "
                 "until there is one",
                 ERRAND_START_MS / 1000);
}

/* What threads used; none of them runs any more, but for errands that hang. */
static void things_free(struct process *p)
{
    bool quiet = errand_stop(p->errand);

    geoip_stop(p->geoip);
    reload_free(p->control.reload);
    dig_control_free(p->control.dig);
    keeper_fini(&p->keeper);
    if (quiet)
        gif_free(p->gif);
}

static int run(struct process *p, int argc, char **argv, char **envp)
{
    char why[512];
    bool created = false;
    int status;

    if (guard_ports(&p->cfg, why, sizeof(why)) ||
        guard_acquire(p->cfg.data_dir, &p->guard_fd, why, sizeof(why))) {
        fprintf(stderr, "sluice: %s\n", why);
        return EXIT_FATAL;
    }
    if ((status = identity_load(p, &created)))
        return status;
    p->log = log_new(&p->cfg);
    if (!p->log || log_start(p->log)) {
        fprintf(stderr, "sluice: cannot start the log\n");
        return EXIT_FATAL;
    }
    p->q = log_attach(p->log, "main");
    host_prepare(p);
    p->shards_n = p->cfg.shards ? p->cfg.shards : hostinfo_shards();
    if (p->shards_n > SHARDS_MAX)
        p->shards_n = SHARDS_MAX;
    if (open_doors(p)) {
        status = EXIT_FATAL;
    } else if (shards_new(p, why, sizeof(why))) {
        fprintf(stderr, "sluice: %s\n", why);
        status = EXIT_FATAL;
    } else {
        memcpy(p->daemon.bound, p->doors.bound, sizeof(p->daemon.bound));
        p->daemon.bound_n = p->doors.n;
        p->control.reload = reload_new(&p->control, &p->cfg, argc, argv, envp);
        errand_begin(p);
        if (p->daemon.dig)
            p->geoip_q = log_attach(p->log, "geoip");
        status = serve(p, created);
        if (p->ended)
            things_free(p);
    }
    log_stop(p->log);
    return status;
}

static void print_line(void *arg, const char *text)
{
    (void)arg;
    puts(text);
}

int main(int argc, char **argv, char **envp)
{
    static struct process p;
    int status;

    the_process = &p;
    signal(SIGPIPE, SIG_IGN);
    status = config_load(&p.cfg, argc, argv, envp);
    if (status)
        return status < 0 ? 0 : status;
    if (p.cfg.verb != VERB_SERVE && !p.cfg.check_only)
        return service_main(&p.cfg, envp);
    crypto_init();
    if (p.cfg.check_only) {
        config_dump(&p.cfg, print_line, NULL);
        config_free(&p.cfg);
        return 0;
    }
    status = run(&p, argc, argv, envp);
    identity_wipe(&p.me);
    return status;
}
