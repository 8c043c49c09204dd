/* A client that we did not write: openssl s_client over a socket. The package is there where
 * certificates are (ca-certificates needs it). */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/tls_pair.h"

enum { ARGS_MAX = 24, TEXT_MAX = 32768, PATIENCE_MS = 10000 };

struct visit {
    struct tls_server *server;
    int listener;
    bool established;
    enum tls_verdict verdict;
    enum tls_why why;
    char id[TLS_PEER_ID + 1], got[256];
    size_t got_n;
};

static bool socket_out(void *arg, struct bytes b)
{
    return send(*(int *)arg, b.p, b.n, MSG_NOSIGNAL) == (ssize_t)b.n;
}

/* One visitor: whatever is said is kept, `ping` is answered and ends it. */
static void *serve(void *arg)
{
    struct visit *v = arg;
    int err, fd = accept(v->listener, NULL, NULL);
    struct tls_pool *pool = tls_pool_new(POOL_BYTES, &err);
    struct tls *t = tls_new(v->server, pool, socket_out, &fd);
    uint8_t in[4096];
    ssize_t n;
    bool over = false;

    while (!over && poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, PATIENCE_MS) == 1 &&
           (n = recv(fd, in, sizeof(in), 0)) > 0) {
        size_t m;

        (void)tls_feed(t, bytes_of(in, (size_t)n));
        while ((m = tls_read(t, (uint8_t *)v->got + v->got_n, sizeof(v->got) - 1 - v->got_n)) != 0)
            v->got_n += m;
        if (strstr(v->got, "ping"))
            over = tls_write(t, bytes_str("pong\n"));
        over = over || tls_verdict(t) >= TLS_CLOSED;
    }
    v->established = tls_established(t);
    v->verdict = tls_verdict(t);
    v->why = tls_why(t);
    if (!tls_peer_id(t, v->id))
        v->id[0] = 0;
    tls_close_notify(t);
    tls_free(t);
    tls_pool_free(pool); /* nothing is left in it */
    shutdown(fd, SHUT_WR);
    close(fd);
    return NULL;
}

static void write_line(int fd, const char *line)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%s\n", line);

    if (write(fd, text, (size_t)n) != n)
        return;     /* it has gone, and the visit says why */
    usleep(150000); /* s_client takes a command at the beginning of what it reads */
}

/* Runs s_client with these arguments, types the lines, gives all that it printed. */
static char *client(unsigned port, const char *const *args, const char *const *lines)
{
    static char text[TEXT_MAX];
    char at[32];
    const char *argv[ARGS_MAX] = { "openssl", "s_client", "-connect", at };
    int to[2], from[2], n = 4;
    size_t got = 0;
    ssize_t m;

    snprintf(at, sizeof(at), "127.0.0.1:%u", port);
    for (; *args && n < ARGS_MAX - 1; args++)
        argv[n++] = *args;
    cr_assert_eq(pipe2(to, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(from, O_CLOEXEC), 0);
    pid_t pid = fork();

    if (pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        dup2(from[1], 2);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    cr_assert_gt(pid, 0);
    close(to[0]);
    close(from[1]);
    usleep(150000);
    for (; *lines; lines++)
        write_line(to[1], *lines);
    while (got < TEXT_MAX - 1 &&
           poll(&(struct pollfd){ from[0], POLLIN, 0 }, 1, PATIENCE_MS) == 1 &&
           (m = read(from[0], text + got, TEXT_MAX - 1 - got)) > 0)
        got += (size_t)m;
    text[got] = 0;
    close(to[1]);
    close(from[0]);
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    return text;
}

static char *visit(struct visit *v, const char *key, enum tls_mode mode, const char *const *args,
                   const char *const *lines)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(a);
    pthread_t thread;

    signal(SIGPIPE, SIG_IGN);
    *v = (struct visit){ .server = server_of(key, mode) };
    v->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(v->listener, (struct sockaddr *)&a, n), 0);
    cr_assert_eq(listen(v->listener, 1), 0);
    cr_assert_eq(getsockname(v->listener, (struct sockaddr *)&a, &n), 0);
    cr_assert_eq(pthread_create(&thread, NULL, serve, v), 0);
    char *text = client(ntohs(a.sin_port), args, lines);

    cr_assert_not_null(strstr(text, "CONNECTED"), "%s", text);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    close(v->listener);
    tls_server_drop(v->server);
    return text;
}

static const char *const PING[] = { "ping", NULL };

