#include "engine/dial.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "engine/rng.h"
#include "engine/shard.h"

/* For lines of the log: who it is, or, as long as that is not known, where. */
static const char *name_of(const struct dial *dl, char text[MADDR_TEXT_MAX])
{
    const struct config *cfg = dl->shard->d->cfg;

    if (dl->peer.n)
        peer_id_text(&dl->peer, text);
    else if (!maddr_text(maddr_bytes(&cfg->peer_relay[dl->idx]), text, MADDR_TEXT_MAX))
        snprintf(text, MADDR_TEXT_MAX, "number %u", dl->idx + 1u);
    return text;
}

static void say_up(struct dial *dl, const char *how)
{
    char text[MADDR_TEXT_MAX];
    const struct dial_host *h = dl->shard->d->dial;

    atomic_store_explicit(&dl->connected, true, memory_order_relaxed);
    log_text(dl->shard->log, LOG_INFO, "peer relay connected: %.100s%s (%u of %u)",
             name_of(dl, text), how, dial_connected(h), h->n);
}

static void say_lost(struct dial *dl, const char *why)
{
    char text[MADDR_TEXT_MAX];

    atomic_store_explicit(&dl->connected, false, memory_order_relaxed);
    log_text(dl->shard->log, LOG_WARN, "peer relay lost: %.100s: %s", name_of(dl, text), why);
}

unsigned dial_connected(const struct dial_host *h)
{
    unsigned n = 0;

    for (unsigned i = 0; i < h->n; i++)
        n += atomic_load_explicit(&h->dial[i].connected, memory_order_relaxed);
    return n;
}

bool dial_names(const struct daemon *d, const struct peer_id *id)
{
    for (unsigned i = 0; d->dial && i < d->dial->n; i++)
        if (peer_id_eq(&d->dial->dial[i].to.want, id)) /* const since the start */
            return true;
    return false;
}

static void arm(struct dial *dl)
{
    struct shard *s = dl->shard;

    if (dl->re.at_ms == UINT64_MAX)
        wheel_cancel(&s->wheel, &dl->timer);
    else
        wheel_arm(&s->wheel, &dl->timer, dl->re.at_ms);
}

/* Connections of that peer that are not this dial's own. */
static bool is_here(const struct dial *dl)
{
    const struct quota *q = dl->shard->d->quota;
    uint32_t ours = dl->conn && dl->conn->counted_peer ? 1 : 0;

    return dl->peer.n && quota_count(q, quota_key(q, QUOTA_CONN_PEER,
                                                  bytes_of(&dl->peer, sizeof(dl->peer)))) > ours;
}

/* The attempt came to nothing. */
static void failed(struct dial *dl, const char *why)
{
    char text[MADDR_TEXT_MAX];
    struct shard *s = dl->shard;

    dl->why = why;
    dl->turns++; /* next time another of its addresses */
    STAT_INC(&s->stats, dials_failed);
    redial_down(&dl->re, s->now_ms, rng_u64());
    if (dl->re.state == REDIAL_WAIT)
        log_text(s->log, LOG_WARN, "peer relay %.90s: %s; again in %llu s", name_of(dl, text), why,
                 (unsigned long long)(dl->re.at_ms - s->now_ms + 999) / 1000);
    arm(dl);
}

/* ---- one attempt ------------------------------------------------------------------------------
 */

static uint64_t dial_ud(const struct dial *dl, unsigned flag)
{
    return ud_make(OP_DIAL, dl->gen, dl->idx | flag);
}

static void poll_out(struct dial *dl)
{
    dl->ops++;
    ring_poll_once(dl->shard->ring, dl->fd, POLLOUT, dial_ud(dl, 0));
}

static void connect_to(struct dial *dl, const struct netaddr *at)
{
    dl->fd = ring_connect_tcp(NULL, at);
    if (dl->fd < 0) {
        failed(dl, dl->fd == -EMFILE || dl->fd == -ENFILE ? "no descriptor left" : "no way there");
        dl->fd = -1;
        return;
    }
    poll_out(dl);
}

