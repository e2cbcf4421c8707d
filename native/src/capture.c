/* capture.c -- stop the world, take the dirty set, copy its pages once, let the world go on.
 *
 * Must do nothing in the stop that can be done before or after it: memory for the copy is made and
 * touched beforehand from an estimate; comparing is left to encode.c.
 */
#include "capture.h"

#include <stdlib.h>

#include "delta.h"
#include "encode.h"
#include "gate.h"
#include "precopy.h"
#include "proof.h"

/* --- taking (world stopped) ------------------------------------------------------------------------------- */

static int add_page(dh_capture *capture, dh_pgno pgno, const uint8_t *bytes)
{
    int rc = dhi_capture_reserve(capture, capture->pages_count + 1);
    if (rc != 0)
        return rc;
    capture->pages[capture->pages_count] = pgno;
    memcpy(capture->bytes + capture->pages_count * (size_t)DH_PAGE_BYTES, bytes, DH_PAGE_BYTES);
    capture->pages_count++;
    return 0;
}

static int grow_array(void **items, size_t *room, size_t count, size_t item_bytes)
{
    if (count < *room)
        return 0;
    size_t wanted = *room ? *room * 2 : 256;
    void *grown = realloc(*items, wanted * item_bytes);
    if (grown == NULL)
        return ENOMEM;
    *items = grown;
    *room = wanted;
    return 0;
}

static int add_freed(dh_capture *capture, dh_pgno pgno)
{
    int rc = grow_array((void **)&capture->freed, &capture->freed_room, capture->freed_count,
                        sizeof *capture->freed);
    if (rc == 0)
        capture->freed[capture->freed_count++] = pgno;
    return rc;
}

static int add_entry(dh_capture *capture, dh_pgno pgno, const dh_table_entry *entry)
{
    int rc = grow_array((void **)&capture->entries, &capture->entries_room, capture->entries_count,
                        sizeof *capture->entries);
    if (rc == 0)
        capture->entries[capture->entries_count++] = (dh_captured_entry){pgno, *entry};
    return rc;
}

static bool entries_equal(const dh_table_entry *a, const dh_table_entry *b)
{
    return a->kind == b->kind && memcmp(a->value, b->value, sizeof a->value) == 0;
}

/* Pages that were written, and pages that came into use without a write. */
static int copy_data(dh_heap *heap, dh_capture *capture, const dh_bits *changed)
{
    const dh_bits *written = &capture->flight;
    uint64_t limit = capture->limit;
    uint64_t w = dh_bits_next(written, 0, limit), c = dh_bits_next(changed, 0, limit);
    int rc = 0;

    while (rc == 0 && (w < limit || c < limit)) {
        dh_pgno pgno = (dh_pgno)(w < c ? w : c);
        bool is_written = w == pgno, is_changed = c == pgno, was_free = true;
        bool is_staged = dh_bits_test(&capture->staged, pgno);
        unsigned kind = heap->alloc.kind[pgno];
        bool is_free = kind == DH_KIND_FREE || kind == DH_KIND_PINNED;

        if (is_changed) {
            dh_table_entry committed;
            dh_table_read(&heap->table, pgno, &committed);
            was_free = committed.kind == DH_KIND_FREE;
        }
        if (!is_free && kind != DH_KIND_RESERVED && (is_written || (was_free && !is_staged)))
            rc = add_page(capture, pgno, dh_arena_page(&heap->arena, pgno));
        else if (is_free && is_changed &&
                 (!was_free || (is_staged && dhi_is_staged(capture, dh_extent_of(pgno)))))
            rc = add_freed(capture, pgno);
        if (is_written)
            w = dh_bits_next(written, w + 1, limit);
        if (is_changed)
            c = dh_bits_next(changed, c + 1, limit);
    }
    return rc;
}

/* Pages of the table as they will be: the committed page with the changed entries put in. */
static int copy_table(dh_heap *heap, dh_capture *capture, const dh_bits *changed)
{
    uint64_t limit = capture->limit;
    uint32_t current = UINT32_MAX;
    uint8_t *page = NULL;

    for (uint64_t p = dh_bits_next(changed, 0, limit); p < limit;
         p = dh_bits_next(changed, p + 1, limit)) {
        dh_table_entry now, committed;
        dh_table_entry_now(heap, (dh_pgno)p, &now);
        dh_table_read(&heap->table, (dh_pgno)p, &committed);
        if (entries_equal(&now, &committed))
            continue;
        if (dh_table_page_of((dh_pgno)p) != current) {
            current = dh_table_page_of((dh_pgno)p);
            int rc =
                add_page(capture, current | DH_PGNO_TABLE, dh_table_page(&heap->table, current));
            if (rc != 0)
                return rc;
            page = capture->bytes + (capture->pages_count - 1) * (size_t)DH_PAGE_BYTES;
        }
        dh_table_encode(page, (uint32_t)p % DH_TABLE_ENTRIES_PER_PAGE, &now);
    }
    return 0;
}

