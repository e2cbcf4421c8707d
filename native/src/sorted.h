/* sorted.h -- SortedDict: entries in the order of their keys, by key and by position.
 *
 *   head  [0] meta | flags (depth)   [1] entries   [2] root   [3] version
 *
 * A B+tree (Bayer, McCreight 1972; Comer 1979) of nodes of one page. Depth 0: the root is a leaf,
 * or EMPTY without entries; depth d: a node over depth d - 1.
 *   leaf  [0] entries   [1] 0   keys...   values...          one small cell that doubles up to a page
 *   node  [0] children  [1] 0   refs...   entries below each...   separators...
 * Separator i (from 1 on; 0 is EMPTY) is behind every key below child i - 1 and not behind any below
 * child i. It is a word of its own, belongs to its slot like any value (W3), and is no longer than
 * the order needs: it need not be a key, and stays when the key that it was made from goes.
 * Counts of entries stand in the nodes, so positions are found as fast as keys. Leaves are not
 * linked: the next one is found by its position, and a split dirties no neighbour.
 *
 * A node splits when it is full, in the middle; at the end of the last leaf it stays full. It is
 * merged with a neighbour when less than a quarter is used and both together fill three quarters at
 * most. So no sequence of insertions and deletions splits and merges the same node again and again.
 *
 * Every function takes the ref word and checks it. DH_E_UNORDERED: the key cannot be compared with
 * the keys that are here. Words stored belong to the container, words removed are handed back or
 * dropped as said.
 */
#ifndef DH_SORTED_H
#define DH_SORTED_H

#include "order.h"

/* Entries that stand together, pointing into the arena: good until the next change. */
typedef struct {
    const dh_word *keys;
    const dh_word *values;
    uint64_t first; /* position of the first of them */
    uint64_t count;
} dh_sorted_span;

int dh_sorted_new(dh_heap *heap, dh_word *sorted_out) DH_MUST_USE;
int dh_sorted_length(const dh_heap *heap, dh_word sorted, uint64_t *length_out) DH_MUST_USE;
/* Where a word stands that changes with every insertion and deletion (not with overwriting a value).
 * Together with heap->shows_count it says whether spans are still good. It stays there as long as the
 * container. */
int dh_sorted_version_at(const dh_heap *heap, dh_word sorted, const dh_word **version_out)
    DH_MUST_USE;

/* DH_E_ABSENT when there is no such key. */
int dh_sorted_get(const dh_heap *heap, dh_word sorted, const dh_key *key, dh_word *value_out)
    DH_MUST_USE;
/* Present: the value is replaced, the old one dropped, *was_new_out = false and key_word stays the
 * caller's. Absent: (key_word, value) is inserted and both belong to the container. key_word may be
 * EMPTY: then it is made from the key if that is a str or bytes; any other absent key gives
 * DH_E_ABSENT and nothing happens. The key is one that dh_order_admits. */
int dh_sorted_set(dh_heap *heap, dh_word sorted, const dh_key *key, dh_word key_word, dh_word value,
                  bool *was_new_out) DH_MUST_USE;
/* Remove; the key is dropped, the value handed to *value_out or dropped when NULL. */
int dh_sorted_delete(dh_heap *heap, dh_word sorted, const dh_key *key, dh_word *value_out)
    DH_MUST_USE;
/* The same for the entry at a position; DH_E_ABSENT behind the last. */
int dh_sorted_delete_at(dh_heap *heap, dh_word sorted, uint64_t index) DH_MUST_USE;

/* How many keys are before this one; equal ones count as before with is_right (there is one at
 * most: *is_found_out). */
int dh_sorted_rank(const dh_heap *heap, dh_word sorted, const dh_key *key, bool is_right,
                   uint64_t *rank_out, bool *is_found_out) DH_MUST_USE;
/* The span that holds a position; DH_E_ABSENT behind the last. */
int dh_sorted_span_at(const dh_heap *heap, dh_word sorted, uint64_t index, dh_sorted_span *span_out)
    DH_MUST_USE;

int dh_sorted_clear(dh_heap *heap, dh_word sorted) DH_MUST_USE;
/* Fill an empty container from count (key, value) pairs in strictly rising order, and take their
 * words over. All or nothing; DH_E_UNORDERED when they do not rise. */
int dh_sorted_load(dh_heap *heap, dh_word sorted, const dh_word *pairs, uint64_t count) DH_MUST_USE;
/* Order, counts, depth and sizes, all of them; DH_E_CORRUPT with a text. */
int dh_sorted_check(const dh_heap *heap, dh_word sorted) DH_MUST_USE;

#endif
