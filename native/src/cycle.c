/* cycle.c -- a full collection in steps.
 *
 * Contract: cycle.h. Mostly parallel marking with the kernel's written pages (Boehm, Demers, Shenker,
 * "Mostly parallel garbage collection", PLDI 1991): mark from the roots beside the mutator; then, in
 * rounds that shrink, marked cells on pages written meanwhile; a last stop does the rest. Marks go to
 * bits of the cycle's own, so that until the last stop the allocator knows nothing of it, and a cycle
 * can be dropped at any time. Invariants T1 to T8: docs/design.md section 10.
 */
#include "cycle.h"

#include <stdlib.h>

#include "collect.h"
#include "gate.h"
#include "sweep.h"

#define ROUNDS_MAX 8u
#define ROUND_PAGES_SMALL 200u /* not worth another round */
/* A round that shrinks the set by less than this (in tenths) will not be the last to help. */
#define ROUND_SHRINK_TENTHS 7u
/* Refs between two looks at the clock: some 50 microseconds. */
#define REFS_PER_LOOK 2048u
/* Beyond, a cell freed during the cycle is left for the next one to find. */
#define FREES_MAX ((size_t)1 << 20)

/* --- making and leaving ------------------------------------------------------------------------ */

int dhi_cycle_init(dh_heap *heap)
{
    heap->cycle = calloc(1, sizeof *heap->cycle);
    if (heap->cycle == NULL)
        return ENOMEM;
    int rc = pthread_mutex_init(&heap->cycle->lock, NULL);
    if (rc != 0) {
        free(heap->cycle);
        heap->cycle = NULL;
    }
    return rc;
}

static uint64_t bits_bytes(const dh_heap *heap)
{
    return heap->alloc.capacity_pages * sizeof(dh_page_bits);
}

static void parts_finish(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;

    dh_mark_finish(&cycle->mark);
    dh_bits_finish(&cycle->taken);
    dh_bits_finish(&cycle->written);
    dh_bits_finish(&cycle->unswept);
    if (cycle->bits != NULL)
        dh_unreserve(cycle->bits, bits_bytes(heap));
    cycle->bits = NULL;
    free(cycle->frees);
    cycle->frees = NULL;
    cycle->frees_count = cycle->frees_room = 0;
}

static int parts_init(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;
    uint64_t pages = heap->arena.capacity_pages;
    int rc = dh_reserve(bits_bytes(heap), (void **)&cycle->bits);

    if (rc == 0)
        rc = dh_bits_init(&cycle->taken, pages);
    if (rc == 0)
        rc = dh_bits_init(&cycle->written, pages);
    if (rc == 0)
        rc = dh_bits_init(&cycle->unswept, pages);
    if (rc == 0)
        rc = dh_mark_init(&cycle->mark, heap, cycle->bits, DHI_MARK_STACK_ROOM);
    if (rc != 0)
        parts_finish(heap);
    return rc;
}

void dhi_cycle_finish(dh_heap *heap)
{
    if (heap->cycle == NULL)
        return;
    pthread_mutex_lock(&heap->cycle->lock);
    DHI_SHARED_STORE(&heap->cycle_phase, DHI_CYCLE_IDLE);
    pthread_mutex_unlock(&heap->cycle->lock);
    parts_finish(heap);
    pthread_mutex_destroy(&heap->cycle->lock);
    free(heap->cycle);
    heap->cycle = NULL;
}

/* --- frees that wait --------------------------------------------------------------------------- */

void dhi_cycle_defer_free(dh_heap *heap, dh_off off)
{
    dh_cycle *cycle = heap->cycle;

    if (cycle->frees_count == cycle->frees_room) {
        size_t room = cycle->frees_room ? cycle->frees_room * 2 : 1024;
        dh_off *frees = room > FREES_MAX ? NULL : realloc(cycle->frees, room * sizeof *frees);
        if (frees == NULL)
            return; /* unreachable: the next collection frees it */
        cycle->frees = frees;
        cycle->frees_room = room;
    }
    cycle->frees[cycle->frees_count++] = off;
}

