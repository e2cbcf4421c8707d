/* record_layouts.c -- per heap: the stored classes met so far, and how this program's classes read
 * them.
 *
 * Nothing here is persistent, and nothing here keeps a CLASS cell alive: records do. Must never
 * follow a remembered class word without refreshing first. Only dhp_layout_get raises what a user
 * should see; everything else fails for want of memory or because the heap is damaged.
 */
#include "records.h"

#include <stdlib.h>

#define CLASSES_ROOM_MIN 16u

static void class_free(dhp_stored_class *class)
{
    while (class->layouts != NULL) {
        dhp_layout *layout = class->layouts;
        class->layouts = layout->next;
        free(layout);
    }
    free(class);
}

void dhp_layouts_drop(dhp_core *core)
{
    struct dhp_layouts *layouts = core->layouts;
    core->layouts = NULL;
    if (layouts == NULL)
        return;
    for (size_t i = 0; i < layouts->room; i++)
        if (layouts->classes[i] != NULL)
            class_free(layouts->classes[i]);
    free(layouts->classes);
    free(layouts->own);
    free(layouts);
}

static int layouts_init(dhp_core *core)
{
    struct dhp_layouts *layouts = calloc(1, sizeof *layouts);
    if (layouts != NULL)
        layouts->classes = calloc(CLASSES_ROOM_MIN, sizeof *layouts->classes);
    if (layouts == NULL || layouts->classes == NULL) {
        free(layouts);
        return dhp_raise(core, ENOMEM);
    }
    layouts->room = CLASSES_ROOM_MIN;
    layouts->frees_count = core->heap->frees_count;
    core->layouts = layouts;
    return 0;
}

static void classes_place(struct dhp_layouts *layouts, dhp_stored_class *class)
{
    size_t i = dhp_class_home(layouts, class->word);
    while (layouts->classes[i] != NULL)
        i = (i + 1) & (layouts->room - 1);
    layouts->classes[i] = class;
    layouts->count++;
    if (class->number != 0)
        layouts->numbered[class->number] = class;
}

/* The same classes in a table of this size, without those that went. */
static int classes_rebuild(dhp_core *core, size_t room)
{
    struct dhp_layouts *layouts = core->layouts;
    dhp_stored_class **before = layouts->classes, **after = calloc(room, sizeof *after);
    size_t room_before = layouts->room;
    if (after == NULL)
        return dhp_raise(core, ENOMEM);
    layouts->classes = after;
    layouts->room = room;
    layouts->count = 0;
    memset(layouts->numbered, 0, sizeof layouts->numbered);
    for (size_t i = 0; i < room_before; i++) {
        if (before[i] == NULL)
            continue;
        if (dh_class_is(core->heap, before[i]->word, before[i]->serial))
            classes_place(layouts, before[i]);
        else
            class_free(before[i]);
    }
    free(before);
    return 0;
}

int dhp_layouts_refresh(dhp_core *core)
{
    if (DH_UNLIKELY(core->layouts == NULL))
        return layouts_init(core);
    struct dhp_layouts *layouts = core->layouts;
    if (DH_LIKELY(layouts->frees_count == core->heap->frees_count))
        return 0;
    if (classes_rebuild(core, layouts->room) < 0)
        return -1;
    for (size_t i = 0; i < layouts->own_room; i++)
        if (!dh_class_is(core->heap, layouts->own[i].word, layouts->own[i].serial))
            layouts->own[i].word = 0;
    core->heap->error_text[0] = '\0'; /* what was asked about may be anything by now */
    layouts->frees_count = core->heap->frees_count;
    return 0;
}

/* --- stored classes --------------------------------------------------------------------------- */

static dhp_stored_class *class_add(dhp_core *core, dh_word class_word)
{
    struct dhp_layouts *layouts = core->layouts;
    dh_class_view view;
    int rc = dh_class_read(core->heap, class_word, &view);
    if (rc != 0 || (2 * (layouts->count + 1) > layouts->room &&
                    classes_rebuild(core, layouts->room * 2) < 0)) {
        if (rc != 0)
            dhp_raise(core, rc);
        return NULL;
    }
    dhp_stored_class *class = calloc(1, sizeof *class);
    if (class == NULL) {
        dhp_raise(core, ENOMEM);
        return NULL;
    }
    class->word = class_word;
    class->serial = view.serial;
    /* Only what the heap has under this number may be found by it. */
    class->number = dh_class_numbered(core->heap, view.number) == class_word ? view.number : 0;
    classes_place(layouts, class);
    return class;
}

static dhp_stored_class *class_get(dhp_core *core, dh_word class_word)
{
    if (dhp_layouts_refresh(core) < 0)
        return NULL;
    const struct dhp_layouts *layouts = core->layouts;
    size_t i = dhp_class_home(layouts, class_word);
    for (; layouts->classes[i] != NULL; i = (i + 1) & (layouts->room - 1))
        if (layouts->classes[i]->word == class_word)
            return layouts->classes[i];
    return class_add(core, class_word);
}

