/* backlog.c -- deltas by page: entering chunks, finding a page's entries, applying them.
 *
 * Contract: backlog.h. Must trust nothing of a chunk: every size is tested before it is used, and
 * what comes out of an application counts only if it has the checksum that its entry names.
 */
#include "backlog.h"

#include <stdlib.h>

#include "crc32c.h"
#include "delta.h"
#include "heap.h"
#include "lazy.h"

void dh_backlog_finish(dh_backlog *backlog)
{
    for (size_t i = 0; i < backlog->chunks_count; i++)
        free(backlog->chunks[i]);
    free(backlog->chunks);
    free(backlog->entries);
    free(backlog->slots);
    memset(backlog, 0, sizeof *backlog);
}

/* --- slots: open addressing by page number ------------------------------------------------------- */

/* Sixteen neighbours side by side, groups scattered: as in the overlay (image.c). */
static size_t slot_home(const dh_backlog *backlog, dh_pgno pgno)
{
    uint64_t group = (uint64_t)(pgno / 16) * 0x9e3779b97f4a7c15u >> 32;
    return (size_t)(group * 16 + pgno % 16) & (backlog->slots_count - 1);
}

static dh_backlog_slot *slot_place(const dh_backlog *backlog, dh_pgno pgno)
{
    size_t i = slot_home(backlog, pgno);
    while (backlog->slots[i].first != DH_BACKLOG_NONE && backlog->slots[i].pgno != pgno)
        i = (i + 1) & (backlog->slots_count - 1);
    return &backlog->slots[i];
}

dh_backlog_slot *dh_backlog_find(const dh_backlog *backlog, dh_pgno pgno)
{
    if (backlog->pages_count == 0)
        return NULL;
    dh_backlog_slot *slot = slot_place(backlog, pgno);
    return slot->first != DH_BACKLOG_NONE ? slot : NULL;
}

static int slots_reserve(dh_backlog *backlog, size_t pages)
{
    if (pages * 2 <= backlog->slots_count)
        return 0;
    dh_backlog old = *backlog;
    size_t count = old.slots_count ? old.slots_count : 1024;
    while (count < pages * 2)
        count *= 2;
    dh_backlog_slot *slots = malloc(count * sizeof *slots);
    if (slots == NULL)
        return ENOMEM;
    memset(slots, 0xff, count * sizeof *slots); /* first == DH_BACKLOG_NONE */
    backlog->slots = slots;
    backlog->slots_count = count;
    for (size_t i = 0; i < old.slots_count; i++) {
        if (old.slots[i].first != DH_BACKLOG_NONE)
            *slot_place(backlog, old.slots[i].pgno) = old.slots[i];
    }
    free(old.slots);
    return 0;
}

/* --- entering ------------------------------------------------------------------------------------ */

static int entries_reserve(dh_backlog *backlog, size_t more)
{
    size_t wanted = backlog->entries_count + more;
    if (wanted >= DH_BACKLOG_NONE)
        return DH_E_LIMIT;
    if (wanted <= backlog->entries_room)
        return 0;
    if (wanted < backlog->entries_room * 2)
        wanted = backlog->entries_room * 2;
    dh_backlog_entry *entries = realloc(backlog->entries, wanted * sizeof *entries);
    if (entries == NULL)
        return ENOMEM;
    backlog->entries = entries;
    backlog->entries_room = wanted;
    return 0;
}

static int keep_chunk(dh_backlog *backlog, const uint8_t *bytes, size_t size, uint8_t **kept_out)
{
    if (backlog->chunks_count == backlog->chunks_room) {
        size_t room = backlog->chunks_room ? backlog->chunks_room * 2 : 64;
        uint8_t **chunks = realloc(backlog->chunks, room * sizeof *chunks);
        if (chunks == NULL)
            return ENOMEM;
        backlog->chunks = chunks;
        backlog->chunks_room = room;
    }
    uint8_t *kept = malloc(size);
    if (kept == NULL)
        return ENOMEM;
    memcpy(kept, bytes, size);
    backlog->chunks[backlog->chunks_count++] = kept;
    *kept_out = kept;
    return 0;
}

/* Room was made before. */
static void enter(dh_backlog *backlog, const dh_delta_entry *entry, const uint8_t *payload)
{
    uint32_t index = (uint32_t)backlog->entries_count++;
    dh_backlog_slot *slot = slot_place(backlog, entry->pgno);
    bool is_new = slot->first == DH_BACKLOG_NONE;

    backlog->entries[index] =
        (dh_backlog_entry){payload, entry->checksum, DH_BACKLOG_NONE, entry->size, entry->form};
    if (is_new)
        backlog->pages_count++;
    else
        backlog->entries[slot->last].next = index;
    if (is_new ||
        entry->form != DH_PAGE_DIFF) /* says all of the page: what was before is nothing */
        slot->first = index;
    slot->pgno = entry->pgno;
    slot->last = index;
    slot->is_applied = false;
}

