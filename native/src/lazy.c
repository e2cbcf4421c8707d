/* lazy.c -- bringing in what an opened heap has left in its files.
 *
 * Contract: lazy.h. Must never let a page be reached that failed its check: its kind byte stays
 * FREE, so whoever comes to it is told that nothing is there, and that the heap is damaged.
 */
#include "lazy.h"

#include <stdlib.h>

#include "crc32c.h"
#include "gate.h"
#include "mapping.h"
#include "proof.h"

int dhi_lazy_init(dh_heap *heap)
{
    heap->lazy = calloc(1, sizeof *heap->lazy);
    if (heap->lazy == NULL)
        return ENOMEM;
    return dh_bits_init(&heap->lazy->table_ready, dh_table_pages_for(heap->arena.capacity_pages));
}

void dhi_lazy_finish(dh_heap *heap)
{
    dh_lazy *lazy = heap->lazy;

    if (lazy == NULL)
        return;
    heap->lazy = NULL;
    dh_backlog_finish(&lazy->backlog);
    dh_bits_finish(&lazy->table_ready);
    free(lazy);
}

/* --- the allocation table ------------------------------------------------------------------------ */

/* A page of the table without deltas, against its file's trailer. */
static int check_table_page(const dh_heap *heap, uint32_t index, const uint8_t *page)
{
    const dh_extent *extent = dh_image_extent(heap, DH_EXTENT_TABLE + index / DH_EXTENT_PAGES);
    uint32_t slot = index % DH_EXTENT_PAGES;

    if (extent == NULL || slot >= extent->pages_count) /* in no file: our own zeros */
        return 0;
    if (dh_view_checksum(extent, slot) == dh_page_checksum(page))
        return 0;
    return dhi_fail(heap, DH_E_CORRUPT, "allocation table, page %u: its base file is damaged",
                    index);
}

/* Cells need no more than their entry. A run is shown when its first page is asked for: it must be
 * whole then. A page that deltas change waits for them. */
static void show_unchanged(dh_heap *heap, dh_pgno pgno)
{
    dh_table_entry entry;

    dh_table_read(&heap->table, pgno, &entry);
    if ((entry.kind >= DH_KIND_CELLS || entry.kind == DH_KIND_RESERVED) &&
        dh_backlog_find(&heap->lazy->backlog, pgno) == NULL)
        dh_table_entry_show(heap, pgno, &entry);
}

static int admit_table_page(dh_heap *heap, uint32_t index)
{
    dh_lazy *lazy = heap->lazy;
    uint8_t *page = dh_table_page(&heap->table, index);
    int rc;

    if (dh_bits_test(&lazy->table_ready, index))
        return 0;
    dh_backlog_slot *slot = dh_backlog_find(&lazy->backlog, index | DH_PGNO_TABLE);
    rc = slot != NULL ? dh_backlog_apply(heap, slot, page) : check_table_page(heap, index, page);
    uint64_t first = (uint64_t)index * DH_TABLE_ENTRIES_PER_PAGE;
    uint64_t end = first + DH_TABLE_ENTRIES_PER_PAGE;
    if (end > heap->arena.hwm_pages)
        end = heap->arena.hwm_pages;
    if (rc == 0)
        rc = dh_table_validate_entries(heap, first, end, heap->arena.hwm_pages);
    if (rc != 0)
        return rc;
    dh_bits_set(&lazy->table_ready, index);
    for (uint64_t p = first; p < end; p++)
        show_unchanged(heap, (dh_pgno)p);
    return 0;
}

static int admit_table(dh_heap *heap)
{
    uint64_t pages = dh_table_pages_for(heap->arena.hwm_pages);
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < pages; i++)
        rc = admit_table_page(heap, (uint32_t)i);
    return rc != 0 ? rc : dh_table_validate(heap, heap->arena.hwm_pages);
}

/* --- pages --------------------------------------------------------------------------------------- */

/* Also where the newest entry says "freed": a page that was taken again, and holds zeros as its image
 * does, has no entry of its own. */
static int apply_page(dh_heap *heap, dh_pgno pgno)
{
    dh_backlog_slot *slot = dh_backlog_find(&heap->lazy->backlog, pgno);

    if (slot == NULL || slot->is_applied)
        return 0;
    dh_bits_set(&heap->private_pages, pgno);
    return dh_backlog_apply(heap, slot, dh_arena_page(&heap->arena, pgno));
}

/* A run that crosses pages of the table is told of by each of them. */
static int admit_table_range(dh_heap *heap, uint64_t first, uint64_t end)
{
    int rc = 0;
    for (uint64_t p = first; rc == 0 && p < end;
         p = (dh_table_page_of((dh_pgno)p) + 1ull) * DH_TABLE_ENTRIES_PER_PAGE)
        rc = admit_table_page(heap, dh_table_page_of((dh_pgno)p));
    return rc;
}

int dhi_lazy_admit(dh_heap *heap, uint64_t pgno)
{
    dh_table_entry entry;
    uint64_t pages = 1;

    if (pgno >= heap->arena.hwm_pages)
        return DH_E_CORRUPT;
    int rc = admit_table_page(heap, dh_table_page_of((dh_pgno)pgno));
    if (rc != 0 || heap->alloc.kind[pgno] != DH_KIND_FREE)
        return rc;
    dh_table_read(&heap->table, (dh_pgno)pgno, &entry);
    if (entry.kind == DH_KIND_FREE || entry.kind == DH_KIND_CONT)
        return 0; /* nothing begins there */
    if (entry.kind < DH_KIND_CELLS && entry.kind != DH_KIND_RESERVED)
        pages = entry.value[0]; /* validated */
    rc = admit_table_range(heap, pgno + 1, pgno + pages);
    for (uint64_t i = 0; rc == 0 && i < pages && heap->lazy->backlog.pages_count > 0; i++)
        rc = apply_page(heap, (dh_pgno)(pgno + i));
    for (uint64_t i = pages; rc == 0 && i > 0; i--) { /* the first at the end: L1 */
        dh_table_read(&heap->table, (dh_pgno)(pgno + i - 1), &entry);
        dh_table_entry_show(heap, (dh_pgno)(pgno + i - 1), &entry);
    }
    return rc;
}

