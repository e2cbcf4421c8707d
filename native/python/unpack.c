/* unpack.c -- packed values back to objects, once the arena is no longer needed.
 *
 * Unpacking runs Python code, so whoever still needs words makes placeholders first: private
 * objects that hold a copy of the bytes (dhp_raw_from). When he is done he has them resolved. A
 * placeholder never reaches the user, but for the repr of a container, where it stands for a value
 * that cannot be read here.
 */
#include "state.h"

#include <stdlib.h>

/* The placeholder. */
typedef struct {
    PyObject_HEAD dhp_core *core; /* owned                                  */
    dh_ext_view ext;              /* its pointers lead into bytes           */
    uint8_t *bytes;               /* malloc'd: the key, then the payload    */
} packed;

static int is_packed(const dhp_core *core, PyObject *obj)
{
    return Py_TYPE(obj) == core->state->packed_type;
}

static PyObject *packed_new(dhp_core *core, dh_ext_view ext)
{
    packed *self = PyObject_New(packed, core->state->packed_type);
    if (self == NULL)
        return NULL;
    self->core = (dhp_core *)Py_NewRef((PyObject *)core);
    self->ext = ext;
    self->bytes = malloc(ext.key_size + ext.payload_size);
    if (self->bytes == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    if (ext.key_size > 0)
        memcpy(self->bytes, ext.key, ext.key_size);
    memcpy(self->bytes + ext.key_size, ext.payload, ext.payload_size);
    self->ext.key = self->bytes;
    self->ext.payload = self->bytes + ext.key_size;
    core->placeholders_count++;
    return (PyObject *)self;
}

PyObject *dhp_packed_from(dhp_core *core, dh_word word)
{
    dh_ext_view ext;
    int rc = dh_ext_read(core->heap, word, &ext);
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    PyObject *date = dhp_date_unpack(core->state, &ext);
    return date != NULL || PyErr_Occurred() ? date : packed_new(core, ext);
}

static void packed_dealloc(PyObject *obj)
{
    packed *self = (packed *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    free(self->bytes);
    Py_DECREF((PyObject *)self->core);
    PyObject_Free(obj);
    Py_DECREF(type);
}

/* --- one value -------------------------------------------------------------------------------- */

/* The exception that is set, as what the reader of a heap is told; it may stay what it is. */
static void explain_failure(dhp_core *core, PyObject *payload)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    PyObject *scalars = dhp_scalars(core->state);
    PyObject *told =
        scalars ? PyObject_CallMethod(scalars, "explain_failure", "OO", payload, error) : NULL;
    if (told != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(told), told);
    Py_XDECREF(told);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
}

/* tag and canonical bytes, as the packer gave them; or None. */
static PyObject *key_bytes(const dh_ext_view *ext)
{
    if (ext->key_tag == 0)
        return Py_NewRef(Py_None);
    PyObject *key = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ext->key_size + 1);
    if (key == NULL)
        return NULL;
    char *bytes = PyBytes_AsString(key);
    bytes[0] = (char)ext->key_tag;
    if (ext->key_size > 0)
        memcpy(bytes + 1, ext->key, ext->key_size);
    return key;
}

static PyObject *unpack_plain(dhp_core *core, const dh_ext_view *ext)
{
    PyObject *unpacker = PyList_GetItem(core->state->unpackers, ext->payload[0]);
    PyObject *data = unpacker ? PyBytes_FromStringAndSize((const char *)ext->payload + 1,
                                                          (Py_ssize_t)ext->payload_size - 1)
                              : NULL;
    PyObject *value = data ? PyObject_CallFunctionObjArgs(unpacker, data, NULL) : NULL;
    Py_XDECREF(data);
    return value;
}

static PyObject *unpack_opaque(dhp_core *core, const dh_ext_view *ext, PyObject *payload)
{
    PyObject *key = key_bytes(ext);
    PyObject *value = key ? PyObject_CallMethod(core->state->scalars, "unpack_opaque", "OOO",
                                                (PyObject *)core, key, payload)
                          : NULL;
    Py_XDECREF(key);
    return value;
}

/* Runs Python code. The view may point anywhere but into the arena. */
static PyObject *unpack(dhp_core *core, const dh_ext_view *ext)
{
    PyObject *payload = NULL, *value = NULL;
    if (dhp_scalars(core->state) == NULL)
        return NULL;
    if (ext->payload[0] < DH_EXT_OPAQUE_FIRST)
        value = unpack_plain(core, ext);
    if (DH_LIKELY(value != NULL))
        return value;
    payload = PyBytes_FromStringAndSize((const char *)ext->payload, (Py_ssize_t)ext->payload_size);
    if (payload != NULL && ext->payload[0] >= DH_EXT_OPAQUE_FIRST)
        value = unpack_opaque(core, ext, payload);
    if (payload != NULL && value == NULL)
        explain_failure(core, payload);
    Py_XDECREF(payload);
    return value;
}

