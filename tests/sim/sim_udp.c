/* tests/sim/sim_udp.c: datagrams: sockets of the engine (the calls of ring.h) and far ends, what is
 * under way between them, and what happens to it there. Trains are as on Linux: what lies in a
 * socket's queue one behind the other, of one source and one length (the last may be shorter), may
 * be received as one; a send with a segment is cut before it leaves. */
#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <stdlib.h>

enum {
    UDP_V4_MAX = 65507,
    UDP_V6_MAX = 65487,
    UDP_V4_HEADERS = 28,
    UDP_V6_HEADERS = 48,
    SEGMENTS_MAX = 64, /* of a received train; of a sent one, before Linux 6.9 */
    IOV_MAX_UDP = 1024,
};

static bool udp_is_v4(const struct netaddr *a)
{
    return netaddr_is4(a);
}

static bool same(const struct netaddr *a, const struct netaddr *b)
{
    return a->port == b->port && memcmp(a->ip, b->ip, 16) == 0;
}

static bool any_addr(const struct netaddr *a)
{
    static const uint8_t zero[16];
    bool v4 = udp_is_v4(a);

    return memcmp(a->ip + (v4 ? 12 : 0), zero, v4 ? 4 : 16) == 0;
}

static uint64_t mix(uint64_t h, const struct netaddr *a)
{
    for (int i = 0; i < 16; i++)
        h = (h ^ a->ip[i]) * 1099511628211u;
    h = (h ^ a->port) * 1099511628211u;
    return h ^ h >> 29;
}

static uint64_t hash_of(const struct netaddr *from, const struct netaddr *to)
{
    return mix(mix(14695981039346656037u, from), to);
}

/* ---- who is bound where --------------------------------------------------------------------- */

static struct sim_file **bucket_of(struct sim_net *net, uint16_t port)
{
    return &net->udp_bucket[port % SIM_UDP_BUCKETS];
}

/* The engine's host: what a socket of all addresses receives. */
static bool at_home(const struct netaddr *a)
{
    static const uint8_t v4[15] = { [10] = 0xff, [11] = 0xff, 10, 0, 0 };
    static const uint8_t v6[8] = { 0x20, 0x01, 0x0d, 0xb8 };

    return memcmp(a->ip, v4, sizeof(v4)) == 0 || memcmp(a->ip, v6, sizeof(v6)) == 0;
}

/* 0: not for this one; a socket bound to the very address goes before one bound to all. */
static int fits(const struct sim_file *f, const struct netaddr *to)
{
    if (f->local.port != to->port)
        return 0;
    if (!any_addr(&f->local))
        return memcmp(f->local.ip, to->ip, 16) == 0 ? 2 : 0;
    if (!at_home(to))
        return 0;
    if (udp_is_v4(&f->local))
        return udp_is_v4(to);
    return !udp_is_v4(to) || !(f->udp->flags & RING_UDP_V6ONLY);
}

struct sim_file *sim_udp_lookup(struct sim_net *net, const struct netaddr *to,
                                const struct netaddr *from, int *idx)
{
    int best = 0, n = 0, want;

    for (const struct sim_file *f = *bucket_of(net, to->port); f; f = f->udp->next_in_bucket) {
        int fit = fits(f, to);

        n = fit > best ? 1 : n + (fit == best && fit > 0);
        best = fit > best ? fit : best;
    }
    if (n == 0)
        return NULL;
    want = (int)(hash_of(from, to) % (unsigned)n);
    if (idx != NULL)
        *idx = want;
    for (struct sim_file *f = *bucket_of(net, to->port); f; f = f->udp->next_in_bucket)
        if (fits(f, to) == best && want-- == 0)
            return f;
    return NULL;
}

static bool at_home_or_all(const struct netaddr *a)
{
    return any_addr(a) || at_home(a);
}

