/* record_fields.c -- attribute access: the descriptor of one field, its read and its store.
 *
 * The usual read is a few loads: record, layout, slot, object. Everything else (annotations not yet
 * resolved, fields that the record was stored without) is in the slow functions. A read never
 * stores, with one exception: what a default_factory makes is stored when it is first read, for a
 * change of it would be lost otherwise.
 */
#include "records.h"

typedef struct {
    PyObject_HEAD dhp_schema *schema; /* owned */
    Py_ssize_t index;
} dhp_field;

/* --- reading ---------------------------------------------------------------------------------- */

/* A stored word as this field shows it. Ints in a float field are from a time when it was int. */
static inline PyObject *field_object(dhp_core *core, const dhp_field_info *field, dh_word word)
{
    if (dh_is_float(word))
        return PyFloat_FromDouble(dh_float_value(word));
    if (DH_LIKELY(!(field->kinds & DH_KINDS_FLOAT)) ||
        field->kinds & (DH_KINDS_INT | DH_KINDS_ANY) ||
        !(dh_kind_of(word) & (DH_KINDS_INT | DH_KINDS_BOOL)))
        return dhp_object_from(core, word);
    PyObject *number = dhp_object_from(core, word), *made = NULL;
    if (number != NULL)
        made = PyNumber_Float(number);
    Py_XDECREF(number);
    return made;
}

/* The word that stands in a field; EMPTY: the record was stored without it. -1: exception. */
static int field_word(dhp_proxy *self, const dhp_schema *schema, Py_ssize_t index,
                      dh_word *word_out)
{
    dh_record_view view;
    dh_word record = dhp_word(self);
    if (record == 0)
        return -1;
    int rc = dh_record_open(self->core->heap, record, &view);
    if (rc != 0)
        return dhp_raise(self->core, rc);
    const dhp_layout *layout = dhp_layout_get(self->core, view.class_word, schema);
    if (layout == NULL)
        return -1;
    *word_out = DH_EMPTY;
    if (layout->slots[index] >= 0 &&
        !dh_record_load(&view, dhp_layout_place(layout, &view, index), word_out))
        return dhp_raise(self->core, DH_E_CORRUPT);
    return 0;
}

static PyObject *raise_absent(dhp_proxy *self, const dhp_schema *schema, Py_ssize_t index)
{
    dhp_raise_record_class(self->core->state,
                           "%U.%U: this record was stored without the field, which has no "
                           "default: give it one in the class, or set the attribute first",
                           schema->name, schema->fields[index].name);
    return NULL;
}

static int field_store(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index, PyObject *value);

/* For a field that the record was stored without. */
static PyObject *value_by_default(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index, bool store)
{
    const dhp_field_info *field = &schema->fields[index];
    dhp_core *core = self->core;
    dh_word word;
    if (field->fallback != NULL)
        return Py_NewRef(field->fallback);
    if (field->factory == NULL)
        return raise_absent(self, schema, index);
    PyObject *made = PyObject_CallNoArgs(field->factory);
    if (made == NULL || !store || dhp_word(self) == 0 || !dhp_is_writable(core)) {
        if (made != NULL && dhp_word(self) == 0)
            Py_CLEAR(made);
        return made;
    }
    int rc = field_store(self, schema, index, made);
    Py_DECREF(made);
    if (rc < 0 || field_word(self, schema, index, &word) < 0)
        return NULL;
    return field_object(core, field, word);
}

PyObject *dhp_record_value(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index, bool store)
{
    dh_word word;
    if (dhp_schema_ready(schema) < 0 || field_word(self, schema, index, &word) < 0)
        return NULL;
    return word != DH_EMPTY ? field_object(self->core, &schema->fields[index], word)
                            : value_by_default(self, schema, index, store);
}

PyObject *dhp_record_raw(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index)
{
    dh_word word;
    if (dhp_schema_ready(schema) < 0 || field_word(self, schema, index, &word) < 0)
        return NULL;
    if (word == DH_EMPTY)
        return value_by_default(self, schema, index, false);
    if (dh_kind_of(word) & (DH_KINDS_INT | DH_KINDS_BOOL)) /* perhaps as a float */
        return field_object(self->core, &schema->fields[index], word);
    return dhp_raw_from(self->core, word);
}

/* --- storing ---------------------------------------------------------------------------------- */

