/* record.c -- records and the descriptions of their classes.
 *
 * Contract: record.h. Must never change a CLASS, nor move a record's head. What a record's cell
 * has room for bounds every access: the class, too, may come from a damaged file.
 */
#include "record.h"

#define CLASS_HEAD_WORDS 3u
#define CLASS_FIELD_WORDS 3u
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

static bool is_text(dh_word w) { return dh_kind_of(w) == DH_KINDS_STR; }

/* --- classes ---------------------------------------------------------------------------------- */

int dh_class_new(dh_heap *heap, dh_word name, const dh_word *words, size_t count,
                 dh_word *class_out)
{
    dh_off off;
    if (count > DH_RECORD_FIELDS_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a record of %zu fields has more than %u", count,
                        DH_RECORD_FIELDS_MAX);
    int rc = dh_cell_new(heap, (CLASS_HEAD_WORDS + CLASS_FIELD_WORDS * count) * sizeof *words,
                         DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *cell = dh_at(heap, off);
    cell[0] = dh_meta(dhi_serial_next(heap), 0);
    cell[1] = dh_int((int64_t)count);
    cell[2] = name;
    if (count > 0)
        memcpy(cell + CLASS_HEAD_WORDS, words, CLASS_FIELD_WORDS * count * sizeof *words);
    *class_out = dh_ref(DH_T_CLASS, off);
    return 0;
}

int dh_class_read(const dh_heap *heap, dh_word class_word, dh_class_view *view_out)
{
    size_t bytes;
    const dh_word *cell = dhi_span(heap, class_word, DH_T_CLASS, &bytes);
    if (cell == NULL || bytes < CLASS_HEAD_WORDS * sizeof *cell || !dh_is_meta(cell[0]) ||
        !dh_is_int(cell[1]) || !is_text(cell[2]))
        return record_corrupt(heap, "class", class_word);
    uint64_t count = (uint64_t)dh_int_value(cell[1]);
    if (count > DH_RECORD_FIELDS_MAX ||
        (CLASS_HEAD_WORDS + CLASS_FIELD_WORDS * count) * sizeof *cell > bytes)
        return record_corrupt(heap, "class", class_word);
    *view_out =
        (dh_class_view){dh_meta_serial(cell[0]), cell[2], (size_t)count, cell + CLASS_HEAD_WORDS};
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

dh_kinds dh_class_kinds(const dh_class_view *view, size_t index)
{
    dh_word w = view->words[CLASS_FIELD_WORDS * index + 1];
    int64_t kinds = dh_is_int(w) ? dh_int_value(w) : 0;
    return kinds > 0 && kinds < DH_KINDS_LIMIT ? (dh_kinds)kinds : 0;
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
    int rc = dh_class_read(heap, class_word, &view);
    if (rc != 0)
        return rc;
    if (view.serial >= heap->serial_next)
        return record_corrupt(heap, "class", class_word);
    for (size_t i = 0; i < view.count; i++) {
        const dh_word *words = view.words + CLASS_FIELD_WORDS * i;
        if (!is_text(words[0]) || !dh_is_int(words[1]) || dh_int_value(words[1]) < 0 ||
            dh_int_value(words[1]) >= DH_KINDS_LIMIT || !names_are_sound(heap, words[2]))
            return record_corrupt(heap, "class", class_word);
    }
    return 0;
}

/* --- records ---------------------------------------------------------------------------------- */

/* Runs of pages, moved records, and what is damaged. */
int dh_record_open_slow(const dh_heap *heap, dh_word record, dh_record_view *view_out)
{
    size_t bytes;
    dh_word *head = dhi_span(heap, record, DH_T_RECORD, &bytes);
    if (head == NULL || bytes < DH_HEAD_BYTES)
        return record_corrupt(heap, "record", record);
    dh_word *fields = head + DH_RECORD_HEAD_WORDS;
    size_t room = bytes / sizeof *head - DH_RECORD_HEAD_WORDS;
    if ((dh_meta_flags(head[0]) & DH_RECORD_MOVED) != 0) {
        fields = dhi_span(heap, head[DH_RECORD_HEAD_WORDS], DH_T_FIELDS, &bytes);
        room = bytes / sizeof *head;
        if (fields == NULL)
            return record_corrupt(heap, "record", record);
    }
    *view_out = (dh_record_view){head, dh_load(&head[1]), fields, room};
    return 0;
}

int dh_record_new(dh_heap *heap, dh_word class_word, const dh_word *fields, size_t count,
                  dh_word *record_out)
{
    size_t bytes = (DH_RECORD_HEAD_WORDS + count) * sizeof *fields;
    dh_off off;
    int rc = dh_cell_new(heap, bytes < DH_HEAD_BYTES ? DH_HEAD_BYTES : bytes, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *head = dh_at(heap, off);
    head[0] = dh_meta(dhi_serial_next(heap), 0);
    head[1] = class_word;
    if (count > 0)
        memcpy(head + DH_RECORD_HEAD_WORDS, fields, count * sizeof *fields);
    *record_out = dh_ref(DH_T_RECORD, off);
    return 0;
}

/* How many fields the record's class gives it; they are within its cell. */
static int record_count(const dh_heap *heap, dh_word record, const dh_record_view *view,
                        size_t *count_out)
{
    dh_class_view description;
    int rc = dh_class_read(heap, view->class_word, &description);
    if (rc == 0 && description.count > view->room)
        rc = record_corrupt(heap, "record", record);
    if (rc == 0)
        *count_out = description.count;
    return rc;
}

int dh_record_set(dh_heap *heap, dh_word record, size_t index, dh_word word)
{
    dh_record_view view;
    size_t count;
    int rc = dh_record_open(heap, record, &view);
    if (rc == 0)
        rc = record_count(heap, record, &view, &count);
    if (rc != 0)
        return rc;
    if (index >= count)
        return DH_E_ABSENT;
    dh_word old = view.fields[index];
    dh_store(&view.fields[index], word);
    if (old != word)
        dh_value_drop(heap, old);
    return 0;
}

/* Take the values out of the old fields; those that nobody takes are dropped. */
static void move_values(dh_heap *heap, dh_word *old, size_t old_count, dh_word *new_fields,
                        const int16_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (from[i] < 0 || (size_t)from[i] >= old_count)
            continue;
        new_fields[i] = old[from[i]];
        old[from[i]] = DH_EMPTY;
    }
    for (size_t i = 0; i < old_count; i++)
        dh_value_drop(heap, old[i]);
}

int dh_record_move(dh_heap *heap, dh_word record, dh_word class_word, const int16_t *from,
                   size_t count)
{
    dh_record_view view;
    size_t old_count;
    dh_off off;
    int rc = dh_record_open(heap, record, &view);
    if (rc == 0)
        rc = record_count(heap, record, &view, &old_count);
    if (rc == 0)
        rc = dh_cell_new(heap, count > 0 ? count * sizeof(dh_word) : 1, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word before = view.head[DH_RECORD_HEAD_WORDS], meta = view.head[0];
    bool was_moved = (dh_meta_flags(meta) & DH_RECORD_MOVED) != 0;
    move_values(heap, view.fields, old_count, dh_at(heap, off), from, count);
    memset(view.head + DH_RECORD_HEAD_WORDS, 0,
           dh_cell_bytes(heap, dh_ref_off(record)) - DH_RECORD_HEAD_WORDS * sizeof meta);
    dh_store(&view.head[DH_RECORD_HEAD_WORDS], dh_ref(DH_T_FIELDS, off));
    dh_store(&view.head[1], class_word);
    dh_store(&view.head[0], dh_meta(dh_meta_serial(meta), DH_RECORD_MOVED));
    if (was_moved)
        dh_cell_free(heap, dh_ref_off(before));
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */

static bool field_is_sound(const dh_class_view *description, size_t index, dh_word w)
{
    dh_kinds kinds = dh_class_kinds(description, index);
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

int dh_record_check(const dh_heap *heap, dh_word record)
{
    dh_record_view view;
    dh_class_view description;
    size_t count;
    int rc = dh_record_open(heap, record, &view);
    if (rc == 0)
        rc = record_count(heap, record, &view, &count);
    if (rc == 0)
        rc = dh_class_check(heap, view.class_word);
    if (rc == 0)
        rc = dh_class_read(heap, view.class_word, &description);
    if (rc != 0)
        return rc;
    bool is_sound = words_are_empty(view.fields + count, view.room - count);
    for (size_t i = 0; i < count; i++)
        is_sound = is_sound && field_is_sound(&description, i, view.fields[i]);
    /* The head of a moved record holds nothing behind the ref to its fields. */
    if (view.fields != view.head + DH_RECORD_HEAD_WORDS) {
        size_t words = dh_cell_bytes(heap, dh_ref_off(record)) / sizeof *view.head;
        is_sound = is_sound && words_are_empty(view.head + DH_RECORD_HEAD_WORDS + 1,
                                               words - DH_RECORD_HEAD_WORDS - 1);
    }
    return is_sound ? 0 : record_corrupt(heap, "record", record);
}
