/* vec.h -- a vector of words that grows without rewriting itself.
 *
 * Up to 512 words: one cell (class size = capacity, doubling-ish growth). Beyond: a radix tree of
 * one-page leaves (512 words) under one-page nodes (512 refs). An append dirties at most three
 * pages. Slots at and beyond the length are EMPTY. No ownership: slots are plain words; the
 * caller drops values. Research: radix vectors as in Clojure's persistent vector (Bagwell, Rompf).
 *
 * A vec lives in three consecutive words of its owner's cell:
 *   [0] length  int      [1] root  ref to LEAF or NODE, or EMPTY      [2] depth  int
 *   depth 0: root is the leaf; depth d: a NODE over depth d-1.
 */
#ifndef DH_VEC_H
#define DH_VEC_H

#include "heap.h"

enum { DH_VEC_LENGTH = 0, DH_VEC_ROOT = 1, DH_VEC_DEPTH = 2, DH_VEC_WORDS = 3 };
#define DH_VEC_DEPTH_MAX 5
#define DH_VEC_LEAF_WORDS 512u

/* vec points to the three words, inside the arena. */
static inline uint64_t dh_vec_length(const dh_word *vec)
{
    return (uint64_t)dh_int_value(vec[DH_VEC_LENGTH]);
}
/* Address of slot index and how many slots follow it contiguously, itself included; NULL when
 * damaged or index >= capacity. */
dh_word *dh_vec_slot(const dh_heap *heap, const dh_word *vec, uint64_t index, uint64_t *span_out);
/* Make room for length words; the length itself stays. All or nothing. */
int dh_vec_reserve(dh_heap *heap, dh_word *vec, uint64_t length) DH_MUST_USE;
/* reserve + store + length + 1. */
int dh_vec_push(dh_heap *heap, dh_word *vec, dh_word w) DH_MUST_USE;
/* Set the length: new slots are EMPTY (room must be reserved); cut ones are cleared and leaves and
 * nodes no longer needed are freed. */
int dh_vec_set_length(dh_heap *heap, dh_word *vec, uint64_t length) DH_MUST_USE;
/* Move count words from index `from` to index `to` inside the reserved room (like memmove). */
int dh_vec_move(dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from, uint64_t count)
    DH_MUST_USE;
/* Put leaves of EMPTY slots before slot 0 (the length grows), or take them away again (their slots
 * must be EMPTY). Only refs to leaves move; depth must be > 0. Opening is all or nothing. */
int dh_vec_open_front(dh_heap *heap, dh_word *vec, uint64_t leaves_count) DH_MUST_USE;
int dh_vec_close_front(dh_heap *heap, dh_word *vec, uint64_t leaves_count) DH_MUST_USE;
/* Free all storage: length 0, root EMPTY. */
void dh_vec_clear(dh_heap *heap, dh_word *vec);

#endif