/* Give the record the class of today. The fields it lacks stay EMPTY. Runs no Python code. */
static int record_widen(dhp_proxy *self, dh_word record, const dhp_schema *schema,
                        const dhp_layout *layout)
{
    dhp_core *core = self->core;
    dh_word class_word;
    if (dhp_class_own(core, schema, &class_word) < 0)
        return -1;
    int rc = dh_record_move(core->heap, record, class_word, layout->slots, (size_t)schema->count);
    return rc == 0 ? 0 : dhp_raise(core, rc);
}

/* Where to store a value of this kind; the record's class allows for it afterwards. -1: exception. */
static int field_place(dhp_proxy *self, const dhp_schema *schema, Py_ssize_t index, dh_kinds kind,
                       dh_record_view *view_out)
{
    dhp_core *core = self->core;
    for (int widened = 0; widened < 2; widened++) {
        dh_word record = dhp_word_for_store(self);
        if (record == 0)
            return -1;
        int rc = dh_record_peek(core->heap, record, view_out);
        const dhp_layout *layout = rc == 0 ? dhp_layout_find(core, view_out, schema) : NULL;
        if (layout == NULL) {
            rc = dh_record_open(core->heap, record, view_out);
            if (rc != 0)
                return dhp_raise(core, rc);
            layout = dhp_layout_get(core, view_out->class_word, schema);
            if (layout == NULL)
                return -1;
        }
        if (layout->slots[index] >= 0 && layout->in_place[index] & kind) {
            int place = dhp_layout_place(layout, view_out, index);
            return place >= 0 ? place : dhp_raise(core, DH_E_CORRUPT);
        }
        if (record_widen(self, record, schema, layout) < 0)
            return -1;
    }
    return dhp_raise(core, DH_E_CORRUPT); /* the class of today lets in what its schema does */
}

static int field_store(dhp_proxy *self, dhp_schema *schema, Py_ssize_t index, PyObject *value)
{
    dhp_core *core = self->core;
    dh_record_view view;
    dh_word word;
    if (dhp_schema_ready(schema) < 0)
        return -1;
    PyObject *admitted = dhp_field_admit(core->state, schema, index, value);
    if (admitted == NULL)
        return -1;
    int rc = dhp_word_for_store(self) != 0 ? dhp_word_from(core, admitted, &word) : -1;
    Py_DECREF(admitted);
    if (rc < 0)
        return -1;
    int place = dhp_field_check(schema, index, value, word);
    if (place == 0)
        place = field_place(self, schema, index, dh_kind_of(word), &view);
    if (place >= 0) {
        rc = dh_record_replace(core->heap, &view, place, word);
        if (DH_LIKELY(rc == 0))
            return 0;
        dhp_raise(core, rc);
    }
    if (core->heap != NULL)
        dh_value_drop(core->heap, word);
    return -1;
}

/* --- the descriptor --------------------------------------------------------------------------- */

static int check_instance(const dhp_field *self, PyObject *instance)
{
    const dhp_schema *schema = self->schema;
    if (DH_LIKELY(schema->owner != NULL && PyObject_TypeCheck(instance, schema->owner)))
        return 0;
    PyObject *type = PyType_GetQualName(Py_TYPE(instance));
    if (type != NULL)
        PyErr_Format(PyExc_TypeError, "field '%U' of %U does not apply to a '%U' object",
                     schema->fields[self->index].name, schema->name, type);
    Py_XDECREF(type);
    return -1;
}

static PyObject *field_get(PyObject *obj, PyObject *instance, PyObject *owner)
{
    const dhp_field *self = (dhp_field *)obj;
    dhp_schema *schema = self->schema;
    dhp_proxy *proxy = (dhp_proxy *)instance;
    dh_record_view view;
    (void)owner;
    if (instance == NULL)
        return Py_NewRef(obj);
    if (check_instance(self, instance) < 0)
        return NULL;
    dh_word record = proxy->handle.word;
    if (DH_LIKELY(record != 0 && dh_record_peek(proxy->core->heap, record, &view) == 0)) {
        const dhp_layout *layout = dhp_layout_find(proxy->core, &view, schema);
        dh_word word;
        if (DH_LIKELY(layout != NULL &&
                      dh_record_load(&view, dhp_layout_place(layout, &view, self->index), &word) &&
                      word != DH_EMPTY))
            return field_object(proxy->core, &schema->fields[self->index], word);
    }
    return dhp_record_value(proxy, schema, self->index, true);
}

