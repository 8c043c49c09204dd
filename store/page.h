/* store/page.h: inside the library: whether an LMDB 0.9 file (64-bit, 4 KiB pages) is whole, found
 * by reading it, page by page. LMDB itself believes what it maps: on a damaged file it ends the
 * process by SIGBUS, SIGSEGV or abort. Believes nothing; every loop is bounded by the file. */
#ifndef SLUICE_STORE_PAGE_H
#define SLUICE_STORE_PAGE_H

#include "proto/base.h"

/* Walks the snapshot `txn` (of a read transaction that is held meanwhile, so that its pages stay).
 * deep: leaves too, and that no page is used twice; else branches only, a hundredth of the file,
 * which is enough to know that no tree leads past the file's end. 0; -EIO and one line in `why`;
 * -EAGAIN: the same, unless a writer has committed meanwhile: ask again; -errno. */
MUST_USE int page_walk(int fd, uint64_t txn, bool deep, char *why, size_t cap);

#endif
