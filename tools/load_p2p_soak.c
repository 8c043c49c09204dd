/* tools/load_p2p_soak.c: soak: seats and their peers, the agenda, the run and its report. */
#include "tools/load_p2p_soak.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    MS = 1000000,
    PATIENCE_MS = 60000,  /* for anything that the relay does at once, on a starved machine */
    BRING_UP_MS = 300000, /* for all seats */
    END_MS = 180000,      /* for the last circuits */
    AWAY_MS = 2000,       /* at most; a third come back at once */
    RENEW_MS = 60000,     /* to twice that: the relay's reservations last longer */
    LAPSE_PERCENT = 5,    /* do not renew, but reserve anew after LAPSE_MS to half as much more */
    LAPSE_MS = 90000,     /* before the relay takes the connection for idle */
    TICK_MS = 5,
    SHARED_EVERY = 20, /* seats of which one has its neighbour's identity */
    SURGE = 3,         /* so many times the rates while --warm lasts: tables find their size */
    FAILURES_SHOWN = 20,
};
#define S_NS UINT64_C(1000000000)

struct entry {
    uint64_t at_ns;
    uint32_t index, step;
    enum event what;
};

struct soak_counts soak;
bool soak_ending, soak_surge;

static struct {
    struct seat *seat;
    struct who *who;
    unsigned seats, standing, coming, away;
    struct entry *heap; /* the next first */
    size_t heap_n, heap_cap;
    uint64_t random;
    uint64_t churn_ns, dials_ns; /* when the next one is due */
} g;

/* ---- chance, failures, agenda ------------------------------------------------------------- */

uint64_t soak_random(uint64_t below)
{
    uint64_t z = g.random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return below ? (z ^ z >> 31) % below : 0;
}

bool soak_chance(unsigned percent)
{
    return soak_random(100) < percent;
}

