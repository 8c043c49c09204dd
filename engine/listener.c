#include "engine/listener.h"

#include <errno.h>
#include <string.h>

#include "engine/shard.h"

static void listener_arm(struct shard *s, struct listener *l)
{
    ring_accept(s->ring, l->fd, l->ud);
    l->armed = true;
}

void listener_start(struct shard *s, struct listener *l, int fd, uint64_t ud, uint8_t timer_kind,
                    const char *clients)
{
    *l = (struct listener){ .fd = fd, .ud = ud, .clients = clients };
    l->timer.kind = timer_kind;
    listener_arm(s, l);
}

void listener_retry(struct shard *s, struct listener *l)
{
    if (!l->armed && !l->closing)
        listener_arm(s, l);
}

void listener_close(struct shard *s, struct listener *l)
{
    if (!l->closing && l->armed)
        ring_cancel_fd(s->ring, l->fd, ud_make(OP_BELL, 0, 0));
    l->closing = true;
    wheel_cancel(&s->wheel, &l->timer);
    if (l->armed || l->fd < 0)
        return;
    ring_close(s->ring, l->fd);
    l->fd = -1;
}

/* Once a minute at most: it is tried ten times a second. */
static void accept_say(struct shard *s, struct listener *l, int err)
{
    if (l->said_ms && s->now_ms < l->said_ms + ACCEPT_SAY_MS)
        return;
    l->said_ms = s->now_ms;
    log_text(s->log, LOG_WARN, "shard %u cannot accept %s, and goes on trying: %s%s", s->id,
             l->clients, strerror(err),
             err == EMFILE ? ": raise LimitNOFILE (systemd) or ulimit -n" : "");
}

int listener_on_cqe(struct shard *s, struct listener *l, const struct ring_cqe *cqe)
{
    if (!cqe->more)
        l->armed = false;
    if (l->closing) {
        if (cqe->res >= 0)
            ring_close(s->ring, cqe->res);
        if (!l->armed)
            listener_close(s, l);
        return -1;
    }
    if (cqe->res < 0 && cqe->res != -ECANCELED) {
        STAT_INC(&s->stats, accept_errors);
        accept_say(s, l, -cqe->res);
    }
    if (!l->armed) {
        if (cqe->res >= 0) /* the multishot merely ended */
            listener_arm(s, l);
        else /* EMFILE and its kin would come straight back */
            wheel_arm(&s->wheel, &l->timer, s->now_ms + ACCEPT_RETRY_MS);
    }
    return cqe->res >= 0 ? cqe->res : -1;
}
