/* The errand thread, with a resolver of the test's. */
#include "engine/errand.h"

#include <netdb.h>
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
    int which = strcmp(name, "a.example") != 0, err = EAI_NONAME;

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

/* The real one: numbers need no network. */
Test(errand, getaddrinfo_speaks_our_way)
{
    struct errand_answer a = { .n = 0 };
    char text[NETADDR_TEXT_MAX];

    cr_assert_eq(errand_defaults.resolve(NULL, "192.0.2.7", &a), 0);
    cr_assert_eq(a.n, 1);
    netaddr_ip_text(&a.addr[0], text);
    cr_assert_str_eq(text, "192.0.2.7");
    a.n = 0;
    cr_assert_eq(errand_defaults.resolve(NULL, "2001:db8::7", &a), 0);
    netaddr_ip_text(&a.addr[0], text);
    cr_assert_str_eq(text, "2001:db8::7");
    cr_assert(errand_defaults.resolve(NULL, "no such name.invalid", &a) != 0);
    cr_assert_eq(a.n, 0);
}
