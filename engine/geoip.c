#include "engine/geoip.h"

#include <errno.h>
#include <maxminddb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/clock.h"
#include "engine/printable.h"

enum {
    NICE = 10, /* a place can wait for a message */
    STACK_BYTES = 1 << 20,
    TRAP_STACK_BYTES = 65536,
    PATH_BYTES = 4096,
};

struct geoip {
    struct geoip_opts opts;
    char path[PATH_BYTES];
    pthread_t thread;
    sem_t work;               /* there is some */
    _Atomic bool theirs;      /* the batch is with the thread */
    _Atomic uint32_t edition; /* as in struct geoip_batch */
    _Atomic(char *) next;     /* a path to be opened; from malloc */
    pthread_mutex_t lock;     /* for what follows; nobody who serves takes it */
    pthread_cond_t news;
    bool stopping, ended, abandoned;
    /* The thread's. */
    MMDB_s db;
    bool open;
    uint32_t editions;
    uint8_t *trap_stack;
    struct geoip_batch batch;
};

/* ---- what a broken file does -------------------------------------------------------------------
 * The file is mapped, and whoever writes a shorter one over it takes pages away under the reader:
 * SIGBUS. What is nested too deeply ends the stack: SIGSEGV. Both come to the very thread that
 * reads, in the midst of reads alone, so it can go on where it began. Copying the file into memory
 * instead would cost 130 MB for a usual one, and the second would remain. */

static _Thread_local sigjmp_buf *trap; /* set while that thread reads */
static struct sigaction before[2];     /* for faults that are not ours */

static void on_fault(int sig)
{
    if (trap)
        siglongjmp(*trap, sig);
    (void)sigaction(sig, &before[sig == SIGBUS], NULL); /* it happens again, without us */
}

static void faults_install(void) /* once in a process */
{
    struct sigaction act = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };

    sigemptyset(&act.sa_mask);
    (void)sigaction(SIGSEGV, &act, &before[0]);
    (void)sigaction(SIGBUS, &act, &before[1]);
}

/* A stack for the handler: the thread's own may be what has ended. A sanitizer brings one. */
static void trap_stack_set(struct geoip *g)
{
    stack_t now;

    if (sigaltstack(NULL, &now) || !(now.ss_flags & SS_DISABLE))
        return;
    g->trap_stack = malloc(TRAP_STACK_BYTES);
    if (!g->trap_stack)
        return;
    now = (stack_t){ .ss_sp = g->trap_stack, .ss_size = TRAP_STACK_BYTES };
    (void)sigaltstack(&now, NULL);
}

static void trap_stack_drop(struct geoip *g)
{
    const stack_t none = { .ss_flags = SS_DISABLE };

    if (g->trap_stack)
        (void)sigaltstack(&none, NULL);
    free(g->trap_stack);
}

/* ---- telling ---------------------------------------------------------------------------------
 */

/* Unless it was told to stop: then log and asker may be gone. */
static void tell(struct geoip *g, enum log_level level, const char *what, const char *more)
{
    pthread_mutex_lock(&g->lock);
    if (!g->stopping) {
        if (what)
            log_text(g->opts.log, level, "map: %s: %s: %s", what, more, g->path);
        g->opts.wake(g->opts.arg);
    }
    pthread_mutex_unlock(&g->lock);
}

static void close_db(struct geoip *g)
{
    atomic_store_explicit(&g->edition, 0, memory_order_relaxed);
    if (g->open)
        MMDB_close(&g->db);
    g->open = false;
}

/* ---- opening ---------------------------------------------------------------------------------
 */

/* 0, or one of the library's; `db` is written either way. */
static int open_db(const char *path, MMDB_s *db)
{
    sigjmp_buf back;
    int err;

    *db = (MMDB_s){ .filename = NULL };
    if (sigsetjmp(back, 1)) {
        trap = NULL;
        if (db->file_content) /* the rest, a few words of metadata, is lost */
            munmap((void *)(uintptr_t)db->file_content, (size_t)db->file_size);
        return MMDB_CORRUPT_SEARCH_TREE_ERROR;
    }
    trap = &back;
    err = MMDB_open(path, MMDB_MODE_MMAP, db);
    trap = NULL;
    return err;
}

static const char *why_not(int err)
{
    return err == MMDB_FILE_OPEN_ERROR || err == MMDB_IO_ERROR ? strerror(errno)
                                                               : MMDB_strerror(err);
}

