/* load.c -- from stored deltas to a running heap.
 *
 * Must trust nothing: every offset, size and checksum is tested before it is used; a heap that does
 * not pass is refused whole. Base files come in through extent.c.
 */
#include "buffer.h"
#include "crc32c.h"
#include "delta.h"
#include "dict.h"
#include "heap.h"

static uint8_t *page_memory(dh_heap *heap, dh_pgno pgno)
{
    if (pgno & DH_PGNO_TABLE) {
        uint64_t index = pgno & ~DH_PGNO_TABLE;
        return (index + 1) * DH_PAGE_BYTES <= heap->table.reserved_bytes
                   ? dh_table_page(&heap->table, (uint32_t)index)
                   : NULL;
    }
    return pgno != 0 && pgno < heap->arena.capacity_pages ? dh_arena_page(&heap->arena, pgno)
                                                          : NULL;
}

static int apply_payload(uint8_t *page, const dh_delta_entry *entry, const uint8_t *payload)
{
    switch (entry->form) {
    case DH_PAGE_WHOLE:
        memcpy(page, payload, DH_PAGE_BYTES);
        return 0;
    case DH_PAGE_FREED:
        memset(page, 0, DH_PAGE_BYTES);
        return 0;
    case DH_PAGE_FRESH:
        memset(page, 0, DH_PAGE_BYTES);
        return dh_diff_apply(page, payload, entry->size);
    default:
        return dh_diff_apply(page, payload, entry->size);
    }
}

static int apply_entry(dh_heap *heap, const dh_chunk_header *header, const dh_delta_entry *entry,
                       const uint8_t *payload)
{
    const dh_extent *extent = dh_image_extent(heap, dh_extent_of(entry->pgno));
    uint8_t *page;

    if (extent != NULL && extent->version >= header->commit_id)
        return 0; /* the base file is newer than this delta */
    page = page_memory(heap, entry->pgno);
    if (page == NULL && entry->pgno != 0)
        return dhi_fail(heap, DH_E_FULL,
                        "the heap does not fit its capacity: pass a larger capacity=");
    if (page == NULL)
        return dhi_fail(heap, DH_E_CORRUPT, "commit %llu: a page 0",
                        (unsigned long long)header->commit_id);
    int rc = apply_payload(page, entry, payload);
    if (rc != 0 || (entry->form != DH_PAGE_FREED && dh_page_checksum(page) != entry->checksum))
        return dhi_fail(heap, DH_E_CORRUPT, "commit %llu: the checksum of page %u is wrong",
                        (unsigned long long)header->commit_id, entry->pgno);
    return dh_image_store(heap, entry->pgno, entry->form == DH_PAGE_FREED ? NULL : page);
}

int dh_load_delta(dh_heap *heap, const uint8_t *bytes, size_t size)
{
    dh_chunk_header header;
    const uint8_t *entries, *payload;

    DH_ASSERT(heap->phase == DH_LOADING);
    if (dh_chunk_header_decode(bytes, size, &header) != 0)
        return dhi_fail(heap, DH_E_CORRUPT, "a delta chunk of %zu bytes is damaged", size);
    entries = bytes + DH_CHUNK_HEADER_BYTES;
    payload = entries + (size_t)header.entries_count * DH_ENTRY_BYTES;
    size_t payload_left = header.payload_bytes;
    for (uint32_t i = 0; i < header.entries_count; i++) {
        dh_delta_entry entry;
        if (dh_entry_decode(entries + (size_t)i * DH_ENTRY_BYTES, &entry) != 0 ||
            entry.size > payload_left)
            return dhi_fail(heap, DH_E_CORRUPT, "commit %llu: entry %u is damaged",
                            (unsigned long long)header.commit_id, i);
        int rc = apply_entry(heap, &header, &entry, payload);
        if (rc != 0)
            return rc;
        payload += entry.size;
        payload_left -= entry.size;
    }
    return 0;
}

static int start_empty(dh_heap *heap)
{
    heap->arena.hwm_pages = 1;
    dh_bits_set(&heap->alloc.changed, 0); /* the table must say RESERVED for page 0 */
    int rc = dh_alloc_rebuild(heap);
    if (rc == 0)
        rc = dh_dict_new_root(heap, &heap->root);
    heap->committed = (dh_state){0, 1, 1};
    return rc;
}

static int start_loaded(dh_heap *heap, const dh_state *state)
{
    uint64_t length;

    if (state->hwm_pages == 0 || state->hwm_pages > heap->arena.capacity_pages)
        return dhi_fail(heap, DH_E_FULL,
                        "the heap has %llu pages, more than the capacity: pass capacity=%llu or "
                        "more",
                        (unsigned long long)state->hwm_pages,
                        (unsigned long long)(state->hwm_pages << DH_PAGE_SHIFT));
    int rc = dh_table_validate(heap, state->hwm_pages);
    if (rc != 0)
        return rc;
    heap->arena.hwm_pages = state->hwm_pages;
    for (uint64_t p = 1; p < state->hwm_pages; p++) {
        dh_table_entry entry;
        dh_table_read(&heap->table, (dh_pgno)p, &entry);
        if (entry.kind != DH_KIND_FREE) /* the allocator's memory says so already, untouched */
            dh_table_entry_show(heap, (dh_pgno)p, &entry);
    }
    rc = dh_alloc_rebuild(heap);
    if (rc != 0)
        return rc;
    heap->root = state->root;
    heap->serial_next = state->serial_next;
    heap->committed = *state;
    if (!dh_cell_is_allocated(heap, dh_ref_off(state->root)) ||
        dh_dict_length(heap, state->root, &length) != 0)
        return dhi_fail(heap, DH_E_CORRUPT, "the root is not a dict");
    return dh_watch_arm(heap->watch, heap->arena.hwm_pages);
}

int dh_load_finish(dh_heap *heap, const dh_state *state)
{
    int rc;

    DH_ASSERT(heap->phase == DH_LOADING);
    rc = state == NULL ? start_empty(heap) : start_loaded(heap, state);
    if (rc != 0)
        return rc;
    heap->phase = DH_RUNNING;
    /* Until the first commit a rollback leads here, and the root's handle must stay valid. */
    return state == NULL ? dh_savepoint_take(heap, &heap->empty) : 0;
}
