/* capture_room.c -- the memory of a capture: made, kept for the next one, freed; and looking up in it.
 *
 * Contract: capture.h. Must know nothing of how a capture is taken.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "capture.h"
#include "precopy.h"

/* Buffers up to this are kept from one commit to the next: fresh memory costs more than the copy. */
#define SPARE_PAGES_MAX 16384u

/* --- memory ---------------------------------------------------------------------------------------- */

static void unmap_bytes(dh_capture *capture)
{
    if (capture->bytes != NULL)
        munmap(capture->bytes, capture->pages_room * (size_t)DH_PAGE_BYTES);
    capture->bytes = NULL;
}

int dhi_capture_reserve(dh_capture *capture, size_t wanted)
{
    if (wanted <= capture->pages_room)
        return 0;
    size_t room = wanted + wanted / 4 + 64;
    dh_pgno *pages = realloc(capture->pages, room * sizeof *pages);
    if (pages == NULL)
        return ENOMEM;
    capture->pages = pages;
    uint8_t *bytes = mmap(NULL, room * (size_t)DH_PAGE_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return ENOMEM;
    memcpy(bytes, capture->bytes ? capture->bytes : bytes,
           capture->pages_count * (size_t)DH_PAGE_BYTES);
    unmap_bytes(capture);
    capture->bytes = bytes;
    capture->pages_room = room;
    capture->populated = capture->pages_count;
    return 0;
}

void dhi_capture_populate(dh_capture *capture, size_t pages)
{
    size_t count = pages < capture->pages_room ? pages : capture->pages_room;
    if (count <= capture->populated)
        return;
    (void)madvise(capture->bytes + capture->populated * (size_t)DH_PAGE_BYTES,
                  (count - capture->populated) * (size_t)DH_PAGE_BYTES, MADV_POPULATE_WRITE);
    capture->populated = count;
}

static void forget_results(dh_capture *capture)
{
    for (size_t i = 0; i < capture->chunks_count; i++)
        free(capture->chunks[i].bytes);
    dhi_staged_forget(capture);
    free(capture->chunks);
    free(capture->rebased);
    capture->chunks = NULL;
    capture->rebased = NULL;
    capture->chunks_count = capture->rebased_count = 0;
    capture->pages_count = capture->freed_count = capture->entries_count = 0;
    capture->limit = 0;
    memset(&capture->stats, 0, sizeof capture->stats);
}

void dhi_capture_free(dh_capture *capture)
{
    if (capture == NULL)
        return;
    forget_results(capture);
    unmap_bytes(capture);
    dh_bits_finish(&capture->flight);
    dh_bits_finish(&capture->changed);
    dh_bits_finish(&capture->staged);
    free(capture->staged_extents);
    free(capture->plan);
    free(capture->pages);
    free(capture->freed);
    free(capture->entries);
    free(capture);
}

int dhi_capture_new(dh_heap *heap, bool is_commit, dh_capture **capture_out)
{
    dh_capture *capture = heap->spare;
    int rc;

    heap->spare = NULL;
    if (capture == NULL) {
        capture = calloc(1, sizeof *capture);
        if (capture == NULL)
            return ENOMEM;
        rc = dh_bits_init(&capture->flight, heap->arena.capacity_pages);
        if (rc == 0)
            rc = dh_bits_init(&capture->changed, heap->arena.capacity_pages);
        if (rc == 0)
            rc = dh_bits_init(&capture->staged, heap->arena.capacity_pages);
        if (rc != 0) {
            dhi_capture_free(capture);
            return rc;
        }
    }
    capture->is_commit = is_commit;
    *capture_out = capture;
    return 0;
}

void dhi_capture_recycle(dh_heap *heap, dh_capture *capture)
{
    uint64_t limit = capture->limit;
    if (heap->spare != NULL || capture->pages_room > SPARE_PAGES_MAX) {
        dhi_capture_free(capture);
        return;
    }
    forget_results(capture);
    dh_bits_clear_all(&capture->flight, limit);
    dh_bits_clear_all(&capture->changed, limit);
    dh_bits_clear_all(&capture->staged, limit);
    heap->spare = capture;
}

/* --- looking things up ---------------------------------------------------------------------------------- */

static int compare_pgno(const void *a, const void *b)
{
    dh_pgno x = *(const dh_pgno *)a, y = *(const dh_pgno *)b;
    return (x > y) - (x < y);
}

const uint8_t *dh_capture_page(const dh_capture *capture, dh_pgno pgno)
{
    const dh_pgno *hit = capture->pages_count == 0
                             ? NULL
                             : bsearch(&pgno, capture->pages, capture->pages_count,
                                       sizeof *capture->pages, compare_pgno);
    return hit == NULL ? NULL : capture->bytes + (size_t)(hit - capture->pages) * DH_PAGE_BYTES;
}

bool dh_capture_has_freed(const dh_capture *capture, dh_pgno pgno)
{
    return capture->freed_count != 0 && bsearch(&pgno, capture->freed, capture->freed_count,
                                                sizeof *capture->freed, compare_pgno) != NULL;
}

const dh_captured_entry *dh_capture_entry(const dh_capture *capture, dh_pgno pgno)
{
    /* pgno is the first field of an entry */
    return capture->entries_count == 0 ? NULL
                                       : bsearch(&pgno, capture->entries, capture->entries_count,
                                                 sizeof *capture->entries, compare_pgno);
}

static size_t place_of(const dh_pgno *pages, size_t count, uint64_t pgno)
{
    size_t from = 0;
    while (from < count) {
        size_t middle = from + (count - from) / 2;
        if (pages[middle] < pgno)
            from = middle + 1;
        else
            count = middle;
    }
    return from;
}

void dhi_capture_pages_of(const dh_capture *capture, uint32_t extent_no, size_t *from_out,
                          size_t *to_out)
{
    uint64_t first = (uint64_t)extent_no * DH_EXTENT_PAGES;
    *from_out = place_of(capture->pages, capture->pages_count, first);
    *to_out = place_of(capture->pages, capture->pages_count, first + DH_EXTENT_PAGES);
}

void dhi_capture_freed_of(const dh_capture *capture, uint32_t extent_no, size_t *from_out,
                          size_t *to_out)
{
    uint64_t first = (uint64_t)extent_no * DH_EXTENT_PAGES;
    *from_out = place_of(capture->freed, capture->freed_count, first);
    *to_out = place_of(capture->freed, capture->freed_count, first + DH_EXTENT_PAGES);
}
