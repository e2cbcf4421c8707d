/* verify_pages.c -- the watch's promise, held against the bytes: what it calls clean is committed.
 *
 * Reads every page that holds something and compares it with its committed image. A page that
 * differs and was not reported would be in no commit: its pages are noted, and the walk names what
 * stands there. A tracker that itself compares has nothing to be held against. Must change nothing
 * but what any scan does (the pages it finds go to every cursor).
 */
#include "verify.h"

/* Committed as it is now: allocated then and since. */
static bool is_comparable(const dh_heap *heap, uint64_t pgno)
{
    unsigned kind = heap->alloc.kind[pgno];
    return kind != DH_KIND_FREE && kind != DH_KIND_PINNED &&
           !dh_bits_test(&heap->alloc.changed, pgno);
}

static void compare_clean(dh_verify *verify, const dh_bits *dirty, uint64_t limit)
{
    const dh_heap *heap = verify->heap;
    for (uint64_t p = 1; p < limit; p++)
        if (!dh_bits_test(dirty, p) && is_comparable(heap, p) && !dh_image_same(heap, (dh_pgno)p))
            verify->page_states[p] = VERIFY_PAGE_UNSEEN;
}

int dhi_verify_pages(dh_verify *verify)
{
    dh_heap *heap = verify->heap;
    uint64_t limit = heap->committed.hwm_pages;
    int tracker = dh_watch_tracker(heap->watch);
    dh_bits dirty;
    int rc;

    if (tracker == DH_TRACKER_COMPARE || limit <= 1 || heap->lazy != NULL) /* nothing is watched */
        return 0;
    rc = dh_watch_scan(heap->watch, heap->arena.hwm_pages, NULL);
    if (rc != 0)
        return dhi_fail(heap, rc, "the kernel's scan failed");
    rc = dh_bits_init(&dirty, limit);
    if (rc != 0)
        return rc;
    dh_watch_copy(heap->watch, heap->commit_cursor, &dirty, limit);
    compare_clean(verify, &dirty, limit);
    dh_bits_finish(&dirty);
    return 0;
}
