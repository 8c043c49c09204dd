#include "engine/fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/clock.h"
#include "proto/peer_policy.h"

struct fetch {
    CURLM *multi;
    struct resolve *resolve;
    struct list active, waiting; /* jobs */
    struct {
        char name[ERRAND_NAME_MAX];
        struct errand_answer answer;
        uint64_t until_ms;
    } host; /* the last that was resolved: there is seldom another */
};

int fetch_new(struct resolve *r, struct fetch **out)
{
    struct fetch *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(f->multi = curl_multi_init())) {
        free(f);
        return -ENOMEM;
    }
    f->resolve = r;
    curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, 4L); /* kept alive while idle */
    curl_multi_setopt(f->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)FETCH_ACTIVE_MAX);
    *out = f;
    return 0;
}

static void job_free(struct fetch_job *j)
{
    if (j->easy) {
        curl_multi_remove_handle(j->f->multi, j->easy);
        curl_easy_cleanup(j->easy);
    }
    curl_slist_free_all(j->pinned);
    free(j->body);
    j->easy = j->pinned = j->body = NULL;
}

static struct fetch_job *job_of(struct link *k)
{
    return CONTAINER_OF(k, struct fetch_job, link);
}

void fetch_free(struct fetch *f)
{
    struct link *k;

    if (!f)
        return;
    while ((k = list_pop(&f->active)))
        job_free(job_of(k));
    curl_multi_cleanup(f->multi);
    free(f);
}

/* Of a job that is in no list any more. */
static void finish(struct fetch_job *j, int err, long status, const char *why)
{
    uint8_t *body = j->body;

    j->body = NULL;
    job_free(j);
    j->done(j, err, status, bytes_of(body, err ? 0 : j->n), why);
    free(body);
}

static void end(struct fetch_job *j, int err, long status, const char *why)
{
    list_remove(&j->f->active, &j->link);
    finish(j, err, status, why);
}

/* ---- whom we connect to ---------------------------------------------------------------------- */

static bool may_connect(const struct fetch_job *j, const uint8_t ip[16])
{
    static const struct peer_policy ours = { .relay_port_max = 0 };

    return j->allow_private || peer_judge_ip(&ours, ip) == PEER_OK;
}

/* The address that is really connected to: a name cannot have changed its mind behind this. */
static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct fetch_job *j = arg;
    uint8_t ip[16] = { [10] = 0xff, [11] = 0xff };
    struct sockaddr_storage at;

    if (purpose != CURLSOCKTYPE_IPCXN || to->addrlen > sizeof(at))
        return CURL_SOCKET_BAD;
    memcpy(&at, &to->addr, to->addrlen);
    if (to->family == AF_INET)
        memcpy(ip + 12, &((struct sockaddr_in *)(void *)&at)->sin_addr, 4);
    else if (to->family == AF_INET6)
        memcpy(ip, &((struct sockaddr_in6 *)(void *)&at)->sin6_addr, 16);
    else
        return CURL_SOCKET_BAD;
    if (!may_connect(j, ip)) {
        j->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- what comes ------------------------------------------------------------------------------ */

static size_t on_head(char *p, size_t one, size_t n, void *arg)
{
    struct fetch_job *j = arg;

    (void)p;
    (void)one;
    j->head_n += n;
    return j->head_n <= FETCH_HEAD_MAX ? n : 0;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
    struct fetch_job *j = arg;
    size_t cap = j->cap ? j->cap : 16384;

    (void)one;
    if (n > j->bytes_max - j->n) {
        j->too_long = true;
        return 0;
    }
    while (cap < j->n + n)
        cap *= 2;
    if (cap != j->cap) {
        uint8_t *more = realloc(j->body, cap);

        if (!more)
            return 0;
        j->body = more;
        j->cap = cap;
    }
    memcpy(j->body + j->n, p, n);
    j->n += n;
    return n;
}

/* ---- one job --------------------------------------------------------------------------------- */

static bool take_part(CURLU *u, CURLUPart part, unsigned flags, char *out, size_t cap)
{
    char *text = NULL;
    bool ok = curl_url_get(u, part, &text, flags) == CURLUE_OK && strlen(text) < cap;

    if (ok)
        memcpy(out, text, strlen(text) + 1);
    curl_free(text);
    return ok;
}

static bool read_url(struct fetch_job *j)
{
    char scheme[8], host[ERRAND_NAME_MAX];
    CURLU *u = curl_url();
    bool ok = u && curl_url_set(u, CURLUPART_URL, j->url, CURLU_DISALLOW_USER) == CURLUE_OK &&
              take_part(u, CURLUPART_SCHEME, 0, scheme, sizeof(scheme)) &&
              strcmp(scheme, "https") == 0 && take_part(u, CURLUPART_HOST, 0, host, sizeof(host)) &&
              take_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, j->port, sizeof(j->port));

    curl_url_cleanup(u);
    if (!ok)
        return false;
    size_t n = strlen(host);

    if (n > 2 && host[0] == '[' && host[n - 1] == ']')
        memcpy(j->host, host + 1, n - 2), j->host[n - 2] = '\0';
    else
        memcpy(j->host, host, n + 1);
    return true;
}

