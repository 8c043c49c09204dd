/* Event lines in their four shapes, and a writer that no terminal can stop (engine/log.h). */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/clock.h"
#include "engine/log_int.h"
#include "engine/ops.h"

static struct config cfg;
static struct peer_id alice, bob;
#define ALICE "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
#define BOB "QmQnAZsyiJSovuqg8zjP3nKdm6Pwb75Mpn8HnGyD5WYZ15"

static void setup(void)
{
    cfg = (struct config){ .log_level = LOG_INFO };
    cr_assert(peer_id_parse(bytes_str(ALICE), &alice));
    cr_assert(peer_id_parse(bytes_str(BOB), &bob));
}

static const char *shown(const struct event_rec *e)
{
    static char text[1024];

    cr_assert_eq(log_format(&cfg, e, text, sizeof(text)), strlen(text));
    return text;
}

static struct event_rec event(enum event kind)
{
    struct event_rec e = { .kind = (uint8_t)kind,
                           .level = LOG_INFO,
                           .unix_ms = 1705314600042, /* 2024-01-15T10:30:00.042Z */
                           .peer = alice,
                           .peer2 = bob,
                           .has_addr = true,
                           .a = 3,
                           .b = 7,
                           .c = 8,
                           .d = 9 };

    cr_assert(netaddr_parse(bytes_str("203.0.113.9:4242"), &e.addr));
    return e;
}

struct lines {
    unsigned n;
    char text[2048][160];
};
static struct lines got;

static void sink(void *arg, const char *line)
{
    struct lines *l = arg;

    cr_assert_lt(l->n, 2048u);
    snprintf(l->text[l->n++], sizeof(l->text[0]), "%s", line);
}

TestSuite(log_text, .init = setup);
TestSuite(log_shape, .init = setup);
TestSuite(log_ring, .init = setup);
TestSuite(log_sink, .init = setup, .timeout = 60);

Test(log_text, events_are_key_and_value)
{
    struct event_rec e = event(EV_RESERVATION_ACCEPTED);

    cr_expect_str_eq(shown(&e), "ts=2024-01-15T10:30:00.042Z level=info event=reservation_accepted "
                                "peer=" ALICE " reservations=3 expires_s=7");
    e = event(EV_CIRCUIT_CLOSED);
    e.reason = "limit bytes";
    cr_expect_str_eq(shown(&e), "ts=2024-01-15T10:30:00.042Z level=info event=circuit_closed "
                                "src=" ALICE " dst=" BOB " circuit=3 bytes_src_to_dst=7 "
                                "bytes_dst_to_src=8 duration_ms=9 reason=\"limit bytes\"");
    e = event(EV_RESERVATION_DENIED);
    e.status = 200;
    e.reason = "full";
    cr_expect_str_eq(shown(&e), "ts=2024-01-15T10:30:00.042Z level=info event=request_denied "
                                "kind=reservation peer=" ALICE " status=200 reason=full");
}

Test(log_text, a_peers_text_cannot_start_a_line)
{
    struct event_rec e = event(EV_TEXT);

    snprintf(e.text, sizeof(e.text), "agent \"x\"\nts=1 level=info event=fake\033[2J");
    cr_expect_str_eq(shown(&e), "ts=2024-01-15T10:30:00.042Z level=info "
                                "msg=\"agent \\\"x\\\"\\x0ats=1 level=info event=fake\\x1b[2J\"");
    cfg.preset = PRESET_DUSK;
    cr_expect_null(strchr(shown(&e), '\n'));
    cfg.preset = PRESET_DESCORD;
    cr_expect_null(strchr(shown(&e), '\n'));
}