size_t dhi_kind_bytes_lazily(const dh_heap *heap, uint64_t pgno)
{
    /* What is brought in is no change of what the heap holds: readers may. */
    if (heap->lazy != NULL && dhi_lazy_admit((dh_heap *)(uintptr_t)heap, pgno) != 0)
        return 0;
    return dh_kind_bytes[heap->alloc.kind[pgno]];
}

void *dhi_deref_lazily(const dh_heap *heap, dh_word w, dh_type type, size_t need)
{
    uint64_t pgno = dh_ref_off(w) >> DH_PAGE_SHIFT;
    return dhi_kind_bytes_lazily(heap, pgno) != 0 ? dh_deref(heap, w, type, need) : NULL;
}

static uint64_t entry_cells(const dh_table_entry *entry)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        count += (uint64_t)__builtin_popcountll(entry->value[i]);
    return count;
}

/* --- all of it ----------------------------------------------------------------------------------- */

int dhi_lazy_count(dh_heap *heap, uint64_t *free_pages_out, uint64_t *allocated_bytes_out)
{
    uint64_t free_pages = 0, allocated_bytes = 0;
    int rc = admit_table(heap);

    for (uint64_t p = 1; rc == 0 && p < heap->arena.hwm_pages; p++) {
        dh_table_entry entry;
        dh_table_read(&heap->table, (dh_pgno)p, &entry);
        if (entry.kind == DH_KIND_FREE)
            free_pages++;
        else if (entry.kind >= DH_KIND_CELLS)
            allocated_bytes += dh_kind_bytes[entry.kind] * entry_cells(&entry);
        else if (entry.kind != DH_KIND_CONT)
            allocated_bytes += entry.value[0] << DH_PAGE_SHIFT;
    }
    *free_pages_out = free_pages;
    *allocated_bytes_out = allocated_bytes;
    return rc;
}

static bool is_free(const dh_heap *heap, dh_pgno pgno)
{
    dh_table_entry entry;
    dh_table_read(&heap->table, pgno, &entry);
    return entry.kind == DH_KIND_FREE;
}

/* The committed image of what the deltas changed is what the pages hold now (L2). */
static int note_overlay(dh_heap *heap)
{
    const dh_backlog *backlog = &heap->lazy->backlog;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < backlog->slots_count; i++) {
        const dh_backlog_slot *slot = &backlog->slots[i];
        if (slot->first == DH_BACKLOG_NONE)
            continue;
        if (slot->pgno & DH_PGNO_TABLE)
            rc = dh_image_store(heap, slot->pgno, dh_zero_page); /* only noted as newer */
        else
            rc = dh_image_store(heap, slot->pgno,
                                dh_backlog_is_freed(backlog, slot)
                                    ? NULL
                                    : dh_arena_page(&heap->arena, slot->pgno));
    }
    return rc;
}

static void show_all(dh_heap *heap)
{
    for (uint64_t p = 1; p < heap->arena.hwm_pages; p++) {
        dh_table_entry entry;
        dh_table_read(&heap->table, (dh_pgno)p, &entry);
        if (entry.kind != DH_KIND_FREE) /* the allocator's memory says so already, untouched */
            dh_table_entry_show(heap, (dh_pgno)p, &entry);
    }
}

static int apply_all(dh_heap *heap)
{
    const dh_backlog *backlog = &heap->lazy->backlog;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < backlog->slots_count; i++) {
        const dh_backlog_slot *slot = &backlog->slots[i];
        if (slot->first == DH_BACKLOG_NONE || slot->pgno & DH_PGNO_TABLE)
            continue;
        if (slot->pgno >= heap->arena.hwm_pages)
            return dhi_fail(heap, DH_E_CORRUPT, "a delta of page %u, which the heap does not have",
                            slot->pgno);
        if (!is_free(heap, slot->pgno))
            rc = apply_page(heap, slot->pgno);
    }
    return rc;
}

int dhi_lazy_bring_all(dh_heap *heap)
{
    int rc = admit_table(heap);

    if (rc == 0)
        rc = apply_all(heap);
    if (rc != 0)
        return rc;
    show_all(heap);
    return dh_alloc_rebuild(heap);
}

int dhi_lazy_settle(const dh_heap *heap)
{
    dh_heap *changed = (dh_heap *)(uintptr_t)heap; /* not what it holds */

    if (heap->lazy == NULL || heap->is_forked)
        return 0;
    dhi_world_stop(heap);
    int rc = dhi_lazy_bring_all(changed);
    dhi_world_resume(heap);
    return rc;
}

int dhi_lazy_end(dh_heap *heap)
{
    int rc = dhi_lazy_bring_all(heap);

    if (rc == 0)
        rc = dh_views_map(heap);
    if (rc == ENOENT)
        rc = DH_E_CORRUPT; /* it was there when the heap was opened */
    if (rc == 0)
        rc = note_overlay(heap);
    if (rc == 0)
        rc = dh_watch_begin(heap->watch);
    if (rc == 0)
        rc = dh_watch_arm(heap->watch, heap->arena.hwm_pages);
    if (rc == 0)
        dhi_proof_begin(heap);
    if (rc == 0)
        dhi_lazy_finish(heap);
    return rc;
}
