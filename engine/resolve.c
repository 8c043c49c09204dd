#include "engine/resolve.h"

#include <ares.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

struct question {
    struct resolve *r;
    bool used, told;
    uint64_t deadline_ms;
    void (*done)(void *arg, int err, const struct errand_answer *a);
    void *arg;
};

struct resolve {
    const char *servers;
    ares_channel channel; /* NULL: none now */
    uint64_t asked_ms;
    unsigned open; /* questions that c-ares has not answered */
    struct question question[ERRAND_JOBS_MAX];
};

int resolve_new(const char *servers, struct resolve **out)
{
    struct resolve *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        free(r);
        return -ENOMEM;
    }
    r->servers = servers;
    *out = r;
    return 0;
}

void resolve_free(struct resolve *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < ARRAY_LEN(r->question); i++)
        r->question[i].told = true;
    if (r->channel)
        ares_destroy(r->channel); /* calls back for each open question */
    ares_library_cleanup();
    free(r);
}

static bool channel_open(struct resolve *r, uint64_t now_ms)
{
    struct ares_options o = { .timeout = RESOLVE_TRY_MS, .tries = RESOLVE_TRIES };

    if (r->channel && r->open == 0 && now_ms - r->asked_ms >= RESOLVE_REREAD_MS) {
        ares_destroy(r->channel);
        r->channel = NULL;
    }
    r->asked_ms = now_ms;
    if (r->channel)
        return true;
    if (ares_init_options(&r->channel, &o, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES) != ARES_SUCCESS) {
        r->channel = NULL;
        return false;
    }
    if (r->servers && ares_set_servers_ports_csv(r->channel, r->servers) != ARES_SUCCESS) {
        ares_destroy(r->channel);
        r->channel = NULL;
    }
    return r->channel != NULL;
}

static void take_address(const struct ares_addrinfo_node *n, struct errand_answer *to)
{
    struct netaddr *a = &to->addr[to->n];

    *a = (struct netaddr){ .port = 0 };
    if (n->ai_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, n->ai_addr, sizeof(in));
        a->ip[10] = a->ip[11] = 0xff;
        memcpy(a->ip + 12, &in.sin_addr, 4);
        to->n++;
    } else if (n->ai_family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, n->ai_addr, sizeof(in6));
        memcpy(a->ip, &in6.sin6_addr, sizeof(a->ip));
        to->n++;
    }
}

static int err_of(int status, const struct errand_answer *a)
{
    switch (status) {
    case ARES_SUCCESS:
        return a->n ? 0 : -ENOENT;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_ENONAME:
        return -ENOENT;
    case ARES_ETIMEOUT:
        return -ETIMEDOUT;
    default:
        return -EAGAIN;
    }
}

static void tell(struct question *q, int err, const struct errand_answer *a)
{
    if (q->told)
        return;
    q->told = true;
    q->done(q->arg, err, a);
}

static void on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *all)
{
    struct question *q = arg;
    struct errand_answer a = { .n = 0 };

    (void)timeouts;
    for (const struct ares_addrinfo_node *n = all ? all->nodes : NULL; n && a.n < ERRAND_ADDRS_MAX;
         n = n->ai_next)
        take_address(n, &a);
    if (all)
        ares_freeaddrinfo(all);
    q->r->open--;
    tell(q, err_of(status, &a), &a);
    q->used = false;
}

/* An address as text is its own answer: for one of IPv4, c-ares asks a server what it is in IPv6.
 */
static bool take_literal(const char *name, struct errand_answer *a)
{
    struct netaddr *to = &a->addr[0];

    memset(a, 0, sizeof(*a));
    if (netaddr_parse_ip4(bytes_str(name), to->ip + 12))
        to->ip[10] = to->ip[11] = 0xff;
    else if (!netaddr_parse_ip6(bytes_str(name), to->ip))
        return false;
    a->n = 1;
    return true;
}

/* Letters, digits, hyphens, dots, and the underscores that some names have: no other character is
 * worth a server's time. */
static bool is_name(const char *name)
{
    for (const char *p = name; *p; p++) {
        char lower = (char)(*p | 0x20);

        if (!(lower >= 'a' && lower <= 'z') && !(*p >= '0' && *p <= '9') && *p != '-' &&
            *p != '.' && *p != '_')
            return false;
    }
    return name[0] != '\0';
}

void resolve_ask(struct resolve *r, const char *name, uint64_t now_ms, uint64_t deadline_ms,
                 void (*done)(void *arg, int err, const struct errand_answer *a), void *arg)
{
    const struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    static const struct errand_answer nothing;
    struct errand_answer literal;
    struct question *q = r->question, *end = q + ARRAY_LEN(r->question);

    if (take_literal(name, &literal)) {
        done(arg, 0, &literal);
        return;
    }
    if (!is_name(name)) {
        done(arg, -ENOENT, &nothing);
        return;
    }
    while (q < end && q->used)
        q++;
    if (q == end || !channel_open(r, now_ms)) {
        done(arg, -EAGAIN, &nothing);
        return;
    }
    *q = (struct question){
        .r = r, .used = true, .deadline_ms = deadline_ms, .done = done, .arg = arg
    };
    r->open++;
    ares_getaddrinfo(r->channel, name, NULL, &hints, on_addrinfo, q);
}

unsigned resolve_fds(struct resolve *r, struct pollfd fds[RESOLVE_FDS_MAX])
{
    ares_socket_t s[ARES_GETSOCK_MAXNUM];
    unsigned n = 0;
    unsigned wanted = r->channel ? (unsigned)ares_getsock(r->channel, s, ARES_GETSOCK_MAXNUM) : 0;

    static_assert(ARES_GETSOCK_MAXNUM <= RESOLVE_FDS_MAX, "all fit");
    for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
        short events = 0;

        /* As ARES_GETSOCK_READABLE and _WRITABLE have it, which shift a signed 1 by 31. */
        if ((unsigned)wanted >> i & 1)
            events |= POLLIN;
        if ((unsigned)wanted >> (i + ARES_GETSOCK_MAXNUM) & 1)
            events |= POLLOUT;
        if (events)
            fds[n++] = (struct pollfd){ .fd = s[i], .events = events };
    }
    return n;
}

uint64_t resolve_deadline_ms(struct resolve *r, uint64_t now_ms)
{
    uint64_t at = UINT64_MAX;
    struct timeval tv;

    for (size_t i = 0; i < ARRAY_LEN(r->question); i++)
        if (r->question[i].used && !r->question[i].told)
            at = min_u64(at, r->question[i].deadline_ms);
    if (r->open > 0 && ares_timeout(r->channel, NULL, &tv))
        at = min_u64(at, now_ms + (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1);
    return at;
}

void resolve_turn(struct resolve *r, uint64_t now_ms, const struct pollfd *fds, unsigned n)
{
    static const struct errand_answer nothing;

    for (unsigned i = 0; i < n && r->channel; i++)
        if (fds[i].revents)
            ares_process_fd(r->channel, fds[i].events & POLLIN ? fds[i].fd : ARES_SOCKET_BAD,
                            fds[i].events & POLLOUT ? fds[i].fd : ARES_SOCKET_BAD);
    if (r->open > 0)
        ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* its timers */
    for (size_t i = 0; i < ARRAY_LEN(r->question); i++) {
        struct question *q = &r->question[i];

        if (q->used && q->deadline_ms <= now_ms)
            tell(q, -ETIMEDOUT, &nothing);
    }
}
