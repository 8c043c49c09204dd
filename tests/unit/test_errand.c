/* The errand thread, with a resolver of the test's. */
#include "engine/errand.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "config_load.h"
#include "engine/clock.h"

static struct turn_host h;
static struct quota *quota;
static struct log *log_of_test;
static struct errand *e;

/* What the resolver says of "a.example" and of any other name; "" is a failure. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *says[2][3];
static _Atomic int asked, hang;

static int fake(void *arg, const char *name, struct errand_answer *out)
{
    int which = strcmp(name, "a.example") != 0, err = -ENOENT;

    (void)arg;
    while (atomic_load(&hang))
        usleep(1000);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 3 && says[which][i]; i++) {
        cr_assert(netaddr_parse(bytes_str(says[which][i]), &out->addr[out->n++]));
        err = 0;
    }
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&asked, 1);
    return err;
}

static void say(int which, const char *one, const char *two, const char *three)
{
    pthread_mutex_lock(&lock);
    says[which][0] = one;
    says[which][1] = two;
    says[which][2] = three;
    pthread_mutex_unlock(&lock);
}

/* After this the answers of now have been told. */
static void ask_again(void)
{
    int now = atomic_load(&asked);

    while (atomic_load(&asked) - now < 6)
        usleep(1000);
}

static void start(const char *one, const char *two)
{
    static const uint8_t key[16] = "errand test.";
    const struct errand_opts o = { .resolve = fake, .interval_ms = 1 };
    char why[512];

    cr_assert_eq(LOAD("--listen-turn=192.0.2.1:3478", "--listen-turn=[2001:db8::1]:3478",
                      "--turn-secret=x", one, two),
                 0, "%s", said);
    quota = quota_new(1000, 64, key);
    cr_assert_eq(turn_host_init(&h, &c, quota, 1, why, sizeof(why)), 0, "%s", why);
    log_of_test = log_new(&c);
    cr_assert_eq(errand_start(&h, log_attach(log_of_test, "errand"), &o, &e), 0);
}

static void finish(void)
{
    errand_stop(e);
    turn_host_fini(&h);
    quota_free(quota);
    config_free(&c);
}

static const char *told(enum turn_family f)
{
    static char text[NETADDR_TEXT_MAX];
    struct netaddr out, in = h.relay_ip[f];

    turn_host_external(&h, &in, &out);
    netaddr_ip_text(&out, text);
    return text;
}

static char lines[16384];

static void collect(void *arg, const char *line)
{
    (void)arg;
    strncat(lines, line, sizeof(lines) - strlen(lines) - 2);
    strcat(lines, "\n");
}

static unsigned count(const char *what)
{
    unsigned n = 0;

    log_drain_to(log_of_test, collect, NULL);
    for (const char *at = lines; (at = strstr(at, what)); at++)
        n++;
    return n;
}

Test(errand, nothing_to_do_is_no_thread)
{
    start("--turn-external-ip=8.8.4.4", "--turn-external-ip=2a00::1");
    cr_assert(e == NULL);
    cr_assert_str_eq(told(TURN_V4), "8.8.4.4");
    finish();
}

Test(errand, a_name_gives_both_families_and_is_followed, .timeout = 20)
{
    say(0, "8.8.8.8:0", "[2a00::1]:0", NULL);
    start("--turn-external-ip=a.example", "--turn-realm=r");
    cr_assert(errand_wait(e, 10000));
    cr_assert_str_eq(told(TURN_V4), "8.8.8.8");
    cr_assert_str_eq(told(TURN_V6), "2a00::1");
    say(0, "8.8.8.9:0", NULL, NULL);
    ask_again();
    cr_assert_str_eq(told(TURN_V4), "8.8.8.9");
    cr_assert_str_eq(told(TURN_V6), "2a00::1", "the last good one");
    cr_assert_eq(count("no longer 8.8.8.8"), 1);
    finish();
}