bool sim_udp_taken(struct sim_net *net, const struct netaddr *at, unsigned flags)
{
    for (const struct sim_file *f = *bucket_of(net, at->port); f; f = f->udp->next_in_bucket) {
        bool v4 = udp_is_v4(at), other4 = udp_is_v4(&f->local);
        bool all = (any_addr(at) && at_home_or_all(&f->local)) ||
                   (any_addr(&f->local) && at_home_or_all(at));

        if (f->local.port != at->port || (flags & f->udp->flags & RING_UDP_REUSEPORT))
            continue;
        if (same(&f->local, at))
            return true;
        if (all && (v4 == other4 || !((v4 ? f->udp->flags : flags) & RING_UDP_V6ONLY)))
            return true;
    }
    return false;
}

struct sim_file *sim_udp_new(struct sim_net *net, const struct netaddr *at, unsigned flags)
{
    struct sim_file *f = sim_file_new(net, SIM_UDP), **end = bucket_of(net, at->port);

    f->udp = sim_must(calloc(1, sizeof(*f->udp)));
    f->udp->flags = flags;
    f->local = *at;
    while (*end != NULL) /* in order of binding */
        end = &(*end)->udp->next_in_bucket;
    *end = f;
    return f;
}

void sim_udp_close(struct sim_file *f)
{
    for (struct sim_file **at = bucket_of(f->net, f->local.port); *at != NULL;
         at = &(*at)->udp->next_in_bucket)
        if (*at == f) {
            *at = f->udp->next_in_bucket;
            break;
        }
    while (f->udp->first != NULL) {
        struct sim_dgram *g = f->udp->first;

        f->udp->first = g->next;
        free(g);
    }
    f->udp->last = NULL;
    f->udp->queued = 0;
}

/* ---- what is under way ---------------------------------------------------------------------- */

static bool sooner(const struct sim_dgram *a, const struct sim_dgram *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->serial < b->serial;
}

static void air_push(struct sim_net *net, struct sim_dgram *g)
{
    size_t i = net->air_n++;

    if (net->air_n > net->air_cap) {
        net->air_cap = net->air_cap ? net->air_cap * 2 : 256;
        net->air = sim_must(realloc(net->air, net->air_cap * sizeof(struct sim_dgram *)));
    }
    for (; i > 0 && sooner(g, net->air[(i - 1) / 2]); i = (i - 1) / 2)
        net->air[i] = net->air[(i - 1) / 2];
    net->air[i] = g;
}

static struct sim_dgram *air_pop(struct sim_net *net)
{
    struct sim_dgram *top = net->air[0], *last = net->air[--net->air_n];
    size_t i = 0;

    for (size_t k = 1; k < net->air_n; k = 2 * i + 1) {
        k += k + 1 < net->air_n && sooner(net->air[k + 1], net->air[k]);
        if (!sooner(net->air[k], last))
            break;
        net->air[i] = net->air[k];
        i = k;
    }
    net->air[i] = last;
    return top;
}

uint64_t sim_udp_next_ns(const struct sim_net *net)
{
    return net->air_n > 0 ? net->air[0]->due_ns : SIM_NEVER;
}

void sim_udp_free(struct sim_net *net)
{
    for (size_t i = 0; i < net->air_n; i++)
        free(net->air[i]);
    free(net->air);
}

static struct sim_dgram *dgram_new(struct sim_net *net, const struct netaddr *from,
                                   const struct netaddr *to, size_t n)
{
    struct sim_dgram *g = sim_must(malloc(sizeof(*g) + n));

    *g = (struct sim_dgram){ .serial = ++net->air_serials, .from = *from, .to = *to, .n = n };
    return g;
}

/* When it gets there: behind what the same flow sent before, unless it is late. */
static uint64_t dgram_due_ns(struct sim_net *net, const struct sim_dgram *g)
{
    uint64_t *flow = &net->flow_due_ns[hash_of(&g->from, &g->to) % SIM_UDP_FLOWS];
    uint64_t due = sim_later_ns(net);

    if (sim_chance(net, net->o.udp_late_pct)) {
        net->counts.udp_late++;
        return due + sim_below(net, (uint64_t)(1 + net->o.net_delay_ms_max) * SIM_NS_PER_MS);
    }
    if (due < *flow)
        due = *flow;
    *flow = due;
    return due;
}

