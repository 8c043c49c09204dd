#include "engine/turn_say.h"

#include "engine/log.h"
#include "engine/printable.h"
#include "engine/shard.h"
#include "engine/turn_shard.h"

static_assert(sizeof(((struct turn_client *)0)->user) == TURN_USER_MAX, "one size of names");

void turn_say_user(struct bytes name, char out[TURN_USER_MAX])
{
    printable(name, out, TURN_USER_MAX);
}

static struct event_rec event_of(const struct turn_client *c, enum event kind)
{
    const struct turn_alloc *a = c->alloc;
    struct event_rec e = { .kind = (uint8_t)kind, .level = LOG_INFO, .has_addr = true };

    turn_say_user(bytes_str(c->user), e.text);
    e.addr = a->tuple.client;
    for (int f = 0; f < TURN_FAMILIES; f++)
        if (a->had[f])
            e.relayed[e.relayed_n++] = a->half[f].relayed;
    return e;
}
static_assert(ARRAY_LEN(((struct event_rec *)0)->relayed) >= TURN_FAMILIES, "a dual one fits");

void turn_say_opened(struct turn_shard *ts, const struct turn_client *c)
{
    struct event_rec e = event_of(c, EV_TURN_OPENED);
    uint64_t until = 0;

    for (int f = 0; f < TURN_FAMILIES; f++)
        if (c->alloc->half[f].live && c->alloc->half[f].expires_ms > until)
            until = c->alloc->half[f].expires_ms;
    e.a = until > ts->s->now_ms ? (until - ts->s->now_ms + 999) / 1000 : 0;
    log_event(ts->s->log, &e);
}

void turn_say_closed(struct turn_shard *ts, const struct turn_client *c, const char *why)
{
    struct event_rec e = event_of(c, EV_TURN_CLOSED);

    e.a = c->datagrams[0];
    e.b = c->bytes[0];
    e.c = c->datagrams[1];
    e.d = c->bytes[1];
    e.e = ts->s->now_ms - c->born_ms;
    e.reason = why;
    log_event(ts->s->log, &e);
}

void turn_say_limited(struct turn_shard *ts, const struct netaddr *source)
{
    struct event_rec e = { .kind = EV_TURN_LIMITED, .level = LOG_WARN, .has_addr = true };
    struct quota *q = ts->host->quota;
    bool v4 = netaddr_is4(source);
    size_t kept = v4 ? 15 : 6; /* of the 16: an IPv4 /24 is a /120 there */

    memcpy(e.addr.ip, source->ip, kept);
    e.a = v4 ? 24 : 48;
    if (!rate_allow(q, quota_key(q, RATE_TURN_SAY, bytes_of(e.addr.ip, 16)), ts->s->now_ms, 1,
                    TURN_SAY_SOURCE_MS) ||
        !rate_allow(q, quota_key(q, RATE_TURN_SAY_ALL, bytes_of(NULL, 0)), ts->s->now_ms,
                    TURN_SAY_BURST, TURN_SAY_REFILL_MS))
        return;
    log_event(ts->s->log, &e);
}
