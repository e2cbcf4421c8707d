/* record_schema.c -- RecordSchema: what this program says about one record class.
 *
 * Made by dirtyheap/records.py, which owns the meaning of annotations; here they are kinds and
 * classes to compare with. Annotations are resolved when they are first needed, for they may name
 * classes that are defined later.
 */
#include <stdarg.h>
#include <stdlib.h>

#include "records.h"

/* --- messages --------------------------------------------------------------------------------- */

int dhp_raise_record_class(dhp_state *state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *text = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (utf8 != NULL)
        dhp_raise_named(state, "RecordClassError", utf8);
    Py_XDECREF(text);
    return -1;
}

/* Add " | name". Steals name; false with an exception. */
static bool text_add(PyObject **text, PyObject *name)
{
    if (name == NULL)
        return false;
    PyObject *longer =
        *text == NULL ? Py_NewRef(name) : PyUnicode_FromFormat("%U | %U", *text, name);
    dhp_replace(text, longer);
    Py_DECREF(name);
    return longer != NULL;
}

PyObject *dhp_stored_type_text(dhp_core *core, const dh_class_view *view, size_t index)
{
    static const char *const names[] = {[DH_T_STR] = "str",
                                        [DH_T_BYTES] = "bytes",
                                        [DH_T_FLOAT] = "float",
                                        [DH_T_BIGINT] = "int",
                                        [DH_T_TUPLE] = "tuple",
                                        [DH_T_DICT] = "dict",
                                        [DH_T_LIST] = "list",
                                        [DH_T_BUFFER] = "Buffer",
                                        [9] = "set",
                                        [10] = "deque",
                                        [11] = "SortedDict",
                                        [12] = "array",
                                        [DH_T_RECORD] = "Record",
                                        [14] = "frozenset",
                                        [15] = "other",
                                        [16] = "None",
                                        [17] = "bool"};
    dh_kinds kinds = dh_class_kinds(view, index);
    dh_word stored = view->words[3 * index + 2];
    const dh_word *words;
    size_t count = 0;
    PyObject *text = NULL;
    if (kinds & DH_KINDS_ANY)
        return PyUnicode_FromString("Any");
    if (kinds & DH_KINDS_INT)
        kinds &= ~DH_KINDS_BOOL; /* an int field takes bools as Python does */
    for (size_t bit = 1; bit < sizeof names / sizeof names[0]; bit++)
        if (kinds >> bit & 1u && bit != 16 && !text_add(&text, PyUnicode_FromString(names[bit])))
            return NULL;
    if (stored != DH_NONE && dh_tuple_read(core->heap, stored, &words, &count) != 0)
        count = 0;
    for (size_t i = 0; i < count; i++)
        if (!text_add(&text, dhp_class_text(core, dh_load(&words[i]))))
            return NULL;
    if ((kinds & DH_KINDS_NONE || text == NULL) && !text_add(&text, PyUnicode_FromString("None")))
        return NULL;
    return text;
}

/* --- values ----------------------------------------------------------------------------------- */

dh_kinds dhp_kind_of_object(const dhp_state *state, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyLong_Type)
        return DH_KINDS_INT;
    if (type == &PyUnicode_Type)
        return DH_KINDS_STR;
    if (type == &PyFloat_Type)
        return DH_KINDS_FLOAT;
    if (type == &PyBool_Type)
        return DH_KINDS_BOOL;
    if (obj == Py_None)
        return DH_KINDS_NONE;
    if (dhp_is_proxy(state, obj)) {
        dh_word word = ((dhp_proxy *)obj)->handle.word;
        return word != 0 ? dh_kind_of(word) : 0;
    }
    return type == &PyBytes_Type   ? DH_KINDS_BYTES
           : type == &PyTuple_Type ? (dh_kinds)1 << DH_T_TUPLE
           : type == &PyDict_Type  ? (dh_kinds)1 << DH_T_DICT
           : type == &PyList_Type  ? (dh_kinds)1 << DH_T_LIST
                                   : 0;
}

static PyObject *refuse_value(const dhp_schema *schema, const dhp_field_info *field,
                              PyObject *value)
{
    PyObject *type = PyType_GetQualName(Py_TYPE(value));
    if (type != NULL)
        PyErr_Format(PyExc_TypeError, "%U.%U must be %U, not %U", schema->name, field->name,
                     field->text, type);
    Py_XDECREF(type);
    return NULL;
}

