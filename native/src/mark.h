/* mark.h -- tracing: which cells can be reached from the root and the handles. */
#ifndef DH_MARK_H
#define DH_MARK_H

#include "heap.h"

/* One tracing run. The bits lie outside the arena: marking dirties nothing. */
typedef struct {
    dh_heap *heap;
    dh_page_bits *bits; /* by pgno; object starts */
    uint64_t bits_bytes;
    dh_off *stack;
    size_t stack_count, stack_room;
    dh_bits overflow; /* pages with marked cells that did not fit the stack */
    bool has_overflow;
    uint64_t roots_count, overflow_rounds_count;
} dh_mark;

/* stack_room: entries; what does not fit is found again page by page. */
int dh_mark_init(dh_mark *mark, dh_heap *heap, size_t stack_room);
void dh_mark_finish(dh_mark *mark);
/* Mark everything reachable (world stopped). */
void dh_mark_run(dh_mark *mark);

#endif