/* Nobody refers to these cells any more: unmarked, they go with the sweep. */
static void unmark_freed(dh_cycle *cycle)
{
    for (size_t i = 0; i < cycle->frees_count; i++) {
        dh_off off = cycle->frees[i];
        unsigned granule = (unsigned)(off & (DH_PAGE_BYTES - 1)) / DH_GRANULE_BYTES;
        cycle->bits[off >> DH_PAGE_SHIFT].bits[granule / 64] &= ~((uint64_t)1 << (granule % 64));
    }
    cycle->frees_count = 0;
}

static void free_deferred(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;

    for (size_t i = 0; i < cycle->frees_count; i++)
        dh_cell_free(heap, cycle->frees[i]);
    cycle->frees_count = 0;
}

/* --- marking ----------------------------------------------------------------------------------- */

/* What was written since the last time, into the round. For a source that knows nothing of times
 * (comparison: a page may be written and come to be what it was) every page counts. */
static bool source_is_exact(const dh_heap *heap)
{
    return heap->dirty_source == DH_DIRTY_WATCH &&
           dh_watch_tracker(heap->watch) != DH_TRACKER_COMPARE;
}

static void take_written(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;
    uint64_t limit = DHI_SHARED_LOAD(&heap->arena.hwm_pages);

    dh_watch_take(heap->watch, heap->collect_cursor, &cycle->written, limit);
    dh_bits_or(&cycle->taken, &cycle->written, limit);
    if (!source_is_exact(heap))
        dh_bits_set_run(&cycle->written, 0, limit);
    if (dhi_fault("collect.rescan") != 0)
        dh_bits_clear_all(&cycle->written, limit);
    cycle->written_at = 1;
    cycle->written_count = dh_bits_count(&cycle->written, limit);
    cycle->stats.dirty_pages_count += cycle->written_count;
}

/* Marked cells on pages of the round, as many as a slice bears; true: all. */
static bool mark_written(dh_cycle *cycle, uint64_t limit)
{
    uint64_t p = dh_bits_next(&cycle->written, cycle->written_at, limit);

    for (unsigned n = 0; p < limit && n < REFS_PER_LOOK / 16; n++) {
        dh_bits_clear(&cycle->written, p);
        dh_mark_page(&cycle->mark, p);
        p = dh_bits_next(&cycle->written, p + 1, limit);
    }
    cycle->written_at = p;
    return p >= limit;
}

/* Whether another round would leave less to the last stop. */
static bool round_begin(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;
    uint64_t before = cycle->written_count;

    if (cycle->is_last_round || cycle->stats.rounds_count >= ROUNDS_MAX || !source_is_exact(heap))
        return false;
    if (cycle->stats.rounds_count > 0 && before <= ROUND_PAGES_SMALL)
        return false;
    (void)dh_watch_scan(heap->watch, DHI_SHARED_LOAD(&heap->arena.hwm_pages), NULL);
    take_written(heap);
    cycle->stats.rounds_count++;
    cycle->is_last_round =
        cycle->stats.rounds_count > 1 && cycle->written_count * 10 > before * ROUND_SHRINK_TENTHS;
    return true;
}

/* Until the time is up (false), or only the last stop is left (true). */
static bool mark_slice(dh_heap *heap, uint64_t until_ns)
{
    dh_cycle *cycle = heap->cycle;

    do {
        if (!dh_mark_drain(&cycle->mark, REFS_PER_LOOK))
            continue;
        if (!mark_written(cycle, DHI_SHARED_LOAD(&heap->arena.hwm_pages)))
            continue;
        if (cycle->mark.stack_count + cycle->mark.queue_count == 0 && !cycle->mark.has_overflow &&
            !round_begin(heap))
            return true;
    } while (dhi_clock_ns() < until_ns);
    return false;
}

int dh_cycle_mark(dh_heap *heap, uint64_t budget_ns, int *is_marked_out)
{
    dh_cycle *cycle = heap->cycle;

    *is_marked_out = 1;
    if (heap->is_forked)
        return DH_E_FORKED;
    uint64_t until_ns = dhi_clock_ns() + budget_ns;
    pthread_mutex_lock(&cycle->lock);
    if (DHI_SHARED_LOAD(&heap->cycle_phase) == DHI_CYCLE_MARKING)
        *is_marked_out = mark_slice(heap, until_ns);
    pthread_mutex_unlock(&cycle->lock);
    return 0;
}

