/* tests/unit/test_ring_udp.c: engine/ring_udp.c against the kernel, over loopback. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "engine/ring.h"

enum { SLOT = 67584 };

static const struct netaddr loop4 = { .ip = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 } };
static const struct netaddr loop6 = { .ip = { [15] = 1 } };
static const struct netaddr any6 = { .port = 0 };

struct end {
    int fd;
    struct netaddr at;
};

static struct end bound(const struct netaddr *at, unsigned flags)
{
    struct end e;

    e.fd = ring_bind_udp(at, flags, 1 << 20, &e.at);
    cr_assert(ge(int, e.fd, 0), "%s", strerror(-e.fd));
    cr_assert(e.at.port != 0);
    return e;
}

static struct ring_dgram slots[RING_DGRAMS_MAX];

static int receive(int fd, unsigned count)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    for (unsigned i = 0; i < count; i++) {
        if (!slots[i].buf)
            slots[i].buf = malloc(SLOT);
        slots[i].cap = SLOT;
    }
    (void)poll(&p, 1, 1000);
    return ring_udp_recv(fd, slots, count);
}

static int send_to(int fd, const struct netaddr *to, bool v6, const void *p, size_t n,
                   uint16_t segment)
{
    struct iovec iov = { (void *)(uintptr_t)p, n };
    struct ring_udp_out o = { .to = to, .v6 = v6, .iov = &iov, .iov_n = 1, .segment = segment };

    return ring_udp_send(fd, &o);
}

static uint8_t pattern[64000];

static void fill(void)
{
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i * 7 + i / 251);
}

TestSuite(ring_udp, .init = fill, .timeout = 20);

Test(ring_udp, a_train_arrives_as_a_train)
{
    struct end a = bound(&loop4, 0), b = bound(&loop4, 0);

    cr_assert(eq(int, send_to(a.fd, &b.at, false, pattern, 53 * 1200 + 77, 1200), 53 * 1200 + 77));
    cr_assert(eq(int, receive(b.fd, 4), 1));
    cr_expect(eq(sz, slots[0].n, 53 * 1200 + 77));
    cr_expect(eq(u16, slots[0].segment, 1200));
    cr_expect(eq(u16, slots[0].from.port, a.at.port));
    cr_expect(not(slots[0].truncated));
    cr_expect(eq(int, memcmp(slots[0].buf, pattern, slots[0].n), 0));
    close(a.fd);
    close(b.fd);
}

Test(ring_udp, singles_stay_apart_and_an_empty_one_is_one)
{
    struct end a = bound(&loop4, 0), b = bound(&loop4, 0);

    cr_assert(eq(int, send_to(a.fd, &b.at, false, "one", 3, 0), 3));
    cr_assert(eq(int, send_to(a.fd, &b.at, false, "", 0, 0), 0));
    cr_assert(eq(int, send_to(a.fd, &b.at, false, "three", 5, 0), 5));
    cr_assert(eq(int, receive(b.fd, 8), 3));
    cr_expect(eq(sz, slots[0].n, 3));
    cr_expect(eq(sz, slots[1].n, 0));
    cr_expect(eq(sz, slots[2].n, 5));
    cr_expect(eq(u16, slots[2].segment, 0));
    cr_expect(eq(int, ring_udp_recv(b.fd, slots, 8), 0));
    close(a.fd);
    close(b.fd);
}

Test(ring_udp, what_does_not_fit_says_so)
{
    struct end a = bound(&loop4, 0), b = bound(&loop4, 0);

    cr_assert(eq(int, send_to(a.fd, &b.at, false, pattern, 2000, 0), 2000));
    cr_assert(eq(int, receive(b.fd, 1) >= 0, 1));
    cr_expect(not(slots[0].truncated));
    cr_assert(eq(int, send_to(a.fd, &b.at, false, pattern, 2000, 0), 2000));
    slots[0].cap = 100;
    cr_assert(eq(int, ring_udp_recv(b.fd, slots, 1), 1));
    cr_expect(slots[0].truncated);
    close(a.fd);
    close(b.fd);
}

Test(ring_udp, a_dual_stack_wildcard_tells_where_it_arrived_and_answers_from_there)
{
    struct end door = bound(&any6, RING_UDP_PKTINFO | RING_UDP_REUSEPORT);
    struct netaddr from = loop4;

    from.ip[15] = 7; /* 127.0.0.7 */
    struct end c4 = bound(&loop4, 0), c6 = bound(&loop6, RING_UDP_V6ONLY);
    struct netaddr to = from;

    to.port = door.at.port;
    cr_assert(eq(int, send_to(c4.fd, &to, false, "four", 4, 0), 4));
    cr_assert(eq(int, receive(door.fd, 2), 1));
    cr_assert(slots[0].has_local);
    cr_expect(eq(int, memcmp(slots[0].local, from.ip, 16), 0));
    cr_expect(netaddr_is4(&slots[0].from));

    struct iovec iov = { (void *)(uintptr_t) "back", 4 };
    struct ring_udp_out o = { .to = &c4.at, .local = from.ip, .v6 = true, .iov = &iov, .iov_n = 1 };

    cr_assert(eq(int, ring_udp_send(door.fd, &o), 4));
    cr_assert(eq(int, receive(c4.fd, 2), 1));
    cr_expect(eq(int, memcmp(slots[0].from.ip, from.ip, 16), 0));

    to = loop6;
    to.port = door.at.port;
    cr_assert(eq(int, send_to(c6.fd, &to, true, "six", 3, 0), 3));
    cr_assert(eq(int, receive(door.fd, 2), 1));
    cr_expect(eq(int, memcmp(slots[0].local, loop6.ip, 16), 0));
    o = (struct ring_udp_out){
        .to = &c6.at, .local = loop6.ip, .v6 = true, .iov = &iov, .iov_n = 1, .segment = 2
    };
    cr_assert(eq(int, ring_udp_send(door.fd, &o), 4));
    cr_assert(eq(int, receive(c6.fd, 2), 1));
    cr_expect(eq(sz, slots[0].n, 4));
    close(door.fd);
    close(c4.fd);
    close(c6.fd);
}

