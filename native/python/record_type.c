/* record_type.c -- Record, the base of all record classes, and the records of unknown classes.
 *
 * What a record does as an object: it is made by heap.new, compares by its fields, is hashed by
 * its identity, and shows itself. Attributes of registered classes: record_fields.c. A record whose
 * class this program does not define shows the fields it was stored with; no module is ever
 * imported because a heap names it.
 */
#include <stdlib.h>

#include "records.h"

/* --- heap.new --------------------------------------------------------------------------------- */

static void refuse_arguments(const dhp_schema *schema, PyObject *kwargs)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(kwargs, &position, &key, &value)) {
        Py_ssize_t i = 0;
        while (i < schema->count && PyUnicode_Compare(schema->fields[i].name, key) != 0)
            i++;
        if (i == schema->count) {
            PyErr_Format(PyExc_TypeError, "%U has no field '%U'", schema->name, key);
            return;
        }
    }
}

/* What the caller gave for a field, borrowed; NULL: nothing, or an exception. */
static PyObject *argument_of(const dhp_schema *schema, Py_ssize_t index, PyObject *args,
                             PyObject *kwargs, Py_ssize_t *used)
{
    const dhp_field_info *field = &schema->fields[index];
    PyObject *named = kwargs != NULL ? PyDict_GetItemWithError(kwargs, field->name) : NULL;
    *used += named != NULL;
    if (index + 1 >= PyTuple_Size(args))
        return named;
    if (named == NULL)
        return PyErr_Occurred() ? NULL : PyTuple_GetItem(args, index + 1);
    PyErr_Format(PyExc_TypeError, "%U got field '%U' twice: by position and by name", schema->name,
                 field->name);
    return NULL;
}

/* The value a field starts with, a new reference. */
static PyObject *initial_value(const dhp_schema *schema, Py_ssize_t index, PyObject *args,
                               PyObject *kwargs, Py_ssize_t *used)
{
    const dhp_field_info *field = &schema->fields[index];
    PyObject *given = argument_of(schema, index, args, kwargs, used);
    if (given != NULL || PyErr_Occurred())
        return Py_XNewRef(given);
    if (field->fallback != NULL)
        return Py_NewRef(field->fallback);
    if (field->factory != NULL)
        return PyObject_CallNoArgs(field->factory);
    PyErr_Format(PyExc_TypeError, "%U needs a value for field '%U'", schema->name, field->name);
    return NULL;
}

/* The values of all fields, checked against their types: a new tuple. */
static PyObject *initial_values(dhp_core *core, const dhp_schema *schema, PyObject *args,
                                PyObject *kwargs)
{
    Py_ssize_t used = 0, given = PyTuple_Size(args) - 1;
    if (given > schema->count)
        return PyErr_Format(PyExc_TypeError, "%U has %zd fields, but %zd values were given",
                            schema->name, schema->count, given);
    PyObject *values = PyTuple_New(schema->count);
    for (Py_ssize_t i = 0; values != NULL && i < schema->count; i++) {
        PyObject *value = initial_value(schema, i, args, kwargs, &used), *admitted = NULL;
        if (value != NULL)
            admitted = dhp_field_admit(core->state, schema, i, value);
        Py_XDECREF(value);
        if (admitted == NULL || PyTuple_SetItem(values, i, admitted) < 0)
            Py_CLEAR(values);
    }
    if (values != NULL && kwargs != NULL && used < PyDict_Size(kwargs)) {
        refuse_arguments(schema, kwargs);
        Py_CLEAR(values);
    }
    return values;
}

/* A record with these values, linked nowhere yet. */
static PyObject *record_from(dhp_core *core, const dhp_schema *schema, PyObject *values)
{
    dh_word few[16], *words = few, class_word, record;
    PyObject *made = NULL;
    size_t count = (size_t)schema->count;
    if (dhp_check_writable(core) < 0)
        return NULL;
    if (count > sizeof few / sizeof few[0]) {
        words = malloc(count * sizeof *words);
        if (words == NULL)
            return PyErr_NoMemory();
    }
    if (dhp_words_from_fields(core, schema->fields_names, values, words) == 0) {
        int rc = dhp_check_writable(core);
        for (size_t i = 0; rc == 0 && i < count; i++)
            rc = dhp_field_check(schema, (Py_ssize_t)i, PyTuple_GetItem(values, (Py_ssize_t)i),
                                 words[i]);
        if (rc == 0 && (rc = dhp_class_own(core, schema, &class_word)) == 0) {
            rc = dh_record_new(core->heap, class_word, words, count, &record);
            if (rc != 0)
                dhp_raise(core, rc);
        }
        if (rc == 0)
            made = dhp_proxy_get(core, record);
        else if (core->heap != NULL)
            dhp_words_drop(core, words, count);
    }
    if (words != few)
        free(words);
    return made;
}

