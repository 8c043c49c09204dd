/* A second instance is told who is there, in one line. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/guard.h"

static char dir[64], why[512];

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/sluice-guard-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(guard, .init = setup, .fini = teardown);

Test(guard, a_data_directory_has_one_holder)
{
    char deep[128], pid[32];
    int fd = -1, other = -1;

    snprintf(deep, sizeof(deep), "%s/a/b", dir);
    cr_assert_eq(guard_acquire(deep, &fd, why, sizeof(why)), 0, "%s", why);
    cr_expect_eq(guard_acquire(deep, &other, why, sizeof(why)), -EWOULDBLOCK);
    snprintf(pid, sizeof(pid), "process %d", (int)getpid());
    cr_expect(strstr(why, deep) && strstr(why, "--data") && strstr(why, pid), "%s", why);
    cr_expect_null(strchr(why, '\n'));
    guard_release(fd);
    cr_expect_eq(guard_acquire(deep, &fd, why, sizeof(why)), 0, "free again: %s", why);
    guard_release(fd);
}

Test(guard, a_dead_holder_holds_nothing)
{
    int fd, status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(guard_acquire(dir, &fd, why, sizeof(why)) ? 1 : 0);
    waitpid(pid, &status, 0);
    cr_assert_eq(status, 0);
    cr_expect_eq(guard_acquire(dir, &fd, why, sizeof(why)), 0, "%s", why);
}

Test(guard, a_directory_that_cannot_be_is_named)
{
    int fd;

    cr_expect_lt(guard_acquire("/dev/null/x", &fd, why, sizeof(why)), 0);
    cr_expect(strstr(why, "/dev/null/x") && strstr(why, "--data"), "%s", why);
}

/* A listener as ours are: in a SO_REUSEPORT group, which a second member could join unnoticed. */
static int listener(struct netaddr *at)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(a);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)&a, &n);
    *at = (struct netaddr){ .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 }, .port = ntohs(a.sin_port) };
    return fd;
}

Test(guard, a_taken_port_names_port_flag_and_holder)
{
    struct netaddr at;
    char port[32], holder[96], wanted[64];
    int fd = listener(&at);

    prctl(PR_SET_NAME, "sluice-test");
    cr_expect_eq(guard_probe(&at, false, "--listen-p2p", why, sizeof(why)), -EADDRINUSE);
    snprintf(port, sizeof(port), "port %u", at.port);
    snprintf(wanted, sizeof(wanted), "sluice-test, process %d", (int)getpid());
    cr_expect(strstr(why, port) && strstr(why, "--listen-p2p") && strstr(why, wanted), "%s", why);
    guard_port_holder(at.port, holder, sizeof(holder));
    cr_expect_str_eq(holder, wanted);
    close(fd);
    cr_expect_eq(guard_probe(&at, false, "--listen-p2p", why, sizeof(why)), 0, "%s", why);
    guard_port_holder(at.port, holder, sizeof(holder));
    cr_expect_str_eq(holder, "");
}

Test(guard, only_a_listener_holds_a_port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(a);
    struct netaddr at;
    char holder[96];
    int fd = listener(&at), client = socket(AF_INET, SOCK_STREAM, 0);

    a.sin_port = htons(at.port);
    cr_assert_eq(connect(client, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(getsockname(client, (struct sockaddr *)&a, &n), 0);
    guard_port_holder(ntohs(a.sin_port), holder, sizeof(holder));
    cr_expect_str_eq(holder, "", "a client's port is nobody's door");
    close(client);
    close(fd);
}

Test(guard, a_wildcard_meets_a_listener_of_the_other_family)
{
    struct netaddr at, any6;
    int fd = listener(&at);

    any6 = (struct netaddr){ .port = at.port };
    int err = guard_probe(&any6, false, "--listen-p2p", why, sizeof(why));

    cr_expect(err == -EADDRINUSE || err == -EAFNOSUPPORT, "%s", why);
    if (err != -EAFNOSUPPORT)
        cr_expect_eq(guard_probe(&any6, true, "--listen-p2p", why, sizeof(why)), 0, "IPv6 only: %s",
                     why);
    close(fd);
}

Test(guard, every_built_door_is_looked_at)
{
    static struct config cfg;
    struct netaddr at;
    int fd = listener(&at);

    cfg.p2p[0].addr = (struct netaddr){ .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };
    cfg.p2p[1].addr = at;
    cfg.http.addr = at;
    cfg.p2p_n = 1;
    cr_expect_eq(guard_ports(&cfg, why, sizeof(why)), 0, "port 0, and a closed HTTP door");
    cfg.p2p_n = 2;
    cr_expect_eq(guard_ports(&cfg, why, sizeof(why)), -EADDRINUSE);
    cr_expect(strstr(why, "--listen-p2p"), "%s", why);
    cfg.p2p_n = 0;
    cfg.http_on = true;
    cr_expect_eq(guard_ports(&cfg, why, sizeof(why)), -EADDRINUSE);
    cr_expect(strstr(why, "--listen-http"), "%s", why);
    cfg.http_on = false;
    cfg.turn[0].addr = at;
    cfg.turn_n = 1;
    cr_expect_eq(guard_ports(&cfg, why, sizeof(why)), -EADDRINUSE);
    cr_expect(strstr(why, "--listen-turn"), "%s", why);
    cfg.preset = PRESET_DUSK;
    cr_expect_eq(guard_ports(&cfg, why, sizeof(why)), 0, "dusk runs on without TURN");
    close(fd);
}

/* Two sockets of datagrams may share a port if both say so; ours asks without saying so. */
Test(guard, a_port_taken_for_datagrams_names_its_holder)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct netaddr at = { .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };
    int one = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t n = sizeof(a);
    static struct config plain;
    char wanted[64];

    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    at.port = ntohs(a.sin_port);
    prctl(PR_SET_NAME, "sluice-test");
    cr_expect_eq(guard_probe_turn(&plain, &at, false, why, sizeof(why)), -EADDRINUSE);
    snprintf(wanted, sizeof(wanted), "port %u/udp", at.port);
    cr_expect(strstr(why, wanted) && strstr(why, "--listen-turn"), "%s", why);
    snprintf(wanted, sizeof(wanted), "sluice-test, process %d", (int)getpid());
    cr_expect(strstr(why, wanted), "%s", why);
    close(fd);
    cr_expect_eq(guard_probe_turn(&plain, &at, false, why, sizeof(why)), 0, "%s", why);
}

/* presets.md: STUN without TURN is 3478/udp. */
Test(guard, a_taken_stream_port_is_nothing_to_datagrams_alone)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct netaddr at = { .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };
    static struct config plain;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t n = sizeof(a);

    cr_assert(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 1) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    at.port = ntohs(a.sin_port);
    prctl(PR_SET_NAME, "sluice-test");
    cr_expect_eq(guard_probe_turn(&plain, &at, false, why, sizeof(why)), -EADDRINUSE);
    plain.turn_udp_only = true;
    cr_expect_eq(guard_probe_turn(&plain, &at, false, why, sizeof(why)), 0, "%s", why);
    close(fd);
}

Test(guard, port_0_is_free)
{
    struct netaddr at = { .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };

    cr_expect_eq(guard_probe(&at, false, "--listen-p2p", why, sizeof(why)), 0);
}
