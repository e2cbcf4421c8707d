/* lab_watch.c -- a write watch (write_watch.h) with a technique of the laboratory.
 *
 * The same object and the same contract as any write watch has, as far as the technique can keep
 * it. Never over memory of a heap: the heap's own system calls and its commits would meet pages
 * that somebody else protects.
 */
#include <stdio.h>

#include "../src/write_watch.h"
#include "lab.h"

static const dh_tracker *tracker_numbered(int id)
{
    for (size_t i = 0; i < dh_lab_techniques_count(); i++)
        if (dhl_tracker_at(i)->id == id && dh_lab_technique_at(i)->is_for_heaps == 0)
            return dhl_tracker_at(i);
    return NULL;
}

static bool is_of_a_heap(const dh_range *range)
{
    dh_watch *heap_watch = dh_watch_find(range, DH_WATCH_HEAP);

    if (heap_watch == NULL)
        return false;
    dh_watch_drop(heap_watch);
    return true;
}

int dh_lab_watch_open(uint64_t address, uint64_t pages_count, int tracker,
                      dh_write_watch **watch_out, char *why_out, size_t why_size)
{
    const dh_range range = {(uint8_t *)(uintptr_t)address, pages_count};
    const dh_tracker *table = tracker_numbered(tracker);

    DH_ASSERT(why_size > 0);
    if (table == NULL) {
        snprintf(why_out, why_size, "the laboratory has no technique number %d", tracker);
        return DH_E_TRACKER;
    }
    if (is_of_a_heap(&range)) {
        snprintf(why_out, why_size,
                 "this is memory of a heap, which no technique of the laboratory may touch: "
                 "WriteWatch watches it");
        return DH_E_TRACKER;
    }
    return dhi_write_watch_open_with(&range, table, NULL, watch_out, why_out, why_size);
}