PyObject *dhp_field_admit(dhp_state *state, const dhp_schema *schema, Py_ssize_t index,
                          PyObject *value)
{
    const dhp_field_info *field = &schema->fields[index];
    dh_kinds kind = dhp_kind_of_object(state, value);
    if (field->kinds & (kind | DH_KINDS_ANY))
        return Py_NewRef(value);
    if (dh_kinds_held(field->kinds) & kind)
        return PyNumber_Float(value);
    int is_instance = field->classes != NULL ? PyObject_IsInstance(value, field->classes) : 0;
    if (is_instance < 0)
        return NULL;
    return is_instance ? Py_NewRef(value) : refuse_value(schema, field, value);
}

int dhp_field_check(const dhp_schema *schema, Py_ssize_t index, PyObject *value, dh_word word)
{
    const dhp_field_info *field = &schema->fields[index];
    if (DH_LIKELY(dh_kind_of(word) & (field->kinds | DH_KINDS_BY_NAME)))
        return 0;
    (void)refuse_value(schema, field, value);
    return -1;
}

int dhp_schema_ready(dhp_schema *schema)
{
    if (DH_LIKELY(schema->is_ready))
        return 0;
    PyObject *done = PyObject_CallNoArgs(schema->complete);
    Py_XDECREF(done);
    if (done == NULL || schema->is_ready)
        return done != NULL ? 0 : -1;
    PyErr_Format(PyExc_RuntimeError, "the types of %U were not set", schema->name);
    return -1;
}

/* --- the registry ----------------------------------------------------------------------------- */

dhp_schema *dhp_schema_of(dhp_state *state, PyObject *class)
{
    if (!PyType_Check(class) || !PyType_IsSubtype((PyTypeObject *)class, state->record_type))
        return NULL;
    PyObject *schema = PyObject_GetAttrString(class, "__dh_schema__");
    if (schema == NULL) {
        PyErr_Clear();
        return NULL;
    }
    /* A class below a record class that is no record class itself inherits the attribute. */
    if (Py_TYPE(schema) == state->schema_type &&
        ((dhp_schema *)schema)->owner == (PyTypeObject *)class)
        return (dhp_schema *)schema;
    Py_DECREF(schema);
    return NULL;
}

PyDoc_STRVAR(register_doc, "register($self, names, /)\n--\n\n"
                           "Read records of these names as the owner from now on.");
static PyObject *schema_register(PyObject *obj, PyObject *names)
{
    dhp_state *state = PyType_GetModuleState(Py_TYPE(obj));
    if (state == NULL || !PyTuple_Check(names))
        return PyErr_Format(PyExc_TypeError, "register() takes a tuple of str");
    Py_ssize_t count = PyTuple_Size(names);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        PyObject *before = PyDict_GetItemWithError(state->record_classes, name);
        if (before != NULL && before != obj)
            ((dhp_schema *)before)->is_retired = true;
        state->records_version++; /* before the old schema may go */
        if (PyDict_SetItem(state->record_classes, name, obj) < 0)
            return NULL;
    }
    ((dhp_schema *)obj)->is_retired = false;
    Py_RETURN_NONE;
}

/* --- the type --------------------------------------------------------------------------------- */

static int schema_traverse(PyObject *obj, visitproc visit, void *arg)
{
    dhp_schema *self = (dhp_schema *)obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->owner);
    Py_VISIT(self->complete);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->fields[i].fallback);
        Py_VISIT(self->fields[i].factory);
        Py_VISIT(self->fields[i].classes);
    }
    return 0;
}

static int schema_clear(PyObject *obj)
{
    dhp_schema *self = (dhp_schema *)obj;
    Py_CLEAR(self->owner);
    Py_CLEAR(self->complete);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_CLEAR(self->fields[i].fallback);
        Py_CLEAR(self->fields[i].factory);
        Py_CLEAR(self->fields[i].classes);
    }
    return 0;
}

static void schema_dealloc(PyObject *obj)
{
    dhp_schema *self = (dhp_schema *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    (void)schema_clear(obj);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_XDECREF(self->fields[i].name);
        Py_XDECREF(self->fields[i].names);
        Py_XDECREF(self->fields[i].covered);
        Py_XDECREF(self->fields[i].text);
    }
    free(self->fields);
    Py_XDECREF(self->fields_names);
    Py_XDECREF(self->name);
    PyObject_GC_Del(obj);
    Py_DECREF(type);
}

