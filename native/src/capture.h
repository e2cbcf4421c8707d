/* capture.h -- a consistent copy of what is uncommitted: pages, table entries, freed pages.
 *
 * Taken in one short stop of the world. A commit takes the dirty set into flight with it; a
 * savepoint leaves the set where it is. Compare, diff and checksum work from the copy, never from
 * the arena: what is read twice while it changes would not match its own checksum.
 */
#ifndef DH_CAPTURE_H
#define DH_CAPTURE_H

#include "heap.h"

typedef struct {
    uint8_t *bytes;
    size_t size;
    uint32_t entries_count, payload_bytes;
} dh_chunk;

/* What the table says of one page whose entry had changed when the capture was taken. */
typedef struct {
    dh_pgno pgno;
    dh_table_entry entry;
} dh_captured_entry;

typedef struct dh_staged_extent dh_staged_extent; /* precopy.h */

struct dh_capture {
    dh_bits flight;  /* data pages taken from the commit cursor (commit only)     */
    dh_bits changed; /* allocation entries taken (commit), or dh_show_state's own     */
    uint64_t limit;  /* pages both sets cover                                     */
    dh_bits staged;  /* pages taken ahead of the stop: staged base files hold them */
    bool is_commit;

    dh_pgno *pages; /* captured pages, ascending; pages of the table at the end  */
    uint8_t *bytes; /* pages_count x DH_PAGE_BYTES, in the order of pages        */
    size_t pages_count, pages_room;
    size_t populated; /* pages of `bytes` touched before                           */
    dh_pgno *freed;   /* pages that the last commit held and that are free now     */
    size_t freed_count, freed_room;
    dh_captured_entry *entries; /* savepoints only: ascending                       */
    size_t entries_count, entries_room;

    dh_staged_extent *staged_extents; /* ascending                                    */
    size_t staged_count;
    uint32_t *plan; /* extents of the present round                              */
    size_t plan_count;

    dh_state state;
    dh_chunk *chunks;
    size_t chunks_count;
    uint32_t *rebased; /* extents to be rewritten instead of diffed, ascending      */
    size_t rebased_count;
    dh_commit_stats stats;
};

/* The captured bytes of a page, or NULL. */
const uint8_t *dh_capture_page(const dh_capture *capture, dh_pgno pgno);
bool dh_capture_has_freed(const dh_capture *capture, dh_pgno pgno);
/* The captured entry of a page, or NULL (savepoints). */
const dh_captured_entry *dh_capture_entry(const dh_capture *capture, dh_pgno pgno);
/* Captured pages [*from_out, *to_out) lie in that extent; the same of freed ones. */
void dhi_capture_pages_of(const dh_capture *capture, uint32_t extent_no, size_t *from_out,
                          size_t *to_out);
void dhi_capture_freed_of(const dh_capture *capture, uint32_t extent_no, size_t *from_out,
                          size_t *to_out);

/* --- capture_room.c --------------------------------------------------------------------------- */
int dhi_capture_new(dh_heap *heap, bool is_commit, dh_capture **capture_out) DH_MUST_USE;
/* Room for that many pages in all. */
int dhi_capture_reserve(dh_capture *capture, size_t wanted) DH_MUST_USE;
/* Touch the pages that the stop is about to write. A kernel without the advice faults later. */
void dhi_capture_populate(dh_capture *capture, size_t pages);
/* Keep the buffers for the next capture, or free them. */
void dhi_capture_recycle(dh_heap *heap, dh_capture *capture);
void dhi_capture_free(dh_capture *capture);

#endif