static void begin(struct dial *dl)
{
    const struct dial_host *h = dl->shard->d->dial;
    struct errand_name *ask = &dl->ask;

    STAT_INC(&dl->shard->stats, dials);
    dl->gen++;
    if (dl->ops || dl->fd >= 0) { /* the last attempt's end has not come through */
        failed(dl, "the last attempt is still ending");
        return;
    }
    dl->cancelled = false;
    if (!dl->to.name[0]) {
        connect_to(dl, &dl->to.at);
        return;
    }
    if (dl->asking || !h->resolve) {
        failed(dl, dl->asking ? "the resolver still thinks" : "names are not resolved here");
        return;
    }
    dl->asking = true;
    dl->asked = dl->gen;
    *ask = (struct errand_name){ .kind_of_mail = MAIL_DIAL,
                                 .to = &dl->shard->mbox,
                                 .wake = dl->shard->ring,
                                 .deadline_ms = REDIAL_DEADLINE_MS / 2 };
    static_assert(sizeof(ask->name) == sizeof(dl->to.name), "a name fits");
    memcpy(ask->name, dl->to.name, sizeof(ask->name));
    h->resolve(h->errand, ask);
}

void dial_on_mail(struct mnode *n)
{
    struct errand_name *ask = errand_name_of(n);
    struct dial *dl = CONTAINER_OF(ask, struct dial, ask);
    struct netaddr fit[ERRAND_ADDRS_MAX];
    unsigned fits = 0;

    dl->asking = false;
    if (dl->asked != dl->gen || dl->re.state != REDIAL_TRYING)
        return;
    for (size_t i = 0; !ask->err && i < ask->answer.n; i++)
        if (dl->to.families & (netaddr_is4(&ask->answer.addr[i]) ? DIAL_IP4 : DIAL_IP6))
            fit[fits++] = ask->answer.addr[i];
    if (!fits) {
        failed(dl, ask->err == -ETIMEDOUT ? "its name is not resolved in time"
                   : ask->err == -EAGAIN  ? "the resolver failed"
                                          : "its name has no address");
        return;
    }
    struct netaddr at = fit[dl->turns % fits];

    at.port = dl->to.at.port;
    connect_to(dl, &at);
}

/* Nothing may be in flight on a socket that is closed: its poll ends first. */
static void cancel(struct dial *dl)
{
    if (dl->fd < 0 || dl->cancelled)
        return;
    dl->cancelled = true;
    dl->ops++;
    ring_cancel_ud(dl->shard->ring, dial_ud(dl, 0), dial_ud(dl, DIAL_CANCEL_UD));
}

static void fd_close(struct dial *dl)
{
    ring_close(dl->shard->ring, dl->fd);
    dl->fd = -1;
}

void dial_on_cqe(struct shard *s, const struct ring_cqe *cqe)
{
    unsigned idx = ud_idx(cqe->ud) & (DIAL_CANCEL_UD - 1);

    ASSERT(s->d->dial && idx < s->d->dial->n);
    struct dial *dl = &s->d->dial->dial[idx];

    ASSERT(dl->shard == s && dl->ops > 0);
    dl->ops--;
    if (dl->cancelled) {
        if (!dl->ops)
            fd_close(dl);
        return;
    }
    int err = ring_connect_result(dl->fd);

    if (err == -EINPROGRESS) {
        poll_out(dl);
    } else if (err) {
        fd_close(dl);
        failed(dl, err == -ECONNREFUSED                          ? "connection refused"
                   : err == -ETIMEDOUT                           ? "no answer"
                   : err == -EHOSTUNREACH || err == -ENETUNREACH ? "no way there"
                                                                 : "cannot connect");
    } else {
        int fd = dl->fd;

        dl->fd = -1;
        conn_dialed(s, fd, dl, dl->re.at_ms);
    }
}

/* ---- its connection ---------------------------------------------------------------------------
 */

const char *dial_judge(struct dial *dl, const struct peer_id *who)
{
    char text[MADDR_TEXT_MAX];
    struct shard *s = dl->shard;

    if (peer_id_eq(who, &s->d->me.id)) { /* an address of our own: no loop, and never again */
        redial_stop(&dl->re);
        log_text(s->log, LOG_INFO, "peer relay %.100s is this relay itself: left out",
                 name_of(dl, text));
        return "ourselves";
    }
    if (dl->to.want.n && !peer_id_eq(who, &dl->to.want))
        return "somebody else answers there";
    dl->peer = *who;
    dl->yields = is_here(dl); /* it came while we called */
    return dl->yields ? "connected already" : NULL;
}

void dial_up(struct dial *dl)
{
    redial_up(&dl->re, dl->shard->now_ms);
    arm(dl);
    say_up(dl, "");
}

