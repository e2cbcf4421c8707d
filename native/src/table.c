/* table.c -- entries of the committed allocation table: coding, showing, checking.
 *
 * Contract: table.h. Must never trust an entry that came from a file before dh_table_validate has
 * seen all of them: kinds index arrays, run lengths lead to other pages.
 */
#include "heap.h"

_Static_assert(DH_TABLE_ENTRY_BYTES *DH_TABLE_ENTRIES_PER_PAGE <= DH_PAGE_BYTES,
               "table entries must fit their page");

int dh_table_init(dh_table *table, uint64_t capacity_pages)
{
    table->reserved_bytes = dh_table_pages_for(capacity_pages) * DH_PAGE_BYTES;
    return dh_reserve(table->reserved_bytes, (void **)&table->base);
}

void dh_table_finish(dh_table *table)
{
    dh_unreserve(table->base, table->reserved_bytes);
    memset(table, 0, sizeof *table);
}

void dh_table_decode(const uint8_t *page, uint32_t slot, dh_table_entry *entry_out)
{
    const uint8_t *at = page + slot * DH_TABLE_ENTRY_BYTES;
    entry_out->kind = at[0];
    memcpy(entry_out->value, at + 4, sizeof entry_out->value);
}

void dh_table_encode(uint8_t *page, uint32_t slot, const dh_table_entry *entry)
{
    uint8_t *at = page + slot * DH_TABLE_ENTRY_BYTES;
    memset(at, 0, 4);
    at[0] = entry->kind;
    memcpy(at + 4, entry->value, sizeof entry->value);
}

void dh_table_entry_now(const dh_heap *heap, dh_pgno pgno, dh_table_entry *entry_out)
{
    const dh_alloc *alloc = &heap->alloc;
    unsigned kind = alloc->kind[pgno];

    memset(entry_out, 0, sizeof *entry_out);
    if (kind == DH_KIND_PINNED)
        kind = DH_KIND_FREE; /* pinned by this process only */
    entry_out->kind = (uint8_t)kind;
    if (kind >= DH_KIND_CELLS) {
        for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
            entry_out->value[i] = alloc->old[pgno].bits[i] | alloc->fresh[pgno].bits[i];
    } else if (kind != DH_KIND_FREE && kind != DH_KIND_RESERVED) {
        entry_out->value[0] = alloc->run[pgno];
    }
}

void dh_table_entry_show(dh_heap *heap, dh_pgno pgno, const dh_table_entry *entry)
{
    dh_alloc *alloc = &heap->alloc;

    /* Listed pages of another kind are passed over when they are popped. */
    alloc->flags[pgno] &=
        (uint8_t)(DH_PAGE_HOT | (alloc->kind[pgno] == entry->kind ? DH_PAGE_LISTED : 0));
    alloc->kind[pgno] = entry->kind;
    alloc->run[pgno] = 0;
    memset(&alloc->fresh[pgno], 0, sizeof alloc->fresh[pgno]);
    memset(&alloc->old[pgno], 0, sizeof alloc->old[pgno]);
    if (entry->kind >= DH_KIND_CELLS) {
        memcpy(alloc->old[pgno].bits, entry->value, sizeof entry->value);
    } else if (entry->kind != DH_KIND_FREE) {
        alloc->run[pgno] = (uint32_t)entry->value[0];
        if (entry->kind == DH_KIND_RUN_REFS || entry->kind == DH_KIND_RUN_RAW)
            alloc->old[pgno].bits[0] = 1;
    }
}

static int validate_cells(const dh_heap *heap, uint64_t pgno, const dh_table_entry *entry)
{
    const dh_page_bits *starts = &dh_class_starts[(entry->kind - DH_KIND_CELLS) / 2];
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++) {
        if (entry->value[i] & ~starts->bits[i])
            return dhi_fail(heap, DH_E_CORRUPT,
                            "allocation table, page %llu: a cell starts inside another",
                            (unsigned long long)pgno);
    }
    return 0;
}

static int validate_entry(const dh_heap *heap, uint64_t pgno, const dh_table_entry *entry,
                          uint64_t hwm_pages)
{
    bool is_run = entry->kind == DH_KIND_RUN_REFS || entry->kind == DH_KIND_RUN_RAW;
    uint64_t pages = entry->value[0];

    if (entry->kind >= DH_KINDS_COUNT || entry->kind == DH_KIND_PINNED ||
        (entry->kind == DH_KIND_RESERVED) != (pgno == 0) ||
        (entry->kind > DH_KIND_RUN_RAW && entry->kind < DH_KIND_CELLS))
        return dhi_fail(heap, DH_E_CORRUPT, "allocation table, page %llu: kind %u",
                        (unsigned long long)pgno, entry->kind);
    if (is_run && (pages == 0 || pages > UINT32_MAX || pages > hwm_pages - pgno))
        return dhi_fail(heap, DH_E_CORRUPT, "allocation table, page %llu: a run of %llu pages",
                        (unsigned long long)pgno, (unsigned long long)pages);
    return entry->kind >= DH_KIND_CELLS ? validate_cells(heap, pgno, entry) : 0;
}

int dh_table_validate_entries(const dh_heap *heap, uint64_t first, uint64_t end, uint64_t hwm_pages)
{
    int rc = 0;

    for (uint64_t pgno = first; rc == 0 && pgno < end; pgno++) {
        dh_table_entry entry;
        dh_table_read(&heap->table, (dh_pgno)pgno, &entry);
        rc = validate_entry(heap, pgno, &entry, hwm_pages);
    }
    return rc;
}

/* What follows the first page of a run. */
static int validate_rest(const dh_heap *heap, uint64_t first, uint64_t pages)
{
    for (uint64_t i = 1; i < pages; i++) {
        dh_table_entry entry;
        dh_table_read(&heap->table, (dh_pgno)(first + i), &entry);
        if (entry.kind != DH_KIND_CONT || entry.value[0] != i)
            return dhi_fail(heap, DH_E_CORRUPT, "allocation table, page %llu: a broken run",
                            (unsigned long long)(first + i));
    }
    return 0;
}

int dh_table_validate(const dh_heap *heap, uint64_t hwm_pages)
{
    uint64_t pgno = 0, step;

    for (; pgno < hwm_pages; pgno += step) {
        dh_table_entry entry;
        dh_table_read(&heap->table, (dh_pgno)pgno, &entry);
        int rc = validate_entry(heap, pgno, &entry, hwm_pages);
        if (rc == 0 && entry.kind == DH_KIND_CONT)
            rc = dhi_fail(heap, DH_E_CORRUPT, "allocation table, page %llu: a run without a head",
                          (unsigned long long)pgno);
        step = 1;
        if (rc == 0 && (entry.kind == DH_KIND_RUN_REFS || entry.kind == DH_KIND_RUN_RAW)) {
            step = entry.value[0];
            rc = validate_rest(heap, pgno, step);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}