static bool is_literal(const char *host)
{
    uint8_t ip[16];

    return netaddr_parse_ip4(bytes_str(host), ip) || netaddr_parse_ip6(bytes_str(host), ip);
}

/* "+HOST:PORT:ADDRESS,…": libcurl asks nobody itself, and forgets it as it forgets its own. */
static int pin(struct fetch_job *j, const struct errand_answer *a)
{
    char line[ERRAND_NAME_MAX + 16 + ERRAND_ADDRS_MAX * (NETADDR_TEXT_MAX + 3)],
        ip[NETADDR_TEXT_MAX];
    int n = snprintf(line, sizeof(line), "+%s:%s:", j->host, j->port);
    unsigned kept = 0;

    for (size_t i = 0; i < a->n; i++) {
        if (!may_connect(j, a->addr[i].ip))
            continue;
        netaddr_ip_text(&a->addr[i], ip);
        n += snprintf(line + n, sizeof(line) - (size_t)n,
                      netaddr_is4(&a->addr[i]) ? "%s%s" : "%s[%s]", kept++ ? "," : "", ip);
    }
    if (kept == 0)
        return -EACCES;
    if (!is_literal(j->host) && !(j->pinned = curl_slist_append(NULL, line)))
        return -ENOMEM;
    return 0;
}

static bool prepare(struct fetch_job *j, uint64_t now_ms)
{
    CURL *c = curl_easy_init();
    bool ok = c != NULL;

    j->easy = c;
#define SET(option, value) (ok = ok && curl_easy_setopt(c, option, value) == CURLE_OK)
    SET(CURLOPT_URL, j->url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, ""); /* not the environment's either: it would connect for us, anywhere */
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (j->ca_file)
        SET(CURLOPT_CAINFO, j->ca_file);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)FETCH_CONNECT_MS);
    SET(CURLOPT_TIMEOUT_MS, (long)(j->deadline_ms - now_ms));
    SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)j->bytes_max);
    SET(CURLOPT_RESOLVE, (struct curl_slist *)j->pinned);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
    SET(CURLOPT_OPENSOCKETDATA, (void *)j);
    SET(CURLOPT_HEADERFUNCTION, on_head);
    SET(CURLOPT_HEADERDATA, (void *)j);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, (void *)j);
    SET(CURLOPT_PRIVATE, (void *)j);
#undef SET
    return ok && curl_multi_add_handle(j->f->multi, c) == CURLM_OK;
}

static void connect_to(struct fetch_job *j, int err, const struct errand_answer *a)
{
    uint64_t now_ms = clock_mono_ms();

    if (!err)
        err = pin(j, a);
    if (err)
        end(j, err, 0,
            err == -EACCES ? "its name leads to private addresses" : "its name does not resolve");
    else if (now_ms >= j->deadline_ms)
        end(j, -ETIMEDOUT, 0, "no answer in time");
    else if (!prepare(j, now_ms))
        end(j, -ENOMEM, 0, "libcurl refuses");
}

