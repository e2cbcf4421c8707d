/* dict_shape.h -- shapes: key tables that dicts of the same keys in the same order share.
 *
 *   SHAPE   [0] meta: serial, flags = number of keys      [1] int: number of the key sequence
 *           [2..5] int words, a fingerprint byte per key, as in a tiny dict
 *           [6..] key words: strings, owned by the shape
 *   VALUES  a word per key; DELETED where the entry was taken out
 *   SHAPES  [0] int: how many were ever entered      [1..] refs: the shapes made last
 *
 * A shape is never changed once it is made; whoever holds a dict of it keeps it alive, as does the
 * SHAPES cell behind the head of the root, by which a process finds the shapes of the one before it.
 *
 * Shapes are found through a table in plain memory, by the hash of the key sequence and then key by
 * key. A row of it is worth something as long as the cell is allocated and has the row's serial, as
 * a handle (invariant W4): so neither a collection nor a rollback has to tell the table. A shape is
 * made when its keys are seen for the second time within a short while: dicts that are used as maps
 * make none.
 *
 * What comes from the arena may be damaged: nothing here follows it unchecked.
 */
#ifndef DH_DICT_SHAPE_H
#define DH_DICT_SHAPE_H

#include "dict.h"
#include "span.h"

enum { SHAPE_META = 0, SHAPE_SEQUENCE = 1, SHAPE_PRINTS = 2, SHAPE_KEYS = 6 };
#define SHAPE_KEYS_MAX DH_SHAPE_KEYS_MAX
#define SHAPE_PRINT_WORDS (SHAPE_KEYS - SHAPE_PRINTS)
#define SHAPES_COUNT_MAX 65535u
/* The SHAPES cell. */
#define SHAPES_RECENT 63u
#define SHAPES_BYTES ((1u + SHAPES_RECENT) * 8u)

_Static_assert(SHAPE_KEYS_MAX == SHAPE_PRINT_WORDS * 8u, "a fingerprint byte per key");

/* The number of a key sequence: from SHAPE_SEQUENCE_EMPTY, one key after the other. 62 bits. */
#define SHAPE_SEQUENCE_EMPTY ((uint64_t)0x2b992ddfa23249d6u)
static inline uint64_t dhi_sequence_next(uint64_t sequence, uint64_t hash)
{
    uint64_t x = (sequence ^ hash) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    return (x ^ x >> 32) & (((uint64_t)1 << 62) - 1);
}

static inline unsigned shape_count(const dh_word *shape)
{
    return dh_meta_flags(shape[SHAPE_META]);
}

/* The words of a shape that has room for so many keys; NULL when damaged. */
static inline const dh_word *dhi_shape_at(const dh_heap *heap, dh_word w, uint64_t keys_count)
{
    size_t bytes;
    const dh_word *shape = dhi_page_span(heap, w, DH_T_SHAPE, &bytes);
    if (DH_UNLIKELY(shape == NULL || keys_count > SHAPE_KEYS_MAX ||
                    bytes < (SHAPE_KEYS + keys_count) * 8))
        return NULL;
    return shape;
}

/* A key sequence: the keys of a shape, if any, and more. All are strings. */
typedef struct {
    uint64_t sequence;
    uint64_t from; /* serial of the shape that the words are of; 0: there are none */
    const dh_word *words;
    unsigned words_count;
    const dh_key *keys;
    unsigned keys_count;
} dhi_key_sequence;

/* The shape of these keys; makes it at the second sighting. EMPTY: there is none. */
dh_word dhi_shape_get(dh_heap *heap, const dhi_key_sequence *keys);
/* Tests: make no shape for so many requests. */
void dhi_shapes_refuse(dh_heap *heap, uint32_t count);
/* The shape's own check, for dh_check. */
int dhi_shape_check(const dh_heap *heap, dh_word shape) DH_MUST_USE;
int dhi_shapes_check(const dh_heap *heap, dh_word shapes) DH_MUST_USE;

/* dict_shaped.c: dicts that have a shape. head[DICT_ENTRIES] is VALUES, head[DICT_INDEX] SHAPE. */
/* Put an absent key into a shaped or empty dict if that gives a known shape. *done_out: it did, and
 * the dict owns key_word and value; else nothing has changed. 0 or a code, an errno too. */
int dhi_shaped_insert(dh_heap *heap, dh_word *head, const dh_key *key, dh_word key_word,
                      dh_word value, bool *done_out) DH_MUST_USE;
/* Give a shaped dict its own keys, with room for one more entry. */
int dhi_shaped_unshare(dh_heap *heap, dh_word *head) DH_MUST_USE;
/* Take the entry out; its value is the caller's, its key the shape's. Needs no memory. */
int dhi_shaped_remove(const dh_heap *heap, dh_word *head, uint32_t number) DH_MUST_USE;
int dhi_shaped_next(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                    dh_word *value_out) DH_MUST_USE;
int dhi_shaped_prev(const dh_heap *heap, const dh_word *head, dh_dict_pos *pos, dh_word *key_out,
                    dh_word *value_out) DH_MUST_USE;
int dhi_shaped_check(const dh_heap *heap, const dh_word *head) DH_MUST_USE;

#endif
