/* tests/durability/trace.h: what a process wrote to one file, and what of it was on the disk when.
 *
 * The program is linked with LMDB's static archive and `--wrap` for every call by which LMDB and
 * store/ change a file; trace.c has the wrappers. While recording, each of them appends to the
 * trace what it did to the file named; other files and other times pass through. */
#ifndef SLUICE_TESTS_DURABILITY_TRACE_H
#define SLUICE_TESTS_DURABILITY_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum trace_kind {
    TRACE_WRITE,
    TRACE_SYNCED_WRITE, /* on a descriptor with O_DSYNC: it is on the disk when it returns */
    TRACE_RESIZE,
    TRACE_SYNC,
    TRACE_MARK, /* n operations more are acknowledged: state `mark` is promised from here on */
};

struct trace_step {
    enum trace_kind kind;
    uint64_t at; /* of a write; RESIZE: the new size */
    size_t n;
    uint8_t *data;
    uint32_t mark;
};

extern struct trace_step *trace;
extern size_t trace_n;

void trace_begin(const char *file); /* which need not exist yet */
void trace_mark(uint32_t mark);
void trace_end(void);

/* The test hook: LMDB syncs nothing (MDB_NOSYNC), as a store must never ask it. */
extern bool trace_nosync;

#endif
