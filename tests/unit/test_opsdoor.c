/* The HTTP door: what it answers, and that slow, silent and hostile clients cost slots and nothing
 * else. */
#include "ops_cardboard.h"

TestSuite(opsdoor, .init = setup, .fini = teardown, .timeout = 60);

Test(opsdoor, answers_its_pages)
{
    cr_expect(says(ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK\r\n"));
    cr_expect(says(got, "Content-Type: application/json\r\n") &&
              says(got, "\r\n\r\n{\"status\":\"ok\"}"));
    cr_expect(says(ask("GET /ready HTTP/1.1\r\n\r\n"), " 200 OK"));
    cr_expect(
        says(ask("GET /metrics HTTP/1.1\r\n\r\n"), "Content-Type: text/plain; version=0.0.4\r\n"));
    cr_expect(says(got, "\nrelay_connected_peers 7\n"));
    cr_expect(says(ask("GET /stats.json HTTP/1.1\r\n\r\n"), "\"peers\":7,"));
    cr_expect(says(ask("GET /nope HTTP/1.1\r\n\r\n"), " 404 Not Found\r\n") &&
              says(got, "\r\n\r\nNot Found"));
    cr_expect(says(ask("POST /health HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), " 405 "));
    cr_expect(says(ask("HEAD /health HTTP/1.1\r\n\r\n"), "Content-Length: 15\r\n") &&
              !says(got, "status"));
    cr_expect(says(ask("nonsense\r\n\r\n"), " 400 "));
    cr_expect(says(ask("GET / HTTP/3.0\r\n\r\n"), " 505 "));
    draining = true;
    cr_expect(says(ask("GET /ready HTTP/1.1\r\n\r\n"), " 503 ") && says(got, "draining"));
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "draining is healthy");
    cr_expect_eq(open_slots(), 0u, "every slot is home");
}

Test(opsdoor, dig_has_its_own_health_port)
{
    cfg.http_health_only = true;
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"),
                   "\r\n\r\n{\"status\":\"ok\",\"connected_peers\":9,\"uptime_secs\":5,"
                   "\"version\":\"" SLUICE_VERSION "\"}"));
    cr_expect(says(ask("GET /metrics HTTP/1.1\r\n\r\n"), " 404 ") &&
              says(got, "Content-Length: 0\r\n"));
    cr_expect(says(ask("POST /health HTTP/1.1\r\n\r\n"), " 405 ") &&
              says(got, "Allow: GET,HEAD\r\n") && says(got, "Content-Length: 0\r\n"));
    cr_expect(says(ask("POST /x HTTP/1.1\r\n\r\n"), " 404 "), "whatever the method");
    cr_expect(says(ask("GET /health HTTP/1.0\r\n\r\n"), " 200 "));
    cr_expect(says(ask("HEAD /health HTTP/1.1\r\n\r\n"), "application/json\r\n") &&
              !says(got, "status"));
}

Test(opsdoor, a_request_may_come_byte_by_byte)
{
    static const char request[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = dial_http();

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        cr_assert_eq(write(fd, request + i, 1), 1);
        turn();
    }
    cr_expect(read_all(fd, 500) && says(got, "{\"status\":\"ok\"}"));
    close(fd);
}

Test(opsdoor, a_head_without_end_is_refused_and_the_answer_arrives)
{
    static char junk[40000];
    int fd = dial_http();

    memset(junk, 'a', sizeof(junk));
    memcpy(junk, "GET / HTTP/1.1\r\nX: ", 19);
    cr_assert_gt(write(fd, junk, sizeof(junk)), 0);
    cr_expect(read_all(fd, 500), "closed in order: what we did not read does not reset it");
    cr_expect(says(got, " 431 "), "%s", got);
    close(fd);
    turns(20);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, silence_and_slow_readers_meet_a_deadline)
{
    int silent = dial_http(), slow = dial_http(), reader = dial_http();

    cr_assert_eq(write(slow, "GET /he", 7), 7);
    turns(5);
    cr_expect_eq(open_slots(), 3u);
    cr_assert_eq(write(reader, "GET /health HTTP/1.1\r\n\r\n", 24), 24);
    turns(10); /* answered; it never closes */
    cr_expect_eq(open_slots(), 3u);
    skew_ms = OPS_EXCHANGE_MS - 1500;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(open_slots(), 2u, "lingering is one second");
    skew_ms = OPS_EXCHANGE_MS + 100;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(open_slots(), 0u);
    cr_expect(read_all(silent, 50) && got_n == 0);
    close(silent);
    close(slow);
    close(reader);
}

Test(opsdoor, two_hundred_idle_scrapers_keep_nobody_out)
{
    int fd[200];

    for (unsigned i = 0; i < 200; i++) {
        fd[i] = dial_http();
        if (i % 16 == 15)
            turns(4);
    }
    turns(20);
    cr_expect_leq(open_slots(), (unsigned)OPS_HTTP_MAX);
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "the newest is served");
    cr_expect(read_all(fd[0], 50), "the oldest made room");
    for (unsigned i = 0; i < 200; i++)
        close(fd[i]);
    turns(20);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, a_burst_is_served_newest_included)
{
    int fd[190]; /* the listen backlog holds as many as the door does, plus those just accepted */
    unsigned n = 0;

    for (; n < 190; n++) {
        fd[n] = dial_http();
        if (n % 60 == 59)
            turn(); /* 60 completions at once */
    }
    cr_expect(says(ask("GET /health HTTP/1.1\r\n\r\n"), " 200 "), "%s", got);
    cr_expect(open_slots() <= (unsigned)OPS_HTTP_MAX);
    while (n)
        close(fd[--n]);
    turns(50);
    cr_expect(open_slots() == 0);
    cr_expect(door->waiting_n == 0);
}

Test(opsdoor, clients_that_vanish_leave_nothing)
{
    for (unsigned round = 0; round < 50; round++) {
        struct linger now = { .l_onoff = 1 };
        int fd = dial_http();
        ssize_t n = write(fd, "GET /metrics HTTP/1.1\r\n\r\n", round % 26);

        (void)n;
        if (round % 3 == 0)
            turn();
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)); /* RST */
        close(fd);
        turn();
    }
    turns(20);
    cr_expect_eq(open_slots(), 0u);
}

Test(opsdoor, a_second_one_is_told_the_port_and_the_holder)
{
    struct config again = cfg;
    char why[512], wanted[64];
    int err;

    cr_assert(opsdoor_http_bound(door, &again.http.addr));
    cr_expect_null(opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why)));
    cr_expect_eq(err, -EADDRINUSE);
    snprintf(wanted, sizeof(wanted), "port %u (--listen-http", again.http.addr.port);
    cr_expect(says(why, wanted) && says(why, "process"), "%s", why);
    again.http_on = false;
    cr_expect_null(opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why)));
    cr_expect(says(why, "--control"), "a living admin socket is not taken over: %s", why);
}
