/* list.h -- List: a head cell and a vector of values.
 *
 *   head  [0] meta | gap   [1..3] vec (vec.h)
 *
 * The first gap slots of the vec are EMPTY and precede element 0.
 *
 * Every function takes the ref word of the list (or Deque, deque.h) and checks it. Words stored become owned by the
 * list (value.h); words removed are handed back or dropped as said.
 */
#ifndef DH_LIST_H
#define DH_LIST_H

#include "vec.h"

/* Elements that stand together, found once and read until they may have moved. */
typedef struct {
    const dh_word *words; /* element number first */
    uint64_t first, count;
    uint64_t moves_count, shows_count; /* of the heap when they were found */
} dh_list_run;

int dh_list_new(dh_heap *heap, dh_word *list_out) DH_MUST_USE;
int dh_list_length(const dh_heap *heap, dh_word list, uint64_t *length_out) DH_MUST_USE;
/* index < length, else DH_E_ABSENT. */
int dh_list_get(const dh_heap *heap, dh_word list, uint64_t index, dh_word *word_out) DH_MUST_USE;
/* Drops the old value. */
int dh_list_set(dh_heap *heap, dh_word list, uint64_t index, dh_word word) DH_MUST_USE;
int dh_list_append(dh_heap *heap, dh_word list, dh_word word) DH_MUST_USE;
/* Replace words [start, start + removed) by the inserted ones; drops what it removes. Reserves
 * first, so that a failure changes nothing. */
int dh_list_splice(dh_heap *heap, dh_word list, uint64_t start, uint64_t removed,
                   const dh_word *inserted, uint64_t inserted_count) DH_MUST_USE;
/* Contiguous words from index; for bulk reading. NULL at the end or when damaged. */
const dh_word *dh_list_span(dh_heap *heap, dh_word list, uint64_t index, uint64_t *span_out);
/* The run that element index stands in. index < length, else DH_E_ABSENT; then the run is empty. */
int dh_list_run_at(const dh_heap *heap, dh_word list, uint64_t index, dh_list_run *run_out)
    DH_MUST_USE;
/* Where element index of a list that still is there stands, if the run tells; else NULL. What is
 * appended in the meantime is in no run, values that are replaced are seen. */
static inline const dh_word *dh_list_run_slot(const dh_heap *heap, const dh_list_run *run,
                                              uint64_t index)
{
    bool is_inside = index - run->first < run->count && run->moves_count == heap->moves_count &&
                     run->shows_count == heap->shows_count;
    return DH_LIKELY(is_inside) ? run->words + (index - run->first) : NULL;
}
/* The same to write through: who stores there keeps every value owned by one slot. */
dh_word *dh_list_slots(dh_heap *heap, dh_word list, uint64_t index, uint64_t *span_out);
int dh_list_reverse(dh_heap *heap, dh_word list) DH_MUST_USE;
int dh_list_clear(dh_heap *heap, dh_word list) DH_MUST_USE;
/* Every slot below the length exists and holds a value, every other is EMPTY; else DH_E_CORRUPT. */
int dh_list_check(const dh_heap *heap, dh_word list) DH_MUST_USE;

/* --- for deque.c: a Deque is a list with a longer head ------------------------------------------ */
enum {
    LIST_HEAD_WORDS = 4,
    LIST_CHANGES = 5 /* of a Deque: counts changes of what stands where */
};
int dhi_list_head_new(dh_heap *heap, dh_type type, size_t bytes, dh_word *list_out) DH_MUST_USE;
/* Remove without dropping: the words are somebody else's now. Needs no memory. */
int dhi_list_take(dh_heap *heap, dh_word list, uint64_t start, uint64_t count) DH_MUST_USE;

#endif
