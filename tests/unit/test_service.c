/* dig-relay's service commands on a made-up host (dig.md §17): its own directories for units, and a
 * systemctl that does as it is told. Nothing of this machine's systemd is touched. */
#include "config_load.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#include "engine/service_int.h"

static char root_dir[64], system_dir[80], user_dir[96], path_env[128], where_env[96];
static char *envp[] = { path_env, where_env, NULL };
static struct service_host host;
static char *out_text, *err_text;
static size_t out_n, err_n;

/* Its words and status are what the test has put into files: SCOPE.VERB says no, with that on
 * stderr; SCOPE.VERB.hang keeps silent. A unit is known when its file is there. */
static const char fake[] =
    "#!/bin/sh\n"
    "scope=system\n"
    "[ \"$1\" = --user ] && { scope=user; shift; }\n"
    "echo \"$scope $* LC_ALL=$LC_ALL\" >> \"$WHERE/log\"\n"
    "[ -f \"$WHERE/$scope.$1.hang\" ] && exec sleep 30\n"
    "[ -f \"$WHERE/$scope.$1.left\" ] && { sleep 30 & exit 0; }\n"
    "[ -f \"$WHERE/$scope.$1\" ] && { cat \"$WHERE/$scope.$1\" >&2; exit 1; }\n"
    "dir=$WHERE/system\n"
    "[ $scope = user ] && dir=$WHERE/user/units\n"
    "[ \"$1\" = cat ] && [ ! -f \"$dir/$2\" ] && { echo \"No files found for $2.\" >&2; exit 1; }\n"
    "exit 0\n";

static void put_file(const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", root_dir, name);
    f = fopen(path, "w");
    cr_assert(f, "%s", path);
    fputs(text, f);
    cr_assert_eq(fclose(f), 0);
}

static const char *read_file(const char *name)
{
    static char text[65536];
    char path[256];
    FILE *f;
    size_t n = 0;

    snprintf(path, sizeof(path), "%s/%s", root_dir, name);
    f = fopen(path, "r");
    if (f) {
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
    }
    text[n] = '\0';
    return text;
}

static bool is_there(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", root_dir, name);
    return access(path, F_OK) == 0;
}

static void begin(void)
{
    char program[96];

    snprintf(root_dir, sizeof(root_dir), "/tmp/service-XXXXXX");
    cr_assert(mkdtemp(root_dir));
    snprintf(system_dir, sizeof(system_dir), "%s/system", root_dir);
    snprintf(user_dir, sizeof(user_dir), "%s/user/units", root_dir);
    snprintf(path_env, sizeof(path_env), "PATH=relative::%s/nowhere:%s:/usr/bin:/bin", root_dir,
             root_dir);
    snprintf(where_env, sizeof(where_env), "WHERE=%s", root_dir);
    cr_assert_eq(mkdir(system_dir, 0755), 0);
    put_file("systemctl", fake);
    snprintf(program, sizeof(program), "%s/systemctl", root_dir);
    cr_assert_eq(chmod(program, 0755), 0);
    host = (struct service_host){
        .dir = { system_dir, user_dir },
        .program = "/usr/local/bin/dig-relay",
        .envp = envp,
        .quick_ms = 5000,
        .slow_ms = 5000,
        .ask_ms = 300,
    };
}

static void end(void)
{
    char command[128];

    config_free(&c);
    free(out_text);
    free(err_text);
    out_text = err_text = NULL;
    snprintf(command, sizeof(command), "rm -r %s", root_dir);
    cr_expect_eq(system(command), 0);
}

TestSuite(service, .init = begin, .fini = end, .timeout = 60);

/* The exit status; what was said is in out_text and err_text. */
static int deed(const char *verb, const char *more, const char *scope)
{
    int r;

    free(out_text);
    free(err_text);
    cr_assert_eq(load_env(no_env, "dig-relay", verb, scope ? "--scope" : "--json",
                          scope ? scope : "--json", more, NULL),
                 0, "%s", said);
    host.out = open_memstream(&out_text, &out_n);
    host.complain = open_memstream(&err_text, &err_n);
    r = service_run(&c, &host);
    fclose(host.out);
    fclose(host.complain);
    return r;
}
#define JSON(verb) deed(verb, NULL, NULL)
#define AS_USER(verb) deed(verb, "--json", "user")
#define AS_SYSTEM(verb) deed(verb, "--json", "system")

