/* engine/log.c: rings of records, one per thread, and the thread that writes them. Only that thread
 * ever waits for a terminal. */
#include "engine/log_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/clock.h"

enum {
    LOGQ_RECORDS = 1024, /* a power of two */
    LOG_QUEUES_MAX = 80, /* shards and the few other threads */
    LOG_LINE_MAX = 1024,
    LOG_BATCH_BYTES = 32768,
    LOG_WRITE_BYTES = 4096, /* PIPE_BUF: what a writable pipe takes without blocking */
    LOG_NAP_MS = 2,         /* after lines were written, others are awaited for so long */
    LOG_IDLE_MS = 1000,     /* how long lost lines wait to be mentioned when nothing else is said */
    LOG_STUCK_MS = 200,     /* how often a stuck sink is asked, and stop is noticed */
    LOG_STOP_MS = 1000,     /* what a stuck sink may cost at the end */
};

enum writer_sleep {
    WRITER_AWAKE,
    WRITER_NAPS, /* wakes up by itself: rung only for a queue that fills */
    WRITER_SLEEPS,
};

struct logq {
    alignas(64) _Atomic uint32_t tail; /* producer's */
    _Atomic uint64_t dropped;
    alignas(64) _Atomic uint32_t head; /* consumer's */
    uint64_t dropped_said;
    struct log *log;
    char name[16];
    struct event_rec rec[LOGQ_RECORDS];
};

struct log {
    struct config *shape; /* of our own: preset, format, masks; log_level follows `level` */
    _Atomic int level;
    _Atomic int asleep; /* enum writer_sleep */
    _Atomic bool stopping;
    struct logq *q[LOG_QUEUES_MAX];
    _Atomic unsigned q_n;
    int bell, ended; /* eventfds: to the writer, and from it at its end */
    int fd, own_fd;
    bool is_socket, dead;
    bool started, abandoned;
    _Atomic uint64_t lost;
    pthread_t thread;
    char batch[LOG_BATCH_BYTES];
    size_t batch_n;
    unsigned batch_lines;
};

struct log *log_new(const struct config *c)
{
    struct log *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->fd = 2;
    l->own_fd = -1;
    l->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->ended = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->shape = calloc(1, sizeof(*l->shape));
    if (l->bell < 0 || l->ended < 0 || !l->shape) {
        if (l->bell >= 0)
            close(l->bell);
        if (l->ended >= 0)
            close(l->ended);
        free(l->shape);
        free(l);
        return NULL;
    }
    l->shape->preset = c->preset;
    l->shape->log_format = c->log_format;
    l->shape->log_mask_addresses = c->log_mask_addresses;
    atomic_store_explicit(&l->level, (int)c->log_level, memory_order_relaxed);
    return l;
}

void log_set_fd(struct log *l, int fd)
{
    l->fd = fd;
}

void log_free(struct log *l)
{
    if (!l ||
        l->abandoned) /* its thread is stuck in the kernel and will read this when it returns */
        return;
    ASSERT(!l->started);
    for (unsigned i = 0; i < atomic_load(&l->q_n); i++)
        free(l->q[i]);
    close(l->bell);
    close(l->ended);
    free(l->shape);
    free(l);
}

struct logq *log_attach(struct log *l, const char *thread_name)
{
    unsigned n = atomic_load_explicit(&l->q_n, memory_order_relaxed);
    struct logq *q;

    ASSERT(n < LOG_QUEUES_MAX);
    q = aligned_alloc(64, (sizeof(*q) + 63) / 64 * 64);
    if (!q)
        return NULL;
    memset(q, 0, sizeof(*q));
    q->log = l;
    snprintf(q->name, sizeof(q->name), "%s", thread_name);
    l->q[n] = q;
    atomic_store_explicit(&l->q_n, n + 1, memory_order_release);
    return q;
}

void log_set_level(struct log *l, enum log_level level)
{
    atomic_store_explicit(&l->level, (int)level, memory_order_relaxed);
}

enum log_level log_level_of(const struct log *l)
{
    return (enum log_level)atomic_load_explicit(&l->level, memory_order_relaxed);
}

uint64_t log_lost(const struct log *l)
{
    uint64_t sum = atomic_load_explicit(&l->lost, memory_order_relaxed);

    for (unsigned i = 0; i < atomic_load_explicit(&l->q_n, memory_order_acquire); i++)
        sum += atomic_load_explicit(&l->q[i]->dropped, memory_order_relaxed);
    return sum;
}

/* ---- producers ----------------------------------------------------------------------------- */

static bool is_on(const struct logq *q, unsigned level)
{
    return (int)level <= atomic_load_explicit(&q->log->level, memory_order_relaxed);
}

static void knock(int eventfd_of)
{
    uint64_t one = 1;
    ssize_t n = write(eventfd_of, &one, sizeof(one));

    (void)n;
}

