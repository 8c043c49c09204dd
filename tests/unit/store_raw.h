/* tests/unit/store_raw.h: the store's file by LMDB alone, to write what the library never would. */
#ifndef SLUICE_TESTS_STORE_RAW_H
#define SLUICE_TESTS_STORE_RAW_H

#include <lmdb.h>

#include "tests/unit/store_file.h"

static MDB_env *raw_env;
static MDB_txn *raw_txn;

__attribute__((unused)) static void raw_open(void)
{
    cr_assert(eq(int, mdb_env_create(&raw_env), 0));
    cr_assert(eq(int, mdb_env_set_maxdbs(raw_env, 16), 0));
    cr_assert(eq(int, mdb_env_set_mapsize(raw_env, 16 << 20), 0));
    cr_assert(eq(int, mdb_env_open(raw_env, sd_path(STORE_FILE), MDB_NOSUBDIR, 0600), 0));
    cr_assert(eq(int, mdb_txn_begin(raw_env, NULL, 0, &raw_txn), 0));
}

__attribute__((unused)) static MDB_dbi raw_tree(const char *name)
{
    MDB_dbi dbi;

    cr_assert(eq(int, mdb_dbi_open(raw_txn, name, MDB_CREATE, &dbi), 0));
    return dbi;
}

__attribute__((unused)) static void raw_put(const char *tree, const void *k, size_t kn,
                                            const void *v, size_t vn)
{
    MDB_val key = { kn, (void *)(uintptr_t)k }, value = { vn, (void *)(uintptr_t)v };

    cr_assert(eq(int, mdb_put(raw_txn, raw_tree(tree), &key, &value, 0), 0));
}

__attribute__((unused)) static void raw_close(void)
{
    cr_assert(eq(int, mdb_txn_commit(raw_txn), 0));
    mdb_env_close(raw_env);
}

#endif
