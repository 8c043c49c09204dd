#include "tests/sim/sim_dig_crowd.h"

enum {
    QUIET_MS = 8000,      /* a probe's 5 s, and what is under way */
    BOOKS_MS = 150000,    /* two intervals of PEX with their jitter, and more */
    BACKLOG = 128 * 1024, /* a client that has so much to send says no more */
    DEAF_MS = 4000,       /* longer than who is held back waits; shorter than a probe */
    SWEPT_MS = 125000,    /* half-open connections are found by then */
};

static uint64_t below(struct sim_dig_crowd *w, uint64_t n)
{
    return sim_below(w->d.s->net, n);
}

static bool chance(struct sim_dig_crowd *w, unsigned pct)
{
    return sim_chance(w->d.s->net, pct);
}

void sim_dig_crowd_init(struct sim_dig_crowd *w, struct sim *s)
{
    sim_dig_init(&w->d, s);
    w->d.memory = w->memory;
    for (unsigned i = 0; i < w->clients; i++)
        (void)sim_dig_client(&w->d, i, i % 5 == 4 ? 1 : i % 7 == 6 ? 2 : 0);
}

void sim_dig_crowd_fini(struct sim_dig_crowd *w)
{
    sim_dig_fini(&w->d);
}

/* ---- acts ------------------------------------------------------------------------------------ */

static void come(struct sim_dig_crowd *w, struct sim_dig_client *c)
{
    struct sim_dig_link *l;

    l = sim_dig_connect(c, -1);
    if (!l->open)
        return;
    if (w->rude && chance(w, 15))
        l->sip = 50 + below(w, 400);
    w->d.did.slow += l->sip != 0;
    sim_dig_register(l, c->id, c->net);
    if (chance(w, 70)) /* without waiting for the ack */
        sim_dig_get_peers(l, SIM_DIG_NETS);
    if (chance(w, 20))
        sim_dig_ping(l);
}

static void come_anyhow(struct sim_dig_crowd *w, struct sim_dig_client *c)
{
    if (sim_now(w->d.s) < c->again_ms)
        return;
    if (chance(w, 10))
        c->net = (unsigned)below(w, SIM_DIG_NETS);
    if (chance(w, 15)) /* a name that may be somebody else's */
        c->id = (unsigned)below(w, 2 * w->clients);
    come(w, c);
}

static unsigned some_id(struct sim_dig_crowd *w, const struct sim_dig_link *l)
{
    const struct sim_dig_link *t = w->d.client[below(w, w->d.clients_n)].at;

    for (unsigned i = 0; i < 4 && (t == NULL || !t->acked || t->net != l->net); i++)
        t = w->d.client[below(w, w->d.clients_n)].at;
    return t != NULL && t->acked && chance(w, 95) ? t->id : (unsigned)below(w, SIM_DIG_IDS);
}

static size_t some_length(struct sim_dig_crowd *w)
{
    if (!chance(w, w->bursts ? 12 : 4))
        return 6 + below(w, 60);
    w->d.did.big++;
    return 6 + below(w, chance(w, 20) ? 20000 : 3000);
}

static void talk(struct sim_dig_crowd *w, struct sim_dig_link *l)
{
    unsigned to = some_id(w, l), n = chance(w, 10) ? 1 + (unsigned)below(w, 20) : 1;

    if (w->bursts && chance(w, 10))
        n = 20 + (unsigned)below(w, 60);
    while (n-- > 0 && l->open && l->out_to - l->out_from < BACKLOG)
        sim_dig_relay(l, chance(w, 80) ? to : some_id(w, l), some_length(w));
}

static void announce(struct sim_dig_crowd *w, struct sim_dig_link *l)
{
    uint64_t exclude = 0;

    for (unsigned n = (unsigned)below(w, 4); n-- > 0;)
        exclude |= UINT64_C(1) << some_id(w, l);
    sim_dig_broadcast(l, exclude, some_length(w));
}

static void rename_(struct sim_dig_crowd *w, struct sim_dig_link *l)
{
    unsigned id = l->id, net = l->net;

    if (chance(w, 40))
        id = w->clients + l->client->idx; /* its other name */
    if (chance(w, 40))
        net = (unsigned)below(w, SIM_DIG_NETS);
    sim_dig_register(l, id, net);
    l->client->net = net;
    l->client->id = id;
    if (chance(w, 50) && id == l->id && net == l->net)
        sim_dig_ping(l);
}

static void leave(struct sim_dig_crowd *w, struct sim_dig_link *l)
{
    struct sim_dig_client *c = l->client;

    sim_dig_bye(l, (enum sim_dig_bye)below(w, w->rude ? 5 : 4));
    c->again_ms = sim_now(w->d.s) + (chance(w, 50) ? 0 : below(w, 2000));
}

