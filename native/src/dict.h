/* dict.h -- Dict: insertion-ordered, grows in place, no insert rewrites the table.
 *
 *   head  [0] meta | flags (form)   [1] used << 31 | live, as int   [2] entries   [3] index
 *
 * Four forms:
 *   shaped up to 32 entries whose keys, in this order, are those of a shared SHAPE (dict_shape.h):
 *          [2] a VALUES cell, [3] the SHAPE
 *   tiny   up to 8 entries: entries in one cell, [3] an int word of fingerprints, no index
 *   small  one ENTRIES cell (doubles up to 4096 entries = 64 KiB), index from one bucket
 *   big    [2] is a BIG cell: a vec of chunk rows, chunks of 4096 entries in a linked order
 * The index is extendible hashing (Fagin et al., 1979): a bucket is 1..64 groups of
 * { u32 hash[8]; u32 entry[8] } in one page; a full bucket of 64 groups splits into two, and the
 * directory above it (a DIR of 2..512 refs; its size is its cell's size) doubles; below a DIR of
 * 512 a slot may hold another DIR. A split reads no entry and no key.
 * Deleted entries leave a DELETED key; big dicts are compacted a few entries per mutation.
 */
#ifndef DH_DICT_H
#define DH_DICT_H

#include "span.h"
#include "value.h"

/* A place in the order, good while the dict is not changed in size. Start from {0}. */
typedef struct {
    uint64_t chunk; /* big: chunk number + 1, 0 before the start */
    uint64_t slot;  /* next slot in the chunk                    */
} dh_dict_pos;

int dh_dict_new(dh_heap *heap, dh_word *dict_out) DH_MUST_USE;
int dh_dict_length(const dh_heap *heap, dh_word dict, uint64_t *length_out) DH_MUST_USE;
/* A number that changes with every insertion and deletion (not with overwriting a value). */
int dh_dict_version(const dh_heap *heap, dh_word dict, uint64_t *version_out) DH_MUST_USE;
/* DH_E_ABSENT when there is no such key. */
int dh_dict_get(const dh_heap *heap, dh_word dict, const dh_key *key, dh_word *value_out)
    DH_MUST_USE;
/* Is key present: then its value becomes the new one, the old one is dropped, *was_new_out =
 * false and key_word stays the caller's (unused). Absent: (key_word, value) is appended and both
 * belong to the dict. key_word may be EMPTY: then an absent key gives DH_E_ABSENT and nothing
 * happens (callers probe first and make the key's cell only when needed). */
int dh_dict_set(dh_heap *heap, dh_word dict, const dh_key *key, dh_word key_word, dh_word value,
                bool *was_new_out) DH_MUST_USE;
/* The same for a str key, whose word is made here if it is needed. On failure value is the caller's. */
int dh_dict_set_str(dh_heap *heap, dh_word dict, const dh_key *key, dh_word value) DH_MUST_USE;
/* Remove; the key's cell is dropped, the value handed to *value_out or dropped when NULL. */
int dh_dict_delete(dh_heap *heap, dh_word dict, const dh_key *key, dh_word *value_out) DH_MUST_USE;
/* Next entry in order: 1 and the words, 0 at the end, negative code when damaged. */
int dh_dict_next(const dh_heap *heap, dh_word dict, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out) DH_MUST_USE;
/* Same, from the end backwards. */
int dh_dict_prev(const dh_heap *heap, dh_word dict, dh_dict_pos *pos, dh_word *key_out,
                 dh_word *value_out) DH_MUST_USE;
/* The same two for an iterator: 2 when the dict's version is another by now. */
int dh_dict_step(const dh_heap *heap, dh_word dict, uint64_t version, dh_dict_pos *pos,
                 dh_word *key_out, dh_word *value_out) DH_MUST_USE;
int dh_dict_step_back(const dh_heap *heap, dh_word dict, uint64_t version, dh_dict_pos *pos,
                      dh_word *key_out, dh_word *value_out) DH_MUST_USE;
int dh_dict_clear(dh_heap *heap, dh_word dict) DH_MUST_USE;
/* Room for count more entries at once (bulk loads); a hint that may do nothing. */
int dh_dict_reserve(dh_heap *heap, dh_word dict, uint64_t count) DH_MUST_USE;

/* --- shapes: dicts of the same keys in the same order share them ------------------------------ */

#define DH_SHAPE_KEYS_MAX 32u

/* The shape of these keys, none of them twice, in this order; or EMPTY: there is none, make a dict
 * with keys of its own. Only strings are keys of shapes. Makes a shape when the keys are seen again.
 * Never fails. */
dh_word dh_shape_of_keys(dh_heap *heap, const dh_key *keys, unsigned count);
/* Tells a shape that was kept in plain memory from what stands in its place by now; 0: no shape. */
uint64_t dh_shape_serial(const dh_heap *heap, dh_word shape);
/* The shape of a dict whose entries are all of its keys; else EMPTY. */
dh_word dh_dict_shape(const dh_heap *heap, dh_word dict);
/* A dict of that shape; *values_out: a word per key, to be filled before anybody can see it. */
int dh_dict_new_shaped(dh_heap *heap, dh_word shape, dh_word *dict_out, dh_word **values_out)
    DH_MUST_USE;
/* Give an empty dict that shape and these values, which it then owns. */
int dh_dict_fill_shaped(dh_heap *heap, dh_word dict, dh_word shape, const dh_word *values,
                        unsigned count) DH_MUST_USE;
/* The root of a new heap. */
int dh_dict_new_root(dh_heap *heap, dh_word *dict_out) DH_MUST_USE;
/* Words behind its head: refs to what belongs to the whole heap. */
enum { DH_ROOT_SHAPES = 4, DH_ROOT_CLASSES = 5, DH_ROOT_BYTES = 48 };
/* One of them; NULL in a root that has none. */
static inline dh_word *dh_dict_root_word(const dh_heap *heap, unsigned index)
{
    size_t bytes;
    dh_word *head = (dh_word *)dhi_page_span(heap, heap->root, DH_T_DICT, &bytes);
    return DH_LIKELY(head != NULL && bytes >= DH_ROOT_BYTES) ? head + index : NULL;
}

/* Tests: walk everything and check it against itself; DH_E_CORRUPT with a text. */
int dh_dict_check(dh_heap *heap, dh_word dict) DH_MUST_USE;

#endif
