/* gate.h -- the store gate: what every store to a heap passes first.
 *
 * A heap that is read only, forked, closed or not loaded yet refuses stores, all of them, here. One
 * that was opened and only read so far is made ready for them (lazy.h), which takes its time. Who
 * is about to store (a slot of the binding, a verb that writes, the export of memory that somebody
 * may write to) asks once before its first store, and again after anything that ran foreign code.
 * Needs the world lock. Asking costs one load where stores are allowed.
 */
#ifndef DH_GATE_H
#define DH_GATE_H

#include "heap.h"

/* Why not, or what has to be done first (gate.c). */
int dhi_store_gate_slow(dh_heap *heap) DH_MUST_USE;

/* 0: stores may begin. */
static inline int dh_store_gate(dh_heap *heap)
{
    return DH_LIKELY(heap->is_gated == 0) ? 0 : dhi_store_gate_slow(heap);
}

/* The same for verbs, which do not have the world lock. */
int dhi_verb_gate(dh_heap *heap) DH_MUST_USE;

/* Opens or shuts the gate by the heap's state; after each change of phase or is_read_only. */
void dhi_gate_update(dh_heap *heap);

#endif