int dh_cycle_begin(dh_heap *heap, dh_collect_stats *stats_out)
{
    dh_cycle *cycle = heap->cycle;
    int rc = dhi_verb_gate(heap);

    memset(stats_out, 0, sizeof *stats_out);
    if (rc != 0)
        return rc;
    if (heap->cycle_phase != DHI_CYCLE_IDLE)
        return dhi_fail(heap, EBUSY, "a collection is under way");
    /* What was written so far will be seen as it is now. */
    (void)dh_watch_scan(heap->watch, DHI_SHARED_LOAD(&heap->arena.hwm_pages), NULL);
    dhi_world_stop(heap); /* also because a full arena may leave a cycle without the heap lock */
    uint64_t stop_began_ns = dhi_clock_ns();
    rc = parts_init(heap);
    if (rc == 0) {
        memset(&cycle->stats, 0, sizeof cycle->stats);
        cycle->is_last_round = false;
        dh_watch_take(heap->watch, heap->collect_cursor, &cycle->taken, heap->arena.hwm_pages);
        dh_mark_roots(&cycle->mark);
        DHI_SHARED_STORE(&heap->cycle_phase, DHI_CYCLE_MARKING);
        stats_out->roots_count = cycle->mark.roots_count;
    }
    stats_out->stop_ns = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    return rc;
}

/* --- the last stop ----------------------------------------------------------------------------- */

static void add_written(void *context, dh_pgno first, uint64_t count)
{
    dh_bits_set_run(context, first, count);
}

/* A scan that protects again costs several times as much beside running threads, and is not needed:
 * the pages stay written, and whoever scans next hears of them. */
static void take_last(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;
    uint64_t limit = heap->arena.hwm_pages;
    dh_bits *written = &cycle->written;

    if (dh_watch_peek(heap->watch, limit, add_written, written) != 0)
        (void)dh_watch_scan(heap->watch, limit, NULL);
    take_written(heap);
}

static void sweep_begin(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;

    unmark_freed(cycle);
    dh_alloc_park_cursors(heap);
    dh_bits_clear_all(&heap->alloc.fresh_pages, heap->arena.hwm_pages);
    dh_bits_set_run(&cycle->unswept, 1, heap->arena.hwm_pages - 1);
    cycle->swept_at = 1;
    DHI_SHARED_STORE(&heap->cycle_phase, DHI_CYCLE_SWEEPING);
    dhi_collect_end(heap);
}

int dh_cycle_finish(dh_heap *heap, dh_collect_stats *stats_out)
{
    dh_cycle *cycle = heap->cycle;
    int rc = dhi_verb_gate(heap);

    memset(stats_out, 0, sizeof *stats_out);
    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    pthread_mutex_lock(&cycle->lock);
    if (heap->cycle_phase == DHI_CYCLE_MARKING) {
        take_last(heap);
        dh_mark_roots(&cycle->mark);
        dh_mark_pages(&cycle->mark, &cycle->written);
        (void)dh_mark_drain(&cycle->mark, UINT64_MAX);
        sweep_begin(heap);
        dhi_collect_note(&cycle->stats, &cycle->mark);
    }
    pthread_mutex_unlock(&cycle->lock);
    *stats_out = cycle->stats;
    stats_out->stop_ns = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    return 0;
}

/* --- sweeping ---------------------------------------------------------------------------------- */

void dhi_cycle_settle_page(dh_heap *heap, dh_pgno pgno)
{
    dh_cycle *cycle = heap->cycle;
    uint64_t first = pgno;

    if (heap->alloc.kind[pgno] == DH_KIND_CONT)
        first -= heap->alloc.run[pgno];
    if (!dh_bits_test(&cycle->unswept, first))
        return;
    dh_bits_clear(&cycle->unswept, first);
    uint64_t count = dhi_sweep_page(heap, (dh_pgno)first, cycle->bits, &cycle->stats);
    dh_bits_clear_run(&cycle->unswept, first, count);
}