Test(log_text, json_lines_have_event_codes)
{
    static const struct {
        enum event kind;
        const char *code;
    } rows[] = {
        { EV_RESERVATION_ACCEPTED, "\"event\":\"reservation_accepted\"" },
        { EV_RESERVATION_RENEWED, "\"event\":\"reservation_renewed\"" },
        { EV_RESERVATION_TIMEOUT, "\"event\":\"reservation_timeout\"" },
        { EV_RESERVATION_CLOSED, "\"event\":\"reservation_closed\"" },
        { EV_RESERVATION_DENIED, "\"event\":\"request_denied\",\"kind\":\"reservation\"" },
        { EV_CIRCUIT_ACCEPTED,
          "\"event\":\"circuit_accepted\",\"src\":\"" ALICE "\",\"dst\":\"" BOB "\"" },
        { EV_CIRCUIT_CLOSED, "\"event\":\"circuit_closed\"" },
        { EV_CIRCUIT_DENIED, "\"event\":\"request_denied\",\"kind\":\"circuit\"" },
    };

    cfg.log_format = LOG_JSON;
    for (int p = PRESET_NONE; p <= PRESET_TURN; p++) {
        cfg.preset = (enum preset)p; /* JSON is the same for everybody */
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            struct event_rec e = event(rows[i].kind);

            e.status = 201;
            cr_expect(strstr(shown(&e), rows[i].code), "%s", shown(&e));
            cr_expect_eq(shown(&e)[0], '{');
            cr_expect_eq(shown(&e)[strlen(shown(&e)) - 1], '}');
        }
    }
    struct event_rec e = event(EV_CIRCUIT_DENIED);

    e.status = 201;
    e.reason = "per-peer limit";
    cr_expect_str_eq(shown(&e),
                     "{\"ts\":\"2024-01-15T10:30:00.042Z\",\"level\":\"info\","
                     "\"event\":\"request_denied\",\"kind\":\"circuit\",\"src\":\"" ALICE
                     "\",\"dst\":\"" BOB "\",\"status\":201,\"reason\":\"per-peer limit\"}");
}

/* libp2p.md and the issue: at info level no line tells where somebody is. */
Test(log_text, addresses_are_for_debug_and_can_be_masked)
{
    for (int preset = PRESET_NONE; preset <= PRESET_TURN; preset++)
        for (int format = LOG_TEXT; format <= LOG_JSON; format++)
            for (int kind = 0; kind < EV_COUNT; kind++) {
                struct event_rec e = event((enum event)kind);

                cfg.preset = (enum preset)preset;
                cfg.log_format = (enum log_format)format;
                cfg.log_level = LOG_INFO;
                cfg.log_mask_addresses = false;
                cr_expect_eq(
                    strstr(shown(&e), "203.0.113") != NULL, event_is_turn(&e), "%s",
                    shown(&e)); /* of TURN they are for everybody who did not ask for masks */
                for (int level = LOG_INFO; level <= LOG_TRACE; level++) {
                    cfg.log_level = (enum log_level)level;
                    cfg.log_mask_addresses = true;
                    cr_expect_null(strstr(shown(&e), "203.0.113"), "%s", shown(&e));
                }
                cfg.log_mask_addresses = false;
                if (kind == EV_TURN_LIMITED)
                    cr_expect_not_null(strstr(shown(&e), "203.0.113.9/3"), "%s", shown(&e));
                else if (kind != EV_TEXT && kind != EV_STATS)
                    cr_expect_not_null(strstr(shown(&e), "203.0.113.9:4242"), "%s", shown(&e));
            }
}

Test(log_text, every_line_fits_any_buffer)
{
    for (int format = LOG_TEXT; format <= LOG_JSON; format++)
        for (int preset = PRESET_NONE; preset <= PRESET_TURN; preset++)
            for (int kind = 0; kind < EV_COUNT; kind++)
                for (size_t cap = 3; cap < 400; cap += 7) {
                    struct event_rec e = event((enum event)kind);
                    char *out = malloc(cap);

                    memset(e.text, '\x01', sizeof(e.text) - 1); /* longest when escaped */
                    cfg = (struct config){ .log_format = (enum log_format)format,
                                           .preset = (enum preset)preset,
                                           .log_level = LOG_TRACE };
                    cr_assert_lt(log_format(&cfg, &e, out, cap), cap);
                    cr_assert_lt(strlen(out), cap);
                    free(out);
                }
}

