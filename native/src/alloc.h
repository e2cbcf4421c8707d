/* alloc.h -- cells and runs of pages in the arena.
 *
 * A page holds cells of one size class and one content (words or raw bytes); larger objects own a
 * run of whole pages. Nothing about allocation is stored in the watched pages: per page a kind
 * byte, and two bitmaps with one bit per 16-byte granule, set at object starts:
 *
 *   old   marked by the last collection, or committed when the heap was opened
 *   fresh allocated since
 *   allocated == old or fresh
 *
 * The committed copy of kind and bits is the table (table.h), written at commits only. Freeing
 * touches no cell, a collection by itself dirties nothing. A new cell goes to a page known dirty,
 * then to a fresh page, then (when a quarter of the class is free) to partly filled ones; a freed
 * cell is not reused at once unless its page is dirty already.
 *
 * All functions need the world lock. Cells are handed out zeroed.
 */
#ifndef DH_ALLOC_H
#define DH_ALLOC_H

#include "arena.h"
#include "bits.h"

#define DH_GRANULE_BYTES 16u
#define DH_CELL_BYTES_MAX 2048u /* beyond: a run of pages */
#define DH_CLASSES_COUNT 22u

typedef enum { DH_REFS = 0, DH_RAW = 1 } dh_content;

/* Kind byte of a page. */
enum {
    DH_KIND_FREE = 0,
    DH_KIND_RESERVED = 1, /* page 0                                              */
    DH_KIND_CONT = 2,     /* second and later pages of a run                     */
    DH_KIND_PINNED = 3,   /* free, but an exported buffer may still write to it  */
    DH_KIND_RUN_REFS = 4, /* first page of a run of words                        */
    DH_KIND_RUN_RAW = 5,  /* first page of a run of bytes                        */
    DH_KIND_CELLS = 8     /* + class * 2 + content                               */
};
#define DH_KINDS_COUNT (DH_KIND_CELLS + 2u * DH_CLASSES_COUNT)

/* Bytes of a cell in a page of that kind; DH_PAGE_BYTES for the head of a run; 0 for the rest. */
extern const uint16_t dh_kind_bytes[256];

typedef struct dh_alloc dh_alloc; /* alloc_state.h */

/* A zeroed cell of at least bytes; beyond DH_CELL_BYTES_MAX a run of pages. */
int dh_cell_new(dh_heap *heap, size_t bytes, dh_content content, dh_off *off_out) DH_MUST_USE;
/* A zeroed run whose pages no rollback can give to somebody else (memory that is exported). */
int dh_run_new_exportable(dh_heap *heap, size_t bytes, dh_off *off_out) DH_MUST_USE;
/* Free a cell or run by its start. Freeing what is not allocated does nothing. */
void dh_cell_free(dh_heap *heap, dh_off off);
/* Usable bytes of the cell or run at off: its class size, or whole pages. 0: no such object. */
size_t dh_cell_bytes(const dh_heap *heap, dh_off off);
/* True for the start of an allocated cell or run; any off is allowed. */
bool dh_cell_is_allocated(const dh_heap *heap, dh_off off);
/* What dh_cell_new would give for this many bytes (to grow into the slack). */
size_t dh_cell_round(size_t bytes);

/* While a journal is open, allocations are remembered; abort frees them all. Not nested. */
void dh_journal_begin(dh_heap *heap);
void dh_journal_commit(dh_heap *heap);
void dh_journal_abort(dh_heap *heap);
/* Allocate something that an abort shall not take back: what stands in between is not remembered. */
bool dh_journal_suspend(dh_heap *heap);
void dh_journal_resume(dh_heap *heap, bool was_open);

#endif
