/* record.h -- records: a cell of named fields, and the description of their class.
 *
 *   RECORD  [0] meta, flags: number of the class, a bit per *bit field*   [1..] the other fields
 *     wide  [0] meta          [1] ref to CLASS   [2..] fields, in the order of the class
 *     moved [0] meta | MOVED  [1] ref to CLASS   [2] ref to FIELDS   rest EMPTY
 *   FIELDS  [0..] fields, in the order of the class
 *   CLASS   [0] meta, flags: its number   [1] count as int   [2] name
 *           then per field: name, place << 20 | kinds as int, names
 *   CLASSES [0] count as int   [1..] refs to CLASS, by number
 *
 * The first 255 classes of a heap have a number: the CLASSES cell behind the head of the root keeps
 * them, an entry is never taken out or replaced. So their records need no ref, and the first six
 * fields that hold bools and nothing else need no word. The wide form is for all others: of a class
 * without a number, or with a bool field that was never stored.
 *
 * The head of a record never moves, for refs and handles lead to it: a record that got a class
 * with other fields keeps them in a second cell. A field is EMPTY when it was never stored. A CLASS
 * is never changed and never freed by hand: CLASSES, records and the collector keep it. `names` is
 * None or a tuple of str: what the field accepts beyond kinds that the heap knows.
 *
 * Words stored become owned by the record (value.h).
 */
#ifndef DH_RECORD_H
#define DH_RECORD_H

#include "span.h"
#include "value.h"

#define DH_RECORD_FIELDS_MAX 1000u
/* Flags of a record's meta word. */
#define DH_RECORD_MOVED 1u
#define DH_RECORD_NUMBER_SHIFT 1u
#define DH_RECORD_NUMBER_MAX 255u
#define DH_RECORD_BITS_SHIFT 9u
#define DH_RECORD_BITS_MAX 6u
#define DH_RECORD_HEAD_WORDS 2u /* of the wide form */

_Static_assert(DH_RECORD_BITS_SHIFT + DH_RECORD_BITS_MAX <= DH_META_FLAGS_BITS, "bits in flags");

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
    unsigned number; /* 0: it has none                                    */
    dh_word name;
    size_t count;         /* fields                                            */
    const dh_word *words; /* three per field: name, kinds, names; in the arena */
} dh_class_view;

/* words: 3 * count, taken as they are, as is the name: they belong to the class, which gets a
 * number if one is left: a journal that is open must be committed then, not aborted. DH_E_LIMIT
 * beyond DH_RECORD_FIELDS_MAX. */
int dh_class_new(dh_heap *heap, dh_word name, const dh_word *words, size_t count,
                 dh_word *class_out) DH_MUST_USE;
int dh_class_read(const dh_heap *heap, dh_word class_word, dh_class_view *view_out) DH_MUST_USE;
/* Still the class that had this serial? Any word is allowed. */
bool dh_class_is(const dh_heap *heap, dh_word class_word, uint64_t serial);
/* Index of the field with this name, or DH_E_ABSENT. O(fields). */
int dh_class_find(const dh_heap *heap, const dh_class_view *view, const uint8_t *name, size_t size);
/* place << 20 | kinds; 0 when damaged. */
#define DH_CLASS_PLACE_SHIFT 20u
static inline int64_t dhi_class_kinds_word(const dh_class_view *view, size_t index)
{
    dh_word w = view->words[3 * index + 1];
    int64_t value = dh_is_int(w) ? dh_int_value(w) : 0;
    return value > 0 && value < (int64_t)1 << 2 * DH_CLASS_PLACE_SHIFT ? value : 0;
}
/* Kinds of a field; 0 when damaged. */
static inline dh_kinds dh_class_kinds(const dh_class_view *view, size_t index)
{
    int64_t kinds = dhi_class_kinds_word(view, index) & (((int64_t)1 << DH_CLASS_PLACE_SHIFT) - 1);
    return kinds < DH_KINDS_LIMIT ? (dh_kinds)kinds : 0;
}
/* Where a record without a ref to its class has the field: index of a word of its cell, or
 * DH_RECORD_BIT + number of a bit; -1 when damaged. */
#define DH_RECORD_BIT 0x4000
static inline int dh_class_place(const dh_class_view *view, size_t index)
{
    int place = (int)(dhi_class_kinds_word(view, index) >> DH_CLASS_PLACE_SHIFT);
    return place != 0 ? place : -1;
}
/* The class with that number, EMPTY: there is none. How many there are: they are 1..count. */
dh_word dh_class_numbered(const dh_heap *heap, unsigned number);
unsigned dh_class_numbers_count(const dh_heap *heap);
int dh_class_check(const dh_heap *heap, dh_word class_word) DH_MUST_USE;
int dh_classes_check(const dh_heap *heap, dh_word classes) DH_MUST_USE;

