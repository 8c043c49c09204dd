/* What the shards share of the DIG door, and the hashes by which registrants are found. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/clock.h"
#include "engine/dig_int.h"
#include "engine/mem.h"
#include "engine/rng.h"
#include "proto/crypto.h"

enum { SHARED_PART = 4 /* of the memory for slow readers: lists, presence, broadcasts, pages */ };

static enum tls_mode tls_mode(const struct config *cfg)
{
    switch (cfg->dig_tls_client) {
    case DIG_TLS_REQUIRED:
        return TLS_CLIENT_REQUIRED;
    case DIG_TLS_OPTIONAL:
        return TLS_CLIENT_OPTIONAL;
    default:
        return TLS_SERVER_ONLY;
    }
}

struct tls_server *dig_tls_load(const struct config *cfg, char *why, size_t cap)
{
    return tls_server_load(cfg->dig_tls_cert, cfg->dig_tls_key, tls_mode(cfg), NULL, why, cap);
}

void dig_host_set_tls(struct dig_host *h, struct tls_server *fresh)
{
    for (unsigned i = 0; i < ARRAY_LEN(h->gate) && h->gate[i]; i++)
        tls_next_put(&h->tls[i], fresh);
    tls_server_drop(fresh);
}

static int host_tables(struct dig_host *h, unsigned shards)
{
    uint8_t key[16];
    int err = 0;

    rng_bytes(h->key, sizeof(h->key));
    rng_bytes(key, sizeof(key));
    h->homes = homes_new(h->cfg->dig_conns_max, key);
    h->bans = dig_ban_new(h->cfg->dig_ban_threshold, h->cfg->dig_ban_window_ms, h->cfg->dig_ban_ms);
    if (!h->homes || !h->bans)
        return -ENOMEM;
    for (unsigned i = 0; i < shards && !err; i++)
        h->gate[i] = mem_reserve(h->cfg->dig_conns_max, sizeof(*h->gate[i]), &err);
    return err;
}

int dig_host_init(struct dig_host *h, const struct config *cfg, struct quota *q, unsigned shards,
                  char *why, size_t cap)
{
    int err;

    static_assert(ARRAY_LEN(h->gate) >= SHARDS_MAX, "one each");
    memset(h, 0, sizeof(*h));
    h->cfg = cfg;
    h->quota = q;
    h->shared.max = cfg->buffer_bytes_max / SHARED_PART;
    h->start_ms = clock_mono_ms();
    h->key_conns = quota_key(q, QUOTA_DIG_TOTAL, bytes_str("dig"));
    tls_init();
    h->tls_on = cfg->dig_tls_on;
    err = host_tables(h, shards);
    if (err)
        snprintf(why, cap, "not enough memory for the DIG door: lower --dig-max-conns");
    if (!err && cfg->dig_tls_on) {
        struct tls_server *server = dig_tls_load(cfg, why, cap);

        if (server)
            dig_host_set_tls(h, server);
        else
            err = -EINVAL;
    }
    if (err)
        dig_host_fini(h, shards);
    return err;
}

void dig_host_fini(struct dig_host *h, unsigned shards)
{
    for (unsigned i = 0; i < shards; i++)
        mem_release(h->gate[i], h->cfg->dig_conns_max, sizeof(*h->gate[i]));
    homes_free(h->homes);
    dig_ban_free(h->bans);
    for (size_t i = 0; i < ARRAY_LEN(h->tls); i++)
        tls_next_put(&h->tls[i], NULL);
    memset(h, 0, sizeof(*h));
}

bool dig_host_knows(void *host, const struct netaddr *client)
{
    const struct dig_host *h = host;
    struct dig_source source = dig_source_key(client->ip);

    return quota_count(h->quota,
                       quota_key(h->quota, QUOTA_DIG_IP, bytes_of(source.b, sizeof(source.b)))) > 0;
}

size_t dig_host_left(const struct dig_host *h)
{
    size_t n = homes_peers(h->homes) + atomic_load_explicit(&h->open, memory_order_relaxed);

    /* What was let into a queue, or went to a slot that another had by then, was given back. */
    for (unsigned i = 0; i < ARRAY_LEN(h->gate) && h->gate[i]; i++)
        for (uint32_t slot = 0; slot < h->cfg->dig_conns_max; slot++)
            n += atomic_load_explicit(&h->gate[i][slot].messages, memory_order_relaxed);
    return n;
}

/* ---- who is who --------------------------------------------------------------------------------
 * A registrant is found by a keyed hash of 128 bits over its network and its id, so that what a
 * message names on another network is nobody, without a second look. */

void dig_hash_network(const struct dig_host *h, struct bytes network, uint64_t out[2])
{
    for (int i = 0; i < 2; i++)
        out[i] = crypto_siphash(h->key[i], network);
}

struct peer_id dig_home_key(const struct dig_host *h, const uint64_t network[2], struct bytes id)
{
    struct peer_id key = { .n = 16 };
    uint8_t text[8 + DIG_NAME_MAX];

    ASSERT(id.n <= DIG_NAME_MAX);
    if (id.n)
        memcpy(text + 8, id.p, id.n);
    for (int i = 0; i < 2; i++) {
        memcpy(text, &network[i], 8);
        uint64_t hash = crypto_siphash(h->key[i], bytes_of(text, 8 + id.n));

        memcpy(key.b + 8 * i, &hash, 8);
    }
    return key;
}

uint64_t dig_hash_id(const struct dig_host *h, struct bytes id)
{
    uint64_t hash = crypto_siphash(h->key[0], id);

    return hash ? hash : 1;
}
