/* test_cycle.c -- young collections and collections in steps against a naive trace, between changes,
 * commits and rollbacks; and with what makes them right taken away, which must show. */
#include "check.h"
#include "gc_graph.h"
#include "cycle.h"

#include <stdlib.h>

static dh_heap *heap_new(int tracker)
{
    dh_options options = {96u << 20, tracker, {1, 2}};
    dh_heap *heap;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    return heap;
}

static void commit(dh_heap *heap)
{
    dh_capture *capture;

    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, 0, 1, 1 << 20), 0);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
}

static void rollback(dh_heap *heap)
{
    uint64_t pages, stop_ns;

    CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
}

/* How many cells a trace reaches that are not allocated; 0 as a rule. */
static uint64_t lost(graph *g)
{
    graph_trace(g);
    return g->lost_count;
}

/* One turn of whatever collection is chosen or under way. */
static void collect_some(dh_heap *heap)
{
    dh_collect_stats stats;
    int is_over;

    if (heap->cycle_phase == DHI_CYCLE_MARKING) {
        CHECK_EQ(dh_cycle_mark(heap, check_random_below(20000), &is_over), 0);
        if (is_over || check_random_below(20) == 0)
            CHECK_EQ(dh_cycle_finish(heap, &stats), 0);
    } else if (heap->cycle_phase == DHI_CYCLE_SWEEPING) {
        CHECK_EQ(dh_cycle_sweep(heap, 1, &stats, &is_over), 0);
    } else {
        switch (check_random_below(8)) {
        case 0:
            CHECK_EQ(dh_collect(heap, &stats), 0);
            break;
        case 1:
        case 2:
            CHECK_EQ(dh_cycle_begin(heap, &stats), 0);
            break;
        default:
            CHECK_EQ(dh_collect_young(heap, &stats), 0);
        }
    }
}

/* Returns the number of live cells that were freed; ends when there are some. */
static uint64_t history(int tracker, unsigned turns_count)
{
    dh_heap *heap = heap_new(tracker);
    graph g;
    uint64_t hash, found = 0;

    graph_begin(&g, heap);
    commit(heap);
    graph_trace(&g);
    hash = g.hash;
    for (unsigned turn = 0; turn < turns_count && found == 0; turn++) {
        for (uint64_t n = check_random_below(400); n > 0; n--)
            graph_step(&g);
        graph_trace(&g);
        CHECK_EQ(g.lost_count, 0);
        uint64_t before = g.hash;
        collect_some(heap);
        found = lost(&g);
        CHECK(found != 0 || g.hash == before);
        if (found == 0 && check_random_below(6) == 0) {
            commit(heap);
            hash = before;
        } else if (found == 0 && check_random_below(12) == 0) {
            rollback(heap);
            CHECK_EQ(lost(&g), 0);
            CHECK_EQ(g.hash, hash);
        }
    }
    if (found == 0) {
        dh_collect_stats stats;
        uint64_t problems, cells;
        CHECK_EQ(dh_collect(heap, &stats), 0);
        CHECK_EQ(lost(&g), 0);
        CHECK_EQ(graph_allocated(&g), g.reached_count);
        CHECK_EQ(stats.live_cells_count, g.reached_count);
        (void)dh_check(heap, &cells, &problems); /* the graph's cells are no containers */
    }
    graph_end(&g);
    dh_heap_close(heap);
    return found;
}

static void two_cycles_leave_no_garbage(void)
{
    dh_heap *heap = heap_new(DH_TRACKER_AUTO);
    graph g;

    graph_begin(&g, heap);
    for (int round = 0; round < 5; round++) {
        for (int n = 0; n < 5000; n++)
            graph_step(&g);
        for (int cycle = 0; cycle < 2; cycle++) {
            dh_collect_stats stats;
            int is_over = 0;
            CHECK_EQ(dh_cycle_begin(heap, &stats), 0);
            CHECK_EQ(dh_cycle_begin(heap, &stats), EBUSY);
            while (!is_over) {
                CHECK_EQ(dh_cycle_mark(heap, 1000, &is_over), 0);
                if (cycle == 0)
                    graph_step(&g);
            }
            CHECK_EQ(dh_cycle_finish(heap, &stats), 0);
            for (is_over = 0; !is_over;) {
                CHECK_EQ(dh_cycle_sweep(heap, 1, &stats, &is_over), 0);
                if (cycle == 0)
                    graph_step(&g);
            }
        }
        CHECK_EQ(lost(&g), 0);
        CHECK_EQ(graph_allocated(&g), g.reached_count);
    }
    graph_end(&g);
    dh_heap_close(heap);
}

