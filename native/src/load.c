/* load.c -- from stored deltas to a running heap.
 *
 * Must trust nothing, and read next to nothing: base files come in through mapping.c, deltas through
 * backlog.c, and pages when they are looked at (lazy.c). What is found to be damaged here refuses the
 * heap whole.
 */
#include "buffer.h"
#include "dict.h"
#include "gate.h"
#include "lazy.h"

int dh_load_delta(dh_heap *heap, const uint8_t *bytes, size_t size)
{
    DH_ASSERT(heap->phase == DH_LOADING);
    return dh_backlog_add(heap, bytes, size);
}

static int start_empty(dh_heap *heap)
{
    heap->arena.hwm_pages = 1;
    dh_bits_set(&heap->alloc.changed, 0); /* the table must say RESERVED for page 0 */
    int rc = dh_alloc_rebuild(heap);
    if (rc == 0)
        rc = dh_dict_new_root(heap, &heap->root);
    heap->committed = (dh_state){0, 1, 1};
    return rc;
}

static int start_loaded(dh_heap *heap, const dh_state *state)
{
    uint64_t length;

    if (state->hwm_pages == 0 || state->hwm_pages > heap->arena.capacity_pages)
        return dhi_fail(heap, DH_E_FULL,
                        "the heap has %llu pages, more than the capacity: pass capacity=%llu or "
                        "more",
                        (unsigned long long)state->hwm_pages,
                        (unsigned long long)(state->hwm_pages << DH_PAGE_SHIFT));
    heap->arena.hwm_pages = state->hwm_pages;
    /* A bound for readers, until the table was read. */
    heap->alloc.allocated_bytes = state->hwm_pages << DH_PAGE_SHIFT;
    heap->root = state->root;
    heap->serial_next = state->serial_next;
    heap->committed = *state;
    heap->error_text[0] = '\0';
    if (!dh_cell_is_allocated(heap, dh_ref_off(state->root)) ||
        dh_dict_length(heap, state->root, &length) != 0)
        return heap->error_text[0] != '\0' ? DH_E_CORRUPT
                                           : dhi_fail(heap, DH_E_CORRUPT, "the root is not a dict");
    return 0;
}

/* A new heap is stored to at once: its root is. */
static int begin_empty(dh_heap *heap)
{
    int rc = 0;

    dhi_lazy_finish(heap);
    if (!heap->is_read_only)
        rc = dh_watch_begin(heap->watch);
    if (rc == 0)
        rc = start_empty(heap);
    return rc;
}

int dh_load_finish(dh_heap *heap, const dh_state *state)
{
    int rc;

    DH_ASSERT(heap->phase == DH_LOADING);
    rc = state == NULL ? begin_empty(heap) : start_loaded(heap, state);
    if (rc != 0)
        return rc;
    heap->phase = DH_RUNNING;
    dhi_gate_update(heap);
    /* Until the first commit a rollback leads here, and the root's handle must stay valid. */
    return state == NULL && !heap->is_read_only ? dh_savepoint_take(heap, &heap->empty) : 0;
}