void dial_closed(struct dial *dl, const char *why)
{
    struct shard *s = dl->shard;
    bool was_up = atomic_load_explicit(&dl->connected, memory_order_relaxed);

    dl->conn = NULL;
    if (dl->yields && dl->re.state != REDIAL_OVER) {
        dl->yields = false;
        redial_yield(&dl->re, s->now_ms);
        if (!was_up)
            say_up(dl, " by itself");
        arm(dl);
    } else if (dl->re.state == REDIAL_OVER) {
        atomic_store_explicit(&dl->connected, false, memory_order_relaxed);
        arm(dl);
    } else if (was_up) {
        redial_down(&dl->re, s->now_ms, rng_u64());
        say_lost(dl, why);
        arm(dl);
    } else {
        failed(dl, why);
    }
}

/* Both dialled at once, and both connections are up: one goes, the same for both sides. */
static void look(struct dial *dl)
{
    if (!dl->conn || !is_here(dl) || memcmp(&dl->shard->d->me.id, &dl->peer, sizeof(dl->peer)) < 0)
        return;
    dl->yields = true;
    conn_farewell(dl->conn, YAMUX_NORMAL, "the peer dialled us, too");
}

void dial_on_timer(struct dial *dl)
{
    struct shard *s = dl->shard;

    switch (redial_tick(&dl->re, s->now_ms, is_here(dl), rng_u64())) {
    case REDIAL_DIAL:
        arm(dl);
        begin(dl);
        return;
    case REDIAL_EXPIRED:
        if (dl->conn) {
            conn_close(dl->conn, "no handshake in time"); /* which tells dial_closed */
            return;
        }
        cancel(dl);
        failed(dl, dl->asking ? "its name is not resolved in time" : "no answer");
        return;
    case REDIAL_HERE:
        say_up(dl, " by itself");
        break;
    case REDIAL_LOST:
        say_lost(dl, "its connection ended");
        break;
    case REDIAL_LOOK:
        look(dl);
        break;
    case REDIAL_NOTHING:
        break;
    }
    arm(dl);
}

/* ---- start and end ---------------------------------------------------------------------------
 */

void dial_init(struct dial_host *h, struct daemon *d, struct logq *log)
{
    const struct config *cfg = d->cfg;
    char text[MADDR_TEXT_MAX];

    memset(h, 0, sizeof(*h));
    for (unsigned i = 0; i < cfg->peer_relays_n; i++) {
        struct dial *dl = &h->dial[i];
        bool ok = dial_parse(maddr_bytes(&cfg->peer_relay[i]), &dl->to);

        ASSERT(ok); /* config_call.c took it */
        dl->idx = (uint8_t)i;
        dl->fd = -1;
        dl->timer.kind = TIMER_DIAL;
        dl->peer = dl->to.want;
        if (peer_id_eq(&dl->peer, &d->me.id)) {
            redial_stop(&dl->re);
            peer_id_text(&dl->peer, text);
            log_text(log, LOG_INFO, "peer relay %s is this relay itself: left out", text);
        }
    }
    h->n = cfg->peer_relays_n;
    d->dial = h;
    if (h->n || cfg->preset != PRESET_DUSK)
        return;
    log_text(log, LOG_WARN, "no peer relays configured (DUSK_PEER_RELAYS is not set)");
    log_text(log, LOG_WARN, "running standalone: registrations are not told to other relays");
}

static struct dial *dial_of(const struct shard *s, unsigned i)
{
    struct dial_host *h = s->d->dial;

    return h && i < h->n && i % s->d->shards_n == s->id ? &h->dial[i] : NULL;
}

void dial_start(struct shard *s)
{
    for (unsigned i = 0; i < CONFIG_PEER_RELAYS_MAX; i++) {
        struct dial *dl = dial_of(s, i);

        if (!dl)
            continue;
        dl->shard = s;
        if (dl->re.state != REDIAL_OVER)
            redial_init(&dl->re, s->now_ms);
        arm(dl);
    }
}

void dial_drain(struct shard *s)
{
    for (unsigned i = 0; i < CONFIG_PEER_RELAYS_MAX; i++) {
        struct dial *dl = dial_of(s, i);

        if (!dl)
            continue;
        redial_stop(&dl->re);
        arm(dl);
        cancel(dl);
        if (dl->conn && dl->conn->state < CONN_MUX)
            conn_close(dl->conn, "draining");
    }
}

/* A question to the errand is not waited for: nobody reads the mailbox any more when its answer
 * comes, and the dial's memory is the process's. */
bool dial_ended(const struct shard *s)
{
    for (unsigned i = 0; i < CONFIG_PEER_RELAYS_MAX; i++) {
        const struct dial *dl = dial_of(s, i);

        if (dl && (dl->ops || dl->fd >= 0 || dl->conn))
            return false;
    }
    return true;
}
