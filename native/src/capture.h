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

struct dh_capture {
    dh_bits flight;  /* data pages taken from the commit cursor (commit only)     */
    dh_bits changed; /* allocation entries taken (commit), or dh_show_state's own     */
    uint64_t limit;  /* pages both sets cover                                     */
    bool is_commit;

    dh_pgno *pages; /* captured pages, ascending; pages of the table at the end  */
    uint8_t *bytes; /* pages_count x DH_PAGE_BYTES, in the order of pages        */
    size_t pages_count, pages_room;
    size_t populated; /* pages of `bytes` touched before                           */
    dh_pgno *freed;   /* pages that the last commit held and that are free now     */
    size_t freed_count, freed_room;
    dh_captured_entry *entries; /* savepoints only: ascending                       */
    size_t entries_count, entries_room;

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
void dhi_capture_free(dh_capture *capture);

#endif