Test(errand, a_failure_keeps_the_last_answer_and_is_said_once, .timeout = 20)
{
    say(0, "8.8.8.8:0", NULL, NULL);
    start("--turn-external-ip=a.example", "--turn-realm=r");
    cr_assert(errand_wait(e, 10000));
    say(0, NULL, NULL, NULL);
    ask_again();
    cr_assert_str_eq(told(TURN_V4), "8.8.8.8");
    cr_assert_eq(count("does not resolve"), 1);
    cr_assert_eq(count("the last address"), 1);
    say(0, "8.8.8.8:0", NULL, NULL);
    ask_again();
    cr_assert_eq(count("resolves again"), 1);
    cr_assert_eq(count("does not resolve"), 1);
    finish();
}

Test(errand, addresses_in_turning_order_change_nothing, .timeout = 20)
{
    say(0, "8.8.8.8:0", "8.8.8.9:0", NULL);
    start("--turn-external-ip=a.example", "--turn-realm=r");
    cr_assert(errand_wait(e, 10000));
    say(0, "8.8.8.9:0", "8.8.8.8:0", NULL);
    ask_again();
    cr_assert_str_eq(told(TURN_V4), "8.8.8.8");
    finish();
}

Test(errand, an_address_that_is_written_out_goes_before_a_name, .timeout = 20)
{
    say(0, "8.8.8.8:0", "[2a00::1]:0", NULL);
    start("--turn-external-ip=8.8.4.4", "--turn-external-ip=a.example");
    cr_assert(errand_wait(e, 10000));
    cr_assert_str_eq(told(TURN_V4), "8.8.4.4");
    cr_assert_str_eq(told(TURN_V6), "2a00::1");
    finish();
}

Test(errand, two_names_each_for_what_it_has, .timeout = 20)
{
    say(0, "[2a00::1]:0", NULL, NULL);
    say(1, "8.8.8.8:0", "[2a00::2]:0", NULL);
    start("--turn-external-ip=a.example", "--turn-external-ip=b.example");
    cr_assert(errand_wait(e, 10000));
    cr_assert_str_eq(told(TURN_V4), "8.8.8.8");
    cr_assert_str_eq(told(TURN_V6), "2a00::1", "of the first that has one");
    finish();
}

/* Debian's /etc/hosts has 127.0.1.1 for the host's own name. */
Test(errand, loopback_is_no_outside_address, .timeout = 20)
{
    say(0, "127.0.1.1:0", "0.0.0.0:0", NULL);
    start("--turn-external-ip=a.example", "--turn-realm=r");
    cr_assert(errand_wait(e, 10000));
    cr_assert_str_eq(told(TURN_V4), "192.0.2.1");
    cr_assert_eq(count("no address that they could use"), 1);
    say(0, "127.0.1.1:0", "10.0.0.5:0", NULL);
    ask_again();
    cr_assert_str_eq(told(TURN_V4), "10.0.0.5", "private: the operator's to judge");
    cr_assert_eq(count("10.0.0.5 is private"), 1);
    finish();
}

Test(errand, a_resolver_that_hangs_holds_up_neither_start_nor_stop, .timeout = 20)
{
    uint64_t before = clock_mono_ms();

    atomic_store(&hang, 1);
    say(0, "8.8.8.8:0", NULL, NULL);
    start("--turn-external-ip=a.example", "--turn-realm=r");
    cr_assert(!errand_wait(e, 50));
    cr_assert_str_eq(told(TURN_V4), "192.0.2.1", "the bound one meanwhile");
    errand_stop(e);
    cr_assert(clock_mono_ms() - before < 5000);
    static struct turn_host real, was;

    real = h;
    memset(&h, 0xa5, sizeof(h)); /* nobody touches it any more */
    was = h;
    atomic_store(&hang, 0);
    usleep(50000);
    cr_assert(memcmp(&was, &h, sizeof(h)) == 0);
    h = real;
    e = NULL;
    finish();
}

