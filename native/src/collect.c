/* collect.c -- a plain collection: stop the world, trace, and let the marks be the allocation.
 *
 * There is no sweep over cells: the mark bits become the allocation bits, page by page. Nothing in
 * the arena is written, so a collection by itself dirties no page; what it freed reaches the next
 * commit through the changed entries. Must not run while a commit holds a capture (heap lock).
 */
#include <stdlib.h>

#include "gate.h"
#include "mark.h"

#define STACK_ROOM 65536u

static uint64_t bits_count(const dh_page_bits *a)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        n += (uint64_t)__builtin_popcountll(a->bits[i]);
    return n;
}

static void settle_cells(dh_heap *heap, const dh_mark *mark, dh_pgno pgno, dh_collect_stats *stats)
{
    dh_alloc *alloc = &heap->alloc;
    const dh_page_bits *marks = &mark->bits[pgno];
    uint64_t freed = 0, live = bits_count(marks);

    for (unsigned i = 0; i < DH_PAGE_BIT_WORDS; i++)
        freed += (uint64_t)__builtin_popcountll(
            (alloc->old[pgno].bits[i] | alloc->fresh[pgno].bits[i]) & ~marks->bits[i]);
    stats->live_cells_count += live;
    if (freed == 0 && live != 0) {
        alloc->old[pgno] = *marks;
        memset(&alloc->fresh[pgno], 0, sizeof alloc->fresh[pgno]);
        return;
    }
    stats->freed_cells_count += freed;
    stats->freed_bytes += freed * dh_kind_bytes[alloc->kind[pgno]];
    dh_alloc_count_page(heap, pgno, false);
    if (live == 0) {
        dh_pages_give(heap, pgno, 1);
        stats->freed_pages_count++;
        return;
    }
    alloc->old[pgno] = *marks;
    memset(&alloc->fresh[pgno], 0, sizeof alloc->fresh[pgno]);
    dh_bits_set(&alloc->changed, pgno);
    dh_alloc_count_page(heap, pgno, true);
    dh_alloc_list_page(heap, pgno);
}

static void settle_run(dh_heap *heap, const dh_mark *mark, dh_pgno pgno, dh_collect_stats *stats)
{
    dh_alloc *alloc = &heap->alloc;
    uint32_t pages = alloc->run[pgno];

    if (mark->bits[pgno].bits[0] & 1u) {
        alloc->old[pgno].bits[0] = 1;
        alloc->fresh[pgno].bits[0] = 0;
        stats->live_cells_count++;
        return;
    }
    stats->freed_cells_count++;
    stats->freed_bytes += (uint64_t)pages << DH_PAGE_SHIFT;
    stats->freed_pages_count += pages;
    dh_alloc_count_page(heap, pgno, false);
    dh_pages_give(heap, pgno, pages);
}

static void settle(dh_heap *heap, const dh_mark *mark, dh_collect_stats *stats)
{
    dh_alloc_park_cursors(heap);
    for (uint64_t p = 1; p < heap->arena.hwm_pages;) {
        unsigned kind = heap->alloc.kind[p];
        uint64_t step = 1;
        if (kind == DH_KIND_RUN_REFS || kind == DH_KIND_RUN_RAW) {
            step = heap->alloc.run[p];
            settle_run(heap, mark, (dh_pgno)p, stats);
        } else if (kind >= DH_KIND_CELLS) {
            settle_cells(heap, mark, (dh_pgno)p, stats);
        }
        p += step;
    }
}

int dh_collect(dh_heap *heap, dh_collect_stats *stats_out)
{
    dh_mark mark;

    int rc = dhi_verb_gate(heap);

    if (rc != 0)
        return rc;
    memset(stats_out, 0, sizeof *stats_out);
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    rc = dh_mark_init(&mark, heap, STACK_ROOM);
    if (rc == 0) {
        dh_mark_run(&mark);
        settle(heap, &mark, stats_out);
        heap->frees_count++;
        stats_out->released_pages_count = dh_pages_release(heap);
        stats_out->roots_count = mark.roots_count;
        stats_out->overflow_rounds_count = mark.overflow_rounds_count;
        dh_mark_finish(&mark);
    }
    stats_out->stop_ns = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    return rc;
}