PyObject *dhp_unpacked(dhp_core *core, dh_word word)
{
    PyObject *made = dhp_packed_from(core, word);
    if (made == NULL || !is_packed(core, made))
        return made;
    PyObject *value = unpack(core, &((packed *)made)->ext);
    Py_DECREF(made);
    return value;
}

/* --- what placeholders stand in --------------------------------------------------------------- */

/* One pass over objects that hold placeholders. */
typedef struct {
    dhp_core *core;
    dhp_memo made;  /* address of a tuple or frozenset -> what was made of it, owned */
    PyObject *kept; /* list: those met, so that no address is used again             */
    int is_plain;   /* arrays are copied, each once; else shown                      */
} resolution;

static PyObject *resolved(resolution *r, PyObject *obj);

/* By way of a list: Python code must not meet a tuple or frozenset that is half filled. */
static PyObject *resolve_items(resolution *r, PyObject *whole)
{
    int is_tuple = PyTuple_CheckExact(whole);
    PyObject *tuple = is_tuple ? Py_NewRef(whole) : PySequence_Tuple(whole);
    Py_ssize_t count = tuple != NULL ? PyTuple_Size(tuple) : 0;
    PyObject *items = PyList_New(0), *made = NULL;
    int is_same = 1, rc = items != NULL && tuple != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < count; i++) {
        PyObject *item = PyTuple_GetItem(tuple, i), *value = resolved(r, item);
        is_same &= value == item;
        rc = value != NULL ? PyList_Append(items, value) : -1;
        Py_XDECREF(value);
    }
    if (rc == 0)
        made = is_same    ? Py_NewRef(whole)
               : is_tuple ? PyList_AsTuple(items)
                          : PyFrozenSet_New(items);
    Py_XDECREF(items);
    Py_XDECREF(tuple);
    return made;
}