static int check_page(const dh_heap *heap, const dh_chunk_header *header, dh_pgno pgno)
{
    uint64_t index = pgno & ~DH_PGNO_TABLE;
    bool fits = pgno & DH_PGNO_TABLE ? (index + 1) * DH_PAGE_BYTES <= heap->table.reserved_bytes
                                     : index < heap->arena.capacity_pages;
    if (pgno == 0)
        return dhi_fail(heap, DH_E_CORRUPT, "commit %llu: a page 0",
                        (unsigned long long)header->commit_id);
    return fits ? 0
                : dhi_fail(heap, DH_E_FULL,
                           "the heap does not fit its capacity: pass a larger capacity=");
}

static bool is_in_base(const dh_heap *heap, const dh_chunk_header *header, dh_pgno pgno)
{
    const dh_extent *extent = dh_image_extent(heap, dh_extent_of(pgno));
    return extent != NULL && extent->version >= header->commit_id;
}

static int enter_chunk(dh_heap *heap, dh_backlog *backlog, const dh_chunk_header *header,
                       const uint8_t *chunk)
{
    const uint8_t *at = chunk + DH_CHUNK_HEADER_BYTES;
    const uint8_t *payload = at + (size_t)header->entries_count * DH_ENTRY_BYTES;
    size_t payload_left = header->payload_bytes;

    for (uint32_t i = 0; i < header->entries_count; i++, at += DH_ENTRY_BYTES) {
        dh_delta_entry entry;
        if (dh_entry_decode(at, &entry) != 0 || entry.size > payload_left)
            return dhi_fail(heap, DH_E_CORRUPT, "commit %llu: entry %u is damaged",
                            (unsigned long long)header->commit_id, i);
        int rc = check_page(heap, header, entry.pgno);
        if (rc != 0)
            return rc;
        if (!is_in_base(heap, header, entry.pgno)) {
            dh_extent *extent;
            rc = dh_image_extent_make(heap, dh_extent_of(entry.pgno), &extent);
            if (rc != 0)
                return rc;
            extent->has_backlog = true;
            enter(backlog, &entry, payload);
        }
        payload += entry.size;
        payload_left -= entry.size;
    }
    return 0;
}

int dh_backlog_add(dh_heap *heap, const uint8_t *bytes, size_t size)
{
    dh_backlog *backlog = &heap->lazy->backlog;
    dh_chunk_header header;
    uint8_t *chunk = NULL;

    if (dh_chunk_header_decode(bytes, size, &header) != 0)
        return dhi_fail(heap, DH_E_CORRUPT, "a delta chunk of %zu bytes is damaged", size);
    int rc = keep_chunk(backlog, bytes, size, &chunk);
    if (rc == 0)
        rc = entries_reserve(backlog, header.entries_count);
    if (rc == 0)
        rc = slots_reserve(backlog, backlog->pages_count + header.entries_count);
    return rc != 0 ? rc : enter_chunk(heap, backlog, &header, chunk);
}

/* --- applying ------------------------------------------------------------------------------------ */

static int apply_payload(uint8_t *page, const dh_backlog_entry *entry)
{
    switch (entry->form) {
    case DH_PAGE_WHOLE:
        memcpy(page, entry->payload, DH_PAGE_BYTES);
        return 0;
    case DH_PAGE_FREED:
        memset(page, 0, DH_PAGE_BYTES);
        return 0;
    case DH_PAGE_FRESH:
        memset(page, 0, DH_PAGE_BYTES);
        return dh_diff_apply(page, entry->payload, entry->size);
    default:
        return dh_diff_apply(page, entry->payload, entry->size);
    }
}

/* A diff says which words the page has afterwards, so an application that failed may be repeated,
 * and fails again. */
int dh_backlog_apply(dh_heap *heap, dh_backlog_slot *slot, uint8_t *page)
{
    const dh_backlog *backlog = &heap->lazy->backlog;
    const dh_backlog_entry *entry = NULL;
    int rc = 0;

    if (slot->is_applied)
        return 0;
    for (uint32_t i = slot->first; rc == 0 && i != DH_BACKLOG_NONE; i = entry->next) {
        entry = &backlog->entries[i];
        rc = apply_payload(page, entry);
    }
    if (rc != 0 || (entry->form != DH_PAGE_FREED && entry->checksum != dh_page_checksum(page)))
        return dhi_fail(heap, DH_E_CORRUPT,
                        "%spage %u does not fit what the commits changed in it: its base file or a "
                        "delta is damaged",
                        slot->pgno & DH_PGNO_TABLE ? "allocation table, " : "",
                        slot->pgno & ~DH_PGNO_TABLE);
    slot->is_applied = true;
    return 0;
}

bool dh_backlog_is_freed(const dh_backlog *backlog, const dh_backlog_slot *slot)
{
    return backlog->entries[slot->last].form == DH_PAGE_FREED;
}
