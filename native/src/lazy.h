/* lazy.h -- a heap that was opened and not stored to: what it has not brought in yet.
 *
 * Opening maps base files and enters deltas; no page is read for it. The kind byte of a page is
 * FREE until somebody comes to the page: dh_deref finds that nothing can be there, and asks here.
 * Then the page of the allocation table that tells of it is checked and read, the page's deltas are
 * applied, and the kind byte says what there is:
 *
 *   L1  While heap->lazy is set, a kind byte other than FREE stands for a page (for the first page
 *       of a run: all pages of the run) that holds its committed bytes.
 *   L2  The arena holds nothing but committed bytes while heap->lazy is set: the first store passes
 *       the gate (gate.h), which brings in everything that is left, and the watch.
 *
 * A heap that is only read stays as it is, without registered memory, so that the kernel maps its
 * pages sixteen at a time. Needs the world lock.
 */
#ifndef DH_LAZY_H
#define DH_LAZY_H

#include "backlog.h"
#include "bits.h"

typedef struct dh_lazy {
    dh_backlog backlog;
    dh_bits table_ready; /* pages of the table that were checked and read         */
} dh_lazy;

int dhi_lazy_init(dh_heap *heap);
void dhi_lazy_finish(dh_heap *heap);
/* Bring in the page, and the run that begins there. 0 also when it is free. */
int dhi_lazy_admit(dh_heap *heap, uint64_t pgno);
/* Check the whole table and count what it says is free and allocated; pages and watch stay as they
 * are. */
int dhi_lazy_count(dh_heap *heap, uint64_t *free_pages_out, uint64_t *allocated_bytes_out);
/* Bring in every page and count: what verifying needs. The watch does not begin. */
int dhi_lazy_bring_all(dh_heap *heap);
/* The same for verbs, which do not have the world lock: then the committed image can be read. */
int dhi_lazy_settle(const dh_heap *heap);
/* The first store: bring in all that is left, note what is newer than its base, begin to watch.
 * After a failure the heap can be read as before, and asked again. */
int dhi_lazy_end(dh_heap *heap);

#endif