void sim_udp_launch(struct sim_net *net, const struct netaddr *from, const struct netaddr *to,
                    const uint8_t *p, size_t n)
{
    unsigned copies = 1 + sim_chance(net, net->o.udp_dup_pct);

    if (sim_chance(net, net->o.udp_loss_pct)) {
        net->counts.udp_lost++;
        return;
    }
    net->counts.udp_dup += copies - 1;
    while (copies-- > 0) {
        struct sim_dgram *g = dgram_new(net, from, to, n);

        if (n > 0)
            memcpy(g->data, p, n);
        g->due_ns = dgram_due_ns(net, g);
        air_push(net, g);
    }
}

void sim_udp_icmp(struct sim_net *net, const struct netaddr *from, const struct netaddr *to,
                  uint8_t type, uint8_t code, uint32_t mtu)
{
    struct sim_dgram *g = dgram_new(net, to, from, 0);

    g->icmp = true;
    g->error = (struct ring_icmp){ *to, !udp_is_v4(to), type, code, mtu };
    g->due_ns = sim_later_ns(net);
    air_push(net, g);
}

/* ICMP is matched by address alone, so that what is late may reach who came after. */
static void arrive_icmp(struct sim_net *net, const struct sim_dgram *g)
{
    static const int unreachable[] = { ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED,
                                       EMSGSIZE };
    struct sim_file *f = sim_udp_lookup(net, &g->to, &g->from, NULL);
    bool v6 = g->error.v6;

    if (f == NULL || f->far || !(f->udp->flags & RING_UDP_ERRORS))
        return; /* who did not ask is not told */
    net->counts.udp_icmp++;
    f->udp->err = v6 ? g->error.type == 2 ? -EMSGSIZE : -ECONNREFUSED
                     : -unreachable[g->error.code % ARRAY_LEN(unreachable)];
    if (f->udp->errors_n < SIM_ICMP_MAX)
        f->udp->errors[f->udp->errors_n++] = g->error;
    f->arrivals++;
}

static bool arrive(struct sim_net *net, struct sim_dgram *g)
{
    struct sim_file *f = sim_udp_lookup(net, &g->to, &g->from, NULL);

    if (f == NULL) {
        sim_udp_icmp(net, &g->from, &g->to, udp_is_v4(&g->to) ? 3 : 1, udp_is_v4(&g->to) ? 3 : 4,
                     0);
        return false;
    }
    if (f->udp->queued == net->o.udp_queue) {
        net->counts.udp_full++;
        return false;
    }
    g->next = NULL;
    *(f->udp->last != NULL ? &f->udp->last->next : &f->udp->first) = g;
    f->udp->last = g;
    f->udp->queued++;
    f->arrivals++;
    net->news |= f->far;
    return true;
}

void sim_udp_deliver(struct sim_net *net)
{
    while (net->air_n > 0 && net->air[0]->due_ns <= net->now_ns) {
        struct sim_dgram *g = air_pop(net);

        if (g->icmp)
            arrive_icmp(net, g);
        if (g->icmp || !arrive(net, g))
            free(g);
    }
}

bool sim_udp_ready(const struct sim_file *f)
{
    return f->udp->queued > 0 || f->udp->errors_n > 0 || f->udp->err != 0;
}

void sim_udp_unqueue(struct sim_file *f)
{
    struct sim_dgram *g = f->udp->first;

    f->udp->first = g->next;
    if (g->next == NULL)
        f->udp->last = NULL;
    f->udp->queued--;
    free(g);
}

/* ---- the engine's calls --------------------------------------------------------------------- */

static struct sim_file *udp_file(int fd, const char *what)
{
    struct sim_file *f = sim_fd_file(sim_net_now(), fd);

    if (f != NULL && f->kind == SIM_UDP)
        return f;
    sim_net_break(sim_net_now(), "%s on descriptor %d, which is no datagram socket", what, fd);
    return NULL;
}

