/* mark.c -- precise tracing over words.
 *
 * Contract: mark.h. Cells with content DH_REFS hold nothing but words, so the tracer needs no
 * knowledge of containers. A ref is followed only if its target is the start of an allocated cell
 * below the mark: damaged, stale or torn words cannot lead it astray. Must never store to the arena.
 *
 * A ref waits in a short queue between stack and test, while the lines it will touch are fetched:
 * Cher, Hosking, Vijaykumar, "Software prefetching for mark-sweep garbage collection", ASPLOS 2004.
 */
#include "mark.h"

#include <stdlib.h>

#define WORDS_PER_PAGE (DH_PAGE_BYTES / sizeof(dh_word))

int dh_mark_init(dh_mark *mark, const dh_heap *heap, dh_page_bits *bits, size_t stack_room)
{
    DH_ASSERT(stack_room >= DHI_MARK_STACK_MIN);
    memset(mark, 0, sizeof *mark);
    mark->heap = heap;
    mark->bits = bits;
    mark->stack_room = stack_room;
    mark->stack = malloc(stack_room * sizeof *mark->stack);
    if (mark->stack == NULL)
        return ENOMEM;
    int rc = dh_bits_init(&mark->overflow, heap->arena.capacity_pages);
    if (rc != 0)
        dh_mark_finish(mark);
    return rc;
}

void dh_mark_finish(dh_mark *mark)
{
    free(mark->stack);
    mark->stack = NULL;
    dh_bits_finish(&mark->overflow);
}

/* --- cells ------------------------------------------------------------------------------------- */

static bool holds_words(unsigned kind)
{
    return kind >= DH_KIND_CELLS ? (kind & 1u) == DH_REFS : kind == DH_KIND_RUN_REFS;
}