void soak_fail(const char *fmt, ...)
{
    va_list ap;

    if (soak.failures++ >= FAILURES_SHOWN)
        return;
    va_start(ap, fmt);
    fprintf(stderr, "failure: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
}

static void swap(size_t a, size_t b)
{
    struct entry t = g.heap[a];

    g.heap[a] = g.heap[b];
    g.heap[b] = t;
}

void soak_at(uint64_t at_ns, enum event what, uint32_t index, uint32_t step)
{
    size_t i = g.heap_n++;

    if (g.heap_n > g.heap_cap) {
        g.heap_cap = g.heap_cap ? 2 * g.heap_cap : 1024;
        g.heap = realloc(g.heap, g.heap_cap * sizeof(*g.heap));
        ASSERT(g.heap != NULL);
    }
    g.heap[i] = (struct entry){ at_ns, index, step, what };
    for (; i && g.heap[(i - 1) / 2].at_ns > g.heap[i].at_ns; i = (i - 1) / 2)
        swap(i, (i - 1) / 2);
}

static struct entry agenda_pop(void)
{
    struct entry first = g.heap[0];
    size_t i = 0;

    swap(0, --g.heap_n);
    for (;;) {
        size_t least = 2 * i + 1;

        if (least + 1 < g.heap_n && g.heap[least + 1].at_ns < g.heap[least].at_ns)
            least++;
        if (least >= g.heap_n || g.heap[least].at_ns >= g.heap[i].at_ns)
            return first;
        swap(i, least);
        i = least;
    }
}

/* ---- seats -------------------------------------------------------------------------------- */

static void seat_at(const struct seat *s, uint64_t in_ms, enum event what)
{
    soak_at(load_now_ns() + in_ms * MS, what, (uint32_t)(s - g.seat), s->step);
}

static void seat_set(struct seat *s, enum seat_state state)
{
    g.standing -= s->state == SEAT_STANDING;
    g.coming -= s->state == SEAT_COMING;
    g.away -= s->state == SEAT_AWAY;
    g.standing += state == SEAT_STANDING;
    g.coming += state == SEAT_COMING;
    g.away += state == SEAT_AWAY;
    s->state = (uint8_t)state;
    s->step++;
    s->who->changed_ns = load_now_ns();
}

static void seat_come(struct seat *s)
{
    s->conn = lp_conn_new(&s->who->peer, (unsigned)(s - g.seat), 0, true);
    s->conn->arg = s;
    s->renewing = s->lapsed = false;
    s->quit = QUIT_NOT;
    soak.came++;
    seat_set(s, SEAT_COMING);
    seat_at(s, PATIENCE_MS, EV_SEAT_LATE);
    if (lp_measuring && soak_chance(10))
        s->quit = (uint8_t)(1 + soak_random(QUITS - 1));
    if (s->quit == QUIT_AT_ONCE)
        seat_at(s, 0, EV_QUIT);
    else if (s->quit == QUIT_SHAKING)
        seat_at(s, soak_random(2), EV_QUIT);
}

static void seat_away(struct seat *s)
{
    s->conn = NULL;
    seat_set(s, SEAT_AWAY);
    if (!soak_ending)
        seat_at(s, soak_chance(33) ? 0 : soak_random(AWAY_MS), EV_RETURN);
}

static void hard(struct lp_conn *c)
{
    struct linger l = { .l_onoff = 1, .l_linger = 0 };

    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static void seat_close(struct seat *s)
{
    plots_cut_of(s->conn);
    lp_conn_close(s->conn, lp_done);
}

/* What waits to be sent goes first, but not for long: the relay may be waiting for us. */
static void hang_up(struct seat *s)
{
    plots_cut_of(s->conn);
    if (s->conn->out_n)
        seat_at(s, 1, EV_HANG_UP);
    else
        (void)shutdown(s->conn->fd, SHUT_WR); /* the relay's end comes, or EV_SEAT_LATE */
}

static void reset_all(struct lp_conn *c)
{
    for (struct lp_stream *st = c->streams, *next; st; st = next) {
        next = st->next;
        if (st->kind == LP_SOURCE || st->kind == LP_SINK || st->kind == LP_CONNECT)
            lp_reset(st);
    }
}

static void go_away(struct lp_conn *c)
{
    uint8_t head[YAMUX_HEADER];
    struct bytes part = bytes_of(head, sizeof(head));

    yamux_put_go_away(head, 0);
    lp_seal(c, &part, 1, sizeof(head));
}

void soak_leave(struct seat *s, enum way way)
{
    if (s->state != SEAT_STANDING)
        return;
    soak.left[way]++;
    s->way = (uint8_t)way;
    if (s->conn->deaf)
        lp_conn_deaf(s->conn, false);
    seat_set(s, SEAT_LEAVING);
    seat_at(s, PATIENCE_MS, EV_SEAT_LATE);
    switch (way) {
    case WAY_KILL:
        hard(s->conn);
        seat_close(s);
        break;
    case WAY_CLOSE:
        seat_close(s);
        break;
    case WAY_FIN:
        hang_up(s);
        break;
    case WAY_GO_AWAY:
        go_away(s->conn);
        seat_at(s, soak_random(300), EV_CLOSE);
        break;
    case WAY_RESETS:
        plots_cut_of(s->conn);
        reset_all(s->conn);
        seat_at(s, 1, EV_HANG_UP);
        break;
    case WAY_POLITE:
    case WAYS:
        seat_at(s, 0, EV_POLITE);
        break;
    }
}

struct seat *soak_any(void)
{
    return &g.seat[soak_random(g.seats)];
}

struct seat *soak_standing(void)
{
    for (int i = 0; i < 32; i++) {
        struct seat *s = soak_any();

        if (s->state == SEAT_STANDING)
            return s;
    }
    return NULL;
}

void soak_pause(struct seat *s, uint64_t for_ns)
{
    if (s->state != SEAT_STANDING || s->conn->deaf)
        return;
    lp_conn_deaf(s->conn, true);
    soak_at(load_now_ns() + for_ns, EV_UNPAUSE, (uint32_t)(s - g.seat), s->step);
}

static void seat_late(struct seat *s)
{
    static const char *const ways[] = { "killed",  "closed", "half-closed",
                                        "go away", "resets", "polite" };
    unsigned streams = 0, circuits = 0;

    if (s->state != SEAT_COMING && s->state != SEAT_LEAVING)
        return;
    for (const struct lp_stream *st = s->conn->streams; st; st = st->next) {
        streams++;
        circuits += st->circuit != NULL;
    }
    soak_fail("a peer is still %s after %d s: %s, state %u, port %u, %zu bytes to send, %u streams "
              "of which %u carry circuits",
              s->state == SEAT_COMING ? "coming" : "leaving", PATIENCE_MS / 1000,
              s->state == SEAT_COMING ? "shaking hands" : ways[s->way], (unsigned)s->conn->state,
              s->conn->port, s->conn->out_n, streams, circuits);
    if (s->state == SEAT_COMING)
        seat_set(s, SEAT_LEAVING);
    seat_close(s);
}

static void seat_renew(struct seat *s)
{
    if (!s->lapsed && soak_chance(LAPSE_PERCENT)) {
        s->lapsed = true;
        seat_at(s, LAPSE_MS + soak_random(LAPSE_MS / 2), EV_RENEW);
        return;
    }
    s->renewing = true;
    lp_reserve(s->conn);
    if (s->state == SEAT_STANDING)
        seat_at(s, PATIENCE_MS, EV_RENEWED);
}

static void seat_quit(struct seat *s)
{
    if (s->state != SEAT_COMING)
        return;
    soak.quit[s->quit]++;
    seat_set(s, SEAT_LEAVING);
    if (soak_chance(50))
        hard(s->conn);
    seat_close(s);
}

static void seat_event(enum event what, uint32_t index, uint32_t step)
{
    struct seat *s = &g.seat[index];

    if (s->step != step)
        return;
    switch (what) {
    case EV_RETURN:
        if (!soak_ending)
            seat_come(s);
        break;
    case EV_QUIT:
        seat_quit(s);
        break;
    case EV_RENEW:
        seat_renew(s);
        break;
    case EV_RENEWED:
        if (s->renewing)
            soak_fail("a renewal was not answered in %d s", PATIENCE_MS / 1000);
        break;
    case EV_HANG_UP:
        hang_up(s);
        break;
    case EV_CLOSE:
        seat_close(s);
        break;
    case EV_POLITE:
        plots_finish_of(s->conn); /* others still dial it */
        if (plots_carried(s->conn))
            seat_at(s, 10, EV_POLITE);
        else
            hang_up(s);
        break;
    case EV_UNPAUSE:
        lp_conn_deaf(s->conn, false);
        break;
    case EV_SEAT_LATE:
        seat_late(s);
        break;
    default:
        ASSERT(false);
    }
}

/* ---- callbacks ---------------------------------------------------------------------------- */

static void on_up(struct lp_conn *c)
{
    struct seat *s = c->arg;

    if (s->quit == QUIT_UP) {
        seat_quit(s);
        return;
    }
    lp_reserve(c);
    if (s->quit == QUIT_RESERVING)
        seat_at(s, soak_random(2), EV_QUIT);
}

static void on_reserved(struct lp_conn *c, enum hop_status status)
{
    struct seat *s = c->arg;

    if (status != HOP_OK)
        soak_fail("a reservation was refused: status %u", (unsigned)status);
    if (s->state == SEAT_COMING) {
        soak.reserved++;
        if (lp_measuring)
            load_hist_add(&lp_latency, load_now_ns() - c->began_ns);
        seat_set(s, SEAT_STANDING);
    } else if (s->state == SEAT_STANDING) {
        soak.renewed += !s->lapsed;
        soak.lapsed += s->lapsed;
        s->renewing = s->lapsed = false;
    }
    if (s->state == SEAT_STANDING)
        seat_at(s, RENEW_MS + soak_random(RENEW_MS), EV_RENEW);
}

static void on_closed(struct lp_conn *c, const char *why)
{
    struct seat *s = c->arg;

    if (why != lp_done && s->state != SEAT_LEAVING)
        soak_fail("a connection ended: %s", why);
    seat_away(s);
}

static const struct lp_app app = { on_up, on_reserved, plots_connected, on_closed };

/* ---- the run ------------------------------------------------------------------------------ */

static void turn(void)
{
    uint64_t now = load_now_ns();
    int64_t wait = TICK_MS * MS;

    if (g.heap_n)
        wait = g.heap[0].at_ns <= now ? 0 : (int64_t)(g.heap[0].at_ns - now);
    (void)lp_poll(wait < TICK_MS * MS ? wait : TICK_MS * MS);
    plots_reap();
    now = load_now_ns();
    while (g.heap_n && g.heap[0].at_ns <= now) {
        struct entry e = agenda_pop();

        if (e.what < EV_MESSAGE)
            seat_event(e.what, e.index, e.step);
        else
            plots_event(e.what, e.index, e.step);
    }
    plots_reap();
}

/* How often per turn something is due that happens `rate` times a second. */
static unsigned due(uint64_t *next_ns, unsigned rate)
{
    uint64_t now = load_now_ns();
    unsigned n = 0;

    if (!rate)
        return 0;
    if (*next_ns + S_NS < now) /* the machine took us away: no burst to make up for it */
        *next_ns = now;
    for (; *next_ns <= now; n++)
        *next_ns += S_NS / rate;
    return n;
}

static void churn(void)
{
    unsigned times = soak_surge ? SURGE : 1;

    for (unsigned n = due(&g.churn_ns, times * lp_opt.churn); n; n--) {
        struct seat *s = soak_standing();

        if (s)
            soak_leave(s, (enum way)soak_random(WAYS));
    }
    for (unsigned n = due(&g.dials_ns, times * lp_opt.dials); n; n--)
        plots_begin();
}

static void say(const char *what, uint64_t end_ns)
{
    uint64_t now = load_now_ns();

    lp_progress("%s: %.0f s left; %u of %u stand, %u circuits; %" PRIu64 " came, %" PRIu64
                " clean circuits, %" PRIu64 " MiB compared, %" PRIu64 " failures",
                what, end_ns > now ? (double)(end_ns - now) / 1e9 : 0, g.standing, g.seats,
                plots_open(), soak.came, soak.clean, lp_totals.received >> 20,
                soak.failures + lp_totals.mismatches);
}

static void bring_up(void)
{
    uint64_t deadline = load_now_ns() + (uint64_t)BRING_UP_MS * MS;

    for (unsigned i = 0; g.standing < g.seats;) {
        while (i < g.seats && g.coming < LP_IN_FLIGHT)
            seat_come(&g.seat[i++]);
        turn();
        say("arriving", deadline);
        if (load_now_ns() > deadline)
            lp_die("only %u of %u peers stand after %d s", g.standing, g.seats, BRING_UP_MS / 1000);
    }
}

static void wind_down(void)
{
    uint64_t deadline = load_now_ns() + (uint64_t)END_MS * MS;

    soak_ending = true;
    plots_finish();
    while (plots_open() && load_now_ns() < deadline) {
        turn();
        say("last circuits", deadline);
    }
    if (plots_open())
        soak_fail("%u circuits did not end", plots_open());
    deadline = load_now_ns() + (uint64_t)END_MS * MS;
    while (g.away < g.seats && load_now_ns() < deadline) {
        for (unsigned i = 0; g.standing && i < g.seats; i++)
            soak_leave(&g.seat[i], (enum way)soak_random(WAYS));
        turn();
        say("leaving", deadline);
    }
    if (g.away < g.seats)
        soak_fail("%u peers could not leave", g.seats - g.away);
}

/* ---- the report --------------------------------------------------------------------------- */

static void print_counts(const char *name, const uint64_t *n, size_t count)
{
    printf("\"%s\":[", name);
    for (size_t i = 0; i < count; i++)
        printf("%s%" PRIu64, i ? "," : "", n[i]);
    printf("],");
}

static int report(const struct lp_report *r)
{
    bool ok = !soak.failures && !lp_totals.mismatches;
    double s = (double)r->used.wall_ns / 1e9;

    printf("{\"ok\":%s,\"mode\":\"soak\",\"seed\":%" PRIu64 ",\"seconds\":%.1f,\"peers\":%u,"
           "\"churn\":%u,\"dials_per_s\":%u,",
           ok ? "true" : "false", lp_opt.seed, s, lp_opt.peers, lp_opt.churn, lp_opt.dials);
    printf("\"server_cpu_s\":%.1f,\"generator_cpu_s\":%.1f,", (double)r->used.server_ns / 1e9,
           (double)r->used.self_ns / 1e9);
    printf("\"came\":%" PRIu64 ",\"reserved\":%" PRIu64 ",\"renewed\":%" PRIu64
           ",\"lapsed\":%" PRIu64 ",\"dials\":%" PRIu64 ",\"dials_refused\":%" PRIu64
           ",\"dials_cut\":%" PRIu64 ",\"circuits_clean\":%" PRIu64
           ",\"circuits_cut_by_churn\":%" PRIu64 ",",
           soak.came, soak.reserved, soak.renewed, soak.lapsed, soak.dials, soak.refused,
           soak.dial_cut, soak.clean, soak.cut_else);
    printf("\"arrival_ms\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},",
           load_hist_us(&lp_latency, 0.5) / 1000, load_hist_us(&lp_latency, 0.99) / 1000,
           (double)lp_latency.max_ns / 1e6);
    print_counts("left", soak.left, WAYS);
    print_counts("quit", soak.quit, QUITS);
    print_counts("circuits_cut", soak.cut, CUTS);
    print_counts("clean_bytes", soak.clean_bytes, 2);
    print_counts("cut_sent", soak.cut_sent, 2);
    print_counts("cut_received", soak.cut_received, 2);
    printf("\"head_bytes\":%" PRIu64 ",\"cut_head_bytes\":%" PRIu64 ",\"mismatches\":%" PRIu64
           ",\"failures\":%" PRIu64 "}\n",
           soak.heads * LP_HEAD, soak.cut_heads * LP_HEAD, lp_totals.mismatches, soak.failures);
    return ok ? 0 : 1;
}

int lp_run_soak(void)
{
    struct lp_report r = { 0 };
    uint64_t end;

    lp_app = &app;
    g.random = lp_opt.seed;
    g.seats = g.away = lp_opt.peers;
    g.seat = calloc(g.seats, sizeof(*g.seat));
    g.who = calloc(g.seats, sizeof(*g.who));
    ASSERT(g.seat && g.who);
    for (unsigned i = 0; i < g.seats; i++) {
        g.seat[i].who = &g.who[i % SHARED_EVERY == 1 ? i - 1 : i];
        lp_peer_make(&g.who[i].peer, i);
    }
    plots_init(lp_opt.circuits);
    bring_up();
    lp_measuring = true;
    lp_report_begin(&r);
    end = r.at.wall_ns + (uint64_t)(lp_opt.duration_s * 1e9);
    soak_surge = lp_opt.warm_s > 0;
    while (load_now_ns() < end) {
        if (soak_surge && load_now_ns() - r.at.wall_ns > (uint64_t)(lp_opt.warm_s * 1e9))
            soak_surge = false;
        churn();
        turn();
        say("soak", end);
    }
    lp_report_end(&r);
    lp_measuring = false;
    wind_down();
    return report(&r);
}
