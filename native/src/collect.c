/* collect.c -- collections in one stop: a full one, and a young one.
 *
 * Young (sticky mark bits: Demers, Weiser, Hayes, Boehm, Bobrow, Shenker, "Combining generational and
 * conservative garbage collection", POPL 1990): `old` holds the marks of the last collection. What is
 * fresh and reachable is reached from a root, from other fresh cells, or from an old cell on a page
 * written since (invariant T1, docs/design.md section 10); so only these are traced, and marks are
 * set in `old` itself. A full collection marks into bits of its own.
 *
 * Nothing in the arena is written: a collection by itself dirties no page. Must not run while a
 * commit holds a capture (heap lock). A collection in steps is cycle.c.
 */
#include "collect.h"

#include "cycle.h"
#include "gate.h"
#include "mark.h"
#include "sweep.h"

static void mark_everything(dh_mark *mark) { (void)dh_mark_drain(mark, UINT64_MAX); }

void dhi_collect_note(dh_collect_stats *stats, const dh_mark *mark)
{
    stats->roots_count = mark->roots_count;
    stats->marked_cells_count = mark->marked_cells_count;
    stats->rescanned_cells_count = mark->rescanned_cells_count;
    stats->overflow_rounds_count = mark->overflow_rounds_count;
}

void dhi_collect_end(dh_heap *heap)
{
    heap->frees_count++;
    heap->alloc.taken_bytes = 0;
    heap->alloc.is_due_told = false;
}

int dh_collect_due_at(dh_heap *heap, uint64_t bytes)
{
    dhi_world_stop(heap);
    heap->alloc.due_bytes = bytes;
    heap->alloc.is_due_told = false;
    dhi_world_resume(heap);
    return 0;
}

int dh_collect_source(dh_heap *heap, int source)
{
    if (source != DH_DIRTY_WATCH && source != DH_DIRTY_EVERYTHING)
        return dhi_fail(heap, EINVAL, "there is no source of dirty pages number %d", source);
    heap->dirty_source = source;
    return 0;
}

/* --- full -------------------------------------------------------------------------------------- */

static void sweep_all(dh_heap *heap, const dh_page_bits *live, dh_collect_stats *stats)
{
    dh_alloc_park_cursors(heap);
    for (uint64_t p = 1; p < heap->arena.hwm_pages;)
        p += dhi_sweep_page(heap, (dh_pgno)p, live, stats);
}

/* What was written before a full collection was seen by it. */
static void forget_written(dh_heap *heap)
{
    (void)dh_watch_scan(heap->watch, heap->arena.hwm_pages,
                        NULL); /* else they stay in the cursor */
    (void)dh_watch_forget(heap->watch, heap->collect_cursor, 0, heap->arena.hwm_pages);
}

static int collect_full(dh_heap *heap, dh_collect_stats *stats)
{
    uint64_t bits_bytes = heap->alloc.capacity_pages * sizeof(dh_page_bits);
    dh_page_bits *bits;
    dh_mark mark;
    int rc = dh_reserve(bits_bytes, (void **)&bits);

    if (rc != 0)
        return rc;
    rc = dh_mark_init(&mark, heap, bits, DHI_MARK_STACK_ROOM);
    if (rc == 0) {
        forget_written(heap);
        dh_mark_roots(&mark);
        mark_everything(&mark);
        sweep_all(heap, bits, stats);
        dhi_collect_note(stats, &mark);
        dh_bits_clear_all(&heap->alloc.fresh_pages, heap->arena.hwm_pages);
        dhi_collect_end(heap);
        stats->released_pages_count = dh_pages_release(heap, UINT64_MAX);
    }
    dh_mark_finish(&mark);
    dh_unreserve(bits, bits_bytes);
    return rc;
}

/* --- young ------------------------------------------------------------------------------------- */

/* The pages whose old cells may refer to fresh ones. */
static void take_written(dh_heap *heap, dh_bits *written)
{
    uint64_t limit = heap->arena.hwm_pages;

    /* After a failure the pages concerned are in the cursor, which is all that is needed here. */
    (void)dh_watch_scan(heap->watch, limit, NULL);
    dh_watch_take(heap->watch, heap->collect_cursor, written, limit);
    if (heap->dirty_source == DH_DIRTY_EVERYTHING)
        dh_bits_set_run(written, 0, limit);
}