Test(ring_udp, a_closed_port_is_told_once_and_by_name)
{
    struct end a = bound(&loop4, RING_UDP_ERRORS), b = bound(&loop4, 0);
    struct ring_icmp e = { .type = 0 };

    close(b.fd);
    cr_assert(eq(int, send_to(a.fd, &b.at, false, "?", 1, 0), 1));
    cr_assert(eq(int, receive(a.fd, 2), -ECONNREFUSED));
    cr_assert(ring_udp_error(a.fd, &e));
    cr_expect(eq(u8, e.type, 3));
    cr_expect(eq(u8, e.code, 3));
    cr_expect(eq(u16, e.peer.port, b.at.port));
    cr_expect(not(ring_udp_error(a.fd, &e)));
    cr_expect(eq(int, ring_udp_recv(a.fd, slots, 2), 0));
    close(a.fd);
}

Test(ring_udp, the_dont_fragment_bit_goes_on_and_off)
{
    struct end a = bound(&loop6, RING_UDP_ERRORS | RING_UDP_V6ONLY), b = bound(&loop6, 0);

    cr_assert(eq(int, ring_udp_dont_fragment(a.fd, true, true), 0));
    cr_assert(eq(int, send_to(a.fd, &b.at, true, pattern, 64000, 0), 64000)); /* loopback: 65536 */
    cr_assert(eq(int, ring_udp_dont_fragment(a.fd, true, false), 0));
    cr_expect(eq(int, send_to(a.fd, &b.at, true, pattern, 64000, 64000), 64000));
    close(a.fd);
    close(b.fd);
}
