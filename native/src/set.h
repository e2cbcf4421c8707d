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

#endif