/* ---- names of others ------------------------------------------------------------------------- */

enum { MAIL = 7 };

static struct mbox answers;

static void start_for_others(const struct errand_opts *o)
{
    cr_assert_eq(LOAD("--listen-turn=off"), 0, "%s", said);
    log_of_test = log_new(&c);
    cr_assert_eq(errand_start(NULL, log_attach(log_of_test, "errand"), o, &e), 0);
    cr_assert(e != NULL);
    cr_assert(errand_wait(e, 0), "nothing of its own to ask");
}

static struct errand_name *ask_for(struct errand_name *n, const char *name, uint32_t ms)
{
    *n = (struct errand_name){ .kind_of_mail = MAIL, .to = &answers, .deadline_ms = ms };
    snprintf(n->name, sizeof(n->name), "%s", name);
    errand_resolve(e, n);
    return n;
}

/* All answers that come until there are `n`; the tests have a timeout. */
static struct errand_name *hear(void)
{
    struct mnode *m;

    while (!(m = mbox_take(&answers)))
        usleep(500);
    cr_assert(m->next == NULL);
    cr_assert_eq(m->kind, MAIL);
    return errand_name_of(m);
}

static const struct errand_opts always = { .interval_ms = 60000, .always = true };

Test(errand_resolve, numbers_and_this_host_need_no_network, .timeout = 20)
{
    char text[NETADDR_TEXT_MAX];
    struct errand_name n;

    start_for_others(&always);
    ask_for(&n, "192.0.2.7", 0);
    cr_assert(hear() == &n);
    cr_assert_eq(n.err, 0);
    cr_assert_eq(n.answer.n, 1);
    netaddr_ip_text(&n.answer.addr[0], text);
    cr_assert_str_eq(text, "192.0.2.7");
    cr_assert_eq(n.answer.addr[0].port, 0);
    ask_for(&n, "2001:db8::7", 0);
    hear();
    cr_assert_eq(n.err, 0);
    netaddr_ip_text(&n.answer.addr[0], text);
    cr_assert_str_eq(text, "2001:db8::7");
    ask_for(&n, "localhost", 0);
    hear();
    cr_assert_eq(n.err, 0);
    cr_assert(n.answer.n >= 1);
    errand_stop(e);
}

Test(errand_resolve, what_is_no_name_is_answered_too, .timeout = 20)
{
    struct errand_name n;

    static const char *const bad[] = { "no such name", "",      "a\nb",         "b\xc3\xbc",
                                       "a/b",          "[::1]", "192.0.2.7:80", "a%b" };

    start_for_others(&always);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ask_for(&n, bad[i], 0);
        hear();
        cr_assert_eq(n.err, -ENOENT, "%s", bad[i]);
        cr_assert_eq(n.answer.n, 0);
    }
    errand_stop(e);
}

Test(errand_resolve, many_ask_at_once_and_each_is_answered, .timeout = 20)
{
    enum { MANY = 3 * ERRAND_JOBS_MAX };
    static struct errand_name n[MANY];
    unsigned heard = 0;

    start_for_others(&always);
    for (unsigned i = 0; i < MANY; i++)
        ask_for(&n[i], "192.0.2.7", 0);
    while (heard < MANY) {
        for (struct mnode *m = mbox_take(&answers), *next; m; m = next, heard++)
            next = m->next;
        usleep(500);
    }
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(n[i].err, 0);
    errand_stop(e);
}

/* ---- with a server of the test's ------------------------------------------------------------- */

static int udp;
static char server[64];
static _Atomic int queries;

static const struct errand_opts *with_server(void)
{
    static struct errand_opts o;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(at);

    udp = socket(AF_INET, SOCK_DGRAM, 0);
    cr_assert_eq(bind(udp, (struct sockaddr *)&at, sizeof(at)), 0);
    cr_assert_eq(getsockname(udp, (struct sockaddr *)&at, &n), 0);
    snprintf(server, sizeof(server), "127.0.0.1:%u", ntohs(at.sin_port));
    o = always;
    o.servers = server;
    return &o;
}