/* Collections of a clean heap without garbage, in steps and in one stop, write no page. */
static void collections_dirty_nothing(void)
{
    dh_heap *heap = heap_new(DH_TRACKER_AUTO);
    dh_collect_stats stats;
    uint64_t scanned, changed;
    int is_over = 0;
    graph g;

    graph_begin(&g, heap);
    for (int n = 0; n < 20000; n++)
        graph_step(&g);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    commit(heap);
    CHECK_EQ(dh_watch_scan(heap->watch, heap->arena.hwm_pages, &scanned), 0);
    changed = dh_watch_count(heap->watch, heap->commit_cursor, heap->arena.hwm_pages);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK_EQ(stats.freed_cells_count, 0);
    CHECK_EQ(dh_collect_young(heap, &stats), 0);
    CHECK_EQ(dh_cycle_begin(heap, &stats), 0);
    while (!is_over)
        CHECK_EQ(dh_cycle_mark(heap, 100000, &is_over), 0);
    CHECK_EQ(dh_cycle_finish(heap, &stats), 0);
    for (is_over = 0; !is_over;)
        CHECK_EQ(dh_cycle_sweep(heap, 100000, &stats, &is_over), 0);
    CHECK_EQ(stats.freed_cells_count, 0);
    CHECK_EQ(dh_watch_scan(heap->watch, heap->arena.hwm_pages, &scanned), 0);
    CHECK_EQ(scanned, 0);
    CHECK_EQ(dh_watch_count(heap->watch, heap->commit_cursor, heap->arena.hwm_pages), changed);
    CHECK_EQ(dh_bits_count(&heap->alloc.changed, heap->arena.hwm_pages), 0);
    graph_end(&g);
    dh_heap_close(heap);
}

/* A full arena ends a cycle that holds frees back, instead of failing. */
static void a_full_arena_ends_the_cycle(void)
{
    dh_options options = {4u << 20, DH_TRACKER_AUTO, {1, 2}};
    dh_collect_stats stats;
    dh_heap *heap;
    dh_off off;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    for (int phase = 0; phase < 2; phase++) {
        CHECK_EQ(dh_collect(heap, &stats), 0); /* all is garbage */
        CHECK_EQ(dh_cycle_begin(heap, &stats), 0);
        if (phase == 1)
            CHECK_EQ(dh_cycle_finish(heap, &stats), 0);
        for (int n = 0; n < 5000; n++) {
            CHECK_EQ(dh_cell_new(heap, 2048, DH_REFS, &off), 0);
            dh_cell_free(heap, off);
        }
        CHECK(phase == 1 || heap->cycle_phase == DHI_CYCLE_IDLE);
        CHECK_EQ(dh_cycle_drop(heap), 0);
    }
    while (dh_cell_new(heap, 2048, DH_REFS, &off) == 0)
        ;
    CHECK_EQ(dh_cell_new(heap, 2048, DH_REFS, &off), DH_E_FULL);
    dh_heap_close(heap);
}

static int due_count;
static int count_due(void *context)
{
    (void)context;
    due_count++;
    return 0;
}

