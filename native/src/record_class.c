/* record_class.c -- what a heap knows of classes of records: their descriptions and numbers.
 *
 * Contract: record.h. Must never change a CLASS, nor take a number back: records hold it in place
 * of a ref. Only a rollback does, with all records that were made since. Everything read here may
 * come from a damaged file; a place that a class names is held against the record's cell by the
 * reader.
 */
#include "dict.h"
#include "record.h"

#define CLASS_HEAD_WORDS 3u
#define CLASS_FIELD_WORDS 3u
#define CLASSES_BYTES ((1u + DH_RECORD_NUMBER_MAX) * sizeof(dh_word))

_Static_assert(CLASSES_BYTES <= DH_CELL_BYTES_MAX, "one cell");

static int class_corrupt(const dh_heap *heap, dh_word w)
{
    return dhi_fail(heap, DH_E_CORRUPT, "class %#llx is damaged", (unsigned long long)w);
}

static inline bool is_text(dh_word w)
{
    return dh_is_short(w) ? !dh_short_is_bytes(w) : dh_is_ref_to(w, DH_T_STR);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static inline dh_word *classes_at(const dh_heap *heap, dh_word classes)
{
    dh_word *words = dh_deref(heap, classes, DH_T_CLASSES, CLASSES_BYTES);
    bool is_sound = words != NULL && dh_is_int(words[0]) &&
                    (uint64_t)dh_int_value(words[0]) <= DH_RECORD_NUMBER_MAX;
    return is_sound ? words : NULL;
}

/* NULL: there are none, or they are damaged. */
static inline dh_word *classes_of(const dh_heap *heap)
{
    const dh_word *word = dh_dict_root_word(heap, DH_ROOT_CLASSES);
    return word != NULL ? classes_at(heap, dh_load(word)) : NULL;
}

unsigned dh_class_numbers_count(const dh_heap *heap)
{
    const dh_word *classes = classes_of(heap);
    return classes != NULL ? (unsigned)dh_int_value(classes[0]) : 0;
}

dh_word dh_class_numbered(const dh_heap *heap, unsigned number)
{
    const dh_word *classes = classes_of(heap);
    bool is_there = classes != NULL && number > 0 && number <= (uint64_t)dh_int_value(classes[0]);
    return is_there ? dh_load(&classes[number]) : DH_EMPTY;
}

/* The next number, for number_enter with what is put out; 0: none is left, or there is no room for
 * the table. The table outlives an operation that is taken back. */
static unsigned number_reserve(dh_heap *heap, dh_word **classes_out)
{
    dh_word *word = dh_dict_root_word(heap, DH_ROOT_CLASSES);
    if (word != NULL && *word == DH_EMPTY) {
        dh_off off;
        bool journal_was_open = dh_journal_suspend(heap);
        if (dh_cell_new(heap, CLASSES_BYTES, DH_REFS, &off) == 0) {
            *(dh_word *)dh_at(heap, off) = dh_int(0);
            dh_store(word, dh_ref(DH_T_CLASSES, off));
        }
        dh_journal_resume(heap, journal_was_open);
    }
    *classes_out = classes_of(heap);
    unsigned count = *classes_out != NULL ? (unsigned)dh_int_value(**classes_out) : 0;
    return *classes_out != NULL && count < DH_RECORD_NUMBER_MAX ? count + 1 : 0;
}

static void number_enter(dh_word *classes, unsigned number, dh_word class_word)
{
    dh_store(&classes[number], class_word);
    dh_store(&classes[0], dh_int(number));
}

int dh_classes_check(const dh_heap *heap, dh_word w)
{
    dh_class_view view;
    const dh_word *classes = classes_at(heap, w);
    bool is_sound = classes != NULL;
    for (unsigned i = 1; is_sound && i <= DH_RECORD_NUMBER_MAX; i++)
        is_sound = i > (uint64_t)dh_int_value(classes[0])
                       ? classes[i] == DH_EMPTY
                       : dh_class_read(heap, classes[i], &view) == 0 && view.number == i;
    return is_sound ? 0
                    : dhi_fail(heap, DH_E_CORRUPT, "the list of record classes %#llx is damaged",
                               (unsigned long long)w);
}

/* --- classes ---------------------------------------------------------------------------------- */

/* Deals out the places of fields, in the order of the class. */
typedef struct {
    unsigned words, bits;
} places;
static const places places_start = {1, 0};

static unsigned place_next(places *next, dh_kinds kinds, dh_word names)
{
    bool is_bit = kinds == DH_KINDS_BOOL && names == DH_NONE && next->bits < DH_RECORD_BITS_MAX;
    return is_bit ? DH_RECORD_BIT + next->bits++ : next->words++;
}

int dh_class_new(dh_heap *heap, dh_word name, const dh_word *words, size_t count,
                 dh_word *class_out)
{
    dh_off off;
    places next = places_start;
    if (count > DH_RECORD_FIELDS_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a record of %zu fields has more than %u", count,
                        DH_RECORD_FIELDS_MAX);
    int rc = dh_cell_new(heap, (CLASS_HEAD_WORDS + CLASS_FIELD_WORDS * count) * sizeof *words,
                         DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *cell = dh_at(heap, off), *classes;
    unsigned number = number_reserve(heap, &classes);
    cell[0] = dh_meta(dhi_serial_next(heap), number);
    cell[1] = dh_int((int64_t)count);
    cell[2] = name;
    if (count > 0)
        memcpy(cell + CLASS_HEAD_WORDS, words, CLASS_FIELD_WORDS * count * sizeof *words);
    for (size_t i = 0; number != 0 && i < count; i++) {
        dh_word *kinds = &cell[CLASS_HEAD_WORDS + CLASS_FIELD_WORDS * i + 1];
        unsigned place = place_next(&next, (dh_kinds)dh_int_value(kinds[0]), kinds[1]);
        *kinds = dh_int(dh_int_value(*kinds) | (int64_t)place << DH_CLASS_PLACE_SHIFT);
    }
    *class_out = dh_ref(DH_T_CLASS, off);
    if (number != 0)
        number_enter(classes, number, *class_out);
    return 0;
}

int dh_class_read(const dh_heap *heap, dh_word class_word, dh_class_view *view_out)
{
    size_t bytes;
    const dh_word *cell = dhi_span(heap, class_word, DH_T_CLASS, &bytes);
    if (cell == NULL || bytes < CLASS_HEAD_WORDS * sizeof *cell || !dh_is_meta(cell[0]) ||
        !dh_is_int(cell[1]) || !is_text(cell[2]))
        return class_corrupt(heap, class_word);
    uint64_t count = (uint64_t)dh_int_value(cell[1]);
    if (count > DH_RECORD_FIELDS_MAX ||
        (CLASS_HEAD_WORDS + CLASS_FIELD_WORDS * count) * sizeof *cell > bytes)
        return class_corrupt(heap, class_word);
    *view_out = (dh_class_view){dh_meta_serial(cell[0]), dh_meta_flags(cell[0]), cell[2],
                                (size_t)count, cell + CLASS_HEAD_WORDS};
    return 0;
}

bool dh_class_is(const dh_heap *heap, dh_word class_word, uint64_t serial)
{
    dh_class_view view;
    return dh_cell_is_allocated(heap, dh_ref_off(class_word)) &&
           dh_class_read(heap, class_word, &view) == 0 && view.serial == serial;
}

int dh_class_find(const dh_heap *heap, const dh_class_view *view, const uint8_t *name, size_t size)
{
    uint8_t scratch[8];
    dh_bytes_view text;
    for (size_t i = 0; i < view->count; i++) {
        int rc = dh_text_read(heap, view->words[CLASS_FIELD_WORDS * i], scratch, &text);
        if (rc != 0)
            return rc;
        if (text.size == size && memcmp(text.data, name, size) == 0)
            return (int)i;
    }
    return DH_E_ABSENT;
}

static bool names_are_sound(const dh_heap *heap, dh_word w)
{
    const dh_word *words;
    size_t count;
    if (w == DH_NONE)
        return true;
    if (dh_tuple_read(heap, w, &words, &count) != 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!is_text(words[i]))
            return false;
    return true;
}

int dh_class_check(const dh_heap *heap, dh_word class_word)
{
    dh_class_view view;
    places next = places_start;
    int rc = dh_class_read(heap, class_word, &view);
    if (rc != 0)
        return rc;
    bool is_numbered = view.number == 0 || dh_class_numbered(heap, view.number) == class_word;
    if (view.serial >= heap->serial_next || !is_numbered)
        return class_corrupt(heap, class_word);
    for (size_t i = 0; i < view.count; i++) {
        const dh_word *words = view.words + CLASS_FIELD_WORDS * i;
        dh_kinds kinds = dh_class_kinds(&view, i);
        int64_t place = view.number != 0 ? place_next(&next, kinds, words[2]) : 0;
        if (!is_text(words[0]) || words[1] != dh_int(place << DH_CLASS_PLACE_SHIFT | kinds) ||
            !names_are_sound(heap, words[2]))
            return class_corrupt(heap, class_word);
    }
    return 0;
}