PyObject *dhp_class_text(dhp_core *core, dh_word word)
{
    if (dh_kind_of(word) == DH_KINDS_STR)
        return dhp_raw_from(core, word);
    dhp_raise(core, DH_E_CORRUPT);
    return NULL;
}

static int class_find_type(dhp_core *core, dhp_stored_class *class)
{
    dhp_state *state = core->state;
    dh_class_view view;
    int rc = dh_class_read(core->heap, class->word, &view);
    if (rc != 0)
        return dhp_raise(core, rc);
    PyObject *name = dhp_class_text(core, view.name);
    if (name == NULL)
        return -1;
    PyObject *schema = PyDict_GetItemWithError(state->record_classes, name);
    Py_DECREF(name);
    class->schema = (const dhp_schema *)schema;
    class->type = schema != NULL ? class->schema->owner : state->unknown_type;
    class->version = state->records_version;
    return 0;
}

const dhp_stored_class *dhp_record_class(dhp_core *core, dh_word record)
{
    dh_record_view view;
    if (dhp_layouts_refresh(core) < 0)
        return NULL;
    int rc = dh_record_peek(core->heap, record, &view);
    dhp_stored_class *class = rc == 0 ? core->layouts->numbered[view.number] : NULL;
    if (class == NULL) {
        rc = dh_record_open(core->heap, record, &view);
        if (rc != 0) {
            dhp_raise(core, rc);
            return NULL;
        }
        class = class_get(core, view.class_word);
    }
    if (class == NULL ||
        (class->version != core->state->records_version && class_find_type(core, class) < 0))
        return NULL;
    return class;
}

/* --- layouts ---------------------------------------------------------------------------------- */

static int find_slots(dhp_core *core, const dh_class_view *view, const dhp_schema *schema,
                      dhp_layout *layout)
{
    for (Py_ssize_t i = 0; i < schema->count; i++) {
        Py_ssize_t size;
        const char *name = PyUnicode_AsUTF8AndSize(schema->fields[i].name, &size);
        if (name == NULL)
            return -1;
        int slot = dh_class_find(core->heap, view, (const uint8_t *)name, (size_t)size);
        if (slot < 0 && slot != DH_E_ABSENT)
            return dhp_raise(core, slot);
        layout->slots[i] = (int16_t)(slot < 0 ? DHP_SLOT_ABSENT : slot);
        layout->places[i] =
            (int16_t)(slot < 0 ? DHP_SLOT_ABSENT : dh_class_place(view, (size_t)slot));
    }
    return 0;
}

/* --- does a stored class fit? ----------------------------------------------------------------- */

static int names_of(const dhp_core *core, const dh_class_view *view, size_t index,
                    const dh_word **words_out, size_t *count_out)
{
    dh_word names = view->words[3 * index + 2];
    *count_out = 0;
    return names == DH_NONE ? 0 : dh_tuple_read(core->heap, names, words_out, count_out);
}

/* Holds the stored names against the field's: are all of them covered, and how many are its own? */
static int names_fit(dhp_core *core, const dh_class_view *view, size_t index,
                     const dhp_field_info *field, Py_ssize_t *own_out)
{
    const dh_word *words = NULL;
    size_t count;
    int rc = names_of(core, view, index, &words, &count), fits = 1;
    if (rc != 0)
        return dhp_raise(core, rc);
    *own_out = 0;
    for (size_t i = 0; i < count; i++) {
        PyObject *name = dhp_class_text(core, dh_load(&words[i]));
        int is_covered = name != NULL ? PySet_Contains(field->covered, name) : -1;
        int is_own = is_covered >= 0 ? PySequence_Contains(field->names, name) : -1;
        Py_XDECREF(name);
        if (is_own < 0)
            return -1;
        *own_out += is_own;
        fits = fits && is_covered;
    }
    return fits;
}

/* 1: whatever stands in that field may stand in this one; 0; -1 with an exception. in_place_out:
 * what may be stored in that field without breaking its class's word. */
static int field_fits(dhp_core *core, const dh_class_view *view, size_t index,
                      const dhp_field_info *field, dh_kinds *in_place_out)
{
    dh_kinds kinds = dh_class_kinds(view, index);
    Py_ssize_t own = 0;
    int fits = names_fit(core, view, index, field, &own);
    *in_place_out = kinds;
    if (fits < 0 || kinds & DH_KINDS_ANY)
        return fits < 0 ? -1 : (field->kinds & DH_KINDS_ANY) != 0;
    if (own == PyTuple_Size(field->names))
        *in_place_out |= DH_KINDS_BY_NAME;
    if (field->kinds & DH_KINDS_ANY)
        return 1;
    return fits && (kinds & ~dh_kinds_held(field->kinds)) == 0;
}

