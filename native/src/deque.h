/* deque.h -- Deque: a list that may have a length it never exceeds.
 *
 *   head  [0..3] as a List's (list.h)   [4] int: maxlen, or NONE   [5] int: changes
 *
 * Reading, dh_list_splice and what else list.h has take a Deque as they take a List, but know nothing
 * of maxlen. Changes are counted there, so that an iterator can tell; replacing a value is none.
 */
#ifndef DH_DEQUE_H
#define DH_DEQUE_H

#include "list.h"

#define DH_DEQUE_UNBOUNDED UINT64_MAX

typedef struct {
    uint64_t length;
    uint64_t maxlen;           /* or DH_DEQUE_UNBOUNDED                                */
    uint64_t changes;          /* another number after each change of what stands where */
    const dh_word *changes_at; /* where that number stands as long as the deque is there */
} dh_deque_state;

int dh_deque_new(dh_heap *heap, uint64_t maxlen, dh_word *deque_out) DH_MUST_USE;
int dh_deque_read(const dh_heap *heap, dh_word deque, dh_deque_state *state_out) DH_MUST_USE;
/* Put words at the end, or at the front in the order in which they then stand there. What exceeds
 * maxlen goes at the other end, of the words too, and is dropped. All or nothing. */
int dh_deque_extend(dh_heap *heap, dh_word deque, const dh_word *words, uint64_t count) DH_MUST_USE;
int dh_deque_extend_left(dh_heap *heap, dh_word deque, const dh_word *words, uint64_t count)
    DH_MUST_USE;
/* Take elements off the end and put them in front; negative: the other way round. Moves no more than
 * half of them. All or nothing. */
int dh_deque_rotate(dh_heap *heap, dh_word deque, int64_t steps) DH_MUST_USE;
/* As dh_list_check, and maxlen is kept. */
int dh_deque_check(const dh_heap *heap, dh_word deque) DH_MUST_USE;

#endif
