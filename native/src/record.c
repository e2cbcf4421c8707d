/* record.c -- records: making, storing, moving to another class, checking.
 *
 * Contract: record.h. Must never move a record's head. What a record's cell has room for bounds
 * every access: the class, too, may come from a damaged file.
 */
#include "record.h"

static int record_corrupt(const dh_heap *heap, const char *what, dh_word w)
{
    return dhi_fail(heap, DH_E_CORRUPT, "%s %#llx is damaged", what, (unsigned long long)w);
}

dh_kinds dh_kind_of(dh_word w)
{
    if (dh_is_int(w))
        return DH_KINDS_INT;
    if (dh_is_short(w))
        return dh_short_is_bytes(w) ? DH_KINDS_BYTES : DH_KINDS_STR;
    if (dh_is_float(w))
        return DH_KINDS_FLOAT;
    if (w == DH_NONE)
        return DH_KINDS_NONE;
    if (w == DH_TRUE || w == DH_FALSE)
        return DH_KINDS_BOOL;
    return dh_is_value(w) ? (dh_kinds)1 << dh_ref_type(w) : 0;
}

int dh_text_read(const dh_heap *heap, dh_word w, uint8_t scratch[8], dh_bytes_view *view_out)
{
    if (!dh_is_short(w))
        return dh_bytes_read(heap, w, view_out);
    dh_short_copy(w, scratch);
    *view_out = (dh_bytes_view){scratch, dh_short_size(w)};
    return 0;
}

/* --- records ---------------------------------------------------------------------------------- */

/* Runs of pages, wide and moved records, and what is damaged. */
int dh_record_peek_slow(const dh_heap *heap, dh_word record, dh_record_view *view_out)
{
    size_t bytes;
    dh_word *head = dhi_span(heap, record, DH_T_RECORD, &bytes);
    if (head == NULL || bytes < DH_HEAD_BYTES)
        return record_corrupt(heap, "record", record);
    unsigned flags = dh_meta_flags(head[0]);
    unsigned number = flags >> DH_RECORD_NUMBER_SHIFT & DH_RECORD_NUMBER_MAX;
    size_t before = number != 0 ? 0 : DH_RECORD_HEAD_WORDS;
    *view_out = (dh_record_view){head, number != 0 ? DH_EMPTY : dh_load(&head[1]), head + before,
                                 bytes / sizeof *head - before, number};
    if (number == 0 && (flags & DH_RECORD_MOVED) != 0) {
        view_out->fields = dhi_span(heap, head[DH_RECORD_HEAD_WORDS], DH_T_FIELDS, &bytes);
        view_out->room = bytes / sizeof *head;
        if (view_out->fields == NULL)
            return record_corrupt(heap, "record", record);
    }
    return 0;
}

int dh_record_open(const dh_heap *heap, dh_word record, dh_record_view *view_out)
{
    int rc = dh_record_peek(heap, record, view_out);
    if (rc != 0 || view_out->number == 0)
        return rc;
    view_out->class_word = dh_class_numbered(heap, view_out->number);
    return view_out->class_word != DH_EMPTY ? 0 : record_corrupt(heap, "record", record);
}

/* --- making ----------------------------------------------------------------------------------- */

/* Words of a cell without a ref to the class; 0: these fields need the wide form. */
static size_t narrow_words(const dh_heap *heap, dh_word class_word, const dh_class_view *class,
                           const dh_word *fields)
{
    size_t words = 1;
    if (class->number == 0 || dh_class_numbered(heap, class->number) != class_word)
        return 0;
    for (size_t i = 0; i < class->count; i++) {
        int place = dh_class_place(class, i);
        if (place < DH_RECORD_BIT)
            words++;
        else if (fields[i] != DH_TRUE && fields[i] != DH_FALSE)
            return 0;
    }
    return words;
}