int ring_bind_udp(const struct netaddr *at, unsigned flags, int rcvbuf_bytes, struct netaddr *bound)
{
    struct sim_net *net = sim_net_now();
    struct netaddr to = *at;
    struct sim_file *f;
    int fd;

    (void)rcvbuf_bytes;
    while (to.port == 0 || (at->port == 0 && sim_udp_taken(net, &to, flags)))
        to.port = net->next_port++;
    if (sim_chance(net, net->o.udp_emfile_pct)) {
        net->counts.udp_emfile++;
        return -EMFILE;
    }
    if (sim_udp_taken(net, &to, flags) || sim_chance(net, net->o.udp_in_use_pct)) {
        net->counts.udp_in_use++;
        return -EADDRINUSE;
    }
    f = sim_udp_new(net, &to, flags);
    fd = sim_fd_open(net, f);
    if (fd < 0)
        sim_file_close(f);
    else if (bound != NULL)
        *bound = to;
    return fd;
}

/* How many datagrams from the first on are of one train. */
static unsigned train_of(struct sim_net *net, const struct sim_file *f, size_t *bytes)
{
    const struct sim_dgram *first = f->udp->first, *g = first->next;
    unsigned n = 1;

    *bytes = first->n;
    for (; first->n > 0 && g != NULL && n < SEGMENTS_MAX; g = g->next, n++) {
        if (!same(&g->from, &first->from) || !same(&g->to, &first->to) || g->n == 0 ||
            g->n > first->n || *bytes + g->n > UDP_V4_MAX)
            break;
        if (sim_chance(net, net->o.udp_split_pct)) {
            net->counts.udp_split++;
            break;
        }
        *bytes += g->n;
        if (g->n < first->n)
            return n + 1;
    }
    return n;
}

static void receive(struct sim_net *net, struct sim_file *f, struct ring_dgram *d)
{
    const struct sim_dgram *first = f->udp->first;
    size_t bytes, cap = d->cap, at = 0;
    unsigned n = train_of(net, f, &bytes);

    if (bytes > 0 && sim_chance(net, net->o.udp_truncate_pct))
        cap = min_sz(cap, (size_t)sim_below(net, bytes));
    d->from = first->from;
    d->segment = (uint16_t)(n > 1 ? first->n : 0);
    d->has_local = (f->udp->flags & RING_UDP_PKTINFO) != 0;
    if (d->has_local)
        memcpy(d->local, first->to.ip, 16);
    net->counts.udp_in += n;
    net->counts.udp_trains_in += n > 1;
    while (n-- > 0) {
        size_t part = min_sz(f->udp->first->n, cap - at);

        if (part > 0)
            memcpy(d->buf + at, f->udp->first->data, part);
        at += part;
        sim_udp_unqueue(f);
    }
    d->n = at;
    d->truncated = at < bytes;
    net->counts.udp_truncated += d->truncated;
}

int ring_udp_recv(int fd, struct ring_dgram *d, unsigned count)
{
    struct sim_net *net = sim_net_now();
    struct sim_file *f = udp_file(fd, "a receive");
    unsigned n = 0;

    ASSERT(count <= RING_DGRAMS_MAX);
    if (f == NULL)
        return -EBADF;
    sim_udp_deliver(net);
    if (f->udp->err != 0) { /* before any datagram, and once */
        int err = f->udp->err;

        f->udp->err = 0;
        net->counts.udp_errors++;
        return err;
    }
    while (n < count && f->udp->first != NULL) {
        if (n > 0 && sim_chance(net, net->o.udp_split_pct)) {
            f->arrivals++; /* as if the next one had come a little later */
            break;
        }
        receive(net, f, &d[n++]);
    }
    return (int)n;
}

