/* sluicectl against a daemon of cardboard: what it asks, shows and returns. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], sock_path[256], asked[256], shown[65536];
static const char *reply;
static size_t reply_bytes; /* 0: all of it */
static int listener = -1;

static void listen_at(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    snprintf(sock_path, sizeof(sock_path), "%s", path);
    cr_assert_lt(strlen(path), sizeof(a.sun_path));
    memcpy(a.sun_path, path, strlen(path) + 1);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(listener, 4), 0);
}

static void setup(void)
{
    char path[128];

    snprintf(dir, sizeof(dir), "/tmp/sluice-ctl-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/admin.sock", dir);
    listen_at(path);
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(sluicectl, .init = setup, .fini = teardown, .timeout = 60);

static void *serve(void *arg)
{
    int fd = accept(listener, NULL, NULL);
    size_t n = strlen(reply);

    (void)arg;
    if (fd < 0)
        return NULL;
    ssize_t got = read(fd, asked, sizeof(asked) - 1);

    asked[got > 0 ? got : 0] = '\0';
    n = reply_bytes ? reply_bytes : n;
    for (size_t i = 0; i < n; i += 7) /* in pieces that no line respects */
        if (send(fd, reply + i, n - i < 7 ? n - i : 7, MSG_NOSIGNAL) < 0)
            break;
    close(fd);
    return NULL;
}

/* Runs `ENV sluicectl ARGS`; the exit status, with both outputs in `shown`. */
static int run(const char *env, const char *args)
{
    char command[1024];
    size_t n;
    FILE *p;

    snprintf(command, sizeof(command),
             "env -u SLUICE_DATA -u SLUICE_CONTROL -u SLUICE_PRESET %s '%s' %s 2>&1", env,
             SLUICECTL, args);
    p = popen(command, "r");
    n = fread(shown, 1, sizeof(shown) - 1, p);
    shown[n] = '\0';
    return WEXITSTATUS(pclose(p));
}

static int ask(const char *args, const char *answer)
{
    pthread_t t;
    char all[512];
    int status;

    reply = answer;
    cr_assert_eq(pthread_create(&t, NULL, serve, NULL), 0);
    snprintf(all, sizeof(all), "--data %s %s", dir, args);
    status = run("", all);
    pthread_join(t, NULL);
    return status;
}

static const char STATUS[] =
    "{\"ok\":true,\"version\":\"0.1.0\",\"preset\":\"descord\",\"peer_id\":\"12D3KooWA4\","
    "\"addresses\":[\"/dns4/a.example/tcp/1\",\"/ip4/1.2.3.4/tcp/"
    "2\"],\"uptime_seconds\":90061,\"ready\":true,"
    "\"draining\":false,\"drain_left_seconds\":0,\"shards\":2,\"peers\":3,\"peers_with_"
    "reservations\":2,"
    "\"peers_with_circuits\":1,\"connections\":4,\"reservations\":5,\"circuits\":6,\"bandwidth_"
    "bytes\":1572864,"
    "\"buffer_bytes\":0,\"buffer_bytes_max\":1073741824,\"limits\":{\"max_conns\":100,\"max_"
    "reservations\":1024,"
    "\"max_circuits\":512,\"max_turn_allocations\":1000},\"turn\":{\"on\":true,\"allocations\":21,"
    "\"permissions\":22,\"channels\":23,\"bytes_from_clients\":1024,\"bytes_to_clients\":5,"
    "\"addresses\":[\"0.0.0.0:3478\",\"[::]:3478\"]},\"counters\":{\"peers\":99},\"log_level\":"
    "\"info\",\"log_lines_lost\":7}"
    "\n";

Test(sluicectl, shows_status_as_a_table)
{
    static const char *const rows[] = {
        "peer id        12D3KooWA4\n",
        "version        0.1.0 (preset descord)\n",
        "up             1d01h\n",
        "state          ready\n",
        "announced      /dns4/a.example/tcp/1\n",
        "announced      /ip4/1.2.3.4/tcp/2\n",
        "peers          3 connected, 2 with a reservation, 1 in circuits\n",
        "connections    4 of 100\n",
        "reservations   5 of 1024\n",
        "circuits       6 of 512\n",
        "turn           0.0.0.0:3478\n",
        "turn           [::]:3478\n",
        "allocations    21 of 1000\n",
        "               22 permissions, 23 channels; 1.0 KiB from clients, 5 B to them\n",
        "relayed        1.5 MiB\n",
        "buffers        0 B of 1.0 GiB\n",
        "log            info, 7 lines lost\n",
    };

    cr_expect_eq(ask("status", STATUS), 0, "%s", shown);
    cr_expect_str_eq(asked, "status\n");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_not_null(strstr(shown, rows[i]), "%s not in:\n%s", rows[i], shown);
}

Test(sluicectl, json_is_passed_on_as_it_is)
{
    static const char list[] =
        "{\"peer\":\"x\",\"remote\":\"1.2.3.4:5\"}\n{\"ok\":true,\"rows\":1}\n";

    cr_expect_eq(ask("--json status", STATUS), 0);
    cr_expect_str_eq(shown, STATUS);
    cr_expect_eq(ask("conns --json", list), 0, "options may follow the command");
    cr_expect_str_eq(shown, list);
}

Test(sluicectl, lists_are_tables)
{
    cr_expect_eq(ask("conns",
                     "{\"peer\":\"\",\"remote\":\"[::1]:5\",\"shard\":1,\"state\":\"noise\","
                     "\"reserved\":false,"
                     "\"streams\":0,\"age_seconds\":61,\"rx_bytes\":2048,\"tx_bytes\":1,\"queued_"
                     "bytes\":0}\n"
                     "{\"peer\":\"12D3\",\"remote\":\"1.2.3.4:5\",\"shard\":0,\"state\":\"open\","
                     "\"reserved\":true,\"streams\":3,\"age_seconds\":3601,\"rx_bytes\":"
                     "18446744073709551615,"
                     "\"tx_bytes\":1,\"queued_bytes\":0}\n{\"ok\":true,\"rows\":2}\n"),
                 0);
    cr_expect(strncmp(shown, "PEER ", 5) == 0, "%s", shown);
    cr_expect(strstr(shown, "1m01s") && strstr(shown, "1h00m") && strstr(shown, "2.0 KiB") &&
                  strstr(shown, "16.0 EiB") && strstr(shown, "\n2 connections\n"),
              "%s", shown);
    cr_expect_eq(
        ask("circuits",
            "{\"id\":9,\"state\":\"open\",\"src\":\"12D3A\",\"dst\":\"12D3B\",\"src_shard\":0,"
            "\"dst_shard\":1,\"bytes_src_to_dst\":5,\"bytes_dst_to_src\":6,\"age_seconds\":1}\n"
            "{\"ok\":true,\"rows\":1}\n"),
        0);
    cr_expect(strstr(shown, "12D3A") && strstr(shown, " 0-1 ") && strstr(shown, "1 circuits"), "%s",
              shown);
    cr_expect_eq(
        ask("allocations",
            "{\"user\":\"1700000000:al\\u001bce\",\"client\":\"192.0.2.7:5\",\"transport\":\"tcp\","
            "\"relayed\":[\"198.51.100.1:50000\",\"[2001:db8::1]:50001\"],\"relays\":\"udp\","
            "\"away\":true,\"shard\":1,\"age_seconds\":61,\"expires_seconds\":600,"
            "\"permissions\":3,\"channels\":4,\"connections\":0,\"datagrams_from_client\":77,"
            "\"datagrams_to_client\":78,\"bytes_from_client\":2048,\"bytes_to_client\":5}\n"
            "{\"user\":\"\",\"client\":\"192.0.2.8:5\",\"transport\":\"udp\",\"relayed\":[],"
            "\"relays\":\"tcp\"}\n{\"ok\":true,\"rows\":2}\n"),
        0);
    cr_expect(strncmp(shown, "USER ", 5) == 0, "%s", shown);
    cr_expect(strstr(shown, "1700000000:al?ce ") &&
                  strstr(shown, " 198.51.100.1:50000,[2001:db8::1]:50001 ") &&
                  strstr(shown, " tcp - ") && strstr(shown, " udp>tcp ") &&
                  strstr(shown, " 1m01s ") && strstr(shown, " 10m00s ") && strstr(shown, " 78 ") &&
                  strstr(shown, "2.0 KiB") && strstr(shown, "\n2 allocations\n"),
              "%s", shown);
    cr_expect_eq(ask("conns", "{\"ok\":true,\"rows\":0}\n"), 0);
    cr_expect(strstr(shown, "PEER") && strstr(shown, "0 connections"), "an empty list has a head");
}

Test(sluicectl, orders_carry_their_argument)
{
    cr_expect_eq(ask("drain 5", "{\"ok\":true,\"drain_seconds\":5}\n"), 0);
    cr_expect_str_eq(asked, "drain 5\n");
    cr_expect(strstr(shown, "for 5 s"), "%s", shown);
    cr_expect_eq(ask("log-level debug", "{\"ok\":true,\"log_level\":\"debug\"}\n"), 0);
    cr_expect_str_eq(asked, "log-level debug\n");
    cr_expect_str_eq(shown, "log level: debug\n");
    cr_expect_eq(ask("reload", "{\"ok\":true}\n"), 0);
    cr_expect_str_eq(asked, "reload\n");
}

Test(sluicectl, credentials_are_json_for_everybody)
{
    static const char answer[] = "{\"ok\":true,\"username\":\"1:a\",\"password\":\"p=\",\"ttl\":60,"
                                 "\"uris\":[\"turn:h:1?transport=udp\"]}\n";

    cr_expect_eq(ask("turn-credentials", answer), 0);
    cr_expect_str_eq(asked, "{\"cmd\":\"turn-credentials\",\"name\":\"\"}\n");
    cr_expect_str_eq(shown, "{\"username\":\"1:a\",\"password\":\"p=\",\"ttl\":60,"
                            "\"uris\":[\"turn:h:1?transport=udp\"]}\n");
    cr_expect_eq(ask("--json turn-credentials 'a \"\\b' --ttl 60", answer), 0);
    cr_expect_str_eq(asked, "{\"cmd\":\"turn-credentials\",\"name\":\"a \\\"\\\\b\",\"ttl\":60}\n");
    cr_expect_str_eq(shown, answer);
    cr_expect_eq(ask("turn-credentials", "{\"ok\":false,\"error\":\"there is no secret\"}\n"), 1);
    cr_expect_str_eq(shown, "sluicectl: there is no secret\n");
}

Test(sluicectl, a_refusal_and_a_cut_answer_fail)
{
    cr_expect_eq(ask("reload", "{\"ok\":false,\"error\":\"a.yaml:3: \\\"no\\\" \\u001b[2J\"}\n"),
                 1);
    cr_expect_str_eq(shown, "sluicectl: a.yaml:3: \"no\" ?[2J\n",
                     "and cannot order the terminal about");
    for (reply_bytes = 1; reply_bytes < sizeof(STATUS) - 1; reply_bytes += 61) {
        cr_expect_eq(ask("status", STATUS), 1);
        cr_expect(strstr(shown, "cut short"), "%s", shown);
    }
    reply_bytes = 0;
    cr_expect_eq(ask("conns", "{\"peer\":\"x\"}\n"), 1, "no last line");
}

Test(sluicectl, nonsense_does_not_crash_it)
{
    static const char *const bad[] = { "\n",
                                       "{\n",
                                       "{\"ok\n",
                                       "{\"ok\":\n",
                                       "{\"ok\":\"\n",
                                       "{\"ok\":tru\n",
                                       "}}}\n",
                                       "[[[[{\"ok\":true\n",
                                       "{\"ok\":{\"ok\":true},\"a\n",
                                       "\"\\\n",
                                       "{,,,\"ok\"\n",
                                       "{\"limits\":{\"ok\":1,\"ok\":true}\n",
                                       "{\"a\\\":\"b\\\\\",\"ok\":true}\n" };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int status = ask(i % 2 ? "status" : "conns", bad[i]);

        cr_expect(status == 0 || status == 1, "%s: %d: %s", bad[i], status, shown);
    }
}

