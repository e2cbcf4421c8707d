/* show.c -- the one verb behind rollback and savepoints: make the arena show state S.
 *
 * S is the last commit, or a savepoint laid over it. Order: scan (so that every cursor hears of
 * every page touched until now), allocation entries, page bytes, then handles. Pages are compared
 * before they are stored to, and stay in the cursors: a thread without the world lock may have
 * written meanwhile, and a page reported twice costs a comparison while one not reported costs data.
 *
 * The high-water mark and the serial counter never go back: what lies below the mark may be dirty,
 * and an identity number that was handed out must not come again.
 */
#include "capture.h"

static void show_entry(dh_heap *heap, const dh_capture *savepoint, dh_pgno pgno)
{
    const dh_captured_entry *captured = savepoint ? dh_capture_entry(savepoint, pgno) : NULL;
    dh_table_entry entry;

    if (captured != NULL)
        entry = captured->entry;
    else
        dh_table_read(&heap->table, pgno, &entry);
    dh_alloc_count_page(heap, pgno, false);
    dh_table_entry_show(heap, pgno, &entry);
    if (entry.kind == DH_KIND_FREE && dh_page_is_pinned(&heap->alloc, pgno))
        heap->alloc.kind[pgno] = DH_KIND_PINNED;
    dh_alloc_count_page(heap, pgno, true);
}

static void show_entries(dh_heap *heap, const dh_capture *savepoint)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t limit = heap->arena.hwm_pages;

    dh_alloc_drop_cursors(heap); /* their pages have changed entries */
    memset(alloc->run_floor, 0, sizeof alloc->run_floor);
    for (uint64_t p = dh_bits_next(&alloc->changed, 1, limit); p < limit;
         p = dh_bits_next(&alloc->changed, p + 1, limit)) {
        show_entry(heap, savepoint, (dh_pgno)p);
        dh_alloc_list_page(heap, (dh_pgno)p);
    }
    if (savepoint == NULL)
        dh_bits_clear_all(&alloc->changed, limit);
}

static const uint8_t *target_bytes(const dh_heap *heap, const dh_capture *savepoint, dh_pgno pgno,
                                   uint8_t *scratch)
{
    const uint8_t *bytes = savepoint ? dh_capture_page(savepoint, pgno) : NULL;
    return bytes != NULL ? bytes : dh_image_read(heap, pgno, scratch);
}

static uint64_t show_pages(dh_heap *heap, const dh_capture *savepoint, const dh_bits *written)
{
    uint8_t scratch[DH_PAGE_BYTES];
    uint64_t limit = heap->arena.hwm_pages, stored = 0;

    for (uint64_t p = dh_bits_next(written, 1, limit); p < limit;
         p = dh_bits_next(written, p + 1, limit)) {
        unsigned kind = heap->alloc.kind[p];
        if (kind == DH_KIND_FREE || kind == DH_KIND_PINNED)
            continue; /* bytes of a free page are undefined */
        const uint8_t *bytes = target_bytes(heap, savepoint, (dh_pgno)p, scratch);
        uint8_t *page = dh_arena_page(&heap->arena, (dh_pgno)p);
        if (memcmp(page, bytes, DH_PAGE_BYTES) != 0) {
            memcpy(page, bytes, DH_PAGE_BYTES);
            stored++;
        }
    }
    return stored;
}

static bool handle_is_valid(const dh_heap *heap, const dh_handle *handle)
{
    const dh_word *head;
    if (!dh_cell_is_allocated(heap, dh_ref_off(handle->word)))
        return false;
    head = dh_deref(heap, handle->word, dh_ref_type(handle->word), DH_HEAD_BYTES);
    return head != NULL && dh_is_meta(head[0]) && dh_meta_serial(head[0]) == handle->serial;
}

static void revalidate_handles(dh_heap *heap)
{
    size_t index = 0;
    dh_handle *handle;
    while ((handle = dh_handles_next(&heap->handles, &index)) != NULL) {
        if (!handle_is_valid(heap, handle)) {
            dh_handles_remove(&heap->handles, handle);
            handle->word = 0;
        }
    }
}

int dh_show_state(dh_heap *heap, dh_capture *savepoint, uint64_t *pages_out, uint64_t *stop_ns_out)
{
    dh_bits own, *written = &own;
    int rc = 0;

    if (heap->is_forked)
        return dhi_fail(heap, DH_E_FORKED, "this heap belongs to the parent process");
    if (savepoint == NULL)
        savepoint = heap->empty; /* NULL after the first commit */
    if (savepoint != NULL)
        written = &savepoint->changed; /* made when it was taken: going back needs no memory */
    else
        rc = dh_bits_init(&own, heap->arena.capacity_pages);
    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    /* A scan that fails has entered its pages into the cursor, which is all that is needed here. */
    (void)dh_watch_scan(heap->watch, heap->arena.hwm_pages, NULL);
    dh_watch_copy(heap->watch, heap->commit_cursor, written, heap->arena.hwm_pages);
    show_entries(heap, savepoint);
    heap->frees_count++;
    *pages_out = show_pages(heap, savepoint, written);
    revalidate_handles(heap);
    heap->shows_count++;
    *stop_ns_out = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    if (savepoint == NULL)
        dh_bits_finish(&own);
    else
        dh_bits_clear_all(written, heap->arena.hwm_pages);
    return 0;
}