/* The writer says that it sleeps, then looks at the rings once more; a producer publishes, then
 * looks whether it sleeps. Both orders are sequentially consistent, so one of them sees the other.
 * Only the first producer after a pause pays for a system call, and a pause is what is longer than
 * the writer's nap: waking it for each of many lines cost an allocation of TURN a fifth. */
static void publish(struct logq *q, uint32_t tail)
{
    struct log *l = q->log;

    atomic_store(&q->tail, tail + 1);
    int asleep = atomic_load(&l->asleep);

    if (asleep == WRITER_AWAKE ||
        (asleep == WRITER_NAPS &&
         tail - atomic_load_explicit(&q->head, memory_order_relaxed) < LOGQ_RECORDS / 2))
        return;
    if (atomic_exchange(&l->asleep, WRITER_AWAKE) != WRITER_AWAKE)
        knock(l->bell); /* one that is full has been rung */
}

void log_event(struct logq *q, const struct event_rec *e)
{
    uint32_t tail;
    struct event_rec *at;

    if (!is_on(q, e->level))
        return;
    tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(&q->head, memory_order_acquire) == LOGQ_RECORDS) {
        atomic_fetch_add_explicit(&q->dropped, 1, memory_order_relaxed);
        return;
    }
    at = &q->rec[tail % LOGQ_RECORDS];
    *at = *e;
    at->unix_ms = clock_unix_ms();
    publish(q, tail);
}

void log_text(struct logq *q, enum log_level level, const char *fmt, ...)
{
    struct event_rec e = { .kind = EV_TEXT, .level = (uint8_t)level };
    va_list ap;

    if (!is_on(q, level))
        return;
    va_start(ap, fmt);
    vsnprintf(e.text, sizeof(e.text), fmt, ap);
    va_end(ap);
    log_event(q, &e);
}

/* ---- the one consumer ---------------------------------------------------------------------- */

/* The ring whose next record is the oldest; NULL: all are empty. */
static struct logq *oldest(struct log *l)
{
    struct logq *best = NULL;
    uint64_t when = UINT64_MAX;

    for (unsigned i = 0; i < atomic_load_explicit(&l->q_n, memory_order_acquire); i++) {
        struct logq *q = l->q[i];
        uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);

        if (atomic_load(&q->tail) != head && q->rec[head % LOGQ_RECORDS].unix_ms < when) {
            when = q->rec[head % LOGQ_RECORDS].unix_ms;
            best = q;
        }
    }
    return best;
}

typedef void sink_fn(void *arg, const char *text);

static void hand_over(struct log *l, const struct event_rec *e, sink_fn *sink, void *arg)
{
    char text[LOG_LINE_MAX];

    l->shape->log_level = log_level_of(l); /* debug shows addresses */
    log_format(l->shape, e, text, sizeof(text));
    sink(arg, text);
}

/* Formats at most `max` records; returns how many. */
static unsigned drain(struct log *l, unsigned max, sink_fn *sink, void *arg)
{
    unsigned n = 0;
    struct logq *q;

    while (n < max && (q = oldest(l))) {
        uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);

        hand_over(l, &q->rec[head % LOGQ_RECORDS], sink, arg);
        atomic_store_explicit(&q->head, head + 1, memory_order_release);
        n++;
    }
    return n;
}

static void mention_dropped(struct log *l, sink_fn *sink, void *arg)
{
    for (unsigned i = 0; i < atomic_load_explicit(&l->q_n, memory_order_acquire); i++) {
        struct logq *q = l->q[i];
        uint64_t dropped = atomic_load_explicit(&q->dropped, memory_order_relaxed);
        struct event_rec e = { .kind = EV_TEXT, .level = LOG_WARN };

        if (dropped == q->dropped_said)
            continue;
        e.unix_ms = clock_unix_ms();
        snprintf(e.text, sizeof(e.text),
                 "%llu log lines of thread %s were lost: it wrote faster than they "
                 "could be printed",
                 (unsigned long long)(dropped - q->dropped_said), q->name);
        q->dropped_said = dropped;
        hand_over(l, &e, sink, arg);
    }
}

void log_drain_to(struct log *l, void (*sink)(void *arg, const char *line), void *arg)
{
    ASSERT(!l->started);
    drain(l, UINT32_MAX, sink, arg);
    mention_dropped(l, sink, arg);
}

/* ---- the sink ------------------------------------------------------------------------------ */

/* A pipe or terminal is opened anew for ourselves, so that it can be told not to block without
 * telling the same to everybody who shares it (the shell we came from). A file is not: its offset
 * is shared with stdout, and a second one would overwrite. */
static void sink_open(struct log *l)
{
    struct stat st;
    char path[64];

    if (fstat(l->fd, &st) < 0) {
        l->dead = true;
        return;
    }
    l->is_socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", l->fd);
        l->own_fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
}

