/* The log with threads that race: what the thread sanitizer looks at. Every line comes out once and
 * whole, or is counted as lost. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/log.h"

enum { WRITERS = 4, LINES = 5000 };

struct writer {
    struct logq *q;
    struct log *log;
    int id;
};

static void *write_lines(void *arg)
{
    struct writer *w = arg;

    for (int i = 0; i < LINES; i++) {
        struct event_rec e = { .kind = EV_CIRCUIT_CLOSED, .level = LOG_INFO, .a = (uint64_t)i };

        if (i % 2)
            log_event(w->q, &e);
        else
            log_text(w->q, LOG_INFO, "writer %d line %d", w->id, i);
        if (i % 500 == 0) {
            log_set_level(w->log, i % 1000 ? LOG_DEBUG : LOG_INFO);
            usleep(1000); /* let the reader rest, so that it has to be woken */
        }
    }
    return NULL;
}

static void *count_lines(void *arg)
{
    static char text[65536];
    unsigned long *n = arg;
    FILE *f = fdopen((int)*n, "r");

    *n = 0;
    while (fgets(text, sizeof(text), f)) {
        if (strncmp(text, "ts=", 3) != 0 || text[strlen(text) - 1] != '\n')
            *n += 1000000; /* not whole */
        *n += !strstr(text, "were lost");
    }
    fclose(f);
    return NULL;
}

Test(log_threads, every_line_comes_out_whole_or_is_counted, .timeout = 60)
{
    struct config *cfg = calloc(1, sizeof(*cfg));
    struct writer w[WRITERS];
    pthread_t t[WRITERS], reader;
    unsigned long n;
    int p[2];

    cfg->log_level = LOG_INFO;
    struct log *l = log_new(cfg);

    cr_assert(l && pipe(p) == 0);
    n = (unsigned long)p[0];
    cr_assert(pthread_create(&reader, NULL, count_lines, &n) == 0);
    log_set_fd(l, p[1]);
    for (int i = 0; i < WRITERS; i++)
        w[i] = (struct writer){ log_attach(l, "w"), l, i };
    cr_assert(log_start(l) == 0);
    for (int i = 0; i < WRITERS; i++)
        cr_assert(pthread_create(&t[i], NULL, write_lines, &w[i]) == 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(t[i], NULL);
    log_stop(l);
    close(p[1]);
    pthread_join(reader, NULL);
    cr_assert(n + log_lost(l) == (unsigned long)WRITERS * LINES, "%lu written, %lu lost", n,
              (unsigned long)log_lost(l));
    log_free(l);
    free(cfg);
}
