/* census_rows.c -- objects by type, and records by their class, as rows. Contract: census.h. */
#include "census.h"

#include <stdlib.h>

#include "record.h"

/* --- records by class ------------------------------------------------------------------------- */

static dh_word class_of(const dh_heap *heap, dh_word record)
{
    dh_record_view view;
    return dh_record_open(heap, record, &view) == 0 && dh_is_ref_to(view.class_word, DH_T_CLASS)
               ? view.class_word
               : DH_EMPTY;
}

static size_t slot_of(const census_types *types, dh_word class_word)
{
    size_t mask = types->slots_count - 1, at;
    uint64_t hash = (class_word >> 8) * 0x9e3779b97f4a7c15u;

    for (at = (size_t)(hash >> 32) & mask; types->slots[at] != 0; at = (at + 1) & mask)
        if (types->classes[types->slots[at] - 1].class_word == class_word)
            break;
    return at;
}

/* Twice the room, half of it used at most. */
static int grow(census_types *types)
{
    size_t room = types->classes_room == 0 ? 64 : types->classes_room * 2;
    uint32_t *slots = calloc(room * 2, sizeof *slots);
    census_class *classes = realloc(types->classes, room * sizeof *classes);

    if (classes != NULL) {
        types->classes = classes;
        types->classes_room = room;
    }
    if (slots == NULL || classes == NULL || room > UINT32_MAX) {
        free(slots);
        return ENOMEM;
    }
    free(types->slots);
    types->slots = slots;
    types->slots_count = room * 2;
    for (size_t i = 0; i < types->classes_count; i++)
        slots[slot_of(types, types->classes[i].class_word)] = (uint32_t)i + 1;
    return 0;
}

static int find_class(census_types *types, dh_word class_word)
{
    if (types->last < types->classes_count && types->classes[types->last].class_word == class_word)
        return 0;
    if (types->classes_count * 2 >= types->slots_count && grow(types) != 0)
        return ENOMEM;
    size_t slot = slot_of(types, class_word);
    if (types->slots[slot] == 0) {
        types->classes[types->classes_count++] = (census_class){.class_word = class_word};
        types->slots[slot] = (uint32_t)types->classes_count;
    }
    types->last = types->slots[slot] - 1;
    return 0;
}

/* --- counting --------------------------------------------------------------------------------- */

int dhi_census_count(census_types *types, const dh_survey *survey, dh_word w)
{
    census_sum *sum = &types->types[dh_ref_type(w)];

    if (dh_is_ref_to(w, DH_T_RECORD)) {
        if (find_class(types, class_of(survey->heap, w)) != 0)
            return ENOMEM;
        sum = &types->classes[types->last].sum;
    }
    sum->objects_count++;
    dhi_tally_add(&sum->cells, survey->own.cells_count, survey->own.bytes);
    return 0;
}

/* --- rows ------------------------------------------------------------------------------------- */

const char *dhi_kind_text(dh_type type)
{
    static const char *const names[DH_TYPES_COUNT] = {
        [DH_T_STR] = "str",           [DH_T_BYTES] = "bytes",         [DH_T_FLOAT] = "float",
        [DH_T_BIGINT] = "int",        [DH_T_TUPLE] = "tuple",         [DH_T_DICT] = "dict",
        [DH_T_LIST] = "list",         [DH_T_BUFFER] = "buffer",       [DH_T_SET] = "set",
        [DH_T_DEQUE] = "deque",       [DH_T_SORTED] = "sorted_dict",  [DH_T_ARRAY] = "array",
        [DH_T_RECORD] = "record",     [DH_T_FROZENSET] = "frozenset", [DH_T_EXT] = "packed",
        [DH_T_SHAPE] = "shape",       [DH_T_SHAPES] = "heap_table",   [DH_T_CLASS] = "record_class",
        [DH_T_CLASSES] = "heap_table"};
    return names[type] != NULL ? names[type] : "inner";
}

/* Bytes of the class's name as a text of its own; NULL: it cannot be read, or there is no memory. */
static char *class_name(const dh_heap *heap, dh_word class_word)
{
    dh_class_view class;
    dh_bytes_view view;
    uint8_t scratch[8];

    if (class_word == DH_EMPTY || dh_class_read(heap, class_word, &class) != 0 ||
        dh_text_read(heap, class.name, scratch, &view) != 0)
        return NULL;
    return strndup((const char *)view.data, view.size);
}

char *dhi_type_text(const dh_heap *heap, dh_word w)
{
    char *name = dh_is_ref_to(w, DH_T_RECORD) ? class_name(heap, class_of(heap, w)) : NULL;
    return name != NULL ? name : strdup(dhi_kind_text(dh_ref_type(w)));
}

static void put_row(census_types *types, dh_census_row row, const census_sum *sum)
{
    row.objects_count = sum->objects_count;
    row.cells_count = sum->cells.cells_count;
    row.bytes = sum->cells.bytes;
    if (row.objects_count > 0)
        types->rows[types->rows_count++] = row;
}

static void put_value_row(census_types *types, const char *kind, unsigned code,
                          const dh_tally *tally)
{
    census_sum sum = {tally->cells_count, *tally};
    put_row(types, (dh_census_row){.kind = kind, .code = (int)code}, &sum);
}

int dhi_census_rows_make(census_types *types, const dh_survey *survey)
{
    size_t room = DH_TYPES_COUNT * 2 + SURVEY_CODES_COUNT + types->classes_count;

    types->rows = calloc(room, sizeof *types->rows);
    if (types->rows == NULL)
        return ENOMEM;
    for (unsigned i = 1; i < DH_TYPES_COUNT; i++)
        put_row(types, (dh_census_row){.kind = dhi_kind_text((dh_type)i)}, &types->types[i]);
    for (unsigned i = 1; i <= DH_T_VALUES_LAST; i++)
        if (i != DH_T_EXT)
            put_value_row(types, dhi_kind_text((dh_type)i), 0, &survey->values[i]);
    for (unsigned i = 0; i < SURVEY_CODES_COUNT; i++)
        put_value_row(types, dhi_kind_text(DH_T_EXT), i, &survey->packed[i]);
    for (size_t i = 0; i < types->classes_count; i++) {
        census_class *class = &types->classes[i];
        class->name = class_name(survey->heap, class->class_word);
        put_row(types, (dh_census_row){.kind = "record", .name = class->name}, &class->sum);
    }
    return 0;
}

void dhi_census_types_finish(census_types *types)
{
    for (size_t i = 0; i < types->classes_count; i++)
        free(types->classes[i].name);
    free(types->classes);
    free(types->slots);
    free(types->rows);
}