/* descord.md §6: the six core events and their marks. */
Test(log_shape, descord_has_its_marks)
{
    static const struct {
        enum event kind;
        const char *mark;
    } rows[] = {
        { EV_RESERVATION_ACCEPTED, "✅ Reservation Accepted" },
        { EV_RESERVATION_RENEWED, "🔄 Reservation Renewed" },
        { EV_RESERVATION_TIMEOUT, "⏰ Reservation Timeout" },
        { EV_RESERVATION_DENIED, "⛔ Request Denied" },
        { EV_CIRCUIT_ACCEPTED, "🔀 Circuit Accepted: " ALICE " → " BOB },
        { EV_CIRCUIT_CLOSED, "🔌 Circuit Closed" },
        { EV_CIRCUIT_DENIED, "⛔ Request Denied" },
        { EV_RESERVATION_CLOSED, "🔒" },
        { EV_CONN_INCOMING, "📥" },
        { EV_CONN_ESTABLISHED, "🔗" },
        { EV_CONN_CLOSED, "❌" },
    };

    cfg.preset = PRESET_DESCORD;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct event_rec e = event(rows[i].kind);

        e.reason = "limit";
        cr_expect(strstr(shown(&e), rows[i].mark), "%s", shown(&e));
        if (rows[i].kind != EV_CONN_INCOMING)
            cr_expect(strstr(shown(&e), ALICE), "%s", shown(&e));
        cr_expect(strstr(shown(&e), "limit"), "the reason is told: %s", shown(&e));
    }
    for (int kind = EV_TEXT + 1; kind < EV_COUNT; kind++) {
        struct event_rec e = event((enum event)kind);

        cr_expect_null(strstr(shown(&e), "(null)"), "%s", shown(&e));
    }
}

Test(log_shape, descord_statistics_are_a_block)
{
    static const char *const lines[LOG_STATS_LINES] = {
        "📊 Relay Statistics:",        "Uptime: 1h 1m 2s",       "Connected peers: 5",
        "Peers with reservations: 4", "Peers with circuits: 2", "Active circuits: 1",
        "Total bandwidth: 2.5 MB",
    };
    struct event_rec e = {
        .kind = EV_STATS, .level = LOG_INFO, .a = 3662, .b = 5, .c = 4, .d = 2, .e = 1, .f = 2621440
    };

    cr_expect_eq(log_stats_lines(&cfg), 1u);
    cr_expect(strstr(shown(&e), "event=statistics uptime_s=3662 peers_connected=5 peers_reserved=4 "
                                "peers_in_circuits=2 circuits=1 bandwidth_bytes=2621440"),
              "%s", shown(&e));
    cfg.preset = PRESET_DESCORD;
    cr_assert_eq(log_stats_lines(&cfg), (unsigned)LOG_STATS_LINES);
    for (e.status = 0; e.status < LOG_STATS_LINES; e.status++)
        cr_expect(strstr(shown(&e), lines[e.status]), "%s", shown(&e));
}

/* A second line, of a server that has relayed by TURN, in every shape. */
Test(log_shape, turn_has_statistics_once_it_has_served)
{
    static struct ops_status st;
    struct log *l;
    struct logq *q;

    for (int preset = PRESET_NONE; preset <= PRESET_TURN; preset++) {
        unsigned before;

        cfg.preset = (enum preset)preset;
        st = (struct ops_status){ .config = &cfg };
        l = log_new(&cfg);
        q = log_attach(l, "control");
        log_stats(q, &st);
        got.n = 0;
        log_drain_to(l, sink, &got);
        before = got.n;
        cr_expect_eq(before, log_stats_lines(&cfg));
        STAT_SET(&st.sum, turn_allocated, 3);
        STAT_SET(&st.sum, turn_allocations, 2);
        STAT_SET(&st.sum, turn_client_rx, 4711);
        log_stats(q, &st);
        got.n = 0;
        log_drain_to(l, sink, &got);
        cr_assert_eq(got.n, before + 1);
        cr_expect(strstr(got.text[before], "4711"), "%s", got.text[before]);
        log_free(l);
    }
}