/* The class's schema, a new reference; that of Box for Box[int]. */
static dhp_schema *schema_of_generic(dhp_state *state, PyObject *class)
{
    if (PyType_Check(class))
        return dhp_schema_of(state, class);
    PyObject *origin = PyObject_GetAttrString(class, "__origin__");
    if (origin == NULL && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    dhp_schema *schema = origin != NULL ? dhp_schema_of(state, origin) : NULL;
    Py_XDECREF(origin);
    return schema;
}

static dhp_schema *schema_for_new(dhp_core *core, PyObject *args)
{
    PyObject *class = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : Py_None;
    dhp_schema *schema = schema_of_generic(core->state, class);
    if (schema == NULL) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError,
                         "%R is not a record class: decorate it with @dirtyheap.record", class);
        return NULL;
    }
    if (schema->is_retired) {
        PyErr_Format(PyExc_TypeError,
                     "the class %U was defined again since: use the newer one, which records are "
                     "read as",
                     schema->name);
        Py_CLEAR(schema);
    }
    return schema;
}

PyObject *dhp_record_new(dhp_core *core, PyObject *args, PyObject *kwargs)
{
    dhp_schema *schema = schema_for_new(core, args);
    PyObject *values = NULL, *record = NULL, *done;
    if (schema == NULL)
        return NULL;
    if (dhp_schema_ready(schema) == 0)
        values = initial_values(core, schema, args, kwargs);
    if (values != NULL)
        record = record_from(core, schema, values);
    Py_XDECREF(values);
    if (record != NULL && schema->has_post_init) {
        done = PyObject_CallMethod(record, "__post_init__", NULL);
        if (done == NULL)
            Py_CLEAR(record);
        Py_XDECREF(done);
    }
    Py_DECREF((PyObject *)schema);
    return record;
}

/* --- the object ------------------------------------------------------------------------------- */

static PyObject *record_refuse_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *name = PyType_GetName(type);
    (void)args;
    (void)kwargs;
    if (name != NULL)
        PyErr_Format(PyExc_TypeError,
                     "cannot create '%U' directly: it lives in a heap, use heap.new(%U, ...)", name,
                     name);
    Py_XDECREF(name);
    return NULL;
}

/* The serial is the record's for ever: the hash is the same in every run. */
static Py_hash_t record_hash(PyObject *obj)
{
    return (Py_hash_t)(((dhp_proxy *)obj)->handle.serial & PY_SSIZE_T_MAX);
}

/* 1, 0 or -1. Runs Python code between any two fields. */
static int fields_equal(dhp_proxy *a, dhp_proxy *b, dhp_schema *schema)
{
    int equal = 1;
    for (Py_ssize_t i = 0; equal == 1 && i < schema->count; i++) {
        if (!schema->fields[i].is_compared)
            continue;
        PyObject *mine = dhp_record_value(a, schema, i, false);
        PyObject *theirs = mine != NULL ? dhp_record_value(b, schema, i, false) : NULL;
        equal = theirs != NULL ? PyObject_RichCompareBool(mine, theirs, Py_EQ) : -1;
        Py_XDECREF(mine);
        Py_XDECREF(theirs);
    }
    return equal;
}

static PyObject *record_richcompare(PyObject *a, PyObject *b, int op)
{
    dhp_proxy *self = (dhp_proxy *)a;
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(a) != Py_TYPE(b))
        Py_RETURN_NOTIMPLEMENTED;
    if (dhp_word(self) == 0 || dhp_word((dhp_proxy *)b) == 0)
        return NULL;
    if (a == b)
        return PyBool_FromLong(op == Py_EQ);
    dhp_schema *schema = dhp_schema_of(self->core->state, (PyObject *)Py_TYPE(a));
    int equal = 0;
    if (schema != NULL && schema->is_compared) {
        equal = dhp_recursion_enter(" while records are compared") == 0
                    ? fields_equal(self, (dhp_proxy *)b, schema)
                    : -2;
        if (equal != -2)
            dhp_recursion_leave();
    }
    Py_XDECREF((PyObject *)schema);
    return equal < 0 || PyErr_Occurred() ? NULL : PyBool_FromLong(equal == (op == Py_EQ));
}

