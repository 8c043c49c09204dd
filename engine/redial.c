#include "engine/redial.h"

static uint64_t pause_ms(unsigned failures, uint64_t random)
{
    uint64_t ms = REDIAL_FIRST_MS;

    ASSERT(failures > 0);
    for (unsigned i = 1; i < failures && ms < REDIAL_MAX_MS; i++)
        ms *= 2;
    if (ms > REDIAL_MAX_MS)
        ms = REDIAL_MAX_MS;
    return ms - random % (ms / 4 + 1);
}

void redial_init(struct redial *r, uint64_t now_ms)
{
    *r = (struct redial){ .state = REDIAL_WAIT, .at_ms = now_ms };
}

static enum redial_do look_around(struct redial *r, uint64_t now_ms, bool present, uint64_t random)
{
    if (present) {
        r->at_ms = now_ms + REDIAL_LOOK_MS;
        if (r->state == REDIAL_PRESENT)
            return REDIAL_NOTHING;
        r->state = REDIAL_PRESENT;
        r->since_ms = now_ms;
        return REDIAL_HERE;
    }
    if (r->state == REDIAL_PRESENT) {
        redial_down(r, now_ms, random);
        return REDIAL_LOST;
    }
    r->state = REDIAL_TRYING;
    r->at_ms = now_ms + REDIAL_DEADLINE_MS;
    return REDIAL_DIAL;
}

enum redial_do redial_tick(struct redial *r, uint64_t now_ms, bool present, uint64_t random)
{
    if (now_ms < r->at_ms)
        return REDIAL_NOTHING;
    switch (r->state) {
    case REDIAL_WAIT:
    case REDIAL_PRESENT:
        return look_around(r, now_ms, present, random);
    case REDIAL_TRYING:
        r->at_ms = UINT64_MAX; /* redial_down names the next */
        return REDIAL_EXPIRED;
    case REDIAL_UP:
        r->at_ms = now_ms + REDIAL_LOOK_MS;
        return REDIAL_LOOK;
    case REDIAL_OVER:
        break;
    }
    return REDIAL_NOTHING;
}

void redial_up(struct redial *r, uint64_t now_ms)
{
    ASSERT(r->state == REDIAL_TRYING);
    r->state = REDIAL_UP;
    r->since_ms = now_ms;
    r->at_ms = now_ms + REDIAL_LOOK_MS;
}

void redial_down(struct redial *r, uint64_t now_ms, uint64_t random)
{
    if (r->state == REDIAL_OVER)
        return;
    ASSERT(r->state != REDIAL_WAIT);
    if (r->state != REDIAL_TRYING && now_ms - r->since_ms >= REDIAL_LIVED_MS)
        r->failures = 0;
    if (r->failures < UINT16_MAX)
        r->failures++;
    r->state = REDIAL_WAIT;
    r->at_ms = now_ms + pause_ms(r->failures, random);
}

void redial_yield(struct redial *r, uint64_t now_ms)
{
    if (r->state == REDIAL_OVER)
        return;
    r->state = REDIAL_PRESENT;
    r->since_ms = now_ms;
    r->at_ms = now_ms + REDIAL_LOOK_MS;
}

void redial_stop(struct redial *r)
{
    r->state = REDIAL_OVER;
    r->at_ms = UINT64_MAX;
}

static bool put_name(struct bytes text, struct dial_target *out)
{
    if (text.n == 0 || text.n >= sizeof(out->name) || memchr(text.p, '\0', text.n))
        return false;
    memcpy(out->name, text.p, text.n);
    return true;
}

static bool put_host(const struct maddr_part *part, struct dial_target *out)
{
    switch (part->code) {
    case MADDR_IP4:
        out->at.ip[10] = out->at.ip[11] = 0xff;
        memcpy(out->at.ip + 12, part->value.p, 4);
        return true;
    case MADDR_IP6:
        memcpy(out->at.ip, part->value.p, 16);
        return true;
    case MADDR_DNS:
        out->families = DIAL_IP4 | DIAL_IP6;
        return put_name(part->value, out);
    case MADDR_DNS4:
        out->families = DIAL_IP4;
        return put_name(part->value, out);
    case MADDR_DNS6:
        out->families = DIAL_IP6;
        return put_name(part->value, out);
    default:
        return false;
    }
}

bool dial_parse(struct bytes maddr, struct dial_target *out)
{
    struct cur rest = cur_of(maddr);
    struct maddr_part part;
    struct dial_target t = { .families = 0 };

    if (!maddr_next(&rest, &part) || !put_host(&part, &t))
        return false;
    if (!maddr_next(&rest, &part) || part.code != MADDR_TCP)
        return false;
    t.at.port = (uint16_t)(part.value.p[0] << 8 | part.value.p[1]);
    if (t.at.port == 0)
        return false;
    if (maddr_next(&rest, &part) &&
        (part.code != MADDR_P2P || !peer_id_decode(part.value, &t.want) || rest.n != 0))
        return false;
    if (rest.bad || rest.n != 0)
        return false;
    *out = t;
    return true;
}
