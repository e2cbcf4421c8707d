/* table.h -- the committed allocation state: what the last commit says about every page.
 *
 * Entries of 36 bytes, 113 to a page, little-endian:
 *   u8 kind, u8[3] zero, then for cell pages 4 x u64 allocation bits; for a run head u64 pages,
 *   for a continuation u64 distance back, rest zero.
 * Table pages are pages like others for the delta (pgno | DH_PGNO_TABLE) but are written at
 * commits only. The memory here IS the committed image, and so also the undo copy for a rollback.
 */
#ifndef DH_TABLE_H
#define DH_TABLE_H

#include "alloc_state.h"

#define DH_TABLE_ENTRY_BYTES 36u
#define DH_TABLE_ENTRIES_PER_PAGE 113u

typedef struct {
    uint8_t *base; /* lazily touched, capacity pages' worth of entries */
    uint64_t reserved_bytes;
} dh_table;

typedef struct {
    uint8_t kind;
    uint64_t value[4]; /* cell bits, or value[0]: run pages / distance back */
} dh_table_entry;

int dh_table_init(dh_table *table, uint64_t capacity_pages);
void dh_table_finish(dh_table *table);
static inline uint32_t dh_table_page_of(dh_pgno pgno) { return pgno / DH_TABLE_ENTRIES_PER_PAGE; }
static inline uint64_t dh_table_pages_for(uint64_t hwm_pages)
{
    return (hwm_pages + DH_TABLE_ENTRIES_PER_PAGE - 1) / DH_TABLE_ENTRIES_PER_PAGE;
}
static inline uint8_t *dh_table_page(const dh_table *table, uint32_t index)
{
    return table->base + (size_t)index * DH_PAGE_BYTES;
}
/* From a page of the table (committed or captured), entry by its place in it. */
void dh_table_decode(const uint8_t *page, uint32_t slot, dh_table_entry *entry_out);
void dh_table_encode(uint8_t *page, uint32_t slot, const dh_table_entry *entry);
static inline void dh_table_read(const dh_table *table, dh_pgno pgno, dh_table_entry *entry_out)
{
    dh_table_decode(dh_table_page(table, dh_table_page_of(pgno)), pgno % DH_TABLE_ENTRIES_PER_PAGE,
                    entry_out);
}
/* What the allocator says now, in the table's form. */
void dh_table_entry_now(const dh_heap *heap, dh_pgno pgno, dh_table_entry *entry_out);
/* Make the allocator say what the entry says (kind, old bits; fresh empty). */
void dh_table_entry_show(dh_heap *heap, dh_pgno pgno, const dh_table_entry *entry);
/* Check the entries of pages [first, end) each by itself. */
int dh_table_validate_entries(const dh_heap *heap, uint64_t first, uint64_t end,
                              uint64_t hwm_pages);
/* Check every entry below the mark against its neighbours: run lengths, kinds, bits. */
int dh_table_validate(const dh_heap *heap, uint64_t hwm_pages);

#endif