/* (name, default, factory, is_shown, is_compared); `missing` stands for none. */
static int field_init(dhp_field_info *field, PyObject *item, PyObject *missing)
{
    PyObject *name, *fallback, *factory;
    int is_shown, is_compared;
    if (!PyTuple_Check(item) ||
        !PyArg_ParseTuple(item, "UOOpp", &name, &fallback, &factory, &is_shown, &is_compared))
        return -1;
    field->name = Py_NewRef(name);
    PyUnicode_InternInPlace(&field->name);
    field->fallback = fallback != missing ? Py_NewRef(fallback) : NULL;
    field->factory = factory != missing ? Py_NewRef(factory) : NULL;
    field->is_shown = is_shown;
    field->is_compared = is_compared;
    return 0;
}

/* Instances are proxies: the class may add no memory to them. */
static int check_owner(dhp_state *state, PyTypeObject *owner)
{
    PyObject *size = PyObject_GetAttrString((PyObject *)owner, "__basicsize__");
    PyObject *dict_at = PyObject_GetAttrString((PyObject *)owner, "__dictoffset__");
    long bytes = size != NULL ? PyLong_AsLong(size) : -1;
    long dict_offset = dict_at != NULL ? PyLong_AsLong(dict_at) : -1;
    Py_XDECREF(size);
    Py_XDECREF(dict_at);
    if (PyErr_Occurred())
        return -1;
    if (PyType_IsSubtype(owner, state->record_type) && bytes == (long)sizeof(dhp_proxy) &&
        dict_offset == 0)
        return 0;
    PyErr_SetString(PyExc_TypeError,
                    "a record class cannot have attributes outside the heap: its bases need "
                    "__slots__ = ()");
    return -1;
}

static PyObject *schema_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", "", "", "", "", "", NULL};
    dhp_state *state = PyType_GetModuleState(type);
    PyObject *name, *fields, *missing, *complete;
    PyTypeObject *owner;
    int has_post_init, is_compared;
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O!UO!OOpp:RecordSchema", names, &PyType_Type,
                                     &owner, &name, &PyTuple_Type, &fields, &missing, &complete,
                                     &has_post_init, &is_compared) ||
        check_owner(state, owner) < 0)
        return NULL;
    Py_ssize_t count = PyTuple_Size(fields);
    if (count > (Py_ssize_t)DH_RECORD_FIELDS_MAX)
        return PyErr_Format(PyExc_TypeError, "%U has %zd fields: at most %u are possible", name,
                            count, DH_RECORD_FIELDS_MAX);
    dhp_schema *self = PyObject_GC_New(dhp_schema, type);
    if (self == NULL)
        return NULL;
    self->id = ++state->schemas_count;
    self->owner = (PyTypeObject *)Py_NewRef((PyObject *)owner);
    self->name = Py_NewRef(name);
    self->complete = Py_NewRef(complete);
    self->fields_names = PyTuple_New(count);
    self->count = 0;
    self->fields = calloc((size_t)count + 1, sizeof *self->fields);
    self->is_ready = self->is_retired = false;
    self->has_post_init = has_post_init;
    self->is_compared = is_compared;
    PyObject_GC_Track((PyObject *)self);
    if (self->fields == NULL || self->fields_names == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    for (self->count = 0; self->count < count; self->count++) {
        PyObject *item = PyTuple_GetItem(fields, self->count);
        if (field_init(&self->fields[self->count], item, missing) < 0) {
            Py_DECREF((PyObject *)self);
            return NULL;
        }
        PyTuple_SetItem(self->fields_names, self->count, Py_NewRef(self->fields[self->count].name));
    }
    return (PyObject *)self;
}

/* (kinds, classes or None, names, covered, text) */
static int field_set_types(dhp_field_info *field, PyObject *item)
{
    PyObject *classes, *names, *covered, *text;
    unsigned kinds;
    if (!PyTuple_Check(item) ||
        !PyArg_ParseTuple(item, "IOO!OU", &kinds, &classes, &PyTuple_Type, &names, &covered, &text))
        return -1;
    if (!PyFrozenSet_CheckExact(covered)) {
        PyErr_SetString(PyExc_TypeError, "covered must be a frozenset");
        return -1;
    }
    field->kinds = kinds;
    dhp_replace(&field->classes, classes == Py_None ? NULL : Py_NewRef(classes));
    dhp_replace(&field->names, Py_NewRef(names));
    dhp_replace(&field->covered, Py_NewRef(covered));
    dhp_replace(&field->text, Py_NewRef(text));
    return 0;
}

