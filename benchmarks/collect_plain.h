/* collect_plain.h -- the mark that a full collection is held against: the same cells at the same
 * places as plain C structures, traced by a plain loop without a single check.
 *
 * The loop trusts everything. It knows how many references a structure has, and from the pointer
 * whether its target has any; its stack grows as it likes.
 */
#ifndef DH_BENCH_COLLECT_PLAIN_H
#define DH_BENCH_COLLECT_PLAIN_H

#include "../native/src/heap.h"

typedef struct plain_object {
    uint64_t refs_count;
    uintptr_t refs[]; /* addresses, PLAIN_LEAF set where the target has no references; or 0 */
} plain_object;
#define PLAIN_LEAF 1u

typedef struct {
    uint8_t *memory; /* a copy of the arena: what lay at offset o lies at memory + o */
    uint64_t bytes;
    plain_object *root;
    uint64_t *bits; /* one per 16 bytes */
    plain_object **stack;
    size_t stack_room;
} plain_graph;

/* Word 0 of every cell of references must be a count, references stand right behind it; in raw cells
 * it is 0. */
void plain_copy(plain_graph *plain, const dh_heap *heap, dh_word root);
void plain_free(plain_graph *plain);
/* Objects marked; with one bit per 16 bytes beside the objects, or with a flag in each of them (once
 * per copy). */
uint64_t plain_mark_beside(plain_graph *plain);
uint64_t plain_mark_inside(plain_graph *plain);

#endif