static void ask(struct sim_dig_crowd *w, struct sim_dig_link *l)
{
    switch (below(w, 7)) {
    case 0:
    case 1:
        sim_dig_get_peers(l, chance(w, 70) ? SIM_DIG_NETS : (unsigned)below(w, SIM_DIG_NETS));
        break;
    case 2:
        sim_dig_ping(l);
        break;
    case 3:
        sim_dig_ws_ping(l);
        break;
    case 4:
    case 5:
        if (!l->asked_pex)
            sim_dig_pex(l);
        break;
    default:
        sim_dig_garbage(l);
    }
}

static void rest(struct sim_dig_crowd *w, struct sim_dig_link *l)
{
    if (!w->rude || l->sip != 0)
        return;
    l->deaf_ms = sim_now(w->d.s) + below(w, DEAF_MS);
    w->d.did.deaf++;
}

static void act(struct sim_dig_crowd *w)
{
    struct sim_dig_client *c = &w->d.client[below(w, w->d.clients_n)];
    struct sim_dig_link *l = c->at;
    unsigned dice = (unsigned)below(w, 100);

    if (l == NULL)
        come_anyhow(w, c);
    else if (!sim_dig_stays(l) || l->want_n > SIM_DIG_WANTS / 2)
        return;
    else if (dice < 50)
        talk(w, l);
    else if (dice < 60)
        announce(w, l);
    else if (dice < 82)
        ask(w, l);
    else if (dice < 86)
        rename_(w, l);
    else if (dice < 94)
        leave(w, l);
    else
        rest(w, l);
}

/* ---- quiet ----------------------------------------------------------------------------------- */

/* The first of its names, or any, that nobody has. */
static unsigned free_id(struct sim_dig_crowd *w, unsigned id)
{
    for (unsigned i = 0; i < w->d.clients_n; i++)
        if (w->d.client[i].at != NULL &&
            (w->d.client[i].at->id == id || w->d.client[i].at->id_in == id)) {
            id = (id + w->clients) % SIM_DIG_IDS;
            i = 0;
        }
    return id;
}

/* Everybody who is not there comes back, so that what half-open connections hold is asked for. */
static void all_come(struct sim_dig_crowd *w, uint64_t until_ms)
{
    struct sim *s = w->d.s;

    while (sim_now(s) < until_ms && sim_why(s) == NULL) {
        for (unsigned i = 0; i < w->d.clients_n; i++) {
            struct sim_dig_client *c = &w->d.client[i];

            if (c->at != NULL || sim_now(s) < c->again_ms)
                continue;
            c->id = free_id(w, i);
            come(w, c);
            c->again_ms = sim_now(s) + (w->memory ? 10000 : 1000);
        }
        sim_net_alarm(s->net, sim_now(s) + 500);
        sim_step(s);
    }
}

/* Lists, and links for PEX, of those who have none. Where memory is short presence may be lost, and
 * everybody asks again. */
static void ask_all(struct sim_dig_crowd *w, bool books)
{
    for (unsigned i = 0; i < w->d.clients_n; i++) {
        struct sim_dig_link *l = w->d.client[i].at;

        if (!sim_dig_stays(l))
            continue;
        if (!l->has_view || w->memory)
            sim_dig_get_peers(l, SIM_DIG_NETS);
        if (books && !l->asked_pex && i % 2)
            sim_dig_pex(l);
    }
}

static void quiet(struct sim_dig_crowd *w, bool last)
{
    struct sim *s = w->d.s;
    uint64_t lost;

    sim_net_set_opts(s->net, w->fair);
    for (unsigned i = 0; i < w->d.clients_n; i++)
        if (w->d.client[i].at != NULL)
            w->d.client[i].at->deaf_ms = 0;
    if (last)
        all_come(w, sim_now(s) + (w->rude ? SWEPT_MS : QUIET_MS));
    sim_run_ms(s, QUIET_MS);
    if (last) {
        ask_all(w, true);
        sim_run_ms(s, BOOKS_MS);
        if (w->memory)
            ask_all(w, false);
    }
    w->d.still = true;
    sim_run_ms(s, 1000); /* what was asked last is answered */
    w->d.still = false;
    lost = sim_dig_lost(s);
    w->missing += sim_dig_check_said(&w->d, lost - w->lost);
    w->lost = lost;
    if (last)
        sim_dig_check_quiet(&w->d, true);
}

void sim_dig_crowd_run(struct sim_dig_crowd *w)
{
    struct sim *s = w->d.s;
    uint64_t next_ms = sim_now(s);
    unsigned rounds = w->rounds ? w->rounds : 1;

    for (unsigned r = 0; r < rounds && sim_why(s) == NULL; r++) {
        for (unsigned done = 0; done < w->acts / rounds && sim_why(s) == NULL;) {
            while (done < w->acts / rounds && sim_now(s) >= next_ms) {
                act(w);
                next_ms += chance(w, w->long_gap_pct) ? 1000 * (1 + below(w, 60))
                                                      : below(w, w->gap_ms + 1);
                done++;
            }
            sim_net_alarm(s->net, next_ms);
            sim_step(s);
        }
        if (sim_why(s) == NULL)
            quiet(w, r + 1 == rounds);
        next_ms = sim_now(s);
    }
}