/* {name: value}, the values as attributes show them, or for a repr: raw, and those shown; new. */
static PyObject *values_by_name(dhp_proxy *self, dhp_schema *schema, bool for_repr)
{
    PyObject *values = PyDict_New();
    for (Py_ssize_t i = 0; values != NULL && i < schema->count; i++) {
        if (for_repr && !schema->fields[i].is_shown)
            continue;
        PyObject *value =
            for_repr ? dhp_record_raw(self, schema, i) : dhp_record_value(self, schema, i, false);
        if (value == NULL || PyDict_SetItem(values, schema->fields[i].name, value) < 0)
            Py_CLEAR(values);
        Py_XDECREF(value);
    }
    return values;
}

/* The same as it was stored, whatever this program says of the class; new. */
static PyObject *stored_by_name(dhp_proxy *self, bool for_repr)
{
    dhp_core *core = self->core;
    PyObject *values = PyDict_New();
    uint64_t count_before = core->placeholders_count;
    int was_enabled = dhp_gc_pause();
    dh_record_view view;
    dh_class_view class;
    dh_word record = dhp_word(self);
    int rc = record == 0 ? 1 : dh_record_open(core->heap, record, &view);
    if (rc == 0)
        rc = dh_class_read(core->heap, view.class_word, &class);
    for (size_t i = 0; rc == 0 && values != NULL && i < class.count; i++) {
        dh_word word;
        if (!dh_record_load(&view, dh_record_place(&view, &class, i), &word) || word == DH_EMPTY)
            continue;
        PyObject *name = dhp_class_text(core, class.words[3 * i]);
        PyObject *value = name != NULL ? dhp_raw_from(core, word) : NULL;
        if (value == NULL || PyDict_SetItem(values, name, value) < 0)
            Py_CLEAR(values);
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    dhp_gc_resume(was_enabled);
    if (rc != 0) {
        if (record != 0)
            dhp_raise(core, rc);
        Py_CLEAR(values);
    }
    return for_repr || values == NULL ? values : dhp_resolve_inside(core, count_before, values);
}

PyObject *dhp_record_stored(dhp_proxy *record) { return stored_by_name(record, false); }

/* "Name(a=1, b=2)"; steals values. */
static PyObject *text_of_values(PyObject *name, PyObject *values)
{
    PyObject *parts = values != NULL ? PyList_New(0) : NULL, *key, *value, *text = NULL;
    PyObject *items = parts != NULL ? PyDict_Items(values) : NULL;
    Py_ssize_t count = items != NULL ? PyList_Size(items) : 0;
    for (Py_ssize_t i = 0; parts != NULL && i < count; i++) {
        key = PyTuple_GetItem(PyList_GetItem(items, i), 0);
        value = PyTuple_GetItem(PyList_GetItem(items, i), 1);
        PyObject *part = PyUnicode_FromFormat("%U=%R", key, value);
        if (part == NULL || PyList_Append(parts, part) < 0)
            Py_CLEAR(parts);
        Py_XDECREF(part);
    }
    PyObject *comma = parts != NULL && items != NULL ? PyUnicode_FromString(", ") : NULL;
    PyObject *joined = comma != NULL ? PyUnicode_Join(comma, parts) : NULL;
    if (joined != NULL)
        text = PyUnicode_FromFormat("%U(%U)", name, joined);
    Py_XDECREF(joined);
    Py_XDECREF(comma);
    Py_XDECREF(items);
    Py_XDECREF(parts);
    Py_XDECREF(values);
    return text;
}

/* A record that its class cannot read shows what was stored: its repr is what one looks at then. */
static PyObject *values_to_show(dhp_proxy *self, dhp_schema *schema)
{
    if (schema == NULL)
        return stored_by_name(self, true);
    PyObject *values = values_by_name(self, schema, true);
    if (values != NULL || self->core->state->errors == NULL)
        return values;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *class = PyObject_GetAttrString(self->core->state->errors, "RecordClassError");
    if (class != NULL && type != NULL && PyErr_GivenExceptionMatches(type, class)) {
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        values = stored_by_name(self, true);
    } else {
        PyErr_Restore(type, error, trace);
    }
    Py_XDECREF(class);
    return values;
}

static PyObject *record_name(dhp_proxy *self)
{
    dh_record_view view;
    dh_class_view class;
    dh_word record = dhp_word(self);
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (type != self->core->state->unknown_type)
        return PyType_GetQualName(type);
    if (record == 0)
        return NULL;
    int rc = dh_record_open(self->core->heap, record, &view);
    if (rc == 0)
        rc = dh_class_read(self->core->heap, view.class_word, &class);
    if (rc == 0)
        return dhp_class_text(self->core, class.name);
    dhp_raise(self->core, rc);
    return NULL;
}

PyObject *dhp_record_name(dhp_state *state, PyObject *obj)
{
    if (!PyObject_TypeCheck(obj, state->record_type)) {
        PyErr_Format(PyExc_TypeError, "record_name() takes a record, not %R", Py_TYPE(obj));
        return NULL;
    }
    return record_name((dhp_proxy *)obj);
}

static PyObject *record_repr(PyObject *obj)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    PyObject *name = record_name(self), *text = NULL;
    if (name == NULL)
        return NULL;
    int entered = Py_ReprEnter(obj);
    if (entered > 0)
        text = PyUnicode_FromFormat("%U(...)", name);
    if (entered == 0) {
        dhp_schema *schema = dhp_schema_of(self->core->state, (PyObject *)Py_TYPE(obj));
        text = text_of_values(name, values_to_show(self, schema));
        Py_XDECREF((PyObject *)schema);
        Py_ReprLeave(obj);
    }
    Py_DECREF(name);
    return text;
}

