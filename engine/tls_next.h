/* engine/tls_next.h: a certificate on its way to the one thread that begins handshakes with it: the
 * next one is put here, and taken when a handshake begins. What is put is a reference and goes from
 * hand to hand: however slow a thread is, what it holds nobody else can drop. */
#ifndef SLUICE_ENGINE_TLS_NEXT_H
#define SLUICE_ENGINE_TLS_NEXT_H

#include <stdatomic.h>

#include "engine/tls.h"

struct tls_next {
    _Atomic(struct tls_server *) server; /* NULL: no news */
};

/* Any thread. Keeps s, which may be NULL; one that nobody took is dropped. */
static inline void tls_next_put(struct tls_next *n, struct tls_server *s)
{
    tls_server_drop(
        atomic_exchange_explicit(&n->server, s ? tls_server_keep(s) : NULL, memory_order_acq_rel));
}

/* The thread that it is for: what it has been using, or the next one instead. */
static inline struct tls_server *tls_next_take(struct tls_next *n, struct tls_server **mine)
{
    struct tls_server *fresh = NULL;

    if (atomic_load_explicit(&n->server, memory_order_relaxed))
        fresh = atomic_exchange_explicit(&n->server, NULL, memory_order_acq_rel);
    if (fresh) {
        tls_server_drop(*mine);
        *mine = fresh;
    }
    return *mine;
}

#endif