Test(tls_clients, openssl_comes_in_with_and_without_a_certificate, .timeout = 60)
{
    static const struct {
        const char *version, *said;
    } versions[] = { { "-tls1_2", "TLSv1.2" }, { "-tls1_3", "TLSv1.3" } };

    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        const char *const with[] = { versions[i].version,         "-cert",
                                     key_path("ed25519", ".pem"), "-key",
                                     key_path("ed25519", ".key"), NULL };
        const char *const without[] = { versions[i].version, NULL };
        struct visit v;
        char *text = visit(&v, "rsa2048", TLS_CLIENT_REQUIRED, with, PING);

        cr_expect(v.established, "%s", tls_why_text(v.why));
        cr_expect_str_eq(v.id, id_of("ed25519"));
        cr_expect_not_null(strstr(text, "pong"), "%s", text);
        cr_expect_not_null(strstr(text, versions[i].said), "%s", text);
        cr_expect_not_null(strstr(text, "No client certificate CA names sent"), "%s", text);
        cr_expect_null(strstr(text, "SHA1"), "%s", text);
        cr_expect_not_null(strcasestr(text, "ed25519"), "%s", text);

        text = visit(&v, "p256", TLS_CLIENT_OPTIONAL, without, PING);
        cr_expect(v.established, "%s", tls_why_text(v.why));
        cr_expect_str_eq(v.id, "");
        cr_expect_not_null(strstr(text, "pong"), "%s", text);

        text = visit(&v, "p256", TLS_CLIENT_REQUIRED, without, PING);
        cr_expect_not(v.established);
        cr_expect_eq(v.why, TLS_WHY_NO_CERT, "%s", tls_why_text(v.why));
        cr_expect_null(strstr(text, "pong"), "%s", text);
        cr_expect_not_null(strstr(text, "alert"), "%s", text);
    }
}

Test(tls_clients, openssl_shows_a_chain_and_it_is_ignored, .timeout = 30)
{
    const char *const args[] = { "-tls1_3",
                                 "-cert",
                                 key_path("chain", ".pem"),
                                 "-key",
                                 key_path("chain", ".key"),
                                 "-cert_chain",
                                 key_path("chain", ".pem"),
                                 NULL };
    struct visit v;

    (void)visit(&v, "p384", TLS_CLIENT_REQUIRED, args, PING);
    cr_expect(v.established, "%s", tls_why_text(v.why));
    cr_expect_str_eq(v.id, id_of("chain"));
}

Test(tls_clients, openssl_may_not_renegotiate_and_may_update_its_keys, .timeout = 30)
{
    const char *const old[] = { "-tls1_2", NULL }, *const new[] = { "-tls1_3", NULL };
    const char *const again[] = { "R", "ping", NULL };
    const char *const update[] = { "K", "k", "K", "ping", NULL };
    struct visit v;
    char *text = visit(&v, "p256", TLS_SERVER_ONLY, old, again);

    cr_expect(v.established);
    cr_expect_not_null(strstr(text, "RENEGOTIATING"), "%s", text);
    cr_expect_null(strstr(text, "pong"), "%s", text);
    cr_expect_eq(v.verdict, TLS_FAILED);

    text = visit(&v, "p256", TLS_SERVER_ONLY, new, update);
    cr_expect(v.established);
    cr_expect_not_null(strstr(text, "KEYUPDATE"), "%s", text);
    cr_expect_not_null(strstr(text, "pong"), "%s", text);
}

Test(tls_clients, openssl_is_refused_with_what_is_too_old, .timeout = 30)
{
    const char *const args[] = { "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", NULL };
    struct visit v;
    char *text = visit(&v, "p256", TLS_SERVER_ONLY, args, PING);

    cr_expect_not(v.established);
    cr_expect_eq(v.why, TLS_WHY_VERSION, "%s", tls_why_text(v.why));
    cr_expect_not_null(strstr(text, "protocol version"), "%s", text);
}

/* The first guess of a group is none of ours: HelloRetryRequest (RFC 8446 §4.1.4). */
Test(tls_clients, openssl_is_asked_for_another_group, .timeout = 30)
{
    const char *const args[] = { "-tls1_3", "-groups", "P-521:P-384", NULL };
    const char *const none[] = { "-tls1_3", "-groups", "P-521:ffdhe2048", NULL };
    struct visit v;
    char *text = visit(&v, "p256", TLS_SERVER_ONLY, args, PING);

    cr_expect(v.established, "%s", tls_why_text(v.why));
    cr_expect_not_null(strstr(text, "pong"), "%s", text);
    cr_expect_not_null(strstr(text, "secp384r1"), "%s", text);
    text = visit(&v, "p256", TLS_SERVER_ONLY, none, PING);
    cr_expect_not(v.established);
    cr_expect_eq(v.why, TLS_WHY_NO_COMMON, "%s", tls_why_text(v.why));
    cr_expect_not_null(strstr(text, "alert"), "%s", text);
}