/* And one of an open DIG door. */
Test(log_shape, dig_has_statistics_while_its_door_is_open)
{
    static struct ops_status st;

    for (int preset = PRESET_NONE; preset <= PRESET_TURN; preset++) {
        struct log *l;
        unsigned before;

        cfg.preset = (enum preset)preset;
        st = (struct ops_status){ .config = &cfg, .dig_address = "[::]:9450" };
        STAT_SET(&st.sum, dig_relayed_bytes, 4711);
        l = log_new(&cfg);
        log_stats(log_attach(l, "control"), &st);
        before = log_stats_lines(&cfg);
        got.n = 0;
        log_drain_to(l, sink, &got);
        cr_assert_eq(got.n, before + 1);
        cr_expect(strstr(got.text[before], "4711"), "%s", got.text[before]);
        log_free(l);
    }
}

/* dusk.md §12: wording as in the project's examples. */
Test(log_shape, dusk_words_are_its_own)
{
    static const struct {
        enum event kind;
        const char *text;
    } rows[] = {
        { EV_CONN_ESTABLISHED, "peer connected: " ALICE " (total connections: 3)" },
        { EV_CONN_CLOSED, "peer disconnected: " ALICE " (total connections: 3)" },
        { EV_RESERVATION_ACCEPTED, "relay reservation accepted for peer " ALICE " (total: 3)" },
        { EV_RESERVATION_TIMEOUT, "relay reservation expired for peer " ALICE " (total: 3)" },
        { EV_CIRCUIT_ACCEPTED, "circuit opened: " ALICE " -> " BOB " (through relay)" },
    };

    cfg.preset = PRESET_DUSK;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct event_rec e = event(rows[i].kind);
        char want[512];

        snprintf(want, sizeof(want), "[2024-01-15T10:30:00Z INFO dusk_relay] %s", rows[i].text);
        cr_expect_str_eq(shown(&e), want);
    }
    struct event_rec e = event(EV_TEXT);

    e.level = LOG_WARN;
    snprintf(e.text, sizeof(e.text), "dusk relay server starting");
    cr_expect_str_eq(shown(&e),
                     "[2024-01-15T10:30:00Z WARN dusk_relay] dusk relay server starting");
    for (int kind = EV_TEXT + 1; kind < EV_COUNT; kind++) {
        e = event((enum event)kind);
        cr_expect_gt(strlen(shown(&e)), strlen("[2024-01-15T10:30:00Z INFO dusk_relay] "),
                     "kind %d", kind);
    }
}

/* ---- rings --------------------------------------------------------------------------------- */

Test(log_ring, keeps_order_and_respects_the_level)
{
    struct log *l = log_new(&cfg);
    struct logq *a = log_attach(l, "shard-0"), *b = log_attach(l, "control");

    clock_set_fake(1000, 1000);
    log_text(a, LOG_INFO, "one");
    clock_set_fake(2000, 1001);
    log_text(b, LOG_INFO, "two");
    clock_set_fake(3000, 1002);
    log_text(a, LOG_INFO, "three");
    log_text(a, LOG_DEBUG, "not said");
    log_set_level(l, LOG_DEBUG);
    log_text(b, LOG_DEBUG, "four");
    got.n = 0;
    log_drain_to(l, sink, &got);
    cr_assert_eq(got.n, 4u);
    cr_expect(strstr(got.text[0], "one") && strstr(got.text[1], "two") &&
              strstr(got.text[2], "three") && strstr(got.text[3], "four"));
    log_free(l);
}