#define LABEL "\"label\":\"net.dignetwork.dig-relay\""
#define UNIT "dignetwork-dig-relay.service"

/* ---- the unit ------------------------------------------------------------------------------ */

static const char golden_user[] =
    "# Written by dig-relay install, which writes it anew.\n"
    "[Unit]\n"
    "Description=DIG relay\n"
    "Wants=network-online.target\n"
    "After=network-online.target\n"
    "\n"
    "[Service]\n"
    "Type=exec\n"
    "ExecStart=\"/usr/local/bin/dig-relay\" serve\n"
    "Environment=\"SLUICE_PRESET=dig\"\n"
    "Environment=\"DIG_RELAY_LISTEN=[::]:9450\"\n"
    "Environment=\"DIG_RELAY_STUN_LISTEN=[::]:3478\"\n"
    "Environment=\"DIG_RELAY_HEALTH_LISTEN=[::]:9451\"\n"
    "Environment=\"DIG_RELAY_DASHBOARD_LISTEN=[::]:8080\"\n"
    "Environment=\"DIG_RELAY_MAX_CONNECTIONS=4096\"\n"
    "Environment=\"DIG_RELAY_MAX_CONNECTIONS_PER_IP=64\"\n"
    "Environment=\"DIG_RELAY_REGISTRATIONS_PER_IP_PER_SEC=10\"\n"
    "Environment=\"DIG_RELAY_MAX_REGISTRATIONS_PER_IP=128\"\n"
    "Environment=\"DIG_RELAY_MESSAGES_PER_CONN_PER_SEC=256\"\n"
    "Environment=\"DIG_RELAY_BYTES_PER_CONN_PER_SEC=1048576\"\n"
    "Environment=\"DIG_RELAY_MAX_RELAYED_BYTES_PER_CONN=1073741824\"\n"
    "Environment=\"DIG_RELAY_BAN_THRESHOLD=20\"\n"
    "Environment=\"DIG_RELAY_BAN_DURATION_SECS=300\"\n"
    "Environment=\"DIG_RELAY_BAN_STRIKE_WINDOW_SECS=60\"\n"
    "Restart=on-failure\n"
    "RestartSec=1\n"
    "TimeoutStopSec=15\n"
    "NoNewPrivileges=yes\n"
    "\n"
    "[Install]\n"
    "WantedBy=default.target\n";

Test(service, the_units_text_is_golden)
{
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    cr_expect_str_eq(read_file("user/units/" UNIT), golden_user);
    host.root = true;
    cr_assert_eq(AS_SYSTEM("install"), 0, "%s", out_text);
    const char *system = read_file("system/" UNIT);

    cr_expect(strstr(system, "\nWantedBy=multi-user.target\n") &&
              strstr(system, "\nStateDirectory=sluice\n") &&
              strstr(system, "\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE "));
}

Test(service, what_systemd_would_read_otherwise_is_escaped)
{
    host.program = "/opt/50% \"of\" $it\\all";
    cr_assert_eq(deed("install", "--dig-geoip-db=/c $1 100%\\\"x", "user"), 0, "%s", err_text);
    const char *unit = read_file("user/units/" UNIT);

    cr_expect(strstr(unit, "\nExecStart=\"/opt/50%% \\\"of\\\" $$it\\\\all\" serve\n"), "%s", unit);
    cr_expect(strstr(unit, "\nEnvironment=\"DIG_RELAY_GEOIP_DB=/c $1 100%%\\\\\\\"x\"\n"), "%s",
              unit);
}

Test(service, what_a_unit_cannot_hold_is_refused_before_anything_is_done)
{
    put_file("system/" UNIT, "other");
    host.root = true;
    host.program = "/opt/x\nExecStartPre=/bin/y";
    cr_expect_eq(AS_USER("install"), 1);
    host.program = "/opt/x";
    cr_expect_eq(deed("install", "--turn-secret=hush", "user"), 1);
    cr_expect(strstr(err_text, "--turn-secret-file") && !strstr(err_text, "hush"), "%s", err_text);
    cr_expect(!is_there("user/units/" UNIT) && is_there("system/" UNIT) && !is_there("log"));
}

/* ---- install ------------------------------------------------------------------------------- */

