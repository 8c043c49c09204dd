/* The admin socket: what sluicectl is told, and who cannot make it tell more. */
#include "ops_cardboard.h"

TestSuite(admin, .init = setup, .fini = teardown, .timeout = 60);

Test(admin, the_admin_socket_is_private_and_answers)
{
    struct stat s;

    cr_assert_eq(stat(cfg.admin_path, &s), 0);
    cr_expect_eq(s.st_mode & 0777, (mode_t)0600);
    cr_expect(says(tell("status\n"), "\"ok\":true") && says(got, "\"peers\":7,"), "%s", got);
    cr_expect_eq(got[got_n - 1], '\n');
    cr_expect_str_eq(tell("log-level debug\n"), "{\"ok\":true,\"log_level\":\"debug\"}\n");
    cr_expect_eq(log_level_of(lg), LOG_DEBUG);
    cr_expect_str_eq(tell("{\"cmd\":\"log-level\",\"level\":\"warn\"}\n"),
                     "{\"ok\":true,\"log_level\":\"warn\"}\n");
    cr_expect_str_eq(tell("log-level\n"), "{\"ok\":true,\"log_level\":\"warn\"}\n");
    cr_expect(says(tell("log-level loud\n"), "\"ok\":false"));
    cr_expect_str_eq(tell("reload\n"), "{\"ok\":false,\"error\":\"x.yaml:3: \\\"no\\\"\"}\n");
    cr_expect(says(tell("drain 100000\n"), "\"ok\":false"));
    cr_expect(says(tell("drain -1\n"), "\"ok\":false"));
    cr_expect_not(draining);
    cr_expect_str_eq(tell("drain\n"), "{\"ok\":true,\"drain_seconds\":8}\n");
    cr_expect_eq(drained, 8u);
    cr_expect_str_eq(tell("{\"secs\":5,\"cmd\":\"drain\"}\n"),
                     "{\"ok\":true,\"drain_seconds\":5}\n");
    cr_expect_eq(drained, 5u);
    cr_expect_eq(open_slots(), 0u);
}

Test(admin, credentials_are_given_here_and_only_here)
{
    cr_expect_str_eq(tell("turn-credentials\n"),
                     "{\"ok\":true,\"username\":\"1:a\",\"password\":\"p\",\"ttl\":86400,"
                     "\"uris\":[\"turn:h:1?transport=udp\",\"stun:h:1\"]}\n");
    cr_expect_str_eq(asked_name, "");
    tell("turn-credentials alice 60\n");
    cr_expect(strcmp(asked_name, "alice") == 0 && asked_ttl == 60);
    tell("turn-credentials - 61\n");
    cr_expect(asked_name[0] == '\0' && asked_ttl == 61);
    tell("{\"ttl\":62,\"cmd\":\"turn-credentials\",\"name\":\"a \\\"b\"}\n");
    cr_expect(strcmp(asked_name, "a \"b") == 0 && asked_ttl == 62);
    cr_expect_str_eq(tell("turn-credentials nobody\n"), "{\"ok\":false,\"error\":\"no secret\"}\n");
    cr_expect(says(tell("turn-credentials a 1x\n"), "\"ok\":false"));
    cr_expect(says(tell("turn-credentials a 31536001\n"), "\"ok\":false"));
    cr_expect(says(tell("turn-credentials a 1 b\n"), "too many"));
    cr_expect(says(tell("{\"cmd\":\"turn-credentials\",\"a\":1,\"b\":2}\n"), "too many"));
    cr_expect(says(ask("GET /turn-credentials HTTP/1.1\r\n\r\n"), "404"), "not over HTTP");
}