Test(log_ring, a_full_ring_drops_counts_and_says_so)
{
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "shard-7");

    for (int i = 0; i < 1500; i++)
        log_text(q, LOG_INFO, "%d", i);
    cr_expect_eq(log_lost(l), 1500u - 1024u);
    got.n = 0;
    log_drain_to(l, sink, &got);
    cr_assert_eq(got.n, 1025u);
    cr_expect(strstr(got.text[0], "msg=0") && strstr(got.text[1023], "msg=1023"), "%s",
              got.text[1023]);
    cr_expect(strstr(got.text[1024], "476 log lines of thread shard-7 were lost"), "%s",
              got.text[1024]);
    got.n = 0;
    log_drain_to(l, sink, &got);
    cr_expect_eq(got.n, 0u, "said once");
    log_text(q, LOG_INFO, "again");
    log_drain_to(l, sink, &got);
    cr_expect_eq(got.n, 1u);
    log_free(l);
}

/* descord.md §6 and check 1, dusk.md §12. */
Test(log_ring, the_start_is_told_in_the_words_of_the_preset)
{
    struct netaddr bound[2];
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "main");
    static char all[65536];

    cr_assert(netaddr_parse(bytes_str("0.0.0.0:9000"), &bound[0]));
    cr_assert(netaddr_parse(bytes_str("[::]:9000"), &bound[1]));
    for (int preset = PRESET_NONE; preset <= PRESET_DESCORD; preset++) {
        cfg.preset = (enum preset)preset;
        cfg.hop.reservations_max = 1024;
        log_started(q, &cfg, &alice, bound, 2);
        got.n = 0;
        log_drain_to(l, sink, &got);
        all[0] = '\0';
        for (unsigned i = 0; i < got.n; i++)
            strncat(all, got.text[i], sizeof(all) - strlen(all) - 1);
        cr_expect(strstr(all, ALICE) && strstr(all, "/ip4/0.0.0.0/tcp/9000") &&
                  strstr(all, "/ip6/::/tcp/9000"));
        if (preset == PRESET_DESCORD)
            cr_expect(strstr(all, "🚀") && strstr(all, "🎧") &&
                          strstr(all, "max-reservations = 1024"),
                      "%s", all);
        else
            cr_expect_null(strstr(all, "max-reservations"), "at debug only");
        if (preset == PRESET_DUSK)
            cr_expect(strstr(all, "dusk relay server starting") && strstr(all, "peer id: " ALICE),
                      "%s", all);
    }
    log_free(l);
}

/* ---- the writer ---------------------------------------------------------------------------- */

static uint64_t cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