/* A page that was written and has its committed bytes again is not reported by comparison. A ref on
 * it to a fresh cell is then a committed ref, so that something was there at the commit: such cells
 * count as roots. */
static void mark_reused(dh_mark *mark, dh_heap *heap)
{
    const dh_alloc *alloc = &heap->alloc;
    uint64_t limit = heap->arena.hwm_pages;

    for (uint64_t p = dh_bits_next(&alloc->fresh_pages, 1, limit); p < limit;
         p = dh_bits_next(&alloc->fresh_pages, p + 1, limit)) {
        dh_table_entry committed;
        dh_table_read(&heap->table, (dh_pgno)p, &committed);
        bool is_run = alloc->kind[p] == DH_KIND_RUN_REFS || alloc->kind[p] == DH_KIND_RUN_RAW;
        if (committed.kind == DH_KIND_FREE || committed.kind == DH_KIND_CONT)
            continue;
        for (unsigned word = 0; word < DH_PAGE_BIT_WORDS; word++) {
            uint64_t was = committed.kind >= DH_KIND_CELLS ? committed.value[word] : word == 0;
            uint64_t rest = alloc->fresh[p].bits[word] & (is_run ? 1u : was);
            for (; rest != 0; rest &= rest - 1) {
                dh_off granule = word * 64 + (unsigned)__builtin_ctzll(rest);
                dh_mark_ref(mark, dh_ref(DH_T_LEAF, (p << DH_PAGE_SHIFT) + granule * 16));
            }
        }
    }
}

static void sweep_fresh(dh_heap *heap, dh_collect_stats *stats)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t limit = heap->arena.hwm_pages;

    dh_alloc_park_cursors(heap);
    for (uint64_t p = dh_bits_next(&alloc->fresh_pages, 1, limit); p < limit;
         p = dh_bits_next(&alloc->fresh_pages, p + 1, limit)) {
        dh_bits_clear(&alloc->fresh_pages, p);
        if (!dh_page_bits_empty(&alloc->fresh[p]))
            (void)dhi_sweep_page(heap, (dh_pgno)p, alloc->old, stats);
    }
    stats->live_cells_count = 0; /* of a few pages only: nobody's business */
}

static int collect_young(dh_heap *heap, dh_collect_stats *stats)
{
    dh_bits written = {0};
    dh_mark mark;
    int rc = dh_bits_init(&written, heap->arena.capacity_pages);

    if (rc != 0)
        return rc;
    rc = dh_mark_init(&mark, heap, heap->alloc.old, DHI_MARK_STACK_ROOM);
    if (rc == 0) {
        take_written(heap, &written);
        stats->dirty_pages_count = dh_bits_count(&written, heap->arena.hwm_pages);
        dh_mark_roots(&mark);
        if (dh_watch_tracker(heap->watch) == DH_TRACKER_COMPARE)
            mark_reused(&mark, heap);
        if (dhi_fault("collect.rescan") == 0)
            dh_mark_pages(&mark, &written);
        mark_everything(&mark);
        sweep_fresh(heap, stats);
        dhi_collect_note(stats, &mark);
        dhi_collect_end(heap);
    }
    dh_mark_finish(&mark);
    dh_bits_finish(&written);
    return rc;
}

/* --- the verbs --------------------------------------------------------------------------------- */

static int collect_stopped(dh_heap *heap, int (*collect)(dh_heap *, dh_collect_stats *),
                           dh_collect_stats *stats_out)
{
    int rc = dhi_verb_gate(heap);

    if (rc != 0)
        return rc;
    memset(stats_out, 0, sizeof *stats_out);
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    dhi_cycle_leave(heap);
    rc = collect(heap, stats_out);
    stats_out->stop_ns = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    return rc;
}

int dh_collect(dh_heap *heap, dh_collect_stats *stats_out)
{
    return collect_stopped(heap, collect_full, stats_out);
}

int dh_collect_young(dh_heap *heap, dh_collect_stats *stats_out)
{
    return collect_stopped(heap, collect_young, stats_out);
}