Test(admin, admin_requests_that_are_none_are_refused)
{
    static const char *const bad[] = { "\n",
                                       " \n",
                                       "bogus\n",
                                       "status now\n",
                                       "drain 1 2\n",
                                       "{}\n",
                                       "{\"cmd\":1\n",
                                       "{\"cmd\":\"status\",\"a\":1,\"b\":2}\n",
                                       "[]\n",
                                       "\x01\x02\n",
                                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" };
    static char big[3000];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(says(tell(bad[i]), "\"ok\":false"), "%s: %s", bad[i], got);
    memset(big, 'x', sizeof(big) - 1);
    cr_expect(says(tell(big), "\"ok\":false"));
    cr_expect_eq(open_slots(), 0u);
}

static unsigned lines(void)
{
    unsigned n = 0;

    for (size_t i = 0; i < got_n; i++)
        n += got[i] == '\n';
    return n;
}

Test(admin, lists_come_whole_over_many_pages)
{
    list.pages_left = 20;
    list.rows = SNAP_ROWS;
    tell("conns\n");
    cr_expect_eq(lines(), 20u * SNAP_ROWS + 1);
    cr_expect(says(got, "{\"ok\":true,\"rows\":5120}\n"));
    cr_expect(says(got, "\"rx_bytes\":18446744073709551615"));
    list.pages_left = 3;
    tell("allocations\n");
    cr_expect_eq(lines(), 3u * SNAP_ROWS + 1);
    cr_expect(says(got, "\\\"\",\"client\":\"[f1f1:f1f1:f1f1:f1f1:f1f1:f1f1:f1f1:f1f1]:65535\","
                        "\"transport\":\"dtls\",\"relayed\":[\"[f1"));
    cr_expect(says(got, "\"bytes_to_client\":18446744073709551615}\n"));
    cr_expect(says(got, "{\"ok\":true,\"rows\":768}\n"));
    cr_expect_lt(strchr(got, '\n') - got, OPS_ROW_MAX, "so that a page fits, whatever is in it");
    list.pages_left = 2;
    tell("dig\n");
    cr_expect_eq(lines(), 2u * SNAP_ROWS + 1);
    cr_expect(says(got, "\",\"observed\":\"[f1f1:f1f1:f1f1:f1f1:f1f1:f1f1:f1f1:f1f1]:65535\","
                        "\"protocol_version\":4294967295,"));
    cr_expect(says(got, "\"queued_bytes\":18446744073709551615}\n"));
    cr_expect_lt(strchr(got, '\n') - got, OPS_ROW_MAX);
    list.pages_left = 3;
    list.rows = 0; /* shards without a row */
    tell("circuits\n");
    cr_expect_str_eq(got, "{\"ok\":true,\"rows\":0}\n");
    cr_expect_eq(open_slots(), 0u);
}

/* A reader that stops: at most one page is held for it, and its listing ends at the deadline. */
Test(admin, a_slow_reader_of_a_list_holds_one_page)
{
    int fd = dial_admin();

    list.pages_left = 1000;
    list.rows = SNAP_ROWS;
    cr_assert_eq(write(fd, "conns\n", 6), 6);
    turns(200);
    cr_expect_lt(list.handed, 20u, "pages wait for the reader: %u", list.handed);
    cr_expect(list.open);
    skew_ms = OPS_EXCHANGE_MS + 100;
    opsdoor_tick(door, now_ms() + skew_ms);
    turns(5);
    cr_expect_eq(list.cancels, 1u);
    cr_expect_eq(open_slots(), 0u);
    close(fd);
}

Test(admin, without_list_more_a_list_that_is_not_read_is_cut_and_says_so)
{
    int fd;

    ops.list_more = NULL;
    list.pages_left = 1000;
    list.rows = SNAP_ROWS;
    fd = dial_admin();
    cr_assert_eq(write(fd, "conns\n", 6), 6);
    for (unsigned i = 0; i < 100; i++) {
        turn();
        list.parked = list.open; /* pages come as they may */
    }
    cr_expect_eq(list.cancels, 1u);
    cr_expect(read_all(fd, 5000));
    cr_expect(says(got, "\"ok\":false"), "...%s", got + (got_n > 200 ? got_n - 200 : 0));
    close(fd);
}

Test(admin, busy_lists_and_full_slots_are_told)
{
    int fd[OPS_ADMIN_MAX + 1];

    list.open = true; /* somebody else's */
    cr_expect(says(tell("conns\n"), "too many lists"));
    list.open = false;
    for (unsigned i = 0; i < OPS_ADMIN_MAX; i++)
        fd[i] = dial_admin();
    turns(5);
    fd[OPS_ADMIN_MAX] = dial_admin();
    cr_expect(read_all(fd[OPS_ADMIN_MAX], 50), "one too many is closed at once");
    for (unsigned i = 0; i <= OPS_ADMIN_MAX; i++)
        close(fd[i]);
    turns(10);
    cr_expect(says(tell("status\n"), "\"ok\":true"));
}

Test(admin, what_a_crash_left_is_replaced_and_long_paths_work)
{
    struct config again = { .http_on = false };
    struct sockaddr_un a;
    char deep[256], why[512];
    int err, stale = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(deep, sizeof(deep), "%s/%0120d", dir, 0);
    cr_assert_eq(mkdir(deep, 0700), 0);
    snprintf(again.admin_path, sizeof(again.admin_path), "%s/stale.sock", dir);
    a = address_of(again.admin_path);
    cr_assert_eq(bind(stale, (struct sockaddr *)&a, sizeof(a)), 0);
    close(stale);
    struct opsdoor *d = opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why));

    cr_assert_not_null(d, "%s", why);
    opsdoor_free(d);
    snprintf(again.admin_path, sizeof(again.admin_path), "%s/admin.sock", deep);
    d = opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why));
    cr_assert_not_null(d, "%s", why);
    cr_expect_eq(access(again.admin_path, F_OK), 0);
    opsdoor_free(d);
    rmdir(deep);
    snprintf(again.admin_path, sizeof(again.admin_path), "%s/file", dir);
    close(open(again.admin_path, O_CREAT | O_WRONLY, 0600));
    cr_expect_null(opsdoor_new(ring, &ops, &again, NULL, &err, why, sizeof(why)));
    cr_expect_eq(access(again.admin_path, F_OK), 0, "a file is not ours to remove");
    unlink(again.admin_path);
}
