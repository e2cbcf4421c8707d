/* set.h -- Set: insertion-ordered, the keys of a dict without values.
 *
 * Head, index and the three forms are those of dict.h; an entry is the key's word alone, 8 bytes for
 * 16. Keys, damage and failures: as in dict.h.
 */
#ifndef DH_SET_H
#define DH_SET_H

#include "dict.h"

int dh_set_new(dh_heap *heap, dh_word *set_out) DH_MUST_USE;
int dh_set_length(const dh_heap *heap, dh_word set, uint64_t *length_out) DH_MUST_USE;
/* A number that changes with every insertion and deletion. */
int dh_set_version(const dh_heap *heap, dh_word set, uint64_t *version_out) DH_MUST_USE;
/* The stored element that equals key; DH_E_ABSENT when there is none. */
int dh_set_find(const dh_heap *heap, dh_word set, const dh_key *key, dh_word *word_out) DH_MUST_USE;
/* Absent: key_word is appended and belongs to the set. Present: *was_new_out = false, nothing
 * changes and key_word stays the caller's. key_word may be EMPTY: then an absent key gives
 * DH_E_ABSENT. */
int dh_set_add(dh_heap *heap, dh_word set, const dh_key *key, dh_word key_word, bool *was_new_out)
    DH_MUST_USE;
/* Remove and drop the element; DH_E_ABSENT. */
int dh_set_remove(dh_heap *heap, dh_word set, const dh_key *key) DH_MUST_USE;
/* Next element in order: 1 and its word, 0 at the end, negative code when damaged. */
int dh_set_next(const dh_heap *heap, dh_word set, dh_dict_pos *pos, dh_word *word_out) DH_MUST_USE;
/* Same, from the end backwards. */
int dh_set_prev(const dh_heap *heap, dh_word set, dh_dict_pos *pos, dh_word *word_out) DH_MUST_USE;
int dh_set_clear(dh_heap *heap, dh_word set) DH_MUST_USE;
/* Room for count more elements at once (bulk loads); a hint that may do nothing. */
int dh_set_reserve(dh_heap *heap, dh_word set, uint64_t count) DH_MUST_USE;
/* Walk everything and check it against itself; DH_E_CORRUPT with a text. */
int dh_set_check(dh_heap *heap, dh_word set) DH_MUST_USE;

/* --- set_algebra.c: whole sets of one heap ------------------------------------------------------
 * Those that change `set` leave it as it was when they fail. O(elements). */

/* The element of set that equals a word stored elsewhere in the heap; DH_E_ABSENT. */
int dh_set_find_word(const dh_heap *heap, dh_word set, dh_word element, dh_word *word_out)
    DH_MUST_USE;
int dh_set_remove_word(dh_heap *heap, dh_word set, dh_word element) DH_MUST_USE;
/* Is one element, are all elements of other in set? 1, 0 or a code; ENOMEM as DH_E_LIMIT. */
int dh_set_has_any(const dh_heap *heap, dh_word set, dh_word other) DH_MUST_USE;
int dh_set_has_all(const dh_heap *heap, dh_word set, dh_word other) DH_MUST_USE;
/* Add copies of what is in other only. */
int dh_set_merge(dh_heap *heap, dh_word set, dh_word other) DH_MUST_USE;
/* Remove what is in other (wanted), or what is not (not wanted). */
int dh_set_subtract(dh_heap *heap, dh_word set, dh_word other, bool wanted) DH_MUST_USE;
/* Remove what is in both, add copies of what is in other only. */
int dh_set_toggle(dh_heap *heap, dh_word set, dh_word other) DH_MUST_USE;
/* Remove the newest elements: to undo that many additions. */
void dh_set_undo_adds(dh_heap *heap, dh_word set, uint64_t count);

#endif