/* One try. 0 or -errno. */
static int sink_write(struct log *l, const char *p, size_t n, size_t *wrote)
{
    int fd = l->own_fd >= 0 ? l->own_fd : l->fd;
    ssize_t r;

    n = min_sz(n, LOG_WRITE_BYTES);
    r = l->is_socket ? send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(fd, p, n);
    if (r < 0)
        return -errno;
    *wrote = (size_t)r;
    return 0;
}

/* Waits for a stuck sink as long as there is no stop; after that LOG_STOP_MS in total. */
static bool sink_wait(struct log *l, uint64_t *deadline_ms)
{
    struct pollfd p = { .fd = l->own_fd >= 0 ? l->own_fd : l->fd, .events = POLLOUT };

    if (atomic_load_explicit(&l->stopping, memory_order_relaxed)) {
        uint64_t now = clock_mono_ms();

        if (!*deadline_ms)
            *deadline_ms = now + LOG_STOP_MS;
        if (now >= *deadline_ms)
            return false;
    }
    if (poll(&p, 1, LOG_STUCK_MS) > 0 && (p.revents & (POLLERR | POLLNVAL)) &&
        !(p.revents & POLLOUT))
        return false; /* the reader is gone; write would say EPIPE */
    return true;
}

static void flush(struct log *l, uint64_t *deadline_ms)
{
    size_t done = 0, wrote = 0;

    while (done < l->batch_n && !l->dead) {
        int err = sink_write(l, l->batch + done, l->batch_n - done, &wrote);

        if (err == 0) {
            done += wrote;
        } else if (err == -EINTR) {
            continue;
        } else if (err != -EAGAIN) {
            /* EPIPE, EBADF, EIO: nobody will ever read this. A full disk may become less full. */
            l->dead = err != -ENOSPC && err != -EDQUOT;
            break;
        } else if (!sink_wait(l, deadline_ms)) {
            l->dead = true;
        }
    }
    if (done < l->batch_n)
        atomic_fetch_add_explicit(&l->lost, l->batch_lines, memory_order_relaxed);
    l->batch_n = 0;
    l->batch_lines = 0;
}

static void to_batch(void *arg, const char *text)
{
    struct log *l = arg;
    size_t n = strlen(text);

    ASSERT(n + 1 <= sizeof(l->batch) - l->batch_n);
    memcpy(l->batch + l->batch_n, text, n);
    l->batch_n += n;
    l->batch[l->batch_n++] = '\n';
    l->batch_lines++;
}

enum { BATCH_LINES = LOG_BATCH_BYTES / LOG_LINE_MAX - 1 };

static void mention_and_flush(void *arg, const char *text)
{
    struct log *l = arg;
    uint64_t deadline = 0;

    to_batch(l, text);
    flush(l, &deadline);
}

static void rest(struct log *l, enum writer_sleep how)
{
    struct pollfd p = { .fd = l->bell, .events = POLLIN };
    uint64_t rung;

    atomic_store(&l->asleep, how);
    if ((how == WRITER_NAPS || !oldest(l)) && !atomic_load(&l->stopping) &&
        poll(&p, 1, how == WRITER_NAPS ? LOG_NAP_MS : LOG_IDLE_MS) > 0) {
        ssize_t n = read(l->bell, &rung, sizeof(rung));

        (void)n;
    }
    atomic_store(&l->asleep, WRITER_AWAKE);
}

static void *log_main(void *arg)
{
    struct log *l = arg;
    uint64_t deadline = 0;
    bool last = false;

    sink_open(l);
    while (!last) {
        last = atomic_load(&l->stopping); /* read before draining: what came before it is written */
        bool wrote = false;

        while (drain(l, BATCH_LINES, to_batch, l) > 0) {
            flush(l, &deadline);
            wrote = true;
        }
        mention_dropped(l, mention_and_flush, l);
        if (!last)
            rest(l, wrote ? WRITER_NAPS : WRITER_SLEEPS);
    }
    if (l->own_fd >= 0)
        close(l->own_fd);
    knock(l->ended);
    return NULL;
}

int log_start(struct log *l)
{
    sigset_t all, before;
    int err;

    ASSERT(!l->started);
    sigfillset(&all); /* SIGPIPE too: it goes to the thread that writes */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&l->thread, NULL, log_main, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        return -err;
    pthread_setname_np(l->thread, "sluice-log");
    l->started = true;
    return 0;
}

/* A terminal that was reopened never blocks; one that could not be may hold the thread in write(2)
 * for ever. Then it is left behind, with its memory. */
void log_stop(struct log *l)
{
    struct pollfd end = { .events = POLLIN };
    int n;

    if (!l || !l->started)
        return;
    end.fd = l->ended;
    atomic_store(&l->stopping, true);
    knock(l->bell);
    do {
        n = poll(&end, 1, 3 * LOG_STOP_MS);
    } while (n < 0 && errno == EINTR); /* a second SIGTERM */
    if (n > 0) {
        pthread_join(l->thread, NULL);
    } else {
        pthread_detach(l->thread);
        l->abandoned = true;
    }
    l->started = false;
}