static void the_host_hears_once_that_a_collection_is_due(void)
{
    dh_heap *heap = heap_new(DH_TRACKER_AUTO);
    dh_world world = {NULL, NULL, NULL, count_due};
    dh_collect_stats stats;
    dh_off off;

    dh_heap_set_world(heap, &world);
    CHECK_EQ(dh_collect_due_at(heap, 1 << 20), 0);
    for (int round = 1; round <= 3; round++) {
        for (int n = 0; n < 1000; n++)
            CHECK_EQ(dh_cell_new(heap, 2048, DH_REFS, &off), 0);
        CHECK_EQ(due_count, round);
        CHECK_EQ(dh_collect_young(heap, &stats), 0);
    }
    CHECK_EQ(dh_collect_due_at(heap, 0), 0);
    for (int n = 0; n < 1000; n++)
        CHECK_EQ(dh_cell_new(heap, 2048, DH_REFS, &off), 0);
    CHECK_EQ(due_count, 3);
    CHECK_EQ(dh_collect_source(heap, 7), EINVAL);
    dh_heap_close(heap);
}

/* Ten million cells in a row, and an array of a million: bounded stack, no recursion. */
static void a_long_chain_and_a_wide_array(uint64_t links_count)
{
    dh_options options = {1u << 30, DH_TRACKER_AUTO, {1, 2}};
    dh_collect_stats stats;
    dh_handle handles[2];
    dh_word next = DH_EMPTY;
    dh_heap *heap;
    dh_off off;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    for (uint64_t i = 0; i < links_count; i++) {
        CHECK_EQ(dh_cell_new(heap, 16, DH_REFS, &off), 0);
        dh_store(dh_at(heap, off), dh_int((int64_t)i & 1023));
        dh_store((dh_word *)dh_at(heap, off) + 1, next);
        next = dh_ref(DH_T_LEAF, off);
    }
    handles[0] = (dh_handle){next, 0};
    CHECK_EQ(dh_handles_add(&heap->handles, &handles[0]), 0);
    uint64_t wide_count = links_count / 10;
    CHECK_EQ(dh_cell_new(heap, wide_count * 8, DH_REFS, &off), 0);
    handles[1] = (dh_handle){dh_ref(DH_T_LEAF, off), 0};
    CHECK_EQ(dh_handles_add(&heap->handles, &handles[1]), 0);
    for (uint64_t i = 0; i < wide_count; i++) {
        dh_off leaf;
        CHECK_EQ(dh_cell_new(heap, 16, DH_REFS, &leaf), 0);
        dh_store((dh_word *)dh_at(heap, off) + i, dh_ref(DH_T_LEAF, leaf));
    }
    CHECK_EQ(dh_collect_young(heap, &stats), 0);
    CHECK_EQ(stats.freed_cells_count, 0);
    CHECK(stats.marked_cells_count >= links_count + wide_count + 1);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK_EQ(stats.freed_cells_count, 0);
    CHECK(stats.overflow_rounds_count > 0);
    CHECK(stats.live_cells_count >= links_count + wide_count + 1);
    dh_handles_remove(&heap->handles, &handles[0]);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK_EQ(stats.freed_cells_count, links_count);
    dh_heap_close(heap);
}

/* Without re-marking from written pages, or without what a dropped cycle gives back, live cells are
 * freed, and the trace tells. */
static void the_trace_finds_what_is_lost(void)
{
    static const char *const controls[] = {"collect.rescan", "collect.drop"};

    for (size_t i = 0; i < sizeof controls / sizeof controls[0]; i++) {
        uint64_t found = 0;
        for (int tries = 0; tries < 20 && found == 0; tries++) {
            CHECK_EQ(dh_fault_set(controls[i], 0, 5), 0);
            found = history(DH_TRACKER_UFFD, 300);
            CHECK_EQ(dh_fault_set(controls[i], 0, 0), 0);
        }
        printf("%s: %llu live cells freed\n", controls[i], (unsigned long long)found);
        CHECK(found > 0);
    }
}

int main(int argc, char **argv)
{
    bool is_kernel = dh_probe(DH_TRACKER_UFFD, NULL, 0) == 0;

    check_begin(argc, argv);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(history(DH_TRACKER_AUTO, 400), 0);
        CHECK_EQ(history(DH_TRACKER_COMPARE, 150), 0);
    }
    two_cycles_leave_no_garbage();
    collections_dirty_nothing();
    a_full_arena_ends_the_cycle();
    the_host_hears_once_that_a_collection_is_due();
    a_long_chain_and_a_wide_array(1000000);
    if (is_kernel)
        the_trace_finds_what_is_lost();
    return 0;
}
