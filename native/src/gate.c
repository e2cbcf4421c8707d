/* gate.c -- the store gate's slow side: refusing stores, and why; making ready for the first.
 *
 * Contract: gate.h. Must never open for a heap that is forked, closed or read only, and must never
 * be passed by: the tests ask every changing method of every container.
 */
#include "gate.h"

#include "lazy.h"

void dhi_gate_update(dh_heap *heap)
{
    heap->is_gated =
        heap->is_forked || heap->is_read_only || heap->phase != DH_RUNNING || heap->lazy != NULL;
}

int dhi_store_gate_slow(dh_heap *heap)
{
    if (heap->is_forked)
        return dhi_fail(heap, DH_E_FORKED,
                        "this heap belongs to the parent process: open it again after the parent "
                        "has closed it");
    if (heap->phase != DH_RUNNING)
        return dhi_fail(heap, DH_E_CLOSED,
                        heap->phase == DH_CLOSED ? "the heap is closed"
                                                 : "the heap is not loaded yet");
    if (heap->is_read_only)
        return dhi_fail(heap, DH_E_READ_ONLY, "the heap is open for reading only");
    int rc = heap->lazy != NULL ? dhi_lazy_end(heap) : 0;
    if (rc == 0)
        dhi_gate_update(heap);
    return rc;
}

int dh_store_begin(dh_heap *heap) { return dhi_verb_gate(heap); }

int dhi_verb_gate(dh_heap *heap)
{
    if (heap->is_gated == 0)
        return 0;
    if (heap->is_forked) /* where the world lock's owner may not exist */
        return dhi_store_gate_slow(heap);
    dhi_world_stop(heap);
    int rc = dh_store_gate(heap);
    dhi_world_resume(heap);
    return rc;
}

void dhi_heap_set_read_only(dh_heap *heap, bool is_read_only)
{
    heap->is_read_only = is_read_only;
    dhi_gate_update(heap);
}

void dh_heap_set_read_only(dh_heap *heap) { dhi_heap_set_read_only(heap, true); }