Test(sluicectl, usage_mistakes_are_2)
{
    cr_expect_eq(run("", ""), 2);
    cr_expect(strstr(shown, "command is missing"));
    cr_expect_eq(run("", "bogus"), 2);
    cr_expect_eq(run("", "status now"), 2);
    cr_expect_eq(run("", "drain 1 2"), 2);
    cr_expect_eq(run("", "--no-such status"), 2);
    cr_expect_eq(run("", "allocations all"), 2);
    cr_expect_eq(run("", "turn-credentials a b"), 2);
    cr_expect_eq(run("", "turn-credentials --ttl 1h"), 2);
    cr_expect_eq(run("", "status --ttl 1"), 2);
    cr_expect(strstr(shown, "--ttl is for turn-credentials"), "%s", shown);
    cr_expect_eq(run("", "--help"), 0);
    cr_expect(strstr(shown, "circuits") && strstr(shown, "Exit status"), "%s", shown);
    cr_expect_eq(run("", "-V"), 0);
}

Test(sluicectl, says_where_it_looked)
{
    cr_expect_eq(run("", "--data /no/such/dir status"), 1);
    cr_expect(strstr(shown, "/no/such/dir/admin.sock"), "%s", shown);
    cr_expect_eq(run("XDG_DATA_HOME=/x/y STATE_DIRECTORY=", "status"), 1);
    cr_expect(strstr(shown, "/x/y/sluice/admin.sock"), "%s", shown);
    cr_expect_eq(run("XDG_DATA_HOME=/x/y STATE_DIRECTORY=/s:/t", "status"), 1);
    cr_expect(strstr(shown, "/s/admin.sock"), "%s", shown);
    cr_expect_eq(run("XDG_DATA_HOME=/x/y STATE_DIRECTORY=/s", "--preset dusk status"), 1);
    cr_expect(strstr(shown, "/x/y/dusk-relay/admin.sock"), "%s", shown);
    cr_expect_eq(run("SLUICE_PRESET=dusk XDG_DATA_HOME=/x/y", "status"), 1);
    cr_expect(strstr(shown, "/x/y/dusk-relay/admin.sock"), "%s", shown);
    cr_expect_eq(run("SLUICE_DATA=/d", "status"), 1);
    cr_expect(strstr(shown, "/d/admin.sock"), "%s", shown);
    cr_expect_eq(run("SLUICE_DATA=/d SLUICE_CONTROL=/c/x.sock", "status"), 1);
    cr_expect(strstr(shown, "/c/x.sock"), "%s", shown);
    cr_expect_eq(run("SLUICE_CONTROL=/c/x.sock", "--data /e status"), 1);
    cr_expect(strstr(shown, "/e/admin.sock"), "the flag wins: %s", shown);
}

Test(sluicectl, reaches_paths_longer_than_a_socket_address)
{
    char deep[256], link[512];

    snprintf(deep, sizeof(deep), "%s/%0120d", dir, 0);
    cr_assert_eq(mkdir(deep, 0700), 0);
    snprintf(link, sizeof(link), "%s/admin.sock", deep);
    cr_assert_eq(rename(sock_path, link), 0); /* the socket file moves; the listener stays */
    pthread_t t;
    char args[600];

    reply = "{\"ok\":true}\n";
    cr_assert_eq(pthread_create(&t, NULL, serve, NULL), 0);
    snprintf(args, sizeof(args), "--socket %s reload", link);
    int status = run("", args);

    if (status) /* nobody connected: let the server go */
        shutdown(listener, SHUT_RDWR);
    pthread_join(t, NULL);
    cr_expect_eq(status, 0, "%s", shown);
}