static int copy_entries(dh_heap *heap, dh_capture *capture)
{
    const dh_bits *changed = &heap->alloc.changed;
    int rc = 0;
    for (uint64_t p = dh_bits_next(changed, 0, capture->limit); rc == 0 && p < capture->limit;
         p = dh_bits_next(changed, p + 1, capture->limit)) {
        dh_table_entry now;
        dh_table_entry_now(heap, (dh_pgno)p, &now);
        rc = add_entry(capture, (dh_pgno)p, &now);
    }
    return rc;
}

static void note_state(const dh_heap *heap, dh_capture *capture)
{
    capture->limit = heap->arena.hwm_pages;
    capture->state = (dh_state){heap->root, heap->arena.hwm_pages, heap->serial_next};
}

static void put_all_back(dh_heap *heap, dh_capture *capture)
{
    dh_watch_put_back(heap->watch, heap->commit_cursor, &capture->flight, capture->limit);
    dh_watch_put_back(heap->watch, heap->commit_cursor, &capture->staged, capture->limit);
    dh_bits_or(&heap->alloc.changed, &capture->changed, capture->limit);
}

static int take_for_commit(dh_heap *heap, dh_capture *capture)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t scan_began_ns = dhi_clock_ns();
    uint64_t scanned = 0;
    int rc = dh_watch_scan(heap->watch, heap->arena.hwm_pages, &scanned);

    capture->stats.scanned_pages_count += scanned;
    capture->stats.scan_ns = dhi_clock_ns() - scan_began_ns;
    if (rc != 0)
        return dhi_fail(heap, rc,
                        "the kernel could not say which pages were written; they all "
                        "count as written in the next commit");
    note_state(heap, capture);
    dh_watch_take(heap->watch, heap->commit_cursor, &capture->flight, capture->limit);
    dh_bits_or(&heap->private_pages, &capture->flight, capture->limit);
    dh_bits_or(&capture->changed, &alloc->changed, capture->limit);
    dh_bits_clear_all(&alloc->changed, capture->limit);
    rc = copy_data(heap, capture, &capture->changed);
    if (rc == 0)
        rc = copy_table(heap, capture, &capture->changed);
    if (rc == 0)
        rc = dhi_proof_check(heap, capture);
    if (rc == 0)
        dh_alloc_cool(heap, &capture->changed, capture->limit);
    return rc;
}

static int take_for_savepoint(dh_heap *heap, dh_capture *capture)
{
    int rc = dh_watch_scan(heap->watch, heap->arena.hwm_pages, NULL);
    if (rc != 0)
        return dhi_fail(heap, rc, "the kernel could not say which pages were written");
    note_state(heap, capture);
    dh_watch_copy(heap->watch, heap->commit_cursor, &capture->flight, capture->limit);
    rc = copy_data(heap, capture, &heap->alloc.changed);
    if (rc == 0)
        rc = copy_entries(heap, capture);
    return rc;
}

/* --- verbs -------------------------------------------------------------------------------------------------- */

static void count_run(void *context, dh_pgno first, uint64_t count)
{
    (void)first;
    *(uint64_t *)context += count;
}

/* Memory for about as many pages as the stop will copy. An estimate: more may be written until
 * then, and a failure to look is left for the scan to report. */
static int prepare(dh_heap *heap, dh_capture *capture)
{
    uint64_t expected = 64;
    if (dh_watch_tracker(heap->watch) != DH_TRACKER_COMPARE)
        (void)dh_watch_peek(heap->watch, heap->arena.hwm_pages, count_run, &expected);
    int rc = dhi_capture_reserve(capture, expected);
    if (rc == 0)
        dhi_capture_populate(capture, expected);
    return rc;
}

static int capture_take(dh_heap *heap, bool is_commit, dh_capture **capture_out)
{
    dh_capture *capture = is_commit ? heap->in_flight : NULL; /* with what was staged */
    int rc = dhi_verb_gate(heap);

    if (rc == 0 && capture == NULL)
        rc = dhi_capture_new(heap, is_commit, &capture);
    if (rc != 0)
        return rc;
    rc = prepare(heap, capture);
    if (rc == 0) {
        dhi_world_stop(heap);
        uint64_t stop_began_ns = dhi_clock_ns();
        rc = is_commit ? take_for_commit(heap, capture) : take_for_savepoint(heap, capture);
        if (rc != 0 && is_commit)
            put_all_back(heap, capture);
        capture->stats.stop_ns = dhi_clock_ns() - stop_began_ns;
        dhi_world_resume(heap);
    }
    if (rc == 0) {
        *capture_out = capture;
    } else if (capture != heap->in_flight) { /* else dh_commit_failed is still to come */
        dhi_capture_recycle(heap, capture);
    }
    return rc;
}