static int remember(resolution *r, PyObject *obj, PyObject *made)
{
    if (PyList_Append(r->kept, obj) < 0)
        return -1;
    if (dhp_memo_add(&r->made, (uint64_t)(uintptr_t)obj, (uint64_t)(uintptr_t)made) == 0)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static PyObject *resolve_whole(resolution *r, PyObject *whole)
{
    uint64_t address = (uint64_t)(uintptr_t)whole;
    PyObject *made = (PyObject *)(uintptr_t)dhp_memo_find(&r->made, address);
    if (made != NULL)
        return Py_NewRef(made);
    if (dhp_recursion_enter(" while values are read from a heap") != 0)
        return NULL;
    int is_shared = Py_REFCNT(whole) > 1;
    made = resolve_items(r, whole);
    dhp_recursion_leave();
    if (made == NULL || !is_shared)
        return made;
    if (remember(r, whole, made) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return Py_NewRef(made);
}

static PyObject *resolve_array(resolution *r, PyObject *array)
{
    if (!r->is_plain)
        return dhp_array_show(array);
    PyObject *made = (PyObject *)(uintptr_t)dhp_memo_find(&r->made, (uint64_t)(uintptr_t)array);
    if (made != NULL)
        return Py_NewRef(made);
    made = dhp_array_copy(array);
    if (made == NULL || remember(r, array, made) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return Py_NewRef(made);
}

/* What the user shall see for obj; a new reference. */
static PyObject *resolved(resolution *r, PyObject *obj)
{
    if (is_packed(r->core, obj))
        return unpack(((packed *)obj)->core, &((packed *)obj)->ext);
    if (Py_TYPE(obj) == r->core->state->array_type)
        return resolve_array(r, obj);
    if (PyTuple_CheckExact(obj) || Py_TYPE(obj) == &PyFrozenSet_Type)
        return resolve_whole(r, obj);
    return Py_NewRef(obj);
}

static int resolve_list(resolution *r, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
        PyObject *item = Py_NewRef(PyList_GetItem(list, i));
        PyObject *value = resolved(r, item);
        int rc = value != NULL ? PyList_SetItem(list, i, value) : -1;
        Py_DECREF(item);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* Keys and values alike, in the same order; hashing the new keys may run Python code. */
static int resolve_dict(resolution *r, PyObject *dict)
{
    PyObject *items = PyDict_Items(dict);
    int rc = items != NULL ? 0 : -1;
    if (rc == 0)
        PyDict_Clear(dict);
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_Size(items); i++) {
        PyObject *pair = PyList_GetItem(items, i);
        PyObject *key = resolved(r, PyTuple_GetItem(pair, 0));
        PyObject *value = key ? resolved(r, PyTuple_GetItem(pair, 1)) : NULL;
        rc = value != NULL ? PyDict_SetItem(dict, key, value) : -1;
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    Py_XDECREF(items);
    return rc;
}

static int resolve_deque(resolution *r, PyObject *deque)
{
    PyObject *elements = PySequence_List(deque), *done = NULL;
    if (elements != NULL && resolve_list(r, elements) == 0)
        done = PyObject_CallMethod(deque, "clear", NULL);
    if (done != NULL)
        dhp_replace(&done, PyObject_CallMethod(deque, "extend", "O", elements));
    Py_XDECREF(elements);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* As a dict's keys. */
static int resolve_set(resolution *r, PyObject *set)
{
    PyObject *elements = PySequence_List(set);
    int rc = elements != NULL ? PySet_Clear(set) : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_Size(elements); i++) {
        PyObject *value = resolved(r, PyList_GetItem(elements, i));
        rc = value != NULL ? PySet_Add(set, value) : -1;
        Py_XDECREF(value);
    }
    Py_XDECREF(elements);
    return rc;
}

/* A private container; anything else has no place of its own for what is resolved. */
static int resolve_container(resolution *r, PyObject *copy)
{
    return PyList_CheckExact(copy)                             ? resolve_list(r, copy)
           : PyDict_CheckExact(copy)                           ? resolve_dict(r, copy)
           : Py_TYPE(copy) == &PySet_Type                      ? resolve_set(r, copy)
           : Py_TYPE(copy) == r->core->state->plain_deque_type ? resolve_deque(r, copy)
                                                               : 0;
}

static int resolution_begin(resolution *r, dhp_core *core)
{
    *r = (resolution){.core = core, .kept = PyList_New(0)};
    return r->kept != NULL ? 0 : -1;
}

static void resolution_end(resolution *r)
{
    dhp_memo_release(&r->made);
    Py_XDECREF(r->kept);
}

PyObject *dhp_resolve(dhp_core *core, uint64_t count_before, PyObject *obj)
{
    resolution r;
    if (obj == NULL || core->placeholders_count == count_before)
        return obj;
    PyObject *value = resolution_begin(&r, core) == 0 ? resolved(&r, obj) : NULL;
    resolution_end(&r);
    Py_DECREF(obj);
    return value;
}

PyObject *dhp_resolve_inside(dhp_core *core, uint64_t count_before, PyObject *copy)
{
    resolution r;
    if (copy == NULL || core->placeholders_count == count_before)
        return copy;
    int rc = resolution_begin(&r, core);
    if (rc == 0)
        rc = resolve_container(&r, copy);
    resolution_end(&r);
    if (rc < 0)
        Py_CLEAR(copy);
    return copy;
}

int dhp_resolve_all(dhp_core *core, const dhp_memo *copies)
{
    resolution r;
    int rc = resolution_begin(&r, core);
    r.is_plain = 1;
    for (size_t i = 0; rc == 0 && i < copies->room; i++) {
        PyObject *copy = (PyObject *)(uintptr_t)copies->items[i].value;
        if (copies->items[i].key != 0)
            rc = resolve_container(&r, copy);
    }
    resolution_end(&r);
    return rc;
}

int dhp_is_still(dhp_core *core, dh_word word, PyObject *raw)
{
    dh_ext_view now;
    if (!is_packed(core, raw))
        return 1;
    const dh_ext_view *then = &((packed *)raw)->ext;
    return dh_ext_read(core->heap, word, &now) == 0 && now.payload_size == then->payload_size &&
           memcmp(now.payload, then->payload, now.payload_size) == 0;
}

/* --- the type --------------------------------------------------------------------------------- */

/* As the value's own; where that cannot be read, why. */
static PyObject *packed_repr(PyObject *obj)
{
    packed *self = (packed *)obj;
    PyObject *value = unpack(self->core, &self->ext), *type, *error, *trace;
    if (value != NULL) {
        PyObject *text = PyObject_Repr(value);
        Py_DECREF(value);
        return text;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *text = PyUnicode_FromFormat("<unreadable: %S>", error != NULL ? error : type);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return text;
}

PyDoc_STRVAR(packed_doc, "A value that is not unpacked yet; private.");

static PyType_Slot packed_slots[] = {
    {Py_tp_doc, (void *)packed_doc},
    {Py_tp_new, dhp_proxy_refuse_new},
    {Py_tp_dealloc, packed_dealloc},
    {Py_tp_repr, packed_repr},
    {0, NULL},
};

PyType_Spec dhp_packed_spec = {"dirtyheap._native.Packed", sizeof(packed), 0, Py_TPFLAGS_DEFAULT,
                               packed_slots};