static unsigned granule_of(dh_off off)
{
    return (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;
}

bool dh_mark_has(const dh_page_bits *bits, dh_off off)
{
    unsigned granule = granule_of(off);

    return (bits[off >> DH_PAGE_SHIFT].bits[granule / 64] >> (granule % 64)) & 1u;
}

/* All words lie on one page. What finds no room is found again with its page. */
static void push_words(dh_mark *mark, dh_off off, size_t count)
{
    const dh_word *words = dh_at(mark->heap, off);

    for (size_t i = 0; i < count; i++) {
        dh_word w = dhi_load_published(&words[i]);
        if (!dh_is_ref(w))
            continue;
        if (DH_UNLIKELY(mark->stack_count == mark->stack_room)) {
            dh_bits_set(&mark->overflow, off >> DH_PAGE_SHIFT);
            mark->has_overflow = true;
            return;
        }
        mark->stack[mark->stack_count++] = w;
    }
}

/* off: the start of a marked cell or run of words. */
static void scan_cell(dh_mark *mark, dh_off off, unsigned kind)
{
    uint64_t pgno = off >> DH_PAGE_SHIFT;

    if (kind >= DH_KIND_CELLS) {
        push_words(mark, off, dh_kind_bytes[kind] / sizeof(dh_word));
        return;
    }
    uint64_t limit = pgno + DHI_SHARED_LOAD(&mark->heap->alloc.run[pgno]);
    for (; pgno < limit; pgno++)
        push_words(mark, (dh_off)pgno << DH_PAGE_SHIFT, WORDS_PER_PAGE);
}

void dh_mark_ref(dh_mark *mark, dh_word w)
{
    const dh_alloc *alloc = &mark->heap->alloc;
    dh_off off = dh_ref_off(w);
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    unsigned word = granule_of(off) / 64;
    uint64_t bit = (uint64_t)1 << (granule_of(off) % 64);

    if (!dh_is_ref(w) || (off & (DH_GRANULE_BYTES - 1)) != 0 ||
        pgno >= DHI_SHARED_LOAD(&mark->heap->arena.hwm_pages))
        return;
    uint64_t *marks = &mark->bits[pgno].bits[word];
    if (*marks & bit)
        return;
    if (!(DHI_SHARED_LOAD(&alloc->old[pgno].bits[word]) & bit) &&
        !(DHI_SHARED_LOAD(&alloc->fresh[pgno].bits[word]) & bit))
        return;
    *marks |= bit;
    mark->marked_cells_count++;
    unsigned kind = DHI_SHARED_LOAD(&alloc->kind[pgno]);
    if (holds_words(kind))
        scan_cell(mark, off, kind);
}

/* --- following --------------------------------------------------------------------------------- */

static void fetch(const dh_mark *mark, dh_word w)
{
    dh_off off = dh_ref_off(w);
    uint64_t pgno = off >> DH_PAGE_SHIFT;

    if (DH_UNLIKELY(pgno >= DHI_SHARED_LOAD(&mark->heap->arena.hwm_pages)))
        return;
    __builtin_prefetch(&mark->bits[pgno], 1);
    __builtin_prefetch(&mark->heap->alloc.old[pgno]);
    __builtin_prefetch(&mark->heap->alloc.kind[pgno]);
    __builtin_prefetch(mark->heap->arena.base + off);
}

static dh_word queue_turn(dh_mark *mark)
{
    while (mark->queue_count < DHI_MARK_QUEUE && mark->stack_count > 0) {
        dh_word w = mark->stack[--mark->stack_count];
        fetch(mark, w);
        mark->queue[(mark->queue_at + mark->queue_count++) % DHI_MARK_QUEUE] = w;
    }
    if (mark->queue_count == 0)
        return DH_EMPTY;
    dh_word w = mark->queue[mark->queue_at];
    mark->queue_at = (mark->queue_at + 1) % DHI_MARK_QUEUE;
    mark->queue_count--;
    return w;
}

/* The next page of those whose words did not fit, or false: there is none. */
static bool overflow_turn(dh_mark *mark)
{
    uint64_t limit = DHI_SHARED_LOAD(&mark->heap->arena.hwm_pages);

    while (mark->has_overflow) {
        uint64_t pgno = dh_bits_next(&mark->overflow, mark->overflow_at, limit);
        if (pgno < limit) {
            dh_bits_clear(&mark->overflow, pgno);
            mark->overflow_at = pgno + 1;
            dh_mark_page(mark, pgno);
            return true;
        }
        mark->has_overflow = mark->overflow_at != 0;
        mark->overflow_rounds_count += mark->has_overflow;
        mark->overflow_at = 0;
    }
    return false;
}

bool dh_mark_drain(dh_mark *mark, uint64_t refs_max)
{
    for (uint64_t n = 0; n < refs_max; n++) {
        dh_word w = queue_turn(mark);
        if (w != DH_EMPTY)
            dh_mark_ref(mark, w);
        else if (!overflow_turn(mark))
            return true;
    }
    return false;
}

/* --- what to start from ------------------------------------------------------------------------ */

void dh_mark_roots(dh_mark *mark)
{
    size_t index = 0;
    dh_handle *handle;

    dh_mark_ref(mark, mark->heap->root);
    mark->roots_count = 1;
    while ((handle = dh_handles_next(&mark->heap->handles, &index)) != NULL) {
        dh_mark_ref(mark, handle->word);
        mark->roots_count++;
    }
}

static void mark_cells(dh_mark *mark, uint64_t pgno, unsigned kind)
{
    for (unsigned word = 0; word < DH_PAGE_BIT_WORDS; word++) {
        for (uint64_t rest = mark->bits[pgno].bits[word]; rest != 0; rest &= rest - 1) {
            unsigned granule = word * 64 + (unsigned)__builtin_ctzll(rest);
            scan_cell(mark, ((dh_off)pgno << DH_PAGE_SHIFT) + granule * DH_GRANULE_BYTES, kind);
            mark->rescanned_cells_count++;
        }
    }
}

void dh_mark_page(dh_mark *mark, uint64_t pgno)
{
    const dh_alloc *alloc = &mark->heap->alloc;
    unsigned kind = DHI_SHARED_LOAD(&alloc->kind[pgno]);
    uint64_t head = pgno;

    if (kind >= DH_KIND_CELLS) {
        if (holds_words(kind))
            mark_cells(mark, pgno, kind);
        return;
    }
    if (kind == DH_KIND_CONT) {
        uint64_t back = DHI_SHARED_LOAD(&alloc->run[pgno]);
        if (back > pgno)
            return;
        head -= back;
        kind = DHI_SHARED_LOAD(&alloc->kind[head]);
    }
    if (kind != DH_KIND_RUN_REFS || !(mark->bits[head].bits[0] & 1u) ||
        pgno - head >= DHI_SHARED_LOAD(&alloc->run[head]))
        return;
    push_words(mark, (dh_off)pgno << DH_PAGE_SHIFT, WORDS_PER_PAGE);
    mark->rescanned_cells_count++;
}

void dh_mark_pages(dh_mark *mark, const dh_bits *pages)
{
    uint64_t limit = DHI_SHARED_LOAD(&mark->heap->arena.hwm_pages);

    for (uint64_t p = dh_bits_next(pages, 1, limit); p < limit;
         p = dh_bits_next(pages, p + 1, limit)) {
        dh_mark_page(mark, p);
        if (mark->stack_count > mark->stack_room / 2)
            (void)dh_mark_drain(mark, mark->stack_room);
    }
}