Test(log_sink, writes_lines_of_two_threads_whole)
{
    int p[2];
    struct log *l = log_new(&cfg);
    struct logq *a = log_attach(l, "a"), *b = log_attach(l, "b");
    char text[65536];
    size_t n = 0;
    ssize_t r;

    cr_assert_eq(pipe(p), 0);
    log_set_fd(l, p[1]);
    cr_assert_eq(log_start(l), 0);
    for (int i = 0; i < 100; i++) {
        log_text(a, LOG_INFO, "from a %d", i);
        log_text(b, LOG_INFO, "from b %d", i);
        if (i % 10 == 0)
            usleep(2000); /* so that the writer rests and is woken */
    }
    log_stop(l);
    close(p[1]);
    while ((r = read(p[0], text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)r;
    text[n] = '\0';
    unsigned lines = 0;

    for (char *s = text; (s = strchr(s, '\n')); s++)
        lines++;
    cr_expect_eq(lines, 200u);
    cr_expect(strstr(text, "from a 99") && strstr(text, "from b 99"));
    cr_expect_eq(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
    log_free(l);
}

Test(log_sink, a_line_after_a_pause_is_written_at_once)
{
    int p[2];
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "a");
    struct pollfd readable;
    char text[512];

    cr_assert_eq(pipe(p), 0);
    log_set_fd(l, p[1]);
    cr_assert_eq(log_start(l), 0);
    readable = (struct pollfd){ .fd = p[0], .events = POLLIN };
    for (int i = 0; i < 3; i++) {
        usleep(60000); /* the writer rests */
        log_text(q, LOG_INFO, "now");
        cr_expect_eq(poll(&readable, 1, 400), 1, "nobody woke the writer");
        cr_assert_gt(read(p[0], text, sizeof(text)), 0);
    }
    log_stop(l);
    log_free(l);
}

/* A reader that stops reading: nobody waits, nothing spins, and the end comes in bounded time. */
Test(log_sink, a_stuck_terminal_stops_nobody)
{
    int p[2];
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "a");
    uint64_t began, cpu;

    cr_assert_eq(pipe(p), 0);
    log_set_fd(l, p[1]);
    cr_assert_eq(log_start(l), 0);
    began = clock_mono_ms();
    for (int i = 0; i < 20000; i++)
        log_text(q, LOG_INFO, "line %d which is long enough to fill the pipe's 64 KiB soon", i);
    cr_expect_lt(clock_mono_ms() - began, 2000u);
    cr_expect_gt(log_lost(l), 0u);
    cpu = cpu_ms();
    usleep(600000);
    cr_expect_lt(cpu_ms() - cpu, 100u, "waiting for a terminal burns no processor");
    cr_expect_eq(fcntl(p[1], F_GETFL) & O_NONBLOCK, 0, "whoever shares the pipe still blocks");
    began = clock_mono_ms();
    log_stop(l);
    cr_expect_lt(clock_mono_ms() - began, 2500u, "the sink was asked not to block");
    log_free(l);
}

Test(log_sink, a_terminal_that_recovers_gets_the_rest)
{
    int p[2];
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "a");
    static char text[4 << 20];
    size_t n = 0;
    ssize_t r;

    cr_assert_eq(pipe(p), 0);
    log_set_fd(l, p[1]);
    cr_assert_eq(log_start(l), 0);
    for (int i = 0; i < 3000; i++)
        log_text(q, LOG_INFO, "line %d which is long enough to fill the pipe's 64 KiB soon", i);
    usleep(300000);
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 20; i++, usleep(50000))
        while ((r = read(p[0], text + n, sizeof(text) - 1 - n)) > 0)
            n += (size_t)r;
    log_text(q, LOG_INFO, "after the pause");
    log_stop(l);
    while ((r = read(p[0], text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)r;
    cr_expect(strstr(text, "after the pause"));
    cr_expect(strstr(text, "were lost"), "the gap is mentioned");
    log_free(l);
}

Test(log_sink, a_closed_reader_ends_writing_without_a_signal_or_a_spin)
{
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "a");
    int p[2];
    uint64_t cpu;

    signal(SIGPIPE, SIG_DFL);
    cr_assert_eq(pipe(p), 0);
    close(p[0]);
    log_set_fd(l, p[1]);
    cr_assert_eq(log_start(l), 0);
    log_text(q, LOG_INFO, "nobody reads this");
    usleep(100000);
    cpu = cpu_ms();
    for (int i = 0; i < 20; i++) {
        log_text(q, LOG_INFO, "nor this");
        usleep(20000);
    }
    cr_expect_lt(cpu_ms() - cpu, 100u);
    log_stop(l);
    cr_expect_eq(log_lost(l), 21u);
    log_free(l);
    close(p[1]);
}

Test(log_sink, a_closed_descriptor_and_a_socket_are_sinks_too)
{
    struct log *l = log_new(&cfg);
    struct logq *q = log_attach(l, "a");
    int s[2];
    char text[512] = "";

    log_set_fd(l, 987); /* never opened */
    cr_assert_eq(log_start(l), 0);
    log_text(q, LOG_INFO, "nowhere");
    log_stop(l);
    cr_expect_eq(log_lost(l), 1u);
    log_free(l);

    l = log_new(&cfg);
    q = log_attach(l, "a");
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    log_set_fd(l, s[1]);
    cr_assert_eq(log_start(l), 0);
    log_text(q, LOG_INFO, "to the journal");
    log_stop(l);
    cr_expect_gt(read(s[0], text, sizeof(text) - 1), 0);
    cr_expect(strstr(text, "to the journal"));
    log_free(l);
}
