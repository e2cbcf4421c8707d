/* fold.h -- a fold under way: the image of one commit, while later ones are taken over.
 *
 * A fold writes base files of the commit at which it began, one extent at a time, and commits go on
 * in between. What such a commit replaces in an extent that is not written yet is kept here: the
 * overlay entry, and when the extent gets another base, that base. So memory is at most what the
 * overlay held when the fold began. Of extents that are written it is noted which pages are newer:
 * when their file becomes the base, these stay in the overlay. Heap lock.
 */
#ifndef DH_FOLD_H
#define DH_FOLD_H

#include "heap.h"

typedef struct dh_fold dh_fold;

/* A page's committed image is about to change. */
void dhi_fold_page_slow(dh_heap *heap, dh_pgno pgno);
static inline void dhi_fold_page(dh_heap *heap, dh_pgno pgno)
{
    if (DH_UNLIKELY(heap->fold != NULL))
        dhi_fold_page_slow(heap, pgno);
}
/* A commit is about to give the extent another base, and an empty overlay. Takes away what the fold
 * still needs of them. */
void dhi_fold_replaced(dh_heap *heap, uint32_t extent_no);
uint64_t dhi_fold_kept_bytes(const dh_heap *heap);

#endif