static int send_error(struct sim_net *net, struct sim_file *f, const struct ring_udp_out *o,
                      size_t total)
{
    bool v4 = udp_is_v4(o->to);
    size_t headers = v4 ? UDP_V4_HEADERS : UDP_V6_HEADERS, mtu = net->o.udp_mtu;
    bool train = o->segment > 0 && total > o->segment;
    size_t segments = net->o.udp_segments ? net->o.udp_segments : SEGMENTS_MAX;
    int err = f->udp->err;

    if (err != 0 && sim_chance(net, 50)) { /* a send may be who is told */
        f->udp->err = 0;
        net->counts.udp_errors++;
        return err;
    }
    if (total > (size_t)(v4 ? UDP_V4_MAX : UDP_V6_MAX) || o->iov_n > IOV_MAX_UDP)
        return -EMSGSIZE;
    if (train && (total + o->segment - 1) / o->segment > segments)
        return -EINVAL;
    if (train && mtu > 0 && o->segment + headers > mtu) {
        net->counts.udp_einval++;
        return -EINVAL;
    }
    if (train && sim_chance(net, net->o.udp_eio_pct)) {
        net->counts.udp_eio++;
        return -EIO;
    }
    if (f->udp->df && mtu > 0 && total + headers > mtu && !train) {
        net->counts.udp_too_long++;
        if (sim_chance(net, 50))
            return -EMSGSIZE;
        return 1; /* it leaves, and a router says no */
    }
    if (sim_chance(net, net->o.udp_again_pct)) {
        net->counts.udp_again++;
        return sim_chance(net, 50) ? -EAGAIN : -ENOBUFS;
    }
    return 0;
}

static void check_send(struct sim_net *net, const struct sim_file *f, const struct ring_udp_out *o)
{
    if (o->v6 != !udp_is_v4(&f->local))
        sim_net_break(net, "a send on descriptor %d of the other family", f->fd);
    if (!o->v6 && !udp_is_v4(o->to))
        sim_net_break(net, "a send to IPv6 from an IPv4 socket");
    if (o->to->port == 0)
        sim_net_break(net, "a send to port 0");
    if (o->local != NULL && !any_addr(&f->local) && memcmp(o->local, f->local.ip, 16) != 0)
        sim_net_break(net, "a send from an address that the socket does not have");
    if (o->local == NULL && any_addr(&f->local))
        sim_net_break(net, "a send from a socket of all addresses, without one");
}

int ring_udp_send(int fd, const struct ring_udp_out *o)
{
    static uint8_t all[UDP_V4_MAX + 1];
    struct sim_net *net = sim_net_now();
    struct sim_file *f = udp_file(fd, "a send");
    struct netaddr from;
    size_t total = 0, at = 0, part;
    int err;

    if (f == NULL)
        return -EBADF;
    check_send(net, f, o);
    from = f->local;
    if (o->local != NULL)
        memcpy(from.ip, o->local, 16);
    for (size_t i = 0; i < o->iov_n; i++) {
        part = min_sz(o->iov[i].iov_len, sizeof(all) - min_sz(total, sizeof(all)));
        if (part > 0)
            memcpy(all + total, o->iov[i].iov_base, part);
        total += o->iov[i].iov_len;
    }
    err = send_error(net, f, o, total);
    if (err < 0)
        return err;
    if (err > 0) {
        sim_udp_icmp(net, &from, o->to, udp_is_v4(o->to) ? 3 : 2, udp_is_v4(o->to) ? 4 : 0,
                     net->o.udp_mtu);
        return (int)total;
    }
    net->counts.udp_bytes_out += total;
    net->counts.udp_trains_out += o->segment > 0 && total > o->segment;
    do {
        part = o->segment > 0 ? min_sz(o->segment, total - at) : total;
        sim_udp_launch(net, &from, o->to, all + at, part);
        net->counts.udp_out++;
        at += part;
    } while (at < total);
    return (int)total;
}

int ring_udp_dont_fragment(int fd, bool v6, bool on)
{
    struct sim_file *f = udp_file(fd, "an option");

    if (f == NULL)
        return -EBADF;
    if (v6 != !udp_is_v4(&f->local))
        return -ENOPROTOOPT;
    f->udp->df = on;
    return 0;
}

bool ring_udp_error(int fd, struct ring_icmp *out)
{
    struct sim_file *f = udp_file(fd, "an error read");

    if (f == NULL || f->udp->errors_n == 0)
        return false;
    *out = f->udp->errors[0];
    f->udp->errors_n--;
    memmove(f->udp->errors, f->udp->errors + 1, f->udp->errors_n * sizeof(*out));
    if (f->udp->errors_n == 0)
        f->udp->err = 0; /* told this way, it is not told again */
    return true;
}
