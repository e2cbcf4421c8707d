/* span.h -- follow a word and learn how much memory stands behind it.
 *
 * dh_deref (heap.h) is enough where one page is; here the whole cell or run is meant. What is
 * checked is what memory safety needs: the bytes lie inside the arena. Whether they are the object
 * they claim to be is for the reader to find out.
 */
#ifndef DH_SPAN_H
#define DH_SPAN_H

#include "heap.h"

/* Address of the cell or run behind w, and its usable bytes up to the end of its first page; NULL
 * unless w is a ref of that type to a place where a cell or run can be. */
static inline void *dhi_page_span(const dh_heap *heap, dh_word w, dh_type type, size_t *bytes_out)
{
    dh_off off = dh_ref_off(w);
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    if (DH_UNLIKELY(!dh_is_ref_to(w, type) || pgno >= heap->arena.hwm_pages))
        return NULL;
    size_t bytes = dh_kind_bytes[heap->alloc.kind[pgno]];
    if (DH_UNLIKELY(bytes == 0))
        bytes = dhi_kind_bytes_lazily(heap, pgno);
    size_t at = off & (DH_PAGE_BYTES - 1);
    if (DH_UNLIKELY(bytes == 0 || (at & (DH_GRANULE_BYTES - 1)) != 0 || at + bytes > DH_PAGE_BYTES))
        return NULL;
    *bytes_out = bytes;
    return heap->arena.base + off;
}

/* Same, the whole of a run counted. */
static inline void *dhi_span(const dh_heap *heap, dh_word w, dh_type type, size_t *bytes_out)
{
    size_t bytes;
    void *at = dhi_page_span(heap, w, type, &bytes);
    /* Only the head of a run counts a whole page; its length stands beside the arena. */
    if (at != NULL && bytes == DH_PAGE_BYTES) {
        uint64_t pgno = dh_ref_off(w) >> DH_PAGE_SHIFT, pages = heap->alloc.run[pgno];
        if (DH_UNLIKELY(pages == 0 || pages > heap->arena.hwm_pages - pgno))
            return NULL;
        bytes = (size_t)pages << DH_PAGE_SHIFT;
    }
    if (at != NULL)
        *bytes_out = bytes;
    return at;
}

#endif