Test(service, install_answers_with_one_line_of_json)
{
    cr_assert_eq(JSON("install"), 0, "%s", out_text);
    cr_expect_str_eq(out_text, "{\"ok\":true,\"result\":{\"installed\":true,\"registered\":true,"
                               "\"started\":false," LABEL ",\"scope\":\"user\","
                               "\"program\":\"/usr/local/bin/dig-relay\",\"listen\":\"[::]:9450\","
                               "\"health_listen\":\"[::]:9451\",\"migration\":null}}\n");
    cr_expect_str_eq(read_file("log"), "system cat " UNIT " LC_ALL=C\n"
                                       "user daemon-reload LC_ALL=C\n"
                                       "user enable " UNIT " LC_ALL=C\n");
    cr_expect_not(is_there("user/units/" UNIT ".new"));
    cr_assert_eq(deed("install", NULL, "user"), 0, "again: %s", err_text);
    cr_expect(strstr(out_text, "is installed as") && err_n == 0, "for people: %s", out_text);
}

Test(service, installing_for_the_system_is_roots)
{
    cr_expect_eq(AS_SYSTEM("install"), 1);
    cr_expect(strstr(out_text, "{\"ok\":false,\"error\":{\"message\":\"permission denied") ==
                  out_text,
              "%s", out_text);
    cr_expect_not(is_there("log"), "nothing was touched, and nobody asked");
    host.root = true;
    cr_assert_eq(JSON("install"), 0, "%s", out_text);
    cr_expect(strstr(out_text, "\"scope\":\"system\""), "auto is the system's for root: %s",
              out_text);
    cr_expect(is_there("system/" UNIT));
}

Test(service, install_takes_the_other_scopes_away_if_it_is_surely_there)
{
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    host.root = true;
    cr_assert_eq(AS_SYSTEM("install"), 0, "%s", out_text);
    cr_expect(strstr(out_text, "\"migration\":{\"scope\":\"user\",\"found\":true,\"removed\":true,"
                               "\"indeterminate\":false,\"error\":null}"),
              "%s", out_text);
    cr_expect(is_there("system/" UNIT) && !is_there("user/units/" UNIT));
    put_file("system.cat", "Failed to connect to bus");
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    cr_expect(strstr(out_text, "\"migration\":null"), "unknown is not there: %s", out_text);
    cr_expect(is_there("system/" UNIT) && is_there("user/units/" UNIT));
}

Test(service, what_may_not_be_removed_is_told_by_the_migration)
{
    put_file("system/" UNIT, "root's");
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    cr_expect(strstr(out_text, "\"migration\":{\"scope\":\"system\",\"found\":true,"
                               "\"removed\":false,\"indeterminate\":false,\"error\":\"the system"),
              "%s", out_text);
    cr_expect(is_there("system/" UNIT));
}

Test(service, a_unit_that_cannot_be_enabled_is_not_left_behind)
{
    put_file("user.enable", "first\nFailed to enable unit: no bus\n");
    cr_expect_eq(AS_USER("install"), 1);
    cr_expect_str_eq(out_text, "{\"ok\":false,\"error\":{\"message\":\"the unit could not be "
                               "enabled: Failed to enable unit: no bus\"}}\n");
    cr_expect_not(is_there("user/units/" UNIT));
    cr_expect_eq(deed("install", NULL, "user"), 1);
    cr_expect(strstr(err_text, "dig-relay: the unit could not") == err_text && out_n == 0);
    host.dir[PLACE_USER] = "";
    cr_expect_eq(AS_USER("install"), 1);
    cr_expect(strstr(out_text, "HOME"), "%s", out_text);
}

/* ---- uninstall ----------------------------------------------------------------------------- */

Test(service, uninstall_answers_with_what_became_of_each_scope)
{
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    put_file("log", "");
    cr_assert_eq(JSON("uninstall"), 0, "%s", out_text);
    cr_expect_str_eq(out_text,
                     "{\"ok\":true,\"result\":{\"installed\":false,\"registered\":false," LABEL
                     ",\"removed_scopes\":[\"user\"],\"scopes\":[{\"scope\":\"user\","
                     "\"found\":true,\"removed\":true,\"indeterminate\":false,\"error\":null}]}}"
                     "\n");
    cr_expect_not(is_there("user/units/" UNIT));
    const char *log = read_file("log");

    cr_expect(strstr(log, "user stop " UNIT) && strstr(log, "user disable " UNIT), "%s", log);
    cr_expect_eq(JSON("uninstall"), 1, "nothing is left");
    cr_expect_str_eq(out_text, "{\"ok\":false,\"error\":{\"message\":\"net.dignetwork.dig-relay is "
                               "not installed\"}}\n");
}

