/* precopy.c -- the bulk of a big commit goes to base files before the world is stopped.
 *
 * As a virtual machine is moved while it runs (Clark et al. 2005): a scan re-arms every page, then
 * extents that were written almost wholly are copied, one at a time, into their new base files.
 * Who writes meanwhile is seen by the next scan: after some rounds the stop finds only that, and it
 * is put into the staged files (dh_extent_patch) before anything names them. So the commit is still
 * the one cut made in the stop, and memory holds one extent and what the stop copies.
 *
 * Must never believe a copy made here: it may be torn, or of a page that is free by now. It counts
 * only because a page that the stop does not find written has not changed since before the copy.
 * Must never stop the world for longer than a look at the high-water mark.
 */
#include "precopy.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "encode.h"
#include "gate.h"
#include "proof.h"

/* --- staged extents, ascending --------------------------------------------------------------- */

/* The place of an extent, or where it would stand. */
static size_t staged_place(const dh_capture *capture, uint32_t extent_no)
{
    size_t from = 0, to = capture->staged_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (capture->staged_extents[middle].extent_no < extent_no)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static dh_staged_extent *staged_find(const dh_capture *capture, uint32_t extent_no)
{
    size_t place = staged_place(capture, extent_no);
    if (place == capture->staged_count || capture->staged_extents[place].extent_no != extent_no)
        return NULL;
    return &capture->staged_extents[place];
}

static int staged_make(dh_capture *capture, uint32_t extent_no, dh_staged_extent **staged_out)
{
    size_t place = staged_place(capture, extent_no);
    dh_staged_extent *items =
        realloc(capture->staged_extents, (capture->staged_count + 1) * sizeof *items);
    if (items == NULL)
        return ENOMEM;
    memmove(items + place + 1, items + place, (capture->staged_count - place) * sizeof *items);
    items[place] = (dh_staged_extent){.extent_no = extent_no};
    capture->staged_extents = items;
    capture->staged_count++;
    *staged_out = &items[place];
    return 0;
}

static void staged_unmap(dh_staged_extent *staged)
{
    if (staged->view != NULL)
        munmap((void *)(uintptr_t)staged->view, staged->pages_count * (size_t)DH_PAGE_BYTES);
    staged->view = NULL;
}

void dhi_staged_forget(dh_capture *capture)
{
    for (size_t i = 0; i < capture->staged_count; i++)
        staged_unmap(&capture->staged_extents[i]);
    capture->staged_count = capture->plan_count = 0;
}

bool dhi_is_staged(const dh_capture *capture, uint32_t extent_no)
{
    const dh_staged_extent *staged = staged_find(capture, extent_no);
    return staged != NULL && staged->view != NULL;
}

const uint8_t *dhi_staged_page(const dh_capture *capture, dh_pgno pgno)
{
    const dh_staged_extent *staged = staged_find(capture, dh_extent_of(pgno));
    uint32_t index = pgno % DH_EXTENT_PAGES;
    if (staged == NULL || staged->view == NULL || index >= staged->pages_count)
        return NULL;
    return staged->view + index * (size_t)DH_PAGE_BYTES;
}

/* --- a round --------------------------------------------------------------------------------- */

static void count_run(void *context, dh_pgno first, uint64_t count)
{
    (void)first;
    *(uint64_t *)context += count;
}

static uint64_t mark_now(const dh_heap *heap)
{
    dhi_world_stop(heap);
    uint64_t hwm_pages = heap->arena.hwm_pages;
    dhi_world_resume(heap);
    return hwm_pages;
}

/* Whether the stop would copy more than the window. The compare tracker's look costs as much as its
 * scan: it is asked only when so much is new in any case. */
static bool is_big(const dh_heap *heap, uint64_t hwm_pages, uint64_t window_pages)
{
    uint64_t pages = 0;
    if (hwm_pages <= window_pages)
        return false;
    if (dh_watch_tracker(heap->watch) == DH_TRACKER_COMPARE)
        return hwm_pages - heap->committed.hwm_pages > window_pages;
    pages = dh_watch_count(heap->watch, heap->commit_cursor, hwm_pages);
    /* What cannot be looked at now is left for the scan to report. */
    (void)dh_watch_peek(heap->watch, hwm_pages, count_run, &pages);
    return pages > window_pages;
}

static int add_to_plan(dh_capture *capture, uint32_t extent_no)
{
    uint32_t *plan = realloc(capture->plan, (capture->plan_count + 1) * sizeof *plan);
    if (plan == NULL)
        return ENOMEM;
    capture->plan = plan;
    plan[capture->plan_count++] = extent_no;
    return 0;
}

/* Extents written so fully that a look at their changes pays, and staged ones written since. */
static int make_plan(dh_capture *capture, const dh_bits *written)
{
    int rc = 0;
    capture->plan_count = 0;
    for (uint64_t first = 0; rc == 0 && first < capture->limit; first += DH_EXTENT_PAGES) {
        uint64_t end = first + DH_EXTENT_PAGES;
        uint64_t pages =
            dh_bits_count_part(written, first, end < capture->limit ? end : capture->limit);
        uint32_t extent_no = dh_extent_of((dh_pgno)first);
        const dh_staged_extent *staged = staged_find(capture, extent_no);
        if (pages > 0 &&
            (staged != NULL ? staged->view != NULL
                            : dh_rebase_is_cheaper(capture, extent_no, pages * DH_PAGE_BYTES)))
            rc = add_to_plan(capture, extent_no);
    }
    return rc;
}

int dh_stage_round(dh_heap *heap, uint64_t window_pages, dh_capture **capture_inout,
                   size_t *count_out)
{
    dh_capture *capture = *capture_inout;
    uint64_t scanned = 0;
    int rc = dhi_verb_gate(heap);

    *count_out = 0;
    if (rc != 0)
        return rc;
    uint64_t hwm_pages = mark_now(heap);
    if (capture == NULL) {
        if (!is_big(heap, hwm_pages, window_pages))
            return 0;
        rc = dhi_capture_new(heap, true, capture_inout);
        if (rc != 0)
            return rc;
        capture = heap->in_flight = *capture_inout;
    }
    DH_ASSERT(capture == heap->in_flight && capture->chunks_count == 0);
    capture->limit = capture->state.hwm_pages = hwm_pages;
    rc = dh_watch_scan(heap->watch, hwm_pages, &scanned);
    if (rc != 0)
        return dhi_fail(heap, rc,
                        "the kernel could not say which pages were written; they all count as "
                        "written in the next commit");
    if (dh_watch_count(heap->watch, heap->commit_cursor, hwm_pages) <= window_pages)
        return 0;
    dh_watch_copy(heap->watch, heap->commit_cursor, &capture->flight, hwm_pages);
    rc = make_plan(capture, &capture->flight);
    dh_bits_clear_all(&capture->flight, hwm_pages); /* a copy: the cursor still has them */
    *count_out = rc == 0 ? capture->plan_count : 0;
    return rc;
}

uint32_t dh_stage_extent(const dh_capture *capture, size_t index)
{
    DH_ASSERT(index < capture->plan_count);
    return capture->plan[index];
}

/* --- one extent ------------------------------------------------------------------------------ */

/* Free pages are nothing to copy; but only the stop can say whether it still is one. */
static bool looks_free(const dh_heap *heap, uint64_t pgno)
{
    unsigned kind = __atomic_load_n(&heap->alloc.kind[pgno], __ATOMIC_RELAXED);
    return kind == DH_KIND_FREE || kind == DH_KIND_PINNED;
}

static void leave_to_the_stop(dh_heap *heap, dh_capture *capture, uint64_t pgno)
{
    dh_bits_clear(&capture->flight, pgno);
    (void)dh_watch_mark(heap->watch, (dh_pgno)pgno, 1);
}

/* Its pages in flight, but for those that the staged file holds as they are. */
static int copy_written(dh_heap *heap, dh_capture *capture, uint64_t first, uint64_t limit)
{
    int rc = dhi_capture_reserve(capture, DH_EXTENT_PAGES);
    capture->pages_count = 0;
    for (uint64_t p = dh_bits_next(&capture->flight, first, limit); rc == 0 && p < limit;
         p = dh_bits_next(&capture->flight, p + 1, limit)) {
        uint8_t *copy = capture->bytes + capture->pages_count * (size_t)DH_PAGE_BYTES;
        const uint8_t *staged = dhi_staged_page(capture, (dh_pgno)p);
        if (p == 0)
            continue; /* never an object */
        if (looks_free(heap, p)) {
            leave_to_the_stop(heap, capture, p);
            continue;
        }
        memcpy(copy, dh_arena_page(&heap->arena, (dh_pgno)p), DH_PAGE_BYTES);
        dhi_proof_take(heap, (dh_pgno)p, copy);
        if (staged == NULL || memcmp(copy, staged, DH_PAGE_BYTES) != 0)
            capture->pages[capture->pages_count++] = (dh_pgno)p;
    }
    return rc;
}

void dhi_stats_unstage(const dh_heap *heap, const dh_capture *capture, dh_pgno pgno,
                       dh_commit_stats *stats)
{
    const uint8_t *staged =
        dh_bits_test(&capture->staged, pgno) ? dhi_staged_page(capture, pgno) : NULL;
    if (staged == NULL)
        return;
    uint32_t words = dh_page_changed_words(heap, pgno, staged);
    stats->pages_count -= words != 0;
    stats->data_pages_count -= words != 0;
    stats->changed_bytes -= words * (uint64_t)8;
}

void dhi_stats_restage(const dh_heap *heap, const dh_capture *capture, dh_pgno pgno,
                       const uint8_t *bytes, dh_commit_stats *stats)
{
    uint32_t words = dh_page_changed_words(heap, pgno, bytes);
    dhi_stats_unstage(heap, capture, pgno, stats);
    stats->pages_count += words != 0;
    stats->data_pages_count += words != 0;
    stats->changed_bytes += words * (uint64_t)8;
}

static void count_changes(const dh_heap *heap, const dh_capture *capture, dh_commit_stats *stats)
{
    for (size_t i = 0; i < capture->pages_count; i++)
        dhi_stats_restage(heap, capture, capture->pages[i],
                          capture->bytes + i * (size_t)DH_PAGE_BYTES, stats);
}

/* What was in flight is staged now. */
static void settle_flight(dh_capture *capture, uint64_t first, uint64_t limit)
{
    dh_bits_or_part(&capture->staged, &capture->flight, first, limit);
    dh_bits_clear_part(&capture->flight, first, limit);
    capture->pages_count = 0;
}

/* The stop will capture what changed, as in a small commit. Pages as they were in the last commit,
 * and memory that was handed out and never touched, count as staged: there is nothing to write. */
static int decline(dh_heap *heap, dh_capture *capture, uint32_t extent_no, uint64_t first,
                   uint64_t limit)
{
    dh_staged_extent *unused;
    for (size_t i = 0; i < capture->pages_count; i++) {
        dh_pgno pgno = capture->pages[i];
        if (dh_page_changed_words(heap, pgno, capture->bytes + i * (size_t)DH_PAGE_BYTES) == 0) {
            dh_bits_set(&capture->staged, pgno);
            dh_bits_clear(&capture->flight, pgno);
        }
    }
    dh_watch_put_back_part(heap->watch, heap->commit_cursor, &capture->flight, first, limit);
    dh_bits_clear_part(&capture->flight, first, limit);
    capture->pages_count = 0;
    return staged_make(capture, extent_no, &unused);
}

int dh_stage_take(dh_heap *heap, dh_capture *capture, uint32_t extent_no, int *verdict_out)
{
    uint64_t first = (uint64_t)extent_no * DH_EXTENT_PAGES, limit = first + DH_EXTENT_PAGES;
    dh_commit_stats found = capture->stats;

    if (limit > capture->limit)
        limit = capture->limit;
    dh_watch_take_part(heap->watch, heap->commit_cursor, &capture->flight, first, limit);
    dh_bits_or_part(&heap->private_pages, &capture->flight, first, limit);
    int rc = copy_written(heap, capture, first, limit);
    if (rc != 0)
        return rc;
    capture->stats.scanned_pages_count += dh_bits_count_part(&capture->flight, first, limit);
    count_changes(heap, capture, &found);
    *verdict_out = DH_STAGE_NONE;
    if (dhi_is_staged(capture, extent_no)) {
        if (capture->pages_count == 0)
            settle_flight(capture, first, limit);
        else
            *verdict_out = DH_STAGE_PATCH;
    } else if (dh_rebase_is_cheaper(capture, extent_no,
                                    found.changed_bytes - capture->stats.changed_bytes)) {
        *verdict_out = DH_STAGE_WRITE;
    } else {
        return decline(heap, capture, extent_no, first, limit);
    }
    capture->stats.changed_bytes = found.changed_bytes;
    capture->stats.pages_count = found.pages_count;
    capture->stats.data_pages_count = found.data_pages_count;
    return 0;
}

/* Shared, so that what is put into the file later is seen. */
static int staged_map(dh_staged_extent *staged, int fd, uint64_t file_bytes)
{
    uint32_t pages = (uint32_t)(file_bytes / (DH_PAGE_BYTES + 4)); /* 4: its checksum behind */
    const uint8_t *view = mmap(NULL, pages * (size_t)DH_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (view == MAP_FAILED)
        return errno;
    staged_unmap(staged);
    staged->view = view;
    staged->pages_count = pages;
    return 0;
}

int dh_stage_keep(dh_heap *heap, dh_capture *capture, uint32_t extent_no, int fd,
                  uint64_t file_bytes)
{
    uint64_t first = (uint64_t)extent_no * DH_EXTENT_PAGES, limit = first + DH_EXTENT_PAGES;
    dh_staged_extent *staged = staged_find(capture, extent_no);
    int rc = staged != NULL ? 0 : staged_make(capture, extent_no, &staged);

    (void)heap;
    if (rc == 0)
        rc = staged_map(staged, fd, file_bytes);
    if (rc == 0)
        settle_flight(capture, first, limit < capture->limit ? limit : capture->limit);
    return rc;
}

int dh_stage_is_touched(const dh_capture *capture, uint32_t extent_no)
{
    size_t from, to;
    dhi_capture_pages_of(capture, extent_no, &from, &to);
    if (from < to)
        return 1;
    dhi_capture_freed_of(capture, extent_no, &from, &to);
    return from < to;
}