static void reopen(struct geoip *g)
{
    MMDB_s fresh;
    int err = open_db(g->path, &fresh);
    bool missing = err == MMDB_FILE_OPEN_ERROR && errno == ENOENT;
    char type[64];

    if (err) {
        if (!missing || g->opts.named)
            tell(g, LOG_WARN, g->open ? "the database stays the one before" : "no database",
                 why_not(err));
        return;
    }
    close_db(g);
    g->db = fresh;
    g->open = true;
    atomic_store_explicit(&g->edition, ++g->editions, memory_order_release);
    printable(bytes_str(g->db.metadata.database_type), type, sizeof(type));
    tell(g, LOG_INFO, "database", type);
}

/* ---- looking up --------------------------------------------------------------------------------
 */

static int axis(double x, int least)
{
    int at = (int)(x / GEOIP_CELL_DEG);

    if (x < at * GEOIP_CELL_DEG) /* what is cut off goes towards zero: down it is to go */
        at--;
    return at - least / GEOIP_CELL_DEG;
}

uint16_t geoip_cell(double lat, double lon)
{
    if (!(lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180)) /* nor is NaN */
        return GEOIP_NOWHERE;
    return (uint16_t)(axis(lat, -90) * GEOIP_COLS + axis(lon, -180));
}

/* dig.md §15.2 says which. */
static bool is_private(const struct netaddr *a)
{
    static const uint8_t local[16] = { [15] = 1 };
    const uint8_t *v4 = a->ip + 12;
    uint32_t net24 = (uint32_t)v4[0] << 16 | (uint32_t)v4[1] << 8 | v4[2];
    uint8_t low = v4[3];

    if (!netaddr_is4(a))
        return netaddr_is_any(a) || memcmp(a->ip, local, sizeof(local)) == 0 ||
               (a->ip[0] & 0xfe) == 0xfc || (a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80);
    return v4[0] == 10 || v4[0] == 127 || (net24 & 0xfff000) == 0xac1000 || net24 >> 8 == 0xc0a8 ||
           net24 >> 8 == 0xa9fe || net24 == 0xc00002 || net24 == 0xc63364 || net24 == 0xcb0071 ||
           (net24 == 0 && low == 0) || (net24 == 0xffffff && low == 0xff);
}

static bool coordinate(MMDB_entry_s *entry, const char *name, double *out)
{
    const char *const path[] = { "location", name, NULL };
    MMDB_entry_data_s value;

    if (MMDB_aget_value(entry, &value, path) != MMDB_SUCCESS || !value.has_data)
        return false;
    if (value.type == MMDB_DATA_TYPE_DOUBLE)
        *out = value.double_value;
    else if (value.type == MMDB_DATA_TYPE_FLOAT)
        *out = (double)value.float_value;
    else
        return false;
    return true;
}

static uint16_t locate(const MMDB_s *db, const struct netaddr *a)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    bool is4 = netaddr_is4(a);
    double lat, lon;
    int err;

    if (is_private(a))
        return GEOIP_NOWHERE;
    memcpy(&in.sin_addr, a->ip + 12, 4);
    memcpy(&in6.sin6_addr, a->ip, 16);
    MMDB_lookup_result_s found = MMDB_lookup_sockaddr(
        db, is4 ? (const struct sockaddr *)&in : (const struct sockaddr *)&in6, &err);

    if (err || !found.found_entry || !coordinate(&found.entry, "latitude", &lat) ||
        !coordinate(&found.entry, "longitude", &lon))
        return GEOIP_NOWHERE;
    return geoip_cell(lat, lon);
}

/* false: the file broke, and no answer is one. */
static bool answer(struct geoip *g)
{
    struct geoip_batch *b = &g->batch;
    sigjmp_buf back;

    if (sigsetjmp(back, 1)) {
        trap = NULL;
        return false;
    }
    trap = &back;
    for (uint32_t i = 0; i < b->n; i++) {
        struct geoip_one *one = &b->one[i];

        one->cell = GEOIP_NOWHERE;
        for (uint8_t k = 0; k < one->addrs_n && one->cell == GEOIP_NOWHERE; k++)
            one->cell = locate(&g->db, &one->addr[k]);
    }
    trap = NULL;
    return true;
}

static void on_batch(struct geoip *g)
{
    bool broke = g->open && !answer(g);

    if (broke)
        close_db(g);
    g->batch.edition = g->open ? g->editions : 0;
    atomic_store_explicit(&g->theirs, false, memory_order_release);
    tell(g, LOG_WARN, broke ? "no database any more" : NULL,
         "it broke while it was read, a reload opens it again");
}

