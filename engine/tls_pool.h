/* engine/tls_pool.h: the memory of one shard's TLS connections. wolfSSL asks its allocator for
 * everything; here that is a region reserved once and touched as it is first used, in which blocks
 * are found in constant time (two levels of free lists by size, neighbours joined), so that a loop
 * with TLS still calls no allocator that others share. What wolfSSL asks for outside of a
 * connection (a certificate at start, RSA in proto/crypto) comes from malloc as ever. There are two
 * bounds: of the pool, and of one connection (struct tls_account); past either wolfSSL is told that
 * there is no memory, and that connection ends.
 * Units:   bytes, a block's head and rounding included.
 * Threads: one at a time. */
#ifndef SLUICE_ENGINE_TLS_POOL_H
#define SLUICE_ENGINE_TLS_POOL_H

#include "proto/base.h"

enum { TLS_SCRATCH_BYTES = 16384 };

struct tls_pool;

/* What one connection may have and has. */
struct tls_account {
    size_t used, peak, max;
    uint32_t first; /* of its blocks; the pool's */
    bool refused;   /* once, at least */
};

/* bytes: all that this shard's connections may have together. NULL with *err = -errno. */
struct tls_pool *tls_pool_new(size_t bytes, int *err);
void tls_pool_free(struct tls_pool *p); /* ASSERTs that everything came back; NULL is fine */

size_t tls_pool_used(const struct tls_pool *p);
size_t tls_pool_peak(const struct tls_pool *p);
size_t tls_pool_max(const struct tls_pool *p);
uint64_t tls_pool_refused(const struct tls_pool *p); /* how often one was told that there is none */
uint64_t tls_pool_swept(const struct tls_pool *p);   /* bytes, by tls_pool_sweep */
uint8_t *tls_pool_scratch(struct tls_pool *p); /* TLS_SCRATCH_BYTES, the owner's for a moment */

/* Makes wolfSSL's allocator ours, for the process. Idempotent, and safe from any thread; but first
 * before anything of wolfSSL lives, hence at start. Called by tls_init. */
void tls_pool_install(void);

/* Until tls_pool_leave what this thread's wolfSSL asks for comes from p on a's account. Nesting is
 * our mistake. */
void tls_pool_enter(struct tls_pool *p, struct tls_account *a);
void tls_pool_leave(void);

/* For tests, and for our own few bytes of a connection. Between enter and leave only. */
void *tls_pool_alloc(size_t n); /* 16-byte aligned; NULL: a bound */
void tls_pool_return(void *p);  /* NULL is fine */
/* Gives back all that the account still has: wolfSSL forgets blocks on some of its ways out (a
 * wolfSSL_new that fails, for one), and they would add up. */
void tls_pool_sweep(void);
/* Walks all blocks and ASSERTs that books, lists and neighbours agree. Slow: tests. */
void tls_pool_check(const struct tls_pool *p);

#endif