/* Is the stored class just what a new one for this schema would be? */
static int class_is_whole(dhp_core *core, const dh_class_view *view, const dhp_schema *schema,
                          const dhp_layout *layout)
{
    const dh_word *words;
    size_t count;
    if (view->count != (size_t)schema->count)
        return 0;
    for (Py_ssize_t i = 0; i < schema->count; i++) {
        const dhp_field_info *field = &schema->fields[i];
        bool has_names = (field->kinds & DH_KINDS_ANY) != 0 ||
                         (layout->in_place[i] & DH_KINDS_BY_NAME) == DH_KINDS_BY_NAME;
        if (layout->slots[i] != i || dh_class_kinds(view, (size_t)i) != field->kinds ||
            !has_names || names_of(core, view, (size_t)i, &words, &count) != 0 ||
            count != (size_t)PyTuple_Size(field->names))
            return 0;
    }
    PyObject *name = dhp_class_text(core, view->name);
    int is_same = name != NULL ? PyUnicode_Compare(name, schema->name) == 0 : -1;
    Py_XDECREF(name);
    return is_same;
}

static int own_reserve(dhp_core *core, uint64_t id)
{
    struct dhp_layouts *layouts = core->layouts;
    if (id < layouts->own_room)
        return 0;
    size_t room = (size_t)id * 2 + 8;
    dhp_own_class *own = realloc(layouts->own, room * sizeof *own);
    if (own == NULL)
        return dhp_raise(core, ENOMEM);
    memset(own + layouts->own_room, 0, (room - layouts->own_room) * sizeof *own);
    layouts->own = own;
    layouts->own_room = room;
    return 0;
}

static int own_set(dhp_core *core, const dhp_schema *schema, dh_word class_word, uint64_t serial)
{
    if (own_reserve(core, schema->id) < 0)
        return -1;
    core->layouts->own[schema->id] = (dhp_own_class){class_word, serial};
    return 0;
}

static int layout_compare(dhp_core *core, dh_word class_word, const dhp_schema *schema,
                          dhp_layout *layout)
{
    dh_class_view view;
    int rc = dh_class_read(core->heap, class_word, &view);
    if (rc != 0)
        return dhp_raise(core, rc);
    for (Py_ssize_t i = 0; i < schema->count; i++) {
        if (layout->slots[i] == DHP_SLOT_ABSENT)
            continue;
        int fits = field_fits(core, &view, (size_t)layout->slots[i], &schema->fields[i],
                              &layout->in_place[i]);
        if (fits < 0)
            return -1;
        if (!fits) {
            layout->state = DHP_MISFITS;
            layout->misfit = i;
            return 0;
        }
    }
    int is_whole = class_is_whole(core, &view, schema, layout);
    for (Py_ssize_t i = 0; i < schema->count; i++)
        if (layout->slots[i] >= 0 && PyTuple_Size(schema->fields[i].names) == 0)
            layout->in_place[i] = dh_class_kinds(&view, (size_t)layout->slots[i]);
    if (is_whole < 0 || (is_whole && own_set(core, schema, class_word, view.serial) < 0))
        return -1;
    layout->state = DHP_FITS;
    return 0;
}

dhp_layout *dhp_layout_named(dhp_core *core, dh_word class_word, const dhp_schema *schema)
{
    dh_class_view view;
    dhp_stored_class *class = class_get(core, class_word);
    if (class == NULL)
        return NULL;
    dhp_layout *layout = class->layouts;
    while (layout != NULL && layout->schema_id != schema->id)
        layout = layout->next;
    if (layout != NULL)
        return layout;
    int rc = dh_class_read(core->heap, class_word, &view);
    if (rc == 0) {
        size_t count = (size_t)schema->count;
        layout = calloc(1, sizeof *layout +
                               count * (sizeof *layout->in_place + 2 * sizeof *layout->slots));
        rc = layout != NULL ? 0 : ENOMEM;
    }
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    layout->slots = (int16_t *)(layout->in_place + schema->count);
    layout->places = layout->slots + schema->count;
    if (find_slots(core, &view, schema, layout) < 0) {
        free(layout);
        return NULL;
    }
    layout->schema_id = schema->id;
    if (schema->is_ready && layout_compare(core, class_word, schema, layout) < 0) {
        free(layout);
        return NULL;
    }
    layout->next = class->layouts;
    class->layouts = layout;
    return layout;
}