/* ---- the thread -------------------------------------------------------------------------------
 */

static void geoip_free(struct geoip *g)
{
    close_db(g);
    free(atomic_load_explicit(&g->next, memory_order_relaxed));
    sem_destroy(&g->work);
    pthread_cond_destroy(&g->news);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static bool is_stopping(struct geoip *g)
{
    bool stopping;

    pthread_mutex_lock(&g->lock);
    stopping = g->stopping;
    pthread_mutex_unlock(&g->lock);
    return stopping;
}

static void *geoip_main(void *arg)
{
    struct geoip *g = arg;
    bool abandoned;

    prctl(PR_SET_NAME, "geoip");
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    trap_stack_set(g);
    reopen(g);
    while (!is_stopping(g)) {
        char *next = atomic_exchange_explicit(&g->next, NULL, memory_order_acquire);

        if (next) {
            snprintf(g->path, sizeof(g->path), "%s", next);
            free(next);
            reopen(g);
        }
        if (atomic_load_explicit(&g->theirs, memory_order_acquire))
            on_batch(g);
        while (sem_wait(&g->work) && errno == EINTR)
            ;
    }
    trap_stack_drop(g);
    pthread_mutex_lock(&g->lock);
    g->ended = true;
    abandoned = g->abandoned;
    pthread_cond_broadcast(&g->news);
    pthread_mutex_unlock(&g->lock);
    if (abandoned)
        geoip_free(g);
    return NULL;
}

static int start_thread(struct geoip *g)
{
    pthread_attr_t attr;
    sigset_t others, was;
    int err;

    sigfillset(&others); /* signals are for threads that serve; a fault is nobody else's */
    sigdelset(&others, SIGBUS);
    sigdelset(&others, SIGSEGV);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &others, &was);
    err = pthread_create(&g->thread, &attr, geoip_main, g);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    pthread_attr_destroy(&attr);
    return -err;
}

int geoip_start(const struct geoip_opts *o, struct geoip **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct geoip *g = calloc(1, sizeof(*g));
    pthread_condattr_t attr;
    int err;

    *out = NULL;
    if (!g)
        return -ENOMEM;
    g->opts = *o;
    snprintf(g->path, sizeof(g->path), "%s", o->path);
    g->opts.path = NULL;
    sem_init(&g->work, 0, 0);
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->news, &attr);
    pthread_condattr_destroy(&attr);
    (void)pthread_once(&once, faults_install);
    err = start_thread(g);
    if (err) {
        geoip_free(g);
        return err;
    }
    *out = g;
    return 0;
}

void geoip_stop(struct geoip *g)
{
    uint64_t ns = clock_mono_ns() + (uint64_t)GEOIP_STOP_MS * 1000000;
    const struct timespec until = { .tv_sec = (time_t)(ns / 1000000000),
                                    .tv_nsec = (long)(ns % 1000000000) };
    bool ended;

    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    sem_post(&g->work);
    while (!g->ended && pthread_cond_timedwait(&g->news, &g->lock, &until) != ETIMEDOUT)
        ;
    ended = g->ended;
    g->abandoned = !ended;
    if (!ended) /* before the lock goes: it frees itself as soon as its disk answers */
        pthread_detach(g->thread);
    pthread_mutex_unlock(&g->lock);
    if (!ended)
        return;
    pthread_join(g->thread, NULL);
    geoip_free(g);
}

/* ---- for who asks ------------------------------------------------------------------------------
 */

uint32_t geoip_edition(const struct geoip *g)
{
    return atomic_load_explicit(&g->edition, memory_order_acquire);
}

struct geoip_batch *geoip_batch(struct geoip *g)
{
    return atomic_load_explicit(&g->theirs, memory_order_acquire) ? NULL : &g->batch;
}

void geoip_ask(struct geoip *g)
{
    ASSERT(!atomic_load_explicit(&g->theirs, memory_order_relaxed));
    atomic_store_explicit(&g->theirs, true, memory_order_release);
    sem_post(&g->work);
}

void geoip_reopen(struct geoip *g, const char *path)
{
    char *next = strdup(path);

    if (!next)
        return;
    free(atomic_exchange_explicit(&g->next, next, memory_order_acq_rel));
    sem_post(&g->work);
}