static void on_addresses(void *arg, int err, const struct errand_answer *a)
{
    struct fetch_job *j = arg;
    struct fetch *f = j->f;

    if (!err) {
        memcpy(f->host.name, j->host, sizeof(j->host));
        f->host.answer = *a;
        f->host.until_ms = clock_mono_ms() + FETCH_HOST_MS;
    }
    connect_to(j, err, a);
}

static void begin(struct fetch_job *j, uint64_t now_ms)
{
    struct fetch *f = j->f;

    list_append(&f->active, &j->link);
    if (!read_url(j)) {
        end(j, -EINVAL, 0, "that is no https URL");
    } else if (now_ms < f->host.until_ms && strcmp(f->host.name, j->host) == 0) {
        const struct errand_answer a = f->host.answer;

        connect_to(j, 0, &a);
    } else {
        resolve_ask(f->resolve, j->host, now_ms, j->deadline_ms, on_addresses, j);
    }
}

void fetch_get(struct fetch *f, struct fetch_job *j, uint64_t now_ms)
{
    j->f = f;
    j->easy = j->pinned = j->body = NULL;
    j->n = j->cap = j->head_n = 0;
    j->refused = j->too_long = false;
    j->link = (struct link){ .prev = NULL };
    if (f->active.count < FETCH_ACTIVE_MAX && f->waiting.count == 0)
        begin(j, now_ms);
    else if (f->waiting.count < FETCH_WAITING_MAX)
        list_append(&f->waiting, &j->link);
    else
        finish(j, -EAGAIN, 0, "too many are being asked already");
}

static void on_result(struct fetch_job *j, CURLcode code)
{
    long status = 0;

    if (code == CURLE_OK) {
        curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &status);
        end(j, 0, status, "");
    } else if (j->too_long || code == CURLE_FILESIZE_EXCEEDED) {
        end(j, -EFBIG, 0, "its answer is too long");
    } else if (j->refused) {
        end(j, -EACCES, 0, "it has a private address");
    } else {
        end(j, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -EIO, 0, curl_easy_strerror(code));
    }
}

static void late(struct fetch *f, uint64_t now_ms)
{
    for (struct link *k = f->waiting.first, *next; k; k = next) {
        next = k->next;
        if (job_of(k)->deadline_ms > now_ms)
            continue;
        list_remove(&f->waiting, k);
        finish(job_of(k), -ETIMEDOUT, 0, "no turn in time");
    }
}

uint64_t fetch_deadline_ms(const struct fetch *f)
{
    uint64_t at = UINT64_MAX;

    for (const struct link *k = f->waiting.first; k; k = k->next)
        at = min_u64(at, CONTAINER_OF(k, const struct fetch_job, link)->deadline_ms);
    return at;
}

void fetch_turn(struct fetch *f, uint64_t now_ms)
{
    int running, left;
    CURLMsg *m;

    late(f, now_ms);

    curl_multi_perform(f->multi, &running);
    while ((m = curl_multi_info_read(f->multi, &left))) {
        struct fetch_job *j = NULL;
        CURLcode code = m->data.result;

        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&j);
        on_result(j, code);
    }
    while (f->active.count < FETCH_ACTIVE_MAX && f->waiting.count > 0)
        begin(job_of(list_pop(&f->waiting)), now_ms);
}

void fetch_wait(struct fetch *f, struct pollfd *fds, unsigned n, int timeout_ms)
{
    struct curl_waitfd w[RESOLVE_FDS_MAX];
    long own = -1;

    ASSERT(n <= RESOLVE_FDS_MAX);
    for (unsigned i = 0; i < n; i++)
        w[i] =
            (struct curl_waitfd){ .fd = fds[i].fd,
                                  .events =
                                      (short)((fds[i].events & POLLIN ? CURL_WAIT_POLLIN : 0) |
                                              (fds[i].events & POLLOUT ? CURL_WAIT_POLLOUT : 0)) };
    curl_multi_timeout(f->multi, &own);
    if (own >= 0 && own < timeout_ms)
        timeout_ms = (int)own;
    curl_multi_poll(f->multi, w, n, timeout_ms, NULL);
    for (unsigned i = 0; i < n; i++)
        fds[i].revents = w[i].revents;
}

void fetch_wake(struct fetch *f)
{
    curl_multi_wakeup(f->multi);
}