static int record_fill(const dh_heap *heap, const dh_record_view *view, const dh_class_view *class,
                       const dh_word *fields)
{
    for (size_t i = 0; i < class->count; i++)
        if (!dh_record_store(view, dh_record_place(view, class, i), fields[i]))
            return record_corrupt(heap, "class", view->class_word);
    return 0;
}

int dh_record_new(dh_heap *heap, dh_word class_word, const dh_word *fields, size_t count,
                  dh_word *record_out)
{
    dh_class_view class;
    dh_off off;
    int rc = dh_class_read(heap, class_word, &class);
    if (rc == 0 && class.count != count)
        rc = record_corrupt(heap, "class", class_word);
    if (rc != 0)
        return rc;
    size_t narrow = narrow_words(heap, class_word, &class, fields);
    size_t bytes = (narrow != 0 ? narrow : DH_RECORD_HEAD_WORDS + count) * sizeof *fields;
    bytes = bytes < DH_HEAD_BYTES ? DH_HEAD_BYTES : bytes;
    rc = dh_cell_new(heap, bytes, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    unsigned number = narrow != 0 ? class.number : 0;
    size_t before = number != 0 ? 0 : DH_RECORD_HEAD_WORDS;
    dh_record_view view = {head, class_word, head + before, bytes / sizeof *head - before, number};
    head[0] = dh_meta(dhi_serial_next(heap), number << DH_RECORD_NUMBER_SHIFT);
    if (number == 0)
        head[1] = class_word;
    rc = record_fill(heap, &view, &class, fields);
    if (rc == 0)
        *record_out = dh_ref(DH_T_RECORD, off);
    else
        dh_cell_free(heap, off);
    return rc;
}

/* --- storing ---------------------------------------------------------------------------------- */

/* The record taken apart, and its class. */
static int record_and_class(const dh_heap *heap, dh_word record, dh_record_view *view,
                            dh_class_view *class)
{
    int rc = dh_record_open(heap, record, view);
    if (rc == 0)
        rc = dh_class_read(heap, view->class_word, class);
    if (rc != 0)
        return rc;
    bool is_sound = view->number != 0 ? view->number == class->number : class->count <= view->room;
    return is_sound ? 0 : record_corrupt(heap, "record", record);
}

static bool fields_are_there(const dh_record_view *view, const dh_class_view *class)
{
    dh_word word;
    for (size_t i = 0; i < class->count; i++)
        if (!dh_record_load(view, dh_record_place(view, class, i), &word))
            return false;
    return true;
}

int dh_record_replace(dh_heap *heap, const dh_record_view *view, int place, dh_word word)
{
    dh_word old;
    if (!dh_record_load(view, place, &old) || !dh_record_store(view, place, word))
        return dhi_fail(heap, DH_E_CORRUPT, "a record of class %u or %#llx is damaged",
                        view->number, (unsigned long long)view->class_word);
    if (old != word)
        dh_value_drop(heap, old);
    return 0;
}

int dh_record_set(dh_heap *heap, dh_word record, size_t index, dh_word word)
{
    dh_record_view view;
    dh_class_view class;
    int rc = record_and_class(heap, record, &view, &class);
    if (rc != 0)
        return rc;
    if (index >= class.count)
        return DH_E_ABSENT;
    return dh_record_replace(heap, &view, dh_record_place(&view, &class, index), word);
}

/* Take the values out of the old fields; those that nobody takes are dropped. */
static void move_values(dh_heap *heap, const dh_record_view *view, const dh_class_view *class,
                        dh_word *new_fields, const int16_t *from, size_t count)
{
    dh_word word;
    for (size_t i = 0; i < count; i++) {
        if (from[i] < 0 || (size_t)from[i] >= class->count)
            continue;
        int place = dh_record_place(view, class, (size_t)from[i]);
        if (!dh_record_load(view, place, &new_fields[i]))
            new_fields[i] = DH_EMPTY; /* not reached: fields_are_there */
        else if (place < DH_RECORD_BIT)
            dh_store(&view->fields[place], DH_EMPTY);
    }
    for (size_t i = 0; i < class->count; i++)
        if (dh_record_load(view, dh_record_place(view, class, i), &word))
            dh_value_drop(heap, word);
}

int dh_record_move(dh_heap *heap, dh_word record, dh_word class_word, const int16_t *from,
                   size_t count)
{
    dh_record_view view;
    dh_class_view class;
    dh_off off;
    int rc = record_and_class(heap, record, &view, &class);
    if (rc == 0 && !fields_are_there(&view, &class))
        rc = record_corrupt(heap, "record", record);
    /* Asked for now: in a damaged file a field may lead to this very cell, and free it below. */
    size_t head_bytes = rc == 0 ? dh_cell_bytes(heap, dh_ref_off(record)) : 0;
    if (rc == 0)
        rc = dh_cell_new(heap, count > 0 ? count * sizeof(dh_word) : 1, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word before = view.head[DH_RECORD_HEAD_WORDS], meta = view.head[0];
    bool was_moved = view.number == 0 && (dh_meta_flags(meta) & DH_RECORD_MOVED) != 0;
    move_values(heap, &view, &class, dh_at(heap, off), from, count);
    memset(view.head + DH_RECORD_HEAD_WORDS, 0, head_bytes - DH_RECORD_HEAD_WORDS * sizeof meta);
    dh_store(&view.head[DH_RECORD_HEAD_WORDS], dh_ref(DH_T_FIELDS, off));
    dh_store(&view.head[1], class_word);
    dh_store(&view.head[0], dh_meta(dh_meta_serial(meta), DH_RECORD_MOVED));
    if (was_moved)
        dh_cell_free(heap, dh_ref_off(before));
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */

static bool field_is_sound(const dh_class_view *class, size_t index, dh_word w)
{
    dh_kinds kinds = dh_class_kinds(class, index);
    if (w == DH_EMPTY || kinds & DH_KINDS_ANY)
        return w == DH_EMPTY || dh_is_value(w);
    return (dh_kind_of(w) & (dh_kinds_held(kinds) | DH_KINDS_BY_NAME)) != 0;
}

static bool words_are_empty(const dh_word *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (words[i] != DH_EMPTY)
            return false;
    return true;
}

/* What stands in the head and is no field. */
static bool rest_is_empty(const dh_heap *heap, dh_word record, const dh_record_view *view,
                          size_t words_used, unsigned bits_used)
{
    unsigned flags = dh_meta_flags(view->head[0]);
    bool is_moved = (flags & DH_RECORD_MOVED) != 0;
    if ((flags >> DH_RECORD_BITS_SHIFT & ~0u << bits_used) != 0 ||
        (view->number != 0 && is_moved) ||
        !words_are_empty(view->fields + words_used, view->room - words_used))
        return false;
    size_t words = dh_cell_bytes(heap, dh_ref_off(record)) / sizeof *view->head;
    return !is_moved ||
           words_are_empty(view->head + DH_RECORD_HEAD_WORDS + 1, words - DH_RECORD_HEAD_WORDS - 1);
}

int dh_record_check(const dh_heap *heap, dh_word record)
{
    dh_record_view view;
    dh_class_view class;
    int rc = record_and_class(heap, record, &view, &class);
    if (rc == 0)
        rc = dh_class_check(heap, view.class_word);
    if (rc != 0)
        return rc;
    unsigned bits_used = 0;
    bool is_sound = true;
    for (size_t i = 0; is_sound && i < class.count; i++) {
        dh_word word;
        int place = dh_record_place(&view, &class, i);
        bits_used += place >= DH_RECORD_BIT;
        is_sound = dh_record_load(&view, place, &word) && field_is_sound(&class, i, word);
    }
    size_t words_used = class.count - bits_used + (view.number != 0);
    is_sound = is_sound && rest_is_empty(heap, record, &view, words_used, bits_used);
    return is_sound ? 0 : record_corrupt(heap, "record", record);
}
