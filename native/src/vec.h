/* vec.h -- a vector of words that grows, and changes in the middle, without rewriting itself.
 *
 * Up to 512 words: one cell (class size = capacity, doubling-ish growth). Beyond: a radix tree of
 * one-page leaves (512 words) under one-page nodes (512 refs). An append dirties at most three
 * pages. Slots at and beyond the length are EMPTY. No ownership: slots are plain words; the
 * caller drops values. Research: radix vectors as in Clojure's persistent vector (Bagwell, Rompf).
 *
 * Inserting or removing more than eight leaves away from the end relaxes the tree along that path,
 * and only there (Bagwell, Rompf, "RRB-Trees", 2011): a relaxed node says where each child begins,
 * so children may hold fewer words than they could. What is not on such a path stays plain.
 *
 * A vec lives in three consecutive words of its owner's cell:
 *   [0] length  int      [1] root  ref to LEAF, NODE or RNODE, or EMPTY      [2] depth  int
 *   depth 0: root is the leaf; depth d: a node over depth d-1.
 */
#ifndef DH_VEC_H
#define DH_VEC_H

#include "heap.h"

/* A test build makes trees deep with few words. */
#ifndef DH_VEC_BITS
#define DH_VEC_BITS 9u
#define DH_VEC_RELAXED_CHILDREN_MAX 255u
#endif

enum { DH_VEC_LENGTH = 0, DH_VEC_ROOT = 1, DH_VEC_DEPTH = 2, DH_VEC_WORDS = 3 };
#define DH_VEC_DEPTH_MAX 5
#define DH_VEC_LEAF_WORDS (1u << DH_VEC_BITS)

/* The slots of one leaf. */
typedef struct {
    dh_word *first; /* slot number start                                                 */
    uint64_t start;
    uint64_t limit; /* exclusive; of the last leaf: where its room ends, beyond the length */
} dh_vec_run;

/* vec points to the three words, inside the arena. */
static inline uint64_t dh_vec_length(const dh_word *vec)
{
    return (uint64_t)dh_int_value(vec[DH_VEC_LENGTH]);
}
/* Address of slot index and how many slots follow it contiguously, itself included; NULL when
 * damaged or index >= capacity. */
dh_word *dh_vec_slot(const dh_heap *heap, const dh_word *vec, uint64_t index, uint64_t *span_out);
/* The leaf that slot index stands in; false when damaged or index >= capacity. */
bool dh_vec_run_at(const dh_heap *heap, const dh_word *vec, uint64_t index, dh_vec_run *run_out);
/* Make room for length words at the end; the length itself stays. All or nothing. Plain trees
 * only: one that is relaxed is DH_E_CORRUPT. */
int dh_vec_reserve(dh_heap *heap, dh_word *vec, uint64_t length) DH_MUST_USE;
/* Add one word at the end. */
int dh_vec_push(dh_heap *heap, dh_word *vec, dh_word w) DH_MUST_USE;
/* Set the length: new slots are EMPTY (room must be reserved); cut ones are cleared and leaves and
 * nodes no longer needed are freed. Cutting allocates nothing. */
int dh_vec_set_length(dh_heap *heap, dh_word *vec, uint64_t length) DH_MUST_USE;
/* Insert count words (NULL: EMPTY ones) before slot index. All or nothing. Dirties what it fills
 * and a handful of pages. */
int dh_vec_insert(dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words, uint64_t count)
    DH_MUST_USE;
/* Take slots [index, index + count) out. Fails only on damage: where there is no memory to relax
 * the tree, everything behind moves instead. */
int dh_vec_remove(dh_heap *heap, dh_word *vec, uint64_t index, uint64_t count) DH_MUST_USE;
/* Store words (NULL: EMPTY) at existing slots. */
int dh_vec_fill(const dh_heap *heap, dh_word *vec, uint64_t index, const dh_word *words,
                uint64_t count) DH_MUST_USE;
/* Move count words from index `from` to index `to` inside the reserved room (like memmove). */
int dh_vec_move(const dh_heap *heap, dh_word *vec, uint64_t to, uint64_t from, uint64_t count)
    DH_MUST_USE;
/* Free all storage: length 0, root EMPTY. */
void dh_vec_clear(dh_heap *heap, dh_word *vec);
/* The tree's shape: every child there, counts that fit, nothing but EMPTY where no slot is. What
 * stands in the slots is the owner's to check. O(length). */
int dh_vec_check(const dh_heap *heap, const dh_word *vec) DH_MUST_USE;

#endif