static void raise_misfit(dhp_core *core, dh_word class_word, const dhp_schema *schema,
                         const dhp_layout *layout)
{
    const dhp_field_info *field = &schema->fields[layout->misfit];
    dh_class_view view;
    int rc = dh_class_read(core->heap, class_word, &view);
    PyObject *stored = NULL;
    if (rc != 0)
        dhp_raise(core, rc);
    else
        stored = dhp_stored_type_text(core, &view, (size_t)layout->slots[layout->misfit]);
    if (stored != NULL)
        dhp_raise_record_class(
            core->state,
            "%U.%U was stored as %U and is now declared as %U: a field may be widened "
            "(int to float, T to T | None or Any), else give the changed field another name; "
            "dirtyheap.to_python() gives the record as it was stored",
            schema->name, field->name, stored, field->text);
    Py_XDECREF(stored);
}

dhp_layout *dhp_layout_get(dhp_core *core, dh_word class_word, const dhp_schema *schema)
{
    dhp_layout *layout = dhp_layout_named(core, class_word, schema);
    if (layout == NULL || layout->state == DHP_FITS)
        return layout;
    if (layout->state == DHP_BY_NAME && layout_compare(core, class_word, schema, layout) < 0)
        return NULL;
    if (layout->state == DHP_FITS)
        return layout;
    raise_misfit(core, class_word, schema, layout);
    return NULL;
}

/* --- making a stored class -------------------------------------------------------------------- */

static int word_of_text(dhp_core *core, PyObject *text, dh_word *word_out)
{
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    return utf8 == NULL ? DH_E_FORMAT
                        : dh_str_new(core->heap, (const uint8_t *)utf8, (size_t)size, word_out);
}

static int words_of_names(dhp_core *core, PyObject *names, dh_word *word_out)
{
    size_t count = (size_t)PyTuple_Size(names);
    dh_word *words = malloc((count + 1) * sizeof *words);
    int rc = words != NULL ? 0 : ENOMEM;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = word_of_text(core, PyTuple_GetItem(names, (Py_ssize_t)i), &words[i]);
    if (rc == 0 && count == 0)
        *word_out = DH_NONE;
    else if (rc == 0)
        rc = dh_tuple_new(core->heap, words, count, word_out);
    free(words);
    return rc;
}

static int class_store(dhp_core *core, const dhp_schema *schema, dh_word *words, dh_word *class_out)
{
    dh_word name;
    int rc = word_of_text(core, schema->name, &name);
    for (Py_ssize_t i = 0; rc == 0 && i < schema->count; i++) {
        const dhp_field_info *field = &schema->fields[i];
        rc = word_of_text(core, field->name, &words[3 * i]);
        words[3 * i + 1] = dh_int(field->kinds);
        if (rc == 0)
            rc = words_of_names(core, field->names, &words[3 * i + 2]);
    }
    return rc != 0 ? rc : dh_class_new(core->heap, name, words, (size_t)schema->count, class_out);
}

/* Meet the numbered classes of that name: own[] knows afterwards if one is what a new one would be. */
static int own_search(dhp_core *core, const dhp_schema *schema)
{
    dh_class_view view;
    unsigned count = dh_class_numbers_count(core->heap);
    for (unsigned number = count; number > 0 && core->layouts->own[schema->id].word == 0;
         number--) {
        dh_word class_word = dh_class_numbered(core->heap, number);
        int rc = dh_class_read(core->heap, class_word, &view);
        if (rc != 0)
            return dhp_raise(core, rc);
        PyObject *name = dhp_class_text(core, view.name);
        int is_other = name != NULL ? PyUnicode_Compare(name, schema->name) : -1;
        Py_XDECREF(name);
        if (PyErr_Occurred())
            return -1;
        if (is_other)
            continue;
        dhp_layout *layout = dhp_layout_named(core, class_word, schema);
        if (layout == NULL ||
            (layout->state == DHP_BY_NAME && layout_compare(core, class_word, schema, layout) < 0))
            return -1;
    }
    return 0;
}

int dhp_class_own(dhp_core *core, const dhp_schema *schema, dh_word *class_out)
{
    if (dhp_layouts_refresh(core) < 0 || own_reserve(core, schema->id) < 0)
        return -1;
    *class_out = core->layouts->own[schema->id].word;
    if (DH_LIKELY(*class_out != 0))
        return 0;
    if (own_search(core, schema) < 0)
        return -1;
    *class_out = core->layouts->own[schema->id].word;
    if (*class_out != 0)
        return 0;
    dh_word *words = malloc((size_t)(schema->count + 1) * 3 * sizeof *words);
    dh_class_view view;
    if (words == NULL)
        return dhp_raise(core, ENOMEM);
    dh_journal_begin(core->heap);
    int rc = class_store(core, schema, words, class_out);
    if (rc == 0)
        dh_journal_commit(core->heap); /* before anything can fail: it may have a number */
    else
        dh_journal_abort(core->heap);
    if (rc == 0)
        rc = dh_class_read(core->heap, *class_out, &view);
    free(words);
    if (rc != 0)
        return dhp_raise(core, rc);
    return own_set(core, schema, *class_out, view.serial);
}