int dh_commit_capture(dh_heap *heap, dh_capture **capture_out)
{
    int rc = capture_take(heap, true, capture_out);
    if (rc == 0)
        heap->in_flight = *capture_out;
    return rc;
}

int dh_savepoint_take(dh_heap *heap, dh_capture **savepoint_out)
{
    return capture_take(heap, false, savepoint_out);
}

void dh_savepoint_drop(dh_heap *heap, dh_capture *savepoint)
{
    dhi_capture_recycle(heap, savepoint);
}

static int settle_entry(dh_heap *heap, const dh_capture *capture, const dh_delta_entry *entry,
                        const uint8_t *payload)
{
    if (entry->form == DH_PAGE_FREED)
        return dh_image_store(heap, entry->pgno, NULL);
    const uint8_t *bytes = dh_capture_page(capture, entry->pgno);
    if (entry->form == DH_PAGE_DIFF && !(entry->pgno & DH_PGNO_TABLE))
        return dh_image_advance(heap, entry->pgno, payload, entry->size, bytes);
    return dh_image_store(heap, entry->pgno, bytes);
}

static int settle_chunk(dh_heap *heap, const dh_capture *capture, const dh_chunk *chunk)
{
    dh_chunk_header header;
    int rc = dh_chunk_header_decode(chunk->bytes, chunk->size, &header);
    DH_ASSERT(rc == 0); /* our own */
    const uint8_t *at = chunk->bytes + DH_CHUNK_HEADER_BYTES;
    const uint8_t *payload = at + (size_t)header.entries_count * DH_ENTRY_BYTES;
    for (uint32_t i = 0; rc == 0 && i < header.entries_count; i++, at += DH_ENTRY_BYTES) {
        dh_delta_entry entry;
        rc = dh_entry_decode(at, &entry);
        DH_ASSERT(rc == 0);
        rc = settle_entry(heap, capture, &entry, payload);
        payload += entry.size;
    }
    return rc;
}

/* Stopped: the allocator asks the table which pages were free. */
static void settle_table(dh_heap *heap, const dh_capture *capture)
{
    dhi_world_stop(heap);
    for (size_t i = capture->pages_count; i > 0 && capture->pages[i - 1] & DH_PGNO_TABLE; i--)
        memcpy(dh_table_page(&heap->table, capture->pages[i - 1] & ~DH_PGNO_TABLE),
               capture->bytes + (i - 1) * DH_PAGE_BYTES, DH_PAGE_BYTES);
    dhi_world_resume(heap);
}

/* Pages of rebased extents have their image in the new base file already. */
int dh_commit_done(dh_heap *heap, dh_capture **capture_inout)
{
    dh_capture *capture = *capture_inout;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < capture->chunks_count; i++)
        rc = settle_chunk(heap, capture, &capture->chunks[i]);
    if (rc != 0)
        return rc;
    settle_table(heap, capture);
    heap->committed = capture->state;
    *capture_inout = heap->in_flight = NULL;
    dhi_capture_recycle(heap, capture);
    dhi_capture_free(heap->empty);
    heap->empty = NULL;
    return 0;
}

void dh_commit_failed(dh_heap *heap, dh_capture *capture)
{
    dhi_world_stop(heap);
    put_all_back(heap, capture);
    dhi_world_resume(heap);
    heap->in_flight = NULL;
    dhi_capture_recycle(heap, capture);
}

int dh_pending(dh_heap *heap, uint64_t *pages_out, uint64_t *changed_bytes_out)
{
    dh_capture *capture;

    *pages_out = *changed_bytes_out = 0;
    if ((heap->is_read_only || heap->lazy != NULL) && !heap->is_forked)
        return 0; /* nothing was stored */
    int rc = dh_savepoint_take(heap, &capture);
    if (rc != 0)
        return rc;
    *pages_out = capture->freed_count;
    for (size_t i = 0; i < capture->pages_count; i++) {
        uint32_t words =
            dh_page_changed_words(heap, capture->pages[i], capture->bytes + i * DH_PAGE_BYTES);
        *pages_out += words != 0;
        *changed_bytes_out += words * (uint64_t)8;
    }
    dh_savepoint_drop(heap, capture);
    return 0;
}

void dh_commit_state(const dh_capture *capture, dh_state *state_out)
{
    *state_out = capture->state;
}

void dh_commit_stats_read(const dh_capture *capture, dh_commit_stats *stats_out)
{
    *stats_out = capture->stats;
}