Test(service, uninstall_auto_takes_both_scopes_and_a_named_one_itself_alone)
{
    host.root = true;
    put_file("system/" UNIT, "");
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text); /* takes the system's */
    cr_expect_not(is_there("system/" UNIT));
    put_file("system/" UNIT, "");
    cr_assert_eq(AS_SYSTEM("uninstall"), 0, "%s", out_text);
    cr_expect(!is_there("system/" UNIT) && is_there("user/units/" UNIT));
    put_file("system/" UNIT, "");
    cr_assert_eq(JSON("uninstall"), 0, "%s", out_text);
    cr_expect(strstr(out_text, "\"removed_scopes\":[\"system\",\"user\"]"), "%s", out_text);
    cr_expect(!is_there("system/" UNIT) && !is_there("user/units/" UNIT));
}

Test(service, what_cannot_be_told_or_not_removed_is_an_error)
{
    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    put_file("system.cat", "Failed to connect to bus: No medium found\n");
    cr_expect_eq(JSON("uninstall"), 1);
    cr_expect(strstr(out_text, "removed, but not all of it; system scope: whether it is installed "
                               "cannot be told: Failed to connect to bus"),
              "%s", out_text);
    cr_expect_not(is_there("user/units/" UNIT), "what could be removed is");

    cr_assert_eq(AS_USER("install"), 0, "%s", out_text);
    put_file("user.stop", "Job failed\n");
    cr_expect_eq(AS_USER("uninstall"), 1);
    cr_expect(strstr(out_text, "user scope: it could not be removed: Job failed"), "%s", out_text);
    cr_expect(is_there("user/units/" UNIT), "what runs on keeps its unit");

    put_file("user.cat", "Failed to connect to bus\n");
    cr_expect_eq(AS_USER("uninstall"), 1, "the resolved scope's file goes, but nobody is sure");
    cr_expect_not(is_there("user/units/" UNIT));

    put_file("system/" UNIT, "root's");
    put_file("user.cat", "No files found for it.");
    cr_expect_eq(AS_SYSTEM("uninstall"), 1);
    cr_expect(is_there("system/" UNIT));
}

/* ---- systemctl ----------------------------------------------------------------------------- */

Test(service, detection_has_three_answers)
{
    static const struct {
        const char *words;
        enum detected is;
    } rows[] = {
        { "No files found for " UNIT ".\n", DETECT_ABSENT },
        { "warning: x\nNO FILES FOUND FOR it\nhint: y\n", DETECT_ABSENT },
        { "Unit " UNIT " Could Not Be Found.\n", DETECT_ABSENT },
        { "Failed to connect to bus\n", DETECT_UNKNOWN },
        { "", DETECT_UNKNOWN },
    };
    char why[SERVICE_TEXT_MAX];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        put_file("user.cat", rows[i].words);
        cr_expect_eq(service_detect(&host, PLACE_USER, why), rows[i].is, "%s", rows[i].words);
    }
    put_file("system/" UNIT, "");
    cr_expect_eq(service_detect(&host, PLACE_SYSTEM, why), DETECT_PRESENT);
    snprintf(path_env, sizeof(path_env), "PATH=%s/nowhere", root_dir);
    cr_expect_eq(service_detect(&host, PLACE_SYSTEM, why), DETECT_UNKNOWN);
    cr_expect(strstr(why, "no systemctl"), "%s", why);
    envp[0] = where_env; /* no PATH at all */
    cr_expect_eq(service_detect(&host, PLACE_SYSTEM, why), DETECT_UNKNOWN);
}

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

Test(service, systemctl_is_waited_for_but_not_for_ever)
{
    uint64_t from = now_ms();
    char why[SERVICE_TEXT_MAX];

    put_file("user.start.hang", "");
    host.slow_ms = 300;
    cr_expect_eq(AS_USER("start"), 1);
    cr_expect(strstr(out_text, "timed out"), "%s", out_text);
    cr_expect(now_ms() - from < 5000);
    put_file("user.stop.left", ""); /* it ends, and leaves its stderr to another */
    from = now_ms();
    cr_expect_eq(service_ctl(&host, PLACE_USER, "stop", true, 5000, why), 0);
    cr_expect(now_ms() - from < 4000);
}

