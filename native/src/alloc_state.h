/* alloc_state.h -- the allocator's volatile state. Only alloc.c, pages.c, table.c,
 * show.c and the collector (mark.c, sweep.c, collect.c, cycle.c) look inside.
 *
 * Per page, indexed by pgno, in lazily touched memory beside the arena:
 *   kind[p]          what the page holds
 *   run[p]           head of a run: pages in it; continuation: distance back to the head
 *   old[p], fresh[p] 256 bits, one per granule; for a run only bit 0 of its head
 *   free_cells[p]    free cells of a cell page (exact)
 *   flags[p]         PAGE_* below
 */
#ifndef DH_ALLOC_STATE_H
#define DH_ALLOC_STATE_H

#include "alloc.h"

#define DH_GRANULES_PER_PAGE (DH_PAGE_BYTES / DH_GRANULE_BYTES)
#define DH_PAGE_BIT_WORDS (DH_GRANULES_PER_PAGE / 64u)

enum {
    DH_PAGE_LISTED = 1,  /* stands in its class's partial or hot list               */
    DH_PAGE_HOT = 2,     /* allocated into since the last commit: dirty anyway      */
    DH_PAGE_ZERO = 4,    /* free and known to read as zeros                         */
    DH_PAGE_RELEASED = 8 /* free and given back to its file: bytes undefined       */
};

typedef struct {
    uint64_t bits[DH_PAGE_BIT_WORDS];
} dh_page_bits;

/* What a marker reads beside the mutator (cycle.h): kind, run, old, fresh, and the high-water mark. */
#define DHI_SHARED_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define DHI_SHARED_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

/* A stack of page numbers; entries may be out of date and are checked when popped. */
typedef struct {
    dh_pgno *items;
    size_t count;
    size_t room;
} dh_pgno_stack;

/* Where a class allocates now. */
typedef struct {
    dh_pgno pgno;          /* 0: none                                                 */
    uint32_t word;         /* index into the page's bit words                         */
    uint64_t free_bits;    /* free object starts in that word not yet handed out      */
    dh_pgno resume;        /* where it stood when the last commit came; 0: none       */
    dh_pgno_stack hot;     /* pages with room that are dirty anyway                   */
    dh_pgno_stack partial; /* other pages with room                                 */
    uint64_t cells_count;  /* cells in all pages of this class and content          */
    uint64_t free_count;   /* of these, free                                        */
} dh_class_cursor;

/* A run that exported views may write to, whoever owns its pages. */
typedef struct {
    dh_pgno first;
    uint32_t pages_count;
    uint32_t exports_count;
} dh_pin;

struct dh_alloc {
    uint8_t *kind;
    uint32_t *run;
    dh_page_bits *old;
    dh_page_bits *fresh;
    uint16_t *free_cells;
    uint8_t *flags;
    dh_bits changed;     /* pages whose kind or bits may differ from the table     */
    dh_bits fresh_pages; /* all pages with fresh bits, and some without           */
    uint64_t capacity_pages;
    uint64_t free_pages_count; /* kind FREE below the mark                         */
    uint64_t allocated_bytes;
    dh_pgno run_floor[32]; /* by log2 of the length: no free run that long below it  */
    dh_class_cursor cursors[DH_CLASSES_COUNT * 2];
    uint64_t taken_bytes; /* room that classes and runs took since the last collection */
    uint64_t due_bytes;   /* where another is due; 0: never                     */
    bool is_due_told;
    dh_off *journal; /* NULL: closed */
    size_t journal_count, journal_room;
    bool journal_open;
    dh_pin *pins; /* runs with exported views, unsorted                     */
    size_t pins_count, pins_room;
};

int dh_alloc_init(dh_alloc *alloc, uint64_t capacity_pages);
void dh_alloc_finish(dh_alloc *alloc);
/* Forget cursors and lists and count everything anew over [0, hwm): after load. */
int dh_alloc_rebuild(dh_heap *heap);
/* Take one page's contents out of the totals (add false) before kind or bits are changed from
 * outside, and count it anew (add true) afterwards. */
void dh_alloc_count_page(dh_heap *heap, dh_pgno pgno, bool add);
/* Let its class find a page that has room. */
void dh_alloc_list_page(dh_heap *heap, dh_pgno pgno);
/* Leave the pages that the cursors stand on; each is the first choice when its class goes on:
 * it costs one dirty page, as a fresh one would. */
void dh_alloc_park_cursors(dh_heap *heap);
/* Forget the cursors; their pages are about to be counted and listed anew. */
void dh_alloc_drop_cursors(dh_heap *heap);
/* Commit boundary: the pages in the set are hot no more. */
void dh_alloc_cool(dh_heap *heap, const dh_bits *pages, uint64_t limit);
/* Object starts that a cell page of this kind may have. */
extern dh_page_bits dh_class_starts[DH_CLASSES_COUNT];
uint32_t dh_class_cells(unsigned kind); /* cells per page of that kind */

/* --- pages.c ------------------------------------------------------------------------------------ */
/* Take pages: a free run below the mark, else above it. fresh_only: only pages that were free at
 * the last commit and untouched since. On return kind is still FREE; the caller sets it. */
int dh_pages_take(dh_heap *heap, uint64_t count, bool fresh_only, dh_pgno *pgno_out) DH_MUST_USE;
/* Give pages back: kind FREE, bits cleared, entered as changed. */
void dh_pages_give(dh_heap *heap, dh_pgno first, uint64_t count);
bool dh_page_is_pinned(const dh_alloc *alloc, dh_pgno pgno);
/* Views of a run come and go; when the last goes, pages that nobody owns become free. */
int dh_pin_add(dh_alloc *alloc, dh_pgno first, uint32_t pages_count) DH_MUST_USE;
void dh_pin_remove(dh_alloc *alloc, dh_pgno first);
/* Return long free runs to the kernel, of so many pages in all at least if there are (world
 * stopped). Returns how many. */
uint64_t dh_pages_release(dh_heap *heap, uint64_t pages_max);
int dh_pgno_stack_grow(dh_pgno_stack *stack);
int dh_pgno_stack_push(dh_pgno_stack *stack, dh_pgno pgno);
static inline bool dh_page_bits_empty(const dh_page_bits *a)
{
    return (a->bits[0] | a->bits[1] | a->bits[2] | a->bits[3]) == 0;
}

#endif