/* Says 198.51.100.7 and nothing of IPv6, whatever the name is (RFC 1035 §4.1). */
static void *serve(void *arg)
{
    uint8_t q[600];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    ssize_t n;

    (void)arg;
    while ((n = recvfrom(udp, q, 512, 0, (struct sockaddr *)&from, &len)) > 16) {
        static const uint8_t a[] = { 0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7 };
        size_t end = 12;

        while (q[end])
            end += q[end] + 1u;
        end += 5;
        bool v4 = q[end - 3] == 1;

        atomic_fetch_add(&queries, 1);
        q[2] = 0x81;
        q[3] = 0x80;
        q[7] = v4;           /* answers */
        memset(q + 8, 0, 4); /* nothing else: an OPT of the question is left out */
        if (v4)
            memcpy(q + end, a, sizeof(a));
        sendto(udp, q, end + (v4 ? sizeof(a) : 0), 0, (struct sockaddr *)&from, len);
        len = sizeof(from);
    }
    return NULL;
}

Test(errand_resolve, asks_a_server, .timeout = 20)
{
    struct errand_name n;
    struct sockaddr_in at;
    socklen_t len = sizeof(at);
    pthread_t t;
    char text[NETADDR_TEXT_MAX];

    start_for_others(with_server());
    pthread_create(&t, NULL, serve, NULL);
    ask_for(&n, "relay.example", 0);
    hear();
    cr_assert_eq(n.err, 0);
    cr_assert_eq(n.answer.n, 1);
    netaddr_ip_text(&n.answer.addr[0], text);
    cr_assert_str_eq(text, "198.51.100.7");
    cr_assert(atomic_load(&queries) >= 1);
    errand_stop(e);
    getsockname(udp, (struct sockaddr *)&at, &len);
    sendto(udp, "", 1, 0, (struct sockaddr *)&at, sizeof(at)); /* too short for a question */
    pthread_join(t, NULL);
    close(udp);
}

Test(errand_resolve, a_server_that_never_answers_costs_the_deadline, .timeout = 20)
{
    uint64_t before = clock_mono_ms();
    struct errand_name n;

    start_for_others(with_server());
    ask_for(&n, "relay.example", 300);
    hear();
    cr_assert_eq(n.err, -ETIMEDOUT);
    cr_assert_eq(n.answer.n, 0);
    cr_assert(clock_mono_ms() - before >= 300);
    cr_assert(clock_mono_ms() - before < 5000);
    errand_stop(e);
}

Test(errand_resolve, more_than_can_be_asked_are_refused_at_once, .timeout = 20)
{
    enum { MANY = ERRAND_JOBS_MAX + 5 };
    static struct errand_name n[MANY];
    unsigned heard = 0, late = 0, refused = 0;

    start_for_others(with_server());
    for (unsigned i = 0; i < MANY; i++)
        ask_for(&n[i], "relay.example", 700);
    while (heard < MANY) {
        for (struct mnode *m = mbox_take(&answers), *next; m; m = next, heard++) {
            next = m->next;
            late += errand_name_of(m)->err == -ETIMEDOUT;
            refused += errand_name_of(m)->err == -EAGAIN;
        }
        usleep(500);
    }
    cr_assert_eq(late, ERRAND_JOBS_MAX);
    cr_assert_eq(refused, 5);
    errand_stop(e);
}

Test(errand_resolve, a_stop_in_the_middle_waits_for_nobody, .timeout = 20)
{
    static struct errand_name n;
    uint64_t before = clock_mono_ms();

    start_for_others(with_server());
    ask_for(&n, "relay.example", 0);
    usleep(20000);
    errand_stop(e);
    cr_assert(clock_mono_ms() - before < 3000);
    cr_assert(mbox_take(&answers) == NULL);
}