/* The word of a value that needs no cell. */
static bool inline_word(PyObject *value, dh_word *word_out)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyFloat_Type)
        return dh_float_fits(PyFloat_AsDouble(value), word_out);
    if (type == &PyUnicode_Type) {
        Py_ssize_t size = DH_SHORT_BYTES_MAX + 1;
        const char *utf8 = PyUnicode_GetLength(value) <= (Py_ssize_t)DH_SHORT_BYTES_MAX
                               ? PyUnicode_AsUTF8AndSize(value, &size)
                               : "";
        if (utf8 == NULL)
            PyErr_Clear(); /* a lone surrogate: the slow way knows it */
        if (utf8 == NULL || size > (Py_ssize_t)DH_SHORT_BYTES_MAX)
            return false;
        *word_out = dh_short((const uint8_t *)utf8, (size_t)size, false);
        return true;
    }
    *word_out = value == Py_None ? DH_NONE : value == Py_True ? DH_TRUE : DH_FALSE;
    return value == Py_None || type == &PyBool_Type;
}

/* A store for which nothing is converted, made or freed. */
static bool store_inline(dhp_proxy *proxy, const dhp_field *self, PyObject *value)
{
    dh_kinds kinds = self->schema->fields[self->index].kinds;
    dh_record_view view;
    dh_word word, old;
    if ((!dhp_word_from_int(value, &word) && !inline_word(value, &word)) ||
        !(kinds & dh_kind_of(word)))
        return false;
    dhp_core *core = proxy->core;
    if (proxy->handle.word == 0 || core->heap->is_gated != 0 ||
        dh_record_peek(core->heap, proxy->handle.word, &view) != 0)
        return false;
    const dhp_layout *layout = dhp_layout_find(core, &view, self->schema);
    if (layout == NULL || !(layout->in_place[self->index] & dh_kind_of(word)))
        return false;
    int place = dhp_layout_place(layout, &view, self->index);
    return dh_record_load(&view, place, &old) && !dh_is_ref(old) &&
           dh_record_store(&view, place, word);
}

static int field_set(PyObject *obj, PyObject *instance, PyObject *value)
{
    const dhp_field *self = (dhp_field *)obj;
    if (check_instance(self, instance) < 0)
        return -1;
    if (value == NULL) {
        PyErr_Format(PyExc_AttributeError, "%U.%U cannot be deleted: a record keeps its fields",
                     self->schema->name, self->schema->fields[self->index].name);
        return -1;
    }
    if (DH_LIKELY(store_inline((dhp_proxy *)instance, self, value)))
        return 0;
    return field_store((dhp_proxy *)instance, self->schema, self->index, value);
}

/* --- the type --------------------------------------------------------------------------------- */

static PyObject *field_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", NULL};
    dhp_state *state = PyType_GetModuleState(type);
    PyObject *schema;
    Py_ssize_t index;
    if (state == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!n:RecordField", names,
                                                      state->schema_type, &schema, &index))
        return NULL;
    if (index < 0 || index >= ((dhp_schema *)schema)->count) {
        PyErr_SetString(PyExc_IndexError, "the schema has no such field");
        return NULL;
    }
    dhp_field *self = PyObject_GC_New(dhp_field, type);
    if (self == NULL)
        return NULL;
    self->schema = (dhp_schema *)Py_NewRef(schema);
    self->index = index;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int field_traverse(PyObject *obj, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT((PyObject *)((dhp_field *)obj)->schema);
    return 0;
}

/* No clear: a field without its schema could not answer; the schema's clear breaks every cycle. */
static void field_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    Py_DECREF((PyObject *)((dhp_field *)obj)->schema);
    PyObject_GC_Del(obj);
    Py_DECREF(type);
}

static PyObject *field_repr(PyObject *obj)
{
    const dhp_field *self = (dhp_field *)obj;
    return PyUnicode_FromFormat("<field '%U' of %U>", self->schema->fields[self->index].name,
                                self->schema->name);
}

static PyObject *field_get_name(PyObject *obj, void *closure)
{
    const dhp_field *self = (dhp_field *)obj;
    (void)closure;
    return Py_NewRef(self->schema->fields[self->index].name);
}

static PyGetSetDef field_getset[] = {
    {"__name__", field_get_name, NULL, "Name of the field.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(field_doc, "RecordField(schema, index, /)\n--\n\n"
                        "The attribute of a record class that is one of its fields.");

static PyType_Slot field_slots[] = {
    {Py_tp_doc, (void *)field_doc},   {Py_tp_new, field_new},       {Py_tp_dealloc, field_dealloc},
    {Py_tp_traverse, field_traverse}, {Py_tp_repr, field_repr},     {Py_tp_getset, field_getset},
    {Py_tp_descr_get, field_get},     {Py_tp_descr_set, field_set}, {0, NULL},
};

PyType_Spec dhp_field_spec = {"dirtyheap._native.RecordField", sizeof(dhp_field), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, field_slots};