static PyObject *record_copy(PyObject *obj, PyObject *ignored)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    (void)ignored;
    dhp_schema *schema = dhp_schema_of(self->core->state, (PyObject *)Py_TYPE(obj));
    PyObject *values =
        schema != NULL ? values_by_name(self, schema, false) : stored_by_name(self, false);
    Py_XDECREF((PyObject *)schema);
    return values;
}

static PyMethodDef record_methods[] = {
    {"__copy__", record_copy, METH_NOARGS, "A plain dict of the fields."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(record_doc,
             "The base of all record classes: objects with named fields that live in a heap.\n\n"
             "Classes are made with @dirtyheap.record, their instances with heap.new(Class, ...). "
             "A record\nwhose class this program does not define is a Record too, with the fields "
             "it was stored with\nas attributes. Records are equal by their fields, and hashed "
             "and found in a heap's dicts by\nidentity. Copies and pickles are plain dicts.");

static PyType_Slot record_slots[] = {
    {Py_tp_doc, (void *)record_doc},    {Py_tp_new, record_refuse_new},
    {Py_tp_dealloc, dhp_proxy_dealloc}, {Py_tp_methods, record_methods},
    {Py_tp_hash, record_hash},          {Py_tp_richcompare, record_richcompare},
    {Py_tp_repr, record_repr},          {0, NULL},
};

PyType_Spec dhp_record_spec = {"dirtyheap.Record", sizeof(dhp_proxy), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, record_slots};

/* --- records of unknown classes --------------------------------------------------------------- */

/* Index of the stored field with this name, or a negative code. */
static int unknown_find(dhp_proxy *self, PyObject *name, dh_class_view *class_out,
                        dh_word *word_out)
{
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(name, &size);
    if (utf8 == NULL) {
        PyErr_Clear();
        return DH_E_ABSENT;
    }
    dh_heap *heap = self->core->heap;
    dh_record_view view;
    int rc = dh_record_open(heap, self->handle.word, &view);
    if (rc == 0)
        rc = dh_class_read(heap, view.class_word, class_out);
    int slot = rc != 0 ? rc : dh_class_find(heap, class_out, (const uint8_t *)utf8, (size_t)size);
    if (slot < 0)
        return slot;
    int place = dh_record_place(&view, class_out, (size_t)slot);
    return dh_record_load(&view, place, word_out) ? slot : DH_E_CORRUPT;
}

static PyObject *unknown_getattro(PyObject *obj, PyObject *name)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    PyObject *found = PyObject_GenericGetAttr(obj, name);
    dh_word word = DH_EMPTY;
    dh_class_view class;
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return found;
    PyErr_Clear();
    if (dhp_word(self) == 0)
        return NULL;
    int slot = unknown_find(self, name, &class, &word);
    if (word != DH_EMPTY)
        return dhp_object_from(self->core, word);
    if (slot < 0 && slot != DH_E_ABSENT) {
        dhp_raise(self->core, slot);
        return NULL;
    }
    PyObject *class_name = record_name(self);
    if (class_name != NULL)
        PyErr_Format(PyExc_AttributeError,
                     "the stored record '%U', whose class this program does not define, has no "
                     "value '%U'",
                     class_name, name);
    Py_XDECREF(class_name);
    return NULL;
}

static int refuse_unknown(dhp_proxy *self, PyObject *name, int slot, const dh_class_view *class,
                          PyObject *value)
{
    PyObject *class_name = record_name(self), *text = NULL;
    if (class_name != NULL && slot < 0)
        PyErr_Format(PyExc_AttributeError, "the stored record '%U' has no field '%U'", class_name,
                     name);
    else if (class_name != NULL && value == NULL)
        PyErr_Format(PyExc_AttributeError, "%U.%U cannot be deleted: a record keeps its fields",
                     class_name, name);
    else if (class_name != NULL)
        text = dhp_stored_type_text(self->core, class, (size_t)slot);
    PyObject *type = text != NULL ? PyType_GetQualName(Py_TYPE(value)) : NULL;
    if (type != NULL)
        PyErr_Format(PyExc_TypeError, "%U.%U must be %U, not %U", class_name, name, text, type);
    Py_XDECREF(type);
    Py_XDECREF(text);
    Py_XDECREF(class_name);
    return -1;
}

/* What the stored class lets in; new reference, or NULL without exception. */
static PyObject *unknown_admit(dhp_proxy *self, const dh_class_view *class, int slot,
                               PyObject *value)
{
    dh_kinds kinds = dh_class_kinds(class, (size_t)slot);
    dh_kinds kind = dhp_kind_of_object(self->core->state, value);
    bool has_names = class->words[3 * (size_t)slot + 2] != DH_NONE;
    bool by_name = kind == 0 || kind == (dh_kinds)1 << DH_T_RECORD;
    if (kinds & (kind | DH_KINDS_ANY) || (has_names && by_name))
        return Py_NewRef(value);
    return dh_kinds_held(kinds) & kind ? PyNumber_Float(value) : NULL;
}

/* The same of the word that was made: what it is was not always known before. */
static bool unknown_holds(const dh_class_view *class, int slot, dh_word word)
{
    dh_kinds kinds = dh_class_kinds(class, (size_t)slot);
    if (class->words[3 * (size_t)slot + 2] != DH_NONE)
        kinds |= DH_KINDS_BY_NAME;
    return (kinds & (dh_kind_of(word) | DH_KINDS_ANY)) != 0;
}

static int unknown_setattro(PyObject *obj, PyObject *name, PyObject *value)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_class_view class;
    dh_word word, old;
    if (dhp_word_for_store(self) == 0)
        return -1;
    int slot = unknown_find(self, name, &class, &old);
    if (slot < 0 && slot != DH_E_ABSENT)
        return dhp_raise(self->core, slot);
    PyObject *admitted =
        slot >= 0 && value != NULL ? unknown_admit(self, &class, slot, value) : NULL;
    if (admitted == NULL)
        return PyErr_Occurred() ? -1 : refuse_unknown(self, name, slot, &class, value);
    int rc = dhp_word_from(self->core, admitted, &word);
    Py_DECREF(admitted);
    if (rc < 0)
        return -1;
    rc = DH_E_ABSENT;
    if (dhp_word_for_store(self) != 0) {
        slot = unknown_find(self, name, &class, &old);
        if (slot >= 0 && !unknown_holds(&class, slot, word))
            rc = refuse_unknown(self, name, slot, &class, value);
        else if (slot >= 0)
            rc = dh_record_set(self->core->heap, self->handle.word, (size_t)slot, word);
        if (rc == 0)
            return 0;
        if (!PyErr_Occurred())
            dhp_raise(self->core, rc);
    }
    if (self->core->heap != NULL)
        dh_value_drop(self->core->heap, word);
    return -1;
}

PyDoc_STRVAR(unknown_doc, "A record whose class this program does not define.\n\n"
                          "Its attributes are the fields it was stored with.");

static PyType_Slot unknown_slots[] = {
    {Py_tp_doc, (void *)unknown_doc},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_getattro, unknown_getattro},
    {Py_tp_setattro, unknown_setattro},
    {0, NULL},
};

PyType_Spec dhp_unknown_record_spec = {"dirtyheap._native.UnknownRecord", sizeof(dhp_proxy), 0,
                                       Py_TPFLAGS_DEFAULT, unknown_slots};