/* --- records ---------------------------------------------------------------------------------- */

/* A record taken apart. */
typedef struct {
    dh_word *head;
    dh_word class_word;
    dh_word *fields; /* by index; in a record whose class is a number: by place */
    size_t room;     /* words there */
    unsigned number; /* of the class; 0: in wide and moved records */
} dh_record_view;

int dh_record_peek_slow(const dh_heap *heap, dh_word record, dh_record_view *view_out) DH_MUST_USE;
/* All but the class of a record that has its number. */
static inline int dh_record_peek(const dh_heap *heap, dh_word record, dh_record_view *view_out)
{
    size_t bytes;
    dh_word *head = (dh_word *)dhi_page_span(heap, record, DH_T_RECORD, &bytes);
    if (DH_UNLIKELY(head == NULL || bytes < DH_HEAD_BYTES || bytes == DH_PAGE_BYTES))
        return dh_record_peek_slow(heap, record, view_out);
    unsigned number = dh_meta_flags(dh_load(head)) >> DH_RECORD_NUMBER_SHIFT & DH_RECORD_NUMBER_MAX;
    if (DH_UNLIKELY(number == 0))
        return dh_record_peek_slow(heap, record, view_out);
    view_out->head = head;
    view_out->class_word = DH_EMPTY;
    view_out->fields = head;
    view_out->room = bytes / sizeof *head;
    view_out->number = number;
    return 0;
}
int dh_record_open(const dh_heap *heap, dh_word record, dh_record_view *view_out) DH_MUST_USE;

/* Where the field is, for the two functions that follow; negative when damaged. */
static inline int dh_record_place(const dh_record_view *view, const dh_class_view *class,
                                  size_t index)
{
    return view->number != 0 ? dh_class_place(class, index) : (int)index;
}
/* False: the place is not in this record. */
static inline bool dh_record_load(const dh_record_view *view, int place, dh_word *word_out)
{
    if (DH_LIKELY((unsigned)place < view->room)) {
        *word_out = dh_load(&view->fields[place]);
        return true;
    }
    unsigned bit = (unsigned)place - DH_RECORD_BIT;
    if (bit >= DH_RECORD_BITS_MAX || view->number == 0)
        return false;
    unsigned flags = dh_meta_flags(dh_load(view->head));
    *word_out = (flags >> (DH_RECORD_BITS_SHIFT + bit) & 1u) != 0 ? DH_TRUE : DH_FALSE;
    return true;
}
/* The same for a store, which drops nothing. False also for what is no bool in a bit field. */
static inline bool dh_record_store(const dh_record_view *view, int place, dh_word word)
{
    if (DH_LIKELY((unsigned)place < view->room)) {
        dh_store(&view->fields[place], word);
        return true;
    }
    unsigned bit = (unsigned)place - DH_RECORD_BIT;
    if (bit >= DH_RECORD_BITS_MAX || view->number == 0 || (word != DH_TRUE && word != DH_FALSE))
        return false;
    dh_word mask = (dh_word)1 << (DH_META_TAG_BITS + DH_RECORD_BITS_SHIFT + bit);
    dh_word meta = dh_load(view->head) & ~mask;
    dh_store(view->head, word == DH_TRUE ? meta | mask : meta);
    return true;
}

/* fields: taken over when 0 is returned. */
int dh_record_new(dh_heap *heap, dh_word class_word, const dh_word *fields, size_t count,
                  dh_word *record_out) DH_MUST_USE;
/* Drops the old value. DH_E_CORRUPT, nothing is changed: as dh_record_store. */
int dh_record_replace(dh_heap *heap, const dh_record_view *view, int place, dh_word word)
    DH_MUST_USE;
/* The same by index. DH_E_ABSENT when the record's class has no such field. */
int dh_record_set(dh_heap *heap, dh_word record, size_t index, dh_word word) DH_MUST_USE;
/* Give the record another class. from: for each field of it the index of the field whose value it
 * takes over, or -1: it is EMPTY. Values taken over by none are dropped. */
int dh_record_move(dh_heap *heap, dh_word record, dh_word class_word, const int16_t *from,
                   size_t count) DH_MUST_USE;
/* The class is sound, every field EMPTY or of a kind that it may hold, all other words EMPTY. */
int dh_record_check(const dh_heap *heap, dh_word record) DH_MUST_USE;

#endif
