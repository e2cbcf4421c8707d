/* sweep.h -- the marks of a page become its allocation. */
#ifndef DH_SWEEP_H
#define DH_SWEEP_H

#include "heap.h"

/* Settle the page: what is not in `live` (by pgno) becomes free. Returns how many pages were settled:
 * 1, or all of a run. World stopped; no class may stand on the page (dh_alloc_park_cursors). */
uint64_t dhi_sweep_page(dh_heap *heap, dh_pgno pgno, const dh_page_bits *live,
                        dh_collect_stats *stats);

#endif