Test(service, more_words_than_fit_are_read_and_forgotten)
{
    static char many[200001];
    char why[SERVICE_TEXT_MAX];

    memset(many, 'x', sizeof(many) - 1);
    put_file("user.start", many);
    cr_expect_eq(service_ctl(&host, PLACE_USER, "start", true, 5000, why), 1);
    cr_expect_eq(strlen(why), sizeof(why) - 1);
}

Test(service, start_and_stop_say_what_they_did)
{
    cr_assert_eq(JSON("start"), 0, "%s", out_text);
    cr_expect_str_eq(out_text,
                     "{\"ok\":true,\"result\":{\"started\":true," LABEL ",\"scope\":\"user\"}}\n");
    cr_assert_eq(AS_SYSTEM("stop"), 0, "%s", out_text);
    cr_expect_str_eq(out_text, "{\"ok\":true,\"result\":{\"stopped\":true," LABEL
                               ",\"scope\":\"system\"}}\n");
    cr_expect_str_eq(read_file("log"),
                     "user start " UNIT " LC_ALL=C\nsystem stop " UNIT " LC_ALL=C\n");
    put_file("user.start", "Unit " UNIT " not found.\n");
    cr_expect_eq(JSON("start"), 1);
    cr_expect_str_eq(out_text, "{\"ok\":false,\"error\":{\"message\":\"the service could not be "
                               "started: Unit " UNIT " not found.\"}}\n");
}

/* ---- status -------------------------------------------------------------------------------- */

struct answerer {
    int fd;
    const char *answer; /* NULL: takes the connection, and says nothing */
    char asked[256];
};

static void *answer_one(void *arg)
{
    struct answerer *a = arg;
    int fd = accept(a->fd, NULL, NULL);
    ssize_t n = read(fd, a->asked, sizeof(a->asked) - 1);

    if (n > 0 && a->answer)
        n = write(fd, a->answer, strlen(a->answer));
    else
        n = read(fd, a->asked + 200, 1); /* until it gives up */
    close(fd);
    return NULL;
}

static int status_of(const char *answer, char asked[256], char *url, size_t cap)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t n = sizeof(at);
    struct answerer a = { .fd = socket(AF_INET, SOCK_STREAM, 0), .answer = answer };
    char flag[64];
    pthread_t t;
    int r;

    cr_assert(bind(a.fd, (struct sockaddr *)&at, n) == 0 && listen(a.fd, 1) == 0);
    cr_assert_eq(getsockname(a.fd, (struct sockaddr *)&at, &n), 0);
    cr_assert_eq(pthread_create(&t, NULL, answer_one, &a), 0);
    snprintf(flag, sizeof(flag), "--health-listen=0.0.0.0:%u", ntohs(at.sin_port));
    snprintf(url, cap, "http://0.0.0.0:%u/health", ntohs(at.sin_port));
    r = deed("status", flag, NULL);
    pthread_join(t, NULL);
    close(a.fd);
    memcpy(asked, a.asked, 256);
    return r;
}

/* dig.md check 58. */
Test(service, status_asks_and_is_never_an_error)
{
    static const struct {
        const char *answer;
        bool serving;
    } rows[] = {
        { "HTTP/1.1 200 OK\r\n\r\n{}", true },
        { "HTTP/1.0 204 No Content\r\n\r\n", true },
        { "HTTP/1.1 503 Service Unavailable\r\n\r\n", false },
        { "HTTP/1.1 404 Not Found\r\n\r\n", false },
        { "220 smtp.example ESMTP", false },
        { "HTTP/1.1 2", false },
        { NULL, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char asked[256], url[64], want[256];

        cr_expect_eq(status_of(rows[i].answer, asked, url, sizeof(url)), !rows[i].serving, "%s",
                     rows[i].answer);
        snprintf(want, sizeof(want),
                 "{\"ok\":true,\"result\":{\"health_url\":\"%s\",\"serving\":%s}}\n", url,
                 rows[i].serving ? "true" : "false");
        cr_expect_str_eq(out_text, want);
        cr_expect(strstr(asked, "GET /health HTTP/1.0\r\n") == asked, "%s", asked);
    }
    cr_expect_eq(deed("status", "--health-listen=127.0.0.1:1", NULL), 1);
    cr_expect_str_eq(out_text, "{\"ok\":true,\"result\":{\"health_url\":"
                               "\"http://127.0.0.1:1/health\",\"serving\":false}}\n");
    cr_expect_eq(deed("status", "--health-listen=off", NULL), 1);
    cr_expect(strstr(out_text, "\"health_url\":null,\"serving\":false"), "%s", out_text);
}