PyDoc_STRVAR(set_types_doc,
             "set_types($self, types, /)\n--\n\n"
             "Say what the fields accept: per field (kinds, classes or None, names, covered, "
             "text).\n\nOnce; later calls change nothing. TypeError when a default is not of "
             "its field's type.");
/* As it will be read. */
static int admit_fallback(dhp_state *state, dhp_schema *schema, Py_ssize_t index)
{
    PyObject **fallback = &schema->fields[index].fallback;
    PyObject *admitted = *fallback ? dhp_field_admit(state, schema, index, *fallback) : NULL;
    if (admitted != NULL)
        dhp_replace(fallback, admitted);
    return admitted != NULL || *fallback == NULL ? 0 : -1;
}

static PyObject *schema_set_types(PyObject *obj, PyObject *types)
{
    dhp_schema *self = (dhp_schema *)obj;
    if (!PyTuple_Check(types) || PyTuple_Size(types) != self->count)
        return PyErr_Format(PyExc_TypeError, "set_types() takes a tuple of %zd", self->count);
    dhp_state *state = PyType_GetModuleState(Py_TYPE(obj));
    for (Py_ssize_t i = 0; !self->is_ready && i < self->count; i++)
        if (field_set_types(&self->fields[i], PyTuple_GetItem(types, i)) < 0 ||
            admit_fallback(state, self, i) < 0)
            return NULL;
    self->is_ready = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget($self, /)\n--\n\n"
                         "Read records as the owner no more, whatever their name.");
static PyObject *schema_forget(PyObject *obj, PyObject *ignored)
{
    dhp_state *state = PyType_GetModuleState(Py_TYPE(obj));
    PyObject *names = state != NULL ? PyDict_Keys(state->record_classes) : NULL;
    (void)ignored;
    if (names == NULL)
        return NULL;
    Py_ssize_t count = PyList_Size(names);
    int rc = 0;
    ((dhp_schema *)obj)->is_retired = true;
    state->records_version++;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        PyObject *name = PyList_GetItem(names, i);
        if (PyDict_GetItemWithError(state->record_classes, name) == obj)
            rc = PyDict_DelItem(state->record_classes, name);
    }
    Py_DECREF(names);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *schema_get_name(PyObject *obj, void *closure)
{
    (void)closure;
    return Py_NewRef(((dhp_schema *)obj)->name);
}

static PyObject *schema_get_owner(PyObject *obj, void *closure)
{
    PyTypeObject *owner = ((dhp_schema *)obj)->owner;
    (void)closure;
    return Py_NewRef(owner != NULL ? (PyObject *)owner : Py_None);
}

static PyGetSetDef schema_getset[] = {
    {"owner", schema_get_owner, NULL, "The record class.", NULL},
    {"name", schema_get_name, NULL, "The class's name in heaps.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef schema_methods[] = {
    {"set_types", schema_set_types, METH_O, set_types_doc},
    {"register", schema_register, METH_O, register_doc},
    {"forget", schema_forget, METH_NOARGS, forget_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(schema_doc,
             "RecordSchema(owner, name, fields, missing, complete, has_post_init, is_compared, /)"
             "\n--\n\n"
             "What this program says about a record class. fields: tuples (name, default, factory, "
             "is_shown,\nis_compared), where `missing` stands for none. complete() is called when "
             "the types are needed,\nand calls set_types.");

static PyType_Slot schema_slots[] = {
    {Py_tp_doc, (void *)schema_doc}, {Py_tp_new, schema_new},
    {Py_tp_dealloc, schema_dealloc}, {Py_tp_traverse, schema_traverse},
    {Py_tp_clear, schema_clear},     {Py_tp_getset, schema_getset},
    {Py_tp_methods, schema_methods}, {0, NULL},
};

PyType_Spec dhp_schema_spec = {"dirtyheap._native.RecordSchema", sizeof(dhp_schema), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, schema_slots};
