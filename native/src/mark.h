/* mark.h -- tracing: which cells can be reached.
 *
 * One tracer for all collections. What it starts from (roots, cells on written pages) and where marks
 * go is the caller's: a page's marks are bits at object starts, outside the arena, so that marking
 * dirties nothing. It may run beside a mutator: words, bits and kinds are read as atomics, and what
 * is not allocated when its ref is followed is left alone.
 */
#ifndef DH_MARK_H
#define DH_MARK_H

#include "heap.h"

#define DHI_MARK_QUEUE 16u

typedef struct {
    const dh_heap *heap;
    dh_page_bits *bits; /* by pgno: marked object starts                                     */
    dh_word *stack;     /* refs not followed yet                                             */
    size_t stack_count, stack_room;
    dh_word queue[DHI_MARK_QUEUE]; /* refs on their way from the stack, whose lines are on theirs */
    unsigned queue_at, queue_count;
    dh_bits overflow; /* pages with words that did not fit the stack                        */
    uint64_t overflow_at;
    bool has_overflow;
    uint64_t marked_cells_count, roots_count, rescanned_cells_count, overflow_rounds_count;
} dh_mark;

/* The words of a page: what a page found again may push onto the empty stack. */
#define DHI_MARK_STACK_MIN (DH_PAGE_BYTES / sizeof(dh_word))

/* bits: room for every page of the capacity. stack_room: refs, at least DHI_MARK_STACK_MIN; what does
 * not fit is found again page by page. */
int dh_mark_init(dh_mark *mark, const dh_heap *heap, dh_page_bits *bits, size_t stack_room);
void dh_mark_finish(dh_mark *mark);
/* Mark what the root and the handles refer to (world stopped). */
void dh_mark_roots(dh_mark *mark);
/* Mark what the marked cells of a page refer to; of a run, only the words on this page. */
void dh_mark_page(dh_mark *mark, uint64_t pgno);
/* The same for all members of a set. */
void dh_mark_pages(dh_mark *mark, const dh_bits *pages);
/* Mark one cell and, later, what it refers to. */
void dh_mark_ref(dh_mark *mark, dh_word w);
/* Follow refs until all are followed (true), or about so many. */
bool dh_mark_drain(dh_mark *mark, uint64_t refs_max);
/* Whether a cell was marked. */
bool dh_mark_has(const dh_page_bits *bits, dh_off off);

#endif
