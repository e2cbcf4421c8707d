/* mark.c -- precise tracing over words.
 *
 * Cells with content DH_REFS hold nothing but words, so the tracer needs no knowledge of
 * containers. A ref is followed only if its target is the start of an allocated cell below the
 * mark: damaged or stale words cannot lead it astray. Must never store to the arena.
 */
#include "mark.h"

#include <stdlib.h>

int dh_mark_init(dh_mark *mark, dh_heap *heap, size_t stack_room)
{
    int rc;

    memset(mark, 0, sizeof *mark);
    mark->heap = heap;
    mark->stack_room = stack_room;
    mark->stack = malloc(stack_room * sizeof *mark->stack);
    if (mark->stack == NULL)
        return ENOMEM;
    mark->bits_bytes = heap->arena.hwm_pages * sizeof *mark->bits;
    rc = dh_reserve(mark->bits_bytes, (void **)&mark->bits);
    if (rc == 0)
        rc = dh_bits_init(&mark->overflow, heap->arena.hwm_pages);
    if (rc != 0)
        dh_mark_finish(mark);
    return rc;
}

void dh_mark_finish(dh_mark *mark)
{
    free(mark->stack);
    if (mark->bits != NULL)
        dh_unreserve(mark->bits, mark->bits_bytes);
    dh_bits_finish(&mark->overflow);
    memset(mark, 0, sizeof *mark);
}

static bool holds_words(unsigned kind)
{
    if (kind >= DH_KIND_CELLS)
        return (kind & 1u) == DH_REFS;
    return kind == DH_KIND_RUN_REFS;
}

static void push(dh_mark *mark, dh_off off)
{
    if (mark->stack_count < mark->stack_room) {
        mark->stack[mark->stack_count++] = off;
        return;
    }
    dh_bits_set(&mark->overflow, off >> DH_PAGE_SHIFT);
    mark->has_overflow = true;
}

static void mark_word(dh_mark *mark, dh_word w)
{
    dh_off off = dh_ref_off(w);
    if (!dh_is_ref(w) || !dh_cell_is_allocated(mark->heap, off))
        return;
    uint64_t pgno = off >> DH_PAGE_SHIFT;
    unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;
    uint64_t *bits = &mark->bits[pgno].bits[granule / 64], bit = (uint64_t)1 << (granule % 64);
    if (*bits & bit)
        return;
    *bits |= bit;
    if (holds_words(mark->heap->alloc.kind[pgno]))
        push(mark, off);
}

static void scan_cell(dh_mark *mark, dh_off off)
{
    const dh_word *words = dh_at(mark->heap, off);
    size_t count = dh_cell_bytes(mark->heap, off) / sizeof *words;
    for (size_t i = 0; i < count; i++)
        mark_word(mark, dh_load(&words[i]));
}

static void drain(dh_mark *mark)
{
    while (mark->stack_count > 0)
        scan_cell(mark, mark->stack[--mark->stack_count]);
}

/* Scan every marked cell of a page whose cells did not all fit the stack. */
static void rescan_page(dh_mark *mark, uint64_t pgno)
{
    for (unsigned word = 0; word < DH_PAGE_BIT_WORDS; word++) {
        for (uint64_t rest = mark->bits[pgno].bits[word]; rest != 0; rest &= rest - 1) {
            unsigned granule = word * 64 + (unsigned)__builtin_ctzll(rest);
            scan_cell(mark, ((dh_off)pgno << DH_PAGE_SHIFT) + granule * DH_GRANULE_BYTES);
            drain(mark);
        }
    }
}

static void drain_overflow(dh_mark *mark)
{
    uint64_t limit = mark->heap->arena.hwm_pages;
    while (mark->has_overflow) {
        mark->has_overflow = false;
        mark->overflow_rounds_count++;
        for (uint64_t p = dh_bits_next(&mark->overflow, 0, limit); p < limit;
             p = dh_bits_next(&mark->overflow, p + 1, limit)) {
            dh_bits_clear(&mark->overflow, p);
            rescan_page(mark, p);
        }
    }
}

void dh_mark_run(dh_mark *mark)
{
    size_t index = 0;
    dh_handle *handle;

    mark_word(mark, mark->heap->root);
    mark->roots_count = 1;
    while ((handle = dh_handles_next(&mark->heap->handles, &index)) != NULL) {
        mark_word(mark, handle->word);
        mark->roots_count++;
        drain(mark);
    }
    drain(mark);
    drain_overflow(mark);
}
