/* record.h -- records: a cell of named fields, and the description of their class.
 *
 *   RECORD  [0] meta          [1] ref to CLASS   [2..] fields, in the order of the class
 *     moved [0] meta | MOVED  [1] ref to CLASS   [2] ref to FIELDS   rest EMPTY
 *   FIELDS  [0..] fields, in the order of the class
 *   CLASS   [0] meta   [1] count as int   [2] name   then per field: name, kinds as int, names
 *
 * The head of a record never moves, for refs and handles lead to it: a record that got a class
 * with other fields keeps them in a second cell. A field is EMPTY when it was never stored. A CLASS
 * is never changed and never freed by hand: records and the collector keep it. `names` is None or a
 * tuple of str: what the field accepts beyond kinds that the heap knows.
 *
 * Words stored become owned by the record (value.h).
 */
#ifndef DH_RECORD_H
#define DH_RECORD_H

#include "span.h"
#include "value.h"

#define DH_RECORD_FIELDS_MAX 1000u
#define DH_RECORD_MOVED 1u /* flag of the meta word */
#define DH_RECORD_HEAD_WORDS 2u

/* Kinds of values as a set of bits: 1 << type for what has a type, big ints standing for all ints,
 * and the constants. */
typedef uint32_t dh_kinds;
#define DH_KINDS_STR ((dh_kinds)1 << DH_T_STR)
#define DH_KINDS_BYTES ((dh_kinds)1 << DH_T_BYTES)
#define DH_KINDS_FLOAT ((dh_kinds)1 << DH_T_FLOAT)
#define DH_KINDS_INT ((dh_kinds)1 << DH_T_BIGINT)
#define DH_KINDS_NONE ((dh_kinds)1 << 16)
#define DH_KINDS_BOOL ((dh_kinds)1 << 17)
#define DH_KINDS_ANY ((dh_kinds)1 << 18) /* all, also those to come */
#define DH_KINDS_LIMIT ((dh_kinds)1 << 19)
/* Kinds whose values the names of a field speak of, not its bits. */
#define DH_KINDS_BY_NAME \
    ((dh_kinds)1 << DH_T_RECORD | (dh_kinds)1 << DH_T_EXT | (dh_kinds)1 << DH_T_ARRAY)
/* The bit of a stored value; 0: no value. */
dh_kinds dh_kind_of(dh_word w);
/* All that a field of these kinds may hold: a float field also ints, which are read as floats. */
static inline dh_kinds dh_kinds_held(dh_kinds kinds)
{
    return kinds & DH_KINDS_FLOAT ? kinds | DH_KINDS_INT | DH_KINDS_BOOL : kinds;
}

/* Bytes of a str or bytes word of any length; scratch is for short ones. */
int dh_text_read(const dh_heap *heap, dh_word w, uint8_t scratch[8], dh_bytes_view *view_out)
    DH_MUST_USE;

/* --- classes ---------------------------------------------------------------------------------- */

typedef struct {
    uint64_t serial;
    dh_word name;
    size_t count;         /* fields                                            */
    const dh_word *words; /* three per field: name, kinds, names; in the arena */
} dh_class_view;

/* words: 3 * count, taken as they are, as is the name. DH_E_LIMIT beyond DH_RECORD_FIELDS_MAX. */
int dh_class_new(dh_heap *heap, dh_word name, const dh_word *words, size_t count,
                 dh_word *class_out) DH_MUST_USE;
int dh_class_read(const dh_heap *heap, dh_word class_word, dh_class_view *view_out) DH_MUST_USE;
/* Still the class that had this serial? Any word is allowed. */
bool dh_class_is(const dh_heap *heap, dh_word class_word, uint64_t serial);
/* Index of the field with this name, or DH_E_ABSENT. O(fields). */
int dh_class_find(const dh_heap *heap, const dh_class_view *view, const uint8_t *name, size_t size);
/* Kinds of a field; 0 when damaged. */
dh_kinds dh_class_kinds(const dh_class_view *view, size_t index);
int dh_class_check(const dh_heap *heap, dh_word class_word) DH_MUST_USE;

/* --- records ---------------------------------------------------------------------------------- */

/* A record taken apart. */
typedef struct {
    dh_word *head;
    dh_word class_word;
    dh_word *fields;
    size_t room; /* fields that the cell has room for */
} dh_record_view;

int dh_record_open_slow(const dh_heap *heap, dh_word record, dh_record_view *view_out) DH_MUST_USE;
static inline int dh_record_open(const dh_heap *heap, dh_word record, dh_record_view *view_out)
{
    size_t bytes;
    dh_word *head = (dh_word *)dhi_page_span(heap, record, DH_T_RECORD, &bytes);
    if (DH_UNLIKELY(head == NULL || bytes < DH_HEAD_BYTES || bytes == DH_PAGE_BYTES ||
                    (dh_meta_flags(head[0]) & DH_RECORD_MOVED) != 0))
        return dh_record_open_slow(heap, record, view_out);
    view_out->head = head;
    view_out->class_word = dh_load(&head[1]);
    view_out->fields = head + DH_RECORD_HEAD_WORDS;
    view_out->room = bytes / sizeof *head - DH_RECORD_HEAD_WORDS;
    return 0;
}

int dh_record_new(dh_heap *heap, dh_word class_word, const dh_word *fields, size_t count,
                  dh_word *record_out) DH_MUST_USE;
/* Drops the old value. DH_E_ABSENT when the record's class has no such field. */
int dh_record_set(dh_heap *heap, dh_word record, size_t index, dh_word word) DH_MUST_USE;
/* Give the record another class. from: for each field of it the index of the field whose value it
 * takes over, or -1: it is EMPTY. Values taken over by none are dropped. */
int dh_record_move(dh_heap *heap, dh_word record, dh_word class_word, const int16_t *from,
                   size_t count) DH_MUST_USE;
/* The class is sound, every field EMPTY or of a kind that it may hold, all other words EMPTY. */
int dh_record_check(const dh_heap *heap, dh_word record) DH_MUST_USE;

#endif