void dhi_cycle_forget_pages(dh_heap *heap, dh_pgno first, uint64_t count)
{
    dh_bits_clear_run(&heap->cycle->unswept, first, count);
}

bool dhi_cycle_keeps(const dh_heap *heap, dh_off off)
{
    const dh_cycle *cycle = heap->cycle;

    return !dh_bits_test(&cycle->unswept, off >> DH_PAGE_SHIFT) || dh_mark_has(cycle->bits, off);
}

/* True: nothing is left. */
static bool sweep_slice(dh_heap *heap, uint64_t until_ns)
{
    dh_cycle *cycle = heap->cycle;
    uint64_t limit = heap->arena.hwm_pages;

    for (unsigned n = 1;; n++) {
        uint64_t p = dh_bits_next(&cycle->unswept, cycle->swept_at, limit);
        cycle->swept_at = p;
        if (p >= limit)
            return true;
        dhi_cycle_settle_page(heap, (dh_pgno)p);
        if (n % 256 == 0 && dhi_clock_ns() >= until_ns)
            return false;
    }
}

int dh_cycle_sweep(dh_heap *heap, uint64_t budget_ns, dh_collect_stats *stats_out, int *is_done_out)
{
    dh_cycle *cycle = heap->cycle;
    int rc = dhi_verb_gate(heap);

    memset(stats_out, 0, sizeof *stats_out);
    *is_done_out = 1;
    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    bool is_swept = false;
    if (heap->cycle_phase == DHI_CYCLE_SWEEPING) {
        is_swept = sweep_slice(heap, stop_began_ns + budget_ns);
        *is_done_out = is_swept;
        if (is_swept)
            DHI_SHARED_STORE(&heap->cycle_phase, DHI_CYCLE_IDLE);
    }
    *stats_out = cycle->stats;
    stats_out->stop_ns = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    if (is_swept)
        parts_finish(heap);
    return 0;
}

int dh_pages_release_some(dh_heap *heap, uint64_t pages_max, uint64_t *pages_out)
{
    int rc = dhi_verb_gate(heap);

    *pages_out = 0;
    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    if (heap->cycle_phase != DHI_CYCLE_MARKING)
        *pages_out = dh_pages_release(heap, pages_max);
    dhi_world_resume(heap);
    return 0;
}

/* --- ending it early --------------------------------------------------------------------------- */

/* Waits for the slice of marking under way. */
static void drop(dh_heap *heap)
{
    dh_cycle *cycle = heap->cycle;

    pthread_mutex_lock(&cycle->lock);
    DHI_SHARED_STORE(&heap->cycle_phase, DHI_CYCLE_IDLE);
    pthread_mutex_unlock(&cycle->lock);
    if (dhi_fault("collect.drop") == 0)
        dh_watch_put_back(heap->watch, heap->collect_cursor, &cycle->taken, heap->arena.hwm_pages);
    free_deferred(heap);
}

void dhi_cycle_leave(dh_heap *heap)
{
    if (heap->cycle_phase == DHI_CYCLE_IDLE)
        return;
    if (heap->cycle_phase == DHI_CYCLE_MARKING) {
        drop(heap);
    } else {
        (void)sweep_slice(heap, UINT64_MAX);
        DHI_SHARED_STORE(&heap->cycle_phase, DHI_CYCLE_IDLE);
    }
    parts_finish(heap);
}

void dhi_cycle_halt(dh_heap *heap) { pthread_mutex_lock(&heap->cycle->lock); }

void dhi_cycle_go_on(dh_heap *heap) { pthread_mutex_unlock(&heap->cycle->lock); }

int dh_cycle_phase(const dh_heap *heap) { return DHI_SHARED_LOAD(&heap->cycle_phase); }

int dh_cycle_drop(dh_heap *heap)
{
    int rc = dhi_verb_gate(heap);

    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    dhi_cycle_leave(heap);
    dhi_world_resume(heap);
    return 0;
}
