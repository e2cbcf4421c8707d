/* collect_beside.h -- a full collection in steps, as a host runs it in a thread beside the program.
 *
 * Two short stops for marking, and the sweep in slices with pauses as long as they are.
 */
#ifndef DH_BENCH_COLLECT_BESIDE_H
#define DH_BENCH_COLLECT_BESIDE_H

#include "../native/src/heap.h"
#include "collect_world.h"

#define MARK_SLICE_NS 100000000u
#define SWEEP_SLICE_NS 500000u

typedef struct {
    uint64_t longest_stop_ns, last_stop_ns, stops_count; /* last: the one that ends the marking */
    dh_collect_stats stats;                              /* of the whole cycle */
} beside_result;

static void beside_stop(beside_result *result, uint64_t stop_ns)
{
    result->stops_count++;
    if (stop_ns > result->longest_stop_ns)
        result->longest_stop_ns = stop_ns;
}

/* 0, or what the core says. */
static int collect_beside(dh_heap *heap, beside_result *result)
{
    static const struct timespec pause = {0, SWEEP_SLICE_NS};
    int is_marked = 0, is_done = 0, rc;

    memset(result, 0, sizeof(*result));
    rc = dh_cycle_begin(heap, &result->stats);
    beside_stop(result, result->stats.stop_ns);
    while (rc == 0 && !is_marked)
        rc = dh_cycle_mark(heap, MARK_SLICE_NS, &is_marked);
    if (rc == 0)
        rc = dh_cycle_finish(heap, &result->stats);
    result->last_stop_ns = result->stats.stop_ns;
    beside_stop(result, result->stats.stop_ns);
    while (rc == 0 && !is_done) {
        rc = dh_cycle_sweep(heap, SWEEP_SLICE_NS, &result->stats, &is_done);
        beside_stop(result, result->stats.stop_ns);
        nanosleep(&pause, NULL);
    }
    return rc;
}

#endif
